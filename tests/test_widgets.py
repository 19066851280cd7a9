"""Every panel is driven to both ends and to every option, and what it says is computed again by other means."""

import base64
import inspect
import io
import itertools
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from html.parser import HTMLParser
from math import log, log2
from pathlib import Path
from types import SimpleNamespace

import ipywidgets
import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display
from IPython.utils.capture import capture_output
from matplotlib.text import Text
from PIL import Image
from traitlets import TraitError

from vit_walkthrough import MultiHeadSelfAttention, VisionTransformer, ViTConfig, data, pretrained, record, widgets
from vit_walkthrough.explain import occlusion, relevance
from vit_walkthrough.plots import plot_matrix
from vit_walkthrough.pretrained import bundled, load_tiny, read_tensors, save_checkpoint
from vit_walkthrough.tokens import resample_positions, sincos_positions
from vit_walkthrough.training import Fitted, History, fit, fresh
from vit_walkthrough.widgets import (
    Panel,
    explore_attention,
    explore_heads,
    explore_maps,
    explore_patches,
    explore_positions,
    explore_vit,
    train_and_look,
)

PANELS = {
    "explore_patches": explore_patches,
    "explore_positions": explore_positions,
    "explore_attention": explore_attention,
    "explore_heads": explore_heads,
    "explore_vit": partial(explore_vit, 12),
    "explore_maps": partial(explore_maps, 12),
    "train_and_look": train_and_look,
}
every_panel = pytest.mark.parametrize("name", PANELS)


def ends(control) -> list:
    """Both ends of a slider; every option of what has options."""
    if hasattr(control, "options"):
        return [option[1] if isinstance(option, tuple) else option for option in control.options]
    if isinstance(control, ipywidgets.FloatLogSlider):
        return [control.base**control.min, control.base**control.max]
    return [control.min, control.max]


def turned(panel: Panel, *names: str):
    """Turn each control to every place of `ends`, yielding after each turn that changed a value."""
    for name in names or reversed(panel.controls):  # the last first: they are the cheaper ones
        for value in ends(panel.controls[name]):
            if panel.controls[name].value != value:
                panel.controls[name].value = value
                yield name, value


def opened(name: str) -> Panel:
    """A panel in which every control has something to change."""
    panel = PANELS[name]()
    if "query" in panel.controls:
        panel.controls["query"].value = "patch"
    return panel


