"""Controls and the picture that follows them; and the control that lets one choose which picture."""

import base64
import gc
import struct
import zlib
from math import ceil
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display
from IPython.utils.capture import capture_output
from PIL import Image
from traitlets import TraitError

from tests.widgets.panels import Page, address, choose, count_draws, file_of
from vit_walkthrough import data
from vit_walkthrough.draw.images import plot_matrix
from vit_walkthrough.widgets import Panel, pictures
from vit_walkthrough.widgets import panel as panel_module
from vit_walkthrough.widgets.panel import choice, number, query_at, toggle
from vit_walkthrough.widgets.pictures import MAX_UPLOAD, PictureChooser, picture

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
    assert Page(panel.picture.value).tags == ["div", "img", "p"]
    assert Page(panel.picture.value).attributes["p"]["aria-live"] == "polite"


def test_a_panel_holds_its_hint_its_controls_its_message_and_its_picture(panel):
    hint, row, message, picture = panel.box.children
    assert isinstance(hint, ipywidgets.HTML)
    assert row.children == (panel.controls["side"],)
    assert (message, picture) == (panel.message, panel.picture)


def test_the_page_can_find_a_panel(panel):
    assert "vit-panel" in panel.box._dom_classes


@pytest.mark.parametrize("hint", ['Try: <b>this</b> & "that". Notice: it\'s 1 < 2.', "&lt;script&gt;"])
def test_a_hint_of_any_signs_is_shown_as_it_is(hint):
    box = Panel(lambda: (plot_matrix([1.0]), ""), {}, hint=hint).box
    page, without = Page(box.children[0].value), Page(Panel(lambda: (plot_matrix([1.0]), ""), {}).box.children[0].value)
    assert page.words == hint + without.words
    assert page.tags == ["p", *without.tags]


def test_a_panel_says_what_to_do_when_its_kernel_is_gone_and_hides_that_until_then(panel):
    page = Page(panel.box.children[0].value)
    assert page.tags == ["style", "p"]
    assert page.attributes["p"] == {"class": "vit-alert vit-lost", "role": "alert"}
    rules, words = page.words.split("</style>")[0].rsplit("}", 1)
    assert ".vit-lost {display: none" in rules
    assert ".jupyter-widgets-disconnected .vit-lost {display: block" in rules
    assert ".vit-alert {color: #a00000; background: white" in rules  # to be read on a dark ground, too
    assert "run the notebook again from its first cell" in words


def test_an_error_is_shown_and_raised(panel):
    before = panel.picture.value
    with pytest.raises(ValueError, match="3 is <b>no</b> side"):
        panel.controls["side"].value = 3
    page = Page(panel.message.value)
    assert page.words == '3 is <b>no</b> side & "that" is all'
    assert page.tags == ["p"]
    assert page.attributes["p"] == {"class": "vit-alert", "role": "alert"}
    assert (panel.picture.value, panel.text) == (before, "2 ones.")
    with pytest.raises(ValueError, match="no</b> side"):
        panel.update()


@pytest.mark.parametrize("side", [4, 2])
def test_a_good_drawing_takes_the_message_away(panel, side):
    with pytest.raises(ValueError, match="side"):
        panel.controls["side"].value = 3
    panel.controls["side"].value = side
    assert panel.message.value == ""
    assert panel.text == f"{side} ones."


def test_the_way_back_from_an_error_is_drawn_again(panel):
    before, draws = panel.picture.value, count_draws(panel)
    with pytest.raises(ValueError, match="side"):
        panel.controls["side"].value = 3
    panel.controls["side"].value = 2
    assert draws == [{"side": 3}, {"side": 2}]
    assert (panel.message.value, panel.picture.value) == ("", before)


def test_an_error_of_the_still_picture_leaves_text_and_picture_of_one_state(panel, monkeypatch):
    before = panel.picture.value

    def fail(*args, **kwargs):
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(panel_module, "render", fail)
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


def test_a_change_that_changes_nothing_draws_nothing_and_a_demand_always_draws(panel):
    draws = count_draws(panel)
    panel.update({"name": "value"})
    assert draws == []
    panel.update()
    assert draws == [{"side": 2}]
    panel.controls["side"].value = 4
    panel.update({"name": "value"})
    assert draws == [{"side": 2}, {"side": 4}]


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


