"""Arrays in, Axes out: every plot that is laid out in squares: pictures, patches, matrices, maps over pictures.

The data come first, the rest by keyword. Without an `ax` to draw into, a new figure is made. `marked` leads from the
number of a patch or a row to the role in whose colour it is outlined. All raise ValueError for data of another shape.
"""

import math
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from vit_walkthrough.draw.theme import ROLES, Marked, Names, as_array, as_axes, colours_of, outline, style, titled

COLORMAPS = {"magnitude": "viridis", "weights": "viridis", "signed": "PRGn"}


def _pictures(images: np.ndarray) -> np.ndarray:
    """(count, channels, height, width) in [0, 1] -> (count, height, width, 3)."""
    count, channels, height, width = images.shape
    if channels not in (1, 3):
        raise ValueError(f"an image has 1 or 3 channels, not {channels}")
    if images.dtype.kind != "f":  # whole numbers would be taken for bytes
        if images.max() > 1:
            raise ValueError("an image is in [0, 1]; divide whole numbers by 255")
        images = images.astype(np.float32)
    return np.broadcast_to(images.clip(0, 1).transpose(0, 2, 3, 1), (count, height, width, 3))


def _picture(image) -> np.ndarray:
    """(channels, height, width) or (height, width) in [0, 1] -> (height, width, 3)."""
    image = as_array(image, (2, 3), "an image is (channels, height, width) or (height, width)")
    return _pictures(image.reshape(1, -1, *image.shape[-2:]))[0]


