"""Notebook 10: another's weights in our model, under our names and in our layout."""

import re

import torch
from torch import tensor

from vit_walkthrough.exercises.check import exercise, randn

IN_BLOCK = {  # vit-pytorch's names, and ours
    ".0.norm": ".norm_1",
    ".0.to_qkv": ".attention.qkv",  # theirs has no bias
    ".0.to_out.0": ".attention.projection",
    ".1.net.0": ".norm_2",
    ".1.net.1": ".mlp.expand",
    ".1.net.4": ".mlp.contract",
}
PARTS = {"to_patch_embedding.2": "patch_embedding.projection", "transformer.norm": "norm", "mlp_head": "head.logits"}
for block in (0, 1, 14):
    PARTS |= {f"transformer.layers.{block}{theirs}": f"blocks.{block}{ours}" for theirs, ours in IN_BLOCK.items()}
NAMES = {"cls_token": "class_token.token", "pos_embedding": "position_embedding.positions"}
NAMES |= {f"{theirs}.weight": f"{ours}.weight" for theirs, ours in PARTS.items()}
NAMES |= {f"{theirs}.bias": f"{ours}.bias" for theirs, ours in PARTS.items() if not theirs.endswith("to_qkv")}


@exercise(
    cases=[(theirs,) for theirs in NAMES],
    holds="Every name of theirs has become ours, in every block, weights and biases.",
)
def check_name(theirs):
    """yours(theirs): our name for a tensor of vit-pytorch's ViT."""
    ours = NAMES[theirs]

    def swap(one, other):
        return ours.replace(one, "?").replace(other, one).replace("?", other)

    got = yield ours
    yield "norm_1 and norm_2 are exchanged: norm_1 stands before the attention", swap("norm_1", "norm_2")
    yield "qkv and projection are exchanged: to_out is the projection", swap("attention.qkv", "attention.projection")
    yield "expand and contract are exchanged: net.1 goes from dim to hidden, net.4 back", swap("expand", "contract")
    yield "Only the first digit of the block was read; there is a block 14", ours.replace("blocks.14", "blocks.1")
    yield "All is block 0; read the number from their name", re.sub(r"^blocks\.\d+", "blocks.0", ours)
    yield "All is called weight; some tensors are biases", ours.replace("bias", "weight")
    if got == theirs:
        yield f"{theirs} came back as it was: it needs a name of ours"


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
