import json
from importlib import resources

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

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


def test_spec_is_plain_whatever_the_numbers_come_from():
    odd = models.build(
        "convnet", in_channels=np.int64(1), num_classes=torch.tensor(3), image_size=np.int32(8), width=np.int64(2),
        seed=np.int64(1), mean=np.float32(0.5),
    )  # fmt: skip
    plain = models.build("convnet", in_channels=1, num_classes=3, image_size=8, width=2, seed=1, mean=0.5)
    assert json.dumps(odd.spec) == json.dumps(plain.spec)
    assert torch.equal(odd[1].weight, plain[1].weight)


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


FACTORY = """
import torch
from beside import WIDTH

def small(classes=3):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(WIDTH, classes))

def other():
    return 3

def broken():
    raise KeyError("no such thing")

one = small()
"""


@pytest.fixture
def module(tmp_path):
    (tmp_path / "beside.py").write_text("WIDTH = 16", encoding="utf-8")
    (tmp_path / "mine.py").write_text(FACTORY, encoding="utf-8")
    return tmp_path / "mine.py"


def test_a_network_by_path_and_by_name(module, monkeypatch):
    net = models.load(f"{module}:small", classes=5)
    assert not net.training and net(torch.zeros(1, 1, 4, 4)).shape == (1, 5)
    assert models.answers(net, (1, 4, 4), 5) is net
    assert models.load(f"{module}:one")(torch.zeros(1, 1, 4, 4)).shape == (1, 3)
    monkeypatch.syspath_prepend(module.parent)
    assert models.load("mine:small")(torch.zeros(1, 1, 4, 4)).shape == (1, 3)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.safetensors", "nested.pth", "parallel.pth"])
def test_its_weights_are_read_without_running_code(module, name):
    net, path = models.load(f"{module}:small"), module.parent / name
    torch.nn.init.constant_(net[1].weight, 0.5)
    state = net.state_dict()
    if name == "nested.pth":
        state = {"epoch": 3, "model_state_dict": state}
    if name == "parallel.pth":
        state = {f"module.{key}": value for key, value in state.items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    assert (models.load(f"{module}:small", weights=path)[1].weight == 0.5).all()


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("source", "weights", "said"),
    [
        ("{}:absent", None, "no network: AttributeError.*absent"),
        ("{}:other", None, "must give an nn.Module, got int"),
        ("{}:broken", None, "no network: KeyError.*no such thing"),
        ("{}", None, "must be 'path/to/module.py:factory'"),
        ("/absent/mine.py:small", None, "no file /absent/mine.py"),
        ("no_such_package.models:small", None, "No module named 'no_such_package'"),
        ("{}:small", lambda net: net, "export them by torch.save"),
        ("{}:small", lambda net: Evil(), "export them by torch.save"),
        ("{}:small", lambda net: {"1.weight": torch.zeros(3, 15)}, r"1.weight is \(3, 15\) in the file, \(3, 16\)"),
        ("{}:small", lambda net: {"fc.weight": torch.zeros(3, 16)}, r"1.weight is none in the file, \(3, 16\)"),
        ("{}:small", lambda net: {**net.state_dict(), "x": torch.zeros(2)}, r"x is \(2,\) in the file, none in"),
        ("{}:small", lambda net: {k: v * float("nan") for k, v in net.state_dict().items()}, "not finite: 1.weight"),
        ("{}:small", lambda net: [1, 2], "must hold named tensors"),
    ],
)
def test_what_does_not_fit_is_named(module, capsys, source, weights, said):
    path = None
    if weights:
        path = module.parent / "w.pth"
        torch.save(weights(models.load(f"{module}:small")), path)
    with pytest.raises((ValueError, TypeError), match=said):
        models.load(source.format(module), weights=path)
    assert "run" not in capsys.readouterr().out


def test_networks_for_other_data_are_named(module):
    net = models.load(f"{module}:small")
    with pytest.raises(ValueError, match=r"does not take images of shape \(1, 5, 5\)"):
        models.answers(net, (1, 5, 5), 3)
    with pytest.raises(ValueError, match="tells 3 classes apart, the data have 10"):
        models.answers(net, (1, 4, 4), 10)
    (module.parent / "junk.pth").write_bytes(b"junk")
    with pytest.raises(ValueError, match="junk.pth' cannot be read|would have to run code"):
        models.load(f"{module}:small", weights=module.parent / "junk.pth")
    with pytest.raises(ValueError, match="weights must be a file"):
        models.load(f"{module}:small", weights=module.parent / "absent.pth")


def test_weights_may_lie_in_a_package_that_is_not_run(tmp_path, monkeypatch):
    package = tmp_path / "carries_weights"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('run')", encoding="utf-8")
    torch.save(torch.nn.Linear(2, 3).state_dict(), package / "data" / "w.pth")
    monkeypatch.syspath_prepend(tmp_path)
    net = torch.nn.Linear(2, 3)
    models.fill(net, "carries_weights:data/w.pth")
    assert torch.equal(net.weight, torch.load(package / "data" / "w.pth")["weight"])
    with pytest.raises(ValueError, match="no package 'carries_nothing' is installed"):
        models.fill(net, "carries_nothing:data/w.pth")
    with pytest.raises(ValueError, match="weights must be a file, got .*w2.pth"):
        models.fill(net, "carries_weights:data/w2.pth")


def test_the_published_network_knows_the_digits_that_come_with_it():
    files = resources.files(pytest.importorskip("ccexam", reason="install the extra foreign"))
    net = models.load("sparselib.others:ccexam_mnist", weights="ccexam:weights/mnist.pth")
    for file in sorted((files / "samples").iterdir()):
        if file.name.startswith("mnist"):
            x = torch.from_numpy(np.array(Image.open(file).convert("L"))).float()[None, None] / 255
            assert net(x).argmax(1).item() == int(file.stem[-1])
            assert net(x).softmax(1).amax() > 0.9
    models.answers(net, (1, 28, 28), 10)
