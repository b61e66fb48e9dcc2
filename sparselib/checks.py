"""Argument checks. Each error names the argument, its value and what is allowed."""

import difflib
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import torch

F = TypeVar("F", bound=Callable)
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
REMEDIES = {  # by the dtype of what should be images or labels
    torch.uint8: ": images are bytes / 255, labels bytes.long()",
    **dict.fromkeys((torch.int8, torch.int16, torch.int32), ": .long() makes int64"),
}


def choice(name: str, value: str, allowed: Iterable[str], *, also: str = "") -> str:
    """Return `value` if it is one of `allowed` (strings); else raise ValueError with the close matches.

    `also` describes further forms that the caller accepts beside the listed ones.
    """
    allowed = list(allowed)
    if isinstance(value, str) and value in allowed:
        return value
    close = difflib.get_close_matches(str(value), allowed, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise ValueError(f"unknown {name} {_short(value)}{hint} (allowed: {', '.join(allowed)}{also})")


def number(
    name: str, value: float, low: float = -math.inf, high: float = math.inf, *,
    low_open: bool = False, high_open: bool = False,
) -> float:  # fmt: skip
    """Return `value` as a plain number if it is finite and within the bounds; else raise TypeError or ValueError.

    Scalars of NumPy and torch are numbers, too.
    """
    plain = _scalar(value)
    if isinstance(plain, bool) or not isinstance(plain, (int, float)):
        raise TypeError(f"{name} must be a number, got {_short(value)} of type {type(value).__name__}")
    inside = (low < plain if low_open else low <= plain) and (plain < high if high_open else plain <= high)
    if inside and math.inf > abs(plain) > torch.finfo(torch.float32).max:
        raise ValueError(f"{name} must be finite in float32, got {_short(value)}")
    if not (inside and abs(plain) < math.inf):
        interval = f"{'(' if low_open else '['}{low:g}, {high:g}{')' if high_open else ']'}"
        allowed = "finite" if (low, high) == (-math.inf, math.inf) else f"in {interval}"
        raise ValueError(f"{name} must be {allowed}, got {_short(value)}")
    return plain


def integer(name: str, value: int, low: int | None = None, high: int | None = None) -> int:
    """Return `value` as an int if it is one within [low, high]; else as `number`."""
    plain = _scalar(value)
    if isinstance(plain, bool) or not isinstance(plain, int):
        raise TypeError(f"{name} must be an int, got {_short(value)} of type {type(value).__name__}")
    if not -(2**63) <= plain < 2**63:
        raise ValueError(f"{name} must fit into 64 bits, got {_short(value)}")
    if (low is not None and plain < low) or (high is not None and plain > high):
        bounds = f"at least {low}" if high is None else f"in {low}..{high}"
        raise ValueError(f"{name} must be {bounds}, got {_short(value)}")
    return plain


def _scalar(value) -> Any:
    return value.item() if isinstance(value, (torch.Tensor, np.generic)) and value.ndim == 0 else value


def _short(value):
    """Return the value as a person would write it, in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def typed(function: F) -> F:
    """Check the arguments of a public function against its annotations before it runs: a decorator.

    Modules, tensors, Samples, texts, flags, whole numbers, numbers; None where the annotation has it. Numbers of NumPy
    and torch arrive as plain ones. What else arguments must be, such as ranges and shapes, the function checks itself.
    Errors: TypeError naming the argument.
    """
    kinds: dict[str, Any] = {}

    @functools.wraps(function)
    def checked(*args, **kwargs):
        if not kinds:  # late, so that annotations may name what is defined below the function
            kinds.update(typing.get_type_hints(function))
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if name in kinds:
                bound.arguments[name] = _fitting(name, value, kinds[name])
        return function(*bound.args, **bound.kwargs)

    signature = inspect.signature(function)
    return checked  # type: ignore[return-value]


def _fitting(name, value, kind):
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if Any in options or not all(isinstance(option, type) for option in options):
        return value  # a Callable, a Sequence of something
    plain = _scalar(value)
    if plain is None and types.NoneType in options:
        return None
    if options[0] is int:
        return integer(name, value)
    if options[0] is float:
        return plain if isinstance(plain, float) and plain == math.inf else number(name, value)  # inf: the function's
    if not isinstance(value, options):
        said = " or ".join("None" if option is types.NoneType else option.__name__ for option in options)
        raise TypeError(f"{name} must be of type {said}, got {_short(value)}{_remedy(value)}")
    return value


def images(x: torch.Tensor, *, name: str = "x", unit_range: bool = False, half: bool = True) -> torch.Tensor:
    """Return `x` if it is a finite floating (N, C, H, W) tensor.

    `unit_range`: within [0, 1]. `half`: of 16 bits, too, else float32 or float64.
    """
    if not isinstance(x, torch.Tensor) or x.dtype not in FLOATS or x.layout != torch.strided or x.is_meta:
        raise TypeError(f"{name} must be a floating point tensor (N, C, H, W), got {_kind(x)}{_remedy(x)}")
    if not half and x.element_size() < 4:
        raise TypeError(f"{name} must be float32 or float64, got {x.dtype}: too coarse for this; use model.float()")
    if x.ndim != 4 or 0 in x.shape[1:]:
        remedy = ": x[None] is a batch of one image, x[:, None] of grey ones" if x.ndim == 3 else ""
        raise ValueError(f"{name} must have shape (N, C, H, W), got {tuple(x.shape)}{remedy}")
    # Without a copy of x; NaN if any value is.
    low, high = map(float, x.detach().aminmax()) if len(x) else (0.0, 0.0)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    if unit_range and not 0 <= low <= high <= 1:
        remedy = "bytes are x / 255" if low >= 0 else "normalisation is the network's first layer"
        raise ValueError(f"{name} must lie in [0, 1], got values in [{low:.4g}, {high:.4g}]: {remedy}")
    return x


def labels(y: torch.Tensor, x: torch.Tensor, *, name: str = "y", classes: int | None = None) -> torch.Tensor:
    """Return `y` if it is an int64 (N,) tensor on the device of `x`, one label in 0 … classes − 1 per row of `x`."""
    if not isinstance(y, torch.Tensor) or y.dtype != torch.int64:
        raise TypeError(f"{name} must be an int64 tensor (N,), got {_kind(y)}{_remedy(y)}")
    if y.shape != x.shape[:1]:
        raise ValueError(f"{name} must have shape ({len(x)},), one label per input, got {tuple(y.shape)}")
    if y.device != x.device:
        raise ValueError(f"{name} must be on the device of the inputs, {x.device}, got {y.device}")
    if len(y) and y.min() < 0:
        raise ValueError(f"{name} must be non-negative class labels, got {int(y.min())}")
    if classes is not None and len(y) and y.max() >= classes:
        raise ValueError(f"{name} must be below the number of classes, {classes}, got {int(y.max())}")
    return y


def _kind(value):
    if not isinstance(value, torch.Tensor):
        return f"type {type(value).__name__}"
    state = " without values" if value.is_meta else " that is sparse" if value.layout != torch.strided else ""
    return f"dtype {value.dtype}{state}"


def _remedy(value):
    if isinstance(value, np.ndarray):
        return ": torch.from_numpy makes a tensor"
    return REMEDIES.get(value.dtype, "") if isinstance(value, torch.Tensor) else ""


def logits(z: torch.Tensor, x: torch.Tensor, *, finite: bool = True) -> torch.Tensor:
    """Return the model output `z` if it is an (N, K) tensor with K >= 2 for the batch `x`, and finite if asked for."""
    if not isinstance(z, torch.Tensor) or z.ndim != 2 or len(z) != len(x):
        got = tuple(z.shape) if isinstance(z, torch.Tensor) else type(z).__name__
        raise ValueError(f"model must map (N, C, H, W) to logits (N, K), got {got} for N = {len(x)}")
    if z.shape[1] < 2:
        raise ValueError(f"model must have at least 2 classes, got {z.shape[1]}: each has a logit of its own")
    if finite and not torch.isfinite(z).all():
        raise ValueError("model returned logits that are NaN or infinite")
    return z
