"""Put the executed notebooks and the prose together and build the Jupyter Book, for reading with no network."""

import csv
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import files
from pathlib import Path
from typing import Any

import nbformat

from sparselib import checkpoints, outside
from sparselib.repro import kernels, notebooks, project, published
from sparselib.repro import parameters as typed
from sparselib.repro.book import teach
from sparselib.repro.parameters import Parameters
from sparselib.repro.step import StepError
from sparselib.repro.store import Store, locked, sha256

LEAD = re.compile(r"(?m)^% lead of (\S+)$")  # in prose: replaced by what a page says of itself in a few lines
STATUS = re.compile(r"(?m)^% status$")  # in prose: replaced by tables of what was computed, when, and whether it holds
BUILT = ("html", ".doctrees")  # what the builder makes and, next time, builds upon
OTHER = "prose, settings or the library changed"
UNKNOWN = "cannot be told: its data are not here"
LIBRARY = Path(__file__).resolve().parents[1]  # its docstrings are in the book
BESIDE = ("CHANGELOG.md",)  # files that pages of the book include
FIGURE = re.compile(r"(?m)^% figure of (\S+ \S+)$")  # in prose: replaced by that figure of a page, with its caption
STATIC = "book/_static"  # what lies in its folder explorers is appended to explorers.js and book.css
MATHJAX = "tex-svg.js"  # one file, no fonts to fetch, made of:
MATHJAX_PARTS = (
    "startup.js",
    "core.js",
    "input/tex.js",
    "output/svg.js",
    "output/svg/fonts/tex.js",
    "a11y/assistive-mml.js",
)
UNUSED = range(0x1D504, 0x1D6A4)  # letters of mathematics in fraktur, double-struck, sans serif, monospaced
GLYPH = re.compile(r'(?<=[{,])(\d+):"[-\d\sQMLTHVZ.]*",')
ALPHABET = re.compile(
    r"(?<=\.AddPaths\)\()(\w+\.(?:fraktur|monospace|sansSerif|texOldstyle|texCalligraphicBold)\w*,)\{[^{}]*\}"
)


class BookError(RuntimeError):
    """The book could not be built; the message holds the builder's warnings and errors."""


def executed(name: str) -> Path:
    """Return where the executed notebook of a figure lies."""
    return project.build_folder() / "notebooks" / f"{name}.ipynb"


def build(pages: Mapping[str, type[Parameters]], fresh: Collection[str] = ()) -> Path:
    """Return the path of the rendered index page, building the book if anything in it has changed.

    Every warning is an error. `fresh`: names of pages that are known to be. Raises BookError with what Jupyter Book
    says.
    """
    if importlib.util.find_spec("jupyter_book") is None:
        raise BookError('Jupyter Book is not installed: pip install -c constraints.txt -e ".[book]"')
    with locked(project.build_folder() / "book.lock"):
        return _build(pages, fresh)


def _build(pages, fresh):
    sources = project.build_folder() / "source"
    wanted = _wanted(pages, fresh)
    _synchronise(sources, wanted)
    mark, index = _rendered()
    if (why := _why_not(wanted)) is None:
        return index
    _remove(mark)
    if why != OTHER:  # what was built is not as it was: nothing of it is built upon
        for name in BUILT:
            _remove(project.build_folder() / name)
    command = [
        *kernels.with_parent("from jupyter_book.cli.main import main; main()"), "build", str(sources),
        "--toc", str(sources / "book" / "_toc.yml"), "--path-output", str(project.root()), "-W", "-n", "--keep-going",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", cwd=sources,
        env={**os.environ, "NO_COLOR": "1", "PYTHONUTF8": "1", "PYTHONPATH": _library_first()},
    )  # fmt: skip
    log = project.build_folder() / "book.log"
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode or not index.is_file():
        told = [line for line in done.stderr.splitlines() if "WARNING" in line or "ERROR" in line or "Error" in line]
        raise BookError("the book does not build:\n" + "\n".join(told[:20]) + f"\n(all of it: {log})")
    _check_pages(index.parent, pages)
    checkpoints.write_atomic(mark, json.dumps({"sources": _digest(wanted), "built": _built()}, indent=1).encode())
    return index


def why_stale(pages: Mapping[str, type[Parameters]]) -> str | None:
    """Return why the rendered book is not that of the present sources in the live profile, None when it is."""
    if not all(path.is_file() for path in (*_rendered(), *map(executed, pages))):
        return "not built"
    for name, model in pages.items():
        if why := notebooks.why_stale(typed.resolve(model, {}), executed(name)):
            return f"stale: {name}: {why}"
    why = _why_not(_wanted(pages))
    return why and f"stale: {why}"


def _rendered():
    """Return where the digest of the rendered book and its first page lie."""
    return project.build_folder() / "html.digest", project.build_folder() / "html" / "index.html"


