"""Notebook 06."""

import pytest
import torch
from einops import rearrange, reduce
from torch import nn

from tests.exercises.trials import test_in_time, test_right_answers_pass, test_wrong_answers_get_their_sentence  # noqa: F401
from vit_walkthrough.exercises import check_block_parameters, check_layer_norm, check_post_norm


def norm_in_loops(tokens, weight, bias):
    normed = torch.empty_like(tokens)
    for image in range(len(tokens)):
        for place, token in enumerate(tokens[image]):
            mean = token.sum() / len(token)
            variance = ((token - mean) ** 2).sum() / len(token)
            normed[image, place] = weight * (token - mean) / torch.sqrt(variance + 1e-6) + bias
    return normed


def norm_along(axis, eps=1e-6, unbiased=False):
    def norm(tokens, weight, bias):
        mean = tokens.mean(axis, keepdim=True)
        variance = tokens.var(axis, keepdim=True, unbiased=unbiased)
        return (tokens - mean) * (variance + eps) ** -0.5 * weight + bias

    return norm


def norm_by_einops(tokens, weight, bias):
    centred = tokens - reduce(tokens, "b t d -> b t 1", "mean")
    size = rearrange(torch.linalg.vector_norm(centred, dim=-1), "b t -> b t 1")
    return centred / (size**2 / tokens.shape[-1] + 1e-6).sqrt() * weight + bias


def norm_of_torch(tokens, weight, bias, eps=1e-6):
    return nn.functional.layer_norm(tokens, tokens.shape[-1:], weight, bias, eps)


def moments(tokens):
    return tokens.mean(-1, keepdim=True), tokens.var(-1, keepdim=True, unbiased=False)


def norm_of(what):
    """what(tokens, mean, variance, weight, bias) as a LayerNorm."""

    def norm(tokens, weight, bias):
        return what(tokens, *moments(tokens), weight, bias)

    return norm


def counted_by_torch(dim, hidden):
    with torch.device("meta"):
        layer = nn.TransformerEncoderLayer(dim, 1, hidden)
    return sum(parameter.numel() for parameter in layer.parameters())


def counted_in_loops(dim, hidden):
    layers = [(dim, dim)] * 4 + [(dim, hidden), (hidden, dim)]
    return sum((before + 1) * after for before, after in layers) + 2 * 2 * dim


def without(what):
    return lambda dim, hidden: counted_in_loops(dim, hidden) - what(dim, hidden)


def post_norm_in_two_lines(tokens, attention, mlp, norm_1, norm_2):
    tokens = norm_1(tokens + attention(tokens))
    return norm_2(tokens + mlp(tokens))


def post_norm_in_a_loop(tokens, attention, mlp, norm_1, norm_2):
    for step, norm in ((attention, norm_1), (mlp, norm_2)):
        tokens = norm(torch.add(tokens, step(tokens)))
    return tokens


def post_norm_in_one_line(x, attention, mlp, norm_1, norm_2):
    return norm_2(sum(part(norm_1(x + attention(x))) for part in (mlp, lambda y: y)))


def pre_norm(x, attention, mlp, norm_1, norm_2):
    x = x + attention(norm_1(x))
    return x + mlp(norm_2(x))


def from_before_the_norm(x, attention, mlp, norm_1, norm_2):
    x = x + attention(x)
    return norm_2(x + mlp(norm_1(x)))


RIGHT = {
    check_layer_norm: {
        "loops": norm_in_loops,
        "var": norm_along(-1),
        "einops": norm_by_einops,
        "torch": norm_of_torch,
    },
    check_block_parameters: {
        "torch": counted_by_torch,
        "loops": counted_in_loops,
        "formula": lambda dim, hidden: 4 * dim**2 + 9 * dim + hidden * (2 * dim + 1),
    },
    check_post_norm: {
        "two lines": post_norm_in_two_lines,
        "loop": post_norm_in_a_loop,
        "one line": post_norm_in_one_line,
    },
}

