"""Notebooks 00 to 05: two right answers to each exercise, other than the reference, and answers with a remark."""

import torch
from einops import einsum, rearrange, reduce, repeat
from torch import nn
from torch.nn.functional import fold, linear, one_hot, scaled_dot_product_attention


def unpatchify_in_loops(patches, patch_size, height, width):
    cols = width // patch_size
    images = torch.empty(len(patches), patches.shape[2] // patch_size**2, height, width)
    for patch in range(patches.shape[1]):
        y, x = patch // cols * patch_size, patch % cols * patch_size
        place = images[:, :, y : y + patch_size, x : x + patch_size]
        place.copy_(patches[:, patch].view(place.shape))
    return images


def kernel_in_loops(channels, patch_size):
    kernel = torch.zeros(channels * patch_size**2, channels, patch_size, patch_size)
    for pixel in range(len(kernel)):
        channel, rest = divmod(pixel, patch_size**2)
        kernel[pixel, channel, rest // patch_size, rest % patch_size] = 1
    return kernel


def embed_by_matrix(images, kernel, bias):
    patches = rearrange(images, "b c (rows ph) (cols pw) -> b (rows cols) (ph pw c)", ph=len(kernel), pw=len(kernel))
    return patches @ kernel.flatten(0, 2) + bias


def embed_by_einsum(images, kernel, bias):
    cut = images.unfold(2, len(kernel), len(kernel)).unfold(3, len(kernel), len(kernel))
    return einsum(cut, kernel, "b c rows cols y x, y x c d -> b rows cols d").flatten(1, 2) + bias


def kept_of_all(patches, positions, class_token, kept):
    tokens = torch.cat([class_token.expand(len(patches), -1, -1), patches], dim=1) + positions
    return tokens[:, [0, *(patch + 1 for patch in kept)]]


def kept_by_einsum(patches, positions, class_token, kept):
    chosen = one_hot(torch.tensor(kept), patches.shape[1]).float()
    left = torch.einsum("kp,bpd->bkd", chosen, patches + positions[:, 1:])
    return torch.cat([repeat(class_token + positions[:, :1], "1 1 d -> b 1 d", b=len(patches)), left], dim=1)


def blind_in_loops(model, tokens):
    order = torch.randperm(tokens.shape[1]).tolist()
    out, out_of_shuffled = model(tokens), model(tokens[:, order])
    return all(torch.allclose(out_of_shuffled[:, new], out[:, old]) for new, old in enumerate(order))


def blind_by_matrix(model, tokens):
    matrix = torch.eye(tokens.shape[1])[torch.randperm(tokens.shape[1])]
    shuffled = torch.einsum("nt,btd->bnd", matrix, tokens)
    return ((model(shuffled) - matrix @ model(tokens)).abs() < 1e-5).all()  # a tensor


def weights_row_by_row(queries, keys):
    scores = [(queries * key).sum(-1) / queries.shape[-1] ** 0.5 for key in keys.transpose(0, 1)[:, :, None]]
    highest = torch.stack(scores, -1).amax(-1)
    exponentials = [(score - highest).exp() for score in scores]
    return torch.stack([each / sum(exponentials) for each in exponentials], -1)


def weights_by_values(queries, keys):
    return scaled_dot_product_attention(queries, keys, torch.eye(keys.shape[1]).expand(len(keys), -1, -1))


def scores_by_einsum(queries, keys, heads):
    q, k = (rearrange(x, "b n (h d) -> b n h d", h=heads) for x in (queries, keys))
    return einsum(q, k, "b q h d, b k h d -> b h q k") / q.shape[-1] ** 0.5


def scores_head_by_head(queries, keys, heads):
    pairs = zip(queries.chunk(heads, -1), keys.chunk(heads, -1), strict=True)
    return torch.stack([q @ k.mT / k.shape[-1] ** 0.5 for q, k in pairs], 1)


def join_by_einops(head_outputs, weight, bias):
    return linear(rearrange(head_outputs, "b h t d -> b t (h d)"), weight, bias)


RIGHT = dict(
    count_tokens=[
        lambda height, width, p: sum(1 for _ in range(0, height, p) for _ in range(0, width, p)) + 1,
        lambda *sizes: torch.tensor(sizes[:2]).div(sizes[2], rounding_mode="floor").prod() + 1,
    ],
    probabilities=[
        lambda logits: torch.stack([row.exp() / row.exp().sum() for row in logits]),
        lambda logits: 1 / (logits[:, None, :] - logits[:, :, None]).exp().sum(2),
    ],
    most_attended=[
        lambda weights: max(range(weights.shape[1] - 1), key=lambda patch: sum(weights[:, patch + 1].tolist())),
        lambda weights: reduce(weights, "h t -> t", "mean")[1:].max(0).indices,
    ],
    patch_of_pixel=[
        lambda y, x, w, p: [(a, b) for a in range(y + 1) for b in range(w // p)].index((y // p, x // p)),
        lambda y, x, width, p: divmod(y, p)[0] * int(width / p) + int(x / p),
    ],
    unpatchify=[unpatchify_in_loops, lambda patches, p, height, width: fold(patches.mT, (height, width), p, stride=p)],
    patchify_kernel=[kernel_in_loops, lambda c, p: rearrange(torch.eye(c * p**2), "k (c y x) -> k c y x", y=p, x=p)],
    count_learned=[
        lambda h, w, p, c, dim: sum(one.numel() for one in nn.Linear(c * p**2, dim, device="meta").parameters()) + dim,
        lambda h, w, p, channels, dim: (p**2 * channels + 1 + 1) * dim,
    ],
    embed=[embed_by_einsum, embed_by_matrix],
    positions_2d=[
        lambda row_table, col_table: torch.stack([torch.cat([row, col]) for row in row_table for col in col_table]),
        lambda rows, cols: torch.cat([rows.repeat_interleave(len(cols), 0), cols.repeat(len(rows), 1)], dim=1),
    ],
    keep=[kept_of_all, kept_by_einsum],
    is_blind_to_order=[blind_in_loops, blind_by_matrix],
    weights=[weights_row_by_row, weights_by_values],
    hide_padding=[
        lambda w, real: w.log().masked_fill(~real[:, None], -torch.inf).softmax(-1),
        lambda w, real: w * real[:, None] / torch.einsum("bqk, bk -> bq", w, real.float())[..., None],
    ],
    look_back=[
        lambda keys, steps: torch.stack([500 * keys[token - steps] for token in range(len(keys))]),
        lambda keys, steps: keys.roll(steps, 0) * 10 * keys.shape[-1] ** 0.5,
    ],
    scores=[scores_head_by_head, scores_by_einsum],
    join=[join_by_einops, lambda outputs, weight, bias: torch.cat(outputs.unbind(1), -1) @ weight.T + bias],
    contribution=[
        lambda outputs, weight, head: outputs[:, head] @ weight.chunk(outputs.shape[1], 1)[head].T,
        lambda x, weight, head: torch.einsum("bhtd, ohd -> hbto", x, weight.unflatten(1, (x.shape[1], -1)))[head],
    ],
)

REMARKED = [
    ("probabilities", lambda logits: logits.softmax(1) / 2, "Row 0 sums to 0.5"),
    ("most_attended", lambda weights: weights.mean(0)[1:].argmax().float(), "expected a whole number"),
    ("patchify_kernel", lambda *sizes: kernel_in_loops(*sizes) / 4, "Filter 0"),
    ("is_blind_to_order", lambda model, x: model.__name__ == "add_place" or blind_in_loops(model, x), "said True"),
    ("weights", lambda *given: weights_row_by_row(*given) * 3, "The first row sums to 3"),
    ("hide_padding", lambda weights, real: weights.clone(), "Key 2 of image 0 is padding, and query 0 still"),
    ("look_back", lambda keys, steps: 10 * keys.roll(steps, 0), "gives it only 0.98"),
    ("look_back", lambda keys, steps: 9 * keys[[0, 0, 1, *range(3, len(keys))]], "Token 0 looks most at token 0"),
    ("look_back", lambda keys, steps: torch.eye(len(keys)).roll(-steps, 1), "have the shape (3, 3)"),
]
