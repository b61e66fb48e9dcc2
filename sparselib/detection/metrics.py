"""Detection metrics, over scikit-learn (scores: higher = more anomalous)."""

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from sparselib import checks

Scores = torch.Tensor | np.ndarray


def _binary(id_scores, ood_scores, positive):
    """Return (labels, scores) with the positive class scored high."""
    checks.choice("positive", positive, ("ood", "id"))
    scores, is_ood = [], []
    for label, (name, values) in enumerate((("id_scores", id_scores), ("ood_scores", ood_scores))):
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
        scores.append(values)
        is_ood.append(np.full(len(values), float(label)))
    labels, values = np.concatenate(is_ood), np.concatenate(scores)
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
    positive="id" (Hendrycks 2017, ODIN): how many anomalies pass when 95 % of the ID inputs do.
    The two differ widely on the same scores: always say which.
    """
    fpr, tpr, _ = roc_curve(*_binary(id_scores, ood_scores, positive), drop_intermediate=False)
    return float(fpr[np.argmax(tpr >= 0.95)])
