"""Text from outside shows itself, whatever it holds, and does nothing."""

import nasty
import pytest
from bs4 import BeautifulSoup
from docutils.parsers.rst.directives.images import Figure
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.directives import parse_directive_text
from myst_parser.parsers.mdit import create_md_parser

from sparselib import outside


def _read(markdown):
    """What the book's Markdown parser, with all that the book switches on, and plain Markdown make of a text."""
    extensions = {"amsmath", "colon_fence", "deflist", "dollarmath", "smartquotes", "substitution"}
    config = MdParserConfig(enable_extensions=extensions)
    for parser in (create_md_parser(config, RendererHTML), MarkdownIt("gfm-like", {"linkify": False})):
        yield BeautifulSoup(parser.render(markdown), "html.parser")


def _seen(text):
    return " ".join(outside.visible(text).split())


@pytest.mark.parametrize("text", nasty.ALL)
def test_nothing_unseen_is_left(text):
    shown = outside.visible(text)
    assert all(sign.isprintable() or sign == "\n" for sign in shown)
    assert shown == text if text.isprintable() else len(shown) >= len(text)


@pytest.mark.parametrize("text", nasty.ALL)
def test_markdown_shows_the_text_and_nothing_else(text):
    for soup in _read(f"Before {outside.markdown(text)} after."):
        (paragraph,) = soup.find_all(True)
        assert paragraph.get_text() == f"Before {_seen(text)} after."
    for soup in _read(f"a: {outside.code(text)}"):
        assert [tag.name for tag in soup.find_all(True)] == ["p", "code"] or not text
        assert not text or soup.code.get_text() == _seen(text)


@pytest.mark.parametrize("text", nasty.ALL)
def test_a_table_shows_the_text_and_stays_a_table(text):
    for soup in _read(outside.table(["name", "n"], [[text, 1], ["**so**", "`so`"]])):
        first, strong, code, last = [soup.find_all("td")[i] for i in (0, 2, 3, -1)]
        assert first.get_text() == _seen(text) and not first.find(True) and len(soup.find_all("td")) == 4
        assert strong.strong.get_text() == "so" and code.code.get_text() == "so" and last is code


@pytest.mark.parametrize("text", nasty.ALL)
def test_attributes_and_tags_show_the_text(text):
    found = parse_directive_text(Figure, "x.svg", f":alt: {outside.attribute(text)}\n\nCaption")
    assert found.options["alt"] == _seen(text) and not found.warnings
    soup = BeautifulSoup(f'<p title="{outside.tags(text)}">{outside.tags(text)}</p>', "html.parser")
    assert soup.p["title"] == soup.p.get_text() == outside.visible(text) and len(soup.find_all(True)) == 1
