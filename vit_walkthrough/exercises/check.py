"""The engine of the exercises: it tries the reader's function on small cases, and says what is wrong with it.

An exercise is a generator function that has the arguments of the reader's function. It first yields the right answer,
and is sent what the reader's function gave. After that it yields slips: a sentence, with the answer that a function
with this mistake gives in every case, or a function without arguments where it cannot be computed in every case. After
the slips there may be remarks: an `if` that asks about the reader's answer, and a sentence alone.

    @exercise(cases=[(6, 2), (20, 4)], holds="Every patch is counted.")
    def check_count(width, patch_size):
        \"\"\"yours(width, patch_size): how many patches lie side by side in an image.\"\"\"
        got = yield width // patch_size
        yield "Those are the pixels; asked are the patches", width
        if got < 1:
            yield "Every image has a patch"
"""

import copy
import io
import math
import re
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from functools import update_wrapper
from inspect import signature
from numbers import Real
from operator import call
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

WIDTH = 92  # letters in a line of a notebook's output
SECONDS = 10.0  # more than any answer on cases so small can need
MARGIN = 1e-5  # of float32, relative to the largest number where that is above 1
NOT_THE_READERS = (Path(__file__).parent, Path(torch.__file__).parents[1])


class Wrong(AssertionError):
    """What is said of a wrong answer. A notebook shows these words alone, without a traceback through the engine."""

    def _render_traceback_(self) -> list[str]:
        lines = f"✗ {self}".splitlines()
        return [part for line in lines for part in (textwrap.wrap(line, WIDTH) if len(line) > WIDTH else [line])]


class TooLong(BaseException):
    """Raised inside the reader's function when its time is over. It is no Exception, so that no `except` catches it."""


def randn(*sizes: int, seed: int = 0) -> Tensor:
    """Random numbers for a case, the same every time."""
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


def shares(numbers: Tensor, axis: int = -1) -> Tensor:
    """The same proportions along an axis, with the sum 1."""
    return numbers / numbers.sum(axis, keepdim=True)


