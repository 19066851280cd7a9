"""The look of every picture, and its way into a notebook: colours, settings, what the plots share, `render`, `show`."""

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from html import escape

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

Number = int | float | np.floating  # to a type checker that is as strict as the tests' a float is no int
Marked = Mapping[int, str] | None  # from a patch or a row to the role in whose colour it is outlined
Names = Sequence[str] | None

# One colour for one role, in every notebook, diagram and widget (Okabe and Ito's colour-blind safe set).
ROLES = {
    "patch": "#0072B2",
    "class": "#D55E00",
    "position": "#009E73",
    "query": "#CC79A7",
    "key": "#E69F00",
    "value": "#56B4E9",
    "neutral": "#4D4D4D",
}
SMALL = 60_000  # bytes of a PNG that needs no palette
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titley": 1.0,  # if matplotlib had to find it, it would measure every label: half of the time of a drawing
    **dict.fromkeys("text.color axes.edgecolor axes.labelcolor xtick.color ytick.color".split(), ROLES["neutral"]),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 90,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
}
# The style over matplotlib's defaults, whatever a reader's matplotlibrc says. The backend is no matter of looks.
LOOK = {**matplotlib.rcParamsDefault, **STYLE}
del LOOK["backend"], LOOK["interactive"]


@contextmanager
def style():
    """The look of the walkthrough, for whatever is drawn inside the block; or, as `@style()`, inside the function."""
    # Only what differs: matplotlib checks every setting that it is given, which takes longer than many a plot.
    with matplotlib.rc_context({name: LOOK[name] for name in LOOK if matplotlib.rcParams[name] != LOOK[name]}):
        yield


def as_axes(ax: Axes | None, width: Number, height: Number, picture: np.ndarray | None = None) -> Axes:
    """`ax`, or the Axes of a new figure of width x height inches; with the picture, if there is one."""
    ax = Figure(figsize=(width, height)).subplots() if ax is None else ax
    if picture is not None:
        ax.imshow(picture, interpolation="nearest")
    return ax


def as_array(values, ndim: int | Sequence[int], expected: str) -> np.ndarray:
    """A tensor, an array or a list as an array that matplotlib can draw. Raises: ValueError, which begins with
    `expected`, for another number of axes or no values."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    values = np.asarray(values)
    if values.ndim not in np.atleast_1d(ndim) or not values.size:
        raise ValueError(f"{expected}, not an array of shape {values.shape}")
    return values


@style()
def side_by_side(count: int, *, width: Number = 9, height: Number = 3.2, ratios: Sequence[Number] | None = None):
    """`count` empty Axes in a row of one figure, for the plots to draw into."""
    axes = Figure(figsize=(width, height)).subplots(1, count, width_ratios=ratios, squeeze=False)[0]
    axes[0].figure.subplots_adjust(wspace=0.3)
    for ax in axes:
        ax.locator_params(nbins=5, steps=(1, 2, 5, 10))  # few labels, for each takes its time, and whole ones
    return axes


def colour_of(role: str) -> str:
    """The colour of a role. Raises: ValueError for an unknown one."""
    if role not in ROLES:
        raise ValueError(f"role {role!r} is unknown; choose {', '.join(ROLES)}")
    return ROLES[role]


def colours_of(marked: Marked, count: int) -> list[tuple[int, str]]:
    """Each marked place with its colour. Raises: ValueError for a place that is not one of `count`."""
    for place in marked or ():
        if not 0 <= place < count:
            raise ValueError(f"{place} cannot be marked; there are 0 to {count - 1}")
    return [(place, colour_of(role)) for place, role in (marked or {}).items()]


def outline(ax: Axes, place, size, colour: str, line: Number = 3, halo: bool = True) -> None:
    """A frame around a picture's pixels from `place` (top, left) on, of `size` (height, width); a halo sets it off."""
    (top, left), (height, width) = place, size
    effects = [withStroke(linewidth=line + 2, foreground="white")] if halo else None
    look = dict(fill=False, ec=colour, lw=line, clip_on=False, zorder=4, path_effects=effects)
    # Not add_patch, which would fit the axes' limits to it, and that takes time.
    ax.add_artist(Rectangle((left - 0.5, top - 0.5), width, height, **look))


def titled(ax: Axes, title: str | None, bare: bool = False) -> Axes:
    """The Axes with a title; `bare` of ticks and spines."""
    if bare:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    ax.set_title(title)
    return ax


@style()
def render(figure: Figure | Axes, caption="", colours: int | None = None, small: int = SMALL, dpi: int = 90) -> bytes:
    """A figure as the bytes of an opaque PNG, with the caption below it. colours: at most so many, if the file has
    `small` bytes or more without."""
    figure, words, buffer = getattr(figure, "figure", figure), None, io.BytesIO()
    if caption:
        height, lines = figure.get_figheight(), textwrap.wrap(caption, int(figure.get_figwidth() * 72 / 5.6))
        bottom = (figure.get_tightbbox().y0 - 0.12) / height
        words = figure.text(0.5, bottom, "\n".join(lines), va="top", ha="center", size=10, linespacing=1.4)
    packed = dict(pil_kwargs={"compress_level": 1}, bbox_inches="tight", pad_inches=0.12)
    try:
        figure.savefig(buffer, format="png", dpi=dpi, **packed)
    finally:
        if words:
            words.remove()
    if not colours:
        return buffer.getvalue()
    picture = Image.open(buffer).convert("RGB")
    if picture.width * picture.height < 300_000 and len(png := as_png(picture)) < small:
        return png
    # The means of k-means keep the thin lines in the colours of their roles. A quarter of the pixels is enough,
    # and of these 1,000 may still change.
    fewer = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.NEAREST)
    palette = fewer.quantize(colours, Image.Quantize.MAXCOVERAGE, kmeans=1000)
    return as_png(picture.quantize(palette=palette, dither=Image.Dither.NONE))


def as_png(picture: Image.Image) -> bytes:
    """The bytes of a picture as a small PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def show(figure: Figure | Axes, caption: str) -> None:
    """Display a figure in a notebook, with twice the pixels that it takes up, and below it the caption as text.

    caption: says what there is to see, also to those who cannot see it. Raises: ValueError if it is empty.
    """
    from IPython.display import display

    caption = " ".join(caption.split())
    if not caption:
        raise ValueError("the caption is empty; say in a sentence what the picture shows, with its numbers")
    png = render(figure, colours=256, dpi=180)
    about = {"alt": caption, "width": Image.open(io.BytesIO(png)).width // 2}
    png = base64.b64encode(png).decode()
    display({"image/png": png, "text/plain": caption}, raw=True, metadata={"image/png": about})
    display({"text/html": f"<p>{escape(caption)}</p>", "text/plain": caption}, raw=True)
