"""10,000 broken or odd picture files: each gives a picture in [0, 1] or a clear error."""

import io
import random
import struct
import traceback
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from vit_walkthrough import data
from vit_walkthrough.data import load_image

MODES = "1 L LA P RGB RGBA CMYK YCbCr HSV I F".split()
FORMATS = "PNG JPEG GIF BMP TIFF PPM TGA PCX ICO SGI DDS JPEG2000 IM MSP WEBP".split()


def saved(dice: random.Random) -> bytes:
    """A picture of a random size and mode as a file, in the first of the formats, in random order, that can hold it."""
    width, height = dice.choice([(1, 1), (1, 9), (40, 2)] + 9 * [(dice.randint(2, 40), dice.randint(2, 40))])
    noise = np.frombuffer(dice.randbytes(4 * width * height), np.uint8).reshape(height, width, 4)
    mode, exif, options = dice.choice([*MODES, "I;16"]), Image.Exif(), {}
    picture = Image.fromarray(noise.view(np.uint16)[..., 0] if mode == "I;16" else noise)
    picture = picture if mode in ("I;16", "RGBA") else picture.convert("RGB").convert(mode)
    exif[0x0112] = dice.randint(0, 12)  # the orientation; only 1 to 8 mean one
    if dice.random() < 0.2:
        options = {"transparency": 0, "save_all": True, "append_images": [picture, picture]}
    for kind in dice.sample(FORMATS, len(FORMATS)):
        buffer = io.BytesIO()
        try:
            picture.save(buffer, kind, exif=exif, **options)
        except Exception:  # Pillow raises many kinds for a mode that a format does not know
            continue
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
    read = 0
    for seed in range(500 * part, 500 * part + 500):
        dice = random.Random(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, while the file is made
            file = broken(saved(dice), saved(dice), dice)
        said = None
        try:
            image = load_image(file, 32)
        except (ValueError, TypeError) as error:
            said = error
        if said:  # by load_image itself, and not by whatever it called
            assert traceback.extract_tb(said.__traceback__)[-1].filename == data.__file__, seed
        else:
            read += 1
            assert (image.shape, image.dtype) == ((3, 32, 32), torch.float32), seed
            assert 0 <= image.min() <= image.max() <= 1, seed
    assert 50 < read < 450  # the generator makes files of both kinds
