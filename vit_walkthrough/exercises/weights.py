"""Notebook 10: another's weights in our model, under our names and in our layout."""

import re
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vit_walkthrough.exercises.examine import both, examine

# ------------------------------------------------------------------------------------------------ names

WHOLE = {  # vit-pytorch's names, and ours
    "cls_token": "class_token.token",
    "pos_embedding": "position_embedding.positions",
    "to_patch_embedding.2.": "patch_embedding.projection.",
    "transformer.norm.": "norm.",
    "mlp_head.": "head.logits.",
}
IN_BLOCK = {
    "0.norm.": "norm_1.",
    "0.to_qkv.": "attention.qkv.",
    "0.to_out.0.": "attention.projection.",
    "1.net.0.": "norm_2.",
    "1.net.1.": "mlp.expand.",
    "1.net.4.": "mlp.contract.",
}


def _name(theirs: str) -> str:
    for start, ours in WHOLE.items():
        if theirs.startswith(start):
            return ours + theirs[len(start) :]
    block, rest = theirs.removeprefix("transformer.layers.").split(".", 1)
    for start, ours in IN_BLOCK.items():
        if rest.startswith(start):
            return f"blocks.{block}.{ours}{rest[len(start) :]}"
    raise ValueError(f"{theirs} is not in the table")


def _exchanged(one: str, other: str, theirs: str) -> str:
    """The right name, in which two of its parts have changed places."""
    ours = _name(theirs)
    return ours.replace(one, other) if one in ours else ours.replace(other, one)


def _renumbered(change: Callable, theirs: str) -> str:
    return re.sub(r"(?<=^blocks\.)\d+", lambda found: change(found[0]), _name(theirs))


def _about_name(case: dict, expected: str, got: str) -> str | None:
    if got == case["theirs"]:
        return f"{got} came back as it was: it needs a name of ours"
    *ours, kind = expected.split(".")
    *yours, last = got.split(".")
    if yours == ours:
        return f"The last part of {case['theirs']} stays what it is, {kind}, and here it became {last}"
    if [part for part in yours if not part.isdigit()] == [part for part in ours if not part.isdigit()]:
        return f"{case['theirs']} went to another block: blocks are numbered from 0, there and here"
    if left := {"transformer", "layers", "net", "to_qkv", "to_out", "to_patch_embedding", "mlp_head"} & set(yours):
        return f"Something of their name is left over in {got}: {', '.join(sorted(left))}"
    return f"{case['theirs']} became {got or 'nothing'}"


def check_name(yours: Callable, seed: int = 0) -> None:
    """yours(theirs): our name for a tensor of vit-pytorch's ViT."""
    numbers = np.random.default_rng(seed)
    whole = ["cls_token", "pos_embedding", *(name + "weight" for name in WHOLE if name.endswith("."))]
    in_block = [f"transformer.layers.{numbers.integers(0, 10)}.{part}weight" for part in IN_BLOCK]
    deeper = [f"transformer.layers.{numbers.integers(1, 4)}{numbers.integers(4, 10)}.{part}weight" for part in IN_BLOCK]
    biases = [name.replace("weight", "bias") for name in whole[2:] + deeper if "qkv" not in name]  # theirs has none
    cases = [dict(theirs=name) for name in (*whole, *in_block, *deeper, *biases)]

    mistakes = {
        "norm_1 and norm_2 are exchanged: the norm before the attention is norm_1": partial(
            _exchanged, "norm_1", "norm_2"
        ),
        "qkv and projection are exchanged: to_qkv makes queries, keys and values; to_out mixes the heads' results": (
            partial(_exchanged, "attention.qkv", "attention.projection")
        ),
        "expand and contract are exchanged: the MLP first goes from dim to hidden, then back": partial(
            _exchanged, "expand", "contract"
        ),
        "The blocks are one late: theirs are counted from 0, and so are ours": partial(
            _renumbered, lambda block: str(int(block) + 1)
        ),
        "The blocks are one early: theirs are counted from 0, and so are ours": partial(
            _renumbered, lambda block: str(int(block) - 1)
        ),
        "Of the block's number only the first digit was read: a deep model has a block 10 too": partial(
            _renumbered, lambda block: block[0]
        ),
        "Of the block's number only the last digit was read: a deep model has a block 10 too": partial(
            _renumbered, lambda block: block[-1]
        ),
        "All is block 0: the number in their name says which it is": partial(_renumbered, lambda block: "0"),
        "All is called weight: the biases are tensors of their own": lambda theirs: re.sub(
            "bias$", "weight", _name(theirs)
        ),
        "The norm after the last block was taken for one of a block's: here it is called norm, and no more": (
            lambda theirs: re.sub(r"^norm\.", "blocks.11.norm_2.", _name(theirs))
        ),
    }
    examine(
        yours,
        _name,
        cases,
        mistakes,
        diagnose=[_about_name],
        holds="Every name of theirs has become ours, in every block, weights and biases.",
    )


