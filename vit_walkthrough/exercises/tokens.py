"""Notebooks 00 to 03: from pixels to tokens that know their place."""

from functools import partial

import torch
from torch import tensor
from torch.nn.functional import conv2d

from vit_walkthrough.exercises.check import exercise, randn, shares


@exercise(
    cases=[(4, 6, 2), (224, 224, 16), (21, 15, 3), (28, 77, 7)],
    holds="One token for every patch, and one more: the class token.",
)
def check_count_tokens(height, width, patch_size):
    """yours(height, width, patch_size): how many tokens the encoder sees, the class token among them."""
    rows, cols = height // patch_size, width // patch_size
    yield rows * cols + 1
    yield "Those are the patches alone; the class token is one token more", rows * cols
    yield "The image was taken for a square: count the cols from its width, not from its height", rows * rows + 1
    yield "A patch has patch_size * patch_size pixels; divide by both", height * width // patch_size + 1


@exercise(
    cases=[(tensor([[0.0, 1, 3], [4, 0, -1]]),), ((4 * randn(3, 5)).round(),)],
    axes="batch classes",
    holds="Every row sums to 1, and a larger logit gets a larger share.",
)
def check_probabilities(logits):
    """yours(logits): the softmax of the logits (batch classes) of every image, (batch classes)."""
    exponentials = logits.exp()
    got = yield shares(exponentials)
    yield "Each column sums to 1: sum over the classes, the last axis, not over the images", shares(exponentials, 0)
    yield "Those are the exponentials alone: divide each by the sum of its row", exponentials
    yield "A logit may be negative, so it is no share: take its exponential first", shares(logits)
    yield "A sigmoid judges each class alone: divide each exponential by the sum of its row", logits.sigmoid()
    for image, total in enumerate(got.sum(-1).tolist()):
        if abs(total - 1) > 1e-4:
            yield f"Row {image} sums to {total:.4g}, but the probabilities of one image must sum to 1"


TWO_HEADS = tensor([[0.5, 0.1, 0.3, 0.1], [0.4, 0.1, 0.15, 0.35]])


@exercise(
    cases=[(TWO_HEADS,), ((3 * randn(3, 10)).softmax(-1),), ((3 * randn(4, 37)).softmax(-1),)],
    holds="Average the heads, leave the class token out, take the largest: there the class token looks most.",
)
def check_most_attended(weights):
    """yours(weights): of the class token's weights (heads tokens), the number of the patch that gets most on the
    average of the heads."""
    mean = weights.mean(0)
    right, of_all = int(mean[1:].argmax()), int(mean.argmax())
    yield right
    yield "One too many: the class token has place 0, so patch k stands at place k + 1", right + 1
    yield "That is the place among all tokens. Leave the class token's out, then ask for the largest", of_all
    yield "Leave the class token's place out before you ask for the largest, not after", of_all - 1
    yield "That is of the first head alone: average the heads first", int(weights[0, 1:].argmax())
    yield "A single head gives that patch most: average the heads first", int(weights[:, 1:].amax(0).argmax())
    yield "That is a place among the numbers of all heads: average the heads first", int(weights.argmax())


@exercise(
    cases=[(2, 5, 6, 2), (3, 0, 6, 2), (7, 17, 21, 3), (50, 70, 80, 16), (99, 150, 224, 16)],
    holds="patch = row * cols + col, with row and col counted in whole patches.",
)
def check_patch_of_pixel(y, x, width, patch_size):
    """yours(y, x, width, patch_size): the number of the patch that a pixel lies in, in reading order from 0."""
    row, col, cols = y // patch_size, x // patch_size, width // patch_size
    yield row * cols + col
    yield "y and x are exchanged: y says the row, x the column", col * cols + row
    yield "The patches are counted from 1; in Python, and in a tensor, the first is 0", row * cols + col + 1
    yield "Counted in pixels: a row has width // patch_size patches, not width", row * width + col
    yield "x is still counted in pixels: divide it by patch_size, as y", row * cols + x
    yield "The pixels before were counted; find row and column separately", (y * width + x) // patch_size**2


