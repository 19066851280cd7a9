"""Notebook 09: what is read out of a model's attention, and what tests it."""

from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor

from vit_walkthrough.exercises.examine import beside, examine


def _rows_of_1(*sizes: int, seed: int) -> Tensor:
    """Random numbers from 0.05 up, every row scaled to sum to 1."""
    weights = torch.rand(sizes, generator=torch.Generator().manual_seed(seed)) + 0.05
    return weights / weights.sum(-1, keepdim=True)


# ------------------------------------------------------------------------------------------------ rollout


def _rolled_out(attention: np.ndarray) -> np.ndarray:
    """What has arrived at every token, (batch tokens tokens), one number after another; then the class token's row."""
    blocks, batch, heads, tokens, _ = attention.shape
    arrived = np.tile(np.eye(tokens), (batch, 1, 1))
    for layer, image in product(range(blocks), range(batch)):
        before, arrived[image] = arrived[image].copy(), 0
        for query, key in product(range(tokens), repeat=2):
            weight = sum(attention[layer, image, head, query, key] for head in range(heads)) / heads
            arrived[image, query] += (weight + (query == key)) / 2 * before[key]  # half of a row is the identity
    return arrived[:, 0, 1:]


def _rolled(
    attention: np.ndarray, *, heads: Callable = np.mean, keep: float = 1.0, axis: int | None = 2, order: int = 1,
    down: bool = False,
) -> np.ndarray:  # fmt: skip
    """The same in matrices, with what can be mistaken in it: (batch tokens tokens)."""
    mixed = heads(attention, axis=2) + keep * np.eye(attention.shape[-1])
    mixed = mixed if axis is None else mixed / mixed.sum(axis + 1, keepdims=True)
    product_of_all = np.eye(attention.shape[-1])
    for layer in mixed[::order]:
        product_of_all = layer @ product_of_all
    return product_of_all[:, 1:, 0] if down else product_of_all[:, 0, 1:]


