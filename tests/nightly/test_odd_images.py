"""10,000 broken or odd picture files: each gives a picture in [0, 1] or a clear error, soon and in little memory."""

import io
import random
import resource
import struct
import time
import traceback
import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image, features

from vit_walkthrough import data
from vit_walkthrough.data import load_image

MODES = "1 L P RGB RGBA CMYK YCbCr HSV I F LA PA La RGBa I;16".split()
FORMATS = "PNG JPEG GIF BMP TIFF PPM TGA PCX ICO SGI DDS JPEG2000 IM MSP WEBP".split()


def drawn(dice: random.Random) -> Image.Image:
    width, height = dice.choice([(1, 1), (1, 9), (40, 2)] + 9 * [(dice.randint(2, 40), dice.randint(2, 40))])
    noise = np.random.default_rng(dice.getrandbits(32)).integers(0, 256, (height, width, 4), dtype=np.uint8)
    picture, mode = Image.fromarray(noise, "RGBA"), dice.choice(MODES)
    if mode == "F":
        return Image.fromarray(noise[..., 0].astype(np.float32) / dice.choice([255, 1, 0.5]))
    if mode in ("I;16", "I"):
        numbers = noise[..., :2].copy().view(np.uint16)[..., 0]
        return Image.fromarray(numbers.astype(np.int32) if mode == "I" else numbers)
    for between in ("RGBA", "RGB", "L", "LA"):  # not every mode can be reached from every other
        with suppress(ValueError):
            return picture.convert(between).convert(mode)
    return picture


def saved(picture: Image.Image, dice: random.Random) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = dice.randint(0, 12)  # the orientation; only 1 to 8 mean one
    exif[0x010E] = "x" * dice.randint(0, 50)
    for kind in dice.sample(FORMATS, len(FORMATS)):
        buffer, options = io.BytesIO(), {"exif": exif} if dice.random() < 0.5 else {}
        if kind in ("PNG", "GIF") and dice.random() < 0.2:
            options["transparency"] = 0
        if kind in ("PNG", "GIF", "TIFF", "WEBP") and dice.random() < 0.1:
            options |= {"save_all": True, "append_images": [picture, picture]}
        with suppress(Exception):  # Pillow raises many kinds for a mode that a format does not know
            picture.save(buffer, kind, **options)
            return buffer.getvalue()
    return b""


def broken(file: bytes, other: bytes, dice: random.Random) -> bytes:
    """The file as it is, cut, with other bytes, with another file's beginning, or with another size."""
    content, damage = bytearray(file), dice.choice(("none", "cut", "bytes", "start", "size"))
    if damage == "cut":
        del content[dice.randrange(len(content) + 1) :]
    elif damage == "bytes":
        for place in dice.choices(range(len(content)), k=dice.randint(1, 20)) if content else []:
            content[place] = dice.randrange(256)
    elif damage == "start":
        content[: dice.randint(1, 40)] = other[: dice.randint(1, 40)]
    elif damage == "size":
        place, number = dice.randrange(max(1, min(64, len(content)))), dice.choice([0, 1, 65535, 2**31, 2**32 - 1])
        content[place : place + 4] = struct.pack(dice.choice("<>") + "I", number)
    return bytes(content)


@pytest.mark.parametrize("part", range(20))
def test_a_picture_or_a_clear_error(part):
    features.check("webp")
    read, said_by = 0, set()
    for seed in range(500 * part, 500 * part + 500):
        dice = random.Random(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, while the file is made
            file = broken(saved(drawn(dice), dice), saved(drawn(dice), dice), dice)
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            image = load_image(file, 32)
            read += 1
            assert (image.shape, image.dtype) == ((3, 32, 32), torch.float32), seed
            assert 0 <= image.min() <= image.max() <= 1, seed
        except (ValueError, TypeError) as error:
            said_by.add(traceback.extract_tb(error.__traceback__)[-1].filename)
        assert time.process_time() - start < 2, seed
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 2**30, seed
    assert said_by == {data.__file__}  # load_image itself, and not whatever it called
    assert 50 < read < 450  # the generator makes files of both kinds
