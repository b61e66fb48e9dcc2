"""SensNorm: how sensitive the weights are on one input, as an anomaly score. And its kin.

A pruning criterion, measured on a single input, says how much each weight matters to that input. An input of a kind
that the network knows is settled: no weight matters much to its loss. Ayle et al. 2022,
https://arxiv.org/abs/2207.04227.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from sklearn.covariance import LedoitWolf

from sparselib import checks, seeds, training
from sparselib.detection import scoring, sensitivity
from sparselib.detection.scoring import Detector

# What `detectors.build("sensnorm")` stands for: chosen by the rule in benchmarks/choose_sensnorm.py, on held-back
# training data and synthetic outliers of it, and not touched since.
HEADLINE = {"criterion": "snip", "norm": 2, "target": "predicted", "aggregate": "all", "layers": "last"}

REFERENCE_SAMPLES = 2000  # how many training inputs a reference or a profile is measured on, at most


class SensNorm(Detector):
    """‖S(θ; x)‖_p: the norm of the saliency S of a pruning criterion, measured on one input.

    The defaults are the plain form; `detectors.build("sensnorm")` starts from `HEADLINE` instead.

    Args:
        criterion: "snip", S = θ⊙g; "crop" and "grasp", S = θ⊙Hg; "snap", θ⊙g summed over each unit.
        norm: p > 0, or infinity.
        target: of the loss that is differentiated: "predicted", cross-entropy of the predicted label; "logit", minus
            its logit; "uniform", cross-entropy to all classes.
        reference: None, the norm of S itself; "train", of its distance to the mean saliency of the training data under
            their true labels.
        standardise: with a reference, divide by the standard deviation over the training data.
        aggregate: "all", one norm over all weights; "mean", the mean of the norms of the layers.
        layers: "all", "last", or a list of weight names.
        views: 1, or average the score over so many views of the input, shifted by up to a sixteenth of its side.
        per_loss: divide the saliency by the loss; needs target "logit", see `sensitivity.profile`.
        budget: bytes of per-sample gradients to hold at most; no effect on the scores.
    """

    @checks.typed
    def __init__(
        self, criterion: str = "snip", norm: float = 2, target: str = "predicted", reference: str | None = None,
        aggregate: str = "all", layers: str | Sequence[str] = "all", views: int = 1, *, standardise: bool = False,
        per_loss: bool = False, budget: int = sensitivity.BUDGET,
    ) -> None:  # fmt: skip
        checks.choice("criterion", criterion, ("snip", "crop", "grasp", "snap"))
        checks.choice("target", target, sensitivity.TARGETS)
        checks.choice("aggregate", aggregate, sensitivity.AGGREGATES)
        if norm != torch.inf:
            checks.number("norm", norm, 0, low_open=True)
        if reference not in (None, "train"):
            raise ValueError(f"reference must be None or 'train', got {reference!r}")
        if standardise and reference is None:
            raise ValueError("standardise needs reference='train', got None")
        if per_loss and target != "logit":
            raise ValueError(f"per_loss needs target='logit', got target={target!r}")
        self.views = checks.integer("views", views, low=1)
        self.saliency: dict[str, Any] = {"criterion": criterion, "target": target, "per_loss": per_loss}
        self.saliency |= {"layers": layers, "budget": checks.integer("budget", budget, low=1)}
        self.norm, self.aggregate, self.standardise = norm, aggregate, standardise
        self.needs_train = reference == "train"
        self.reference = self.scale = None

    def _fit(self, model, x, y):
        index = _some(len(x))
        self.reference, scale = sensitivity.moments(model, x[index], y[index], **self.saliency)
        self.scale = scale if self.standardise else None

    def _score(self, model, x):
        options = {"norm": self.norm, "aggregate": self.aggregate, "reference": self.reference, "scale": self.scale}
        options |= self.saliency
        scores = [sensitivity.norms(model, view, **options) for view in shifted(x, self.views)]
        return torch.stack(scores).mean(0)


class SensNormAyle(SensNorm):
    """SensNorm as in the first author's public prototype, https://github.com/MorganeAyle/RobustnessPrunedNetworks.

    I(x, y) = θ ⊙ ∇L / (L + 1e-8) with L = −z_y, minus the logit of class y, signed, for each convolution and linear
    weight θ. The score is the mean over layers of ‖I_ref − I(x, ŷ)‖₅, where I_ref is the mean of I over training
    inputs, each divided by its own loss, under their true labels (at most `REFERENCE_SAMPLES` of them), and ŷ is the
    predicted class. L is not bounded away from 0: an input whose logit z_y is close to 0 has a very large I, so a
    single such training input can fill the reference. That is the prototype's, and kept. Unlike there, each input is
    scored alone, not in a batch.
    """

    FIXED: ClassVar[dict[str, Any]] = {
        "criterion": "snip", "norm": 5, "target": "logit", "reference": "train", "aggregate": "mean", "layers": "all",
        "views": 1, "standardise": False, "per_loss": True,
    }  # fmt: skip

    def __init__(self, *, budget: int = sensitivity.BUDGET, **options: Any) -> None:
        """Args: budget: as of `SensNorm`. Raises: ValueError for other options, which this form fixes."""
        if fixed := [name for name in options if name in self.FIXED]:
            said = ", ".join(f"{name}={self.FIXED[name]!r}" for name in fixed)
            raise ValueError(f"'sensnorm-ayle' fixes {said}: 'sensnorm' takes other values")
        super().__init__(**self.FIXED, budget=budget, **options)


class SensitivityProfile(Detector):
    """How unusual the *profile* of sensitivity over layers is, not how large it is.

    Each input is described by the logarithms of its layer-wise SensNorms for every target; the score is the
    Mahalanobis distance of that vector to the training data (one Gaussian, Ledoit-Wolf covariance).
    """

    needs_train: bool = True

    @checks.typed
    def __init__(self, criterion: str = "snip", norm: float = 2, *, budget: int = sensitivity.BUDGET) -> None:
        checks.choice("criterion", criterion, ("snip", "snap"))
        self.options = {"criterion": criterion, "norm": norm, "budget": budget}

    def _vector(self, model, x):
        parts = [sensitivity.profile(model, x, target=t, **self.options) for t in sensitivity.TARGETS]
        return torch.cat(parts, 1).double().clamp_min(1e-30).log()  # (N, targets · layers)

    def _fit(self, model, x, y):
        if len(x) < 2:
            raise ValueError(f"train must hold at least 2 samples for SensitivityProfile, got {len(x)}")
        vectors = self._vector(model, x[_some(len(x))])
        self.centre = vectors.mean(0)
        self.precision = torch.from_numpy(LedoitWolf().fit(vectors.cpu().numpy()).precision_).to(vectors)

    def _score(self, model, x):
        away = self._vector(model, x) - self.centre
        return ((away @ self.precision) * away).sum(1).clamp_min(0).sqrt().to(x.dtype)


class GradNorm(Detector):
    """−‖∂L/∂W‖₁ of the last layer, for L = Σ_c −log p_c (Huang et al. 2021, https://arxiv.org/abs/2110.00218).

    In closed form ‖h‖₁·‖K·p − 1‖₁, with the features h and probabilities p of K classes, for models that end in a
    linear layer. The norm is *larger* for inputs of a known kind, hence the sign. `layers="all"` takes all prunable
    weights of any model, by the gradient engine.
    """

    @checks.typed
    def __init__(self, layers: str = "last") -> None:
        self.layers = checks.choice("layers", layers, ("last", "all"))

    def _score(self, model, x):
        logits = training.logits(model, x)
        classes = logits.shape[1]
        if self.layers == "all":  # the engine's uniform target is L / K
            return -classes * sensitivity.norms(model, x, criterion="gradient", target="uniform", norm=1)
        h = scoring.features(model, x)
        return -h.abs().sum(1) * (classes * logits.softmax(1) - 1).abs().sum(1)


def _some(n):
    """Return the indices of at most REFERENCE_SAMPLES of n samples, always the same."""
    return torch.randperm(n, generator=seeds.generator(0, "reference"))[:REFERENCE_SAMPLES].sort().values


def shifted(x: torch.Tensor, count: int) -> Iterator[torch.Tensor]:
    """Yield x (N, C, H, W), and `count` − 1 copies shifted by whole pixels, the same shift for every input."""
    yield x
    reach = max(1, min(x.shape[-2:]) // 16)
    rng = seeds.generator(0, "views")
    for _ in range(count - 1):
        down, right = torch.randint(-reach, reach + 1, (2,), generator=rng).tolist()
        padded = torch.nn.functional.pad(x, (reach,) * 4, mode="replicate")
        yield padded[..., reach + down : reach + down + x.shape[-2], reach + right : reach + right + x.shape[-1]]
