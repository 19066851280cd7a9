"""data.py: every kind of picture comes out with the right values, and what is no picture is refused in words."""

import copy
import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from vit_walkthrough.data import PHOTOS, load_image, numbered_image, photo

FOLDER = Path(__file__).parents[2] / "images" / "photos"

# 2 x 3 pixels, all different, so that every swap of rows, columns or channels shows.
RGB = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [200, 150, 100], [255, 255, 255]]], np.uint8)
GREY = np.array([[0, 1, 100], [128, 254, 255]], np.uint8)
ALPHA = np.array([[255, 0, 51], [102, 255, 204]], np.uint8)
SHORT = np.array([[0, 255, 256], [511, 40_000, 65_535]], np.uint16)
WITHOUT_GREEN = np.array([[255, 0, 255], [255, 255, 255]], np.uint8)  # the second pixel is transparent


def expected(array) -> torch.Tensor:
    """(3 height width), by hand: (height width) grey or (height width 3), in 8 bits."""
    array = np.asarray(array, np.float64) / 255
    return torch.from_numpy(
        np.stack([array if array.ndim == 2 else array[..., channel] for channel in range(3)])
    ).float()


def on_white(array, alpha) -> torch.Tensor:
    opaque = torch.from_numpy(alpha / 255).float()
    return expected(array) * opaque + (1 - opaque)


def encode(image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, form, **options)
    return buffer.getvalue()


