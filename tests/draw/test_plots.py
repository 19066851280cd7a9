"""Plots hold the data that they were given: read from their artists, not from their pixels."""

import io
import itertools

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from vit_walkthrough import draw, patchify
from vit_walkthrough.draw.images import COLORMAPS
from vit_walkthrough.draw.theme import ROLES

SIDE, ROWS, COLS = 2, 2, 3  # the grid is not square, so rows and columns cannot be swapped unseen
PLACES = list(itertools.product(range(ROWS), range(COLS)))  # of the patches, in reading order

# No pixel is white, which is the ground that pictures are laid on.
IMAGE = (0.9 * np.random.default_rng(0).random((3, ROWS * SIDE, COLS * SIDE))).astype(np.float32)
PATCHES = patchify(torch.tensor(IMAGE)[None], SIDE)[0].numpy()
WEIGHTS = np.random.default_rng(1).dirichlet(np.ones(ROWS * COLS), 5).reshape(5, ROWS, COLS)
SIMILARITY = np.random.default_rng(2).uniform(-1, 1, (ROWS * COLS, ROWS * COLS))
MATRIX = np.array([[-2.0, 0.25, 1.0], [0.0, 0.5, 3.0]])
IMAGES = 0.9 * np.random.default_rng(7).random((4, 3, 24, 36))  # so large that a gap of a twelfth is whole pixels
SQUARES = [(6, 12, 18), (0, 0, 12), (12, 24, 12), (1, 2, 3)]  # top, left and side of what is masked on each
MASKS = np.zeros((4, 24, 36), dtype=bool)
for mask, (top, left, side) in zip(MASKS, SQUARES, strict=True):
    mask[top : top + side, left : left + side] = True
HALF = 0.5 / 255 + 1e-6  # of a step between two shades, for the pictures of heads are bytes


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


def hwc(image: np.ndarray) -> np.ndarray:
    return image.transpose(1, 2, 0)


def held(ax) -> np.ndarray:
    return np.asarray(ax.images[0].get_array())


def enlarged(picture: np.ndarray, like: np.ndarray) -> np.ndarray:
    return picture.repeat(len(like) // len(picture), axis=0).repeat(len(like) // len(picture), axis=1)


def pictures(patches: np.ndarray) -> list[np.ndarray]:
    return [hwc(patch.reshape(3, SIDE, SIDE)) for patch in patches]


BETWEEN_PATCHES = [[[-0.5, 1.5], [5.5, 1.5]], [[1.5, -0.5], [1.5, 3.5]], [[3.5, -0.5], [3.5, 3.5]]]


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        (IMAGE, hwc(IMAGE)),
        *[(grey, IMAGE[0][..., None].repeat(3, -1)) for grey in (IMAGE[0], IMAGE[:1])],
        (np.array([[-1.0, 0.5, 2.0]]), np.array([[[0.0] * 3, [0.5] * 3, [1.0] * 3]])),
        (np.eye(4, 6, dtype=int), np.eye(4, 6)[..., None].repeat(3, -1)),
    ],
)
def test_plot_image_holds_the_image(image, shown):
    ax = draw.plot_image(image)
    np.testing.assert_array_equal(held(ax), shown)
    assert held(ax).dtype.kind == "f"  # matplotlib would take whole numbers for bytes, of which 1 is black
    assert (ax.images[0].get_interpolation(), ax.get_aspect()) == ("nearest", 1)
    assert not [*ax.get_xticks(), *ax.get_yticks()]


def test_plot_image_writes_each_number_on_its_pixel_and_marks_patches():
    numbers = torch.arange(24.0).reshape(4, 6)
    ax = draw.plot_image(numbers, numbers=True, patch_size=2, marked={4: "patch"})
    np.testing.assert_array_equal(held(ax), numbers)
    assert words_at(ax) == {str(6 * row + col): (col, row) for row in range(4) for col in range(6)}
    assert (segments(ax), outlines(ax, "patch")) == (BETWEEN_PATCHES, [(1.5, 1.5, 2, 2)])


def test_plot_grid_draws_lines_numbers_and_outlines_over_the_image():
    ax = draw.plot_grid(IMAGE, SIDE, number=True, marked={2: "patch", 4: "query"})
    np.testing.assert_array_equal(held(ax), hwc(IMAGE))
    assert segments(ax) == BETWEEN_PATCHES
    assert words_at(ax) == {str(patch): (col * 2 + 0.5, row * 2 + 0.5) for patch, (row, col) in enumerate(PLACES)}
    assert (outlines(ax, "patch"), outlines(ax, "query")) == ([(3.5, -0.5, 2, 2)], [(1.5, 1.5, 2, 2)])


