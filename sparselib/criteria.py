"""Pruning criteria: how much each weight matters. Keep the highest.

θ is a weight, g = ∂L/∂θ the gradient of the mean cross-entropy L.
"""

import torch
import torch.nn.functional as F

from sparselib import checks, masks, seeds
from sparselib.models import evaluating


def saliency(model, criterion, x=None, y=None, *, seed=0):
    """Return {parameter name: score}, one tensor in the shape of each prunable weight.

    Args:
        model: any module from (N, C, H, W) to logits; left as found.
        criterion: "random" (uniform in [0, 1), by `seed`), "magnitude" (|θ|), or "snip" (|θ⊙g|, Lee et al. 2019,
            https://arxiv.org/abs/1810.02340).
        x, y: the inputs (N, C, H, W) and int64 labels (N,) that "snip" is measured on.
    Raises: ValueError for an unknown criterion, missing or empty data, or scores that are not finite.
    """
    checks.choice("criterion", criterion, NAMES)
    layers = masks.prunable(model)
    with evaluating(model):
        scores = CRITERIA[criterion](model, layers, x, y, seed)
    for name, score in scores.items():
        if not torch.isfinite(score).all():
            raise ValueError(f"{criterion} saliency of {name} is not finite")
    return scores


def _random(model, layers, x, y, seed):
    rng = seeds.generator(seed, "random saliency")
    return {n: torch.rand(m.weight.shape, generator=rng).to(m.weight.device) for n, m in layers.items()}


def _magnitude(model, layers, x, y, seed):
    return {name: layer.weight.detach().abs() for name, layer in layers.items()}


def _snip(model, layers, x, y, seed):
    if x is None or y is None:
        raise ValueError("criterion 'snip' needs data: x and y, got None")
    checks.labels(y, checks.images(x))
    if not len(x):
        raise ValueError("criterion 'snip' needs at least one sample, got an empty batch")
    weights = [layer.weight for layer in layers.values()]
    # The masked weight is what the network computes with; its gradient comes through the layer's own tensor θ,
    # and θ ⊙ ∂L/∂θ is the same for both: removed weights score 0.
    originals = [masks.original(layer) for layer in layers.values()]
    with torch.enable_grad():
        loss = F.cross_entropy(checks.logits(model(x), x), y)
    gradients = torch.autograd.grad(loss, originals)
    return {name: (w * g).detach().abs() for name, w, g in zip(layers, weights, gradients, strict=True)}


CRITERIA = {"random": _random, "magnitude": _magnitude, "snip": _snip}
NAMES = tuple(CRITERIA)
