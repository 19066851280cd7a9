"""Notebooks 04 and 05: who looks at whom, with one head and with many."""

import torch
from torch import Tensor, tensor

from vit_walkthrough.exercises.check import Wrong, exercise, randn, shares


@exercise(
    cases=[
        (tensor([[[2.0, 0, 0, 0], [0, 1, 1, -2]]]), tensor([[[1.0, 0, 2, 0], [0, 1, 1, 1], [2, 0, 0, -1]]])),
        (randn(2, 3, 6), randn(2, 5, 6, seed=1)),
        (tensor([[[128.0, 0, 0, 0], [-128, 0, 0, 0]]]), tensor([[[2.0, 0, 0, 0], [2, 0, 0, 0], [1, 0, 0, 0]]])),
        # One score lies so far above its row's mean that its exponential overflows even when the mean is subtracted.
        (tensor([[[20.0, 0, 0, 0]]]), tensor([0.0, 0, 0, 20, 0, 0, 10, 0, 0, 0])[None, :, None] * torch.eye(4)[0]),
    ],
    axes="batch queries keys",
    holds="Every query shares out exactly 1 among the keys, however many and however large the scores.",
)
def check_weights(queries, keys):
    """yours(queries, keys): the weights (batch queries keys) of attention, of queries (batch queries head_dim) and
    keys (batch keys head_dim)."""
    dots, head_dim = queries @ keys.mT, queries.shape[-1]
    scores = dots / head_dim**0.5
    powers = scores.exp()
    got = yield scores.softmax(-1)
    yield "Each column sums to 1: the softmax ran over the queries; let it run over the keys", scores.softmax(-2)
    yield "Too sharp: the scores have not been divided by the square root of head_dim", dots.softmax(-1)
    yield "Too even: divide the scores by the square root of head_dim, not by head_dim", (dots / head_dim).softmax(-1)
    yield "Those are the scores: no softmax has made weights of them yet", scores
    yield "The exponentials are there, but not yet divided by the sum of their row", powers
    yield "The exponential of a large score is infinite. Subtract each row's largest score first", shares(powers)
    if (got.sum(-1) - 1).abs().max() > 1e-4:
        yield f"The first row sums to {got.sum(-1).flatten()[0]:.3g}: every query shares out exactly 1 among the keys"


@exercise(
    cases=[
        (tensor([[[4.0, 2, 2], [1, 3, 4], [2, 4, 2]]]) / 8, tensor([[True, True, False]])),
        (randn(3, 3, 3).softmax(-1), tensor([[True, True, False], [True, True, True], [True, False, False]])),
        (randn(2, 5, 5, seed=1).softmax(-1), torch.arange(5) < tensor([[4], [2]])),
        (tensor([[[63.0, 1, 0], [16, 32, 16], [32, 16, 16]]]) / 64, tensor([[False, True, False]])),
    ],
    axes="batch queries keys",
    holds="Nobody looks at padding, and every row still sums to 1: as if its scores had been minus infinity.",
)
def check_hide_padding(weights, real):
    """yours(weights, real): weights (batch queries keys) as if the scores of padding had been minus infinity before
    the softmax; real (batch keys) is True where a key is no padding."""
    is_key, is_query = real[:, None, :], real[:, :, None]
    kept, hidden = weights * is_key, weights.masked_fill(~is_key, -torch.inf)
    got = yield shares(kept)
    yield "The padding has weight 0, but the rows no longer sum to 1: divide each row by what is left of it", kept
    yield "True and False are exchanged: real is True where a key may be looked at", shares(weights * ~is_key)
    yield "The mask lies on the queries, so rows are 0 / 0. It belongs on the keys", shares(weights * is_query)
    yield "The rows of the padding were hidden too, and are 0 / 0. Hide its columns only", shares(kept * is_query)
    yield "A second softmax makes the rows too even. Divide each row by its sum instead", hidden.softmax(-1)
    yield "The padding has weight again: a second softmax made exp(0) = 1 of its 0. Divide instead", kept.softmax(-1)
    for image, query, key in (got * ~is_key > 1e-6).nonzero().tolist():
        yield f"Key {key} of image {image} is padding, and query {query} still gives it {got[image, query, key]:.2g}"


def _weights_of_queries(yours, keys, steps):
    """The weights that the reader's queries make; what is within 0.01 of 0 or of 1 counts as such."""
    queries = yours(keys, steps)
    if not isinstance(queries, Tensor) or not queries.is_floating_point():
        return queries
    if queries.shape != keys.shape:
        shape = f"the shape {tuple(queries.shape)}, expected {tuple(keys.shape)}, that of the keys"
        raise Wrong(f"Your queries have {shape}")
    weights = (queries @ keys.mT / keys.shape[-1] ** 0.5).softmax(-1)
    return weights.where((weights - weights.round()).abs() > 0.01, weights.round())


def _at_right_angles(tokens, head_dim):
    return torch.linalg.qr(randn(head_dim, tokens)).Q.mT.contiguous()


