"""How figures look, and what they say to those who cannot see them.

Narrow enough for a phone: WIDTH inches at most, few panels side by side, names of rows above what they name.
Readable in grey (markers and dashes differ, not only colours). Where the table has the column `scale`, each scale has
panels of its own. Every function returns a Drawing: the figure and its words.
"""

import functools
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
from matplotlib import patches
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from sparselib.experiments import statistics, words
from sparselib.experiments.statistics import BETTER, EQUAL, FLOOR, NOT_COMPARABLE, OPEN, UNDONE, WORSE

# Drawn for a light page; book/_ext/figures.py draws the same file anew for a dark one, colour by colour.
COLOURS = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#3b3b3b", "#56b4e9", "#949494")
STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "font.size": 10.5,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "sparselib",  # the same figure, the same bytes
}
WIDTH = 5.5  # inches: text of 10.5 points is 9 pixels high on a page 390 pixels wide
LEADING = 0.17  # inches from line to line
DIGIT = 0.105  # inches of a digit that labels a row
LINE = 68  # letters that fit into WIDTH
EVEN = ("sparsity", "size")  # are spaced evenly
ACROSS = 3  # panels side by side, at most: one for each scale
CROWD = 3  # this many lines can lie on one another
XLABELS = words.COLUMNS | {"size": "weights left (k: thousand)"}
AT = {"sparsity": "at sparsity", "size": "with this many weights"}  # ends the name of a group of rows
GREY = "#6a6a6a"  # seen on white and, drawn anew, on black
OUTCOMES = {  # colour, marker, how it is filled
    BETTER: ("#0173b2", "o", "full"), EQUAL: ("#333333", "D", "full"), OPEN: ("#333333", "s", "none"),
    UNDONE: ("#333333", "s", "left"), WORSE: ("#de8f05", "v", "full"), FLOOR: (GREY, "^", "none"),
    NOT_COMPARABLE: (GREY, "x", "full"),
}  # fmt: skip
MARKERS, DASHES = "os^DvPX*", ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Drawing:
    """A figure and what it shows, in words and numbers."""

    fig: Figure
    alt: str
    picture: bool = False  # it holds images
    scales: tuple[str, ...] = ()  # those that it shows, where it tells them apart


@contextmanager
def style():
    """Draw in the style of the book."""
    with plt.rc_context(STYLE), sns.color_palette(COLOURS):
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
        order, many = sorted(part[point].unique()), len(looks) > CROWD
        drawn = [kind for kind in looks if kind in set(part[series])]
        apart = 0.4 / (len(drawn) - 1) if len(drawn) > CROWD else 0.0  # bars stand side by side
        for kind, own in part.groupby(series, sort=False):
            groups = own.groupby(point)
            found = groups["value"].agg(statistics.interval)
            beside = apart * (drawn.index(kind) - (len(drawn) - 1) / 2)
            place = [order.index(v) + beside for v in found.index] if x in EVEN else groups[x].mean()
            look = looks[kind] | ({"capsize": 0, "markersize": 4, "linewidth": 0.7} if many else {"linewidth": 1.3})
            axis.errorbar(place, *_bars(found), **look)
        if chance is not None:
            axis.axhline(chance, color=GREY, linestyle=":", linewidth=1)
        if x in words.COSTS:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter("")
        elif x in EVEN:
            ticks = [f"{v / 1000:.3g}k" if x == "size" and v >= 1000 else f"{v:g}" for v in order]
            room = 40 // max(2, axis.get_gridspec().ncols)  # letters
            axis.set_xticks(range(len(order)), ticks, rotation=60 if sum(map(len, ticks)) > room else 0)
            axis.set_xlim(-0.4, len(order) - 0.6)

    shared = {"sharey": "row", "sharex": "col" if x in words.COSTS else False}
    fig = _chart(table, panels, series, draw, height=2.4, xlabel=xlabel, ylabel=ylabel, **shared)
    alt = f"Line charts, {ylabel} against {xlabel}. {words.chart(table, point, series, panels)}."
    return Drawing(fig, alt, scales=_scales(table))


