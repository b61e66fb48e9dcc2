"""From rows to findings: one long table of measures, and comparisons in it, paired by seed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from sparselib.detection.metrics import area_under_accuracy
from sparselib.experiments import statistics, words
from sparselib.experiments.samples import OUTLIERS
from sparselib.experiments.statistics import Contrast

DELTA = 2.0  # points: the smallest difference that would matter
AREA, STRONGEST = "under attack, all radii", "under the strongest attack, all radii"
AREAS = {"pgd": AREA, "multitargeted": STRONGEST}  # of an area, a tenth of the partner's value would
CHANCE = {"auroc": 50.0}  # in the table of measures; that of accuracies depends on the number of classes
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


def measures(rows: pd.DataFrame, metrics: tuple[str, ...] = ("auroc", "ror")) -> pd.DataFrame:
    """Return the measures of every network in percent, long: the columns that say which network, what of, and `value`.

    `clean` is the clean accuracy of the network that the line is of, NaN where it was not measured.

    `measure` names each. Accuracies: "clean", "PGD, L∞ 0.1" and so on; `AREA`, the area under the accuracy over the
    radius of PGD in L∞, as a share of the whole, and `STRONGEST`, that where PGD goes towards every class as well;
    "shifts, mean" and "shifts, worst". Detection: "MSP, near" is an AUROC, the mean over the anomalies of the family;
    "MSP, outliers" the mean of near and far. "MSP, near, right or rejected" and, of all families, "MSP, all anomalies,
    right or rejected". `about` is `measure` without the detector.
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
    evaded = rows[(rows["task"] == "evasion") & rows["metric"].isin(words.EVASION)]
    parts = [
        clean.assign(measure="clean"),
        attacked.assign(measure=[words.attack(*line) for line in attacked[["attack", "norm", "eps"]].values]),
        *(_areas(rows, network, attack) for attack in AREAS),
        shifted.mean().assign(measure="shifts, mean", task="shift", metric="accuracy"),
        shifted.min().assign(measure="shifts, worst", task="shift", metric="accuracy"),
        certified.assign(measure=certified["metric"].map(words.ACCURACIES)),
        _detected(detected, network),
        evaded.assign(
            about=evaded["metric"].map(words.EVASION),
            family="attacks",
            measure=[f"{words.detector(d)}, {words.EVASION[m]}" for d, m in evaded[["detector", "metric"]].values],
        ),
    ]
    keys = [*kept, "measure", "about"]
    table = pd.concat([part for part in parts if len(part)]).reindex(columns=[*keys, "value"]).dropna(subset="measure")
    table["about"] = table["about"].astype(object).fillna(table["measure"])
    table = (100 * table.groupby(keys, dropna=False, sort=False)["value"].mean()).reset_index()
    clean = table[table["measure"] == "clean"].groupby(network, dropna=False)["value"].mean().rename("clean")
    return table.merge(clean.reset_index(), on=network, how="left")


def _areas(rows, network, attack):
    """Return the area under accuracy over the radius, by the trapezoid rule, with the clean accuracy at radius 0."""
    own = rows[(rows["attack"] == attack) & (rows["norm"] == "linf") & (rows["task"] == "attack")]
    if not {"accuracy", "accuracy_clean"} <= set(own["metric"]):
        return own.iloc[:0].assign(measure="")
    found = []
    for key, group in own.groupby(network, dropna=False, sort=False):
        by_eps = group[group["metric"] == "accuracy"].groupby("eps")["value"].mean()
        start = group.loc[group["metric"] == "accuracy_clean", "value"].mean()
        area = area_under_accuracy(np.r_[0.0, by_eps.index], np.r_[start, by_eps])
        found.append({**dict(zip(network, key, strict=True)), "value": area})
    told = {"measure": AREAS[attack], "task": "attack", "metric": "accuracy"}
    return pd.DataFrame(found, columns=[*network, "value"]).assign(**told)


def _detected(rows, network):
    """Return what a detector makes of each family: the mean over its anomalies; and the mean over families."""
    index = [*network, "task", "detector", "metric"]
    families = rows.groupby([*index, "family"], dropna=False, sort=False, as_index=False)["value"].mean()
    outliers = families[families["family"].isin(OUTLIERS) & (families["metric"] != "ror")].assign(family="outliers")
    everything = families[families["metric"] == "ror"].assign(family="all anomalies")
    parts = [families]
    for part in (outliers, everything):
        if len(part):
            parts.append(part.groupby([*index, "family"], dropna=False, sort=False, as_index=False)["value"].mean())
    table = pd.concat(parts, ignore_index=True)
    about = [family + words.TOLD[metric] for family, metric in table[["family", "metric"]].values]
    value = table["value"].where(table["metric"] != "fpr95_ood", 1 - table["value"])
    told = list(map("{}, {}".format, map(words.detector, table["detector"]), about))
    return table.assign(about=about, measure=told, value=value)


