"""The hover view under a real pointer and real keys, on a grid that is not square; its pixels against `plots.blend`."""

import re
from statistics import median
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vit_walkthrough.draw.images import blend
from vit_walkthrough.living.explore import explore
from vit_walkthrough.look.trace import Trace

ROWS, COLS, SIDE = 3, 5, 4
LAYERS, HEADS = 3, 4
STEP = 3.3  # of 255, between neighbours in the palette, and half of one for rounding: weights are carried in 8 bits


def traced(layers: int, heads: int, rows: int, cols: int, side: int, first: int = 1) -> Trace:
    """A trace with random attention, as if a model had been recorded; `first` 0 is one without a class token."""
    trace, tokens = Trace(), rows * cols + first
    trace._tensors["input"] = torch.rand(1, 3, rows * side, cols * side)
    for layer in range(layers):
        weights = (2 * torch.randn(1, heads, tokens, tokens)).softmax(dim=-1)
        trace._tensors[f"blocks.{layer}.attention.weights"] = weights
    return trace


@pytest.fixture
def trace():
    trace = traced(LAYERS, HEADS, ROWS, COLS, SIDE)
    weights = trace["blocks.1.attention.weights"][:, 2]  # one head in which the class token takes nearly all
    weights[..., 1:] *= 1e-3
    weights[..., 0] = 1 - weights[..., 1:].sum(dim=-1)
    return trace


@pytest.fixture
def bare():
    return traced(LAYERS, HEADS, ROWS, COLS, SIDE, first=0)


class View:
    """One explorer on a page, as its reader sees it."""

    def __init__(self, page, number: int = 0):
        self.page = page
        self.root = page.locator(".vit-explorer").nth(number)
        self.picture = self.root.locator(".vit-picture")
        self.slider = self.root.locator("input[type=range]")
        self.button = self.root.get_by_role("button", name="class token")
        self.picture.wait_for()

    @property
    def state(self) -> SimpleNamespace:
        return SimpleNamespace(**self.root.evaluate("root => root.explorer.state()"))

    @property
    def told(self) -> str:
        return self.root.locator(".vit-text").inner_text()

    @property
    def pinned(self):
        return self.root.locator(".vit-pinned")

    def place_of(self, row: int, col: int) -> tuple[float, float]:
        box = self.picture.bounding_box()
        return box["x"] + (col + 0.5) * box["width"] / COLS, box["y"] + (row + 0.5) * box["height"] / ROWS

    def hover(self, row: int, col: int) -> None:
        self.page.mouse.move(*self.place_of(row, col))

    def click(self, row: int, col: int) -> None:
        self.page.mouse.click(*self.place_of(row, col))

    def drag(self, *places: tuple[float, float], button: str = "left") -> None:
        """Press the mouse at the first place, move it along the others and release it at the last."""
        self.page.mouse.move(*places[0])
        self.page.mouse.down(button=button)
        for place in places[1:]:
            self.page.mouse.move(*place, steps=4)
        self.page.mouse.up(button=button)

    def swipe(self, *places: tuple[float, float]) -> None:
        """The same with a finger."""
        touch = self.page.context.new_cdp_session(self.page)

        def send(kind: str, *places: tuple[float, float]) -> None:
            points = [{"x": across, "y": down} for across, down in places]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        send("touchStart", places[0])
        for place in places[1:]:
            send("touchMove", place)
        send("touchEnd")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def pixels(self, what: str = "now") -> np.ndarray:
        """The painted maps, the mean last: (heads + 1, height, width, 4)."""
        canvases = self.root.locator(f'canvas[aria-label^="{what}, "]')
        painted = canvases.evaluate_all(
            """list => list.map(one => [one.height, one.width,
                Array.from(one.getContext("2d").getImageData(0, 0, one.width, one.height).data)])"""
        )
        return np.stack([np.reshape(values, (height, width, 4)) for height, width, values in painted])


def first_of(trace: Trace) -> int:
    """The place of the first patch among the tokens; queries are counted from 1 on where it is 0."""
    return trace.attention.shape[-1] - ROWS * COLS


