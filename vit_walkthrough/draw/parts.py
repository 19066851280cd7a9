"""The parts of a schematic that show a model's numbers: faces of tokens, strips of vectors, maps on the image. All
drawings follow the same few tokens; `slots` are their numbers, with None for each gap."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from vit_walkthrough.draw import layout
from vit_walkthrough.draw.images import blend
from vit_walkthrough.draw.layout import INK, Number, Part, box, dots, picture, row, strip, words
from vit_walkthrough.draw.theme import ROLES
from vit_walkthrough.look.trace import record
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.vit import VisionTransformer


class Look:
    """What a model makes of an image: look["blocks.0.mlp"] are the numbers of that name in `record`, without batch."""

    note = "Real numbers of the trained model."

    def __init__(self, config: ViTConfig, image, model: VisionTransformer):
        if model.config != config:
            raise ValueError(f"the model's config is {model.config}, not {config}")
        self.config, self.model, self.image = config, model, torch.as_tensor(image)
        self.picture = np.broadcast_to(self.image.permute(1, 2, 0), (*self.image.shape[1:], 3)).clip(0, 1)
        self.eye = int(0.48 * config.rows) * config.cols + int(0.76 * config.cols) + 1  # the token at the cat's eye
        with torch.no_grad(), record(model) as self.trace:
            model(self.image[None])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.trace[name][0].numpy()

    def weight(self, path: str) -> np.ndarray:
        """(in out): the matrix of a linear layer."""
        return self.model.get_submodule(path).weight.detach().numpy().T

    def tile(self, patch: int) -> np.ndarray:
        side, (row, col) = self.config.patch_size, divmod(patch, self.config.cols)
        return self.picture[row * side : (row + 1) * side, col * side : (col + 1) * side]

    def seen(self, weights: np.ndarray) -> np.ndarray:
        """A row of attention weights, without the class token's, as light on the image."""
        return blend(self.image, weights[1:].reshape(self.config.rows, self.config.cols))


def followed(look: Look, first: int = 0) -> list[int | None]:
    """The class token, the first two patches, the eye and the last; from `first` = 1 on, the patches alone."""
    return spaced({0, 1, 2, look.eye, look.config.tokens - 1} & set(range(first, look.config.tokens)))


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


def faces(look: Look, slots: list, side: Number = 0.28, less: int = 0) -> list[Part]:
    """A face for each token, its number to its left; `less` is taken off where patches are counted."""
    found = []
    for token in slots:
        number = "" if token is None or token < less else f"{token - less:,}"
        shown = replace(dots(), width=side) if token is None else face(look, token, side)
        found.append(replace(row(words(number), shown, across=0.07), align=1))
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


def stack(*lists: list, high: Number = 0.4) -> Part:
    """Lists of what belongs to the tokens, side by side, one token a row."""
    return layout.columns(*lists, across=0.1, down=0, high=high)


def scene(look: Look, room: Number, pixels=None, query: int = 0) -> Part:
    """The image, or other pixels of its size, its longer side `room` inches; the query's patch, if any, is outlined."""
    pixels = look.picture if pixels is None else pixels
    height, width = room * np.array(pixels.shape[:2]) / max(pixels.shape[:2])
    plain, wide, high = picture(pixels, width, height), width / look.config.cols, height / look.config.rows

    def paint(sheet, x, y):
        sheet.put(plain, x, y)
        row, col = divmod(query - 1, look.config.cols)
        for colour, line in (("white", 3.4), (ROLES["query"], 1.8)) if query else ():
            middle = plain.left + (col + 0.5) * wide, plain.top - (row + 0.5) * high
            sheet.rectangle(*middle, wide, high, edge=colour, line=line)

    return Part(width, height, paint)


def plus(radius: Number = 0.13) -> Part:
    """The node where two streams are added."""

    def paint(sheet, x, y):
        arm = radius * 0.55
        sheet.rectangle(x, y, 2 * radius, 2 * radius, "white", level=layout.IMAGE, radius=radius)
        sheet.line((x - arm, y), (x + arm, y), colour=INK, width=1.8, level=layout.FRAME)
        sheet.line((x, y - arm), (x, y + arm), colour=INK, width=1.8, level=layout.FRAME)

    return Part(2 * radius, 2 * radius, paint)


def branch(sheet: layout.Page, fork: Number, norm: Part, step: Part, plus: Part) -> None:
    """The arrows of a copy of the stream that goes through a norm and a step; the result is added to the stream."""
    sheet.arrow((plus.x, fork), (norm.x, fork), (norm.x, norm.bottom), head=0.09)
    sheet.arrow((norm.x, norm.top), (step.x, step.bottom), head=0.09)
    sheet.arrow((step.x, step.top), (step.x, plus.y), (plus.right, plus.y), level=layout.WIRE)
