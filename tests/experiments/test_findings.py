"""Measures, comparisons and tables from rows whose truth is known."""

import numpy as np
import pandas as pd
import pytest

from sparselib import experiments
from sparselib.experiments import plots, tables, words
from sparselib.experiments.findings import judge, measures, select
from sparselib.repro import parameters as typed
from sparselib.repro.page import Result

SEEDS = range(5)


def _rows(arm, sparsity, level, *, question="width", seeds=SEEDS, detected=None, **columns):
    """Rows of one network per seed: clean accuracy `level`, a little lower under attack, AUROCs as given."""
    made = []
    for seed in seeds:
        network = {"question": question, "arm": arm, "structured": False, "sparsity": sparsity, "seed": seed, **columns}
        wobble = 0.001 * np.sin(7 * seed + 10 * sparsity)
        attack = {"task": "attack", "attack": "pgd", "norm": "linf", "eps": 0.1}
        values = [
            ({"task": "clean"}, "accuracy", level + wobble),
            ({"task": "clean"}, "weights", 1000),
            (attack, "accuracy", level - 0.2 + wobble),
            (attack, "accuracy_ce", 1.0),
            ({"task": "shift", "shift": "fog", "severity": 4}, "accuracy", level - 0.1 + wobble),
            ({"task": "shift", "shift": "stripe", "severity": 4}, "accuracy", level - 0.3 + wobble),
        ]
        for anomaly, (family, value) in (detected or {}).items():
            about = {"task": "anomaly", "detector": "msp", "anomaly": anomaly, "family": family}
            values += [(about, "auroc", value + wobble), (about, "aupr_ood", value + wobble)]
        made += [
            {**network, **about, "metric": m, "value": v, "key": f"{arm} {sparsity} {seed}"} for about, m, v in values
        ]
    return pd.DataFrame(made)


def _detected(textures, uniform, attack):
    kinds = {"textures": "outliers", "uniform": "outliers", "pgd:0.1": "attacks"}
    return {name: (kinds[name], value) for name, value in zip(kinds, (textures, uniform, attack), strict=True)}


def _page(number, **values):
    return typed.resolve(typed.find(experiments.PAGES, number), values)


P = _page(1)


def _grid():
    size = {"question": "size", "size": 300}
    return pd.concat(
        [
            _rows("dense", 0.0, 0.9, detected=_detected(0.8, 0.6, 0.7)),
            _rows("magnitude after", 0.5, 0.95, detected=_detected(0.8, 0.6, 0.5)),
            _rows("magnitude after", 0.9, 0.5, detected=_detected(0.9, 0.7, 0.5)),
            _rows("snip before", 0.5, 0.7, detected=_detected(0.8, 0.6, 0.5)),
            _rows("snip before", 0.9, 0.6, detected=_detected(0.8, 0.6, 0.5)),
            _rows("dense", 0.0, 0.8, **size),
            _rows("magnitude after", 0.97, 0.85, **size),
            _rows("dense", 0.0, 0.9, question="size", size=9000),
            _rows("dense", 0.0, 0.6, question="noise"),
            _rows("fewer epochs", 0.0, 0.75, question="noise"),
            _rows("weight decay", 0.0, 0.61, question="noise"),
            _rows("narrow", 0.0, 0.62, question="noise"),
            _rows("snip before", 0.9, 0.7, question="noise"),
        ],
        ignore_index=True,
    )


def test_measures_are_percentages_of_the_right_rows():
    table = measures(_grid())
    one = select(table, {"question": "width", "arm": "magnitude after", "sparsity": 0.9, "seed": 2})
    wobble = 0.1 * np.sin(14 + 9)
    expected = {
        "clean": 50, "PGD, L∞ 0.1": 30, "shifts, mean": 30, "shifts, worst": 20, "MSP, outliers": 80,
        "MSP, attacks": 50,
    }  # fmt: skip
    found = dict(zip(one["measure"], one["value"], strict=True))
    assert found == pytest.approx({name: value + wobble for name, value in expected.items()})
    assert list(found)[:4] == list(expected)[:4], "clean first, then attacks, then shifts"


def test_all_metrics_of_detection_grow_with_quality():
    rows = _rows("dense", 0.0, 0.9, detected={"textures": ("outliers", 0.8)})
    rows.loc[rows["metric"] == "aupr_ood", "metric"] = "fpr95_ood"
    table = measures(rows, ("auroc", "fpr95_ood"))
    assert set(table["about"]) >= {"outliers", "outliers, 100 − FPR95"}
    assert select(table, {"measure": "MSP, outliers, 100 − FPR95"})["value"].mean() == pytest.approx(20, abs=0.2)


