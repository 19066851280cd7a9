"""The web site, built by its one command and walked from the disk: no request, no error, no link that leads nowhere."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from tests.browser.conftest import browser  # noqa: F401

pytest.importorskip("sphinx", reason="no sphinx; pip install -r tests/requirements.txt")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe; see tests/requirements.txt")
ROOT = Path(__file__).parents[2]


def build(root: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "site", "build/site"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def copied(folder: Path, *notebooks: str) -> Path:
    """What the site is made of, with these notebooks or all, in a folder of its own."""
    for part in ("site", "images", "notebooks"):
        there = shutil.ignore_patterns("__pycache__", "photos", *(["notebooks"] if part == "site" else []))
        shutil.copytree(ROOT / part, folder / part, ignore=there)
    for path in (folder / "notebooks").rglob("*.ipynb"):
        if notebooks and path.name not in notebooks:
            path.unlink()
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    root = copied(tmp_path_factory.mktemp("site"))
    done = build(root)
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
            page, anchor = parts._replace(query="", fragment="").geturl(), f'id="{unquote(parts.fragment)}"'
            lost = parts.fragment and page in texts and anchor not in texts[page]
            wrong += [(address, target)] if lost or not Path(unquote(parts.path)).exists() else []
    assert seen > 500
    assert not wrong


def test_from_a_disk_without_a_network_every_page_opens_in_silence_and_its_pictures_live(site, pages, browser):  # noqa: F811
    alive = 0
    for number, path in enumerate(pages):
        scheme, width = (("light", 1280), ("dark", 320))[number % 2]  # 320 is 1280 at a zoom of 400%
        window = dict(viewport={"width": width, "height": 900}, color_scheme=scheme)
        with browser.new_context(**window, offline=True) as context:
            page, wanted, errors = context.new_page(), [], []
            page.on("request", lambda request, wanted=wanted: wanted.append(request.url))
            page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            page.on("console", lambda line, errors=errors: errors.append(line.text) if line.type == "error" else None)
            page.goto(path.as_uri())
            for living in page.locator(".vit-living").all():
                living.locator(".vit-alive").wait_for(timeout=20_000)
                alive += 1
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path.name
            assert [url for url in wanted if not url.startswith(("file:", "data:", "blob:"))] == [], path.name
            assert errors == [], path.name
            found = axe.Axe().run(page).response["violations"]
            assert [(one["id"], node["html"]) for one in found for node in one["nodes"]] == [], path.name
            assert page.locator("math").count() or "$$" not in page.inner_text("body"), path.name
    assert alive >= 12


def test_a_digit_on_the_first_page_s_pad_gets_an_answer_and_search_finds_a_term(site, browser):  # noqa: F811
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.get_by_text("draw here").or_(page.locator(".vit-steps-pad canvas").first).first.wait_for()
    page.get_by_role("button", name="4", exact=True).click()
    page.wait_for_function("document.querySelector('.vit-text').textContent.includes('4')")
    page.goto((site / "search.html").as_uri() + "?q=class+token")
    page.locator("#search-results li a").nth(4).wait_for()  # they come one after another
    page.close()


def not_run(cells: list) -> None:
    next(cell for cell in cells if cell["cell_type"] == "code")["execution_count"] = None


def without_alt(cells: list) -> None:
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    shown = [one for one in outputs if "image/png" in one.get("data", {}) and "text/html" not in one["data"]]
    shown[0]["metadata"] = {}


@pytest.mark.parametrize(
    ("change", "told"),
    [(not_run, "cell 1 was not executed"), (without_alt, r"cell \d+: a picture without alternative")],
)
def test_a_notebook_that_is_not_whole_is_refused(tmp_path, change, told):
    path = copied(tmp_path, "00_start_here.ipynb") / "notebooks/00_start_here.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    change(notebook["cells"])
    path.write_text(json.dumps(notebook), encoding="utf-8")
    with pytest.raises(ValueError, match=f"00_start_here.ipynb, {told}"):
        runpy.run_path(str(tmp_path / "site/conf.py"))


def test_the_build_fails_and_says_where_a_link_leads_nowhere_and_a_term_is_unknown(tmp_path):
    root = copied(tmp_path, "00_start_here.ipynb")
    path = root / "site/glossary.md"
    text = path.read_text(encoding="utf-8").replace("{term}`stream`", "{term}`streaming`")
    path.write_text(f"{text}\n\n[nowhere](nothing_here.ipynb)\n", encoding="utf-8")
    done = build(root)
    assert done.returncode
    assert re.search(r"glossary.md.*nothing_here.ipynb", done.stderr)
    assert re.search(r"glossary.md.*streaming", done.stderr)