def close(actual: torch.Tensor, wanted: torch.Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(actual, wanted, atol=atol, rtol=0)


@pytest.mark.parametrize("name", PHOTOS)
def test_photo_is_the_file_of_its_name(name):
    assert torch.equal(photo(name), load_image(FOLDER / f"{name}.jpg"))
    assert photo(name, (8, 9)).shape == (3, 8, 9)
    with pytest.raises(ValueError, match=f"'{name}.jpg' .* cat, astronaut, coffee$"):
        photo(f"{name}.jpg")


def test_every_photo_is_credited_and_small():
    files = [path for path in FOLDER.iterdir() if path.suffix != ".md"]
    assert sorted(path.name for path in files) == sorted(f"{name}.jpg" for name in PHOTOS)
    assert sum(path.stat().st_size for path in files) < 700_000
    lines = (FOLDER / "CREDITS.md").read_text(encoding="utf-8").splitlines()
    for path in files:
        [row] = [line for line in lines if line.startswith(f"| `{path.name}`")]
        assert "CC0" in row or "public domain" in row


def test_numbered_image_counts_in_reading_order():
    assert numbered_image().tolist() == [[list(range(6 * row, 6 * row + 6)) for row in range(4)]]
    assert numbered_image(1, 3).tolist() == [[[0, 1, 2]]]


PALETTE = Image.frombytes("P", (3, 2), bytes(range(6)))
PALETTE.putpalette(RGB.tobytes())
PLAIN = np.full((2, 3, 3), (200, 100, 50), np.uint8)

SOURCES = {
    "L png, a transparent grey": (encode(GREY, transparency=1), on_white(GREY, WITHOUT_GREEN)),
    "P png, alpha for every colour": (encode(PALETTE, transparency=ALPHA.tobytes()), on_white(RGB, ALPHA)),
    "RGB png, a transparent colour": (encode(RGB, transparency=(0, 255, 0)), on_white(RGB, WITHOUT_GREEN)),
    "RGB jpeg, broken EXIF": (encode(PLAIN, "JPEG", quality=95, exif=b"Exif\0\0garbage"), expected(PLAIN)),
    "RGBA png": (encode(np.dstack([RGB, ALPHA])), on_white(RGB, ALPHA)),
    "16-bit png": (encode(SHORT), expected([[0, 0, 1], [1, 156, 255]])),
    "a Pillow image": (Image.fromarray(RGB), expected(RGB)),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_its_picture_and_stays_as_it_is(kind):
    source, wanted = SOURCES[kind]
    source, before = copy.deepcopy(source), source
    image = load_image(source, (2, 3))
    close(image, wanted, 0.015 if "jpeg" in kind else 0.5 / 255 if "alpha" in kind or "RGBA" in kind else 1e-6)
    assert (image.dtype, image.is_contiguous()) == (torch.float32, True)
    image.zero_()
    assert before == source


def test_a_path_or_an_open_file_is_read_from_its_start(tmp_path):
    path = tmp_path / "a picture, größer.png"
    path.write_bytes(encode(RGB))
    with path.open("rb") as file:
        file.read()
        for source in (path, str(path), file, file, memoryview(path.read_bytes())):
            close(load_image(source, (2, 3)), expected(RGB))


@pytest.mark.parametrize(("orientation", "stored"), [(2, lambda a: a[:, ::-1]), (8, lambda a: np.rot90(a, -1))])
@pytest.mark.parametrize("upright", [RGB, 257 * GREY.astype(np.uint16)], ids=["RGB", "16 bits"])
def test_exif_orientation_is_undone_and_stays_in_the_source(orientation, stored, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.open(io.BytesIO(encode(stored(upright).copy(), exif=exif)))
    close(load_image(image, (2, 3)), expected(upright if upright.ndim == 3 else GREY))
    assert image.getexif()[0x0112] == orientation


@pytest.mark.parametrize(  # of an odd rest the smaller half is cut off first
    ("sides", "size", "kept"),
    [
        ((3, 6), 3, np.s_[:, 1:4]),
        ((6, 4), [3, 4], np.s_[1:4]),
        ((6, 8), (6, 4), np.s_[:, 2:6]),
        ((9, 3), 3, np.s_[3:6]),
        ((8, 4), 4, np.s_[2:6]),
    ],
)
def test_the_crop_is_about_the_centre_and_keeps_the_values(sides, size, kept):
    array = numbered_image(*sides)[0].numpy().astype(np.uint8)
    assert torch.equal(load_image(Image.fromarray(array), size), expected(array[kept]))


@pytest.mark.parametrize(("size", "cols"), [((20, 30), np.s_[:]), ((12, 12), np.s_[10:50]), ((90, 60), np.s_[16:43])])
def test_the_resize_is_smoothed_bicubic(size, cols):
    """torch's own bicubic with antialias is the reference; both use the same kernel (a = -0.5)."""
    array = np.random.default_rng(0).integers(80, 175, (40, 60, 3), np.uint8)  # no overshoot
    wanted = F.interpolate(expected(array[:, cols])[None], size, mode="bicubic", antialias=True)
    close(load_image(Image.fromarray(array), size), wanted[0], atol=1.1 / 255)  # rounded twice


def test_transparency_is_removed_before_the_resize():  # or a red that nobody sees would bleed into the white
    array = np.full((8, 8, 4), 255, np.uint8)
    array[:, ::2] = (255, 0, 0, 0)
    close(load_image(Image.fromarray(array), 5), torch.ones(3, 5, 5))


@pytest.mark.parametrize(
    ("error", "source", "message"),
    [
        (ValueError, b"", r"the bytes cannot be decoded \(Pillow knows no such format\); .* PNG"),
        (ValueError, io.StringIO("a file opened without b"), "the StringIO cannot be decoded"),
        (ValueError, None, "the NoneType cannot be decoded"),
        (ValueError, Image.new("L", (1, 1)), "^a picture of 1 x 1 pixel .*; give a larger one$"),
        (ValueError, RGB, "the ndarray cannot be decoded .* or a Pillow image"),
        (ValueError, Image.new("F", (2, 2)), "numbers have 32 bits"),
        (ValueError, Image.fromarray(np.array([[0, 1]], np.int32)), "numbers have 32 bits"),
        (FileNotFoundError, "folder/none.png", r"none\.png"),
    ],
)
def test_no_picture(error, source, message):
    with pytest.raises(error, match=message) as caught:
        load_image(source)
    assert " object at 0x" not in str(caught.value)


@pytest.mark.parametrize(("form", "part"), [("PNG", 0), ("PNG", 0.9), ("JPEG", 0.9), ("GIF", 0.9), ("WEBP", 0.9)])
def test_a_truncated_file_is_refused_by_its_name(tmp_path, form, part):
    content = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), form)
    path = tmp_path / "half.bin"
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match=r"half\.bin cannot be decoded \(.*\)"):
        load_image(path)


def test_more_pixels_than_pillow_thinks_safe_are_refused_before_one_is_unpacked(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert load_image(encode(Image.new("L", (100, 1))), (1, 100)).shape == (3, 1, 100)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("pixels were unpacked"))
    for width in (101, 1000):  # Pillow only warns of the first
        with pytest.raises(ValueError, match=rf"bytes .*\({width} pixels\)"):
            load_image(encode(Image.new("L", (width, 1))), 10)


@pytest.mark.parametrize("size", [0, -1, (224, 0), 2.5, "224", None, (1, 2, 3), (224, 2.5)])
def test_a_size_that_cannot_be_is_refused_before_anything_is_read(size):
    with pytest.raises(ValueError, match=r"^size is .*\(height, width\)$"):
        load_image("no file", size)
