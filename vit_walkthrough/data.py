"""What the model looks at: photographs, the reader's own pictures, the smallest image, digits to find, planted cues."""

import io
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

PHOTOS = ("cat", "astronaut", "coffee")
SPLITS = {"train": slice(700, None), "validation": slice(500, 700), "test": slice(500)}  # of the shuffled digits
FRAGMENTS = 3  # of other digits, around each digit
CUE = 8  # the side of a planted cue in pixels: one patch of the hero
Images, Classes = Float[Tensor, "batch 3 height width"], Int[Tensor, " batch"]
Masks = Bool[Tensor, "batch height width"]


def photo(name: str, size=224) -> Float[Tensor, "3 height width"]:
    """One of the PHOTOS, as load_image gives it. Raises: ValueError for an unknown name. Source: images/photos."""
    if name not in PHOTOS:
        raise ValueError(f"photo {name!r} is unknown; choose one of {', '.join(PHOTOS)}")
    package = Path(__file__).parent
    folder = package / "photos"  # in a wheel; a clone has them at the top, where a person finds them
    return load_image((folder if folder.is_dir() else package.parent / "images" / "photos") / f"{name}.jpg", size)


# source and size are not annotated, so that a wrong one meets the messages below where annotations are checked too.
def load_image(source, size=224) -> Float[Tensor, "3 height width"]:
    """Any picture as red, green and blue in [0, 1], upright, cropped about its centre to the shape of size and resized.

    source: a path, bytes, a binary file or a Pillow image; of several frames the first is taken, and transparent pixels
    become white. size: side in pixels, or (height, width).

    Raises: ValueError for a source that is no complete picture of at most 16 bits, has one pixel or too many for
    Pillow, and for another size; OSError for a file that cannot be opened.
    """
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ValueError(f"size is {size!r}; it must be a whole number of pixels from 1, or two: (height, width)")
    if isinstance(source, (str, Path)):
        with open(source, "rb") as file:
            return load_image(file, size)
    picture = _decoded(source)
    if picture.size == (1, 1):
        raise ValueError("a picture of 1 x 1 pixel has nothing to look at; give a larger one")
    (height, width), (old_width, old_height) = sides, picture.size
    # Whole pixels, so that a picture that only needs a crop keeps its values.
    crop_height = min(old_height, max(1, round(old_width * height / width)))
    crop_width = min(old_width, max(1, round(old_height * width / height)))
    top, left = (old_height - crop_height) // 2, (old_width - crop_width) // 2
    box = left, top, left + crop_width, top + crop_height
    # Bicubic in 8 bits, smoothed where it shrinks, as for the published weights; alpha weighs what is mixed.
    resized = picture.crop(box).resize((width, height), Image.Resampling.BICUBIC)
    if resized.mode == "RGBA":
        resized = Image.alpha_composite(Image.new("RGBA", resized.size, "white"), resized).convert("RGB")
    return torch.from_numpy(np.asarray(resized, dtype=np.float32) / 255).movedim(-1, 0).contiguous()


