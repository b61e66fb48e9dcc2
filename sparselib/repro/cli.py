"""The command line: reproduce, run, status, verify, list."""

import os
import random
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer
import yaml

from sparselib import data
from sparselib.detection import detectors
from sparselib.pruning import criteria
from sparselib.repro import book, cluster, notebooks, project, published, runner, verify
from sparselib.repro import parameters as typed
from sparselib.repro.cells import CellError
from sparselib.repro.gates import GateError
from sparselib.repro.store import Store, StoreError
from sparselib.repro.workers import WorkerError
from sparselib.robustness import attacks, shifts

app = typer.Typer(
    help="Recompute the figures of the book, or one of them with your own parameters.",
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
)  # fmt: skip

FORESEEN = (
    StoreError, CellError, WorkerError, published.PublishedError, notebooks.NotebookError, GateError, book.BookError,
    OSError,
)  # fmt: skip
CORES = os.cpu_count() or 1
Profile = Annotated[str, typer.Option(help="Scale: " + ", ".join(typed.PROFILES) + ".")]
Sets = Annotated[list[str], typer.Option("--set", metavar="NAME=VALUE", help="A parameter; VALUE is YAML. Repeatable.")]
Figures = Annotated[list[str], typer.Option("--figure", metavar="N", help="A figure, by number or name. Repeatable.")]
Jobs = Annotated[int, typer.Option(min=1, help="Worker processes.")]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="tcp://HOST:PORT", help="A Dask scheduler, whose workers compute; they share the store."),
]


@app.command()
def reproduce(
    profile: Profile = "digits",
    figure: Figures = (),
    set_: Sets = (),
    jobs: Jobs = CORES,
    scheduler: Scheduler = None,
    rows_only: Annotated[bool, typer.Option("--rows-only", help="Compute the rows; run and render nothing.")] = False,
    publish: Annotated[bool, typer.Option("--publish", help="Write the rows to results/<profile>/.")] = False,
):
    """Compute what is missing, run the notebooks that are stale, build the book."""
    _check(scheduler)
    chosen = _parameters(profile, figure, set_)
    store = _store()
    cells = [cell for parameters in chosen for cell in parameters.cells()]
    _say(f"{len(runner.closure(cells))} cells, {len(runner.missing(cells, store))} of them to compute")
    runner.compute(cells, store, jobs=jobs, scheduler=scheduler)
    if publish:
        _publish(chosen, store)
    if rows_only:
        return
    stale = []
    for parameters in chosen:
        out = book.executed(parameters.notebook)
        if why := notebooks.why_stale(parameters, out):
            stale.append((parameters, out, why))
        else:
            _say(f"{parameters.notebook}: fresh")
    notebooks.execute_all(stale, jobs=jobs)
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
    scheduler: Scheduler = None,
):
    """Run one notebook with your own parameters."""
    _check(scheduler)
    model = typed.figure(notebook)
    parameters = typed.resolve(model, {"profile": profile, **_assignments(set_)})
    if output.suffix != ".ipynb":
        raise typed.ParameterError(f"output must end in .ipynb, got {str(output)!r}")
    if output.resolve() == notebooks.template(model).resolve():
        raise typed.ParameterError("output must not be the template itself")
    runner.compute(parameters.cells(), _store(), jobs=jobs, scheduler=scheduler)
    notebooks.execute(parameters, output, published=False)
    typer.echo(output)


@app.command()
def status(profile: Profile = "digits", figure: Figures = (), set_: Sets = ()):
    """Say what is fresh, what is stale, and why."""
    store, told = _store(), set()
    for parameters in _parameters(profile, figure, set_):
        try:
            cells = runner.closure(parameters.cells())
        except (FileNotFoundError, CellError) as error:  # its data are not there, or not as asked
            typer.echo(f"{parameters.notebook}: cannot tell{'' if str(error) in told else f': {error}'}")
            told.add(str(error))
            continue
        lacking = [c for c in cells if store.get(c.what, c.key) is None]
        why = notebooks.why_stale(parameters, book.executed(parameters.notebook))
        typer.echo(f"{parameters.notebook}: {'stale: ' + why if why else 'fresh'}")
        if cells:
            typer.echo(f"  {len(cells) - len(lacking)} of {len(cells)} cells are in the store")
        reasons = [runner.reason(cell, store) for cell in lacking]
        for reason in dict.fromkeys(reasons):
            typer.echo(f"  {reasons.count(reason)} to compute: {reason}")


@app.command("verify")
def verify_(
    profile: Profile = "digits",
    sample: Annotated[int, typer.Option(min=1, help="So many published cells, drawn at random.")] = 5,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the draw; default: another one every time.")] = None,
    figure: Figures = (),
    tolerance: Annotated[
        float, typer.Option(min=0, help="Allowed difference of a value; relative for values beyond 1.")
    ] = verify.TOLERANCE,
    jobs: Jobs = CORES,
    scheduler: Scheduler = None,
):
    """Compute published rows again, with all they build on, and compare: code 1 if any differ."""
    _check(scheduler)
    chosen = _parameters(profile, figure, ())
    seed = random.randrange(10**6) if seed is None else seed
    picked = verify.sample(profile, [parameters.notebook for parameters in chosen], sample, seed)
    _say(f"{len(picked)} cells, drawn with --seed {seed}")
    within = _store().folder if scheduler else None  # where the workers see it
    compared = verify.recompute(
        profile, picked, tolerance=tolerance, within=within, jobs=jobs, scheduler=scheduler
    )  # fmt: skip
    for found in compared:
        typer.echo(f"{found.figure}, {found.cell}: {found.outcome}")
        for task, condition, metric, before, now, outcome in found.values:
            typer.echo(
                f"  {task}, {condition}, {metric}: published {before:.6g}, recomputed {now:.6g}, "
                f"difference {now - before:.2g}: {outcome}"
            )
        for note in found.notes:
            typer.echo(f"  note: {note}")
    outcomes = [found.outcome for found in compared]
    typer.echo(
        f"{outcomes.count(verify.SAME)} of {len(outcomes)} cells identical, {outcomes.count(verify.NEAR)} within "
        f"{tolerance:g}, {outcomes.count(verify.DIFFERENT)} different"
    )
    if verify.DIFFERENT in outcomes:
        raise typer.Exit(1)


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


def _store():
    store = Store(project.store_folder())
    os.environ["SPARSELIB_STORE"] = str(store.folder)  # for the kernels: they need not be told of another layout
    return store


def _check(scheduler):
    try:
        return scheduler and cluster.check_address(scheduler)
    except ValueError as error:
        raise typed.ParameterError(str(error)) from None


def _publish(chosen, store):
    for parameters in chosen:
        if not (parameters.publishable and parameters.cells()):
            continue
        files = published.write(parameters, store)
        told = ", ".join(os.path.relpath(path) for path in files)
        _say(f"{parameters.notebook}: {'published in ' + told if told else 'published already'}")


def _parameters(profile, figures, sets):
    """Return the typed parameters of the chosen figures; each set must be a parameter of one of them at least."""
    chosen = [typed.figure(name) for name in figures] or list(typed.PAGES.values())
    return typed.resolve_all(chosen, profile, _assignments(sets))


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
