"""The command line: reproduce, run, status, verify, archive, cell, list."""

import contextlib
import functools
import io
import os
import random
import shutil
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from sparselib import data, experiments, outside
from sparselib.detection import detectors
from sparselib.pruning import criteria
from sparselib.repro import archive as archives
from sparselib.repro import book, cluster, notebooks, project, published, runner, verify, workers
from sparselib.repro import parameters as typed
from sparselib.repro.dependencies import CodeError
from sparselib.repro.step import StepError
from sparselib.repro.store import Store, StoreError
from sparselib.robustness import attacks, shifts

app = typer.Typer(
    help="Recompute the figures of the book, or one of them with your own parameters.",
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
)  # fmt: skip

FORESEEN = (
    StoreError, StepError, workers.WorkerError, published.PublishedError, notebooks.NotebookError, notebooks.GateError,
    book.BookError, archives.ArchiveError, CodeError, OSError,
)  # fmt: skip
STOPPED = "sparselib: stopped; what was computed is kept, the same command goes on from there"
CORES = os.cpu_count() or 1
LONG = 900  # signs of a line that is printed in full
Profile = Annotated[str, typer.Option(help="Scale: " + ", ".join(experiments.PROFILES) + ".")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter; VALUE is YAML. Repeatable.")
]
Figures = Annotated[
    list[str] | None, typer.Option("--figure", metavar="N", help="A figure, by number or name. Repeatable.")
]
_here = Path()  # where the user stands; the commands run in the folder of the project


def _from_here(path: Path | None):
    return path and _here / _expanded(path)


def _expanded(path):
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~name of nobody
        raise typed.ParameterError(f"there is no home folder for {str(path)!r}") from None


Jobs = Annotated[int, typer.Option(min=1, help="Worker processes.")]
FromNothing = Annotated[
    bool, typer.Option("--from-nothing", help="Compute everything: leave the rows of results/ aside.")
]


def _address(scheduler: str | None):
    try:
        address = None if scheduler is None else cluster.check_address(scheduler)
    except ValueError as error:
        raise typed.ParameterError(str(error)) from None
    if address and (risk := cluster.risk(address)):
        _say(risk)
    return address


Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="tcp://HOST:PORT", callback=_address,
        help="A Dask scheduler (or tls://…), whose workers compute; they share the store. It can run programs here.",
    ),
]  # fmt: skip


@app.command()
def reproduce(
    profile: Profile = "digits",
    figure: Figures = None,
    set_: Sets = None,
    jobs: Jobs = CORES,
    scheduler: Scheduler = None,
    from_nothing: FromNothing = False,
    rows_only: Annotated[bool, typer.Option("--rows-only", help="Compute the rows; run and render nothing.")] = False,
    publish: Annotated[bool, typer.Option("--publish", help="Write the rows to results/<profile>/.")] = False,
):
    """Compute what is missing, run the notebooks that are stale, build the book.

    Rows that results/ holds for just this code, these parameters and these versions are taken from there.
    """
    chosen = _parameters(profile, figure, set_)
    store = _store(from_nothing)
    _compute(chosen, store, jobs, scheduler)
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
    if lacking := [name for name in experiments.PAGES if not book.executed(name).is_file()]:
        _say(f"no book yet, not run: {', '.join(lacking)}; run: sparselib reproduce")
        return
    _say("building the book …")
    _tell(book.build(experiments.PAGES, fresh=[p.notebook for p in chosen]))


@app.command()
def run(
    notebook: Annotated[str, typer.Argument(help="notebooks/05_sensnorm.ipynb, or just 5.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", callback=_from_here, help="Where the executed notebook goes (.ipynb).")
    ],
    set_: Sets = None,
    profile: Profile = "digits",
    jobs: Jobs = CORES,
    scheduler: Scheduler = None,
    from_nothing: FromNothing = False,
):
    """Run one notebook with your own parameters."""
    page = typed.find(experiments.PAGES, notebook)
    parameters = typed.resolve(page, {"profile": profile, **_assignments(set_)})
    _check_own(notebook, page)
    notebooks.check_output(output)
    notebooks.check_template(notebooks.read_template(page), page, book=False)
    _compute([parameters], _store(from_nothing), jobs, scheduler)
    notebooks.execute(parameters, output, book=False)
    _tell(output)


@app.command()
def status(profile: Profile = "digits", figure: Figures = None, set_: Sets = None):
    """Say what is fresh, what is stale, and why."""
    store, told = _store(False), set()
    for parameters in _parameters(profile, figure, set_):
        try:
            published.adopt([parameters], store)
            steps = parameters.steps()
            lacking = runner.missing(steps, store)
        except (FileNotFoundError, StepError) as error:  # its data are not there, or not as asked
            _tell(f"{parameters.notebook}: cannot tell{'' if str(error) in told else f': {error}'}")
            told.add(str(error))
            continue
        why = notebooks.why_stale(parameters, book.executed(parameters.notebook))
        _tell(f"{parameters.notebook}: {'stale: ' + why if why else 'fresh'}")
        if steps:
            there = len({step.key for step in steps} - {step.key for step in lacking})
            _tell(f"  {there} of {len(steps)} steps are in the store")
        reasons = [runner.reason(step, store) for step in lacking]
        for reason in dict.fromkeys(reasons):
            _tell(f"  {reasons.count(reason)} to compute: {reason}")


