"""Measures and comparisons from rows whose truth is known."""

import numpy as np
import pandas as pd
import pytest
from invented import SEEDS, WOBBLE, page, rows, together
from scipy import stats

from sparselib.experiments import findings, words
from sparselib.experiments.findings import AREA, STRONGEST, Comparison, compare, endpoint, endpoints, measures, select
from sparselib.experiments.measurements import Multitargeted
from sparselib.experiments.sparsity import weights

MSP = "msp"


def _found(comparison, *parts, delta=2.0):
    """Return {(arm, label, measure): Finding}."""
    return {(f.arm, f.label, f.measure): f for f in compare([comparison], together(*parts), delta=delta)}


def _versus(of, control, **more):
    return Comparison("C1a", "of against control", {"arm": of}, {"arm": control}, **more)


def _one(measure, *parts, **more):
    """Return the one Contrast of "unpruned" against "dense" in a measure."""
    (found,) = _found(_versus("unpruned", "dense", measures=(measure,), **more), *parts).values()
    return found.contrast


# Measures


def test_measures_are_percentages_of_the_right_rows():
    detected = {
        (MSP, "auroc", "near", "heldout"): 0.7, (MSP, "auroc", "near", "mixed"): 0.8,
        (MSP, "auroc", "far", "textures"): 0.95, (MSP, "auroc", "attacks", "pgd:0.1"): 0.6,
        (MSP, "ror", "near", "heldout"): 0.2, (MSP, "ror", "near", "mixed"): 0.4,
        (MSP, "ror", "far", "textures"): 0.6, (MSP, "ror", "attacks", "pgd:0.1"): 0.9,
        (MSP, "aupr_ood", "near", "heldout"): 0.11,
    }  # fmt: skip
    made = rows(
        "dense", clean=0.9, attacked={0.05: 0.7, 0.1: 0.4}, withstood={0.1: 0.3},
        shifted={"fog": 0.8, "rotate": 0.6, "jpeg": 0.85}, detected=detected,
        evaded={(MSP, "ror"): 0.3, (MSP, "ror_plain"): 0.5},
    )  # fmt: skip
    table = measures(made)
    found = dict(zip(table["measure"], table["value"], strict=False))
    assert found == pytest.approx(
        {
            "clean": 90,
            "PGD, L∞ 0.05": 70,
            "PGD, L∞ 0.1": 40,
            "PGD to each class, L∞ 0.05": 70,
            "PGD to each class, L∞ 0.1": 30,
            AREA: 100 * (0.05 * (0.9 + 0.7) / 2 + 0.05 * (0.7 + 0.4) / 2) / 0.1,
            STRONGEST: 100 * (0.05 * (0.9 + 0.7) / 2 + 0.05 * (0.7 + 0.3) / 2) / 0.1,
            "shifts, mean": 75,
            "shifts, worst": 60,
            "MSP, near": 75,
            "MSP, far": 95,
            "MSP, attacks": 60,
            "MSP, outliers": (75 + 95) / 2,
            "MSP, near, right or rejected": 30,
            "MSP, far, right or rejected": 60,
            "MSP, attacks, right or rejected": 90,
            "MSP, all anomalies, right or rejected": (30 + 60 + 90) / 3,
            "MSP, right or rejected, adaptive attack": 30,
            "MSP, right or rejected, PGD": 50,
        }
    )
    assert len(table) == len(SEEDS) * len(found) and (table["clean"] == 90).all()
    about = table.loc[table["detector"] == MSP, "about"]
    assert not about.str.contains("MSP").any() and {"near", "outliers", "right or rejected, PGD"} <= set(about)


def test_the_area_is_the_mean_accuracy_over_the_radius():
    radii, accuracy = [0.02, 0.05, 0.2], [0.8, 0.5, 0.1]
    table = measures(rows("dense", clean=0.95, attacked=dict(zip(radii, accuracy, strict=True))))
    grid = np.linspace(0, 0.2, 200_001)
    expected = 100 * np.interp(grid, [0, *radii], [0.95, *accuracy]).mean()
    assert select(table, {"measure": AREA})["value"].unique() == pytest.approx([expected], abs=1e-3)


