"""Families of contrasts from rows whose truth is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sparselib.repro import claims, tables

SEEDS = range(5)


def _rows(recipe, sparsity, level, *, width=16, training="standard", epochs=20, weights=1000, seeds=SEEDS, **measures):
    """Rows of one network per seed: clean accuracy `level`, a little lower under attack, AUROCs as given."""
    made = []
    for seed in seeds:
        network = {
            "width": width, "training": training, "epochs": epochs, "recipe": recipe, "sparsity": sparsity,
            "seed": seed, "detector": np.nan, "anomaly": np.nan, "members": np.nan,
        }  # fmt: skip
        wobble = 0.001 * np.sin(7 * seed + 10 * sparsity)
        values = [
            ("classification", "clean", "accuracy", level + wobble),
            ("cost", "network", "weights", weights),
            ("attack", "pgd linf 0.1", "accuracy", level - 0.2 + wobble),
            ("attack", "pgd linf 0.1", "accuracy_ce", 1.0),
            ("shift", "fog 4", "accuracy", level - 0.1 + wobble),
            ("shift", "stripe 4", "accuracy", level - 0.3 + wobble),
        ]
        made += [{**network, "task": t, "condition": c, "metric": m, "value": v} for t, c, m, v in values]
        for anomaly, (task, value) in measures.items():
            detection = {"task": task, "condition": f"msp on {anomaly}", "metric": "auroc", "value": value + wobble}
            made.append({**network, **detection, "detector": "msp", "anomaly": anomaly})
            made.append({**network, **detection, "metric": "aupr_ood", "detector": "msp", "anomaly": anomaly})
    return pd.DataFrame(made)


P = SimpleNamespace(
    width=16, epochs=20, finetune_epochs=10, recipes=["magnitude after", "snip before"], sparsities=[0.5, 0.9],
    wide_width=48, narrow_widths=[8], noisy_width=24, noisy_epochs=12, anomalies=["textures", "pgd:0.1", "uniform"],
)  # fmt: skip


def _grid():
    noisy = {"width": 24, "training": "40% noisy labels"}
    return pd.concat(
        [
            _rows("dense", 0.0, 0.1),  # trained for less: the networks that are pruned
            _rows("dense", 0.0, 0.9, epochs=30, textures=("ood", 0.8), uniform=("ood", 0.6), attack=("aa", 0.7)),
            _rows("magnitude after", 0.5, 0.95, textures=("ood", 0.8), uniform=("ood", 0.6), attack=("aa", 0.5)),
            _rows("magnitude after", 0.9, 0.5, textures=("ood", 0.9), uniform=("ood", 0.7), attack=("aa", 0.5)),
            _rows("snip before", 0.5, 0.7, textures=("ood", 0.8), uniform=("ood", 0.6), attack=("aa", 0.5)),
            _rows("snip before", 0.9, 0.6, textures=("ood", 0.8), uniform=("ood", 0.6), attack=("aa", 0.5)),
            _rows("dense", 0.0, 0.8, epochs=30, width=8, weights=300),
            _rows("dense", 0.0, 0.9, epochs=30, width=48, weights=9000),
            _rows("magnitude after", 1 - 300 / 9000, 0.85, width=48, weights=300),
            _rows("dense", 0.0, 0.6, epochs=12, **noisy),
            _rows("dense", 0.0, 0.75, epochs=3, **noisy),
            _rows("dense", 0.0, 0.61, epochs=12, **{**noisy, "training": "40% noisy labels, weight decay 0.01"}),
            _rows("dense", 0.0, 0.62, epochs=12, **{**noisy, "width": 6}),
            _rows("snip before", 0.9, 0.7, epochs=8, **noisy),
        ],
        ignore_index=True,
    )


def test_measures_are_percentages_of_the_right_rows():
    table = tables.measures(tables.same_width(P, _grid()))
    assert len(table) == 25 and "AutoAttack linf 0.1" not in table
    one = table.xs(("magnitude after", 0.9, 2), level=("recipe", "sparsity", "seed")).iloc[0]
    wobble = 0.1 * np.sin(14 + 9)
    expected = {
        "clean": 50, "PGD linf 0.1": 30, "shifts, mean": 30, "shifts, worst": 20, "msp, outliers": 80,
        "msp, attacks": 50,
    }  # fmt: skip
    assert {m: one[m] for m in expected} == pytest.approx({m: v + wobble for m, v in expected.items()})


def test_the_three_questions_of_sparsity_are_kept_apart():
    found = {(f.question.split(",")[0], f.question, f.subject, f.measure): f for f in claims.sparsity(P, _grid())}

    def verdict_of(start, subject, measure, control=""):
        hits = [
            f for (q, whole, s, m), f in found.items() if (q, s, m) == (start, subject, measure) and control in whole
        ]
        assert len(hits) == 1
        return hits[0].verdict

    assert verdict_of("same width", "magnitude after", "clean") == "supported", "a gain at one sparsity is enough"
    assert verdict_of("same width", "snip before", "clean") == "contradicted"
    assert verdict_of("same width", "magnitude after", "msp, outliers") == "supported"
    assert verdict_of("same width", "magnitude after", "msp, attacks") == "contradicted"
    assert verdict_of("same size", "magnitude after", "clean") == "supported"
    assert verdict_of("noisy labels", "snip before", "clean", "against dense") == "supported"
    assert verdict_of("noisy labels", "snip before", "clean", "fewer epochs") == "contradicted"
    same_width = [f for (q, *_), f in found.items() if q == "same width"]
    assert {f.subject for f in same_width} == set(P.recipes) and all(len(f.found) == 2 for f in same_width)
    (size,) = (f for (q, _, _, m), f in found.items() if q == "same size" and m == "clean")
    assert size.found[0].label == "300 weights" and size.found[0].mean == pytest.approx(5, abs=0.5)


def test_noisy_networks_are_told_apart():
    part = tables.noisy_labels(P, _grid())
    assert set(part["name"]) == {"dense", "fewer epochs", "weight decay", "narrow", "snip before 0.9"}


def test_pooling_widens_the_intervals_and_names_the_recipe():
    found = claims.sparsity(P, _grid())
    pooled = {(f.question, f.measure): f for f in claims.pooled(found)}
    question = "same width, against dense"
    one = next(f for f in found if (f.question, f.subject, f.measure) == (question, "magnitude after", "clean"))
    all_ = pooled[question, "clean"]
    assert len(all_.found) == 4 and all_.best.label == "magnitude after 0.5"
    assert all_.best.high - all_.best.low > one.best.high - one.best.low


def test_sizes_are_matched_and_a_size_without_partner_is_refused():
    rows = _grid()
    wide = (rows["width"] == 48) & (rows["recipe"] != "dense") & (rows["metric"] == "weights")
    part = tables.same_size(P, rows.assign(value=rows["value"].mask(wide, 299.9)))
    assert set(part.loc[part["recipe"] != "dense", "weights"]) == {300.0}, "a kept weight may be 0"
    with pytest.raises(ValueError, match="no dense network has about 250 weights"):
        tables.same_size(P, rows.assign(value=rows["value"].mask(wide, 250.0)))


def test_all_metrics_of_detection_grow_with_quality():
    table = tables.measures(tables.same_width(P, _grid()), tuple(tables.METRICS))
    assert "msp, outliers, AUPR" in table and "msp, outliers, 100 − FPR95" not in table
    one = _rows("dense", 0.0, 0.9, epochs=30, textures=("ood", 0.8))
    one.loc[one["metric"] == "aupr_ood", "metric"] = "fpr95_ood"
    table = tables.measures(one, ("fpr95_ood",))
    assert table["msp, outliers, 100 − FPR95"].mean() == pytest.approx(20, abs=0.2)


def test_a_missing_seed_is_refused():
    rows = _grid()
    lost = (rows["recipe"] == "snip before") & (rows["seed"] == 3) & (rows["width"] == 16)
    with pytest.raises(ValueError, match="must have the same seeds"):
        claims.sparsity(P, rows[~lost])


def test_tables_and_sentences_say_what_was_found():
    found = [f for f in claims.sparsity(P, _grid()) if f.question.startswith("same width")]
    head, lines = claims.matrix(found)
    assert head[:2] == ["", "clean"] and [line[0] for line in lines] == P.recipes
    assert lines[0][1].startswith("**supported** +5.") and lines[0][1].endswith("at 0.5")
    count = claims.tally(found)
    assert sum(count.values()) == len(found)
    text = claims.sentence("C1", found)
    assert text.startswith("C1 is ") and f"{count['supported']} of {len(found)}" in text
    assert claims.sentence("C2", []) == "C2 was not judged."
    table = claims.counts({"digits": found, "mnist": found[:1]})
    assert list(table["scale"]) == ["digits", "mnist"] and table["supported"].iloc[1] == 1


def test_families_follow_from_the_anomalies():
    assert tables.families(P) == ["attacks", "outliers"]


def test_masks_are_named_in_order_and_compared_with_untrained_weights():
    rows = pd.concat([
        _rows("dense", 0.0, 0.9),
        _rows("mask random", 0.9, 0.3),
        _rows("mask magnitude, batch norm restated", 0.9, 0.8),
        _rows("mask adversarial", 0.9, 0.85),
        _rows("mask adversarial", 0.5, 0.1),
        _rows("mask adversarial of untrained weights", 0.9, 0.4, epochs=0),
    ])  # fmt: skip
    shown = tables.masks(rows, ["shifts, mean", "clean"], 0.9)
    names = ["dense", "learnt: adversarial", "learnt: adversarial, untrained", "magnitude, restated", "random"]
    assert list(shown["network"].unique()) == names
    assert list(shown["measure"].unique()) == ["shifts, mean", "clean"]
    assert set(shown["sparsity"]) == {0.0, 0.9}
    (clean,) = (f for f in claims.pretraining(P, rows) if f.measure == "clean")
    assert clean.verdict == "supported"
    assert clean.best.mean == pytest.approx(45)


def _family(training="standard", **more):
    return [
        _rows("dense", 0.0, 0.9, training=training, **more),
        _rows("magnitude shrunk", 0.7, 0.85, training=training, **more),
        _rows("from scratch", 0.7, 0.88, training=training, **more),
    ]


def test_a_shrunk_network_costs_its_parents_too():
    made = [("dense", 0.0, 8.0), ("magnitude after units", 0.7, 4.0), ("magnitude shrunk", 0.7, 1.0)]
    made += [("from scratch", 0.7, 6.0)]
    rows = pd.concat(_rows(r, s, 0.9).assign(seconds=t, key=f"{r} {s}") for r, s, t in made)
    rows["key"] += rows["seed"].astype(str)
    total = tables.networks_made(rows)["all"].groupby(["recipe"]).mean()
    assert total.to_dict() == {
        "dense": 8.0, "from scratch": 6.0, "magnitude after units": 4.0, "magnitude shrunk": 13.0,
    }  # fmt: skip


def test_shrunk_networks_are_compared_with_their_size_from_scratch():
    def members(rows, count):
        rows = rows[rows["task"] != "shift"]
        cost = rows[rows["metric"] == "weights"].assign(metric="macs", value=count * 10.0)
        return pd.concat([rows[~rows["metric"].isin(["weights", "accuracy_ce"])], cost]).assign(members=count)

    certified = [
        rows[rows["metric"].isin(["accuracy", "weights"]) & (rows["condition"].isin(["clean", "network"]))].assign(
            task="certificate", metric=metric, condition="σ 0.25, n 500"
        )
        for rows in _family("noise 0.25") for metric in ("certified", "accuracy", "abstained")
    ]  # fmt: skip
    robust = _family("adversarial 0.1")
    rows = pd.concat(
        [members(r, n) for r in _family() for n in (1, 5)] + robust + [members(r, 1) for r in robust] + certified,
        ignore_index=True,
    )
    found = {(f.subject, f.measure): f for f in claims.from_scratch(SimpleNamespace(members=5), rows)}
    assert found["one network", "clean"].verdict == "contradicted"
    assert found["ensemble of 5", "clean"].best.mean == pytest.approx(-3)
    assert found["adversarial training", "PGD linf 0.1"].best.mean == pytest.approx(-3)
    lines = tables.by_cost(tables.hardened(rows), ["clean"])
    assert lines.groupby("method")["recipe"].unique().map(set).to_dict() == {
        "shrunk": {"dense", "magnitude shrunk"}, "from scratch": {"dense", "from scratch"},
    }  # fmt: skip
    assert (lines["macs"] == 10).all()
