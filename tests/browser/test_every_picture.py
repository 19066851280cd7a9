"""Every living picture: with scripts off, inserted as notebooks do, saved alive, in a frame of its own on a dark phone;
what it cannot show, `live` refuses."""

from html import escape

import pytest
import torch

from tests.browser.jupyter import View, until
from tests.browser.test_models import IMAGE, MODEL
from tests.browser.test_without_model import CHOICES, QUESTION, moments
from tests.browser.test_without_model import KEYS as PAIRS
from vit_walkthrough import ViTConfig
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.living import live

IMAGES, LABELS, _ = ClutteredDigits("test").sample(4, draw=3)
PICTURES = {
    "steps": ("patches", MODEL, IMAGE),
    "pixels": ("36 rows of 192", IMAGE, 8),
    "embedding": ("token", MODEL, IMAGE),
    "order": ("6 x 6 patches", MODEL, IMAGE),
    "attention": ("class token looks", MODEL, IMAGE),
    "arrows": ("query", PAIRS, PAIRS, [2.0, 0.0]),
    "stream": ("after block 1", MODEL, IMAGE),
    "parameters": ("86,567,656", ViTConfig()),
    "run": ("81.4% at the end", moments(), IMAGES, LABELS),
    "cover": ("attention", MODEL, IMAGE),
    "predict": (QUESTION, QUESTION, CHOICES),
}


def shown(name: str):
    return live(name, *PICTURES[name][1:])


@pytest.mark.parametrize("name", PICTURES)
def test_without_scripts_the_still_stands(open_page, name):
    picture = shown(name)
    assert len(picture.html) + len(picture.png) < 350_000
    assert PICTURES[name][0] in picture.text
    still = open_page(picture.html, java_script_enabled=False).get_by_role("img", name=picture.text, exact=True)
    assert still.bounding_box()["width"] > 100


def expect_sound(page, frame, wanted: int = 2) -> None:
    """So many pictures live, fit, answer to mouse, keys and finger, and have large targets and nothing against axe."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe; see tests/requirements.txt")
    frame.locator(".vit-alive").nth(wanted - 1).wait_for()
    assert (frame.locator(".vit-alive").count(), frame.locator(".vit-still:visible").count()) == (wanted, 0)
    view, first = (View(page, frame.locator(".vit-living").nth(number)) for number in (wanted - 1, 0))
    before = first.shown()
    view.use()
    assert wanted == 1 or first.shown() == before
    if view.picture.count() and page.evaluate("navigator.maxTouchPoints"):
        view.hover(0.9, 0.9)
        box, before = view.picture.bounding_box(), view.shown()
        page.touchscreen.tap(box["x"] + 0.35 * box["width"], box["y"] + 0.45 * box["height"])
        until(page, lambda: view.shown() != before, 5, "another picture after a tap")
    assert frame.evaluate("document.documentElement.scrollWidth <= innerWidth")
    least = "all => all.map((one) => one.getBoundingClientRect()).map((box) => Math.min(box.width, box.height))"
    sizes = frame.locator("button, input").locator("visible=true").evaluate_all(least)
    assert all(size >= 24 for size in sizes)
    scrolls = "all => all.every((one) => getComputedStyle(one).touchAction === 'pan-y')"
    assert frame.locator(".vit-points").evaluate_all(scrolls)
    found = axe.Axe().run(frame, ".vit-living").response["violations"]
    assert not found, [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]


REVIVE = """html => { // as notebooks do
    const main = document.querySelector("main");
    if (html) main.innerHTML = html;
    for (const old of document.querySelectorAll(".vit-living script")) {
      const alive = document.createElement("script");
      for (const one of old.attributes) alive.setAttribute(one.name, one.value);
      alive.textContent = old.textContent;
      old.replaceWith(alive);
    } }"""


@pytest.mark.parametrize("name", PICTURES)
def test_two_that_are_inserted_run_again_or_saved_alive_live_once_each(open_page, name):
    wide = {"viewport": {"width": 1280, "height": 900}}
    page = open_page("<main></main>", **wide)
    page.evaluate(REVIVE, 2 * shown(name).html)
    page.locator(".vit-alive").nth(1).wait_for()
    page.evaluate(REVIVE, "")  # its scripts run again, as in a page that a browser restores
    expect_sound(page, page)
    again = open_page(page.locator("main").inner_html(), **wide)
    again.locator(".vit-alive").nth(1).wait_for()
    assert again.locator(".vit-alive").count() == 2


@pytest.mark.parametrize("name", PICTURES)
def test_in_a_frame_of_its_own_on_a_dark_phone(open_page, name):
    inner = f'<meta charset="utf-8"><body style="background:#111;color:#eee">{shown(name).html}'
    style = "border:0;width:100%;height:3000px"
    outer = f'<body style="margin:0"><iframe title="picture" sandbox="allow-scripts" style="{style}" '
    options = dict(viewport={"width": 390, "height": 800}, has_touch=True, color_scheme="dark", reduced_motion="reduce")
    page = open_page(f'{outer} srcdoc="{escape(inner)}"></iframe>', **options)
    expect_sound(page, page.frames[1], wanted=1)


YES, NO = ("a", True, "Yes."), ("b", False, "No.")


@pytest.mark.parametrize(
    ("words", "name", "given", "options"),
    [
        (r"\(3, 3\)", "cover", (MODEL, IMAGE), {"mask": torch.ones(3, 3)}),
        ("0 places", "cover", (MODEL, IMAGE), {"mask": torch.zeros(48, 48)}),
        ("label 10", "cover", (MODEL, IMAGE), {"label": 10}),
        *[("image", "pixels", (one, 8), {}) for one in (3 * IMAGE, IMAGE - 1)],
        ("shape", "pixels", (IMAGE[:2], 8), {}),
        ("NaN", "pixels", (IMAGE * torch.nan, 8), {}),
        ("divide", "pixels", (IMAGE[:, :7], 8), {}),
        ("3, 32, 32", "embedding", (MODEL, IMAGE[:, :32, :32]), {}),
        ("3 to 6 keys", "arrows", (PAIRS[:2], PAIRS[:2], [2.0, 0.0]), {}),
        ("3 to 6 keys", "arrows", (PAIRS, PAIRS[:2], [2.0, 0.0]), {}),
        ("NaN", "arrows", (PAIRS, PAIRS, [2.0, float("nan")]), {}),
        ("rise", "run", (moments(step=0), IMAGES, LABELS), {}),
        ("not finite", "run", (moments(loss=torch.nan), IMAGES, LABELS), {}),
        ("at least 2", "predict", (QUESTION, [YES]), {}),
        ("different", "predict", (QUESTION, [YES, ("a", False, "No.")]), {}),
        ("0 of the answers", "predict", (QUESTION, [("a", False, "No."), NO]), {}),
        ("2 of the answers", "predict", (QUESTION, [YES, ("b", True, "Yes.")]), {}),
        ("empty", "predict", (QUESTION, [("a", True, " "), NO]), {}),
        ("'B/16'", "parameters", ("B/16",), {}),
        (r"'attentoin'; choose from .*attention", "attentoin", (), {}),
    ],
)
def test_what_cannot_be_shown_is_refused(words, name, given, options):
    with pytest.raises(TypeError if name == "parameters" else ValueError, match=words):
        live(name, *given, **options)
