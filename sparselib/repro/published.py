"""Published results: the rows of a figure as a table in git, with what is needed to compute them again.

    results/<profile>/<notebook>.csv     one line for each thing measured, a column for each metric
    results/<profile>/<notebook>.json    parameters, versions, commit, machine, date, the digest of the code, what is
                                         the same in all lines, the checksums of the table and of the file itself

Columns of the table: those of the role and of the step, those that tell the lines of one step apart ("within" in the
JSON), the metrics, and `what`, `key` (see `step`, shortened to SHORT digits), `seconds`. What is the same in all lines
stands in the JSON file, once; so does, under "told by", what another column tells. Rows whose key is that of the
present code are taken for computed: see `adopt`.
"""

import datetime
import io
import json
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from sparselib import checkpoints
from sparselib.repro import dependencies, project, runner
from sparselib.repro import parameters as typed
from sparselib.repro.parameters import ParameterError, Parameters
from sparselib.repro.step import Step
from sparselib.repro.store import Store, sha256

FORMAT = "3"
SHORT = 8  # digits of `what` and `key`
MEASURED = ("time", "peak_bytes")  # metrics that no second run repeats
ORIGIN = ("commit", "device", "versions", "seconds", "what", "key")
KINDS = {"f": "float", "i": "int", "b": "bool"}  # by numpy's kind; all else is text
SEAL = "checksum of all this"
NEEDED = {"checksum": str, **dict.fromkeys(("parameters", "columns", "same", "told by"), dict)}  # of the JSON
NEEDED |= {"within": list, "metrics": list}
READ = {"float": float, "int": int, "bool": {"True": True, "False": False}.__getitem__}


class PublishedError(RuntimeError):
    """Published results that are damaged, foreign or not there; the message names the file."""


def folder(profile: str) -> Path:
    """Return the folder of a profile's published tables."""
    return project.results_folder() / profile


def write(parameters: Parameters, store: Store) -> list[Path]:
    """Write the rows of a figure, all of which the store must have. Returns the files, [] when nothing has changed."""
    roles = parameters.roles()
    records = runner.records((step for _, step in roles), store)
    rows = runner.tidy(roles, records).drop(columns="taken")
    own = {name for record in records.values() for row in record["rows"] for name in row}
    within = [name for name in rows.columns if name in own - {"metric", "value"}]
    return write_rows(parameters, rows, within, code_of(step for _, step in roles))


def code_of(steps: Iterable[Step]) -> dict:
    """Return where the code behind steps and their inputs begins, and its digest: see `code_changed`."""
    seen, todo = set(), list(steps)
    while todo:
        if (step := todo.pop()) not in seen:
            seen.add(step)
            todo += step.inputs()
    begins = {f"{t.__module__}.{t.__name__}" for step in seen for t in (type(step), *step.chosen())}
    found: dict = {"from": sorted(begins), "tables": sorted({name for step in seen for name in type(step).tables})}
    return {**found, "digest": _digest(found)}


def code_changed(profile: str, notebook: str) -> bool | None:
    """Return whether the code behind the published rows is another now, which takes no data; None: it is not told."""
    code = (_about(profile, notebook) or {}).get("code")
    return None if code is None else code["digest"] != _digest(code)


def _digest(code):
    return dependencies.digest(dependencies.of_names(code["from"], code["tables"]))