# ------------------------------------------------------------------------------------------------ layout


def _projection(kernel: np.ndarray) -> np.ndarray:
    heads, head_dim, dim = kernel.shape
    weight = np.zeros((dim, heads * head_dim))
    for head in range(heads):
        for place in range(head_dim):
            for out in range(dim):
                weight[out, head * head_dim + place] = kernel[head, place, out]
    return weight


def _square(kernel: np.ndarray, *order: int) -> np.ndarray:
    return kernel.transpose(order).reshape(kernel.shape[-1], -1)


def check_projection(yours: Callable, seed: int = 0) -> None:
    """yours(kernel): Google's kernel of the projection after the heads (heads head_dim dim) as the weight of our Linear
    (dim dim)."""
    numbers = torch.Generator().manual_seed(seed)
    cases = [dict(kernel=torch.arange(36.0).reshape(2, 3, 6) + 100 * (seed % 7))]
    cases += [dict(kernel=torch.rand(sizes, generator=numbers)) for sizes in ((3, 2, 6), (4, 5, 20))]
    mistakes = {
        "Not transposed: theirs is (in, out), torch's Linear keeps (out, in). It is square, so nothing complains": (
            lambda kernel: _square(kernel, 0, 1, 2)
        ),
        "The columns are mixed up: heads and head_dim are exchanged. All numbers of head 0 come first, then all of "
        "head 1": lambda kernel: _square(kernel, 2, 1, 0),
        "Not transposed, and heads and head_dim are exchanged: theirs is (in, out), ours (out, in), with all numbers "
        "of head 0 first": lambda kernel: _square(kernel, 1, 0, 2),
        "Each head was transposed by itself and they were put under one another: the heads must stand side by side, "
        "in the columns": lambda kernel: _square(kernel, 0, 2, 1),
        "Read as if dim came first: it is the last axis of this kernel, and the first of ours": (
            lambda kernel: _square(kernel.reshape(kernel.shape[-1], *kernel.shape[:2]), 1, 2, 0)
        ),
    }
    examine(
        yours,
        _projection,
        cases,
        mistakes,
        axes="dim dim",
        holds="Row by row what goes out, column by column what comes in, head after head.",
    )


# ------------------------------------------------------------------------------------------------ preparation


