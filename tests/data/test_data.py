"""data.py: every kind of picture comes out with the right values, and what is no picture is refused in words."""

import copy
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from vit_walkthrough import data
from vit_walkthrough.data import PHOTOS, load_image, numbered_image, photo

FOLDER = Path(__file__).parents[2] / "images" / "photos"

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


def on_white(array, alpha, top=255.0) -> torch.Tensor:
    opaque = torch.from_numpy(alpha / 255).float()
    return expected(array, top) * opaque + (1 - opaque)


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


@pytest.mark.parametrize(
    ("name", "row", "col", "colour"),
    [
        ("cat", 0.62, 0.61, (0.71, 0.47, 0.23)),  # the bridge of the nose
        ("astronaut", 0.70, 0.20, (0.86, 0.36, 0.21)),  # the suit
        ("coffee", 0.42, 0.50, (0.92, 0.57, 0.20)),  # the coffee
    ],
)
def test_photo_shows_its_subject_where_it_was_seen(name, row, col, colour):
    image = photo(name)
    assert image.shape == (3, 224, 224)
    row, col = round(row * 224), round(col * 224)
    patch = image[:, row - 2 : row + 3, col - 2 : col + 3].mean(dim=(1, 2))
    close(patch, torch.tensor(colour), atol=0.03)
    assert torch.equal(load_image(FOLDER / f"{name}.jpg"), image)
    with pytest.raises(ValueError, match=f"'{name}.jpg' .* cat, astronaut, coffee$"):
        photo(f"{name}.jpg")
    assert photo(name, (8, 9)).shape == (3, 8, 9)


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


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO, Stream, lambda _: Image.fromarray(RGB)])
def test_sources_of_pictures(kind):
    close(load_image(kind(png()), (2, 3)), expected(RGB))


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_or_an_open_file_is_read_from_its_start(tmp_path, kind):
    path = tmp_path / "a picture, größer.png"
    path.write_bytes(png())
    close(load_image(kind(path), (2, 3)), expected(RGB))
    with path.open("rb") as file:
        file.read()
        for _ in range(2):
            close(load_image(file, (2, 3)), expected(RGB))
        file.seek(0)
        assert file.read() == png()


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (RGB, expected(RGB)),
        (GREY[..., None], expected(GREY)),
        (np.dstack([GREY, ALPHA]), on_white(GREY, ALPHA)),
        (np.dstack([RGB, ALPHA]), on_white(RGB, ALPHA)),
        (SHORT.astype(">u2"), expected(SHORT, 65535)),
        (np.dstack([SHORT, ALPHA * np.uint16(257)]), on_white(SHORT, ALPHA, 65535)),
        (UNIT.astype(np.float64), expected(UNIT, 1)),
        (GREY > 100, expected(GREY > 100, 1)),
        (RGB[::-1, ::-1], expected(RGB[::-1, ::-1])),
        (UNIT + np.float32(9e-4), expected(UNIT + 9e-4, 1).clamp(0, 1)),
        (UNIT - np.float32(9e-4), expected(UNIT - 9e-4, 1).clamp(0, 1)),
        (expected(RGB).double().requires_grad_(), expected(RGB)),
        (torch.from_numpy(UNIT), expected(UNIT, 1)),
        (expected(RGB).bfloat16(), expected(RGB).bfloat16().float()),
        (torch.from_numpy(RGB).movedim(-1, 0), expected(RGB)),  # of a tensor the channels come first
    ],
)
def test_arrays_and_tensors(array, wanted):
    before = copy.deepcopy(array)
    image = load_image(array, (2, 3))
    close(image, wanted)
    assert (image.dtype, image.requires_grad) == (torch.float32, False)
    assert image.is_contiguous()
    image.zero_()
    assert (before == array).all()  # nothing of the caller's is changed


# --- every mode of a file ----------------------------------------------------------------------------------------


def image_of(mode: str, array: np.ndarray) -> Image.Image:
    """As Image.fromarray(array, mode), which Pillow is taking away."""
    return Image.frombytes(mode, array.shape[1::-1], np.ascontiguousarray(array).tobytes())


