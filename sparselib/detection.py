"""What all anomaly detectors share: one interface, and what they read off a network."""

import torch
from torch import nn

from sparselib import checks, training
from sparselib.models import device_of


class Detector:
    """A score of how anomalous an input looks to a classifier. Subclasses give `_score`, and `_fit` where needed."""

    needs_train = False
    model = None
    shape = None  # (C, H, W) of the inputs, where it is known

    def fit(self, model, train=None):
        """Attach the model; measure on `train` (Samples with labels) what the method needs from it. Returns self.

        Raises ValueError when the method needs training data and gets none.
        """
        if self.needs_train and (train is None or not len(train)):
            raise ValueError(f"{type(self).__name__} needs training data to fit, got none")
        self.model = None
        if self.needs_train:
            x = checks.images(train.x, name="train.x").to(device_of(model))
            y = checks.labels(train.y.to(x.device), x, name="train.y")
            self._fit(model, x, y)
        self.model = model
        spec = getattr(model, "spec", None)
        if train is not None and len(train):
            self.shape = tuple(train.x.shape[1:])
        else:
            self.shape = spec and (spec["in_channels"], spec["image_size"], spec["image_size"])
        return self

    def score(self, x):
        """Return the anomaly score (N,) of each input (N, C, H, W); higher = more anomalous.

        In eval mode, whatever mode the model is in. Raises RuntimeError before `fit`, ValueError for inputs or scores
        that are not finite.
        """
        if self.model is None:
            raise RuntimeError(f"{type(self).__name__} must be fitted before it scores: call fit(model) first")
        checks.images(x)
        if self.shape and tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x must have shape (N, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        if x.device != device_of(self.model):
            raise ValueError(f"x must be on the device of the model, {device_of(self.model)}, got {x.device}")
        if not len(x):
            return x.new_zeros(0)
        scores = self._score(x).detach()
        if not torch.isfinite(scores).all():
            raise ValueError(f"{type(self).__name__} gave scores that are not finite")
        return scores

    def _fit(self, model, x, y):
        raise NotImplementedError

    def _score(self, x):
        raise NotImplementedError


def head(model):
    """Return the model's last linear layer. Raises ValueError when it has none."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no linear layer to read features from")
    return layers[-1]


def features(model, x, *, batch_size=512, of=None):
    """Return the inputs of a layer of the model, the last linear one by default, (N, D) or (N, C, H, W)."""
    caught = []
    hook = (of or head(model)).register_forward_pre_hook(lambda layer, inputs: caught.append(inputs[0].detach()))
    try:
        training.logits(model, x, batch_size=batch_size)
    finally:
        hook.remove()
    return torch.cat(caught)


def maps(model, x):
    """Return the feature maps (N, C, H, W) that the model's last average pooling reads, else the features as 1×1."""
    pools = [m for m in model.modules() if isinstance(m, (nn.AdaptiveAvgPool2d, nn.AvgPool2d))]
    if pools:
        return features(model, x, of=pools[-1])
    return features(model, x)[:, :, None, None]
