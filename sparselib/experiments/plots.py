"""How figures look, and what they say to those who cannot see them.

Readable in grey (markers and dashes differ, not only colours) and in dark mode. Scales stand side by side: where the
table has the column `scale`, each scale is a column of panels with axes of its own. Every function returns a Drawing:
the figure and its words.
"""

import math
import textwrap
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from sparselib.experiments import statistics, words
from sparselib.experiments.statistics import BETTER, EQUAL, FLOOR, NOT_COMPARABLE, OPEN, WORSE

# Dark mode inverts lightness and keeps the hue, so charts have a white ground and dark ink. The palette is
# seaborn's "colorblind".
STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "sparselib",  # the same figure, the same bytes
}
EVEN = ("sparsity", "size")  # are spaced evenly
XLABELS = {"size": "weights left", "eps": "radius ε"}
OUTCOMES = {  # colour and marker
    BETTER: ("#0173b2", "o"), EQUAL: ("#333333", "D"), OPEN: ("#333333", "s"), WORSE: ("#de8f05", "v"),
    FLOOR: ("#999999", "s"), NOT_COMPARABLE: ("#999999", "o"),
}  # fmt: skip
MARKERS, DASHES = "os^DvPX*", ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Drawing:
    """A figure and what it shows, in words and numbers."""

    fig: Figure
    alt: str
    picture: bool = False  # it holds images, whose greys must not be inverted in dark mode


@contextmanager
def style():
    """Draw in the style of the book."""
    with plt.rc_context(STYLE), sns.color_palette("colorblind"):
        yield


def lines(
    table: pd.DataFrame, *, x: str = "sparsity", series: str = "arm", panels: str = "measure",
    xlabel: str | None = None, ylabel: str | None = None, chance: float | None = None,
) -> Drawing:  # fmt: skip
    """Return a line chart: the mean of `value` over seeds against `x`, with 95 % t intervals as bars.

    Args:
        table: long, with the columns `value`, those named by `x`, `series`, `panels`, and perhaps `scale`.
        x: "sparsity" and "size" are spaced evenly, others to scale; costs (`words.COSTS`) are means on a logarithmic
            axis, a point for each sparsity.
        chance: a level drawn as a dotted line. It and the labels have defaults by what the table holds.
    """
    ylabel, chance = _valued(table, ylabel, chance)
    xlabel = xlabel or (words.COSTS[x][1] if x in words.COSTS else XLABELS.get(x, x))
    point = "sparsity" if x in words.COSTS else x

    def draw(axis, part, looks):
        order = sorted(part[point].unique())
        for kind, own in part.groupby(series, sort=False):
            groups = own.groupby(point)
            found = groups["value"].agg(statistics.interval)
            place = found.index.map(order.index) if x in EVEN else groups[x].mean()
            axis.errorbar(place, *_bars(found), **looks[kind], linewidth=1.3)
        if chance is not None:
            axis.axhline(chance, color="#777777", linestyle=":", linewidth=1)
        if x in words.COSTS:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter("")
        elif x in EVEN:
            axis.set_xticks(range(len(order)), [f"{v:g}" for v in order])

    shared = {"sharey": "row", "sharex": "col" if x in words.COSTS else False}
    fig = _chart(table, panels, series, draw, size=(3.3, 2.3), xlabel=xlabel, ylabel=ylabel, **shared)
    return Drawing(fig, f"Line charts, {ylabel} against {xlabel}. {told(table, point, series, panels)}.")


def dots(
    table: pd.DataFrame, *, category: str, series: str | None = None, panels: str | None = None,
    xlabel: str | None = None,
) -> Drawing:  # fmt: skip
    """Return a dot chart: means of `value` over seeds, one line for each category, with 95 % t intervals as bars.

    Args: as `lines`; `series` gives colours and markers.
    """
    xlabel, chance = _valued(table, xlabel, None)
    categories = list(dict.fromkeys(table[category]))

    def draw(axis, part, looks):
        for number, (kind, look) in enumerate(looks.items()):
            own = part if series is None else part[part[series] == kind]
            mean, bars = _bars(own.groupby(category, sort=False)["value"].agg(statistics.interval))
            place = [categories.index(c) + 0.5 * ((number + 0.5) / len(looks) - 0.5) for c in mean.index]
            axis.errorbar(mean, place, xerr=bars, **{**look, "linestyle": "none"})
        axis.set_yticks(range(len(categories)), [words.called(category, c) for c in categories])
        axis.set(ylim=(len(categories) - 0.5, -0.5))
        axis.grid(axis="y", visible=False)
        if chance is not None:
            axis.axvline(chance, color="#777777", linestyle=":", linewidth=1)

    size = (3.0, 0.5 + 0.27 * len(categories))
    fig = _chart(table, panels, series, draw, size=size, xlabel=xlabel, sharey=True, sharex=True)
    kinds = ", " + " / ".join(words.called(series, k) for k in dict.fromkeys(table[series])) if series else ""
    return Drawing(fig, f"Dot charts, {xlabel}{kinds}. {told(table, None, category, panels, series)}.")