def chunk(kind: bytes, content: bytes) -> bytes:
    """Of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(height: int, width: int, bits: int, content: bytes, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)) + b"".join(chunks)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


def tiff(levels: bytes, bits: int, signed=False, white_is_zero=False) -> bytes:
    """2 x 3 grey pixels of so many bits."""
    tags = {256: 3, 257: 2, 258: bits, 259: 1, 262: 1 - white_is_zero, 273: 8, 277: 1, 278: 2, 279: len(levels)}
    tags[339] = 1 + signed
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHI", b"II", 42, 8 + len(levels)) + levels + struct.pack("<H", len(tags)) + entries + bytes(4)


CMYK = np.dstack([RGB, np.full((2, 3), 51, np.uint8)])
WITHOUT_GREEN = np.array([[255, 0, 255], [255, 255, 255]], np.uint8)  # the second pixel is transparent
TWELVE = bytes.fromhex("0000010FF0 100800FFF0")  # two rows: 0 1 255, 256 2048 4095
DEEP_RGB = np.dstack([SHORT, SHORT[::-1], SHORT[:, ::-1]])
DEEP_PNG = b"".join(b"\0" + row.astype(">u2").tobytes() for row in DEEP_RGB)
SHOWN = np.where((DEEP_RGB == DEEP_RGB[1, 1]).all(-1), 0, 255)

MODES = {
    "L png": (png(GREY), expected(GREY)),
    "L png, a transparent grey": (png(GREY, transparency=1), on_white(GREY, WITHOUT_GREEN)),
    "P png": (encode(palette(), "PNG"), expected(RGB)),
    "P png, alpha for every colour": (encode(palette(), "PNG", transparency=ALPHA.tobytes()), on_white(RGB, ALPHA)),
    "P gif, a transparent colour": (encode(palette(), "GIF", transparency=1), on_white(RGB, WITHOUT_GREEN)),
    "RGB png, a transparent colour": (png(transparency=(0, 255, 0)), on_white(RGB, WITHOUT_GREEN)),
    "RGB webp": (encode(Image.fromarray(RGB), "WEBP", lossless=True), expected(RGB)),
    "RGBA png": (png(np.dstack([RGB, ALPHA])), on_white(RGB, ALPHA)),
    "CMYK tiff": (encode(image_of("CMYK", CMYK), "TIFF"), expected((255.0 - RGB) * (1 - 51 / 255))),
    "16-bit png": (png(SHORT), expected(SHORT, 65535)),
    "16-bit png, a transparent grey": (png(SHORT, transparency=1), on_white(SHORT, WITHOUT_GREEN, 65535)),
    "16-bit RGB png, a transparent colour": (
        png_of(2, 3, 16, DEEP_PNG, chunk(b"tRNS", DEEP_RGB[1, 1].astype(">u2").tobytes())),
        on_white(DEEP_RGB >> 8, SHOWN),
    ),
    "16-bit tiff, white is 0": (tiff(SHORT.tobytes(), 16, white_is_zero=True), expected(65535.0 - SHORT, 65535)),
    "16-bit tiff, signed": (tiff((SHORT // 2).tobytes(), 16, signed=True), expected(SHORT // 2, 32767)),
    "12-bit tiff": (tiff(TWELVE, 12), expected([[0, 1, 255], [256, 2048, 4095]], 4095)),
    "16-bit tiff, swapped": (encode(image_of("I;16B", SHORT.astype(">u2")), "TIFF"), expected(SHORT, 65535)),
    "32-bit tiff, signed": (tiff(SHORT.astype(np.int32).tobytes(), 32, signed=True), expected(SHORT, 65535)),
    "F tiff": (encode(Image.fromarray(UNIT), "TIFF"), expected(UNIT, 1)),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes_of_files(mode):
    content, wanted = MODES[mode]
    # One step of 8 bits where Pillow itself rounds.
    close(load_image(content, (2, 3)), wanted, atol=1.01 / 255 if mode.startswith("CMYK") else 1e-6)
    image = Image.open(io.BytesIO(content))
    close(load_image(image, (2, 3)).mul_(2), 2 * load_image(content, (2, 3)))
    assert (image.mode, image.size) == (Image.open(io.BytesIO(content)).mode, (3, 2))
    assert image.tobytes() == Image.open(io.BytesIO(content)).tobytes()


@pytest.mark.parametrize(
    ("mode", "ink", "wanted"),
    [
        ("HSV", (0, 255, 255), (1, 0, 0)),
        ("LAB", 0, (0, 59 / 255, 195 / 255)),  # as greenish and bluish as it gets; its spare byte is 0
        ("I", 65535, (1, 1, 1)),
    ],
)
def test_modes_of_pillow_images(mode, ink, wanted):
    image = load_image(Image.new(mode, (3, 2), ink), (2, 3))
    close(image, torch.tensor(wanted).float()[:, None, None].expand(3, 2, 3))


@pytest.mark.parametrize(
    ("mode", "ink", "wanted"),
    [("RGB", (200, 100, 50), (0.784, 0.392, 0.196)), ("CMYK", (255, 0, 0, 128), (0, 0.498, 0.498))],
)
@pytest.mark.parametrize("exif", [b"", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_jpeg_also_with_broken_exif(mode, ink, wanted, exif):
    content = encode(Image.new(mode, (16, 16), ink), "JPEG", quality=95, exif=exif)
    close(load_image(content, 16), torch.tensor(wanted).float()[:, None, None].expand(3, 16, 16), atol=0.015)


@pytest.mark.parametrize(
    ("orientation", "stored"), [(2, lambda upright: upright[:, ::-1]), (6, np.rot90), (8, lambda a: np.rot90(a, -1))]
)
@pytest.mark.parametrize(("upright", "top"), [(RGB, 255), (SHORT, 65535)], ids=["RGB", "16 bits"])
def test_exif_orientation_is_undone_and_stays_in_the_source(orientation, stored, upright, top):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.open(io.BytesIO(png(stored(upright).copy(), exif=exif)))
    close(load_image(image, (2, 3)), expected(upright, top))
    assert image.getexif()[0x0112] == orientation


def test_animations_give_their_first_frame_and_pillow_images_the_chosen_one():
    red, green = (np.full((4, 6, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 255, 0)))
    content = encode(Image.fromarray(red), "GIF", save_all=True, append_images=[Image.fromarray(green)])
    close(load_image(content, (4, 6)), expected(red))
    image = Image.open(io.BytesIO(content))
    image.seek(1)
    close(load_image(image, (4, 6)), expected(green))
    assert image.tell() == 1


# --- crop and resize ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "size", "rows", "cols"),
    [
        (3, 5, 3, slice(0, 3), slice(1, 4)),
        (5, 3, 3, slice(1, 4), slice(0, 3)),
        (3, 6, 3, slice(0, 3), slice(1, 4)),  # an odd rest: the smaller half is cut off first
        (6, 4, [3, 4], slice(1, 4), slice(0, 4)),
        (6, 8, (6, 4), slice(0, 6), slice(2, 6)),
        (1, 20, (1, 20), slice(0, 1), slice(0, 20)),
    ],
)
def test_the_crop_is_about_the_centre_and_keeps_the_values(height, width, size, rows, cols):
    array = (numbered_image(height, width)[0] / (height * width)).numpy()
    assert torch.equal(load_image(array, size), torch.from_numpy(array[rows, cols]).expand(3, -1, -1))


@pytest.mark.parametrize(("size", "cols"), [((20, 30), np.s_[:]), ((12, 12), np.s_[10:50]), ((90, 60), np.s_[16:43])])
def test_the_resize_is_smoothed_bicubic_and_its_overshoot_cut(size, cols):
    """torch's own bicubic with antialias is the reference; both use the same kernel (a = -0.5)."""
    array = np.random.default_rng(0).random((40, 60, 3), np.float32).round()
    wanted = F.interpolate(expected(array[:, cols], 1)[None], size, mode="bicubic", antialias=True)
    close(load_image(array, size), wanted[0].clamp(0, 1), atol=1e-5)
    assert load_image(array, 12).shape == (3, 12, 12)


