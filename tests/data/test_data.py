"""data.py: every kind of picture comes out with the right values, and what is no picture is refused in words."""

import ast
import io
import os
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vit_walkthrough import data
from vit_walkthrough.data import PHOTOS, load_image, numbered_image, photo

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "images" / "photos"

# 2 x 3 pixels, all different, so that every swap of rows, columns or channels shows.
RGB = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [200, 150, 100], [255, 255, 255]]], np.uint8)
GREY = np.array([[0, 1, 100], [128, 254, 255]], np.uint8)
ALPHA = np.array([[255, 0, 51], [102, 255, 204]], np.uint8)
SHORT = np.array([[0, 1, 255], [256, 40_000, 65_535]], np.uint16)
UNIT = np.array([[0, 0.25, 0.5], [0.1, 0.9, 1]], np.float32)


def expected(array, top=255.0) -> torch.Tensor:
    """(3 height width), by hand: (height width) grey or (height width 3)."""
    array = np.asarray(array, np.float64) / top
    array = np.stack([array] * 3) if array.ndim == 2 else np.stack([array[..., channel] for channel in range(3)])
    return torch.from_numpy(array).float()


def on_white(array, alpha) -> torch.Tensor:
    opaque = torch.from_numpy(alpha / 255).float()
    return expected(array) * opaque + (1 - opaque)


