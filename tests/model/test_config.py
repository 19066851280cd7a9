import pickle
import re
from dataclasses import FrozenInstanceError, asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vit_walkthrough.model.config import SIZES, VARIANTS, ViTConfig, divisors


def exactly(message: str) -> str:
    return f"^{re.escape(message)}$"


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


def test_derived_sizes_of_vit_base_16():
    config = ViTConfig()
    assert (config.height, config.width) == (224, 224)
    assert (config.rows, config.cols, config.patches, config.tokens) == (14, 14, 196, 197)
    assert (config.patch_dim, config.head_dim) == (768, 64)


def test_derived_sizes_keep_height_and_width_apart():
    config = ViTConfig(image_size=(48, 80), patch_size=8, channels=1, dim=96, heads=4)
    assert (config.height, config.width) == (48, 80)
    assert (config.rows, config.cols, config.patches, config.tokens) == (6, 10, 60, 61)
    assert (config.patch_dim, config.head_dim) == (64, 24)


@given(rows=st.integers(1, 40), cols=st.integers(1, 40), patch_size=st.integers(1, 32), channels=st.integers(1, 8))
def test_patches_tile_the_image(rows, cols, patch_size, channels):
    config = ViTConfig(image_size=(rows * patch_size, cols * patch_size), patch_size=patch_size, channels=channels)
    assert (config.rows, config.cols) == (rows, cols)
    assert config.patches * config.patch_dim == channels * config.height * config.width


def test_a_square_is_the_same_as_int_and_as_pair():
    as_int, as_pair = ViTConfig(image_size=96), ViTConfig(image_size=(96, 96))
    assert (as_int.height, as_int.width, as_int.patches) == (as_pair.height, as_pair.width, as_pair.patches)
    assert as_int == as_pair
    assert str(as_int) == str(as_pair)


@pytest.mark.usefixtures("unchecked")
def test_a_list_becomes_a_tuple_so_that_the_config_can_be_hashed():
    config = ViTConfig(image_size=[32, 48])
    assert config.image_size == (32, 48)
    assert hash(config) == hash(ViTConfig(image_size=(32, 48)))


def test_a_config_cannot_be_changed():
    with pytest.raises(FrozenInstanceError, match="patch_size"):
        ViTConfig().patch_size = 8


def test_a_config_survives_pickling(config):
    assert pickle.loads(pickle.dumps(config)) == config


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
    assert [ViTConfig.named(variant).tokens for variant in ("B/32", "B/16", "H/14", "B/8")] == [50, 197, 257, 785]


def test_named_takes_changes_to_any_field():
    config = ViTConfig.named("S/32", image_size=(96, 160), depth=3, patch_size=16, classes=7)
    assert (config.rows, config.cols, config.depth, config.classes, config.dim) == (6, 10, 3, 7, 384)
    assert ViTConfig.named("B/16", image_size=384).tokens == 577


def test_an_unknown_variant_lists_the_known_ones():
    message = "variant 'B16' is unknown; choose one of Ti/16, Ti/32, S/16, S/32, B/8, B/16, B/32, L/16, L/32, H/14"
    with pytest.raises(ValueError, match=exactly(message)):
        ViTConfig.named("B16")


