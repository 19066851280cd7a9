"""What the tests of panels share: who was called, and with what."""

import pytest

from vit_walkthrough import draw


@pytest.fixture
def spy(monkeypatch):
    """Record what a function of `draw` is called with."""

    def watch(name: str) -> list:
        calls, real = [], getattr(draw, name)
        monkeypatch.setattr(draw, name, lambda *args, **more: (calls.append((args, more)), real(*args, **more))[1])
        return calls

    return watch
