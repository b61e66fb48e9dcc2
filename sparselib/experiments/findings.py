"""From rows to findings: one long table of measures, comparisons paired by seed, and the rule that judges them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from sparselib.experiments import statistics, words

MARGIN = 1.0  # points: the smallest difference that would matter
CHANCE = {"auroc": 50.0, "fpr95_ood": 5.0}  # in the table of measures; that of the AUPR depends on the numbers
FAMILIES = ("attacks", "shifts", "outliers")
# What a row is about, and where it comes from; the other columns say which network it is of.
ABOUT = ("task", "attack", "norm", "eps", "shift", "severity", "detector", "anomaly", "family", "metric")
ORIGIN = ("value", "what", "key", "commit", "device", "seconds", "versions", "taken")


def select(table: pd.DataFrame, where: dict) -> pd.DataFrame:
    """Return the lines whose columns have the values of `where`; a tuple allows several."""
    chosen = pd.Series(True, table.index)
    for column, value in where.items():
        allowed = value if isinstance(value, tuple) else (value,)
        chosen &= table[column].isin(allowed) if column in table else False
    return table[chosen]


def measures(rows: pd.DataFrame, metrics: tuple[str, ...] = ("auroc",)) -> pd.DataFrame:
    """Return the measures of every network in percent, long: the columns that say which network, what of, and `value`.

    `measure` names each: "clean", "PGD, L∞ 0.1" and so on are accuracies; "shifts, mean" and "shifts, worst" are over
    kinds of shift; "MSP, outliers" is an AUROC, the mean over the anomalies of the family. With other `metrics` there
    are also "MSP, outliers, AUPR" and "…, 100 − FPR95": more is better everywhere. `about` is `measure` without the
    detector.
    """
    network = [c for c in rows.columns if c not in (*ABOUT, *ORIGIN)]
    kept = [*network, "task", "attack", "norm", "eps", "detector", "family", "metric"]
    rows = rows.reindex(columns=[*kept, "shift", "value"])
    accuracy, attacked = rows["metric"] == "accuracy", rows["attack"].notna()
    parts = [
        rows[accuracy & ~attacked & rows["task"].isin(["clean", "ensemble"])].assign(measure="clean", rank=0),
        _named(rows[accuracy & attacked], lambda r: words.attack(r.attack, r.norm, r.eps)).assign(rank=1),
        *_shifts(rows[accuracy & (rows["task"] == "shift")], network),
        _named(rows[rows["task"] == "certificate"], lambda r: words.ACCURACIES.get(r.metric)).assign(rank=3),
    ]
    detected = rows[rows["metric"].isin(metrics) & rows["family"].notna()]
    value = detected["value"].where(detected["metric"] != "fpr95_ood", 1 - detected["value"])
    about = detected["family"] + detected["metric"].map(words.TOLD)
    detected = detected.assign(value=value, about=about, rank=4)
    parts.append(_named(detected, lambda r: f"{words.detector(r.detector)}, {r.about}"))
    table = pd.concat([part for part in parts if len(part)]).dropna(subset="measure")
    table["about"] = table["about"].fillna(table["measure"]) if "about" in table else table["measure"]
    keys = [*kept, "measure", "about", "rank"]
    table = table.groupby(keys, dropna=False, sort=False, as_index=False)["value"].mean()
    table["value"] *= 100
    return table.sort_values("rank", kind="stable", ignore_index=True).drop(columns="rank")


def _named(rows, name):
    """Return the rows with the column `measure`; what is called the same is named once."""
    known = {}
    columns = [c for c in ("attack", "norm", "eps", "detector", "metric", "about") if c in rows]
    for line in rows[columns].drop_duplicates().itertuples(index=False):
        known[tuple(map(str, line))] = name(line)
    return rows.assign(measure=[known[tuple(map(str, line))] for line in rows[columns].itertuples(index=False)])


def _shifts(rows, network):
    """Return the mean and the worst accuracy over kinds of shift, for every network."""
    groups = rows.groupby(network, dropna=False, sort=False, as_index=False)["value"]
    usual = {"task": "shift", "metric": "accuracy", "rank": 2}
    return [
        found.assign(measure=f"shifts, {word}", **usual)
        for found, word in ((groups.mean(), "mean"), (groups.min(), "worst"))
    ]  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """What a claim says in one question: which lines of `measures` are compared with which, paired by seed.

    Args:
        of, control: columns and values that select the lines; CHANCE as control: the level of chance of each metric.
        subject: the column whose values are judged one by one. but: values of it that are not judged.
        match: further columns in which the two of a pair are equal.
        name: of the subject, where all lines are one.
        keeps: the claim is "as good", not "better". affordable: only where the members cost no more than one.
    """

    claim: str
    question: str
    of: dict
    control: dict
    subject: str = "arm"
    but: tuple[str, ...] = ()
    match: tuple[str, ...] = ()
    name: str | None = None
    keeps: bool = False
    affordable: bool = False


@dataclass(frozen=True)
class Finding:
    """The verdict on one comparison, by one measure, with the contrasts it rests on."""

    claim: str
    question: str
    subject: str
    measure: str
    verdict: str
    found: tuple[statistics.Contrast, ...]
    family: dict = field(repr=False, compare=False)  # {label: differences over seeds} behind `found`

    @property
    def best(self) -> statistics.Contrast:
        """The contrast with the largest lower bound, or mean where none is bounded."""
        return max(self.found, key=lambda c: (c.low, c.mean))

    def __str__(self):
        best = self.best
        return f"**{self.verdict}** {best.mean:+.1f} [{best.low:.1f}, {best.high:.1f}] at {best.label}"


def judge(
    comparisons: Iterable[Comparison], rows: pd.DataFrame, *, margin: float = MARGIN, metrics=("auroc",)
) -> list[Finding]:  # fmt: skip
    """Return the Findings of comparisons in the rows of one figure at one scale, by subject and measure."""
    table, found = measures(rows, metrics), []
    for comparison in comparisons:
        for subject, measure, family in _families(comparison, table, rows):
            contrasts = tuple(statistics.contrasts(family))
            if comparison.keeps:  # one sparsity that keeps the quality is enough
                verdicts = [statistics.as_good(c, margin) for c in contrasts]
                verdict = next((v for v in ("supported", "undecided") if v in verdicts), "contradicted")
            else:
                verdict = statistics.better_somewhere(contrasts, margin)
            said = (comparison.claim, comparison.question, subject, measure)
            found.append(Finding(*said, verdict, contrasts, family))
    return found


def _families(comparison, table, rows):
    """Yield (subject, measure, {label: differences over seeds}), a family of contrasts each."""
    c = comparison
    own, control = select(table, c.of), c.control
    column = c.subject if c.name is None else None
    if control is not CHANCE:
        others = select(table, control)
        own = own.drop(others.index, errors="ignore")
    if c.but:
        own = own[~own[c.subject if c.name is None else "detector"].isin(c.but)]
    if c.affordable:
        own = own[own["sparsity"].isin(_affordable(rows, c.of["arm"], c.of["members"]))]
    about = "about" if c.subject == "detector" else "measure"  # two detectors, one kind of measure
    label = "size" if "size" in c.match else "sparsity"
    groups: Any = own.groupby([column or own["measure"].map(lambda _: ""), about], sort=False)
    for (subject, measure), group in groups:
        family = {}
        for value, lines in group.groupby(label, sort=True):
            if control is CHANCE:
                level = CHANCE.get(lines["metric"].iloc[0])
                partner = lines.assign(value=level) if level is not None else lines[:0]
            else:
                same = {name: lines[name].iloc[0] for name in c.match}
                partner = select(others, {about: measure, **same})
            if len(partner):
                family[_label(label, value)] = statistics.paired(_by_seed(lines), _by_seed(partner))
        if family:
            yield c.name or (words.detector if c.subject == "detector" else words.arm)(subject), measure, family


def _by_seed(lines):
    return dict(zip(lines["seed"], lines["value"], strict=True))


def _label(name, value):
    if name == "size":
        return f"{value:g} weights"
    return f"sparsity {value:g}" if value else "dense"


def _affordable(rows, arm, members):
    """Return the sparsities at which so many networks together cost no more multiplications than one dense one."""
    single = select(rows, {"task": "ensemble", "metric": "macs", "members": 1, "arm": ("dense", arm)})
    cost = single.groupby("sparsity")["value"].mean()
    return [sparsity for sparsity, macs in cost.items() if members * macs <= cost[0.0]]


def differences(table: pd.DataFrame, own: dict, control: dict) -> np.ndarray:
    """Return own − control over seeds for two selections of `measures`, one line a seed each."""
    return statistics.paired(_by_seed(select(table, own)), _by_seed(select(table, control)))


def pooled(findings: Iterable[Finding], *, margin: float = MARGIN) -> list[Finding]:
    """Return one Finding of "better somewhere" for each question and measure: all its subjects as one family.

    The intervals are then corrected for the number of subjects, too.
    """
    groups = {}
    for f in findings:
        groups.setdefault((f.claim, f.question, f.measure), []).append(f)
    pooled = []
    for (claim, question, measure), own in groups.items():
        several = len(own) > 1
        family = {f"{f.subject}, {label}" if several else label: d for f in own for label, d in f.family.items()}
        contrasts = tuple(statistics.contrasts(family))
        verdict = statistics.better_somewhere(contrasts, margin)
        pooled.append(Finding(claim, question, "all", measure, verdict, contrasts, family))
    return pooled


def matrix(findings: list[Finding]) -> tuple[list[str], list[list[str]]]:
    """Return (head, lines) of a table: subjects down, measures across, each cell the verdict and its best contrast."""
    measures = list(dict.fromkeys(f.measure for f in findings))
    subjects = list(dict.fromkeys(f.subject for f in findings))
    cells = {(f.subject, f.measure): f for f in findings}
    lines = [[s, *(str(cells[s, m]) if (s, m) in cells else "" for m in measures)] for s in subjects]
    return ["", *measures], lines


def tally(findings: Iterable[Finding]) -> dict[str, int]:
    """Return {verdict: count}, in the order supported, contradicted, undecided."""
    verdicts = [f.verdict for f in findings]
    return {v: verdicts.count(v) for v in ("supported", "contradicted", "undecided")}


def counts(findings: dict[str, list[Finding]]) -> pd.DataFrame:
    """Return a table: claim, scale, supported, contradicted, undecided, for {scale: findings}."""
    lines = [
        {"claim": claim, "scale": scale, **tally(f for f in own if f.claim == claim)}
        for claim in sorted({f.claim for own in findings.values() for f in own})
        for scale, own in findings.items()
        if any(f.claim == claim for f in own)
    ]
    return pd.DataFrame(lines)


def sentence(claim: str, findings: list[Finding]) -> str:
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