def test_an_unknown_field_is_refused():
    with pytest.raises(TypeError, match="patchsize"):
        ViTConfig.named("B/16", patchsize=8)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(image_size=48, patch_size=7),
            "patch_size 7 does not divide image_size 48; choose one of 1, 2, 3, 4, 6, 8, 12, 16, 24, 48",
        ),
        (
            dict(image_size=(48, 36), patch_size=8),
            "patch_size 8 does not divide image_size 48 x 36; choose one of 1, 2, 3, 4, 6, 12",
        ),
        (
            dict(image_size=(36, 48), patch_size=9),
            "patch_size 9 does not divide image_size 36 x 48; choose one of 1, 2, 3, 4, 6, 12",
        ),
        (
            dict(image_size=(13, 13), patch_size=2),
            "patch_size 2 does not divide image_size 13; choose one of 1, 13",
        ),
        (
            dict(image_size=16, patch_size=32),
            "patch_size 32 does not divide image_size 16; choose one of 1, 2, 4, 8, 16",
        ),
        (dict(dim=20, heads=3), "heads 3 does not divide dim 20; choose one of 1, 2, 4, 5, 10, 20"),
        (dict(image_size=(32, 32, 3)), "image_size (32, 32, 3) is neither one side nor (height, width)"),
        (dict(image_size=[32]), "image_size (32,) is neither one side nor (height, width)"),
        (dict(image_size=0), "image_size (height) is 0; it must be at least 1"),
        (dict(image_size=(32, -16)), "image_size (width) is -16; it must be at least 1"),
        (dict(patch_size=0), "patch_size is 0; it must be at least 1"),
        (dict(channels=0), "channels is 0; it must be at least 1"),
        (dict(dim=0), "dim is 0; it must be at least 1"),
        (dict(depth=0), "depth is 0; it must be at least 1"),
        (dict(heads=-1), "heads is -1; it must be at least 1"),
        (dict(hidden=0), "hidden is 0; it must be at least 1"),
        (dict(classes=0), "classes is 0; it must be at least 1"),
        (dict(dropout=1.0), "dropout is 1.0; it must be at least 0 and below 1"),
        (dict(dropout=-0.1), "dropout is -0.1; it must be at least 0 and below 1"),
        (dict(dropout=float("nan")), "dropout is nan; it must be at least 0 and below 1"),
        (dict(positions="rotary"), "positions 'rotary' is unknown; choose learned, sincos or none"),
        (dict(positions=None), "positions None is unknown; choose learned, sincos or none"),
        (
            dict(positions="sincos", dim=30, heads=3),
            "dim 30 is not a multiple of 4, which sincos positions need; choose 28 or 32",
        ),
        (dict(pooling="max"), "pooling 'max' is unknown; choose class or mean"),
    ],
)
def test_a_value_that_cannot_be_says_which_would_do(changes, message):
    with pytest.raises(ValueError, match=exactly(message)):
        ViTConfig(**changes)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(image_size=224.0), "image_size (height) is 224.0; it must be a whole number"),
        (dict(image_size=(224, 224.0)), "image_size (width) is 224.0; it must be a whole number"),
        (dict(image_size="224"), "image_size (height) is '224'; it must be a whole number"),
        (dict(image_size=None), "image_size (height) is None; it must be a whole number"),
        (dict(patch_size=16.0), "patch_size is 16.0; it must be a whole number"),
        (dict(patch_size=True), "patch_size is True; it must be a whole number"),
        (dict(channels=True), "channels is True; it must be a whole number"),
        (dict(dim=768.0), "dim is 768.0; it must be a whole number"),
        (dict(depth=1.5), "depth is 1.5; it must be a whole number"),
        (dict(heads=False), "heads is False; it must be a whole number"),
        (dict(hidden="3072"), "hidden is '3072'; it must be a whole number"),
        (dict(classes=None), "classes is None; it must be a whole number"),
        (dict(dropout=True), "dropout is True; it must be a number"),
        (dict(dropout="0.1"), "dropout is '0.1'; it must be a number"),
    ],
)
def test_a_value_of_another_type_is_refused(changes, message):
    with pytest.raises(TypeError, match=exactly(message)):
        ViTConfig(**changes)


@pytest.mark.parametrize("patch_size", [1, 2, 3, 4, 6, 8, 12, 16, 24, 48])
def test_every_patch_size_that_the_error_offers_works(patch_size):
    config = ViTConfig(image_size=48, patch_size=patch_size)
    assert config.rows * patch_size == 48


@pytest.mark.parametrize("dim", [28, 32])
def test_every_dim_that_the_sincos_error_offers_works(dim):
    assert ViTConfig(positions="sincos", dim=dim, heads=4).dim == dim


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("dropout", [0, 0.0, 0.5, 0.999])
def test_a_dropout_below_one_is_accepted(dropout):
    assert ViTConfig(dropout=dropout).dropout == dropout


@given(st.integers(1, 500))
def test_divisors_are_all_that_divide_in_order(number):
    assert divisors(number) == sorted({n for n in range(1, number + 1) if number / n == number // n})
