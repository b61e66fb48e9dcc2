"""From rows to findings: one long table of measures, comparisons paired by seed, and the rule that judges them."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from sparselib.experiments import statistics, words

MARGIN = 1.0  # points: the smallest difference that would matter
CHANCE = {"auroc": 50.0, "fpr95_ood": 5.0}  # in the table of measures; that of the AUPR depends on the numbers
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
    accuracy = rows[rows["metric"] == "accuracy"]
    clean = accuracy[accuracy["attack"].isna() & accuracy["task"].isin(["clean", "ensemble"])]
    attacked = accuracy[accuracy["attack"].notna()]
    shifted = accuracy[accuracy["task"] == "shift"].groupby(network, dropna=False, sort=False, as_index=False)["value"]
    certified = rows[rows["task"] == "certificate"]
    detected = rows[rows["metric"].isin(metrics) & rows["family"].notna()]
    about = [family + words.TOLD[metric] for family, metric in detected[["family", "metric"]].values]
    parts = [
        clean.assign(measure="clean"),
        attacked.assign(measure=[words.attack(*line) for line in attacked[["attack", "norm", "eps"]].values]),
        shifted.mean().assign(measure="shifts, mean", task="shift", metric="accuracy"),
        shifted.min().assign(measure="shifts, worst", task="shift", metric="accuracy"),
        certified.assign(measure=certified["metric"].map(words.ACCURACIES)),
        detected.assign(
            about=about, measure=list(map("{}, {}".format, map(words.detector, detected["detector"]), about)),
            value=detected["value"].where(detected["metric"] != "fpr95_ood", 1 - detected["value"]),
        ),
    ]  # fmt: skip
    table = pd.concat([part for part in parts if len(part)]).dropna(subset="measure")
    table["about"] = table["about"].fillna(table["measure"]) if "about" in table else table["measure"]
    keys = [*kept, "measure", "about"]
    return (100 * table.groupby(keys, dropna=False, sort=False)["value"].mean()).reset_index()


@dataclass(frozen=True)
class Comparison:
    """What a claim says in one question: which lines of `measures` are compared with which, paired by seed.

    Args:
        of, control: columns and values that select the lines; CHANCE as control: the level of chance of each metric.
        name: of what is judged; None: each arm is judged by itself.
        by: "measure", or "about" where two detectors are compared.
        match: further columns in which the two of a pair are equal.
        keeps: the claim is "as good", not "better". affordable: only where the members cost no more than one.
    """

    claim: str
    question: str
    of: dict
    control: dict
    name: str | None = None
    by: str = "measure"
    match: tuple[str, ...] = ()
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

    @property
    def best(self) -> statistics.Contrast:
        """The contrast with the largest lower bound, or mean where none is bounded."""
        return max(self.found, key=lambda c: (c.low, c.mean))

    def __str__(self):
        return f"**{self.verdict}** {self.best} at {self.best.label}"


def judge(
    comparisons: Iterable[Comparison], rows: pd.DataFrame, *, margin: float = MARGIN, metrics=("auroc",), pooled=False
) -> list[Finding]:  # fmt: skip
    """Return the Findings of comparisons in the rows of one figure at one scale, by subject and measure.

    With `pooled`, all arms of a question are one family, whose intervals are then corrected for their number, too.
    """
    table, findings = measures(rows, metrics), []
    for c in comparisons:
        families = _families(c, table, rows)
        if pooled and c.name is None:
            families = _pooled(families)
        for (subject, measure), family in families.items():
            found = tuple(statistics.contrasts(family))
            verdict = (statistics.as_good if c.keeps else statistics.better_somewhere)(found, margin)
            findings.append(Finding(c.claim, c.question, subject, measure, verdict, found))
    return findings


def _families(c, table, rows):
    """Return {(subject, measure): {label: differences over seeds}}, a family of contrasts each."""
    own, label = select(table, c.of), "size" if "size" in c.match else "sparsity"
    if c.affordable:
        own = own[own["sparsity"].isin(_affordable(rows, c.of["arm"], c.of["members"]))]
    if c.control is CHANCE:
        control, match = own.assign(value=own["metric"].map(CHANCE)).dropna(subset="value"), [c.by, label]
    else:
        control, match = select(table, c.control), [c.by, *c.match]
    partners = dict(tuple(control.groupby(match, sort=False)))
    families = {}
    for (arm, measure, value), lines in own.groupby(["arm", c.by, label], sort=False):
        partner = partners.get(tuple(lines[match].iloc[0]))
        if partner is not None:
            pair = (dict(zip(part["seed"], part["value"], strict=True)) for part in (lines, partner))
            family = families.setdefault((c.name or words.arm(str(arm)), measure), {})
            family[_label(label, value)] = statistics.paired(*pair)
    return families


def _pooled(families):
    """Return the families of all subjects as one for each measure; where there are several, labels name them."""
    several = len({subject for subject, _ in families}) > 1
    pooled = {}
    for (subject, measure), family in families.items():
        for label, found in family.items():
            pooled.setdefault(("all", measure), {})[f"{subject}, {label}" if several else label] = found
    return pooled


def _label(name, value):
    if name == "size":
        return f"{value:g} weights"
    return f"sparsity {value:g}" if value else "dense"


def _affordable(rows, arm, members):
    """Return the sparsities at which so many networks together cost no more multiplications than one dense one."""
    single = select(rows, {"task": "ensemble", "metric": "macs", "members": 1, "arm": ("dense", arm)})
    cost = single.groupby("sparsity")["value"].mean()
    return [sparsity for sparsity, macs in cost.items() if members * macs <= cost[0.0]]
