"""What the book makes of executed notebooks and prose, before Jupyter Book sees them."""

import io
import json
import os
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
import toy

from sparselib import experiments
from sparselib.experiments import plots
from sparselib.repro import book, notebooks, page, project, published
from sparselib.repro import parameters as typed
from sparselib.repro.book import status

sys.path.insert(0, str(project.root() / "book" / "_ext"))
import figures  # noqa: E402
import finish  # noqa: E402


def _executed(path, outputs):
    cells = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell("x = 1", outputs=outputs)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def _markdown(text, **metadata):
    return nbformat.v4.new_output("display_data", {"text/markdown": text}, metadata=metadata)


def test_a_lead_stands_under_the_title_and_nowhere_else(tmp_path):
    path = _executed(tmp_path / "a.ipynb", [_markdown("plain"), _markdown("**Answer.**", **{"sparselib-lead": True})])
    content, lead = book._page(path)
    cells = nbformat.reads(content.decode(), as_version=4).cells
    assert lead == "**Answer.**" and [c.source for c in cells] == ["# Title", "**Answer.**", "x = 1"]
    assert [o["data"]["text/markdown"] for o in cells[2].outputs] == ["plain"]
    content, lead = book._page(_executed(tmp_path / "b.ipynb", [_markdown("plain")]))
    assert lead == "" and len(nbformat.reads(content.decode(), as_version=4).cells) == 2


def test_prose_gets_the_leads_that_it_asks_for():
    leads = {"06_verdict": "- **C1**: +1.0", "05_sensnorm": "nothing"}
    text = "Before.\n\n% lead of 06_verdict\n\n100 % lead of steel\n"
    assert book._led("intro.md", text, leads).decode() == text.replace("% lead of 06_verdict\n", "- **C1**: +1.0\n", 1)
    with pytest.raises(book.BookError, match=r"intro\.md asks for the lead of '6', which is no page"):
        book._led("intro.md", "% lead of 6\n", leads)


def _svg(draw):
    fig, axis = plt.subplots(figsize=(4, 3))
    draw(axis)
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg")
    plt.close(fig)
    return buffer.getvalue()


def test_on_a_dark_page_every_colour_of_a_chart_is_seen_and_no_two_are_one():
    pairs = [figures.on_dark(colour) for colour in plots.COLOURS]
    assert len(set(pairs)) == len(pairs)
    for colour in (*pairs, *(figures.on_dark(colour) for colour, *_ in plots.OUTCOMES.values())):
        assert figures.contrast(colour, figures.GROUND) > 4.5
    for colour in ("#000080", "#7f0000", "#123", "#552200"):  # in no palette: the hue stays, and is seen
        assert figures.contrast(figures.on_dark(colour), figures.GROUND) >= 4.5
    assert figures.contrast("#000000", "#ffffff") == pytest.approx(21)


def test_a_dark_drawing_has_light_ink_and_the_ground_of_the_page():
    dark = figures.dark(_svg(lambda axis: axis.plot([0, 1], color="#0173b2")))
    assert f'<svg fill="{figures.INK}"' in dark and "#5fb0ee" in dark
    assert "#ffffff" not in dark and "#0173b2" not in dark and "#000000" not in dark


def test_images_and_heat_maps_stay_as_they_are_with_the_text_upon_them():
    def image(axis):
        axis.imshow([[0.0, 1.0], [1.0, 0.0]], cmap="gray")
        axis.text(0, 0, "black", color="white")
        axis.text(1, 0, "white", color="black")

    def mesh(axis):
        axis.pcolormesh([[0.0, 1.0], [1.0, 0.0]], cmap="gray")
        axis.text(0.2, 0.5, "black", color="white")
        axis.text(1.2, 0.5, "white", color="black")

    for draw in (image, mesh):
        light = _svg(draw)
        dark = figures.dark(light)
        texts = [re.search(rf"<!-- {word} -->.*?style=.fill: (#\w+)", light, re.S) for word in ("black",)]
        assert texts[0] and re.search(r"<!-- black -->.*?fill: #ffffff", dark, re.S)
        assert len(re.findall(r'<g fill="#000000" id="text_', dark)) == 2
        assert re.findall(r"data:image[^\"]*", dark) == re.findall(r"data:image[^\"]*", light)