WRONG = {
    check_layer_norm: {
        "over the tokens": (norm_along(-2), "The mean was taken over the tokens"),
        "over batch and tokens": (norm_along((0, 1)), "that is a BatchNorm"),
        "over the batch": (norm_along(0), "The mean was taken over the batch: one image"),
        "over the image": (norm_along((1, 2)), "All tokens of an image share one mean"),
        "over everything": (norm_along((0, 1, 2)), "Everything shares one mean"),
        "n - 1": (norm_along(-1, unbiased=True), "The variance was divided by dim - 1"),
        "no eps": (norm_along(-1, eps=0), "A constant token has variance 0"),
        "no eps, where": (norm_along(-1, eps=0), "returned NaN"),
        "eps of torch": (lambda *given: norm_of_torch(*given, eps=1e-5), "eps is 1e-5, torch's default"),
        "eps outside": (
            norm_of(lambda x, mean, variance, weight, bias: (x - mean) / (variance.sqrt() + 1e-6) * weight + bias),
            "eps was added to the standard deviation",
        ),
        "by the variance": (
            norm_of(lambda x, mean, variance, weight, bias: (x - mean) / (variance + 1e-6) * weight + bias),
            "Divided by the variance",
        ),
        "not divided": (
            norm_of(lambda x, mean, variance, weight, bias: (x - mean) * weight + bias),
            "nothing was divided",
        ),
        "not centred": (
            norm_of(lambda x, mean, variance, weight, bias: x * (variance + 1e-6).rsqrt() * weight + bias),
            "The mean was not subtracted",
        ),
        "root of mean square": (
            lambda x, weight, bias: x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight + bias,
            "Before weight and bias, token 1 has the mean 0.8; by itself it should have 0",
        ),
        "weight and bias first": (
            lambda x, weight, bias: norm_of_torch(x * weight + bias, None, None),
            "weight and bias came first",
        ),
        "bias before weight": (
            lambda x, weight, bias: (norm_of_torch(x, None, None) + bias) * weight,
            "The bias was added before the weight",
        ),
        "neither": (lambda x, weight, bias: norm_of_torch(x, None, None), "weight and bias are missing"),
        "exchanged": (lambda x, weight, bias: norm_of_torch(x, bias, weight), "weight and bias are exchanged"),
        "no bias": (lambda x, weight, bias: norm_of_torch(x, weight, None), "The bias is missing"),
        "no weight": (lambda x, weight, bias: norm_of_torch(x, None, bias), "The weight is missing"),
        "half as large": (
            lambda x, weight, bias: norm_of_torch(x, weight / 2, bias),
            "has the variance 0.25; by itself it should have 1",
        ),
    },
    check_block_parameters: {
        "no biases": (lambda dim, hidden: 4 * dim**2 + 2 * dim * hidden + 2 * dim, "The biases are missing"),
        "no bias of a Linear": (without(lambda dim, hidden: 5 * dim + hidden), "The biases of the four Linear layers"),
        "one LayerNorm": (without(lambda dim, hidden: 2 * dim), "2 * dim are missing. Either"),
        "qkv's bias once": (
            lambda dim, hidden: 3 * dim * dim + dim + dim * dim + dim + 2 * dim * hidden + hidden + dim + 4 * dim,
            "2 * dim are missing. Either qkv's bias was counted with dim",
        ),
        "no LayerNorm": (without(lambda dim, hidden: 4 * dim), "The LayerNorms are missing"),
        "qkv once": (without(lambda dim, hidden: 2 * dim * (dim + 1)), "qkv was counted as one matrix of dim * dim"),
        "qkv's matrix once": (without(lambda dim, hidden: 2 * dim * dim), "qkv's matrix was counted once"),
        "no bias of qkv": (without(lambda dim, hidden: 3 * dim), "qkv has no bias in this count"),
        "no projection": (without(lambda dim, hidden: dim * (dim + 1)), "The projection after the heads is missing"),
        "no attention": (without(lambda dim, hidden: 4 * dim * (dim + 1)), "Attention is missing"),
        "no MLP": (without(lambda dim, hidden: 2 * dim * hidden + hidden + dim), "The MLP is missing"),
        "half an MLP": (without(lambda dim, hidden: dim * hidden + dim), "The MLP was counted with one matrix"),
        "the MLP's bias": (without(lambda dim, hidden: hidden - dim), "has hidden numbers, not dim"),
        "four times": (lambda dim, hidden: 12 * dim**2 + 13 * dim, "hidden was taken for 4 * dim"),
        "hidden squared": (
            lambda dim, hidden: 4 * dim**2 + 9 * dim + hidden * (hidden + 1),
            "hidden * hidden numbers were counted",
        ),
        "a guess": (lambda dim, hidden: 12 * dim * hidden, "290 too many: count one after another"),
    },
    check_post_norm: {
        "pre-norm": (pre_norm, "The norms stand before the steps"),
        "nothing added": (lambda x, att, mlp, n1, n2: n2(mlp(n1(att(x)))), "Nothing is added"),
        "one added": (lambda x, att, mlp, n1, n2: n2(mlp(n1(att(x) + x))), "The second addition is missing"),
        "late": (
            lambda x, att, mlp, n1, n2: post_norm_in_two_lines(n1(att(x)), lambda y: 0, mlp, lambda y: y, n2),
            "The first addition is missing",
        ),
        "aside": (
            lambda x, att, mlp, n1, n2: (y := x + n1(att(x))) + n2(mlp(y)),
            "The norms stand aside",
        ),
        "from the start": (
            lambda x, att, mlp, n1, n2: n2(x + mlp(n1(x + att(x)))),
            "The MLP's result was added to the tokens that came in",
        ),
        "both from the start": (
            lambda x, att, mlp, n1, n2: n2(n1(x + att(x)) + mlp(x)),
            "The MLP has read the tokens that came in",
        ),
        "from before the norm": (from_before_the_norm, "added to the tokens before norm_1"),
        "norm_1 twice": (
            lambda x, att, mlp, n1, n2: post_norm_in_two_lines(x, att, mlp, n1, n1),
            "norm_1 was used twice",
        ),
        "norms exchanged": (
            lambda x, att, mlp, n1, n2: post_norm_in_two_lines(x, att, mlp, n2, n1),
            "norm_1 and norm_2 are exchanged",
        ),
        "MLP first": (
            lambda x, att, mlp, n1, n2: post_norm_in_two_lines(x, mlp, att, n1, n2),
            "The MLP came first",
        ),
        "no norm_1": (
            lambda x, att, mlp, n1, n2: post_norm_in_two_lines(x, att, mlp, lambda y: y, n2),
            "norm_1 is missing",
        ),
        "no norm_2": (
            lambda x, att, mlp, n1, n2: post_norm_in_two_lines(x, att, mlp, n1, lambda y: y),
            "norm_2 is missing",
        ),
        "first line": (lambda x, att, mlp, n1, n2: n1(x + att(x)), "Only the first half is there"),
        "norms of what came in": (
            lambda x, att, mlp, n1, n2: n2(y := n1(x) + att(x)) + mlp(y),
            "What came in was normalised",
        ),
        "no norms": (
            lambda x, att, mlp, n1, n2: post_norm_in_two_lines(x, att, mlp, lambda y: y, lambda y: y),
            "Both norms are missing",
        ),
    },
}


def test_what_the_check_hands_over_is_shown_with_the_example():
    with pytest.raises(AssertionError) as caught:
        check_post_norm(pre_norm)
    said = str(caught.value)
    assert "pre_norm(tokens of shape (1, 2, 1), attention, mlp, norm_1, norm_2)" in said
    assert "attention(x) = 2 * x\n" in said
    assert "norm_2(x) = 10 * x\n" in said
