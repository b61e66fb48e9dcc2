"""Attacks that know the detector."""

from functools import partial

import pytest
import torch
from masking import EPS, distance, right
from torch import nn

from sparselib import training
from sparselib.detection import detectors, metrics
from sparselib.robustness import attacks


def _evades(net, detector, threshold, x, y):
    return ~right(net, x, y) & (detector.score(x) <= threshold)


@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize("norm", attacks.NORMS)
def test_without_weight_and_threshold_it_is_pgd_up_the_margin(trained, test, norm, early_stop):
    x, y = test.x[:60], test.y[:60]
    options = {"norm": norm, "steps": 6, "restarts": 2, "early_stop": early_stop, "seed": 5}
    score = detectors.build("energy").fit(trained).differentiable
    ours = attacks.adaptive(trained, x, y, EPS[norm] / 2, score, torch.inf, weights=(0.0,), **options)
    assert torch.equal(ours, attacks.pgd(trained, x, y, EPS[norm] / 2, loss="margin", **options))


@pytest.mark.parametrize("scale", [None, 0.25])
@pytest.mark.parametrize("weight", [0.0, 0.7, 20.0])
def test_a_step_goes_up_the_margin_and_down_the_score(weight, scale):
    """A linear network and the score ½‖x − c‖²: up w_other − w_y − λ/σ·(x − c), also by differences."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 2)).double()
    x, centre = 0.3 + 0.4 * torch.rand(5, 1, 2, 3).double(), torch.full((1, 2, 3), 0.45).double()
    y, seen = torch.tensor([0, 1, 0, 1, 1]), []

    def score(x):
        seen.append(x.detach())
        return (x - centre).square().flatten(1).sum(1) / 2

    options = {"norm": "l2", "steps": 1, "step_size": 0.01, "random_start": False}
    found = attacks.adaptive(net, x, y, 0.1, score, 0.0, weights=(weight,), scale=scale, **options)
    assert distance(found, x, "l2").max() <= 0.01 + 1e-12
    step = seen[-1] - x
    rows = net[1].weight.detach()
    sigma = score(x).std(correction=0) if scale is None else scale
    up = (rows[1 - y] - rows[y]).view_as(x) - weight / sigma * (x - centre)
    torch.testing.assert_close(step, 0.01 * up / up.flatten(1).norm(dim=1).view(-1, 1, 1, 1), rtol=1e-9, atol=1e-15)

    def goal(x):
        z = net(x).detach()
        return z.gather(1, 1 - y[:, None])[:, 0] - z.gather(1, y[:, None])[:, 0] - weight * score(x) / sigma

    pixels = torch.eye(6).double().view(6, 1, 2, 3) * 1e-6
    slopes = torch.stack([(goal(x + p) - goal(x - p)) / 2e-6 for p in pixels], 1).view_as(x)
    torch.testing.assert_close(step / 0.01, slopes / slopes.flatten(1).norm(dim=1).view(-1, 1, 1, 1), rtol=0, atol=1e-7)


def test_the_kept_point_is_one_that_passes_before_any_then_of_the_largest_margin(trained, test):
    """Of all points that the score was asked for, by a loop; scores are rounded, so that some are at the threshold."""
    net, x, y = trained, test.x[:60], test.y[:60]
    energy, asked = detectors.build("energy").fit(net), []

    def rounded(x):
        value = energy.differentiable(x)
        value = value + (value.round() - value).detach()
        asked.append((x.detach().clone(), value.detach()))
        return value

    threshold = float(energy.score(x).quantile(0.5).round())
    found = attacks.adaptive(net, x, y, 0.12, rounded, threshold, weights=(0.0, 0.5, 8.0), steps=5, restarts=2)
    passed = asked[1:]  # the first is for the scale
    assert len(passed) == 2 * 3 * (5 + 1)
    margins = [attacks.losses(training.logits(net, point).double(), y, "margin") for point, _ in passed]
    at_threshold = 0
    for i in range(len(x)):
        ranks = [(bool(m[i] > 0 and s[i] <= threshold), float(m[i])) for m, (_, s) in zip(margins, passed, strict=True)]
        best = max(range(len(ranks)), key=lambda place, ranks=ranks: ranks[place])
        assert torch.equal(found[i], passed[best][0][i])
        at_threshold += ranks[best][0] and bool(passed[best][1][i] == threshold)
    assert at_threshold > 0


@pytest.mark.parametrize("name", ["msp", "energy", "knn", "mahalanobis"])
def test_it_evades_detectors_at_least_as_often_as_pgd(trained, train, test, name):
    x, y = test.x[:150], test.y[:150]
    detector = detectors.build(name).fit(trained, train)
    threshold = metrics.threshold(detector.score(test.x[150:]))
    options = {"steps": 10, "seed": 1}
    attacked = attacks.adaptive(trained, x, y, 0.15, detector.differentiable, threshold, **options)
    assert distance(attacked, x, "linf").max() <= 0.15 + 1e-6 and 0 <= attacked.min() <= attacked.max() <= 1
    ours = _evades(trained, detector, threshold, attacked, y)
    for loss in attacks.LOSSES:
        usual = _evades(trained, detector, threshold, attacks.pgd(trained, x, y, 0.15, loss=loss, **options), y)
        assert ours.sum() >= usual.sum()
        if name in ("knn", "mahalanobis"):
            assert ours.sum() > usual.sum() + 5
    blind = attacks.adaptive(trained, x, y, 0.15, detector.differentiable, threshold, weights=(0.0,), **options)
    assert not (_evades(trained, detector, threshold, blind, y) & ~ours).any(), "the worst of the weights counts"
    early = attacks.adaptive(trained, x, y, 0.15, detector.differentiable, threshold, early_stop=True, **options)
    assert torch.equal(_evades(trained, detector, threshold, early, y), ours)


def test_bad_scores_and_weights_are_named(trained, test):
    x, y = test.x[:4], test.y[:4]
    score = detectors.build("msp").fit(trained).differentiable
    attack = partial(attacks.adaptive, trained, x, y, 0.1)
    for call, kind, message in [
        (lambda: attack("msp", 0.0), TypeError, "score must be callable, got str"),
        (lambda: attack(lambda x: x.sum(), 0.0), ValueError, r"finite numbers \(N,\), got \(\) for N = 4"),
        (lambda: attack(lambda x: x.mean((1, 2, 3)) * torch.nan, 0.0), ValueError, "score must map .* to finite"),
        (lambda: attack(score, torch.nan), ValueError, "threshold must be finite, got nan"),
        (lambda: attack(score, "5"), TypeError, "threshold must be a number"),
        (lambda: attack(score, 0.0, weights=()), ValueError, r"weights must be at least one number, got \(\)"),
        (lambda: attack(score, 0.0, weights=(1.0, -1.0)), ValueError, r"weights must be in \[0, inf\], got -1.0"),
        (lambda: attack(score, 0.0, scale=0.0), ValueError, r"scale must be in \(0, inf\], got 0"),
        (lambda: attack(score, 0.0, steps=0), ValueError, "steps must be at least 1, got 0"),
    ]:
        with pytest.raises(kind, match=message):
            call()
    assert attacks.adaptive(trained, x[:0], y[:0], 0.1, score, 0.0).shape == (0, 1, 8, 8)
    attack(lambda x: x.sum((1, 2, 3)) * 0, 0.0, steps=1)  # a score that never varies has no scale: 1
