"""Cells: the pure functions of typed parameters that everything is made of.

A cell's fields say what is computed. Its `key` adds what the result also depends on: the data, the code, the versions
of the numeric packages. Network cells end in a network (`networks`), the others in tidy rows (`measurements`).
"""

import hashlib
import json
from functools import cache, lru_cache
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from sparselib import checks, data
from sparselib.repro import project, source


class CellError(RuntimeError):
    """A cell could not be computed; the message names it."""


class Data(BaseModel):
    """A data set: which classes are kept out, and how many samples are used (None: all)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    held_out: tuple[str, ...] = ()
    train_limit: int | None = None
    test_limit: int | None = None


@lru_cache(maxsize=8)
def inliers(chosen, split):
    """Return the Samples of a Data, "train" or "test"."""
    samples = data.load(chosen.name, split)
    for name in chosen.held_out:
        checks.choice("held_out class", name, samples.classes)
    samples = samples.only([c for c in samples.classes if c not in chosen.held_out])
    limit = chosen.train_limit if split == "train" else chosen.test_limit
    if limit is not None and limit < len(samples):
        samples = samples.split(limit / len(samples), seed=0)[0]
    return samples


class Cell(BaseModel):
    """A pure function of its fields. Subclasses give `compute` and, where they build on other cells, `inputs`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    makes_network: ClassVar[bool] = False

    def inputs(self):
        """Return the network cells whose results this one reads."""
        return ()

    def fingerprints(self):
        """Return {what: sha256} of the data used."""
        return {}

    def chosen(self):
        """Return the functions and classes that the fields choose by name: their code counts, their peers' does not."""
        return ()

    def columns(self):
        """Return the columns that all rows of this cell share."""
        raise NotImplementedError

    def compute(self, load):
        """Return (rows, network or None); `load(cell)` gives the network of an input."""
        raise NotImplementedError

    def _fields(self):
        """Return the fields as JSON, network cells by their `what`."""

        def plain(value):
            if isinstance(value, Cell):
                return value.what
            if isinstance(value, BaseModel):
                return value.model_dump(mode="json")
            return [plain(v) for v in value] if isinstance(value, tuple) else value

        return {name: plain(getattr(self, name)) for name in type(self).model_fields}

    @property
    def what(self):
        """The digest of the typed parameters alone."""
        return _identity(self)[0]

    @property
    def key(self):
        """The digest of everything the result depends on."""
        return _identity(self)[1]

    def code(self):
        """Return {definition: digest} of the code behind the result, that of the inputs apart."""
        return source.of_objects(type(self), *self.chosen())

    def parts(self):
        """Return what the key is made of, each part by name: the same dict, the same result."""
        return {
            "inputs": [c.key for c in self.inputs()],
            "data": self.fingerprints(),
            "code": source.digest(self.code()),
            "versions": project.versions(),
        }

    def __str__(self):
        return f"{type(self).__name__} " + " ".join(f"{k}={v}" for k, v in self.columns().items())


@cache
def _identity(cell):
    what = _digest([type(cell).__name__, cell._fields()])
    try:
        return what, _digest([what, cell.parts()])
    except ValueError as error:  # the data cannot be made as asked
        raise CellError(f"{cell}: {error}") from error


def _digest(thing):
    return hashlib.sha256(json.dumps(thing, sort_keys=True).encode()).hexdigest()[:20]


@cache
def fingerprint(chosen, split):
    """Return the digest of the Samples of a Data, "train" or "test"."""
    return inliers(chosen, split).fingerprint


def row(task, condition, metric, value):
    """Return one tidy measurement."""
    return {"task": task, "condition": condition, "metric": metric, "value": float(value)}
