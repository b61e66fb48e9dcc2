"""What teachers take from the book, made from its pages themselves: notebooks without solutions, and slides.

Slides are one file each, with figures, interactive pieces and MathJax inside, so that they need no network.
"""

import html
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import yaml

from sparselib.outside import problem, read_yaml
from sparselib.repro import notebooks
from sparselib.repro.parameters import ParameterError, Parameters

FOLDER = "book/teach"
BOX = re.compile(r"(?ms)^(`{3,}|:{3,})\{admonition\} ([^\n]*)\n:class: ([^\n]*)\n(.*?)\n\1[ ]*$")
ROLES = [  # MyST that is Markdown to nobody else, and what stands for it
    (r"\{doc\}`([^`<]+?) *<[^`>]+>`", r"\1"),
    (r"\{doc\}`/?(?:\w+/)*(?:\d\d_)?([^`]+)`", lambda found: f"*{found[1].replace('_', ' ')}*"),
    (r"\{(?:numref|ref)\}`[^`]+`", "the figure"), (r"\{cite:t\}`([^`]+)`", lambda found: _cited(found[1])),
    (r"\{cite(?::\w)?\}`([^`]+)`", lambda found: f"({_cited(found[1])})"),
    (r"\{[\w:-]+\}`([^`]+)`", r"`\1`"),
]  # fmt: skip
FIRST = re.compile(r"(?:\A|(?<=\n\n)|(?<=[.?!] ))the figure")  # of a sentence
ASKED = re.compile(r"check\(\s*\"([\w-]+)\"")


def materials(pages: Mapping[str, type[Parameters]], executed: Callable[[str], Path], static: Mapping[str, bytes]):
    """Return {path in the book's source: content}: a notebook without solutions of each page, slides of each plan.

    Args:
        executed: where the executed notebook of a page lies.
        static: {path: content} of the book: its scripts, and the plans with their page.
    """
    made = {}
    for name, model in pages.items():
        notebook = notebooks.read_template(model)
        if any(_solution(cell) for cell in notebook.cells):
            made[f"{FOLDER}/student/{name}.ipynb"] = nbformat.writes(student(notebook)).encode()
    for plan, (title, chapters, claim) in plans(static).items():
        if all(name in pages for name in (*chapters, claim)):
            read = {name: notebooks.read(executed(name)) for name in (*chapters, claim)}
            quiz = exit_quiz(static[f"{FOLDER}/plans.md"].decode(), title)
            slides = [*opening(title, read[claim]), *(s for name in chapters for s in of_chapter(read[name]))]
            slides += [("Outcome against vote", _lead(read[claim])), ("Exit quiz", quiz)]
            made[f"{FOLDER}/slides/{plan}.html"] = deck(title, slides, static).encode()
    return made


def plans(static: Mapping[str, bytes]) -> dict[str, tuple[str, list[str], str]]:
    """Return {plan: (its title, its chapters, the page of a claim)} as the book has them, {} where it has none.

    The vote of the claim opens the plan, its outcome closes it. Raises ParameterError naming the file.
    """
    file = f"{FOLDER}/plans.yml"
    try:
        found = read_yaml(static.get(file, b"{}").decode())
        return {name: (plan["title"], plan["chapters"], plan["claim"]) for name, plan in found.items()}
    except yaml.YAMLError as error:
        raise ParameterError(f"{file}: {problem(error)}") from None
    except (UnicodeError, AttributeError, KeyError, TypeError):
        raise ParameterError(f"{file}: must hold a title, chapters and a claim for each plan") from None


