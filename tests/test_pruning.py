import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import prune as oracle

from sparselib import checkpoints, criteria, masks, models, pruning, training


def _net(**changes):
    return models.build("convnet", **{"in_channels": 1, "num_classes": 10, "image_size": 8, "width": 6, **changes})


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.777, 0.95])
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


def test_snip_equals_autograd_on_a_two_layer_network_in_float64():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 3)
    ).double()
    x, y = torch.rand(6, 1, 2, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 1])
    w1, b1, w2, b2 = (p.detach() for p in net.parameters())
    flat = x.flatten(1)
    hidden = torch.tanh(flat @ w1.T + b1)
    delta2 = ((hidden @ w2.T + b2).softmax(1) - torch.nn.functional.one_hot(y, 3)) / len(x)  # ∂L/∂z, by hand
    delta1 = (delta2 @ w2) * (1 - hidden**2)
    scores = criteria.saliency(net, "snip", x, y)
    torch.testing.assert_close(scores["1.weight"], (w1 * (delta1.T @ flat)).abs(), rtol=1e-10, atol=0)
    torch.testing.assert_close(scores["3.weight"], (w2 * (delta2.T @ hidden)).abs(), rtol=1e-10, atol=0)


def test_damaged_checkpoint_is_told(tmp_path):
    path = tmp_path / "net.safetensors"
    checkpoints.save_model(_net(), path)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"\x80\x04pickle"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged or not a network of sparselib"):
            checkpoints.load_model(path)
    with pytest.raises(ValueError, match="must come from models.build"):
        checkpoints.save_model(torch.nn.Linear(2, 2), path)


def test_bad_arguments_are_named(train):
    net = _net()
    for call, message in [
        (lambda: pruning.prune(net, "magnitude", 1.0), r"sparsity must be in \[0, 1\), got 1.0"),
        (lambda: pruning.prune(net, "magnitude", -0.1), r"sparsity must be in \[0, 1\), got -0.1"),
        (lambda: pruning.prune(net, "magnitude", float("nan")), r"sparsity must be in \[0, 1\), got nan"),
        (lambda: pruning.prune(net, "magnitud", 0.5), "unknown criterion 'magnitud'; did you mean 'magnitude'"),
        (lambda: pruning.prune(net, "magnitude", 0.5, scope="local"), "unknown scope 'local'"),
        (lambda: pruning.prune(net, "snip", 0.5), "criterion 'snip' needs data"),
        (lambda: pruning.prune(net, "snip", 0.5, train.x[:0], train.y[:0]), "at least one sample"),
        (lambda: pruning.prune(torch.nn.ReLU(), "magnitude", 0.5), "no convolution or linear layer"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with torch.no_grad():
        net[1].weight[0] = torch.nan
    with pytest.raises(ValueError, match=r"magnitude saliency of 1.weight is not finite"):
        pruning.prune(net, "magnitude", 0.5)
