"""Arrays in, Axes out, as in images.py: every plot of numbers along an axis: curves, bars, dots."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from vit_walkthrough.draw.theme import ROLES, Names, Number, as_array, as_axes, colour_of, style, titled

LINES = ["#0072B2", "#117733", "#AA4499", "#8A5A00", "#222222", "#882255", "#44777A"]  # dark enough for their labels
DASHES = ["-", "--", "-.", ":"]  # where a legend stands, colour alone is not enough
CHANCE = dict(color=ROLES["neutral"], lw=1.2, ls=":", zorder=0)


@style()
def plot_curves(curves: Mapping[str, tuple], *, role: str = "", xlabel=None, ylabel=None, title=None, ax=None) -> Axes:
    """Lines, each from (x, y). A single one has the colour of its role. Of several, each has a colour and its name at
    its end, or in a legend where another plot stands beside."""
    ax = as_axes(ax, 5.4, 3.4)
    beside = len(curves) > 1 and len(ax.figure.axes) > 1
    for index, (name, (x, y)) in enumerate(curves.items()):
        x, y = as_array(x, 1, "a curve's x has one axis"), as_array(y, 1, "a curve's y has one axis")
        colour = colour_of(role) if role and len(curves) == 1 else LINES[index % 7]
        ax.plot(x, y, color=colour, ls=DASHES[index % 4] if beside else "-", label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if beside:
        ax.legend(labelcolor="linecolor", handlelength=2.2)
    elif len(curves) > 1:
        _name_ends(ax)
    return titled(ax, title)


def _name_ends(ax: Axes) -> None:
    """The name of each line right of its end, none over another."""
    points, (low, high) = 72 * ax.figure.get_figheight() * ax.get_position().height, ax.get_ylim()
    ends = {line: points * (line.get_ydata()[-1] - low) / (high - low) for line in ax.lines}
    lowest = -np.inf
    for line, end in sorted(ends.items(), key=lambda pair: pair[1]):
        lowest = max(end, lowest + 14)  # points, a line of text
        look = dict(textcoords="offset points", va="center", annotation_clip=False, color=line.get_color())
        ax.annotate(line.get_label(), line.get_xydata()[-1], (6, lowest - end), **look)


@style()
def plot_probabilities(probabilities, *, names: Names = None, title=None, ax=None) -> Axes:
    """The five likeliest classes of probabilities (classes,), the likeliest first."""
    probabilities = as_array(probabilities, 1, "probabilities are (classes,)")
    if names is not None and len(names) != len(probabilities):
        raise ValueError(f"{len(names)} names for {len(probabilities)} classes")
    order = np.argsort(-probabilities, kind="stable")[:5]
    labels = [names[index] if names is not None else f"class {index}" for index in order]
    if len(set(labels)) < len(labels):  # ImageNet has two classes "crane"
        labels = [f"{label} ({index})" for label, index in zip(labels, order, strict=True)]
    bars = dict(zip(labels, probabilities[order].tolist(), strict=True))
    return plot_bars(bars, unit="{:.1%}", limit=1, title=title, ax=ax)


@style()
def plot_bars(values: Mapping[str, Number], *, chance=None, unit="{:,.0f}", limit=None, title=None, ax=None) -> Axes:
    """Horizontal bars, the first at the top, each with its value written by the format `unit`. chance: where a dotted
    line stands. limit: of the axis."""
    ax = as_axes(ax, 5.6, 0.4 * len(values) + 0.5)
    bars = ax.barh(list(values), list(values.values()), color=ROLES["patch"], height=0.62)
    ground = dict(facecolor="white", edgecolor="none", pad=1)  # so that the dotted line runs through no number
    ax.bar_label(bars, map(unit.format, values.values()), padding=4, color=ROLES["neutral"], bbox=ground)
    if chance is not None:
        ax.axvline(chance, **CHANCE)
    ax.invert_yaxis()
    ax.set(xticks=[], xlim=(0, limit or max(*values.values(), chance or 0) * 1.02 or 1))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return titled(ax, title)


@style()
def plot_dots(
    samples: Mapping[str, Sequence[Number]], *, unit="{:.1%}", limits=None, chance=None, title=None, ax=None
) -> Axes:
    """Every measurement as a dot, a row for each name, the first at the top; the mean is marked, and written beside it
    by the format `unit`. limits: of the axis. chance: where a dotted line stands."""
    ax = as_axes(ax, 6.6, 0.4 * len(samples) + 0.8)
    for row, values in enumerate(samples.values()):
        values = as_array(list(values), 1, "the measurements of one name are a list")
        ax.plot(values, [row] * len(values), "o", color=ROLES["patch"], alpha=0.55, ms=7, mew=0)
        ax.plot([values.mean()] * 2, [row - 0.3, row + 0.3], color=ROLES["neutral"], lw=2)
        ax.text(1.02, row, unit.format(values.mean()), transform=ax.get_yaxis_transform(), va="center")
    if chance is not None:
        ax.axvline(chance, **CHANCE)
    ax.set_yticks(range(len(samples)), list(samples))
    ax.set(ylim=(len(samples) - 0.5, -0.5), xlim=limits)
    ticks = unit if "%" in unit else "{:g}"
    ax.xaxis.set_major_formatter(lambda value, place: ticks.format(value).replace(".0%", "%"))
    ax.grid(axis="x", color="#dddddd", lw=0.8)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)
    ax.tick_params(length=0)
    return titled(ax, title)
