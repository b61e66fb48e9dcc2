"""Compute published results again, from nothing, and compare."""

import math
import random
import tempfile
from dataclasses import dataclass

from sparselib.repro import published, runner
from sparselib.repro.store import Store

TOLERANCE = 0.02
SAME, NEAR, DIFFERENT, MEASURED = "identical", "within tolerance", "DIFFERENT", "measured, not compared"


@dataclass
class Compared:
    """One published cell: `values` are (task, condition, metric, published, recomputed, outcome)."""

    figure: str
    cell: str
    values: list
    notes: list

    @property
    def outcome(self):
        """The worst of its values; measured ones count only where there are no others."""
        outcomes = {outcome for *_, outcome in self.values}
        return next((o for o in (DIFFERENT, NEAR, SAME) if o in outcomes), MEASURED)


def sample(profile, notebooks, number, seed):
    """Return {what: (notebook, its published rows)} of `number` random cells (all, if there are fewer)."""
    found = {}
    for notebook in notebooks:
        rows = published.read(profile, notebook)
        for what, own in () if rows is None else rows.groupby("what", sort=True):
            if not own["metric"].isin(published.MEASURED).all():  # else there is nothing to compare
                found.setdefault(what, (notebook, own))
    if not found:
        raise published.PublishedError(
            f"no published rows of {', '.join(notebooks) or 'any figure'} in {published.folder(profile)}; to publish: "
            f"sparselib reproduce --profile {profile} --rows-only --publish"
        )
    chosen = random.Random(seed).sample(sorted(found), min(number, len(found)))
    return {what: found[what] for what in chosen}


def recompute(profile, chosen, *, tolerance=TOLERANCE, within=None, **how):
    """Return a Compared for each of the cells of `sample`, computed in a store of their own with all they build on.

    Args:
        tolerance: allowed difference of a value; for values beyond 1 relative to it.
        within: the folder in which that store is made for the time being; default: the system's.
        how: for runner.compute.
    """
    cells = {}
    for notebook in {notebook for notebook, _ in chosen.values()}:
        cells |= {cell.what: cell for cell in published.parameters(profile, notebook).cells()}
    known = [cells[what] for what in chosen if what in cells]
    with tempfile.TemporaryDirectory(prefix="verify-", dir=within) as folder:
        store = Store(folder)
        runner.compute(known, store, **how)
        return [
            _compared(notebook, rows, cells.get(what), store, tolerance) for what, (notebook, rows) in chosen.items()
        ]


def _compared(notebook, rows, cell, store, tolerance):
    names = ["task", "condition", "metric"]
    old = list(rows[[*names, "value"]].itertuples(index=False, name=None))
    first = rows.iloc[0]
    if cell is None:
        values = [(*name, value, math.nan, DIFFERENT) for *name, value in old]
        note = "its parameters do not lead to this cell any more: the cells have been changed; publish again"
        return Compared(notebook, f"cell {first['what']}", values, [note])
    fresh = runner.rows([cell], store)
    new = list(fresh[[*names, "value"]].itertuples(index=False, name=None))
    values, notes = [], []
    if [tuple(name) for *name, _ in old] == [tuple(name) for *name, _ in new]:
        for (*name, before), (*_, now) in zip(old, new, strict=True):
            values.append((*name, before, now, _outcome(name[-1], before, now, tolerance)))
    else:
        values = [(*name, value, math.nan, DIFFERENT) for *name, value in old]
        notes.append("the cell has other rows now")
    if first["versions"] != fresh["versions"].iloc[0]:
        notes.append(f"versions differ: {first['versions']} → {fresh['versions'].iloc[0]}")
    elif first["key"] != cell.key:
        notes.append(f"the code or the data have changed since it was published (commit {first['commit']})")
    return Compared(notebook, str(cell), values, notes)


def _outcome(metric, before, now, tolerance):
    if metric in published.MEASURED:
        return MEASURED
    if before == now or (math.isnan(before) and math.isnan(now)):
        return SAME
    return NEAR if abs(now - before) <= tolerance * max(1.0, abs(before)) else DIFFERENT
