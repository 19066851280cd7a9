"""Notebook 06: the norm, and where it stands."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from vit_walkthrough.exercises.examine import examine

EPS = 1e-6

# ------------------------------------------------------------------------------------------------ LayerNorm


def _layer_norm(tokens: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    normed = np.zeros_like(tokens)
    for place in np.ndindex(tokens.shape[:-1]):
        token = tokens[place]
        mean = sum(token) / len(token)
        variance = sum((number - mean) ** 2 for number in token) / len(token)
        normed[place] = (token - mean) / (variance + EPS) ** 0.5 * weight + bias
    return normed


def _norm_with(
    tokens: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    axis: int | tuple[int, ...] = -1,
    eps: float = EPS,
    divisor: Callable = lambda variance, eps: np.sqrt(variance + eps),
    less: int = 0,
    centred: bool = True,
) -> np.ndarray:
    mean = tokens.mean(axis, keepdims=True)
    variance = tokens.var(axis, keepdims=True, ddof=less)
    return (tokens - mean * centred) / divisor(variance, eps) * weight + bias


def _about_moments(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    """What the tokens were before weight and bias, if these are right."""
    plain, wanted = ((values - case["bias"]) / case["weight"] for values in (got, expected))
    for name, moment in (("mean", np.mean), ("variance", np.var)):
        apart = np.abs(moment(plain, -1) - moment(wanted, -1))
        if apart.max() > 1e-3:
            worst = np.unravel_index(int(np.argmax(apart)), apart.shape)
            is_now, should_be = (round(moment(values, -1)[worst], 4) + 0.0 for values in (plain, wanted))
            return (
                f"Before weight and bias, token {worst[-1]} has the {name} {is_now:.3g}; by itself it should have "
                f"{should_be:.3g}"
            )
    return None


def check_layer_norm(yours: Callable, seed: int = 0) -> None:
    """yours(tokens, weight, bias): LayerNorm with eps 1e-6 of tokens (batch tokens dim), weight and bias (dim)."""
    generator = torch.Generator().manual_seed(seed)
    few = dict(
        tokens=torch.tensor([[[0.0, 0, 4, 4], [1, 7, 7, 1]]]),
        weight=torch.tensor([1.0, 2, 3, 4]),
        bias=torch.tensor([10.0, 10, 20, 20]),
    )
    many = dict(
        tokens=torch.randint(-9, 10, (2, 3, 5), generator=generator).float(),
        weight=torch.rand(5, generator=generator) + 0.5,
        bias=torch.randn(5, generator=generator),
    )
    alike = dict(
        tokens=torch.tensor([[[0.001, 0.002, 0.003, 0.002], [2, 2, 2, 2], [2, 4, 6, 4]]]),
        weight=torch.ones(4),
        bias=torch.zeros(4),
    )
    mistakes = {
        "The mean was taken over the tokens: each of the dim numbers was compared with its like in other tokens. "
        "LayerNorm looks at one token alone, along the last axis": partial(_norm_with, axis=-2),
        "The mean was taken over the batch and the tokens: that is a BatchNorm. LayerNorm looks at one token alone, "
        "along the last axis": partial(_norm_with, axis=(0, 1)),
        "The mean was taken over the batch: one image changes what another becomes. LayerNorm looks at one token "
        "alone, along the last axis": partial(_norm_with, axis=0),
        "All tokens of an image share one mean and one variance; each needs its own": (
            partial(_norm_with, axis=(-2, -1))
        ),
        "Everything shares one mean and one variance; each token needs its own": partial(_norm_with, axis=(0, 1, 2)),
        "The variance was divided by dim - 1, as torch's var and std do by default; LayerNorm divides by dim: "
        "unbiased=False": partial(_norm_with, less=1),
        "A constant token has variance 0, and 0 / 0 is no number: add eps = 1e-6 to the variance, under the root": (
            partial(_norm_with, eps=0.0)
        ),
        "eps is 1e-5, torch's default; here it is 1e-6, as in the notebook. For a nearly constant token that shows": (
            partial(_norm_with, eps=1e-5)
        ),
        "eps was added to the standard deviation; it belongs to the variance, under the root": (
            partial(_norm_with, divisor=lambda variance, eps: np.sqrt(variance) + eps)
        ),
        "Divided by the variance: divide by its square root, the standard deviation": (
            partial(_norm_with, divisor=lambda variance, eps: variance + eps)
        ),
        "The mean was subtracted, but nothing was divided: the tokens keep their sizes": (
            partial(_norm_with, divisor=lambda variance, eps: 1)
        ),
        "The mean was not subtracted: the tokens have the right size, but not mean 0": (
            partial(_norm_with, centred=False)
        ),
        "weight and bias came first, and the norm undid part of them. They come after it": (
            lambda tokens, weight, bias: _layer_norm(tokens * weight + bias, np.ones_like(weight), np.zeros_like(bias))
        ),
        "The bias was added before the weight was multiplied; it comes last": (
            lambda tokens, weight, bias: _layer_norm(tokens, weight, bias * weight)
        ),
        "weight and bias are exchanged: multiply by the weight, then add the bias": (
            lambda tokens, weight, bias: _layer_norm(tokens, bias, weight)
        ),
        "weight and bias are missing: multiply by the one and add the other": (
            lambda tokens, weight, bias: _layer_norm(tokens, np.ones_like(weight), np.zeros_like(bias))
        ),
        "The bias is missing": lambda tokens, weight, bias: _layer_norm(tokens, weight, np.zeros_like(bias)),
        "The weight is missing": lambda tokens, weight, bias: _layer_norm(tokens, np.ones_like(weight), bias),
    }
    examine(
        yours,
        _layer_norm,
        [few, many, alike],
        mistakes,
        axes="batch tokens dim",
        diagnose=[_about_moments],
        holds="Every token has mean 0 and variance 1 by itself, then weight and bias; a constant one stays finite.",
    )


# ------------------------------------------------------------------------------------------------ how many parameters


def _parameters(dim: int, hidden: int) -> int:
    norms = [(dim,), (dim,), (dim,), (dim,)]  # two of them, each with weight and bias
    attention = [(dim, 3 * dim), (3 * dim,), (dim, dim), (dim,)]
    mlp = [(dim, hidden), (hidden,), (hidden, dim), (dim,)]
    return sum(int(np.prod(shape)) for shape in norms + attention + mlp)


def _too_many(case: dict, expected: int, got: int) -> str:
    return (
        f"{abs(got - expected):,} too {'many' if got > expected else 'few'}: count one after another norm_1, qkv, "
        "projection, norm_2, expand and contract"
    )


def check_block_parameters(yours: Callable, seed: int = 0) -> None:
    """yours(dim, hidden): how many parameters an encoder block has."""
    numbers = np.random.default_rng(seed)
    cases = [dict(dim=4, hidden=10), dict(dim=768, hidden=3072)]
    for _ in range(2):
        dim = int(numbers.integers(5, 400))
        cases.append(dict(dim=dim, hidden=dim * int(numbers.integers(1, 4)) + int(numbers.integers(1, dim))))

    missing = {
        "The biases are missing, those of the four Linear layers and of the LayerNorms": (
            lambda dim, hidden: 3 * dim + dim + hidden + dim + 2 * dim
        ),
        "The biases of the four Linear layers are missing: a Linear has one number for every number of its output": (
            lambda dim, hidden: 3 * dim + dim + hidden + dim
        ),
        "2 * dim are missing. Either qkv's bias was counted with dim numbers, where it has 3 * dim, or one LayerNorm: "
        "there are two, each with a weight and a bias of dim numbers": (lambda dim, hidden: 2 * dim),
        "The LayerNorms are missing: two, each with a weight and a bias of dim numbers": lambda dim, hidden: 4 * dim,
        "qkv was counted as one matrix of dim * dim; it is three times as wide, with a bias as wide": (
            lambda dim, hidden: 2 * dim * dim + 2 * dim
        ),
        "qkv's matrix was counted once; it is three side by side, dim * 3 * dim": lambda dim, hidden: 2 * dim * dim,
        "qkv has no bias in this count; in the ViT it has one, 3 * dim numbers": lambda dim, hidden: 3 * dim,
        "The projection after the heads is missing: dim * dim and a bias": lambda dim, hidden: dim * dim + dim,
        "Attention is missing": lambda dim, hidden: 4 * dim * dim + 4 * dim,
        "The MLP is missing": lambda dim, hidden: 2 * dim * hidden + hidden + dim,
        "The MLP was counted with one matrix; it has two, there and back": lambda dim, hidden: dim * hidden + dim,
        "The MLP's bias after its first matrix has hidden numbers, not dim": lambda dim, hidden: hidden - dim,
    }
    mistakes = {
        sentence: partial(lambda gone, dim, hidden: _parameters(dim, hidden) - gone(dim, hidden), gone)
        for sentence, gone in missing.items()
    }
    mistakes["hidden was taken for 4 * dim; usually it is, but count with the hidden that is given"] = (
        lambda dim, hidden: _parameters(dim, 4 * dim)
    )
    mistakes["hidden * hidden numbers were counted: the MLP's matrices lead from dim to hidden and back"] = (
        lambda dim, hidden: _parameters(dim, hidden) - 2 * dim * hidden + hidden * hidden
    )
    examine(
        yours,
        _parameters,
        cases,
        mistakes,
        diagnose=[_too_many],
        holds="Two LayerNorms, four Linear layers with their biases: every parameter of a block is counted.",
    )


# ------------------------------------------------------------------------------------------------ before or after


@dataclass(frozen=True)
class Step:
    """A step of a block for tensors and for arrays alike, so simple that it can be followed by eye."""

    formula: str
    work: Callable

    def __call__(self, x):
        return self.work(x)


SIMPLE = dict(
    attention=Step("2 * x", lambda x: 2 * x),
    mlp=Step("x * x", lambda x: x * x),
    norm_1=Step("x + 1", lambda x: x + 1),
    norm_2=Step("10 * x", lambda x: 10 * x),
)
LIFELIKE = dict(
    attention=Step("half of the next token", lambda x: x[:, [1, 2, 0]] / 2),
    mlp=Step("x * x / 3", lambda x: x * x / 3),
    norm_1=Step("x - its mean", lambda x: x - x.mean(-1)[..., None]),
    norm_2=Step("x - its mean, times 2", lambda x: 2 * (x - x.mean(-1)[..., None])),
)


def _post_norm(tokens, attention, mlp, norm_1, norm_2):
    added = np.zeros_like(tokens)
    looked = attention(tokens)
    for place in np.ndindex(tokens.shape):
        added[place] = tokens[place] + looked[place]
    middle = norm_1(added)
    digested = mlp(middle)
    for place in np.ndindex(tokens.shape):
        added[place] = middle[place] + digested[place]
    return norm_2(added)


def _pre_norm(x, attention, mlp, norm_1, norm_2):
    x = x + attention(norm_1(x))
    return x + mlp(norm_2(x))


def _no_addition(x, attention, mlp, norm_1, norm_2):
    return norm_2(mlp(norm_1(attention(x))))


def _one_addition(x, attention, mlp, norm_1, norm_2):
    x = norm_1(x + attention(x))
    return norm_2(mlp(x))


def _late_addition(x, attention, mlp, norm_1, norm_2):
    x = norm_1(attention(x))
    return norm_2(x + mlp(x))


def _norm_aside(x, attention, mlp, norm_1, norm_2):
    x = x + norm_1(attention(x))
    return x + norm_2(mlp(x))


def _from_the_start(x, attention, mlp, norm_1, norm_2):
    return norm_2(x + mlp(norm_1(x + attention(x))))


def _both_from_the_start(x, attention, mlp, norm_1, norm_2):
    return norm_2(norm_1(x + attention(x)) + mlp(x))


def _from_before_the_norm(x, attention, mlp, norm_1, norm_2):
    middle = x + attention(x)
    return norm_2(middle + mlp(norm_1(middle)))


def _same_norm(x, attention, mlp, norm_1, norm_2):
    return _post_norm(x, attention, mlp, norm_1, norm_1)


def _norms_exchanged(x, attention, mlp, norm_1, norm_2):
    return _post_norm(x, attention, mlp, norm_2, norm_1)


def _mlp_first(x, attention, mlp, norm_1, norm_2):
    return _post_norm(x, mlp, attention, norm_1, norm_2)


def _one_norm(x, attention, mlp, norm_1, norm_2):
    x = x + attention(x)
    return norm_2(x + mlp(x))


def _first_norm_alone(x, attention, mlp, norm_1, norm_2):
    x = norm_1(x + attention(x))
    return x + mlp(x)


def _no_norm(x, attention, mlp, norm_1, norm_2):
    x = x + attention(x)
    return x + mlp(x)


def _first_half(x, attention, mlp, norm_1, norm_2):
    return norm_1(x + attention(x))


def _norms_on_the_stream_alone(x, attention, mlp, norm_1, norm_2):
    x = norm_1(x) + attention(x)
    return norm_2(x) + mlp(x)


def check_post_norm(yours: Callable, seed: int = 0) -> None:
    """yours(tokens, attention, mlp, norm_1, norm_2): tokens (batch tokens dim) after a block that normalises after each
    addition; the other arguments are functions of tokens."""
    mistakes = {
        "The norms stand before the steps: that is the block of the ViT, pre-norm. Here each stands after an addition, "
        "on the stream itself": _pre_norm,
        "Nothing is added: each step replaces the tokens. Add its result to what it has read, then normalise": (
            _no_addition
        ),
        "The second addition is missing: what the MLP gives is added to what it has read": _one_addition,
        "The first addition is missing: what attention gives is added to what it has read": _late_addition,
        "The norms stand aside, on what is added, and not on the stream: add first, then normalise the sum": (
            _norm_aside
        ),
        "The MLP's result was added to the tokens that came in; it is added to what it has read, the tokens after "
        "norm_1": _from_the_start,
        "The MLP has read the tokens that came in; it reads those after norm_1": _both_from_the_start,
        "The MLP's result was added to the tokens before norm_1: norm_1 stands on the stream, and everything after it "
        "goes on from there": _from_before_the_norm,
        "norm_1 was used twice: the second addition has a norm of its own, norm_2": _same_norm,
        "norm_1 and norm_2 are exchanged: norm_1 comes after attention, norm_2 after the MLP": _norms_exchanged,
        "The MLP came first: attention gathers, then the MLP digests": _mlp_first,
        "norm_1 is missing: there is a norm after each of the two additions": _one_norm,
        "norm_2 is missing: there is a norm after each of the two additions": _first_norm_alone,
        "Only the first half is there: after attention and norm_1 come the MLP, an addition and norm_2": _first_half,
        "What came in was normalised, and the step's result added to it. Add first, then normalise the sum: "
        "norm_1(x + attention(x))": _norms_on_the_stream_alone,
        "Both norms are missing: one stands after each addition": _no_norm,
    }
    tokens = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed))
    cases = [dict(tokens=torch.tensor([[[1.0], [2]]]), **SIMPLE), dict(tokens=tokens, **LIFELIKE)]
    examine(
        yours,
        _post_norm,
        cases,
        mistakes,
        axes="batch tokens dim",
        holds="Add, then normalise, twice: the block of 2017.",
    )
