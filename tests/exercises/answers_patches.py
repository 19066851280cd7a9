"""Notebook 01: right answers, written in other ways than the reference; and what the remarks are for."""

import torch
from einops import rearrange
from torch.nn.functional import fold

from vit_walkthrough.exercises import check_patch_of_pixel, check_patchify_kernel, check_unpatchify


def unpatchify_in_loops(patches, patch_size, height, width):
    cols = width // patch_size
    images = torch.empty(len(patches), patches.shape[2] // patch_size**2, height, width)
    for patch in range(patches.shape[1]):
        y, x = patch // cols * patch_size, patch % cols * patch_size
        place = images[:, :, y : y + patch_size, x : x + patch_size]
        place.copy_(patches[:, patch].view(place.shape))
    return images


def kernel_in_loops(channels, patch_size):
    kernel = torch.zeros(channels * patch_size**2, channels, patch_size, patch_size)
    for pixel in range(len(kernel)):
        channel, rest = divmod(pixel, patch_size**2)
        kernel[pixel, channel, rest // patch_size, rest % patch_size] = 1
    return kernel


def kernel_by_rearrange(channels, patch_size):
    patch_dim = channels * patch_size**2
    return rearrange(torch.eye(patch_dim), "k (c ph pw) -> k c ph pw", ph=patch_size, pw=patch_size)


def patch_by_counting(y, x, width, patch_size):
    corners = [(top, left) for top in range(0, y + 1, patch_size) for left in range(0, width, patch_size)]
    return corners.index((y - y % patch_size, x - x % patch_size))


RIGHT = {
    check_unpatchify: [
        unpatchify_in_loops,
        lambda patches, p, height, width: fold(patches.mT, (height, width), p, stride=p),
    ],
    check_patchify_kernel: [kernel_in_loops, kernel_by_rearrange],
    check_patch_of_pixel: [patch_by_counting, lambda y, x, width, p: divmod(y, p)[0] * int(width / p) + int(x / p)],
}

REMARKED = {
    check_patchify_kernel: [
        (lambda channels, p: torch.ones(channels * p * p, channels, p, p), "Filter 0 does not pick exactly one"),
        (lambda *sizes: kernel_in_loops(*sizes) / 4, "Filter 0 multiplies the right pixel by 0.25"),
        (lambda *sizes: kernel_in_loops(*sizes)[:1].repeat(sizes[0] * sizes[1] ** 2, 1, 1, 1), "Two filters pick"),
        (lambda *sizes: kernel_in_loops(*sizes).roll(1, 0), "Some filter picks another pixel"),
    ],
}