def test_the_three_questions_of_sparsity_are_kept_apart():
    found = judge(P.comparisons(), _grid())

    def verdict_of(question, subject, measure):
        (hit,) = (f for f in found if (f.question, f.subject, f.measure) == (question, subject, measure))
        return hit

    magnitude, snip = words.arm("magnitude after"), words.arm("snip before")
    width = "same width, against dense"
    assert verdict_of(width, magnitude, "clean").verdict == "supported", "a gain at one sparsity is enough"
    assert verdict_of(width, snip, "clean").verdict == "contradicted"
    assert verdict_of(width, magnitude, "MSP, outliers").verdict == "supported"
    assert verdict_of(width, magnitude, "MSP, attacks").verdict == "contradicted"
    size = verdict_of("same size, against narrow and dense", magnitude, "clean")
    assert size.verdict == "supported" and size.found[0].label == "300 weights"
    assert size.found[0].mean == pytest.approx(5, abs=0.5) and len(size.found) == 1
    assert verdict_of("noisy labels, against dense", snip, "clean").verdict == "supported"
    assert verdict_of("noisy labels, against dense, fewer epochs", snip, "clean").verdict == "contradicted"
    assert {f.subject for f in found if "noisy" in f.question} == {snip}, "controls are not judged"
    assert all(len(f.found) == 2 for f in found if f.question == width)
    assert {f.question for f in judge(P.compared("noise"), _grid())} == {
        f"noisy labels, against {words.ARMS[c]}" for c in ("dense", "fewer epochs", "weight decay", "narrow")
    }


def test_pooling_widens_the_intervals_and_names_the_recipe():
    found = judge(P.compared("width"), _grid())
    pooled = {f.measure: f for f in judge(P.compared("width"), _grid(), pooled=True)}
    one = next(f for f in found if (f.subject, f.measure) == (words.arm("magnitude after"), "clean"))
    assert len(pooled["clean"].found) == 4
    assert pooled["clean"].best.label == f"{words.arm('magnitude after')}, sparsity 0.5"
    assert pooled["clean"].best.high - pooled["clean"].best.low > one.best.high - one.best.low


def test_a_missing_seed_is_refused():
    rows = _grid()
    lost = (rows["question"] == "width") & (rows["arm"] == "snip before") & (rows["seed"] == 3)
    with pytest.raises(ValueError, match="must have the same seeds"):
        judge(P.comparisons(), rows[~lost])


def test_verdicts_stand_by_question_and_measure_and_are_counted():
    page, found = _Page(), judge(P.compared("width"), _grid())
    tables.verdicts(page, [Result(P, _grid(), live=True)], lambda p: p.compared("width"))
    (lines,) = page.tables
    assert [line[1] for line in lines] == [words.arm(recipe) for recipe in ("magnitude after", "snip before")]
    assert lines[0][2].startswith("**supported** +5.") and lines[0][2].endswith("at sparsity 0.5")
    supported = sum(f.verdict == "supported" for f in found)
    assert page.said == [f"digits: {len(found)} comparisons, {tables.counted(found)[len('12 comparisons, ') :]}"]
    assert f" {supported} supported" in page.said[0]
    tables.verdicts(page, [Result(P, _grid(), live=True)], lambda p: [])
    assert page.said[-1].startswith("Nothing can be compared, digits")


def test_the_chart_of_verdicts_says_how_many_there_are():
    found = judge(P.compared("width"), _grid())
    drawing = plots.shares({"digits": found, "mnist": found[:1]})
    assert "C1, mnist: 1 supported, 0 undecided, 0 contradicted" in drawing.alt
    assert [text.get_text() for text in drawing.fig.axes[0].get_yticklabels()] == ["C1, digits", "C1, mnist"]


def _masks():
    plain = {"question": np.nan, "learnt": False, "base": "trained", "batch_norm": "frozen"}
    learnt = {**plain, "learnt": True}
    restated = {**learnt, "batch_norm": "restated"}
    return pd.concat(
        [
            _rows("dense", 0.0, 0.9, **plain),
            _rows("random", 0.9, 0.3, **plain),
            _rows("magnitude", 0.9, 0.8, **{**plain, "batch_norm": "restated"}),
            _rows("adversarial", 0.9, 0.85, **learnt),
            _rows("adversarial", 0.5, 0.1, **learnt),
            _rows("adversarial", 0.9, 0.84, **restated),
            _rows("adversarial", 0.9, 0.4, **{**restated, "base": "untrained"}),
        ]
    )


