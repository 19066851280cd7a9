"""Notebook 07: the sizes of the whole, what its head reads, and the blocks in a row."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from vit_walkthrough.exercises.examine import Wrong, called, examine, named
from vit_walkthrough.model.config import ViTConfig

# ------------------------------------------------------------------------------------------------ another task


def _sides(image_size) -> tuple[int, int]:
    return image_size if isinstance(image_size, tuple) else (image_size, image_size)


def _patches(image_size, patch_size: int) -> int:
    height, width = _sides(image_size)
    return len([(y, x) for y in range(0, height, patch_size) for x in range(0, width, patch_size)])


def _added(config: ViTConfig, image_size, classes: int, *, positions=1, weights=1, biases=1) -> int:
    """What comes to the positions and to the head, each taken so many times."""
    more = _patches(image_size, config.patch_size) - _patches((config.height, config.width), config.patch_size)
    head = weights * config.dim + biases
    return positions * more * config.dim + head * (classes - config.classes)


def _unsigned(config: ViTConfig, image_size, classes: int) -> int:
    positions = _added(config, image_size, config.classes)
    return abs(positions) + abs(_added(config, image_size, classes) - positions)


def _new_ones(config: ViTConfig, image_size, classes: int) -> int:
    return (_patches(image_size, config.patch_size) + 1) * config.dim + (config.dim + 1) * classes


def _by_rows(config: ViTConfig, image_size, classes: int) -> int:
    rows = (_sides(image_size)[0] - config.height) // config.patch_size
    return rows * config.dim + _added(config, (config.height, config.width), classes)


def _by_pixels(config: ViTConfig, image_size, classes: int) -> int:
    height, width = _sides(image_size)
    pixels = height * width - config.height * config.width
    return pixels * config.dim + _added(config, (config.height, config.width), classes)


def _about_parts(case: dict, expected: int, got: int) -> str:
    head = _added(**case, positions=0)
    return f"The positions change by {expected - head:+,} and the head by {head:+,}; nothing else changes"


def check_added_parameters(yours: Callable, seed: int = 0) -> None:
    """yours(config, image_size, classes): how many parameters more the model has with this image size and so many
    classes; below zero if it has fewer."""
    numbers = np.random.default_rng(seed)
    small = ViTConfig((4, 6), 2, channels=1, dim=10, depth=2, heads=2, hidden=7, classes=3)
    cases = [
        dict(config=small, image_size=(8, 10), classes=5),
        dict(config=ViTConfig.named("B/16"), image_size=384, classes=10),
    ]
    for _ in range(2):
        side, (rows, cols, to_rows, to_cols) = int(numbers.integers(2, 9)), numbers.permutation(9)[:4].tolist()
        config = ViTConfig(((rows + 1) * side, (cols + 1) * side), side, dim=12, depth=3, heads=3, hidden=20, classes=7)
        image_size = ((to_rows + 1) * side, (to_cols + 1) * side)
        cases.append(dict(config=config, image_size=image_size, classes=int(numbers.integers(8, 30))))

    mistakes = {
        "That is the head alone: every patch has a position of dim numbers, and the number of patches changes too": (
            partial(_added, positions=0)
        ),
        "Those are the positions alone: the head changes too, by dim weights and a bias for every class": (
            partial(_added, weights=0, biases=0)
        ),
        "The head's biases are missing: a class has dim weights and one bias": partial(_added, biases=0),
        "Each change was taken as growth: fewer classes, or fewer patches, are fewer numbers": _unsigned,
        "Old minus new: a model that grows has more parameters, so the answer is above zero": (
            lambda *case: -_added(*case)
        ),
        "Those are all positions and the whole new head; asked is how many more they are than the old ones": _new_ones,
        "One position too many: the class token has had one before": (
            lambda config, image_size, classes: _added(config, image_size, classes) + config.dim
        ),
        "Only the rows of patches were counted: each row has as many patches as there are cols": _by_rows,
        "Every pixel got a position; it is every patch that has one": _by_pixels,
        "The new image was taken for a square: rows come from its height, cols from its width": (
            lambda config, image_size, classes: _added(config, _sides(image_size)[0], classes)
        ),
    }
    examine(
        yours,
        _added,
        cases,
        mistakes,
        diagnose=[_about_parts],
        holds="Another image size changes the positions, other classes change the head, and nothing else changes.",
    )


# ------------------------------------------------------------------------------------------------ what the head reads


def _mean_over(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    batch, count, dim = tokens.shape
    means = np.zeros((batch, dim))
    for image in range(batch):
        seen = [tokens[image, patch + 1] for patch in range(count - 1) if mask[image, patch]]
        for place in range(dim):
            means[image, place] = sum(token[place] for token in seen) / len(seen)
    return means


def _with_class_token(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    seen = np.pad(mask, ((0, 0), (1, 0)), constant_values=True)[:, :, None]
    return (tokens * seen).sum(1) / seen.sum(1)


def _largest(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask[:, :, None], tokens[:, 1:], -np.inf).max(1)


def check_mean_over(yours: Callable, seed: int = 0) -> None:
    """yours(tokens, mask): the mean of those patches where mask (batch patches) is True, in tokens
    (batch tokens dim) that begin with the class token: (batch dim)."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor([[[9.0, 50.0], [2.0, 10.0], [4.0, 40.0], [7.0, 0.0]]])
    cases = [dict(tokens=tokens, mask=torch.tensor([[True, True, False]]))]
    for batch, patches, dim in ((2, 5, 3), (3, 8, 4)):
        seen = torch.arange(2, 2 + batch)[:, None]  # so many in each image, of any place
        mask = torch.rand(batch, patches, generator=generator).argsort(1) < seen
        cases.append(dict(tokens=torch.randn(batch, patches + 1, dim, generator=generator), mask=mask))

    mistakes = {
        "The class token is in the mean: the mask speaks of patches, and the class token is none": _with_class_token,
        "The mask lies one place too early: token 0 is the class token, so patch 0 is token 1": (
            lambda tokens, mask: _mean_over(np.concatenate([tokens[:, :1], tokens[:, :-1]], 1), mask)
        ),
        "Divided by the number of all patches; divide by how many of this image the mask lets through": (
            lambda tokens, mask: (tokens[:, 1:] * mask[:, :, None]).mean(1)
        ),
        "That is the sum of those patches: divide it by how many they are": (
            lambda tokens, mask: (tokens[:, 1:] * mask[:, :, None]).sum(1)
        ),
        "Divided by the number of True in the whole batch; every image has a count of its own": (
            lambda tokens, mask: (tokens[:, 1:] * mask[:, :, None]).sum(1) / mask.sum()
        ),
        "That is the mean of all patches: those where the mask is False must not count": (
            lambda tokens, mask: tokens[:, 1:].mean(1)
        ),
        "The mask was read the wrong way round: True is a patch that counts": (
            lambda tokens, mask: _mean_over(tokens, ~mask)
        ),
        "In all images the mask of the first was used: every image has a mask of its own": (
            lambda tokens, mask: _mean_over(tokens, mask[:1].repeat(len(mask), 0))
        ),
        "That is the maximum, number by number; asked is the mean": _largest,
        "That is the class token; asked is the mean of the patches": lambda tokens, mask: tokens[:, 0],
        "The patches of all images went into one mean: an index by the mask forgets which image a patch is of": (
            lambda tokens, mask: tokens[:, 1:][mask].mean(0)
        ),
        "The mean ran over dim, so a number for each patch came out; it must run over the patches": (
            lambda tokens, mask: (tokens[:, 1:] * mask[:, :, None]).mean(2)
        ),
    }
    examine(
        yours,
        _mean_over,
        cases,
        mistakes,
        axes="batch dim",
        holds="The mean of each image's own patches under the mask, and the class token is not in it.",
    )


