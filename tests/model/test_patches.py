import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from vit_walkthrough.model.patches import PatchEmbedding, patchify, unpatchify

oblong = st.tuples(st.integers(1, 6), st.integers(1, 6)).filter(lambda grid: grid[0] != grid[1])
patch_sizes, channel_counts, batches = st.integers(1, 5), st.integers(1, 4), st.integers(1, 3)


def numbered(*shape: int) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


@given(oblong, patch_sizes, channel_counts, batches)
def test_unpatchify_undoes_patchify_exactly(grid, patch_size, channels, batch):
    height, width = grid[0] * patch_size, grid[1] * patch_size
    images = numbered(batch, channels, height, width)
    assert torch.equal(unpatchify(patchify(images, patch_size), patch_size, height, width), images)


@given(oblong, patch_sizes, channel_counts, batches)
def test_patchify_undoes_unpatchify_exactly(grid, patch_size, channels, batch):
    patches = numbered(batch, grid[0] * grid[1], channels * patch_size**2)
    images = unpatchify(patches, patch_size, grid[0] * patch_size, grid[1] * patch_size)
    assert torch.equal(patchify(images, patch_size), patches)


@given(oblong, patch_sizes, channel_counts, batches)
def test_patch_k_is_the_block_at_row_k_div_cols_and_col_k_mod_cols(grid, patch_size, channels, batch):
    rows, cols = grid
    images = numbered(batch, channels, rows * patch_size, cols * patch_size)
    patches = patchify(images, patch_size)
    assert patches.shape == (batch, rows * cols, channels * patch_size**2)
    for k in range(rows * cols):
        top, left = k // cols * patch_size, k % cols * patch_size
        block = images[:, :, top : top + patch_size, left : left + patch_size]
        assert torch.equal(patches[:, k], block.flatten(1))


@given(oblong, patch_sizes, channel_counts, batches)
def test_patchify_equals_unfold(grid, patch_size, channels, batch):
    images = numbered(batch, channels, grid[0] * patch_size, grid[1] * patch_size)
    unfolded = F.unfold(images, kernel_size=patch_size, stride=patch_size)
    assert torch.equal(patchify(images, patch_size), unfolded.transpose(1, 2))


def test_a_numbered_image_by_hand():
    image = numbered(1, 1, 4, 6)
    expected = [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11], [12, 13, 18, 19], [14, 15, 20, 21], [16, 17, 22, 23]]
    assert patchify(image, 2)[0].tolist() == expected


def test_a_patch_is_flattened_channel_by_channel():
    image = torch.stack([torch.full((4, 6), float(channel)) for channel in range(3)])[None]
    assert patchify(image, 2)[0, 5].tolist() == [0.0] * 4 + [1.0] * 4 + [2.0] * 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_patchify_keeps_the_dtype_and_leaves_the_images_alone(images, dtype):
    images = images.to(dtype)
    before = images.clone()
    patches = patchify(images, 4)
    assert patches.dtype == dtype
    assert torch.equal(images, before)
    assert torch.equal(patches.double().sum(), images.double().sum())


@pytest.mark.parametrize(("patch_size", "channels", "dim"), [(4, 3, 32), (2, 1, 5), (1, 4, 8)])
def test_patch_embedding_equals_a_strided_convolution(randomize, patch_size, channels, dim):
    embedding = randomize(PatchEmbedding(patch_size, channels, dim))
    convolution = nn.Conv2d(channels, dim, kernel_size=patch_size, stride=patch_size)
    convolution.weight.data = embedding.projection.weight.data.reshape(dim, channels, patch_size, patch_size)
    convolution.bias.data = embedding.projection.bias.data
    images = torch.rand(2, channels, 12, 20)
    assert_close(embedding(images), convolution(images).flatten(2).transpose(1, 2), rtol=0, atol=1e-5)


def test_patch_embedding_is_one_matrix_and_one_vector():
    sizes = {name: tuple(parameter.shape) for name, parameter in PatchEmbedding(16, 3, 768).named_parameters()}
    assert sizes == {"projection.weight": (768, 768), "projection.bias": (768,)}