def dots(
    table: pd.DataFrame, *, category: str, series: str | None = None, panels: str | None = None,
    xlabel: str | None = None,
) -> Drawing:  # fmt: skip
    """Return a dot chart: means of `value` over seeds, one line for each category, with 95 % t intervals as bars.

    Args: as `lines`; `series` gives colours and markers.
    """
    xlabel, chance = _valued(table, xlabel, None)
    categories = list(dict.fromkeys(table[category]))

    kinds = 1 if series is None else table[series].nunique()
    places, height = _strips([words.called(category, c) for c in categories], high=0.06 + 0.14 * kinds)

    def draw(axis, part, looks):
        for number, (kind, look) in enumerate(looks.items()):
            own = part if series is None else part[part[series] == kind]
            mean, bars = _bars(own.groupby(category, sort=False)["value"].agg(statistics.interval))
            place = [places[words.called(category, c)][1] + 0.14 * (number - (kinds - 1) / 2) for c in mean.index]
            axis.errorbar(mean, place, xerr=bars, **{**look, "linestyle": "none"})
        _name(axis, places, height)
        there = {words.called(category, c) for c in part[category]}
        for name, (_, middle) in places.items():
            axis.axhline(middle, color="#dddddd", linewidth=0.6, zorder=0)
            if name not in there:
                look = {"ha": "center", "va": "center", "color": GREY, "backgroundcolor": "white"}
                axis.text(0.5, middle, "not measured", transform=axis.get_yaxis_transform(), **look)
            if chance is not None:
                axis.vlines(chance, middle - 0.1, middle + 0.1, color=GREY, linestyle=":", linewidth=1, zorder=0.5)

    fig = _chart(table, panels, series, draw, height=height + 0.6, xlabel=xlabel, sharey=True, sharex=True)
    who = ", " + " / ".join(words.called(series, k) for k in dict.fromkeys(table[series])) if series else ""
    alt = f"Dot charts, {xlabel}{who}. {words.chart(table, None, category, panels, series)}."
    return Drawing(fig, alt, scales=_scales(table))


def _scales(table):
    return tuple(scale for scale in dict.fromkeys(table["scale"]) if scale) if "scale" in table else ()


def _valued(table, label, chance):
    """Return the label of the values, and the level of chance where all are AUROCs."""
    metrics = " ".join(set(table["metric"]) if "metric" in table else ["accuracy"])
    label = label or {"accuracy": "accuracy in %", "auroc": "AUROC in %"}.get(metrics, "%")
    return label, 50 if chance is None and metrics == "auroc" else chance


def _strips(names, high):
    """Return {name: (top of its name, middle of the strip of this height below)} and the height of all, in inches."""
    places, at = {}, 0.04
    for name in names:
        strip = at + LEADING * len(textwrap.wrap(name, LINE))
        places[name] = at, strip + high / 2
        at = strip + high + 0.05
    return places, at


def _name(axis, places, height, indent=0.0):
    """Write the name of each strip above it, where the panel is the first of its row, `indent` inches to the left."""
    axis.set(ylim=(height, 0), yticks=[])
    axis.spines["left"].set_visible(False)
    axis.grid(visible=False)
    axis.patch.set_visible(False)  # names reach into the next panel
    if height > 6:  # the scale is far from the first rows
        axis.tick_params(top=True, labeltop=True)
    if axis.get_subplotspec().is_first_col():
        for name, (top, *_) in places.items():
            where = axis.get_yaxis_transform() + ScaledTranslation(-indent, 0, axis.figure.dpi_scale_trans)
            axis.text(0, top, textwrap.fill(name, LINE), transform=where, va="top", linespacing=1.1).set_in_layout(
                False
            )


