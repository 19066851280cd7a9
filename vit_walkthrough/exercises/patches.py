"""Notebook 01: where every pixel goes."""

from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor

from vit_walkthrough.exercises.check import beside, examine

GRIDS = ((2, 3, 1, 2), (3, 2, 3, 2), (1, 3, 2, 3))  # rows, cols, channels, patch size: none square


def _numbered(*sizes: int, seed: int) -> Tensor:
    """Numbers none of which occurs twice, the first of them in a small case 0, 1, 2 ... to be read by eye."""
    count = int(np.prod(sizes))
    if count <= 48:
        return torch.arange(count, dtype=torch.float32).reshape(sizes) + 100 * (seed % 7)
    return torch.rand(sizes, generator=torch.Generator().manual_seed(seed))


def _cut(images: np.ndarray, patch_size: int) -> np.ndarray:
    """patchify, one row of pixels after another."""
    batch, channels, height, width = images.shape
    rows, cols = height // patch_size, width // patch_size
    patches = np.zeros((batch, rows * cols, channels * patch_size**2))
    for image in range(batch):
        for patch in range(rows * cols):
            row, col = divmod(patch, cols)
            place = 0
            for channel in range(channels):
                for ph in range(patch_size):
                    y, x = row * patch_size + ph, col * patch_size
                    patches[image, patch, place : place + patch_size] = images[image, channel, y, x : x + patch_size]
                    place += patch_size
    return patches


# ------------------------------------------------------------------------------------------------ and back


def _place(patch: int, pixel: int, rows: int, cols: int, channels: int, side: int) -> tuple[int, ...]:
    """row, col, channel, ph, pw of a number in a row of patchify."""
    return *divmod(patch, cols), pixel // side**2, pixel // side % side, pixel % side


def _by_columns(patch: int, pixel: int, rows: int, cols: int, channels: int, side: int) -> tuple[int, ...]:
    return patch % rows, patch // rows, *_place(patch, pixel, rows, cols, channels, side)[2:]


def _mirrored(patch: int, pixel: int, rows: int, cols: int, channels: int, side: int) -> tuple[int, ...]:
    row, col, channel, ph, pw = _place(patch, pixel, rows, cols, channels, side)
    return row, col, channel, pw, ph


def _channels_last(patch: int, pixel: int, rows: int, cols: int, channels: int, side: int) -> tuple[int, ...]:
    return *divmod(patch, cols), pixel % channels, pixel // channels // side, pixel // channels % side


def _one_late(patch: int, pixel: int, rows: int, cols: int, channels: int, side: int) -> tuple[int, ...]:
    return _place((patch + 1) % (rows * cols), pixel, rows, cols, channels, side)


def _put(place: Callable, patches: np.ndarray, patch_size: int, height: int, width: int) -> np.ndarray:
    """Images in which every number of the patches lies where `place` says."""
    batch, count, pixels = patches.shape
    rows, cols, channels = height // patch_size, width // patch_size, pixels // patch_size**2
    images = np.zeros((batch, channels, height, width))
    for patch in range(count):
        for pixel in range(pixels):
            row, col, channel, ph, pw = place(patch, pixel, rows, cols, channels, patch_size)
            images[:, channel, row * patch_size + ph, col * patch_size + pw] = patches[:, patch, pixel]
    return images


