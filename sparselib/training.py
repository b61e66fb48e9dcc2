"""Supervised training and accuracy."""

import platform
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from sparselib import checks, seeds
from sparselib.data import Samples
from sparselib.models import batch_norms, device_of, evaluating, keeping_modes, on_device_of
from sparselib.robustness import objectives

Batches = Iterable[Any]  # of pairs (inputs (B, C, H, W), labels (B,)), such as a DataLoader
PRECISIONS = ("float32", "bfloat16")
AUGMENTATIONS = ("crop", "crop+flip")


@dataclass
class History:
    """One entry per epoch: the mean loss and the accuracy in [0, 1] of the samples trained on."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)


@checks.typed
def fit(
    model: nn.Module, train: Samples, *, epochs: int, batch_size: int = 64, lr: float = 2e-3,
    weight_decay: float = 5e-5, adversarial: objectives.Objective | None = None, noise: float | None = None,
    augment: str | None = None, precision: str = "float32", seed: int = 0,
    after_epoch: Callable[[nn.Module, int], object] | None = None, progress: bool = True,
) -> History:  # fmt: skip
    """Train the model in place with Adam, cross-entropy and a one-cycle learning rate; return its History.

    Args:
        model: from (N, C, H, W) to logits, float32 or float64. Masks stay enforced; its modes are given back as found.
        train: of the model's dtype, moved to its device.
        epochs: at least 0. batch_size: at least 1; with batch-norm, a last batch of one sample among larger ones is
            left out, and after linear layers, where one sample has no statistics, batches must have at least 2.
        lr: the peak of the cycle, reached after a quarter of the steps.
        adversarial: an `objectives.Adversarial`, to train on attacked inputs; or None.
        noise: standard deviation of Gaussian noise added to every input, or None.
        augment: "crop" or "crop+flip", see `augmented`, before attacks and noise; or None.
        precision: "float32", the model's own, or "bfloat16", of float32 models: forward passes, of attacks too, under
            autocast; weights, statistics, losses and optimiser stay float32. Warns and stays there without hardware.
        seed: of the samples' order, augmentation, dropout and noise; torch's global random state is left as found.
        after_epoch: called as after_epoch(model, epochs done) after each epoch; it may set masks.
        progress: show a bar with the time left.
    Convolutions' float32 weights lie channels last meanwhile, which is faster, and as they were found thereafter.
    Raises: ValueError for arguments out of range; FloatingPointError, naming the epoch, when the loss is not finite.
    """
    checks.integer("epochs", epochs, low=0)
    checks.integer("batch_size", batch_size, low=1)
    checks.number("lr", lr, 0, low_open=True)
    checks.number("weight_decay", weight_decay, 0)
    checks.number("noise", 0.0 if noise is None else noise, 0)
    if augment is not None:
        checks.choice("augment", augment, AUGMENTATIONS)
    for name, value in (("adversarial", adversarial), ("after_epoch", after_epoch)):
        if not (value is None or callable(value)):
            raise TypeError(f"{name} must be callable or None, got {value!r}")
    if not len(train):
        raise ValueError("train must not be empty")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("model must have parameters that require gradients, got none")
    device = device_of(model)
    x, y = checks.images(train.x, name="train.x", half=False).to(device), train.y.to(device)
    on_device_of(model, x, name="train.x")
    checks.labels(y, x, name="train.y", classes=logits(model, x[:1]).shape[1])
    precision = supported(precision, x)
    with keeping_modes(model):
        model.train()
        norms = [layer for layer in batch_norms(model) if layer.training]  # a network may hold its own still
    if min(batch_size, len(x)) == 1 and any(isinstance(layer, nn.BatchNorm1d) for layer in norms):
        what = "batch_size" if batch_size == 1 else "the size of train"
        raise ValueError(f"{what} must be at least 2 for batch-norm after linear layers, got 1")
    lone = norms and len(x) > batch_size > 1 and len(x) % batch_size == 1
    seen = len(x) - bool(lone)  # in each epoch
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    steps = max(epochs * -(-seen // batch_size), 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _one_cycle(step / steps))
    history, order, step = History(), seeds.generator(seed, "order"), 0
    objective, shifts = adversarial or objectives.clean, seeds.generator(seed, "augmentation")
    with seeds.isolated(seed, "training"), keeping_modes(model), computing(model, x[:1], precision) as (net, layout):
        model.train()
        for epoch in tqdm(range(epochs), desc="training", unit="epoch", disable=not progress, leave=False):
            total_loss, correct = torch.zeros(2, device=device)
            for index in torch.randperm(len(x), generator=order)[:seen].to(device).split(batch_size):
                xb, yb = x[index], y[index]
                if augment:
                    xb = augmented(xb, augment, shifts)
                if noise:
                    xb = xb + noise * torch.randn_like(xb)
                xb = xb.contiguous(memory_format=layout)
                loss, z = objective(net, xb, yb, seed=seeds.derive(seed, "batch", step))  # (), (B, K)
                step += 1
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total_loss += loss.detach() * len(index)
                correct += (z.detach().argmax(1) == yb).sum()
            if not torch.isfinite(total_loss):
                raise FloatingPointError(f"training loss is not finite in epoch {epoch}; lower lr (now {lr:g})")
            history.loss.append(total_loss.item() / seen)
            history.accuracy.append(correct.item() / seen)
            if after_epoch is not None:
                after_epoch(model, epoch + 1)
    optimizer.zero_grad()  # leave no gradients behind
    return history


def _one_cycle(done):
    """Learning rate as a fraction of its peak, when the fraction `done` of the steps is done: up, then down to 0."""
    return min(done / 0.25, (1 - done) / 0.75) if done else 1e-3


@checks.typed
def augmented(x: torch.Tensor, augment: str, rng: torch.Generator) -> torch.Tensor:
    """Return each image of x (N, C, H, W) moved by a random whole number of pixels in either direction.

    Up to an eighth of the side, rounded down: 4 pixels of 32, none below 8. What comes in at an edge is the image
    mirrored there: unlike zeros or repeated edges, it has the image's own contrast. "crop+flip" also mirrors each image
    left to right with probability 1/2. `rng`: a generator on the CPU, so that all devices see the same images.
    """
    checks.choice("augment", augment, AUGMENTATIONS)
    n, _, height, width = x.shape
    sources = []  # (N, H) and (N, W): the row and the column that each pixel comes from
    for side in (height, width):
        shift = torch.randint(-(side // 8), side // 8 + 1, (n, 1), generator=rng)
        at = (torch.arange(side) + shift).abs()
        sources.append(side - 1 - (side - 1 - at).abs())  # mirrored at both edges
    rows, columns = sources
    if augment == "crop+flip":
        columns = torch.where(torch.rand(n, 1, generator=rng) < 0.5, columns.flip(1), columns)
    source = (rows[:, :, None] * width + columns[:, None]).flatten(1)[:, None].to(x.device, non_blocking=True)
    return x.flatten(2).gather(2, source.expand(-1, x.shape[1], -1)).view(x.shape)


@checks.typed
def has_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Return whether the device computes in bfloat16 itself; emulated it would be slower than float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if platform.machine().lower() in ("aarch64", "arm64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    # Of torch's own questions the one above says yes to any AVX-512; where this one is not known, the answer is no.
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def supported(precision: str, x: torch.Tensor) -> str:
    """Return the precision in which networks can be trained on x: "float32", with a warning, where bfloat16 is not.

    Raises: ValueError for an unknown precision, and for "bfloat16" where x, and so the model, is not float32.
    """
    checks.choice("precision", precision, PRECISIONS)
    if precision == "bfloat16" and x.dtype != torch.float32:
        raise ValueError(f"precision must be 'float32', the model's own, for a model of {x.dtype}, got 'bfloat16'")
    if precision == "bfloat16" and not has_bfloat16(x.device):
        warnings.warn(f"no bfloat16 arithmetic on {x.device}: training in float32", stacklevel=4)
        return "float32"
    return precision


@contextmanager
def computing(model: nn.Module, x: torch.Tensor, precision: str) -> Iterator[tuple[nn.Module, torch.memory_format]]:
    """Yield the model as it is called in a precision (see `fit`) on inputs like x, and the layout that they take.

    Its float32 weights of four dimensions lie channels last meanwhile, where the model can run so.
    """
    low = precision == "bfloat16"
    with _channels_last(model, x, low) as layout:
        yield _InBfloat16(model) if low else model, layout


class _InBfloat16(nn.Module):
    """The model, its forward passes in bfloat16 where autocast has them so; from float32 to float32."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        with torch.autocast(x.device.type, torch.bfloat16):
            z = self.model(x)
        return z.float() if isinstance(z, torch.Tensor) else z


