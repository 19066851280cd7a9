"""Notebook 09: what is read out of a model's attention, and what tests it."""

from functools import reduce

import torch
from torch import tensor
from torch.nn.functional import max_pool2d, one_hot, pad

from vit_walkthrough.exercises.check import exercise, randn


def multiplied(blocks):
    """The product of the blocks' matrices, the first block's on the right."""
    return reduce(lambda arrived, block: block @ arrived, blocks)


def patches_of(arrived):
    """What has arrived at the class token from the patches: its row without its own column."""
    return arrived[:, 0, 1:]


def rows_of_1(*sizes, seed=0):
    return randn(*sizes, seed=seed).softmax(-1)


IN_QUARTERS = tensor([[[2.0, 2, 0], [0, 2, 2], [0, 0, 4]], [[0, 4, 0], [1, 1, 2], [2, 0, 2]]]) / 4


@exercise(
    cases=[(IN_QUARTERS[:, None, None],), (rows_of_1(3, 1, 2, 4, 4),), (rows_of_1(2, 3, 4, 5, 5),)],
    axes="batch patches",
    holds="One row is enough: what arrives at the class token, block by block from the last to the first.",
)
def check_rollout(attention):
    """yours(attention): how much of each patch has arrived at the class token (batch patches) by rollout, of attention
    (blocks batch heads queries keys)."""
    identity, mean = torch.eye(attention.shape[-1]), attention.mean(2)
    doubled, summed = mean + identity, attention.sum(2) + identity
    halved, each_head = doubled / 2, (attention + identity) / 2

    def rolled(blocks):
        return patches_of(multiplied(blocks))

    right = rolled(halved)
    got = yield right
    yield (
        "The blocks are in the wrong order: begin with the class token's row of the last block, end with the first",
        rolled(halved.flip(0)),
    )
    yield "The identity is missing: in every block each token keeps itself as well", rolled(mean)
    yield "The rows sum to 2 once the identity is added: halve them, or what arrives doubles", rolled(doubled)
    by_columns = doubled / doubled.sum(-2, keepdim=True)
    yield "The columns were scaled to sum to 1; each row, over its keys, must sum to 1", rolled(by_columns)
    yield "That is the class token's column; what has arrived at it is its row", patches_of(multiplied(halved).mT)
    by_sums = summed / summed.sum(-1, keepdim=True)
    yield "The heads were summed, so the identity counts too little: take their mean", rolled(by_sums)
    yield "That is the last block's raw attention: what the patches had taken in before is missing", rolled(mean[-1:])
    yield (
        "The identity is missing in the last block: begin with the class token alone, [1, 0, 0 ...], and take every "
        "block in the same way",
        rolled([*halved[:-1], mean[-1]]),
    )
    yield (
        "Each head was rolled out by itself. A block mixes its heads, so take their mean in every block",
        patches_of(multiplied(each_head).mean(1)),
    )
    yield (
        "Multiplied from the wrong side: layer @ column follows what goes out from a token. The row stands on the "
        "left, row @ layer",
        patches_of(multiplied(halved.flip(0)).mT),
    )
    if (total := got.sum(-1).max()) > 1 + 1e-4:
        yield f"{total:.2f} of the class token is said to come from patches, but all of it is 1: scale every row to 1"
    if torch.allclose(got / got.sum(-1, keepdim=True), right / right.sum(-1, keepdim=True), atol=1e-4):
        yield "The proportions are right, but not the sum: what is missing to 1 comes from the class token itself"


FOUR_TOKENS = tensor([[1.0, 1, 1, 1], [2, 1, 1, 0], [0, 2, 0, 2], [2, 1, 1, 0]]) / 4


