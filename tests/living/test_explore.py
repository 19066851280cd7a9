"""The hover view as bytes: what it carries is decoded again and compared with the trace, without a browser."""

import base64
import html
import io
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from vit_walkthrough import VisionTransformer, ViTConfig, record
from vit_walkthrough.data import photo
from vit_walkthrough.draw.images import plot_heads
from vit_walkthrough.draw.theme import render
from vit_walkthrough.living.explore import MAX_BYTES, Explorer, explore
from vit_walkthrough.look.trace import Trace


def traced(attention, images=None) -> Trace:
    """A trace of this attention (blocks, batch, heads, queries, keys), as if a model had been recorded."""
    trace = Trace()
    if images is not None:
        trace._tensors["input"] = images
    for layer, weights in enumerate(attention):
        trace._tensors[f"blocks.{layer}.attention.weights"] = weights
    return trace


def softmaxed(blocks: int, batch: int, heads: int, tokens: int):
    return (3 * torch.randn(blocks, batch, heads, tokens, tokens)).softmax(dim=-1)


@pytest.fixture
def attention():
    return softmaxed(3, 2, 4, 16)  # 3 x 5 patches and the class token


@pytest.fixture
def trace(attention, images):
    return traced(attention, images)


@pytest.fixture
def recorded(model, images):
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
        assert len(attrs) == len(dict(attrs))
        self.elements.append(
            SimpleNamespace(tag=tag, text="", **{name: value for name, value in attrs if name != "class"})
        )
        if tag != "img":
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].text += data

    def of(self, tag: str) -> list:
        return [element for element in self.elements if element.tag == tag]


def data_of(shown: Explorer) -> dict:
    """What the script reads, decoded; `weights` is (blocks, heads, queries, keys)."""
    (carrier,) = [
        script for script in Page(shown.html).of("script") if getattr(script, "type", "") == "application/json"
    ]
    data = json.loads(carrier.text)
    raw = {
        name: base64.b64decode(data[name].split(",")[1], validate=True)
        for name in ("attention", "peaks", "class", "colours")
    }
    patches, first = data["rows"] * data["cols"], data["first"]
    assert first in (0, 1)
    shape = (len(data["blocks"]), len(data["heads"]), patches + first)
    shades = np.frombuffer(raw["attention"], np.uint8).reshape(*shape, patches)
    peaks = np.frombuffer(raw["peaks"], "<f4").reshape(*shape, 1)
    own = np.frombuffer(raw["class"], "<f4").reshape(*shape, first)
    data |= {"shades": shades, "peaks": peaks, "weights": np.concatenate([own, shades / 255 * peaks], axis=-1)}
    data["colours"] = np.frombuffer(raw["colours"], np.uint8).reshape(256, 3)
    data["image"] = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image"].split(",")[1], validate=True))))
    return data


def assert_carries(shown: Explorer, attention) -> None:
    """The data are this attention (blocks, heads, queries, keys) to within the rounding of 8 bits, row by row."""
    expected, data = np.asarray(attention, dtype=np.float64), data_of(shown)
    first = data["first"]
    steps = expected[..., first:].max(axis=-1, keepdims=True) / 255
    assert data["weights"].shape == expected.shape
    assert (abs(data["weights"] - expected)[..., first:] <= 0.501 * steps + 1e-9).all()
    np.testing.assert_allclose(data["weights"][..., :first], expected[..., :first], rtol=1e-6, atol=1e-12)


def random_states() -> tuple:
    return torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002


# What is shown


def test_the_bundle_is_html_with_a_png_and_an_alt_text_for_who_shows_none(trace):
    shown = explore(trace)
    bundle, metadata = DisplayFormatter().format(shown)
    assert set(bundle) == {"text/html", "image/png", "text/plain"}
    assert bundle["text/html"] == shown.html
    assert bundle["text/plain"] == shown.text
    picture = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"], validate=True)))
    assert picture.format == "PNG"
    assert picture.mode != "RGBA"
    assert metadata == {"image/png": {"alt": shown.text}}


