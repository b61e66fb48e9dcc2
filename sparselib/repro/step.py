"""Steps: the pure functions of typed parameters that everything is made of.

A step's fields say what is computed. Its `key` adds what the result also depends on: the data, the code, the versions
of the numeric packages. A step gives tidy rows and, where it makes one, a network.
"""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

from pydantic import BaseModel

from sparselib.repro import dependencies, project


class StepError(RuntimeError):
    """A step could not be computed; the message names it."""


class Step(BaseModel, extra="forbid", frozen=True):
    """A pure function of its fields. Subclasses give `compute` and, where they build on other steps, `inputs`."""

    makes_network: ClassVar[bool] = False
    tables: ClassVar[frozenset[str]] = frozenset()  # "module.NAME" of dicts that `chosen` picks from: see dependencies

    def inputs(self) -> tuple["Step", ...]:
        """Return the steps whose networks this one reads."""
        return ()

    def blank(self) -> Callable[[], Any] | None:
        """Return what makes a network to load the saved one into, where the file does not say how."""
        return None

    def fingerprints(self) -> dict[str, str]:
        """Return {what: sha256} of the data used."""
        return {}

    def chosen(self) -> tuple:
        """Return the functions and classes that the fields choose by name: their code counts, their peers' does not."""
        return ()

    def columns(self) -> dict[str, Any]:
        """Return the columns that all rows of this step share."""
        raise NotImplementedError

    def compute(self, load: Callable[["Step"], Any]) -> tuple[list[dict], Any]:
        """Return (rows, network or None); `load(step)` gives the network of an input."""
        raise NotImplementedError

    def _fields(self):
        """Return the fields as JSON, steps by their `what`."""

        def plain(value):
            if isinstance(value, Step):
                return value.what
            if isinstance(value, BaseModel):
                return value.model_dump(mode="json")
            return [plain(v) for v in value] if isinstance(value, tuple) else value

        return {name: plain(getattr(self, name)) for name in type(self).model_fields}

    @property
    @cache  # noqa: B019  (equal steps share it, and are made again and again)
    def what(self) -> str:
        """The digest of the typed parameters alone."""
        return _digest([type(self).__name__, self._fields()])

    @property
    @cache  # noqa: B019
    def key(self) -> str:
        """The digest of everything the result depends on. Raises StepError when the data cannot be made as asked."""
        try:
            return _digest([self.what, self.parts()])
        except ValueError as error:
            raise StepError(f"{type(self).__name__}: {error}") from error  # its columns may need the data, too

    def code(self) -> dict[str, str]:
        """Return {definition: digest} of the code behind the result, that of the inputs apart."""
        return dependencies.of_objects(type(self), *self.chosen(), tables=self.tables)

    def parts(self) -> dict[str, Any]:
        """Return what the key is made of, each part by name: the same dict, the same result."""
        return {
            "inputs": [step.key for step in self.inputs()],
            "data": self.fingerprints(),
            "code": dependencies.digest(self.code()),
            "versions": project.versions(),
        }

    def __str__(self):
        said = (f"{name}={value}" for name, value in self.columns().items() if value is not None)
        return f"{type(self).__name__} " + " ".join(said)


def _digest(thing):
    return hashlib.sha256(json.dumps(thing, sort_keys=True).encode()).hexdigest()[:20]


def row(metric: str, value: Any, **where: Any) -> dict[str, Any]:
    """Return one tidy measurement; `where` are further columns that say what it is of."""
    return {**where, "metric": metric, "value": float(value)}
