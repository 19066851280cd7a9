"""Controls and the picture that follows them."""

import numpy as np
import pytest

from tests.widgets.panels import Page, count_draws
from vit_walkthrough.draw import plot_matrix
from vit_walkthrough.widgets import Panel
from vit_walkthrough.widgets import panel as panel_module
from vit_walkthrough.widgets.panel import number


@pytest.fixture
def panel():
    return Panel(lambda side: (plot_matrix(np.eye(side)), f"{side} ones."), side=number("side", 2, 1, 4))


@pytest.mark.parametrize("words", ['a "b" <i>c</i> & d', "it's > 1 < 2", "&lt;script&gt;"])
def test_words_of_any_signs_are_shown_as_they_are(words):
    panel = Panel(lambda side: (plot_matrix([side]), words), hint=words, side=number("side", 2, 1, 4))
    page, hint = Page(panel.picture.value), Page(panel.box.children[0].value)
    assert page.tags == ["div", "img", "p"]
    assert page.words == page.attributes["img"]["alt"] == panel.text == words
    assert page.attributes["p"]["aria-live"] == "polite"
    assert hint.tags == ["p", "style", "p"]
    assert hint.words.startswith(words)


@pytest.mark.parametrize("part", ["draw", "at_once"])
@pytest.mark.parametrize(("error", "words"), [(ValueError('<i>"</i> &'), '<i>"</i> &'), (KeyError(), "KeyError")])
def test_an_error_is_shown_and_raised_and_leaves_the_last_picture(panel, monkeypatch, part, error, words):
    def fail(*args, **kwargs):
        raise error

    before = panel.picture.value
    with monkeypatch.context() as patch:
        patch.setattr(panel if part == "draw" else panel_module, part, fail)
        for act in (lambda: setattr(panel.controls["side"], "value", 1), panel.update):
            with pytest.raises(type(error)):
                act()
            page = Page(panel.message.value)
            assert (page.tags, page.attributes["p"]["role"], page.words) == (["p"], "alert", words)
            assert (panel.picture.value, panel.text) == (before, "2 ones.")
    draws = count_draws(panel)
    panel.controls["side"].value = 2  # the way back is drawn
    assert (draws, panel.message.value, panel.picture.value) == ([{"side": 2}], "", before)


@pytest.mark.parametrize(("quick", "drawn"), [((3, 4), [1, 4]), ((4, 1), [1])])
def test_of_changes_while_it_draws_the_last_one_is_drawn_afterwards_if_it_is_another(panel, quick, drawn):
    draws, real, left = [], panel.draw, list(quick)

    def draw(side):
        draws.append(side)
        while left:
            panel.controls["side"].value = left.pop(0)
            assert panel.text == "2 ones."  # nothing is put inside of a drawing
        return real(side)

    panel.draw = draw
    panel.controls["side"].value = 1
    assert draws == drawn
    assert panel.text == f"{drawn[-1]} ones."
