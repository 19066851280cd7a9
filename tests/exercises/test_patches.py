"""Notebook 01."""

import math

import numpy as np
import pytest
import torch
from einops import rearrange
from torch.nn.functional import fold

from tests.exercises.trials import test_in_time, test_right_answers_pass, test_wrong_answers_get_their_sentence  # noqa: F401
from vit_walkthrough.exercises import check_patch_of_pixel, check_patchify_kernel, check_unpatchify


def unpatchify_in_loops(patches, patch_size, height, width):
    batch, count, pixels = patches.shape
    cols, channels = width // patch_size, pixels // patch_size**2
    images = torch.empty(batch, channels, height, width)
    for patch in range(count):
        y, x = patch // cols * patch_size, patch % cols * patch_size
        images[:, :, y : y + patch_size, x : x + patch_size] = patches[:, patch].view(
            batch, channels, patch_size, patch_size
        )
    return images


def unpatchify_by_view(patches, patch_size, height, width):
    rows, cols = height // patch_size, width // patch_size
    cut = patches.view(len(patches), rows, cols, -1, patch_size, patch_size)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), -1, height, width)


def unpatchify_by(*order):
    """By view and permute, the axes (batch rows cols channels ph pw) in this order."""
    return lambda x, p, h, w: (
        x.view(len(x), h // p, w // p, -1, p, p).permute(*order).reshape(len(x), -1, h, w)
    )  # fmt: skip


def unpatchify_with(pattern):
    def unpatchify(patches, patch_size, height, width):
        return rearrange(
            patches, pattern, rows=height // patch_size, cols=width // patch_size, ph=patch_size, pw=patch_size
        )  # fmt: skip

    return unpatchify


def identity_kernel(channels, patch_size):
    return torch.eye(channels * patch_size**2).view(-1, channels, patch_size, patch_size)


def kernel_in_loops(channels, patch_size):
    kernel = torch.zeros(channels * patch_size**2, channels, patch_size, patch_size)
    for pixel in range(len(kernel)):
        channel, rest = divmod(pixel, patch_size**2)
        kernel[pixel, channel, rest // patch_size, rest % patch_size] = 1
    return kernel


def kernel_by_scatter(channels, patch_size):
    patch_dim = channels * patch_size**2
    kernel = torch.zeros(patch_dim, patch_dim)
    return kernel.scatter_(1, torch.arange(patch_dim)[:, None], 1).reshape(patch_dim, channels, patch_size, patch_size)


RIGHT = {
    check_unpatchify: {
        "loops": unpatchify_in_loops,
        "view and permute": unpatchify_by_view,
        "einops": unpatchify_with("b (rows cols) (c ph pw) -> b c (rows ph) (cols pw)"),
        "fold": lambda patches, p, height, width: fold(patches.transpose(1, 2), (height, width), p, stride=p),
    },
    check_patchify_kernel: {
        "identity": identity_kernel,
        "loops": kernel_in_loops,
        "scatter": kernel_by_scatter,
    },
    check_patch_of_pixel: {
        "divisions": lambda y, x, width, p: y // p * (width // p) + x // p,
        "table": lambda y, x, width, p: int(
            torch.arange(99 * (width // p)).view(-1, width // p).repeat_interleave(p, 0).repeat_interleave(p, 1)[y, x]
        ),
        "divmod": lambda y, x, width, p: divmod(y, p)[0] * divmod(width, p)[0] + divmod(x, p)[0],
    },
}

WRONG = {
    check_unpatchify: {
        "reshape": (lambda x, p, h, w: x.reshape(x.shape[0], -1, h, w), "Only reshaped"),
        "by columns": (
            unpatchify_with("b (cols rows) (c ph pw) -> b c (rows ph) (cols pw)"),
            "The patches were laid down column by column",
        ),
        "mirrored": (
            unpatchify_with("b (rows cols) (c pw ph) -> b c (rows ph) (cols pw)"),
            "Every patch lies mirrored",
        ),
        "channels last": (
            unpatchify_with("b (rows cols) (ph pw c) -> b c (rows ph) (cols pw)"),
            "The pixels of a patch were read with the channels last",
        ),
        "channels moved": (
            unpatchify_by(0, 3, 1, 2, 4, 5),
            "Only the channels were moved",
        ),
        "pixels before patches": (
            unpatchify_with("b (rows cols) (c ph pw) -> b c (ph rows) (pw cols)"),
            "Neighbouring pixels of a patch lie far apart",
        ),
        "ph before rows": (
            unpatchify_by(0, 3, 4, 1, 2, 5),
            "Neighbouring pixel rows of a patch lie far apart",
        ),
        "off by one": (
            lambda x, p, h, w: unpatchify_by_view(x.roll(1, dims=1), p, h, w),
            "Every patch is one place late",
        ),
        "height and width": (
            lambda x, p, h, w: unpatchify_by_view(x, p, w, h),
            "returned the shape (1, 1, 6, 4), expected (1, 1, 4, 6) (batch channels height width)",
        ),
    },
    check_patchify_kernel: {
        "channels last": (
            lambda c, p: rearrange(torch.eye(c * p * p), "n (ph pw c) -> n c ph pw", ph=p, pw=p),
            "The filters pick the pixels with the channels last",
        ),
        "columns": (lambda c, p: identity_kernel(c, p).mT.contiguous(), "The filters go down the columns"),
        "backwards": (lambda c, p: identity_kernel(c, p).flip(0), "The filters are in the opposite order"),
        "mean": (lambda c, p: torch.full((c * p * p, c, p, p), 1 / (c * p * p)), "The kernel averages the patch"),
        "a share": (
            lambda c, p: identity_kernel(c, p) / p**2,
            "Filter 0 picks the right pixel, but multiplies it by 0.25; the single number must be 1",
        ),
        "ones": (lambda c, p: torch.ones(c * p * p, c, p, p), "Filter 0 does not pick exactly one number"),
        "twice": (lambda c, p: identity_kernel(c, p)[[0, 0, *range(2, c * p * p)]], "Two filters pick the same pixel"),
        "shuffled": (lambda c, p: identity_kernel(c, p).roll(1, 0), "Filter 0 picks another pixel than number 0"),
    },
    check_patch_of_pixel: {
        "exchanged": (lambda y, x, width, p: x // p * (width // p) + y // p, "y and x are exchanged"),
        "from 1": (lambda y, x, width, p: y // p * (width // p) + x // p + 1, "The patches are counted from 1"),
        "pixels of a row": (lambda y, x, width, p: y // p * width + x // p, "Counted in pixels"),
        "sum": (lambda y, x, width, p: y // p + x // p, "Row and column were added"),
        "times the side": (lambda y, x, width, p: y // p * p + x // p, "The row was multiplied by patch_size"),
        "pixels shared out": (
            lambda y, x, width, p: (y * width + x) // p**2,
            "The pixels before this one were counted",
        ),
        "remainders": (lambda y, x, width, p: y % p * (width // p) + x % p, "That is the pixel's place within"),
        "rounded": (
            lambda y, x, width, p: math.floor(y / p) * (width / p) + x // p,
            "/ makes floats where // is meant",
        ),
    },
}


def test_the_smallest_failing_example_is_shown_expected_beside_got():
    with pytest.raises(AssertionError) as caught:
        check_unpatchify(lambda x, p, h, w: x.reshape(x.shape[0], -1, h, w))
    said = str(caught.value)
    assert "The smallest case that fails: <lambda>(patches of shape (1, 6, 4), patch_size=2, height=4, width=6)" in said
    expected, got = np.arange(24).reshape(1, 1, 4, 6), [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]
    got = np.reshape([*got, *(number + 12 for number in got)], (1, 1, 4, 6))
    lines = said.splitlines()
    for one, other in zip(np.array2string(expected).splitlines(), np.array2string(got).splitlines(), strict=True):
        assert any(line.startswith(one) and line.endswith(other) for line in lines), said
    assert "They differ first at [0, 0, 0, 2]: expected 2, got 6." in said
