"""Every exercise accepts right answers and knows its slips; and what the engine says of an answer that is none."""

import copy
import re
import sys
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.exercises.answers import REMARKED, RIGHT
from vit_walkthrough import exercises
from vit_walkthrough.exercises import check as engine
from vit_walkthrough.exercises import check_folded, check_unpatchify
from vit_walkthrough.exercises.check import Exercise, Wrong, call, exercise

CHECKS = [check for check in vars(exercises).values() if isinstance(check, Exercise)]
whole = RIGHT["unpatchify"]
every_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


def said_of(check, answer) -> str:
    with pytest.raises(Wrong) as caught:
        check(answer)
    return str(caught.value)


def outcome(check, change=lambda right: right):
    """An exercise of what the reader's function ends in, and a function whose outcome is the right one, changed."""
    return replace(check, run=call), lambda *case: change(next(check.body(*case)))


def slips_of(check) -> list:
    """Of each slip (sentence, outcome) in every case."""
    found = []
    for case in check.cases:
        steps = check.body(*case)
        right, slips = next(steps), []
        with suppress(StopIteration):
            slips = [steps.send(right), *steps]
        found.append([slip for slip in slips if isinstance(slip, tuple)])
    return list(zip(*found, strict=True))


@every_check
def test_a_slip_is_told_its_own_sentence(check):
    for slip in slips_of(check):
        outcomes = iter(slip)

        def answer(*case, outcomes=outcomes):
            _, value = next(outcomes)
            return value() if callable(value) else value

        said = said_of(replace(check, run=call), answer).split("\n\nThe smallest case")[0]
        said = re.sub(r"^answer returned (NaN|infinite numbers)\. ", "", said)
        assert said in [sentence.rstrip(". ") for sentence, _ in slip], slip[0]


@every_check
def test_right_answers_pass(check, capsys):
    cases = copy.deepcopy(check.cases)
    check(RIGHT[check.__name__.removeprefix("check_")])
    same, reference = outcome(check)
    same(reference)
    assert capsys.readouterr().out == 2 * f"✓ {check.holds}\n"
    for value, after in zip(sum(cases, ()), sum(map(tuple, check.cases), ()), strict=True):
        assert not isinstance(value, Tensor | list) or engine.same(value, after)  # the reference leaves it as it is


@pytest.mark.parametrize(("check", "answer", "words"), REMARKED)
def test_remarks(check, answer, words):
    assert words in said_of(getattr(exercises, f"check_{check}"), answer)


@pytest.mark.parametrize("check", [check_unpatchify, check_folded])
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_answer(check, capsys):
    assert said_of(check, lambda *arguments: None).startswith("<lambda> returned nothing; is there a `return`?")
    for given, called in ((3, "an int"), (None, "None"), (torch.zeros(2, 3), "a tensor of shape (2, 3)")):
        assert f"not {called}: " in said_of(check, given)
    assert not capsys.readouterr().out
    check(lambda *arguments: ...)
    assert capsys.readouterr().out.startswith("○ <lambda> is still a hole: ")


def test_what_is_no_such_tensor():
    changes = {"a list, expected a tensor": Tensor.tolist, "a NumPy array, expected a tensor": Tensor.numpy}
    changes |= {r"a tensor of dtype torch\.float64, expected torch\.": Tensor.double}
    changes |= {r"a tensor of layout torch\.sparse_coo, expected torch\.strided": Tensor.to_sparse}
    changes |= {"a tensor of device meta, expected cpu": lambda right: right.to("meta")}
    changes |= {"NaN": lambda right: right * torch.nan, "infinite numbers": lambda right: right + torch.inf}
    for says, change in (changes | {r"the shape \(1,": lambda right: right[None]}).items():
        assert re.match(f"<lambda> returned {says}", said_of(*outcome(check_unpatchify, change)))
        of_weight = outcome(check_folded, lambda right, change=change: (change(right[0]), right[1]))
        assert re.match(f"<lambda> returned {says}", said_of(*of_weight))


@pytest.mark.parametrize("check", [check_unpatchify, check_folded, exercises.check_hide_padding])
def test_a_change_in_place_is_noticed(check):
    def in_place(*case):
        right = copy.deepcopy(next(check.body(*case)))
        tensor = [value for value in case if isinstance(value, Tensor)][-1]
        tensor.copy_(~tensor if tensor.dtype == torch.bool else tensor + 1)
        return right

    assert " in place. Whoever called it still needs " in said_of(check, in_place)


def reshaped(patches, patch_size, height, width):
    return patches.reshape(len(patches), -1, height, width)


