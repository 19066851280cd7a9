"""Notebook 08."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from tests.exercises.trials import test_in_time, test_right_answers_pass, test_wrong_answers_get_their_sentence  # noqa: F401
from vit_walkthrough.exercises import (
    check_clip,
    check_confusions,
    check_cross_entropy,
    check_learning_rate,
)
from vit_walkthrough.train.loop import schedule


def loss_in_loops(logits, labels):
    total = 0.0
    for scores, label in zip(logits.tolist(), labels.tolist(), strict=True):
        largest = max(scores)
        total += largest + math.log(sum(math.exp(score - largest) for score in scores)) - scores[label]
    return torch.tensor(total / len(labels))


def loss_by_gather(logits, labels):
    return -logits.log_softmax(-1).gather(1, labels[:, None]).mean()


def loss_by_one_hot(logits, labels):
    chosen = F.one_hot(labels, logits.shape[1]).float()
    return torch.logsumexp(logits, 1).mean() - torch.einsum("bc,bc->b", logits, chosen).mean()


def loss_less(taken, from_label=True):
    """The loss with something else than each row's largest logit subtracted."""

    def loss(logits, labels):
        left = logits - taken(logits)
        right = (left if from_label else logits).gather(1, labels[:, None])[:, 0]
        return (left.exp().sum(1).log() - right).mean()

    return loss


def loss_by_division(logits, labels):
    return -(logits.exp() / logits.exp().sum(1, keepdim=True)).gather(1, labels[:, None]).log().mean()


def loss_of_probabilities(change):
    def loss(logits, labels):
        return -change(logits.softmax(1).gather(1, labels[:, None])).log().mean()

    return loss


def with_rates(fall, rise=lambda step, warmup: (step + 1) / warmup, peak=lambda peak: peak):
    """An answer to check_learning_rate from the share of the peak, fall(step, steps, warmup), after the warm-up."""

    def learning_rate(step, steps, warmup, highest):
        return peak(highest) * (rise(step, warmup) if step < warmup else fall(step, steps, warmup))

    return learning_rate


def wave(done):
    return 0.5 + 0.5 * math.cos(done * math.pi)


def stairs(step, steps, warmup, peak):
    up = torch.linspace(0, peak, warmup + 1)[1:]
    down = peak * (1 + torch.linspace(0, math.pi, steps - warmup + 1)[:-1].cos()) / 2
    return torch.cat([up, down])[step]


def interpolated(step, steps, warmup, peak):
    if step < warmup:
        return torch.lerp(torch.tensor(0.0), torch.tensor(peak), (step + 1) / warmup)
    return peak * math.sin(math.pi / 2 * (steps - step) / (steps - warmup)) ** 2


def with_factor(factor):
    def clip(weight, bias, longest):
        scale = factor(torch.cat([weight.flatten(), bias]), longest)
        return weight * scale, bias * scale

    return clip


def clip_by_torch(weight, bias, longest):
    parameters = [nn.Parameter(torch.zeros_like(part)) for part in (weight, bias)]
    for parameter, gradient in zip(parameters, (weight, bias), strict=True):
        parameter.grad = gradient.clone()
    nn.utils.clip_grad_norm_(parameters, longest)
    return tuple(parameter.grad for parameter in parameters)


def clip_in_loops(weight, bias, longest):
    squares = 0.0
    for row in weight:
        for number in row:
            squares += number.item() ** 2
    for number in bias:
        squares += number.item() ** 2
    if squares > longest**2:
        return [weight * longest / squares**0.5, bias * longest / squares**0.5]
    return [weight, bias]


def each_by_itself(weight, bias, longest):
    return tuple(part * (longest / part.norm()).clamp(max=1) for part in (weight, bias))


def table(logits, labels):
    """How often: (labels guesses)."""
    said = F.one_hot(logits.argmax(1), logits.shape[1]).float()
    return torch.einsum("bl,bg->lg", F.one_hot(labels, logits.shape[1]).float(), said)


def shares_in_loops(logits, labels):
    shares = torch.zeros(logits.shape[1], logits.shape[1])
    for label in range(logits.shape[1]):
        guesses = logits[labels == label].argmax(-1)
        for guess in range(logits.shape[1]):
            shares[label, guess] = (guesses == guess).sum() / len(guesses)
    return shares


