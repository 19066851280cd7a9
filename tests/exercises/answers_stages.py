"""Notebooks 00 to 05: two right answers to each exercise, other than the reference, and answers with a remark."""

import torch
from einops import einsum, rearrange, reduce, repeat
from torch import nn
from torch.nn.functional import fold, linear, one_hot, scaled_dot_product_attention


def shares_in_loops(logits):
    shares = torch.empty_like(logits)
    for image, row in enumerate(logits):
        exponentials = [(logit - row.max()).exp() for logit in row]
        shares[image] = torch.stack([each / sum(exponentials) for each in exponentials])
    return shares


def most_in_loops(weights):
    sums = [sum(head[place].item() for head in weights) for place in range(1, weights.shape[1])]
    return sums.index(max(sums))


def patch_by_counting(y, x, width, patch_size):
    corners = [(top, left) for top in range(0, y + 1, patch_size) for left in range(0, width, patch_size)]
    return corners.index((y - y % patch_size, x - x % patch_size))


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


def learned_in_modules(height, width, patch_size, channels, dim):
    layer, token = nn.Linear(channels * patch_size**2, dim, device="meta"), torch.empty(dim, device="meta")
    return sum(parameter.numel() for parameter in layer.parameters()) + token.numel()


def registers_in_loops(tokens, registers):
    return torch.stack([torch.stack([image[0], *registers, *image[1:]]) for image in tokens])


def registers_by_place(tokens, registers):
    longer = tokens.new_empty(len(tokens), tokens.shape[1] + len(registers), tokens.shape[2])
    longer[:, 0], longer[:, 1 : 1 + len(registers)] = tokens[:, 0], registers
    longer[:, 1 + len(registers) :] = tokens[:, 1:]
    return longer


def embed_in_loops(images, kernel, bias):
    side, tokens = len(kernel), []
    for y in range(0, images.shape[2], side):
        for x in range(0, images.shape[3], side):
            square = images[:, :, y : y + side, x : x + side]
            tokens.append(torch.einsum("bcyx,yxcd->bd", square, kernel) + bias)
    return torch.stack(tokens, 1)


def embed_by_matrix(images, kernel, bias):
    side = len(kernel)
    patches = rearrange(images, "b c (rows ph) (cols pw) -> b (rows cols) (ph pw c)", ph=side, pw=side)
    return patches @ kernel.flatten(0, 2) + bias


def halves_by_repeat(row_table, col_table):
    by_row = repeat(row_table, "rows half -> (rows cols) half", cols=len(col_table))
    return torch.cat([by_row, repeat(col_table, "cols half -> (rows cols) half", rows=len(row_table))], dim=1)


def kept_in_loops(patches, positions, class_token, kept):
    tokens = [class_token[0, 0].expand(len(patches), -1) + positions[0, 0]]
    return torch.stack(tokens + [patches[:, patch] + positions[0, patch + 1] for patch in kept], dim=1)


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


def weights_in_loops(queries, keys):
    weights = torch.empty(*queries.shape[:2], keys.shape[1])
    for image, query in torch.cartesian_prod(*map(torch.arange, queries.shape[:2])).tolist():
        scores = torch.stack([queries[image, query] @ key for key in keys[image]]) / queries.shape[-1] ** 0.5
        exponentials = (scores - scores.max()).exp()
        weights[image, query] = exponentials / exponentials.sum()
    return weights


def weights_by_values(queries, keys):
    return scaled_dot_product_attention(queries, keys, torch.eye(keys.shape[1]).expand(len(keys), -1, -1))


def hide_in_loops(weights, real):
    weights = weights.clone()
    for image in range(len(weights)):
        for row in weights[image]:
            row[~real[image]] = 0
            row /= row.sum()
    return weights


def look_back_in_loops(keys, steps):
    return torch.stack([500 * keys[token - steps] for token in range(len(keys))])


def scores_in_loops(queries, keys, heads):
    dim = queries.shape[-1] // heads
    parts = [slice(head * dim, head * dim + dim) for head in range(heads)]
    return torch.stack([queries[..., part] @ keys[..., part].mT / dim**0.5 for part in parts], 1)


def scores_by_einsum(queries, keys, heads):
    q, k = (rearrange(x, "b n (h d) -> b n h d", h=heads) for x in (queries, keys))
    return einsum(q, k, "b q h d, b k h d -> b h q k") / q.shape[-1] ** 0.5