def test_a_smaller_drawing_keeps_what_scales_its_letters():
    svg = _svg(lambda axis: axis.plot([0, 1]))
    small = figures.smaller(svg)
    assert len(small) < len(svg) and "<!--" not in small
    assert re.findall(r"scale\([^)]*\)", small) == re.findall(r"scale\([^)]*\)", svg)


def test_a_finished_page_has_both_drawings_no_idle_script_and_names_that_are_seen(tmp_path):
    (tmp_path / "a.svg").write_text(_svg(lambda axis: axis.plot([0, 1])), encoding="utf-8")
    text = (
        '<html><head><script src="_static/tex-svg.js"></script></head><body><main><figure>'
        '<img class="chart" src="a.svg" alt="A line from 0 to 1."><figcaption>It rises.</figcaption></figure>'
        '<details><summary aria-label="Toggle hidden content">Code</summary></details>{}</main></body></html>'
    )
    done = finish.finished(text.format(""), tmp_path / "page.html")
    assert done.count('alt="A line from 0 to 1."') == 2 and 'src="a.dark.svg"' in done
    assert (tmp_path / "a.dark.svg").is_file()
    assert "tex-svg" not in done and "aria-label" not in done
    assert "tex-svg" in finish.finished(text.format('<span class="math">x</span>'), tmp_path / "page.html")


