"""A folder of images whose classes have names that would be markup, code or formulae, from the files to the browser."""

import json
import os
import subprocess
import sys

import nasty
import nbformat
import numpy as np
import pytest
from PIL import Image

from sparselib import experiments
from sparselib.repro import book, notebooks, project
from sparselib.repro import parameters as typed
from sparselib.repro.book import status

pytest.importorskip("jupyter_book")
PAGE = experiments.PAGES["own_data"]
MORE = """\
from sparselib.outside import code, markdown

names = test.classes
run.lead("LEAD " + "; ".join(map(markdown, names)))
run.say("SAID " + "; ".join(map(markdown, names)) + " " + " ".join(map(code, names)))
run.grouped({f"GROUP {names[0]}": [names]}, names)
run.fold(f"FOLD {names[0]}", [names], names)
run.explorer("none", {"classes": names}, "; ".join(names))
print("PRINTED", *names)
fig, axis = plt.subplots()
axis.bar(names, range(len(names)))
axis.set(title=names[0], xlabel=names[4], yscale="log")
axis.plot([1, 2], label=names[3])
axis.legend()
caption = "CAPTION " + "; ".join(map(markdown, names))
run.show(plots.Drawing(fig, "; ".join(names)), name="fig-names", caption=caption)
"""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """The rendered page of such a folder: its path, and the executed notebook."""
    home = tmp_path_factory.mktemp("names")
    images, rng = home / f"images {nasty.FILES[0]} $x$ `a`", np.random.default_rng(0)
    for split in ("train", "test"):
        for number, name in enumerate(nasty.FILES):
            folder = images / split / name
            folder.mkdir(parents=True)
            for i in range(12 if split == "train" else 4):
                values = rng.integers(0, 256, (8, 8)).astype(np.uint8)
                values[number % 8] = 255
                Image.fromarray(values).save(folder / f"{i}.png")
    template = notebooks.read_template(PAGE)
    tags = {"tags": ["figure"]}
    more = nbformat.v4.new_code_cell(MORE, metadata=tags, id="more")
    at = next(i for i, cell in enumerate(template.cells) if "run.table" in cell.source)
    template.cells.insert(at + 1, more)
    (home / "templates").mkdir()
    nbformat.write(template, home / "templates" / "own_data.ipynb")
    given = {"dataset": f"folder:{images}", "held_out": [], "epochs": 0, "width": 2, "batch_size": 8}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSELIB_STORE", str(home / "store"))
        patch.setattr(notebooks, "template", lambda model: home / "templates" / f"{model.notebook}.ipynb")
        patch.setattr(book, "executed", lambda name: home / f"{name}.ipynb")
        # This page alone: what prose asks for of others is left out.
        patch.setattr(book, "_led", lambda name, text, leads: book.FIGURE.sub("", book.LEAD.sub("", text)).encode())
        patch.setattr(status, "tables", lambda pages, *more, tables=status.tables: tables({"own_data": PAGE}, *more))
        executed = notebooks.execute(typed.resolve(PAGE, given), home / "own_data.ipynb", book=False)
        wanted = book._wanted(book._sources({"own_data": PAGE}), {"own_data": PAGE})
    wanted["book/_toc.yml"] = b"format: jb-book\nroot: book/rerun/own_data\nchapters:\n  - file: book/rerun/status\n"
    book._synchronise(home / "source", wanted)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(home / "source")]
    command += ["--toc", str(home / "source" / "book" / "_toc.yml"), "--path-output", str(home), "--keep-going"]
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(project.root())}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=home / "source", env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return home / "_build" / "html" / "book" / "rerun" / "own_data.html", executed, done.stderr


def _outputs(executed, mime):
    return ["".join(o["data"][mime]) for c in executed.cells for o in c.get("outputs", []) if mime in o.get("data", {})]


def test_the_names_are_shown_as_they_are_and_run_nothing(rendered, chromium):
    path, _, _ = rendered
    page = chromium.new_context(offline=True).new_page()
    said = []
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    page.evaluate("window.MathJax?.startup?.promise")
    page.wait_for_timeout(300)
    assert not said and page.title() != "run"
    own = page.locator("article script:not([type])").all_text_contents()
    assert [text for text in own if not text.startswith("kernelName")] == []  # that is the theme's
    assert page.locator("article img[onerror], article a[href^=javascript]").count() == 0
    for mark in ("LEAD", "SAID", "CAPTION"):
        shown = page.locator(f"main p:has-text('{mark}'), main figcaption:has-text('{mark}')").first.text_content()
        assert "; ".join(nasty.FILES_SORTED) in shown, mark
    table = page.locator("main table:has-text('fingerprint')").first
    assert table.locator("tbody tr").count() == 2
    assert ", ".join(nasty.FILES_SORTED) == table.locator("tbody tr").first.locator("td").nth(3).text_content()
    assert page.locator("main table.grouped td").all_text_contents() == nasty.FILES_SORTED
    assert page.locator("main table.grouped th[scope=rowgroup]").text_content() == f"GROUP {nasty.FILES_SORTED[0]}"
    assert page.locator("main details.folded td").all_text_contents() == nasty.FILES_SORTED
    assert page.locator("main .explorer").get_attribute("aria-label") == "; ".join(nasty.FILES_SORTED)
    read = page.locator("main .explorer script").text_content()
    assert json.loads(read) == {"classes": nasty.FILES_SORTED}
    alt = page.locator("main img[alt*='onerror']").first.get_attribute("alt")
    assert all(name in alt for name in nasty.FILES)
    assert page.locator("main mjx-container").count() == page.locator("main span.math").count()  # those of the prose
    page.close()


def test_the_builder_has_nothing_to_complain_of(rendered):
    told = [line for line in rendered[2].splitlines() if "WARNING" in line and "own_data" in line]
    assert not [line for line in told if "unknown document" not in line and "not included" not in line]
