"""Compute the steps that the store lacks, each once, in parallel."""

import math
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from sparselib.repro import cluster, dependencies, project, workers
from sparselib.repro.progress import Bar, Durations
from sparselib.repro.step import Step, StepError
from sparselib.repro.store import Store

SHARES = 8  # each worker gets its part of the work in so many pieces at least: the last ones are short
LONGEST = 30.0  # seconds of a piece, where they can be foreseen: progress is seen to be made
UNKNOWN = 0.1  # seconds of a step, where they cannot


def missing(steps: Iterable[Step], store: Store, *, adopted: bool = True) -> list[Step]:
    """Return what is to compute, inputs first: steps without rows in the store, and networks that those build on.

    adopted: rows that were taken over from published ones count as there; they come without a network.
    """
    return list(_look(steps, store, adopted)[0].values())


def _look(steps, store, adopted):
    """Return {key: step} of what is to compute, and {key: record or None} of all that was looked at."""
    todo, records = {}, {}

    def need(step, network):
        if step.key in todo:
            return
        if step.key not in records:
            records[step.key] = store.get(step.what, step.key)
        record = records[step.key]
        if record is None or (record["published"] and (network or not adopted)):
            for needed in step.inputs():
                need(needed, network=True)
            todo[step.key] = step

    for step in steps:
        need(step, network=False)
    return todo, records


def compute(
    steps: Iterable[Step], store: Store, *, jobs: int = 1, scheduler: str | None = None, progress: bool = True,
    adopted: bool = True,
) -> None:  # fmt: skip
    """Make sure that the store has the rows of every step.

    Args:
        jobs: worker processes on this machine; 1: this process computes.
        scheduler: address of a Dask scheduler, whose workers compute instead; they must share the store's folder.
        adopted: as in `missing`.
    Raises: StepError at the first failure, WorkerError when the workers cannot go on; what is done stays done.

    Every worker computes on one thread: results do not depend on `jobs`, and the cores are not oversubscribed.
    """
    steps, known = list(steps), Durations()
    todo, records = _look(steps, store, adopted)
    for step in steps:
        if step.key not in todo:
            known.learn(_kind(step), records[step.key]["seconds"])
    guess = _guesses(todo, known, store)
    pool = cluster.Cluster(scheduler, store.folder) if scheduler else workers.local(min(jobs, len(todo)))
    with pool, Bar(todo, guess, unit="steps", shown=progress) as bar:
        tasks = _tasks(todo, guess, pool.slots(), store.folder)
        for task, seconds in workers.carry_out(work, tasks, pool, bar.refresh):
            keys = task.arguments[1]
            for key, taken in zip(keys, seconds, strict=True):
                if taken is not None:
                    known.learn(_kind(todo[key]), taken)
            bar.done(keys, sum(filter(None, seconds)))
        if scheduler:
            _wait_until_visible(todo.values(), store)


def _kind(step):
    """Return what the time of a step depends on most, from the general to the particular: its class, its choices."""
    names = [value for _, value in step if isinstance(value, str)]
    return (type(step).__name__, *names, *sorted(thing.__name__ for thing in step.chosen()))


def _guesses(todo, known, store):
    """Return a function: key -> the seconds that the step may take, None when nothing like it is known."""
    kinds = {key: _kind(step) for key, step in todo.items()}
    relatives = {key: store.relatives(step.what) for key, step in todo.items()}  # as older code computed them
    return lambda key: relatives[key][0]["seconds"] if relatives[key] else known.guess(kinds[key])


def _tasks(todo, guess, slots, folder):
    """Return the steps as tasks: those that read the same network together, for they share more, in bounded pieces."""
    groups = defaultdict(list)
    for key, step in todo.items():
        groups[key if step.makes_network else step.inputs()].append(key)
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


def work(steps: list[Step], keys: list[str], folder: Path) -> list[float | None]:
    """Compute steps that have these keys, on one thread. Returns the seconds of each; None: someone else made it.

    Raises StepError when a key is another here: other code, data or versions than where the steps come from.
    """
    store, seconds = Store(folder), []
    with _one, _one_thread():
        for step, key in zip(steps, keys, strict=True):
            if step.key != key:
                raise StepError(
                    f"{step}: the worker (process {os.getpid()} on {socket.gethostname()}) has other code, data or "
                    "package versions than the process that asks; make them equal, or start again if the code was "
                    "edited meanwhile"
                )
            with store.locked(step.what, step.key):
                record = store.get(step.what, step.key)
                seconds.append(_make(step, store) if record is None or record["published"] else None)
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


