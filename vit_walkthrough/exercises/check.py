"""What every check does: try the reader's function on small cases beside a slow version that is surely right, and say
what is wrong with it as a teacher would.

A check knows the likely mistakes as functions of their own. If what the reader's function gives is what a mistake
gives, in every case, then that is the mistake, and its sentence is said. Else the message says what is known.
"""

import ctypes
import functools
import inspect
import io
import linecache
import math
import re
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, fields, is_dataclass
from itertools import zip_longest
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


class Wrong(AssertionError):
    """What is said of a wrong answer. A notebook shows these words alone, and no traceback through the checks."""

    def _render_traceback_(self) -> list[str]:
        lines = f"✗ {self}".splitlines()
        wrapped = (textwrap.wrap(line, WIDTH) if len(line) > WIDTH else [line] for line in lines)  # tables as they are
        return [part for line in wrapped for part in line]


WIDTH = 92  # letters in a line of a notebook's output
ITSELF = object()  # what the reader wrote is `yours`; None may be what they gave in place of a function
SECONDS = 10.0  # more than any answer on cases so small can need
MARGIN = 1e-5  # of float32, relative to the largest number expected where that is above 1


@dataclass(frozen=True)
class _Answer:
    """The reader's: `run` is called; `written` is what they wrote, which `run` may wrap."""

    run: Callable
    written: object
    watch: "_Watch"

    @property
    def name(self) -> str:
        return named(self.written)


def examine(
    yours: Callable,
    truth: Callable,
    cases: Sequence[Mapping],
    mistakes: Mapping[str, Callable],
    *,
    holds: str,
    axes: str = "",
    tells: Sequence[Callable] = (),
    written: object = ITSELF,
    picture: Callable | None = None,
) -> None:
    """Print `holds` if yours(*case) is truth(*case) for every case; else raise an AssertionError that says why not.

    cases: arguments by name, the smallest case first; yours gets them in this order, tensors and lists as copies.
    truth, mistakes: called with the same arguments, tensors as arrays of float64 (or of their whole numbers). mistakes:
    a sentence -> what a function with this mistake gives; one that raises does not apply. axes: the axis words of the
    result. tells: called with (case, expected, got), arrays of one shape, when no mistake fits; each gives a sentence
    or None. written: what the reader wrote, if `yours` only wraps it. picture: called with (expected, got) of the
    smallest case that fails; its figure is shown in a notebook. A function among the arguments is handed over as it is;
    its attribute `formula`, where it has one, is shown with the example.

    A result `...` is a hole that nobody has filled yet: that is printed, and nothing is raised. A function that does
    not return is stopped after some seconds, but not while it waits in a library's own code, or under a debugger.
    """
    written = yours if written is ITSELF else written
    if not callable(written):
        what = called(written)
        raise Wrong(f"the check wants the function itself, not {what}: give its name, without brackets after it")
    if isinstance(yours, type) and issubclass(yours, nn.Module):  # where a module is asked for, a check wraps it
        raise Wrong(f"{named(yours)} is a class: give the check a module made of it, {named(yours)}(...)")
    watch = _Watch()
    try:
        right = _try(_Answer(yours, written, watch), truth, cases, mistakes, axes, tells, picture)
    finally:
        watch.end()
    if right:
        print(f"✓ {holds}")
    else:
        print(f"○ {named(written)} is still a hole: write your answer in place of the dots, and run the cell again.")


def _try(answer: _Answer, truth, cases, mistakes, axes, tells, picture) -> bool:
    """Whether there is an answer, and not a hole; if it is wrong, that is raised."""
    outcomes = []
    for case in cases:
        got = _call(answer, case)
        if got is ...:
            return False
        expected = truth(*_plain(case).values())
        expected = expected.item() if isinstance(expected, np.generic) else expected
        got = got if isinstance(expected, np.ndarray) else _number(got)
        outcomes.append((case, expected, got))
        if fault := _kind(answer, case, expected, got):
            raise Wrong(f"{fault}. It was called as {_spelled(answer.name, case)}")
        if not _equal(expected, got):
            _explain(answer, cases, outcomes, mistakes, axes, tells, picture)
    return True


def named(written) -> str:
    """What the reader has called it; a module's class."""
    while isinstance(written, functools.partial):
        written = written.func
    return getattr(written, "__name__", type(written).__name__)


