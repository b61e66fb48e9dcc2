"""What a notebook calls: check the parameters, get the rows, show figures that say where they come from.

run = page.start(Sensnorm, globals())
results = run.results()  # computed here; then the published rows of other scales, if there are any
run.show(draw(results), name="fig-sensnorm", caption="…")
"""

import inspect
import io
import json
import os
import re
import shlex
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import HTML, Markdown, display
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text

from sparselib import outside
from sparselib.repro import parameters as typed
from sparselib.repro import project, published, runner
from sparselib.repro.parameters import Parameters
from sparselib.repro.store import Store


def start(page: type[Parameters], namespace: dict[str, Any]) -> "Run":
    """Return a Run for a page; `namespace` is the notebook's globals(), which hold nothing but parameters yet.

    Shows the parameters. Raises ParameterError for a name that does not exist or a value that is not allowed.
    """
    run = Run(typed.from_notebook(page, namespace))
    _show_own_warnings()
    if run.parameters.profile == typed.LIVE:
        torch.set_num_threads(1)  # fastest for tiny images, and the same sums on any number of cores
    display(HTML(_table(run.parameters)))
    return run


@dataclass(frozen=True)
class Result:
    """The tidy rows of a page at one scale and the typed parameters they come from; computed here, or published."""

    parameters: Any  # a Parameters, with the fields of its page
    rows: pd.DataFrame
    live: bool

    @property
    def profile(self) -> str:
        return self.parameters.profile


class Run:
    """One execution of a page's notebook; `parameters` are its typed parameters."""

    def __init__(self, parameters: Parameters):
        self.parameters = parameters
        self._results = None
        self._stamps = set()

    def results(self, networks: Callable | None = None, measured: Callable | None = None) -> list[Result]:
        """Return the Results to show: the one computed here, then those published for other profiles.

        Computes first what the store lacks. `networks(p, seed)` and `measured(p, role, net)` are the experiment, as
        the notebook has it; default: as the library has it.
        """
        p = self.parameters
        found = Result(p, rows_of(p, _roles(p, networks, measured)), live=True)
        self._results = [found, *published_results(type(p), but=p.profile)]
        return self._results

    def show(self, drawing: Any, *, name: str, caption: str, of: Sequence[Result] | str | None = None) -> None:
        """Show a figure, and its stamp where that is not the stamp of a figure above.

        Args:
            drawing: a figure (`fig`), what it shows in words (`alt`), whether it holds images (`picture`), and the
                profiles that it shows (`scales`), where it tells them apart.
            name: its label, "fig-…", for references in the book. caption: Markdown (names from outside by
                `outside.markdown`); the origin is added.
            of: the Results that it shows; default: those of `results`. Or its origin in words; "" for a diagram.
        """
        shown = self._results if of is None or isinstance(of, str) else of
        if of is None and drawing.scales:
            shown = [result for result in shown or () if result.profile in drawing.scales]
        _verbatim(drawing.fig)
        _legible(drawing.fig)
        drawing.fig.suppressComposite = True  # images stay apart from the text between them
        buffer = io.StringIO()
        drawing.fig.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(drawing.fig)
        kind = "picture" if drawing.picture else "chart"
        origin = of if isinstance(of, str) else self._origin(shown)
        caption = typeset(f"{caption} *{origin}.*" if origin else caption)
        about = {"name": name, "caption": caption, "alt": typeset(drawing.alt), "class": kind}
        bundle = {"image/svg+xml": buffer.getvalue(), "text/plain": about["alt"]}
        display(bundle, raw=True, metadata={"sparselib": about})
        stamp = self._stamp(shown) if origin else ""
        if stamp and stamp not in self._stamps:  # one is enough for all figures of the same rows
            self._stamps.add(stamp)
            display(HTML(stamp))

    def say(self, markdown: str) -> None:
        """Show prose whose numbers were computed just now: Markdown, names from outside by `outside.markdown`."""
        display(Markdown(typeset(markdown)))

    def lead(self, markdown: str) -> None:
        """Show prose that the book puts under the question of the page, and where a page of prose asks for it."""
        display(Markdown(typeset(markdown)), metadata={"sparselib-lead": True})

    def source(self, *things: Any) -> None:
        """Show the source of functions or classes, as it is."""
        code = "\n\n".join(inspect.getsource(thing).rstrip() for thing in things)
        display(Markdown(f"```python\n{code}\n```"))

    def table(self, rows: Iterable[Iterable[Any]], head: Sequence[str], caption: str = "") -> None:
        """Show a table: `rows` of cells, texts or numbers already rounded, under `head`.

        A cell shows its text, whatever it holds; as strong or as code where all of it is **so** or `so`.
        `caption`: plain text above the table; the book gives it a number.
        """
        text = outside.table(head, [[typeset(str(cell)) for cell in row] for row in rows])
        told = outside.markdown(typeset(caption))
        about = {"sparselib-table": {"caption": told, "table": text}} if told else {}
        display(Markdown(f"*{told}*\n\n{text}" if told else text), metadata=about)

    def grouped(self, groups: Mapping[str, Iterable[Iterable[Any]]], head: Sequence[str], caption: str = "") -> None:
        """Show a table as `table` does, its rows in groups, each under its title: {title: rows}."""
        parts = [_caption(caption), f"<thead>{_line(map(_emphasised, head), 'th')}</thead>"]
        for title, rows in groups.items():
            above = f'<tr><th scope="rowgroup" colspan="{len(head)}">{_emphasised(title)}</th></tr>'
            parts.append(f"<tbody>{above}{''.join(_line(map(_emphasised, row)) for row in rows)}</tbody>")
        display(HTML(f'<div class="wide"><table class="grouped">{"".join(parts)}</table></div>'))

    def fold(self, summary: str, rows: Iterable[Iterable[Any]], head: Sequence[str], caption: str = "") -> None:
        """Show a table as `table` does, folded away under a line that says what it is."""
        lines = [_line(map(_emphasised, head), "th"), *(_line(map(_emphasised, row)) for row in rows)]
        display(HTML(_folded("folded", outside.tags(summary), [_caption(caption), *lines])))

    def explorer(self, kind: str, data: Any, label: str) -> None:
        """Show an interactive piece of the book (book/_static/explorers.js) over computed, JSON-like `data`.

        Without the book's script, in a plain notebook, `label` says what would be there.
        """
        content, label = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"), outside.tags(label)
        text = (
            f'<div class="explorer" data-explorer="{kind}" role="group" aria-label="{label}">'
            f'<p class="fallback">{label} (interactive in the rendered book)</p>'
            f'<script type="application/json">{content}</script></div>'
        )
        display(HTML(text))

    def _origin(self, results):
        """Return in words what a figure was computed from: for each scale its data, network and seeds."""
        shown = [(r.parameters, "" if r.live else ", published") for r in results or ()] or [(self.parameters, "")]
        return "; ".join(f"{outside.markdown(_setting(p))}, {_seeds(p)}{how}" for p, how in shown)

    def _stamp(self, results):
        """Return the lines under a figure: which commit, how much work, and how to rerun it."""
        lines = [f"{r.profile}: {_work(r.rows)}" for r in results or () if len(r.rows)]
        lines = lines or [f"computed in this notebook, commit {project.commit()}"]
        told = "<br>".join(outside.tags(line) for line in lines)
        return f'<p class="stamp">{told}<br>rerun: <code>{outside.tags(rerun_command(self.parameters))}</code></p>'


