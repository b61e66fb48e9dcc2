"""The rendered book, a browser to open it in, and what the browser sees of each page.

The book is that of _build/html, rendered anew where its notebooks have been executed since; or that of the folder
SPARSELIB_BOOK. Without one the tests are skipped, unless SPARSELIB_TEST_BOOK=1 says that there must be one.
"""

import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import filelock
import pytest

from sparselib import experiments
from sparselib.repro import book as builder

COLOURS = ["color-contrast", "link-in-text-block"]  # the slowest rules; the theme matters to them, the width does not
NAMES = {"label-content-name-mismatch": {"enabled": True}}
FIRST = "document.querySelectorAll('section > dl.py:nth-of-type(n + 4)').forEach(node => node.remove())"


@pytest.fixture(scope="session")
def html(tmp_path_factory):
    """The folder of the rendered book."""
    if folder := os.environ.get("SPARSELIB_BOOK"):
        return Path(folder).resolve()
    lacking = [name for name in experiments.PAGES if not builder.executed(name).is_file()]
    if lacking:
        told = f"no book: {len(lacking)} notebooks have not been executed (make book)"
        (pytest.fail if os.environ.get("SPARSELIB_TEST_BOOK") == "1" else pytest.skip)(told)
    with filelock.FileLock(tmp_path_factory.getbasetemp().parent / "book.lock"):
        return builder.build(experiments.PAGES).parent


@pytest.fixture(scope="session")
def pages(html):
    """Every page that a reader can open."""
    found = [
        p for p in sorted(html.rglob("*.html")) if "_static" not in p.parts and "<main" in p.read_text(encoding="utf-8")
    ]
    assert len(found) > 5
    return found


@pytest.fixture(scope="session")
def axe(tmp_path_factory, pytestconfig):
    """The script of axe-core, fetched once by npm."""
    folder = pytestconfig.cache.mkdir("axe-core")
    with filelock.FileLock(tmp_path_factory.getbasetemp().parent / "axe.lock"):
        if not (folder / "axe.min.js").is_file():
            npm = shutil.which("npm") or pytest.skip("needs npm, to fetch axe-core")
            command = [npm, "pack", "axe-core@4.11", "--pack-destination", str(folder), "--silent"]
            done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)
            if done.returncode:
                pytest.skip(f"npm could not fetch axe-core: {done.stderr.strip()[:200]}")
            with tarfile.open(folder / done.stdout.split()[-1]) as archive:
                (folder / "axe.min.js").write_bytes(archive.extractfile("package/axe.min.js").read())
    return (folder / "axe.min.js").read_text(encoding="utf-8")


@dataclass
class Seen:
    """What a browser saw of one page."""

    path: Path
    asked: list = field(default_factory=list)  # addresses
    errors: list = field(default_factory=list)
    violations: list = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    weight: int = 0  # of all files that it asked for but MathJax, in bytes


@pytest.fixture(scope="session")
def visit(chromium, pages, axe):
    """Return a function that opens every page at a width, in the light and then the dark theme: two lists of Seen.

    `look(page)` gives the facts of each. Then all rules of axe are applied in the light, in the dark those on colours;
    without `colours` all others, in the light. Of the many entries of a module it sees the first three.
    """

    def visited(width, look, colours=True):
        others = dict.fromkeys(COLOURS, {"enabled": colours})
        rules = {"light": {"rules": NAMES | others}, "dark": {"runOnly": COLOURS} if colours else None}
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme="light", offline=True)
        context.add_init_script("localStorage.setItem('mode', 'light'); localStorage.setItem('theme', 'light')")
        found = {"light": [], "dark": []}
        for path in pages:
            page, asked, errors = context.new_page(), [], []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.on("requestfailed", lambda request, errors=errors: errors.append(f"failed: {request.url}"))
            page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            page.on("console", lambda m, errors=errors: errors.append(m.text) if m.type == "error" else None)
            page.set_default_timeout(120_000)  # on a busy machine
            page.goto(path.as_uri() + ("?q=sparsity" if path.name == "search.html" else ""))
            page.evaluate("window.MathJax?.startup?.promise")
            for theme in found:
                if theme == "dark":
                    page.evaluate("Object.assign(document.documentElement.dataset, {theme: 'dark', mode: 'dark'})")
                    page.add_style_tag(content="* { transition: none !important; }")
                seen = Seen(path, asked, errors, facts=look(page))
                if theme == "light":
                    seen.weight = _bytes(asked)
                    page.evaluate(FIRST)
                    page.evaluate(axe)
                seen.violations = _violations(page, rules[theme]) if rules[theme] else []
                found[theme].append(seen)
            page.close()
        context.close()
        return found

    return visited


def _violations(page, rules):
    """Return what axe complains of under these rules, a line each."""
    said = page.evaluate("rules => axe.run({resultTypes: ['violations'], preload: false, ...rules})", rules)
    return [f"{v['id']} ({v['impact']}), {len(v['nodes'])}: {v['nodes'][0]['html'][:160]}" for v in said["violations"]]


def _bytes(asked):
    """Return the bytes of all files among these addresses."""
    own = {url.split("?")[0].split("#")[0].removeprefix("file://") for url in asked if url.startswith("file:")}
    return sum(Path(name).stat().st_size for name in own)


@pytest.fixture(scope="session")
def told(html):
    """Return a function: {page: complaint} of the pages that have one."""

    def complaints(seen, what):
        return {str(one.path.relative_to(html)): found for one in seen if (found := what(one))}

    return complaints


@pytest.fixture
def light(both):
    """What was seen in the light at the width of the module, which has the fixture `both`."""
    return both["light"]


@pytest.fixture
def dark(both):
    return both["dark"]
