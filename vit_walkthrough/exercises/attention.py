"""Notebooks 04 and 05: who looks at whom, with one head and with many."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vit_walkthrough.exercises.check import Wrong, beside, examine

WIDE = 400  # a head_dim at which the root of it can no longer be overlooked
ENOUGH = 0.99  # of a query's whole 1


def _random(*sizes: int, seed: int) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


def _whole(*sizes: int, seed: int) -> Tensor:
    """Small whole numbers, to be read by eye."""
    return torch.randint(-3, 4, sizes, generator=torch.Generator().manual_seed(seed)).float()


def _dots(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    return queries @ np.swapaxes(keys, -1, -2)


def _softmax(scores: np.ndarray, axis: int | tuple[int, ...] = -1) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(axis, keepdims=True))
    return exponentials / exponentials.sum(axis, keepdims=True)


# ------------------------------------------------------------------------------------------------ one head: weights


def _weights(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    batch, count, head_dim = queries.shape
    weights = np.zeros((batch, count, keys.shape[1]))
    for image in range(batch):
        for query in range(count):
            scores = [sum(queries[image, query] * key) / head_dim**0.5 for key in keys[image]]
            exponentials = [np.exp(score - max(scores)) for score in scores]
            weights[image, query] = [exponential / sum(exponentials) for exponential in exponentials]
    return weights


def _with_scale(scale: Callable, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    return _softmax(_dots(queries, keys) * scale(queries, keys))


def _scaled(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    return _dots(queries, keys) / queries.shape[-1] ** 0.5


def _without_shift(queries: np.ndarray, keys: np.ndarray, largest: Callable = lambda scores: 0) -> np.ndarray:
    scores = _scaled(queries, keys).astype(np.float32)  # float64 would bear more than the reader's tensors do
    exponentials = np.exp(scores - largest(scores))
    return exponentials / exponentials.sum(-1, keepdims=True)


def _about_exponentials(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    scores = _scaled(**case)
    if np.allclose(got, scores / scores.sum(-1, keepdims=True), rtol=1e-3):
        return (
            "The scores themselves were divided by their sum. Take the exponential of each first: it is never "
            "negative, and a score of 0 counts too"
        )
    return None


def _about_cut_scores(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    """Different scores with the same weight, where even the smaller is large."""
    for scores, weights in zip(_scaled(**case).reshape(-1, got.shape[-1]), got.reshape(-1, got.shape[-1]), strict=True):
        first, second = np.argsort(-scores, kind="stable")[[0, (scores == scores.max()).sum() % len(scores)]]
        if scores[second] > 5 and scores[first] > scores[second] and np.isclose(weights[first], weights[second]):
            return (
                f"The scores {scores[first]:g} and {scores[second]:g} of one row have got the same weight: were large "
                "scores cut off? Take the row's largest score off all its scores; that changes no weight"
            )
    return None


def _about_sums(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    if got.min() < -1e-6:
        return "There are negative weights: a share is never below 0"
    if np.allclose(got.sum(-1), 1, atol=1e-4):
        return None
    by_accident = "queries" in case and np.abs(_scaled(**case)).max() > 50  # in the small cases they did not
    if np.allclose(got.sum(-2), 1, atol=1e-4) and not by_accident:
        return (
            "Each column sums to 1: the softmax ran over the queries; attention normalises over the keys, the last axis"
        )
    row = got.sum(-1).flat[0]
    return f"The first row sums to {row:.3g}: every query shares out exactly 1 among the keys"


def check_weights(yours: Callable, seed: int = 0) -> None:
    """yours(queries, keys): the weights (batch queries keys) of attention, of queries (batch queries head_dim) and
    keys (batch keys head_dim)."""
    few = dict(
        queries=torch.tensor([[[2.0, 0, 0, 0], [0, 1, 1, -2]]]),
        keys=torch.tensor([[[1.0, 0, 2, 0], [0, 1, 1, 1], [2, 0, 0, -1]]]),
    )
    many = dict(queries=_random(2, 3, 6, seed=seed), keys=_random(2, 5, 6, seed=seed + 1))
    large = dict(
        queries=torch.tensor([[[128.0, 0, 0, 0], [-128, 0, 0, 0]]]),
        keys=torch.tensor([[[2.0, 0, 0, 0], [2, 0, 0, 0], [1, 0, 0, 0]]]),
    )
    alone = dict(  # far above the mean of its row, which a few large scores among many would not be
        queries=torch.tensor([[[20.0, 0, 0, 0]]]),
        keys=torch.tensor([0.0, 0, 0, 20, 0, 0, 10, 0, 0, 0])[None, :, None] * torch.tensor([1.0, 0, 0, 0]),
    )
    mistakes = {
        "Each column sums to 1: the softmax ran over the queries; attention normalises over the keys, the last axis": (
            lambda queries, keys: _softmax(_scaled(queries, keys), -2)
        ),
        "All weights of an image together sum to 1: each query has a whole 1 of its own to share out, so the softmax "
        "runs over the keys alone": lambda queries, keys: _softmax(_scaled(queries, keys), (-2, -1)),
        "The weights are too sharp: the scores have not been divided. A dot product grows with head_dim; divide it by "
        "the square root of head_dim": partial(_with_scale, lambda queries, keys: 1),
        "The weights are too even: the scores were divided by head_dim itself; it takes its square root": (
            partial(_with_scale, lambda queries, keys: 1 / queries.shape[-1])
        ),
        "The scores were divided by the square root of the number of keys. A dot product is a sum of head_dim terms; "
        "how many keys there are does not matter to it": (
            partial(_with_scale, lambda queries, keys: keys.shape[-2] ** -0.5)
        ),
        "The scores were divided by the square root of the number of queries. A dot product is a sum of head_dim "
        "terms, and head_dim is the last axis": partial(_with_scale, lambda queries, keys: queries.shape[-2] ** -0.5),
        "The weights are too sharp: the scores were multiplied by the square root of head_dim; divide by it": (
            partial(_with_scale, lambda queries, keys: queries.shape[-1] ** 0.5)
        ),
        "Those are the scores: no softmax has made weights of them yet": _scaled,
        "The exponentials are there, but not yet divided by the sum of their row, so that the rows do not sum to 1": (
            lambda queries, keys: np.exp(_scaled(queries, keys))
        ),
        "The exponential of a large score is infinite for the computer. Take the row's largest score off all its "
        "scores first: the weights stay the same, and no exponential is above 1": _without_shift,
        "The largest score of all was taken off, and in a row whose own are far below it every exponential is 0. Take "
        "off each row's own largest": (
            partial(_without_shift, largest=lambda scores: scores.max((-2, -1), keepdims=True))
        ),
        "The row's mean was taken off: a single large score lies far above it, and its exponential is still infinite. "
        "Take off the row's largest score": (
            partial(_without_shift, largest=lambda scores: scores.mean(-1, keepdims=True))
        ),
        "The largest score of each column was taken off: the numbers of a row then change by different amounts, and "
        "so do its weights. Take off the largest of each row, along the keys": (
            partial(_without_shift, largest=lambda scores: scores.max(-2, keepdims=True))
        ),
        "The exponential of a large score is infinite, and NaN came of it; 1 in its place hides that, and the row sums "
        "to 2. Take the row's largest score off all its scores first": (
            lambda queries, keys: np.nan_to_num(_without_shift(queries, keys), nan=1)
        ),
        "The exponential of a large score is infinite, and NaN came of it; 0 in its place takes the weight from the "
        "very keys that fit best. Take the row's largest score off all its scores first": (
            lambda queries, keys: np.nan_to_num(_without_shift(queries, keys))
        ),
    }
    examine(
        yours,
        _weights,
        [few, many, large, alone],
        mistakes,
        axes="batch queries keys",
        diagnose=[_about_exponentials, _about_cut_scores, _about_sums],
        holds="Every query shares out exactly 1 among the keys, however many and however large the scores.",
        picture=lambda expected, got: beside(expected[0], got[0]),
    )


# ------------------------------------------------------------------------------------------------ one head: padding


def _hidden(weights: np.ndarray, real: np.ndarray) -> np.ndarray:
    hidden = np.zeros_like(weights)
    for image, row in np.ndindex(weights.shape[:2]):
        left = sum(weight for weight, is_real in zip(weights[image, row], real[image], strict=True) if is_real)
        for key in range(weights.shape[2]):
            hidden[image, row, key] = weights[image, row, key] / left if real[image, key] else 0
    return hidden


def _divided(weights: np.ndarray, axis: int | tuple[int, ...] = -1) -> np.ndarray:
    return weights / weights.sum(axis, keepdims=True)


def _spread(weights: np.ndarray, real: np.ndarray) -> np.ndarray:
    kept = weights * real[:, None]
    return kept + (1 - kept.sum(-1, keepdims=True)) / real.sum(-1)[:, None, None] * real[:, None]


def _about_added(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    """The same small number added to the sum of every row."""
    left = (case["weights"] * case["real"][:, None]).sum(-1)
    with np.errstate(all="ignore"):
        added = left * (1 / got.sum(-1) - 1)
    if np.isfinite(added).all() and 1e-8 < added.min() and added.max() < 0.01 and np.ptp(added) < added.mean() / 2:
        return (
            "The rows sum to a little less than 1: a small number was added to the sum that divides them. In a row "
            "with little left it counts; no sum is 0 here, so leave it out"
        )
    return None


def check_hide_padding(yours: Callable, seed: int = 0) -> None:
    """yours(weights, real): weights (batch queries keys) as if the scores of padding had been minus infinity before
    the softmax; real (batch keys) is True where a key is no padding."""
    one = dict(
        weights=torch.tensor([[[0.5, 0.25, 0.25], [0.125, 0.375, 0.5], [0.25, 0.5, 0.25]]]),
        real=torch.tensor([[True, True, False]]),
    )
    three = dict(
        weights=_random(3, 3, 3, seed=seed).softmax(-1),
        real=torch.tensor([[True, True, False], [True, True, True], [True, False, False]]),
    )
    two = dict(
        weights=_random(2, 5, 5, seed=seed + 1).softmax(-1),
        real=torch.tensor([[True, True, True, True, False], [True, True, False, False, False]]),
    )
    little = dict(
        weights=torch.tensor([[[0.984375, 0.015625, 0], [0.25, 0.5, 0.25], [0.5, 0.25, 0.25]]]),
        real=torch.tensor([[False, True, False]]),
    )
    mistakes = {
        "The padding has weight 0, but the rows no longer sum to 1: divide each row by what is left of it": (
            lambda weights, real: weights * real[:, None]
        ),
        "True and False are exchanged: all weight lies on the padding. real is True where a key may be looked at": (
            lambda weights, real: _divided(weights * ~real[:, None])
        ),
        "True and False are exchanged: only the padding has kept its weight. real is True where a key may be "
        "looked at": (lambda weights, real: weights * ~real[:, None]),
        "The rows of the padding are 0, and its columns are not: the mask lies on the queries. Nobody may look at "
        "padding, so it belongs on the keys, the last axis": lambda weights, real: weights * real[:, :, None],
        "The rows of the padding were hidden, and 0 / 0 is no number: the mask lies on the queries. It belongs on the "
        "keys, the last axis: real[:, None, :]": lambda weights, real: _divided(weights * real[:, :, None]),
        "The rows of the padding were hidden too, and 0 / 0 is no number. Hide its columns only, real[:, None, :]; "
        "what padding looks at harms nobody": (
            lambda weights, real: _divided(weights * real[:, :, None] * real[:, None])
        ),
        "The columns were divided by their sums, and a column of padding is 0 / 0. It is the rows, over the keys, "
        "that must sum to 1": lambda weights, real: _divided(weights * real[:, None], -2),
        "The rows of the padding are 0 as well. Only its columns are to be hidden; what padding looks at harms nobody, "
        "and every row sums to 1": lambda weights, real: _hidden(weights, real) * real[:, :, None],
        "The padding has weight 0 and the rows sum to 1, but the rest is more even than it was: a second softmax ran "
        "over the weights. Divide each row by its sum instead": (
            lambda weights, real: _softmax(np.where(real[:, None], weights, -np.inf))
        ),
        "The padding has weight again: a second softmax made exp(0) = 1 of its 0. Divide each row by its sum instead": (
            lambda weights, real: _softmax(weights * real[:, None])
        ),
        "What the padding had was spread evenly over the others. Divide each row by what is left of it, so that a key "
        "with twice the weight of another keeps twice the weight": _spread,
        "The columns were divided by their sums: it is the rows, over the keys, that must sum to 1": (
            lambda weights, real: np.where(real[:, None], _divided(weights, -2), 0)
        ),
        "All rows of an image were divided by one sum; each row must be divided by its own": (
            lambda weights, real: _divided(weights * real[:, None], (-2, -1))
        ),
        "Each row was divided by the number of real keys. Divide it by the sum of what is left in it": (
            lambda weights, real: weights * real[:, None] / real.sum(-1)[:, None, None]
        ),
        "Every query has another image's mask: (batch keys) was laid on (queries keys). It needs an axis of length 1 "
        "for the queries, real[:, None, :]": lambda weights, real: _divided(weights * real),
    }
    examine(
        yours,
        _hidden,
        [one, three, two, little],
        mistakes,
        axes="batch queries keys",
        diagnose=[_about_padding, _about_added, _about_sums],
        holds="Nobody looks at padding, and every row still sums to 1: as if its scores had been minus infinity.",
        picture=lambda expected, got: beside(expected[0], got[0]),
    )


def _about_padding(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    image, row, key = np.unravel_index(int(np.argmax(got * ~case["real"][:, None])), got.shape)
    if got[image, row, key] > 1e-6 and not case["real"][image, key]:
        return f"Key {key} of image {image} is padding, and query {row} still gives it {got[image, row, key]:.2g}"
    return None


# ------------------------------------------------------------------------------------------------ one head: by design


def _weights_with(yours: Callable, keys: Tensor, steps: int):
    """The weights that the reader's queries make, with what is within 1% of 0 or of 1 counted as such."""
    queries = yours(keys, steps)
    if not isinstance(queries, Tensor):
        return queries
    if queries.shape != keys.shape:
        raise Wrong(
            f"the queries have the shape {tuple(queries.shape)}, expected {tuple(keys.shape)} (tokens head_dim), "
            "as the keys have"
        )
    if not queries.is_floating_point():
        return queries
    weights = (queries.double() @ keys.double().mT / keys.shape[-1] ** 0.5).softmax(-1)
    near = weights.round()
    return weights.where((weights - near).abs() > 1 - ENOUGH, near).to(queries.dtype)


