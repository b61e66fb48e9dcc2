"""Pruning criteria: how much each weight, or each whole output unit, matters. Keep the highest.

θ is a weight, g = ∂L/∂θ the gradient of the mean cross-entropy L over all inputs given, H the Hessian of L, ⊙ the
elementwise product; g and H are taken over the prunable weights that are still there. A *unit* is an output channel
of a convolution or an output of a linear layer; its gate c multiplies all weights of the unit, so ∂L/∂c = Σ θ⊙g.
Everything is measured in eval mode: gates before a train-mode batch-norm have no effect, whatever the unit's worth.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_leaves

from sparselib import checks, seeds
from sparselib.models import Normalize, batch_norms, evaluating, input_shape, requiring_gradients
from sparselib.pruning import masks, units
from sparselib.registry import Registry

GRASP_TEMPERATURE = 200  # on the logits, as in the GraSP paper
ROUNDS = {"synflow": 100}  # of scoring and removing in which a criterion makes one cut; the others: 1


@checks.typed
def saliency(
    model: nn.Module, criterion: str, x: torch.Tensor | None = None, y: torch.Tensor | None = None, *,
    structured: bool = False, seed: int = 0, batch_size: int = 256,
) -> dict[str, torch.Tensor]:  # fmt: skip
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
    problem = Problem(model, criterion, x, y, seed, batch_size)
    scores = problem.saliency(structured)
    return {name: scores[name] for name in problem.layers}


@dataclass
class Problem:
    """The network, its prunable layers by weight name, and the data that a criterion looks at.

    It outlasts a round of pruning: masks that the model gets later count in the next scores.
    """

    model: nn.Module
    criterion: str
    x: torch.Tensor | None = None
    y: torch.Tensor | None = None
    seed: int = 0
    batch_size: int = 256

    def __post_init__(self) -> None:
        checks.choice("criterion", self.criterion, CRITERIA)
        checks.integer("batch_size", self.batch_size, low=1)
        self.layers: dict[str, masks.Layer] = masks.distinct(self.model)
        self.originals: list[torch.Tensor] = [masks.original(layer) for layer in self.layers.values()]

    def saliency(self, structured: bool) -> dict[str, torch.Tensor]:
        """Return the scores of the model as it is now, as the function `saliency`.

        If `structured`, most criteria add by `units.inputs(name)` the scores (in,) of what a layer reads of each input.
        """
        with evaluating(self.model), requiring_gradients(self.originals, True):
            scores = {name: score.detach() for name, score in CRITERIA[self.criterion](self, structured).items()}
        for name, layer in self.layers.items():
            shape = layer.weight.shape[:1] if structured else layer.weight.shape
            if name not in scores or scores[name].shape != shape:  # the criterion may be anyone's
                got = tuple(scores[name].shape) if name in scores else "none"
                raise ValueError(f"{self.criterion} must give scores {tuple(shape)} of {name}, got {got}")
        for name, score in scores.items():
            if not torch.isfinite(score).all():
                raise ValueError(f"{self.criterion} saliency of {name} is not finite")
        return scores

    @cached_property
    def data(self) -> tuple[torch.Tensor, torch.Tensor]:
        """x (N, C, H, W) and y (N,), at least one input. Raises: ValueError/TypeError where they are not."""
        if self.x is None or self.y is None:
            raise ValueError(f"criterion {self.criterion!r} needs data: x and y, got None")
        checks.labels(self.y, checks.images(self.x))
        if not len(self.x):
            raise ValueError(f"criterion {self.criterion!r} needs at least one sample, got an empty batch")
        return self.x, self.y

    def losses(self, weights: torch.Tensor | None = None, temperature: float = 1.0) -> Iterator[torch.Tensor]:
        """Yield the weighted cross-entropy of one batch after the other; their sum is L. `weights` (N,): 1/N each."""
        inputs, labels = self.data
        if weights is None:
            weights = torch.full((len(inputs),), 1 / len(inputs), dtype=inputs.dtype, device=inputs.device)
        for x, y, w in zip(*(t.split(self.batch_size) for t in (inputs, labels, weights)), strict=True):
            with torch.enable_grad():
                logits = checks.logits(self.model(x), x) / temperature
                checks.labels(y, x, classes=logits.shape[1])
                yield (w * F.cross_entropy(logits, y, reduction="none")).sum()

    def gradient(self, weights: torch.Tensor | None = None, temperature: float = 1.0) -> list[torch.Tensor]:
        """Return g, one tensor per layer, of the tensors behind the masks: 0 where a weight is removed."""
        return self._total(self.derivatives(loss) for loss in self.losses(weights, temperature))

    def hessian_gradient(self, weights: torch.Tensor | None = None, temperature: float = 1.0) -> list[torch.Tensor]:
        """Return Hg, one tensor per layer: the gradient of gᵀv at v = g, batch by batch (double backward)."""
        # v is the gradient of all batches: where there is more than one, it is needed before the second pass.
        v = self.gradient(weights, temperature) if len(self.data[0]) > self.batch_size else None

        def product(loss):
            gradient = self.derivatives(loss, create_graph=True)
            pairs = zip(gradient, v or [g.detach() for g in gradient], strict=True)
            return self.derivatives(sum(((g * d).sum() for g, d in pairs), start=loss.new_zeros(())))

        return self._total(product(loss) for loss in self.losses(weights, temperature))

    def derivatives(self, value: torch.Tensor, *, create_graph: bool = False) -> tuple[torch.Tensor, ...]:
        """Return ∂value/∂θ, one tensor per layer, of the tensors behind the masks."""
        return torch.autograd.grad(value, self.originals, create_graph=create_graph, materialize_grads=True)

    @cached_property
    def flow(self) -> tuple[nn.Module, dict[str, masks.Layer], torch.Tensor]:
        """A copy of the model made linear and positive for SynFlow, its layers by name, and its input of ones.

        |θ|, no shifts, in float64, for deep products over- and underflow. Made once, so it warns once, naming the
        layers that are not linear in it: before them SynFlow's scores mean nothing.
        """
        shape = input_shape(self.model) if self.x is None else self.x.shape[1:]
        if shape is None:
            raise ValueError("criterion 'synflow' needs x, for its shape: the network is not one of models.build")
        linear = masks.bare(self.model).double().eval()
        with torch.no_grad():
            for module in linear.modules():
                if isinstance(module, Normalize):
                    module.mean.zero_()
                    module.std.fill_(1)
                for name, parameter in module.named_parameters(recurse=False):
                    parameter.zero_() if name == "bias" else parameter.abs_()
            for layer in batch_norms(linear):
                if layer.running_mean is not None:
                    layer.running_mean.zero_()
        linear.requires_grad_(False)
        layers = masks.distinct(linear)
        for layer in layers.values():
            layer.weight.requires_grad_()
        ones = torch.ones(1, *shape, dtype=torch.float64, device=self.originals[0].device)
        if broken := _not_homogeneous(linear, ones):
            reason = "double the input does not give double the output"
            warnings.warn(f"synflow scores mean nothing before {', '.join(broken)}: {reason}", stacklevel=7)
        return linear, layers, ones

    def _total(self, parts):
        total = [torch.zeros_like(p) for p in self.originals]
        for part in parts:
            for t, p in zip(total, part, strict=True):
                t += p
        return total

    def times_weight(self, factors: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return {name: θ ⊙ factor}; with factors of removed weights 0, the mask is in force."""
        pairs = zip(self.layers, self.originals, factors, strict=True)
        return {name: theta.detach() * factor for name, theta, factor in pairs}


