"""Notebooks 04 and 05."""

import pytest
import torch
from einops import einsum, rearrange
from torch.nn.functional import linear, scaled_dot_product_attention

from tests.exercises.trials import test_in_time, test_right_answers_pass, test_wrong_answers_get_their_sentence  # noqa: F401
from vit_walkthrough.exercises import (
    check_contribution,
    check_hide_padding,
    check_join,
    check_look_back,
    check_scores,
    check_weights,
)

INF = float("inf")


def weights_in_loops(queries, keys):
    rows = []
    for query in queries.flatten(0, 1):
        image = len(rows) // queries.shape[1]
        scores = torch.stack([query @ key for key in keys[image]]) / queries.shape[-1] ** 0.5
        exponentials = (scores - scores.max()).exp()
        rows.append(exponentials / exponentials.sum())
    return torch.stack(rows).unflatten(0, queries.shape[:2])


def weights_by_einsum(queries, keys):
    scores = torch.einsum("bqd,bkd->bqk", queries, keys) * queries.shape[-1] ** -0.5
    return scores.softmax(-1)


def weights_by_values(queries, keys):
    marks = torch.eye(keys.shape[1]).expand(len(keys), -1, -1)
    return scaled_dot_product_attention(queries, keys, marks)


def weights_by_logsumexp(queries, keys):
    scores = queries @ keys.mT / queries.shape[-1] ** 0.5
    return (scores - scores.logsumexp(-1, keepdim=True)).exp()


def scaled(queries, keys):
    return queries @ keys.mT / queries.shape[-1] ** 0.5


def shared_out(scores, dim=-1):
    exponentials = scores.exp()
    return exponentials / exponentials.sum(dim, keepdim=True)


def hide_in_loops(weights, real):
    weights = weights.clone()
    for image in range(len(weights)):
        for row in weights[image]:
            row[~real[image]] = 0
            row /= row.sum()
    return weights


def hide_by_scores(weights, real):
    return weights.log().masked_fill(~real[:, None], -INF).softmax(-1)


def hide_by_einsum(weights, real):
    left = torch.einsum("bqk,bk->bq", weights, real.float())
    return torch.einsum("bqk,bk,bq->bqk", weights, real.float(), 1 / left)


def hide_by_product(weights, real):
    kept = weights * real.unsqueeze(1)
    return kept / kept.sum(-1, keepdim=True)


def spread_evenly(weights, real):
    kept = weights * real[:, None]
    lost = 1 - kept.sum(-1, keepdim=True)
    return torch.where(real[:, None], kept + lost / real.sum(-1)[:, None, None], 0)


def look_back_in_loops(keys, steps):
    queries = torch.zeros_like(keys)
    for token in range(len(keys)):
        queries[token] = 500 * keys[token - steps]
    return queries


def look_back_by_matrix(keys, steps):
    who = torch.eye(len(keys)).roll(-steps, 1)
    return torch.einsum("qk,kd->qd", who, keys) * 12 * keys.shape[1] ** 0.5


def scores_in_loops(queries, keys, heads):
    dim = queries.shape[-1] // heads
    parts = [slice(head * dim, head * dim + dim) for head in range(heads)]
    return torch.stack([queries[..., part] @ keys[..., part].mT / dim**0.5 for part in parts], 1)


def scores_by_view(queries, keys, heads):
    q, k = (x.view(len(x), x.shape[1], heads, -1).transpose(1, 2) for x in (queries, keys))
    return q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5


def scores_by_einsum(queries, keys, heads, split="b n (h d) -> b n h d", out="b h q k"):
    q, k = (rearrange(x, split, h=heads) for x in (queries, keys))
    return einsum(q, k, f"b q h d, b k h d -> {out}") / q.shape[-1] ** 0.5


def scores_of_tokens(queries, keys, heads):
    q, k = (x.reshape(len(x), heads, x.shape[1], -1) for x in (queries, keys))
    return q @ k.mT / q.shape[-1] ** 0.5


def join_in_loops(head_outputs, weight, bias):
    images = []
    for image in head_outputs:
        tokens = [torch.cat([head[token] for head in image]) for token in range(image.shape[1])]
        images.append(torch.stack([weight @ token + bias for token in tokens]))
    return torch.stack(images)


def join_with(pattern, head_outputs, weight, bias):
    return linear(rearrange(head_outputs, f"b h t d -> {pattern}"), weight, bias)


