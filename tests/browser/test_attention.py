"""Attention under a real pointer and real keys, on a grid that is not square; its pixels against `plots.blend`."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from tests.browser import jupyter
from tests.browser.reader import FRAMES, listen, spot, swipe
from vit_walkthrough.draw import blend
from vit_walkthrough.living import live

ROWS, COLS, SIDE, BLOCKS, HEADS = 3, 5, 4, 3, 4
DICE = torch.Generator().manual_seed(0)
STEP = 6.6  # of 255, between two neighbours in the palette: weights are carried in 8 bits of their own peak


def random_attention(first: int = 1) -> torch.Tensor:
    """(blocks 1 heads tokens tokens), with or without a class token, which in one head takes nearly all."""
    tokens = ROWS * COLS + first
    weights = (2 * torch.randn(BLOCKS, 1, HEADS, tokens, tokens, generator=DICE)).softmax(dim=-1)
    if first:
        weights[1, 0, 2, :, 1:] *= 1e-3
        weights[1, 0, 2, :, 0] = 1 - weights[1, 0, 2, :, 1:].sum(dim=-1)
    return weights


IMAGE, ATTENTION = torch.rand(3, ROWS * SIDE, COLS * SIDE, generator=DICE), random_attention()


class View(jupyter.View):
    def __init__(self, page):
        super().__init__(page, page.locator(".vit-living"))
        self.told = self.root.locator(".vit-text")
        self.star = self.root.get_by_role("button", name="class token")

    @property
    def state(self) -> tuple:
        """The query (-1 is the class token), the block, and what is pinned."""
        self.page.evaluate(FRAMES)
        state = self.root.evaluate("root => root.living.state()")
        return state["query"], state["block"], state["pinned"]

    def place_of(self, row: int, col: int) -> tuple[float, float]:
        return spot(self.picture, row, col, ROWS, COLS)

    def hover(self, row: int, col: int) -> None:
        self.page.mouse.move(*self.place_of(row, col))

    def click(self, row: int, col: int) -> None:
        self.page.mouse.click(*self.place_of(row, col))

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def pixels(self) -> np.ndarray:
        """The painted maps, one number for each pixel of the image: (mean, heads; height, width, 3)."""
        self.page.evaluate(FRAMES)
        css = 'canvas[aria-label^="where the query looks"]:not([aria-label*="pinned"])'
        shown = self.root.locator(css).evaluate_all("list => list.map((one) => one.toDataURL())")
        pictures = [Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))) for address in shown]
        assert all(picture.getextrema()[3] == (255, 255) for picture in pictures), "a picture that is not opaque"
        small = [picture.convert("RGB").resize((COLS * SIDE, ROWS * SIDE), Image.NEAREST) for picture in pictures]
        return np.stack([np.asarray(picture, dtype=float) for picture in small])


def names(first: int) -> list[str]:
    patches = [f"the patch in row {row}, column {col}" for row in range(ROWS) for col in range(COLS)]
    return ["the class token"][:first] + patches


def assert_shows(view: View, attention, query: int, block: int = BLOCKS - 1) -> None:
    """The maps are painted on one scale, in the colours of `plots`, and the strongest keys of the mean are told."""
    first = attention.shape[-1] - ROWS * COLS
    weights = attention[block, 0, :, query + first]
    maps = torch.stack([weights.mean(dim=0), *weights])[:, first:].unflatten(1, (ROWS, COLS))
    ground = torch.cat([IMAGE, torch.zeros(3, ROWS * SIDE, SIDE)], dim=2)
    for shown, values in zip(view.pixels(), maps, strict=True):
        # blend's scale ends at the largest of its map: a column more, with the largest of all, and cut off again
        wide = torch.cat([values, torch.full((ROWS, 1), maps.max())], dim=1)
        gap = abs(shown - 255 * blend(ground, wide)[:, : COLS * SIDE]).max(axis=-1)
        frame = np.zeros_like(gap, dtype=bool)  # the query is framed: what its line covers is not compared
        if query >= 0:
            top, left = (SIDE * place for place in divmod(query, COLS))
            frame[max(0, top - 1) : top + SIDE + 1, max(0, left - 1) : left + SIDE + 1] = True
            frame[top + 1 : top + SIDE - 1, left + 1 : left + SIDE - 1] = False
        assert gap[~frame].max() <= STEP
    told = view.told.inner_text()
    assert told.startswith(f"Block {block}, mean of the heads: {names(first)[query + first]} looks most at ")
    found = re.findall(r"(the patch [^()]*) \(([\d.e-]+)\)", told.partition("looks most at")[2])
    mean, shares = maps[0].flatten(), [float(share) for _, share in found]
    assert shares == pytest.approx(mean.sort(descending=True).values[:5].tolist(), rel=0.08)
    assert [mean[names(0).index(name)].item() for name, _ in found] == pytest.approx(shares, rel=0.08)


@pytest.fixture
def view(open_page):
    return View(open_page(live("attention", ATTENTION, IMAGE).html))


@pytest.mark.parametrize(("first", "home"), [(1, -1), (0, 7)], ids=["class token", "none"])
def test_the_maps_of_the_home_query_replace_the_still_and_every_patch_has_its_own(open_page, first, home):
    attention = random_attention(first)
    view = View(open_page(live("attention", attention, IMAGE).html))
    assert view.root.locator(".vit-still").is_hidden()
    assert (view.state, view.star.count()) == ((home, BLOCKS - 1, None), first)
    assert_shows(view, attention, home)
    for row, col in ((0, 0), (2, 4), (1, 3)):
        view.hover(row, col)
        assert_shows(view, attention, row * COLS + col)
    for block in range(BLOCKS):
        view.root.get_by_role("group", name="block").get_by_role("button", name=str(block)).click()
        assert_shows(view, attention, 1 * COLS + 3, block)
    view.picture.focus()
    view.press("Home")
    assert view.state == (home, BLOCKS - 1, None)


def test_a_click_pins_a_patch_beside_the_next_and_a_second_lets_it_go(view):
    view.click(1, 3)
    view.hover(2, 0)
    assert view.state == (10, BLOCKS - 1, 8)
    pinned = view.root.locator("figcaption", has_text="pinned patch 8")
    boxes = [one.bounding_box() for one in (view.picture, pinned)]
    assert boxes[1]["y"] < boxes[0]["y"] + boxes[0]["height"] + 60, "the comparison stands beside, not below"
    for now in (1, None):
        view.click(0, 1)
        assert view.state[2] == now
    assert pinned.is_hidden()
    view.star.click()
    assert (view.state[0], view.star.get_attribute("aria-pressed")) == (-1, "true")


def test_pointing_at_a_map_says_the_number_of_the_patch_there(view):
    map_of_head = view.root.locator('canvas[aria-label="where the query looks, head 2"]')
    view.page.mouse.move(*spot(map_of_head, 2, 0, ROWS, COLS))
    assert view.state  # a frame later
    given, told = ATTENTION[-1, 0, :, 0, 11], view.told.inner_text()
    assert told.startswith("The patch in row 2, column 0 gets ")
    shares = [float(one) for one in re.findall(r"([\d.]+), [\d.]+ times", told)]
    assert shares == pytest.approx([given.mean().item(), given.max().item()], rel=0.06)
    assert f"Head {given.argmax()}" in told
    view.page.mouse.move(0, 0)
    assert view.state
    assert "looks most at" in view.told.inner_text()


def test_a_finger_pins_at_its_second_tap_and_the_page_scrolls_over_the_picture(open_page):
    page = open_page(live("attention", ATTENTION, IMAGE).html + '<p style="height:3000px">', has_touch=True)
    view = View(page)
    for place, pinned in (((2, 3), None), ((2, 3), 13), ((0, 1), 13), ((0, 1), 1)):
        page.touchscreen.tap(*view.place_of(*place))
        assert view.state == (place[0] * COLS + place[1], BLOCKS - 1, pinned)
    across, down = view.place_of(2, 2)
    swipe(page, (across, down), (across, down - 40), (across, down - 90), (across, down - 140))
    page.wait_for_function("scrollY > 20")


def test_the_arrow_keys_walk_across_no_edge_and_enter_and_space_pin_until_escape(view):
    heard = listen(view.page)
    view.picture.focus()
    walk = {"Right Up": 0, "Right Down Left": 5, "Left Right Down": 11, "Down Left": 10}
    for keys, query in walk.items():
        view.press(*(f"Arrow{key}" for key in keys.split()))
        assert view.state[0] == query
    view.press("Enter", "ArrowRight")
    assert view.state == (11, BLOCKS - 1, 10)
    view.press("Escape", " ")
    assert view.state[2] == 11
    view.press(" ", "a", "Shift+Enter", "Control+ArrowDown")  # what is not used reaches the page
    assert view.state == (11, BLOCKS - 1, None)
    assert [key for key in heard() if key not in ("Shift", "Control")] == ["a", "Enter", "ArrowDown"]
    assert view.page.evaluate("[scrollX, scrollY]") == [0, 0]


def test_data_that_cannot_be_read_are_told_and_the_still_stays(open_page):
    page = open_page(live("attention", ATTENTION, IMAGE).html.replace('"rows":3', '"rows":'))
    page.get_by_role("alert").wait_for()
    assert "does not answer" in page.get_by_role("alert").inner_text()
    assert page.locator(".vit-still").is_visible()
