import numpy as np
import pytest
from scipy import stats

from sparselib.experiments import statistics as verdict


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


def test_pairs_need_their_partners():
    differences = verdict.paired({3: 1.0, 1: 5.0, 2: 2.0}, {1: 4.0, 2: 4.0, 3: 4.0})
    assert differences.tolist() == [1.0, -2.0, -3.0], "in the order of the seeds"
    for treated, control in (({1: 2.0}, {2: 2.0}), ({}, {}), ({1: 1.0, 2: 1.0}, {1: 1.0})):
        with pytest.raises(ValueError, match="must have the same seeds"):
            verdict.paired(treated, control)


def test_intervals_of_a_family_are_corrected_for_its_size():
    rng = np.random.default_rng(1)
    family = {name: rng.normal(1, 2, 5) for name in "abc"}
    for contrast in verdict.contrasts(family):
        values = family[contrast.label]
        expected = stats.ttest_1samp(values, 0).confidence_interval(1 - 0.05 / 3)
        assert (contrast.low, contrast.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
        assert contrast.effect == pytest.approx(values.mean() / values.std(ddof=1)) and contrast.n == 5
    (constant,) = verdict.contrasts({"same": [2.0, 2.0, 2.0]})
    assert (constant.low, constant.high) == (2.0, 2.0) and np.isnan(constant.effect)
    with pytest.raises(ValueError, match="at least one contrast"):
        verdict.contrasts({})


def _contrast(low, high):
    return verdict.Contrast("x", 5, (low + high) / 2, low, high, 1.0)


@pytest.mark.parametrize(
    "intervals, better, good",
    [
        ([(-3, -2)], "contradicted", "contradicted"),
        ([(-3, 0.5)], "contradicted", "undecided"),
        ([(-3, 1.5)], "undecided", "undecided"),
        ([(-0.5, 1.5)], "undecided", "supported"),
        ([(0.1, 0.2)], "supported", "supported"),
        ([(-3, -2), (2, 3)], "supported", "supported"),
        ([(-3, -2), (-1, 3)], "undecided", "undecided"),
        ([(-np.inf, np.inf)], "undecided", "undecided"),
    ],
)
def test_the_rule(intervals, better, good):
    found = [_contrast(*pair) for pair in intervals]
    assert verdict.better_somewhere(found, margin=1.0) == better
    assert verdict.as_good(found, margin=1.0) == good


def test_chance_alone_is_seldom_called_a_gain():
    rng = np.random.default_rng(2)
    families = ({str(i): rng.normal(0, 1, 5) for i in range(6)} for _ in range(1000))
    called = [verdict.better_somewhere(verdict.contrasts(family), margin=1.0) for family in families]
    assert called.count("supported") / len(called) < 0.05


def test_the_rule_refuses_a_negative_margin():
    with pytest.raises(ValueError, match="margin must be in"):
        verdict.better_somewhere([_contrast(0, 1)], margin=-1.0)