def test_the_area_begins_at_the_accuracy_on_the_attacked_images():
    made = rows("dense", clean=0.9, attacked={0.1: 0.5})
    made.loc[made["metric"] == "accuracy_clean", "value"] = 1.0
    assert select(measures(made), {"measure": AREA})["value"].unique() == pytest.approx([75])


def test_networks_and_seeds_are_kept_apart_and_no_accuracy_is_no_clean_accuracy():
    detected = {(MSP, "auroc", "near", "heldout"): list(0.7 + WOBBLE)}
    table = measures(together(rows("dense", clean=list(0.9 + WOBBLE)), rows("sparse", 0.8, detected=detected)))
    dense, sparse = (select(table, {"arm": arm}).sort_values("seed") for arm in ("dense", "sparse"))
    assert dense["value"].tolist() == pytest.approx(100 * (0.9 + WOBBLE)) == dense["clean"].tolist()
    assert sparse["clean"].isna().all()
    assert select(sparse, {"measure": "MSP, near"})["value"].tolist() == pytest.approx(100 * (0.7 + WOBBLE))


def test_all_metrics_of_detection_grow_with_quality():
    detected = {(MSP, "auroc", "near", "heldout"): 0.8, (MSP, "fpr95_ood", "near", "heldout"): 0.3}
    table = measures(rows("dense", clean=0.9, detected=detected), ("auroc", "fpr95_ood"))
    assert select(table, {"measure": "MSP, near, 100 − FPR95"})["value"].unique() == pytest.approx([70])


def test_selecting_by_columns():
    table = pd.DataFrame({"arm": ["a", "b", "c"], "seed": [0, 1, 1]})
    assert select(table, {"arm": ("a", "c"), "seed": 1}).index.tolist() == [2]
    assert select(table, {"sparsity": 0.5}).empty and len(select(table, {})) == 3


# Comparisons


def test_pairs_are_those_of_scipys_paired_test():
    rng = np.random.default_rng(0)
    own, partner = rng.uniform(0.8, 0.9, 5), rng.uniform(0.7, 0.8, 5)
    made = [rows("unpruned", clean=list(own)), rows("dense", clean=list(partner))]
    expected = stats.ttest_rel(100 * own, 100 * partner)
    contrast = _one("clean", *made)
    assert (contrast.low, contrast.high) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-9)
    assert contrast.differences == pytest.approx(tuple(100 * (own - partner))), "in the order of the seeds"
    (found,) = _found(_versus("unpruned", "dense"), *made).values()
    assert found.values == pytest.approx((100 * own.mean(), 100 * partner.mean()))


@pytest.mark.parametrize("loss, comparable", [(1.9, True), (2.1, False)])
def test_the_gate_is_two_points_of_clean_accuracy(loss, comparable):
    own = rows("unpruned", clean=list(0.9 - loss / 100 + WOBBLE), attacked={0.1: list(0.6 + WOBBLE)})
    dense = rows("dense", clean=list(0.9 - WOBBLE), attacked={0.1: 0.5})
    assert _one("PGD, L∞ 0.1", own, dense).outcome == ("better" if comparable else "not comparable")
    assert _one("clean", own, dense).outcome != "not comparable", "clean accuracy itself is compared"


def test_a_better_clean_accuracy_passes_the_gate_and_none_is_none_to_gate():
    detected = {(MSP, "auroc", "near", "heldout"): list(0.7 + WOBBLE)}, {(MSP, "auroc", "near", "heldout"): 0.6}
    good, plain = rows("unpruned", clean=0.99, detected=detected[0]), rows("dense", clean=0.9, detected=detected[1])
    assert _one("MSP, near", good, plain).outcome == "better"
    untold = rows("unpruned", detected=detected[0]), rows("dense", detected=detected[1])
    assert _one("MSP, near", *untold).outcome == "better"


