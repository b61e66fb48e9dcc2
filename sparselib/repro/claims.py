"""What the claims are tested on: from the tidy rows of the figures to families of contrasts, paired by seed.

Works on rows alone, those just computed as well as published ones: no data set and no network is needed.
"""

from dataclasses import dataclass, field, replace
from functools import partial

import pandas as pd

from sparselib import verdict
from sparselib.repro import measurements

# What tells one network from another within a figure.
NETWORK = ["width", "training", "epochs", "recipe", "sparsity", "seed"]
FAMILIES = {"aa": "attacks", "ds": "shifts", "ood": "outliers"}
METRICS = {"auroc": "AUROC", "aupr_ood": "AUPR", "fpr95_ood": "FPR95"}


@dataclass(frozen=True)
class Finding:
    """The verdict on one claim in one setting, by one measure, with the contrasts it rests on."""

    claim: str
    question: str
    subject: str  # the recipe or method that is compared
    measure: str
    verdict: str
    found: tuple
    family: dict = field(repr=False, compare=False)  # {label: differences over seeds} behind `found`

    @property
    def best(self):
        """The contrast with the largest lower bound, or mean where none is bounded."""
        return max(self.found, key=lambda c: (c.low, c.mean))

    def __str__(self):
        best = self.best
        return f"**{self.verdict}** {best.mean:+.1f} [{best.low:.1f}, {best.high:.1f}] at {best.label}"


def families(p):
    """Return the names of the families of anomalies that the parameters ask for: "attacks", "shifts", "outliers"."""
    asked = {measurements.family(anomaly) for anomaly in p.anomalies}
    return [name for key, name in FAMILIES.items() if key in asked]


def measures(rows):
    """Return a table of percentages: one line per network (index NETWORK), one column per measure.

    "clean", "PGD linf 0.1", "FGSM …", "AutoAttack …", "shifts, mean" and "shifts, worst" are accuracies;
    "<detector>, attacks", "…, shifts" and "…, outliers" are AUROCs, means over the anomalies of the family.
    """
    named = rows.assign(measure=None)
    accuracy = named["metric"] == "accuracy"
    named.loc[accuracy & (named["task"] == "classification"), "measure"] = "clean"
    attacked = accuracy & (named["task"] == "attack")
    named.loc[attacked, "measure"] = named.loc[attacked, "condition"].map(attack_name)
    found = [named[named["measure"].notna()].groupby([*NETWORK, "measure"])["value"].mean().unstack()]
    shifted = named[accuracy & (named["task"] == "shift")].groupby(NETWORK)["value"]
    if len(shifted):
        found.append(shifted.agg(["mean", "min"]).set_axis(["shifts, mean", "shifts, worst"], axis=1))
    detected = named[(named["metric"] == "auroc") & named["task"].isin(FAMILIES)]
    if len(detected):
        what = detected["detector"] + ", " + detected["task"].map(FAMILIES)
        found.append(detected.assign(what=what).groupby([*NETWORK, "what"])["value"].mean().unstack())
    table = 100 * pd.concat([table for table in found if len(table)], axis=1)
    first = ["clean", "FGSM", "PGD", "AutoAttack"]
    return table[sorted(table, key=lambda m: next((i for i, f in enumerate(first) if m.startswith(f)), len(first)))]


def attack_name(condition):
    """Return "PGD linf 0.1" for the condition "pgd linf 0.1"."""
    attack, rest = condition.split(" ", 1)
    return {"pgd": "PGD", "fgsm": "FGSM", "autoattack": "AutoAttack"}[attack] + " " + rest


def same_width(p, rows):
    """Return the rows of the dense networks of the figure's width, and of the sparse ones made from them."""
    usual = (rows["width"] == p.width) & (rows["training"] == "standard") & (rows["epochs"] == p.epochs)
    sparse = rows["recipe"].isin(p.recipes) & rows["sparsity"].isin(p.sparsities)
    return rows[usual & (sparse | (rows["recipe"] == "dense"))]


