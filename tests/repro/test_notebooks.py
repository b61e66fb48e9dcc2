import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import toy
import zmq

from sparselib import experiments
from sparselib.repro import kernels, notebooks
from sparselib.repro import parameters as typed

ROOT = Path(__file__).resolve().parents[2]
PAGE = experiments.PAGES["00_quickstart"]
QUICKSTART = typed.resolve(PAGE, {})


def _template(path, model, *sources):
    """Write a notebook with the parameters of a model and these cells."""
    cells = [nbformat.v4.new_code_cell(typed.cell(model), metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a notebook of the given cells; the first so many kernels end at once. Returns (notebook, kernels started)."""
    started = []

    def execute(*sources, stillborn=0):
        class Kernels(kernels.KernelManager):
            def format_kernel_cmd(self, *arguments, **more):
                started.append(True)
                command = super().format_kernel_cmd(*arguments, **more)
                return ["false"] if len(started) <= stillborn else command

        _template(tmp_path / "page.ipynb", PAGE, *sources)
        monkeypatch.setattr(notebooks, "template", lambda model: tmp_path / "page.ipynb")
        monkeypatch.setattr(kernels, "KernelManager", Kernels)
        return notebooks.execute(QUICKSTART, tmp_path / "out.ipynb", book=False)

    return execute, started


def test_a_kernel_that_does_not_start_is_started_once_more(run):
    execute, started = run
    notebook = execute("print(6 * 7)", stillborn=1)
    assert notebook.cells[-1].outputs[0].text == "42\n" and len(started) == 2


def test_a_kernel_that_never_starts_is_told(run, tmp_path):
    execute, started = run
    with pytest.raises(notebooks.NotebookError, match="00_quickstart: its kernel did not start, twice: .*died"):
        execute("print(6 * 7)", stillborn=9)
    assert len(started) == 2 and not (tmp_path / "out.ipynb").exists()


def test_a_kernel_that_dies_on_the_way_is_told_and_not_started_again(run):
    execute, started = run
    with pytest.raises(notebooks.NotebookError, match="00_quickstart: its kernel died on the way"):
        execute("import os; os._exit(3)")
    assert len(started) == 1


def test_a_failing_cell_is_told_and_not_run_again(run):
    execute, started = run
    with pytest.raises(notebooks.NotebookError, match="00_quickstart, cell 2: ZeroDivisionError"):
        execute("1 / 0")
    assert len(started) == 1


SOCKETS = "from ipykernel.kernelapp import IPKernelApp; print(IPKernelApp.instance().transport)"


def test_kernels_use_ports_where_there_are_no_sockets_in_files(run, monkeypatch):
    execute, _ = run
    assert execute(SOCKETS).cells[-1].outputs[0].text == "ipc\n"
    monkeypatch.setattr(zmq, "has", lambda feature: feature != "ipc")
    assert execute(SOCKETS).cells[-1].outputs[0].text == "tcp\n"


SURROUNDINGS = """
import sys
import matplotlib as mpl
print(sys.executable, "leaked" in globals(), mpl.rcParams["lines.linewidth"], mpl.rcParams["text.usetex"])
"""


def test_the_kernel_is_this_interpreter_and_sees_nobodys_settings(run, tmp_path, monkeypatch):
    execute, _ = run
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    foreign = {"argv": ["/bin/false", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(foreign), encoding="utf-8")
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("leaked = True", encoding="utf-8")
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 7\ntext.usetex: True\n", encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path / "matplotlibrc"))
    notebook = execute(SURROUNDINGS)
    assert notebook.cells[-1].outputs[-1].text.split() == [sys.executable, "False", "1.5", "False"]


PLOT = """
import os, time
from pathlib import Path
import matplotlib.pyplot as plt
Path(f"{profile or 'x'}-{os.getpid()}.in").touch()
ends = time.monotonic() + 60
while len(list(Path().glob("*.in"))) < 2:
    assert time.monotonic() < ends, "the other one does not run beside"
    time.sleep(0.1)
assert os.environ["OMP_NUM_THREADS"] == "1"
from IPython.display import display
about = {"sparselib": {"name": "fig-x", "caption": "c", "alt": "words", "class": "chart"}}
display({"image/svg+xml": "<svg/>", "text/plain": "a plot"}, raw=True, metadata=about)
"""


def test_stale_notebooks_run_side_by_side_with_a_line_each(tmp_path):
    (tmp_path / "_config.yml").write_text("", encoding="utf-8")
    for name in ("00_quickstart", "own_data"):
        model = experiments.PAGES[name]
        _template(tmp_path / model.folder / f"{name}.ipynb", model, PLOT)
    command = ["reproduce", "--figure", "0", "--figure", "own_data", "--jobs", "2"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SPARSELIB", "OMP"))}
    done = subprocess.run(
        [sys.executable, "-m", "sparselib", *command], capture_output=True, encoding="utf-8", cwd=tmp_path, timeout=300,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(" s (never run)") == 2
    assert "notebooks 100%" in done.stderr and "2/2" in done.stderr
    assert "no book yet, not run: " in done.stderr


def test_an_executed_notebook_is_as_it_was_run(tmp_path, monkeypatch):
    path = tmp_path / "x.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f'"{notebooks.SEAL}": ""')])
    notebook.metadata.update({"sparselib": {}, notebooks.SEAL: ""})
    content = notebooks._sealed(nbformat.writes(notebook).encode())
    path.write_bytes(content)

    def fresh(*_):
        raise AssertionError("its parts are looked at")

    monkeypatch.setattr(notebooks, "parts", fresh)
    with pytest.raises(AssertionError, match="its parts"):
        notebooks.why_stale(None, path)
    seal = content.partition(notebooks.SEAL.encode() + b'": "')[2][:64]
    for damage in (content.replace(b"markdown", b"raw"), content.replace(seal, b""), content.replace(seal, b"0" * 64)):
        path.write_bytes(damage)
        assert notebooks.why_stale(None, path) == "not as it was run"
    for make in toy.ODD:
        path.unlink()
        make(path)
        assert notebooks.why_stale(None, path).startswith("cannot be read")
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        path.touch()


def test_from_nothing_runs_again_what_may_hold_published_rows(tmp_path, monkeypatch):
    parts = {"template": "t", "parameters": {}, "code": {}, "steps": ["a"], "versions": {}, "published": {}}
    monkeypatch.setattr(notebooks, "parts", lambda _: parts)
    path = tmp_path / "x.ipynb"

    def why(wanted, ran):
        notebook = nbformat.v4.new_notebook()
        notebook.metadata.update({"sparselib": parts, "sparselib-run": {"from nothing": ran}, notebooks.SEAL: ""})
        path.write_bytes(notebooks._sealed(nbformat.writes(notebook).encode()))
        monkeypatch.setenv("SPARSELIB_FROM_NOTHING", "1" if wanted else "")
        return notebooks.why_stale(None, path)

    assert why(wanted=True, ran=False) == "rows of results/ may be in it"
    assert why(wanted=True, ran=True) is why(wanted=False, ran=False) is why(wanted=False, ran=True) is None
    parts["steps"] = []
    assert why(wanted=True, ran=False) is None, "it has none"
