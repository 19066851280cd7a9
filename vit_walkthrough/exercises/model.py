"""Notebook 07: the sizes of the whole, what its classification head reads, and what its maps take."""

from math import isqrt

import torch
from torch import tensor

from vit_walkthrough.exercises.check import exercise, randn
from vit_walkthrough.model.config import ViTConfig


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
