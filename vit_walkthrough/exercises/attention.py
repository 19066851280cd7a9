"""Notebooks 04 and 05: who looks at whom, with one head and with many."""

import torch
from torch import Tensor, tensor
from torch.nn.functional import one_hot

from vit_walkthrough.exercises.check import Wrong, exercise, randn


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
    picture=True,
)
def check_weights(queries, keys):
    """yours(queries, keys): the weights (batch queries keys) of attention, of queries (batch queries head_dim) and
    keys (batch keys head_dim)."""
    dots, head_dim = queries @ keys.mT, queries.shape[-1]
    scores = dots / head_dim**0.5
    of_all = scores.flatten(1).softmax(-1).view_as(scores)

    def less(number):
        return (scores - number).exp() / (scores - number).exp().sum(-1, keepdim=True)

    got = yield scores.softmax(-1)
    yield "Each column sums to 1: the softmax ran over the queries. Let it run over the keys", scores.softmax(-2)
    yield "All weights of an image together sum to 1: let the softmax run over the keys alone", of_all
    yield "Too sharp: the scores have not been divided by the square root of head_dim", dots.softmax(-1)
    yield (
        "Too even: the scores were divided by head_dim itself; it takes its square root",
        (dots / head_dim).softmax(-1),
    )
    yield (
        "The scores were divided by the square root of the number of keys. A dot product is a sum of head_dim terms; "
        "it does not matter how many keys there are",
        (dots / keys.shape[-2] ** 0.5).softmax(-1),
    )
    yield "Those are the scores: no softmax has made weights of them yet", scores
    yield "The exponentials are there, but not yet divided by the sum of their row", scores.exp()
    yield (
        "The exponential of a large score is infinite for the computer. Subtract the row's largest score from all its "
        "scores first: the weights stay the same, and no exponential is above 1",
        less(0),
    )
    yield (
        "The largest score of all was subtracted. In a row whose own scores are far below it, every exponential is 0. "
        "Subtract each row's own largest",
        less(scores.amax((-2, -1), keepdim=True)),
    )
    yield (
        "The exponential of a large score is infinite, and NaN came of it; another number in its place hides that. "
        "Subtract the row's largest score from all its scores first",
        less(0).nan_to_num(),
    )
    yield (
        "The row's mean was subtracted. A single large score lies far above it, and its exponential is still infinite. "
        "Subtract the row's largest score",
        less(scores.mean(-1, keepdim=True)),
    )
    yield (
        "The scores themselves were divided by their sum; take their exponentials first",
        scores / scores.sum(-1, True),
    )
    if got.min() < 0:
        yield "There are negative weights: a share is never below 0"
    if (got.sum(-1) - 1).abs().max() > 1e-4:
        yield f"The first row sums to {got.sum(-1).flatten()[0]:.3g}: every query shares out exactly 1 among the keys"
    if scores.max() > 50:
        yield "Were large scores cut off? Subtract the row's largest score instead; that changes no weight"


