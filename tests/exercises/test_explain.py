"""Notebook 09."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from einops import rearrange

from tests.exercises.trials import test_in_time, test_right_answers_pass, test_wrong_answers_get_their_sentence  # noqa: F401
from vit_walkthrough.exercises import check_cover, check_distance, check_relevance, check_rollout

# ------------------------------------------------------------------------------------------------ right


def mixtures(attention, heads=lambda a: a.mean(2), keep=1.0, axis=-1):
    mixed = heads(attention) + keep * torch.eye(attention.shape[-1])
    return mixed / mixed.sum(axis, keepdim=True) if axis else mixed


def rollout_of_a_row(attention):
    row = torch.eye(attention.shape[-1])[:1].expand(attention.shape[1], 1, -1)
    for layer in mixtures(attention).flip(0):
        row = row @ layer
    return row[:, 0, 1:]


def rollout_by_matrices(attention, read=lambda R: R[:, 0, 1:], order=1, **kwargs):
    arrived = torch.eye(attention.shape[-1])
    layers = mixtures(attention, **kwargs)
    for layer in layers.flip(0) if order < 0 else layers:
        arrived = layer @ arrived
    return read(arrived)


def rollout_in_loops(attention):
    blocks, batch, _, tokens, _ = attention.shape
    images = []
    for image in range(batch):
        row = [1.0] + [0.0] * (tokens - 1)
        for layer in reversed(range(blocks)):
            weights = attention[layer, image].mean(0).tolist()
            row = [row[k] / 2 + sum(row[q] * weights[q][k] for q in range(tokens)) / 2 for k in range(tokens)]
        images.append(row[1:])
    return torch.tensor(images)


def rollout_by_einsum(attention):
    half = 0.5 * (attention.mean(2) + torch.eye(attention.shape[-1]))
    row = half[-1, :, 0]
    for layer in half[:-1].flip(0):
        row = torch.einsum("bk, bkj -> bj", row, layer)
    return row[:, 1:]


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
    blocks, batch, heads, tokens, _ = attention.shape
    maps = torch.empty(batch, tokens - 1)
    for image in range(batch):
        arrived = torch.eye(tokens)
        for layer in range(blocks):
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
    check_rollout: {
        "one row": rollout_of_a_row,
        "matrices": rollout_by_matrices,
        "loops": rollout_in_loops,
        "einsum": rollout_by_einsum,
        "multi_dot": lambda a: torch.stack(
            [
                torch.linalg.multi_dot([torch.eye(a.shape[-1]), *layers.flip(0)])[0, 1:]
                for layers in mixtures(a).unbind(1)
            ]
        ),
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


def far_by(change, queries=slice(1, None)):
    """The mean attention distance of weights that were changed."""

    def distance(attention, rows, cols, side):
        y, x = torch.arange(rows * cols) // cols, torch.arange(rows * cols) % cols
        apart = side * torch.hypot((y[:, None] - y).float(), (x[:, None] - x).float())
        weights = change(attention[..., queries, 1:])
        weights = weights / weights.sum(-1, keepdim=True)
        return (weights * apart).sum(-1).mean((1, 3))

    return distance


def squared(attention, rows, cols, side):
    y, x = torch.arange(rows * cols) // cols, torch.arange(rows * cols) % cols
    patches = attention[..., 1:, 1:] / attention[..., 1:, 1:].sum(-1, keepdim=True)
    apart = side**2 * ((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2)
    return (patches * apart).sum(-1).mean((1, 3))


def rollout_from(start, layers=slice(None, -1), order="bk, bkj -> bj"):
    def rollout(attention):
        row = start(attention)
        for layer in mixtures(attention)[layers].flip(0):
            row = torch.einsum(order, row, layer)
        return row[:, 1:]

    return rollout


def class_token(attention):
    return torch.eye(attention.shape[-1])[:1].expand(attention.shape[1], -1)


def bare(attention):
    return attention[-1, :, :, 0].mean(1)


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


def covered_at(place, side=None):
    """The right patches, covered where they are not."""

    def cover(images, maps, count, patch_size, ground):
        covered, size = images.clone(), side or patch_size
        rows, cols = images.shape[2] // patch_size, images.shape[3] // patch_size
        for image, best in enumerate(maps.topk(count).indices.tolist()):
            for patch in best:
                y, x = (patch_size * number for number in place(patch, rows, cols))
                covered[image, :, y : y + size, x : x + size] = ground[image]
        return covered

    return cover


def covered_again(images, maps, count, side, ground):
    chosen = (maps >= maps.topk(count).values[:, -1:]).reshape(len(maps), 1, images.shape[2] // side, -1)
    return torch.where(chosen.repeat(1, 1, side, side), ground, images)


def covered_by_columns(images, maps, count, side, ground):
    rows = images.shape[2] // side
    return cover_by_rank(images, rearrange(maps, "b (cols rows) -> b (rows cols)", rows=rows), count, side, ground)


WRONG = {
    check_rollout: {
        "first block last": (partial(rollout_by_matrices, order=-1), "The blocks are in the wrong order"),
        "no identity": (partial(rollout_by_matrices, keep=0.0), "The identity is missing"),
        "not scaled": (partial(rollout_by_matrices, axis=None), "The identity was added and the rows then sum to 2"),
        "over the queries": (partial(rollout_by_matrices, axis=-2), "Scaled over the queries"),
        "column": (partial(rollout_by_matrices, read=lambda R: R[:, 1:, 0]), "That is the class token's column"),
        "largest head": (partial(rollout_by_matrices, heads=lambda a: a.amax(2)), "The largest of the heads"),
        "sum of heads": (partial(rollout_by_matrices, heads=lambda a: a.sum(2)), "The heads were summed"),
        "raw attention": (lambda a: a[-1].mean(1)[:, 0, 1:], "That is the raw attention of the last block"),
        "mean of raw attention": (lambda a: a.mean((0, 2))[:, 0, 1:], "That is the mean of the blocks' raw attention"),
        "bare start": (rollout_from(bare), "In the last block the identity is missing"),
        "bare start, and all blocks": (rollout_from(bare, slice(None)), "The last block was taken twice"),
        "each head": (
            lambda a: torch.stack([rollout_of_a_row(head[:, :, None]) for head in a.unbind(2)]).mean(0),
            "Each head was rolled out by itself",
        ),
        "layer @ column": (
            rollout_from(class_token, slice(None), "bk, bjk -> bj"),
            "Multiplied from the wrong side",
        ),
        "last block": (lambda a: rollout_by_matrices(a[-1:]), "That is the last block alone"),
        "mean of blocks": (lambda a: mixtures(a).mean(0)[:, 0, 1:], "The blocks were averaged"),
        "number by number": (lambda a: mixtures(a).prod(0)[:, 0, 1:], "Multiplied number by number"),
        "first image": (
            lambda a: rollout_of_a_row(a)[:1].expand(a.shape[1], -1),
            "Only the first image was followed",
        ),
        "identity at the end": (
            lambda a: rollout_by_matrices(a, read=lambda R: ((R + torch.eye(R.shape[-1])) / 2)[:, 0, 1:], keep=0.0),
            "The identity was added once, at the end",
        ),
        "class token too": (
            partial(rollout_by_matrices, read=lambda R: R[:, 0]),
            "returned the shape (1, 3), expected (1, 2) (batch patches)",
        ),
        "scaled to 1": (
            lambda a: rollout_of_a_row(a) / rollout_of_a_row(a).sum(-1, keepdim=True),
            "The proportions are right, but not the sum",
        ),
        "too much": (lambda a: rollout_of_a_row(a) + 0.7, "of the class token is said to come from patches"),
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
        "class token's row": (far_by(lambda w: w, slice(1)), "Only the class token's row was read"),
        "strongest": (
            far_by(lambda w: torch.nn.functional.one_hot(w.argmax(-1), w.shape[-1])),
            "That is how far the strongest weight",
        ),
        "without itself": (
            far_by(lambda w: w.masked_fill(torch.eye(w.shape[-1]).bool(), 0)),
            "A patch's weight on itself was left out",
        ),
        "sum over patches": (lambda a, r, c, p: far(a, r, c, p) * (a.shape[-1] - 1), "Summed over the patches"),
        "mean over keys": (
            lambda a, r, c, p: far(a, r, c, p) / (a.shape[-1] - 1),
            "Divided by the number of keys as well",
        ),
        "heads first": (lambda a, r, c, p: far(a, r, c, p).T, "Heads and layers are exchanged"),
        "a number a layer": (lambda a, r, c, p: far(a, r, c, p).mean(1), "One number a layer"),
        "tokens kept": (
            lambda a, r, c, p: a[..., 1:, 1:].sum(-1).mean(1),
            "returned the shape (1, 1, 3), expected (1, 1) (blocks heads)",
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
        "matrix product": (
            partial(speaks, count=lambda a, g: (a @ g).relu()),
            "Attention and gradients were multiplied",
        ),
        "means of heads": (
            partial(speaks, count=lambda a, g: (a.mean(1) * g.mean(1)).relu()[:, None]),
            "The heads were averaged before the product",
        ),
        "from 0": (partial(speaks, step=lambda R, A: 0 * R), "Everything is 0, for R began at 0"),
        "share": (
            lambda a, g: relevance_by_matrices(a, g) / relevance_by_matrices(a, g).sum(-1, keepdim=True),
            "The proportions are right, but the map was scaled",
        ),
        "largest is 1": (
            lambda a, g: relevance_by_matrices(a, g) / relevance_by_matrices(a, g).amax(-1, keepdim=True),
            "The proportions are right, but the map was scaled",
        ),
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
        "number of rows": (covered_at(lambda patch, rows, cols: (patch // rows, patch % rows)), "A patch's number was"),
        "exchanged": (covered_at(lambda patch, rows, cols: (patch % cols, patch // cols)), "Row and column of each"),
        "repeated": (covered_again, "The grid of patches was laid down again and again"),
        "one pixel": (
            covered_at(lambda patch, rows, cols: (patch // cols, patch % cols), side=1),
            "Only one pixel of each patch",
        ),
        "half of them": (
            lambda x, m, n, p, g: cover_by_rank(x, m, (n + 1) // 2, p, g),
            "In image 0, 1 patch is covered, and count says 2",
        ),
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


def test_the_smallest_cases_can_be_followed_by_hand():
    with pytest.raises(AssertionError) as caught:
        check_distance(partial(far, unit=1))
    said = str(caught.value)
    assert "(attention of shape (1, 1, 1, 4, 4), rows=1, cols=3, patch_size=10)" in said
    assert "expected (blocks heads)    got\n[[10]]                     [[1]]" in said
    with pytest.raises(AssertionError) as caught:
        check_relevance(partial(speaks, read=lambda R: R[:, 1:, 0]))
    assert np.array2string(np.array([[0.75, 2.25]])) in str(caught.value)
