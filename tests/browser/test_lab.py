"""The notebooks in JupyterLab."""

from tests.browser.jupyter import Everywhere, opened, ran, server  # noqa: F401

FRONT_END = "lab"


class TestLab(Everywhere):
    pass
