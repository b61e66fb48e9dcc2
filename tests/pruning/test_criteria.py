import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparselib import models, pruning
from sparselib.pruning import criteria, masks

X = torch.rand(12, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3


@pytest.fixture
def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def _by_hand(net, temperature=1.0):
    """Return (weights, g, Hg) of the two layers through the full Hessian of a function of all weights."""
    weights = [net[1].weight.detach(), net[3].weight.detach()]
    sizes = [w.numel() for w in weights]

    def loss(flat):
        w1, w2 = (part.view(w.shape) for part, w in zip(flat.split(sizes), weights, strict=True))
        hidden = torch.tanh(X.flatten(1) @ w1.T + net[1].bias.detach())
        return F.cross_entropy((hidden @ w2.T + net[3].bias.detach()) / temperature, Y)

    flat = torch.cat([w.flatten() for w in weights])
    g = torch.func.grad(loss)(flat)
    hg = torch.autograd.functional.hessian(loss, flat) @ g
    forward_over_reverse = torch.func.jvp(torch.func.grad(loss), (flat,), (g,))[1]
    torch.testing.assert_close(hg, forward_over_reverse, rtol=1e-10, atol=1e-14)
    return [dict(zip(("1.weight", "3.weight"), (p.view(w.shape) for p, w in zip(v.split(sizes), weights, strict=True)),
                     strict=True)) for v in (flat, g, hg)]  # fmt: skip


@pytest.mark.parametrize("batch_size", [256, 5])
def test_scores_equal_their_definition_in_float64(two_layers, batch_size):
    theta, g, hg = _by_hand(two_layers)
    _, _, hg_cool = _by_hand(two_layers, temperature=200)  # 12 inputs, 4 of each class: balanced is the mean
    expected = {
        "magnitude": lambda n: theta[n].abs(),
        "snip": lambda n: (theta[n] * g[n]).abs(),
        "crop": lambda n: (theta[n] * hg[n]).abs(),
        "grasp": lambda n: theta[n] * hg_cool[n],
    }
    units = {
        "magnitude": lambda n: theta[n].pow(2).sum(1).sqrt(),
        "snip": lambda n: (theta[n] * g[n]).sum(1).abs(),
        "crop": lambda n: 2 * (theta[n] * hg[n]).sum(1).abs(),
        "grasp": lambda n: (theta[n] * hg_cool[n]).sum(1),
    }
    for criterion in expected:
        for structured, formula in ((False, expected[criterion]), (True, units[criterion])):
            scores = criteria.saliency(two_layers, criterion, X, Y, structured=structured, batch_size=batch_size)
            for name, score in scores.items():
                torch.testing.assert_close(score, formula(name), rtol=1e-10, atol=1e-18)


def test_grasp_weighs_the_classes_equally(two_layers):
    index = torch.tensor([0, 1, 2, 3, 6, 9])  # four of class 0, one of each other
    copies = torch.tensor([0, 3, 6, 9, 1, 1, 1, 1, 2, 2, 2, 2])  # the same inputs, balanced by repetition
    a = criteria.saliency(two_layers, "grasp", X[index], Y[index])
    b = criteria.saliency(two_layers, "grasp", X[copies], Y[copies])
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-9, atol=1e-18)