def test_a_patch_is_embedded_without_its_neighbours(randomize, images):
    embedding = randomize(PatchEmbedding(4, 3, 32))
    changed = images.clone()
    changed[:, :, 4:8, 8:12] += 1
    differs = (embedding(changed) != embedding(images)).any(dim=-1)
    assert differs.nonzero()[:, 1].tolist() == [7, 7]


def test_half_precision_images_whose_sum_overflows_are_fine():
    images = torch.full((1, 3, 64, 64), 60000.0, dtype=torch.float16)
    assert torch.isinf(images.sum())
    assert patchify(images, 16).shape == (1, 16, 768)


def test_shapes_can_be_asked_for_without_numbers():
    assert patchify(torch.empty(2, 3, 12, 20, device="meta"), 4).shape == (2, 15, 48)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda images: images.tolist(), TypeError, "images must be a torch tensor, not list"),
        (lambda images: images.numpy(), TypeError, "images must be a torch tensor, not ndarray"),
        (
            lambda images: images[0],
            ValueError,
            "images must be (batch, channels, height, width), not (3, 12, 20); add the batch axis with images[None]",
        ),
        (
            lambda images: images[0, 0],
            ValueError,
            "images must be (batch, channels, height, width), not (12, 20)",
        ),
        (
            lambda images: images[None],
            ValueError,
            "images must be (batch, channels, height, width), not (1, 2, 3, 12, 20)",
        ),
        (
            lambda images: (255 * images).byte(),
            TypeError,
            "images are torch.uint8; convert them to floats in [0, 1]: images.float() / 255",
        ),
        (
            lambda images: images.long(),
            TypeError,
            "images are torch.int64; convert them to floats in [0, 1]: images.float() / 255",
        ),
        (
            lambda images: images[..., :18],
            ValueError,
            "patch_size 4 does not divide images of 12 x 18 pixels",
        ),
        (
            lambda images: images[..., :10, :],
            ValueError,
            "patch_size 4 does not divide images of 10 x 20 pixels",
        ),
    ],
)
def test_bad_images_are_refused_in_words(images, change, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        patchify(change(images), 4)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_broken_pixels_are_counted(images, broken):
    images[0, 1, 2, 3] = images[1, 0, 11, 19] = broken
    with pytest.raises(ValueError, match=r"^2 of 1440 pixels are NaN or infinite; mend the images first$"):
        patchify(images, 4)


def test_infinities_that_cancel_are_found(images):
    images[0, 0, 0, 0], images[0, 0, 0, 1] = float("inf"), -float("inf")
    with pytest.raises(ValueError, match=r"^2 of 1440 pixels are NaN or infinite"):
        patchify(images, 4)


@pytest.mark.parametrize("patch_size", [0, -4, 7])
def test_a_patch_size_that_does_not_divide_is_refused(images, patch_size):
    message = rf"^patch_size {patch_size} does not divide images of 12 x 20 pixels$"
    with pytest.raises(ValueError, match=message):
        patchify(images, patch_size)
    with pytest.raises(ValueError, match=message):
        unpatchify(torch.rand(2, 15, 48), patch_size, 12, 20)


@pytest.mark.parametrize(("height", "width"), [(10, 20), (12, 18)])
def test_one_side_that_does_not_divide_is_enough_to_refuse(height, width):
    with pytest.raises(ValueError, match=rf"^patch_size 4 does not divide images of {height} x {width} pixels$"):
        unpatchify(torch.rand(2, 15, 48), 4, height, width)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((15, 48), "patches must be (batch, patches, patch_dim), not (15, 48)"),
        ((2, 16, 48), "16 patches do not tile 12 x 20 pixels, which takes 3 * 5 = 15 patches of 4 pixels"),
        ((2, 15, 50), "patch_dim 50 is not a whole number of channels of 4 x 4 pixels"),
        ((2, 15, 40), "40 pixels are no whole number of channels of 4 x 4"),
    ],
)
def test_patches_that_do_not_tile_are_refused(shape, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        unpatchify(torch.rand(shape), 4, 12, 20)
