"""What is tried against the product, how a try is judged, and the table that sums it up.

A try is clean where it ends as it should: recomputed, refused in one line that names the culprit, or harmless. It is a
fault where it ends in a traceback, hangs, or gives another result than the undamaged without a word.
"""

import csv
import os
import random
import signal
import subprocess
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from sparselib import cli
from sparselib.repro.parameters import ParameterError

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "results" / "campaign.csv"
HEAD = ("category", "tried", "clean", "fault", "seconds", "seed", "commit")
LIMIT = 300  # seconds of one try: far more than any takes, for machines are busy
FORESEEN = (*cli.FORESEEN, ParameterError)


class Campaign:
    """Runs the tries of each category and keeps count. The seed of everything drawn is printed, and can be given."""

    def __init__(self):
        self.long = os.environ.get("FAULTS") == "long"
        self.seed = int(os.environ.get("FAULTS_SEED") or (random.randrange(10**6) if self.long else 1))
        self.lines = []

    def __call__(self, category: str, attempt: Callable, *, short: int, long: int):
        """Make attempt(rng, number) so many times; it returns None, or what is wrong. Fails if anything was."""
        faults, tried, started = [], 0, time.monotonic()
        for number in range(long if self.long else short):
            tried += 1
            rng = random.Random(f"{self.seed} {category} {number}")
            try:
                with limited(LIMIT):
                    said = attempt(rng, number)
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            if said:
                faults.append(f"{number}: {said}"[:600])
        self.lines.append((category, tried, tried - len(faults), len(faults), round(time.monotonic() - started)))
        assert not faults, f"{len(faults)} of {tried}, FAULTS_SEED={self.seed}:\n" + "\n".join(faults)

    def table(self) -> str:
        lines = [HEAD[:5], *self.lines, ("all", *(sum(line[i] for line in self.lines) for i in range(1, 5)))]
        return "\n".join(
            f"{name:34}{tried:>8}{clean:>8}{fault:>8}{seconds:>9}" for name, tried, clean, fault, seconds in lines
        )

    def save(self):
        """Write what was tried into the table, for the page that tells what the book rests on; other lines stay."""
        told = subprocess.run(
            ["git", "-C", ROOT, "rev-parse", "--short=10", "HEAD"], capture_output=True, encoding="utf-8"
        )
        kept = list(csv.reader(TABLE.read_text(encoding="utf-8").splitlines()))[1:] if TABLE.exists() else []
        lines = {name: (name, *numbers) for name, *numbers in kept}
        lines |= {line[0]: (*line, self.seed, told.stdout.strip()) for line in self.lines}
        with TABLE.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([HEAD, *(lines[name] for name in sorted(lines))])


@contextmanager
def limited(seconds):
    """Raise TimeoutError in what takes longer, such as the opening of a pipe."""

    def ring(*_):
        raise TimeoutError(f"nothing after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def judged(call: Callable, expected, names: list[str], allowed=FORESEEN) -> str | None:
    """Return what is wrong with a call that meets a damaged file: None where it gives what is expected or says why not.

    names: one of them must stand in what is said.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = call()
        except TimeoutError:
            raise
        except allowed as error:
            said = str(error)
            if "\n" in said or len(said) > 1000:
                return f"many lines: {said[:200]!r}"
            return (
                None if any(name in said for name in names) else f"names no file: {type(error).__name__}: {said[:200]}"
            )
        except BaseException as error:
            return f"traceback: {type(error).__name__}: {str(error)[:200]}"
    if found == expected or any(name in str(one.message) for one in told for name in names):
        return None
    return f"accepted wrongly: {str(found)[:120]}, not {str(expected)[:120]}"


def _flipped(content, rng):
    if not content:
        return b"\0"
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


FOREIGN = (b"{}", b"[]", b"null", b"3", b'"text"', b'{"format": "2"}', b'{"checksum": "", "record": {}}', b"[[[[[[")
CONTENTS = {
    "bit": _flipped,
    "cut": lambda content, rng: content[: rng.randrange(max(1, len(content)))],
    "empty": lambda *_: b"",
    "foreign": lambda _, rng: rng.choice(FOREIGN),
    "deep": lambda *_: b"[" * 100_000,
    "NUL": lambda content, rng: content[: (at := rng.randrange(len(content) + 1))] + b"\0" * 9 + content[at:],
    "zeros": lambda content, _: b"\0" * len(content),
    "noise": lambda content, rng: rng.randbytes(len(content)),
    "twice": lambda content, _: content * 2,
}
ODD = {
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "null": lambda path: path.symlink_to("/dev/null"),
    "loop": lambda path: path.symlink_to(path.name),
    "nowhere": lambda path: path.symlink_to(path.with_name("nowhere")),
    "huge": lambda path: path.open("wb").truncate(2**28),
    "gone": lambda path: None,
}


def damage(path: Path, rng: random.Random, kinds=(*CONTENTS, *ODD, "other")) -> str:
    """Damage a file in a way that is drawn; returns which. "other": a file of the same kind in its place."""
    kind = rng.choice(sorted(kinds))
    content = path.read_bytes()
    if kind == "other":
        others = sorted(p for p in path.parent.parent.rglob(f"*{path.suffix}") if p != path and p.is_file())
        path.write_bytes(rng.choice(others).read_bytes() if others else b"other")
    elif kind in CONTENTS:
        path.write_bytes(CONTENTS[kind](content, rng))
    else:
        path.unlink()
        ODD[kind](path)
    return kind
