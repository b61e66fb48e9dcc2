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
