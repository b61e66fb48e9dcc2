import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils import parametrize

from sparselib import data, models, pruning, seeds, training
from sparselib.pruning import masks, subnetworks
from sparselib.robustness import attacks, objectives


def _search(model, train, sparsity=0.7, **options):
    return subnetworks.search(model, train, sparsity, **{"epochs": 2, "progress": False, **options})


@pytest.mark.parametrize("objective", subnetworks.OBJECTIVES)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_nothing_but_masks_differs_and_the_count_is_exact(trained, train, objective, scope):
    net = copy.deepcopy(trained).train()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    outliers = data.outliers("uniform", train, n=200)
    found = _search(net, train.take(slice(0, 300)), objective=objective, scope=scope, outliers=outliers)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items()) and net.training
    after = {n.replace("parametrizations.weight.original", "weight"): t for n, t in found.state_dict().items()}
    assert all(torch.equal(after[n], t) for n, t in before.items()), "weights and statistics, bit for bit"
    kept = [int(masks.mask_of(m).sum()) for m in masks.prunable(found).values()]
    sizes = [m.weight.numel() for m in masks.prunable(net).values()]
    assert sum(kept) == round(0.3 * sum(sizes))
    assert kept[0] == sizes[0] and kept[-1] == sizes[-1], "the ends keep all"


def test_the_gradient_reaches_the_scores_straight_through():
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 3).double()
    weight = layer.weight.detach().clone()
    popup = subnetworks.Popup(layer.weight, "edge-popup", 0, "w")
    parametrize.register_parametrization(layer, "weight", popup)
    subnetworks.choose({"w": popup}, {("w",): 7})
    assert popup.mask.sum() == 7 and (popup.scores < 0).any()
    assert popup.scores[popup.mask].abs().min() > popup.scores[~popup.mask].abs().max(), "the largest |s|"
    x, y = torch.rand(4, 5).double(), torch.tensor([0, 1, 2, 0])
    effective = (weight * popup.mask).requires_grad_()
    expected = torch.autograd.grad(F.cross_entropy(x @ effective.T + layer.bias, y), effective)[0] * weight
    expected = expected * popup.scores.detach().sign()  # straight through to |s|
    F.cross_entropy(layer(x), y).backward()
    torch.testing.assert_close(popup.scores.grad, expected, rtol=1e-12, atol=0)


def test_hydra_starts_from_the_size_of_the_weights_and_edge_popup_from_chance():
    weight = torch.randn(4, 3, 3, 3)
    hydra = subnetworks.Popup(weight, "hydra", 0, "w").scores
    torch.testing.assert_close(hydra.detach(), weight * (6 / 27) ** 0.5 / weight.abs().max())
    popup = subnetworks.Popup(weight, "edge-popup", 0, "w").scores
    assert abs(popup).max() <= (6 / 27) ** 0.5 and abs(popup.mean()) < 0.1
    assert not torch.equal(popup, subnetworks.Popup(weight, "edge-popup", 1, "w").scores)


def test_learnt_masks_beat_those_they_start_from(train, test):
    net = models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=16, mean=0.3, std=0.4)
    training.fit(net, train, epochs=12, progress=False)
    found = _search(net, train, 0.8, epochs=12, seed=1)
    magnitude = pruning.prune(net, "magnitude", 0.8, scope="layer")
    assert training.accuracy(found, test) > training.accuracy(magnitude, test) + 0.1
    robust = _search(net, train, 0.8, objective="adversarial", eps=0.1, epochs=12, seed=1)

    def attacked(model):
        x = attacks.pgd(model, test.x[:200], test.y[:200], 0.1)
        return (training.logits(model, x).argmax(1) == test.y[:200]).float().mean()

    assert attacked(robust) > attacked(found)


