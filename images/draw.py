"""The README's pictures, the site's card, and the pictures of its page on what one should know before.

They show what the package computes here and now. `python images/draw.py` writes them where they belong; with a name,
`living.gif` for instance, only that one. It needs tests/requirements.txt and a chromium.
"""

import io
import sys
from dataclasses import replace
from pathlib import Path
from shutil import which

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import sync_playwright

from vit_walkthrough import VisionTransformer, ViTConfig, record
from vit_walkthrough import draw as plots
from vit_walkthrough.data import ClutteredDigits, numbered_image, photo
from vit_walkthrough.draw import layout
from vit_walkthrough.draw import schematics as parts
from vit_walkthrough.draw.images import tiled
from vit_walkthrough.draw.layout import Part, arrow, box, column, columns, head, picture, row, shape, sign, strip, words
from vit_walkthrough.draw.theme import ROLES, render, style
from vit_walkthrough.living import live
from vit_walkthrough.weights import load_tiny

# Where the pointer goes, in patches (x, y): down the strokes of the "2", then over a fragment into the background.
PATH = np.array([(3.1, 2.4), (3.7, 2.7), (3.8, 3.5), (3.3, 4.3), (3.3, 5.3), (4.8, 5.4), (5.6, 4.5), (0.6, 2.6)])
POINTER = """<svg id="pointer" width="22" height="28" viewBox="0 0 22 28" style="position: fixed; pointer-events: none">
<path d="M2 1v20l5-5 4 9 4-2-4-8h7z" fill="#fff" stroke="#000" stroke-width="1.5"/></svg>"""


def point_at_patches() -> bytes:
    """A GIF that loops: in a browser, a pointer goes over the "2", and the living picture of attention answers."""
    image = ClutteredDigits("test").sample(8, draw=0)[0][:1]
    model = load_tiny(patch_size=8, heads=4).requires_grad_(False)
    with record(model) as trace:
        model(image)
    page_of = f"<!doctype html><meta charset=utf-8>{live('attention', trace, image[0], blocks=[2]).html}{POINTER}"
    steps = np.linspace(0, len(PATH) - 1, 40)
    places = np.stack([np.interp(steps, np.arange(len(PATH)), axis) for axis in PATH.T], axis=1)
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 860, "height": 520})
        page.set_content(page_of)
        page.locator(".vit-alive").wait_for()
        box = page.locator("canvas.vit-points").bounding_box()
        shots = []
        for place in places:
            x, y = np.array([box["x"], box["y"]]) + place * box["width"] / 6
            page.evaluate("([x, y]) => Object.assign(pointer.style, {left: `${x - 2}px`, top: `${y - 1}px`})", [x, y])
            page.mouse.move(x, y)
            page.evaluate("() => new Promise(requestAnimationFrame)")
            shots.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        browser.close()
    # One palette for all frames, so that nothing flickers.
    sample = Image.fromarray(np.concatenate(shots[::8]))
    palette = sample.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
    frames = [shot.quantize(palette=palette, dither=Image.Dither.NONE) for shot in shots]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=160, loop=0)
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


def followed(look: parts.Look) -> list[int | None]:
    """The class token, the first two patches, the one at the cat's eye, and the last."""
    config = look.config
    look.patch = int(0.48 * config.rows) * config.cols + int(0.76 * config.cols) + 1
    return parts.spaced({0, 1, 2, look.patch, config.tokens - 1})