def same_size(p, rows):
    """Return the rows of the narrow dense networks and of the wide ones, pruned to their sizes; column `weights`."""
    usual = (rows["training"] == "standard") & (rows["epochs"] == p.epochs)
    wide = (rows["width"] == p.wide_width) & (rows["recipe"] == "magnitude after")
    dense = (rows["recipe"] == "dense") & rows["width"].isin([*p.narrow_widths, p.wide_width])
    part = rows[usual & (wide | dense)]
    sizes = part[part["metric"] == "weights"].set_index(NETWORK)["value"].rename("weights")
    sizes = sizes[~sizes.index.duplicated()]
    part = part.join(sizes, on=NETWORK)
    narrow = set(part.loc[(part["recipe"] == "dense"), "weights"])
    return part[(part["recipe"] == "dense") | part["weights"].isin(narrow)]


def noisy_labels(p, rows):
    """Return the rows of the networks trained on noisy labels, with the column `name` for what each is."""
    part = rows[rows["training"].str.contains("noisy labels")]

    def name(row):
        if row["recipe"] != "dense":
            return f"{row['recipe']} {row['sparsity']:g}"
        if row["width"] != p.noisy_width:
            return "narrow"
        if "weight decay" in row["training"]:
            return "weight decay"
        return "dense" if row["epochs"] == p.noisy_epochs else "stopped early"

    return part.assign(name=part.apply(name, axis=1))


def lines(table, chosen):
    """Return {NETWORK…, measure, value} in long form for drawing: the dense network begins the line of every recipe."""
    long = table[chosen].melt(ignore_index=False, var_name="measure", value_name="value").dropna().reset_index()
    dense = long[long["recipe"] == "dense"]
    recipes = long.loc[long["recipe"] != "dense", "recipe"].unique()
    return pd.concat([long[long["recipe"] != "dense"], *(dense.assign(recipe=r) for r in recipes)], ignore_index=True)


def against(table, measure, control, *, of=None):
    """Return {recipe: {sparsity: differences}} to a control, for one measure of a table of `measures`.

    Args:
        control: {seed: value}, or a function that takes a sparsity and returns that.
        of: the recipes to compare, default all that are sparse.
    """
    values = table[measure].dropna().reset_index()
    values = values[values["recipe"].isin(of) if of is not None else values["sparsity"] > 0]
    found = {}
    for (recipe, sparsity), group in values.groupby(["recipe", "sparsity"], sort=False):
        partner = control(sparsity) if callable(control) else control
        differences = verdict.paired(group.set_index("seed")[measure].to_dict(), partner)
        found.setdefault(recipe, {})[f"{sparsity:g}"] = differences
    return found


def by_seed(table, measure, **where):
    """Return {seed: value} of the networks of a table of `measures` whose index levels have the given values."""
    values = table[measure].dropna().reset_index()
    for level, value in where.items():
        values = values[values[level] == value]
    return values.set_index("seed")[measure].to_dict()


def _gains(claim, question, table, control, margin, of=None):
    """Return a Finding for each recipe and measure: better somewhere than the control(measure)?"""
    return [
        _finding(claim, question, recipe, measure, family, margin)
        for measure in table.columns
        for recipe, family in against(table, measure, control(measure), of=of).items()
    ]  # fmt: skip


def _finding(claim, question, subject, measure, family, margin):
    found = verdict.contrasts(family)
    return Finding(claim, question, subject, measure, verdict.better_somewhere(found, margin), tuple(found), family)


def sparsity(p, rows, *, margin=1.0):
    """Return the Findings of claim C1 in the rows of figure 1 or 2: three questions, by recipe and measure."""
    found = []
    table = measures(same_width(p, rows))
    found += _gains("C1", "same width, against dense", table, lambda m: by_seed(table, m, recipe="dense"), margin)

    part = same_size(p, rows)
    table = measures(part)
    size = part.drop_duplicates(NETWORK).set_index(NETWORK)["weights"]
    for measure in table.columns:
        values = table[measure].dropna().reset_index().join(size, on=NETWORK)
        narrow, wide = (values[values["recipe"] == r] for r in ("dense", "magnitude after"))
        family = {
            f"{weights:g} weights": verdict.paired(
                group.set_index("seed")[measure].to_dict(),
                narrow[narrow["weights"] == weights].set_index("seed")[measure].to_dict(),
            )
            for weights, group in wide.groupby("weights")
        }
        if family:
            question = "same size, wide and sparse against narrow and dense"
            found.append(_finding("C1", question, "magnitude after", measure, family, margin))

    part = noisy_labels(p, rows)
    for control in ("dense", "stopped early"):
        own = measures(part[part["name"] == control])
        sparse = measures(part[part["recipe"] != "dense"])
        found += _gains("C1", f"noisy labels, against {control}", sparse, partial(by_seed, own), margin)
    return found


