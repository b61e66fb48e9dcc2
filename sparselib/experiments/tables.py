"""What pages tell of rows and findings: tables of all scales together, sentences, verdicts folded away."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from sparselib.experiments import findings, words
from sparselib.experiments.findings import Finding, judge, measures, select
from sparselib.repro.page import Result, Run


def together(results: Iterable[Result], **options) -> pd.DataFrame:
    """Return `findings.measures` of several scales in one table, with the columns `scale` and `network` (its name)."""
    table = pd.concat([measures(r.rows, **options).assign(scale=r.profile) for r in results], ignore_index=True)
    return table.assign(network=[words.sparse(line) for line in table.to_dict("records")])


def rows(results: Iterable[Result]) -> pd.DataFrame:
    """Return the rows of several scales in one table, with the column `scale`."""
    return pd.concat([r.rows.assign(scale=r.profile) for r in results], ignore_index=True)


def _lines(table: pd.DataFrame) -> Iterable[tuple[Any, Any]]:
    return table.iterrows()


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


def verdicts(run: Run, found: dict[str, list[Finding]], *, clean: bool = True) -> None:
    """Show for {scale: findings}, by question, how often the rule decides which way; and every verdict, folded away."""
    for scale, own in found.items():
        own = [f for f in own if clean or f.measure != "clean"]
        for question in dict.fromkeys(f.question for f in own):
            some = [f for f in own if f.question == question]
            count = findings.tally(some)
            run.say(
                f"{question[0].upper()}{question[1:]}, {scale}: of {len(some)} comparisons, {count['supported']} "
                f"supported, {count['contradicted']} contradicted, {count['undecided']} undecided."
            )
            head, body = findings.matrix(some)
            run.fold("All of them", body, head)


def judged(results: Iterable[Result], comparisons) -> dict[str, list[Finding]]:
    """Return {scale: findings}; `comparisons(p)` gives what is compared under the parameters of a scale."""
    return {r.scale: judge(comparisons(r.parameters), r.rows) for r in results}


def autoattack(run: Run, results: Iterable[Result]) -> None:
    """Show the accuracy under AutoAttack beside that under PGD on the same images."""
    part = select(rows(results), {"attack": "autoattack"})
    if not len(part):
        return
    part = part.assign(network=[words.sparse(line) for line in part.to_dict("records")])
    means = 100 * part.pivot_table("value", ["scale", "network", "eps"], "metric", sort=False)
    run.table(
        [[*key[:2], f"{key[2]:.3g}", f"{v['accuracy']:.1f}", f"{v['accuracy_pgd']:.1f}"] for key, v in _lines(means)],
        ["scale", "network", "ε", "AutoAttack, %", "PGD on the same images, %"],
    )


def over_radius(table: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracies of the closer look, for drawing: `network` under its attack, `eps`, `norm`.

    At radius 0 stands the clean accuracy.
    """
    own = select(table, {"question": "radius"})
    attacked = own[own["attack"].isin(["fgsm", "pgd"])]
    ways = attacked[["attack", "norm"]].drop_duplicates().values
    clean = select(own, {"measure": "clean"}).assign(eps=0.0)
    found = pd.concat([*(clean.assign(attack=attack, norm=norm) for attack, norm in ways), attacked])
    names = [f"{words.sparse(line)}, {words.ATTACKS[line['attack']]}" for line in found.to_dict("records")]
    return found.assign(network=names, norm=found["norm"].map(words.NORMS))


def metrics(run: Run, results: Iterable[Result]) -> None:
    """Show AUROC, AUPR and FPR95 of every detector and family, dense and at the highest sparsity: means over arms."""
    part = select(rows(results), {"question": "width", "metric": tuple(words.METRICS)})
    part = part[part["sparsity"].isin([0, part["sparsity"].max()])]
    means = 100 * part.pivot_table("value", ["scale", "family", "detector", "sparsity"], "metric", sort=False)
    run.table(
        [
            [scale, family, words.detector(name), f"{s:g}" if s else "dense", *(f"{v[m]:.1f}" for m in words.METRICS)]
            for (scale, family, name, s), v in _lines(means)
        ],
        ["scale", "anomalies", "detector", "sparsity", *words.METRICS.values()],
    )


