"""To each exercise a right answer, other than the reference and the notebook's own solution; and remarked ones."""

import math
from dataclasses import replace
from itertools import product

import torch
from einops import rearrange, reduce
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn.functional import cross_entropy, fold, layer_norm, one_hot, scaled_dot_product_attention, unfold

from vit_walkthrough import VisionTransformer, count_parameters


def kernel_in_loops(channels, patch_size):
    kernel = torch.zeros(channels * patch_size**2, channels, patch_size, patch_size)
    for pixel, place in enumerate(product(range(channels), range(patch_size), range(patch_size))):
        kernel[pixel, *place] = 1
    return kernel


def blind_by_matrix(model, tokens):
    matrix = torch.eye(tokens.shape[1])[torch.randperm(tokens.shape[1])]
    shuffled = torch.einsum("nt,btd->bnd", matrix, tokens)
    return ((model(shuffled) - matrix @ model(tokens)).abs() < 1e-5).all()  # a tensor


def scores_head_by_head(queries, keys, heads):
    pairs = zip(queries.chunk(heads, -1), keys.chunk(heads, -1), strict=True)
    return torch.stack([q @ k.mT / k.shape[-1] ** 0.5 for q, k in pairs], 1)


def counted(module, *arguments):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in module(*arguments).parameters())


def added_by_building(config, image_size, classes):
    new = replace(config, image_size=image_size, classes=classes)
    return counted(VisionTransformer, new) - counted(VisionTransformer, config)


def side_by_search(config, budget):
    fits = [side for side in range(1, 1000) if 4 * config.depth * config.heads * (side**2 + 1) ** 2 <= budget]
    return fits[-1] * config.patch_size


def rate_by_sine(step, steps, warmup, peak):
    fallen = math.sin(math.pi / 2 * (steps - step) / (steps - warmup)) ** 2
    return peak * (fallen if step >= warmup else 1 - (warmup - step - 1) / warmup)


def rollout_of_a_row(attention):
    half = 0.5 * (attention.mean(2) + torch.eye(attention.shape[-1]))
    row = half[-1, :, 0]
    for block in half[:-1].flip(0):
        row = torch.einsum("bk, bkj -> bj", row, block)
    return row[:, 1:]


def relevance_backwards(attention, gradients):
    row = torch.eye(attention.shape[-1])[0].expand(attention.shape[1], 1, -1)
    for block in reversed(range(len(attention))):
        products = attention[block] * gradients[block]
        row = row + row @ torch.where(products > 0, products, 0).mean(1)
    return row[:, 0, 1:]


def weights_by_values(queries, keys):
    return scaled_dot_product_attention(queries, keys, torch.eye(keys.shape[1]).expand(len(keys), -1, -1))


def folded_by_channel(weight, bias, mean, std):
    by_channel = weight.unflatten(1, (3, -1)) / std[:, None]
    return by_channel.flatten(1), bias - (by_channel.sum(2) @ mean)