@dataclass(eq=False)
class Exercise:
    """cases: the arguments, the smallest case first. axes: the axis words of the answer; for a tuple of tensors, those
    of each. holds: what a right answer is told. run: called with the reader's function and copies of a case's
    arguments; it gives what is compared, if that is not the function's own answer."""

    body: Callable[..., Iterator]
    cases: Sequence[tuple]
    holds: str
    axes: str | tuple[str, ...] = ""
    run: Callable = call

    def __post_init__(self):
        update_wrapper(self, self.body)
        self.words = list(signature(self.body).parameters)

    def __call__(self, yours) -> None:
        """Print that the answer is right, or still a hole (`...`). Raises: Wrong, which says what is wrong."""
        name = name_of(yours)
        if not callable(yours):
            raise Wrong(f"The check needs the function itself, not {called(yours)}: its name, without brackets")
        if isinstance(yours, type) and self.run is call:
            raise Wrong(f"{name} is a class: give the check a function, or a module that was made of it, {name}(...)")
        given = []
        for case in self.cases:
            expected, got = self.right(case), self.attempt(yours, case)
            if got is ...:
                print(f"○ {name} is still a hole: write your answer in place of the dots, and run the cell again.")
                return
            if fault := fault_of(expected, got):
                raise Wrong(f"{name} {fault}. It was called as {self.spelled(name, case)}")
            given.append(got)
            if not same(expected, got):
                first, later = len(given) - 1, self.cases[len(given) :]
                raise Wrong(self.explanation(name, [*given, *(self.quietly(yours, case) for case in later)], first))
        print(f"✓ {self.holds}")

    def right(self, case: tuple):
        """The right answer to a case."""
        return next(self.body(*case))

    def attempt(self, yours: Callable, case: tuple):
        """What the reader's function gives in this case. Raises: Wrong if it fails, is late, or changes an argument."""
        name, arguments = name_of(yours), copy.deepcopy(case)
        try:
            with limited():
                got = self.run(yours, *arguments)
        except Wrong:  # said by `run`
            raise
        except TooLong as error:
            late = f"did not return within {SECONDS:g} seconds{own_line(error)}"
            raise Wrong(f"{name} {late}: a loop that never ends?") from None
        except (Exception, SystemExit) as error:
            what = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ") + own_line(error)
            raise Wrong(f"{name} raised {what}. It was called as {self.spelled(name, case)}") from error
        for word, before, after in zip(self.words, case, arguments, strict=True):
            if isinstance(before, Tensor | list) and not same(before, after):
                raise Wrong(f"{name} changes {word} in place. Whoever called it still needs {word} as it was")
        is_number = isinstance(got, np.generic) or (isinstance(got, Tensor) and not got.ndim and not got.is_meta)
        return got.item() if is_number and not isinstance(self.right(case), Tensor) else got

    def quietly(self, yours: Callable, case: tuple):
        """The same in a case after the first failure, where the function need not work; None if it does not."""
        with suppress(Wrong), redirect_stdout(io.StringIO()):
            got = self.attempt(yours, case)
            return got if finite(got) else None

    def slips(self, case: tuple, got) -> list:
        """The slips of a case, and after them the remarks about this answer."""
        steps, found = self.body(*case), []
        next(steps)
        with suppress(Exception):  # of a remark about an answer whose shape it did not foresee
            found.append(steps.send(got))
            found.extend(steps)
        return found

    def known(self, given: list, first: int) -> str | None:
        """The sentence that these answers deserve, of which number `first` is the first wrong one."""
        found = [self.slips(case, got) for case, got in zip(self.cases, given, strict=True)]
        judged = [number for number, got in enumerate(given) if got is not None]
        for place, slip in enumerate(found[first]):
            if isinstance(slip, str):  # remarks are for answers of the right shape
                return slip if alike(self.right(self.cases[first]), given[first]) and finite(given[first]) else None
            if all(fits(found[number][place][1], given[number]) for number in judged):
                return slip[0]
        return None

    def explanation(self, name: str, given: list, first: int) -> str:
        """What is wrong, and the case that shows it."""
        case, got, axes = self.cases[first], given[first], self.axes
        expected, said = self.right(case), self.known(given, first)
        if isinstance(expected, tuple):
            part = list(map(same, expected, got)).index(False)
            expected, got, axes = expected[part], got[part], axes[part]
        of_numbers = isinstance(expected, Tensor) and alike(expected, got)
        if of_numbers and finite(expected) and not finite(got):
            said = f"{name} returned {'NaN' if got.isnan().any() else 'infinite numbers'}. {said or ''}"
        elif said is None and not alike(expected, got):
            said = f"{name} returned the shape {tuple(got.shape)}, expected {tuple(expected.shape)} ({axes})"
        elif said is None:
            said = f"{name} returned {'the right shape, but wrong numbers' if of_numbers else 'a wrong answer'}"
        lines = [said.rstrip(". "), "", f"The smallest case that fails: {self.spelled(name, case)}"]
        tensors = {word: one for word, one in zip(self.words, case, strict=True) if isinstance(one, Tensor)}
        lines += [f"{word}\n{shown(tensor)}" for word, tensor in tensors.items() if tensor.numel() <= 48]
        lines += [f"expected{f' ({axes})' if axes else ''}", shown(expected), "got", shown(got)]
        if of_numbers and expected.ndim:
            place = tuple((~close(expected, got)).nonzero()[0].tolist())
            right, wrong = expected[place].item(), got[place].item()
            digits = 4 if f"{right:.4g}" != f"{wrong:.4g}" else 8
            lines.append(f"They differ first at {list(place)}: expected {right:.{digits}g}, got {wrong:.{digits}g}.")
        return "\n".join(lines)

    def spelled(self, name: str, case: tuple) -> str:
        """The call as one would write it, tensors by their shapes."""
        parts = [
            f"{word} of shape {tuple(value.shape)}"
            if isinstance(value, Tensor)
            else f"{word}={getattr(value, '__name__', repr(value))}"
            for word, value in zip(self.words, case, strict=True)
        ]
        return f"{name}({', '.join(parts)})"


