"""Arrays in, Axes out: every picture of the walkthrough that shows data.

The data come first, the rest by keyword; `ax` is drawn into if it is given, else a new figure is made. Nothing here
knows a model, touches pyplot or changes matplotlib's settings for anyone else.
"""

import base64
import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, wraps

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.path import Path
from matplotlib.textpath import TextPath

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
Number = int | float  # to a type checker that is as strict as the tests' a float is no int
COLORMAPS = {"magnitude": "viridis", "weights": "viridis", "similarity": "PuOr", "signed": "PuOr"}
SMALL = 60_000  # bytes of a PNG that needs no palette
WIDEST = 810  # pixels from side to side of a page: 9 inches at 90 dots each
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "axes.edgecolor": ROLES["neutral"],
    "axes.labelcolor": ROLES["neutral"],
    "axes.titlecolor": ROLES["neutral"],
    "axes.titley": 1.0,  # told, it need not be found by measuring every label, which takes half of the drawing
    "text.color": ROLES["neutral"],
    "xtick.color": ROLES["neutral"],
    "ytick.color": ROLES["neutral"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 90,
    "savefig.dpi": 90,
    "savefig.transparent": False,
    "savefig.bbox": "standard",
    "legend.frameon": False,
    "lines.linewidth": 2.2,
}


@contextmanager
def style():
    """The look of the walkthrough, for whatever is drawn inside the block."""
    with matplotlib.rc_context(STYLE):
        yield


def _styled(plot):
    @wraps(plot)
    def styled_plot(*args, **kwargs):
        with style():
            return plot(*args, **kwargs)

    return styled_plot


def _axes(ax: Axes | None, width: Number, height: Number) -> Axes:
    return Figure(figsize=(width, height)).subplots() if ax is None else ax


def _array(values, ndim: int | tuple[int, ...], what: str) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if values.is_floating_point() and values.element_size() < 4:  # NumPy has no bfloat16
            values = values.float()
    values = np.asarray(values)
    if values.dtype == np.float16:  # which matplotlib does not draw
        values = values.astype(np.float32)
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if values.ndim not in allowed or not values.size:
        raise ValueError(f"{what}, not an array of shape {values.shape}")
    return values


