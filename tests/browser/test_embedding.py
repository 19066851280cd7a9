"""The picture of one number of a token: its sum is torch's, wherever one points."""

import re

import pytest
import torch

from tests.browser.reader import number, spot, told
from vit_walkthrough import patchify
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.living import live
from vit_walkthrough.weights import load_tiny


def test_sums_and_products_are_torch_s_by_mouse_touch_and_keys(open_page):
    model, image = load_tiny(8, 4), ClutteredDigits("test").sample(1, draw=3)[0][0]
    page = open_page(live("embedding", model, image).html, has_touch=True)
    with torch.no_grad():
        tokens, rows = model.patch_embedding(image[None])[0], patchify(image[None], 8)[0]
    weight, bias = model.patch_embedding.projection.weight, model.patch_embedding.projection.bias
    picture, token, *planes = page.locator("canvas[tabindex]").all()

    def check(patch, chosen):
        page.mouse.move(0, 0)
        said = told(page)
        assert said.startswith(f"Number {chosen} of the token of patch {patch}: ")
        parts = re.search(r"sum of 192 products (\S+) \+ bias (\S+) = (\S+)", said).groups()
        wanted = (weight[chosen] @ rows[patch]).item(), bias[chosen].item(), tokens[patch, chosen].item()
        assert [number(part) for part in parts] == pytest.approx(wanted, abs=0.006)
        sums = page.locator(".vit-embedding-line").last.inner_text().replace("− ", "−").replace("+", " ").split()
        assert sum(map(number, sums)) == pytest.approx(wanted[0], abs=0.016)

    page.mouse.move(*spot(picture, 3, 4, 6, 6))
    page.mouse.move(*spot(token, 2, 5, 4, 16))
    check(22, 37)
    page.touchscreen.tap(*spot(picture, 1, 2, 6, 6))
    page.touchscreen.tap(*spot(token, 0, 0, 4, 16))
    check(8, 0)
    token.press("ArrowDown")
    picture.press("ArrowLeft")
    check(7, 16)
    page.mouse.move(*spot(planes[2], 3, 9 + 5, 8, 26))  # green, row 3, column 5
    said, place = told(page), 64 + 3 * 8 + 5
    assert "green, row 3, column 5" in said
    pixel, filtered = rows[7, place].item(), weight[16, place].item()
    found = re.search(r"has (\S+), the filter (\S+), and their product is (\S+)\.", said).groups()
    assert [number(one) for one in found] == pytest.approx((pixel, filtered, pixel * filtered), abs=6e-4)