def _units(scores):
    """Return the sums over the weights of each unit, {name: (out,)}, and of each input, {units.inputs(name): (in,)}."""
    return {**_sums(scores), **_sums({units.inputs(n): score.transpose(0, 1) for n, score in scores.items()})}


def _sums(scores):
    return {name: score.flatten(1).sum(1) for name, score in scores.items()}


def _absolute(scores):
    return {name: score.abs() for name, score in scores.items()}


def random(problem: Problem, structured: bool) -> dict[str, torch.Tensor]:
    """U(0, 1), drawn layer by layer on the CPU by the seed: the control that every criterion has to beat."""
    rng, scores = seeds.generator(problem.seed, "random saliency"), {}
    for name, layer in problem.layers.items():
        shape = layer.weight.shape[:1] if structured else layer.weight.shape
        scores[name] = torch.rand(shape, generator=rng).to(layer.weight.device)
    return scores


def magnitude(problem: Problem, structured: bool) -> dict[str, torch.Tensor]:
    """|θ|, or ‖θ‖₂ of the unit. Han et al. 2015, https://arxiv.org/abs/1506.02626."""
    weights = {name: layer.weight.detach() for name, layer in problem.layers.items()}
    if not structured:
        return _absolute(weights)
    return {name: squares.sqrt() for name, squares in _units({n: w.square() for n, w in weights.items()}).items()}


