"""What the claims are tested on: from tables of measures to families of contrasts, paired by seed, and verdicts."""

from dataclasses import dataclass, field

import pandas as pd

from sparselib import verdict
from sparselib.repro.tables import (
    FAMILIES,
    NETWORK,
    SUFFIXES,
    certificates,
    ensembles,
    families,
    finished,
    hardened,
    measures,
    noisy_labels,
    same_size,
    same_width,
)

MARGIN = 1.0  # points: the smallest difference that would matter


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


def against(table, measure, control, *, of=None):
    """Return {recipe: {sparsity (as text): differences}} to a control, for one measure of a table of `measures`.

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
        found.setdefault(recipe, {})[str(sparsity)] = differences
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


def sparsity(p, rows, *, margin=MARGIN, metrics=("auroc",)):
    """Return the Findings of claim C1 in the rows of figure 1 or 2: three questions, by recipe and measure."""
    table = measures(same_width(p, rows), metrics)
    found = _gains("C1", "same width, against dense", table, lambda m: by_seed(table, m, recipe="dense"), margin)

    part = same_size(p, rows)
    sized = measures(part, metrics)
    size = part.drop_duplicates(NETWORK).set_index(NETWORK)["weights"]
    for measure in sized.columns:
        values = sized[measure].dropna().reset_index().join(size, on=NETWORK)
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
    sparse = measures(part[part["recipe"] != "dense"], metrics)
    for control in part.loc[part["recipe"] == "dense", "name"].unique():
        own = measures(part[part["name"] == control], metrics)
        found += _gains("C1", f"noisy labels, against {control}", sparse, lambda m, own=own: by_seed(own, m), margin)
    return found


def subnetworks(p, rows, *, margin=MARGIN, metrics=("auroc",)):
    """Return the Findings of claim C2: learnt masks against the dense network, and against masks by magnitude.

    Where batch-norm statistics are restated, something else than the mask was fitted: these are questions of their own.
    """
    table = measures(rows, metrics)
    trained = table[table.index.get_level_values("epochs") > 0]
    controls = ("dense", "mask magnitude", "mask random")
    learnt = [r for r in trained.index.unique("recipe") if not r.startswith(controls)]
    found = []
    for state in ("", ", batch norm restated"):
        own = [r for r in learnt if r.endswith(", batch norm restated") == bool(state)]
        largest = f"mask magnitude{state}"

        def same_sparsity(measure, largest=largest):
            return lambda sparsity: by_seed(trained, measure, recipe=largest, sparsity=sparsity)

        asked = f"learnt masks{state}, against "
        found += _gains("C2", f"{asked}dense", trained, lambda m: by_seed(trained, m, recipe="dense"), margin, of=own)
        found += _gains("C2", f"{asked}the largest weights", trained, same_sparsity, margin, of=own)
    return found


def pretraining(p, rows, *, margin=MARGIN):
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


def sensnorm(p, rows, *, margin=MARGIN, metrics=("auroc",)):
    """Return the Findings of claim C4, SensNorm against chance; and, beyond it ("C4+"), against each rival.

    The dense and the sparse networks make one family.
    """
    table = measures(_seeds(rows, p.seed_list()), metrics)
    chance = {"auroc": 50.0, "fpr95_ood": 5.0}  # that of the AUPR depends on how many anomalies there are
    found = []
    for metric in metrics:
        for kind in families(p):
            measure = kind + SUFFIXES[metric]
            for name in ["chance", *(d for d in p.detectors if d != "sensnorm")]:
                if name == "chance" and metric not in chance:
                    continue
                family = {}
                for sparsity in sorted(table.index.unique("sparsity")):
                    at = table[table.index.get_level_values("sparsity") == sparsity]
                    own = by_seed(at, f"sensnorm, {measure}")
                    level = dict.fromkeys(own, chance.get(metric))
                    other = level if name == "chance" else by_seed(at, f"{name}, {measure}")
                    if own and other:  # the ablation has dense networks only
                        family[f"sparsity {sparsity:g}" if sparsity else "dense"] = verdict.paired(own, other)
                claim = "C4" if name == "chance" else "C4+"
                found.append(_finding(claim, f"SensNorm against {name}", "SensNorm", measure, family, margin))
    return found


def confirmed(p, rows, *, margin=MARGIN):
    """Return the Findings on fresh seeds: the sensitivity profile against the other detectors, dense networks."""
    fresh = [net.seed for net in p.fresh()]
    table = measures(_seeds(rows, fresh))
    found = []
    for family in families(p):
        for name in (d for d in p.CONFIRMED if d != "profile"):
            own, other = by_seed(table, f"profile, {family}"), by_seed(table, f"{name}, {family}")
            differences = {"fresh seeds": verdict.paired(own, other)}
            found.append(_finding("C4+", f"profile against {name}", "profile", family, differences, margin))
    return found


def _seeds(rows, seeds):
    return rows[rows["seed"].isin(seeds)]


def from_scratch(p, rows, *, margin=MARGIN):
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


def structure(p, rows, *, margin=MARGIN, metrics=("auroc",)):
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
    scored = rows[rows["task"].isin(FAMILIES) & rows["members"].isna() & (rows["detector"] != "msp")]
    if len(scored):
        detected = measures(finished(scored), metrics)
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


def pooled(findings, *, margin=MARGIN):
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
    """Return what the findings say of a claim, in words and numbers; the words by the rule of the page of verdicts."""
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
            what = "the largest difference in its favour" if name == "supported" else "the plainest against it"
            said += f"; {what} is {f.best.mean:+.1f} points in {f.measure}{subject} ({f.question}, {f.best.label})"
    return said + "."
