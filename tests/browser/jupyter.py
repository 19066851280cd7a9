"""The notebooks in a front end of Jupyter, as their reader has them: a server, an opened notebook, panels and views."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
OPENED = ["00_start_here", "01_image_to_patches", "05_many_heads", "09_look_inside"]
PATIENCE = 120  # seconds: other processes share the cores

# Where things are. A panel is a widget box; a view is a living picture outside of one.
PANEL, VIEW = ".vit-panel", ".vit-living:not(.vit-panel *)"
PICTURE = 'img[alt]:not([alt=""])'
ALERT, LOST = "[role=alert]:not(.vit-lost)", ".vit-lost"


def until(page, holds: Callable, seconds: float = PATIENCE, what: str = ""):
    """Wait until `holds` returns something true, and return it. The page goes on living meanwhile."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > end:
            if what:
                pytest.fail(f"not within {seconds:g} s: {what}")
            return found
        page.wait_for_timeout(40)
    return found


def is_panel(data: dict) -> bool:
    return "application/vnd.jupyter.widget-view+json" in data


def is_view(data: dict) -> bool:
    return "vit-living" in "".join(data.get("text/html", ""))


def expect_picture(image) -> None:
    read = "one => one.complete && one.naturalWidth > 100"
    until(image.page, lambda: image.evaluate(read), 10, "a picture that the browser can read")
    assert image.is_visible()
    assert image.bounding_box()["width"] > 100


class Server:
    """A Jupyter server of its own on the notebooks in folder/root: no token, no settings of the user's, no browser."""

    def __init__(self, front_end: str, folder: Path):
        module = {"lab": "jupyterlab", "notebook": "notebook"}[front_end]
        pytest.importorskip(module, reason="it is not installed; pip install -r tests/requirements.txt")
        self.front_end, self.root, self.log = front_end, folder / "root", folder / "server.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        folders = [*(f"JUPYTER_{name}_DIR" for name in ("CONFIG", "DATA", "RUNTIME")), "IPYTHONDIR"]
        own = {name: str(folder / name) for name in (*folders, "JUPYTERLAB_SETTINGS_DIR")}
        command = [sys.executable, "-m", module, "--no-browser", "--allow-root", "--ServerApp.disable_check_xsrf=True"]
        command += [f"--port={port}", "--IdentityProvider.token=", f"--ServerApp.root_dir={self.root}"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log, cwd=folder)
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
        for end in (lambda: self.ask("/api/shutdown", "POST"), self.process.terminate, self.process.kill):
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
                return


