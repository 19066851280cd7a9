"""The README's pictures beside the schematics: maps of attention with their measured scores, and a thumbnail for each
notebook.

What they show is computed here and now by the package: nothing is stored but the pictures.
`python -m vit_walkthrough.diagrams` writes them with the rest.
"""

from functools import cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle

from vit_walkthrough.config import ViTConfig
from vit_walkthrough.data import ClutteredDigits, photo
from vit_walkthrough.drawing import GREY, INK, NOTE, QUIET, WORDS, Number, Page, pale
from vit_walkthrough.explain import mass_on_object, position_similarity, relevance, rollout
from vit_walkthrough.plots import ROLES, blend, render
from vit_walkthrough.pretrained import bundled, load_checkpoint, load_tiny
from vit_walkthrough.specimen import Specimen
from vit_walkthrough.trace import record
from vit_walkthrough.training import fit, fresh

# The gallery.

MEASURED = 100  # images, over which the means go
SHOWN = 6  # the first so many of them, and the first that the model gets wrong


def _looked(model, images):
    """(layers, batch, heads, queries, keys): all attention weights, and (batch, classes): the logits."""
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
    untrained, _ = _looked(fresh(model.config, ClutteredDigits("train")).eval(), images)
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


MAPS = {
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

    for row, (name, words) in enumerate(MAPS.items(), start=1):
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


# The thumbnails. Shown at half the size: lines are thick, things few, and nothing is written.

SIZE = 240, 180  # pixels
RIGHT, TOP = SIZE[0] / 90, SIZE[1] / 90  # inches
CENTRE, MIDDLE, EDGE = RIGHT / 2, TOP / 2, 0.14
BOLD = 2.6  # the width of a line
CAT = ViTConfig((168, 224), 56, dim=64, depth=4, heads=4, hidden=128, classes=7)  # 3 rows of 4 patches


@cache
def _cat() -> Specimen:
    return Specimen(CAT)


@cache
def _digits():
    """(images, labels, masks) of unseen digits, those of the gallery."""
    return ClutteredDigits("test").sample(MEASURED, draw=0)


def _star(page: Page, x: Number, y: Number, side: Number) -> None:
    """The class token, without a letter."""
    page.box(x, y, side, side, role="class", line=BOLD, radius=0.07)
    turn = np.pi / 2 + np.arange(10) * np.pi / 5
    far = side * np.where(np.arange(10) % 2, 0.13, 0.33)
    points = list(zip(x + far * np.cos(turn), y - 0.02 * side + far * np.sin(turn), strict=True))
    page.polygon(points, "class", ROLES["class"], 0.5)


def _tile(page: Page, pixels, x: Number, y: Number, width: Number, role: str = "patch", line: Number = BOLD) -> None:
    """A picture about (x, y), framed in its role's colour."""
    height = width * len(pixels) / len(pixels[0])
    page.image(pixels, x - width / 2, y - height / 2, width, height, ROLES[role], line)


def _cells(page: Page, row, left: Number, y: Number, width: Number, height: Number, role: str) -> None:
    """A vector as a strip of thick cells, nothing of it left out."""
    row = np.asarray(row)
    page.image(row[None], left, y - height / 2, width, height, ROLES[role], BOLD, cmap="PuOr",
               vmin=-np.abs(row).max(), vmax=np.abs(row).max(), interpolation="nearest")  # fmt: skip
    page.grid(left, y - height / 2, width, height, 1, len(row), 1.2)


def _arrow(page: Page, *points, colour: str = GREY) -> None:
    page.arrow(*points, colour=colour, width=BOLD, head=0.17)


def _bars(page: Page, values, left: Number, bottom: Number, width: Number, height: Number) -> None:
    page.bars(values, left, bottom, width, height, "class", int(np.argmax(values)))
    page.line((left, bottom), (left + width, bottom), width=1.8)


def _start(page: Page) -> None:
    """The cat goes in, probabilities come out."""
    values = _cat()
    width = 1.4
    left, bottom, _, height = page.picture(values.picture, EDGE + width / 2, MIDDLE, width, CAT.rows, CAT.cols)
    page.frame(left, bottom, width, height, ROLES["patch"], BOLD)
    _arrow(page, (left + width + 0.08, MIDDLE), (left + width + 0.32, MIDDLE))
    _bars(page, values.probabilities, left + width + 0.4, bottom, RIGHT - EDGE - left - width - 0.4, height)


def _apart(page: Page) -> None:
    """The patches pulled apart."""
    across, up, side = (RIGHT - 2 * EDGE) / CAT.cols, (TOP - 2 * EDGE) / CAT.rows, 0.5
    for patch in range(CAT.patches):
        row, col = divmod(patch, CAT.cols)
        _tile(page, _cat().tile(patch), EDGE + (col + 0.5) * across, TOP - EDGE - (row + 0.5) * up, side, line=1.8)


def _tokens(page: Page) -> None:
    """Patches and their tokens, and the class token before them."""
    values = _cat()
    for token, y in zip((0, 6, 7), (MIDDLE + 0.58, MIDDLE, MIDDLE - 0.58), strict=True):
        x, role = EDGE + 0.23, "patch" if token else "class"
        if token:
            _tile(page, values.tile(token - 1), x, y, 0.46)
            _arrow(page, (x + 0.3, y), (x + 0.56, y))
        else:
            _star(page, x, y, 0.46)
        _cells(page, values.sequence[token, :6], x + 0.64, y, RIGHT - EDGE - x - 0.64, 0.36, role)


def _positions(page: Page) -> None:
    """How similar learned positions are to one another, a tile for each of some places."""
    model = load_tiny(8, 4)
    rows, cols = model.config.rows, model.config.cols
    similar = position_similarity(model.position_embedding.positions).numpy().reshape(rows, cols, rows, cols)
    across, up, side = (RIGHT - 2 * EDGE) / 4, (TOP - 2 * EDGE) / 3, 0.51
    for row, place in enumerate((0, 2, 5)):
        for col, other in enumerate((0, 2, 3, 5)):
            x, y = EDGE + (col + 0.5) * across, TOP - EDGE - (row + 0.5) * up
            page.image(similar[place, other], x - side / 2, y - side / 2, side, side, ROLES["position"], 1.8,
                       cmap="PuOr", vmin=-1, vmax=1, interpolation="nearest")  # fmt: skip


def _looks(page: Page) -> None:
    """One patch looks at the others: the stronger, the thicker."""
    config = ViTConfig((168, 224), 28, dim=64, depth=1, heads=1, hidden=128, classes=10)
    values = Specimen(config)
    width, height = RIGHT - 2 * EDGE, (RIGHT - 2 * EDGE) * 3 / 4
    place = EDGE, MIDDLE - height / 2
    page.image(0.4 + 0.6 * values.picture, *place, width, height, None)
    looks = values.flat.reshape(config.patches, 3, -1)
    looks = (looks - looks.mean(-1, keepdims=True)).reshape(config.patches, -1)
    looks /= looks.std(-1, keepdims=True) * 6
    query = 2 * config.cols + 6
    scores = looks @ looks[query] / config.pixels**0.5
    weights = np.exp(scores - scores.max())
    weights[query] = 0

    def at(patch) -> tuple[Number, Number]:
        row, col = divmod(int(patch), config.cols)
        return place[0] + (col + 0.5) * width / config.cols, place[1] + (config.rows - row - 0.5) * height / config.rows

    strongest = np.argsort(weights)[-10:]
    share = weights[strongest] / weights.max()
    lines = [(at(query), at(key)) for key in strongest]
    page.ax.add_collection(LineCollection(lines, colors=ROLES["query"], lw=7 * share**2, zorder=5), autolim=False)
    for key, part in zip(strongest, share, strict=True):
        page.dot(*at(key), 90 * part, ROLES["key"])
    x, y = at(query)
    side = width / config.cols
    page.image(values.tile(query), x - side / 2, y - side / 2, side, side, "white", 7).set_zorder(5)
    page.frame(x - side / 2, y - side / 2, side, side, ROLES["query"], 4)


def _heads(page: Page) -> None:
    """Where the same patch of the cat looks in four heads."""
    cat = photo("cat", 48)
    attention, _ = _looked(load_tiny(8, 4), cat[None])
    gap = 0.12
    side = (TOP - 2 * EDGE - gap) / 2
    for head, weights in enumerate(attention[0, 0, :, 17, 1:].numpy()):
        row, col = divmod(head, 2)
        x, y = CENTRE + (col - 0.5) * (side + gap), MIDDLE - (row - 0.5) * (side + gap)
        _tile(page, blend(cat.numpy(), weights.reshape(6, 6)), x, y, side, "query")


def _stream(page: Page) -> None:
    """The residual stream, to which attention and MLP add."""
    y, high, wide, tall, inner = 0.46, 1.4, 0.6, 0.72, 0.42
    page.arrow((EDGE, y), (RIGHT - EDGE, y), colour=ROLES["patch"], width=5, head=0.26, behind=True)
    values = _cat()
    for fork, role in ((0.24, "query"), (1.24, "value")):
        middle, join = fork + 0.42, fork + 0.84
        page.line((fork, y), (fork, high), (middle, high), width=BOLD, behind=True)
        page.line((middle, high), (join, high), width=BOLD, behind=True)
        page.box(middle, high, wide, tall, role=role, line=BOLD)
        _arrow(page, (join, high - 0.02), (join, y + 0.18))
        page.plus(join, y, 0.15)
        left, bottom = middle - inner / 2, high - inner / 2
        if role == "query":
            page.image(values.weights(0, list(range(7)))[:, :7], left, bottom, inner, inner, None, vmax=0.25,
                       cmap="viridis", interpolation="nearest")  # fmt: skip
        else:
            x = np.linspace(-3, 3, 40, dtype=np.float32)
            bent = values.bent("GELU", x)
            curve = zip(left + inner * (x + 3) / 6, bottom + inner * (0.1 + 0.9 * bent / 3), strict=True)
            page.line(*curve, colour=INK, width=BOLD)


def _whole(page: Page) -> None:
    """The tokens go up through the stack; the class token reaches the head."""
    values = _cat()
    left, pitch, side = 0.34, 0.4, 0.3
    tokens = (0, 6, 7, 10, 11, 12)  # the eyes, the nose, and what is beside it
    places = [left + pitch * place for place in range(len(tokens))]
    low, blocks = EDGE + side / 2, (0.64, 0.84, 1.04)
    for token, x in zip(tokens, places, strict=True):
        page.line((x, low), (x, blocks[0]), colour=ROLES["patch" if token else "class"], width=2, behind=True)
        if token:
            _tile(page, values.tile(token - 1), x, low, side, line=1.8)
        else:
            _star(page, x, low, side)
    for y in blocks:
        page.box(CENTRE, y, RIGHT - 2 * EDGE, 0.17, line=1.8, radius=0.06)
    top = blocks[-1] + 0.085
    _arrow(page, (left, top), (left, top + 0.26), colour=ROLES["class"])
    _bars(page, values.probabilities, EDGE, top + 0.3, RIGHT - 2 * EDGE, TOP - EDGE - top - 0.3)


class _OneBatch:
    """Data of which there is only one batch."""

    def __init__(self, count: int):
        self.batch = tuple(part[:count] for part in _digits())

    def sample(self, count: int, draw: int | None = None):
        return self.batch


@cache
def falling_loss() -> tuple[float, ...]:
    """The losses of a very small ViT that learns sixteen digits by heart."""
    config = ViTConfig(48, 16, dim=16, depth=1, heads=1, hidden=32, classes=10)
    return tuple(fit(config, _OneBatch(16), steps=40, batch=16, learning_rate=1e-2, progress=False).history.loss)


def _training(page: Page) -> None:
    """A loss that falls, and what is learned."""
    losses = np.array(falling_loss())
    image = _digits()[0][1].permute(1, 2, 0).numpy()
    _tile(page, image, RIGHT - EDGE - 0.52, TOP - EDGE - 0.52, 1.0, "patch", 1.8)
    left, bottom = EDGE + 0.06, EDGE + 0.06
    width, height = RIGHT - EDGE - left, TOP - EDGE - bottom
    page.line((left, TOP - EDGE), (left, bottom), (RIGHT - EDGE, bottom), width=BOLD)
    x = left + 0.08 + (width - 0.12) * np.arange(len(losses)) / (len(losses) - 1)
    page.line(*zip(x, bottom + (height - 0.06) * losses / losses.max(), strict=True), colour=ROLES["class"], width=4.5)


def _lens(page: Page) -> None:
    """A digit, and under a lens its relevance."""
    images, _, masks = _digits()
    image, (rows, cols) = images[3].numpy(), masks[3].numpy().nonzero()
    weights = relevance(load_tiny(8, 4), images[3:4])[0].numpy().reshape(6, 6)
    _tile(page, image.transpose(1, 2, 0), EDGE + 0.52, MIDDLE, 1.04)
    x, y, radius, side = 1.86, MIDDLE + 0.14, 0.54, 1.75  # the lens enlarges: the whole picture would be `side` wide
    left, bottom = x - side * (cols.mean() + 0.5) / 48, y - side * (1 - (rows.mean() + 0.5) / 48)
    seen = page.image(blend(image, weights), left, bottom, side, side, None)
    seen.set_clip_path(Circle((x, y), radius, transform=page.ax.transData))
    turn, down = np.linspace(0, 2 * np.pi, 61), np.array([np.cos(0.85), -np.sin(0.85)])
    rim = np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], 1)
    handle = [(x, y) + radius * down, (x, y) + (radius + 0.4) * down]
    drawn = LineCollection([rim, handle], colors=GREY, lw=[5, 11], zorder=5, capstyle="round")
    page.ax.add_collection(drawn, autolim=False)


