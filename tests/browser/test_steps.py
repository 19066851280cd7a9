"""The seven steps under pointer, finger and keys: every number is torch's, and what is drawn is read."""

import re

import pytest
import torch

from tests.browser.reader import ask, drag, spot, swipe, told
from vit_walkthrough import record
from vit_walkthrough.living import live
from vit_walkthrough.weights import load_tiny

NAMES = ["input", "", "patch_embedding", "class_token", "position_embedding", "blocks.1", "norm"]


@pytest.fixture
def shown(rounded, images, open_page):
    """The page of a random model on a grid of 3 x 5, and what torch computes with the weights that it carries."""
    with torch.no_grad(), record(rounded) as trace:
        rounded(images)
    page = open_page(live("steps", rounded, images[0]).html, reduced_motion="reduce")
    page.locator(".vit-steps-scene").wait_for()
    return page, trace


def test_the_number_under_the_pointer_or_the_keys_is_torchs_in_every_step(shown):
    page, trace = shown
    scene, slider = page.locator(".vit-steps-scene"), page.get_by_role("slider")
    slider.press("ArrowRight")
    for step in range(2, 7):
        slider.press("ArrowRight")
        scene.scroll_into_view_if_needed()
        for across, down in [(0.4, 0.5), (0.9, 0.7)]:
            page.mouse.move(*spot(scene, down - 0.5, across - 0.5, 1, 1))
            seen = ask(page)
            token, place = seen["pointed"]["col"] - (step < 3), seen["pointed"]["row"]
            expected = trace[NAMES[step]][0, token, place].item()
            said = re.match(rf"{re.escape(NAMES[step])}\[{token}, {place}\] = (\S+) of shape", told(page))
            assert seen["time"] == step
            assert float(said[1].replace("−", "-")) == pytest.approx(expected, abs=0.0051)
        scene.press("ArrowLeft")
        assert ask(page)["pointed"] == seen["pointed"] | {"col": seen["pointed"]["col"] - 1}


def test_a_tap_names_a_pixel_and_the_answer_is_torchs(shown, images):
    page, trace = shown
    assert ask(page, "probabilities()") == pytest.approx(trace["output"][0].softmax(-1).tolist(), abs=1e-4)
    assert page.get_by_role("button", name="play").count() == 0  # motion is reduced
    page.get_by_role("button", name="picture").click()
    scene = page.locator(".vit-steps-scene")
    scene.scroll_into_view_if_needed()
    across, _ = spot(scene, 0, 0, 1, 1)
    swipe(page, (across, scene.bounding_box()["y"] + 60))
    pointed = ask(page)["pointed"]
    assert f"red {images[0, 0, pointed['row'], pointed['col']]:.2f}" in told(page)


def test_straight_strokes_are_named_and_an_empty_pad_claims_nothing(images, open_page):
    tiny = load_tiny(8, 4)
    page = open_page(live("steps", tiny, torch.rand(3, 48, 48)).html)
    page.get_by_role("button", name="draw your own").click()
    pad = page.locator(".vit-steps-pad canvas").first
    for digit, strokes in {1: [(0.5, 0.15), (0.5, 0.85)], 7: [(0.25, 0.2), (0.7, 0.2), (0.45, 0.85)]}.items():
        page.get_by_role("button", name="clear").click()
        assert "is empty" in told(page)
        assert not page.locator(".vit-steps-answer, .vit-steps-scene").locator("visible=true").count()
        drag(page, *(spot(pad, down - 0.5, across - 0.5, 1, 1) for across, down in strokes))
        assert_reads(page, tiny, digit)
    for digit in (1, 4, 7):
        page.get_by_role("button", name=str(digit), exact=True).press("Enter")
        assert_reads(page, tiny, digit)


def assert_reads(page, model, digit: int) -> None:
    said, numbers = ask(page, "probabilities()"), ask(page, "image().numbers.join()")
    with torch.no_grad():
        expected = model(torch.tensor([float(one) for one in numbers.split(",")]).reshape(1, 3, 48, 48))[0].softmax(-1)
    assert said == pytest.approx(expected.tolist(), abs=1e-4)
    assert expected.argmax() == digit
    assert f"says {digit}, with {expected.max():.1%}" in told(page)