def subnetworks(p, rows, *, margin=1.0):
    """Return the Findings of claim C2: learnt masks against the dense network, and against masks by magnitude."""
    table = measures(rows)
    trained = table[table.index.get_level_values("epochs") > 0]
    learnt = [r for r in trained.index.unique("recipe") if not r.startswith(("dense", "mask magnitude", "mask random"))]
    found = _gains(
        "C2", "against dense", trained, lambda m: by_seed(trained, m, recipe="dense"), margin, of=learnt
    )  # fmt: skip
    for control in ("mask magnitude", "mask magnitude, batch norm restated"):

        def same_sparsity(measure, control=control):
            return lambda sparsity: by_seed(trained, measure, recipe=control, sparsity=sparsity)

        found += _gains("C2", f"against {control}", trained, same_sparsity, margin, of=learnt)
    return found


def pretraining(p, rows, *, margin=1.0):
    """Return the Findings of a control of claim C2: masks over trained weights against those over untrained ones."""
    table = measures(rows)
    epochs = table.index.get_level_values("epochs")
    trained, blank = table[epochs > 0], table[epochs == 0]
    found = []
    for recipe in blank.index.unique("recipe"):
        own = recipe.replace(" of untrained weights", "")

        def untrained(measure, recipe=recipe):
            return lambda sparsity: by_seed(blank, measure, recipe=recipe, sparsity=sparsity)

        at = trained[trained.index.get_level_values("sparsity").isin(blank.index.unique("sparsity"))]
        found += _gains("C2", "trained against untrained weights", at, untrained, margin, of=[own])
    return found


def masks(rows, wanted, sparsity):
    """Return {network, measure, value} in long form: the dense networks and those masked to one sparsity, by name."""
    table = measures(rows)
    index = table.index
    dense = (index.get_level_values("recipe") == "dense") & (index.get_level_values("epochs") > 0)
    part = table[dense | (index.get_level_values("sparsity") == sparsity)]
    long = part[wanted].melt(ignore_index=False, var_name="measure", value_name="value").dropna().reset_index()
    plain = {"mask magnitude": "magnitude", "mask random": "random"}

    def name(recipe):
        base, _, batch_norm = recipe.partition(", batch norm")
        word = plain.get(base, base.replace("mask ", "learnt: ").replace(" of untrained weights", ", untrained"))
        return word + (", restated" if batch_norm else "")

    order = ("dense", "learnt", "magnitude", "random")
    long = long.assign(network=long["recipe"].map(name))
    rank = long["network"].map(
        lambda n: (order.index(n.partition(",")[0].partition(":")[0]), "untrained" in n, "restated" in n)
    )
    return long.assign(rank=rank).sort_values(["measure", "rank"], key=_in_order(wanted), kind="stable")


def _in_order(wanted):
    return lambda column: column.map(wanted.index) if column.name == "measure" else column


def sensnorm(p, rows, *, margin=1.0):
    """Return the Findings of claim C4: SensNorm against chance and against each rival, dense and sparse."""
    table = measures(_seeds(rows, p.seed_list()))
    found = []
    for family in families(p):
        for sparsity in sorted(table.index.unique("sparsity")):
            at = table[table.index.get_level_values("sparsity") == sparsity]
            state = f"sparsity {sparsity:g}" if sparsity else "dense"
            if f"sensnorm, {family}" not in at:
                continue
            own, chance = by_seed(at, f"sensnorm, {family}"), dict.fromkeys(p.seed_list(), 50.0)
            for name in ["chance", *(d for d in p.detectors if d != "sensnorm")]:
                other = chance if name == "chance" else by_seed(at, f"{name}, {family}")
                differences = {state: verdict.paired(own, other)}
                found.append(_finding("C4", f"SensNorm against {name}", state, family, differences, margin))
    return found