def test_the_still_picture_in_the_html_is_the_png_of_the_bundle_with_its_alt_text(trace):
    shown = explore(trace)
    (still,) = Page(shown.html).of("img")
    start, code = still.src.split(",")
    assert start == "data:image/png;base64"
    assert base64.b64decode(code, validate=True) == shown.png
    assert still.alt == shown.text
    assert f'alt="{html.escape(shown.text)}"' in shown.html


def test_an_alt_text_with_quotes_and_tags_is_escaped(trace, monkeypatch):
    class Loud(list):
        def __getitem__(self, place):
            return Name(super().__getitem__(place))

    class Name(int):
        def __add__(self, other):
            return '"><b>&amp;'

    chosen = explore._chosen
    monkeypatch.setattr(explore, "_chosen", lambda what, *rest: (list, Loud)[what == "blocks"](chosen(what, *rest)))
    shown = explore(trace)
    assert '"><b>&amp;' in shown.text
    page = Page(shown.html)
    assert page.of("img")[0].alt == shown.text
    assert not page.of("b")


def test_the_text_has_the_numbers_of_the_class_token_in_the_last_block(trace, attention):
    shown = explore(trace, index=1)
    sums = [sum(float(attention[2, 1, head, 0, 1 + patch]) for head in range(4)) for patch in range(15)]
    best = max(range(15), key=sums.__getitem__)
    assert shown.text.startswith("Where the class token looks in block 3, head by head")
    assert "an image of 12 x 20 pixels in 3 x 5 patches." in shown.text
    place = re.search(r"the strongest patch, in row (\d+), column (\d+), gets (\d\.\d\d)\.", shown.text)
    assert (int(place[1]), int(place[2])) == (best // 5, best % 5)
    assert float(place[3]) == pytest.approx(sums[best] / 4, abs=0.00501)


def test_the_text_and_the_still_picture_are_of_the_chosen_heads_and_the_last_chosen_block(trace, attention):
    attention[:, 0, :, 0] = 0.01
    attention[0, 0, 2, 0, 1 + 8] = 0.85
    shown = explore(trace, blocks=[2, 0], heads=[2])
    assert "looks in block 1: an image" in shown.text
    assert ". The strongest patch, in row 1, column 3, gets 0.85." in shown.text
    assert explore(trace, blocks=[0], heads=[2]).png == shown.png
    assert explore(trace, blocks=[2], heads=[2]).png != shown.png
    assert explore(trace, blocks=[0], heads=[1]).png != shown.png


def test_the_still_picture_is_of_the_class_token_in_the_last_block(trace, attention, images):
    maps = attention[2, 1, :, 0, 1:].unflatten(-1, (3, 5))
    expected = plot_heads(images[1], maps, titles=[f"head {head}" for head in range(4)])
    shown = explore(trace, index=1)
    assert shown.png == render(expected, caption=shown.text, colours=256)


# What it carries


def test_the_attention_of_a_recorded_model_comes_through(recorded):
    assert_carries(explore(recorded), recorded.attention[:, 0])
    assert_carries(explore(recorded, index=1), recorded.attention[:, 1])


def test_the_strongest_patch_of_every_row_is_carried_at_full_scale(trace):
    data = data_of(explore(trace))
    assert (data["shades"].max(axis=-1) == 255).all()


def test_a_class_token_that_takes_nearly_all_leaves_the_patches_their_steps(attention, images):
    attention[..., 1:] *= 1e-4
    attention[..., 0] = 1 - attention[..., 1:].sum(dim=-1)
    shown = explore(traced(attention, images))
    assert_carries(shown, attention[:, 0])
    assert (data_of(shown)["shades"].max(axis=-1) == 255).all()


def test_a_query_that_looks_only_at_the_class_token_is_no_division_by_zero(attention, images):
    attention[1, 0, 2, 7] = torch.eye(16)[0]
    shown = explore(traced(attention, images))
    assert_carries(shown, attention[:, 0])
    assert data_of(shown)["shades"][1, 2, 7].max() == 0


def test_the_grid_and_the_numbers_of_layers_and_heads_come_through(trace):
    data = data_of(explore(trace))
    assert (data["rows"], data["cols"], data["side"], data["first"]) == (3, 5, 4, 1)
    assert (data["blocks"], data["heads"]) == ([0, 1, 2], [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("blocks", "heads"), [([1], [3]), ([2, 0], [3, 1]), (range(1, 3), (0,)), ([1, 1], [2, 2]), (None, [0]), ([0], None)]
)
@pytest.mark.parametrize("index", [0, 1])
def test_layers_heads_and_index_choose_in_their_order(trace, attention, blocks, heads, index):
    shown, chosen = explore(trace, index=index, blocks=blocks, heads=heads), data_of(explore(trace))
    blocks, heads = list(blocks or chosen["blocks"]), list(heads or chosen["heads"])
    data = data_of(shown)
    assert (data["blocks"], data["heads"]) == (blocks, heads)
    assert_carries(shown, np.array([[attention[layer, index, head].numpy() for head in heads] for layer in blocks]))


def test_the_image_comes_through_to_the_last_bit_of_eight(trace, images):
    for index in (0, 1):
        image = data_of(explore(trace, index=index))["image"]
        assert image.shape == (12, 20, 3)
        np.testing.assert_allclose(image / 255, images[index].permute(1, 2, 0), atol=0.501 / 255)


def test_an_image_that_is_given_replaces_the_recorded_one(model, images):
    with torch.no_grad(), record(model, "*.weights") as trace:
        model(images)
    other = torch.rand(3, 12, 20)
    assert (data_of(explore(trace, other, index=1))["image"] == np.round(255 * other.permute(1, 2, 0).numpy())).all()
    assert_carries(explore(trace, other, index=1), trace.attention[:, 1])


def test_an_image_of_more_pixels_than_the_model_saw_has_larger_patches(trace):
    data = data_of(explore(trace, torch.rand(3, 36, 60)))
    assert (data["rows"], data["cols"], data["side"]) == (3, 5, 12)


def test_what_lies_beyond_black_and_white_is_cut_not_wrapped_around(trace):
    image = torch.full((3, 12, 20), -0.4)
    image[:, :, 10:] = 1.7
    shown = data_of(explore(trace, image))["image"]
    assert (shown[:, :10] == 0).all()
    assert (shown[:, 10:] == 255).all()


def test_a_grey_image_of_one_channel_is_carried_in_three(config, randomize):
    config = ViTConfig(image_size=(12, 20), patch_size=4, channels=1, dim=32, depth=2, heads=4, hidden=48, classes=5)
    model, images = randomize(VisionTransformer(config)), torch.rand(1, 1, 12, 20)
    with torch.no_grad(), record(model) as trace:
        model(images)
    image = data_of(explore(trace))["image"]
    assert (image == np.round(255 * images[0].permute(1, 2, 0).numpy()).repeat(3, axis=2)).all()


def test_a_model_that_averages_its_patches_is_shown_too(randomize, images):
    config = ViTConfig((12, 20), 4, dim=32, depth=2, heads=4, hidden=48, classes=5, pooling="mean")
    model = randomize(VisionTransformer(config))
    with torch.no_grad(), record(model) as trace:
        model(images)
    assert_carries(explore(trace), trace.attention[:, 0])


def test_the_colours_are_those_of_the_still_pictures(trace):
    import matplotlib

    expected = 255 * matplotlib.colormaps["inferno"](np.linspace(0, 1, 256))[:, :3]
    assert abs(data_of(explore(trace))["colours"] - expected).max() <= 0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_another_precision_is_shown_as_well(attention, images, dtype):
    shown = explore(traced(attention.to(dtype), images.to(dtype)))
    assert_carries(shown, attention.to(dtype)[:, 0].double())
    image = images.to(dtype)[0].permute(1, 2, 0).double()
    np.testing.assert_allclose(data_of(shown)["image"] / 255, image, atol=0.501 / 255)


def test_a_trace_on_an_autograd_graph_is_shown_and_stays_on_it(model, images):
    images.requires_grad_()
    with record(model) as trace:
        model(images)
    assert_carries(explore(trace), trace.attention[:, 0].detach())
    assert trace["input"] is images
    trace.attention.sum().backward()
    assert images.grad is not None


def test_nothing_of_the_trace_is_changed(trace):
    before = {name: tensor.clone() for name, tensor in trace.items()}
    explore(trace, index=1, heads=[1])
    assert trace.names == list(before)
    assert all(torch.equal(trace[name], before[name]) for name in before)


def test_no_random_number_is_drawn(trace):
    before = random_states()
    explore(trace)
    assert random_states() == before


# Attention weights themselves


def test_attention_weights_are_shown_as_their_trace_is(trace, attention, images):
    assert explore(attention, images[0]).html == explore(trace).html
    chosen = {"index": 1, "blocks": [2, 0], "heads": [3, 1]}
    assert explore(attention, images[1], **chosen).html == explore(trace, **chosen).html


def test_numpy_s_arrays_are_shown_as_torch_s_tensors_are(attention, images):
    of_numpy = explore(attention.numpy(), images[0].numpy())
    assert of_numpy.html == explore(attention, images[0]).html


def test_fewer_axes_are_those_of_one_layer_of_one_image_of_one_head(attention, images):
    one = attention[1:2, 1:2, 2:3]
    expected = explore(traced(one, images[1:]))
    for weights in (one, one[0], one[0, 0], one[0, 0, 0]):
        shown = explore(weights, images[1])
        assert_carries(shown, one[:, 0])
        assert shown.html == expected.html
    data = data_of(explore(attention[2], images[1], index=1, heads=[3, 0]))
    assert (data["blocks"], data["heads"]) == ([0], [3, 0])
    assert_carries(explore(attention[2], images[1], index=1), attention[2:, 1])
    assert_carries(explore(attention[2, 1], images[1]), attention[2:, 1])


def test_weights_of_one_block_on_an_autograd_graph_are_shown_and_stay_on_it(model, images):
    images.requires_grad_()
    with record(model) as trace:
        model(images)
    weights = trace["blocks.1.attention.weights"]
    assert_carries(explore(weights, images[1], index=1), weights[None, 1].detach())
    weights.sum().backward()
    assert images.grad is not None


def test_a_trace_of_one_block_is_shown_over_a_picture_that_is_given(model, images):
    with torch.no_grad(), record(model) as whole:
        model(images)
    with torch.no_grad(), record(model.blocks[1]) as trace:
        model.blocks[1](whole["blocks.1"])
    with pytest.raises(ValueError, match=r"no picture was recorded; .* say image="):
        explore(trace)  # its input is tokens
    assert_carries(explore(trace, images[1], index=1), trace.attention[:, 1])


# Patches without a class token


@pytest.fixture
def bare():
    return softmaxed(3, 2, 4, 15)  # 3 x 5 patches and no class token


def test_attention_without_class_token_comes_through(bare, images):
    for index in (0, 1):
        shown = explore(traced(bare, images), index=index)
        assert_carries(shown, bare[:, index])
        assert explore(bare, images[index], index=index).html == shown.html
    data = data_of(shown)
    assert (data["rows"], data["cols"], data["side"], data["first"]) == (3, 5, 4, 0)
    assert (data["shades"].max(axis=-1) == 255).all()
    assert data["weights"].shape == (3, 4, 15, 15)


def test_without_class_token_the_text_has_the_numbers_of_the_middle_patch(bare, images):
    bare[1, 0, :, 7, :] = 0.01
    bare[1, 0, 3, 7, 11] = 0.81
    shown = explore(traced(bare, images), blocks=[0, 1])
    assert shown.text.startswith("Where the patch in row 1, column 2 looks in block 2, head by head")
    assert "an image of 12 x 20 pixels in 3 x 5 patches." in shown.text
    assert "the strongest patch, in row 2, column 1, gets 0.21." in shown.text
    assert "class" not in shown.text


def test_without_class_token_the_still_picture_is_of_the_middle_patch_which_is_outlined(bare, images):
    maps, titles = bare[2, 1, :, 7].unflatten(-1, (3, 5)), [f"head {head}" for head in range(4)]
    shown = explore(bare, images[1], index=1)
    outlined, plain = (plot_heads(images[1], maps, titles=titles, query=query) for query in (7, None))
    assert shown.png == render(outlined, caption=shown.text, colours=256)
    assert shown.png != render(plain, caption=shown.text, colours=256)


@pytest.mark.parametrize(
    ("rows", "cols", "row", "col"), [(1, 2, 0, 1), (2, 1, 1, 0), (2, 3, 1, 1), (4, 4, 2, 2), (5, 2, 2, 1), (1, 7, 0, 3)]
)
def test_the_middle_patch_of_every_grid(rows, cols, row, col):
    weights, image = softmaxed(1, 1, 2, rows * cols), torch.rand(3, 4 * rows, 4 * cols)
    shown = explore(weights, image)
    assert_carries(shown, weights[:, 0])
    assert shown.text.startswith(f"Where the patch in row {row}, column {col} looks, head by head: ")
    mean = weights[0, 0, :, row * cols + col].mean(dim=0)
    best = int(mean.argmax())
    assert f"in row {best // cols}, column {best % cols}, gets {mean[best]:.2f}." in shown.text


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 2), (2, 1), (1, 3), (2, 2), (3, 5), (5, 3), (6, 6), (1, 16)])
@pytest.mark.parametrize("side", [1, 2, 7])
@pytest.mark.parametrize("first", [0, 1])
def test_no_grid_is_taken_for_another(rows, cols, side, first):
    tokens = rows * cols + first
    if tokens == 1:
        return  # the class token alone, or what cannot be told from it
    assert explore._grid(tokens, rows * side, cols * side) == (side, first)


