"""The picture `parameters`: its counts are torch's and the paper's, and every part can be reached."""

import pytest
import torch

from tests.browser.reader import ask, told
from tests.model.test_vit import PUBLISHED
from vit_walkthrough import VisionTransformer, ViTConfig, count_parameters
from vit_walkthrough.living import live

TINY = ViTConfig((32, 48), 8, channels=1, dim=64, depth=3, heads=4, hidden=96, classes=10)


def test_published_sizes_have_the_published_counts(open_page):
    page = open_page(live("parameters", ViTConfig()).html)
    for name, (_, count) in PUBLISHED.items():
        size, patch = name.split("/")
        page.get_by_role("button", name=size, exact=True).click()
        page.get_by_role("button", name=patch, exact=True).click()
        assert page.locator(".vit-parameters-sum").inner_text() == f"{count:,} numbers"
        assert ask(page, "state().total") == count


@pytest.mark.parametrize("positions", ["learned", "sincos", "none"])
def test_every_part_is_a_tensor_of_the_model_and_has_its_area(open_page, positions):
    config = ViTConfig(**vars(TINY) | {"positions": positions})
    page = open_page(live("parameters", config).html)
    found = ask(page, "state().areas.map((one) => ({...one, ...one.part, row: null, part: null}))")
    with torch.device("meta"):
        model = VisionTransformer(config)
    shapes = {name: list(tensor.shape) for name, tensor in model.named_parameters() if tensor.requires_grad}
    assert {one["name"].replace("*", str(one["block"])): one["shape"] for one in found} == shapes
    whole, total = sum(one["width"] * one["height"] for one in found), count_parameters(model)
    for one in found:
        assert one["width"] * one["height"] / whole == pytest.approx(one["count"] / total, rel=1e-6)


def test_mouse_touch_and_arrow_keys_choose_a_part(open_page):
    page = open_page(live("parameters", TINY).html, has_touch=True)
    canvas = page.locator(".vit-points")
    canvas.focus()
    for _ in range(7):  # from nothing to qkv, the seventh part
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert told(page).startswith("blocks.1.attention.qkv.weight has the shape (192, 64): 12,288 numbers")
    area = ask(page, "state().areas.find(({part, block}) => part.label === 'expand' && block === 2)")
    box = canvas.bounding_box()
    middle = box["x"] + area["left"] + area["width"] / 2, box["y"] + area["top"] + area["height"] / 2
    page.mouse.move(*middle)
    assert told(page).startswith("blocks.2.mlp.expand.weight has the shape (96, 64)")
    assert "all 3 blocks has 18,432" in told(page)
    page.get_by_role("button", name="class token").tap()  # far too small to be hit on the map
    assert told(page).startswith("class_token.token has the shape (1, 1, 64): 64 numbers")
    page.touchscreen.tap(*middle)
    assert told(page).startswith("blocks.2.mlp.expand.weight")
    assert page.locator(".vit-parameters-list [aria-pressed=true]").inner_text().startswith("expand")
