"""The notebooks in Notebook 7."""

from tests.browser.jupyter import Everywhere, opened, ran, server  # noqa: F401

FRONT_END = "notebook"


class TestNotebook(Everywhere):
    pass
