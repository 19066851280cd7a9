"""Notebook 00: how many tokens, where the class token looks, and what comes out."""

from torch import tensor

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
