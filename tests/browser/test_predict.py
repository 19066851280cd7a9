"""The picture `predict`: an answer says why it is right or wrong once it is chosen, and not before."""

import io

from PIL import Image

from vit_walkthrough.living import live

CHOICES = [
    ("576", False, "The class token has a position too."),
    ("577", True, "24 rows of 24 patches, and the class token."),
    ("<197> & more", False, "That is the number for 224 pixels."),
]
QUESTION = "How many positions are there at 384 pixels?"


def test_answers_unfold_by_touch_mouse_and_keyboard_and_fold_again(open_page):
    page = open_page(live("predict", QUESTION, CHOICES).html, has_touch=True)
    answers, alive = page.locator("button"), page.locator(".vit-alive")
    assert answers.all_inner_texts() == [f"○\n{answer}" for answer, _, _ in CHOICES]
    assert not any(sentence in alive.inner_text() for _, _, sentence in CHOICES)
    answers.nth(0).tap()
    assert "Not so: The class token has a position too." in alive.inner_text()
    assert CHOICES[1][2] not in alive.inner_text()
    answers.nth(2).click()
    assert CHOICES[2][2] in alive.inner_text()
    assert "You found it" not in alive.inner_text()
    answers.nth(1).focus()
    page.keyboard.press("Enter")
    assert "Right: 24 rows" in alive.inner_text()
    assert "with tap number 3" in alive.inner_text()
    answers.nth(0).click()
    assert CHOICES[0][2] not in alive.inner_text()
    assert answers.nth(0).get_attribute("aria-expanded") == "false"
    assert "with tap number 3" in alive.inner_text()
    assert [answers.nth(at).inner_text()[0] for at in range(3)] == ["✗", "✓", "✗"]


def test_the_right_answer_is_not_in_the_still_the_text_or_the_page_before_a_tap(open_page):
    first, other = (live("predict", QUESTION, [(one, one == right, "Because.") for one in "ab"]) for right in "ab")
    assert (first.png, first.text) == (other.png, other.text)
    width, height = Image.open(io.BytesIO(first.png)).size
    assert 300 < width
    assert height < 300  # three lines and the text below
    assert "Because" not in first.text
    page = open_page(first.html)
    assert page.locator(".vit-alive").inner_html() == open_page(other.html).locator(".vit-alive").inner_html()
