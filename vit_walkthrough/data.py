"""What the model looks at: three photographs, the reader's own pictures, the smallest image, and digits to find."""

import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

PHOTOS = ("cat", "astronaut", "coffee")
MAX_PIXELS = 80_000_000  # a few bytes can declare a picture that fills the memory
MIN_KEPT = 1 / 20  # of the picture's area, by the crop; a square still keeps a tenth of a panorama ten times as wide


def photo(name: str, size=224) -> Float[Tensor, "3 height width"]:
    """One of the PHOTOS in [0, 1], cropped and resized as load_image does it.

    Raises: ValueError for an unknown name; for the size as load_image.
    Source: images/photos/CREDITS.md.
    """
    if name not in PHOTOS:
        raise ValueError(f"photo {name!r} is unknown; choose one of {', '.join(PHOTOS)}")
    package = Path(__file__).parent
    folder = package / "photos"  # in a wheel; a clone has them at the top, where a person finds them
    return load_image((folder if folder.is_dir() else package.parent / "images" / "photos") / f"{name}.jpg", size)


# source and size are not annotated, so that a wrong one meets the messages below where annotations are checked too.
def load_image(source, size=224) -> Float[Tensor, "3 height width"]:
    """Any picture as red, green and blue in [0, 1], upright, cropped about its centre to the shape of size and resized.

    source: a path, bytes, a binary file (read from its start, left open), a Pillow image, a NumPy array (height width)
    or (height width channels), or a torch tensor (channels height width). 1 to 4 channels: grey, grey and alpha, RGB,
    RGBA. size: side in pixels, or (height, width).

    What is transparent is put on white; an animated file gives its first frame. Whole numbers reach to 255 (8 bits) or
    65535 (16 bits, and Pillow's mode "I"); floats must lie in [0, 1] already. The source is not changed.

    Raises: ValueError for what is no complete picture, more than MAX_PIXELS, one pixel, or so long that the crop keeps
    less than MIN_KEPT; TypeError for another kind of source, array or size; OSError for a file that cannot be opened.
    """
    height, width = _sides(size)
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return load_image(file, size)
    pixels = _pixels(source)
    old_height, old_width, _ = pixels.shape
    if old_height * old_width == 1:
        raise ValueError("a picture of 1 x 1 pixel has nothing to look at; give a larger one")
    kept = min(old_height * width, old_width * height) / max(old_height * width, old_width * height)
    if kept < MIN_KEPT:
        raise ValueError(
            f"a picture of {old_height} x {old_width} pixels (height x width) is too long: cropped to the shape of "
            f"{height} x {width} it keeps {kept:.2%} of its area; cut out the part that matters first"
        )
    # Whole pixels, so that a picture that only needs a crop keeps its values.
    crop_height = min(old_height, max(1, round(old_width * height / width)))
    crop_width = min(old_width, max(1, round(old_height * width / height)))
    top, left = (old_height - crop_height) // 2, (old_width - crop_width) // 2
    pixels = pixels[top : top + crop_height, left : left + crop_width]
    planes = []
    for plane in _planes(pixels):
        # Bicubic, smoothed where it shrinks, as for the published weights. It can overshoot [0, 1].
        resized = Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC)
        planes.append(np.clip(resized, 0, 1))
    return torch.from_numpy(np.stack(planes * (3 // len(planes))))


def read_image(source) -> Float[Tensor, "3 height width"]:
    """Any picture as load_image reads it, whole and in its own size.

    Raises: as load_image.
    """
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return read_image(file)
    planes = list(_planes(_pixels(source)))
    return torch.from_numpy(np.stack(planes * (3 // len(planes))))


def numbered_image(height: int = 4, width: int = 6, channels: int = 1) -> Float[Tensor, "channels height width"]:
    """The image whose pixels count 0, 1, 2, ... in reading order, one channel after another: a pixel names its place.

    Raises: ValueError for an image without pixels.
    """
    if min(height, width, channels) < 1:
        raise ValueError(f"an image of {channels} x {height} x {width} (channels, height, width) has no pixels")
    numbers = torch.arange(channels * height * width, dtype=torch.float32)
    return rearrange(numbers, "(channels height width) -> channels height width", channels=channels, height=height)


def _sides(size) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) for side in sides):
        raise TypeError(f"size is {size!r}; it must be a whole number of pixels, or two: (height, width)")
    if min(sides) < 1 or sides[0] * sides[1] > MAX_PIXELS:
        raise ValueError(f"size is {size}; a side has at least 1 pixel, an image at most {MAX_PIXELS:,}")
    return sides


def _pixels(source) -> np.ndarray:
    """Any source but a path as (height width channels), checked, in the numbers that it came in."""
    name = f"the {type(source).__name__}"
    if isinstance(source, Tensor):
        array = source.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    elif isinstance(source, np.ndarray):
        array = source
    elif isinstance(source, Image.Image):
        array = _decoded(source, "the Pillow image")
    elif isinstance(source, (bytes, bytearray, memoryview)):
        array = _decoded(io.BytesIO(source), "the byte string")
    elif hasattr(source, "read") and not isinstance(source, io.TextIOBase):
        seekable = hasattr(source, "seekable") and source.seekable()
        array = _decoded(source if seekable else io.BytesIO(source.read()), str(getattr(source, "name", "the file")))
    else:
        raise TypeError(
            f"{name} is no picture; give a path, bytes, a file opened with 'rb', a Pillow image or an array"
        )
    if array.ndim not in (2, 3) or 0 in array.shape or array.shape[2:] > (4,):
        raise ValueError(
            f"{name} has the shape {tuple(getattr(source, 'shape', array.shape))}; an array must be "
            f"(height, width) or (height, width, channels), a torch tensor (channels, height, width), channels 1 to 4"
        )
    if array.dtype.kind == "f":
        broken = array.size - np.count_nonzero(np.isfinite(array))
        if broken:
            raise ValueError(f"{broken} of {array.size} numbers are NaN or infinite; mend the picture first")
        if array.min() < -1e-3 or array.max() > 1.001:  # the slack is for rounding: a quarter of an 8-bit step
            raise ValueError(f"floats from {array.min():.4g} to {array.max():.4g}; bring them to [0, 1] (often: / 255)")
    elif array.dtype.str[1:] not in ("b1", "u1", "u2"):
        raise TypeError(f"numbers of type {array.dtype}; convert them to uint8, uint16, bool, or floats in [0, 1]")
    return array if array.ndim == 3 else array[..., None]


def _decoded(source, name: str) -> np.ndarray:
    """A file's first frame, or a Pillow image, upright, as an array."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities that it copes with
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = source if isinstance(source, Image.Image) else Image.open(source)
            if image.width * image.height > MAX_PIXELS:  # the header says so: no pixel has been unpacked yet
                raise Image.DecompressionBombError(f"{image.height} x {image.width}")
            image = ImageOps.exif_transpose(image)  # always a copy: the caller's image stays as it is
            if image.mode == "I":  # 32 bits, but 16-bit files come in it too; the rest meets the check of types
                array = np.asarray(image)
                return array.astype(np.uint16) if array.min() >= 0 and array.max() <= 65535 else array
            if image.mode == "F" or image.mode.startswith("I;16"):
                return np.asarray(image)
            # Straight from LAB, Pillow leaves alpha at 0.
            return np.asarray((image.convert("RGB") if image.mode == "LAB" else image).convert("RGBA"))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(f"{name} has more than {MAX_PIXELS:,} pixels; make it smaller first") from error
        except UnidentifiedImageError as error:
            source.seek(0)
            what = "nothing that Pillow can read, or too little of it" if source.read(1) else "empty"
            raise ValueError(f"{name} is {what}; give a whole PNG, JPEG, GIF, BMP, TIFF or WebP") from error
        except Exception as error:  # a decoder that meets a broken file may raise anything
            raise ValueError(f"{name} cannot be decoded ({error}); is it complete? Save it again as PNG") from error


def _planes(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """Checked pixels as planes in [0, 1], one if they are grey, else three; what is transparent is put on white."""
    channels = pixels.shape[2]
    alpha = _scaled(pixels[..., -1]) if channels in (2, 4) else np.float32(1)
    for channel in range(3 if channels > 2 else 1):
        yield _scaled(pixels[..., channel]) * alpha + (1 - alpha)


def _scaled(plane: np.ndarray) -> np.ndarray:
    """Numbers as float32 in [0, 1]."""
    return plane.astype(np.float32) / np.float32(np.iinfo(plane.dtype).max if plane.dtype.kind == "u" else 1)


class ClutteredDigits:
    """Handwritten digits to find: each in a random place, size and hue, on dark noise among dimmer fragments of others.

    Real handwriting: the 1,797 scans of 8 x 8 pixels that scikit-learn brings along, no download. Train and test never
    share a scan, not even for the fragments. Every sample comes with the mask of the square in which its digit stands.

    split: "train" draws from 1,297 scans, "test" from the other 500. size: side of the images in pixels; the digit is
    half as wide. seed: of all draws. scans: only the first so many of the split's, to see what fewer are worth.
    augment: whether each scan is turned, sheared and scaled a little; unless told, those of train are.

    Raises: ValueError for an unknown split, a size that is odd or below 32, more scans than there are or none.
    Source: after the cluttered MNIST of Mnih et al. 2014 (arXiv 1406.6247), section 4.2.
    """

    FRAGMENTS = 3
    DIMMED = 0.4  # how bright a fragment is beside the digit

    def __init__(
        self,
        split: Literal["train", "test"] = "train",
        size: int = 48,
        seed: int = 0,
        scans: int | None = None,
        augment: bool | None = None,
    ):
        from sklearn.datasets import load_digits  # here, so that photos do not wait for it

        if split not in ("train", "test"):
            raise ValueError(f"split {split!r} is unknown; choose train or test")
        if size < 32 or size % 2:
            raise ValueError(f"size {size} will not do; choose an even one, at least 32")
        pixels, labels = load_digits(return_X_y=True)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        own = order[500:] if split == "train" else order[:500]
        if scans is not None:
            if not 1 <= scans <= len(own):
                raise ValueError(f"scans is {scans}; {split} has 1 to {len(own):,}")
            own = own[:scans]
        small = torch.tensor(pixels, dtype=torch.float32)[own].reshape(-1, 1, 8, 8) / 16
        self.split, self.size, self.seed, self.draws = split, size, seed, 0
        self.augment = split == "train" if augment is None else augment
        self.scans = F.interpolate(small, (size // 2, size // 2), mode="bicubic", antialias=True).clamp(0, 1)
        self.labels = torch.tensor(labels)[own]

    def sample(
        self, count: int, draw: int | None = None
    ) -> tuple[Float[Tensor, "count 3 size size"], Int[Tensor, " count"], Bool[Tensor, "count size size"]]:
        """`count` images in [0, 1], their labels from 0 to 9, and masks that are true on the square of the digit.

        draw: its number decides, with the seed, what is drawn; if it is not given, the next one is taken.

        Raises: ValueError for a count below 1.
        """
        if count < 1:
            raise ValueError(f"count is {count}; it must be at least 1")
        if draw is None:
            draw, self.draws = self.draws, self.draws + 1
        number = 1_000_003 * self.seed + draw
        # The other way round for the test, or its draws would have the noise, hues and places of the training's.
        generator = torch.Generator().manual_seed(number if self.split == "train" else ~number)

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return torch.empty(*shape).uniform_(low, high, generator=generator)

        def whole(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=generator)

        side, piece = self.size // 2, self.size // 6
        noise = uniform(-0.08, 0.08, count, 1, self.size, self.size)
        images = (uniform(0.02, 0.2, count, 3, 1, 1) + noise).clamp_(min=0)
        hues = _hues(uniform(0.0, 1.0, count, self.FRAGMENTS + 1))

        # A fragment is a window of another digit, from the inner half of its scan, where the strokes are.
        other = whole(len(self.scans), count, self.FRAGMENTS)
        corner = side // 4 + whole(side // 2 - piece + 1, count, self.FRAGMENTS, 2)
        fragments = self.scans[(other[..., None, None], 0, *_window(corner, piece))]
        batch = torch.arange(count)[:, None, None, None]
        place = _window(whole(self.size - piece + 1, count, self.FRAGMENTS, 2), piece)
        colours = self.DIMMED * fragments[..., None] * hues[:, 1:, None, None]
        images.permute(0, 2, 3, 1).index_put_((batch, *place), colours, accumulate=True)

        which = whole(len(self.scans), count)
        corner = whole(self.size - side + 1, count, 2)
        digits = self.scans[which]
        if self.augment:
            digits = _turned(digits, uniform(-1.0, 1.0, count, 4))
        batch, place = batch[..., 0], _window(corner, side)
        under = images.permute(0, 2, 3, 1)[(batch, *place)]
        painted = torch.lerp(under, hues[:, :1, None].expand_as(under), digits[:, 0, :, :, None])
        images.permute(0, 2, 3, 1).index_put_((batch, *place), painted)
        masks = torch.zeros(count, self.size, self.size, dtype=torch.bool)
        masks[(batch, *place)] = True
        return images.clamp_(max=1), self.labels[which], masks


def _window(corner: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Indices of the rows and columns of squares whose upper left corners are given as (..., 2)."""
    steps = torch.arange(side)
    return corner[..., 0, None, None] + steps[:, None], corner[..., 1, None, None] + steps


def _hues(hue: Tensor) -> Tensor:
    """Bright colours: hues in [0, 1) -> (..., 3)."""
    return (0.65 + 0.35 * torch.cos(2 * torch.pi * (hue[..., None] - torch.tensor([0, 1 / 3, 2 / 3])))).clamp(0, 1)


def _turned(digits: Tensor, draws: Tensor) -> Tensor:
    """Each digit turned by up to 12 degrees, sheared by up to 0.15 and scaled by up to a tenth; draws in [-1, 1]."""
    angle, shear, width, height = (draws * torch.tensor([0.21, 0.15, 0.1, 0.1])).unbind(1)
    cos, sin, nothing = angle.cos(), angle.sin(), torch.zeros(len(draws))
    rows = [
        torch.stack([(1 + width) * cos, shear - sin, nothing], dim=1),
        torch.stack([sin, (1 + height) * cos, nothing], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(digits.shape), align_corners=False)
    return F.grid_sample(digits, grid, align_corners=False)