@pytest.mark.parametrize(("cols", "number"), [(COLS, True), (4, False)])
def test_plot_patches_lays_patch_k_on_tile_k_with_its_number_above(cols, number):
    ax = draw.plot_patches(PATCHES, cols, number=number, marked={4: "query"})
    places = tile_places(held(ax))
    assert len({columns.start for _, columns in places}) == cols
    for place, picture in zip(places, pictures(PATCHES), strict=True):
        np.testing.assert_array_equal(held(ax)[place], enlarged(picture, held(ax)[place]))
    rows, columns = places[4]
    side = rows.stop - rows.start
    assert outlines(ax, "query") == [(columns.start - 0.5, rows.start - 0.5, side, side)]
    assert list(words_at(ax)) == ([str(patch) for patch in range(6)] if number else [])
    for (across, down), (rows, columns) in zip(words_at(ax).values(), places, strict=number):
        assert across == (columns.start + columns.stop) / 2
        assert rows.start - 2 <= down < rows.start


def test_plot_matrix_holds_the_values_between_the_limits_of_its_kind():
    cases = [(MATRIX, "magnitude", None, (-2, 3)), (MATRIX, "weights", None, (0, 1)), ([[0]], "signed", None, (-1, 1))]
    cases += [(-MATRIX, "signed", None, (-3, 3)), (MATRIX, "signed", 1.5, (-1.5, 1.5))]
    for values, kind, limit, expected in cases:
        heat = draw.plot_matrix(values, kind=kind, limit=limit).images[0]
        np.testing.assert_array_equal(heat.get_array(), values)
        assert (heat.get_clim(), heat.get_cmap().name) == (expected, COLORMAPS[kind])


@pytest.mark.parametrize(
    ("count", "options", "words", "bars"),
    [(80, {}, 80, 0), (81, {}, 0, 1), (81, {"numbers": True}, 81, 0), (6, {"numbers": False, "colorbar": False}, 0, 0)],
)
def test_plot_matrix_writes_numbers_on_up_to_80_cells_and_explains_the_colours_of_more(count, options, words, bars):
    ax = draw.plot_matrix(np.zeros(count), **options)
    assert (len(ax.texts), len(ax.figure.axes) - 1) == (words, bars)


@pytest.mark.parametrize("kind", COLORMAPS)
def test_plot_matrix_writes_numbers_that_can_be_told_from_their_cell(kind):
    values = np.linspace(-1 if kind == "signed" else 0, 1, 64)
    ax = draw.plot_matrix(values, kind=kind)
    heat = ax.images[0]
    for text, value in zip(ax.texts, values, strict=True):
        colours = text.get_color(), heat.cmap(heat.norm(value))[:3]
        dark, light = sorted(linear(colour) @ (0.2126, 0.7152, 0.0722) for colour in colours)
        assert (light + 0.05) / (dark + 0.05) >= 4, value  # a ratio of the Web Content Accessibility Guidelines


def test_plot_matrix_writes_each_value_on_its_cell_names_rows_and_columns_and_marks_a_row():
    assert words_at(draw.plot_matrix([-0.0, -0.001])) == {"0": (0, 0), "0.00": (1, 0)}  # no minus before a zero
    assert words_at(draw.plot_matrix(torch.tensor([[7], [8]]))) == {"7": (0, 0), "8": (0, 1)}
    names = dict(names=["r0", "r1"], col_names=["c0", "c1", "c2"])
    ax = draw.plot_matrix(MATRIX, **names, xlabel="keys", ylabel="queries", marked={1: "class"})
    words = {"-2": (0, 0), "0.25": (1, 0), "1": (2, 0), "0": (0, 1), "0.50": (1, 1), "3": (2, 1)}
    assert (words_at(ax), [ticks(ax.yaxis), ticks(ax.xaxis)]) == (words, [*names.values()])
    assert (ax.get_yticks().tolist(), ax.get_xticks().tolist()) == ([0, 1], [0, 1, 2])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("keys", "queries")
    assert outlines(ax, "class") == [(-0.5, 0.5, 3, 1)]
    assert [same_color(label.get_color(), ROLES["class"]) for label in ax.get_yticklabels()] == [False, True]