class Notebook:
    def __init__(self, browser, server: Server, name: str):
        self.server, self.name = server, name
        self.cells = json.loads((server.root / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        self.context = browser.new_context(viewport={"width": 1200, "height": 1000})
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.asked, self.crashed = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("websocket", lambda socket: self.asked.append(socket.url))
        self.page.on("crash", lambda page: self.crashed.append(page.url))
        lab = server.front_end == "lab"
        self.page.goto(server.address + (f"/lab/tree/{name}.ipynb?reset" if lab else f"/notebooks/{name}.ipynb"))
        self.page.locator(".jp-Notebook").wait_for(timeout=1000 * PATIENCE)
        until(self.page, self.idle, what=f"a kernel for {name}")
        code = sum(cell["cell_type"] == "code" for cell in self.cells)  # the cells come one after the other
        until(self.page, lambda: self.page.locator(".jp-CodeCell").count() == code, what=f"{code} cells")

    def close(self) -> None:
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

    def run_all(self) -> None:
        """Run all cells, and wait until all have run: a count at each, no error, no warning."""

        def prompts() -> list[str]:
            return self.page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()  # also of what is out of sight

        self.choose("Run", "Run All Cells")
        until(self.page, lambda: any("*" in prompt for prompt in prompts()), what="a cell that runs")
        until(self.page, lambda: not any("*" in prompt for prompt in prompts()), 3 * PATIENCE, f"{self.name} run")
        until(self.page, self.idle, what="an idle kernel")
        errors = self.page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]')
        assert errors.all_text_contents() == []
        counts = [words.strip("[]: \n") for words in prompts()]
        assert all(count.isdigit() for count in counts if count), counts  # what is hidden has none
        assert not self.crashed

    @property
    def panels(self) -> list["Panel"]:
        return [Panel(self.page, root) for root in self.page.locator(PANEL).all()]

    @property
    def views(self) -> list["View"]:
        return [View(self.page, root) for root in self.page.locator(VIEW).all()]

    def places_of(self, holds: Callable[[dict], bool]) -> list[int]:
        stored = [[output.get("data", {}) for output in cell.get("outputs", [])] for cell in self.cells]
        return [place for place, outputs in enumerate(stored) if any(map(holds, outputs))]

    def expect_stored_pictures(self) -> None:
        """Before anything ran, every cell with a panel or a view shows its picture."""
        for place in self.places_of(lambda data: is_panel(data) or is_view(data)):
            cell = self.page.locator(".jp-Notebook .jp-Cell").nth(place)
            cell.scroll_into_view_if_needed()
            cell.locator(".jp-OutputArea-output img").first.wait_for()
            expect_picture(cell.locator(".jp-OutputArea-output img").first)
        words = self.page.get_by_text(re.compile("Error displaying widget|Loading widget|Javascript Error"))
        assert not words.locator("visible=true").count()

    def expect_all_alive(self) -> None:
        """What the notebook has stored as moving is alive after a run: neither more nor fewer panels and views."""
        assert (len(self.panels), len(self.views)) == (len(self.places_of(is_panel)), len(self.places_of(is_view)))
        assert self.page.locator(".vit-still:visible").count() == 0

    def restart(self) -> None:
        """Restart the kernel as its reader does; each panel then says that it is lost."""
        lost, count = self.page.locator(PANEL).locator(LOST).locator("visible=true"), len(self.panels)
        assert lost.count() == 0
        self.choose("Kernel", "Restart Kernel…")
        self.page.locator(".jp-Dialog button.jp-mod-accept").click()
        self.page.locator(".jp-Dialog").wait_for(state="detached")
        until(self.page, lambda: lost.count() == count > 0, what="the words of a lost kernel")
        until(self.page, self.idle, what="a new kernel")

    def expect_nothing_asked_elsewhere(self) -> None:
        addresses = (self.server.address, self.server.address.replace("http", "ws"), "data:", "blob:")
        assert self.asked
        assert [url for url in self.asked if not url.startswith(addresses)] == []


class Panel:
    def __init__(self, page, root):
        self.page, self.root = page, root
        root.locator(f"{PICTURE}, .vit-alive").first.wait_for(state="attached")

    def shown(self) -> tuple[str, str]:
        """The picture that the panel shows and its text; nothing while it is exchanged."""
        there = """(root, css) => {
          const image = root.querySelector(css), living = root.querySelector(".vit-living");
          const text = root.querySelector(".widget-html-content > p[aria-live]")?.textContent;
          if (living) return living.querySelector(".vit-alive") ? [living.id, text] : ["", ""];
          return image && image.complete && image.naturalWidth > 100 ? [image.src, image.alt] : ["", ""]; }"""
        return tuple(self.root.evaluate(there, PICTURE))

    def settled(self) -> tuple[str, str]:
        return until(self.page, lambda: self.shown() if self.shown()[0] else None, what="a picture in the panel")

    def changed(self, before: tuple[str, str], seconds: float = PATIENCE) -> bool:
        """Whether the panel comes to show another picture, with another text."""
        if not until(self.page, lambda: self.shown()[0] not in ("", before[0]), seconds):
            return False
        assert self.settled()[1] != before[1], f"another picture, but still the text {before[1]!r}"
        return True

    @property
    def alerts(self) -> list[str]:
        shown = self.root.locator(ALERT).locator("visible=true").all_text_contents()
        return [words.strip() for words in shown if words.strip()]


class View:
    def __init__(self, page, root):
        self.page, self.root = page, root
        root.locator(".vit-alive").wait_for()
        self.picture = root.locator(".vit-points:visible").first

    def shown(self) -> str:
        return self.root.evaluate(
            """root => { const stage = root.querySelector(".vit-alive"), sheets = [...stage.querySelectorAll("canvas")];
            return [stage.innerHTML, ...sheets.map((one) => one.toDataURL())].join(); }"""
        )

    def hover(self, across: float, down: float) -> None:
        for _ in range(2):  # what comes into sight above it is laid out, and may move it out of sight again
            self.picture.scroll_into_view_if_needed()
            self.page.wait_for_timeout(300)
        box = self.picture.bounding_box()
        self.page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])

    def use(self) -> None:
        """Point with the mouse twice and walk by the keys, or use the last control: each shows something else."""
        last = self.root.locator("button, [tabindex='0']").last
        acts = {"a control": lambda: [last.press(key) for key in ("Enter", "ArrowLeft")]}
        if self.picture.count():
            self.hover(0.64, 0.6)  # what is shown at first may be what the next place shows
            acts = {"hovering": lambda: self.hover(0.38, 0.4), "hovering elsewhere": lambda: self.hover(0.64, 0.6)}
            acts["walking"] = lambda: self.picture.press("ArrowLeft")
        for what, act in acts.items():
            before = self.shown()
            act()
            changed = until(self.page, lambda before=before: self.shown() != before, 5)
            assert changed, f"{what} shows nothing else"
