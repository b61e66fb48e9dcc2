"""What a notebook calls: check the parameters, get the rows, show figures that say where they come from.

run = figure.start("05_sensnorm", globals())
for result in run.results():  # computed here; then the published rows of larger scales, if there are any
    run.show(draw(result), of=result, name="fig-sensnorm", caption="…", alt="…")
"""

import html
import inspect
import io
import json
import os
import re
import shlex
import time
import warnings
from dataclasses import dataclass

import matplotlib.pyplot as plt
import pandas as pd
import torch
import yaml
from IPython.display import HTML, Markdown, display

from sparselib.repro import parameters as typed
from sparselib.repro import project, published, runner
from sparselib.repro.settings import Parameters
from sparselib.repro.store import Store


def start(name, namespace):
    """Return a Run for the notebook `name`; `namespace` is its globals(), which hold nothing but parameters yet.

    Shows the parameters. Raises ParameterError for a name that does not exist or a value that is not allowed.
    """
    run = Run(typed.from_notebook(name, namespace))
    _show_own_warnings()
    if run.parameters.profile == "digits":
        torch.set_num_threads(1)  # fastest for tiny images, and the same sums on any number of cores
    display(HTML(_table(run.parameters)))
    return run


@dataclass(frozen=True)
class Result:
    """The tidy rows of a figure at one scale and the typed parameters they come from; computed here, or published."""

    parameters: Parameters
    rows: pd.DataFrame
    live: bool

    @property
    def profile(self):
        return self.parameters.profile

    @property
    def scale(self):
        """The scale in words, for captions and sentences."""
        p = self.parameters
        n = len(p.seed_list())
        how = "computed here" if self.live else "published"
        return f"profile `{p.profile}` ({p.dataset}, {p.network}, {n} seed{'s' if n > 1 else ''}, {how})"


class Run:
    """One execution of a figure's notebook; `parameters` are its typed parameters."""

    def __init__(self, parameters):
        self.parameters = parameters
        self._started = time.perf_counter()
        self._rows = None

    def rows(self):
        """Return the tidy rows of the figure's cells as a DataFrame, computing first what the store lacks."""
        if self._rows is None:
            self._rows = rows_of(self.parameters)
        return self._rows.copy()

    def results(self):
        """Return the Results to show: the one computed here, then those published for other, larger profiles."""
        return [Result(self.parameters, self.rows(), live=True), *published_results(self.parameters)]

    def show(self, fig, *, name, caption, alt, picture=False, of=None):
        """Show a matplotlib figure with its stamp.

        Args:
            name: its label, "fig-…", for references in the book. caption: Markdown, without the stamp.
            alt: what the figure shows, in words, for those who cannot see it.
            picture: it holds images, whose greys must not be inverted in dark mode.
            of: the Result that it shows; default: what was computed here. A published one is labelled as such.
        """
        if of is not None and not of.live:
            name, caption = f"{name}-{of.profile}", f"**Published, {of.scale}.** {caption}"
            origin = _origin(of.parameters, _commits(of.rows))
            stamp = _stamp(of.parameters, origin, f"{_work(of.rows)}, published in results/{of.profile}/")
        else:
            origin = _origin(self.parameters, project.commit())
            stamp = _stamp(self.parameters, origin, self._effort())
        fig.text(0.99, -0.02, origin, ha="right", va="top", fontsize=7, color="#555555")
        buffer = io.StringIO()
        fig.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(fig)
        about = {"name": name, "caption": caption, "alt": alt, "class": "picture" if picture else "chart"}
        bundle = {"image/svg+xml": buffer.getvalue(), "text/plain": alt}
        display(bundle, raw=True, metadata={"sparselib": about})
        display(HTML(stamp))

    def say(self, markdown):
        """Show prose whose numbers were computed just now."""
        display(Markdown(markdown))

    def source(self, *things):
        """Show the source of functions or classes, as it is."""
        code = "\n\n".join(inspect.getsource(thing).rstrip() for thing in things)
        display(Markdown(f"```python\n{code}\n```"))

    def table(self, rows, head):
        """Show a table: `rows` of cells, texts or numbers already rounded, under `head`."""
        lines = [head, ["---"] * len(head), *rows]
        display(Markdown("\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines)))

    def fold(self, summary, rows, head):
        """Show a table as `table` does, folded away under a line that says what it is."""

        def line(cells, tag):
            return "<tr>" + "".join(f"<{tag}>{_emphasised(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = line(head, "th") + "".join(line(row, "td") for row in rows)
        display(
            HTML(f'<details class="folded"><summary>{html.escape(summary)}</summary><table>{body}</table></details>')
        )

    def explorer(self, kind, data, label):
        """Show an interactive piece of the book (book/_static/explorers.js) over computed, JSON-like `data`.

        Without the book's script, in a plain notebook, `label` says what would be there.
        """
        content = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
        display(
            HTML(
                f'<div class="explorer" data-explorer="{kind}" role="group" aria-label="{html.escape(label)}">'
                f'<p class="fallback">{html.escape(label)} (interactive in the rendered book)</p>'
                f'<script type="application/json">{content}</script></div>'
            )
        )

    def _effort(self):
        if self._rows is None or not len(self._rows):
            return f"{time.perf_counter() - self._started:.0f} s in this notebook"
        return f"{_work(self._rows)} (rows of commit {_commits(self._rows)})"


def rows_of(parameters):
    """Return the tidy rows of a page's cells as a DataFrame, computing first what the store lacks."""
    store, cells = Store(project.store_folder()), parameters.cells()
    runner.compute(cells, store, jobs=int(os.environ.get("SPARSELIB_JOBS", os.cpu_count())))
    rows = runner.rows(cells, store)
    rows.insert(0, "profile", parameters.profile)
    rows.insert(1, "figure", parameters.notebook)
    return rows


def published_results(parameters):
    """Return the Results published for the same page in other profiles than its own and the default one."""
    others = [p for p in typed.PROFILES if p not in (parameters.profile, "digits")]
    found = [(p, published.read(p, parameters.notebook)) for p in others]
    return [
        Result(published.parameters(p, parameters.notebook), rows, live=False) for p, rows in found if rows is not None
    ]  # fmt: skip


def _emphasised(text):
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(str(text)))


def _origin(p, commit):
    seeds = p.seed_list()
    seeds = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]}–{seeds[-1]}"
    return f"{p.profile}: {p.dataset}, {p.network} · {seeds} · commit {commit}"


