"""Notebook 01: where every pixel goes."""

import torch

from vit_walkthrough.exercises.check import exercise, randn


@exercise(
    cases=[(2, 5, 6, 2), (3, 0, 6, 2), (7, 17, 21, 3), (50, 70, 80, 16), (99, 150, 224, 16)],
    holds="patch = row * cols + col, with row and col counted in whole patches.",
)
def check_patch_of_pixel(y, x, width, patch_size):
    """yours(y, x, width, patch_size): the number of the patch that a pixel lies in, in reading order from 0."""
    row, col, cols = y // patch_size, x // patch_size, width // patch_size
    yield row * cols + col
    yield "y and x are exchanged: y says the row, x the column", col * cols + row
    yield "The patches are counted from 1; in Python, and in a tensor, the first is 0", row * cols + col + 1
    yield "Counted in pixels: a row has width // patch_size patches, not width", row * width + col
    yield "x is still counted in pixels: divide it by patch_size, as y", row * cols + x
    yield "The pixels before were counted; find row and column separately", (y * width + x) // patch_size**2


NUMBERED = torch.arange(24.0).reshape(1, 2, 2, 3, 2).transpose(2, 3).reshape(1, 6, 4)  # patches of a 4 x 6 image


@exercise(
    cases=[(NUMBERED, 2, 4, 6), (randn(2, 6, 12), 2, 6, 4), (randn(2, 3, 18), 3, 3, 9)],
    axes="batch channels height width",
    holds="Every pixel is back where it was cut from, in images that are not square, with 1 and with 3 channels.",
)
def check_unpatchify(patches, patch_size, height, width):
    """yours(patches, patch_size, height, width): flattened patches (batch patches patch_dim) back into images
    (batch channels height width)."""
    batch, p, rows, cols = len(patches), patch_size, height // patch_size, width // patch_size
    cut, by_cols = patches.reshape(batch, rows, cols, -1, p, p), patches.reshape(batch, cols, rows, -1, p, p)
    channels_last = patches.reshape(batch, rows, cols, p, p, -1)

    def put(*order, cut=cut):
        return cut.permute(order).reshape(batch, -1, height, width)

    yield put(0, 3, 1, 4, 2, 5)
    only_reshaped = patches.reshape(batch, -1, height, width)
    yield "Only reshaped, so each number kept its place in memory. First reorder the axes", only_reshaped
    yield "The patches were laid down column by column; reading order is row by row", put(0, 3, 2, 4, 1, 5, cut=by_cols)
    yield "Every patch is mirrored on its diagonal: ph (down) and pw (across) are exchanged", put(0, 3, 1, 5, 2, 4)
    yield "The channels were read last; a patch is (channels ph pw)", put(0, 5, 1, 3, 2, 4, cut=channels_last)
    yield "Only the channels were moved: the height is (rows ph), so ph stands right behind rows", put(0, 3, 1, 2, 4, 5)
    yield "Neighbouring pixels lie far apart: the height is (rows ph), the width (cols pw)", put(0, 3, 4, 1, 5, 2)


@exercise(
    cases=[(1, 2), (2, 3), (3, 2)],
    axes="patch_dim channels ph pw",
    holds="With this kernel a convolution of stride patch_size is patchify: filter k picks number k.",
)
def check_patchify_kernel(channels, patch_size):
    """yours(channels, patch_size): the kernel (patch_dim channels ph pw) with which a convolution of stride
    patch_size is patchify."""
    patch_dim = channels * patch_size**2
    kernel = torch.eye(patch_dim).reshape(-1, channels, patch_size, patch_size)
    channels_last = torch.eye(patch_dim).reshape(-1, patch_size, patch_size, channels).permute(0, 3, 1, 2)
    got = yield kernel
    yield "The pixels are picked with the channels last; their order is (channels ph pw)", channels_last
    yield "The filters go down the columns of a patch; patchify reads its rows, so pw runs fastest", kernel.mT
    yield "The kernel averages the patch; each filter must pick one pixel of it", torch.full_like(kernel, 1 / patch_dim)
    number = (got != kernel).flatten(1).any(1).int().argmax()
    yield f"Filter {number} must pick number {number} of the patch's list: a single 1, and else zeros"