def test_transparency_is_removed_before_the_resize():
    """A red that nobody sees must not bleed: transparent red beside opaque white is white everywhere."""
    array = np.full((8, 8, 4), 255, np.uint8)
    array[:, ::2] = (255, 0, 0, 0)
    close(load_image(array, 5), torch.ones(3, 5, 5))


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "source", "message"),
    [
        (ValueError, b"", r"the bytes cannot be decoded \(Pillow knows no such format\); .* PNG"),
        (ValueError, io.BytesIO(b"no picture"), "the BytesIO cannot be decoded"),
        (ValueError, png_of(30_000, 30_000, 8, b""), "bytes .* 80,000,000 pixels"),
        (ValueError, png_of(9_000, 9_500, 8, b""), "bytes .* 80,000,000 pixels"),
        (ValueError, png_of(9, 9, 8, bytes(100)), "truncated"),
        (ValueError, np.zeros((1, 1, 3)), "^a picture of 1 x 1 pixel .*; give a larger one$"),
        (ValueError, Image.new("L", (20_000, 10)), "10 x 20000 pixels .* 224 x 224 .* 0.05%"),
        (ValueError, Image.new("RGB", (0, 0)), r"shape \(0, 0, 4\)"),
        *[
            (ValueError, np.zeros(shape), rf"^the shape \({', '.join(map(str, shape))}.*\(height width\)")
            for shape in [(3,), (1, 4, 4, 3), (3, 8, 9), (0, 4), (4, 4, 0), ()]
        ],
        (ValueError, torch.zeros(1, 3, 4, 4), r"shape \(1, 3, 4, 4\) .* torch"),
        (ValueError, torch.zeros(8, 9, 3), r"shape \(8, 9, 3\)"),
        (ValueError, np.array([[0.5, np.nan, np.inf]]), "floats from nan to nan"),
        (ValueError, np.array([[0.0, 255.0]]), r"floats from 0 to 255; .* \[0, 1\]"),
        (ValueError, np.array([[-0.0012, 0.5]]), "floats from -0.0012 to 0.5"),
        (ValueError, np.array([[0.5, 1.0012]]), "floats from 0.5 to 1.001"),
        (ValueError, Image.fromarray(np.array([[0, 2]], np.float32)), "floats from 0 to 2"),
        (FileNotFoundError, "folder/none.png", r"none\.png"),
        (TypeError, None, "the NoneType is no picture; .*'rb'"),
        (TypeError, [[0, 1], [1, 0]], "the list is no picture"),
        (TypeError, io.StringIO("a file opened without b"), "the StringIO is no picture"),
        *[
            (TypeError, np.zeros((2, 2), kind), f"type {np.dtype(kind)}")
            for kind in (np.int64, np.int8, np.uint32, complex, "U1", object)
        ],
        (TypeError, torch.zeros(3, 2, 2, dtype=torch.int64), "type int64"),
        (TypeError, Image.fromarray(np.array([[0, 65_536]], np.int32)), "type int32"),
        (TypeError, tiff(np.arange(-1, 5, dtype=np.int16).tobytes(), 16, signed=True), "type int32"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else getattr(value, "__name__", type(value).__name__),
)
def test_no_picture(error, source, message):
    before = list(warnings.filters)
    with pytest.raises(error, match=message) as caught:
        load_image(source)
    assert " object at 0x" not in str(caught.value)
    assert warnings.filters == before
    assert not getattr(source, "closed", False)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP"])
@pytest.mark.parametrize("part", [0, 0.1, 0.9])
def test_a_truncated_file_is_refused_by_its_name(tmp_path, form, part):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    content, path = encode(noise, form), tmp_path / "half.bin"
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match=r"half\.bin cannot be decoded \(.*\)"):
        load_image(path)