def apart(look: parts.Look, room: float) -> Part:
    """The patches pulled apart, in their places."""
    pitch = max(4, 560 // max(look.config.rows, look.config.cols))
    kept = max(2, round(0.88 * pitch))
    pick = np.arange(kept) * look.config.patch_size // kept
    patches = np.stack([look.tile(patch)[pick][:, pick] for patch in range(look.config.patches)])
    canvas, _ = tiled(patches, look.config.cols, pitch - kept)
    height, width = room * np.array(canvas.shape[:2]) / max(canvas.shape[:2])
    return picture(canvas, width, height, line=0)


def bars(look: parts.Look, width: float, height: float) -> Part:
    """The probabilities of the first classes, the likeliest and the last; the likeliest is filled."""
    numbers = look.trace["head"][0].softmax(dim=0).numpy()
    best = int(numbers.argmax())
    classes = sorted({*range(min(len(numbers), 9)), best, len(numbers) - 1})
    pitch = width / len(classes)

    def paint(sheet, x, y):
        for place, index in enumerate(classes):
            tall = max(height * numbers[index] / numbers[best], 0.012)
            fill = ROLES["class"] if index == best else layout.pale("class", 0.35)
            middle = x - width / 2 + (place + 0.5) * pitch, y - height / 2 + tall / 2
            sheet.rectangle(*middle, 0.8 * pitch, tall, fill, ROLES["class"], 0.8)
        sheet.line((x - width / 2, y - height / 2), (x + width / 2, y - height / 2), width=1)

    name = words(f"class {best}: {numbers[best]:.1%}")
    return column(name, Part(width, height, paint), words(f"{len(classes)} of {len(numbers):,} classes"), down=0.05)


def stack(*lists: list) -> Part:
    """Lists of what belongs to the tokens, side by side, one token a row."""
    return columns(*lists, across=0.1, down=0, high=0.44)


def pile(part: Part) -> Part:
    """The uppermost of three copies."""

    def paint(sheet, x, y):
        look = dict(fill="white", edge=ROLES["neutral"], level=layout.BAND, radius=0.08)
        for shift in (0.14, 0.07):
            sheet.rectangle(x + shift, y + shift, part.width, part.height, **look)
        sheet.put(part, x, y)

    return Part(part.width, part.height, paint)


@style()
def draw_vit(config: ViTConfig):
    """The whole model on one page, from the cat on the left to the answer on the right, in seven steps; with random
    weights so large that every strip shows something."""
    torch.manual_seed(0)
    model = VisionTransformer(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            bound = (3 / (parameter.shape[1] if parameter.ndim == 2 else 3)) ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.uniform_(-bound, bound)
    look = parts.Look(config, photo("cat", (config.height, config.width)), model)
    slots, size = followed(look), shape(config, "tokens dim")

    def step(number: int, text: str) -> Part:
        disc = words(str(number), 9.5, bold=True, colour="white")
        disc = box(disc, width=0.25, height=0.25, fill=ROLES["neutral"], line=0, radius=0.125)
        return replace(row(disc, head(text), across=0.08), align=0)

    def one(number: int, text: str) -> Part:
        return replace(column(step(number, text), Part(0, 0.25)), align=0)

    before, added = look["class_token"], look["position_embedding"] - look["class_token"]
    scaled = dict(width=0.95, cells=8, scale=parts.scale_of(slots, before, added, cells=8))
    tokens, places = (
        parts.strips(before, slots, **scaled),
        parts.strips(added, slots, role="position", **scaled),
    )
    plus = [token if token is None else sign("+", 12) for token in slots]
    embedded = stack(parts.faces(look, slots, 0.3), tokens)
    cut = column(parts.scene(look, 1.7), arrow(0.3, up=-1), apart(look, 1.7))

    seen = parts.scene(look, 0.48, look.seen(look["blocks.0.attention.weights"][0, look.patch]))
    attention = column(head("attention"), seen, words(f"{config.heads} heads"), down=0.03)
    attention = box(attention, "query", 1.1, pad=0.05)
    mlp = box(column(head("MLP"), words(f"{config.hidden:,} wide"), down=0), "value", 1.1)
    norms, joins = (
        [box("LayerNorm", width=1.1, height=0.26) for _ in range(2)],
        [parts.plus(0.1), parts.plus(0.1)],
    )
    stream, gap = [None, joins[1], None, None, joins[0], None, None], Part(0, 0.2)
    beside = [gap, None, mlp, column(norms[1], gap), None, attention, column(norms[0], gap)]
    inside = columns(stream, beside, across=0.2, down=0.1)
    blocks = pile(box(inside, fill=layout.pale("neutral", 0.05), level=layout.BAND))
    features = strip(look["norm"][0], "class", 1.3, cells=8)
    fixed = [features, shape(config, "dim"), box("head", width=1.3), step(7, "classify"), bars(look, 1.3, 1.0)]
    down = arrow((blocks.height - sum(part.height for part in fixed) - 0.48) / 2, up=-1)  # as high as the blocks
    answer = column(*fixed[:2], down, fixed[2], down, *fixed[3:])
    body = columns(
        [one(1, "cut"), cut, shape(config, "channels height width")],
        [None, arrow(0.3), None],
        [column(step(2, "embed patches"), step(3, "put ★ first")), embedded, size],
        [one(4, "add positions"), stack(plus, places), size],
        [None, Part(0.1, 0), None],
        [one(5, f"{config.depth} encoder blocks"), blocks, size],
        [one(6, "norm, take ★"), answer, shape(config, "classes")],
    )
    how = (
        f"{config.patches:,} patches become {config.tokens:,} tokens, which look at one another {config.depth} times; "
    )
    how += "the class token ★ answers."
    note = "Real numbers of random weights, which mean nothing yet."
    sheet = layout.page("The Vision Transformer on one page", how, body, note)
    leave, turn, entry, x = places[0].right + 0.15, blocks.left - 0.12, blocks.bottom + 0.15, joins[0].x
    ends = [(leave - 0.07, places[0].top), (leave, places[0].top), (leave, places[-1].bottom)]
    sheet.line(*ends, (leave - 0.07, places[-1].bottom), width=1.1)
    sheet.line((leave, blocks.y), (turn, blocks.y), (turn, entry), (x, entry), (x, features.y))
    sheet.arrow((x, features.y), (features.left - 0.06, features.y))
    for fork, norm, work, join in zip((entry, joins[0].top), norms, (attention, mlp), joins, strict=True):
        parts.branch(sheet, (fork + norm.bottom) / 2, norm, work, join)
    return sheet.done()


IMAGES = {
    "images/vit.png": lambda: render(draw_vit(ViTConfig.named("B/16")), colours=256),
    "images/living.gif": point_at_patches,
    **{
        f"site/_static/before_{made.__name__[1:]}.png": lambda made=made: render(made(), colours=256)
        for made in (_tensor, _gradient, _variance, _loss)
    },
}


if __name__ == "__main__":
    for name, made in IMAGES.items():
        if not sys.argv[1:] or Path(name).name in sys.argv[1:]:
            (Path(__file__).parents[1] / name).write_bytes(made())