def encode(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png(array=RGB, **options) -> bytes:
    return encode(Image.fromarray(array), "PNG", **options)


def palette() -> Image.Image:
    image = Image.new("P", (3, 2))
    image.putpalette(RGB.reshape(-1).tolist())
    image.putdata(range(6))
    return image


def close(actual: torch.Tensor, wanted: torch.Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(actual, wanted, atol=atol, rtol=0)


# --- the photographs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize(("size", "shape"), [(224, (3, 224, 224)), (48, (3, 48, 48)), ((32, 48), (3, 32, 48))])
def test_photo_is_a_picture(name, size, shape):
    image = photo(name, size=size)
    assert image.shape == shape
    assert image.dtype == torch.float32
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.std() > 0.15
    assert not torch.equal(image[0], image[2]), "a photograph has colours"


@pytest.mark.parametrize(
    ("name", "row", "col", "colour"),
    [
        ("cat", 0.62, 0.61, (0.71, 0.47, 0.23)),  # the bridge of the nose
        ("cat", 0.38, 0.32, (0.05, 0.05, 0.05)),  # a pupil
        ("astronaut", 0.70, 0.20, (0.86, 0.36, 0.21)),  # the suit
        ("astronaut", 0.85, 0.75, (0.0, 0.0, 0.0)),  # the visor
        ("coffee", 0.42, 0.50, (0.92, 0.57, 0.20)),  # the coffee
        ("coffee", 0.60, 0.20, (0.53, 0.10, 0.03)),  # the saucer
    ],
)
def test_photo_shows_its_subject_where_it_was_seen(name, row, col, colour):
    image = photo(name)
    row, col = round(row * 224), round(col * 224)
    patch = image[:, row - 2 : row + 3, col - 2 : col + 3].mean(dim=(1, 2))
    close(patch, torch.tensor(colour), atol=0.03)


def test_the_default_size_is_224():
    assert torch.equal(photo("cat"), photo("cat", 224))
    assert torch.equal(load_image(FOLDER / "cat.jpg"), photo("cat"))


@pytest.mark.parametrize("name", ["dog", "Cat", "", "cat.jpg", "../photos/cat"])
def test_unknown_photo_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=f"photo {name!r} is unknown; choose one of cat, astronaut, coffee"):
        photo(name)


def test_every_photo_is_credited_and_small():
    files = [path for path in FOLDER.iterdir() if path.suffix != ".md"]
    assert sorted(path.name for path in files) == sorted(f"{name}.jpg" for name in PHOTOS)
    assert sum(path.stat().st_size for path in files) < 700_000
    lines = (FOLDER / "CREDITS.md").read_text(encoding="utf-8").splitlines()
    for path in files:
        [row] = [line for line in lines if line.startswith(f"| `{path.name}`")]
        assert "CC0" in row or "public domain" in row


# --- the same picture from every kind of source ------------------------------------------------------------------


class Stream:
    """What an HTTP response is: it can be read once and not be rewound."""

    def __init__(self, content):
        self.read = io.BytesIO(content).read

    def seekable(self):
        return False


class Bare:
    """A file-like object that has nothing but read."""

    def __init__(self, content):
        self.read = io.BytesIO(content).read


@pytest.mark.parametrize(
    "source",
    [bytes, bytearray, memoryview, io.BytesIO, Stream, Bare, lambda content: Image.open(io.BytesIO(content))],
    ids=["bytes", "bytearray", "memoryview", "BytesIO", "stream", "bare", "Pillow"],
)
def test_sources_of_encoded_pictures(source):
    close(load_image(source(png()), (2, 3)), expected(RGB))


class Pathlike:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


@pytest.mark.parametrize("kind", [str, Path, Pathlike])
def test_paths(tmp_path, kind):
    path = tmp_path / "a picture, größer.png"
    path.write_bytes(png())
    close(load_image(kind(path), (2, 3)), expected(RGB))
    path.unlink()  # nothing holds it open (on Windows this would fail)


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (RGB, expected(RGB)),
        (GREY, expected(GREY)),
        (GREY[..., None], expected(GREY)),
        (np.dstack([GREY, ALPHA]), on_white(GREY, ALPHA)),
        (np.dstack([RGB, ALPHA]), on_white(RGB, ALPHA)),
        (SHORT, expected(SHORT, 65535)),
        (SHORT.astype(">u2"), expected(SHORT, 65535)),
        (UNIT, expected(UNIT, 1)),
        (UNIT.astype(np.float64), expected(UNIT, 1)),
        (UNIT.astype(np.float16), expected(UNIT.astype(np.float16), 1)),
        (UNIT.astype(">f4"), expected(UNIT, 1)),
        (RGB / 255, expected(RGB)),
        (GREY > 100, expected(GREY > 100, 1)),
        (np.asfortranarray(RGB), expected(RGB)),
        (RGB[::-1, ::-1], expected(RGB[::-1, ::-1])),
        (UNIT + np.float32(1e-4), expected(UNIT + 1e-4, 1).clamp(0, 1)),
        (UNIT - np.float32(1e-4), expected(UNIT - 1e-4, 1).clamp(0, 1)),
    ],
)
def test_arrays(array, wanted):
    close(load_image(array, (2, 3)), wanted)


@pytest.mark.parametrize(
    ("tensor", "wanted"),
    [
        (expected(RGB), expected(RGB)),
        (expected(UNIT, 1)[:1], expected(UNIT, 1)),
        (torch.from_numpy(UNIT), expected(UNIT, 1)),
        (expected(RGB).double().requires_grad_(), expected(RGB)),
        (expected(RGB).bfloat16(), expected(RGB).bfloat16().float()),
        (torch.from_numpy(RGB).movedim(-1, 0), expected(RGB)),
        (torch.from_numpy(GREY > 100), expected(GREY > 100, 1)),
    ],
)
def test_tensors_have_their_channels_first(tensor, wanted):
    image = load_image(tensor, (2, 3))
    close(image, wanted)
    assert not image.requires_grad


def test_a_loaded_image_can_be_loaded_again():
    image = photo("coffee", (30, 40))
    assert torch.equal(load_image(image, (30, 40)), image)


# --- every mode of a file ----------------------------------------------------------------------------------------


def image_of(mode: str, array: np.ndarray) -> Image.Image:
    """As Image.fromarray(array, mode), which Pillow is taking away."""
    return Image.frombytes(mode, array.shape[1::-1], np.ascontiguousarray(array).tobytes())


