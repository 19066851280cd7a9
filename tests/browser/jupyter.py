"""The notebooks in a front end of Jupyter, as their reader has them: opened, run, every control moved, every view used.

The tests are those of `Everywhere`; test_lab.py and test_notebook.py inherit them, each for its front end.
"""

import contextlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import FAILED, keep_picture

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
OPENED = ["00_start_here", "01_image_to_patches", "05_many_heads", "09_look_inside"]
PATIENCE = 120  # seconds: other processes share the cores
GRACE = 2.5  # seconds after which a change that changed no picture is followed by the next one

# Where things are. A panel is a widget box; a view is the HTML of `explore`.
PANEL, VIEW = ".vit-panel", ".vit-explorer"
PICTURE = 'img[alt]:not([alt=""])'
ALERT, LOST = "[role=alert]:not(.vit-lost)", ".vit-lost"
KINDS = {
    "slider": ".widget-slider",
    "dropdown": ".widget-dropdown",
    "toggles": ".widget-toggle-buttons",
    "toggle": ".widget-toggle-button.jupyter-widgets",
    "checkbox": ".widget-checkbox",
    "button": ".widget-button",
}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WATCH = """(root, css) => { // every picture that the panel comes to show
    const start = root.querySelector(css).src;
    root.seen = [];
    const look = () => {
      const image = root.querySelector(css);
      if (image && image.src !== (root.seen.at(-1) || start)) root.seen.push(image.src);
    };
    new MutationObserver(look).observe(root, { subtree: true, childList: true, attributeFilter: ["src"] });
}"""


def until(page, holds: Callable, seconds: float = PATIENCE, what: str = ""):
    """Wait until `holds` returns something true, and return it. The page goes on living meanwhile."""
    end = time.monotonic() + seconds
    while True:
        if found := holds():
            return found
        if time.monotonic() > end:
            if what:
                pytest.fail(f"not within {seconds:g} s: {what}")
            return found
        page.wait_for_timeout(40)


def moves(data: dict) -> bool:
    """Whether an output with this data is a panel or a view."""
    return WIDGET_VIEW in data or "vit-explorer" in "".join(data.get("text/html", ""))


def expect_picture(image) -> None:
    """A picture that the browser could read, and not a tiny one."""
    there = until(image.page, lambda: image.evaluate("one => one.complete && one.naturalWidth > 100"), 10)
    assert there, "a picture that the browser cannot read"
    assert image.is_visible()
    assert image.bounding_box()["width"] > 100


class Server:
    """A Jupyter server of its own on a copy of the notebooks: no token, no settings of the user's, no browser."""

    def __init__(self, front_end: str, folder: Path):
        self.front_end, self.root = front_end, folder / "root"
        shutil.copytree(NOTEBOOKS, self.root, ignore=shutil.ignore_patterns(".*"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        names = ("CONFIG", "DATA", "RUNTIME")
        own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in names}
        own |= {"IPYTHONDIR": str(folder / "ipython"), "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
        options = [
            "--no-browser",
            "--allow-root",
            f"--port={port}",
            "--ServerApp.port_retries=0",
            "--IdentityProvider.token=",
            "--ServerApp.disable_check_xsrf=True",
            f"--ServerApp.root_dir={self.root}",
        ]
        self.log = folder / "server.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", {"lab": "jupyterlab", "notebook": "notebook"}[front_end], *options],
                env=os.environ | own,
                stdout=log,
                stderr=log,
                cwd=folder,
            )
        end = time.monotonic() + PATIENCE
        while self.ask("/api/status") is None:
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"no Jupyter server:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.1)

    def ask(self, path: str, method: str = "GET"):
        """What the server answers; None while it does not (also in the moment in which a kernel starts)."""
        request = urllib.request.Request(self.address + path, method=method, data=b"" if method == "POST" else None)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.loads(answer.read() or b"true")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def end_kernels(self) -> None:
        for session in self.ask("/api/sessions") or []:
            self.ask(f"/api/sessions/{session['id']}", "DELETE")

    def stop(self) -> None:
        self.end_kernels()
        self.ask("/api/shutdown", "POST")
        for end in (lambda: None, self.process.terminate, self.process.kill):
            end()
            try:
                self.process.wait(15)
                return
            except subprocess.TimeoutExpired:
                pass