@contextmanager
def _channels_last(model, x, low) -> Iterator[torch.memory_format]:
    """Lay out weights (O, I, h, w) channels last for a block, as found thereafter; yield the layout for inputs.

    Not for networks that cannot run on x so, such as those that `view` features, nor where no gain was measured.
    """
    wanted = x.dtype == torch.float32 and (low or x.device.type == "cpu")
    found = [p for p in model.parameters() if wanted and p.ndim == 4 and p.is_contiguous()]

    def lay_out(layout):
        for parameter in found:
            parameter.data = parameter.data.contiguous(memory_format=layout)
        return layout

    try:
        layout = lay_out(torch.channels_last if found else torch.contiguous_format)
        try:
            with evaluating(model), torch.no_grad():
                model(x.contiguous(memory_format=layout))
        except RuntimeError:
            layout = lay_out(torch.contiguous_format)
        yield layout
    finally:
        lay_out(torch.contiguous_format)


@checks.typed
def logits(model: nn.Module, x: torch.Tensor | Batches, *, batch_size: int = 512) -> torch.Tensor:
    """Return the model's logits (N, K), in eval mode, without gradients, on the model's device.

    Args: x: (N, C, H, W), passed `batch_size` at a time; or batches, with or without labels, passed as they come.
    """
    with evaluating(model), torch.no_grad():
        parts = [checks.logits(model(part), part) for part, _ in _batches(model, "x", x, batch_size)]
    if not parts:
        raise ValueError("x must give at least one batch, got none")
    return torch.cat(parts)