@exercise(
    cases=[
        (torch.eye(3, 4), 1),
        (_at_right_angles(5, 7), 2),
        (_at_right_angles(7, 7), 3),
        (_at_right_angles(6, 400), 1),
    ],
    axes="queries keys: the weights that your queries make",
    holds="Every token gives at least 0.99 of its weight to the token `steps` before it, whatever the keys are.",
    run=_weights_of_queries,
)
def check_look_back(keys, steps):
    """yours(keys, steps): queries (tokens head_dim) with which token k gives 0.99 of its weight to token k - steps, the
    first tokens to the last ones; the keys (tokens head_dim) have length 1 and are at right angles to one another."""
    itself = torch.eye(len(keys))
    right = itself.roll(steps, 0)
    got = yield right
    yield "A token shares out evenly: its query fits no key better than another", torch.full_like(right, 1 / len(keys))
    yield "Every token looks at itself; point its query where the key of the token it looks for points", itself
    yield "Every token looks forward; look back", itself.roll(-steps, 0)
    yield "Every token looks 1 back; look `steps` back", itself.roll(1, 0)
    looks, wanted = got.argmax(-1), right.argmax(-1)
    if (looks == wanted).all():
        least = got.amax(-1).min() - 5e-5
        yield f"Every token looks at the right one, but gives it only {least:.4f}; longer queries make larger scores"
    token = (looks != wanted).int().argmax()
    yield f"Token {token} looks most at token {looks[token]}; that should be token {wanted[token]}"


@exercise(
    cases=[
        (tensor([[[1.0, 2, 0, -1, 3, 1, -2, 0], [2, 0, 1, 1, 0, -3, 1, 2]]]), randn(1, 3, 8).round(), 2),
        (randn(2, 4, 6), randn(2, 5, 6, seed=1), 3),
    ],
    axes="batch heads queries keys",
    holds="Every head compares its own slice of the vectors, and all of them at once.",
)
def check_scores(queries, keys, heads):
    """yours(queries, keys, heads): the scaled scores (batch heads queries keys) of all heads, before the softmax, of
    queries (batch queries dim) and keys (batch keys dim)."""
    head_dim = queries.shape[-1] // heads

    def dots(cut):
        return cut(queries) @ cut(keys).mT

    right = dots(lambda x: x.unflatten(-1, (heads, head_dim)).transpose(1, 2))
    of_tokens = dots(lambda x: x.reshape(len(x), heads, -1, head_dim))
    alternating = dots(lambda x: x.unflatten(-1, (head_dim, heads)).movedim(-1, 1))
    scores = right / head_dim**0.5
    yield scores
    yield "The heads alternate; a head's numbers stand side by side: (heads head_dim)", alternating / head_dim**0.5
    yield "The tokens were cut; first split dim into heads and head_dim, then move heads", of_tokens / head_dim**0.5
    yield "The scores are not scaled: divide by the square root of head_dim", right
    yield "The scores were divided by the square root of dim; a head sums over head_dim terms", scores / heads**0.5
    yield "Every row sums to 1: those are the weights already; give the scores, before the softmax", scores.softmax(-1)


DIGITS = torch.arange(1.0, 9).reshape(1, 2, 2, 2)
SQUARE = tensor([[2.0, 1, -1, 3], [0, -2, 3, 1], [-3, 1, 0, 2], [1, 3, 2, -1]])


@exercise(
    cases=[
        (DIGITS, SQUARE, tensor([100.0, 200, 300, 400])),
        (randn(2, 3, 4, 2), randn(6, 6, seed=1), randn(6, seed=2)),
    ],
    axes="batch tokens dim",
    holds="Every token has its heads' numbers side by side, and the projection has mixed them.",
)
def check_join(head_outputs, weight, bias):
    """yours(head_outputs, weight, bias): the heads' outputs (batch heads tokens head_dim), joined and projected as
    nn.Linear with this weight (dim dim) and this bias (dim) does it: (batch tokens dim)."""
    batch, _, tokens, _ = head_outputs.shape

    def joined(*order):
        return head_outputs.permute(order).reshape(batch, tokens, -1)

    def projected(numbers):
        return numbers @ weight.T + bias

    right = joined(0, 2, 1, 3)
    yield projected(right)
    yield "Only reshaped, so tokens are mixed. Bring the tokens before the heads first", projected(joined(0, 1, 2, 3))
    yield "The heads' numbers alternate. All of head 0's come first: (heads head_dim)", projected(joined(0, 2, 3, 1))
    yield "The projection is transposed: a Linear keeps its weight as (out in), so @ weight.T", right @ weight + bias
    yield "The heads are joined, but the projection is missing: multiply by the weight and add the bias", right
    yield "The bias is missing", right @ weight.T


@exercise(
    cases=[
        (DIGITS, SQUARE, 1),
        (DIGITS, SQUARE, 0),
        (randn(2, 3, 4, 2), randn(6, 6, seed=1), 1),
        (randn(2, 3, 4, 2), randn(6, 6, seed=1), 2),
    ],
    axes="batch tokens dim",
    holds="That is the head's share: over all heads, and with the bias, the shares sum to the output.",
)
def check_contribution(head_outputs, weight, head):
    """yours(head_outputs, weight, head): what one head adds to the output of the projection (batch tokens dim), given
    the heads' outputs (batch heads tokens head_dim) and the projection's weight (dim dim)."""
    head_dim = head_outputs.shape[-1]
    numbers, joined = head_outputs[:, head], head_outputs.transpose(1, 2).flatten(2)
    columns = torch.arange(head * head_dim, (head + 1) * head_dim)
    is_own = torch.isin(torch.arange(len(weight)), columns)
    share, whole = numbers @ weight[:, columns].T, joined @ weight.T
    shifted = weight[:, head : head + head_dim]
    yield share
    yield "Rows of the weight were cut out; it is (out in), so a head has columns", numbers @ weight[columns]
    yield "The columns begin at number `head`; each head before it takes head_dim of them", numbers @ shifted.T
    yield "Those are the head's numbers before the projection; multiply them by the weight", joined * is_own
    yield "That is the whole output: the other heads must count as 0", whole
    yield "A slice of the output was kept; silence the other heads before the projection mixes them", whole * is_own
