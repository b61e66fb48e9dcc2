import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparselib import pruning, vision
from sparselib.pruning import criteria, masks, units


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Sum(nn.Module):
    """The sum, or the concatenation, of what several layers make of the same."""

    def __init__(self, *parts, cat=False):
        super().__init__()
        self.parts, self.cat = nn.ModuleList(parts), cat

    def forward(self, x):
        outputs = [part(x) for part in self.parts]
        return torch.cat(outputs, 1) if self.cat else sum(outputs)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return self.norm(tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]).mean(1)[
            ..., None, None
        ]


def _conv(c_in=8, c_out=8, **options):
    return nn.Conv2d(c_in, c_out, 3, padding=1, **options)


def _around(*middle, c_out=8):
    """Units of the first convolution go through `middle` to the second, whose own are free."""
    torch.manual_seed(0)
    layers = [_conv(1), *middle, nn.ReLU(), _conv(c_out, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    net = nn.Sequential(*layers, nn.Linear(16, 4)).eval()
    for p in net.parameters():
        nn.init.normal_(p, std=0.5)
    return net


def _pruned_and_shrunk(net, x, sparsity=0.4):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pruning would empty|structured pruning can remove")
        sparse = pruning.prune(net, "magnitude", sparsity, x, structured=True).eval()
    small = pruning.shrink(sparse, x).eval()
    torch.testing.assert_close(small(x), sparse(x), rtol=0, atol=1e-4 * float(sparse(x).detach().abs().max()))
    return sparse, small


def test_ranking_equals_a_reimplementation_in_numpy():
    """Three layers with units in two groups: shares of each layer's mean, writers and readers averaged."""
    torch.manual_seed(0)
    net = nn.Sequential(_conv(1, 6), nn.BatchNorm2d(6), nn.ReLU(), _conv(6, 9), nn.ReLU(), nn.Flatten())
    net.append(nn.Linear(9 * 64, 4)).eval()
    with torch.no_grad():
        net[3].weight.mul_(100)  # the scale of a layer must not matter
    a, b, c = (net[i].weight.detach().double().numpy() for i in (0, 3, 6))
    c = c.reshape(4, 9, 64)

    def share(norms):
        return norms / norms.mean()

    first = (share(np.sqrt((a**2).sum((1, 2, 3)))) + share(np.sqrt((b**2).sum((0, 2, 3))))) / 2
    columns = np.sqrt((c**2).sum(0)).mean(1)  # of each flattened position, then of the unit
    second = (share(np.sqrt((b**2).sum((1, 2, 3)))) + share(columns)) / 2
    x = torch.rand(1, 1, 8, 8)
    problem = criteria.Problem(net, "magnitude", x)
    traced = {group.root: group for group in units.groups(net, x)[0]}
    for name, expected in (("0.weight", first), ("3.weight", second)):
        group = traced[name]
        found = units.ranking(problem.saliency(True), group, torch.ones(group.size, dtype=torch.bool))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    kept = {}  # and the ranks decide, over both groups, down to the last unit that brings the sparsity nearer
    ranks = np.concatenate([first, second])
    dead, target, total = {0: set(), 1: set()}, 0.5 * (a.size + b.size + c.size), a.size + b.size + c.size

    def removed():
        kept["a"], kept["c"] = 6 - len(dead[0]), 9 - len(dead[1])
        return total - (9 * kept["a"] + 9 * kept["a"] * kept["c"] + 4 * 64 * kept["c"])

    for place in ranks.argsort():
        group, unit = (0, place) if place < 6 else (1, place - 6)
        before = removed()
        dead[group].add(int(unit))
        if abs(removed() - target) >= abs(before - target):
            dead[group].remove(int(unit))
    sparse = pruning.prune(net, "magnitude", 0.5, x, structured=True)
    for index, group in ((0, 0), (3, 1)):
        gone = ~masks.mask_of(sparse[index]).flatten(1).any(1)
        assert set(gone.nonzero().flatten().tolist()) == dead[group]


def test_coupled_writers_are_averaged_and_signs_are_kept():
    group = units.Group("a", 2, {"a": torch.tensor([[0], [1]]), "b": torch.tensor([[1], [0]])}, {}, [])
    scores = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([-30.0, 10.0])}
    found = units.ranking(scores, group, torch.tensor([True, True]))
    assert found.tolist() == pytest.approx([(1 / 2 + 10 / 20) / 2, (3 / 2 - 30 / 20) / 2])
    alone = units.ranking(scores, group, torch.tensor([True, False]))
    assert alone[0].item() == pytest.approx(2.0), "the only one left carries the whole layer"


WHOLE = {
    "groupnorm": (nn.GroupNorm(2, 8),),
    "layernorm": (nn.LayerNorm([8, 8, 8]),),
    "rmsnorm": (Apply(lambda x: x.permute(0, 2, 3, 1)), nn.RMSNorm(8), Apply(lambda x: x.permute(0, 3, 1, 2))),
    "softmax": (nn.Softmax(1),),
    "cosine": (Apply(F.normalize),),
    "minus mean": (Apply(lambda x: x - x.mean(1, keepdim=True)),),
    "response norm": (nn.LocalResponseNorm(3, alpha=1.0),),
    "cumulative": (Apply(lambda x: x.cumsum(1)),),
    "grouped": (_conv(groups=2),),
    "transposed reader": (Sum(_conv(), nn.ConvTranspose2d(8, 8, 3, padding=1)),),
    "transposed": (nn.ConvTranspose2d(8, 8, 2, stride=2),),
    "attention": (Attention(),),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_units_that_meet_elsewhere_are_left_whole_and_all_else_is_cut(kind):
    x = torch.rand(4, 1, 8, 8)
    net = _around(*WHOLE[kind])
    _, small = _pruned_and_shrunk(net, x)
    assert small[0].out_channels == 8 and small[-1].in_features < 16
    with pytest.warns(UserWarning, match=r"can remove 0\.\d+ of the weights, not 0.95.* reads the units of .*0.weight"):
        pruning.prune(net, "magnitude", 0.95, x, structured=True)


def test_a_network_without_free_units_is_returned_whole_with_a_warning():
    x = torch.rand(4, 1, 8, 8)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    with pytest.warns(UserWarning, match="can remove 0.000 of the weights, not 0.5: .* reads the units of 1.weight"):
        assert pruning.sparsity(pruning.prune(net, "magnitude", 0.5, x, structured=True)) == 0
    with pytest.warns(UserWarning, match="no layer reads the units of another one"):
        pruning.prune(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "magnitude", 0.5, x, structured=True)


CUT = {
    "batch-norm": (nn.BatchNorm2d(8),),
    "instance-norm": (nn.InstanceNorm2d(8, affine=True),),
    "PReLU": (nn.PReLU(8),),
    "depthwise": (_conv(groups=8),),
    "gate": (Sum(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid()), nn.Identity()),),
    "concatenation": (Sum(_conv(8, 3), _conv(8, 5), cat=True),),
}


@pytest.mark.parametrize("kind", CUT)
@pytest.mark.parametrize("frozen", [False, True])
def test_channel_wise_layers_are_cut_and_frozen_ones_stay_frozen(kind, frozen):
    x = torch.rand(4, 1, 8, 8)
    net = _around(*CUT[kind])
    net[0].requires_grad_(not frozen)
    sparse, small = _pruned_and_shrunk(net, x, 0.6)
    assert pruning.sparsity(sparse) == pytest.approx(0.6, abs=0.08)
    assert small[0].out_channels < 8 and small[0].weight.requires_grad is not frozen
    assert all(p.requires_grad == q.requires_grad for p, q in zip(net.parameters(), small.parameters(), strict=True))


def test_layers_that_start_at_zero_hide_nothing():
    net = _around(nn.Softmax(1))
    nn.init.zeros_(net[-1].weight)
    found, whole = units.groups(net, torch.rand(1, 1, 8, 8))
    assert whole == ["0.weight"] and [group.root for group in found] == ["3.weight"]


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1", "densenet121", "efficientnet_b0"])
def test_networks_of_torchvision_shrink_and_compute_the_same(name):
    torch.manual_seed(0)
    net = getattr(vision.torchvision().models, name)(num_classes=5).requires_grad_(False).eval()
    sparse, small = _pruned_and_shrunk(net, torch.rand(2, 3, 64, 64), 0.5)
    assert pruning.sparsity(sparse) == pytest.approx(0.5, abs=0.01)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (net, small)]
    assert sizes[1] == pytest.approx(0.5 * sizes[0], rel=0.02) and not any(p.requires_grad for p in small.parameters())