def exercise(**facts) -> Callable[[Callable], Exercise]:
    """Make an exercise of a generator function; the facts are the fields of Exercise."""
    return lambda body: Exercise(body, **facts)


@contextmanager
def limited() -> Iterator[None]:
    """Raise TooLong in what runs longer than SECONDS: in the main thread, where the system has signals, and not under
    a debugger, where somebody goes step by step."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM") or sys.gettrace():
        yield
        return

    def stop(*signal_and_frame):
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def own_line(error: BaseException) -> str:
    """The last of the reader's own lines on the way to an error, in words."""
    frames = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in frames if not {*NOT_THE_READERS} & {*Path(frame.filename).parents}]
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    return f", in your line {own[-1].lineno}, `{own[-1].line}`" if own else ""


def name_of(yours) -> str:
    """What the reader has called it; a module has the name of its class."""
    return getattr(yours, "__name__", None) or name_of(getattr(yours, "func", type(yours)))


def called(value) -> str:
    """What a value is, in words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if value is None or isinstance(value, np.ndarray):
        return "None" if value is None else "a NumPy array"
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def kind_of(value) -> str:
    """What an answer has to be, in words."""
    if isinstance(value, tuple | list):
        return f"{len(value)} tensors"
    if isinstance(value, Tensor):
        return "a tensor"
    return "a number" if isinstance(value, Real) and not isinstance(value, bool) else called(value)


def fault_of(expected, got) -> str | None:
    """What is wrong with an answer whatever its numbers are."""
    if got is None:
        return "returned nothing; is there a `return`?"
    if kind_of(got) != kind_of(expected):
        return f"returned {called(got)}, expected {kind_of(expected)}"
    if isinstance(expected, tuple):
        return next(filter(None, map(fault_of, expected, got)), None)
    if isinstance(expected, Tensor):
        for fact in ("device", "layout", "dtype"):
            if getattr(got, fact) != getattr(expected, fact):
                return f"returned a tensor of {fact} {getattr(got, fact)}, expected {getattr(expected, fact)}"
    elif isinstance(expected, Real) and not math.isfinite(got):
        return f"returned {got}"
    elif isinstance(expected, int) and not isinstance(got, int):
        return f"returned {got}, expected a whole number; / makes floats where // is meant"
    return None


def close(expected: Tensor, got: Tensor) -> Tensor:
    """Which numbers are equal, within what float32 can tell."""
    largest = expected.double().nan_to_num(0, 0, 0).abs().max().item() if expected.numel() else 0
    margin = MARGIN * max(1, largest) if expected.is_floating_point() else 0
    return torch.isclose(expected.double(), got.double(), rtol=0, atol=margin, equal_nan=True)


def same(expected, got) -> bool:
    """Whether an answer of the right kind is right."""
    if isinstance(expected, tuple):
        return all(map(same, expected, got))
    if isinstance(expected, Tensor):
        return alike(expected, got) and bool(close(expected, got).all())
    return math.isclose(expected, got, rel_tol=MARGIN) if isinstance(expected, float) else expected == got


def fits(slip, got) -> bool:
    """Whether a slip gives this answer too; one that fails does not."""
    with suppress(Exception):
        return same(slip() if callable(slip) else slip, got)
    return False


def alike(expected, got) -> bool:
    """Whether it has the shape expected, if that is a tensor."""
    return not isinstance(expected, Tensor) or expected.shape == got.shape


def finite(got) -> bool:
    """Whether there is no NaN and no infinite number in it."""
    if isinstance(got, tuple | list):
        return all(map(finite, got))
    return not isinstance(got, Tensor) or bool(got.isfinite().all())


def shown(value) -> str:
    """A value as it is printed: whole numbers without a point, long arrays shortened."""
    if not isinstance(value, Tensor):
        return f"{value:,}" if type(value) is int else textwrap.shorten(repr(value), 400, placeholder=" ...")
    numbers = value.detach().numpy()
    if finite(value) and (numbers == numbers.round()).all() and np.abs(numbers).max(initial=0) < 2**53:
        numbers = numbers.astype(np.int64)
    return re.sub(r"\n{2,}", "\n\n", np.array2string(numbers, precision=3, suppress_small=True, threshold=80))
