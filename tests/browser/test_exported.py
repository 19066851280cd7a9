"""The notebooks as exported HTML, opened from the disk with no network: views are alive, widgets are pictures."""

import subprocess
import sys

import pytest

from tests.browser.jupyter import NOTEBOOKS, OPENED, VIEW, View, expect_picture

# nbconvert's own page asks for require.js and MathJax at a CDN, and forgets what is said of a picture.
PAGE = [f"--TemplateExporter.extra_template_basedirs={NOTEBOOKS}", "--template=page"]


@pytest.fixture(params=OPENED)
def page(request, browser, open_file, tmp_path):
    pytest.importorskip("nbconvert", reason="nbconvert cannot be imported", exc_type=ImportError)
    notebook = NOTEBOOKS / f"{request.param}.ipynb"
    command = [sys.executable, "-m", "nbconvert", "--to", "html", *PAGE, f"--output-dir={tmp_path}", str(notebook)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return open_file(tmp_path / f"{request.param}.html", offline=True)


def test_views_live_and_widgets_are_pictures_with_their_text(page):
    for place in range(page.locator(VIEW).count()):
        View(page, page.locator(VIEW).nth(place)).use()
    images = page.locator(".jp-OutputArea-output img").locator("visible=true")
    assert images.count()
    for place in range(images.count()):
        expect_picture(images.nth(place))
        assert len(images.nth(place).get_attribute("alt").split()) > 8
    assert "No description has been provided" not in page.content()
    for words in ("Error displaying widget", "Loading widget"):
        assert words not in page.locator("body").inner_text()
