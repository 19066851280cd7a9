"""The README's pictures: the whole ViT, its seven steps, the patches on their way, and maps with their measured scores.

What they show is computed here and now by the package: nothing is stored but the pictures.
`python -m vit_walkthrough.draw.readme` writes them into images/.
"""

from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.draw.animation import animate_patches
from vit_walkthrough.draw.layout import INK, NOTE, QUIET, WORDS, Number, Page
from vit_walkthrough.draw.plots import ROLES, blend, render
from vit_walkthrough.draw.schematics import draw_steps, draw_vit
from vit_walkthrough.look.explain import mass_on_object, relevance, rollout
from vit_walkthrough.look.trace import record
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.train.loop import init_model
from vit_walkthrough.weights.checkpoint import bundled, load_checkpoint

# The gallery.

MEASURED = 100  # images, over which the means go
SHOWN = 6  # the first so many of them, and the first that the model gets wrong


def _looked(model, images):
    """(blocks, batch, heads, queries, keys): all attention weights, and (batch, classes): the logits."""
    with record(model, "*.attention.weights") as trace:
        logits = model(images)
    return trace.attention.detach(), logits.detach()


def _contrast(images, side: int):
    """(batch, patches): how much brighter each patch is than the middle one of its image. No model is asked."""
    batch, _, height, width = images.shape
    light = images.amax(1).reshape(batch, height // side, side, width // side, side).mean((2, 4)).flatten(1)
    return (light - light.median(-1, keepdim=True).values).clamp(min=0)


@cache
def measured_maps(patch_size: int = 8, heads: int = 4) -> dict:
    """Maps (batch, patches) of unseen digits and the share of each that lies on the digit's square, for the trained
    model, the same model untrained, and for contrast, which is no model at all."""
    path = bundled()[patch_size, heads]
    model, scores = load_checkpoint(path)
    images, labels, masks = ClutteredDigits("test").sample(MEASURED, draw=0)
    attention, logits = _looked(model, images)
    untrained, _ = _looked(init_model(model.config, ClutteredDigits("train")).eval(), images)
    maps = {
        "last block": attention[-1].mean(1)[:, 0, 1:],
        "rollout": rollout(attention)[:, 0, 1:],
        "relevance": relevance(model, images),
        "untrained": untrained[-1].mean(1)[:, 0, 1:],
        "contrast": _contrast(images, patch_size),
    }
    said = logits.argmax(-1)
    wrong = (said != labels).nonzero()[0].item()
    return {
        "config": model.config,
        "scores": scores,
        "images": images.numpy(),
        "labels": labels.tolist(),
        "masks": masks.numpy(),
        "said": said.tolist(),
        "shown": sorted({*range(SHOWN), wrong}),
        "maps": {name: each.numpy() for name, each in maps.items()},
        "mass": {name: mass_on_object(each, masks).numpy() for name, each in maps.items()},
    }


NOTES = {
    "last block": "class token ★,\nmean of the heads",
    "rollout": "attention of all\nblocks, multiplied",
    "relevance": "attention that speaks\nfor the answer",
    "untrained": "control: the last block\nbefore any training",
    "contrast": "control, no model: how\nbright, over the median",
}


def draw_gallery(patch_size: int = 8, heads: int = 4) -> Axes:
    """What a tiny ViT looked at in unseen digits, by three maps and two controls, under each its measured score.

    patch_size, heads: which of the tiny ViTs that come along.
    """
    found = measured_maps(patch_size, heads)
    config, shown = found["config"], found["shown"]
    area = found["masks"].mean()
    page = Page(
        9.2, 8.75, "Where a tiny ViT looks, and what the maps are worth",
        f"How much of each map lies on the digit's square? That is {area:.0%} of the picture, "
        f"so {area:.0%} is the number to beat.",
    )  # fmt: skip
    side, pitch, left, top = 0.8, 0.86, 1.92, 7.76
    heights = [top - side - row * 1.13 - 0.16 * (row > 3) for row in range(6)]
    last = left + len(shown) * pitch + 0.12

    page.head(0.25, heights[0] + side / 2 + 0.09, "the image", ha="left")
    page.small(0.25, heights[0] + side / 2 - 0.1, "and what the model says", ha="left")
    for col, index in enumerate(shown):
        _placed(page, found, index, left + col * pitch, heights[0], side, found["images"][index].transpose(1, 2, 0))
        label, said = found["labels"][index], found["said"][index]
        x, y = left + col * pitch + side / 2, heights[0] - 0.12
        if said == label:
            page.small(x, y, f"“{said}”")
        else:
            page.text(x, y, f"“{said}”, is a {label}", WORDS, bold=True, colour=INK)
    page.text(last + 0.35, heights[0] + side / 2, f"mean of\n{len(found['labels'])} digits", WORDS)

    for row, (name, words) in enumerate(NOTES.items(), start=1):
        bottom = heights[row]
        page.head(0.25, bottom + side / 2 + 0.22, name, ha="left")
        page.text(0.25, bottom + side / 2 - 0.06, words, WORDS, ha="left")
        for col, index in enumerate(shown):
            weights = found["maps"][name][index].reshape(config.rows, config.cols)
            place = left + col * pitch
            _placed(page, found, index, place, bottom, side, blend(found["images"][index], weights))
            page.small(place + side / 2, bottom - 0.12, f"{found['mass'][name][index]:.0%}")
        _against_area(page, found["mass"][name].mean(), area, last, bottom + side / 2)
    page.text(last + 0.7 * float(area), heights[1] + side / 2 - 0.3, f"{area:.0%}", NOTE, colour=INK)
    rule = (heights[3] - 0.12 + heights[4] + side) / 2 - 0.05
    page.line((0.25, rule), (last + 0.7, rule), colour=QUIET, width=0.8)

    page.image(np.linspace(0, 1, 48)[None], 0.45, 0.43, 0.9, 0.11, cmap="inferno", line=0.6)
    page.text(0.34, 0.485, "0", NOTE, colour=INK)
    page.text(1.43, 0.485, "the map's largest", NOTE, ha="left")
    accuracy, total = found["scores"]["test_accuracy"], found["scores"]["test_images"]
    model = f"load_tiny({patch_size}, {heads}), which names {accuracy:.1%} of {total:,} unseen digits right"
    page.text(2.75, 0.485, f"The model: {model}. Outlined: the digit's square.", NOTE, ha="left")
    drawn = f'the first {SHOWN} of the {MEASURED} digits measured, ClutteredDigits("test").sample({MEASURED}, draw=0)'
    page.text(0.25, 0.22, f"Not chosen: {drawn}, and the first that the model gets wrong.", NOTE, ha="left")
    return page.done()


def _placed(page: Page, found: dict, index: int, left: Number, bottom: Number, side: Number, pixels) -> None:
    """A picture of a digit, the digit's square outlined."""
    page.image(pixels, left, bottom, side, side, frame=None)
    rows, cols = (np.flatnonzero(found["masks"][index].any(axis)) for axis in (1, 0))
    unit = side / found["masks"].shape[1]
    square = (left + cols[0] * unit, bottom + side - (rows[-1] + 1) * unit, len(cols) * unit, len(rows) * unit)
    page.frame(*square, INK, 2)
    page.frame(*square, "white", 1)


def _against_area(page: Page, mean: Number, area: Number, left: Number, y: Number) -> None:
    """A mean as a number and as a bar, beside the area's share, which is what a map that knows nothing gets."""
    width = 0.7
    page.text(left + width / 2, y + 0.13, f"{mean:.0%}", 13, bold=True, colour=INK)
    for length, fill in ((width, "white"), (width * float(mean), ROLES["patch"])):
        corners = [(left, y - 0.16), (left + length, y - 0.16), (left + length, y - 0.05), (left, y - 0.05)]
        page.polygon(corners, fill=fill, line=0.6)
    tick = left + width * float(area)
    page.line((tick, y - 0.21), (tick, y), colour=INK, width=1.6)


HERO = ViTConfig.named("B/16")
IMAGES = {
    "vit.png": lambda: render(draw_vit(HERO), colours=256),
    "steps.png": lambda: render(draw_steps(HERO), colours=256),
    "patches.gif": lambda: animate_patches(ViTConfig.named("B/32")),
    "gallery.png": lambda: render(draw_gallery(), tight=False),
}


def write(folder: Path) -> None:
    """Every picture that the README shows, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in IMAGES.items():
        (folder / name).write_bytes(made())


if __name__ == "__main__":
    write(Path(__file__).parents[2] / "images")
