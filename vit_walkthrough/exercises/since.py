"""Notebooks 11 and 12: turned pairs, windows, and the losses of two other ways to learn."""

import torch
from torch import tensor

from vit_walkthrough.exercises.check import exercise, randn


@exercise(
    cases=[
        (tensor([[1.0, 0, 0, 2], [3, 0, 0, 4]]), torch.pi / 2 * tensor([[0.0, 1], [1, 2]])),
        (randn(3, 8), randn(3, 4, seed=1)),
    ],
    axes="tokens head_dim",
    holds="Every pair of neighbours is turned by its own angle, and keeps its length.",
)
def check_turn(vectors, angles):
    """yours(vectors, angles): vectors (tokens head_dim) of which each pair of neighbours, numbers 0 and 1, 2 and 3 ...,
    is turned by its own of the angles (tokens pairs): (1, 0) by 90 degrees becomes (0, 1)."""
    first, second = vectors.unflatten(1, (-1, 2)).unbind(2)

    def turned(angle, one, other):
        return one * angle.cos() - other * angle.sin(), one * angle.sin() + other * angle.cos()

    def neighbours(*pair):
        return torch.stack(pair, 2).flatten(1)

    right = turned(angles, first, second)
    yield neighbours(*right)
    yield "They are turned the other way: (1, 0) must become (0, 1)", neighbours(*turned(-angles, first, second))
    yield "The halves came out one behind the other; the two numbers of a pair are neighbours", torch.cat(right, 1)
    halves = torch.cat(turned(angles, *vectors.chunk(2, 1)), 1)
    yield "Number k was paired with number k + head_dim / 2; here neighbours are a pair", halves
    only = neighbours(first * angles.cos(), second * angles.cos())
    yield "Each number was only multiplied by the cosine; it also gets the other one, times the sine", only
    alike = neighbours(*turned(angles[:1], first, second))
    yield "All tokens were turned by the angles of token 0; each token has its own", alike


@exercise(
    cases=[(torch.arange(24.0).reshape(1, 24, 1), 4, 6, 2), (randn(2, 54, 3), 6, 9, 3), (randn(2, 8, 3), 2, 4, 1)],
    axes="windows patches dim",
    holds="Each window holds its own patches, in reading order.",
)
def check_to_windows(patches, rows, cols, side):
    """yours(patches, rows, cols, side): patches (batch rows*cols dim) in windows (batch*windows side*side dim): the
    windows of an image, and the patches of a window, in reading order."""
    grid = patches.unflatten(1, (rows // side, side, cols // side, side))  # batch down row across col dim

    def joined(*axes):
        return grid.permute(*axes).reshape(-1, side * side, patches.shape[2])

    yield joined(0, 1, 3, 2, 4, 5)
    yield "Only reshaped: a window got patches that follow one another in a row of the image", joined(0, 1, 2, 3, 4, 5)
    yield "The windows come column by column; reading order is row by row", joined(0, 3, 1, 2, 4, 5)
    yield "The patches of a window come column by column; reading order is row by row", joined(0, 1, 3, 4, 2, 5)
    yield "The first windows of all images come first; keep those of an image together", joined(1, 3, 0, 2, 4, 5)


BELIEVED, PATCHES = tensor([[[1.0, 2], [0, 4], [5, 5]]]), tensor([[[1.0, 0], [1, 4], [2, 1]]])
HIDDEN = tensor([[True, False, True]])


@exercise(
    cases=[(BELIEVED, PATCHES, HIDDEN), (randn(3, 4, 5), randn(3, 4, 5, seed=1), randn(1, 4, seed=7).expand(3, 4) > 0)],
    axes="",
    holds="The mean over all numbers of the hidden patches. What the model saw does not count.",
)
def check_hidden_error(believed, patches, hidden):
    """yours(believed, patches, hidden): the mean squared error on the hidden patches, a tensor of one number. believed,
    patches (batch patches patch_dim); hidden (batch patches) is True for a hidden patch."""
    off = believed - patches
    right = off[hidden].square().mean()
    yield right
    yield "The patches that the model saw are counted, too: it need only copy those", off.square().mean()
    yield "Those are the patches that the model saw; count the others", off[~hidden].square().mean()
    yield "That is the sum: divide by the numbers of the hidden patches", right * off[hidden].numel()
    yield "Divide by the numbers, not by the patches: each patch has patch_dim of them", right * off.shape[2]
    yield "That is the mean distance; square the differences", off[hidden].abs().mean()


@exercise(
    cases=[(tensor([[2.0, 0, 0]]), tensor([[4.0, 2, 0]]), 2.0), (randn(4, 5), 3 * randn(4, 5, seed=1), 3.0)],
    axes="",
    holds="The student is measured by all that the teacher believes, not by its first choice alone.",
)
def check_soft_loss(student, teacher, temperature):
    """yours(student, teacher, temperature): the soft loss of distillation, a tensor of one number. The logits of both
    (batch classes) are divided by the temperature, and the mean cross-entropy is multiplied by its square."""

    def loss(student, believed):
        return -(believed * student.log_softmax(-1)).sum(-1).mean()

    believed, at = (teacher / temperature).softmax(-1), student / temperature
    yield temperature**2 * loss(at, believed)
    yield "The factor of temperature squared is missing: without it the gradients shrink", loss(at, believed)
    yield "The student's logits must be divided by the temperature, too", temperature**2 * loss(student, believed)
    hot, hard = teacher.softmax(-1), (teacher == teacher.amax(-1, keepdim=True)).float()
    yield "The teacher's logits must be divided by the temperature, too", temperature**2 * loss(at, hot)
    swapped = temperature**2 * loss(teacher / temperature, at.softmax(-1))
    yield "The two have changed places: the teacher gives the probabilities", swapped
    yield "That is the teacher's first choice alone, the hard loss", temperature**2 * loss(at, hard)
    yield "Sum over the classes, and take the mean over the images", temperature**2 * loss(at, believed) / len(hot[0])
