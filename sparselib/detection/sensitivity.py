"""Per-sample saliency: how much each weight matters to one input, reduced to a few numbers per input.

For the loss L_n of one input, with g_n = ∂L_n/∂θ and H_n its Hessian over the chosen weights θ, the saliency S_n is

    "snip"      θ ⊙ g_n            Lee et al. 2019, https://arxiv.org/abs/1810.02340
    "snap"      Σ_k θ_ok g_nok     of each output unit o, θ ⊙ g_n summed over its weights; needs no weight gradient
    "crop"      θ ⊙ H_n g_n        Rachwan et al. 2022, https://arxiv.org/abs/2206.10451
    "grasp"     θ ⊙ H_n g_n        at logits/200, Wang et al. 2020, https://arxiv.org/abs/2002.07376
    "gradient"  g_n

always signed. `profile` takes its p-norm over each layer, `norms` over the network, `moments` its mean and standard
deviation over a set of inputs. Gradients are formed a block at a time (`per_sample`,
`weight_gradients`), reduced (`saliency_norms`), and forgotten.
"""

import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sparselib import checks
from sparselib.detection import per_sample, saliency_norms, weight_gradients
from sparselib.pruning import masks

CRITERIA = ("snip", "snap", "crop", "grasp", "gradient")
TARGETS = ("predicted", "logit", "uniform")
AGGREGATES = ("all", "mean")
TEMPERATURE = 200  # of the logits, in GraSP
BUDGET = 256 * 2**20  # bytes of per-sample tensors held at a time
CACHE = 3 * 2**20  # bytes of a block on the CPU: further passes over it stay in a cache, and small layers are one block


def names(model, layers="all"):
    """Return the names of the weights that the columns of `profile` stand for; a weight shared by layers is one."""
    return [weight.name for weight in per_sample.select(model, layers)]


def norms(model, x, y=None, *, norm=2, aggregate="all", **options):
    """Return one number per input: ‖S_n‖_p over all chosen weights ("all"), or the mean over layers of their norms.

    `options` are those of `profile`. Returns: (N,) in the dtype of x.
    """
    checks.choice("aggregate", aggregate, AGGREGATES)
    layers = _profile(model, x, y, norm=norm, **options)
    return (layers.mean(1) if aggregate == "mean" else saliency_norms.norm(layers, norm)).to(x.dtype)


