"""Per-sample gradients of weights from one forward and one backward pass, formed a block at a time.

A layer with input a and output y receives, in the backward pass of the summed losses, δ = ∂(Σ_n L_n)/∂y. In eval mode
samples do not meet, so row n of δ is ∂L_n/∂y, and the gradient of L_n for the layer's weight is

    g_n = Σ_p δ_np u_npᵀ        p: positions of a convolution (u_np: the patch under it), tokens of a linear layer

Autograd is never asked for the weights' own gradients. Where a weight acts in another way than through calls of its
layer (it is handed to a function, or the layer folds the batch into other dimensions), `functional` differentiates
sample by sample instead. `weight_gradients` forms g_n from a and δ.
"""

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parametrize

from sparselib import checks
from sparselib.detection import weight_gradients
from sparselib.models import evaluating
from sparselib.pruning import masks


@dataclass
class Weight:
    """A prunable weight (O, …): its name, the layers that share it, and the parameter behind it.

    `parameter` is None where a parametrization other than a mask computes the weight. `value` is what the network
    computes with: masked, where there is a mask.
    """

    name: str
    layers: list
    parameter: torch.Tensor | None
    value: torch.Tensor
    channels_last: bool = False  # the strides of `gradients`, which go by the sizes of the layers' inputs

    def settle(self, calls):
        """Choose the strides of gradients from these calls, and give them to the weight's present value."""
        last = self.channels_last if not calls else all(weight_gradients.channels_last(call) for call in calls)
        if last != self.channels_last or self.parameter is None:  # computed weights may be old
            self.channels_last = last
            self.value = self.arranged(self.layers[0].weight.detach())

    def arranged(self, tensor):
        """Return a tensor in the shape of the weight with the strides of its gradients, which makes products fast."""
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1) if self.channels_last else tensor

    @property
    def parameters(self):
        return [p for m in self.layers for p in m.parameters()] if self.parameter is None else [self.parameter]


@dataclass(eq=False)
class Call:
    """One use of a weight by a layer: the input a (N, …), the gradient δ of the output, where asked the output y."""

    weight: Weight
    layer: nn.Module
    a: torch.Tensor
    shape: torch.Size  # of the output
    y: torch.Tensor | None
    version: int
    edge: torch.autograd.graph.GradientEdge
    follows: bool  # a depends on another weight
    delta: torch.Tensor | None = None

    @property
    def linear(self):
        return isinstance(self.layer, nn.Linear)

    @property
    def groups(self):
        return 1 if self.linear else self.layer.groups

    def keeps_samples(self, n):
        """Whether the first dimension can only be that of the n samples."""
        if self.linear:  # (N, F), or (N, …, F), but not (…, N, F)
            return len(self.shape) > 1 and self.shape[0] == n and n not in self.shape[1:-1]
        return len(self.shape) == self.weight.value.ndim and self.shape[0] == n

    @property
    def positions(self):
        return self.shape[1:].numel() // len(self.weight.value)


def select(model: nn.Module, layers: str | Sequence[str] = "all") -> list[Weight]:
    """Return the model's prunable weights, each once: "all", the "last", or those of the given names."""
    if isinstance(layers, str):
        checks.choice("layers", layers, ("all", "last"), also=", or a list of weight names")
    found = {}
    for name, layer in masks.prunable(model).items():
        parameter = _parameter(layer)
        identity = id(layer if parameter is None else parameter)
        weight = Weight(name, [], parameter, layer.weight.detach())
        found.setdefault(identity, weight).layers.append(layer)
    weights = {w.name: w for w in found.values()}
    if isinstance(layers, str):
        return list(weights.values()) if layers == "all" else list(weights.values())[-1:]
    return [weights[checks.choice("layer", name, weights)] for name in layers]


def left_out(model, weights):
    """Return the names of the model's other parameters that are matrices: more than one size above 1."""
    covered = {id(p) for weight in weights for p in weight.parameters}
    return [n for n, p in model.named_parameters() if sum(s > 1 for s in p.shape) > 1 and id(p) not in covered]