def by_palette(alpha) -> bytes:
    return encode(palette(), "PNG", transparency=alpha)


CMYK = np.dstack([RGB, np.full((2, 3), 51, np.uint8)])
WITHOUT_GREEN = np.array([[255, 0, 255], [255, 255, 255]], np.uint8)  # the second pixel is transparent

MODES = {
    "1 png": (encode(Image.fromarray(GREY).point(lambda value: value > 100, "1"), "PNG"), expected(GREY > 100, 1)),
    "L png": (png(GREY), expected(GREY)),
    "L png, a transparent grey": (png(GREY, transparency=1), on_white(GREY, WITHOUT_GREEN)),
    "LA png": (encode(image_of("LA", np.dstack([GREY, ALPHA])), "PNG"), on_white(GREY, ALPHA)),
    "P png": (encode(palette(), "PNG"), expected(RGB)),
    "P png, a transparent colour": (by_palette(1), on_white(RGB, WITHOUT_GREEN)),
    "P png, alpha for every colour": (by_palette(bytes(ALPHA.reshape(-1).tolist())), on_white(RGB, ALPHA)),
    "P gif": (encode(palette(), "GIF"), expected(RGB)),
    "P gif, a transparent colour": (encode(palette(), "GIF", transparency=1), on_white(RGB, WITHOUT_GREEN)),
    "RGB png": (png(), expected(RGB)),
    "RGB png, a transparent colour": (png(transparency=(0, 255, 0)), on_white(RGB, WITHOUT_GREEN)),
    "RGB bmp": (encode(Image.fromarray(RGB), "BMP"), expected(RGB)),
    "RGB webp": (encode(Image.fromarray(RGB), "WEBP", lossless=True), expected(RGB)),
    "RGBA png": (png(np.dstack([RGB, ALPHA])), on_white(RGB, ALPHA)),
    "RGBA webp": (
        encode(image_of("RGBA", np.dstack([RGB, ALPHA])), "WEBP", lossless=True, exact=True),
        on_white(RGB, ALPHA),
    ),
    "CMYK tiff": (encode(image_of("CMYK", CMYK), "TIFF"), expected((255.0 - RGB) * (1 - 51 / 255))),
    "I;16 png": (png(SHORT), expected(SHORT, 65535)),
    "I;16 tiff": (encode(Image.fromarray(SHORT), "TIFF"), expected(SHORT, 65535)),
    "I;16B tiff": (encode(image_of("I;16B", SHORT.astype(">u2")), "TIFF"), expected(SHORT, 65535)),
    "I tiff": (encode(Image.fromarray(SHORT.astype(np.int32)), "TIFF"), expected(SHORT, 65535)),
    "F tiff": (encode(Image.fromarray(UNIT), "TIFF"), expected(UNIT, 1)),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes_of_files(mode):
    content, wanted = MODES[mode]
    # One step of 8 bits where Pillow itself rounds CMYK.
    close(load_image(content, (2, 3)), wanted, atol=1.01 / 255 if mode.startswith("CMYK") else 1e-6)


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (Image.new("HSV", (3, 2), (0, 255, 255)), (1, 0, 0)),
        (Image.new("YCbCr", (3, 2), (255, 128, 128)), (1, 1, 1)),
        (Image.new("LAB", (3, 2), (0, 128, 128)), (1 / 255, 0, 1 / 255)),
        (Image.new("LAB", (3, 2)), (0, 59 / 255, 195 / 255)),  # as greenish and bluish as it gets; its spare byte is 0
        (Image.new("RGBX", (3, 2), (51, 102, 153, 0)), (0.2, 0.4, 0.6)),
        (Image.new("RGBA", (3, 2), (51, 102, 153, 0)), (1, 1, 1)),
        (Image.new("RGBA", (3, 2), (255, 0, 51, 255)).quantize(), (1, 0, 0.2)),
        (Image.new("RGBA", (3, 2), (255, 0, 51, 0)).quantize(), (1, 1, 1)),
        (Image.new("I;16", (3, 2), 13107), (0.2, 0.2, 0.2)),
        (Image.new("I", (3, 2), 65535), (1, 1, 1)),
        (Image.new("F", (3, 2), 0.3), (0.3, 0.3, 0.3)),
        (Image.new("1", (3, 2), 1), (1, 1, 1)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_modes_of_pillow_images(image, wanted):
    close(load_image(image, (2, 3)), torch.tensor(wanted).float()[:, None, None].expand(3, 2, 3))


@pytest.mark.parametrize(
    ("mode", "ink", "wanted"),
    [
        ("L", 128, (0.502, 0.502, 0.502)),
        ("RGB", (200, 100, 50), (0.784, 0.392, 0.196)),
        ("CMYK", (0, 255, 255, 0), (1, 0, 0)),
        ("CMYK", (255, 0, 0, 128), (0, 0.498, 0.498)),
    ],
)
def test_jpeg(mode, ink, wanted):
    content = encode(Image.new(mode, (16, 16), ink), "JPEG", quality=95)
    close(load_image(content, 16), torch.tensor(wanted).float()[:, None, None].expand(3, 16, 16), atol=0.015)


# How the camera stores an upright picture, from the EXIF standard: which side its first row and its first column show.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "Pillow"])
def test_exif_orientation_is_undone(form, orientation):
    upright = RGB.repeat(16, axis=0).repeat(16, axis=1)  # whole JPEG blocks
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "a description"
    options = dict(quality=100, subsampling=0) if form == "JPEG" else {}
    content = encode(
        Image.fromarray(STORED[orientation](upright).copy()), form.replace("Pillow", "PNG"), exif=exif, **options
    )
    image = load_image(Image.open(io.BytesIO(content)) if form == "Pillow" else content, (32, 48))
    close(image, expected(upright), atol=0.02)


def test_exif_orientation_of_16_bits():
    exif = Image.Exif()
    exif[0x0112] = 6
    close(load_image(png(np.rot90(SHORT).copy(), exif=exif), (2, 3)), expected(SHORT, 65535))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\x09\0"]
)
def test_broken_exif_is_passed_over_in_silence(exif):
    content = encode(Image.new("RGB", (16, 16), (200, 100, 50)), "JPEG", exif=exif)
    close(load_image(content, 4).mean(dim=(1, 2)), torch.tensor([200, 100, 50]) / 255, atol=0.02)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_give_their_first_frame(form):
    first, second = Image.new("RGB", (6, 4), (255, 0, 0)), Image.new("RGB", (6, 4), (0, 255, 0))
    options = dict(lossless=True) if form == "WEBP" else {}
    content = encode(first, form, save_all=True, append_images=[second], **options)
    red, green = expected(np.array(first)), expected(np.array(second))
    close(load_image(content, (4, 6)), red)
    image = Image.open(io.BytesIO(content))
    assert image.n_frames == 2
    image.seek(1)
    close(load_image(image, (4, 6)), green)  # a Pillow image shows the frame that the caller chose
    assert image.tell() == 1


# --- nothing of the caller's is changed --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(2, 3), 2, 7])
@pytest.mark.parametrize("array", [RGB, UNIT, np.dstack([GREY, ALPHA]), SHORT], ids=["RGB", "float", "LA", "16 bits"])
def test_the_array_stays_as_it_is(array, size):
    given_array = array.copy()
    load_image(given_array, size).zero_()
    assert np.array_equal(given_array, array)
    given_array.setflags(write=False)
    load_image(given_array, size).zero_()


def test_the_tensor_stays_as_it_is():
    tensor = expected(RGB)
    load_image(tensor, (2, 3)).zero_()
    assert torch.equal(tensor, expected(RGB))


@pytest.mark.parametrize("mode", MODES)
def test_the_pillow_image_stays_as_it_is(mode):
    image = Image.open(io.BytesIO(MODES[mode][0]))
    image.load()
    before = (image.mode, image.size, image.tobytes(), dict(image.info))
    load_image(image, 2).zero_()
    assert (image.mode, image.size, image.tobytes(), dict(image.info)) == before


def test_the_orientation_stays_in_the_pillow_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(png(exif=exif)))
    load_image(image, 2)
    assert image.size == (3, 2)
    assert image.getexif()[0x0112] == 6


