"""The picture `run`: along the curve it shows the numbers that were recorded, by mouse, finger, arrow keys and play."""

import pytest
import torch

from tests.browser.reader import told
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.living import live

STATE = "document.querySelector('.vit-living').living.state()"


def moments(**last) -> list[dict]:
    """Moments of 4 images before steps 0, 2 and 4 and after the last, 5, in which something may differ."""
    dice = torch.Generator().manual_seed(0)
    found = [
        dict(step=step, loss=2.3 - step / 3, accuracy=0.1 + step / 7)
        | dict(probabilities=(2 * torch.randn(4, 10, generator=dice)).softmax(-1))
        | dict(maps=torch.rand(4, 16, generator=dice), filters=torch.randn(5, 432, generator=dice))
        for step in (0, 2, 4, 5)
    ]
    return [*found[:-1], found[-1] | last]


def assert_shows(page, moment, labels):
    said, columns = told(page), page.locator(".vit-run-column").all_inner_texts()
    assert f"Step {moment['step']} of 5: the loss is {moment['loss']:.2f}, and {moment['accuracy']:.1%}" in said
    best = moment["probabilities"].argmax(-1)
    assert f"names {(best == labels).sum()} of these 4 pictures right" in said
    for text, now, label, probabilities in zip(columns, best, labels, moment["probabilities"], strict=True):
        assert text.startswith(f"✓ says {now}" if now == label else f"✗ says {now}, not {label}")
        shown = float(text.split()[-3].rstrip("%"))
        assert shown == pytest.approx(100 * probabilities[label].item(), abs=0.051)


def test_mouse_touch_keys_and_play_go_along_the_recorded_moments(open_page):
    recorded, (images, labels, masks) = moments(), ClutteredDigits("test").sample(4, draw=0)
    page = open_page(live("run", recorded, images, labels, masks=masks).html, has_touch=True)
    assert_shows(page, recorded[3], labels)
    curve = page.locator("svg").nth(1).bounding_box()
    x = [curve["x"] + curve["width"] * (46 + 400 * step / 5) / 460 for step in (0, 2, 4, 5)]  # as in PLOT
    page.mouse.move(x[1] + 3, curve["y"] + 60)
    assert_shows(page, recorded[1], labels)
    page.touchscreen.tap(x[2], curve["y"] + 60)
    assert_shows(page, recorded[2], labels)
    page.locator("[role=slider]").press("Home")
    assert_shows(page, recorded[0], labels)
    page.get_by_role("button", name="play").click()
    page.wait_for_function(f"{STATE}.moment === 3 && !{STATE}.playing")
    assert_shows(page, recorded[3], labels)
