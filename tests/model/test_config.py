import pickle
from dataclasses import FrozenInstanceError, asdict

import pytest

from vit_walkthrough.model.config import SIZES, VARIANTS, ViTConfig, divisors


def test_defaults_are_vit_base_16():
    assert asdict(ViTConfig()) == {
        "image_size": 224,
        "patch_size": 16,
        "channels": 3,
        "dim": 768,
        "depth": 12,
        "heads": 12,
        "hidden": 3072,
        "classes": 1000,
        "dropout": 0.0,
        "positions": "learned",
        "pooling": "class",
    }
    assert ViTConfig() == ViTConfig.named("B/16")


def test_derived_sizes_keep_height_and_width_apart():
    config = ViTConfig(image_size=(48, 80), patch_size=8, channels=1, dim=96, heads=4)
    assert (config.height, config.width) == (48, 80)
    assert (config.rows, config.cols, config.patches, config.tokens) == (6, 10, 60, 61)
    assert (config.patch_dim, config.head_dim) == (64, 24)
    assert ViTConfig().patch_dim == 768


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("given", "kept"), [(96, 96), ((96, 96), 96), ([96, 96], 96), ((32, 48), (32, 48)), ([32, 48], (32, 48))]
)
def test_equal_sides_become_one_and_a_list_a_tuple(given, kept):
    config = ViTConfig(image_size=given)
    assert config.image_size == kept
    assert hash(config) == hash(ViTConfig(image_size=kept))
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_config_cannot_be_changed():
    with pytest.raises(FrozenInstanceError, match="patch_size"):
        ViTConfig().patch_size = 8


@pytest.mark.parametrize(
    ("variant", "patch_size", "dim", "depth", "heads", "hidden"),
    [
        ("Ti/16", 16, 192, 12, 3, 768),
        ("Ti/32", 32, 192, 12, 3, 768),
        ("S/16", 16, 384, 12, 6, 1536),
        ("S/32", 32, 384, 12, 6, 1536),
        ("B/8", 8, 768, 12, 12, 3072),
        ("B/16", 16, 768, 12, 12, 3072),
        ("B/32", 32, 768, 12, 12, 3072),
        ("L/16", 16, 1024, 24, 16, 4096),
        ("L/32", 32, 1024, 24, 16, 4096),
        ("H/14", 14, 1280, 32, 16, 5120),
    ],
)
def test_named_sizes_are_the_published_ones(variant, patch_size, dim, depth, heads, hidden):
    config = ViTConfig.named(variant)
    assert (config.patch_size, config.dim, config.depth) == (patch_size, dim, depth)
    assert (config.heads, config.hidden) == (heads, hidden)
    assert (config.image_size, config.channels, config.classes) == (224, 3, 1000)


def test_every_named_variant_uses_a_known_size():
    assert {variant.split("/")[0] for variant in VARIANTS} == set(SIZES)


def test_named_takes_changes_to_any_field():
    config = ViTConfig.named("S/32", image_size=(96, 160), depth=3, patch_size=16, classes=7)
    assert (config.rows, config.cols, config.depth, config.classes, config.dim) == (6, 10, 3, 7, 384)
    with pytest.raises(TypeError, match="patchsize"):
        ViTConfig.named("B/16", patchsize=8)


def test_an_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match=f"'B16' .* {', '.join(VARIANTS)}$"):
        ViTConfig.named("B16")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(image_size=48, patch_size=7), "patch_size 7 .* image_size 48; .* 1, 2, 3, 4, 6, 8, 12, 16, 24, 48$"),
        (dict(image_size=(48, 36), patch_size=8), "patch_size 8 .* image_size 48 x 36; .* 1, 2, 3, 4, 6, 12$"),
        (dict(image_size=(36, 48), patch_size=9), "patch_size 9 .* image_size 36 x 48; .* 1, 2, 3, 4, 6, 12$"),
        (dict(image_size=(13, 13), patch_size=2), "patch_size 2 .* image_size 13; .* 1, 13$"),
        (dict(image_size=16, patch_size=32), "patch_size 32 .* image_size 16; .* 1, 2, 4, 8, 16$"),
        (dict(dim=20, heads=3), "heads 3 .* dim 20; .* 1, 2, 4, 5, 10, 20$"),
        (dict(image_size=(32, 32, 3)), r"image_size \(32, 32, 3\) .* \(height, width\)$"),
        (dict(image_size=[32]), r"image_size \(32,\)"),
        (dict(image_size=0), r"image_size \(height\) is 0; .* 1$"),
        (dict(image_size=(32, -16)), r"image_size \(width\) is -16; .* 1$"),
        (dict(patch_size=0), "patch_size is 0; .* 1$"),
        (dict(channels=0), "channels is 0; .* 1$"),
        (dict(dim=0), "dim is 0; .* 1$"),
        (dict(depth=0), "depth is 0; .* 1$"),
        (dict(heads=-1), "heads is -1; .* 1$"),
        (dict(hidden=0), "hidden is 0; .* 1$"),
        (dict(classes=0), "classes is 0; .* 1$"),
        (dict(dropout=1.0), "dropout is 1.0; .* 0 and below 1$"),
        (dict(dropout=-0.1), "dropout is -0.1; .* 0 and below 1$"),
        (dict(dropout=float("nan")), "dropout is nan"),
        (dict(positions="rotary"), "positions 'rotary' .* learned, sincos or none$"),
        (dict(positions=None), "positions None .* learned, sincos or none$"),
        (dict(positions="sincos", dim=30, heads=3), "dim 30 .* 4, .* 28 or 32$"),
        (dict(positions="sincos", dim=2, heads=2), "dim 2 .* 4$"),
        (dict(pooling="max"), "pooling 'max' .* class or mean$"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_the_choices(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        ViTConfig(**changes)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(image_size=224.0), r"image_size \(height\) is 224.0;"),
        (dict(image_size=(224, 224.0)), r"image_size \(width\) is 224.0;"),
        (dict(image_size="224"), r"image_size \(height\) is '224';"),
        (dict(image_size=None), r"image_size \(height\) is None;"),
        (dict(patch_size=True), "patch_size is True;"),
        (dict(channels=True), "channels is True;"),
        (dict(dim=768.0), "dim is 768.0;"),
        (dict(depth=1.5), "depth is 1.5;"),
        (dict(heads=False), "heads is False;"),
        (dict(hidden="3072"), "hidden is '3072';"),
        (dict(classes=None), "classes is None;"),
        (dict(dropout=True), "dropout is True;"),
        (dict(dropout="0.1"), "dropout is '0.1';"),
    ],
)
def test_a_value_of_another_type_is_refused(changes, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        ViTConfig(**changes)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "changes", [dict(patch_size=1), dict(dropout=0), dict(dropout=0.999), dict(positions="sincos", dim=4, heads=1)]
)
def test_values_at_the_edge_are_accepted(changes):
    assert asdict(ViTConfig(**changes)).items() >= changes.items()


@pytest.mark.parametrize(("number", "expected"), [(1, [1]), (7, [1, 7]), (48, [1, 2, 3, 4, 6, 8, 12, 16, 24, 48])])
def test_divisors(number, expected):
    assert divisors(number) == expected
