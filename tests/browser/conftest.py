"""A real browser without network, or the reason why there is none; a picture of every page whose test fails."""

import re
import shutil
from pathlib import Path

import pytest

SCREENSHOTS = Path(__file__).parents[2] / "screenshots"
FAILED = pytest.StashKey[bool]()
pytest.register_assert_rewrite(f"{__package__}.jupyter")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


def keep_picture(page, name: str, number: int = 0) -> None:
    """A picture of what the page shows, under the name of a test."""
    SCREENSHOTS.mkdir(exist_ok=True)
    name = re.sub(r"[^\w-]+", "_", name)
    page.screenshot(path=SCREENSHOTS / f"{name}_{number}.png", full_page=True)


@pytest.fixture(scope="module")
def browser():
    """Chromium. Of a module, not of the session: while it is open, an event loop runs that others stumble over."""
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
def open_file(browser, request):
    """Open a file in a fresh window: nothing else can be requested, and nothing else may be tried."""
    contexts, pages, wanted, errors = [], [], [], []

    def open_file(file: Path, **options):
        options = {"viewport": {"width": 960, "height": 1100}} | options
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: wanted.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.route("**/*", lambda route: route.continue_() if route.request.url == file.as_uri() else route.abort())
        pages.append((page, file.as_uri()))
        page.goto(file.as_uri())
        return page

    yield open_file
    if request.node.stash.get(FAILED, True):
        for number, (page, _) in enumerate(pages):
            keep_picture(page, request.node.name, number)
    for context in contexts:
        context.close()
    assert sorted(url for url in wanted if not url.startswith("data:")) == sorted(url for _, url in pages)
    assert not errors


@pytest.fixture
def open_page(open_file, tmp_path):
    """Open a page with this HTML, as `open_file` does."""
    count = 0

    def open_page(body: str, **options):
        nonlocal count
        file = tmp_path / f"page{count}.html"
        count += 1
        file.write_text(f'<!doctype html><meta charset="utf-8"><title>test</title>{body}', encoding="utf-8")
        return open_file(file, **options)

    return open_page