class Fails(nn.Module):
    def forward(self, patches, patch_size, height, width):
        return patches[height * width]


def test_an_error_is_told_with_the_reader_s_own_line_and_not_a_library_s():
    said = said_of(check_unpatchify, Fails())
    assert re.match(r"Fails raised IndexError.*, in your line \d+, `return patches\[height \* width\]`", said)
    assert "It was called as Fails(patches of shape (1, 6, 4), patch_size=2" in said
    assert "einsum(" in said_of(check_unpatchify, lambda *arguments: torch.einsum("ab->a", *arguments[:1]))
    assert "in your" not in said_of(check_unpatchify, nn.functional.fold)


@exercise(cases=[([1, 2],), ([3],)], holds="All.")
def check_sum(numbers):
    """yours(numbers)"""
    yield sum(numbers)


@exercise(cases=[(2.0,), (3.0,)], holds="A third.")
def check_third(number):
    """yours(number)"""
    yield number / 3


def test_the_smallest_failing_case_is_shown_expected_above_got(capsys):
    said = said_of(check_unpatchify, lambda *given: print("here") or reshaped(*given))
    assert "<lambda>(patches of shape (1, 6, 4), patch_size=2, height=4, width=6)" in said
    assert re.search(r"expected .*\n\[\[\[\[ 0  1  2  3  4  5\]\n(?s:.*)\ngot\n\[\[\[\[ 0  1  6  7  2  3\]\n", said)
    assert "[0, 0, 0, 2]: expected 2, got 6." in said
    assert capsys.readouterr().out == "here\n"  # once
    alike = said_of(check_unpatchify, lambda *arguments: whole(*arguments) * 1.00004)
    assert "expected 6, got 6.0002403." in alike
    # What works in the smallest case alone is shown in the next.
    said = said_of(exercises.check_patch_of_pixel, lambda y, x, width, patch_size: 5)
    assert "y=3, x=0, width=6, patch_size=2" in said
    assert "\nexpected\n3\ngot\n5" in said


def test_a_slip_is_named_only_if_it_explains_every_case():
    def sometimes(patches, *sizes):
        return reshaped(patches, *sizes) if len(patches) == 1 else whole(patches, *sizes)

    assert said_of(check_unpatchify, sometimes).startswith("sometimes returned the right shape, but wrong numbers")


def test_a_loop_that_never_ends_is_ended(monkeypatch):
    def endless(patches, patch_size, height, width):
        while height:
            with suppress(Exception):
                width += 1

    monkeypatch.setattr(engine, "SECONDS", 0.2)
    assert re.match(r"endless .* 0\.2 seconds, in your line \d", said_of(check_unpatchify, endless))


@pytest.mark.parametrize(
    ("check", "answer", "says"),
    [
        (check_unpatchify, nn.Fold, "Fold is a class: "),
        (check_unpatchify, partial(whole, patch_size=2), "<lambda> raised TypeError"),
        (check_unpatchify, lambda *arguments: sys.exit(), "<lambda> raised SystemExit"),
        (check_unpatchify, lambda *arguments: whole(*arguments) + 1e30, "<lambda> returned the right shape, but"),
        (check_sum, lambda numbers: [sum(numbers), numbers.clear()][0], "<lambda> changes numbers in place"),
        (check_sum, lambda numbers: 3.0, "<lambda> returned 3.0, expected a whole number"),
        (check_sum, lambda numbers: True, "<lambda> returned a bool, expected a number"),
        (check_sum, lambda numbers: 4, "<lambda> returned a wrong answer"),
        (check_third, lambda number: torch.tensor(float("nan")), "<lambda> returned nan"),
        (check_folded, lambda *given: torch.ones(1), "<lambda> returned a tensor of shape (1,), expected 2 tensors"),
        (check_folded, lambda *given: (given[0], 3), "<lambda> returned an int, expected a tensor"),
    ],
)
def test_odd_answers_get_a_sentence(check, answer, says):
    said = said_of(check, answer)
    assert said.startswith(says)
    assert "site-packages" not in said


def test_numbers_are_numbers_whoever_made_them(capsys):
    check_sum(lambda numbers: torch.tensor(numbers).sum())
    check_sum(np.sum)
    check_third(lambda number: np.float32(number / 3))
    assert capsys.readouterr().out == "✓ All.\n✓ All.\n✓ A third.\n"


def test_a_notebook_shows_the_words_alone():
    with pytest.raises(Wrong) as caught:
        check_unpatchify(reshaped)
    lines = caught.value._render_traceback_()
    assert " ".join(lines).split() == f"✗ {caught.value}".split()
    assert max(map(len, lines)) <= 92