STAYS = (
    r"```\w.*?```",
    r"(?<!`)(?P<tick>`{1,2})(?!`)[^`]+(?P=tick)(?!`)",
    r"\$[^$]*\$",
    r"\]\([^)\s]*\)",
    r"</?[a-zA-Z][^>]*>",
)
SIGNS = re.compile(rf"(?P<stays>{'|'.join(STAYS)})|(?<![\w./)\]-])-(?=\.?\d)|(?<=\d) ?%(?!\w)", re.DOTALL)


def typeset(markdown: str) -> str:
    """Return prose with the signs that print has: − before numbers, and % that stays beside its number.

    Code, formulas, addresses and tags stay as they are.
    """
    return SIGNS.sub(lambda found: found["stays"] or ("−" if found[0] == "-" else "\N{NO-BREAK SPACE}%"), markdown)


PHONE = 358  # pixels that a page leaves for a figure when it is 390 wide
LEAST = 9  # pixels: the height of the smallest text there


def _verbatim(fig):
    """Let every text of a figure stand as it is, $ for itself but in a formula, its signs set; those of axes, too."""
    for axis in (axis for axes in fig.axes for axis in (axes.xaxis, axes.yaxis)):
        axis.get_ticklabels(which="both")  # gives them their texts
    for text in fig.findobj(Text):
        shown = text.get_text()
        text.set_parse_math(_is_formula(shown))
        if (seen := typeset(outside.visible(shown))) != shown:
            text.set_text(seen)


def _is_formula(text):
    """Return whether matplotlib can set what stands between two $ and has signs of a formula in it."""
    if not re.search(r"\$[^$]*[\\^_][^$]*\$", text):
        return False
    try:
        MathTextParser("path").parse(text)
    except (ValueError, RecursionError):
        return False
    return True


def _legible(fig):
    """Make text that would be too small on a phone as large as it must be."""
    for _ in range(3):  # larger text may make the figure wider
        fig.draw_without_rendering()
        least = 1.02 * LEAST * 72 * (fig.get_tightbbox().width + 0.2) / PHONE  # the pad around it is 0.1 inches wide
        for text in fig.findobj(Text):
            if text.get_fontsize() < least:
                text.set_fontsize(least)


def _roles(p, networks, measured):
    """Return the (role, step) pairs of a page with these functions in place of its own."""
    if networks is None and measured is None:
        return p.roles()
    page = type(p)
    own = {"networks": networks or page.networks, "measured": measured or page.measured}
    edited = type(page.__name__, (page,), {**own, "__module__": page.__module__})
    return edited.model_construct(**dict(p)).roles()