def _names(page: Page) -> None:
    """Tables with four kinds of names for the same numbers meet in one model."""
    model = load_tiny(8, 4)
    weight = model.blocks[0].attention.qkv.weight.detach().numpy()[:8, :8]
    side = 0.94
    target = RIGHT - EDGE - side - 0.08
    words = ((0.9, 0.6), (0.55, 0.8), (0.75, 0.95), (0.65, 0.45))  # how long they are
    for row, (role, lengths) in enumerate(zip(("patch", "position", "query", "key"), words, strict=True)):
        y = TOP - EDGE - 0.19 - row * (TOP - 2 * EDGE - 0.38) / 3
        page.box(EDGE + 0.36, y, 0.72, 0.36, role=role, line=2, radius=0.06)
        for level, length in zip((y + 0.07, y - 0.07), lengths, strict=True):
            page.line((EDGE + 0.1, level), (EDGE + 0.1 + 0.52 * length, level), colour=ROLES[role], width=3)
        aim = MIDDLE + (1.5 - row) * 0.2
        _arrow(page, (EDGE + 0.78, y), (EDGE + 0.9, y), (target - 0.3, aim), (target - 0.06, aim))
    page.box(target + side / 2, MIDDLE, side + 0.16, side + 0.16, line=BOLD, fill=pale("neutral", 0.06))
    page.matrix(weight, target + 0.04, MIDDLE - side / 2 + 0.04, side - 0.08, side - 0.08, line=1)


THUMBNAILS = (_start, _apart, _tokens, _positions, _looks, _heads, _stream, _whole, _training, _lens, _names)


def draw_thumbnail(number: int) -> Axes:
    """The idea of a notebook, 0 to 10, without a word.

    Raises: ValueError for a number that no notebook has.
    """
    if not 0 <= number < len(THUMBNAILS):
        raise ValueError(f"there is no notebook {number}; choose 0 to {len(THUMBNAILS) - 1}")
    page = Page(RIGHT, TOP)
    THUMBNAILS[number](page)
    return page.done()


IMAGES = {"gallery.png": lambda: render(draw_gallery(), tight=False)} | {
    f"thumbs/{number:02}.png": lambda number=number: render(draw_thumbnail(number), colours=256, tight=False)
    for number in range(len(THUMBNAILS))
}
