"""Notebooks 08 and 10: the loss, the learning rate, confusions; another's weights in our layout."""

import math

import torch
from torch import tensor
from torch.nn.functional import one_hot

from vit_walkthrough.exercises.check import exercise, randn

LARGE = tensor([[200.0, 198.0, 0.0], [0.0, 1.0, 2.0]])


@exercise(
    cases=[
        (tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]]), tensor([0, 2])),
        (2 * randn(3, 4), tensor([3, 0, 0])),
        (2 * randn(5, 2, seed=1), tensor([1, 0, 1, 1, 0])),
        (LARGE, tensor([0, 1])),
        (LARGE, tensor([2, 1])),
        (200.0 * one_hot(tensor([2]), 10), tensor([2])),  # e to the power of 200 less their mean is infinite too
    ],
    holds="The mean of minus the logarithm of the right class's probability, for logits of 200 too.",
)
def check_cross_entropy(logits, labels):
    """yours(logits, labels): the mean cross-entropy, a tensor, of logits (batch classes) in float32, labels (batch)."""
    right = torch.arange(len(labels)), labels
    log_probs, probs, powers = logits.log_softmax(1), logits.softmax(1), logits.exp()
    losses = -log_probs[right]
    quotients = powers / powers.sum(1, keepdim=True)
    got = yield losses.mean()
    yield "The softmax ran over the batch; let it run over the classes, axis 1", -logits.log_softmax(0)[right].mean()
    yield "That is the sum over the batch; take the mean, or the loss would grow with the batch", losses.sum()
    yield "The logarithm is missing: take it of each image's probability", -probs[right].mean()
    yield "The softmax is missing: the logits are no logarithms of probabilities", -logits[right].mean()
    for too_large in (-quotients[right].log().mean(), (powers.sum(1).log() - logits[right]).mean()):
        yield "e to the power of 200 is infinite in float32. Subtract each row's largest logit first", too_large
    yield "e^-200 becomes 0, and its logarithm -infinity; take logit - log(sum of exp)", -probs[right].log().mean()
    if losses.mean() > 50 and 0 < got < losses.mean():
        yield "A small number replaces a probability of 0, so the loss is cut off. Subtract: logit - log(sum of exp)"


def _all_rates(yours, step, *settings):
    """The reader's rate at each step."""
    rates = [yours(number, *settings) for number in step]
    unfilled = [rate for rate in rates if rate is None or rate is ...]
    return unfilled[0] if unfilled else tensor([float(rate) for rate in rates])


@exercise(
    cases=[(range(10), 10, 4, 1.0), (range(16), 16, 5, 0.5), (range(13), 13, 2, 1.75)],
    axes="steps",
    holds="Up in a straight line to the peak, then down along half a cosine, and every step counts.",
    run=_all_rates,
)
def check_learning_rate(step, steps, warmup, peak):
    """yours(step, steps, warmup, peak): the learning rate at a step, from 0. In `warmup` equal stairs from
    peak / warmup up to the peak; then half a cosine, from the peak at step `warmup` to what would be 0 at `steps`."""
    step = tensor(step)
    rise, done = (step + 1) / warmup, (step - warmup) / (steps - warmup)

    def rates(fall, rise=rise):
        return peak * rise.where(step < warmup, fall)

    def wave(share):
        return (1 + (math.pi * share).cos()) / 2

    got = yield rates(wave(done))
    yield "Step 0 has the rate 0, so it changes nothing; begin with peak / warmup", rates(wave(done), step / warmup)
    yield "The rate jumps down after the warm-up: let the cosine begin there, not at step 0", rates(wave(step / steps))
    yield "The cosine lowers the warm-up too; let it begin afterwards", peak * rise.clamp(max=1) * wave(step / steps)
    yield "The rate does not fall to 0: divide by steps - warmup, not by steps", rates(wave((step - warmup) / steps))
    yield "The rate falls in a straight line; let it fall along half a cosine", rates(1 - done)
    yield "The rate goes below 0, because a cosine goes from 1 to -1. Add 1 and halve it", rates(2 * wave(done) - 1)
    if not torch.allclose(got[:warmup], peak * rise[:warmup]):
        yield f"The warm-up is wrong: step 0 takes peak / warmup, and step {warmup - 1}, its last, takes the peak"
    yield f"The warm-up is right, but the fall is wrong: it is half a cosine, from the peak at step {warmup}"


