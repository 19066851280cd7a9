"""Schematics with their shapes: a config in, a drawing out, right for whatever sizes were chosen.

Every function takes (config, image, model): the image stands in the boxes as its own patches, and every strip shows
numbers that the package's modules have just computed from it. All of them follow the same few tokens: the class token,
the first patches, the patch on the cat's eye, and the last.
"""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from vit_walkthrough.draw.layout import INK, NEUTRAL, NOTE, QUIET, WORDS, Number, Page, pale, shown
from vit_walkthrough.draw.plots import ROLES
from vit_walkthrough.draw.specimen import Specimen
from vit_walkthrough.model.config import ViTConfig

# What several pictures share.


def _eye(config: ViTConfig) -> int:
    """The patch on the edge of the cat's eye, or what is there in another picture: one worth following."""
    return int(0.48 * config.rows) * config.cols + int(0.76 * config.cols)


def _followed(config: ViTConfig, first: int = 0) -> list[int | None]:
    """The tokens to draw, in order, None for each gap; from `first` = 1 on, those of the patches alone."""
    wanted = sorted({0, 1, 2, _eye(config) + 1, config.tokens - 1} & set(range(first, config.tokens)))
    slots = []
    for token in wanted:
        if slots and token != slots[-1] + 1:
            slots.append(None)
        slots.append(token)
    return slots


def _levels(middle: Number, slots: list, pitch: Number) -> list[Number]:
    """The heights of rows about `middle`, the first on top."""
    return [middle + pitch * ((len(slots) - 1) / 2 - row) for row in range(len(slots))]


def _role(token: int) -> str:
    return "class" if token == 0 else "patch"


def _star(page: Page, x: Number, y: Number, side: Number) -> None:
    """The class token, which has no picture."""
    page.box(x, y, side, side, role="class", line=1.2, radius=0.05)
    page.text(x, y - 0.005, "★", 8 + 12 * max(side - 0.25, 0), colour=ROLES["class"])


def _thumb(page: Page, values: Specimen, token: int, x: Number, y: Number, side: Number = 0.28) -> None:
    """A token's face: its patch, or the star of the class token."""
    if token == 0:
        _star(page, x, y, side)
    else:
        page.image(values.tile(token - 1), x - side / 2, y - side / 2, side, side, ROLES["patch"], 1.2)


def _faces(page, values, slots, levels, x: Number, side: Number = 0.28, less: int = 0) -> None:
    """A column of faces, each with its number to its left; `less` is taken off where patches are counted."""
    for token, y in zip(slots, levels, strict=True):
        if token is None:
            page.dots(x, y, down=True)
            continue
        _thumb(page, values, token, x, y, side)
        page.small(x - side / 2 - 0.07, y, f"{token - less:,}", ha="right")


def _strips(
    page, table, slots, levels, left: Number, width: Number, role: str | None = None, scale=None, cells: int = 12,
    height: Number = 0.2, less: int = 0,
) -> None:  # fmt: skip
    """Rows of a table as strips, one for each token that is followed, the scale common to all."""
    rows = [None if token is None else table[token - less] for token in slots]
    if scale is None:
        scale = max(np.abs(row[:cells]).max() for row in rows if row is not None) or 1.0
    for token, row, y in zip(slots, rows, levels, strict=True):
        if row is None:
            page.dots(left + width / 2, y, down=True)
        else:
            page.strip(row, left, y, width, role or _role(token), cells=cells, scale=scale, height=height)


def _common_scale(slots, *tables, cells: int = 12) -> Number:
    kept = [token for token in slots if token is not None]
    return max(np.abs(table[kept, :cells]).max() for table in tables) or 1.0


def _patch_frame(page, config: ViTConfig, place: tuple, patch: int, colour: str = ROLES["patch"], line=2.0) -> None:
    """The outline of one patch on a picture that lies at `place`."""
    left, bottom, width, height = place
    row, col = divmod(patch, config.cols)
    wide, high = width / config.cols, height / config.rows
    corner = (left + col * wide, bottom + height - (row + 1) * high)
    page.frame(*corner, wide, high, "white", line + 1.6)
    page.frame(*corner, wide, high, colour, line)


def _patch_middle(config: ViTConfig, place: tuple, patch: int) -> tuple[Number, Number]:
    left, bottom, width, height = place
    row, col = divmod(patch, config.cols)
    return left + (col + 0.5) * width / config.cols, bottom + height - (row + 0.5) * height / config.rows


