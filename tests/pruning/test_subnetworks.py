import copy

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils import parametrize

from sparselib import data, models, pruning, training
from sparselib.pruning import masks, subnetworks
from sparselib.robustness import attacks


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