def _chart(table, panels, series, draw, *, height, xlabel, ylabel=None, sharey, sharex):
    """Return a figure of panels: down by the column `panels`, across by `scale`; those of one scale flow.

    `draw(axis, part, looks)` fills one; `looks` says how each value of `series` is drawn. One legend stands above all.
    """
    rows = list(dict.fromkeys(table[panels])) if panels else [None]
    scales = list(dict.fromkeys(table["scale"])) if "scale" in table else [None]
    across = len(scales) if 1 < len(scales) <= ACROSS else min(2, len(rows) * len(scales))
    down = -(-len(rows) * len(scales) // across)
    kinds = list(dict.fromkeys(table[series])) if series else [None]
    looks = {
        kind: {"marker": MARKERS[i % len(MARKERS)], "linestyle": DASHES[i % len(DASHES)], "color": colour,
               "markersize": 5, "elinewidth": 1, "capsize": 2.5, "label": words.called(series or "", kind)}
        for i, (kind, colour) in enumerate(zip(kinds, sns.color_palette(COLOURS, len(kinds)), strict=True))
    }  # fmt: skip
    with style():
        shape = (4.6 if across == 1 else WIDTH, height * down)
        fig, axes = plt.subplots(
            down, across, figsize=shape, squeeze=False, sharey=sharey, sharex=sharex, layout="constrained"
        )
        keys = [(row, scale) for row in rows for scale in scales]
        for axis in axes.flat[len(keys) :]:
            axis.axis("off")
        for (row, scale), axis in zip(keys, axes.flat, strict=False):
            part = table if row is None else table[table[panels] == row]
            draw(axis, part if scale is None else part[part["scale"] == scale], looks)
            titles = (words.called(panels or "", row), rows), (words.scale(str(scale)), scales)
            axis.set_title(
                textwrap.fill(", ".join(str(title) for title, among in titles if len(among) > 1), 64 // max(2, across))
            )
        for axis in axes.flat[max(0, len(keys) - across) : len(keys)]:  # the lowest of each column
            axis.set_xlabel(textwrap.fill(xlabel or "", 66 // across))
            axis.tick_params(labelbottom=True)
        for axis in axes[:, 0]:
            axis.set_ylabel(ylabel or "")
        if high := _legend(fig, axes, shape[0], 4):
            fig.set_figheight(shape[1] + 0.1 + 0.22 * high)
    return fig


def _legend(fig, axes, width, most, order=None):
    """Put one legend above all panels, its labels in this order; return its number of lines."""
    found = [axis.get_legend_handles_labels() for axis in axes.flat]
    legend = {label: handle for handles, labels in found for handle, label in zip(handles, labels, strict=True)}
    shown = [label for label in order or legend if label in legend]
    if order is None and len(shown) < 2:
        return 0
    columns = min(most, int(13 * width) // (7 + max(map(len, shown))) or 1)  # as many as fit side by side
    fig.legend([legend[label] for label in shown], shown, loc="outside upper center", ncol=columns, frameon=False)
    return -(-len(shown) // columns)


def _bars(found):
    """Return means and the lengths of the bars below and above, 0 where there is no bound; not beyond 0 and 100."""
    mean, low, high = (found.map(lambda interval, i=i: interval[i]) for i in range(3))
    below = (mean - low.clip(lower=mean.clip(upper=0))).where(low > -math.inf, 0.0)
    above = (high.clip(upper=mean.clip(lower=100)) - mean).where(high < math.inf, 0.0)
    return mean, [below, above]


def forest(table: pd.DataFrame, measures: Sequence[str] = (), *, squeezed: float = math.inf) -> Drawing:
    """Return a forest plot: for every line the mean difference over seeds with its interval, in points.

    `table` is that of `tables.contrasts`: a panel for each of the `measures` (across; default: all) and scale (down).
    The band is ±δ, in which a difference does not matter. What is not comparable is grey. An arrowhead: the interval
    goes on beyond the axis. A single seed has none. Where the table has `seeds`, its differences are small dots. Beyond
    ±`squeezed` the axis is logarithmic.
    """
    if measures:
        table = pd.concat([table[table["measure"] == name] for name in measures])
    if not len(table):
        with style():
            fig = plt.figure(figsize=(4.6, 0.6))
            fig.text(0.5, 0.5, "nothing to compare", ha="center", va="center")
        return Drawing(fig, "Nothing to compare.")
    scales, panels = (list(dict.fromkeys(table[name])) for name in ("scale", "measure"))
    strips = {scale: _grouped(own) for scale, own in table.groupby("scale", sort=False)}
    heights = [strips[scale][2] + 0.6 for scale in scales]
    with style():
        fig, axes = plt.subplots(
            len(scales), len(panels), figsize=(WIDTH, sum(heights) + 0.5), squeeze=False, sharey="row", sharex="col",
            height_ratios=heights, layout="constrained",
        )  # fmt: skip
        for (scale, measure), axis in zip(((s, m) for s in scales for m in panels), axes.flat, strict=True):
            own = table[(table["scale"] == scale) & (table["measure"] == measure)]
            heads, places, height = strips[scale]
            labels = [label for _, label in places.values()]
            _name(axis, heads, height, indent=max(map(_width, labels)))
            for line, delta in zip(own["line"].map(str), own["delta"], strict=True):
                middle = places[line][0]
                axis.fill_between([-delta, delta], middle - 0.08, middle + 0.08, color="#e4e4e4", linewidth=0, zorder=0)
                axis.vlines(0, middle - 0.08, middle + 0.08, color=GREY, linewidth=0.8, zorder=0.5)
            for outcome, part in own.groupby("outcome"):
                colour, marker, fill = OUTCOMES[outcome]
                place = [places[line][0] for line in part["line"].map(str)]
                bars = [(part[n] - part["mean"]).abs().where(part[n].abs() < math.inf, 0) for n in ("low", "high")]
                look = {"color": colour, "marker": marker, "markersize": 5, "linestyle": "none", "elinewidth": 1.3}
                filled = {"fillstyle": fill, "markerfacecoloralt": "white"}
                axis.errorbar(part["mean"], place, xerr=bars, label=outcome, **look, **filled)
                for at, seeds in zip(place, part.get("seeds", ()), strict=False):
                    axis.plot(seeds, [at + 0.055] * len(seeds), ".", color=colour, markersize=2.5, zorder=3)
            limits = _wide(table[table["measure"] == measure])  # the same at every scale
            axis.set(xlim=limits)
            if squeezed < max(map(abs, limits)):
                axis.set_xscale("symlog", linthresh=squeezed, linscale=1.5)
                ticks = [t for t in (-50, -squeezed, 0, squeezed, 50) if limits[0] <= t <= limits[1]]
                axis.xaxis.set(ticks=ticks, major_formatter="{x:g}", minor_locator=NullLocator())
            for end, limit, marker in (("low", limits[0], "<"), ("high", limits[1], ">")):
                cut = own[((own[end] - limit) * limit > 0) & (own[end].abs() < math.inf)]
                for line, colour in zip(cut["line"].map(str), (OUTCOMES[o][0] for o in cut["outcome"]), strict=True):
                    axis.plot(limit, places[line][0], marker, color=colour, markersize=4, clip_on=False)
            axis.tick_params(labelbottom=True)
            title = ", ".join(filter(None, [words.measure(measure), words.scale(scale) if len(scales) > 1 else ""]))
            axis.set_title(textwrap.fill(title, 60 // len(panels)))
        for row, scale in zip(axes, scales, strict=True):
            row[0].set_yticks(*zip(*strips[scale][1].values(), strict=True))
            for axis in row:
                axis.tick_params(axis="y", length=0)
        for axis in axes[-1]:
            axis.set_xlabel("points" if len(panels) > 2 else "difference in points")
        _legend(fig, axes, WIDTH, 3, OUTCOMES)
    told = words.differences(table, most=60)
    return Drawing(fig, f"Forest plot of differences in points. {told}.", scales=_scales(table))


def _grouped(own):
    """Return where rows of a forest plot go: {name of a group: (its top,)}, {line: (its middle, its label)}, height.

    The lines of one arm stand together under its name, each with its sparsity or size at the left, or the label that
    the table gives it; a line that is alone has its own name.
    """
    lines = own.drop_duplicates("line")
    if "head" not in lines:
        lines = lines.assign(head=lines["line"], unit="", at=0.0)
    if not (given := "label" in lines):
        numbers = zip(lines["at"], lines["unit"], strict=True)
        lines = lines.assign(label=[f"{at:,.0f}" if unit == "size" else f"{at:g}" for at, unit in numbers])
    heads, places, top = {}, {}, 0.04
    for (head, unit), group in lines.groupby(["head", "unit"], sort=False):
        alone = len(group) == 1
        name = str(group["line"].iloc[0]) if alone and unit else f"{head}, {AT[unit]}" if unit else str(head)
        heads[name] = (top,)
        top += LEADING * len(textwrap.wrap(name, LINE)) + 0.02
        for line, label in group.sort_values("at", kind="stable")[["line", "label"]].values:
            places[str(line)] = top + 0.09, "" if alone and not given else label
            top += 0.18
        top += 0.05
    return heads, places, top


def _width(label):
    """Return the width of the label of a row, in inches; points and letters are narrower than digits."""
    return DIGIT * (len(label) - label.count(".") / 2 - sum(map(str.isalpha, label)) / 4)


def _wide(own):
    """Return limits that hold every mean, every seed, and what is bounded of the intervals, not all of a wide one."""
    if not len(own):
        return -1, 1
    points = [*own["mean"], *(value for values in own.get("seeds", ()) for value in values)]
    ends = [own["low"].clip(lower=min(points) - 15).min(), own["high"].clip(upper=max(points) + 15).max()]
    return min(ends[0], -own["delta"].max()) - 1, max(ends[1], own["delta"].max()) + 1


def pictures(
    groups: dict[str, torch.Tensor], *, alt: str, titles: dict | None = None, scale: float = 1.0, columns: int = 1
) -> Drawing:
    """Return a figure of images: `groups` is {row label: images (n, C, H, W) in [0, 1]}, one row each under its label.

    `titles` {row label: one text an image}; `scale`: inches a side, less where the row would not fit into WIDTH.
    `columns`: into how many blocks of rows, side by side, to break them.
    """
    across = max(len(images) for images in groups.values())
    block = -(-len(groups) // columns)  # rows
    side = min(scale, (WIDTH - 0.2 * (columns - 1)) / (across * columns))
    fill = functools.partial(textwrap.fill, width=max(4, int(side / 0.083)), break_long_words=False)
    wrapped = {label: list(map(fill, texts)) for label, texts in (titles or {}).items() if label in groups}
    ends = [0.0] * columns
    with style():
        fig = plt.figure(figsize=(WIDTH, 1))
        axis = fig.add_axes((0, 0, 1, 1))
        for number, (label, images) in enumerate(groups.items()):
            left, top = (number // block) * (side * across + 0.2), ends[number // block]
            if label:
                axis.text(left, top + 0.02, label, va="top", weight="bold")
            above = LEADING * max((text.count("\n") + 1 for text in wrapped.get(label, [])), default=0)
            top += (LEADING + 0.05 if label else 0) + above
            for column, image in enumerate(images):
                pixels = image.detach().cpu().permute(1, 2, 0).numpy()
                pixels = pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels
                box = (left + (column + 0.03) * side, left + (column + 0.97) * side, top + 0.95 * side, top)
                axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=box, interpolation="nearest")
                frame = patches.Rectangle(
                    (box[0], top), 0.94 * side, 0.95 * side, fill=False, color=GREY, linewidth=0.6
                )
                axis.add_patch(frame)  # dark images end somewhere on a dark page, too
                if label in wrapped:
                    middle = left + (column + 0.5) * side
                    axis.text(middle, top - 0.03, wrapped[label][column], ha="center", va="bottom", linespacing=1.1)
            ends[number // block] = top + side + 0.1
        wide = columns * side * across + 0.2 * (columns - 1)
        axis.set(xlim=(0, wide), ylim=(max(ends), 0), aspect="auto")
        axis.axis("off")
        fig.set_size_inches(wide, max(ends))
        return Drawing(fig, alt, picture=True)
