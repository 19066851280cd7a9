"""How the checks are themselves checked: by right answers in several styles, and wrong ones with the words they get."""

import re

import jaxtyping
import pytest
from timing import assert_at_most

SEEDS = range(200)


def each_right(answers):
    """Parameters check, answer: of {check: {style: answer}}."""
    cases = [
        (check, answer, f"{check.__name__}-{style}") for check in answers for style, answer in answers[check].items()
    ]
    return pytest.mark.parametrize(("check", "answer"), [pytest.param(*case[:2], id=case[2]) for case in cases])


def each_wrong(answers):
    """Parameters check, answer, words: of {check: {mistake: (answer, words of its sentence)}}."""
    cases = [(check, *pair, f"{check.__name__}-{name}") for check in answers for name, pair in answers[check].items()]
    return pytest.mark.parametrize(
        ("check", "answer", "words"), [pytest.param(*case[:3], id=case[3]) for case in cases]
    )


def seeds():
    """All of them, the types checked at the first: to do it again takes longer than the check itself."""
    yield SEEDS[0]
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield from SEEDS[1:]
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def passes(check, answer, capsys):
    """The check prints its one line, whatever the seed."""
    for seed in seeds():
        check(answer, seed=seed)
        said = capsys.readouterr().out
        assert said.startswith("✓ ")
        assert said.count("\n") == 1


def is_told(check, answer, words):
    """The check says these words, whatever the seed; and not because it quotes the line of the table they stand in."""
    for seed in seeds():
        with pytest.raises(AssertionError) as caught:
            check(answer, seed=seed)
        said = re.sub(r"line \d+, `.*?`(?=[.,:]|$)", "line", str(caught.value), flags=re.M)
        assert words in said


def takes_at_most_200_ms(check, answer):
    assert_at_most(0.2, lambda: check(answer))
