"""How much faster two workers are than one, on the grid of figure 5 (profile digits).

    python benchmarks/jobs.py [--seeds 5] [--rounds 3] [--jobs 2]

Each run computes the whole grid into a store of its own, in a process of its own, so the start of the workers counts.
One worker and several take turns; medians are compared. The target, 1.7, is for a machine with nothing else to do:
what others used meanwhile is shown beside, and the CPU seconds of the runs themselves, which depend on it little.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

TARGET = 1.7


def run(jobs, seeds):
    """Return the seconds of one run, the CPU seconds it used, and how many cores other processes used meanwhile."""
    command = [sys.executable, "-m", "sparselib", "reproduce", "--figure", "5", "--rows-only"]
    options = ["--jobs", str(jobs), "--set", f"seeds={seeds}", "--set", f"fresh_seeds={seeds}"]
    with tempfile.TemporaryDirectory() as folder:
        busy, own, started = _busy(), os.times(), time.perf_counter()
        subprocess.run(
            [*command, *options], check=True, capture_output=True, env={**os.environ, "SPARSELIB_STORE": folder}
        )
        seconds, after = time.perf_counter() - started, os.times()
        used = after.children_user + after.children_system - own.children_user - own.children_system
        return seconds, used, max(0.0, (_busy() - busy - used) / seconds)


def _busy():
    """Return the seconds that all cores of the machine have been busy (Linux; elsewhere 0)."""
    try:
        with open("/proc/stat") as file:
            user, nice, system = map(int, file.readline().split()[1:4])
    except OSError:
        return 0.0
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    found = {1: [], arguments.jobs: []}
    for _ in range(arguments.rounds):
        for jobs, runs in found.items():
            runs.append(run(jobs, arguments.seeds))
    print(f"figure 5, {arguments.seeds} seeds, medians of {arguments.rounds}, {os.cpu_count()} cores\n")
    print("| jobs | seconds | CPU seconds | cores that others used |\n|---|---|---|---|")
    for jobs, runs in found.items():
        seconds, used, others = (statistics.median(values) for values in zip(*runs, strict=True))
        print(f"| {jobs} | {seconds:.1f} | {used:.1f} | {others:.2f} |")
    one, several = (statistics.median(seconds for seconds, *_ in found[n]) for n in (1, arguments.jobs))
    ratio = one / several
    print(f"\n{arguments.jobs} workers: {ratio:.2f} × faster (target with 2 on a free machine: ≥ {TARGET})")


if __name__ == "__main__":
    main()
