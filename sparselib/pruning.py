"""Remove the least important weights of a network."""

import copy

import torch

from sparselib import checks, criteria, masks

SCOPES = ("global", "layer")


def prune(model, criterion, sparsity, x=None, y=None, *, scope="global", seed=0):
    """Return a copy of the model in which the fraction `sparsity` of its prunable weights is masked.

    Args:
        model: left untouched. Weights it has already lost stay lost.
        criterion: how weights are ranked; see `criteria.saliency`, which also gets x, y and seed.
        sparsity: in [0, 1), the fraction of prunable weights (of convolutions and linear layers) removed.
        scope: "global" ranks all weights together; "layer" removes the same fraction of each layer.
    Exactly round((1 − sparsity)·N) weights survive, also when scores tie.
    """
    checks.number("sparsity", sparsity, 0, 1, high_open=True)
    checks.choice("scope", scope, SCOPES)
    scores = criteria.saliency(model, criterion, x, y, seed=seed)
    pruned = copy.deepcopy(model)
    layers = masks.prunable(pruned)
    for name, layer in layers.items():
        if (mask := masks.mask_of(layer)) is not None:
            scores[name] = scores[name].masked_fill(~mask, -torch.inf)
    for name, mask in _survivors(scores, 1 - sparsity, scope).items():
        if (earlier := masks.mask_of(layers[name])) is not None:
            mask &= earlier  # nothing returns, even when fewer than asked for were left
        masks.set_mask(layers[name], mask)
    return pruned


def _survivors(scores, density, scope):
    if scope == "layer":
        return {name: masks.keep_highest(s, round(density * s.numel())) for name, s in scores.items()}
    flat = torch.cat([s.flatten() for s in scores.values()])
    mask = masks.keep_highest(flat, round(density * flat.numel()))
    parts = mask.split([s.numel() for s in scores.values()])
    return {name: part.view(s.shape) for (name, s), part in zip(scores.items(), parts, strict=True)}


def sparsity(model):
    """Return the fraction in [0, 1] of the prunable weights that are masked."""
    kept = total = 0
    for layer in masks.prunable(model).values():
        mask = masks.mask_of(layer)
        total += layer.weight.numel()
        kept += layer.weight.numel() if mask is None else int(mask.sum())
    return 1 - kept / total
