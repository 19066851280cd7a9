"""The notebooks in JupyterLab and in Notebook 7: every control moved by keyboard, every view used."""

import shutil

import pytest

from tests.browser.conftest import browser, open_file  # noqa: F401
from tests.browser.jupyter import NOTEBOOKS, OPENED, Notebook, Panel, Server
from tests.browser.test_exported import expect_alive, export

# What of a control takes keys, and which keys move it: the second where it stands at its end already.
KEYS = {
    ".widget-slider .noUi-handle": ("End", "Home"),
    ".widget-dropdown select": ("ArrowDown", "ArrowUp"),
    ".widget-toggle-buttons button:not(.mod-active)": ("Enter", "Enter"),
}
AT_THE_END = """one => "selectedIndex" in one ? one.selectedIndex > 0
  : one.hasAttribute("aria-valuenow") && one.getAttribute("aria-valuenow") === one.getAttribute("aria-valuemax")"""
ASLEEP = "one => one.closest('[disabled]') !== null"


def sweep(panel: Panel) -> None:
    """Move every control that can be moved as the panel is when it is opened, and see the picture follow."""
    moved = 0
    for css, keys in KEYS.items():
        for part in panel.root.locator(css).all():
            if part.is_visible() and not part.evaluate(ASLEEP):
                part.scroll_into_view_if_needed()
                before, key = panel.settled(), keys[part.evaluate(AT_THE_END)]
                part.press(key)
                assert panel.changed(before), f"{key} moves a {css}, and the picture is still: {before[1]}"
                assert panel.alerts == []
                moved += 1
    assert moved


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
        for panel in notebook.panels:
            sweep(panel)
        for view in notebook.views:
            view.use()
        if notebook.panels:
            notebook.restart()
            notebook.run_all()
            for panel in notebook.panels:
                sweep(panel)
        notebook.expect_nothing_asked_elsewhere()
    finally:
        notebook.close()


@pytest.mark.parametrize("name", OPENED)
def test_an_exported_page_lives_without_a_network(open_file, tmp_path, name):  # noqa: F811
    expect_alive(open_file(export(name, tmp_path), offline=True))
