"""The README's pictures: the whole ViT, and the patches on their way into the sequence.

They show what the package computes here and now. `python images/draw.py` writes them beside this file.
"""

import io
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from vit_walkthrough.draw import parts
from vit_walkthrough.draw.layout import INK, NEUTRAL, Number
from vit_walkthrough.draw.schematics import draw_vit
from vit_walkthrough.draw.theme import ROLES, render
from vit_walkthrough.model.config import ViTConfig

WIDTH, HEIGHT, CELL, SIDE, ACROSS = 720, 430, 35, 28, 17  # pixels of a patch in the image and in the sequence; a line
CONFIG = ViTConfig.named("B/32")
TOKENS = np.arange(CONFIG.tokens)
PLACES = np.stack([122 + SIDE * (TOKENS % ACROSS), 322 + 35 * (TOKENS // ACROSS)], axis=1)  # (x, y) in the sequence
HOMES = np.stack(np.divmod(TOKENS[:-1], CONFIG.cols), axis=1)[:, ::-1]  # (col, row) in the image


def _eased(share: Number) -> np.ndarray:
    """From 0 to 1, slow at both ends."""
    share = np.clip(share, 0, 1)
    return share * share * (3 - 2 * share)


def _font(size: int, kind: str = "DejaVuSans") -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/{kind}.ttf", size)


def _frame(tiles: list[Image.Image], time: Number, prepended: Number) -> Image.Image:
    """time: from 0, the image, to 1, the sequence. prepended: how far the class token has come."""
    sheet, white = Image.new("RGB", (WIDTH, HEIGHT), "white"), Image.new("RGB", (CELL, CELL), "white")
    pitch = CELL + int(np.round(2 * _eased(6 * time)))
    starts = HOMES * pitch + ((WIDTH - CONFIG.cols * pitch) // 2, 34)
    shares = _eased((time - 0.15 - 0.5 * TOKENS[:-1] / CONFIG.patches) / 0.35)[:, None]
    ends = PLACES[:-1] + prepended * (PLACES[1:] - PLACES[:-1])
    now, sides = starts + shares * (ends - starts), np.round(CELL + (SIDE - 3 - CELL) * shares[:, 0]).astype(int)
    for tile, start, share in zip(tiles, starts, shares, strict=True):
        sheet.paste(Image.blend(white, tile, 0.16) if share else tile, tuple(start))
    for tile, place, side, share in zip(tiles, np.round(now).astype(int), sides, shares, strict=True):
        if share:
            sheet.paste(tile.resize((side, side), Image.Resampling.LANCZOS), tuple(place))
    pen = ImageDraw.Draw(sheet)
    title, text = f"{CONFIG.patches} patches", f"{CONFIG.patch_size} × {CONFIG.patch_size} pixels each"
    if prepended:
        x, y = PLACES[0] - (0, round(36 * (1 - prepended)))
        pen.rectangle((x, y, x + SIDE - 4, y + SIDE - 4), fill=ROLES["class"])
        pen.text((x + 12.5, y + 12.5), "★", "white", font=_font(21), anchor="mm")
        title, text = f"{CONFIG.tokens} tokens", "★ the class token first"
    elif time == 1:
        text = "in reading order"
    elif not time:
        title, text = "an image", f"{CONFIG.height} × {CONFIG.width} pixels"
    pen.text((16, 12), title, INK, font=_font(17, "DejaVuSans-Bold"))
    pen.text((16, 38), text, NEUTRAL, font=_font(15))
    return sheet


def animate_patches() -> bytes:
    """A GIF that loops: the cat's patches leave the image, become the sequence, and the class token goes first."""
    look = parts.Look(CONFIG, None, None)
    pixels = [Image.fromarray((255 * look.tile(patch)).astype(np.uint8)) for patch in range(CONFIG.patches)]
    tiles = [tile.resize((CELL, CELL), Image.Resampling.LANCZOS) for tile in pixels]
    times = [*((step / 30, 0.0) for step in range(31)), *((1.0, step / 8) for step in range(1, 9))]
    frames = [_frame(tiles, time, float(_eased(prepended))) for time, prepended in times]
    # One palette for all frames, so that nothing flickers: of the first and the last above each other.
    sample = Image.fromarray(np.concatenate([frames[0], frames[-1]]))
    palette = sample.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    lasting = [1200, *[60] * 29, 900, *[60] * 7, 2000]  # milliseconds
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=lasting, loop=0)
    return file.getvalue()


IMAGES = {
    "vit.png": lambda: render(draw_vit(ViTConfig.named("B/16")), colours=256),
    "patches.gif": animate_patches,
}


if __name__ == "__main__":
    for name, made in IMAGES.items():
        Path(__file__).with_name(name).write_bytes(made())
