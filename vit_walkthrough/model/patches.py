"""Equation 1, first half: an image becomes a sequence of embedded patches."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


def _check_images(images) -> None:
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a torch tensor, not {type(images).__name__}")
    if images.ndim != 4:
        hint = "; add the batch axis with images[None]" if images.ndim == 3 else ""
        raise ValueError(f"images must be (batch, channels, height, width), not {tuple(images.shape)}{hint}")
    if not images.is_floating_point():
        raise TypeError(f"images are {images.dtype}; convert them to floats in [0, 1]: images.float() / 255")
    if images.device.type == "meta" or torch.compiler.is_exporting():  # there are no pixels to look at
        return
    # One sum is far cheaper than a test of every pixel, and it is NaN or infinite if any pixel is.
    if not torch.isfinite(images.sum()):
        broken = int((~torch.isfinite(images)).sum())
        if broken:
            raise ValueError(f"{broken} of {images.numel()} pixels are NaN or infinite; mend the images first")


def patchify(
    images: Float[Tensor, "batch channels height width"], patch_size: int
) -> Float[Tensor, "batch patches patch_dim"]:
    """Cut images into square patches, in reading order, and flatten each one.

    patch_dim = channels * patch_size**2 numbers, channel by channel and then row by row: the order of a Conv2d kernel.

    Raises: ValueError if a side is not a multiple of patch_size, an axis is missing or a pixel is NaN; TypeError for
    integers.
    Source: section 3.1, x_p.
    """
    _check_images(images)
    if patch_size < 1 or images.shape[2] % patch_size or images.shape[3] % patch_size:
        size = f"{images.shape[2]} x {images.shape[3]}"
        raise ValueError(f"patch_size {patch_size} does not divide images of {size} pixels")
    return rearrange(
        images,
        "batch channels (rows ph) (cols pw) -> batch (rows cols) (channels ph pw)",
        ph=patch_size,
        pw=patch_size,
    )


def unpatchify(
    patches: Float[Tensor, "batch patches patch_dim"], patch_size: int, height: int, width: int
) -> Float[Tensor, "batch channels height width"]:
    """Put flattened patches back into images: the exact inverse of patchify. Raises: ValueError if patches of this size
    and number do not tile height x width pixels."""
    if patches.ndim != 3:
        raise ValueError(f"patches must be (batch, patches, patch_dim), not {tuple(patches.shape)}")
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(f"patch_size {patch_size} does not divide images of {height} x {width} pixels")
    rows = height // patch_size
    if patches.shape[1] * patch_size != rows * width:
        needed = f"{rows} * {width // patch_size} = {rows * width // patch_size} patches of {patch_size} pixels"
        raise ValueError(f"{patches.shape[1]} patches do not tile {height} x {width} pixels, which takes {needed}")
    if patches.shape[2] % patch_size**2:
        channel = f"{patch_size} x {patch_size} pixels"
        raise ValueError(f"patch_dim {patches.shape[2]} is not a whole number of channels of {channel}")
    return rearrange(
        patches,
        "batch (rows cols) (channels ph pw) -> batch channels (rows ph) (cols pw)",
        rows=rows,
        ph=patch_size,
        pw=patch_size,
    )


class PatchEmbedding(nn.Module):
    """Multiply every flattened patch by one learned matrix and add one learned vector.

    Source: Equation 1, E; the published weights have the bias that the equation leaves out.
    Differs: published code writes it as a Conv2d with stride = kernel = patch_size. It is the same sum.
    """

    def __init__(self, patch_size: int, channels: int, dim: int):
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Linear(channels * patch_size**2, dim)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch patches dim"]:
        return self.projection(patchify(images, self.patch_size))
