"""Which output units of a network belong together, and who reads them: what a structured cut must cut.

Residual sums couple channels of several layers; flattening spreads a channel over many inputs of the next layer.
Torch-Pruning (Fang et al. 2023, https://arxiv.org/abs/2301.12900) finds this by tracing one forward pass. It does not
know who computes with all channels at once: layer-norms, softmax, attention. So each group is tried: with some of its
units masked where prunable layers read them, and with the same units cut out, the network must compute the same.
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import torch
import torch_pruning
from torch import nn
from torch.utils._pytree import tree_leaves

from sparselib import checks, seeds
from sparselib.models import BatchNorm, batch_norms, device_of, evaluating, input_shape, requiring_gradients
from sparselib.pruning import masks

NORMS = (*get_args(BatchNorm), nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
CHANNEL_WISE = (*NORMS, nn.PReLU)  # what a unit becomes in these layers goes with the unit
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, eq=False)
class Group:
    """Units that stand or fall together, numbered 0 … size − 1.

    `writers` {layer name: rows (size, r)}: the output units of each layer that make the unit.
    `readers` {layer name: columns (size, c)}: the input slices of each layer that read it.
    `cuts`: of every module and parameter that holds a part of the unit its name, the function of Torch-Pruning that
    removes indices from it, along which dimension, and the indices (size, i).
    """

    root: str
    size: int
    writers: dict[str, torch.Tensor]
    readers: dict[str, torch.Tensor]
    cuts: list[tuple[str, Callable[..., Any], int, torch.Tensor]]


def groups(model: nn.Module, example: torch.Tensor) -> tuple[list[Group], list[str]]:
    """Return the Groups of all units that only prunable layers read, and the weights whose units are left whole.

    The network's outputs are in none. Left whole is what meets in other ways: in norms over channels, softmax,
    attention, convolutions in groups (but depthwise ones), transposed convolutions that read, shared weights.

    Args:
        model: without masks (see `masks.bare`). example: inputs (N, C, H, W), traced in one forward pass.
    Raises: ValueError for a network that cannot be traced.
    """
    names = {layer: name for name, layer in masks.prunable(model).items()}
    known = {module: name for name, module in model.named_modules()}
    parameters = {id(parameter): name for name, parameter in model.named_parameters()}
    made, lost = _traced(model, example)
    found, whole = [], [names[layer] for layer in lost]
    for parts in made:
        size, sides, cuts, tangled = len(set(parts[0].root_idxs)), ({}, {}), [], False
        for part in parts:
            module, dep = part.dep.target.module, part.dep
            name = parameters.get(id(module)) if isinstance(module, nn.Parameter) else known.get(module)
            if name is None:  # an operation of the trace: nothing to cut
                continue
            order = torch.tensor(part.root_idxs).argsort(stable=True)
            even = len(order) % size == 0
            indices = torch.tensor(part.idxs)[order if even else order[:0]].view(size, -1 if even else 0)
            cuts.append((name, dep.handler, dep.target.pruning_dim, indices))
            reads = "in_channels" in dep.handler.__name__
            if module in names:
                sides[reads][names[module]] = indices
            tangled |= not (even and _separates(model, module, reads))
        if tangled:
            whole.append(names[parts[0].dep.target.module])
        elif sides[True]:
            found.append(Group(names[parts[0].dep.target.module], size, *sides, cuts))
    kept = _separable(model, found, example)
    return kept, [*whole, *(group.root for group in found if group not in kept)]


def _separates(model, module, reads):
    """Return whether this part of a group treats its channels one by one and can lose some of them."""
    if isinstance(module, TRANSPOSED):
        return module.groups == 1 and not reads
    if isinstance(module, masks.Layer):
        groups = getattr(module, "groups", 1)
        depthwise = groups == module.weight.shape[0] == getattr(module, "in_channels", None)
        return (groups == 1 or depthwise) and len(masks.sharing(model, module)) == 1
    return isinstance(module, (nn.Parameter, *CHANNEL_WISE)) or not list(module.parameters())


class _Bounded(list):
    """The index mappings of a dependency. They may not give more indices than any layer has: where channels go round
    through windows and heads (Swin), Torch-Pruning would follow them until the memory is full."""

    most = 0

    def __iter__(self):
        def bounded(mapping, indices):
            if len(mapped := mapping(indices)) > self.most:
                raise ValueError(f"{len(mapped)} indices, of at most {self.most}")
            return mapped

        return (mapping and partial(bounded, mapping) for mapping in super().__iter__())


def _traced(model, example):
    """Return the groups of dependent channels that Torch-Pruning finds, and the layers whose group it cannot find."""
    graph, made, lost, seen = torch_pruning.DependencyGraph(), [], [], set()
    most = max(max(parameter.shape, default=1) for parameter in model.parameters())
    with ExitStack() as stack:
        for context in (evaluating(model), torch.enable_grad(), requiring_gradients(model.parameters(), True)):
            stack.enter_context(context)
        stack.enter_context(warnings.catch_warnings(action="ignore"))  # of Torch-Pruning, about its own workings
        try:
            graph.build_dependency(model, example_inputs=example[:1], output_transform=tree_leaves, verbose=False)
        except Exception as error:  # whatever a foreign network meets on the way
            raise ValueError(f"structured pruning cannot trace {type(model).__name__}: {error!r}") from error
        for dependency in (d for node in graph.module2node.values() for d in node.dependencies):
            dependency.index_mapping = _Bounded(dependency.index_mapping)
            dependency.index_mapping.most = most
        for layer in [module for module in graph.module2node if isinstance(module, masks.Layer)]:
            if layer in seen:
                continue
            pruner: Any = graph.get_pruner_of_module(layer)
            units = list(range(len(layer.weight)))
            try:
                group = graph.get_pruning_group(layer, pruner.prune_out_channels, units)
            except Exception:  # as above
                lost.append(layer)
                continue
            seen |= {part.dep.target.module for part in group if graph.is_out_channel_pruning_fn(part.dep.handler)}
            made.append(group)
    return made, lost


def _separable(model, found, example):
    """Return the groups, by halves, that pass the trial: cutting some units is the same as masking their columns."""
    if not found or _passes(model, found, example):
        return found
    half = len(found) // 2
    return _separable(model, found[:half], example) + _separable(model, found[half:], example) if half else []


def _passes(model, found, example):
    rng = seeds.generator(0, "trial")
    masked = copy.deepcopy(model)
    with torch.no_grad():  # random weights: those that are 0, like a new head's, would hide everything
        for p in masked.parameters():
            drawn = torch.randn(p.shape, generator=rng) / p[0].numel() ** 0.5 if p.ndim > 1 else None
            p.copy_(torch.rand(p.shape, generator=rng) + 0.5 if drawn is None else drawn)
        for layer in batch_norms(masked):
            if layer.running_mean is not None:
                layer.running_mean.copy_(torch.rand(layer.running_mean.shape, generator=rng))
    example = torch.rand(2, *example.shape[1:], generator=rng).to(example)
    tried = [(group, torch.randperm(group.size, generator=rng)[: group.size // 2].tolist()) for group in found]
    small, layers = copy.deepcopy(masked), masks.prunable(masked)
    try:
        for group, units in tried:
            for name, columns in group.readers.items():
                layers[name].weight.detach()[:, columns[units].flatten()] = 0
        cut(small, tried)
        return _difference(masked, small, example) <= _tolerance(example)
    except Exception:  # shapes that the network fixes elsewhere
        return False


def cut(model: nn.Module, dead: Iterable[tuple[Group, Sequence[int]]]) -> None:
    """Remove units for real, in place: of each group those of the given numbers. `model` is without masks."""
    parts: dict[tuple[str, str], tuple[Callable[..., Any], int, set[int]]] = {}
    for group, units in dead:
        for name, remove, dim, indices in group.cuts:
            _, _, gone = parts.setdefault((name, remove.__name__), (remove, dim, set()))
            gone.update(indices[list(units)].flatten().tolist())
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for (name, _), (remove, dim, gone) in parts.items():
        if gone:
            remove.__self__.pruning_dim = dim
            owner, _, kind = name.rpartition(".")
            if name in flags:
                setattr(model.get_submodule(owner), kind, remove(model.get_parameter(name), sorted(gone)))
            else:
                remove(model.get_submodule(name), sorted(gone))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags[name])


def _difference(one, other, example):
    """Return the largest difference of the outputs of two networks, relative to the largest output."""
    with evaluating(one), evaluating(other), torch.no_grad():
        pairs = list(zip(tree_leaves(one(example)), tree_leaves(other(example)), strict=True))
    parts = [(a - b).abs().max() / a.abs().max().clamp_min(1e-30) for a, b in pairs if isinstance(a, torch.Tensor)]
    return float(torch.stack([part.double() for part in parts]).max())


def _tolerance(example):
    return max(1e-4, 32 * torch.finfo(example.dtype).eps)


@checks.typed
def shrink(model: nn.Module, example: torch.Tensor | None = None) -> nn.Module:
    """Return a physically smaller network that computes the same: units that nobody reads are cut out.

    Args:
        model: pruned with `structured=True`; left untouched. Other masks stay, on the weights that are left.
        example: inputs (N, C, H, W) to trace the network with; not needed for networks of `models.build`.
    Raises: ValueError as `groups`; RuntimeError, with the first layer that differs, should the results not agree.
    """
    small, example = masks.bare(model), example_input(model, example)
    before, dead = masks.prunable(model), []
    for group in groups(small, example)[0]:
        unread = torch.ones(group.size, dtype=torch.bool)
        for name, columns in group.readers.items():
            mask = masks.mask_of(before[name])
            mask = torch.ones_like(before[name].weight) if mask is None else mask
            unread &= ~mask.transpose(0, 1).flatten(1).any(1).cpu()[columns].any(1)
        dead.append((group, unread.nonzero().flatten().tolist()))
    cut(small, dead)  # keeps .spec: checkpoints reads the sizes off the stored tensors
    for name, layer in masks.prunable(small).items():
        if masks.mask_of(before[name]) is not None and not layer.weight.all():
            masks.set_mask(layer, layer.weight != 0)
    if not (apart := _difference(model, small, example)) <= _tolerance(example):
        where = _first(model, small, example)
        raise RuntimeError(f"the shrunk network differs from the masked one by {apart:.2g} of its output, {where}")
    return small


def _first(one, other, example):
    """Return in words where two networks first give outputs of one shape that differ."""
    with evaluating(one), evaluating(other):
        found = {name: output for name, _, output in calls(other, example)}
        for name, _, a in calls(one, example):
            b: Any = found.get(name)
            comparable = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape
            if comparable and not torch.allclose(a, b, rtol=0, atol=_tolerance(example) * float(a.abs().max())):
                return f"first at {name or 'the output'}"
    return "at the output"


def calls(model: nn.Module, x: torch.Tensor) -> list[tuple[str, tuple[Any, ...], Any]]:
    """Return (name, inputs, output) of each call of a module in a forward pass of x, inner modules first."""
    seen = []
    with ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            hooks.enter_context(module.register_forward_hook(lambda _, x, z, name=name: seen.append((name, x, z))))
        model(x)
    return seen


def inputs(name: str) -> str:
    """Return the key of the scores (in,) of a layer's inputs, beside those (out,) of its outputs by its own name."""
    return f"{name}, inputs"


