"""What pages tell of findings, and what charts say of themselves."""

import json
import math

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from invented import WOBBLE, ensembles, page, rows, together

from sparselib import data, experiments
from sparselib.detection import detectors
from sparselib.experiments import plots, statistics, tables, verdict, words
from sparselib.experiments.findings import Endpoint
from sparselib.pruning import criteria, schedules
from sparselib.repro import parameters as typed
from sparselib.repro.page import Result
from sparselib.robustness import attacks, shifts


class _Page:
    """Notes what is shown."""

    def __init__(self):
        self.tables, self.said, self.leads, self.explorers = [], [], [], []

    def table(self, rows, head, caption=""):
        self.tables.append([list(map(str, row)) for row in rows])

    def grouped(self, groups, head, caption=""):
        self.table([[title, *row] for title, rows in groups.items() for row in rows], head)

    def say(self, text):
        self.said.append(text)

    def lead(self, text):
        self.leads.append(text)

    def explorer(self, kind, data, label):
        self.explorers.append((kind, json.loads(json.dumps(data, allow_nan=False))))

    def fold(self, summary, rows, head, caption=""):
        self.said.append(summary)
        self.table(rows, head)


P = page(1, recipes=["magnitude after", "snip before"], sparsities=[0.5, 0.8])


def _result(gain=0.04, p=P, **more):
    """The networks of figure 1 at one width: magnitude .8 gains under attack, .5 is broken, SNIP .8 loses."""
    width = {"question": "width"}
    made = together(
        rows("dense", clean=0.9, attacked={0.1: 0.5}, **width),
        rows("unpruned", clean=0.9, attacked={0.1: 0.5}, **width),
        rows("magnitude after", 0.8, clean=0.9, attacked={0.1: list(0.5 + gain + WOBBLE)}, **width),
        rows("magnitude after", 0.5, clean=0.5, attacked={0.1: list(0.6 + WOBBLE)}, **width),
        rows("snip before", 0.8, clean=0.9, attacked={0.1: list(0.4 + WOBBLE)}, **width),
        rows("snip before", 0.5, clean=0.9, attacked={0.1: 0.5}, **width),
    )
    return Result(p, made.assign(**more), live=True)


def test_a_mean_that_no_row_gives_is_told_by_a_dash():
    run = _Page()
    made = pd.DataFrame({"seed": [0, 1, 0], "method": ["a", "a", "b"], "metric": ["x", "x", "y"], "value": [1, 2, 3]})
    tables.means(run, made, ["method"], "metric")
    assert run.tables == [[["a", "1.5", "–"], ["b", "–", "3.0"]]]


def test_the_answer_is_every_endpoint_with_its_interval_and_outcome():
    run, result = _Page(), _result()
    tables.answer(run, [result])
    (text,) = run.leads
    _, low, high = statistics.interval(2 + 50 * WOBBLE)
    told = f"**better by less than 7 on its own**, +2.0 [{low:.1f}, {high:.1f}] (digits, 5 seeds)."
    question = (
        "Pruned after training by magnitude (sparsity 0.8) minus left unpruned: accuracy under the strongest "
        "attack, over all radii"
    )
    assert text.startswith('<details class="answer" open>') and f"- {question}: {told}" in text
    tables.answer(run, [result, _mnist()])
    assert run.leads[1].count("\n- ") == 1 and "(digits, 5 seeds); **" in run.leads[1] and "(MNIST, " in run.leads[1]
    assert text.count("\n- ") == 1 and "Nothing" not in text
    tables.answer(run, [Result(P, rows("dense", clean=0.9, question="width"), live=True)])
    assert "- Nothing can be compared." in run.leads[-1]


