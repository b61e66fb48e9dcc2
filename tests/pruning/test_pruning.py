import copy
import warnings
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import prune as oracle

from sparselib import checkpoints, models, pruning, training, vision
from sparselib.pruning import criteria, masks, weights


def _net(**changes):
    return models.build("convnet", **{"in_channels": 1, "num_classes": 10, "image_size": 8, "width": 6, **changes})


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.777, 0.85])
def test_global_magnitude_equals_torch(sparsity):
    net = _net()
    ours = masks.prunable(pruning.prune(net, "magnitude", sparsity))
    theirs = masks.prunable(copy.deepcopy(net))
    amount = 1 - round((1 - sparsity) * sum(m.weight.numel() for m in theirs.values())) / sum(
        m.weight.numel() for m in theirs.values()
    )
    oracle.global_unstructured([(m, "weight") for m in theirs.values()], oracle.L1Unstructured, amount=amount)
    for name, layer in theirs.items():
        assert torch.equal(ours[name].weight, layer.weight)


def test_layer_magnitude_equals_torch():
    net = _net()
    ours = masks.prunable(pruning.prune(net, "magnitude", 0.5, scope="layer"))
    for name, layer in masks.prunable(copy.deepcopy(net)).items():
        oracle.l1_unstructured(layer, "weight", amount=0.5)
        assert torch.equal(ours[name].weight, layer.weight)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.floats(0, 0.999))
def test_counts_are_exact_with_ties(values, sparsity):
    count = round((1 - sparsity) * len(values))
    scores = torch.tensor(values, dtype=torch.float32)
    mask = masks.keep_highest(scores, count)
    assert mask.sum() == count
    if 0 < count < len(values):
        assert scores[mask].min() >= scores[~mask].max()


def test_input_is_untouched_and_pruning_again_returns_nothing(train):
    net = _net()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    half = pruning.prune(net, "random", 0.5, seed=1)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    more = pruning.prune(half, "random", 0.8, seed=2)
    assert pruning.sparsity(half) == pytest.approx(0.5, abs=1e-3)
    assert pruning.sparsity(more) == pytest.approx(0.8, abs=1e-3)
    for name, layer in masks.prunable(more).items():
        assert not (masks.mask_of(layer) & ~masks.mask_of(masks.prunable(half)[name])).any()
    assert pruning.sparsity(pruning.prune(more, "snip", 0.2, train.x, train.y)) == pruning.sparsity(more)


def test_masks_survive_training_deepcopy_state_dict_and_files(train, tmp_path):
    sparse = pruning.prune(_net(), "magnitude", 0.9)
    kept = {n: masks.mask_of(m).clone() for n, m in masks.prunable(sparse).items()}
    before = sparse[1].weight.detach().clone()
    training.fit(sparse, train, epochs=1, weight_decay=0.1, progress=False)
    assert not torch.equal(sparse[1].weight, before)
    checkpoints.save_model(sparse, tmp_path / "net.safetensors")
    other = pruning.prune(_net(seed=5), "random", 0.9)
    other.load_state_dict(sparse.state_dict())
    for net in (sparse, copy.deepcopy(sparse), other, checkpoints.load_model(tmp_path / "net.safetensors")):
        for name, layer in masks.prunable(net).items():
            assert torch.equal(masks.mask_of(layer), kept[name])
            assert torch.equal(layer.weight, masks.prunable(sparse)[name].weight)
            assert not layer.weight[~kept[name]].any()
        x = train.x[:9]
        assert torch.equal(net.eval()(x), sparse.eval()(x))


@pytest.mark.parametrize("structured", [False, True])
def test_no_layer_is_emptied_at_999_permille_and_the_layer_is_named(structured, train):
    net = _net(width=16)
    with torch.no_grad():
        net[8].weight.mul_(1e-6)
    with pytest.warns(UserWarning, match=r"would empty .*8\.weight" if not structured else "would empty"):
        sparse = pruning.prune(net, "magnitude", 0.999, structured=structured)
    assert all(masks.mask_of(layer).any() for layer in masks.prunable(sparse).values())
    if not structured:
        total = sum(layer.weight.numel() for layer in masks.prunable(net).values())
        kept = sum(int(masks.mask_of(layer).sum()) for layer in masks.prunable(sparse).values())
        assert kept == round(0.001 * total), "the count stays exact: the best weight of each layer goes first"
    training.accuracy(sparse, train)