@pytest.mark.parametrize("masked", [False, True])
def test_the_control_learns_batch_norm_and_nothing_else(masked, trained, train):
    net = (pruning.prune(trained, "magnitude", 0.5) if masked else copy.deepcopy(trained)).train()
    net[1].requires_grad_(False)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    found = subnetworks.fit_batch_norm(net, train, eps=0.1, epochs=2, seed=3, progress=False)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items()), "the model is left as it was"
    affine = {f"{i}.{kind}" for i in (2, 5, 9) for kind in ("weight", "bias")}
    assert affine <= set(before) and found.training
    differing = {n for n, t in found.state_dict().items() if not torch.equal(t, before[n])}
    assert differing == affine, "weights and statistics, bit for bit"
    flags = {n: p.requires_grad for n, p in net.named_parameters()}
    assert {n: p.requires_grad for n, p in found.named_parameters()} == flags
    held_back, _ = train.split(0.2, seed=3)
    loss = subnetworks.objective_of("adversarial", None, (), 0.1, 1.0)
    after, at_first = (loss(n.eval(), held_back.x, held_back.y, seed=9)[0].item() for n in (found, net))
    assert after < 0.9 * at_first


def test_the_control_takes_the_same_steps_as_a_search(trained, train, monkeypatch):
    seen, objective = [], subnetworks.objectives.clean

    def spy(model, x, y, seed=0):
        seen.append((x, y, seed))
        return objective(model, x, y, seed=seed)

    monkeypatch.setattr(subnetworks.objectives, "clean", spy)
    few, options = train.take(slice(0, 300)), {"objective": "clean", "epochs": 2, "seed": 4, "progress": False}
    _search(trained, few, **options)
    searched, seen = seen, []
    subnetworks.fit_batch_norm(trained, few, **options)
    assert len(seen) == len(searched) == 3 + 2 * 4  # three judgements, two epochs of four batches
    for (x, y, seed), (other_x, other_y, other_seed) in zip(seen, searched, strict=True):
        assert torch.equal(x, other_x) and torch.equal(y, other_y) and seed == other_seed


def test_the_control_keeps_what_it_began_with_when_nothing_is_better(trained, train):
    found = subnetworks.fit_batch_norm(trained, train, objective="clean", epochs=1, lr=100.0, progress=False)
    assert all(
        torch.equal(a, b) for a, b in zip(found.state_dict().values(), trained.state_dict().values(), strict=True)
    )
    for net in (torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), _without_affine()):
        with pytest.raises(
            ValueError, match="must have batch-norm layers with scale and shift to learn, got Sequential"
        ):
            subnetworks.fit_batch_norm(net, train, epochs=1, progress=False)


def _without_affine():
    norm = torch.nn.BatchNorm2d(4, affine=False)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), norm, torch.nn.Flatten(), torch.nn.Linear(144, 10))


@pytest.mark.parametrize("batch_norm", subnetworks.BATCH_NORMS)
def test_the_first_masks_stay_when_none_is_better_on_held_back_data(trained, train, batch_norm):
    net = copy.deepcopy(trained)
    if batch_norm == "restated":  # statistics that say nothing, so that masks can be judged by none but restated ones
        net[2].running_mean.fill_(100.0)
    first = _search(net, train, 0.5, epochs=0)
    wild = _search(net, train, 0.5, epochs=3, lr=100.0, batch_norm=batch_norm)
    for a, b in zip(masks.prunable(first).values(), masks.prunable(wild).values(), strict=True):
        assert torch.equal(masks.mask_of(a), masks.mask_of(b))


def test_a_model_without_a_finite_loss_is_refused(trained, train):
    with pytest.raises(FloatingPointError, match="before learning is nan"):
        broken = copy.deepcopy(trained)
        broken[-1].bias.data.fill_(torch.nan)
        _search(broken, train)


def test_the_variant_with_batch_statistics_restates_them(trained, train):
    found = _search(trained, train, batch_norm="restated")
    assert not torch.equal(found[2].running_mean, trained[2].running_mean)
    assert torch.equal(masks.original(found[1]), trained[1].weight)