def join_by_einsum(head_outputs, weight, bias):
    return torch.einsum("bhtd,ohd->bto", head_outputs, weight.unflatten(1, (head_outputs.shape[1], -1))) + bias


def join_by_view(head_outputs, weight, bias):
    return linear(head_outputs.transpose(1, 2).flatten(2), weight, bias)


def contribution_by_slice(head_outputs, weight, head):
    size = head_outputs.shape[-1]
    return head_outputs[:, head] @ weight[:, head * size : (head + 1) * size].T


def contribution_by_silence(head_outputs, weight, head):
    alone = torch.zeros_like(head_outputs)
    alone[:, head] = head_outputs[:, head]
    return join_by_view(alone, weight, None)


def contribution_by_einsum(head_outputs, weight, head):
    return torch.einsum("bhtd,ohd->hbto", head_outputs, weight.unflatten(1, (head_outputs.shape[1], -1)))[head]


def contribution_in_loops(head_outputs, weight, head):
    output = torch.zeros(len(head_outputs), head_outputs.shape[2], len(weight))
    for number in range(head_outputs.shape[3]):
        column = weight[:, head * head_outputs.shape[3] + number]
        output += head_outputs[:, head, :, number, None] * column
    return output


def whole_output(head_outputs, weight):
    return join_by_view(head_outputs, weight, None)


RIGHT = {
    check_weights: {
        "loops": weights_in_loops,
        "einsum": weights_by_einsum,
        "kernel": weights_by_values,
        "logsumexp": weights_by_logsumexp,
    },
    check_hide_padding: {
        "loops": hide_in_loops,
        "scores": hide_by_scores,
        "einsum": hide_by_einsum,
        "product": hide_by_product,
    },
    check_look_back: {
        "loops": look_back_in_loops,
        "roll": lambda keys, steps: keys.roll(steps, 0) * 10 * keys.shape[-1] ** 0.5,
        "matrix": look_back_by_matrix,
        "indices": lambda keys, steps: 1000 * keys[(torch.arange(len(keys)) - steps) % len(keys)],
    },
    check_scores: {
        "loops": scores_in_loops,
        "view and transpose": scores_by_view,
        "einsum": scores_by_einsum,
    },
    check_join: {
        "loops": join_in_loops,
        "view and transpose": join_by_view,
        "einsum": join_by_einsum,
        "einops": lambda *given: join_with("b t (h d)", *given),
    },
    check_contribution: {
        "slice": contribution_by_slice,
        "silence": contribution_by_silence,
        "einsum": contribution_by_einsum,
        "loops": contribution_in_loops,
    },
}