def test_a_file_stays_open_and_is_read_from_its_start(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(png())
    with path.open("rb") as file:
        file.read()
        for _ in range(2):
            close(load_image(file, (2, 3)), expected(RGB))
        assert not file.closed
        file.seek(0)
        assert file.read() == png()
    buffer = io.BytesIO(b"no picture")
    with pytest.raises(ValueError, match="Pillow"):
        load_image(buffer)
    assert not buffer.closed


# --- crop and resize ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "size", "rows", "cols"),
    [
        (4, 4, 4, slice(0, 4), slice(0, 4)),
        (3, 5, 3, slice(0, 3), slice(1, 4)),
        (5, 3, 3, slice(1, 4), slice(0, 3)),
        (3, 6, 3, slice(0, 3), slice(1, 4)),  # an odd rest: the smaller half is cut off first
        (6, 4, (3, 4), slice(1, 4), slice(0, 4)),
        (6, 8, (6, 4), slice(0, 6), slice(2, 6)),
        (2, 20, (2, 20), slice(0, 2), slice(0, 20)),
    ],
)
def test_the_crop_is_about_the_centre_and_keeps_the_values(height, width, size, rows, cols):
    array = (numbered_image(height, width)[0] / (height * width)).numpy()
    assert torch.equal(load_image(array, size), torch.from_numpy(array[rows, cols]).expand(3, -1, -1))


