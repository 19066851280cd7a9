"""Notebook 03."""

import numpy as np
import torch
from einops import rearrange, repeat

from tests.exercises.trials import test_in_time, test_right_answers_pass, test_wrong_answers_get_their_sentence  # noqa: F401
from vit_walkthrough.exercises import check_is_blind_to_order, check_keep, check_positions_2d

# ------------------------------------------------------------------------------------------------ two halves


def halves_in_loops(row_table, col_table):
    return torch.stack([torch.cat([row, col]) for row in row_table for col in col_table])


def halves_by_repeat(row_table, col_table):
    by_row = repeat(row_table, "rows half -> (rows cols) half", cols=len(col_table))
    by_col = repeat(col_table, "cols half -> (rows cols) half", rows=len(row_table))
    return torch.cat([by_row, by_col], dim=1)


def halves_by_expand(row_table, col_table):
    rows, cols, half = len(row_table), len(col_table), row_table.shape[1]
    grid = torch.cat([row_table[:, None].expand(-1, cols, -1), col_table[None].expand(rows, -1, -1)], dim=2)
    return grid.reshape(rows * cols, 2 * half)


def halves_at(row_of, col_of):
    """With row_of and col_of: (patch numbers, rows, cols) -> numbers of rows and of cols."""

    def positions_2d(row_table, col_table):
        rows, cols = len(row_table), len(col_table)
        patches = torch.arange(rows * cols)
        return torch.cat([row_table[row_of(patches, rows, cols)], col_table[col_of(patches, rows, cols)]], 1)

    return positions_2d


# ------------------------------------------------------------------------------------------------ what is left


def kept_in_loops(patches, positions, class_token, kept):
    tokens = [class_token[0, 0].expand(len(patches), -1) + positions[0, 0]]
    for patch in kept:
        tokens.append(patches[:, patch] + positions[0, patch + 1])
    return torch.stack(tokens, dim=1)


def kept_from_all(patches, positions, class_token, kept):
    tokens = torch.cat([class_token.expand(len(patches), -1, -1), patches], dim=1) + positions
    return tokens[:, [0, *(patch + 1 for patch in kept)]]


def kept_apart(patches, positions, class_token, kept):
    left = (patches + positions[:, 1:])[:, kept]
    return torch.cat([(class_token + positions[:, :1]).expand(len(patches), -1, -1), left], dim=1)


def kept_by_einsum(patches, positions, class_token, kept):
    chosen = torch.nn.functional.one_hot(torch.tensor(kept), patches.shape[1]).float()
    left = torch.einsum("kp,bpd->bkd", chosen, patches + positions[:, 1:])
    return torch.cat([repeat(class_token + positions[:, :1], "1 1 d -> b 1 d", b=len(patches)), left], dim=1)


def kept_after_sorting(patches, positions, class_token, kept):
    kept.sort()
    return kept_in_loops(patches, positions, class_token, kept)


def with_first(first, rest):
    return torch.cat([first.expand(len(rest), -1, -1), rest], dim=1)


# ------------------------------------------------------------------------------------------------ a test for blindness

ORDER = [0, 7, 3, 11, 5, 9, 2, 10, 1, 8, 6, 4]  # the class token's place kept
NO_CYCLE = [5, 7, 3, 11, 0, 9, 2, 10, 1, 8, 6, 4]


def blind_in_loops(model, tokens):
    order = torch.randperm(tokens.shape[1]).tolist()
    out, out_of_shuffled = model(tokens), model(tokens[:, order])
    return all(torch.allclose(out_of_shuffled[:, new], out[:, old]) for new, old in enumerate(order))


def blind_by(order, compare=torch.allclose, shuffled=True, place=slice(None)):
    def blind(model, tokens):
        here = order(tokens.shape[1]) if callable(order) else order
        out = model(tokens)
        out_of_shuffled = model(tokens[:, here])
        return compare(out_of_shuffled[:, place], (out[:, here] if shuffled else out)[:, place])

    return blind


def blind_by_way_back(model, tokens):
    order = torch.randperm(tokens.shape[1])
    return bool((model(tokens[:, order])[:, order.argsort()] - model(tokens)).abs().max() < 1e-4)


