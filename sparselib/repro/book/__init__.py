"""Put the executed notebooks and the prose together and build the Jupyter Book, for reading with no network."""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import Any

import nbformat

from sparselib import checkpoints, outside
from sparselib.repro import kernels, notebooks, project
from sparselib.repro import parameters as typed
from sparselib.repro.book import status, teach
from sparselib.repro.parameters import Parameters
from sparselib.repro.store import locked, sha256

LEAD = re.compile(r"(?m)^% lead of (\S+)$")  # in prose: replaced by what a page says of itself in a few lines
STATUS = re.compile(r"(?m)^% status$")  # in prose: replaced by tables of what was computed, when, and whether it holds
BUILT = ("html", ".doctrees")  # what the builder makes and, next time, builds upon
OTHER = "prose, settings, published results, the library or the builder changed"
LIBRARY = Path(__file__).resolve().parents[2]  # its docstrings are in the book
TOLD = (".py", ".yml", ".csv", ".json")  # the library, profiles, published rows: of these, too, the book tells
UNSEEN = "not in the book/"  # so begin the names of what the book tells of but does not hold
BUILDERS = ("jupyter-book", "sphinx-book-theme", "sphinx-mathjax-offline")
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
    """Return the path of the rendered index page, building the book if anything that it is made from has changed.

    Every warning is an error. `fresh`: names of pages that are known to be. Raises BookError with what Jupyter Book
    says.
    """
    if importlib.util.find_spec("jupyter_book") is None:
        raise BookError('Jupyter Book is not installed: pip install -c constraints.txt -e ".[book]"')
    with locked(project.build_folder() / "book.lock"):
        return _build(pages, fresh)


def _build(pages, fresh):
    folder, sources = project.build_folder() / "source", _sources(pages)
    mark, index = _rendered()
    if (why := _why_not(sources)) is None:
        return index
    _synchronise(folder, _wanted(sources, pages, fresh))
    _remove(mark)
    if why != OTHER:  # what was built is not as it was: nothing of it is built upon
        for name in BUILT:
            _remove(project.build_folder() / name)
    command = [
        *kernels.with_parent("from jupyter_book.cli.main import main; main()"), "build", str(folder),
        "--toc", str(folder / "book" / "_toc.yml"), "--path-output", str(project.root()), "-W", "-n", "--keep-going",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", cwd=folder,
        env={**os.environ, "NO_COLOR": "1", "PYTHONUTF8": "1", "PYTHONPATH": _library_first()},
    )  # fmt: skip
    log = project.build_folder() / "book.log"
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode or not index.is_file():
        told = [line for line in done.stderr.splitlines() if "WARNING" in line or "ERROR" in line or "Error" in line]
        raise BookError("the book does not build:\n" + "\n".join(told[:20]) + f"\n(all of it: {log})")
    _check_pages(index.parent, pages)
    checkpoints.write_atomic(mark, json.dumps({"sources": _digest(sources), "built": _built()}, indent=1).encode())
    return index


def why_stale(pages: Mapping[str, type[Parameters]]) -> str | None:
    """Return why the rendered book is not that of the present sources in the live profile, None when it is."""
    if not all(path.is_file() for path in (*_rendered(), *map(executed, pages))):
        return "not built"
    for name, model in pages.items():
        if why := notebooks.why_stale(typed.resolve(model, {}), executed(name)):
            return f"stale: {name}: {why}"
    why = _why_not(_sources(pages))
    return why and f"stale: {why}"


def _rendered():
    """Return where the digest of the rendered book and its first page lie."""
    return project.build_folder() / "html.digest", project.build_folder() / "html" / "index.html"


def _why_not(made_from):
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
    return None if sources == _digest(made_from) else OTHER


def _built():
    """Return {path in the folder of what is built: checksum} of the rendered book and of what the builder keeps."""
    found, folder = {}, project.build_folder()
    for path in (path for name in BUILT for path in (folder / name).rglob("*")):
        if not path.is_dir() or path.is_symlink():
            found[path.relative_to(folder).as_posix()] = sha256(_content(path))
    return found


def _remove(path):
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _digest(sources):
    parts = (name.encode() + hashlib.sha256(content).digest() for name, content in sorted(sources.items()))
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


def _sources(pages):
    """Return {path: content} of all that the book is made from: prose, pages as run, the library, what status tells of.

    Not the store, nor whether data are at hand: what status says of these is how it was when the book was built.
    """
    root = project.root()
    beside = ("_config.yml", *(name for name in BESIDE if (root / name).is_file()))
    found = {name: checkpoints.read_bytes(root / name) for name in beside}
    for path in sorted((root / "book").rglob("*")):
        if path.is_file() and path.suffix not in (".pyc", ".ipynb"):
            found[path.relative_to(root).as_posix()] = path.read_bytes()
    for name, model in pages.items():
        found[f"{model.folder}/{name}.ipynb"] = checkpoints.read_bytes(executed(name))
        template = notebooks.template(model)  # students get it, and status tells of a page that was run before it
        found[f"{UNSEEN}{model.folder}/{template.name}"] = _content(template)
    for folder in (LIBRARY, project.results_folder()):
        for path in sorted(path for path in folder.rglob("*") if path.suffix in TOLD):
            found[f"{UNSEEN}{folder.name}/{path.relative_to(folder).as_posix()}"] = _content(path)
    for name in BUILDERS:
        found[f"{UNSEEN}{name}"] = _version(name).encode()
    return found


def _content(path):
    """Return what a file holds, or why it cannot be read: what is damaged is told elsewhere."""
    try:
        return checkpoints.read_bytes(path)
    except OSError as error:
        return str(error.strerror).encode()


def _version(name):
    """Return the version of a package, "none" where it is not installed: what needs it will say so."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _wanted(sources, pages, fresh=()):
    """Return {path in the book's source: content}, from `_sources`."""
    wanted = {name: content for name, content in sources.items() if not name.startswith(UNSEEN)}
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
            wanted[name] = STATUS.sub(lambda _: status.tables(pages, executed, fresh), led).encode()
    for suffix, whole in ((".js", "explorers.js"), (".css", "book.css")):
        pieces = [name for name in wanted if name.startswith(f"{STATIC}/explorers/") and name.endswith(suffix)]
        wanted[f"{STATIC}/{whole}"] = b"\n".join([wanted[f"{STATIC}/{whole}"], *map(wanted.pop, pieces)])
    wanted[f"{STATIC}/{MATHJAX}"] = _mathjax()
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
            cell["outputs"] = [_captioned(output) for output in cell.outputs if output not in found]
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


def _captioned(output):
    """Return an output; of a table with a caption as the directive whose caption the book sets and numbers."""
    if told := output.get("metadata", {}).get("sparselib-table"):
        output["data"]["text/markdown"] = outside.captioned(told["caption"], told["table"])
    return output


def _folds_with(first, second):
    """Return whether two cells of code are folded away alike with nothing shown between them: one fold is enough."""
    folded = (
        cell["cell_type"] == "code" and "hide-input" in cell["metadata"].get("tags", []) for cell in (first, second)
    )
    alike = first["metadata"].get("mystnb") == second["metadata"].get("mystnb")  # what the fold is called
    return all(folded) and alike and not first["outputs"]


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
