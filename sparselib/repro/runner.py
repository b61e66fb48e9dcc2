"""Compute the cells that the store lacks, each once, in parallel."""

import time
from collections import defaultdict
from concurrent.futures import FIRST_COMPLETED, wait
from functools import lru_cache

import pandas as pd
import torch
from joblib.externals.loky import ProcessPoolExecutor
from tqdm import tqdm

from sparselib.repro import project, source
from sparselib.repro.cells import CellError
from sparselib.repro.store import Store


def closure(cells):
    """Return the cells and all that they build on, each once, inputs first."""
    ordered = {}

    def visit(cell):
        for needed in cell.inputs():
            visit(needed)
        ordered.setdefault(cell.key, cell)

    for cell in cells:
        visit(cell)
    return list(ordered.values())


def missing(cells, store):
    """Return those of the cells, and of the cells they build on, that the store lacks, inputs first."""
    return [c for c in closure(cells) if store.get(c.what, c.key) is None]


def compute(cells, store, *, jobs=1, progress=True):
    """Make sure that the store has every cell. Raises CellError at the first failure; what is done stays done.

    Cells that read the same network go to a worker together, so that it is loaded once. Every worker computes on one
    thread: results do not depend on `jobs`, and the cores are not oversubscribed.
    """
    todo = missing(cells, store)
    groups = defaultdict(list)
    for cell in todo:
        groups[cell.key if cell.makes_network else tuple(c.key for c in cell.inputs())].append(cell)
    groups = list(groups.values())
    jobs = min(jobs, len(groups))
    with tqdm(total=len(todo), desc="cells", unit="cell", disable=not progress or not todo, smoothing=0.1) as bar:
        if jobs <= 1:
            for group in groups:
                work(group, store.folder)
                bar.update(len(group))
        else:
            _in_parallel(groups, store.folder, jobs, bar)


def _in_parallel(groups, folder, jobs, bar):
    """Run the groups on `jobs` processes, each as soon as the networks it reads are there."""
    unmade = {cell.key for group in groups for cell in group}
    waiting, running = list(groups), {}
    executor = ProcessPoolExecutor(max_workers=jobs)
    try:
        while waiting or running:
            ready = [g for g in waiting if not any(c.key in unmade for cell in g for c in cell.inputs())]
            for group in ready:
                waiting.remove(group)
                running[executor.submit(work, group, folder)] = group
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                group = running.pop(future)
                future.result()
                unmade -= {cell.key for cell in group}
                bar.update(len(group))
    except BaseException:
        executor.shutdown(wait=False, kill_workers=True)
        raise
    executor.shutdown()


def work(cells, folder):
    """Compute the cells of one group, in this process, on one thread. A cell that someone else has made is skipped."""
    store = Store(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for cell in cells:
            with store.locked(cell.what, cell.key):
                if store.get(cell.what, cell.key) is None:
                    _make(cell, store)
    finally:
        torch.set_num_threads(threads)


def _make(cell, store):
    started = time.perf_counter()
    try:
        rows, net = cell.compute(lambda needed: _network(store.folder, needed.what, needed.key))
    except Exception as error:
        raise CellError(f"{cell}: {type(error).__name__}: {error}") from error
    parts = cell.parts()
    store.put_code(parts["code"], cell.code())
    record = {
        "cell": type(cell).__name__,
        "columns": cell.columns(),
        "rows": rows,
        "parts": parts,
        "commit": project.commit(),
        "device": "cpu",
        "seconds": round(time.perf_counter() - started, 3),
    }
    store.put(cell.what, cell.key, record, net)


@lru_cache(maxsize=2)
def _network(folder, what, key):
    return Store(folder).model(what, key)


def rows(cells, store):
    """Return the tidy rows of the cells, in their order, as a DataFrame with provenance. All must be in the store."""
    table = []
    for cell in cells:
        record = store.get(cell.what, cell.key)
        provenance = {n: record[n] for n in ("commit", "device", "seconds")}
        provenance["versions"] = " ".join(f"{n} {v}" for n, v in record["parts"]["versions"].items())
        table += [{**record["columns"], **row, "key": cell.key, **provenance} for row in record["rows"]]
    return pd.DataFrame(table)


def reason(cell, store):
    """Return why the store lacks the cell, in a few words."""
    relatives = store.relatives(cell.what)
    if not relatives:
        return "new parameters"
    old, new = relatives[0]["parts"], cell.parts()
    changed = []
    if old["code"] != new["code"]:
        known = store.code(old["code"])
        names = source.changes(known, cell.code()) if known else ["code"]
        changed.append(source.summary(names))
    if old["data"] != new["data"]:
        changed.append("data")
    changed += [
        f"{n} {old['versions'].get(n)} → {v}" for n, v in new["versions"].items() if old["versions"].get(n) != v
    ]
    if not changed and old["inputs"] != new["inputs"]:
        changed.append("a network it builds on")
    return "; ".join(changed) + " changed" if changed else "its file is damaged or was removed"
