import copy

import pytest
import torch
import torch.nn.functional as F

from sparselib import data, models, pruning, vision
from sparselib.detection import detectors, scoring, sensnorm
from sparselib.pruning import masks
from sparselib.robustness import ensembles

vision.torchvision()
pytorch_ood = pytest.importorskip("pytorch_ood.detector")


def _one_at_a_time(net, x, y, norm):
    """SensNorm by a loop of single-sample backward passes: the definition, spelt out."""
    net = copy.deepcopy(net).eval()
    values = []
    for xi, yi in zip(x, y, strict=True):
        net.zero_grad()
        F.cross_entropy(net(xi[None]), yi[None]).backward()
        saliency = [(masks.original(m).grad * m.weight).detach().flatten() for m in masks.prunable(net).values()]
        values.append(torch.cat(saliency).norm(p=norm))
    return torch.stack(values)


@pytest.mark.parametrize("norm", [1, 2, 5, torch.inf])
def test_sensnorm_equals_single_sample_backward_passes(grouped, norm):
    x = torch.rand(9, 2, 8, 8, dtype=torch.float64)
    for net in (grouped, pruning.prune(grouped, "magnitude", 0.6)):
        ours = detectors.SensNorm(norm=norm).fit(net).score(x)
        torch.testing.assert_close(ours, _one_at_a_time(net, x, net(x).argmax(1), norm), rtol=1e-10, atol=0)


@pytest.mark.parametrize("name, channels, size", [("resnet8", 1, 28), ("lenet5", 1, 8), ("vgg16", 3, 32)])
def test_sensnorm_on_every_kind_of_network(name, channels, size):
    net = models.build(name, in_channels=channels, num_classes=4, image_size=size, width=4).double()
    x = torch.rand(3, channels, size, size, dtype=torch.float64)
    predicted = net.eval()(x).argmax(1)
    ours = detectors.SensNorm().fit(net).score(x)
    torch.testing.assert_close(ours, _one_at_a_time(net, x, predicted, 2), rtol=1e-9, atol=0)


def test_the_reference_is_the_mean_saliency_of_the_training_data(grouped):
    x = torch.rand(7, 2, 8, 8, dtype=torch.float64)
    train = data.Samples(torch.rand(11, 2, 8, 8, dtype=torch.float64), torch.arange(11) % 4, tuple("0123"), "t")

    def saliency(xi, yi):
        grouped.zero_grad()
        F.cross_entropy(grouped(xi[None]), yi[None]).backward()
        return torch.cat([(m.weight.grad * m.weight).detach().flatten() for m in masks.prunable(grouped).values()])

    all_train = torch.stack([saliency(xi, yi) for xi, yi in zip(train.x, train.y, strict=True)])
    all_test = torch.stack([saliency(xi, yi) for xi, yi in zip(x, grouped(x).argmax(1), strict=True)])
    away = all_train.mean(0) - all_test
    ours = detectors.SensNorm(reference="train", norm=1).fit(grouped, train).score(x)
    torch.testing.assert_close(ours, away.norm(p=1, dim=1), rtol=1e-9, atol=0)
    std = all_train.std(0, correction=0)
    scaled = torch.where(std > 0, away / std, 0).norm(dim=1)
    ours = detectors.SensNorm(reference="train", standardise=True).fit(grouped, train).score(x)
    torch.testing.assert_close(ours, scaled, rtol=1e-7, atol=0)


def _ayle(net, x, y):
    """The authors' I(x, y) of each weight, one input at a time: θ⊙∇L/(L + 1e-8) with L = −z_y, {name: (N, …)}."""
    layers = {n: m for n, m in net.named_modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))}
    found = {name: [] for name in layers}
    for xi, yi in zip(x, y, strict=True):
        net.zero_grad()
        loss = -net(xi[None])[0, yi]
        loss.backward()
        for name, layer in layers.items():
            found[name].append((layer.weight * layer.weight.grad / (loss + 1e-8)).detach())
    net.zero_grad()
    return {name: torch.stack(values) for name, values in found.items()}


