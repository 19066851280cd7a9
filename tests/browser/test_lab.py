"""JupyterLab with one notebook: each kind of control once, an upload, a living picture, a lost kernel; and notebooks as
exported HTML, opened from the disk with no network. Notebook 7 is tried in tests/nightly."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.browser.jupyter import NOTEBOOKS, VIEW, Notebook, Server, View, expect_picture, is_panel, is_view, until
from tests.widgets.panels import file_of

# Sources, and whose stored outputs stand below them before anything has run.
SOURCES = {
    "from vit_walkthrough.widgets import explore_vit\n\nexplore_vit()": ("00_start_here", is_panel),
    "from vit_walkthrough.widgets import train_and_look\n\ntrain_and_look(2)": ("08_train_a_vit", is_panel),
    "import torch\nfrom vit_walkthrough.living import live\n\n"
    'live("attention", torch.rand(3, 1, 4, 17, 17).softmax(-1), torch.rand(3, 32, 32))': ("09_look_inside", is_view),
}


@pytest.fixture(scope="module")
def ran(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jupyter")
    (folder / "root").mkdir()
    cells = []
    for source, (name, wanted) in SOURCES.items():
        stored = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
        outputs = [output for cell in stored["cells"] for output in cell.get("outputs", [])]
        first = next(output for output in outputs if wanted(output.get("data", {})))
        cell = dict(cell_type="code", source=source, outputs=[first], execution_count=1, metadata={})
        cells.append(stored["cells"][2] | cell)  # with its id, and not folded as it may be
    (folder / "root" / "all.ipynb").write_text(json.dumps(stored | {"cells": cells}))
    server = Server("lab", folder)
    try:
        notebook = Notebook(browser, server, "all")
        notebook.expect_stored_pictures()
        notebook.run_all()
        yield notebook
        notebook.close()
    finally:
        server.stop()


def test_every_panel_and_view_has_its_picture_before_anything_ran_and_is_alive_afterwards(ran):
    ran.expect_all_alive()
    ran.views[0].use()


MOVES = {
    "slider by keyboard": lambda root: root.get_by_role("slider", name="digit no.").press("ArrowRight"),
    "slider by mouse": lambda root: root.locator(".noUi-base:visible").nth(1).click(position={"x": 2, "y": 2}),
    "menu by keyboard": lambda root: root.locator(".widget-dropdown select").first.press("ArrowDown"),
}


@pytest.mark.parametrize("move", MOVES)
def test_each_kind_of_control_changes_picture_and_text(ran, move):
    panel = ran.panels[0]
    panel.root.scroll_into_view_if_needed()
    before = panel.settled()
    MOVES[move](panel.root)
    assert panel.changed(before)
    assert panel.alerts == []


def test_the_button_trains_stops_and_says_what_it_does(ran):
    panel = ran.panels[1]
    before, button = panel.settled(), panel.root.get_by_role("button", name="train")
    button.click()
    until(ran.page, lambda: "2 steps" in panel.settled()[1] and "validation" in panel.settled()[1], what="a model")
    panel.root.get_by_role("button", name="go on").wait_for()
    assert panel.settled()[0] != before[0]


def test_a_reader_s_own_picture_a_broken_one_and_one_too_large(ran, tmp_path):
    panel = ran.panels[0]
    panel.root.scroll_into_view_if_needed()  # what is out of sight is not laid out, and shows no alert
    panel.root.locator("select").first.select_option("my own")
    file, before = panel.root.locator("input[type=file]"), panel.settled()
    broken = {"name": "noise.png", "mimeType": "image/png", "buffer": b"not an image"}
    file.set_input_files(broken | {"buffer": file_of(Image.effect_noise((90, 90), 20))})
    assert panel.changed(before)
    good = panel.settled()
    over = tmp_path / "over.png"
    with over.open("wb") as sparse:
        sparse.truncate(7_000_001)
    for bad, words in ((broken, "Pillow"), (over, "7.1 MB"), (broken, "Pillow")):
        file.set_input_files(bad)
        until(ran.page, lambda words=words: [words in one for one in panel.alerts] == [True], what=f"words: {words}")
        assert panel.settled() == good, "the picture before stays"
    photo = tmp_path / "photo.bmp"  # larger than may be sent: the page makes it smaller
    Image.linear_gradient("L").resize((3000, 2600)).save(photo)
    assert photo.stat().st_size > 7_000_000
    file.set_input_files(photo)
    until(ran.page, lambda: not panel.alerts and panel.changed(good), what="another good picture, and no alert")
    good = panel.settled()
    panel.root.locator("input[type=checkbox]").press(" ")
    assert panel.changed(good)


def test_a_lost_kernel_is_told_in_every_panel_and_nothing_was_asked_of_the_network(ran):
    ran.restart()
    ran.expect_nothing_asked_elsewhere()


def export(name: str, folder: Path) -> Path:
    pytest.importorskip("nbconvert", reason="nbconvert cannot be imported", exc_type=ImportError)
    # nbconvert's own page asks for require.js and MathJax at a CDN, and forgets what is said of a picture.
    page = ["--to", "html", f"--output-dir={folder}", "--config", NOTEBOOKS / "page/page.py"]
    command = [sys.executable, "-m", "nbconvert", *page, NOTEBOOKS / f"{name}.ipynb"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return folder / f"{name}.html"


def test_an_exported_page_is_read_and_walked_without_a_network(open_file, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe; see tests/requirements.txt")
    page = open_file(export("04_one_head", tmp_path), offline=True)
    assert page.title() == "04 · What does a patch look at?"
    assert page.locator("math[display=block]").count() >= 1
    assert "$" not in "".join(page.locator(".jp-RenderedMarkdown").all_inner_texts())
    assert page.locator("details").first.get_attribute("open") is None
    assert "sys.path" in page.locator("details").first.text_content()
    links = [link.get_attribute("href") for link in page.locator("a[href]").all()]
    near = [link.split("#")[0] for link in links if not link.startswith(("http", "#"))]
    assert "05_many_heads.html" in near
    assert all((NOTEBOOKS / link).with_suffix(".ipynb").exists() for link in near)
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], node["html"]) for one in found for node in one["nodes"]] == []


def test_an_exported_page_lives_without_a_network(open_file, tmp_path):
    page = open_file(export("09_look_inside", tmp_path), offline=True)
    assert page.locator(VIEW).count() == 2
    for root in page.locator(VIEW).all():
        View(page, root).use()
    images = page.locator(".jp-OutputArea-output img").locator("visible=true").all()
    assert images
    for image in images:  # of widgets
        expect_picture(image)
        assert len(image.get_attribute("alt").split()) > 8  # more than where none was given
    assert not re.search("Error displaying widget|Loading widget", page.locator("body").inner_text())
