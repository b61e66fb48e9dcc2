"""Where things are, and which versions and commit are at work."""

import os
import platform
import shlex
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

# Packages whose release can change a computed number; the store keeps results of different releases apart.
NUMERIC = ("torch", "numpy", "scipy", "scikit-learn")


class ProjectError(FileNotFoundError):
    """What was asked for needs the project's files, and they are not here."""


class OtherProjectError(ProjectError):
    """The project's files here are not of the package that runs: results would be stamped with the wrong commit."""


@cache
def root() -> Path:
    """Return the folder of the project: the nearest of the working folder and those above it, else this checkout.

    Raises: OtherProjectError where that holds a copy of the package that is not the one that runs.
    """
    here, own = Path.cwd(), Path(__file__).resolve().parents[1]
    for folder in (here, *here.parents, own.parent):
        if (folder / "_config.yml").is_file() and (folder / "notebooks").is_dir():
            package = folder / own.name
            if package.is_dir() and package.resolve() != own:
                raise OtherProjectError(
                    f"the project here is {folder}, but the package that runs is {own}: use the environment of that "
                    f"project, or set PYTHONPATH={shlex.quote(str(folder))}"
                )
            return folder
    raise ProjectError(f"no _config.yml and notebooks/ in {here} or above it: run this inside the project")


def _place():
    """Return the folder of the project or, for a notebook by itself, the working folder."""
    try:
        return root()
    except OtherProjectError:
        raise
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

    A repository that the project merely lies in does not count, nor does what $GIT_DIR and its like point at. Published
    rows do not count: they are written while others are being computed, and decide nothing.
    """
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments):
        command = ["git", "-C", str(root()), *arguments]
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=30, env=surroundings
        )
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        top = git("rev-parse", "--show-toplevel")
        if top is None or Path(top).resolve() != root().resolve():
            return "unknown"
        short = git("rev-parse", "--short=10", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results") if short else None
    except (OSError, subprocess.TimeoutExpired):  # no project, no git, or a slow one
        short = None
    if not short:
        return "unknown"
    return short + ("+changes" if changed else "")
