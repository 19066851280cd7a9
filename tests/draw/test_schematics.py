"""The schematics say the config's numbers and show real values, whole and apart from one another, for any config."""

import io
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.image import AxesImage
from matplotlib.text import Text
from PIL import Image

from tests.timing import assert_at_most
from vit_walkthrough import ClassificationHead, VisionTransformer, ViTConfig, patchify, record
from vit_walkthrough.data import photo
from vit_walkthrough.draw import schematics
from vit_walkthrough.draw.animation import animate_patches
from vit_walkthrough.draw.layout import Page, shown
from vit_walkthrough.draw.readme import IMAGES
from vit_walkthrough.draw.specimen import Specimen
from vit_walkthrough.draw.theme import ROLES, render

NAMES = sorted(name.removeprefix("draw_") for name in vars(schematics) if name.startswith("draw_"))
CONFIGS = {
    "B/16": ViTConfig.named("B/16"),
    "small": ViTConfig(48, 8, dim=64, depth=4, heads=4, hidden=256, classes=10),
    "wide, one head": ViTConfig((48, 72), 12, dim=64, depth=1, heads=1, hidden=128, classes=10),
    "wide, small patches": ViTConfig((48, 72), 4, dim=128, depth=12, heads=16, hidden=512, classes=10),
    "large patches": ViTConfig(224, 32, dim=192, depth=12, heads=12, hidden=768, classes=100),
    "three patches": ViTConfig((32, 96), 32, dim=48, heads=1, depth=1, hidden=96, classes=2, positions="none"),
    "tall": ViTConfig((224, 96), 32, dim=256, depth=4, heads=2, hidden=128, positions="sincos", dropout=0.1),
    "grey": ViTConfig(64, 16, channels=1, dim=32, depth=2, heads=2, hidden=64, classes=10, pooling="mean"),
    "long": ViTConfig(224, 4, dim=192, depth=12, heads=3, hidden=768, classes=21_843),
    "one patch": ViTConfig(32, 32, dim=8, depth=1, heads=4, hidden=8, classes=1),
}
# Its numbers are the longest of all, and so would be its computation.
LARGEST = {"longest numbers": ViTConfig(224, 4, dim=1024, depth=12, heads=16, hidden=4096, dropout=0.25)}
every_name = pytest.mark.parametrize("name", NAMES)
every_config = pytest.mark.parametrize("key", CONFIGS)


@cache
def drawn(key, name):
    return draw(name, (CONFIGS | LARGEST)[key])


def draw(name, config, *args, **kwargs):
    return getattr(schematics, f"draw_{name}")(config, *args, **kwargs)


def texts(ax):
    return [text for text in ax.figure.findobj(Text) if text.get_text().strip() and text.get_visible()]


def said(ax):
    return [text.get_text() for text in texts(ax)]


def arrays(ax):
    return [np.asarray(artist.get_array()) for artist in ax.images]


def holds(ax, values, most=None):
    """Whether some strip shows the first of these values, all that it shows being theirs."""
    values = np.asarray(values)
    for array in arrays(ax):
        if 1 in array.shape and array.ndim == 2:
            row = array.ravel()
            if len(row) <= len(values) and np.allclose(row, values[: len(row)], atol=1e-5):
                return len(row) >= min(2, len(values))
    return False


def test_no_picture_is_missing():
    stages = "patches flatten embedding class_token positions qkv attention heads mlp block stack head two_heads"
    assert {*stages.split(), "dropout", "shapes", "fused", "config", "vit", "steps"} == set(NAMES)