def rows_of(parameters: Parameters, roles: list | None = None) -> pd.DataFrame:
    """Return the tidy rows of a page, computing first what neither the store nor results/ has."""
    store = Store(project.store_folder())
    roles = parameters.roles() if roles is None else roles
    steps = [step for _, step in roles]
    if not project.from_nothing():
        published.adopt([parameters], store)
    runner.compute(steps, store, jobs=int(os.environ.get("SPARSELIB_JOBS", os.cpu_count() or 1)))
    return runner.rows(roles, store)


def published_results(page: type[Parameters], *, but: str) -> list[Result]:
    """Return the Results published for a page in other profiles than one and the live one."""
    found = []
    for profile in typed.profiles(page.profiles):
        if profile in (but, typed.LIVE):
            continue
        try:
            parameters, rows = published.parameters(page, profile), published.read(profile, page.notebook)
        except published.PublishedError as error:
            warnings.warn(f"{error}. Its rows are not shown", stacklevel=2)
            continue
        if published.code_changed(profile, page.notebook):
            warnings.warn(f"the published rows of {profile} were computed by other code than this", stacklevel=2)
        if parameters is not None and rows is not None:
            found.append(Result(parameters, rows, live=False))
    return found


def scales(parameters: dict[str, Parameters]) -> dict[str, list[Result]]:
    """Return {scale: Results} of several pages: those computed here, then those published for other profiles."""
    found = defaultdict(list)
    for p in parameters.values():
        found[p.profile].append(Result(p, rows_of(p), live=True))
    for p in parameters.values():
        for result in published_results(type(p), but=p.profile):
            found[result.profile].append(result)
    return dict(found)


def whole(results: Iterable[Result]) -> Result:
    """Return the Results of several pages at one scale as one, for the origin of what is drawn from all of them."""
    first, *others = results
    return Result(first.parameters, pd.concat([first.rows, *(r.rows for r in others)]), live=first.live)


def _emphasised(text):
    text = typeset(str(text))
    strong = outside.EMPHASIS.fullmatch(text)
    return f"<strong>{outside.tags(strong[1])}</strong>" if strong else outside.tags(text)


def _setting(p):
    """Return data and network, after the name of the scale where it is not that of the data."""
    told = p.setting()
    return told if re.sub(r"\W", "", told).lower().startswith(p.profile) else f"{p.profile}: {told}"


def _seeds(p):
    seeds = p.seed_list()
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]}–{seeds[-1]}"


def _work(rows):
    """Return how much work is behind the rows, and of which commit they are."""
    steps = rows.drop_duplicates("key")
    commits = ", ".join(sorted(rows["commit"].unique()))
    taken = int(steps["taken"].sum()) if "taken" in steps else len(steps)
    where = f", {taken} of them taken from results/" if taken else ""
    return f"{len(steps)} steps{where}, {steps['seconds'].sum():.0f} s of computing, commit {commits}"


def _show_own_warnings():
    """Let warnings of this package, which may name the cell that called it, be notes; others go where they went."""
    elsewhere = getattr(warnings.showwarning, "elsewhere", warnings.showwarning)  # the set-up cell may run twice

    def show(message, category, filename, *rest, **more):
        if category is UserWarning and (os.sep + "sparselib" + os.sep in filename or "ipykernel" in filename):
            display(HTML(f'<p class="note">Note: {outside.tags(message)}.</p>'))
        else:
            elsewhere(message, category, filename, *rest, **more)

    show.elsewhere = elsewhere
    warnings.showwarning = show


def rerun_command(parameters: Parameters) -> str:
    """Return the shell command that makes this page again."""
    changed = typed.overrides(parameters).items()
    sets = "".join(f" --set {shlex.quote(f'{name}={_literal(value)}')}" for name, value in changed)
    profile = "" if parameters.profile == typed.LIVE else f" --profile {parameters.profile}"
    return f"sparselib run {parameters.folder}/{parameters.notebook}.ipynb{profile}{sets} -o out.ipynb"


def _literal(value):
    return json.dumps(value, ensure_ascii=False)  # JSON is YAML


def _table(parameters):
    chosen = typed.overrides(parameters)
    lines = [_line(["parameter", "value", "meaning"], "th")]
    for name, field in type(parameters).model_fields.items():
        value = outside.tags(_literal(getattr(parameters, name))) + (" (changed)" if name in chosen else "")
        lines.append(_line([f"<code>{name}</code>", value, outside.tags(field.description or "")]))
    summary = f"Parameters: profile {parameters.profile}"
    if chosen:
        summary += ", changed: " + ", ".join(f"{name} = {_literal(value)}" for name, value in chosen.items())
    return _folded("parameters", outside.tags(summary), lines)


def _caption(text):
    return f"<caption>{outside.tags(typeset(text))}</caption>" if text else ""


def _line(cells, tag="td"):
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def _folded(kind, summary, lines):
    table = f'<div class="wide"><table>{"".join(lines)}</table></div>'
    return f'<details class="{kind}"><summary>{summary}</summary>{table}</details>'