def test_contrasts_are_one_line_each():
    table = tables.contrasts([_result()])
    assert {"PGD, L∞ 0.1", "clean"} <= set(table["measure"])
    assert (table.groupby("measure").size() == 4).all()
    cells = table.set_index(["line", "measure"])["told"]
    magnitude, snip = words.arm("magnitude after"), words.arm("snip before")
    assert cells[f"{magnitude}, sparsity 0.8", "PGD, L∞ 0.1"] == "better"
    assert cells[f"{magnitude}, sparsity 0.5", "PGD, L∞ 0.1"] == "not comparable"
    assert cells[f"{magnitude}, sparsity 0.5", "clean"] == "worse"
    assert cells[f"{snip}, sparsity 0.8", "PGD, L∞ 0.1"] == "worse"
    assert cells[f"{snip}, sparsity 0.5", "PGD, L∞ 0.1"] == "equal within 2"
    line = table.set_index(["line", "measure"]).loc[(f"{snip}, sparsity 0.8", "PGD, L∞ 0.1")]
    assert (line["own"], line["partner"], line["mean"]) == pytest.approx((40, 50, -10))
    assert tables.contrasts([]).empty


def test_every_contrast_stands_in_a_table_of_its_question():
    run = _Page()
    tables.every_contrast(run, tables.contrasts([_result()]).query("measure == 'PGD, L∞ 0.1'"))
    assert run.said == ["digits: same width, against dense", "digits: same width, against unpruned, in the same phases"]
    snip, _ = sorted(run.tables[0], reverse=True)
    assert snip[:4] == [f"{words.arm('snip before')}, sparsity 0.8", "PGD, L∞ 0.1", "50.0", "40.0"]
    assert snip[4].startswith("-10.0 [") and snip[5] == "worse"


def _judged():
    one, two = _result(), _result(0.001)
    rest = ensembles({0.5: 0.9}, {0.5: list(0.799 + WOBBLE)}, {0.5: 0.4})
    cost = Result(page(4, unit_sparsities=[0.5], scratch_sparsities=[0.5]), rest, live=True)
    return verdict.ends({"digits": [one, cost], "mnist": [two]}, 2.0)


def test_endpoints_are_corrected_within_their_scale():
    found = _judged()
    alone = verdict.ends({"digits": [_result()]}, 2.0)["digits"][0]
    gain, cost = found["digits"]
    assert len(found["mnist"]) == 1 and found["mnist"][0].outcome == "equal"
    apart = statistics.p_no_worse(100 * (0.799 + WOBBLE - 0.8), 2.0)
    assert [gain.p, cost.p] == pytest.approx(statistics.holm([alone.p, apart]))


def test_verdicts_and_power_tell_every_endpoint():
    run, found = _Page(), _judged()
    verdict.verdicts(run, found)
    (lines,) = run.tables
    assert [line[0][:4] for line in lines] == ["C1a:", "C1a:", "C3: "], "claims together"
    assert [line[1] for line in lines] == ["digits", "MNIST", "digits"]
    assert (
        lines[0][4] == "**better by less than 7**"
        and lines[1][4] == "**equal within 7**"
        and lines[2][4] == "**better**"
    )
    assert lines[2][2].startswith("40 % of the multiplications")
    first, last = run.leads[0].splitlines()
    assert (
        first.startswith("- **C1a**. ")
        and "7**, +2.0" in first
        and "; **equal within 7**, +0.1" in first
        and "(MNIST)" in first
    )
    assert last.startswith("- **C3**. Ensemble of shrunk networks: least cost") and "**better**, 40 %" in last
    assert not run.explorers, "areas and shares of cost have a δ that does not move"
    verdict.power(run, found)
    assert [line[0][:3] for line in run.tables[-1]] == ["C1a", "C1a", "C3:"]
    assert run.tables[-1][1][1:] == ["MNIST", f"{found['mnist'][0].detectable:.1f}"]
    verdict.power(run, {"digits": [Endpoint("C4", "alone", "", "open", 1.0, math.inf, (1.0,), 2.0)]})
    assert run.tables[-1] == [["C4: alone", "digits", "none (one seed has no spread)"]]


