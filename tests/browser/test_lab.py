"""JupyterLab with one notebook: each kind of control once, an upload, the hover view, a lost kernel.

Every control of the notebooks, and Notebook 7, are tried in tests/nightly.
"""

import json

import pytest
from PIL import Image

from tests.browser.conftest import FAILED, keep_picture
from tests.browser.jupyter import NOTEBOOKS, Notebook, Server, drag, is_panel, is_view, png, until

# Sources, and whose stored outputs stand below them before anything has run.
SOURCES = {
    "from vit_walkthrough.widgets import explore_vit\n\nexplore_vit()": ("00_start_here", is_panel),
    "from vit_walkthrough.widgets import train_and_look\n\ntrain_and_look(2)": ("08_train_a_vit", is_panel),
    "from vit_walkthrough import record\nfrom vit_walkthrough.data import ClutteredDigits\n"
    "from vit_walkthrough.living import explore\nfrom vit_walkthrough.weights import load_tiny\n\nmodel = load_tiny()\n"
    "with record(model) as trace:\n    model(ClutteredDigits('test').sample(1, draw=0)[0])\nexplore(trace)": (
        "09_look_inside",
        is_view,
    ),
}


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """The notebook, opened in JupyterLab."""
    folder = tmp_path_factory.mktemp("jupyter")
    (folder / "root").mkdir()
    cells = []
    for source, (name, wanted) in SOURCES.items():
        stored = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
        outputs = [output for cell in stored["cells"] for output in cell.get("outputs", [])]
        outputs = [output for output in outputs if wanted(output.get("data", {}))][:1]
        cells.append(
            stored["cells"][2]
            | {"cell_type": "code", "source": source, "outputs": outputs, "execution_count": 1, "metadata": {}}
        )
    (folder / "root" / "all.ipynb").write_text(json.dumps(stored | {"cells": cells}))
    server = Server("lab", folder)
    try:
        notebook = Notebook(browser, server, "all")
        yield notebook
        notebook.close()
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def picture_of_failure(request, lab):
    yield
    if request.node.stash.get(FAILED, False):
        keep_picture(lab.page, request.node.name)


@pytest.fixture(scope="module")
def ran(lab):
    with lab.kept("run"):
        lab.run_all()
    return lab


def test_before_anything_ran_every_panel_and_view_has_its_picture(lab):
    lab.expect_stored_pictures()


def test_after_a_run_all_of_them_are_alive(ran):
    ran.expect_all_alive()


SLIDER, MENU, BUTTONS = ".widget-slider", ".widget-dropdown select", ".widget-toggle-buttons button"
MOVES = {
    "slider by keyboard": lambda root, page: root.locator(f"{SLIDER}:visible .noUi-handle").first.press("ArrowRight"),
    "slider by mouse": lambda root, page: drag(root.locator(f"{SLIDER}:visible").nth(1), 1),
    "menu by keyboard": lambda root, page: root.locator(MENU).first.press("ArrowDown"),
    "menu by mouse": lambda root, page: root.locator(MENU).first.select_option(index=0),
    "buttons by keyboard": lambda root, page: root.get_by_role("button", name="rollout").press("Enter"),
    "buttons by mouse": lambda root, page: root.get_by_role("button", name="attention").click(),
}


@pytest.mark.parametrize("move", MOVES)
def test_each_kind_of_control_changes_picture_and_text(ran, move):
    panel = ran.panels[0]
    panel.root.scroll_into_view_if_needed()
    before = panel.settled()
    MOVES[move](panel.root, ran.page)
    assert panel.changed(before)
    assert panel.alerts == []


def test_the_tab_key_leads_from_control_to_control_and_each_slider_has_its_name(ran):
    wanted, reached = ["digit no.", "patch size", "heads", "attention", "rollout", "relevance", "block"], []
    ran.panels[0].root.locator("select").first.focus()
    for _ in range(20):
        ran.page.keyboard.press("Tab")
        name = "const one = document.activeElement; return one.getAttribute('aria-label') || one.innerText"
        reached.append(ran.page.evaluate(f"() => {{ {name} }}").strip())
    assert [name for name in reached if name in wanted][: len(wanted)] == wanted  # then the next panel's


def test_the_button_trains_and_is_disabled_meanwhile(ran):
    panel = ran.panels[1]
    before, button = panel.settled(), panel.root.get_by_role("button", name="train")
    button.click()
    until(ran.page, lambda: "2 of 2 steps" in panel.settled()[1], what="a trained model")
    until(ran.page, button.is_enabled, what="a button that can be pressed again")
    assert panel.settled()[0] != before[0]


def test_of_quick_changes_the_last_one_is_shown(ran):
    ran.panels[0].change_quickly(ran)


def test_a_reader_s_own_picture_a_broken_one_and_one_too_large(ran, tmp_path):
    panel = ran.panels[0]
    panel.root.scroll_into_view_if_needed()  # what is out of sight is not laid out, and shows no alert
    panel.root.locator("select").first.select_option("my own")
    file, pictures = panel.root.locator("input[type=file]"), []
    for seed in (0, 1):
        before = panel.settled()
        file.set_input_files(png(seed))
        assert panel.changed(before)
        pictures.append(panel.settled())
    over = tmp_path / "over.png"
    with over.open("wb") as sparse:
        sparse.truncate(7_000_001)
    broken = {"name": "broken.png", "mimeType": "image/png", "buffer": b"not an image"}
    for bad, words in ((broken, "Pillow"), (over, "7.1 MB"), (broken, "Pillow")):
        file.set_input_files(bad)
        until(
            ran.page, lambda words=words: [words in alert for alert in panel.alerts] == [True], what=f"words: {words}"
        )
        assert panel.settled() == pictures[1], "the picture before stays"
    file.set_input_files(png(0))
    until(ran.page, lambda: not panel.alerts and panel.shown() == pictures[0], what="the good picture, and no alert")

    photo = tmp_path / "photo.bmp"  # larger than may be sent: the page makes it smaller
    Image.effect_noise((3000, 2600), 90).save(photo)
    assert photo.stat().st_size > 7_000_000
    file.set_input_files(photo)
    assert panel.changed(pictures[0])
    assert panel.alerts == []
    for act in (lambda box: box.press(" "), lambda box: box.click()):
        before = panel.settled()
        act(panel.root.locator("input[type=checkbox]"))
        assert panel.changed(before)


def test_the_view_is_hovered_walked_pinned_and_its_block_chosen(ran):
    ran.views[0].use()


def test_a_lost_kernel_is_told_in_every_panel(ran):
    ran.restart()


def test_nothing_was_asked_of_the_network(ran):
    ran.expect_nothing_asked_elsewhere()
