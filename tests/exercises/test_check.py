"""What every check says of an answer that is no answer, with the reader's own line; and predictions."""

import inspect
import re
import sys
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from vit_walkthrough import exercises
from vit_walkthrough.exercises import check, check_count_tokens, check_unpatchify, predict
from vit_walkthrough.exercises.check import Wrong, beside, examine

CHECKS = [getattr(exercises, name) for name in exercises.__all__ if name.startswith("check_")]
every_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


def line_of(function, ending: str) -> str:
    """How a message names the line of the function that ends so."""
    lines, first = inspect.getsourcelines(function)
    number = next(number for number, line in enumerate(lines, first) if line.rstrip().endswith(ending))
    return f"in your line {number}, `{lines[number - first].strip()}`"


def said_of(check, answer, **kwargs) -> str:
    with pytest.raises(Wrong) as caught:
        check(answer, **kwargs)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ every check


def raises(*arguments):
    count = len(arguments)
    return arguments[count]


def nothing(*arguments):
    arguments[0]


def a_word(*arguments):
    answer = ["a", "word"]
    return answer  # here


def hole(*arguments):
    return ...


@every_check
def test_a_function_that_raises_is_quoted_with_its_line(check):
    said = said_of(check, raises)
    assert said.startswith("raises raised IndexError: tuple index out of range")
    assert line_of(raises, "return arguments[count]") in said
    assert "It was called as raises(" in said


@every_check
def test_a_function_without_a_return_is_asked_for_one(check):
    said = said_of(check, nothing)
    assert said.startswith("nothing returned nothing; is there a `return`?")
    assert line_of(nothing, "arguments[0]").replace("in your", "It ended in your") in said


@pytest.mark.parametrize(
    "check", [check for check in CHECKS if check is not exercises.check_stack], ids=lambda check: check.__name__
)
def test_a_list_is_called_a_list(check):  # but where a list of blocks is a likely answer, and has a sentence of its own
    said = said_of(check, a_word)
    assert said.startswith("a_word returned a list, expected ")
    assert line_of(a_word, "# here") in said


@every_check
def test_a_hole_is_no_error(check, capsys):
    check(hole)
    assert capsys.readouterr().out == (
        "○ hole is still a hole: write your answer in place of the dots, and run the cell again.\n"
    )


@every_check
@pytest.mark.parametrize(
    ("given", "called"), [(3, "an int"), (None, "None"), (torch.zeros(2, 3), "a tensor of shape (2, 3)")], ids=str
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_function_is_sent_back(check, given, called):
    said = said_of(check, given)
    assert said == f"the check wants the function itself, not {called}: give its name, without brackets after it"


@every_check
def test_a_check_says_how_it_calls(check):
    parameters = inspect.signature(check).parameters
    assert list(parameters) == ["yours", "seed"]
    assert re.match(r"yours(\.\w+)?\(.+\)", check.__doc__)


# ------------------------------------------------------------------------------------------------ one of them


def by_view(patches, patch_size, height, width):
    rows, cols = height // patch_size, width // patch_size
    cut = patches.reshape(len(patches), rows, cols, -1, patch_size, patch_size)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), -1, height, width)


def in_place(patches, patch_size, height, width):
    images = by_view(patches, patch_size, height, width)
    patches.mul_(2)
    return images


def in_place_and_hidden(patches, patch_size, height, width):
    def double(numbers):
        numbers *= 2

    double(patches)
    return by_view(patches, patch_size, height, width) / 2


def not_a_number(patches, patch_size, height, width):
    share = patches / patches.sum(1, keepdim=True) * 0
    share = share / share
    return by_view(share, patch_size, height, width)


def infinite(patches, patch_size, height, width):
    return by_view(patches, patch_size, height, width) + float("inf")


def too_precise(patches, patch_size, height, width):
    images = by_view(patches, patch_size, height, width)
    return images.double()


def whole(patches, patch_size, height, width):
    return by_view(patches, patch_size, height, width).long()


def elsewhere(patches, patch_size, height, width):
    return by_view(patches, patch_size, height, width).to("meta")


def numpy_array(patches, patch_size, height, width):
    return by_view(patches, patch_size, height, width).numpy()


def endless(patches, patch_size, height, width):
    while height:
        width += 1


