"""How much faster several workers are than one, and whether they find the same: whole grids of the profile digits.

    python benchmarks/jobs.py [--figure 1 2 …] [--seeds 5] [--rounds 1] [--jobs 2]

Each run computes the figures' grids (without --figure: those of all pages, for half an hour and more) into a store of
its own, in a process of its own, so the start of the workers counts. One worker and several take turns; medians are
compared, and every step of every store with the same step of the first: rows must be equal to the last bit.
The target, 1.7, is for a machine with nothing else to do: what others used meanwhile is shown beside, and the CPU
seconds of the runs themselves, which depend on it little.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sparselib import experiments
from sparselib.repro import parameters
from sparselib.repro.published import MEASURED
from sparselib.repro.store import Store

TARGET = 1.7


def run(jobs, figures, seeds):
    """Return the seconds of one run, the CPU seconds it used, how many cores others used meanwhile, and its rows."""
    command = [sys.executable, "-m", "sparselib", "reproduce", "--rows-only", "--from-nothing", "--jobs", str(jobs)]
    options = [word for number in figures for word in ("--figure", number)]
    pages = [parameters.find(experiments.PAGES, name) for name in figures or experiments.PAGES]
    known = {name for page in pages for name in page.model_fields}
    options += ["--set", f"seeds={seeds}"] if "seeds" in known else []
    with tempfile.TemporaryDirectory() as folder:
        busy, own, started = _busy(), os.times(), time.perf_counter()
        environment = {**os.environ, "SPARSELIB_STORE": folder}
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL, env=environment)
        seconds, after = time.perf_counter() - started, os.times()
        used = after.children_user + after.children_system - own.children_user - own.children_system
        return seconds, used, max(0.0, (_busy() - busy - used) / seconds), _rows(Path(folder))


def _rows(folder):
    """Return {step: its rows} of a store, without what no second run repeats."""
    store = Store(folder)
    return {
        path.stem: [row for row in store.get(path.parent.name, path.stem)["rows"] if row["metric"] not in MEASURED]
        for path in sorted((folder / "steps").rglob("*.json"))
    }


def _busy():
    """Return the seconds that all cores of the machine have been busy (Linux; elsewhere 0)."""
    try:
        with open("/proc/stat", encoding="utf-8") as file:
            user, nice, system = map(int, file.readline().split()[1:4])
    except OSError:
        return 0.0
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.jobs < 2:
        parser.error(f"--jobs must be at least 2, to be compared with 1, got {arguments.jobs}")
    found = {1: [], arguments.jobs: []}
    for _ in range(arguments.rounds):
        for jobs, runs in found.items():
            runs.append(run(jobs, arguments.figure, arguments.seeds))
    first, *others = [rows for runs in found.values() for *_, rows in runs]
    named = "figures " + ", ".join(arguments.figure) if arguments.figure else "all pages"
    print(
        f"{named}, {arguments.seeds} seeds, medians of {arguments.rounds}, {os.cpu_count()} cores, {len(first)} steps\n"
    )
    print("| jobs | seconds | CPU seconds | cores that others used |\n|---|---|---|---|")
    medians = {}
    for jobs, runs in found.items():
        seconds, used, busy = (statistics.median(values) for values in list(zip(*runs, strict=True))[:3])
        medians[jobs] = seconds
        print(f"| {jobs} | {seconds:.1f} | {used:.1f} | {busy:.2f} |")
    ratio = medians[1] / medians[arguments.jobs]
    print(f"\n{arguments.jobs} workers: {ratio:.2f} × faster (target with 2 on a free machine: ≥ {TARGET})")
    for rows in others:
        same = sum(rows.get(step) == values for step, values in first.items())
        print(f"another store: {same} of {len(first)} steps have equal rows, {len(rows.keys() - first.keys())} are new")
    if any(rows != first for rows in others):
        sys.exit(1)


if __name__ == "__main__":
    main()