def join_in_loops(head_outputs, weight, bias):
    def joined(image):
        return [weight @ torch.cat([head[token] for head in image]) + bias for token in range(image.shape[1])]

    return torch.stack([torch.stack(joined(image)) for image in head_outputs])


def join_by_einops(head_outputs, weight, bias):
    return linear(rearrange(head_outputs, "b h t d -> b t (h d)"), weight, bias)


def contribution_by_silence(head_outputs, weight, head):
    alone = torch.zeros_like(head_outputs)
    alone[:, head] = head_outputs[:, head]
    return join_by_einops(alone, weight, None)


def contribution_by_einsum(head_outputs, weight, head):
    return torch.einsum("bhtd,ohd->hbto", head_outputs, weight.unflatten(1, (head_outputs.shape[1], -1)))[head]


RIGHT = dict(
    count_tokens=[
        lambda height, width, p: sum(1 for _ in range(0, height, p) for _ in range(0, width, p)) + 1,
        lambda *sizes: torch.tensor(sizes[:2]).div(sizes[2], rounding_mode="floor").prod() + 1,
    ],
    probabilities=[shares_in_loops, lambda x: 1 / (x[:, None, :] - x[:, :, None]).exp().sum(2)],
    most_attended=[most_in_loops, lambda weights: reduce(weights, "h t -> t", "mean")[1:].max(0).indices],
    patch_of_pixel=[patch_by_counting, lambda y, x, width, p: divmod(y, p)[0] * int(width / p) + int(x / p)],
    unpatchify=[unpatchify_in_loops, lambda patches, p, height, width: fold(patches.mT, (height, width), p, stride=p)],
    patchify_kernel=[kernel_in_loops, lambda c, p: rearrange(torch.eye(c * p**2), "k (c y x) -> k c y x", y=p, x=p)],
    count_learned=[learned_in_modules, lambda h, w, p, channels, dim: (p**2 * channels + 1 + 1) * dim],
    add_registers=[registers_in_loops, registers_by_place],
    embed=[embed_in_loops, embed_by_matrix],
    positions_2d=[
        lambda row_table, col_table: torch.stack([torch.cat([row, col]) for row in row_table for col in col_table]),
        halves_by_repeat,
    ],
    keep=[kept_in_loops, kept_by_einsum],
    is_blind_to_order=[blind_in_loops, blind_by_matrix],
    weights=[weights_in_loops, weights_by_values],
    hide_padding=[hide_in_loops, lambda w, real: w.log().masked_fill(~real[:, None], -torch.inf).softmax(-1)],
    look_back=[look_back_in_loops, lambda keys, steps: keys.roll(steps, 0) * 10 * keys.shape[-1] ** 0.5],
    scores=[scores_in_loops, scores_by_einsum],
    join=[join_in_loops, join_by_einops],
    contribution=[contribution_by_silence, contribution_by_einsum],
)

REMARKED = [
    ("probabilities", lambda logits: logits.softmax(1) / 2, "Row 0 sums to 0.5"),
    ("most_attended", lambda weights: weights.mean(0)[1:].argmax().float(), "expected a whole number"),
    ("patchify_kernel", lambda *sizes: kernel_in_loops(*sizes) / 4, "Filter 0"),
    ("add_registers", lambda *given: 2 * registers_by_place(*given), "the class token stands at place 0"),
    ("add_registers", lambda t, r: registers_by_place(t, r[:1].expand_as(r)), "register 1 stands at place 2"),
    ("is_blind_to_order", lambda model, x: model.__name__ == "add_place" or blind_in_loops(model, x), "said True"),
    ("weights", lambda *given: weights_in_loops(*given) * 3, "The first row sums to 3"),
    ("hide_padding", lambda weights, real: weights.clone(), "Key 2 of image 0 is padding, and query 0 still"),
    ("look_back", lambda keys, steps: 10 * keys.roll(steps, 0), "gives it only 0.98"),
    ("look_back", lambda keys, steps: 9 * keys[[0, 0, 1, *range(3, len(keys))]], "Token 0 looks most at token 0"),
    ("look_back", lambda keys, steps: torch.eye(len(keys)).roll(-steps, 1), "have the shape (3, 3)"),
]
