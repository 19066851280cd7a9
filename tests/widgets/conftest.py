"""What the tests of panels share: who was called, and with what."""

import pytest

from vit_walkthrough import draw


@pytest.fixture
def spy(monkeypatch):
    """Record what a function of `draw` is called with."""

    def watch(name: str) -> list:
        calls, real = [], getattr(draw, name)

        def watched(*args, **more):
            calls.append((args, more))
            return real(*args, **more)

        monkeypatch.setattr(draw, name, watched)
        return calls

    return watch


@pytest.fixture
def count_forward(monkeypatch):
    """Record every run of a module: itself and its input."""

    def watch(module: type) -> list:
        calls, real = [], module.forward

        def forward(self, tensor):
            calls.append((self, tensor))
            return real(self, tensor)

        monkeypatch.setattr(module, "forward", forward)
        return calls

    return watch
