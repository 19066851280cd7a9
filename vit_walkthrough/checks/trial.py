"""What every check does: try the reader's function on small cases beside a slow version that is surely right, and say
what is wrong with it as a teacher would.

A check knows the likely mistakes as functions of their own. If what the reader's function gives is what a mistake
gives, in every case, then that is the mistake, and its sentence is said. Else the message says what is known.
"""

import ctypes
import inspect
import linecache
import re
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import partial
from itertools import zip_longest
from operator import index

import numpy as np
import torch
from torch import Tensor


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

    cases: arguments by name, the smallest case first; yours gets them in this order, tensors as copies.
    truth, mistakes: called with the same arguments, tensors as arrays of float64 (or of their whole numbers). mistakes:
    a sentence -> what a function with this mistake gives; one that raises does not apply. axes: the axis words of the
    result. tells: called with (case, expected, got) as arrays when no mistake fits; each gives a sentence or None.
    written: what the reader wrote, if `yours` only wraps it. picture: called with (expected, got) of the smallest case
    that fails; its figure is shown in a notebook. A function among the arguments is handed over as it is; its
    attribute `formula`, where it has one, is shown with the example.

    A result `...` is a hole that nobody has filled yet: that is printed, and nothing is raised.
    """
    written = yours if written is ITSELF else written
    name = named(written)
    if not callable(written):
        raise Wrong(
            f"the check wants the function itself, not {called(written)}: give its name, without brackets after it"
        )
    try:
        with _limited(SECONDS):
            done = _try(yours, written, name, truth, cases, mistakes, axes, tells, picture)
    except _TooLong as error:
        raise Wrong(
            f"{name} did not return within {SECONDS:g} seconds{_own_line(error, written)}: a loop that never ends?"
        ) from None
    if done:
        print(f"✓ {holds}")
    else:
        print(f"○ {name} is still a hole: write your answer in place of the dots, and run the cell again.")


def _try(yours, written, name, truth, cases, mistakes, axes, tells, picture) -> bool:
    """Whether there is an answer; it is right, or an AssertionError is raised."""
    outcomes = []
    for case in cases:
        got = _call(yours, written, name, case)
        if got is ...:
            return False
        expected = truth(*_plain(case).values())
        expected = expected.item() if isinstance(expected, np.generic) else expected
        outcomes.append((case, expected, got))
        if fault := _kind(written, yours, name, case, expected, got):
            raise Wrong(f"{fault}. It was called as {_spelled(name, case)}")
        if not _equal(expected, got):
            _explain(yours, written, name, cases, outcomes, mistakes, axes, tells, picture)
    return True


def named(written) -> str:
    """What the reader has called it; a module's class."""
    return getattr(written, "__name__", type(written).__name__)


def called(value) -> str:
    """What a value is, in words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if value is None or isinstance(value, np.ndarray):
        return "None" if value is None else "a NumPy array"
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _plain(case: Mapping) -> dict:
    return {name: _array(value) for name, value in case.items()}


def _array(value):
    if not isinstance(value, Tensor):
        return value
    array = value.detach().cpu().numpy()
    return array.astype(np.float64) if array.dtype.kind == "f" else array.copy()


# ------------------------------------------------------------------------------------------------ the reader's own line


def _file(written) -> str:
    if isinstance(written, type):  # a class has no code of its own; one of its methods has
        written = next((part for part in vars(written).values() if inspect.isfunction(part)), written)
    elif not hasattr(written, "__code__"):
        written = getattr(type(written), "forward", type(written).__call__)
    code = getattr(inspect.unwrap(written), "__code__", None)
    return code.co_filename if code else ""


def _line(file: str, number: int) -> str:
    source = linecache.getline(file, number).strip()
    return f"line {number}, `{source}`" if source else f"line {number}"


def _own_line(error: BaseException, written) -> str:
    """The last of the reader's own lines on the way to an error."""
    file = _file(written)
    numbers = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f", in your {_line(file, numbers[-1])}" if numbers else ""


def _line_where(yours: Callable, written, case: Mapping, broken: Callable[[dict, object, tuple], bool]) -> str:
    """The first of the reader's own lines after which `broken` holds, called with the local names, what is returned
    (before that: None) and the arguments; else the one that returned. The function is run once more to see it."""
    file, reached, seen, returned = _file(written), {}, [], []
    arguments = _copies(case)

    def local(frame, event, value):
        if event in ("line", "return"):
            # A line is announced before it is run, so what is seen now is the work of the one before.
            done = frame.f_lineno if event == "return" else reached.get(frame)
            given = value if event == "return" else None
            if done and not seen and broken(frame.f_locals, given, arguments):
                seen.append(done)
            reached[frame] = frame.f_lineno
        if event == "return":
            returned.append(frame.f_lineno)
        return local

    def trace(frame, event, value):
        return local if frame.f_code.co_filename == file else None

    tracing = sys.gettrace()
    sys.settrace(trace)
    try:
        yours(*arguments)
    except Wrong:
        pass
    finally:
        sys.settrace(tracing)
    numbers = seen or returned[-1:]
    return f", in your {_line(file, numbers[0])}" if numbers else ""