def confirmed(p, rows, *, margin=1.0):
    """Return the Findings on fresh seeds: the sensitivity profile against the other detectors, dense networks."""
    fresh = [net.seed for net in p.fresh()]
    table = measures(_seeds(rows, fresh))
    found = []
    for family in families(p):
        for name in (d for d in p.CONFIRMED if d != "profile"):
            own, other = by_seed(table, f"profile, {family}"), by_seed(table, f"{name}, {family}")
            differences = {"fresh seeds": verdict.paired(own, other)}
            found.append(_finding("C4", f"profile against {name}", "fresh seeds", family, differences, margin))
    return found


def _seeds(rows, seeds):
    return rows[rows["seed"].isin(seeds)]


ENSEMBLE = ["training", "recipe", "sparsity", "members", "seed"]


def ensembles(rows):
    """Return a table of the Ensembled rows: one line per ensemble or single network, one column per measure.

    "clean", "calibration error", "PGD …" and AUROCs "msp, attacks" … in percent; "macs", "params", "seconds" as are.
    """
    part = rows[rows["members"].notna()]
    score = part["condition"].str.partition(" on ")[0]
    what = part["metric"].where(part["metric"] != "auroc", score + ", " + part["task"].map(FAMILIES))
    attacked = (part["metric"] == "accuracy") & (part["task"] == "attack")
    what = what.mask(part["metric"] == "accuracy", "clean").mask(attacked, part["condition"][attacked].map(attack_name))
    what = what.replace("calibration_error", "calibration error")
    table = part.assign(what=what).groupby([*ENSEMBLE, "what"])["value"].mean().unstack()
    percent = [c for c in table.columns if c not in ("macs", "params", "seconds", "peak_bytes")]
    table[percent] *= 100
    return table


def certificates(rows):
    """Return a table of the Certified rows: index NETWORK, "certified", "accuracy", "abstained" in percent; what a
    certificate costs, "macs" and "seconds", as are."""
    part = rows[(rows["task"] == "certificate") | (rows["condition"] == "certificate")]
    table = part.groupby([*NETWORK, "metric"])["value"].mean().unstack()
    table[["certified", "accuracy", "abstained"]] *= 100
    return table


def by_cost(table, chosen):
    """Return a table in long form for drawing: columns method, measure, value, and the index and costs of the table.

    The dense network begins two lines, that of the shrunk ones and that of the ones from scratch.
    """
    long = table.reset_index().melt(
        [*table.index.names, *(c for c in ("macs", "seconds") if c in table)],
        [c for c in chosen if c in table], "measure", "value",
    ).dropna(subset="value")  # fmt: skip
    dense, scratch = long["recipe"] == "dense", long["recipe"] == "from scratch"
    lines = [(long[~scratch], "shrunk")]
    if scratch.any():
        lines.append((long[dense | scratch], "from scratch"))
    found = pd.concat([part.assign(method=name) for part, name in lines], ignore_index=True)
    if "members" in found:
        how = found["members"].map(lambda m: f"ensemble of {m:g}" if m > 1 else "one")
        found["method"] = how + ", " + found["method"]
        found = found.sort_values(["members", "method"], ascending=[True, False], kind="stable")
    return found


def detectors_by_cost(rows):
    """Return the AUROC in percent and the seconds of each detector: NETWORK, detector, measure, value, seconds."""
    own = rows[rows["members"].isna() & rows["detector"].notna()]
    seconds = own[own["condition"] == "score"].groupby([*NETWORK, "detector"])["value"].mean().rename("seconds")
    part = own[own["metric"] == "auroc"].assign(measure=own["task"].map(FAMILIES))
    value = 100 * part.groupby([*NETWORK, "detector", "measure"], sort=False)["value"].mean()
    return value.reset_index().join(seconds, on=[*NETWORK, "detector"]).dropna(subset="seconds")