def test_protecting_one_layer_empties_no_other():
    net = models.build("convnet", in_channels=1, num_classes=10, image_size=8)
    with pytest.warns(UserWarning, match="would empty"):
        sparse = pruning.prune(net, "magnitude", 0.995)
    kept = [int(masks.mask_of(layer).sum()) for layer in masks.prunable(sparse).values()]
    sizes = [layer.weight.numel() for layer in masks.prunable(net).values()]
    assert min(kept) >= 1 and sum(kept) == round(0.005 * sum(sizes))


def test_structure_on_top_of_single_weights_meets_the_sparsity():
    sparse = pruning.prune(pruning.prune(_net(width=16), "magnitude", 0.5), "magnitude", 0.7, structured=True)
    assert pruning.sparsity(sparse) == pytest.approx(0.7, abs=0.02)


def test_frozen_networks_can_be_scored_and_stay_frozen(train):
    net = _net().requires_grad_(False)
    for criterion in criteria.NAMES:
        sparse = pruning.prune(net, criterion, 0.5, train.x[:40], train.y[:40])
        assert not any(p.requires_grad for p in (*net.parameters(), *sparse.parameters()))
    assert not any(p.requires_grad for p in masks.bare(sparse).parameters())


def test_iterative_pruning_follows_the_exponential_schedule(train, monkeypatch):
    seen, choose = [], weights._surviving_weights
    monkeypatch.setattr(
        weights, "_surviving_weights", lambda m, scores, s, scope: (seen.append(1 - s), choose(m, scores, s, scope))[1]
    )
    pruning.prune(_net(), "snip", 0.9, train.x, train.y, rounds=4)
    assert seen == pytest.approx([0.1 ** (k / 4) for k in (1, 2, 3, 4)])
    seen.clear()
    pruning.prune(_net(), "synflow", 0.9)
    assert seen == pytest.approx([0.1 ** (k / 100) for k in range(1, 101)]), "its own number"
    for call in (partial(pruning.prune, rounds=1), lambda net, *given: pruning.step(copy.deepcopy(net), *given)):
        seen.clear()
        call(_net(), "synflow", 0.9)
        assert seen == pytest.approx([0.1])


def test_synflow_keeps_layers_that_one_shot_empties_and_its_conservation():
    net = models.build("vgg16", in_channels=1, num_classes=10, image_size=16, width=6)
    with pytest.warns(UserWarning, match="would empty"):
        collapsed = pruning.prune(net, "synflow", 0.98, rounds=1)
    assert min(int(masks.mask_of(layer).sum()) for layer in masks.prunable(collapsed).values()) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Tanaka 2020: iterated, it never collapses a layer
        sparse = pruning.prune(net, "synflow", 0.98)
    assert min(int(masks.mask_of(layer).sum()) for layer in masks.prunable(sparse).values()) > 1
    flows = [score.sum().item() for score in criteria.saliency(sparse, "synflow").values()]
    assert max(flows) == pytest.approx(min(flows), rel=1e-9) and min(flows) > 0


def test_rounds_of_synflow_equal_a_loop_that_starts_afresh_each_time():
    net = models.build("convnet", in_channels=1, num_classes=4, image_size=8, width=6)
    names, rounds = list(masks.prunable(net)), 20
    kept = {name: torch.ones(masks.prunable(net)[name].weight.shape, dtype=torch.bool) for name in names}
    for k in range(1, rounds + 1):
        fresh = copy.deepcopy(net).double().eval()
        fresh[0].mean.zero_()  # pixels as they are, mean 0 and deviation 1
        layers = masks.prunable(fresh)
        for module in fresh.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.zero_()
        with torch.no_grad():
            for name, parameter in fresh.named_parameters():
                parameter.copy_(parameter.abs() * kept.get(name, 1) if name.endswith("weight") else 0 * parameter)
        fresh(torch.ones(1, 1, 8, 8).double()).sum().backward()
        flat = torch.cat(
            [(layers[n].weight * layers[n].weight.grad).masked_fill(~kept[n], -1).flatten() for n in names]
        )
        best = flat.argsort(descending=True, stable=True)[: round(0.05 ** (k / rounds) * len(flat))]
        chosen = torch.zeros(len(flat), dtype=torch.bool)
        chosen[best] = True
        parts = chosen.split([kept[n].numel() for n in names])
        kept = {n: part.view(kept[n].shape) for n, part in zip(names, parts, strict=True)}
    sparse = masks.prunable(pruning.prune(net, "synflow", 0.95, rounds=rounds))
    assert all(torch.equal(masks.mask_of(sparse[n]), kept[n]) for n in names)


