"""What pages tell of rows and findings: measures of all scales together, for drawing, and the tables of the pages."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from sparselib.experiments import statistics, words
from sparselib.experiments.findings import Comparison, compare, endpoints, measures, select
from sparselib.repro.page import Result, Run

MANY = 8  # tables under one another
RADIUS = re.compile(r"(?<=L[∞2]) [\d.]+$")  # in the name of an attack


def rows(results: Iterable[Result]) -> pd.DataFrame:
    """Return the rows of several scales in one table, with the columns `scale` and `network` (its name)."""
    return _named(pd.concat([r.rows.assign(scale=r.profile) for r in results], ignore_index=True))


def together(results: Iterable[Result]) -> pd.DataFrame:
    """Return `findings.measures` of several scales in one table, with the columns `scale` and `network` (its name)."""
    return _named(pd.concat([measures(r.rows).assign(scale=r.profile) for r in results], ignore_index=True))


def _named(table):
    return table.assign(network=[words.sparse(line) for line in table.to_dict("records")])


def headline(table: pd.DataFrame) -> pd.DataFrame:
    """Return the measures that figures of accuracy show: clean, PGD of the middle radius in each norm, shifts.

    The radius goes out of the name, so that scales with different ones stand in one panel.
    """
    kept = table[table["attack"].isna() | (table["attack"] == "pgd")]
    index = [c for c in ("scale", "question", "norm") if c in kept]
    radii = kept.groupby(index)["eps"].agg(lambda eps: sorted(set(eps))[eps.nunique() // 2])
    middle = kept[index].join(radii.rename("middle"), on=index)["middle"]
    kept = kept[kept["norm"].isna() | (kept["eps"] == middle)]
    names = [m if n != n else words.attack("pgd", n) for m, n in kept[["measure", "norm"]].values]
    return kept.assign(measure=names)


def over_radius(table: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracies of the closer look, for drawing: `network` under its attack, `eps`, `norm`.

    At radius 0 stands the clean accuracy.
    """
    own = select(table, {"question": "radius"})
    attacked, clean = select(own, {"attack": ("fgsm", "pgd")}), select(own, {"measure": "clean"})
    ways = attacked[["attack", "norm"]].drop_duplicates()
    found = pd.concat([clean.drop(columns=["attack", "norm"]).merge(ways, how="cross").assign(eps=0.0), attacked])
    return found.assign(network=found["network"] + ", " + found["attack"].map(words.ATTACKS))


def masks(results: Iterable[Result]) -> pd.DataFrame:
    """Return the measures of the dense networks and of those under a mask of the endpoint's sparsity.

    For drawing: `network` names each; in the order: dense, learnt, controls.
    """
    results = list(results)
    table = headline(together(results))
    asked = table["scale"].map({r.profile: r.parameters.mask_sparsities[0] for r in results})
    table = table[(table["sparsity"] == 0) | (table["sparsity"] == asked)]
    rank = table["learnt"].map({True: 1, False: 2}).where(table["arm"] != "dense", 0)
    table = table.assign(network=[words.network(line) for line in table.to_dict("records")], rank=rank)
    return table.sort_values("rank", kind="stable", ignore_index=True).drop(columns="rank")


def started(table: pd.DataFrame, partner: Callable[[str], str] = lambda arm: "dense") -> pd.DataFrame:
    """Return the table where the line of every arm begins at its partner, an arm that is not pruned, at each scale."""
    plain = table["arm"].isin(["dense", "unpruned"])
    arms = table.loc[~plain, ["scale", "arm", "structured"]].drop_duplicates()
    starts = table[plain].drop(columns="structured").rename(columns={"arm": "start"})
    begun = arms.assign(start=arms["arm"].map(partner)).merge(starts, on=["scale", "start"])
    return pd.concat([table[~plain], begun.drop(columns="start")], ignore_index=True)