@dataclass(frozen=True)
class Comparison:
    """Which lines of `measures` are compared with which, paired by seed.

    Args:
        claim: "C1a" and so on. question: what is compared, in words.
        of, control: columns and values that select the lines.
        measures: those that are compared; (): all. by: "measure", or "about" where two detectors are compared.
        match: further columns in which the two of a pair are equal.
        best: of several control arms, the one with the highest mean in each measure is the partner.
        primary: it is an endpoint: one number, the mean over all its lines; its `measures` has one name.
    """

    claim: str
    question: str
    of: dict
    control: dict
    measures: tuple[str, ...] = ()
    by: str = "measure"
    match: tuple[str, ...] = ()
    best: bool = False
    primary: bool = False


@dataclass(frozen=True)
class Finding:
    """One comparison of one arm in one measure, and the contrast that was found."""

    comparison: Comparison
    arm: str
    label: str  # which of the arm's networks: its sparsity or size
    measure: str
    contrast: Contrast
    values: tuple[float, float]  # the means of the arm and of its partner, in percent
    unit: str = "sparsity"  # what the label is in: "sparsity" or "size"
    at: float = 0.0  # which of them
    parts: tuple["Finding", ...] = ()  # of a primary comparison over several sizes: each by itself


@dataclass(frozen=True)
class Endpoint:
    """The one number of a claim at one scale: what is compared, the number, what it comes to.

    `p`: two-sided, of no difference. `detectable`: the smallest difference that the seeds would probably have found.
    `small`: it is better or worse, but by less than δ. `undone`: it would be, but for the correction for the number of
    endpoints. `moves`: whether δ is in points and may be moved: that of an
    area is a share of its partner's, and a share of cost has none.
    """

    claim: str
    question: str
    number: str
    outcome: str
    p: float
    detectable: float
    differences: tuple[float, ...]
    delta: float
    small: bool = False
    undone: bool = False
    moves: bool = True

    @property
    def head(self) -> str:
        """What is compared, under its claim."""
        return f"{self.claim}: {self.question}"

    @property
    def mark(self) -> str:
        """The outcome, after the correction."""
        return statistics.UNDONE if self.undone else self.outcome

    @property
    def told(self) -> str:
        """The outcome in words, see `statistics.told`."""
        return statistics.told(self.mark, self.small, self.delta)

    @property
    def alone(self) -> str:
        """The outcome in words where the endpoints of other claims are not at hand, so that nothing is corrected."""
        return f"{self.told} on its own" if self.outcome in (statistics.BETTER, statistics.WORSE) else self.told


def endpoint(finding: Finding) -> Endpoint:
    """Return a primary finding as an Endpoint."""
    c, contrast = finding.comparison, finding.contrast
    differences, p = contrast.differences, statistics.p_value(contrast.differences)
    found = {"p": p, "detectable": statistics.detectable(differences), "differences": differences}
    own = {"outcome": contrast.outcome, "small": contrast.small, "delta": contrast.delta}
    own["moves"] = finding.measure not in AREAS.values()
    return Endpoint(c.claim, c.question, str(contrast) + _parts(finding.parts), **own, **found)


def _parts(parts):
    """Return in words what a mean over sizes hides."""
    if not parts:
        return ""
    ends = sorted(part.contrast.mean for part in parts)
    broken = sum(part.contrast.outcome == statistics.NOT_COMPARABLE for part in parts)
    told = f", {broken} not comparable by itself" if broken else ""
    kinds = {"size": "sizes", "sparsity": "sparsities"}[parts[0].unit]
    return f", of {len(parts)} {kinds} from {ends[0]:+z.1f} to {ends[-1]:+z.1f}{told}"


def endpoints(parameters: Any, rows: pd.DataFrame, *, delta: float = DELTA) -> list[Endpoint]:
    """Return the endpoints of a page's claim in its rows at one scale, not corrected for their number."""
    if hasattr(parameters, "endpoints"):
        return parameters.endpoints(rows, delta)
    return [endpoint(found) for found in compare(parameters.primary(), rows, delta=delta)]