def test_endpoints_can_be_drawn():
    table = verdict.end_points(_judged())
    assert set(table["outcome"]) <= set(statistics.OUTCOMES) and len(table) == 3
    drawing = plots.forest(table)
    told = "pruned after training by magnitude (sparsity 0.8) minus left unpruned"
    assert (
        f"C1a: {told}: accuracy under the strongest attack, over all radii, digits: +2.0, better by less than 7"
        in drawing.alt
    )


# Captions


def test_a_caption_tells_the_ends_of_what_a_figure_shows_at_each_scale():
    lines = [("digits", "a", 60.0), ("digits", "b", 70.0), ("digits", "dense", 65.0), ("digits", "b", 72.0)]
    table = pd.DataFrame(lines, columns=["scale", "network", "value"])
    assert tables.reach(table) == "at best 71 % (b), at worst 60 % (a)"
    assert tables.reach(table, beside="dense") == "at best 71 % (b), at worst 60 % (a), beside 65 % (dense)"
    assert tables.reach(table[table["network"] == "a"]) == "60 % (a)"
    both = pd.concat([table, table.assign(scale="mnist", value=50.0)[:1]])
    assert (
        tables.reach(both, beside="dense")
        == "at best 71 % (b), at worst 60 % (a), beside 65 % (dense) on digits; 50 % (a) on MNIST"
    )


def test_a_caption_tells_the_ends_of_the_differences_but_for_what_is_not_comparable():
    magnitude, snip = words.arm("magnitude after"), words.arm("snip before")
    told = tables.spread(tables.contrasts([_result()]), "PGD, L∞ 0.1")
    assert told == f"at best +4.0 ({magnitude}, sparsity 0.8: better), at worst -10.0 ({snip}, sparsity 0.8: worse)"
    assert tables.spread(tables.contrasts([_result()]), "nothing of it") == "nothing that is comparable"


def test_a_caption_sums_up_the_outcomes():
    assert verdict.summed_up(_judged()) == "Digits: better: C1a, C3. MNIST: equal: C1a"
    halves = [Endpoint("C4", half, "", outcome, 1.0, 1.0, (1.0, 2.0), 2.0) for half, outcome in
              (("dense", "worse"), ("sparse", "open"))]  # fmt: skip
    assert verdict.summed_up({"digits": halves}) == "Open: C4 (2 of 2); worse: C4 (1 of 2)"


def test_only_what_all_networks_of_a_scale_have_is_compared():
    table = pd.DataFrame(
        {"scale": "digits", "network": list("aabb"), "sparsity": [0.5, 0.8, 0, 0.5], "size": [4, 1, 9, 1]}
    )
    assert tables.smallest_shared(table).index.tolist() == [0, 3]
    assert tables.smallest(table, "size").index.tolist() == [1, 3]


# Charts


def test_a_forest_plot_says_every_difference_and_shows_outcomes_apart():
    asked = ("clean", "PGD, L∞ 0.1")
    table = tables.contrasts([_result(), _mnist()])
    drawing = plots.forest(table, asked)
    table = table[table["measure"].isin(asked)]
    for line in table.itertuples():
        assert f"{words.scale(line.scale)}, {line.measure}, {line.line}: {line.mean:+.1f}, {line.told}" in drawing.alt
    assert "digits, PGD, L∞ 0.1, SNIP, before training, sparsity 0.8: -10.0, worse" in drawing.alt
    titles = [axis.get_title() for axis in drawing.fig.axes]
    assert titles == ["clean, digits", "PGD, L∞ 0.1, digits", "clean, MNIST", "PGD, L∞ 0.1, MNIST"]
    (legend,) = drawing.fig.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == [o for o in plots.OUTCOMES if o in set(table["outcome"])] and "not comparable" in shown
    first, axis = drawing.fig.axes[:2]
    heads = table.loc[table["scale"] == "digits", "head"].unique()
    assert [t.get_text().replace("\n", " ") for t in first.texts] == [f"{head}, at sparsity" for head in heads]
    assert [t.get_text() for t in first.get_yticklabels()] == ["0.5", "0.8"] * len(heads)
    assert all(text.get_window_extent().x1 < drawing.fig.bbox.x1 for text in first.texts), "names fit into the figure"
    markers = {c.get_label(): c.lines[0].get_marker() for c in axis.containers}
    assert markers["not comparable"] == "x" != markers["worse"]
    points = {c.get_label(): sorted(c.lines[0].get_xdata()) for c in axis.containers}
    assert points["worse"] == pytest.approx([-10]) and points["better"] == pytest.approx([4])


