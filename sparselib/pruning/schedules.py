"""When to prune: before, during or after training, at once or in rounds."""

import copy
import math

import torch

from sparselib import checks, data, pruning, seeds, training
from sparselib.pruning import masks

WHEN = ("before", "early", "gradual", "after", "tickets")


def train_sparse(
    model, train, criterion, sparsity, *, when="after", structured=False, scope="global", rounds=1, epochs=20,
    finetune_epochs=10, batch_size=64, lr=2e-3, finetune_lr=1e-3, limit=0.5, scored=512, seed=0, progress=True,
    **options,
):  # fmt: skip
    """Return a trained sparse network; the model, at its initial weights, is left untouched.

    when:
        "before": prune at initialisation, then train (SNIP, GraSP, SynFlow).
        "early": train; prune as soon as the weights have settled (see `settled`), at the latest when
            finetune_epochs are left; train on (EarlyCroP).
        "gradual": train; after each epoch of the middle half prune a little more (Zhu & Gupta 2017,
            https://arxiv.org/abs/1710.01878: the sparsity rises as 1 − (1 − t)³).
        "after": train, prune, train on at the lower rate.
        "tickets": train, prune, and give the survivors their initial weights back, again and again, about a fifth of
            them a round; then train (Frankle & Carbin 2019, https://arxiv.org/abs/1803.03635).
    All train for epochs + finetune_epochs; "tickets" for `epochs` more in every round.

    Args:
        criterion, sparsity, structured, scope: as in `pruning.prune`. rounds: of "before", "early" and "after", each
            with its own scoring.
        limit: of "early", in [0, 1): the higher, the later. scored: how many inputs the criterion is measured on,
            equally many of each class.
        options: handed to every `training.fit`: weight_decay, adversarial, noise.
    """
    checks.choice("when", when, WHEN)
    checks.number("sparsity", sparsity, 0, 1, high_open=True)
    checks.integer("epochs", epochs, low=1)
    checks.integer("finetune_epochs", finetune_epochs, low=0)
    checks.number("limit", limit, 0, 1, high_open=True)
    cut = {"structured": structured, "scope": scope, "seed": seed}
    fit = {"batch_size": batch_size, "progress": progress, **options}
    few = data.balanced(train, scored, seed=seed)
    few = few.x.to(next(model.parameters()).device), few.y.to(next(model.parameters()).device)
    total = epochs + finetune_epochs
    net = copy.deepcopy(model)

    if when == "after":
        training.fit(net, train, epochs=epochs, lr=lr, seed=seed, **fit)
        return finetuned(
            net, train, criterion, sparsity, rounds=rounds, epochs=finetune_epochs, lr=finetune_lr, scored=scored,
            **cut, **fit,
        )  # fmt: skip
    if when == "before":
        net = pruning.prune(net, criterion, sparsity, *few, rounds=rounds, **cut)
        training.fit(net, train, epochs=total, lr=lr, seed=seed, **fit)
    elif when == "early":
        watch = _Early(
            net, limit, epochs, lambda m: pruning.step_to(m, criterion, sparsity, *few, rounds=rounds, **cut)
        )
        training.fit(net, train, epochs=total, lr=lr, seed=seed, after_epoch=watch, **fit)
    elif when == "gradual":

        def prune_more(model, done):
            part = (done - total / 4) / (total / 2)
            if 0 < part < 1 + 2 / total:  # the last of them at part 1 or just past it
                part = min(part, 1.0)
                pruning.step(model, criterion, sparsity * (1 - (1 - part) ** 3), *few, **cut)

        training.fit(net, train, epochs=total, lr=lr, seed=seed, after_epoch=prune_more, **fit)
    else:
        net = _ticket(model, train, criterion, sparsity, few, cut, {**fit, "epochs": epochs, "lr": lr, "seed": seed})
        training.fit(net, train, epochs=total, lr=lr, seed=seed, **fit)
    return net


def finetuned(
    dense, train, criterion, sparsity, *, structured=False, scope="global", rounds=1, epochs=10, batch_size=64,
    lr=1e-3, scored=512, seed=0, progress=True, **options,
):  # fmt: skip
    """Return the trained network `dense` pruned and trained on, in equal parts after each of `rounds` cuts.

    Arguments as `train_sparse`.
    """
    few = data.balanced(train, scored, seed=seed)
    device = next(dense.parameters()).device
    net = copy.deepcopy(dense)
    for k in range(1, rounds + 1):
        density = (1 - sparsity) ** (k / rounds)
        pruning.step(
            net, criterion, 1 - density, few.x.to(device), few.y.to(device), structured=structured, scope=scope,
            seed=seeds.derive(seed, "round", k),
        )  # fmt: skip
        part = epochs * k // rounds - epochs * (k - 1) // rounds
        training.fit(
            net, train, epochs=part, batch_size=batch_size, lr=lr, seed=seeds.derive(seed, "fine-tuning", k),
            progress=progress, **options,
        )  # fmt: skip
    return net


def settled(distances, limit):
    """Return whether training has left its steep start: d_t − d_{t−1} < d₁·(1 − limit).

    `distances`: d_t = ‖θ₀ − θ_t‖ / ‖θ₀‖ after epochs 1 … t. Rachwan et al. 2022, https://arxiv.org/abs/2206.10451.
    """
    return len(distances) > 1 and distances[-1] - distances[-2] < distances[0] * (1 - limit)


def ticket_rounds(sparsity):
    """Return how many rounds of a fifth of the survivors each it takes to get to the sparsity, 0 for 0."""
    return max(1, math.ceil(math.log(1 - sparsity) / math.log(0.8))) if sparsity else 0


class _Early:
    """After each epoch: has the network settled, or is it time? Then prune it, once."""

    def __init__(self, net, limit, latest, prune):
        self.start = self._vector(net)
        self.limit, self.latest, self.prune, self.distances, self.done = limit, latest, prune, [], False

    def __call__(self, model, epoch):
        if self.done:
            return
        self.distances.append(((self._vector(model) - self.start).norm() / self.start.norm()).item())
        if settled(self.distances, self.limit) or epoch >= self.latest:
            self.prune(model)
            self.done = True

    @staticmethod
    def _vector(model):
        return torch.cat([layer.weight.detach().flatten() for layer in masks.prunable(model).values()])


def _ticket(model, train, criterion, sparsity, few, cut, fit):
    """Return the model at its initial weights under the mask that iterative pruning leaves."""
    rounds = ticket_rounds(sparsity)
    ticket = copy.deepcopy(model)
    for k in range(1, rounds + 1):
        trained = copy.deepcopy(ticket)
        training.fit(trained, train, **fit)
        pruning.step(trained, criterion, 1 - (1 - sparsity) ** (k / rounds), *few, **cut)
        for name, layer in masks.prunable(ticket).items():
            masks.set_mask(layer, masks.mask_of(masks.prunable(trained)[name]))
    return ticket
