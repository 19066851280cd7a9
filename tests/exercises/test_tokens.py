"""Notebook 02."""

import torch
from einops import rearrange, repeat
from torch import nn
from torch.nn.functional import conv2d, linear, unfold

from tests.exercises.trials import test_in_time, test_right_answers_pass, test_wrong_answers_get_their_sentence  # noqa: F401
from vit_walkthrough.exercises import check_add_registers, check_count_learned, check_embed


def count_of_modules(height, width, patch_size, channels, dim):
    layer, token = nn.Linear(channels * patch_size**2, dim, device="meta"), torch.empty(dim, device="meta")
    return sum(parameter.numel() for parameter in layer.parameters()) + token.numel()


def registers_in_loops(tokens, registers):
    sequences = []
    for image in tokens:
        sequences.append(torch.stack([image[0], *registers, *image[1:]]))
    return torch.stack(sequences)


def registers_by_new(tokens, registers):
    longer = tokens.new_empty(len(tokens), tokens.shape[1] + len(registers), tokens.shape[2])
    longer[:, 0], longer[:, 1 : 1 + len(registers)] = tokens[:, 0], registers
    longer[:, 1 + len(registers) :] = tokens[:, 1:]
    return longer


def join(*parts):
    return torch.cat([part.expand(max(map(len, parts)), -1, -1) for part in parts], 1)


def tokens_in_loops(images, kernel, bias):
    side = len(kernel)
    tokens = []
    for y in range(0, images.shape[2], side):
        for x in range(0, images.shape[3], side):
            square = images[:, :, y : y + side, x : x + side]
            tokens.append(torch.einsum("bcyx,yxcd->bd", square, kernel) + bias)
    return torch.stack(tokens, 1)


def by_convolution(axes="ph pw c dim -> dim c ph pw", order="b dim rows cols -> b (rows cols) dim", times=1):
    def embed(images, kernel, bias):
        turned = rearrange(kernel, axes).contiguous()
        return rearrange(conv2d(images, turned, times * bias, stride=len(kernel)), order)

    return embed


def by_matrix(pixels="ph pw c", weight="ph pw c"):
    def embed(images, kernel, bias):
        side = len(kernel)
        patches = rearrange(images, f"b c (rows ph) (cols pw) -> b (rows cols) ({pixels})", ph=side, pw=side)
        return patches @ rearrange(kernel, f"ph pw c dim -> ({weight}) dim") + bias

    return embed


def by_linear_in_jax_order(images, kernel, bias):
    side = len(kernel)
    patches = images.unfold(2, side, side).unfold(3, side, side)  # b c rows cols ph pw
    patches = patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
    return linear(patches, kernel.reshape(-1, len(bias)).T, bias)


RIGHT = {
    check_count_learned: {
        "arithmetic": lambda h, w, p, channels, dim: p * p * channels * dim + 2 * dim,
        "modules": count_of_modules,
        "per number": lambda h, w, p, channels, dim: (p**2 * channels + 1 + 1) * dim,
    },
    check_add_registers: {
        "loops": registers_in_loops,
        "expand": lambda t, r: torch.cat([t[:, :1], r.expand(len(t), -1, -1), t[:, 1:]], dim=1),
        "repeat": lambda t, r: torch.cat([t[:, :1], repeat(r, "r d -> b r d", b=len(t)), t[:, 1:]], 1),
        "indexing": registers_by_new,
        "hstack": lambda t, r: torch.hstack([t[:, 0, None], torch.stack([r] * len(t)), t[:, 1:]]),
    },
    check_embed: {
        "loops": tokens_in_loops,
        "convolution": by_convolution(),
        "view and transpose": lambda x, k, b: (
            conv2d(x, k.permute(3, 2, 0, 1), b, stride=len(k)).flatten(2).transpose(1, 2)
        ),
        "matrix": by_matrix(),
        "matrix, channels first": by_matrix("c ph pw", "c ph pw"),
        "linear": by_linear_in_jax_order,
        "unfold": lambda x, k, b: unfold(x, len(k), stride=len(k)).mT @ k.permute(2, 0, 1, 3).reshape(-1, len(b)) + b,
    },
}

