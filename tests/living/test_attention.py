"""The picture of attention as bytes: what it carries is decoded again and compared with the trace."""

import base64
import io
import json
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from tests.widgets.panels import Page, carried, unpacked
from vit_walkthrough import Trace, record
from vit_walkthrough.draw import plot_heads, render
from vit_walkthrough.living import live, page
from vit_walkthrough.weights.checkpoint import in_eight_bits


def softmaxed(*shape: int):
    """Attention (blocks batch heads tokens), with one axis more for the keys."""
    return (3 * torch.randn(*shape, shape[-1])).softmax(dim=-1)


@pytest.fixture
def attention():
    """Of 3 x 5 patches and the class token, which in one block takes nearly all; one query there looks at no patch."""
    weights = softmaxed(3, 2, 4, 16)
    weights[1, ..., 1:] *= 1e-4
    weights[1, ..., 0] = 1 - weights[1, ..., 1:].sum(dim=-1)
    weights[1, :, 2, 7] = torch.eye(16)[0]
    return weights


def assert_carries(shown, attention) -> None:
    """The data are this attention (blocks, heads, queries, keys) to within the rounding of 8 bits, row by row."""
    expected, data = np.asarray(attention, dtype=np.float64), carried(shown)
    first = data["first"]
    steps = expected[..., first:].max(axis=-1, keepdims=True) / 255
    assert data["weights"].shape == expected.shape
    assert (abs(data["weights"] - expected)[..., first:] <= 0.501 * steps + 1e-9).all()
    np.testing.assert_allclose(data["weights"][..., :first], expected[..., :first], rtol=1e-6, atol=1e-12)


def test_one_bundle_holds_the_html_and_the_still_picture_with_its_text(attention, images):
    shown = live("attention", attention, images[0])
    bundle, metadata = DisplayFormatter().format(shown)
    assert bundle.keys() == {"text/html", "image/png", "text/plain"}
    assert (bundle["text/html"], bundle["text/plain"]) == (shown.html, shown.text)
    assert metadata == {"image/png": {"alt": shown.text}}
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).mode != "RGBA"
    still = Page(shown.html)
    assert (still.png, still.attributes["img"]["alt"]) == (shown.png, shown.text)
    # The HTML needs nothing from elsewhere, and styles nothing else.
    assert "://" not in shown.html.replace(
        "http://www.w3.org/2000/svg", ""
    )  # the name of a kind of element, never asked
    assert (shown.html.isascii(), still.tags) == (True, ["div", "style", "img", "script", "script"])
    style = re.search(r"<style>(.*?)</style>", shown.html, re.DOTALL)[1]
    assert all(line.lstrip().startswith((".vit-", "@container", "@media", "}")) for line in style.splitlines() if line)


@pytest.mark.parametrize("first", [1, 0])
def test_still_picture_and_text_are_of_the_class_token_or_the_middle_patch_in_the_last_block(images, first):
    weights, query = softmaxed(3, 2, 4, 15 + first), 0 if first else 7
    shown = live("attention", weights[:, 1:], images[1], blocks=[0, 1], heads=[0, 1, 3])
    chosen = weights[1, 1, [0, 1, 3], query, first:]
    maps, titles = chosen.unflatten(-1, (3, 5)), ["head 0", "head 1", "head 3"]
    look = dict(cols=3, first=True, query=None if first else query)
    expected = plot_heads(images[1], maps, titles=titles, peak=maps.max().item(), **look)
    assert shown.png == render(expected, caption=shown.text, colours=64, small=0)
    most, best = chosen.mean(dim=0).max(dim=0)
    who = "the class token" if first else "the patch in row 1, column 2"
    assert shown.text.startswith(f"Where {who} looks in block 1, a map for each of 3 of 4 heads")
    assert f"On their mean, the patch in row {best // 5}, column {best % 5} gets the most, {most:.2f}" in shown.text
    assert "mean" not in live("attention", weights[:, 1:], images[1], heads=[1]).text


@pytest.mark.parametrize(("blocks", "heads"), [(None, None), ([1, 0], [3, 1]), (range(1), (2, 2))])
def test_blocks_and_heads_are_chosen_in_their_order(model, images, blocks, heads):
    with torch.no_grad(), record(model) as trace:
        model(images)
    shown = live("attention", trace, images[0], blocks=blocks, heads=heads)
    blocks, heads = list(blocks or range(2)), list(heads or range(4))
    assert_carries(shown, trace.attention[blocks][:, 0][:, heads])
    data = carried(shown)
    assert (data["blocks"], data["heads"], data["rows"], data["cols"], data["first"]) == (blocks, heads, 3, 5, 1)
    np.testing.assert_allclose(data["image"] / 255, images[0].permute(1, 2, 0), atol=0.501 / 255)
    of_weights = live("attention", trace.attention.numpy(), images[0].numpy(), blocks=blocks, heads=heads)
    assert (carried(of_weights)["weights"] == data["weights"]).all()