def _mnist():
    result = _result(0.1)
    return Result(result.parameters.model_copy(update={"profile": "mnist"}), result.rows, live=True)


def test_a_forest_plot_of_one_seed_has_no_bar_and_a_wide_interval_ends_in_an_arrowhead():
    line = {"scale": "", "measure": "", "head": "C1: asked", "unit": "", "of": "", "delta": 2.0, "told": "open"}
    table = pd.DataFrame([
        {**line, "line": "one", "at": 0, "label": "one", "mean": 3.0, "low": -math.inf, "high": math.inf,
         "outcome": "open", "seeds": (3.0,)},
        {**line, "line": "wide", "at": 1, "label": "wide", "mean": 5.0, "low": -90.0, "high": 6.0, "outcome": "equal",
         "seeds": (4.0, 6.0)},
    ])  # fmt: skip
    (axis,) = plots.forest(table).fig.axes
    low, high = axis.get_xlim()
    assert -90 < low < -2 and 6 < high < 30, "the single seed bounds nothing"
    bars = {c.get_label(): c.lines[2][0].get_segments() for c in axis.containers}
    assert np.ptp(bars["open"][0][:, 0]) == 0 and np.ptp(bars["equal"][0][:, 0]) == 96
    heads = [shown for shown in axis.lines if shown.get_marker() in ("<", ">")]
    assert [(head.get_marker(), head.get_xdata()[0]) for head in heads] == [("<", low)]
    dots = [sorted(shown.get_xdata()) for shown in axis.lines if shown.get_marker() == "."]
    assert dots == [[4.0, 6.0], [3.0]], "each seed is a dot"


def test_scales_that_attack_at_other_radii_are_compared_in_one_column():
    other = rows("dense", clean=0.9, attacked={0.3: 0.5}, learnt=False, base="trained", batch_norm="frozen")
    made = [Result(page(3, eps=eps).model_copy(update={"profile": scale}), other, live=True)
            for scale, eps in (("digits", 0.1), ("mnist", 0.3))]  # fmt: skip
    found = pd.DataFrame(
        {
            "scale": ["digits", "digits", "mnist", "mnist"],
            "measure": ["PGD, L∞ 0.1", "clean", "PGD, L∞ 0.3", "PGD, L∞ 0.1"],
        }
    )
    table, names = tables.alike(found, made)
    assert names[:2] == ["clean", "PGD, L∞"]
    assert table.values.tolist() == [["digits", "PGD, L∞"], ["digits", "clean"], ["mnist", "PGD, L∞"]]
    assert tables.alike(found[:2], made[:1])[1][1] == "PGD, L∞ 0.1", "one scale keeps its radius"


def test_a_line_begins_at_its_own_partner():
    shared = {"scale": "digits", "measure": "clean", "seed": 0}
    arms = [("dense", 0.0, 90.0), ("unpruned", 0.0, 95.0), ("a", 0.8, 80.0), ("b", 0.8, 85.0)]
    table = pd.DataFrame([{**shared, "arm": a, "sparsity": s, "value": v, "structured": False} for a, s, v in arms])
    lines = tables.started(table, {"a": "dense", "b": "unpruned"}.get)
    told = {arm: own.sort_values("sparsity")["value"].tolist() for arm, own in lines.groupby("arm")}
    assert told == {"a": [90.0, 80.0], "b": [95.0, 85.0]}