@app.command("verify")
def verify_(
    profile: Profile = "digits",
    sample: Annotated[int, typer.Option(min=1, help="This many published steps, drawn at random.")] = 5,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the draw; default: another one every time.")] = None,
    figure: Figures = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Allowed difference of a value; relative for values beyond 1.")
    ] = verify.TOLERANCE,
    jobs: Jobs = CORES,
    scheduler: Scheduler = None,
    files_only: Annotated[
        bool, typer.Option("--files-only", help="Check the files of an unpacked archive; compute nothing.")
    ] = False,
):
    """Compute published rows again, with all they build on, and compare: code 1 if any differ.

    In an unpacked archive, first check every file against its manifest.
    """
    sound = archives.check(project.root())
    if sound is not None:
        _tell(f"{sound} files as archived")
    if files_only:
        if sound is None:
            raise typed.ParameterError(f"--files-only is for an unpacked archive: there is no {archives.MANIFEST} here")
        return
    chosen = _parameters(profile, figure, None)
    seed = random.randrange(10**6) if seed is None else seed
    picked = verify.sample([type(parameters) for parameters in chosen], profile, sample, seed)
    _say(f"{len(picked)} steps, drawn with --seed {seed}")
    within = _store(False).folder if scheduler else None  # where the workers see it
    compared = verify.recompute(profile, picked, tolerance=tolerance, within=within, jobs=jobs, scheduler=scheduler)
    for found in compared:
        _tell(f"{found.figure}, {found.step}: {found.outcome}")
        for name, before, now, outcome in found.values:
            numbers = f"published {before:.6g}, recomputed {now:.6g}, difference {now - before:.2g}"
            _tell(f"  {', '.join(name)}: {numbers}: {outcome}")
        for note in found.notes:
            _tell(f"  note: {note}")
    outcomes = [found.outcome for found in compared]
    same, near, different = map(outcomes.count, (verify.SAME, verify.NEAR, verify.DIFFERENT))
    _tell(f"{same} of {len(outcomes)} steps identical, {near} within {tolerance:g}, {different} different")
    if different:
        raise typer.Exit(1)


@app.command()
def archive(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", callback=_from_here, help="Where it goes, .zip or .tar.gz; default: in _build."),
    ] = None,
):
    """Write one file with the rendered book, the published rows, the sources, and a manifest of checksums."""
    try:
        out = archives.check_name(output or archives.default_path())
    except ValueError as error:
        raise typed.ParameterError(str(error)) from None
    _tell(archives.write(experiments.PAGES, out))


@app.command()
def cell(notebook: Annotated[str, typer.Argument(help="notebooks/05_sensnorm.ipynb, or just 5.")]):
    """Print the cell of parameters of a notebook, as its page and the live profile have it."""
    _tell(typed.cell(typed.find(experiments.PAGES, notebook)))


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(help="figures, lessons, profiles, criteria, attacks, shifts, detectors or datasets.")
    ],
):
    """List the names that parameters can take."""
    about = {name: (page.__doc__ or "").splitlines()[0] for name, page in experiments.PAGES.items()}
    profiles = experiments.PROFILES.items()
    known = {
        "figures": [f"{page.number}  {n}  {page.claim}  {about[n]}" for n, page in experiments.FIGURES.items()],
        "lessons": [f"{n}  {about[n]}" for n in experiments.LESSONS],
        "profiles": [f"{n}: {p['dataset']}, {p['network']}, {p['seeds']} seeds" for n, p in profiles],
        "criteria": criteria.CRITERIA,
        "attacks": attacks.NAMES,
        "shifts": shifts.SHIFTS,
        "detectors": detectors.DETECTORS,
        "datasets": (*data.NAMES, "folder:<path>", *(f"{n} (outliers only)" for n in (*data.SYNTHETIC, "heldout"))),
    }
    if what not in known:
        raise typed.ParameterError(f"cannot list {what!r} (allowed: {', '.join(known)})")
    _tell("\n".join(known[what]))


def _store(from_nothing):
    """Return the store; the kernels of notebooks are told of it, and whether to leave published rows aside."""
    store = Store(project.store_folder())
    os.environ["SPARSELIB_STORE"] = str(store.folder)  # they need not be told of another layout
    if from_nothing:
        os.environ["SPARSELIB_FROM_NOTHING"] = "1"
    return store


