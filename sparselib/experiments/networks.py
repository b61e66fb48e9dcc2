"""The steps that end in a network: trained, pruned, masked without training, shrunk, trained again from scratch."""

import hashlib
import inspect
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch

from sparselib import data, models, pruning, seeds, training
from sparselib.experiments.samples import Data, fingerprint, inliers, pools
from sparselib.pruning import criteria, masks, schedules, subnetworks
from sparselib.repro import project
from sparselib.repro.step import Step, row
from sparselib.robustness import objectives

# By name, so that networks trained in the standard way do not depend on the code of attacks.
TRAINING = {"adversarial": objectives.Adversarial}


@cache
def foreign(network, weights):
    """Return {what: sha256} of the files of a network that is not of `models.MODELS`."""
    files = {"weights": models.weights_file(weights)} if weights else {}
    if network not in models.MODELS:
        files["network"] = Path(inspect.getsourcefile(models.factory(network)) or "")
    return {what: hashlib.sha256(file.read_bytes()).hexdigest() for what, file in files.items()}


class NetworkStep(Step, frozen=True):
    """A step whose result is a network; its rows are the network's accuracy and what it cost to make."""

    makes_network: ClassVar[bool] = True
    tables: ClassVar[frozenset[str]] = frozenset(
        {
            "sparselib.data.SYNTHETIC",
            "sparselib.experiments.networks.TRAINING",
            "sparselib.models.MODELS",
            "sparselib.pruning.criteria.CRITERIA",
        }
    )

    @property
    def origin(self) -> "Trained":
        """The `Trained` step that says on which data and from which seed."""
        raise NotImplementedError

    def fingerprints(self):
        found = {split: fingerprint(self.origin.data, split) for split in ("train", "test")}
        return {**found, **foreign(self.origin.network, self.origin.weights)}

    def blank(self):
        return None if self.origin.network in models.MODELS else self.origin.initial

    def _rows(self, net):
        return [
            row("accuracy", training.accuracy(net, inliers(self.origin.data, "test"))),
            row("weights", sum(int(m.weight.count_nonzero()) for m in masks.prunable(net).values())),
        ]


class Trained(NetworkStep, frozen=True):
    """A dense network, trained from `seed`; or one that has its weights from a file and is taken as it is.

    Where training differs from the usual (other labels, attacked or noisy inputs, no epochs), it begins anew all the
    same: the file's weights are for the usual.
    """

    data: Data
    network: str  # of models.MODELS, or "path/to/module.py:factory", "package.module:factory"
    weights: str | None = None
    width: int | None = None
    epochs: int
    batch_size: int = 64
    lr: float = 2e-3
    weight_decay: float = 5e-5
    precision: str = "float32"
    augment: str | None = None
    label_noise: float = 0.0  # share of the training labels that is drawn anew
    adversarial: float = 0.0  # radius (L∞) of the attacks that it is trained on; 0: none
    noise: float = 0.0  # standard deviation of the noise that it is trained on
    seed: int = 0

    @property
    def origin(self):
        return self

    def chosen(self):
        own = [models.MODELS[self.network][0]] if self.network in models.MODELS else []
        return (*own, *([TRAINING["adversarial"]] if self.adversarial else []))

    def columns(self):
        return {
            "task": "clean", "network": self.network, "width": self.width or 0, "epochs": self.epochs,
            "criterion": None, "when": None, "structured": False, "sparsity": 0.0, "seed": self.seed,
            "classes": len(pools(self.data.name, self.data.held_out)[0].classes),
        }  # fmt: skip

    def samples(self):
        """Return the training Samples, with the labels that it is trained on."""
        train = inliers(self.data, "train")
        if not self.label_noise:
            return train
        rng = seeds.generator(self.seed, "label noise")
        noisy = torch.rand(len(train), generator=rng) < self.label_noise
        drawn = torch.randint(len(train.classes), (len(train),), generator=rng)
        return data.Samples(train.x, torch.where(noisy, drawn, train.y), train.classes, train.name)

    def options(self):
        """Return what `training.fit` is told beside the usual; pruned networks are trained on in the same way."""
        adversarial = TRAINING["adversarial"](self.adversarial) if self.adversarial else None
        return {
            "batch_size": self.batch_size, "weight_decay": self.weight_decay, "adversarial": adversarial,
            "noise": self.noise or None, "precision": self.precision, "augment": self.augment, "progress": False,
        }  # fmt: skip

    def initial(self):
        """Return the network before training. A factory gets those of the arguments of `models.build` that it names."""
        train = inliers(self.data, "train")
        shape: dict[str, Any] = {
            "in_channels": train.x.shape[1], "num_classes": len(train.classes), "image_size": train.x.shape[2],
            "width": self.width, "mean": train.x.mean((0, 2, 3)).tolist(), "std": train.x.std((0, 2, 3)).tolist(),
        }  # fmt: skip
        if self.network in models.MODELS:
            return models.build(self.network, **shape, seed=self.seed).to(project.device())
        named = inspect.signature(models.factory(self.network)).parameters
        if self.width and "width" not in named:
            raise ValueError(f"width must be 0 for {self.network!r}, whose factory takes none, got {self.width}")
        net = models.load(self.network, seed=self.seed, **{key: shape[key] for key in shape if key in named})
        return models.answers(net, train.x.shape[1:], len(train.classes)).to(project.device())

    def compute(self, load):
        net = self.initial()
        if self.weights and self.epochs and not (self.label_noise or self.adversarial or self.noise):
            models.fill(net, self.weights)
        else:
            training.fit(net, self.samples(), epochs=self.epochs, lr=self.lr, seed=self.seed, **self.options())
        return self._rows(net), net


