"""The detectors that SensNorm is compared with. Those beyond a formula of the logits are pytorch-ood's.

pytorch-ood (Kirchheim et al. 2022) leaves eval mode and layers to its caller. Here: features are the inputs of the last
linear layer, feature maps those of the last average pooling.
"""

from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F

from sparselib import checks
from sparselib.detection import scoring
from sparselib.detection.scoring import Detector, OnLogits
from sparselib.models import evaluating
from sparselib.vision import torchvision


def _pytorch_ood() -> Any:
    torchvision()  # pytorch-ood imports it, and it may need its cure first
    return import_module("pytorch_ood.detector")


class MSP(OnLogits):
    """−max_k p_k: the maximum softmax probability (Hendrycks & Gimpel 2017, https://arxiv.org/abs/1610.02136)."""

    def of_logits(self, z: torch.Tensor) -> torch.Tensor:
        return -z.softmax(1).amax(1)


class MaxLogit(OnLogits):
    """−max_k z_k (Hendrycks et al. 2022, https://arxiv.org/abs/1911.11132)."""

    def of_logits(self, z: torch.Tensor) -> torch.Tensor:
        return -z.amax(1)


class Entropy(OnLogits):
    """−Σ_k p_k log p_k, the entropy of the prediction."""

    def of_logits(self, z: torch.Tensor) -> torch.Tensor:
        log_p = z.log_softmax(1)
        return -(log_p.exp() * log_p).sum(1)


class Energy(OnLogits):
    """−T·log Σ_k exp(z_k/T), the free energy (Liu et al. 2020, https://arxiv.org/abs/2010.03759)."""

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = checks.number("temperature", temperature, 0, low_open=True)

    def of_logits(self, z: torch.Tensor) -> torch.Tensor:
        return -self.temperature * (z / self.temperature).logsumexp(1)


class ODIN(Detector):
    """Softmax at temperature T, after a step of `eps` that makes the prediction surer (Liang et al. 2018,
    https://arxiv.org/abs/1706.02690)."""

    def __init__(self, temperature: float = 1000.0, eps: float = 0.0014) -> None:
        self.temperature = checks.number("temperature", temperature, 0, low_open=True)
        self.eps = checks.number("eps", eps, 0)

    def _score(self, model, x):
        inner = _pytorch_ood().ODIN(lambda z: checks.logits(model(z), z), eps=self.eps, temperature=self.temperature)
        with evaluating(model):
            return torch.cat([inner.predict(part) for part in x.split(512)])


class FeatureNorm(Detector):
    """−‖h‖₁ of the features h. With 1 − p, all of GradNorm but the gradient (Igoe et al. 2022,
    https://arxiv.org/abs/2205.10439). The features of known kinds are larger, hence the sign."""

    def _score(self, model, x):
        return -scoring.features(model, x).abs().sum(1)

    def _differentiable(self, model, x):
        return -scoring.traced(model, x).abs().sum(1)


class _OnFeatures(Detector):
    """A detector of pytorch-ood that is fitted on the features of the training data and their labels."""

    needs_train: bool = True

    classes: int = 1  # that it needs at least

    def _build(self, model, x, y):
        raise NotImplementedError

    def _fit(self, model, x, y):
        classes, y = y.unique(return_inverse=True)  # without gaps, where a class is missing
        for what, found, least in (("samples", len(y), 2), ("classes", len(classes), self.classes)):
            if found < least:
                raise ValueError(f"train must hold at least {least} {what} for {type(self).__name__}, got {found}")
        self.inner = self._build(model, x, y).fit_features(scoring.features(model, x).float().cpu(), y.cpu())

    def _score(self, model, x):
        return self.inner.predict_features(scoring.features(model, x).float().cpu()).to(x)


class Mahalanobis(_OnFeatures):
    """Distance to the nearest class mean under one covariance (Lee et al. 2018, https://arxiv.org/abs/1807.03888)."""

    def _build(self, model, x, y):
        return _pytorch_ood().Mahalanobis(None)

    def _differentiable(self, model, x):
        h = scoring.traced(model, x)
        away = h.unsqueeze(1) - self.inner.mu.to(h)  # (N, K, D)
        return ((away @ self.inner.precision.to(h)) * away).sum(2).amin(1) / 2