class Endless(nn.Module):
    def forward(self, patches, patch_size, height, width):
        return patches[height * width]


@pytest.mark.parametrize(
    ("answer", "says", "ending"),
    [
        (in_place, "in_place changes its input patches in place", "patches.mul_(2)"),
        (in_place_and_hidden, "in_place_and_hidden changes its input patches in place", "numbers *= 2"),
        (not_a_number, "not_a_number returned NaN", "share = share / share"),
        (infinite, "infinite returned infinite numbers", 'float("inf")'),
        (too_precise, "too_precise returned torch.float64, expected torch.float32", "images.double()"),
        (whole, "whole returned torch.int64, expected torch.float32", ".long()"),
        (elsewhere, "elsewhere returned a tensor on the device meta, expected cpu", 'to("meta")'),
        (numpy_array, "numpy_array returned a NumPy array, expected a tensor", ".numpy()"),
    ],
)
def test_what_is_wrong_whatever_its_numbers_is_named_with_its_line(answer, says, ending):
    said = said_of(check_unpatchify, answer)
    assert said.startswith(says)
    assert line_of(answer, ending) in said


def test_a_list_that_was_emptied_is_noticed_too():
    def emptied(numbers):
        total = sum(numbers)
        numbers.clear()
        return total

    with pytest.raises(Wrong, match="emptied changes its input numbers in place, in your line") as caught:
        examine(emptied, sum, [dict(numbers=[1, 2])], {}, holds="")
    assert line_of(emptied, "numbers.clear()") in str(caught.value)


def test_a_loop_that_never_ends_is_ended(monkeypatch):
    monkeypatch.setattr(check, "SECONDS", 0.2)
    said = said_of(check_unpatchify, endless)
    assert said.startswith("endless did not return within 0.2 seconds, in your line")
    assert said.endswith(": a loop that never ends?")
    assert any(line in said for line in ("`while height:`", "`width += 1`"))


def test_a_module_is_tried_like_a_function():
    said = said_of(check_unpatchify, Endless())
    assert said.startswith("Endless raised IndexError")
    assert line_of(Endless, "return patches[height * width]") in said


def test_a_right_answer_with_a_wrong_name_is_right(capsys):
    check_unpatchify(lambda a, b, c, d: by_view(a, b, c, d))
    assert capsys.readouterr().out.startswith("✓ ")


def test_another_shape_is_said_with_its_axis_words():
    said = said_of(check_unpatchify, lambda patches, *sizes: by_view(patches, *sizes)[:, :, :-1])
    assert "returned the shape (1, 1, 3, 6), expected (1, 1, 4, 6) (batch channels height width)" in said


def test_wrong_numbers_for_no_known_reason_are_shown():
    said = said_of(check_unpatchify, lambda *arguments: by_view(*arguments) + 5)
    assert said.startswith("<lambda> returned the right shape, but wrong numbers")
    assert "They differ first at [0, 0, 0, 0]: expected 0, got 5." in said


def test_a_mistake_is_named_only_if_it_explains_every_case():
    def sometimes(patches, patch_size, height, width):  # reshapes in the first case alone
        images = by_view(patches, patch_size, height, width)
        return patches.reshape(images.shape) if len(patches) == 1 and patch_size == 2 else images

    assert said_of(check_unpatchify, sometimes).startswith("sometimes returned the right shape, but wrong numbers")


def test_what_works_in_the_smallest_case_alone_is_shown_in_the_next():
    said = said_of(check_count_tokens, lambda height, width, patch_size: 7)
    assert "height=224, width=224, patch_size=16" in said
    assert "expected    got\n197         7" in said


@pytest.mark.parametrize(
    ("given", "says"),
    [(7.0, "returned 7.0, expected a whole number"), (True, "a bool"), (float("inf"), "returned inf")],
    ids=str,
)
def test_a_count_is_a_whole_number(given, says):
    assert says in said_of(check_count_tokens, lambda height, width, patch_size: given)


def changeable():
    """Another answer at every call: a list, then an error."""
    calls = []

    def answer(patches, patch_size, height, width):
        calls.append(1)
        if len(calls) > 1:
            raise ValueError("not again")
        return [patches]

    return answer


