"""Remove the least important weights, or whole units, of a network."""

import copy
import warnings
from typing import Any

import torch
from torch import nn

from sparselib import checks
from sparselib.pruning import criteria, masks, units

SCOPES = ("global", "layer")


@checks.typed
def prune(
    model: nn.Module, criterion: str, sparsity: float, x: torch.Tensor | None = None, y: torch.Tensor | None = None, *,
    structured: bool = False, scope: str = "global", rounds: int | None = None, least: float = 0.1, seed: int = 0,
    batch_size: int = 256,
) -> nn.Module:  # fmt: skip
    """Return a copy of the model in which the fraction `sparsity` of its prunable weights is masked.

    Args:
        model: left untouched. Weights it has already lost stay lost.
        criterion: how weights or units are ranked; see `criteria.saliency`, which also gets x, y, seed, batch_size.
        sparsity: in [0, 1), the fraction of the prunable weights (of convolutions and linear layers) removed.
        structured: remove whole output units, with the inputs of the layers that read them, ranked by `units.ranking`.
        scope: "global" ranks the whole network; "layer" removes the same fraction of each layer.
        rounds: repeat scoring and removing; after round k the density is density^(k/rounds) (exponential schedule).
            Default: the criterion's own number, 100 for "synflow" and 1 for the others (`criteria.ROUNDS`).
        least: in [0, 1], the fraction of a layer's units that stays at least, if structured; never fewer than one.
    Unstructured, exactly round((1 − sparsity)·N) weights survive, also when scores tie. Structured, as close as whole
    units allow. No layer is ever emptied: its last weight or units stay, and a warning names the layer. Units that meet
    outside convolutions and linear layers (see `units.groups`) stay; a warning names them where too little can go.
    Raises: ValueError for arguments out of range, networks that cannot be traced, weights that are computed from other
    tensors, scores that are not finite.
    """
    checks.number("sparsity", sparsity, 0, 1, high_open=True)
    checks.choice("scope", scope, SCOPES)
    checks.number("least", least, 0, 1)
    rounds_of(criterion, rounds)
    masks.distinct(model)  # refuses what cannot be copied, by name
    pruned = copy.deepcopy(model)
    options = {"structured": structured, "scope": scope, "least": least, "batch_size": batch_size}
    step_to(pruned, criterion, sparsity, x, y, rounds=rounds, seed=seed, **options)
    return pruned


def rounds_of(criterion: str, rounds: int | None) -> int:
    """Return `rounds`, an integer of at least 1, or for None the criterion's own number."""
    return criteria.ROUNDS.get(criterion, 1) if rounds is None else checks.integer("rounds", rounds, low=1)


def step_to(
    model: nn.Module, criterion: str, sparsity: float, x: torch.Tensor | None = None, y: torch.Tensor | None = None, *,
    structured: bool = False, scope: str = "global", rounds: int | None = None, least: float = 0.1, seed: int = 0,
    batch_size: int = 256,
) -> None:  # fmt: skip
    """Prune in place, for schedules that prune while they train. Arguments as `prune`.

    An optimiser that holds the model's parameters goes on with the same tensors.
    """
    rounds = rounds_of(criterion, rounds)
    problem = criteria.Problem(model, criterion, x, y, seed, batch_size)
    traced = units.groups(masks.bare(model), units.example_input(model, x)) if structured else None
    start, held = _density(model), set[str]()
    for k in range(1, rounds + 1):
        density = start * min(1.0, (1 - sparsity) / start) ** (k / rounds)
        problem.seed = seed + k - 1
        scores = problem.saliency(structured)
        if traced:
            kept, last = units.surviving_units(model, scores, 1 - density, scope, traced, least)
        else:
            kept, last = _surviving_weights(model, scores, 1 - density, scope)
        held.update(last)
        for name, layer in problem.layers.items():
            if (earlier := masks.mask_of(layer)) is not None:
                kept[name] &= earlier
        masks.set_masks(model, kept)
    if held:
        stays = f"{least:.0%} of the units, and at least one, stay" if structured else "the best weight stays"
        warnings.warn(f"pruning would empty {', '.join(sorted(held))}: of each, {stays}", stacklevel=4)
    if traced:
        units.warn_whole(traced, sparsity, 1 - _density(model))


def step(
    model: nn.Module, criterion: str, sparsity: float, x: torch.Tensor | None = None, y: torch.Tensor | None = None,
    **options: Any,
) -> None:  # fmt: skip
    """Prune in place with one scoring. Arguments as `prune`."""
    step_to(model, criterion, sparsity, x, y, rounds=1, **options)


@checks.typed
def sparsity(model: nn.Module) -> float:
    """Return the fraction in [0, 1] of the prunable weights that are masked."""
    return 1 - _density(model)


def _density(model):
    kept = total = 0
    for layer in masks.distinct(model).values():
        mask, size = masks.mask_of(layer), layer.weight.numel()
        total += size
        kept += size if mask is None else int(mask.sum())
    return kept / total


def _surviving_weights(model, scores, sparsity, scope):
    """Return {name: bool mask} with exactly round((1 − sparsity)·N) survivors, and the layers held at their last."""
    layers = masks.distinct(model)
    lost = {name: ~mask for name, layer in layers.items() if (mask := masks.mask_of(layer)) is not None}
    scores = {name: s.masked_fill(lost[name], -torch.inf) if name in lost else s for name, s in scores.items()}
    if scope == "layer":
        counts = {name: round((1 - sparsity) * s.numel()) for name, s in scores.items()}
        emptied = [name for name, count in counts.items() if not count]
        return {name: masks.keep_highest(s, max(1, counts[name])) for name, s in scores.items()}, emptied
    flat, sizes = torch.cat([s.flatten() for s in scores.values()]), [s.numel() for s in scores.values()]
    count = round((1 - sparsity) * len(flat))
    kept = masks.keep_highest(flat, count)
    emptied = [name for name, part in zip(scores, kept.split(sizes), strict=True) if not part.any()]
    if emptied:  # the best weight of every layer goes first, so the count stays exact wherever it can
        for part in flat.split(sizes):
            part[part.argmax()] = torch.inf  # a view of flat
        kept = masks.keep_highest(flat, max(count, len(sizes)))
    return {n: part.view(scores[n].shape) for n, part in zip(scores, kept.split(sizes), strict=True)}, emptied
