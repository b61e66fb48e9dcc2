"""Which output units of a network belong together, and who reads them: what a structured cut must cut.

Residual sums couple channels of several layers; flattening spreads a channel over many inputs of the next layer.
Torch-Pruning (Fang et al. 2023, https://arxiv.org/abs/2301.12900) finds this by tracing one forward pass.
"""

from dataclasses import dataclass

import torch
import torch_pruning
from torch import nn

from sparselib.models import evaluating
from sparselib.pruning import masks


@dataclass(frozen=True)
class Group:
    """Units that stand or fall together, numbered 0 … size − 1.

    `writers` {layer name: rows (size, r)}: the output units of each layer that make the unit.
    `readers` {layer name: columns (size, c)}: the input slices of each layer that read it.
    """

    root: str
    size: int
    writers: dict
    readers: dict


def groups(model, example):
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
    for cut in _traced(model, example).get_all_groups(root_module_types=[nn.modules.conv._ConvNd, nn.Linear]):
        size = len(set(cut[0].root_idxs))
        writers, readers = {}, {}
        for item in cut:
            layer = item.dep.target.module
            if layer in names:
                order = torch.tensor(item.root_idxs).argsort(stable=True)
                index = torch.tensor(item.idxs)[order].view(size, -1)
                side = readers if "in_channels" in item.dep.handler.__name__ else writers
                side[names[layer]] = index
        if readers:
            found.append(Group(names[cut[0].dep.target.module], size, writers, readers))
    return found


def cut(model, example, dead):
    """Remove units for real, in place. `dead` is {root layer name: unit numbers}; `model` is without masks."""
    layers = masks.prunable(model)
    graph = _traced(model, example)
    for root, units in dead.items():
        layer = layers[root]
        linear = isinstance(layer, nn.Linear)
        remove = torch_pruning.prune_linear_out_channels if linear else torch_pruning.prune_conv_out_channels
        graph.get_pruning_group(layer, remove, idxs=list(units)).prune()


def _traced(model, example):
    with evaluating(model), torch.enable_grad():
        return torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example[:1])


def shrink(model, example=None):
    """Return a physically smaller network that computes the same: units that nobody reads are cut out.

    Args:
        model: pruned with `structured=True`; left untouched. Other masks stay, on the weights that are left.
        example: inputs (N, C, H, W) to trace the network with; not needed for networks of `models.build`.
    """
    small = masks.bare(model)
    example = example_input(model, example)
    before = masks.prunable(model)
    dead = {}
    for group in groups(small, example):
        unread = torch.ones(group.size, dtype=torch.bool)
        for name, columns in group.readers.items():
            mask = masks.mask_of(before[name])
            read = torch.ones(columns.max() + 1, dtype=torch.bool) if mask is None else _by_column(mask).any(0).cpu()
            unread &= ~read[columns].any(1)
        if unread.any():
            dead[group.root] = unread.nonzero().flatten().tolist()
    cut(small, example, dead)  # keeps .spec: checkpoints reads the sizes off the stored tensors
    for name, layer in masks.prunable(small).items():
        if masks.mask_of(before[name]) is not None and not layer.weight.all():
            masks.set_mask(layer, layer.weight != 0)
    return small


def surviving_units(model, scores, sparsity, scope, example):
    """Return {name: bool mask} after removing units, lowest score first, until the sparsity is as near as can be."""
    layers = masks.prunable(model)
    shapes = {name: layer.weight.shape for name, layer in layers.items()}
    rows = {name: _alive(layer, 0) for name, layer in layers.items()}  # (out,) bool: units that are left
    columns = {name: _alive(layer, 1) for name, layer in layers.items()}  # (in,) bool: inputs that are left
    area = {name: shape[2:].numel() for name, shape in shapes.items()}
    total = sum(shape.numel() for shape in shapes.values())

    earlier = {name: masks.mask_of(layer) for name, layer in layers.items()}
    cells = {  # (out, in): how many weights of each pair of units are left
        name: torch.full(shapes[name][:2], area[name]) if m is None else m.reshape(*m.shape[:2], -1).sum(2).cpu()
        for name, m in earlier.items()
    }

    queue, left = [], {}
    found = groups(masks.bare(model), example)
    for number, group in enumerate(found):
        score = sum(scores[name].cpu()[index].double().mean(1) for name, index in group.writers.items())
        alive = torch.stack([columns[name][index].any(1) for name, index in group.readers.items()]).any(0)
        left[number] = int(alive.sum())
        if scope == "layer":  # the rank within the group, as a fraction of its size
            score = score.masked_fill(~alive, -torch.inf).argsort().argsort().double() / group.size
        queue += [(float(score[unit]), number, unit) for unit in alive.nonzero().flatten().tolist()]
    removed = total - sum(int(cells[n][rows[n]][:, columns[n]].sum()) for n in layers)
    clamped = set()
    for _, number, unit in sorted(queue):
        group = found[number]
        if left[number] == 1:
            clamped.add(group.root)
            continue
        gain, gone = 0, []  # weights that go with the unit; (flags, positions) to put back
        for name, index in group.writers.items():
            r = index[unit][rows[name][index[unit]]]
            gain += int(cells[name][r][:, columns[name]].sum())
            gone.append((rows[name], r))
            rows[name][r] = False
        for name, index in group.readers.items():
            c = index[unit][columns[name][index[unit]]]
            gain += int(cells[name][:, c][rows[name]].sum())
            gone.append((columns[name], c))
            columns[name][c] = False
        if abs(removed + gain - sparsity * total) >= abs(removed - sparsity * total):  # one too far
            for flags, positions in gone:
                flags[positions] = True
            continue  # a smaller one may still bring it closer
        removed += gain
        left[number] -= 1
    masks.warn_emptied(sorted(clamped), "unit")
    return {
        name: (rows[name][:, None] & columns[name])
        .view(shape[0], shape[1], *[1] * (len(shape) - 2))
        .expand(shape)
        .clone()
        .to(layers[name].weight.device)
        for name, shape in shapes.items()
    }


def _alive(layer, dimension):
    """Return which output units (0) or inputs (1) of a layer have a weight left, (out,) or (in,) bool on the CPU."""
    mask = masks.mask_of(layer)
    if mask is None:
        return torch.ones(layer.weight.shape[dimension], dtype=torch.bool)
    return (mask.flatten(1).any(1) if dimension == 0 else _by_column(mask).any(0)).cpu()


def _by_column(mask):
    """Return the mask as (rest, in)."""
    return mask.transpose(0, 1).flatten(1).T


def example_input(model, x):
    """Return one input for tracing: the first of x, or zeros in the shape that the network was built for."""
    device = next(model.parameters()).device
    if x is not None and len(x):
        return x[:1].to(device)
    spec = getattr(model, "spec", None)
    if spec is None:
        raise ValueError("structured pruning needs x to trace a network that is not one of models.build, got None")
    dtype = next(model.parameters()).dtype
    return torch.zeros(1, spec["in_channels"], spec["image_size"], spec["image_size"], dtype=dtype, device=device)
