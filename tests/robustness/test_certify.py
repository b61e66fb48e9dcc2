import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from torch import nn

from sparselib import models, training
from sparselib.robustness import certify


class Linear(nn.Module):
    """Two classes split by the plane w·x + b = 0: smoothing does not move it, the exact radius is |w·x + b|/‖w‖."""

    w, b = torch.tensor([3.0, -1.0, 2.0, 0.5]), -0.7

    def forward(self, x):
        z = x.flatten(1) @ self.w.to(x) + self.b
        return torch.stack([-z, z], dim=1)

    def exact(self, x):
        z = x.flatten(1) @ self.w + self.b
        return (z > 0).long(), z.abs() / self.w.norm()


@pytest.fixture
def points():
    return torch.rand(24, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def test_lower_bound_is_clopper_pearson():
    for n in (1, 10, 1000, 100_000):
        for k in sorted({0, 1, n // 2, n - 1, n}):
            for alpha in (0.001, 0.05, 0.3):
                bound = certify.lower_bound(k, n, alpha)
                assert bound == pytest.approx(proportion_confint(k, n, alpha=2 * alpha, method="beta")[0], abs=1e-12)
                if k:  # at the bound, k hits or more have probability alpha
                    assert stats.binom.sf(k - 1, n, bound) == pytest.approx(alpha, rel=1e-6)


def test_radius_cap():
    caps = {1000: 0.616, 10_000: 0.800, 100_000: 0.953}
    for n, cap in caps.items():
        assert certify.radius_cap(0.25, n, 0.001) == pytest.approx(cap, abs=5e-4)
        assert certify.radius_cap(0.25, n, 0.001) == pytest.approx(
            0.25 * stats.norm.ppf(certify.lower_bound(n, n, 0.001)), rel=1e-9
        )
    assert certify.radius_cap(0.25, 5, 0.001) == 0  # 5 of 5 do not show a majority at this confidence
    assert certify.radius_cap(1.0, 10**18, 0.001) > 8  # 0.001^(1/n) rounds to 1 here


def test_linear_model_has_its_exact_radius(points):
    sigma, n, alpha = 0.3, 50_000, 0.001
    model = Linear()
    prediction, radius = certify.certify(model, points, sigma, n=n, alpha=alpha, batch_size=20_000)
    truth, exact = model.exact(points)
    sure = prediction != certify.ABSTAIN
    assert sure.float().mean() > 0.9 and torch.equal(prediction[sure], truth[sure])
    assert (radius[~sure] == 0).all() and (exact[~sure] < 0.01).all()
    assert (radius <= exact).all()  # one of 24 would fail with probability below 3 %, and the seed is fixed
    assert radius.max() <= certify.radius_cap(sigma, n, alpha) * (1 + 1e-6)
    assert (exact - radius)[exact < 2 * sigma].max() < 0.05 * sigma
    assert prediction.dtype == torch.int64 and radius.dtype == torch.float32


def test_certificates_are_wrong_as_rarely_as_promised_and_not_much_more_rarely():
    model, alpha, repeats = Linear(), 0.05, 1500
    x = torch.full((1, 1, 2, 2), 0.25).expand(repeats, -1, -1, -1)  # each index draws its own noise
    exact = model.exact(x[:1])[1].item()
    _, radius = certify.certify(model, x, 0.3, n0=10, n=200, alpha=alpha)
    wrong = (radius > exact).double().mean().item()
    assert alpha / 2 < wrong <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / repeats)


def test_on_the_boundary_it_abstains():
    on = torch.zeros(20, 1, 2, 2)
    on[:, 0, 0, 0] = 0.7 / 3
    prediction, radius = certify.certify(Linear(), on, 0.5)
    assert (prediction == certify.ABSTAIN).all() and (radius == 0).all()
    assert certify.ABSTAIN == -1


def test_result_depends_on_index_and_seed_only():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    x = torch.rand(8, 1, 8, 8, dtype=torch.float64)
    first = certify.certify(net, x, 0.2, n0=30, n=120)
    assert first[1].unique().numel() > 3  # the counts differ, so a change would show
    for batch_size in (1, 7, 64, 1000):
        again = certify.certify(net, x, 0.2, n0=30, n=120, batch_size=batch_size)
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    others = torch.cat([torch.rand(5, 1, 8, 8, dtype=torch.float64), x[5:]])
    alone = certify.certify(net, others, 0.2, n0=30, n=120)
    assert torch.equal(alone[0][5:], first[0][5:]) and torch.equal(alone[1][5:], first[1][5:])
    assert not torch.equal(first[1], certify.certify(net, x, 0.2, n0=30, n=120, seed=1)[1])


def test_picks_with_the_first_copies_and_certifies_with_the_others():
    """Oracle: the whole algorithm written down again, on the same noise."""
    from sparselib import seeds

    model, x, sigma, n0, n, alpha = Linear(), torch.full((1, 1, 2, 2), 0.25), 0.3, 25, 300, 0.01
    noise = seeds.numpy_generator(5, "certify", 0).standard_normal((n0 + n, 1, 2, 2), dtype=np.float32)
    votes = model(x + sigma * torch.from_numpy(noise)).argmax(1)
    picked = votes[:n0].mode().values
    low = stats.beta.ppf(alpha, int((votes[n0:] == picked).sum()), n - int((votes[n0:] == picked).sum()) + 1)
    prediction, radius = certify.certify(model, x, sigma, n0=n0, n=n, alpha=alpha, seed=5)
    assert prediction.item() == picked and radius.item() == pytest.approx(sigma * stats.norm.ppf(low), rel=1e-5)


def test_model_and_random_states_are_left_alone(trained, test):
    net = nn.Sequential(copy.deepcopy(trained), nn.Dropout(0.5)).train()
    net[0].eval()
    buffers = [b.clone() for b in net.buffers()]
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = certify.certify(net, test.x[:3], 0.25, n0=10, n=40)
    second = certify.certify(net, test.x[:3], 0.25, n0=10, n=40)
    assert torch.equal(first[1], second[1])  # in train mode dropout would make them differ
    assert net.training and net[1].training and not net[0].training
    assert all(torch.equal(a, b) for a, b in zip(buffers, net.buffers(), strict=True))
    assert all(p.grad is None for p in net.parameters()) and not first[1].requires_grad
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_training_with_noise_makes_larger_certificates(train, test):
    certified = []
    for noise in (None, 0.5):
        net = models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=8, mean=0.3, std=0.4)
        training.fit(net, train, epochs=8, noise=noise, progress=False)
        prediction, radius = certify.certify(net, test.x[:60], 0.5, n0=50, n=300)
        certified.append(torch.where(prediction == test.y[:60], radius, 0).mean().item())
    assert certified[1] > 1.3 * certified[0] > 0


def test_half_precision_rounds_what_the_network_sees_not_the_noise(points):
    """The network at half precision is the one that rounds its input: the same certificate, up to points on a rim."""
    model = Linear()
    rounding = Linear()
    rounding.forward = lambda x: Linear.forward(rounding, x.bfloat16().float())
    x = points[:6].bfloat16()
    expected = certify.certify(rounding, x.float(), 0.3, n=400)
    found = certify.certify(model, x, 0.3, n=400)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=0.05, atol=0.01)


