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

from vit_walkthrough import VisionTransformer, ViTConfig, explorer, record
from vit_walkthrough.explorer import LIMIT, Explorer, explore
from vit_walkthrough.trace import Trace


def traced(attention, images=None) -> Trace:
    """A trace of this attention (layers, batch, heads, queries, keys), as if a model had been recorded."""
    trace = Trace()
    if images is not None:
        trace._tensors["input"] = images
    for layer, weights in enumerate(attention):
        trace._tensors[f"blocks.{layer}.attention.weights"] = weights
    return trace


def softmaxed(layers: int, batch: int, heads: int, tokens: int):
    return (3 * torch.randn(layers, batch, heads, tokens, tokens)).softmax(dim=-1)


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
    """What the script reads, decoded; `weights` is (layers, heads, queries, keys)."""
    (carrier,) = [
        script for script in Page(shown.html).of("script") if getattr(script, "type", "") == "application/json"
    ]
    data = json.loads(carrier.text)
    raw = {
        name: base64.b64decode(data[name].split(",")[1], validate=True)
        for name in ("attention", "peaks", "class", "colours")
    }
    patches = data["rows"] * data["cols"]
    shape = (len(data["layers"]), len(data["heads"]), patches + 1)
    shades = np.frombuffer(raw["attention"], np.uint8).reshape(*shape, patches)
    peaks = np.frombuffer(raw["peaks"], "<f4").reshape(*shape, 1)
    own = np.frombuffer(raw["class"], "<f4").reshape(*shape, 1)
    data |= {"shades": shades, "peaks": peaks, "weights": np.concatenate([own, shades / 255 * peaks], axis=-1)}
    data["colours"] = np.frombuffer(raw["colours"], np.uint8).reshape(256, 3)
    data["image"] = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image"].split(",")[1], validate=True))))
    return data