# ------------------------------------------------------------------------------------------------ blocks in a row


class _Digit(nn.Module):
    """A block so small that one can read what it did: it writes its digit behind the number that it gets."""

    def __init__(self, digit: int):
        super().__init__()
        self.digit = nn.Parameter(torch.tensor(float(digit)))

    def forward(self, tokens: Tensor) -> Tensor:
        return 10 * tokens + self.digit


class _Blocks:
    """make_block: each call makes the block of the next digit, and after the last the first comes again."""

    def __init__(self, digits: list[int]):
        self.digits, self.made = digits, 0

    def __call__(self, *tokens: Tensor) -> _Digit:
        if tokens:
            raise TypeError(f"{type(self).__name__} makes blocks, and is none")
        self.made += 1
        return _Digit(self.digits[(self.made - 1) % len(self.digits)])


def _run(yours: Callable, make_block: _Blocks, depth: int):
    """What _what_becomes says, where make_block was called at all."""
    try:
        return _what_becomes(yours, make_block, depth)
    except TypeError as error:
        if _Blocks.__name__ not in str(error):
            raise
        raise Wrong(
            f"{named(yours)} takes make_block itself for a block: only make_block(), with the brackets, makes one"
        ) from None


def _what_becomes(yours: Callable, make_block: _Blocks, depth: int):
    """What a reader's stack makes of 0, and how many parameters are seen in it."""
    stack = yours(_Blocks(make_block.digits), depth)
    if stack is ... or stack is None:
        return stack
    found = sum(parameter.numel() for parameter in stack.parameters()) if isinstance(stack, nn.Module) else 0
    if isinstance(stack, nn.ModuleList) or not callable(stack):
        return _outcome("nothing", found)
    with torch.no_grad():
        result = stack(torch.zeros(1, 2, 3))
    if isinstance(result, Tensor):
        first = result.flatten()[0].item() if result.numel() else math.nan
        alike = result.shape == (1, 2, 3) and math.isfinite(first) and bool((result == first).all())
        result = f"a tensor of shape {tuple(result.shape)}, not all of it {first:g}"
        if alike:
            result = int(first) if first == int(first) else first
    return _outcome(result if result is None or isinstance(result, (int, float, str)) else called(result), found)


