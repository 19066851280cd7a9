"""The stream read after every block while parts are skipped, alone or unnormed: as torch has it."""

import pytest
import torch

from tests.browser.reader import ask, told
from tests.living.node import eight_bit
from vit_walkthrough import VisionTransformer, ViTConfig, record
from vit_walkthrough.living import live
from vit_walkthrough.look.intervene import intervene


def assert_reads(page, model, image, **options) -> None:
    """What is said at every station, and how long is what is read there."""
    shown = ask(page, "readings()")
    names = ["blocks.0.norm_1.input", *(f"blocks.{block}" for block in range(model.config.depth))]
    with torch.no_grad(), intervene(model, **options):
        with record(model, *names) as trace:
            model(image[None])
        stations = [trace[name] for name in names]
        said = [model.head(model.pool(model.norm(tokens)))[0].softmax(-1) for tokens in stations]
        lengths = [model.pool(tokens)[0].norm().item() for tokens in stations]
    for station, (one, expected, length) in enumerate(zip(shown, said, lengths, strict=True)):
        assert one["said"] == pytest.approx(expected.tolist(), abs=2e-4), station
        assert one["length"] == pytest.approx(length, rel=1e-3)
        words = page.locator(".vit-stream-words").nth(station).inner_text()
        assert f"{expected.max():.1%}" in words
        assert f"length {length:.2f}" in words
    assert f"{said[-1].max():.1%}" in told(page)


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_every_station_says_what_torch_says(config, images, randomize, open_page, pooling):
    model = eight_bit(randomize(VisionTransformer(ViTConfig(**(vars(config) | {"pooling": pooling})))))
    page, image = open_page(live("stream", model, images[0]).html, has_touch=True), images[0]
    page.locator(".vit-stream").wait_for()
    assert_reads(page, model, image)
    attention, mlp = (page.locator(".vit-stream-half", has_text=name) for name in ("attention", "MLP"))
    attention.nth(1).click()
    assert_reads(page, model, image, skipped=["blocks.1.attention"])
    mlp.nth(0).tap()
    mlp.nth(0).press("Enter")
    assert_reads(page, model, image, skipped=["blocks.1.attention"], alone=["blocks.0.mlp"])
    page.get_by_role("button", name="norm before attention of block 0").click()
    page.get_by_role("button", name="the last norm").press("Space")
    unnormed = ["blocks.0.norm_1", "norm"]
    assert_reads(page, model, image, skipped=["blocks.1.attention"], alone=["blocks.0.mlp"], unnormed=unnormed)
    page.get_by_role("button", name="reset").click()
    assert_reads(page, model, image)
