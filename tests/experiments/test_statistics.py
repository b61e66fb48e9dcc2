"""Intervals, p values and the rule, against scipy and statsmodels."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from sparselib.experiments import statistics
from sparselib.experiments.statistics import BETTER, EQUAL, FLOOR, NOT_COMPARABLE, OPEN, WORSE


def _around(mean, half, n=5):
    """Return n differences whose 95 % interval is mean ± half."""
    values = np.linspace(-1, 1, n)
    spread = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return mean + values * half / spread


def test_interval_equals_scipys_t_test():
    values = np.random.default_rng(0).normal(3, 2, 7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = statistics.interval(values)
    assert found == pytest.approx((values.mean(), expected.low, expected.high), rel=1e-12)


def test_one_value_has_an_unbounded_interval_and_bad_ones_are_refused():
    assert statistics.interval([2.0]) == (2.0, -np.inf, np.inf)
    for values in ([], [1.0, np.nan]):
        with pytest.raises(ValueError, match="finite and not empty"):
            statistics.interval(values)


def test_pairs_need_their_partners():
    differences = statistics.paired({3: 1.0, 1: 5.0, 2: 2.0}, {1: 4.0, 2: 4.0, 3: 4.0})
    assert differences.tolist() == [1.0, -2.0, -3.0], "in the order of the seeds"
    for treated, control in (({1: 2.0}, {2: 2.0}), ({}, {}), ({1: 1.0, 2: 1.0}, {1: 1.0})):
        with pytest.raises(ValueError, match="must have the same seeds"):
            statistics.paired(treated, control)


def test_a_contrast_is_scipys_paired_test():
    rng = np.random.default_rng(1)
    own, partner = rng.normal(81, 2, 5), rng.normal(80, 2, 5)
    expected = stats.ttest_rel(own, partner)
    found = statistics.contrast(own - partner, 2.0)
    low, high = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert statistics.p_value(found.differences) == pytest.approx(expected.pvalue, rel=1e-12)
    assert found.mean == pytest.approx((own - partner).mean())


@pytest.mark.parametrize(
    "mean, half, outcome, told",
    [
        (5.0, 1.0, BETTER, "better"),
        (3.0, 2.9, BETTER, "better"),
        (1.0, 0.5, BETTER, "better by less than 2"),
        (-5.0, 1.0, WORSE, "worse"),
        (-1.0, 0.5, WORSE, "worse by less than 2"),
        (0.0, 1.9, EQUAL, "equal within 2"),
        (-0.5, 1.4, EQUAL, "equal within 2"),
        (0.0, 2.1, OPEN, "open"),
        (1.0, 1.1, OPEN, "open"),  # up to 2.1, from below 0
        (-3.0, 3.1, OPEN, "open"),
    ],
)
def test_the_rule(mean, half, outcome, told):
    found = statistics.contrast(_around(mean, half), 2.0)
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half))
    assert (found.outcome, found.told) == (outcome, told)
    assert statistics.contrast(_around(mean, half), 2.0, floor=True).outcome == FLOOR
    for floor in (True, False):
        gated = statistics.contrast(_around(mean, half), 2.0, comparable=False, floor=floor)
        assert gated.outcome == gated.told == NOT_COMPARABLE, "never better, whatever the difference"


def test_one_seed_tells_nothing_and_a_negative_delta_is_refused():
    assert statistics.contrast([50.0], 2.0).outcome == OPEN
    assert statistics.p_value([50.0]) == 1.0 and statistics.detectable([50.0]) == np.inf
    with pytest.raises(ValueError, match="delta must be"):
        statistics.contrast([1.0, 2.0], -1.0)


def test_equal_differences_are_certain():
    assert statistics.p_value([2.0, 2.0, 2.0]) == 0.0 and statistics.p_value([0.0, 0.0]) == 1.0
    assert statistics.contrast([3.0, 3.0, 3.0], 2.0).outcome == BETTER
    assert statistics.contrast([0.0, 0.0, 0.0], 2.0).outcome == EQUAL


def test_a_contrast_is_told_with_its_interval():
    assert str(statistics.contrast(_around(-1.25, 0.5), 2.0)) == "-1.2 [-1.8, -0.8]"
    assert str(statistics.contrast([3.0], 2.0)) == "+3.0 (one seed, so no interval)"


@pytest.mark.parametrize(
    "one, other, chance, floor",
    [
        (0.5, 1.9, None, True),
        (0.5, 2.1, None, False),
        (98.1, 100, None, True),
        (97.0, 99.5, None, False),
        (11.0, 13.5, 12.5, True),
        (11.0, 13.5, None, False),
        (51.9, 48.1, 50.0, True),
        (1.0, 99.0, 50.0, False),  # near an end each, but not the same
    ],
)
def test_at_the_floor_both_are_near_the_same_end(one, other, chance, floor):
    assert statistics.at_floor(one, other, chance) is floor
    assert statistics.at_floor(other, one, chance) is floor


def test_losses_are_excluded_and_shown_by_scipys_one_sided_test():
    rng = np.random.default_rng(2)
    for mean in (-6, -2.5, -1, 0, 3):
        values = rng.normal(mean, 1.5, 6)
        no_worse = 2 * stats.ttest_1samp(values, -2, alternative="greater").pvalue
        worse = 2 * stats.ttest_1samp(values, -2, alternative="less").pvalue
        assert statistics.p_no_worse(values, 2) == pytest.approx(min(1, no_worse), rel=1e-9)
        assert statistics.p_worse(values, 2) == pytest.approx(min(1, worse), rel=1e-9)
        assert (statistics.p_no_worse(values, 2) < 0.05) == (statistics.contrast(values, 2).low > -2)
        assert (statistics.p_worse(values, 2) < 0.05) == (statistics.contrast(values, 2).high < -2)


def test_holm_equals_statsmodels():
    rng = np.random.default_rng(3)
    for size in (1, 2, 5, 9):
        for p in (rng.uniform(0, 1, size), rng.uniform(0, 0.03, size), np.full(size, 0.02)):
            expected = multipletests(p, method="holm")[1]
            assert statistics.holm(list(p)) == pytest.approx(expected, rel=1e-12)
    assert statistics.holm([]) == []


def test_what_could_be_found_is_what_statsmodels_says():
    for n in (5, 8, 20):
        values = np.random.default_rng(n).normal(1, 3, n)
        expected = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8) * values.std(ddof=1)
        assert statistics.detectable(values) == pytest.approx(expected, rel=0.02)


def test_chance_alone_is_seldom_called_a_difference():
    rng = np.random.default_rng(4)
    found = [statistics.contrast(rng.normal(0, 3, 5), 2.0).outcome for _ in range(2000)]
    called = (found.count(BETTER) + found.count(WORSE)) / len(found)
    assert called == pytest.approx(0.05, abs=0.015)


def test_a_family_of_endpoints_is_seldom_wrong_anywhere():
    rng = np.random.default_rng(5)
    least = [min(statistics.holm([statistics.p_value(rng.normal(0, 3, 5)) for _ in range(6)])) for _ in range(1000)]
    assert np.mean(np.array(least) < 0.05) < 0.07


def test_no_interval_goes_beyond_what_a_difference_of_percentages_can_be():
    found = statistics.contrast([1.1, -24.8], 2.0)
    assert (found.low, found.high) == (-100.0, 100.0) and found.outcome == OPEN
    assert statistics.contrast([3.0], 2.0).high == np.inf, "a single seed has none"
