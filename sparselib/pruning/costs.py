"""What a network costs: parameters, multiplications, seconds, memory."""

import statistics
import time
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from sparselib import checks
from sparselib.models import device_of, evaluating
from sparselib.pruning import masks


@dataclass(frozen=True)
class Cost:
    """Of one forward pass of a batch: `params` stored weights and biases; `nonzero` those that are not 0 (masked ones
    are); `macs` multiply-accumulates of matrix products and convolutions, attention included, dense, over the batch:
    half of what torch's FlopCounterMode counts; `seconds`, the median; `peak_bytes` of the activations held at once,
    the input included, the parameters not."""

    params: int
    nonzero: int
    macs: int
    seconds: float
    peak_bytes: int


@checks.typed
def cost(model: nn.Module, example: torch.Tensor, *, repeats: int = 10) -> Cost:
    """Return the Cost of a forward pass of `example` (N, C, H, W), in eval mode, without gradients.

    Masked weights are multiplied like any other: only a shrunk network has fewer `macs` and takes fewer seconds.
    Recurrent layers are not counted: a warning names them.
    `repeats`, at least 1: timed passes, after one that warms up. Raises: ValueError/TypeError for bad arguments.
    """
    checks.images(example, name="example")
    checks.integer("repeats", repeats, low=1)
    if not len(example):
        raise ValueError("example must hold at least one input, got an empty batch")
    masked = [layer for layer in model.modules() if isinstance(layer, masks.Layer) and masks.mask_of(layer) is not None]
    kept = {id(masks.original(layer)): layer.weight for layer in masked}
    parameters = list(model.parameters())
    nonzero = sum(int(kept.get(id(p), p).count_nonzero()) for p in parameters)
    with evaluating(model), torch.no_grad():
        macs, peak = _macs(model, example), peak_bytes(model, example)
        seconds = [_seconds(model, example) for _ in range(repeats + 1)][1:]
    return Cost(sum(p.numel() for p in parameters), nonzero, macs, statistics.median(seconds), peak)


def _macs(model, example):
    if recurrent := [name for name, module in model.named_modules() if isinstance(module, nn.RNNBase | nn.RNNCellBase)]:
        warnings.warn(f"macs leave out the recurrent layers {', '.join(recurrent)}", stacklevel=3)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operation, which the counter does not know
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            model(example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() // 2


def _seconds(model, example):
    def now():
        if device_of(model).type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    started = now()
    model(example)
    return now() - started


class _Live(TorchDispatchMode):
    """Adds up the bytes of the tensors that are alive, on any device."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        old = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for storage in (t.untyped_storage() for t in tree_leaves(result) if isinstance(t, torch.Tensor)):
            if storage._cdata not in old and storage._cdata not in self.known:
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return result

    def _gone(self, key, size):
        self.known.discard(key)
        self.now -= size


def peak_bytes(run: Callable[[torch.Tensor], object], example: torch.Tensor) -> int:
    """Return the most bytes of tensors alive at once while `run(example)` runs, the example included."""
    with _Live() as live:
        run(example)
    return live.peak + example.untyped_storage().nbytes()
