"""Every check has its answers, right and wrong, and the README counts them."""

from importlib import import_module
from pathlib import Path

import pytest

from vit_walkthrough import exercises

HERE = Path(__file__).parent
SUBJECTS = sorted(path.stem for path in HERE.glob("test_*.py") if path.stem not in ("test_answers", "test_check"))
RIGHT, WRONG = {}, {}
for subject in SUBJECTS:
    answers = import_module(f"tests.exercises.{subject}")
    RIGHT |= answers.RIGHT
    WRONG |= answers.WRONG
CHECKS = [getattr(exercises, name) for name in exercises.__all__ if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_check_is_tried_with_right_answers_in_three_styles_and_four_wrong_ones(check):
    assert len(RIGHT[check]) >= 3
    assert len(WRONG[check]) >= 4
    assert len({words for _, words in WRONG[check].values()}) >= 4


def test_no_answer_is_for_a_check_that_is_gone():
    assert RIGHT.keys() == WRONG.keys() == set(CHECKS)


def test_the_readme_counts_them():
    readme = (HERE.parents[1] / "README.md").read_text()
    right, wrong = (sum(map(len, answers.values())) for answers in (RIGHT, WRONG))
    assert f"The {len(CHECKS)} checks are themselves checked: {wrong} wrong answers" in readme
    assert f"{right} right ones" in readme