def test_restated_statistics_are_those_of_the_data(trained, train):
    net = copy.deepcopy(trained)
    training.restate_batch_norm(net, train, batch_size=len(train))
    inputs = net[1](net[0](train.x))  # what the first batch-norm sees
    torch.testing.assert_close(net[2].running_mean, inputs.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net[2].running_var, inputs.var((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert torch.equal(net[1].weight, trained[1].weight) and net[2].momentum == trained[2].momentum


def test_counts_are_exact_and_no_layer_is_emptied():
    for sizes in ((45, 45, 4, 3, 3), (9, 100, 3000, 50), (10, 10, 10)):
        layers = {str(i): torch.nn.Linear(n, 1) for i, n in enumerate(sizes)}
        for sparsity in (0.0, 0.3, 0.8, 0.95):
            total = round((1 - sparsity) * sum(sizes))
            if total >= len(sizes):
                counts = [v for v in subnetworks.survivors(layers, sparsity, "layer", False).values()]
                assert sum(counts) == total and all(1 <= c <= n for c, n in zip(counts, sizes, strict=True))


def test_masked_models_are_refused(trained, train):
    with pytest.raises(ValueError, match="must have no masks yet"):
        _search(pruning.prune(trained, "magnitude", 0.5), train)


def test_bad_arguments_are_named(trained, train, test):
    textures = data.outliers("textures", test, n=30)
    for options, message in [
        ({"objective": "robust"}, "unknown objective 'robust'"),
        ({"objective": "outlier"}, "needs outliers, got none"),
        (
            {"objective": "outlier", "outliers": textures.take(slice(0, 9)), "unseen": [textures]},
            "share 9 images with the test",
        ),
        ({"sparsity": 1.0}, r"sparsity must be in \[0, 1\)"),
        ({"sparsity": 0.95}, "too high while the first and last layer keep"),
        ({"init": "hidra"}, "unknown init 'hidra'; did you mean 'hydra'"),
        ({"batch_norm": "live"}, "unknown batch_norm 'live'"),
        ({"epochs": -1}, "epochs must be at least 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            net = models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=4)
            _search(net, train, **options)


def test_no_epochs_keep_the_largest_or_random_weights(train):
    net = models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=6)
    largest = masks.prunable(_search(net, train, 0.6, epochs=0))
    for name, layer in list(masks.prunable(net).items())[1:-1]:
        mask = masks.mask_of(largest[name])
        assert layer.weight[mask].abs().min() > layer.weight[~mask].abs().max(), name
    first, second = (_search(net, train, 0.6, epochs=0, init="edge-popup", seed=s) for s in (0, 1))
    name = list(largest)[1]
    kept = [masks.mask_of(masks.prunable(n)[name]) for n in (first, second)]
    assert kept[0].sum() == kept[1].sum() and not torch.equal(*kept)


def _learnt(net, forward, parameters, train, loss, epochs, lr, seed, after_step, state):
    """Adam with a cosine to 0, batches of 32, the best state on a fifth held back: what `_learn` says, written down."""
    held, used = train.split(0.2, seed=seed)
    moments, best, lowest = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters], None, math.inf
    order, step, steps = seeds.generator(seed, "search"), 0, epochs * math.ceil(len(used) / 32)
    for epoch in range(epochs + 1):
        for index in torch.randperm(len(used), generator=order).split(32) if epoch else ():
            value = loss(forward, used.x[index], used.y[index], seed=seeds.derive(seed, "batch", step))[0]
            rate, step = lr * (1 + math.cos(math.pi * step / steps)) / 2, step + 1
            for p, g, (m, v) in zip(parameters, torch.autograd.grad(value, parameters), moments, strict=True):
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g**2)
                p.data -= rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
            after_step()
        now = loss(forward, held.x, held.y, seed=seeds.derive(seed, "held"))[0].item()
        if now < lowest:
            lowest, best = now, state()
    return best


@pytest.fixture(scope="module")
def small(train):
    few = train.take(slice(0, 500))
    few = data.Samples(few.x.double(), few.y, few.classes, few.name)
    net = models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=6, mean=0.3, std=0.4).double()
    training.fit(net, few, epochs=6, batch_size=16, progress=False)
    return net.eval(), few.take(slice(0, 130))


@pytest.mark.parametrize(
    "scope, ends, init, lr, objective, loss",
    [
        ("layer", True, "hydra", None, {"objective": "shift", "noise": 0.4}, objectives.HalfNoise(0.4)),
        ("global", False, "hydra", 0.01, {}, objectives.clean),
        ("global", True, "edge-popup", 0.1, {}, objectives.clean),
        ("layer", False, "edge-popup", None, {"objective": "adversarial", "eps": 0.05}, None),
    ],
)
def test_a_search_is_its_description_written_down(small, scope, ends, init, lr, objective, loss):
    net, few = small
    loss = loss or objectives.Adversarial(0.05, method="trades")
    layers = masks.prunable(net)
    chosen = list(layers)[1:-1] if ends else list(layers)
    scores = {n: subnetworks.Popup(layers[n].weight, init, 6, n).scores.detach().requires_grad_() for n in chosen}
    kept, counts = {}, subnetworks.survivors(layers, 0.85, scope, ends)

    def choose():
        for names, count in counts.items():
            flat = torch.cat([scores[n].detach().abs().flatten() for n in names])
            order = flat.argsort(descending=True, stable=True)[:count]
            parts = torch.zeros(len(flat), dtype=torch.bool).index_fill(0, order, True)
            parts = parts.split([scores[n].numel() for n in names])
            kept.update({n: part.view_as(scores[n]) for n, part in zip(names, parts, strict=True)})

    def forward(x):
        weights = {n: layers[n].weight.detach() * (kept[n] + s.abs() - s.abs().detach()) for n, s in scores.items()}
        return torch.func.functional_call(net, weights, (x,))

    choose()
    first = dict(kept)
    rate = lr or (0.01 if scope == "layer" else 0.001)
    parameters = list(scores.values())
    model = Forward(net, forward)
    best = _learnt(net, model, parameters, few, loss, 5, rate, 6, choose, lambda: dict(kept))
    options = {"scope": scope, "keep_ends": ends, "init": init, "lr": lr, "seed": 6, "batch_size": 32, "epochs": 5}
    found = masks.prunable(subnetworks.search(net, few, 0.85, progress=False, **options, **objective))
    assert any(not torch.equal(first[n], best[n]) for n in chosen), "learning changes the masks"
    for name, layer in found.items():
        assert torch.equal(masks.mask_of(layer), best[name] if name in best else torch.ones_like(layer.weight).bool())


class Forward(torch.nn.Module):
    """A function as a network in eval mode, with the parameters of another."""

    def __init__(self, net, function):
        super().__init__()
        self.net, self.function = net, function
        self.eval()

    def forward(self, x):
        return self.function(x)


def test_the_control_is_its_description_written_down(small):
    net, few = small
    twin = copy.deepcopy(net).requires_grad_(False)
    parameters = [p.requires_grad_() for i in (2, 5, 9) for p in (twin[i].weight, twin[i].bias)]

    def state():
        return [p.detach().clone() for p in parameters]

    best = _learnt(twin, twin, parameters, few, objectives.clean, 4, 0.01, 6, lambda: None, state)
    options = {"objective": "clean", "epochs": 4, "batch_size": 32, "lr": 0.01, "seed": 6, "progress": False}
    found = subnetworks.fit_batch_norm(net, few, **options)
    own = [p for i in (2, 5, 9) for p in (found[i].weight, found[i].bias)]
    for p, q, r in zip(own, best, [p for i in (2, 5, 9) for p in (net[i].weight, net[i].bias)], strict=True):
        torch.testing.assert_close(p.detach(), q, rtol=1e-9, atol=1e-12)
        assert not torch.equal(p, r)


def test_options_of_searches_that_are_not_said(small):
    net, few = small
    said = {"eps": 0.1, "epochs": 20, "batch_size": 64, "precision": "float32", "seed": 0}
    for objective in ("clean", "adversarial", "shift"):
        short = {"epochs": 2} if objective != "clean" else {}
        ours = subnetworks.search(net, few, 0.6, objective=objective, progress=False, **short)
        more = {"noise": 1.0, "lr": 0.01, "scope": "layer", "keep_ends": True, "init": "hydra", "batch_norm": "frozen"}
        other = subnetworks.search(net, few, 0.6, objective=objective, progress=False, **{**said, **more, **short})
        assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), other.buffers(), strict=True)), objective
    ours = subnetworks.fit_batch_norm(net, few, progress=False)
    said |= {"objective": "adversarial", "lr": 0.01}
    other = subnetworks.fit_batch_norm(net, few, progress=False, **said)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), other.parameters(), strict=True))