def ranking(scores: Mapping[str, torch.Tensor], group: Group, alive: torch.Tensor) -> torch.Tensor:
    """Return the scores (size,) of a group's units, comparable between groups: 1 on average, units not `alive` as 0.

    A unit is what writes it and what reads it, for both go with it: before a batch-norm a filter's norm says nothing,
    that of the weights that read it does. Raw scores follow the size of their layer. So each layer's are divided by
    their mean (of absolute values: some are signed), which makes it the same whether they are totals or means of a
    unit's weights; then all layers, writers and readers, are averaged. Torch-Pruning's group norm, normalised by the
    mean (Fang et al. 2023), is alike, but that layers weigh the same there only where their weights are as large.

    Args: scores: {layer name: (out,)} and, by `inputs(name)`, (in,); without the latter, writers speak alone.
    """
    sides = [(scores[name], rows) for name, rows in group.writers.items()]
    sides += [(scores[inputs(n)], columns) for n, columns in group.readers.items() if inputs(n) in scores]
    shares = []
    for values, index in sides:
        share = values.cpu().double()[index].mean(1)  # (size,)
        mean = share[alive].abs().sum() / group.size  # over all, so that a layer that lost many holds the others fast
        shares.append(share / mean.clamp_min(torch.finfo(torch.float64).tiny))
    return torch.stack(shares).mean(0)