def called(value) -> str:
    """What a value is, in words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if value is None or isinstance(value, np.ndarray):
        return "None" if value is None else "a NumPy array"
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def both(yours: Callable, got, **like: Tensor):
    """What a function returned that should give two tensors as large as these; a hole or nothing as it is.

    Raises: Wrong for anything else.
    """
    if got is None or got is ...:
        return got
    first, second = like
    if not (isinstance(got, (tuple, list)) and len(got) == 2 and all(isinstance(part, Tensor) for part in got)):
        raise Wrong(f"{named(yours)} returned {called(got)}, expected two tensors, {first} and {second}")
    for (word, shaped), part in zip(like.items(), got, strict=True):
        if part.shape != shaped.shape or part.device != shaped.device:
            what, wanted = (
                f"of the shape {tuple(tensor.shape)} on {tensor.device}"
                if part.device != shaped.device
                else tuple(tensor.shape)
                for tensor in (part, shaped)
            )
            raise Wrong(f"{named(yours)} returned {word} as {what}, expected {wanted}; first {first}, then {second}")
    return got


def _plain(case: Mapping) -> dict:
    return {name: _array(value) for name, value in case.items()}


def _array(value):
    if not isinstance(value, Tensor):
        return value
    array = value.detach().cpu().numpy()
    return array.astype(np.float64) if array.dtype.kind == "f" else array.copy()


def _number(value):
    """A number, if that is what it is: a tensor without axes, or NumPy's."""
    if isinstance(value, Tensor) and value.ndim == 0 and value.device.type != "meta":
        return value.item()
    return value.item() if isinstance(value, np.generic) else value


# ------------------------------------------------------------------------------------------------ the reader's own line


def _file(written) -> str:
    """Where the reader wrote it; nowhere, if it is torch's own."""
    while isinstance(written, functools.partial):
        written = written.func
    if isinstance(written, type):  # a class has no code of its own; one of its methods has
        written = next((part for part in vars(written).values() if inspect.isfunction(part)), written)
    elif not hasattr(written, "__code__"):
        written = getattr(type(written), "forward", type(written).__call__)
    code = getattr(inspect.unwrap(written), "__code__", None)
    file = code.co_filename if code else ""
    return "" if Path(torch.__file__).parent in Path(file).parents else file


def _line(file: str, number: int) -> str:
    source = linecache.getline(file, number).strip()
    return f"line {number}, `{source}`" if source else f"line {number}"


def _own_line(error: BaseException, written) -> str:
    """The last of the reader's own lines on the way to an error."""
    file = _file(written)
    numbers = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f", in your {_line(file, numbers[-1])}" if numbers else ""


def _nowhere(names: dict, given, arguments: tuple) -> bool:
    """What no line but the last one answers for."""
    return False


def _line_where(answer: _Answer, case: Mapping, broken: Callable[[dict, object, tuple], bool] = _nowhere) -> str:
    """The first of the reader's own lines after which `broken` holds, called with the local names, what is returned
    (before that: None) and the arguments; else the one that returned. The function is run once more to see it."""
    file, reached, seen, returned = _file(answer.written), {}, [], []
    arguments = _copies(case)

    def look(frame, number: int | None, given) -> None:
        with suppress(Exception):  # of a predicate, about a tensor that it cannot read
            if number and not seen and broken(frame.f_locals, given, arguments):
                seen.append(number)

    def local(frame, event, value):
        if event == "line":  # it is announced before it is run: what is seen now is the work of the one before
            look(frame, reached.get(frame), None)
            reached[frame] = frame.f_lineno
        elif event == "return":
            look(frame, frame.f_lineno, value)
            returned.append(frame.f_lineno)
        return local

    def trace(frame, event, value):
        if frame.f_code.co_filename != file:
            return None
        look(frame, reached.get(frame.f_back), None)  # what the line that calls has done before it called
        return local

    tracing = sys.gettrace()
    try:
        with suppress(Exception, SystemExit, _TooLong), answer.watch.limited(), redirect_stdout(io.StringIO()):
            sys.settrace(trace)
            answer.run(*arguments)
    finally:
        sys.settrace(tracing)
    numbers = seen or returned[-1:]
    return _line(file, numbers[0]) if numbers else ""


def _at(answer: _Answer, case: Mapping, broken: Callable = _nowhere) -> str:
    line = _line_where(answer, case, broken)
    return f", in your {line}" if line else ""


# --------------------------------------------------------------------------------------------------- trying it


class _TooLong(BaseException):
    """Raised inside the reader's function when its time is over."""


