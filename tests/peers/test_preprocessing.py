"""Pictures come out as each library prepares them itself, but for the rounding to 8 bits that theirs go through."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from vit_walkthrough import ViTConfig
from vit_walkthrough.weights.published import (
    IMAGENET,
    PUBLISHED,
    TORCHVISION,
    TORCHVISION_ADDRESS,
    Preprocessing,
    load_pretrained,
)

PHOTOS = Path(__file__).parents[2] / "images" / "photos"
STEP = 1 / 255


@pytest.fixture(params=["cat", "astronaut", "coffee", "wide", "small"])
def picture(request):
    """Photographs: square or not, larger and smaller than what the model reads."""
    name = request.param
    image = Image.open(PHOTOS / f"{'cat' if name in ('wide', 'small') else name}.jpg").convert("RGB")
    if name == "wide":
        return image.crop((0, image.height // 3, image.width, image.height * 2 // 3))
    return image.resize((150, 111)) if name == "small" else image


def close(ours: torch.Tensor, theirs: torch.Tensor, std: float) -> None:
    """Theirs is rounded after each of two passes: two steps is much, half a step usual. At hard edges bicubic
    overshoots; theirs is cut off after the first pass too, so that single pixels differ by more."""
    assert ours.shape == theirs.shape
    difference = ((ours - theirs).abs() * std).flatten()
    assert difference.mean() <= 0.5 * STEP
    assert difference.sort().values[int(0.99 * len(difference))] <= 2.5 * STEP
    assert difference.max() <= 0.06


@pytest.mark.parametrize("crop", [0.9, 0.875, 1.0])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_as_timm(peer, picture, interpolation, crop):
    create_transform = peer("timm.data").create_transform
    numbers = dict(mean=(0.5,) * 3, std=(0.5,) * 3)
    theirs = create_transform((3, 224, 224), interpolation=interpolation, crop_pct=crop, **numbers)
    ours = Preprocessing(**numbers, size=(224, 224), interpolation=interpolation, crop=crop)
    close(ours(picture), theirs(picture)[None], 0.5)


@pytest.mark.parametrize("name", TORCHVISION)
def test_as_torchvision(peer, picture, name):
    models = peer("torchvision.models")
    weights = models.get_model_weights(name.split("/")[1]).IMAGENET1K_V1
    file, resized = TORCHVISION[name]
    assert weights.url == TORCHVISION_ADDRESS + file
    theirs = weights.transforms()
    assert (theirs.crop_size, theirs.resize_size) == ([224], [resized])
    ours = Preprocessing(IMAGENET.mean, IMAGENET.std, (224, 224), "bilinear", 224 / resized)
    close(ours(picture), theirs(picture)[None], 0.23)


@pytest.mark.parametrize("resample", [2, 3])
def test_as_transformers(peer, tmp_path, build, picture, resample):
    """By the whole way: its own files say how."""
    transformers = peer("transformers")
    processor = transformers.ViTImageProcessor(resample=resample, size={"height": 48, "width": 48})
    processor.save_pretrained(tmp_path)
    config = ViTConfig(image_size=48, patch_size=16, dim=32, depth=1, heads=2, hidden=32, classes=2)
    loaded = load_pretrained(build("transformers", config).save(tmp_path))
    theirs = processor(picture, return_tensors="pt")["pixel_values"]
    close(loaded.prepare(picture), theirs, 0.5)


def test_the_names_that_are_offered_are_timm_s(peer):
    timm = peer("timm")
    for name in PUBLISHED:
        if name.startswith("timm/"):
            assert timm.get_pretrained_cfg(name.split("/")[1]).hf_hub_id == name
