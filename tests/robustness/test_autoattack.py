import copy
import random
import sys

import numpy as np
import pytest
import torch
from masking import EPS, MASKED, Around, distance, right
from torch import nn

from sparselib.robustness import attacks, autoattack


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(autoattack, "STEPS", 12)
    monkeypatch.setattr(autoattack, "RESTARTS", 2)
    monkeypatch.setattr(autoattack, "QUERIES", 150)


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_autoattack_is_strong_seeded_and_stays_in_the_ball(quick, trained, test, norm):

    net = copy.deepcopy(trained).train()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    net[1].weight.requires_grad_(False)
    kept = [(t.clone(), t.requires_grad) for t in (*net.parameters(), *net.buffers())]
    x, y = test.x[:40], test.y[:40].clone()
    y[:3] = (y[:3] + 1) % 10  # wrong before any attack
    eps = EPS[norm] * 0.75

    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002

    before = states()
    adversarial = attacks.autoattack(net, x, y, eps, norm=norm)
    assert states() == before
    assert net.training and all(m.training for m in net.modules())
    after = [*net.parameters(), *net.buffers()]
    assert all(torch.equal(t, old) and t.requires_grad == flag for t, (old, flag) in zip(after, kept, strict=True))
    assert all((p.grad == 1).all() for p in net.parameters())

    assert torch.equal(adversarial, attacks.autoattack(net, x, y, eps, norm=norm))
    assert not torch.equal(adversarial, attacks.autoattack(net, x, y, eps, norm=norm, seed=1))
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    assert distance(adversarial, x, norm).max() <= eps * (1 + 1e-6)
    clean, robust = right(net, x, y), right(net, adversarial, y)
    assert torch.equal(adversarial[~clean], x[~clean]) and not (robust & ~clean).any()
    assert torch.equal(adversarial[robust], x[robust]), "what holds is given back as it was"
    for loss in attacks.LOSSES:
        pgd = attacks.pgd(net, x, y, eps, norm=norm, steps=10, loss=loss)
        assert robust.sum() <= right(net, pgd, y).sum()
    assert robust.sum() < clean.sum() - 10


def test_autoattack_sees_through_masks_that_stop_pgd(quick, trained, test):
    x, y = test.x[:40], test.y[:40]
    for mask in ("quantised", "detached"):  # broken by Square
        net = Around(trained, MASKED[mask])
        pgd, strong = (right(net, a(net, x, y, 0.15), y).sum() for a in (attacks.pgd, attacks.autoattack))
        assert strong <= pgd - 10, mask
    # The scale does not matter to the difference of logits ratio, nor to the margin.
    net = Around(trained, MASKED["saturated"])
    margin = right(net, attacks.pgd(net, x, y, 0.1, loss="margin"), y).sum()
    assert right(net, attacks.autoattack(net, x, y, 0.1), y).sum() <= margin


def test_autoattack_takes_a_network_that_returns_probabilities(quick, trained, test):
    x, y = test.x[:20], test.y[:20]
    net = Around(trained, lambda inner, x: inner(x).softmax(1))
    assert right(net, attacks.autoattack(net, x, y, 0.15), y).sum() <= 5


def test_autoattack_takes_two_classes_float64_and_channels(quick):
    torch.manual_seed(0)
    for classes, shape in ((2, (1, 8, 8)), (3, (3, 12, 10))):
        net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), classes)).double()
        x = torch.rand(12, *shape, dtype=torch.float64) * 0.8 + 0.1
        y = net(x).argmax(1)
        margin = net(x).detach().topk(2).values.diff().abs().squeeze(1)
        largest = (net[1].weight[:, None] - net[1].weight).abs().sum(2).max()
        safe = (margin.min() / largest).item() * 0.9  # a linear network: no point closer than this can be adversarial
        assert torch.equal(attacks.autoattack(net, x, y, safe), x)
        broken = attacks.autoattack(net, x, y, 0.1)
        assert broken.dtype == torch.float64 and distance(broken, x, "linf").max() <= 0.1 + 1e-9
        if classes == 2:  # exact: the L1 norm of the difference of the weights times eps, away from the clipping
            exact = margin <= 0.1 * (net[1].weight[0] - net[1].weight[1]).abs().sum()
            assert torch.equal(right(net, broken, y), ~exact)


def test_autoattack_says_when_square_does_not_fit(quick):
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 3))
    x = torch.rand(4, 1, 3, 3)
    with pytest.warns(UserWarning, match="without Square: in l2 it does not fit images of 3×3"):
        attacks.autoattack(net, x, net(x).argmax(1), 0.1, norm="l2")


def test_autoattack_names_what_is_missing(monkeypatch, trained, test):
    x, y = test.x[:4], test.y[:4]
    monkeypatch.setitem(sys.modules, "art.attacks.evasion", None)
    with pytest.raises(ImportError, match="needs the package adversarial-robustness-toolbox"):
        attacks.autoattack(trained, x, y, 0.1)
    with pytest.raises(ValueError, match="below the number of classes, 10, got 10"):
        attacks.autoattack(trained, x, y * 0 + 10, 0.1)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        attacks.autoattack(trained, x, y, 0.1, batch_size=0)
    assert torch.equal(attacks.autoattack(trained, x, y, 0.0), x)