class _Gated(nn.Module):
    """A convolutional network whose units carry explicit gates, multiplied onto the unit's weights."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.gates = nn.ParameterDict({n.replace(".", "_"): torch.ones(len(m.weight)).double()
                                       for n, m in masks.prunable(net).items()})  # fmt: skip

    def weights(self):
        return {
            n: m.weight * self.gates[n.replace(".", "_")].view(-1, *[1] * (m.weight.ndim - 1))
            for n, m in masks.prunable(self.net).items()
        }

    def loss(self, x, y, weights):
        return F.cross_entropy(torch.func.functional_call(self.net, weights, (x,)), y)


def test_unit_scores_equal_explicit_gates(grouped):
    torch.manual_seed(1)
    x, y = torch.rand(6, 2, 8, 8).double(), torch.tensor([0, 1, 2, 3, 0, 1])
    gated = _Gated(grouped)
    gates = list(gated.gates.values())
    names = list(masks.prunable(grouped))
    weights = gated.weights()
    loss = gated.loss(x, y, weights)
    snap = torch.autograd.grad(loss, gates, create_graph=True)
    g = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    crop = torch.autograd.grad(sum((v**2).sum() for v in g), gates)
    for criterion, expected in (("snip", snap), ("crop", crop)):
        scores = criteria.saliency(grouped, criterion, x, y, structured=True)
        for name, value in zip(names, expected, strict=True):
            torch.testing.assert_close(scores[name], value.detach().abs(), rtol=1e-8, atol=1e-14)


def test_snap_closed_form_from_the_layer_outputs(grouped):
    """∂L/∂c_o = Σ_positions δ_o (y_o − b_o), with δ the gradient of the layer's output y and b its bias."""
    x, y = torch.rand(5, 2, 8, 8).double(), torch.tensor([0, 1, 2, 3, 0])
    layers = masks.prunable(grouped)
    outputs = {}
    hooks = [m.register_forward_hook(lambda m, i, out, n=n: outputs.__setitem__(n, out)) for n, m in layers.items()]
    loss = F.cross_entropy(grouped(x), y)
    deltas = torch.autograd.grad(loss, list(outputs.values()))
    for hook in hooks:
        hook.remove()
    scores = criteria.saliency(grouped, "snip", x, y, structured=True)
    for (name, out), delta in zip(outputs.items(), deltas, strict=True):
        shape = (1, -1, *[1] * (out.ndim - 2))
        value = delta * (out - layers[name].bias.view(shape))
        torch.testing.assert_close(scores[name], value.transpose(0, 1).flatten(1).sum(1).abs(), rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("name", ["convnet", "resnet18", "vgg16"])
def test_synflow_is_conserved_on_a_network_without_biases(name):
    """Tanaka 2020: what flows into each layer of a chain flows out of it, and is R."""
    net = models.build(name, in_channels=1, num_classes=4, image_size=8, width=4)
    scores = criteria.saliency(net, "synflow")
    sums = {n: s.sum().item() for n, s in scores.items()}
    if name == "resnet18":  # across a block, the sum over both ways is conserved; first and last layer carry all
        first, last = list(sums.values())[0], list(sums.values())[-1]
        assert first == pytest.approx(last, rel=1e-9)
    else:
        assert max(sums.values()) == pytest.approx(min(sums.values()), rel=1e-9)
    assert scores["1.weight"].dtype == torch.float64


def test_synflow_depends_on_neither_signs_nor_data():
    net = models.build("resnet8", in_channels=1, num_classes=4, image_size=8, width=4)
    flipped = copy.deepcopy(net)
    with torch.no_grad():
        for layer in masks.prunable(flipped).values():
            layer.weight.neg_()
    a, b = (criteria.saliency(n, "synflow", torch.rand(2, 1, 8, 8)) for n in (net, flipped))
    assert all(torch.equal(a[n], b[n]) for n in a)


def test_the_sign_of_grasp_keeps_the_gradient_flow():
    """Keeping the highest θ⊙Hg holds up gᵀg; keeping the lowest destroys it."""
    torch.manual_seed(4)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3)).double()

    def flow(keep):
        thinned = copy.deepcopy(net)
        scores = criteria.saliency(net, "grasp", X, Y)
        flat = keep * torch.cat([s.flatten() for s in scores.values()])
        kept = masks.keep_highest(flat, len(flat) // 2).split([s.numel() for s in scores.values()])
        for layer, mask in zip(masks.prunable(thinned).values(), kept, strict=True):
            masks.set_mask(layer, mask.view(layer.weight.shape))
        loss = F.cross_entropy(thinned(X) / 200, Y)
        return sum(
            (g**2).sum()
            for g in torch.autograd.grad(loss, [masks.original(m) for m in masks.prunable(thinned).values()])
        )

    assert flow(+1) > 3 * flow(-1)


def test_removed_weights_score_zero_and_modes_are_left(two_layers):
    sparse = pruning.prune(two_layers, "magnitude", 0.5).train()
    for criterion in ("snip", "crop", "grasp"):
        scores = criteria.saliency(sparse, criterion, X, Y)
        for name, layer in masks.prunable(sparse).items():
            assert not scores[name][~masks.mask_of(layer)].any()
    assert sparse.training and all(p.grad is None for p in sparse.parameters())


def test_random_follows_its_seed():
    net = models.build("convnet", in_channels=1, num_classes=4, image_size=8)
    a, b, c = (criteria.saliency(net, "random", seed=s)["4.weight"] for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c) and a.min() >= 0 and a.max() < 1


def test_bad_input_is_named(two_layers):
    for call, message in [
        (lambda: criteria.saliency(two_layers, "crop"), "criterion 'crop' needs data"),
        (lambda: criteria.saliency(two_layers, "grapp", X, Y), "unknown criterion 'grapp'; did you mean 'grasp'"),
        (lambda: criteria.saliency(two_layers, "grasp", X, Y.clamp(max=1)), r"every class, got none of class \[2\]"),
        (lambda: criteria.saliency(two_layers, "synflow"), "needs x, for its shape"),
        (lambda: criteria.saliency(two_layers, "snip", X * torch.inf, Y), "x must be finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with torch.no_grad():
        two_layers[1].weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match="magnitude saliency of 1.weight is not finite"):
        criteria.saliency(two_layers, "magnitude")


@pytest.mark.parametrize("layer, named", [
    (nn.Sigmoid(), "1 (Sigmoid)"), (nn.GroupNorm(2, 4), "1 (GroupNorm)"), (nn.Softmax(1), "1 (Softmax)"),
    (nn.LeakyReLU(), None), (nn.BatchNorm2d(4), None),
])  # fmt: skip
def test_synflow_names_layers_that_do_not_double_with_their_input(layer, named):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), layer, nn.Flatten(), nn.Linear(144, 3)).eval()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        criteria.saliency(net, "synflow", torch.rand(1, 1, 8, 8))
    assert [named in str(warning.message) for warning in caught] == ([True] if named else [])


