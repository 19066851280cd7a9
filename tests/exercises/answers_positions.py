"""Notebook 03: right answers, written in other ways than the reference; and what the remarks are for."""

import torch
from einops import repeat

from vit_walkthrough.exercises import check_is_blind_to_order, check_keep, check_positions_2d


def halves_in_loops(row_table, col_table):
    return torch.stack([torch.cat([row, col]) for row in row_table for col in col_table])


def halves_by_repeat(row_table, col_table):
    by_row = repeat(row_table, "rows half -> (rows cols) half", cols=len(col_table))
    by_col = repeat(col_table, "cols half -> (rows cols) half", rows=len(row_table))
    return torch.cat([by_row, by_col], dim=1)


def kept_in_loops(patches, positions, class_token, kept):
    tokens = [class_token[0, 0].expand(len(patches), -1) + positions[0, 0]]
    for patch in kept:
        tokens.append(patches[:, patch] + positions[0, patch + 1])
    return torch.stack(tokens, dim=1)


def kept_by_einsum(patches, positions, class_token, kept):
    chosen = torch.nn.functional.one_hot(torch.tensor(kept), patches.shape[1]).float()
    left = torch.einsum("kp,bpd->bkd", chosen, patches + positions[:, 1:])
    return torch.cat([repeat(class_token + positions[:, :1], "1 1 d -> b 1 d", b=len(patches)), left], dim=1)


def kept_after_sorting(patches, positions, class_token, kept):
    kept.sort()
    return kept_in_loops(patches, positions, class_token, kept)


def blind_in_loops(model, tokens):
    order = torch.randperm(tokens.shape[1]).tolist()
    out, out_of_shuffled = model(tokens), model(tokens[:, order])
    return all(torch.allclose(out_of_shuffled[:, new], out[:, old]) for new, old in enumerate(order))


def blind_by_matrix(model, tokens):
    matrix = torch.eye(tokens.shape[1])[torch.randperm(tokens.shape[1])]
    shuffled = torch.einsum("nt,btd->bnd", matrix, tokens)
    return ((model(shuffled) - matrix @ model(tokens)).abs() < 1e-5).all()  # a tensor


def same_sum(model, tokens):
    return torch.allclose(model(tokens.roll(1, 1)).sum(1), model(tokens).sum(1))


RIGHT = {
    check_positions_2d: [halves_in_loops, halves_by_repeat],
    check_keep: [kept_in_loops, kept_by_einsum],
    check_is_blind_to_order: [blind_in_loops, blind_by_matrix],
}

REMARKED = {
    check_keep: [(kept_after_sorting, "changes kept in place")],
    check_is_blind_to_order: [(same_sum, "You said True of a model that adds to every token the number of its place")],
}
