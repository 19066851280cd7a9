"""The notebooks in JupyterLab and in Notebook 7: every control moved by keyboard and by mouse, every view used."""

import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.browser.conftest import browser, open_file  # noqa: F401
from tests.browser.jupyter import NOTEBOOKS, OPENED, Notebook, Panel, Server, drag, until
from tests.browser.test_exported import expect_alive, export

GRACE = 2.5  # seconds after which a change that changed no picture is followed by the next one


class Control:
    """One control of a panel. A place is where it stands; `steps` moves it once at every `next`, through all places."""

    css = part_css = ""

    def __init__(self, panel: Panel, root):
        self.panel, self.page, self.root, self.part = panel, panel.page, root, root.locator(self.part_css).first

    def place(self):
        raise NotImplementedError

    def put(self, place) -> None:
        raise NotImplementedError

    def steps(self, how: str) -> Iterator[None]:
        raise NotImplementedError

    @property
    def name(self) -> str:
        words = self.root.locator(".widget-label").all_text_contents() or [self.root.inner_text()]
        return f"{type(self).__name__.lower()} {words[0].strip()!r}"

    def awake(self) -> bool:
        return self.root.is_visible() and self.part.evaluate("one => !one.closest('[disabled]')")

    def expect(self, holds: Callable[[], bool], what: str) -> None:
        assert until(self.page, holds, 2), f"{self.name}: {what}"

    def move(self, how: str) -> None:
        """Move it until the picture changes, and back, to the same picture again."""
        self.root.scroll_into_view_if_needed()
        before, place = self.panel.settled(), self.place()
        if how == "keyboard":
            self.part.focus()
            self.page.keyboard.press("Tab")
            self.page.keyboard.press("Shift+Tab")
            assert self.root.evaluate("one => one.contains(document.activeElement)"), f"no Tab leads to {self.name}"
        if not any(self.panel.changed(before, GRACE) for _ in self.steps(how)):
            pytest.fail(f"wherever {how} moves {self.name}, the picture is still: {before[1]}")
        assert self.panel.alerts == []
        self.back(place, before)

    def back(self, place, shown: tuple[str, str]) -> None:
        self.put(place)
        until(self.page, lambda: self.panel.shown() == shown, what=f"the picture from before {self.name} moved")


class Slider(Control):
    css, part_css = ".widget-slider", ".noUi-handle"

    def place(self) -> str:
        return self.part.get_attribute("aria-valuetext")

    def press(self, key: str) -> bool:
        """Whether the key moved it."""
        old = self.place()
        self.part.press(key)
        return bool(until(self.page, lambda: self.place() != old, 2))

    def put(self, place: str) -> None:
        self.press("Home")
        while self.place() != place:
            assert self.press("ArrowRight"), f"{self.name} does not come back to {place}"

    def steps(self, how: str) -> Iterator[None]:
        assert self.part.get_attribute("aria-label") == self.root.locator(".widget-label").inner_text()
        if how == "mouse":
            for part in (1, 0, 0.5, 0.25, 0.75, 0.1, 0.9):
                drag(self.root, part)
                yield
            return
        end = "one => one.getAttribute('aria-valuenow') === one.getAttribute('aria-valuemax')"
        while not self.part.evaluate(end):
            assert self.press("ArrowRight"), f"ArrowRight does not move {self.name} from {self.place()}"
            yield
        while self.press("ArrowLeft"):
            yield


class Choice(Control):
    """One of several options, which are all tried. Its place is the number of the option."""

    def count(self) -> int:
        raise NotImplementedError


class Dropdown(Choice):
    css, part_css = ".widget-dropdown", "select"

    def count(self) -> int:
        return self.part.evaluate("one => one.options.length")

    def place(self) -> int:
        return self.part.evaluate("one => one.selectedIndex")

    def put(self, place: int) -> None:
        self.part.select_option(index=place)

    def steps(self, how: str) -> Iterator[None]:
        if how == "mouse":  # the list that opens is the system's, out of the page's reach
            for option in [option for option in range(self.count()) if option != self.place()]:
                self.put(option)
                yield
            return
        for key, step, end in (("ArrowDown", 1, self.count() - 1), ("ArrowUp", -1, 0)):
            while self.place() != end:
                wanted = self.place() + step
                self.part.press(key)
                self.expect(lambda wanted=wanted: self.place() == wanted, f"{key} does not lead to option {wanted}")
                yield