class Derived(NetworkStep, frozen=True):
    """A network made from another, or from the recipe of another."""

    @property
    def data(self):
        return self.origin.data

    @property
    def seed(self):
        return self.origin.seed


class Pruned(Derived, frozen=True):
    """A sparse network, trained under its mask; see `schedules.train_sparse` for `when`.

    `dense` is the recipe of its training; with when="after" it is also the network that is pruned. Of sparsity 0 it is
    the control: unpruned, and trained in the same phases.
    """

    dense: Trained
    criterion: str
    structured: bool = False
    scope: str = "global"
    sparsity: float
    when: str = "after"
    rounds: int | None = None  # with training between them, where it is pruned after training; None: the criterion's
    epochs: int
    lr: float = 1e-3

    @property
    def origin(self):
        return self.dense

    def inputs(self):
        return (self.dense,) if self.when == "after" else ()

    def chosen(self):
        return (criteria.CRITERIA[self.criterion], *self.dense.chosen())

    def columns(self):
        how = {"criterion": self.criterion, "when": self.when, "structured": self.structured}
        return {**self.dense.columns(), **(how if self.sparsity else {}), "sparsity": self.sparsity}

    def compute(self, load):
        dense, train = self.dense, self.dense.samples()
        cut = {
            "structured": self.structured, "scope": self.scope, "rounds": self.rounds, "seed": dense.seed,
            **dense.options(),
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
        return [*self._rows(net), row("achieved", pruning.sparsity(net))], net


class Learnt(Derived, frozen=True):
    """A network in which something was learnt over the weights of `dense`, which stay as they are."""

    dense: Trained

    @property
    def origin(self):
        return self.dense

    def inputs(self):
        return (self.dense,)

    def chosen(self):
        return self.dense.chosen()

    def options(self):
        """Return how it is learnt: in batches and precision as the dense network was."""
        how = {"batch_size": self.dense.batch_size, "precision": self.dense.precision}
        return {**how, "seed": self.seed, "progress": False}


class Masked(Learnt, frozen=True):
    """A subnetwork of the dense network by a learnt mask, never trained: see `subnetworks.search`.

    With epochs=0 the mask is not learnt: the largest weights stay (init "hydra"), or random ones ("edge-popup").
    """

    sparsity: float
    objective: str = "clean"
    eps: float = 0.1
    noise: float = 1.0
    outliers: str | None = None  # a kind of synthetic outliers, taken from the training half of each kind
    epochs: int
    lr: float = 3e-3
    scope: str = "layer"
    init: str = "hydra"
    batch_norm: str = "frozen"

    def chosen(self):
        return (*([data.SYNTHETIC[self.outliers]] if self.outliers else []), *self.dense.chosen())

    def columns(self):
        return {**self.dense.columns(), "when": "mask", "sparsity": self.sparsity}

    def compute(self, load):
        train = inliers(self.data, "train")
        outliers = self.outliers and data.outliers(self.outliers, train, seed=self.seed, split="train")
        net = subnetworks.search(
            load(self.dense), train, self.sparsity, objective=self.objective, outliers=outliers or None, eps=self.eps,
            noise=self.noise, epochs=self.epochs, lr=self.lr, scope=self.scope, init=self.init,
            batch_norm=self.batch_norm, **self.options(),
        )  # fmt: skip
        return [*self._rows(net), row("achieved", pruning.sparsity(net))], net


class Refitted(Learnt, frozen=True):
    """The dense network with the scales and shifts of its batch-norm learnt for an objective: a control of masks.

    See `subnetworks.fit_batch_norm`; the weights and the statistics are those of the dense network.
    """

    objective: str
    eps: float = 0.1
    epochs: int
    lr: float = 3e-3

    def columns(self):
        return {**self.dense.columns(), "when": "refitted"}

    def compute(self, load):
        net = subnetworks.fit_batch_norm(
            load(self.dense), inliers(self.data, "train"), objective=self.objective, eps=self.eps, epochs=self.epochs,
            lr=self.lr, **self.options(),
        )  # fmt: skip
        return self._rows(net), net


class Shrunk(Derived, frozen=True):
    """The physically smaller network that computes what a structurally pruned one does."""

    pruned: Pruned

    @property
    def origin(self):
        return self.pruned.dense

    def inputs(self):
        return (self.pruned,)

    def chosen(self):
        return self.origin.chosen()

    def columns(self):
        return self.pruned.columns()

    def compute(self, load):
        net = pruning.shrink(load(self.pruned))
        return self._rows(net), net


class Scratch(Derived, frozen=True):
    """A network of the shape of a shrunk one, trained from new weights for as long as that was: the control."""

    shrunk: Shrunk

    @property
    def origin(self):
        return self.shrunk.origin

    def inputs(self):
        return (self.shrunk,)

    def chosen(self):
        return self.origin.chosen()

    def columns(self):
        return {**self.shrunk.columns(), "criterion": None, "when": "scratch"}

    def compute(self, load):
        dense, net = self.origin, masks.bare(load(self.shrunk))
        with seeds.isolated(self.seed, "scratch"):
            for module in net.modules():
                getattr(module, "reset_parameters", lambda: None)()
        epochs = dense.epochs + self.shrunk.pruned.epochs
        training.fit(net, dense.samples(), epochs=epochs, lr=dense.lr, seed=self.seed, **dense.options())
        return self._rows(net), net


Network = Trained | Pruned | Masked | Refitted | Shrunk | Scratch