def networks_made(rows):
    """Return the seconds it took to make each network: index [training, recipe, sparsity, seed], "own" and "all".

    A shrunk network needs its dense parent, and the pruning and training on of it; "all" counts them, too.
    """
    part = rows[rows["metric"] == "weights"].drop_duplicates("key")
    own = part.groupby(["training", "recipe", "sparsity", "seed"])["seconds"].first()
    flat = own.rename("own").reset_index()
    dense = flat[flat["sparsity"] == 0].set_index(["training", "seed"])["own"]
    cut = flat[flat["recipe"].str.endswith(" units")].set_index(["training", "sparsity", "seed"])["own"]

    def total(net):
        if not net["recipe"].endswith(" shrunk"):
            return net["own"]
        return net["own"] + dense[net["training"], net["seed"]] + cut[net["training"], net["sparsity"], net["seed"]]

    return flat.assign(all=flat.apply(total, axis=1)).set_index(["training", "recipe", "sparsity", "seed"])


def hardened(rows):
    """Return `measures` of the networks trained on attacked inputs, by the stronger of both losses, and "macs"."""
    part = rows[rows["training"].str.startswith("adversarial")]
    macs = part[(part["metric"] == "macs") & (part["members"] == 1)].groupby(NETWORK)["value"].mean()
    return measures(part[part["members"].isna()]).assign(macs=macs)


def from_scratch(p, rows, *, margin=1.0):
    """Return the Findings of the control of claim C3: shrunk networks against those of their shapes, newly trained."""
    table = ensembles(rows)
    standard = table[table.index.get_level_values("training") == "standard"]
    members = standard.index.get_level_values("members")
    compared = {
        "one network": standard[members == 1],
        f"ensemble of {p.members}": standard[members == p.members],
        "adversarial training": hardened(rows),
        "randomized smoothing": certificates(rows),
    }
    found = []
    for subject, own in compared.items():
        for measure in own.columns:
            if (
                not measure.startswith(("clean", "PGD", "msp", "disagreement", "certified", "accuracy"))
                or own[measure].isna().all()
            ):
                continue
            control = own[own.index.get_level_values("recipe") == "from scratch"]
            sizes = control.index.unique("sparsity")
            at = own[own.index.get_level_values("sparsity").isin(sizes)]
            recipes = [r for r in at.index.unique("recipe") if r.endswith("shrunk")]
            families = against(
                at, measure, lambda s, c=control, m=measure: by_seed(c, m, sparsity=float(s)), of=recipes
            )  # fmt: skip
            question = "shrunk against from scratch at the same size"
            found += [_finding("C3", question, subject, measure, family, margin) for family in families.values()]
    return found


def structure(p, rows, *, margin=1.0):
    """Return the Findings of claim C3: shrunk networks as good as dense ones, and the equal-cost ensemble better.

    "as good" has one contrast for each sparsity, all of them in one family; its verdict is the best of the family's:
    the claim needs one sparsity that keeps the quality.
    """
    found = []

    def keeps(question, subject, table, measures):
        for measure in measures:
            own = against(table, measure, by_seed(table, measure, recipe="dense"))
            shrunk = next((family for recipe, family in own.items() if recipe.endswith("shrunk")), None)
            if shrunk:
                contrasts = verdict.contrasts(shrunk)
                verdicts = [verdict.as_good(c, margin) for c in contrasts]
                best = next((v for v in ("supported", "undecided") if v in verdicts), "contradicted")
                found.append(Finding("C3", question, subject, measure, best, tuple(contrasts), shrunk))

    table = ensembles(rows)
    several = table.index.get_level_values("members") == p.members
    standard = table.index.get_level_values("training") == "standard"
    quality = [c for c in table.columns if c.startswith(("clean", "PGD", "msp", "disagreement"))]
    keeps("shrunk as good as dense", f"ensemble of {p.members}", table[several & standard], quality)
    robust = hardened(rows)
    accuracies = [c for c in robust.columns if c.startswith(("clean", "PGD"))]
    keeps("shrunk as good as dense", "adversarial training", robust, accuracies)
    keeps("shrunk as good as dense", "randomized smoothing", certificates(rows), ["certified", "accuracy"])
    scored = rows[rows["task"].isin(FAMILIES) & rows["members"].isna()]
    detected = measures(scored)
    keeps("shrunk as good as dense", "gradient detectors", detected, list(detected.columns))

    single = table[standard & (table.index.get_level_values("members") == 1)]
    cost = single.groupby("sparsity")["macs"].mean()
    for measure in quality:
        dense = by_seed(single, measure, recipe="dense") if measure in single and single[measure].notna().any() else {}
        group = table[several & standard & table.index.get_level_values("recipe").str.endswith("shrunk")]
        family = {
            label: d
            for own in (against(group, measure, dense).values() if dense else ())
            for label, d in own.items()
            if p.members * cost[float(label)] <= cost[0.0]
        }
        if family:
            question = f"{p.members} shrunk members against one dense network, at no more multiplications"
            found.append(_finding("C3", question, f"ensemble of {p.members}", measure, family, margin))
    return found


