"""Notebook 09: right answers, written in other ways than the reference; and what the remarks are for."""

import math

import torch

from vit_walkthrough.exercises import check_cover, check_distance, check_relevance, check_rollout


def rollout_in_loops(attention):
    blocks, batch, _, tokens, _ = attention.shape
    images = []
    for image in range(batch):
        row = [1.0] + [0.0] * (tokens - 1)
        for block in reversed(range(blocks)):
            weights = attention[block, image].mean(0).tolist()
            row = [row[k] / 2 + sum(row[q] * weights[q][k] for q in range(tokens)) / 2 for k in range(tokens)]
        images.append(row[1:])
    return torch.tensor(images)


def rollout_of_a_row(attention):
    half = 0.5 * (attention.mean(2) + torch.eye(attention.shape[-1]))
    row = half[-1, :, 0]
    for block in half[:-1].flip(0):
        row = torch.einsum("bk, bkj -> bj", row, block)
    return row[:, 1:]


def distance_by_cdist(attention, rows, cols, patch_size):
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).float() * patch_size
    patches = torch.nn.functional.normalize(attention[..., 1:, 1:], p=1, dim=-1)
    return torch.einsum("lbhqk, qk -> lh", patches, torch.cdist(grid, grid)) / (attention.shape[1] * rows * cols)


def distance_in_loops(attention, rows, cols, patch_size):
    blocks, _, heads = attention.shape[:3]
    far = torch.zeros(blocks, heads)
    for query in range(rows * cols):
        row = attention[:, :, :, 1 + query, 1:]
        for key in range(rows * cols):
            apart = patch_size * math.hypot(query // cols - key // cols, query % cols - key % cols)
            far += (row[..., key] / row.sum(-1)).mean(1) * apart
    return far / (rows * cols)


def relevance_backwards(attention, gradients):
    row = torch.eye(attention.shape[-1])[0].expand(attention.shape[1], 1, -1)
    for block in reversed(range(len(attention))):
        products = attention[block] * gradients[block]
        row = row + row @ torch.where(products > 0, products, 0).mean(1)
    return row[:, 0, 1:]


def relevance_in_loops(attention, gradients):
    blocks, batch, heads, tokens, _ = attention.shape
    maps = torch.empty(batch, tokens - 1)
    for image in range(batch):
        arrived = torch.eye(tokens)
        for block in range(blocks):
            before = arrived.clone()
            for query in range(tokens):
                for key in range(tokens):
                    products = attention[block, image, :, query, key] * gradients[block, image, :, query, key]
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


def cover_by_scatter(images, maps, count, patch_size, ground):
    chosen = torch.zeros_like(maps).scatter_(1, maps.topk(count).indices, 1)
    chosen = chosen.reshape(len(maps), 1, images.shape[2] // patch_size, -1)
    chosen = torch.nn.functional.interpolate(chosen, images.shape[2:], mode="nearest")
    return images * (1 - chosen) + ground * chosen


RIGHT = {
    check_rollout: [rollout_in_loops, rollout_of_a_row],
    check_distance: [distance_by_cdist, distance_in_loops],
    check_relevance: [relevance_backwards, relevance_in_loops],
    check_cover: [cover_in_loops, cover_by_scatter],
}

REMARKED = {
    check_rollout: [
        (lambda attention: rollout_of_a_row(attention) + 0.7, "of the class token is said to come from patches"),
        (lambda attention: rollout_of_a_row(attention) / 2, "The proportions are right, but not the sum"),
    ],
    check_relevance: [
        (lambda *given: relevance_backwards(*given) / 3, "The proportions are right, but the map was scaled")
    ],
    check_cover: [
        (lambda x, m, count, p, g: cover_in_loops(x, m, count // 2, p, g), "In image 0, 1 of the patches are covered"),
        (lambda x, m, count, p, g: cover_in_loops(x, m, count, p, g + 0.5), "What is covered has not its image's"),
    ],
}
