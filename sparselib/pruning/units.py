"""Which output units of a network belong together, and who reads them: what a structured cut must cut.

Residual sums couple channels of several layers; flattening spreads a channel over many inputs of the next layer.
Torch-Pruning (Fang et al. 2023, https://arxiv.org/abs/2301.12900) finds this by tracing one forward pass.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

import torch
import torch_pruning
from torch import nn

from sparselib.models import device_of, evaluating, input_shape
from sparselib.pruning import masks


@dataclass(frozen=True)
class Group:
    """Units that stand or fall together, numbered 0 … size − 1.

    `writers` {layer name: rows (size, r)}: the output units of each layer that make the unit.
    `readers` {layer name: columns (size, c)}: the input slices of each layer that read it.
    """

    root: str
    size: int
    writers: dict[str, torch.Tensor]
    readers: dict[str, torch.Tensor]


def groups(model: nn.Module, example: torch.Tensor) -> list[Group]:
    """Return the Groups of all units that another prunable layer reads; the network's outputs are in none.

    Args:
        model: without masks (see `masks.bare`). example: inputs (N, C, H, W), traced in one forward pass.
    Raises: ValueError naming layers whose structure is not supported: convolutions in groups.
    """
    names = {layer: name for name, layer in masks.prunable(model).items()}
    grouped = [n for layer, n in names.items() if not isinstance(layer, nn.Linear) and layer.groups > 1]
    if grouped:
        raise ValueError(f"structured pruning does not support convolutions in groups: {', '.join(grouped)}")
    found = []
    for cut in _traced(model, example).get_all_groups(root_module_types=list(get_args(masks.Layer))):
        size, writers, readers = len(set(cut[0].root_idxs)), {}, {}
        for item in cut:
            layer = item.dep.target.module
            if layer in names:
                order = torch.tensor(item.root_idxs).argsort(stable=True)
                side = readers if "in_channels" in item.dep.handler.__name__ else writers
                side[names[layer]] = torch.tensor(item.idxs)[order].view(size, -1)
        if readers:
            found.append(Group(names[cut[0].dep.target.module], size, writers, readers))
    return found


def cut(model: nn.Module, example: torch.Tensor, dead: dict[str, Iterable[int]]) -> None:
    """Remove units for real, in place. `dead` is {root layer name: unit numbers}; `model` is without masks."""
    layers, graph = masks.prunable(model), _traced(model, example)
    for root, units in dead.items():
        linear = isinstance(layers[root], nn.Linear)
        remove = torch_pruning.prune_linear_out_channels if linear else torch_pruning.prune_conv_out_channels
        graph.get_pruning_group(layers[root], remove, idxs=list(units)).prune()


def _traced(model, example):
    with evaluating(model), torch.enable_grad():
        return torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example[:1])


def shrink(model: nn.Module, example: torch.Tensor | None = None) -> nn.Module:
    """Return a physically smaller network that computes the same: units that nobody reads are cut out.

    Args:
        model: pruned with `structured=True`; left untouched. Other masks stay, on the weights that are left.
        example: inputs (N, C, H, W) to trace the network with; not needed for networks of `models.build`.
    """
    small, example = masks.bare(model), example_input(model, example)
    before, dead = masks.prunable(model), {}
    for group in groups(small, example):
        unread = torch.ones(group.size, dtype=torch.bool)
        for name, columns in group.readers.items():
            mask = masks.mask_of(before[name])
            mask = torch.ones_like(before[name].weight) if mask is None else mask
            unread &= ~mask.transpose(0, 1).flatten(1).any(1).cpu()[columns].any(1)
        if unread.any():
            dead[group.root] = unread.nonzero().flatten().tolist()
    cut(small, example, dead)  # keeps .spec: checkpoints reads the sizes off the stored tensors
    for name, layer in masks.prunable(small).items():
        if masks.mask_of(before[name]) is not None and not layer.weight.all():
            masks.set_mask(layer, layer.weight != 0)
    return small


def surviving_units(
    model: nn.Module, scores: dict[str, torch.Tensor], sparsity: float, scope: str, example: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return {name: bool mask} after removing units, lowest score first, until the sparsity is as near as can be.

    `scores` {name: (out,)}; `sparsity` in [0, 1); `scope` "global" or "layer"; `example` as in `groups`.
    """
    layers = masks.prunable(model)
    cells = {}  # (out, in): how many weights of each pair of units are left
    for name, layer in layers.items():
        mask = masks.mask_of(layer)
        mask = torch.ones_like(layer.weight, dtype=torch.bool) if mask is None else mask
        cells[name] = mask.reshape(*mask.shape[:2], -1).sum(2).cpu()

    queue, left, clamped = [], {}, set()
    found = groups(masks.bare(model), example)
    for number, group in enumerate(found):
        means = (scores[n].cpu()[index].double().mean(1) for n, index in group.writers.items())
        score = sum(means, start=torch.zeros(group.size, dtype=torch.float64))
        alive = torch.stack([cells[n].any(0)[index].any(1) for n, index in group.readers.items()]).any(0)
        left[number] = int(alive.sum())
        if scope == "layer":  # the rank within the group, as a fraction of its size
            score = score.masked_fill(~alive, -torch.inf).argsort().argsort().double() / group.size
        queue += [(float(score[unit]), number, unit) for unit in alive.nonzero().flatten().tolist()]

    total = sum(layer.weight.numel() for layer in layers.values())
    removed = total - sum(int(c.sum()) for c in cells.values())
    for _, number, unit in sorted(queue):
        group = found[number]
        if left[number] == 1:
            clamped.add(group.root)
            continue
        sides = [(cells[name], index[unit]) for name, index in group.writers.items()]
        sides += [(cells[name].T, index[unit]) for name, index in group.readers.items()]
        gone = []
        for table, index in sides:
            gone.append((table, index, table[index]))
            table[index] = 0
        gain = sum(int(counts.sum()) for _, _, counts in gone)
        if abs(removed + gain - sparsity * total) < abs(removed - sparsity * total):
            removed += gain
            left[number] -= 1
        else:  # one too far; a smaller one may still bring it closer
            for table, index, counts in reversed(gone):
                table[index] = counts
    masks.warn_emptied(sorted(clamped), "unit")
    kept = {}
    for name, layer in layers.items():
        pairs = (cells[name] > 0).to(layer.weight.device)
        kept[name] = pairs.view(*pairs.shape, *[1] * (layer.weight.ndim - 2)).expand_as(layer.weight).clone()
    return kept


def example_input(model: nn.Module, x: torch.Tensor | None) -> torch.Tensor:
    """Return one input (1, C, H, W) for tracing: the first of x, or zeros in the shape the network was built for.

    Raises: ValueError without x for a network that is not one of `models.build`.
    """
    if x is not None and len(x):
        return x[:1].to(device_of(model))
    shape = input_shape(model)
    if shape is None:
        raise ValueError("structured pruning needs x to trace a network that is not one of models.build, got None")
    return torch.zeros(1, *shape, dtype=next(model.parameters()).dtype, device=device_of(model))
