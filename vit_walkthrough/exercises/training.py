"""Notebook 08: the loss, the learning rate, the clipping, and which class is taken for which."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vit_walkthrough.exercises.examine import Wrong, beside, both, called, examine, named

# ------------------------------------------------------------------------------------------------ the loss


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each image."""
    losses = []
    for scores, label in zip(logits, labels, strict=True):
        largest = max(scores)
        total = sum(math.exp(score - largest) for score in scores)
        losses.append(math.log(total) - (scores[label] - largest))
    return np.array(losses)


def _mean_loss(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.array(_losses(logits, labels).mean())


def _log_softmax(logits: np.ndarray, axis: int) -> np.ndarray:
    logits = logits - logits.max(axis, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis, keepdims=True))


def _of_labels(table: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return table[np.arange(len(labels)), labels]


def _too_large(logits: np.ndarray, labels: np.ndarray, inside: bool) -> np.floating:
    """As float32 computes it, where e to the power of 89 is infinite."""
    with np.errstate(all="ignore"):
        powers = np.exp(logits.astype(np.float32))
        if inside:
            return (np.log(powers.sum(1)) - _of_labels(logits, labels)).mean()
        return -np.log(_of_labels(powers / powers.sum(1, keepdims=True), labels)).mean()


def _rounded_to_nothing(logits: np.ndarray, labels: np.ndarray) -> np.floating:
    with np.errstate(all="ignore"):
        powers = np.exp((logits - logits.max(1, keepdims=True)).astype(np.float32))
        return -np.log(_of_labels(powers / powers.sum(1, keepdims=True), labels)).mean()


def _less(logits: np.ndarray, labels: np.ndarray, taken: Callable, inside: bool) -> np.floating:
    """As float32 computes it when `taken(logits)`, and not each row's largest, is subtracted."""
    return _too_large(logits - taken(logits), labels, inside)


def _about_loss(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    if expected > 50 and 0 < got < expected:
        return (
            "A small number stands in for a probability that was rounded to 0, so the loss is cut off. Do not divide "
            "and take the logarithm, but subtract: logit - log(sum of exp)"
        )
    return None


def check_cross_entropy(yours: Callable, seed: int = 0) -> None:
    """yours(logits, labels): the mean cross-entropy, a tensor of one number, of logits (batch classes) in float32 and
    labels (batch)."""
    generator = torch.Generator().manual_seed(seed)
    cases = [dict(logits=torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]]), labels=torch.tensor([0, 2]))]
    for batch, classes in ((3, 4), (5, 2)):
        logits = 2 * torch.randn(batch, classes, generator=generator)
        cases.append(dict(logits=logits, labels=torch.randint(classes, (batch,), generator=generator)))
    cases.append(dict(logits=torch.tensor([[200.0, 198.0, 0.0], [0.0, 1.0, 2.0]]), labels=torch.tensor([0, 1])))
    cases.append(dict(logits=torch.tensor([[200.0, 198.0, 0.0], [0.0, 1.0, 2.0]]), labels=torch.tensor([2, 1])))
    cases.append(dict(logits=200.0 * (torch.arange(10) == 2)[None], labels=torch.tensor([2])))

    mistakes = {
        "The softmax ran over the batch, so the images compete; it must run over the classes, the last axis": (
            lambda logits, labels: -_of_labels(_log_softmax(logits, 0), labels).mean()
        ),
        "The sum over the batch: a loss is the mean, or it would grow with the batch": (
            lambda logits, labels: _losses(logits, labels).sum()
        ),
        "The minus is missing: a logarithm of a probability is never above 0, and a loss is never below": (
            lambda logits, labels: -_losses(logits, labels).mean()
        ),
        "The logarithm is the one to base 2; take the natural one, torch.log": (
            lambda logits, labels: _losses(logits, labels).mean() / math.log(2)
        ),
        "The logarithm is the one to base 10; take the natural one, torch.log": (
            lambda logits, labels: _losses(logits, labels).mean() / math.log(10)
        ),
        "The largest logit was subtracted in the sum of exp, but not from the right class's logit. Subtract it first "
        "of all, and use what is left in both places": (
            lambda logits, labels: (_losses(logits, labels) - logits.max(1)).mean()
        ),
        "The mean ran over all classes; only the right one of each image counts": (
            lambda logits, labels: -_log_softmax(logits, 1).mean()
        ),
        "Divided by batch * classes; each image gives one number, so divide by how many images there are": (
            lambda logits, labels: _losses(logits, labels).mean() / logits.shape[1]
        ),
        "That is the mean probability of the right classes; the loss is minus its logarithm": (
            lambda logits, labels: np.exp(-_losses(logits, labels)).mean()
        ),
        "That is minus the mean probability of the right classes: its logarithm is missing": (
            lambda logits, labels: -np.exp(-_losses(logits, labels)).mean()
        ),
        "The logarithm was taken of the mean probability; take it for each image, then the mean": (
            lambda logits, labels: -np.log(np.exp(-_losses(logits, labels)).mean())
        ),
        "Every image was paired with every label: [:, labels] gives (batch batch). Take of row i the entry labels[i]": (
            lambda logits, labels: -_log_softmax(logits, 1)[:, labels].mean()
        ),
        "The logits themselves were taken for logarithms of probabilities: the softmax is missing": (
            lambda logits, labels: -_of_labels(logits, labels).mean()
        ),
        "Two softmaxes: the probabilities went through another one": (
            lambda logits, labels: _losses(np.exp(_log_softmax(logits, 1)), labels).mean()
        ),
        "That is a loss for each image; return their mean": _losses,
        "The mean of a row was subtracted, and beside many small logits a large one stays large: e to the power of 180 "
        "is infinite in float32. Subtract each row's largest": (
            partial(_less, taken=lambda logits: logits.mean(1, keepdims=True), inside=True)
        ),
        "The largest logit of the whole batch was subtracted, and in the other rows every power is rounded to 0: the "
        "logarithm of 0 is minus infinity. Subtract each row's own largest": (
            partial(_less, taken=np.max, inside=True)
        ),
        "e to the power of 200 is infinite in float32, and infinite over infinite is NaN. Subtract each row's largest "
        "logit first: the probabilities stay the same": partial(_too_large, inside=False),
        "The largest logit of the whole batch was subtracted, and in the other rows every power is rounded to 0: 0 "
        "over 0 is NaN. Subtract each row's own largest": partial(_less, taken=np.max, inside=False),
        "e to the power of 200 is infinite in float32, and so is the logarithm of the sum. Subtract each row's "
        "largest logit first, and the loss stays the same": partial(_too_large, inside=True),
        "A probability of e^-200 is rounded to 0, and the logarithm of 0 is minus infinity. Do not divide and take "
        "the logarithm, but subtract: logit - log(sum of exp)": _rounded_to_nothing,
    }
    examine(
        yours,
        _mean_loss,
        cases,
        mistakes,
        diagnose=[_about_loss],
        holds="The mean of minus the logarithm of the right class's probability, for logits of 200 too.",
    )