@exercise(
    cases=[
        (tensor([[[4.0, 2, 2], [1, 3, 4], [2, 4, 2]]]) / 8, tensor([[True, True, False]])),
        (randn(3, 3, 3).softmax(-1), tensor([[True, True, False], [True, True, True], [True, False, False]])),
        (randn(2, 5, 5, seed=1).softmax(-1), torch.arange(5) < tensor([[4], [2]])),
        (tensor([[[63.0, 1, 0], [16, 32, 16], [32, 16, 16]]]) / 64, tensor([[False, True, False]])),
    ],
    axes="batch queries keys",
    holds="Nobody looks at padding, and every row still sums to 1: as if its scores had been minus infinity.",
    picture=True,
)
def check_hide_padding(weights, real):
    """yours(weights, real): weights (batch queries keys) as if the scores of padding had been minus infinity before
    the softmax; real (batch keys) is True where a key is no padding."""
    is_key, is_query = real[:, None, :], real[:, :, None]
    kept = weights * is_key

    def divided(weights, *axes):
        return weights / weights.sum(axes or -1, keepdim=True)

    got = yield divided(kept)
    yield "The padding has weight 0, but the rows no longer sum to 1: divide each row by what is left of it", kept
    yield "True and False are exchanged: real is True where a key may be looked at", divided(weights * ~is_key)
    yield "The mask lies on the queries. It belongs on the keys, the last axis: real[:, None, :]", weights * is_query
    yield (
        "The mask lies on the queries, so rows of padding are 0 / 0. It belongs on the keys",
        divided(weights * is_query),
    )
    yield "The rows of the padding were hidden too, and are 0 / 0. Hide its columns only", divided(kept * is_query)
    yield "The columns were divided by their sums. It is the rows, over the keys, that must sum to 1", divided(kept, -2)
    yield "All rows of an image were divided by one sum; divide each row by its own", divided(kept, -2, -1)
    yield (
        "A second softmax ran over the weights: the rows sum to 1, but they are too even. Divide each row by its sum",
        weights.masked_fill(~is_key, -torch.inf).softmax(-1),
    )
    yield "The padding has weight again: a second softmax made exp(0) = 1 of its 0. Divide instead", kept.softmax(-1)
    yield (
        "Every query has another image's mask: (batch keys) was laid on (queries keys). It needs an axis of length 1 "
        "for the queries: real[:, None, :]",
        lambda: divided(weights * real),
    )
    for image, query, key in (got * ~is_key > 1e-6).nonzero().tolist():
        yield f"Key {key} of image {image} is padding, and query {query} still gives it {got[image, query, key]:.2g}"
    least = got.sum(-1).min()
    if least < 0.99:
        yield f"A row sums to {least:.3g}: divide every row by its own sum, over the keys"
    if least < 1 - 1e-5:
        yield "The rows sum to a little less than 1. Was a small number added to the sum that divides them?"


def weights_of_queries(yours, keys, steps):
    """The weights that the reader's queries make; what is within 0.01 of 0 or of 1 counts as such."""
    queries = yours(keys, steps)
    if not isinstance(queries, Tensor) or not queries.is_floating_point():
        return queries
    if queries.shape != keys.shape:
        raise Wrong(
            f"The queries have the shape {tuple(queries.shape)}, expected {tuple(keys.shape)}, as the keys have"
        )
    weights = (queries @ keys.mT / keys.shape[-1] ** 0.5).softmax(-1)
    return weights.where((weights - weights.round()).abs() > 0.01, weights.round())


def at_right_angles(tokens, head_dim):
    return torch.linalg.qr(randn(head_dim, tokens)).Q.mT.contiguous()


