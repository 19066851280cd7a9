"""Notebook 00: how many tokens, what comes out, and where the class token looks."""

import torch
from torch import Tensor, tensor

from vit_walkthrough.exercises.check import Wrong, exercise, randn, shares


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
    yield "The image was taken for a square: count the rows from its height, not from its width", cols * cols + 1
    yield "A patch has patch_size * patch_size pixels; divide by both", height * width // patch_size + 1
    yield "The rows and the cols were added; a grid has rows * cols patches", rows + cols + 1


@exercise(
    cases=[
        (tensor([[0.0, 1, 3], [4, 0, -1]]),),
        ((4 * randn(3, 5)).round(),),
        (tensor([[1000.0, 800], [-1000, -800]]),),
    ],
    axes="batch classes",
    holds="Every row sums to 1, a larger logit gets a larger share, and logits of 1,000 do no harm.",
)
def check_probabilities(logits):
    """yours(logits): the softmax of the logits (batch classes) of every image, (batch classes)."""
    exponentials, less_the_largest = logits.exp(), (logits - logits.amax(-1, keepdim=True)).exp()
    less_of_all, cut_off = (logits - logits.max()).exp(), logits.clamp(-80, 80).softmax(-1)
    got = yield shares(less_the_largest)
    yield "Each column sums to 1: sum over the classes, the last axis, not over the images", logits.softmax(0)
    yield "Those are the exponentials alone: divide each by the sum of its row", exponentials
    yield "A logit may be negative, so it is no share: take its exponential first", shares(logits)
    yield "A sigmoid judges each class alone: divide each exponential by the sum of its row", logits.sigmoid()
    yield "The exponential of 1,000 is infinite. Subtract each row's largest logit first", shares(exponentials)
    yield "The largest logit of all was subtracted. Subtract each row's own, or a row may be 0", shares(less_of_all)
    yield "Large logits were cut off, so that 1,000 and 800 count the same: subtract the row's largest", cut_off
    for image, total in enumerate(got.sum(-1).tolist()):
        if abs(total - 1) > 1e-4:
            yield f"Row {image} sums to {total:.4g}, but the probabilities of one image must sum to 1"
    yield "Every row sums to 1, but the shares are wrong: divide the exponential of each logit by the sum of its row"


def _places(yours, attention):
    """The reader's answer, unless it is weights."""
    got = yours(attention)
    if isinstance(got, Tensor) and got.is_floating_point() and not torch.equal(got, got.round()):
        raise Wrong("Those are the weights, not the places. max gives the largest weight; argmax says where it stands")
    return got


def _looking_at_itself(*sizes):
    """Attention in which the class token, like every token, looks most at the class token."""
    return (randn(*sizes) + 4 * (torch.arange(sizes[-1]) == 0)).softmax(-1)


TWO_BLOCKS = tensor([
    [[0.4, 0.1, 0.2, 0.3], [0.1, 0.5, 0.1, 0.3], [0.1, 0.1, 0.6, 0.2], [0.2, 0.2, 0.1, 0.5]],
    [[0.5, 0.1, 0.3, 0.1], [0.3, 0.2, 0.1, 0.4], [0.2, 0.1, 0.1, 0.6], [0.4, 0.1, 0.1, 0.4]],
])[:, None, None]  # fmt: skip


@exercise(
    cases=[(TWO_BLOCKS,), (_looking_at_itself(3, 4, 3, 10, 10),), (_looking_at_itself(2, 5, 4, 12, 12),)],
    axes="batch",
    holds="Last block, heads averaged, from query 0 to the keys of patches: there the class token looks most.",
    run=_places,
)
def check_most_attended(attention):
    """yours(attention): of attention (blocks batch heads queries keys), for every image the number of the patch at
    which the class token looks most in the last block, its heads averaged, (batch)."""
    last, first_head = attention[-1].mean(1), attention[-1, :, 0]
    first_block, all_blocks = attention[0].mean(1), attention.mean((0, 2))

    def most(of_queries):
        return of_queries[:, 0, 1:].argmax(-1)

    place, of_all = last[:, 0].argmax(-1), last.mean(1, keepdim=True)
    yield most(last)
    yield "Each is one too many: the class token has place 0, so patch k stands at place k + 1", most(last) + 1
    yield "All are 0: the class token looks most at itself. Leave its place out, then ask for the largest", place
    yield "All are -1: leave the class token's place out before you ask for the largest, not after", place - 1
    yield "Those patches look most at the class token; where it looks itself is row 0 of the queries", most(last.mT)
    yield "Those are of the first block; the last one is attention[-1]", most(first_block)
    yield "Those are of all blocks together; take the last one alone", most(all_blocks)
    yield "Those are of the first head alone: average the heads before you ask for the largest", most(first_head)
    yield "Those are where all tokens together look; take the class token alone, query 0", most(of_all)
