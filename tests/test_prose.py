"""No result is written by hand: what notebooks and pages say in numbers is computed."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
    *(path for folder in (".", "rerun", "back") for path in sorted((ROOT / "book" / folder).glob("*.md"))),
    *sorted((ROOT / "book").rglob("*.ipynb")),
]

# What is no result: code, formulas, roles and links, and the settings that prose may name.
NOT_PROSE = [
    r"```.*?```", r"`[^`]*`", r"\$\$.*?\$\$", r"\$[^$]*\$", r"\{[\w:-]+\}`[^`]*`", r"\]\([^)]*\)", r"https?://\S+",
    r"95 %", r"\b5 % of the clean test images", r"a probability of 80 %", r"<!--.*?-->",
]  # fmt: skip
RESULT = re.compile(
    r"\d[\d.,]*\s*(?:%|percent\b|points?\b|times (?:as|faster|more|less)|×\s*(?:faster|slower|as)|± )|"
    r"\b(?:AUROC|AUPR|FPR95|accuracy)(?: is| of| reaches|:)? (?:about )?\d|(?<![\d.\w])0?\.\d{2,}(?!\d*\])",
    re.IGNORECASE,
)


def bare_results(text):
    """Return what looks like a result written by hand in Markdown."""
    for pattern in NOT_PROSE:
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    return [found.group(0) for found in RESULT.finditer(text)]


def _prose(path):
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_prose_holds_no_bare_result(path):
    assert bare_results(_prose(path)) == []


def test_the_search_finds_results_and_leaves_settings_alone():
    for text in (
        "SensNorm reaches 93.4 %.",
        "an AUROC of 0.91",
        "it is 3 times faster",
        "a gain of 12 points",
        "0.953",
    ):
        assert bare_results(text), text
    for text in ("`eps=0.10`", "$p = 0.975$", "8×8 images", "see {numref}`fig-0.12`", "five seeds", "2022"):
        assert not bare_results(text), text


GREEK = r"\\(?:alpha|gamma|[dD]elta|varepsilon|theta|kappa|lambda|mu|pi|rho|sigma|tau|varphi|Phi)(?![a-zA-Z])"
NAMES = r"\\(?:operatorname|mathrm|text|begin|end|mathcal)\s*(?:\{[^}]*\}|\w)"  # words within formulas
COUNTERS = set("ijklnt")  # said where they are used, as the notation says
NOTATION = ROOT / "book" / "back" / "notation.md"


def symbols(markdown):
    """Return the letters of the formulas of a text; not those that count, nor e of powers and L of norms and loss."""
    found = set()
    for formula in map("".join, re.findall(r"(?s)\$\$(.+?)\$\$|\$(?!\s)([^$\n]+?)\$", markdown)):
        formula = re.sub(NAMES, " ", formula)
        found |= {*re.findall(GREEK, formula), *re.findall(r"[A-Za-z]", re.sub(r"\\[a-zA-Z]+", " ", formula))}
    return found - COUNTERS - {"e", "L"}


def test_each_symbol_is_in_the_notation_once_and_on_no_page_before_the_one_that_explains_it():
    chapters = re.findall(
        r"- file: ((?:book/concepts|notebooks)/\w+)", (ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")
    )
    table = re.findall(r"(?m)^\| (\$[^|]+) \| [^|]+ \| \{doc\}`/([\w/]+)` \|$", NOTATION.read_text(encoding="utf-8"))
    explained = [(letter, page) for symbol, page in table for letter in symbols(symbol)]
    assert len({letter for letter, _ in explained}) == len(explained) > 30
    places = {letter: chapters.index(page) for letter, page in explained}
    for number, page in enumerate(chapters):
        used = symbols(_prose(ROOT / f"{page}.ipynb"))
        assert used <= set(places), (page, used - set(places))
        assert not {letter for letter in used if places[letter] > number}, page
