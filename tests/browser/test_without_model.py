"""The pictures that carry no model, under pointer, finger and keys: arrows, pixels, predict and run."""

import io
import re

import pytest
import torch
from PIL import Image

from tests.browser.reader import ask, drag, listen, number, spot, swipe, told
from vit_walkthrough import attend, attention_weights, patchify
from vit_walkthrough.data import ClutteredDigits, numbered_image
from vit_walkthrough.living import live

KEYS, VALUES, QUERY = [[0.0, 1.0], [3.0, 0.0], [1.0, 1.0]], [[10.0, 0.0], [0.0, 10.0], [5.0, 5.0]], [2.0, 0.0]


def assert_follows(page) -> dict:
    """What is shown follows from where the tips are."""
    state = ask(page)
    query, keys = torch.tensor([state["query"]]).float(), torch.tensor(state["keys"]).float().reshape(-1, 2)
    scores = query @ keys.T / 2**0.5
    weights = attention_weights(query / state["temperature"], keys)
    output = attend(weights, torch.tensor(VALUES))[0]
    assert state["weights"] == pytest.approx(weights[0].tolist(), abs=1e-5)
    assert state["output"] == pytest.approx(output.tolist(), abs=1e-4)
    cells = page.locator(".vit-arrows-table .vit-number").all_inner_texts()
    shown = torch.tensor([number(cell) for cell in cells]).reshape(-1, 3)
    wanted = torch.stack([scores[0], scores[0] / state["temperature"], weights[0]], dim=1)
    torch.testing.assert_close(shown, wanted, atol=0.0051, rtol=0)
    assert f"= ({output[0]:.2f}, {output[1]:.2f})".replace("-", "−") in told(page)
    return state


def test_arrows_tips_are_dragged_by_mouse_finger_and_keys(open_page):
    page = open_page(live("arrows", KEYS, VALUES, QUERY).html + '<p style="height:3000px">', has_touch=True)
    tips = page.locator(".vit-arrows-tip")
    assert assert_follows(page)["query"] == QUERY
    for tip, name in ((3, "query"), (1, "keys")):
        before, (across, down) = assert_follows(page)[name], spot(tips.nth(tip), 0, 0, 1, 1)
        drag(page, (across, down), (across - 60, down - 40))
        after = assert_follows(page)[name]
        at = 2 if name == "keys" else 0
        assert (after[at] - before[at], after[at + 1] - before[at + 1]) == pytest.approx((-1.21, 0.81), abs=0.03)
    before, (across, down) = assert_follows(page)["query"], spot(tips.nth(3), 0, 0, 1, 1)
    swipe(page, (across, down), (across, down + 30), (across, down + 90))
    after = assert_follows(page)["query"]
    assert (after[0] - before[0], after[1] - before[1]) == pytest.approx((0, -1.82), abs=0.03)
    assert page.evaluate("scrollY") == 0
    heard = listen(page)
    tips.nth(3).press("ArrowUp")
    assert assert_follows(page)["query"][1] == pytest.approx(after[1] + 7.5 / 40)
    page.get_by_role("slider").press("Home")
    assert (assert_follows(page)["temperature"], heard()) == (pytest.approx(0.1), [])
    page.get_by_role("button", name="put back").click()
    assert assert_follows(page)["query"] == QUERY


def said_of_a_pixel(page) -> tuple[int, int, float]:
    """Patch, place and value, from the sentence; and patch and place from the formula."""
    sentence, formula = told(page), page.locator(".vit-pixels-formula").first.inner_text()
    value, patch, place = re.search(r"is ([\d.]+) in channel.*patch (\d+).*at place (\d+)", sentence).groups()
    ends = re.findall(r"= [^=\n]* = (\d+)$|= (\d+ \+ \d+ \+ \d+) = (\d+)$", formula, re.MULTILINE)
    assert (ends[0][0], ends[1][0] or ends[1][2]) == (patch, place)
    return int(patch), int(place), float(value)


def test_pixels_every_picture_leads_to_the_number_that_patchify_puts_there(open_page):
    image = torch.rand(3, 8, 12)
    rows = patchify(image[None], 4)[0]
    page = open_page(live("pixels", image, 4).html)
    boards = page.locator(".vit-pixels-board canvas")
    for board, shape in enumerate(((8, 12), (4, 12), (3, 16), rows.shape)):
        for row, col in ((0, 0), (shape[0] - 1, shape[1] - 1), (1, 5)):
            page.mouse.move(*spot(boards.nth(board), row, col, *shape))
            patch, place, value = said_of_a_pixel(page)
            assert value == pytest.approx(rows[patch, place].item(), abs=0.0051)
            at_home = row // 4 * 3 + col // 4
            assert [patch == at_home, True, place == row * 16 + col, (patch, place) == (row, col)][board]