# The HTML


def test_the_same_content_has_the_same_id_and_the_same_html(trace):
    one, two = explore(trace), explore(trace, blocks=range(3))
    assert one.html == two.html
    name = Page(one.html).of("div")[0].id
    assert re.fullmatch(r"vit-[0-9a-f]{12}", name)
    assert one.html.count(name) == 2  # the element and the script that looks for it


def test_other_content_has_another_id(trace, attention, images):
    shown = [
        explore(trace),
        explore(trace, index=1),
        explore(trace, blocks=[0, 1]),
        explore(trace, blocks=[1, 0, 2]),
        explore(trace, heads=[0]),
        explore(trace, 1 - images[0]),
        explore(traced(attention.flip(-1), images)),
        explore(traced(0.5 * attention, images)),
    ]
    names = [Page(one.html).of("div")[0].id for one in shown]
    assert len(set(names)) == len(names)


def test_the_html_needs_nothing_from_elsewhere(trace):
    shown = explore(trace)
    assert "://" not in shown.html
    page = Page(shown.html)
    assert [element.tag for element in page.elements] == ["div", "style", "img", "script", "script"]
    for element in page.elements:
        assert set(vars(element)) <= {"tag", "text", "id", "alt", "src", "type"}
    assert page.of("img")[0].src.startswith("data:image/png;base64,")
    assert not hasattr(page.of("script")[0], "src")
    assert not re.search(r"url\(|@import|@font-face", page.of("style")[0].text)
    script = page.of("script")[1].text
    for word in ("import", "require", "fetch", "XMLHttpRequest", "WebSocket", "eval", "Function", "jQuery", "\\$"):
        assert not re.search(rf"(?<!\w){word}\b", script), word


