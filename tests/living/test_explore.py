"""The hover view as bytes: what it carries is decoded again and compared with the trace, without a browser."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from importlib import import_module
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from vit_walkthrough import Trace, VisionTransformer, ViTConfig, record
from vit_walkthrough.draw import plot_heads, render
from vit_walkthrough.living import explore

module = import_module("vit_walkthrough.living.explore")  # the package's name `explore` is the function


def softmaxed(*shape: int):
    """Attention (blocks batch heads tokens), with one axis more for the keys."""
    return (3 * torch.randn(*shape, shape[-1])).softmax(dim=-1)


@pytest.fixture
def attention():
    return softmaxed(3, 2, 4, 16)  # 3 x 5 patches and the class token


@pytest.fixture
def trace(model, images):
    with torch.no_grad(), record(model) as trace:
        model(images)
    return trace


class Page(HTMLParser):
    """The elements of a piece of HTML, each with its attributes and its own text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append(SimpleNamespace(tag=tag, text="", attributes=dict(attrs)))
        if tag != "img":
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].text += data

    def of(self, tag: str) -> list:
        return [element for element in self.elements if element.tag == tag]


def decoded(address: str) -> bytes:
    return base64.b64decode(address.split(",")[1], validate=True)


def data_of(shown) -> SimpleNamespace:
    """What the script reads, decoded; `weights` is (blocks, heads, queries, keys)."""
    data = json.loads(Page(shown.html).of("script")[0].text)
    raw = {name: decoded(data[name]) for name in ("attention", "peaks", "class", "colours", "image")}
    patches = data["rows"] * data["cols"]
    shape = (len(data["blocks"]), len(data["heads"]), patches + data["first"])
    shades = np.frombuffer(raw["attention"], np.uint8).reshape(*shape, patches)
    peaks, own = (np.frombuffer(raw[name], "<f4").reshape(*shape, -1) for name in ("peaks", "class"))
    data |= {"shades": shades, "weights": np.concatenate([own, shades / 255 * peaks], axis=-1)}
    data["colours"] = np.frombuffer(raw["colours"], np.uint8).reshape(256, 3)
    data["image"] = np.asarray(Image.open(io.BytesIO(raw["image"])))
    return SimpleNamespace(**data)


def assert_carries(shown, attention) -> None:
    """The data are this attention (blocks, heads, queries, keys) to within the rounding of 8 bits, row by row."""
    expected, data = np.asarray(attention, dtype=np.float64), data_of(shown)
    first = data.first
    steps = expected[..., first:].max(axis=-1, keepdims=True) / 255
    assert data.weights.shape == expected.shape
    assert (abs(data.weights - expected)[..., first:] <= 0.501 * steps + 1e-9).all()
    np.testing.assert_allclose(data.weights[..., :first], expected[..., :first], rtol=1e-6, atol=1e-12)


# What is shown


def test_one_bundle_holds_the_html_and_the_still_picture_with_its_text(attention, images):
    shown = explore(attention, images[0])
    bundle, metadata = DisplayFormatter().format(shown)
    assert bundle.keys() == {"text/html", "image/png", "text/plain"}
    assert (bundle["text/html"], bundle["text/plain"]) == (shown.html, shown.text)
    assert metadata == {"image/png": {"alt": shown.text}}
    assert Image.open(io.BytesIO(decoded("," + bundle["image/png"]))).mode != "RGBA"
    (still,) = Page(shown.html).of("img")
    assert decoded(still.attributes["src"]) == shown.png
    assert still.attributes["alt"] == shown.text


@pytest.mark.parametrize("first", [1, 0])
def test_still_picture_and_text_are_of_the_class_token_or_the_middle_patch_in_the_last_block(images, first):
    weights, query = softmaxed(3, 2, 4, 15 + first), 0 if first else 7
    shown = explore(weights, images[1], index=1, blocks=[0, 1], heads=[0, 1, 3])
    chosen = weights[1, 1, [0, 1, 3], query, first:]
    maps, titles = chosen.unflatten(-1, (3, 5)), ["head 0", "head 1", "head 3"]
    expected = plot_heads(images[1], maps, titles=titles, query=None if first else query)
    assert shown.png == render(expected, caption=shown.text, colours=256)
    best = int(chosen.mean(dim=0).argmax())
    who = "the class token" if first else "the patch in row 1, column 2"
    assert shown.text.startswith(f"Where {who} looks in block 2")
    assert "12 x 20 pixels in 3 x 5 patches" in shown.text
    assert f"row {best // 5}, column {best % 5}, gets {chosen.mean(dim=0)[best]:.2f}" in shown.text


