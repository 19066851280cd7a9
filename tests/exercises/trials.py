"""How the checks are themselves checked: by right answers in several styles, and wrong ones with the words they get."""

import re

import jaxtyping
import pytest

from tests.timing import assert_at_most

SEEDS = range(200)


def seeds():
    """All of them, the types checked at the first: to do it again takes longer than the check itself."""
    yield SEEDS[0]
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield from SEEDS[1:]
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


# Every file of answers imports these three, and conftest.py gives them the file's own RIGHT and WRONG.


def test_right_answers_pass(check, answer, capsys):
    for seed in seeds():
        check(answer, seed=seed)
        said = capsys.readouterr().out
        assert said.startswith("✓ ")
        assert said.count("\n") == 1


def test_in_time(check, answer):
    assert_at_most(0.2, lambda: check(answer))


def test_wrong_answers_get_their_sentence(check, answer, words):
    """And not because the line of the table is quoted in which the words stand."""
    for seed in seeds():
        with pytest.raises(AssertionError) as caught:
            check(answer, seed=seed)
        said = re.sub(r"line \d+, `.*?`(?=[.,:]|$)", "line", str(caught.value), flags=re.M)
        assert words in said
