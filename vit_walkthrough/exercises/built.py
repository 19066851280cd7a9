"""Notebook 11: pairs of numbers that are turned, and windows that are cut out of the tokens."""

import torch
from torch import tensor

from vit_walkthrough.exercises.check import exercise, randn


@exercise(
    cases=[
        (tensor([[1.0, 0, 0, 2], [3, 0, 0, 4]]), torch.pi / 2 * tensor([[0.0, 1], [1, 2]])),
        (randn(3, 8), randn(3, 4, seed=1)),
    ],
    axes="tokens head_dim",
    holds="Every pair of neighbours is turned by its own angle, and keeps its length.",
)
def check_turn(vectors, angles):
    """yours(vectors, angles): vectors (tokens head_dim) of which each pair of neighbours, numbers 0 and 1, 2 and 3 ...,
    is turned by its own of the angles (tokens pairs): (1, 0) by 90 degrees becomes (0, 1)."""
    first, second = vectors.unflatten(1, (-1, 2)).unbind(2)

    def turned(angle, one, other):
        return one * angle.cos() - other * angle.sin(), one * angle.sin() + other * angle.cos()

    def neighbours(*pair):
        return torch.stack(pair, 2).flatten(1)

    right = turned(angles, first, second)
    yield neighbours(*right)
    yield "They are turned the other way: (1, 0) must become (0, 1)", neighbours(*turned(-angles, first, second))
    yield "The halves came out one behind the other; the two numbers of a pair are neighbours", torch.cat(right, 1)
    halves = torch.cat(turned(angles, *vectors.chunk(2, 1)), 1)
    yield "Number k was paired with number k + head_dim / 2; here neighbours are a pair", halves
    only = neighbours(first * angles.cos(), second * angles.cos())
    yield "Each number was only multiplied by the cosine; it also gets the other one, times the sine", only
    alike = neighbours(*turned(angles[:1], first, second))
    yield "All tokens were turned by the angles of token 0; each token has its own", alike


@exercise(
    cases=[(torch.arange(24.0).reshape(1, 24, 1), 4, 6, 2), (randn(2, 54, 3), 6, 9, 3), (randn(2, 8, 3), 2, 4, 1)],
    axes="windows patches dim",
    holds="Each window holds its own patches, in reading order.",
)
def check_to_windows(patches, rows, cols, side):
    """yours(patches, rows, cols, side): patches (batch rows*cols dim) in windows (batch*windows side*side dim): the
    windows of an image, and the patches of a window, in reading order."""
    grid = patches.unflatten(1, (rows // side, side, cols // side, side))  # batch down row across col dim

    def joined(*axes):
        return grid.permute(*axes).reshape(-1, side * side, patches.shape[2])

    yield joined(0, 1, 3, 2, 4, 5)
    yield "Only reshaped: a window got patches that follow one another in a row of the image", joined(0, 1, 2, 3, 4, 5)
    yield "The windows come column by column; reading order is row by row", joined(0, 3, 1, 2, 4, 5)
    yield "The patches of a window come column by column; reading order is row by row", joined(0, 1, 3, 4, 2, 5)
    yield "The first windows of all images come first; keep those of an image together", joined(1, 3, 0, 2, 4, 5)
