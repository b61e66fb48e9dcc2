"""Anomaly detectors by name, all with one interface: `build(name).fit(model, train).score(x)`, higher = more anomalous.

SensNorm and its kin are in `sensnorm`, what they are compared with in `baselines`.
"""

from sparselib import checks
from sparselib.detection.baselines import (
    ASH,
    DICE,
    KNN,
    MSP,
    ODIN,
    Energy,
    Entropy,
    Mahalanobis,
    MaxLogit,
    ReAct,
    RelativeMahalanobis,
    ViM,
    as_pytorch_ood,
)
from sparselib.detection.scoring import Detector
from sparselib.detection.sensnorm import HEADLINE, GradNorm, SensitivityProfile, SensNorm

DETECTORS = {
    "msp": MSP,
    "maxlogit": MaxLogit,
    "entropy": Entropy,
    "energy": Energy,
    "odin": ODIN,
    "mahalanobis": Mahalanobis,
    "relative_mahalanobis": RelativeMahalanobis,
    "knn": KNN,
    "vim": ViM,
    "react": ReAct,
    "dice": DICE,
    "ash": ASH,
    "gradnorm": GradNorm,
    "sensnorm": SensNorm,
    "profile": SensitivityProfile,
}
NAMES = tuple(DETECTORS)
__all__ = [*(d.__name__ for d in DETECTORS.values()), "HEADLINE", "NAMES", "Detector", "as_pytorch_ood", "build"]


def build(name, **options):
    """Return an unfitted detector by name; `options` go to its constructor. "sensnorm" starts from `HEADLINE`.

    Raises: ValueError for unknown names (with the close matches) and option values, TypeError for unknown options.
    """
    checks.choice("detector", name, NAMES)
    return DETECTORS[name](**{**HEADLINE, **options} if name == "sensnorm" else options)