WRONG = {
    check_count_learned: {
        "one vector": (lambda h, w, p, c, d: p * p * c * d + d, "dim numbers are missing"),
        "matrix": (lambda h, w, p, c, d: p * p * c * d, "That is the matrix alone"),
        "side once": (lambda h, w, p, c, d: (p * c + 2) * d, "The patch is a square"),
        "no channels": (lambda h, w, p, c, d: (p**2 + 2) * d, "The channels are missing"),
        "matrices": (lambda h, w, p, c, d: h * w * c * d + 2 * d, "You counted a matrix for each patch"),
        "biases": (lambda h, w, p, c, d: (p * p * c + h * w // p**2 + 1) * d, "You counted a bias for each patch"),
        "layers": (lambda h, w, p, c, d: h * w // p**2 * (p * p * c + 1) * d + d,
                   "You counted a matrix and a bias for each patch"),
        "positions": (lambda h, w, p, c, d: (p * p * c + 3 + h * w // p**2) * d, "You counted positions too"),
        "scalars": (lambda h, w, p, c, d: p * p * c * d + 1 + d, "You counted the bias or the class token as one"),
        "bias of pixels": (lambda h, w, p, c, d: p * p * c * (d + 1) + d,
                           "You counted a bias or a class token with a number for every"),
        "class token of pixels": (lambda h, w, p, c, d: (p * p * c + 1) * d + c * p * p,
                                  "You counted a bias or a class token with a number for every"),
        "all tokens": (lambda h, w, p, c, d: (p * p * c + 1) * d + (h * w // p**2 + 1) * d,
                       "You counted all the tokens as learned"),
        "tokens": (lambda h, w, p, c, d: (h * w // p**2 + 1) * d, "You counted the numbers of the tokens"),
        "float": (lambda h, w, p, c, d: p * p * c * d + d * 2.0, "expected a whole number"),
    },
    check_add_registers: {
        "first": (lambda t, r: join(r[None], t), "The registers stand before the class token"),
        "last": (lambda t, r: join(t, r[None]), "The registers stand behind the patches"),
        "in place": (lambda t, r: join(t[:, :1], r[None], t[:, 1 + len(r) :]), "The registers took the places"),
        "added": (lambda t, r: t + torch.cat([0 * r[:1], r, r.new_zeros(t.shape[1] - len(r) - 1, r.shape[1])]),
                  "The registers were added to the first patches"),
        "no class token": (lambda t, r: join(r[None], t[:, 1:]), "The class token is gone"),
        "class token twice": (lambda t, r: join(t[:, :1], r[None], t), "The class token stands there twice"),
        "opposite": (lambda t, r: join(t[:, :1], r.flip(0)[None], t[:, 1:]), "The registers stand in opposite order"),
        "dealt": (lambda t, r: join(t[:, :1], repeat(r, "r d -> (r b) d", b=len(t)).view(len(t), *r.shape), t[:, 1:]),
                  "The images got different registers"),
        "one place late": (lambda t, r: join(t[:, :2], r[None], t[:, 2:]),
                           "Something other than register 0 stands at place 1"),
        "one register": (lambda t, r: join(t[:, :1], r[:1].expand(len(r), -1)[None], t[:, 1:]),
                         "Something other than register 1 stands at place 2"),
        "patches turned": (lambda t, r: join(t[:, :1], r[None], t[:, 1:].flip(1)),
                           "Something other than patch 0 stands at place 3"),
        "class token lost": (lambda t, r: join(0 * t[:, :1], r[None], t[:, 1:]),
                             "Something other than the class token stands at place 0"),
        "no batch": (lambda t, r: torch.cat([t[0, :1], r, t[0, 1:]]),
                     "returned the shape (6, 2), expected (1, 6, 2) (batch tokens dim)"),
    },
    check_embed: {
        "reshape": (lambda x, k, b: (
            conv2d(x, k.reshape(len(b), -1, len(k), len(k)), b, stride=len(k)).flatten(2).mT),
            "The kernel was only reshaped"),
        "kernel unturned": (by_matrix("c ph pw", "ph pw c"), "The pixels of a patch have the channels first"),
        "pixels unturned": (by_matrix("ph pw c", "c ph pw"), "The pixels of a patch have the channels last"),
        "mirrored": (by_convolution("ph pw c dim -> dim c pw ph"), "The kernel lies mirrored"),
        "all axes turned": (lambda x, k, b: conv2d(x, k.permute(3, 2, 1, 0), b, stride=len(k)).flatten(2).mT,
                            "The kernel lies mirrored"),
        "upside down": (lambda x, k, b: by_convolution()(x, k.flip(0), b), "The kernel is upside down"),
        "no bias": (by_convolution(times=0), "The bias is missing"),
        "bias twice": (by_convolution(times=2), "The bias was added twice"),
        "by columns": (by_convolution(order="b dim rows cols -> b (cols rows) dim"),
                       "The patches come column by column"),
        "result unturned": (lambda x, k, b: conv2d(x, k.permute(3, 2, 0, 1), b, stride=len(k)).reshape(
            len(x), -1, len(b)), "The result was only reshaped"),
        "dim first": (by_convolution(order="b dim rows cols -> b dim (rows cols)"),
                      "returned the shape (1, 2, 3), expected (1, 3, 2) (batch patches dim)"),
        "stride 1": (lambda x, k, b: conv2d(x, k.permute(3, 2, 0, 1), b).flatten(2).mT,
                     "returned the shape (1, 5, 2), expected (1, 3, 2) (batch patches dim)"),
        "mean": (by_convolution("ph pw c dim -> dim c ph pw", times=0.5), "right shape, but wrong numbers"),
        "kernel as it is": (lambda x, k, b: conv2d(x, k, b, stride=len(k)), "raised RuntimeError"),
    },
}  # fmt: skip
