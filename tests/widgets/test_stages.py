"""What the panels over untrained stages say and show, computed again by other means."""

from math import log2

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.widgets.panels import numbers, turn
from vit_walkthrough import ClassToken, Encoder, MultiHeadSelfAttention, PatchEmbedding, ViTConfig, data, widgets
from vit_walkthrough.model.config import SIZES
from vit_walkthrough.model.patches import patchify


def made(build, *sizes):
    torch.manual_seed(0)
    return build(*sizes).eval()


@pytest.mark.parametrize(("size", "name"), [*zip((4, 32, 224), data.PHOTOS, strict=True)])
def test_explore_patches_cuts_the_photo_and_counts(spy, size, name):
    grids, tiles, panel = spy("plot_grid"), spy("plot_patches"), widgets.explore_patches()
    turn(panel, patch_size=size, photo_name=name)
    patches, image, last = (224 // size) ** 2, data.photo(name, 224), tiles[-1][0][0][-1]
    said = numbers(panel.text, r"= ([\d,]+) patches.* token ([\d,]+) tokens.* = ([\d,]+) numbers.* ([\d,]+) pairs")
    assert said == [patches, patches + 1, 3 * size**2, (patches + 1) ** 2]
    torch.testing.assert_close(grids[-1][0][0], image, rtol=0, atol=0)
    torch.testing.assert_close(last.reshape(3, size, size), image[:, -size:, -size:], rtol=0, atol=0)


@pytest.mark.parametrize(("place", "temperature", "scaled"), [((0, 0), 0.1, 1), ((3, 1), 1.0, 0), ((1, 3), 100.0, 1)])
def test_explore_attention_shows_the_softmax_of_the_scores(spy, place, temperature, scaled):
    row, col = place
    image, queries, keys = torch.rand(3, 32, 32), torch.randn(16, 5, requires_grad=True), torch.randn(16, 5)
    shown, panel = spy("plot_attention"), widgets.explore_attention(image, queries, keys)
    turn(panel, row=row, col=col, temperature=temperature, scores="divided by √head_dim" if scaled else "as they are")
    scores = (queries.detach()[4 * row + col] * keys).sum(dim=-1) / (5**0.5 if scaled else 1)
    expected = torch.softmax(scores / temperature, dim=0)
    (held, weights), more = shown[-1]
    torch.testing.assert_close(weights, expected.reshape(4, 4))
    assert (held is image, more["query"]) == (True, 4 * row + col)
    ranked, entropy = expected.sort(descending=True).values, -(expected * expected.log2()).nansum().item()
    pattern = r"([\d.]+) of its .* row (\d), column (\d) and ([\d.]+) to .* is ([\d.]+) bits.* ([\d.]+)\.$"
    said, best = numbers(panel.text, pattern), divmod(int(expected.argmax()), 4)
    assert said[:4] == pytest.approx([ranked[0].item(), *best, ranked[:5].sum().item()], abs=6e-4)
    assert said[4:] == pytest.approx([entropy, log2(16)], abs=0.06)
    np.testing.assert_allclose(panel.figure.figure.axes[2].lines[0].get_ydata(), ranked, rtol=1e-5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("queries", "keys", "words"), [(15, 15, "15 queries"), (16, 9, "9 keys")])
def test_explore_attention_refuses_what_is_no_square_grid(queries, keys, words):
    with pytest.raises(ValueError, match=words):
        widgets.explore_attention(torch.rand(3, 32, 32), torch.randn(queries, 5), torch.randn(keys, 5))


@pytest.mark.parametrize("heads", [1, 12, 48])
def test_explore_heads_shows_that_heads_cost_no_parameters(spy, heads):
    shown, panel = spy("plot_heads"), widgets.explore_heads()
    turn(panel, heads=heads, row=1, col=2)
    patches = patchify(data.photo("cat")[None], 16)[0]
    projection = torch.randn(768, 48, generator=torch.Generator().manual_seed(0)) / 768**0.5
    tokens = F.layer_norm((patches - patches.mean(0)) @ projection, (48,))
    qkv = made(MultiHeadSelfAttention, 48, heads).qkv(tokens).detach()
    queries, keys, _ = qkv.unflatten(-1, (3, heads, 48 // heads)).permute(1, 2, 0, 3)
    expected = (queries @ keys.mT / (48 / heads) ** 0.5).softmax(-1)[:, 16]
    (_, maps), more = shown[-1]
    torch.testing.assert_close(maps, expected.reshape(heads, 14, 14))
    assert more["query"] == 16
    said = numbers(panel.text, r"^(\d+) .* = (\d+), ([\d,]+) p.* between ([\d.]+) and ([\d.]+) .* ([\d.]+)\.$")
    peaks = expected.amax(-1)
    assert said[:3] == [heads, 48 / heads, 4 * 48 * 48 + 4 * 48]
    assert said[3:] == pytest.approx([peaks.min().item(), peaks.max().item(), 1 / 196], abs=6e-4)


@pytest.mark.parametrize("stream", ["tokens + found", "found alone"])
@pytest.mark.parametrize(("norm", "depth"), [("before", 24), ("after", 24), ("nowhere", 1)])
@torch.no_grad()
def test_explore_depth_shows_how_long_and_how_alike_the_tokens_are(spy, stream, norm, depth):
    lengths, likeness, panel = spy("plot_curves"), spy("plot_matrix"), widgets.explore_depth()
    turn(panel, depth=depth, photo_name="coffee", stream=stream, norm=norm)
    patches = made(PatchEmbedding, 32, 3, 64)(data.photo("coffee", 224)[None])[0]
    tokens = torch.cat([made(ClassToken, 64).token[0], patches - patches.mean(dim=0)])
    centred, spread = tokens - tokens.mean(1, keepdim=True), tokens.var(1, correction=0, keepdim=True)
    stations = [centred / (spread + 1e-5).sqrt()]
    for block in list(made(Encoder, 24, 64, 4, 256))[:depth]:
        tokens = stations[-1]
        for normed, part in ((block.norm_1, block.attention), (block.norm_2, block.mlp)):
            found = part(normed(tokens)[None])[0] if norm == "before" else part(tokens[None])[0]
            tokens = found if stream == "found alone" else found + tokens
            tokens = normed(tokens) if norm == "after" else tokens
        stations.append(tokens)
    expected = torch.stack(stations).double().norm(dim=-1)
    for name, each in (("mean of the patches", expected[:, 1:].mean(1)), ("class token", expected[:, 0])):
        torch.testing.assert_close(lengths[-1][0][0][name][1].double(), each, rtol=1e-3, atol=1e-9)
    alike = F.cosine_similarity(tokens[:, None].double(), tokens[None].double(), dim=-1, eps=1e-30)
    torch.testing.assert_close(likeness[-1][0][0].double(), alike, rtol=0, atol=2e-3)
    start, end, mean = numbers(panel.text, r"from ([\d.]+) to ([\d.e+-]+)\. Two .* average (-?[\d.]+) alike")
    others = (alike.sum() - alike.trace()) / (50 * 49)
    assert [start, mean] == pytest.approx([expected[0].mean().item(), others.item()], abs=0.051)
    assert end == pytest.approx(expected[-1].mean().item(), rel=6e-3)


@pytest.mark.parametrize(("size", "patch_size", "image_size"), [("Ti", 8, 224), ("B", 32, 448), ("H", 14, 672)])
def test_explore_sizes_counts_by_parts_what_arithmetic_counts(spy, size, patch_size, image_size):
    bars, panel = spy("plot_bars"), widgets.explore_sizes()
    turn(panel, size=size, patch_size=patch_size, image_size=image_size)
    dim, depth, heads, hidden = SIZES[size]
    config = ViTConfig(image_size, patch_size, dim=dim, depth=depth, heads=heads, hidden=hidden)
    tokens, pairs = config.tokens, depth * 2 * config.tokens**2 * dim
    parameters = {
        "patch embedding": (config.patch_dim + 1) * dim,
        "class + positions": dim + tokens * dim,
        "attention": depth * 4 * (dim + 1) * dim,
        "MLP": depth * ((dim + 1) * hidden + (hidden + 1) * dim),
        "norms": (2 * depth + 1) * 2 * dim,
        "head": (dim + 1) * 1000,
    }
    products = dict.fromkeys(parameters, 0) | {
        "patch embedding": config.patches * config.patch_dim * dim,
        "attention": depth * 4 * dim**2 * tokens + pairs,
        "MLP": depth * 2 * dim * hidden * tokens,
        "head": dim * 1000,
    }
    for ((shown,), _), expected, unit in zip(bars[-2:], (parameters, products), (1e6, 1e9), strict=True):
        assert shown == pytest.approx({part: count / unit for part, count in expected.items()})
    said = numbers(panel.text, r": ([\d,]+) tokens .* ([\d,]+) param.*; ([\d,.]+) bil.* (\d+)% .* ([\d,]+) MB")
    total = sum(products.values())
    assert said[:2] == [tokens, sum(parameters.values())]
    assert said[2] == pytest.approx(total / 1e9, abs=0.0051)
    assert said[3:] == pytest.approx([100 * pairs / total, depth * heads * tokens**2 * 4 / 1e6], abs=0.51)
