import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from sparselib.detection import metrics

# Small integers: ties within and between the two sides.
scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40)


@given(scores, scores)
def test_metrics_equal_scikit_learn_with_ties(inside, outside):
    truth, values = [0] * len(inside) + [1] * len(outside), inside + outside
    assert metrics.auroc(inside, outside) == pytest.approx(oracle.roc_auc_score(truth, values), abs=1e-12)
    assert metrics.aupr(inside, outside) == pytest.approx(oracle.average_precision_score(truth, values), abs=1e-12)
    flipped = oracle.average_precision_score([1 - t for t in truth], [-v for v in values])
    assert metrics.aupr(inside, outside, positive="id") == pytest.approx(flipped, abs=1e-12)


@given(scores, scores)
def test_auroc_counts_pairs_and_fpr_counts_thresholds(inside, outside):
    a, b = np.array(inside), np.array(outside)
    pairs = (b[:, None] > a).mean() + 0.5 * (b[:, None] == a).mean()
    assert metrics.auroc(a, b) == pytest.approx(pairs, abs=1e-12)
    threshold = max(t for t in b if (b >= t).mean() >= 0.95)
    assert metrics.fpr_at_95_tpr(a, b) == pytest.approx((a >= threshold).mean(), abs=1e-12)
    assert metrics.fpr_at_95_tpr(a, b, positive="id") == pytest.approx(metrics.fpr_at_95_tpr(-b, -a), abs=1e-12)


def test_the_two_fpr_conventions_differ():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(0, 1, 1000), rng.normal(2, 3, 1000)
    assert metrics.fpr_at_95_tpr(inside, outside) > metrics.fpr_at_95_tpr(inside, outside, positive="id") + 0.2


def test_bad_scores_are_refused():
    good = torch.rand(3)
    with pytest.raises(ValueError, match="ood_scores must be finite"):
        metrics.auroc(good, torch.tensor([1.0, torch.nan]))
    with pytest.raises(ValueError, match="id_scores must not be empty"):
        metrics.aupr([], good)
    with pytest.raises(ValueError, match="unknown positive 'ID'; did you mean 'id'|unknown positive 'ID'"):
        metrics.fpr_at_95_tpr(good, good, positive="ID")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_scores_of_any_precision_are_compared_in_float64(dtype):
    own, other = torch.tensor([1, 2, 3]).to(dtype), torch.tensor([2, 3, 4]).to(dtype)
    assert metrics.auroc(own, other) == metrics.auroc([1.0, 2.0, 3.0], [2.0, 3.0, 4.0])


@pytest.mark.parametrize("scores", [torch.ones(2, 2), 3.0, ["a"], [1j], [[1.0]], None])
def test_scores_that_are_no_row_of_numbers_are_named(scores):
    with pytest.raises(ValueError, match="ood_scores must be numbers"):
        metrics.auroc([0.5], scores)


shares = st.sampled_from([0, 0.05, 0.1, 0.25, 0.29, 1 / 3, 0.5, 0.9, 0.999])


@given(scores, shares)
def test_the_threshold_is_the_lowest_score_with_few_enough_above(inside, allowed):
    a = np.array(inside)
    expected = min(t for t in a if (a > t).sum() <= allowed * len(a) + 1e-9)
    assert metrics.threshold(inside, allowed) == expected
    assert metrics.threshold(torch.tensor(inside), allowed) == expected


def test_thresholds_of_distinct_and_tied_scores():
    rising = np.random.default_rng(0).permutation(100).astype(float)
    assert metrics.threshold(rising) == 94  # 95 … 99 are above: five of a hundred
    assert metrics.threshold(rising, 0) == 99
    for percent in range(100):  # 0.29·100 is less than 29 in floating point
        assert (rising > metrics.threshold(rising, percent / 100)).sum() == percent
    tied = np.array([0.0] * 94 + [1.0] * 6)  # six at the top: all rejected would be more than five
    assert metrics.threshold(tied) == 1
    assert metrics.threshold([0.0] * 95 + [1.0] * 5) == 0
    assert metrics.threshold([2.0]) == 2 == metrics.threshold([2.0, 2.0, 2.0], 0.5)


