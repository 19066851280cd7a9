"""A right answer to each exercise, other than the reference and the notebook's solution; and answers with a remark."""

import math

import torch
from einops import rearrange, reduce
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn.functional import cross_entropy, fold, layer_norm, linear

from vit_walkthrough import ViTConfig


def kernel_in_loops(channels, patch_size):
    kernel = torch.zeros(channels * patch_size**2, channels, patch_size, patch_size)
    for pixel in range(len(kernel)):
        channel, rest = divmod(pixel, patch_size**2)
        kernel[pixel, channel, rest // patch_size, rest % patch_size] = 1
    return kernel


def registers_by_place(tokens, registers):
    longer = tokens.new_empty(len(tokens), tokens.shape[1] + len(registers), tokens.shape[2])
    longer[:, 0], longer[:, 1 : 1 + len(registers)] = tokens[:, 0], registers
    longer[:, 1 + len(registers) :] = tokens[:, 1:]
    return longer


def embed_by_matrix(images, kernel, bias):
    patches = rearrange(images, "b c (rows ph) (cols pw) -> b (rows cols) (ph pw c)", ph=len(kernel), pw=len(kernel))
    return patches @ kernel.flatten(0, 2) + bias


def kept_of_all(patches, positions, class_token, kept):
    tokens = torch.cat([class_token.expand(len(patches), -1, -1), patches], dim=1) + positions
    return tokens[:, [0, *(patch + 1 for patch in kept)]]


def blind_in_loops(model, tokens):
    order = torch.randperm(tokens.shape[1]).tolist()
    out, out_of_shuffled = model(tokens), model(tokens[:, order])
    return all(torch.allclose(out_of_shuffled[:, new], out[:, old]) for new, old in enumerate(order))


def weights_row_by_row(queries, keys):
    scores = [(queries * key).sum(-1) / queries.shape[-1] ** 0.5 for key in keys.transpose(0, 1)[:, :, None]]
    highest = torch.stack(scores, -1).amax(-1)
    exponentials = [(score - highest).exp() for score in scores]
    return torch.stack([each / sum(exponentials) for each in exponentials], -1)


def scores_head_by_head(queries, keys, heads):
    pairs = zip(queries.chunk(heads, -1), keys.chunk(heads, -1), strict=True)
    return torch.stack([q @ k.mT / k.shape[-1] ** 0.5 for q, k in pairs], 1)


def counted(module, *arguments):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in module(*arguments).parameters())


def post_norm_in_a_loop(tokens, attention, mlp, norm_1, norm_2):
    for step, norm in ((attention, norm_1), (mlp, norm_2)):
        tokens = norm(torch.add(tokens, step(tokens)))
    return tokens


def added_by_config(config, image_size, classes):
    new = ViTConfig(image_size, config.patch_size, dim=config.dim, heads=config.heads, classes=classes)
    return new.dim * (new.tokens - config.tokens + new.classes - config.classes) + new.classes - config.classes