def _unflatten(patches, cols: int) -> np.ndarray:
    """(patches, patch_dim), flattened as (channels, ph, pw) -> (patches, side, side, 3). Small ones are enlarged, so
    that the gap between `cols` of them can be finer than one of their pixels."""
    patches = as_array(patches, 2, "flattened patches are (patches, patch_dim)")
    count, patch_dim = patches.shape
    channels = 1 if math.isqrt(patch_dim) ** 2 == patch_dim else 3
    side = math.isqrt(patch_dim // channels)
    if channels * side**2 != patch_dim:
        raise ValueError(f"patch_dim {patch_dim} is not that of a square patch of 1 or 3 channels")
    scale = max(1, min(24 // side, 900 // (side * cols)))
    return _pictures(patches.reshape(count, channels, side, side)).repeat(scale, axis=1).repeat(scale, axis=2)


def tiled(tiles: np.ndarray, cols: int, gap: int, ground=1.0) -> tuple[np.ndarray, list]:
    """A canvas with tiles (count, height, width, ...) in reading order, `gap` pixels apart; the (top, left) of each."""
    count, height, width = tiles.shape[:3]
    rows = -(-count // cols)
    places = [(row * (height + gap), col * (width + gap)) for row in range(rows) for col in range(cols)][:count]
    canvas = np.full((rows * (height + gap) - gap, cols * (width + gap) - gap, *tiles.shape[3:]), ground)
    for tile, (top, left) in zip(tiles, places, strict=True):
        canvas[top : top + height, left : left + width] = tile
    return canvas, places


def _cut(ax: Axes, height: int, width: int, patch_size: int, marked: Marked, line) -> tuple[int, int]:
    """White lines between patches, and the marked ones outlined: (rows, cols) of their grid."""
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(f"patch_size {patch_size} does not divide an image of {height} x {width} pixels")
    ax.hlines(np.arange(patch_size, height, patch_size) - 0.5, -0.5, width - 0.5, "white", lw=line)
    ax.vlines(np.arange(patch_size, width, patch_size) - 0.5, -0.5, height - 0.5, "white", lw=line)
    rows, cols = height // patch_size, width // patch_size
    for patch, colour in colours_of(marked, rows * cols):
        outline(ax, (patch // cols * patch_size, patch % cols * patch_size), (patch_size, patch_size), colour)
    return rows, cols


@style()
def plot_image(image, *, numbers=False, patch_size=None, marked: Marked = None, title=None, ax=None) -> Axes:
    """An image (channels, height, width) or (height, width) in [0, 1]; with `numbers`, (height, width) of any values,
    each written on its pixel, with lines between patches of `patch_size`."""
    if not numbers:
        return titled(as_axes(ax, 3.6, 3.6, _picture(image)), title, bare=True)
    ax = plot_matrix(image, numbers=True, colorbar=False, title=title, ax=ax)
    if patch_size:
        _cut(ax, *np.shape(image), patch_size, marked, line=5)
    return ax


@style()
def plot_grid(image, patch_size: int, *, number: bool = False, marked: Marked = None, title=None, ax=None) -> Axes:
    """An image with the grid of its patches; `number` writes each patch's place in reading order."""
    picture = _picture(image)
    height, width = picture.shape[:2]
    ax = as_axes(ax, 4.2, 4.2 * height / width, picture)
    rows, cols = _cut(ax, height, width, patch_size, marked, line=1.2)
    ground = dict(boxstyle="round,pad=0.15", fc="#000000aa", ec="none")
    for patch in range(rows * cols if number else 0):
        row, col = divmod(patch, cols)
        middle = (col + 0.5) * patch_size - 0.5, (row + 0.5) * patch_size - 0.5
        ax.text(*middle, str(patch), ha="center", va="center", size=9, color="white", bbox=ground)
    ax.set(xlim=(-1.5, width + 0.5), ylim=(height + 0.5, -1.5))
    return titled(ax, title, bare=True)


@style()
def plot_patches(patches, cols: int, *, number: bool = True, marked: Marked = None, title=None, ax=None) -> Axes:
    """Flattened patches (patches, patch_dim) as pictures again, pulled apart, in `cols` columns and reading order."""
    tiles = _unflatten(patches, cols)
    side = tiles.shape[1]
    gap = max(1, side * (9 if number else 3) // 20)
    canvas, places = tiled(tiles, cols, gap)
    ax = as_axes(ax, 4.8, 4.8 * canvas.shape[0] / canvas.shape[1], canvas)
    for patch, (top, left) in enumerate(places if number else ()):
        ax.text(left + side / 2, top - 1, str(patch), ha="center", va="bottom", size=8)
    for patch, colour in colours_of(marked, len(tiles)):
        outline(ax, places[patch], (side, side), colour, halo=False)
    ax.set(ylim=(canvas.shape[0] - 0.5, -gap if number else -0.5))
    return titled(ax, title, bare=True)


@style()
def plot_matrix(
    values,
    *,
    kind: str = "magnitude",
    numbers: bool | None = None,
    names: Names = None,
    col_names: Names = None,
    marked: Marked = None,
    limit=None,
    colorbar: bool = True,
    xlabel=None,
    ylabel=None,
    title=None,
    ax=None,
) -> Axes:
    """A matrix (or a vector, as one row) as a heat map.

    kind: "magnitude" from the smallest to the largest value; "weights" from 0 to 1; "signed" from -limit to limit.
    numbers: write the values; by default if there are at most 80. names, col_names: of the rows and of the columns.
    """
    values = np.atleast_2d(as_array(values, (1, 2), "a matrix has one or two axes"))
    if kind not in COLORMAPS:
        raise ValueError(f"kind {kind!r} is unknown; choose {', '.join(COLORMAPS)}")
    rows, cols = values.shape
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    most = limit or max(abs(low), abs(high)) or 1.0
    limits = {"magnitude": (low, high), "weights": (0, 1), "signed": (-most, most)}
    ax = as_axes(ax, min(8.5, max(3.4, 0.7 * cols)), min(5.5, max(0.9, 0.55 * rows)))
    heat = ax.imshow(values, cmap=COLORMAPS[kind], clim=limits[kind], aspect="auto", interpolation="nearest")
    if numbers is None:
        numbers = values.size <= 80
    if numbers:
        for (row, col), value in np.ndenumerate(values):
            # Adding 0.0 makes a plain zero of -0.0.
            digits, rounded = 0 if float(value).is_integer() else 2, round(float(value), 2) + 0.0
            *colour, alpha = heat.cmap(heat.norm(value))
            luminance = (1 - alpha * (1 - np.array(colour))) ** 2.2 @ np.array([0.2126, 0.7152, 0.0722])
            ink = "white" if luminance < 0.18 else "black"
            ax.text(col, row, f"{rounded:.{digits}f}", ha="center", va="center", size=10, color=ink)
    elif colorbar:
        ax.figure.colorbar(heat, ax=ax, fraction=0.04, pad=0.02).outline.set_visible(False)
    for axis, count, labels in ((ax.yaxis, rows, names), (ax.xaxis, cols, col_names)):
        if labels is not None or count <= (12 if numbers else 6):
            axis.set_ticks(range(count), labels=labels)
        else:
            axis.get_major_locator().set_params(integer=True)  # there is no row 2.5
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    for row, colour in colours_of(marked, rows):
        outline(ax, (row, 0), (1, cols), colour, line=2.5, halo=False)
        for label, tick in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True):
            if tick == row:
                label.set(color=colour, weight="bold")
    return titled(ax, title)


@style()
def plot_filters(filters, *, cols: int = 16, title=None, ax=None) -> Axes:
    """Rows of the patch embedding's matrix (dim, patch_dim) as pictures, each stretched to its own range."""
    filters = as_array(filters, 2, "filters are (dim, patch_dim)").astype(float)
    low, high = filters.min(axis=1, keepdims=True), filters.max(axis=1, keepdims=True)
    tiles = _unflatten((filters - low) / np.where(high > low, high - low, 1), cols)
    canvas, _ = tiled(tiles, cols, max(1, tiles.shape[1] // 8))
    return titled(as_axes(ax, 6.5, 6.5 * canvas.shape[0] / canvas.shape[1], canvas), title, bare=True)


@style()
def plot_similarity(similarity, rows: int, cols: int, *, marked: Marked = None, title=None, ax=None) -> Axes:
    """Similarities (patches, patches) in [-1, 1] as a grid of grids: the tile at row r and column c shows how similar
    the patch at that place is to every patch. Source: Figure 7, centre."""
    similarity, count = as_array(similarity, 2, "similarities are (patches, patches)"), rows * cols
    if similarity.shape != (count, count):
        raise ValueError(f"similarities of a {rows} x {cols} grid are ({count}, {count}), not {similarity.shape}")
    canvas, places = tiled(similarity.reshape(-1, rows, cols), cols, 1, ground=np.nan)
    ax = as_axes(ax, 5, 5 * rows**2 / cols**2)
    heat = ax.imshow(canvas, cmap=COLORMAPS["signed"], clim=(-1, 1), interpolation="nearest")
    every = math.ceil(max(rows, cols) / 4)  # not more labels than are of use
    ax.set_xticks(np.arange(0, cols, every) * (cols + 1) + (cols - 1) / 2, range(0, cols, every))
    ax.set_yticks(np.arange(0, rows, every) * (rows + 1) + (rows - 1) / 2, range(0, rows, every))
    ax.set(xlabel="column of the patch", ylabel="row of the patch")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    gap = min(0.5, 0.07 * max(rows, cols))
    for patch, colour in colours_of(marked, count):
        top, left = places[patch]
        outline(ax, (top - gap, left - gap), (rows + 2 * gap, cols + 2 * gap), colour, halo=False)
    bar = ax.figure.colorbar(heat, ax=ax, fraction=0.04, pad=0.02, label="cosine similarity", ticks=(-1, 0, 1))
    bar.outline.set_visible(False)
    return titled(ax, title)


def blend(image, weights, peak: float | None = None) -> np.ndarray:
    """Weights (rows, cols) laid over an image (channels, height, width): (height, width, 3), opaque.

    The colour says the weight: black is 0 or less, pale yellow is `peak`, by default the largest. The picture adds so
    little grey that equal weights look nearly equal wherever they lie.
    """
    picture, weights = _picture(image), as_array(weights, 2, "weights over a picture are (rows, cols)")
    (height, width), (rows, cols) = picture.shape[:2], weights.shape
    side = height // rows
    if (rows * side, cols * side) != (height, width):
        told = f"weights of {rows, cols} do not tile an image of {height} x {width} pixels"
        raise ValueError(f"{told} with square patches")
    peak = weights.max() if peak is None else peak
    heat = matplotlib.colormaps["inferno"](weights / (float(peak) if peak > 0 else 1))[..., :3].astype(np.float32)
    heat = heat.repeat(side, axis=0).repeat(side, axis=1)
    return 0.7 * heat + 0.3 * (picture @ np.array([0.299, 0.587, 0.114])).astype(np.float32)[..., None]


@style()
def plot_attention(image, weights, *, peak: float | None = None, title=None, ax=None) -> Axes:
    """Where one query looks: weights (rows, cols) over the image. Pale yellow is `peak`, by default the largest."""
    return titled(as_axes(ax, 3.4, 3.4, blend(image, weights, peak)), title, bare=True)


@style()
def plot_heads(
    image, weights, *, query: int | None = None, titles: Names = None, cols=4, peak=None, first=False, ax=None
) -> Axes:
    """plot_attention for each head: weights (heads, rows, cols). query: the patch that is outlined. first: the image
    stands before them, as it always does before a single one. peak: the weight that is pale yellow in all maps, by
    default the largest of each."""
    weights = as_array(weights, 3, "weights of several heads are (heads, rows, cols)")
    titles = [f"head {head}" for head in range(len(weights))] if titles is None else titles
    if len(titles) != len(weights):
        raise ValueError(f"{len(titles)} titles for {len(weights)} heads")
    tiles = [blend(image, each, peak) for each in weights]
    if first or len(weights) == 1:
        tiles, titles, cols = [_picture(image), *tiles], ["the image", *titles], cols + 1
    width, cols = tiles[0].shape[1], min(cols, len(tiles))
    gap = round(0.18 * width)
    canvas, places = tiled((255 * np.stack(tiles)).round().astype(np.uint8), cols, gap, ground=np.uint8(255))
    inches = min(3.4 if len(weights) == 1 else 2.4, 9 / cols)
    ax = as_axes(ax, inches * cols, inches * cols * canvas.shape[0] / canvas.shape[1] + 0.2, canvas)
    for title, (top, left) in zip(titles, places, strict=True):
        ax.text(left + width / 2, top - gap * 0.12, title, ha="center", va="bottom", size=10)
        if query is not None:
            (row, col), side = divmod(query, weights.shape[2]), width // weights.shape[2]
            outline(ax, (top + row * side, left + col * side), (side, side), ROLES["query"], line=2)
    ax.set(ylim=(canvas.shape[0], -gap))
    return titled(ax, None, bare=True)


@style()
def plot_maps(images, maps: Mapping[str, object] | None = None, *, masks=None, titles: Names = None, ax=None) -> Axes:
    """Several images (count, channels, height, width) in a row. Under them a row of blends for every entry of `maps`,
    from its name to weights (count, rows, cols), each scaled to its own largest.

    masks: (count, height, width); the square in which one is true is outlined. titles: one for each image.
    """
    images = as_array(images, 4, "several images are (count, channels, height, width)")
    count, _, height, width = images.shape
    if titles is not None and len(titles) != count:
        raise ValueError(f"{len(titles)} titles for {count} images")
    if masks is not None:
        masks = as_array(masks, 3, "masks are (count, height, width)")
        if masks.shape != (count, height, width) or not masks.any(axis=(1, 2)).all():
            raise ValueError(f"masks {masks.shape} are not one for each of the images, none of them empty")
    rows = [_pictures(images)]
    for name, weights in (maps or {}).items():
        weights = as_array(weights, 3, f"the maps {name!r} are (count, rows, cols)")
        if len(weights) != count:
            raise ValueError(f"{len(weights)} maps {name!r} for {count} images")
        rows.append([blend(image, each) for image, each in zip(images, weights, strict=True)])
    gap = round((0.3 if titles and not maps else 0.08) * height)
    canvas, places = tiled(np.concatenate(rows), count, gap)
    inches = min(1.5, 9 / count)
    ax = as_axes(ax, inches * (count + (0.9 if maps else 0)), inches * canvas.shape[0] / width + 0.3, canvas)
    for title, (top, left) in zip(titles or (), places, strict=False):
        ax.text(left + width / 2, top - 0.05 * height, title, ha="center", va="bottom", size=10)
    for name, (top, _) in zip(maps or (), places[count::count], strict=True):
        ax.text(-0.12 * width, top + height / 2, name, ha="right", va="center", size=10)
    for index, (top, left) in enumerate(places if masks is not None else ()):
        inside = np.argwhere(masks[index % count])
        side = np.ptp(inside[:, 0]) + 1
        outline(ax, inside[0] + (top, left), (side, side), ROLES["query"], line=1.5)
    ax.set(ylim=(canvas.shape[0], -(0.3 * height if titles else gap)))
    return titled(ax, None, bare=True)
