"""Run notebooks through papermill, know when one must run again, and what each must satisfy: the gates.

A template passes its gate before it runs, an executed notebook before it enters the book.
"""

import ast
import functools
import hashlib
import inspect
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import nbformat
import papermill
import zmq
from papermill.exceptions import PapermillExecutionError

from sparselib import checkpoints
from sparselib.repro import dependencies, kernels, project, workers
from sparselib.repro import parameters as typed
from sparselib.repro.parameters import Parameters
from sparselib.repro.progress import Bar
from sparselib.repro.published import marks

SEAL = "sparselib-checksum"  # in the metadata of an executed notebook: of all its other bytes
KERNEL_FAILURES = (RuntimeError, zmq.ZMQError)  # papermill's for a failing cell is another
# Kernels side by side: one thread each, and the rows are there already.
SIDE_BY_SIDE = {"OMP_NUM_THREADS": "1", "SPARSELIB_JOBS": "1"}


class GateError(ValueError):
    """A notebook does not satisfy the gate; the message lists every complaint."""


class NotebookError(RuntimeError):
    """A notebook failed; the message says in which cell, why, and where the failed copy is."""


def template(model: type[Parameters]) -> Path:
    """Return the path of a figure's notebook."""
    return project.root() / model.folder / f"{model.notebook}.ipynb"


def read(path: Path) -> nbformat.NotebookNode:
    """Return the notebook in a file. Raises OSError where there is none, and much else for what is no notebook."""
    return nbformat.reads(checkpoints.read_bytes(path).decode(), as_version=4)


def read_template(model: type[Parameters]) -> nbformat.NotebookNode:
    """Return a figure's notebook. Raises GateError, naming the file, for one that is no notebook."""
    path = template(model)
    try:
        notebook = read(path)
        nbformat.validate(notebook)
        return notebook
    except FileNotFoundError:
        raise GateError(f"there is no template {path}") from None
    except Exception as error:  # nbformat raises many kinds on a damaged file
        raise GateError(f"the template {path} is no notebook: {_where(path, error)}") from None


def _where(path, error):
    """Return in one line what is wrong with a file that should be JSON."""
    try:
        json.loads(checkpoints.read_bytes(path))
    except (OSError, ValueError, RecursionError) as first:
        error = first
    return " ".join(str(error).split())[:200]


