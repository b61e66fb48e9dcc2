"""How figures look: readable in grey (markers and dashes differ, not only colours) and in dark mode."""

import math
from contextlib import contextmanager

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.ticker import LogLocator
from pandas.api.types import is_numeric_dtype

from sparselib import verdict

# Dark mode inverts lightness and keeps the hue, so charts have a white ground and dark ink. The palette is
# seaborn's "colorblind".
STYLE = {
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


@contextmanager
def style():
    """Draw in the style of the book."""
    with plt.rc_context(STYLE), sns.color_palette("colorblind"):
        yield


def against_sparsity(rows, *, series, panels, ylabel, xlabel="sparsity", chance=None, wrap=3, ylim=None, even=True):
    """Return a figure: mean of `value` over seeds against sparsity, with 95 % t intervals as bars.

    Args:
        rows: tidy DataFrame with the columns sparsity, seed, value, and those named by `series` and `panels`.
        series: the column that makes the lines. panels: the column that makes the panels.
        xlabel: what the column sparsity holds, if it is not that.
        chance: a level drawn as a dotted line, or None. wrap: panels in a row. ylim: (low, high) or None.
        even: space the sparsities evenly, which lie densely near 1; else draw to scale, each panel to its own.
    """
    with style():
        order = sorted(rows["sparsity"].unique())
        data = rows.assign(position=rows["sparsity"].map(order.index) if even else rows["sparsity"])
        several = rows[panels].nunique() > 1
        grid = sns.relplot(
            data=data, kind="line", x="position", y="value", hue=series, style=series, col=panels,
            col_wrap=min(wrap, rows[panels].nunique()), markers=True, markersize=6, dashes=True, err_style="bars",
            err_kws={"capsize": 2.5, "elinewidth": 1}, errorbar=lambda v: verdict.interval(v)[1:],
            height=2.5 if several else 3.2, aspect=1.15 if several else 1.8, palette="colorblind",
            facet_kws={"legend_out": False, "sharex": even},
        )  # fmt: skip
        grid.set_titles("{col_name}")
        grid.set_axis_labels(xlabel, ylabel)
        for axes in grid.axes.flat:
            if even:
                axes.set_xticks(range(len(order)), [f"{s:g}" for s in order])
            if chance is not None:
                axes.axhline(chance, color="#777777", linestyle=":", linewidth=1)
        if ylim is not None:
            grid.set(ylim=ylim)
        sns.move_legend(grid, "upper center", bbox_to_anchor=(0.5, 1.08), ncol=rows[series].nunique(), title=None)
        return grid.figure


def pictures(groups, *, titles=None, scale=1.0, columns=1):
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
            axis.set(xlim=(-1.6 / scale, across), ylim=(rows * 1.1, -0.2), aspect="equal")
        for number, (label, images) in enumerate(groups.items()):
            axis, top = axes.flat[number // rows], 1.1 * (number % rows)
            axis.text(-0.15, top + 0.5, label.replace("_", " "), ha="right", va="center")
            for column, image in enumerate(images):
                pixels = image.detach().cpu().permute(1, 2, 0).numpy()
                pixels = pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels
                box = (column + 0.03, column + 0.97, top + 0.97, top + 0.03)
                axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=box, interpolation="nearest")
                if titles and label in titles:
                    axis.text(column + 0.5, top, titles[label][column], ha="center", va="bottom", fontsize=8)
            axis.set(xlim=(-1.6 / scale, across), ylim=(rows * 1.1, -0.2))
        return fig


def dots(rows, *, category, series, xlabel, panels=None):
    """Return a figure: mean of `value` over seeds, one line per category, with 95 % t intervals as bars.

    Args: rows: tidy DataFrame with the columns value and those named by `category` (down the axis), `series` (colours
    and markers) and `panels`, or None.
    """
    with style():
        kinds, height = list(rows[series].unique()), 0.8 + 0.34 * rows[category].nunique()
        width = 7 / rows[panels].nunique() if panels else 7
        grid = sns.catplot(
            data=rows, kind="point", y=category, x="value", hue=series, col=panels, dodge=0.4 * (len(kinds) > 1),
            markers=["o", "s", "^", "D", "v", "P", "X"][: len(kinds)], linestyle="none", markersize=6, capsize=0.15,
            err_kws={"linewidth": 1}, errorbar=lambda v: verdict.interval(v)[1:], height=height,
            aspect=width / height, palette="colorblind", legend_out=False, legend=len(kinds) > 1,
        )  # fmt: skip
        grid.set_axis_labels(xlabel, "")
        if panels:
            grid.set_titles("{col_var} {col_name}" if is_numeric_dtype(rows[panels]) else "{col_name}")
        if len(kinds) > 1:
            sns.move_legend(grid, "upper center", bbox_to_anchor=(0.5, 1 + 0.35 / height), ncol=len(kinds), title=None)
        return grid.figure


def against_cost(rows, *, cost, series, xlabel, ylabel, panels=None, wrap=2, chance=None):
    """Return a figure: means over seeds of `value` against a cost, on a logarithmic axis; a line joins all sizes.

    Args:
        rows: tidy DataFrame with the columns sparsity, seed, value (in percent), and those named by `cost`, `series`,
            `panels`.
        wrap: panels in a row. chance: a level drawn as a dotted line, or None.

    Bars are 95 % t intervals of the value.
    """
    names, looks = list(rows[panels].unique()) if panels else [None], "os^DvPX"
    across = min(wrap, len(names))
    down = -(-len(names) // across)
    with style():
        colours = sns.color_palette("colorblind")  # not "C0" …: those are looked up when the figure is saved
        fig, axes = plt.subplots(
            down, across, figsize=(max(4.6, 3.3 * across), 0.5 + 2.6 * down), squeeze=False, sharex=True,
            layout="constrained",
        )  # fmt: skip
        for axis in axes.flat[len(names) :]:
            axis.axis("off")
        for number, (axis, name) in enumerate(zip(axes.flat, names, strict=False)):
            part = rows[rows[panels] == name] if panels else rows
            for k, kind in enumerate(rows[series].unique()):
                own = part[part[series] == kind].groupby("sparsity")
                if not own.ngroups:
                    continue
                x, bounds = own[cost].mean(), own["value"].agg(verdict.interval)
                mean, low, high = (bounds.map(lambda b, i=i: b[i]) for i in range(3))
                bars = [(mean - low).where(low > -math.inf, 0), (high - mean).where(high < math.inf, 0)]
                axis.errorbar(
                    x, mean, bars, marker=looks[k % len(looks)], markersize=6, linestyle=["-", "--", ":", "-."][k % 4],
                    linewidth=1.3, elinewidth=1, capsize=2.5, color=colours[k % len(colours)], label=kind,
                )  # fmt: skip
            low, high = axis.get_ylim()
            low = low if chance is None else min(low, chance - 2)
            lowest = number + across >= len(names)
            axis.set(xscale="log", xlabel=xlabel if lowest else "", ylabel=ylabel, title=name or "")
            axis.tick_params(labelbottom=lowest)
            axis.set_ylim(max(low, -2), min(high, 102))
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter("")
            if chance is not None:
                axis.axhline(chance, color="#777777", linestyle=":", linewidth=1)
        handles, labels = max((a.get_legend_handles_labels() for a in axes.flat), key=lambda found: len(found[1]))
        fig.legend(handles, labels, loc="outside upper center", ncol=min(2, len(labels)), frameon=False)
        return fig


def verdicts(counts):
    """Return a figure of stacked bars: one for each claim and scale, cut into supported, undecided, contradicted.

    All bars are equally long, for claims have few comparisons or hundreds; the numbers say how many.

    Args: counts: DataFrame with the columns claim, scale, supported, undecided, contradicted.
    """
    looks = {"supported": ("#0173b2", ""), "undecided": ("#dddddd", "..."), "contradicted": ("#de8f05", "///")}
    with style():
        fig, axis = plt.subplots(figsize=(7, 0.9 + 0.42 * len(counts)))
        names = [f"{c}, {s}" for c, s in zip(counts["claim"], counts["scale"], strict=True)]
        total = counts[list(looks)].sum(axis=1)
        left = 0 * total
        for name, (colour, hatch) in looks.items():
            share = 100 * counts[name] / total
            bars = axis.barh(names, share, left=left, color=colour, hatch=hatch, edgecolor="white", label=name)
            labels = [str(n) if n else "" for n in counts[name]]
            axis.bar_label(
                bars, labels, label_type="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1}
            )
            left = left + share
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set_xlim(0, 100)
        axis.set_xlabel("% of the comparisons")
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncol=len(looks), frameon=False)
        return fig
