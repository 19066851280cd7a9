"""The hover view under a real pointer and real keys, on a grid that is not square; its pixels against `plots.blend`."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from tests.browser import jupyter
from vit_walkthrough.draw import blend
from vit_walkthrough.living import explore

ROWS, COLS, SIDE, BLOCKS, HEADS = 3, 5, 4, 3, 4
STEP = 3.3  # of 255, between neighbours in the palette, and half of one for rounding: weights are carried in 8 bits


def random_attention(first: int = 1) -> torch.Tensor:
    """(blocks 1 heads tokens tokens), with or without a class token, which in one head takes nearly all."""
    tokens = ROWS * COLS + first
    weights = (2 * torch.randn(BLOCKS, 1, HEADS, tokens, tokens)).softmax(dim=-1)
    if first:
        weights[1, 0, 2, :, 1:] *= 1e-3
        weights[1, 0, 2, :, 0] = 1 - weights[1, 0, 2, :, 1:].sum(dim=-1)
    return weights


@pytest.fixture
def image():
    return torch.rand(3, ROWS * SIDE, COLS * SIDE)


@pytest.fixture
def attention():
    return random_attention()


class View(jupyter.View):
    """One explorer on a page, as its reader sees it."""

    def __init__(self, page, number: int = 0):
        super().__init__(page, page.locator(".vit-explorer").nth(number))
        self.told, self.slider = self.root.locator(".vit-text"), self.root.locator("input[type=range]")
        self.button = self.root.get_by_role("button", name="class token")

    @property
    def state(self) -> tuple:
        """The query, the block, and what is pinned."""
        state = self.root.evaluate("root => root.explorer.state()")
        return state["query"], state["block"], state["pinned"]

    def place_of(self, row: int, col: int) -> tuple[float, float]:
        box = self.picture.bounding_box()
        return box["x"] + (col + 0.5) * box["width"] / COLS, box["y"] + (row + 0.5) * box["height"] / ROWS

    def hover(self, row: int, col: int) -> None:
        self.page.mouse.move(*self.place_of(row, col))

    def click(self, row: int, col: int) -> None:
        self.page.mouse.click(*self.place_of(row, col))

    def swipe(self, *places: tuple[float, float]) -> None:
        """Press a finger at the first place, move it along the others and lift it at the last."""
        touch = self.page.context.new_cdp_session(self.page)
        for number, (across, down) in enumerate(places):
            point = {"touchPoints": [{"x": across, "y": down}], "type": "touchMove" if number else "touchStart"}
            touch.send("Input.dispatchTouchEvent", point)
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def pixels(self, css: str = 'canvas[aria-label^="now, "]') -> np.ndarray:
        """The painted maps, the mean last: (heads + 1, height, width, 3); or another canvas."""
        shown = self.root.locator(css).evaluate_all("list => list.map((one) => one.toDataURL())")
        pictures = [Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))) for address in shown]
        assert all(picture.getextrema()[3] == (255, 255) for picture in pictures), "a picture that is not opaque"
        return np.stack([np.asarray(picture)[..., :3].astype(float) for picture in pictures])


def token(row: int, col: int) -> int:
    """How a view counts queries: patches from 1 on, also where there is no class token."""
    return 1 + row * COLS + col


def assert_shows(view: View, image, attention, query: int, block: int = BLOCKS - 1, what: str = "now") -> None:
    """The view paints what `plots` paints, and tells the strongest keys of the mean."""
    first = attention.shape[-1] - ROWS * COLS
    weights = attention[block, 0, :, query - 1 + first]
    maps = [*weights, weights.mean(dim=0)]
    expected = 255 * np.stack([blend(image, each[first:].unflatten(0, (ROWS, COLS))) for each in maps])
    painted = view.pixels(f'canvas[aria-label^="{what}, "]')
    assert painted.shape == expected.shape
    assert abs(painted - expected).max() <= STEP
    names = ["the class token"][:first]
    names += [f"the patch in row {row}, column {col}" for row in range(ROWS) for col in range(COLS)]
    told = view.told.inner_text() if what == "now" else view.pinned.locator("div").first.inner_text()
    start = ("" if what == "now" else "Pinned. ") + f"Block {block + 1}, mean of the heads: {names[query - 1 + first]}"
    assert told.startswith(start)
    assert f"alike would be {1 / len(names) + 1e-9:.3f}." in told
    found = re.findall(r"(the [^()]*) \((\d\.\d{3})\)", told[len(start) :].removeprefix(" looks at "))
    values = maps[-1].sort(descending=True).values[:5].tolist()
    assert [float(number) for _, number in found] == pytest.approx(values, abs=0.0015)
    assert [maps[-1][names.index(name.strip())].item() for name, _ in found] == pytest.approx(values, abs=0.0015)


@pytest.fixture
def view(open_page, attention, image):
    return View(open_page(explore(attention, image).html))


@pytest.mark.parametrize(("first", "home"), [(1, 0), (0, token(1, 2))], ids=["class token", "none"])
def test_the_maps_of_the_home_query_replace_the_still_and_every_patch_has_its_own(open_page, image, first, home):
    attention = random_attention(first)
    view = View(open_page(explore(attention, image).html))
    assert view.root.locator(".vit-still").is_hidden()
    assert view.root.locator("figcaption:visible").all_inner_texts() == ["head 0", "head 1", "head 2", "head 3", "mean"]
    assert (view.state, view.button.count()) == ((home, BLOCKS - 1, None), first)
    assert_shows(view, image, attention, home)
    for row, col in ((0, 0), (2, 4), (1, 3)):
        view.hover(row, col)
        assert_shows(view, image, attention, token(row, col))
    view.picture.focus()
    view.press("Home")
    assert view.state == (home, BLOCKS - 1, None)


def test_the_picture_shows_the_image_itself_and_the_query_outlined(view, image):
    shown = view.pixels(".vit-picture")[0]
    zoom = shown.shape[1] // (COLS * SIDE)
    middles = shown[zoom // 2 :: zoom, zoom // 2 :: zoom]
    np.testing.assert_allclose(middles, 255 * image.permute(1, 2, 0), atol=0.51)
    edge = round(1.5 * SIDE * zoom), 3 * SIDE * zoom
    view.hover(1, 3)
    assert list(view.pixels(".vit-picture")[0][edge]) == [0xCC, 0x79, 0xA7]


def test_without_scripts_the_still_picture_stands_with_its_text(open_page, attention, image):
    shown = explore(attention, image)
    page = open_page(shown.html, java_script_enabled=False)
    assert page.get_by_role("img", name=shown.text, exact=True).is_visible()
    assert page.locator("canvas").count() == 0


def test_a_click_pins_a_patch_beside_the_next_in_every_block_and_a_second_lets_it_go(view, attention, image):
    view.click(1, 3)
    view.hover(2, 0)
    assert view.state == (token(2, 0), BLOCKS - 1, token(1, 3))
    box = view.slider.bounding_box()
    for part, block in ((0.05, 0), (0.5, 1), (0.95, 2)):
        view.page.mouse.click(box["x"] + part * box["width"], box["y"] + box["height"] / 2)
        assert_shows(view, image, attention, token(2, 0), block)
        assert_shows(view, image, attention, token(1, 3), block, "pinned")
    view.click(0, 1)
    assert view.state[2] == token(0, 1)
    view.click(0, 1)
    assert view.state[2] is None
    view.button.click()
    assert (view.state[0], view.button.get_attribute("aria-pressed")) == (0, "true")


def test_a_finger_asks_at_its_second_tap_pins_and_wanders_without_scrolling(open_page, attention, image):
    view = View(open_page(explore(attention, image).html + '<p style="height:3000px">', has_touch=True))
    for place, pinned in (((2, 3), None), ((2, 3), token(2, 3)), ((0, 1), token(2, 3)), ((0, 1), token(0, 1))):
        view.page.touchscreen.tap(*view.place_of(*place))
        assert view.state == (token(*place), BLOCKS - 1, pinned)
    view.swipe(*(view.place_of(*place) for place in ((2, 3), (1, 3), (0, 3), (0, 2))))
    assert view.state == (token(0, 2), BLOCKS - 1, token(0, 1))
    across, down = view.place_of(0, 2)
    view.swipe((across, down), (across + 6, down + 5), (across - 4, down + 3))  # it trembles
    assert view.state[2] == token(0, 2)
    assert view.page.evaluate("scrollY") == 0


def test_the_arrow_keys_walk_across_no_edge_and_enter_and_space_pin_until_escape(view, attention, image):
    view.page.evaluate("window.heard = []; document.addEventListener('keydown', (event) => heard.push(event.key))")
    view.press("Tab", "Tab", "Tab")  # the slider, the button, the picture
    walk = {"Right Up": (0, 0), "Right Down Left": (1, 0), "Left Right Down": (2, 1), "Down Left": (2, 0)}
    for keys, place in walk.items():
        view.press(*(f"Arrow{key}" for key in keys.split()))
        assert view.state[0] == token(*place)
    view.press("Enter", "ArrowRight")
    assert view.state == (token(2, 1), BLOCKS - 1, token(2, 0))
    assert_shows(view, image, attention, token(2, 0), what="pinned")
    view.press("Escape", " ")
    assert view.state[2] == token(2, 1)
    view.press(" ", "a", "Shift+Enter", "Control+ArrowDown")  # what is not used reaches the page
    assert view.state == (token(2, 1), BLOCKS - 1, None)
    heard = view.page.evaluate("heard.filter((key) => !['Tab', 'Shift', 'Control'].includes(key))")
    assert heard == ["a", "Enter", "ArrowDown"]
    assert view.page.evaluate("[scrollX, scrollY]") == [0, 0]


REVIVE = """html => { // as notebooks do
    const main = document.querySelector("main");
    if (html) main.innerHTML = html;
    for (const old of document.querySelectorAll(".vit-explorer script")) {
      const alive = document.createElement("script");
      for (const one of old.attributes) alive.setAttribute(one.name, one.value);
      alive.textContent = old.textContent;
      old.replaceWith(alive);
    } }"""


def test_views_inserted_into_a_page_run_again_or_saved_alive_are_alive_once_each(open_page, attention, image):
    page = open_page("<main></main>")
    page.evaluate(REVIVE, 2 * explore(attention, image).html)  # the same twice
    view, other = View(page), View(page, 1)
    view.click(0, 3)
    other.slider.focus()
    other.press("Home")
    page.evaluate(REVIVE, "")  # its scripts run again
    page.wait_for_timeout(100)
    assert (view.state, other.state) == ((token(0, 3), 2, token(0, 3)), (0, 0, None))
    again = View(open_page(page.evaluate("document.body.innerHTML")))
    for alive in (view, other, again):
        assert [alive.root.locator(css).count() for css in (".vit-picture", ".vit-bar", ".vit-text")] == [1, 1, 1]
    assert again.state == (0, BLOCKS - 1, None)
    again.hover(2, 2)
    assert_shows(again, image, attention, token(2, 2))
