"""What the tests of plots read: artists of Axes, tiles of a canvas, words of a drawing, pixels of a PNG."""

import io
import itertools

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from vit_walkthrough.draw.theme import ROLES


def outlines(ax: Axes, role: str) -> list[tuple]:
    """(left, top, width, height) of each rectangle in the colour of a role."""
    boxes = [box for box in ax.patches if isinstance(box, Rectangle) and same_color(box.get_edgecolor(), ROLES[role])]
    return [(*box.get_xy(), box.get_width(), box.get_height()) for box in boxes]


def segments(ax: Axes) -> list:
    return [segment.tolist() for collection in ax.collections for segment in collection.get_segments()]


def words_at(ax: Axes) -> dict:
    return {text.get_text(): text.get_position() for text in ax.texts}


def ticks(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def tile_places(canvas: np.ndarray) -> list[tuple[slice, slice]]:
    """Where pictures stand on a white canvas, in reading order."""
    inked = (canvas < 1).any(axis=-1)

    def runs(flags: np.ndarray) -> list[slice]:
        return [slice(*pair) for pair in np.flatnonzero(np.diff(np.r_[0, flags, 0])).reshape(-1, 2)]

    places = itertools.product(runs(inked.any(axis=1)), runs(inked.any(axis=0)))
    return [place for place in places if inked[place].any()]


def words_drawn(figure: Figure) -> list[Text]:
    """The texts that drawing the figure really draws, ticks outside the picture left out."""
    seen, draw_text = [], Text.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", lambda text, renderer: (seen.append(text), draw_text(text, renderer)))
        figure.draw_without_rendering()
    return [text for text in seen if text.get_visible() and text.get_text().strip()]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    boxes = [(text.get_text(), text.get_window_extent().padded(-1)) for text in words_drawn(figure)]
    return [(one, two) for (one, box), (two, other) in itertools.combinations(boxes, 2) if box.overlaps(other)]


def linear(colour) -> np.ndarray:
    """A colour of the screen as the light (red, green, blue) that it gives."""
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def pixels_of(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
