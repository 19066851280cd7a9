"""Every panel is driven to both ends and to every option, and what it says is computed again by other means."""

import base64
import inspect
import io
import itertools
import re
import subprocess
import sys
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from math import erf, log, log2
from pathlib import Path
from random import Random
from types import SimpleNamespace

import ipywidgets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.text import Text
from PIL import Image
from torch import nn
from traitlets import TraitError

from tests.widgets.panels import (
    Page,
    address,
    choose,
    count_draws,
    drawn_once,
    ends,
    file_of,
    leaves,
    numbers,
    turn_together,
    turned,
    values_of,
)
from vit_walkthrough import (
    ClassToken,
    Encoder,
    MultiHeadSelfAttention,
    PatchEmbedding,
    VisionTransformer,
    ViTConfig,
    count_parameters,
    data,
    patchify,
    record,
    unpatchify,
    widgets,
)
from vit_walkthrough.draw import schematics
from vit_walkthrough.draw.images import plot_matrix
from vit_walkthrough.look.explain import occlusion, relevance, rollout
from vit_walkthrough.model.config import SIZES
from vit_walkthrough.model.tokens import resample_positions, sincos_positions
from vit_walkthrough.train.loop import Fitted, History, fit, init_model
from vit_walkthrough.weights import checkpoint
from vit_walkthrough.weights.checkpoint import bundled, load_tiny, read_tensors, save_checkpoint
from vit_walkthrough.widgets import (
    Panel,
    explore_activation,
    explore_attention,
    explore_depth,
    explore_drawings,
    explore_heads,
    explore_maps,
    explore_order,
    explore_patches,
    explore_pooling,
    explore_positions,
    explore_resolution,
    explore_sizes,
    explore_vit,
    models,
    stages,
    train_and_look,
)
from vit_walkthrough.widgets import panel as panel_module

MODULES = (panel_module, stages, models)
PANELS = {
    "explore_patches": explore_patches,
    "explore_positions": explore_positions,
    "explore_attention": explore_attention,
    "explore_heads": explore_heads,
    "explore_depth": explore_depth,
    "explore_sizes": explore_sizes,
    "explore_drawings": explore_drawings,
    "explore_pooling": partial(explore_pooling, 12),
    "explore_order": partial(explore_order, 12),
    "explore_resolution": partial(explore_resolution, 8),
    "explore_activation": partial(explore_activation, 12),
    "explore_vit": partial(explore_vit, 12),
    "explore_maps": partial(explore_maps, 12),
    "train_and_look": train_and_look,
}
every_panel = pytest.mark.parametrize("name", PANELS)
A_PICTURE = file_of(Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)))


def opened(name: str) -> Panel:
    """A panel in which every control has something to change."""
    panel = PANELS[name]()
    if "query" in panel.controls:
        panel.controls["query"].value = "patch"
    if "chosen" in panel.controls:
        send(panel, A_PICTURE)
        panel.controls["chosen"].kind.value = "digit"
    return panel


def send(panel: Panel, content: bytes) -> None:
    """Choose one's own picture and let it come."""
    panel.controls["chosen"].kind.value = "my own"
    panel.controls["chosen"].file.value = address(content)


@pytest.fixture
def spy(monkeypatch):
    """Record what a function is called with, in whichever file of the widgets uses it."""

    def watch(name: str) -> list:
        calls, users = [], [module for module in MODULES if hasattr(module, name)]
        assert users, f"no panel uses {name}"

        def watched(*args, **kwargs):
            calls.append((args, kwargs))
            return real(*args, **kwargs)

        real = getattr(users[0], name)
        for module in users:
            monkeypatch.setattr(module, name, watched)
        return calls

    return watch


@pytest.fixture
def count_forward(monkeypatch):
    """Record every run of a module: itself and its input."""

    def watch(module: type) -> list:
        calls, real = [], module.forward

        def forward(self, tensor):
            calls.append((self, tensor))
            return real(self, tensor)

        monkeypatch.setattr(module, "forward", forward)
        return calls

    return watch


def words_drawn(figure) -> list[Text]:
    """The texts that drawing the figure really draws, ticks outside the picture left out."""
    seen, draw_text = [], Text.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", lambda text, renderer: (seen.append(text), draw_text(text, renderer)))
        figure.draw_without_rendering()
    return [text for text in seen if text.get_visible() and text.get_text().strip()]


def random_states() -> tuple:
    return torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002


def look_at(panel: Panel, turn) -> SimpleNamespace:
    figure = getattr(panel.figure, "figure", panel.figure)
    words = [(text.get_text(), text.get_size(), text.get_window_extent()) for text in words_drawn(figure)]
    return SimpleNamespace(
        turn=turn, values=panel.chosen(), leaves=values_of(panel.controls), words=words, text=panel.text,
        page=Page(panel.picture.value), message=panel.message.value, figure_box=figure.bbox.frozen(),
    )  # fmt: skip


@pytest.fixture(scope="module", params=PANELS)
def journey(request):
    """A panel at its start, after every turn of `turned`, back again, and with its controls anywhere; and what it did
    beside."""
    printed, before, dice = io.StringIO(), random_states(), Random(0)
    with redirect_stdout(printed), redirect_stderr(printed):
        panel = opened(request.param)
        start = values_of(panel.controls)
        draws, stops = count_draws(panel), []
        for turn in itertools.chain(["start"], turned(panel.controls)):
            stops.append(look_at(panel, turn))
            stops[-1].draws = draws.copy()
            draws.clear()
        for name, value in start.items():
            leaves(panel.controls)[name].value = value
        end, anywhere = panel.picture.value, []
        for _ in range(8):
            with drawn_once(panel):
                for control in leaves(panel.controls).values():  # in their order: some decide what others offer
                    control.value = dice.choice(ends(control))
            anywhere.append(look_at(panel, values_of(panel.controls)))
    return SimpleNamespace(
        panel=panel, start=stops[0], turns=stops[1:], end=end, anywhere=anywhere, printed=printed.getvalue(),
        stops=[*stops, *anywhere], random_before=before, random_after=random_states(),
    )  # fmt: skip


# What holds for every panel


def test_every_panel_is_tried_here():
    functions = {name for module in MODULES for name, _ in inspect.getmembers(module, inspect.isfunction)}
    assert {name for name in functions if name.startswith(("explore_", "train_"))} == set(PANELS)
    assert set(widgets.__all__) == {"Panel", *PANELS}


def test_every_control_is_turned_to_both_ends_and_to_every_option(journey):
    for name, control in leaves(journey.panel.controls).items():
        values = [stop.leaves[name] for stop in [journey.start, *journey.turns]]
        if hasattr(control, "options") or isinstance(journey.start.leaves[name], bool):
            assert set(values) >= set(ends(control)), name
        else:
            assert {stop.turn[1] for stop in journey.turns if stop.turn[0] == name} | {journey.start.leaves[name]} >= {
                *ends(control)
            } or name in ("row", "col"), name
            assert len(set(values)) >= 2


def test_every_turn_changes_the_picture(journey):
    for before, after in itertools.pairwise([journey.start, *journey.turns]):
        assert after.page.png != before.page.png, after.turn


def test_every_turn_draws_once_with_what_the_controls_say(journey):
    for stop in journey.turns:
        assert stop.draws == [stop.values], stop.turn


def test_the_text_stands_under_the_picture_and_in_its_place(journey):
    for stop in journey.stops:
        assert stop.page.tags == ["div", "img", "p"]
        assert stop.page.words == stop.page.attributes["img"]["alt"] == stop.text
        assert len(stop.text) > 60
        assert "nan" not in stop.text
        assert stop.message == ""


def test_no_label_is_cut_off_at_any_turn(journey):
    for stop in journey.stops:
        page = stop.figure_box
        for word, _, box in stop.words:
            assert page.x0 <= box.x0 <= box.x1 <= page.x1, (stop.turn, word)
            assert page.y0 <= box.y0 <= box.y1 <= page.y1, (stop.turn, word)


def test_no_label_lies_on_another_at_any_turn(journey):
    for stop in journey.stops:
        for (one, _, box), (other, _, place) in itertools.combinations(stop.words, 2):
            assert not box.padded(-1).overlaps(place.padded(-1)), (stop.turn, one, other)


def test_no_label_is_smaller_than_8_points_at_any_turn(journey):
    for stop in journey.stops:
        assert min((size for _, size, _ in stop.words), default=8) >= 8, stop.turn


def test_the_way_back_leads_to_the_same_picture(journey):
    assert Page(journey.end).png == journey.start.page.png
    assert Page(journey.end).words == journey.start.text


def test_random_numbers_of_others_stay_as_they_are(journey):
    assert journey.random_before == journey.random_after


def test_nothing_is_printed(journey):
    assert journey.printed == ""


def test_nothing_is_drawn_while_a_slider_is_held(journey):
    for control in leaves(journey.panel.controls).values():
        assert not getattr(control, "continuous_update", False)


def test_every_control_says_what_it_is(journey):
    descriptions = [control.description for control in leaves(journey.panel.controls).values()]
    assert all(descriptions)
    assert len(set(descriptions)) == len(descriptions)


def test_every_panel_says_what_to_try_and_what_to_notice(journey):
    hint = Page(journey.panel.box.children[0].value).words
    assert re.match(r"Try: .{20,}\. Notice: .{20,}\.", hint)
    assert journey.panel.box.children[0].value.count("<p") == 2


@every_panel
def test_a_panel_made_again_shows_the_same(name):
    assert PANELS[name]().picture.value == PANELS[name]().picture.value


@every_panel
def test_a_value_that_is_not_offered_cannot_be_chosen(name):
    panel = opened(name)
    for control in leaves(panel.controls).values():
        if hasattr(control, "options") or isinstance(control.value, bool):
            with pytest.raises(TraitError):
                control.value = "nothing of the sort"
        else:
            control.value = 10 * control.max + 1000
            assert control.value == ends(control)[1]
    assert panel.message.value == ""


@every_panel
def test_a_panel_is_displayed_once_with_a_still_picture_and_its_text(name, monkeypatch):
    panel = opened(name)
    for _ in (0, next(turned(panel.controls))):  # as it is displayed first, and after a turn
        calls = []
        monkeypatch.setattr(panel_module, "display", lambda *args, calls=calls, **kwargs: calls.append((args, kwargs)))
        panel._ipython_display_()
        (((bundle,), options),) = calls
        view = bundle.pop("application/vnd.jupyter.widget-view+json")
        assert view == {"model_id": panel.box.model_id, "version_major": 2, "version_minor": 0}
        assert set(bundle) == {"image/png", "text/plain"}
        assert bundle["text/plain"] == panel.text == Page(panel.picture.value).words
        assert options == {"raw": True, "metadata": {"image/png": {"alt": panel.text}}}
        still = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"], validate=True)))
        live = Image.open(io.BytesIO(Page(panel.picture.value).png))
        assert still.format == live.format == "PNG"
        assert still.convert("RGBA").getextrema()[3] == live.convert("RGBA").getextrema()[3] == (255, 255)
        assert still.width >= 0.8 * live.width


def test_pyplot_is_never_imported():
    code = """
import sys
from vit_walkthrough import widgets
panel = widgets.explore_positions()
panel.controls["grid"].value = 4
assert "ipywidgets" in sys.modules and "matplotlib.figure" in sys.modules
assert "matplotlib.pyplot" not in sys.modules
"""
    root = Path(widgets.__file__).parents[2]
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=root, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


# explore_patches


def test_explore_patches_offers_every_size_that_divides_the_photo_and_no_other():
    sizes = list(explore_patches().controls["patch_size"].options)
    assert sizes == [4, 7, 8, 14, 16, 28, 32, 56, 112, 224]
    assert list(explore_patches(60).controls["patch_size"].options) == [4, 5, 6, 10, 12, 15, 20, 30, 60]