# ------------------------------------------------------------------------------------------------ the learning rate


class _Words(str):
    """Shown without quotes."""

    __repr__ = str.__str__


def _rates(yours: Callable, step: str, steps: int, warmup: int, peak: float):
    """yours at every step: steps."""
    rates = []
    for number in range(steps):
        rate = yours(number, steps, warmup, peak)
        if rate is ... or rate is None:
            return rate
        if not isinstance(rate, (int, float, np.number, Tensor)):
            raise Wrong(f"{named(yours)} returned {called(rate)}, expected a number")
        rates.append(float(rate))
    return torch.tensor(rates)


def _rate(step: int, steps: int, warmup: int, peak: float) -> float:
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def _all_rates(step: str, steps: int, warmup: int, peak: float) -> np.ndarray:
    return np.array([_rate(number, steps, warmup, peak) for number in range(steps)])


def _half_wave(done):
    return (1 + np.cos(np.pi * done)) / 2


def _rise(step, steps, warmup):
    return (step + 1) / warmup


def _fall(step, steps, warmup):
    return _half_wave((step - warmup) / (steps - warmup))


def _shares(rise: Callable, fall: Callable, step: str, steps: int, warmup: int, peak: float) -> np.ndarray:
    """All rates, of two functions (step, steps, warmup): which share of the peak before `warmup`, and which after."""
    numbers = np.arange(steps)
    return peak * np.where(numbers < warmup, rise(numbers, steps, warmup), fall(numbers, steps, warmup))