def _outcome(result, parameters: int) -> dict:
    return {"0 becomes": result, "parameters": parameters}


def _stack(make_block: _Blocks, depth: int) -> dict:
    number = 0
    for block in range(depth):
        number = 10 * number + make_block.digits[block]
    return _outcome(number, depth)


def _written(digits: list[int]) -> int:
    return int("".join(map(str, digits)) or 0)


def _about_digits(case: dict, expected: dict, got: dict) -> str | None:
    if expected["0 becomes"] == got["0 becomes"]:
        return f"parameters() sees {got['parameters']} of them, but there are {expected['parameters']} blocks"
    return f"{case['depth']} blocks, one after another, make {expected['0 becomes']} of 0: each writes one digit more"


def check_stack(yours: Callable, seed: int = 0) -> None:
    """yours(make_block, depth): a module that puts its input through `depth` blocks, one after another; make_block()
    makes one."""
    numbers = np.random.default_rng(seed)
    cases = [dict(make_block=_Blocks([1, 2, 3, 4]), depth=3)]
    for depth in (2, int(numbers.integers(4, 7))):
        cases.append(dict(make_block=_Blocks((numbers.permutation(9) + 1).tolist()), depth=depth))

    mistakes = {
        "One block stands in every place: its parameters are there once, and all layers learn the same. Call "
        "make_block once for each layer": lambda make, depth: _outcome(_written(make.digits[:1] * depth), 1),
        "The blocks are copies of the first: each has numbers of its own, but they start equal. Call make_block once "
        "for each layer": lambda make, depth: _outcome(_written(make.digits[:1] * depth), depth),
        "It computes the right thing, but parameters() does not see the blocks, so no optimizer would train them. "
        "Return a module that keeps them in nn.Sequential or nn.ModuleList, not in a plain list": (
            lambda make, depth: _outcome(_written(make.digits[:depth]), 0)
        ),
        "The blocks run in the opposite order: the one that was made first comes first": (
            lambda make, depth: _outcome(_written(make.digits[:depth][::-1]), depth)
        ),
        "One block too few: depth says how many there are": (
            lambda make, depth: _outcome(_written(make.digits[: depth - 1]), depth - 1)
        ),
        "One block too many: depth says how many there are": (
            lambda make, depth: _outcome(_written((make.digits * 2)[: depth + 1]), depth + 1)
        ),
        "Every block read the input, and only the last was heard: each must read what the one before has put out": (
            lambda make, depth: _outcome(make.digits[depth - 1], depth)
        ),
        "Every block read the input, and the results were added: each must read what the one before has put out": (
            lambda make, depth: _outcome(sum(make.digits[:depth]), depth)
        ),
        "That is no module yet, only the blocks: something must take the tokens and call one block after another, as "
        "nn.Sequential does": lambda make, depth: _outcome("nothing", 0),
        "nn.ModuleList keeps the blocks, but does not call them: write a forward around it, or take nn.Sequential": (
            lambda make, depth: _outcome("nothing", depth)
        ),
        "Its forward returns nothing; is there a `return`?": lambda make, depth: _outcome(None, depth),
        "Only the first block runs: the others are there, but nobody calls them": (
            lambda make, depth: _outcome(make.digits[0], depth)
        ),
    }
    examine(
        partial(_run, yours),
        _stack,
        cases,
        mistakes,
        diagnose=[_about_digits],
        written=yours,
        holds="As many blocks as depth says, each made by itself, one after another, and parameters() sees them all.",
    )