def masks(results: Iterable[Result]) -> pd.DataFrame:
    """Return the measures of the dense networks and of those under a mask of the highest sparsity, for drawing.

    `network` names each; in the order: dense, learnt, controls.
    """
    table = headline(together(results))
    table = table[(table["sparsity"] == 0) | (table["sparsity"] == table["sparsity"].max())]
    rank = [0 if line["arm"] == "dense" else 1 if line["learnt"] else 2 for line in table.to_dict("records")]
    names = [words.network(line) for line in table.to_dict("records")]
    table = table.assign(network=names, rank=rank)
    return table.sort_values("rank", kind="stable", ignore_index=True).drop(columns="rank")


def masks_by_kind(run: Run, results: Iterable[Result]) -> None:
    """Show the AUROC of the first detector on every kind of outliers, folded away."""
    for result in results:
        first = {"detector": result.parameters.detectors[0], "family": "outliers", "metric": "auroc"}
        part = select(result.rows, first)
        part = part[part["sparsity"].isin([0, part["sparsity"].max()])]
        part = part.assign(network=[words.network(line) for line in part.to_dict("records")])
        means = 100 * part.pivot_table("value", "network", "anomaly", sort=False)
        body = [[name, *(f"{v:.1f}" for v in line)] for name, line in _lines(means)]
        run.fold(f"AUROC in percent, {result.scale}", body, ["network", *map(words.anomaly, means.columns)])


def metrics_by_kind(run: Run, part: pd.DataFrame) -> None:
    """Show AUROC / AUPR / FPR95 of every detector by kind of anomaly, folded away."""
    for scale, own in part.groupby("scale", sort=False):
        means = 100 * own.pivot_table("value", ["detector", "anomaly"], "metric", sort=False)
        anomalies = list(dict.fromkeys(own["anomaly"]))
        body = [
            [words.detector(d), *(" / ".join(f"{means.loc[(d, a), m]:.0f}" for m in words.METRICS) for a in anomalies)]
            for d in dict.fromkeys(own["detector"])
        ]
        run.fold(
            f"Dense networks, {scale}: AUROC / AUPR / FPR95 in percent (anomalies positive)", body,
            ["detector", *map(words.anomaly, anomalies)],
        )  # fmt: skip


def gains(run: Run, results: Iterable[Result]) -> None:
    """Show, in words, what each learnt mask of the highest sparsity gains over the dense network."""
    for result in results:
        table, said = headline(measures(result.rows).assign(scale=result.profile)), []
        sparsity = max(result.parameters.mask_sparsities)
        for arm in result.parameters.objectives:
            own = {"arm": arm, "base": "trained", "batch_norm": "frozen", "sparsity": sparsity}
            found = [
                findings.differences(table, {**own, "measure": m}, {"arm": "dense", "measure": m}).mean()
                for m in ("clean", words.attack("pgd", "linf"), "shifts, mean")
            ]
            told = "{:+.1f} points clean, {:+.1f} under attack, {:+.1f} under shifts".format(*found)
            said.append(f"**{words.arm(arm)}** {told}")
        run.say(f"Masks that remove {sparsity:.0%}, {result.scale}: " + "; ".join(said) + ".")


def restated(run: Run, results: Iterable[Result]) -> None:
    """Show what restating the batch-norm statistics alone gives masks by magnitude."""
    for result in results:
        sparsity = max(result.parameters.mask_sparsities)
        own = {"arm": "magnitude", "measure": "clean", "sparsity": sparsity}
        frozen, restated = ({**own, "batch_norm": state} for state in ("frozen", "restated"))
        gain = findings.differences(measures(result.rows), restated, frozen).mean()
        run.say(
            f"Restating alone changes the clean accuracy of masks by magnitude by {gain:+.1f} points at "
            f"{sparsity:.0%}, {result.scale}."
        )


