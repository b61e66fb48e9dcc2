import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from sparselib import data, models, pruning, seeds, training
from sparselib.pruning import masks, schedules
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
    with pytest.raises(TypeError, match="adversarial must be callable or None, got 'pgd'"):
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


def _vector(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize(("name", "batch_size", "n", "steps"), [
    ("convnet", 1, 5, 10), ("lenet5", 1, 5, 10), ("lenet5", 4, 9, 6), ("convnet", 4, 9, 4), ("convnet", 2, 3, 2),
])  # fmt: skip
def test_only_a_lone_last_sample_before_batch_norm_is_left_out(train, monkeypatch, name, batch_size, n, steps):
    net = models.build(name, in_channels=1, num_classes=10, image_size=8, width=4)
    before, sizes = _vector(net), []
    plain = objectives.clean
    monkeypatch.setattr(objectives, "clean", lambda m, x, y, **o: (sizes.append(len(x)), plain(m, x, y, **o))[1])
    rates = []
    schedule = torch.optim.lr_scheduler.LambdaLR

    def watched(optimizer, rate):
        rates.append(rate)
        return schedule(optimizer, rate)

    monkeypatch.setattr(torch.optim.lr_scheduler, "LambdaLR", watched)
    history = training.fit(net, train.take(slice(0, n)), epochs=2, batch_size=batch_size, progress=False)
    assert len(sizes) == steps and rates[0](steps) == 0 < rates[0](steps - 1)  # the schedule counts the same steps
    assert (_vector(net) - before).abs().max() > 0
    assert min(history.loss) > 0.5 and max(history.accuracy) <= 1


def test_accuracy_in_training_is_of_what_was_trained_on(train):
    net = models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=4)
    three = train.take(slice(0, 3))
    history = training.fit(net, three, epochs=150, batch_size=2, progress=False)
    assert max(history.accuracy) == 1.0


def test_batches_of_one_are_refused_where_batch_norm_has_one_value(train):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    with pytest.raises(ValueError, match="batch_size must be at least 2"):
        training.fit(net, train, epochs=1, batch_size=1, progress=False)


def test_restated_statistics_hardly_depend_on_the_size_of_batches(train):
    net = models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=4)
    found = []
    for batch_size in (512, 299, 1):
        training.restate_batch_norm(net, train.take(slice(0, 300)), batch_size=batch_size)
        norm = next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d))
        assert norm.num_batches_tracked > 0
        found.append((norm.running_mean.clone(), norm.running_var.clone()))
    for mean, var in found[1:]:
        torch.testing.assert_close(mean, found[0][0], atol=2e-3, rtol=1e-2)
        torch.testing.assert_close(var, found[0][1], atol=2e-3, rtol=0.05)


def test_batches_may_come_from_a_loader_or_a_generator(trained, test):
    samples = test.take(slice(0, 70))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(samples.x, samples.y), batch_size=16)
    torch.testing.assert_close(training.logits(trained, loader), training.logits(trained, samples.x))
    parts = (samples.x[i : i + 7] for i in range(0, 70, 7))
    torch.testing.assert_close(training.logits(trained, parts), training.logits(trained, samples.x))
    assert training.accuracy(trained, loader) == training.accuracy(trained, samples)
    nets = [copy.deepcopy(trained) for _ in range(2)]
    training.restate_batch_norm(nets[0], loader)
    training.restate_batch_norm(nets[1], samples, batch_size=16)
    assert all(torch.equal(a, b) for a, b in zip(nets[0].buffers(), nets[1].buffers(), strict=True))


@pytest.mark.parametrize("y", [10, -1])
def test_labels_that_are_no_class_are_named(trained, test, y):
    samples = data.Samples(test.x[:5], torch.full((5,), y), () if y < 0 else (*test.classes, "more"), "odd")
    for call in (
        lambda: training.accuracy(trained, samples), lambda: training.fit(trained, samples, epochs=1, progress=False),
        lambda: attacks.fgsm(trained, samples.x, samples.y, 0.1),
        lambda: attacks.pgd(trained, samples.x, samples.y, 0.1),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="y must be (below the number of classes, 10|non-negative)"):
            call()


@pytest.mark.parametrize("change", [lambda z: {"logits": z}, lambda z: (z, z), lambda z: z[:, :1], lambda z: z[0]])
def test_what_is_no_table_of_logits_is_refused_before_and_within_training(train, change):
    class Odd(nn.Module):
        def __init__(self, always):
            super().__init__()
            self.net, self.always = _net(), always

        def forward(self, x):
            return change(self.net(x)) if self.always or self.training else self.net(x)

    expected = r"model must (map .* to logits \(N, K\), got|have at least 2 classes)"
    for always in (True, False):  # torchvision's GoogLeNet, for one, has more outputs in training mode
        net = Odd(always)
        before = _vector(net)
        for objective in (None, objectives.Adversarial(0.1, steps=1, method="trades"), objectives.HalfNoise(0.1)):
            with pytest.raises(ValueError, match=expected):
                training.fit(net, train, epochs=1, adversarial=objective, progress=False)
        assert torch.equal(_vector(net), before)


