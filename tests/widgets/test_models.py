"""What the panels over trained models say and show, computed again by other means."""

import itertools
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from tests.widgets.panels import address, count_draws, file_of, numbers, turn
from vit_walkthrough import VisionTransformer, ViTConfig, data, patchify, record, unpatchify
from vit_walkthrough.look.explain import occlusion, relevance
from vit_walkthrough.model.tokens import resample_positions
from vit_walkthrough.weights import bundled, load_tiny
from vit_walkthrough.weights.checkpoint import load_checkpoint
from vit_walkthrough.widgets import (
    explore_maps,
    explore_order,
    explore_resolution,
    explore_vit,
    maps,
)

SAID = "what it says"


def digit(place: int, count: int = 1):
    return data.ClutteredDigits("test").sample(count, draw=place)


def attention_of(model, images: torch.Tensor) -> torch.Tensor:
    """(blocks, batch, heads, tokens, tokens)"""
    with torch.no_grad(), record(model) as trace:
        model(images)
    return torch.stack([trace[f"blocks.{block}.attention.weights"] for block in range(len(model.blocks))])


def arrived(attention: torch.Tensor) -> torch.Tensor:
    """Rollout's map of every token, (blocks, heads, tokens, tokens) -> (tokens, patches)."""
    tokens = torch.eye(attention.shape[-1])
    for block in attention:
        tokens = (0.5 * block.mean(dim=0) + 0.5 * torch.eye(len(tokens))) @ tokens
    return tokens[:, 1:]


