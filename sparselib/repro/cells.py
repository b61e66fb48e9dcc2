"""Cells: the pure functions of typed parameters that everything is made of.

A cell's fields say what is computed. Its `key` adds what the result also depends on: the data, the code, the versions
of the numeric packages. Network cells end in a network, the others in tidy rows.
"""

import hashlib
import json
from functools import cache, lru_cache
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from sparselib import checks, criteria, data, detectors, metrics, models, pruning, schedules, training
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


@lru_cache(maxsize=16)
def anomalies(chosen, name):
    """Return the outliers called `name` to the test samples of a Data: as many, 1000 at most."""
    like = inliers(chosen, "test")
    return data.outliers(name, like, n=min(len(like), 1000))


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
        fields = {n: getattr(self, n) for n in type(self).model_fields}
        return {
            n: v.what if isinstance(v, Cell) else v.model_dump(mode="json") if isinstance(v, BaseModel) else v
            for n, v in fields.items()
        }

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
def _fingerprint(chosen, split):
    return inliers(chosen, split).fingerprint


def row(task, condition, metric, value):
    """Return one tidy measurement."""
    return {"task": task, "condition": condition, "metric": metric, "value": float(value)}


class Trained(Cell):
    """A dense network, trained from `seed`."""

    makes_network: ClassVar[bool] = True
    data: Data
    network: str
    width: int | None = None
    epochs: int
    batch_size: int = 64
    lr: float = 2e-3
    seed: int = 0

    def fingerprints(self):
        return {split: _fingerprint(self.data, split) for split in ("train", "test")}

    def chosen(self):
        return (models.MODELS[self.network][0],)

    def columns(self):
        return {
            "dataset": self.data.name, "network": self.network, "criterion": "none", "structured": False,
            "sparsity": 0.0, "when": "none",
            "seed": self.seed,
        }  # fmt: skip

    def initial(self):
        """Return the network before training."""
        train = inliers(self.data, "train")
        _, channels, size, _ = train.x.shape
        return models.build(
            self.network, in_channels=channels, num_classes=len(train.classes), image_size=size, width=self.width,
            mean=train.x.mean((0, 2, 3)).tolist(), std=train.x.std((0, 2, 3)).tolist(), seed=self.seed,
        )  # fmt: skip

    def compute(self, load):
        train, test = inliers(self.data, "train"), inliers(self.data, "test")
        net = self.initial()
        training.fit(
            net, train, epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, seed=self.seed, progress=False
        )
        return [row("classification", "clean", "accuracy", training.accuracy(net, test))], net


class Pruned(Cell):
    """A sparse network, trained under its mask; see `schedules.train_sparse` for `when`.

    `dense` is the recipe of its training; with when="after" it is also the network that is pruned.
    """

    makes_network: ClassVar[bool] = True
    dense: Trained
    criterion: str
    structured: bool = False
    scope: str = "global"
    sparsity: float
    when: str = "after"
    rounds: int = 1
    epochs: int
    lr: float = 1e-3

    def inputs(self):
        return (self.dense,) if self.when == "after" else ()

    def fingerprints(self):
        return self.dense.fingerprints()

    def chosen(self):
        return (criteria.CRITERIA[self.criterion], *self.dense.chosen())

    def columns(self):
        return {
            **self.dense.columns(), "criterion": self.criterion, "structured": self.structured,
            "sparsity": self.sparsity, "when": self.when,
        }  # fmt: skip

    @property
    def data(self):
        return self.dense.data

    def compute(self, load):
        dense, seed = self.dense, self.dense.seed
        train, test = inliers(self.data, "train"), inliers(self.data, "test")
        cut = {
            "structured": self.structured, "scope": self.scope, "rounds": self.rounds, "seed": seed,
            "batch_size": dense.batch_size, "progress": False,
        }  # fmt: skip
        if self.when == "after":
            net = schedules.finetuned(
                load(dense), train, self.criterion, self.sparsity, epochs=self.epochs, lr=self.lr, **cut
            )
        else:
            net = schedules.train_sparse(
                dense.initial(), train, self.criterion, self.sparsity, when=self.when, epochs=dense.epochs,
                finetune_epochs=self.epochs, lr=dense.lr, finetune_lr=self.lr, **cut,
            )  # fmt: skip
        return [
            row("classification", "clean", "accuracy", training.accuracy(net, test)),
            row("pruning", "achieved", "sparsity", pruning.sparsity(net)),
        ], net


class Detection(Cell):
    """How well a detector on a network tells the test data from one kind of anomaly."""

    model: Trained | Pruned
    detector: str
    options: tuple[tuple[str, Any], ...] = ()
    anomaly: str

    def inputs(self):
        return (self.model,)

    def fingerprints(self):
        found = self.model.fingerprints()
        if self.anomaly not in data.SYNTHETIC:
            found["anomaly"] = anomalies(self.model.data, self.anomaly).fingerprint
        return found

    def chosen(self):
        synthetic = (data.SYNTHETIC[self.anomaly],) if self.anomaly in data.SYNTHETIC else ()
        return (detectors.DETECTORS[self.detector], *synthetic)

    def columns(self):
        return {**self.model.columns(), "detector": self.detector, "anomaly": self.anomaly}

    def compute(self, load):
        net, chosen = load(self.model), self.model.data
        detector = detectors.build(self.detector, **dict(self.options)).fit(net, inliers(chosen, "train"))
        inside = detector.score(inliers(chosen, "test").x)
        outside = detector.score(anomalies(chosen, self.anomaly).x)
        condition = f"{self.detector} on {self.anomaly}"
        return [
            row("ood", condition, "auroc", metrics.auroc(inside, outside)),
            row("ood", condition, "aupr_ood", metrics.aupr(inside, outside)),
            row("ood", condition, "fpr95_ood", metrics.fpr_at_95_tpr(inside, outside)),
        ], None