def _parameter(layer):
    if not parametrize.is_parametrized(layer, "weight"):
        return layer._parameters.get("weight")
    masked = all(isinstance(step, masks.Mask) for step in layer.parametrizations.weight)
    return masks.original(layer) if masked else None


@contextmanager
def prepared(model, weights):
    """Run a block in eval mode where only these weights require gradients; leave no trace on model or random state.

    Raises ValueError for a batch-norm without running statistics: its samples depend on one another.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise ValueError(f"model must keep batch statistics, or samples are not independent: {name!r} does not")
    wanted = {id(p) for w in weights for p in w.parameters}
    switched = [p for p in model.parameters() if p.requires_grad != (id(p) in wanted)]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with evaluating(model), torch.random.fork_rng(devices=list(devices)), torch.no_grad():
        try:
            for p in switched:
                p.requires_grad_(id(p) in wanted)
            yield
        finally:
            for p in switched:
                p.requires_grad_(id(p) not in wanted)


class TooLarge(Exception):
    """A pass would hold more than its limit."""


class _Meter:
    """Counts the bytes that a pass holds; keeps what autograd saves, in place of autograd."""

    def __init__(self, weights, limit):
        self.held, self.limit, self.storages = 0, limit, set()
        self.weights = {shape for w in weights for shape in (w.value.shape, w.value.shape[::-1])}  # held in any case

    def add(self, size):
        self.held += size
        if self.held > self.limit:
            raise TooLarge

    def count(self, tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.storages:
            self.storages.add(storage.data_ptr())
            self.add(storage.nbytes())

    def pack(self, tensor):
        if tensor.shape not in self.weights:
            self.count(tensor)
        return tensor.detach(), tensor._version

    @staticmethod
    def unpack(saved):
        tensor, version = saved
        if tensor._version != version:  # as autograd itself would
            raise RuntimeError("model overwrites a tensor that its gradient needs")
        return tensor


class Pass:
    """A forward pass over x (N, …) that remembers how the weights took part. Needs `prepared`.

    Attributes: logits (N, K); odd, the names of weights whose gradient the calls of their layers do not tell; held,
    the bytes of layer inputs and outputs, of what autograd keeps, and of what `backward` will add.
    Raises TooLarge as soon as held is above `limit`, unless N is 1.
    """

    def __init__(self, model, weights, x, *, keep_outputs=False, limit=math.inf):
        self._calls: Any = {w.name: [] for w in weights}
        # No reference from the meter to the calls: autograd's graph keeps it, and the calls keep the graph.
        meter = _Meter(weights, limit if len(x) > 1 else math.inf)
        handles = []
        try:
            for weight in weights:
                for layer in weight.layers:  # before other hooks, which may replace the output
                    hook = self._recorder(weight, meter, keep_outputs)
                    handles.append(layer.register_forward_hook(hook, with_kwargs=True, prepend=True))
            with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(meter.pack, meter.unpack):
                self._z: Any = checks.logits(model(x), x)
        finally:
            for handle in handles:
                handle.remove()
        self.logits, self.held = self._z.detach(), meter.held
        reached, uses = _graph(self._z.grad_fn)
        for weight in weights:
            self._calls[weight.name] = [c for c in self._calls[weight.name] if c.edge.node in reached]
            weight.settle(self._calls[weight.name])
        self.odd = {w.name for w in weights if _is_odd(w, self._calls[w.name], uses, len(x))}
        # An input that requires a gradient does so for a weight before it; unless something else in the model does.
        self._follow = not self.odd and uses.keys() <= {id(p) for w in weights for p in w.parameters}

    def _recorder(self, weight, meter, keep_outputs):
        def record(layer, args, kwargs, out):
            if not (torch.is_grad_enabled() and out.requires_grad):
                return
            a = args[0] if args else kwargs["input"]
            y = out.detach() if keep_outputs else None
            # The edge and the version are taken now: an activation may write into `out` later.
            edge = torch.autograd.graph.get_gradient_edge(out)
            call = Call(weight, layer, a.detach(), out.shape, y, out._version, edge, a.requires_grad)
            self._calls[weight.name].append(call)
            meter.add(out.nbytes)  # δ
            meter.count(a)
            meter.count(out)

        return record

    def backward(self, gradient, take):
        """Given ∂L_n/∂logits (N, K), call `take(weight name, calls)` for every weight that is not odd. Once only.

        Each as soon as the backward pass has its δ, so that inputs and δ can go; calls without one are left out.
        """
        waiting = {name: calls for name, calls in self._calls.items() if name not in self.odd}
        calls = [c for own in waiting.values() for c in own]
        ends = [c for c in calls if not (self._follow and c.follows)]

        def arrive(call, number, gradients):
            call.delta, name = gradients[number], call.weight.name
            if all(c.delta is not None for c in waiting[name]):
                finish(name)

        def finish(name):
            own = waiting.pop(name)
            take(name, [c for c in own if c.delta is not None])
            for call in own:
                call.a = call.y = call.delta = None

        handles = []
        try:
            for call in set(calls).difference(ends):
                hook = partial(arrive, call, call.edge.output_nr)
                handles.append(call.edge.node.register_prehook(hook))
            deltas = torch.autograd.grad(self._z, [c.edge for c in ends], gradient, allow_unused=True) if ends else ()
        finally:
            for handle in handles:
                handle.remove()
            self.forget()
        for call, delta in zip(ends, deltas, strict=True):
            arrive(call, 0, (delta,))
        for name in list(waiting):
            finish(name)

    def forget(self):
        """Let go of everything but logits, odd and held."""
        self._calls = self._z = None


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
    return any(not c.keeps_samples(n) or not _standard(c.layer) for c in calls) or (
        len(weight.layers) > 1 and any(parametrize.is_parametrized(m) for m in weight.layers)  # one mask each
    )


def _standard(layer):
    """Whether the layer computes what its base class says."""
    base = next(c for c in (nn.Linear, *weight_gradients.CONVOLUTIONS) if isinstance(layer, c))
    methods = ("forward",) if base is nn.Linear else ("forward", "_conv_forward")
    return all(n not in vars(layer) and getattr(type(layer), n) is getattr(base, n) for n in methods)


def functional(model, weights, x, objective, *arguments, order=1, chunk=1):
    """Yield (rows, {weight name: (n, *shape)}): derivatives of f_n(θ) = objective(logits_n, *arguments_n).

    Args:
        objective: function of logits (1, K) and one row of each argument (1, …), to a number.
        order: 1 for the gradient g_n; 2 for H_n g_n, the gradient of ½‖g_n‖², H_n the Hessian over these weights.
        chunk: samples at a time.
    Raises: ValueError where a weight is not a parameter, or (order 2) an operation has no second derivative.
    """
    unknown = [w.name for w in weights if w.parameter is None]
    if unknown:
        raise ValueError(f"model has weights under a parametrization that is not a mask: {', '.join(unknown)}")
    names = {id(p): name for name, p in model.named_parameters()}
    keys = {w.name: names[id(w.parameter)] for w in weights}
    chosen = {keys[w.name]: w.parameter.detach() for w in weights}
    rest = {k: p.detach() for k, p in model.named_parameters() if k not in chosen} | dict(model.named_buffers())

    def value(chosen, xi, *args):
        z = functional_call(model, (chosen, rest), (xi.unsqueeze(0),))
        return objective(z, *(a.unsqueeze(0) for a in args))

    def half_square(chosen, *args):
        return sum(g.square().sum() for g in grad(value)(chosen, *args).values()) / 2

    derivative = vmap(grad(value if order == 1 else half_square), in_dims=(None,) + (0,) * (1 + len(arguments)))
    for rows in weight_gradients.slices(len(x), chunk):
        try:
            # Fused attention has no second derivative and no batching rule.
            with warnings.catch_warnings(), nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
                warnings.filterwarnings("ignore", "There is a performance drop")  # vmap, of rare operations
                found = derivative(chosen, x[rows], *(a[rows] for a in arguments))
        except (NotImplementedError, RuntimeError) as error:
            if order == 1 or "derivative for" not in str(error):
                raise
            raise ValueError(f"model has an operation without a second derivative: {error}") from error
        yield rows, {name: found[key] for name, key in keys.items()}
