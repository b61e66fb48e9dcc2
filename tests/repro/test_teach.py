"""What teachers take along: plans that fill their time, notebooks without solutions, slides that need no network."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from sparselib import experiments
from sparselib.repro import book
from sparselib.repro import parameters as typed
from sparselib.repro.book import teach

ROOT = Path(__file__).resolve().parents[2]
PLANS = (ROOT / "book" / "teach" / "plans.md").read_text(encoding="utf-8")
TAUGHT = teach.plans({"book/teach/plans.yml": (ROOT / "book" / "teach" / "plans.yml").read_bytes()})
CHAPTERS = [*sorted((ROOT / "book" / "concepts").glob("*.ipynb")), *sorted((ROOT / "notebooks").glob("0*.ipynb"))]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a: [", "plans.yml: expected the node content"),
        (b"a: {title: A, chapters: []}", "plans.yml: must hold a title, chapters and a claim"),
        (b"- a", "plans.yml: must hold"),
        (b"\xff", "plans.yml: must hold"),
    ],
)
def test_plans_that_cannot_be_read_are_told_in_one_line(content, told):
    with pytest.raises(typed.ParameterError, match=told) as error:
        teach.plans({"book/teach/plans.yml": content})
    assert "\n" not in str(error.value)


def test_every_plan_takes_ninety_minutes_and_asks_without_answering():
    plans = re.split(r"(?m)^## [A-Z]: ", PLANS)[1:]
    assert [plan.splitlines()[0] for plan in plans] == [title for title, _, _ in TAUGHT.values()]
    for plan, (title, chapters, claim) in zip(plans, TAUGHT.values(), strict=True):
        assert sum(int(n) for n in re.findall(r"(?m)^\| (\d+) \|", plan)) == 90
        assert all(name in experiments.PAGES and f"{name}>`" in plan for name in (*chapters, claim))
        quiz = teach.exit_quiz(PLANS, title)
        assert quiz.startswith("1. ") and "4. " in quiz and "Answers" not in quiz


def test_each_student_notebook_is_among_the_materials():
    text = (ROOT / "book" / "teach" / "materials.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"/book/teach/student/(\w+)\.ipynb", text)) == sorted(path.stem for path in CHAPTERS)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_no_solution_is_in_a_student_notebook(path):
    template = nbformat.read(path, as_version=4)
    solutions = [c.source for c in template.cells if "solution" in c.metadata.get("tags", [])]
    others = {line.strip() for c in template.cells if c.source not in solutions for line in c.source.splitlines()}
    told = {line.strip() for text in solutions for line in text.splitlines()} - others
    told -= {"from sparselib.experiments.lessons import check"}  # in each cell to answer in
    made = teach.student(template)
    nbformat.validate(made)
    text = "\n".join(c.source for c in made.cells)
    assert not [line for line in told if len(line) > 12 and line in text]
    answers = [c.source for c in made.cells if "answer" in c.metadata["tags"]]
    asked = [name for source in solutions for name in teach.ASKED.findall(source)]
    assert len(answers) == len(solutions) and [n for a in answers for n in teach.ASKED.findall(a)] == asked
    prose = "\n".join(c.source for c in made.cells if c.cell_type == "markdown")
    assert "{admonition}" not in prose and "{doc}" not in prose and ":class: dropdown" not in prose


CHAPTER = """# A chapter

````{admonition} Goals
:class: goals

Tell $\\theta_1$ from $\\theta_2$, see {doc}`detection`.
````

