from dataclasses import FrozenInstanceError, asdict

import pytest

from vit_walkthrough.model.config import VARIANTS, ViTConfig


def test_defaults_are_vit_base_16():
    sizes = dict(image_size=224, patch_size=16, channels=3, dim=768, depth=12, heads=12, hidden=3072, classes=1000)
    assert asdict(ViTConfig()) == sizes | dict(dropout=0.0, positions="learned", pooling="class")
    assert ViTConfig() == ViTConfig.named("B/16")
    with pytest.raises(FrozenInstanceError, match="patch_size"):
        ViTConfig().patch_size = 8


def test_named_takes_changes_to_any_field_and_lists_the_variants():
    config = ViTConfig.named("S/32", image_size=(96, 160), depth=3, patch_size=16, channels=1, classes=7)
    assert (config.height, config.width, config.rows, config.cols) == (96, 160, 6, 10)
    assert (config.patches, config.tokens, config.patch_dim, config.head_dim) == (60, 61, 256, 64)
    assert (config.depth, config.classes, config.dim) == (3, 7, 384)
    with pytest.raises(TypeError, match="patchsize"):
        ViTConfig.named("B/16", patchsize=8)
    with pytest.raises(ValueError, match=f"'B16' .* {', '.join(VARIANTS)}$"):
        ViTConfig.named("B16")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (dict(image_size=48, patch_size=7), "patch_size 7 .* image_size 48; .* 1, 2, 3, 4, 6, 8, 12, 16, 24, 48$"),
        (dict(image_size=(48, 36), patch_size=8), "patch_size 8 .* image_size 48 x 36; .* 1, 2, 3, 4, 6, 12$"),
        (dict(image_size=(36, 48), patch_size=9), "patch_size 9 .* image_size 36 x 48; .* 1, 2, 3, 4, 6, 12$"),
        (dict(image_size=16, patch_size=32), "patch_size 32 .* image_size 16; .* 1, 2, 4, 8, 16$"),
        (dict(dim=20, heads=3), "heads 3 .* dim 20; .* 1, 2, 4, 5, 10, 20$"),
        (dict(image_size=(32, 32, 3)), r"image_size \(32, 32, 3\)"),
        (dict(image_size=[32]), r"image_size \(32,\)"),
        (dict(image_size=0), r"image_size \(height\) is 0; .* 1$"),
        (dict(image_size=(32, -16)), r"image_size \(width\) is -16; .* 1$"),
        *[({name: 0}, f"{name} is 0; .* 1$") for name in ("patch_size", "channels", "dim", "depth", "hidden")],
        *[({name: -1}, f"{name} is -1; .* 1$") for name in ("heads", "classes")],
        *[(dict(dropout=share), f"dropout is {share}; .* 0 and below 1$") for share in (1.0, -0.1, float("nan"))],
        *[(dict(positions=kind), f"positions {kind!r} .* learned, sincos or none$") for kind in ("rotary", None)],
        (dict(positions="sincos", dim=30, heads=3), "dim 30 .* 4, .* 28 or 32$"),
        (dict(positions="sincos", dim=2, heads=2), "dim 2 .* 4$"),
        (dict(pooling="max"), "pooling 'max' .* class or mean$"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_the_choices(changes, told):
    with pytest.raises(ValueError, match=f"^{told}"):
        ViTConfig(**changes)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("value", [224.0, "224", None, True])
def test_a_size_that_is_no_whole_number_is_refused(value):
    for name in ("image_size", "patch_size", "channels", "dim", "depth", "heads", "hidden", "classes"):
        with pytest.raises(TypeError, match=rf"^{name}( \(height\))? is {value!r};"):
            ViTConfig(**{name: value})
    with pytest.raises(TypeError, match=rf"^image_size \(width\) is {value!r};"):
        ViTConfig((224, value))
    if not isinstance(value, float):
        with pytest.raises(TypeError, match=f"^dropout is {value!r};"):
            ViTConfig(dropout=value)