@pytest.mark.parametrize("masked", [False, True])
def test_the_authors_form_equals_a_loop_of_single_samples(grouped, masked):
    """With batch-norm, strides and groups, of float64; logits of either sign."""
    grouped[8].bias.data += torch.tensor([0.6, -0.2, 0.1, -0.4]).double()
    net = pruning.prune(grouped, "magnitude", 0.6) if masked else grouped
    rng = torch.Generator().manual_seed(0)
    x, known = (torch.rand(n, 2, 8, 8, dtype=torch.float64, generator=rng) for n in (7, 13))
    y = (net(known).argmax(1) + torch.arange(13) % 3) % 4  # a third of them are what the network predicts
    train = data.Samples(known, y, tuple("0123"), "t")
    at = net(known).gather(1, y[:, None])
    assert (at > 0).any() and (at < 0).any()
    plain = net
    if masked:  # the same network with the masked weights as its own
        plain = copy.deepcopy(grouped)
        for name, layer in masks.prunable(net).items():
            plain.get_submodule(name.removesuffix(".weight")).weight.data.copy_(layer.weight.detach())
    reference = {name: values.mean(0) for name, values in _ayle(plain, known, y).items()}
    own = _ayle(plain, x, plain(x).argmax(1))
    layers = [(reference[n] - own[n]).abs().pow(5).flatten(1).sum(1).pow(1 / 5) for n in reference]
    ours = detectors.build("sensnorm-ayle").fit(net, train).score(x)
    torch.testing.assert_close(ours, torch.stack(layers).mean(0), rtol=1e-8, atol=0)
    tight = detectors.build("sensnorm-ayle", budget=1).fit(net.train(), train)
    torch.testing.assert_close(tight.score(x), ours, rtol=1e-8, atol=0)
    options = {"norm": 5, "target": "logit", "reference": "train", "aggregate": "mean", "per_loss": True}
    assert torch.equal(detectors.SensNorm("snip", **options).fit(net, train).score(x), ours)


def test_the_authors_form_is_fixed():
    for options in ({"norm": 2}, {"reference": None}, {"per_loss": False, "layers": "last"}):
        with pytest.raises(ValueError, match=f"'sensnorm-ayle' fixes {next(iter(options))}=.*'sensnorm' takes other"):
            detectors.build("sensnorm-ayle", **options)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nrom'"):
        detectors.build("sensnorm-ayle", nrom=2)
    for target in ("predicted", "uniform"):
        with pytest.raises(ValueError, match=f"per_loss needs target='logit', got target='{target}'"):
            detectors.SensNorm(target=target, per_loss=True)
        with pytest.raises(ValueError, match="per_loss needs target='logit'"):
            detectors.build("sensnorm", target=target, per_loss=True)
    assert detectors.build("sensnorm", target="logit", per_loss=True).saliency["per_loss"]


def test_views_average_the_scores_of_shifted_inputs(trained, test):
    x = test.x[:6]
    views = list(sensnorm.shifted(x, 4))
    assert torch.equal(views[0], x) and len(views) == 4 and all(v.shape == x.shape for v in views)
    single = detectors.SensNorm().fit(trained)
    expected = torch.stack([single.score(v) for v in views]).mean(0)
    torch.testing.assert_close(detectors.SensNorm(views=4).fit(trained).score(x), expected)


def test_score_depends_on_neither_batch_nor_budget_nor_mode(trained, test):
    x = test.x[:20]
    net = copy.deepcopy(trained)
    detector = detectors.build("sensnorm").fit(net)
    together = detector.score(x)
    net.train()
    torch.testing.assert_close(detector.score(x), together, rtol=1e-6, atol=0)
    assert net.training
    alone = torch.cat([detector.score(xi[None]) for xi in x])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=0)  # the logits' rounding in float32
    tight = detectors.build("sensnorm", budget=1).fit(net).score(x)
    torch.testing.assert_close(tight, together, rtol=1e-5, atol=0)
    detector, double = detectors.build("sensnorm").fit(net.double()), x.double()
    alone = torch.cat([detector.score(xi[None]) for xi in double])
    torch.testing.assert_close(alone, detector.score(double), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "name, theirs",
    [
        ("msp", lambda net: pytorch_ood.MaxSoftmax(net)),
        ("maxlogit", lambda net: pytorch_ood.MaxLogit(net)),
        ("energy", lambda net: pytorch_ood.EnergyBased(net)),
        ("entropy", lambda net: pytorch_ood.Entropy(net)),
        ("odin", lambda net: pytorch_ood.ODIN(net)),
    ],
)
def test_logit_scores_equal_pytorch_oods(trained, test, name, theirs):
    net, x = copy.deepcopy(trained), test.x[:30]
    ours = detectors.build(name).fit(net).score(x)
    assert all(p.grad is None for p in net.parameters())
    torch.testing.assert_close(ours, theirs(net).predict(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name, theirs",
    [
        ("mahalanobis", lambda encoder, layer: pytorch_ood.Mahalanobis(encoder)),
        ("knn", lambda encoder, layer: pytorch_ood.KNN(encoder)),
        ("vim", lambda encoder, layer: pytorch_ood.ViM(encoder, 16, layer.weight, layer.bias)),
        ("dice", lambda encoder, layer: pytorch_ood.DICE(encoder, layer.weight, layer.bias, 0.7)),
        ("react", lambda encoder, layer: pytorch_ood.ReAct(encoder, layer)),
    ],
)
def test_feature_scores_equal_pytorch_oods_own_fit(trained, train, test, name, theirs):
    encoder, layer = trained[:-1], trained[-1]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(train.x, train.y), batch_size=len(train))
    with torch.no_grad():
        expected = theirs(encoder, layer).fit(loader).predict(test.x[:30])
    ours = detectors.build(name).fit(trained, train).score(test.x[:30])
    torch.testing.assert_close(ours, expected.float(), rtol=1e-3, atol=1e-4)


