"""Where things are, and which versions and commit are at work."""

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

# Packages whose release can change a computed number; the store keeps results of different releases apart.
NUMERIC = ("torch", "numpy", "scipy", "scikit-learn")


class ProjectError(FileNotFoundError):
    """What was asked for needs the project's files, and they are not here."""


@cache
def root() -> Path:
    """Return the folder of the project: the nearest of the working folder and those above it, else this checkout."""
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / "_config.yml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise ProjectError(f"no _config.yml and notebooks/ in {here} or above it: run this inside the project")


def _place():
    """Return the folder of the project or, for a notebook by itself, the working folder."""
    try:
        return root()
    except ProjectError:
        return Path.cwd()


def store_folder() -> Path:
    """Return the folder of computed results: $SPARSELIB_STORE, else store/ in the project."""
    return Path(os.environ.get("SPARSELIB_STORE") or _place() / "store").expanduser().resolve()


def results_folder() -> Path:
    """Return the folder of published results."""
    return _place() / "results"


def build_folder() -> Path:
    """Return the folder of everything that is built and may be deleted."""
    return root() / "_build"


def from_nothing() -> bool:
    """Return whether published rows are left aside and everything is computed here: $SPARSELIB_FROM_NOTHING is "1"."""
    return os.environ.get("SPARSELIB_FROM_NOTHING") == "1"


def device() -> str:
    """Return where steps compute: $SPARSELIB_DEVICE ("cpu", "cuda", "cuda:1" …), else the CPU."""
    return os.environ.get("SPARSELIB_DEVICE") or "cpu"


@cache
def versions() -> dict[str, str]:
    """Return {package: version} of the NUMERIC packages, without local build tags: CPU and CUDA builds share one."""
    return {name: version(name).split("+")[0] for name in NUMERIC}


def machine() -> dict[str, str | int | None]:
    """Return what machine computes, in a few plain values."""
    return {
        "cpu": platform.machine(), "system": platform.system(), "cores": os.cpu_count(),
        "python": platform.python_version(), "threads of a step": 1,
    }  # fmt: skip


@cache
def commit() -> str:
    """Return the short commit of the project, with "+changes" when tracked files differ from it; else "unknown".

    Published rows do not count: they are written while others are being computed, and decide nothing.
    """

    def git(*arguments):
        command = ["git", "-C", str(root()), *arguments]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=30)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        root()
        short = git("rev-parse", "--short=10", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results") if short else None
    except (OSError, subprocess.TimeoutExpired):  # no project, no git, or a slow one
        short = None
    if not short:
        return "unknown"
    return short + ("+changes" if changed else "")
