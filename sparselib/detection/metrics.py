"""Detection metrics, over scikit-learn (scores: higher = more anomalous)."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from sparselib import checks

Scores = torch.Tensor | np.ndarray | Sequence[float]


def _numbers(name, values):
    """Return the values as a float64 array (N,), finite and not empty."""
    values = values.detach().cpu() if isinstance(values, torch.Tensor) else np.asarray(values)
    if isinstance(values, torch.Tensor) and values.is_floating_point():
        values = values.double()  # NumPy has no bfloat16
    values = np.asarray(values)
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be numbers (N,), got {values.dtype} of shape {values.shape}")
    values = values.astype(np.float64)
    if not len(values):
        raise ValueError(f"{name} must not be empty")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return values


def _binary(id_scores, ood_scores, positive):
    """Return (labels, scores) with the positive class scored high."""
    checks.choice("positive", positive, ("ood", "id"))
    inside, outside = _numbers("id_scores", id_scores), _numbers("ood_scores", ood_scores)
    labels, values = np.repeat([0.0, 1.0], [len(inside), len(outside)]), np.concatenate([inside, outside])
    return (labels, values) if positive == "ood" else (1 - labels, -values)


def auroc(id_scores: Scores, ood_scores: Scores) -> float:
    """Return the area under the ROC curve in [0, 1]: P(anomaly scores above an ID input), ties counted half.

    Args: scores (N,) and (M,), finite, tensors or arrays. Raises ValueError when one is empty or not finite.
    """
    return float(roc_auc_score(*_binary(id_scores, ood_scores, "ood")))


def aupr(id_scores: Scores, ood_scores: Scores, positive: str = "ood") -> float:
    """Return the average precision in [0, 1] with `positive` "ood" (default) or "id" as the positive class.

    Its chance level is the positive share, so it depends on N and M; AUROC does not.
    """
    return float(average_precision_score(*_binary(id_scores, ood_scores, positive)))


def fpr_at_95_tpr(id_scores: Scores, ood_scores: Scores, positive: str = "ood") -> float:
    """Return the false positive rate in [0, 1] at the first threshold where at least 95 % of positives are caught.

    positive="ood" (OpenOOD, pytorch-ood): how many ID inputs are flagged when 95 % of the anomalies are.
    positive="id" (Liang et al. 2018, https://arxiv.org/abs/1706.02690): how many anomalies pass when 95 % of the ID
    inputs do.
    The two differ widely on the same scores: always say which.
    """
    fpr, tpr, _ = roc_curve(*_binary(id_scores, ood_scores, positive), drop_intermediate=False)
    return float(fpr[np.argmax(tpr >= 0.95)])


def threshold(id_scores: Scores, false_alarms: float = 0.05) -> float:
    """Return the lowest of the ID scores above which lie at most the share `false_alarms` of them.

    Inputs that score *above* it are rejected. Scores equal to it pass: with ties the share of false alarms may be
    smaller than asked for, never larger.

    Args: id_scores (N,), of clean inputs, finite. false_alarms: in [0, 1); 0 gives the largest score.
    """
    allowed = checks.number("false_alarms", false_alarms, 0, 1, high_open=True)
    scores = np.sort(_numbers("id_scores", id_scores))[::-1]
    return float(scores[min(int(allowed * len(scores) + 1e-9), len(scores) - 1)])  # 0.29·100 is 28.999…


def right_or_rejected(scores: Scores, right: torch.Tensor | np.ndarray | Sequence[bool], threshold: float) -> float:
    """Return the share in [0, 1] of anomalous inputs that are classified rightly or score above the threshold.

    Args:
        scores: (N,), finite, of anomalous inputs. right: bool (N,), whether each is classified rightly; False for
            outliers, which have no right class, so that the share is of those that are rejected.
        threshold: of the same detector, see `threshold`.
    Raises: ValueError for scores and flags of other kinds or lengths, and a threshold that is no finite number.
    """
    values, flags = _numbers("scores", scores), np.asarray(right.cpu() if isinstance(right, torch.Tensor) else right)
    if flags.dtype != bool or flags.shape != values.shape:
        raise ValueError(f"right must be bool {values.shape}, got {flags.dtype} of shape {flags.shape}")
    return float((flags | (values > checks.number("threshold", threshold))).mean())


def area_under_accuracy(eps: Scores, accuracy: Scores) -> float:
    """Return the area under the curve of accuracy over the radius of an attack, over its range: in [0, 1].

    The mean accuracy over a radius drawn evenly from 0 to the largest, by the trapezoid rule.

    Args: eps: radii (N,), at least two, 0 the first, rising. accuracy: (N,) in [0, 1], at each radius.
    Raises: ValueError for other radii and accuracies.
    """
    radii, heights = _numbers("eps", eps), _numbers("accuracy", accuracy)
    if len(radii) < 2 or radii[0] != 0 or (np.diff(radii) <= 0).any():
        raise ValueError(f"eps must be 0 and at least one larger radius, rising, got {radii.tolist()}")
    if heights.shape != radii.shape or heights.min() < 0 or heights.max() > 1:
        raise ValueError(f"accuracy must be {len(radii)} numbers in [0, 1], got {heights.tolist()}")
    return float(np.trapezoid(heights, radii) / radii[-1])
