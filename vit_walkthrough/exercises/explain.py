"""Notebook 09: what is read out of a model's attention, and what tests it."""

from functools import reduce

import torch
from torch import tensor

from vit_walkthrough.exercises.check import exercise, randn


def _multiplied(blocks):
    """The product of the blocks' matrices, the first block's on the right."""
    return reduce(lambda arrived, block: block @ arrived, blocks)


def _patches_of(arrived):
    """What has arrived at the class token from the patches: its row without its own column."""
    return arrived[:, 0, 1:]


def _rows_of_1(*sizes, seed=0):
    return randn(*sizes, seed=seed).softmax(-1)


IN_QUARTERS = tensor([[[2.0, 2, 0], [0, 2, 2], [0, 0, 4]], [[0, 4, 0], [1, 1, 2], [2, 0, 2]]]) / 4


@exercise(
    cases=[(IN_QUARTERS[:, None, None],), (_rows_of_1(3, 1, 2, 4, 4),), (_rows_of_1(2, 3, 4, 5, 5),)],
    axes="batch patches",
    holds="One row is enough: what arrives at the class token, block by block from the last to the first.",
)
def check_rollout(attention):
    """yours(attention): how much of each patch has arrived at the class token (batch patches) by rollout, of attention
    (blocks batch heads queries keys)."""
    identity, mean = torch.eye(attention.shape[-1]), attention.mean(2)
    doubled, each_head = mean + identity, (attention + identity) / 2
    halved, of_heads = doubled / 2, _multiplied(each_head)

    def rolled(blocks):
        return _patches_of(_multiplied(blocks))

    right = rolled(halved)
    got = yield right
    yield "The blocks are in the wrong order: begin with the row of the last block", rolled(halved.flip(0))
    yield "The identity is missing: in every block each token keeps itself as well", rolled(mean)
    yield "The rows sum to 2 once the identity is added: halve them, or what arrives doubles", rolled(doubled)
    yield "That is the class token's column; what has arrived at it is its row", _patches_of(_multiplied(halved).mT)
    yield "That is the last block alone: what the patches had taken in before is missing", rolled(mean[-1:])
    yield "Each head was rolled out by itself; take the heads' mean in every block", _patches_of(of_heads.mean(1))
    if torch.allclose(got / got.sum(-1, keepdim=True), right / right.sum(-1, keepdim=True), atol=1e-4):
        yield "The proportions are right, but not the sum: what is missing to 1 comes from the class token itself"


FOUR_PATCHES, INSIDE = tensor([[0.4, 0.1, 0.1, 0.2], [0.1, 0.3, 0.6, 0.0]]), tensor([[1, 0, 1, 0], [0, 1, 0, 1]]).bool()


@exercise(
    cases=[(FOUR_PATCHES, INSIDE), (randn(3, 9).exp().round(decimals=1), randn(3, 9, seed=2) > 0)],
    axes="batch",
    holds="Every patch on the object has met every patch beside it. Squaring the map would not change the result.",
)
def check_duels(maps, inside):
    """yours(maps, inside): the share of duels that patches on the object win (batch). A duel is a pair of a patch where
    `inside` is True and one where it is False; the stronger in the map (batch patches) wins, a tie counts half."""
    pairs = inside[:, :, None] & ~inside[:, None]
    more, ties = maps[:, :, None] > maps[:, None], maps[:, :, None] == maps[:, None]

    def share(won):
        return (won * pairs).sum((1, 2)) / pairs.sum((1, 2))

    right = share(more + 0.5 * ties)
    yield right
    yield "Patches beside the object win those duels; count what patches on it win", 1 - right
    yield "Two patches that are equally strong win half a duel each; here a tie counts nothing", share(more)
    yield "Two patches that are equally strong win half a duel each; here a tie counts as won", share(more | ties)
    yield "Divide by the number of duels: patches on the object times patches beside it", right * pairs.sum((1, 2))
    mass = (maps * inside).sum(-1) / maps.sum(-1)
    yield "That is the mass: how much lies on the object, and not which of two is stronger", mass


HALVES = tensor([[[0.0, 2, 0], [1, 1, 0], [0, 1, 1]], [[1, 0, 1], [0, 1, 1], [2, 0, 0]]]) / 2  # heads queries keys
PULLS = tensor([
    [[[1.0, -2, 3], [2, 2, -4], [2, 4, 2]], [[2, 1, 4], [-2, -4, 2], [-1, 2, 3]]],
    [[[4, 4, -2], [1, 2, 1], [1, 1, 2]], [[2, 1, -2], [2, -2, 2], [4, 2, 2]]],
])  # fmt: skip


@exercise(
    cases=[
        (torch.stack([HALVES, HALVES.flip(0)])[:, None], PULLS[:, None]),
        (_rows_of_1(3, 2, 2, 4, 4), randn(3, 2, 2, 4, 4, seed=1)),
    ],
    axes="batch patches",
    holds="Only what speaks for the class is counted, and it is followed through all blocks to the class token.",
)
def check_relevance(attention, gradients):
    """yours(attention, gradients): relevance from the attention and the gradient of a class's logit at it, both
    (blocks batch heads queries keys), for the patches (batch patches)."""
    identity, products = torch.eye(attention.shape[-1]), attention * gradients
    counted = products.clamp(min=0).mean(2)  # Ā
    of_means = (attention.mean(2) * gradients.mean(2)).clamp(min=0)

    def followed(counted):  # R + Ā R = (1 + Ā) R
        return _patches_of(_multiplied(identity + counted))

    right = followed(counted)
    got = yield right
    yield "The negative products were kept, but what speaks against the class counts as 0", followed(products.mean(2))
    yield "The heads were averaged before the product: multiply each head with its own gradients", followed(of_means)
    yield "Everything is 0, because R began at 0. Each token first holds itself: begin with the identity", 0 * right
    yield "Each block loses what was there: R becomes R + ĀR, not ĀR", _patches_of(_multiplied(counted))
    yield "The blocks are in the opposite order: each new one comes on the left, Ā @ R", followed(counted.flip(0))
    column = _multiplied(identity + counted).mT
    yield "That is the class token's column; what has arrived at it is its row", _patches_of(column)
    factors = got.sum(-1, keepdim=True) / right.sum(-1, keepdim=True)
    if (factors > 0).all() and torch.allclose(got, factors * right, atol=1e-4):
        yield "The proportions are right, but the map was scaled: return what has arrived as it is, not divided"