def _reordered(order: tuple[int, ...], patches: np.ndarray, patch_size: int, height: int, width: int) -> np.ndarray:
    cut = patches.reshape(len(patches), height // patch_size, width // patch_size, -1, patch_size, patch_size)
    return cut.transpose(order).reshape(len(patches), -1, height, width)


def check_unpatchify(yours: Callable, seed: int = 0) -> None:
    """yours(patches, patch_size, height, width): flattened patches (batch patches patch_dim) back into images
    (batch channels height width)."""
    cases = []
    for batch, (rows, cols, channels, side) in zip((1, 2, 2), GRIDS, strict=True):
        images = _numbered(batch, channels, rows * side, cols * side, seed=seed)
        sizes = dict(patch_size=side, height=rows * side, width=cols * side)
        cases.append(dict(patches=torch.from_numpy(_cut(images.numpy(), side)).float()) | sizes)

    mistakes = {
        "Only reshaped: every number has kept its place in memory, and a patch's pixels stand one after another along "
        "the rows of the image. The axes must change their order between two reshapes": (
            lambda patches, p, height, width: patches.reshape(len(patches), -1, height, width)
        ),
        "The patches were laid down column by column; reading order is row by row: patch = row * cols + col": (
            partial(_put, _by_columns)
        ),
        "Every patch lies mirrored on its diagonal: ph (down) and pw (across) are exchanged": partial(_put, _mirrored),
        "The pixels of a patch were read with the channels last; they are flattened channel by channel, "
        "(channels ph pw)": partial(_put, _channels_last),
        "Only the channels were moved: the pixels of one patch still stand one after another. The height of the image "
        "is (rows ph), its width (cols pw), so ph must stand right behind the rows": (
            partial(_reordered, (0, 3, 1, 2, 4, 5))
        ),
        "Neighbouring pixels of a patch lie far apart: ph stands before the rows and pw before the cols. The height is "
        "(rows ph), the width (cols pw): first the patch, then the pixel in it": (
            partial(_reordered, (0, 3, 4, 1, 5, 2))
        ),
        "Neighbouring pixel rows of a patch lie far apart: ph stands before the rows. The height is (rows ph): first "
        "the patch, then the pixel row in it": partial(_reordered, (0, 3, 4, 1, 2, 5)),
        "Every patch is one place late: patch 0 belongs at row 0, col 0": partial(_put, _one_late),
    }
    examine(
        yours,
        partial(_put, _place),
        cases,
        mistakes,
        axes="batch channels height width",
        holds="Every pixel is back where it was cut from, in images that are not square, with 1 and with 3 channels.",
        picture=lambda expected, got: beside(expected[0, 0], got[0, 0]),
    )


def _filters(channels: int, patch_size: int, order: str = "cyx") -> np.ndarray:
    """Filter k picks pixel k of a patch, where the pixels are numbered with the last letter of `order` fastest."""
    kernel = np.zeros((channels * patch_size**2, channels, patch_size, patch_size))
    sizes = dict(c=range(channels), y=range(patch_size), x=range(patch_size))
    for pixel, place in enumerate(product(*(sizes[axis] for axis in order))):
        at = dict(zip(order, place, strict=True))
        kernel[pixel, at["c"], at["y"], at["x"]] = 1
    return kernel


def _about_filters(case: dict, expected: np.ndarray, got: np.ndarray) -> str:
    """What a kernel that none of the likely mistakes gives does to an image."""
    picked = (got != 0).sum((1, 2, 3))
    if (picked != 1).any():
        return f"Filter {int(np.argmax(picked != 1))} does not pick exactly one number: it must hold a single 1"
    if len(np.unique(got.reshape(len(got), -1).argmax(1))) < len(got):
        return "Two filters pick the same pixel, so another is lost"
    wrong = int(np.argmax((expected != got).any((1, 2, 3))))
    if ((expected != 0) == (got != 0))[wrong].all():
        value = got[wrong][got[wrong] != 0][0]
        return f"Filter {wrong} picks the right pixel, but multiplies it by {value:.4g}; the single number must be 1"
    return f"Filter {wrong} picks another pixel than number {wrong} of patchify's row"


def check_patchify_kernel(yours: Callable, seed: int = 0) -> None:
    """yours(channels, patch_size): the kernel (patch_dim channels ph pw) with which a convolution of stride
    patch_size is patchify."""
    sizes = [(1, 2), (2, 3), (3, 2), tuple(np.random.default_rng(seed).integers(1, 5, 2).tolist())]
    cases = [dict(channels=channels, patch_size=side) for channels, side in sizes]
    mistakes = {
        "The filters pick the pixels with the channels last; patchify flattens channel by channel, (channels ph pw)": (
            lambda channels, p: _filters(channels, p, "yxc")
        ),
        "The filters go down the columns of a patch; patchify reads its rows, so pw runs fastest": (
            lambda channels, p: _filters(channels, p, "cxy")
        ),
        "The filters are in the opposite order: the first must pick the upper left pixel": (
            lambda channels, p: _filters(channels, p)[::-1]
        ),
        "The kernel averages the patch; each filter must pick one pixel of it": (
            lambda channels, p: np.full_like(_filters(channels, p), 1 / (channels * p**2))
        ),
    }
    examine(
        yours,
        _filters,
        cases,
        mistakes,
        axes="patch_dim channels ph pw",
        diagnose=[_about_filters],
        holds="With this kernel a convolution of stride patch_size is patchify: filter k picks pixel k.",
    )


def _patch_at(y: int, x: int, width: int, patch_size: int) -> int:
    places = product(range(0, y + 1, patch_size), range(0, width, patch_size))  # upper left corners, in reading order
    for patch, (top, left) in enumerate(places):
        if y < top + patch_size and left <= x < left + patch_size:
            return patch
    raise AssertionError("outside the image")


def check_patch_of_pixel(yours: Callable, seed: int = 0) -> None:
    """yours(y, x, width, patch_size): the number of the patch that a pixel lies in, in reading order from 0."""
    numbers = np.random.default_rng(seed)
    cases = [dict(y=2, x=5, width=6, patch_size=2), dict(y=3, x=0, width=6, patch_size=2)]
    for cols, side in ((7, 3), (5, 16), (14, 16)):
        y, x = int(numbers.integers(side, 9 * side)), int(numbers.integers(side, cols * side))
        cases.append(dict(y=y, x=x, width=cols * side, patch_size=side))

    mistakes = {
        "y and x are exchanged: y says the row, x the column": lambda y, x, width, p: x // p * (width // p) + y // p,
        "The patches are counted from 1; in Python, and in a tensor, the first is 0": (
            lambda y, x, width, p: _patch_at(y, x, width, p) + 1
        ),
        "Counted in pixels: there are width // patch_size patches in a row, not width": (
            lambda y, x, width, p: y // p * width + x // p
        ),
        "The row was multiplied by patch_size; to reach a row one passes all patches of the rows above, and a row has "
        "width // patch_size of them": lambda y, x, width, p: y // p * p + x // p,
        "The pixels before this one were counted and shared out among patches; but they lie in other patches too. "
        "Find row and col on their own: y // patch_size and x // patch_size": (
            lambda y, x, width, p: (y * width + x) // p**2
        ),
        "Row and column were added; to reach a row one passes all patches of the rows above: row * cols + col": (
            lambda y, x, width, p: y // p + x // p
        ),
        "That is the pixel's place within its patch: take y // patch_size, not y % patch_size": (
            lambda y, x, width, p: y % p * (width // p) + x % p
        ),
    }
    examine(
        yours, _patch_at, cases, mistakes, holds="patch = row * cols + col, with row and col counted in whole patches."
    )