def test_a_network_that_a_scale_lacks_is_not_an_empty_row():
    table = pd.DataFrame({"scale": ["digits", "digits", "mnist"], "network": ["a", "b", "a"], "value": [1.0, 2.0, 3.0]})
    drawing = plots.dots(table, category="network")
    said = [[t.get_text() for t in axis.texts if t.get_text() == "not measured"] for axis in drawing.fig.axes]
    assert said == [[], ["not measured"]] and drawing.scales == ("digits", "mnist")


def test_outcomes_differ_in_more_than_their_colour():
    shapes = [look[1:] for look in plots.OUTCOMES.values()]
    assert set(plots.OUTCOMES) == set(statistics.OUTCOMES) and len(set(shapes)) == len(shapes)
    better, worse = (plots.OUTCOMES[o] for o in (statistics.BETTER, statistics.WORSE))
    assert better[1] != worse[1]
    grey = [matplotlib.colors.to_rgb(plots.OUTCOMES[o][0]) for o in (statistics.FLOOR, statistics.NOT_COMPARABLE)]
    assert all(len(set(rgb)) == 1 for rgb in grey)


def test_scales_stand_side_by_side_and_a_chart_says_what_it_shows():
    one = _result()
    half = Result(_mnist().parameters, one.rows.assign(value=lambda t: t["value"] / 2), live=True)
    table = tables.headline(tables.together([one, half]))
    assert "PGD, L∞" in set(table["measure"]), "the radius is not in the name"
    table = table[table["measure"].isin(["clean", "PGD, L∞"]) & (table["arm"] != "unpruned")]
    drawing = plots.lines(tables.started(table))
    titles = [axis.get_title() for axis in drawing.fig.axes if axis.axison]
    assert sorted(titles) == ["PGD, L∞, MNIST", "PGD, L∞, digits", "clean, MNIST", "clean, digits"]
    assert "digits, PGD, L∞: " in drawing.alt and "SNIP, before training 50 to 40" in drawing.alt
    assert "MNIST, PGD, L∞: " in drawing.alt and "SNIP, before training 25 to 20" in drawing.alt
    handles = {text.get_text() for legend in drawing.fig.legends for text in legend.get_texts()}
    assert handles == {"magnitude, after training", "SNIP, before training"}


def test_the_middle_radius_stands_for_a_norm():
    made = rows("dense", clean=0.9, attacked={0.05: 0.8, 0.1: 0.6, 0.2: 0.1}, question="width")
    table = tables.headline(tables.together([Result(P, made, live=True)]))
    assert table.loc[table["measure"] == "PGD, L∞", "value"].unique() == pytest.approx([60])


def test_the_radius_begins_at_the_clean_accuracy():
    made = rows("dense", clean=0.9, attacked={0.1: 0.7}, question="radius")
    table = tables.over_radius(tables.together([Result(P, made, live=True)]))
    means = table.groupby(["network", "norm", "eps"])["value"].mean()
    assert means["dense, PGD", "linf", 0.0] == pytest.approx(90)
    assert means["dense, PGD", "linf", 0.1] == pytest.approx(70)


def test_masks_are_named_in_order():
    plain = {"learnt": False, "base": "trained", "batch_norm": "frozen"}
    restated = {"batch_norm": "restated"}
    made = together(
        rows("random", 0.9, 0.3, **{**plain, **restated}),
        rows("scales", 0.0, 0.9, **{**plain, "batch_norm": "learnt"}),
        rows("adversarial", 0.9, 0.85, **{**plain, "learnt": True}),
        rows("adversarial", 0.5, 0.1, **{**plain, "learnt": True}),
        rows("adversarial", 0.9, 0.4, **{**plain, **restated, "learnt": True, "base": "untrained"}),
        rows("dense", 0.0, 0.9, **plain),
    )
    shown = tables.masks([Result(page(3, mask_sparsities=[0.9]), made, live=True)])
    names = list(shown["network"].unique())
    assert names[0] == "dense"
    assert set(names[1:3]) == {
        words.ARMS["adversarial"],
        f"{words.ARMS['adversarial']}, batch-norm restated, weights untrained",
    }
    assert set(names[3:]) == {"random mask, batch-norm restated", words.ARMS["scales"]}
    assert set(shown["sparsity"]) == {0.0, 0.9}


