"""Pruning criteria: how much each weight, or each whole output unit, matters. Keep the highest.

θ is a weight, g = ∂L/∂θ the gradient of the mean cross-entropy L over all inputs given, H the Hessian of L, ⊙ the
elementwise product; g and H are taken over the prunable weights that are still there. A *unit* is an output channel
of a convolution or an output of a linear layer; its gate c multiplies all weights of the unit, so ∂L/∂c = Σ θ⊙g.
Everything is measured in eval mode: gates before a train-mode batch-norm have no effect, whatever the unit's worth.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from sparselib import checks, seeds
from sparselib.models import Normalize, evaluating
from sparselib.pruning import masks

GRASP_TEMPERATURE = 200  # on the logits, as in the GraSP paper


def saliency(model, criterion, x=None, y=None, *, structured=False, seed=0, batch_size=256):
    """Return {parameter name: score}: of each prunable weight in its shape, or of each unit (out,) if `structured`.

    | criterion | weight | unit | data |
    |---|---|---|---|
    | "random" | U(0, 1) by `seed` | the same | – |
    | "magnitude" | \\|θ\\| | ‖θ‖₂ of the unit | – |
    | "snip" (Lee 2019) | \\|θ⊙g\\| | \\|∂L/∂c\\| | x, y |
    | "grasp" (Wang 2020) | θ⊙Hg, signed, at temperature 200 | its sum | x, y of all classes |
    | "synflow" (Tanaka 2020) | \\|θ⊙∂R/∂θ\\| | its sum | – |
    | "crop" (Rachwan 2022) | \\|θ⊙Hg\\| | \\|∂(gᵀg)/∂c\\| | x, y |

    Args:
        model: from (N, C, H, W) to logits (N, K); left as found.
        x, y: inputs (N, C, H, W) and int64 labels (N,). "synflow" looks at the shape of x only, and not at all for
            networks of `models.build`.
        seed: for "random". batch_size: inputs at a time; the scores are those of all of them together.
    Raises: ValueError for an unknown criterion, missing or empty data, a class without inputs ("grasp"), or scores
    that are not finite (the layer is named).
    """
    checks.choice("criterion", criterion, NAMES)
    checks.integer("batch_size", batch_size, low=1)
    layers = masks.prunable(model)
    if criterion in DATA_DRIVEN:
        if x is None or y is None:
            raise ValueError(f"criterion {criterion!r} needs data: x and y, got None")
        checks.labels(y, checks.images(x))
        if not len(x):
            raise ValueError(f"criterion {criterion!r} needs at least one sample, got an empty batch")
    frozen = [p for layer in layers.values() if not (p := masks.original(layer)).requires_grad]
    try:
        with evaluating(model):
            for parameter in frozen:
                parameter.requires_grad_()
            scores = CRITERIA[criterion](_Problem(model, layers, x, y, seed, batch_size), structured)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
    for name, score in scores.items():
        if not torch.isfinite(score).all():
            raise ValueError(f"{criterion} saliency of {name} is not finite")
    return scores


class _Problem:
    """The network, its layers and the data that a criterion looks at."""

    def __init__(self, model, layers, x, y, seed, batch_size):
        self.model, self.layers, self.x, self.y, self.seed, self.batch_size = model, layers, x, y, seed, batch_size
        self.originals = [masks.original(layer) for layer in layers.values()]

    def losses(self, sample_weights, temperature=1.0):
        """Yield the weighted cross-entropy of one batch after the other; their sum is L."""
        parts = (t.split(self.batch_size) for t in (self.x, self.y, sample_weights))
        for x, y, w in zip(*parts, strict=True):
            with torch.enable_grad():
                logits = checks.logits(self.model(x), x) / temperature
                yield (w * F.cross_entropy(logits, y, reduction="none")).sum()

    def gradient(self, sample_weights):
        """Return g, one tensor per layer, of the tensors behind the masks: 0 where a weight is removed."""
        total = [torch.zeros_like(p) for p in self.originals]
        for loss in self.losses(sample_weights):
            for t, g in zip(total, torch.autograd.grad(loss, self.originals, materialize_grads=True), strict=True):
                t += g
        return total

    def hessian_gradient(self, sample_weights, temperature=1.0):
        """Return Hg, one tensor per layer: the gradient of gᵀv at v = g, batch by batch (double backward)."""
        total = None
        if len(self.x) > self.batch_size:  # v is the gradient of all batches, needed before the second pass
            total = [torch.zeros_like(p) for p in self.originals]
            for loss in self.losses(sample_weights, temperature):
                for t, g in zip(total, torch.autograd.grad(loss, self.originals, materialize_grads=True), strict=True):
                    t += g
        product = [torch.zeros_like(p) for p in self.originals]
        for loss in self.losses(sample_weights, temperature):
            gradient = torch.autograd.grad(loss, self.originals, create_graph=True, materialize_grads=True)
            v = total or [g.detach() for g in gradient]
            along = sum((g * d).sum() for g, d in zip(gradient, v, strict=True))
            for p, h in zip(product, torch.autograd.grad(along, self.originals, materialize_grads=True), strict=True):
                p += h
        return product

    def uniform(self):
        """Return sample weights that make L the mean."""
        return torch.full((len(self.x),), 1 / len(self.x), dtype=self.x.dtype, device=self.x.device)

    def times_weight(self, factors):
        """Return {name: θ ⊙ factor}; with factors of removed weights 0, the mask is in force."""
        pairs = zip(self.layers, self.originals, factors, strict=True)
        return {name: theta.detach() * factor for name, theta, factor in pairs}


def _units(scores):
    """Return the sum over the weights of each unit, {name: (out,)}."""
    return {name: score.flatten(1).sum(1) for name, score in scores.items()}


def _absolute(scores):
    return {name: score.abs() for name, score in scores.items()}


def _random(problem, structured):
    rng = seeds.generator(problem.seed, "random saliency")
    weights = {name: layer.weight for name, layer in problem.layers.items()}
    shapes = {name: w.shape[:1] if structured else w.shape for name, w in weights.items()}
    return {name: torch.rand(shape, generator=rng).to(weights[name].device) for name, shape in shapes.items()}


def _magnitude(problem, structured):
    weights = {name: layer.weight.detach() for name, layer in problem.layers.items()}
    return {name: w.flatten(1).norm(dim=1) if structured else w.abs() for name, w in weights.items()}


def _snip(problem, structured):
    scores = problem.times_weight(problem.gradient(problem.uniform()))
    return _absolute(_units(scores) if structured else scores)


def _grasp(problem, structured):
    """Removing weights with δ = −θ changes the gradient flow gᵀg by 2δᵀHg: keep those whose θ⊙Hg holds it up.

    The paper (Wang 2020, https://arxiv.org/abs/2002.07376) writes S = −θ⊙Hg and removes the highest S.
    """
    with torch.no_grad():
        classes = checks.logits(problem.model(problem.x[:1]), problem.x[:1]).shape[1]
    counts = torch.bincount(problem.y, minlength=classes)
    if (counts == 0).any():
        absent = (counts == 0).nonzero().flatten().tolist()
        raise ValueError(f"criterion 'grasp' needs inputs of every class, got none of class {absent}")
    balanced = 1 / (counts * len(counts))[problem.y].to(problem.x.dtype)
    scores = problem.times_weight(problem.hessian_gradient(balanced, GRASP_TEMPERATURE))
    return _units(scores) if structured else scores


def _crop(problem, structured):
    """Rachwan et al. 2022, https://arxiv.org/abs/2206.10451. ∂(gᵀg)/∂c = 2·Σ θ⊙Hg over the unit."""
    scores = problem.times_weight(problem.hessian_gradient(problem.uniform()))
    return {n: 2 * s for n, s in _absolute(_units(scores)).items()} if structured else _absolute(scores)


def _synflow(problem, structured):
    """R is the summed output of the network made linear and positive: |θ|, no shifts, an input of ones.

    Tanaka et al. 2020, https://arxiv.org/abs/2006.05467. In float64, for deep products over- and underflow.
    """
    spec = getattr(problem.model, "spec", None)
    if problem.x is not None:
        shape = problem.x.shape[1:]
    elif spec is not None:
        shape = (spec["in_channels"], spec["image_size"], spec["image_size"])
    else:
        raise ValueError("criterion 'synflow' needs x, for its shape: the network is not one of models.build")
    linear = copy.deepcopy(problem.model).double()
    with torch.no_grad():
        for module in linear.modules():
            if isinstance(module, Normalize):
                module.mean.zero_(), module.std.fill_(1)
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.zero_()
            for name, parameter in module.named_parameters(recurse=False):
                parameter.zero_() if name == "bias" else parameter.abs_()
    copied = _Problem(linear, masks.prunable(linear), None, None, 0, 0)
    ones = torch.ones(1, *shape, dtype=torch.float64, device=copied.originals[0].device)
    with torch.enable_grad():
        gradient = torch.autograd.grad(linear(ones).sum(), copied.originals, materialize_grads=True)
    scores = _absolute(copied.times_weight(gradient))
    return _units(scores) if structured else scores


CRITERIA = {
    "random": _random,
    "magnitude": _magnitude,
    "snip": _snip,
    "grasp": _grasp,
    "synflow": _synflow,
    "crop": _crop,
}
NAMES = tuple(CRITERIA)
DATA_DRIVEN = ("snip", "grasp", "crop")
