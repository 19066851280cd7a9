"""The README's pictures, and those of the site's page on what one should know before.

They show what the package computes here and now. `python images/draw.py` writes them where they belong; with a name,
`living.gif` for instance, only that one. It needs tests/requirements.txt and a chromium.
"""

import io
import sys
from pathlib import Path
from shutil import which

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from vit_walkthrough import ViTConfig, record
from vit_walkthrough import draw as plots
from vit_walkthrough.data import ClutteredDigits, numbered_image
from vit_walkthrough.draw.schematics import draw_vit
from vit_walkthrough.draw.theme import render
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
    ax.text(2.5, 0.3, f"one number (std {single.std():.2f})", color=plots.ROLES["patch"])
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