```{admonition} The guess was wrong
:class: dropdown

Secret.
```
"""
SVG = (
    '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><g id="a"/>\n\n'
    '<use href="#a"/></svg>'
)
SCORES = '{"detectors":{"MSP":{"id":[0,1,2],"ood":[1,2,3]}}}'
PIECE = (
    '<div class="explorer" data-explorer="threshold"><p class="fallback">x</p>'
    f'<script type="application/json">{SCORES}</script></div>'
)


def test_references_are_told_in_words():
    told = teach.plain(
        "FGSM {cite}`goodfellow2015, lee2018b` of {cite:t}`cohen2019`, see {doc}`/notebooks/06_verdict`."
    )
    assert told == "FGSM (Goodfellow 2015, Lee 2018b) of Cohen 2019, see *verdict*."
    assert teach.plain("Look. {numref}`fig-x` and {numref}`fig-y`.") == "Look. The figure and the figure."


def _chapter():
    about = {"name": "fig-x", "caption": "What *it* shows.", "alt": "Two <lines>.", "class": "chart"}
    outputs = [
        nbformat.v4.new_output("display_data", {"image/svg+xml": SVG}, metadata={"sparselib": about}),
        nbformat.v4.new_output("display_data", {"text/html": PIECE}),
    ]
    cells = [nbformat.v4.new_markdown_cell(CHAPTER), nbformat.v4.new_code_cell("x = 1", outputs=outputs)]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.mark.browser
def test_slides_open_offline_and_turn_by_arrow_keys(tmp_path, chromium):
    static = {f"book/_static/{n}": (ROOT / "book" / "_static" / n).read_bytes() for n in ("explorers.js", "book.css")}
    static["book/_static/explorers.js"] += (ROOT / "book/_static/explorers/threshold.js").read_bytes()
    static["book/_static/tex-svg.js"] = book._mathjax()
    slides = list(teach.of_chapter(_chapter()))
    assert [name for name, _ in slides] == ["A chapter: you will be able to", "A chapter", "A chapter: move it"]
    (tmp_path / "slides.html").write_text(teach.deck("Test", slides, static), encoding="utf-8")
    page, errors, asked = chromium.new_context(offline=True).new_page(), [], []
    page.set_default_timeout(120_000)
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("request", lambda r: asked.append(r.url))
    page.goto((tmp_path / "slides.html").as_uri())
    page.wait_for_selector("mjx-container")
    assert page.locator("section.on h2").inner_text() == "A chapter: you will be able to"
    assert page.locator("#count").inner_text() == "1 / 3"
    page.keyboard.press("ArrowRight")
    assert page.locator("section.on svg[role=img]").get_attribute("aria-label") == "Two <lines>."
    page.keyboard.press("End")
    slider = page.locator("section.on input[type=range]").first
    before = slider.input_value()
    slider.focus()
    page.keyboard.press("ArrowRight")  # moves the slider, not the slides
    assert slider.input_value() != before and page.locator("#count").inner_text() == "3 / 3"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Home")
    assert page.locator("#count").inner_text() == "1 / 3"
    assert "Secret" not in page.content() and not errors
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    pdf = page.pdf(format="A4", landscape=True)
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 3  # one slide a page


@pytest.mark.browser
def test_the_handout_prints_on_one_page(tmp_path, chromium):
    shutil.copytree(ROOT / "book", tmp_path / "book", ignore=shutil.ignore_patterns("*.ipynb"))
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    (tmp_path / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (tmp_path / "book" / "_static" / book.MATHJAX).write_bytes(book._mathjax())
    (tmp_path / "book" / "_toc.yml").write_text("format: jb-book\nroot: book/teach/handout\n", encoding="utf-8")
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(tmp_path)]
    done = subprocess.run(
        [*command, "--toc", str(tmp_path / "book" / "_toc.yml")], capture_output=True, encoding="utf-8", cwd=tmp_path
    )
    made = tmp_path / "_build" / "html" / "book" / "teach" / "handout.html"
    assert made.is_file(), done.stderr[-2000:]
    page = chromium.new_context(offline=True).new_page()
    page.set_default_timeout(120_000)
    page.goto(made.as_uri())
    page.wait_for_selector("mjx-container")
    pdf = page.pdf(format="A4", print_background=True)
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1


def test_the_card_is_of_the_size_that_sites_ask_for():
    content = (ROOT / "book" / "_static" / "card.png").read_bytes()
    width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and (width, height) == (1200, 630) and len(content) < 100_000
