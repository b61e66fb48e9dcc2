"""The endpoints of claims, alone and corrected for their number."""

import numpy as np
import pytest
from invented import WOBBLE, ensembles, page, rows, together
from scipy import stats
from statsmodels.stats.multitest import multipletests

from sparselib.experiments import findings, statistics
from sparselib.experiments.findings import Endpoint, corrected, endpoints


def _endpoint(differences, delta=2.0):
    contrast = statistics.contrast(differences, delta)
    p = statistics.p_value(differences)
    return Endpoint("C1", "?", str(contrast), contrast.outcome, p, 1.0, contrast.differences, delta)


def _with_p(p, sign=1, spread=1.0):
    """Return five differences whose two-sided p is this."""
    values = spread * WOBBLE / WOBBLE.std(ddof=1)
    return values + sign * spread * stats.t.isf(p / 2, 4) / np.sqrt(5)


def test_endpoints_are_corrected_by_holm():
    given = [0.04, 0.001, 0.012, 0.6]
    found = corrected([_endpoint(_with_p(p)) for p in given])
    expected = multipletests(given, method="holm")[1]
    assert [e.p for e in found] == pytest.approx(list(expected), rel=1e-6)
    assert [e.outcome for e in found] == ["open", "better", "better", "equal"]


@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_not_borne_out_is_open(sign):
    differences = _with_p(0.03, sign)
    alone = corrected([_endpoint(differences)])[0]
    assert alone.outcome == _endpoint(differences).outcome and alone.outcome.startswith(("better", "worse"))
    for one in corrected([_endpoint(differences), _endpoint(differences)]):
        assert one.outcome == "open" and one.p == pytest.approx(0.06)
        assert one.told == "open after correction" and not alone.undone
        assert one.differences == tuple(differences) and one.number == alone.number, "the number stays"


def test_what_claims_no_difference_is_not_opened():
    told = [_endpoint(_with_p(0.9, spread=0.5)), _endpoint([0.1, 60.0, -70.0])]
    floor = statistics.contrast(_with_p(0.04), 2.0, floor=True)
    told.append(Endpoint("C1", "?", str(floor), floor.outcome, 0.04, 1.0, floor.differences, 2.0))
    assert [e.outcome for e in corrected(told)] == ["equal", "open", "floor"]
    assert corrected([]) == []


def test_an_endpoint_carries_what_the_rule_is_applied_to():
    p = page(1)
    width = {"question": "width"}
    made = together(
        rows("unpruned", clean=0.9, attacked={0.1: 0.5}, **width),
        rows("magnitude after", 0.8, clean=0.9, attacked={0.1: list(0.54 + WOBBLE)}, **width),
        rows("magnitude after", 0.5, clean=0.9, attacked={0.1: 0.1}, **width),
        rows("snip before", 0.8, clean=0.9, attacked={0.1: 0.1}, **width),
    )
    (found,) = endpoints(p, made)
    expected = 2 + 50 * WOBBLE  # of the area, a half
    assert found.claim == "C1a" and "0.8" in found.question
    assert found.differences == pytest.approx(tuple(expected)) and found.delta == pytest.approx(7.0)
    assert found.p == pytest.approx(stats.ttest_1samp(expected, 0).pvalue, rel=1e-6)
    assert found.detectable == pytest.approx(statistics.detectable(expected))
    assert found.number.startswith("+2.0 [") and (found.outcome, found.told) == ("better", "better by less than 7")


def test_detection_has_two_endpoints():
    def detected(near, ror):
        return {
            ("msp", "auroc", "near", "heldout"): near, ("msp", "auroc", "far", "textures"): near + 0.1,
            ("msp", "ror", "shifts", "fog:3"): ror, ("msp", "ror", "far", "textures"): ror - 0.2,
        }  # fmt: skip

    p, width = page(2), {"question": "width"}
    made = together(
        rows("unpruned", clean=0.9, detected=detected(0.7, 0.6), **width),
        rows("magnitude after", 0.8, clean=0.9, detected=detected(0.75, 0.55), **width),
    )
    outliers, everything = endpoints(p, made)
    assert outliers.question.endswith(
        "AUROC of MSP on near and far outliers"
    ) and outliers.differences == pytest.approx((5,) * 5)
    assert everything.question.endswith("right or rejected, by MSP") and everything.differences == pytest.approx(
        (-5,) * 5
    )


# C3: the least share of the cost. Dense: 90 % right, an AUROC of 80 %.

SHARE = {0.5: 0.4, 0.7: 0.2, 0.85: 0.1}


