"""Options of the baselines: their limits, what they do by pytorch-ood or in closed form, and what is taken unsaid."""

import copy

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from torch import nn

from sparselib import seeds, vision
from sparselib.detection import baselines, detectors, scoring, sensitivity, sensnorm

vision.torchvision()
pytorch_ood = pytest.importorskip("pytorch_ood.detector")


@pytest.mark.parametrize(
    "name, options, theirs",
    [
        (
            "odin",
            {"temperature": 5.0, "eps": 0.05},
            lambda net, layer: pytorch_ood.ODIN(net, temperature=5.0, eps=0.05),
        ),
        ("knn", {"k": 3}, lambda net, layer: pytorch_ood.KNN(net[:-1], k=3)),
        ("knn", {}, lambda net, layer: pytorch_ood.KNN(net[:-1], k=50)),
        ("knn", {"k": 10**6}, lambda net, layer: pytorch_ood.KNN(net[:-1], k=300)),
        ("relative_mahalanobis", {}, lambda net, layer: pytorch_ood.RMD(net[:-1])),
        ("vim", {"dimensions": 5}, lambda net, layer: pytorch_ood.ViM(net[:-1], 5, layer.weight, layer.bias)),
        ("dice", {"p": 0.3}, lambda net, layer: pytorch_ood.DICE(net[:-1], layer.weight, layer.bias, 0.3)),
        ("react", {"percentile": 0.5}, lambda net, layer: pytorch_ood.ReAct(net[:-1], layer, percentile=0.5)),
        *(
            ("ash", options, lambda net, layer, v=v, p=p: pytorch_ood.ASH(net[:-3], _behind(layer), v, p))
            for options, v, p in (
                ({}, "ash-s", 0.65),
                ({"variant": "ash-p", "percentile": 0.8}, "ash-p", 0.8),
                ({"variant": "ash-b"}, "ash-b", 0.65),
            )
        ),
    ],
)
def test_options_are_pytorch_oods(trained, train, test, name, options, theirs):
    net, few, x = copy.deepcopy(trained), train.take(slice(0, 300)), test.x[:30]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(few.x, few.y), batch_size=300)
    oracle = theirs(net, net[-1])
    if name not in ("odin", "ash"):
        oracle.fit(loader)
    expected = oracle.predict(x).detach()
    ours = detectors.build(name, **options).fit(trained, few).score(x)
    torch.testing.assert_close(ours, expected.float(), rtol=1e-3, atol=1e-4)
    assert ours.std() > 0


def _behind(layer):
    return lambda maps: layer(maps.mean((2, 3)))


def test_energy_has_a_temperature(trained, test):
    z = trained(test.x[:9]).detach()
    for options, t in (({"temperature": 3.0}, 3.0), ({}, 1.0)):
        expected = -t * (z / t).exp().sum(1).log()
        torch.testing.assert_close(detectors.build("energy", **options).fit(trained).score(test.x[:9]), expected)


@pytest.mark.parametrize("bias", [True, False])
def test_the_head_gives_its_weight_and_a_bias_of_zeros_where_it_has_none(train, test, bias):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Tanh(), nn.Linear(9, 10, bias=bias))
    few, x = train.take(slice(0, 200)), test.x[:20]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(few.x, few.y), batch_size=200)
    zeros = net[3].bias.detach() if bias else torch.zeros(10)
    for name, theirs in (
        ("vim", pytorch_ood.ViM(net[:-1], 4, net[3].weight, zeros)),  # half of nine features
        ("dice", pytorch_ood.DICE(net[:-1], net[3].weight.detach(), zeros, 0.7)),
    ):
        with torch.no_grad():
            expected = theirs.fit(loader).predict(x)
        ours = detectors.build(name).fit(net, few).score(x)
        torch.testing.assert_close(ours, expected.float(), rtol=1e-3, atol=1e-4)
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Linear(3, 10))
    assert detectors.build("vim").fit(narrow, few).score(x).shape == (20,)  # half of three is one


def test_limits_of_options_are_taken_and_what_lies_beyond_is_named(trained, train):
    for name, options in (
        ("odin", {"eps": 0}),
        ("knn", {"k": 1}),
        ("vim", {"dimensions": 1}),
        ("dice", {"p": 0}),
        ("react", {"percentile": 1}),
        ("ash", {"percentile": 0}),
    ):
        assert detectors.build(name, **options)
    for name, options, message in (
        ("energy", {"temperature": 0}, r"temperature must be in \(0, inf\], got 0"),
        ("odin", {"temperature": 0}, r"temperature must be in \(0, inf\], got 0"),
        ("odin", {"eps": -0.5}, r"eps must be in \[0, inf\], got -0.5"),
        ("knn", {"k": 0}, "k must be at least 1, got 0"),
        ("vim", {"dimensions": 0}, "dimensions must be at least 1, got 0"),
        ("dice", {"p": 1}, r"p must be in \[0, 1\), got 1"),
        ("dice", {"p": -0.5}, r"p must be in \[0, 1\), got -0.5"),
        ("react", {"percentile": 0}, r"percentile must be in \(0, 1\], got 0"),
        ("react", {"percentile": 1.5}, r"percentile must be in \(0, 1\], got 1.5"),
        ("ash", {"percentile": 1}, r"percentile must be in \[0, 1\), got 1"),
        ("ash", {"percentile": -0.5}, r"percentile must be in \[0, 1\), got -0.5"),
        ("ash", {"variant": "ash"}, "unknown variant 'ash'"),
        ("gradnorm", {"layers": "first"}, "unknown layers 'first' .allowed: last, all"),
        ("profile", {"criterion": "crop"}, "unknown criterion 'crop' .allowed: snip, snap"),
        ("sensnorm", {"budget": 0}, "budget must be at least 1, got 0"),
        ("sensnorm", {"norm": -1}, r"norm must be in \(0, inf\], got -1"),
        ("sensnorm", {"aggregate": "sum"}, "unknown aggregate 'sum'"),
    ):
        with pytest.raises(ValueError, match=message):
            detectors.build(name, **options)
    with pytest.raises(ValueError, match="train must hold at least 2 samples for KNN, got 1"):
        detectors.build("knn").fit(trained, train.take(slice(0, 1)))


