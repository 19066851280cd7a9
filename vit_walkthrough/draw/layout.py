"""What every schematic is made of: parts in rows and columns, on a page that is measured in inches.

A part knows its size and paints itself; a grid is a part made of parts. Painted parts know where they are, so that
arrows can join them. A page hands its outlines to matplotlib in a few collections, which is quick.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.textpath import text_to_path

from vit_walkthrough.draw.images import COLORMAPS
from vit_walkthrough.draw.theme import ROLES, STYLE, Number

NEUTRAL = ROLES["neutral"]
INK = "#1A1A1A"
QUIET = "#9A9A9A"  # frames that carry no role
TITLE, LABEL, WORDS, NOTE = 14, 10, 8.5, 8  # points; nothing is smaller
BAND, WIRE, BOX, LINE, IMAGE, FRAME, TEXT = range(7)  # what lies on what
TURN = (np.linspace(0, np.pi / 2, 7) + np.pi / 2 * np.arange(4)[:, None]).ravel()  # seven angles in each quarter
ARCS = np.stack([np.cos(TURN), np.sin(TURN)], axis=1)
CORNERS = np.repeat([(1, 1), (-1, 1), (-1, -1), (1, -1)], 7, axis=0)  # the corner that each of them rounds


def pale(role: str, share: Number = 0.14) -> tuple[Number, ...]:
    """A role's colour mixed with white, opaque, so that nothing under a box shines through."""
    return tuple(1 - share * (1 - part) for part in to_rgb(ROLES[role]))


class Page:
    """A white page of width x height inches; (0, 0) is its lower left corner."""

    def __init__(self, width: Number, height: Number):
        self.ax = Figure(figsize=(width, height)).add_axes((0, 0, 1, 1))
        self.ax.set(xlim=(0, width), ylim=(0, height))
        self.ax.set_axis_off()
        self._lines, self._shapes = defaultdict(list), defaultdict(list)

    def put(self, part: "Part", x: Number, y: Number) -> None:
        """Paint a part about (x, y), or with its left or right edge at x if that is how it is aligned."""
        part.x, part.y = x + part.width * (0.5 - part.align), y
        part.left, part.right = part.x - part.width / 2, part.x + part.width / 2
        part.top, part.bottom = y + part.height / 2, y - part.height / 2
        part.paint(self, part.x, y)

    def line(self, *points, colour=NEUTRAL, width: Number = 1.4, level: int = LINE) -> None:
        """A line through the points."""
        self._lines[level].append((points, colour, width))

    def arrow(self, *points, colour=NEUTRAL, width: Number = 1.4, head: Number = 0.11, level: int = LINE) -> None:
        """A line through the points that ends exactly at the last one, in a filled head."""
        end, before = np.array(points[-1], float), np.array(points[-2], float)
        along = head * (end - before) / np.linalg.norm(end - before)
        across, neck = 0.42 * np.array([-along[1], along[0]]), end - along
        self.line(*points[:-1], tuple(end - 0.7 * along), colour=colour, width=width, level=level)
        self._shapes[max(level, LINE)].append(([end, neck + across, neck - across], colour, colour, 0))

    def rectangle(self, x, y, width, height, fill="none", edge=NEUTRAL, line=1.4, level=FRAME, radius=0.0) -> None:
        """A rectangle about (x, y), with rounded corners if it has a radius."""
        sides = np.array([width, height]) / 2 - radius
        points = (x, y) + CORNERS * sides + radius * ARCS if radius else (x, y) + CORNERS[::7] * sides
        self._shapes[level].append((points, fill, edge, line))

    def done(self) -> Axes:
        """Everything that was collected, put on the page in a few strokes."""
        for kind, drawn in ((LineCollection, self._lines), (PolyCollection, self._shapes)):
            for level, marks in drawn.items():
                points, *fills, edges, widths = zip(*marks, strict=True)
                colours = dict(facecolors=fills[0], edgecolors=edges) if fills else dict(colors=edges)
                collection = kind(points, linewidths=widths, zorder=level + 0.5, joinstyle="miter", **colours)
                self.ax.add_collection(collection, autolim=False)
        return self.ax


