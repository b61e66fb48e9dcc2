import copy

import pytest
import torch
from torch import nn

from sparselib import data, models, training
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