# --------------------------------------------------------------------------------------------------- trying it


class _TooLong(BaseException):
    """Raised inside the reader's function when its time is over."""


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    thread = ctypes.c_ulong(threading.get_ident())
    stop = ctypes.pythonapi.PyThreadState_SetAsyncExc  # works in any thread and on any system, unlike a signal
    timer = threading.Timer(seconds, lambda: stop(thread, ctypes.py_object(_TooLong)))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _copies(case: Mapping) -> tuple:
    copies = {Tensor: Tensor.clone, list: list, dict: dict}
    return tuple(copies.get(type(value), lambda same: same)(value) for value in case.values())


def _call(yours: Callable, written, name: str, case: Mapping):
    arguments = _copies(case)
    try:
        got = yours(*arguments)
    except Wrong as said:  # by a check that wraps what the reader wrote
        raise Wrong(f"{said}{_line_where(yours, written, case, _nowhere)}") from None
    except Exception as error:
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        raise Wrong(
            f"{name} raised {what}{_own_line(error, written)}. It was called as {_spelled(name, case)}"
        ) from error
    if got is ...:
        return got
    for (word, value), argument in zip(case.items(), arguments, strict=True):
        if not _same(value, argument):
            where = _line_where(yours, written, case, lambda names, given, given_to: _changed(case, given_to))
            raise Wrong(
                f"{name} changes its input {word} in place{where}; whoever called it still needs {word} as it was"
            )
    return got


def _same(one, other) -> bool:
    if isinstance(one, Tensor):
        return one.shape == other.shape and torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))
    return one is other or (isinstance(one, (list, dict)) and one == other)


def _changed(case: Mapping, arguments: tuple) -> bool:
    return not all(_same(value, argument) for value, argument in zip(case.values(), arguments, strict=True))


def _has_nan(value) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and bool(value.isnan().any())


def _finite(value) -> bool:
    return not (isinstance(value, Tensor) and value.is_floating_point()) or bool(value.isfinite().all())


def _nowhere(names: dict, given, arguments: tuple) -> bool:
    """What no line but the last one answers for."""
    return False


def _any_nan(names: dict, given, arguments: tuple) -> bool:
    return any(map(_has_nan, (*names.values(), given)))


def _fault(yours: Callable, written, name: str, case: Mapping, says: str, broken: Callable = _nowhere) -> str:
    return f"{name} {says}{_line_where(yours, written, case, broken)}"


def _kind(written, yours: Callable, name: str, case: Mapping, expected, got) -> str | None:
    """What is wrong with a result that is no such thing as expected, whatever its numbers are."""

    fault = partial(_fault, yours, written, name, case)
    if got is None:
        where = _line_where(yours, written, case, _nowhere)
        return f"{name} returned nothing; is there a `return`?{where.replace(', in your', ' It ended in your', 1)}"
    if not isinstance(expected, np.ndarray):
        return _kind_of_number(fault, expected, got)
    if not isinstance(got, Tensor):
        return fault(f"returned {called(got)}, expected a tensor")
    place = next((value.device for value in case.values() if isinstance(value, Tensor)), torch.device("cpu"))
    if got.device != place:
        return fault(f"returned a tensor on the device {got.device}, expected {place}, where its input is")
    dtype = _dtype(case, expected)
    if got.dtype != dtype:
        return fault(f"returned {got.dtype}, expected {dtype}")
    return None


def _kind_of_number(fault: Callable, expected, got) -> str | None:
    if isinstance(expected, bool) or not isinstance(expected, (int, float)):
        if isinstance(got, type(expected)):
            return None
        return fault(f"returned {called(got)}, expected {called(expected)}")
    if isinstance(got, Tensor) and got.ndim == 0:
        got = got.item()
    if isinstance(got, bool) or not isinstance(got, (int, float, np.number)):
        return fault(f"returned {called(got)}, expected a number")
    if isinstance(expected, int):
        try:
            index(got)
        except TypeError:
            return fault(f"returned {got}, expected a whole number: divide with //, not with /")
    elif not np.isfinite(got):
        return fault(f"returned {got}")
    return None


def _dtype(case: Mapping, expected: np.ndarray) -> torch.dtype:
    if expected.dtype.kind != "f":
        return torch.from_numpy(expected[:0].copy()).dtype if expected.ndim else torch.int64
    floats = (v.dtype for v in case.values() if isinstance(v, Tensor) and v.is_floating_point())
    return next(floats, torch.float32)


def _equal(expected, got) -> bool:
    if isinstance(expected, (dict, str, tuple, list)):
        return expected == got
    expected, got = np.asarray(expected), np.asarray(_array(got))
    if expected.shape != got.shape:
        return False
    if expected.dtype.kind in "iub":
        return bool((expected == got).all())
    scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0)))
    return np.allclose(expected, got, rtol=0, atol=MARGIN * scale, equal_nan=True)


# --------------------------------------------------------------------------------------------------- saying it


