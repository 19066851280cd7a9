"""Notebooks 06 to 12: two right answers to each exercise, other than the reference, and answers with a remark."""

import math

import torch
from einops import rearrange
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn.functional import cross_entropy, layer_norm, mse_loss, one_hot

from vit_walkthrough import VisionTransformer, ViTConfig


def norm_token_by_token(tokens, weight, bias):
    normed = [(token - token.mean()) / (token.var(unbiased=False) + 1e-6) ** 0.5 for token in tokens.flatten(0, 1)]
    return torch.stack(normed).view_as(tokens) * weight + bias


def counted(module, *arguments):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in module(*arguments).parameters())


def post_norm_in_a_loop(tokens, attention, mlp, norm_1, norm_2):
    for step, norm in ((attention, norm_1), (mlp, norm_2)):
        tokens = norm(torch.add(tokens, step(tokens)))
    return tokens


def added_by_building(config, image_size, classes):
    c = config
    sizes = dict(patch_size=c.patch_size, channels=c.channels, dim=c.dim, depth=1, heads=c.heads, hidden=c.hidden)
    new, old = ViTConfig(image_size, classes=classes, **sizes), ViTConfig(c.image_size, classes=c.classes, **sizes)
    return counted(VisionTransformer, new) - counted(VisionTransformer, old)


def added_by_config(config, image_size, classes):
    new = ViTConfig(image_size, config.patch_size, dim=config.dim, heads=config.heads, classes=classes)
    return new.dim * (new.tokens - config.tokens + new.classes - config.classes) + new.classes - config.classes


def side_by_search(config, budget):
    side = config.patch_size
    while 4 * config.depth * config.heads * ((side // config.patch_size) ** 2 + 1) ** 2 <= budget:
        side += config.patch_size
    return side - config.patch_size


def loss_row_by_row(logits, labels):
    return torch.stack([row.logsumexp(0) - row[label] for row, label in zip(logits, labels, strict=True)]).mean()


def rate_by_sine(step, steps, warmup, peak):
    if step < warmup:
        return peak * (1 - (warmup - step - 1) / warmup)
    return peak * math.sin(math.pi / 2 * (steps - step) / (steps - warmup)) ** 2


def rate_of_list(step, steps, warmup, peak):
    up = torch.linspace(0, peak, warmup + 1)[1:]
    down = peak * (1 + torch.linspace(0, math.pi, steps - warmup + 1)[:-1].cos()) / 2
    return torch.cat([up, down])[step]


def confusions_label_by_label(logits, labels):
    guesses = one_hot(logits.argmax(1), logits.shape[1]).float()
    return torch.stack([guesses[labels == label].mean(0) for label in range(logits.shape[1])])


def confusions_by_bincount(logits, labels):
    classes = logits.shape[1]
    counts = torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2).view(classes, classes)
    return counts / counts.sum(1)[:, None]


def rollout_of_the_first(attention):
    """The token that is asked is followed from the last block to the first, one image after another."""
    images = []
    for blocks in attention.mean(2).unbind(1):
        row = torch.eye(blocks.shape[-1])[0]
        for block in reversed(blocks):
            row = (row + (row[:, None] * block).sum(0)) / 2
        images.append(row[1:])
    return torch.stack(images)


def rollout_of_a_row(attention):
    half = 0.5 * (attention.mean(2) + torch.eye(attention.shape[-1]))
    row = half[-1, :, 0]
    for block in half[:-1].flip(0):
        row = torch.einsum("bk, bkj -> bj", row, block)
    return row[:, 1:]


def duels_in_loops(maps, inside):
    def share(on, beside):
        return ((on[:, None] > beside).float() + (on[:, None] == beside) / 2).mean()

    return torch.stack([share(one[on], one[~on]) for one, on in zip(maps, inside, strict=True)])


def relevance_backwards(attention, gradients):
    row = torch.eye(attention.shape[-1])[0].expand(attention.shape[1], 1, -1)
    for block in reversed(range(len(attention))):
        products = attention[block] * gradients[block]
        row = row + row @ torch.where(products > 0, products, 0).mean(1)
    return row[:, 0, 1:]


def relevance_by_einsum(attention, gradients):
    arrived = torch.eye(attention.shape[-1])[None]
    for heads in (attention * gradients).relu():
        arrived = arrived + torch.einsum("bhqk, bkp -> bqp", heads / heads.shape[1], arrived.expand(len(heads), -1, -1))
    return arrived[:, 0, 1:]


def folded_by_asking(weight, bias, mean, std):
    """Nothing but what the old layer answers: to a black picture, and to one with a single bright pixel."""
    pixels = weight.shape[1]
    mean, std = mean.repeat_interleave(pixels // 3), std.repeat_interleave(pixels // 3)
    pictures = torch.cat([torch.zeros(1, pixels), torch.eye(pixels)])
    black, *bright = ((pictures - mean) / std).double() @ weight.double().T + bias
    return (torch.stack(bright) - black).T.float(), black.float()


def folded_by_channel(weight, bias, mean, std):
    by_channel = weight.unflatten(1, (3, -1)) / std[:, None]
    return by_channel.flatten(1), bias - (by_channel.sum(2) @ mean)


def turned_by_matrices(vectors, angles):
    cos, sin = angles.cos(), angles.sin()
    matrices = torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))
    return (matrices @ vectors.unflatten(1, (-1, 2))[..., None]).flatten(1)


