"""vit.js beside torch, tensor by tensor: every option alone and several together. The nightly has all models."""

import random
from dataclasses import replace

import pytest
import torch

from tests.living.node import differences
from vit_walkthrough import VisionTransformer, ViTConfig
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.weights.checkpoint import bundled, load_checkpoint

SMALL = ViTConfig(16, 8, dim=24, depth=2, heads=3, hidden=20, classes=7)


def options(config: ViTConfig, seed: int) -> list[dict]:
    dice, patches = random.Random(seed), range(config.patches)
    blocks = [f"blocks.{block}" for block in range(config.depth)]
    halves = [f"{block}.{half}" for block in blocks for half in ("attention", "mlp")]
    norms = [f"{block}.{norm}" for block in blocks for norm in ("norm_1", "norm_2")] + ["norm"]
    heads = [(block, head) for block in range(config.depth) for head in range(config.heads)]
    return [
        {"order": dice.sample(patches, len(patches))},
        {"positions": False},
        {"hidden": dice.sample(patches, len(patches) // 2)},
        {"covered": dice.sample(patches, len(patches) // 2)},
        {"silenced": dice.sample(heads, 2)},
        {"skipped": [dice.choice(blocks), dice.choice(halves)]},
        {"alone": [dice.choice(halves)]},
        {"unnormed": [dice.choice(norms)]},
        {"temperature": dice.choice([0.3, 2.5])},
    ]


def together(config: ViTConfig, seed: int) -> dict:
    return {name: value for one in random.Random(seed).sample(options(config, seed), 4) for name, value in one.items()}


def assert_equal(found: list[dict[str, float]]) -> None:
    for worst in found:
        assert worst.pop("weights") < 1e-5  # attention
        assert max(worst.values()) < 1e-4, worst


def assert_every_tensor_equal(model: VisionTransformer, folder) -> None:
    images = ClutteredDigits("test").sample(2, draw=0)[0]
    cases = [{}, *options(model.config, seed=0), together(model.config, seed=0)]
    assert_equal(differences(model, images, cases, folder))


@pytest.mark.parametrize("size", [(8, 4), min(bundled()), max(bundled())], ids=str)
def test_every_tensor_of_a_bundled_model_is_torchs(size, tmp_path):
    assert_every_tensor_equal(load_checkpoint(bundled()[size])[0], tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        dict(image_size=(12, 20), patch_size=4, channels=1),
        dict(positions="none", classes=3),
        dict(positions="sincos", pooling="mean", depth=1),
    ],
)
def test_other_configs_too(change, tmp_path):
    config = replace(SMALL, **change)
    model = VisionTransformer(config).eval()
    for parameter in model.parameters():  # the head starts at zero, and would hide what comes before it
        torch.nn.init.normal_(parameter, std=0.3)
    images = torch.rand(2, config.channels, config.height, config.width)
    assert_equal(differences(model, images, [{}, *options(config, 0)], tmp_path))


def test_weights_and_images_of_another_config_are_refused(tmp_path):
    model, of_patches = VisionTransformer(SMALL).eval(), "patch_embedding.projection.weight"
    wrong = {"an image of 768 numbers, but the config says 3 x 32 x 32": dict(image_size=32)}
    wrong |= {f"{of_patches} has 4608 numbers, but the config says 2304": dict(dim=12)}
    wrong |= {"blocks.2.mlp.contract.weight has no numbers": dict(depth=3)}
    for words, change in (wrong | {"bias has 7 numbers, but the config says 3": dict(classes=3)}).items():
        model.config = replace(SMALL, **change)
        with pytest.raises(AssertionError, match=words):
            differences(model, torch.rand(1, 3, 16, 16), [{}], tmp_path)
    model.config = SMALL
    with pytest.raises(AssertionError, match="NaN or infinite"):
        differences(model, torch.full((1, 3, 16, 16), float("nan")), [{}], tmp_path)
