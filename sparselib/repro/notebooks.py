"""Run notebooks through papermill, and know when one must run again."""

import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError
from traitlets import default
from zmq import ZMQError

from sparselib import checkpoints
from sparselib.repro import gates, project, source, workers
from sparselib.repro import parameters as typed
from sparselib.repro.progress import Bar
from sparselib.repro.published import marks


class _IPCKernelManager(AsyncKernelManager):
    """A kernel over sockets in a folder of its own: no ports, so none can clash, whatever else runs."""

    @default("transport")
    def _use_ipc(self):
        return "ipc"

    @default("ip")
    def _own_folder(self):
        self._folder = tempfile.TemporaryDirectory(prefix="kernel-")  # in /tmp: socket paths must be short
        return str(Path(self._folder.name) / "s")


# Kernels side by side: one thread each, and the cells are there already.
SIDE_BY_SIDE = {"OMP_NUM_THREADS": "1", "SPARSELIB_JOBS": "1"}


class NotebookError(RuntimeError):
    """A notebook failed; the message says in which cell, why, and where the failed copy is."""


def template(model):
    """Return the path of a figure's notebook."""
    return project.root() / model.folder / f"{model.notebook}.ipynb"


def parts(parameters):
    """Return what an executed notebook depends on, each part by name: the same dict, the same pages.

    A page shows the live profile beside the others' published rows: of its own figure, or of those that its model
    names in `reads`.
    """
    model = type(parameters)
    notebook = nbformat.read(template(model), as_version=4)
    text = json.dumps([(c.cell_type, c.source, c.metadata.get("tags")) for c in notebook.cells])
    code = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
    return {
        "template": hashlib.sha256(text.encode()).hexdigest()[:16],
        "parameters": parameters.model_dump(mode="json"),
        "code": source.of_script(code),
        "cells": sorted(c.key for c in parameters.cells()),
        "versions": project.versions(),
        "published": marks(getattr(model, "reads", (model.notebook,)), but=parameters.profile),
    }


def why_stale(parameters, path):
    """Return why the executed notebook at `path` must run again, or None when it is fresh."""
    try:
        old = nbformat.read(path, as_version=4).metadata["sparselib"]
    except FileNotFoundError:
        return "never run"
    except Exception as error:  # nbformat raises many kinds on a damaged file
        return f"cannot be read ({type(error).__name__})"
    new = parts(parameters)
    changed = [f"{name} changed" for name in ("template", "versions") if old[name] != new[name]]
    for name, value in new["parameters"].items():
        if old["parameters"].get(name) != value:
            changed.append(f"{name}: {old['parameters'].get(name)} → {value}")
    if names := source.changes(old["code"], new["code"]):
        changed.append(f"{source.summary(names)} changed")
    if not changed and old["cells"] != new["cells"]:
        changed.append("its cells changed")
    if old.get("published", {}) != new["published"]:
        changed.append("published results changed")
    return "; ".join(changed) or None


def execute(parameters, out, *, published=True):
    """Run a figure's notebook with these parameters and write it to `out`, in one step, once it has passed the gate.

    A failed notebook is kept beside as <out>.failed.ipynb, and NotebookError says so.
    """
    model, out = type(parameters), Path(out)
    name = model.notebook
    gates.check_template(nbformat.read(template(model), as_version=4), model)
    before = parts(parameters)
    partial = out.with_suffix(".failed.ipynb")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            notebook = _run(parameters, partial)
        except (RuntimeError, ZMQError):
            if _began(partial):
                raise
            notebook = _run(parameters, partial)  # kernels do not always start on a busy machine
        gates.check_executed(notebook, name, published=published)
    except PapermillExecutionError as error:
        raise NotebookError(f"{name}, cell {error.cell_index}: {error.ename}: {error.evalue} (see {partial})") from None
    except (RuntimeError, ZMQError) as error:
        when = "died on the way" if _began(partial) else "did not start, twice"
        raise NotebookError(f"{name}: its kernel {when}: {error} (see {partial})") from None
    except gates.GateError as error:
        raise NotebookError(f"{error} (see {partial})") from None
    notebook.metadata["sparselib"] = before
    for volatile in ("input_path", "output_path"):
        notebook.metadata.get("papermill", {}).pop(volatile, None)
    checkpoints.write_atomic(out, nbformat.writes(notebook).encode())
    os.unlink(partial)
    return notebook


def execute_all(chosen, *, jobs=1, progress=True):
    """Run several notebooks side by side, the longest first.

    Args:
        chosen: triples (parameters, out, why it is run), the last for the line that tells when it is done.
    Raises: NotebookError at the first failure; the others that are done stay done.
    """
    labels = {parameters.notebook: (parameters, out, why) for parameters, out, why in chosen}
    before = {name: _seconds_before(out) for name, (_, out, _) in labels.items()}
    tasks = [
        workers.Task(name, (parameters, out), frozenset([name]), weight=before[name] or 10.0)
        for name, (parameters, out, _) in labels.items()
    ]
    jobs = min(jobs, len(tasks))
    pool = workers.Processes(jobs, SIDE_BY_SIDE) if jobs > 1 else workers.Here()
    try:
        with Bar(labels, before.get, unit="notebooks", shown=progress) as bar:

            def done(task, seconds):
                bar.write(f"{task.label}: run in {seconds:.0f} s ({labels[task.label][2]})")
                bar.done([task.label], seconds)

            workers.carry_out(_timed, tasks, pool, done=done, tick=bar.refresh)
    except BaseException:
        pool.stop(now=True)
        raise
    pool.stop()


def _timed(parameters, out):
    started = time.perf_counter()
    execute(parameters, out)
    return time.perf_counter() - started


def _seconds_before(path):
    """Return how long a notebook took to run the last time, None when that is not known."""
    try:
        return nbformat.read(path, as_version=4).metadata["papermill"]["duration"]
    except Exception:  # nbformat raises many kinds on a damaged file
        return None


def _run(parameters, partial):
    partial.unlink(missing_ok=True)  # of an earlier failure
    given = {"profile": parameters.profile, **typed.overrides(parameters)}
    return papermill.execute_notebook(
        str(template(type(parameters))), str(partial), parameters=_plain(given), kernel_name="python3",
        progress_bar=False, kernel_manager_class=_IPCKernelManager, cwd=str(project.root()),
    )  # fmt: skip


def _began(partial):
    """Return whether any cell of the notebook was started: not when its kernel did not come up."""
    try:
        cells = nbformat.read(partial, as_version=4).cells
    except Exception:
        return False
    return any(cell.metadata.get("papermill", {}).get("start_time") for cell in cells)


def _plain(values):
    """Return JSON-like values: papermill writes them into the notebook as literals."""
    return json.loads(json.dumps(values))