def corrected(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Return the endpoints of one scale, corrected for their number: what Holm's p does not bear out is open."""
    found = []
    for one, p in zip(endpoints, statistics.holm([e.p for e in endpoints]), strict=True):
        decided = one.outcome in (statistics.BETTER, statistics.WORSE)
        undone = {"outcome": statistics.OPEN, "small": False, "undone": True}
        found.append(replace(one, p=p, **undone if decided and p >= 1 - statistics.LEVEL else {}))
    return found


def compare(comparisons: Iterable[Comparison], rows: pd.DataFrame, *, delta: float = DELTA) -> list[Finding]:
    """Return the Findings of comparisons in the rows of one page at one scale.

    One for each arm, sparsity (or size) and measure; of a primary comparison a single one, of the mean over its lines.
    """
    table = measures(rows)
    return [finding for c in comparisons for finding in _findings(c, table, delta)]


def _findings(c, table, delta):
    label = "size" if "size" in c.match else "sparsity"
    pairs = _pairs(c, table)
    if c.measures:
        pairs = pairs[pairs[c.by].isin(c.measures)]
    parts = tuple(_each(c, pairs, label, delta))
    if not c.primary or not len(pairs):
        yield from parts
        return
    numbers = ["value", "partner", "clean", "clean_partner"]
    told = pairs[[c.by, "metric", "classes"]].iloc[0].to_dict()
    pairs = pairs.groupby("seed", as_index=False)[numbers].mean().assign(**told, arm="", **{label: 0.0})
    for found in _each(c, pairs, label, delta):
        yield replace(found, parts=parts if len(parts) > 1 else ())


def _each(c, pairs, label, delta):
    """Yield the Finding of each arm, sparsity (or size) and measure."""
    for (arm, at, measure), lines in pairs.groupby(["arm", label, c.by], sort=False):
        found = _finding(c, words.arm(arm) if arm else "", _label(label, at), measure, lines, delta)
        yield replace(found, unit=label, at=float(at))


def _finding(c, arm, label, measure, lines, delta):
    if lines["seed"].duplicated().any():
        raise ValueError(f"{c.question!r}: {arm} {label} has several values of {measure} for a seed")
    own, partner = lines["value"].mean(), lines["partner"].mean()
    smallest = partner / 10 if measure in AREAS.values() else delta
    gap = (lines["clean"] - lines["clean_partner"]).mean()  # NaN where there is no accuracy: nothing to gate
    classes = lines["classes"].iloc[0]
    chance = CHANCE.get(lines["metric"].iloc[0], 100 / classes if classes == classes else None)
    contrast = statistics.contrast(
        statistics.paired(*(dict(zip(lines["seed"], lines[name], strict=True)) for name in ("value", "partner"))),
        smallest, comparable=measure == "clean" or not gap < -statistics.GATE,
        floor=statistics.at_floor(own, partner, chance),
    )  # fmt: skip
    return Finding(c, arm, label, measure, contrast, (float(own), float(partner)))


def _pairs(c, table):
    """Return the lines of `of` with what their partners have: `partner` (its value) and `clean_partner`."""
    match = [c.by, *c.match, "seed"]
    table = table.assign(**{n: np.nan for n in ("classes", "size", "sparsity") if n not in table})
    own, control = select(table, c.of), select(table, c.control)
    if c.best and len(control):
        means = control.groupby([c.by, "arm"])["value"].mean().reset_index().sort_values("value")
        control = control.merge(means.drop_duplicates(c.by, keep="last")[[c.by, "arm"]], on=[c.by, "arm"])
    if control.duplicated(match).any():
        raise ValueError(f"{c.question!r}: the control has several values of a measure for a seed")
    partners = control.set_index(match)[["value", "clean"]]
    pairs = own.join(partners.rename(columns={"value": "partner", "clean": "clean_partner"}), on=match)
    pairs = pairs[pairs[c.by].isin(set(control[c.by]))]  # the other measures were not taken of the partner
    if lost := sorted(set(pairs.loc[pairs["partner"].isna(), "seed"])):
        raise ValueError(f"of and control must have the same seeds, {lost} of {c.question!r} have no partner")
    label = "size" if "size" in c.match else "sparsity"
    for (arm, at, measure), lines in pairs.groupby(["arm", label, c.by], sort=False):
        if lost := sorted({*control.loc[control[c.by] == measure, "seed"]} - {*lines["seed"]}):
            where = " ".join(filter(None, [words.arm(arm), _label(label, at)]))
            raise ValueError(f"of and control must have the same seeds, {where} of {c.question!r} lacks {lost}")
    return pairs


def _label(name, value):
    if name == "size":
        return f"{value:,.0f} weights"
    return f"sparsity {value:g}" if value else ""