@pytest.mark.parametrize("kind", ["vit", "swin", "convnext"])
def test_transformers_lose_hidden_units_and_keep_their_stream(kind):
    models = vision.torchvision().models
    torch.manual_seed(0)
    if kind == "vit":
        sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
        net = models.VisionTransformer(image_size=32, patch_size=8, num_classes=5, **sizes)
        nn.init.normal_(net.heads.head.weight)
    elif kind == "swin":
        shape = {"patch_size": [2, 2], "window_size": [4, 4], "embed_dim": 16}
        net = models.SwinTransformer(**shape, depths=[1, 1], num_heads=[2, 2], num_classes=5)
    else:
        block = models.convnext.CNBlockConfig
        net = models.ConvNeXt([block(8, 16, 2), block(16, None, 1)], layer_scale=1.0, num_classes=5)
    sparse, small = _pruned_and_shrunk(net.eval(), torch.rand(2, 3, 32, 32), 0.3)
    assert pruning.sparsity(sparse) == pytest.approx(0.3, abs=0.02)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (net, small)]
    assert sizes[1] < 0.8 * sizes[0]


def test_a_shrunk_network_that_differs_is_not_handed_out(monkeypatch):
    x = torch.rand(4, 1, 8, 8)
    sparse = pruning.prune(_around(nn.BatchNorm2d(8)), "magnitude", 0.5, x, structured=True)
    monkeypatch.setattr(units, "cut", lambda model, dead: nn.init.ones_(model[3].weight))
    monkeypatch.setattr(units, "groups", lambda model, example: ([], []))
    with pytest.raises(RuntimeError, match="differs from the masked one by .* of its output, first at 3"):
        pruning.shrink(sparse, x)