def test_no_rule_of_the_style_reaches_beyond_the_view(trace):
    style = Page(explore(trace).html).of("style")[0].text
    rules = re.findall(r"([^{}]+)\{[^{}]*\}", style)
    assert len(rules) > 10
    for rule in rules:
        for selector in rule.split(","):
            assert selector.strip().startswith(".vit-explorer")


def test_a_notebook_can_hold_the_html_as_it_is(trace):
    shown = explore(trace)
    assert json.loads(json.dumps(shown.html)) == shown.html
    assert "<!--" not in shown.html
    assert shown.html.isascii()


# What cannot be shown


def test_a_trace_without_attention_says_so_itself(model, images):
    with torch.no_grad(), record(model, "input") as trace:
        model(images)
    with pytest.raises(KeyError, match="no attention weights were recorded; run the model inside `with record"):
        explore(trace)
    with pytest.raises(KeyError, match="no attention weights were recorded"):
        explore(Trace(), images[0])


def test_without_a_recorded_picture_one_is_asked_for(attention):
    for one in (traced(attention), attention, attention[0, 0, 0]):
        with pytest.raises(
            ValueError, match="no picture was recorded; record the whole model, with its input, or say image="
        ):
            explore(one)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("shape", [(), (16,), (1, 3, 2, 4, 16, 16)])
