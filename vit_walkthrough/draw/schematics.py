"""Schematics of a model with its numbers, and the parts that show those: faces of tokens, strips of vectors, maps.

`slots` are numbers of tokens, with None for each gap.

draw_heads and draw_block raise ValueError for an image or a model of another config.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from matplotlib.axes import Axes

from vit_walkthrough.draw import layout
from vit_walkthrough.draw.images import blend
from vit_walkthrough.draw.layout import (
    INK,
    Number,
    Part,
    arrow,
    box,
    column,
    columns,
    dots,
    head,
    picture,
    row,
    shape,
    sign,
    strip,
    words,
)
from vit_walkthrough.draw.theme import ROLES, style
from vit_walkthrough.look.trace import record
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.vit import VisionTransformer


class Look:
    """What a model makes of an image: look["blocks.0.mlp"] are the numbers of that name in `record`, without batch.
    patch: the token of the patch at which the class token looks most in the last block."""

    note = "Real numbers of the trained model."

    def __init__(self, config: ViTConfig, image, model: VisionTransformer):
        if model.config != config:
            raise ValueError(f"the model's config is {model.config}, not {config}")
        self.config, self.image = config, torch.as_tensor(image)
        self.picture = np.broadcast_to(self.image.permute(1, 2, 0), (*self.image.shape[1:], 3)).clip(0, 1)
        with torch.no_grad(), record(model) as self.trace:
            model(self.image[None])
        self.patch = 1 + int(self.trace.attention[-1, 0, :, 0, 1:].mean(dim=0).argmax())

    def __getitem__(self, name: str) -> np.ndarray:
        return self.trace[name][0].numpy()

    def tile(self, patch: int) -> np.ndarray:
        side, (row, col) = self.config.patch_size, divmod(patch, self.config.cols)
        return self.picture[row * side : (row + 1) * side, col * side : (col + 1) * side]

    def seen(self, weights: np.ndarray) -> np.ndarray:
        """A row of attention weights, without the class token's, as light on the image."""
        return blend(self.image, weights[1:].reshape(self.config.rows, self.config.cols))


def spaced(tokens: set[int]) -> list[int | None]:
    """The tokens in order, with None wherever others are left out."""
    tokens = sorted(tokens)
    slots: list[int | None] = tokens[:1]
    for before, token in pairwise(tokens):
        slots += [token] if token == before + 1 else [None, token]
    return slots


def face(look: Look, token: int, side: Number = 0.28) -> Part:
    """A token's patch, or the star of the class token, which has no picture."""
    if token:
        return picture(look.tile(token - 1), side, side, edge=ROLES["patch"], line=1.2)
    return box(words("★", 8 + 12 * max(side - 0.25, 0), colour=ROLES["class"]), "class", side, side, line=1.2)


def faces(look: Look, slots: list, side: Number = 0.28) -> list[Part]:
    """A face for each token, its number to its left."""
    found = []
    for token in slots:
        shown = replace(dots(), width=side) if token is None else face(look, token, side)
        found.append(replace(row(words("" if token is None else f"{token:,}"), shown, across=0.07), align=1))
    return found


def scale_of(slots: list, *tables: np.ndarray, cells: int = 10) -> float:
    """The largest number that strips of these tables show."""
    kept = [token for token in slots if token is not None]
    return max(float(np.abs(table[kept, : cells - 2]).max()) for table in tables) or 1.0


def strips(table: np.ndarray, slots: list, width: Number, role="", *, cells=10, scale=0.0) -> list[Part]:
    """The rows of a table (tokens, numbers) that are drawn, on one scale."""
    look = dict(width=width, cells=cells, scale=scale or scale_of(slots, table, cells=cells))
    return [
        dots() if one is None else strip(table[one], role or ("patch" if one else "class"), **look) for one in slots
    ]


def scene(look: Look, room: Number, pixels=None) -> Part:
    """The image, or other pixels of its size, its longer side `room` inches."""
    pixels = look.picture if pixels is None else pixels
    height, width = room * np.array(pixels.shape[:2]) / max(pixels.shape[:2])
    return picture(pixels, width, height)


def plus(radius: Number = 0.13) -> Part:
    """The node where two streams are added."""

    def paint(sheet, x, y):
        arm = radius * 0.55
        sheet.rectangle(x, y, 2 * radius, 2 * radius, "white", level=layout.IMAGE, radius=radius)
        sheet.line((x - arm, y), (x + arm, y), colour=INK, width=1.8, level=layout.FRAME)
        sheet.line((x, y - arm), (x, y + arm), colour=INK, width=1.8, level=layout.FRAME)

    return Part(2 * radius, 2 * radius, paint)


def branch(sheet: layout.Page, fork: Number, norm: Part, step: Part, node: Part) -> None:
    """The arrows of a copy of the stream that goes through a norm and a step; the result is added to the stream."""
    sheet.arrow((node.x, fork), (norm.x, fork), (norm.x, norm.bottom), head=0.09)
    sheet.arrow((norm.x, norm.top), (step.x, step.bottom), head=0.09)
    sheet.arrow((step.x, step.top), (step.x, node.y), (node.right, node.y), level=layout.WIRE)