def pooled(findings, *, margin=1.0):
    """Return one Finding of "better somewhere" for each question and measure: all its recipes as one family.

    The intervals are then corrected for the number of recipes, too.
    """
    groups = {}
    for f in findings:
        groups.setdefault((f.claim, f.question, f.measure), []).append(f)
    return [
        _finding(
            claim, question, "all", measure,
            {f"{f.subject} {label}" if len(own) > 1 else label: d for f in own for label, d in f.family.items()},
            margin,
        )
        for (claim, question, measure), own in groups.items()
    ]  # fmt: skip


def renamed(finding, **changed):
    """Return a copy of a Finding with other words."""
    return replace(finding, **changed)


def matrix(findings):
    """Return (head, lines) of a table: subjects down, measures across, each cell the verdict and its best contrast."""
    measures = list(dict.fromkeys(f.measure for f in findings))
    subjects = list(dict.fromkeys(f.subject for f in findings))
    cells = {(f.subject, f.measure): f for f in findings}
    lines = [[s, *(str(cells[s, m]) if (s, m) in cells else "" for m in measures)] for s in subjects]
    return ["", *measures], lines


def tally(findings):
    """Return {verdict: count}, in the order supported, contradicted, undecided."""
    return {v: sum(f.verdict == v for f in findings) for v in ("supported", "contradicted", "undecided")}


def counts(findings):
    """Return a table: claim, scale, supported, contradicted, undecided, for {scale: findings}."""
    lines = [
        {"claim": claim, "scale": scale, **tally([f for f in own if f.claim == claim])}
        for claim in sorted({f.claim for own in findings.values() for f in own})
        for scale, own in findings.items()
        if any(f.claim == claim for f in own)
    ]
    return pd.DataFrame(lines)


def sentence(claim, findings):
    """Return what the findings say of a claim, in words and numbers."""
    if not findings:
        return f"{claim} was not judged."
    count, total = tally(findings), len(findings)
    if count["supported"] == total:
        word = "is supported throughout"
    elif count["supported"] > total / 2:
        word = "is mostly supported"
    elif count["contradicted"] > total / 2:
        word = "is mostly contradicted"
    elif count["supported"] > count["contradicted"]:
        word = "is supported in part"
    elif count["contradicted"] > count["supported"]:
        word = "is contradicted in part"
    else:
        word = "stays open"
    said = (
        f"{claim} {word}: {count['supported']} of {total} comparisons support it, {count['contradicted']} contradict "
        f"it, {count['undecided']} are undecided"
    )
    for name, pick in (("supported", max), ("contradicted", min)):
        own = [f for f in findings if f.verdict == name]
        if own:
            f = pick(own, key=lambda f: f.best.mean)
            subject = "" if f.subject == "all" else f" of {f.subject}"
            what = "the largest gain" if name == "supported" else "the plainest contradiction"
            said += f"; {what} is {f.best.mean:+.1f} points in {f.measure}{subject} ({f.question}, {f.best.label})"
    return said + "."
