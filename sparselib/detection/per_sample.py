"""Per-sample gradients of weights from one forward and one backward pass, formed a block at a time.

A layer with input a and output y receives, in the backward pass of the summed losses, δ = ∂(Σ_n L_n)/∂y. In eval mode
samples do not meet, so row n of δ is ∂L_n/∂y, and the gradient of L_n for the layer's weight is

    g_n = Σ_p δ_np u_npᵀ        p: positions of a convolution (u_np: the patch under it), tokens of a linear layer

Autograd is never asked for the weights' own gradients. Where a weight acts in another way than through calls of its
layer (it is handed to a function, or the layer folds the batch into other dimensions), it is *odd*: `functional`
differentiates sample by sample instead, as it does for second derivatives.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torch.nn.grad
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parametrize

from sparselib import checks
from sparselib.models import evaluating
from sparselib.pruning import masks

BASES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(eq=False)
class Weight:
    """A prunable weight (O, …): its name, the layers that share it, and the parameter behind it.

    `parameter` is None where something other than a mask computes the weight (weight norm, torch's own pruning).
    """

    name: str
    layers: list[masks.Layer]
    parameter: torch.Tensor | None

    @property
    def units(self) -> int:
        layer = self.layers[0]
        return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels

    @property
    def value(self) -> torch.Tensor:
        """What the network computes with: masked, where there is a mask. Ask in eval mode and after a pass."""
        return self.layers[0].weight.detach()

    @property
    def parameters(self) -> list[torch.Tensor]:
        return [p for m in self.layers for p in m.parameters()] if self.parameter is None else [self.parameter]


@dataclass(eq=False)
class Call:
    """One use of a weight by a layer: its input a (N, …), its output y (N, …) and the gradient δ of that."""

    layer: Any
    a: torch.Tensor
    y: torch.Tensor
    version: int  # of y, when the layer gave it
    edge: Any  # of y in autograd's graph, until the backward pass
    delta: Any = None

    @property
    def linear(self) -> bool:
        return isinstance(self.layer, nn.Linear)

    @property
    def groups(self) -> int:
        return 1 if self.linear else self.layer.groups

    @property
    def positions(self) -> int:
        return self.y[0].numel() // self.y.shape[-1 if self.linear else 1]


def select(model: nn.Module, layers: str | Sequence[str] = "all") -> list[Weight]:
    """Return the model's prunable weights, each once: "all", the "last", or those of the given names."""
    if isinstance(layers, str):
        checks.choice("layers", layers, ("all", "last"), also=", or a list of weight names")
    elif not isinstance(layers, Sequence) or not layers:
        raise ValueError(f"layers must be 'all', 'last', or a list of at least one weight name, got {layers!r}")
    found = {}
    for name, layer in masks.prunable(model).items():
        parameter = layer._parameters.get("weight")
        if parametrize.is_parametrized(layer, "weight"):
            steps = layer.get_submodule("parametrizations.weight").children()
            masked = all(isinstance(step, masks.Mask) for step in steps)
            parameter = masks.original(layer) if masked else None
        weight = Weight(name, [], parameter)
        found.setdefault(id(layer if parameter is None else parameter), weight).layers.append(layer)
    weights = {w.name: w for w in found.values()}
    if isinstance(layers, str):
        return list(weights.values())[0 if layers == "all" else -1 :]
    twice = [name for name, count in Counter(layers).items() if count > 1]
    if twice:
        raise ValueError(f"layers must name each weight once, got {twice[0]!r} twice")
    return [weights[checks.choice("layer", name, weights)] for name in layers]


@contextmanager
def prepared(model: nn.Module, weights: Sequence[Weight]) -> Iterator[None]:
    """Run a block in eval mode where only these weights require gradients; leave no trace on model or random state.

    Raises ValueError for a batch-norm without running statistics: its samples depend on one another.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise ValueError(f"model must keep batch statistics, or samples are not independent: {name!r} does not")
    wanted = {id(p) for w in weights for p in w.parameters}
    switched = [p for p in model.parameters() if p.requires_grad != (id(p) in wanted)]
    computed = [(m, m.__dict__["weight"]) for w in weights for m in w.layers if "weight" in vars(m)]  # by a hook, anew
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with evaluating(model), torch.random.fork_rng(devices=list(devices)), torch.no_grad():
        try:
            for p in switched:
                p.requires_grad_(id(p) in wanted)
            yield
        finally:
            for p in switched:
                p.requires_grad_(id(p) not in wanted)
            for layer, value in computed:
                layer.weight = value


class Pass:
    """A forward pass over x (N, …) that remembers how the weights took part. Needs `prepared`.

    Attributes: logits (N, K); calls, {weight name: its calls that the logits depend on}; odd, the names of weights
    whose gradient these do not tell.
    """

    def __init__(self, model: nn.Module, weights: Sequence[Weight], x: torch.Tensor) -> None:
        self.calls: dict[str, list[Call]] = {w.name: [] for w in weights}
        # First of the layer's hooks: others may replace the output.
        hooks = [
            layer.register_forward_hook(_recorder(self.calls[w.name]), with_kwargs=True, prepend=True)
            for w in weights for layer in w.layers
        ]  # fmt: skip
        try:
            with torch.enable_grad():
                self._z = checks.logits(model(x), x)
        finally:
            for hook in hooks:
                hook.remove()
        self.logits = self._z.detach()
        reached, uses = _graph(self._z.grad_fn)
        for name, calls in self.calls.items():
            self.calls[name] = [c for c in calls if c.edge.node in reached]
        self.odd = {w.name for w in weights if _is_odd(w, self.calls[w.name], uses, len(x))}

    def backward(self, gradient: torch.Tensor) -> None:
        """Given ∂L_n/∂logits (N, K), give δ to the calls, and let go of the graph; calls without a δ are dropped."""
        calls = [c for name, own in self.calls.items() if name not in self.odd for c in own]
        edges = [c.edge for c in calls]
        deltas = torch.autograd.grad(self._z, edges, gradient, allow_unused=True) if edges else ()
        for call, delta in zip(calls, deltas, strict=True):
            call.delta = delta
        self.calls = {name: [c for c in own if c.delta is not None] for name, own in self.calls.items()}
        del self._z
        for call in calls:
            call.edge = None


def _recorder(calls):
    def record(layer, args, kwargs, out):
        if torch.is_grad_enabled() and out.requires_grad:
            a = args[0] if args else kwargs["input"]
            # The edge and the version are taken now: an activation may write into `out` later.
            edge = torch.autograd.graph.get_gradient_edge(out)
            calls.append(Call(layer, a.detach(), out.detach(), out._version, edge))

    return record


def _graph(root):
    """Return the autograd functions from `root` back, and how many of their edges lead to each leaf, by its id."""
    reached, uses, stack = {root}, Counter(), [root] if root is not None else []
    while stack:
        for function, _ in stack.pop().next_functions:
            if type(function).__name__ == "AccumulateGrad":
                uses[id(function.variable)] += 1
            elif function is not None and function not in reached:
                reached.add(function)
                stack.append(function)
    return reached, uses


def _is_odd(weight, calls, uses, n):
    if weight.parameter is not None and uses[id(weight.parameter)] > len(calls):
        return True  # used elsewhere too
    if len(weight.layers) > 1 and any(parametrize.is_parametrized(m) for m in weight.layers):
        return True  # one mask each
    return not all(_keeps_samples(c, n) and _standard(c.layer) for c in calls)


def _keeps_samples(call, n):
    """Whether the first dimension can only be that of the n samples."""
    shape = call.y.shape
    if call.linear:  # (N, F), or (N, …, F), but not (…, N, F)
        return len(shape) > 1 and shape[0] == n and n not in shape[1:-1]
    return len(shape) == 2 + len(call.layer.kernel_size) and shape[0] == n


def _standard(layer):
    """Whether the layer computes what its base class says."""
    base = next(c for c in BASES if isinstance(layer, c))
    methods = ("forward",) if base is nn.Linear else ("forward", "_conv_forward")
    return all(n not in vars(layer) and getattr(type(layer), n) is getattr(base, n) for n in methods)


def bytes_held(model: nn.Module, weights: Sequence[Weight], x: torch.Tensor) -> int:
    """Return the bytes that a Pass over x holds: layers' inputs, outputs and their gradients, what autograd keeps."""
    sizes, shapes = {}, {shape for w in weights for shape in (w.value.shape, w.value.shape[::-1])}

    def count(tensor):
        if tensor.shape not in shapes:  # weights are held in any case
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(count, lambda saved: saved):
        run = Pass(model, weights, x)
    calls = [call for own in run.calls.values() for call in own]
    for call in calls:
        count(call.a)
        count(call.y)
    return sum(sizes.values()) + sum(call.y.nbytes for call in calls) or 1


def gradients(calls: Sequence[Call], shape: torch.Size, limit: int) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Yield (rows, units, g): gradients g (n, o, …) of a weight for a slice of the samples and of the output units.

    A block is new memory, of about `limit` bytes or one unit of one sample, and so are the patches that it is made
    from. Every sample and unit is covered once, samples in order.
    """
    k, size, n = shape[1:].numel(), calls[0].delta.element_size(), len(calls[0].delta)
    if all(_folds(c, shape) for c in calls):
        for rows in slices(n, limit // (shape.numel() * size)):
            yield rows, slice(0, shape[0]), _total(_folded(c, rows, shape) for c in calls)
        return
    # Products of fewer than 32 units are slow; with groups, whose units lie apart, a block has all of them.
    whole = any(c.groups > 1 for c in calls)
    patches, least = sum(c.groups * c.positions for c in calls), shape[0] if whole else min(shape[0], 32)
    for rows in slices(n, limit // (max(patches, least) * k * size or 1)):
        m = rows.stop - rows.start
        factors = [matrices(c, rows) for c in calls]
        for units in slices(shape[0], shape[0] if whole else limit // (m * k * size or 1)):
            yield rows, units, _total(torch.bmm(d[:, units], u) for d, u in factors).view(m, -1, *shape[1:])


def _total(parts):
    first, *others = parts
    for other in others:
        first += other
    return first


def slices(total: int, step: int) -> list[slice]:
    """Cut range(total) into slices of at most `step` (at least 1), as equal as can be."""
    count = -(-total // max(1, min(total, step)))
    edges = [total * i // count for i in range(count + 1)] if count else []
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def matrices(call: Call, rows: slice = slice(None)) -> tuple[torch.Tensor, torch.Tensor]:
    """Return δ (n·groups, O/groups, P) and the patches u (n·groups, P, K) of some samples."""
    layer, a, delta, groups = call.layer, call.a[rows], call.delta[rows], call.groups
    n = len(delta)
    if call.linear:
        return delta.reshape(n, -1, delta.shape[-1]).transpose(1, 2), a.reshape(n, -1, a.shape[-1])
    dims = len(layer.kernel_size)
    a = _padded(layer, a)
    for i in range(dims):
        span = (layer.kernel_size[i] - 1) * layer.dilation[i] + 1
        a = a.unfold(2 + i, span, layer.stride[i])[..., :: layer.dilation[i]]
    # All patches as a view, copied by reshape. F.unfold knows only images, no groups, and takes several times as long.
    u = a.permute(0, 1, *range(2 + dims, 2 + 2 * dims), *range(2, 2 + dims)).reshape(n * groups, -1, call.positions)
    return delta.reshape(n * groups, -1, call.positions), u.transpose(1, 2)


def _padded(layer, a):
    if layer.padding == "valid":
        return a
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        sides = [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    else:
        sides = [p for p in reversed(layer.padding) for _ in range(2)]  # as F.pad takes it: last dimension first
    return F.pad(a, sides, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)


def _folds(call, shape):
    """Whether a grouped convolution beats a product with the patches (measured).

    It does in oneDNN, for channels by eights, where the patches are several times as large as the gradient.
    """
    return (
        not call.linear and call.a.device.type == "cpu" and call.a.dtype == torch.float32
        and torch.backends.mkldnn.is_available() and shape[2:].numel() > 1
        and (shape[1] % 8 == 0 or shape[1] == 1 < call.groups) and call.positions >= 2 * shape[0] // call.groups
    )  # fmt: skip


def _folded(call, rows, shape):
    """Return g (n, O, …) as the weight gradient of one convolution whose groups are the samples' groups."""
    layer, a, delta = call.layer, _padded(call.layer, call.a[rows]), call.delta[rows]
    weight_gradient = getattr(torch.nn.grad, f"conv{a.ndim - 2}d_weight")
    n, sizes = len(a), (len(a) * shape[0], *shape[1:])
    a, delta = a.reshape(1, -1, *a.shape[2:]), delta.reshape(1, -1, *delta.shape[2:])
    return weight_gradient(a, sizes, delta, layer.stride, 0, layer.dilation, n * layer.groups).view(n, *shape)


def channel_sums(calls: Sequence[Call]) -> torch.Tensor:
    """Return Σ_p δ_nop (y_nop − b_o) = Σ_k θ_ok g_nok, the saliency of whole output units: (N, O)."""
    total: Any = 0
    for call in calls:
        layer, y, bias = call.layer, call.y, call.layer.bias
        if y._version != call.version:  # an activation has overwritten the output
            weight = layer.weight.detach()
            y = F.linear(call.a, weight) if call.linear else layer._conv_forward(call.a, weight, None)
        elif bias is not None:
            y = y - (bias if call.linear else bias.view(-1, *[1] * (y.ndim - 2)))
        if call.linear:
            total = total + (call.delta * y).reshape(len(y), -1, y.shape[-1]).sum(1)
        else:
            total = total + torch.linalg.vecdot(call.delta.flatten(2), y.flatten(2))
    return total


def functional(
    model: nn.Module, weights: Sequence[Weight], x: torch.Tensor, objective: Callable, argument: torch.Tensor, *,
    order: int, chunk: int,
) -> Iterator[tuple[slice, Weight, torch.Tensor]]:  # fmt: skip
    """Yield (rows, weight, (n, *shape)): derivatives of f_n(θ) = objective(logits_n, argument_n).

    Args:
        objective: function of logits (1, K) and one row of the argument (1, …), to a number.
        order: 1 for the gradient g_n; 2 for H_n g_n, the gradient of ½‖g_n‖², H_n the Hessian over these weights.
        chunk: samples at a time.
    Raises: ValueError where a weight is not a parameter, or (order 2) an operation has no second derivative.
    """
    unknown = [w.name for w in weights if w.parameter is None]
    if unknown:
        raise ValueError(f"model has weights under a parametrization that is not a mask: {', '.join(unknown)}")
    chosen = {id(w.parameter): w.name for w in weights}
    # Every place of a weight, and each once: tied layers are several places, a module of two names is one.
    places = {
        f"{prefix}.{name}" if prefix else name: chosen[id(p)]
        for prefix, module in model.named_modules() for name, p in module._parameters.items() if id(p) in chosen
    }  # fmt: skip

    def value(tensors, xi, argument):
        parameters = {place: tensors[name] for place, name in places.items()}
        z = functional_call(model, parameters, (xi.unsqueeze(0),), tie_weights=False)
        return objective(z, argument.unsqueeze(0))

    def half_square(tensors, xi, argument):
        return sum(g.square().sum() for g in grad(value)(tensors, xi, argument).values()) / 2

    derivative = vmap(grad(value if order == 1 else half_square), in_dims=(None, 0, 0))
    tensors = {w.name: w.parameter.detach() for w in weights if w.parameter is not None}
    for rows in slices(len(x), chunk):
        try:
            # Fused attention has no second derivative and no batching rule.
            with warnings.catch_warnings(), nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
                warnings.filterwarnings("ignore", "There is a performance drop")  # vmap, of rare operations
                found = derivative(tensors, x[rows], argument[rows])
        except (NotImplementedError, RuntimeError) as error:
            if order == 1 or "derivative for" not in str(error):
                raise
            raise ValueError(f"model has an operation without a second derivative: {error}") from error
        yield from ((rows, weight, found[weight.name]) for weight in weights)