def _why_not(wanted):
    """Return why the rendered book is not that of its sources as it was built, None when it is."""
    try:
        mark = json.loads(checkpoints.read_bytes(_rendered()[0]))
        sources, before = mark["sources"], dict(mark["built"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "not built"
    now = _built()
    if differ := sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)):
        more = f" and {len(differ) - 1} more" if differ[1:] else ""
        return f"{differ[0]}{more}: not as it was built"
    return None if sources == _digest(wanted) else OTHER


def _built():
    """Return {path in the folder of what is built: checksum} of the rendered book and of what the builder keeps."""
    found, folder = {}, project.build_folder()
    for path in (path for name in BUILT for path in (folder / name).rglob("*")):
        if not path.is_dir() or path.is_symlink():
            try:
                found[path.relative_to(folder).as_posix()] = sha256(checkpoints.read_bytes(path))
            except OSError as error:
                found[path.relative_to(folder).as_posix()] = str(error.strerror)
    return found


def _remove(path):
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _digest(wanted):
    parts = (name.encode() + hashlib.sha256(content).digest() for name, content in sorted(wanted.items()))
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _library_first():
    """Return PYTHONPATH, so that the reference of the API is that of the library at work."""
    return os.pathsep.join(filter(None, [str(LIBRARY.parent), os.environ.get("PYTHONPATH")]))


def _check_pages(html, pages):
    """Raise BookError unless every figure of the executed notebooks stands on its page."""
    for name, model in pages.items():
        page = (html / model.folder / f"{name}.html").read_text(encoding="utf-8")
        for cell in notebooks.read(executed(name)).cells:
            for about in filter(None, map(notebooks.about, cell.get("outputs", []))):
                if f'id="{about["name"]}"' not in page:
                    raise BookError(f"the figure {about['name']} is missing on the page {name}")


def _wanted(pages, fresh=()):
    """Return {path in the book's source: content}."""
    root = project.root()
    beside = ("_config.yml", *(name for name in BESIDE if (root / name).is_file()))
    wanted = {name: checkpoints.read_bytes(root / name) for name in beside}
    for path in sorted((root / "book").rglob("*")):
        if path.is_file() and path.suffix not in (".pyc", ".ipynb"):
            wanted[path.relative_to(root).as_posix()] = path.read_bytes()
    prose = b"\n".join(content for name, content in wanted.items() if name.endswith(".md")).decode()
    leads = {}
    for name, model in pages.items():
        wanted[f"{model.folder}/{name}.ipynb"], leads[name] = _page(executed(name))
    for page, figure in (asked.split() for asked in set(FIGURE.findall(prose))):
        shown = _figures(executed(page)) if page in pages else {}
        if figure in shown:
            leads[f"{page} {figure}"], wanted[f"book/figures/{figure}.svg"] = shown[figure]
    for name, text in wanted.items():
        if name.endswith(".md"):
            led = _led(name, text.decode(), leads).decode()
            wanted[name] = STATUS.sub(lambda _: _status(pages, fresh), led).encode()
    for suffix, whole in ((".js", "explorers.js"), (".css", "book.css")):
        pieces = [name for name in wanted if name.startswith(f"{STATIC}/explorers/") and name.endswith(suffix)]
        wanted[f"{STATIC}/{whole}"] = b"\n".join([wanted[f"{STATIC}/{whole}"], *map(wanted.pop, pieces)])
    wanted[f"{STATIC}/{MATHJAX}"] = _mathjax()
    sources = sorted(LIBRARY.rglob("*.py"))
    wanted["library.sha256"] = sha256(b"".join(path.read_bytes() for path in sources)).encode()
    return wanted | teach.materials(pages, executed, wanted)


def _led(name, text, leads):
    """Return a page of prose with the leads and figures that it asks for."""
    if missing := [figure for figure in FIGURE.findall(text) if figure not in leads]:
        raise BookError(f"{name} asks for the figure {missing[0]!r}, which is on no page of the book")
    text = FIGURE.sub(lambda asked: leads[asked[1]], text)
    parts = LEAD.split(text)  # prose, the name of a page, prose, …
    if missing := [page for page in parts[1::2] if page not in leads]:
        raise BookError(f"{name} asks for the lead of {missing[0]!r}, which is no page of the book")
    return "".join(leads[part] if i % 2 else part for i, part in enumerate(parts)).encode()