@pytest.mark.parametrize("own, partner, floor", [
    (0.005, 0.015, True), (0.118, 0.141, True), (0.985, 0.995, True), (0.03, 0.01, False), (0.14, 0.151, False),
])  # fmt: skip
def test_at_the_floor_of_accuracy_nothing_is_compared(own, partner, floor):
    """Chance among eight classes is 12.5 %."""
    made = [rows(a, clean=0.9, attacked={0.1: value}) for a, value in (("unpruned", own), ("dense", partner))]
    assert (_one("PGD, L∞ 0.1", *made).outcome == "floor") == floor


@pytest.mark.parametrize("own, partner, floor", [(0.49, 0.515, True), (0.49, 0.53, False), (0.12, 0.13, False)])
def test_an_auroc_of_one_half_is_chance(own, partner, floor):
    made = [
        rows(arm, clean=0.9, detected={(MSP, "auroc", "far", "textures"): value})
        for arm, value in (("unpruned", own), ("dense", partner))
    ]
    assert (_one("MSP, far", *made).outcome == "floor") == floor


def test_of_areas_a_tenth_of_the_partners_value_matters():
    """The areas are 36 % and 33 %: 3 points apart, within a tenth of 33 %. The accuracies are 6 points apart."""
    own = rows("unpruned", clean=0.6, attacked={0.1: list(0.12 + WOBBLE / 10)})
    dense = rows("dense", clean=0.6, attacked={0.1: 0.06})
    area, pgd = (_one(measure, own, dense) for measure in (AREA, "PGD, L∞ 0.1"))
    assert area.mean == pytest.approx(3) and area.delta == pytest.approx(3.3)
    assert area.told == "better by less than 3.3"
    assert pgd.delta == 2 and pgd.told == "better"


def test_each_measure_has_its_best_control():
    own = rows("snip before", 0.9, clean=list(0.7 + WOBBLE), attacked={0.1: list(0.5 + WOBBLE)})
    controls = [
        rows("dense", clean=0.6, attacked={0.1: 0.30}),
        rows("weight decay", clean=0.75, attacked={0.1: 0.2}),
        rows("narrow", clean=0.69, attacked={0.1: 0.45}),
    ]
    compared = _versus("snip before", ("dense", "weight decay", "narrow"), best=True)
    found = {measure: f for (_, _, measure), f in _found(compared, own, *controls).items()}
    assert found["clean"].contrast.mean == pytest.approx(-5) and found["clean"].values[1] == pytest.approx(75)
    pgd = found["PGD, L∞ 0.1"]
    assert pgd.contrast.mean == pytest.approx(5) and pgd.contrast.outcome == "better", "gated by the narrow one's 69 %"


def _sizes(losses=()):
    """Wide networks pruned to three sizes, and narrow ones: better by 10, 4 and 1 points, up to a wobble."""
    made = []
    for size, gain in ((300, 0.1), (900, 0.04), (2000, 0.01)):
        more = {"question": "size", "size": size, "seeds": [s for s in SEEDS if (size, s) not in losses]}
        pruned = {"clean": 0.9, "attacked": {0.1: list(0.5 + size / 1e4 + gain + size / 300 * WOBBLE)}}
        made.append(rows("magnitude after", 1 - size / 9000, **pruned, **more))
        narrow = {"clean": 0.9, "attacked": {0.1: 0.5 + size / 1e4}}
        made.append(rows("unpruned", 0.0, **narrow, **{**more, "seeds": SEEDS}))
    return together(*made)


