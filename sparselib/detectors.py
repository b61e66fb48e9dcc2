"""Anomaly detectors with one interface: `build(name).fit(model).score(x)`, higher = more anomalous."""

import torch

from sparselib import checks, sensitivity, training


class Detector:
    """A score of how anomalous an input looks to a classifier. Subclasses give `_score`."""

    model = None

    def fit(self, model, train=None):
        """Attach the model; measure on `train` (Samples) what the method needs from it. Returns self."""
        self.model = model
        return self

    def score(self, x):
        """Return the anomaly score (N,) of each input (N, C, H, W); higher = more anomalous.

        Raises RuntimeError before `fit`, ValueError for inputs or scores that are not finite.
        """
        if self.model is None:
            raise RuntimeError(f"{type(self).__name__} must be fitted before it scores: call fit(model) first")
        scores = self._score(checks.images(x)).detach()
        if not torch.isfinite(scores).all():
            raise ValueError(f"{type(self).__name__} gave scores that are not finite")
        return scores


class MSP(Detector):
    """−max_k p_k: the maximum softmax probability (Hendrycks & Gimpel 2017, https://arxiv.org/abs/1610.02136)."""

    def _score(self, x):
        return -training.logits(self.model, x).softmax(1).amax(1)


class Energy(Detector):
    """−T·log Σ_k exp(z_k/T), the free energy (Liu et al. 2020, https://arxiv.org/abs/2010.03759)."""

    def __init__(self, temperature=1.0):
        self.temperature = checks.number("temperature", temperature, 0, low_open=True)

    def _score(self, x):
        return -self.temperature * (training.logits(self.model, x) / self.temperature).logsumexp(1)


class SensNorm(Detector):
    """‖S(θ; x)‖_p, the norm of a pruning criterion's saliency measured on one input (Ayle et al. 2022).

    With the SNIP criterion S = θ ⊙ ∂L(x, ŷ)/∂θ: to first order, how much the loss of the predicted label ŷ would
    change if each weight were removed. An input of a kind the network knows leaves its weights calm.

    Args:
        criterion: "snip".
        norm: p > 0, or infinity.
        target: "predicted", the label ŷ whose loss is differentiated.
    """

    CRITERIA = ("snip",)
    TARGETS = ("predicted",)

    def __init__(self, criterion="snip", norm=2, target="predicted"):
        self.criterion = checks.choice("criterion", criterion, self.CRITERIA)
        self.target = checks.choice("target", target, self.TARGETS)
        self.norm = norm if norm == torch.inf else checks.number("norm", norm, 0, low_open=True)

    def _score(self, x):
        predicted = training.logits(self.model, x).argmax(1)
        return sensitivity.snip_norm(self.model, x, predicted, norm=self.norm)


DETECTORS = {"msp": MSP, "energy": Energy, "sensnorm": SensNorm}
NAMES = tuple(DETECTORS)


def build(name, **options):
    """Return an unfitted detector by name ("msp", "energy", "sensnorm"); `options` go to its constructor."""
    return DETECTORS[checks.choice("detector", name, NAMES)](**options)
