"""Notebook 02: right answers, written in other ways than the reference; and what the remarks are for."""

import torch
from einops import rearrange
from torch import nn

from vit_walkthrough.exercises import check_add_registers, check_count_learned, check_embed


def count_of_modules(height, width, patch_size, channels, dim):
    layer, token = nn.Linear(channels * patch_size**2, dim, device="meta"), torch.empty(dim, device="meta")
    return sum(parameter.numel() for parameter in layer.parameters()) + token.numel()


def registers_in_loops(tokens, registers):
    return torch.stack([torch.stack([image[0], *registers, *image[1:]]) for image in tokens])


def registers_by_new(tokens, registers):
    longer = tokens.new_empty(len(tokens), tokens.shape[1] + len(registers), tokens.shape[2])
    longer[:, 0], longer[:, 1 : 1 + len(registers)] = tokens[:, 0], registers
    longer[:, 1 + len(registers) :] = tokens[:, 1:]
    return longer


def embed_in_loops(images, kernel, bias):
    side = len(kernel)
    tokens = []
    for y in range(0, images.shape[2], side):
        for x in range(0, images.shape[3], side):
            square = images[:, :, y : y + side, x : x + side]
            tokens.append(torch.einsum("bcyx,yxcd->bd", square, kernel) + bias)
    return torch.stack(tokens, 1)


def embed_by_matrix(images, kernel, bias):
    side = len(kernel)
    patches = rearrange(images, "b c (rows ph) (cols pw) -> b (rows cols) (ph pw c)", ph=side, pw=side)
    return patches @ kernel.flatten(0, 2) + bias


RIGHT = {
    check_count_learned: [count_of_modules, lambda h, w, p, channels, dim: (p**2 * channels + 1 + 1) * dim],
    check_add_registers: [registers_in_loops, registers_by_new],
    check_embed: [embed_in_loops, embed_by_matrix],
}

REMARKED = {
    check_add_registers: [
        (lambda *given: 2 * registers_by_new(*given), "Something other than the class token stands at place 0"),
        (lambda t, r: registers_by_new(t, r[:1].expand_as(r)), "Something other than register 1 stands at place 2"),
        (lambda t, r: torch.cat([t[:, :1], registers_by_new(t, r)[:, 1:].flip(1)], 1), "register 0 stands at place 1"),
        (lambda t, r: registers_by_new(t[:, [0, *range(t.shape[1] - 1, 0, -1)]], r), "patch 0 stands at place 3"),
    ],
}
