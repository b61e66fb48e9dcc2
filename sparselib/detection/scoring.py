"""What all anomaly detectors share: one interface, and what they read off a network."""

from contextlib import ExitStack
from typing import Self

import torch
from torch import nn

from sparselib import checks, training
from sparselib.data import Samples
from sparselib.models import device_of, evaluating, input_shape, on_device_of


class Detector:
    """A score of how anomalous an input looks to a classifier. Subclasses give `_score`, and `_fit` where needed."""

    needs_train: bool = False
    model: nn.Module | None = None
    shape: tuple[int, ...] | None = None  # (C, H, W) of the inputs, where it is known

    @checks.typed
    def fit(self, model: nn.Module, train: Samples | None = None) -> Self:
        """Attach the model; measure on `train` (Samples with labels) what the method needs from it. Returns self.

        Raises ValueError when the method needs training data and gets none, or gets too little of it.
        """
        precision = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        if precision not in (torch.float32, torch.float64):
            raise ValueError(f"model must be float32 or float64, got {precision}: score model.float()")
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

    @checks.typed
    def score(self, x: torch.Tensor) -> torch.Tensor:
        """Return the anomaly score (N,) of each input (N, C, H, W); higher = more anomalous.

        In eval mode, whatever mode the model is in. Raises RuntimeError before `fit`, ValueError for inputs or scores
        that are not finite.
        """
        return self._checked(self._score, x).detach()

    @checks.typed
    def differentiable(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores (N,) of `score` with a graph back to x (N, C, H, W): what an adaptive attack lowers.

        One pass forward; x goes through whole, so that memory grows with N. Raises: as `score`, and ValueError for a
        detector whose score no single backward pass differentiates.
        """
        if not self.is_differentiable():
            raise ValueError(f"detector {type(self).__name__} has no score that one backward pass differentiates")
        return self._checked(self._differentiable, x)

    @classmethod
    def is_differentiable(cls) -> bool:
        """Return whether the class gives `differentiable`."""
        return cls._differentiable is not Detector._differentiable

    def _checked(self, scored, x):
        if self.model is None:
            raise RuntimeError(f"{type(self).__name__} must be fitted before it scores: call fit(model) first")
        checks.images(x)
        if self.shape and tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x must have shape (N, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        on_device_of(self.model, x)
        if not len(x):
            return x.new_zeros(0)
        with evaluating(self.model):
            scores = scored(self.model, x)
        if not torch.isfinite(scores).all():
            raise ValueError(f"{type(self).__name__} gave scores that are not finite")
        return scores

    def _fit(self, model, x, y):
        raise NotImplementedError

    def _score(self, model, x):
        raise NotImplementedError

    def _differentiable(self, model, x):
        raise NotImplementedError


class OnLogits(Detector):
    """A detector that is a formula of the logits alone. Subclasses give `of_logits`, (N, K) to (N,)."""

    def of_logits(self, z: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _score(self, model, x):
        return self.of_logits(training.logits(model, x))

    def _differentiable(self, model, x):
        return self.of_logits(checks.logits(model(x), x))


def head(model: nn.Module, x: torch.Tensor) -> nn.Linear:
    """Return the linear layer that gives the model's prediction on x (N, C, H, W), wherever it is declared.

    Raises ValueError where none does (an ensemble, a network that ends in something else): what a score would read
    there is not about the model.
    """
    layers, out = {m: name for name, m in model.named_modules() if isinstance(m, nn.Linear)}, {}

    def keep(layer, _, output):
        out[layer] = output

    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.register_forward_hook(keep))
        p = training.logits(model, x[:2]).softmax(1)
    for layer in reversed(layers):
        if layer in out and out[layer].shape == p.shape and _close(out[layer].softmax(1), p):
            return layer
    kinds = f"its linear layers are {', '.join(layers.values())}" if layers else "it has none"
    raise ValueError(f"model {type(model).__name__} does not end in a linear layer ({kinds}): no features can be read")


def features(model: nn.Module, x: torch.Tensor, *, batch_size: int = 512) -> torch.Tensor:
    """Return the inputs (N, D) of the model's last linear layer, see `head`, for x (N, C, H, W)."""
    return _inputs(model, head(model, x), x, batch_size)


def traced(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the `features` (N, D) with a graph back to x (N, C, H, W), all in one pass, in the mode the model is in.

    Raises: ValueError where the model does not end in a linear layer.
    """
    last = {}
    with head(model, x).register_forward_pre_hook(lambda _, inputs: last.update(input=inputs[0])):
        checks.logits(model(x), x)
    return last["input"]


def maps(model: nn.Module, x: torch.Tensor, *, batch_size: int = 512) -> torch.Tensor:
    """Return the feature maps (N, D, H, W) whose spatial mean is the features, else the features as 1×1.

    They are sought at the last average pooling; where it is another one, or more layers follow, there are none.
    """
    h = features(model, x, batch_size=batch_size)
    pools = [m for m in model.modules() if isinstance(m, (nn.AdaptiveAvgPool2d, nn.AvgPool2d))]
    caught = _inputs(model, pools[-1], x, batch_size) if pools else h
    if caught.ndim == 4 and caught.shape[:2] == h.shape and _close(caught.mean((2, 3)), h):
        return caught
    return h[:, :, None, None]


def _close(a, b):
    return torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def _inputs(model, layer, x, batch_size):
    """Return what goes into one layer of the model for all of x; an empty tensor for a layer that is not used.

    Of a layer that a network passes more than once, the last time counts.
    """
    last, caught = {}, []
    with (
        layer.register_forward_pre_hook(lambda _, inputs: last.update(input=inputs[0].detach())),
        model.register_forward_hook(lambda *_: caught.append(last.pop("input", x.new_empty(0)))),
    ):
        training.logits(model, x, batch_size=batch_size)
    return torch.cat(caught)