def _apart(values: Specimen, gap: Number = 0.2) -> np.ndarray:
    """The patches pulled apart on white, in their places."""
    config = values.config
    pitch = max(4, 560 // max(config.rows, config.cols))
    kept = max(2, round(pitch * (1 - gap)))
    pick = np.arange(kept) * config.patch_size // kept
    canvas = np.ones((config.rows, pitch, config.cols, pitch, 3))
    tiles = values.picture.reshape(config.rows, config.patch_size, config.cols, config.patch_size, 3)
    canvas[:, :kept, :, :kept] = tiles[:, pick][:, :, :, pick]
    canvas = canvas.reshape(config.rows * pitch, config.cols * pitch, 3)
    return canvas[: kept - pitch, : kept - pitch]


# One stage after another.


def draw_patches(config: ViTConfig, image=None, *, model=None) -> Axes:
    """The image, cut, pulled apart and lined up: an image becomes a sequence of patches."""
    values = Specimen(config, image, model)
    page = Page(
        10, 4.55, "An image becomes a sequence of patches",
        f"Cut every {config.patch_size} pixels and line the pieces up in reading order. "
        f"Nothing is lost, nothing overlaps.",
    )  # fmt: skip
    middle = 2.15
    place = page.picture(values.picture, 1.6, middle, 2.6, config.rows, config.cols)
    page.shape(1.6, 0.6, "channels height width", config)

    apart = _apart(values)
    longer = max(apart.shape[:2])
    width, height = 2.9 * apart.shape[1] / longer, 2.9 * apart.shape[0] / longer
    page.image(apart, 5.0 - width / 2, middle - height / 2, width, height, frame=None)
    page.shape(5.0, 0.6, "rows cols", config)
    page.arrow((place[0] + place[2] + 0.12, middle), (5.0 - width / 2 - 0.12, middle))
    page.text(3.2 if width > 2.5 else (place[0] + place[2] + 5.0 - width / 2) / 2, middle + 0.14, "cut")

    slots = _followed(config, first=1)
    levels = _levels(middle, slots, 0.5)
    page.arrow((5.0 + width / 2 + 0.12, middle), (7.35, middle))
    page.text((5.0 + width / 2 + 0.12 + 7.35) / 2, middle + 0.14, "line up")
    _faces(page, values, slots, levels, 8.15, 0.42, less=1)
    for token, y in zip(slots, levels, strict=True):
        if token is not None:
            row, col = divmod(token - 1, config.cols)
            page.small(8.5, y, f"row {row}, col {col}", ha="left")
            _patch_frame(page, config, place, token - 1)
    page.shape(8.5, 0.6, "patches patch_dim", config)
    return page.done()


def draw_flatten(config: ViTConfig, image=None, *, model=None) -> Axes:
    """Reading order, of the patches in the image and of the pixels in a patch, which becomes one row of numbers."""
    values = Specimen(config, image, model)
    patch, side = _eye(config), config.patch_size
    page = Page(
        10, 6.1, "A patch is flattened into one row of numbers",
        "Patches are read like words on a page. So are the pixels of each: one channel after another, row by row.",
    )  # fmt: skip
    upper = 4.3
    place = page.picture(values.picture, 1.35, upper, 1.8, config.rows, config.cols)
    _reading_path(page, config, place)
    _patch_frame(page, config, place, patch)
    page.shape(1.35, 3.28, "channels height width", config)

    zoom = page.picture(values.tile(patch), 4.4, upper, 1.8)
    page.frame(*zoom, ROLES["patch"], 2)
    right = _patch_middle(config, place, patch)[0] + place[2] / config.cols / 2
    y = _patch_middle(config, place, patch)[1]
    half = place[3] / config.rows / 2
    for corner, edge in ((y + half, zoom[1] + zoom[3]), (y - half, zoom[1])):
        page.line((right, corner), (zoom[0], edge), colour=ROLES["patch"], width=0.9)
    page.shape(4.4, 3.28, "channels ph pw", config)
    page.text(6.1, 4.95, f"patch {patch:,}", 12, bold=True, ha="left", colour=ROLES["patch"])
    row, col = divmod(patch, config.cols)
    page.text(6.1, 4.68, f"= row {row} × {config.cols} cols + col {col}", ha="left")
    page.text(6.1, 4.2, f"pixels = {config.channels} × {side} × {side} = {config.patch_dim:,}", 12, ha="left",
              bold=True, colour=INK)  # fmt: skip
    page.text(6.1, 3.93, "channels × ph × pw: how long the row is", ha="left")
    _planes(page, values, patch)
    page.text(0.25, 0.22, "Every number of the row is drawn: bright is 1, dark is 0.", NOTE, ha="left")
    return page.done()


def _reading_path(page: Page, config: ViTConfig, place: tuple) -> None:
    """Arrows along the first two rows of patches, in which they are read."""
    for row in range(min(config.rows, 2)) if config.cols > 1 else ():
        ends = [_patch_middle(config, place, row * config.cols + col) for col in (0, config.cols - 1)]
        page.over_arrow(*ends)


CHANNELS = {
    3: (("red", (1, 0.25, 0.2)), ("green", (0.2, 0.95, 0.2)), ("blue", (0.35, 0.6, 1))),
    1: (("grey", (1, 1, 1)),),
}


def _planes(page: Page, values: Specimen, patch: int) -> None:
    """The channels of a patch, each over its share of the flattened row."""
    config, left, width = values.config, 0.35, 9.3
    side, share = config.patch_size, 9.3 / config.channels
    flat = values.flat[patch].reshape(config.channels, -1)
    for channel, (name, tint) in enumerate(CHANNELS[config.channels]):
        start, middle = left + channel * share, left + (channel + 0.5) * share
        plane = flat[channel].reshape(side, side)[..., None] * np.array(tint, float)
        row = flat[channel][None, :, None] * np.array(tint, float)
        page.image(plane, middle - 0.5, 1.75, 1.0, 1.0, NEUTRAL, interpolation="nearest")
        page.image(row, start, 0.93, share, 0.32, NEUTRAL, interpolation="nearest")
        for corner in ((middle - 0.5, 2.75 - 1 / side, 1.0, 1 / side), (start, 0.93, share / side, 0.32)):
            page.frame(*corner, "white", 3)
            page.frame(*corner, INK, 1.4)
        first = (start + share / side / 2, 2.75 - 0.5 / side)
        page.arrow((middle - 0.53, first[1]), first, (first[0], 1.28), width=1.1)
        page.arrow((middle + 0.1, 1.72), (middle + 0.1, 1.28), width=1.1)
        page.small(first[0] + 0.07, 1.5, "first row", ha="left")
        page.small(middle + 0.17, 1.5, "next rows", ha="left")
        page.head(middle + 0.58, 2.36, name, ha="left")
        page.small(middle + 0.58, 2.16, f"channel {channel}", ha="left")
        number, last = channel * side**2, (channel + 1) * side**2 - 1
        page.small(start + 0.05, 0.79, f"{number:,}", ha="left")
        page.small(start + share - 0.05, 0.79, f"{last:,}", ha="right")
        page.small(middle, 0.79, f"{side} × {side} = {side**2:,} numbers")
    page.head(left + width / 2, 0.53, f"{config.patch_dim:,} pixels")


def draw_embedding(config: ViTConfig, image=None, *, model=None) -> Axes:
    """Patches times E: every patch becomes a token by the same matrix."""
    values = Specimen(config, image, model)
    page = Page(
        10, 4.6, "One matrix turns every patch into a token",
        f"Each row of {config.patch_dim:,} pixels is multiplied by the same learned matrix E: "
        f"a row of {config.dim:,} numbers comes out.",
    )  # fmt: skip
    slots, middle = _followed(config, first=1), 2.45
    levels = _levels(middle, slots, 0.4)
    eye = levels[slots.index(_eye(config) + 1)]
    for x, width in ((2.22, 3.75), (8.4, 2.5)):
        page.box(x, eye, width, 0.36, role="patch", line=0, radius=0.05)
    _faces(page, values, slots, levels, 0.85, less=1)
    _strips(page, values.flat, slots, levels, 1.25, 2.7, "patch", less=1, cells=16)
    page.shape(2.6, 0.98, "patches patch_dim", config)
    page.sign(4.25, middle, "×")
    weight = values.embedding.projection.weight.detach().numpy().T
    page.matrix(weight[:20, :20], 4.6, middle - 1.05, 2.1, 2.1)
    page.text(5.65, middle + 1.22, "E", 12, bold=True, colour=INK)
    page.shape(5.65, 0.98, "patch_dim dim", config)
    page.sign(7.0, middle, "=")
    _strips(page, values.embedded, slots, levels, 7.3, 2.2, less=1, role="patch", cells=14)
    page.shape(8.4, 0.98, "patches dim", config)
    learned = config.patch_dim * config.dim + config.dim
    page.key(f"{values.source}. E holds {config.patch_dim:,} × {config.dim:,} of them, and a bias adds {config.dim:,}: "
             f"{learned:,} to learn.")  # fmt: skip
    return page.done()


def draw_class_token(config: ViTConfig, image=None, *, model=None) -> Axes:
    """The class token, put before the patches."""
    values = Specimen(config, image, model)
    page = Page(
        10, 5.15, "One more token, to collect the answer",
        "The class token is learned and the same for every image. It goes first, so every patch moves up by one place.",
    )  # fmt: skip
    slots, pitch, middle = _followed(config), 0.42, 2.6
    levels = _levels(middle, slots, pitch)
    scale = _common_scale(slots, values.sequence)
    left, width, right = 1.45, 2.4, 6.55
    top = levels[0]
    page.text(left + width / 2, top + 0.27, "class token ★", bold=True, colour=ROLES["class"])
    _strips(page, values.sequence, slots, levels, left, width, scale=scale)
    _faces(page, values, slots[1:], levels[1:], 1.1, less=1)
    _star(page, 1.1, top, 0.28)
    page.text(0.4, levels[1] / 2 + levels[-1] / 2, "patches", rotation=90)
    page.box(right + 0.98, middle, 3.55, pitch * len(slots) + 0.16, fill="white", edge=QUIET, line=1)
    for token, y in zip(slots, levels, strict=True):
        if token is not None:
            page.arrow((left + width + 0.1, y), (5.68, y), colour=ROLES[_role(token)])
    _faces(page, values, slots, levels, right - 0.2)
    _strips(page, values.sequence, slots, levels, right + 0.1, width, scale=scale)
    page.head(right + 0.98, top + 0.4, "one sequence")
    low = levels[-1] - 0.37
    page.shape(left + width / 2, low, "patches dim", config)
    page.shape(right + 0.98, low, "tokens dim", config)
    page.text((left + width + 5.68) / 2, low - 0.08, f"{config.patches:,} + 1 = {config.tokens:,}")
    page.key(f"{values.source}. Strips show the first of {config.dim:,} numbers.")
    return page.done()


def _whereabouts(page: Page, config: ViTConfig, token: int, x: Number, y: Number) -> None:
    """Where in the picture a token's patch is: a small map; for the class token an empty one."""
    room, longer = 0.28, max(config.rows, config.cols)
    width, height = room * config.cols / longer, room * config.rows / longer
    page.frame(x - width / 2, y - height / 2, width, height, ROLES["position"], 1)
    if token:
        row, col = divmod(token - 1, config.cols)
        cell = max(room / longer, 0.06)
        left = x - width / 2 + min(col * room / longer, width - cell)
        top = y + height / 2 - min(row * room / longer, height - cell)
        page.polygon([(left, top), (left + cell, top), (left + cell, top - cell), (left, top - cell)],
                     "position", ROLES["position"], 0)  # fmt: skip


def draw_positions(config: ViTConfig, image=None, *, model=None) -> Axes:
    """A position, added to every token."""
    values = Specimen(config, image, model)
    none = values.positions is None
    if none:
        title, words = "No positions", "This config adds none: shuffle the patches, and the class token's output stays."
    else:
        kind = "a learned vector" if config.positions == "learned" else "fixed sines and cosines"
        title = "A position is added to every token"
        words = f"Attention does not see where a token stands. So each place has {kind}, added number by number."
    page = Page(10, 4.9, title, words)
    slots, middle = _followed(config), 2.4
    levels = _levels(middle, slots, 0.42)
    scale = _common_scale(slots, values.sequence, values.tokens, *([] if none else [values.positions]))
    top, low, width = levels[0] + 0.33, levels[-1] - 0.32, 2.15
    for left, table, role, head in (
        (1.0, values.sequence, None, "tokens"),
        (4.1, values.positions, "position", "positions"),
        (7.2, values.tokens, None, "what enters the first block"),
    ):
        if table is None:
            page.arrow((left - 0.6, middle), (left + width + 0.6, middle))
            page.text(left + width / 2, middle + 0.16, "nothing is added")
            continue
        _strips(page, table, slots, levels, left, width, role, scale)
        page.text(left + width / 2, top, head, bold=True, colour=ROLES["position"] if role else INK)
        page.shape(left + width / 2, low, "tokens dim", config)
    _faces(page, values, slots, levels, 0.72)
    for token, y in [] if none else zip(slots, levels, strict=True):
        if token is not None:
            _whereabouts(page, config, token, 3.85, y)
            page.sign(3.42, y, "+", 12)
            page.sign(6.72, y, "=", 12)
    page.key(f"{values.source}. All strips share one scale.")
    return page.done()


def draw_qkv(config: ViTConfig, image=None, *, model=None) -> Axes:
    """One matrix, three readings of every token: query, key and value."""
    values = Specimen(config, image, model)
    page = Page(
        10, 5.1, "One matrix reads every token three times",
        "Its columns are three blocks side by side: what comes out is cut into queries, keys and values.",
    )  # fmt: skip
    slots, middle = _followed(config), 2.75
    levels = _levels(middle, slots, 0.36)
    _faces(page, values, slots, levels, 0.72)
    _strips(page, values.normed, slots, levels, 1.0, 1.45, cells=10)
    low, top = levels[-1] - 0.27, levels[0] + 0.3
    page.head(1.72, top, "tokens")
    page.shape(1.72, 1.3, "tokens dim", config)
    page.sign(2.68, middle, "×")
    weight = values.attention.qkv.weight.detach().numpy().reshape(3, config.dim, config.dim).transpose(0, 2, 1)
    scale = np.abs(weight[:, :14, :6]).max()
    qkv = values.qkv.transpose(0, 2, 1, 3).reshape(3, config.tokens, config.dim)
    same = _common_scale(slots, *qkv, cells=8)
    meanings = ("what it seeks", "what it offers", "what it gives")
    for part, (role, meaning) in enumerate(zip(("query", "key", "value"), meanings, strict=True)):
        left = 2.95 + 0.93 * part
        page.matrix(weight[part, :14, :6], left, middle - 1.02, 0.87, 2.04, role, scale, line=2.4)
        page.text(left + 0.435, max(top, middle + 1.2), f"$W_{role[0]}$", 12, colour=INK)
        x = 6.2 + 1.25 * part
        _strips(page, qkv[part], slots, levels, x, 1.1, role, same, cells=8)
        page.head(x + 0.55, top, {"query": "queries", "key": "keys", "value": "values"}[role])
        page.small(x + 0.55, low + 0.02, meaning)
    page.shape(2.95 + 1.365, 1.3, "dim 3·dim", {"dim": config.dim, "3·dim": 3 * config.dim})
    page.sign(5.94, middle, "=")
    page.bracket((6.2, 1.22), (9.8, 1.22), 0.07)
    page.shape(8.0, 1.14, "3 tokens dim", {"3": 3, "tokens": config.tokens, "dim": config.dim})
    cut = "one head takes them whole" if config.heads == 1 else "each is then shared out"
    page.small(8.0, 0.62, f"{cut}: heads × head_dim = {config.heads} × {config.head_dim} = {config.dim:,}")
    page.key(f"{values.source}. Strips show the first of {config.dim:,} numbers.")
    return page.done()


def _over_photo(values: Specimen, weights: np.ndarray) -> np.ndarray:
    """Weights of the patches as light on the picture, the largest the brightest."""
    config = values.config
    light = colormaps["inferno"](weights.reshape(config.rows, config.cols) / weights.max())[..., :3]
    light = light.repeat(config.patch_size, axis=0).repeat(config.patch_size, axis=1)
    grey = values.picture.mean(axis=2, keepdims=True)
    return 0.5 * grey + 0.5 * light


def _spread(table: np.ndarray, slots: list) -> np.ndarray:
    """Rows and columns of the tokens that are followed, with empty ones where some are left out."""
    spread = np.full((len(slots), len(slots)), np.nan)
    places = [place for place, token in enumerate(slots) if token is not None]
    spread[np.ix_(places, places)] = table[:, [slots[place] for place in places]]
    return spread


def draw_attention(config: ViTConfig, image=None, *, model=None) -> Axes:
    """One head: every query meets every key, the softmax makes weights of it, the weights mix the values."""
    values = Specimen(config, image, model)
    which = "one head" if config.heads == 1 else f"one head of {config.heads}"
    slots, cell, low, gap = _followed(config), 0.27, 0.98, 0.36
    side = cell * len(slots)
    upper = low + side + gap
    page = Page(
        10, upper + max(side + 0.3, 2.1) + 0.9, f"Attention: every token asks every token ({which})",
        "Query · key says how well two tokens match; softmax turns each row into weights; the weights mix the values.",
    )  # fmt: skip
    kept = [token for token in slots if token is not None]
    eye = _eye(config) + 1
    levels = _levels(low + side / 2, slots, cell)
    queries, keys, passed = values.qkv[:, 0]
    scale = _common_scale(slots, queries, keys, passed, cells=8)
    at = dict(q=0.92, s=2.45, a=5.62, out=8.25)
    band = levels[slots.index(eye)]
    page.box(5.06, band, 9.4, cell + 0.03, role="neutral", fill=pale("neutral", 0.1), line=0, radius=0.04)

    _faces(page, values, slots, levels, 0.68, 0.22)
    _strips(page, queries, slots, levels, at["q"], 1.32, "query", scale, 8, 0.19)
    page.head(at["q"] + 0.66, levels[0] + 0.28, "queries")
    page.shape(at["q"] + 0.66, low - 0.1, "queries head_dim", config)
    for place, token in enumerate(slots):
        x = at["s"] + (place + 0.5) * cell
        if token is None:
            page.dots(x, upper + 0.66)
            continue
        page.strip(keys[token], x, upper + 1.32, 1.32, "key", cells=8, scale=scale, height=0.19, down=True)
        _thumb(page, values, token, x, upper + 1.5, 0.22)
    page.head(at["s"] - 0.12, upper + 1.0, "keys", ha="right")
    page.shape(at["s"] - 0.12, upper + 0.8, "head_dim keys", config, ha="right")

    scores = _spread(values.scores(0, kept), slots)
    weights = values.weights(0, kept)
    page.matrix(scores, at["s"], low, side, side, scale=np.nanmax(np.abs(scores)), line=1)
    page.shape(at["s"] + side / 2, low - 0.1, "queries keys", config)
    spread = _spread(weights, slots)
    page.matrix(spread, at["a"], low, side, side, cmap="viridis", vmin=0, vmax=np.nanmax(spread), line=1)
    page.shape(at["a"] + side / 2, low - 0.1, "queries keys", config)
    for left in (at["s"], at["a"]):
        page.frame(left, band - cell / 2, side, cell, INK, 2)
    for place, token in enumerate(slots):
        for left in (at["s"], at["a"]) if token is None else ():
            page.dots(left + side / 2, levels[place], down=True, step=0.06)
            page.dots(left + (place + 0.5) * cell, levels[0])
            page.dots(left + (place + 0.5) * cell, band)

    start, end = at["s"] + side + 0.1, at["a"] - 0.1
    page.arrow((start, low + side / 2), (end, low + side / 2))
    page.text((start + end) / 2, low + side / 2 + 0.17, f"÷ √{config.head_dim}")
    page.text((start + end) / 2, low + side / 2 - 0.17, "softmax")
    page.text((start + end) / 2, low + side / 2 - 0.37, "of each row", NOTE)

    row = weights[kept.index(eye)]
    left, bottom, width, height = page.picture(_over_photo(values, row[1:]), at["a"] + 0.75, upper + 0.8, 1.5)
    _patch_frame(page, config, (left, bottom, width, height), eye - 1, ROLES["query"], 1.6)
    page.head(at["a"] - 0.02, bottom + height + 0.2, f"where token {eye:,} looks", ha="left")
    page.small(left - 0.1, upper + 0.95, "its row,", ha="right")
    page.small(left - 0.1, upper + 0.77, "on the image", ha="right")

    page.arrow((at["a"] + side + 0.1, low + side / 2), (at["out"] - 0.1, low + side / 2))
    page.text((at["a"] + side + at["out"]) / 2, low + side / 2 + 0.17, "mix")
    rows = _levels(upper + side / 2, slots, cell)
    _strips(page, passed, slots, rows, at["out"], 1.32, "value", scale, 8, 0.19)
    _faces(page, values, slots, rows, at["out"] - 0.2, 0.22)
    page.head(at["out"] + 0.66, upper + side + 0.13, "values")
    page.head(at["out"] + 0.66, levels[0] + 0.28, "outputs")
    head_outputs = values.head_outputs(kept)[0]
    for token, y in zip(slots, levels, strict=True):
        if token is None:
            page.dots(at["out"] + 0.66, y, down=True, step=0.06)
        else:
            page.strip(head_outputs[kept.index(token)], at["out"], y, 1.32, _role(token), cells=8, height=0.19,
                       scale=np.abs(head_outputs[:, :6]).max())  # fmt: skip
    page.shape(at["out"] + 0.66, low - 0.1, "queries head_dim", config)
    page.key(
        f"{values.source}. Weights: dark is 0, yellow {np.nanmax(spread):.2g}; each row of {config.tokens:,} sums to 1."
    )
    return page.done()


def _mixed(page: Page, values: Specimen, token: int) -> None:
    """What W_o makes of the joined heads, on the line at the foot of the picture."""
    config, y = values.config, 0.72
    weight = values.attention.projection.weight.detach().numpy().T
    page.sign(3.05, y, "×", 13)
    page.matrix(weight[:6, :12], 3.3, y - 0.2, 0.8, 0.4)
    page.text(4.22, y, "$W_o$", 12, ha="left", colour=INK)
    page.arrow((4.68, y), (5.2, y))
    page.strip(values.attended([token])[0], 5.3, y, 2.4, "patch", cells=14)
    page.shape(8.3, y, "tokens dim", config, va="center")


def draw_heads(config: ViTConfig, image=None, *, model=None) -> Axes:
    """The heads side by side, their outputs joined and mixed by W_o."""
    values = Specimen(config, image, model)
    eye, one = _eye(config) + 1, config.heads == 1
    page = Page(
        10, 6.6, "One head looks once" if one else f"{config.heads} heads look for {config.heads} things at once",
        f"Each head makes {config.head_dim:,} numbers of a whole token as query, key and value, and has its own map. "
        f"Joined, they are as long as a token again.",
    )  # fmt: skip
    columns = shown(config.heads, 5)
    pitch = 8.3 / 5
    left = 1.45 + (5 - len(columns)) * pitch / 2
    width = 1.36
    asked, keys, passed = values.qkv
    head_outputs = values.head_outputs([eye])[:, 0]
    kept = [head for head in columns if head is not None]
    scale = max(np.abs(part[kept][:, eye, :8]).max() for part in (asked, keys, passed))
    out_scale = np.abs(head_outputs[kept][:, :8]).max()
    top, photo_y, out_y, join_y = 5.2, 3.55, 2.35, 1.55
    for word, y in (("query", top), ("key", top - 0.28), ("value", top - 0.56)):
        page.small(1.32, y, word, ha="right")
    _thumb(page, values, eye, 0.42, top, 0.28)
    page.small(1.32, photo_y + 0.1, "its map of", ha="right")
    page.small(1.32, photo_y - 0.08, "attention", ha="right")
    page.small(1.32, out_y, "what it found", ha="right")
    for place, head in enumerate(columns):
        x = left + (place + 0.5) * pitch
        if head is None:
            for y in (top - 0.28, photo_y, out_y, join_y):
                page.dots(x, y)
            page.small(x, photo_y - 0.25, f"{config.heads - len(kept)} more")
            continue
        page.head(x, top + 0.3, f"head {head}")
        for row, (part, role) in enumerate(((asked, "query"), (keys, "key"), (passed, "value"))):
            page.strip(part[head, eye], x - width / 2, top - 0.28 * row, width, role, cells=9, scale=scale)
        weights = values.weights(head, [eye])[0, 1:]
        photo = page.picture(_over_photo(values, weights), x, photo_y, 1.34)
        _patch_frame(page, config, photo, eye - 1, ROLES["query"], 1.4)
        page.arrow((x, top - 0.7), (x, photo[1] + photo[3] + 0.05), head=0.1)
        page.arrow((x, photo[1] - 0.05), (x, out_y + 0.13), head=0.1)
        page.strip(head_outputs[head], x - width / 2, out_y, width, "patch", cells=9, scale=out_scale)
        page.arrow((x, out_y - 0.13), (x, join_y + 0.13), head=0.1)
        page.strip(head_outputs[head], x - pitch / 2, join_y, pitch, "patch", cells=9, scale=out_scale)
    for place, head in enumerate(columns):
        if head is None:
            x = left + place * pitch
            page.frame(x, join_y - 0.1, pitch, 0.2, ROLES["patch"], 1.6)
    page.small(left - 0.12, join_y, "joined", ha="right")
    sizes = {"tokens": config.tokens, "heads·head_dim": config.heads * config.head_dim}
    page.shape(left + len(columns) * pitch / 2, join_y - 0.2, "tokens heads·head_dim", sizes)
    _mixed(page, values, eye)
    page.key(f"{values.source}. Token {eye:,} asks; all maps are heads × queries × keys = "
             f"{config.heads} × {config.tokens:,} × {config.tokens:,}.")  # fmt: skip
    return page.done()


def _curve(
    page: Page, kind: str, x: Number, y: Number, width: Number, height: Number, before, after, low: Number
) -> None:
    """An activation's curve in a box, from `low` up to 3, and on it the values that went through."""
    page.box(x, y, width, height, fill="white", edge=NEUTRAL, radius=0.06)
    reach = 3.0
    high = min(reach, 1.3) if low < -0.9 else reach
    across, up = (width - 0.16) / 2 / reach, (height - 0.14) / (high - low)
    bottom = y - height / 2 + 0.07 - low * up
    grid = np.linspace(-reach, reach, 41)
    page.line((x - width / 2 + 0.06, bottom), (x + width / 2 - 0.06, bottom), colour=QUIET, width=0.8)
    page.line((x, y - height / 2 + 0.05), (x, y + height / 2 - 0.05), colour=QUIET, width=0.8)
    page.line(*zip(x + grid * across, bottom + Specimen.bent(kind, grid) * up, strict=True), colour=INK, width=1.8)
    inside = np.abs(before) < reach
    for value, bent in zip(before[inside], after[inside], strict=True):
        page.dot(x + value * across, bottom + bent * up, 16, ROLES["patch"])


def _fan(page: Page, x: Number, top: tuple, bottom: tuple, words: str) -> None:
    """A linear layer between two rows of numbers, as wide at either end as they are: (height, width) of both."""
    (high, wide), (low, narrow) = top, bottom
    corners = [(x - wide / 2, high), (x + wide / 2, high), (x + narrow / 2, low), (x - narrow / 2, low)]
    page.polygon(corners, fill=pale("neutral", 0.08), line=1.1)
    page.text(x, (high + low) / 2, words, colour=INK)


def draw_mlp(config: ViTConfig, image=None, *, model=None) -> Axes:
    """The MLP on one token: wider, bent by GELU, and as wide as before."""
    values = Specimen(config, image, model)
    eye = _eye(config) + 1
    page = Page(
        10, 6.3, "The MLP works on every token by itself",
        f"{config.dim:,} numbers become {config.hidden:,}, each is bent by GELU, and they become {config.dim:,} again.",
    )  # fmt: skip
    stations = {name: rows[0] for name, rows in values.through_mlp([eye]).items()}
    longer, middle = max(config.dim, config.hidden), 4.75
    narrow, wide = (max(7.0 * size / longer, 1.9) for size in (config.dim, config.hidden))
    cells = {width: max(8, round(width / 0.21)) for width in (narrow, wide)}
    levels = dict(normed=5.0, expanded=4.0, bent=2.45, added=1.45)
    for name, y in levels.items():
        width = narrow if name in ("normed", "added") else wide
        page.strip(stations[name], middle - width / 2, y, width, "patch", cells=cells[width], height=0.22)
    at = max(narrow, wide) / 2 + middle + 0.15
    for name, words in (("normed", "tokens dim"), ("expanded", "tokens hidden"), ("bent", "tokens hidden"),
                        ("added", "tokens dim")):  # fmt: skip
        page.shape(min(at, 8.4), levels[name], words, config, ha="left", va="center")
    _thumb(page, values, eye, middle - narrow / 2 - 0.26, levels["normed"], 0.28)
    page.small(middle - narrow / 2 - 0.47, levels["normed"], f"{eye:,}", ha="right")
    both = config.dim * config.hidden
    _fan(page, middle, (levels["normed"] - 0.17, narrow), (levels["expanded"] + 0.17, wide),
         f"linear, {both:,} weights")  # fmt: skip
    _fan(page, middle, (levels["bent"] - 0.17, wide), (levels["added"] + 0.17, narrow), f"linear, {both:,} weights")
    y, kept = (levels["expanded"] + levels["bent"]) / 2, cells[wide] - 2
    page.arrow((middle, levels["expanded"] - 0.13), (middle, y + 0.43), head=0.1)
    page.arrow((middle, y - 0.42), (middle, levels["bent"] + 0.13), head=0.1)
    _curve(page, "GELU", middle, y, 2.0, 0.84, stations["expanded"][:kept], stations["bent"][:kept], -0.4)
    page.text(middle - 1.15, y + 0.1, "GELU", 12, bold=True, ha="right", colour=INK)
    page.small(middle - 1.15, y - 0.14, "below 0: almost nothing", ha="right")
    page.small(middle + 1.15, y + 0.1, "above 0: almost unchanged", ha="left")
    page.small(middle + 1.15, y - 0.1, "dots: the values of the strips", ha="left")
    page.arrow((middle, levels["added"] - 0.14), (middle, 0.88))
    page.text(middle, 0.72, "added to the token")
    page.key(f"{values.source}. Each strip is scaled for itself and shows its first numbers.")
    return page.done()


def _card(page: Page, values, rows: list, faces: list, x: Number, y: Number, width: Number = 1.5, scale=None) -> None:
    """A few tokens on the residual stream, as they are at this place."""
    scale = scale or max(np.abs(row[:10]).max() for row in rows)
    tall = 0.3 * len(rows) + 0.12
    page.box(x, y, width + 0.5, tall, fill="white", edge=QUIET, line=1)
    for row, token, level in zip(rows, faces, _levels(y, rows, 0.3), strict=True):
        _thumb(page, values, token, x - width / 2 - 0.02, level, 0.22)
        page.strip(row, x - width / 2 + 0.18, level, width - 0.06, _role(token), cells=10, scale=scale, height=0.18)


def draw_block(config: ViTConfig, image=None, *, model=None) -> Axes:
    """One encoder block from bottom to top: the residual stream straight up, attention and MLP beside it."""
    values = Specimen(config, image, model)
    eye = _eye(config) + 1
    page = Page(
        9.4, 8.05, "An encoder block only ever adds to the tokens",
        "The stream goes straight up. Attention and the MLP read a normalised copy, and what they find is added.",
    )  # fmt: skip
    faces = [0, eye]
    stations = values.through_mlp(faces)
    before, attended = values.tokens[faces], values.attended(faces)
    stream, beside = 2.35, 6.0
    bottom, top = 0.55, 7.05
    page.arrow((stream, bottom), (stream, top + 0.1), behind=True)
    scale = max(np.abs(rows[:, :10]).max() for rows in (before, stations["stream"], stations["out"]))
    for rows, y in ((before, 1.08), (stations["stream"], 3.85), (stations["out"], 6.62)):
        _card(page, values, list(rows), faces, stream, y, scale=scale)
        page.shape(stream - 1.12, y, "tokens dim", config, ha="right", va="center")
    halves = (
        (1.52, "attention", "query", values.normed[faces], attended),
        (4.32, "MLP", "value", stations["normed"], stations["added"]),
    )
    for fork, step, role, normed, added in halves:
        page.line((stream, fork), (beside, fork))
        page.arrow((beside, fork), (beside, fork + 0.2), head=0.1)
        page.box(beside, fork + 0.4, 1.7, 0.38, "LayerNorm")
        _card(page, values, [normed[1]], [eye], 8.1, fork + 0.4, 1.5)
        page.line((beside + 0.85, fork + 0.4), (7.1, fork + 0.4), width=0.9, colour=QUIET)
        page.arrow((beside, fork + 0.59), (beside, fork + 0.8), head=0.1)
        page.box(beside, fork + 1.12, 1.7, 0.62, step, role, 12, bold=True)
        join = fork + 1.73
        page.arrow((beside, fork + 1.43), (beside, join), (stream + 0.14, join), behind=True)
        page.plus(stream, join)
        _card(page, values, [added[1]], [eye], 4.6, join, 1.5)
        page.small(4.6, join + 0.32, "what is added")
    x = beside + 1.0
    page.small(x, 1.52 + 1.27, "the tokens exchange what they know:", ha="left")
    page.head(x, 1.52 + 1.05, f"{config.heads} maps of {config.tokens:,} × {config.tokens:,}", ha="left")
    page.small(x, 4.32 + 1.27, "each token by itself:", ha="left")
    page.head(x, 4.32 + 1.05, f"through {config.tokens:,} × {config.hidden:,}", ha="left")
    page.key(f"{values.source}. ★ is the class token, the other is token {eye:,}.")
    return page.done()


def _block_numbers(config: ViTConfig) -> int:
    """What one block learns: four square matrices, the MLP, their biases and two LayerNorms."""
    dim, hidden = config.dim, config.hidden
    return 4 * dim**2 + 4 * dim + 2 * dim * hidden + hidden + dim + 4 * dim


def draw_stack(config: ViTConfig, image=None, *, model=None) -> Axes:
    """The blocks one after another, and the tokens between them."""
    values = Specimen(config, image, model)
    once = config.depth == 1
    page = Page(
        10, 4.75, "One block" if once else f"{config.depth} blocks, one after another",
        "Every block takes tokens and gives tokens of the same shape. Each has its own weights."
        if not once else "A block takes tokens and gives tokens of the same shape.",
    )  # fmt: skip
    slots, middle = _followed(config), 2.4
    levels = _levels(middle, slots, 0.34)
    columns = shown(config.depth, 4)
    first, last = 2.35, 7.65
    pitch = (last - first) / len(columns)
    _faces(page, values, slots, levels, 0.62, 0.26)
    _strips(page, values.tokens, slots, levels, 0.85, 1.15, cells=8)
    page.shape(1.42, 0.95, "tokens dim", config)
    tall = max(levels[0] - levels[-1] + 0.5, 2.3)
    x = 2.05
    for place, layer in enumerate(columns):
        centre = first + (place + 0.5) * pitch
        wide = min(pitch - 0.34, 1.3)
        if layer is None:
            page.dots(centre, middle, size=7, step=0.12)
            page.text(centre, middle - 0.3, f"{config.depth - 3} more")
            page.arrow((x + 0.05, middle), (centre - 0.35, middle))
            x = centre + 0.3
            continue
        page.arrow((x + 0.05, middle), (centre - wide / 2 - 0.04, middle))
        page.box(centre, middle, wide, tall, fill=pale("neutral", 0.07))
        page.head(centre, middle + tall / 2 - 0.22, f"block {layer + 1}")
        page.box(centre, middle - 0.58, wide - 0.2, 0.58, "attention", "query", WORDS)
        page.box(centre, middle + 0.24, wide - 0.2, 0.58, "MLP", "value", WORDS)
        page.arrow((centre, middle - 0.28), (centre, middle - 0.06), head=0.09)
        x = centre + wide / 2
    page.arrow((x + 0.05, middle), (7.75, middle))
    learned = f"{_block_numbers(config):,} learned numbers a block"
    in_all = "" if once else f", {config.depth * _block_numbers(config):,} in all"
    page.head((first + last) / 2, 0.87, learned + in_all)
    page.small((first + last) / 2, 0.64, "after the last block a LayerNorm")
    _strips(page, values.encoded, slots, levels, 8.3, 1.3, cells=8)
    _faces(page, values, slots, levels, 8.1, 0.26)
    page.shape(8.95, 0.95, "tokens dim", config)
    page.key(f"{values.source}{values.layers_run}.")
    return page.done()


def _distribution(
    page: Page, numbers: np.ndarray, left: Number, bottom: Number, width: Number, height: Number
) -> list[int]:
    """Bars of the classes that are drawn, the largest filled; returns which."""
    best = int(np.argmax(numbers))
    classes = sorted({*range(min(len(numbers), 9)), best, len(numbers) - 1})
    marked = classes.index(best) if np.ptp(numbers) else None
    page.bars(numbers[classes], left, bottom, width, height, "class", marked)
    return classes


def draw_head(config: ViTConfig, image=None, *, model=None) -> Axes:
    """From the class token to the probabilities of the classes.

    Raises: ValueError for a model without a head.
    """
    values = Specimen(config, image, model)
    read = config.pooling == "class"
    page = Page(
        10, 4.75, "One token answers for the whole image" if read else "The mean of the patches answers",
        f"{'The class token' if read else 'The mean of all patch tokens'}, {config.dim:,} numbers, becomes one number "
        f"per class; softmax makes probabilities.",
    )  # fmt: skip
    slots, middle = _followed(config), 2.45
    levels = _levels(middle, slots, 0.34)
    _faces(page, values, slots, levels, 0.62, 0.26)
    _strips(page, values.encoded, slots, levels, 0.85, 1.3, cells=8)
    page.shape(1.5, 1.12, "tokens dim", config)
    start = levels[0] if read else middle
    if not read:
        page.bracket((2.3, levels[-1] - 0.1), (2.3, levels[1] + 0.1), 0.08)
    page.arrow((2.25 if read else 2.3, start), (2.6, start), (2.6, middle), (2.95, middle))
    page.strip(values.features, 3.03, middle, 1.4, "class" if read else "patch", cells=9)
    page.head(3.73, middle + 0.28, "class token ★" if read else "mean")
    page.shape(3.73, middle - 0.2, "dim", config)
    page.sign(4.67, middle, "×")
    weight = values.head.logits.weight.detach().numpy().T
    page.matrix(weight[:14, :10], 4.95, middle - 0.75, 1.05, 1.5)
    page.head(5.48, middle + 0.95, "linear")
    page.shape(5.48, middle - 0.87, "dim classes", config)
    page.arrow((6.1, middle), (6.5, middle))
    x, width = 6.62, 1.25
    page.strip(values.logits, x, middle, width, "neutral", cells=9)
    page.head(x + width / 2, middle + 0.28, "logits")
    page.shape(x + width / 2, middle - 0.2, "classes", config)
    page.arrow((x + width + 0.1, middle), (8.4, middle))
    page.small((x + width + 8.5) / 2, middle + 0.17, "softmax")
    drawn = _distribution(page, values.probabilities, 8.5, middle - 0.4, 1.25, 1.0)
    best = int(np.argmax(values.probabilities))
    page.head(9.12, middle + 0.95, "probabilities")
    page.small(9.12, middle + 0.73, f"class {best}: {values.probabilities[best]:.1%}")
    page.small(9.12, middle - 0.52, "sum to 1")
    page.shape(9.12, middle - 0.67, "classes", config)
    page.key(f"{values.source}{values.layers_run}. Bars: {len(drawn)} of the {config.classes:,} classes.")
    return page.done()


def draw_two_heads(config: ViTConfig, image=None, *, model=None, new_classes: int = 10) -> Axes:
    """The head of pre-training, with its tanh, and the one that fine-tuning puts in its place. The first is the
    model's own if it has one, as few published models do, else random."""
    values = Specimen(config, image, model)
    page = Page(
        10, 5.5, "The head is exchanged, the rest is kept",
        "Pre-training ends in two layers with a tanh between. For a new task one layer takes their place, all zeros.",
    )  # fmt: skip
    first, second, x = 3.55, 1.55, 0.45
    middle = (first + second) / 2
    role, name = ("class", "class token ★") if config.pooling == "class" else ("patch", "mean of patches")
    page.strip(values.features, x, middle, 1.4, role, cells=9)
    page.head(x + 0.7, middle + 0.28, name)
    page.shape(x + 0.7, middle - 0.2, "dim", config)
    fork = 2.2
    page.line((x + 1.48, middle), (fork, middle))
    page.arrow((fork, middle), (fork, first), (2.55, first))
    page.arrow((fork, middle), (fork, second), (5.31, second))
    page.small(3.8, second + 0.16, "straight to a new layer, all zeros")
    for y, words in ((first, "pre-training"), (second, "fine-tuning")):
        page.text(2.3, y + 0.88, words, 11.5, bold=True, ha="left", colour=INK)

    head = values.pretraining_head
    made = values.read_by(head)
    inside = head.hidden[0].weight.detach().numpy().T
    page.matrix(inside[:10, :10], 2.63, first - 0.45, 0.9, 0.9)
    page.shape(3.08, first - 0.55, "dim dim", config)
    page.arrow((3.61, first), (3.9, first))
    before = inside.T[:8] @ values.features + head.hidden[0].bias.detach().numpy()[:8]
    _curve(page, "Tanh", 4.45, first, 1.0, 0.8, before, made["hidden"][:8], -1.15)
    page.head(4.45, first + 0.56, "tanh")
    page.arrow((5.02, first), (5.31, first))
    page.matrix(head.logits.weight.detach().numpy().T[:10, :10], 5.39, first - 0.45, 0.9, 0.9)
    page.shape(5.84, first - 0.55, "dim classes", config)

    new = values.new_head(new_classes)
    fresh = values.read_by(new)
    page.matrix(new.logits.weight.detach().numpy().T[:10, :10], 5.39, second - 0.45, 0.9, 0.9)
    page.text(5.84, second, "0", 15, colour=INK)
    page.shape(5.84, second - 0.55, "dim classes", {"dim": config.dim, "classes": new_classes})
    for y, stations, count in ((first, made, config.classes), (second, fresh, new_classes)):
        page.arrow((6.37, y), (6.66, y))
        page.strip(stations["logits"], 6.75, y, 1.15, "neutral", cells=8)
        page.head(7.32, y + 0.28, "logits")
        page.shape(7.32, y - 0.2, "classes", {"classes": count})
        page.arrow((7.98, y), (8.35, y))
        _distribution(page, stations["probabilities"], 8.45, y - 0.35, 1.25, 0.8)
        page.head(9.07, y + 0.62, "probabilities")
        best = int(np.argmax(stations["probabilities"]))
        equal = np.ptp(stations["probabilities"]) == 0
        words = f"each 1/{count:,}" if equal else f"class {best}: {stations['probabilities'][best]:.1%}"
        page.small(9.07, y - 0.47, words)
    lost = model is not None and not values.pretrained_head
    random = "; the model comes without a pre-training head, so that one is random" if lost else ""
    page.key(f"{values.source}{values.layers_run}{random}.")
    return page.done()


def _die(page: Page, x: Number, y: Number) -> None:
    """The sign of dropout: a die."""
    side = 0.34
    page.box(x, y, side, side, fill=INK, edge=INK, radius=0.06)
    page.die(x, y, side * 0.24)


def draw_dropout(config: ViTConfig, image=None, *, model=None) -> Axes:
    """Where dropout is, and what it does."""
    values = Specimen(config, image, model)
    page = Page(
        10, 5.7, "Where dropout throws its dice",
        "In training only: after every dense layer except the one for q, k, v, and once after the positions.",
    )  # fmt: skip
    lanes = (
        ("before the blocks", ["patches × E", "★ first", "+ positions", None], "tokens dim"),
        ("attention", ["LayerNorm", "q, k, v", "softmax", "mix values", "$W_o$", None, "+"], "tokens dim"),
        ("MLP", ["LayerNorm", "linear", "GELU", None, "linear", None, "+"], "tokens dim"),
    )
    if config.positions == "none":
        lanes[0][1][2] = "no positions"
    for lane, (name, steps, words) in enumerate(lanes):
        y = 4.35 - 0.88 * lane
        page.head(0.25, y + (0.12 if lane else 0), name, ha="left")
        if lane:
            page.small(0.25, y - 0.12, "in every block", ha="left")
        x = 1.72
        for place, step in enumerate(steps):
            width = 0.34 if step is None else 0.26 if step == "+" else 0.92
            if place:
                page.arrow((x, y), (x + 0.24, y), head=0.1)
                x += 0.26
            if step is None:
                _die(page, x + width / 2, y)
            elif step == "+":
                page.plus(x + width / 2, y)
            else:
                page.box(x + width / 2, y, width, 0.42, step, size=9)
            x += width + 0.02
        page.shape(x + 0.12, y, words, config, ha="left", va="center")
    probability = config.dropout or 0.1
    before = values.tokens[0][:36]
    after = values.dropped(before, probability)
    scale = np.abs(after).max() or 1.0
    width = 0.2 * len(before)
    page.line((0.3, 1.93), (9.7, 1.93), colour=QUIET, width=0.8)
    for y, row, words in ((1.55, before, "before"), (1.0, after, "after")):
        page.head(1.6, y, words, ha="right")
        page.strip(row, 1.72, y, width, "class", cells=len(row), scale=scale, height=0.24)
    for place in np.flatnonzero(after == 0):
        page.cross(1.72 + 0.2 * (place + 0.5), 1.0, 0.07)
    _die(page, 0.6, 1.28)
    page.arrow((1.72 + width / 2, 1.41), (1.72 + width / 2, 1.14), head=0.1)
    chosen = "this config's" if config.dropout else "for example; this config has 0"
    page.text(1.72, 0.67, f"each number is set to 0 (×) with probability {probability:g} ({chosen}), "
              f"the others grow by 1/{1 - probability:g}", WORDS, ha="left")  # fmt: skip
    page.key(f"{values.source}, of the class token before the first block.")
    return page.done()


def draw_shapes(config: ViTConfig, image=None, *, model=None) -> Axes:
    """The shapes from image to logits, on one line.

    Raises: ValueError for a model without a head.
    """
    values = Specimen(config, image, model)
    page = Page(
        10, 3.95, "Every shape from image to answer",
        "Shapes of one image; a batch adds its own axis in front of all of them. Sizes are drawn on a log scale.",
    )  # fmt: skip
    read = "take ★" if config.pooling == "class" else "mean"
    table = values.encoded
    stations = (
        ("", values.picture, "channels height width", "patch"),
        ("cut", values.flat, "patches patch_dim", "patch"),
        ("× E", values.embedded, "patches dim", "patch"),
        ("★ first", values.sequence, "tokens dim", "class"),
        (f"{config.depth} block{'s' * (config.depth > 1)}, norm", table, "tokens dim", "patch"),
        (read, values.features[None], "dim", "class" if config.pooling == "class" else "patch"),
        ("head", values.logits[None], "classes", "neutral"),
    )
    middle = 1.95
    edges = []
    for place, (_, what, _, _) in enumerate(stations):
        width, height = (
            (0.86, 0.86)
            if place == 0
            else (0.1 * np.log2(max(what.shape[1], 2)), 0.1 * np.log2(max(what.shape[0], 2)) if len(what) > 1 else 0.13)
        )
        x = 2.36 + (place - 1) * 1.36 if place else 0.9
        edges.append((x, min(width, 1.05), min(height, 1.2)))
    for place, (step, what, words, role) in enumerate(stations):
        x, width, height = edges[place]
        if place == 0:
            _, _, wide, _ = page.picture(what, x, middle, 0.95, config.rows, config.cols)
            edges[0] = (x, wide, height)
        else:
            kept = what[: max(1, round(height * 12)), : round(width * 12)]
            page.matrix(kept, x - width / 2, middle - height / 2, width, height, role)
            if words == "tokens dim":
                cell = height / len(kept)
                page.frame(x - width / 2, middle + height / 2 - cell, width, cell, ROLES["class"], 2)
            before = edges[place - 1]
            start, end = before[0] + before[1] / 2 + 0.06, x - width / 2 - 0.06
            page.arrow((start, middle), (end, middle), head=0.1)
            page.text((start + end) / 2, middle + 0.82, step, WORDS + 0.5, bold=True, colour=INK)
            if step.endswith("norm") and config.positions != "none":
                page.text((start + end) / 2, middle + 1.02, "+ positions,", WORDS + 0.5, bold=True, colour=INK)
        page.shape(x, 1.0, words, config)
    page.key(f"{values.source}{values.layers_run}. Corners of the tables; the class token is framed.")
    return page.done()


def draw_fused(config: ViTConfig, image=None, *, model=None) -> Axes:
    """The same attention twice: written out, and fused into one kernel."""
    values = Specimen(config, image, model)
    eye = _eye(config) + 1
    page = Page(
        10, 5.6, "Two ways to the same attention",
        "Written out, the weights exist and can be looked at. Fused, they are never stored: the result is the same.",
    )  # fmt: skip
    slots = _followed(config)
    kept = [token for token in slots if token is not None]
    parts = [part[0, eye] for part in values.qkv]
    scale = max(np.abs(part[:8]).max() for part in parts)
    upper, lower = 3.75, 1.62
    explicit, fused = values.head_outputs([eye])[:, 0], values.fused([eye])[:, 0]
    for y, name in ((upper, "written out"), (lower, "fused")):
        page.text(0.3, y + 0.8, name, 11.5, bold=True, ha="left", colour=INK)
        for row, (part, role) in enumerate(zip(parts, ("query", "key", "value"), strict=True)):
            level = y + 0.3 * (1 - row)
            page.head(0.62, level, role[0], ha="right")
            page.strip(part, 0.72, level, 1.2, role, cells=8, scale=scale)
        page.shape(1.32, y - 0.5, "tokens head_dim", config)
        page.arrow((2.0, y), (2.55 if y == upper else 3.0, y))
    side = 1.1
    scores, weights = _spread(values.scores(0, kept), slots), _spread(values.weights(0, kept), slots)
    for left, table, name, how in (
        (2.65, scores, "scores", dict(scale=np.nanmax(np.abs(scores)))),
        (4.75, weights, "weights", dict(cmap="viridis", vmin=0, vmax=np.nanmax(weights))),
    ):
        page.matrix(table, left, upper - side / 2, side, side, line=1.2, **how)
        page.head(left + side / 2, upper + side / 2 + 0.14, name)
    page.small(2.55, upper + 0.13, "q·k", ha="right")
    page.arrow((3.85, upper), (4.65, upper))
    page.small(4.25, upper + 0.15, "softmax")
    page.arrow((5.95, upper), (6.75, upper))
    page.small(6.35, upper + 0.15, "× v")
    stored = config.heads * config.tokens**2
    page.text(4.25, upper - 0.72, f"stored: heads × queries × keys = {config.heads} × {config.tokens:,} × "
              f"{config.tokens:,}", WORDS)  # fmt: skip
    page.head(4.25, upper - 0.92, f"= {stored:,} numbers, {_bytes(4 * stored)}, twice")
    page.box(4.75, lower, 3.4, 1.0, fill=pale("neutral", 0.25))
    page.head(4.75, lower + 0.2, "scaled_dot_product_attention")
    page.small(4.75, lower - 0.02, "one kernel: a few queries and keys at a time,")
    page.small(4.75, lower - 0.22, "each forgotten once it is used")
    page.head(4.75, lower - 0.72, "stored: no weights")
    page.arrow((6.5, lower), (6.75, lower))
    for y, result in ((upper, explicit), (lower, fused)):
        page.strip(result[0], 6.85, y, 1.2, "patch", cells=8, scale=np.abs(explicit[0, :8]).max())
        page.shape(7.45, y - 0.2, "tokens head_dim", config)
    page.bracket((8.25, upper), (8.25, lower), -0.1)
    difference = float(np.abs(explicit - fused).max())
    middle = (upper + lower) / 2
    page.text(8.4, middle + 0.1, "equal", 12, bold=True, ha="left", colour=INK)
    page.text(8.4, middle - 0.12, f"to within {difference:.0e}" if difference else "to the last bit", ha="left")
    page.key(f"{values.source}. Strips of token {eye:,} in head 0 of {config.heads}.")
    return page.done()


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _all_numbers(config: ViTConfig) -> int:
    """What the whole model learns, by arithmetic: building it would take longer than drawing it."""
    dim = config.dim
    positions = config.tokens * dim if config.positions == "learned" else 0
    before = config.patch_dim * dim + dim + dim + positions
    return before + config.depth * _block_numbers(config) + 2 * dim + (dim + 1) * config.classes


def draw_config(config: ViTConfig, image=None, *, model=None) -> Axes:
    """The configuration: what is chosen, and what follows from it."""
    values = Specimen(config, image, model)
    page = Page(
        10, 5.35, "A few numbers decide every shape",
        "On the left what you choose, on the right what follows from it.",
    )  # fmt: skip
    place = page.picture(values.picture, 1.95, 2.6, 2.6, config.rows, config.cols)
    left, bottom, width, height = place
    _patch_frame(page, config, place, _eye(config), ROLES["patch"], 2.2)
    page.measure((left, bottom + height + 0.13), (left + width, bottom + height + 0.13))
    page.text(left + width / 2, bottom + height + 0.28, f"width {config.width}", colour=INK)
    page.measure((left - 0.13, bottom), (left - 0.13, bottom + height))
    page.text(left - 0.28, bottom + height / 2, f"height {config.height}", rotation=90, colour=INK)
    x, y = _patch_middle(config, place, _eye(config))
    side = width / config.cols
    page.line((x, y - side / 2), (x, bottom - 0.18), colour=ROLES["patch"], width=1.2)
    page.text(min(x, 2.6), bottom - 0.3, f"patch_size {config.patch_size}", bold=True, colour=ROLES["patch"])

    size = f"{config.height}" if config.height == config.width else f"{config.height} × {config.width}"
    chosen = [("image_size", size), ("patch_size", config.patch_size), ("channels", config.channels),
              ("dim", config.dim), ("depth", config.depth), ("heads", config.heads), ("hidden", config.hidden),
              ("classes", config.classes), ("dropout", config.dropout), ("positions", config.positions),
              ("pooling", config.pooling)]  # fmt: skip
    follows = [
        ("rows", f"{config.height} / {config.patch_size}", config.rows),
        ("cols", f"{config.width} / {config.patch_size}", config.cols),
        ("patches", f"{config.rows} × {config.cols}", config.patches),
        ("tokens", f"{config.patches:,} + 1", config.tokens),
        ("pixels", f"{config.channels} × {config.patch_size} × {config.patch_size}", config.patch_dim),
        ("head_dim", f"{config.dim:,} / {config.heads}", config.head_dim),
        ("each block learns", "", _block_numbers(config)),
        ("the model learns", "", _all_numbers(config)),
    ]
    top, pitch = 4.12, 0.335
    page.head(3.85, top + 0.32, "you choose", ha="left")
    page.head(6.65, top + 0.32, "it follows", ha="left")
    page.arrow((6.0, top - 5 * pitch), (6.45, top - 5 * pitch), width=2, head=0.16)
    for row, (name, value) in enumerate(chosen):
        y = top - row * pitch
        page.line((3.85, y + pitch / 2), (5.75, y + pitch / 2), colour=QUIET, width=0.6)
        page.text(3.85, y, name, ha="left")
        number = isinstance(value, int) and not isinstance(value, bool)
        page.head(5.75, y, f"{value:,}" if number else f"{value}", ha="right")
    for row, (name, how, value) in enumerate(follows):
        y = top - row * pitch
        page.line((6.65, y + pitch / 2), (9.72, y + pitch / 2), colour=QUIET, width=0.6)
        page.text(6.65, y, name, ha="left")
        page.text(8.75, y, f"{how} =" if how else "", ha="right")
        page.head(9.72, y, f"{value:,}", ha="right")
    y = top - 9 * pitch
    page.strip(values.tokens[min(_eye(config) + 1, config.tokens - 1)], 6.65, y, 3.07, "patch", cells=16)
    page.small(6.65, y - 0.26, f"one token: dim = {config.dim:,} numbers", ha="left")
    page.key(f"{values.source}.")
    return page.done()


# The whole.


def _inside_block(page: Page, values: Specimen, left: Number, bottom: Number) -> None:
    """One encoder block, small, between the stream's entry at the bottom and its exit at the top."""
    config, eye = values.config, _eye(values.config) + 1
    stream, beside, half = left + 0.32, left + 1.2, 0.54
    for fork, high, words, role in ((0.42, 0.98, "attention", "query"), (2.22, 0.5, "MLP", "value")):
        fork += bottom
        page.line((stream, fork), (beside, fork))
        page.arrow((beside, fork), (beside, fork + 0.14), head=0.09)
        page.box(beside, fork + 0.27, 2 * half, 0.24, "LayerNorm", size=8, line=1.1, radius=0.05)
        page.arrow((beside, fork + 0.4), (beside, fork + 0.55), head=0.09)
        page.box(beside, fork + 0.56 + high / 2, 2 * half, high, "", role)
        page.head(beside, fork + 0.56 + high - 0.15, words)
        join = fork + 0.56 + high + 0.12
        page.arrow((beside, fork + 0.56 + high), (beside, join), (stream + 0.1, join), head=0.09)
        page.plus(stream, join, 0.1)
        if words == "attention":
            weights = values.weights(0, [eye])[0, 1:]
            page.picture(_over_photo(values, weights), beside, fork + 0.99, 0.48)
            page.small(beside, fork + 0.66, "1 head" if config.heads == 1 else f"{config.heads} heads")
        else:
            page.small(beside, fork + 0.56 + 0.14, f"{config.hidden:,} wide")


def draw_vit(config: ViTConfig, image=None, *, model=None) -> Axes:
    """The whole model on one page, from the image on the left to the answer on the right, in seven steps.

    image: (channels, height, width) in [0, 1], by default the cat. model: whose numbers to show.

    Raises: ValueError for an image of another size than the config's, or a model without a head.
    """
    values = Specimen(config, image, model)
    read, positions = config.pooling == "class", values.positions is not None
    page = Page(
        10, 6.65, "The Vision Transformer on one page",
        f"{config.patches:,} patches become {config.tokens:,} tokens, which look at one another "
        f"{'once' if config.depth == 1 else f'{config.depth} times'}; "
        f"{'the class token ★ answers' if read else 'their mean answers'}.",
    )  # fmt: skip
    middle, head_y, foot = 3.33, 5.58, 1.12
    slots = _followed(config)
    levels = _levels(middle, slots, 0.44)

    def step(x: Number, y: Number, number: int, words: str) -> None:
        page.chip(x + 0.13, y, number)
        page.head(x + 0.33, y, words, ha="left")

    step(0.25, head_y, 1, "cut")
    apart = _apart(values, gap=0.12)
    longer = max(apart.shape[:2])
    width, height = 1.7 * apart.shape[1] / longer, 1.7 * apart.shape[0] / longer
    whole, pieces = middle + height / 2 + 0.22, middle - height / 2 - 0.22
    page.picture(values.picture, 1.15, whole, 1.7)
    page.image(apart, 1.15 - width / 2, pieces - height / 2, width, height, frame=None)
    page.arrow((1.15, whole - height / 2 - 0.06), (1.15, pieces + height / 2 + 0.06))
    page.shape(1.15, foot, "channels height width", config)
    page.arrow((1.15 + width / 2 + 0.06, pieces), (2.32, pieces))

    step(2.2, head_y, 2, "embed patches")
    step(2.2, head_y - 0.3, 3, "put ★ first")
    _faces(page, values, slots, levels, 2.95, 0.3)
    scale = _common_scale(slots, values.sequence, values.tokens, cells=8)
    _strips(page, values.sequence, slots, levels, 3.17, 0.95, scale=scale, cells=8)
    page.shape(3.4, foot, "tokens dim", config)
    step(4.3, head_y, 4, "add positions" if positions else "no positions")
    if positions:
        _strips(page, values.positions, slots, levels, 4.42, 0.95, "position", scale, cells=8)
        for token, y in zip(slots, levels, strict=True):
            if token is not None:
                page.sign(4.27, y, "+", 12)
        page.shape(4.9, foot, "tokens dim", config)
    leave = 5.5 if positions else 4.25
    page.bracket((leave, levels[0] + 0.1), (leave, levels[-1] - 0.1), -0.06)

    left, bottom, wide, tall = 6.02, 1.42, 1.85, 3.78
    for shift in (0.14, 0.07, 0) if config.depth > 1 else (0,):
        page.box(
            left + wide / 2 + shift, bottom + tall / 2 + shift, wide, tall, fill=pale("neutral", 0.05), edge=NEUTRAL
        )
    step(left, head_y, 5, "1 encoder block" if config.depth == 1 else f"{config.depth} encoder blocks")
    entry, exit_y = bottom + 0.22, bottom + tall - 0.22
    stream = left + 0.32
    page.line((leave, middle), (5.72, middle), (5.72, entry), (stream, entry), (stream, exit_y))
    page.arrow((stream, exit_y), (8.22, exit_y))
    _inside_block(page, values, left, bottom)
    page.shape(left + wide / 2, foot, "tokens dim", config)

    x = 8.95
    step(8.25, head_y, 6, "norm, take ★" if read else "norm, take mean")
    page.strip(values.features, 8.3, exit_y, 1.3, "class" if read else "patch", cells=8)
    page.shape(x, exit_y - 0.17, "dim", config)
    page.arrow((x, exit_y - 0.58), (x, 3.97))
    page.box(x, 3.75, 1.3, 0.42, "head")
    page.arrow((x, 3.53), (x, 3.22))
    step(8.25, 3.02, 7, "classify")
    drawn = _distribution(page, values.probabilities, 8.3, 1.42, 1.3, 1.05)
    best = int(np.argmax(values.probabilities))
    page.small(x, 2.68, f"class {best}: {values.probabilities[best]:.1%}")
    page.shape(x, foot, "classes", config)
    page.key(f"{values.source}{values.layers_run}. Bars: {len(drawn)} of the {config.classes:,} classes.")
    return page.done()


def draw_steps(config: ViTConfig, image=None, *, model=None) -> Axes:
    """The seven steps as a strip.

    Raises: ValueError for a model without a head.
    """
    values = Specimen(config, image, model)
    page = Page(10, 2.1)
    read, eye = config.pooling == "class", _eye(config) + 1
    pitch, middle, scale = 9.8 / 7, 1.14, None
    kept = [0, *dict.fromkeys((1, min(2, config.patches), eye))]
    levels = [middle + 0.36 - 0.24 * row for row in range(len(kept))]
    scale = _common_scale(kept, values.sequence, values.tokens, cells=7)
    blocks = "1 block" if config.depth == 1 else f"{config.depth} blocks"
    captions = (
        "cut the image\ninto patches",
        "embed\neach patch",
        "put the class\ntoken ★ first",
        "add nothing:\nno positions" if values.positions is None else "add\npositions",
        f"run through\n{blocks}",
        "take the\nclass token ★" if read else "take the\nmean",
        "classify",
    )
    for place, words in enumerate(captions):
        x = 0.1 + (place + 0.5) * pitch
        page.chip(x, 1.89, place + 1)
        page.text(x, 0.43, words, 9, va="top", colour=INK)
        if place:
            page.arrow((x - pitch / 2 - 0.08, middle), (x - pitch / 2 + 0.1, middle), head=0.1)
        if place == 0:
            apart = _apart(values, gap=0.12)
            longer = max(apart.shape[:2])
            width, height = 1.02 * apart.shape[1] / longer, 1.02 * apart.shape[0] / longer
            page.image(apart, x - width / 2, middle - height / 2, width, height, frame=None)
        elif place in (1, 2, 3, 5):
            table = values.tokens if place == 3 else values.encoded if place == 5 else values.sequence
            _step_rows(page, values, table, kept, levels, x, place, scale if place < 5 else None)
        elif place == 4:
            for shift in (0.12, 0.06, 0) if config.depth > 1 else (0,):
                page.box(x + shift - 0.06, middle + shift - 0.06, 0.82, 0.92, fill="white")
            page.box(x - 0.06, middle + 0.14, 0.66, 0.3, "MLP", "value", NOTE)
            page.box(x - 0.06, middle - 0.28, 0.66, 0.3, "attention", "query", NOTE)
        else:
            _distribution(page, values.probabilities, x - 0.5, middle - 0.4, 1.0, 0.8)
    return page.done()


def _step_rows(page, values, table, kept, levels, x: Number, place: int, scale: Number | None) -> None:
    """The tokens of one of the seven steps, with what this step does to them."""
    scale = scale or np.abs(table[kept, :7]).max()
    for token, y in zip(kept, levels, strict=True):
        if token == 0 and place == 1:
            continue
        role = _role(token)
        if place == 3 and values.positions is not None:
            page.strip(values.sequence[token], x - 0.56, y, 0.48, role, cells=4, scale=scale, height=0.15)
            page.sign(x, y, "+", 9)
            page.strip(values.positions[token], x + 0.08, y, 0.48, "position", cells=4, scale=scale, height=0.15)
            continue
        _thumb(page, values, token, x - 0.45, y, 0.2)
        if place == 5 and token and values.config.pooling == "class":
            page.frame(x - 0.28, y - 0.075, 0.8, 0.15, QUIET, 0.8)
            continue
        page.strip(table[token], x - 0.28, y, 0.8, role, cells=7, scale=scale, height=0.15)
