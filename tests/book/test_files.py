"""The files of the rendered book, read without a browser."""

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

bs4 = pytest.importorskip("bs4")


@cache
def _soup(path):
    return bs4.BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@cache
def _anchors(path):
    return {node["id"] for node in _soup(path).select("[id]")} | {a["name"] for a in _soup(path).select("a[name]")}


def _broken(page, html):
    for node in _soup(page).select("a[href], link[href], script[src], img[src]"):
        link = urlsplit(node.get("href") or node.get("src"))
        if link.scheme or link.netloc or (node.name == "link" and "search" in node.get("rel", [])):
            continue
        target = (page.parent / unquote(link.path)).resolve() if link.path else page
        inside = target.is_file() and target.is_relative_to(html)
        if not inside or (
            link.fragment and target.suffix == ".html" and unquote(link.fragment) not in _anchors(target)
        ):
            yield link.geturl()


def test_no_link_and_no_anchor_is_broken(pages, html):
    assert {page.name: found for page in pages if (found := list(_broken(page, html)))} == {}


def test_every_image_says_what_it_shows(pages):
    for page in pages:
        for image in _soup(page).select("main img"):
            alt = image.get("alt", "")
            assert len(alt) >= 30 and " " in alt and not re.search(r"\.(svg|png|jpe?g)$", alt), (page.name, alt)


def test_figures_count_by_page_and_have_captions(pages, html):
    for page in pages:
        numbers = [node.get_text().strip() for node in _soup(page).select("main figcaption .caption-number")]
        assert len(numbers) == len(_soup(page).select("main figure:has(img)")), page.name
        assert len(set(numbers)) == len(numbers), page.name
        prefix = {number.split()[1].rpartition(".")[0] for number in numbers}
        assert len(prefix) <= 1, page.name
        assert [int(number.rpartition(".")[2].split()[-1]) for number in numbers] == [*range(1, len(numbers) + 1)]


def test_references_are_called_by_authors_and_year(html):
    labels = [
        node.get_text().strip("[]") for node in _soup(html / "book" / "references.html").select(".citation .label")
    ]
    assert labels and all(re.search(r"[A-Za-z].*\d{4}[a-z]?$", label) for label in labels), labels[:3]


def test_the_book_is_smaller_than_forty_megabytes(html):
    assert sum(path.stat().st_size for path in Path(html).rglob("*") if path.is_file()) < 40e6