def assert_carries(shown: Explorer, attention) -> None:
    """The data are this attention (layers, heads, queries, keys) to within the rounding of 8 bits, row by row."""
    expected, data = np.asarray(attention, dtype=np.float64), data_of(shown)
    steps = expected[..., 1:].max(axis=-1, keepdims=True) / 255
    assert data["weights"].shape == expected.shape
    assert (abs(data["weights"] - expected)[..., 1:] <= 0.501 * steps + 1e-9).all()
    np.testing.assert_allclose(data["weights"][..., 0], expected[..., 0], rtol=1e-6, atol=1e-12)


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

    chosen = explorer._chosen
    monkeypatch.setattr(explorer, "_chosen", lambda what, *rest: (list, Loud)[what == "layers"](chosen(what, *rest)))
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
    shown = explore(trace, layers=[2, 0], heads=[2])
    assert "looks in block 1, " in shown.text
    assert "the strongest patch, in row 1, column 3, gets 0.85." in shown.text
    assert explore(trace, layers=[0], heads=[2]).png == shown.png
    assert explore(trace, layers=[2], heads=[2]).png != shown.png
    assert explore(trace, layers=[0], heads=[1]).png != shown.png


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
    assert (data["rows"], data["cols"], data["side"]) == (3, 5, 4)
    assert (data["layers"], data["heads"]) == ([0, 1, 2], [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("layers", "heads"), [([1], [3]), ([2, 0], [3, 1]), (range(1, 3), (0,)), ([1, 1], [2, 2]), (None, [0]), ([0], None)]
)
@pytest.mark.parametrize("index", [0, 1])
def test_layers_heads_and_index_choose_in_their_order(trace, attention, layers, heads, index):
    shown, chosen = explore(trace, index=index, layers=layers, heads=heads), data_of(explore(trace))
    layers, heads = list(layers or chosen["layers"]), list(heads or chosen["heads"])
    data = data_of(shown)
    assert (data["layers"], data["heads"]) == (layers, heads)
    assert_carries(shown, np.array([[attention[layer, index, head].numpy() for head in heads] for layer in layers]))


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


# The HTML


def test_the_same_content_has_the_same_id_and_the_same_html(trace):
    one, two = explore(trace), explore(trace, layers=range(3))
    assert one.html == two.html
    name = Page(one.html).of("div")[0].id
    assert re.fullmatch(r"vit-[0-9a-f]{12}", name)
    assert one.html.count(name) == 2  # the element and the script that looks for it


def test_other_content_has_another_id(trace, attention, images):
    shown = [
        explore(trace),
        explore(trace, index=1),
        explore(trace, layers=[0, 1]),
        explore(trace, layers=[1, 0, 2]),
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


def test_a_trace_without_its_input_asks_for_the_image(attention):
    with pytest.raises(ValueError, match="the trace holds no input; record it too, or say image="):
        explore(traced(attention))


@pytest.mark.parametrize("index", [-1, 2, 100])
def test_an_index_outside_the_batch_is_told_how_many_there_are(trace, images, index):
    for image in (None, images[0]):
        with pytest.raises(ValueError, match=f"index {index} is not one of the batch's 2 images"):
            explore(trace, image, index=index)


@pytest.mark.parametrize("chosen", [[3], [-1], [0, 7], []])
def test_layers_that_are_not_there_are_told_which_are(trace, chosen):
    with pytest.raises(ValueError, match=re.escape(f"layers {chosen} are not among 0 to 2")):
        explore(trace, layers=chosen)


@pytest.mark.parametrize("chosen", [[4], [-1], [0, 7], []])
def test_heads_that_are_not_there_are_told_which_are(trace, chosen):
    with pytest.raises(ValueError, match=re.escape(f"heads {chosen} are not among 0 to 3")):
        explore(trace, heads=chosen)


@pytest.mark.parametrize("size", [(12, 18), (20, 20), (16, 16), (1, 1), (1, 2), (3, 6), (20, 3)])
def test_an_image_that_the_patches_do_not_tile_is_told_its_size(trace, size):
    with pytest.raises(ValueError, match=f"15 patches do not tile an image of {size[0]} x {size[1]} pixels"):
        explore(trace, torch.rand(3, *size))


def test_a_trace_without_class_token_is_not_taken_for_one_with(images):
    with pytest.raises(ValueError, match="14 patches do not tile an image of 12 x 20 pixels with squares"):
        explore(traced(softmaxed(2, 2, 4, 15), images))


def test_a_trace_of_the_class_token_alone_has_nothing_to_show(images):
    with pytest.raises(ValueError, match="0 patches do not tile an image of 12 x 20 pixels"):
        explore(traced(softmaxed(2, 2, 4, 1), images))


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_image_is_told_what_one_is(trace):
    with pytest.raises(ValueError, match="an image has 1 or 3 channels, not 4"):
        explore(trace, torch.rand(4, 12, 20))
    with pytest.raises(
        ValueError, match=r"an image is \(channels, height, width\) .* not an array of shape \(2, 3, 12"
    ):
        explore(trace, torch.rand(2, 3, 12, 20))


# How much fits


def follow(error: ValueError, layers: int) -> dict:
    """What the advice of the error says, as arguments."""
    advice = str(error).split("; ")[1]
    if most := re.fullmatch(r"choose at most (\d+) layers", advice):
        return {"layers": list(range(layers))[-int(most[1]) :]}
    found = re.fullmatch(r"choose layers=(\[\d+\])(?: and heads=(\[[\d, ]+\]))?", advice)
    assert found, advice
    return {name: json.loads(value) for name, value in zip(("layers", "heads"), found.groups(), strict=True) if value}


def test_twelve_blocks_of_twelve_heads_are_too_many_and_the_advice_works():
    attention, image = softmaxed(12, 1, 12, 197), torch.rand(3, 28, 28)
    trace = traced(attention, image[None])
    with pytest.raises(ValueError, match=r"^7\.5 MB for 12 layers and 12 heads; choose at most 3 layers$") as caught:
        explore(trace)
    shown = explore(trace, **follow(caught.value, 12))
    assert_carries(shown, attention[9:, 0])
    assert len(shown.html) < 1.1 * LIMIT
    with pytest.raises(ValueError, match=r"2\.5 MB for 4 layers and 12 heads"):
        explore(trace, layers=range(4))


def test_a_block_that_fits_alone_is_named():
    trace = traced(softmaxed(2, 1, 3, 577), torch.rand(1, 3, 24, 24))
    with pytest.raises(ValueError, match=r"^2\.7 MB for 2 layers and 3 heads; choose layers=\[1\]$") as caught:
        explore(trace)
    assert data_of(explore(trace, **follow(caught.value, 2)))["layers"] == [1]


def test_heads_of_which_not_even_one_block_fits_are_named():
    trace = traced(softmaxed(2, 1, 5, 785), torch.rand(1, 3, 28, 28))
    with pytest.raises(ValueError, match=r"2 layers and 5 heads; choose layers=\[1\] and heads=\[0, 1\]$") as caught:
        explore(trace)
    data = data_of(explore(trace, **follow(caught.value, 2)))
    assert (data["layers"], data["heads"]) == ([1], [0, 1])
    with pytest.raises(ValueError, match=r"1 layers and 4 heads; choose layers=\[0\] and heads=\[4, 2\]$"):
        explore(trace, layers=[0], heads=[4, 2, 3, 1])


def test_tokens_too_many_for_one_head_ask_for_larger_patches():
    trace = traced(softmaxed(1, 1, 1, 1 + 36 * 36), torch.rand(1, 3, 36, 36))
    with pytest.raises(
        ValueError, match=r"2\.2 MB for 1 layers and 1 heads; 1297 tokens are too many for a single head"
    ):
        explore(trace)


@pytest.mark.parametrize("room", range(1, 13))
def test_whatever_the_room_the_advice_is_followed_in_one_step(trace, monkeypatch, room):
    monkeypatch.setattr(explorer, "LIMIT", -(-room * 16**2 * 4 // 3))
    if room == 12:
        explore(trace)
        return
    with pytest.raises(ValueError, match="3 layers and 4 heads; choose") as caught:
        explore(trace)
    data = data_of(explore(trace, **follow(caught.value, 3)))
    fitting = len(data["layers"]) * len(data["heads"])
    assert fitting == (room if room < 4 else room // 4 * 4)  # as many as there is room for, with all heads if they fit
