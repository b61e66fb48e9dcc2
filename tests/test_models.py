import pytest
import torch

from sparselib import models

SHAPES = [(1, 8), (1, 28), (3, 32), (3, 64)]


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("channels, size", SHAPES)
def test_every_model_maps_images_to_logits_and_gradients_reach_all_weights(name, channels, size):
    net = models.build(name, in_channels=channels, num_classes=5, image_size=size, width=4)
    logits = net(torch.rand(3, channels, size, size))
    assert logits.shape == (3, 5)
    logits.logsumexp(1).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_parameter_counts_of_the_reference_networks():
    def count(name, **arguments):
        return sum(p.numel() for p in models.build(name, **arguments).parameters())

    cifar = {"in_channels": 3, "num_classes": 10, "image_size": 32}
    assert count("resnet18", **cifar) == 11_173_962  # the usual CIFAR ResNet-18
    assert count("lenet5", in_channels=1, num_classes=10, image_size=28) == 61_706  # LeCun 1998, dense C3
    assert count("vgg16", **cifar) == 14_710_464 + 2 * 4224 + 5130  # convolutions, batch-norm, linear


def test_normalisation_is_inside_and_per_channel():
    plain = models.build("convnet", in_channels=2, num_classes=3, image_size=8).eval()
    shifted = models.build(
        "convnet", in_channels=2, num_classes=3, image_size=8, mean=[0.1, 0.4], std=[0.5, 2.0]
    ).eval()
    x = torch.rand(4, 2, 8, 8)
    same = (x - torch.tensor([0.1, 0.4]).view(1, 2, 1, 1)) / torch.tensor([0.5, 2.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(shifted(x), plain(same))


def test_seed_decides_the_weights_and_global_state_stays():
    state = torch.random.get_rng_state()
    a, b, c = (models.build("convnet", in_channels=1, num_classes=3, image_size=8, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(a[1].weight, b[1].weight) and not torch.equal(a[1].weight, c[1].weight)
    rebuilt = models.build(**c.spec)
    assert torch.equal(rebuilt[1].weight, c[1].weight)


def test_evaluating_restores_every_mode():
    net = models.build("resnet8", in_channels=1, num_classes=3, image_size=8, width=4).train()
    net[2].eval()  # a frozen batch-norm
    before = [m.training for m in net.modules()]
    with pytest.raises(KeyError), models.evaluating(net):
        assert not any(m.training for m in net.modules())
        raise KeyError
    assert [m.training for m in net.modules()] == before


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "resnet81"}, "unknown model 'resnet81'; did you mean 'resnet8'"),
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"mean": [0.1]}, "mean must have one value per channel, 3, got 1"),
        ({"std": 0.0}, "std must be positive"),
    ],
)
def test_bad_arguments_are_named(change, message):
    good = {"name": "resnet18", "in_channels": 3, "num_classes": 10, "image_size": 32}
    with pytest.raises(ValueError, match=message):
        models.build(**{**good, **change})