def write_rows(parameters: Parameters, rows: pd.DataFrame, within: list[str], code: dict | None = None) -> list[Path]:
    """Write tidy rows as `runner.rows` has them; `within`: the columns that rows of some step have of their own.

    `code`: what `code_of` says of their steps.
    """
    notebook, here = parameters.notebook, folder(parameters.profile)
    metrics = list(dict.fromkeys(rows["metric"]))
    short = {name: rows[name].str[:SHORT] for name in ("what", "key")}
    lines = _wide(rows.assign(**short, seconds=rows["seconds"].round(2)))
    constant = [n for n in lines if n not in (*metrics, "key") and lines[n].nunique(dropna=False) == 1]
    same = {n: _plain(lines[n].iloc[0]) for n in constant}
    told = _told(lines[[n for n in lines if n not in (*metrics, *ORIGIN, *same)]])
    table = lines.drop(columns=[*same, *told])
    table = table.assign(**{n: table[n].map(_short, na_action="ignore") for n in table if table[n].dtype.kind == "f"})
    content = table.to_csv(index=False, lineterminator="\n").encode()
    about = {
        "format": FORMAT,
        "profile": parameters.profile,
        "figure": notebook,
        "parameters": parameters.model_dump(mode="json"),
        **({"code": code} if code else {}),
        "same": same,
        "told by": told,
        "columns": {name: KINDS.get(dtype.kind, "text") for name, dtype in lines.dtypes.items()},
        "within": within,
        "metrics": metrics,
        "checksum": sha256(content),
    }
    with suppress(PublishedError):  # damaged files are replaced
        old = _about(parameters.profile, notebook)
        if old and read(parameters.profile, notebook) is not None and {**old, **about} == old:
            return []
    origin = {
        "versions": project.versions(),
        "machine": project.machine(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    text = json.dumps(sealed({**about, **origin}), indent=1, ensure_ascii=False) + "\n"
    files = {here / f"{notebook}.csv": content, here / f"{notebook}.json": text.encode()}
    for path, written in files.items():
        checkpoints.write_atomic(path, written)
    return list(files)


def read(profile: str, notebook: str) -> pd.DataFrame | None:
    """Return the published rows, tidy, None when there are none. Raises PublishedError for damaged files."""
    about = _about(profile, notebook)
    if about is None:
        return None
    path = folder(profile) / f"{notebook}.csv"
    try:
        content = checkpoints.read_bytes(path).replace(b"\r\n", b"\n")  # as git may check it out
    except OSError as error:
        raise PublishedError(f"{_name(path)}: {error.strerror}; publish it again") from None
    if sha256(content) != about["checksum"]:
        raise PublishedError(f"{_name(path)}: not what {notebook}.json says (checksum); restore it or publish it again")
    kinds, same, told = (about[name] for name in ("columns", "same", "told by"))
    try:
        lines = pd.read_csv(io.BytesIO(content), dtype="str", keep_default_na=False, na_values=[""])
        if list(lines.columns) != [name for name in kinds if name not in (*same, *told)]:
            raise ValueError(f"columns {', '.join(lines.columns)}")
        for name, (teller, values) in told.items():
            lines[name] = lines[teller].map(values)
        for name, kind in kinds.items():
            if name in same:
                lines[name] = np.nan if same[name] is None else same[name]
            elif kind != "text":
                lines[name] = lines[name].map(READ[kind], na_action="ignore")
        return _long(lines[list(kinds)], about["metrics"])
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise PublishedError(f"{_name(path)}: not a table of published rows: {error}") from None


def parameters(page: type[Parameters], profile: str) -> Parameters | None:
    """Return the typed parameters of the published rows of a page, None when there are none."""
    about = _about(profile, page.notebook)
    if about is None:
        return None
    try:
        return typed.resolve(page, about["parameters"])
    except (ParameterError, AttributeError, TypeError) as error:
        name = _name(folder(profile) / f"{page.notebook}.json")
        raise PublishedError(f"{name}: not the parameters of this version: {error}; publish it again") from None


def origin(profile: str, notebook: str) -> dict:
    """Return the versions, the machine and the date of the published rows, {} where there are none."""
    about = _about(profile, notebook) or {}
    return {name: about[name] for name in ("versions", "machine", "date") if name in about}


def adopt(pages: Iterable[Parameters], store: Store) -> int:
    """Put published rows into the store whose keys are those of the present code. Returns how many steps they are of.

    pages: the parameters of those that need them. The records say so, and hold no network. Damaged files are told in a
    warning, and nothing is taken from them.
    """
    return sum(_adopt(page, store) for page in typed.sources(pages))


def _adopt(page, store):
    wanted = [step for step in page.steps() if not store.holds(step.what, step.key)]
    try:
        rows = read(page.profile, page.notebook) if wanted else None
    except PublishedError as error:
        warnings.warn(f"{error}. Its rows are left aside", stacklevel=3)
        return 0
    if rows is None:
        return 0
    within = (_about(page.profile, page.notebook) or {})["within"]
    groups, count = dict(tuple(rows.groupby("key", sort=False))), 0
    for step in wanted:
        own = groups.get(step.key[:SHORT])
        if own is None or own["what"].iloc[0] != step.what[:SHORT]:
            continue
        own = own.drop_duplicates([*within, "metric"])  # a step may stand in two roles
        names = [name for name in within if name not in step.columns()]  # the same may be a column of other steps
        lines = own[[*names, "metric", "value"]].to_dict("records")
        found = [{name: value for name, value in line.items() if pd.notna(value)} for line in lines]
        origin = {name: _plain(own[name].iloc[0]) for name in ("commit", "device", "seconds")}
        runner.save(step, store, found, **origin, published=True)
        count += 1
    return count


def marks(notebooks: list[str], *, but: str) -> dict[str, str]:
    """Return {file: checksum} of what is published of these notebooks for all profiles `but` one."""
    files = sorted(folder(but).parent.glob("*/*.json"))
    chosen = [path for path in files if path.stem in notebooks and path.parent.name != but]
    return {f"{path.parent.name}/{path.name}": _mark(path) for path in chosen}


def _mark(path):
    try:
        return sha256(checkpoints.read_bytes(path))
    except OSError as error:
        return str(error.strerror)


def _wide(rows):
    """Return tidy rows with a column for each metric: what belongs to one thing measured stands in one line."""
    index = [name for name in rows.columns if name not in ("metric", "value")]
    firsts, values, last = [], [], None
    names = map(repr, rows[index].itertuples(index=False, name=None))
    for position, (name, metric, value) in enumerate(zip(names, rows["metric"], rows["value"], strict=True)):
        if name != last or metric in values[-1]:
            firsts.append(position)
            values.append({})
            last = name
        values[-1][metric] = value
    measured = pd.DataFrame(values, columns=list(dict.fromkeys(rows["metric"])), dtype=float)
    return pd.concat([rows[index].iloc[firsts].reset_index(drop=True), measured], axis=1)


def _told(lines):
    """Return {column: [another, {its value: the column's value}]}, all as text, where one column tells another.

    Only columns of texts tell, and the first such one: a number that happens to tell another means nothing.
    """
    tellers = [n for n in lines if lines[n].dtype.kind not in "fib" and lines[n].nunique() > 1]
    told = {}
    for name in lines:
        for teller in tellers:
            pairs = lines[[teller, name]].dropna(subset=teller).drop_duplicates()
            empty = lines.loc[lines[teller].isna(), name]
            if name != teller and teller not in told and pairs[teller].is_unique and empty.isna().all():
                text = _short if lines[name].dtype.kind == "f" else str
                told[name] = [teller, {key: text(value) for key, value in pairs.dropna().itertuples(index=False)}]
                break
    return told


def _long(lines, metrics):
    """Return lines with a column for each metric as tidy rows: the opposite of `_wide`."""
    values = lines[metrics].stack().dropna().rename("value")  # newer pandas keep what is missing
    values.index.names = ["line", "metric"]
    rows = lines.drop(columns=metrics).loc[values.index.get_level_values("line")].reset_index(drop=True)
    rows = rows.assign(metric=values.index.get_level_values("metric"), value=values.to_numpy())
    return rows[[*(c for c in rows if c not in (*ORIGIN, "metric", "value")), "metric", "value", *ORIGIN]]


def _plain(value):
    """Return a value as JSON has it."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and np.isnan(value) else value


def _short(value):
    return str(int(value)) if value == int(value) else repr(value)  # "0.1", "16": as short as they read back


def _name(path):
    """Return the path as the project's readers know it, for messages and pages."""
    return "/".join(path.parts[-3:])


def _about(profile, notebook):
    """Return what the JSON file says, None when nothing is published."""
    path = folder(profile) / f"{notebook}.json"
    try:
        about = json.loads(checkpoints.read_bytes(path))
    except FileNotFoundError:
        table = path.with_suffix(".csv")
        if table.is_file():
            raise PublishedError(f"{_name(table)}: has no {path.name} beside it; publish it again") from None
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise PublishedError(f"{_name(path)}: cannot be read: {error}") from None
    found = tuple(about.get(n) for n in ("format", "profile", "figure")) if isinstance(about, dict) else None
    if found != (FORMAT, profile, notebook):
        raise PublishedError(
            f"{_name(path)}: is not about format {FORMAT}, profile {profile!r}, figure {notebook!r}: {found}"
        )
    if lacking := [name for name, kind in NEEDED.items() if not isinstance(about.get(name), kind)]:
        raise PublishedError(f"{_name(path)}: lacks {', '.join(lacking)}; publish it again")
    code = about.get("code", {"from": [], "tables": [], "digest": ""})
    if not isinstance(code, dict) or [type(code.get(n)) for n in ("from", "tables", "digest")] != [list, list, str]:
        raise PublishedError(f"{_name(path)}: code must have from, tables and digest; publish it again")
    if sealed(about) != about:
        raise PublishedError(f"{_name(path)}: was changed by hand (checksum); restore it or publish it again")
    return about


def sealed(about: dict) -> dict:
    """Return the content of a JSON file with its checksum at the end, in place of the one that is there."""
    bare = {name: value for name, value in about.items() if name != SEAL}
    return {**bare, SEAL: sha256(json.dumps(bare, sort_keys=True).encode())}
