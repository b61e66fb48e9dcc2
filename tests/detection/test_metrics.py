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
