"""Without scripts every living picture has its still; what it cannot show, `live` refuses."""

import pytest
import torch

from tests.browser.test_predict import CHOICES, QUESTION
from tests.browser.test_run import moments
from vit_walkthrough import ViTConfig
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.living import live
from vit_walkthrough.weights import load_tiny

MODEL, (IMAGES, LABELS, _) = load_tiny(8, 4), ClutteredDigits("test").sample(4, draw=3)
IMAGE, PAIRS = IMAGES[0], [[0.0, 1.0], [3.0, 0.0], [1.0, 1.0]]
PICTURES = {
    "steps": ("patches", MODEL, IMAGE),
    "pixels": ("36 rows of 192", IMAGE, 8),
    "embedding": ("token", MODEL, IMAGE),
    "order": ("6 x 6 patches", MODEL, IMAGE),
    "arrows": ("query", PAIRS, PAIRS, [2.0, 0.0]),
    "stream": ("after block 1", MODEL, IMAGE),
    "parameters": ("86,567,656", ViTConfig()),
    "run": ("81.4% at the end", moments(), IMAGES, LABELS),
    "cover": ("attention", MODEL, IMAGE),
    "predict": (QUESTION, QUESTION, CHOICES),
}


@pytest.mark.parametrize(("name", "words", "given"), [(name, *one[:1], one[1:]) for name, one in PICTURES.items()])
def test_without_scripts_the_still_stands(open_page, name, words, given):
    shown = live(name, *given)
    assert len(shown.html) + len(shown.png) < 350_000
    page = open_page(shown.html, java_script_enabled=False)
    assert words in shown.text
    still = page.get_by_role("img", name=shown.text, exact=True)
    assert still.bounding_box()["width"] > 100


YES, NO = ("a", True, "Yes."), ("b", False, "No.")


@pytest.mark.parametrize(
    ("words", "name", "given", "options"),
    [
        (r"\(3, 3\)", "cover", (MODEL, IMAGE), {"mask": torch.ones(3, 3)}),
        ("0 places", "cover", (MODEL, IMAGE), {"mask": torch.zeros(48, 48)}),
        ("label 10", "cover", (MODEL, IMAGE), {"label": 10}),
        ("shape", "pixels", (IMAGE[:2], 8), {}),
        ("image", "pixels", (3 * IMAGE, 8), {}),
        ("image", "pixels", (IMAGE - 1, 8), {}),
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
    ],
)
def test_what_cannot_be_shown_is_refused(words, name, given, options):
    with pytest.raises(ValueError, match=words):
        live(name, *given, **options)


def test_the_parameters_of_a_name_are_refused():
    with pytest.raises(TypeError, match="'B/16'"):
        live("parameters", "B/16")