def test_weights_of_other_axes_are_told_which_they_have(images, shape):
    message = re.escape(f"attention of shape {shape}; it is (blocks batch heads queries keys) or less")
    with pytest.raises(ValueError, match=message):
        explore(torch.rand(shape), images[0])


@pytest.mark.parametrize(("queries", "keys"), [(16, 20), (15, 16), (16, 15), (1, 16)])
def test_weights_that_are_not_of_the_same_queries_and_keys_are_told_so(images, queries, keys):
    with pytest.raises(ValueError, match=f"{queries} queries .*{keys} keys"):
        explore(torch.rand(2, 1, 4, queries, keys), images[0])


@pytest.mark.parametrize("index", [-1, 2, 100])
def test_an_index_outside_the_batch_is_told_how_many_there_are(trace, images, index):
    for image in (None, images[0]):
        with pytest.raises(ValueError, match=f"index {index} is not one of the batch's 2 images"):
            explore(trace, image, index=index)


@pytest.mark.parametrize("chosen", [[3], [-1], [0, 7], []])
def test_layers_that_are_not_there_are_told_which_are(trace, chosen):
    with pytest.raises(ValueError, match=re.escape(f"blocks {chosen} are not among 0 to 2")):
        explore(trace, blocks=chosen)


@pytest.mark.parametrize("chosen", [[4], [-1], [0, 7], []])
def test_heads_that_are_not_there_are_told_which_are(trace, chosen):
    with pytest.raises(ValueError, match=re.escape(f"heads {chosen} are not among 0 to 3")):
        explore(trace, heads=chosen)