def _about_arrived(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    """What no likely mistake explains."""
    left, right = got.sum(-1).max(), expected.sum(-1).max()
    if left > 1 + 1e-4:
        return f"{left:.2f} of the class token is said to come from patches, and all of it is 1: scale every row to 1"
    if np.allclose(got / got.sum(-1, keepdims=True), expected / expected.sum(-1, keepdims=True), atol=1e-4):
        return (
            "The proportions are right, but not the sum. What is missing to 1 comes from the class token itself: "
            f"here {1 - right:.2f}"
        )
    return None


def check_rollout(yours: Callable, seed: int = 0) -> None:
    """yours(attention): how much of each patch has arrived at the class token (batch patches) by rollout, of attention
    (blocks batch heads queries keys)."""
    quarters = torch.tensor([[[2, 2, 0], [0, 2, 2], [0, 0, 4]], [[0, 4, 0], [1, 1, 2], [2, 0, 2]]]) / 4
    cases = [
        dict(attention=quarters[:, None, None]),
        dict(attention=_rows_of_1(3, 1, 2, 4, 4, seed=seed)),
        dict(attention=_rows_of_1(2, 3, 4, 5, 5, seed=seed + 1)),
    ]
    mistakes = {
        "The blocks are in the wrong order: begin with the class token's row of the last block, end with the first": (
            partial(_rolled, order=-1)
        ),
        "The identity is missing: in every block each token keeps itself as well, by the residual stream": (
            partial(_rolled, keep=0.0)
        ),
        "The identity was added and the rows then sum to 2: halve them, or what has arrived doubles with every block": (
            partial(_rolled, axis=None)
        ),
        "Scaled over the queries: each row, over its keys, must sum to 1 again": partial(_rolled, axis=1),
        "That is the class token's column, what has arrived of the class token at each patch; read its row": (
            partial(_rolled, down=True)
        ),
        "The largest of the heads was taken: rollout takes their mean": partial(_rolled, heads=np.max),
        "The heads were summed and not averaged, and the identity counts too little beside them": (
            partial(_rolled, heads=np.sum)
        ),
        "That is the raw attention of the last block: what each patch had taken in before, and kept of itself, is "
        "missing": lambda a: a[-1].mean(1)[:, 0, 1:],
        "That is the mean of the blocks' raw attention: each block works on what the one before has left, so multiply "
        "them, and let each token keep itself": lambda a: a.mean((0, 2))[:, 0, 1:],
        "In the last block the identity is missing: begin with the class token itself, [1, 0, 0 ...], and take every "
        "block in the same way": _bare_start,
        "The last block was taken twice, first without the identity: begin with the class token itself, [1, 0 ...]": (
            partial(_bare_start, again=True)
        ),
        "Each head was rolled out by itself, and the mean taken at the end: a block mixes its heads, so take their "
        "mean in every block": (lambda a: np.mean([_rolled(a[:, :, [head]]) for head in range(a.shape[2])], axis=0)),
        "Multiplied from the wrong side: layer @ column follows what goes out from a token. The row stands on the "
        "left, row @ layer": partial(_rolled, order=-1, down=True),
        "That is the last block alone: what the patches themselves had taken in before is missing": (
            lambda a: _rolled(a[-1:])
        ),
        "The blocks were averaged: each block works on what the one before has left, so multiply them": (
            lambda a: np.mean([_rolled(layer[None]) for layer in a], axis=0)
        ),
        "Multiplied number by number: a product of matrices, @, sums over all ways from a patch to the class token": (
            lambda a: np.prod([_halved(layer) for layer in a], axis=0)[:, 0, 1:]
        ),
        "Only the first image was followed: every image has its own attention": (
            lambda a: np.tile(_rolled(a[:, :1]), (a.shape[1], 1))
        ),
        "The identity was added once, at the end: a token keeps itself in every block": (
            lambda a: (_rolled(a, keep=0.0) + np.eye(a.shape[-1])[0, 1:]) / 2
        ),
    }
    examine(
        yours,
        _rolled_out,
        cases,
        mistakes,
        axes="batch patches",
        diagnose=[_about_arrived],
        holds="One row is enough: what arrives at the class token, block by block from the last to the first.",
    )


def _bare_start(attention: np.ndarray, again: bool = False) -> np.ndarray:
    """The class token's row of the last block as it is, then the other blocks, or all of them."""
    row = attention[-1].mean(1)[:, :1]
    for layer in attention[::-1][0 if again else 1 :]:
        row = row @ _halved(layer)
    return row[:, 0, 1:]


def _halved(layer: np.ndarray) -> np.ndarray:
    return (layer.mean(1) + np.eye(layer.shape[-1])) / 2


# ------------------------------------------------------------------------------------------------ how far


def _distances(rows: int, cols: int, length: Callable = np.hypot) -> np.ndarray:
    """From every patch to every other, counted in patches."""
    y, x = np.divmod(np.arange(rows * cols), cols)
    return length(y[:, None] - y, x[:, None] - x)


def _scaled(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum(-1, keepdims=True)


def _distance(attention: np.ndarray, rows: int, cols: int, patch_size: int) -> np.ndarray:
    blocks, batch, heads = attention.shape[:3]
    far, places = np.zeros((blocks, heads)), list(product(range(rows), range(cols)))
    for patch, (y, x) in enumerate(places):
        weights = attention[:, :, :, 1 + patch, 1:]
        for other, (v, u) in enumerate(places):
            apart = patch_size * ((y - v) ** 2 + (x - u) ** 2) ** 0.5
            far += (weights[..., other] / weights.sum(-1) * apart).sum(1)
    return far / (batch * len(places))


def _looks(weights: np.ndarray, apart: np.ndarray, patch_size: int) -> np.ndarray:
    """The same for patches alone and any distances, as mistakes need it."""
    return (weights * apart).sum(-1).mean((1, 3)) * patch_size


def _far(attention: np.ndarray, rows: int, cols: int, patch_size: int, length: Callable = np.hypot) -> np.ndarray:
    return _looks(_scaled(attention[..., 1:, 1:]), _distances(rows, cols, length), patch_size)


def _strongest_alone(weights: np.ndarray) -> np.ndarray:
    return np.eye(weights.shape[-1])[weights.argmax(-1)]


def _without_itself(weights: np.ndarray) -> np.ndarray:
    return _scaled(weights * (1 - np.eye(weights.shape[-1])))


def _with_class_token(rows: int, cols: int) -> np.ndarray:
    return np.pad(_distances(rows, cols), ((1, 0), (1, 0)))


def _class_token_in_front(rows: int, cols: int) -> np.ndarray:
    places = [0, *range(rows * cols)]
    return _distances(rows, cols)[np.ix_(places, places)]


def check_distance(yours: Callable, seed: int = 0) -> None:
    """yours(attention, rows, cols, patch_size): how many pixels far each head of the attention (blocks batch heads
    queries keys) looks, the mean over batch and patches (blocks heads)."""
    quarters = [[1, 1, 1, 1], [2, 1, 1, 0], [0, 2, 0, 2], [2, 1, 1, 0]]
    cases = [dict(attention=torch.tensor(quarters)[None, None, None] / 4, rows=1, cols=3, patch_size=10)]
    attention = _rows_of_1(2, 2, 3, 7, 7, seed=seed)
    cases.append(dict(attention=attention, rows=2, cols=3, patch_size=4))

    mistakes = {
        "That is counted in patches: a patch is patch_size pixels wide": (
            lambda a, rows, cols, p: _far(a, rows, cols, 1)
        ),
        "Without the class token a row no longer sums to 1: scale it again, or who looks much at the class token "
        "seems to look near": lambda a, rows, cols, p: _looks(a[..., 1:, 1:], _distances(rows, cols), p),
        "The class token was counted as a token 0 pixels away from all: it stands nowhere, so leave out its row and "
        "its column": lambda a, rows, cols, p: _looks(a, _with_class_token(rows, cols), p),
        "The class token was given a place in the upper left corner: it stands nowhere, so leave out its row and its "
        "column": lambda a, rows, cols, p: _looks(a, _class_token_in_front(rows, cols), p),
        "The last patch was left out, and the class token taken for a patch: it is the class token, number 0, that "
        "stands nowhere": lambda a, rows, cols, p: _looks(_scaled(a[..., :-1, :-1]), _distances(rows, cols), p),
        "rows and cols are exchanged: patch = row * cols + col": lambda a, rows, cols, p: _far(a, cols, rows, p),
        "Steps down and steps across were added; a straight line is shorter: the root of dy² + dx²": (
            lambda a, rows, cols, p: _far(a, rows, cols, p, lambda dy, dx: abs(dy) + abs(dx))
        ),
        "The root is missing: that is the mean of dy² + dx²": (
            lambda a, rows, cols, p: _far(a, rows, cols, p, lambda dy, dx: (dy**2 + dx**2) * p)
        ),
        "The distance of two patches is not that of their numbers: patch number cols stands right under patch 0": (
            lambda a, rows, cols, p: _far(a, 1, rows * cols, p)
        ),
        "All rows were thrown together before the division, so a patch that looks much at the class token counts less: "
        "scale each row to sum to 1, then take the mean": (
            lambda a, rows, cols, p: (
                (a[..., 1:, 1:] * _distances(rows, cols)).sum((1, 3, 4)) / a[..., 1:, 1:].sum((1, 3, 4)) * p
            )
        ),
        "Each column was scaled to sum to 1, which asks from how far a patch is looked at: scale over the keys, the "
        "last axis": lambda a, rows, cols, p: _looks(
            a[..., 1:, 1:] / a[..., 1:, 1:].sum(-2, keepdims=True), _distances(rows, cols), p
        ),
        "Only the class token's row was read, and it stands nowhere: every patch has a row of its own, take the mean "
        "over them": lambda a, rows, cols, p: _looks(_scaled(a[..., :1, 1:]), _distances(rows, cols), p),
        "That is how far the strongest weight of each row lies: all of them count, each by its share": (
            lambda a, rows, cols, p: _looks(_strongest_alone(a[..., 1:, 1:]), _distances(rows, cols), p)
        ),
        "A patch's weight on itself was left out before the division: looking at oneself is looking 0 pixels far, and "
        "it counts": lambda a, rows, cols, p: _looks(_without_itself(a[..., 1:, 1:]), _distances(rows, cols), p),
        "Summed over the patches: take the mean over them": (
            lambda a, rows, cols, p: _far(a, rows, cols, p) * rows * cols
        ),
        "Divided by the number of keys as well: the weights are shares already, so sum over the keys": (
            lambda a, rows, cols, p: _far(a, rows, cols, p) / (rows * cols)
        ),
        "Heads and layers are exchanged: a row for each layer, in it a number for each head": (
            lambda a, rows, cols, p: _far(a, rows, cols, p).T
        ),
        "One number a layer: the heads were averaged too, and they are what is to be compared": (
            lambda a, rows, cols, p: _far(a, rows, cols, p).mean(1)
        ),
    }
    examine(
        yours,
        _distance,
        cases,
        mistakes,
        axes="blocks heads",
        holds="How far each head looks, in pixels and along a straight line, and the class token is left out of it.",
    )


# ------------------------------------------------------------------------------------------------ relevance


def _speaks_for(attention: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    blocks, batch, heads, tokens, _ = attention.shape
    maps = np.zeros((batch, tokens - 1))
    for image in range(batch):
        arrived = np.eye(tokens)
        for layer in range(blocks):
            counted = np.zeros((tokens, tokens))
            for head, query, key in product(range(heads), range(tokens), range(tokens)):
                raises = attention[layer, image, head, query, key] * gradients[layer, image, head, query, key]
                counted[query, key] += max(raises, 0) / heads
            arrived = arrived + counted @ arrived
        maps[image] = arrived[0, 1:]
    return maps


def _positive(weights: np.ndarray) -> np.ndarray:
    return np.maximum(weights, 0)


def _mean_of_heads(attention: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    return _positive(attention * gradients).mean(2)


def _arrived(counted: np.ndarray, read: Callable = lambda arrived: arrived[:, 0, 1:], stays: float = 1.0) -> np.ndarray:
    """What has arrived after all layers of `counted` (layers batch queries keys), as mistakes need it."""
    arrived = np.broadcast_to(np.eye(counted.shape[-1]), counted.shape[1:])
    for layer in counted:
        arrived = stays * arrived + layer @ arrived
    return read(arrived)


def _like_rollout(attention: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    mixed = _scaled(_mean_of_heads(attention, gradients) + np.eye(attention.shape[-1]))
    return _arrived(mixed, stays=0.0)


def _about_relevance(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    factors = got.sum(-1, keepdims=True) / expected.sum(-1, keepdims=True)
    if (factors > 0).all() and np.allclose(got, factors * expected, atol=1e-4):
        return "The proportions are right, but the map was scaled: return what has arrived as it is, not divided"
    return None


def check_relevance(yours: Callable, seed: int = 0) -> None:
    """yours(attention, gradients): relevance from the attention and the gradient of a class's logit at it, both
    (blocks batch heads queries keys), for the patches (batch patches)."""
    halves = [[[0, 2, 0], [1, 1, 0], [0, 1, 1]], [[1, 0, 1], [0, 1, 1], [2, 0, 0]]]  # heads queries keys
    pulls = [[[1, -2, 3], [2, 2, -4], [2, 4, 2]], [[2, 1, 4], [-2, -4, 2], [-1, 2, 3]]]
    attention = torch.tensor([halves, halves[::-1]])[:, None] / 2
    gradients = torch.tensor([pulls, [[[4, 4, -2], [1, 2, 1], [1, 1, 2]], [[2, 1, -2], [2, -2, 2], [4, 2, 2]]]])
    cases = [dict(attention=attention, gradients=gradients[:, None].float())]
    noise = torch.randn(3, 2, 2, 4, 4, generator=torch.Generator().manual_seed(seed))
    cases.append(dict(attention=_rows_of_1(*noise.shape, seed=seed), gradients=noise))

    mistakes = {
        "The negative products were kept: only where raising a weight raises the logit does it count, so everything "
        "below 0 becomes 0": lambda a, g: _arrived((a * g).mean(2)),
        "The mean over the heads came before the positive part, so a head against the class cancels one that speaks "
        "for it: first the positive part of each head, then the mean": lambda a, g: _arrived(
            _positive((a * g).mean(2))
        ),
        "The signs are lost: where raising a weight would lower the logit, it speaks against the class, and counts as "
        "0": lambda a, g: _arrived(np.abs(a * g).mean(2)),
        "Attention and gradients were multiplied as matrices, with @: what counts is each weight times its own "
        "gradient, number by number, with *": lambda a, g: _arrived(_positive(a @ g).mean(2)),
        "The heads were averaged before the product: multiply each head's weights with its own gradients, and take the "
        "mean of the positive parts": lambda a, g: _arrived(_positive(a.mean(2) * g.mean(2))),
        "Everything is 0, for R began at 0: before the first block each token holds itself, so begin with the "
        "identity": lambda a, g: np.zeros((a.shape[1], a.shape[-1] - 1)),
        "The gradients alone were counted: a weight of 0 moves nothing, however steep; multiply with the attention": (
            lambda a, g: _arrived(_positive(g).mean(2))
        ),
        "The attention alone was counted, so the map is the same for every class: multiply with the gradients": (
            lambda a, g: _arrived(a.mean(2))
        ),
        "Each row was scaled to sum to 1, as in rollout: relevance adds and does not scale": _like_rollout,
        "What was there is lost at each block: R becomes R + ĀR, not ĀR": (
            lambda a, g: _arrived(_mean_of_heads(a, g), stays=0.0)
        ),
        "The blocks stand in the opposite order: begin with the first, and put each new one on the left, Ā @ R": (
            lambda a, g: _arrived(_mean_of_heads(a, g)[::-1])
        ),
        "Only the last block was counted: what its tokens hold came from others before": (
            lambda a, g: _arrived(_mean_of_heads(a, g)[-1:])
        ),
        "The blocks were only added up: what one block brings is carried on by the next, so multiply Ā with R": (
            lambda a, g: _mean_of_heads(a, g).sum(0)[:, 0, 1:]
        ),
        "The heads were summed: take their mean": lambda a, g: _arrived(_positive(a * g).sum(2)),
        "Of the heads the largest was taken: take their mean": lambda a, g: _arrived(_positive(a * g).max(2)),
        "That is the class token's column, what has gone out from it: what has arrived at it is its row, [:, 0, 1:]": (
            lambda a, g: _arrived(_mean_of_heads(a, g), lambda arrived: arrived[:, 1:, 0])
        ),
        "That is the mean over the patches' rows: the head reads the class token, so its row alone is asked for": (
            lambda a, g: _arrived(_mean_of_heads(a, g), lambda arrived: arrived[:, 1:, 1:].mean(1))
        ),
        "The class token's own column is still in the map: leave it out, [:, 0, 1:]": (
            lambda a, g: _arrived(_mean_of_heads(a, g), lambda arrived: arrived[:, 0])
        ),
        "That is the whole table, all tokens by all tokens: the map is the class token's row without its own column": (
            lambda a, g: _arrived(_mean_of_heads(a, g), lambda arrived: arrived)
        ),
    }
    examine(
        yours,
        _speaks_for,
        cases,
        mistakes,
        axes="batch patches",
        diagnose=[_about_relevance],
        holds="Only what speaks for the class is counted, and it is followed through all blocks to the class token.",
    )


# ------------------------------------------------------------------------------------------------ covering


def _place(patch: int, rows: int, cols: int) -> tuple[int, int]:
    return divmod(patch, cols)


def _hidden(
    images: np.ndarray, chosen: Callable, patch_size: int, ground: np.ndarray, place: Callable = _place, side: int = 0
) -> np.ndarray:
    """Images in which the patches `chosen(image)` are covered; place: where a patch is, side: how much of it."""
    side = side or patch_size
    covered, (rows, cols) = images.copy(), (size // patch_size for size in images.shape[2:])
    for image in range(len(images)):
        for patch in chosen(image):
            y, x = (number * patch_size for number in place(patch, rows, cols))
            covered[image, :, y : y + side, x : x + side] = ground[image]
    return covered


def _strongest(maps: np.ndarray, image: int) -> list[int]:
    return sorted(range(maps.shape[1]), key=lambda patch: -maps[image, patch])


def _cover(
    images: np.ndarray, maps: np.ndarray, count: int, patch_size: int, ground: np.ndarray, **mistaken
) -> np.ndarray:
    return _hidden(images, lambda image: _strongest(maps, image)[:count], patch_size, ground, **mistaken)


def _laid_again(images: np.ndarray, maps: np.ndarray, count: int, patch_size: int, ground: np.ndarray) -> np.ndarray:
    """What .repeat covers: the whole grid of patches, one number a pixel, laid down again and again."""
    rows, cols = (size // patch_size for size in images.shape[2:])
    chosen = maps.argsort(1).argsort(1) >= maps.shape[1] - count
    return np.where(np.tile(chosen.reshape(-1, 1, rows, cols), (1, 1, patch_size, patch_size)), ground, images)


def _ranked_once(images: np.ndarray, maps: np.ndarray, count: int, patch_size: int, ground: np.ndarray) -> np.ndarray:
    """What `argsort(descending=True) < count` covers."""
    ranks = [np.array(_strongest(maps, image)) for image in range(len(maps))]
    return _hidden(images, lambda image: np.flatnonzero(ranks[image] < count).tolist(), patch_size, ground)


def _about_cover(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    """How many patches of the first image are touched, and whether by its colour."""
    side, images, ground = case["patch_size"], case["images"], case["ground"]
    rows, cols = (size // side for size in images.shape[2:])
    changed = (got != images).any(1).reshape(-1, rows, side, cols, side).transpose(0, 1, 3, 2, 4).any((-1, -2))
    for image in range(len(images)):
        if (count := int(changed[image].sum())) != case["count"]:
            patches = "1 patch is" if count == 1 else f"{count} patches are"
            return f"In image {image}, {patches} covered, and count says {case['count']}"
    if ((got != images) & ~np.isclose(got, np.broadcast_to(ground, got.shape))).any():
        return "What is covered has not its image's ground as its colour"
    return None


def check_cover(yours: Callable, seed: int = 0) -> None:
    """yours(images, maps, count, patch_size, ground): the images (batch channels height width), where the `count`
    patches that are strongest in each one's map (batch patches) have the colour of its ground (batch channels 1 1)."""
    maps = torch.tensor([[0.1, 0.5, 0.0, 0.3, 0.2, 0.9]])
    images = torch.arange(10.0, 34.0).reshape(1, 1, 4, 6) + seed % 7
    cases = [dict(images=images, maps=maps, count=2, patch_size=2, ground=torch.zeros(1, 1, 1, 1))]
    maps = torch.tensor([[4, 5, 0, 1, 2, 3], [7, 4, 3, 2, 1, 0]]) / 10
    ground = torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1)
    cases.append(
        dict(images=torch.arange(10.0, 58.0).reshape(2, 1, 6, 4), maps=maps, count=1, patch_size=2, ground=ground)
    )
    numbers = torch.Generator().manual_seed(seed)
    images, maps, ground = (torch.rand(size, generator=numbers) for size in ((3, 2, 6, 12), (3, 8), (3, 2, 1, 1)))
    cases.append(dict(images=1 + images, maps=maps, count=3, patch_size=3, ground=ground))

    mistakes = {
        "The weakest patches were covered: begin with the map's strongest": (
            lambda images, maps, count, p, ground: _cover(images, -maps, count, p, ground)
        ),
        "All but the strongest were covered: that is insertion, not deletion": (
            lambda images, maps, count, p, ground: _cover(images, -maps, maps.shape[1] - count, p, ground)
        ),
        "One patch too many is covered: ranks count from 0, so the strongest have a rank below count": (
            lambda images, maps, count, p, ground: _cover(images, maps, count + 1, p, ground)
        ),
        "One patch too few is covered: the strongest has rank 0": (
            lambda images, maps, count, p, ground: _cover(images, maps, count - 1, p, ground)
        ),
        "argsort says which patch stands at each rank; what you compared with count is not the rank of each patch. "
        "Sort once more: argsort of the argsort": _ranked_once,
        "The patches were laid down column by column; reading order is row by row: patch = row * cols + col": (
            partial(_cover, place=lambda patch, rows, cols: divmod(patch, rows)[::-1])
        ),
        "A patch's number was divided by the number of rows, but a row of the grid holds cols patches. Divide by that, "
        "the width // patch_size: row = patch // cols, col = patch % cols": (
            partial(_cover, place=lambda patch, rows, cols: divmod(patch, rows))
        ),
        "Row and column of each patch are exchanged: patch // cols says how far down, patch % cols how far across": (
            partial(_cover, place=lambda patch, rows, cols: divmod(patch, cols)[::-1])
        ),
        "The grid of patches was laid down again and again, as .repeat does: each number must be repeated on the spot, "
        "patch_size times down and across, with repeat_interleave": _laid_again,
        "Only one pixel of each patch is covered, its upper left: cover patch_size by patch_size of them": (
            partial(_cover, side=1)
        ),
        "In all images the same patches are covered, those of the first map: each image has a map of its own": (
            lambda images, maps, count, p, ground: _cover(images, maps[:1].repeat(len(maps), 0), count, p, ground)
        ),
        "In all images the same patches are covered, those of the mean map: each image has a map of its own": (
            lambda images, maps, count, p, ground: _cover(
                images, maps.mean(0, keepdims=True).repeat(len(maps), 0), count, p, ground
            )
        ),
        "All images are covered with the ground of the first: each has a colour of its own": (
            lambda images, maps, count, p, ground: _cover(images, maps, count, p, ground[:1].repeat(len(maps), 0))
        ),
        "The patches were made black: cover them with the ground, black may be the loudest thing in the picture": (
            lambda images, maps, count, p, ground: _cover(images, maps, count, p, 0 * ground)
        ),
        "Every patch stands one place late: the first number of a map is patch 0, the class token is not in it": (
            lambda images, maps, count, p, ground: _cover(images, np.roll(maps, 1, 1), count, p, ground)
        ),
        "Every patch stands one place early: the class token is no longer in the map, its first number is patch 0": (
            lambda images, maps, count, p, ground: _cover(images, np.roll(maps, -1, 1), count, p, ground)
        ),
    }
    examine(
        yours,
        _cover,
        cases,
        mistakes,
        axes="batch channels height width",
        diagnose=[_about_cover],
        holds="In each image its own strongest patches are covered with its own colour, and nothing else is touched.",
        picture=partial(_first_of, beside),
    )


def _first_of(picture: Callable, expected: np.ndarray, got: np.ndarray):
    """The first channel of the first image that differs."""
    image = int((expected != got).reshape(len(got), -1).any(1).argmax())
    return picture(expected[image, 0], got[image, 0])
