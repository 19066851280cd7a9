"""The schematics say the config's numbers, whole and apart from one another, for whatever config."""

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from vit_walkthrough import ViTConfig
from vit_walkthrough.diagrams import draw_block, draw_vit, hero

CONFIGS = {
    "B/16": ViTConfig.named("B/16"),
    "H/14": ViTConfig.named("H/14"),
    "not square": ViTConfig((32, 96), 32, dim=48, depth=1, heads=1, hidden=96, classes=10),
    "small patches": ViTConfig((48, 64), 4, dim=64, depth=4, heads=16, hidden=128, classes=7, positions="none"),
    "mean": ViTConfig(64, 32, dim=32, depth=2, heads=2, hidden=64, classes=10, pooling="mean"),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def drawn(name, config):
    if name == "block":
        return draw_block(config)
    return draw_vit(config, torch.rand(config.channels, config.height, config.width))


def texts(ax):
    return [text for text in ax.figure.findobj(Text) if text.get_text().strip() and text.get_visible()]


@every_config
def test_the_block_says_its_shapes(config):
    said = " ".join(text.get_text() for text in texts(draw_block(config)))
    assert f"{config.tokens:,} x {config.dim:,}" in said
    assert f"{config.heads} maps of {config.tokens:,} x {config.tokens:,}" in said
    assert f"through {config.tokens:,} x {config.hidden:,}" in said


@every_config
def test_the_model_says_its_shapes(config):
    said = "\n".join(text.get_text() for text in texts(drawn("vit", config)))
    assert f"{config.channels} x {config.height} x {config.width}" in said
    assert f"{config.patches:,} patches\nof {config.pixels:,} pixels" in said
    assert f"{config.tokens:,} tokens\nof {config.dim:,}" in said
    assert f"{config.depth} blocks" in said
    assert f"{config.heads} heads" in said
    assert f"{config.classes:,}\nlogits" in said
    assert ("positions" in said) == (config.positions != "none")
    assert ("mean\n" in said) == (config.pooling == "mean")


def test_the_patches_are_the_image_s_own():
    config = CONFIGS["not square"]
    image = torch.rand(3, 32, 96)
    pictures = [artist.get_array() for artist in draw_vit(config, image).images]
    assert np.array_equal(pictures[0], image.permute(1, 2, 0))
    for patch in range(3):
        assert np.array_equal(pictures[1 + patch], image[:, :, 32 * patch : 32 * patch + 32].permute(1, 2, 0))


@every_config
@pytest.mark.parametrize("name", ["block", "vit"])
def test_labels_are_large_enough_whole_and_apart(name, config):
    ax = drawn(name, config)
    renderer = FigureCanvasAgg(ax.figure).get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts(ax)]
    assert min(text.get_fontsize() for text in texts(ax)) >= 8
    for label, box in boxes:
        assert box.x0 >= ax.figure.bbox.x0, label
        assert box.x1 <= ax.figure.bbox.x1, label
        assert box.y0 >= ax.figure.bbox.y0, label
        assert box.y1 <= ax.figure.bbox.y1, label
    for (label, box), (other, other_box) in combinations(boxes, 2):
        assert not box.overlaps(other_box), (label, other)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"an image of \(32, 32\) pixels for a config of \(224, 224\)"):
        draw_vit(CONFIGS["B/16"], torch.rand(3, 32, 32))


def test_the_readme_s_picture_is_the_one_that_is_drawn_now():
    stored = Image.open(Path(__file__).parents[1] / "images" / "vit.png").convert("RGB")
    now = Image.open(io.BytesIO(hero())).convert("RGB")
    assert stored.size == now.size
    assert np.abs(np.asarray(stored, dtype=float) - np.asarray(now, dtype=float)).mean() < 1
