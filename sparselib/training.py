"""Supervised training and accuracy."""

import time
from dataclasses import dataclass, field

import torch
from torch import nn
from tqdm import tqdm

from sparselib import checks, seeds
from sparselib.models import device_of, evaluating, keeping_modes
from sparselib.robustness import objectives


@dataclass
class History:
    """One entry per epoch: mean training loss, training accuracy in [0, 1]; and the seconds of the whole run."""

    loss: list = field(default_factory=list)
    accuracy: list = field(default_factory=list)
    seconds: float = 0.0


def fit(
    model, train, *, epochs, batch_size=64, lr=2e-3, weight_decay=5e-5, adversarial=None, noise=None, seed=0,
    after_epoch=None, progress=True,
):  # fmt: skip
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
    if noise is not None:
        checks.number("noise", noise, 0)
    if adversarial is not None and not callable(adversarial):
        raise TypeError(f"adversarial must be an objectives.Adversarial or None, got {adversarial!r}")
    objective = adversarial or objectives.clean
    if not len(train):
        raise ValueError("train must not be empty")
    device = device_of(model)
    x, y = checks.images(train.x, name="train.x").to(device), train.y.to(device)
    checks.labels(y, x, name="train.y")
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    batches = -(-len(x) // batch_size)
    steps = max(epochs * batches, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _one_cycle(step / steps))
    order = seeds.generator(seed, "order")
    history, started = History(), time.perf_counter()
    step = 0
    with seeds.isolated(seed, "training"), keeping_modes(model):
        model.train()
        for epoch in tqdm(range(epochs), desc="training", unit="epoch", disable=not progress, leave=False):
            total_loss = torch.zeros((), device=device)
            correct = torch.zeros((), device=device)
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


def logits(model, x, *, batch_size=512):
    """Return the model's logits (N, K) for x (N, C, H, W), in eval mode, without gradients."""
    checks.integer("batch_size", batch_size, low=1)
    with evaluating(model), torch.no_grad():
        # An empty batch goes through once, so that the result has the right number of columns.
        parts = [checks.logits(model(part), part) for part in x.split(batch_size)]
    return torch.cat(parts)


def accuracy(model, samples, *, batch_size=512):
    """Return the fraction in [0, 1] of the samples whose largest logit is at their label. Empty: ValueError."""
    if not len(samples):
        raise ValueError("accuracy of an empty set of samples")
    device = device_of(model)
    x, y = checks.images(samples.x, name="samples.x").to(device), samples.y.to(device)
    return (logits(model, x, batch_size=batch_size).argmax(1) == y).double().mean().item()


def restate_batch_norm(model, samples, *, batch_size=512):
    """Measure the batch-norm statistics anew on `samples`, in place, and change nothing else.

    A network that lost weights without training carries the statistics of the one it came from. Averages over the
    batches are plain, not moving. Modes are given back as found.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    try:
        with keeping_modes(model), torch.no_grad():
            model.eval()
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None
                layer.train()
            for part in samples.x.split(batch_size):
                if len(part) > 1 or len(samples) == 1:
                    model(part.to(device_of(model)))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
