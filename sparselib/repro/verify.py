"""Compute published results again, from nothing, and compare."""

import math
import random
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparselib.repro import published, runner
from sparselib.repro.parameters import Parameters
from sparselib.repro.store import Store

TOLERANCE = 0.02
SAME, NEAR, DIFFERENT, MEASURED = "identical", "within tolerance", "DIFFERENT", "measured, not compared"


@dataclass
class Compared:
    """One published step: `values` are (what is measured, published, recomputed, outcome)."""

    figure: str
    step: str
    values: list[tuple[tuple[str, ...], float, float, str]]
    notes: list[str]

    @property
    def outcome(self) -> str:
        """The worst of its values; measured ones count only where there are no others."""
        outcomes = {outcome for *_, outcome in self.values}
        return next((o for o in (DIFFERENT, NEAR, SAME) if o in outcomes), MEASURED)


def sample(pages: Iterable[type[Parameters]], profile: str, number: int, seed: int) -> dict:
    """Return {what: (page, its published rows)} of `number` random steps (all, if there are fewer)."""
    found, pages = {}, list(pages)
    for page in pages:
        rows = published.read(profile, page.notebook)
        for what, own in () if rows is None else rows.groupby("what", sort=True):
            if not own["metric"].isin(published.MEASURED).all():  # else there is nothing to compare
                found.setdefault(what, (page, own))
    if not found:
        names = ", ".join(page.notebook for page in pages)
        raise published.PublishedError(
            f"no published rows of {names or 'any figure'} in {published.folder(profile)}; to publish: "
            f"sparselib reproduce --profile {profile} --rows-only --publish"
        )
    chosen = random.Random(seed).sample(sorted(found), min(number, len(found)))
    return {what: found[what] for what in chosen}


def recompute(
    profile: str, chosen: dict, *, tolerance: float = TOLERANCE, within: Path | None = None, **how: Any
) -> list[Compared]:
    """Return a Compared for each of the steps of `sample`, computed in a store of their own with all they build on.

    Args:
        tolerance: allowed difference of a value; for values beyond 1 relative to it.
        within: the folder in which that store is made for the time being; default: the system's.
        how: for runner.compute.
    """
    steps = {}
    for page in {page for page, _ in chosen.values()}:
        if parameters := published.parameters(page, profile):
            steps |= {step.what[: published.SHORT]: step for step in parameters.steps()}
    known = [steps[what] for what in chosen if what in steps]
    with tempfile.TemporaryDirectory(prefix="verify-", dir=within) as folder:
        store = Store(folder)
        runner.compute(known, store, **how)
        return [_compared(page.notebook, rows, steps.get(w), store, tolerance) for w, (page, rows) in chosen.items()]


def _compared(notebook, rows, step, store, tolerance):
    first = rows.iloc[0]
    if step is None:
        values = [(name, value, math.nan, DIFFERENT) for name, value in _values(rows, ()).items()]
        note = "its parameters do not lead to this step any more: the steps have been changed; publish again"
        return Compared(notebook, f"step {first['what']}", values, [note])
    fresh = runner.rows([({}, step)], store).drop(columns="taken")
    within = [c for c in fresh if c not in (*step.columns(), *published.ORIGIN, "metric", "value")]
    old, new = _values(rows, within), _values(fresh, within)
    values, notes = [], []
    if old.keys() == new.keys():
        values = [(n, old[n], new[n], _outcome(n[-1], old[n], new[n], tolerance)) for n in old]
    else:
        values = [(name, value, math.nan, DIFFERENT) for name, value in old.items()]
        notes.append("the step has other rows now")
    if first["versions"] != fresh["versions"].iloc[0]:
        notes.append(f"versions differ: {first['versions']} → {fresh['versions'].iloc[0]}")
    elif first["key"] != step.key[: published.SHORT]:
        notes.append(f"the code or the data have changed since it was published (commit {first['commit']})")
    return Compared(notebook, str(step), values, notes)


def _values(rows, within):
    """Return {(columns of its own …, metric): value} of the rows of a step; one that stands in two roles, once."""
    names = [*(c for c in within if c in rows), "metric"]
    return {
        tuple(str(v) for v in name if v == v): value
        for *name, value in rows[[*names, "value"]].itertuples(index=False, name=None)
    }  # fmt: skip


def _outcome(metric, before, now, tolerance):
    if metric in published.MEASURED:
        return MEASURED
    if before == now:
        return SAME
    return NEAR if abs(now - before) <= tolerance * max(1.0, abs(before)) else DIFFERENT
