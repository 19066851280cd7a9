"""Every panel is driven to both ends and to every option, and what it says is computed again by other means."""

import base64
import io
import itertools
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from math import log2
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

from vit_walkthrough import MultiHeadSelfAttention, VisionTransformer, data, record, widgets
from vit_walkthrough.plots import plot_matrix
from vit_walkthrough.tokens import resample_positions, sincos_positions
from vit_walkthrough.widgets import (
    Panel,
    explore_attention,
    explore_heads,
    explore_patches,
    explore_positions,
    explore_vit,
)

PANELS = {
    "explore_patches": explore_patches,
    "explore_positions": explore_positions,
    "explore_attention": explore_attention,
    "explore_heads": explore_heads,
    "explore_vit": explore_vit,
}
every_panel = pytest.mark.parametrize("name", PANELS)


def ends(control) -> list:
    """Both ends of a slider; every option of what has options."""
    if hasattr(control, "options"):
        return list(control.options)
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
    assert {name for name in vars(widgets) if name.startswith("explore_")} == set(PANELS)


def test_every_control_is_turned_to_both_ends_and_to_every_option(journey):
    turns = [(*stop.turn,) for stop in journey.turns]
    for name, control in journey.panel.controls.items():
        values = [journey.start.values[name], *(value for turned_name, value in turns if turned_name == name)]
        values += [stop.values[name] for stop in journey.turns]
        if hasattr(control, "options"):
            assert set(values) == set(control.options)
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


# explore_vit


def test_explore_vit_offers_only_what_fits_together():
    panel = explore_vit()
    assert list(panel.controls["patch_size"].options) == [7, 8, 14, 16, 28, 56]
    assert list(panel.controls["heads"].options) == [1, 2, 3, 4, 6, 8]
    assert (panel.controls["layer"].min, panel.controls["layer"].max) == (1, 4)
    other = explore_vit(size=48, dim=20, depth=2)
    assert all(48 % size == 0 for size in other.controls["patch_size"].options)
    assert list(other.controls["heads"].options) == [1, 2, 4, 5]


def test_explore_vit_never_points_outside_its_grid():
    panel = explore_vit(dim=8, depth=1)
    panel.controls["query"].value = "patch"
    for size, rows in ((7, 16), (56, 2), (8, 14), (28, 4)):
        panel.controls["patch_size"].value = size
        assert (panel.controls["row"].max, panel.controls["col"].max) == (rows - 1, rows - 1)
        for row, col in ((rows - 1, 0), (rows - 1, rows - 1), (0, rows - 1), (0, 0), (rows - 1, rows - 1)):
            panel.controls["row"].value, panel.controls["col"].value = row, col
            assert f"the patch at row {row}, column {col} looks among {rows * rows + 1} tokens" in panel.text
    draws = count_draws(panel)
    panel.controls["patch_size"].value = 56
    assert len(draws) == 1
    assert (draws[0]["row"], draws[0]["col"]) == (1, 1)


def test_explore_vit_lets_row_and_column_be_turned_only_for_a_patch():
    panel = explore_vit(dim=8, depth=1)
    for query, idle in (("patch", False), ("class token", True)):
        panel.controls["query"].value = query
        assert [panel.controls[name].disabled for name in ("row", "col")] == [idle, idle]


def test_explore_vit_runs_the_model_again_only_when_the_model_or_the_photo_changes(count_forward):
    runs = count_forward(VisionTransformer)
    panel = explore_vit(dim=8)
    changes = {
        "patch_size": (28, 1), "layer": (1, 0), "query": ("patch", 0), "row": (2, 0), "heads": (2, 1),
        "photo_name": ("coffee", 1),
    }  # fmt: skip
    for name, (value, expected) in changes.items():
        runs.clear()
        panel.controls[name].value = value
        assert len(runs) == expected, name
    runs.clear()
    panel.controls["heads"].value = 4
    panel.controls["heads"].value = 2
    assert len(runs) == 1  # what was computed before is remembered


@pytest.mark.parametrize(
    ("query", "row", "col", "layer"), [("class token", 0, 0, 1), ("patch", 0, 3, 2), ("patch", 2, 1, 3)]
)
def test_explore_vit_shows_the_attention_of_the_model_that_it_ran(count_forward, spy, query, row, col, layer):
    runs, shown, grids = count_forward(VisionTransformer), spy("plot_heads"), spy("plot_grid")
    panel = explore_vit(dim=24, depth=3)
    for name, value in {"patch_size": 28, "query": query, "row": row, "col": col, "layer": layer, "heads": 3}.items():
        panel.controls[name].value = value
    model, images = runs[-1]
    assert (model.config.patch_size, model.config.heads, model.config.depth) == (28, 3, 3)
    torch.testing.assert_close(images, data.photo("cat", 112)[None], rtol=0, atol=0)
    with torch.no_grad(), record(model) as trace:
        model(images)
    token = 0 if query == "class token" else 1 + 4 * row + col
    expected = trace[f"blocks.{layer - 1}.attention.weights"][0, :, token, 1:].reshape(3, 4, 4)
    (_, maps), more = shown[-1]
    torch.testing.assert_close(maps, expected)
    assert more["query"] == (token - 1 if token else None)
    assert grids[-1][1]["marked"] == ({token - 1: "query"} if token else None)
    said = numbers(
        panel.text, r"Layer (\d+) of (\d+), (\d+) heads: .* among (\d+) tokens.* gets ([\d.]+); .* ([\d.]+)\.$"
    )
    assert said == pytest.approx([layer, 3, 3, 17, expected.max().item(), 1 / 17], abs=6e-5)


def test_explore_vit_says_that_nothing_is_learned_yet():
    text = explore_vit().text
    assert text.startswith("Random weights")
    assert "learned nothing yet" in text