def _look_back(keys: np.ndarray, steps: int) -> np.ndarray:
    tokens = len(keys)
    weights = np.zeros((tokens, tokens))
    for token in range(tokens):
        weights[token, (token - steps) % tokens] = 1
    return weights


def _about_looks(case: dict, expected: np.ndarray, got: np.ndarray) -> str:
    tokens, steps = len(got), case["steps"]
    looks, wanted, own = got.argmax(-1), expected.argmax(-1), np.arange(tokens)
    if (even := np.ptp(got, -1) < 1e-4).any():
        who = "Every token" if even.all() else f"Token {int(np.argmax(even))}"
        return f"{who} shares out evenly: its query fits no key better than another"
    if (looks == own).all():
        return (
            "Every token looks at itself: its query points where its own key points. It should point where the key of "
            "the token it looks for points"
        )
    if (looks == (own + steps) % tokens).all():
        return f"Every token looks forward, at the token {steps} after it; look back"
    if (looks == (own - 1) % tokens).all() and steps != 1:
        return f"Every token looks 1 back, where steps is {steps}"
    if (looks == wanted).all():
        least = np.floor(got[own, wanted].min() * 1e4) / 1e4  # never rounded up to what is asked for
        return (
            f"Every token looks at the right one, but gives it only {least:.4f} of its 1. Longer queries make larger "
            "scores; mind that these are divided by the square root of head_dim"
        )
    token = int(np.argmax(looks != wanted))
    return f"Token {token} looks most at token {looks[token]}; that should be token {wanted[token]}"