def test_empty_batch(trained, test):
    prediction, radius = certify.certify(trained, test.x[:0], 0.25)
    assert prediction.shape == radius.shape == (0,)
    assert prediction.dtype == torch.int64 and radius.dtype == torch.float32


def test_bad_arguments_are_named(points):
    model = Linear()
    bad = [
        (ValueError, r"sigma must be in \(0, inf\], got 0", lambda: certify.certify(model, points, 0)),
        (ValueError, "sigma must be finite", lambda: certify.certify(model, points, math.nan)),
        (TypeError, "sigma must be a number", lambda: certify.certify(model, points, "0.25")),
        (ValueError, "n must be at least 1, got 0", lambda: certify.certify(model, points, 0.25, n=0)),
        (ValueError, "n0 must be at least 1, got 0", lambda: certify.certify(model, points, 0.25, n0=0)),
        (ValueError, "n must be at least n0 = 100.*got 50", lambda: certify.certify(model, points, 0.25, n=50)),
        (TypeError, "n must be an int", lambda: certify.certify(model, points, 0.25, n=1e5)),
        (ValueError, r"alpha must be in \(0, 1\), got 0", lambda: certify.certify(model, points, 0.25, alpha=0)),
        (ValueError, r"alpha must be in \(0, 1\), got 1", lambda: certify.certify(model, points, 0.25, alpha=1.0)),
        (ValueError, "batch_size must be at least 1", lambda: certify.certify(model, points, 0.25, batch_size=0)),
        (ValueError, "x must be finite", lambda: certify.certify(model, points * math.nan, 0.25)),
        (ValueError, "logits that are NaN", lambda: certify.certify(lambda_net(math.nan), points, 0.25)),
        (ValueError, "at least 2 classes, got 1", lambda: certify.certify(one_class(), points, 0.25)),
        (
            ValueError,
            "x must be on the device of the model, meta, got cpu",
            lambda: certify.certify(one_class().to("meta"), points, 0.25),
        ),
        (ValueError, "alpha must be", lambda: certify.radius_cap(0.25, 100, 2)),
        (ValueError, "sigma must be", lambda: certify.radius_cap(-1, 100, 0.1)),
        (ValueError, "n must be at least 1", lambda: certify.radius_cap(1, 0, 0.1)),
        (ValueError, r"k must be in 0..10, got 11", lambda: certify.lower_bound(11, 10, 0.1)),
    ]
    for kind, message, call in bad:
        with pytest.raises(kind, match=message):
            call()