@pytest.mark.parametrize("size", [(12, 18), (20, 21), (16, 17), (1, 1), (1, 2), (3, 6), (20, 3)])
def test_an_image_that_the_patches_do_not_tile_is_told_its_size(trace, size):
    with pytest.raises(ValueError, match=untiled(15, *size)):
        explore(trace, torch.rand(3, *size))


def untiled(patches: int, height: int, width: int) -> str:
    return re.escape(
        f"{patches} patches (or {patches + 1}, without a class token) do not tile an image of {height} x {width} pixels"
        " with squares"
    )


@pytest.mark.parametrize("tokens", [14, 17, 2, 59])
def test_so_many_tokens_that_the_image_has_neither_with_nor_without_a_class_token_are_told(images, tokens):
    with pytest.raises(ValueError, match=untiled(tokens - 1, 12, 20)):
        explore(traced(softmaxed(2, 2, 4, tokens), images))


@pytest.mark.parametrize("size", [(12, 20), (4, 4), (1, 1)])
def test_a_trace_of_the_class_token_alone_has_nothing_to_show(size):
    with pytest.raises(ValueError, match=untiled(0, *size)):
        explore(traced(softmaxed(2, 2, 4, 1), torch.rand(2, 3, *size)))


def test_a_single_patch_behind_a_class_token_is_shown():
    weights = softmaxed(1, 1, 2, 2)
    assert_carries(explore(traced(weights, torch.rand(1, 3, 4, 4))), weights[:, 0])


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_image_is_told_what_one_is(trace):
    with pytest.raises(ValueError, match="an image has 1 or 3 channels, not 4"):
        explore(trace, torch.rand(4, 12, 20))
    with pytest.raises(
        ValueError, match=r"an image is \(channels, height, width\) .* not an array of shape \(2, 3, 12"
    ):
        explore(trace, torch.rand(2, 3, 12, 20))


# How much fits