def test_precisions_must_agree_and_suffice(train, test):
    double, half = _net().double(), _net().bfloat16()
    for call in (
        lambda net: training.logits(net, test.x[:2]), lambda net: training.accuracy(net, test),
        lambda net: training.fit(net, train, epochs=1, progress=False),
        lambda net: training.restate_batch_norm(net, test),
    ):  # fmt: skip
        for net, own in ((double, "float64"), (half, "bfloat16")):
            with pytest.raises(ValueError, match=f"dtype of the model, torch.{own}, got torch.float32"):
                call(net)
    coarse = data.Samples(train.x.bfloat16(), train.y, train.classes, "coarse")
    with pytest.raises(TypeError, match="train.x must be float32 or float64, got torch.bfloat16"):
        training.fit(half, coarse, epochs=1, progress=False)
    torch.testing.assert_close(
        training.logits(half, coarse.x[:50]).float(), training.logits(half.float(), train.x[:50]), rtol=0.1, atol=0.1
    )


def test_batch_norm_that_is_held_still_leaves_no_sample_out(train, monkeypatch):
    class Held(nn.Sequential):
        def train(self, mode=True):
            super().train(mode)
            self[2].eval()
            return self

    net = Held(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    sizes, plain = [], objectives.clean
    monkeypatch.setattr(objectives, "clean", lambda m, x, y, **o: (sizes.append(len(x)), plain(m, x, y, **o))[1])
    training.fit(net, train.take(slice(0, 9)), epochs=1, batch_size=4, progress=False)
    training.fit(net, train.take(slice(0, 2)), epochs=1, batch_size=1, progress=False)
    assert sizes == [4, 4, 1, 1, 1]


def test_what_cannot_be_trained_or_measured_is_named(trained, test):
    frozen = copy.deepcopy(trained).requires_grad_(False)
    with pytest.raises(ValueError, match="model must have parameters that require gradients"):
        training.fit(frozen, test, epochs=1, progress=False)
    buffers = [b.clone() for b in trained.buffers()]
    ones = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(test.x[:3], test.y[:3]))
    for lone in (ones, test.take(slice(0, 1)), []):
        with pytest.raises(ValueError, match="samples must give at least one batch of 2 or more"):
            training.restate_batch_norm(trained, lone)
    with pytest.raises(ValueError, match="model must not be scripted"):
        training.restate_batch_norm(torch.jit.script(nn.Sequential(nn.BatchNorm2d(1), nn.Flatten())), test)
    assert all(torch.equal(a, b) for a, b in zip(trained.buffers(), buffers, strict=True))
    with pytest.raises(TypeError, match="samples must be of type Samples or an iterable of batches, got Tensor"):
        training.accuracy(trained, test.x)
    with pytest.raises(TypeError, match=r"samples.y must be an int64 tensor \(N,\), got type NoneType"):
        training.accuracy(trained, [test.x])


def test_objectives_name_bad_arguments():
    for call, message in [
        (lambda: objectives.HalfNoise(-1.0), r"std must be in \[0, inf\], got -1.0"),
        (lambda: objectives.OutlierExposure(torch.rand(2, 1, 8, 8), float("nan")), "weight must be in"),
        (lambda: objectives.OutlierExposure(torch.rand(2, 8, 8)), r"outliers must have shape \(N, C, H, W\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def _fitted(train, *, net=None, epochs=2, **options):
    net = net or _net()
    history = training.fit(net, train, epochs=epochs, progress=False, **options)
    assert all(math.isfinite(value) for value in history.loss + history.accuracy)
    return net


@pytest.fixture
def anywhere(monkeypatch):
    """Let bfloat16 be computed where the processor only emulates it."""
    monkeypatch.setattr(training, "has_bfloat16", lambda device: True)


@pytest.mark.parametrize("precision", training.PRECISIONS)
@pytest.mark.parametrize("augment", [None, "crop+flip"])
def test_training_gives_the_same_bits_again(train, anywhere, precision, augment):
    few = train.take(slice(0, 200))
    nets = [_fitted(few, precision=precision, augment=augment, noise=0.1, seed=s).state_dict() for s in (1, 1, 2)]
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])
    assert not torch.equal(nets[0]["1.weight"], nets[2]["1.weight"])