def check_output(path: Path) -> None:
    """Raise ParameterError unless an executed notebook may be written to `path`: nothing of others is overwritten."""

    def refuse(why):
        raise typed.ParameterError(f"output {why}, got {str(path)!r}")

    if path.suffix != ".ipynb":
        refuse("must end in .ipynb")
    place = path.resolve()
    root = project.root()
    for folder, what in (
        (project.store_folder(), "the store"), (project.results_folder(), "the published results"),
        (project.build_folder(), "what is built"), *((root / name, "the book") for name in ("book", "notebooks")),
    ):  # fmt: skip
        if place.is_relative_to(folder.resolve()):
            refuse(f"must not lie in {folder}, which is for {what}")
    if path.is_dir():
        refuse("must be a file, not a folder")
    if path.exists():
        try:
            ours = "sparselib" in read(path).metadata
        except Exception:  # nbformat raises many kinds
            ours = False
        if not ours:
            refuse("is there already and is no notebook that this command has written: choose another name")
    folder = next(folder for folder in place.parents if folder.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        refuse(f"cannot be written: {folder} is {'not writable' if folder.is_dir() else 'no folder'}")


def parts(parameters: Parameters) -> dict:
    """Return what an executed notebook depends on, each part by name: the same dict, the same pages.

    A page shows the live profile beside the others' published rows: of its own figure, or of those that its model
    `judges`.
    """
    model = type(parameters)
    notebook = read_template(model)
    text = json.dumps([(c.cell_type, c.source, c.metadata.get("tags")) for c in notebook.cells])
    code = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
    return {
        "template": hashlib.sha256(text.encode()).hexdigest()[:16],
        "parameters": parameters.model_dump(mode="json"),
        "code": dependencies.of_script(code, model.apart),
        "steps": sorted(step.key for step in parameters.steps()),
        "versions": project.versions(),
        "published": marks([page.notebook for page in model.judges or (model,)], but=parameters.profile),
    }


def why_stale(parameters: Parameters, path: Path) -> str | None:
    """Return why the executed notebook at `path` must run again, or None when it is fresh."""
    try:
        content = checkpoints.read_bytes(path)
        metadata = json.loads(content)["metadata"]
        old, seal = metadata["sparselib"], metadata[SEAL]
    except FileNotFoundError:
        return "never run"
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        return f"cannot be read ({type(error).__name__})"
    if content != _sealed(content.replace(_seal(seal), _seal(""))):
        return "not as it was run"
    new = parts(parameters)
    changed = [f"{name} changed" for name in ("template", "versions") if old[name] != new[name]]
    for name, value in new["parameters"].items():
        if old["parameters"].get(name) != value:
            changed.append(f"{name}: {old['parameters'].get(name)} → {value}")
    if names := dependencies.changes(old["code"], new["code"]):
        changed.append(f"{dependencies.summary(names)} changed")
    if not changed and old["steps"] != new["steps"]:
        changed.append("its steps changed")
    if old.get("published", {}) != new["published"]:
        changed.append("published results changed")
    if project.from_nothing() and new["steps"] and not metadata.get("sparselib-run", {}).get("from nothing"):
        changed.append("rows of results/ may be in it")
    return "; ".join(changed) or None


def _sealed(content):
    """Return the content of an executed notebook with its checksum in the place of an empty one."""
    return content.replace(_seal(""), _seal(hashlib.sha256(content).hexdigest()))


def _seal(checksum):
    return f'"{SEAL}": "{checksum}"'.encode()


def execute(parameters: Parameters, out: Path, *, book: bool = True) -> nbformat.NotebookNode:
    """Run a figure's notebook with these parameters and write it to `out`, in one step, once it has passed the gate.

    A failed notebook is kept beside as <out>.failed.ipynb, and NotebookError says so.
    """
    model, out = type(parameters), Path(out)
    name, failed = model.notebook, out.with_suffix(".failed.ipynb")
    partial = kernels.memory.place()
    check_template(read_template(model), model, book=book)
    before = parts(parameters)
    out.parent.mkdir(parents=True, exist_ok=True)
    failed.unlink(missing_ok=True)  # of an earlier failure
    try:
        notebook = _run(parameters, partial)
        check_executed(notebook, name, book=book)
    except PapermillExecutionError as error:
        raise NotebookError(f"{name}, cell {error.cell_index}: {error.ename}: {error.evalue} (see {failed})") from None
    except KERNEL_FAILURES as error:
        when = "died on the way" if _began(partial) else "did not start, twice"
        raise NotebookError(f"{name}: its kernel {when}: {error} (see {failed})") from None
    except GateError as error:
        raise NotebookError(f"{error} (see {failed})") from None
    else:
        kernels.memory.texts.pop(partial, None)
    finally:
        if text := kernels.memory.texts.pop(partial, None):
            checkpoints.write_atomic(failed, text.encode())
    notebook.metadata["sparselib"] = before
    origin = {"commit": project.commit(), "machine": project.machine(), "versions": project.versions()}
    notebook.metadata["sparselib-run"] = {**origin, "from nothing": project.from_nothing()}
    for volatile in ("input_path", "output_path"):
        notebook.metadata.get("papermill", {}).pop(volatile, None)
    notebook.metadata[SEAL] = ""
    checkpoints.write_atomic(out, _sealed(nbformat.writes(notebook).encode()))
    return notebook


def execute_all(chosen: list[tuple[Parameters, Path, str]], *, jobs: int = 1, progress: bool = True) -> None:
    """Run several notebooks side by side, the longest first.

    Args:
        chosen: triples (parameters, out, why it is run), the last for the line that tells when it is done.
    Raises: NotebookError at the first failure; the others that are done stay done.
    """
    reasons = {parameters.notebook: why for parameters, _, why in chosen}
    before = {parameters.notebook: _seconds_before(out) for parameters, out, _ in chosen}
    tasks = [
        workers.Task(parameters.notebook, (parameters, out), weight=before[parameters.notebook] or 10.0)
        for parameters, out, _ in chosen
    ]
    pool = workers.local(min(jobs, len(tasks)), SIDE_BY_SIDE)
    try:
        with pool, Bar(reasons, before.get, unit="notebooks", shown=progress) as bar:
            for task, seconds in workers.carry_out(_timed, tasks, pool, bar.refresh):
                bar.write(f"{task.label}: run in {seconds:.0f} s ({reasons[task.label]})")
                bar.done([task.label], seconds)
    finally:
        kernels.tidy_up()


def _timed(parameters, out):
    started = time.perf_counter()
    execute(parameters, out)
    return time.perf_counter() - started


def _seconds_before(path):
    """Return how long a notebook took to run the last time, None when that is not known."""
    try:
        return read(path).metadata["papermill"]["duration"]
    except Exception:  # nbformat raises many kinds on a damaged file
        return None


def _run(parameters, partial):
    """Return the executed notebook; a kernel that does not start, as on a busy machine, is started once more."""
    given = parameters.model_dump(mode="json")  # whole: what the template says does not matter
    start = functools.partial(
        papermill.execute_notebook, str(template(type(parameters))), partial, parameters=given,
        kernel_name="python3", progress_bar=False, kernel_manager_class=kernels.KernelManager, cwd=str(project.root()),
    )  # fmt: skip
    try:
        return start()
    except KERNEL_FAILURES:
        if _began(partial):
            raise
        return start()


def _began(partial):
    """Return whether any cell of the notebook was started: not when its kernel did not come up."""
    text = kernels.memory.texts.get(partial)
    cells = nbformat.reads(text, as_version=4).cells if text else ()
    return any(cell.metadata.get("papermill", {}).get("start_time") for cell in cells)


def check_template(notebook: nbformat.NotebookNode, page: type[Parameters], *, book: bool = True) -> None:
    """Raise GateError unless the template has one cell of parameters: typed literals, the live profile's values.

    `book` asks for what the book needs on top: the experiment as the library has it.
    """
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise GateError(f"{page.notebook}: needs one cell tagged 'parameters', has {len(cells)}")
    found, complaints = {}, []
    for node in _parsed(cells[0], page):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None):
            complaints.append(f"not a typed literal (name: type = value): {ast.unparse(node)}")
            continue
        try:
            found[node.target.id] = ast.literal_eval(node.value)
        except ValueError:
            complaints.append(f"not a literal, so an override would not reach it: {ast.unparse(node)}")
            found[node.target.id] = ...
    wanted = page.of_profile(typed.LIVE).model_dump()
    complaints += [f"not a parameter: {name}" for name in found if name not in wanted]
    for name, value in wanted.items():
        if name not in found:
            complaints.append(f"parameter without a place in the cell: {name}")
        elif found[name] not in (..., value):
            complaints.append(f"parameter {name!r} is {found[name]!r}, in profiles/{typed.LIVE}.yml it is {value!r}")
    if book:
        complaints += [f"{name} is not what {page.__module__} has" for name in _edited(notebook, page)]
        complaints += _lacking(notebook, page)
    if complaints:
        raise GateError(f"{page.notebook}: " + "; ".join(complaints))