@pytest.mark.parametrize(
    ("size", "crop"), [((8, 8), np.s_[:, 10:50]), ((30, 45), np.s_[:, :]), ((90, 60), np.s_[:, 16:43])]
)
def test_the_resize_is_smoothed_bicubic(size, crop):
    """torch's own bicubic with antialias is the reference; both use the same kernel (a = -0.5)."""
    array = np.random.default_rng(0).random((40, 60, 3), np.float32)
    wanted = F.interpolate(expected(array[crop], 1)[None], size, mode="bicubic", antialias=True, align_corners=False)
    close(load_image(array, size), wanted[0].clamp(0, 1), atol=1e-5)


def test_a_fine_checkerboard_becomes_grey():
    board = np.indices((64, 64)).sum(axis=0) % 2 == 0
    close(load_image(board, 8), torch.full((3, 8, 8), 0.5), atol=0.02)


def test_the_overshoot_at_an_edge_is_cut():
    edge = np.repeat([[0, 0, 0, 255, 255, 255]], 6, axis=0).astype(np.uint8)
    image = load_image(edge, 60)
    assert image.min() == 0
    assert image.max() == 1


def test_transparency_is_removed_before_the_resize():
    """A red that nobody sees must not bleed: transparent red beside opaque white is white everywhere."""
    array = np.full((8, 8, 4), 255, np.uint8)
    array[:, ::2] = (255, 0, 0, 0)
    close(load_image(array, 5), torch.ones(3, 5, 5))


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([None, 1, 2, 3, 4]),
    dtype=st.sampled_from([bool, np.uint8, np.uint16, np.float32]),
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    seed=st.integers(0, 9),
)
def test_any_array_gives_an_image_or_a_reason(height, width, channels, dtype, size, seed):
    numbers = np.random.default_rng(seed).random((height, width) if channels is None else (height, width, channels))
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    array = (numbers * top).round(0 if dtype is not np.float32 else 6).astype(dtype)
    ratio = Fraction(height * size[1], width * size[0])
    if height * width == 1 or min(ratio, 1 / ratio) < Fraction(1, 20):
        with pytest.raises(ValueError, match="1 x 1 pixel" if height * width == 1 else "too long"):
            load_image(array, size)
        return
    image = load_image(array, size)
    assert image.shape == (3, *size)
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert 0 <= image.min() <= image.max() <= 1
    if channels in (None, 1, 2):
        assert torch.equal(image[0], image[1])
        assert torch.equal(image[0], image[2])
    # What the array says does not depend on how: as floats the same picture comes out.
    close(load_image(array.astype(np.float64) / top, size), image, atol=1e-5)
    flat = load_image(np.full_like(array, top), size)
    close(flat, torch.ones_like(flat))