@pytest.mark.parametrize("size", [3, 0, -4])
def test_explore_patches_refuses_a_photo_smaller_than_a_patch(size):
    with pytest.raises(ValueError, match=f"size {size} is less than the smallest patch; choose 4 or more"):
        explore_patches(size)


def test_explore_patches_counts_right():
    panel = explore_patches()
    for size in panel.controls["patch_size"].options:
        panel.controls["patch_size"].value = size
        patches = len([top for top in range(0, 224, size) for _ in range(0, 224, size)])
        text = panel.text
        assert numbers(text, r"^The cat in patches of (\d+) x (\d+) pixels") == [size, size]
        assert numbers(text, r"(\d+) \* (\d+) = ([\d,]+) patch") == [patches**0.5, patches**0.5, patches]
        assert numbers(text, r"class token ([\d,]+) tokens") == [patches + 1]
        assert numbers(text, r"3 \* (\d+) \* \d+ = ([\d,]+) numbers") == [size, 3 * size * size]
        assert numbers(text, r"([\d,]+) pairs") == [(patches + 1) ** 2]


def test_explore_patches_cuts_the_photo_that_is_chosen(spy):
    grids, tiles = spy("plot_grid"), spy("plot_patches")
    panel = explore_patches()
    for name in data.PHOTOS:
        panel.controls["photo_name"].value = name
        panel.controls["patch_size"].value = 56
        (image, patch_size), _ = grids[-1]
        (patches, cols), _ = tiles[-1]
        torch.testing.assert_close(image, data.photo(name, 224), rtol=0, atol=0)
        assert (patch_size, cols) == (56, 4)
        assert panel.text.startswith(f"The {name} in patches of 56 x 56")
        torch.testing.assert_close(patches[6].reshape(3, 56, 56), image[:, 56:112, 112:168], rtol=0, atol=0)


# explore_positions


def cosines(positions: torch.Tensor) -> torch.Tensor:
    patches = positions[0, 1:] - positions[0, 1:].mean(dim=0)
    return F.cosine_similarity(patches[:, None], patches[None], dim=-1)


