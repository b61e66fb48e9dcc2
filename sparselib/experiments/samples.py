"""What networks are trained on and tested on: inliers, and the kinds of anomaly, each by its name.

A kind of anomaly is "pgd:<eps>" (attacked test samples), "<shift>:<severity>", or a kind of `data.outliers`.
"""

import re
from functools import cache, lru_cache

import torch
from pydantic import BaseModel

from sparselib import checks, data
from sparselib.robustness import shifts

NEAR = ("heldout", "mixed", "cifar10", "cifar100")  # outliers that look like the data; folders of images do, too
OUTLIERS = ("near", "far")  # families


class Data(BaseModel, extra="forbid", frozen=True):
    """A data set as one seed sees it: which classes are kept out, how many samples are used (None: all), and which.

    The seed decides which images are for training and for tests. A tenth of the training data is in no figure: it is
    what choices are tested on (`held_back`).
    """

    name: str
    held_out: tuple[str, ...] = ()
    train_limit: int | None = None
    test_limit: int | None = None
    seed: int = 0
    held_back: bool = False


@lru_cache(maxsize=2)
def pools(name, held_out):
    """Return the Samples to train on, to test on and to choose by, of the classes that are not held out.

    Digits has no official test set: there, the first two are one.
    """
    found = [data.load(name, split) for split in data.SPLITS]
    for kept_out in held_out:
        checks.choice("held_out class", kept_out, found[0].classes)
    train, test = (part.only([c for c in part.classes if c not in held_out]) for part in found)
    if name == "digits":
        train = test = data.Samples(torch.cat([train.x, test.x]), torch.cat([train.y, test.y]), train.classes, name)
    choices, rest = train.split(0.1, seed=0)
    return rest, rest if test is train else test, choices


@lru_cache(maxsize=4)
def inliers(chosen, split):
    """Return the Samples of a Data, "train" or "test"."""
    train, test, choices = pools(chosen.name, chosen.held_out)
    if train is test:
        train, test = train.split(2 / 3, seed=chosen.seed)
    samples, limit = (train, chosen.train_limit) if split == "train" else (test, chosen.test_limit)
    if split == "test" and chosen.held_back:
        samples = choices
    if limit is not None and limit < len(samples):
        samples = samples.split(limit / len(samples), seed=chosen.seed)[0]
    return samples


@cache
def fingerprint(chosen, split):
    """Return the digest of the Samples of a Data, "train" or "test"."""
    return inliers(chosen, split).fingerprint


def strength(anomaly: str) -> tuple[str, str]:
    """Return ("rotate", "4") for "rotate:4", ("textures", "") for "textures"."""
    return re.findall(r"(?s)^([^:]*):?(.*)$", anomaly)[0]


def family(anomaly: str) -> str:
    """Return the family of a kind of anomaly: "attacks", "shifts", "near" or "far" (outliers).

    "pgd:<eps>" is an attack (test samples within eps in L∞), "<shift>:<severity>" a shift; all else are outliers: a
    kind of `data.outliers`, or a data set. Raises ValueError for a name that is none of them.
    """
    head, rest = strength(anomaly)
    if rest and head == "pgd":
        try:
            checks.number("the radius of pgd:<eps>", float(rest), 0, 1)
        except ValueError as error:
            raise ValueError(f"anomaly {anomaly!r}: {error}") from None
        return "attacks"
    if rest and head in shifts.SHIFTS:
        if rest not in tuple("12345"):
            raise ValueError(f"anomaly {anomaly!r}: severity must be in 1..5, got {rest!r}")
        return "shifts"
    if rest and head == "folder":
        return "near"
    checks.choice(
        "anomaly", anomaly, (*data.SYNTHETIC, "heldout", *data.NAMES, *shifts.SHIFTS, "pgd"), also=", folder:<path>"
    )
    if anomaly in shifts.SHIFTS or anomaly == "pgd":
        raise ValueError(f"anomaly {anomaly!r} needs a strength: {'pgd:0.1' if anomaly == 'pgd' else anomaly + ':3'}")
    return "near" if anomaly in NEAR else "far"


@lru_cache(maxsize=16)
def shifted(chosen, kind, severity):
    """Return the test Samples of a Data under a shift."""
    test = inliers(chosen, "test")
    return data.Samples(shifts.corrupt(test.x, kind, severity), test.y, test.classes, test.name)


@lru_cache(maxsize=16)
def outliers(chosen, name):
    """Return the outliers called `name` to the test samples: as many, 1000 at most."""
    like = inliers(chosen, "test")
    return data.outliers(name, like, n=min(len(like), 1000), seed=chosen.seed)


@lru_cache(maxsize=4)
def some(chosen, limit):
    """Return the test Samples of a Data, `limit` of them at most (None: all), equally many of each class."""
    test = inliers(chosen, "test")
    return test if limit is None or limit >= len(test) else data.balanced(test, limit, seed=chosen.seed)
