"""Calibration: does a network that is 80 % sure turn out right in 80 % of the cases? (Guo et al. 2017)"""

import torch

from sparselib import checks

NORMS = ("l1", "max")


def calibration_error(logits, y, *, bins=15, norm="l1"):
    """Return the gap in [0, 1] between confidence and accuracy over equally wide bins of the confidence max_k p_k.

    Args:
        logits: (N, K), finite, N at least 1, K at least 2; log-probabilities do as well.
        y: int64 (N,), the true labels, below K.
        bins: number of bins, at least 1; bin m holds the confidences in ((m − 1)/bins, m/bins].
        norm: "l1", the expected calibration error Σ_m |B_m|/N·|accuracy(B_m) − confidence(B_m)|, or "max", the
            largest of these gaps over the bins that are not empty.
    The value depends on the number of bins and, for few samples, is biased upwards: compare equal N and bins only.
    Raises: ValueError/TypeError for bad arguments. Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599, eq. 3, 5.
    """
    if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
        got = f"dtype {logits.dtype}" if isinstance(logits, torch.Tensor) else f"type {type(logits).__name__}"
        raise TypeError(f"logits must be a floating point tensor (N, K), got {got}")
    if logits.ndim != 2 or logits.shape[0] < 1 or logits.shape[1] < 2:
        raise ValueError(f"logits must have shape (N, K) with N >= 1 and K >= 2, got {tuple(logits.shape)}")
    if not torch.isfinite(logits).all():
        raise ValueError("logits must be finite, got NaN or infinity")
    checks.labels(y, logits)
    if int(y.max()) >= logits.shape[1]:
        raise ValueError(f"y must be below the number of classes, {logits.shape[1]}, got {int(y.max())}")
    checks.integer("bins", bins, low=1)
    checks.choice("norm", norm, NORMS)
    confidence, predicted = logits.detach().double().softmax(1).max(1)  # (N,)
    right = (predicted == y).double()
    inner = torch.arange(1, bins, device=logits.device, dtype=torch.float64) / bins
    member = torch.bucketize(confidence, inner)  # (N,): bin m where inner[m-1] < confidence <= inner[m]
    size = torch.bincount(member, minlength=bins)  # (bins,)
    # |B|·|accuracy − confidence| per bin is the absolute sum of its members' differences.
    gap = torch.bincount(member, weights=right - confidence, minlength=bins).abs()
    if norm == "l1":
        return (gap.sum() / len(y)).item()
    return (gap[size > 0] / size[size > 0]).max().item()
