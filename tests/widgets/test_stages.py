"""What the panels over untrained stages say and show, computed again by other means."""

from math import log2

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.widgets.panels import numbers, turn
from vit_walkthrough import ClassToken, Encoder, MultiHeadSelfAttention, PatchEmbedding, ViTConfig, data
from vit_walkthrough.model.config import SIZES
from vit_walkthrough.model.tokens import resample_positions, sincos_positions
from vit_walkthrough.weights import load_tiny
from vit_walkthrough.widgets import (
    explore_attention,
    explore_depth,
    explore_drawings,
    explore_heads,
    explore_patches,
    explore_positions,
    explore_sizes,
)


def test_explore_patches_cuts_the_photo_and_counts(spy):
    grids, tiles, panel = spy("plot_grid"), spy("plot_patches"), explore_patches()
    assert list(panel.controls["patch_size"].options) == [4, 7, 8, 14, 16, 28, 32, 56, 112, 224]
    for size, name in zip((4, 32, 224), data.PHOTOS, strict=True):
        turn(panel, patch_size=size, photo_name=name)
        patches = (224 // size) ** 2
        assert panel.text.startswith(f"The {name} in patches of {size} x {size} pixels")
        said = numbers(panel.text, r"= ([\d,]+) patches.* token ([\d,]+) tokens.* = ([\d,]+) numbers.* ([\d,]+) pairs")
        assert said == [patches, patches + 1, 3 * size**2, (patches + 1) ** 2]
        image, last = data.photo(name, 224), tiles[-1][0][0][-1]
        torch.testing.assert_close(grids[-1][0][0], image, rtol=0, atol=0)
        torch.testing.assert_close(last.reshape(3, size, size), image[:, -size:, -size:], rtol=0, atol=0)


@pytest.mark.parametrize("grid", [3, 8, 10])
@pytest.mark.parametrize("kind", ["sines and cosines", "random", "learned"])
def test_explore_positions_shows_how_similar_they_are_and_names_the_nearest(spy, kind, grid):
    shown, panel = spy("plot_similarity"), explore_positions()
    turn(panel, kind=kind, grid=grid)
    turn(panel, row=1, col=2)
    original = {
        "sines and cosines": sincos_positions(8, 8, 64),
        "random": torch.randn(1, 65, 64, generator=torch.Generator().manual_seed(0)),
        "learned": load_tiny(6, 4).position_embedding.positions.detach(),
    }[kind]
    positions = resample_positions(original, grid, grid)[0, 1:]
    positions = positions - positions.mean(dim=0)
    expected = F.cosine_similarity(positions[:, None], positions[None], dim=-1)
    (similarity, rows, cols), more = shown[-1]
    torch.testing.assert_close(similarity, expected, atol=1e-5, rtol=0)
    assert (rows, cols, more["marked"]) == (grid, grid, {grid + 2: "position"})
    tile = panel.figure.figure.axes[1].images[0].get_array()
    np.testing.assert_allclose(tile, expected[grid + 2].reshape(grid, grid), atol=1e-5)
    assert f"{kind}, resampled to {grid} x {grid}." in panel.text or (f"{kind}." in panel.text and grid == 8)
    row, col, likeness = numbers(panel.text, r"at row (\d+), column (\d+) \((-?[\d.]+)\)")
    expected[grid + 2, grid + 2] = -2
    assert likeness == pytest.approx(expected[grid + 2].max().item(), abs=0.006)
    assert likeness == pytest.approx(expected[grid + 2, int(row) * grid + int(col)].item(), abs=0.006)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(("row", "col", "temperature"), [(0, 0, 0.1), (3, 1, 1.0), (1, 3, 100.0)])
def test_explore_attention_shows_the_softmax_of_the_scores(spy, row, col, temperature, scaled):
    image, queries, keys = torch.rand(3, 32, 32), torch.randn(16, 5, requires_grad=True), torch.randn(16, 5)
    shown, panel = spy("plot_attention"), explore_attention(image, queries, keys)
    turn(panel, row=row, col=col, temperature=temperature, scores="divided by √head_dim" if scaled else "as they are")
    scores = (queries.detach()[4 * row + col] * keys).sum(dim=-1) / (5**0.5 if scaled else 1)
    expected = torch.softmax(scores / temperature, dim=0)
    (held, weights), more = shown[-1]
    torch.testing.assert_close(weights, expected.reshape(4, 4))
    assert (held is image, more["query"]) == (True, 4 * row + col)
    ranked, entropy = expected.sort(descending=True).values, -(expected * expected.log2()).nansum().item()
    said = numbers(
        panel.text, r"([\d.]+) of its .* row (\d), column (\d) and ([\d.]+) to .* is ([\d.]+) bits.* ([\d.]+)\.$"
    )
    best = divmod(int(expected.argmax()), 4)
    assert said[:4] == pytest.approx([ranked[0].item(), *best, ranked[:5].sum().item()], abs=6e-4)
    assert said[4:] == pytest.approx([entropy, log2(16)], abs=0.06)
    np.testing.assert_allclose(panel.figure.figure.axes[2].lines[0].get_ydata(), ranked, rtol=1e-5)


def test_explore_attention_compares_the_cat_s_patches_if_nothing_is_given(spy):
    shown, _ = spy("plot_attention"), explore_attention()
    assert shown[-1][0][1].shape == (14, 14)
    assert shown[-1][0][1].argmax() == 7 * 14 + 7  # nothing is more like a patch than itself


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("queries", "keys", "words"), [(15, 15, "15 queries"), (16, 9, "9 keys"), (16, None, "none")])
def test_explore_attention_refuses_what_is_no_square_grid(queries, keys, words):
    with pytest.raises(ValueError, match=words):
        explore_attention(torch.rand(3, 32, 32), torch.randn(queries, 5), keys and torch.randn(keys, 5))