@pytest.mark.parametrize("width", [100, 101])
def test_the_limit_is_checked_before_a_pixel_is_unpacked(monkeypatch, width):
    monkeypatch.setattr(data, "MAX_PIXELS", 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # some notebooks switch Pillow's own guard off
    content = encode(Image.new("L", (width, 1)), "PNG")
    if width == 100:
        assert load_image(content, (1, 100)).shape == (3, 1, 100)
        return
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("pixels were unpacked"))
    for source in (content, Image.open(io.BytesIO(content))):
        with pytest.raises(ValueError, match="more than 100 pixels"):
            load_image(source, 10)


@pytest.mark.parametrize("shape", [(10, 200), (200, 10)])
def test_the_crop_keeps_at_least_a_twentieth(shape):
    assert load_image(np.zeros(shape), 4).shape == (3, 4, 4)
    with pytest.raises(ValueError, match=r"4\.98%"):
        load_image(np.zeros((shape[0] + (shape[0] == 200), shape[1] + (shape[1] == 200))), 4)


@pytest.mark.parametrize(
    ("error", "size"),
    [
        *[(ValueError, size) for size in [0, -1, (224, 0), (-3, 224), (10, 11)]],
        *[(TypeError, size) for size in [2.5, "224", True, None, (), (1, 2, 3), (224, 2.5), (224, True)]],
    ],
)
def test_a_size_that_cannot_be_is_refused_before_anything_is_read(monkeypatch, error, size):
    monkeypatch.setattr(data, "MAX_PIXELS", 100)
    assert load_image(RGB, (10, 10)).shape == (3, 10, 10)
    told = rf"{str(size).strip('()')}.* 1 pixel, .* 100$" if error is ValueError else r"\(height, width\)$"
    with pytest.raises(error, match=rf"^size is .*{told}"):
        load_image("no file", size)


# --- the numbered image ------------------------------------------------------------------------------------------


def test_numbered_image_counts_in_reading_order_one_channel_after_another():
    assert numbered_image().tolist() == [[list(range(6 * row, 6 * row + 6)) for row in range(4)]]
    image = numbered_image(1, 3, channels=2)
    assert image.dtype == torch.float32
    assert image.tolist() == [[[0, 1, 2]], [[3, 4, 5]]]
    for height, width, channels in [(0, 6, 1), (4, -1, 1), (4, 6, 0)]:
        with pytest.raises(ValueError, match=f"{channels} x {height} x {width}"):
            numbered_image(height, width, channels)