@given(st.lists(st.tuples(st.integers(-3, 3).map(float), st.booleans()), min_size=1), st.integers(-4, 4).map(float))
def test_right_or_rejected_counts_inputs_one_by_one(rows, threshold):
    outside, right = [score for score, _ in rows], [flag for _, flag in rows]
    expected = sum(1 for score, flag in rows if flag or score > threshold) / len(rows)
    assert metrics.right_or_rejected(outside, right, threshold) == pytest.approx(expected, abs=1e-12)
    assert metrics.right_or_rejected(torch.tensor(outside), torch.tensor(right), threshold) == pytest.approx(expected)


def test_right_or_rejected_at_its_corners():
    outside = torch.tensor([0.0, 1.0, 2.0, 3.0])  # 1.0 is at the threshold, and passes
    assert metrics.right_or_rejected(outside, torch.zeros(4, dtype=torch.bool), 1.0) == 0.5
    assert metrics.right_or_rejected(outside, [True, False, False, False], 1.0) == 0.75
    assert metrics.right_or_rejected(outside, [False, False, True, True], 1.0) == 0.5
    assert metrics.right_or_rejected(outside, np.ones(4, dtype=bool), 9.0) == 1


def test_area_under_accuracy_in_closed_form():
    assert metrics.area_under_accuracy([0, 1, 4], [0.7, 0.7, 0.7]) == pytest.approx(0.7, abs=1e-12)
    eps = np.array([0, 0.5, 3, 4])
    assert metrics.area_under_accuracy(eps, 1 - eps / 4) == pytest.approx(0.5, abs=1e-12)
    assert metrics.area_under_accuracy(torch.tensor(eps), 0.9 - 0.2 * eps) == pytest.approx(0.5, abs=1e-12)
    # A drop in the first tenth of the range leaves a twentieth; wider gaps weigh more.
    assert metrics.area_under_accuracy([0, 1, 10], [1, 0, 0]) == pytest.approx(0.05, abs=1e-12)
    assert metrics.area_under_accuracy([0, 9, 10], [1, 0, 0]) == pytest.approx(0.45, abs=1e-12)
    assert metrics.area_under_accuracy([0, 2], [1, 0.5]) == metrics.area_under_accuracy([0, 8], [1, 0.5]) == 0.75


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1)), min_size=1, max_size=6), st.floats(0, 1))
def test_area_under_accuracy_is_the_mean_height_of_the_drawn_curve(steps, first):
    eps, accuracy = np.cumsum([0, *(width for width, _ in steps)]), [first, *(height for _, height in steps)]
    middles = (np.arange(1000 * eps[-1]) + 0.5) / 1000  # the middles of intervals that no corner cuts
    expected = np.interp(middles, eps, accuracy).mean()
    assert metrics.area_under_accuracy(eps, accuracy) == pytest.approx(expected, abs=1e-9)


def test_bad_thresholds_flags_and_curves_are_refused():
    for call, kind, message in [
        (lambda: metrics.threshold([]), ValueError, "id_scores must not be empty"),
        (lambda: metrics.threshold([1.0, np.nan]), ValueError, "id_scores must be finite"),
        (lambda: metrics.threshold([1.0], 1.0), ValueError, r"false_alarms must be in \[0, 1\), got 1.0"),
        (lambda: metrics.threshold([1.0], -0.1), ValueError, r"false_alarms must be in \[0, 1\), got -0.1"),
        (lambda: metrics.threshold([1.0], "5%"), TypeError, "false_alarms must be a number"),
        (lambda: metrics.right_or_rejected([1.0], [1], 0.0), ValueError, r"right must be bool \(1,\), got int64"),
        (lambda: metrics.right_or_rejected([1.0], [True, False], 0.0), ValueError, r"of shape \(2,\)"),
        (lambda: metrics.right_or_rejected([1.0], [True], np.nan), ValueError, "threshold must be finite"),
        (lambda: metrics.area_under_accuracy([0.1, 0.2], [1, 1]), ValueError, "eps must be 0 and at least one larger"),
        (lambda: metrics.area_under_accuracy([0], [1]), ValueError, "at least one larger radius, rising, got"),
        (lambda: metrics.area_under_accuracy([0, 2, 1], [1, 1, 1]), ValueError, "rising"),
        (lambda: metrics.area_under_accuracy([0, 1, 1], [1, 1, 1]), ValueError, "rising"),
        (lambda: metrics.area_under_accuracy([0, 1], [1]), ValueError, "accuracy must be 2 numbers in"),
        (lambda: metrics.area_under_accuracy([0, 1], [100, 50]), ValueError, r"in \[0, 1\], got \[100.0, 50.0\]"),
    ]:
        with pytest.raises(kind, match=message):
            call()
