"""The tables of the status page: what was computed, by whom, whether it holds, and what was tried to break it."""

import csv
import json
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path

from sparselib import checkpoints, outside
from sparselib.repro import notebooks, project, published
from sparselib.repro import parameters as typed
from sparselib.repro.parameters import Parameters
from sparselib.repro.step import StepError
from sparselib.repro.store import Store

UNKNOWN = "cannot be told: its data are not here"


def tables(pages: Mapping[str, type[Parameters]], executed: Callable[[str], Path], fresh: Collection[str] = ()) -> str:
    """Return Markdown tables of the executed pages and of the published rows: how much work, whose, and whether fresh.

    executed: where the notebook of a page lies, run; fresh: names of pages that are known to be.
    Raises: nothing for what is stale or cannot be told; that is what the tables are for.
    """
    store, live, stored, machines = Store(project.store_folder()), [], [], {}
    get = cache(store.get)  # the verdict has the steps of all others
    for name, model in pages.items():
        metadata = json.loads(checkpoints.read_bytes(executed(name)))["metadata"]
        p = typed.resolve(model, metadata["sparselib"]["parameters"])
        origin = metadata.get("sparselib-run", {})
        machines.setdefault(_machine(origin), []).append(f"`{name}`")
        try:
            why = None if name in fresh else notebooks.why_stale(p, executed(name))
            records = [record for step in p.steps() if (record := get(step.what, step.key))]
        except (FileNotFoundError, StepError):
            why, records = UNKNOWN, []
        commits = {record["commit"] for record in records} or {origin.get("commit", "–")}
        seconds = f"{sum(record['seconds'] for record in records):.0f}" if records else "–"
        page = f"{metadata['papermill']['duration']:.0f}" if "papermill" in metadata else "–"
        cells = (len(records) or "–", seconds, page, len(p.seed_list()), ", ".join(sorted(commits)), _state(why))
        live.append((_linked(model), p.profile, *cells))
    for profile in typed.profiles(next(iter(pages.values())).profiles) if pages else ():
        stored += [line for name, model in pages.items() if (line := _published(profile, model, machines))]
    head = ("page", "profile", "steps", "seconds of steps", "seconds of the page", "seeds", "commit", "state")
    parts = [_captioned(f"Pages of this book, {len(live)} in all", head, live)]
    if stored:
        parts.append(_captioned("Published rows", [*head[:4], *head[5:]], stored))
    told = (f"- {outside.markdown(what)}: {', '.join(names)}" for what, names in machines.items())
    parts += ["Where they were computed:", *told]
    return "\n\n".join([*parts, *_campaign()])


def _campaign():
    """Return what the last campaign of faults found, with a line for all of it; nothing where there was none."""
    try:
        head, *lines = csv.reader(
            checkpoints.read_bytes(project.results_folder() / "campaign.csv").decode().splitlines()
        )
        sums = [sum(int(line[column]) for line in lines) for column in range(1, 5)]
    except (OSError, ValueError, IndexError, csv.Error):
        return []
    return [_captioned("What was tried to break it", head, [*lines, ["all", *sums, "", ""]])]


def _captioned(caption, head, lines):
    return outside.captioned(caption, outside.table(head, lines))


def _published(profile, model, machines):
    """Return the line of the published rows of a page, None where there are none."""
    name = _linked(model)
    try:
        rows, p = published.read(profile, model.notebook), published.parameters(model, profile)
        if rows is None or p is None:
            return None
        origin = published.origin(profile, model.notebook)
    except published.PublishedError as error:
        return (name, profile, "–", "–", "–", "–", _state(str(error)))
    machines.setdefault(_machine(origin), []).append(f"`{profile}/{model.notebook}`")
    steps = rows.drop_duplicates("key")
    try:
        keys = {step.key[: published.SHORT] for step in p.steps()}
        old = len(keys ^ set(steps["key"]))
        versions = "" if origin.get("versions") == project.versions() else ", under other versions of packages"
        state = _state(f"{old} steps differ: code, data or parameters changed{versions}" if old else None)
    except (FileNotFoundError, StepError):
        state = _without_data(profile, model, origin)
    commits = ", ".join(sorted(steps["commit"].unique()))
    return (name, profile, len(steps), f"{steps['seconds'].sum():.0f}", len(p.seed_list()), commits, state)


def _without_data(profile, model, origin):
    """Return what can be told of published rows whose data are not here: whether code and versions are those of now."""
    changed = published.code_changed(profile, model.notebook)
    if changed:
        return _state("the code behind them changed")
    if origin.get("versions") != project.versions():
        return "of other versions of packages; " + UNKNOWN
    return UNKNOWN if changed is None else "of the code and versions of now; its data are not here to compare"


def _linked(model):
    return outside.Marked(f"{{doc}}`/{model.folder}/{model.notebook}`")


def _state(why):
    return "fresh" if why is None else why if why == UNKNOWN else f"stale: {why}"


def _machine(origin):
    """Return in words on what machine something was computed, with which versions."""
    machine, versions = origin.get("machine", {}), origin.get("versions", {})
    told = [str(machine[name]) for name in ("system", "cpu") if name in machine]
    told += [f"{machine['cores']} cores"] if machine.get("cores") else []
    told += [f"Python {machine['python']}"] if "python" in machine else []
    return ", ".join([*told, *(f"{name} {version}" for name, version in sorted(versions.items()))]) or "not recorded"