class _Watch:
    """One thread beside a whole check, which stops the reader's function if it runs for too long: to start one for
    every call would take longer than the calls."""

    def __init__(self):
        self.since, self.lock, self.over = None, threading.Lock(), threading.Event()
        self.watched = ctypes.c_ulong(threading.get_ident())
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self) -> None:
        stop = ctypes.pythonapi.PyThreadState_SetAsyncExc  # works in any thread and on any system, unlike a signal
        while not self.over.wait(SECONDS / 10):
            with self.lock:
                if self.since is not None and time.monotonic() - self.since > SECONDS:
                    self.since = None
                    stop(self.watched, ctypes.py_object(_TooLong))

    @contextmanager
    def limited(self) -> Iterator[None]:
        with self.lock:
            self.since = None if sys.gettrace() else time.monotonic()  # who goes step by step has time
        try:
            yield
        finally:
            with self.lock:
                self.since = None

    def end(self) -> None:
        self.over.set()
        self.thread.join()


def _copies(case: Mapping) -> tuple:
    copies = {Tensor: Tensor.clone, list: list}
    return tuple(copies.get(type(value), lambda same: same)(value) for value in case.values())


def _call(answer: _Answer, case: Mapping):
    arguments, name = _copies(case), answer.name
    try:
        with answer.watch.limited():
            got = answer.run(*arguments)
    except Wrong as said:  # by a check that wraps what the reader wrote
        raise Wrong(f"{said}{_at(answer, case)}") from None
    except _TooLong as error:
        line = _own_line(error, answer.written)
        raise Wrong(f"{name} did not return within {SECONDS:g} seconds{line}: a loop that never ends?") from None
    except (Exception, SystemExit) as error:
        what = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
        line = _own_line(error, answer.written)
        raise Wrong(f"{name} raised {what}{line}. It was called as {_spelled(name, case)}") from error
    if got is ...:
        return got
    for (word, value), argument in zip(case.items(), arguments, strict=True):
        if not _same(value, argument):
            line = _at(answer, case, lambda names, given, given_to: _changed(case, given_to))
            raise Wrong(
                f"{name} changes its input {word} in place{line}; whoever called it still needs {word} as it was"
            )
    return got


def _same(one, other) -> bool:
    if isinstance(one, Tensor):
        return one.shape == other.shape and torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))
    return one is other or (isinstance(one, list) and one == other)


def _changed(case: Mapping, arguments: tuple) -> bool:
    return not all(_same(value, argument) for value, argument in zip(case.values(), arguments, strict=True))


def _has_nan(value) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and bool(value.isnan().any())


def _finite(value) -> bool:
    return not (isinstance(value, Tensor) and value.is_floating_point()) or bool(value.isfinite().all())


def _some_nan(names: dict, given, arguments: tuple) -> bool:
    return any(map(_has_nan, (*names.values(), given)))


def _some_infinite(names: dict, given, arguments: tuple) -> bool:
    return not all(map(_finite, (*names.values(), given)))


def _kind(answer: _Answer, case: Mapping, expected, got) -> str | None:
    """What is wrong with a result that is no such thing as expected, whatever its numbers are."""
    says = None
    if got is None:
        line = _line_where(answer, case)
        return f"{answer.name} returned nothing; is there a `return`?{f' It ended in your {line}' if line else ''}"
    place = next((value.device for value in case.values() if isinstance(value, Tensor)), torch.device("cpu"))
    if isinstance(got, Tensor) and got.device != place:
        says = f"returned a tensor on the device {got.device}, expected {place}, where its input is"
    elif isinstance(got, Tensor) and (got.is_nested or got.layout != torch.strided):
        says = "returned a sparse or nested tensor, expected a plain one"
    elif isinstance(expected, np.ndarray):
        if not isinstance(got, Tensor):
            says = f"returned {called(got)}, expected a tensor"
        elif got.dtype != _dtype(case, expected):
            says = f"returned {got.dtype}, expected {_dtype(case, expected)}"
    elif isinstance(expected, bool) or not isinstance(expected, (int, float)):
        if not isinstance(got, type(expected)):
            says = f"returned {called(got)}, expected {called(expected)}"
    elif isinstance(got, bool) or not isinstance(got, (int, float)):
        says = f"returned {called(got)}, expected a number"
    elif not math.isfinite(got):
        says = f"returned {got}"
    elif isinstance(expected, int) and not isinstance(got, int):
        says = f"returned {got}, expected a whole number; / makes floats where // is meant"
    return f"{answer.name} {says}{_at(answer, case)}" if says else None