def savings(run: Run, results: Iterable[Result]) -> None:
    """Show what one forward pass of a single network costs at every size, and the share of the dense one's."""
    part = select(rows(results), {"question": "ensemble", "members": 1, "arm": ("dense", "shrunk")})
    part = select(part, {"metric": ("params", "macs", "time", "peak_bytes")})
    cost = part.pivot_table("value", ["scale", "sparsity"], "metric")
    units = (("params", 1, 0), ("macs", 1e-3, 0), ("time", 1e6, 1), ("peak_bytes", 1e-6, 1))
    run.table(
        [
            [scale, f"{s:g}" if s else "dense"]
            + [f"{line[c] * unit:,.{digits}f} ({line[c] / cost.loc[(scale, 0.0), c]:.0%})" for c, unit, digits in units]
            for (scale, s), line in _lines(cost)
        ],
        ["scale", "sparsity", "weights and biases", "thousand multiplications an image", "µs an image",
         "MB of activations a batch"],
    )  # fmt: skip


def costs(results: Iterable[Result], question: str, cost: str, unit: float) -> pd.DataFrame:
    """Return the measures of one question by cost, for drawing: `method` says which line, `cost` what it costs.

    The dense network begins two lines, that of the shrunk ones and that of the ones from scratch. Costs are means over
    seeds of the network, or of the ensemble, that is measured.
    """
    parts = []
    for result in results:
        own = select(result.rows, {"question": question})
        own = own[~own["arm"].isin(["start", "pruned"])]
        table = measures(own).assign(scale=result.profile)
        price = select(own, {"metric": cost})
        if question == "adversarial":
            price = price[price["members"] == 1]
        keys = ["arm", "sparsity", "seed"] + (["members"] if question == "ensemble" else [])
        prices = (unit * price.groupby(keys)["value"].mean()).rename("cost")
        parts.append(table.join(prices, on=keys))
    table = pd.concat(parts, ignore_index=True)
    lines = [
        table[table["arm"].isin(["dense", arm])].assign(method=name)
        for arm, name in (("shrunk", "shrunk"), ("scratch", "from scratch"))
    ]
    table = pd.concat(lines, ignore_index=True)
    if question == "ensemble":
        several = table["members"].map(lambda n: f"ensemble of {n:g}" if n > 1 else "one")
        table = table.assign(method=several + ", " + table["method"]).sort_values("members", kind="stable")
    return table


def detectors_by_cost(results: Iterable[Result]) -> pd.DataFrame:
    """Return the AUROC and the measured µs an image of each detector, for drawing: `detector`, `family`, `cost`."""
    parts = []
    for result in results:
        own = select(result.rows, {"question": "detectors"})
        keys = ["detector", "arm", "sparsity", "seed"]
        time = (1e6 * select(own, {"metric": "time"}).groupby(keys)["value"].mean()).rename("cost")
        parts.append(measures(own).join(time, on=keys).assign(scale=result.profile))
    return pd.concat(parts, ignore_index=True)


def equal_cost(run: Run, results: Iterable[Result]) -> None:
    """Show shrunk members against one dense network where they cost no more, and members from scratch beside them."""
    for result in results:
        p = result.parameters
        found = judge([p.equal_cost()], result.rows)
        if not found:
            run.say(f"At no sparsity do {p.members} shrunk networks fit into the cost of one dense, {result.scale}.")
            continue
        run.say(f"{p.members} shrunk networks against one dense, {result.scale}; the clearest gain of each measure:")
        run.table([[f.measure, f] for f in found], ["measure", "verdict, and the difference in points"])
        scratch = judge([p.equal_cost("scratch")], result.rows)
        said = [f"{f.measure} {f.best.mean:+.1f} at {f.best.label}" for f in scratch]
        if said:
            run.say("The same with members trained from scratch, in points: " + "; ".join(said) + ".")