def costs(results: Iterable[Result], question: str, cost: str) -> pd.DataFrame:
    """Return the measures of one question by cost, for drawing: lines of dense, shrunk networks and from scratch.

    The column `cost` holds what the network, or the ensemble, or the detector costs, in the units of `words.COSTS`.
    """
    parts = []
    for result in results:
        own = select(result.rows, {"question": question, "arm": ("dense", "shrunk", "scratch")})
        price = select(own, {"metric": cost})
        keys = ["arm", "sparsity", "seed"]
        keys += {"ensemble": ["members"], "detectors": ["detector"]}.get(question, [])
        prices = (words.COSTS[cost][0] * price.groupby(keys)["value"].mean()).rename(cost)
        parts.append(measures(own).join(prices, on=keys).assign(scale=result.profile))
    table = pd.concat(parts, ignore_index=True)
    if question == "detectors":
        return table
    table = headline(started(table))
    names = table["arm"].map(words.arm)
    if question == "ensemble":
        names = table["members"].map(lambda n: "ensemble, " if n > 1 else "one, ") + names
        table = table.sort_values("members", kind="stable")
    return table.assign(network=names)


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the detectors in the order of their mean, the best first."""
    order = table.groupby("detector")["value"].mean()
    return table.sort_values("detector", key=lambda names: -names.map(order), kind="stable", ignore_index=True)


def reach(table: pd.DataFrame, name: str = "network", beside: str = "") -> str:
    """Return which has the highest mean of `value` and which the lowest, for a caption; at each scale.

    Args: name: the column that says what is compared. beside: of its values, the one that is told apart, after them.
    """
    told = {}
    for scale, own in table.groupby("scale", sort=False):
        mean = own.groupby(name, sort=False)["value"].mean()
        ends = mean.drop(beside, errors="ignore").sort_values(kind="stable")
        said = [f"{value:.0f} % ({words.called(name, which)})" for which, value in ends.items()]
        said = [f"at best {said[-1]}", f"at worst {said[0]}"] if len(said) > 1 else said
        said += [f"beside {mean[beside]:.0f} % ({words.called(name, beside)})"] if beside in mean else []
        if len(ends):
            told[scale] = ", ".join(said)
    return _on(told) or "nothing measured"


def smallest(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the lines with the smallest value of a column at their scale."""
    return table[table[column] == table.groupby("scale")[column].transform("min")]


def smallest_shared(table: pd.DataFrame) -> pd.DataFrame:
    """Return the lines at the highest sparsity that every network of their scale has."""
    kept = [own[own["sparsity"] == own.groupby("network")["sparsity"].max().min()] for _, own in table.groupby("scale")]
    return pd.concat(kept) if kept else table


def spread(found: pd.DataFrame, measure: str) -> str:
    """Return the highest and the lowest difference of `contrasts` in one measure, with outcome; at each scale."""
    own = found[(found["measure"] == measure) & (found["outcome"] != statistics.NOT_COMPARABLE)]
    told = {}
    for scale, part in own.groupby("scale", sort=False):
        ends = part.sort_values("mean", kind="stable").iloc[[-1, 0][: len(part)]]
        lines = [f"{e.mean:+z.1f} ({e.line}: {e.told})" for e in ends.itertuples()]
        told[scale] = f"at best {lines[0]}, at worst {lines[1]}" if len(lines) > 1 else lines[0]
    return _on(told) or "nothing that is comparable"


def alike(table: pd.DataFrame, results: Iterable[Result]) -> tuple[pd.DataFrame, list[str]]:
    """Return `contrasts` in the measures that each scale shows, under names that all share, and these names.

    Scales attack at radii of their own: in the shared name there is none.
    """
    shown = {r.profile: list(r.parameters.shown()) for r in results}
    names = [own[0] if len({*own}) == 1 else RADIUS.sub("", own[0]) for own in zip(*shown.values(), strict=True)]
    parts = []
    for scale, own in shown.items():
        part = table[(table["scale"] == scale) & table["measure"].isin(own)]
        parts.append(part.assign(measure=part["measure"].map(dict(zip(own, names, strict=True)))))
    return pd.concat(parts), names


def _on(told):
    return "; ".join(f"{said} on {words.scale(scale)}" if len(told) > 1 else said for scale, said in told.items())


def means(
    run: Run, table: pd.DataFrame, index: list[str], columns: str, *, cell: str = "{:.1f}", fold: str = "",
    caption: str = "Means over seeds.",
) -> None:  # fmt: skip
    """Show the means of `value`: lines by the columns of `index`, a column for each value of `columns`; – for none.

    `fold`: the line under which the table is folded away. `caption`: of the table, plain text.
    """
    found = table.pivot_table("value", index, columns, sort=False)
    lines = [
        [*map(words.called, index, key), *("–" if v != v else cell.format(v) for v in line)]
        for key, line in zip(found.index, found.values, strict=True)
    ]
    head = [
        *(words.COLUMNS.get(name, name) for name in index),
        *(words.called(columns, name) for name in found.columns),
    ]
    if fold and lines:
        run.fold(fold, lines, head, caption=caption)
    else:
        run.table(lines, head, caption=caption)