def snip(problem: Problem, structured: bool) -> dict[str, torch.Tensor]:
    """|θ⊙g|, or |∂L/∂c| = |Σ θ⊙g| over the unit. Lee et al. 2019, https://arxiv.org/abs/1810.02340."""
    scores = problem.times_weight(problem.gradient())
    return _absolute(_units(scores) if structured else scores)


def grasp(problem: Problem, structured: bool) -> dict[str, torch.Tensor]:
    """θ⊙Hg, or its sum over the unit, at logits/200 and with all classes weighing the same.

    Removing weights with δ = −θ changes the gradient flow gᵀg by 2δᵀHg: keep those whose θ⊙Hg holds it up.
    The paper (Wang et al. 2020, https://arxiv.org/abs/2002.07376) writes S = −θ⊙Hg and removes the highest S.
    """
    x, y = problem.data
    with torch.no_grad():
        classes = checks.logits(problem.model(x[:1]), x[:1]).shape[1]
    counts = torch.bincount(y, minlength=classes)
    if (counts == 0).any():
        absent = (counts == 0).nonzero().flatten().tolist()
        raise ValueError(f"criterion 'grasp' needs inputs of every class, got none of class {absent}")
    balanced = 1 / (counts * len(counts))[y].to(x.dtype)
    scores = problem.times_weight(problem.hessian_gradient(balanced, GRASP_TEMPERATURE))
    return _units(scores) if structured else scores


def crop(problem: Problem, structured: bool) -> dict[str, torch.Tensor]:
    """|θ⊙Hg|, or |∂(gᵀg)/∂c| = |2·Σ θ⊙Hg| over the unit. Rachwan et al. 2022, https://arxiv.org/abs/2206.10451."""
    scores = problem.times_weight(problem.hessian_gradient())
    return {n: 2 * s for n, s in _absolute(_units(scores)).items()} if structured else _absolute(scores)


def synflow(problem: Problem, structured: bool) -> dict[str, torch.Tensor]:
    """|θ⊙∂R/∂θ|, or its sum over the unit. Tanaka et al. 2020, https://arxiv.org/abs/2006.05467.

    R is the summed output of the network made linear and positive: |θ|, no shifts, an input of ones (`Problem.flow`).
    What flows into a layer flows out of it, so the smallest layers score highest, weight by weight, and in many rounds
    (`ROUNDS`) a layer that no shortcut leads around is emptied only when fewer weights are kept than there are layers.
    """
    linear, layers, ones = problem.flow
    with torch.no_grad():
        for name, layer in layers.items():
            layer.weight.copy_(problem.layers[name].weight.abs())
    with torch.enable_grad():
        weights = [layer.weight for layer in layers.values()]
        gradients = torch.autograd.grad(linear(ones).sum(), weights, materialize_grads=True)
    pairs = zip(layers.items(), gradients, strict=True)
    scores = {name: (layer.weight.detach() * gradient).abs() for (name, layer), gradient in pairs}
    return _units(scores) if structured else scores


def _not_homogeneous(model, ones):
    """Return the innermost modules whose output does not double with their input, or "" for the whole."""

    def doubled(one, two):
        pairs = zip(tree_leaves(one), tree_leaves(two), strict=True)
        return all(torch.allclose(2 * a, b, rtol=1e-6, atol=0) for a, b in pairs if isinstance(a, torch.Tensor))

    found = []
    pairs = zip(units.calls(model, ones), units.calls(model, 2 * ones), strict=True)
    for (name, given, result), (_, given2, result2) in pairs:
        inner = any(name == "" or other.startswith(f"{name}.") for other in found)
        if given and doubled(given[:1], given2[:1]) and not doubled(result, result2) and not inner:
            found.append(name)
    return [f"{name} ({type(model.get_submodule(name)).__name__})".strip() for name in found]


CRITERIA = Registry("sparselib.criteria", {
    "random": random, "magnitude": magnitude, "snip": snip, "grasp": grasp, "synflow": synflow, "crop": crop,
})  # fmt: skip
NAMES = CRITERIA.own
register = CRITERIA.register
