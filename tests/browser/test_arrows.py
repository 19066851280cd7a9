"""The picture of a query among keys: weights and output are the package's, wherever the tips are dragged."""

import pytest
import torch

from tests.browser.reader import ask, drag, listen, number, spot, swipe, told
from vit_walkthrough import attend, attention_weights
from vit_walkthrough.living import live

KEYS, VALUES, QUERY = [[0.0, 1.0], [3.0, 0.0], [1.0, 1.0]], [[10.0, 0.0], [0.0, 10.0], [5.0, 5.0]], [2.0, 0.0]


class View:
    def __init__(self, page):
        self.page, self.tips = page, page.locator(".vit-arrows-tip")

    def middle(self, tip):
        return spot(self.tips.nth(tip), 0, 0, 1, 1)

    def expect_right(self):
        """What is shown follows from where the tips are."""
        state = ask(self.page)
        query, keys = torch.tensor([state["query"]]).float(), torch.tensor(state["keys"]).float().reshape(-1, 2)
        scores = query @ keys.T / 2**0.5
        weights = attention_weights(query / state["temperature"], keys)
        output = attend(weights, torch.tensor(VALUES))[0]
        assert state["weights"] == pytest.approx(weights[0].tolist(), abs=1e-5)
        assert state["output"] == pytest.approx(output.tolist(), abs=1e-4)
        cells = self.page.locator(".vit-arrows-table .vit-number").all_inner_texts()
        shown = torch.tensor([number(cell) for cell in cells]).reshape(-1, 3)
        wanted = torch.stack([scores[0], scores[0] / state["temperature"], weights[0]], dim=1)
        torch.testing.assert_close(shown, wanted, atol=0.0051, rtol=0)
        assert f"= ({output[0]:.2f}, {output[1]:.2f})".replace("-", "−") in told(self.page)
        return state


def test_tips_are_dragged_by_mouse_finger_and_keys(open_page):
    page = open_page(live("arrows", KEYS, VALUES, QUERY).html + '<p style="height:3000px">', has_touch=True)
    view = View(page)
    assert view.expect_right()["query"] == QUERY
    for tip, name in ((3, "query"), (1, "keys")):
        before, (across, down) = view.expect_right()[name], view.middle(tip)
        drag(page, (across, down), (across - 60, down - 40))
        after = view.expect_right()[name]
        at = 2 if name == "keys" else 0
        assert (after[at] - before[at], after[at + 1] - before[at + 1]) == pytest.approx((-1.21, 0.81), abs=0.03)
    before, (across, down) = view.expect_right()["query"], view.middle(3)
    swipe(page, (across, down), (across, down + 30), (across, down + 90))
    after = view.expect_right()["query"]
    assert (after[0] - before[0], after[1] - before[1]) == pytest.approx((0, -1.82), abs=0.03)
    assert page.evaluate("scrollY") == 0
    heard = listen(page)
    view.tips.nth(3).press("ArrowUp")
    assert view.expect_right()["query"][1] == pytest.approx(after[1] + 7.5 / 40)
    page.get_by_role("slider").press("Home")
    assert (view.expect_right()["temperature"], heard()) == (pytest.approx(0.1), [])
    page.get_by_role("button", name="put back").click()
    assert view.expect_right()["query"] == QUERY
