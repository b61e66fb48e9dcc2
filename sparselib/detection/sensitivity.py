"""Per-sample saliency: how much each weight matters to one input, reduced to a few numbers per input.

For the loss L_n of one input, with g_n = ∂L_n/∂θ and H_n its Hessian over the chosen weights θ, the saliency S_n is

    "snip"      θ ⊙ g_n            Lee et al. 2019, https://arxiv.org/abs/1810.02340
    "snap"      Σ_k θ_ok g_nok     of each output unit o, θ ⊙ g_n summed over its weights; needs no weight gradient
    "crop"      θ ⊙ H_n g_n        Rachwan et al. 2022, https://arxiv.org/abs/2206.10451
    "grasp"     θ ⊙ H_n g_n        at logits/200, Wang et al. 2020, https://arxiv.org/abs/2002.07376
    "gradient"  g_n

always signed. `profile` takes its p-norm over each layer, `norms` over the network, `moments` its mean and standard
deviation over a set of inputs. Gradients are formed a block of samples at a time (`per_sample`), reduced, and
forgotten.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sparselib import checks
from sparselib.detection import per_sample
from sparselib.pruning import masks

Layers = str | Sequence[str]
Tensors = Mapping[str, torch.Tensor]

CRITERIA = ("snip", "snap", "crop", "grasp", "gradient")
TARGETS = ("predicted", "logit", "uniform")
AGGREGATES = ("all", "mean")
TEMPERATURE = 200  # of the logits, in GraSP
BUDGET = 256 * 2**20  # bytes of per-sample tensors held at a time
CACHE = 3 * 2**20  # bytes of a block on the CPU: further passes over it stay in a cache


def names(model: nn.Module, layers: Layers = "all") -> list[str]:
    """Return the names of the weights that the columns of `profile` stand for; a weight shared by layers is one."""
    return [weight.name for weight in per_sample.select(model, layers)]


def norms(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor | None = None, *, norm: float = 2, aggregate: str = "all",
    **options: Any,
) -> torch.Tensor:  # fmt: skip
    """Return one number per input: ‖S_n‖_p over all chosen weights ("all"), or the mean over layers of their norms.

    `options` are those of `profile`. Returns: (N,) in the dtype of x.
    """
    checks.choice("aggregate", aggregate, AGGREGATES)
    layers = _profile(model, x, y, norm=norm, **options)
    return (layers.mean(1) if aggregate == "mean" else _norm(layers, norm)).to(x.dtype)


def profile(model: nn.Module, x: torch.Tensor, y: torch.Tensor | None = None, **options: Any) -> torch.Tensor:
    """Return the p-norm of each layer's saliency, for each input.

    Norms, not Σ|S|^p: a fifth power of a calm layer's saliency is below what float32 can hold.

    Args:
        model: from (N, C, H, W) to logits, evaluated in eval mode and left as found.
        x: inputs (N, C, H, W). y: int64 (N,), labels to take in place of the predicted ones.
        criterion: "snip" (default), "snap", "crop", "grasp" or "gradient"; see above.
        target: the loss L_n. "predicted" (default): the cross-entropy of the label; "logit": minus the label's logit;
            "uniform": the mean over classes of their cross-entropies (Huang et al. 2021,
            https://arxiv.org/abs/2110.00218).
        norm: p > 0, default 2, or infinity.
        reference: {weight name: R}, a saliency of every chosen weight: the norm is then of R − S_n.
        scale: {weight name: σ}, divides R − S_n; weights where σ is 0 (they never vary) are left out.
        per_loss: divide S_n by L_n + 1e-8, for target "logit" only. L_n = −z_y is mostly negative, and its sign
            counts; where z_y is close to 0, S_n grows without bound. As in the first author's public prototype,
            https://github.com/MorganeAyle/RobustnessPrunedNetworks. (Over the cross-entropy, the division would rank
            inputs by their confidence, the surest ones highest.)
        layers: "all" (default), "last", or a list of weight names such as "conv1.weight".
        budget: bytes of per-sample tensors to hold at most (one sample at least); no effect on the values.
    Returns: (N, layers) in the dtype of x, columns as in `names`; layers that take no part have S_n = 0.
        A sample's values do not depend on the others of its batch.
    Warns: of weight matrices outside convolution and linear layers, by name, when `layers` is "all".
    Raises: ValueError or TypeError for arguments out of range, and for values that are not finite.
    """
    return _profile(model, x, y, **options).to(x.dtype)


@checks.typed
def _profile(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor | None = None, *, criterion: str = "snip",
    target: str = "predicted", norm: float = 2, reference: Tensors | None = None, scale: Tensors | None = None,
    per_loss: bool = False, layers: Layers = "all", budget: int = BUDGET,
) -> torch.Tensor:  # fmt: skip
    measure = _Measure(criterion, target, per_loss, budget)
    weights = _weights(model, x, y, layers)
    if norm != torch.inf:
        checks.number("norm", norm, 0, low_open=True)
    if scale is not None and reference is None:
        raise ValueError("scale needs a reference, got reference=None")
    columns = {weight.name: column for column, weight in enumerate(weights)}
    values = torch.zeros(len(x), len(weights), dtype=torch.float64, device=x.device)
    with per_sample.prepared(model, weights):
        reference = _like_saliency("reference", reference, weights, criterion, x)
        scale = _like_saliency("scale", scale, weights, criterion, x)
        inverse = {name: torch.where(s > 0, 1 / s, 0) for name, s in scale.items()}
        for s in measure.saliencies(model, weights, x, y, rescale=not reference):
            name = s.weight.name
            values[s.rows, columns[name]] = layer_norm(s, norm, reference.get(name), inverse.get(name)) * s.unit
    _finite(criterion, {name: values[:, column] for name, column in columns.items()})
    return values


@checks.typed
def moments(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor | None = None, *, criterion: str = "snip",
    target: str = "predicted", per_loss: bool = False, layers: Layers = "all", budget: int = BUDGET,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:  # fmt: skip
    """Return the mean and the (population) standard deviation of the saliency over x, as {weight name: tensor}.

    Tensors have the shape of the weight, (O,) for "snap". They serve as `reference` and `scale` of `profile`, whose
    arguments these are; y are the true labels. Raises: as `profile`, and ValueError for an empty x.
    """
    measure = _Measure(criterion, target, per_loss, budget)
    weights = _weights(model, x, y, layers)
    if not len(x):
        raise ValueError("moments need at least one sample, got an empty batch")
    with per_sample.prepared(model, weights):
        mean = {w.name: torch.zeros(_shape(w, criterion), dtype=torch.float64, device=x.device) for w in weights}
        squares = {name: torch.zeros_like(m) for name, m in mean.items()}  # Σ (S_n − mean)²
        for saliency in measure.saliencies(model, weights, x, y, rescale=False):
            m, m2 = mean[saliency.weight.name], squares[saliency.weight.name]
            for rows, units, block in saliency.blocks:
                # Chan et al. 1983: two sets of samples of sizes a and b make one.
                a, b, s = saliency.rows.start + rows.start, len(block), block.double()
                own = s.mean(0)
                difference = own - m[units]
                m[units] += difference * (b / (a + b))
                m2[units] += s.sub_(own).square_().sum(0) + difference.square_() * (a * b / (a + b))
    _finite(criterion, mean)
    std = {name: (s / len(x)).sqrt().to(x.dtype) for name, s in squares.items()}
    return {name: m.to(x.dtype) for name, m in mean.items()}, std


def _weights(model, x, y, layers):
    """Check the inputs and return the chosen weights; warn of matrices that no criterion covers."""
    checks.images(x)
    if y is not None:
        checks.labels(y, x)
    weights = per_sample.select(model, layers)
    if isinstance(layers, str) and layers == "all":
        covered = {id(p) for weight in weights for p in weight.parameters}
        matrices = {n: p for n, p in model.named_parameters() if sum(size > 1 for size in p.shape) > 1}
        left = [name for name, p in matrices.items() if id(p) not in covered]
        if left:
            warnings.warn(f"saliency covers convolution and linear layers; left out: {', '.join(left)}", stacklevel=4)
    return weights


def _finite(criterion, tensors):
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{criterion} saliency of {name} is not finite")


def _shape(weight, criterion):
    return weight.value.shape[:1] if criterion == "snap" else weight.value.shape


def _like_saliency(argument, tensors, weights, criterion, x):
    """Return {weight name: tensor} of the chosen weights, in the dtype of x; {} for None."""
    if tensors is None:
        return {}
    if not isinstance(tensors, Mapping):
        raise TypeError(f"{argument} must be {{weight name: tensor}}, got {type(tensors).__name__}")
    for weight in weights:
        if weight.name not in tensors:
            raise ValueError(f"{argument} must have an entry for every weight, got none for {weight.name!r}")
        tensor, shape = tensors[weight.name], tuple(_shape(weight, criterion))
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{argument}[{weight.name!r}] must have shape {shape}, got {tuple(tensor.shape)}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{argument}[{weight.name!r}] must be finite, got NaN or infinity")
    return {w.name: tensors[w.name].to(x) for w in weights}


@dataclass
class Saliency:
    """S_n of one weight on the samples `rows` of all: blocks (rows of these, units, S (n, o, …)), times `unit` (n,).

    `outer` is δ (n, O), u (n, K) and W (O, K) where S_n = W ⊙ δ_n u_nᵀ, the case of a linear layer.
    """

    weight: per_sample.Weight
    rows: slice
    unit: torch.Tensor
    blocks: Iterable[tuple[slice, slice, torch.Tensor]]
    outer: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None


@dataclass
class _Measure:
    """Which saliency: what `profile` says of these arguments."""

    criterion: str
    target: str
    per_loss: bool
    budget: int

    def __post_init__(self):
        checks.choice("criterion", self.criterion, CRITERIA)
        checks.choice("target", self.target, TARGETS)
        checks.integer("budget", self.budget, low=1)
        if self.per_loss and self.target != "logit":
            raise ValueError(f"per_loss needs target='logit', got target={self.target!r}")

    def saliencies(self, model, weights, x, y, *, rescale):
        """Yield the Saliency of every weight, for one slice of the samples after the other."""
        if not len(x):
            return
        held = per_sample.bytes_held(model, weights, x[:1])  # half of the budget is for it, half for what follows
        for rows in per_sample.slices(len(x), self.budget // 2 // held):
            run = per_sample.Pass(model, weights, x[rows])
            labels = _labels(run.logits, None if y is None else y[rows])
            if self.criterion in ("crop", "grasp"):
                losses, order, apart = self._losses(run.logits.double(), labels), 2, weights
                scale = 1 / (losses + 1e-8) if self.per_loss else torch.ones_like(losses)
                unit, objective, argument = torch.ones_like(losses), self._loss, labels
                del run  # its graph is not needed
            else:
                argument, unit = self._start(run.logits, labels, rescale)
                run.backward(argument)
                for weight in weights:
                    if weight.name not in run.odd:
                        yield self._from_calls(weight, rows, unit, run.calls.pop(weight.name))
                apart, order, scale = [w for w in weights if w.name in run.odd], 1, torch.ones_like(unit)
                objective = _product  # ⟨∂L_n/∂logits, logits⟩ has the gradient of L_n
            if not apart:
                continue
            # For each sample some six tensors like the weights, and activations: more for a second derivative.
            chunk = self.budget // (6 * sum(w.value.nbytes for w in apart) + 2 * order * held)
            found = per_sample.functional(model, apart, x[rows], objective, argument, order=order, chunk=chunk)
            for part, weight, g in found:
                s, factor = g.double(), self._factor(weight)  # (n, O, …)
                s = s * scale[part].view(-1, *[1] * (s.ndim - 1)) * (1 if factor is None else factor)
                s = s.flatten(2).sum(2) if self.criterion == "snap" else s
                here = slice(rows.start + part.start, rows.start + part.stop)
                yield Saliency(weight, here, unit[part], [(slice(0, None), slice(None), s)])

    def _from_calls(self, weight, rows, unit, calls):
        factor, value, outer = self._factor(weight), weight.value, None
        limit = self.budget // 8  # of a block, of the patches it is made from, of copies while it is reduced
        limit = min(limit, CACHE) if value.device.type == "cpu" else limit
        if not calls:
            shape, parts = _shape(weight, self.criterion), per_sample.slices(len(unit), limit // (value.nbytes or 1))
            blocks = ((part, slice(None), value.new_zeros(part.stop - part.start, *shape)) for part in parts)
        elif self.criterion == "snap":
            blocks = [(slice(0, None), slice(None), per_sample.channel_sums(calls))]
        else:
            gradients = per_sample.gradients(calls, value.shape, limit)
            blocks = ((part, units, g if factor is None else g.mul_(factor[units])) for part, units, g in gradients)
            if len(calls) == calls[0].positions == calls[0].groups == 1:
                delta, u = per_sample.matrices(calls[0])
                outer = delta[:, :, 0], u[:, 0], (torch.ones_like(value) if factor is None else factor).flatten(1)
        return Saliency(weight, rows, unit, blocks, outer)

    def _start(self, z, y, rescale):
        """Return ∂L_n/∂logits (N, K) divided by `unit` (N,), and unit: the largest entry's size, or 1.

        In float64 because a confident prediction's 1 − p is lost in float32; rescaled, because squares of so small
        saliencies are lost as well.
        """
        with torch.enable_grad():
            z64 = z.double().requires_grad_()
            losses = self._losses(z64, y)
            (gradient,) = torch.autograd.grad(losses.sum(), z64)
        if self.per_loss:
            gradient = gradient / (losses.detach() + 1e-8).unsqueeze(1)
        unit = gradient.abs().amax(1) if rescale else gradient.new_ones(len(z))
        unit = torch.where(unit > 0, unit, 1.0)
        return (gradient / unit.unsqueeze(1)).to(z.dtype), unit

    def _losses(self, z, y):
        """Return L_n (N,) of logits z (N, K) and labels y (N,)."""
        z = z / TEMPERATURE if self.criterion == "grasp" else z
        if self.target == "uniform":
            return -z.log_softmax(1).mean(1)
        at = z.gather(1, y.unsqueeze(1))
        if self.target == "logit":
            return -at.squeeze(1)
        # −log p_y = log(1 + Σ_{k≠y} exp(z_k − z_y)): neither it nor its gradient subtracts near-equal numbers
        others = (z - at).scatter(1, y.unsqueeze(1), -torch.inf)
        return F.softplus(others.logsumexp(1), threshold=40)

    def _loss(self, z, y):
        return self._losses(z.double(), y).sum()

    def _factor(self, weight):
        """Return what g (n, O, …) is multiplied by, in the shape of the weight, or None."""
        if self.criterion != "gradient":
            return weight.value
        mask = masks.mask_of(weight.layers[0])
        return None if mask is None else mask.to(weight.value)


def _product(z, v):
    return (z * v).sum()


def _labels(z, y):
    return z.argmax(1) if y is None else checks.labels(y, z, classes=z.shape[1])


def layer_norm(saliency: Saliency, p: float, reference=None, inverse=None) -> torch.Tensor:
    """Return ‖S_n‖_p, or ‖(S_n − R)/σ‖_p, of one layer: (n,) in float64.

    A linear layer's S_n = W ⊙ δ_n u_nᵀ is not formed: Σ_ij |W_ij δ_i u_j|^p = (|δ|^p)ᵀ |W|^p |u|^p. Elsewhere sums
    over many weights are taken for each output unit, and continued in float64.

    Args:
        saliency: of one weight on n samples; its blocks are overwritten.
        p: > 0, or infinity. reference, inverse: R and 1/σ in the shape of S_n, or None.
    """
    if saliency.outer is not None and reference is None and p != torch.inf:
        # Parts of the largest, whose powers do not overflow, nor underflow where it matters.
        tops = [_largest(t, dim) for t, dim in zip(saliency.outer, ((1,), (1,), (0, 1)), strict=True)]
        delta, u, weight = (_power((t / top).abs(), p) for t, top in zip(saliency.outer, tops, strict=True))
        total = ((delta @ weight) * u).sum(1).double()
        return total.pow(1 / p) * (tops[0] * tops[1]).squeeze(1).double() * tops[2].double().squeeze()
    by_unit = torch.zeros(len(saliency.unit), saliency.weight.units, dtype=torch.float64, device=saliency.unit.device)
    for rows, units, s in saliency.blocks:
        if reference is not None:
            s.sub_(reference[units])
        if inverse is not None:
            s.mul_(inverse[units])
        by_unit[rows, units] = s.double() if s.ndim == 2 else _norm(s.flatten(2), p)
    return _norm(by_unit, p)


def _norm(s, p):
    """Return ‖s‖_p over the last dimension, in float64. Overwrites s."""
    if p == 2:
        return torch.linalg.vector_norm(s, dim=-1).double()
    s = s.abs_()
    if p == 1:
        return s.sum(-1).double()
    if p == torch.inf:
        return s.amax(-1).double()
    top = s.amax(-1, keepdim=True).clamp_min(torch.finfo(s.dtype).tiny)
    return top.squeeze(-1).double() * _power(s.div_(top), p).sum(-1).double().pow(1 / p)


def _largest(s, dims):
    return s.abs().amax(dims, keepdim=True).clamp_min(torch.finfo(s.dtype).tiny)


def _power(t, p):
    """Return t^p of t ≥ 0. Whole powers by multiplication, in one new tensor: several times faster."""
    if p == 1:
        return t
    if p > 16 or p != int(p):
        return t.pow(p)
    power, first = t, True
    for bit in f"{int(p):b}"[1:]:  # of t^k, after the first bit: square for each, times t for a 1
        power, first = t * t if first else power.mul_(power), False
        power = power.mul_(t) if bit == "1" else power
    return power