def test_changes_made_while_it_draws_are_drawn_afterwards_and_the_last_one_wins(panel):
    draws, quick, real = [], iter([1, 3, 4]), panel.draw  # 3 would be an error

    def draw(side):
        draws.append(side)
        for value in quick:
            panel.controls["side"].value = value
        assert panel.text == ("2 ones." if side == 1 else "1 ones.")  # nothing is put inside of a drawing
        return real(side)

    panel.draw = draw
    panel.controls["side"].value = 1
    assert draws == [1, 4]
    assert panel.text == "4 ones."
    panel.update({"name": "value"})
    assert draws == [1, 4]


def test_a_change_that_is_taken_back_while_it_draws_is_not_drawn_twice(panel):
    def draw(side):
        draws.append(side)
        for value in (4, side):
            panel.controls["side"].value = value
        return plot_matrix(np.eye(side)), f"{side} ones."

    draws, panel.draw = [], draw
    panel.controls["side"].value = 1
    assert draws == [1]
    assert panel.text == "1 ones."


@pytest.mark.parametrize("first", [True, False], ids=["before the panel", "after the panel"])
def test_a_change_by_another_observer_of_a_control_is_drawn_and_each_state_once(first):
    def link(change):
        controls["high"].value = change.new + 1

    controls, draws = {"low": ipywidgets.IntSlider(1, 0, 9), "high": ipywidgets.IntSlider(2, 0, 9)}, []
    if first:
        controls["low"].observe(link, names="value")

    def draw(low, high):
        draws.append((low, high))
        return plot_matrix([1.0]), f"{low} to {high}"

    panel = Panel(draw, controls)
    if not first:
        controls["low"].observe(link, names="value")
    controls["low"].value = 5
    assert draws == ([(1, 2), (5, 6)] if first else [(1, 2), (5, 2), (5, 6)])
    assert panel.text == "5 to 6"


def test_a_change_by_an_observer_of_the_picture_is_drawn_afterwards(panel):
    draws = count_draws(panel)
    panel.picture.observe(lambda change: setattr(panel.controls["side"], "value", 4), names="value")
    panel.controls["side"].value = 1
    assert draws == [{"side": 1}, {"side": 4}]
    assert panel.text == "4 ones."
    assert Page(panel.picture.value).words == "4 ones."


@pytest.mark.parametrize("enabled", [True, False])
def test_rubbish_is_not_collected_while_it_draws_and_as_before_afterwards(panel, enabled):
    seen, real = [], panel.draw
    panel.draw = lambda side: (seen.append(gc.isenabled()), real(side))[1]
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        panel.controls["side"].value = 1
        assert gc.isenabled() == enabled
        with pytest.raises(ValueError, match="side"):
            panel.controls["side"].value = 3
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
    assert seen == [False, False]


def test_an_interruption_leaves_a_panel_that_draws(panel):
    def interrupt(side):
        raise KeyboardInterrupt

    real, panel.draw = panel.draw, interrupt
    with pytest.raises(KeyboardInterrupt):
        panel.controls["side"].value = 1
    assert gc.isenabled()
    panel.draw = real
    panel.controls["side"].value = 2
    assert panel.text == "2 ones."
    panel.controls["side"].value = 1
    assert panel.text == "1 ones."


@pytest.mark.parametrize("text", ['a "b" <i>c</i> & d', "it's > 1 < 2", "&lt;script&gt;", "1 · 2 × 3"])
def test_a_text_of_any_signs_is_shown_as_it_is(text):
    page = Page(Panel(lambda: (plot_matrix([1.0]), text), {}).picture.value)
    assert page.tags == ["div", "img", "p"]
    assert page.words == page.attributes["img"]["alt"] == text


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


# The controls


def test_every_kind_of_control_begins_where_it_is_told_and_waits_until_it_is_let_go():
    slider, counter, mode = choice("sizes", [2, 3, 5], 3), number("place", 4, 0, 9), toggle("mode", "one", "other")
    assert (list(slider.options), slider.value, slider.description) == ([2, 3, 5], 3, "sizes")
    assert (counter.min, counter.max, counter.value, counter.description) == (0, 9, 4, "place")
    assert (list(mode.options), mode.value, mode.description) == (["one", "other"], "one", "mode")
    assert not slider.continuous_update
    assert not counter.continuous_update
    with pytest.raises(TraitError):
        choice("sizes", [2, 3, 5], 4)