def _naive(x, augment, rng):
    """The same draws; each image padded by reflection, cut out and mirrored on its own."""
    pads = [side // 8 for side in x.shape[2:]]
    tops, lefts = (torch.randint(-pad, pad + 1, (len(x), 1), generator=rng) for pad in pads)
    flips = torch.rand(len(x), 1, generator=rng) < 0.5 if augment == "crop+flip" else torch.zeros(len(x), 1).bool()
    images = []
    for image, top, left, flip in zip(x.numpy(), tops, lefts, flips, strict=True):
        padded = np.pad(image, [(0, 0), (pads[0],) * 2, (pads[1],) * 2], mode="reflect")
        rows, columns = pads[0] + int(top), pads[1] + int(left)
        cut = padded[:, rows : rows + x.shape[2], columns : columns + x.shape[3]]
        images.append(torch.from_numpy((cut[:, :, ::-1] if flip else cut).copy()))
    return torch.stack(images)


@pytest.mark.parametrize("shape", [(40, 3, 32, 32), (40, 1, 8, 8), (12, 2, 17, 26), (5, 1, 7, 4), (0, 3, 16, 16)])
@pytest.mark.parametrize("augment", training.AUGMENTATIONS)
def test_augmented_images_are_those_of_a_loop(shape, augment):
    x = torch.rand(shape)
    for given in (x, x.contiguous(memory_format=torch.channels_last), x.double()):
        found = training.augmented(given, augment, torch.Generator().manual_seed(5))
        expected = _naive(given, augment, torch.Generator().manual_seed(5)) if len(x) else given
        assert found.dtype == given.dtype and torch.equal(found, expected)


def test_moves_are_uniform_and_half_of_the_images_mirrored():
    ramp = (torch.arange(32.0)[:, None] * 100 + torch.arange(32.0)).expand(6000, 1, 32, 32)  # each pixel its place
    rng = torch.Generator().manual_seed(0)
    moved = training.augmented(ramp, "crop+flip", rng)[:, 0, 16, 15:17]
    flipped = moved[:, 0] > moved[:, 1]
    assert abs(flipped.float().mean() - 0.5) < 4 * (0.25 / 6000) ** 0.5
    rows = moved[:, 0].div(100, rounding_mode="floor") - 16
    columns = torch.where(flipped, moved[:, 1], moved[:, 0]) % 100 - 15
    counts = torch.zeros(9, 9)
    for row, column in zip(rows.long(), columns.long(), strict=True):
        counts[row + 4, column + 4] += 1  # an offset beyond ±4 would be out of the table or wrap to a wrong cell
    assert ((counts - 6000 / 81) ** 2 / (6000 / 81)).sum() < 131  # chi-squared with 80 degrees of freedom, p = 0.0003
    assert torch.equal(training.augmented(ramp[:, :, :7, :7], "crop", rng), ramp[:, :, :7, :7])


def test_augmentation_moves_inputs_and_not_their_labels(train, monkeypatch):
    seen, plain, few = [], objectives.clean, train.take(slice(0, 128))
    monkeypatch.setattr(objectives, "clean", lambda m, x, y, **o: (seen.append((x, y)), plain(m, x, y, **o))[1])
    for augment in (None, "crop"):
        _fitted(few, epochs=2, augment=augment)
    still, moved = seen[:4], seen[4:]
    assert all(torch.equal(a[1], b[1]) for a, b in zip(still, moved, strict=True))  # the same samples, in order
    rng = seeds.generator(0, "augmentation")
    assert all(torch.equal(_naive(a[0], "crop", rng), b[0]) for a, b in zip(still, moved, strict=True))


def test_without_bfloat16_arithmetic_it_trains_in_float32_and_says_so_once(train, monkeypatch):
    few, asked = train.take(slice(0, 130)), []
    monkeypatch.setattr(training, "has_bfloat16", lambda device: asked.append(device))
    with pytest.warns(UserWarning, match="no bfloat16 arithmetic on cpu: training in float32") as told:
        net = _fitted(few, precision="bfloat16")
    assert len(told) == 1 and told[0].filename == __file__ and asked == [torch.device("cpu")]
    assert torch.equal(_vector(net), _vector(_fitted(few)))


def test_precision_and_augmentation_are_named(train):
    double = data.Samples(train.x.double(), train.y, train.classes, "double")
    for net, samples, options, message in [
        (_net().double(), double, {"precision": "bfloat16"}, "precision must be 'float32', .*float64, got 'bfloat16'"),
        (_net(), train, {"precision": "float16"}, r"unknown precision 'float16'; did you mean .*'float32'"),
        (_net(), train, {"augment": "crop+flips"}, r"unknown augment 'crop\+flips'; did you mean 'crop\+flip'"),
    ]:
        with pytest.raises(ValueError, match=message):
            training.fit(net, samples, epochs=1, **options)
    assert not training.has_bfloat16("meta")


def test_bfloat16_rounds_forward_passes_and_nothing_else(train, test, anywhere, monkeypatch):
    seen, plain = [], objectives.clean

    def watched(model, x, y, **options):
        found = plain(model, x, y, **options)
        seen.append((x.dtype, found[0].dtype, found[1].dtype, bool((found[1].bfloat16() == found[1]).all())))
        return found

    monkeypatch.setattr(objectives, "clean", watched)
    nets = {precision: _fitted(train, epochs=12, precision=precision) for precision in training.PRECISIONS}
    assert set(seen) == {(*[torch.float32] * 3, False), (*[torch.float32] * 3, True)}
    assert all(t.dtype == torch.float32 for t in nets["bfloat16"].state_dict().values() if t.is_floating_point())
    right = {precision: training.accuracy(net, test) for precision, net in nets.items()}
    assert abs(right["bfloat16"] - right["float32"]) < 0.02 and right["float32"] > 0.9


@pytest.mark.parametrize("method", ["pgd", "trades"])
def test_attacks_of_adversarial_training_work_in_bfloat16(method, train, test, anywhere):
    few, objective = train.take(slice(0, 600)), objectives.Adversarial(0.1, method=method, steps=3)
    net = _fitted(few, epochs=8, adversarial=objective, noise=0.01, precision="bfloat16")
    plain = _fitted(few, epochs=8, precision="bfloat16")
    left = []
    for model in (net, plain):
        x = attacks.pgd(model, test.x[:200], test.y[:200], 0.1)
        left.append(float((training.logits(model, x).argmax(1) == test.y[:200]).float().mean()))
    assert left[0] > left[1] + 0.1
    _fitted(few, adversarial=objective, noise=0.01, augment="crop+flip", precision="bfloat16")


def test_an_attack_on_forward_passes_in_bfloat16_is_as_strong(trained, test):
    x, y = test.x[:200], test.y[:200]
    low = training._InBfloat16(copy.deepcopy(trained))
    left = [
        float((training.logits(trained, attacks.pgd(model, x, y, 0.1)).argmax(1) == y).float().mean())
        for model in (trained, low)
    ]
    assert abs(left[0] - left[1]) < 0.03 and left[0] < training.accuracy(trained, test) - 0.2


@pytest.mark.parametrize("when", ["before", "gradual", "after"])
def test_masks_are_enforced_in_bfloat16(when, train, anywhere):
    few = train.take(slice(0, 200))
    options = {"epochs": 3, "finetune_epochs": 2, "scored": 100, "progress": False}
    net = schedules.train_sparse(
        _net(), few, "magnitude", 0.8, when=when, precision="bfloat16", augment="crop", **options
    )
    assert pruning.sparsity(net) == pytest.approx(0.8, abs=0.01)
    for layer in masks.distinct(net).values():
        assert layer.weight.dtype == torch.float32 and not layer.weight[~masks.mask_of(layer)].any()
        assert masks.original(layer).is_contiguous()


class _Views(nn.Module):
    """As many write it: with a view of the features, which channels last does not allow."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.conv = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head, self.layouts = nn.Linear(256, 10), set()

    def forward(self, x):
        self.layouts.add((self.training, self.conv.weight.is_contiguous()))
        return self.head(self.rows(self.conv(self.first(x)).relu()))

    def rows(self, x):
        return x.view(len(x), -1)


class _Flattens(_Views):
    def rows(self, x):
        return x.flatten(1)


@pytest.mark.parametrize(("kind", "contiguous"), [(_Views, True), (_Flattens, False)])
def test_layouts_are_given_back_and_changed_only_where_the_network_allows(kind, contiguous, train):
    wide, few = torch.channels_last, train.take(slice(0, 64))
    net = _fitted(few, net=kind())
    assert {layout for training_, layout in net.layouts if training_} == {contiguous}
    assert net.conv.weight.stride() == (36, 9, 3, 1)
    with pytest.raises(FloatingPointError):
        training.fit(net, few, epochs=2, batch_size=8, lr=1e30, progress=False)
    assert net.conv.weight.stride() == (36, 9, 3, 1)
    own = models.build("resnet8", in_channels=1, num_classes=10, image_size=8, width=4).to(memory_format=wide)
    before = [p.stride() for p in own.parameters()]
    assert [p.stride() for p in _fitted(few, net=own, epochs=1).parameters()] == before
    double = data.Samples(few.x.double(), few.y, few.classes, "double")
    net = _fitted(double, net=_Flattens().double())
    assert all(layout for _, layout in net.layouts)
