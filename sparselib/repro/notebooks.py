"""Run notebooks through papermill, and know when one must run again."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError
from traitlets import default

from sparselib import checkpoints
from sparselib.repro import gates, project, source
from sparselib.repro import parameters as typed


class _IPCKernelManager(AsyncKernelManager):
    """A kernel over sockets in a folder of its own: no ports, so none can clash, whatever else runs."""

    @default("transport")
    def _use_ipc(self):
        return "ipc"

    @default("ip")
    def _own_folder(self):
        self._folder = tempfile.TemporaryDirectory(prefix="kernel-")  # in /tmp: socket paths must be short
        return str(Path(self._folder.name) / "s")


class NotebookError(RuntimeError):
    """A notebook failed; the message says in which cell, why, and where the failed copy is."""


def template(model):
    """Return the path of a figure's notebook."""
    return project.root() / model.folder / f"{model.notebook}.ipynb"


def parts(parameters):
    """Return what an executed notebook depends on, each part by name: the same dict, the same pages."""
    notebook = nbformat.read(template(type(parameters)), as_version=4)
    text = json.dumps([(c.cell_type, c.source, c.metadata.get("tags")) for c in notebook.cells])
    code = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
    return {
        "template": hashlib.sha256(text.encode()).hexdigest()[:16],
        "parameters": parameters.model_dump(mode="json"),
        "code": source.of_script(code),
        "cells": sorted(c.key for c in parameters.cells()),
        "versions": project.versions(),
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
    given = {"profile": parameters.profile, **typed.overrides(parameters)}
    try:
        notebook = papermill.execute_notebook(
            str(template(model)), str(partial), parameters=_plain(given), kernel_name="python3", progress_bar=False,
            kernel_manager_class=_IPCKernelManager, cwd=str(project.root()),
        )  # fmt: skip
        gates.check_executed(notebook, name, published=published)
    except PapermillExecutionError as error:
        raise NotebookError(f"{name}, cell {error.cell_index}: {error.ename}: {error.evalue} (see {partial})") from None
    except gates.GateError as error:
        raise NotebookError(f"{error} (see {partial})") from None
    notebook.metadata["sparselib"] = before
    for volatile in ("input_path", "output_path"):
        notebook.metadata.get("papermill", {}).pop(volatile, None)
    checkpoints.write_atomic(out, nbformat.writes(notebook).encode())
    os.unlink(partial)
    return notebook


def _plain(values):
    """Return JSON-like values: papermill writes them into the notebook as literals."""
    return json.loads(json.dumps(values))