def share_inside(weights, mask) -> float:
    """The share of a map of patches (patches,) on the mask, counted pixel by pixel, in per cent."""
    side = round(len(weights) ** 0.5)
    pixels = np.kron(np.asarray(weights).reshape(side, side), np.ones((48 // side, 48 // side)))
    return 100 * pixels[np.asarray(mask)].sum() / pixels.sum()


def best(probabilities: torch.Tensor) -> list[float]:
    """The likeliest class, and how likely it is in per cent."""
    return [probabilities.argmax().item(), 100 * probabilities.max().item()]


@torch.no_grad()
def right(model, images: torch.Tensor, labels: torch.Tensor) -> float:
    return 100 * (model(images).argmax(-1) == labels).float().mean().item()


@pytest.mark.parametrize("positions", ["added", "left out"])
def test_explore_order_moves_patches_and_says_what_the_model_then_says(spy, positions):
    grids, bars, panel, model = spy("plot_grid"), spy("plot_probabilities"), explore_order(), load_tiny(8, 4)
    if positions == "left out":
        model.position_embedding = nn.Identity()
    images, labels, _ = digit(0, 128)
    for place, count in enumerate(panel.controls["count"].options):
        turn(panel, place=place, count=count, positions=positions)
        (image, label, _), (straight, _), (moved, _) = digit(place), *(call[0] for call in grids[-2:])
        torch.testing.assert_close(straight, image[0], rtol=0, atol=0)
        patches, shuffled = patchify(image, 8)[0], patchify(moved[None], 8)[0]
        order = torch.cdist(shuffled, patches).argmin(1)
        torch.testing.assert_close(patches[order], shuffled, rtol=0, atol=0)
        assert order.unique().numel() == 36
        assert (order != torch.arange(36)).sum() == count
        with torch.no_grad():
            before, after = model(torch.stack([image[0], moved])).softmax(-1)
        for ((shown,), _), expected in zip(bars[-2:], (before, after), strict=True):
            torch.testing.assert_close(shown, expected, atol=2e-5, rtol=1e-3)
        found = numbers(
            panel.text,
            r"^An? (\d), .* says (\d) \(([\d.]+)%\), with (\d+) of (\d+) .* (\d) \(([\d.]+)%\)\. .* is ([\d.]+)\. .* "
            r"names (\d+)% right in order and (\d+)% with",
        )
        assert found[:7] == pytest.approx([label.item(), *best(before), count, 36, *best(after)], abs=0.06)
        assert found[7] == pytest.approx((after - before).abs().max().item(), abs=1e-4)
        other = unpatchify(patchify(images, 8)[:, order], 8, 48, 48)
        assert found[8:] == pytest.approx([right(model, each, labels) for each in (images, other)], abs=0.51)
        assert f"positions {positions}. In order" in panel.text
        if positions == "left out":
            assert found[7] <= 1e-4
            assert found[8] == found[9]
    assert (found[9] < found[8] - 5) == (positions == "added")  # all of them moved


@pytest.mark.parametrize("kind", ["resampled", "cut or filled up"])
def test_explore_resolution_reads_digits_at_another_size(spy, kind):
    grids, looks, bars = spy("plot_grid"), spy("plot_attention"), spy("plot_probabilities")
    panel, trained = explore_resolution(), load_tiny(8, 4)
    learned = trained.position_embedding.positions.detach()
    images, labels, _ = digit(0, 64)
    assert list(panel.controls["size"].options) == list(range(24, 97, 8))
    for place, size in enumerate((24, 48, 56, 96)):
        turn(panel, place=place, size=size, kind=kind)
        side = size // 8
        positions = torch.zeros(1, side**2 + 1, 64)
        positions[:, :37] = learned[:, : side**2 + 1]
        if kind == "resampled":
            positions = resample_positions(learned, side, side)
        model = VisionTransformer(
            ViTConfig(size, 8, dim=64, depth=4, heads=4, hidden=trained.config.hidden, classes=10)
        )
        model.load_state_dict(trained.state_dict() | {"position_embedding.positions": positions})
        model.eval()
        image, label, _ = digit(place)
        resized, many = (
            F.interpolate(each, (size, size), mode="bicubic", antialias=True).clamp(0, 1) for each in (image, images)
        )
        with torch.no_grad():
            expected = model(resized)[0].softmax(-1)
        torch.testing.assert_close(grids[-1][0][0], resized[0])
        seen = attention_of(model, resized)[3, 0, :, 0, 1:].mean(dim=0)
        torch.testing.assert_close(looks[-1][0][1], seen.reshape(side, side))
        torch.testing.assert_close(bars[-1][0][0], expected, atol=1e-5, rtol=1e-4)
        said = numbers(panel.text, r"^An? (\d) at (\d+) .* (\d+) tokens\. .* (\d) \(([\d.]+)%\); .* (\d+)% of 64")
        assert said[:5] == pytest.approx([label.item(), size, side**2 + 1, *best(expected)], abs=0.06)
        assert said[5] == pytest.approx(right(model, many, labels), abs=0.51)
        assert f"37 positions, {kind}, serve" in panel.text


def test_the_panels_over_every_bundled_model_offer_those_and_begin_with_8_pixels_and_4_heads():
    for panel in (explore_vit(), explore_maps()):
        sizes = [panel.controls[name] for name in ("patch_size", "heads")]
        assert sorted(itertools.product(*(size.options for size in sizes))) == sorted(bundled())
        assert [size.value for size in sizes] == [8, 4]


@pytest.mark.parametrize("method", ["attention", "rollout", "relevance"])
@pytest.mark.parametrize(
    ("place", "patch_size", "heads", "query", "block", "head"),
    [
        (0, 8, 4, "class token", 4, "all"),
        (7, 12, 8, "patch", 2, "all"),
        (3, 6, 2, "patch", 3, 1),
        (20, 16, 1, "class token", 1, 0),
    ],
)
def test_explore_vit_names_the_digit_and_shows_where_it_looked(
    spy, method, place, patch_size, heads, query, block, head
):
    shown, bars, panel = spy("plot_heads"), spy("plot_probabilities"), explore_vit()
    values = dict(chosen=("digit", place), patch_size=patch_size, heads=heads, method=method, query=query, block=block)
    turn(panel, **values)
    turn(panel, head=head, row=1, col=2)
    (image, label, mask), side = digit(place), 48 // patch_size
    model, facts = load_checkpoint(bundled()[patch_size, heads])
    token = 0 if query == "class token" or method == "relevance" else 1 + side + 2
    attention, probabilities = attention_of(model, image)[:, 0], model(image).detach()[0].softmax(-1)
    of_head = range(heads) if head == "all" else [head]
    expected = {
        "attention": attention[block - 1, of_head, token, 1:],
        "rollout": arrived(attention[:block])[None, token],
        "relevance": relevance(model, image, probabilities.argmax()[None]),
    }[method]
    (held, tiles), more = shown[-1]
    torch.testing.assert_close(held, image[0], rtol=0, atol=0)
    torch.testing.assert_close(tiles.flatten(1), expected, atol=1e-5, rtol=1e-4)
    assert more["query"] == (token - 1 if token else None)
    assert method != "attention" or more["titles"] == [f"head {each}" for each in of_head]
    torch.testing.assert_close(bars[-1][0][0], probabilities, atol=1e-5, rtol=1e-4)
    said = numbers(
        panel.text,
        r"^This is an? (\d); the model says (\d), with ([\d.]+)%.* (\d+)% goes to .* square is (\d+)% .* of (\d+) "
        r"pixels and (\d+) heads? .* ([\d.]+)% of ([\d,]+) unseen",
    )
    area = 100 * mask.float().mean().item()
    assert said[:3] == pytest.approx([label.item(), *best(probabilities)], abs=0.06)
    assert said[3:5] == pytest.approx([share_inside(expected.mean(dim=0), mask[0]), area], abs=0.51)
    assert said[5:] == pytest.approx([patch_size, heads, 100 * facts["test_accuracy"], facts["test_images"]], abs=0.051)
    who = "the patch at row 1, column 2" if token else "the class token"
    assert who in panel.text or method == "relevance"


def test_explore_vit_lets_only_that_be_turned_which_the_picture_asks_for():
    panel = explore_vit()
    expected = {
        ("attention", "patch"): set(),
        ("attention", "class token"): {"row", "col"},
        ("rollout", "patch"): {"head"},
        ("rollout", "class token"): {"head", "row", "col"},
        ("relevance", "patch"): {"block", "head", "query", "row", "col"},
    }
    for (method, query), idle in expected.items():
        panel.controls["method"].value, panel.controls["query"].value = method, query
        for heads, more in ((1, {"head"}), (4, set())):
            panel.controls["heads"].value = heads
            disabled = {name for name, control in panel.controls.items() if getattr(control, "disabled", False)}
            assert disabled == idle | more, (method, query, heads)


def test_the_heads_and_the_grid_that_explore_vit_offers_are_those_of_the_model():
    panel = explore_vit()
    head, draws = panel.controls["head"], count_draws(panel)
    head.value = 1
    for heads, expected in ((8, 1), (2, 1), (1, "all"), (4, "all")):
        panel.controls["heads"].value = heads
        assert (list(head.options), head.value) == (["all", *range(heads)], expected)
    turn(panel, query="patch", row=5, col=3)
    for patch_size, place in ((16, (2, 1)), (6, (7, 4)), (8, (5, 3))):
        panel.controls["patch_size"].value = patch_size
        assert panel.controls["row"].max == 48 // patch_size - 1
        assert f"where the patch at row {place[0]}, column {place[1]} looks" in panel.text
    assert len(draws) == 9  # one for each turn


def test_of_a_photo_and_of_ones_own_picture_explore_vit_says_only_what_the_model_says(spy):
    grids, panel = spy("plot_grid"), explore_vit()
    content = file_of(Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)))
    panel.controls["chosen"].file.value = address(content)
    for chosen, image, words in (
        (("cat",), data.photo("cat", 48), "the cat"),
        (("own", content, False), data.load_image(content, 48), "this picture"),
        (("own", content, True), 1 - data.load_image(content, 48), "this picture"),
    ):
        turn(panel, chosen=chosen)
        torch.testing.assert_close(grids[-1][0][0], image)
        with torch.no_grad():
            expected = load_tiny(8, 4)(image[None])[0].softmax(-1)
        said = numbers(panel.text, rf"^This ViT knows digits and nothing else: of {words} it says (\d), with ([\d.]+)%")
        assert said == pytest.approx(best(expected), abs=0.06)
        assert "square" not in panel.text


def test_explore_maps_shows_four_maps_of_the_model_and_their_shares(spy):
    shown, panel = spy("plot_heads"), explore_maps()
    for place, (patch_size, heads, asked) in enumerate([(8, 4, SAID), (12, 1, "0"), (6, 2, "9"), (16, 8, "5"), (8, 4, "3")]):
        turn(panel, place=place, asked=asked, patch_size=patch_size, heads=heads)
        model, (image, label, mask) = load_tiny(patch_size, heads), digit(place)
        probabilities, attention = model(image).detach()[0].softmax(-1), attention_of(model, image)[:, 0]
        meant = int(probabilities.argmax()) if asked == SAID else int(asked)
        expected = {
            "last block": attention[-1].mean(dim=0)[0, 1:],
            "rollout": arrived(attention)[0],
            "relevance": relevance(model, image, torch.tensor([meant]))[0],
            "occlusion": occlusion(model, image, torch.tensor([meant]))[0].clamp(min=0),
        }
        (_, tiles), more = shown[-1]
        assert more["titles"] == list(expected)
        torch.testing.assert_close(
            torch.as_tensor(tiles).flatten(1), torch.stack([*expected.values()]), atol=1e-5, rtol=0
        )
        said = dict(re.findall(r"(last block|rollout|relevance|occlusion) (\d+)%[,.]", panel.text))
        shares = {name: share_inside(each, mask[0]) for name, each in expected.items() if each.sum() > 0}
        assert {name: float(share) for name, share in said.items()} == pytest.approx(shares, abs=0.51)
        said = numbers(
            panel.text, r"^This is an? (\d); .* (\d) \(([\d.]+)%\)\. .* an? (\d) \(([\d.]+)%\)\? .* takes ([\d.]+)%"
        )
        told = [label.item(), *best(probabilities), meant, 100 * probabilities[meant].item()]
        assert said == pytest.approx([*told, 100 * expected["occlusion"].max().item()], abs=0.06)


@pytest.mark.parametrize("make", [explore_vit, explore_maps])
def test_of_a_map_in_which_there_is_nothing_no_share_is_computed(monkeypatch, make):
    monkeypatch.setattr(maps, "relevance", lambda model, images, classes: torch.zeros(1, model.config.patches))
    panel = make()
    if make is explore_vit:
        panel.controls["method"].value = "relevance"
    assert ("relevance nothing" if make is explore_maps else " nothing goes to") in panel.text
