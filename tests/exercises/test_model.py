"""Notebook 07."""

import copy
import math

import torch
from torch import nn

from tests.exercises.trials import test_in_time, test_right_answers_pass, test_wrong_answers_get_their_sentence  # noqa: F401
from vit_walkthrough import VisionTransformer, ViTConfig
from vit_walkthrough.exercises import (
    check_added_parameters,
    check_largest_side,
    check_mean_over,
    check_stack,
)


def with_sizes(count):
    """An answer to check_added_parameters from count(config, height, width, classes)."""

    def added(config, image_size, classes):
        height, width = image_size if isinstance(image_size, tuple) else (image_size, image_size)
        return count(config, height, width, classes)

    return added


def built(config, image_size, classes):
    sizes = dict(patch_size=config.patch_size, channels=config.channels, dim=config.dim, depth=1)
    sizes |= dict(heads=config.heads, hidden=config.hidden)
    with torch.device("meta"):
        new = VisionTransformer(ViTConfig(image_size, classes=classes, **sizes))
        old = VisionTransformer(ViTConfig(config.image_size, classes=config.classes, **sizes))
    return sum(p.numel() for p in new.parameters()) - sum(p.numel() for p in old.parameters())


def from_another_config(config, image_size, classes):
    new = ViTConfig(image_size, config.patch_size, dim=config.dim, heads=config.heads, classes=classes)
    return new.dim * (new.tokens - config.tokens + new.classes - config.classes) + new.classes - config.classes


def grid(config, height, width):
    return height // config.patch_size * (width // config.patch_size)


def mean_in_loops(tokens, mask):
    means = []
    for image, wanted in zip(tokens, mask, strict=True):
        chosen = [token for token, wants in zip(image[1:], wanted.tolist(), strict=True) if wants]
        means.append(torch.stack(chosen).mean(0))
    return torch.stack(means)


def mean_by_einsum(tokens, mask):
    weights = mask / mask.sum(1, keepdim=True)
    return torch.einsum("bpd,bp->bd", tokens[:, 1:], weights)


def mean_by_filling(tokens, mask):
    return tokens[:, 1:].masked_fill(~mask[:, :, None], float("nan")).nanmean(1)


class Listed(nn.Module):
    """With a plain list, of which nn.Module knows nothing, or whatever `container` makes of it."""

    def __init__(self, make_block, depth, container=list, run=lambda blocks: blocks):
        super().__init__()
        self.blocks, self.run = container([make_block() for _ in range(depth)]), run

    def forward(self, tokens):
        for block in self.run(self.blocks):
            tokens = block(tokens)
        return tokens


class Half(nn.Module):
    """One block kept as it should be, the others in a plain list."""

    def __init__(self, blocks):
        super().__init__()
        self.first, self.others = blocks[0], blocks[1:]

    def __iter__(self):
        return iter([self.first, *self.others])


class Registered(nn.Module):
    def __init__(self, make_block, depth):
        super().__init__()
        for layer in range(depth):
            self.add_module(f"block {layer}", make_block())

    def forward(self, tokens):
        for block in self.children():
            tokens = block(tokens)
        return tokens


class Parallel(Listed):
    def __init__(self, make_block, depth, join):
        super().__init__(make_block, depth, nn.ModuleList)
        self.join = join

    def forward(self, tokens):
        return self.join([block(tokens) for block in self.blocks])


def shared(make_block, depth):
    return nn.Sequential(*[make_block()] * depth)


def cloned(make_block, depth):
    block = make_block()
    return nn.Sequential(*(copy.deepcopy(block) for _ in range(depth)))


def sequential(make_block, depth):
    return nn.Sequential(*(make_block() for _ in range(depth)))


def by_search(tokens=lambda side: side**2 + 1, squared=lambda tokens: tokens**2, maps=lambda c: c.depth * c.heads,
              number=4, fits=lambda size, budget: size <= budget, pick=lambda sides: sides[-1]):  # fmt: skip
    """An answer to check_largest_side that tries one side after another."""

    def largest_side(config, budget):
        sides = range(1, 1000)
        fitting = [s for s in sides if fits(number * maps(config) * squared(tokens(s)), budget)]
        return pick([0, *fitting]) * config.patch_size

    return largest_side