@dataclass
class Part:
    """Something with a size, in inches. align: 0 stands at the left of its column, 1 at the right. Once it is put on a
    page, it has its middle (x, y) and its edges: left, right, top and bottom."""

    width: Number
    height: Number
    paint: Callable = lambda page, x, y: None  # about its centre
    align: Number = 0.5


def grid(rows: Sequence[Sequence[Part | None]], across=0.15, down=0.12, high=0.0) -> Part:
    """Parts in rows and columns, None where a cell is empty. high: what a row measures at least."""
    widths = [max([0, *(part.width for part in column if part)]) for column in zip(*rows, strict=True)]
    heights = [max([high, *(part.height for part in row if part)]) for row in rows]
    width, height = sum(widths) + across * (len(widths) - 1), sum(heights) + down * (len(heights) - 1)

    def paint(page, x, y):
        top = y + height / 2
        for row, tall in zip(rows, heights, strict=True):
            left = x - width / 2
            for part, room in zip(row, widths, strict=True):
                if part:
                    page.put(part, left + room * part.align, top - tall / 2)
                left += room + across
            top -= tall + down

    return Part(width, height, paint)


def row(*parts: Part | None, across: Number = 0.15) -> Part:
    """Parts side by side."""
    return grid([parts], across)


def column(*parts: Part | None, down: Number = 0.08) -> Part:
    """Parts one below the other."""
    return grid([[part] for part in parts], down=down)


def columns(*parts: Sequence[Part | None], across=0.15, down=0.12, high=0.0) -> Part:
    """The same from its columns."""
    return grid(list(zip(*parts, strict=True)), across, down, high=high)


def words(text: str, size: Number = WORDS, *, bold=False, colour=NEUTRAL, align: Number = 0.5) -> Part:
    """A text of one line or several."""
    lines, weight = text.split("\n"), "bold" if bold else "normal"
    font = FontProperties(family=STYLE["font.family"], size=size, weight=weight)
    width = max(1.02 * text_to_path.get_text_width_height_descent(line, font, "$" in line)[0] / 72 for line in lines)
    look = dict(size=size, color=colour, weight=weight, zorder=TEXT + 0.5)
    look |= dict(ha={0: "left", 0.5: "center", 1: "right"}[align], va="center", linespacing=1.35)

    def paint(page, x, y):
        if text:
            page.ax.text(x + width * (align - 0.5), y, text, **look)

    return Part(width, len(lines) * size * 1.4 / 72, paint, align)


def head(text: str, size: Number = LABEL, align: Number = 0.5) -> Part:
    """The name of a thing."""
    return words(text, size, bold=True, colour=INK, align=align)


def sign(text: str, size: Number = 15) -> Part:
    """A sign between two things."""
    return words(text, size, colour=INK)


def shape(config, axes: str) -> Part:
    """The numbers of a shape over its axis words, whose sizes are those of a config."""
    names = axes.split()
    sizes = head(" × ".join(f"{getattr(config, name):,}" for name in names))
    return column(sizes, words(" × ".join(names)), down=-0.01)


def dots(down: bool = True, step: Number = 0.07) -> Part:
    """Three dots for what is left out, drawn: no glyph stands exactly in the middle."""

    def paint(page, x, y):
        for k in (-step, 0, step):
            page.rectangle(*((x, y + k) if down else (x + k, y)), 0.025, 0.025, NEUTRAL, line=0, radius=0.0125)

    return Part(0.2, 0.2, paint)


def arrow(length: Number = 0.5, above: str = "", *, up: int = 0) -> Part:
    """An arrow to the right with words above it; with `up` = 1 upwards, with -1 downwards."""
    label = words(above, WORDS + 0.5)
    width, height = (0.2, length) if up else (max(length, label.width), 0.2)

    def paint(page, x, y):
        across, along = (0, up * length / 2) if up else (width / 2, 0)
        page.arrow((x - across, y - along), (x + across, y + along))
        page.put(label, x, y + label.height / 2 + 0.04)

    return Part(width, height, paint)


