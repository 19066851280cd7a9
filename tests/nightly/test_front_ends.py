"""The notebooks in JupyterLab and in Notebook 7: each kind of control moved, every view used, a kernel lost."""

import shutil

import pytest

from tests.browser.conftest import browser  # noqa: F401
from tests.browser.jupyter import NOTEBOOKS, OPENED, Notebook, Server
from tests.browser.test_lab import MOVES


@pytest.fixture(scope="module", params=["lab", "notebook"])
def server(request, browser, tmp_path_factory):  # noqa: F811
    """A server on a copy of the notebooks. It asks for the browser first: without one, none is needed."""
    folder = tmp_path_factory.mktemp("jupyter")
    shutil.copytree(NOTEBOOKS, folder / "root", ignore=shutil.ignore_patterns(".*"))
    server = Server(request.param, folder)
    yield server
    server.stop()


@pytest.mark.parametrize("name", OPENED)
def test_a_notebook_is_opened_run_used_lost_and_run_again(browser, server, name):  # noqa: F811
    notebook = Notebook(browser, server, name)
    try:
        notebook.expect_stored_pictures()
        notebook.run_all()
        notebook.expect_all_alive()
        for panel in notebook.panels if name == "00_start_here" else ():
            for move in MOVES.values():
                panel.root.scroll_into_view_if_needed()
                before = panel.settled()
                move(panel.root)
                assert panel.changed(before)
        for view in notebook.views:
            view.use()
        if notebook.panels:
            notebook.restart()
            notebook.run_all()
        notebook.expect_nothing_asked_elsewhere()
    finally:
        notebook.close()
