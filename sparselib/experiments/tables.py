"""What pages tell of rows and findings: measures of all scales together, for drawing, and the tables of the pages."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from sparselib.experiments import words
from sparselib.experiments.findings import Finding, judge, measures, select
from sparselib.repro.page import Result, Run


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
    """Return the measures of the dense networks and of those under a mask of the highest sparsity, for drawing.

    `network` names each; in the order: dense, learnt, controls.
    """
    table = headline(together(results))
    table = table[table["sparsity"].isin([0, table["sparsity"].max()])]
    rank = table["learnt"].map({True: 1, False: 2}).where(table["arm"] != "dense", 0)
    table = table.assign(network=[words.network(line) for line in table.to_dict("records")], rank=rank)
    return table.sort_values("rank", kind="stable", ignore_index=True).drop(columns="rank")


def started(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table where the dense networks begin the line of every other arm, at each scale."""
    dense, others = table[table["arm"] == "dense"], table[table["arm"] != "dense"]
    arms = others[["scale", "arm", "structured"]].drop_duplicates()
    return pd.concat([others, arms.merge(dense.drop(columns=["arm", "structured"]), on="scale")], ignore_index=True)


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
        names = table["members"].map(lambda n: f"ensemble of {n:g}, " if n > 1 else "one, ") + names
        table = table.sort_values("members", kind="stable")
    return table.assign(network=names)


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the detectors in the order of their mean, the best first."""
    order = table.groupby("detector")["value"].mean()
    return table.sort_values("detector", key=lambda names: -names.map(order), kind="stable", ignore_index=True)


def means(run: Run, table: pd.DataFrame, index: list[str], columns: str, *, cell: str = "{:.1f}") -> None:
    """Show the means of `value`: lines by the columns of `index`, a column for each value of `columns`."""
    found = table.pivot_table("value", index, columns, sort=False)
    lines = [
        [*map(words.called, index, key), *("" if v != v else cell.format(v) for v in line)]
        for key, line in zip(found.index, found.values, strict=True)
    ]
    run.table(lines, [*index, *(words.called(columns, name) for name in found.columns)])


def by_kind(run: Run, results: Iterable[Result], index: str, where: str) -> None:
    """Show AUROC / AUPR / FPR95 in percent by kind of anomaly, a line for each `index`, folded away for each scale.

    `where` says which rows, as `DataFrame.query` reads it.
    """
    found = select(rows(results).query(where), {"metric": tuple(words.METRICS)})
    for scale, own in found.groupby("scale", sort=False):
        cells = 100 * own.pivot_table("value", [index, "anomaly"], "metric", sort=False)[list(words.METRICS)]
        cells = cells.map("{:.0f}".format).agg(" / ".join, axis=1).unstack(sort=False)
        body = [[words.called(index, name), *line] for name, line in zip(cells.index, cells.values, strict=True)]
        told = f"{scale}: {' / '.join(words.METRICS.values())} in percent (anomalies positive)"
        run.fold(told, body, [index, *map(words.anomaly, cells.columns)])


def gains(run: Run, table: pd.DataFrame) -> None:
    """Show what each network gains over the dense one in every measure, in points: means over seeds."""
    index = ["scale", "measure", "seed"]
    dense = table[table["arm"] == "dense"].set_index(index)["value"].rename("dense")
    gain = table[table["arm"] != "dense"].join(dense, on=index)
    gain = gain.assign(value=gain["value"] - gain["dense"])
    means(run, gain, ["scale", "network"], "measure", cell="{:+.1f}")


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
        [scale, words.called("sparsity", sparsity), *line]
        for (scale, sparsity), line in zip(cells.index, cells.values, strict=True)
    ]
    run.table(lines, ["scale", "sparsity", *(words.COSTS[name][1] for name in cells.columns)])


def making(run: Run, results: Iterable[Result]) -> None:
    """Show the mean seconds to make one network, parents included: a shrunk network needs a dense one first."""
    part = select(rows(results), {"metric": "weights", "question": ("first", "smoothing", "adversarial")})
    found = part.pivot_table("seconds", ["scale", "question", "sparsity"], "arm", sort=False)
    starts = found["start"].groupby(["scale", "question"]).transform("max")  # those of sparsity 0, at every sparsity
    found["shrunk"] += found["pruned"] + starts
    made: Any = found.drop(columns=["start", "pruned"]).stack().dropna()
    means(run, made.reset_index(name="value"), ["scale", "question", "sparsity"], "arm")


def verdicts(run: Run, results: Iterable[Result], comparisons: Callable) -> None:
    """Show for each scale how often the rule decides which way; and every verdict, folded away.

    `comparisons(p)` gives what is compared under the parameters of a scale.
    """
    for result in results:
        found = judge(comparisons(result.parameters), result.rows)
        if not found:
            run.say(f"Nothing can be compared, {result.scale}.")
            continue
        lines = [(f.question, f.subject, f.measure, str(f)) for f in found]
        cells = pd.DataFrame(lines, columns=["question", "of", "measure", "verdict"])
        cells = cells.pivot_table("verdict", ["question", "of"], "measure", aggfunc="first", sort=False).fillna("")
        body = [[*key, *line] for key, line in zip(cells.index, cells.values, strict=True)]
        run.fold(f"{result.profile}: {counted(found)}", body, ["question", "of", *cells.columns])


def counted(findings: list[Finding]) -> str:
    """Return in words how often the rule decides which way."""
    count = Counter(f.verdict for f in findings)
    told = ", ".join(f"{count[v]} {v}" for v in ("supported", "contradicted", "undecided"))
    return f"{len(findings)} comparisons, {told}"


def judged(scales: dict[str, list[Result]], margin: float) -> dict[str, list[Finding]]:
    """Return {scale: Findings} of {scale: Results}: the arms of a question pooled; clean accuracy supports no claim."""
    usual = {"margin": margin, "metrics": tuple(words.METRICS), "pooled": True}
    return {
        scale: [f for r in own for f in judge(r.parameters.comparisons(), r.rows, **usual) if f.measure != "clean"]
        for scale, own in scales.items()
    }


def every_verdict(run: Run, findings: dict[str, list[Finding]]) -> None:
    """Show for {scale: findings} and each claim how the rule decides, and every comparison, folded away."""
    head = ["question", "measure", "verdict", "clearest at", "difference", "d", "contrasts"]
    for scale, own in findings.items():
        for claim in sorted({f.claim for f in own}):
            some = [f for f in own if f.claim == claim]
            lines = [
                [f.question if f.subject == "all" else f"{f.subject}: {f.question}", f.measure, f"**{f.verdict}**"]
                + [f.best.label, f.best, f"{f.best.effect:.1f}", len(f.found)]
                for f in some
            ]
            run.fold(f"{claim}, {scale}: {counted(some)}", lines, head)