class Toggles(Choice):
    css, part_css = ".widget-toggle-buttons", "button"

    def count(self) -> int:
        return self.root.locator("button").count()

    def place(self) -> int:
        return self.root.locator("button").evaluate_all("all => all.findIndex(one => one.matches('.mod-active'))")

    def put(self, place: int) -> None:
        self.root.locator("button").nth(place).click()

    def steps(self, how: str) -> Iterator[None]:
        first = self.place()
        for option in [*range(first + 1, self.count()), *range(first)]:
            if how == "mouse":
                self.put(option)
            else:
                self.part.focus()
                for _ in range(option):
                    self.page.keyboard.press("Tab")
                self.page.keyboard.press(("Enter", " ")[option % 2])
            self.expect(lambda option=option: self.place() == option, f"{how} does not lead to option {option}")
            yield


class Checkbox(Control):
    css, part_css = ".widget-checkbox", "input"

    def place(self) -> bool:
        return self.part.is_checked()

    def put(self, place: bool) -> None:
        self.part.set_checked(place)

    def steps(self, how: str) -> Iterator[None]:
        for _ in range(2):
            self.part.click() if how == "mouse" else self.part.press(" ")
            yield


def controls(panel: Panel) -> list[Control]:
    """All but those around a file input, which wait for a file and have their own test."""
    kinds = {kind.css: kind for kind in (Slider, Dropdown, Toggles, Checkbox)}
    found = panel.root.locator(", ".join(kinds))
    names = found.evaluate_all(
        """(list, kinds) => list.map((one) => {
            const box = one.parentElement.closest(".widget-box"), file = box.querySelector("input[type=file]");
            if (file && file.closest(".widget-box") === box) return null;
            return kinds.find((kind) => one.matches(kind)); })""",
        list(kinds),
    )
    return [kinds[name](panel, found.nth(place)) for place, name in enumerate(names) if name]


def sweep(panel: Panel, how: str) -> None:
    """Move every control, and see picture and text change. Those that are disabled or hidden are moved in a state of
    the others that wakes them."""
    every = controls(panel)
    assert every
    awake = [control for control in every if control.awake()]
    for control in awake:
        control.move(how)
    for control in every:
        if control not in awake:
            sleep = wake(control, every)
            control.move(how)
            sleep()


def wake(control: Control, every: list[Control]) -> Callable[[], None]:
    """Choose what makes this control one that can be moved; gives back what takes that choice back."""
    choices = [other for other in every if isinstance(other, Choice) and other.awake()]
    for other in sorted(choices, key=Choice.count):  # what has few options is soon tried
        first, place = control.panel.settled(), other.place()
        for option in [option for option in range(other.count()) if option != place]:
            before = control.panel.settled()
            other.put(option)
            control.panel.changed(before, 2 * GRACE)  # until it is drawn: the control itself wakes before
            if control.awake():
                return lambda other=other, place=place, first=first: other.back(place, first)
        other.back(place, first)
    pytest.fail(f"no choice wakes {control.name}")


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
            for how in ("keyboard", "mouse"):
                sweep(panel, how)
        for view in notebook.views:
            view.use()
        if name == OPENED[1]:  # it runs fastest
            notebook.restart()
            notebook.run_all()
            for panel in notebook.panels:
                sweep(panel, "keyboard")
        notebook.expect_nothing_asked_elsewhere()
    finally:
        notebook.close()


@pytest.mark.parametrize("name", OPENED)
def test_an_exported_page_lives_without_a_network(open_file, tmp_path, name):  # noqa: F811
    expect_alive(open_file(export(name, tmp_path), offline=True))