@checks.typed
def accuracy(model: nn.Module, samples: Samples | Batches, *, batch_size: int = 512) -> float:
    """Return the fraction in [0, 1] of the samples whose largest logit is at their label.

    Args: samples: Samples, passed `batch_size` at a time, or batches with labels, passed as they come.
    Raises: ValueError for no samples, and for labels that are none of the model's classes.
    """
    right = total = 0
    with evaluating(model), torch.no_grad():
        for x, y in _batches(model, "samples", samples, batch_size):
            z = checks.logits(model(x), x)
            checks.labels(y, x, name="samples.y", classes=z.shape[1])
            right, total = right + int((z.argmax(1) == y).sum()), total + len(x)
    if not total:
        raise ValueError("samples must not be an empty set")
    return right / total


@checks.typed
def restate_batch_norm(model: nn.Module, samples: Samples | Batches, *, batch_size: int = 512) -> None:
    """Measure the batch-norm statistics anew on `samples`, in place, and change nothing else.

    A network that lost weights without training carries the statistics of the one it came from. Batches are averaged
    plainly, without momentum. One sample has no variance: of Samples at least 2 are passed at a time, and a batch of
    one is left out. `samples` are as for `accuracy`; labels are not needed.
    Raises: ValueError for samples that leave no batch, and for scripted networks, whose layers cannot be told apart.
    """
    checks.integer("batch_size", batch_size, low=1)
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ValueError("model must not be scripted: its batch-norm layers cannot be told from others")
    found = (x for x, _ in _batches(model, "samples", samples, max(2, batch_size)) if len(x) > 1)
    if (first := next(found, None)) is None:
        raise ValueError("samples must give at least one batch of 2 or more, got none")
    momenta = [(layer, layer.momentum) for layer in batch_norms(model)]
    try:
        with keeping_modes(model), torch.no_grad():
            model.eval()
            for layer, _ in momenta:
                layer.reset_running_stats()
                layer.momentum = None
                layer.train()
            for x in chain([first], found):
                model(x)
    finally:
        for layer, momentum in momenta:
            layer.momentum = momentum


def _batches(model, name, given, batch_size) -> Iterator[tuple[torch.Tensor, Any]]:
    """Yield (inputs, labels or None) on the model's device: a tensor or Samples in parts, batches as they come."""
    checks.integer("batch_size", batch_size, low=1)
    device, whole = device_of(model), torch.Tensor if name == "x" else Samples
    if isinstance(given, Samples) and whole is Samples:
        given = zip(given.x.split(batch_size), given.y.split(batch_size), strict=True)
    elif isinstance(given, torch.Tensor) and whole is torch.Tensor:
        given = given.split(batch_size)  # an empty tensor is one empty batch, which has the right number of columns
    elif isinstance(given, (torch.Tensor, np.ndarray, str)) or not isinstance(given, Iterable):
        got = type(given).__name__
        raise TypeError(f"{name} must be of type {whole.__name__} or an iterable of batches, got {got}")
    for part in given:
        pair: Any = part if isinstance(part, (tuple, list)) and len(part) == 2 else (part, None)
        x, y = checks.images(pair[0], name=name).to(device), pair[1]
        yield on_device_of(model, x, name=name), y.to(device) if isinstance(y, torch.Tensor) else y
