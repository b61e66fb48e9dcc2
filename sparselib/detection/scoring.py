"""What all anomaly detectors share: one interface, and what they read off a network."""

import torch
from torch import nn

from sparselib import checks, training
from sparselib.models import device_of, on_device_of


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
        on_device_of(self.model, x)
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


def features(model, x, *, batch_size=512):
    """Return the inputs (N, D) of the model's last linear layer.

    Raises ValueError where that layer does not give the model's prediction (an ensemble, a layer declared out of
    order): what a score reads there would not be about the model.
    """
    inputs, outputs, logits = _through(model, head(model), x, batch_size)
    same = outputs is not None and outputs.shape == logits.shape
    if not (same and torch.allclose(outputs.softmax(1), logits.softmax(1), rtol=1e-3, atol=1e-5)):
        raise ValueError(
            f"{type(model).__name__} does not end in its last linear layer, of shape {tuple(head(model).weight.shape)}:"
            " its features cannot be read"
        )
    return inputs


def maps(model, x, *, batch_size=512):
    """Return the feature maps (N, C, H, W) whose spatial mean is the features, else the features as 1×1.

    They are sought at the last average pooling; where it is another one, or more layers follow, there are none.
    """
    h = features(model, x, batch_size=batch_size)
    pools = [m for m in model.modules() if isinstance(m, (nn.AdaptiveAvgPool2d, nn.AvgPool2d))]
    if pools:
        found = _through(model, pools[-1], x, batch_size)[0]
        plain = found is not None and found.ndim == 4 and found.shape[:2] == h.shape
        if plain and torch.allclose(found.mean((2, 3)), h, rtol=1e-3, atol=1e-5):
            return found
    return h[:, :, None, None]


def _through(model, layer, x, batch_size):
    """Return what goes into one layer of the model, what comes out of it, and the logits."""
    caught = []
    hook = layer.register_forward_hook(lambda _, inputs, output: caught.append((inputs[0].detach(), output.detach())))
    try:
        logits = training.logits(model, x, batch_size=batch_size)
    finally:
        hook.remove()
    if not caught:  # a layer that is not used
        return None, None, logits
    return *(torch.cat(parts) for parts in zip(*caught, strict=True)), logits
