"""The notebooks in JupyterLab."""

from .jupyter import Everywhere, opened, ran, server  # noqa: F401

FRONT_END = "lab"


class TestLab(Everywhere):
    pass