def test_plot_filters_stretches_each_filter_to_its_own_range():
    filters = np.stack([PATCHES[0] * 100 - 7, PATCHES[1] / 100, np.full(12, 3.0)])
    canvas = held(draw.plot_filters(filters, cols=2))
    scale = 12  # so small patches are enlarged to 24 pixels, and an eighth of that lies between them
    assert canvas.shape == (2 * 24 + 3, 2 * 24 + 3, 3)
    for place, values in enumerate(filters):
        row, col = divmod(place, 2)
        tile = canvas[row * 27 :, col * 27 :][: 2 * scale : scale, : 2 * scale : scale]
        stretched = (values - values.min()) / (np.ptp(values) or 1)
        np.testing.assert_allclose(tile, pictures([stretched])[0], atol=1e-6)
    assert (canvas[24:27] == 1).all()


def test_plot_similarity_lays_row_k_on_tile_k_and_names_rows_and_columns():
    ax = draw.plot_similarity(SIMILARITY, ROWS, COLS, marked={4: "query"})
    canvas = np.ma.filled(ax.images[0].get_array(), np.nan)
    for patch, (row, col) in enumerate(PLACES):
        tile = canvas[row * (ROWS + 1) :, col * (COLS + 1) :][:ROWS, :COLS]
        np.testing.assert_array_equal(tile, SIMILARITY[patch].reshape(ROWS, COLS))
        tile[:] = np.nan
    assert np.isnan(canvas).all()
    assert ax.images[0].get_clim() == (-1, 1)
    assert (ax.get_xticks().tolist(), ax.get_yticks().tolist()) == ([1, 5, 9], [0.5, 3.5])
    assert (ticks(ax.xaxis), ticks(ax.yaxis)) == (["0", "1", "2"], ["0", "1"])
    ((left, top, width, height),) = outlines(ax, "query")  # around its tile, and around no part of another
    assert 3 - 0.5 < left <= 4 - 0.5 < 7 - 0.5 <= left + width < 8 - 0.5
    assert 2 - 0.5 < top <= 3 - 0.5 < 5 - 0.5 <= top + height < 6 - 0.5
    assert ticks(draw.plot_similarity(np.zeros((196, 196)), 14, 14).xaxis) == ["0", "4", "8", "12"]


@pytest.mark.parametrize("image", [torch.tensor(IMAGE), IMAGE[0], 0 * IMAGE])
@pytest.mark.parametrize("weights", [100 * WEIGHTS[0], 0 * WEIGHTS[0], np.eye(2, 3, dtype=int), -WEIGHTS[0]])
def test_blend_is_the_colour_of_the_weight_and_a_little_grey_of_the_picture(image, weights):
    grey = (np.tensordot((0.299, 0.587, 0.114), image, 1) if len(image) == 3 else IMAGE[0])[..., None]
    shown = weights.clip(0) / (weights.max() if weights.max() > 0 else 1)
    heat = matplotlib.colormaps["inferno"](shown)[..., :3].repeat(SIDE, axis=0).repeat(SIDE, axis=1)
    expected = 0.3 * grey + 0.7 * heat
    blended = draw.blend(image, weights)
    np.testing.assert_allclose(blended, expected, atol=1e-6)
    np.testing.assert_array_equal(held(draw.plot_attention(image, weights)), blended)


@pytest.mark.parametrize(
    ("count", "cols", "options"),
    [(5, 4, {}), (3, 2, dict(titles=list("abc"), cols=2)), (1, 2, {}), (5, 5, dict(first=True))],
)
def test_plot_heads_lays_the_blend_of_head_k_on_tile_k_and_the_image_before_a_single_one(count, cols, options):
    image = IMAGE.repeat(20, axis=1).repeat(20, axis=2)
    ax = draw.plot_heads(image, WEIGHTS[:count], query=5, **options)
    titles = options.get("titles", [f"head {head}" for head in range(count)])
    expected = [draw.blend(image, weights) for weights in WEIGHTS[:count]]
    if count == 1 or "first" in options:
        titles, expected = ["the image", *titles], [hwc(image), *expected]
    places = tile_places(held(ax) / 255)
    assert (held(ax).dtype, len({columns.start for _, columns in places})) == (np.uint8, cols)
    assert outlines(ax, "query") == [(left.start + 79.5, top.start + 39.5, 40, 40) for top, left in places]
    assert list(words_at(ax)) == titles
    for place, picture, (across, down) in zip(places, expected, words_at(ax).values(), strict=True):
        np.testing.assert_allclose(held(ax)[place] / 255, picture, atol=HALF)
        assert (across, place[0].start - 5 < down <= place[0].start) == (place[1].start + 60, True)


