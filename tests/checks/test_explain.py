"""Notebook 09."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from einops import rearrange

from checks.trials import each_right, each_wrong, is_told, passes, takes_at_most_200_ms
from vit_walkthrough.checks import check_cover, check_distance, check_entropy, check_relevance

# ------------------------------------------------------------------------------------------------ right


def entropy_in_loops(attention):
    layers, _, heads = attention.shape[:3]
    bits = torch.zeros(layers, heads)
    for layer in range(layers):
        for head in range(heads):
            rows = attention[layer, :, head].flatten(0, 1)
            each = [-sum(weight * math.log2(weight) for weight in row if weight) for row in rows.tolist()]
            bits[layer, head] = sum(each) / len(each)
    return bits


def entropy_by_einsum(attention):
    logarithms = attention.log2().masked_fill(attention == 0, 0)
    rows = attention.shape[1] * attention.shape[3]
    return -torch.einsum("lbhqk, lbhqk -> lh", attention, logarithms) / rows


def distance_by_cdist(attention, rows, cols, patch_size):
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).float() * patch_size
    patches = attention[..., 1:, 1:]
    patches = patches / patches.sum(-1, keepdim=True)
    return (patches * torch.cdist(grid, grid)).sum(-1).mean((1, 3))


def distance_in_loops(attention, rows, cols, patch_size):
    layers, _, heads = attention.shape[:3]
    far = torch.zeros(layers, heads)
    for query in range(rows * cols):
        row = attention[:, :, :, 1 + query, 1:]
        for key in range(rows * cols):
            apart = patch_size * math.hypot(query // cols - key // cols, query % cols - key % cols)
            far += (row[..., key] / row.sum(-1)).mean(1) * apart
    return far / (rows * cols)


def distance_by_einsum(attention, rows, cols, patch_size):
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    y, x = y.flatten(), x.flatten()
    apart = ((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2).float().sqrt()
    patches = torch.nn.functional.normalize(attention[..., 1:, 1:], p=1, dim=-1)
    return torch.einsum("lbhqk, qk -> lh", patches, patch_size * apart) / (attention.shape[1] * rows * cols)


def relevance_by_matrices(attention, gradients):
    arrived = torch.eye(attention.shape[-1]).repeat(attention.shape[1], 1, 1)
    for weights, gradient in zip(attention, gradients, strict=True):
        arrived = arrived + (weights * gradient).clamp(min=0).mean(1) @ arrived
    return arrived[:, 0, 1:]


def relevance_by_einsum(attention, gradients):
    counted = torch.relu(torch.einsum("lbhqk, lbhqk -> lbhqk", attention, gradients)).mean(2)
    arrived = torch.eye(attention.shape[-1]).expand_as(counted[0])
    for layer in counted:
        arrived = torch.einsum("bqk, bkt -> bqt", layer + torch.eye(layer.shape[-1]), arrived)
    return arrived[:, 0, 1:]


def relevance_backwards(attention, gradients):
    """One row, carried from the last block to the first."""
    row = torch.eye(attention.shape[-1])[0].expand(attention.shape[1], 1, -1)
    for layer in reversed(range(len(attention))):
        products = attention[layer] * gradients[layer]
        row = row + row @ torch.where(products > 0, products, 0).mean(1)
    return row[:, 0, 1:]


def relevance_in_loops(attention, gradients):
    layers, batch, heads, tokens, _ = attention.shape
    maps = torch.empty(batch, tokens - 1)
    for image in range(batch):
        arrived = torch.eye(tokens)
        for layer in range(layers):
            before = arrived.clone()
            for query in range(tokens):
                for key in range(tokens):
                    products = attention[layer, image, :, query, key] * gradients[layer, image, :, query, key]
                    arrived[query] += products[products > 0].sum() / heads * before[key]
        maps[image] = arrived[0, 1:]
    return maps


def cover_in_loops(images, maps, count, patch_size, ground):
    covered, cols = images.clone(), images.shape[3] // patch_size
    for image, best in enumerate(maps.topk(count).indices.tolist()):
        for patch in best:
            y, x = patch // cols * patch_size, patch % cols * patch_size
            covered[image, :, y : y + patch_size, x : x + patch_size] = ground[image]
    return covered


def cover_by_rank(images, maps, count, patch_size, ground, order=lambda rank: rank):
    rank = order(maps.argsort(descending=True).argsort())
    chosen = rearrange(rank < count, "b (rows cols) -> b 1 rows cols", rows=images.shape[2] // patch_size)
    chosen = chosen.repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)
    return torch.where(chosen, ground, images)


def cover_by_scatter(images, maps, count, patch_size, ground):
    chosen = torch.zeros_like(maps).scatter_(1, maps.topk(count).indices, 1)
    chosen = chosen.reshape(len(maps), 1, images.shape[2] // patch_size, -1)
    chosen = torch.nn.functional.interpolate(chosen, images.shape[2:], mode="nearest")
    return images * (1 - chosen) + ground * chosen


def cover_by_threshold(images, maps, count, patch_size, ground):
    chosen = maps >= maps.sort(descending=True).values[:, count - 1, None]
    cut = rearrange(images.clone(), "b c (rows p) (cols q) -> b (rows cols) c p q", p=patch_size, q=patch_size)
    cut = torch.where(chosen[..., None, None, None], ground[:, None], cut)
    return rearrange(cut, "b (rows cols) c p q -> b c (rows p) (cols q)", rows=images.shape[2] // patch_size)


RIGHT = {
    check_entropy: {
        "loops": entropy_in_loops,
        "einsum": entropy_by_einsum,
        "entr": lambda a: torch.special.entr(a).sum(-1).mean((1, 3)) / math.log(2),
        "clamped": lambda a: -(a * a.clamp(min=1e-12).log2()).sum(-1).mean(-1).mean(1),
        "xlogy": lambda a: -(torch.xlogy(a, a) / math.log(2)).sum(-1).mean(dim=(1, 3)),
        "a distribution": lambda a: torch.distributions.Categorical(a).entropy().mean((1, 3)) / math.log(2),
    },
    check_distance: {"cdist": distance_by_cdist, "loops": distance_in_loops, "einsum": distance_by_einsum},
    check_relevance: {
        "matrices": relevance_by_matrices,
        "einsum": relevance_by_einsum,
        "backwards": relevance_backwards,
        "loops": relevance_in_loops,
    },
    check_cover: {
        "loops": cover_in_loops,
        "rank": cover_by_rank,
        "scatter": cover_by_scatter,
        "threshold": cover_by_threshold,
    },
}

# ------------------------------------------------------------------------------------------------ wrong


def entr(attention):
    return torch.special.entr(attention).sum(-1) / math.log(2)  # layers batch heads queries


def far(attention, rows, cols, side, *, length=2.0, drop="class", scale="rows", swap=False, unit=None):
    """The mean attention distance with one thing or another done wrong."""
    if swap:
        rows, cols = cols, rows
    y, x = torch.arange(rows * cols) // cols, torch.arange(rows * cols) % cols
    grid = torch.stack([y, x], 1).double()
    apart = torch.cdist(grid, grid, p=length).float() * (side if unit is None else unit)
    if drop == "nothing":
        apart = torch.nn.functional.pad(apart, (1, 0, 1, 0))
    if drop == "corner":
        apart = torch.cdist(corner := torch.cat([grid[:1], grid]), corner).float() * side
    patches = {"class": attention[..., 1:, 1:], "last": attention[..., :-1, :-1]}.get(drop, attention)
    if scale == "rows":
        patches = patches / patches.sum(-1, keepdim=True)
    if scale == "columns":
        patches = patches / patches.sum(-2, keepdim=True)
    if scale == "all":
        return torch.einsum("lbhqk, qk -> lh", patches, apart) / patches.sum((1, 3, 4))
    return (patches * apart).sum(-1).mean((1, 3))


def squared(attention, rows, cols, side):
    y, x = torch.arange(rows * cols) // cols, torch.arange(rows * cols) % cols
    patches = attention[..., 1:, 1:] / attention[..., 1:, 1:].sum(-1, keepdim=True)
    apart = side**2 * ((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2)
    return (patches * apart).sum(-1).mean((1, 3))


def speaks(attention, gradients, *, count=None, combine=None, read=None, layers=slice(None), step=None):
    """Relevance with one thing or another done wrong."""
    count = count or (lambda a, g: (a * g).relu())
    combine = combine or (lambda each: each.mean(1))
    step = step or (lambda R, A: R + A @ R)
    arrived = torch.eye(attention.shape[-1]).expand(attention.shape[1], -1, -1)
    for index in torch.arange(len(attention))[layers].tolist():
        arrived = step(arrived, combine(count(attention[index], gradients[index])))
    return arrived[:, 0, 1:] if read is None else read(arrived)


def mixed_as_rollout(arrived, counted):
    mixed = counted + torch.eye(counted.shape[-1])
    return mixed / mixed.sum(-1, keepdim=True) @ arrived


def covered_by_columns(images, maps, count, side, ground):
    rows = images.shape[2] // side
    return cover_by_rank(images, rearrange(maps, "b (cols rows) -> b (rows cols)", rows=rows), count, side, ground)


WRONG = {
    check_entropy: {
        "nats": (lambda a: torch.special.entr(a).sum(-1).mean((1, 3)), "That was counted with the natural logarithm"),
        "nats where 0 is NaN": (
            lambda a: -(a * a.log()).sum(-1).mean((1, 3)),
            "That was counted with the natural logarithm",
        ),
        "sign": (lambda a: -entr(a).mean((1, 3)), "The sign is missing"),
        "sign where 0 is NaN": (lambda a: (a * a.log2()).sum(-1).mean((1, 3)), "The sign is missing"),
        "nats and sign": (lambda a: (a * a.log()).sum(-1).mean((1, 3)), "The sign is missing, and that was counted"),
        "0 is NaN": (lambda a: -(a * a.log2()).sum(-1).mean((1, 3)), "0 times the logarithm of 0 is no number"),
        "of the mean over queries": (
            lambda a: entr(a.mean(3, keepdim=True)).mean((1, 3)),
            "The rows were averaged over the queries before",
        ),
        "of the mean over images": (lambda a: entr(a.mean(1)).mean(2), "The images were averaged before"),
        "of the mean over both": (lambda a: entr(a.mean((1, 3))), "Images and queries were averaged before"),
        "mean over keys": (
            lambda a: (torch.special.entr(a) / math.log(2)).mean((1, 3, 4)),
            "Divided by the number of keys as well",
        ),
        "sum over queries": (lambda a: entr(a).sum(3).mean(1), "Summed over the queries"),
        "sum over images": (lambda a: entr(a).mean(3).sum(1), "Summed over the images"),
        "class token's row": (lambda a: entr(a[:, :, :, 0]).mean(1), "Only the class token's row"),
        "heads first": (lambda a: entr(a).mean((1, 3)).T, "Heads and layers are exchanged"),
        "a number a layer": (lambda a: entr(a).mean((1, 2, 3)), "One number a layer"),
        "tokens": (lambda a: entr(a).mean((1, 3)).exp2(), "That is 2 to the power of the entropy"),
        "batch kept": (lambda a: entr(a).mean(3), "returned the shape (1, 1, 1), expected (1, 1) (layers heads)"),
        "too many bits": (lambda a: entr(a).mean((1, 3)) + 1, "More than 2.00 bits"),
        "below 0": (lambda a: entr(a).mean((1, 3)) - 3, "A head has less than 0 bits"),
    },
    check_distance: {
        "in patches": (partial(far, unit=1), "That is counted in patches"),
        "not scaled again": (partial(far, scale=None), "Without the class token a row no longer sums to 1"),
        "class token at 0": (partial(far, drop="nothing"), "The class token was counted as a token 0 pixels away"),
        "class token in the corner": (partial(far, drop="corner"), "The class token was given a place"),
        "last token left out": (partial(far, drop="last"), "The last patch was left out"),
        "rows and cols": (partial(far, swap=True), "rows and cols are exchanged"),
        "along the streets": (partial(far, length=1.0), "Steps down and steps across were added"),
        "squared": (squared, "The root is missing"),
        "of numbers": (lambda a, rows, cols, p: far(a, 1, rows * cols, p), "The distance of two patches is not that"),
        "all at once": (partial(far, scale="all"), "All rows were thrown together"),
        "columns": (partial(far, scale="columns"), "Each column was scaled"),
        "sum over patches": (lambda a, r, c, p: far(a, r, c, p) * (a.shape[-1] - 1), "Summed over the patches"),
        "mean over keys": (
            lambda a, r, c, p: far(a, r, c, p) / (a.shape[-1] - 1),
            "Divided by the number of keys as well",
        ),
        "heads first": (lambda a, r, c, p: far(a, r, c, p).T, "Heads and layers are exchanged"),
        "a number a layer": (lambda a, r, c, p: far(a, r, c, p).mean(1), "One number a layer"),
        "tokens kept": (
            lambda a, r, c, p: a[..., 1:, 1:].sum(-1).mean(1),
            "returned the shape (1, 1, 3), expected (1, 1) (layers heads)",
        ),
        "chess king": (partial(far, length=math.inf), "returned the right shape, but wrong numbers"),
    },
    check_relevance: {
        "negative kept": (partial(speaks, count=lambda a, g: a * g), "The negative products were kept"),
        "clamped after the mean": (
            partial(speaks, count=lambda a, g: a * g, combine=lambda each: each.mean(1).clamp(min=0)),
            "The mean over the heads came before the positive part",
        ),
        "absolute": (partial(speaks, count=lambda a, g: (a * g).abs()), "The signs are lost"),
        "gradients alone": (partial(speaks, count=lambda a, g: g.relu()), "The gradients alone"),
        "attention alone": (partial(speaks, count=lambda a, g: a), "The attention alone"),
        "as rollout": (partial(speaks, step=mixed_as_rollout), "Each row was scaled to sum to 1"),
        "no residual": (partial(speaks, step=lambda R, A: A @ R), "What was there is lost at each block"),
        "last first": (
            lambda a, g: speaks(a.flip(0), g.flip(0)),
            "The blocks stand in the opposite order",
        ),
        "on the right": (partial(speaks, step=lambda R, A: R + R @ A), "The blocks stand in the opposite order"),
        "last block": (partial(speaks, layers=slice(-1, None)), "Only the last block was counted"),
        "only added": (partial(speaks, step=lambda R, A: R + A), "The blocks were only added up"),
        "heads summed": (partial(speaks, combine=lambda each: each.sum(1)), "The heads were summed"),
        "largest head": (partial(speaks, combine=lambda each: each.amax(1)), "Of the heads the largest was taken"),
        "column": (partial(speaks, read=lambda R: R[:, 1:, 0]), "That is the class token's column"),
        "patches' rows": (partial(speaks, read=lambda R: R[:, 1:, 1:].mean(1)), "That is the mean over the patches'"),
        "class token kept": (partial(speaks, read=lambda R: R[:, 0]), "The class token's own column is still"),
        "whole": (partial(speaks, read=lambda R: R), "That is the whole table"),
        "one image": (
            lambda a, g: speaks(a, g)[0],
            "returned the shape (2,), expected (1, 2) (batch patches)",
        ),
        "first block": (partial(speaks, layers=slice(1)), "returned the right shape, but wrong numbers"),
    },
    check_cover: {
        "weakest": (lambda x, m, n, p, g: cover_by_rank(x, -m, n, p, g), "The weakest patches were covered"),
        "insertion": (
            lambda x, m, n, p, g: cover_by_rank(x, -m, m.shape[1] - n, p, g),
            "All but the strongest were covered",
        ),
        "one too many": (lambda x, m, n, p, g: cover_by_rank(x, m, n + 1, p, g), "One patch too many"),
        "one too few": (lambda x, m, n, p, g: cover_by_rank(x, m, n - 1, p, g), "One patch too few"),
        "sorted once": (
            partial(cover_by_rank, order=lambda rank: rank.argsort()),
            "argsort says which patch stands at each rank",
        ),
        "by columns": (covered_by_columns, "The patches were laid down column by column"),
        "first map": (
            lambda x, m, n, p, g: cover_by_rank(x, m[:1].expand_as(m), n, p, g),
            "In all images the same patches are covered, those of the first map",
        ),
        "mean map": (
            lambda x, m, n, p, g: cover_by_rank(x, m.mean(0, keepdim=True).expand_as(m), n, p, g),
            "In all images the same patches are covered, those of the mean map",
        ),
        "first ground": (
            lambda x, m, n, p, g: cover_by_rank(x, m, n, p, g[:1]),
            "All images are covered with the ground of the first",
        ),
        "black": (lambda x, m, n, p, g: cover_by_rank(x, m, n, p, 0 * g), "The patches were made black"),
        "one late": (
            lambda x, m, n, p, g: cover_by_rank(x, m.roll(1, 1), n, p, g),
            "Every patch stands one place late",
        ),
        "one early": (
            lambda x, m, n, p, g: cover_by_rank(x, m.roll(-1, 1), n, p, g),
            "Every patch stands one place early",
        ),
        "in place": (
            lambda x, m, n, p, g: x.copy_(cover_by_rank(x, m, n, p, g)),
            "changes its input images in place",
        ),
        "above the mean": (
            lambda x, m, n, p, g: cover_by_rank(x, m, (m > m.mean()).sum() + 2, p, g),
            "patches are covered, and count says",
        ),
        "grey": (
            lambda x, m, n, p, g: cover_by_rank(x, m, n, p, g + 0.5),
            "What is covered has not its image's ground",
        ),
    },
}


@each_right(RIGHT)
def test_right_answers_pass(check, answer, capsys):
    passes(check, answer, capsys)


@each_right(RIGHT)
def test_in_time(check, answer):
    takes_at_most_200_ms(check, answer)


@each_wrong(WRONG)
def test_wrong_answers_get_their_sentence(check, answer, words):
    is_told(check, answer, words)


def test_the_smallest_cases_can_be_followed_by_hand():
    with pytest.raises(AssertionError) as caught:
        check_distance(partial(far, unit=1))
    said = str(caught.value)
    assert "(attention of shape (1, 1, 1, 4, 4), rows=1, cols=3, patch_size=10)" in said
    assert "expected (layers heads)\n[[10]]\ngot\n[[1]]" in said
    with pytest.raises(AssertionError) as caught:
        check_relevance(partial(speaks, read=lambda R: R[:, 1:, 0]))
    assert np.array2string(np.array([[0.75, 2.25]])) in str(caught.value)
