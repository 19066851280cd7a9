"""Notebooks 04 and 05: right answers, written in other ways than the reference; and what the remarks are for."""

import torch
from einops import einsum, rearrange
from torch.nn.functional import linear, scaled_dot_product_attention

from vit_walkthrough.exercises import (
    check_contribution,
    check_hide_padding,
    check_join,
    check_look_back,
    check_scores,
    check_weights,
)


def weights_in_loops(queries, keys):
    weights = torch.empty(*queries.shape[:2], keys.shape[1])
    for image, query in torch.cartesian_prod(*map(torch.arange, queries.shape[:2])).tolist():
        scores = torch.stack([queries[image, query] @ key for key in keys[image]]) / queries.shape[-1] ** 0.5
        exponentials = (scores - scores.max()).exp()
        weights[image, query] = exponentials / exponentials.sum()
    return weights


def weights_by_values(queries, keys):
    return scaled_dot_product_attention(queries, keys, torch.eye(keys.shape[1]).expand(len(keys), -1, -1))


def cut_off(queries, keys):
    return (queries @ keys.mT / queries.shape[-1] ** 0.5).clamp(max=80).softmax(-1)


def hide_in_loops(weights, real):
    weights = weights.clone()
    for image in range(len(weights)):
        for row in weights[image]:
            row[~real[image]] = 0
            row /= row.sum()
    return weights


def hide_by_scores(weights, real):
    return weights.log().masked_fill(~real[:, None], -torch.inf).softmax(-1)


def add_a_little(weights, real):
    kept = weights * real[:, None]
    return kept / (kept.sum(-1, keepdim=True) + 1e-6)


def look_back_in_loops(keys, steps):
    queries = torch.zeros_like(keys)
    for token in range(len(keys)):
        queries[token] = 500 * keys[token - steps]
    return queries


def scores_in_loops(queries, keys, heads):
    dim = queries.shape[-1] // heads
    parts = [slice(head * dim, head * dim + dim) for head in range(heads)]
    return torch.stack([queries[..., part] @ keys[..., part].mT / dim**0.5 for part in parts], 1)


def scores_by_einsum(queries, keys, heads):
    q, k = (rearrange(x, "b n (h d) -> b n h d", h=heads) for x in (queries, keys))
    return einsum(q, k, "b q h d, b k h d -> b h q k") / q.shape[-1] ** 0.5


def join_in_loops(head_outputs, weight, bias):
    images = []
    for image in head_outputs:
        tokens = [torch.cat([head[token] for head in image]) for token in range(image.shape[1])]
        images.append(torch.stack([weight @ token + bias for token in tokens]))
    return torch.stack(images)


def join_by_einops(head_outputs, weight, bias):
    return linear(rearrange(head_outputs, "b h t d -> b t (h d)"), weight, bias)


def contribution_by_silence(head_outputs, weight, head):
    alone = torch.zeros_like(head_outputs)
    alone[:, head] = head_outputs[:, head]
    return join_by_einops(alone, weight, None)


def contribution_by_einsum(head_outputs, weight, head):
    return torch.einsum("bhtd,ohd->hbto", head_outputs, weight.unflatten(1, (head_outputs.shape[1], -1)))[head]


RIGHT = {
    check_weights: [weights_in_loops, weights_by_values],
    check_hide_padding: [hide_in_loops, hide_by_scores],
    check_look_back: [look_back_in_loops, lambda keys, steps: keys.roll(steps, 0) * 10 * keys.shape[-1] ** 0.5],
    check_scores: [scores_in_loops, scores_by_einsum],
    check_join: [join_in_loops, join_by_einops],
    check_contribution: [contribution_by_silence, contribution_by_einsum],
}

REMARKED = {
    check_weights: [
        (lambda *given: -weights_in_loops(*given), "There are negative weights"),
        (lambda *given: weights_in_loops(*given) * 3, "The first row sums to 3"),
        (cut_off, "Were large scores cut off?"),
    ],
    check_hide_padding: [
        (lambda weights, real: weights.clone(), "Key 2 of image 0 is padding, and query 0 still gives it 0.25"),
        (lambda *given: hide_in_loops(*given) / 2, "A row sums to 0.5"),
        (add_a_little, "Was a small number added"),
    ],
    check_look_back: [
        (lambda keys, steps: torch.ones_like(keys), "A token shares out evenly"),
        (lambda keys, steps: 1000 * keys, "Every token looks at itself"),
        (lambda keys, steps: 1000 * keys.roll(-steps, 0), "Every token looks forward, at the token 1"),
        (lambda keys, steps: 1000 * keys.roll(1, 0), "Every token looks 1 back, where steps is 2"),
        (lambda keys, steps: 10 * keys.roll(steps, 0), "gives it only 0.98"),
        (lambda keys, steps: 1000 * keys.roll(steps, 0)[[0, 1, 1, *range(3, len(keys))]], "Token 2 looks most at"),
        (lambda keys, steps: torch.eye(len(keys)).roll(-steps, 1), "The queries have the shape (3, 3)"),
    ],
}
