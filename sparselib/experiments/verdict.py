"""Figure 6: every claim by its endpoints, by one rule, from the rows of all other figures; and how they are told."""

import math
from collections import Counter
from typing import Annotated, ClassVar

import pandas as pd
from pydantic import Field, ValidationError, field_validator, model_validator

from sparselib import checks
from sparselib.experiments import fields, statistics, words
from sparselib.experiments.fields import Page
from sparselib.experiments.findings import Endpoint, corrected, endpoints
from sparselib.experiments.samples import inliers
from sparselib.experiments.sensnorm import Sensnorm
from sparselib.experiments.sparsity import AnomalyDetection, Robustness
from sparselib.experiments.structure import StructureAndCost
from sparselib.experiments.subnetworks import Subnetworks
from sparselib.repro.page import Result, Run
from sparselib.repro.parameters import Parameters, in_one_line

JUDGED = {page.notebook: page for page in (Robustness, AnomalyDetection, Subnetworks, StructureAndCost, Sensnorm)}


class Verdict(Page):
    """Every claim by its endpoints: better, worse, equal or open, at each scale."""

    number, notebook, claim = 6, "06_verdict", "C1–C4"
    blocks: ClassVar[tuple[str, ...]] = ("verdict",)
    publishable: ClassVar[bool] = False
    judges: ClassVar[tuple[type[Parameters], ...]] = tuple(JUDGED.values())

    seeds: fields.Seeds
    delta: Annotated[float, Field(ge=0, le=100)] = Field(description="smallest difference that would matter, in points")
    figures: dict[str, dict] = Field(description="other figures' parameters that are not the profile's")

    @field_validator("figures")
    @classmethod
    def _known_figures(cls, values):
        for name, changed in values.items():
            page = JUDGED[checks.choice("figure", name, JUDGED)]
            for parameter in changed:
                checks.choice(f"parameter of {name}", parameter, [n for n in page.model_fields if n != "profile"])
        return values

    @model_validator(mode="after")
    def _sound_figures(self):
        try:
            self.judged()
        except ValidationError as error:
            page = next(page for page in self.judges if page.__name__ == error.title)
            raise ValueError(in_one_line(error, page)) from None
        return self

    def judged(self) -> dict[str, Page]:
        """Return the parameters of the figures that are judged, by the names of their notebooks.

        What is changed here and known there is changed there, too.
        """
        usual, found = self.usual(self.profile), {}
        for name, page in JUDGED.items():
            given = {n: v for n, v in self if n in page.model_fields and v != usual[n]}
            found[name] = page.of_profile(self.profile, **given | self.figures.get(name, {}))
        return found

    def roles(self):
        return [pair for parameters in self.judged().values() for pair in parameters.roles()]

    def sources(self):
        return list(self.judged().values())


def ends(scales: dict[str, list[Result]], delta: float) -> dict[str, list[Endpoint]]:
    """Return {scale: endpoints} of {scale: Results of all figures}, corrected for their number at each scale."""
    return {
        scale: corrected([e for r in own for e in endpoints(r.parameters, r.rows, delta=delta)])
        for scale, own in scales.items()
    }


def end_points(found: dict[str, list[Endpoint]]) -> pd.DataFrame:
    """Return the endpoints of all scales for `plots.forest`: the scales of one endpoint stand together."""
    lines = []
    for at, (scale, own) in enumerate(found.items()):
        label = words.scale(scale) if len(found) > 1 else ""
        for e in own:
            c = statistics.contrast(e.differences, e.delta)
            ends = {"mean": c.mean, "low": c.low, "high": c.high, "delta": e.delta, "outcome": e.mark, "told": e.told}
            line = {"scale": "", "measure": "", "head": e.head, "line": ", ".join(filter(None, [e.head, label]))}
            line |= {"unit": "", "at": at, "label": label, "of": words.scale(scale), "moves": e.moves}
            lines.append({**line, **ends, "seeds": e.differences})
    return pd.DataFrame(lines)


def summed_up(found: dict[str, list[Endpoint]]) -> str:
    """Return the claims of each outcome, for a caption: "better: C1b, C3; open: C1a"; at each scale."""
    told = {}
    for scale, own in found.items():
        of = Counter(e.claim for e in own)
        names = [e.claim if of[e.claim] == 1 else f"{e.claim} ({_place(e, own)} of {of[e.claim]})" for e in own]
        pairs = list(zip(own, names, strict=True))
        claims = {outcome: [name for e, name in pairs if e.mark == outcome] for outcome in statistics.OUTCOMES}
        told[scale] = "; ".join(f"{outcome}: {', '.join(c)}" for outcome, c in claims.items() if c)
    return words.sentence(". ".join(f"{words.scale(s)}: {said}" if len(told) > 1 else said for s, said in told.items()))