def test_survivors_by_hand():
    def counts(sizes, sparsity, scope="layer", ends=True):
        layers = {str(i): torch.nn.Linear(n, 1, bias=False) for i, n in enumerate(sizes)}
        return subnetworks.survivors(layers, sparsity, scope, ends)

    assert counts((10, 20, 30, 40), 0.3) == {("1",): 8, ("2",): 12}  # of 70, 50 are the ends'
    assert counts((10, 20, 30, 40), 0.3, "global") == {("1", "2"): 20}
    assert counts((10, 20, 30, 40), 0.3, "global", False) == {("0", "1", "2", "3"): 70}
    assert counts((10, 20, 30), 0.3) == {("1",): 2}
    assert counts((10, 30), 0.5) == {("0",): 5, ("1",): 15}  # two layers are all ends
    assert counts((3, 3, 3), 2 / 9, ends=False) == {("0",): 3, ("1",): 2, ("2",): 2}  # the first of the fullest gaps
    assert counts((45, 45, 4, 3, 3), 0.94, ends=False) == {("0",): 1, ("1",): 2, ("2",): 1, ("3",): 1, ("4",): 1}
    assert counts((10, 20, 30, 40), 0.48) == {("1",): 1, ("2",): 1}
    with pytest.raises(ValueError, match=r"sparsity 0.49 is too high .* keep their 50 weights: at most 0.4800, or set"):
        counts((10, 20, 30, 40), 0.49)


