"""Every living picture at two widths, on white and on dark ground: axe finds nothing, and its size is kept."""

import pytest
import torch

from tests.browser.conftest import browser, open_file, open_page  # noqa: F401
from vit_walkthrough import ViTConfig
from vit_walkthrough.data import ClutteredDigits, numbered_image
from vit_walkthrough.living import live
from vit_walkthrough.living.pictures import PICTURES
from vit_walkthrough.weights import load_tiny


@pytest.fixture(scope="module")
def pictures() -> dict:
    images, labels, masks = ClutteredDigits("test").sample(4, draw=0)
    hero, keys = load_tiny(8, 4), torch.tensor([[2.0, 0.0], [0.0, 2.0], [-1.0, -1.0]])
    moments = [
        dict(step=step, loss=2.0, accuracy=0.5, probabilities=torch.full((4, 10), 0.1), maps=torch.rand(4, 16))
        | dict(filters=torch.randn(12, 432))
        for step in range(0, 1001, 50)
    ]
    arguments = {
        "pixels": (numbered_image(), 2),
        "arrows": (keys, keys, torch.tensor([2.0, 0.5])),
        "parameters": (ViTConfig(),),
        "run": (moments, images, labels),
        "predict": ("How many patches?", [("36", True, "6 rows of 6."), ("37", False, "One of them is no patch.")]),
    }
    shown = {name: live(name, *arguments.get(name, (hero, images[0]))) for name in PICTURES}
    shown["cover"] = live("cover", hero, images[0], mask=masks[0], label=int(labels[0]))
    return shown


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_small_and_axe_finds_nothing(open_page, pictures, name):  # noqa: F811
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    picture = pictures[name]
    assert len(picture.html) + 4 * len(picture.png) / 3 <= 350_000
    for width, ground in ((1280, "white;color:black"), (390, "#111;color:#eee")):
        body = f'<body style="background:{ground}"><main><h1>picture</h1>{picture.html}</main>'
        page = open_page(body, viewport={"width": width, "height": 900})
        page.evaluate("document.documentElement.lang = 'en'")
        page.locator(".vit-alive").wait_for()
        results = axe.Axe().run(page).response
        assert len(results["passes"]) > 5
        assert not results["violations"]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
