"""The README's pictures: the whole ViT, and the patches on their way into the sequence.

They show what the package computes here and now. `python -m vit_walkthrough.draw.readme` writes them into images/.
"""

import io
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from vit_walkthrough.draw import parts
from vit_walkthrough.draw.layout import INK, NEUTRAL, Number
from vit_walkthrough.draw.schematics import draw_vit
from vit_walkthrough.draw.theme import ROLES, render
from vit_walkthrough.model.config import ViTConfig

# The patches on their way into the sequence.

WIDTH, HEIGHT, ROOM = 720, 430, 250  # pixels; the last is the longer side of the image
TOP, LOW = 34, 322  # where the image and the sequence begin
SIDE, ACROSS = 28, 17  # of a patch in the sequence, and how many stand in a line
COLOURS = 240


def _eased(time: Number) -> Number:
    """From 0 to 1, slow at both ends."""
    time = min(max(time, 0.0), 1.0)
    return time * time * (3 - 2 * time)


def _between(start: tuple, end: tuple, share: Number) -> tuple[Number, ...]:
    return tuple(a + (b - a) * share for a, b in zip(start, end, strict=True))


def _place(token: int) -> tuple[int, int]:
    """Where a token is in the sequence, which is written like text."""
    line, col = divmod(token, ACROSS)
    return (WIDTH - ACROSS * SIDE) // 2 + col * SIDE, LOW + line * (SIDE + SIDE // 4)


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), size)


def _frame(config: ViTConfig, tiles: list[Image.Image], time: Number, prepended: Number) -> Image.Image:
    """time: from 0, the image, to 1, the sequence. prepended: how far the class token has come."""
    sheet, cell, inner = Image.new("RGB", (WIDTH, HEIGHT), "white"), tiles[0].width, SIDE - 3
    white, gap, moving = Image.new("RGB", (cell, cell), "white"), round(2 * _eased(time * 6)), []
    left = (WIDTH - config.cols * cell - gap * (config.cols - 1)) // 2
    for patch, tile in enumerate(tiles):
        row, col = divmod(patch, config.cols)
        start = left + col * (cell + gap), TOP + row * (cell + gap)
        share = _eased((time - 0.15 - 0.5 * patch / config.patches) / 0.35)
        sheet.paste(Image.blend(white, tile, 0.16) if share else tile, start)
        if share:
            end = _between(_place(patch), _place(patch + 1), prepended)
            moving.append((tile, round(cell + (inner - cell) * share), _between(start, end, share)))
    for tile, side, (x, y) in moving:
        sheet.paste(tile.resize((side, side), Image.Resampling.LANCZOS), (round(x), round(y)))
    pen = ImageDraw.Draw(sheet)
    title, text = f"{config.patches} patches", f"{config.patch_size} × {config.patch_size} pixels each"
    if prepended:
        x, y = _between(_place(0), (_place(0)[0], _place(0)[1] - 36), 1 - prepended)
        pen.rectangle((x, y, x + inner - 1, y + inner - 1), fill=ROLES["class"])
        pen.text((x + inner / 2, y + inner / 2), "★", "white", font=_font(inner - 4), anchor="mm")
        title, text = f"{config.tokens} tokens", "★ the class token first"
    elif time == 1:
        text = "in reading order"
    elif not time:
        title, text = "an image", f"{config.height} × {config.width} pixels"
    pen.text((16, 12), title, INK, font=_font(17, bold=True))
    pen.text((16, 38), text, NEUTRAL, font=_font(15))
    return sheet


def animate_patches() -> bytes:
    """A GIF that loops: the cat's patches leave the image, become the sequence, and the class token goes first."""
    config = ViTConfig.named("B/32")
    look, cell = parts.Look(config, None, None), ROOM // config.rows
    pixels = [Image.fromarray((255 * look.tile(patch)).astype(np.uint8)) for patch in range(config.patches)]
    tiles = [tile.resize((cell, cell), Image.Resampling.LANCZOS) for tile in pixels]
    times = [*((step / 30, 0.0) for step in range(31)), *((1.0, step / 8) for step in range(1, 9))]
    frames = [_frame(config, tiles, time, _eased(prepended)) for time, prepended in times]
    # One palette for all frames, made of the image and its faint copy alone: no flicker, small differences.
    sample = Image.new("RGB", (WIDTH, 2 * ROOM))
    for place, frame in enumerate((frames[0], frames[-1])):
        sample.paste(frame.crop((0, TOP, WIDTH, TOP + ROOM)), (0, place * ROOM))
    palette = sample.quantize(COLOURS - 4)
    kept = "".join(colour.lstrip("#") for colour in (ROLES["class"], "#FFFFFF", INK, NEUTRAL))
    palette.putpalette([*palette.getpalette()[: 3 * (COLOURS - 4)], *bytes.fromhex(kept)])
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
        (Path(__file__).parents[2] / "images" / name).write_bytes(made())