def student(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a page's template with a blank cell to answer in for each solution, and no answers to predictions."""
    cells = []
    for cell in notebook.cells:
        cell: Any = nbformat.from_dict({**cell, "metadata": {"tags": cell.metadata.get("tags", [])}})
        if cell.cell_type == "markdown":
            cell["source"] = plain(BOX.sub(_quoted, cell.source)).strip()
        elif _solution(cell):
            checks = "\n".join(f'print(check("{name}", answer))' for name in ASKED.findall(cell.source))
            told = "# Your answer here: a value, or the name of your function. Then run this cell."
            cell["source"] = f"from sparselib.experiments.lessons import check\n\n{told}\nanswer = ...\n{checks}"
            cell["metadata"] = {"tags": ["answer"]}
        if cell["source"]:
            cells.append(cell)
    made: Any = nbformat.from_dict({**notebook, "cells": cells})
    return made


def _solution(cell):
    return cell.cell_type == "code" and "solution" in cell.metadata.get("tags", [])


def _quoted(box):
    _, title, classes, body = box.groups()
    if "dropdown" in classes.split():
        return ""
    return "\n".join(f"> {line}".rstrip() for line in [f"**{title}**", "", *body.strip().splitlines()])


def plain(text: str) -> str:
    """Return Markdown without the roles that only the book knows."""
    for role, stands in ROLES:
        text = re.sub(role, stands, text)
    return FIRST.sub(lambda found: found[0].replace("the", "The"), text)


def _cited(keys):
    """Return "Cohen 2019, Lee 2018" for the keys of the bibliography."""
    return re.sub(r"([a-z]+)(\d{4}\w?)", lambda key: f"{key[1].capitalize()} {key[2]}", re.sub(r",\s*", ", ", keys))


def boxes(notebook: nbformat.NotebookNode, kind: str) -> Iterator[tuple[str, str]]:
    """Yield (title, Markdown) of the boxes of a class; also of those that a cell has shown."""
    texts = [c.source for c in notebook.cells if c.cell_type == "markdown"]
    for cell in notebook.cells:
        texts += [output.get("data", {}).get("text/markdown", "") for output in cell.get("outputs", [])]
    for _, title, classes, body in (found for text in texts for found in BOX.findall(text)):
        if kind in classes.split():
            yield title, body.strip()


def exit_quiz(plans: str, title: str) -> str:
    """Return the questions of the exit quiz of a plan, without their answers, from the page of the plans."""
    found = re.search(rf"(?ms)^## [A-Z]: {title}$.*?^### Exit quiz$(.*?)^(?:`{{3,}}|#)", plans)
    return found[1].strip() if found else ""


def opening(title: str, claim: nbformat.NotebookNode) -> Iterator[tuple[str, str]]:
    """Yield the first slides of a plan: its title, and the vote on a claim."""
    yield title, "Arrow keys turn the slides; in an interactive piece they move its slider.\n\nPrint: one slide a page."
    for _, body in boxes(claim, "vote"):
        yield "Vote", body.replace(" **A** ", "\n\n- **A** ").replace(" · ", "\n- ")


def of_chapter(notebook: nbformat.NotebookNode) -> Iterator[tuple[str, str]]:
    """Yield (title, Markdown or HTML) of the slides of an executed chapter."""
    name = next(line for c in notebook.cells for line in c.source.splitlines() if line.startswith("# ")).lstrip("# ")
    for kind, title in (("goals", f"{name}: you will be able to"), ("predict", "Predict")):
        yield from ((title, body) for _, body in boxes(notebook, kind) if body)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        about, data = notebooks.about(output), output.get("data", {})
        if about and "image/svg+xml" in data:
            yield name, _figure(about, data["image/svg+xml"])
        elif "data-explorer=" in data.get("text/html", ""):
            yield f"{name}: move it", data["text/html"]
    for kind in ("misconception", "takeaway", "exercise"):
        yield from boxes(notebook, kind)


def _figure(about, svg):
    svg = re.sub(r"^.*?(?=<svg)", "", svg, flags=re.DOTALL)
    scope = re.sub(r"\W", "", about["name"])  # identifiers of several figures in one file must not clash
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{scope}-", svg)
    svg = re.sub(r"<svg", f'<svg role="img" aria-label="{html.escape(about["alt"])}"', svg, count=1)
    svg = re.sub(r"\n\s*\n", "\n", svg)  # a blank line would end the HTML within Markdown
    return f"<figure>{svg}</figure>\n\n{about['caption']}"


def _lead(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    leads = [o["data"]["text/markdown"] for o in outputs if o.get("metadata", {}).get("sparselib-lead")]
    return re.sub(r"</?details[^>]*>|<summary>.*?</summary>", "", "\n\n".join(leads)).strip()  # not folded away


def deck(title: str, slides: list[tuple[str, str]], static: Mapping[str, bytes]) -> str:
    """Return slides as one HTML file; `slides` are (title, Markdown or HTML)."""
    from markdown_it import MarkdownIt  # both come with Jupyter Book
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    def math(content, options):
        ends = ("\\[", "\\]") if options["display_mode"] else ("\\(", "\\)")
        return html.escape(content).join(ends)

    reader = MarkdownIt("commonmark", {"html": True}).enable("table").use(dollarmath_plugin, renderer=math)
    body = "\n".join(
        f"<section><h2>{html.escape(name)}</h2>\n{reader.render(plain(text))}</section>" for name, text in slides
    )
    script = static["book/_static/explorers.js"].decode()
    if "\\(" in body or "\\[" in body:
        body += "<script>" + static["book/_static/tex-svg.js"].decode().replace("</script", r"<\/script") + "</script>"
    style = STYLE + static["book/_static/book.css"].decode()
    return PAGE.format(title=html.escape(title), style=style, body=body, script=script + TURN)


STYLE = """
:root { --pst-color-text-base: #1c2127; --pst-color-text-muted: #4a5763; --pst-color-border: #aeb6bf;
  --pst-color-surface: #f3f5f7; --pst-color-primary: #0173b2; --pst-color-warning: #b35900; }
body { font: clamp(1.1rem, 2.1vw, 2.2rem)/1.4 system-ui, sans-serif; color: #1c2127; background: #fff; margin: 0; }
section { box-sizing: border-box; max-width: 86vw; margin: 0 auto; padding: 2vh 2vw 3rem; }
.js section { display: none; } .js section.on { display: block; }
h2 { font-size: 1.5em; line-height: 1.15; margin: 0 0 0.6em; } p.stamp { display: none; }
figure { margin: 0; } figure > svg { width: 100%; height: auto; max-height: 62vh; }
figure + p, .explorer { font-size: 0.72em; }
table { border-collapse: collapse; } td, th { border: 1px solid #aeb6bf; padding: 0.2rem 0.6rem; }
pre { background: #f3f5f7; padding: 0.6rem; overflow-x: auto; }
#count { position: fixed; right: 1rem; bottom: 0.6rem; font-size: 0.9rem; color: #4a5763; }
@media print { .js section, section { display: block; break-after: page; padding: 0; max-width: none; }
  body { font-size: 1.2rem; } #count { display: none; } }
"""
TURN = """
(() => {
  const slides = [...document.querySelectorAll("section")], count = document.getElementById("count");
  let at = Math.min(slides.length, Math.max(1, Number(location.hash.slice(1)) || 1)) - 1;
  function show(i) {
    at = Math.min(slides.length - 1, Math.max(0, i));
    slides.forEach((s, k) => s.classList.toggle("on", k === at));
    count.textContent = `${at + 1} / ${slides.length}`;
    location.replace(`#${at + 1}`);
    scrollTo(0, 0);
  }
  document.documentElement.classList.add("js");
  document.addEventListener("keydown", (e) => {
    if (e.target.closest("input, select, button, textarea")) return;
    const step = { ArrowRight: 1, PageDown: 1, " ": 1, ArrowLeft: -1, PageUp: -1 }[e.key];
    const end = { Home: 0, End: slides.length - 1 }[e.key];
    if (step === undefined && end === undefined) return;
    e.preventDefault();
    show(end ?? at + step);
  });
  show(at);
})();
"""
PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: slides</title><link rel="icon" href="data:,"><style>{style}</style>
</head>
<body>
{body}
<p id="count" aria-live="polite"></p>
<script>{script}</script>
</body>
</html>
"""
