"""What the panels over trained models say and show, computed again by other means."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.widgets.panels import address, carried, noise, numbers, turn
from vit_walkthrough import VisionTransformer, data, record
from vit_walkthrough.model.tokens import resample_positions
from vit_walkthrough.weights import bundled, load_tiny
from vit_walkthrough.weights.checkpoint import load_checkpoint
from vit_walkthrough.widgets import explore_resolution, explore_vit


def digit(place: int):
    """The test image at a place, in batches of eight as the notebooks draw them."""
    return [part[[place % 8]] for part in data.ClutteredDigits("test").sample(8, draw=place // 8)]


def attention_of(model, images: torch.Tensor) -> torch.Tensor:
    """(blocks, batch, heads, tokens, tokens)"""
    with torch.no_grad(), record(model) as trace:
        model(images)
    return torch.stack([trace[f"blocks.{block}.attention.weights"] for block in range(len(model.blocks))])


def share_inside(weights, mask) -> float:
    """The share of a map of patches (patches,) on the mask, counted pixel by pixel, in per cent."""
    side = round(len(weights) ** 0.5)
    pixels = np.kron(np.asarray(weights).reshape(side, side), np.ones((48 // side, 48 // side)))
    return 100 * pixels[np.asarray(mask)].sum() / pixels.sum()


def best(probabilities: torch.Tensor) -> list[float]:
    """The likeliest class, and how likely it is in per cent."""
    return [probabilities.argmax().item(), 100 * probabilities.max().item()]


@torch.no_grad()
def right(model, images: torch.Tensor, labels: torch.Tensor) -> float:
    return 100 * (model(images).argmax(-1) == labels).float().mean().item()


def assert_shows(panel, model, image: torch.Tensor) -> torch.Tensor:
    """The picture carries this image, and what the model makes of it. Returns the probabilities."""
    shown = carried(panel.figure)
    np.testing.assert_allclose(shown["image"] / 255, image[0].permute(1, 2, 0), atol=0.501 / 255)
    expected = attention_of(model, image)[:, 0].numpy()
    np.testing.assert_allclose(shown["weights"], expected, atol=0.51 / 255)
    logits = model(image).detach()[0]
    np.testing.assert_allclose(shown["logits"], logits, atol=1e-5)
    return logits.softmax(-1)


@pytest.mark.parametrize("kind", ["resampled", "cut or filled up"])
def test_explore_resolution_reads_digits_at_another_size(kind):
    panel, trained = explore_resolution(), load_tiny(8, 4)
    learned = trained.position_embedding.positions.detach()
    for place, size in enumerate((24, 96)):
        turn(panel, place=place, size=size, kind=kind)
        side = size // 8
        positions = torch.zeros(1, side**2 + 1, 64)
        positions[:, :37] = learned[:, : side**2 + 1]
        if kind == "resampled":
            positions = resample_positions(learned, side, side)
        model = VisionTransformer(replace(trained.config, image_size=size)).eval()
        model.load_state_dict(trained.state_dict() | {"position_embedding.positions": positions})
        (image, label, _), (images, labels, _) = digit(place), data.ClutteredDigits("test").sample(64, draw=0)
        resized = (F.interpolate(each, size, mode="bicubic", antialias=True) for each in (image, images))
        image, images = (each.clamp(0, 1) for each in resized)
        expected = assert_shows(panel, model, image)
        pattern = rf"^An? (\d) at (\d+) .* 37 positions, {kind}, serve (\d+) .* (\d) \(([\d.]+)%\)\. .* (\d+)% of 64"
        said = numbers(panel.text, pattern)
        assert said[:5] == pytest.approx([label.item(), size, side**2 + 1, *best(expected)], abs=0.06)
        assert said[5] == pytest.approx(right(model, images, labels), abs=0.51)


@pytest.mark.parametrize(("place", "patch_size", "heads"), [(0, 8, 4), (11, 12, 8)])
def test_explore_vit_shows_where_it_looked(place, patch_size, heads):
    panel = explore_vit()
    turn(panel, chosen=("digit", place), patch_size=patch_size, heads=heads)
    image, label, mask = digit(place)
    model, facts = load_checkpoint(bundled()[patch_size, heads])
    probabilities, seen = assert_shows(panel, model, image), attention_of(model, image)[-1, 0, :, 0, 1:].mean(0)
    pattern = (
        r"This is an? (\d)\. .* (\d) \(([\d.]+)%\).* (\d+)% of the picture, gets (\d+)% .* ([\d.]+)% of ([\d,]+) unseen"
    )
    said = numbers(panel.text, pattern)
    assert said[:3] == pytest.approx([label.item(), *best(probabilities)], abs=0.06)
    assert said[3:5] == pytest.approx([100 * mask.float().mean().item(), share_inside(seen, mask[0])], abs=0.51)
    assert said[5:] == pytest.approx([100 * facts["test_accuracy"], facts["images"]], abs=0.051)


def test_of_a_photo_and_of_ones_own_picture_explore_vit_says_only_what_the_model_says():
    panel, content = explore_vit(), noise()
    panel.controls["chosen"].file.value = address(content)
    for chosen, image in (
        (("cat",), data.photo("cat", 48)),
        (("own", content, False), data.load_image(content, 48)),
        (("own", content, True), 1 - data.load_image(content, 48)),
    ):
        turn(panel, chosen=chosen)
        expected = assert_shows(panel, load_tiny(8, 4), image[None])
        assert numbers(panel.text, r" says (\d) \(([\d.]+)%\)") == pytest.approx(best(expected), abs=0.06)
        assert "square" not in panel.text