def _commits(rows):
    return ", ".join(sorted(rows["commit"].unique()))


def _work(rows):
    cells = rows.drop_duplicates("key")
    return f"{len(cells)} cells, {cells['seconds'].sum():.0f} s of computing"


def _stamp(p, origin, effort):
    return (
        f'<p class="stamp">{html.escape(origin)} · {html.escape(effort)}<br>rerun: '
        f"<code>{html.escape(rerun_command(p))}</code></p>"
    )


def _show_own_warnings():
    """Let warnings of this package appear as notes on the page; others go where they went."""
    elsewhere = warnings.showwarning

    def show(message, category, filename, *rest, **more):
        if category is UserWarning and os.sep + "sparselib" + os.sep in filename:
            display(HTML(f'<p class="note">Note: {html.escape(str(message))}.</p>'))
        else:
            elsewhere(message, category, filename, *rest, **more)

    warnings.showwarning = show


def rerun_command(parameters):
    """Return the shell command that makes this figure again."""
    changed = typed.overrides(parameters).items()
    sets = "".join(f" --set {shlex.quote(f'{name}={_literal(value)}')}" for name, value in changed)
    profile = "" if parameters.profile == "digits" else f" --profile {parameters.profile}"
    return f"sparselib run {parameters.folder}/{parameters.notebook}.ipynb{profile}{sets} -o out.ipynb"


def _literal(value):
    """Return a value as YAML on one line; texts in lists go without quotes where YAML takes them as texts."""
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_literal(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_literal(v)}" for name, v in value.items()) + "}"
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        plain = yaml.safe_load(f"[{value}]") == [value]
    except yaml.YAMLError:
        plain = False
    return value if plain else json.dumps(value, ensure_ascii=False)


def _table(parameters):
    chosen = typed.overrides(parameters)
    lines = "".join(
        f"<tr><td><code>{name}</code></td><td>{html.escape(_literal(value))}"
        f"{' (changed)' if name in chosen else ''}</td><td>{html.escape(field.description)}</td></tr>"
        for (name, value), field in zip(parameters, type(parameters).model_fields.values(), strict=True)
    )
    head = "<tr><th>parameter</th><th>value</th><th>meaning</th></tr>"
    summary = f"Parameters: profile {html.escape(parameters.profile)}"
    if chosen:
        summary += html.escape(", changed: " + ", ".join(f"{n} = {_literal(v)}" for n, v in chosen.items()))
    return f'<details class="parameters"><summary>{summary}</summary><table>{head}{lines}</table></details>'