def test_gradnorm_is_the_norm_of_the_last_layers_gradient(trained, test):
    net, x = copy.deepcopy(trained).double(), test.x[:8].double()
    expected = []
    for xi in x:
        net.zero_grad()
        (-net(xi[None]).log_softmax(1)).sum().backward()  # targets are ones
        expected.append(
            (-net[-1].weight.grad.abs().sum(), -sum(m.weight.grad.abs().sum() for m in masks.prunable(net).values()))
        )
    last, everything = (torch.stack(v) for v in zip(*expected, strict=True))
    torch.testing.assert_close(detectors.build("gradnorm").fit(net).score(x), last, rtol=1e-10, atol=0)
    torch.testing.assert_close(
        detectors.build("gradnorm", layers="all").fit(net).score(x), everything, rtol=1e-9, atol=0
    )


def test_feature_norm_is_the_other_half_of_gradnorm(trained, test):
    net, x = copy.deepcopy(trained).double(), test.x[:9].double()
    h = net[:-1](x).detach()
    scores = detectors.build("feature_norm").fit(net).score(x)
    torch.testing.assert_close(scores, torch.stack([-sum(abs(v) for v in row) for row in h]), rtol=1e-12, atol=0)
    other = (10 * net(x).softmax(1) - 1).abs().sum(1).detach()
    torch.testing.assert_close(detectors.build("gradnorm").fit(net).score(x), scores * other, rtol=1e-10, atol=0)


DIFFERENTIABLE = ("msp", "maxlogit", "entropy", "energy", "feature_norm", "mahalanobis", "knn")


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_differentiable_scores_are_the_scores_and_have_their_slope(trained, train, test, name):
    net, few = copy.deepcopy(trained), train.take(slice(0, 300))
    detector = detectors.build(name).fit(net, few)
    net.train()
    x = torch.cat([test.x[:40], torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))])
    expected = detector.score(x)
    found = detector.differentiable(x.requires_grad_())
    assert found.requires_grad and net.training and not expected.requires_grad
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * scale)
    [gradient] = torch.autograd.grad(found.sum(), x)
    assert all(p.grad is None for p in net.parameters())
    assert (gradient.flatten(1).abs().amax(1) > 0).float().mean() > 0.9

    # Differences in float64, along one random direction an input; steps so short that they cross no kink.
    known = data.Samples(few.x.double(), few.y, few.classes, "double")
    exact, inside = detectors.build(name).fit(copy.deepcopy(trained).double(), known), x.detach().double()
    leaf = inside.clone().requires_grad_()
    [slopes] = torch.autograd.grad(exact.differentiable(leaf).sum(), leaf)
    way, step = torch.randn(inside.shape, generator=torch.Generator().manual_seed(1)).double(), 1e-8
    ahead, behind = (exact.differentiable(inside + sign * step * way).detach() for sign in (1, -1))
    measured, along = (ahead - behind) / (2 * step), (slopes * way).flatten(1).sum(1)
    away = (along - measured).abs() <= 1e-4 * along.abs() + 1e-6 * max(scale, 1)
    assert away[40:].all() and away.float().mean() > 0.8, "black pixels of digits may lie on a kink"


