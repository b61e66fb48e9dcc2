"""Supervised training and accuracy."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn
from tqdm import tqdm

from sparselib import checks, seeds
from sparselib.data import Samples
from sparselib.models import batch_norms, device_of, evaluating, keeping_modes
from sparselib.robustness import objectives


@dataclass
class History:
    """One entry per epoch: mean training loss, training accuracy in [0, 1]; and the seconds of the whole run."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    seconds: float = 0.0


def fit(
    model: nn.Module, train: Samples, *, epochs: int, batch_size: int = 64, lr: float = 2e-3,
    weight_decay: float = 5e-5, adversarial: objectives.Objective | None = None, noise: float | None = None,
    seed: int = 0, after_epoch: Callable[[nn.Module, int], object] | None = None, progress: bool = True,
) -> History:  # fmt: skip
    """Train the model in place with Adam, cross-entropy and a one-cycle learning rate; return its History.

    Args:
        model: from (N, C, H, W) to logits. Masks stay enforced; its modes are given back as found.
        train: Samples, moved to the model's device.
        epochs: at least 0. batch_size: at least 1; a last batch of one sample is dropped (batch-norm).
        lr: the peak of the cycle, reached after a quarter of the steps.
        adversarial: an `objectives.Adversarial`, to train on attacked inputs; or None.
        noise: standard deviation of Gaussian noise added to every input, or None.
        seed: of the order of the samples, dropout and noise; torch's global random state is left as found.
        after_epoch: called as after_epoch(model, epochs done) after each epoch; it may set masks.
        progress: show a bar with the time left.
    Raises: ValueError for arguments out of range; FloatingPointError, naming the epoch, when the loss is not finite.
    """
    checks.integer("epochs", epochs, low=0)
    checks.integer("batch_size", batch_size, low=1)
    checks.number("lr", lr, 0, low_open=True)
    checks.number("weight_decay", weight_decay, 0)
    checks.number("noise", 0.0 if noise is None else noise, 0)
    if adversarial is not None and not callable(adversarial):
        raise TypeError(f"adversarial must be an objectives.Adversarial or None, got {adversarial!r}")
    if not len(train):
        raise ValueError("train must not be empty")
    device = device_of(model)
    x, y = checks.images(train.x, name="train.x").to(device), train.y.to(device)
    checks.labels(y, x, name="train.y")
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    steps = max(epochs * -(-len(x) // batch_size), 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _one_cycle(step / steps))
    history, started = History(), time.perf_counter()
    order, step, objective = seeds.generator(seed, "order"), 0, adversarial or objectives.clean
    with seeds.isolated(seed, "training"), keeping_modes(model):
        model.train()
        for epoch in tqdm(range(epochs), desc="training", unit="epoch", disable=not progress, leave=False):
            total_loss, correct = torch.zeros(2, device=device)
            for index in torch.randperm(len(x), generator=order).split(batch_size):
                if len(index) == 1 and len(x) > 1:
                    continue
                xb, yb = x[index], y[index]
                if noise:
                    xb = xb + noise * torch.randn_like(xb)
                loss, logits = objective(model, xb, yb, seed=seeds.derive(seed, "batch", step))  # (), (B, K)
                step += 1
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total_loss += loss.detach() * len(index)
                correct += (logits.detach().argmax(1) == yb).sum()
            if not torch.isfinite(total_loss):
                raise FloatingPointError(f"training loss is not finite in epoch {epoch}; lower lr (now {lr:g})")
            history.loss.append(total_loss.item() / len(x))
            history.accuracy.append(correct.item() / len(x))
            if after_epoch is not None:
                after_epoch(model, epoch + 1)
    optimizer.zero_grad()  # leave no gradients behind
    history.seconds = time.perf_counter() - started
    return history


def _one_cycle(done):
    """Learning rate as a fraction of its peak, when the fraction `done` of the steps is done: up, then down to 0."""
    return min(done / 0.25, (1 - done) / 0.75) if done else 1e-3


def logits(model: nn.Module, x: torch.Tensor, *, batch_size: int = 512) -> torch.Tensor:
    """Return the model's logits (N, K) for x (N, C, H, W), in eval mode, without gradients."""
    checks.integer("batch_size", batch_size, low=1)
    with evaluating(model), torch.no_grad():
        # An empty batch goes through once, so that the result has the right number of columns.
        parts = [checks.logits(model(part), part) for part in x.split(batch_size)]
    return torch.cat(parts)


def accuracy(model: nn.Module, samples: Samples, *, batch_size: int = 512) -> float:
    """Return the fraction in [0, 1] of the samples whose largest logit is at their label. Empty: ValueError."""
    if not len(samples):
        raise ValueError("accuracy of an empty set of samples")
    x = checks.images(samples.x, name="samples.x").to(device_of(model))
    return (logits(model, x, batch_size=batch_size).argmax(1) == samples.y.to(x.device)).double().mean().item()


def restate_batch_norm(model: nn.Module, samples: Samples, *, batch_size: int = 512) -> None:
    """Measure the batch-norm statistics anew on `samples`, in place, and change nothing else.

    A network that lost weights without training carries the statistics of the one it came from. Batches are averaged
    plainly, without momentum. Modes are given back as found.
    """
    momenta = [(layer, layer.momentum) for layer in batch_norms(model)]
    try:
        with keeping_modes(model), torch.no_grad():
            model.eval()
            for layer, _ in momenta:
                layer.reset_running_stats()
                layer.momentum = None
                layer.train()
            for part in samples.x.split(batch_size):
                if len(part) > 1 or len(samples) == 1:
                    model(part.to(device_of(model)))
    finally:
        for layer, momentum in momenta:
            layer.momentum = momentum