def _valued(table, label, chance):
    """Return the label of the values, and the level of chance where all are AUROCs."""
    metrics = " ".join(set(table["metric"]) if "metric" in table else ["accuracy"])
    label = label or {"accuracy": "accuracy in %", "auroc": "AUROC in %"}.get(metrics, "%")
    return label, 50 if chance is None and metrics == "auroc" else chance


def _chart(table, panels, series, draw, *, size, xlabel, ylabel=None, sharey, sharex):
    """Return a figure of panels: down by the column `panels`, across by `scale`; the panels of one scale flow.

    `draw(axis, part, looks)` fills one; `looks` says how each value of `series` is drawn. One legend stands above all.
    """
    rows = list(dict.fromkeys(table[panels])) if panels else [None]
    scales = list(dict.fromkeys(table["scale"])) if "scale" in table else [None]
    across = len(scales) if len(scales) > 1 else 2 if len(rows) == 4 else min(3, len(rows))
    down = len(rows) if len(scales) > 1 else -(-len(rows) // across)
    kinds = list(dict.fromkeys(table[series])) if series else [None]
    looks = {
        kind: {"marker": MARKERS[i % len(MARKERS)], "linestyle": DASHES[i % len(DASHES)], "color": colour,
               "markersize": 5, "elinewidth": 1, "capsize": 2.5, "label": words.called(series or "", kind)}
        for i, (kind, colour) in enumerate(zip(kinds, sns.color_palette("colorblind", len(kinds)), strict=True))
    }  # fmt: skip
    with style():
        shape = (max(4.6, size[0] * across), size[1] * down + 0.5)
        fig, axes = plt.subplots(
            down, across, figsize=shape, squeeze=False, sharey=sharey, sharex=sharex, layout="constrained"
        )
        keys = [(row, scale) for row in rows for scale in scales]
        for axis in axes.flat[len(keys) :]:
            axis.axis("off")
        for (row, scale), axis in zip(keys, axes.flat, strict=False):
            part = table if row is None else table[table[panels] == row]
            draw(axis, part if scale is None else part[part["scale"] == scale], looks)
            titles = (words.called(panels or "", row), rows), (scale, scales)
            axis.set_title(", ".join(str(title) for title, among in titles if len(among) > 1))
        for axis in axes[-1]:
            axis.set_xlabel(xlabel)
        for axis in axes[:, 0]:
            axis.set_ylabel(ylabel or "")
        legend = _legend(axes)
        if len(legend) > 1:
            columns = min(4, int(15 * shape[0]) // (7 + max(map(len, legend))) or 1)  # as many as fit side by side
            fig.legend(legend.values(), legend.keys(), loc="outside upper center", ncol=columns, frameon=False)
    return fig


def _legend(axes):
    """Return {label: handle} of all panels."""
    found = [axis.get_legend_handles_labels() for axis in axes.flat]
    return {label: handle for handles, labels in found for handle, label in zip(handles, labels, strict=True)}


def _bars(found):
    """Return means and the lengths of the bars below and above, 0 where there is no bound; not beyond 0 and 100."""
    mean, low, high = (found.map(lambda interval, i=i: interval[i]) for i in range(3))
    below = (mean - low.clip(lower=mean.clip(upper=0))).where(low > -math.inf, 0.0)
    above = (high.clip(upper=mean.clip(lower=100)) - mean).where(high < math.inf, 0.0)
    return mean, [below, above]


def forest(table: pd.DataFrame, measures: Sequence[str] = ()) -> Drawing:
    """Return a forest plot: for every line the mean difference over seeds with its interval, in points.

    `table` is that of `tables.contrasts`: a panel for each of the `measures` (across; default: all) and scale (down).
    The band is ±δ, in which a difference does not matter. What is not comparable is grey and hollow.
    """
    if measures:
        table = pd.concat([table[table["measure"] == name] for name in measures])
    if not len(table):
        with style():
            fig = plt.figure(figsize=(4.6, 0.6))
            fig.text(0.5, 0.5, "nothing to compare", ha="center", va="center")
        return Drawing(fig, "Nothing to compare.")
    scales, panels = (list(dict.fromkeys(table[name])) for name in ("scale", "measure"))
    table = table.assign(line=table["line"].map(lambda name: textwrap.fill(str(name), 48)), whole=table["line"])
    names = {scale: list(dict.fromkeys(own["line"])) for scale, own in table.groupby("scale", sort=False)}
    lines = {scale: max(name.count("\n") + 1 for name in own) for scale, own in names.items()}
    heights = [0.06 + (0.08 + 0.14 * lines[scale]) * len(names[scale]) + 0.5 for scale in scales]
    with style():
        fig, axes = plt.subplots(
            len(scales), len(panels), figsize=(3.2 + 2.1 * len(panels), sum(heights) + 0.4), squeeze=False,
            sharey="row", height_ratios=heights, layout="constrained",
        )  # fmt: skip
        for (scale, measure), axis in zip(((s, m) for s in scales for m in panels), axes.flat, strict=True):
            own = table[(table["scale"] == scale) & (table["measure"] == measure)]
            if len(own):
                axis.axvspan(-own["delta"].mean(), own["delta"].mean(), color="#eeeeee", zorder=0)
            axis.axvline(0, color="#777777", linewidth=0.8)
            for outcome, part in own.groupby("outcome"):
                colour, marker = OUTCOMES[outcome]
                place = [names[scale].index(line) for line in part["line"]]
                bars = [(part["mean"] - part["low"]).clip(upper=1e3), (part["high"] - part["mean"]).clip(upper=1e3)]
                hollow = {"markerfacecolor": "white"} if outcome in (NOT_COMPARABLE, FLOOR) else {}
                look = {"color": colour, "marker": marker, "markersize": 4, "linestyle": "none", "elinewidth": 1.2}
                axis.errorbar(part["mean"], place, xerr=bars, label=outcome, **look, **hollow)
            axis.set_yticks(range(len(names[scale])), names[scale])
            axis.set(ylim=(len(names[scale]) - 0.5, -0.5), xlim=_wide(own))
            axis.grid(axis="y", visible=False)
            axis.set_title(", ".join(filter(None, [measure, scale if len(scales) > 1 else ""])), wrap=True)
        for axis in axes[-1]:
            axis.set_xlabel("difference in points")
        legend = _legend(axes)
        shown = [name for name in OUTCOMES if name in legend]
        columns = 3 * min(len(panels), 2)
        fig.legend([legend[n] for n in shown], shown, loc="outside upper center", ncol=columns, frameon=False)
    told = [f"{r.scale}, {r.measure}, {r.whole}: {r.mean:+.1f}, {r.told}" for r in table.itertuples()]
    return Drawing(fig, f"Forest plot of differences in points. {'; '.join(told[:60])}.")


def _wide(own):
    """Return limits that hold every mean and what is bounded of the intervals, not all of a very wide one."""
    if not len(own):
        return -1, 1
    ends = [own["low"].clip(lower=own["mean"].min() - 15).min(), own["high"].clip(upper=own["mean"].max() + 15).max()]
    return min(ends[0], -own["delta"].max()) - 1, max(ends[1], own["delta"].max()) + 1


def pictures(
    groups: dict[str, torch.Tensor], *, alt: str, titles: dict | None = None, scale: float = 1.0, columns: int = 1
) -> Drawing:
    """Return a figure of images: `groups` is {row label: images (n, C, H, W) in [0, 1]}, one row each.

    `titles` {row label: one text an image}. `columns`: into how many blocks of rows, side by side, to break them.
    """
    across = max(len(images) for images in groups.values())
    rows = -(-len(groups) // columns)
    with style():
        size = (scale * across * columns + 1.6 * columns, scale * 1.1 * rows)
        fig, axes = plt.subplots(1, columns, figsize=size, squeeze=False, layout="constrained")
        for axis in axes.flat:
            axis.axis("off")
        for number, (label, images) in enumerate(groups.items()):
            axis, top = axes.flat[number // rows], 1.1 * (number % rows)
            axis.text(-0.15, top + 0.5, label, ha="right", va="center")
            for column, image in enumerate(images):
                pixels = image.detach().cpu().permute(1, 2, 0).numpy()
                pixels = pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels
                box = (column + 0.03, column + 0.97, top + 0.97, top + 0.03)
                axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=box, interpolation="nearest")
                if titles and label in titles:
                    axis.text(column + 0.5, top, titles[label][column], ha="center", va="bottom", fontsize=8)
            axis.set(xlim=(-1.6 / scale, across), ylim=(rows * 1.1, -0.2))
        return Drawing(fig, alt, picture=True)


def told(table: pd.DataFrame, x: str | None, series: str, panels: str | None, inner: str | None = None) -> str:
    """Return a chart in words: for every panel, scale and series the means; over `x`, that at its two ends."""
    said = []
    groups = [c for c in ("scale", panels) if c and c in table]
    for key, part in table.groupby(groups, sort=False) if groups else [((), table)]:
        values = []
        for kind, own in part.groupby(series, sort=False):
            means = own.groupby(inner or x or series, sort=bool(x))["value"].mean()
            ends = means.iloc[[0, -1]] if x else means
            numbers = (" to " if x else " / ").join(f"{v:.0f}" for v in ends)
            values.append(f"{words.called(series, kind)} {numbers}")
        where = ", ".join(map(words.called, groups, key))
        said.append((f"{where}: " if where else "") + ", ".join(values))
    return "; ".join(said)