def _make(step, store):
    """Compute the step, save it, and return the seconds it took."""
    started = time.perf_counter()
    try:
        rows, net = step.compute(lambda needed: deepcopy(_network(store.folder, needed)))
    except Exception as error:
        raise StepError(f"{step}: {type(error).__name__}: {error}") from error
    if lost := [row["metric"] for row in rows if row["value"] != row["value"]]:
        raise StepError(f"{step}: {', '.join(lost)} is not a number")
    seconds = round(time.perf_counter() - started, 3)
    save(step, store, rows, net, commit=project.commit(), device=project.device(), seconds=seconds, published=False)
    return seconds


def save(step: Step, store: Store, rows: list[dict], network: Any = None, **origin: Any) -> None:
    """Put the rows of a step into the store; `origin`: the commit, device and seconds, and whether `published`."""
    parts = step.parts()
    store.put_code(parts["code"], step.code())
    store.put(step.what, step.key, {"step": type(step).__name__, "rows": rows, "parts": parts, **origin}, network)


@lru_cache(maxsize=2)
def _network(folder, step):
    return Store(folder).model(step.what, step.key, device=project.device(), into=step.blank())


def _wait_until_visible(steps, store, patience=60):
    """Wait for what other machines have written to the shared folder: NFS shows it after a while."""
    ends = time.monotonic() + patience
    for step in steps:
        while store.get(step.what, step.key) is None:
            if time.monotonic() > ends:
                raise StepError(f"{step}: computed by a worker, but not seen in {store.folder}; is the folder shared?")
            list(store.folder.glob("steps/*"))  # looking into a folder makes NFS look again
            time.sleep(0.5)


def rows(roles: Iterable[tuple[dict, Step]], store: Store) -> pd.DataFrame:
    """Return the `tidy` rows of (role, step) pairs, all of which must be in the store."""
    roles = list(roles)
    return tidy(roles, records((step for _, step in roles), store))


def records(steps: Iterable[Step], store: Store) -> dict[str, dict]:
    """Return {key: record} of steps. Raises StepError for one that is not in the store."""
    found = {}
    for step in steps:
        if step.key not in found:
            found[step.key] = store.get(step.what, step.key)
            if found[step.key] is None:
                raise StepError(f"{step}: not in the store {store.folder}; compute it first")
    return found


def tidy(roles: Iterable[tuple[dict, Step]], records: dict[str, dict]) -> pd.DataFrame:
    """Return the rows of (role, step) pairs, in their order, as a DataFrame with provenance.

    A row has the columns of the role, of the step, of the measurement (metric, value), and where it comes from: what,
    key, commit, device, seconds, versions, taken (from results/).
    """
    table = []
    for role, step in roles:
        record = records[step.key]
        origin = {"what": step.what, "key": step.key, **{n: record[n] for n in ("commit", "device", "seconds")}}
        origin["taken"] = record["published"]
        origin["versions"] = " ".join(f"{n} {v}" for n, v in record["parts"]["versions"].items())
        table += [{**role, **step.columns(), **row, **origin} for row in record["rows"]]
    found = pd.DataFrame(table)
    found = found.where(found.notna(), np.nan)  # one mark for what a row does not have
    last = ["metric", "value", *origin] if table else []
    return found[[*(c for c in found if c not in last), *last]]


def reason(step: Step, store: Store) -> str:
    """Return why the store lacks the step, in a few words."""
    relatives = store.relatives(step.what)
    if not relatives:
        return "new parameters"
    old, new, changed = relatives[0]["parts"], step.parts(), []
    if old["code"] != new["code"]:
        known = store.code(old["code"])
        changed.append(dependencies.summary(dependencies.changes(known, step.code())) if known else "code")
    if old["data"] != new["data"]:
        changed.append("data")
    before = old["versions"]
    changed += [f"{name} {before.get(name)} → {v}" for name, v in new["versions"].items() if before.get(name) != v]
    if not changed and old["inputs"] != new["inputs"]:
        changed.append("a network it builds on")
    return "; ".join(changed) + " changed" if changed else "its file is damaged or was removed"
