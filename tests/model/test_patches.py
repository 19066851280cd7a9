import pytest
import torch

from vit_walkthrough.model.patches import patchify, unpatchify


@pytest.mark.parametrize(("rows", "cols", "side", "channels"), [(1, 1, 1, 1), (1, 3, 2, 1), (5, 1, 1, 3), (3, 5, 3, 2)])
def test_patches_are_the_squares_of_the_image_in_reading_order(rows, cols, side, channels):
    height, width = rows * side, cols * side
    images = torch.arange(2.0 * channels * height * width).reshape(2, channels, height, width)
    patches = patchify(images, side)
    assert patches.shape == (2, rows * cols, channels * side**2)
    for k in range(rows * cols):
        top, left = k // cols * side, k % cols * side
        assert torch.equal(patches[:, k], images[:, :, top : top + side, left : left + side].flatten(1))
    assert torch.equal(unpatchify(patches, side, height, width), images)


def test_images_without_numbers_and_those_whose_sum_overflows_are_fine():
    assert patchify(torch.rand(2, 3, 12, 20, device="meta"), 4).shape == (2, 15, 48)
    assert patchify(torch.full((1, 3, 64, 64), 60000.0, dtype=torch.float16), 16).shape == (1, 16, 768)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda images: images.tolist(), TypeError, "not list$"),
        (lambda images: images.numpy(), TypeError, "not ndarray$"),
        (lambda images: images[0], ValueError, r"\(3, 12, 20\); .* images\[None\]$"),
        (lambda images: images[0, 0], ValueError, r"\(12, 20\)$"),
        (lambda images: images[None], ValueError, r"\(1, 2, 3, 12, 20\)$"),
        (lambda images: (255 * images).byte(), TypeError, "torch.uint8; .* / 255$"),
        (lambda images: images.long(), TypeError, "torch.int64; .* / 255$"),
    ],
)
def test_bad_images_are_refused(images, change, error, message):
    with pytest.raises(error, match=f"^images (must|are) .*{message}"):
        patchify(change(images), 4)


@pytest.mark.parametrize("broken", [(float("nan"), 1.0), (float("inf"), -float("inf"))], ids=["NaN", "that cancel"])
def test_broken_pixels_are_counted(images, broken):
    images[0, 1, 2, 3], images[1, 0, 11, 19] = broken
    count = 2 - broken.count(1.0)
    with pytest.raises(ValueError, match=f"^{count} of 1440 pixels are NaN or infinite"):
        patchify(images, 4)


@pytest.mark.parametrize(("side", "height", "width"), [(0, 12, 20), (-4, 12, 20), (7, 12, 20), (4, 10, 20), (4, 12, 6)])
def test_a_patch_size_that_does_not_divide_is_refused(side, height, width):
    message = f"^patch_size {side} .* {height} x {width} pixels$"
    with pytest.raises(ValueError, match=message):
        patchify(torch.rand(2, 3, height, width), side)
    with pytest.raises(ValueError, match=message):
        unpatchify(torch.rand(2, 15, 48), side, height, width)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((15, 48), r"^patches .*\(15, 48\)$"),
        ((2, 16, 48), r"^16 patches .* 12 x 20 .* 3 \* 5 = 15 "),
        ((2, 15, 50), "^patch_dim 50 .* 4 x 4 pixels$"),
        ((2, 15, 40), "^patch_dim 40 .* 4 x 4 pixels$"),
    ],
)
def test_patches_that_do_not_tile_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        unpatchify(torch.rand(shape), 4, 12, 20)
