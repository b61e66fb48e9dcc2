"""The command line: reproduce, run, status, list."""

import os
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated

import typer
import yaml

from sparselib import attacks, criteria, data, detectors, shifts
from sparselib.repro import book, notebooks, project, runner
from sparselib.repro import parameters as typed
from sparselib.repro.cells import CellError
from sparselib.repro.gates import GateError
from sparselib.repro.store import Store, StoreError

app = typer.Typer(
    help="Recompute the figures of the book, or one of them with your own parameters.",
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
)  # fmt: skip

FORESEEN = (StoreError, CellError, notebooks.NotebookError, GateError, book.BookError, OSError)
CORES = os.cpu_count() or 1
Profile = Annotated[str, typer.Option(help="Scale: " + ", ".join(typed.PROFILES) + ".")]
Sets = Annotated[list[str], typer.Option("--set", metavar="NAME=VALUE", help="A parameter; VALUE is YAML. Repeatable.")]
Figures = Annotated[list[str], typer.Option("--figure", metavar="N", help="A figure, by number or name. Repeatable.")]
Jobs = Annotated[int, typer.Option(min=1, help="Worker processes.")]


@app.command()
def reproduce(
    profile: Profile = "digits", figure: Figures = (), set_: Sets = (), jobs: Jobs = CORES
):  # fmt: skip
    """Compute what is missing, run the notebooks that are stale, build the book."""
    chosen = _parameters(profile, figure, set_)
    store = Store(project.store_folder())
    cells = [cell for parameters in chosen for cell in parameters.cells()]
    _say(f"{len(runner.closure(cells))} cells, {len(runner.missing(cells, store))} of them to compute")
    runner.compute(cells, store, jobs=jobs)
    for parameters in chosen:
        out = book.executed(parameters.notebook)
        if why := notebooks.why_stale(parameters, out):
            started = time.perf_counter()
            notebooks.execute(parameters, out)
            _say(f"{parameters.notebook}: run in {time.perf_counter() - started:.0f} s ({why})")
        else:
            _say(f"{parameters.notebook}: fresh")
    lacking = [name for name in typed.PAGES if not book.executed(name).is_file()]
    if lacking:
        _say(f"no book yet, not run: {', '.join(lacking)}; run: sparselib reproduce")
        return
    _say("building the book …")
    typer.echo(book.build())


@app.command()
def run(
    notebook: Annotated[str, typer.Argument(help="notebooks/05_sensnorm.ipynb, or just 5.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the executed notebook goes (.ipynb).")],
    set_: Sets = (),
    profile: Profile = "digits",
    jobs: Jobs = CORES,
):
    """Run one notebook with your own parameters."""
    model = typed.figure(notebook)
    parameters = typed.resolve(model, {"profile": profile, **_assignments(set_)})
    if output.suffix != ".ipynb":
        raise typed.ParameterError(f"output must end in .ipynb, got {str(output)!r}")
    if output.resolve() == notebooks.template(model).resolve():
        raise typed.ParameterError("output must not be the template itself")
    runner.compute(parameters.cells(), Store(project.store_folder()), jobs=jobs)
    notebooks.execute(parameters, output, published=False)
    typer.echo(output)


@app.command()
def status(profile: Profile = "digits", figure: Figures = (), set_: Sets = ()):
    """Say what is fresh, what is stale, and why."""
    store = Store(project.store_folder())
    for parameters in _parameters(profile, figure, set_):
        cells = runner.closure(parameters.cells())
        lacking = [c for c in cells if store.get(c.what, c.key) is None]
        why = notebooks.why_stale(parameters, book.executed(parameters.notebook))
        typer.echo(f"{parameters.notebook}: {'stale: ' + why if why else 'fresh'}")
        if cells:
            typer.echo(f"  {len(cells) - len(lacking)} of {len(cells)} cells are in the store")
        reasons = [runner.reason(cell, store) for cell in lacking]
        for reason in dict.fromkeys(reasons):
            typer.echo(f"  {reasons.count(reason)} to compute: {reason}")


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(help="figures, lessons, profiles, criteria, attacks, shifts, detectors or datasets.")
    ],
):
    """List the names that parameters can take."""
    known = {
        "figures": [f"{m.number}  {n}  {m.claim}  {m.__doc__.splitlines()[0]}" for n, m in typed.FIGURES.items()],
        "lessons": [f"{n}  {m.__doc__.splitlines()[0]}" for n, m in typed.LESSONS.items()],
        "profiles": [f"{n}: {p['dataset']}, {p['network']}, {p['seeds']} seeds" for n, p in typed.PROFILES.items()],
        "criteria": criteria.NAMES,
        "attacks": attacks.NAMES,
        "shifts": shifts.KINDS,
        "detectors": detectors.NAMES,
        "datasets": (*data.NAMES, "folder:<path>", *(f"{n} (outliers only)" for n in data.OUTLIERS)),
    }
    if what not in known:
        raise typed.ParameterError(f"cannot list {what!r} (allowed: {', '.join(known)})")
    typer.echo("\n".join(known[what]))


def _parameters(profile, figures, sets):
    """Return the typed parameters of the chosen figures; each set must be a parameter of one of them at least."""
    chosen = [typed.figure(name) for name in figures] or list(typed.PAGES.values())
    given = _assignments(sets)
    unused = [n for n in given if not any(n in model.model_fields for model in chosen)]
    if unused:
        typed.refuse_unknown(unused[0], dict.fromkeys(n for model in chosen for n in model.model_fields), "any page")
    return [
        typed.resolve(model, {"profile": profile, **{n: v for n, v in given.items() if n in model.model_fields}})
        for model in chosen
    ]


def _assignments(sets):
    values = {}
    for text in sets:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typed.ParameterError(f"--set takes name=value, got {text!r}")
        try:
            values[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise typed.ParameterError(f"--set {name}: not a YAML value: {value!r}") from None
    return values


def _say(text):
    typer.echo(text, err=True)


def main():
    """Run the command line; every foreseen error is one message: exit code 2 for wrong arguments, 1 for the rest."""
    warnings.showwarning = lambda message, *_, **__: _say(f"sparselib: warning: {message}")
    try:
        code = app(standalone_mode=False)
        if code == 130:  # typer has turned Ctrl-C into this
            raise KeyboardInterrupt
        sys.exit(code)
    except typed.ParameterError as error:
        _say(f"sparselib: {error}")
        sys.exit(2)
    except FORESEEN as error:
        _say(f"sparselib: {error}")
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):
        _say("sparselib: stopped; what was computed is kept, the same command goes on from there")
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "show"):  # click's usage errors show themselves; which click is typer's affair
            raise
        error.show()
        sys.exit(error.exit_code)