def profile(model, x, y=None, **options):
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
        per_loss: divide S_n by L_n + 1e-8.
        layers: "all" (default), "last", or a list of weight names such as "conv1.weight".
        budget: bytes of per-sample tensors to hold at most (one sample at least); no effect on the values.
    Returns: (N, layers) in the dtype of x, columns as in `names`; layers that take no part have S_n = 0.
        A sample's values do not depend on the others of its batch.
    Warns: of weight matrices outside convolution and linear layers, by name, when `layers` is "all".
    Raises: ValueError or TypeError for arguments out of range, and for values that are not finite.
    """
    return _profile(model, x, y, **options).to(x.dtype)


def _profile(
    model, x, y=None, *, criterion="snip", target="predicted", norm=2, reference=None, scale=None, per_loss=False,
    layers="all", budget=BUDGET,
):  # fmt: skip
    measure = _Measure(criterion, target, per_loss, budget)
    weights = _weights(model, x, y, layers)
    if norm != torch.inf:
        checks.number("norm", norm, 0, low_open=True)
    if scale is not None and reference is None:
        raise ValueError("scale needs a reference, got reference=None")
    reference = _like_saliency("reference", reference, weights, criterion, x)
    scale = _like_saliency("scale", scale, weights, criterion, x)
    inverse = {name: torch.where(s > 0, 1 / s, 0) for name, s in scale.items()}
    columns = {weight.name: column for column, weight in enumerate(weights)}
    values = torch.zeros(len(x), len(weights), dtype=torch.float64, device=x.device)

    def take(saliency):
        name = saliency.weight.name
        for tensors in (reference, inverse) if criterion != "snap" else ():
            if name in tensors:
                tensors[name] = saliency.weight.arranged(tensors[name])
        found = saliency_norms.layer_norm(saliency, reference.get(name), inverse.get(name), norm)
        values[saliency.rows, columns[name]] = found * saliency.unit

    with per_sample.prepared(model, weights):
        measure.saliencies(model, weights, x, y, take, rescale=not reference)
    finite = torch.isfinite(values)
    if not finite.all():
        name = next(name for name, column in columns.items() if not finite[:, column].all())
        raise ValueError(f"{criterion} saliency of {name} is not finite")
    return values


def moments(model, x, y=None, *, criterion="snip", target="predicted", per_loss=False, layers="all", budget=BUDGET):
    """Return the mean and the (population) standard deviation of the saliency over x, as {weight name: tensor}.

    Tensors have the shape of the weight, (O,) for "snap". They serve as `reference` and `scale` of `profile`, whose
    arguments these are; y are the true labels. Raises: as `profile`, and ValueError for an empty x.
    """
    measure = _Measure(criterion, target, per_loss, budget)
    weights = _weights(model, x, y, layers)
    if not len(x):
        raise ValueError("moments need at least one sample, got an empty batch")
    mean = {w.name: torch.zeros(_shape(w, criterion), dtype=torch.float64, device=x.device) for w in weights}
    squares = {name: torch.zeros_like(m) for name, m in mean.items()}  # Σ (S_n − mean)²

    def take(saliency):
        m, m2 = mean[saliency.weight.name], squares[saliency.weight.name]
        for rows, units, s in saliency.blocks:
            # Chan et al. 1983: two sets of samples of sizes a and b make one.
            a, b = saliency.rows.start + rows.start, len(s)
            s = s.double()
            own = s.mean(0)
            difference = own - m[units]
            m[units] += difference * (b / (a + b))
            m2[units] += s.sub_(own).square_().sum(0) + difference.square_() * (a * b / (a + b))

    with per_sample.prepared(model, weights):
        measure.saliencies(model, weights, x, y, take, rescale=False)
    for name, m in mean.items():
        if not torch.isfinite(m).all():
            raise ValueError(f"{criterion} saliency of {name} is not finite")
    std = {name: (s / len(x)).sqrt().to(x.dtype) for name, s in squares.items()}
    return {name: m.to(x.dtype) for name, m in mean.items()}, std


def _weights(model, x, y, layers):
    """Check the inputs and return the chosen weights; warn of weights that no criterion covers."""
    checks.images(x)
    if y is not None:
        checks.labels(y, x)
    weights = per_sample.select(model, layers)
    left = per_sample.left_out(model, weights) if isinstance(layers, str) and layers == "all" else ()
    if left:
        warnings.warn(f"saliency covers convolution and linear layers; left out: {', '.join(left)}", stacklevel=4)
    return weights


def _shape(weight, criterion):
    return weight.value.shape[:1] if criterion == "snap" else weight.value.shape


def _like_saliency(argument, tensors, weights, criterion, x):
    """Return {weight name: tensor} of the chosen weights, in the dtype of x; {} for None."""
    if tensors is None:
        return {}
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
class _Saliency:
    """S_n of one weight on some samples: blocks (rows, units, S (n, o, …)), all to be multiplied by `unit` (n,).

    `calls` and `factor` are what the blocks are made from, S = factor ⊙ g (None: 1), where there are any calls.
    """

    weight: per_sample.Weight
    rows: slice
    unit: torch.Tensor
    blocks: object
    calls: list | None = None
    factor: torch.Tensor | None = None
    limit: int = 0


def _product(z, v):
    return (z * v).sum()


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

    def saliencies(self, model, weights, x, y, take, *, rescale):
        """Call `take` with the _Saliency of every weight, for one slice of the samples after the other."""
        # Half of the budget is for a pass, half for what follows. Where the samples are too many for a pass, one of
        # them alone tells how many are not. (To hold 32 times the input is common.)
        size, limit = len(x), self.budget // 2
        if 32 * x.nbytes > limit:
            size = self._fitting(model, weights, x, limit)
        rows = slice(0, size)
        while rows.start < len(x):
            try:
                run = per_sample.Pass(model, weights, x[rows], keep_outputs=self.criterion == "snap", limit=limit)
            except per_sample.TooLarge:
                size = min(size - 1, self._fitting(model, weights, x, limit))
            else:
                one = self._second_order if self.criterion in ("crop", "grasp") else self._first_order
                one(model, weights, x[rows], None if y is None else y[rows], rows.start, run, take, rescale)
                rows = slice(rows.stop, rows.stop)
            rows = slice(rows.start, min(rows.start + size, len(x)))

    def _fitting(self, model, weights, x, limit):
        return max(1, limit // per_sample.Pass(model, weights, x[:1]).held)

    def _first_order(self, model, weights, x, y, first, run, take, rescale):
        start, unit = self._start(run.logits, y, rescale)
        by_name, rows = {w.name: w for w in weights}, slice(first, first + len(x))
        run.backward(start, lambda name, calls: take(self._from_calls(by_name[name], rows, unit, calls)))
        odd = [w for w in weights if w.name in run.odd]
        if odd:
            # ⟨∂L_n/∂logits, logits⟩ has the gradient of L_n.
            one = torch.ones_like(unit)
            self._functional(model, odd, x, _product, start, first, one, unit, run.held, take, order=1)

    def _second_order(self, model, weights, x, y, first, run, take, rescale):
        labels = self._labels(run.logits, y)
        factor = self._per_loss(run.logits.double(), labels)
        run.forget()
        one = torch.ones_like(factor)
        self._functional(model, weights, x, self._loss, labels, first, factor, one, run.held, take, order=2)

    def _functional(self, model, weights, x, objective, argument, first, scale, unit, held, take, *, order):
        # Some six tensors like the weight for each sample, and its activations, more of them for a second derivative.
        size = 6 * sum(w.value.nbytes for w in weights) + 2 * order * held // len(x)
        chunk = self.budget // size
        for part, found in per_sample.functional(model, weights, x, objective, argument, order=order, chunk=chunk):
            for weight in weights:
                s, factor = found[weight.name], self._factor(weight)  # (n, O, …)
                s = s.double() * scale[part].view(-1, *[1] * (s.ndim - 1))
                s = s if factor is None else s.mul_(factor)
                s = s.flatten(2).sum(2) if self.criterion == "snap" else s
                rows = slice(first + part.start, first + part.stop)
                take(_Saliency(weight, rows, unit[part], [(slice(0, len(s)), slice(None), s)]))

    def _start(self, z, y, rescale):
        """Return ∂L_n/∂logits (N, K) divided by `unit` (N,), and unit: the largest entry's size, or 1.

        In float64 and without subtraction, because a confident prediction's 1 − p is lost in float32; rescaled,
        because squares of so small saliencies are lost as well.
        """
        labels, z64 = self._labels(z, y), z.double()
        at = labels.unsqueeze(1)
        if self.target == "logit":
            gradient = torch.zeros_like(z64).scatter_(1, at, -1.0)
        elif self.target == "uniform":
            gradient = z64.softmax(1) - 1 / z.shape[1]
        else:  # p_k, and −Σ_{k≠y} p_k at the label
            gradient = z64.softmax(1).scatter_(1, at, 0.0)
            gradient.scatter_(1, at, -gradient.sum(1, keepdim=True))
        if self.per_loss:
            gradient *= self._per_loss(z64, labels).unsqueeze(1)
        unit = gradient.abs().amax(1) if rescale else z64.new_ones(len(z))
        unit = torch.where(unit > 0, unit, 1.0)
        return (gradient / unit.unsqueeze(1)).to(z.dtype), unit

    def _labels(self, z, y):
        if y is None:
            return z.argmax(1)
        if y.max() >= z.shape[1]:
            raise ValueError(f"y must be below the number of classes, {z.shape[1]}, got {int(y.max())}")
        return y

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

    def _per_loss(self, z, y):
        return 1 / (self._losses(z, y) + 1e-8) if self.per_loss else z.new_ones(len(z))

    def _factor(self, weight):
        """Return what g (n, O, …) is multiplied by, in the shape of the weight, or None."""
        if self.criterion != "gradient":
            return weight.value
        mask = masks.mask_of(weight.layers[0])
        return None if mask is None else weight.arranged(mask.to(weight.value))

    def _from_calls(self, weight, rows, unit, calls):
        if self.criterion == "snap" and calls:
            s = weight_gradients.channel_sums(calls)
            return _Saliency(weight, rows, unit, [(slice(0, len(s)), slice(None), s)])
        factor = self._factor(weight)
        limit = max(1, self.budget // 8)  # of a block, of the patches it is made from, of copies while it is reduced
        if unit.device.type == "cpu":
            limit = min(limit, CACHE)
        blocks = self._blocks(calls, factor, limit) if calls else self._zeros(weight, len(unit), limit)
        return _Saliency(weight, rows, unit, blocks, calls, factor, limit)

    def _blocks(self, calls, factor, limit):
        for rows, units, g in weight_gradients.gradients(calls, limit):
            yield rows, units, g if factor is None else g.mul_(factor[units])

    def _zeros(self, weight, n, limit):
        shape = _shape(weight, self.criterion)
        for rows in weight_gradients.slices(n, limit // (shape.numel() * weight.value.element_size())):
            yield rows, slice(None), weight.value.new_zeros(rows.stop - rows.start, *shape)
