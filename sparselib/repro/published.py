"""Published results: the rows of a figure as a table in git, with what is needed to compute them again.

    results/<profile>/<notebook>.csv     tidy rows; if they do not fit one file, <notebook>.2.csv and so on follow
    results/<profile>/<notebook>.json    parameters, versions, commit, machine, date, what is the same in all rows, and
                                         the checksums of the tables

Columns: those of COLUMNS first, further ones after. `what` is the digest of the typed parameters of the row's cell.
"""

import datetime
import hashlib
import io
import json
import os
import platform

import pandas as pd

from sparselib import checkpoints
from sparselib.repro import parameters as typed
from sparselib.repro import project, runner
from sparselib.repro.settings import ParameterError

FORMAT = "1"
COLUMNS = (
    "profile", "figure", "dataset", "network", "criterion", "structured", "sparsity", "seed", "task", "condition",
    "metric", "value", "key", "commit", "versions", "device", "seconds",
)  # fmt: skip
MEASURED = ("seconds", "peak_bytes", "speedup")  # metrics that no second run repeats
LONG = ("figure", "versions")  # where they are the same in all rows, they stand in the JSON file, once
LARGEST = 900_000  # bytes of a file
KINDS = {"f": "float", "i": "int", "b": "bool"}  # by numpy's kind; all else is text
READ = {"float": float, "int": int, "bool": {"True": True, "False": False}.__getitem__}


class PublishedError(RuntimeError):
    """Published results that are damaged, foreign or not there; the message names the file."""


def folder(profile):
    """Return the folder of a profile's published tables."""
    return project.root() / "results" / profile


def write(parameters, store):
    """Write the rows of a figure, all of which must be in the store. Returns the files, [] when nothing has changed."""
    rows = runner.rows(parameters.cells(), store)
    rows = rows.assign(profile=parameters.profile, figure=parameters.notebook)
    rows = rows[[*COLUMNS, *(c for c in rows.columns if c not in COLUMNS)]]
    same = {name: rows[name].iloc[0] for name in LONG if rows[name].nunique() == 1}
    tables = _tables(rows.drop(columns=list(same)), parameters.notebook)
    about = {
        "format": FORMAT,
        "profile": parameters.profile,
        "figure": parameters.notebook,
        "parameters": parameters.model_dump(mode="json"),
        "same": same,
        "columns": {name: KINDS.get(dtype.kind, "text") for name, dtype in rows.dtypes.items()},
        "files": {name: _sha256(content) for name, content in tables.items()},
    }
    here, mark = folder(parameters.profile), folder(parameters.profile) / f"{parameters.notebook}.json"
    try:
        old = _about(parameters.profile, parameters.notebook)
        read(parameters.profile, parameters.notebook)
    except PublishedError:  # to be replaced
        old = None
    if old is not None and all(old.get(name) == value for name, value in about.items()):
        return []
    origin = {
        "commit": project.commit(),
        "versions": project.versions(),
        "machine": {
            "cpu": platform.machine(), "system": platform.system(), "cores": os.cpu_count(),
            "python": platform.python_version(), "threads of a cell": 1,
        },
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }  # fmt: skip
    for name, content in tables.items():
        checkpoints.write_atomic(here / name, content)
    checkpoints.write_atomic(mark, (json.dumps({**about, **origin}, indent=1, ensure_ascii=False) + "\n").encode())
    for path in here.glob(f"{parameters.notebook}.*.csv"):  # parts of a longer table that was here before
        if path.name not in tables:
            path.unlink()
    return [here / name for name in (*tables, mark.name)]


def read(profile, notebook):
    """Return the published rows as a DataFrame, None when there are none. Raises PublishedError for damaged files."""
    about = _about(profile, notebook)
    if about is None:
        return None
    contents = []
    for name, checksum in about["files"].items():
        path = folder(profile) / name
        try:
            content = path.read_bytes().replace(b"\r\n", b"\n")  # as git may check it out
        except OSError as error:
            raise PublishedError(f"{path}: {error.strerror}; publish it again") from None
        if _sha256(content) != checksum:
            raise PublishedError(f"{path}: not what {notebook}.json says (checksum); restore it or publish it again")
        contents.append(content)
    kinds, same = about["columns"], about.get("same", {})
    try:
        text = b"".join([contents[0], *(c.split(b"\n", 1)[1] for c in contents[1:])])
        rows = pd.read_csv(io.BytesIO(text), dtype="str", keep_default_na=False, na_values=[""])
        if list(rows.columns) != [name for name in kinds if name not in same]:
            raise ValueError(f"columns {', '.join(rows.columns)}")
        rows = rows.assign(**{n: rows[n].map(READ[kind]) for n, kind in kinds.items() if kind != "text"})
        return rows.assign(**same)[list(kinds)]
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise PublishedError(f"{folder(profile) / notebook}.csv: not a table of published rows: {error}") from None


def parameters(profile, notebook):
    """Return the typed parameters of the published rows, None when there are none."""
    about = _about(profile, notebook)
    if about is None:
        return None
    try:
        return typed.resolve(typed.figure(notebook), about["parameters"])
    except (ParameterError, AttributeError, TypeError) as error:
        raise PublishedError(
            f"{folder(profile) / notebook}.json: not the parameters of this version: {error}; publish it again"
        ) from None


def marks(notebooks, *, but):
    """Return {file: checksum} of what is published of these notebooks for all profiles `but` one."""
    found = {}
    for profile in typed.PROFILES:
        for notebook in notebooks if profile != but else ():
            path = folder(profile) / f"{notebook}.json"
            if path.is_file():
                found[f"{profile}/{path.name}"] = _sha256(path.read_bytes())
    return found


def _tables(rows, notebook):
    """Return {file name: content}: the rows as CSV, in as many files as it takes."""
    head, *lines = rows.to_csv(index=False, lineterminator="\n").encode().splitlines(keepends=True)
    parts, size = [[]], len(head)
    for line in lines:
        if parts[-1] and size + len(line) > LARGEST:
            parts.append([])
            size = len(head)
        parts[-1].append(line)
        size += len(line)
    names = [f"{notebook}.csv", *(f"{notebook}.{n}.csv" for n in range(2, len(parts) + 1))]
    return {name: head + b"".join(part) for name, part in zip(names, parts, strict=True)}


def _about(profile, notebook):
    """Return what the JSON file says, None when nothing is published."""
    path = folder(profile) / f"{notebook}.json"
    try:
        about = json.loads(path.read_text())
    except FileNotFoundError:
        if path.with_suffix(".csv").is_file():
            raise PublishedError(
                f"{path.with_suffix('.csv')}: has no {path.name} beside it; publish it again"
            ) from None
        return None
    except (OSError, ValueError) as error:
        raise PublishedError(f"{path}: cannot be read: {error}") from None
    found = tuple(about.get(n) for n in ("format", "profile", "figure")) if isinstance(about, dict) else None
    if found != (FORMAT, profile, notebook):
        raise PublishedError(f"{path}: is not about format {FORMAT}, profile {profile!r}, figure {notebook!r}: {found}")
    if not all(isinstance(about.get(name), dict) and about[name] for name in ("parameters", "columns", "files")):
        raise PublishedError(f"{path}: lacks parameters, columns or files; publish it again")
    return about


def _sha256(content):
    return hashlib.sha256(content).hexdigest()