@every_name
@pytest.mark.parametrize("key", [*CONFIGS, *LARGEST])
def test_words_are_large_enough_whole_and_apart(key, name):
    ax = drawn(key, name)
    figure = ax.figure
    assert figure.get_figwidth() <= 10
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts(ax)]
    assert min(text.get_fontsize() for text in texts(ax)) >= 8
    for label, box in boxes:
        assert box.x0 >= figure.bbox.x0, label
        assert box.x1 <= figure.bbox.x1, label
        assert box.y0 >= figure.bbox.y0, label
        assert box.y1 <= figure.bbox.y1, label
    for (label, box), (other, other_box) in combinations(boxes, 2):
        assert not box.overlaps(other_box), (label, other)
    pictures = [artist.get_window_extent(renderer) for artist in ax.images]
    for label, box in boxes:
        if label != "0":  # which stands for a matrix of zeros
            assert not any(box.overlaps(picture) for picture in pictures), label


@every_name
@pytest.mark.parametrize("key", [*CONFIGS, *LARGEST])
def test_pictures_lie_on_the_page_and_apart(key, name):
    ax = drawn(key, name)
    renderer = FigureCanvasAgg(ax.figure).get_renderer()
    boxes = [artist.get_window_extent(renderer) for artist in ax.images]
    for box in boxes:
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= ax.figure.bbox.x1
        assert box.y1 <= ax.figure.bbox.y1
    for one, other in combinations(boxes, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        up = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(across, up) < 0.5, (one, other)


@pytest.mark.parametrize("name", ["vit", "attention"])
def test_words_that_overlap_or_leave_the_page_would_be_seen(name):
    ax = draw(name, CONFIGS["small"])
    label = texts(ax)[0]
    ax.text(*label.get_position(), "too much")
    renderer = FigureCanvasAgg(ax.figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in texts(ax)]
    assert any(box.overlaps(other) for box, other in combinations(boxes, 2))


@every_name
@pytest.mark.parametrize("key", ["B/16", "wide, small patches", "three patches", "long"])
def test_a_picture_takes_at_most_300_ms(key, name):
    assert_at_most(0.3, lambda: render(draw(name, CONFIGS[key])))


def shape(*sides):
    return " × ".join(f"{side:,}" for side in sides)


def expected(c):
    """For each picture what it must say, worked out here."""
    tokens, image = shape(c.height * c.width // c.patch_size**2 + 1, c.dim), shape(c.channels, c.height, c.width)
    flat = shape(c.rows * c.cols, c.channels * c.patch_size**2)
    square, head_dim = shape(c.tokens, c.tokens), c.dim // c.heads
    block = 4 * c.dim**2 + 4 * c.dim + 2 * c.dim * c.hidden + c.hidden + c.dim + 4 * c.dim
    return {
        "patches": [image, shape(c.height // c.patch_size, c.width // c.patch_size), flat],
        "flatten": [image, shape(c.channels, c.patch_size, c.patch_size), f"{c.patch_dim:,} pixels"],
        "embedding": [
            flat,
            shape(c.patch_dim, c.dim),
            shape(c.patches, c.dim),
            f"{c.patch_dim * c.dim + c.dim:,} to learn",
        ],
        "class_token": [shape(c.patches, c.dim), tokens, f"{c.patches:,} + 1 = {c.tokens:,}"],
        "positions": [tokens],
        "qkv": [tokens, shape(c.dim, 3 * c.dim), shape(3, c.tokens, c.dim), f"{shape(c.heads, head_dim)} = {c.dim:,}"],
        "attention": [shape(c.tokens, head_dim), shape(head_dim, c.tokens), square, f"÷ √{head_dim}"],
        "heads": [tokens, f"keys = {c.heads} × {square}", f"head {c.heads - 1}"],
        "mlp": [tokens, shape(c.tokens, c.hidden), f"{c.dim * c.hidden:,} weights"],
        "block": [tokens, f"{c.heads} maps of {square}", f"through {shape(c.tokens, c.hidden)}"],
        "stack": [tokens, f"block {c.depth}", f"{block:,} learned numbers a block"],
        "head": [tokens, f"{c.dim:,}", shape(c.dim, c.classes), f"{c.classes:,}"],
        "two_heads": [f"{c.dim:,}", shape(c.dim, c.dim), shape(c.dim, c.classes), shape(c.dim, 10), "each 1/10"],
        "dropout": [tokens, f"probability {c.dropout or 0.1:g}"],
        "shapes": [image, flat, shape(c.patches, c.dim), tokens, f"{c.dim:,}", f"{c.classes:,}", f"{c.depth} block"],
        "fused": [shape(c.tokens, head_dim), f"keys = {c.heads} × {square}", f"{c.heads * c.tokens**2:,} numbers"],
        "config": [f"{size:,}" for size in (c.rows, c.patches, c.tokens, c.patch_dim, head_dim, block, c.hidden)],
        "vit": [
            image,
            tokens,
            f"{c.heads} head{'s' * (c.heads > 1)}",
            f"{c.hidden:,} wide",
            f"{c.classes:,}",
            f"{c.depth} encoder",
        ],
        "steps": [f"\n{c.depth} block"],
    }


@every_name
@every_config
def test_the_numbers_are_the_config_s(key, name):
    words = said(drawn(key, name))
    for number in expected(CONFIGS[key])[name]:
        whole = number.replace(",", "").replace(" × ", "").isdigit()
        assert number in words if whole else any(number in text for text in words), number


def test_the_axis_words_stand_under_their_numbers():
    ax = drawn("B/16", "shapes")
    places = {text.get_text(): text.get_position() for text in texts(ax)}
    for words, numbers in (("patches × patch_dim", "196 × 768"), ("channels × height × width", "3 × 224 × 224")):
        if numbers != "196 × 768":  # which stands there twice
            assert places[words][0] == places[numbers][0]
        assert places[words][1] < places[numbers][1]


def test_all_numbers_of_a_model_are_counted_without_building_it():
    for config in (CONFIGS["small"], CONFIGS["grey"], CONFIGS["tall"], CONFIGS["three patches"]):
        learned = sum(parameter.numel() for parameter in VisionTransformer(config).parameters())
        assert f"{learned:,}" in said(draw("config", config))
    assert "86,567,656" in said(drawn("B/16", "config"))


@pytest.mark.parametrize("key", ["tall", "three patches"])
def test_the_patches_are_the_image_s_own(key):
    config = CONFIGS[key]
    image = torch.rand(config.channels, config.height, config.width)
    side, found = config.patch_size, arrays(draw("patches", config, image))
    assert any(np.array_equal(array, image.permute(1, 2, 0)) for array in found)
    for patch in (0, 1, config.patches - 1):
        row, col = divmod(patch, config.cols)
        tile = image[:, row * side : (row + 1) * side, col * side : (col + 1) * side].permute(1, 2, 0)
        assert any(np.array_equal(array, tile) for array in found)


def test_the_flattened_row_is_patchify_s():
    config, image = CONFIGS["small"], torch.rand(3, 48, 48)
    found = [array for array in arrays(draw("flatten", config, image)) if array.shape == (1, 64, 3)]
    row = np.concatenate([array[0, :, channel] / array[0, :, channel].max() for channel, array in enumerate(found)])
    flat = patchify(image[None], 8)[0].reshape(36, 3, 64)
    flat = (flat / flat.amax(dim=2, keepdim=True)).reshape(36, 192).numpy()
    assert any(np.allclose(row, patch) for patch in flat)


@pytest.fixture
def traced(randomize):
    config = CONFIGS["small"]
    model, image = randomize(VisionTransformer(config)), torch.rand(3, 48, 48)
    with record(model) as trace, torch.no_grad():
        model(image[None])
    return config, image, model, trace


def test_the_strips_show_what_the_model_computes(traced):
    config, image, model, trace = traced

    def picture(name):
        return draw(name, config, image, model=model)

    for token in (1, 2, config.patches):
        assert holds(picture("embedding"), trace["patch_embedding"][0, token - 1])
        assert holds(picture("class_token"), trace["class_token"][0, token])
        assert holds(picture("positions"), trace["position_embedding"][0, token])
        assert holds(picture("positions"), model.position_embedding.positions[0, token].detach())
        assert holds(picture("vit"), model.position_embedding.positions[0, token].detach())
    for part in ("queries", "keys", "values"):
        points = trace[f"blocks.0.attention.{part}"][0]
        assert holds(picture("qkv"), points.transpose(0, 1).reshape(config.tokens, -1)[1])
        assert holds(picture("attention"), points[0, 2])
    eye = schematics._eye(config) + 1
    for head in range(config.heads):
        assert holds(picture("heads"), trace["blocks.0.attention.head_outputs"][0, head, eye])
    assert holds(picture("heads"), trace["blocks.0.attention.projection"][0, eye])
    for name in ("expand", "gelu", "contract"):
        assert holds(picture("mlp"), trace[f"blocks.0.mlp.{name}"][0, eye])
    for name in ("norm_1.input", "norm_2.input", "attention", "norm_2"):
        assert holds(picture("block"), trace[f"blocks.0.{name}"][0, eye])
    assert holds(picture("block"), trace["blocks.0"][0, 0])
    assert holds(picture("stack"), trace["norm"][0, 1])
    for name in ("head", "vit", "two_heads", "shapes"):
        assert holds(picture(name), trace["norm"][0, 0])
    assert holds(picture("head"), trace["head"][0])
    assert holds(picture("fused"), trace["blocks.0.attention.head_outputs"][0, 0, eye])


def test_the_maps_are_the_model_s_weights(traced):
    config, image, model, trace = traced
    weights = trace["blocks.0.attention.weights"][0].numpy()
    scores, matrix = [array for array in arrays(draw("attention", config, image, model=model))
                      if array.ndim == 2 and min(array.shape) > 2]  # fmt: skip
    slots = schematics._followed(config)
    kept = [place for place, token in enumerate(slots) if token is not None]
    tokens = [slots[place] for place in kept]
    assert np.allclose(matrix[np.ix_(kept, kept)], weights[0][np.ix_(tokens, tokens)], atol=1e-6)
    assert np.isnan(np.delete(matrix, kept, axis=1)).all()
    parts = [trace[f"blocks.0.attention.{part}"][0, 0, tokens].numpy() for part in ("queries", "keys")]
    assert np.allclose(scores[np.ix_(kept, kept)], parts[0] @ parts[1].T, atol=1e-4)
    maps = [array for array in arrays(draw("heads", config, image, model=model)) if array.shape == (48, 48, 3)]
    grey = image.numpy().mean(axis=0)
    for head, picture in enumerate(maps):
        row = weights[head, schematics._eye(config) + 1, 1:].reshape(6, 6)
        light = (picture - 0.5 * grey[..., None])[::8, ::8].sum(axis=2)
        assert np.unravel_index(light.argmax(), light.shape) == np.unravel_index(row.argmax(), row.shape)
    assert len(maps) == config.heads


def test_without_a_model_the_values_are_those_of_fresh_modules_and_always_the_same():
    config = CONFIGS["small"]
    values, again = Specimen(config), Specimen(config)
    image = photo("cat", 48)[None]
    assert np.allclose(values.embedded, values.embedding(image)[0].detach())
    assert np.array_equal(values.tokens, again.tokens)
    assert holds(draw("embedding", config), again.embedded[0])
    block = values.block(0)(torch.from_numpy(values.tokens)[None])[0].detach()
    assert np.allclose(values.stream[1], block)
    assert np.allclose(values.through_mlp([0, 5])["out"], block[[0, 5]], atol=1e-5)
    assert np.allclose(values.fused([0, 3]), values.head_outputs([0, 3]), atol=1e-5)
    assert values.probabilities.sum() == pytest.approx(1)
    assert values.layers == 4
    assert values.layers_run == ""
    assert (Specimen(CONFIGS["B/16"]).layers, Specimen(CONFIGS["long"]).layers) == (1, 0)
    assert any("after 1 of the 12 blocks" in text for text in said(drawn("B/16", "vit")))


@every_name
def test_drawing_throws_nobody_else_s_dice_and_leaves_the_model_as_it_is(name):
    config = CONFIGS["grey"]
    model = VisionTransformer(config).train()
    before, dice = {key: value.clone() for key, value in model.state_dict().items()}, torch.get_rng_state()
    draw(name, config, model=model)
    draw(name, config)
    assert torch.equal(torch.get_rng_state(), dice)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@every_name
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_another_precision_is_drawn_as_in_32_bits_and_left_as_it_is(name, dtype, traced):
    config, image, model, _ = traced
    model = model.to(dtype)
    found = arrays(draw(name, config, image, model=model))
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    for array, expected in zip(found, arrays(draw(name, config, image, model=model.float())), strict=True):
        assert np.array_equal(array, expected, equal_nan=True)


@every_name
def test_a_model_without_a_head_is_refused_where_a_head_is_drawn(name, traced):
    config, image, model, _ = traced
    model.head.logits = torch.nn.Identity()
    if name in ("head", "shapes", "vit", "steps"):
        with pytest.raises(ValueError, match="this model has no head to draw; converted with classes=10"):
            draw(name, config, image, model=model)
    else:
        draw(name, config, image, model=model)


def test_the_head_of_pre_training_is_the_model_s_own_if_it_has_one(traced, randomize):
    config, image, model, trace = traced
    without = draw("two_heads", config, image, model=model)
    assert any("comes without a pre-training head, so that one is random" in text for text in said(without))
    model.head = randomize(ClassificationHead(config.dim, config.classes, config.dim))
    logits = model.head(trace["norm"][:, 0])[0].detach()
    own = draw("two_heads", config, image, model=model)
    assert holds(own, logits[:8])
    assert not holds(without, logits[:8])
    assert not any("random" in text for text in said(own))


@every_name
def test_an_image_of_another_size_or_a_model_of_another_config_is_refused(name):
    with pytest.raises(ValueError, match=r"an image of \(3, 32, 32\), but the config says .* \(3, 48, 48\)"):
        draw(name, CONFIGS["small"], torch.rand(3, 32, 32))
    with pytest.raises(ValueError, match="the model's config is"):
        draw(name, CONFIGS["small"], model=VisionTransformer(CONFIGS["three patches"]))
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        draw(name, ViTConfig(16, 4, channels=2, dim=8, heads=1))


def test_what_is_left_out_is_counted_or_shown_by_a_gap():
    assert shown(3, 4) == [0, 1, 2]
    assert shown(12, 4) == [0, 1, None, 11]
    assert schematics._followed(CONFIGS["three patches"]) == [0, 1, 2, 3]
    assert schematics._followed(CONFIGS["one patch"]) == [0, 1]
    assert schematics._followed(CONFIGS["B/16"]) == [0, 1, 2, None, 95, None, 196]
    assert "9 more" in said(drawn("B/16", "stack"))
    assert "8 more" in said(drawn("B/16", "heads"))


def test_no_positions_and_the_mean_are_drawn_as_such():
    assert "nothing is added" in said(drawn("three patches", "positions"))
    assert "no positions" in said(drawn("three patches", "vit"))
    assert "norm, take mean" in said(drawn("grey", "vit"))
    assert "norm, take ★" in said(drawn("B/16", "vit"))


# Colours.

SEEN = {  # Machado et al. 2009, Table 1, severity 1.0; on linear RGB
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour):
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """Linear sRGB -> CIELAB, D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = to_xyz @ np.clip(rgb, 0, 1) / (to_xyz @ np.ones(3))
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eyes", SEEN)
def test_the_roles_colours_stay_apart_for_all_eyes(eyes):
    seen = {role: lab(np.array(SEEN[eyes]) @ linear(colour)) for role, colour in ROLES.items()}
    apart = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in combinations(ROLES, 2)}
    assert min(apart.values()) >= 10, min(apart, key=apart.get)
    assert lab(np.ones(3)) == pytest.approx([100, 0, 0], abs=0.01)


def test_in_grey_what_stands_side_by_side_differs_or_has_a_name():
    lightness = {role: lab(linear(colour))[0] for role, colour in ROLES.items()}
    assert abs(lightness["class"] - lightness["patch"]) >= 5
    assert max(lightness.values()) < 80, "a frame must show on white"
    assert {"queries", "keys", "values"} <= set(said(drawn("B/16", "qkv")))
    for name in NAMES:
        ax = drawn("B/16", name)
        orange = np.array(to_rgb(ROLES["class"]))
        edges = [edge for piece in ax.collections for edge in piece.get_edgecolor()]
        if any(np.allclose(edge[:3], orange) for edge in edges) and name not in ("dropout", "two_heads", "head"):
            assert any("★" in text for text in said(ax)), name


# What the README shows.


@pytest.fixture(scope="module")
def flight():
    return Image.open(io.BytesIO(animate_patches(CONFIGS["wide, one head"])))


def test_the_animation_begins_with_the_picture_and_ends_with_the_class_token(flight):
    assert flight.n_frames > 10
    assert flight.info["loop"] == 0
    flight.seek(0)
    first = np.asarray(flight.convert("RGB"), dtype=float)
    picture = np.asarray(Image.fromarray((255 * photo("cat", (48, 72)).numpy().transpose(1, 2, 0)).astype(np.uint8)))
    dark = np.argwhere((first < 240).all(axis=2) & (np.arange(first.shape[1]) > 200))
    (top, left), (bottom, right) = dark.min(axis=0), dark.max(axis=0) + 1
    cut = Image.fromarray(first[top:bottom, left:right].astype(np.uint8)).resize((72, 48), Image.Resampling.BOX)
    assert np.abs(np.asarray(cut, dtype=float) - picture).mean() < 8
    orange = (255 * np.array(to_rgb(ROLES["class"]))).round()
    assert not (first == orange).all(axis=2).any()
    flight.seek(flight.n_frames - 1)
    last = np.asarray(flight.convert("RGB"), dtype=float)
    assert (last == orange).all(axis=2).sum() > 100
    assert not np.array_equal(last, first)


@pytest.mark.parametrize("key", ["B/16", "tall", "long", "one patch", "grey"])
def test_the_animation_is_small(key):
    data = animate_patches(CONFIGS[key])
    assert len(data) < 2_000_000
    assert Image.open(io.BytesIO(data)).n_frames > 10


@pytest.mark.parametrize("name", IMAGES)
def test_the_readme_s_pictures_are_those_that_are_drawn_now(name):
    path = Path(__file__).parents[2] / "images" / name
    assert path.stat().st_size < 2_000_000
    stored, now = (Image.open(io.BytesIO(data)) for data in (path.read_bytes(), IMAGES[name]()))
    assert stored.size == now.size
    for frame in {0, getattr(now, "n_frames", 1) - 1}:
        stored.seek(frame)
        now.seek(frame)
        one, other = (np.asarray(picture.convert("RGB"), dtype=float) for picture in (stored, now))
        assert np.abs(one - other).mean() < 1


def test_a_page_keeps_what_it_is_given():
    page = Page(4, 2, "title", "subtitle")
    artist = page.strip(np.arange(20.0), 1, 1, 2, "patch", cells=10)
    assert isinstance(artist, AxesImage)
    assert np.array_equal(artist.get_array(), np.arange(8.0)[None])
    page.shape(1, 0.5, "patches patch_dim", {"patches": 6, "patch_dim": 1234})
    assert {"title", "subtitle", "6 × 1,234", "patches × patch_dim"} <= set(said(page.done()))
