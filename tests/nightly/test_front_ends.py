"""The notebooks in JupyterLab and in Notebook 7: every control moved by keyboard and by mouse, every view used."""

import shutil

import pytest

from tests.browser.conftest import browser  # noqa: F401
from tests.browser.jupyter import NOTEBOOKS, OPENED, Notebook, Panel, Server, until
from tests.browser.reader import drag, spot


class Control:
    """One control of a panel: `place` is where it stands, `put` brings it there; `keyboard` and `mouse` move it."""

    css = part_css = ""

    def __init__(self, panel: Panel, root):
        self.panel, self.page, self.root, self.part = panel, panel.page, root, root.locator(self.part_css).first

    def mouse(self) -> None:  # the list that a menu opens is the system's, out of the page's reach
        self.put(0 if self.place() else 1)

    def move(self, how: str) -> None:
        """Move it, so that the picture changes, and back, to the same picture again."""
        self.root.scroll_into_view_if_needed()
        name = f"{type(self).__name__} {self.root.inner_text()!r}"
        before, place = self.panel.settled(), self.place()
        if how == "keyboard":
            self.part.focus()
            self.page.keyboard.press("Tab")
            self.page.keyboard.press("Shift+Tab")
            assert self.root.evaluate("one => one.contains(document.activeElement)"), f"no Tab leads to {name}"
        getattr(self, how)()
        assert self.panel.changed(before), f"{how} moves {name}, and the picture is still: {before[1]}"
        assert self.panel.alerts == []
        self.put(place)
        until(self.page, lambda: self.panel.shown() == before, what=f"the picture from before {name} moved")


class Slider(Control):
    css, part_css = ".widget-slider", ".noUi-handle"

    def place(self) -> str:
        assert self.part.get_attribute("aria-label") == self.root.locator(".widget-label").inner_text()
        return self.part.get_attribute("aria-valuetext")

    def put(self, place: str) -> None:
        self.part.press("Home")
        while (now := self.place()) != place:
            self.part.press("ArrowRight")
            until(self.page, lambda now=now: self.place() != now, 2, f"ArrowRight that moves on from {now} to {place}")

    def at_the_end(self) -> bool:
        return self.part.evaluate("one => one.getAttribute('aria-valuenow') === one.getAttribute('aria-valuemax')")

    def keyboard(self) -> None:
        self.part.press("Home" if self.at_the_end() else "End")

    def mouse(self) -> None:
        end = spot(self.root.locator(".noUi-base"), 0, -0.5 if self.at_the_end() else 0.5, 1, 1)
        drag(self.page, spot(self.part, 0, 0, 1, 1), end)


class Dropdown(Control):
    css, part_css = ".widget-dropdown", "select"

    def place(self) -> int:
        return self.part.evaluate("one => one.selectedIndex")

    def put(self, place: int) -> None:
        self.part.select_option(index=place)

    def keyboard(self) -> None:
        self.part.press("ArrowUp" if self.place() else "ArrowDown")


class Toggles(Control):
    css, part_css = ".widget-toggle-buttons", "button"

    def place(self) -> int:
        return self.root.locator("button").evaluate_all("all => all.findIndex(one => one.matches('.mod-active'))")

    def put(self, place: int) -> None:
        self.root.locator("button").nth(place).click()

    def keyboard(self) -> None:
        if not self.place():
            self.page.keyboard.press("Tab")
        self.page.keyboard.press("Enter")


def sweep(panel: Panel, how: str) -> None:
    """Move every control that can be moved as the panel is when it is opened."""
    every = [kind(panel, root) for kind in (Slider, Dropdown, Toggles) for root in panel.root.locator(kind.css).all()]
    asleep = "one => one.closest('[disabled]') !== null"
    awake = [each for each in every if each.root.is_visible() and not each.part.evaluate(asleep)]
    assert awake
    for control in awake:
        control.move(how)


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
            sweep(panel, "keyboard")
            sweep(panel, "mouse")
        for view in notebook.views:
            view.use()
        if notebook.panels:
            notebook.restart()
            notebook.run_all()
            for panel in notebook.panels:
                sweep(panel, "keyboard")
        notebook.expect_nothing_asked_elsewhere()
    finally:
        notebook.close()