@exercise(
    cases=[(torch.eye(3, 4), 1), (at_right_angles(5, 7), 2), (at_right_angles(7, 7), 3), (at_right_angles(6, 400), 1)],
    axes="queries keys: the weights that your queries make",
    holds="Every token gives at least 0.99 of its weight to the token `steps` before it, whatever the keys are.",
    picture=True,
    run=weights_of_queries,
)
def check_look_back(keys, steps):
    """yours(keys, steps): queries (tokens head_dim) with which token k gives 0.99 of its weight to token k - steps, the
    first tokens to the last ones; the keys (tokens head_dim) have length 1 and are at right angles to one another."""
    tokens = torch.arange(len(keys))
    wanted = (tokens - steps) % len(keys)
    got = yield one_hot(wanted).float()
    looks = got.argmax(-1)
    if (got.amax(-1) - got.amin(-1)).min() < 1e-4:
        yield "A token shares out evenly: its query fits no key better than another"
    if (looks == tokens).all():
        yield "Every token looks at itself. Its query must point where the key of the token it looks for points"
    if (looks == (tokens + steps) % len(keys)).all():
        yield f"Every token looks forward, at the token {steps} after it; look back"
    if (looks == (tokens - 1) % len(keys)).all() and steps != 1:
        yield f"Every token looks 1 back, where steps is {steps}"
    if (looks == wanted).all():
        yield (
            f"Every token looks at the right one, but gives it only {got.amax(-1).min() - 5e-5:.4f} of its 1. Longer "
            "queries make larger scores; mind that these are divided by the square root of head_dim"
        )
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
    q, k = (x.unflatten(-1, (heads, head_dim)).transpose(1, 2) for x in (queries, keys))
    dots = q @ k.mT
    scores = dots / head_dim**0.5
    alternating = [x.unflatten(-1, (head_dim, heads)).movedim(-1, 1) for x in (queries, keys)]
    of_tokens = [x.reshape(len(x), heads, -1, head_dim) for x in (queries, keys)]
    yield scores
    yield (
        "The heads were taken as (head_dim heads): head 0 got every heads-th number of a vector. A head is a slice of "
        "numbers side by side, (heads head_dim)",
        alternating[0] @ alternating[1].mT / head_dim**0.5,
    )
    yield (
        "The tokens were cut and not their vectors, so that a head mixes several tokens. First split dim into heads "
        "and head_dim, then bring heads before the tokens",
        of_tokens[0] @ of_tokens[1].mT / head_dim**0.5,
    )
    yield "The scores are not scaled: divide by the square root of head_dim", dots
    yield "The scores were divided by the square root of dim; a head sums over head_dim terms", scores / heads**0.5
    yield "The scores were divided by head_dim itself; it takes its square root", dots / head_dim
    yield (
        "Every head of the queries has met the keys of all heads, added up: in the einsum the heads have two letters. "
        "Head 0 meets head 0 alone, so give both the same letter",
        q @ k.sum(1, keepdim=True).mT / head_dim**0.5,
    )
    yield "Rows and columns are exchanged: a row is a query, a column a key", scores.mT
    yield "The heads stand last; they stand before the queries: each has its own matrix", scores.movedim(1, -1)
    yield "The heads stand between queries and keys; they stand before the queries", scores.transpose(1, 2)
    yield "All heads were added up; their letter must stay on the right of the arrow", scores.sum(1)
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
    batch, heads, tokens, _ = head_outputs.shape

    def joined(*order):
        return head_outputs.permute(order).reshape(batch, tokens, -1)

    right = joined(0, 2, 1, 3)
    yield right @ weight.T + bias
    yield (
        "Only reshaped: tokens are mixed. Bring the tokens before the heads first",
        joined(0, 1, 2, 3) @ weight.T + bias,
    )
    yield (
        "The heads were joined as (head_dim heads): their numbers alternate. Head 0's numbers come first, all of "
        "them, then head 1's: (heads head_dim)",
        joined(0, 2, 3, 1) @ weight.T + bias,
    )
    yield (
        "Heads and head_dim have changed places, so a token's vector is filled from several tokens. Exchange heads "
        "and tokens: transpose(1, 2)",
        joined(0, 3, 2, 1) @ weight.T + bias,
    )
    yield "The projection is transposed: a Linear keeps its weight as (out in), so @ weight.T", right @ weight + bias
    yield "The heads are joined, but the projection is missing: multiply by the weight and add the bias", right
    yield "The bias is missing", right @ weight.T
    yield "The bias came once for every head; add it once, after the heads are joined", right @ weight.T + heads * bias
    yield "The bias was added before the projection; it comes after", (right + bias) @ weight.T


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
    _, heads, _, head_dim = head_outputs.shape
    numbers, joined = head_outputs[:, head], head_outputs.transpose(1, 2).flatten(2)
    columns = torch.arange(head * head_dim, (head + 1) * head_dim)
    is_own = torch.isin(torch.arange(len(weight)), columns)
    share, whole = numbers @ weight[:, columns].T, joined @ weight.T
    yield share
    yield "Rows of the weight were cut out; it is (out in), so a head has columns", numbers @ weight[columns]
    yield "The columns are cut as (head_dim heads); a head's stand side by side", numbers @ weight[:, head::heads].T
    yield (
        "The columns begin at number `head`; each head before it takes head_dim of them",
        numbers @ weight[:, head : head + head_dim].T,
    )
    yield "Those are always the first columns; they begin at head * head_dim", numbers @ weight[:, :head_dim].T
    yield "Those are the head's numbers before the projection; multiply them by the weight", joined * is_own
    yield "That is the whole output: the other heads must count as 0", whole
    yield "That is what all the other heads add; take this one alone", whole - share
    yield "The output was shared out evenly; each head adds what its own numbers make of it", whole / heads
    yield (
        "A slice of the output was kept. The projection mixes the heads, so each adds to every number of the output: "
        "silence the other heads before the projection",
        whole * is_own,
    )