def test_masks_that_are_drawn_have_the_sparsity_of_the_endpoint_of_their_scale():
    plain = {"base": "trained", "batch_norm": "frozen"}
    made = [
        Result(
            page(3, mask_sparsities=[at, 0.95]).model_copy(update={"profile": scale}),
            together(
                rows("dense", 0.0, 0.9, learnt=False, **plain),
                *(rows("adversarial", s, 0.8, learnt=True, **plain) for s in (at, 0.95)),
            ),
            live=scale == "digits",
        )
        for scale, at in (("digits", 0.3), ("mnist", 0.9))
    ]
    shown = tables.masks(made)
    assert {scale: set(own["sparsity"]) for scale, own in shown.groupby("scale")} == {
        "digits": {0.0, 0.3}, "mnist": {0.0, 0.9},
    }  # fmt: skip


def test_lines_of_cost_begin_at_the_dense_network():
    share = {0.5: 0.4, 0.7: 0.2}
    made = [ensembles(dict.fromkeys(share, 0.9), dict.fromkeys(share, 0.8), share, members=n) for n in (1, 5)]
    table = tables.costs([Result(page(4), together(*made), live=True)], "ensemble", "macs")
    macs = {name: sorted(own["macs"].unique()) for name, own in table.groupby("network")}
    assert macs == {name: pytest.approx([0.2, 0.4, 1.0]) for name in ("one, shrunk", "ensemble, shrunk")}


def test_a_network_costs_its_parents_too():
    made = {"start": (0.0, 8.0), "pruned": (0.7, 4.0), "shrunk": (0.7, 1.0), "dense": (0.0, 3.0), "scratch": (0.7, 6.0)}
    table = pd.concat(
        rows(arm, s, 1000, question="first").assign(seconds=t, metric="weights") for arm, (s, t) in made.items()
    )
    run = _Page()
    tables.making(run, [Result(page(4), table, live=True)])
    assert run.tables == [
        [["digits", "standard", "dense", "11.0", "–", "–"], ["digits", "standard", "0.7", "–", "13.0", "6.0"]]
    ]


def test_detectors_are_ranked_by_their_mean():
    table = pd.DataFrame({"detector": ["msp", "knn", "msp", "knn"], "value": [60.0, 90, 70, 10]})
    assert tables.ranked(table)["detector"].tolist() == ["msp", "msp", "knn", "knn"]


def test_everything_that_parameters_allow_has_a_name():
    assert set(words.CRITERIA) >= set(criteria.NAMES) and set(words.WHEN) == set(schedules.WHEN)
    assert set(words.DETECTORS) >= set(detectors.NAMES) and set(words.NORMS) == set(attacks.NORMS)
    known = {words.anomaly(name) for name in (*data.OUTLIERS, *data.NAMES, *shifts.KINDS)}
    assert not [name for name in known if "_" in name]
    assert words.detector("sensnorm layers:all norm:inf") == "SensNorm, all layers, q = ∞"
    assert words.anomaly("pgd:0.1") == "PGD, ε = 0.1" and words.anomaly("rotate:4") == "rotation, severity 4"


@pytest.mark.parametrize("name", experiments.FIGURES)
def test_what_the_pages_compute_has_a_name(name):
    p = typed.resolve(experiments.PAGES[name], {"seeds": 1} if "seeds" in experiments.PAGES[name].model_fields else {})
    for role, step in p.roles():
        assert "_" not in words.network({"arm": "dense", **role})
        detector = step.columns().get("detector")
        assert detector is None or "_" not in words.detector(detector)
        anomaly = step.columns().get("anomaly")
        assert anomaly is None or "_" not in words.anomaly(anomaly)