class Notebook:
    """One notebook opened in a fresh window of a front end."""

    def __init__(self, browser, server: Server, name: str):
        self.server, self.name, self.ran = server, name, False
        self.cells = json.loads((server.root / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        self.context = browser.new_context(viewport={"width": 1200, "height": 1000})
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.asked, self.crashed = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("websocket", lambda socket: self.asked.append(socket.url))
        self.page.on("crash", lambda page: self.crashed.append(page.url))
        try:
            self._open()
        except BaseException:
            self.close(keep=f"open_{name}_{server.front_end}")
            raise

    def _open(self) -> None:
        lab = self.server.front_end == "lab"
        address = f"/lab/tree/{self.name}.ipynb?reset" if lab else f"/notebooks/{self.name}.ipynb"
        self.page.goto(self.server.address + address)
        self.page.locator(".jp-Notebook").wait_for(timeout=1000 * PATIENCE)
        until(self.page, self.idle, what=f"a kernel for {self.name}")
        code = sum(cell["cell_type"] == "code" for cell in self.cells)
        until(  # they come one after the other
            self.page, lambda: self.page.locator(".jp-CodeCell").count() == code, what=f"{code} code cells on the page"
        )

    def close(self, keep: str = "") -> None:
        if keep:
            with contextlib.suppress(Exception):  # a page that is gone has no picture
                keep_picture(self.page, keep)
        self.context.close()
        self.server.end_kernels()

    def idle(self) -> bool:
        """Whether the kernel is idle, is connected with the page, and the page knows."""
        kernels = self.server.ask("/api/kernels") or []
        shown = self.page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').count()
        if self.server.front_end == "lab":
            shown = "| Idle" in self.page.locator("#jp-main-statusbar").inner_text()
        return bool(shown) and any(one["execution_state"] == "idle" and one["connections"] for one in kernels)

    def choose(self, menu: str, item: str) -> None:
        self.page.get_by_role("menuitem", name=menu, exact=True).click()
        self.page.get_by_role("menuitem", name=re.compile(f"^{re.escape(item)}")).click()  # its shortcut follows

    def prompts(self) -> list[str]:
        return self.page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()  # also of what is out of sight

    def run_all(self) -> None:
        """Run all cells, and wait until all have run: a count at each, no error, no warning."""
        self.choose("Run", "Run All Cells")
        until(self.page, lambda: any("*" in prompt for prompt in self.prompts()), what="a cell that runs")
        until(self.page, lambda: not any("*" in prompt for prompt in self.prompts()), 3 * PATIENCE, f"{self.name} run")
        until(self.page, self.idle, what="an idle kernel")
        errors = self.page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]')
        assert errors.all_text_contents() == []
        code = [cell for cell in self.cells if cell["cell_type"] == "code"]
        hidden = [cell["metadata"].get("jupyter", {}).get("source_hidden", False) for cell in code]
        counts = [words.strip("[]: \n") for words in self.prompts()]
        assert all(count.isdigit() or (away and not count) for count, away in zip(counts, hidden, strict=True)), counts
        assert not self.crashed
        self.ran = True

    def restart(self) -> None:
        """Restart the kernel as its reader does."""
        self.choose("Kernel", "Restart Kernel…")
        self.page.locator(".jp-Dialog button.jp-mod-accept").click()
        self.page.locator(".jp-Dialog").wait_for(state="detached")
        until(self.page, self.idle, what="a new kernel")

    @property
    def panels(self) -> list["Panel"]:
        found = self.page.locator(PANEL)
        return [Panel(self.page, found.nth(place)) for place in range(found.count())]

    @property
    def views(self) -> list["View"]:
        found = self.page.locator(VIEW)
        return [View(self.page, found.nth(place)) for place in range(found.count())]

    def places_of(self, holds: Callable[[dict], bool]) -> list[int]:
        """The places of the cells that have an output with such data."""
        return [
            place
            for place, cell in enumerate(self.cells)
            if any(holds(output.get("data", {})) for output in cell.get("outputs", []))
        ]


# Panels


class Panel:
    """A panel on the page: its controls, its picture, its alert."""

    def __init__(self, page, root):
        self.page, self.root = page, root
        self.image = root.locator(PICTURE)
        self.image.wait_for(state="attached")
        assert self.image.count() == 1, "a panel has one picture"

    def shown(self) -> tuple[str, str]:
        """The picture that the panel shows and its text; nothing while it is exchanged."""
        return tuple(
            self.root.evaluate(
                """(root, css) => { const image = root.querySelector(css);
                    const there = image && image.complete && image.naturalWidth > 100;
                    return there ? [image.src, image.alt] : ["", ""]; }""",
                PICTURE,
            )
        )

    def settled(self) -> tuple[str, str]:
        return until(self.page, lambda: self.shown() if self.shown()[0] else None, what="a picture in the panel")

    def changed(self, before: tuple[str, str], seconds: float = PATIENCE) -> bool:
        """Whether the panel comes to show another picture, with another text."""
        if not until(self.page, lambda: self.differs(before), seconds):
            return False
        assert self.settled()[1] != before[1], f"another picture, but still the text {before[1]!r}"
        return True

    def differs(self, before: tuple[str, str]) -> bool:
        return self.shown()[0] not in ("", before[0])

    @property
    def alerts(self) -> list[str]:
        shown = self.root.locator(ALERT).locator("visible=true").all_text_contents()
        return [words.strip() for words in shown if words.strip()]

    @property
    def controls(self) -> list["Control"]:
        """All but those around a file input, which wait for a file and have their own test."""
        found = self.root.locator(", ".join(KINDS.values()))
        kinds = found.evaluate_all(
            """(list, kinds) => list.map((one) => {
                const box = one.parentElement.closest(".widget-box"), file = box.querySelector("input[type=file]");
                if (file && file.closest(".widget-box") === box) return null;
                return Object.keys(kinds).find((kind) => one.matches(kinds[kind])); })""",
            KINDS,
        )
        return [CONTROLS[kind](self, found.nth(place)) for place, kind in enumerate(kinds) if kind]

    def sweep(self, how: str) -> list[str]:
        """Move every control, by "keyboard" or by "mouse", and see picture and text change. Those that are disabled or
        hidden are moved in a state of the others that wakes them. Returns the names of all."""
        moved, asleep, before = [], [], None
        for control in self.controls:
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

    def change_quickly(self, notebook: Notebook) -> None:
        """Four quick presses on a slider: what is shown in the end belongs to where it stands; nothing comes after."""
        slider = next(one for one in self.controls if isinstance(one, Slider) and one.awake())
        slider.press("Home")
        until(self.page, notebook.idle, what="an idle kernel")
        self.page.wait_for_timeout(500)
        first = self.settled()
        self.root.evaluate(WATCH, PICTURE)
        for _ in range(4):
            slider.part.press("ArrowRight")
        value = slider.value()
        assert float(slider.part.get_attribute("aria-valuenow")) > slider.least(), "the arrow keys do not move it"
        assert self.changed(first)
        until(self.page, notebook.idle, what="an idle kernel")
        self.page.wait_for_timeout(1500)
        last, seen = self.settled(), self.root.evaluate("root => root.seen")
        assert slider.value() == value
        assert seen[-1] == last[0]
        assert len(seen) <= 4, "more pictures than changes"

        slider.press("ArrowLeft")  # and slowly to the same place: the same picture
        assert self.changed(last)
        slider.press("ArrowRight")
        until(self.page, lambda: self.shown() == last, what=f"the picture of {slider.name} at {value} again")

    def wake(self, control: "Control") -> Callable:
        """Choose what makes this control one that can be moved; gives back what takes that choice back."""
        choices = [other for other in self.controls if isinstance(other, Choice)]
        for other in sorted(choices, key=lambda other: other.count()):  # what has few options is soon tried
            if other.awake():
                first, place = self.settled(), other.place()
                for option in range(other.count()):
                    if option == place:
                        continue
                    before = self.settled()
                    other.choose(option)
                    self.changed(before, 2 * GRACE)  # until it is drawn: the control itself wakes before
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


class Toggle(Control):
    @property
    def part(self):
        return self.root

    def place(self) -> bool:
        return self.root.evaluate("one => one.matches('.mod-active')")

    def put(self, place: bool) -> None:
        if self.place() != place:
            self.root.click()

    def steps(self, how: str):
        for key in ("Enter", " "):
            if how == "mouse":
                self.root.click()
            else:
                self.root.press(key)
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


class Button(Toggle):
    """What it does may take long."""

    def move(self, how: str) -> None:
        before = self.panel.settled()
        next(self.steps(how))
        assert self.panel.changed(before), f"{self.name} changes no picture"
        until(self.page, self.awake, what=f"{self.name} to be pressed again")


CONTROLS = {
    "slider": Slider,
    "dropdown": Dropdown,
    "toggles": Toggles,
    "toggle": Toggle,
    "checkbox": Checkbox,
    "button": Button,
}


# Views


class View:
    """One explorer on the page."""

    def __init__(self, page, root):
        self.page, self.root = page, root
        self.picture = root.locator(".vit-picture")
        self.slider = root.locator("input[type=range]")
        self.pinned = root.locator(".vit-pinned")
        self.picture.wait_for()

    def pixels(self, what: str = "now") -> list[int]:
        """A number for what is painted on each map."""
        return self.root.locator(f'canvas[aria-label^="{what}, "]').evaluate_all(
            """list => list.map((one) => {
                const data = one.getContext("2d").getImageData(0, 0, one.width, one.height).data;
                return data.reduce((sum, value, place) => (sum * 31 + value + place) % 1000003, 7); })"""
        )

    def hover(self, across: float, down: float) -> None:
        box = self.picture.bounding_box()
        self.page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])

    def differs(self, before: list[int], what: str = "now", seconds: float = 5) -> bool:
        return bool(until(self.page, lambda: self.pixels(what) not in ([], before), seconds))

    def use(self) -> None:
        """Hover, walk, pin and compare, and choose a layer: each paints other maps."""
        self.root.scroll_into_view_if_needed()
        self.picture.scroll_into_view_if_needed()
        for place in ((0.1, 0.1), (0.9, 0.9), (0.5, 0.4)):
            before = self.pixels()
            assert len(before) > 1
            self.hover(*place)
            assert self.differs(before), f"hovering at {place} paints no other maps"
        self.picture.focus()
        for key in ("ArrowRight", "ArrowDown", "Home"):
            before = self.pixels()
            self.page.keyboard.press(key)
            assert self.differs(before), f"{key} paints no other maps"
            assert self.picture.evaluate("one => one === document.activeElement"), f"{key} leads away"

        assert not self.pinned.is_visible()
        self.hover(0.1, 0.9)
        self.page.mouse.down()
        self.page.mouse.up()
        self.pinned.wait_for()
        held, now = self.pixels("pinned"), self.pixels()
        assert held == now
        self.hover(0.9, 0.1)
        assert self.differs(now)
        assert self.pixels("pinned") == held
        self.picture.focus()
        self.page.keyboard.press("Escape")
        self.pinned.wait_for(state="hidden")

        if self.slider.count() and self.slider.get_attribute("max") != "0":
            for act in (self._slide_by_key, self._slide_by_mouse):
                before = self.pixels()
                act()
                assert self.differs(before), f"{act.__name__} paints no other maps"

    def _slide_by_key(self) -> None:
        self.slider.focus()
        last = self.slider.evaluate("one => one.value === one.max")
        self.page.keyboard.press("ArrowLeft" if last else "ArrowRight")

    def _slide_by_mouse(self) -> None:
        box, first = self.slider.bounding_box(), self.slider.evaluate("one => one.value === one.min")
        self.page.mouse.click(box["x"] + (0.97 if first else 0.03) * box["width"], box["y"] + box["height"] / 2)


