"""Every plot holds the data that it was given: read from its artists, not from its pixels."""

import base64
import inspect
import io
import itertools
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from PIL import Image

from vit_walkthrough.data import photo
from vit_walkthrough.draw import plots
from vit_walkthrough.draw.plots import (
    COLORMAPS,
    ROLES,
    blend,
    plot_attention,
    plot_bars,
    plot_curves,
    plot_distributions,
    plot_dots,
    plot_filters,
    plot_grid,
    plot_heads,
    plot_image,
    plot_maps,
    plot_matrix,
    plot_patches,
    plot_probabilities,
    plot_scatter,
    plot_sequence,
    plot_similarity,
    plot_stream,
    render,
    show,
    side_by_side,
    style,
)
from vit_walkthrough.model.patches import patchify

SIDE, ROWS, COLS = 2, 2, 3  # the grid is not square, so rows and columns cannot be swapped unseen
PLACES = list(itertools.product(range(ROWS), range(COLS)))  # of the patches, in reading order

# No pixel is white, which is the ground that pictures are laid on.
IMAGE = (0.9 * np.random.default_rng(0).random((3, ROWS * SIDE, COLS * SIDE))).astype(np.float32)
PATCHES = patchify(torch.tensor(IMAGE)[None], SIDE)[0].numpy()
WEIGHTS = np.random.default_rng(1).dirichlet(np.ones(ROWS * COLS), 5).reshape(5, ROWS, COLS)
SIMILARITY = np.random.default_rng(2).uniform(-1, 1, (ROWS * COLS, ROWS * COLS))
NORMS = np.random.default_rng(3).uniform(1, 5, (4, 7))
MATRIX = np.array([[-2.0, 0.25, 1.0], [0.0, 0.5, 3.0]])
CURVE = np.array([0.0, 1.0, 2.0, 4.0])
POINTS = np.random.default_rng(4).normal(size=(6, 2)).astype(np.float32)
LABELS = [3, 0, 3, 17, 7, 0]
IMAGES = np.stack([IMAGE, 1 - IMAGE[::-1], IMAGE[:, ::-1] ** 2])  # all different, none white
assert IMAGES.max() < 1
SQUARES = {0: (1, 2, 3), 1: (0, 0, 2), 2: (2, 4, 2)}  # row, column and side of the mask of each of them
MASKS = np.zeros((3, ROWS * SIDE, COLS * SIDE), dtype=bool)
for image, (top, left, side) in SQUARES.items():
    MASKS[image, top : top + side, left : left + side] = True

# One drawing of every plot: how it is called with an array, and that array.
PLOTS = {
    "plot_image": (lambda data, **more: plot_image(data, title="title", **more), IMAGE),
    "plot_grid": (lambda data, **more: plot_grid(data, SIDE, number=True, marked={4: "query"}, **more), IMAGE),
    "plot_patches": (lambda data, **more: plot_patches(data, COLS, marked={4: "patch"}, **more), PATCHES),
    "plot_sequence": (lambda data, **more: plot_sequence(data, first=2, last=1, class_token=True, **more), PATCHES),
    "plot_matrix": (lambda data, **more: plot_matrix(data, names=["a", "b"], marked={1: "query"}, **more), MATRIX),
    "plot_filters": (lambda data, **more: plot_filters(data, cols=4, **more), PATCHES),
    "plot_similarity": (
        lambda data, **more: plot_similarity(data, ROWS, COLS, marked={4: "query"}, **more),
        SIMILARITY,
    ),
    "plot_attention": (lambda data, **more: plot_attention(IMAGE, data, query=4, **more), WEIGHTS[0]),
    "plot_heads": (lambda data, **more: plot_heads(IMAGE, data, query=4, **more), WEIGHTS),
    "plot_maps": (
        lambda data, **more: plot_maps(data, {"a": WEIGHTS[:3]}, masks=MASKS, titles=["i", "j", "k"], **more),
        IMAGES,
    ),
    "plot_curves": (lambda data, **more: plot_curves({"a": (data, data), "b": (data, 2 * data)}, **more), CURVE),
    "plot_distributions": (lambda data, **more: plot_distributions({"a": data, "b": 2 * data}, **more), MATRIX),
    "plot_stream": (lambda data, **more: plot_stream(data, **more), NORMS),
    "plot_probabilities": (lambda data, **more: plot_probabilities(data, **more), WEIGHTS[0].ravel()),
    "plot_bars": (lambda data, **more: plot_bars(dict(zip("abcd", data.tolist(), strict=True)), **more), CURVE + 1),
    "plot_dots": (
        lambda data, **more: plot_dots({"a": data.tolist(), "b": data[1:].tolist()}, chance=0.1, **more),
        CURVE / 10,
    ),
    "plot_scatter": (lambda data, **more: plot_scatter(data, LABELS, **more), POINTS),
}
every_plot = pytest.mark.parametrize("name", PLOTS)


def draw(name: str, **more) -> Axes:
    plot, values = PLOTS[name]
    return plot(values, **more)


def drawn(ax: Axes) -> dict:
    """Everything that the Axes hold, as numbers and words."""
    return {
        "images": [np.ma.filled(np.ma.asarray(image.get_array(), float), -9).tolist() for image in ax.images],
        "places": [image.get_extent() for image in ax.images],
        "lines": [line.get_xydata().tolist() for line in ax.lines],
        "points": [collection.get_offsets().tolist() for collection in ax.collections],
        "bars and outlines": [box_of(patch) for patch in ax.patches],
        "words": [(text.get_text(), *text.get_position()) for text in ax.texts],
        "ticks": [label.get_text() for label in (*ax.get_xticklabels(), *ax.get_yticklabels())],
    }


def box_of(rectangle: Rectangle) -> tuple:
    """left, top, width, height."""
    return (*rectangle.get_xy(), rectangle.get_width(), rectangle.get_height())


def outlines(ax: Axes, role: str) -> list[tuple]:
    boxes = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    return [box_of(box) for box in boxes if same_color(box.get_edgecolor(), ROLES[role])]


def segments(ax: Axes) -> list:
    return [segment.tolist() for collection in ax.collections for segment in collection.get_segments()]


def words_at(ax: Axes) -> dict:
    return {text.get_text(): text.get_position() for text in ax.texts}


def hwc(image: np.ndarray) -> np.ndarray:
    return image.transpose(1, 2, 0)


def pictures(patches: np.ndarray) -> list[np.ndarray]:
    return [hwc(patch.reshape(3, SIDE, SIDE)) for patch in patches]


def tiles(canvas: np.ndarray) -> list[np.ndarray]:
    """The pictures on a white canvas, in reading order."""
    inked = (canvas < 1).any(axis=-1)

    def runs(flags: np.ndarray) -> list[slice]:
        edges = np.flatnonzero(np.diff(np.r_[0, flags, 0]))
        return [slice(*pair) for pair in edges.reshape(-1, 2)]

    cells = itertools.product(runs(inked.any(axis=1)), runs(inked.any(axis=0)))
    return [canvas[cell] for cell in cells if inked[cell].any()]


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