NUMBERED = torch.arange(24.0).reshape(1, 2, 2, 3, 2).transpose(2, 3).reshape(1, 6, 4)  # patches of a 4 x 6 image


@exercise(
    cases=[(NUMBERED, 2, 4, 6), (randn(2, 6, 12), 2, 6, 4), (randn(2, 3, 18), 3, 3, 9)],
    axes="batch channels height width",
    holds="Every pixel is back where it was cut from, in images that are not square, with 1 and with 3 channels.",
)
def check_unpatchify(patches, patch_size, height, width):
    """yours(patches, patch_size, height, width): flattened patches (batch patches patch_dim) back into images
    (batch channels height width)."""
    batch, p, rows, cols = len(patches), patch_size, height // patch_size, width // patch_size
    cut, by_cols = patches.reshape(batch, rows, cols, -1, p, p), patches.reshape(batch, cols, rows, -1, p, p)
    channels_last = patches.reshape(batch, rows, cols, p, p, -1)

    def put(*order, cut=cut):
        return cut.permute(order).reshape(batch, -1, height, width)

    yield put(0, 3, 1, 4, 2, 5)
    only_reshaped = patches.reshape(batch, -1, height, width)
    yield "Only reshaped, so each number kept its place in memory. First reorder the axes", only_reshaped
    yield "The patches were laid down column by column; reading order is row by row", put(0, 3, 2, 4, 1, 5, cut=by_cols)
    yield "Every patch is mirrored on its diagonal: ph (down) and pw (across) are exchanged", put(0, 3, 1, 5, 2, 4)
    yield "The channels were read last; a patch is (channels ph pw)", put(0, 5, 1, 3, 2, 4, cut=channels_last)
    yield "Only the channels were moved: the height is (rows ph), so ph stands right behind rows", put(0, 3, 1, 2, 4, 5)
    yield "Neighbouring pixels lie far apart: the height is (rows ph), the width (cols pw)", put(0, 3, 4, 1, 5, 2)


@exercise(
    cases=[(1, 2), (2, 3), (3, 2)],
    axes="patch_dim channels ph pw",
    holds="With this kernel a convolution of stride patch_size is patchify: filter k picks number k.",
)
def check_patchify_kernel(channels, patch_size):
    """yours(channels, patch_size): the kernel (patch_dim channels ph pw) with which a convolution of stride
    patch_size is patchify."""
    patch_dim = channels * patch_size**2
    kernel = torch.eye(patch_dim).reshape(-1, channels, patch_size, patch_size)
    channels_last = torch.eye(patch_dim).reshape(-1, patch_size, patch_size, channels).permute(0, 3, 1, 2)
    got = yield kernel
    yield "The pixels are picked with the channels last; their order is (channels ph pw)", channels_last
    yield "The filters go down the columns of a patch; patchify reads its rows, so pw runs fastest", kernel.mT
    yield "The kernel averages the patch; each filter must pick one pixel of it", torch.full_like(kernel, 1 / patch_dim)
    number = (got != kernel).flatten(1).any(1).int().argmax()
    yield f"Filter {number} must pick number {number} of the patch's list: a single 1, and else zeros"


@exercise(
    cases=[(4, 6, 2, 1, 3), (224, 384, 16, 3, 768), (15, 35, 5, 4, 11)],
    holds="One matrix, one bias and one class token serve any number of patches.",
)
def check_count_learned(height, width, patch_size, channels, dim):
    """yours(height, width, patch_size, channels, dim): how many numbers matrix, bias and class token hold."""
    patches, patch_dim = height // patch_size * (width // patch_size), channels * patch_size**2
    matrix = patch_dim * dim
    learned = matrix + dim + dim  # bias, class token
    yield learned
    yield "dim numbers are missing: the bias has dim numbers, and so has the class token", learned - dim
    yield "That is the matrix alone: its bias has dim numbers, and so has the class token", matrix
    yield "The channels are missing: a patch is flattened with all of them", patch_size**2 * dim + 2 * dim
    yield "You counted a matrix for each patch, but all patches share one", patches * matrix + 2 * dim