def test_pixels_the_steps_of_the_code_end_in_the_rows_of_patchify(open_page):
    page = open_page(live("pixels", numbered_image(), 2).html, reduced_motion="reduce")
    page.get_by_role("button", name="as code").click()
    for name, shape in (("1 reshape", "2, 2, 3, 2"), ("2 permute", "2, 3, 2, 2"), ("3 reshape", "6, 4")):
        page.get_by_role("button", name=name).click()
        assert f"({shape})" in page.locator(".vit-pixels-formula:visible").inner_text()
    ordered = sorted(ask(page, "tiles()"), key=lambda tile: (float(tile[2][:-1]), float(tile[1][:-1])))
    assert [int(tile[0]) for tile in ordered] == patchify(numbered_image()[None], 2).flatten().int().tolist()


CHOICES = [
    ("576", False, "The class token has a position too."),
    ("577", True, "24 rows of 24 patches, and the class token."),
    ("<197> & more", False, "That is the number for 224 pixels."),
]
QUESTION = "How many positions are there at 384 pixels?"


def test_predict_answers_unfold_by_touch_mouse_and_keyboard_and_fold_again(open_page):
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


def test_predict_the_right_answer_is_not_in_the_still_the_text_or_the_page_before_a_tap(open_page):
    first, other = (live("predict", QUESTION, [(one, one == right, "Because.") for one in "ab"]) for right in "ab")
    assert (first.png, first.text) == (other.png, other.text)
    width, height = Image.open(io.BytesIO(first.png)).size
    assert height < 300 < width  # three lines and the text below
    assert "Because" not in first.text
    page = open_page(first.html)
    assert page.locator(".vit-alive").inner_html() == open_page(other.html).locator(".vit-alive").inner_html()


STATE = "document.querySelector('.vit-living').living.state()"


def moments(**last) -> list[dict]:
    """Moments of 4 images before steps 0, 2 and 4 and after the last, 5, in which something may differ."""
    dice = torch.Generator().manual_seed(0)
    found = [
        dict(step=step, loss=2.3 - step / 3, accuracy=0.1 + step / 7)
        | dict(probabilities=(2 * torch.randn(4, 10, generator=dice)).softmax(-1))
        | dict(maps=torch.rand(4, 16, generator=dice), filters=torch.randn(5, 432, generator=dice))
        for step in (0, 2, 4, 5)
    ]
    return [*found[:-1], found[-1] | last]


def assert_shows(page, moment, labels):
    said, columns = told(page), page.locator(".vit-run-column").all_inner_texts()
    assert f"Step {moment['step']} of 5: the loss is {moment['loss']:.2f}, and {moment['accuracy']:.1%}" in said
    best = moment["probabilities"].argmax(-1)
    assert f"names {(best == labels).sum()} of these 4 pictures right" in said
    for text, now, label, probabilities in zip(columns, best, labels, moment["probabilities"], strict=True):
        assert text.startswith(f"✓ says {now}" if now == label else f"✗ says {now}, not {label}")
        shown = float(text.split()[-3].rstrip("%"))
        assert shown == pytest.approx(100 * probabilities[label].item(), abs=0.051)


def test_run_mouse_touch_keys_and_play_go_along_the_recorded_moments(open_page):
    recorded, (images, labels, masks) = moments(), ClutteredDigits("test").sample(4, draw=0)
    page = open_page(live("run", recorded, images, labels, masks=masks).html, has_touch=True)
    assert_shows(page, recorded[3], labels)
    curve = page.locator("svg").nth(1).bounding_box()
    x = [curve["x"] + curve["width"] * (46 + 400 * step / 5) / 460 for step in (0, 2, 4, 5)]  # as in PLOT
    page.mouse.move(x[1] + 3, curve["y"] + 60)
    assert_shows(page, recorded[1], labels)
    page.touchscreen.tap(x[2], curve["y"] + 60)
    assert_shows(page, recorded[2], labels)
    page.locator("[role=slider]").press("Home")
    assert_shows(page, recorded[0], labels)
    page.get_by_role("button", name="play").click()
    page.wait_for_function(f"{STATE}.moment === 3 && !{STATE}.playing")
    assert_shows(page, recorded[3], labels)
