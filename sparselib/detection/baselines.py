"""The detectors that SensNorm is compared with. Those beyond a formula of the logits are pytorch-ood's.

pytorch-ood (Kirchheim et al. 2022) leaves eval mode and the choice of layers to its caller; here both are seen to:
features are the inputs of the last linear layer, feature maps those of the last average pooling.
"""

import torch

from sparselib import checks, training
from sparselib.detection import scoring
from sparselib.detection.scoring import Detector
from sparselib.models import evaluating
from sparselib.vision import torchvision


def _pytorch_ood():
    torchvision()  # pytorch-ood imports it, and it may need its cure first
    import pytorch_ood.detector

    return pytorch_ood.detector


class MSP(Detector):
    """−max_k p_k: the maximum softmax probability (Hendrycks & Gimpel 2017, https://arxiv.org/abs/1610.02136)."""

    def _score(self, x):
        return -training.logits(self.model, x).softmax(1).amax(1)


class MaxLogit(Detector):
    """−max_k z_k (Hendrycks et al. 2022, https://arxiv.org/abs/1911.11132)."""

    def _score(self, x):
        return -training.logits(self.model, x).amax(1)


class Entropy(Detector):
    """−Σ_k p_k log p_k, the entropy of the prediction."""

    def _score(self, x):
        log_p = training.logits(self.model, x).log_softmax(1)
        return -(log_p.exp() * log_p).sum(1)


class Energy(Detector):
    """−T·log Σ_k exp(z_k/T), the free energy (Liu et al. 2020, https://arxiv.org/abs/2010.03759)."""

    def __init__(self, temperature=1.0):
        self.temperature = checks.number("temperature", temperature, 0, low_open=True)

    def _score(self, x):
        return -self.temperature * (training.logits(self.model, x) / self.temperature).logsumexp(1)


class ODIN(Detector):
    """Softmax at temperature T, after a step of `eps` that makes the prediction surer (Liang et al. 2018,
    https://arxiv.org/abs/1706.02690)."""

    def __init__(self, temperature=1000.0, eps=0.0014):
        self.temperature = checks.number("temperature", temperature, 0, low_open=True)
        self.eps = checks.number("eps", eps, 0)

    def _score(self, x):
        def logits(part):
            return checks.logits(self.model(part), part)

        inner = _pytorch_ood().ODIN(logits, eps=self.eps, temperature=self.temperature)
        with evaluating(self.model):
            return torch.cat([inner.predict(part) for part in x.split(512)])


class _OnFeatures(Detector):
    """A detector of pytorch-ood that is fitted on the features of the training data and their labels."""

    needs_train = True

    def _fit(self, model, x, y):
        self.inner = self._build(model, y).fit_features(scoring.features(model, x).float().cpu(), y.cpu())

    def _score(self, x):
        return self.inner.predict_features(scoring.features(self.model, x).float().cpu()).to(x)

    def _build(self, model, y):
        raise NotImplementedError


class Mahalanobis(_OnFeatures):
    """Distance to the nearest class mean under one covariance (Lee et al. 2018, https://arxiv.org/abs/1807.03888)."""

    def _build(self, model, y):
        return _pytorch_ood().Mahalanobis(None)


class RelativeMahalanobis(_OnFeatures):
    """Mahalanobis minus the distance to all data as one Gaussian (Ren et al. 2021, https://arxiv.org/abs/2106.09022)."""

    def _build(self, model, y):
        return _pytorch_ood().RMD(None)


class KNN(_OnFeatures):
    """Distance to the k-th nearest training feature, on the unit sphere (Sun et al. 2022,
    https://arxiv.org/abs/2204.06507)."""

    def __init__(self, k=50):
        self.k = checks.integer("k", k, low=1)

    def _build(self, model, y):
        return _pytorch_ood().KNN(None, k=min(self.k, len(y)))


class ViM(_OnFeatures):
    """A virtual logit from what the features' principal subspace leaves out (Wang et al. 2022,
    https://arxiv.org/abs/2203.10807). `dimensions`: of the subspace; default half of the features'."""

    def __init__(self, dimensions=None):
        self.dimensions = dimensions if dimensions is None else checks.integer("dimensions", dimensions, low=1)

    def _build(self, model, y):
        layer = scoring.head(model)
        dimensions = self.dimensions or max(1, layer.in_features // 2)
        return _pytorch_ood().ViM(None, dimensions, layer.weight.detach().cpu(), _bias(layer).cpu())


class DICE(_OnFeatures):
    """Energy with the least contributing weights of the last layer left out (Sun & Li 2022,
    https://arxiv.org/abs/2111.09805). `p`: the fraction left out."""

    def __init__(self, p=0.7):
        self.p = checks.number("p", p, 0, 1)

    def _build(self, model, y):
        layer = scoring.head(model)
        return _pytorch_ood().DICE(None, layer.weight.detach(), _bias(layer), self.p)


class ReAct(Detector):
    """Energy with activations clipped at a percentile of the training data's (Sun et al. 2021,
    https://arxiv.org/abs/2111.12797)."""

    needs_train = True

    def __init__(self, percentile=0.9):
        self.percentile = checks.number("percentile", percentile, 0, 1)

    def _fit(self, model, x, y):
        inner = _pytorch_ood().ReAct(None, scoring.head(model), percentile=self.percentile)
        self.inner = inner.fit_feature_maps(scoring.features(model, x), y)

    def _score(self, x):
        with torch.no_grad():
            return self.inner.predict_feature_maps(scoring.features(self.model, x))


class ASH(Detector):
    """Energy with most activations of the last feature maps removed and the rest rescaled (Djurisic et al. 2023,
    https://arxiv.org/abs/2209.09858). `percentile`: the fraction removed."""

    def __init__(self, variant="ash-s", percentile=0.65):
        self.variant = checks.choice("variant", variant, ("ash-p", "ash-b", "ash-s"))
        self.percentile = checks.number("percentile", percentile, 0, 1, high_open=True)

    def _score(self, x):
        layer = scoring.head(self.model)
        inner = _pytorch_ood().ASH(None, lambda m: layer(m.mean((2, 3))), self.variant, self.percentile)
        with torch.no_grad():
            return inner.predict_feature_maps(scoring.maps(self.model, x))


def _bias(layer):
    return layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach()


def as_pytorch_ood(detector, model):
    """Return the detector as one of pytorch-ood's: `fit(loader)`, `predict(x)`, usable in its benchmarks.

    Args: detector: a `Detector`, not fitted. model: the classifier. The loader gives (x, y); negative labels, which
    mark outliers there, are left out of the fit.
    """
    torchvision()
    from pytorch_ood import api

    from sparselib.data import Samples

    class Adapted(api.Detector):
        requires_fit = detector.needs_train

        def __init__(self):
            self.model, self.inner = model, detector
            if not detector.needs_train:
                detector.fit(model)

        def fit(self, data_loader):
            x, y = (torch.cat(parts) for parts in zip(*data_loader, strict=True))
            inside = y >= 0
            self.inner.fit(self.model, Samples(x[inside], y[inside], (), "loader"))
            return self

        def predict(self, x):
            return self.inner.score(x)

        def __call__(self, x):
            return self.predict(x)

    return Adapted()