def shares_by_index(logits, labels):
    counts = torch.zeros(logits.shape[1], logits.shape[1])
    counts.index_put_((labels, logits.argmax(1)), torch.tensor(1.0), accumulate=True)
    return counts / counts.sum(1, keepdim=True)


def shares_by_bincount(logits, labels):
    classes = logits.shape[1]
    counts = torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2).view(classes, classes)
    return counts / counts.sum(1)[:, None]


def ten_by_ten(logits, labels, least=0):
    counts = torch.zeros(10, 10).index_put_((labels, logits.argmax(1)), torch.tensor(1.0), accumulate=True)
    return counts / counts.sum(1, keepdim=True).clamp(min=least)


def written_once(logits, labels):
    counts = torch.zeros(logits.shape[1], logits.shape[1])
    counts[labels, logits.argmax(1)] += 1
    return counts


RIGHT = {
    check_cross_entropy: {
        "loops": loss_in_loops,
        "gather": loss_by_gather,
        "einsum": loss_by_one_hot,
        "torch": F.cross_entropy,
    },
    check_learning_rate: {
        "cosine": with_rates(lambda step, steps, warmup: wave((step - warmup) / (steps - warmup))),
        "tensor": stairs,
        "interpolated": interpolated,
        "float32": lambda step, steps, warmup, peak: stairs(step, steps, warmup, peak).numpy()[()],
        "package": lambda step, steps, warmup, peak: peak * schedule(step, steps, warmup / steps),
    },
    check_clip: {
        "loops": clip_in_loops,
        "torch": clip_by_torch,
        "row": with_factor(lambda row, longest: min(1, longest / row.norm())),
        "norm of norms": lambda weight, bias, longest: [
            part * (longest / torch.stack([weight.norm(), bias.norm()]).norm()).clamp(max=1) for part in (weight, bias)
        ],
    },
    check_confusions: {
        "loops": shares_in_loops,
        "einsum": lambda logits, labels: table(logits, labels) / table(logits, labels).sum(1, keepdim=True),
        "index": shares_by_index,
        "bincount": shares_by_bincount,
    },
}