# What it carries


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
    ("blocks", "heads"), [(None, None), ([1], [3]), ([1, 0], [3, 1]), (range(1), (0,)), ([1, 1], [2, 2])]
)
def test_image_blocks_and_heads_are_chosen_in_their_order(trace, images, index, blocks, heads):
    shown = explore(trace, index=index, blocks=blocks, heads=heads)
    blocks, heads = list(blocks or range(2)), list(heads or range(4))
    assert_carries(shown, trace.attention[blocks][:, index][:, heads])
    data = data_of(shown)
    assert (data.blocks, data.heads, data.rows, data.cols, data.side, data.first) == (blocks, heads, 3, 5, 4, 1)
    np.testing.assert_allclose(data.image / 255, images[index].permute(1, 2, 0), atol=0.501 / 255)
    of_weights = explore(trace.attention.numpy(), images[index].numpy(), index=index, blocks=blocks, heads=heads)
    assert of_weights.html == shown.html


def test_a_class_token_that_takes_nearly_all_leaves_the_patches_their_steps(attention, images):
    attention[..., 1:] *= 1e-4
    attention[..., 0] = 1 - attention[..., 1:].sum(dim=-1)
    attention[1, 0, 2, 7] = torch.eye(16)[0]  # which looks at no patch
    shown = explore(attention, images[0])
    assert_carries(shown, attention[:, 0])
    brightest = data_of(shown).shades.max(axis=-1)
    assert brightest[1, 2, 7] == 0
    assert (brightest == 255).sum() == brightest.size - 1


@pytest.mark.parametrize(("rows", "cols"), [(1, 2), (2, 1), (2, 2), (3, 5), (1, 16), (6, 6)])
@pytest.mark.parametrize("first", [0, 1])
def test_no_grid_is_taken_for_another(rows, cols, first):
    weights = softmaxed(1, 1, 2, rows * cols + first)
    shown = explore(weights, torch.rand(3, 7 * rows, 7 * cols))
    assert_carries(shown, weights[:, 0])
    data = data_of(shown)
    assert (data.rows, data.cols, data.side, data.first) == (rows, cols, 7, first)


def test_an_image_may_be_larger_or_grey_and_is_cut_off_at_black_and_white(attention):
    image = torch.full((1, 36, 60), -0.4)
    image[:, :, 30:] = 1.7
    data = data_of(explore(attention, image))
    assert data.side == 12
    assert data.image.shape == (36, 60, 3)
    assert (data.image[:, :30] == 0).all()
    assert (data.image[:, 30:] == 255).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_another_precision_is_shown_as_well(attention, images, dtype):
    shown = explore(attention.to(dtype), images[0].to(dtype))
    assert_carries(shown, attention.to(dtype)[:, 0].double())


def test_fewer_axes_are_those_of_one_block_of_one_image_of_one_head(attention, images):
    expected = explore(attention[1:2, 1:2, 2:3], images[1])
    assert_carries(expected, attention[1:2, 1, 2:3])
    for weights in (attention[1, 1:2, 2:3], attention[1, 1, 2:3], attention[1, 1, 2]):
        assert explore(weights, images[1]).html == expected.html


def test_a_trace_on_an_autograd_graph_stays_as_it_is_and_no_random_number_is_drawn(model, images):
    images.requires_grad_()
    with record(model) as trace:
        model(images)
    before, dice = {name: tensor.clone() for name, tensor in trace.items()}, torch.random.get_rng_state()
    assert_carries(explore(trace, heads=[1]), trace.attention[:, 0, 1:2].detach())
    assert trace["input"] is images
    assert all(torch.equal(trace[name], tensor) for name, tensor in before.items())
    trace.attention.sum().backward()
    assert images.grad is not None
    assert torch.equal(torch.random.get_rng_state(), dice)