@pytest.mark.parametrize("structured", [False, True])
def test_many_rounds_warn_once(structured):
    layers = [torch.nn.Conv2d(1, 12, 3), torch.nn.Sigmoid(), torch.nn.Conv2d(12, 12, 3), torch.nn.Flatten()]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(12 * 16, 3)).eval()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pruning.prune(net, "synflow", 0.999, torch.rand(1, 1, 8, 8), structured=structured)
    told = [str(warning.message) for warning in caught if warning.category is UserWarning]
    assert len(told) == 2 and "1 (Sigmoid)" in told[0] and told[1].startswith("pruning would empty"), told


@pytest.mark.parametrize("least, left", [(0.0, 1), (0.1, 2), (0.3, 6), (1.0, 20)])
def test_so_many_units_of_each_layer_stay(least, left):
    with pytest.warns(UserWarning, match="would empty"):
        sparse = pruning.prune(_net(width=20), "magnitude", 0.999, structured=True, least=least)
    counts = [int(masks.mask_of(m).flatten(1).any(1).sum()) for m in list(masks.prunable(sparse).values())[:-1]]
    assert counts == [left, max(1, 2 * left if least else 1), max(1, 2 * left if least else 1)]


def test_many_rounds_of_units_strip_no_layer():
    """With steps smaller than a unit, taking whatever fits would strip the layers of small units first."""
    net = _net(width=24)
    for criterion in ("magnitude", "synflow"):
        sparse = pruning.prune(net, criterion, 0.8, structured=True, rounds=100)
        layers = list(masks.prunable(sparse).values())[:-1]
        left = [masks.mask_of(layer).flatten(1).any(1).float().mean().item() for layer in layers]
        assert max(left) - min(left) < 0.15 and pruning.sparsity(sparse) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("criterion", criteria.NAMES)
