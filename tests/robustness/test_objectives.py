"""The losses against their formulas written down again, in float64 and in the mode that the network is in."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparselib import seeds
from sparselib.robustness import attacks, objectives


@pytest.fixture
def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 4)]
    net = nn.Sequential(*layers).double()
    net[1].running_mean.normal_()
    return net.train()


@pytest.fixture
def batch():
    rng = torch.Generator().manual_seed(1)
    x = torch.rand(9, 2, 4, 4, generator=rng, dtype=torch.float64) * 1.2 - 0.1  # noise may have left [0, 1]
    return x, torch.randint(4, (9,), generator=rng)


def _evaluated(net, x):
    return copy.deepcopy(net).eval()(x)


def _same(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_clean_is_the_cross_entropy(net, batch):
    x, y = batch
    z = copy.deepcopy(net)(x)
    _same(objectives.clean(net, x, y), (-z.log_softmax(1)[range(9), y].mean(), z))


@pytest.mark.parametrize("norm, steps, seed", [("linf", 3, 0), ("l2", 2, 7)])
def test_adversarial_training_is_the_cross_entropy_on_attacked_inputs(net, batch, norm, steps, seed):
    x, y = batch
    attacked = attacks.pgd(copy.deepcopy(net), x.clamp(0, 1), y, 0.3, norm=norm, steps=steps, seed=seed)
    expected = objectives.clean(copy.deepcopy(net), attacked, y)
    _same(objectives.Adversarial(0.3, norm, steps)(net, x, y, seed=seed), expected)
    assert net.training


@pytest.mark.parametrize("norm", attacks.NORMS)
@pytest.mark.parametrize("eps, steps, beta, seed", [(0.2, 3, 2.5, 0), (0.05, 1, 6.0, 7)])
def test_trades_is_its_formula(net, batch, norm, eps, steps, beta, seed):
    x, y = batch
    inside = x.clamp(0, 1)
    p = _evaluated(net, inside).softmax(1).detach()
    start = 0.001 * torch.randn(x.shape, generator=seeds.generator(seed, "trades")).double()
    attacked = (inside + start).clamp(0, 1)
    for _ in range(steps):
        attacked = attacked.detach().requires_grad_()
        divergence = (p * (p.log() - _evaluated(net, attacked).log_softmax(1))).sum() / 9
        g = torch.autograd.grad(divergence, attacked)[0]
        g = g.sign() if norm == "linf" else g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = attacked.detach() + 2.5 * eps / steps * g - inside
        if norm == "linf":
            delta = delta.clamp(-eps, eps)
        else:
            delta = delta * (eps / delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(max=1)
        attacked = (inside + delta).clamp(0, 1)
    twin = copy.deepcopy(net)
    z, p = twin(x), copy.deepcopy(net)(x).softmax(1)
    q = twin(attacked.detach()).softmax(1)
    expected = F.cross_entropy(z, y) + beta * (p * (p.log() - q.log())).sum() / 9
    objective = objectives.Adversarial(eps, norm, steps, "trades", beta)
    found = objective(net, x, y, seed=seed)
    _same(found, (expected, z))
    found[0].backward()
    assert not torch.equal(objective(twin, x, y, seed=seed + 1)[0], objective(twin, x, y, seed=seed)[0])


def test_half_of_the_pixels_get_noise_in_all_channels(net, batch):
    x, y = batch
    rng = seeds.generator(5, "half noise")
    chosen = torch.rand(9, 1, 4, 4, generator=rng) < 0.5
    noisy = (x + 0.3 * torch.randn(9, 2, 4, 4, generator=rng)).clamp(0, 1)
    expected = objectives.clean(copy.deepcopy(net), torch.where(chosen, noisy, x), y)
    _same(objectives.HalfNoise(0.3)(net, x, y, seed=5), expected)
    assert chosen.any() and not chosen.all()


def test_outliers_are_drawn_by_the_seed_and_pulled_to_the_uniform_distribution(net, batch):
    x, y = batch
    outliers = torch.rand(20, 2, 4, 4)
    drawn = torch.randint(20, (9,), generator=seeds.generator(3, "outliers"))
    z = copy.deepcopy(net)(torch.cat([x, outliers[drawn].double()]))  # one batch: they share its statistics
    expected = F.cross_entropy(z[:9], y) - 0.7 * z[9:].log_softmax(1).mean()
    _same(objectives.OutlierExposure(outliers, 0.7)(net, x, y, seed=3), (expected, z[:9]))


def test_outliers_of_another_shape_and_none_at_all_are_named(net, batch):
    x, y = batch
    for outliers, got in ((torch.rand(3, 2, 4, 5), r"\(3, 2, 4, 5\)"), (x[:0], r"\(0, 2, 4, 4\)")):
        with pytest.raises(ValueError, match=rf"of the inputs' shape \(2, 4, 4\), at least one, got {got}"):
            objectives.OutlierExposure(outliers)(net, x, y)


def test_what_is_not_said_is_the_papers_and_seed_0(net, batch):
    x, y = batch
    assert objectives.Adversarial(0.1) == objectives.Adversarial(0.1, "linf", 7, "pgd", 6.0)
    assert objectives.HalfNoise() == objectives.HalfNoise(1.0)
    assert objectives.OutlierExposure(x).weight == 0.5
    for objective in (
        *(objectives.Adversarial(0.1, steps=2, method=method) for method in ("pgd", "trades")),
        *(objectives.HalfNoise(), objectives.OutlierExposure(x)),
    ):
        assert torch.equal(objective(copy.deepcopy(net), x, y)[0], objective(copy.deepcopy(net), x, y, seed=0)[0])


def test_numbers_out_of_range_are_named(batch):
    x, _ = batch
    objectives.Adversarial(0, steps=1, beta=0), objectives.HalfNoise(0), objectives.OutlierExposure(x, 0)
    for build, message in [
        (lambda: objectives.Adversarial(-0.5), r"eps must be in \[0, inf\], got -0.5"),
        (lambda: objectives.Adversarial(0.1, "l1"), "unknown norm 'l1'"),
        (lambda: objectives.Adversarial(0.1, steps=0), "steps must be at least 1, got 0"),
        (lambda: objectives.Adversarial(0.1, method="free"), r"unknown method 'free'.*pgd, trades"),
        (lambda: objectives.Adversarial(0.1, beta=-0.5), r"beta must be in \[0, inf\], got -0.5"),
        (lambda: objectives.HalfNoise(-0.5), r"std must be in \[0, inf\], got -0.5"),
        (lambda: objectives.OutlierExposure(x, -0.5), r"weight must be in \[0, inf\], got -0.5"),
        (lambda: objectives.OutlierExposure(x[0]), r"outliers must have shape \(N, C, H, W\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            build()
