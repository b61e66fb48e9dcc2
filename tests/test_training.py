import pytest
import torch

from sparselib import models, training
from sparselib.robustness import attacks, objectives


def _net(seed=0):
    return models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=8, mean=0.3, std=0.4, seed=seed)


def test_training_learns_is_seeded_and_leaves_the_global_state(train, test):
    nets = [_net(), _net(), _net()]
    state = torch.random.get_rng_state()
    histories = [
        training.fit(n, train, epochs=12, seed=s, progress=False) for n, s in zip(nets, (3, 3, 4), strict=True)
    ]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
    assert not torch.equal(nets[0][1].weight, nets[2][1].weight)
    assert histories[0].loss[-1] < 0.3 * histories[0].loss[0]
    assert training.accuracy(nets[0], test) > 0.9


def test_accuracy_is_the_share_of_right_answers_whatever_the_batch(trained, test):
    right = [int(trained(x[None]).argmax()) == int(y) for x, y in zip(test.x[:40], test.y[:40], strict=True)]
    for batch_size in (1, 7, 512):
        assert training.accuracy(trained, test.take(slice(0, 40)), batch_size=batch_size) == pytest.approx(
            sum(right) / 40, abs=1e-12
        )


def test_modes_are_given_back(train):
    net = _net().eval()
    net[1].train()
    before = [m.training for m in net.modules()]
    training.fit(net, train.take(slice(0, 65)), epochs=1, progress=False)  # a last batch of one sample
    assert [m.training for m in net.modules()] == before


def test_noise_changes_training_and_follows_the_seed(train):
    few = train.take(slice(0, 128))
    nets = [_net() for _ in range(3)]
    for net, noise in zip(nets, (0.5, 0.5, None), strict=True):
        training.fit(net, few, epochs=1, noise=noise, progress=False)
    assert torch.equal(nets[0][1].weight, nets[1][1].weight) and not torch.equal(nets[0][1].weight, nets[2][1].weight)


@pytest.mark.parametrize("method", ["pgd", "trades"])
def test_adversarial_training_makes_robust(method, train, test):
    few, nets = train.take(slice(0, 600)), [_net(), _net()]
    training.fit(nets[0], few, epochs=8, progress=False)
    objective = objectives.Adversarial(0.1, method=method, steps=3)
    training.fit(nets[1], few, epochs=8, adversarial=objective, progress=False)

    def robust(net):
        x = attacks.pgd(net, test.x[:200], test.y[:200], 0.1)
        return (training.logits(net, x).argmax(1) == test.y[:200]).float().mean()

    assert robust(nets[1]) > robust(nets[0]) + 0.1


def test_objectives_are_their_formulas(trained, train):
    x, y = train.x[:16], train.y[:16]
    logits = trained(x).detach()
    clean = torch.nn.functional.cross_entropy(logits, y)
    assert objectives.clean(trained, x, y)[0].item() == pytest.approx(clean.item())
    assert objectives.Adversarial(0.0, method="trades")(trained, x, y)[0].item() == pytest.approx(
        clean.item(), abs=1e-5
    )
    outliers = torch.rand(5, 1, 8, 8)
    for other in (torch.rand(5, 1, 12, 12), torch.rand(5, 3, 8, 8), outliers[:0]):
        with pytest.raises(ValueError, match=r"outliers must be images of the inputs' shape \(1, 8, 8\), at least one"):
            objectives.OutlierExposure(other)(trained, x, y)
    exposed = objectives.OutlierExposure(outliers[:1], weight=0.5)(trained, x, y)[0].detach()
    to_uniform = -trained(outliers[:1]).detach().log_softmax(1).mean()
    assert exposed.item() == pytest.approx((clean + 0.5 * to_uniform).item(), abs=1e-5)
    seen = []
    objectives.HalfNoise()(lambda z: (seen.append(z), trained(z))[1], x, y)
    share = (seen[0] != x).float().mean()
    assert 0.3 < share < 0.55  # half of the pixels, less those that noise and clipping leave at 0 or 1


def test_bad_arguments_are_named(train):
    for arguments, message in [
        ({"epochs": -1}, "epochs must be at least 0, got -1"),
        ({"epochs": 1, "batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"epochs": 1, "lr": 0.0}, r"lr must be in \(0, inf\], got 0.0"),
        ({"epochs": 1, "noise": -1.0}, r"noise must be in \[0, inf\], got -1.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            training.fit(_net(), train, **arguments)
    with pytest.raises(TypeError, match="adversarial must be an objectives.Adversarial or None, got 'pgd'"):
        training.fit(_net(), train, epochs=1, adversarial="pgd")
    with pytest.raises(ValueError, match="unknown method 'free'"):
        objectives.Adversarial(0.1, method="free")
    with pytest.raises(ValueError, match="train must not be empty"):
        training.fit(_net(), train.take(slice(0, 0)), epochs=1)
    with pytest.raises(FloatingPointError, match="not finite in epoch 0; lower lr"):
        training.fit(_net(), train, epochs=1, lr=1e30, progress=False)
    with pytest.raises(ValueError, match="empty set"):
        training.accuracy(_net(), train.take(slice(0, 0)))
    with pytest.raises(ValueError, match="at least 2 classes"):
        training.logits(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1)), train.x[:2])