def blind_by_matrix(model, tokens):
    matrix = torch.eye(tokens.shape[1])[torch.randperm(tokens.shape[1])]
    shuffled = torch.einsum("nt,btd->bnd", matrix, tokens)
    return torch.allclose(model(shuffled), matrix @ model(tokens), atol=1e-5)


RIGHT = {
    check_positions_2d: {
        "loops": halves_in_loops,
        "repeat": halves_by_repeat,
        "expand": halves_by_expand,
        "indexing": halves_at(lambda patches, rows, cols: patches // cols, lambda patches, rows, cols: patches % cols),
        "interleave": lambda r, c: torch.cat([r.repeat_interleave(len(c), 0), c.repeat(len(r), 1)], 1),
        "matrices": lambda r, c: torch.cat(
            [torch.kron(r, torch.ones(len(c), 1)), torch.kron(torch.ones(len(r), 1), c)], 1
        ),
    },
    check_keep: {
        "loops": kept_in_loops,
        "from all": kept_from_all,
        "apart": kept_apart,
        "einsum": kept_by_einsum,
        "gather": lambda x, e, c, k: with_first(
            c + e[:, :1],
            (x + e[:, 1:]).gather(1, torch.tensor(k)[None, :, None].expand(len(x), -1, x.shape[2])),
        ),
    },
    check_is_blind_to_order: {
        "loops": blind_in_loops,
        "indexing": blind_by(torch.randperm),
        "class token kept": blind_by(lambda count: [0, *(1 + torch.randperm(count - 1)).tolist()]),
        "one exchange": blind_by(lambda count: [1, 0, *range(2, count)]),
        "way back": blind_by_way_back,
        "a tensor": blind_by(torch.randperm, compare=lambda a, b: ((a - b).abs() < 1e-5).all()),
        "of numpy": blind_by(torch.randperm, compare=lambda a, b: np.isclose(a, b, atol=1e-5).all()),
        "matrix": blind_by_matrix,
    },
}

WRONG = {
    check_positions_2d: {
        "by columns": (
            lambda r, c: rearrange(halves_by_repeat(r, c), "(rows cols) d -> (cols rows) d", rows=len(r)),
            "The patches come column by column",
        ),
        "halves exchanged": (
            lambda r, c: torch.cat([c.repeat(len(r), 1), r.repeat_interleave(len(c), 0)], 1),
            "The halves are exchanged",
        ),
        "tables exchanged": (lambda r, c: halves_by_repeat(c, r), "The two tables are exchanged"),
        "added": (lambda r, c: rearrange(r[:, None] + c, "rows cols h -> (rows cols) h"), "The two halves were added"),
        "row for both": (
            lambda r, c: torch.cat([r.repeat_interleave(len(c), 0), c[: len(r)].repeat_interleave(len(c), 0)], 1),
            "Both halves were looked up by the row's number",
        ),
        "both as a whole": (
            lambda r, c: torch.cat([r.repeat(len(c), 1), c.repeat(len(r), 1)], 1),
            "Both tables were repeated as a whole",
        ),
        "both entry by entry": (
            lambda r, c: torch.cat([r.repeat_interleave(len(c), 0), c.repeat_interleave(len(r), 0)], 1),
            "Both tables were repeated entry by entry",
        ),
        "col 0 for all": (
            halves_at(lambda patches, rows, cols: patches // cols, lambda patches, rows, cols: 0 * patches),
            "Patches 0 and 1 have the same position: nothing tells them apart",
        ),
        "upside down": (
            halves_at(lambda p, rows, cols: rows - 1 - p // cols, lambda p, rows, cols: p % cols),
            "Patch 0 stands at row 0, col 0: it gets row_table[0], then col_table[0]",
        ),
        "a grid": (
            lambda r, c: halves_by_expand(r, c).view(len(r), len(c), -1),
            "returned the shape (2, 3, 4), expected (6, 4) (patches dim)",
        ),
    },
    check_keep: {
        "first positions": (
            lambda x, e, c, k: with_first(c, x[:, k]) + e[:, : len(k) + 1],
            "The patches have the positions of the places where they stand now",
        ),
        "before": (
            lambda x, e, c, k: with_first(c + e[:, :1], x[:, k] + e[:, k]),
            "Every patch has the position of the patch before it",
        ),
        "class token bare": (
            lambda x, e, c, k: with_first(c, (x + e[:, 1:])[:, k]),
            "The class token has no position",
        ),
        "sorted": (
            lambda x, e, c, k: kept_from_all(x, e, c, [p for p in range(x.shape[1]) if p in k]),
            "The patches were sorted",
        ),
        "sorted in place": (kept_after_sorting, "changes its input kept in place"),
        "no positions": (lambda x, e, c, k: with_first(c, x[:, k]), "No positions were added"),
        "patches bare": (lambda x, e, c, k: with_first(c + e[:, :1], x[:, k]), "Only the class token has a position"),
        "no class token": (lambda x, e, c, k: (x + e[:, 1:])[:, k], "The class token is missing"),
        "class token last": (
            lambda x, e, c, k: kept_from_all(x, e, c, k)[:, [*range(1, len(k) + 1), 0]],
            "The class token stands at the end",
        ),
        "one place off": (
            lambda x, e, c, k: (with_first(c, x) + e)[:, [0, *k]],
            "One place off",
        ),
        "dropped": (
            lambda x, e, c, k: kept_from_all(x, e, c, [p for p in range(x.shape[1]) if p not in k]),
            "Those are the patches that were to be dropped",
        ),
        "twice": (
            lambda x, e, c, k: with_first(c + e[:, :1], (x + 2 * e[:, 1:])[:, k]),
            "Place 1 is wrong: patch 3 plus positions[:, 4] belongs there",
        ),
        "class token twice": (
            lambda x, e, c, k: with_first(2 * c + e[:, :1], (x + e[:, 1:])[:, k]),
            "Place 0 is wrong: the class token plus positions[:, 0] belongs there",
        ),
        "one by one": (
            lambda x, e, c, k: (x + e[:, 1:])[:, k].sum(1, keepdim=True),
            "returned the shape (1, 1, 2), expected (1, 3, 2) (batch tokens dim)",
        ),
    },
    check_is_blind_to_order: {
        "not shuffled back": (blind_by(NO_CYCLE, shuffled=False), "you compared place by place"),
        "way back the wrong way": (
            lambda m, t: torch.allclose(m(t[:, NO_CYCLE])[:, NO_CYCLE], m(t)),
            "You said False of a model that doubles every token, wherever it stands. When",
        ),
        "exact": (blind_by(NO_CYCLE, compare=torch.equal), "compare with torch.allclose, not with torch.equal"),
        "exact, not shuffled": (
            blind_by(NO_CYCLE, compare=torch.equal, shuffled=False),
            "You said False of a model that doubles every token, and of one",
        ),
        "shapes": (blind_by(NO_CYCLE, compare=lambda a, b: a.shape == b.shape), "You said True of every model"),
        "never shuffled": (blind_by(lambda count: list(range(count))), "You said True of every model"),
        "rolled": (blind_by(lambda count: [*range(1, count), 0]), "True of a model that adds half of the next"),
        "backwards": (blind_by(lambda count: [*range(count)][::-1]), "True of a model that lets each token see both"),
        "class token only": (blind_by(ORDER, place=0), "Compare the outputs of all tokens, not that of place 0 alone"),
        "opposite": (lambda m, t: not blind_by(NO_CYCLE)(m, t), "Your answers are all the opposite"),
        "sums only": (
            blind_by(NO_CYCLE, compare=lambda a, b: torch.allclose(a.sum(1), b.sum(1))),
            "You said True of a model that adds to every token the number of its place: there the order makes",
        ),
        "a comparison of each": (
            blind_by(NO_CYCLE, compare=torch.isclose),
            "returned a tensor of shape (3, 12, 8), expected a bool",
        ),
        "a number": (
            blind_by(NO_CYCLE, compare=lambda a, b: (a - b).abs().max()),
            "returned a float, expected a bool",
        ),
    },
}