GRIDS = [(8, 8), (3, 5), (1, 1), (14, 2), (2, 2), (16, 16), (5, 3)]


def test_a_query_begins_in_the_middle_and_the_sliders_end_with_the_grid():
    controls, _ = query_at(5, 8)
    assert [(name, control.value, control.min, control.max) for name, control in controls.items()] == [
        ("row", 2, 0, 4), ("col", 4, 0, 7),
    ]  # fmt: skip


@pytest.mark.parametrize("cell", [(0, 0), (7, 7), (0, 7), (3, 4), (5, 2)])
def test_a_query_stays_at_its_place_in_the_picture_and_comes_back_to_its_patch(cell):
    controls, fit = query_at(8, 8)
    controls["row"].value, controls["col"].value = cell
    for rows, cols in (*GRIDS, *reversed(GRIDS)):
        fit(rows, cols)
        for name, count, start in (("row", rows, cell[0]), ("col", cols, cell[1])):
            slider = controls[name]
            assert (slider.min, slider.max) == (0, count - 1)
            assert slider.value / count <= (start + 0.5) / 8 < (slider.value + 1) / count
    assert (controls["row"].value, controls["col"].value) == cell


def test_a_query_that_was_moved_on_another_grid_comes_back_to_where_it_was_moved():
    controls, fit = query_at(8, 8)
    controls["row"].value, controls["col"].value = 5, 1
    fit(8, 8)
    fit(4, 4)
    assert (controls["row"].value, controls["col"].value) == (2, 0)
    controls["row"].value = 0  # and the column stays what it was
    fit(4, 4)
    fit(8, 8)
    assert (controls["row"].value, controls["col"].value) == (1, 1)


def test_a_query_that_was_moved_just_before_the_grid_changed_is_not_lost():
    controls, fit = query_at(8, 8)
    controls["row"].value = 7
    fit(2, 2)
    assert controls["row"].value == 1
    controls["row"].value = 0
    fit(16, 16)
    assert controls["row"].value == 4


# PictureChooser


@pytest.fixture
def photo_of():
    """A picture of 60 x 40 pixels in any of Pillow's modes, and not the same everywhere."""

    def make(mode: str = "RGB", seed: int = 0) -> Image.Image:
        pixels = np.random.default_rng(seed).integers(0, 256, (4, 6, 4), dtype=np.uint8)
        return Image.fromarray(pixels).resize((60, 40)).convert(mode)

    return make


@pytest.fixture
def own(photo_of):
    """A chooser to which a picture has come, and the picture's bytes."""
    chooser, content = PictureChooser(), file_of(photo_of())
    chooser.kind.value = "my own"
    chooser.file.value = address(content)
    return chooser, content


def shown(chooser: PictureChooser) -> set[str]:
    """The names of the parts that can be seen."""
    parts = {"kind": chooser.kind, "number": chooser.number, "own": chooser.own}
    return {name for name, part in parts.items() if part.layout.display != "none"}


def test_a_chooser_begins_with_the_first_digit():
    chooser = PictureChooser()
    assert chooser.value == ("digit", 0)
    assert list(chooser.kind.options) == ["digit", "cat", "astronaut", "coffee", "my own"]
    assert (chooser.number.min, chooser.number.max) == (0, 99)


def test_a_chooser_says_which_picture_is_chosen():
    chooser, seen = PictureChooser(), []
    chooser.observe(lambda change: seen.append(change.new), names="value")
    for value in (("digit", 7), ("cat",), ("coffee",), ("digit", 7), ("astronaut",)):
        choose(chooser, value)
    chooser.number.value = 9  # nobody sees it
    chooser.kind.value = "digit"
    assert seen == [("digit", 7), ("cat",), ("coffee",), ("digit", 7), ("astronaut",), ("digit", 9)]


