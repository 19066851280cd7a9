"""Which answers a file's tests are for."""

import pytest


def pytest_generate_tests(metafunc):
    """Of a file's {check: {style: answer}} and {check: {mistake: (answer, words of its sentence)}} a test for each."""
    if not {"check", "answer"} <= set(metafunc.fixturenames) or not hasattr(metafunc.module, "WRONG"):
        return
    with_words = "words" in metafunc.fixturenames
    table = metafunc.module.WRONG if with_words else metafunc.module.RIGHT
    cases = [
        pytest.param(check, *(answer if with_words else [answer]), id=f"{check.__name__}-{name}")
        for check, answers in table.items()
        for name, answer in answers.items()
    ]
    metafunc.parametrize(("check", "answer", "words") if with_words else ("check", "answer"), cases)
