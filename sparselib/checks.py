"""Argument checks. Each error names the argument, its value and what is allowed."""

import difflib
import math
from collections.abc import Iterable

import torch


def choice(name: str, value: str, allowed: Iterable[str], *, also: str = "") -> str:
    """Return `value` if it is one of `allowed` (strings); else raise ValueError with the close matches.

    `also` describes further forms that the caller accepts beside the listed ones.
    """
    allowed = list(allowed)
    if value in allowed:
        return value
    close = difflib.get_close_matches(str(value), allowed, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise ValueError(f"unknown {name} {value!r}{hint} (allowed: {', '.join(allowed)}{also})")


def number(
    name: str, value: float, low: float = -math.inf, high: float = math.inf, *,
    low_open: bool = False, high_open: bool = False,
) -> float:  # fmt: skip
    """Return `value` if it is a finite real number within the bounds; else raise TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    inside = (low < value if low_open else low <= value) and (value < high if high_open else value <= high)
    if not (inside and math.isfinite(value)):
        interval = f"{'(' if low_open else '['}{low:g}, {high:g}{')' if high_open else ']'}"
        raise ValueError(f"{name} must be in {interval}, got {value!r}")
    return value


def integer(name: str, value: int, low: int | None = None, high: int | None = None) -> int:
    """Return `value` if it is an int within [low, high]; else raise TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}")
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"in {low}..{high}"
        raise ValueError(f"{name} must be {bounds}, got {value}")
    return value


def images(x: torch.Tensor, *, name: str = "x", unit_range: bool = False) -> torch.Tensor:
    """Return `x` if it is a finite floating (N, C, H, W) tensor, within [0, 1] when `unit_range`."""
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        raise TypeError(f"{name} must be a floating point tensor (N, C, H, W), got {_kind(x)}")
    if x.ndim != 4:
        raise ValueError(f"{name} must have shape (N, C, H, W), got {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    if unit_range and len(x) and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"{name} must lie in [0, 1], got values in [{x.min():.4g}, {x.max():.4g}]")
    return x


def labels(y: torch.Tensor, x: torch.Tensor, *, name: str = "y") -> torch.Tensor:
    """Return `y` if it is an int64 (N,) tensor on the device of `x`, one non-negative label per row of `x`."""
    if not isinstance(y, torch.Tensor) or y.dtype != torch.int64:
        raise TypeError(f"{name} must be an int64 tensor (N,), got {_kind(y)}")
    if y.shape != x.shape[:1]:
        raise ValueError(f"{name} must have shape ({len(x)},), one label per input, got {tuple(y.shape)}")
    if y.device != x.device:
        raise ValueError(f"{name} must be on the device of the inputs, {x.device}, got {y.device}")
    if len(y) and y.min() < 0:
        raise ValueError(f"{name} must be non-negative class labels, got {int(y.min())}")
    return y


def _kind(value):
    return f"dtype {value.dtype}" if isinstance(value, torch.Tensor) else f"type {type(value).__name__}"


def logits(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return the model output `z` if it is a finite (N, K) tensor with K >= 2 for the batch `x`."""
    if not isinstance(z, torch.Tensor) or z.ndim != 2 or len(z) != len(x):
        got = tuple(z.shape) if isinstance(z, torch.Tensor) else type(z).__name__
        raise ValueError(f"model must map (N, C, H, W) to logits (N, K), got {got} for N = {len(x)}")
    if z.shape[1] < 2:
        raise ValueError(f"model must have at least 2 classes, got {z.shape[1]}")
    if not torch.isfinite(z).all():
        raise ValueError("model returned logits that are NaN or infinite")
    return z
