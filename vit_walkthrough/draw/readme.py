"""The README's pictures: the whole ViT, its seven steps, the patches on their way, and maps with their measured scores.

They show what the package computes here and now. `python -m vit_walkthrough.draw.readme` writes them into images/.
"""

import io
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from matplotlib.axes import Axes
from PIL import Image, ImageDraw, ImageFont

from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.draw import parts
from vit_walkthrough.draw.layout import (
    FRAME,
    INK,
    NEUTRAL,
    NOTE,
    QUIET,
    WORDS,
    Number,
    Page,
    Part,
    box,
    column,
    grid,
    head,
    page,
    picture,
    words,
)
from vit_walkthrough.draw.plots import ROLES, blend, render
from vit_walkthrough.draw.schematics import draw_vit
from vit_walkthrough.look.explain import mass_on_object, relevance, rollout
from vit_walkthrough.look.trace import record
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.train.loop import init_model
from vit_walkthrough.weights.checkpoint import bundled, load_checkpoint

# The seven steps.


def draw_steps(config: ViTConfig, image=None, *, model=None) -> Axes:
    """The seven steps as a strip."""
    look, read = parts.Look(config, image, model, head=True), config.pooling == "class"
    before, after = look["class_token"], look["position_embedding"]
    kept = sorted({0, 1, min(2, config.patches), look.eye})
    small = dict(height=0.15, scale=parts.scale_of(kept, before, after, after - before, cells=7))
    faces = [parts.face(look, token, 0.2) for token in kept]
    embedded = parts.strips(before, kept, 0.8, cells=7, **small)
    halves = [parts.strips(before, kept, 0.45, cells=4, **small), [words("+", 9, colour=INK) for _ in kept]]
    halves.append(parts.strips(after - before, kept, 0.45, "position", cells=4, **small))
    taken = parts.strips(look["norm"], kept, 0.8, cells=7, height=0.15)
    if read:
        empty = box(Part(0, 0), "neutral", 0.8, 0.15, fill="white", edge=QUIET, line=0.8, radius=0.0)
        taken[1:] = [empty] * len(kept[1:])
    names = [words(text, NOTE, colour=INK) for text in ("MLP", "attention")]
    inside = column(box(names[0], "value", 0.66, 0.3), box(names[1], "query", 0.66, 0.3), down=0.12)
    blocks = box(inside, fill="white", copies=1 if config.depth == 1 else 3)
    none, absent, tight = config.positions == "none", [Part(0, 0)], dict(high=0.24, across=0.06)
    halves = [faces, embedded] if none else halves
    steps = (
        ("cut the image\ninto patches", parts.apart(look, 1.02, 0.12)),
        ("embed\neach patch", parts.stack(absent + faces[1:], absent + embedded[1:], **tight)),
        ("put the class\ntoken ★ first", parts.stack(faces, embedded, **tight)),
        ("add nothing:\nno positions" if none else "add\npositions", parts.stack(*halves, **tight)),
        (f"run through\n{config.depth} block{'s' * (config.depth > 1)}", blocks),
        ("take the\nclass token ★" if read else "take the\nmean", parts.stack(faces, taken, **tight)),
        ("classify\n", parts.bars(look, 1.0, 0.7)),
    )
    pictures = [part for _, part in steps]
    captions = [words(text, 9, colour=INK) for text, _ in steps]
    body = grid([[parts.chip(number) for number in range(1, 8)], pictures, captions], 0, 0.1, wide=1.4)
    sheet = Page(10, body.height + 0.2)
    sheet.put(body, 5, body.height / 2 + 0.1)
    for place in range(1, 7):
        x, y = 0.1 + 1.4 * place, pictures[0].y
        sheet.arrow((x - 0.08, y), (x + 0.1, y), head=0.1)
    return sheet.done()


# What the maps are worth.

MEASURED, SHOWN = 100, 6  # images over which the means go; the first so many are drawn, and the first wrong answer
NOTES = {
    "last block": "class token ★,\nmean of the heads",
    "rollout": "attention of all\nblocks, multiplied",
    "relevance": "attention that speaks\nfor the answer",
    "untrained": "control: the last block\nbefore any training",
    "contrast": "control, no model: how\nbright, over the median",
}


def _looked(model, images):
    """(blocks, batch, heads, queries, keys): all attention weights; and (batch, classes): the logits."""
    with record(model, "*.attention.weights") as trace:
        logits = model(images)
    return trace.attention.detach(), logits.detach()