def follow(error: ValueError, blocks: list[int]) -> list[dict]:
    """What the advice of the error says, as arguments: every way to follow it that differs."""
    advice = str(error).split("; ")[1]
    if most := re.fullmatch(r"choose at most (\d+) blocks", advice):
        return [{"blocks": blocks[-int(most[1]) :]}, {"blocks": blocks[: int(most[1])]}]
    found = re.fullmatch(r"choose blocks=(\[[\d, ]+\])(?: and heads=(\[[\d, ]+\]))?", advice)
    assert found, advice
    named = zip(("blocks", "heads"), found.groups(), strict=True)
    return [{name: json.loads(value) for name, value in named if value}]


def assert_advice_works(trace: Trace, *image, **chosen) -> dict:
    """Followed in one step, in any way, the advice leads to a view that fits; how much of it is returned."""
    with pytest.raises(ValueError, match=r"^a view of \d+\.\d MB for \d+ blocks and \d+ heads, above") as caught:
        explore(trace, *image, **chosen)
    for way in follow(caught.value, list(chosen.get("blocks", range(len(trace.attention))))):
        shown = explore(trace, *image, **(chosen | way))
        assert len(shown.html) <= explore.MAX_BYTES
    return data_of(shown)


def test_twelve_blocks_of_twelve_heads_are_too_many_and_the_advice_works():
    attention, image = softmaxed(12, 1, 12, 197), torch.rand(3, 28, 28)
    trace = traced(attention, image[None])
    message = (
        r"^a view of 7\.8 MB for 12 blocks and 12 heads, above 2; choose (at most [23] blocks|blocks=\[(9, )?10, 11\])$"
    )
    with pytest.raises(ValueError, match=message) as caught:
        explore(trace)
    for way in follow(caught.value, list(range(12))):
        shown = explore(trace, **way)
        assert_carries(shown, attention[way["blocks"], 0])
        assert len(shown.html) <= MAX_BYTES
    with pytest.raises(ValueError, match=r"a view of 2\.[67] MB for 4 blocks and 12 heads"):
        explore(trace, blocks=range(4))


def test_a_block_that_fits_alone_is_named():
    trace = traced(softmaxed(2, 1, 3, 577), torch.rand(1, 3, 24, 24))
    message = r"^a view of 2\.7 MB for 2 blocks and 3 heads, above 2; choose blocks=\[1\]$"
    with pytest.raises(ValueError, match=message):
        explore(trace)
    assert assert_advice_works(trace)["blocks"] == [1]
    assert assert_advice_works(trace, blocks=[1, 0])["blocks"] == [0]


def test_heads_of_which_not_even_one_block_fits_are_named():
    trace = traced(softmaxed(2, 1, 5, 785), torch.rand(1, 3, 28, 28))
    with pytest.raises(ValueError, match=r"2 blocks and 5 heads, above 2; choose blocks=\[1\] and heads=\[0, 1\]$"):
        explore(trace)
    data = assert_advice_works(trace)
    assert (data["blocks"], data["heads"]) == ([1], [0, 1])
    data = assert_advice_works(trace, blocks=[0], heads=[4, 2, 3, 1])
    assert (data["blocks"], data["heads"]) == ([0], [4, 2])


def test_tokens_too_many_for_one_head_ask_for_larger_patches():
    trace = traced(softmaxed(1, 1, 1, 1 + 36 * 36), torch.rand(1, 3, 36, 36))
    message = r"a view of 2\.3 MB for 1 blocks and 1 heads, above 2; 1297 tokens are too many for a single head"
    with pytest.raises(ValueError, match=message):
        explore(trace)


def test_the_whole_view_counts_its_picture_as_well():
    trace, picture = traced(softmaxed(3, 1, 12, 197)), torch.rand(3, 560, 560)
    assert len(explore(trace, picture[:, ::20, ::20], blocks=[1, 2]).html) <= MAX_BYTES
    with pytest.raises(ValueError, match=r"a view of 2\.\d MB for 2 blocks and 12 heads"):
        explore(trace, picture, blocks=[1, 2])
    data = assert_advice_works(trace, picture, blocks=[1, 2])
    assert data["image"].shape == (560, 560, 3)


