"""Explicit randomness: every random choice comes from a seed and the name of what it is for."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from sparselib import checks


def derive(seed: int, *stream: object) -> int:
    """Return a 63-bit seed for one purpose: `derive(0, "attack", 3)` is unrelated to `derive(0, "noise", 3)`."""
    seed = checks.integer("seed", seed, low=0)
    digest = hashlib.sha256(repr((seed, *stream)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *stream: object) -> torch.Generator:
    """Return a CPU torch.Generator for one purpose. Draw on the CPU, then move: the same numbers on any device."""
    return torch.Generator().manual_seed(derive(seed, *stream))


def numpy_generator(seed: int, *stream: object) -> np.random.Generator:
    """Return a numpy Generator for one purpose."""
    return np.random.default_rng(derive(seed, *stream))


@contextmanager
def isolated(seed: int, *stream: object) -> Iterator[None]:
    """Run a block whose code draws from torch's global state (layer initialisation, dropout); restore it after."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(seed, *stream))
        yield
