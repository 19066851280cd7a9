"""Notebooks 06 and 07: the norm and where it stands, the sizes of the whole, and what its classification head reads."""

from math import isqrt

import torch
from torch import tensor

from vit_walkthrough.exercises.check import exercise, randn
from vit_walkthrough.model.config import ViTConfig


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


@exercise(
    cases=[
        (ViTConfig((4, 6), 2, channels=1, dim=10, depth=2, heads=2, hidden=7, classes=3), (8, 10), 5),
        (ViTConfig.named("B/16"), 384, 10),
        (ViTConfig((15, 9), 3, dim=12, depth=3, heads=3, hidden=20, classes=7), (6, 21), 19),
        (ViTConfig((16, 40), 8, dim=12, depth=3, heads=3, hidden=20, classes=7), (24, 8), 26),
    ],
    holds="Another image size changes the positions, other classes change the head, and nothing else changes.",
)
def check_added_parameters(config, image_size, classes):
    """yours(config, image_size, classes): how many parameters more the model has with this image size and so many
    classes; below zero if it has fewer."""
    height, width = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    rows, cols, dim = height // config.patch_size, width // config.patch_size, config.dim
    positions = (rows * cols - config.patches) * dim
    added_classes = classes - config.classes
    head = added_classes * (dim + 1)
    yield positions + head
    yield "That is the head alone, but every patch has a position of dim numbers, and their number changes too", head
    yield "Those are the positions alone; the head changes too, by dim weights and a bias for every class", positions
    yield "The head's biases are missing: a class has dim weights and one bias", positions + added_classes * dim
    all_new = (rows * cols + 1) * dim + classes * (dim + 1)
    yield "Those are all new positions and the whole new head; subtract the old positions and the old head", all_new
    pixels = height * width - config.height * config.width
    yield "Every pixel got a position; it is every patch that has one", pixels * dim + head
    square = (rows * rows - config.patches) * dim + head
    yield "The new image was taken for a square: rows come from its height, cols from its width", square
    yield f"The positions change by {positions:+,} and the head by {head:+,}; nothing else changes"


@exercise(
    cases=[
        (tensor([[[9.0, 50], [2, 10], [4, 40], [7, 0]]]), tensor([[True, True, False]])),
        (randn(2, 6, 3), tensor([[0, 1, 0, 1, 0], [1, 0, 0, 1, 1]]).bool()),
        (randn(3, 9, 4), torch.arange(8) % tensor([[2], [3], [4]]) == 1),
    ],
    axes="batch dim",
    holds="The mean of each image's own patches under the mask, and the class token is not in it.",
)
def check_mean_over(tokens, mask):
    """yours(tokens, mask): the mean of those patches where mask (batch patches) is True, in tokens
    (batch tokens dim) that begin with the class token: (batch dim)."""
    class_token, patches, counts = tokens[:, 0], tokens[:, 1:], mask[:, :, None]
    total, count = (patches * counts).sum(1), counts.sum(1)
    yield total / count
    yield "The class token is in the mean, but the mask speaks of patches", (class_token + total) / (1 + count)
    early = (tokens[:, :-1] * counts).sum(1) / count
    yield "The mask lies one place too early: token 0 is the class token, so patch 0 is token 1", early
    yield "Divided by the number of all patches; divide by the number of True in each image", total / mask.shape[1]
    yield "Divided by the number of True in the whole batch; every image has its own count", total / mask.sum()
    yield "That is the mean of all patches, but those where the mask is False must not count", patches.mean(1)
    others = (patches * ~counts).sum(1) / (~counts).sum(1)
    yield "True and False are exchanged: True is a patch that counts", others


@exercise(
    cases=[
        (ViTConfig(8, 8, depth=2, heads=3), 600),  # to the byte
        (ViTConfig(5, 5, depth=3, heads=2), 2_399),  # a byte too few, so that one patch less fits
        (ViTConfig(4, 4, depth=3, heads=6), 11_577_672),  # so many patches that every factor tells
        (ViTConfig(14, 14, depth=4, heads=3), 41_000),
    ],
    holds="The largest image that fits: one row and column of patches more, and its maps would not.",
)
def check_largest_side(config, budget):
    """yours(config, budget): the side in pixels of the largest square image, cut into whole patches, whose attention
    maps (float32, of all heads and blocks) take no more than `budget` bytes."""
    p, depth, heads = config.patch_size, config.depth, config.heads

    def side(numbers):
        return isqrt(isqrt(numbers) - 1) * p

    numbers = budget // (4 * depth * heads)
    right = side(numbers)
    got = yield right
    yield "One row of patches too many: that image no longer fits", right + p
    yield "That is how many patches lie along the side; give the pixels", right // p
    yield "The class token is missing: it has a row and a column in every map", isqrt(isqrt(numbers)) * p
    yield "A map has a number for every pair, tokens * tokens, not one for every token", isqrt(numbers - 1) * p
    yield "Numbers were counted, not bytes: one in float32 takes 4 bytes", side(budget // (depth * heads))
    yield "Only one block was counted: every block has maps of its own", side(budget // (4 * heads))
    if got % p:
        yield f"{got} pixels cannot be cut into whole patches of {p}: round down to a multiple of it"
    here, next_one = (f"{4 * depth * heads * ((pixels // p) ** 2 + 1) ** 2:,}" for pixels in (got, got + p))
    yield f"With {got} pixels the maps take {here} bytes, with {got + p} pixels {next_one}"