@pytest.mark.parametrize("maps", [{}, {"seen": WEIGHTS[:4], "asked": WEIGHTS[1:] ** 2}])
def test_plot_maps_puts_rows_of_blends_under_the_pictures(maps):
    ax = draw.plot_maps(IMAGES, maps, titles=list("pqrs"), masks=torch.tensor(MASKS))
    places, words = tile_places(held(ax)), words_at(ax)
    expected = [hwc(image) for image in IMAGES]
    for weights in maps.values():
        expected += [draw.blend(image, each) for image, each in zip(IMAGES, weights, strict=True)]
    for place, picture in zip(places, expected, strict=True):
        np.testing.assert_allclose(held(ax)[place], picture)
    assert list(words) == [*"pqrs", *maps]
    for (across, down), (rows, columns) in zip(words.values(), places[:4], strict=False):
        assert (across, rows.start - 5 < down <= rows.start) == (columns.start + 18, True)
    for (across, down), (rows, columns) in zip([*words.values()][4:], places[4::4], strict=True):
        assert (across < columns.start, down) == (True, rows.start + 12)
    boxes = [(place, SQUARES[number % 4]) for number, place in enumerate(places)]
    boxes = [(cols.start + col - 0.5, rows.start + row - 0.5, *2 * (side,)) for (rows, cols), (row, col, side) in boxes]
    assert outlines(ax, "query") == boxes
    assert not overlapping(ax.figure)