def _about_rates(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    warmup, peak = case["warmup"], case["peak"]
    if (got < -1e-6).any():
        return f"The rate is below 0 at step {int(np.argmax(got < -1e-6))}: such a step would make the loss larger"
    if not np.allclose(got[:warmup], expected[:warmup], atol=1e-5):
        return f"The warm-up is wrong: step 0 takes peak / warmup, and step {warmup - 1}, the last of it, the peak"
    if abs(got[warmup] - peak) > 1e-5:
        return f"The fall does not begin at the peak: step {warmup}, the first after the warm-up, still takes it whole"
    return "The warm-up is right, and the fall begins at the peak, but on the way down the rates are wrong"


def _curves(expected: np.ndarray, got: np.ndarray):
    from vit_walkthrough.draw.plots import plot_curves, side_by_side

    axes = side_by_side(2, width=7, height=2.6)
    least, most = min(0, expected.min(), got.min()), max(expected.max(), got.max())
    for ax, rates, title in zip(axes, (expected, got), ("expected", "got"), strict=True):
        plot_curves({title: (np.arange(len(rates)), rates)}, xlabel="step", title=title, ax=ax)
        ax.set_ylim(least - 0.05 * (most - least), most + 0.05 * (most - least))
    return axes[0].figure


def check_learning_rate(yours: Callable, seed: int = 0) -> None:
    """yours(step, steps, warmup, peak): the learning rate at a step, from 0. In `warmup` equal stairs from
    peak / warmup up to the peak; then half a cosine, from the peak at step `warmup` to the 0 that step `steps` would
    have."""
    numbers = np.random.default_rng(seed)
    cases = []
    for steps, warmup, peak in (
        (10, 4, 1.0),
        (16, 5, 0.5),
        (int(numbers.integers(11, 20)), int(numbers.integers(2, 7)), float(numbers.integers(2, 9) / 4)),
    ):
        cases.append(dict(step=_Words(f"0 ... {steps - 1}"), steps=steps, warmup=warmup, peak=peak))

    mistakes = {
        "Step 0 has the rate 0, so it changes nothing: the warm-up begins with peak / warmup, so (step + 1) / warmup": (
            partial(_shares, lambda step, steps, warmup: step / warmup, _fall)
        ),
        "After the warm-up the rate jumps down: the cosine began at step 0. Let it begin at the end of the warm-up": (
            partial(_shares, _rise, lambda step, steps, warmup: _half_wave(step / steps))
        ),
        "The cosine ran from step 0 and was multiplied with the warm-up, so the peak is never reached. Let it begin at "
        "the end of the warm-up": lambda step, steps, warmup, peak: (
            peak * np.minimum(1, _rise(np.arange(steps), steps, warmup)) * _half_wave(np.arange(steps) / steps)
        ),
        "The rate does not come down to 0: the fall takes steps - warmup steps, not steps": (
            partial(_shares, _rise, lambda step, steps, warmup: _half_wave((step - warmup) / steps))
        ),
        "The fall is a straight line; asked is half a cosine": (
            partial(_shares, _rise, lambda step, steps, warmup: (steps - step) / (steps - warmup))
        ),
        "The rate goes below 0: a cosine goes from 1 to -1. Add 1 and halve it": (
            partial(_shares, _rise, lambda *case: 2 * _fall(*case) - 1)
        ),
        "The rate falls steeply at the end: that is a quarter of a wave. Half of one, (1 + cos(pi * ...)) / 2, also "
        "ends gently": partial(
            _shares, _rise, lambda step, steps, warmup: np.cos(np.pi / 2 * (step - warmup) / (steps - warmup))
        ),
        "After the warm-up the rate starts at 0 and rises: that is 1 - cos; asked is 1 + cos": (
            partial(_shares, _rise, lambda *case: 1 - _fall(*case))
        ),
        "The rate rises to twice the peak: 1 + cos goes from 2 to 0, so halve it": (
            partial(_shares, _rise, lambda *case: 2 * _fall(*case))
        ),
        "The last step has the rate 0, so it changes nothing: only step `steps`, one after the last, would have it": (
            partial(_shares, _rise, lambda step, steps, warmup: _half_wave((step - warmup) / (steps - warmup - 1)))
        ),
        "The fall begins one step early: step `warmup` still has the peak": (
            partial(_shares, _rise, lambda step, steps, warmup: _fall(step + 1, steps, warmup))
        ),
        "The peak is missing: those are shares of it, the largest is 1": (
            lambda step, steps, warmup, peak: _shares(_rise, _fall, step, steps, warmup, 1.0)
        ),
        "There is no warm-up: in the first steps the rate must rise": (
            lambda step, steps, warmup, peak: peak * _half_wave(np.arange(steps) / steps)
        ),
        "The rate stays at the peak: after the warm-up it must fall": partial(_shares, _rise, lambda *case: 1),
    }
    examine(
        partial(_rates, yours),
        _all_rates,
        cases,
        mistakes,
        axes="steps",
        written=yours,
        diagnose=[_about_rates],
        picture=_curves,
        holds="Up in a straight line to the peak, then down along half a cosine, and every step counts.",
    )


# ------------------------------------------------------------------------------------------------ the clipping


def _joined(yours: Callable, weight: Tensor, bias: Tensor, longest: float):
    """Both gradients that yours gives, in one row."""
    clipped = both(yours, yours(weight, bias, longest), weight=weight, bias=bias)
    if clipped is ... or clipped is None:
        return clipped
    return torch.cat([part.flatten() for part in clipped])


def _row(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return np.concatenate([weight.ravel(), bias.ravel()])


def _length(numbers: np.ndarray) -> float:
    return math.sqrt(sum(number**2 for number in numbers.ravel().tolist()))


def _clip(weight: np.ndarray, bias: np.ndarray, longest: float) -> np.ndarray:
    row = _row(weight, bias)
    return np.array([number * min(1, longest / _length(row)) for number in row])


def _each(weight: np.ndarray, bias: np.ndarray, longest: float) -> np.ndarray:
    return _row(*(part * min(1, longest / _length(part)) for part in (weight, bias)))


def _not_rooted(weight: np.ndarray, bias: np.ndarray, longest: float) -> np.ndarray:
    row = _row(weight, bias)
    return row * min(1, longest / _length(row) ** 2)


def _by_sum(weight: np.ndarray, bias: np.ndarray, longest: float) -> np.ndarray:
    row = _row(weight, bias)
    return row * min(1, longest / np.abs(row).sum())


def _by_largest(weight: np.ndarray, bias: np.ndarray, longest: float) -> np.ndarray:
    row = _row(weight, bias)
    return row * min(1, longest / np.abs(row).max())


def _by_both_lengths(weight: np.ndarray, bias: np.ndarray, longest: float) -> np.ndarray:
    return _row(weight, bias) * min(1, longest / (_length(weight) + _length(bias)))


def _about_direction(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    """What one sees of clipped gradients that none of the likely mistakes gives."""
    row = _row(case["weight"], case["bias"])
    if not got @ row >= (1 - 1e-4) * _length(got) * _length(row) > 0:
        return "The direction has changed: multiply all numbers of both gradients by the same factor"
    return f"The direction is right, but together they are {_length(got):.4g} long, expected {_length(expected):.4g}"


def check_clip(yours: Callable, seed: int = 0) -> None:
    """yours(weight, bias, longest): the gradients of a weight (classes dim) and of a bias (classes), both; scaled down
    by one factor if together they are longer than `longest`, else as they are."""
    generator = torch.Generator().manual_seed(seed)
    weight, bias = torch.tensor([[2.0, 4.0], [4.0, 0.0]]), torch.tensor([0.0, 8.0])  # 10 long
    cases = [
        dict(weight=weight, bias=bias, longest=5.0),
        dict(weight=weight / 10, bias=bias / 10, longest=2.0),  # and 1 long
        dict(weight=weight * 10, bias=bias / 10, longest=1.0),
    ]
    for classes, dim, longest in ((3, 5, 2.0), (4, 2, 50.0)):
        weight = 3 * torch.randn(classes, dim, generator=generator)
        cases.append(dict(weight=weight, bias=torch.randn(classes, generator=generator), longest=longest))

    mistakes = {
        "Each gradient was clipped by itself, so the two no longer stand to each other as they did. Take one length of "
        "both together, and one factor": _each,
        "Every number was cut off by itself, so the direction has changed; multiply all by one factor": (
            lambda weight, bias, longest: np.clip(_row(weight, bias), -longest, longest)
        ),
        "A short gradient was made longer: a length below `longest` stays as it is": (
            lambda weight, bias, longest: _row(weight, bias) * longest / _length(_row(weight, bias))
        ),
        "The length lacks its root: it is the root of the sum of the squares": _not_rooted,
        "The absolute values were added; a length is the root of the sum of the squares": _by_sum,
        "The largest number was taken for the length; it is the root of the sum of all squares": _by_largest,
        "The two lengths were added; put both into one row of numbers and take its length: the squares are added": (
            _by_both_lengths
        ),
        "Divided by the length, but not multiplied by `longest`: they are 1 long now": (
            lambda weight, bias, longest: (
                _row(weight, bias) / (_length(_row(weight, bias)) if _length(_row(weight, bias)) > longest else 1)
            )
        ),
        "Nothing was scaled: where they are too long, multiply by longest / length": (
            lambda weight, bias, longest: _row(weight, bias)
        ),
    }
    examine(
        partial(_joined, yours),
        _clip,
        cases,
        mistakes,
        axes="weight, then bias",
        written=yours,
        diagnose=[_about_direction],
        holds="Never longer than allowed, the direction kept, and a short gradient left alone.",
    )


# ------------------------------------------------------------------------------------------------ what it confuses


def _counts(logits: np.ndarray, labels: np.ndarray, axis: int = 1) -> np.ndarray:
    classes = logits.shape[1]
    counts = np.zeros((classes, classes))
    for image, label in enumerate(labels):
        guess = max(range(classes), key=lambda which: logits[image, which])
        counts[label, guess] += 1
    return counts


def _confusions(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    counts = _counts(logits, labels)
    for row in counts:
        row /= sum(row)
    return counts


def _once(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    seen = (_counts(logits, labels) > 0).astype(float)
    return seen / seen.sum(1, keepdims=True)


def _lost(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (_counts(logits, labels) > 0) / np.bincount(labels)[:, None]


def _of_guesses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    counts = _counts(logits, labels)
    return counts / np.maximum(1, counts.sum(0))


def _probabilities(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    probabilities = np.exp(_log_softmax(logits, 1))
    return np.stack([probabilities[labels == label].mean(0) for label in range(logits.shape[1])])


def _ten(logits: np.ndarray, labels: np.ndarray, least: int = 0) -> np.ndarray:
    counts = np.pad(_counts(logits, labels), (0, 10 - logits.shape[1]))
    return counts / np.maximum(counts.sum(1, keepdims=True), least)


def _about_confusions(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    sums = got.sum(1)
    if np.allclose(sums, 1, atol=1e-5):
        return None
    wrong = int(np.argmax(np.abs(sums - 1) > 1e-5))
    return f"Row {wrong} sums to {sums[wrong]:.3g}: the shares of all images with label {wrong} must sum to 1"


def check_confusions(yours: Callable, seed: int = 0) -> None:
    """yours(logits, labels): of the images with a label (the rows), the share that was taken for each class (the
    columns): (labels guesses). Every class occurs among the labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.tensor([[4.0, 1.0], [3.0, 0.0], [5.0, 2.0], [0.0, 1.0], [2.0, 1.0]])
    cases = [dict(logits=logits, labels=torch.tensor([0, 0, 0, 0, 1]))]
    for batch, classes in ((12, 3), (31, 5)):
        labels = torch.cat([torch.arange(classes), torch.randint(classes, (batch - classes,), generator=generator)])
        logits = torch.randn(batch, classes, generator=generator)
        logits[torch.arange(batch), labels] += 1  # not quite by chance
        cases.append(dict(logits=logits, labels=labels))

    mistakes = {
        "Rows and columns are swapped: a row belongs to a label, a column to a guess": (
            lambda logits, labels: _confusions(logits, labels).T
        ),
        "The columns sum to 1: divided by how often a class was guessed. Divide each row by how many images have its "
        "label": _of_guesses,
        "Column 0 was divided by the number of images with label 0, and not row 0: sum(1) has lost its axis. Keep it, "
        "with keepdim=True": lambda logits, labels: _counts(logits, labels) / np.bincount(labels),
        "Rows and columns are swapped, and each row divided by how often its class was guessed. A row belongs to a "
        "label": lambda logits, labels: _of_guesses(logits, labels).T,
        "Those are counts: divide each row by how many images have its label": _counts,
        "Divided by the number of all images; divide each row by how many images have its label": (
            lambda logits, labels: _counts(logits, labels) / len(labels)
        ),
        "However often a pair occurs, it was counted once: counts[labels, guesses] += 1 writes each place only once. "
        "Add one image after another, or use index_put_ with accumulate=True": _once,
        "However often a pair occurs, it was counted once, so the rows do not sum to 1: counts[labels, guesses] += 1 "
        "writes each place only once. Use a loop, or index_put_ with accumulate=True": _lost,
        "The table is 10 by 10, but there are fewer classes here, and a row without images is 0 over 0. Take their "
        "number from logits.shape[1]": _ten,
        "The table is 10 by 10, but there are fewer classes here. Take their number from logits.shape[1]": (
            partial(_ten, least=1)
        ),
        "Those are mean probabilities; asked is what the model says, the class with the largest logit": _probabilities,
    }
    examine(
        yours,
        _confusions,
        cases,
        mistakes,
        axes="labels guesses",
        diagnose=[_about_confusions],
        picture=beside,
        holds="A row for each label: what its images were taken for. On the diagonal stands each class's accuracy.",
    )