def _status(pages, fresh=()):
    """Return Markdown tables of the executed pages and of the published rows: how much work, whose, and whether fresh.

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
    parts = [f"Pages of this book, {len(live)} in all:", outside.table(head, live)]
    if stored:
        parts += ["Published rows:", outside.table([*head[:4], *head[5:]], stored)]
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
    return ["What was tried to break it:", outside.table(head, [*lines, ["all", *sums, "", ""]])]


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
        why = f"{old} steps differ: code, data or parameters changed{versions}" if old else None
    except (FileNotFoundError, StepError):
        why = UNKNOWN
    commits = ", ".join(sorted(steps["commit"].unique()))
    return (name, profile, len(steps), f"{steps['seconds'].sum():.0f}", len(p.seed_list()), commits, _state(why))


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
    return ", ".join([*told, *(f"{name} {version}" for name, version in versions.items())]) or "not recorded"


def _page(path):
    """Return an executed notebook as the book wants it, and its lead (Markdown), which goes under the first cell.

    Caption, label and alt text are read from the metadata of the cell, and apply to all its outputs: so each figure
    gets a cell of its own, without a source.
    """
    notebook = notebooks.read(path)
    cells, leads = [], []
    for cell in notebook.cells:
        if "outputs" in cell:
            found = [output for output in cell.outputs if output.get("metadata", {}).get("sparselib-lead")]
            leads += [output["data"]["text/markdown"] for output in found]
            cell["outputs"] = [output for output in cell.outputs if output not in found]
        if "injected-parameters" in cell.metadata.get("tags", []):
            continue  # the parameter table says it better
        if cells and _folds_with(cells[-1], cell):
            cell["source"] = f"{cells.pop()['source']}\n\n{cell['source']}"
        cells.append(cell)
        outputs = cell.get("outputs", [])
        first = next((i for i, output in enumerate(outputs) if notebooks.about(output)), len(outputs))
        for output in outputs[first:]:
            about = notebooks.about(output)
            # The source is dropped, but a cell without one would be, too.
            metadata: dict[str, Any] = {"tags": ["remove-input"]}
            if about:
                metadata["mystnb"] = {
                    "image": {"alt": about["alt"], "classes": about["class"]},
                    "figure": {"caption": about["caption"], "name": about["name"]},
                }
            own = nbformat.v4.new_code_cell("# shown", outputs=[output], execution_count=0, metadata=metadata)
            cells.append({**own, "id": f"{cell['id']}-{len(cells)}"})
        if "outputs" in cell:
            cell["outputs"] = outputs[:first]
    lead = "\n\n".join(leads)
    if lead:
        cells.insert(1, {**nbformat.v4.new_markdown_cell(lead), "id": "lead"})
    notebook.cells = [nbformat.from_dict(cell) for cell in cells]
    return nbformat.writes(notebook).encode(), lead


def _folds_with(first, second):
    """Return whether two cells of code are folded away with nothing shown between them: one fold is enough."""
    folded = (
        cell["cell_type"] == "code" and "hide-input" in cell["metadata"].get("tags", []) for cell in (first, second)
    )
    return all(folded) and not first["outputs"]


def _figures(path):
    """Return {name: (MyST that shows it, SVG)} of the figures of an executed notebook."""
    found = {}
    for cell in notebooks.read(path).cells:
        for output in cell.get("outputs", []):
            about, svg = notebooks.about(output), output.get("data", {}).get("image/svg+xml")
            if about and svg:
                head = f"```{{figure}} /book/figures/{about['name']}.svg\n:alt: {outside.attribute(about['alt'])}"
                shown = f"{head}\n:class: {about['class']}\n\n{about['caption']}\n```"
                found[about["name"]] = shown, svg.encode()
    return found


def _mathjax():
    """Return MathJax as one file, from the package that carries it: TeX to SVG, without the speech engine and menus.

    The parts register themselves with the first, which starts when the script ends. Alphabets in which
    no formula here is written are left out.
    """
    found = {str(file).partition("/mathjax/")[2]: file for file in files("sphinx-mathjax-offline") or ()}
    if missing := [part for part in MATHJAX_PARTS if part not in found]:
        raise BookError(f"sphinx-mathjax-offline does not carry {', '.join(missing)}")
    parts = [Path(str(found[part].locate())).read_text(encoding="utf-8") for part in MATHJAX_PARTS]
    whole = ALPHABET.sub(r"\1{}", "\n".join(parts))
    return GLYPH.sub(lambda glyph: "" if int(glyph[1]) in UNUSED else glyph[0], whole).encode()


def _synchronise(folder, wanted):
    """Make `folder` hold exactly the wanted files; those that are equal keep their times, so little is rebuilt."""
    for path in sorted(folder.rglob("*"), reverse=True):
        is_wanted, is_link = path.relative_to(folder).as_posix() in wanted, path.is_symlink()
        if path.is_dir() and not is_link:
            kept = not is_wanted and any(path.iterdir())
        else:
            kept = is_wanted and path.is_file() and not is_link
        if not kept:
            _remove(path)
    for name, content in wanted.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            checkpoints.write_atomic(path, content)