def _parsed(cell, page):
    try:
        return ast.parse(cell.source).body
    except SyntaxError as error:
        raise GateError(f"{page.notebook}: its cell of parameters does not parse: {error}") from None


def _edited(notebook, page):
    """Return the names of the functions of the experiment that stand in the notebook otherwise than in the library."""
    library = ast.parse(inspect.getsource(sys.modules[page.__module__]))
    own = {ast.dump(node) for node in library.body}
    cells = [c for c in notebook.cells if c.cell_type == "code" and "experiment" in c.metadata.get("tags", [])]
    functions = [n for cell in cells for n in _parsed(cell, page) if isinstance(n, ast.FunctionDef)]
    return [function.name for function in functions if ast.dump(function) not in own]


BOX = re.compile(r"(?m)^:class: *(.+)$")


def _lacking(notebook, page):
    """Yield complaints: boxes that the page should have, exercises without a solution after them that asserts."""
    boxes = Counter()
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        found = " ".join(BOX.findall(cell.source)).split()
        boxes.update(found)
        if "exercise" in found:
            after = notebook.cells[index + 1] if index + 1 < len(notebook.cells) else {}
            if "solution" not in after.get("metadata", {}).get("tags", []) or "assert" not in after["source"]:
                yield f"the exercise of cell {index} is not followed by a cell tagged 'solution' that asserts something"
    for name, least in page.boxes.items():
        if boxes[name] < least:
            yield f"has {boxes[name]} boxes of the class {name!r}, should have {least}"


def check_executed(notebook: nbformat.NotebookNode, name: str, *, book: bool = True) -> None:
    """Raise GateError when a notebook failed, stopped early or shows nothing where it should.

    `book` asks for what the book needs on top: figures with label, caption and alt text, and no stray output.
    """
    complaints, figures = [], 0
    if notebook.metadata.get("papermill", {}).get("exception"):
        complaints.append("papermill reports an exception")
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        if cell.source.strip() and cell.get("execution_count") is None:
            complaints.append(f"cell {index} was not run")
        if "figure" in cell.metadata.get("tags", []) and not any(about(o) for o in cell.outputs):
            complaints.append(f"cell {index} should show a figure and shows none")
        for output in cell.outputs:
            if output.output_type == "error":
                complaints.append(f"cell {index} failed: {output.ename}: {output.evalue}")
            elif book and output.output_type == "stream" and output.name == "stderr":
                complaints.append(f"cell {index} writes to stderr: {output.text.strip()[:200]}")
            elif book and any(mime.startswith("image/") for mime in output.get("data", {})):
                figures += 1
                told = about(output) or {}
                if lacking := [what for what in ("name", "caption", "alt") if not told.get(what)]:
                    complaints.append(f"the figure of cell {index} lacks {', '.join(lacking)}")
    if book and not figures:
        complaints.append("it shows no figure")
    if complaints:
        raise GateError(f"{name}: " + "; ".join(complaints))


def about(output: Mapping) -> dict | None:
    """Return what `page.Run.show` says about an output that is a figure: its name, caption, alt text and class."""
    return output.get("metadata", {}).get("sparselib")