def side_by_search(config, budget):
    side = config.patch_size
    while 4 * config.depth * config.heads * ((side // config.patch_size) ** 2 + 1) ** 2 <= budget:
        side += config.patch_size
    return side - config.patch_size


def rate_by_sine(step, steps, warmup, peak):
    if step < warmup:
        return peak * (1 - (warmup - step - 1) / warmup)
    return peak * math.sin(math.pi / 2 * (steps - step) / (steps - warmup)) ** 2


def confusions_by_bincount(logits, labels):
    classes = logits.shape[1]
    counts = torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2).view(classes, classes)
    return counts / counts.sum(1)[:, None]


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


def cover_in_loops(images, maps, count, patch_size, ground):
    covered, cols = images.clone(), images.shape[3] // patch_size
    for image, best in enumerate(maps.topk(count).indices.tolist()):
        for patch in best:
            y, x = patch // cols * patch_size, patch % cols * patch_size
            covered[image, :, y : y + patch_size, x : x + patch_size] = ground[image]
    return covered


def folded_by_channel(weight, bias, mean, std):
    by_channel = weight.unflatten(1, (3, -1)) / std[:, None]
    return by_channel.flatten(1), bias - (by_channel.sum(2) @ mean)


RIGHT = dict(
    count_tokens=lambda height, width, p: sum(1 for _ in range(0, height, p) for _ in range(0, width, p)) + 1,
    probabilities=lambda logits: 1 / (logits[:, None, :] - logits[:, :, None]).exp().sum(2),
    most_attended=lambda weights: reduce(weights, "h t -> t", "mean")[1:].max(0).indices,
    patch_of_pixel=lambda y, x, w, p: [(a, b) for a in range(y + 1) for b in range(w // p)].index((y // p, x // p)),
    unpatchify=lambda patches, p, height, width: fold(patches.mT, (height, width), p, stride=p),
    patchify_kernel=kernel_in_loops,
    count_learned=lambda h, w, p, c, dim: sum(one.numel() for one in nn.Linear(c * p**2, dim).parameters()) + dim,
    add_registers=registers_by_place,
    embed=embed_by_matrix,
    positions_2d=lambda rows, cols: torch.stack([torch.cat([row, col]) for row in rows for col in cols]),
    keep=kept_of_all,
    is_blind_to_order=blind_in_loops,
    weights=weights_row_by_row,
    hide_padding=lambda w, real: w.log().masked_fill(~real[:, None], -torch.inf).softmax(-1),
    look_back=lambda keys, steps: torch.stack([500 * keys[token - steps] for token in range(len(keys))]),
    scores=scores_head_by_head,
    join=lambda outputs, weight, bias: linear(rearrange(outputs, "b h t d -> b t (h d)"), weight, bias),
    contribution=lambda outputs, weight, head: outputs[:, head] @ weight.chunk(outputs.shape[1], 1)[head].T,
    layer_norm=lambda x, weight, bias: layer_norm(x, weight.shape, weight, bias, 1e-6),
    block_parameters=lambda dim, hidden: counted(nn.TransformerEncoderLayer, dim, 1, hidden),
    post_norm=post_norm_in_a_loop,
    added_parameters=added_by_config,
    mean_over=lambda x, mask: x[:, 1:].masked_fill(~mask[:, :, None], torch.nan).nanmean(1),
    largest_side=side_by_search,
    cross_entropy=cross_entropy,
    learning_rate=rate_by_sine,
    confusions=confusions_by_bincount,
    rollout=rollout_of_a_row,
    duels=lambda maps, inside: torch.tensor(list(map(roc_auc_score, inside, maps))),
    relevance=relevance_backwards,
    cover=cover_in_loops,
    projection=lambda kernel: rearrange(kernel, "h d dim -> dim (h d)"),
    folded=folded_by_channel,
)

REMARKED = [
    ("probabilities", lambda logits: logits.softmax(1) / 2, "Row 0 sums to 0.5"),
    ("most_attended", lambda weights: weights.mean(0)[1:].argmax().float(), "expected a whole number"),
    ("patchify_kernel", lambda *sizes: kernel_in_loops(*sizes) / 4, "Filter 0"),
    ("add_registers", lambda *given: 2 * registers_by_place(*given), "the class token stands at place 0"),
    ("add_registers", lambda t, r: registers_by_place(t, r[:1].expand_as(r)), "register 1 stands at place 2"),
    ("is_blind_to_order", lambda model, x: model.__name__ == "add_place" or blind_in_loops(model, x), "said True"),
    ("weights", lambda *given: weights_row_by_row(*given) * 3, "The first row sums to 3"),
    ("hide_padding", lambda weights, real: weights.clone(), "Key 2 of image 0 is padding, and query 0 still"),
    ("look_back", lambda keys, steps: 10 * keys.roll(steps, 0), "gives it only 0.98"),
    ("look_back", lambda keys, steps: 9 * keys[[0, 0, 1, *range(3, len(keys))]], "Token 0 looks most at token 0"),
    ("look_back", lambda keys, steps: torch.eye(len(keys)).roll(-steps, 1), "have the shape (3, 3)"),
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
    ("cover", lambda x, m, count, p, g: cover_in_loops(x, m, count, p, g + 0.5), "ground as its colour"),
]
