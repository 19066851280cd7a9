"""The web site, built by its one command and walked from the disk: no request, no error, no link that leads nowhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from tests.browser.conftest import browser  # noqa: F401

pytest.importorskip("sphinx", reason="no sphinx; pip install -r tests/requirements.txt")
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="no axe; pip install -r tests/requirements.txt"
)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("site")
    for part in ("site", "images", "notebooks"):
        there = shutil.ignore_patterns("__pycache__", "photos", *(["notebooks"] if part == "site" else []))
        shutil.copytree(ROOT / part, root / part, ignore=there)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "site", "build/site"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return root / "build/site"


@pytest.fixture(scope="module")
def pages(site) -> list[Path]:
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


def test_every_notebook_and_every_page_is_there(site, pages):
    names = {path.relative_to(site).with_suffix("").as_posix() for path in pages}
    notebooks = {path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.glob("notebooks/**/*.ipynb")}
    assert notebooks | {"index", "before", "run", "glossary", "further", "404"} <= names


def test_every_link_and_every_anchor_leads_somewhere(site, pages):
    texts = {path.as_uri(): path.read_text(encoding="utf-8") for path in pages}
    wrong, seen = [], 0
    for address, text in texts.items():
        text = re.sub(r"<script.*?</script>", "", text, flags=re.S)
        for target in re.findall(r'(?:href|src)="([^"]*)"', text):
            parts = urlsplit(urljoin(address, target.replace("&amp;", "&")))
            if parts.scheme != "file":
                assert parts.scheme in ("https", "data", "mailto"), target
                continue
            seen += 1
            page = parts._replace(query="", fragment="").geturl()
            if not Path(unquote(urlsplit(page).path)).exists():
                wrong.append((address, target))
            elif parts.fragment and page in texts and f'id="{unquote(parts.fragment)}"' not in texts[page]:
                wrong.append((address, target))
    assert seen > 500
    assert not wrong


def test_from_a_disk_without_a_network_every_page_opens_in_silence_and_its_pictures_live(site, pages, browser):  # noqa: F811
    alive = 0
    for number, path in enumerate(pages):
        scheme, width = (("light", 1280), ("dark", 320))[number % 2]  # 320 is 1280 at a zoom of 400%
        with browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        ) as context:
            page, wanted, errors = context.new_page(), [], []
            page.on("request", lambda request, wanted=wanted: wanted.append(request.url))
            page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            page.on("console", lambda line, errors=errors: errors.append(line.text) if line.type == "error" else None)
            page.goto(path.as_uri())
            living = page.locator(".vit-living")
            for one in range(living.count()):
                living.nth(one).locator(".vit-alive").wait_for(timeout=20_000)
                alive += 1
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path.name
            assert [url for url in wanted if not url.startswith(("file:", "data:", "blob:"))] == [], path.name
            assert errors == [], path.name
            found = axe.Axe().run(page).response["violations"]
            assert [(one["id"], node["html"]) for one in found for node in one["nodes"]] == [], path.name
            assert page.locator("math").count() or "$$" not in page.inner_text("body"), path.name
    assert alive >= 12