WRONG = [
    (lambda: draw.plot_image(np.zeros((1, 3, 4, 4))), r"\(1, 3, 4, 4\)"),
    (lambda: draw.plot_image(np.zeros((2, 4, 4))), "1 or 3 channels, not 2"),
    (lambda: draw.plot_image((255 * IMAGE).astype(np.uint8)), "255"),
    *((lambda side=side: draw.plot_grid(IMAGE, side), f"patch_size {side} .* 4 x 6 pixels") for side in (4, 3, 0)),
    *((lambda patch=patch: draw.plot_grid(IMAGE, 2, marked={patch: ""}), f"^{patch} .* 0 to 5") for patch in (6, -1)),
    (lambda: draw.plot_grid(IMAGE, 2, marked={0: "star"}), "'star' .* patch, class, position, query"),
    (lambda: draw.plot_patches(PATCHES[:, :8], 3), "patch_dim 8 "),
    (lambda: draw.plot_matrix(MATRIX, kind="no"), "'no' .* magnitude, weights, signed"),
    (lambda: draw.plot_similarity(SIMILARITY, 2, 2), r"2 x 2 .* \(4, 4\), not \(6, 6\)"),
    (lambda: draw.plot_attention(IMAGE, np.ones((2, 4))), r"\(2, 4\) .* 4 x 6 pixels"),
    (lambda: draw.plot_heads(IMAGE, WEIGHTS, titles=["a"]), "1 titles for 5"),
    (lambda: draw.plot_maps(IMAGES, titles=[]), "^0 titles for 4"),
    (lambda: draw.plot_maps(IMAGES, {"a": WEIGHTS[:4], "b": WEIGHTS}), "^5 maps 'b' for 4"),
    *((lambda masks=masks: draw.plot_maps(IMAGES, masks=masks), "masks") for masks in (MASKS[:3], MASKS & False)),
    (lambda: draw.plot_curves({"a": (np.eye(2), np.eye(2))}), "x has one axis"),
    (lambda: draw.plot_curves({"a": ([1], [1])}, role="star"), "role 'star' is unknown; choose patch"),
    (lambda: draw.plot_probabilities(np.eye(2)), r"\(classes,\)"),
    (lambda: draw.plot_probabilities([0.5, 0.5], names=["a"]), "1 names for 2 classes"),
    (lambda: draw.plot_dots({"a": [1.0], "b": []}), r"shape \(0,\)"),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_wrong_data_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


CURVE = np.array([0.0, 1.0, 2.0, 4.0])


def test_plot_curves_holds_every_curve_under_its_name():
    ax = draw.plot_curves({"a": (CURVE, CURVE**2), "b": ([1, 2], [3.0, 4.0])}, xlabel="x", ylabel="y")
    assert [line.get_xydata().T.tolist() for line in ax.lines] == [[[0, 1, 2, 4], [0, 1, 4, 16]], [[1, 2], [3, 4]]]
    assert [(text.get_text(), *text.xy) for text in ax.texts] == [("b", 2, 4), ("a", 4, 16)]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")
    assert not draw.plot_curves({"a": (CURVE, CURVE)}).texts
    left, _ = draw.side_by_side(2)  # the names would run into the neighbour
    draw.plot_curves({"a": (CURVE, CURVE), "b": (CURVE, CURVE)}, ax=left)
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["a", "b"]
    assert len({line.get_linestyle() for line in left.lines}) == 2


def test_curves_differ_in_colour_and_no_name_of_one_covers_another():
    assert same_color(draw.plot_curves({"a": (CURVE, CURVE)}, role="query").lines[0].get_color(), ROLES["query"])
    ax = draw.plot_curves({str(name): (CURVE, CURVE + name / 100) for name in range(7)})
    colours = [line.get_color() for line in ax.lines]
    assert (len(set(colours)), [text.get_color() for text in ax.texts]) == (7, colours)
    boxes = [text.get_window_extent() for text in ax.texts]
    assert all(lower.y1 < upper.y1 - 5 for lower, upper in itertools.pairwise(boxes))


def bars_of(ax) -> list[tuple]:
    """From top to bottom: the name, the length and what is written at its end."""
    assert ax.yaxis_inverted()  # the first is at the top
    np.testing.assert_allclose([bar.get_y() + bar.get_height() / 2 for bar in ax.patches], ax.get_yticks())
    lengths, words = [bar.get_width() for bar in ax.patches], [text.get_text() for text in ax.texts]
    return list(zip(ticks(ax.yaxis), lengths, words, strict=True))


def test_plot_bars_draws_each_value_at_its_name_and_writes_it():
    ax = draw.plot_bars({"head": 7_690.0, "blocks": 85_054_464.0})
    assert bars_of(ax) == [("head", 7690, "7,690"), ("blocks", 85054464, "85,054,464")]
    assert (ax.get_xlim()[0], ax.get_xlim()[1] >= 85_054_464) == (0, True)
    assert bars_of(draw.plot_bars({"a": 0.0, "b": 0.0})) == [("a", 0, "0"), ("b", 0, "0")]


@pytest.mark.parametrize("chance", [0, 0.1])
@pytest.mark.parametrize("plot", [draw.plot_bars, lambda values, **more: draw.plot_dots({"a": [values["a"]]}, **more)])
def test_a_dotted_line_stands_at_chance(plot, chance):
    for asked, expected in (({"chance": chance}, [[chance, chance]]), ({}, [])):
        lines = plot({"a": 0.5}, **asked).lines
        assert [line.get_xdata() for line in lines if line.get_linestyle() == ":"] == expected


def test_plot_probabilities_puts_the_five_likeliest_first_and_numbers_names_that_are_the_same():
    ax = draw.plot_probabilities([0.1, 0.0, 0.4, 0.3, 0.2, 0.0])
    likeliest = zip((2, 3, 4, 0, 1), (0.4, 0.3, 0.2, 0.1, 0.0), strict=True)
    assert bars_of(ax) == [(f"class {k}", p, f"{p:.1%}") for k, p in likeliest]
    assert ax.get_xlim() == (0, 1)
    cranes = draw.plot_probabilities(torch.tensor([0.25, 0.5, 0.25]), names=["crane", "crane", "dog"])  # of ImageNet
    assert bars_of(cranes) == [("crane (1)", 0.5, "50.0%"), ("crane (0)", 0.25, "25.0%"), ("dog (2)", 0.25, "25.0%")]


def test_plot_dots_draws_every_measurement_and_writes_the_mean_of_each_name_beside_its_row():
    ax = draw.plot_dots({"a": [0.25, 0.5, 0.75], "b": [0.125, 0.375]})
    lines = [line.get_xydata().tolist() for line in ax.lines]
    assert lines[::2] == [[[0.25, 0], [0.5, 0], [0.75, 0]], [[0.125, 1], [0.375, 1]]]
    assert lines[1::2] == [[[0.5, -0.3], [0.5, 0.3]], [[0.25, 0.7], [0.25, 1.3]]]
    assert (ax.get_yticks().tolist(), ticks(ax.yaxis), ax.get_ylim()) == ([0, 1], ["a", "b"], (1.5, -0.5))
    assert [(text.get_text(), text.get_position()[1]) for text in ax.texts] == [("50.0%", 0), ("25.0%", 1)]
    ax.figure.draw_without_rendering()
    assert all(text.get_window_extent().x0 > ax.get_window_extent().x1 for text in ax.texts)
    percent, seconds = ax.xaxis.get_major_formatter(), draw.plot_dots({"a": [1]}, unit="{:.0f} s", limits=(0, 400))
    assert [percent(value, 0) for value in (0.5, 0.125)] == ["50%", "12.5%"]
    assert (seconds.texts[0].get_text(), seconds.get_xlim()) == ("1 s", (0, 400))