def making(run: Run, results: Iterable[Result]) -> None:
    """Show the mean seconds to make one network, parents included: a shrunk network needs a dense one first."""
    for result in results:
        part = select(result.rows, {"metric": "weights", "question": ("first", "smoothing", "adversarial")})
        part = part.drop_duplicates(["key", "question", "arm"])
        index = ["question", "sparsity", "seed"]
        own = {arm: lines.set_index(index)["seconds"] for arm, lines in part.groupby("arm")}
        starts = own["start"].groupby(["question", "seed"]).first()
        shrunk = own["shrunk"] + own["pruned"] + [starts[question, seed] for question, _, seed in own["shrunk"].index]
        total = {"dense": own["dense"], "shrunk": shrunk, **({"scratch": own["scratch"]} if "scratch" in own else {})}
        made = pd.concat(total, names=["arm"]).groupby(["question", "arm", "sparsity"], sort=False).mean()
        ordered: Any = made.sort_index(level="question", sort_remaining=False).items()
        run.say(f"Mean seconds to make one network, parents included, {result.scale}, as measured on that machine:")
        run.table(
            [
                [words.QUESTIONS.get(question, "standard"), words.sparse({"arm": arm, "sparsity": s}), f"{v:.1f}",
                 f"{v / made[question, 'dense', 0.0]:.2f}"]
                for (question, arm, s), v in ordered
            ],
            ["training", "network", "seconds", "times that of the dense"],
        )  # fmt: skip


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the detectors in the order of their mean, the best first."""
    order = table.groupby("detector")["value"].mean()
    return table.sort_values("detector", key=lambda names: -names.map(order), kind="stable", ignore_index=True)


def place(run: Run, table: pd.DataFrame, name: str) -> None:
    """Say which place a detector takes among all of the table, at each scale, by its mean over families."""
    for scale, own in table.groupby("scale", sort=False):
        means = own.groupby("detector")["value"].mean().sort_values(ascending=False)
        best, worst = (words.detector(means.index[i]) for i in (0, -1))
        run.say(
            f"{scale}: averaged over the families, the headline configuration reaches {means[name]:.1f} and is number "
            f"{list(means.index).index(name) + 1} of {len(means)}; the best here is {best} with {means.iloc[0]:.1f}, "
            f"the worst {worst} with {means.iloc[-1]:.1f}."
        )


def summary(run: Run, scales: dict[str, list[Result]], verdicts: dict[str, list[Finding]]) -> None:
    """Say in a paragraph for each scale what the findings say of each claim."""
    for scale, own in verdicts.items():
        claims = dict.fromkeys(f.claim for f in own)
        told = " ".join(findings.sentence(claim, [f for f in own if f.claim == claim]) for claim in claims)
        run.say(f"**{scales[scale][0].scale}.** {told}")


def every_verdict(run: Run, verdicts: dict[str, list[Finding]]) -> None:
    """Show every comparison by scale and claim, folded away, with its clearest contrast and effect size."""
    head = ["question", "measure", "verdict", "clearest at", "difference", "d", "contrasts"]
    for scale, own in verdicts.items():
        for claim in dict.fromkeys(f.claim for f in own):
            some = [f for f in own if f.claim == claim]
            body = [
                [
                    f.question if f.subject == "all" else f"{f.subject}: {f.question}", f.measure, f"**{f.verdict}**",
                    f.best.label, f"{f.best.mean:+.1f} [{f.best.low:.1f}, {f.best.high:.1f}]", f"{f.best.effect:.1f}",
                    len(f.found),
                ]
                for f in some
            ]  # fmt: skip
            run.fold(f"{claim}, {scale}: {len(some)} comparisons", body, head)
