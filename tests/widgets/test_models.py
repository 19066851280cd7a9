"""What the panels over trained models say and show, computed again by other means."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.widgets.panels import address, noise, numbers, turn
from vit_walkthrough import VisionTransformer, data, patchify, record, unpatchify
from vit_walkthrough.look.explain import occlusion, relevance
from vit_walkthrough.model.tokens import resample_positions
from vit_walkthrough.weights import bundled, load_tiny
from vit_walkthrough.weights.checkpoint import load_checkpoint
from vit_walkthrough.widgets import explore_maps, explore_order, explore_resolution, explore_vit, maps

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
    for place, count in enumerate((4, 36)):
        turn(panel, place=place, count=count, positions=positions)
        (image, label, _), (straight, _), (moved, _) = digit(place), *(call[0] for call in grids[-2:])
        patches, shuffled = patchify(image, 8)[0], patchify(moved[None], 8)[0]
        order = torch.cdist(shuffled, patches).argmin(1)
        torch.testing.assert_close(straight, image[0], rtol=0, atol=0)
        torch.testing.assert_close(patches[order], shuffled, rtol=0, atol=0)
        assert (order.unique().numel(), (order != torch.arange(36)).sum()) == (36, count)
        with torch.no_grad():
            before, after = model(torch.stack([image[0], moved])).softmax(-1)
        drawn = torch.stack([bars[-2][0][0], bars[-1][0][0]])
        torch.testing.assert_close(drawn, torch.stack([before, after]), atol=2e-5, rtol=1e-3)
        found = numbers(
            panel.text,
            rf"^An? (\d), positions {positions}. .* (\d) \(([\d.]+)%\), with (\d+) of (\d+) .* (\d) \(([\d.]+)%\)\. .* "
            r"is ([\d.]+)\. .* names (\d+)% right in order and (\d+)% with",
        )
        change = (after - before).abs().max().item()
        other = unpatchify(patchify(images, 8)[:, order], 8, 48, 48)
        assert found[:7] == pytest.approx([label.item(), *best(before), count, 36, *best(after)], abs=0.06)
        assert found[7] == pytest.approx(change, abs=1e-4)
        assert found[8:] == pytest.approx([right(model, each, labels) for each in (images, other)], abs=0.51)
        assert positions == "added" or (found[7] <= 1e-4 and found[8] == found[9])
    assert (found[9] < found[8] - 5) == (positions == "added")  # all of them moved


@pytest.mark.parametrize("kind", ["resampled", "cut or filled up"])
def test_explore_resolution_reads_digits_at_another_size(spy, kind):
    grids, looks, bars = spy("plot_grid"), spy("plot_attention"), spy("plot_probabilities")
    panel, trained = explore_resolution(), load_tiny(8, 4)
    learned = trained.position_embedding.positions.detach()
    for place, size in enumerate((24, 96)):
        turn(panel, place=place, size=size, kind=kind)
        side = size // 8
        positions = torch.zeros(1, side**2 + 1, 64)
        positions[:, :37] = learned[:, : side**2 + 1]
        if kind == "resampled":
            positions = resample_positions(learned, side, side)
        model = VisionTransformer(replace(trained.config, image_size=size)).eval()
        model.load_state_dict(trained.state_dict() | {"position_embedding.positions": positions})
        (image, label, _), (images, labels, _) = digit(place), digit(0, 64)
        resized = (F.interpolate(each, size, mode="bicubic", antialias=True) for each in (image, images))
        image, images = (each.clamp(0, 1) for each in resized)
        expected = model(image).detach()[0].softmax(-1)
        torch.testing.assert_close(grids[-1][0][0], image[0])
        seen = attention_of(model, image)[3, 0, :, 0, 1:].mean(dim=0)
        torch.testing.assert_close(looks[-1][0][1], seen.reshape(side, side))
        torch.testing.assert_close(bars[-1][0][0], expected, atol=1e-5, rtol=1e-4)
        pattern = rf"^An? (\d) at (\d+) .* 37 positions, {kind}, serve (\d+) .* (\d) \(([\d.]+)%\); .* (\d+)% of 64"
        said = numbers(panel.text, pattern)
        assert said[:5] == pytest.approx([label.item(), size, side**2 + 1, *best(expected)], abs=0.06)
        assert said[5] == pytest.approx(right(model, images, labels), abs=0.51)


@pytest.mark.parametrize(
    ("place", "patch_size", "heads", "query", "block", "head"),
    [(0, 8, 4, "class token", 4, "all"), (7, 12, 8, "patch", 2, "all"), (3, 6, 2, "patch", 3, 1)],
)
def test_explore_vit_shows_where_it_looked(spy, place, patch_size, heads, query, block, head):
    shown, bars, panel = spy("plot_heads"), spy("plot_probabilities"), explore_vit()
    turn(panel, chosen=("digit", place), patch_size=patch_size, heads=heads, query=query, block=block)
    turn(panel, head=head, row=1, col=2)
    (image, label, mask), side = digit(place), 48 // patch_size
    model, facts = load_checkpoint(bundled()[patch_size, heads])
    token = 0 if query == "class token" else 1 + side + 2
    attention, probabilities = attention_of(model, image)[:, 0], model(image).detach()[0].softmax(-1)
    expected = attention[block - 1, range(heads) if head == "all" else [head], token, 1:]
    (held, tiles), more = shown[-1]
    torch.testing.assert_close(held, image[0], rtol=0, atol=0)
    torch.testing.assert_close(tiles.flatten(1), expected, atol=1e-5, rtol=1e-4)
    assert more["query"] == (token - 1 if token else None)
    torch.testing.assert_close(bars[-1][0][0], probabilities, atol=1e-5, rtol=1e-4)
    pattern = r"This is an? (\d); .* (\d), with ([\d.]+)%.* (\d+)% goes .* is (\d+)% .* ([\d.]+)% of ([\d,]+) unseen"
    said = numbers(panel.text, pattern)
    area = 100 * mask.float().mean().item()
    assert said[:3] == pytest.approx([label.item(), *best(probabilities)], abs=0.06)
    assert said[3:5] == pytest.approx([share_inside(expected.mean(dim=0), mask[0]), area], abs=0.51)
    assert said[5:] == pytest.approx([100 * facts["test_accuracy"], facts["test_images"]], abs=0.051)


@pytest.fixture(scope="module")
def vit():
    return explore_vit()


def test_explore_vit_lets_only_that_be_turned_which_the_picture_asks_for(vit):
    for query, heads, idle in (("patch", 4, []), ("class token", 1, ["head", "row", "col"])):
        turn(vit, query=query, heads=heads)
        assert [name for name, control in vit.controls.items() if getattr(control, "disabled", False)] == idle


def test_the_heads_and_the_grid_that_explore_vit_offers_are_those_of_the_model(vit):
    turn(vit, heads=4)
    turn(vit, query="patch", row=5, col=3, head=1)
    for heads, expected in ((8, 1), (1, "all"), (4, "all")):
        turn(vit, heads=heads)
        assert (list(vit.controls["head"].options), vit.controls["head"].value) == (["all", *range(heads)], expected)
    for patch_size, place in ((16, (2, 1)), (6, (7, 4)), (8, (5, 3))):
        turn(vit, patch_size=patch_size)
        assert vit.controls["row"].max == 48 // patch_size - 1
        assert f"row {place[0]}, column {place[1]} " in vit.text


def test_of_a_photo_and_of_ones_own_picture_explore_vit_says_only_what_the_model_says(spy):
    grids, panel = spy("plot_grid"), explore_vit()
    content = noise()
    panel.controls["chosen"].file.value = address(content)
    for chosen, image in (
        (("cat",), data.photo("cat", 48)),
        (("own", content, False), data.load_image(content, 48)),
        (("own", content, True), 1 - data.load_image(content, 48)),
    ):
        turn(panel, chosen=chosen)
        torch.testing.assert_close(grids[-1][0][0], image)
        expected = load_tiny(8, 4)(image[None]).detach()[0].softmax(-1)
        assert numbers(panel.text, r" says (\d), with ([\d.]+)%") == pytest.approx(best(expected), abs=0.06)
        assert "square" not in panel.text


@pytest.mark.parametrize(("place", "patch_size", "heads", "asked"), [(0, 8, 4, SAID), (1, 12, 1, "0"), (2, 16, 8, "5")])
def test_explore_maps_shows_four_maps_of_the_model_and_their_shares(spy, place, patch_size, heads, asked):
    shown, panel = spy("plot_heads"), explore_maps()
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
    torch.testing.assert_close(torch.as_tensor(tiles).flatten(1), torch.stack([*expected.values()]), atol=1e-5, rtol=0)
    said = dict(re.findall(r"(last block|rollout|relevance|occlusion) (\d+)%[,.]", panel.text))
    shares = {name: share_inside(each, mask[0]) for name, each in expected.items() if each.sum() > 0}
    assert {name: float(share) for name, share in said.items()} == pytest.approx(shares, abs=0.51)
    pattern = r"^This is an? (\d); .* (\d) \(([\d.]+)%\)\. .* an? (\d) \(([\d.]+)%\)\? .* takes ([\d.]+)%"
    shares = [100 * each.item() for each in (probabilities[meant], expected["occlusion"].max())]
    assert numbers(panel.text, pattern) == pytest.approx([label.item(), *best(probabilities), meant, *shares], abs=0.06)


def test_of_a_map_in_which_there_is_nothing_no_share_is_computed(monkeypatch):
    monkeypatch.setattr(maps, "relevance", lambda model, images, classes: torch.zeros(1, model.config.patches))
    assert "relevance nothing" in explore_maps().text