def test_before_a_file_has_come_the_picture_stays():
    chooser, seen = PictureChooser(), []
    choose(chooser, ("cat",))
    chooser.observe(lambda change: seen.append(change.new), names="value")
    chooser.kind.value = "my own"
    chooser.dark_on_light.value = True
    assert chooser.value == ("cat",)
    assert seen == []


def test_only_the_controls_that_apply_are_there_to_be_seen(own):
    chooser, _ = own
    assert shown(chooser) == {"kind", "own"}
    for kind, parts in (("digit", {"kind", "number"}), ("cat", {"kind"}), ("my own", {"kind", "own"})):
        chooser.kind.value = kind
        assert shown(chooser) == parts
    assert shown(PictureChooser()) == {"kind", "number"}
    assert chooser.file.layout.display == "none"
    assert set(chooser.own.children) == {chooser.page, chooser.dark_on_light, chooser.problem, chooser.file}
    assert chooser.children == (chooser.kind, chooser.number, chooser.own)


def test_a_file_that_comes_is_chosen_and_its_text_is_taken_away(own):
    chooser, content = own
    assert chooser.value == ("own", content, False)
    assert chooser.file.value == ""
    assert chooser.problem.value == ""


def test_a_file_comes_as_a_page_sends_it(photo_of):
    chooser, content = PictureChooser(), file_of(photo_of())
    chooser.kind.value = "my own"
    for _ in range(2):
        chooser.file.set_state({"value": address(content)})
        assert chooser.value == ("own", content, False)
        assert chooser.file.value == ""


def test_the_same_file_can_come_again_and_changes_nothing(own):
    chooser, content = own
    seen = []
    chooser.observe(lambda change: seen.append(change.new), names="value")
    chooser.file.value = address(content)
    assert (seen, chooser.file.value) == ([], "")
    choose(chooser, ("cat",))
    chooser.kind.value = "my own"
    assert chooser.value == ("own", content, False)


def test_another_file_takes_the_place_of_the_first(own, photo_of):
    chooser, _ = own
    content = file_of(photo_of(seed=1))
    chooser.file.value = address(content)
    assert chooser.value == ("own", content, False)


def test_a_file_that_comes_while_something_else_is_chosen_waits(own, photo_of):
    chooser, _ = own
    choose(chooser, ("coffee",))
    content = file_of(photo_of(seed=1))
    chooser.file.value = address(content)
    assert chooser.value == ("coffee",)
    chooser.kind.value = "my own"
    assert chooser.value == ("own", content, False)


def test_dark_and_light_are_exchanged_on_demand_and_back(own):
    chooser, content = own
    image, label, mask = picture(chooser.value)
    assert label is mask is None
    chooser.dark_on_light.value = True
    assert chooser.value == ("own", content, True)
    torch.testing.assert_close(picture(chooser.value)[0], 1 - image)
    chooser.dark_on_light.value = False
    torch.testing.assert_close(picture(chooser.value)[0], image, rtol=0, atol=0)