def _cost(clean, near, *, delta=2.0, **more):
    made = ensembles(dict(zip(SHARE, clean, strict=True)), dict(zip(SHARE, near, strict=True)), SHARE, **more)
    (found,) = endpoints(page(4, unit_sparsities=list(SHARE), scratch_sparsities=[0.7]), made, delta=delta)
    return found


GOOD, GOOD_NEAR = list(0.9 + WOBBLE), list(0.79 + WOBBLE)
BAD = list(0.86 + WOBBLE)  # 4 points lost
BAD_NEAR = list(0.76 + WOBBLE)


def test_the_smallest_size_that_loses_nothing_counts():
    found = _cost([GOOD] * 3, [GOOD_NEAR] * 3)
    assert found.number.startswith("10 % of the multiplications") and found.outcome == "better"


def test_what_the_cheap_ensemble_loses_under_attack_is_told_beside():
    found = _cost([GOOD] * 3, [GOOD_NEAR] * 3, attacked={"dense": 0.5, "shrunk": list(0.3 + WOBBLE)})
    assert found.outcome == "better" and "; not asked for, accuracy under attack: -20.0 [" in found.number
    assert found.number.endswith("], worse; none from scratch)")


@pytest.mark.parametrize("clean, near", [
    ([GOOD, BAD, GOOD], [GOOD_NEAR] * 3), ([GOOD] * 3, [GOOD_NEAR, BAD_NEAR, GOOD_NEAR]),
])  # fmt: skip
def test_testing_ends_at_the_first_size_that_fails(clean, near):
    found = _cost(clean, near)
    assert found.number.startswith("40 % of the multiplications"), "the smallest is not tested any more"
    assert found.outcome == "better"
    assert found.differences == pytest.approx(tuple(100 * (np.array(GOOD_NEAR) - 0.8))), "those of the size it names"
    assert "-1.0 [" in found.number


def test_the_p_of_the_cost_is_the_one_sided_test_of_the_largest_size_in_the_worse_measure():
    found = _cost([GOOD, BAD, BAD], [GOOD_NEAR] * 3)
    p = stats.ttest_1samp(100 * (np.array(GOOD_NEAR) - 0.8), -2, alternative="greater").pvalue
    assert found.p == pytest.approx(2 * p, rel=1e-6)
    assert _cost([GOOD] * 3, [GOOD_NEAR] * 3, delta=5.0).p < found.p


def test_where_the_largest_size_loses_the_cost_is_worse_even_when_corrected():
    found = _cost([BAD] * 3, [GOOD_NEAR] * 3)
    p = stats.ttest_1samp(100 * (np.array(BAD) - 0.9), -2, alternative="less").pvalue
    assert found.outcome == "worse" and found.number.startswith("100 %") and "-4.0 [" in found.number
    assert found.p == pytest.approx(2 * 2 * p, rel=1e-6), "two-sided, in either of two measures"
    assert corrected([found])[0].outcome == "worse"


def test_where_the_seeds_cannot_tell_the_cost_is_open():
    wide = list(0.9 + 10 * WOBBLE)
    found = _cost([wide, GOOD, GOOD], [GOOD_NEAR] * 3)
    assert found.outcome == "open" and found.number.startswith("100 %") and found.p > 0.05
    assert corrected([found])[0].outcome == "open"


def test_without_near_outliers_there_is_no_such_endpoint():
    made = ensembles({0.5: GOOD}, {0.5: GOOD_NEAR}, {0.5: 0.4}).replace("near", "far")
    assert endpoints(page(4), made) == []


def test_shrunk_networks_are_compared_with_dense_ones_and_with_their_size_from_scratch():
    p = page(4, unit_sparsities=[0.5, 0.7], scratch_sparsities=[0.7])
    more = {"question": "adversarial"}
    made = together(
        rows("dense", 0.0, 0.9, attacked={0.1: 0.5}, **more),
        rows("shrunk", 0.5, 0.89, attacked={0.1: 0.45}, **more),
        rows("shrunk", 0.7, 0.89, attacked={0.1: 0.4}, **more),
        rows("scratch", 0.7, 0.89, attacked={0.1: 0.42}, **more),
    )
    found = {
        (f.comparison.question, f.arm, f.label): f.contrast.mean
        for f in findings.compare(p.comparisons(), made)
        if f.measure == "PGD, L∞ 0.1"
    }
    dense, scratch = (f"adversarial training: shrunk against {control}" for control in ("dense", "from scratch"))
    assert found == pytest.approx(
        {
            (dense, "shrunk", "sparsity 0.5"): -5,
            (dense, "shrunk", "sparsity 0.7"): -10,
            (scratch, "shrunk", "sparsity 0.7"): -2,
        }
    )