def _dtype(case: Mapping, expected: np.ndarray) -> torch.dtype:
    if expected.dtype.kind != "f":
        return torch.from_numpy(expected[:0].copy()).dtype
    floats = (v.dtype for v in case.values() if isinstance(v, Tensor) and v.is_floating_point())
    return next(floats, torch.float32)


def _near(expected: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Which numbers are equal, within what float32 can tell."""
    if expected.dtype.kind in "iub":
        return np.asarray(expected == got)
    scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0)))
    return np.asarray(np.isclose(expected, got, rtol=0, atol=MARGIN * scale, equal_nan=True))


def _equal(expected, got) -> bool:
    if isinstance(expected, (dict, str)):
        return expected == got
    expected, got = np.asarray(expected), np.asarray(_array(got))
    return expected.shape == got.shape and bool(_near(expected, got).all())


# --------------------------------------------------------------------------------------------------- saying it


def _explain(answer: _Answer, cases, outcomes, mistakes, axes, tells, picture) -> None:
    """Raise what is to be said of the last outcome, the first that was wrong."""
    case, expected, got = outcomes[-1]
    given = [outcome[2] for outcome in outcomes] + [_attempt(answer, later) for later in cases[len(outcomes) :]]
    array, same_shape = _array(got), isinstance(expected, np.ndarray) and expected.shape == tuple(got.shape)
    said = next((sentence for sentence, mistake in mistakes.items() if _fits(mistake, cases, given)), None)
    if said is None and isinstance(expected, np.ndarray) and not same_shape:
        words = f" ({axes})" if axes else ""
        said = f"{answer.name} returned the shape {tuple(got.shape)}, expected {expected.shape}{words}"
        said += _at(answer, case)
    elif not _finite(got) and np.isfinite(expected).all():
        what, broken = ("NaN", _some_nan) if _has_nan(got) else ("infinite numbers", _some_infinite)
        known, picture = f". {said}" if said else "", None
        said = f"{answer.name} returned {what}{_at(answer, case, broken)}{known}"
    if said is None:
        with np.errstate(all="ignore"):
            said = next(filter(None, (tell(_plain(case), expected, array) for tell in tells)), None)
    if said is None:
        said = f"{answer.name} returned the right shape, but wrong numbers" if same_shape else f"{answer.name} is wrong"
    if picture and same_shape:
        _draw(picture, answer.name, expected, array)
    raise Wrong(_with_example(said, answer.name, case, expected, got, axes))


def _attempt(answer: _Answer, case: Mapping):
    """What yours gives in a case that comes after the first failure, where it need not work."""
    try:
        with answer.watch.limited(), redirect_stdout(io.StringIO()):
            got = answer.run(*_copies(case))
    except (Exception, SystemExit, _TooLong):
        return None
    return got if _finite(got) else None


def _fits(mistake: Callable, cases: Sequence[Mapping], given: list) -> bool:
    """Whether the mistake gives what yours gave, in every case and not only in the one that showed it."""
    try:
        with np.errstate(all="ignore"):
            return all(
                _equal(mistake(*_plain(case).values()), got)
                for case, got in zip(cases, given, strict=True)
                if got is not None
            )
    except Exception:  # a mistake that fails here is not this one
        return False


def _spelled(name: str, case: Mapping) -> str:
    parts = []
    for word, value in case.items():
        if isinstance(value, Tensor):
            parts.append(f"{word} of shape {tuple(value.shape)}")
        elif callable(value):
            parts.append(word)
        else:
            parts.append(f"{word}={_chosen(value)}")
    return f"{name}({', '.join(parts)})"


def _chosen(value) -> str:
    """A value; of a config only what was chosen, and not what is as always."""
    if not is_dataclass(value):
        return repr(value)
    chosen = {field.name: getattr(value, field.name) for field in fields(value)}
    usual = {field.name: field.default for field in fields(value)}
    parts = [f"{name}={part!r}" for name, part in chosen.items() if part != usual[name]]
    return f"{type(value).__name__}({', '.join(parts)})"


def _shown(value) -> str:
    if isinstance(value, (Tensor, np.ndarray)):
        array = np.asarray(_array(value))
        small = array.dtype.kind == "f" and bool(np.isfinite(array).all()) and np.abs(array).max(initial=0) < 2**53
        whole = small and bool((array == np.round(array)).all())
        numbers = array.astype(np.int64) if whole else array
        text = np.array2string(numbers, precision=3, suppress_small=True, threshold=80, edgeitems=3)
        return re.sub(r"\n{2,}", "\n\n", text)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    words = repr(value)
    return words if len(words) <= 400 else f"{words[:400]} ..."


def _columns(left: str, right: str) -> str:
    """Two texts side by side, or one below the other if they are too wide."""
    rows = list(zip_longest(left.splitlines(), right.splitlines(), fillvalue=""))
    first, second = (max(map(len, column)) for column in zip(*rows, strict=True))
    if first + 4 + second > WIDTH:
        return f"{left}\n{right}"
    return "\n".join(f"{one:{first + 4}}{other}".rstrip() for one, other in rows)


def _with_example(said: str, name: str, case: Mapping, expected, got, axes: str) -> str:
    lines = [said.rstrip("."), "", f"The smallest case that fails: {_spelled(name, case)}"]
    for word, value in case.items():
        if isinstance(value, Tensor) and value.numel() <= 48:
            lines.append(f"{word}\n{_shown(value)}")
        elif formula := getattr(value, "formula", ""):
            lines.append(f"{word}(x) = {formula}")
    lines.append(_columns(f"expected{f' ({axes})' if axes else ''}\n{_shown(expected)}", f"got\n{_shown(got)}"))
    if isinstance(expected, np.ndarray) and expected.ndim and expected.shape == tuple(got.shape):
        array = _array(got)
        place = tuple(int(part) for part in np.argwhere(~_near(expected, array))[0])
        digits = 4 if f"{expected[place]:.4g}" != f"{array[place]:.4g}" else 8
        pair = f"expected {expected[place]:.{digits}g}, got {array[place]:.{digits}g}"
        lines.append(f"They differ first at {list(place)}: {pair}.")
    return "\n".join(lines)


def _draw(picture: Callable, name: str, expected: np.ndarray, got: np.ndarray) -> None:
    from IPython import get_ipython

    if get_ipython() is None:
        return
    from vit_walkthrough.draw.theme import show

    show(picture(expected, got), f"Left what {name} should have given, right what it gave.")


def beside(expected: np.ndarray, got: np.ndarray):
    """Two matrices side by side in one scale."""
    from vit_walkthrough.draw.images import plot_matrix
    from vit_walkthrough.draw.plots import side_by_side

    signed = min(expected.min(), got.min()) < 0
    limit = float(max(np.abs(expected).max(), np.abs(got).max())) or 1.0
    axes = side_by_side(2, width=7, height=3.4)
    for ax, values, title in zip(axes, (expected, got), ("expected", "got"), strict=True):
        plot_matrix(values if signed else values / limit, kind="signed" if signed else "weights", title=title,
                    limit=limit if signed else None, numbers=False, colorbar=False, ax=ax)  # fmt: skip
    return axes[0].figure


# --------------------------------------------------------------------------------------------------- predictions


def predict(yours, truth, why: Mapping | None = None) -> None:
    """Compare what the reader said beforehand with what has come out, and print it; to be wrong is no error.

    yours: a number, a word or a shape; `...` is a question that nobody has answered yet. truth: what it turned out to
    be, a torch.Size or a tensor of one number among others. why: wrong answer -> the sentence that belongs to it.
    """
    if yours is ...:
        print("○ Not predicted yet: put your answer in place of the dots above, and run both cells again.")
        return
    said, is_so = _comparable(yours), _comparable(truth)
    if isinstance(is_so, float) and isinstance(said, Real):
        right = abs(float(said) - is_so) <= 0.01 * abs(is_so)  # nobody predicts the third digit
    else:
        right = said == is_so
    shown = f"{is_so:.4g}" if isinstance(is_so, float) else truth if isinstance(truth, str) else is_so
    if right:
        print(f"✓ {shown}, as you said.")
        return
    reason = next((sentence for wrong, sentence in (why or {}).items() if _comparable(wrong) == said), "")
    words = repr(yours) if isinstance(yours, str) and not isinstance(truth, str) else yours
    print(f"✗ You said {words}, but it is {shown}{f': {reason}' if reason else ''}.")


def _comparable(value):
    """Words without capitals, numbers as Python's, lists and shapes as tuples."""
    if isinstance(value, str):
        return value.strip().lower()
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else _comparable(value.tolist())
    if isinstance(value, (np.ndarray, np.generic)):
        return _comparable(value.tolist())
    return tuple(map(_comparable, value)) if isinstance(value, (list, tuple)) else value
