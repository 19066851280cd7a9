"""The measure of what may take how long."""

import time

import pytest

from tests.timing import YARDSTICK, assert_at_most, plain_figure, processor_time


def test_what_is_quick_passes():
    assert_at_most(1.0, lambda: sum(range(1000)))


def test_what_is_slow_fails():
    with pytest.raises(AssertionError, match="while a plain figure took"):
        assert_at_most(YARDSTICK / 20, plain_figure)


def test_a_slow_machine_is_told_from_slow_work(monkeypatch):
    monkeypatch.setattr("timing.processor_time", lambda work: 4 * YARDSTICK)
    assert_at_most(YARDSTICK * 1.01, plain_figure)
    with pytest.raises(AssertionError):
        assert_at_most(YARDSTICK * 0.99, plain_figure)


def test_waiting_is_not_counted():
    assert processor_time(lambda: time.sleep(0.05)) < 0.04
