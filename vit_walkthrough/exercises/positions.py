"""Notebook 03: positions of two halves, positions of the patches that are left, and a test for blindness to order."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from vit_walkthrough.exercises.examine import beside, examine

# ------------------------------------------------------------------------------------------------ two halves


def _two_halves(row_table: np.ndarray, col_table: np.ndarray) -> np.ndarray:
    positions = []
    for row in range(len(row_table)):
        for col in range(len(col_table)):
            positions.append([*row_table[row], *col_table[col]])
    return np.array(positions)


def _picked(rows: np.ndarray, cols: np.ndarray, row_table: np.ndarray, col_table: np.ndarray) -> np.ndarray:
    return np.concatenate([row_table[rows], col_table[cols]], axis=1)


def _by_columns(row_table: np.ndarray, col_table: np.ndarray) -> np.ndarray:
    cols, rows = np.divmod(np.arange(len(row_table) * len(col_table)), len(row_table))
    return _picked(rows, cols, row_table, col_table)


def _row_for_both(row_table: np.ndarray, col_table: np.ndarray) -> np.ndarray:
    rows = np.arange(len(row_table)).repeat(len(col_table))
    return _picked(rows, rows, row_table, col_table)


def _same_way(row_table: np.ndarray, col_table: np.ndarray) -> np.ndarray:
    patches = np.arange(len(row_table) * len(col_table))
    return _picked(patches % len(row_table), patches % len(col_table), row_table, col_table)


def _both_slowly(row_table: np.ndarray, col_table: np.ndarray) -> np.ndarray:
    patches = np.arange(len(row_table) * len(col_table))
    return _picked(patches // len(col_table), patches // len(row_table), row_table, col_table)


def _added(row_table: np.ndarray, col_table: np.ndarray) -> np.ndarray:
    return (row_table[:, None] + col_table).reshape(-1, row_table.shape[1])


def _about_halves(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    """Patches that share a position; else which half is wrong."""
    for patch, position in enumerate(got):
        same = np.isclose(got[:patch], position).all(1)
        if same.any():
            return f"Patches {int(np.argmax(same))} and {patch} have the same position: nothing tells them apart"
    patch = int(np.argmax((~np.isclose(expected, got)).any(1)))
    row, col = divmod(patch, len(case["col_table"]))
    return f"Patch {patch} stands at row {row}, col {col}: it gets row_table[{row}], then col_table[{col}]"


def check_positions_2d(yours: Callable, seed: int = 0) -> None:
    """yours(row_table, col_table): positions (patches dim) of all patches in reading order, the first half of each from
    row_table (rows half), the second from col_table (cols half)."""
    numbers = torch.Generator().manual_seed(seed)
    small = torch.tensor([[0.0, 1.0], [10.0, 11.0]]), torch.tensor([[50.0, 51.0], [60.0, 61.0], [70.0, 71.0]])
    cases = [dict(row_table=small[0], col_table=small[1])]
    for rows, cols, half in ((5, 3, 4), (4, 6, 3)):
        tables = torch.randn(rows + cols, half, generator=numbers)
        cases.append(dict(row_table=tables[:rows], col_table=tables[rows:]))

    mistakes = {
        "The patches come column by column; in reading order the column changes from each patch to the next, and the "
        "row only after cols of them": _by_columns,
        "The halves are exchanged: the row's comes first, then the column's": (
            lambda rows, cols: np.roll(_two_halves(rows, cols), rows.shape[1], 1)
        ),
        "The two tables are exchanged: the row changes slowly and comes in the first half, the column changes from "
        "each patch to the next and comes in the second": lambda rows, cols: _two_halves(cols, rows),
        "The two halves were added, which leaves half of dim. Put them side by side: half + half = dim": _added,
        "Both halves were looked up by the row's number, so all patches of a row have the same position. The second "
        "half is for the column": _row_for_both,
        "Both tables were repeated as a whole, so row and column change together from each patch to the next. In "
        "reading order the row stays the same for cols patches": _same_way,
        "Both tables were repeated entry by entry, so the column stays the same for several patches. In reading order "
        "it changes from each patch to the next": _both_slowly,
    }
    examine(
        yours,
        _two_halves,
        cases,
        mistakes,
        axes="patches dim",
        diagnose=[_about_halves],
        holds="Every patch has its row in the first half and its column in the second, in reading order.",
        picture=beside,
    )


# ------------------------------------------------------------------------------------------------ what is left


def _keep(patches: np.ndarray, positions: np.ndarray, class_token: np.ndarray, kept: list[int]) -> np.ndarray:
    batch, _, dim = patches.shape
    tokens = np.zeros((batch, 1 + len(kept), dim))
    for image in range(batch):
        tokens[image, 0] = class_token[0, 0] + positions[0, 0]
        for place, patch in enumerate(kept, start=1):
            tokens[image, place] = patches[image, patch] + positions[0, 1 + patch]
    return tokens


def check_keep(yours: Callable, seed: int = 0) -> None:
    """yours(patches, positions, class_token, kept): tokens (batch tokens dim) of the class token (1 1 dim) and of those
    patches (batch patches dim) whose numbers are in the list kept, in its order, each with its own of the positions
    (1 patches+1 dim)."""
    numbers = torch.Generator().manual_seed(seed)
    hundreds, units = torch.tensor([[[0.0, 1], [100, 101], [200, 201], [300, 301]]]), torch.arange(1.0, 6.0) / 10
    cases = [
        dict(
            patches=hundreds,
            positions=torch.stack([units, units], dim=1)[None],
            class_token=torch.tensor([[[900.0, 901.0]]]),
            kept=[3, 1],
        )
    ]
    for batch, count, dim, left in ((2, 6, 3, 4), (3, 9, 2, 5)):
        kept = torch.randperm(count, generator=numbers)[:left].tolist()
        if kept == sorted(kept):
            kept.reverse()
        shapes = dict(patches=(batch, count, dim), positions=(1, count + 1, dim), class_token=(1, 1, dim))
        drawn = {name: torch.rand(shape, generator=numbers) for name, shape in shapes.items()}
        cases.append(drawn | dict(kept=kept))

    mistakes = {
        "The patches have the positions of the places where they stand now. Each keeps the position it had in the "
        "image: choose after adding": (
            lambda x, e, c, k: np.concatenate([c.repeat(len(x), 0), x[:, k]], 1) + e[:, : 1 + len(k)]
        ),
        "Every patch has the position of the patch before it: positions[:, 0] is the class token's, so patch k has "
        "positions[:, k + 1]": (
            lambda x, e, c, k: np.concatenate([(c + e[:, :1]).repeat(len(x), 0), x[:, k] + e[:, k]], 1)
        ),
        "The class token has no position: add positions[:, 0] to it": (
            lambda x, e, c, k: _keep(x, e, c - e[:, :1], k)
        ),
        "The patches were sorted: they come in the order of kept": lambda x, e, c, k: _keep(x, e, c, sorted(k)),
        "No positions were added": lambda x, e, c, k: _keep(x, 0 * e, c, k),
        "Only the class token has a position: add to every patch its own": (
            lambda x, e, c, k: np.concatenate([(c + e[:, :1]).repeat(len(x), 0), x[:, k]], 1)
        ),
        "The class token is missing: it comes first, with a position of its own": (
            lambda x, e, c, k: _keep(x, e, c, k)[:, 1:]
        ),
        "The class token stands at the end; its place is 0": lambda x, e, c, k: np.roll(_keep(x, e, c, k), -1, 1),
        "One place off: kept are the numbers of patches, and in the sequence with its class token patch k stands at "
        "place k + 1": (
            lambda x, e, c, k: np.concatenate(
                [
                    (c + e[:, :1]).repeat(len(x), 0),
                    (np.concatenate([c.repeat(len(x), 0), x], 1) + e)[:, k],
                ],
                1,
            )
        ),
        "Those are the patches that were to be dropped; kept are the numbers of those that stay": (
            lambda x, e, c, k: _keep(x, e, c, [patch for patch in range(x.shape[1]) if patch not in k])
        ),
    }  # fmt: skip
    examine(
        yours,
        _keep,
        cases,
        mistakes,
        axes="batch tokens dim",
        diagnose=[_about_kept],
        holds="What is left knows where it was: every patch has kept its own position, and the class token its own.",
    )


def _about_kept(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    """Which token is wrong."""
    place = int(np.argmax((~np.isclose(expected, got)).any((0, 2))))
    if place == 0:
        return "Place 0 is wrong: the class token plus positions[:, 0] belongs there"
    patch = case["kept"][place - 1]
    return f"Place {place} is wrong: patch {patch} plus positions[:, {patch + 1}] belongs there"


# ------------------------------------------------------------------------------------------------ a test for blindness


def _each_doubled(tokens: Tensor) -> Tensor:
    return 2 * tokens


def _mean_of_all(tokens: Tensor) -> Tensor:
    total = sum(tokens.unbind(1))  # one after another: what is rounded depends on the order
    return (total / tokens.shape[1])[:, None].expand_as(tokens)


def _with_positions(tokens: Tensor) -> Tensor:
    return tokens + torch.arange(tokens.shape[1])[:, None]


def _with_the_next(tokens: Tensor) -> Tensor:
    return tokens + tokens.roll(-1, dims=1) / 2


def _with_both_neighbours(tokens: Tensor) -> Tensor:
    wide = torch.nn.functional.pad(tokens, (0, 0, 1, 1))
    return tokens + (wide[:, :-2] + wide[:, 2:]) / 4


def _mean_with_positions(tokens: Tensor) -> Tensor:
    return tokens.mean(1, keepdim=True) + torch.arange(tokens.shape[1])[:, None]


# What each does, and whether shuffled tokens give the same outputs, shuffled alike.
MODELS: Mapping[Callable, tuple[str, bool]] = {
    _each_doubled: ("doubles every token, wherever it stands", True),
    _mean_of_all: ("gives every token the mean of all of them", True),
    _with_positions: ("adds to every token the number of its place", False),
    _with_the_next: ("adds to every token half of the next one, to the last of the first", False),
    _with_both_neighbours: ("adds to every token a quarter of the one before and of the one after", False),
    _mean_with_positions: ("adds the number of its place to the mean of all tokens", False),
}


def _blind(model: Callable, tokens: np.ndarray) -> bool:
    return MODELS[model][1]


def _answers(*answers: bool) -> Callable:
    """What a test says that gives these answers, model by model."""
    said = dict(zip(MODELS, answers, strict=True))
    return lambda model, tokens: said[model]


def _about_model(case: dict, expected: bool, got: bool) -> str:
    """What a model does about which a test is wrong."""
    does, blind = MODELS[case["model"]]
    truth = "shuffled tokens give the same outputs, shuffled alike" if blind else "there the order makes a difference"
    return f"You said {got} of a model that {does}: {truth}"


def check_is_blind_to_order(yours: Callable, seed: int = 0) -> None:
    """yours(model, tokens): whether the model, from tokens (batch tokens dim) to as many, gives for shuffled tokens the
    same outputs, shuffled alike."""
    numbers = torch.Generator().manual_seed(seed)
    tokens = 1 + torch.rand(3, 12, 8, generator=numbers)
    cases = [dict(model=model, tokens=tokens) for model in MODELS]
    mistakes = {
        "You said False of a model that doubles every token, wherever it stands. When the tokens are shuffled, their "
        "outputs move with them: shuffle the outputs of the unshuffled tokens in the same way before you compare": (
            _answers(False, True, False, False, False, False)
        ),
        "You said False of a model that doubles every token, and True of one that adds the number of its place to the "
        "mean of all: you compared place by place. When the tokens are shuffled, their outputs move with them, so "
        "shuffle the outputs of the unshuffled tokens in the same way first": (
            _answers(False, True, False, False, False, True)
        ),
        "You said False of a model that gives every token the mean of all. A sum in another order is rounded in "
        "another way: compare with torch.allclose, not with torch.equal": (
            _answers(True, False, False, False, False, False)
        ),
        "You said False of a model that doubles every token, and of one that takes the mean of all. Did you forget "
        "that the outputs move with their tokens, and that sums are rounded?": (
            _answers(False, False, False, False, False, False)
        ),
        "You said True of every model. Is the order really changed, and are the outputs compared?": (
            _answers(True, True, True, True, True, True)
        ),
        "You said True of a model that adds half of the next token to each. When all move on by the same number of "
        "places, each keeps its next one: try an order in which neighbours part, as torch.randperm gives": (
            _answers(True, True, False, True, False, False)
        ),
        "You said True of a model that lets each token see both neighbours. Read backwards, each keeps its "
        "neighbours: try an order in which neighbours part, as torch.randperm gives": (
            _answers(True, True, False, False, True, False)
        ),
        "You said True of a model that adds the number of its place to each token. Compare the outputs of all "
        "tokens, not that of place 0 alone, which no position has changed": (
            _answers(True, True, True, False, False, True)
        ),
        "Your answers are all the opposite: True says that the outputs only move with their tokens": (
            _answers(False, False, True, True, True, True)
        ),
    }
    examine(
        yours,
        _blind,
        cases,
        mistakes,
        diagnose=[_about_model],
        holds="Your test tells the two models that are blind to order from the four that are not.",
    )