def surviving_units(
    model: nn.Module, scores: Mapping[str, torch.Tensor], sparsity: float, scope: str,
    traced: tuple[list[Group], list[str]], least: float = 0.1,
) -> tuple[dict[str, torch.Tensor], set[str]]:  # fmt: skip
    """Return {name: bool mask} after removing units, lowest rank first, until the sparsity is as near as can be.

    Args:
        scores: as for `ranking`. sparsity: in [0, 1). scope: "global" or "layer".
        traced: what `groups` returns for the model without masks.
        least: the fraction of the units of a group that stays, at least one; the groups that this held back, by their
            first layer, are returned, too.
    """
    layers = masks.distinct(model)
    cells = {}  # (out, in): how many weights of each pair of units are left
    for name, layer in layers.items():
        mask = masks.mask_of(layer)
        mask = torch.ones_like(layer.weight, dtype=torch.bool) if mask is None else mask
        cells[name] = mask.reshape(*mask.shape[:2], -1).sum(2).cpu()

    queue, left, held = [], {}, set()
    for number, group in enumerate(traced[0]):
        alive = torch.stack([cells[n].any(0)[index].any(1) for n, index in group.readers.items()]).any(0)
        left[number] = int(alive.sum())
        score = ranking(scores, group, alive)
        if scope == "layer":  # the rank within the group, as a fraction of its size
            score = score.masked_fill(~alive, -torch.inf).argsort().argsort().double() / group.size
        queue += [(float(score[unit]), number, unit) for unit in alive.nonzero().flatten().tolist()]

    total = sum(layer.weight.numel() for layer in layers.values())
    removed = total - sum(int(c.sum()) for c in cells.values())
    for _, number, unit in sorted(queue):
        group = traced[0][number]
        sides = [(cells[name], index[unit]) for name, index in group.writers.items()]
        sides += [(cells[name].T, index[unit]) for name, index in group.readers.items()]
        gone = []
        for table, index in sides:
            gone.append((table, index, table[index]))
            table[index] = 0
        gain = sum(int(counts.sum()) for _, _, counts in gone)
        nearer = abs(removed + gain - sparsity * total) < abs(removed - sparsity * total)
        enough = left[number] > max(1, math.ceil(least * group.size - 1e-9))  # 0.1 · 30 is a little over 3
        if nearer and enough:
            removed += gain
            left[number] -= 1
            continue
        for table, index, counts in reversed(gone):  # too few left, or one too far: a smaller one may come closer
            table[index] = counts
        if nearer:
            held.add(group.root)
    kept = {}
    for name, layer in layers.items():
        pairs = (cells[name] > 0).to(layer.weight.device)
        kept[name] = pairs.view(*pairs.shape, *[1] * (layer.weight.ndim - 2)).expand_as(layer.weight).clone()
    return kept, held


def warn_whole(traced: tuple[list[Group], list[str]], sparsity: float, reached: float) -> None:
    """Warn where the sparsity reached is lower than asked because of units that are left whole (see `groups`)."""
    found, whole = traced
    if reached < sparsity - 0.02 and (whole or not found):
        reason = f"more than the convolutions and linear layers behind reads the units of {', '.join(whole)}"
        reason = reason if whole else "no layer reads the units of another one"
        missed = f"structured pruning can remove {reached:.3f} of the weights, not {sparsity:.3g}"
        warnings.warn(f"{missed}: {reason}", stacklevel=5)


def example_input(model: nn.Module, x: torch.Tensor | None) -> torch.Tensor:
    """Return one input (1, C, H, W) for tracing: the first of x, or zeros in the shape the network was built for.

    Raises: ValueError without x for a network that is not one of `models.build`.
    """
    if x is not None and len(x):
        checks.images(x, name="x, the example,")
        return x[:1].to(device_of(model))
    shape = input_shape(model)
    if shape is None:
        raise ValueError("structured pruning needs x to trace a network that is not one of models.build, got None")
    return torch.zeros(1, *shape, dtype=next(model.parameters()).dtype, device=device_of(model))
