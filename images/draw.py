"""The README's pictures, and those of the site's page on what one should know before.

They show what the package computes here and now. `python images/draw.py` writes them where they belong.
"""

import io
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from vit_walkthrough import draw as plots
from vit_walkthrough.data import numbered_image
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


def _tensor():
    return plots.plot_image(numbered_image()[0], numbers=True)


def _gradient():
    """Six steps down (w - 2)², each against the slope."""
    at, line = [-1.0], np.linspace(-1.2, 5, 100)
    for _ in range(6):
        at.append(at[-1] - 0.25 * 2 * (at[-1] - 2))
    ax = plots.plot_curves({"loss": (line, (line - 2) ** 2)}, role="patch", xlabel="weight w", ylabel="loss (w - 2)²")
    ax.plot(at, (np.array(at) - 2) ** 2, "o-", color="#AA4499", lw=1.2)
    ax.annotate("start at -1", (-1, 9), (10, -4), textcoords="offset points", color="#AA4499")
    return ax


def _variance():
    numbers = np.random.default_rng(0).normal(size=(20_000, 64))
    single, summed = numbers[:, 0], numbers.sum(axis=1)
    edges = np.linspace(-30, 30, 61)
    one, many = (np.histogram(values, edges, density=True)[0] for values in (single, summed))
    ax = plots.plot_curves({"": (edges[1:] - 0.5, one)}, role="patch", xlabel="value", ylabel="density")
    ax.plot(edges[1:] - 0.5, many, "--", color="#117733", lw=2.2)
    ax.text(2.5, 0.3, f"one number (std {single.std():.2f})", color=ROLES["patch"])
    ax.text(3, 0.07, f"the sum of 64 (std {summed.std():.2f})", color="#117733")
    return ax


def _loss():
    share = np.linspace(0.02, 1, 200)
    ax = plots.plot_curves({"": (share, -np.log(share))}, role="patch", ylabel="loss")
    ax.set_xlabel("probability of the right class")
    ax.plot([0.1], [np.log(10)], "o", color="#AA4499")
    ax.annotate("1/10: ln 10 = 2.30", (0.1, np.log(10)), (8, 4), textcoords="offset points", color="#AA4499")
    return ax


IMAGES = {
    "images/vit.png": lambda: render(draw_vit(ViTConfig.named("B/16")), colours=256),
    "images/patches.gif": animate_patches,
    **{
        f"site/_static/before_{made.__name__[1:]}.png": lambda made=made: render(made(), colours=256)
        for made in (_tensor, _gradient, _variance, _loss)
    },
}


if __name__ == "__main__":
    for name, made in IMAGES.items():
        (Path(__file__).parents[1] / name).write_bytes(made())