class Page(HTMLParser):
    """What a panel's picture consists of."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.attributes, self.words = [], {}, ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes[tag] = dict(attrs)

    def handle_data(self, data):
        self.words += data

    @property
    def png(self) -> bytes:
        start, code = self.attributes["img"]["src"].split(",")
        assert start == "data:image/png;base64"
        return base64.b64decode(code, validate=True)


def numbers(text: str, pattern: str) -> list[float]:
    """The numbers that stand where the pattern has its groups."""
    found = re.search(pattern, text)
    assert found, f"no {pattern!r} in {text!r}"
    return [float(number.replace(",", "")) for number in found.groups()]


@pytest.fixture
def spy(monkeypatch):
    """Record what a function of the module widgets is called with."""

    def watch(name: str) -> list:
        calls, real = [], getattr(widgets, name)

        def watched(*args, **kwargs):
            calls.append((args, kwargs))
            return real(*args, **kwargs)

        monkeypatch.setattr(widgets, name, watched)
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


def turn_together(panel: Panel, **values) -> None:
    """Turn several controls, and draw once."""
    draw, panel.draw = panel.draw, lambda **values: (plot_matrix([1.0]), "")
    for name, value in values.items():
        panel.controls[name].value = value
    panel.draw = draw
    panel.update()


def count_draws(panel: Panel) -> list:
    calls, real = [], panel.draw
    panel.draw = lambda **values: (calls.append(values), real(**values))[1]
    return calls


def words_drawn(figure) -> list[Text]:
    """The texts that drawing the figure really draws, ticks outside the picture left out."""
    seen, draw_text = [], Text.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", lambda text, renderer: (seen.append(text), draw_text(text, renderer)))
        figure.draw_without_rendering()
    return [text for text in seen if text.get_visible() and text.get_text().strip()]


def random_states() -> tuple:
    return torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002


@pytest.fixture(scope="module", params=PANELS)
def journey(request):
    """A panel at its start, after every turn of `turned`, and back again; and what it did beside."""
    printed, before = io.StringIO(), random_states()
    with redirect_stdout(printed), redirect_stderr(printed):
        panel = opened(request.param)
        start = {name: control.value for name, control in panel.controls.items()}
        draws, stops = count_draws(panel), []
        for turn in itertools.chain(["start"], turned(panel)):
            figure = getattr(panel.figure, "figure", panel.figure)
            words = [(text.get_text(), text.get_size(), text.get_window_extent()) for text in words_drawn(figure)]
            values = {name: control.value for name, control in panel.controls.items()}
            page, stop = Page(panel.picture.value), SimpleNamespace(turn=turn, values=values, words=words)
            stop.draws, stop.page, stop.text, stop.message = draws.copy(), page, panel.text, panel.message.value
            stop.figure_box = figure.bbox.frozen()
            stops.append(stop)
            draws.clear()
        for name, value in start.items():
            panel.controls[name].value = value
    return SimpleNamespace(
        panel=panel, start=stops[0], turns=stops[1:], end=panel.picture.value, printed=printed.getvalue(),
        random_before=before, random_after=random_states(),
    )  # fmt: skip


# What holds for every panel


def test_every_panel_is_tried_here():
    functions = {name for name, thing in inspect.getmembers(widgets, inspect.isfunction) if name[0] != "_"}
    assert {name for name in functions if getattr(widgets, name).__module__ == widgets.__name__} == set(PANELS)


def test_every_control_is_turned_to_both_ends_and_to_every_option(journey):
    turns = [(*stop.turn,) for stop in journey.turns]
    for name, control in journey.panel.controls.items():
        values = [journey.start.values[name], *(value for turned_name, value in turns if turned_name == name)]
        values += [stop.values[name] for stop in journey.turns]
        if hasattr(control, "options"):
            assert set(values) == set(ends(control))
        else:
            assert len(set(values)) >= 2


def test_every_turn_changes_the_picture(journey):
    for before, after in itertools.pairwise([journey.start, *journey.turns]):
        assert after.page.png != before.page.png, after.turn


def test_every_turn_draws_once_with_what_the_controls_say(journey):
    for stop in journey.turns:
        assert stop.draws == [stop.values], stop.turn


def test_the_text_stands_under_the_picture_and_in_its_place(journey):
    for stop in [journey.start, *journey.turns]:
        assert stop.page.tags == ["img", "p"]
        assert stop.page.words == stop.page.attributes["img"]["alt"] == stop.text
        assert stop.message == ""


def test_no_label_is_cut_off_at_any_turn(journey):
    for stop in [journey.start, *journey.turns]:
        page = stop.figure_box
        for word, _, box in stop.words:
            assert page.x0 <= box.x0 <= box.x1 <= page.x1, (stop.turn, word)
            assert page.y0 <= box.y0 <= box.y1 <= page.y1, (stop.turn, word)


def test_no_label_lies_on_another_at_any_turn(journey):
    for stop in [journey.start, *journey.turns]:
        for (one, _, box), (other, _, place) in itertools.combinations(stop.words, 2):
            assert not box.padded(-1).overlaps(place.padded(-1)), (stop.turn, one, other)


def test_no_label_is_smaller_than_8_points_at_any_turn(journey):
    for stop in [journey.start, *journey.turns]:
        assert min((size for _, size, _ in stop.words), default=8) >= 8, stop.turn


def test_the_way_back_leads_to_the_same_picture(journey):
    assert Page(journey.end).png == journey.start.page.png
    assert Page(journey.end).words == journey.start.text


def test_random_numbers_of_others_stay_as_they_are(journey):
    assert journey.random_before == journey.random_after


def test_nothing_is_printed(journey):
    assert journey.printed == ""


def test_nothing_is_drawn_while_a_slider_is_held(journey):
    for control in journey.panel.controls.values():
        assert not getattr(control, "continuous_update", False)


def test_every_control_says_what_it_is(journey):
    descriptions = [control.description for control in journey.panel.controls.values()]
    assert all(descriptions)
    assert len(set(descriptions)) == len(descriptions)


@every_panel
def test_a_panel_made_again_shows_the_same(name):
    assert PANELS[name]().picture.value == PANELS[name]().picture.value


@every_panel
def test_a_value_that_is_not_offered_cannot_be_chosen(name):
    panel = opened(name)
    for control in panel.controls.values():
        if hasattr(control, "options"):
            with pytest.raises(TraitError):
                control.value = "nothing of the sort"
        else:
            control.value = 10 * control.max + 1000
            assert control.value == ends(control)[1]
    assert panel.message.value == ""


@every_panel
def test_a_panel_is_displayed_once_with_a_still_picture_and_its_text(name, monkeypatch):
    panel = opened(name)
    for _ in (0, next(turned(panel))):  # as it is displayed first, and after a turn
        calls = []
        monkeypatch.setattr(widgets, "display", lambda *args, calls=calls, **kwargs: calls.append((args, kwargs)))
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


def test_a_panel_reaches_the_notebook_as_one_output():
    panel = Panel(lambda side: (plot_matrix(np.eye(side)), "Ones."), {"side": ipywidgets.IntSlider(2, 1, 3)})
    InteractiveShell.instance()
    try:
        with capture_output() as captured:
            display(panel)
    finally:
        InteractiveShell.clear_instance()
    assert (captured.stdout, captured.stderr) == ("", "")
    (output,) = captured.outputs
    assert set(output.data) == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}


def test_pyplot_is_never_imported():
    code = """
