"""A real browser without network, or the reason why there is none."""

import shutil
from pathlib import Path

import pytest

pytest.register_assert_rewrite(f"{__package__}.jupyter")


@pytest.fixture(scope="module")
def browser():
    """Chromium. Of a file, not of a folder: while it is open, an event loop runs that a second one stumbles over, and
    where another folder's file imports it, pytest would close it at the very end."""
    reason = "playwright cannot be imported; pip install -r tests/requirements.txt"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason, exc_type=ImportError)
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("there is no chromium on the PATH; apt-get install chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def open_file(browser):
    """Open a file in a fresh window: nothing else can be requested, and nothing else may be tried."""
    contexts, opened, wanted, errors = [], [], [], []

    def open_file(file: Path, **options):
        contexts.append(browser.new_context(**{"viewport": {"width": 960, "height": 1100}} | options))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: wanted.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.route("**/*", lambda route: route.continue_() if route.request.url == file.as_uri() else route.abort())
        opened.append(file.as_uri())
        page.goto(file.as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert sorted(url for url in wanted if not url.startswith("data:")) == sorted(opened)
    assert not errors


@pytest.fixture
def open_page(open_file, tmp_path):
    def open_page(body: str, **options):
        file = tmp_path / f"page{len([*tmp_path.iterdir()])}.html"
        file.write_text(f'<!doctype html><meta charset="utf-8"><title>test</title>{body}', encoding="utf-8")
        return open_file(file, **options)

    return open_page