def test_a_model_of_grey_images_that_averages_its_patches_is_shown(randomize):
    config = ViTConfig((12, 20), 4, channels=1, dim=32, depth=2, heads=4, hidden=48, classes=5, pooling="mean")
    model, images = randomize(VisionTransformer(config)), torch.rand(1, 1, 12, 20)
    with torch.no_grad(), record(model) as trace:
        model(images)
    assert_carries(explore(trace), trace.attention[:, 0])
    assert (data_of(explore(trace)).image == np.round(255 * images[0].permute(1, 2, 0).numpy())).all()


def test_a_trace_of_one_block_is_shown_over_a_picture_that_is_given(model, images, trace):
    with torch.no_grad(), record(model.blocks[1]) as of_block:
        model.blocks[1](trace["blocks.1"])
    with pytest.raises(ValueError, match="image="):
        explore(of_block)  # its input is tokens
    assert_carries(explore(of_block, images[1], index=1), of_block.attention[:, 1])


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-2.1, 2.6), (0, 255), (0.2, 0.9), (2, 2)])
def test_a_recorded_input_that_was_normalised_is_stretched(model, images, low, high):
    images = (images - images.min()) / (images.max() - images.min())
    images[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    with torch.no_grad(), record(model) as trace:
        model(low + (high - low) * images)
    expected = {(0.2, 0.9): 0.2 + 0.7 * images[0], (2, 2): torch.zeros(3, 12, 20)}.get((low, high), images[0])
    shown = data_of(explore(trace)).image
    np.testing.assert_allclose(shown / 255, expected.permute(1, 2, 0), atol=0.51 / 255)


# The HTML


def test_the_same_content_has_the_same_id_and_other_content_another(attention, images):
    def name_of(shown) -> str:
        name = Page(shown.html).of("div")[0].attributes["id"]
        assert re.fullmatch(r"vit-[0-9a-f]{12}", name)
        assert shown.html.count(name) == 2  # the element and the script that looks for it
        return name

    image = images[0]
    others = [
        explore(attention, image, index=1),
        explore(attention, image, blocks=[1, 0, 2]),
        explore(attention, image, heads=[0]),
        explore(attention, 1 - image),
        explore(0.5 * attention, image),
    ]
    assert explore(attention, image).html == explore(attention, image, blocks=range(3)).html
    assert len({name_of(shown) for shown in (explore(attention, image), *others)}) == 6


def test_the_html_needs_nothing_from_elsewhere_and_styles_nothing_else(attention, images):
    html = explore(attention, images[0]).html
    assert "://" not in html
    assert html.isascii()
    page = Page(html)
    assert [element.tag for element in page.elements] == ["div", "style", "img", "script", "script"]
    (style,), script = page.of("style"), page.of("script")[1].text
    assert not re.search(r"url\(|@import|@font-face", style.text)
    assert not re.search(r"\b(import|require|fetch|XMLHttpRequest|WebSocket|eval|Function|jQuery)\b", script)
    selectors = [selector for rule in re.findall(r"([^{}]+)\{", style.text) for selector in rule.split(",")]
    assert all(selector.strip().startswith(".vit-explorer") for selector in selectors)


def test_the_colours_are_those_of_the_still_pictures(attention, images):
    expected = 255 * matplotlib.colormaps["inferno"](np.linspace(0, 1, 256))[:, :3]
    assert abs(data_of(explore(attention, images[0])).colours - expected).max() <= 0.5


# What cannot be shown

RIGHT = {"trace": torch.full((3, 2, 4, 16, 16), 1 / 16), "image": torch.full((3, 12, 20), 0.5)}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"trace": torch.rand(16)}, r"\(16,\)"),
        ({"trace": torch.rand(1, 3, 2, 4, 16, 16)}, r"\(1, 3, 2, 4, 16, 16\)"),
        ({"trace": torch.rand(1, 1, 4, 16, 20)}, "16 queries to 20 keys"),
        ({"trace": torch.full((4, 16, 16), float("nan"))}, "NaN"),
        ({"trace": torch.randn(4, 16, 16)}, "below 0"),
        ({"image": None}, "image="),
        ({"image": torch.rand(4, 12, 20)}, "not 4"),
        ({"image": torch.rand(2, 3, 12, 20)}, r"\(2, 3, 12, 20\)"),
        ({"image": torch.rand(3, 12, 18)}, "15 patches .or 16.* 12 x 18"),
        ({"image": torch.rand(3, 3, 6)}, "15 patches .or 16.* 3 x 6"),
        ({"trace": softmaxed(2, 1, 4, 17)}, "16 patches .or 17.* 12 x 20"),
        ({"trace": torch.ones(1, 1)}, "0 patches .or 1.* 12 x 20"),
        ({"index": 2}, "index 2 .* 2 images"),
        ({"index": -1}, "index -1 .* 2 images"),
        ({"blocks": [0, 3]}, r"blocks \[0, 3\] .* 0 to 2"),
        ({"blocks": []}, r"blocks \[\] .* 0 to 2"),
        ({"heads": [-1]}, r"heads \[-1\] .* 0 to 3"),
        ({"heads": [0.5]}, r"heads .*\[0\.5\]"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_its_value(wrong, words):
    with pytest.raises(ValueError, match=words):
        explore(**RIGHT | wrong)


def test_a_trace_without_attention_says_so(model, images):
    with torch.no_grad(), record(model, "input") as trace:
        model(images)
    for one in (trace, Trace()):
        with pytest.raises(KeyError, match="no attention weights"):
            explore(one, images[0])


# How much fits


def assert_advice_works(attention, image, **chosen) -> SimpleNamespace:
    """The view is refused; with what its error advises it fits. Returns its data."""
    with pytest.raises(ValueError, match=r"a view of \d+\.\d MB for \d+ blocks and \d+ heads") as caught:
        explore(attention, image, **chosen)
    found = re.search(r"choose blocks=(\[[\d, ]+\])(?: and heads=(\[[\d, ]+\]))?$", str(caught.value))
    assert found, caught.value
    named = zip(("blocks", "heads"), found.groups(), strict=True)
    shown = explore(attention, image, **chosen | {name: json.loads(value) for name, value in named if value})
    assert len(shown.html) <= module.MAX_BYTES
    return data_of(shown)


@pytest.mark.parametrize(
    ("shape", "chosen", "blocks", "heads"),
    [
        ((4, 1, 12, 197), {}, [1, 2, 3], range(12)),
        ((2, 1, 3, 577), {"blocks": [1, 0]}, [0], range(3)),
        ((2, 1, 5, 785), {}, [1], [0, 1]),
        ((2, 1, 5, 785), {"blocks": [0], "heads": [4, 2, 3, 1]}, [0], [4, 2]),
    ],
)
def test_a_view_too_large_says_which_blocks_or_heads_fit(shape, chosen, blocks, heads):
    side = int((shape[-1] - 1) ** 0.5)
    data = assert_advice_works(softmaxed(*shape), torch.rand(3, side, side), **chosen)
    assert (data.blocks, data.heads) == (blocks, list(heads))


@pytest.mark.parametrize(
    ("side", "grid", "words"), [(1080, 4, "1080 x 1080 pixels"), (36, 36, "1297 tokens")], ids=["picture", "patches"]
)
def test_where_not_even_one_head_fits_the_picture_or_the_patches_are_blamed(side, grid, words):
    with pytest.raises(ValueError, match=words):
        explore(softmaxed(1, 1, 1, 1 + grid * grid), torch.rand(3, side, side))


@pytest.mark.parametrize("room", [1, 3, 4, 7, 8, 11])
def test_as_much_is_advised_as_there_is_room_for(monkeypatch, room):
    weights, image = softmaxed(3, 1, 4, 101), torch.rand(3, 40, 40)
    monkeypatch.setattr(module, "MAX_BYTES", len(explore(weights, image).html) + 4000 - (12 - room) * 14678)
    data = assert_advice_works(weights, image)
    assert len(data.blocks) * len(data.heads) == (room if room < 4 else room // 4 * 4)
