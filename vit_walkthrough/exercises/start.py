"""Notebook 00: how many tokens, what comes out, and where the class token looks."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from vit_walkthrough.exercises.examine import Wrong, examine

# ------------------------------------------------------------------------------------------------ how many tokens


def _tokens(height: int, width: int, patch_size: int) -> int:
    corners = [(y, x) for y in range(0, height, patch_size) for x in range(0, width, patch_size)]
    return len(corners) + 1


def check_count_tokens(yours: Callable, seed: int = 0) -> None:
    """yours(height, width, patch_size): how many tokens the encoder sees, the class token among them."""
    numbers = np.random.default_rng(seed)
    cases = [dict(height=4, width=6, patch_size=2), dict(height=224, width=224, patch_size=16)]
    for _ in range(3):
        rows, cols = numbers.choice(np.arange(2, 12), 2, replace=False)
        patch_size = int(numbers.integers(2, 17))
        cases.append(dict(height=int(rows) * patch_size, width=int(cols) * patch_size, patch_size=patch_size))

    mistakes = {
        "Those are the patches alone: the class token is one token more": lambda h, w, p: _tokens(h, w, p) - 1,
        "The image was taken for a square: cols come from the width, not from the height": (
            lambda h, w, p: _tokens(h, h, p)
        ),
        "The image was taken for a square: rows come from the height, not from the width": (
            lambda h, w, p: _tokens(w, w, p)
        ),
        "The area was divided by the side of a patch once: a patch takes patch_size * patch_size pixels": (
            lambda h, w, p: h * w // p + 1
        ),
        "Those are rows + cols: a grid has rows * cols patches": lambda h, w, p: h // p + w // p + 1,
    }
    examine(yours, _tokens, cases, mistakes, holds="One token for every patch, and one more: the class token.")


# ------------------------------------------------------------------------------------------------ what comes out


def _softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.zeros_like(logits)
    for image, row in enumerate(logits):
        exponentials = [np.exp(logit - max(row)) for logit in row]
        for label, exponential in enumerate(exponentials):
            shares[image, label] = exponential / sum(exponentials)
    return shares


def _about_shares(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    """What can be seen of probabilities, whether or not the largest logit was subtracted first."""
    sums = got.sum(1)
    off = ~np.isclose(sums, 1, atol=1e-4)
    if np.allclose(got.sum(0), 1, atol=1e-4):
        return (
            "Each column sums to 1: the images share a class out among them. The classes of one image must share, so "
            "sum over the last axis"
        )
    if np.isclose(sums.sum(), 1, atol=1e-4) and not np.allclose(sums, sums[0]):
        return "The whole table sums to 1: sum over the classes of each image, the last axis, not over all images"
    if np.allclose(np.exp(got).sum(1), 1, atol=1e-4):
        return "None is above 0: those are the logarithms of the probabilities"
    if (got < -1e-6).any():
        return "There is a negative number among them: no probability is below 0"
    if np.allclose(got.max(1), 1, atol=1e-4) and off.any():
        return "The largest of each row is 1, so no row sums to 1: divide by the sum of the row"
    if off.any():
        image = int(np.argmax(off))
        return f"Row {image} sums to {sums[image]:.4g}: the probabilities of one image must sum to 1"
    return (
        "Every row sums to 1, but the shares are others: each class gets the exponential of its logit, divided by the "
        "sum of its row"
    )


def _less_the_mean(logits: np.ndarray) -> np.ndarray:
    low = logits.astype(np.float32)  # float64 would bear more than the reader's tensors do
    exponentials = np.exp(low - low.mean(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def check_probabilities(yours: Callable, seed: int = 0) -> None:
    """yours(logits): the softmax of the logits (batch classes) of every image, (batch classes)."""
    numbers = np.random.default_rng(seed)
    drawn = [numbers.permutation(11)[:5] - 4 for _ in range(3)]
    tables = [[[0, 1, 3], [4, 0, -1]], np.stack(drawn), [[1000, 800], [-1000, -800]]]
    cases = [dict(logits=torch.tensor(np.asarray(table), dtype=torch.float32)) for table in tables]

    mistakes = {
        "No row sums to 1: those are the exponentials alone. Divide each by the sum of its row": np.exp,
        "Those are the shares of the logits themselves: a logit may be negative, and all may sum to 0. Take the "
        "exponential of each first": lambda x: x / x.sum(1, keepdims=True),
        "Each class was judged by itself, by a sigmoid: the rows do not sum to 1. Divide the exponential of each logit "
        "by the sum of its row": lambda x: 1 / (1 + np.exp(-x)),
        "The largest takes all: that names the most likely class, but not how likely it is. Give each class the "
        "exponential of its logit, divided by the sum of its row": lambda x: 1.0 * (x == x.max(1, keepdims=True)),
        "The exponential of 1,000 is larger than any number here can be, and that of -1,000 is rounded to 0. Subtract "
        "the largest logit of each row first: the probabilities stay the same": (
            lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)
        ),
        "You subtracted the largest logit of the whole batch: an image whose logits are all far below has nothing "
        "left but zeros. Subtract each row's own largest": (
            lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum(1, keepdims=True)
        ),
        "You subtracted the mean of each row: the largest logit may lie far above it, and then its exponential is "
        "still larger than any number here can be. Subtract each row's largest": _less_the_mean,
        "You cut the large logits off, so that 1,000 and 800 count the same, and the exponentials of a row with -1,000 "
        "and -800 are all rounded to 0. Subtract the largest logit of each row instead": (
            lambda x: np.exp(np.minimum(x, 80)) / np.exp(np.minimum(x, 80)).sum(1, keepdims=True)
        ),
        "You cut the logits off at both ends, so that 1,000 and 800 count the same. Subtract the largest logit of each "
        "row instead: no exponential is then above 1": lambda x: _softmax(np.clip(x, -80, 80)),
    }
    examine(
        yours,
        _softmax,
        cases,
        mistakes,
        axes="batch classes",
        diagnose=[_about_shares],
        holds="Every row sums to 1, a larger logit gets a larger share, and logits of 1,000 do no harm.",
    )


# ------------------------------------------------------------------------------------------------ where it looks


def _most(attention: np.ndarray) -> np.ndarray:
    blocks, batch, heads, _, keys = attention.shape
    answers = []
    for image in range(batch):
        sums = [
            sum(attention[blocks - 1, image, head, 0, 1 + patch] for head in range(heads)) for patch in range(keys - 1)
        ]
        answers.append(sums.index(max(sums)))
    return np.array(answers)


def _attention_of(batch: int, heads: int, patches: int, numbers: np.random.Generator) -> torch.Tensor:
    """Attention (3 batch heads tokens tokens), rows summing to 1, in which each way to look finds another patch."""
    attention = numbers.uniform(0, 0.01, (3, batch, heads, patches + 1, patches + 1))
    for image in range(batch):
        places = (numbers.permutation(patches)[: 6 + heads] + 1).tolist()
        right, first, middle, others, of_patch_0, to_class, *favourites = places
        attention[0, image, :, 0, first] = 0.3
        attention[1, image, :, 0, middle] = 0.5
        attention[2, image, :, 0, right] = 0.1
        for head, favourite in enumerate(favourites):
            attention[2, image, head, 0, favourite] = 0.24 if head == 1 else 0.2
        attention[2, image, :, 1:, others] = 0.4
        attention[2, image, :, 1, of_patch_0] = 0.5
        attention[2, image, :, to_class, 1:] = 0
    attention[..., 0] = 1 - attention[..., 1:].sum(-1)
    return torch.tensor(attention, dtype=torch.float32)


def _places(yours: Callable, attention: torch.Tensor):
    """What the reader gives, unless it is weights."""
    got = yours(attention)
    if isinstance(got, torch.Tensor) and got.is_floating_point() and not torch.equal(got, got.round()):
        raise Wrong("Those are the weights, not the places. max gives the largest weight; argmax says where it stands")
    return got


def _vote(attention: np.ndarray) -> np.ndarray:
    """The patch that most heads look at most, of several the first."""
    own = attention[-1, :, :, 0, 1:].argmax(-1)
    return np.array([np.bincount(image).argmax() for image in own])


def check_most_attended(yours: Callable, seed: int = 0) -> None:
    """yours(attention): of attention (blocks batch heads queries keys), for every image the number of the patch at
    which the class token looks most in the last block, its heads averaged, (batch)."""
    numbers = np.random.default_rng(seed)
    rows = torch.tensor([
        [[0.4, 0.1, 0.2, 0.3], [0.1, 0.5, 0.1, 0.3], [0.1, 0.1, 0.6, 0.2], [0.2, 0.2, 0.1, 0.5]],
        [[0.5, 0.1, 0.3, 0.1], [0.3, 0.2, 0.1, 0.4], [0.2, 0.1, 0.1, 0.6], [0.4, 0.1, 0.1, 0.4]],
    ])  # fmt: skip
    sure = torch.tensor([[0, 0, 0, 1], [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], [0.2, 0.4, 0.1, 0.3]])
    cases = [dict(attention=rows[:, None, None]), dict(attention=torch.stack([rows[0], sure])[:, None, None])]
    cases += [dict(attention=_attention_of(*sizes, numbers)) for sizes in ((4, 3, 9), (5, 3, 11))]

    mistakes = {
        "Each is one too many: those are places in the sequence, where the class token has place 0. Patch k stands at "
        "place k + 1": lambda a: _most(a) + 1,
        "All are 0, the class token's own place: it looks at itself most. Leave its place out, then ask for the "
        "largest": lambda a: a[-1].mean(1)[:, 0].argmax(-1),
        "All are -1: the class token looks at itself most, at place 0. Leave its place out before you ask for the "
        "largest, not after": lambda a: a[-1].mean(1)[:, 0].argmax(-1) - 1,
        "Those are the patches that look at the class token most. Where it looks itself is a row: query 0, all keys": (
            lambda a: a[-1].mean(1)[:, 1:, 0].argmax(-1)
        ),
        "Those are the weights, not the places, and a weight below 1 was rounded to 0. max gives the largest weight; "
        "argmax says where it stands": lambda a: np.floor(a[-1].mean(1)[:, 0].max(-1)).astype(np.int64),
        "Every head had one vote, for the patch it looks at most itself. Average the weights of the heads before you "
        "ask for the largest": _vote,
        "Those are of the first block; the last one is attention[-1]": lambda a: _most(a[:1]),
        "Those are of all blocks together; only the last one was asked for": lambda a: _most(a.mean(0, keepdims=True)),
        "Those are of one head alone, the first; average the heads before you ask for the largest": (
            lambda a: _most(a[:, :, :1])
        ),
        "Those are of one head alone, the last; average the heads before you ask for the largest": (
            lambda a: _most(a[:, :, -1:])
        ),
        "Those got the largest weight of any head; average the heads before you ask for the largest": (
            lambda a: _most(a.max(2, keepdims=True))
        ),
        "Those are looked at most by all tokens together. Only the class token was asked for: query 0": (
            lambda a: _most(a.mean(3, keepdims=True))
        ),
        "Those are looked at most by patch 0, at place 1. The class token is query 0": lambda a: _most(a[:, :, :, 1:]),
    }
    examine(
        partial(_places, yours),
        _most,
        cases,
        mistakes,
        axes="batch",
        written=yours,
        holds="Last block, heads averaged, from query 0 to the keys of patches: there the class token looks most.",
    )
