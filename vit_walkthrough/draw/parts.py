"""The parts of a schematic that show a model's numbers: faces of tokens, strips of vectors, maps on the image.

All drawings follow the same few tokens. `slots` are their numbers, with None for each gap.
"""

import copy
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from vit_walkthrough.data import photo
from vit_walkthrough.draw import layout
from vit_walkthrough.draw.images import blend, tiled
from vit_walkthrough.draw.layout import INK, Number, Part, box, column, dots, picture, row, strip, words
from vit_walkthrough.draw.theme import ROLES
from vit_walkthrough.look.trace import Trace, record
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.vit import VisionTransformer


@lru_cache(maxsize=2)
def random_model(config: ViTConfig) -> VisionTransformer:
    """A model with random weights so large that every strip shows something; of a wide config it has one block, because
    more would take long to fill."""
    depth = config.depth if config.dim < 256 else 1
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = VisionTransformer(replace(config, depth=depth)).eval()
        for name, parameter in model.named_parameters():
            fan_in = parameter.shape[1] if parameter.ndim == 2 else 3
            bound = (3 / fan_in) ** 0.5 if parameter.ndim > 1 else 0.1
            if "norm" not in name:
                parameter.uniform_(-bound, bound)
    return model


class Look:
    """What a model makes of an image: look["blocks.0.mlp"] are the numbers of that name in `record`, without batch."""

    def __init__(self, config: ViTConfig, image, model: VisionTransformer | None, head: bool = False):
        if image is None:
            cat = photo("cat", (config.height, config.width))
            image = cat if config.channels == 3 else cat.mean(dim=0, keepdim=True)
        self.image = torch.as_tensor(image, dtype=torch.float32).detach().cpu()
        expected = (config.channels, config.height, config.width)
        if tuple(self.image.shape) != expected:
            told = f"the image is {tuple(self.image.shape)}, but the config says (channels, height, width) = {expected}"
            raise ValueError(f"{told}; load_image(source, size) resizes a picture")
        if model is not None and model.config != config:
            raise ValueError(f"the model's config is {model.config}, not {config}")
        if head and model is not None and isinstance(model.head.logits, nn.Identity):
            raise ValueError("this model has no classification head to draw; converted with classes=10 it gets one")
        self.config, self._given = config, model
        self.note = f"Real numbers of {'the trained model' if model else 'random weights, which mean nothing yet'}."
        self.picture = np.broadcast_to(self.image.permute(1, 2, 0), (*self.image.shape[1:], 3)).clip(0, 1)
        self.eye = int(0.48 * config.rows) * config.cols + int(0.76 * config.cols) + 1  # the token at the cat's eye

    @cached_property
    def model(self) -> VisionTransformer:
        if self._given is None:
            return random_model(self.config)
        return copy.deepcopy(self._given).cpu().float().eval()  # the reader's own stays as it is

    @cached_property
    def trace(self) -> Trace:
        with torch.no_grad(), record(self.model) as trace:
            self.model(self.image[None])
        return trace

    def __getitem__(self, name: str) -> np.ndarray:
        return self.trace[name][0].numpy()

    def weight(self, path: str) -> np.ndarray:
        """(in out): the matrix of a linear layer."""
        return self.model.get_submodule(path).weight.detach().numpy().T

    @property
    def features(self) -> np.ndarray:
        """(dim): what the classification head reads."""
        return self.model.pool(self.trace["norm"])[0].numpy()

    @property
    def ran(self) -> str:
        """The note, and how many blocks were left out before the last numbers."""
        ran, depth = len(self.model.blocks), self.config.depth
        return self.note if ran == depth else f"{self.note} Shown after {ran} of the {depth} blocks."

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


def apart(look: Look, room: Number) -> Part:
    """The patches pulled apart, in their places."""
    pitch = max(4, 560 // max(look.config.rows, look.config.cols))
    kept = max(2, round(0.88 * pitch))
    pick = np.arange(kept) * look.config.patch_size // kept
    patches = np.stack([look.tile(patch)[pick][:, pick] for patch in range(look.config.patches)])
    canvas, _ = tiled(patches, look.config.cols, pitch - kept)
    height, width = room * np.array(canvas.shape[:2]) / max(canvas.shape[:2])
    return picture(canvas, width, height, line=0)


def bars(look: Look, width: Number, height: Number) -> Part:
    """The probabilities of the first classes, the likeliest and the last; the likeliest, if there is one, is filled."""
    numbers = look.trace["head"][0].softmax(dim=0).numpy()
    best = int(numbers.argmax())
    equal = np.ptp(numbers) == 0 and len(numbers) > 1
    classes = sorted({*range(min(len(numbers), 9)), best, len(numbers) - 1})
    pitch = width / len(classes)

    def paint(sheet, x, y):
        for place, index in enumerate(classes):
            tall = max(height * numbers[index] / numbers[best], 0.012)
            fill = ROLES["class"] if index == best and not equal else layout.pale("class", 0.35)
            middle = x - width / 2 + (place + 0.5) * pitch, y - height / 2 + tall / 2
            sheet.rectangle(*middle, 0.8 * pitch, tall, fill, ROLES["class"], 0.8)
        sheet.line((x - width / 2, y - height / 2), (x + width / 2, y - height / 2), width=1)

    name = words(f"{'each class' if equal else f'class {best}'}: {numbers[best]:.1%}")
    return column(name, Part(width, height, paint), words(f"{len(classes)} of {len(numbers):,} classes"), down=0.05)


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