def test_least_and_wrong_numbers_of_searches(small, train):
    net, few = small
    ten = few.take(slice(0, 10))
    _search(net, ten, 0, epochs=1, noise=0, batch_size=1)
    subnetworks.fit_batch_norm(net, ten, epochs=0, noise=0, batch_size=1, progress=False)
    nine = few.take(slice(0, 9))
    for options, message in [
        ({"noise": -0.5}, r"noise must be in \[0, inf\], got -0.5"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"epochs": -1}, "epochs must be at least 0, got -1"),
        ({"lr": 0.0}, r"lr must be in \(0, inf\], got 0.0"),
        ({"train": nine}, "train must have at least 10 samples, to hold a fifth back, got 9"),
        ({"objective": "robust"}, "unknown objective 'robust'"),
    ]:
        given = {"train": few, **options}
        with pytest.raises(ValueError, match=message):
            subnetworks.search(net, sparsity=0.5, progress=False, **given)
        with pytest.raises(ValueError, match=message):
            subnetworks.fit_batch_norm(net, progress=False, **given)
    with pytest.raises(ValueError, match=r"sparsity must be in \[0, 1\), got -0.1"):
        _search(net, few, -0.1)
    with pytest.raises(ValueError, match="unknown scope 'all' .allowed: layer, global"):
        _search(net, few, scope="all")