def windows_one_by_one(patches, rows, cols, side):
    grid, found = patches.unflatten(1, (rows, cols)), []
    for image in grid:
        for down in image.split(side, 0):
            found += [window.flatten(0, 1) for window in down.split(side, 1)]
    return torch.stack(found)


def soft_loss_row_by_row(student, teacher, temperature):
    rows = zip(student / temperature, (teacher / temperature).softmax(1), strict=True)
    return sum(temperature**2 * -(shares * row.log_softmax(0)).sum() for row, shares in rows) / len(student)


RIGHT = dict(
    layer_norm=[norm_token_by_token, lambda x, weight, bias: layer_norm(x, weight.shape, weight, bias, 1e-6)],
    block_parameters=[
        lambda dim, hidden: counted(nn.TransformerEncoderLayer, dim, 1, hidden),
        lambda dim, hidden: 4 * (dim + 1) * dim + (dim + 1) * hidden + (hidden + 1) * dim + 2 * 2 * dim,
    ],
    post_norm=[
        post_norm_in_a_loop,
        lambda x, attention, mlp, n_1, n_2: n_2(sum(part(n_1(x + attention(x))) for part in (mlp, lambda y: y))),
    ],
    added_parameters=[added_by_building, added_by_config],
    mean_over=[
        lambda x, mask: torch.stack([one[1:][wanted].mean(0) for one, wanted in zip(x, mask, strict=True)]),
        lambda x, mask: x[:, 1:].masked_fill(~mask[:, :, None], torch.nan).nanmean(1),
    ],
    largest_side=[
        side_by_search,
        lambda c, budget: int((((budget / (4 * c.depth * c.heads)) ** 0.5) - 1) ** 0.5) * c.patch_size,
    ],
    cross_entropy=[loss_row_by_row, cross_entropy],
    learning_rate=[rate_of_list, rate_by_sine],
    confusions=[confusions_label_by_label, confusions_by_bincount],
    rollout=[rollout_of_the_first, rollout_of_a_row],
    duels=[
        duels_in_loops,
        lambda maps, inside: torch.tensor([roc_auc_score(on, each) for each, on in zip(maps, inside, strict=True)]),
    ],
    relevance=[relevance_backwards, relevance_by_einsum],
    projection=[
        lambda kernel: torch.stack([column for head in kernel for column in head], 1),
        lambda kernel: rearrange(kernel, "h d dim -> dim (h d)"),
    ],
    folded=[folded_by_channel, folded_by_asking],
    turn=[
        turned_by_matrices,
        lambda x, angles: torch.view_as_real(
            torch.view_as_complex(x.unflatten(1, (-1, 2))) * torch.exp(1j * angles)
        ).flatten(1),
    ],
    to_windows=[
        windows_one_by_one,
        lambda x, rows, cols, side: rearrange(x, "b (r y c x) d -> (b r c) (y x) d", r=rows // side, y=side, x=side),
    ],
    hidden_error=[
        lambda believed, patches, hidden: mse_loss(believed[hidden], patches[hidden]),
        lambda x, y, hidden: torch.where(hidden[..., None], (x - y) ** 2, torch.nan).nanmean(),
    ],
    soft_loss=[
        soft_loss_row_by_row,
        lambda x, y, t: t**2 * cross_entropy(x / t, (y / t).softmax(1)),
    ],
)

REMARKED = [
    ("block_parameters", lambda dim, hidden: 12 * dim * hidden, "290 too many"),
    ("block_parameters", lambda dim, hidden: 0, "190 too few"),
    ("added_parameters", lambda *given: added_by_config(*given) + 7, "positions change by +140 and the head by +22"),
    ("largest_side", lambda config, budget: side_by_search(config, budget) + 1, "17 pixels cannot be cut"),
    ("largest_side", lambda config, budget: side_by_search(config, budget) * 2, "With 32 pixels the maps take 6,936"),
    ("cross_entropy", lambda x, y: -(x.softmax(1)[range(len(y)), y] + 1e-9).log().mean(), "A small number replaces"),
    ("learning_rate", lambda step, *given: rate_by_sine(step, *given) / (1 + (step < given[1])), "The warm-up is"),
    ("learning_rate", lambda step, *given: rate_by_sine(step, *given) / (1 + (step > given[1])), "the fall is wrong"),
    ("learning_rate", lambda step, steps, warmup, peak: [peak], "not 'list'"),
    ("learning_rate", lambda step, steps, warmup, peak: None if step < warmup else peak, "is there a `return`"),
    ("rollout", lambda attention: rollout_of_a_row(attention) / 2, "The proportions are right"),
    ("relevance", lambda *given: relevance_backwards(*given) / 3, "The proportions are right"),
]
