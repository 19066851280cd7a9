"""Notebook 02: what a token is made of, what it takes to learn, and where tokens of no patch stand."""

from functools import partial

import torch
from torch import tensor
from torch.nn.functional import conv2d

from vit_walkthrough.exercises.check import exercise, randn


@exercise(
    cases=[(4, 6, 2, 1, 3), (224, 384, 16, 3, 768), (15, 35, 5, 4, 11)],
    holds="One matrix, one bias and one class token serve any number of patches.",
)
def check_count_learned(height, width, patch_size, channels, dim):
    """yours(height, width, patch_size, channels, dim): how many numbers matrix, bias and class token hold."""
    patches, patch_dim = height // patch_size * (width // patch_size), channels * patch_size**2
    matrix = patch_dim * dim
    learned = matrix + dim + dim  # bias, class token
    yield learned
    yield "dim numbers are missing: the bias has dim numbers, and so has the class token", learned - dim
    yield "That is the matrix alone: its bias has dim numbers, and so has the class token", matrix
    yield "The channels are missing: a patch is flattened with all of them", patch_size**2 * dim + 2 * dim
    yield "You counted a matrix for each patch, but all patches share one", patches * matrix + 2 * dim


UPPER_LEFT, UPPER_RIGHT = tensor([[1.0, 0], [0, 0]]), tensor([[0.0, 1], [0, 0]])
OF_ONE_CHANNEL = torch.stack([UPPER_LEFT, UPPER_RIGHT], -1)[:, :, None]
OF_TWO_CHANNELS = torch.stack([UPPER_LEFT, UPPER_RIGHT], -1)[..., None] * torch.eye(2)


@exercise(
    cases=[
        (torch.arange(12.0).reshape(1, 1, 2, 6), OF_ONE_CHANNEL, tensor([10.0, 20])),
        (torch.arange(48.0).reshape(1, 2, 4, 6), OF_TWO_CHANNELS, tensor([100.0, 200])),
        (randn(2, 3, 4, 2), randn(2, 2, 3, 4, seed=1), randn(4, seed=2)),
        (randn(1, 2, 3, 6), randn(3, 3, 2, 5, seed=1), randn(5, seed=2)),
    ],
    axes="batch patches dim",
    holds="The same tokens as Google's code makes of these weights, though the kernel lies in another order.",
)
def check_embed(images, kernel, bias):
    """yours(images, kernel, bias): the tokens (batch patches dim) of images (batch channels height width), by a kernel
    (ph pw channels dim) and a bias (dim)."""
    side, _, channels, dim = kernel.shape
    convolved = partial(conv2d, images, bias=bias, stride=side)  # batch dim rows cols

    def embedded(weight):
        return convolved(weight).flatten(2).mT

    right, reshaped = kernel.permute(3, 2, 0, 1), kernel.reshape(dim, channels, side, side)
    channels_first = kernel.reshape(channels, side, side, dim).permute(3, 0, 1, 2)
    in_rows = convolved(right).reshape(len(images), -1, dim)
    yield embedded(right)
    yield "The kernel was only reshaped: bring its axes into another order, by permute or rearrange", embedded(reshaped)
    yield "The patch has the channels first, the kernel last; both need the same order", embedded(channels_first)
    yield "The bias is missing: add it to every token", embedded(right) - bias
    yield "The patches come column by column; reading order is row by row", convolved(right).mT.flatten(2).mT
    yield "The result was only reshaped: dim must go last before rows and cols are joined", in_rows