# ------------------------------------------------------------------------------------------------ memory


def _bytes(config: ViTConfig, side: int, *, extra=1, power=2, number=4) -> int:
    """Of the attention maps of one square image with so many patches along its side."""
    maps = 0
    for _ in range(config.depth):
        for _ in range(config.heads):
            maps += (side * side + extra) ** power * number
    return maps


def _largest_side(config: ViTConfig, budget: int, *, beyond=0, size: Callable = _bytes) -> int:
    patches = 0
    while size(config, patches + 1) <= budget:
        patches += 1
    return (patches + beyond) * config.patch_size


def _few_layers(config: ViTConfig, budget: int) -> int:
    return _largest_side(config, budget * config.depth)


def _few_heads(config: ViTConfig, budget: int) -> int:
    return _largest_side(config, budget * config.heads)


def _any_pixel(config: ViTConfig, budget: int) -> int:
    tokens = math.sqrt(budget / (4 * config.depth * config.heads))
    return int(math.sqrt(tokens - 1) * config.patch_size)


def _about_side(case: dict, expected: int, got: int) -> str:
    patches, rest = divmod(int(got), case["config"].patch_size)
    if rest:
        return f"{got} pixels cannot be cut into whole patches of {case['config'].patch_size}"
    if got > expected:
        return f"With {got} pixels the maps take {_bytes(case['config'], patches):,} bytes, more than the budget"
    most = _bytes(case["config"], expected // case["config"].patch_size)
    return f"There is room for more: with {expected} pixels the maps take {most:,} bytes"


def check_largest_side(yours: Callable, seed: int = 0) -> None:
    """yours(config, budget): the side in pixels of the largest square image, cut into whole patches, whose attention
    maps (float32, of all heads and layers) take no more than `budget` bytes."""
    numbers = np.random.default_rng(seed)
    cases = []
    for depth, heads, patch_size, side, rest in (
        (2, 3, 8, 2, 0),  # to the byte
        (3, 2, 5, 3, -1),  # a byte too few, so one patch less fits
        (3, 6, 4, 20, 0),  # so many patches that every factor tells
        (int(numbers.integers(2, 7)), int(numbers.choice([2, 3, 4, 6])), 16, int(numbers.integers(3, 8)), -1),
        (int(numbers.integers(2, 5)), int(numbers.choice([2, 3, 4])), 14, int(numbers.integers(3, 8)), None),
    ):
        config = ViTConfig(patch_size, patch_size, depth=depth, heads=heads)
        least, most = _bytes(config, side), _bytes(config, side + 1)
        cases.append(dict(config=config, budget=int(numbers.integers(least, most)) if rest is None else least + rest))

    mistakes = {
        "One row of patches too many: that image no longer fits": partial(_largest_side, beyond=1),
        "One row of patches more would fit, to the last byte: a budget that is used up is kept, so compare with <=": (
            lambda config, budget: _largest_side(config, budget - 1)
        ),
        "One row of patches more would fit: take the last that fits, not the one before": (
            partial(_largest_side, beyond=-1)
        ),
        "That is how many patches lie along the side; asked are pixels": (
            lambda config, budget: _largest_side(config, budget) // config.patch_size
        ),
        "The class token is missing: it has a row and a column in every map": (
            partial(_largest_side, size=partial(_bytes, extra=0))
        ),
        "A map was taken for as large as the sequence; it has a number for every pair, tokens * tokens": (
            partial(_largest_side, size=partial(_bytes, power=1))
        ),
        "Numbers were counted, not bytes: one in float32 takes 4 bytes": (
            partial(_largest_side, size=partial(_bytes, number=1))
        ),
        "2 bytes were counted for a number: one in float32 takes 4": (
            partial(_largest_side, size=partial(_bytes, number=2))
        ),
        "Only one layer was counted: every block has maps of its own": _few_layers,
        "Only one map was counted for each layer: every head has its own": _few_heads,
        "Only one map was counted: every head of every layer has its own": (
            lambda config, budget: _largest_side(config, budget * config.heads * config.depth)
        ),
        "That side cannot be cut into whole patches: round down to a multiple of patch_size": _any_pixel,
    }
    examine(
        yours,
        _largest_side,
        cases,
        mistakes,
        diagnose=[_about_side],
        holds="The largest image that fits: one row and column of patches more, and its maps would not.",
    )