def test_scores_without_a_slope_are_named(trained, train, test):
    for name in detectors.NAMES:
        if name not in DIFFERENTIABLE:
            detector = detectors.build(name).fit(trained, train.take(slice(0, 200)))
            with pytest.raises(ValueError, match=f"detector {type(detector).__name__} has no score that one backward"):
                detector.differentiable(test.x[:3])
    with pytest.raises(RuntimeError, match="Energy must be fitted"):
        detectors.build("energy").differentiable(test.x)
    detector = detectors.build("knn").fit(trained, train)
    assert detector.differentiable(test.x[:0]).shape == (0,)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 1, 8, 8\)"):
        detector.differentiable(torch.rand(2, 1, 9, 9))


def test_a_score_of_the_last_layer_needs_a_network_that_ends_in_it(trained, train, test):
    """An ensemble's last linear layer is its last member's: what is read there is not about the ensemble."""
    other = models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=8, seed=1)
    ensemble = ensembles.Ensemble([trained, other])
    unused = torch.nn.Sequential(trained, torch.nn.Identity())
    unused[1].never = torch.nn.Linear(3, 3)
    for name in ("feature_norm", "gradnorm", "mahalanobis", "knn", "vim", "react", "dice", "ash"):
        with pytest.raises(ValueError, match=r"Ensemble does not end in a linear layer .its linear layers are members"):
            detectors.build(name).fit(ensemble, train).score(test.x[:3])
        ours, theirs = (detectors.build(name).fit(net, train).score(test.x[:3]) for net in (unused, trained))
        torch.testing.assert_close(ours, theirs)  # the head is not the layer declared last
    # The same prediction in other logits is no obstacle.
    normalised = torch.nn.Sequential(trained, torch.nn.LogSoftmax(1))
    for name in ("gradnorm", "knn"):
        ours, theirs = (detectors.build(name).fit(net, train).score(test.x[:9]) for net in (normalised, trained))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_features_are_those_of_the_last_time_that_a_network_passes_a_layer(train, test):
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again = torch.nn.Linear(64, 10), torch.nn.Linear(10, 10)

        def hidden(self, x):
            return self.again(self.first(x.flatten(1)).relu()).relu()

        def forward(self, x):
            return self.again(self.hidden(x))

    net = Twice()
    torch.testing.assert_close(scoring.features(net, test.x, batch_size=100), net.hidden(test.x).detach())
    for name in detectors.NAMES:
        assert detectors.build(name).fit(net, train).score(test.x[:9]).shape == (9,), name


def test_ash_reads_the_maps_that_the_features_are_the_mean_of(trained, test):
    x = test.x[:5]
    found = scoring.maps(trained, x)
    assert found.shape[2:] != (1, 1)
    torch.testing.assert_close(found.mean((2, 3)), scoring.features(trained, x))
    between = torch.nn.Sequential(*trained[:-1], torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    between[-3] = torch.nn.Linear(scoring.head(trained, x).in_features, 64)
    torch.testing.assert_close(scoring.maps(between.eval(), x)[..., 0, 0], scoring.features(between, x))


def test_profile_is_a_mahalanobis_distance_of_log_sensitivities(trained, train, test):
    detector = detectors.build("profile").fit(trained, train)
    vectors = detector._vector(trained, test.x[:5])
    layers = len(masks.prunable(trained))
    assert vectors.shape == (5, 3 * layers)
    first = torch.stack([_one_at_a_time(trained, test.x[:5], trained(test.x[:5]).argmax(1), 2)]).T
    combined = vectors[:, :layers].exp().square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(combined.float(), first, rtol=1e-4, atol=1e-9)
    away = vectors - detector.centre
    torch.testing.assert_close(
        detector.score(test.x[:5]), torch.einsum("ni,ij,nj->n", away, detector.precision, away).sqrt().float()
    )
    assert detector.score(torch.rand(50, 1, 8, 8)).median() > detector.score(test.x).median()


@pytest.mark.parametrize("name", detectors.NAMES)
def test_higher_is_more_anomalous_in_every_mode_and_for_no_inputs(trained, train, test, name):
    outliers = data.outliers("mixed", test, n=100).x
    net = copy.deepcopy(trained)
    detector = detectors.build(name).fit(net, train)
    inside = detector.score(test.x[:100])
    assert detector.score(outliers).median() > inside.median()
    assert detector.score(test.x[:0]).shape == (0,)
    net.train()
    torch.testing.assert_close(detector.score(test.x[:100]), inside, rtol=1e-4, atol=1e-4)
    assert net.training


def _loader(samples, label=None):
    y = samples.y if label is None else torch.full_like(samples.y, label)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(samples.x, y), batch_size=100)