def _place(end, own):
    return [e for e in own if e.claim == end.claim].index(end) + 1


def verdicts(run: Run, found: dict[str, list[Endpoint]]) -> None:
    """Show every endpoint at every scale: the number with its interval, Holm's p, the outcome; and with a movable δ."""
    told: dict[str, list[str]] = {}
    groups: dict[str, list[list[str]]] = {}
    lines = [(words.scale(scale), e) for scale, own in found.items() for e in own]
    for scale, e in sorted(lines, key=lambda line: line[1].head):
        p, outcome = f"{e.p:.2g}" if e.p >= 1e-3 else "< 0.001", f"**{e.told}**"
        asked = f"- **{e.claim}**. {words.sentence(e.question)}"
        told.setdefault(asked, []).append(f"{outcome}, {e.number} ({scale})")
        groups.setdefault(e.head, []).append([scale, e.number, p, outcome])
    run.lead("\n".join(f"{asked}: {'; '.join(found)}." for asked, found in told.items()))
    caption = "Every endpoint at every scale: the difference with its interval, p corrected by Holm, the outcome."
    run.grouped(groups, ["scale", "difference", "p (Holm)", "outcome"], caption=caption)
    if ends := movable(found):
        most, delta = max(10.0, *(e["delta"] for e in ends)), min(e["delta"] for e in ends)
        run.explorer("delta", {"delta": delta, "most": most, "ends": ends}, "What the outcomes are for another δ")
        run.say(
            "Left out are endpoints of a single seed, areas, whose δ is a tenth of the partner's value, and shares of "
            "cost, which have none. What is *open after correction* stays so: the correction looks at all endpoints."
        )


def movable(found: dict[str, list[Endpoint]]) -> list[dict]:
    """Return the endpoints whose δ is in points and may be moved, as the explorer "delta" reads them.

    `fixed` is an outcome that no δ changes: not comparable, at the floor, or open because the correction for their
    number makes it so. A single seed has no interval, and is left out.
    """
    ends = []
    for line in end_points(found).to_dict("records"):
        kept = line["outcome"] in (statistics.UNDONE, statistics.NOT_COMPARABLE, statistics.FLOOR)
        if line["moves"] and math.isfinite(line["low"]):
            own = {name: line[name] for name in ("mean", "low", "high", "delta")} | {"scale": line["of"]}
            ends.append({"name": line["head"], **own, "fixed": line["outcome"] if kept else None})
    return ends


def power(run: Run, found: dict[str, list[Endpoint]]) -> None:
    """Show for each endpoint which difference its seeds could have found, at every scale."""
    groups: dict[str, list[list[str]]] = {}
    for scale, own in found.items():
        for e in own:
            least = f"{e.detectable:.1f}" if math.isfinite(e.detectable) else "none (one seed has no spread)"
            groups.setdefault(e.head, []).append([words.scale(scale), least])
    caption = "The smallest difference that these seeds would probably have found."
    run.grouped(groups, ["scale", "smallest difference, in points"], caption=caption)


def widened(run: Run, found: dict[str, list[Endpoint]], scales: dict[str, list[Result]]) -> None:
    """Say for each scale how much too narrow its intervals may be, and which outcomes would not stand wider ones."""
    lines = []
    for scale, own in found.items():
        if not (sizes := _sizes(scales[scale][0])):
            continue
        factor = statistics.widening(len(scales[scale][0].parameters.seed_list()), *sizes)
        lost = [f"{e.claim} ({e.question})" for e in own if not _stands(e, factor)]
        told = (
            f"these would not stand by themselves: {'; '.join(lost)}" if lost else "no outcome would change by itself"
        )
        lines.append(f"- *{words.scale(scale)}*: {factor:.1f} times as wide; {told}.")
    run.say("\n".join(lines) or "It is told of no scale.")


def _sizes(result):
    """Return how many images a seed tests on and trains on, None where that is not told without the data."""
    p = result.parameters
    if not result.live:
        return (p.test_limit, p.train_limit) if p.test_limit and p.train_limit else None
    return tuple(len(inliers(p.data(), split)) for split in ("test", "train"))


def _stands(end, factor):
    """Return whether what an endpoint comes to by itself would be the same with an interval this much wider."""
    mean = sum(end.differences) / len(end.differences)
    wider = [mean + factor * (value - mean) for value in end.differences]
    if end.undone or end.outcome not in (statistics.BETTER, statistics.WORSE, statistics.EQUAL):
        return True
    if end.claim == "C3" and end.outcome == statistics.BETTER:  # it claims that nothing is lost
        return statistics.p_no_worse(wider, end.delta) < 1 - statistics.LEVEL
    return statistics.contrast(wider, end.delta).outcome == end.outcome
