"""What holds for every plot, whatever a reader has set; and that `render` and `show` show what was drawn."""

import base64

import matplotlib
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.draw.test_plots import (
    COLS,
    CURVE,
    IMAGE,
    IMAGES,
    MASKS,
    MATRIX,
    PATCHES,
    ROWS,
    SIDE,
    SIMILARITY,
    WEIGHTS,
    overlapping,
    pixels_of,
    words_drawn,
)
from vit_walkthrough import VisionTransformer, ViTConfig, draw
from vit_walkthrough.data import photo
from vit_walkthrough.draw.theme import ROLES, SMALL, render, show

TINY = VisionTransformer(ViTConfig(48, 8, dim=64, depth=4, heads=4))
# One call of every plot: what is drawn first, and the rest.
PLOTS = {
    "plot_image": (IMAGE, {}),
    "plot_grid": (IMAGE, dict(patch_size=SIDE, number=True, marked={4: "query"})),
    "plot_patches": (PATCHES, dict(cols=COLS, marked={4: "patch"})),
    "plot_matrix": (MATRIX, dict(names=["a", "b"], marked={1: "query"})),
    "plot_filters": (PATCHES, dict(cols=4)),
    "plot_similarity": (SIMILARITY, dict(rows=ROWS, cols=COLS, marked={4: "query"})),
    "plot_attention": (IMAGE, dict(weights=WEIGHTS[0])),
    "plot_heads": (IMAGE, dict(weights=WEIGHTS)),
    "plot_maps": (IMAGES, dict(maps={"a": WEIGHTS[:4]}, masks=MASKS, titles=["i", "j", "k", "l"])),
    "plot_curves": ({"a": (CURVE, CURVE), "b": (CURVE, 2 * CURVE)}, {}),
    "plot_probabilities": (WEIGHTS[0].ravel(), {}),
    "plot_bars": (dict(a=1.0, b=2.0, c=3.0, d=5.0), dict(chance=2.5)),
    "plot_dots": ({"a": (CURVE / 10).tolist(), "b": (CURVE / 10)[1:].tolist()}, dict(chance=0.1)),
}


def plotted(name: str):
    data, options = PLOTS[name]
    return getattr(draw, name)(data, **options)


LOUD = {
    "axes.autolimit_mode": "round_numbers", "axes.facecolor": "black", "axes.grid": True, "axes.titley": None,
    "axes.xmargin": 0.5, "figure.dpi": 200, "figure.autolayout": True, "figure.subplot.left": 0.4, "font.size": 30,
    "font.family": "serif", "image.interpolation": "bicubic", "image.origin": "lower", "path.sketch": (5, 50, 2),
    "savefig.bbox": "tight", "savefig.facecolor": "red", "text.usetex": True, "xtick.minor.visible": True,
}  # fmt: skip


@pytest.mark.parametrize("name", [*(name for name in dir(draw) if name.startswith("plot_")), "draw_block"])
def test_the_settings_of_a_reader_change_no_picture_and_are_left_as_they_are(name):
    def picture() -> bytes:
        ax = plotted(name) if name in PLOTS else draw.draw_block(TINY.config, photo("cat", 48), model=TINY)
        return render(ax, "A caption.")

    calm = picture()
    with matplotlib.rc_context(LOUD):
        before = dict(matplotlib.rcParams)
        assert (picture(), dict(matplotlib.rcParams)) == (calm, before)


@pytest.mark.parametrize("name", PLOTS)
def test_words_are_large_apart_and_inside_the_picture(name):
    figure = plotted(name).figure
    words, page = words_drawn(figure), figure.get_tightbbox().padded(0.02)
    assert not overlapping(figure)
    assert min((text.get_size() for text in figure.findobj(Text)), default=8) >= 8
    for text in words:
        box = text.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        assert page.x0 <= box.x0 <= box.x1 <= page.x1, text
        assert page.y0 <= box.y0 <= box.y1 <= page.y1, text


@pytest.fixture(scope="module")
def framed():
    """A figure of many colours, no small file, with an outline in the colour of every role."""
    return draw.plot_grid(photo("cat"), 28, marked=dict(enumerate(ROLES))).figure


def test_render_gives_an_opaque_png_on_white_of_what_is_drawn(framed):
    png = render(framed.axes[0])
    assert (png, png[:4], b"tRNS" in png) == (render(framed), b"\x89PNG", False)
    assert (pixels_of(png)[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
    figure = Figure(figsize=(5, 3))
    figure.text(0.5, 0.5, "a word")
    assert max(pixels_of(render(figure)).shape) < 100


def test_a_caption_is_written_below_and_not_left_in_the_figure():
    ax = draw.plot_matrix(MATRIX, xlabel="keys")
    plain, save = render(ax), ax.figure.savefig
    picture = pixels_of(render(ax, caption="A sentence of some words. " * 12))
    assert len(picture) > len(pixels_of(plain)) + 40
    assert all((edge == 255).all() for edge in (picture[:, [0, -1]], picture[[0, -1]]))  # it is wrapped, not cut
    ax.figure.savefig = lambda *args, **kwargs: 1 / 0
    with pytest.raises(ZeroDivisionError):
        render(ax, caption="caption")
    ax.figure.savefig = save
    assert render(ax) == plain


def test_few_colours_make_a_large_file_small_and_keep_the_colours_of_the_roles(framed):
    little = draw.plot_matrix(np.arange(900.0).reshape(30, 30))  # a small file keeps all its colours
    np.testing.assert_array_equal(pixels_of(render(little, colours=2)), pixels_of(render(little)))
    full, small = render(framed), render(framed, colours=256)
    assert max(SMALL, 2 * len(small)) < len(full)
    before, after = pixels_of(full), pixels_of(small)
    assert len(np.unique(after.reshape(-1, 3), axis=0)) <= 256
    assert 0 < np.abs(after - before).mean() < 4
    for colour in ("white", *ROLES.values()):
        there = (before == [round(255 * part) for part in to_rgb(colour)]).all(axis=-1)
        assert there.any()  # each outline has a pixel that no neighbour blurs
        assert np.abs(after[there] - before[there]).max() <= 4  # two roles differ by at least 65


def test_show_displays_a_picture_for_fine_screens_with_its_caption_below_and_refuses_to_show_without():
    ax, alt = draw.plot_matrix(MATRIX), "Two rows of three numbers, from -2 to 3."
    InteractiveShell.instance()
    with capture_output() as shown:
        with pytest.raises(ValueError, match="caption is empty"):
            show(ax, "  \n")
        show(ax, "Two rows\n    of three   numbers, from -2 to 3. ")
        show(ax, "1 < 2")
    InteractiveShell.clear_instance()
    picture, below, _, escaped = shown.outputs
    assert (shown.stdout, shown.stderr) == ("", "")
    assert picture.data.keys() == {"image/png", "text/plain"}
    assert picture.data["text/plain"] == below.data["text/plain"] == alt
    assert below.data["text/html"] == f"<p>{alt}</p>"
    png = base64.b64decode(picture.data["image/png"], validate=True)
    assert png == render(ax, colours=256, dpi=180)
    assert picture.metadata == {"image/png": {"alt": alt, "width": pixels_of(png).shape[1] // 2}}
    assert abs(pixels_of(png).shape[1] - 2 * pixels_of(render(ax)).shape[1]) <= 2
    assert escaped.data["text/html"] == "<p>1 &lt; 2</p>"