@style()
def draw_heads(config: ViTConfig, image, *, model, block: int = 0) -> Axes:
    """In every head the query of the class token meets everyone's keys, and its weights mix everyone's values; what the
    heads found is joined and mixed by U_msa."""
    look, count, pitch = Look(config, image, model), config.heads, 1.62
    kept = [0, 1, 2, count - 1] if count > 5 else list(range(count))
    names = ("queries", "keys", "values", "head_outputs", "weights")
    *read, found, weights = (look[f"blocks.{block}.attention.{name}"][kept] for name in names)
    slots = spaced({0, int(weights[:, 0].mean(0).argmax()), config.patches})
    scales = [np.abs(part[:, [0, *filter(None, slots)], :7]).max() for part in (*read, found)]
    labels = ["", "its query", "everyone's keys", "query · key,\nthen softmax", "its weights\n(pale: the largest)", ""]
    labels += ["everyone's values", "mixed by\nits weights", "what a head found", "", "joined"]
    side = [row(words(text), Part(0, 0)) for text in labels]
    side[0] = row(words("who asks"), face(look, 0))
    for place in (2, 6):
        named = words(f"{labels[place]}\n{config.tokens:,} × {config.head_dim}")
        side[place] = row(named, column(*faces(look, slots, 0.2), down=0.03), across=0.2)
    lists, down = [[replace(part, align=1) for part in side]], arrow(0.28, up=-1)
    for place, number in enumerate(kept):
        slim = dict(width=1.36, cells=9)
        query = strip(read[0][place, 0], "query", scale=scales[0], **slim)
        keys, values = (
            column(*strips(read[part][place], slots, role=role, scale=scales[part], **slim), down=0.03)
            for part, role in ((1, "key"), (2, "value"))
        )
        seen = scene(look, 1.2, look.seen(weights[place, 0]))
        output = found[place, 0]
        single, joined = (strip(output, "patch", width, cells=9, scale=scales[3]) for width in (1.36, pitch))
        lists.append([head(f"head {number}"), query, keys, down, seen, down, values, down, single, down, joined])
    if count > 5:
        gap = layout.dots(down=False)
        joined = box(gap, "patch", pitch, 0.2, fill="white", line=1.6, radius=0.0)
        lists.insert(4, [words(f"{count - 4} more"), gap, gap, None, gap, None, gap, None, gap, None, joined])
    matrix = model.blocks[block].attention.projection.weight.detach().numpy().T
    one = column(head(f"1 of {config.tokens:,}"), words(f"rows of {config.dim:,} numbers"), down=-0.01)
    mixed = row(
        sign("×"),
        layout.matrix(matrix[:6, :12], 0.8, 0.4),
        words("$U_{msa}$", 12, colour=layout.INK),
        arrow(0.5),
        strip(look[f"blocks.{block}.attention.projection"][0], "patch", 2.4, cells=14),
        one,
    )
    body = column(columns(*lists, across=0, down=0.08), one, mixed)
    title = "Every head asks every token, and the answers are joined"
    how = f"Each head makes a query, a key and a value of {config.head_dim:,} numbers from every token."
    maps = f"heads × queries × keys = {count} × {config.tokens:,} × {config.tokens:,}"
    return layout.page(title, how, body, f"{look.note} ★, the class token, asks. All maps are {maps}.").done()


@style()
def draw_block(config: ViTConfig, image, *, model) -> Axes:
    """One encoder block from bottom to top: the residual stream straight up, attention and MLP beside it."""
    look = Look(config, image, model)
    both, maps = [0, look.patch], f"{config.heads} map{'s' * (config.heads > 1)} of {config.tokens:,}"
    size, empty, branches, stream = shape(config, "tokens dim"), [None] * 4, [], ("", ".norm_2.input", ".norm_1.input")
    scale = scale_of(both, *(look[f"blocks.0{name}"] for name in (*stream, ".attention", ".mlp")))

    def card(name: str, tokens: list, scale: layout.Number = 0) -> Part:
        faces, numbers = [face(look, token, 0.22) for token in tokens], look[f"blocks.0{name}"]
        both = columns(faces, strips(numbers, tokens, 1.44, scale=scale), across=0.1, down=0, high=0.3)
        return box(both, pad=0.06, fill="white", edge=layout.QUIET, line=1)

    last, middle, first = (card(name, both, scale) for name in stream)
    rows = [[*empty, Part(0, 0.1)], [size, last, None, None, None]]
    for step, norm, role, below, said, counted in (
        ("mlp", "norm_2", "value", middle, "each token by itself:", f"inside: {config.tokens:,} × {config.hidden:,}"),
        ("attention", "norm_1", "query", first, "between the tokens:", f"{maps} × {config.tokens:,}"),
    ):
        added, normed = card(f".{step}", both[1:], scale), card(f".{norm}", both[1:])
        node, layer_norm = plus(), box("LayerNorm", width=1.6)
        work = box(head("MLP" if step == "mlp" else step, 12), role, 1.6, 0.62)
        notes = replace(column(words(said, align=0), head(counted, align=0), down=0.03), align=0)
        rows += [[None, node, added, None, None], [None, None, None, work, notes]]
        rows += [[None, None, None, layer_norm, normed], [*empty, None], [size, below, None, None, None]]
        branches.append((layer_norm, work, node, normed, added, below))
    how = "The stream goes straight up. Attention and the MLP read a normalised copy, and what they find is added."
    note = f"{look.note} ★ is the class token, the other is token {look.patch:,}."
    sheet = layout.page("An encoder block only adds to the tokens", how, layout.grid(rows, 0.28, 0.17), note)
    sheet.arrow((first.x, first.bottom - 0.15), (first.x, last.top + 0.3), level=layout.WIRE)
    for layer_norm, work, node, normed, added, below in branches:
        branch(sheet, (layer_norm.bottom + below.top) / 2, layer_norm, work, node)
        sheet.line((layer_norm.right, normed.y), (normed.left, normed.y), width=0.9, colour=layout.QUIET)
        sheet.put(words("what is added"), added.x, added.top + 0.1)
    return sheet.done()