def one_class():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 1))


def lambda_net(value):
    net = models.build("convnet", in_channels=1, num_classes=2, image_size=4, width=1)
    net[-1].bias.data.fill_(value)
    return nn.Sequential(nn.Upsample(size=(4, 4)), net)


def test_options_that_are_not_said_and_their_limits(points):
    ours = certify.certify(Linear(), points[:4], 0.3)
    theirs = certify.certify(Linear(), points[:4], 0.3, n0=100, n=1000, alpha=0.001, batch_size=512, seed=0)
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
    certify.certify(Linear(), points[:1], 0.3, n0=1, n=1, batch_size=1)
    for options, message in [
        ({"n0": 0}, "n0 must be at least 1, got 0"),
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"n0": 5, "n": 4}, "n must be at least n0 = 5"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"alpha": 0.0}, r"alpha must be in \(0, 1\), got 0.0"),
        ({"alpha": 1.0}, r"alpha must be in \(0, 1\), got 1.0"),
        ({"sigma": 0.0}, r"sigma must be in \(0, inf\], got 0.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            certify.certify(Linear(), points[:1], **{"sigma": 0.3, **options})
    assert certify.lower_bound(0, 1, 0.5) == 0 and certify.lower_bound(1, 1, 0.25) == pytest.approx(0.25)
    assert certify.radius_cap(1.0, 1, 0.25) == 0 and certify.radius_cap(2.0, 1, 0.75) == pytest.approx(
        2 * stats.norm.ppf(0.75)
    )
    for call, message in [
        (lambda: certify.lower_bound(0, 0, 0.5), "n must be at least 1, got 0"),
        (lambda: certify.lower_bound(-1, 3, 0.5), r"k must be in 0\.\.3, got -1"),
        (lambda: certify.lower_bound(4, 3, 0.5), r"k must be in 0\.\.3, got 4"),
        (lambda: certify.radius_cap(0.0, 3, 0.5), r"sigma must be in \(0, inf\], got 0.0"),
        (lambda: certify.radius_cap(1.0, 0, 0.5), "n must be at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
