import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparselib.detection import calibration
from sparselib.detection.calibration import calibration_error


def _binary(confidence):
    """Logits of two classes that predict class 0 with the given confidences, above 1/2."""
    p = torch.tensor(confidence, dtype=torch.float64)
    return torch.stack([p, 1 - p], dim=1).log()


def test_cases_by_hand():
    four_of_five = torch.tensor([0, 0, 0, 0, 1])
    assert calibration_error(_binary([0.8] * 5), four_of_five) == pytest.approx(0, abs=1e-12)
    assert calibration_error(_binary([0.9] * 5), four_of_five) == pytest.approx(0.1)
    assert calibration_error(_binary([0.9] * 4), torch.ones(4).long()) == pytest.approx(0.9)
    # Two bins: 0.6 against 1 of 2 right, 0.95 against 2 of 2.
    logits, y = _binary([0.6, 0.6, 0.95, 0.95]), torch.tensor([0, 1, 0, 0])
    assert calibration_error(logits, y) == pytest.approx((2 * 0.1 + 2 * 0.05) / 4)
    assert calibration_error(logits, y, norm="max") == pytest.approx(0.1)
    # One bin: the errors cancel, 0.775 against 3 of 4.
    assert calibration_error(logits, y, bins=1) == pytest.approx(0.025)


def test_a_confidence_on_the_edge_belongs_to_the_bin_below():
    logits, y = torch.tensor([[0.0, 0.0], [99.0, 0.0]]), torch.tensor([0, 1])  # 0.5 and right, 1 and wrong
    # (0, 0.5] and (0.5, 1] hold one each; in one bin half of the errors would cancel.
    assert calibration_error(logits, y, bins=2) == pytest.approx((0.5 + 1) / 2)


def _loop(logits, y, bins):
    gaps, total = [], 0.0
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    for m in range(bins):
        inside = [i for i in range(len(y)) if m / bins < p[i].max() <= (m + 1) / bins]
        if inside:
            accuracy = np.mean([p[i].argmax() == y[i] for i in inside])
            gaps.append(abs(accuracy - np.mean([p[i].max() for i in inside])))
            total += len(inside) / len(y) * gaps[-1]
    return total, max(gaps)


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 5), st.integers(1, 20), st.sampled_from([0.3, 3, 100]))
def test_equals_a_loop_over_the_bins(seed, n, k, bins, scale):
    rng = np.random.default_rng(seed)
    logits, y = scale * rng.normal(size=(n, k)), rng.integers(0, k, n)
    expected, worst = _loop(logits, y, bins)
    ours = [calibration_error(torch.tensor(logits), torch.tensor(y), bins=bins, norm=v) for v in calibration.NORMS]
    assert ours == pytest.approx([expected, worst], abs=1e-12)
    assert 0 <= ours[0] <= ours[1] + 1e-12 <= 1 + 2e-12


def test_a_network_that_knows_its_odds_is_calibrated_and_an_overconfident_one_is_not():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(20000, 4, generator=rng)
    y = torch.multinomial(logits.softmax(1), 1, generator=rng).squeeze(1)
    assert calibration_error(logits, y) < 0.02 < 0.2 < calibration_error(4 * logits, y)


def test_bad_arguments_are_named():
    logits, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    bad = [
        (ValueError, "logits must be finite", lambda: calibration_error(logits * math.nan, y)),
        (ValueError, r"logits must have shape \(N, K\)", lambda: calibration_error(logits[:0], y[:0])),
        (ValueError, r"logits must have shape \(N, K\)", lambda: calibration_error(logits[:, :1], y * 0)),
        (TypeError, "logits must be a floating point tensor", lambda: calibration_error(logits.long(), y)),
        (TypeError, "logits must be a floating point tensor", lambda: calibration_error(logits.tolist(), y)),
        (ValueError, "y must be below the number of classes, 3, got 3", lambda: calibration_error(logits, y + 1)),
        (ValueError, r"y must have shape \(4,\)", lambda: calibration_error(logits, y[:3])),
        (ValueError, "bins must be at least 1, got 0", lambda: calibration_error(logits, y, bins=0)),
        (ValueError, "unknown norm 'l2'", lambda: calibration_error(logits, y, norm="l2")),
    ]
    for kind, message, call in bad:
        with pytest.raises(kind, match=message):
            call()