def test_a_notebook_to_download_has_its_cells_and_nothing_that_they_showed():
    shown = nbformat.v4.new_output("display_data", {"text/html": "x" * 1000})
    cells = [
        nbformat.v4.new_markdown_cell("# Über"),
        nbformat.v4.new_code_cell("x = 1", outputs=[shown], execution_count=3),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    found = nbformat.reads(finish.to_run(nbformat.writes(notebook)), as_version=4)
    nbformat.validate(found)
    assert [c.source for c in found.cells] == ["# Über", "x = 1"] and found.cells[1].outputs == []
    assert finish.to_run(finish.to_run(nbformat.writes(notebook))) == finish.to_run(nbformat.writes(notebook))


def test_tables_are_numbered_by_page_and_those_without_a_caption_are_not(tmp_path):
    text = (
        "<html><body><main><table><caption>One.</caption></table><table></table><table><caption>"
        '<span class="caption-number">Table 7 </span><span>Two.</span></caption></table></main></body></html>'
    )
    done = finish.BeautifulSoup(finish.finished(text, tmp_path / "page.html", "V."), "html.parser")
    assert [caption.get_text() for caption in done.select("caption")] == ["Table V.1 One.", "Table V.2 Two."]


def test_a_table_with_a_caption_is_a_directive_in_the_book(tmp_path):
    table = {"caption": "What it shows.", "table": "| a |\n| --- |\n| 1 |"}
    output = _markdown(f"*{table['caption']}*\n\n{table['table']}")
    output["metadata"]["sparselib-table"] = table
    content, _ = book._page(_executed(tmp_path / "a.ipynb", [output]))
    shown = nbformat.reads(content.decode(), as_version=4).cells[-1].outputs[0].data["text/markdown"]
    assert shown == f"```{{table}} What it shows.\n\n{table['table']}\n```"


def test_text_of_a_figure_is_large_enough_for_a_phone():
    fig, axis = plt.subplots(figsize=(6, 3))
    small = axis.set_title("small", fontsize=5)
    large = axis.text(0, 0, "large", fontsize=30)
    page._legible(fig)
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", bbox_inches="tight")
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', buffer.getvalue())[1])
    assert small.get_fontsize() * page.PHONE / width >= page.LEAST and large.get_fontsize() == 30
    plt.close(fig)


def _write(notebook, path):
    """Write an executed notebook with its checksum."""
    notebook.metadata[notebooks.SEAL] = ""
    path.write_bytes(notebooks._sealed(nbformat.writes(notebook).encode()))


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Two pages of the book as if they had been run: {name: page}; one has steps, of which none are in the store."""
    monkeypatch.setenv("SPARSELIB_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(book, "executed", lambda name: tmp_path / f"{name}.ipynb")
    pages = {name: experiments.LESSONS[name] for name in ("own_data", "schedules")}
    for name, model in pages.items():
        path = _executed(tmp_path / f"{name}.ipynb", [])
        notebook = nbformat.read(path, as_version=4)
        origin = {"commit": "c0ffee", "machine": project.machine(), "versions": project.versions()}
        about = {"sparselib": notebooks.parts(typed.resolve(model, {})), "sparselib-run": origin}
        notebook.metadata.update(about, papermill={"duration": 12.3})
        _write(notebook, path)
    return pages


def cells(table, page, profile="digits"):
    """Return the cells of the line of a page and profile, without the page's name, of each table that has one."""
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    lines = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    return [line[1:] for line in lines if line[0].endswith(f"/{page}`") and line[1] == profile]


def test_the_status_of_pages_and_of_published_rows(ran, tmp_path, monkeypatch):
    told = status.tables(ran, book.executed)
    assert cells(told, "own_data") == [["digits", "–", "–", "12", "1", "c0ffee", "fresh"]]
    page, rows = cells(told, "schedules")
    assert page[-1] == "fresh"
    table = published.read("digits", "schedules").drop_duplicates("key")
    assert rows[:5] == ["digits", str(len(table)), f"{table['seconds'].sum():.0f}", "3", table["commit"].iloc[0]]
    assert f"Python {project.machine()['python']}" in told and str(tmp_path) not in told

    path = tmp_path / "own_data.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["sparselib"]["template"] = "other"
    nbformat.write(notebook, path)
    assert cells(status.tables(ran, book.executed), "own_data")[0][-1] == "stale: not as it was run"
    _write(notebook, path)
    assert cells(status.tables(ran, book.executed), "own_data")[0][-1] == "stale: template changed"
    monkeypatch.setattr(notebooks, "why_stale", lambda *_: (_ for _ in ()).throw(FileNotFoundError(tmp_path)))
    assert cells(status.tables(ran, book.executed), "own_data")[0][-1] == status.UNKNOWN


def test_of_rows_whose_data_are_not_here_the_status_tells_code_and_versions(monkeypatch):
    def told(changed, versions=None):
        monkeypatch.setattr(published, "code_changed", lambda *_: changed)
        return status._without_data("mnist", experiments.PAGES["07_a_network_of_others"], versions or {"versions": now})

    now = project.versions()
    assert (
        told(False) == "of the code and versions of now; its data are not here to compare"
        and told(None) == status.UNKNOWN
    )
    assert told(True) == "stale: the code behind them changed"
    assert told(False, {"versions": {}}) == f"of other versions of packages; {status.UNKNOWN}"


def test_the_last_campaign_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(project, "results_folder", lambda: tmp_path)
    assert status._campaign() == []
    table = tmp_path / "campaign.csv"
    table.write_text(
        "category,tried,clean,fault,seconds,seed,commit\nkills,9,8,1,5,7,c0ffee\nfiles,3,3,0,1,7,c0ffee\n",
        encoding="utf-8",
    )
    (told,) = status._campaign()
    assert "| kills | 9 | 8 | 1 | 5 | 7 | c0ffee |" in told and "| all | 12 | 11 | 1 | 6 |" in told
    for damage in (b"", b"\xff", b"a,b\n1,x\n", b"a\n1\n"):
        table.write_bytes(damage)
        assert status._campaign() == []


def test_the_table_stands_where_prose_asks_for_it(ran, tmp_path, monkeypatch):
    (tmp_path / "book").mkdir()
    for name in ("explorers.js", "book.css"):
        (tmp_path / "book" / "_static").mkdir(exist_ok=True)
        (tmp_path / "book" / "_static" / name).touch()
    (tmp_path / "_config.yml").touch()
    (tmp_path / "book" / "status.md").write_text("# Status\n\n% status\n\nNot 3 % status.\n", encoding="utf-8")
    monkeypatch.setattr(project, "root", lambda: tmp_path)
    monkeypatch.setattr(status, "tables", lambda pages, executed, fresh: f"{len(pages)} pages")
    monkeypatch.setattr(book.teach, "materials", lambda *_: {})
    wanted = book._wanted(book._sources(ran), ran)
    assert wanted["book/status.md"].decode() == "# Status\n\n2 pages\n\nNot 3 % status.\n"


def test_a_book_is_of_all_that_it_tells_of(ran, tmp_path, monkeypatch):
    library, results = tmp_path / "sparselib", tmp_path / "results"
    monkeypatch.setattr(book, "LIBRARY", library)
    monkeypatch.setattr(project, "results_folder", lambda: results)
    files = [library / "models.py", library / "experiments" / "digits.yml", results / "digits" / "sensnorm.csv"]
    files += [results / "digits" / "sensnorm.json", results / "campaign.csv", tmp_path / "templates" / "page.ipynb"]
    template = notebooks.template
    monkeypatch.setattr(notebooks, "template", lambda model: files[-1])
    seen = {book._digest(book._sources(ran))}
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        for text in ("a", "b"):
            path.write_text(text, encoding="utf-8")
            seen.add(book._digest(book._sources(ran)))
    monkeypatch.setattr(book, "version", lambda name: "9")
    seen.add(book._digest(book._sources(ran)))
    assert len(seen) == 2 + 2 * len(files)
    monkeypatch.setattr(book, "_led", lambda name, text, leads: text.encode())
    monkeypatch.setattr(notebooks, "template", template)
    assert not [name for name in book._wanted(book._sources(ran), ran) if name.startswith(book.UNSEEN)]


def test_the_library_of_the_book_is_the_whole_package_at_work():
    package = Path(experiments.__file__).resolve().parents[1]
    assert package == book.LIBRARY and book._library_first().split(os.pathsep)[0] == str(package.parent)


def test_a_book_that_is_as_it_was_is_not_put_together_again(ran, tmp_path, monkeypatch):
    monkeypatch.setattr(project, "build_folder", lambda: tmp_path / "_build")
    monkeypatch.setattr(book, "_wanted", lambda *_: pytest.fail("put together again"))
    monkeypatch.setattr(book, "_sources", lambda pages: {"a": b"1"})
    mark, index = book._rendered()
    index.parent.mkdir(parents=True)
    index.touch()
    _mark(mark)
    assert book.build(ran) == index


def test_why_a_book_is_stale(ran, tmp_path, monkeypatch):
    monkeypatch.setattr(project, "build_folder", lambda: tmp_path / "_build")
    monkeypatch.setattr(book, "_sources", lambda pages: {"a": b"1"})
    assert book.why_stale(ran) == "not built"
    mark, index = book._rendered()
    index.parent.mkdir(parents=True)
    (index.parent / "page.html").write_text("<p>", encoding="utf-8")
    index.touch()
    assert book.why_stale(ran) == "not built"
    _mark(mark)
    assert book.why_stale(ran) is None
    monkeypatch.setattr(book, "_sources", lambda pages: {"a": b"2"})
    assert book.why_stale(ran) == f"stale: {book.OTHER}"
    monkeypatch.setattr(notebooks, "why_stale", lambda parameters, path: "seeds: 5 → 2")
    assert book.why_stale(ran) == "stale: own_data: seeds: 5 → 2"


def _mark(mark):
    mark.write_text(json.dumps({"sources": book._digest({"a": b"1"}), "built": book._built()}), encoding="utf-8")


def test_whatever_is_changed_in_a_built_book_makes_it_stale_by_name(ran, tmp_path, monkeypatch):
    monkeypatch.setattr(project, "build_folder", lambda: tmp_path / "_build")
    monkeypatch.setattr(book, "_sources", lambda pages: {"a": b"1"})
    mark, index = book._rendered()
    page, kept = index.with_name("page.html"), tmp_path / "_build" / ".doctrees" / "page.doctree"
    for path in (index, page, kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("<p>", encoding="utf-8")
    _mark(mark)
    for path in (page, kept):
        for make in (*toy.ODD, lambda path: path.write_text("<q>", encoding="utf-8"), lambda path: None):
            path.unlink()
            make(path)
            name = path.relative_to(tmp_path / "_build").as_posix()
            assert book.why_stale(ran) == f"stale: {name}: not as it was built"
            book._remove(path)
            path.write_text("<p>", encoding="utf-8")
    page.with_name("more.js").write_text("", encoding="utf-8")
    assert book.why_stale(ran) == "stale: html/more.js: not as it was built"
    page.with_name("more.js").unlink()
    assert book.why_stale(ran) is None
    for damage in ("", "[]", "{}", '{"sources": 1, "built": 2}', '{"sources": "x", "built": {}}'):
        mark.write_text(damage, encoding="utf-8")
        assert book.why_stale(ran)


def test_the_sources_of_the_book_are_made_whatever_lies_in_their_place(tmp_path):
    wanted = {"a/b.md": b"1", "c.md": b"2"}
    for make in toy.ODD:
        book._synchronise(tmp_path, wanted)
        for name in ("c.md", "other"):
            book._remove(tmp_path / name)
            make(tmp_path / name)
        (tmp_path / "a" / "old").mkdir()
        book._synchronise(tmp_path, wanted)
        found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
        assert found == {"a", "a/b.md", "c.md"} and (tmp_path / "c.md").read_bytes() == b"2"


def test_prose_gets_the_figures_that_it_asks_for(tmp_path):
    about = {"name": "fig-x", "caption": "What *it* shows.", "alt": "Two\nlines.", "class": "chart"}
    figure = nbformat.v4.new_output("display_data", {"image/svg+xml": "<svg/>"}, metadata={"sparselib": about})
    shown, svg = book._figures(_executed(tmp_path / "a.ipynb", [_markdown("plain"), figure]))["fig-x"]
    assert svg == b"<svg/>" and ':alt: "Two lines."\n:class: chart\n\nWhat *it* shows.\n```' in shown
    found = book._led("intro.md", "Before.\n\n% figure of a fig-x\n", {"a": "", "a fig-x": shown}).decode()
    assert found == f"Before.\n\n{shown}\n"
    with pytest.raises(book.BookError, match=r"intro\.md asks for the figure 'a fig-y', which is on no page"):
        book._led("intro.md", "% figure of a fig-y\n", {"a": ""})


def test_formulae_of_a_figure_are_set_and_names_with_dollars_are_not():
    fig, axis = plt.subplots()
    axis.set_xscale("log")
    axis.plot([1, 1000], [0, 1])
    texts = [
        axis.text(1, 0, text)
        for text in ("5$ or 6$", "$x$", r"$\nonsense_{$", r"at $\epsilon = 0.1$", "$L_2$", "\x1b[1m")
    ]
    page._verbatim(fig)
    assert [text.get_parse_math() for text in texts] == [False, False, False, True, True, False]
    assert texts[-1].get_text() == r"\x1b[1m"
    fig.canvas.draw()
    assert all(label.get_parse_math() for label in axis.get_xticklabels() if "mathdefault" in label.get_text())
    plt.close(fig)


def test_cells_that_are_folded_away_one_after_the_other_share_a_fold(tmp_path):
    def code(source, *tags, outputs=()):
        return nbformat.v4.new_code_cell(
            source, outputs=list(outputs), execution_count=1, metadata={"tags": list(tags)}
        )

    cells = [
        nbformat.v4.new_markdown_cell("# Title"),
        code("a = 1", "hide-input"),
        code("b = 2", "hide-input", "figure"),
    ]
    cells += [code("c = 3", "hide-input", outputs=[_markdown("told")]), code("d = 4", "hide-input"), code("e = 5")]
    path = tmp_path / "a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    found = nbformat.reads(book._page(path)[0].decode(), as_version=4).cells
    assert [cell.source for cell in found] == ["# Title", "a = 1\n\nb = 2\n\nc = 3", "d = 4", "e = 5"]

    for cell in cells[2:4]:
        cell.metadata["mystnb"] = {"code_prompt_show": "The experiment"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    found = nbformat.reads(book._page(path)[0].decode(), as_version=4).cells
    assert [cell.source for cell in found] == ["# Title", "a = 1", "b = 2\n\nc = 3", "d = 4", "e = 5"]


def test_mathjax_is_one_file_without_the_alphabets_that_no_formula_uses():
    script = book._mathjax().decode()
    assert len(script) < 1.5e6 and "AddPaths)(" in script
    kept = {int(code) for code in re.findall(r'(?<=[{,])(\d+):"', script)}
    assert {0x1D703, 0x2299, 0x221E} <= kept, "θ, ⊙, ∞"
    assert not kept & set(book.UNUSED)