KINDS = ["sines and cosines", "random", "learned"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", [3, 7, 14])
def test_explore_positions_shows_the_similarity_of_the_resampled_positions(spy, kind, grid):
    learned = torch.randn(1, 50, 16, requires_grad=True)
    shown = spy("plot_similarity")
    panel = explore_positions(learned)
    turn_together(panel, kind=kind, grid=grid)
    turn_together(panel, row=1, col=2)
    (similarity, rows, cols), more = shown[-1]
    noise = torch.randn(1, 50, 16, generator=torch.Generator().manual_seed(0))
    original = dict(zip(KINDS, (sincos_positions(7, 7, 16), noise, learned.detach()), strict=True))[kind]
    expected = cosines(resample_positions(original, grid, grid))
    torch.testing.assert_close(similarity, expected, atol=1e-5, rtol=0)
    assert (rows, cols, more["marked"]) == (grid, grid, {grid + 2: "position"})
    tile = panel.figure.figure.axes[1].images[0].get_array()
    np.testing.assert_allclose(tile, expected[grid + 2].reshape(grid, grid), atol=1e-5)
    assert (f"resampled to {grid} x {grid}" in panel.text) == (grid != 7)
    assert panel.text.startswith(f"Positions, {kind}, for 7 x 7 patches")


def test_explore_positions_opens_with_those_of_the_tiny_vit(spy):
    shown = spy("plot_similarity")
    panel = explore_positions()
    assert list(panel.controls["kind"].options) == KINDS
    panel.controls["kind"].value = "learned"
    expected = cosines(load_tiny(6, 4).position_embedding.positions.detach())
    torch.testing.assert_close(shown[-1][0][0], expected, atol=1e-5, rtol=0)
    assert shown[-1][0][1:] == (8, 8)


def test_explore_positions_knows_no_neighbours_by_chance_and_all_of_them_by_sines():
    panel, likeness = explore_positions(), {}
    for kind in KINDS:
        panel.controls["kind"].value = kind
        row, col, likeness[kind] = numbers(panel.text, r"the one at row\s(\d+), column (\d+) \((-?[\d.]+)\)")
        if kind != "random":
            assert abs(row - 4) + abs(col - 4) == 1
    assert likeness["random"] < 0.5 < likeness["sines and cosines"]


@pytest.mark.parametrize("grid", [3, 8, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_explore_positions_names_the_most_similar_patch(spy, kind, grid):
    shown = spy("plot_similarity")
    panel = explore_positions()
    turn_together(panel, kind=kind, grid=grid)
    for row, col in ((0, 0), (grid - 1, 1), (1, grid - 1)):
        turn_together(panel, row=row, col=col)
        similarity = shown[-1][0][0][row * grid + col].clone()
        itself = similarity[row * grid + col].item()
        similarity[row * grid + col] = -2
        (said_row, said_col, itself_said) = numbers(panel.text, r"row (\d+), column (\d+) is ([\d.]+) similar")
        assert (said_row, said_col, itself_said) == (row, col, pytest.approx(itself, abs=0.005))
        best_row, best_col, best = numbers(panel.text, r"the one at row\s(\d+), column (\d+) \((-?[\d.]+)\)")
        assert (best_row, best_col) != (row, col)
        assert similarity[int(best_row) * grid + int(best_col)] == pytest.approx(similarity.max().item(), abs=1e-4)
        assert best == pytest.approx(similarity.max().item(), abs=0.006)


@pytest.mark.parametrize("seed", range(4))
def test_explore_positions_names_the_first_of_equals_whatever_the_last_digits_are(monkeypatch, seed):
    noise = 1e-6 * torch.randn(1, 50, 64, generator=torch.Generator().manual_seed(seed))
    monkeypatch.setattr(stages, "sincos_positions", lambda *sizes: sincos_positions(*sizes) + noise)
    panel = explore_positions(torch.randn(1, 50, 64))
    panel.controls["kind"].value = KINDS[0]  # four neighbours of the middle are equally similar
    assert "the one at row 2, column 3" in panel.text


def test_explore_positions_never_points_outside_its_grid_and_stays_at_its_place():
    panel = explore_positions()
    turn_together(panel, row=6, col=1)
    for grid, place in ((16, (13, 3)), (3, (2, 0)), (8, (6, 1))):
        panel.controls["grid"].value = grid
        assert (panel.controls["row"].max, panel.controls["col"].max) == (grid - 1, grid - 1)
        assert f"row {place[0]}, column {place[1]} is 1.00" in panel.text
    for grid in (14, 3, 7):
        panel.controls["grid"].value = grid
        for name in ("row", "col"):
            panel.controls[name].value = grid - 1
        assert f"row {grid - 1}, column {grid - 1} is 1.00" in panel.text


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("tokens", [49, 51, 1])
def test_explore_positions_refuses_what_is_no_square_grid(tokens):
    with pytest.raises(ValueError, match=f"{tokens} positions are not those of a class token and a square grid"):
        explore_positions(torch.randn(1, tokens, 64))


# explore_attention


def entropy_of(text: str) -> list[float]:
    return numbers(text, r"Entropy ([\d.]+) bits; looking everywhere alike would be ([\d.]+)\.")


def test_explore_attention_looks_everywhere_alike_when_hot_and_at_one_key_when_cold():
    panel = explore_attention()
    panel.controls["temperature"].value = panel.controls["temperature"].base ** panel.controls["temperature"].max
    assert entropy_of(panel.text) == pytest.approx([log2(196), log2(196)], abs=0.06)
    panel.controls["temperature"].value = 0.1
    assert entropy_of(panel.text) == pytest.approx([0, log2(196)], abs=0.06)


@pytest.fixture
def small():
    """A picture of 4 x 4 patches with a query and a key of each."""
    return torch.rand(3, 32, 32), torch.randn(16, 5, requires_grad=True), torch.randn(16, 5)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(("row", "col", "temperature"), [(0, 0, 1.0), (3, 1, 0.2), (1, 3, 5.0)])
def test_explore_attention_shows_the_softmax_of_the_scores(spy, small, row, col, temperature, scaled):
    image, queries, keys = small
    shown = spy("plot_attention")
    panel = explore_attention(image, queries, keys)
    panel.controls["row"].value, panel.controls["col"].value = row, col
    panel.controls["temperature"].value = temperature
    panel.controls["scores"].value = "divided by √head_dim" if scaled else "as they are"
    (held, weights), more = shown[-1]
    scores = (queries.detach()[4 * row + col] * keys).sum(dim=-1) / (5**0.5 if scaled else 1)
    expected = torch.softmax(scores / temperature, dim=0)
    torch.testing.assert_close(weights, expected.reshape(4, 4))
    assert held is image
    assert more["query"] == 4 * row + col
    said = numbers(
        panel.text,
        r"query at row (\d+), column (\d+) gives ([\d.]+) of .* row (\d+), column (\d+) and ([\d.]+) to the five",
    )
    best = divmod(int(expected.argmax()), 4)
    most, five = expected.max().item(), expected.sort().values[-5:].sum().item()
    assert said == pytest.approx([row, col, most, *best, five], abs=6e-4)
    assert panel.text.startswith(f"head_dim 5, temperature {temperature:.3g}. The query")
    entropy = -(expected * expected.log2()).nansum().item()
    assert entropy_of(panel.text) == pytest.approx([entropy, 4], abs=0.06)
    (curve,) = panel.figure.figure.axes[2].lines
    np.testing.assert_array_equal(curve.get_xdata(), np.arange(1, 17))
    np.testing.assert_allclose(curve.get_ydata(), sorted(expected, reverse=True), rtol=1e-5)


def test_undivided_scores_let_one_key_win():
    panel = explore_attention()
    turn_together(panel, temperature=1.0)
    divided, _ = entropy_of(panel.text)
    panel.controls["scores"].value = "as they are"
    undivided, _ = entropy_of(panel.text)
    assert undivided < 0.1 < 3 < divided
    assert numbers(panel.text, r"gives ([\d.]+) of its attention") == [pytest.approx(1, abs=0.01)]
    panel.controls["temperature"].value = 768**0.5  # a temperature does just what the division does
    assert entropy_of(panel.text)[0] == pytest.approx(divided, abs=0.06)


def test_explore_attention_shows_the_strongest_keys_only():
    (curve,) = explore_attention().figure.figure.axes[2].lines
    assert (len(curve.get_xdata()), curve.get_xdata()[0]) == (50, 1)


def test_explore_attention_compares_the_patches_themselves_if_nothing_is_given(spy):
    shown = spy("plot_attention")
    explore_attention()
    (image, weights), _ = shown[-1]
    torch.testing.assert_close(image, data.photo("cat", 224), rtol=0, atol=0)
    assert weights.shape == (14, 14)
    assert weights.argmax() == 7 * 14 + 7  # nothing is more like a patch than itself


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("queries", "keys"), [(15, 15), (16, 9)])
def test_explore_attention_refuses_what_is_no_square_grid(queries, keys):
    with pytest.raises(ValueError, match=f"{queries} queries and {keys} keys are not one for each patch of a square"):
        explore_attention(torch.rand(3, 32, 32), torch.randn(queries, 5), torch.randn(keys, 5))


@pytest.mark.parametrize("shape", [(100, 100), (448, 112), (112, 448), (13, 13)])
def test_explore_attention_refuses_an_image_that_is_not_14_by_14_patches(shape):
    height, width = shape
    message = f"an image of {height} x {width} pixels; without queries it must be square, and its side a multiple of 14"
    with pytest.raises(ValueError, match=message):
        explore_attention(torch.rand(3, *shape))
    assert explore_attention(torch.rand(3, 28, 28)).text


# explore_heads


@pytest.mark.parametrize(("dim", "expected"), [(48, [1, 2, 3, 4, 6, 8, 12, 16, 24, 48]), (10, [1, 2, 5, 10])])
def test_explore_heads_offers_every_divisor_of_dim_and_no_other(dim, expected):
    assert list(explore_heads(dim=dim).controls["heads"].options) == expected


def test_explore_heads_shows_that_heads_cost_no_parameters(spy):
    shown = spy("plot_heads")
    panel = explore_heads(dim=12)
    for heads in panel.controls["heads"].options:
        panel.controls["heads"].value = heads
        said = numbers(panel.text, r"(\d+) heads? of head_dim (\d+) / (\d+) = (\d+), ([\d,]+) parameters")
        assert said == [heads, 12, heads, 12 / heads, 4 * 12 * 12 + 4 * 12]
        (_, maps), _ = shown[-1]
        assert maps.shape == (heads, 14, 14)
        torch.testing.assert_close(maps.sum(dim=(1, 2)), torch.ones(heads))
        brightest = maps.amax(dim=(1, 2)).tolist()
        said = numbers(panel.text, r"between ([\d.]+) and ([\d.]+); looking everywhere alike gives ([\d.]+)\.")
        assert said == pytest.approx([min(brightest), max(brightest), 1 / 196], abs=6e-4)


def test_explore_heads_shows_the_row_of_the_query_on_a_grid_that_is_not_square(spy, count_forward):
    shown, runs = spy("plot_heads"), count_forward(MultiHeadSelfAttention)
    image = torch.rand(3, 32, 48)
    panel = explore_heads(image, dim=12)
    panel.controls["row"].value, panel.controls["col"].value = 1, 2
    assert (panel.controls["row"].max, panel.controls["col"].max) == (1, 2)
    ((attention, tokens),) = runs
    with record(attention) as trace:
        attention(tokens)
    (held, maps), more = shown[-1]
    torch.testing.assert_close(maps, trace["weights"][0][:, 5].reshape(4, 2, 3))
    assert held is image
    assert more["query"] == 5


def test_explore_heads_runs_the_module_for_new_heads_only(count_forward):
    runs = count_forward(MultiHeadSelfAttention)
    panel = explore_heads(dim=12)
    assert len(runs) == 1
    panel.controls["row"].value = 0
    assert len(runs) == 1
    panel.controls["heads"].value = 6
    assert [attention.heads for attention, _ in runs] == [4, 6]
    panel.controls["heads"].value = 4
    assert len(runs) == 2


# explore_depth


def made(build, *sizes):
    torch.manual_seed(0)
    return build(*sizes).eval()


@torch.no_grad()
def walked(photo: str, stream: str, norm: str, dim: int = 64) -> torch.Tensor:
    """The tokens of a photo before the first block and after each of 24, written out: (25, tokens, dim)."""
    patches = made(PatchEmbedding, 32, 3, dim)(data.photo(photo, 224)[None])[0]
    tokens = torch.cat([made(ClassToken, dim).token[0], patches - patches.mean(dim=0)])
    tokens = (tokens - tokens.mean(dim=1, keepdim=True)) / (tokens.var(dim=1, correction=0, keepdim=True) + 1e-5).sqrt()
    stations = [tokens]
    for block in made(Encoder, 24, dim, 4, 4 * dim):
        if norm == "before":
            found = block.attention(block.norm_1(tokens)[None])[0]
        else:
            found = block.attention(tokens[None])[0]
        tokens = found if stream == "found alone" else found + tokens
        if norm == "after":
            tokens = block.norm_1(tokens)
        found = block.mlp((block.norm_2(tokens) if norm == "before" else tokens)[None])[0]
        tokens = found if stream == "found alone" else found + tokens
        if norm == "after":
            tokens = block.norm_2(tokens)
        stations.append(tokens)
    return torch.stack(stations)


STREAMS, NORMS = ["tokens + found", "found alone"], ["before", "after", "nowhere"]


def test_explore_depth_opens_with_the_block_of_the_paper_and_offers_every_other():
    controls = explore_depth().controls
    assert list(controls["photo_name"].options) == list(data.PHOTOS)
    assert (list(controls["stream"].options), controls["stream"].value) == (STREAMS, "tokens + found")
    assert (list(controls["norm"].options), controls["norm"].value) == (NORMS, "before")
    assert (controls["depth"].min, controls["depth"].max) == (1, 24)


@pytest.mark.parametrize(("stream", "norm"), list(itertools.product(STREAMS, NORMS)))
def test_explore_depth_shows_how_long_and_how_alike_the_tokens_are(spy, stream, norm):
    lengths, likeness = spy("plot_stream"), spy("plot_matrix")
    panel = explore_depth()
    for depth, photo in ((1, "cat"), (24, "coffee"), (7, "cat")):
        turn_together(panel, depth=depth, photo_name=photo, stream=stream, norm=norm)
        tokens = walked(photo, stream, norm)[: depth + 1].double()
        expected = tokens.pow(2).sum(dim=-1).sqrt()
        assert lengths[-1][0][0].shape == (depth + 1, 50)
        torch.testing.assert_close(lengths[-1][0][0].double(), expected, rtol=1e-3, atol=1e-9)
        alike = F.cosine_similarity(tokens[-1][:, None], tokens[-1][None], dim=-1, eps=1e-30)
        torch.testing.assert_close(likeness[-1][0][0].double(), alike, rtol=0, atol=2e-3)
        found = re.match(
            rf"The {photo} in (\d+) blocks? with random weights, (.+), the norm (\w+)\. The tokens' mean length goes "
            r"from ([\d.]+) to ([\d.e+-]+); two of them are on average (-?[\d.]+) alike",
            panel.text,
        )
        assert found, panel.text
        assert (int(found[1]), found[2], found[3]) == (depth, stream, norm)
        means = expected.mean(dim=1)
        others = (alike.sum() - alike.trace()) / (50 * 49)
        assert [float(found[4]), float(found[6])] == pytest.approx([means[0].item(), others.item()], abs=0.051)
        assert float(found[5]) == pytest.approx(means[-1].item(), rel=6e-3)


@torch.no_grad()
def test_explore_depth_walks_through_the_encoder_itself(spy):
    lengths = spy("plot_stream")
    panel = explore_depth()
    turn_together(panel, depth=24)
    encoder, start = made(Encoder, 24, 64, 4, 256), walked("cat", "tokens + found", "before")[:1]
    with record(encoder) as trace:
        end = encoder(start)
    expected = torch.cat([start, *(trace[f"{block}"] for block in range(24))])
    torch.testing.assert_close(end[0], expected[-1])
    torch.testing.assert_close(lengths[-1][0][0], expected.norm(dim=-1), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_explore_depth_puts_the_norm_where_torch_puts_it(spy, torch_layer):
    lengths = spy("plot_stream")
    panel = explore_depth()
    for norm in ("before", "after"):
        turn_together(panel, depth=5, norm=norm)
        tokens, expected = walked("cat", "tokens + found", norm)[:1], []
        for block in list(made(Encoder, 24, 64, 4, 256))[:5]:
            layer = torch_layer(block)
            layer.norm_first = norm == "before"
            tokens = layer(tokens)
            expected.append(tokens.norm(dim=-1)[0])
        torch.testing.assert_close(lengths[-1][0][0][1:], torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_without_the_sum_the_tokens_become_alike():
    panel, alike = explore_depth(), {}
    for stream in STREAMS:
        turn_together(panel, stream=stream, depth=24)
        (alike[stream],) = numbers(panel.text, r"two of them are on average (-?[\d.]+) alike")
    assert alike["found alone"] > 0.9 > 0.5 > alike["tokens + found"]


def test_explore_depth_walks_once_for_all_depths(count_forward):
    runs = count_forward(MultiHeadSelfAttention)
    panel = explore_depth()
    assert len(runs) == 24
    for depth in (1, 24, 3):
        panel.controls["depth"].value = depth
    panel.controls["norm"].value = "after"
    panel.controls["norm"].value = "before"
    assert len(runs) == 48


# explore_sizes


def parts_of(config: ViTConfig) -> tuple[dict, dict]:
    """The parameters and the multiply-adds of the parts, by arithmetic."""
    dim, depth, hidden, tokens = config.dim, config.depth, config.hidden, config.tokens
    parameters = {
        "patch embedding": (config.patch_dim + 1) * dim,
        "class + positions": dim + tokens * dim,
        "attention": depth * 4 * (dim + 1) * dim,
        "MLP": depth * ((dim + 1) * hidden + (hidden + 1) * dim),
        "norms": (2 * depth + 1) * 2 * dim,
        "head": (dim + 1) * 1000,
    }
    products = {
        "patch embedding": config.patches * config.patch_dim * dim,
        "class + positions": 0,
        "attention": depth * (4 * dim**2 * tokens + 2 * tokens**2 * dim),
        "MLP": depth * 2 * dim * hidden * tokens,
        "norms": 0,
        "head": dim * 1000,
    }
    return parameters, products


def multiply_adds(c: ViTConfig) -> tuple[int, int]:
    """As notebook 07 has it: all, and those for pairs of tokens."""
    linear = c.depth * (4 * c.dim**2 + 2 * c.dim * c.hidden) * c.tokens
    pairs = c.depth * 2 * c.tokens**2 * c.dim
    return c.patches * c.patch_dim * c.dim + linear + pairs + c.dim * c.classes, pairs


def test_explore_sizes_offers_published_sizes_and_patches_that_divide_the_image():
    controls = explore_sizes().controls
    assert list(controls["size"].options) == list(SIZES)
    for patch_size, image in itertools.product(controls["patch_size"].options, controls["image_size"].options):
        assert image % patch_size == 0


def test_explore_sizes_opens_with_the_base_model_of_the_paper():
    panel = explore_sizes()
    assert panel.text.startswith("ViT-B/16 at 224 pixels: 197 tokens of 768, 12 blocks of 12 heads. 86,567,656 param")
    assert "17.56 billion multiply-adds an image, 4% of them for pairs of tokens" in panel.text
    assert multiply_adds(ViTConfig.named("B/16"))[0] == 17_563_828_224


@pytest.mark.parametrize("size", SIZES)
def test_explore_sizes_counts_the_whole_model(spy, size):
    bars, panel = spy("plot_bars"), explore_sizes()
    for patch_size, image_size in ((8, 224), (14, 672), (16, 448), (28, 224), (32, 672)):
        turn_together(panel, size=size, patch_size=patch_size, image_size=image_size)
        dim, depth, heads, hidden = SIZES[size]
        config = ViTConfig(image_size, patch_size, dim=dim, depth=depth, heads=heads, hidden=hidden)
        with torch.device("meta"):
            total = count_parameters(VisionTransformer(config))
        products, pairs = multiply_adds(config)
        said = numbers(
            panel.text,
            r"at (\d+) pixels: ([\d,]+) tokens of ([\d,]+), (\d+) blocks of (\d+) heads\. ([\d,]+) parameters; "
            r"([\d,.]+) billion multiply-adds an image, (\d+)% of .* take ([\d,]+) MB",
        )
        maps = depth * heads * config.tokens**2 * 4 / 1e6
        assert said[:6] == [image_size, config.tokens, dim, depth, heads, total]
        assert said[6:] == pytest.approx([products / 1e9, 100 * pairs / products, maps], abs=0.51)
        assert said[6] == pytest.approx(products / 1e9, abs=0.0051)
        assert panel.text.startswith(f"ViT-{size}/{patch_size} at")
        for ((shown,), more), expected, unit in zip(bars[-2:], parts_of(config), (1e6, 1e9), strict=True):
            assert list(shown) == list(expected)
            assert list(shown.values()) == pytest.approx([count / unit for count in expected.values()])
            words = {1e6: "million parameters", 1e9: "billion multiply-adds"}[unit]
            assert more["title"] == f"{sum(expected.values()) / unit:,.1f} {words}"
        assert sum(bars[-2][0][0].values()) == pytest.approx(total / 1e6)
        assert sum(bars[-1][0][0].values()) == pytest.approx(products / 1e9)


def test_explore_sizes_draws_no_random_numbers_and_takes_no_memory_for_the_largest():
    panel, before = explore_sizes(), random_states()
    turn_together(panel, size="H", patch_size=8, image_size=672)
    assert random_states() == before
    assert numbers(panel.text, r"([\d,]+) tokens of")[0] == 7057


# explore_drawings


def test_explore_drawings_says_the_sizes_of_what_it_draws():
    panel = explore_drawings()
    for patch_size, heads, depth in ((8, 1, 1), (32, 12, 12), (48, 3, 2)):
        turn_together(panel, patch_size=patch_size, heads=heads, depth=depth)
        side = 96 // patch_size
        said = numbers(
            panel.text,
            r"drawn for (\d+) x (\d+) = (\d+) patches of ([\d,]+) pixels, (\d+) tokens of (\d+) numbers, (\d+) heads? "
            r"of (\d+), (\d+) blocks?, 10 classes\.$",
        )
        assert said[:5] == [side, side, side**2, 3 * patch_size**2, side**2 + 1]
        assert said[5:] == [96, heads, 96 / heads, depth]


def test_explore_drawings_offers_only_sizes_that_go_together_and_every_drawing():
    controls = explore_drawings(size=60, dim=36).controls
    assert all(60 % patch_size == 0 for patch_size in controls["patch_size"].options)
    assert all(36 % heads == 0 for heads in controls["heads"].options)
    public = {name for name in vars(schematics) if name.startswith("draw_")}
    assert {drawing.__name__ for drawing in stages.DRAWINGS.values()} <= public


@pytest.mark.parametrize("size", [7, 8, 13, 15, 97])
def test_explore_drawings_refuses_a_size_without_patches(size):
    message = f"size {size} is no two or more patches of at least 8 pixels; choose 16, 24 or a larger multiple of 8"
    with pytest.raises(ValueError, match=message):
        explore_drawings(size=size)


@pytest.mark.parametrize("size", [16, 18, 24])
def test_explore_drawings_takes_the_smallest_sizes(size):
    assert explore_drawings(size=size).text


# What the panels over trained models share


@pytest.fixture
def made_up(tmp_path, monkeypatch, randomize):
    """Models with random weights, on grids of 8 x 8 and of 2 x 2, where the bundled ones are looked for."""
    for patch_size, heads in itertools.product((6, 24), (1, 2)):
        config = ViTConfig(48, patch_size, dim=8, depth=4, heads=heads, hidden=8, classes=10)
        scores = {"test_accuracy": 0.2 + patch_size / 1000, "test_images": 1000 * heads}
        path = tmp_path / f"tiny_p{patch_size}_h{heads}.safetensors"
        save_checkpoint(path, randomize(VisionTransformer(config)), **scores)
    monkeypatch.setattr(checkpoint, "TINY", tmp_path)
    models._tiny.cache_clear()
    yield
    models._tiny.cache_clear()


def digit(picture: int, count: int = 1):
    return data.ClutteredDigits("test").sample(count, draw=picture)


def attention_of(model, images: torch.Tensor, layer: int) -> torch.Tensor:
    """(batch, heads, tokens, tokens)"""
    with torch.no_grad(), record(model) as trace:
        model(images)
    return trace[f"blocks.{layer - 1}.attention.weights"]


def share_inside(weights, mask) -> float:
    """The share of a map of patches (patches,) on the mask, counted pixel by pixel, in per cent."""
    side = round(len(weights) ** 0.5)
    pixels = np.kron(np.asarray(weights).reshape(side, side), np.ones((48 // side, 48 // side)))
    return 100 * pixels[np.asarray(mask)].sum() / pixels.sum()


over_models = pytest.mark.parametrize("make", [explore_vit, explore_maps])


@over_models
def test_a_panel_over_models_opens_with_one_that_comes_along(make):
    default = inspect.signature(make).parameters
    sizes = default["patch_size"].default, default["heads"].default
    panel = make()
    assert (panel.controls["patch_size"].value, panel.controls["heads"].value) == sizes


@over_models
def test_a_panel_over_models_offers_those_that_come_along_and_no_others(make):
    panel = make(12, 4)
    offered = itertools.product(panel.controls["patch_size"].options, panel.controls["heads"].options)
    assert sorted(offered) == sorted(bundled())
    assert panel.controls["patch_size"].value == 12


@over_models
@pytest.mark.usefixtures("made_up")
def test_a_panel_over_models_offers_whatever_lies_there(make):
    panel = make(24, 1)
    assert list(panel.controls["patch_size"].options) == [6, 24]
    assert list(panel.controls["heads"].options) == [1, 2]
    assert (panel.controls["patch_size"].value, panel.controls["heads"].value) == (24, 1)


@over_models
@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("sizes", [(12, 1), (6, 3)])
def test_a_panel_over_models_does_not_open_with_one_that_is_not_there(make, sizes):
    with pytest.raises(
        ValueError, match=r"no tiny ViT with patch_size \d+ and heads \d comes along; there is patch_size 6"
    ):
        make(*sizes)


# explore_pooling


@torch.no_grad()
def stations_of(model: VisionTransformer, images: torch.Tensor) -> list[np.ndarray]:
    """The tokens before the first block and after each, block by block."""
    tokens = model.position_embedding(model.class_token(model.patch_embedding(images)))
    stations = [tokens]
    for block in model.blocks:
        tokens = block(tokens)
        stations.append(tokens)
    return [each.double().numpy() for each in stations]


def discriminant(known: np.ndarray, labels: np.ndarray, unseen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linear discriminant analysis by its formula: the classes of the unseen, and where they lie on its two axes."""
    means = np.stack([known[labels == label].mean(axis=0) for label in range(10)])
    rest, shares = known - means[labels], np.bincount(labels) / len(labels)
    within = rest.T @ rest / (len(known) - 10)
    between = (means - shares @ means).T * shares @ (means - shares @ means)
    inverse = np.linalg.pinv(within, rcond=1e-9)
    scores = unseen @ inverse @ means.T - 0.5 * (means @ inverse * means).sum(axis=1) + np.log(shares)
    strengths, axes = np.linalg.eig(inverse @ between)
    axes = axes[:, np.argsort(-strengths.real)[:2]].real
    return scores.argmax(axis=1), unseen @ axes


def test_explore_pooling_reads_as_much_as_a_linear_reader_can(spy):
    drawn, model = spy("plot_scatter"), load_tiny(12, 4)
    panel = explore_pooling(12, 4)
    images, labels, _ = data.ClutteredDigits("train", augment=False).sample(600, draw=0)
    pictures, truth, _ = data.ClutteredDigits("test").sample(300, draw=0)
    known, unseen = stations_of(model, images), stations_of(model, pictures)
    labels, truth = labels.numpy(), truth.numpy()
    for blocks in range(5):
        turn_together(panel, blocks=blocks)
        said = numbers(panel.text, r"After (\d) of 4 .* names (\d+)% .* class token, (\d+)% from the mean of")
        expected = []
        for (pool, pick), ((places, shown), more) in zip(
            {
                "class token": lambda tokens: tokens[:, 0],
                "mean of the patches": lambda tokens: tokens[:, 1:].mean(1),
            }.items(),
            drawn[-2:],
            strict=True,
        ):
            np.testing.assert_array_equal(shown, truth)
            if (blocks, pool) == (0, "class token"):
                assert (places == 0).all()
                commonest, _ = Counter(sorted(labels.tolist())).most_common(1)[0]  # of equals the smallest
                expected.append(100 * (truth == commonest).mean())
            else:
                answers, axes = discriminant(pick(known[blocks]), labels, pick(unseen[blocks]))
                expected.append(100 * (answers == truth).mean())
                likeness = np.corrcoef(places.T, axes.T)[:2, 2:]
                np.testing.assert_allclose(np.abs(likeness.diagonal()), 1, atol=0.02)
            share = numbers(more["title"], rf"^{pool}: (\d+)% named right$")
            assert share == pytest.approx([expected[-1]], abs=0.9)  # one of 300 may lie on the line
        assert said == pytest.approx([blocks, *expected], abs=0.9)


def test_the_class_token_knows_nothing_at_first_and_all_at_last():
    panel, known = explore_pooling(), {}
    for blocks in (0, 4):
        panel.controls["blocks"].value = blocks
        known[blocks] = numbers(panel.text, r"(\d+)% of them right from the class token")[0]
    assert known[0] < 20 < 90 < known[4]


def test_explore_pooling_runs_the_model_for_no_turn(count_forward):
    panel, runs = explore_pooling(12, 4), count_forward(VisionTransformer)
    for blocks in (0, 2, 4):
        panel.controls["blocks"].value = blocks
    assert runs == []


# explore_order


def order_of(image: torch.Tensor, moved: torch.Tensor, patch_size: int) -> list[int]:
    """For each place, which patch of the image has come there."""

    def cut(picture):
        side = 48 // patch_size
        return [
            picture[:, row * patch_size : (row + 1) * patch_size, col * patch_size : (col + 1) * patch_size]
            for row, col in itertools.product(range(side), range(side))
        ]

    patches = cut(image)
    return [next(place for place, patch in enumerate(patches) if torch.equal(patch, one)) for one in cut(moved)]


def ring_of(order: list[int]) -> int:
    """How many places the ring has in which those patches stand that have left theirs."""
    start = next(place for place, patch in enumerate(order) if place != patch)
    place, steps = order[start], 1
    while place != start:
        place, steps = order[place], steps + 1
    return steps


def best(probabilities: torch.Tensor) -> list[float]:
    """The likeliest class, and how likely it is in per cent."""
    return [probabilities.argmax().item(), 100 * probabilities.max().item()]


@pytest.mark.parametrize("patch_size", [6, 8, 12, 16])
def test_explore_order_offers_to_move_no_more_patches_than_there_are(patch_size):
    options, patches = list(explore_order(patch_size, 4).controls["count"].options), (48 // patch_size) ** 2
    assert options == sorted(set(options))
    assert (options[0], options[-1]) == (0, patches)
    assert 1 not in options


@pytest.mark.parametrize("positions", ["added", "left out"])
def test_explore_order_moves_patches_and_says_what_the_model_then_says(spy, positions):
    grids, bars = spy("plot_grid"), spy("plot_probabilities")
    panel, model = explore_order(8, 4), load_tiny(8, 4)
    if positions == "left out":
        model.position_embedding.positions.data.zero_()
    images, labels, _ = digit(0, 128)
    for place, count in enumerate(panel.controls["count"].options):
        turn_together(panel, place=place, count=count, positions=positions)
        (image, label, _), ((straight, _), _), ((moved, size), more) = digit(place), grids[-2], grids[-1]
        assert size == 8
        assert more["title"] == f"{count} patches moved"
        torch.testing.assert_close(straight, image[0], rtol=0, atol=0)
        order = order_of(image[0], moved, 8)
        assert sorted(order) == list(range(36))
        assert sum(patch != place for place, patch in enumerate(order)) == count
        assert count == 0 or ring_of(order) == count
        with torch.no_grad():
            before, after = model(torch.stack([image[0], moved])).softmax(-1)
            shuffled = unpatchify(patchify(images, 8)[:, order], 8, 48, 48)
            right = [(model(each).argmax(-1) == labels).float().mean().item() for each in (images, shuffled)]
        for ((shown,), _), expected in zip(bars[-2:], (before, after), strict=True):
            torch.testing.assert_close(shown, expected, atol=2e-5, rtol=1e-3)
        found = numbers(
            panel.text,
            r"^An? (\d), positions .*\. In order the model says (\d) \(([\d.]+)%\), with (\d+) of (\d+) patches moved "
            r"(\d) \(([\d.]+)%\); no probability changes by more than ([\d.]+)\. Of 128 unseen digits it "
            r"names (\d+)% "
            r"in order and (\d+)% with these patches moved",
        )
        change = (after - before).abs().max().item()
        assert found[:7] == pytest.approx([label.item(), *best(before), count, 36, *best(after)], abs=0.06)
        assert found[7] == pytest.approx(change, abs=1e-4)
        assert found[8:] == pytest.approx([100 * share for share in right], abs=0.51)
        assert f"positions {positions}. In order" in panel.text
        if positions == "left out":
            assert found[7] <= 1e-4
            torch.testing.assert_close(bars[-1][0][0], bars[-2][0][0], atol=1e-4, rtol=0)
            assert found[8] == found[9]


def test_without_positions_every_patch_may_move_and_with_them_not():
    panel = explore_order()
    panel.controls["positions"].value = "left out"
    for place in (0, 17, 99):
        panel.controls["place"].value = place
        assert numbers(panel.text, r"changes by more than ([\d.]+)\.")[0] <= 1e-4
    panel.controls["positions"].value = "added"
    in_order, moved = numbers(panel.text, r"it names (\d+)% in order and (\d+)% with")
    assert moved < in_order - 5


# explore_resolution


@pytest.mark.parametrize("patch_size", [6, 8, 12, 16])
def test_explore_resolution_offers_only_sizes_that_its_patches_divide(patch_size):
    panel = explore_resolution(patch_size, 2)
    sizes = list(panel.controls["size"].options)
    assert all(size % patch_size == 0 for size in sizes)
    assert sizes == sorted(set(sizes))
    assert min(sizes) < 48 < max(sizes)
    assert 48 in sizes
    for size in (sizes[0], sizes[-1]):
        panel.controls["size"].value = size
        assert panel.message.value == ""


@pytest.mark.parametrize("kind", ["resampled", "cut or filled up"])
def test_explore_resolution_reads_digits_at_another_size(spy, kind):
    grids, looks, bars = spy("plot_grid"), spy("plot_attention"), spy("plot_probabilities")
    panel, trained = explore_resolution(8, 4), load_tiny(8, 4)
    learned = trained.position_embedding.positions.detach()
    images, labels, _ = digit(0, 64)
    for place, size in enumerate(panel.controls["size"].options):
        turn_together(panel, place=place, size=size, kind=kind)
        side = size // 8
        tokens = side**2 + 1
        if kind == "resampled":
            positions = resample_positions(learned, side, side)
        else:
            positions = torch.zeros(1, tokens, 64)
            for token in range(min(tokens, 37)):
                positions[0, token] = learned[0, token]
        model = VisionTransformer(
            ViTConfig(size, 8, dim=64, depth=4, heads=4, hidden=trained.config.hidden, classes=10)
        )
        model.load_state_dict(trained.state_dict() | {"position_embedding.positions": positions})
        model.eval()
        image, label, _ = digit(place)
        resized, many = (
            F.interpolate(each, (size, size), mode="bicubic", antialias=True).clamp(0, 1) for each in (image, images)
        )
        with torch.no_grad(), record(model) as trace:
            expected = model(resized)[0].softmax(-1)
        with torch.no_grad():
            right = 100 * (model(many).argmax(-1) == labels).float().mean().item()
        (held, patch_size), more = grids[-1]
        torch.testing.assert_close(held, resized[0])
        assert (patch_size, more["title"]) == (8, f"{size} pixels: {side} * {side} patches")
        (held, weights), _ = looks[-1]
        torch.testing.assert_close(held, resized[0])
        seen = trace["blocks.3.attention.weights"][0, :, 0, 1:].mean(dim=0)
        torch.testing.assert_close(weights, seen.reshape(side, side))
        torch.testing.assert_close(bars[-1][0][0], expected, atol=1e-5, rtol=1e-4)
        said = numbers(
            panel.text,
            r"^An? (\d) at (\d+) x (\d+) pixels; the model was trained at (\d+)\. Its (\d+) positions, .*, serve (\d+) "
            r"tokens\. It says (\d) \(([\d.]+)%\); at this size it gets (\d+)% of (\d+) unseen digits right",
        )
        best = [int(expected.argmax()), 100 * expected.max().item()]
        assert said[:8] == pytest.approx([label.item(), size, size, 48, 37, tokens, *best], abs=0.06)
        assert said[8:] == pytest.approx([right, 64], abs=0.51)
        assert f"positions, {kind}, serve" in panel.text


def test_at_the_size_of_the_training_both_kinds_of_positions_are_the_learned_ones(spy):
    bars, panel = spy("plot_probabilities"), explore_resolution(8, 4)
    panel.controls["size"].value = 48
    panel.controls["kind"].value = "cut or filled up"
    torch.testing.assert_close(bars[-1][0][0], bars[-2][0][0])
    with torch.no_grad():
        torch.testing.assert_close(bars[-1][0][0], load_tiny(8, 4)(digit(0)[0])[0].softmax(-1))


def test_resampled_positions_serve_where_cut_ones_slip():
    panel, right = explore_resolution(), {}
    for kind in panel.controls["kind"].options:
        turn_together(panel, kind=kind, size=56)
        (right[kind],) = numbers(panel.text, r"it gets (\d+)% of")
    assert right["resampled"] > right["cut or filled up"] + 5


# explore_activation


@torch.no_grad()
def given_to_the_activation(model: VisionTransformer, images: torch.Tensor, activate) -> tuple[list, torch.Tensor]:
    """What each block's activation is given, and the logits, with another activation in every block."""
    tokens, given = model.position_embedding(model.class_token(model.patch_embedding(images))), []
    for block in model.blocks:
        tokens = tokens + block.attention(block.norm_1(tokens))
        given.append(block.mlp.expand(block.norm_2(tokens)))
        tokens = tokens + block.mlp.contract(activate(given[-1]))
    return given, model.head(model.norm(tokens)[:, 0])


def gelu(x: float) -> float:
    return x * (1 + erf(x / 2**0.5)) / 2


def slope_of_gelu(x):
    normal = torch.distributions.Normal(0, 1)
    return normal.cdf(x) + x * normal.log_prob(x).exp()


@pytest.mark.parametrize("activation", ["GELU", "ReLU"])
def test_explore_activation_says_what_it_gets_and_what_becomes_of_the_answers(spy, activation):
    curves, spread = spy("plot_curves"), spy("plot_distributions")
    panel, model = explore_activation(12, 4), load_tiny(12, 4)
    images, labels, _ = digit(0, 128)
    activate = F.gelu if activation == "GELU" else lambda x: x.clamp(min=0)
    given, logits = given_to_the_activation(model, images, activate)
    right = 100 * (logits.argmax(-1) == labels).float().mean().item()
    for block in (1, 2, 3, 4):
        turn_together(panel, block=block, activation=activation)
        x = given[block - 1].double()
        slopes = slope_of_gelu(x) if activation == "GELU" else (x > 0).double()
        said = numbers(
            panel.text,
            r"in block (\d): (\d+)% of what goes in is negative, and for (\d+)% the slope is nearly none \(below "
            r"([\d.]+)\).* names (\d+)% of (\d+) unseen digits right",
        )
        shares = [100 * (x < 0).double().mean().item(), 100 * (slopes.abs() < 0.01).double().mean().item()]
        assert said == pytest.approx([block, *shares, 0.01, right, 128], abs=0.51)
        assert panel.text.startswith(f"{activation} in block {block}: ")
        assert f"With {activation} in every block this ViT, which was trained with GELU" in panel.text
        (sample,) = spread[-1][0][0].values()
        assert sample.shape[0] == 128
        assert sample.abs().max() <= 4
        (((response,), _), ((often,), _)) = curves[-2:]
        at, out = (np.asarray(each) for each in response["what comes out"])
        expected = [gelu(one) if activation == "GELU" else max(one, 0) for one in at.tolist()]
        np.testing.assert_allclose(out, expected, atol=1e-5)
        at, slope = (torch.as_tensor(each).double() for each in response["its slope"])
        expected = slope_of_gelu(at) if activation == "GELU" else (at > 0).double()
        np.testing.assert_allclose(slope, expected, atol=1e-5)
        places, shares = often["often"]
        assert list(places) == list(range(1, x.shape[-1] + 1))
        np.testing.assert_allclose(shares, sorted((x > 0).double().mean(dim=(0, 1)).tolist(), reverse=True), atol=1e-4)


def test_explore_activation_puts_the_relu_into_a_copy(count_forward):
    panel, runs = explore_activation(12, 4), count_forward(VisionTransformer)
    before = panel.text
    panel.controls["activation"].value = "ReLU"
    ((changed, _),) = runs
    assert [type(block.mlp.gelu) for block in changed.blocks] == [nn.ReLU] * 4
    assert [type(block.mlp.gelu) for block in models._tiny(12, 4)[0].blocks] == [nn.GELU] * 4
    panel.controls["activation"].value = "GELU"
    assert panel.text == before
    for block in (1, 4):
        panel.controls["block"].value = block
    assert len(runs) == 1


# explore_vit


def idle(panel: Panel) -> set[str]:
    return {name for name, control in panel.controls.items() if getattr(control, "disabled", False)}


def test_explore_vit_names_the_digit_the_model_and_its_scores(spy):
    bars = spy("plot_probabilities")
    panel = explore_vit(12, 4)
    chosen = {sizes: path for sizes, path in bundled().items() if sizes[0] == 12 or sizes[1] == 4}
    for place, ((patch_size, heads), path) in enumerate(chosen.items()):
        turn_together(panel, chosen=("digit", place), patch_size=patch_size, heads=heads)
        image, label, mask = digit(place)
        with torch.no_grad():
            expected = load_tiny(patch_size, heads)(image)[0].softmax(-1)
        torch.testing.assert_close(bars[-1][0][0], expected, atol=1e-5, rtol=1e-4)
        assert bars[-1][1]["names"] == [*"0123456789"]
        said = numbers(panel.text, r"This is an? (\d); the model says (\d), with ([\d.]+)%")
        assert said == pytest.approx([label.item(), expected.argmax().item(), 100 * expected.max().item()], abs=0.06)
        scores = read_tensors(path)[1]["scores"]
        said = numbers(panel.text, r"of (\d+) pixels and (\d+) heads? this ViT gets ([\d.]+)% of ([\d,]+) unseen")
        known = [patch_size, heads, 100 * scores["test_accuracy"], scores["test_images"]]
        assert said == pytest.approx(known, abs=0.051)
        assert numbers(panel.text, r"square is (\d+)% of") == pytest.approx(
            [100 * mask.float().mean().item()], abs=0.51
        )
        assert panel.text.count(f"{heads} heads") == (2 if heads > 1 else 0)


@pytest.mark.usefixtures("made_up")
def test_explore_vit_tells_what_the_model_says_from_what_is_right(count_forward):
    runs, wrong = count_forward(VisionTransformer), 0
    panel = explore_vit(24, 1)
    for place in (99, 1, 2):
        panel.controls["chosen"].number.value = place
        ((model, image), label) = (runs[-1], int(digit(place)[1]))
        said = numbers(panel.text, r"This is an? (\d); the model says (\d)")
        assert said == [label, int(model(image).argmax())]
        wrong += said[0] != said[1]
    assert wrong  # its weights are random


@pytest.mark.parametrize(
    ("query", "row", "col", "layer", "heads", "head"),
    [
        ("class token", 0, 0, 4, 4, "all"),
        ("class token", 2, 1, 1, 1, "all"),
        ("class token", 2, 1, 2, 1, 0),
        ("class token", 1, 1, 3, 4, 2),
        ("patch", 0, 3, 2, 8, "all"),
        ("patch", 2, 0, 4, 8, 7),
        ("patch", 3, 1, 3, 2, 0),
    ],
)
def test_explore_vit_shows_where_the_query_looks(spy, query, row, col, layer, heads, head):
    shown, grids = spy("plot_heads"), spy("plot_grid")
    panel = explore_vit(12, heads)
    turn_together(panel, query=query, row=row, col=col, layer=layer, chosen=("digit", 7), head=head)
    image, _, mask = digit(7)
    token = 0 if query == "class token" else 1 + 4 * row + col
    expected = attention_of(load_tiny(12, heads), image, layer)[0, :, token, 1:]
    expected = expected if head == "all" else expected[head : head + 1]
    (held, maps), more = shown[-1]
    torch.testing.assert_close(maps, expected.reshape(-1, 4, 4))
    torch.testing.assert_close(held, image[0], rtol=0, atol=0)
    assert more["query"] == (token - 1 if token else None)
    assert more["titles"] == [f"head {one}" for one in (range(heads) if head == "all" else [head])]
    (held, patch_size), more = grids[-1]
    torch.testing.assert_close(held, image[0], rtol=0, atol=0)
    assert (patch_size, more["marked"], more["title"]) == (
        12,
        {token - 1: "query"} if token else None,
        "4 * 4 = 16 patches",
    )
    who = f"the patch at row {row}, column {col}" if token else "the class token"
    which = f"each of {heads} heads" if head == "all" and heads > 1 else f"head {0 if head == 'all' else head}"
    assert f"Attention in block {layer}: where {who} looks, in {which}. " in panel.text
    share = share_inside(expected.mean(dim=0), mask[0])
    assert numbers(panel.text, r"\. (\d+)% of what goes to patches") == pytest.approx([share], abs=0.51)


@pytest.mark.parametrize(
    ("query", "row", "col", "layer", "heads"),
    [("class token", 0, 0, 4, 4), ("class token", 0, 0, 1, 2), ("patch", 3, 0, 2, 8), ("patch", 1, 2, 4, 1)],
)
def test_explore_vit_shows_the_rollout_of_the_blocks_so_far(spy, query, row, col, layer, heads):
    shown, panel = spy("plot_heads"), explore_vit(12, heads)
    turn_together(panel, method="rollout", query=query, row=row, col=col, layer=layer, chosen=("digit", 11))
    image, _, mask = digit(11)
    model, token = load_tiny(12, heads), 0 if query == "class token" else 1 + 4 * row + col
    attention = torch.stack([attention_of(model, image, one) for one in range(1, layer + 1)])
    expected = rollout(attention)[:, token, 1:]
    (_, maps), more = shown[-1]
    torch.testing.assert_close(maps, expected.reshape(1, 4, 4))
    if not token:
        torch.testing.assert_close(maps.flatten(), arrived(attention[:, 0]), atol=1e-5, rtol=1e-4)
    assert more["titles"] == [f"rollout, blocks 1 to {layer}"]
    assert more["query"] == (token - 1 if token else None)
    who = f"the patch at row {row}, column {col}" if token else "the class token"
    assert f"Rollout: from where {who} has head_outputs in blocks 1 to {layer}, all heads together." in panel.text
    share = share_inside(expected[0], mask[0])
    assert numbers(panel.text, r"\. (\d+)% of what goes to patches") == pytest.approx([share], abs=0.51)


@pytest.mark.parametrize(("place", "heads"), [(0, 1), (3, 4), (20, 8)])
def test_explore_vit_shows_what_speaks_for_what_it_says(spy, place, heads):
    shown, grids, panel = spy("plot_heads"), spy("plot_grid"), explore_vit(12, heads)
    turn_together(panel, query="patch", row=1, col=2, layer=2, chosen=("digit", place))
    panel.controls["method"].value = "relevance"
    (image, _, mask), model = digit(place), load_tiny(12, heads)
    said = int(model(image).argmax())
    expected = relevance(model, image, torch.tensor([said]))
    (_, maps), more = shown[-1]
    torch.testing.assert_close(maps, expected.reshape(1, 4, 4))
    article = "an" if said == 8 else "a"
    assert more["titles"] == [f"what speaks for {article} {said}"]
    assert more["query"] is None
    assert grids[-1][1]["marked"] is None  # nobody asks from a patch
    assert f"Relevance: which patches speak for {article} {said}, through all blocks and heads." in panel.text
    share = share_inside(expected[0], mask[0])
    assert numbers(panel.text, r"\. (\d+)% of what goes to patches") == pytest.approx([share], abs=0.51)


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("method", ["attention", "rollout", "relevance"])
def test_explore_vit_draws_a_map_in_which_there_is_nothing(monkeypatch, method):
    monkeypatch.setattr(models, "relevance", lambda model, images, classes: torch.zeros(1, model.config.patches))
    panel = explore_vit(24, 2)
    panel.controls["method"].value = method
    assert panel.message.value == ""
    (share,) = numbers(panel.text, r"\. (\d+)% of what goes to patches")
    assert (share == 0) == (method == "relevance")


@pytest.mark.usefixtures("made_up")
def test_explore_vit_never_points_outside_its_grid():
    panel = explore_vit(24, 1)
    panel.controls["query"].value = "patch"
    for size, rows in ((6, 8), (24, 2)):
        panel.controls["patch_size"].value = size
        assert (panel.controls["row"].max, panel.controls["col"].max) == (rows - 1, rows - 1)
        for row, col in ((rows - 1, 0), (0, rows - 1)):
            turn_together(panel, row=row, col=col)
            assert f"where the patch at row {row}, column {col} looks" in panel.text
    turn_together(panel, patch_size=6)
    turn_together(panel, row=7, col=3)
    draws = count_draws(panel)
    for patch_size in (24, 6):
        panel.controls["patch_size"].value = patch_size
    assert [(values["row"], values["col"]) for values in draws] == [(1, 0), (7, 3)]
    assert panel.message.value == ""


@pytest.mark.usefixtures("made_up")
def test_explore_vit_reads_the_scores_beside_the_weights():
    panel = explore_vit(24, 2)
    assert "this ViT gets 22.4% of 2,000 unseen digits right" in panel.text
    turn_together(panel, patch_size=6, heads=1)
    assert "this ViT gets 20.6% of 1,000 unseen digits right" in panel.text


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("heads", [1, 2])
def test_explore_vit_has_room_for_100_percent(heads):
    models._tiny(24, heads)[0].head.logits.bias.data[3] = 1000
    panel = explore_vit(24, heads)
    assert "the model says 3, with 100.0%" in panel.text
    figure = panel.figure.figure
    (label,) = (text for text in words_drawn(figure) if text.get_text() == "100.0%")
    assert label.get_window_extent().x1 <= figure.bbox.x1


def test_explore_vit_lets_only_that_be_turned_which_the_picture_asks_for():
    panel, always = explore_vit(12, 4), {"row", "col"}
    assert idle(panel) == always
    expected = {
        ("attention", "patch"): set(),
        ("attention", "class token"): {"row", "col"},
        ("rollout", "patch"): {"head"},
        ("rollout", "class token"): {"head", "row", "col"},
        ("relevance", "patch"): {"layer", "head", "query", "row", "col"},
        ("relevance", "class token"): {"layer", "head", "query", "row", "col"},
    }
    for (method, query), names in [*expected.items(), *reversed(expected.items())]:
        panel.controls["method"].value, panel.controls["query"].value = method, query
        assert idle(panel) == names, (method, query)
        panel.controls["heads"].value = 1
        assert idle(panel) == names | {"head"}
        panel.controls["heads"].value = 4


@pytest.mark.parametrize("method", ["attention", "rollout", "relevance"])
def test_what_cannot_be_turned_in_explore_vit_would_change_nothing(method):
    panel = explore_vit(12, 4)
    panel.controls["method"].value = method
    picture = panel.picture.value
    for name in idle(panel):
        for value in ends(panel.controls[name]):
            panel.controls[name].value = value
            assert panel.picture.value == picture, name


def test_the_heads_that_explore_vit_offers_are_those_of_the_model():
    panel = explore_vit(12, 4)
    head = panel.controls["head"]
    assert (list(head.options), head.value) == (["all", 0, 1, 2, 3], "all")
    head.value = 1
    draws = count_draws(panel)
    for heads, expected in ((8, 1), (2, 1), (1, "all"), (4, "all")):
        panel.controls["heads"].value = heads
        assert (list(head.options), head.value) == (["all", *range(heads)], expected)
    assert [(values["heads"], values["head"]) for values in draws] == [(8, 1), (2, 1), (1, "all"), (4, "all")]
    head.value = 3
    panel.controls["patch_size"].value = 6
    assert head.value == 3
    panel.controls["method"].value = "rollout"
    panel.controls["method"].value = "attention"
    assert head.value == 3
    assert "in head 3." in panel.text


@pytest.mark.parametrize("method", ["attention", "rollout", "relevance"])
def test_of_a_photo_explore_vit_says_only_what_the_model_says(spy, method):
    grids, bars, panel = spy("plot_grid"), spy("plot_probabilities"), explore_vit(12, 4)
    panel.controls["method"].value = method
    for name in data.PHOTOS:
        choose(panel.controls["chosen"], (name,))
        image = data.photo(name, 48)
        with torch.no_grad():
            expected = load_tiny(12, 4)(image[None])[0].softmax(-1)
        torch.testing.assert_close(grids[-1][0][0], image, rtol=0, atol=0)
        torch.testing.assert_close(bars[-1][0][0], expected, atol=1e-5, rtol=1e-4)
        said = numbers(
            panel.text,
            rf"^This ViT knows digits and nothing else: of the {name} it says (\d), with ([\d.]+)%\. {method.title()}",
        )
        assert said == pytest.approx([expected.argmax().item(), 100 * expected.max().item()], abs=0.06)
        assert "This is" not in panel.text
        assert "square" not in panel.text
        assert "of what goes to patches" not in panel.text


def test_of_ones_own_picture_explore_vit_says_what_the_model_says(spy):
    grids, bars, panel = spy("plot_grid"), spy("plot_probabilities"), explore_vit(12, 4)
    chooser = panel.controls["chosen"]
    draws, before = count_draws(panel), panel.picture.value
    chooser.kind.value = "my own"
    assert (draws, panel.picture.value) == ([], before)
    strokes = np.full((90, 60), 255, dtype=np.uint8)
    strokes[20:70, 28:34] = 0
    content = file_of(Image.fromarray(strokes))
    chooser.file.value = address(content)
    for dark in (False, True):
        chooser.dark_on_light.value = dark
        image = data.load_image(content, 48)
        image = 1 - image if dark else image
        with torch.no_grad():
            expected = load_tiny(12, 4)(image[None])[0].softmax(-1)
        torch.testing.assert_close(grids[-1][0][0], image)
        torch.testing.assert_close(bars[-1][0][0], expected, atol=1e-5, rtol=1e-4)
        said = numbers(panel.text, r"nothing else: of this picture it says (\d), with ([\d.]+)%\.")
        assert said == pytest.approx([expected.argmax().item(), 100 * expected.max().item()], abs=0.06)
        assert "This is" not in panel.text
        assert "square" not in panel.text
    assert [values["chosen"] for values in draws] == [("own", content, False), ("own", content, True)]
    with pytest.raises(ValueError, match="nothing that Pillow"):
        chooser.file.value = address(b"none")
    assert len(draws) == 2
    chooser.kind.value = "digit"
    assert panel.picture.value == before


@pytest.mark.usefixtures("made_up")
def test_explore_vit_runs_the_model_again_only_for_another_model_or_picture(count_forward):
    runs = count_forward(VisionTransformer)
    panel = explore_vit(24, 1)
    once = 2  # as it is, and for the relevance
    assert len(runs) == once
    changes = {"patch_size": (6, once), "layer": (1, 0), "query": ("patch", 0), "row": (5, 0), "col": (7, 0),
               "heads": (2, once), "head": (1, 0), "method": ("rollout", 0)}  # fmt: skip
    for name, (value, expected) in changes.items():
        runs.clear()
        panel.controls[name].value = value
        assert len(runs) == expected, name
    panel.controls["method"].value = "relevance"
    assert runs == []
    choose(panel.controls["chosen"], ("digit", 3))
    assert len(runs) == once
    runs.clear()
    for name, value in (("heads", 1), ("heads", 2)):
        panel.controls[name].value = value
    choose(panel.controls["chosen"], ("digit", 0))
    for name, value in (("patch_size", 24), ("patch_size", 6)):
        panel.controls[name].value = value
    assert len(runs) == 2 * once  # two pairs that are new; what was computed before is remembered


# explore_maps


SAID = "what it says"


def shown_maps(shown: list) -> dict[str, np.ndarray]:
    (_, maps), more = shown[-1]
    return dict(zip(more["titles"], maps, strict=True))


def shares(text: str) -> dict[str, float | None]:
    """By the map's name, None for a map that is all 0."""
    found = re.findall(r"(last block|rollout|relevance|occlusion)(?: (\d+)%|: nothing)[,.]", text)
    return {name: float(share) if share else None for name, share in found}


def arrived(attention: torch.Tensor) -> torch.Tensor:
    """Rollout's map of the class token, (layers, heads, tokens, tokens) -> (patches,)."""
    tokens = torch.eye(attention.shape[-1])
    for layer in attention:
        tokens = (0.5 * layer.mean(dim=0) + 0.5 * torch.eye(len(tokens))) @ tokens
    return tokens[0, 1:]


def test_explore_maps_shows_four_maps_of_the_model_and_their_shares(spy):
    shown = spy("plot_heads")
    panel = explore_maps(12, 4)
    asked = itertools.cycle([SAID, 0, 9, 3, 5])
    chosen = [sizes for sizes in bundled() if sizes[0] == 12 or sizes[1] == 2]
    for picture, (patch_size, heads) in enumerate(chosen):
        values = {"place": picture, "asked": next(asked), "patch_size": patch_size, "heads": heads}
        turn_together(panel, **values)
        model, (image, label, mask) = load_tiny(patch_size, heads), digit(picture)
        with torch.no_grad():
            probabilities = model(image)[0].softmax(-1)
        meant = int(probabilities.argmax()) if values["asked"] == SAID else values["asked"]
        attention = torch.stack([attention_of(model, image, layer)[0] for layer in (1, 2, 3, 4)])
        expected = {
            "last block": attention[-1].mean(dim=0)[0, 1:],
            "rollout": arrived(attention),
            "relevance": relevance(model, image, torch.tensor([meant]))[0],
            "occlusion": occlusion(model, image, torch.tensor([meant]))[0].clamp(min=0),
        }
        maps, side = shown_maps(shown), 48 // patch_size
        assert list(maps) == list(expected)
        said = shares(panel.text)
        assert list(said) == list(expected)
        for name, each in expected.items():
            np.testing.assert_allclose(maps[name], each.reshape(side, side), atol=1e-5)
            share = share_inside(each, mask[0]) if each.sum() > 0 else None
            assert said[name] == (share if share is None else pytest.approx(share, abs=0.51)), name
        torch.testing.assert_close(shown[-1][0][0], image[0], rtol=0, atol=0)
        said = numbers(
            panel.text,
            r"^This is an? (\d); the model says (\d) \(([\d.]+)%\)\. What .* an? (\d) \(([\d.]+)%\)\?",
        )
        best, sure, likely = (
            int(probabilities.argmax()),
            100 * probabilities.max().item(),
            100 * probabilities[meant].item(),
        )
        assert said == pytest.approx([label.item(), best, sure, meant, likely], abs=0.06)


def test_explore_maps_asks_for_each_digit_or_for_what_the_model_says():
    assert ends(explore_maps(12, 4).controls["asked"]) == [SAID, *range(10)]
    assert [label for label, _ in explore_maps(12, 4).controls["asked"].options] == [SAID, *"0123456789"]


def test_the_class_that_is_asked_for_changes_relevance_and_occlusion_and_nothing_else(spy):
    shown = spy("plot_heads")
    panel = explore_maps(12, 4)
    first, said = shown_maps(shown), int(*numbers(panel.text, r"the model says (\d)"))
    for asked in range(10):
        panel.controls["asked"].value = asked
        maps = shown_maps(shown)
        for name in ("last block", "rollout"):
            np.testing.assert_array_equal(maps[name], first[name])
        for name in ("relevance", "occlusion"):
            assert np.allclose(maps[name], first[name]) == (asked == said), (name, asked)
        assert numbers(panel.text, r"What speaks for an? (\d)") == [asked]
    assert "The last block and the rollout do not ask which class is meant" in panel.text


@pytest.mark.usefixtures("made_up")
def test_explore_maps_says_of_an_empty_map_that_it_shows_nothing(monkeypatch, spy):
    shown = spy("plot_heads")
    monkeypatch.setattr(models, "occlusion", lambda model, images, classes: torch.full((1, 4), -0.25))
    panel = explore_maps(24, 2)
    assert shares(panel.text)["occlusion"] is None
    assert "occlusion: nothing." in panel.text
    np.testing.assert_array_equal(shown_maps(shown)["occlusion"], np.zeros((2, 2)))


@pytest.mark.usefixtures("made_up")
def test_explore_maps_runs_the_model_again_only_for_something_new(count_forward):
    runs = count_forward(VisionTransformer)
    panel = explore_maps(24, 1)
    once = 3 + 1  # as it is, for the relevance, before any patch is covered, and four times with one covered, at once
    assert len(runs) == once
    for name, value in (("place", 3), ("asked", 7), ("heads", 2), ("patch_size", 6)):
        runs.clear()
        panel.controls[name].value = value
        assert len(runs) == once, name
    runs.clear()
    for name, value in (("patch_size", 24), ("heads", 1), ("asked", SAID), ("place", 0)):
        panel.controls[name].value = value
    panel.update()
    assert runs == []


# train_and_look


SMALL = {"patch_size": 12, "heads": 2, "dim": 16, "depth": 1}


def small_config(**sizes) -> ViTConfig:
    sizes = SMALL | sizes
    return ViTConfig(48, **sizes, hidden=2 * sizes["dim"], classes=10)


def trainable(steps: int = 4, **sizes) -> Panel:
    """A panel at a size that is trained in no time."""
    panel = train_and_look(steps)
    turn_together(panel, **SMALL | sizes)
    return panel


def button_and_progress(panel: Panel) -> tuple[ipywidgets.Button, ipywidgets.IntProgress]:
    (line,) = (
        part for part in panel.box.children if isinstance(getattr(part, "children", (None,))[0], ipywidgets.Button)
    )
    return line.children


def progress_of(text: str) -> tuple[int, int, str]:
    """Steps taken, steps in all, and what the text says of the accuracy."""
    found = re.search(r"parameters, ([\d,]+) of ([\d,]+) steps, (.+?)\. On these four", text)
    assert found, text
    return int(found[1].replace(",", "")), int(found[2].replace(",", "")), found[3]


def same_weights(model, other) -> bool:
    weights, others = model.state_dict(), other.state_dict()
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.fixture
def quick(monkeypatch) -> list:
    """No images are named to measure a model, which takes longer than to train it; the models that were measured."""
    measured = []

    def evaluate(model, digits, count):
        measured.append(model)
        assert (digits.split, count) == ("test", 500)
        return 0.432

    monkeypatch.setattr(models, "evaluate", evaluate)
    return measured


@pytest.fixture
def fits(monkeypatch) -> list:
    """What each training was called with, and what came of it."""
    calls = []

    def watched(config, digits, **more):
        calls.append(SimpleNamespace(config=config, digits=digits, **more))
        calls[-1].fitted = fit(config, digits, **more)
        return calls[-1].fitted

    monkeypatch.setattr(models, "fit", watched)
    return calls


@pytest.fixture
def break_at(monkeypatch):
    """Let the training come no further than a step."""

    def arrange(step: int, error: BaseException) -> None:
        real = data.ClutteredDigits.sample

        def sample(self, count, draw=None):
            if (self.split, count, draw) == ("train", 64, step):
                raise error
            return real(self, count, draw)

        monkeypatch.setattr(data.ClutteredDigits, "sample", sample)

    return arrange


def test_opening_train_and_look_trains_nothing(fits, quick, count_forward):
    runs = count_forward(VisionTransformer)
    panel = train_and_look()
    assert fits == quick == []
    assert [len(images) for _, images in runs] == [4]
    assert not any(model.training for model, _ in runs)
    assert progress_of(panel.text) == (0, 300, "not trained yet")
    button, progress = button_and_progress(panel)
    assert (button.description, button.disabled, progress.value) == ("train", False, 0)


def test_the_button_stands_under_the_controls_that_it_takes():
    panel = train_and_look()
    _, row, line, message, picture = panel.box.children
    assert row.children == tuple(panel.controls.values())
    assert line.children == button_and_progress(panel)
    assert (message, picture) == (panel.message, panel.picture)


def test_train_and_look_offers_only_sizes_that_make_a_model():
    controls = train_and_look().controls
    names = ["patch_size", "heads", "dim", "depth"]
    for values in itertools.product(*(ends(controls[name]) for name in names)):
        small_config(**dict(zip(names, values, strict=True)))
    assert list(controls["steps"].options) == [100, 300, 1000, 2000, 4000]
    assert list(train_and_look(7).controls["steps"].options) == [7, 100, 300, 1000, 2000, 4000]
    assert train_and_look(7).controls["steps"].value == 7


def test_train_and_look_shows_the_model_as_it_is_before_training(spy, fits):
    shown, curves = spy("plot_maps"), spy("plot_curves")
    panel, picture = trainable(steps=5), 31
    panel.controls["picture"].value = picture
    assert fits == []
    model = init_model(small_config(), data.ClutteredDigits("train")).eval()
    images, labels, masks = digit(picture, 4)
    with torch.no_grad():
        said = model(images).argmax(-1).tolist()
    looks = attention_of(model, images, layer=1).mean(dim=1)[:, 0, 1:]
    (held, maps), more = shown[-1]
    torch.testing.assert_close(held, images, rtol=0, atol=0)
    torch.testing.assert_close(more["masks"], masks, rtol=0, atol=0)
    assert more["titles"] == [f"{label}: says {word}" for label, word in zip(labels.tolist(), said, strict=True)]
    assert list(maps) == ["it looks"]
    torch.testing.assert_close(maps["it looks"], looks.reshape(4, 4, 4))
    share = np.mean([share_inside(look, mask) for look, mask in zip(looks, masks, strict=True)])
    parameters = sum(weights.numel() for weights in model.parameters())
    said = numbers(panel.text, r"^([\d,]+) parameters, .* digits (\d+)% of .* square, (\d+)% of the picture")
    assert said == pytest.approx([parameters, share, 100 * masks.float().mean().item()], abs=0.51)
    assert curves[-1][0][0]["loss"][1] == [log(10)]


def test_training_gives_the_model_that_fit_gives_whatever_is_drawn_meanwhile(quick, fits, count_forward, capsys):
    panel, before = trainable(steps=3), random_states()
    _, progress = button_and_progress(panel)

    def disturb(change):
        if change.new:
            panel.controls["picture"].value = 10 * change.new

    progress.observe(disturb, names="value")
    draws = count_draws(panel)
    panel.train()
    assert [values["picture"] for values in draws] == [0, 10, 10, 20, 20, 20]
    (call,), runs = fits, count_forward(VisionTransformer)
    expected = fit(small_config(), data.ClutteredDigits("train"), steps=3, progress=False)
    assert call.fitted.history.loss == expected.history.loss
    assert same_weights(call.fitted.model, expected.model)
    assert quick == [call.fitted.model]
    runs.clear()
    panel.update()
    ((shown, _),) = runs
    assert shown is call.fitted.model
    assert not shown.training
    assert random_states() == before
    assert capsys.readouterr() == ("", "")


def test_what_was_trained_is_measured_and_shown(spy):
    curves, panel = spy("plot_curves"), trainable(steps=5)
    panel.train()
    model, history = fit(small_config(), data.ClutteredDigits("train"), steps=5, progress=False)
    device, right = next(model.parameters()).device, 0
    for draw in (0, 1):
        images, labels, _ = digit(draw, 250)
        with torch.no_grad():
            right += int((model(images.to(device)).argmax(-1).cpu() == labels).sum())
    assert progress_of(panel.text) == (5, 5, f"{right / 5:.1f}% of 500 test images right")
    images, _, masks = digit(0, 4)
    looks = attention_of(model, images.to(device), layer=1).mean(dim=1)[:, 0, 1:].cpu()
    share = np.mean([share_inside(look, mask) for look, mask in zip(looks, masks, strict=True)])
    assert numbers(panel.text, r"digits (\d+)% of what the class token gives") == pytest.approx([share], abs=0.51)
    steps, losses = curves[-1][0][0]["loss"]
    assert list(steps) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(losses, history.loss, rtol=1e-6)


def test_the_curve_of_many_steps_is_a_running_mean_that_ends_with_the_last_step(monkeypatch, quick, spy):
    curves, panel = spy("plot_curves"), trainable(steps=95)
    losses = torch.rand(95).tolist()

    def fake(config, digits, **more):
        return Fitted(init_model(config, digits).eval(), History(loss=losses))

    monkeypatch.setattr(models, "fit", fake)
    panel.train()
    steps, shown = curves[-1][0][0]["loss"]
    assert list(steps) == list(range(2, 95))
    np.testing.assert_allclose(shown, [np.mean(losses[step - 2 : step + 1]) for step in range(2, 95)], rtol=1e-6)
    left = panel.figure.figure.axes[0]
    assert left.get_xlim() == (0, 95)
    assert left.lines[-1].get_ydata() == pytest.approx([log(10)] * 2)


@pytest.mark.parametrize(
    ("patch_size", "heads", "dim", "depth", "steps"), [(6, 8, 96, 8, 4000), (24, 1, 16, 1, 100), (16, 4, 32, 3, 3)]
)
def test_training_takes_exactly_the_chosen_sizes_and_steps(monkeypatch, quick, patch_size, heads, dim, depth, steps):
    calls = []

    def fake(config, digits, **more):
        calls.append((config, digits, more))
        return Fitted(VisionTransformer(config).eval(), History(loss=[1.0] * more["steps"]))

    monkeypatch.setattr(models, "fit", fake)
    panel = trainable(3, patch_size=patch_size, heads=heads, dim=dim, depth=depth)
    panel.controls["steps"].value, panel.controls["picture"].value = steps, 5
    panel.train()
    ((config, digits, more),) = calls
    assert config == ViTConfig(48, patch_size, dim=dim, depth=depth, heads=heads, hidden=2 * dim, classes=10)
    assert (digits.split, digits.size) == ("train", 48)
    assert more.keys() == {"steps", "watch", "progress"}
    assert (more["steps"], more["progress"]) == (steps, False)
    assert len(quick) == 1
    assert progress_of(panel.text) == (steps, steps, "43.2% of 500 test images right")


def test_the_button_trains_and_is_disabled_until_all_is_done(quick, fits, monkeypatch):
    panel = trainable(steps=3)
    button, progress = button_and_progress(panel)
    seen = []
    progress.observe(lambda change: seen.append((change.new, progress.max, button.disabled)), names="value")
    measure = models.evaluate
    monkeypatch.setattr(models, "evaluate", lambda *all: (seen.append(("measured", button.disabled)), measure(*all))[1])
    button.click()
    assert [(call.config, call.steps) for call in fits] == [(small_config(), 3)]
    assert seen[:3] == [(1, 3, True), (2, 3, True), ("measured", True)]
    assert seen[3][0] == 0
    assert (button.disabled, progress.value) == (False, 0)
    assert progress_of(panel.text) == (3, 3, "43.2% of 500 test images right")
    assert panel.message.value == ""


def test_the_panel_follows_the_training_in_ten_parts(quick, monkeypatch):
    panel, history, told = trainable(steps=45), History(), []

    def fake(config, digits, steps, watch, progress):
        model = init_model(config, digits)
        for step in range(steps):
            watch(step, model, history)
            history.loss.append(2.0)
        return Fitted(model, history)

    def draw(**values):
        told.append(len(history.loss))
        return plot_matrix([1.0]), ""

    monkeypatch.setattr(models, "fit", fake)
    panel.draw = draw
    panel.train()
    assert told == [*range(0, 45, 4), 45]


def test_no_control_trains_and_what_was_trained_is_shown_again(fits, quick, count_forward):
    panel = trainable(steps=2)
    panel.controls["picture"].value = 99
    panel.train()
    text, picture = panel.text, panel.picture.value
    runs = count_forward(VisionTransformer)
    for name, value in (("patch_size", 24), ("heads", 4), ("dim", 32), ("depth", 2), ("steps", 100)):
        before = panel.controls[name].value
        panel.controls[name].value = value
        assert progress_of(panel.text) == (0, panel.controls["steps"].value, "not trained yet"), name
        panel.controls[name].value = before
        assert (panel.text, panel.picture.value) == (text, picture), name
        assert runs[-1][0] is fits[0].fitted.model
    assert len(fits) == len(quick) == 1


def test_each_size_keeps_its_own_model(fits, quick):
    panel, pictures = trainable(steps=2), {}
    for dim in (16, 32):
        panel.controls["dim"].value = dim
        panel.train()
        assert progress_of(panel.text)[0] == 2
        pictures[dim] = panel.picture.value
    assert [call.config.dim for call in fits] == [16, 32]
    panel.controls["dim"].value = 16
    assert panel.picture.value == pictures[16] != pictures[32]


def test_what_is_chosen_while_it_trains_changes_what_is_shown_and_not_what_is_trained(fits, quick):
    panel = trainable(steps=4)
    _, progress = button_and_progress(panel)

    def disturb(change):
        if change.new == 2:
            panel.controls["dim"].value = 32

    progress.observe(disturb, names="value")
    panel.train()
    assert progress_of(panel.text) == (0, 4, "not trained yet")
    panel.controls["dim"].value = 16
    assert progress_of(panel.text) == (4, 4, "43.2% of 500 test images right")
    expected = fit(small_config(), data.ClutteredDigits("train"), steps=4, progress=False)
    assert same_weights(fits[0].fitted.model, expected.model)


@pytest.mark.parametrize("step", [0, 1])
def test_an_error_while_training_is_shown_and_raised(quick, break_at, step):
    panel = trainable(steps=2)
    button, progress = button_and_progress(panel)
    break_at(step, ValueError("the <digits> are lost"))
    with pytest.raises(ValueError, match="the <digits> are lost"):
        panel.train()
    page = Page(panel.message.value)
    assert page.words == "the <digits> are lost"
    assert page.attributes["p"]["role"] == "alert"
    assert (button.disabled, progress.value, quick) == (False, 0, [])
    assert progress_of(panel.text) == (step, 2, "not trained to the end" if step else "not trained yet")


def test_after_an_error_the_button_trains_from_the_start(fits, quick, monkeypatch):
    panel = trainable(steps=3)
    button, _ = button_and_progress(panel)
    with monkeypatch.context() as patch:

        def fail(*args, **kwargs):
            raise MemoryError

        patch.setattr(models, "fit", fail)
        with pytest.raises(MemoryError):
            panel.train()
    assert Page(panel.message.value).words == "MemoryError"
    button.click()
    assert panel.message.value == ""
    assert progress_of(panel.text) == (3, 3, "43.2% of 500 test images right")
    expected = fit(small_config(), data.ClutteredDigits("train"), steps=3, progress=False)
    assert same_weights(fits[0].fitted.model, expected.model)


def test_an_error_while_measuring_is_shown_and_raised(fits, monkeypatch):
    def fail(*args):
        raise RuntimeError("no count")

    panel = trainable(steps=2)
    monkeypatch.setattr(models, "evaluate", fail)
    with pytest.raises(RuntimeError, match="no count"):
        panel.train()
    assert 'role="alert"' in panel.message.value
    assert not button_and_progress(panel)[0].disabled


@pytest.mark.parametrize("step", [0, 3])
def test_an_interruption_leaves_the_model_that_far_and_says_so(fits, quick, break_at, count_forward, step):
    runs, panel = count_forward(VisionTransformer), trainable(steps=5)
    button, progress = button_and_progress(panel)
    break_at(step, KeyboardInterrupt())
    panel.train()
    assert progress_of(panel.text) == (step, 5, "not trained to the end" if step else "not trained yet")
    assert (button.disabled, progress.value, panel.message.value, quick) == (False, 0, "", [])
    shown = runs[-1][0]
    assert not shown.training
    expected = fit(small_config(), data.ClutteredDigits("train"), steps=5, progress=False)
    assert len(expected.history.loss) == step  # it is interrupted there too
    assert same_weights(shown, expected.model)
    text = panel.text
    panel.controls["heads"].value = 1
    panel.controls["heads"].value = 2
    assert panel.text == text
    assert len(fits) == 1


def test_an_interruption_while_it_draws_leaves_a_panel_that_draws(quick, monkeypatch):
    panel = trainable(steps=3)
    real, calls = models.plot_maps, []

    def plot_maps(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(models, "plot_maps", plot_maps)
    panel.train()
    assert len(calls) == 3
    assert progress_of(panel.text) == (1, 3, "not trained to the end")
    panel.controls["picture"].value = 1
    assert len(calls) == 4


def test_a_second_press_of_the_button_does_not_train_again(quick, break_at):
    panel = trainable(steps=3)
    panel.train()
    before = panel.picture.value
    break_at(0, KeyboardInterrupt())  # would end any training at once
    panel.train()
    assert progress_of(panel.text) == (3, 3, "43.2% of 500 test images right")
    assert panel.picture.value == before
    assert not button_and_progress(panel)[0].disabled


def test_an_interruption_while_measuring_does_not_deny_the_training(fits, quick, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    panel = trainable(steps=2)
    with monkeypatch.context() as patch:
        patch.setattr(models, "evaluate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            panel.train()
    assert not button_and_progress(panel)[0].disabled
    assert progress_of(panel.text) == (2, 2, "not measured")
    panel.train()
    assert progress_of(panel.text) == (2, 2, "43.2% of 500 test images right")
    assert len(fits) == 1  # another press only measures
