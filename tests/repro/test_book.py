"""What the book makes of executed notebooks and prose, before Jupyter Book sees them."""

import nbformat
import pytest

from sparselib.repro import book


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


def test_prose_gets_the_figures_that_it_asks_for(tmp_path):
    about = {"name": "fig-x", "caption": "What *it* shows.", "alt": "Two\nlines.", "class": "chart"}
    figure = nbformat.v4.new_output("display_data", {"image/svg+xml": "<svg/>"}, metadata={"sparselib": about})
    shown, svg = book._figures(_executed(tmp_path / "a.ipynb", [_markdown("plain"), figure]))["fig-x"]
    assert svg == b"<svg/>" and ":alt: Two lines.\n:class: chart\n\nWhat *it* shows.\n```" in shown
    found = book._led("intro.md", "Before.\n\n% figure of a fig-x\n", {"a": "", "a fig-x": shown}).decode()
    assert found == f"Before.\n\n{shown}\n"
    with pytest.raises(book.BookError, match=r"intro\.md asks for the figure 'a fig-y', which is on no page"):
        book._led("intro.md", "% figure of a fig-y\n", {"a": ""})
