"""Notebook 06: the norm, and where it stands."""

import torch
from torch import tensor

from vit_walkthrough.exercises.check import exercise, randn


@exercise(
    cases=[
        (tensor([[[0.0, 0, 4, 4], [1, 7, 7, 1]]]), tensor([1.0, 2, 3, 4]), tensor([10.0, 10, 20, 20])),
        (3 * randn(2, 3, 5), randn(5, seed=1), randn(5, seed=2)),
        (tensor([[[0.001, 0.002, 0.003, 0.002], [2, 2, 2, 2], [2, 4, 6, 4]]]), torch.ones(4), torch.zeros(4)),
    ],
    axes="batch tokens dim",
    holds="Every token has mean 0 and variance 1 by itself, then weight and bias; a constant one stays finite.",
)
def check_layer_norm(tokens, weight, bias):
    """yours(tokens, weight, bias): LayerNorm with eps 1e-6 of tokens (batch tokens dim), weight and bias (dim)."""

    def norm(*axes, eps=1e-6, correction=0):
        variance = tokens.var(axes, keepdim=True, correction=correction)
        return (tokens - tokens.mean(axes, keepdim=True)) / (variance + eps).sqrt() * weight + bias

    yield norm(-1)
    yield "The mean ran over the tokens; let it run over the dim numbers of one token, the last axis", norm(-2)
    yield "All tokens of an image share one mean and one variance; each needs its own", norm(1, 2)
    yield "The whole batch shares one mean and one variance; each token needs its own", norm(0, 1, 2)
    yield "The variance was divided by dim - 1; divide by dim: unbiased=False", norm(-1, correction=1)
    yield "A constant token gives 0 / 0: add eps = 1e-6 to the variance, under the root", norm(-1, eps=0)
    yield "eps is 1e-5, as torch's default; here it is 1e-6. A nearly constant token shows it", norm(-1, eps=1e-5)
    yield "weight and bias are missing: multiply by the one and add the other", (norm(-1) - bias) / weight


@exercise(
    cases=[(4, 10), (768, 3072), (37, 85)],
    holds="Two LayerNorms, four Linear layers with their biases: every parameter of a block is counted.",
)
def check_block_parameters(dim, hidden):
    """yours(dim, hidden): how many parameters an encoder block has."""
    norms, biases = 4 * dim, 3 * dim + dim + hidden + dim
    qkv, projection, expand, contract = 3 * dim * dim, dim * dim, dim * hidden, hidden * dim
    right = norms + qkv + projection + expand + contract + biases
    got = yield right
    yield "The biases are missing, those of the Linear layers and of the LayerNorms", right - biases - norms // 2
    yield "The biases of the four Linear layers are missing; each has one number for each output", right - biases
    yield "The LayerNorms are missing: two, each with a weight and a bias of dim numbers", right - norms
    yield "qkv was counted as dim * dim and a bias; it is three times as wide", right - 2 * dim * (dim + 1)
    yield "The projection after the heads is missing: dim * dim and a bias", right - projection - dim
    yield "The MLP has two matrices, there and back; one was counted", right - contract - dim
    many = f"{abs(got - right):,} too {'many' if got > right else 'few'}"
    yield f"{many}: count norm_1, qkv, projection, norm_2, expand and contract one after another"


@exercise(
    cases=[
        (tensor([[[1.0], [2]]]), torch.square, torch.square, torch.neg, torch.neg),
        (randn(2, 3, 4), torch.fliplr, torch.square, torch.tanh, torch.sin),
    ],
    axes="batch tokens dim",
    holds="Add, then normalise, twice: the block of 2017.",
)
def check_post_norm(tokens, attention, mlp, norm_1, norm_2):
    """yours(tokens, attention, mlp, norm_1, norm_2): tokens (batch tokens dim) after a block that normalises after each
    addition; the other arguments are functions of tokens."""
    added = tokens + attention(tokens)
    middle = norm_1(added)
    pre, late, exchanged = tokens + attention(norm_1(tokens)), norm_1(attention(tokens)), norm_2(added)
    yield norm_2(middle + mlp(middle))
    once = tokens + norm_1(attention(tokens))
    yield "Each norm takes the result alone; it must take the sum, after the addition", once + norm_2(mlp(once))
    yield "Each norm stands before its step: that is pre-norm. Put it after each addition", pre + mlp(norm_2(pre))
    yield "Nothing is added: add to each step's result what it has read, then normalise", norm_2(mlp(late))
    yield "The second addition is missing: add to the MLP's result what it has read", norm_2(mlp(middle))
    yield "norm_1 and norm_2 are exchanged", norm_1(exchanged + mlp(exchanged))
    yield "norm_2 is missing; normalise after each of the two additions", middle + mlp(middle)