def box(inside, role="neutral", width=0.0, height=0.0, *, pad=0.1, **look) -> Part:
    """A rounded box, pale in its role's colour, around words or a part."""
    inside = words(inside, LABEL, colour=INK) if isinstance(inside, str) else inside
    width, height = width or inside.width + 2 * pad, height or inside.height + 2 * pad
    look = dict(fill=pale(role), edge=ROLES[role], level=BOX, radius=min(0.08, height / 5)) | look

    def paint(page, x, y):
        page.rectangle(x, y, width, height, **look)
        page.put(inside, x, y)

    return Part(width, height, paint)


def picture(pixels, width, height, rows=1, cols=1, edge=NEUTRAL, line=1.0, limits=(0, 1), **colours) -> Part:
    """Pixels, or values with a colour map, with white lines between rows x cols cells and an outline."""

    def paint(page, x, y):
        left, right, bottom, top = extent = x - width / 2, x + width / 2, y - height / 2, y + height / 2
        # Not by imshow, which looks at the limits of the axes each time.
        artist = AxesImage(page.ax, extent=extent, origin="upper", zorder=IMAGE, interpolation="antialiased")
        artist.set(data=pixels, clim=limits, **colours)
        page.ax.add_image(artist)
        thin = min(1.0, 5.5 * width / cols)
        for up in np.linspace(bottom, top, rows + 1)[1:-1]:
            page.line((left, up), (right, up), colour="white", width=thin, level=IMAGE)
        for across in np.linspace(left, right, cols + 1)[1:-1]:
            page.line((across, bottom), (across, top), colour="white", width=thin, level=IMAGE)
        page.rectangle(x, y, width, height, edge=edge, line=line)

    return Part(width, height, paint)


def matrix(values, width, height, role="neutral", *, scale=None, line=1.6, **colours) -> Part:
    """Values as cells, signed if no other colours are told. scale: of the fullest colour, by default the largest."""
    scale = scale or float(np.nanmax(np.abs(values))) or 1.0
    colours = dict(cmap=COLORMAPS["signed"], limits=(-scale, scale), interpolation="nearest") | colours
    return picture(values, width, height, *values.shape, ROLES[role], line, **colours)


def strip(values, role, width: Number, *, cells: int = 10, scale=None) -> Part:
    """A vector: its first `cells` values, or two fewer and dots."""
    kept, used, height = values, width, 0.2
    if len(values) > cells:
        kept, used = values[: cells - 2], width * (cells - 2) / cells
    shown, rest = matrix(kept[None], used, height, role, scale=scale, line=0), dots(False, (width - used) / 3.6)

    def paint(page, x, y):
        page.put(shown, x + (used - width) / 2, y)
        if used < width:
            page.put(rest, x + used / 2, y)
        page.rectangle(x, y, width, height, edge=ROLES[role], line=1.6)

    return Part(width, height, paint)


def page(title: str, subtitle: str, body: Part, note: str = "") -> Page:
    """A page: its title, the sentence with which it makes sense by itself, a body, and what its colours mean."""
    top = body.height + 1.45
    sheet = Page(10, top)
    sheet.put(head(title, TITLE, 0), 0.25, top - 0.3)
    sheet.put(words(subtitle, LABEL, align=0), 0.25, top - 0.6)
    sheet.put(body, 5, top - 0.9 - body.height / 2)
    if note:
        colours = picture(np.linspace(0, 1, 256)[None], 0.9, 0.11, cmap=COLORMAPS["signed"], line=0.6)
        legend = row(sign("−", NOTE), colours, sign("+", NOTE), words(note, NOTE), across=0.08)
        sheet.put(replace(legend, align=0), 0.25, 0.22)
    return sheet
