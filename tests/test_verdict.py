import numpy as np
import pytest
from scipy import stats

from sparselib import verdict


def test_interval_equals_scipys_t_test():
    values = np.random.default_rng(0).normal(3, 2, 7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    mean, low, high = verdict.interval(values, level=0.9)
    assert (mean, low, high) == pytest.approx((values.mean(), expected.low, expected.high), rel=1e-12)


def test_one_value_has_an_unbounded_interval_and_bad_ones_are_refused():
    assert verdict.interval([2.0]) == (2.0, -np.inf, np.inf)
    for values in ([], [1.0, np.nan]):
        with pytest.raises(ValueError, match="finite and not empty"):
            verdict.interval(values)
