"""The notebooks in JupyterLab and in Notebook 7: every control moved by keyboard and by mouse, every view used."""

import shutil
from collections.abc import Callable
from functools import partial

import pytest

from tests.browser.conftest import browser, open_file  # noqa: F401
from tests.browser.jupyter import NOTEBOOKS, OPENED, Notebook, Panel, Server, until
from tests.browser.test_exported import expect_alive, export

GRACE = 2.5  # seconds after which a change that changed no picture is followed by the next one
KINDS = {
    "slider": ".widget-slider",
    "dropdown": ".widget-dropdown",
    "toggles": ".widget-toggle-buttons",
    "checkbox": ".widget-checkbox",
}


class Controls:
    """The controls of a panel on the page."""

    def __init__(self, panel: Panel):
        self.panel, self.page, self.root = panel, panel.page, panel.root

    @property
    def all(self) -> list["Control"]:
        """All but those around a file input, which wait for a file and have their own test."""
        found = self.root.locator(", ".join(KINDS.values()))
        kinds = found.evaluate_all(
            """(list, kinds) => list.map((one) => {
                const box = one.parentElement.closest(".widget-box"), file = box.querySelector("input[type=file]");
                if (file && file.closest(".widget-box") === box) return null;
                return Object.keys(kinds).find((kind) => one.matches(kinds[kind])); })""",
            KINDS,
        )
        return [CONTROLS[kind](self.panel, found.nth(place)) for place, kind in enumerate(kinds) if kind]

    def sweep(self, how: str) -> list[str]:
        """Move every control, by "keyboard" or by "mouse", and see picture and text change. Those that are disabled or
        hidden are moved in a state of the others that wakes them. Returns the names of all."""
        moved, asleep, before = [], [], None
        for control in self.all:
            if not control.awake():
                asleep.append(control)
                continue
            if how == "keyboard":
                self.reach(control, before)
            control.move(how)
            moved.append(control.name)
            before = control
        for control in asleep:
            sleep = self.wake(control)
            if how == "keyboard":
                self.reach(control, None)
            control.move(how)
            sleep()
            moved.append(control.name)
        return moved

    def wake(self, control: "Control") -> Callable:
        """Choose what makes this control one that can be moved; gives back what takes that choice back."""
        choices = [other for other in self.all if isinstance(other, Choice)]
        for other in sorted(choices, key=lambda other: other.count()):  # what has few options is soon tried
            if other.awake():
                first, place = self.panel.settled(), other.place()
                for option in range(other.count()):
                    if option == place:
                        continue
                    before = self.panel.settled()
                    other.choose(option)
                    self.panel.changed(before, 2 * GRACE)  # until it is drawn: the control itself wakes before
                    if control.awake():
                        return partial(other.back, place, first)
                other.back(place, first)
        pytest.fail(f"no choice wakes {control.name}")

    def reach(self, control: "Control", before: "Control | None") -> None:
        """The Tab key leads to the control from the one before it; to the first, from where Shift+Tab led."""
        if before:
            before.focus()
        else:
            control.focus()
            self.page.keyboard.press("Shift+Tab")
            assert not control.focused(), "Shift+Tab leaves a control"
        for _ in range(16):
            self.page.keyboard.press("Tab")
            if control.focused():
                return
        pytest.fail(f"no Tab leads to {control.name} from {before.name if before else 'before it'}")


class Control:
    """One control of a panel, whatever its kind."""

    focusable = "button, input, select"

    def __init__(self, panel: Panel, root):
        self.panel, self.page, self.root = panel, panel.page, root

    @property
    def name(self) -> str:
        words = self.root.locator(".widget-label").all_text_contents() or [self.root.inner_text()]
        return f"{type(self).__name__.lower()} {words[0].strip()!r}"

    @property
    def part(self):
        """What takes the focus."""
        return self.root.locator(self.focusable).first

    def awake(self) -> bool:
        return self.root.is_visible() and self.part.evaluate("one => !one.closest('[disabled]')")

    def focus(self) -> None:
        self.part.focus()

    def focused(self) -> bool:
        return self.root.evaluate("(one) => one.contains(document.activeElement)")

    def place(self):
        """Where it stands."""
        raise NotImplementedError

    def put(self, place) -> None:
        raise NotImplementedError

    def steps(self, how: str):
        """Move it, once at every `next`, until all its places were tried."""
        raise NotImplementedError

    def shows(self, holds: Callable, seconds: float = 2) -> bool:
        return bool(until(self.page, holds, seconds))

    def move(self, how: str) -> None:
        """Move it until the picture changes, and back, to the same picture again."""
        self.root.scroll_into_view_if_needed()
        before, place = self.panel.settled(), self.place()
        if not any(self.panel.changed(before, GRACE) for _ in self.steps(how)):
            pytest.fail(f"wherever {how} moves {self.name}, the picture is still: {before[1]}")
        assert self.panel.alerts == []
        self.back(place, before)

    def back(self, place, shown: tuple[str, str]) -> None:
        """Where it was, and the picture that was shown there."""
        self.put(place)
        until(self.page, lambda: self.panel.shown() == shown, what=f"the picture from before {self.name} moved")


