"""PGD towards every other class: on a linear classifier what can be broken is known in closed form."""

import pytest
import torch
from masking import EPS, Around, distance, right
from torch import nn

from sparselib import training
from sparselib.robustness import attacks

CLASSES = 10


@pytest.fixture(scope="module")
def linear():
    """A linear classifier, inputs that no attack below clips, and their labels: what it says of them."""
    rng = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng, dtype=torch.float64))
        net[1].bias.copy_(-0.5 * net[1].weight.sum(1))  # in the middle of all inputs, no class is preferred
    x = 0.4 + 0.2 * torch.rand(200, 1, 4, 4, generator=rng, dtype=torch.float64)
    return net, x, training.logits(net, x).argmax(1)


def _reach(net, x, y, eps, norm):
    """(N, K): the largest z_k − z_y in the ball; −∞ for k = y."""
    weight, z = net[1].weight.detach(), training.logits(net, x)
    gap = z - z.gather(1, y[:, None])
    length = (weight - weight[y][:, None]).norm(p=1 if norm == "linf" else 2, dim=2)
    return (gap + eps * length).scatter(1, y[:, None], -torch.inf)


@pytest.mark.parametrize("norm, eps, random_start", [("linf", 0.01, False), ("linf", 0.01, True), ("l2", 0.03, False)])
def test_it_breaks_what_can_be_broken_and_else_finds_the_largest_margin(linear, norm, eps, random_start):
    net, x, y = linear
    options = {"norm": norm, "steps": 12, "random_start": random_start}
    found = attacks.multitargeted(net, x, y, eps, **options)
    reach = _reach(net, x, y, eps, norm).amax(1)
    assert torch.equal(~right(net, found, y), reach > 0), "no input is closer to the rim than the arithmetic"
    margin, left = attacks.losses(training.logits(net, found), y, "margin"), reach < 0
    torch.testing.assert_close(margin[left], reach[left], rtol=0, atol=1e-9)
    assert distance(found, x, norm).max() <= eps + 1e-12
    usual = right(net, attacks.pgd(net, x, y, eps, loss="margin", early_stop=True, **options), y)
    assert norm == "l2" or (usual & ~right(net, found, y)).any(), (
        "the nearest class is not always the one that is reached"
    )


def test_the_first_that_is_broken_ends_the_search_and_no_class_is_asked_twice(linear):
    net, x, y = linear
    passes = []
    counted = Around(net, lambda inner, x: (passes.append(len(x)) if x.requires_grad else None, inner(x))[1])
    attacks.multitargeted(counted, x, y, 1e-9, steps=3, restarts=2)
    assert passes == [len(x)] * (3 * 2 * (CLASSES - 1)), "nothing is broken"
    passes.clear()
    found = attacks.multitargeted(counted, x, (y + 1) % CLASSES, 0.1, steps=3)
    assert not passes and torch.equal(found, x), "all is wrong from the start"
    passes.clear()
    attacks.multitargeted(counted, x, y, 1.0, steps=3)
    assert passes[0] == len(x) and max(passes[3:], default=0) < len(x)


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_what_pgd_leaves_is_broken_further(trained, test, norm):
    x, y, eps = test.x[:300], test.y[:300], 0.7 * EPS[norm]
    options = {"norm": norm, "steps": 10, "seed": 1}
    left = right(trained, attacks.pgd(trained, x, y, eps, loss="both", early_stop=True, **options), y)
    x, y = x[left], y[left]
    found = attacks.multitargeted(trained, x, y, eps, restarts=2, **options)
    assert 0 < (~right(trained, found, y)).sum() < len(x)
    assert found.min() >= 0 and found.max() <= 1 and distance(found, x, norm).max() <= eps * (1 + 1e-5)
    assert torch.equal(found, attacks.multitargeted(trained, x, y, eps, restarts=2, **options)), "the seed decides"
    assert not torch.equal(found, attacks.multitargeted(trained, x, y, eps, restarts=2, **{**options, "seed": 2}))


def test_nothing_and_no_room(linear):
    net, x, y = linear
    assert attacks.multitargeted(net, x[:0], y[:0], 0.1).shape == (0, 1, 4, 4)
    assert torch.equal(attacks.multitargeted(net, x, y, 0.0), x)
    with pytest.raises(ValueError, match="y must be below the number of classes, 10, got 10"):
        attacks.multitargeted(net, x, y.clamp_min(10), 0.1)
    with pytest.raises(ValueError, match="restarts"):
        attacks.multitargeted(net, x, y, 0.1, restarts=0)