def test_of_nested_modules_synflow_names_the_innermost_and_of_functions_the_whole():
    block = nn.Sequential(nn.Identity(), nn.Sequential(nn.ReLU(), nn.Sigmoid()))
    net = nn.Sequential(nn.Conv2d(1, 4, 3), block, nn.Flatten(), nn.Linear(144, 3)).eval()
    with pytest.warns(UserWarning, match=r"nothing before 1.1.1 \(Sigmoid\): double"):
        criteria.saliency(net, "synflow", torch.rand(1, 1, 8, 8))

    class Shifted(nn.Sequential):
        def forward(self, x):
            return super().forward(x) + 1

    net = Shifted(nn.Flatten(), nn.Linear(64, 3)).eval()
    with pytest.warns(UserWarning, match=r"nothing before \(Shifted\): double"):
        criteria.saliency(net, "synflow", torch.rand(1, 1, 8, 8))


@pytest.mark.parametrize("criterion", ["snip", "crop", "grasp"])
def test_data_need_both_halves_and_at_least_one_sample(two_layers, criterion):
    for x, y, message in [
        (X, None, f"criterion '{criterion}' needs data: x and y, got None"),
        (None, Y, f"criterion '{criterion}' needs data: x and y, got None"),
        (X[:0], Y[:0], f"criterion '{criterion}' needs at least one sample, got an empty batch"),
    ]:
        with pytest.raises(ValueError, match=message):
            criteria.saliency(two_layers, criterion, x, y)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        criteria.saliency(two_layers, criterion, X, Y, batch_size=0)


def test_a_criterion_of_others_may_keep_its_graph_and_must_score_every_weight(grouped):
    """Scores with a gradient are used as they are; scores of other shapes are refused by the weight's name."""
    try:
        criteria.register("deep")(
            lambda problem, structured: {n: 1 + la.weight.abs() for n, la in problem.layers.items()}
        )
        found = criteria.saliency(grouped, "deep")
        assert not any(score.requires_grad for score in found.values())
        criteria.register("lacking")(lambda problem, structured: {})
        with pytest.raises(ValueError, match=r"lacking must give scores \(6, 2, 3, 3\) of 0.weight, got none"):
            criteria.saliency(grouped, "lacking")
    finally:
        for name in ("deep", "lacking"):
            criteria.CRITERIA._parts.pop(name, None)
