"""Anomaly detectors by name, all with one interface: `build(name).fit(model, train).score(x)`, higher = more anomalous.

SensNorm and its kin are in `sensnorm`, what they are compared with in `baselines`. Others go in by
`@detectors.register("name")` over a subclass of `scoring.Detector`, see `registry`.
"""

from typing import Any

from sparselib import checks
from sparselib.detection import baselines
from sparselib.detection.scoring import Detector
from sparselib.detection.sensnorm import HEADLINE, GradNorm, SensitivityProfile, SensNorm, SensNormAyle
from sparselib.registry import Registry

DETECTORS: Registry[type[Detector]] = Registry("sparselib.detectors", {
    "msp": baselines.MSP, "maxlogit": baselines.MaxLogit, "entropy": baselines.Entropy, "energy": baselines.Energy,
    "odin": baselines.ODIN, "mahalanobis": baselines.Mahalanobis, "relative_mahalanobis": baselines.RelativeMahalanobis,
    "knn": baselines.KNN, "vim": baselines.ViM, "react": baselines.ReAct, "dice": baselines.DICE, "ash": baselines.ASH,
    "feature_norm": baselines.FeatureNorm, "gradnorm": GradNorm, "sensnorm": SensNorm, "sensnorm-ayle": SensNormAyle,
    "profile": SensitivityProfile,
})  # fmt: skip
NAMES = DETECTORS.own
register = DETECTORS.register


def build(name: str, **options: Any) -> Detector:
    """Return an unfitted detector by name; `options` go to its constructor. "sensnorm" starts from `HEADLINE`;
    "sensnorm-ayle", the authors' form, takes a `budget` only.

    Raises: ValueError for unknown names (with the close matches), option values and options that are fixed, TypeError
        for unknown options.
    """
    checks.choice("detector", name, DETECTORS)
    return DETECTORS[name](**{**HEADLINE, **options} if name == "sensnorm" else options)