def test_an_answer_that_fails_when_it_is_run_again_is_judged_by_the_first_time():
    assert said_of(check_unpatchify, changeable()).startswith("answer returned a list, expected a tensor")


def twice_the_patches(patches, patch_size, height, width):
    return by_view(patches.mul_(2), patch_size, height, width)


def all_nan(patches, patch_size, height, width):
    return by_view(patches * float("nan"), patch_size, height, width)


def infinite_before(patches, patch_size, height, width):
    images = by_view(patches, patch_size, height, width)
    large = images / 0
    return large + 1


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        (twice_the_patches, "patches.mul_(2), patch_size, height, width)"),
        (all_nan, 'float("nan"), patch_size, height, width)'),
        (infinite_before, "large = images / 0"),
    ],
)
def test_the_line_that_calls_is_named_and_not_what_it_calls(answer, ending):
    assert line_of(answer, ending) in said_of(check_unpatchify, answer)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (nn.Fold((4, 6), 2, stride=2), "Fold raised TypeError"),
        (partial(by_view, patch_size=2), "by_view raised TypeError"),
        (nn.Fold, "Fold is a class: give the check a module made of it, Fold(...)"),
        (lambda *arguments: by_view(*arguments).to_sparse(), "<lambda> returned a sparse or nested tensor"),
        (lambda *arguments: by_view(*arguments).bfloat16(), "<lambda> returned torch.bfloat16, expected torch.float32"),
        (lambda *arguments: sys.exit(), "<lambda> raised SystemExit"),
        (lambda *arguments: by_view(*arguments) + 1e30, "<lambda> returned the right shape, but wrong numbers"),
        (lambda *arguments: torch.einsum("ab->a", *arguments[:1]), "<lambda> raised RuntimeError"),
    ],
)
def test_odd_answers_get_a_sentence(answer, says):
    said = said_of(check_unpatchify, answer)
    assert said.startswith(says)
    assert "site-packages" not in said
    assert "-9223372036854775808" not in said
    assert "\n" not in said.split("The smallest")[0].rstrip()


def test_torch_s_own_lines_are_not_called_yours():
    assert "in your" not in said_of(check_unpatchify, torch.nn.functional.fold)


@pytest.mark.parametrize("answer", [torch.tensor(7), np.int64(7)], ids=str)
def test_a_number_is_a_number_whoever_s_it_is(answer):
    assert "height=224" in said_of(check_count_tokens, lambda height, width, patch_size: answer)


def test_numbers_that_look_alike_are_written_out():
    said = said_of(check_unpatchify, lambda *arguments: by_view(*arguments) + 0.0004 * (arguments[1] == 2))
    assert re.search(r"expected 0, got 0\.0004", said)
    said = said_of(check_unpatchify, lambda *arguments: by_view(*arguments) * 1.00004)
    assert "expected 6, got 6.0002403." in said


def test_what_the_reader_prints_is_printed_once(capsys):
    def talkative(patches, patch_size, height, width):
        print("here")
        return [patches]

    said_of(check_unpatchify, talkative)
    assert capsys.readouterr().out == "here\n"


def test_a_trace_that_was_set_is_set_again():
    def tracer(frame, event, value):
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        said_of(check_unpatchify, in_place)
        said_of(check_unpatchify, changeable())
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)


def test_a_notebook_shows_the_words_alone():
    with pytest.raises(Wrong) as caught:
        check_unpatchify(infinite)
    lines = caught.value._render_traceback_()
    assert " ".join(lines).split() == f"✗ {caught.value}".split()
    assert max(map(len, lines)) <= 92


def test_expected_stands_beside_got_and_below_it_where_both_are_too_wide():
    said = said_of(check_unpatchify, infinite)
    assert "expected (batch channels height width)    got\n[[[[ 0  1  2  3  4  5]                    [[[[inf" in said
    wide = [dict(numbers=torch.arange(24.0))]
    said = said_of(partial(examine, truth=lambda n: n, cases=wide, mistakes={}, holds=""), lambda n: n + 1)
    assert re.search(r"expected\n\[.+\]\ngot\n\[", said, flags=re.S)