class RelativeMahalanobis(_OnFeatures):
    """Mahalanobis minus the distance to all data as one Gaussian (Ren et al. 2021, https://arxiv.org/abs/2106.09022)."""

    classes: int = 2

    def _build(self, model, x, y):
        return _pytorch_ood().RMD(None)


class KNN(_OnFeatures):
    """Distance to the k-th nearest training feature, on the unit sphere (Sun et al. 2022,
    https://arxiv.org/abs/2204.06507)."""

    def __init__(self, k: int = 50) -> None:
        self.k = checks.integer("k", k, low=1)

    def _build(self, model, x, y):
        return _pytorch_ood().KNN(None, k=min(self.k, len(y)))

    def _differentiable(self, model, x):
        h = F.normalize(scoring.traced(model, x))
        knn = self.inner.knn
        neighbours = knn.kneighbors(h.detach().float().cpu().numpy(), self.inner.k, return_distance=False)
        return (h - torch.from_numpy(knn._fit_X[neighbours[:, -1]]).to(h)).norm(dim=1)


class ViM(_OnFeatures):
    """A virtual logit from what the features' principal subspace leaves out (Wang et al. 2022,
    https://arxiv.org/abs/2203.10807). `dimensions`: of the subspace, fewer than the
    features; default half of them."""

    def __init__(self, dimensions: int | None = None) -> None:
        self.dimensions = dimensions if dimensions is None else checks.integer("dimensions", dimensions, low=1)

    def _build(self, model, x, y):
        weight, bias = _head(model, x)
        dimensions = self.dimensions or max(1, weight.shape[1] // 2)
        if dimensions >= weight.shape[1]:
            raise ValueError(f"dimensions must be below the number of features, {weight.shape[1]}, got {dimensions}")
        return _pytorch_ood().ViM(None, dimensions, weight.cpu(), bias.cpu())


class DICE(_OnFeatures):
    """Energy with the least contributing weights of the last layer left out (Sun & Li 2022,
    https://arxiv.org/abs/2111.09805). `p`: the fraction left out."""

    def __init__(self, p: float = 0.7) -> None:
        self.p = checks.number("p", p, 0, 1, high_open=True)

    def _build(self, model, x, y):
        return _pytorch_ood().DICE(None, *_head(model, x), self.p)


class ReAct(Detector):
    """Energy with activations clipped at a percentile of the training data's (Sun et al. 2021,
    https://arxiv.org/abs/2111.12797)."""

    needs_train: bool = True

    def __init__(self, percentile: float = 0.9) -> None:
        self.percentile = checks.number("percentile", percentile, 0, 1, low_open=True)

    def _fit(self, model, x, y):
        inner = _pytorch_ood().ReAct(None, scoring.head(model, x), percentile=self.percentile)
        self.inner = inner.fit_feature_maps(scoring.features(model, x), y)

    def _score(self, model, x):
        with torch.no_grad():
            return self.inner.predict_feature_maps(scoring.features(model, x))


class ASH(Detector):
    """Energy with most activations of the last feature maps removed and the rest rescaled (Djurisic et al. 2023,
    https://arxiv.org/abs/2209.09858). `percentile`: the fraction removed."""

    def __init__(self, variant: str = "ash-s", percentile: float = 0.65) -> None:
        self.variant = checks.choice("variant", variant, ("ash-p", "ash-b", "ash-s"))
        self.percentile = checks.number("percentile", percentile, 0, 1, high_open=True)

    def _score(self, model, x):
        layer = scoring.head(model, x)
        inner = _pytorch_ood().ASH(None, lambda m: layer(m.mean((2, 3))), self.variant, self.percentile)
        with torch.no_grad():
            return inner.predict_feature_maps(scoring.maps(model, x))


def _head(model, x):
    """Return weight (K, D) and bias (K,) of the last linear layer."""
    layer = scoring.head(model, x)
    weight = layer.weight.detach()
    return weight, weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