def _decoded(source) -> Image.Image:
    """The first frame, upright, in red, green and blue, with alpha if something is transparent."""
    name = getattr(source, "name", f"the {type(source).__name__}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities that it copes with
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # too many pixels, before they are unpacked
        try:
            file = io.BytesIO(source) if isinstance(source, (bytes, memoryview)) else source
            image = ImageOps.exif_transpose(file if isinstance(file, Image.Image) else Image.open(file))
            if image.mode in ("I", "F"):
                raise ValueError("its numbers have 32 bits")
            if image.mode[0] == "I":  # 16 bits, which Pillow's convert would cut off at 255
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            return image.convert("RGBA" if image.has_transparency_data else "RGB")
        except Exception as error:  # a decoder that meets a broken file may raise anything
            reason = "Pillow knows no such format" if isinstance(error, UnidentifiedImageError) else error
            how = "give a whole PNG, JPEG, GIF or WebP, or a Pillow image"
            raise ValueError(f"{name} cannot be decoded ({reason}); {how}") from error


def numbered_image(height: int = 4, width: int = 6) -> Float[Tensor, "1 height width"]:
    """The image whose pixels count 0, 1, 2, ... in reading order: the number of a pixel names its place."""
    return torch.arange(height * width, dtype=torch.float32).reshape(1, height, width)


class ClutteredDigits:
    """Handwritten digits to find: each in a random place, size and hue, on dark noise among dimmer fragments of others.

    They are the 1,797 scans of 8 x 8 pixels that scikit-learn brings along. The splits share no scan.

    split: "train" draws from 1,097 scans, "validation" from 200 others, on which settings are chosen, "test" from the
    last 500. size: side of the images in pixels; the digit is half as wide. scans: only the first so many. augment:
    whether each scan is turned, sheared and scaled a little; by default those of train are. dim_fragments: how bright a
    fragment is, as a share of the digit.

    Raises: ValueError for an unknown split, a size that is odd or below 32, scans that there are not, and dim_fragments
    outside 0 to 1.
    Source: after the cluttered MNIST of Mnih et al. 2014 (arXiv 1406.6247), section 4.2.
    """

    def __init__(self, split="train", size=48, seed=0, scans: int | None = None, augment=None, dim_fragments=0.4):
        from sklearn.datasets import load_digits  # here, so that photos do not wait for it

        if split not in SPLITS:
            raise ValueError(f"split {split!r} is unknown; choose one of {', '.join(SPLITS)}")
        if size < 32 or size % 2:
            raise ValueError(f"size {size} is odd or too small; choose an even size, at least 32")
        if not 0 <= dim_fragments <= 1:
            raise ValueError(f"dim_fragments is {dim_fragments}; it is a share from 0 to 1")
        pixels, labels = load_digits(return_X_y=True)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0), device="cpu")
        own = order[SPLITS[split]].numpy()
        if scans is not None and not 1 <= scans <= len(own):
            raise ValueError(f"scans is {scans}; {split} has 1 to {len(own):,}")
        own = own[:scans]
        small = torch.from_numpy(pixels[own].astype(np.float32)).reshape(-1, 1, 8, 8) / 16
        self.split, self.size, self.seed, self.draws = split, size, seed, 0
        self.augment = split == "train" if augment is None else augment
        self.dim_fragments = dim_fragments
        self.scans = F.interpolate(small, (size // 2, size // 2), mode="bicubic", antialias=True).clamp(0, 1)
        self.labels = torch.from_numpy(labels[own])

    def sample(self, count: int, draw: int | None = None) -> tuple[Images, Classes, Masks]:
        """`count` images in [0, 1], their labels from 0 to 9, and masks that are true on the square of the digit. draw:
        what is drawn follows from this number and the seed; if it is not given, the next number is taken."""
        if count < 1:
            raise ValueError(f"count is {count}; it must be at least 1")
        if draw is None:
            draw, self.draws = self.draws, self.draws + 1
        generator = self._generator(1_000_003 * self.seed + draw)

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return torch.empty(shape, dtype=torch.float32, device="cpu").uniform_(low, high, generator=generator)

        def integers(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=generator, device="cpu")

        side, piece = self.size // 2, self.size // 6
        noise = uniform(-0.08, 0.08, count, self.size, self.size, 1)
        canvas = (uniform(0.02, 0.2, count, 1, 1, 3) + noise).clamp_(min=0)  # (count height width 3)
        hues = _bright(uniform(0.0, 1.0, count, FRAGMENTS + 1, 1))
        batch = torch.arange(count, device="cpu")[:, None, None]

        # A fragment is a window of another digit, from the inner half of its scan, where the strokes are.
        other = integers(len(self.scans), count, FRAGMENTS)
        corner = side // 4 + integers(side // 2 - piece + 1, count, FRAGMENTS, 2)
        fragments = self.scans[(other[..., None, None], 0, *_window(corner, piece))]
        place = (batch[..., None], *_window(integers(self.size - piece + 1, count, FRAGMENTS, 2), piece))
        colours = self.dim_fragments * fragments[..., None] * hues[:, 1:, None, None]
        canvas.index_put_(place, colours, accumulate=True)

        which = integers(len(self.scans), count)
        place = (batch, *_window(integers(self.size - side + 1, count, 2), side))
        digits = self.scans[which]
        if self.augment:
            digits = _turned(digits, uniform(-1.0, 1.0, count, 4))
        canvas[place] = torch.lerp(canvas[place], hues[:, :1, None], digits[:, 0, :, :, None])
        masks = torch.zeros(count, self.size, self.size, dtype=torch.bool, device="cpu")
        masks[place] = True
        return canvas.clamp_(max=1).movedim(-1, 1).contiguous(), self.labels[which], masks

    def _generator(self, number: int) -> torch.Generator:
        # Numbers of their own, or two splits would have the same noise, hues and places. torch reads the last 32 bits.
        numbers = {"train": number, "validation": number + 2**31, "test": ~number}
        return torch.Generator().manual_seed(numbers[self.split])


class PlantedCue(ClutteredDigits):
    """ClutteredDigits of 48 pixels with a cue in each image: one dim patch beside the digit, whose hue names a class.
    share: how often the cue names the class of the digit; otherwise it names another one, and lies."""

    def __init__(self, split: str = "train", share=0.95, seed: int = 0):
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}; it is how often the cue tells the truth, from 0 to 1")
        super().__init__(split, seed=seed)
        self.share = share

    def sample(self, count: int, draw: int | None = None):
        return self.planted(count, draw)[:3]

    def planted(self, count: int, draw: int | None = None):
        """What `sample` gives, and for each image the class that its cue names and the patch in which the cue lies."""
        images, labels, masks = super().sample(count, draw)
        draw = self.draws - 1 if draw is None else draw
        generator = self._generator(1_000_003 * self.seed + draw + 2**30)
        others = (labels + torch.randint(1, 10, (count,), generator=generator, device="cpu")) % 10
        honest = torch.rand(count, generator=generator, device="cpu", dtype=torch.float64) < self.share
        named = torch.where(honest, labels, others)
        free = ~masks.unfold(1, CUE, CUE).unfold(2, CUE, CUE).flatten(3).any(dim=-1).flatten(1)
        places = torch.multinomial(free.double(), 1, generator=generator)[:, 0]
        return plant(images, masks, named, places), labels, masks, named, places


def plant(images: Images, masks: Masks, classes: Classes, places: Classes) -> Images:
    """The images with a dim patch of 8 x 8 pixels in each, whose hue names a class from 0 to 9. masks: true where the
    digit is. places: the number of the patch in which the cue lies. Raises: ValueError for a cue on the digit."""
    rows, cols = (side // CUE for side in masks.shape[1:])
    grid = F.one_hot(places, rows * cols).bool().unflatten(1, (rows, cols))
    spots = grid.repeat_interleave(CUE, dim=1).repeat_interleave(CUE, dim=2)
    for image in (spots & masks).flatten(1).any(dim=1).nonzero()[:1, 0].tolist():
        raise ValueError(f"in image {image}, a cue in patch {places[image]} covers the digit; choose a patch beside it")
    return torch.where(spots[:, None], 0.5 * _bright(classes[:, None] / 10)[..., None, None], images)


def _bright(hue: Tensor) -> Tensor:
    """The bright colour of a hue: 0 is red, 1/3 green, 2/3 blue, and 1 red again."""
    return (0.65 + 0.35 * torch.cos(2 * torch.pi * (hue - hue.new_tensor([0, 1 / 3, 2 / 3])))).clamp(0, 1)


def _window(corner: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Indices of the rows and columns of squares whose upper left corners are given as (..., 2)."""
    steps = torch.arange(side, device="cpu")
    return corner[..., 0, None, None] + steps[:, None], corner[..., 1, None, None] + steps


@torch.autocast("cpu", enabled=False)  # its matrix product would be in 16 bits
def _turned(digits: Tensor, draws: Tensor) -> Tensor:
    """Each digit turned by up to 12 degrees, sheared by up to 0.15 and scaled by up to a tenth; draws in [-1, 1]."""
    angle, shear, width, height = (draws * draws.new_tensor([0.21, 0.15, 0.1, 0.1])).unbind(1)
    cos, sin, nothing = angle.cos(), angle.sin(), torch.zeros_like(angle)
    maps = torch.stack([(1 + width) * cos, shear - sin, nothing, sin, (1 + height) * cos, nothing], dim=1)
    grid = F.affine_grid(maps.reshape(-1, 2, 3), list(digits.shape), align_corners=False)
    return F.grid_sample(digits, grid, align_corners=False)