def test_words_numbers_and_tables_can_be_expected_too(capsys):
    cases, cases_of_tables = [dict(count=2)], [dict(names=("a", "b"))]
    half = lambda count: count / 2  # noqa: E731
    examine(lambda count: torch.tensor(count / 2), half, cases, {}, holds="Half.")
    examine(lambda count: "x" * count, lambda count: "xx", cases, {}, holds="Two letters.")
    examine(lambda names: {"a": 0, "b": 1}, lambda names: {names[0]: 0, names[1]: 1}, cases_of_tables, {}, holds="All.")
    assert capsys.readouterr().out == "✓ Half.\n✓ Two letters.\n✓ All.\n"
    with pytest.raises(Wrong, match="returned an int, expected a str"):
        examine(lambda count: 2, lambda count: "xx", cases, {}, holds="")
    with pytest.raises(Wrong, match=r"returned nan"):
        examine(lambda count: float("nan"), half, cases, {}, holds="")


def test_in_a_notebook_expected_and_got_are_drawn(monkeypatch):
    drawn = []
    monkeypatch.setattr("IPython.get_ipython", lambda: "a kernel")
    monkeypatch.setattr("vit_walkthrough.draw.theme.show", lambda figure, alt: drawn.append((figure, alt)))
    said_of(check_unpatchify, lambda patches, p, height, width: patches.reshape(len(patches), -1, height, width))
    ((figure, alt),) = drawn
    assert alt == "Left what <lambda> should have given, right what it gave."
    expected, got = (np.asarray(ax.images[0].get_array()) for ax in figure.axes)
    assert np.allclose(expected * 23, np.arange(24).reshape(4, 6))
    assert np.allclose(got[0] * 23, [0, 1, 6, 7, 2, 3])


def test_matrices_of_both_signs_are_drawn_in_one_scale():
    figure = beside(np.array([[1.0, -2.0]]), np.array([[0.5, 0.25]]))
    assert [ax.images[0].get_clim() for ax in figure.axes] == [(-2, 2), (-2, 2)]


# ------------------------------------------------------------------------------------------------ predictions


@pytest.mark.parametrize(
    ("yours", "truth"),
    [
        (5, 5),
        ((2, 3), torch.zeros(2, 3).shape),
        ([2, 3], torch.zeros(2, 3).shape),
        (torch.Size([2]), (2,)),
        (3, torch.tensor(3)),
        ([14, 15], torch.tensor([14, 15])),
        (2.3, 2.302585),
        (Fraction(1, 50), 0.02),
        (2.3, np.float32(2.302585)),
        (np.array([2, 3]), (2, 3)),
        ("Left ", "left"),
        (True, True),
    ],
    ids=str,
)
def test_a_right_prediction_is_confirmed(yours, truth, capsys):
    predict(yours, truth)
    said = capsys.readouterr().out
    assert said.startswith("✓ ")
    assert said.endswith(", as you said.\n")


@pytest.mark.parametrize(
    ("yours", "truth", "says"),
    [
        (4, 5, "You said 4, but it is 5: one more."),
        ((3, 2), torch.zeros(2, 3).shape, "You said (3, 2), but it is (2, 3): rows first."),
        ([3, 2], (2, 3), "You said [3, 2], but it is (2, 3): rows first."),
        (np.array([3, 2]), (2, 3), "You said [3 2], but it is (2, 3): rows first."),
        (6, 5, "You said 6, but it is 5."),
        ("5", 5, "You said '5', but it is 5."),
        (2.2, 2.302585, "You said 2.2, but it is 2.303."),
        (2.2, torch.tensor(3.2), "You said 2.2, but it is 3.2."),
        ("Right", "left", "You said Right, but it is left: the other one."),
        ([1, [2]], 3, "You said [1, [2]], but it is 3."),
        ({}, 5, "You said {}, but it is 5."),
    ],
    ids=str,
)
def test_a_wrong_prediction_gets_its_sentence_and_is_no_error(yours, truth, says, capsys):
    predict(yours, truth, {4: "one more", (3, 2): "rows first", "right": "the other one"})
    assert capsys.readouterr().out == f"✗ {says}\n"


def test_a_prediction_that_nobody_has_made_is_asked_for(capsys):
    predict(..., 5)
    assert capsys.readouterr().out.startswith("○ Not predicted yet")