class Slider(Control):
    focusable = ".noUi-handle"

    def value(self) -> str:
        return self.part.get_attribute("aria-valuetext")

    def at_end(self) -> bool:
        return self.part.evaluate("one => one.getAttribute('aria-valuenow') === one.getAttribute('aria-valuemax')")

    place = value

    def put(self, place: str) -> None:
        self.press("Home")
        while self.value() != place:
            assert self.press("ArrowRight"), f"{self.name} does not come back to {place}"

    def least(self) -> float:
        return float(self.part.get_attribute("aria-valuemin"))

    def press(self, key: str) -> bool:
        """Whether the key moved it."""
        old = self.value()
        self.part.press(key)
        return self.shows(lambda: self.value() != old)

    def drag(self, part: float) -> bool:
        """Whether it moved when its handle was pulled there: 0 is its left end, 1 its right one."""
        old, handle, track = self.value(), self.part.bounding_box(), self.root.locator(".noUi-base").bounding_box()
        self.page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
        self.page.mouse.down()
        self.page.mouse.move(track["x"] + part * track["width"], track["y"] + track["height"] / 2, steps=5)
        self.page.mouse.up()
        return self.shows(lambda: self.value() != old, 1)

    def steps(self, how: str):
        assert self.part.get_attribute("aria-label") == self.root.locator(".widget-label").inner_text()
        if how == "mouse":
            for part in (1, 0, 0.5, 0.25, 0.75, 0.1, 0.9):
                if self.drag(part):
                    yield
            return
        while not self.at_end():
            assert self.press("ArrowRight"), f"ArrowRight does not move {self.name} from {self.value()}"
            yield
        assert self.press("ArrowLeft"), f"ArrowLeft does not move {self.name} from {self.value()}"
        yield
        while self.press("ArrowLeft"):
            yield


class Choice(Control):
    """One of several options, which are all tried."""

    def count(self) -> int:
        raise NotImplementedError

    def chosen(self) -> int:
        raise NotImplementedError

    def choose(self, option: int) -> None:
        raise NotImplementedError

    def options(self) -> list[str]:
        raise NotImplementedError

    def place(self) -> int:
        assert self.chosen() >= 0, f"{self.name} shows none of its options"
        return self.chosen()

    def put(self, place: int) -> None:
        self.choose(place)

    def is_at(self, option: int) -> bool:
        return self.shows(lambda: self.chosen() == option)


class Dropdown(Choice):
    focusable = "select"

    def count(self) -> int:
        return self.part.evaluate("one => one.options.length")

    def chosen(self) -> int:
        return self.part.evaluate("one => one.selectedIndex")

    def choose(self, option: int) -> None:
        self.part.select_option(index=option)

    def options(self) -> list[str]:
        return self.part.locator("option").all_text_contents()

    def steps(self, how: str):
        if how == "mouse":  # the list that opens is the system's, out of the page's reach
            for option in range(self.count()):
                if option != self.chosen():
                    self.choose(option)
                    yield
            return
        for key, step, end in (("ArrowDown", 1, self.count() - 1), ("ArrowUp", -1, 0)):
            while self.chosen() != end:
                wanted = self.chosen() + step
                self.part.press(key)
                assert self.is_at(wanted), f"{key} does not move {self.name} to {self.options()[wanted]!r}"
                assert self.focused(), f"{key} on {self.name} leads away from it"
                yield


class Toggles(Choice):
    focusable = "button"

    def count(self) -> int:
        return self.root.locator("button").count()

    def chosen(self) -> int:
        return self.root.locator("button").evaluate_all("all => all.findIndex(one => one.matches('.mod-active'))")

    def choose(self, option: int) -> None:
        self.root.locator("button").nth(option).click()

    def options(self) -> list[str]:
        return self.root.locator("button").all_text_contents()

    def steps(self, how: str):
        first = self.chosen()
        for number, option in enumerate([*range(first + 1, self.count()), *range(first)]):
            button = self.root.locator("button").nth(option)
            if how == "mouse":
                button.click()
            else:
                self.root.locator("button").first.focus()
                for _ in range(option):
                    self.page.keyboard.press("Tab")
                assert button.evaluate("one => one === document.activeElement"), "Tab goes from button to button"
                self.page.keyboard.press(("Enter", " ")[number % 2])
            assert self.is_at(option), f"{self.name} keeps its choice"
            yield


class Checkbox(Control):
    focusable = "input"

    def place(self) -> bool:
        return self.part.is_checked()

    def put(self, place: bool) -> None:
        self.part.set_checked(place)

    def steps(self, how: str):
        for _ in range(2):
            if how == "mouse":
                self.part.click()
            else:
                self.part.press(" ")
            yield


CONTROLS = {"slider": Slider, "dropdown": Dropdown, "toggles": Toggles, "checkbox": Checkbox}


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
                assert Controls(panel).sweep(how)
        for view in notebook.views:
            view.use()
        if name == OPENED[1]:  # it runs fastest
            notebook.restart()
            notebook.run_all()
            for panel in notebook.panels:
                assert Controls(panel).sweep("keyboard")
        notebook.expect_nothing_asked_elsewhere()
    finally:
        notebook.close()


@pytest.mark.parametrize("name", OPENED)
def test_an_exported_page_lives_without_a_network(open_file, tmp_path, name):  # noqa: F811
    expect_alive(open_file(export(name, tmp_path), offline=True))