@exercise(
    cases=[(FOUR_TOKENS[None, None, None], 1, 3, 10), (rows_of_1(2, 2, 3, 7, 7), 2, 3, 4)],
    axes="blocks heads",
    holds="How far each head looks, in pixels and along a straight line, and the class token is left out of it.",
)
def check_distance(attention, rows, cols, patch_size):
    """yours(attention, rows, cols, patch_size): how many pixels far each head of the attention (blocks batch heads
    queries keys) looks, the mean over batch and patches (blocks heads)."""
    patches, numbers = attention[..., 1:, 1:], torch.arange(rows * cols)
    shares = patches / patches.sum(-1, keepdim=True)
    strongest = one_hot(patches.argmax(-1), rows * cols)
    y, x = numbers // cols, numbers % cols

    def apart(y, x, power=2):
        steps = (y[:, None] - y).abs() ** power + (x[:, None] - x).abs() ** power
        return patch_size * steps ** (1 / power)

    def far(weights, distances):
        return (weights * distances).sum(-1).mean((1, 3))

    distances, exchanged, in_line = apart(y, x), apart(numbers // rows, numbers % rows), apart(0 * numbers, numbers)
    right = far(shares, distances)
    yield right
    yield "That is counted in patches, but a patch is patch_size pixels wide", right / patch_size
    yield (
        "Without the class token a row no longer sums to 1. Scale it again, or a head that looks much at the class "
        "token seems to look near",
        far(patches, distances),
    )
    yield (
        "The class token was counted as 0 pixels away from all. It stands nowhere: leave out its row and its column",
        far(attention, pad(distances, (1, 0, 1, 0))),
    )
    yield "rows and cols are exchanged: patch = row * cols + col", far(shares, exchanged)
    yield "Steps down and across were added, but a straight line is shorter", far(shares, apart(y, x, power=1))
    yield "The root is missing: that is the mean of dy² + dx²", far(shares, distances**2)
    yield "The patches were laid in one row, but patch number cols stands under patch 0", far(shares, in_line)
    yield "That is how far the strongest weight of each row lies, but all weights count", far(strongest, distances)
    yield "Summed over the patches: take the mean over them", right * len(numbers)
    yield "Divided by the number of keys: the weights are shares already, so sum over the keys", right / len(numbers)


HALVES = tensor([[[0.0, 2, 0], [1, 1, 0], [0, 1, 1]], [[1, 0, 1], [0, 1, 1], [2, 0, 0]]]) / 2  # heads queries keys
PULLS = tensor([
    [[[1.0, -2, 3], [2, 2, -4], [2, 4, 2]], [[2, 1, 4], [-2, -4, 2], [-1, 2, 3]]],
    [[[4, 4, -2], [1, 2, 1], [1, 1, 2]], [[2, 1, -2], [2, -2, 2], [4, 2, 2]]],
])  # fmt: skip


@exercise(
    cases=[
        (torch.stack([HALVES, HALVES.flip(0)])[:, None], PULLS[:, None]),
        (rows_of_1(3, 2, 2, 4, 4), randn(3, 2, 2, 4, 4, seed=1)),
    ],
    axes="batch patches",
    holds="Only what speaks for the class is counted, and it is followed through all blocks to the class token.",
)
def check_relevance(attention, gradients):
    """yours(attention, gradients): relevance from the attention and the gradient of a class's logit at it, both
    (blocks batch heads queries keys), for the patches (batch patches)."""
    identity, products = torch.eye(attention.shape[-1]), attention * gradients
    positive, products_of_means = products.clamp(min=0), attention.mean(2) * gradients.mean(2)
    counted = positive.mean(2)  # Ā

    def followed(counted):  # R + Ā R = (1 + Ā) R
        return patches_of(multiplied(identity + counted))

    right = followed(counted)
    got = yield right
    yield "The negative products were kept, but what speaks against the class counts as 0", followed(products.mean(2))
    yield (
        "The mean over the heads came before the positive part, so a head against the class cancels one for it: first "
        "the positive part of each head, then the mean",
        followed(products.mean(2).clamp(min=0)),
    )
    yield (
        "The heads were averaged before the product: multiply each head's weights with its own gradients, and take the "
        "mean of the positive parts",
        followed(products_of_means.clamp(min=0)),
    )
    yield "The signs are lost, but what speaks against the class counts as 0", followed(products.abs().mean(2))
    yield (
        "The attention alone was counted, so the map is the same for every class: multiply with the gradients",
        followed(attention.mean(2)),
    )
    yield "Everything is 0, because R began at 0. Each token first holds itself: begin with the identity", 0 * right
    yield "Each block loses what was there: R becomes R + ĀR, not ĀR", patches_of(multiplied(counted))
    yield (
        "The blocks are in the opposite order: begin with the first, and put each new one on the left, Ā @ R",
        followed(counted.flip(0)),
    )
    yield "The heads were summed: take their mean", followed(positive.sum(2))
    column = multiplied(identity + counted).mT
    yield "That is the class token's column; what has arrived at it is its row", patches_of(column)
    factors = got.sum(-1, keepdim=True) / right.sum(-1, keepdim=True)
    if (factors > 0).all() and torch.allclose(got, factors * right, atol=1e-4):
        yield "The proportions are right, but the map was scaled: return what has arrived as it is, not divided"


ONE_IMAGE, ITS_MAP = torch.arange(10.0, 34).reshape(1, 1, 4, 6), tensor([[1.0, 5, 0, 3, 2, 9]]) / 10
TWO_IMAGES = torch.arange(10.0, 58).reshape(2, 1, 6, 4)
THEIR_MAPS = tensor([[4.0, 5, 0, 1, 2, 3], [7, 4, 3, 2, 1, 0]]) / 10


@exercise(
    cases=[
        (ONE_IMAGE, ITS_MAP, 2, 2, torch.zeros(1, 1, 1, 1)),
        (TWO_IMAGES, THEIR_MAPS, 1, 2, tensor([1.0, 2]).reshape(2, 1, 1, 1)),
        (randn(3, 2, 6, 12), randn(3, 8, seed=1), 3, 3, randn(3, 2, 1, 1, seed=2)),
    ],
    axes="batch channels height width",
    holds="In each image its own strongest patches are covered with its own colour, and nothing else is touched.",
    picture=True,
)
def check_cover(images, maps, count, patch_size, ground):
    """yours(images, maps, count, patch_size, ground): the images (batch channels height width), where the `count`
    patches that are strongest in each one's map (batch patches) have the colour of its ground (batch channels 1 1)."""
    rows, cols = images.shape[2] // patch_size, images.shape[3] // patch_size
    order, numbers = maps.argsort(descending=True), torch.arange(rows * cols)
    rank = order.argsort()
    chosen = rank < count

    def covered(chosen, ground=ground):
        pixels = chosen.reshape(-1, 1, rows, cols).repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)
        return torch.where(pixels, ground, images)

    got = yield covered(chosen)
    yield "The weakest patches were covered; begin with the map's strongest", covered(rank >= len(numbers) - count)
    yield "All patches but the strongest were covered: that is insertion, not deletion", covered(~chosen)
    yield "One patch too many is covered: the strongest have the ranks 0 to count - 1", covered(rank <= count)
    yield (
        "argsort says which patch stands at each rank, not which rank each patch has. Sort once more: argsort of the "
        "argsort",
        covered(order < count),
    )
    by_columns = chosen.reshape(-1, cols, rows).mT
    yield "The patches were laid down column by column; reading order is row by row", covered(by_columns)
    by_rows = torch.zeros(len(maps), len(numbers), len(numbers), dtype=torch.bool)
    by_rows[:, numbers // rows, numbers % rows] = chosen
    yield (
        "A patch's number was divided by the number of rows, but a row holds cols patches: row = patch // cols, "
        "col = patch % cols",
        covered(by_rows[:, :rows, :cols]),
    )
    yield (
        "The grid of patches was laid down again and again, as .repeat does. Repeat each number on the spot, "
        "patch_size times down and across, with repeat_interleave",
        torch.where(chosen.reshape(-1, 1, rows, cols).repeat(1, 1, patch_size, patch_size), ground, images),
    )
    yield "The first image's patches are covered in all images; each has a map of its own", covered(chosen[:1])
    yield "The first image's ground covers all images; each has a colour of its own", covered(chosen, ground[:1])
    yield "The patches were made black, but black may be loud: use the ground", covered(chosen, torch.zeros(1))
    touched = max_pool2d((got != images).any(1).float(), patch_size).sum((1, 2)).int()
    for image, found in enumerate(touched.tolist()):
        if found != count:
            yield f"In image {image}, {found} of the patches are covered, and count says {count}"
    if not torch.isclose(got, ground)[got != images].all():
        yield "What is covered has not its image's ground as its colour"