def open_png(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


# What holds for every plot


def test_every_plot_is_tried_here():
    public = {name for name, _ in inspect.getmembers(plots, inspect.isfunction) if name.startswith("plot_")}
    assert public == set(PLOTS)


@every_plot
def test_data_come_first_and_the_rest_by_keyword(name):
    for parameter in list(inspect.signature(getattr(plots, name)).parameters.values())[3:]:
        assert parameter.kind is parameter.KEYWORD_ONLY
    assert inspect.signature(getattr(plots, name)).parameters["ax"].default is None


@every_plot
def test_without_axes_a_new_figure_is_made_each_time(name):
    one, other = draw(name), draw(name)
    assert isinstance(one, Axes)
    assert one.figure is not other.figure


@every_plot
def test_given_axes_are_drawn_into_and_returned(name):
    left, right = side_by_side(2)
    assert draw(name, ax=right) is right
    assert not left.has_data()
    assert not left.texts
    assert {**drawn(right), "ticks": None} == {**drawn(draw(name)), "ticks": None}


@every_plot
def test_a_title_is_written(name):
    if name == "plot_image":
        assert draw(name).get_title() == "title"
    elif name not in ("plot_heads", "plot_maps"):  # which have a title for each
        assert draw(name, title="of what").get_title() == "of what"


@every_plot
@pytest.mark.parametrize("across", [1, 2])
def test_a_title_sits_where_matplotlib_would_put_it(name, across, monkeypatch):
    if name in ("plot_heads", "plot_maps"):
        return

    def place() -> list[float]:
        more = {} if name == "plot_image" else {"title": "of what"}
        ax = draw(name, **more) if across == 1 else draw(name, **more, ax=side_by_side(2)[1])
        (title,) = [text for text in words_drawn(ax.figure) if text is ax.title]
        return title.get_window_extent().extents.tolist()

    told = place()
    monkeypatch.delitem(plots.STYLE, "axes.titley")
    with matplotlib.rc_context({"axes.titley": None}):
        assert place() == pytest.approx(told, abs=1e-6)


@every_plot
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_tensor_that_requires_grad_draws_what_an_array_draws(name, dtype):
    plot, values = PLOTS[name]
    tensor = torch.tensor(values, dtype=dtype, requires_grad=True)
    assert drawn(plot(tensor)) == drawn(plot(tensor.detach().numpy()))
    assert tensor.requires_grad


@every_plot
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_of_half_precision_are_drawn(name, dtype):
    plot, values = PLOTS[name]
    halves = torch.tensor(values, dtype=dtype)
    one = plot(halves)
    render(one)
    assert drawn(one) == drawn(plot(halves.float()))


def test_an_array_of_half_precision_is_drawn():
    halves = IMAGE.astype(np.float16)
    render(plot_image(halves))
    np.testing.assert_array_equal(plot_image(halves).images[0].get_array(), hwc(halves))


@every_plot
def test_the_data_are_left_as_they_are(name):
    plot, values = PLOTS[name]
    before = values.copy()
    render(plot(values))
    np.testing.assert_array_equal(values, before)


LOUD = {"font.size": 30, "axes.titlesize": 30, "lines.linewidth": 9, "text.color": "red", "savefig.facecolor": "red"}


@every_plot
def test_the_settings_of_matplotlib_are_left_as_they_are(name):
    with matplotlib.rc_context(LOUD):
        before = dict(matplotlib.rcParams)
        render(draw(name), caption="caption")
        assert dict(matplotlib.rcParams) == before


@every_plot
def test_other_settings_do_not_change_the_look(name):
    with matplotlib.rc_context(LOUD):
        loud = draw(name)
    calm = draw(name)
    for one, other in zip(loud.figure.findobj(Text), calm.figure.findobj(Text), strict=True):
        assert (one.get_size(), one.get_color()) == (other.get_size(), other.get_color())
    assert [line.get_linewidth() for line in loud.lines] == [line.get_linewidth() for line in calm.lines]


@every_plot
def test_no_text_is_smaller_than_8_points(name):
    assert min((text.get_size() for text in draw(name).figure.findobj(Text)), default=8) >= 8


@every_plot
def test_no_text_lies_on_another(name):
    assert not overlapping(draw(name).figure)


@every_plot
def test_every_text_is_in_the_picture_that_is_saved(name):
    figure = draw(name).figure
    words = words_drawn(figure)
    page = figure.get_tightbbox().padded(0.02)
    for text in words:
        box = text.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        assert page.x0 <= box.x0 <= box.x1 <= page.x1, text
        assert page.y0 <= box.y0 <= box.y1 <= page.y1, text


def test_pyplot_is_never_imported_and_nothing_is_printed():
    code = """
import sys
from vit_walkthrough.draw.plots import *
ax = plot_matrix(np.random.rand(20, 20), kind="signed")
render(ax, caption="caption", colours=64)
render(plot_curves({"a": ([0, 1], [1, 2]), "b": ([0, 1], [2, 1])}))
render(plot_attention(np.random.rand(3, 4, 6), np.random.rand(2, 3), query=1))
render(plot_bars({"a": 1.0}))
assert "matplotlib" in sys.modules and "torch" not in sys.modules.get("vit_walkthrough.draw.plots").__dict__
assert "matplotlib.pyplot" not in sys.modules
"""
    root = Path(plots.__file__).parents[2]
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=root, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


# plot_image


BETWEEN_PATCHES = [
    *([[-0.5, y], [5.5, y]] for y in (1.5,)),
    *([[x, -0.5], [x, 3.5]] for x in (1.5, 3.5)),
]


def test_plot_image_holds_the_image():
    np.testing.assert_array_equal(plot_image(IMAGE).images[0].get_array(), hwc(IMAGE))


@pytest.mark.parametrize("grey", [IMAGE[0], IMAGE[:1]], ids=["height width", "one channel"])
def test_plot_image_shows_one_channel_as_grey(grey):
    held = plot_image(grey).images[0].get_array()
    np.testing.assert_array_equal(held, np.stack([IMAGE[0]] * 3, axis=-1))


def test_plot_image_cuts_what_is_no_colour():
    held = plot_image(np.array([[-1.0, 0.5, 2.0]])).images[0].get_array()
    assert held[0, :, 0].tolist() == [0, 0.5, 1]


def test_plot_image_keeps_pixels_sharp_and_square():
    ax = plot_image(IMAGE)
    assert ax.images[0].get_interpolation() == "nearest"
    assert ax.get_aspect() == 1
    assert not [*ax.get_xticks(), *ax.get_yticks()]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_plot_image_draws_whole_numbers_as_what_they_are(dtype):
    """matplotlib would take them for bytes, of which 1 is black."""
    image = np.eye(4, 6).astype(dtype)
    shown = plot_image(image).images[0].get_array()
    assert shown.dtype == np.float32
    np.testing.assert_array_equal(shown[..., 0], image)


def test_plot_image_writes_each_number_on_its_pixel():
    numbers = np.arange(24).reshape(4, 6)
    ax = plot_image(numbers, numbers=True)
    np.testing.assert_array_equal(ax.images[0].get_array(), numbers)
    assert words_at(ax) == {str(6 * row + col): (col, row) for row in range(4) for col in range(6)}


def test_plot_image_draws_lines_between_patches_of_numbers():
    ax = plot_image(torch.arange(24.0).reshape(4, 6), numbers=True, patch_size=2)
    assert segments(ax) == BETWEEN_PATCHES


# plot_grid


def test_plot_grid_draws_lines_between_patches():
    ax = plot_grid(IMAGE, SIDE)
    assert segments(ax) == BETWEEN_PATCHES
    np.testing.assert_array_equal(ax.images[0].get_array(), hwc(IMAGE))
    assert not ax.texts


def test_plot_grid_numbers_patches_in_reading_order():
    words = words_at(plot_grid(IMAGE, SIDE, number=True))
    assert words == {
        str(patch): (col * SIDE + SIDE / 2 - 0.5, row * SIDE + SIDE / 2 - 0.5)
        for patch, (row, col) in enumerate(PLACES)
    }


def test_plot_grid_outlines_the_marked_patches_over_the_lines():
    ax = plot_grid(IMAGE, SIDE, marked={2: "patch", 4: "query"})
    assert outlines(ax, "patch") == [(3.5, -0.5, 2, 2)]
    assert outlines(ax, "query") == [(1.5, 1.5, 2, 2)]
    assert min(box.get_zorder() for box in ax.patches) > max(lines.get_zorder() for lines in ax.collections)


def test_plot_grid_shows_the_whole_image_upright():
    ax = plot_grid(IMAGE, SIDE)
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert left < -0.5 < 5.5 < right
    assert top < -0.5 < 3.5 < bottom


# plot_patches


@pytest.mark.parametrize("number", [True, False])
@pytest.mark.parametrize("cols", [COLS, 4, 6])
def test_plot_patches_lays_patch_k_on_tile_k(cols, number):
    ax = plot_patches(PATCHES, cols, number=number)
    laid = tiles(ax.images[0].get_array())
    assert len(laid) == len(PATCHES)
    for tile, picture in zip(laid, pictures(PATCHES), strict=True):
        scale = len(tile) // SIDE
        np.testing.assert_array_equal(tile, picture.repeat(scale, axis=0).repeat(scale, axis=1))


def test_plot_patches_pulls_the_patches_apart_into_rows_and_columns():
    inked = (plot_patches(PATCHES, COLS).images[0].get_array() < 1).any(axis=-1)
    assert np.diff(inked.any(axis=0).astype(int)).tolist().count(1) == COLS - 1
    assert np.diff(inked.any(axis=1).astype(int)).tolist().count(1) == ROWS - 1


def test_plot_patches_numbers_each_above_its_left_to_right_middle():
    ax = plot_patches(PATCHES, COLS)
    inked = (ax.images[0].get_array() < 1).any(axis=-1)
    tops = np.flatnonzero(np.diff(np.r_[0, inked.any(axis=1)]) == 1)
    lefts = np.flatnonzero(np.diff(np.r_[0, inked.any(axis=0)]) == 1)
    rights = np.flatnonzero(np.diff(np.r_[inked.any(axis=0), 0]) == -1)
    words = words_at(ax)
    assert list(words) == [str(patch) for patch in range(len(PATCHES))]
    for patch, (row, col) in enumerate(PLACES):
        across, down = words[str(patch)]
        assert across == pytest.approx((lefts[col] + rights[col]) / 2, abs=1)
        assert tops[row] - 2 <= down < tops[row]
    assert not plot_patches(PATCHES, COLS, number=False).texts


def test_plot_patches_outlines_the_marked_patch():
    ax = plot_patches(PATCHES, COLS, marked={4: "query"})
    ((left, top, width, height),) = outlines(ax, "query")
    canvas = ax.images[0].get_array()
    tile = canvas[round(top + 0.5) : round(top + 0.5 + height), round(left + 0.5) : round(left + 0.5 + width)]
    np.testing.assert_array_equal(tile, tiles(canvas)[4])


def test_plot_patches_of_one_patch_fill_the_axes_as_the_image_does():
    ax = plot_patches(IMAGE[None, :, :, :4].reshape(1, -1), 1, number=False)
    side = len(ax.images[0].get_array())
    assert np.abs(np.ptp(ax.get_ylim())) == pytest.approx(side, rel=0.02)


def test_plot_patches_takes_one_channel():
    (tile,) = tiles(plot_patches(np.array([[0.1, 0.2, 0.3, 0.4]]), 1, channels=1).images[0].get_array())
    scale = len(tile) // 2
    np.testing.assert_array_equal(tile[::scale, ::scale, 0], [[0.1, 0.2], [0.3, 0.4]])


# plot_sequence


def places_of(ax: Axes) -> dict:
    """From the place written under a picture to the picture."""
    middles = {round(np.mean(image.get_extent()[:2]), 6): image.get_array() for image in ax.images}
    under = {text.get_text(): text.get_position() for text in ax.texts if text.get_position()[1] < 0}
    return {place: middles.get(round(across, 6)) for place, (across, _) in under.items()}


def test_plot_sequence_writes_its_place_under_each_patch():
    found = places_of(plot_sequence(PATCHES))
    assert list(found) == [str(place) for place in range(6)]
    for held, picture in zip(found.values(), pictures(PATCHES), strict=True):
        np.testing.assert_array_equal(held, picture)


def test_plot_sequence_runs_from_left_to_right_without_overlap():
    extents = [image.get_extent() for image in plot_sequence(PATCHES).images]
    assert all(one[1] < other[0] for one, other in itertools.pairwise(extents))


def test_plot_sequence_moves_the_patches_up_behind_a_class_token():
    ax = plot_sequence(PATCHES, class_token=True)
    found = places_of(ax)
    assert sorted(found) == [str(place) for place in range(7)]
    assert found.pop("0") is None
    for place, held in found.items():
        np.testing.assert_array_equal(held, pictures(PATCHES)[int(place) - 1])
    (box,) = ax.patches
    assert same_color(box.get_facecolor(), ROLES["class"])
    assert box.get_xy() == (0, 0)
    assert box.get_width() < ax.images[0].get_extent()[0]
    assert "class" in words_at(ax)


def test_plot_sequence_cuts_a_long_one_in_the_middle():
    ax = plot_sequence(np.repeat(PATCHES, 10, axis=0), first=4, last=3)
    assert list(places_of(ax)) == ["0", "1", "2", "3", "57", "58", "59"]
    across = [image.get_extent()[0] for image in ax.images]
    assert across[3] < words_at(ax)["…"][0] < across[4]


def test_plot_sequence_cuts_nothing_that_would_save_no_room():
    assert "…" not in words_at(plot_sequence(PATCHES, first=3, last=2))
    assert "…" in words_at(plot_sequence(PATCHES, first=2, last=2))


# plot_matrix


@pytest.mark.parametrize("kind", COLORMAPS)
def test_plot_matrix_holds_the_values(kind):
    ax = plot_matrix(MATRIX, kind=kind)
    np.testing.assert_array_equal(ax.images[0].get_array(), MATRIX)
    assert ax.images[0].get_cmap().name == COLORMAPS[kind]


def test_plot_matrix_reaches_from_the_smallest_to_the_largest_value():
    assert plot_matrix(MATRIX).images[0].get_clim() == (-2, 3)


@pytest.mark.parametrize(("kind", "limits"), [("weights", (0, 1)), ("similarity", (-1, 1))])
def test_plot_matrix_shows_weights_and_similarities_between_fixed_limits(kind, limits):
    assert plot_matrix([[0.2, 0.3]], kind=kind).images[0].get_clim() == limits


@pytest.mark.parametrize(
    ("values", "limit", "expected"),
    [(MATRIX, None, 3), (-MATRIX, None, 3), (MATRIX, 1.5, 1.5), (MATRIX, 2, 2), ([[0.0]], None, 1)],
)
def test_plot_matrix_centres_signed_values_on_zero(values, limit, expected):
    heat = plot_matrix(values, kind="signed", limit=limit).images[0]
    assert heat.get_clim() == (-expected, expected)


def test_plot_matrix_writes_each_value_on_its_cell():
    assert words_at(plot_matrix(MATRIX)) == {
        "-2": (0, 0), "0.25": (1, 0), "1": (2, 0), "0": (0, 1), "0.50": (1, 1), "3": (2, 1),
    }  # fmt: skip


def test_plot_matrix_writes_no_minus_before_a_zero():
    assert list(words_at(plot_matrix([[-0.0, -0.001]]))) == ["0", "0.00"]


def test_plot_matrix_writes_numbers_on_up_to_80_cells_and_explains_the_colours_of_more():
    few, many = plot_matrix(np.zeros((8, 10))), plot_matrix(np.zeros((9, 9)))
    assert (len(few.texts), len(few.figure.axes)) == (80, 1)
    assert (len(many.texts), len(many.figure.axes)) == (0, 2)
    assert len(plot_matrix(np.zeros((9, 9)), numbers=True).texts) == 81
    assert len(plot_matrix(MATRIX, numbers=False).figure.axes) == 2
    assert len(plot_matrix(MATRIX, numbers=False, colorbar=False).figure.axes) == 1


@pytest.mark.parametrize("kind", COLORMAPS)
def test_plot_matrix_writes_numbers_that_can_be_told_from_their_cell(kind):
    def luminance(colour):
        rgb = np.array(to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    values = np.linspace(-1, 1, 64)[None] if kind == "signed" else np.linspace(0, 1, 64)[None]
    ax = plot_matrix(values, kind=kind)
    heat = ax.images[0]
    for text, value in zip(ax.texts, values[0], strict=True):
        light, dark = sorted((luminance(text.get_color()), luminance(heat.cmap(heat.norm(value))[:3])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4, value  # a ratio of the Web Content Accessibility Guidelines


def test_plot_matrix_names_rows_and_columns():
    ax = plot_matrix(MATRIX, names=["r0", "r1"], col_names=["c0", "c1", "c2"], xlabel="keys", ylabel="queries")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["r0", "r1"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["c0", "c1", "c2"]
    assert (ax.get_yticks().tolist(), ax.get_xticks().tolist()) == ([0, 1], [0, 1, 2])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("keys", "queries")


@pytest.mark.parametrize("count", [3, 12, 13, 14, 17, 40])
def test_plot_matrix_counts_rows_and_columns_in_whole_numbers(count):
    left, right = side_by_side(2, width=8.6, height=3.9)
    left.set_axis_off()
    plot_matrix(np.zeros((count, count)), numbers=False, colorbar=False, ax=right)
    labels = [text.get_text() for text in words_drawn(right.figure)]
    assert len(labels) >= 6
    assert all(label.isdecimal() and int(label) < count for label in labels)


def test_plot_matrix_outlines_the_marked_row_and_colours_its_name():
    ax = plot_matrix(MATRIX, names=["r0", "r1"], marked={1: "class"})
    assert outlines(ax, "class") == [(-0.5, 0.5, 3, 1)]
    plain, marked = ax.get_yticklabels()
    assert same_color(marked.get_color(), ROLES["class"])
    assert marked.get_weight() == "bold"
    assert not same_color(plain.get_color(), ROLES["class"])


def test_plot_matrix_marks_a_row_of_many():
    assert outlines(plot_matrix(np.zeros((50, 4)), marked={37: "query"}), "query") == [(-0.5, 36.5, 4, 1)]


def test_plot_matrix_shows_a_vector_as_one_row():
    np.testing.assert_array_equal(plot_matrix([1.0, 2.0]).images[0].get_array(), [[1, 2]])


def test_plot_matrix_shows_whole_numbers_and_truths():
    assert list(words_at(plot_matrix(torch.tensor([[7, 8]])))) == ["7", "8"]
    assert list(words_at(plot_matrix(np.array([[True, False]])))) == ["1", "0"]


# plot_filters


def test_plot_filters_stretches_each_filter_to_its_own_range():
    filters = np.stack([PATCHES[0] * 100 - 7, PATCHES[1] / 100, np.full(12, 3.0)])
    canvas = plot_filters(filters, cols=2).images[0].get_array()
    assert canvas.shape == (2 * SIDE + 1, 2 * SIDE + 1, 3)
    for place, filter_ in enumerate(filters):
        row, col = divmod(place, 2)
        tile = canvas[row * 3 : row * 3 + SIDE, col * 3 : col * 3 + SIDE]
        span = np.ptp(filter_) or 1
        np.testing.assert_allclose(tile, pictures([(filter_ - filter_.min()) / span])[0], atol=1e-6)
    assert (canvas[2] == 1).all()


# plot_similarity


def test_plot_similarity_lays_row_k_on_tile_k():
    heat = plot_similarity(SIMILARITY, ROWS, COLS).images[0]
    canvas = np.ma.filled(heat.get_array(), np.nan)
    assert canvas.shape == (ROWS * (ROWS + 1) - 1, COLS * (COLS + 1) - 1)
    for patch, (row, col) in enumerate(PLACES):
        top, left = row * (ROWS + 1), col * (COLS + 1)
        tile = canvas[top : top + ROWS, left : left + COLS]
        np.testing.assert_array_equal(tile, SIMILARITY[patch].reshape(ROWS, COLS))
        canvas[top : top + ROWS, left : left + COLS] = np.nan
    assert np.isnan(canvas).all()
    assert heat.get_clim() == (-1, 1)


def test_plot_similarity_names_rows_and_columns_at_the_middle_of_their_tiles():
    ax = plot_similarity(SIMILARITY, ROWS, COLS)
    assert ax.get_xticks().tolist() == [1, 5, 9]
    assert ax.get_yticks().tolist() == [0.5, 3.5]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "2"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1"]


@pytest.mark.parametrize(("rows", "cols"), [(2, 3), (3, 3), (7, 7), (14, 14)])
def test_plot_similarity_outlines_the_marked_tile_and_no_part_of_another(rows, cols):
    patch = rows * cols - 2
    ax = plot_similarity(np.zeros((rows * cols, rows * cols)), rows, cols, marked={patch: "query"})
    ((left, top, width, height),) = outlines(ax, "query")
    row, col = divmod(patch, cols)
    tile_left, tile_top = col * (cols + 1) - 0.5, row * (rows + 1) - 0.5
    assert tile_left - 1 < left <= tile_left < tile_left + cols <= left + width < tile_left + cols + 1
    assert tile_top - 1 < top <= tile_top < tile_top + rows <= top + height < tile_top + rows + 1


@pytest.mark.parametrize("side", [3, 7, 10, 14, 20])
def test_plot_similarity_keeps_its_labels_apart_in_half_a_figure(side):
    left, right = side_by_side(2, width=8.6, height=3.9)
    right.set_axis_off()
    plot_similarity(np.eye(side * side), side, side, ax=left)
    assert not overlapping(left.figure)
    boxes = [label.get_window_extent() for label in left.get_xticklabels()]
    assert all(other.x0 - one.x1 >= 4 for one, other in itertools.pairwise(boxes))


# blend and plot_attention


def test_blend_gives_an_opaque_picture():
    blended = blend(IMAGE, WEIGHTS[0])
    assert blended.shape == (ROWS * SIDE, COLS * SIDE, 3)
    assert blended.min() >= 0
    assert blended.max() <= 1


@pytest.mark.parametrize("image", [np.zeros((3, 4, 6)), np.ones((3, 4, 6))], ids=["black", "white"])
@pytest.mark.parametrize("weights", [np.zeros((2, 3)), np.ones((2, 3)), np.eye(2, 3)])
def test_blend_stays_within_0_and_1_at_the_ends(image, weights):
    blended = blend(image, weights)
    assert np.isfinite(blended).all()
    assert blended.min() >= 0
    assert blended.max() <= 1


def test_blend_lays_each_weight_over_its_patch():
    weights = np.arange(6.0).reshape(ROWS, COLS)
    light = blend(np.full((1, 4, 6), 0.5), weights).mean(axis=-1)
    for patch, (row, col) in enumerate(PLACES):
        square = light[row * SIDE : (row + 1) * SIDE, col * SIDE : (col + 1) * SIDE]
        assert np.ptp(square) == 0
        assert (square[0, 0] > light.ravel()).sum() == patch * SIDE**2  # brighter than all of less weight


def test_blend_scales_to_the_largest_weight():
    np.testing.assert_allclose(blend(IMAGE, WEIGHTS[0]), blend(IMAGE, WEIGHTS[0] / 100))


def test_blend_of_no_weight_is_the_picture_in_dark_grey():
    blended = blend(IMAGE, np.zeros((ROWS, COLS)))
    grey = hwc(IMAGE) @ (0.299, 0.587, 0.114)
    assert np.ptp(blended, axis=-1).max() < 0.02
    assert blended.max() < 0.4
    assert np.corrcoef(blended.mean(axis=-1).ravel(), grey.ravel())[0, 1] > 0.999
    assert np.ptp(blended) > 0.3 * np.ptp(grey)


def test_blend_draws_what_is_below_zero_as_nothing():
    nothing = blend(IMAGE, np.zeros((ROWS, COLS)))
    np.testing.assert_array_equal(blend(IMAGE, -WEIGHTS[0]), nothing)
    weights = np.array([[-1, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(blend(IMAGE, weights), blend(IMAGE, weights.clip(0)))


def test_blend_lets_the_picture_be_read_under_the_full_weight():
    blended = blend(IMAGE, np.ones((ROWS, COLS))).mean(axis=-1)
    grey = hwc(IMAGE) @ (0.299, 0.587, 0.114)
    assert np.corrcoef(blended.ravel(), grey.ravel())[0, 1] > 0.99
    assert np.ptp(blended) > 0.3 * np.ptp(grey)


@pytest.mark.parametrize(
    "image", [IMAGE, IMAGE[:1], IMAGE[0], torch.tensor(IMAGE)], ids=["rgb", "grey", "flat", "torch"]
)
@pytest.mark.parametrize("scale", [1, 0, 1e-6, -1])
def test_several_maps_are_blended_as_each_of_them_is(image, scale):
    weights = np.concatenate([scale * WEIGHTS, np.zeros((1, ROWS, COLS)), np.eye(ROWS, COLS)[None]])
    together = np.stack(list(plots._blends(image, weights)))
    assert together.shape == (7, ROWS * SIDE, COLS * SIDE, 3)
    for blended, each in zip(together, weights, strict=True):
        np.testing.assert_array_equal(blended, blend(image, each))
    assert together.min() >= 0
    assert together.max() <= 1


def test_blend_is_the_colour_of_the_weight_shaded_by_the_grey_of_the_picture():
    grey = (hwc(IMAGE) @ (0.299, 0.587, 0.114))[..., None]
    heat = matplotlib.colormaps["inferno"](WEIGHTS[0] / WEIGHTS[0].max())[..., :3]
    heat = heat.repeat(SIDE, axis=0).repeat(SIDE, axis=1)
    expected = 0.35 * grey + 0.65 * heat * (0.5 + 0.5 * grey / grey.max())
    np.testing.assert_allclose(blend(IMAGE, WEIGHTS[0]), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64, bool])
def test_blend_takes_weights_of_every_kind(dtype):
    weights = (10 * WEIGHTS[0]).astype(dtype)
    np.testing.assert_array_equal(blend(IMAGE, weights), blend(IMAGE, weights.astype(float)))


def test_plot_attention_holds_the_blend_and_outlines_the_query():
    ax = plot_attention(IMAGE, WEIGHTS[0], query=5)
    np.testing.assert_array_equal(ax.images[0].get_array(), blend(IMAGE, WEIGHTS[0]))
    assert outlines(ax, "query") == [(3.5, 1.5, 2, 2)]
    assert not plot_attention(IMAGE, WEIGHTS[0]).patches


# plot_heads

HALF = 0.5 / 255 + 1e-6  # of a step between two shades, for its pictures are bytes


def canvas_of(ax: Axes) -> np.ndarray:
    canvas = ax.images[0].get_array()
    assert canvas.dtype == np.uint8
    return np.asarray(canvas) / 255


@pytest.mark.parametrize("cols", [2, 3, 9])
def test_plot_heads_lays_the_blend_of_head_k_on_tile_k(cols):
    laid = tiles(canvas_of(plot_heads(IMAGE, WEIGHTS, cols=cols)))
    assert len(laid) == len(WEIGHTS)
    for tile, weights in zip(laid, WEIGHTS, strict=True):
        np.testing.assert_allclose(tile, blend(IMAGE, weights), atol=HALF)


def large(image: np.ndarray) -> np.ndarray:
    return image.repeat(20, axis=1).repeat(20, axis=2)


def corners_of_tiles(canvas: np.ndarray) -> list[tuple[int, int]]:
    inked = (canvas < 1).any(axis=-1)
    tops = np.flatnonzero(np.diff(np.r_[0, inked.any(axis=1)]) == 1)
    lefts = np.flatnonzero(np.diff(np.r_[0, inked.any(axis=0)]) == 1)
    return [(top, left) for top in tops for left in lefts]


def test_plot_heads_outlines_the_query_in_every_head():
    ax = plot_heads(large(IMAGE), WEIGHTS, query=5, cols=2)
    corners = corners_of_tiles(canvas_of(ax))[:5]
    expected = [(left + 2 * 40 - 0.5, top + 40 - 0.5, 40, 40) for top, left in corners]
    np.testing.assert_allclose(outlines(ax, "query"), expected)
    assert not plot_heads(IMAGE, WEIGHTS).patches


def test_plot_heads_writes_each_title_over_its_head():
    ax = plot_heads(large(IMAGE), WEIGHTS, cols=2)
    corners = corners_of_tiles(canvas_of(ax))[:5]
    assert [text.get_text() for text in ax.texts] == [f"head {head}" for head in range(5)]
    for text, (top, left) in zip(ax.texts, corners, strict=True):
        assert text.get_position()[0] == left + 60
        assert top - 5 < text.get_position()[1] <= top
    named = plot_heads(IMAGE, WEIGHTS, titles=list("abcde"))
    assert [text.get_text() for text in named.texts] == list("abcde")


def test_plot_heads_draws_no_text_for_an_empty_title():
    assert not plot_heads(large(IMAGE), WEIGHTS, titles=[""] * 5).texts
    ax = plot_heads(large(IMAGE), WEIGHTS, titles=["", "b", "", "", "e"], cols=2)
    corners = corners_of_tiles(canvas_of(ax))
    found = [(text.get_text(), text.get_position()[0]) for text in ax.texts]
    assert found == [("b", corners[1][1] + 60), ("e", corners[4][1] + 60)]


def averaged(image: np.ndarray, step: int) -> np.ndarray:
    """Every square of step x step pixels as one, its mean."""
    return np.mean([image[:, down::step, across::step] for down in range(step) for across in range(step)], axis=0)


@pytest.mark.parametrize(
    ("side", "heads", "cols", "step"),
    [
        *((16, 20, 20, 4), (16, 12, 12, 2), (16, 12, 40, 2), (16, 20, 6, 1), (16, 20, 4, 1), (16, 4, 20, 1)),
        *((16, 24, 8, 2), (16, 20, 7, 1)),  # 8 * 112 pixels fill the page, 7 * 112 do not
        *((14, 20, 20, 2), (26, 12, 6, 2), (26, 12, 12, 2), (28, 12, 12, 4), (8, 12, 6, 1)),
        *((15, 20, 20, 1), (25, 12, 6, 1), (27, 12, 12, 1)),  # whose patches would be no whole pixels
    ],
)
def test_plot_heads_draws_large_pictures_of_many_heads_as_fine_as_they_are_seen(side, heads, cols, step):
    rows, across, query = 10, 14, 137  # a grid that is not square
    rng = np.random.default_rng(5)
    image = (0.9 * rng.random((3, rows * side, across * side))).astype(np.float32)
    weights = rng.dirichlet(np.ones(rows * across), heads).reshape(heads, rows, across)
    ax = plot_heads(image, weights, cols=cols, titles=[""] * heads, query=query)
    small, side = averaged(image, step), side // step
    cols, gap = min(cols, heads), max(2, across * side // 20)
    boxes = outlines(ax, "query")
    canvas = canvas_of(ax)
    assert canvas.shape[1] == cols * (across * side + gap) - gap
    assert canvas.shape[1] >= min(plots.WIDEST, cols * across * side * step)
    for head in range(heads):
        top, left = (
            place * (count * side + gap) for place, count in zip(divmod(head, cols), (rows, across), strict=True)
        )
        tile = canvas[top : top + rows * side, left : left + across * side]
        np.testing.assert_allclose(tile, blend(small, weights[head]), atol=HALF)
        np.testing.assert_allclose(boxes[head], (left + 11 * side - 0.5, top + 9 * side - 0.5, side, side))


@pytest.mark.parametrize("grey", [(280, 280), (1, 280, 280)])
def test_plot_heads_reduces_grey_and_tensors_too(grey):
    image = torch.rand(grey, requires_grad=True)
    weights = np.random.default_rng(6).random((12, 14, 14))
    canvas = canvas_of(plot_heads(image, weights, cols=12, titles=[""] * 12))
    small = averaged(np.broadcast_to(image.detach().numpy(), (3, 280, 280)), 4)
    np.testing.assert_allclose(canvas[:, :70], blend(small, weights[0]), atol=HALF)
    assert canvas.shape[1] == 12 * 73 - 3


@pytest.mark.parametrize(("heads", "cols"), [(4, 4), (5, 4), (8, 4), (12, 6), (12, 4)])
def test_plot_heads_writes_no_title_on_a_picture(heads, cols):
    weights = np.ones((heads, ROWS, COLS))
    ax = plot_heads(large(IMAGE), weights, cols=cols)
    words = words_drawn(ax.figure)
    for text in words:
        box = text.get_window_extent().transformed(ax.transData.inverted())
        (top, left), bottom = (box.y1, box.x0), box.y0
        rows = slice(max(0, round(min(top, bottom) + 0.5)), max(0, round(max(top, bottom) + 0.5)))
        under = canvas_of(ax)[rows, round(left + 0.5) : round(box.x1 + 0.5)]
        assert (under == 1).all(), text


# plot_maps


def large_images(count: int) -> np.ndarray:
    """So large that a gap of a twelfth is whole pixels."""
    return np.random.default_rng(7).random((count, 3, 24, 36)) * 0.9


@pytest.mark.parametrize("cols", [None, 1, 2, 3, 9])
def test_plot_maps_lays_pictures_out_in_reading_order(cols):
    canvas = plot_maps(large_images(5), cols=cols).images[0].get_array()
    laid = tiles(canvas)
    assert len(laid) == 5
    for tile, image in zip(laid, large_images(5), strict=True):
        np.testing.assert_allclose(tile, hwc(image))
    inked = (canvas < 1).any(axis=-1)
    assert np.diff(inked.any(axis=0).astype(int)).tolist().count(1) == min(cols or 5, 5) - 1
    assert np.diff(inked.any(axis=1).astype(int)).tolist().count(1) == -(-5 // (cols or 5)) - 1


def test_plot_maps_shows_one_channel_as_grey():
    (tile, _) = tiles(plot_maps(large_images(2)[:, :1]).images[0].get_array())
    np.testing.assert_allclose(tile, np.stack([large_images(2)[0, 0]] * 3, axis=-1))


def test_plot_maps_puts_a_row_of_blends_for_every_map_under_the_pictures():
    images, weights = large_images(3), {"seen": WEIGHTS[:3], "asked": WEIGHTS[2:] ** 2}
    ax = plot_maps(images, weights)
    laid = tiles(ax.images[0].get_array())
    assert len(laid) == 9
    expected = [hwc(image) for image in images]
    expected += [blend(image, each) for name in weights for image, each in zip(images, weights[name], strict=True)]
    for tile, picture in zip(laid, expected, strict=True):
        np.testing.assert_allclose(tile, picture)


def test_plot_maps_writes_the_name_of_each_map_left_of_the_middle_of_its_row():
    ax = plot_maps(large_images(3), {"seen": WEIGHTS[:3], "asked": WEIGHTS[2:]})
    corners = corners_of_tiles(ax.images[0].get_array())
    named = {name: place for name, place in words_at(ax).items() if name}
    assert list(named) == ["seen", "asked"]
    for row, (across, down) in enumerate(named.values(), start=1):
        assert across < -0.5
        assert down == corners[3 * row][0] + 12
    for text in ax.texts:
        assert text.get_horizontalalignment() == "right"  # so it does not reach into the picture


@pytest.mark.parametrize(("cols", "weights"), [(None, None), (2, None), (None, {"a": WEIGHTS[:4]})])
def test_plot_maps_writes_each_title_over_its_picture(cols, weights):
    ax = plot_maps(large_images(4), weights, titles=list("pqrs"), cols=cols)
    corners = corners_of_tiles(ax.images[0].get_array())[:4]
    found = words_at(ax)
    for title, (top, left) in zip("pqrs", corners, strict=True):
        across, down = found[title]
        assert across == left + 18
        assert top - 5 < down <= top
    assert ax.get_ylim()[1] < -5  # there is room for the first ones
    boxes = [text.get_window_extent() for text in words_drawn(ax.figure) if text.get_text() in "pqrs"]
    for box in boxes:
        left, right, top, bottom = *box.intervalx, *box.intervaly
        (x0, y0), (x1, y1) = ax.transData.inverted().transform([(left, bottom), (right, top)])
        rows, cols_ = sorted((max(0, round(y0 + 0.5)), max(0, round(y1 + 0.5)))), (round(x0), round(x1))
        assert (ax.images[0].get_array()[slice(*rows), slice(*cols_)] == 1).all()


def test_plot_maps_without_titles_or_masks_or_maps_draws_none():
    ax = plot_maps(large_images(2))
    assert not any(words_at(ax))
    assert not ax.patches


@pytest.mark.parametrize("weights", [None, {"a": WEIGHTS[:3], "b": WEIGHTS[1:4]}])
def test_plot_maps_outlines_the_square_of_the_mask_on_each_picture_and_each_blend(weights):
    images, masks = large_images(3), MASKS.repeat(6, axis=1).repeat(6, axis=2)
    ax = plot_maps(images, weights, masks=masks)
    corners = corners_of_tiles(ax.images[0].get_array())
    assert len(corners) == (9 if weights else 3)
    expected = []
    for place, (top, left) in enumerate(corners):
        row, col, side = (6 * number for number in SQUARES[place % 3])
        expected.append((left + col - 0.5, top + row - 0.5, side, side))
    np.testing.assert_allclose(outlines(ax, "query"), expected)


def test_plot_maps_outlines_in_rows_too():
    images, masks = large_images(3), MASKS.repeat(6, axis=1).repeat(6, axis=2)
    ax = plot_maps(images, masks=torch.tensor(masks), cols=2, titles=["", "", ""])
    (top, left) = corners_of_tiles(ax.images[0].get_array())[2]
    assert top > 24
    assert left == 0
    np.testing.assert_allclose(outlines(ax, "query")[2], (4 * 6 - 0.5, top + 2 * 6 - 0.5, 12, 12))


# plot_curves, plot_distributions, plot_stream


def test_plot_curves_holds_every_curve_under_its_name():
    ax = plot_curves({"a": (CURVE, CURVE**2), "b": ([1, 2], [3.0, 4.0])}, xlabel="x", ylabel="y")
    assert [line.get_label() for line in ax.lines] == ["a", "b"]
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), np.stack([CURVE, CURVE**2], axis=1))
    np.testing.assert_array_equal(ax.lines[1].get_xydata(), [[1, 3], [2, 4]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


def test_plot_curves_needs_no_legend_for_one():
    assert plot_curves({"a": (CURVE, CURVE)}).get_legend() is None


def test_plot_curves_tells_no_curves_apart_by_colour_alone():
    ax = plot_curves({str(name): (CURVE, CURVE + name) for name in range(6)})
    assert len({str((line.get_linestyle(), line._unscaled_dash_pattern)) for line in ax.lines}) == 6
    for one, other in itertools.pairwise(ax.lines):
        assert not same_color(one.get_color(), other.get_color())


def test_plot_curves_wears_the_colour_of_a_role_only_if_asked_to():
    curves = {"a": (CURVE, CURVE), "b": (CURVE, CURVE + 1)}
    assert same_color(plot_curves(curves, role="query").lines[0].get_color(), ROLES["query"])
    for line in plot_curves(curves).lines:
        red, green, blue = to_rgb(line.get_color())
        assert red == green == blue
        assert red < 0.6  # dark enough on white


def test_plot_distributions_draws_densities_over_common_bins():
    samples = {"narrow": torch.randn(4, 500), "wide": 3 * np.random.default_rng(0).normal(size=900)}
    ax = plot_distributions(samples, bins=40, xlabel="score")
    narrow, wide = (line.get_xydata() for line in ax.lines)
    np.testing.assert_array_equal(narrow[:, 0], wide[:, 0])
    for curve, values in ((narrow, samples["narrow"].ravel().numpy()), (wide, samples["wide"])):
        assert len(curve) == 40
        bin_width = curve[1, 0] - curve[0, 0]
        assert curve[:, 1].sum() * bin_width == pytest.approx(1)
        share = ((values >= curve[20, 0] - bin_width / 2) & (values < curve[20, 0] + bin_width / 2)).mean()
        assert curve[20, 1] * bin_width == pytest.approx(share)
    assert ax.get_ylim()[1] > narrow[:, 1].max()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("score", "density")


def test_plot_distributions_writes_each_standard_deviation():
    ax = plot_distributions({"one": [-1.0, 1.0], "three": torch.tensor([[-3.0], [3.0]], requires_grad=True)})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one (std 1.00)", "three (std 3.00)"]


def test_plot_stream_holds_every_token_at_every_station():
    ax = plot_stream(NORMS)
    by_name = {line.get_label(): line for line in ax.lines}
    np.testing.assert_array_equal(by_name["class token"].get_ydata(), NORMS[:, 0])
    assert same_color(by_name["class token"].get_color(), ROLES["class"])
    np.testing.assert_allclose(by_name["patches, and their mean"].get_ydata(), NORMS[:, 1:].mean(axis=1))
    assert same_color(by_name["patches, and their mean"].get_color(), ROLES["patch"])
    assert by_name["class token"].get_linestyle() != by_name["patches, and their mean"].get_linestyle()
    patches = np.array(segments(ax))  # (patches, stations, xy)
    np.testing.assert_array_equal(patches[:, :, 1], NORMS[:, 1:].T)
    for x in (*patches[:, :, 0], *(line.get_xdata() for line in ax.lines)):
        np.testing.assert_array_equal(x, np.arange(4))
    assert ax.get_ylim()[0] == 0


@pytest.mark.parametrize("stations", [2, 3, 5, 13, 25])
@pytest.mark.parametrize("small", [False, True])
def test_plot_stream_knows_no_half_blocks(stations, small):
    ax = plot_stream(np.ones((stations, 3)), ax=side_by_side(2)[0] if small else None)
    ticks = [tick for tick in ax.get_xticks() if ax.get_xlim()[0] <= tick <= ax.get_xlim()[1]]
    assert len(ticks) >= 2
    assert all(tick % 1 == 0 for tick in ticks)


# plot_probabilities and plot_bars


def bars_of(ax: Axes) -> list[tuple]:
    """From top to bottom: the name, the length and what is written at its end."""
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert ax.yaxis_inverted()  # the first is at the top
    middles = [bar.get_y() + bar.get_height() / 2 for bar in ax.patches]
    np.testing.assert_allclose(middles, ax.get_yticks())
    written = [text.get_text() for text in ax.texts]
    return list(zip(names, [bar.get_width() for bar in ax.patches], written, strict=True))


def test_plot_bars_draws_each_value_at_its_name():
    ax = plot_bars({"head": 7_690.0, "blocks": 85_054_464.0})
    assert bars_of(ax) == [("head", 7690, "7,690"), ("blocks", 85054464, "85,054,464")]
    assert ax.get_xlim()[0] == 0
    assert ax.get_xlim()[1] >= 85_054_464


def test_plot_bars_writes_values_in_the_unit_asked_for():
    ax = plot_bars({"a": 0.25, "b": 0.5}, unit="{:.0%}", limit=1, role="class")
    assert bars_of(ax) == [("a", 0.25, "25%"), ("b", 0.5, "50%")]
    assert ax.get_xlim() == (0, 1)
    assert all(same_color(bar.get_facecolor(), ROLES["class"]) for bar in ax.patches)


def test_plot_bars_draws_nothing_but_zeros():
    assert bars_of(plot_bars({"a": 0.0, "b": 0.0})) == [("a", 0, "0"), ("b", 0, "0")]


def test_plot_probabilities_puts_the_likeliest_first():
    ax = plot_probabilities([0.1, 0.5, 0.15, 0.25], top=3)
    assert bars_of(ax) == [("class 1", 0.5, "50.0%"), ("class 3", 0.25, "25.0%"), ("class 2", 0.15, "15.0%")]
    assert ax.get_xlim() == (0, 1)


def test_plot_probabilities_keeps_the_order_of_equals():
    assert [name for name, *_ in bars_of(plot_probabilities([0.25] * 4, top=2))] == ["class 0", "class 1"]


def test_plot_probabilities_names_classes():
    ax = plot_probabilities(torch.tensor([0.25, 0.75]), names=["dog", "cat"])
    assert [name for name, *_ in bars_of(ax)] == ["cat", "dog"]


def test_plot_probabilities_keeps_two_classes_of_one_name_apart():
    ax = plot_probabilities([0.25, 0.5, 0.25], names=["crane", "crane", "dog"])  # ImageNet has two cranes
    assert [width for _, width, _ in bars_of(ax)] == [0.5, 0.25, 0.25]
    assert all(name.startswith(start) for (name, *_), start in zip(bars_of(ax), ("crane", "crane", "dog"), strict=True))


def whiskers(ax: Axes) -> list:
    """The ends of the whiskers, from top to bottom."""
    return [[(x0, y0), (x1, y1)] for [[x0, y0], [x1, y1]] in segments(ax)]


def test_plot_bars_draws_a_whisker_of_each_error_to_both_sides():
    ax = plot_bars({"a": 0.5, "b": 0.25}, errors={"b": 0.125, "a": 0.0625}, limit=1)  # found by name, not by place
    assert whiskers(ax) == [[(0.4375, 0), (0.5625, 0)], [(0.125, 1), (0.375, 1)]]
    assert [name for name, *_ in bars_of_names(ax)] == ["a", "b"]
    assert not segments(plot_bars({"a": 0.5}))


def bars_of_names(ax: Axes) -> list[tuple]:
    return list(zip([label.get_text() for label in ax.get_yticklabels()], ax.patches, strict=True))


def test_plot_bars_writes_the_value_beside_the_whisker():
    ax = plot_bars({"a": 0.5, "b": 0.25}, errors={"a": 0.1, "b": 0.2}, limit=1, unit="{:.0%}")
    assert [text.get_text() for text in ax.texts] == ["50%", "25%"]
    ax.figure.draw_without_rendering()
    for text, end in zip(ax.texts, (0.6, 0.45), strict=True):
        assert text.get_window_extent().x0 > ax.transData.transform((end, 0))[0]


def test_plot_bars_cuts_no_whisker():
    assert plot_bars({"a": 0.5, "b": 0.25}, errors={"a": 0.1, "b": 0.4}).get_xlim()[1] >= 0.65


def dotted(ax: Axes) -> list[float]:
    """Where dotted lines stand from the bottom to the top of the axes."""
    lines = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert all(line.get_ydata() == [0, 1] for line in lines)
    assert all(line.get_transform() == ax.get_xaxis_transform() for line in lines)
    return [line.get_xdata()[0] for line in lines]


@pytest.mark.parametrize("chance", [0, 0.1])
def test_plot_bars_draws_a_line_at_chance(chance):
    ax = plot_bars({"a": 0.5, "b": 0.25}, chance=chance)
    assert dotted(ax) == [chance]
    assert not dotted(plot_bars({"a": 0.5, "b": 0.25}))


def test_plot_bars_lets_no_line_run_through_a_number():
    ax = plot_bars({"a": 0.5, "b": 0.07}, chance=0.1, limit=1, unit="{:.0%}")
    ax.figure.draw_without_rendering()
    (line,) = [line for line in ax.lines if line.get_linestyle() == ":"]
    for text in ax.texts:
        ground, words = text.get_bbox_patch(), text.get_window_extent()
        assert same_color(ground.get_facecolor(), "white")
        assert ground.get_window_extent().contains(words.x0, words.y0)
        assert ground.get_window_extent().contains(words.x1, words.y1)
        assert text.get_zorder() > line.get_zorder()


# plot_dots

SAMPLES = {"a": [0.25, 0.5, 0.75], "b": [0.125, 0.375]}


def dots_of(ax: Axes) -> list:
    return [line.get_xydata().tolist() for line in ax.lines if line.get_marker() == "o"]


def test_plot_dots_draws_a_dot_for_every_measurement_in_the_row_of_its_name():
    ax = plot_dots(SAMPLES, role="class")
    assert dots_of(ax) == [[[0.25, 0], [0.5, 0], [0.75, 0]], [[0.125, 1], [0.375, 1]]]
    for line in ax.lines:
        if line.get_marker() == "o":
            assert line.get_linestyle() == "None"
            assert same_color(line.get_color(), ROLES["class"])
    assert ax.get_yticks().tolist() == [0, 1]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert ax.get_ylim() == (1.5, -0.5)  # the first is at the top


def test_plot_dots_marks_the_mean_of_each_name_and_writes_it_beside_the_row():
    ax = plot_dots(SAMPLES)
    bars = [line.get_xydata().tolist() for line in ax.lines if line.get_marker() != "o"]
    assert bars == [[[0.5, -0.3], [0.5, 0.3]], [[0.25, 0.7], [0.25, 1.3]]]
    assert [(text.get_text(), text.get_position()[1]) for text in ax.texts] == [("50.0%", 0), ("25.0%", 1)]
    ax.figure.draw_without_rendering()
    for row, text in enumerate(ax.texts):
        box = text.get_window_extent()
        assert box.x0 > ax.get_window_extent().x1
        assert box.y0 < ax.transData.transform((0, row))[1] < box.y1


def test_plot_dots_writes_means_and_ticks_in_the_unit_asked_for():
    ax = plot_dots({"a": [100, 300]}, unit="{:.0f} s", limits=(0, 400))
    assert [text.get_text() for text in ax.texts] == ["200 s"]
    assert ax.get_xlim() == (0, 400)
    assert ax.xaxis.get_major_formatter()(100, 0) == "100 s"
    percent = plot_dots(SAMPLES).xaxis.get_major_formatter()
    assert [percent(value, 0) for value in (0, 0.5, 0.125, 1)] == ["0%", "50%", "12.5%", "100%"]


@pytest.mark.parametrize("chance", [0, 0.1])
def test_plot_dots_draws_a_line_at_chance(chance):
    ax = plot_dots(SAMPLES, chance=chance)
    assert dotted(ax) == [chance]
    assert len(dots_of(ax)) == 2
    assert not dotted(plot_dots(SAMPLES))


def test_plot_dots_shows_every_dot_where_no_limits_are_given():
    left, right = plot_dots(SAMPLES).get_xlim()
    assert left < 0.125 < 0.75 < right


# plot_scatter


def inside(path) -> np.ndarray:
    """Which of 40 x 40 places in a path's frame lie inside it, wherever it lies and however large it is."""
    frame, places = path.get_extents(), (np.arange(40) + 0.5) / 40
    grid = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
    return path.contains_points(frame.min + grid * frame.size)


def test_plot_scatter_draws_each_point_as_its_label():
    ax = plot_scatter(POINTS, LABELS)
    assert len(ax.collections) == 4
    for collection, label in zip(ax.collections, sorted(set(LABELS)), strict=True):
        places = [place for place, own in enumerate(LABELS) if own == label]
        np.testing.assert_array_equal(collection.get_offsets(), POINTS[places])
        (path,) = collection.get_paths()
        expected = TextPath((0, 0), str(label), size=10)
        assert 0.1 < inside(expected).mean() < 0.9
        assert (path.codes == path.MOVETO).sum() == (expected.codes == path.MOVETO).sum()  # the hole of a 0, too
        assert (inside(path) == inside(expected)).mean() > 0.98  # all but edges
        assert len(collection.get_sizes()) == 1
    sizes = {collection.get_sizes()[0] for collection in ax.collections}
    assert len(sizes) == 1


def test_plot_scatter_draws_the_middle_of_the_label_at_the_point():
    for label in (0, 1, 4, 7, 42):
        ax = plot_scatter([[0.0, 0.0], [0.75, 0.25], [1.0, 1.0]], [label] * 3)
        ax.set(xlim=(-1, 2), ylim=(-1, 2))
        pixels = np.asarray(open_png(render(ax, tight=False)).convert("L")).astype(int)
        for point in ((0, 0), (0.75, 0.25), (1, 1)):
            across, up = ax.transData.transform(point) * 90 / ax.figure.dpi
            col, row = round(across), round(len(pixels) - up)
            rows, cols = np.nonzero(pixels[row - 12 : row + 12, col - 12 : col + 12] < 200)
            assert abs(rows.min() + rows.max() + 1 - 24) <= 3
            assert abs(cols.min() + cols.max() + 1 - 24) <= 3
            assert 6 <= max(np.ptp(rows), np.ptp(cols)) + 1 <= 14


def test_plot_scatter_colours_each_label_by_its_number():
    colours = {}
    for collection, label in zip(plot_scatter(POINTS, LABELS).collections, sorted(set(LABELS)), strict=True):
        colours[label] = collection.get_facecolor()
        assert colours[label].tolist() == [list(matplotlib.colormaps["tab10"](label % 10))]
    assert colours[17].tolist() == colours[7].tolist() != colours[0].tolist()
    (sole,) = plot_scatter(POINTS[:2], [7, 7]).collections
    assert sole.get_facecolor().tolist() == colours[7].tolist()  # whatever else is there


def test_plot_scatter_shows_every_point_without_ticks():
    ax = plot_scatter(torch.tensor(POINTS), torch.tensor(LABELS), title="digits")
    assert ax.get_title() == "digits"
    assert not [*ax.get_xticks(), *ax.get_yticks()]
    assert not [spine for spine in ax.spines.values() if spine.get_visible()]
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert left < POINTS[:, 0].min() < POINTS[:, 0].max() < right
    assert bottom < POINTS[:, 1].min() < POINTS[:, 1].max() < top
    assert drawn(ax)["points"] == drawn(plot_scatter(POINTS.tolist(), LABELS))["points"]


# side_by_side and style


def test_side_by_side_gives_empty_axes_of_one_figure():
    axes = side_by_side(3, width=6, height=2, ratios=(1, 1, 2))
    assert len(axes) == 3
    assert len({id(ax.figure) for ax in axes}) == 1
    assert not any(ax.has_data() for ax in axes)
    assert axes[0].figure.get_size_inches().tolist() == [6, 2]
    widths = [ax.get_position().width for ax in axes]
    assert widths == pytest.approx([widths[0], widths[0], 2 * widths[0]])
    assert [ax.get_position().x0 for ax in axes] == sorted(ax.get_position().x0 for ax in axes)


@pytest.mark.parametrize("last", [1, 8, 9, 10, 12, 50, 197, 1600])
def test_side_by_side_has_few_labels_and_none_between_whole_numbers_of_which_there_are_many(last):
    ax, _ = side_by_side(2)
    plot_curves({"a": ([0, last], [0, last])}, ax=ax)
    ticks = [tick for tick in ax.get_xticks() if 0 <= tick <= last]
    assert 2 <= len(ticks) <= 6
    assert last == 1 or all(tick % 1 == 0 for tick in ticks)


def test_style_holds_only_inside_its_block_even_after_an_error():
    before = dict(matplotlib.rcParams)
    with style():
        assert matplotlib.rcParams["axes.spines.top"] is False
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(ZeroDivisionError), style():
        _ = 1 / 0
    assert dict(matplotlib.rcParams) == before


def test_the_roles_can_be_told_apart():
    colours = [np.array(to_rgb(colour)) for colour in ROLES.values()]
    assert min(np.abs(one - other).max() for one, other in itertools.combinations(colours, 2)) > 0.2


# Wrong data meet a sentence that says what is wrong


BAD = [
    (lambda: plot_image(np.zeros((1, 3, 4, 4))), r"an image is \(channels, height, width\) or .* shape \(1, 3, 4, 4\)"),
    (lambda: plot_image(np.zeros((3, 0, 4))), r"an image is .* not an array of shape \(3, 0, 4\)"),
    (lambda: plot_image(np.zeros((2, 4, 4))), "an image has 1 or 3 channels, not 2"),
    (lambda: plot_image(np.zeros((4, 4, 3))), "an image has 1 or 3 channels, not 4"),
    (lambda: plot_image((255 * IMAGE).astype(np.uint8)), r"an image is in \[0, 1\]; divide whole numbers by 255"),
    (lambda: blend(torch.full((1, 4, 6), 2), WEIGHTS[0]), r"an image is in \[0, 1\]; divide whole numbers by 255"),
    (lambda: plot_patches(np.full((6, 12), 255), COLS), r"an image is in \[0, 1\]; divide whole numbers by 255"),
    (lambda: plot_image(np.zeros((1, 4, 6)), numbers=True), r"a matrix has one or two axes.* \(1, 4, 6\)"),
    (lambda: plot_image(np.zeros((4, 6)), numbers=True, patch_size=4), "patch_size 4 does not divide .* 4 x 6 pixels"),
    (lambda: plot_grid(IMAGE, 4), "patch_size 4 does not divide an image of 4 x 6 pixels"),
    (lambda: plot_grid(IMAGE, 3), "patch_size 3 does not divide an image of 4 x 6 pixels"),
    (lambda: plot_grid(IMAGE, 0), "patch_size 0 does not divide an image of 4 x 6 pixels"),
    (lambda: plot_grid(IMAGE, 2, marked={6: "query"}), "6 cannot be marked; there are 0 to 5"),
    (lambda: plot_grid(IMAGE, 2, marked={-1: "query"}), "-1 cannot be marked; there are 0 to 5"),
    (lambda: plot_grid(IMAGE, 2, marked={0: "star"}), "role 'star' is unknown; choose patch, class, position, query"),
    (lambda: plot_patches(PATCHES[0], 3), r"flattened patches are \(patches, patch_dim\), not .* \(12,\)"),
    (lambda: plot_patches(PATCHES[:0], 3), r"flattened patches are .* shape \(0, 12\)"),
    (lambda: plot_patches(PATCHES, 3, channels=1), "12 pixels are not 1 channels of a square patch"),
    (lambda: plot_patches(PATCHES[:, :8], 3, channels=2), "8 pixels are not 2 channels of a square patch"),
    (lambda: plot_patches(PATCHES, 3, marked={6: "query"}), "6 cannot be marked; there are 0 to 5"),
    (lambda: plot_patches(PATCHES, 3, marked={0: "star"}), "role 'star' is unknown"),
    (lambda: plot_sequence(IMAGE), r"flattened patches are .* shape \(3, 4, 6\)"),
    (lambda: plot_matrix(IMAGE), r"a matrix has one or two axes, not an array of shape \(3, 4, 6\)"),
    (lambda: plot_matrix([]), r"a matrix has one or two axes, not an array of shape \(0,\)"),
    (lambda: plot_matrix(1.0), r"a matrix has one or two axes, not an array of shape \(\)"),
    (
        lambda: plot_matrix(MATRIX, kind="colours"),
        "kind 'colours' is unknown; choose magnitude, weights, similarity, signed",
    ),
    (lambda: plot_matrix(MATRIX, marked={2: "query"}), "2 cannot be marked; there are 0 to 1"),
    (lambda: plot_matrix(MATRIX, marked={0: "star"}), "role 'star' is unknown"),
    (lambda: plot_filters(PATCHES[0]), r"filters are \(dim, patch_dim\), not an array of shape \(12,\)"),
    (lambda: plot_similarity(SIMILARITY, 2, 2), r"of a 2 x 2 grid are \(4, 4\), not \(6, 6\)"),
    (lambda: plot_similarity(SIMILARITY[0], 2, 3), r"similarities are \(patches, patches\)"),
    (lambda: plot_similarity(SIMILARITY, 2, 3, marked={6: "query"}), "6 cannot be marked; there are 0 to 5"),
    (lambda: plot_attention(IMAGE, WEIGHTS), r"weights over a picture are \(rows, cols\)"),
    (lambda: plot_attention(IMAGE, np.ones((3, 3))), r"weights of \(3, 3\) do not tile an image of 4 x 6 pixels"),
    (lambda: plot_attention(IMAGE, np.ones((2, 4))), r"weights of \(2, 4\) do not tile an image of 4 x 6 pixels"),
    (lambda: plot_attention(IMAGE, np.ones((2, 2))), r"weights of \(2, 2\) .* 4 x 6 pixels with square patches"),
    (lambda: plot_attention(IMAGE, WEIGHTS[0], query=6), "query 6 is outside the grid of 2 x 3 = 6 patches"),
    (lambda: plot_attention(IMAGE, WEIGHTS[0], query=-1), "query -1 is outside the grid of 2 x 3 = 6 patches"),
    (lambda: plot_heads(IMAGE, WEIGHTS[0]), r"weights of several heads are \(heads, rows, cols\)"),
    (lambda: plot_heads(IMAGE, WEIGHTS, query=6), "query 6 is outside the grid of 2 x 3 = 6 patches"),
    (lambda: plot_heads(IMAGE, WEIGHTS, query=-1), "query -1 is outside the grid of 2 x 3 = 6 patches"),
    (lambda: plot_heads(IMAGE, WEIGHTS, titles=["a"]), "1 titles for 5 heads"),
    (lambda: plot_heads(IMAGE[0, 0], WEIGHTS), r"an image is \(channels, height, width\) .* shape \(6,\)"),
    (lambda: plot_heads(IMAGES, WEIGHTS), r"an image is \(channels, height, width\) .* shape \(3, 3, 4, 6\)"),
    (lambda: plot_heads(IMAGE, np.ones((5, 3, 3))), r"weights of \(3, 3\) do not tile an image of 4 x 6 pixels"),
    (
        lambda: plot_heads(np.ones((3, 112, 112)), np.ones((20, 7, 8)), cols=20),
        r"weights of \(7, 8\) do not tile an image of 112 x 112 pixels",
    ),
    (lambda: plot_maps(IMAGE), r"several images are \(count, channels, height, width\), not .* shape \(3, 4, 6\)"),
    (lambda: plot_maps(IMAGES[:0]), r"several images are .* shape \(0, 3, 4, 6\)"),
    (lambda: plot_maps(IMAGES[:, :2]), "an image has 1 or 3 channels, not 2"),
    (lambda: plot_maps(IMAGES, titles=["a"]), "^1 titles for 3 images$"),
    (lambda: plot_maps(IMAGES, titles=[]), "^0 titles for 3 images$"),
    (lambda: plot_maps(IMAGES, {"a": WEIGHTS[:3]}, cols=2), "^with maps, all 3 images stand in one row; leave cols"),
    (lambda: plot_maps(IMAGES, {"a": WEIGHTS[0]}), r"the maps 'a' are \(count, rows, cols\), not .* \(2, 3\)"),
    (lambda: plot_maps(IMAGES, {"a": WEIGHTS[:3], "b": WEIGHTS}), "^5 maps 'b' for 3 images$"),
    (lambda: plot_maps(IMAGES, {"a": np.ones((3, 3, 3))}), r"weights of \(3, 3\) do not tile an image of 4 x 6"),
    (lambda: plot_maps(IMAGES, masks=MASKS[0]), r"masks are \(count, height, width\), not .* \(4, 6\)"),
    (lambda: plot_curves({"a": (MATRIX, MATRIX)}), "a curve's x has one axis"),
    (lambda: plot_curves({"a": (CURVE, CURVE[:2])}), "same first dimension"),
    (lambda: plot_curves({"a": (CURVE, CURVE)}, role="star"), "role 'star' is unknown"),
    (lambda: plot_distributions({"a": MATRIX, "b": []}), r"sample 'b' holds numbers, not an array of shape \(0,\)"),
    (lambda: plot_stream(NORMS[0]), r"norms are \(stations, tokens\)"),
    (lambda: plot_probabilities(MATRIX), r"probabilities are \(classes,\)"),
    (lambda: plot_probabilities([0.5, 0.5], names=["a"]), "1 names for 2 classes"),
    (lambda: plot_bars({"a": 1.0}, role="star"), "role 'star' is unknown"),
    (lambda: plot_bars({"a": 1.0, "b": 2.0}, errors={"a": 1.0}), "^errors of a for values of a, b$"),
    (lambda: plot_bars({"a": 1.0}, errors={"a": 1.0, "c": 1.0}), "^errors of a, c for values of a$"),
    (
        lambda: plot_dots({"a": [1.0], "b": []}),
        r"the measurements of one name are a list, not an array of shape \(0,\)",
    ),
    (lambda: plot_dots({"a": [1.0]}, role="star"), "role 'star' is unknown"),
    (lambda: plot_scatter(POINTS, LABELS[1:]), r"^5 labels for points of shape \(6, 2\); points are \(points, 2\)$"),
    (lambda: plot_scatter(POINTS.T, LABELS), r"^6 labels for points of shape \(2, 6\); points are \(points, 2\)$"),
    (lambda: plot_scatter(NORMS, [0, 1, 2, 3]), r"^4 labels for points of shape \(4, 7\)"),
    (lambda: plot_scatter(POINTS[0], [1, 2]), r"points are \(points, 2\), not an array of shape \(2,\)"),
    (lambda: plot_scatter(POINTS[:0], []), r"points are \(points, 2\), not an array of shape \(0, 2\)"),
    (lambda: plot_scatter(POINTS, [LABELS]), r"labels are \(points,\), not an array of shape \(1, 6\)"),
    (lambda: plot_scatter(POINTS, 3), r"labels are \(points,\), not an array of shape \(\)"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_wrong_data_are_refused(call, message):
    before = dict(matplotlib.rcParams)
    with pytest.raises(ValueError, match=message):
        call()
    assert dict(matplotlib.rcParams) == before


# render and show


@pytest.fixture
def noise():
    """A figure of many colours, no small file, with an outline in the colour of every role."""
    image = np.random.default_rng(0).random((3, 280, 280))
    return plot_grid(image, 40, marked=dict(enumerate(ROLES))).figure


@pytest.mark.parametrize("colours", [None, 64])
@pytest.mark.parametrize("tight", [True, False])
def test_render_gives_an_opaque_png_on_white(noise, tight, colours):
    picture = open_png(render(noise, tight=tight, colours=colours))
    assert picture.format == "PNG"
    assert "transparency" not in picture.info
    rgba = np.asarray(picture.convert("RGBA"))
    assert (rgba[..., 3] == 255).all()
    for corner in (rgba[0, 0], rgba[0, -1], rgba[-1, 0], rgba[-1, -1]):
        assert corner.tolist() == [255, 255, 255, 255]


def test_render_stays_white_where_matplotlib_is_set_dark(noise):
    with matplotlib.rc_context({"savefig.facecolor": "black", "savefig.transparent": True, "savefig.dpi": 300}):
        png = render(noise)
    assert png == render(noise)


def test_render_takes_axes_for_their_figure(noise):
    assert render(noise.axes[0]) == render(noise)


def test_render_takes_the_whole_figure_at_90_dpi_when_it_is_not_cut():
    figure = side_by_side(2, width=5, height=3)[0].figure
    assert open_png(render(figure, tight=False)).size == (450, 270)


def test_render_cuts_to_what_is_drawn():
    figure = Figure(figsize=(8, 8))
    figure.text(0.5, 0.5, "a word")
    assert max(open_png(render(figure)).size) < 100


def test_a_caption_is_written_below_and_not_left_in_the_figure(noise):
    plain = render(noise)
    with_caption = render(noise, caption="A sentence of some words. " * 12)
    assert not noise.texts
    assert render(noise) == plain
    assert render(noise, caption="A sentence of some words. " * 12) == with_caption
    height = open_png(plain).height
    picture = np.asarray(open_png(with_caption).convert("L"))
    assert len(picture) > height + 40
    lines = np.diff((picture[height:] < 128).any(axis=1).astype(int)).tolist().count(1)
    assert lines > 2
    assert (picture[:, [0, -1]] == 255).all()  # the sentence is wrapped, not cut
    assert (picture[[0, -1]] == 255).all()


def test_a_caption_does_not_touch_the_plot():
    ax = plot_matrix(MATRIX, xlabel="keys")
    figure, found = ax.figure, {}
    save = figure.savefig

    def look(*args, **kwargs):
        (caption,) = figure.texts
        words_drawn(figure)
        found["caption"], found["label"] = caption.get_window_extent(), ax.xaxis.label.get_window_extent()
        return save(*args, **kwargs)

    figure.savefig = look
    render(figure, caption="What it shows.")
    assert found["caption"].y1 < found["label"].y0


def test_a_caption_is_taken_away_when_saving_fails(noise, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(noise, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        render(noise, caption="caption")
    assert not noise.texts


@pytest.mark.parametrize("colours", [32, 256])
def test_few_colours_make_a_small_file_that_keeps_the_colours_of_the_roles(noise, colours, monkeypatch):
    monkeypatch.setattr(plots, "SMALL", 0)
    full, small = render(noise), render(noise, colours=colours)
    found = {colour for _, colour in open_png(small).convert("RGB").getcolors()}
    assert len(found) <= colours
    roles = {tuple(round(255 * part) for part in to_rgb(colour)) for colour in ROLES.values()}
    used = {colour[:3] for _, colour in open_png(full).getcolors(1 << 20)}
    assert roles <= used  # each outline has a pixel that no neighbour blurs
    assert roles <= found
    assert len(small) < len(full)
    assert open_png(small).size == open_png(full).size
    assert render(noise, colours=colours) == small


def test_a_file_that_is_small_anyway_keeps_all_its_colours():
    curves = plot_curves({"line": ([0, 1], [0, 1])})
    assert len(render(curves, colours=2)) < plots.SMALL
    assert np.array_equal(pixels_of(render(curves, colours=2)), pixels_of(render(curves)))


def pixels_of(png: bytes) -> np.ndarray:
    return np.asarray(open_png(png).convert("RGB")).astype(int)


def test_a_photo_in_few_colours_stays_close_to_the_full_one():
    full = render(plot_image(photo("cat")))
    small = render(plot_image(photo("cat")), colours=256)
    assert len(small) < len(full) / 2
    assert 0 < np.abs(pixels_of(full) - pixels_of(small)).mean() < 4


def test_a_file_that_is_small_anyway_keeps_every_pixel():
    ax = plot_matrix(np.arange(900.0).reshape(30, 30))
    full, small = render(ax), render(ax, colours=16)
    assert len(small) < plots.SMALL
    np.testing.assert_array_equal(pixels_of(full), pixels_of(small))


@pytest.fixture
def displayed(monkeypatch):
    calls = []
    monkeypatch.setattr("IPython.display.display", lambda *args, **kwargs: calls.append((args, kwargs)))
    return calls


def test_show_displays_one_picture_with_its_description(displayed, capsys):
    alt = "Two rows of three numbers, from -2 to 3."
    ax = plot_matrix(MATRIX)
    assert show(ax, alt) is None
    (((bundle,), options),) = displayed
    assert set(bundle) == {"image/png", "text/plain"}
    assert bundle["text/plain"] == alt
    assert options == {"raw": True, "metadata": {"image/png": {"alt": alt}}}
    png = base64.b64decode(bundle["image/png"], validate=True)
    assert png == render(ax, caption=alt, colours=256)
    assert png != render(ax, colours=256)
    assert capsys.readouterr() == ("", "")


def test_show_takes_a_description_written_over_several_lines(displayed):
    show(plot_matrix(MATRIX), "Two rows\n    of three   numbers. ")
    (((bundle,), options),) = displayed
    assert bundle["text/plain"] == options["metadata"]["image/png"]["alt"] == "Two rows of three numbers."


def test_show_reaches_the_notebook_as_one_output():
    InteractiveShell.instance()
    try:
        with capture_output() as captured:
            show(plot_matrix(MATRIX), "Six numbers.")
    finally:
        InteractiveShell.clear_instance()
    assert (captured.stdout, captured.stderr) == ("", "")
    (output,) = captured.outputs
    assert set(output.data) == {"image/png", "text/plain"}
    assert output.metadata == {"image/png": {"alt": "Six numbers."}}


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_show_refuses_to_show_without_a_description(displayed, alt):
    with pytest.raises(ValueError, match="alt is empty; say in a sentence"):
        show(plot_matrix(MATRIX), alt)
    assert not displayed