def check_look_back(yours: Callable, seed: int = 0) -> None:
    """yours(keys, steps): queries (tokens head_dim) with which token k gives 0.99 of its weight to token k - steps, the
    first tokens to the last ones; the keys (tokens head_dim) have length 1 and are at right angles to one another."""
    cases = [dict(keys=torch.eye(3, 4), steps=1)]
    for tokens, head_dim, steps in ((5, 7, 2), (7, 7, 3), (6, WIDE, 1)):
        keys = torch.linalg.qr(_random(head_dim, tokens, seed=seed + tokens)).Q.T
        cases.append(dict(keys=keys.contiguous(), steps=steps))
    examine(
        partial(_weights_with, yours),
        _look_back,
        cases,
        {},
        axes="queries keys: the weights that your queries make",
        diagnose=[_about_looks],
        holds="Every token gives at least 0.99 of its weight to the token `steps` before it, whatever the keys are.",
        written=yours,
        picture=beside,
    )


# ------------------------------------------------------------------------------------------------ many heads: scores


def _scores(queries: np.ndarray, keys: np.ndarray, heads: int) -> np.ndarray:
    head_dim = queries.shape[-1] // heads
    scores = np.zeros((len(queries), heads, queries.shape[1], keys.shape[1]))
    for image, head, query, key in np.ndindex(scores.shape):
        for number in range(head * head_dim, (head + 1) * head_dim):
            scores[image, head, query, key] += queries[image, query, number] * keys[image, key, number] / head_dim**0.5
    return scores


