"""Notebook 03: positions of two halves, positions of the patches that are left, and a test for blindness to order."""

import torch
from torch import tensor

from vit_walkthrough.exercises.check import exercise, randn


@exercise(
    cases=[
        (tensor([[0.0, 1], [10, 11]]), tensor([[50.0, 51], [60, 61], [70, 71]])),
        (randn(5, 4), randn(3, 4, seed=1)),
        (randn(4, 3), randn(6, 3, seed=1)),
    ],
    axes="patches dim",
    holds="Every patch has its row in the first half and its column in the second, in reading order.",
)
def check_positions_2d(row_table, col_table):
    """yours(row_table, col_table): positions (patches dim) of all patches in reading order, the first half of each from
    row_table (rows half), the second from col_table (cols half)."""
    rows, cols = len(row_table), len(col_table)
    patch = torch.arange(rows * cols)
    row, col = patch // cols, patch % cols

    def positions(row, col):
        return torch.cat([row_table[row], col_table[col]], 1)

    right = positions(row, col)
    of_tables = torch.cat([col_table[patch // rows], row_table[patch % rows]], 1)
    yield right
    yield "The patches come column by column; reading order is row by row", positions(patch % rows, patch // rows)
    yield "The halves are exchanged: the row's comes first, then the column's", right.roll(row_table.shape[1], 1)
    yield "The tables are exchanged: row_table says the row, which changes slowly, and comes first", of_tables
    yield "The two halves were added; put them side by side: half + half = dim", row_table[row] + col_table[col]
    yield "Both halves were looked up by the row; look up the second by the column", lambda: positions(row, row)


TENTHS = torch.arange(1, 6)[None, :, None] / 10 * torch.ones(2)  # positions of 5 tokens


@exercise(
    cases=[
        (100 * torch.arange(4.0)[None, :, None] + tensor([0, 1]), TENTHS, tensor([[[900.0, 901]]]), [3, 1]),
        (randn(2, 6, 3), randn(1, 7, 3, seed=1), randn(1, 1, 3, seed=2), [4, 1, 5, 0]),
        (randn(3, 9, 2), randn(1, 10, 2, seed=1), randn(1, 1, 2, seed=2), [8, 2, 7, 0, 5]),
    ],
    axes="batch tokens dim",
    holds="Every patch that is left has kept the position of its place in the image, and the class token has its own.",
)
def check_keep(patches, positions, class_token, kept):
    """yours(patches, positions, class_token, kept): tokens (batch tokens dim) of the class token (1 1 dim) and of those
    patches (batch patches dim) whose numbers are in the list kept, in its order, each with its own of the positions
    (1 patches+1 dim)."""
    first, placed = class_token + positions[:, :1], patches + positions[:, 1:]

    def after(token, others):
        return torch.cat([token.expand(len(patches), -1, -1), others], 1)

    right, bare, everything = after(first, placed[:, kept]), after(class_token, patches[:, kept]), after(first, placed)
    moved = bare + positions[:, : len(kept) + 1]
    before = after(first, patches[:, kept] + positions[:, kept])
    yield right
    yield "Each patch has the position of the place where it stands now; add the positions, then choose", moved
    yield "Each patch has the position of the one before; patch k has positions[:, k + 1]", before
    yield "The class token has no position: add positions[:, 0] to it", after(class_token, placed[:, kept])
    yield "The patches were sorted; leave them in the order of kept", after(first, placed[:, sorted(kept)])
    yield "The class token is missing; put it first, with its own position", right[:, 1:]
    yield "One place off: with the class token before it, patch k is token k + 1", after(first, everything[:, kept])


def _mean(tokens):
    return (sum(tokens.unbind(1)) / tokens.shape[1])[:, None].expand_as(tokens)  # rounded as the order has it


def _places(tokens):
    return torch.arange(tokens.shape[1])[:, None]


def _model(name, does, model):
    model.__name__, model.__doc__ = name, does
    return model


MODELS = [
    _model("double_each", "doubles every token, wherever it stands", lambda x: 2 * x),
    _model("mean_of_all", "gives every token the mean of all of them", lambda x: _mean(x)),
    _model("add_place", "adds to every token the number of its place", lambda x: x + _places(x)),
    _model("add_next", "adds half of the next token, in a ring", lambda x: x + x.roll(-1, 1) / 2),
    _model("add_both", "adds a quarter of each neighbour, in a ring", lambda x: x + (x.roll(1, 1) + x.roll(-1, 1)) / 4),
    _model("mean_and_place", "adds the number of its place to the mean of all tokens", lambda x: _mean(x) + _places(x)),
]
ORDER = [0, 7, 3, 11, 5, 9, 2, 10, 1, 8, 6, 4]  # the first token stays, neighbours part


@exercise(
    cases=[(model, 1 + randn(3, 12, 8).abs()) for model in MODELS],
    holds="Your test tells the two models that are blind to order from the four that are not.",
)
def check_is_blind_to_order(model, tokens):
    """yours(model, tokens): whether the model, from tokens (batch tokens dim) to as many, gives for shuffled tokens the
    same outputs, shuffled alike."""
    out, shuffled, others = model(tokens), model(tokens[:, ORDER]), model(tokens)[:, ORDER]
    right = torch.allclose(shuffled, others)
    got = yield right
    yield "The outputs move with their tokens: shuffle them alike before you compare", torch.allclose(shuffled, out)
    yield "A sum in another order is rounded differently: use allclose, not equal", torch.equal(shuffled, others)
    yield "You always said True: is the order really changed, and are the outputs compared?", True
    rolled = torch.allclose(model(tokens.roll(1, 1)), out.roll(1, 1))
    yield "Neighbours stay neighbours in your order; take one that parts them: torch.randperm", rolled
    truth = "shuffled tokens give the same outputs, shuffled alike" if right else "there the order makes a difference"
    yield f"You said {got} of a model that {model.__doc__}: {truth}"