def expected_maps(trace: Trace, layer: int, query: int) -> np.ndarray:
    """What `plots` paints: (heads + 1, height, width, 3) of 0 to 255."""
    first = first_of(trace)
    image, weights = trace["input"][0], trace.attention[layer, 0, :, query - 1 + first, first:]
    weights = weights.unflatten(-1, (ROWS, COLS))
    return 255 * np.stack([blend(image, head) for head in [*weights, weights.mean(dim=0)]])


def assert_paints(view: View, trace: Trace, layer: int, query: int, what: str = "now") -> None:
    painted = view.pixels(what)
    assert painted.shape == (HEADS + 1, ROWS * SIDE, COLS * SIDE, 4)
    assert (painted[..., 3] == 255).all()
    assert abs(painted[..., :3] - expected_maps(trace, layer, query)).max() <= STEP


def token(row: int, col: int) -> int:
    return 1 + row * COLS + col


def assert_tells(text: str, trace: Trace, layer: int, query: int) -> None:
    query -= 1 - first_of(trace)
    mean = trace.attention[layer, 0, :, query].double().mean(dim=0)
    names = ["the class token"][: first_of(trace)]
    names += [f"the patch in row {row}, column {col}" for row in range(ROWS) for col in range(COLS)]
    alike = {16: "0.063", 15: "0.067"}[len(names)]
    start = f"Block {layer + 1}, mean of the heads: {names[query]} looks at "
    end = f"; everywhere alike would be {alike}."
    assert text.startswith(start)
    assert text.endswith(end)
    told = re.findall(r"(the [^()]*) \((\d\.\d{3})\)", text[len(start) : -len(end)])
    assert len(told) == 5
    values = mean.sort(descending=True).values
    for place, (name, number) in enumerate(told):
        assert float(number) == pytest.approx(float(values[place]), abs=0.0015)
        assert float(number) == pytest.approx(float(mean[names.index(name)]), abs=0.0015)
    assert len({name for name, _ in told}) == 5


@pytest.fixture
def page(open_page, trace):
    return open_page(explore(trace).html)


@pytest.fixture
def view(page):
    return View(page)


# Alive


def test_the_still_picture_gives_way_to_painted_maps_of_the_class_token_in_the_last_block(view, trace):
    assert view.root.locator(".vit-still").is_hidden()
    assert vars(view.state) == {"query": 0, "layer": LAYERS - 1, "pinned": None}
    assert view.root.locator("figcaption:visible").all_inner_texts() == ["head 0", "head 1", "head 2", "head 3", "mean"]
    assert view.pinned.is_hidden()
    assert_paints(view, trace, LAYERS - 1, 0)
    assert_tells(view.told, trace, LAYERS - 1, 0)


