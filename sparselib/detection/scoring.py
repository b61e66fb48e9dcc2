"""What all anomaly detectors share: one interface, and what they read off a network."""

from typing import Self

import torch
from torch import nn

from sparselib import checks, training
from sparselib.data import Samples
from sparselib.models import device_of, input_shape, on_device_of


class Detector:
    """A score of how anomalous an input looks to a classifier. Subclasses give `_score`, and `_fit` where needed."""

    needs_train: bool = False
    model: nn.Module | None = None
    shape: tuple[int, ...] | None = None  # (C, H, W) of the inputs, where it is known

    def fit(self, model: nn.Module, train: Samples | None = None) -> Self:
        """Attach the model; measure on `train` (Samples with labels) what the method needs from it. Returns self.

        Raises ValueError when the method needs training data and gets none.
        """
        train = train if train is not None and len(train) else None
        if self.needs_train:
            if train is None:
                raise ValueError(f"{type(self).__name__} needs training data to fit, got none")
            self.model = None
            x = checks.images(train.x, name="train.x").to(device_of(model))
            self._fit(model, x, checks.labels(train.y.to(x.device), x, name="train.y"))
        self.model = model
        self.shape = input_shape(model) if train is None else tuple(train.x.shape[1:])
        return self

    def score(self, x: torch.Tensor) -> torch.Tensor:
        """Return the anomaly score (N,) of each input (N, C, H, W); higher = more anomalous.

        In eval mode, whatever mode the model is in. Raises RuntimeError before `fit`, ValueError for inputs or scores
        that are not finite.
        """
        if self.model is None:
            raise RuntimeError(f"{type(self).__name__} must be fitted before it scores: call fit(model) first")
        checks.images(x)
        if self.shape and tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x must have shape (N, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        on_device_of(self.model, x)
        if not len(x):
            return x.new_zeros(0)
        scores = self._score(self.model, x).detach()
        if not torch.isfinite(scores).all():
            raise ValueError(f"{type(self).__name__} gave scores that are not finite")
        return scores

    def _fit(self, model, x, y):
        raise NotImplementedError

    def _score(self, model, x):
        raise NotImplementedError


def head(model: nn.Module) -> nn.Linear:
    """Return the model's last linear layer. Raises ValueError when it has none."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no linear layer to read features from")
    return layers[-1]


def features(model: nn.Module, x: torch.Tensor, *, batch_size: int = 512) -> torch.Tensor:
    """Return the inputs (N, D) of the model's last linear layer for x (N, C, H, W).

    Raises ValueError where that layer does not give the model's prediction (an ensemble, a layer declared out of
    order): what a score reads there would not be about the model.
    """
    caught, logits = _through(model, head(model), x, batch_size)
    if caught and caught[1].shape == logits.shape and _close(caught[1].softmax(1), logits.softmax(1)):
        return caught[0]
    raise ValueError(
        f"{type(model).__name__} does not end in its last linear layer, of shape {tuple(head(model).weight.shape)}:"
        " its features cannot be read"
    )


def maps(model: nn.Module, x: torch.Tensor, *, batch_size: int = 512) -> torch.Tensor:
    """Return the feature maps (N, D, H, W) whose spatial mean is the features, else the features as 1×1.

    They are sought at the last average pooling; where it is another one, or more layers follow, there are none.
    """
    h = features(model, x, batch_size=batch_size)
    pools = [m for m in model.modules() if isinstance(m, (nn.AdaptiveAvgPool2d, nn.AvgPool2d))]
    caught = _through(model, pools[-1], x, batch_size)[0] if pools else None
    if caught and caught[0].ndim == 4 and caught[0].shape[:2] == h.shape and _close(caught[0].mean((2, 3)), h):
        return caught[0]
    return h[:, :, None, None]


def _close(a, b):
    return torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def _through(model, layer, x, batch_size):
    """Return (what goes into one layer of the model, what comes out), None for a layer not used, and the logits."""
    caught = []
    with layer.register_forward_hook(lambda _, inputs, out: caught.append((inputs[0].detach(), out.detach()))):
        logits = training.logits(model, x, batch_size=batch_size)
    return tuple(torch.cat(parts) for parts in zip(*caught, strict=True)) or None, logits