@pytest.mark.parametrize("name, width", [("convnet", 8), ("lenet5", 6), ("resnet8", 4), ("resnet18", 4), ("vgg16", 4)])
def test_every_criterion_structure_and_model_together(criterion, structured, name, width):
    for channels, size in ((1, 28), (3, 32)):
        net = models.build(name, in_channels=channels, num_classes=3, image_size=size, width=width)
        x, y = torch.rand(6, channels, size, size), torch.tensor([0, 1, 2, 0, 1, 2])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="pruning would empty")  # of so thin networks, it may
            sparse = pruning.prune(net, criterion, 0.5, x, y, structured=structured, rounds=1)
        assert pruning.sparsity(sparse) == pytest.approx(0.5, abs=0.02 if structured else 1e-3)
        if structured:
            small = pruning.shrink(sparse)
            assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(p.numel() for p in net.parameters())
            torch.testing.assert_close(small.eval()(x), sparse.eval()(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name, width", [("convnet", 16), ("resnet8", 6), ("lenet5", 6)])
def test_shrunk_networks_compute_the_same_after_training_and_survive_files(name, width, train, tmp_path):
    train = train.take(slice(0, 300))
    net = models.build(name, in_channels=1, num_classes=10, image_size=8, width=width, mean=0.3, std=0.4)
    training.fit(net, train, epochs=1, progress=False)
    sparse = pruning.prune(net, "magnitude", 0.7, structured=True)
    training.fit(sparse, train, epochs=1, progress=False)  # batch-norm biases of removed units move
    sparse = pruning.prune(sparse, "magnitude", 0.8)  # single weights on top
    small = pruning.shrink(sparse)
    x = train.x[:50]
    torch.testing.assert_close(small.eval()(x), sparse.eval()(x), rtol=0, atol=1e-5)
    checkpoints.save_model(small, tmp_path / "small.safetensors")
    loaded = checkpoints.load_model(tmp_path / "small.safetensors")
    assert torch.equal(loaded(x), small(x))
    weights = [(n, p.shape) for n, p in loaded.named_parameters()]
    assert weights == [(n, p.shape) for n, p in small.named_parameters()]
    before = loaded(x)
    training.fit(loaded, train, epochs=1, progress=False)
    assert not torch.equal(loaded(x), before) and pruning.sparsity(loaded) == pruning.sparsity(small) > 0


def test_removing_a_unit_is_not_masking_its_filter():
    """A masked filter still passes on its batch-norm bias; a removed unit does not."""
    net = _net()
    with torch.no_grad():
        net[5].bias.fill_(0.7)
    removed = pruning.prune(net, "magnitude", 0.5, structured=True)
    masked = masks.bare(net)
    with torch.no_grad():
        masked[4].weight[~masks.mask_of(removed[4]).flatten(1).any(1)] = 0
    x = torch.rand(4, 1, 8, 8)
    small = pruning.shrink(removed).eval()
    torch.testing.assert_close(small(x), removed.eval()(x), rtol=0, atol=1e-6)
    assert not torch.allclose(small(x), masked.eval()(x), atol=1e-2)


def test_layer_scope_removes_the_same_share_of_units_of_each_layer():
    sparse = pruning.prune(_net(width=20), "random", 0.6, structured=True, scope="layer")
    left = [masks.mask_of(m).flatten(1).any(1).float().mean() for m in list(masks.prunable(sparse).values())[:-1]]
    assert max(left) - min(left) < 0.06


def test_foreign_networks_need_an_example_and_layers_in_groups_are_left_whole(grouped):
    torchvision = vision.torchvision()
    net = torchvision.models.resnet18(num_classes=5).eval()
    x = torch.rand(2, 3, 32, 32)
    sparse = pruning.prune(net, "magnitude", 0.8, x, structured=True)
    torch.testing.assert_close(pruning.shrink(sparse, x)(x), sparse.eval()(x), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="needs x to trace a network that is not one of models.build"):
        pruning.shrink(sparse)
    x = torch.rand(1, 2, 8, 8).double()
    with pytest.warns(UserWarning, match="reads the units of 3.weight, 0.weight|reads the units of 0.weight, 3.weight"):
        sparse = pruning.prune(grouped, "magnitude", 0.9, x, structured=True)
    torch.testing.assert_close(pruning.shrink(sparse, x)(x), sparse(x))


@pytest.mark.gpu
def test_masks_move_between_devices():
    sparse = pruning.prune(_net(), "magnitude", 0.8)
    x = torch.rand(3, 1, 8, 8)
    expected = sparse.eval()(x)
    moved = sparse.cuda()
    torch.testing.assert_close(moved(x.cuda()).cpu(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(moved.cpu()(x), expected)


def test_masks_follow_the_network_to_another_device_and_dtype():
    sparse = pruning.prune(_net(), "magnitude", 0.8)
    assert {b.device.type for n, b in sparse.to("meta").named_buffers() if n.endswith("mask")} == {"meta"}
    double = pruning.prune(_net(), "magnitude", 0.8).double()
    assert double[1].weight.dtype == torch.float64 and masks.mask_of(double[1]).dtype == torch.bool


def test_bad_arguments_are_named(train):
    net = _net()
    for call, message in [
        (lambda: pruning.prune(net, "magnitude", 1.0), r"sparsity must be in \[0, 1\), got 1.0"),
        (lambda: pruning.prune(net, "magnitude", -0.1), r"sparsity must be in \[0, 1\), got -0.1"),
        (lambda: pruning.prune(net, "magnitude", float("nan")), r"sparsity must be finite, got nan"),
        (lambda: pruning.prune(net, "magnitud", 0.5), "unknown criterion 'magnitud'; did you mean 'magnitude'"),
        (lambda: pruning.prune(net, "magnitude", 0.5, scope="local"), "unknown scope 'local'"),
        (lambda: pruning.prune(net, "snip", 0.5), "criterion 'snip' needs data"),
        (lambda: pruning.prune(net, "snip", 0.5, train.x[:0], train.y[:0]), "at least one sample"),
        (
            lambda: pruning.prune(net, "grasp", 0.5, train.x[:9], train.y[:9].clamp(max=3)),
            "'grasp' needs inputs of every",
        ),
        (lambda: pruning.prune(net, "magnitude", 0.5, rounds=0), "rounds must be at least 1, got 0"),
        (
            lambda: pruning.prune(net, "magnitude", 0.5, structured=True, least=1.1),
            r"least must be in \[0, 1\], got 1.1",
        ),
        (lambda: pruning.prune(torch.nn.ReLU(), "magnitude", 0.5), "no convolution or linear layer"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with torch.no_grad():
        net[1].weight[0] = torch.nan
    with pytest.raises(ValueError, match=r"magnitude saliency of 1.weight is not finite"):
        pruning.prune(net, "magnitude", 0.5)
