"""Notebook 12: the losses of two other ways to learn."""

from torch import tensor

from vit_walkthrough.exercises.check import exercise, randn

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