def _contrast(images, side: int):
    """(batch, patches): how much brighter each patch is than the middle one of its image. No model is asked."""
    batch, _, height, width = images.shape
    light = images.amax(1).reshape(batch, height // side, side, width // side, side).mean((2, 4)).flatten(1)
    return (light - light.median(-1, keepdim=True).values).clamp(min=0)


def draw_gallery() -> Axes:
    """What a tiny ViT looked at in unseen digits, by three maps and two controls, under each its measured score."""
    model, scores = load_checkpoint(bundled()[8, 4])
    config, data = model.config, ClutteredDigits("test")
    images, labels, masks = data.sample(MEASURED, draw=0)
    attention, logits = _looked(model, images)
    untrained, _ = _looked(init_model(config, ClutteredDigits("train")).eval(), images)
    maps = {
        "last block": attention[-1].mean(1)[:, 0, 1:],
        "rollout": rollout(attention)[:, 0, 1:],
        "relevance": relevance(model, images),
        "untrained": untrained[-1].mean(1)[:, 0, 1:],
        "contrast": _contrast(images, config.patch_size),
    }
    said, area = logits.argmax(-1), masks.float().mean().item()
    shown = sorted({*range(SHOWN), (said != labels).nonzero()[0].item()})

    def tile(index: int, pixels, below: Part) -> Part:
        """A picture of a digit, the digit's square outlined."""
        whole = picture(pixels, 0.8, 0.8, edge="none")
        rows, cols = (np.flatnonzero(masks[index].any(axis)) for axis in (1, 0))

        def paint(sheet, x, y):
            sheet.put(whole, x, y)
            unit = 0.8 / masks.shape[1]
            middle = whole.left + (cols[0] + cols[-1] + 1) / 2 * unit, whole.top - (rows[0] + rows[-1] + 1) / 2 * unit
            for colour, line in ((INK, 2), ("white", 1)):
                sheet.rectangle(*middle, len(cols) * unit, len(rows) * unit, edge=colour, line=line)

        return column(Part(0.8, 0.8, paint), below, down=0.03)

    def answer(index: int) -> Part:
        right = said[index] == labels[index]
        return words(f"“{said[index]}”") if right else head(f"“{said[index]}”, is a {labels[index]}", WORDS)

    def bar(mean: float) -> Part:
        """A mean beside the area's share, which is what a map that knows nothing gets."""

        def paint(sheet, x, y):
            for length, fill in ((0.7, "white"), (0.7 * mean, ROLES["patch"])):
                sheet.rectangle(x - 0.35 + length / 2, y, length, 0.11, fill, line=0.6)
            tick = x - 0.35 + 0.7 * area
            sheet.line((tick, y - 0.1), (tick, y + 0.1), colour=INK, width=1.6, level=FRAME)

        return column(head(f"{mean:.0%}", 13), Part(0.9, 0.2, paint), words(f"area: {area:.0%}", NOTE), down=0.02)

    def named(name: str, text: str) -> Part:
        return replace(column(head(name, align=0), words(text, align=0), down=0.02), align=0)

    pixels = images.permute(0, 2, 3, 1).numpy()
    first = [tile(index, pixels[index], answer(index)) for index in shown]
    rows = [[named("the image", "and what the model says"), *first, words(f"mean of\n{MEASURED} digits")]]
    for name, weights in maps.items():
        mass = mass_on_object(weights, masks)
        grids = weights.reshape(-1, config.rows, config.cols)
        tiles = [tile(k, blend(images[k], grids[k]), words(f"{mass[k]:.0%}")) for k in shown]
        rows.append([named(name, NOTES[name]), *tiles, bar(mass.mean().item())])
    how = f"How much of each map lies on the digit's square? That is {area:.0%} of the picture: the number to beat."
    accuracy = f"{scores['test_accuracy']:.1%} of {scores['test_images']:,} unseen digits right"
    note = f"The model is load_tiny(8, 4), which names {accuracy}. Outlined: the digit's square."
    chosen = f"The digits are the first {SHOWN} of the {MEASURED} that were measured"
    chosen += f', ClutteredDigits("test").sample({MEASURED}, draw=0), and the first that the model gets wrong.'
    body = column(grid(rows, 0.07, 0.1), words(chosen, NOTE), down=0.2)
    title = "Where a tiny ViT looks, and what the maps are worth"
    return page(title, how, body, note, "inferno", ("0", "the map's largest")).done()


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
    "steps.png": lambda: render(draw_steps(ViTConfig.named("B/16")), colours=256),
    "patches.gif": animate_patches,
    "gallery.png": lambda: render(draw_gallery(), tight=False),
}


if __name__ == "__main__":
    for name, made in IMAGES.items():
        (Path(__file__).parents[2] / "images" / name).write_bytes(made())
