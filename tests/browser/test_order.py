"""The picture of moved patches: the answer that it shows is intervene's, however they were moved."""

import pytest
import torch

from tests.browser.reader import ask, listen, spot, swipe, told
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.living import live
from vit_walkthrough.look.intervene import intervene
from vit_walkthrough.weights import load_tiny

MODEL, IMAGE = load_tiny(8, 4), ClutteredDigits("test").sample(1, draw=3)[0][0]


class View:
    def __init__(self, page):
        self.page, self.picture = page, page.locator("canvas[tabindex]")

    def spot(self, patch: int):
        return spot(self.picture, *divmod(patch, 6), 6, 6)

    def expect(self, places: dict | None, positions: bool = True):
        """Patches by the place in which they are, all others at home; and the answer to exactly that."""
        state = ask(self.page)
        patches, shown, was = state["order"], state["is"], state["was"]
        assert places is None or patches == [places.get(place, place) for place in range(36)]
        with torch.no_grad(), intervene(MODEL, order=patches, positions=positions):
            wanted = MODEL(IMAGE[None])[0].softmax(-1)
        assert shown == pytest.approx(wanted.tolist(), abs=2e-4)  # of an image in 16 bits
        bars = self.page.locator(".vit-bars").first.locator(".vit-number").all_inner_texts()
        assert [float(bar[:-1]) for bar in bars] == pytest.approx((100 * wanted).tolist(), abs=0.08)
        return patches, max(abs(one - other) for one, other in zip(shown, was, strict=True))

    def swipe(self, *patches):
        swipe(self.page, *map(self.spot, patches))


def test_patches_are_swapped_by_mouse_finger_and_keys(open_page):
    page = open_page(live("order", MODEL, IMAGE).html + '<p style="height:3000px">', has_touch=True)
    view = View(page)
    page.mouse.move(*view.spot(14))
    page.mouse.down()
    page.mouse.move(*view.spot(3))
    view.expect({3: 14, 14: 3})  # while it is dragged
    page.mouse.up()
    page.touchscreen.tap(*view.spot(0))
    page.touchscreen.tap(*view.spot(8))
    view.expect({3: 14, 14: 3, 0: 8, 8: 0})
    view.swipe(20, 21, 28)
    view.expect({3: 14, 14: 3, 0: 8, 8: 0, 20: 28, 28: 20})
    assert page.evaluate("scrollY") == 0
    view.swipe(33, 27, 21, 15)  # up at once: the page scrolls, and no patch moves
    page.evaluate("scrollTo(0, 0)")
    heard = listen(page)
    page.get_by_role("button", name="put back").click()
    for key in ("Home", "Enter", "ArrowRight", "ArrowDown", "Enter", "ArrowRight", "Enter", "ArrowUp", "Escape"):
        view.picture.press(key)
    view.expect({0: 7, 7: 0})
    assert heard() == []


def test_without_positions_no_shuffle_changes_the_answer(open_page):
    page = open_page(live("order", MODEL, IMAGE).html)
    view = View(page)
    page.get_by_role("button", name="shuffle").click()
    page.get_by_role("button", name="off").click()
    patches, change = view.expect(None, positions=False)
    assert sorted(patches) == list(range(36)) != patches
    said = told(page)
    assert "the same to rounding" in said
    assert change <= float(said.split("more than ")[1].rstrip(".")) < 1e-4
