"""What every schematic is drawn with: a page measured in inches, and on it boxes, arrows, pictures, strips of values
and the shapes that belong to them.

A page collects its lines and outlines and hands them to matplotlib at the end in a few collections: a drawing of some
hundred marks is then made as quickly as one of ten.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from vit_walkthrough.draw.plots import ROLES, STYLE, style

NEUTRAL = ROLES["neutral"]
INK = "#1A1A1A"
QUIET = "#9A9A9A"  # frames and guides that carry no role
TITLE, LABEL, WORDS, NOTE = 14, 10, 8.5, 8  # points; nothing is smaller
LINE = 1.4
SIGNED = "PuOr"
Number = int | float | np.floating


def pale(role: str, share: Number = 0.14) -> tuple[Number, ...]:
    """A role's colour mixed with white, opaque, so that what lies under a box does not shine through."""
    return tuple(1 - share * (1 - part) for part in to_rgb(ROLES[role]))


def shown(count: int, most: int) -> list[int | None]:
    """Which of `count` things to draw where `most` have room: all, or the first ones, a gap (None), the last."""
    return list(range(count)) if count <= most else [*range(most - 2), None, count - 1]


def _rounded(left: Number, bottom: Number, width: Number, height: Number, radius: Number) -> np.ndarray:
    radius = min(radius, width / 2, height / 2)
    turn = np.linspace(0, np.pi / 2, 7)
    arc = radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    right, top = left + width - radius, bottom + height - radius
    left, bottom = left + radius, bottom + radius
    corners = [(right, top), (left, top), (left, bottom), (right, bottom)]
    rotations = [np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return np.concatenate([corner + arc @ turned for corner, turned in zip(corners, rotations, strict=True)])


class Page:
    """A white page of width x height inches; (0, 0) is its lower left corner.

    title: what the picture shows. subtitle: the sentence with which it makes sense by itself.
    """

    def __init__(self, width: Number, height: Number, title: str = "", subtitle: str = ""):
        self.width, self.height = width, height
        with style():
            figure = Figure(figsize=(width, height))
            self.ax = figure.add_axes((0, 0, 1, 1))
            self.ax.set_axis_off()
        self._wires: list[tuple] = []
        self._lines: list[tuple] = []
        self._over: list[tuple] = []
        self._over_heads: list[tuple] = []
        self._heads: list[tuple] = []
        self._boxes: list[tuple] = []
        self._frames: list[tuple] = []
        self._dots: list[tuple] = []
        if title:
            self.text(0.25, height - 0.3, title, TITLE, bold=True, ha="left", colour=INK)
        if subtitle:
            self.text(0.25, height - 0.6, subtitle, LABEL, ha="left")

    def text(
        self, x: Number, y: Number, words: str, size: Number = LABEL, *, bold: bool = False, ha: str = "center",
        va: str = "center", colour: str = NEUTRAL, rotation: Number = 0,
    ) -> None:  # fmt: skip
        """Words at a place."""
        # The font is named here: to enter style() for every word takes longer than to draw it.
        self.ax.text(
            x, y, words, size=size, ha=ha, va=va, color=colour, rotation=rotation, linespacing=1.35,
            weight="bold" if bold else "normal", family=STYLE["font.family"], zorder=8,
        )  # fmt: skip

    def head(self, x: Number, y: Number, words: str, ha: str = "center") -> None:
        """The name of a thing, bold."""
        self.text(x, y, words, bold=True, ha=ha, colour=INK)

    def small(self, x: Number, y: Number, words: str, ha: str = "center") -> None:
        """What is said beside a thing."""
        self.text(x, y, words, WORDS, ha=ha)

    def shape(self, x: Number, y: Number, words: str, sizes, ha: str = "center", va: str = "top") -> None:
        """The shape of what is there: its numbers, and under them its axis words, which `sizes` is asked for."""
        numbers = " × ".join(f"{size_of(sizes, word):,}" for word in words.split())
        top = y + (0.31 if va == "bottom" else 0.155 if va == "center" else 0)
        self.text(x, top, numbers, LABEL, bold=True, ha=ha, va="top", colour=INK)
        self.text(x, top - 0.175, " × ".join(words.split()), WORDS, ha=ha, va="top")

    def box(
        self, x: Number, y: Number, width: Number, height: Number, words: str = "", role: str = "neutral",
        size: Number = LABEL, fill=None, radius: Number = 0.08, line: Number = LINE, edge: str | None = None,
        bold: bool = False,
    ) -> None:  # fmt: skip
        """A rounded box about (x, y), pale in its role's colour, with words inside."""
        verts = _rounded(x - width / 2, y - height / 2, width, height, radius)
        self._boxes.append((verts, pale(role) if fill is None else fill, edge or ROLES[role], line))
        if words:
            self.text(x, y, words, size, colour=INK, bold=bold)

    def polygon(self, points: Sequence, role: str = "neutral", fill=None, line: Number = LINE) -> None:
        """A filled shape of any outline."""
        self._boxes.append((np.array(points), pale(role) if fill is None else fill, ROLES[role], line))

    def line(self, *points, colour: str = NEUTRAL, width: Number = LINE, behind: bool = False) -> None:
        """A line through the points; `behind`, below the boxes that stand on it."""
        (self._wires if behind else self._lines).append((points, colour, width))

    def over_arrow(self, start: tuple, end: tuple, head: Number = 0.1) -> None:
        """An arrow to the right in front of a picture, dark with a white border, so that it shows on any ground."""
        (x, y), (tip, _) = start, end
        for grown, colour, width in ((0.03, "white", 3.6), (0, INK, 1.5)):
            self._over.append((((x - grown, y), (tip - head / 2, y)), colour, width))
            point = [
                (tip + grown, y),
                (tip - head - grown / 2, y + 0.05 + grown),
                (tip - head - grown / 2, y - 0.05 - grown),
            ]
            self._over_heads.append((np.array(point), colour))

    def arrow(
        self, *points, colour: str = NEUTRAL, width: Number = LINE, head: Number = 0.11, behind: bool = False
    ) -> None:  # fmt: skip
        """A line through the points that ends exactly at the last one, in a filled head."""
        end, before = np.array(points[-1], float), np.array(points[-2], float)
        along = (end - before) / np.linalg.norm(end - before)
        across = np.array([-along[1], along[0]])
        neck = end - along * head
        self.line(*points[:-1], tuple(neck + along * head * 0.3), colour=colour, width=width, behind=behind)
        self._heads.append((np.array([end, neck + across * head * 0.42, neck - across * head * 0.42]), colour))

    def frame(
        self, left: Number, bottom: Number, width: Number, height: Number, colour: str = QUIET, line: Number = 1
    ) -> None:
        """An outline in front of pictures."""
        corners = [(left, bottom), (left + width, bottom), (left + width, bottom + height), (left, bottom + height)]
        self._frames.append((np.array(corners), colour, line))

    def dots(self, x: Number, y: Number, down: bool = False, step: Number = 0.07, size: Number = 3.2) -> None:
        """Three dots for what is left out, drawn so that they centre on a row or a column as no glyph does."""
        for k in (-1, 0, 1):
            self.dot(*((x, y + k * step) if down else (x + k * step, y)), size)

    def dot(self, x: Number, y: Number, size: Number = 10, colour: str = NEUTRAL) -> None:
        """One point."""
        self._dots.append((x, y, size, colour))

    def image(
        self, pixels, left: Number, bottom: Number, width: Number, height: Number, frame: str | None = QUIET,
        line: Number = 0.8, **kwargs,
    ) -> AxesImage:  # fmt: skip
        """Pixels or values as a picture, with an outline."""
        # Not by imshow, which looks at the limits of the axes each time.
        limits = kwargs.pop("vmin", 0), kwargs.pop("vmax", 1)
        kwargs = dict(interpolation="antialiased") | kwargs
        artist = AxesImage(self.ax, extent=(left, left + width, bottom, bottom + height), zorder=4, **kwargs)
        artist.set_data(pixels)
        artist.set_clim(*limits)
        self.ax.add_image(artist)
        if frame:
            self.frame(left, bottom, width, height, frame, line)
        return artist

    def picture(self, pixels, x: Number, y: Number, room: Number, rows: int = 0, cols: int = 0) -> tuple:
        """A photograph about (x, y), its longer side `room` inches, with white lines between rows x cols patches.

        Returns its left, bottom, width and height.
        """
        longer = max(pixels.shape[:2])
        width, height = room * pixels.shape[1] / longer, room * pixels.shape[0] / longer
        left, bottom = x - width / 2, y - height / 2
        self.image(pixels, left, bottom, width, height, NEUTRAL, 1)
        if rows:
            self.grid(left, bottom, width, height, rows, cols, min(1.0, 5.5 * width / cols))
        return left, bottom, width, height

    def grid(
        self, left: Number, bottom: Number, width: Number, height: Number, rows: int, cols: int, line: Number = 0.7,
        colour: str = "white",
    ) -> None:  # fmt: skip
        """Lines between rows x cols cells, over a picture."""
        across = [((left, y), (left + width, y)) for y in np.linspace(bottom, bottom + height, rows + 1)[1:-1]]
        up = [((x, bottom), (x, bottom + height)) for x in np.linspace(left, left + width, cols + 1)[1:-1]]
        if across or up:
            self.ax.add_collection(LineCollection(across + up, colors=colour, lw=line, zorder=4.5), autolim=False)

    def strip(
        self, values, left: Number, y: Number, width: Number, role: str, *, height: Number = 0.2, cells: int = 10,
        scale: Number | None = None, down: bool = False,
    ) -> AxesImage:  # fmt: skip
        """A vector: its first `cells` values as coloured cells, dots if there are more, framed in its role's colour.

        It begins at `left` and is centred on y; with `down` it begins at the top, y, and is centred on `left`. scale:
        the value of the fullest colour, by default the largest shown.
        """
        values = np.asarray(values)
        more = len(values) > cells
        kept = values[: cells - 2] if more else values
        scale = scale or float(np.abs(kept).max()) or 1.0
        colours = dict(cmap=SIGNED, vmin=-scale, vmax=scale, interpolation="nearest", frame=None)
        full = width * (cells - 2) / cells if more else width
        if down:
            artist = self.image(kept[:, None], left - height / 2, y - full, height, full, **colours)
            self.grid(left - height / 2, y - full, height, full, len(kept), 1)
            self.frame(left - height / 2, y - width, height, width, ROLES[role], 1.6)
        else:
            artist = self.image(kept[None], left, y - height / 2, full, height, **colours)
            self.grid(left, y - height / 2, full, height, 1, len(kept))
            self.frame(left, y - height / 2, width, height, ROLES[role], 1.6)
        if more:
            middle, step = (full + width) / 2, (width - full) / 3.6
            place = (left, y - middle) if down else (left + middle, y)
            self.dots(*place, down=down, step=step, size=2.6)
        return artist

    def matrix(
        self, values, left: Number, bottom: Number, width: Number, height: Number, role: str = "neutral",
        scale: Number | None = None, line: Number = 1.6, **kwargs,
    ) -> AxesImage:  # fmt: skip
        """A matrix of signed values as cells, framed in its role's colour."""
        values = np.asarray(values)
        scale = scale or float(np.abs(values).max()) or 1.0
        colours = dict(cmap=SIGNED, vmin=-scale, vmax=scale, interpolation="nearest") | kwargs
        artist = self.image(values, left, bottom, width, height, ROLES[role], line, **colours)
        if max(values.shape) <= 32:
            self.grid(left, bottom, width, height, *values.shape, line=0.5)
        return artist

    def plus(self, x: Number, y: Number, radius: Number = 0.13) -> None:
        """The node where two streams are added."""
        turn = np.linspace(0, 2 * np.pi, 33)[:-1]
        circle = np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1)
        self._boxes.append((circle, "white", NEUTRAL, LINE))
        arm = radius * 0.55
        self._frames.append((np.array([(x - arm, y), (x + arm, y)]), INK, 1.8))
        self._frames.append((np.array([(x, y - arm), (x, y + arm)]), INK, 1.8))

    def sign(self, x: Number, y: Number, words: str, size: Number = 15) -> None:
        """+, = or × between two things, large and quiet."""
        self.text(x, y, words, size, colour=INK)

    def chip(self, x: Number, y: Number, number: int) -> None:
        """The number of a step in a dark disc."""
        turn = np.linspace(0, 2 * np.pi, 41)[:-1]
        circle = np.stack([x + 0.125 * np.cos(turn), y + 0.125 * np.sin(turn)], axis=1)
        self._boxes.append((circle, NEUTRAL, NEUTRAL, 0.5))
        self.text(x, y - 0.003, str(number), 9.5, bold=True, colour="white")

    def bracket(self, start: tuple, end: tuple, depth: Number = 0.07) -> None:
        """A square bracket from start to end, its ends bent to the left of the way (a negative depth: to the right)."""
        start, end = np.array(start, float), np.array(end, float)
        along = (end - start) / np.linalg.norm(end - start)
        bend = np.array([-along[1], along[0]]) * depth
        self.line(tuple(start + bend), tuple(start), tuple(end), tuple(end + bend), width=1.1)

    def measure(self, start: tuple, end: tuple) -> None:
        """A line with a head at both ends, as for a length in a plan."""
        middle = tuple((np.array(start) + np.array(end)) / 2)
        self.arrow(middle, start, width=1, head=0.08)
        self.arrow(middle, end, width=1, head=0.08)

    def cross(self, x: Number, y: Number, arm: Number) -> None:
        """What has been struck out."""
        for rise in (arm, -arm):
            self._frames.append((np.array([(x - arm, y - rise), (x + arm, y + rise)]), INK, 1.3))

    def die(self, x: Number, y: Number, step: Number) -> None:
        """The five of a die, white."""
        for right, up in ((-1, -1), (-1, 1), (0, 0), (1, -1), (1, 1)):
            self.dot(x + right * step, y + up * step, 13, "white")

    def bars(
        self, values, left: Number, bottom: Number, width: Number, height: Number, role: str, marked: int | None = None
    ) -> None:
        """Bars on a base line at `bottom`, the highest `height`; the marked one is filled, the rest are pale."""
        values = np.asarray(values, float)
        pitch = width / len(values)
        peak = values.max() or 1.0
        for place, value in enumerate(values):
            x, top = left + place * pitch, max(height * value / peak, 0.012)
            corners = [(x + 0.1 * pitch, bottom), (x + 0.9 * pitch, bottom)]
            corners += [(x + 0.9 * pitch, bottom + top), (x + 0.1 * pitch, bottom + top)]
            fill = ROLES[role] if place == marked else pale(role, 0.35)
            self._boxes.append((np.array(corners), fill, ROLES[role], 0.8))
        self.line((left, bottom), (left + width, bottom), width=1)

    def key(self, words: str) -> None:
        """At the foot of the page: what the colours of the strips mean, and whose values they are."""
        ramp = np.linspace(-1, 1, 9)[None]
        self.image(ramp, 0.45, 0.17, 0.9, 0.11, cmap=SIGNED, vmin=-1, interpolation="nearest", line=0.6)
        self.text(0.34, 0.225, "−", NOTE + 1, colour=INK)
        self.text(1.46, 0.225, "+", NOTE + 1, colour=INK)
        self.text(1.65, 0.225, words, NOTE, ha="left")

    def done(self) -> Axes:
        """Everything collected, put on the page in a few strokes."""
        add = dict(autolim=False)
        if self._boxes:
            verts, fills, edges, widths = zip(*self._boxes, strict=True)
            boxes = PolyCollection(verts, facecolors=fills, edgecolors=edges, linewidths=widths, zorder=2)
            self.ax.add_collection(boxes, **add)
        for drawn, level in ((self._wires, 1), (self._lines, 3), (self._over, 5.1)):
            if drawn:
                paths, colours, widths = zip(*drawn, strict=True)
                lines = LineCollection(paths, colors=colours, linewidths=widths, zorder=level, capstyle="butt")
                lines.set_joinstyle("miter")
                self.ax.add_collection(lines, **add)
        for drawn, level in ((self._heads, 3.1), (self._over_heads, 5.2)):
            if drawn:
                verts, colours = zip(*drawn, strict=True)
                self.ax.add_collection(PolyCollection(verts, facecolors=colours, linewidths=0, zorder=level), **add)
        if self._frames:
            verts, colours, widths = zip(*self._frames, strict=True)
            frames = PolyCollection(verts, facecolors="none", edgecolors=colours, linewidths=widths, zorder=5)
            frames.set_joinstyle("miter")
            self.ax.add_collection(frames, **add)
        if self._dots:
            x, y, sizes, colours = zip(*self._dots, strict=True)
            self.ax.scatter(x, y, s=sizes, c=colours, linewidths=0, zorder=6)
        self.ax.set(xlim=(0, self.width), ylim=(0, self.height), aspect="auto")
        return self.ax


# The axis words whose sizes the config knows under another name.
_ALSO = {"queries": "tokens", "keys": "tokens", "ph": "patch_size", "pw": "patch_size"}


def size_of(sizes, word: str) -> int:
    """The length of the axis that `word` names: of a mapping, or of a config."""
    return sizes[word] if isinstance(sizes, dict) else getattr(sizes, _ALSO.get(word, word))