KINDS = {
    "grey": ("L", "PNG", {}),
    "grey and alpha": ("LA", "PNG", {}),
    "black and white": ("1", "PNG", {}),
    "palette": ("P", "PNG", {}),
    "transparent": ("RGBA", "PNG", {}),
    "16 bits": ("I;16", "PNG", {}),
    "JPEG": ("RGB", "JPEG", {}),
    "CMYK": ("CMYK", "JPEG", {}),
    "GIF": ("P", "GIF", {}),
    "WebP": ("RGB", "WEBP", {}),
    "TIFF": ("RGB", "TIFF", {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_load_image_reads_can_come(photo_of, kind):
    mode, name, options = KINDS[kind]
    image = photo_of("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    content, chooser = file_of(image, name, **options), PictureChooser()
    chooser.kind.value = "my own"
    chooser.file.value = address(content, f"image/{name.lower()}")
    assert chooser.value == ("own", content, False)
    read, _, _ = picture(chooser.value)
    assert read.shape == (1, 3, 48, 48)
    assert read.std() > 0.1
    torch.testing.assert_close(read[0], data.load_image(content, 48), rtol=0, atol=0)


def test_of_a_file_that_moves_the_first_frame_is_shown(photo_of):
    frames = [photo_of(seed=seed).convert("P") for seed in range(3)]
    content = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    chooser = PictureChooser()
    chooser.kind.value = "my own"
    chooser.file.value = address(content)
    torch.testing.assert_close(picture(chooser.value)[0][0], data.load_image(frames[0], 48))


def test_what_is_transparent_lies_on_white():
    chooser = PictureChooser()
    chooser.kind.value = "my own"
    chooser.file.value = address(file_of(Image.new("RGBA", (48, 48), (0, 0, 0, 0))))
    torch.testing.assert_close(picture(chooser.value)[0], torch.ones(1, 3, 48, 48))


def test_a_digit_and_a_photo_are_what_data_gives():
    image, label, mask = picture(("digit", 7))
    expected, known, square = data.ClutteredDigits("test").sample(1, draw=7)
    assert label == known.item()
    torch.testing.assert_close(image, expected, rtol=0, atol=0)
    torch.testing.assert_close(mask, square)
    for name in data.PHOTOS:
        image, label, mask = picture((name,))
        assert label is mask is None
        torch.testing.assert_close(image[0], data.photo(name, 48), rtol=0, atol=0)


def declared(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, of which none follows."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def too_deep() -> bytes:
    """A TIFF with whole numbers of 32 bits that reach further than 16."""
    return file_of(Image.fromarray(np.arange(0, 2**31 - 1, 2**23, dtype=np.int32).reshape(16, 16)), "TIFF")


BROKEN = {
    "no base64": ("data:image/png;base64,this is none!", "did not arrive whole"),
    "base64 that is cut off": ("data:image/png;base64,iVBORw0KGgo", "did not arrive whole"),
    "signs beyond ASCII": ("data:image/png;base64,ä", "ASCII"),
    "no address": ("what?", "empty"),
    "nothing in it": ("data:image/png;base64,", "empty"),
    "no image": (address(b"%PDF-1.7 and more", "application/pdf"), "nothing that Pillow can read"),
    "900 million pixels": (address(declared(30_000, 30_000)), "more than 80,000,000 pixels"),
    "too large": (address(declared(10_000, 9_000)), "more than 80,000,000 pixels"),
    "none of its pixels": (address(declared(40, 40)), "cannot be decoded"),
    "one pixel": (address(file_of(Image.new("RGB", (1, 1)))), "1 x 1 pixel"),
    "too long": (address(file_of(Image.new("RGB", (4000, 2)))), "too long"),
    "numbers too large": (address(too_deep(), "image/tiff"), "numbers of type"),
}


@pytest.mark.parametrize("before", ["digit", "own"])
@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_picture_is_told_and_raised_and_changes_nothing(own, photo_of, kind, before):
    text, words = BROKEN[kind]
    chooser, seen = own[0] if before == "own" else PictureChooser(), []
    chooser.kind.value = "my own"
    value = chooser.value
    chooser.observe(lambda change: seen.append(change.new), names="value")
    for _ in range(2):  # the same broken file again
        with pytest.raises((ValueError, TypeError)) as error:
            chooser.file.value = text
        page = Page(chooser.problem.value)
        assert page.tags == ["p"]
        assert page.attributes["p"]["role"] == "alert"
        assert page.words == str(error.value)
        assert words in page.words
        assert chooser.file.value == ""
    assert (chooser.value, seen) == (value, [])
    content = file_of(photo_of(seed=2))
    chooser.file.value = address(content)
    assert chooser.problem.value == ""
    assert seen == [("own", content, False)]


def test_the_words_about_a_file_go_when_another_kind_is_chosen():
    chooser = PictureChooser()
    chooser.kind.value = "my own"
    with pytest.raises(ValueError, match="nothing that Pillow"):
        chooser.file.value = address(b"no picture")
    chooser.dark_on_light.value = True
    assert "nothing that Pillow" in chooser.problem.value
    chooser.kind.value = "digit"
    chooser.kind.value = "my own"
    assert chooser.problem.value == ""


def test_the_same_words_about_a_file_are_sent_again():
    """The page takes them away when the next file is chosen."""
    chooser, seen = PictureChooser(), []
    chooser.problem.observe(lambda change: seen.append(change.new), names="value")
    for _ in range(2):
        with pytest.raises(ValueError, match="nothing that Pillow"):
            chooser.file.value = address(b"no picture")
    assert seen == [seen[0], "", seen[0]]


def test_a_broken_file_leaves_the_panel_as_it_was():
    def draw(chosen):
        return plot_matrix([1.0]), str(chosen[0])

    panel = Panel(draw, {"chosen": PictureChooser()})
    draws, before = count_draws(panel), panel.picture.value
    chooser = panel.controls["chosen"]
    chooser.kind.value = "my own"
    with pytest.raises(ValueError, match="nothing that Pillow"):
        chooser.file.value = address(b"no picture")
    assert (draws, panel.picture.value, panel.message.value) == ([], before, "")
    chooser.file.value = address(file_of(Image.new("RGB", (4, 4))))
    assert [values["chosen"][0] for values in draws] == ["own"]
    assert panel.text == "own"


# What the chooser puts into the page


SCRIPT = Path(pictures.__file__).with_name("source.js").read_text(encoding="utf-8")


@pytest.fixture
def page():
    return Page(PictureChooser().page.value)


def test_the_page_has_one_box_with_an_input_a_button_an_alert_and_a_video(page):
    assert page.tags == ["div", "input", "button", "span", "br", "video"]
    assert page.attributes["div"]["class"] == "vit-own"
    assert page.attributes["span"]["role"] == "alert"
    assert "hidden" in page.attributes["video"]


def test_what_can_be_used_has_a_name_and_is_reached_by_keyboard(page):
    assert page.attributes["input"]["aria-label"] == "picture file"
    assert page.attributes["input"]["type"] == "file"
    assert "hidden" not in page.attributes["input"]
    assert page.attributes["button"]["type"] == "button"
    assert page.words.strip() == "use the camera"
    assert not any("tabindex" in attributes for attributes in page.attributes.values())
    assert page.attributes["div"]["onkeydown"] == "event.stopPropagation()"


def test_the_script_stands_in_the_page_as_it_is_in_its_file(page):
    assert page.attributes["input"].keys() == {"type", "accept", "aria-label", "onclick", "onchange"}
    assert page.attributes["button"].keys() == {"type", "onclick"}
    for run in (page.attributes["input"]["onchange"], page.attributes["button"]["onclick"]):
        assert run == f"({SCRIPT})(this)"
    assert page.attributes["input"]["onclick"] == "this.value = null"


def test_the_script_finds_what_is_there(page):
    chooser = PictureChooser()
    panel = Panel(lambda chosen: (plot_matrix([1.0]), ""), {"chosen": chooser})
    assert 'closest(".vit-own")' in SCRIPT
    assert 'closest(".vit-panel").querySelector(".vit-file textarea")' in SCRIPT
    assert "vit-panel" in panel.box._dom_classes
    assert "vit-file" in chooser.file._dom_classes
    assert isinstance(chooser.file, ipywidgets.Textarea)
    assert "dataset.limit" in SCRIPT
    assert f'"{page.words.strip()}"' in SCRIPT  # the button gets back the name that it had


def test_no_message_of_a_file_that_may_be_sent_is_cut_off(page):
    assert page.attributes["div"]["data-limit"] == str(MAX_UPLOAD)
    assert MAX_UPLOAD >= 5_000_000
    largest = len("data:image/svg+xml;base64,") + 4 * ceil(MAX_UPLOAD / 3)
    assert largest == len(address(bytes(MAX_UPLOAD), "image/svg+xml"))
    assert largest + 500_000 <= 10 * 1024 * 1024  # around the text there is the message, and names may be long


def test_a_file_of_the_largest_size_is_read():
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    content = file_of(Image.fromarray(noise), "BMP")
    assert 0.9 * MAX_UPLOAD < len(content) < MAX_UPLOAD
    chooser = PictureChooser()
    chooser.kind.value = "my own"
    chooser.file.value = address(content, "image/bmp")
    assert chooser.value == ("own", content, False)
    assert base64.b64decode(address(content).split(",")[1]) == content


def test_what_one_chooser_is_sent_no_other_gets(photo_of):
    first, second = PictureChooser(), PictureChooser()
    for chooser in (first, second):
        chooser.kind.value = "my own"
    first.file.value = address(file_of(photo_of()))
    assert second.value == ("digit", 0)
    assert second.content == b""