RIGHT = dict(
    count_tokens=lambda *sizes: torch.tensor(sizes[:2]).div(sizes[2], rounding_mode="floor").prod() + 1,
    probabilities=lambda logits: 1 / (logits[:, None, :] - logits[:, :, None]).exp().sum(2),
    most_attended=lambda weights: reduce(weights, "h t -> t", "mean")[1:].max(0).indices,
    patch_of_pixel=lambda y, x, w, p: [(a, b) for a in range(y + 1) for b in range(w // p)].index((y // p, x // p)),
    unpatchify=lambda patches, p, height, width: fold(patches.mT, (height, width), p, stride=p),
    patchify_kernel=kernel_in_loops,
    count_learned=lambda h, w, p, c, dim: count_parameters(nn.Linear(c * p**2, dim, device="meta")) + dim,
    embed=lambda x, k, bias: unfold(x, p := len(k), stride=p).mT @ k.permute(2, 0, 1, 3).flatten(0, 2) + bias,
    positions_2d=lambda rows, cols: torch.stack([torch.cat([row, col]) for row in rows for col in cols]),
    keep=lambda x, at, one, kept: (torch.cat([one.expand(len(x), 1, -1), x], 1) + at)[:, [0, *(k + 1 for k in kept)]],
    is_blind_to_order=blind_by_matrix,
    weights=weights_by_values,
    hide_padding=lambda w, real: w.log().masked_fill(~real[:, None], -torch.inf).softmax(-1),
    look_back=lambda keys, steps: torch.stack([500 * keys[token - steps] for token in range(len(keys))]),
    scores=scores_head_by_head,
    join=lambda outputs, weight, bias: torch.cat(outputs.unbind(1), -1) @ weight.T + bias,
    contribution=lambda outputs, weight, head: outputs[:, head] @ weight.chunk(outputs.shape[1], 1)[head].T,
    layer_norm=lambda x, weight, bias: layer_norm(x, weight.shape, weight, bias, 1e-6),
    block_parameters=lambda dim, hidden: counted(nn.TransformerEncoderLayer, dim, 1, hidden),
    post_norm=lambda x, attention, mlp, n_1, n_2: n_2(sum(part(n_1(x + attention(x))) for part in (mlp, lambda y: y))),
    added_parameters=added_by_building,
    mean_over=lambda x, mask: torch.stack([one[1:][wanted].mean(0) for one, wanted in zip(x, mask, strict=True)]),
    largest_side=side_by_search,
    cross_entropy=cross_entropy,
    learning_rate=rate_by_sine,
    confusions=lambda x, y: torch.stack([one_hot(x.argmax(1), x.shape[1])[y == k].float().mean(0) for k in y.unique()]),
    rollout=rollout_of_a_row,
    duels=lambda maps, inside: torch.tensor([*map(roc_auc_score, inside, maps)]),
    relevance=relevance_backwards,
    projection=lambda kernel: torch.stack([column for head in kernel for column in head], 1),
    folded=folded_by_channel,
    turn=lambda x, a: torch.view_as_real(torch.view_as_complex(x.unflatten(1, (-1, 2))) * (1j * a).exp()).flatten(1),
    to_windows=lambda x, r, c, s: rearrange(x, "b (r y c x) d -> (b r c) (y x) d", r=r // s, y=s, x=s),
    hidden_error=lambda x, y, hidden: torch.where(hidden[..., None], (x - y) ** 2, torch.nan).nanmean(),
    soft_loss=lambda x, y, t: t**2 * -((y / t).softmax(1) * (x / t).log_softmax(1)).sum(1).mean(),
)

REMARKED = [
    ("probabilities", lambda logits: logits.softmax(1) / 2, "Row 0 sums to 0.5"),
    ("most_attended", lambda weights: weights.mean(0)[1:].argmax().float(), "expected a whole number"),
    ("patchify_kernel", lambda *sizes: kernel_in_loops(*sizes) / 4, "Filter 0"),
    ("is_blind_to_order", lambda model, x: model.__name__ == "add_place" or blind_by_matrix(model, x), "said True"),
    ("weights", lambda *given: weights_by_values(*given) * 3, "The first row sums to 3"),
    ("hide_padding", lambda weights, real: weights.clone(), "Key 2 of image 0 is padding, and query 0 still"),
    ("look_back", lambda keys, steps: 10 * keys.roll(steps, 0), "gives it only 0.98"),
    ("look_back", lambda keys, steps: 9 * keys[[0, 0, 1, *range(3, len(keys))]], "Token 0 looks most at token 0"),
    ("look_back", lambda keys, steps: torch.eye(len(keys)).roll(-steps, 1), "have the shape (3, 3)"),
    ("block_parameters", lambda dim, hidden: 12 * dim * hidden, "290 too many"),
    ("block_parameters", lambda dim, hidden: 0, "190 too few"),
    ("added_parameters", lambda *given: added_by_building(*given) + 7, "positions change by +140 and the head by +22"),
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