def test_equal_sizes_are_compared():
    compared = Comparison("C1b", "same size", {"arm": "magnitude after"}, {"arm": "unpruned"}, match=("size",))
    found = {f.label: f.contrast.mean for f in compare([compared], _sizes()) if f.measure == "PGD, L∞ 0.1"}
    assert found == pytest.approx({"300 weights": 10, "900 weights": 4, "2,000 weights": 1})


def test_an_endpoint_is_the_mean_over_its_lines():
    _, same_size = page(1).primary()
    (found,) = compare([same_size], _sizes())
    wobble = 50 * np.mean([1, 3, 2000 / 300]) * WOBBLE  # half: the area is the mean of clean and attacked accuracy
    assert found.contrast.differences == pytest.approx(tuple(2.5 + wobble))
    assert found.measure == STRONGEST and found.contrast.delta == pytest.approx(found.values[1] / 10)
    assert sorted(part.contrast.mean for part in found.parts) == pytest.approx([0.5, 2, 5])
    assert endpoint(found).number == f"{found.contrast}, of 3 sizes from +0.5 to +5.0"
    (alone,) = compare([same_size], _sizes().query("size == 300"))
    assert not alone.parts and endpoint(alone).number == str(alone.contrast)


def test_an_endpoint_tells_of_sizes_that_lost_their_clean_accuracy():
    rows = _sizes()
    broken = (rows["size"] == 300) & (rows["arm"] == "magnitude after") & rows["attack"].isna()
    rows.loc[broken, "value"] -= 0.04
    (found,) = compare(list(page(1).primary())[1:], rows)
    assert found.contrast.outcome != "not comparable", "their mean is near enough"
    assert endpoint(found).number.endswith(", 1 not comparable by itself")


def test_seeds_that_are_missing_are_refused():
    own, dense = rows("unpruned", clean=0.9), rows("dense", clean=0.9)
    for parts in ((own[own["seed"] != 3], dense), (own, dense[dense["seed"] != 3])):
        with pytest.raises(ValueError, match=r"must have the same seeds.*\[3\]"):
            _one("clean", *parts)
    with pytest.raises(ValueError, match=r"300 weights of .* lacks \[2\]"):
        compare(list(page(1).primary())[1:], _sizes(losses=[(300, 2)]))


def test_several_values_for_a_seed_are_refused():
    twice = [rows("unpruned", clean=0.9, width=width) for width in (4, 8)]
    with pytest.raises(ValueError, match="several values of clean for a seed"):
        _one("clean", *twice, rows("dense", clean=0.9, width=8))
    twice = [rows("dense", clean=0.9, width=width) for width in (4, 8)]
    with pytest.raises(ValueError, match="the control has several values of a measure for a seed"):
        _one("clean", rows("unpruned", clean=0.9, width=8), *twice)


def test_what_was_not_measured_of_both_is_not_compared():
    own = rows("unpruned", clean=0.9, attacked={0.1: 0.5})
    assert set(_found(_versus("unpruned", "dense"), own, rows("dense", clean=0.9))) == {
        (words.arm("unpruned"), "", "clean")
    }
    assert not _found(_versus("unpruned", "narrow"), own, rows("dense", clean=0.9))


def test_recipes_are_compared_with_what_trains_in_their_phases():
    p = page(1, recipes=["magnitude after", "snip before"], sparsities=[0.5, 0.8])
    width = {"question": "width"}
    made = [rows("dense", clean=0.90, **width), rows("unpruned", clean=0.94, **width)]
    for how in p.recipes:
        made += [rows(how, sparsity, clean=0.95 - sparsity / 100, **width) for sparsity in p.sparsities]
    found = {
        (f.comparison.question, f.arm, f.label): f.contrast.mean for f in compare(p.comparisons(), together(*made))
    }
    after, before = "same width, against unpruned, in the same phases", "same width, against dense"
    assert found == pytest.approx(
        {
            (before, words.arm("snip before"), "sparsity 0.5"): 4.5,
            (before, words.arm("snip before"), "sparsity 0.8"): 4.2,
            (after, words.arm("magnitude after"), "sparsity 0.5"): 0.5,
            (after, words.arm("magnitude after"), "sparsity 0.8"): 0.2,
        }
    )


