"""When to prune: before, during or after training, at once or in rounds."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from sparselib import checks, data, pruning, seeds, training
from sparselib.models import device_of
from sparselib.pruning import criteria, masks, weights

WHEN = ("before", "early", "gradual", "after", "tickets")


@checks.typed
def train_sparse(
    model: nn.Module, train: data.Samples, criterion: str, sparsity: float, *, when: str = "after",
    structured: bool = False, scope: str = "global", rounds: int | None = None, epochs: int = 20,
    finetune_epochs: int = 10, batch_size: int = 64, lr: float = 2e-3, finetune_lr: float = 1e-3, limit: float = 0.5,
    rewind: int = 0, scored: int = 512, seed: int = 0, progress: bool = True, **options: Any,
) -> nn.Module:  # fmt: skip
    """Return a trained sparse network; the model, at its initial weights, is left untouched.

    when:
        "before": prune at initialisation, then train (SNIP, GraSP, SynFlow).
        "early": train; prune once the weights have `settled`, at the latest with finetune_epochs left (EarlyCroP).
        "gradual": train; after each epoch of the middle half prune a little more (Zhu & Gupta 2017,
            https://arxiv.org/abs/1710.01878: the sparsity rises as 1 − (1 − t)³).
        "after": train, prune, train on at the lower rate.
        "tickets": train, prune about a fifth, give the survivors back the weights that they had after `rewind` epochs,
            again and again; then train (Frankle & Carbin 2019, https://arxiv.org/abs/1803.03635).
    Every result has been trained for epochs + finetune_epochs, counted from its initial weights. "tickets" costs more:
    before, each of its r = `ticket_rounds(sparsity)` rounds trains for `epochs`, but for the `rewind` that a round
    begins after. Together r·epochs + epochs + finetune_epochs − r·rewind.

    Args:
        criterion, sparsity, structured, scope: as in `pruning.prune`.
        rounds: of "before" and "early", the scorings of the one cut, as in `pruning.prune`, where SNIP and CroP become
            iterative (SNIP-it, CroP-it); of "after", the cuts with training in between, as in `finetuned`. Default: as
            there. "gradual" and "tickets" have their own cuts. Each of several cuts is made in the criterion's own
            rounds: by "synflow" in 100.
        limit: of "early", in [0, 1): the higher, the later. scored: inputs that the criterion is measured on, equally
            many of each class.
        rewind: of "tickets", in [0, epochs): 0 gives the initial weights back; on residual networks an early epoch
            finds better ones (Frankle et al. 2020, https://arxiv.org/abs/1912.05671). It is an epoch of the first
            training, with its learning rates; what follows a rewind has a cycle of its own.
        options: handed to every `training.fit`: weight_decay, adversarial, noise.
    Raises: ValueError/TypeError for arguments out of range.
    """
    checks.choice("when", when, WHEN)
    checks.integer("epochs", epochs, low=1)
    checks.integer("finetune_epochs", finetune_epochs, low=0)
    checks.number("finetune_lr", finetune_lr, 0, low_open=True)
    checks.number("limit", limit, 0, 1, high_open=True)
    checks.integer("rewind", rewind, low=0, high=epochs - 1)
    if rewind and when != "tickets":
        raise ValueError(f"rewind is for when='tickets', got {rewind} for {when!r}")
    _check(train, criterion, sparsity, scope, rounds, batch_size, lr)
    cut = {"structured": structured, "scope": scope, "seed": seed}
    fit = {"batch_size": batch_size, "seed": seed, "progress": progress, **options}
    few, total, net, watch = _few(model, train, scored, seed), epochs + finetune_epochs, copy.deepcopy(model), None

    def prune_more(model, done):
        part = (done - total / 4) / (total / 2)
        if 0 < part < 1 + 2 / total:  # the last of them at part 1 or just past it
            pruning.step_to(model, criterion, sparsity * (1 - (1 - min(part, 1.0)) ** 3), *few, **cut)

    if when == "after":
        training.fit(net, train, epochs=epochs, lr=lr, **fit)
        fit |= {"rounds": rounds, "epochs": finetune_epochs, "lr": finetune_lr, "scored": scored}
        return finetuned(net, train, criterion, sparsity, structured=structured, scope=scope, **fit)
    if when == "before":
        net = pruning.prune(net, criterion, sparsity, *few, rounds=rounds, **cut)
    elif when == "early":
        watch = Early(net, limit, epochs, lambda m: pruning.step_to(m, criterion, sparsity, *few, rounds=rounds, **cut))
    elif when == "gradual":
        watch = prune_more
    else:
        net, rewound = _ticket(model, train, criterion, sparsity, few, cut, epochs, rewind, {"lr": lr, **fit})
        total -= rewound
    training.fit(net, train, epochs=total, lr=lr, after_epoch=watch, **fit)
    return net


@checks.typed
def finetuned(
    dense: nn.Module, train: data.Samples, criterion: str, sparsity: float, *, structured: bool = False,
    scope: str = "global", rounds: int | None = None, epochs: int = 10, batch_size: int = 64, lr: float = 1e-3,
    scored: int = 512, seed: int = 0, progress: bool = True, **options: Any,
) -> nn.Module:  # fmt: skip
    """Return the trained network `dense` pruned and trained on, for `epochs` together.

    Args:
        rounds: cuts, each followed by its part of the epochs; default one. Each cut is made in the criterion's own
            rounds of scoring without training in between, by "synflow" in 100.
    Other arguments as `train_sparse`.
    """
    checks.integer("epochs", epochs, low=0)
    _check(train, criterion, sparsity, scope, rounds, batch_size, lr)
    few, net, rounds = _few(dense, train, scored, seed), copy.deepcopy(dense), 1 if rounds is None else rounds
    cut = {"structured": structured, "scope": scope}
    fit = {"batch_size": batch_size, "lr": lr, "progress": progress, **options}
    for k in range(1, rounds + 1):
        density = (1 - sparsity) ** (k / rounds)
        pruning.step_to(net, criterion, 1 - density, *few, seed=seeds.derive(seed, "round", k), **cut)
        part = epochs * k // rounds - epochs * (k - 1) // rounds
        training.fit(net, train, epochs=part, seed=seeds.derive(seed, "fine-tuning", k), **fit)
    return net


def _check(train, criterion, sparsity, scope, rounds, batch_size, lr):
    """Check what would else be told only after hours of training."""
    if not len(train):
        raise ValueError("train must not be empty")
    checks.choice("criterion", criterion, criteria.CRITERIA)
    checks.number("sparsity", sparsity, 0, 1, high_open=True)
    checks.choice("scope", scope, weights.SCOPES)
    weights.rounds_of(criterion, rounds)
    checks.integer("batch_size", batch_size, low=1)
    checks.number("lr", lr, 0, low_open=True)


def _few(model, train, scored, seed):
    """Return the x and y that the criterion is measured on, where the model is."""
    few = data.balanced(train, checks.integer("scored", scored, low=1), seed=seed)
    return few.x.to(device_of(model)), few.y.to(device_of(model))


def settled(distances: Sequence[float], limit: float) -> bool:
    """Return whether training has left its steep start: d_t − d_{t−1} < d₁·(1 − limit).

    `distances`: d_t = ‖θ₀ − θ_t‖ / ‖θ₀‖ after epochs 1 … t. Rachwan et al. 2022, https://arxiv.org/abs/2206.10451.
    """
    return len(distances) > 1 and distances[-1] - distances[-2] < distances[0] * (1 - limit)


def ticket_rounds(sparsity: float) -> int:
    """Return how many rounds of a fifth of the survivors each it takes to get to the sparsity, 0 for 0."""
    return max(1, math.ceil(math.log(1 - sparsity) / math.log(0.8))) if sparsity else 0


class Early:
    """After each epoch: has the network settled, or is it the epoch `latest`? Then prune it, once."""

    def __init__(self, net: nn.Module, limit: float, latest: int, prune: Callable[[nn.Module], object]) -> None:
        self.start = self._vector(net)
        self.limit, self.latest, self.prune, self.done = limit, latest, prune, False
        self.distances: list[float] = []

    def __call__(self, model: nn.Module, epoch: int) -> None:
        if self.done:
            return
        self.distances.append(((self._vector(model) - self.start).norm() / self.start.norm()).item())
        if settled(self.distances, self.limit) or epoch >= self.latest:
            self.prune(model)
            self.done = True

    @staticmethod
    def _vector(model):
        return torch.cat([layer.weight.detach().flatten() for layer in masks.distinct(model).values()])


def _ticket(model, train, criterion, sparsity, few, cut, epochs, rewind, fit):
    """Return the network that the last training starts from, masked, and how many epochs it has behind it."""
    rounds, ticket = ticket_rounds(sparsity), copy.deepcopy(model)

    def keep(model, done):
        if done == rewind:
            ticket.load_state_dict(model.state_dict())

    for k in range(1, rounds + 1):
        trained, first = copy.deepcopy(ticket), k == 1
        rest = epochs if first else epochs - rewind
        training.fit(trained, train, epochs=rest, after_epoch=keep if first else None, **fit)
        pruning.step_to(trained, criterion, 1 - (1 - sparsity) ** (k / rounds), *few, **cut)
        left = {name: masks.mask_of(layer) for name, layer in masks.distinct(trained).items()}
        masks.set_masks(ticket, {name: mask for name, mask in left.items() if mask is not None})
    return ticket, rewind if rounds else 0