def _explain(yours, written, name, cases, outcomes, mistakes, axes, tells, picture) -> None:
    """Raise what is to be said of the last outcome, the first that was wrong."""
    case, expected, got = outcomes[-1]
    given = [outcome[2] for outcome in outcomes] + [_attempt(yours, later) for later in cases[len(outcomes) :]]
    array, same_shape = _array(got), isinstance(expected, np.ndarray) and expected.shape == tuple(got.shape)
    said = next((sentence for sentence, mistake in mistakes.items() if _fits(mistake, cases, given)), None)
    if not _finite(got) and np.isfinite(expected).all():
        fault = "returned NaN" if _has_nan(got) else "returned infinite numbers"
        known, picture = f". {said}" if said else "", None
        said = _fault(yours, written, name, case, fault, _any_nan) + known
    if said is None and isinstance(expected, np.ndarray) and not same_shape:
        words = f" ({axes})" if axes else ""
        shape = f"returned the shape {tuple(got.shape)}, expected {expected.shape}{words}"
        said = _fault(yours, written, name, case, shape)
    if said is None:
        said = next(filter(None, (tell(_plain(case), expected, array) for tell in tells)), None)
    if said is None:
        said = f"{name} returned the right shape, but wrong numbers" if same_shape else f"{name} is wrong"
    if picture and same_shape:
        _draw(picture, name, expected, array)
    raise Wrong(_with_example(said, name, case, expected, got, axes))


def _attempt(yours: Callable, case: Mapping):
    """What yours gives in a case that comes after the first failure, where it need not work."""
    try:
        got = yours(*_copies(case))
    except Exception:
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
        array = np.asarray(_array(value) if isinstance(value, Tensor) else value)
        whole = array.dtype.kind != "f" or bool((array == np.round(array)).all())
        numbers = array.astype(np.int64) if whole and np.isfinite(array).all() else array
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
    if isinstance(expected, np.ndarray) and isinstance(got, Tensor) and expected.shape == tuple(got.shape):
        array = _array(got)
        apart = ~np.isclose(expected, array, rtol=0, atol=MARGIN * max(1.0, float(np.abs(expected).max())))
        if expected.ndim and apart.any():
            place = tuple(int(part) for part in np.argwhere(apart)[0])
            lines.append(f"They differ first at {list(place)}: expected {expected[place]:.4g}, got {array[place]:.4g}.")
    return "\n".join(lines)


def _draw(picture: Callable, name: str, expected: np.ndarray, got: np.ndarray) -> None:
    from IPython import get_ipython

    if get_ipython() is None:
        return
    from vit_walkthrough.plots import show

    show(picture(expected, got), f"Left what {name} should have given, right what it gave.")


# --------------------------------------------------------------------------------------------------- predictions


def predict(yours, truth, why: Mapping | None = None) -> None:
    """Compare what the reader said beforehand with what has come out.

    yours: a number, a word or a shape; `...` is a question that nobody has answered yet. truth: what it turned out to
    be, a torch.Size or a tensor of one number among others. why: wrong answer -> the sentence that belongs to it.

    Raises: AssertionError for a wrong answer; with the sentence, if there is one.
    """
    if isinstance(truth, Tensor):
        truth = truth.item() if truth.numel() == 1 else tuple(truth.tolist())
    truth = tuple(truth) if isinstance(truth, (torch.Size, list)) else truth
    if yours is ...:
        print("○ Not predicted yet: put your answer in place of the dots above, and run both cells again.")
        return
    if isinstance(yours, Tensor):
        yours = yours.tolist()
    said = tuple(yours) if isinstance(yours, (torch.Size, list)) else yours
    if type(said) is str and type(truth) is str:
        right = said.strip().lower() == truth.lower()
    elif isinstance(truth, float) and isinstance(said, (int, float)):
        right = abs(said - truth) <= 0.01 * abs(truth)  # nobody predicts the third digit
    else:
        right = said == truth
    if right:
        print(f"✓ {truth}, as you said.")
        return
    reasons = {tuple(key) if isinstance(key, list) else key: sentence for key, sentence in (why or {}).items()}
    reason = reasons.get(said) if isinstance(said, (int, float, str, tuple)) else None
    raise Wrong(f"you said {said}, but it is {truth}{f': {reason}' if reason else ''}")


# --------------------------------------------------------------------------------------------------- pictures


def beside(expected: np.ndarray, got: np.ndarray):
    """Two matrices side by side in one scale."""
    from vit_walkthrough.plots import plot_matrix, side_by_side

    signed = min(expected.min(), got.min()) < 0
    limit = float(max(np.abs(expected).max(), np.abs(got).max())) or 1.0
    axes = side_by_side(2, width=7, height=3.4)
    for ax, values, title in zip(axes, (expected, got), ("expected", "got"), strict=True):
        plot_matrix(values if signed else values / limit, kind="signed" if signed else "weights", title=title,
                    limit=limit if signed else None, numbers=False, colorbar=False, ax=ax)  # fmt: skip
    return axes[0].figure