def test_what_no_delta_changes_is_fixed():
    """Open by the correction, not comparable, floor; areas and C3 are left out; what the explorer gets is JSON."""
    spread = (1.0, 2.0, 1.5, 0.5, 2.5)
    ends = [
        Endpoint("C1a", "area", "", "open", 0.1, 1.0, spread, 6.0, moves=False),
        Endpoint("C2", "decided", "", "better", 0.01, 1.0, spread, 2.0),
        Endpoint("C2", "held back", "", "open", 0.2, 1.0, spread, 2.0, undone=True),
        Endpoint("C2", "broken", "", "not comparable", 0.2, 1.0, spread, 2.0),
        Endpoint("C3", "share", "", "better", 0.2, 1.0, spread, 2.0, moves=False),
        Endpoint("C4", "one seed", "", "open", 1.0, 1.0, (1.0,), 2.0),
    ]
    fixed = {line["name"]: line["fixed"] for line in verdict.movable({"digits": ends})}
    assert fixed == {"C2: decided": None, "C2: held back": "open after correction", "C2: broken": "not comparable"}
    run = _Page()
    verdict.verdicts(run, {"digits": ends})
    ((kind, data),) = run.explorers
    assert kind == "delta" and data["delta"] == 2.0 and len(data["ends"]) == 3


def test_what_each_method_is_used_for_stands_in_one_panel():
    share = {0.5: 0.4, 0.7: 0.2}
    made = ensembles(
        dict.fromkeys(share, 0.9), dict.fromkeys(share, 0.8), share, attacked={"dense": 0.5, "shrunk": 0.3}
    )
    result = Result(page(4), made, live=True)
    table = tables.purposes(tables.contrasts([result]), [result])
    assert set(table["head"]) == {"ensembles of 5: PGD, L∞", "ensembles of 5: MSP, near outliers"}
    assert table.set_index("line").loc["ensembles of 5: PGD, L∞, sparsity 0.7", "mean"] == pytest.approx(-20)
    assert plots.forest(table).scales == ("digits",)


def test_too_narrow_intervals_are_told_and_what_they_decide():
    """Of 0.5 test images for each training image, five seeds make intervals √3.5 times as wide."""
    run, p = _Page(), page(6).model_copy(update={"profile": "mnist", "train_limit": 100, "test_limit": 50})
    assert statistics.widening(5, 50, 100) == pytest.approx(math.sqrt(3.5))
    sure, held, wide = ((5.0, 5.1, 4.9, 5.0, 5.2), (1.0, 2.0, 1.5, 0.5, 2.5), (-0.8, 0.8, 0.0, 1.5, -1.5))
    ends = [
        Endpoint("C1a", "sure", "", "better", 0.01, 1.0, sure, 2.0),
        Endpoint("C1b", "held", "", "better", 0.01, 1.0, held, 2.0),
        Endpoint("C2", "alike", "", "equal", 0.9, 1.0, wide, 2.0),
        Endpoint("C3", "cheap", "", "better", 0.01, 1.0, wide, 2.0),
        Endpoint("C4", "open", "", "open", 0.9, 1.0, wide, 2.0),
    ]
    assert statistics.contrast(held, 2.0).outcome == "better" and statistics.contrast(wide, 2.0).outcome == "equal"
    verdict.widened(run, {"mnist": ends}, {"mnist": [Result(p, pd.DataFrame(), live=False)]})
    (told,) = run.said
    assert told.startswith("- *MNIST*: 1.9 times as wide; these would not stand by themselves: C1b (held); C2 (alike);")
    assert "C1a" not in told and "C3 (cheap)" in told and "C4" not in told
    unlimited = p.model_copy(update={"train_limit": 0})
    verdict.widened(run, {"mnist": ends}, {"mnist": [Result(unlimited, pd.DataFrame(), live=False)]})
    assert run.said[1] == "It is told of no scale.", "its data are not here"
