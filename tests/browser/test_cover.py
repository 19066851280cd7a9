"""Patches covered and heads silenced under pointer, finger and keys; every answer is that of `intervene`."""

import pytest
import torch

from tests.browser.reader import ask, drag, spot, told
from vit_walkthrough import record
from vit_walkthrough.living import live
from vit_walkthrough.look.intervene import intervene

ROWS, COLS = 3, 5


def place(page, patch: int) -> tuple[float, float]:
    return spot(page.locator(".vit-covering canvas.vit-points").first, *divmod(patch, COLS), ROWS, COLS)


def assert_answers(page, model, image, covered, silenced=()) -> None:
    with torch.no_grad(), intervene(model, covered=covered, silenced=silenced):
        expected = model(image[None])[0].softmax(-1)
    state = ask(page)
    assert sorted(state["covered"]) == sorted(covered)
    assert state["now"] == pytest.approx(expected.tolist(), abs=1e-4)
    assert f"{expected.max():.1%}" in told(page)


def test_clicks_drags_keys_and_heads_change_the_answer_as_in_torch(rounded, images, open_page):
    page = open_page(live("cover", rounded, images[0]).html)
    assert_answers(page, rounded, images[0], [])
    page.mouse.click(*place(page, 6))
    assert_answers(page, rounded, images[0], [6])
    drag(page, place(page, 0), place(page, 4))
    assert_answers(page, rounded, images[0], [6, 0, 1, 2, 3, 4])
    page.locator(".vit-covering canvas.vit-points").first.focus()
    for key in ("ArrowDown", "Enter", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    assert_answers(page, rounded, images[0], [6, 0, 1, 2, 3, 9])
    page.get_by_role("button", name="silence head 2 of block 1").click()
    assert_answers(page, rounded, images[0], [6, 0, 1, 2, 3, 9], [(1, 2)])
    page.get_by_role("button", name="reset").click()
    assert_answers(page, rounded, images[0], [])


def test_strongest_and_weakest_are_the_maps_and_a_finger_covers(rounded, images, open_page):
    with torch.no_grad(), record(rounded) as trace:
        rounded(images[:1])
    ranked = trace.attention[-1, 0, :, 0, 1:].mean(0)
    mask = torch.zeros(12, 20)
    mask[:4, 4:12] = 1
    html = live("cover", rounded, images[0], mask=mask, label=3).html
    page = open_page(html, has_touch=True)
    for name, largest in (("strongest", True), ("weakest", False)):
        page.get_by_role("button", name=name).click()
        best = ranked.topk(5, largest=largest)
        assert_answers(page, rounded, images[0], best.indices.tolist())
        inside = sum(patch in (1, 2) for patch in best.indices.tolist())
        said = told(page)
        assert all(part in said for part in (f"{best.values.sum():.1%}", f"({inside} of them", "is a 3"))
    page.get_by_role("button", name="reset").click()
    page.touchscreen.tap(*place(page, 7))
    assert_answers(page, rounded, images[0], [7])