def _folded(weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    dim, pixels = weight.shape
    folded = np.zeros((dim, pixels + 1))
    for out in range(dim):
        folded[out, pixels] = bias[out]
        for pixel in range(pixels):
            channel = pixel // (pixels // len(mean))
            folded[out, pixel] = weight[out, pixel] / std[channel]
            folded[out, pixels] -= weight[out, pixel] * mean[channel] / std[channel]
    return folded


def _fold(weight: np.ndarray, bias: np.ndarray, factor: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """A weight times a factor for each pixel, and what is taken from each pixel beforehand put into the bias."""
    return np.concatenate([weight * factor, (bias - weight @ taken)[:, None]], axis=1)


def _each(numbers: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A number a channel -> a number a pixel, channel after channel."""
    return numbers.repeat(weight.shape[1] // len(numbers))


def _tiled(numbers: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.tile(numbers, weight.shape[1] // len(numbers))


def _joined(yours: Callable, *arguments: Tensor):
    """What yours returns, weight and bias, as one matrix."""
    pair = both(yours, yours(*arguments), weight=arguments[0], bias=arguments[1])
    if pair is None or pair is ...:
        return pair
    weight, bias = pair
    return torch.cat([weight, bias[:, None]], dim=1)


def _about_folded(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    """Which of the two is wrong."""
    weight = case["weight"]
    if np.allclose(got[:, :-1], (weight - _each(case["mean"], weight)) / _each(case["std"], weight), atol=1e-4):
        return (
            "The mean was taken from the weight: it is taken from the pixels. The weight is only divided by std, and "
            "the mean goes into the bias"
        )
    if np.allclose(got[:, :-1], expected[:, :-1], atol=1e-4):
        return "The weight is right, the bias is not: take from it what the new weight makes of a patch of means"
    if np.allclose(got[:, -1], expected[:, -1], atol=1e-4):
        return "The bias is right, the weight is not: divide each of its columns by the std of that pixel's channel"
    return None


def check_folded(yours: Callable, seed: int = 0) -> None:
    """yours(weight, bias, mean, std): weight (dim patch_dim) and bias (dim) that make of raw pixels what the given ones
    make of pixels less the mean, divided by the std, of their channel (channels)."""
    small = dict(
        weight=torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]) + seed % 7,
        bias=torch.tensor([10.0, 20.0]),
        mean=torch.tensor([0.5, 0.25, 0.75]),
        std=torch.tensor([0.5, 0.25, 0.125]),
    )
    cases = [small]
    for dim, patch_dim in ((2, 12), (5, 27)):
        numbers = torch.Generator().manual_seed(seed + dim)
        sizes = dict(weight=(dim, patch_dim), bias=(dim,), mean=(3,), std=(3,))
        cases.append({word: 0.2 + 0.6 * torch.rand(size, generator=numbers) for word, size in sizes.items()})

    mistakes = {
        "The weight was multiplied by std: the pixels are divided by it, so the weight is too": (
            lambda w, b, mean, std: _fold(w, b, _each(std, w), _each(mean / std, w))
        ),
        "The weight and the mean were multiplied by std: the pixels are divided by it, so both are too": (
            lambda w, b, mean, std: _fold(w, b, _each(std, w), _each(mean * std, w))
        ),
        "The mean went into the bias with the wrong sign: it is taken away from the pixels": (
            lambda w, b, mean, std: _fold(w, b, _each(1 / std, w), _each(-mean / std, w))
        ),
        "In the bias the mean was not divided by std: first the mean is taken away, then all is divided, the mean "
        "too": lambda w, b, mean, std: _fold(w, b, _each(1 / std, w), _each(mean, w)),
        "In the bias std divides twice: the new weight is divided already, so take new weight @ mean from it, or old "
        "weight @ (mean / std)": lambda w, b, mean, std: _fold(w, b, _each(1 / std, w), _each(mean / std**2, w)),
        "In the bias the mean over the pixels was taken: an output is a sum over them, so its shift is one too": (
            lambda w, b, mean, std: _fold(w, b, _each(1 / std, w), _each(mean / std, w) / w.shape[1])
        ),
        "From the bias went mean / std, summed over the pixels, and without the weight: each pixel reaches an output "
        "times its weight, and so does its mean": (
            lambda w, b, mean, std: _fold(w, b - _each(mean / std, w).sum(), _each(1 / std, w), 0 * w[0])
        ),
        "From the bias went mean / std, summed over the channels, and without the weight: each pixel reaches an output "
        "times its weight, and so does its mean": (
            lambda w, b, mean, std: _fold(w, b - (mean / std).sum(), _each(1 / std, w), 0 * w[0])
        ),
        "The bias is as it was: taking the mean away shifts every output, and the bias must hold that shift": (
            lambda w, b, mean, std: _fold(w, b, _each(1 / std, w), _each(0 * mean, w))
        ),
        "The old bias is lost: the shift by the mean comes on top of it": (
            lambda w, b, mean, std: _fold(w, 0 * b, _each(1 / std, w), _each(mean / std, w))
        ),
        "The weight is as it was: the pixels are divided by std, so divide the weight": (
            lambda w, b, mean, std: _fold(w, b, 1 + 0 * w[0], _each(mean / std, w))
        ),
        "The weight and the bias are as they were: dividing by std belongs into the weight, taking the mean away into "
        "the bias": lambda w, b, mean, std: _fold(w, b, 1 + 0 * w[0], 0 * w[0]),
        "mean and std were laid out with the channels last; a patch is flattened (channels ph pw), so all pixels of "
        "red come first": lambda w, b, mean, std: _fold(w, b, _tiled(1 / std, w), _tiled(mean / std, w)),
        "One channel's mean and std were used for all: each colour has its own": (
            lambda w, b, mean, std: _fold(w, b, np.full(w.shape[1], 1 / std[0]), np.full(w.shape[1], mean[0] / std[0]))
        ),
        "The mean over the channels was used for all: each colour has its own mean and std": (
            lambda w, b, mean, std: _fold(
                w, b, np.full(w.shape[1], 1 / std.mean()), np.full(w.shape[1], mean.mean() / std.mean())
            )
        ),
    }
    examine(
        partial(_joined, yours),
        _folded,
        cases,
        mistakes,
        axes="dim, pixels and after them the bias",
        written=yours,
        diagnose=[_about_folded],
        holds="This layer makes of raw pixels what the other made of prepared ones, channel by channel.",
    )