# Files that a reader may choose


def png(seed: int = 0) -> dict:
    """A small picture as a file that the browser can be given."""
    buffer = io.BytesIO()
    tiles = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(tiles.repeat(20, 0).repeat(20, 1)).save(buffer, format="png")
    return {"name": f"tiles{seed}.png", "mimeType": "image/png", "buffer": buffer.getvalue()}


@pytest.fixture(scope="module")
def server(request, browser, tmp_path_factory):
    """A server of the module's front end. It asks for the browser first: without one, none is needed."""
    pytest.importorskip(
        {"lab": "jupyterlab", "notebook": "notebook"}[request.module.FRONT_END],
        reason="this front end is not installed; pip install -r tests/requirements.txt",
    )
    server = Server(request.module.FRONT_END, tmp_path_factory.mktemp("jupyter"))
    yield server
    server.stop()


@pytest.fixture(scope="module", params=OPENED)
def opened(request, browser, server):
    """Each of the notebooks in turn, opened; nothing has run yet."""
    notebook = Notebook(browser, server, request.param)
    yield notebook
    notebook.close()


@pytest.fixture(scope="module")
def ran(opened):
    """The same, and all its cells have run."""
    try:
        opened.run_all()
    except BaseException:
        keep_picture(opened.page, f"run_{opened.name}_{opened.server.front_end}")
        raise
    return opened