def _shades(values: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1] as floats: whole ones would be taken for bytes."""
    if values.dtype.kind not in "fb" and values.max() > 1:
        raise ValueError("an image is in [0, 1]; divide whole numbers by 255")
    return (values if values.dtype.kind == "f" else values.astype(np.float32)).clip(0, 1)


def _picture(image) -> np.ndarray:
    """(channels, height, width) or (height, width) in [0, 1] -> (height, width, 3)."""
    image = _array(image, (2, 3), "an image is (channels, height, width) or (height, width)")
    image = image[None] if image.ndim == 2 else image
    if len(image) not in (1, 3):
        raise ValueError(f"an image has 1 or 3 channels, not {len(image)}")
    return np.broadcast_to(_shades(image).transpose(1, 2, 0), (*image.shape[1:], 3))


def _bare(ax: Axes, title: str | None = None) -> Axes:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title)
    return ax


def _colour(role: str) -> str:
    if role not in ROLES:
        raise ValueError(f"role {role!r} is unknown; choose {', '.join(ROLES)}")
    return ROLES[role]


def _marks(marked: Mapping[int, str] | None, count: int) -> list[tuple[int, str]]:
    """What is to be outlined, of `count` things, and in which colour."""
    for place in marked or ():
        if not 0 <= place < count:
            raise ValueError(f"{place} cannot be marked; there are 0 to {count - 1}")
    return [(place, _colour(role)) for place, role in (marked or {}).items()]


def _outline(ax: Axes, row: Number, col: Number, side: Number, colour: str, width: Number = 3) -> None:
    corner = (col * side - 0.5, row * side - 0.5)
    for edge, line in (("white", width + 2), (colour, width)):  # in front of the lines between patches, too
        # Not add_patch, which would fit the axes' limits to it, at some cost: the picture has set them.
        ax.add_artist(Rectangle(corner, side, side, fill=False, ec=edge, lw=line, clip_on=False, zorder=3))


def _divide(ax: Axes, height: int, width: int, patch_size: int, line: Number) -> None:
    """White lines between patches."""
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(f"patch_size {patch_size} does not divide an image of {height} x {width} pixels")
    ax.hlines(np.arange(patch_size, height, patch_size) - 0.5, -0.5, width - 0.5, "white", lw=line)
    ax.vlines(np.arange(patch_size, width, patch_size) - 0.5, -0.5, height - 0.5, "white", lw=line)


def _check_query(query: int, rows: int, cols: int) -> None:
    if not 0 <= query < rows * cols:
        raise ValueError(f"query {query} is outside the grid of {rows} x {cols} = {rows * cols} patches")


def _ink(colour: Sequence[float]) -> str:
    """Black or white, whichever stands out more on a colour (red, green, blue, alpha) over white."""
    luminance = (1 - colour[3] * (1 - np.array(colour[:3]))) ** 2.2 @ np.array([0.2126, 0.7152, 0.0722])
    return "white" if luminance < 0.18 else "black"


def _packed(colours: np.ndarray) -> np.ndarray:
    """Bytes (..., 3) as one whole number each."""
    return colours.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)


def render(figure: Figure | Axes, caption: str | None = None, colours: int | None = None, tight: bool = True) -> bytes:
    """A figure as the bytes of an opaque PNG.

    caption: wrapped and written below it. colours: at most so many, if the file is not small without. tight: cut to
    what is drawn, which takes a second pass; else the figure is taken as it is.
    """
    figure = getattr(figure, "figure", figure)
    with style():
        added = None
        if caption:
            lines = textwrap.wrap(caption, int(figure.get_figwidth() * 72 / 5.6))
            bottom = figure.get_tightbbox().y0 / figure.get_figheight()
            added = figure.text(0.5, bottom - 0.12 / figure.get_figheight(), "\n".join(lines), va="top", ha="center")
            added.set(size=10, linespacing=1.4)
        buffer = io.BytesIO()
        crop = dict(bbox_inches="tight", pad_inches=0.12) if tight else {}
        try:
            figure.savefig(buffer, format="png", dpi=90, pil_kwargs={"compress_level": 1}, **crop)
        finally:
            if added:
                added.remove()
    if colours:
        from PIL import Image

        picture = Image.open(buffer).convert("RGB")
        lossless = io.BytesIO()
        picture.save(lossless, format="png", optimize=True)
        if lossless.tell() < SMALL:
            return lossless.getvalue()
        # The roles' colours are thin lines, which a palette made from the pixels alone would lose.
        kept = np.array([to_rgb(colour) for colour in ("white", *ROLES.values())])
        kept = (255 * kept).round().astype(np.uint8)
        # The method that keeps rare colours best: few pixels are off by more than 15 of 255, where others miss by 50.
        # A large even ground shows every change of its colour: the commonest colours are kept as well.
        even = sorted(picture.getcolors(picture.width * picture.height))[-24:]
        kept = np.unique(np.vstack([kept, [colour for _, colour in even]]), axis=0)
        palette = picture.quantize(colours - len(kept), method=Image.Quantize.MAXCOVERAGE)
        table = np.array(palette.getpalette(), dtype=np.uint8).reshape(-1, 3)[: colours - len(kept)]
        places, pixels = np.array(palette), _packed(np.asarray(picture))
        for place, colour in enumerate(_packed(kept), start=len(table)):
            places[pixels == colour] = place
        picture = Image.fromarray(places)
        picture.putpalette(np.vstack([table, kept]).astype(np.uint8).tobytes())
        buffer = io.BytesIO()
        picture.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def show(figure: Figure | Axes, alt: str) -> None:
    """Display a figure in a notebook; `alt` says what there is to see, under it and to those who cannot see it.
    White space in `alt` counts as one space, so that it can be written over several lines.

    Raises: ValueError for an empty description.
    """
    from IPython.display import display

    alt = " ".join(alt.split())
    if not alt:
        raise ValueError("alt is empty; say in a sentence what the picture shows, with its numbers")
    png = base64.b64encode(render(figure, caption=alt, colours=256)).decode()
    display({"image/png": png, "text/plain": alt}, raw=True, metadata={"image/png": {"alt": alt}})


@_styled
def plot_image(
    image, *, numbers: bool = False, patch_size: int | None = None, marked: Mapping[int, str] | None = None,
    title: str | None = None, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """An image (channels, height, width) or (height, width) in [0, 1]; with `numbers`, (height, width) of any values,
    each written on its pixel, lines between patches of `patch_size`, and patches outlined as in plot_grid."""
    if not numbers:
        ax = _axes(ax, 3.6, 3.6)
        ax.imshow(_picture(image), interpolation="nearest")
        return _bare(ax, title)
    ax = plot_matrix(image, numbers=True, colorbar=False, title=title, ax=ax)
    if patch_size:
        height, width = np.shape(image)
        _divide(ax, height, width, patch_size, line=5)
        for patch, colour in _marks(marked, height // patch_size * (width // patch_size)):
            _outline(ax, *divmod(patch, width // patch_size), patch_size, colour)
    return ax


@_styled
def plot_grid(
    image, patch_size: int, *, number: bool = False, marked: Mapping[int, str] | None = None,
    title: str | None = None, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """An image with the grid of its patches; `number` writes each patch's place in reading order.

    marked: from a patch's number to the role in whose colour it is outlined.
    """
    picture = _picture(image)
    height, width = picture.shape[:2]
    ax = _axes(ax, 4.2, 4.2 * height / width)
    ax.imshow(picture, interpolation="nearest")
    _divide(ax, height, width, patch_size, line=1.2)
    rows, cols = height // patch_size, width // patch_size
    if number:
        for patch in range(rows * cols):
            row, col = divmod(patch, cols)
            ax.text(
                (col + 0.5) * patch_size - 0.5, (row + 0.5) * patch_size - 0.5, str(patch), ha="center", va="center",
                size=9, color="white", bbox=dict(boxstyle="round,pad=0.15", fc="#000000aa", ec="none"),
            )  # fmt: skip
    for patch, colour in _marks(marked, rows * cols):
        _outline(ax, *divmod(patch, cols), patch_size, colour)
    ax.set(xlim=(-1.5, width + 0.5), ylim=(height + 0.5, -1.5))
    return _bare(ax, title)


def _unflatten(patches, channels: int) -> np.ndarray:
    """(patches, patch_dim), flattened as (channels, ph, pw) -> (patches, side, side, 3)."""
    patches = _array(patches, 2, "flattened patches are (patches, patch_dim)")
    side = round((patches.shape[1] / channels) ** 0.5)
    if channels not in (1, 3) or channels * side * side != patches.shape[1]:
        raise ValueError(f"{patches.shape[1]} pixels are not {channels} channels of a square patch")
    pictures = _shades(patches).reshape(-1, channels, side, side).transpose(0, 2, 3, 1)
    return np.broadcast_to(pictures, (*pictures.shape[:3], 3))


def _tiled(tiles: np.ndarray, cols: int, gap: int, ground: Number | np.uint8 = 1.0) -> np.ndarray:
    """(n, height, width, ...) laid out in reading order on one canvas, `gap` pixels apart."""
    count, height, width = tiles.shape[:3]
    rows = -(-count // cols)
    canvas = np.full((rows * (height + gap) - gap, cols * (width + gap) - gap, *tiles.shape[3:]), ground)
    for index, tile in enumerate(tiles):
        row, col = divmod(index, cols)
        top, left = row * (height + gap), col * (width + gap)
        canvas[top : top + height, left : left + width] = tile
    return canvas


@_styled
def plot_patches(
    patches, cols: int, *, channels: int = 3, number: bool = True, marked: Mapping[int, str] | None = None,
    title: str | None = None, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Flattened patches (patches, patch_dim) as pictures again, pulled apart, in `cols` columns and reading order."""
    tiles = _unflatten(patches, channels)
    side = tiles.shape[1]
    # Enlarged first, so that the gap can be finer than a pixel of a small patch.
    scale = max(1, min(24 // side, 900 // (side * cols)))
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    gap = max(1, side * scale * (9 if number else 3) // 20)
    step = side * scale + gap
    canvas = _tiled(tiles, cols, gap)
    ax = _axes(ax, 4.8, 4.8 * canvas.shape[0] / canvas.shape[1])
    ax.imshow(canvas, interpolation="nearest")
    for patch in range(len(tiles)) if number else ():
        row, col = divmod(patch, cols)
        ax.text(col * step + side * scale / 2, row * step - 1, str(patch), ha="center", va="bottom", size=8)
    for patch, colour in _marks(marked, len(tiles)):
        row, col = divmod(patch, cols)
        corner = (col * step - 0.5, row * step - 0.5)
        ax.add_patch(Rectangle(corner, side * scale, side * scale, fill=False, ec=colour, lw=3, clip_on=False))
    ax.set(ylim=(canvas.shape[0] - 0.5, -gap if number else -0.5))
    return _bare(ax, title)


@_styled
def plot_sequence(
    patches, *, channels: int = 3, first: int = 9, last: int = 2, class_token: bool = False,
    title: str | None = None, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Flattened patches (patches, patch_dim) as a line of pictures with their places; a long one is cut in the middle.

    class_token: draw one more token, without a picture, at place 0; the patches move up by one.
    """
    tiles = _unflatten(patches, channels)
    shown = list(range(len(tiles))) if len(tiles) <= first + last + 1 else None
    shown = shown or [*range(first), None, *range(len(tiles) - last, len(tiles))]
    slots = len(shown) + class_token
    ax = _axes(ax, min(9, 0.75 * slots), 1.15)
    for slot, patch in enumerate(shown, start=int(class_token)):
        if patch is None:
            ax.text(slot + 0.44, 0.44, "…", ha="center", va="center", size=18)
            continue
        ax.imshow(tiles[patch], extent=(slot, slot + 0.88, 0, 0.88), interpolation="nearest")
        ax.text(slot + 0.44, -0.08, str(patch + class_token), ha="center", va="top", size=10)
    if class_token:
        ax.add_patch(Rectangle((0, 0), 0.88, 0.88, fc=ROLES["class"], ec="none"))
        ax.text(0.44, 0.44, "class", ha="center", va="center", size=9, color="white")
        ax.text(0.44, -0.08, "0", ha="center", va="top", size=10)
    ax.set(xlim=(-0.05, slots), ylim=(-0.5, 0.95), aspect="equal")
    return _bare(ax, title)


@_styled
def plot_matrix(
    values, *, kind: str = "magnitude", numbers: bool | None = None, names: Sequence[str] | None = None,
    col_names: Sequence[str] | None = None, xlabel: str | None = None, ylabel: str | None = None,
    marked: Mapping[int, str] | None = None, limit: Number | None = None, colorbar: bool = True,
    title: str | None = None, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """A matrix (or a vector, as one row) as a heat map.

    kind: "magnitude" from the smallest to the largest value; "weights" from 0 to 1; "similarity" from -1 to
    1; "signed" centred on 0, to +-limit.
    numbers: write the values; by default if there are at most 80. names, col_names: of the rows and of the columns.
    marked: from a row to the role in whose colour its name is written and its left edge drawn.
    """
    values = np.atleast_2d(_array(values, (1, 2), "a matrix has one or two axes"))
    if kind not in COLORMAPS:
        raise ValueError(f"kind {kind!r} is unknown; choose {', '.join(COLORMAPS)}")
    rows, cols = values.shape
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if kind == "signed":
        high = limit or max(abs(low), abs(high)) or 1.0
        low = -high
    elif kind in ("weights", "similarity"):
        low, high = 0.0 if kind == "weights" else -1.0, 1.0
    ax = _axes(ax, min(8.5, max(3.4, 0.7 * cols)), min(5.5, max(0.9, 0.55 * rows)))
    heat = ax.imshow(values, cmap=COLORMAPS[kind], vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    if numbers is None:
        numbers = values.size <= 80
    if numbers:
        for (row, col), value in np.ndenumerate(values):
            # Adding 0.0 makes a plain zero of -0.0.
            whole, rounded = float(value).is_integer(), round(float(value), 2) + 0.0
            ink = _ink(heat.cmap(heat.norm(value)))
            ax.text(col, row, f"{rounded:.{0 if whole else 2}f}", ha="center", va="center", size=10, color=ink)
    elif colorbar:
        bar = ax.figure.colorbar(heat, ax=ax, fraction=0.04, pad=0.02)
        bar.outline.set_visible(False)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.spines[:].set_visible(False)
    for axis, count, labels in ((ax.yaxis, rows, names), (ax.xaxis, cols, col_names)):
        if labels is not None:
            axis.set_ticks(range(count), labels=list(labels))
        elif count <= (12 if numbers else 6):
            axis.set_ticks(range(count))
        else:
            axis.get_major_locator().set_params(integer=True)  # there is no row 2.5
    ax.tick_params(length=0)
    for row, colour in _marks(marked, rows):
        ax.add_patch(Rectangle((-0.5, row - 0.5), cols, 1, fill=False, ec=colour, lw=2.5, clip_on=False))
        for label, tick in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True):
            if tick == row:
                label.set(color=colour, weight="bold")
    if title:
        ax.set_title(title)
    return ax


@_styled
def plot_filters(
    filters, *, channels: int = 3, cols: int = 16, title: str | None = None, ax: Axes | None = None
) -> Axes:
    """Rows of the patch embedding's matrix (dim, patch_dim) as pictures, each stretched to its own range."""
    filters = _array(filters, 2, "filters are (dim, patch_dim)").astype(float)
    low, high = filters.min(axis=1, keepdims=True), filters.max(axis=1, keepdims=True)
    tiles = _unflatten((filters - low) / np.where(high > low, high - low, 1), channels)
    canvas = _tiled(tiles, cols, max(1, tiles.shape[1] // 8))
    ax = _axes(ax, 6.5, 6.5 * canvas.shape[0] / canvas.shape[1])
    ax.imshow(canvas, interpolation="nearest")
    return _bare(ax, title)


@_styled
def plot_similarity(
    similarity, rows: int, cols: int, *, marked: Mapping[int, str] | None = None,
    title: str | None = None, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Similarities (patches, patches) in [-1, 1] as a grid of grids: the tile at row r and column c shows how similar
    the patch at that place is to every patch. Source: Figure 7, centre."""
    similarity = _array(similarity, 2, "similarities are (patches, patches)")
    if similarity.shape != (rows * cols, rows * cols):
        raise ValueError(
            f"similarities of a {rows} x {cols} grid are ({rows * cols}, {rows * cols}), not {similarity.shape}"
        )
    canvas = _tiled(similarity.reshape(-1, rows, cols), cols, 1, ground=np.nan)
    ax = _axes(ax, 5, 5 * rows**2 / cols**2)
    heat = ax.imshow(canvas, cmap=COLORMAPS["similarity"], vmin=-1, vmax=1, interpolation="nearest")
    every = math.ceil(max(rows, cols) / 4)  # as in side_by_side, not more labels than are of use
    ax.set_xticks(np.arange(0, cols, every) * (cols + 1) + (cols - 1) / 2, range(0, cols, every))
    ax.set_yticks(np.arange(0, rows, every) * (rows + 1) + (rows - 1) / 2, range(0, rows, every))
    ax.set(xlabel="column of the patch", ylabel="row of the patch")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    for patch, colour in _marks(marked, rows * cols):
        row, col = divmod(patch, cols)
        gap = min(0.5, 0.07 * max(rows, cols))
        corner = (col * (cols + 1) - 0.5 - gap, row * (rows + 1) - 0.5 - gap)
        size = (cols + 2 * gap, rows + 2 * gap)
        ax.add_patch(Rectangle(corner, *size, fill=False, ec=colour, lw=3, clip_on=False))
    bar = ax.figure.colorbar(heat, ax=ax, fraction=0.04, pad=0.02, label="cosine similarity", ticks=(-1, 0, 1))
    bar.outline.set_visible(False)
    if title:
        ax.set_title(title)
    return ax


def blend(image, weights) -> np.ndarray:
    """Weights (rows, cols) laid over an image (channels, height, width): (height, width, 3), opaque.

    The colour says the weight, black 0 or less and pale yellow the largest; the picture in grey shines through, in the
    dark by its own light and in the bright by shading the colour, so that both stay readable.
    """
    weights = _array(weights, 2, "weights over a picture are (rows, cols)")
    return next(_blends(image, weights[None]))


def _blends(image, weights: np.ndarray) -> Iterator[np.ndarray]:
    """blend for several maps (maps, rows, cols), one after the other: many large ones at once take memory, and time."""
    picture = _picture(image)
    (height, width), (rows, cols) = picture.shape[:2], weights.shape[1:]
    patch = height // rows
    if (rows * patch, cols * patch) != (height, width):
        raise ValueError(
            f"weights of {weights.shape[1:]} do not tile an image of {height} x {width} pixels with square patches"
        )
    peaks = weights.max(axis=(1, 2), keepdims=True).astype(float)
    heat = matplotlib.colormaps["inferno"](weights / np.where(peaks > 0, peaks, 1))[..., :3].astype(np.float32)
    grey = (picture @ np.array([0.299, 0.587, 0.114])).astype(np.float32)
    light = 0.65 * (0.5 + 0.5 * grey / (grey.max() or 1))
    dark, light = (each.reshape(rows, patch, cols, patch, 1) for each in (0.35 * grey, light))
    # (rows, patch, cols, patch, 3): every pixel of a patch in its patch's colour
    return ((light * colours[:, None, :, None] + dark).reshape(height, width, 3) for colours in heat)


@_styled
def plot_attention(
    image, weights, *, query: int | None = None, title: str | None = None, ax: Axes | None = None
) -> Axes:
    """Where one query looks: weights (rows, cols) over the image, the brightest the largest; `query` is outlined."""
    ax = _axes(ax, 3.4, 3.4)
    blended = blend(image, weights)
    ax.imshow(blended, interpolation="nearest")
    if query is not None:
        rows, cols = np.shape(weights)
        _check_query(query, rows, cols)
        _outline(ax, *divmod(query, cols), blended.shape[1] / cols, ROLES["query"])
    return _bare(ax, title)


def _seen(image, rows: int, cols: int, across: int):
    """An image of rows x cols patches, no finer than it can be seen as one of `across` in a figure, which is at most
    WIDEST pixels wide; every patch keeps whole pixels."""
    picture = _picture(image)
    height, width = picture.shape[:2]
    side = height // rows
    if (rows * side, cols * side) != (height, width):
        return image
    step = next((step for step in (4, 2) if across * width / step >= WIDEST and side % step == 0), 1)
    if step == 1:
        return image
    picture = picture.reshape(height // step, step, width // step, step, 3).mean(axis=(1, 3))
    return picture.transpose(2, 0, 1)


@_styled
def plot_heads(
    image,
    weights,
    *,
    query: int | None = None,
    titles: Sequence[str] | None = None,
    cols: int = 4,
    ax: Axes | None = None,
) -> Axes:
    """plot_attention for every head, side by side: weights (heads, rows, cols), each scaled to its own largest."""
    weights = _array(weights, 3, "weights of several heads are (heads, rows, cols)")
    if query is not None:
        _check_query(query, *weights.shape[1:])
    if titles is not None and len(titles) != len(weights):
        raise ValueError(f"{len(titles)} titles for {len(weights)} heads")
    cols = min(cols, len(weights))
    image = _seen(image, *weights.shape[1:], cols)
    tiles = np.stack([(255 * tile).round().astype(np.uint8) for tile in _blends(image, weights)])
    height, width = tiles.shape[1:3]
    gap = round(0.18 * width) if titles is None or any(titles) else max(2, width // 20)
    canvas = _tiled(tiles, cols, gap, ground=np.uint8(255))
    side = min(2.4, 9 / cols)
    ax = _axes(ax, side * cols, side * cols * canvas.shape[0] / canvas.shape[1] + 0.2)
    ax.imshow(canvas, interpolation="nearest")
    for head in range(len(tiles)):
        row, col = divmod(head, cols)
        left, top = col * (width + gap), row * (height + gap)
        if title := f"head {head}" if titles is None else titles[head]:
            ax.text(left + width / 2, top - gap * 0.12, title, ha="center", va="bottom", size=10)
        if query is not None:
            patch = width / weights.shape[2]
            query_row, query_col = divmod(query, weights.shape[2])
            _outline(ax, query_row + top / patch, query_col + left / patch, patch, ROLES["query"], width=2)
    ax.set(ylim=(canvas.shape[0], -gap))
    return _bare(ax)


@_styled
def plot_maps(
    images, maps: Mapping[str, object] | None = None, *, masks=None, titles: Sequence[str] | None = None,
    cols: int | None = None, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Several images (count, channels, height, width) in a row, or in rows of `cols`. Under them a row of blends for
    every entry of `maps`, from its name to weights (count, rows, cols), each scaled to its own largest.

    masks: (count, height, width); the square in which one is true is outlined. titles: one for each image.
    """
    images = _array(images, 4, "several images are (count, channels, height, width)")
    pictures = np.stack([_picture(image) for image in images])
    count, height, width = pictures.shape[:3]
    if titles is not None and len(titles) != count:
        raise ValueError(f"{len(titles)} titles for {count} images")
    if maps and cols not in (None, count):
        raise ValueError(f"with maps, all {count} images stand in one row; leave cols out")
    if masks is not None:
        masks = _array(masks, 3, "masks are (count, height, width)")
        if masks.shape != (count, height, width) or not masks.any(axis=(1, 2)).all():
            raise ValueError(f"masks {masks.shape} are not one for each of the images, none of them empty")
    rows = [pictures]
    for name, weights in (maps or {}).items():
        weights = _array(weights, 3, f"the maps {name!r} are (count, rows, cols)")
        if len(weights) != count:
            raise ValueError(f"{len(weights)} maps {name!r} for {count} images")
        rows.append(np.stack([blend(image, each) for image, each in zip(images, weights, strict=True)]))
    cols = min(cols or count, count)
    gap = round((0.3 if titles and not maps else 0.08) * height)
    canvas = _tiled(np.concatenate(rows), cols, gap)
    side = min(1.5, 9 / cols)
    ax = _axes(ax, side * (cols + (0.9 if maps else 0)), side * canvas.shape[0] / width + 0.3)
    ax.imshow(canvas, interpolation="nearest")
    for index in range(count * len(rows)):
        row, col = divmod(index, cols)
        top, left = row * (height + gap), col * (width + gap)
        if titles is not None and index < count:
            ax.text(left + width / 2, top - 0.05 * height, titles[index], ha="center", va="bottom", size=10)
        if masks is not None:
            inside = np.argwhere(masks[index % count])
            square = int(np.ptp(inside[:, 0])) + 1
            _outline(ax, *((inside[0] + (top, left)) / square), square, ROLES["query"], width=1.5)
    ax.set(ylim=(canvas.shape[0], -(gap if titles is None else 0.3 * height)))
    for row, name in enumerate(("", *(maps or {}))):
        ax.text(-0.12 * width, row * (height + gap) + height / 2, name, ha="right", va="center", size=10)
    return _bare(ax)


@_styled
def plot_curves(
    curves: Mapping[str, tuple], *, role: str | None = None, xlabel: str | None = None, ylabel: str | None = None,
    title: str | None = None, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Lines, each from (x, y); if there are several, a legend names them. In greys, or in shades of a role's colour."""
    ax = _axes(ax, 5.4, 3.4)
    dark = np.array(to_rgb(_colour(role) if role else "#222222"))
    cycle = [dark + light * (1 - dark) for light in (0, 0.35, 0.55)]
    dashes = ["-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), (0, (8, 2, 1, 2, 1, 2))]  # never by colour alone
    for index, (name, (x, y)) in enumerate(curves.items()):
        x, y = _array(x, 1, "a curve's x has one axis"), _array(y, 1, "a curve's y has one axis")
        colour = cycle[index % len(cycle)]
        ax.plot(x, y, color=colour, ls=dashes[index % len(dashes)], label=name)
    if len(curves) > 1:
        ax.legend(handlelength=2.8)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if title:
        ax.set_title(title)
    return ax


@_styled
def plot_distributions(
    samples: Mapping[str, object], *, bins: int = 60, xlabel: str | None = None, title: str | None = None,
    ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """How the values of each sample are spread, as outlines over common bins, with each standard deviation."""
    any_shape = tuple(range(1, 9))
    flat = {
        name: _array(values, any_shape, f"sample {name!r} holds numbers").ravel() for name, values in samples.items()
    }
    edges = np.histogram_bin_edges(np.concatenate(list(flat.values())), bins)
    curves = {}
    for name, values in flat.items():
        density, _ = np.histogram(values, edges, density=True)
        curves[f"{name} (std {values.std():.2f})"] = ((edges[1:] + edges[:-1]) / 2, density)
    ax = plot_curves(curves, xlabel=xlabel, ylabel="density", title=title, ax=ax)
    ax.set_ylim(0, 1.35 * max(density.max() for _, density in curves.values()))  # room for the legend
    ax.legend(loc="upper right", handlelength=2.8)
    return ax


@_styled
def plot_stream(norms, *, title: str | None = None, ax: Axes | None = None) -> Axes:
    """The length of every token at every station of the residual stream: (stations, tokens), the class token first."""
    norms = _array(norms, 2, "norms are (stations, tokens)")
    ax = _axes(ax, 5.6, 3.4)
    lines = [np.stack([np.arange(len(norms)), each], axis=1) for each in norms.T[1:]]
    faint = min(0.35, 16 / norms.shape[1])
    ax.add_collection(LineCollection(lines, colors=ROLES["patch"], lw=0.7, alpha=faint), autolim=True)
    ax.plot(norms[:, 1:].mean(axis=1), color=ROLES["patch"], ls="--", label="patches, and their mean")
    ax.plot(norms[:, 0], color=ROLES["class"], label="class token")
    ax.set(xlabel="after how many blocks", ylabel="length of the token", ylim=(0, None))
    ax.xaxis.get_major_locator().set_params(integer=True)  # there is no half block
    ax.legend(loc="lower right")
    if title:
        ax.set_title(title)
    return ax


@_styled
def plot_probabilities(
    probabilities, *, names: Sequence[str] | None = None, top: int = 5, title: str | None = None,
    ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """The `top` likeliest classes (classes,), the likeliest first."""
    probabilities = _array(probabilities, 1, "probabilities are (classes,)")
    if names is not None and len(names) != len(probabilities):
        raise ValueError(f"{len(names)} names for {len(probabilities)} classes")
    order = np.argsort(-probabilities, kind="stable")[:top]
    labels = [names[index] if names is not None else f"class {index}" for index in order]
    if len(set(labels)) < len(labels):  # ImageNet has two classes "crane"
        labels = [f"{label} ({index})" for label, index in zip(labels, order, strict=True)]
    return plot_bars(
        dict(zip(labels, probabilities[order].tolist(), strict=True)), unit="{:.1%}", limit=1, title=title, ax=ax
    )


@_styled
def plot_bars(
    values: Mapping[str, Number], *, errors: Mapping[str, Number] | None = None, chance: Number | None = None,
    unit: str = "{:,.0f}", limit: Number | None = None, role: str = "patch", title: str | None = None,
    ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Horizontal bars, the first at the top, each with its value written by the format `unit`.

    errors: half the length of each bar's whisker. chance: where a dotted line stands.
    """
    if errors is not None and set(errors) != set(values):
        raise ValueError(f"errors of {', '.join(errors)} for values of {', '.join(values)}")
    ax = _axes(ax, 5.6, 0.4 * len(values) + 0.5)
    whiskers = None if errors is None else [errors[name] for name in values]
    bars = ax.barh(
        list(values), list(values.values()), xerr=whiskers, ecolor=ROLES["neutral"], capsize=3, color=_colour(role),
        height=0.62,
    )  # fmt: skip
    if chance is not None:
        ax.axvline(chance, color=ROLES["neutral"], lw=1.2, ls=":", zorder=0)
    labels = [unit.format(value) for value in values.values()]
    ground = dict(facecolor="white", edgecolor="none", pad=1)  # so that the dotted line runs through no number
    ax.bar_label(bars, labels, padding=4, color=ROLES["neutral"], bbox=ground)
    ax.invert_yaxis()
    longest = max(value + (errors or {}).get(name, 0) for name, value in values.items())
    ax.set(xticks=[], xlim=(0, limit or max(longest, chance or 0) * 1.02 or 1))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    if title:
        ax.set_title(title)
    return ax


@_styled
def plot_dots(
    samples: Mapping[str, Sequence[Number]], *, unit: str = "{:.1%}", limits: tuple[Number, Number] | None = None,
    chance: Number | None = None, role: str = "patch", title: str | None = None, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Every measurement as a dot, one row for each name, the first at the top; a bar marks the mean, written beside it
    by the format `unit`. chance: where a dotted line stands."""
    ax = _axes(ax, 6.6, 0.4 * len(samples) + 0.8)
    for row, values in enumerate(samples.values()):
        values = _array(list(values), 1, "the measurements of one name are a list")
        ax.plot(values, [row] * len(values), "o", color=_colour(role), alpha=0.55, ms=7, mew=0)
        ax.plot([values.mean()] * 2, [row - 0.3, row + 0.3], color=ROLES["neutral"], lw=2)
        ax.text(
            1.02, row, unit.format(values.mean()), transform=ax.get_yaxis_transform(), va="center",
            color=ROLES["neutral"],
        )  # fmt: skip
    if chance is not None:
        ax.axvline(chance, color=ROLES["neutral"], lw=1.2, ls=":", zorder=0)
    ax.set_yticks(range(len(samples)), list(samples))
    ax.set(ylim=(len(samples) - 0.5, -0.5), xlim=limits)
    ax.xaxis.set_major_formatter(lambda value, place: unit.format(value).replace(".0%", "%"))
    ax.grid(axis="x", color="#dddddd", lw=0.8)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)
    ax.tick_params(length=0)
    if title:
        ax.set_title(title)
    return ax


@cache
def _glyph(text: str) -> Path:
    """A text's outline about (0, 0), as a marker: laid out once, not for every drawing, and its curves made of short
    lines, for matplotlib looks for the extremes of every curve at every drawing."""
    size = 50  # curves are cut into lines as fine as they are large
    parts = [Path(polygon, closed=True) for polygon in TextPath((0, 0), text, size=size).to_polygons()]
    outline = Path.make_compound_path(*parts)
    middle = outline.get_extents()
    vertices = outline.vertices - [(middle.x0 + middle.x1) / 2, (middle.y0 + middle.y1) / 2]
    return Path(vertices / size, outline.codes)


@_styled
def plot_scatter(points, labels, *, title: str | None = None, ax: Axes | None = None) -> Axes:
    """Points (points, 2), each drawn as its label, a short whole number, and coloured by it."""
    points, labels = _array(points, 2, "points are (points, 2)"), _array(labels, 1, "labels are (points,)")
    if points.shape != (len(labels), 2):
        raise ValueError(f"{len(labels)} labels for points of shape {points.shape}; points are (points, 2)")
    ax = _axes(ax, 4.4, 4.4)
    for label in np.unique(labels):
        colour = matplotlib.colormaps["tab10"](int(label) % 10)
        ax.scatter(*points[labels == label].T, marker=_glyph(str(label)), s=52, color=colour, lw=0)
    return _bare(ax, title)


@_styled
def side_by_side(count: int, *, width: Number = 9, height: Number = 3.2, ratios: Sequence[Number] | None = None):
    """`count` empty Axes in a row of one figure, to be drawn into by the plots above."""
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(1, count, width_ratios=ratios, squeeze=False)[0]
    figure.subplots_adjust(wspace=0.3)
    for ax in axes:
        ax.locator_params(nbins=5, steps=(1, 2, 5, 10))  # few labels, for each takes its time, and whole ones
    return axes
