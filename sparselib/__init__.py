"""Pruning, robustness attacks and SensNorm: the library behind the book.

Its wings `pruning`, `robustness`, `detection` stand on `data`, `models`, `training`. Modules load on first use, so that
`sparselib --help` does not wait for torch.
"""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

_SUBJECTS = (
    "checkpoints", "checks", "data", "detection", "models", "plots", "pruning", "robustness", "seeds", "training",
    "verdict", "vision",
)  # fmt: skip


def __getattr__(name: str) -> ModuleType:
    if name in _SUBJECTS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBJECTS])