def checked(run: Run, results: Iterable[Result]) -> None:
    """Show what AutoAttack leaves beside what PGD leaves of the same images, by itself and towards each class."""
    found = rows(results)
    auto, index = select(found, {"attack": "autoattack"}), ["scale", "network", "eps"]
    each = select(found, {"attack": "multitargeted", "metric": "accuracy", "question": "width"})
    each = each.assign(metric="accuracy_each").merge(auto[[*index, "seed"]].drop_duplicates())
    told = "What is left of the same images under AutoAttack and under PGD, by itself and towards each class."
    means(run, pd.concat([auto, each]), index, "metric", cell="{:.1%}", caption=told)
    seen = {words.scale(str(scale)): own["seed"].nunique() for scale, own in auto.groupby("scale", sort=False)}
    told = ", ".join(f"{scale} {_seeds(n)}" for scale, n in seen.items())
    run.say(f"AutoAttack saw networks of so many seeds: {told}." if seen else "AutoAttack saw no network.")


def by_kind(run: Run, results: Iterable[Result], index: str, where: str) -> None:
    """Show AUROC / AUPR / FPR95 / right or rejected in percent by kind of anomaly, folded away for each scale.

    A line for each `index`. `where` says which rows, as `DataFrame.query` reads it.
    """
    found = select(rows(results).query(where), {"metric": tuple(words.METRICS)})
    for scale, own in found.groupby("scale", sort=False):
        cells = 100 * own.pivot_table("value", [index, "anomaly"], "metric", sort=False)[list(words.METRICS)]
        cells = cells.map("{:.0f}".format).agg(" / ".join, axis=1).unstack(sort=False)
        body = [[words.called(index, name), *line] for name, line in zip(cells.index, cells.values, strict=True)]
        told = f"{words.scale(str(scale))}: {' / '.join(words.METRICS.values())} in percent (anomalies positive)"
        caption = f"Each {index} on each kind of anomaly; between the strokes the numbers in the order of the title."
        run.fold(told, body, [index, *map(words.anomaly, cells.columns)], caption=caption)


def gains(run: Run, table: pd.DataFrame) -> None:
    """Show what each network gains over the dense one in every measure, in points: means over seeds."""
    index = ["scale", "measure", "seed"]
    dense = table[table["arm"] == "dense"].set_index(index)["value"].rename("dense")
    gain = table[table["arm"] != "dense"].join(dense, on=index)
    gain = gain.assign(value=gain["value"] - gain["dense"])
    told = "Differences to the dense network in points, means over seeds."
    means(run, gain, ["scale", "network"], "measure", cell="{:+.1f}", caption=told)


def savings(run: Run, results: Iterable[Result]) -> None:
    """Show what one forward pass of a single network costs at every size, and the share of the dense one's."""
    part = select(rows(results), {"question": "ensemble", "members": 1, "arm": ("dense", "shrunk")})
    part = select(part, {"metric": tuple(words.COSTS)})
    part = part.assign(
        value=part["value"] * part["metric"].map({name: unit for name, (unit, _) in words.COSTS.items()})
    )
    mean = part.pivot_table("value", ["scale", "sparsity"], "metric")
    share = mean / mean.groupby("scale").transform("first")  # of the dense network
    cells = mean.map(lambda v: f"{v:,.0f}" if v >= 100 else f"{v:.2g}") + share.map(" ({:.0%})".format)
    lines = [
        [words.scale(scale), words.called("sparsity", sparsity), *line]
        for (scale, sparsity), line in zip(cells.index, cells.values, strict=True)
    ]
    caption = "Cost of one forward pass of one network, and its share of the dense one's: means over seeds."
    run.table(lines, ["scale", "sparsity", *(words.COSTS[name][1] for name in cells.columns)], caption=caption)


def making(run: Run, results: Iterable[Result]) -> None:
    """Show the mean seconds to make one network, parents included: a shrunk network needs a dense one first."""
    part = select(rows(results), {"metric": "weights", "question": ("first", "smoothing", "adversarial")})
    found = part.pivot_table("seconds", ["scale", "question", "sparsity"], "arm", sort=False)
    starts = found["start"].groupby(["scale", "question"]).transform("max")  # those of sparsity 0, at every sparsity
    found["dense"] += starts
    found["shrunk"] += found["pruned"] + starts
    made: Any = found.drop(columns=["start", "pruned"]).stack().dropna()
    told = "Seconds to make one network, with the networks that it is made from: means over seeds."
    means(run, made.reset_index(name="value"), ["scale", "question", "sparsity"], "arm", caption=told)


