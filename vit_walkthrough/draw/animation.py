"""The patches on their way from the picture into the sequence, as a GIF."""

import io
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from vit_walkthrough.draw.layout import INK, NEUTRAL, Number
from vit_walkthrough.draw.plots import ROLES
from vit_walkthrough.draw.specimen import Specimen
from vit_walkthrough.model.config import ViTConfig

WIDTH, HEIGHT = 720, 430
TOP, ROOM = 34, 250  # where the picture begins, and the length of its longer side
LOW, MARGIN = 322, 20  # where the sequence begins
COLOURS = 240


def _eased(time: Number) -> Number:
    """From 0 to 1, slow at both ends."""
    time = min(max(time, 0.0), 1.0)
    return time * time * (3 - 2 * time)


def _between(start: tuple, end: tuple, share: Number) -> tuple[Number, ...]:
    return tuple(a + (b - a) * share for a, b in zip(start, end, strict=True))


class _Flight:
    """Where each patch is at a time, and what is written beside it."""

    def __init__(self, values: Specimen):
        self.config, config = values.config, values.config
        fonts = Path(get_data_path()) / "fonts" / "ttf"
        self.font = ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), 15)
        self.bold = ImageFont.truetype(str(fonts / "DejaVuSans-Bold.ttf"), 17)
        # The sequence is written like text, its tiles as large as the lines leave room for.
        sides = [side for side in range(40, 2, -1) if self._lines(side) * self._line(side) <= HEIGHT - LOW]
        self.side = sides[0] if sides else 2
        self.per_line = -(-config.tokens // self._lines(self.side))
        self.inner = max(2, self.side - 1 - self.side // 12)
        self.cell = max(2, ROOM // max(config.rows, config.cols))
        self.gap = 2 if self.cell > 8 else 1
        tiles = [Image.fromarray((255 * values.tile(patch)).astype(np.uint8)) for patch in range(config.patches)]
        self.large = [tile.resize((self.cell, self.cell), Image.Resampling.LANCZOS) for tile in tiles]
        self.small = [tile.resize((self.inner, self.inner), Image.Resampling.LANCZOS) for tile in tiles]
        white = Image.new("RGB", (self.cell, self.cell), "white")
        self.faint = [Image.blend(white, tile, 0.16) for tile in self.large]

    def _lines(self, side: int) -> int:
        return -(-self.config.tokens // ((WIDTH - 2 * MARGIN) // side))

    @staticmethod
    def _line(side: int) -> int:
        """The height of a line of the sequence."""
        return side + max(1, side // 4)

    def _place(self, token: int) -> tuple[Number, Number]:
        """Where a token is in the sequence."""
        line, col = divmod(token, self.per_line)
        return (WIDTH - self.per_line * self.side) // 2 + col * self.side, LOW + line * self._line(self.side)

    def frame(self, time: Number, prepended: Number) -> Image.Image:
        """time: from 0, the picture, to 1, the sequence. prepended: how far the class token has come."""
        config = self.config
        page = Image.new("RGB", (WIDTH, HEIGHT), "white")
        gap = round(self.gap * _eased(time * 6))
        left = (WIDTH - config.cols * self.cell - gap * (config.cols - 1)) // 2
        moving = []
        for patch in range(config.patches):
            row, col = divmod(patch, config.cols)
            start = left + col * (self.cell + gap), TOP + row * (self.cell + gap)
            share = _eased((time - 0.15 - 0.5 * patch / config.patches) / 0.35)
            page.paste(self.faint[patch] if share else self.large[patch], start)
            if share:
                end = _between(self._place(patch), self._place(patch + 1), prepended)
                moving.append((patch, share, _between(start, end, share)))
        for patch, share, (x, y) in moving:
            side = round(self.cell + (self.inner - self.cell) * share)
            tile = self.small[patch] if share == 1 else self.large[patch].resize((side, side))
            page.paste(tile, (round(x), round(y)))
        pen = ImageDraw.Draw(page)
        if prepended:
            self._class_token(pen, prepended)
        self._words(pen, time, prepended)
        return page

    def _class_token(self, pen: ImageDraw.ImageDraw, share: Number) -> None:
        x, y = self._place(0)
        y -= round((1 - share) * 36)
        pen.rectangle((x, y, x + self.inner - 1, y + self.inner - 1), fill=ROLES["class"])
        if self.inner >= 12:
            font = self.font.font_variant(size=self.inner - 4)
            pen.text((x + self.inner / 2, y + self.inner / 2), "★", "white", font=font, anchor="mm")

    def _words(self, pen: ImageDraw.ImageDraw, time: Number, prepended: Number) -> None:
        config, side = self.config, self.config.patch_size
        if prepended:
            title, words = f"{config.tokens:,} tokens", "★ the class token first"
        elif time == 1:
            title, words = f"{config.patches:,} patches", "in reading order"
        elif time:
            title, words = f"{config.patches:,} patches", f"{side} × {side} pixels each"
        else:
            title, words = "an image", f"{config.height} × {config.width} pixels"
        pen.text((16, 12), title, INK, font=self.bold)
        pen.text((16, 38), words, NEUTRAL, font=self.font)


def animate_patches(config: ViTConfig, image=None) -> bytes:
    """A GIF that loops: the patches leave the image, become the sequence, and the class token goes first.

    image: (channels, height, width) in [0, 1], by default the cat.

    Raises: ValueError for an image of another size than the config's.
    """
    flight = _Flight(Specimen(config, image))
    times = [*((step / 30, 0.0) for step in range(31)), *((1.0, step / 8) for step in range(1, 9))]
    frames = [flight.frame(time, _eased(prepended)) for time, prepended in times]
    # One palette for all frames, made of the picture and its faint copy alone: no flicker, small differences.
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