def test_masks_are_named_in_order_and_compared_with_untrained_weights():
    p = _page(3)
    shown = tables.masks([Result(p, _masks(), live=True)])
    assert list(shown["network"].unique()) == [
        "dense", "learnt: attacks", "learnt: attacks, restated", "learnt: attacks, restated, untrained",
        "random weights", "largest weights, restated",
    ]  # fmt: skip
    assert set(shown["sparsity"]) == {0.0, 0.9}
    (clean,) = (f for f in judge(p.pretraining(), _masks()) if f.measure == "clean")
    assert clean.verdict == "supported" and clean.best.mean == pytest.approx(44)
    found = {f.question: f for f in judge(p.comparisons(), _masks()) if f.measure == "clean"}
    assert len(found["learnt masks, against dense"].found) == 2, "at both sparsities"
    assert found["learnt masks, statistics restated, against the largest weights"].best.mean == pytest.approx(4)


def test_sensnorm_is_compared_with_chance_and_with_its_rivals():
    p = _page(5, detectors=["msp", "sensnorm"], ablation=["sensnorm norm:1"])
    rows = pd.concat(
        [
            _rows("dense", 0.0, 0.9, question="rivals", detected=_detected(0.8, 0.6, 0.7)),
            _rows("dense", 0.0, 0.9, question="rivals", detected=_detected(0.9, 0.7, 0.4)).replace("msp", "sensnorm"),
        ]
    )
    found = {(f.question, f.measure): f for f in judge(p.comparisons(), rows)}
    assert found["SensNorm against chance", "outliers"].best.mean == pytest.approx(30, abs=0.1)
    assert found["SensNorm against chance", "attacks"].verdict == "contradicted"
    assert found["SensNorm against MSP", "outliers"].best.mean == pytest.approx(10)
    assert found["SensNorm against MSP", "attacks"].best.mean == pytest.approx(-30)
    assert {f.subject for f in found.values()} == {"SensNorm"}


def _family(question, **more):
    return [
        _rows("dense", 0.0, 0.9, question=question, **more),
        _rows("shrunk", 0.7, 0.85, question=question, **more),
        _rows("scratch", 0.7, 0.88, question=question, **more),
    ]


def _ensembles(question, count, macs):
    made = pd.concat(_family(question, members=count))
    made = made[made["task"].isin(["clean", "attack"]) & (made["metric"] == "accuracy")].assign(task="ensemble")
    first = made[made["attack"].isna()]
    cost = first.assign(metric="macs", value=count * first["arm"].map(macs))
    return pd.concat([made, cost])


MACS = {"dense": 100.0, "shrunk": 10.0, "scratch": 10.0}


def _costly(members=5):
    parts = [_ensembles("ensemble", n, MACS) for n in (1, members)]
    parts += [*_family("adversarial"), _ensembles("adversarial", 1, MACS)]
    for one in _family("smoothing"):
        right = one[(one["task"] == "clean") & (one["metric"] == "accuracy")].assign(task="certificate")
        parts += [right, right.assign(metric="certified"), right.assign(metric="macs", value=5e6)]
    return pd.concat(parts, ignore_index=True)


def test_shrunk_networks_are_compared_with_dense_ones_and_with_their_size_from_scratch():
    p = _page(4)
    found = {(f.subject, f.measure): f for f in judge(p.from_scratch(), _costly())}
    assert found["one network", "clean"].verdict == "contradicted"
    assert found["ensemble of 5", "clean"].best.mean == pytest.approx(-3)
    assert found["adversarial training", "PGD, L∞ 0.1"].best.mean == pytest.approx(-3)
    assert found["randomized smoothing", "right and certified"].best.mean == pytest.approx(-3)
    assert ("gradient detectors", "clean") not in found
    good = {(f.subject, f.measure): f.verdict for f in judge(p.as_good(), _costly())}
    assert good["ensemble of 5", "clean"] == "contradicted", "a loss of five points is no small one"
    assert judge(p.as_good(), _costly(), margin=6)[0].verdict == "supported"


def test_an_ensemble_is_compared_at_equal_cost_where_it_can_be_afforded():
    p = _page(4)
    (clean,) = (f for f in judge([p.equal_cost()], _costly()) if f.measure == "clean")
    assert clean.subject == "ensemble of 5" and clean.best.mean == pytest.approx(-5, abs=0.2)
    dear = _costly()
    dear.loc[(dear["metric"] == "macs") & (dear["arm"] == "shrunk"), "value"] *= 3
    assert judge([p.equal_cost()], dear) == []