def by_formula(config, budget):
    tokens = math.isqrt(budget // (4 * config.depth * config.heads))
    return math.isqrt(tokens - 1) * config.patch_size


def in_pixels(config, budget):
    side = config.patch_size
    while 4 * config.depth * config.heads * ((side // config.patch_size) ** 2 + 1) ** 2 <= budget:
        side += config.patch_size
    return side - config.patch_size


class Chain(nn.Module):
    """A right stack that spoils its result at the end."""

    def __init__(self, blocks, spoil):
        super().__init__()
        self.blocks, self.spoil = nn.Sequential(*blocks), spoil

    def forward(self, tokens):
        return self.spoil(self.blocks(tokens))


def chain(spoil):
    return lambda make_block, depth: Chain([make_block() for _ in range(depth)], spoil)


RIGHT = {
    check_added_parameters: {
        "arithmetic": with_sizes(
            lambda c, h, w, n: c.dim * (grid(c, h, w) - c.patches) + (c.dim + 1) * (n - c.classes)
        ),
        "built": built,
        "another config": from_another_config,
    },
    check_mean_over: {
        "loops": mean_in_loops,
        "einsum": mean_by_einsum,
        "filled": mean_by_filling,
        "sum": lambda tokens, mask: (tokens[:, 1:] * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True),
        "matrices": lambda tokens, mask: ((mask.float() / mask.sum(1)[:, None]).unsqueeze(1) @ tokens[:, 1:]).squeeze(
            1
        ),
    },
    check_stack: {
        "sequential": sequential,
        "module list": lambda make_block, depth: Listed(make_block, depth, nn.ModuleList),
        "registered": Registered,
    },
    check_largest_side: {
        "search": by_search(),
        "formula": by_formula,
        "pixels": in_pixels,
        "roots": lambda c, budget: int((((budget / (4 * c.depth * c.heads)) ** 0.5) - 1) ** 0.5) * c.patch_size,
    },
}

WRONG = {
    check_added_parameters: {
        "head alone": (with_sizes(lambda c, h, w, n: (c.dim + 1) * (n - c.classes)), "That is the head alone"),
        "positions alone": (
            with_sizes(lambda c, h, w, n: c.dim * (grid(c, h, w) - c.patches)),
            "Those are the positions alone",
        ),
        "no biases": (
            with_sizes(lambda c, h, w, n: c.dim * (grid(c, h, w) - c.patches + n - c.classes)),
            "The head's biases are missing",
        ),
        "unsigned": (
            with_sizes(lambda c, h, w, n: c.dim * abs(grid(c, h, w) - c.patches) + (c.dim + 1) * abs(n - c.classes)),
            "Each change was taken as growth",
        ),
        "backwards": (lambda *case: -from_another_config(*case), "Old minus new"),
        "all that is new": (
            with_sizes(lambda c, h, w, n: c.dim * (grid(c, h, w) + 1) + (c.dim + 1) * n),
            "Those are all positions and the whole new head",
        ),
        "a class token more": (lambda c, *new: from_another_config(c, *new) + c.dim, "One position too many"),
        "rows alone": (
            with_sizes(lambda c, h, w, n: c.dim * (h // c.patch_size - c.rows) + (c.dim + 1) * (n - c.classes)),
            "Only the rows of patches were counted",
        ),
        "pixels": (
            with_sizes(lambda c, h, w, n: c.dim * (h * w - c.height * c.width) + (c.dim + 1) * (n - c.classes)),
            "Every pixel got a position",
        ),
        "hidden layer": (
            lambda config, *new: from_another_config(config, *new) + config.hidden,
            "The positions change by +140 and the head by +22",
        ),
        "square": (
            with_sizes(lambda c, h, w, n: from_another_config(c, h, n)),
            "The new image was taken for a square",
        ),
        "float": (
            with_sizes(
                lambda c, h, w, n: c.dim * (h * w / c.patch_size**2 - c.patches) + (c.dim + 1) * (n - c.classes)
            ),
            "/ makes floats where // is meant",
        ),
    },
    check_mean_over: {
        "class token in it": (
            lambda x, mask: mean_by_einsum(
                torch.cat([x[:, :1], x], 1), torch.cat([torch.ones(len(mask), 1, dtype=torch.bool), mask], 1)
            ),
            "The class token is in the mean",
        ),
        "one place early": (
            lambda x, mask: torch.einsum("bpd,bp->bd", x[:, :-1], mask / mask.sum(1, keepdim=True)),
            "The mask lies one place too early",
        ),
        "of all patches": (lambda x, mask: (x[:, 1:] * mask.unsqueeze(2)).mean(1), "Divided by the number of all"),
        "sum": (lambda x, mask: torch.einsum("bpd,bp->bd", x[:, 1:], mask.float()), "That is the sum"),
        "of the batch": (
            lambda x, mask: torch.einsum("bpd,bp->bd", x[:, 1:], mask / mask.sum()),
            "Divided by the number of True in the whole batch",
        ),
        "no mask": (lambda x, mask: x[:, 1:].mean(1), "That is the mean of all patches"),
        "the others": (lambda x, mask: mean_by_einsum(x, ~mask), "The mask was read the wrong way round"),
        "first mask": (lambda x, mask: mean_by_einsum(x, mask[:1].expand_as(mask)), "the mask of the first was used"),
        "maximum": (
            lambda x, mask: x[:, 1:].masked_fill(~mask[:, :, None], -1e9).amax(1),
            "That is the maximum",
        ),
        "class token": (lambda x, mask: x[:, 0], "That is the class token"),
        "one heap": (lambda x, mask: x[:, 1:][mask].mean(0), "The patches of all images went into one mean"),
        "over dim": (
            lambda x, mask: torch.einsum("bpd,bp->bp", x[:, 1:], mask / x.shape[2]),
            "The mean ran over dim",
        ),
        "median": (
            lambda x, mask: x[:, 1:].masked_fill(~mask[:, :, None], float("nan")).nanmedian(1).values,
            "returned the right shape, but wrong numbers",
        ),
    },
    check_stack: {
        "one axis lost": (chain(lambda tokens: tokens[:, 0]), "'0 becomes': 'a tensor of shape (1, 3)"),
        "a bit more": (chain(lambda tokens: tokens + 0.5), "'0 becomes': 123.5"),
        "NaN": (chain(lambda tokens: tokens / 0 * 0), "'0 becomes': 'a tensor of shape (1, 2, 3), not all of it nan"),
        "a NumPy array": (chain(lambda tokens: tokens.numpy()), "'0 becomes': 'a NumPy array'"),
        "shared": (shared, "One block stands in every place"),
        "shared in a list": (
            lambda make_block, depth: Listed(make_block, depth, lambda blocks: nn.ModuleList(blocks[:1] * depth)),
            "One block stands in every place",
        ),
        "not called": (
            lambda make_block, depth: nn.Sequential(*[make_block] * depth),
            "<lambda> takes make_block itself for a block",
        ),
        "not called, in a list": (
            lambda make_block, depth: Listed(lambda: make_block, depth),
            "<lambda> takes make_block itself for a block",
        ),
        "copies": (cloned, "The blocks are copies of the first"),
        "plain list": (Listed, "parameters() does not see the blocks"),
        "no module": (
            lambda make_block, depth: Listed(make_block, depth).forward,
            "parameters() does not see the blocks",
        ),
        "backwards": (
            lambda make_block, depth: Listed(make_block, depth, nn.ModuleList, reversed),
            "The blocks run in the opposite order",
        ),
        "one too few": (lambda make_block, depth: sequential(make_block, depth - 1), "One block too few"),
        "one too many": (lambda make_block, depth: sequential(make_block, depth + 1), "One block too many"),
        "all read the input": (
            lambda make_block, depth: Parallel(make_block, depth, lambda results: results[-1]),
            "and only the last was heard",
        ),
        "sum": (lambda make_block, depth: Parallel(make_block, depth, sum), "and the results were added"),
        "first only": (
            lambda make_block, depth: Listed(make_block, depth, nn.ModuleList, lambda blocks: blocks[:1]),
            "Only the first block runs",
        ),
        "residual": (
            lambda make_block, depth: Parallel(make_block, depth, lambda results: 2 * results[0]),
            "3 blocks, one after another, make 123 of 0",
        ),
        "half of them": (
            lambda make_block, depth: Listed(make_block, depth, Half),
            "parameters() sees 1 of them, but there are 3 blocks",
        ),
        "list": (lambda make_block, depth: [make_block() for _ in range(depth)], "That is no module yet"),
        "module list": (
            lambda make_block, depth: nn.ModuleList(make_block() for _ in range(depth)),
            "nn.ModuleList keeps the blocks, but does not call them",
        ),
        "no return": (lambda make_block, depth: Parallel(make_block, depth, lambda results: None), "returns nothing"),
    },
    check_largest_side: {
        "one more": (by_search(pick=lambda sides: sides[-1] + 1), "One row of patches too many"),
        "below the budget": (by_search(fits=lambda size, budget: size < budget), "One row of patches more would fit"),
        "one less": (by_search(pick=lambda sides: sides[-1] - 1), "would fit: take the last that fits"),
        "patches": (lambda c, budget: by_formula(c, budget) // c.patch_size, "That is how many patches lie along"),
        "no class token": (by_search(tokens=lambda side: side**2), "The class token is missing"),
        "not squared": (by_search(squared=lambda tokens: tokens), "A map was taken for as large as the sequence"),
        "no bytes": (by_search(number=1), "Numbers were counted, not bytes"),
        "one layer": (by_search(maps=lambda c: c.heads), "Only one layer was counted"),
        "one head": (by_search(maps=lambda c: c.depth), "Only one map was counted for each layer"),
        "one map": (by_search(maps=lambda c: 1), "Only one map was counted: every head of every layer"),
        "no whole patches": (
            lambda c, budget: int(math.sqrt(math.sqrt(budget / 4 / c.depth / c.heads) - 1) * c.patch_size),
            "That side cannot be cut into whole patches",
        ),
        "half precision": (by_search(number=2), "2 bytes were counted for a number"),
        "double precision": (by_search(number=8), "There is room for more"),
    },
}