def answer(run: Run, results: Iterable[Result]) -> None:
    """Say what the endpoints of the page's claim come to at each scale, by themselves."""
    told: dict[str, list[str]] = {}
    for result in results:
        for found in endpoints(result.parameters, result.rows):
            where = f"{words.scale(result.profile)}, {seeds(result)}"
            told.setdefault(words.sentence(found.question), []).append(f"**{found.alone}**, {found.number} ({where})")
    lines = [f"- {question}: {'; '.join(outcomes)}." for question, outcomes in told.items()]
    how = """Differences in points over seeds with intervals at the level of 95 %. What is better or worse on its own \
can become open when it is corrected for the number of endpoints: {doc}`/notebooks/06_verdict`, where the outcomes \
are explained."""
    body = "\n".join([*(lines or ["- Nothing can be compared."]), "", how])
    run.lead(f'<details class="answer" open><summary>Answer</summary>\n\n{body}\n\n</details>')


def seeds(result: Result) -> str:
    """Return "5 seeds"."""
    return _seeds(len(result.parameters.seed_list()))


def _seeds(n):
    return f"{n} seed{'s' if n > 1 else ''}"


def contrasts(results: Iterable[Result]) -> pd.DataFrame:
    """Return all that is compared at each scale, for `plots.forest`: a line for each arm, sparsity and measure."""
    lines = [
        {
            "scale": r.profile, "claim": f.comparison.claim, "question": f.comparison.question,
            "members": f.comparison.of.get("members", 1), "of": f.comparison.of.get("detector"),
            "line": ", ".join(filter(None, [rival(f.comparison) or f.arm, f.label])),
            "head": rival(f.comparison) or f.arm, "unit": f.unit, "at": f.at,
            "rival": rival(f.comparison),
            "measure": f.measure, "difference": str(f.contrast),
            "mean": f.contrast.mean, "low": f.contrast.low, "high": f.contrast.high,
            "outcome": f.contrast.outcome, "told": f.contrast.told, "delta": f.contrast.delta, "own": f.values[0],
            "partner": f.values[1],
        }
        for r in results
        for f in compare(r.parameters.comparisons(), r.rows)
    ]  # fmt: skip
    empty = ["scale", "claim", "question", "of", "rival", "line", "measure"]
    table = pd.DataFrame(lines, columns=list(lines[0]) if lines else empty)
    ways = table.groupby(["scale", "claim", "of", "line"], dropna=False)["question"].transform("nunique")
    for name in ("line", "head") if len(table) else ():  # the same arm, compared in several ways
        table.loc[ways > 1, name] += " (" + table["question"] + ")"
    return table


def purposes(table: pd.DataFrame, results: Iterable[Result]) -> pd.DataFrame:
    """Return the lines of `contrasts` in what each method is used for, shrunk against dense, all in one panel."""
    parts = [table.iloc[:0]]
    for r in results:
        for method, question, measure in r.parameters.purposes():
            own = table[(table["scale"] == r.profile) & (table["question"] == question) & (table["measure"] == measure)]
            head = f"{method}: {RADIUS.sub('', words.measure(measure))}"
            parts.append(own.assign(measure="", head=head, line=[f"{head}, sparsity {at:g}" for at in own["at"]]))
    return pd.concat(parts)


def rival(comparison: Comparison) -> str:
    """Return what the other detector is called, where two are compared; else ""."""
    other = comparison.control.get("detector")
    return words.detector(other) if isinstance(other, str) else ""


def every_contrast(run: Run, table: pd.DataFrame) -> None:
    """Show every line of `contrasts`, folded away for each scale and question; rivals of one detector together."""
    many = table["question"].nunique() > MANY
    told = [
        f"{words.detector(of)} against each other detector" if rival and many else question
        for of, rival, question in table[["of", "rival", "question"]].values
    ]
    for (scale, question), own in table.assign(told_of=told).groupby(["scale", "told_of"], sort=False):
        cells = own.assign(**{name: own[name].map("{:.1f}".format) for name in ("partner", "own")})
        cells["measure"] = cells["measure"].map(words.measure)
        lines = cells[["line", "measure", "partner", "own", "difference", "told"]].values.tolist()
        run.fold(
            f"{words.scale(str(scale))}: {question}",
            lines,
            ["of", "measure", "partner", "own", "difference", "outcome"],
            caption="Means over seeds in percent; their difference in points, with its interval at the level of 95 %.",
        )