def test_fewer_axes_are_those_of_one_block_of_one_image_of_one_head_and_any_precision_is_shown(attention, images):
    expected = live("attention", attention[1:2, 1:2, 2:3], images[1])
    assert_carries(expected, attention[1:2, 1, 2:3])
    for weights in (attention[1, 1:2, 2:3], attention[1, 1, 2:3], attention[1, 1, 2], attention[1, 1, 2].double()):
        assert live("attention", weights, images[1]).html == expected.html
    halves = attention.bfloat16()
    assert_carries(live("attention", halves, images[0].bfloat16()), halves[:, 0].double())
    # An image may be larger or grey, and is cut off at black and white.
    image = torch.tensor([-0.4, 1.7]).repeat_interleave(30).expand(1, 36, 60)
    data = carried(live("attention", attention, image))
    assert (data["rows"], data["cols"]) == (3, 5)
    np.testing.assert_array_equal(data["image"], np.repeat([0, 255], 30)[None, :, None].repeat(36, 0).repeat(3, 2))


def test_a_trace_on_an_autograd_graph_stays_as_it_is_and_no_random_number_is_drawn(model, images):
    images.requires_grad_()
    with record(model) as trace:
        model(images)
    before, dice = {name: tensor.clone() for name, tensor in trace.items()}, torch.random.get_rng_state()
    assert_carries(live("attention", trace, images[0], heads=[1]), trace.attention[:, 0, 1:2].detach())
    assert all(torch.equal(trace[name], tensor) for name, tensor in before.items())
    assert torch.equal(torch.random.get_rng_state(), dice)
    with pytest.raises(KeyError, match="no attention weights"):
        live("attention", Trace(input=images), images[0])


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_shown_is_refused_with_its_value(attention, images):
    odd = {r"\(16,\)": torch.rand(16), r"\(1, 1, 4, 16, 20\)": torch.rand(1, 1, 4, 16, 20), "below 0": -attention}
    odd |= {"NaN": attention * torch.nan, "0 patches .or 1.* 12 x 20": torch.ones(1, 1)}
    wrong = {words: {"seen": seen} for words, seen in odd.items()}
    wrong |= {r"\(4, 12, 20\)": {"image": torch.rand(4, 12, 20)}}
    wrong |= {"15 patches .or 16.* 12 x 18": {"image": torch.rand(3, 12, 18)}}
    wrong |= {r"blocks \[0, 3\] .* 0 to 2": {"blocks": [0, 3]}, r"heads \[\] .* 0 to 3": {"heads": []}}
    for words, change in (wrong | {r"heads .*\[0\.5\]": {"heads": [0.5]}}).items():
        with pytest.raises(ValueError, match=words):
            live("attention", **dict(seen=attention, image=images[0]) | change)


def test_a_picture_that_is_too_large_is_refused_with_its_size(monkeypatch, attention, images):
    monkeypatch.setattr(page, "MAX_BYTES", size := len(live("attention", attention, images[0]).payload))
    live("attention", attention, images[0])
    monkeypatch.setattr(page, "MAX_BYTES", size - 1)
    with pytest.raises(ValueError, match=rf"{size / 1e6:.1f} MB"):
        live("attention", attention, images[0])


def test_a_model_travels_in_eight_bits_with_its_image_in_sixteen(model, images):
    shown = live("attention", model, images[0], classes=[*"abcde"])
    data, expected = json.loads(shown.payload), in_eight_bits(model.state_dict())
    assert data["weights"].keys() == expected.keys()
    assert all(np.array_equal(unpacked(data["weights"][name]), tensor) for name, tensor in expected.items())
    assert data["config"] == json.loads(json.dumps(asdict(model.config)))
    np.testing.assert_allclose(unpacked(data["image"]) / 65535, images[0], atol=0.501 / 65535)
    assert data["classes"] == [*"abcde"]
    with pytest.raises(ValueError, match="2 names of classes, but the model has 5"):
        live("attention", model, images[0], classes=["a", "b"])