def test_a_picture_that_is_too_large_itself_is_not_blamed_on_the_patches(trace):
    message = r"for 3 blocks and 4 heads, above 2; .*picture of 960 x 1600 pixels"
    with pytest.raises(ValueError, match=message) as caught:
        explore(trace, torch.rand(3, 960, 1600))
    assert "larger patches" not in str(caught.value)


@pytest.fixture(scope="module")
def larger():
    """A trace of 3 blocks of 4 heads, and the size of its view; the size of one head of one layer is 14678."""
    torch.manual_seed(0)
    trace = traced(softmaxed(3, 1, 4, 101), torch.rand(1, 3, 40, 40))
    return trace, len(explore(trace).html)


@pytest.mark.parametrize("room", range(1, 13))
def test_whatever_the_room_the_advice_is_followed_in_one_step(larger, monkeypatch, room):
    trace, size = larger
    monkeypatch.setattr(explore, "MAX_BYTES", size + 4000 - (12 - room) * 14678)  # up to 4000 bytes of caution
    if room == 12:
        assert len(explore(trace).html) <= explore.MAX_BYTES
        return
    data = assert_advice_works(trace)
    fitting = len(data["blocks"]) * len(data["heads"])
    assert fitting == (room if room < 4 else room // 4 * 4)  # as many as there is room for, with all heads if they fit


def test_no_room_at_all_is_no_endless_search(larger, monkeypatch):
    trace, size = larger
    for limit in (size + 4000 - 12 * 14678, 1000, 0):
        monkeypatch.setattr(explore, "MAX_BYTES", limit)
        with pytest.raises(ValueError, match="for 3 blocks and 4 heads"):
            explore(trace)


def test_the_advice_works_also_where_fewer_heads_stand_in_a_larger_still_picture(monkeypatch):
    picture = torch.as_tensor(photo("cat")).float()[:, :224, :224]
    trace = traced(softmaxed(1, 1, 6, 50), picture[None])
    monkeypatch.setattr(explore, "MAX_BYTES", 10**9)
    sizes = [len(explore(trace, heads=range(count)).html) for count in range(1, 7)]
    assert max(sizes[1:5]) > sizes[5]
    for limit in range(sizes[5] - 12_000, sizes[5], 1300):
        explore.MAX_BYTES = limit  # which monkeypatch takes back
        assert_advice_works(trace)


@pytest.mark.parametrize("colour", [-1.0, 2.0])
def test_a_recorded_input_of_one_colour_outside_of_0_to_1_is_black(colour):
    trace = traced(softmaxed(1, 1, 2, 17), torch.full((1, 3, 32, 32), colour))
    assert explore(trace).html == explore(trace, torch.zeros(3, 32, 32)).html


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-2.1, 2.6), (0, 255), (0.2, 0.9)])
def test_a_recorded_input_that_was_normalised_is_stretched_and_a_chosen_image_never(low, high):
    picture = torch.rand(1, 3, 32, 32)
    picture = (picture - picture.min()) / (picture.max() - picture.min())
    trace = traced(softmaxed(1, 1, 2, 17), low + (high - low) * picture)
    shown = picture[0] if (low, high) != (0.2, 0.9) else trace["input"][0]
    assert explore(trace).html == explore(trace, shown).html
    assert explore(trace, trace["input"][0].clamp(0, 1)).html == explore(trace, trace["input"][0]).html


def test_the_advice_works_for_whichever_layers_are_chosen(monkeypatch):
    attention = softmaxed(3, 1, 4, 101)
    attention[2] = 1 / 101  # of which the still picture is smaller than those of the others
    trace = traced(attention, torch.rand(1, 3, 160, 160))
    monkeypatch.setattr(explore, "MAX_BYTES", 10**9)
    sizes = sorted(len(explore(trace, blocks=blocks).html) for blocks in ([1, 2], [0, 1]))
    assert sizes[0] < sizes[1] - 500
    for limit in range(sizes[0], sizes[1] + 4000, 700):
        explore.MAX_BYTES = limit
        assert_advice_works(trace)