@exercise(
    cases=[
        (tensor([[4.0, 1.0], [3.0, 0.0], [5.0, 2.0], [0.0, 1.0], [2.0, 1.0]]), tensor([0, 0, 0, 0, 1])),
        (randn(12, 3), randn(12, 3, seed=1).argmax(1)),
        (randn(31, 5), randn(31, 5, seed=1).argmax(1)),
    ],
    axes="labels guesses",
    holds="A row for each label: what its images were taken for. On the diagonal stands each class's accuracy.",
)
def check_confusions(logits, labels):
    """yours(logits, labels): of the images with a label (the rows), the share that was taken for each class (the
    columns): (labels guesses). Every class occurs among the labels."""
    has_label, has_guess = one_hot(labels).float(), one_hot(logits.argmax(1), logits.shape[1]).float()
    counts = has_label.mT @ has_guess
    images, seen = counts.sum(1, keepdim=True), counts.sign()
    of_guess = counts / counts.sum(0).clamp(min=1)
    yield counts / images
    yield "Rows and columns are exchanged: a row belongs to a label, a column to a guess", (counts / images).mT
    yield "Each column sums to 1; divide each row by the number of images with its label", of_guess
    yield "Columns were divided, not rows, because sum(1) loses its axis; use keepdim=True", counts / images[:, 0]
    yield "Those are counts; divide each row by the number of images with its label", counts
    yield "Divided by the number of all images; divide each row by its own", counts / len(labels)
    once = "Each pair was counted only once, as counts[labels, guesses] += 1 does; count image by image, in a loop"
    yield once, seen / seen.sum(1, keepdim=True)
    yield once, seen / images


@exercise(
    cases=[(torch.arange(36.0).reshape(2, 3, 6),), (randn(3, 2, 6),), (randn(4, 5, 20),)],
    axes="dim dim",
    holds="Row by row what goes out, column by column what comes in, head after head.",
)
def check_projection(kernel):
    """yours(kernel): Google's kernel of the projection after the heads (heads head_dim dim) as our weight (dim dim)."""
    dim = kernel.shape[-1]

    def square(*order):
        return kernel.permute(order).reshape(dim, dim)

    yield square(2, 0, 1)
    yield "Not transposed: theirs is (in, out), torch's Linear keeps (out, in)", square(0, 1, 2)
    yield "The columns are mixed up: first come all numbers of head 0, then all of head 1", square(2, 1, 0)
    yield "Each head was transposed by itself; the heads must stand side by side, in the columns", square(0, 2, 1)


@exercise(
    cases=[
        (tensor([[1.0, 2, 3], [4, 5, 6]]), tensor([10.0, 20]), tensor([0.5, 0.25, 0.75]), tensor([0.5, 0.25, 0.125])),
        (randn(2, 12), randn(2, seed=1), randn(3, seed=2).sigmoid(), randn(3, seed=3).sigmoid()),
        (randn(5, 27), randn(5, seed=1), randn(3, seed=2).sigmoid(), randn(3, seed=3).sigmoid()),
    ],
    axes=("weight (dim patch_dim)", "bias (dim)"),
    holds="This layer makes of raw pixels what the other made of prepared ones, channel by channel.",
)
def check_folded(weight, bias, mean, std):
    """yours(weight, bias, mean, std): weight (dim patch_dim) and bias (dim) that make of raw pixels what the given ones
    make of pixels less the mean, divided by the std, of their channel (channels)."""
    pixels = weight.shape[1] // len(mean)
    means, stds = mean.repeat_interleave(pixels), std.repeat_interleave(pixels)
    last_means, last_stds = mean.repeat(pixels), std.repeat(pixels)
    folded, shift = weight / stds, weight @ (means / stds)
    right = bias - shift
    channels_last = weight / last_stds, bias - weight @ (last_means / last_stds)
    yield folded, right
    yield "The weight was multiplied by std; divide it, as the pixels are divided", (weight * stds, right)
    yield "The mean went into the bias with the wrong sign; subtract it, as from the pixels", (folded, bias + shift)
    yield "In the bias the mean is not divided by std: subtract new weight @ mean", (folded, bias - weight @ means)
    yield "The bias is as it was; the mean shifts each output, so subtract that shift", (folded, bias)
    yield "The weight is as it was; divide it by std, as the pixels are divided", (weight, right)
    yield "The channels were laid out last; a patch is (channels ph pw), all pixels of red first", channels_last
