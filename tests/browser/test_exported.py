"""A notebook as exported HTML, opened from the disk with no network: views are alive, widgets are pictures."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.jupyter import NOTEBOOKS, VIEW, View, expect_picture


def export(name: str, folder: Path) -> Path:
    pytest.importorskip("nbconvert", reason="nbconvert cannot be imported", exc_type=ImportError)
    notebook = NOTEBOOKS / f"{name}.ipynb"
    command = [sys.executable, "-m", "nbconvert", "--to", "html", f"--output-dir={folder}"]
    # nbconvert's own page asks for require.js and MathJax at a CDN, and forgets what is said of a picture.
    command += ["--config", str(NOTEBOOKS / "page/page.py"), str(notebook)]
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
    for words in ("Error displaying widget", "Loading widget"):
        assert words not in page.locator("body").inner_text()
