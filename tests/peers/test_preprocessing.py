"""mean, std and size are those that timm's own transform really uses."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from vit_walkthrough import ViTConfig
from vit_walkthrough.data import load_image
from vit_walkthrough.weights.published import load_pretrained

CAT = Path(__file__).parents[2] / "images" / "photos" / "cat.jpg"
CONFIG = ViTConfig(image_size=32, patch_size=16, dim=32, depth=1, heads=2, hidden=32, classes=2)


@pytest.mark.parametrize(
    ("size", "settings"),
    [(32, dict(crop_pct=0.9, interpolation="bicubic", mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.25))), ((32, 64), {})],
    ids=str,
)
def test_as_timm(build, peer, tmp_path, settings, size):
    theirs = build("timm", CONFIG, img_size=size)
    described = {"pretrained_cfg": settings}
    peer("timm.models").save_for_hf(theirs, tmp_path, safe_serialization=True, model_config=described)
    loaded, sides = load_pretrained(tmp_path), (size, size) if isinstance(size, int) else size
    settings = dict(interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3) | settings
    read, image = loaded.prepare, load_image(CAT, sides)
    assert (read.mean, read.std, read.size) == (settings["mean"], settings["std"], sides)
    # Cut to the size already, a picture is only normalised.
    transform = peer("timm.data").create_transform((3, *sides), **settings | dict(crop_pct=1.0, crop_mode="squash"))
    pixels = Image.fromarray((255 * image.permute(1, 2, 0)).round().byte().numpy())
    assert_close(loaded.prepare(image)[0], transform(pixels), rtol=0, atol=0.5 / 255 / min(read.std))


def test_pictures_of_one_channel_are_prepared_by_nobody(build, peer, tmp_path):
    theirs = build("timm", CONFIG, in_chans=1)
    peer("timm.models").save_for_hf(theirs, tmp_path, safe_serialization=True)
    loaded, images = load_pretrained(tmp_path), torch.rand(1, 1, 32, 32)
    assert loaded.prepare is None
    assert_close(loaded.model(images), theirs(images), rtol=0, atol=1e-4)