WRONG = {
    check_weights: {
        "over the queries": (lambda q, k: scaled(q, k).softmax(-2), "Each column sums to 1: the softmax ran over"),
        "over the queries, by hand": (lambda q, k: shared_out(scaled(q, k), -2), "Each column sums to 1"),
        "over everything": (
            lambda q, k: scaled(q, k).flatten(1).softmax(-1).view(len(q), q.shape[1], -1),
            "All weights of an image together sum to 1",
        ),
        "over the batch": (lambda q, k: scaled(q, k).softmax(0), "The first row sums to 3"),
        "no scale": (lambda q, k: (q @ k.mT).softmax(-1), "too sharp: the scores have not been divided"),
        "no scale, by hand": (lambda q, k: shared_out(q @ k.mT), "too sharp: the scores have not been divided"),
        "by head_dim": (lambda q, k: (q @ k.mT / q.shape[-1]).softmax(-1), "too even: the scores were divided by head"),
        "by keys": (
            lambda q, k: (q @ k.mT / k.shape[1] ** 0.5).softmax(-1),
            "divided by the square root of the number of keys",
        ),
        "by queries": (
            lambda q, k: (q @ k.mT / q.shape[1] ** 0.5).softmax(-1),
            "divided by the square root of the number of queries",
        ),
        "times": (lambda q, k: (q @ k.mT * q.shape[-1] ** 0.5).softmax(-1), "were multiplied by the square root"),
        "scores": (scaled, "Those are the scores"),
        "exponentials": (lambda q, k: scaled(q, k).exp(), "The exponentials are there, but not yet divided"),
        "no exponential": (
            lambda q, k: scaled(q, k) / scaled(q, k).sum(-1, keepdim=True),
            "The scores themselves were divided by their sum",
        ),
        "absolute": (lambda q, k: -shared_out(scaled(q, k)), "There are negative weights"),
        "overflow": (lambda q, k: shared_out(scaled(q, k)), "returned NaN"),
        "overflow, why": (lambda q, k: shared_out(scaled(q, k)), "The exponential of a large score is infinite"),
        "one largest": (
            lambda q, k: shared_out(scaled(q, k) - scaled(q, k).amax((1, 2), keepdim=True)),
            "The largest score of all was taken off",
        ),
        "the mean": (
            lambda q, k: shared_out(scaled(q, k) - scaled(q, k).mean(-1, keepdim=True)),
            "The row's mean was taken off",
        ),
        "the largest of a column": (
            lambda q, k: shared_out(scaled(q, k) - scaled(q, k).amax(1, keepdim=True)),
            "The largest score of each column was taken off",
        ),
        "1 for NaN": (lambda q, k: shared_out(scaled(q, k)).nan_to_num(1.0), "1 in its place hides that"),
        "0 for NaN": (lambda q, k: shared_out(scaled(q, k)).nan_to_num(), "0 in its place takes the weight"),
        "cut off at 10": (
            lambda q, k: shared_out(scaled(q, k).clamp(max=10)),
            "The scores 128 and 64 of one row have got the same weight",
        ),
        "cut off at 80": (
            lambda q, k: shared_out(scaled(q, k).clamp(max=80)),
            "The scores 200 and 100 of one row have got the same weight",
        ),
        "transposed": (lambda q, k: scaled(k, q).softmax(-1), "expected (1, 2, 3) (batch queries keys)"),
        "no keepdim": (
            lambda q, k: scaled(q, k).exp() / scaled(q, k).exp().sum(-1),
            "raised RuntimeError",
        ),
    },
    check_hide_padding: {
        "not divided": (lambda w, real: w.masked_fill(~real[:, None], 0), "but the rows no longer sum to 1"),
        "inverted": (lambda w, real: hide_by_product(w, ~real), "True and False are exchanged"),
        "inverted, not divided": (lambda w, real: w * ~real[:, None], "only the padding has kept its weight"),
        "on the queries": (lambda w, real: w.masked_fill(~real[..., None], 0), "the mask lies on the queries"),
        "on both": (
            lambda w, real: hide_by_product(w, real) * real[..., None],
            "The rows of the padding are 0 as well",
        ),
        "on the queries, divided": (
            lambda w, real: (w * real[..., None]) / (w * real[..., None]).sum(-1, keepdim=True),
            "the mask lies on the queries. It belongs on the keys",
        ),
        "on both, divided": (
            lambda w, real: hide_by_product(w * real[:, :, None], real),
            "The rows of the padding were hidden too",
        ),
        "hidden, by columns": (
            lambda w, real: w * real[:, None] / (w * real[:, None]).sum(1, keepdim=True),
            "The columns were divided by their sums, and",
        ),
        "a small number": (
            lambda w, real: w * real[:, None] / ((w * real[:, None]).sum(-1, keepdim=True) + 1e-6),
            "a small number was added to the sum",
        ),
        "softmax again": (
            lambda w, real: w.masked_fill(~real[:, None], -INF).softmax(-1),
            "a second softmax ran over the weights",
        ),
        "softmax of 0": (lambda w, real: (w * real[:, None]).softmax(-1), "a second softmax made exp(0) = 1"),
        "spread": (spread_evenly, "What the padding had was spread evenly"),
        "columns": (
            lambda w, real: (w / w.sum(-2, keepdim=True)).masked_fill(~real[:, None], 0),
            "The columns were divided by their sums",
        ),
        "one sum": (
            lambda w, real: w * real[:, None] / (w * real[:, None]).sum((1, 2), keepdim=True),
            "All rows of an image were divided by one sum",
        ),
        "by the count": (
            lambda w, real: w * real[:, None] / real.sum(-1)[:, None, None],
            "Each row was divided by the number of real keys",
        ),
        "another image's": (
            lambda w, real: (w * real) / (w * real).sum(-1, keepdim=True),
            "Every query has another image's mask",
        ),
        "nothing": (lambda w, real: w.clone(), "Key 2 of image 0 is padding, and query 1 still gives it 0.5"),
        "cut out": (lambda w, real: w[:, :, real[0]], "returned the shape (1, 3, 2), expected (1, 3, 3)"),
    },
    check_look_back: {
        "forward": (lambda keys, steps: 1000 * keys.roll(-steps, 0), "Every token looks forward"),
        "itself": (lambda keys, steps: 1000 * keys, "Every token looks at itself"),
        "too short": (lambda keys, steps: keys.roll(steps, 0), "gives it only 0.4518 of its 1"),
        "the root forgotten": (lambda keys, steps: 60 * keys.roll(steps, 0), "gives it only 0.80"),
        "a little too short": (lambda keys, steps: 10 * keys.roll(steps, 0), "gives it only 0.98"),
        "steps ignored": (lambda keys, steps: 1000 * keys.roll(1, 0), "Every token looks 1 back, where steps is 2"),
        "all alike": (lambda keys, steps: torch.ones_like(keys), "Every token shares out evenly"),
        "nothing": (lambda keys, steps: torch.zeros_like(keys), "Every token shares out evenly"),
        "numbers rolled": (
            lambda keys, steps: 1000 * keys.roll(steps, 1),
            "Token 2 shares out evenly",
        ),
        "the first falls off": (
            lambda keys, steps: torch.cat([1000 * keys[:1].expand(steps, -1), 1000 * keys[:-steps]]),
            "Token 0 looks most at token 0; that should be token 2",
        ),
        "weights": (lambda keys, steps: torch.eye(len(keys)).roll(-steps, 1), "the queries have the shape (3, 3)"),
        "transposed": (lambda keys, steps: keys.roll(steps, 0).T, "the queries have the shape (4, 3)"),
        "nothing returned": (lambda keys, steps: None, "is there a `return`?"),
        "whole numbers": (lambda keys, steps: (1000 * keys).long(), "returned torch.int64, expected torch.float32"),
    },
    check_scores: {
        "interleaved": (
            lambda *given: scores_by_einsum(*given, split="b n (d h) -> b n h d"),
            "The heads were taken as (head_dim heads)",
        ),
        "tokens cut": (scores_of_tokens, "The tokens were cut and not their vectors"),
        "no scale": (
            lambda q, k, heads: scores_by_einsum(q, k, heads) * (q.shape[-1] // heads) ** 0.5,
            "The scores are not scaled",
        ),
        "by dim": (
            lambda q, k, heads: scores_by_einsum(q * q.shape[-1] ** -0.5, k, heads) * (q.shape[-1] // heads) ** 0.5,
            "divided by the square root of dim",
        ),
        "by head_dim": (
            lambda q, k, heads: scores_by_einsum(q, k, heads) / (q.shape[-1] // heads) ** 0.5,
            "divided by head_dim itself",
        ),
        "by heads": (
            lambda q, k, heads: scores_by_einsum(q, k, heads) * (q.shape[-1] // heads / heads) ** 0.5,
            "divided by the square root of the number of heads",
        ),
        "times": (
            lambda q, k, heads: scores_by_einsum(q, k, heads) * (q.shape[-1] // heads),
            "The scores are too large: they were multiplied",
        ),
        "two letters": (
            lambda q, k, heads: (
                torch.einsum("bqhd,bkgd->bhqk", q.unflatten(2, (heads, -1)), k.unflatten(2, (heads, -1)))
                / (q.shape[-1] // heads) ** 0.5
            ),
            "Every head of the queries has met the keys of all heads",
        ),
        "exchanged": (lambda *given: scores_by_einsum(*given, out="b h k q"), "Rows and columns are exchanged"),
        "heads last": (lambda *given: scores_by_einsum(*given, out="b q k h"), "The heads stand last"),
        "heads between": (lambda *given: scores_by_einsum(*given, out="b q h k"), "The heads stand between"),
        "heads first": (lambda *given: scores_by_einsum(*given, out="h b q k"), "The heads stand before the batch"),
        "summed": (lambda *given: scores_by_einsum(*given, out="b q k"), "The numbers of all heads were added up"),
        "all alike": (
            lambda q, k, heads: scores_by_einsum(q, k, heads).sum(1, keepdim=True).expand(-1, heads, -1, -1),
            "All heads have the same scores",
        ),
        "weights": (lambda *given: scores_by_einsum(*given).softmax(-1), "Every row sums to 1"),
    },
    check_join: {
        "reshape": (
            lambda g, weight, bias: linear(g.reshape(len(g), g.shape[2], -1), weight, bias),
            "Only reshaped",
        ),
        "interleaved": (lambda *given: join_with("b t (d h)", *given), "The heads were joined as (head_dim heads)"),
        "transposed": (lambda g, weight, bias: join_by_view(g, weight.T, bias), "The projection is transposed"),
        "transpose(1, 3)": (
            lambda g, weight, bias: linear(g.transpose(1, 3).reshape(len(g), g.shape[2], -1), weight, bias),
            "Heads and head_dim have changed places",
        ),
        "transpose(2, 3)": (
            lambda g, weight, bias: linear(g.transpose(2, 3).reshape(len(g), g.shape[2], -1), weight, bias),
            "Tokens and head_dim have changed places",
        ),
        "mean": (
            lambda g, weight, bias: join_by_view(g.mean(1, keepdim=True).expand_as(g), weight, bias),
            "The heads were averaged",
        ),
        "no projection": (lambda g, weight, bias: rearrange(g, "b h t d -> b t (h d)"), "the projection is missing"),
        "no bias": (lambda g, weight, bias: join_by_view(g, weight, None), "The bias is missing"),
        "bias of every head": (
            lambda g, weight, bias: sum(contribution_by_slice(g, weight, head) + bias for head in range(g.shape[1])),
            "The bias came once for every head",
        ),
        "bias first": (
            lambda g, weight, bias: (rearrange(g, "b h t d -> b t (h d)") + bias) @ weight.T,
            "The bias was added before the projection",
        ),
        "shape": (
            lambda g, weight, bias: join_by_view(g, weight, bias).flatten(0, 1),
            "returned the shape (2, 4), expected (1, 2, 4) (batch tokens dim)",
        ),
    },
    check_contribution: {
        "rows": (
            lambda g, weight, head: contribution_by_slice(g, weight.T, head),
            "rows of it were cut out",
        ),
        "interleaved": (
            lambda g, weight, head: g[:, head] @ weight[:, head :: g.shape[1]].T,
            "The columns are cut as (head_dim heads)",
        ),
        "begins at head": (
            lambda g, weight, head: g[:, head] @ weight[:, head : head + g.shape[-1]].T,
            "The columns begin at number `head`",
        ),
        "first columns": (
            lambda g, weight, head: g[:, head] @ weight[:, : g.shape[-1]].T,
            "The columns are always the first ones",
        ),
        "before the projection": (
            lambda g, weight, head: contribution_by_slice(g, torch.eye(len(weight)), head),
            "before the projection",
        ),
        "all heads": (lambda g, weight, head: whole_output(g, weight), "That is the whole output"),
        "the others": (
            lambda g, weight, head: whole_output(g, weight) - contribution_by_slice(g, weight, head),
            "That is what all the other heads add",
        ),
        "evenly": (lambda g, weight, head: whole_output(g, weight) / g.shape[1], "shared out evenly among the heads"),
        "slice of the output": (
            lambda g, weight, head: torch.stack(
                [part * (number == head) for number, part in enumerate(whole_output(g, weight).split(g.shape[-1], -1))],
                2,
            ).flatten(2),
            "A slice of the output was kept",
        ),
        "mean": (
            lambda g, weight, head: contribution_by_slice(g, weight, head) / g.shape[1],
            "The share was divided by the number of heads",
        ),
        "counted from 1": (
            lambda g, weight, head: contribution_by_slice(g.roll(1, 1), weight.roll(g.shape[-1], 1), head),
            "Those are the numbers of the head before",
        ),
        "the numbers of one, the columns of another": (
            lambda g, weight, head: contribution_by_slice(g.flip(1), weight, head),
            "returned the right shape, but wrong numbers",
        ),
    },
}


def test_what_is_nan_is_explained_and_its_line_is_named():
    with pytest.raises(AssertionError) as caught:
        check_weights(lambda q, k: shared_out(scaled(q, k)))
    said = str(caught.value)
    assert said.startswith("<lambda> returned NaN, in your line ")
    assert "Take the row's largest score off" in said
    assert all(row in said for row in ("    got\n", "    [[[nan nan  0.]\n", "      [ 0.  0.  1.]]]\n"))
