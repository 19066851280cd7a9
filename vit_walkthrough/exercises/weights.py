"""Notebook 10: another's weights in our layout, and a preparation built into the weights."""

import torch
from torch import tensor

from vit_walkthrough.exercises.check import exercise, randn


@exercise(
    cases=[(torch.arange(36.0).reshape(2, 3, 6),), (randn(3, 2, 6),), (randn(4, 5, 20),)],
    axes="dim dim",
    holds="Row by row what goes out, column by column what comes in, head after head.",
)
def check_projection(kernel):
    """yours(kernel): Google's kernel of the projection after the heads (heads head_dim dim) as our weight (dim dim)."""
    dim = kernel.shape[-1]

    def square(*order):
        return kernel.permute(order).reshape(dim, dim)

    yield square(2, 0, 1)
    yield "Not transposed: theirs is (in, out), torch's Linear keeps (out, in)", square(0, 1, 2)
    yield "The columns are mixed up: first come all numbers of head 0, then all of head 1", square(2, 1, 0)
    yield "Each head was transposed by itself; the heads must stand side by side, in the columns", square(0, 2, 1)


@exercise(
    cases=[
        (tensor([[1.0, 2, 3], [4, 5, 6]]), tensor([10.0, 20]), tensor([0.5, 0.25, 0.75]), tensor([0.5, 0.25, 0.125])),
        (randn(2, 12), randn(2, seed=1), randn(3, seed=2).sigmoid(), randn(3, seed=3).sigmoid()),
        (randn(5, 27), randn(5, seed=1), randn(3, seed=2).sigmoid(), randn(3, seed=3).sigmoid()),
    ],
    axes=("weight (dim patch_dim)", "bias (dim)"),
    holds="This layer makes of raw pixels what the other made of prepared ones, channel by channel.",
)
def check_folded(weight, bias, mean, std):
    """yours(weight, bias, mean, std): weight (dim patch_dim) and bias (dim) that make of raw pixels what the given ones
    make of pixels less the mean, divided by the std, of their channel (channels)."""
    pixels = weight.shape[1] // len(mean)
    means, stds = mean.repeat_interleave(pixels), std.repeat_interleave(pixels)
    last_means, last_stds = mean.repeat(pixels), std.repeat(pixels)
    folded, shift = weight / stds, weight @ (means / stds)
    right = bias - shift
    channels_last = weight / last_stds, bias - weight @ (last_means / last_stds)
    yield folded, right
    yield "The weight was multiplied by std; divide it, as the pixels are divided", (weight * stds, right)
    yield "The mean went into the bias with the wrong sign; subtract it, as from the pixels", (folded, bias + shift)
    yield "In the bias the mean is not divided by std: subtract new weight @ mean", (folded, bias - weight @ means)
    yield "The bias is as it was; the mean shifts each output, so subtract that shift", (folded, bias)
    yield "The weight is as it was; divide it by std, as the pixels are divided", (weight, right)
    yield "The channels were laid out last; a patch is (channels ph pw), all pixels of red first", channels_last