def test_the_picture_shows_the_image_itself(view, trace):
    box = view.picture.bounding_box()
    assert box["width"] == 240
    assert box["height"] == pytest.approx(240 * ROWS / COLS)
    shown = view.picture.evaluate(
        """one => [one.height, one.width,
            Array.from(one.getContext("2d").getImageData(0, 0, one.width, one.height).data)]"""
    )
    zoom = shown[1] // (COLS * SIDE)
    middles = np.reshape(shown[2], (*shown[:2], 4))[zoom // 2 :: zoom, zoom // 2 :: zoom, :3]
    np.testing.assert_allclose(middles, 255 * trace["input"][0].permute(1, 2, 0), atol=0.51)


def test_without_scripts_the_still_picture_stands_with_its_text(open_page, trace):
    shown = explore(trace)
    page = open_page(shown.html, java_script_enabled=False)
    still = page.get_by_role("img", name=shown.text, exact=True)
    assert still.count() == 1
    assert still.is_visible()
    assert still.bounding_box()["width"] > 300
    assert page.locator("canvas").count() == 0


def test_where_the_scripts_are_stripped_the_still_picture_stands(open_page, trace):
    shown = explore(trace)
    page = open_page(re.sub(r"<script.*?</script>", "", shown.html, flags=re.DOTALL))
    assert page.get_by_role("img", name=shown.text, exact=True).is_visible()
    assert page.locator("body").inner_text().strip() == ""


def test_only_chosen_layers_and_heads_are_shown_under_their_own_numbers(open_page, trace):
    view = View(open_page(explore(trace, layers=[2, 0], heads=[3, 1]).html))
    assert view.root.locator("figcaption:visible").all_inner_texts() == ["head 3", "head 1", "mean"]
    expected = 255 * blend(trace["input"][0], trace.attention[0, 0, 3, 0, 1:].unflatten(0, (ROWS, COLS)))
    assert view.state.layer == 0
    assert abs(view.pixels()[0][..., :3] - expected).max() <= STEP
    assert view.root.locator("output").inner_text() == "1"
    view.slider.focus()
    view.press("ArrowLeft")
    assert view.state.layer == 2
    assert view.root.locator("output").inner_text() == "3"
    assert view.told.startswith("Block 3, ")


def test_a_narrow_window_loses_nothing_at_its_side(open_page, trace):
    view = View(open_page(explore(trace).html, viewport={"width": 380, "height": 800}))
    assert view.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    view.hover(2, 1)
    assert view.state.query == token(2, 1)


# The pointer


@pytest.mark.parametrize(("row", "col"), [(0, 0), (0, 4), (2, 0), (2, 4), (1, 3)])
def test_hovering_over_a_patch_asks_for_that_patch(view, trace, row, col):
    view.hover(row, col)
    assert view.state.query == token(row, col)
    assert_paints(view, trace, LAYERS - 1, token(row, col))
    assert_tells(view.told, trace, LAYERS - 1, token(row, col))
    assert view.button.get_attribute("aria-pressed") == "false"


def test_the_border_between_two_patches_is_where_the_picture_has_it(view):
    box = view.picture.bounding_box()
    line = box["x"] + 2 * box["width"] / COLS
    view.page.mouse.move(line - 1, box["y"] + 2)
    assert view.state.query == token(0, 1)
    view.page.mouse.move(line + 1, box["y"] + 2)
    assert view.state.query == token(0, 2)


def test_leaving_the_picture_keeps_the_last_patch(view):
    view.hover(1, 2)
    view.page.mouse.move(900, 900)
    assert view.state.query == token(1, 2)


def test_the_query_is_outlined_in_the_picture(view):
    def outlined() -> bool:
        ink = view.picture.evaluate(
            """(one, [x, y]) => Array.from(one.getContext("2d").getImageData(x, y, 1, 1).data)""",
            [round((3 * SIDE) * 480 / (COLS * SIDE)), round(1.5 * SIDE * 480 / (COLS * SIDE))],
        )
        return ink == [0xCC, 0x79, 0xA7, 255]

    assert not outlined()
    view.hover(1, 3)
    assert outlined()
    view.hover(0, 0)
    assert not outlined()


def test_the_button_asks_for_the_class_token(view, trace):
    view.hover(1, 1)
    assert view.state.query == token(1, 1)
    view.button.click()
    assert view.state.query == 0
    assert view.button.get_attribute("aria-pressed") == "true"
    assert_paints(view, trace, LAYERS - 1, 0)


def test_a_click_pins_the_patch_beside_the_next_and_a_second_lets_it_go(view, trace):
    view.click(1, 3)
    assert view.state.pinned == token(1, 3)
    assert view.pinned.is_visible()
    view.hover(2, 0)
    assert vars(view.state) == {"query": token(2, 0), "layer": LAYERS - 1, "pinned": token(1, 3)}
    assert_paints(view, trace, LAYERS - 1, token(2, 0))
    assert_paints(view, trace, LAYERS - 1, token(1, 3), "pinned")
    words = view.pinned.locator("div").first.inner_text()
    assert words.startswith("Pinned. ")
    assert_tells(words.removeprefix("Pinned. "), trace, LAYERS - 1, token(1, 3))
    view.click(1, 3)
    assert view.state.pinned is None
    assert view.pinned.is_hidden()


def test_a_click_on_another_patch_pins_that_one_instead(view, trace):
    view.click(1, 3)
    view.click(0, 1)
    assert view.state.pinned == token(0, 1)
    assert_paints(view, trace, LAYERS - 1, token(0, 1), "pinned")


def test_a_press_and_its_release_on_one_patch_pin_it_wherever_the_mouse_was_between(view):
    (across, down), other = view.place_of(1, 3), view.place_of(2, 1)
    view.drag((across - 15, down - 15), (across + 15, down + 15))
    assert view.state.pinned == token(1, 3)
    view.drag((across, down), other, (across + 10, down))
    assert view.state.pinned is None


def test_nothing_is_pinned_before_the_release(view):
    view.hover(1, 3)
    view.page.mouse.down()
    assert vars(view.state) == {"query": token(1, 3), "layer": LAYERS - 1, "pinned": None}
    view.page.mouse.up()
    assert view.state.pinned == token(1, 3)


def test_a_drag_to_another_patch_looks_there_and_pins_neither(view):
    view.drag(view.place_of(1, 3), view.place_of(0, 1))
    assert vars(view.state) == {"query": token(0, 1), "layer": LAYERS - 1, "pinned": None}
    view.click(2, 2)
    view.drag(view.place_of(1, 3), view.place_of(2, 2))
    assert view.state.pinned == token(2, 2)  # as before


@pytest.mark.parametrize("button", ["right", "middle"])
def test_another_button_than_the_left_pins_nothing(view, button):
    view.page.mouse.click(*view.place_of(1, 3), button=button)
    assert vars(view.state) == {"query": token(1, 3), "layer": LAYERS - 1, "pinned": None}
    view.click(1, 3)
    view.page.mouse.click(*view.place_of(1, 3), button=button)
    assert view.state.pinned == token(1, 3)


def test_a_press_or_a_release_outside_of_the_picture_pins_nothing(view):
    box = view.picture.bounding_box()
    outside = box["x"] + box["width"] / 2, box["y"] + box["height"] + 150
    edge = view.place_of(ROWS - 1, 2)
    view.drag(outside, edge)
    assert view.state.pinned is None
    view.drag(edge, outside)
    assert view.state.pinned is None
    view.drag(outside, edge)  # the press that it would go with is long released
    assert view.state.pinned is None
    view.click(ROWS - 1, 2)
    view.drag(outside, edge)
    assert view.state.pinned == token(ROWS - 1, 2)


@pytest.fixture
def touched(open_page, trace):
    return View(open_page(explore(trace).html + '<p style="height:3000px">', has_touch=True))


def test_a_finger_asks_and_at_its_second_tap_pins_and_compares_and_lets_go(touched, trace):
    for pinned in (None, token(2, 3)):
        touched.page.touchscreen.tap(*touched.place_of(2, 3))
        assert vars(touched.state) == {"query": token(2, 3), "layer": LAYERS - 1, "pinned": pinned}
    touched.page.touchscreen.tap(*touched.place_of(0, 1))
    assert vars(touched.state) == {"query": token(0, 1), "layer": LAYERS - 1, "pinned": token(2, 3)}
    assert_paints(touched, trace, LAYERS - 1, token(0, 1))
    assert_paints(touched, trace, LAYERS - 1, token(2, 3), "pinned")
    for pinned in (token(0, 1), None):
        touched.page.touchscreen.tap(*touched.place_of(0, 1))
        assert touched.state.pinned == pinned


def test_a_finger_that_wanders_looks_at_what_is_under_it_pins_nothing_and_scrolls_nothing(touched, trace):
    touched.swipe(*(touched.place_of(*place) for place in ((2, 3), (1, 3), (0, 3), (0, 2))))
    assert vars(touched.state) == {"query": token(0, 2), "layer": LAYERS - 1, "pinned": None}
    assert_paints(touched, trace, LAYERS - 1, token(0, 2))
    assert touched.page.evaluate("scrollY") == 0


def test_a_finger_that_trembles_on_its_patch_pins_it(touched):
    across, down = touched.place_of(1, 1)
    touched.page.touchscreen.tap(across, down)  # which looks there
    touched.swipe((across, down), (across + 6, down + 5), (across - 4, down + 3))
    assert touched.state.pinned == token(1, 1)


def test_a_finger_that_is_lifted_outside_of_the_picture_pins_nothing(touched):
    across, down = touched.place_of(ROWS - 1, 1)
    touched.swipe((across, down), (across, down + 120))
    assert vars(touched.state) == {"query": token(ROWS - 1, 1), "layer": LAYERS - 1, "pinned": None}


@pytest.mark.parametrize(("end", "pinned"), [((1, 1), token(1, 1)), ((1, 2), None), ((0, 4), None)])
@pytest.mark.parametrize("kind", ["touch", "pen"])
def test_pointers_of_every_kind_pin_where_they_went_down(view, kind, end, pinned):
    places = [view.place_of(1, 1), view.place_of(*end)]
    view.hover(1, 1)  # for the first tap of a finger only looks
    view.picture.evaluate(
        """(one, [kind, [from, to]]) => {
            const send = (type, [clientX, clientY], button, buttons) => one.dispatchEvent(new PointerEvent(type, {
              pointerType: kind, pointerId: 7, isPrimary: true, bubbles: true, clientX, clientY, button, buttons }));
            send("pointerdown", from, 0, 1);
            send("pointermove", to, -1, 1);
            send("pointerup", to, 0, 0);
        }""",
        [kind, places],
    )
    assert vars(view.state) == {"query": token(*end), "layer": LAYERS - 1, "pinned": pinned}


# The keyboard


def test_the_arrow_keys_walk_and_home_leads_back_to_the_class_token(view, trace):
    view.picture.focus()
    places = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowUp", "Home"):
        view.press(key)
        places.append(view.state.query)
    walked = [(0, 0), (0, 1), (1, 1), (2, 1), (2, 0), (1, 0)]
    assert places == [*(token(*place) for place in walked), 0]
    view.press("ArrowDown", "ArrowDown", "ArrowRight")
    assert_paints(view, trace, LAYERS - 1, token(1, 1))
    assert_tells(view.told, trace, LAYERS - 1, token(1, 1))


@pytest.mark.parametrize(
    ("corner", "keys"),
    [
        ((0, 0), ("ArrowLeft", "ArrowUp")),
        ((0, COLS - 1), ("ArrowRight", "ArrowUp")),
        ((ROWS - 1, 0), ("ArrowLeft", "ArrowDown")),
        ((ROWS - 1, COLS - 1), ("ArrowRight", "ArrowDown")),
    ],
)
def test_no_arrow_key_leads_across_an_edge(view, corner, keys):
    view.hover(*corner)
    view.picture.focus()
    for key in keys:
        view.press(key)
        assert view.state.query == token(*corner)


def test_enter_and_space_pin_and_escape_lets_go(view, trace):
    view.picture.focus()
    view.press("ArrowDown", "ArrowDown", "Enter", "ArrowRight")
    assert vars(view.state) == {"query": token(1, 1), "layer": LAYERS - 1, "pinned": token(1, 0)}
    assert_paints(view, trace, LAYERS - 1, token(1, 0), "pinned")
    view.press("Escape")
    assert view.state.pinned is None
    assert view.pinned.is_hidden()
    view.press(" ")
    assert view.state.pinned == token(1, 1)
    view.press(" ")
    assert view.state.pinned is None
    view.press("Home", "Enter", "ArrowRight")
    assert view.state.pinned == 0
    assert_paints(view, trace, LAYERS - 1, 0, "pinned")


LISTEN = """() => { window.heard = [];
    document.addEventListener("keydown", (event) => heard.push([event.key, event.defaultPrevented])); }"""


def test_keys_that_the_picture_uses_stay_in_it_and_others_reach_the_page(view):
    view.page.evaluate(LISTEN)
    view.picture.focus()
    view.press("ArrowDown", "ArrowUp", "ArrowUp", "ArrowLeft", "ArrowRight", "Home", "Enter", " ", "Enter", "Escape")
    assert view.page.evaluate("heard") == []
    assert view.page.evaluate("[scrollX, scrollY]") == [0, 0]
    view.press("a", "j", "End", "PageDown")
    assert view.page.evaluate("heard") == [[key, False] for key in ("a", "j", "End", "PageDown")]


def test_escape_is_the_page_s_own_where_nothing_is_pinned(view):
    view.page.evaluate(LISTEN)
    view.picture.focus()
    view.press("Escape")
    assert view.page.evaluate("heard") == [["Escape", False]]
    view.press("Enter", "Escape")
    assert view.state.pinned is None
    assert view.page.evaluate("heard") == [["Escape", False]]
    view.press("Escape")
    assert view.page.evaluate("heard") == 2 * [["Escape", False]]


def test_keys_with_a_modifier_are_the_page_s_own(view):
    view.page.evaluate(LISTEN)
    view.picture.focus()
    view.press("ArrowRight", "Shift+Enter", "Control+ArrowDown", "Alt+ArrowUp", "Control+Home")
    assert vars(view.state) == {"query": token(0, 0), "layer": LAYERS - 1, "pinned": None}
    heard = [key for key, prevented in view.page.evaluate("heard") if not prevented]
    assert [key for key in heard if key not in ("Shift", "Control", "Alt")] == ["Enter", "ArrowDown", "ArrowUp", "Home"]


def test_the_slider_and_the_button_keep_their_own_keys_only(view):
    view.page.evaluate(LISTEN)
    view.slider.focus()
    view.press("ArrowLeft", "ArrowDown", "ArrowUp", "ArrowRight", "Home", "End", "PageUp", "PageDown")
    view.button.focus()
    view.press("Enter", " ")
    assert view.page.evaluate("heard") == []
    view.press("x")
    view.slider.focus()
    view.press("y", "Shift+Enter")
    assert [key for key, _ in view.page.evaluate("heard")] == ["x", "y", "Shift", "Enter"]


def test_the_keyboard_alone_reaches_everything(view):
    def focused() -> str:
        return view.page.evaluate("document.activeElement.className || document.activeElement.localName")

    reached = []
    for _ in range(3):
        view.press("Tab")
        reached.append(focused())
    assert reached == ["input", "button", "vit-picture"]
    view.press("ArrowRight")
    assert view.picture.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    view.press("Shift+Tab", "Enter")
    assert view.state.query == 0


# The layers


def test_the_layer_is_chosen_by_keyboard(view, trace):
    view.hover(1, 2)
    view.slider.focus()
    for layer in (1, 0, 0):
        view.press("ArrowLeft")
        assert view.state.layer == layer
        assert_paints(view, trace, layer, token(1, 2))
        assert_tells(view.told, trace, layer, token(1, 2))
    view.press("End", "ArrowRight")
    assert view.state.layer == LAYERS - 1


def test_the_layer_is_chosen_by_mouse_and_a_pinned_query_goes_along(view, trace):
    view.click(2, 4)
    box = view.slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    for part, layer in ((0.05, 0), (0.5, 1), (0.95, 2)):
        view.page.mouse.click(box["x"] + part * box["width"], middle)
        assert view.state.layer == layer
        assert view.root.locator("output").inner_text() == str(layer + 1)
        assert_paints(view, trace, layer, token(2, 4))
        assert_paints(view, trace, layer, token(2, 4), "pinned")
    view.page.mouse.down()
    view.page.mouse.move(box["x"] + 0.02 * box["width"], middle, steps=5)
    assert view.state.layer == 0  # while it is dragged
    view.page.mouse.up()


def test_a_single_layer_has_no_slider(open_page, trace):
    view = View(open_page(explore(trace, layers=[1]).html))
    assert view.slider.is_hidden()
    assert view.root.get_by_text("block", exact=False).locator("visible=true").count() == 1  # of the text below
    assert_tells(view.told, trace, 1, 0)
    assert_paints(view, trace, 1, 0)
    view.press("Tab")
    assert view.page.evaluate("document.activeElement.localName") == "button"


def test_several_layers_have_a_slider(open_page, trace):
    view = View(open_page(explore(trace, layers=[1, 2]).html))
    assert view.slider.is_visible()


# Without a class token

MIDDLE = token(1, 2)


def test_without_a_class_token_it_starts_at_the_middle_patch(open_page, bare):
    view = View(open_page(explore(bare).html))
    assert vars(view.state) == {"query": MIDDLE, "layer": LAYERS - 1, "pinned": None}
    assert view.button.count() == 0  # as those see it who see only what is shown
    assert view.root.locator("button").is_hidden()
    assert view.slider.is_visible()
    assert "class token" not in view.root.inner_text()
    assert "class token" not in view.picture.get_attribute("aria-label")
    assert_paints(view, bare, LAYERS - 1, MIDDLE)
    assert_tells(view.told, bare, LAYERS - 1, MIDDLE)


@pytest.mark.parametrize(("row", "col"), [(0, 0), (0, 4), (2, 0), (2, 4)])
def test_without_a_class_token_every_patch_has_its_own_maps(open_page, bare, row, col):
    view = View(open_page(explore(bare).html))
    view.click(row, col)
    assert vars(view.state) == {"query": token(row, col), "layer": LAYERS - 1, "pinned": token(row, col)}
    assert_paints(view, bare, LAYERS - 1, token(row, col))
    assert_tells(view.told, bare, LAYERS - 1, token(row, col))
    view.slider.focus()
    view.press("Home")
    view.hover(1, 1)
    assert_paints(view, bare, 0, token(1, 1))
    assert_paints(view, bare, 0, token(row, col), "pinned")
    assert_tells(view.told, bare, 0, token(1, 1))


def test_without_a_class_token_home_leads_back_to_the_middle_and_no_key_beyond_the_patches(open_page, bare):
    view = View(open_page(explore(bare).html))
    view.press("Tab", "Tab")
    assert view.page.evaluate("document.activeElement.className") == "vit-picture"
    places = []
    for key in ("ArrowLeft", "ArrowUp", "ArrowUp", "ArrowLeft", "ArrowLeft", "Home", "ArrowDown", "ArrowDown"):
        view.press(key)
        places.append(view.state.query)
    walked = [(1, 1), (0, 1), (0, 1), (0, 0), (0, 0), (1, 2), (2, 2), (2, 2)]
    assert places == [token(*place) for place in walked]
    view.press("Home", "Enter", "ArrowRight")
    assert vars(view.state) == {"query": token(1, 3), "layer": LAYERS - 1, "pinned": MIDDLE}
    assert_paints(view, bare, LAYERS - 1, MIDDLE, "pinned")


@pytest.mark.parametrize(("rows", "cols"), [(1, 2), (2, 1), (2, 3), (4, 4), (1, 6)])
def test_without_a_class_token_the_script_starts_where_the_still_picture_stands(open_page, rows, cols):
    shown = explore(traced(2, HEADS, rows, cols, SIDE, first=0))
    view = View(open_page(shown.html))
    (still,) = re.findall(r"^Where (the patch in row \d+, column \d+) looks", shown.text)
    assert view.told.startswith(f"Block 2, mean of the heads: {still} looks at ")
    assert view.told.endswith(f"everywhere alike would be {1 / (rows * cols) + 1e-9:.3f}.")


def test_weights_of_one_head_without_anything_else_are_alive(open_page, bare):
    weights = bare.attention[1, 0, 2]
    view = View(open_page(explore(weights, bare["input"][0]).html))
    assert view.slider.is_hidden()
    assert view.root.locator("button").is_hidden()
    assert view.root.locator("figcaption:visible").all_inner_texts() == ["head 0"]  # whose mean it is itself
    view.hover(2, 3)
    assert view.told.startswith("The patch in row 2, column 3 looks at ")
    expected = 255 * blend(bare["input"][0], weights[token(2, 3) - 1].unflatten(0, (ROWS, COLS)))
    for painted in view.pixels():
        assert abs(painted[..., :3] - expected).max() <= STEP
    view.press("Tab")
    assert view.page.evaluate("document.activeElement.className") == "vit-picture"


# Several on a page


def test_two_views_on_a_page_do_not_disturb_each_other(open_page, trace):
    other = traced(2, HEADS, ROWS, COLS, SIDE)
    page = open_page(explore(trace).html + explore(other).html)
    one, two = View(page, 0), View(page, 1)
    one.click(1, 1)
    two.picture.focus()
    two.press("ArrowRight", "ArrowRight")
    two.slider.focus()
    two.press("ArrowLeft")
    assert vars(one.state) == {"query": token(1, 1), "layer": 2, "pinned": token(1, 1)}
    assert vars(two.state) == {"query": token(0, 1), "layer": 0, "pinned": None}
    assert_paints(one, trace, 2, token(1, 1))
    assert_paints(two, other, 0, token(0, 1))


def test_the_same_view_twice_is_alive_twice(open_page, trace):
    page = open_page(2 * explore(trace).html)
    one, two = View(page, 0), View(page, 1)
    assert page.locator(".vit-picture").count() == page.locator(".vit-bar").count() == 2
    assert page.locator(".vit-still:visible").count() == 0
    two.hover(2, 1)
    one.slider.focus()
    one.press("Home")
    assert vars(one.state) == {"query": 0, "layer": 0, "pinned": None}
    assert vars(two.state) == {"query": token(2, 1), "layer": 2, "pinned": None}
    assert_paints(one, trace, 0, 0)
    assert_paints(two, trace, 2, token(2, 1))


def test_a_script_that_runs_again_builds_nothing_twice(view, trace):
    view.hover(1, 1)
    view.page.evaluate(
        """() => { const old = document.querySelectorAll(".vit-explorer script")[1];
            for (let time = 0; time < 2; time++) {
              const again = document.createElement("script");
              again.textContent = old.textContent;
              old.replaceWith(again);
              again.replaceWith(old);
            } }"""
    )
    view.page.wait_for_timeout(100)
    assert view.picture.count() == 1
    assert view.state.query == token(1, 1)


def test_a_view_inserted_into_a_running_page_as_notebooks_do_comes_alive(open_page, trace):
    page = open_page("<main></main>")
    page.evaluate(
        """html => { const main = document.querySelector("main");
            main.innerHTML = html;
            for (const old of main.querySelectorAll("script")) {
              const alive = document.createElement("script");
              for (const one of old.attributes) alive.setAttribute(one.name, one.value);
              alive.textContent = old.textContent;
              old.replaceWith(alive);
            } }""",
        explore(trace).html,
    )
    view = View(page)
    view.hover(0, 3)
    assert_paints(view, trace, LAYERS - 1, token(0, 3))


def test_a_page_that_was_saved_alive_is_alive_once_again(open_page, view, trace):
    view.click(1, 1)
    again = View(open_page(view.page.evaluate("document.body.innerHTML")))
    assert (
        again.picture.count() == again.root.locator(".vit-bar").count() == again.root.locator(".vit-text").count() == 1
    )
    assert vars(again.state) == {"query": 0, "layer": LAYERS - 1, "pinned": None}
    again.hover(2, 2)
    assert_paints(again, trace, LAYERS - 1, token(2, 2))


# Time


@pytest.mark.parametrize(("heads", "grid", "side"), [(4, 6, 8), (12, 14, 16)])
def test_the_maps_of_a_patch_are_there_within_a_frame(open_page, heads, grid, side):
    view = View(open_page(explore(traced(1, heads, grid, grid, side)).html))
    assert view.root.locator(".vit-maps canvas").count() == 2 * (heads + 1)

    def times() -> list[float]:
        return view.root.evaluate(
            """(root, patches) => Array.from({ length: 50 }, (_, number) => {
                const start = performance.now();
                root.explorer.look(1 + (37 * number) % patches);
                return performance.now() - start;
            })""",
            grid * grid - 1,  # which has no divisor in common with 37: no query twice in a row
        )

    times()  # until the script is compiled
    rounds = [times()]
    while median(rounds[-1]) > 16 and len(rounds) < 6:  # other processes share the cores
        rounds.append(times())
    best = min(rounds, key=median)
    about = f"{heads} heads, {grid * grid + 1} tokens, {grid * side} px"
    print(f"\n{about}: a look takes {median(best):.1f} ms, at most {max(best):.1f}; round {len(rounds)}")
    assert median(best) <= 16