def test_foreign_networks_go_in_without_change():
    torchvision = vision.torchvision()
    x = torch.rand(3, 3, 32, 32)
    samples = data.Samples(torch.rand(40, 3, 32, 32), torch.arange(40) % 5, tuple("abcde"), "noise")
    for build in (torchvision.models.resnet18, torchvision.models.mobilenet_v3_small):
        net = build(num_classes=5).eval()
        for name in detectors.NAMES:
            options = {"dimensions": 8} if name == "vim" else {}
            assert detectors.build(name, **options).fit(net, samples).score(x).shape == (3,), name
    vit = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5
    ).eval()
    torch.nn.init.normal_(vit.heads.head.weight)  # it starts at zero, where nothing is sensitive
    with pytest.warns(UserWarning, match="left out: .*in_proj_weight"):
        scores = detectors.SensNorm().fit(vit).score(x)
    assert scores.shape == (3,) and (scores > 0).all()


def test_bad_use_is_named(trained, train, test):
    for call, kind, message in [
        (lambda: detectors.build("mspp"), ValueError, "unknown detector 'mspp'; did you mean 'msp'"),
        (lambda: detectors.SensNorm(criterion="magnitude"), ValueError, "unknown criterion 'magnitude'"),
        (lambda: detectors.SensNorm(norm=0), ValueError, r"norm must be in \(0, inf\], got 0"),
        (lambda: detectors.SensNorm(reference="test"), ValueError, "reference must be None or 'train', got 'test'"),
        (lambda: detectors.SensNorm(standardise=True), ValueError, "standardise needs reference='train'"),
        (lambda: detectors.SensNorm(views=0), ValueError, "views must be at least 1"),
        (lambda: detectors.build("energy").score(test.x), RuntimeError, "must be fitted before it scores"),
        (lambda: detectors.build("knn").fit(trained), ValueError, "KNN needs training data to fit"),
        (lambda: detectors.build("msp").fit(trained).score(test.x * torch.nan), ValueError, "x must be finite"),
        (
            lambda: detectors.build("msp").fit(trained).score(torch.rand(2, 1, 9, 9)),
            ValueError,
            r"\(N, 1, 8, 8\), got \(2, 1",
        ),
        (lambda: scoring.head(torch.nn.Flatten(), test.x), ValueError, "does not end in a linear layer .it has none"),
    ]:
        with pytest.raises(kind, match=message):
            call()
    broken = copy.deepcopy(trained)
    with torch.no_grad():
        broken[-1].bias[0] = torch.nan
    one_class = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1))
    for name in detectors.NAMES:
        with pytest.raises(ValueError, match="logits that are NaN or infinite"):
            detectors.build(name).fit(broken, train).score(test.x[:3])
        with pytest.raises(ValueError, match="at least 2 classes, got 1"):
            detectors.build(name).fit(one_class, train).score(test.x[:3])
    with pytest.raises(ValueError, match="x must be on the device of the model, meta, got cpu"):
        detectors.build("msp").fit(one_class.to("meta")).score(test.x[:3])


def test_a_class_may_be_missing_and_too_little_is_named(trained, train, test):
    x = test.x[:20]
    without = train.take(train.y != 4)
    for name in ("mahalanobis", "relative_mahalanobis"):
        moved = data.Samples(without.x, without.y - (without.y > 4).long(), tuple("012356789"), "moved")
        ours, theirs = (detectors.build(name).fit(trained, t).score(x) for t in (without, moved))
        assert torch.equal(ours, theirs) and ours.std() > 0
    detectors.build("mahalanobis").fit(trained, train.take(train.y == 3)).score(x)
    for name, samples, said in (
        ("relative_mahalanobis", train.take(train.y == 3), "at least 2 classes for RelativeMahalanobis, got 1"),
        ("mahalanobis", train.take(slice(0, 1)), "at least 2 samples for Mahalanobis, got 1"),
        ("profile", train.take(slice(0, 1)), "at least 2 samples for SensitivityProfile, got 1"),
    ):
        with pytest.raises(ValueError, match=said):
            detectors.build(name).fit(trained, samples)
    with pytest.raises(ValueError, match="dimensions must be below the number of features, 32, got 32"):
        detectors.build("vim", dimensions=32).fit(trained, train)
    with pytest.raises(ValueError, match="must be float32 or float64, got torch.bfloat16"):
        detectors.build("msp").fit(copy.deepcopy(trained).bfloat16())