UPPER_LEFT, UPPER_RIGHT = tensor([[1.0, 0], [0, 0]]), tensor([[0.0, 1], [0, 0]])
OF_ONE_CHANNEL = torch.stack([UPPER_LEFT, UPPER_RIGHT], -1)[:, :, None]
OF_TWO_CHANNELS = torch.stack([UPPER_LEFT, UPPER_RIGHT], -1)[..., None] * torch.eye(2)


@exercise(
    cases=[
        (torch.arange(12.0).reshape(1, 1, 2, 6), OF_ONE_CHANNEL, tensor([10.0, 20])),
        (torch.arange(48.0).reshape(1, 2, 4, 6), OF_TWO_CHANNELS, tensor([100.0, 200])),
        (randn(2, 3, 4, 2), randn(2, 2, 3, 4, seed=1), randn(4, seed=2)),
        (randn(1, 2, 3, 6), randn(3, 3, 2, 5, seed=1), randn(5, seed=2)),
    ],
    axes="batch patches dim",
    holds="The same tokens as Google's code makes of these weights, though the kernel lies in another order.",
)
def check_embed(images, kernel, bias):
    """yours(images, kernel, bias): the tokens (batch patches dim) of images (batch channels height width), by a kernel
    (ph pw channels dim) and a bias (dim)."""
    side, _, channels, dim = kernel.shape
    convolved = partial(conv2d, images, bias=bias, stride=side)  # batch dim rows cols

    def embedded(weight):
        return convolved(weight).flatten(2).mT

    right, reshaped = kernel.permute(3, 2, 0, 1), kernel.reshape(dim, channels, side, side)
    channels_first = kernel.reshape(channels, side, side, dim).permute(3, 0, 1, 2)
    in_rows = convolved(right).reshape(len(images), -1, dim)
    yield embedded(right)
    yield "The kernel was only reshaped: bring its axes into another order, by permute or rearrange", embedded(reshaped)
    yield "The patch has the channels first, the kernel last; both need the same order", embedded(channels_first)
    yield "The bias is missing: add it to every token", embedded(right) - bias
    yield "The patches come column by column; reading order is row by row", convolved(right).mT.flatten(2).mT
    yield "The result was only reshaped: dim must go last before rows and cols are joined", in_rows


