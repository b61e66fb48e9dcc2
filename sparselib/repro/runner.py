"""Compute the cells that the store lacks, each once, in parallel."""

import math
import os
import socket
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache

import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from sparselib.repro import cluster, project, source, workers
from sparselib.repro.cells import CellError
from sparselib.repro.progress import Bar, Durations
from sparselib.repro.store import Store

SHARES = 8  # each worker gets its part of the work in so many pieces at least: the last ones are short
LONGEST = 30.0  # seconds of a piece, where they can be foreseen: progress is seen to be made
UNKNOWN = 0.1  # seconds of a cell, where they cannot


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


def compute(cells, store, *, jobs=1, scheduler=None, progress=True):
    """Make sure that the store has every cell.

    Args:
        jobs: worker processes on this machine; 1: this process computes.
        scheduler: address of a Dask scheduler, whose workers compute instead; they must share the store's folder.
    Raises: CellError at the first failure, WorkerError when the workers cannot go on; what is done stays done.

    Every worker computes on one thread: results do not depend on `jobs`, and the cores are not oversubscribed.
    """
    pool = cluster.Cluster(scheduler, store.folder) if scheduler else None  # first: it may not be there
    try:
        known, todo = Durations(), {}
        for cell in closure(cells):
            record = store.get(cell.what, cell.key)
            if record is None:
                todo[cell.key] = cell
            else:
                known.learn(_kind(cell), record["seconds"])
        guess = _guesses(todo, known, store)
        tasks = _tasks(todo, guess, pool.slots() if pool else jobs, store.folder)
        if pool is None:
            jobs = min(jobs, len(tasks))
            pool = workers.Processes(jobs) if jobs > 1 else workers.Here()
        with Bar(todo, guess, unit="cells", shown=progress) as bar:

            def done(task, seconds):
                keys = task.arguments[1]
                for key, taken in zip(keys, seconds, strict=True):
                    if taken is not None:
                        known.learn(_kind(todo[key]), taken)
                bar.done(keys, sum(taken or 0.0 for taken in seconds))

            workers.carry_out(work, tasks, pool, done=done, tick=bar.refresh)
        if scheduler:
            _wait_until_visible(todo.values(), store)
    except BaseException:
        if pool:
            pool.stop(now=True)
        raise
    pool.stop()


def _kind(cell):
    """Return what the time of a cell depends on most, from the general to the particular: its class, its choices."""
    names = [value for _, value in cell if isinstance(value, str)]
    return (type(cell).__name__, *names, *sorted(thing.__name__ for thing in cell.chosen()))


def _guesses(todo, known, store):
    """Return a function: key -> the seconds that the cell may take, None when nothing like it is known."""
    kinds, before = {}, {}
    for key, cell in todo.items():
        kinds[key] = _kind(cell)
        if relatives := store.relatives(cell.what):  # the same cell, as older code computed it
            before[key] = relatives[0]["seconds"]
    return lambda key: before[key] if key in before else known.guess(kinds[key])


def _tasks(todo, guess, slots, folder):
    """Return the cells as tasks: those that read the same network together, for they share more, in bounded pieces."""
    groups = defaultdict(list)
    for key, cell in todo.items():
        groups[key if cell.makes_network else tuple(c.key for c in cell.inputs())].append(key)
    seconds = {key: guess(key) or UNKNOWN for key in todo}
    limit = min(LONGEST, sum(seconds.values()) / (SHARES * max(1, slots)))
    return [
        workers.Task(
            label=str(todo[piece[0]]) + (f" and {len(piece) - 1} more" if len(piece) > 1 else ""),
            arguments=([todo[key] for key in piece], piece, folder),
            makes=frozenset(piece),
            needs=frozenset(c.key for key in piece for c in todo[key].inputs()) & todo.keys(),
            weight=sum(seconds[key] for key in piece),
            kind=_kind(todo[piece[0]])[0],
        )
        for group in groups.values() for piece in _pieces(group, seconds, limit)
    ]  # fmt: skip


def _pieces(keys, seconds, limit):
    """Return the keys, in their order, in as few lists as have `limit` seconds each, of about equal length."""
    total = sum(seconds[key] for key in keys)
    share = total / max(1, math.ceil(total / limit))
    pieces, before = defaultdict(list), 0.0
    for key in keys:
        pieces[int((before + seconds[key] / 2) / share)].append(key)
        before += seconds[key]
    return list(pieces.values())


_one = threading.Lock()  # a Dask worker may have several threads; networks and torch's settings are shared by them


def work(cells, keys, folder):
    """Compute cells that have these keys, on one thread. Returns the seconds of each; None: someone else made it.

    Raises CellError when a key is another here: other code, data or versions than where the cells come from.
    """
    store, seconds = Store(folder), []
    with _one, _one_thread():
        for cell, key in zip(cells, keys, strict=True):
            if cell.key != key:
                raise CellError(
                    f"{cell}: the worker (process {os.getpid()} on {socket.gethostname()}) has other code, data or "
                    "package versions than the process that asks; make them equal, or start again if the code was "
                    "edited meanwhile"
                )
            with store.locked(cell.what, cell.key):
                made = store.get(cell.what, cell.key) is None
                seconds.append(_make(cell, store) if made else None)
    return seconds


@contextmanager
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):  # of numpy's libraries, too
            yield
    finally:
        torch.set_num_threads(before)


def _make(cell, store):
    """Compute the cell, save it, and return the seconds it took."""
    started = time.perf_counter()
    try:
        rows, net = cell.compute(lambda needed: deepcopy(_network(store.folder, needed.what, needed.key)))
    except Exception as error:
        raise CellError(f"{cell}: {type(error).__name__}: {error}") from error
    parts = cell.parts()
    store.put_code(parts["code"], cell.code())
    seconds = round(time.perf_counter() - started, 3)
    record = {
        "cell": type(cell).__name__,
        "columns": cell.columns(),
        "rows": rows,
        "parts": parts,
        "commit": project.commit(),
        "device": project.device(),
        "seconds": seconds,
    }
    store.put(cell.what, cell.key, record, net)
    return seconds


@lru_cache(maxsize=2)
def _network(folder, what, key):
    return Store(folder).model(what, key, device=project.device())


def _wait_until_visible(cells, store, patience=60):
    """Wait for what other machines have written to the shared folder: NFS shows it after a while."""
    ends = time.monotonic() + patience
    for cell in cells:
        while store.get(cell.what, cell.key) is None:
            if time.monotonic() > ends:
                raise CellError(f"{cell}: computed by a worker, but not seen in {store.folder}; is the folder shared?")
            list(store.folder.glob("cells/*"))  # looking into a folder makes NFS look again
            time.sleep(0.5)


def rows(cells, store):
    """Return the tidy rows of the cells, each once, in their order, as a DataFrame with provenance.

    All must be in the store.
    """
    table = []
    for cell in {cell.key: cell for cell in cells}.values():
        record = store.get(cell.what, cell.key)
        if record is None:
            raise CellError(f"{cell}: not in the store {store.folder}; compute it first")
        provenance = {n: record[n] for n in ("commit", "device", "seconds")}
        provenance["versions"] = " ".join(f"{n} {v}" for n, v in record["parts"]["versions"].items())
        table += [
            {**record["columns"], **row, "what": cell.what, "key": cell.key, **provenance} for row in record["rows"]
        ]
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