def _cut(tokens: np.ndarray, heads: int, how: str = "slices") -> np.ndarray:
    """(batch tokens dim) to (batch heads tokens head_dim), rightly by slices."""
    batch, count, dim = tokens.shape
    if how == "interleaved":
        return tokens.reshape(batch, count, dim // heads, heads).transpose(0, 3, 1, 2)
    if how == "tokens":
        return tokens.reshape(batch, heads, count, dim // heads)
    return tokens.reshape(batch, count, heads, dim // heads).transpose(0, 2, 1, 3)


def _scores_by(how: str, queries: np.ndarray, keys: np.ndarray, heads: int) -> np.ndarray:
    return _scaled(_cut(queries, heads, how), _cut(keys, heads, how))


def check_scores(yours: Callable, seed: int = 0) -> None:
    """yours(queries, keys, heads): the scaled scores (batch heads queries keys) of all heads, before the softmax, of
    queries (batch queries dim) and keys (batch keys dim)."""
    cases = [
        dict(queries=_whole(1, 2, 8, seed=3), keys=_whole(1, 3, 8, seed=4), heads=2),
        dict(queries=_random(2, 4, 6, seed=seed), keys=_random(2, 5, 6, seed=seed + 1), heads=3),
    ]
    mistakes = {
        "The heads were taken as (head_dim heads): head 0 got every heads-th number of a vector. A head is a slice of "
        "numbers side by side, (heads head_dim)": partial(_scores_by, "interleaved"),
        "The tokens were cut and not their vectors, so that a head mixes several tokens. First split dim into heads "
        "and head_dim, then bring heads before the tokens": partial(_scores_by, "tokens"),
        "The scores are not scaled: divide by the square root of head_dim": (
            lambda queries, keys, heads: _dots(_cut(queries, heads), _cut(keys, heads))
        ),
        "The scores are too small: they were divided by the square root of dim. A head sums over its own head_dim "
        "terms only": lambda queries, keys, heads: _scores(queries, keys, heads) / heads**0.5,
        "The scores were divided by head_dim itself; it takes its square root": (
            lambda queries, keys, heads: _scores(queries, keys, heads) / (queries.shape[-1] // heads) ** 0.5
        ),
        "The scores were divided by the square root of the number of heads; a head sums over head_dim terms": (
            lambda queries, keys, heads: _dots(_cut(queries, heads), _cut(keys, heads)) / heads**0.5
        ),
        "The scores are too large: they were multiplied by the square root of head_dim; divide by it": (
            lambda queries, keys, heads: _scores(queries, keys, heads) * (queries.shape[-1] // heads)
        ),
        "Every head of the queries has met the keys of all heads, added up: in the einsum the heads have two letters. "
        "Head 0 meets head 0 alone, so give both the same letter": (
            lambda queries, keys, heads: _scaled(_cut(queries, heads), _cut(keys, heads).sum(1, keepdims=True))
        ),
        "Rows and columns are exchanged: a row is a query, a column a key": (
            lambda queries, keys, heads: np.swapaxes(_scores(queries, keys, heads), -1, -2)
        ),
        "The heads stand last; they stand before the queries, so that every head has its own matrix": (
            lambda queries, keys, heads: np.moveaxis(_scores(queries, keys, heads), 1, -1)
        ),
        "The heads stand between queries and keys; they stand before the queries, so that every head has its own "
        "matrix": lambda queries, keys, heads: np.moveaxis(_scores(queries, keys, heads), 1, 2),
        "The heads stand before the batch; the batch comes first": (
            lambda queries, keys, heads: np.moveaxis(_scores(queries, keys, heads), 1, 0)
        ),
        "The numbers of all heads were added up, so that one matrix is left; the letter of the heads must stay on the "
        "right of the arrow": lambda queries, keys, heads: _scores(queries, keys, heads).sum(1),
        "All heads have the same scores, those of the whole vectors: each must see its own slice alone": (
            lambda queries, keys, heads: (
                np.repeat(_dots(queries, keys)[:, None], heads, 1) / (queries.shape[-1] // heads) ** 0.5
            )
        ),
        "Every row sums to 1: those are the weights already; give the scores, before the softmax": (
            lambda queries, keys, heads: _softmax(_scores(queries, keys, heads))
        ),
    }
    examine(
        yours,
        _scores,
        cases,
        mistakes,
        axes="batch heads queries keys",
        holds="Every head compares its own slice of the vectors, and all of them at once.",
    )


# ------------------------------------------------------------------------------------------------ many heads: outputs


def _joined(head_outputs: np.ndarray) -> np.ndarray:
    batch, heads, tokens, head_dim = head_outputs.shape
    return head_outputs.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * head_dim)


def _interleaved(head_outputs: np.ndarray) -> np.ndarray:
    batch, heads, tokens, head_dim = head_outputs.shape
    return head_outputs.transpose(0, 2, 3, 1).reshape(batch, tokens, heads * head_dim)


def _reshaped(head_outputs: np.ndarray) -> np.ndarray:
    batch, heads, tokens, head_dim = head_outputs.shape
    return head_outputs.reshape(batch, tokens, heads * head_dim)


def _moved(order: tuple[int, ...], head_outputs: np.ndarray) -> np.ndarray:
    batch, heads, tokens, head_dim = head_outputs.shape
    return head_outputs.transpose(order).reshape(batch, tokens, heads * head_dim)


def _projected(head_outputs: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    batch, heads, tokens, head_dim = head_outputs.shape
    output = np.zeros((batch, tokens, len(weight)))
    for image, token, out in np.ndindex(output.shape):
        output[image, token, out] = bias[out]
        for head in range(heads):
            for number in range(head_dim):
                taken = head_outputs[image, head, token, number]
                output[image, token, out] += taken * weight[out, head * head_dim + number]
    return output


def check_join(yours: Callable, seed: int = 0) -> None:
    """yours(head_outputs, weight, bias): the heads' outputs (batch heads tokens head_dim), joined and projected as
    nn.Linear with this weight (dim dim) and this bias (dim) does it: (batch tokens dim)."""
    digits = torch.arange(1.0, 9).reshape(1, 2, 2, 2)
    cases = [
        dict(head_outputs=digits, weight=_whole(4, 4, seed=1), bias=torch.tensor([100.0, 200, 300, 400])),
        dict(
            head_outputs=_random(2, 3, 4, 2, seed=seed),
            weight=_random(6, 6, seed=seed + 1),
            bias=_random(6, seed=seed + 2),
        ),
    ]
    mistakes = {
        "Only reshaped: one token's vector is filled with the numbers of several tokens of one head. Bring the tokens "
        "before the heads first": lambda head_outputs, weight, bias: _reshaped(head_outputs) @ weight.T + bias,
        "The heads were joined as (head_dim heads): their numbers alternate. Head 0's numbers come first, all of "
        "them, then head 1's: (heads head_dim)": lambda head_outputs, weight, bias: (
            _interleaved(head_outputs) @ weight.T + bias
        ),
        "Heads and head_dim have changed places, and the tokens do not stand first: a token's vector is filled from "
        "several tokens. Exchange heads and tokens: transpose(1, 2)": lambda head_outputs, weight, bias: (
            _moved((0, 3, 2, 1), head_outputs) @ weight.T + bias
        ),
        "Tokens and head_dim have changed places: a token's vector is filled from several tokens. Exchange heads and "
        "tokens: transpose(1, 2)": lambda head_outputs, weight, bias: (
            _moved((0, 1, 3, 2), head_outputs) @ weight.T + bias
        ),
        "The heads were averaged, and the mean repeated. Keep each head's numbers, and put them side by side": (
            lambda head_outputs, weight, bias: (
                np.tile(head_outputs.mean(1), (1, 1, head_outputs.shape[1])) @ weight.T + bias
            )
        ),
        "The projection is transposed. A Linear keeps its weight as (out in), a row for every number of the output: "
        "joined @ weight.T": lambda head_outputs, weight, bias: _joined(head_outputs) @ weight + bias,
        "The heads are joined, but the projection is missing: multiply by the weight and add the bias": (
            lambda head_outputs, weight, bias: _joined(head_outputs)
        ),
        "The bias is missing": lambda head_outputs, weight, bias: _joined(head_outputs) @ weight.T,
        "The bias came once for every head; it is added once, after the heads are joined": (
            lambda head_outputs, weight, bias: _joined(head_outputs) @ weight.T + head_outputs.shape[1] * bias
        ),
        "The bias was added before the projection; it comes after": (
            lambda head_outputs, weight, bias: (_joined(head_outputs) + bias) @ weight.T
        ),
    }
    examine(
        yours,
        _projected,
        cases,
        mistakes,
        axes="batch tokens dim",
        holds="Every token has its heads' numbers side by side, and the projection has mixed them.",
    )


def _contributed(head_outputs: np.ndarray, weight: np.ndarray, head: int) -> np.ndarray:
    silenced = np.zeros_like(head_outputs)
    silenced[:, head] = head_outputs[:, head]
    return _projected(silenced, weight, np.zeros(len(weight)))


def _with_columns(columns: Callable, head_outputs: np.ndarray, weight: np.ndarray, head: int) -> np.ndarray:
    heads, _, head_dim = head_outputs.shape[1:]
    return head_outputs[:, head] @ weight[:, columns(head, heads, head_dim)].T


def _with_rows(head_outputs: np.ndarray, weight: np.ndarray, head: int) -> np.ndarray:
    head_dim = head_outputs.shape[-1]
    return head_outputs[:, head] @ weight[head * head_dim : (head + 1) * head_dim]


def _unprojected(head_outputs: np.ndarray, weight: np.ndarray, head: int) -> np.ndarray:
    return _contributed(head_outputs, np.eye(len(weight)), head)


def _without(head_outputs: np.ndarray, weight: np.ndarray, head: int) -> np.ndarray:
    return _joined(head_outputs) @ weight.T - _contributed(head_outputs, weight, head)


def _slice_of_output(head_outputs: np.ndarray, weight: np.ndarray, head: int) -> np.ndarray:
    head_dim = head_outputs.shape[-1]
    output = _joined(head_outputs) @ weight.T
    output[..., : head * head_dim] = 0
    output[..., (head + 1) * head_dim :] = 0
    return output


def check_contribution(yours: Callable, seed: int = 0) -> None:
    """yours(head_outputs, weight, head): what one head adds to the output of the projection (batch tokens dim), given
    the heads' outputs (batch heads tokens head_dim) and the projection's weight (dim dim)."""
    small = dict(head_outputs=torch.arange(1.0, 9).reshape(1, 2, 2, 2), weight=_whole(4, 4, seed=1))
    large = dict(head_outputs=_random(2, 3, 4, 2, seed=seed), weight=_random(6, 6, seed=seed + 1))
    cases = [small | dict(head=1), small | dict(head=0), large | dict(head=1), large | dict(head=2)]
    mistakes = {
        "The head met the wrong numbers of the weight: rows of it were cut out. A Linear keeps its weight as (out in), "
        "so what reads one head is a few columns": _with_rows,
        "The columns are cut as (head_dim heads), every heads-th of them. A head's columns stand side by side": (
            partial(_with_columns, lambda head, heads, head_dim: slice(head, None, heads))
        ),
        "The columns begin at number `head`; each head before it takes head_dim of them": (
            partial(_with_columns, lambda head, heads, head_dim: slice(head, head + head_dim))
        ),
        "The columns are always the first ones; those of a head begin at head * head_dim": (
            partial(_with_columns, lambda head, heads, head_dim: slice(head_dim))
        ),
        "Those are the head's numbers in their place, before the projection. What it adds to the output is these "
        "times the weight": _unprojected,
        "That is the whole output: the other heads must count as 0": (
            lambda head_outputs, weight, head: _joined(head_outputs) @ weight.T
        ),
        "That is what all the other heads add; take this one alone": _without,
        "Those are the numbers of the head before: the heads are counted from 0": (
            lambda head_outputs, weight, head: _contributed(head_outputs, weight, head - 1)
        ),
        "The output was shared out evenly among the heads; each adds what its own numbers make of it": (
            lambda head_outputs, weight, head: _joined(head_outputs) @ weight.T / head_outputs.shape[1]
        ),
        "A slice of the output was kept. The projection mixes the heads, so each adds to every number of the output: "
        "silence the other heads before the projection": _slice_of_output,
        "The share was divided by the number of heads. The projection adds the heads up, it does not average them": (
            lambda head_outputs, weight, head: _contributed(head_outputs, weight, head) / head_outputs.shape[1]
        ),
    }
    examine(
        yours,
        _contributed,
        cases,
        mistakes,
        axes="batch tokens dim",
        holds="That is the head's share: over all heads, and with the bias, the shares sum to the output.",
    )