# --- what is refused, and in which words -------------------------------------------------------------------------


def declared(height: int, width: int) -> bytes:
    """A PNG file of some 70 bytes that says it has height x width pixels, and has none of them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "the byte string is empty; give a whole PNG"),
        (io.BytesIO(), "the file is empty; give a whole PNG"),
        (Stream(b""), "the file is empty"),
        (b"These are words and no picture.", "the byte string is nothing that Pillow can read"),
        (b"\x89PNG\r\n\x1a\n", "too little of it; give a whole PNG"),
        (declared(30_000, 30_000), r"more than 80,000,000 pixels; make it smaller first$"),
        (declared(10_000, 10_000), r"more than 80,000,000 pixels; make it smaller first$"),
        (declared(9_000, 9_500), r"more than 80,000,000 pixels; make it smaller first$"),
        (declared(9, 9), r"cannot be decoded \(image file is truncated.*\); is it complete\?"),
        (np.zeros((1, 1, 3)), "a picture of 1 x 1 pixel has nothing to look at"),
        (Image.new("RGB", (1, 1)), "a picture of 1 x 1 pixel has nothing to look at"),
        (
            Image.new("L", (20_000, 10)),
            r"10 x 20000 pixels .* too long: .* 224 x 224 it keeps 0.05% of its area; cut out",
        ),
        (np.zeros((20_000, 10)), "20000 x 10 pixels .* keeps 0.05%"),
        (Image.new("RGB", (0, 0)), r"shape \(0, 0, 4\)"),
        (np.zeros(3), r"the ndarray has the shape \(3,\); an array must be \(height, width\) or"),
        (np.zeros((1, 4, 4, 3)), r"shape \(1, 4, 4, 3\)"),
        (np.zeros((3, 8, 9)), r"shape \(3, 8, 9\); .* \(height, width, channels\)"),
        (np.zeros((0, 4)), r"shape \(0, 4\)"),
        (np.zeros((4, 4, 0)), r"shape \(4, 4, 0\)"),
        (np.array(0.5), r"shape \(\)"),
        (torch.zeros(1, 3, 4, 4), r"the Tensor has the shape \(1, 3, 4, 4\); .* tensor \(channels, height, width\)"),
        (torch.zeros(8, 9, 3), r"shape \(8, 9, 3\)"),
        (np.array([[0.5, np.nan], [np.inf, 0.5]]), "2 of 4 numbers are NaN or infinite"),
        (Image.fromarray(np.full((2, 2), np.nan, np.float32)), "4 of 4 numbers are NaN or infinite"),
        (np.array([[0.0, 255.0]]), r"floats from 0 to 255; bring them to \[0, 1\]"),
        (np.array([[-0.5, 0.5]]), r"floats from -0.5 to 0.5"),
        (np.array([[0.5, 1e300]]), r"floats from 0.5 to 1e\+300"),
        (numbered_image(), r"floats from 0 to 23"),
        (Image.fromarray(np.array([[0, 2]], np.float32)), "floats from 0 to 2"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else type(value).__name__,
)
def test_no_picture(source, message):
    with pytest.raises(ValueError, match=message):
        load_image(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "the NoneType is no picture; give a path, bytes"),
        (224, "the int is no picture"),
        ([[0, 1], [1, 0]], "the list is no picture"),
        (io.StringIO("a file opened without b"), "the StringIO is no picture; .* 'rb'"),
        (np.zeros((2, 2), np.int64), "numbers of type int64; convert them to uint8"),
        (np.zeros((2, 2), np.int8), "numbers of type int8"),
        (np.zeros((2, 2), np.uint32), "numbers of type uint32"),
        (np.zeros((2, 2), complex), "numbers of type complex128"),
        (np.array([["a", "b"]]), "numbers of type <U1"),
        (np.array([[None, 1]]), "numbers of type object"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), "numbers of type int64"),
        (Image.fromarray(np.array([[0, 70_000]], np.int32)), "numbers of type int32"),
        (Image.fromarray(np.array([[-1, 7]], np.int32)), "numbers of type int32"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else type(value).__name__,
)
def test_no_source(source, message):
    with pytest.raises(TypeError, match=message):
        load_image(source)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "ICO"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_file(tmp_path, form, part):
    content = encode(NOISE, form)
    path = tmp_path / "half.bin"
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(
        ValueError, match=r"half\.bin (cannot be decoded \(.*\)|is nothing that Pillow can read)"
    ) as caught:
        load_image(path)
    assert caught.value.__cause__ is not None
    assert " object at 0x" not in str(caught.value)


def test_the_message_names_the_file(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"notes\.txt is empty"):
        load_image(path)
    path.write_text("some words")
    with pytest.raises(ValueError, match=r"notes\.txt is nothing that Pillow can read"):
        load_image(path)
    with path.open("rb") as file, pytest.raises(ValueError, match=r"notes\.txt is nothing"):
        load_image(file)
    with path.open() as file, pytest.raises(TypeError, match="'rb'"):
        load_image(file)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        load_image(tmp_path / "none.png")
    with pytest.raises(OSError, match=tmp_path.name):
        load_image(tmp_path)


def test_a_closed_pillow_image(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(png())
    with Image.open(path) as image:
        pass
    with pytest.raises(ValueError, match="the Pillow image cannot be decoded"):
        load_image(image)


def test_the_limit_is_checked_before_a_pixel_is_unpacked(monkeypatch):
    monkeypatch.setattr(data, "MAX_PIXELS", 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # some notebooks switch Pillow's own guard off
    assert load_image(encode(Image.new("L", (10, 10)), "PNG"), 10).shape == (3, 10, 10)

    def load(*_):
        raise AssertionError("pixels were unpacked")

    content = encode(Image.new("L", (101, 1)), "PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    for source in (content, Image.open(io.BytesIO(content))):
        with pytest.raises(ValueError, match=r"has more than 100 pixels; make it smaller first$"):
            load_image(source, 10)


def test_the_callers_warning_filters_are_restored():
    with warnings.catch_warnings():
        before = list(warnings.filters)
        load_image(png(), 2)
        with pytest.raises(ValueError, match="empty"):
            load_image(b"")
        assert warnings.filters == before


@pytest.mark.parametrize(("width", "good"), [(40, True), (200, True), (210, False)])
@pytest.mark.parametrize("upright", [False, True])
def test_the_crop_keeps_at_least_a_twentieth(width, good, upright):
    array = np.zeros((width, 10) if upright else (10, width))
    if good:
        assert load_image(array, 4).shape == (3, 4, 4)
    else:
        with pytest.raises(ValueError, match=r"keeps 4\.76%"):
            load_image(array, 4)


def test_a_long_picture_may_stay_long():
    assert load_image(np.zeros((10, 20_000)), (1, 2_000)).shape == (3, 1, 2_000)
    with pytest.raises(ValueError, match="too long"):
        load_image(np.zeros((20, 20)), (1, 2_000))


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        (0, ValueError),
        (-1, ValueError),
        ((224, 0), ValueError),
        ((-3, 224), ValueError),
        (2.5, TypeError),
        (224.0, TypeError),
        ("224", TypeError),
        (True, TypeError),
        (None, TypeError),
        ((), TypeError),
        ((1, 2, 3), TypeError),
        ((224, 2.5), TypeError),
    ],
)
def test_no_size(size, kind):
    message = (
        "at least 1 pixel, an image at most 80,000,000" if kind is ValueError else "whole number of pixels, or two"
    )
    for load in (lambda: load_image(RGB, size), lambda: load_image("no file", size), lambda: photo("cat", size)):
        with pytest.raises(kind, match=f"size is .*{message}"):
            load()


def test_no_size_beyond_the_limit(monkeypatch):
    monkeypatch.setattr(data, "MAX_PIXELS", 100)  # the real one would fill the memory of a version that forgot it
    assert load_image(RGB, (10, 10)).shape == (3, 10, 10)
    with pytest.raises(ValueError, match=r"size is \(10, 11\); a side has at least 1 pixel, an image at most 100"):
        load_image(RGB, (10, 11))


def test_a_list_is_a_size_as_for_the_config():
    assert load_image(RGB, [4, 6]).shape == (3, 4, 6)


# --- the numbered image ------------------------------------------------------------------------------------------


def test_numbered_image_counts_in_reading_order():
    wanted = [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17], [18, 19, 20, 21, 22, 23]]
    image = numbered_image()
    assert torch.equal(image, torch.tensor([wanted]).float())
    assert image.dtype == torch.float32


def test_numbered_image_has_one_channel_after_another():
    image = numbered_image(2, 3, channels=2)
    assert image.tolist() == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]


@given(height=st.integers(1, 9), width=st.integers(1, 9), channels=st.integers(1, 4))
def test_every_pixel_of_the_numbered_image_names_its_place(height, width, channels):
    image = numbered_image(height, width, channels)
    assert image.shape == (channels, height, width)
    channel, row, col = channels - 1, height // 2, width // 2
    assert image[channel, row, col] == channel * height * width + row * width + col


@pytest.mark.parametrize("sizes", [(0, 6, 1), (4, -1, 1), (4, 6, 0)])
def test_a_numbered_image_needs_pixels(sizes):
    with pytest.raises(ValueError, match="has no pixels"):
        numbered_image(*sizes)


# --- the room in the house ---------------------------------------------------------------------------------------


def test_data_imports_nothing_of_the_package():
    tree = ast.parse(Path(data.__file__).read_text(encoding="utf-8"))
    froms = {("." * node.level) + (node.module or "") for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    plain = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    roots = {module.split(".")[0] for module in froms | plain}
    assert "torch" in roots
    assert not roots & {"", "vit_walkthrough", "matplotlib", "ipywidgets", "skimage"}


def test_a_wheel_has_the_photographs(tmp_path):
    """Needs a network: pip fetches the build backend from PyPI."""
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "-q", "-w", str(tmp_path / "wheels")]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    [wheel] = (tmp_path / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if "/photos/" in name}
        archive.extractall(tmp_path / "unpacked")
    assert inside == {f"vit_walkthrough/photos/{file}" for file in ("CREDITS.md", *(f"{name}.jpg" for name in PHOTOS))}
    script = """
import sys
sys.path.insert(0, sys.argv[1])
import vit_walkthrough
assert "vit_walkthrough.data" not in sys.modules, "the package imports data"
from vit_walkthrough import data
assert data.__file__.startswith(sys.argv[1]), data.__file__
assert not {"matplotlib", "skimage", "ipywidgets", "sklearn"} & set(sys.modules)
print(*(data.photo(name, 32).double().mean().item() for name in data.PHOTOS))
"""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ran = subprocess.run(
        [sys.executable, "-I", "-c", script, str(tmp_path / "unpacked") + os.sep],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert [float(mean) for mean in ran.stdout.split()] == [photo(name, 32).double().mean().item() for name in PHOTOS]