WRONG = {
    check_cross_entropy: {
        "over the batch": (
            lambda logits, labels: -logits.log_softmax(0).gather(1, labels[:, None]).mean(),
            "The softmax ran over the batch",
        ),
        "over the batch, too large": (
            lambda logits, labels: -(logits.exp() / logits.exp().sum(0)).log().gather(1, labels[:, None]).mean(),
            "The softmax ran over the batch",
        ),
        "sum": (lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum"), "The sum over the batch"),
        "no minus": (lambda logits, labels: -loss_by_gather(logits, labels), "The minus is missing"),
        "base 2": (
            lambda logits, labels: -logits.softmax(1).log2().gather(1, labels[:, None]).mean(),
            "The logarithm is the one to base 2",
        ),
        "base 10": (
            lambda logits, labels: -logits.double().softmax(1).log10().gather(1, labels[:, None]).mean().float(),
            "The logarithm is the one to base 10",
        ),
        "less the mean": (loss_less(lambda logits: logits.mean(1, keepdim=True)), "The mean of a row was subtracted"),
        "less the batch's largest": (loss_less(torch.max), "every power is rounded to 0: the logarithm of 0"),
        "less the batch's largest, divided": (
            lambda logits, labels: loss_by_division(logits - logits.max(), labels),
            "every power is rounded to 0: 0 over 0 is NaN",
        ),
        "less the largest in the sum alone": (
            loss_less(lambda logits: logits.amax(1, keepdim=True), from_label=False),
            "The largest logit was subtracted in the sum of exp, but not",
        ),
        "small number": (loss_of_probabilities(lambda p: p + 1e-9), "A small number stands in for a probability"),
        "clamped": (loss_of_probabilities(lambda p: p.clamp(min=1e-12)), "A small number stands in for a probability"),
        "all classes": (lambda logits, labels: -logits.log_softmax(1).mean(), "The mean ran over all classes"),
        "one hot": (
            lambda logits, labels: -(logits.log_softmax(1) * F.one_hot(labels, logits.shape[1])).mean(),
            "Divided by batch * classes",
        ),
        "probability": (
            lambda logits, labels: logits.softmax(1).gather(1, labels[:, None]).mean(),
            "That is the mean probability",
        ),
        "no logarithm": (lambda logits, labels: F.nll_loss(logits.softmax(1), labels), "That is minus the mean prob"),
        "logarithm of the mean": (
            lambda logits, labels: -logits.softmax(1).gather(1, labels[:, None]).mean().log(),
            "The logarithm was taken of the mean probability",
        ),
        "all pairs": (
            lambda logits, labels: -logits.log_softmax(1)[:, labels].mean(),
            "Every image was paired with every label",
        ),
        "no softmax": (lambda logits, labels: F.nll_loss(logits, labels), "The logits themselves were taken"),
        "two softmaxes": (lambda logits, labels: F.cross_entropy(logits.softmax(-1), labels), "Two softmaxes"),
        "no mean": (
            lambda logits, labels: F.cross_entropy(logits, labels, reduction="none"),
            "That is a loss for each image",
        ),
        "as in the notebook": (
            loss_by_division,
            "e to the power of 200 is infinite in float32, and infinite over infinite is NaN",
        ),
        "sum too large": (
            lambda logits, labels: (logits.exp().sum(1).log() - logits.gather(1, labels[:, None])[:, 0]).mean(),
            "e to the power of 200 is infinite in float32, and so is the logarithm of the sum",
        ),
        "softmax, then log": (
            lambda logits, labels: -logits.softmax(1).log().gather(1, labels[:, None]).mean(),
            "A probability of e^-200 is rounded to 0",
        ),
        "float": (lambda logits, labels: F.cross_entropy(logits, labels).item(), "returned a float, expected a tensor"),
        "smoothed": (
            lambda logits, labels: F.cross_entropy(logits, labels, label_smoothing=0.1),
            "returned the right shape, but wrong numbers",
        ),
    },
    check_learning_rate: {
        "from zero": (
            with_rates(lambda t, n, w: wave((t - w) / (n - w)), rise=lambda step, warmup: step / warmup),
            "Step 0 has the rate 0",
        ),
        "cosine from step 0": (with_rates(lambda t, n, w: wave(t / n)), "After the warm-up the rate jumps down"),
        "product": (
            lambda t, n, w, peak: peak * min((t + 1) / w, 1) * wave(t / n),
            "and was multiplied with the warm-up",
        ),
        "over all steps": (with_rates(lambda t, n, w: wave((t - w) / n)), "The rate does not come down to 0"),
        "straight": (with_rates(lambda t, n, w: (n - t) / (n - w)), "The fall is a straight line"),
        "below zero": (with_rates(lambda t, n, w: math.cos(math.pi * (t - w) / (n - w))), "The rate goes below 0"),
        "quarter": (
            with_rates(lambda t, n, w: math.cos(math.pi / 2 * (t - w) / (n - w))),
            "The rate falls steeply at the end",
        ),
        "rising": (with_rates(lambda t, n, w: 1 - wave((t - w) / (n - w))), "the rate starts at 0 and rises"),
        "twice": (with_rates(lambda t, n, w: 2 * wave((t - w) / (n - w))), "The rate rises to twice the peak"),
        "zero at the last": (with_rates(lambda t, n, w: wave((t - w) / (n - 1 - w))), "The last step has the rate 0"),
        "one early": (with_rates(lambda t, n, w: wave((t - w + 1) / (n - w))), "The fall begins one step early"),
        "no peak": (
            with_rates(lambda t, n, w: wave((t - w) / (n - w)), peak=lambda peak: 1),
            "The peak is missing",
        ),
        "no warm-up": (lambda t, n, w, peak: peak * wave(t / n), "There is no warm-up"),
        "no fall": (lambda t, n, w, peak: min(peak, peak * (t + 1) / w), "The rate stays at the peak"),
        "wrong rise": (
            with_rates(lambda t, n, w: wave((t - w) / (n - w)), rise=lambda step, warmup: ((step + 1) / warmup) ** 2),
            "The warm-up is wrong",
        ),
        "jump": (with_rates(lambda t, n, w: 0.5 * wave((t - w) / (n - w))), "The fall does not begin at the peak"),
        "steep": (with_rates(lambda t, n, w: ((n - t) / (n - w)) ** 2), "on the way down the rates are wrong"),
        "far below zero": (with_rates(lambda t, n, w: 1 - (t - w) / 2), "The rate is below 0"),
    },
    check_clip: {
        "each by itself": (each_by_itself, "Each gradient was clipped by itself"),
        "each number": (
            lambda weight, bias, longest: (weight.clamp(-longest, longest), bias.clamp(-longest, longest)),
            "Every number was cut off by itself",
        ),
        "always": (with_factor(lambda row, longest: longest / row.norm()), "A short gradient was made longer"),
        "no root": (
            with_factor(lambda row, longest: min(1, longest / row.square().sum())),
            "The length lacks its root",
        ),
        "absolute values": (
            with_factor(lambda row, longest: min(1, longest / row.norm(p=1))),
            "The absolute values were added",
        ),
        "largest": (
            with_factor(lambda row, longest: min(1, longest / row.abs().max())),
            "The largest number was taken for the length",
        ),
        "sum of lengths": (
            lambda weight, bias, longest: tuple(
                part * min(1, longest / (weight.norm() + bias.norm())) for part in (weight, bias)
            ),
            "The two lengths were added",
        ),
        "to 1": (
            with_factor(lambda row, longest: 1 / row.norm() if row.norm() > longest else 1),
            "Divided by the length, but not multiplied",
        ),
        "nothing": (lambda weight, bias, longest: (weight, bias), "Nothing was scaled"),
        "in place": (lambda weight, bias, longest: (weight.div_(2), bias), "changes its input weight in place"),
        "half": (with_factor(lambda row, longest: 0.5), "The direction is right, but together they are"),
        "weight alone": (
            lambda weight, bias, longest: (
                with_factor(lambda row, most: min(1, most / row.norm()))(weight, bias, longest)[0],
                bias,
            ),
            "The direction has changed",
        ),
        "one of them": (
            lambda weight, bias, longest: weight,
            "returned a tensor of shape (2, 2), expected two tensors, weight and bias",
        ),
        "exchanged": (
            lambda weight, bias, longest: clip_by_torch(weight, bias, longest)[::-1],
            "returned weight as (2,), expected (2, 2); first weight, then bias",
        ),
    },
    check_confusions: {
        "swapped": (lambda x, y: shares_by_index(x, y).T, "Rows and columns are swapped: a row"),
        "of guesses": (
            lambda x, y: table(x, y) / table(x, y).sum(0).clamp(min=1),
            "The columns sum to 1",
        ),
        "of guesses, swapped": (
            lambda x, y: (table(x, y) / table(x, y).sum(0).clamp(min=1)).T,
            "Rows and columns are swapped, and each row divided",
        ),
        "columns": (lambda x, y: table(x, y) / table(x, y).sum(1), "Column 0 was divided by the number of images"),
        "counts": (table, "Those are counts"),
        "of all": (lambda x, y: table(x, y) / len(x), "Divided by the number of all images"),
        "written once": (
            lambda x, y: written_once(x, y) / written_once(x, y).sum(1, keepdim=True),
            "However often a pair occurs, it was counted once: counts",
        ),
        "lost": (
            lambda x, y: written_once(x, y) / y.bincount()[:, None],
            "However often a pair occurs, it was counted once, so the rows",
        ),
        "probabilities": (
            lambda x, y: F.one_hot(y).float().T @ x.softmax(1) / y.bincount()[:, None],
            "Those are mean probabilities",
        ),
        "ten classes": (ten_by_ten, "The table is 10 by 10, but there are fewer classes here, and a row"),
        "ten classes, no NaN": (lambda x, y: ten_by_ten(x, y, 1), "The table is 10 by 10, but there are fewer classes"),
        "half": (lambda x, y: shares_by_index(x, y) / 2, "Row 0 sums to 0.5"),
        "smallest": (lambda x, y: shares_by_index(-x, y), "returned the right shape, but wrong numbers"),
    },
}