@exercise(
    cases=[
        (tensor([[0.0, 1], [10, 11]]), tensor([[50.0, 51], [60, 61], [70, 71]])),
        (randn(5, 4), randn(3, 4, seed=1)),
        (randn(4, 3), randn(6, 3, seed=1)),
    ],
    axes="patches dim",
    holds="Every patch has its row in the first half and its column in the second, in reading order.",
)
def check_positions_2d(row_table, col_table):
    """yours(row_table, col_table): positions (patches dim) of all patches in reading order, the first half of each from
    row_table (rows half), the second from col_table (cols half)."""
    rows, cols = len(row_table), len(col_table)
    patch = torch.arange(rows * cols)
    row, col = patch // cols, patch % cols

    def positions(row, col):
        return torch.cat([row_table[row], col_table[col]], 1)

    right = positions(row, col)
    of_tables = torch.cat([col_table[patch // rows], row_table[patch % rows]], 1)
    yield right
    yield "The patches come column by column; reading order is row by row", positions(patch % rows, patch // rows)
    yield "The halves are exchanged: the row's comes first, then the column's", right.roll(row_table.shape[1], 1)
    yield "The tables are exchanged: row_table says the row, which changes slowly, and comes first", of_tables
    yield "The two halves were added; put them side by side: half + half = dim", row_table[row] + col_table[col]
    yield "Both halves were looked up by the row; look up the second by the column", lambda: positions(row, row)


TENTHS = torch.arange(1, 6)[None, :, None] / 10 * torch.ones(2)  # positions of 5 tokens


@exercise(
    cases=[
        (100 * torch.arange(4.0)[None, :, None] + tensor([0, 1]), TENTHS, tensor([[[900.0, 901]]]), [3, 1]),
        (randn(2, 6, 3), randn(1, 7, 3, seed=1), randn(1, 1, 3, seed=2), [4, 1, 5, 0]),
        (randn(3, 9, 2), randn(1, 10, 2, seed=1), randn(1, 1, 2, seed=2), [8, 2, 7, 0, 5]),
    ],
    axes="batch tokens dim",
    holds="Every patch that is left has kept the position of its place in the image, and the class token has its own.",
)
def check_keep(patches, positions, class_token, kept):
    """yours(patches, positions, class_token, kept): tokens (batch tokens dim) of the class token (1 1 dim) and of those
    patches (batch patches dim) whose numbers are in the list kept, in its order, each with its own of the positions
    (1 patches+1 dim)."""
    first, placed = class_token + positions[:, :1], patches + positions[:, 1:]

    def after(token, others):
        return torch.cat([token.expand(len(patches), -1, -1), others], 1)

    right, bare, everything = after(first, placed[:, kept]), after(class_token, patches[:, kept]), after(first, placed)
    moved = bare + positions[:, : len(kept) + 1]
    before = after(first, patches[:, kept] + positions[:, kept])
    yield right
    yield "Each patch has the position of the place where it stands now; add the positions, then choose", moved
    yield "Each patch has the position of the one before; patch k has positions[:, k + 1]", before
    yield "The class token has no position: add positions[:, 0] to it", after(class_token, placed[:, kept])
    yield "The patches were sorted; leave them in the order of kept", after(first, placed[:, sorted(kept)])
    yield "The class token is missing; put it first, with its own position", right[:, 1:]
    yield "One place off: with the class token before it, patch k is token k + 1", after(first, everything[:, kept])


def _mean(tokens):
    return (sum(tokens.unbind(1)) / tokens.shape[1])[:, None].expand_as(tokens)  # rounded as the order has it


def _places(tokens):
    return torch.arange(tokens.shape[1])[:, None]


def _model(name, does, model):
    model.__name__, model.__doc__ = name, does
    return model


MODELS = [
    _model("double_each", "doubles every token, wherever it stands", lambda x: 2 * x),
    _model("mean_of_all", "gives every token the mean of all of them", lambda x: _mean(x)),
    _model("add_place", "adds to every token the number of its place", lambda x: x + _places(x)),
    _model("add_next", "adds half of the next token, in a ring", lambda x: x + x.roll(-1, 1) / 2),
    _model("add_both", "adds a quarter of each neighbour, in a ring", lambda x: x + (x.roll(1, 1) + x.roll(-1, 1)) / 4),
    _model("mean_and_place", "adds the number of its place to the mean of all tokens", lambda x: _mean(x) + _places(x)),
]
ORDER = [0, 7, 3, 11, 5, 9, 2, 10, 1, 8, 6, 4]  # the first token stays, neighbours part


@exercise(
    cases=[(model, 1 + randn(3, 12, 8).abs()) for model in MODELS],
    holds="Your test tells the two models that are blind to order from the four that are not.",
)
def check_is_blind_to_order(model, tokens):
    """yours(model, tokens): whether the model, from tokens (batch tokens dim) to as many, gives for shuffled tokens the
    same outputs, shuffled alike."""
    out, shuffled, others = model(tokens), model(tokens[:, ORDER]), model(tokens)[:, ORDER]
    right = torch.allclose(shuffled, others)
    got = yield right
    yield "The outputs move with their tokens: shuffle them alike before you compare", torch.allclose(shuffled, out)
    yield "A sum in another order is rounded differently: use allclose, not equal", torch.equal(shuffled, others)
    yield "You always said True: is the order really changed, and are the outputs compared?", True
    rolled = torch.allclose(model(tokens.roll(1, 1)), out.roll(1, 1))
    yield "Neighbours stay neighbours in your order; take one that parts them: torch.randperm", rolled
    truth = "shuffled tokens give the same outputs, shuffled alike" if right else "there the order makes a difference"
    yield f"You said {got} of a model that {model.__doc__}: {truth}"
