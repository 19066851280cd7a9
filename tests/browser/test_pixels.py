"""The picture of pixels under a pointer, a finger and keys: where it says a pixel goes is where patchify puts it."""

import re

import pytest
import torch

from tests.browser.reader import ask, spot, told
from vit_walkthrough import patchify
from vit_walkthrough.data import numbered_image
from vit_walkthrough.living import live

CHANNELS, HEIGHT, WIDTH, SIDE = 3, 8, 12, 4
IMAGE = torch.rand(CHANNELS, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


def said(page) -> tuple[int, int, float]:
    """Patch, place and value, from the sentence; and patch and place from the formula."""
    sentence, formula = told(page), page.locator(".vit-pixels-formula").first.inner_text()
    value, patch, place = re.search(r"is ([\d.]+) in channel.*patch (\d+).*at place (\d+)", sentence).groups()
    ends = re.findall(r"= [^=\n]* = (\d+)$|= (\d+ \+ \d+ \+ \d+) = (\d+)$", formula, re.MULTILINE)
    assert (ends[0][0], ends[1][0] or ends[1][2]) == (patch, place)
    return int(patch), int(place), float(value)


def test_every_picture_leads_to_the_number_that_patchify_puts_there(open_page):
    rows = patchify(IMAGE[None], SIDE)[0]
    page = open_page(live("pixels", IMAGE, SIDE).html)
    boards = page.locator(".vit-pixels-board canvas")
    for board, shape in enumerate(((HEIGHT, WIDTH), (SIDE, CHANNELS * SIDE), (3, 16), rows.shape)):
        for row, col in ((0, 0), (shape[0] - 1, shape[1] - 1), (1, 5)):
            page.mouse.move(*spot(boards.nth(board), row, col, *shape))
            patch, place, value = said(page)
            assert value == pytest.approx(rows[patch, place].item(), abs=0.0051)
            at_home = row // SIDE * (WIDTH // SIDE) + col // SIDE
            assert [patch == at_home, True, place == row * 16 + col, (patch, place) == (row, col)][board]


def test_the_steps_of_the_code_end_in_the_rows_of_patchify(open_page):
    page = open_page(live("pixels", numbered_image(), 2).html, reduced_motion="reduce")
    page.get_by_role("button", name="as code").click()
    for name, shape in (("1 reshape", "2, 2, 3, 2"), ("2 permute", "2, 3, 2, 2"), ("3 reshape", "6, 4")):
        page.get_by_role("button", name=name).click()
        assert f"({shape})" in page.locator(".vit-pixels-formula:visible").inner_text()
    tiles = ask(page, "tiles()")
    ordered = sorted(tiles, key=lambda tile: (float(tile[2][:-1]), float(tile[1][:-1])))
    assert [int(tile[0]) for tile in ordered] == patchify(numbered_image()[None], 2).flatten().int().tolist()