def test_unsaid_options_of_sensnorm(trained, train, test):
    x, few = test.x[:10], train.take(slice(0, 60))

    def same(ours, theirs):
        return torch.equal(ours.fit(trained, few).score(x), theirs.fit(trained, few).score(x))

    said = {"criterion": "snip", "norm": 2, "target": "predicted", "reference": None, "aggregate": "all", "views": 1}
    assert same(detectors.SensNorm(), detectors.SensNorm(**said, layers="all", standardise=False, per_loss=False))
    assert same(detectors.build("sensnorm"), detectors.SensNorm(**said, layers="last"))
    assert same(detectors.build("profile"), detectors.SensitivityProfile("snip", 2))
    assert same(detectors.build("gradnorm"), detectors.GradNorm("last"))
    other = {"criterion": "snap", "norm": 1, "target": "uniform", "aggregate": "mean", "layers": ["1.weight"]}
    expected = sensitivity.norms(trained, x, **other)
    assert torch.equal(detectors.build("sensnorm", **other).fit(trained).score(x), expected)


def test_a_profile_is_a_distance_under_a_shrunk_covariance(trained, train, test):
    few, x = train.take(slice(0, 100)), test.x[:12]

    def vectors(images, criterion, norm):
        parts = [
            sensitivity.profile(trained, images, target=target, criterion=criterion, norm=norm)
            for target in ("predicted", "logit", "uniform")
        ]
        return torch.cat(parts, 1).double().log().numpy()

    for options in ({}, {"criterion": "snap", "norm": 1}):
        known, own = (vectors(images, **{"criterion": "snip", "norm": 2, **options}) for images in (few.x, x))
        away, precision = own - known.mean(0), LedoitWolf().fit(known).precision_
        expected = np.sqrt(np.einsum("ni,ij,nj->n", away, precision, away))
        found = detectors.build("profile", **options).fit(trained, few).score(x)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_references_are_of_two_thousand_inputs_at_most(monkeypatch, trained, train, test):
    monkeypatch.setattr(sensnorm, "REFERENCE_SAMPLES", 50)
    order = torch.randperm(80, generator=seeds.generator(0, "reference"))[:50].sort().values
    few = train.take(slice(0, 80))
    chosen = few.take(order)
    ours = detectors.SensNorm(reference="train").fit(trained, few)
    mean, _ = sensitivity.moments(trained, chosen.x, chosen.y)
    for name, reference in ours.reference.items():
        torch.testing.assert_close(reference, mean[name], rtol=1e-5, atol=1e-9)
    both = [detectors.build("profile").fit(trained, samples).score(test.x[:5]) for samples in (few, chosen)]
    torch.testing.assert_close(*both, rtol=1e-4, atol=1e-5)


def test_views_are_moved_by_whole_pixels_up_to_a_sixteenth():
    x = torch.arange(2 * 33 * 40.0).view(1, 2, 33, 40)
    views, rng = list(sensnorm.shifted(x, 30)), seeds.generator(0, "views")
    assert torch.equal(views[0], x)
    seen = set()
    for view in views[1:]:
        down, right = torch.randint(-2, 3, (2,), generator=rng).tolist()  # 33 // 16
        rows, columns = ((torch.arange(n) + by).clamp(0, n - 1) for n, by in ((33, down), (40, right)))
        assert torch.equal(view, x[:, :, rows][..., columns])
        seen.add((down, right))
    assert len(seen) > 10
    small = list(sensnorm.shifted(torch.rand(1, 1, 8, 8), 9))  # at least one pixel
    assert len(small) == 9 and any(not torch.equal(small[0], view) for view in small)


def test_fit_takes_the_shape_of_the_training_data_or_of_the_network(trained, train, test):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    anything = baselines.MSP().fit(flat)
    assert anything.score(torch.rand(3, 1, 4, 16)).shape == (3,)
    anything.fit(flat, train)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 1, 8, 8\), got \(3, 1, 4, 16\)"):
        anything.score(torch.rand(3, 1, 4, 16))
    with pytest.raises(ValueError, match="KNN needs training data to fit, got none"):
        baselines.KNN().fit(flat, train.take(slice(0, 0)))
    failed = baselines.KNN().fit(flat, train)
    with pytest.raises(ValueError, match="at least 2 samples"):
        failed.fit(flat, train.take(slice(0, 1)))
    with pytest.raises(RuntimeError, match="KNN must be fitted"):
        failed.score(test.x)


def test_maps_and_features_of_several_batches_are_those_of_one(trained, test):
    x = test.x[:23]
    assert torch.equal(scoring.features(trained, x, batch_size=23), trained[:-1](x).detach())
    for read in (scoring.features, scoring.maps):
        torch.testing.assert_close(read(trained, x, batch_size=5), read(trained, x))
    assert scoring.maps(trained, x).shape[:2] == (23, 32) and scoring.maps(trained, x).shape[2] > 1