def only_in(name: str) -> Callable:
    """A test of one of the notebooks only; conftest.py leaves out the others."""

    def mark(test: Callable) -> Callable:
        test.only_in = name
        return test

    return mark


class Everywhere:
    """What must hold in every front end. The order matters: one page is opened, looked at, run, used, restarted."""

    @pytest.fixture(autouse=True)
    def pictures_of_failures(self, request, opened):
        yield
        if request.node.stash.get(FAILED, False):
            with contextlib.suppress(Exception):
                keep_picture(opened.page, f"{opened.server.front_end}_{request.node.name}")

    def test_before_anything_ran_every_widget_and_view_has_its_picture(self, opened):
        assert not opened.ran
        moving = opened.places_of(moves)
        assert moving, "a notebook without anything that moves"
        for place in moving:
            cell = opened.page.locator(".jp-Notebook .jp-Cell").nth(place)
            cell.scroll_into_view_if_needed()
            image = cell.locator(".jp-OutputArea-output img").first
            image.wait_for()
            expect_picture(image)
        for words in ("Error displaying widget", "Loading widget", "Javascript Error"):
            assert not opened.page.get_by_text(words).locator("visible=true").count()

    def test_every_control_by_keyboard(self, ran):
        for panel in ran.panels:
            assert panel.sweep("keyboard")

    def test_every_control_by_mouse(self, ran):
        for panel in ran.panels:
            assert panel.sweep("mouse")

    def test_nothing_that_moves_is_dead(self, ran):
        """What the notebook has stored as moving is there alive: neither more nor fewer panels and views."""
        assert len(ran.panels) == len(ran.places_of(lambda data: WIDGET_VIEW in data))
        assert len(ran.views) == len(ran.places_of(lambda data: moves(data) and WIDGET_VIEW not in data))
        assert ran.page.locator(".vit-still:visible").count() == 0

    def test_every_view_is_hovered_walked_pinned_and_its_layer_chosen(self, ran):
        for view in ran.views:
            view.use()

    def test_of_quick_changes_the_last_one_is_shown(self, ran):
        for panel in ran.panels:
            panel.change_quickly(ran)

    @only_in(OPENED[0])
    def test_a_reader_s_own_picture_a_broken_one_and_one_too_large(self, ran, tmp_path):
        panels = [panel for panel in ran.panels if panel.root.locator("input[type=file]").count()]
        if not panels:
            pytest.skip(f"no panel in {ran.name} takes a file")
        (panel,) = panels
        own_source(panel)
        file = panel.root.locator("input[type=file]")
        file.wait_for()
        pictures = []
        for seed in (0, 1):
            before = panel.settled()
            file.set_input_files(png(seed))
            assert panel.changed(before)
            assert panel.alerts == []
            pictures.append(panel.settled())

        huge = tmp_path / "huge.png"
        with huge.open("wb") as sparse:
            sparse.truncate(200_000_000)
        broken = {"name": "broken.png", "mimeType": "image/png", "buffer": b"not an image"}
        empty = {"name": "empty.png", "mimeType": "image/png", "buffer": b""}
        over = tmp_path / "over.png"
        with over.open("wb") as sparse:
            sparse.truncate(7_000_001)
        for bad in (broken, huge, empty):
            file.set_input_files(bad)
            until(ran.page, lambda: panel.alerts, what=f"an alert for {bad}")
            assert panel.settled() == pictures[-1], "the picture before stays"
            file.set_input_files(png(0))
            until(ran.page, lambda: not panel.alerts, what="no alert after a good picture")
            until(ran.page, lambda: panel.shown() == pictures[0], what="the good picture")
            file.set_input_files(png(1))
            until(ran.page, lambda: panel.shown() == pictures[1], what="the other good picture")
        for bad, words in ((broken, "nothing that Pillow can read"), (over, "has 7.1 MB, more than the 7 MB")) * 2:
            file.set_input_files(bad)
            said = f"one alert, with the words: {words}"
            until(ran.page, lambda words=words: len(panel.alerts) == 1 and words in panel.alerts[0], what=said)
        file.set_input_files(png(1))
        until(ran.page, lambda: not panel.alerts, what="no alert after a good picture")

        photo = tmp_path / "photo.png"  # larger than may be sent: the page makes it smaller
        Image.effect_noise((3000, 2600), 90).save(photo)
        assert photo.stat().st_size > 7_000_000
        before = panel.settled()
        file.set_input_files(photo)
        assert panel.changed(before)
        assert panel.alerts == []

        checkboxes = panel.root.locator(KINDS["checkbox"])
        for place in range(checkboxes.count()):
            Checkbox(panel, checkboxes.nth(place)).move("keyboard")
            Checkbox(panel, checkboxes.nth(place)).move("mouse")
        next(one for one in panel.controls if isinstance(one, Slider) and one.awake()).move("keyboard")  # it is alive

    @only_in(OPENED[0])
    def test_a_picture_from_the_camera(self, ran):
        panels = [panel for panel in ran.panels if panel.root.locator("button:text('camera')").count()]
        if not panels:
            pytest.skip(f"no panel in {ran.name} has a camera")
        (panel,) = panels
        own_source(panel)
        before = panel.settled()
        button, video = panel.root.locator("button:text('camera')"), panel.root.locator("video")
        button.press("Enter")
        video.wait_for()
        until(ran.page, lambda: video.evaluate("one => one.videoWidth > 0"), what="a moving picture")
        panel.root.locator("button:text('take')").press("Enter")
        assert panel.changed(before)
        video.wait_for(state="hidden")
        assert panel.alerts == []

    @only_in(OPENED[1])  # it runs fastest
    def test_a_restarted_kernel_is_told_in_the_panel_and_run_all_brings_it_back(self, ran):
        lost = ran.page.locator(PANEL).locator(LOST)
        assert lost.locator("visible=true").count() == 0
        ran.restart()
        until(
            ran.page,
            lambda: lost.locator("visible=true").count() == len(ran.panels) > 0,
            what="the words of a panel whose kernel is gone",
        )
        assert all(words.strip() for words in lost.all_text_contents())
        ran.run_all()
        assert lost.locator("visible=true").count() == 0
        for panel in ran.panels:
            assert panel.sweep("keyboard")

    def test_nothing_was_asked_of_the_network(self, opened):
        local = urlsplit(opened.server.address).netloc
        assert opened.asked
        elsewhere = [url for url in map(urlsplit, opened.asked) if url.scheme not in ("data", "blob")]
        assert [url.geturl() for url in elsewhere if url.netloc != local] == []


def own_source(panel: Panel) -> None:
    """Choose the reader's own file as the source of the picture."""
    panel.root.scroll_into_view_if_needed()  # what is out of sight is not laid out, and shows no alert
    for control in panel.controls:
        if isinstance(control, Choice) and control.awake():
            for place, words in enumerate(control.options()):
                if any(word in words.lower() for word in ("own", "upload", "file")):
                    control.choose(place)
                    return
    pytest.fail("no control offers the reader's own file")