def test_lines_of_cost_begin_at_the_dense_network():
    result = Result(_page(4), _costly(), live=True)
    table = tables.costs([result], "adversarial", "macs")
    first = table[table["sparsity"] == 0]
    assert set(table["network"]) == set(first["network"]) == {"shrunk", "from scratch"}
    assert first["macs"].unique() == pytest.approx([1e-4]), "in millions"
    ensembles = tables.costs([result], "ensemble", "macs")
    macs = ensembles.loc[ensembles["network"] == "ensemble of 5, shrunk", "macs"].unique()
    assert sorted(macs) == pytest.approx([5e-5, 5e-4])


class _Page:
    """Notes what is shown."""

    def __init__(self):
        self.tables, self.said = [], []

    def table(self, rows, head):
        self.tables.append([list(map(str, row)) for row in rows])

    def say(self, text):
        self.said.append(text)

    def fold(self, summary, rows, head):
        self.said.append(summary)
        self.tables.append([list(map(str, row)) for row in rows])


def test_a_shrunk_network_costs_its_parents_too():
    made = {"start": (0.0, 8.0), "pruned": (0.7, 4.0), "shrunk": (0.7, 1.0), "dense": (0.0, 9.0), "scratch": (0.7, 6.0)}
    rows = pd.concat(_rows(arm, s, 0.9, question="first").assign(seconds=t) for arm, (s, t) in made.items())
    page = _Page()
    tables.making(page, [Result(_page(4), rows, live=True)])
    assert page.tables == [
        [["digits", "standard", "dense", "9.0", "", ""], ["digits", "standard", "0.7", "", "13.0", "6.0"]]
    ]


def test_the_radius_begins_at_the_clean_accuracy():
    table = tables.over_radius(tables.together([Result(P, _rows("dense", 0.0, 0.9, question="radius"), live=True)]))
    means = table.groupby(["network", "norm", "eps"])["value"].mean()
    assert means["dense, PGD", "linf", 0.0] == pytest.approx(90, abs=0.1)
    assert means["dense, PGD", "linf", 0.1] == pytest.approx(70, abs=0.1)


def test_scales_stand_side_by_side_and_a_chart_says_what_it_shows():
    one, two = measures(_grid()), measures(_grid().assign(value=lambda t: t["value"] / 2))
    table = pd.concat([one.assign(scale="digits"), two.assign(scale="mnist")], ignore_index=True)
    table = tables.headline(table[(table["question"] == "width") & table["family"].isna()])
    assert "PGD, L∞" in set(table["measure"]), "the radius is not in the name"
    drawing = plots.lines(tables.started(table))
    titles = [axis.get_title() for axis in drawing.fig.axes if axis.axison]
    assert titles[:2] == ["clean, digits", "clean, mnist"] and len(titles) == 8
    assert "digits, clean: magnitude, after training 90 to 50" in drawing.alt
    assert "mnist, clean: magnitude, after training 45 to 25" in drawing.alt
    handles = {text.get_text() for legend in drawing.fig.legends for text in legend.get_texts()}
    assert handles == {"magnitude, after training", "SNIP, before training"}


def test_everything_that_parameters_allow_has_a_name():
    from sparselib import data
    from sparselib.detection import detectors
    from sparselib.pruning import criteria, schedules
    from sparselib.robustness import attacks, shifts

    assert set(words.CRITERIA) >= set(criteria.NAMES) and set(words.WHEN) == set(schedules.WHEN)
    assert set(words.DETECTORS) >= set(detectors.NAMES) and set(words.NORMS) == set(attacks.NORMS)
    known = {words.anomaly(name) for name in (*data.OUTLIERS, *data.NAMES, *shifts.KINDS)}
    assert not [name for name in known if "_" in name]
    assert words.detector("sensnorm layers:all norm:inf") == "SensNorm, all layers, p = ∞"
    assert words.anomaly("pgd:0.1") == "PGD, ε = 0.1" and words.anomaly("rotate:4") == "rotation, severity 4"
    for page in experiments.PAGES.values():
        p = typed.resolve(page, {})
        for role, step in p.roles():
            assert "_" not in words.network({"arm": "dense", **role})
            detector = step.columns().get("detector")
            assert detector is None or "_" not in words.detector(detector)