import sys
from vit_walkthrough import widgets
panel = widgets.explore_positions(side=3, dim=8)
panel.controls["grid"].value = 4
assert "ipywidgets" in sys.modules and "matplotlib.figure" in sys.modules
assert "matplotlib.pyplot" not in sys.modules
"""
    root = Path(widgets.__file__).parents[1]
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=root, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


# Panel


@pytest.fixture
def panel():
    def draw(side: int):
        if side == 3:
            raise ValueError('3 is <b>no</b> side & "that" is all')
        return plot_matrix(np.eye(side)), f"{side} ones."

    return Panel(draw, {"side": ipywidgets.IntSlider(2, 1, 4)})


def test_a_panel_draws_as_soon_as_it_is_made(panel):
    assert panel.text == "2 ones."
    assert Page(panel.picture.value).tags == ["img", "p"]
    assert Page(panel.picture.value).attributes["p"]["aria-live"] == "polite"


def test_a_panel_holds_its_controls_its_message_and_its_picture(panel):
    row, message, picture = panel.box.children
    assert row.children == (panel.controls["side"],)
    assert (message, picture) == (panel.message, panel.picture)


def test_an_error_is_shown_and_raised(panel):
    before = panel.picture.value
    with pytest.raises(ValueError, match="3 is <b>no</b> side"):
        panel.controls["side"].value = 3
    page = Page(panel.message.value)
    assert page.words == '3 is <b>no</b> side & "that" is all'
    assert page.tags == ["p", "b"]
    assert page.attributes["p"]["role"] == "alert"
    assert panel.picture.value == before
    with pytest.raises(ValueError, match="no</b> side"):
        panel.update()


def test_a_good_drawing_takes_the_message_away(panel):
    with pytest.raises(ValueError, match="side"):
        panel.controls["side"].value = 3
    panel.controls["side"].value = 4
    assert panel.message.value == ""
    assert panel.text == "4 ones."


def test_an_error_of_the_still_picture_leaves_text_and_picture_of_one_state(panel, monkeypatch):
    before = panel.picture.value

    def fail(*args, **kwargs):
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(widgets, "render", fail)
        with pytest.raises(MemoryError, match="no room"):
            panel.controls["side"].value = 1
    assert "no room" in panel.message.value
    assert panel.picture.value == before
    assert panel.text == Page(before).words


def test_an_error_of_adapt_is_shown_and_raised(panel):
    def adapt(controls):
        raise KeyError("row")

    panel.adapt = adapt
    with pytest.raises(KeyError, match="row"):
        panel.update()
    assert "row" in Page(panel.message.value).words


def test_an_error_without_words_still_says_something(panel):
    def draw(side):
        raise NotImplementedError

    panel.draw = draw
    with pytest.raises(NotImplementedError):
        panel.update()
    assert Page(panel.message.value).words == "NotImplementedError"


def test_an_error_of_the_first_drawing_is_raised():
    def draw(side):
        raise ValueError("never")

    with pytest.raises(ValueError, match="never"):
        Panel(draw, {"side": ipywidgets.IntSlider(2, 1, 4)})


def test_a_limit_that_moves_a_value_draws_once_and_with_the_moved_value():
    drawn = []

    def draw(size, place):
        drawn.append((size, place))
        return plot_matrix(np.eye(size)), f"{place} of {size}."

    def adapt(controls):
        controls["place"].max = controls["size"].value - 1

    controls = {"size": ipywidgets.IntSlider(5, 1, 9), "place": ipywidgets.IntSlider(4, 0, 4)}
    panel = Panel(draw, controls, adapt)
    panel.controls["size"].value = 2
    assert drawn == [(5, 4), (2, 1)]
    assert panel.text == "1 of 2."


@pytest.mark.parametrize("text", ['a "b" <i>c</i> & d', "it's > 1 < 2", "&lt;script&gt;", "1 · 2 × 3"])
def test_a_text_of_any_signs_is_shown_as_it_is(text):
    page = Page(Panel(lambda: (plot_matrix([1.0]), text), {}).picture.value)
    assert page.tags == ["img", "p"]
    assert page.words == page.attributes["img"]["alt"] == text


# explore_patches


def test_explore_patches_offers_every_size_that_divides_the_photo_and_no_other():
    sizes = list(explore_patches().controls["patch_size"].options)
    assert sizes == [4, 7, 8, 14, 16, 28, 32, 56, 112, 224]
    assert list(explore_patches(60).controls["patch_size"].options) == [4, 5, 6, 10, 12, 15, 20, 30, 60]


def test_explore_patches_counts_right():
    panel = explore_patches()
    for size in panel.controls["patch_size"].options:
        panel.controls["patch_size"].value = size
        patches = len([top for top in range(0, 224, size) for _ in range(0, 224, size)])
        text = panel.text
        assert numbers(text, r"Patches of (\d+) x (\d+) pixels") == [size, size]
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
        torch.testing.assert_close(patches[6].reshape(3, 56, 56), image[:, 56:112, 112:168], rtol=0, atol=0)


# explore_positions


def cosines(positions: torch.Tensor) -> torch.Tensor:
    patches = positions[0, 1:] - positions[0, 1:].mean(dim=0)
    return torch.nn.functional.cosine_similarity(patches[:, None], patches[None], dim=-1)


@pytest.mark.parametrize("kind", ["sines and cosines", "learned"])
@pytest.mark.parametrize("grid", [3, 7, 14])
def test_explore_positions_shows_the_similarity_of_the_resampled_positions(spy, kind, grid):
    learned = torch.randn(1, 50, 16, requires_grad=True)
    shown = spy("plot_similarity")
    panel = explore_positions(side=7, dim=16, learned=learned)
    panel.controls["kind"].value = kind
    panel.controls["grid"].value = grid
    panel.controls["row"].value, panel.controls["col"].value = 1, 2
    (similarity, rows, cols), more = shown[-1]
    original = learned.detach() if kind == "learned" else sincos_positions(7, 7, 16)
    expected = cosines(resample_positions(original, grid, grid))
    torch.testing.assert_close(similarity, expected, atol=1e-5, rtol=0)
    assert (rows, cols, more["marked"]) == (grid, grid, {grid + 2: "position"})
    tile = panel.figure.figure.axes[1].images[0].get_array()
    np.testing.assert_allclose(tile, expected[grid + 2].reshape(grid, grid), atol=1e-5)
    assert (f"resampled to {grid} x {grid}" in panel.text) == (grid != 7)


@pytest.mark.parametrize("grid", [3, 7, 10])
@pytest.mark.parametrize("kind", ["sines and cosines", "learned"])
def test_explore_positions_names_the_most_similar_patch(spy, kind, grid):
    shown = spy("plot_similarity")
    panel = explore_positions(dim=16)
    panel.controls["kind"].value = kind
    panel.controls["grid"].value = grid
    for row, col in ((0, 0), (grid - 1, 1), (1, grid - 1)):
        panel.controls["row"].value, panel.controls["col"].value = row, col
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
    monkeypatch.setattr(widgets, "sincos_positions", lambda *sizes: sincos_positions(*sizes) + noise)
    panel = explore_positions()  # four neighbours of the middle are equally similar
    assert "the one at row 2, column 3" in panel.text


def test_explore_positions_never_points_outside_its_grid():
    panel = explore_positions(dim=8)
    for grid in (14, 3, 7):
        panel.controls["grid"].value = grid
        assert (panel.controls["row"].max, panel.controls["col"].max) == (grid - 1, grid - 1)
        for name in ("row", "col"):
            panel.controls[name].value = grid - 1
        assert f"row {grid - 1}, column {grid - 1} is 1.00" in panel.text


def test_explore_positions_refuses_learned_positions_of_another_grid():
    with pytest.raises(ValueError, match="49 positions; 7 x 7 patches and the class token have 50"):
        explore_positions(side=7, learned=torch.randn(1, 49, 64))


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


@pytest.mark.parametrize(("row", "col", "temperature"), [(0, 0, 1.0), (3, 1, 0.2), (1, 3, 5.0)])
def test_explore_attention_shows_the_softmax_of_the_scaled_scores(spy, small, row, col, temperature):
    image, queries, keys = small
    shown = spy("plot_attention")
    panel = explore_attention(image, queries, keys)
    panel.controls["row"].value, panel.controls["col"].value = row, col
    panel.controls["temperature"].value = temperature
    (held, weights), more = shown[-1]
    scores = (queries.detach()[4 * row + col] * keys).sum(dim=-1) / 5**0.5
    expected = torch.softmax(scores / temperature, dim=0)
    torch.testing.assert_close(weights, expected.reshape(4, 4))
    assert held is image
    assert more["query"] == 4 * row + col
    said = numbers(
        panel.text, r"row (\d+), column (\d+) gives ([\d.]+) of .* row (\d+), column (\d+) and ([\d.]+) to the five"
    )
    best = divmod(int(expected.argmax()), 4)
    most, five = expected.max().item(), expected.sort().values[-5:].sum().item()
    assert said == pytest.approx([row, col, most, *best, five], abs=6e-4)
    entropy = -(expected * expected.log2()).nansum().item()
    assert entropy_of(panel.text) == pytest.approx([entropy, 4], abs=0.06)
    (curve,) = panel.figure.figure.axes[2].lines
    np.testing.assert_array_equal(curve.get_xdata(), np.arange(1, 17))
    np.testing.assert_allclose(curve.get_ydata(), sorted(expected, reverse=True), rtol=1e-5)


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


# What the panels over trained models share


@pytest.fixture
def made_up(tmp_path, monkeypatch, randomize):
    """Models with random weights, on grids of 8 x 8 and of 2 x 2, where the bundled ones are looked for."""
    for patch_size, heads in itertools.product((6, 24), (1, 2)):
        config = ViTConfig(48, patch_size, dim=8, depth=4, heads=heads, hidden=8, classes=10)
        scores = {"test_accuracy": 0.2 + patch_size / 1000, "test_images": 1000 * heads}
        path = tmp_path / f"tiny_p{patch_size}_h{heads}.safetensors"
        save_checkpoint(path, randomize(VisionTransformer(config)), **scores)
    monkeypatch.setattr(pretrained, "TINY", tmp_path)
    monkeypatch.setattr(widgets, "bundled", bundled)
    widgets._tiny.cache_clear()
    yield
    widgets._tiny.cache_clear()


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
    with pytest.raises(TraitError):
        make(*sizes)


# explore_vit


def test_explore_vit_names_the_digit_the_model_and_its_scores(spy):
    bars = spy("plot_probabilities")
    panel = explore_vit(12, 4)
    chosen = {sizes: path for sizes, path in bundled().items() if sizes[0] == 12 or sizes[1] == 4}
    for picture, ((patch_size, heads), path) in enumerate(chosen.items()):
        turn_together(panel, picture=picture, patch_size=patch_size, heads=heads)
        image, label, mask = digit(picture)
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
    for picture in (99, 1, 2):
        panel.controls["picture"].value = picture
        ((model, image), label) = (runs[-1], int(digit(picture)[1]))
        said = numbers(panel.text, r"This is an? (\d); the model says (\d)")
        assert said == [label, int(model(image).argmax())]
        wrong += said[0] != said[1]
    assert wrong  # its weights are random


@pytest.mark.parametrize(
    ("query", "row", "col", "layer", "heads"),
    [("class token", 0, 0, 4, 4), ("class token", 2, 1, 1, 1), ("patch", 0, 3, 2, 8), ("patch", 3, 1, 3, 2)],
)
def test_explore_vit_shows_where_the_query_looks(spy, query, row, col, layer, heads):
    shown, grids = spy("plot_heads"), spy("plot_grid")
    panel = explore_vit(12, heads)
    turn_together(panel, query=query, row=row, col=col, layer=layer, picture=7)
    image, _, mask = digit(7)
    token = 0 if query == "class token" else 1 + 4 * row + col
    expected = attention_of(load_tiny(12, heads), image, layer)[0, :, token, 1:]
    (held, maps), more = shown[-1]
    torch.testing.assert_close(maps, expected.reshape(heads, 4, 4))
    torch.testing.assert_close(held, image[0], rtol=0, atol=0)
    assert more["query"] == (token - 1 if token else None)
    (held, patch_size), more = grids[-1]
    torch.testing.assert_close(held, image[0], rtol=0, atol=0)
    assert (patch_size, more["marked"], more["title"]) == (
        12,
        {token - 1: "query"} if token else None,
        "4 * 4 = 16 patches",
    )
    who = f"the patch at row {row}, column {col}" if token else "the class token"
    assert f"Layer {layer}: where {who} looks, in each of {heads} head{'s' * (heads > 1)}. " in panel.text
    share = share_inside(expected.mean(dim=0), mask[0])
    assert numbers(panel.text, r"\. (\d+)% of what goes to patches") == pytest.approx([share], abs=0.51)


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
    turn_together(panel, patch_size=6, row=7, col=7)
    draws = count_draws(panel)
    panel.controls["patch_size"].value = 24
    assert [(values["row"], values["col"]) for values in draws] == [(1, 1)]
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
    widgets._tiny(24, heads)[0].head.logits.bias.data[3] = 1000
    panel = explore_vit(24, heads)
    assert "the model says 3, with 100.0%" in panel.text
    figure = panel.figure.figure
    (label,) = (text for text in words_drawn(figure) if text.get_text() == "100.0%")
    assert label.get_window_extent().x1 <= figure.bbox.x1


def test_explore_vit_lets_row_and_column_be_turned_only_for_a_patch():
    panel = explore_vit(12, 4)
    assert [panel.controls[name].disabled for name in ("row", "col")] == [True, True]
    for query, idle in (("patch", False), ("class token", True)):
        panel.controls["query"].value = query
        assert [panel.controls[name].disabled for name in ("row", "col")] == [idle, idle]


@pytest.mark.usefixtures("made_up")
def test_explore_vit_runs_the_model_again_only_for_another_model_or_picture(count_forward):
    runs = count_forward(VisionTransformer)
    panel = explore_vit(24, 1)
    assert len(runs) == 1
    changes = {"patch_size": (6, 1), "layer": (1, 0), "query": ("patch", 0), "row": (5, 0), "col": (7, 0),
               "heads": (2, 1), "picture": (3, 1)}  # fmt: skip
    for name, (value, expected) in changes.items():
        runs.clear()
        panel.controls[name].value = value
        assert len(runs) == expected, name
    runs.clear()
    for name, value in (("heads", 1), ("heads", 2), ("picture", 0), ("patch_size", 24), ("patch_size", 6)):
        panel.controls[name].value = value
    assert len(runs) == 2  # two pairs that are new; what was computed before is remembered


# explore_maps


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
    asked = itertools.cycle([None, 0, 9, 3, 5])
    chosen = [sizes for sizes in bundled() if sizes[0] == 12 or sizes[1] == 2]
    for picture, (patch_size, heads) in enumerate(chosen):
        values = {"picture": picture, "asked": next(asked), "patch_size": patch_size, "heads": heads}
        turn_together(panel, **values)
        model, (image, label, mask) = load_tiny(patch_size, heads), digit(picture)
        with torch.no_grad():
            probabilities = model(image)[0].softmax(-1)
        meant = int(probabilities.argmax()) if values["asked"] is None else values["asked"]
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
    assert ends(explore_maps(12, 4).controls["asked"]) == [None, *range(10)]
    assert [label for label, _ in explore_maps(12, 4).controls["asked"].options] == ["what it says", *"0123456789"]


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
    monkeypatch.setattr(widgets, "occlusion", lambda model, images, classes: torch.full((1, 4), -0.25))
    panel = explore_maps(24, 2)
    assert shares(panel.text)["occlusion"] is None
    assert "occlusion: nothing." in panel.text
    np.testing.assert_array_equal(shown_maps(shown)["occlusion"], np.zeros((2, 2)))


@pytest.mark.usefixtures("made_up")
def test_explore_maps_runs_the_model_again_only_for_something_new(count_forward):
    runs = count_forward(VisionTransformer)
    panel = explore_maps(24, 1)
    once = 3 + 4  # as it is, for the relevance, before any patch is covered, and with each of four covered
    assert len(runs) == once
    for name, value, expected in (("picture", 3, once), ("asked", 7, once), ("heads", 2, once), ("patch_size", 6, 67)):
        runs.clear()
        panel.controls[name].value = value
        assert len(runs) == expected, name
    runs.clear()
    for name, value in (("patch_size", 24), ("heads", 1), ("asked", None), ("picture", 0)):
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
    _, line, *_ = panel.box.children
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

    monkeypatch.setattr(widgets, "evaluate", evaluate)
    return measured


@pytest.fixture
def fits(monkeypatch) -> list:
    """What each training was called with, and what came of it."""
    calls = []

    def watched(config, digits, **more):
        calls.append(SimpleNamespace(config=config, digits=digits, **more))
        calls[-1].fitted = fit(config, digits, **more)
        return calls[-1].fitted

    monkeypatch.setattr(widgets, "fit", watched)
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
    assert progress_of(panel.text) == (0, 300, "not trained to the end")
    button, progress = button_and_progress(panel)
    assert (button.description, button.disabled, progress.value) == ("train", False, 0)


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
    model = fresh(small_config(), data.ClutteredDigits("train")).eval()
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
        return Fitted(fresh(config, digits).eval(), History(loss=losses))

    monkeypatch.setattr(widgets, "fit", fake)
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

    monkeypatch.setattr(widgets, "fit", fake)
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
    measure = widgets.evaluate
    monkeypatch.setattr(
        widgets, "evaluate", lambda *all: (seen.append(("measured", button.disabled)), measure(*all))[1]
    )
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
        model = fresh(config, digits)
        for step in range(steps):
            watch(step, model, history)
            history.loss.append(2.0)
        return Fitted(model, history)

    def draw(**values):
        told.append(len(history.loss))
        return plot_matrix([1.0]), ""

    monkeypatch.setattr(widgets, "fit", fake)
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
        assert progress_of(panel.text) == (0, panel.controls["steps"].value, "not trained to the end"), name
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
    assert progress_of(panel.text) == (0, 4, "not trained to the end")
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
    assert progress_of(panel.text) == (step, 2, "not trained to the end")


def test_after_an_error_the_button_trains_from_the_start(fits, quick, monkeypatch):
    panel = trainable(steps=3)
    button, _ = button_and_progress(panel)
    with monkeypatch.context() as patch:

        def fail(*args, **kwargs):
            raise MemoryError

        patch.setattr(widgets, "fit", fail)
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
    monkeypatch.setattr(widgets, "evaluate", fail)
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
    assert progress_of(panel.text) == (step, 5, "not trained to the end")
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
    real, calls = widgets.plot_maps, []

    def plot_maps(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(widgets, "plot_maps", plot_maps)
    panel.train()
    assert len(calls) == 3
    assert progress_of(panel.text) == (1, 3, "not trained to the end")
    panel.controls["picture"].value = 1
    assert len(calls) == 4


def test_an_interruption_of_a_second_training_is_not_told_the_accuracy_of_the_first(quick, break_at):
    panel = trainable(steps=3)
    panel.train()
    assert progress_of(panel.text) == (3, 3, "43.2% of 500 test images right")
    break_at(2, KeyboardInterrupt())
    panel.train()
    assert progress_of(panel.text) == (2, 3, "not trained to the end")


def test_an_interruption_while_measuring_does_not_deny_the_training(monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    panel = trainable(steps=2)
    monkeypatch.setattr(widgets, "evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        panel.train()
    assert not button_and_progress(panel)[0].disabled
    panel.update()
    done, steps, told = progress_of(panel.text)
    assert (done, steps) == (2, 2)
    assert "not trained to the end" not in told