def test_explore_heads_shows_that_heads_cost_no_parameters(spy, count_forward):
    shown, runs = spy("plot_heads"), count_forward(MultiHeadSelfAttention)
    panel = explore_heads()
    assert list(panel.controls["heads"].options) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 48]
    for heads in (1, 12, 48):
        turn(panel, heads=heads, row=1, col=2)
        attention, tokens = runs[-1]
        queries, keys, _ = attention.qkv(tokens).detach().unflatten(-1, (3, heads, 48 // heads)).permute(2, 0, 3, 1, 4)
        expected = (queries @ keys.mT / (48 / heads) ** 0.5).softmax(-1)[0, :, 16]
        (_, maps), more = shown[-1]
        torch.testing.assert_close(maps, expected.reshape(heads, 14, 14))
        assert more["query"] == 16
        said = numbers(
            panel.text, r"^(\d+) heads? of .* = (\d+), ([\d,]+) p.* between ([\d.]+) and ([\d.]+) .* ([\d.]+)\.$"
        )
        peaks = expected.amax(-1)
        assert said[:3] == [heads, 48 / heads, 4 * 48 * 48 + 4 * 48]
        assert said[3:] == pytest.approx([peaks.min().item(), peaks.max().item(), 1 / 196], abs=6e-4)
    assert len(runs) == 4  # new heads only


def made(build, *sizes):
    torch.manual_seed(0)
    return build(*sizes).eval()


@torch.no_grad()
def walked(photo: str, stream: str, norm: str) -> torch.Tensor:
    """The tokens of a photo before the first block and after each of 24, written out: (25, tokens, dim)."""
    patches = made(PatchEmbedding, 32, 3, 64)(data.photo(photo, 224)[None])[0]
    tokens = torch.cat([made(ClassToken, 64).token[0], patches - patches.mean(dim=0)])
    tokens = (tokens - tokens.mean(dim=1, keepdim=True)) / (tokens.var(dim=1, correction=0, keepdim=True) + 1e-5).sqrt()
    stations = [tokens]
    for block in made(Encoder, 24, 64, 4, 256):
        for normed, part in ((block.norm_1, block.attention), (block.norm_2, block.mlp)):
            found = part(normed(tokens)[None])[0] if norm == "before" else part(tokens[None])[0]
            tokens = found if stream == "found alone" else found + tokens
            if norm == "after":
                tokens = normed(tokens)
        stations.append(tokens)
    return torch.stack(stations)


@pytest.mark.parametrize("stream", ["tokens + found", "found alone"])
@pytest.mark.parametrize("norm", ["before", "after", "nowhere"])
def test_explore_depth_shows_how_long_and_how_alike_the_tokens_are(spy, stream, norm):
    lengths, likeness, panel = spy("plot_stream"), spy("plot_matrix"), explore_depth()
    for depth, photo in ((1, "cat"), (24, "coffee")):
        turn(panel, depth=depth, photo_name=photo, stream=stream, norm=norm)
        tokens = walked(photo, stream, norm)[: depth + 1].double()
        expected = tokens.pow(2).sum(dim=-1).sqrt()
        torch.testing.assert_close(lengths[-1][0][0].double(), expected, rtol=1e-3, atol=1e-9)
        alike = F.cosine_similarity(tokens[-1][:, None], tokens[-1][None], dim=-1, eps=1e-30)
        torch.testing.assert_close(likeness[-1][0][0].double(), alike, rtol=0, atol=2e-3)
        assert panel.text.startswith(f"The {photo} in {depth} block")
        assert f"random weights, {stream}, the norm {norm}." in panel.text
        start, end, mean = numbers(panel.text, r"from ([\d.]+) to ([\d.e+-]+)\. Two .* average (-?[\d.]+) alike")
        others = (alike.sum() - alike.trace()) / (50 * 49)
        assert [start, mean] == pytest.approx([expected[0].mean().item(), others.item()], abs=0.051)
        assert end == pytest.approx(expected[-1].mean().item(), rel=6e-3)


@torch.no_grad()
def test_explore_depth_walks_through_the_encoder_itself_and_puts_the_norm_where_torch_puts_it(torch_layer):
    encoder, start = made(Encoder, 24, 64, 4, 256), walked("cat", "tokens + found", "before")[:1]
    torch.testing.assert_close(encoder(start)[0], walked("cat", "tokens + found", "before")[-1])
    for block in encoder:
        layer = torch_layer(block)
        layer.norm_first = False
        start = layer(start)
    torch.testing.assert_close(start[0], walked("cat", "tokens + found", "after")[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", ["Ti", "B", "H"])
def test_explore_sizes_counts_by_parts_what_arithmetic_counts(spy, size):
    bars, panel = spy("plot_bars"), explore_sizes()
    for patch_size, image_size in ((8, 224), (14, 672), (32, 448)):
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


def test_explore_drawings_says_the_sizes_of_what_it_draws():
    panel = explore_drawings()
    turn(panel, patch_size=32, heads=12, depth=3)
    said = numbers(
        panel.text,
        r"(\d+) x (\d+) = (\d+) .* of ([\d,]+) n.* (\d+) tokens of (\d+) .* (\d+) heads of (\d+), (\d+) blocks",
    )
    assert said == [3, 3, 9, 3072, 10, 96, 12, 8, 3]
