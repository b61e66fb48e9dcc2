"""Pruning, robustness attacks and SensNorm: the library behind the book.

Each subject is one module: `from sparselib import data, models, pruning, attacks, detectors`.
Submodules load on first use, so that `sparselib --help` does not wait for torch.
"""

from importlib import import_module

__version__ = "0.1.0"

_SUBJECTS = (
    "attack_checks", "attacks", "autoattack", "baselines", "calibration", "certify", "channels", "checkpoints",
    "checks", "costs", "criteria", "data", "detection", "detectors", "ensembles", "masks", "metrics", "models",
    "objectives", "plots", "pruning", "schedules", "seeds", "sensitivity", "sensnorm", "shifts", "subnetworks",
    "training", "verdict", "vision",
)  # fmt: skip


def __getattr__(name):
    if name in _SUBJECTS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_SUBJECTS])