def test_sensnorm_is_compared_with_its_rivals_on_the_same_networks():
    p = page(5, detectors=["msp", "sensnorm", "sensnorm-ayle"], ablation=["sensnorm norm:1"], sparsities=[0.8])
    made = []
    for arm, sparsity, gain in (("dense", 0.0, 0.1), ("sparse", 0.8, 0.05)):
        values = {"msp": 0.7 + sparsity / 10, "sensnorm": 0.7, "sensnorm-ayle": 0.7 + sparsity / 10 + gain}
        detected = {(name, "auroc", "near", "heldout"): list(v + WOBBLE / 9) for name, v in values.items()}
        made.append(rows(arm, sparsity, detected=detected, question="rivals"))
    named = {
        (f.comparison.question, f.label, f.measure): f.contrast.mean for f in compare(p.comparisons(), together(*made))
    }
    assert named["SensNorm (authors’) against MSP", "", "near"] == pytest.approx(10)
    assert named["SensNorm (authors’) against MSP", "sparsity 0.8", "near"] == pytest.approx(5)
    assert named["SensNorm against MSP", "sparsity 0.8", "near"] == pytest.approx(-8)
    dense, sparse = endpoints(p, together(*made))
    assert "dense networks" in dense.question and np.mean(dense.differences) == pytest.approx(10)
    assert "sparse networks" in sparse.question and np.mean(sparse.differences) == pytest.approx(5)


def test_the_endpoint_of_masks_is_under_the_adaptive_attack():
    p = page(3, mask_sparsities=[0.5, 0.9])
    plain = {"base": "trained", "batch_norm": "frozen"}
    made = [
        rows("dense", 0.0, 0.9, evaded={(MSP, "ror"): 0.3, (MSP, "ror_plain"): 0.4}, learnt=False, **plain),
        rows("adversarial", 0.5, 0.9, evaded={(MSP, "ror"): list(0.4 + WOBBLE)}, learnt=True, **plain),
        rows("adversarial", 0.9, 0.9, evaded={(MSP, "ror"): 0.9}, learnt=True, **plain),
        rows("clean", 0.5, 0.9, evaded={(MSP, "ror"): 0.8}, learnt=True, **plain),
    ]
    (found,) = endpoints(p, together(*made))
    assert found.differences == pytest.approx(tuple(10 + 100 * WOBBLE)) and found.outcome == "better"
    number = findings.endpoint(compare(p.primary(), together(*made))[0]).number
    assert found.number == f"{number}; there is no batch-norm to learn instead"
    own = {"learnt": False, "base": "trained", "batch_norm": "learnt"}
    made.append(rows("scales", 0.0, 0.9, evaded={(MSP, "ror"): list(0.35 + WOBBLE)}, **own))
    (found,) = endpoints(p, together(*made))
    assert found.number.startswith(f"{number}; batch-norm learnt instead: +5.0 [")


def test_what_an_endpoint_compares_and_nothing_else_is_attacked_towards_every_class():
    p = page(1, seeds=2, recipes=["magnitude after", "snip before"], sparsities=[0.5, 0.8], narrow_widths=[5])
    pairs = [(role, step.model) for role, step in p.roles() if isinstance(step, Multitargeted)]
    found = {(role["question"], role["arm"], round(net.columns()["sparsity"], 1)) for role, net in pairs}
    narrow = round(1 - weights(p.trained(0, width=5)) / weights(p.trained(0)), 1)
    same_size = {("size", "unpruned", 0.0), ("size", "magnitude after", narrow)}
    assert found == {("width", "magnitude after", 0.8), ("width", "unpruned", 0.0), *same_size}
    assert {step.eps for _, step in p.roles() if isinstance(step, Multitargeted)} == set(p.eps_linf)