def _compute(chosen, store, jobs, scheduler):
    """Make sure that the store has the rows of the chosen pages: taken from results/, or computed."""
    fresh, taken = project.from_nothing(), 0
    steps = list({step.what: step for parameters in typed.sources(chosen) for step in parameters.steps()}.values())
    todo = runner.missing(steps, store, adopted=not fresh)
    if todo and not fresh and (taken := published.adopt(chosen, store)):
        todo = runner.missing(steps, store, adopted=True)
    told = f", {taken} taken from results/" if taken else ""
    _say(f"{len(steps)} steps{told}, {len(todo)} to compute")
    if todo or scheduler:  # a scheduler that cannot be reached is told in any case
        runner.compute(steps, store, jobs=jobs, scheduler=scheduler, adopted=not fresh)


def _publish(chosen, store):
    for parameters in chosen:
        if parameters.publishable and parameters.steps():
            files = [os.path.relpath(path) for path in published.write(parameters, store)]
            _say(f"{parameters.notebook}: published {'in ' + ', '.join(files) if files else 'already'}")


def _parameters(profile, figures, sets):
    """Return the typed parameters of the chosen figures; each set must be a parameter of one of them at least."""
    path = experiments.Page.profiles / f"{profile}.yml"
    if profile in experiments.PROFILES:
        typed.check_profile(path, experiments.PROFILES[profile], experiments.PAGES.values())
    asked = dict.fromkeys(typed.find(experiments.PAGES, name) for name in figures or ())
    return typed.resolve_all(asked or experiments.PAGES.values(), profile, _assignments(sets))


def _check_own(notebook, page):
    """Raise ParameterError for a path to a notebook of the same name that is not the project's."""
    path, own = _here / notebook, notebooks.template(page)
    if path.is_file() and path.resolve() != own.resolve():
        raise typed.ParameterError(f"the notebook must be the project's own {own}, got {str(path)!r}")


def _assignments(sets):
    return {name: _placed(value) for name, value in map(typed.assignment, sets or ())}


def _placed(value):
    """Return a value with its paths as the project sees them: relative ones are meant from where the user stands."""
    if isinstance(value, list):
        return [_placed(each) for each in value]
    if not isinstance(value, str):
        return value
    head, _, rest = value.partition(":")
    place, colon, name = value.rpartition(":") if ".py:" in value else (value, "", "")  # a file, or one of its names
    if head == "folder" and rest.strip():
        return f"folder:{_from_root(rest)}"
    return f"{_from_root(place)}{colon}{name}" if Path(place).suffix and (_here / place).is_file() else value


def _from_root(path):
    path, root = Path(os.path.normpath(_here / _expanded(path))), Path.cwd()
    return path.relative_to(root) if path.is_relative_to(root) else path


def _tell(text):
    """Print a result; nothing that it holds steers the terminal."""
    typer.echo(outside.visible(text))


def _say(text):
    """Print a message to stderr, above a progress bar, wrapped to a terminal's width, endless lines cut."""
    lines = outside.visible(text).splitlines()
    text = "\n".join(line if len(line) <= LONG else f"{line[: LONG - 200]} … {line[-200:]}" for line in lines)
    if sys.stderr.isatty():
        width = max(40, shutil.get_terminal_size().columns)
        wrap = functools.partial(textwrap.fill, width=width, break_long_words=False, break_on_hyphens=False)
        text = "\n".join(map(wrap, text.splitlines()))
    tqdm.write(text, file=sys.stderr)


def _warn(message, *_, **__):
    """Print a warning, each once."""
    if (text := str(message)) not in _warned:
        _warned.add(text)
        _say(f"sparselib: warning: {text}")


_warned = set()


@contextlib.contextmanager
def _in_project():
    """Work in the folder of the project, where there is one: kernels and workers take relative paths from there."""
    global _here
    _here = Path.cwd()
    for name in ("SPARSELIB_STORE", "SPARSELIB_DATA"):
        if os.environ.get(name):
            os.environ[name] = str(_from_here(Path(os.environ[name])))
    try:
        place = project.root()
    except project.ProjectError:  # told by the commands that need it
        place = _here
    with contextlib.chdir(place):
        yield


def main():
    """Run the command line; every foreseen error is one message: exit code 2 for wrong arguments, 1 for the rest."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a sign that its encoding lacks is no reason to fail
    _warned.clear()
    warnings.showwarning = _warn
    workers.stop_on_signals()
    try:
        with _in_project():
            code = app(standalone_mode=False)
        if code == 130:  # typer has turned Ctrl-C into this
            raise KeyboardInterrupt
        sys.exit(code)
    except (typed.ParameterError, *FORESEEN) as error:
        _say(f"sparselib: {error}")
        sys.exit(2 if isinstance(error, typed.ParameterError) else 1)
    except (KeyboardInterrupt, typer.Abort):
        _say(STOPPED)
        sys.exit(130)
    except workers.Stopped:
        with contextlib.suppress(OSError):  # the terminal may be gone
            _say(STOPPED)
        raise
    except Exception as error:
        show = getattr(error, "show", None)
        if show is None:  # click's usage errors show themselves; which click is typer's affair
            raise
        shown = io.StringIO()
        show(shown)
        _say(shown.getvalue().rstrip())
        sys.exit(getattr(error, "exit_code", 2))
