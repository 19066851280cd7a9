"""Controls and the picture that follows them."""

import gc

import ipywidgets
import numpy as np
import pytest
import torch

from tests.widgets.panels import Page, count_draws
from vit_walkthrough.draw import plot_matrix
from vit_walkthrough.widgets import Panel
from vit_walkthrough.widgets import panel as panel_module
from vit_walkthrough.widgets.panel import number, query_at


@pytest.fixture
def panel():
    def draw(side: int):
        if side == 3:
            raise ValueError('3 is <b>no</b> side & "that" is all')
        return plot_matrix(np.eye(side)), f"{side} ones."

    return Panel(draw, side=ipywidgets.IntSlider(2, 1, 4))


def test_a_panel_holds_its_hint_its_controls_its_message_and_its_picture_which_is_drawn_at_once(panel):
    hint, row, message, picture = panel.box.children
    assert isinstance(hint, ipywidgets.HTML)
    assert row.children == (panel.controls["side"],)
    assert (message, picture) == (panel.message, panel.picture)
    assert "vit-panel" in panel.box._dom_classes
    page = Page(picture.value)
    assert page.tags == ["div", "img", "p"]
    assert page.words == page.attributes["img"]["alt"] == panel.text == "2 ones."
    assert page.attributes["p"]["aria-live"] == "polite"


@pytest.mark.parametrize("words", ['a "b" <i>c</i> & d', "it's > 1 < 2", "&lt;script&gt;", "1 · 2 × 3"])
def test_words_of_any_signs_are_shown_as_they_are(words):
    panel = Panel(lambda: (plot_matrix([1.0]), words), hint=words)
    page, hint = Page(panel.picture.value), Page(panel.box.children[0].value)
    assert page.tags == ["div", "img", "p"]
    assert page.words == page.attributes["img"]["alt"] == words
    assert hint.tags == ["p", "style", "p"]
    assert hint.words.startswith(words)


def test_a_panel_says_what_to_do_when_its_kernel_is_gone_and_hides_that_until_then(panel):
    page = Page(panel.box.children[0].value)
    assert page.attributes["p"] == {"class": "vit-alert vit-lost", "role": "alert"}
    assert ".vit-lost {display: none" in page.words
    assert ".jupyter-widgets-disconnected .vit-lost {display: block" in page.words
    assert ".vit-alert {color: #a00000; background: white" in page.words  # to be read on a dark ground, too


def test_an_error_is_shown_and_raised_and_leaves_the_last_picture_until_the_way_back_is_drawn(panel):
    before, draws = panel.picture.value, count_draws(panel)
    for act in (lambda: setattr(panel.controls["side"], "value", 3), panel.update):
        with pytest.raises(ValueError, match="3 is <b>no</b> side"):
            act()
        page = Page(panel.message.value)
        assert page.words == '3 is <b>no</b> side & "that" is all'
        assert page.tags == ["p"]
        assert page.attributes["p"] == {"class": "vit-alert", "role": "alert"}
        assert (panel.picture.value, panel.text) == (before, "2 ones.")
    panel.controls["side"].value = 2
    assert draws == [{"side": 3}, {"side": 3}, {"side": 2}]
    assert (panel.message.value, panel.picture.value) == ("", before)


@pytest.mark.parametrize("part", ["draw", "adapt", "render"])
def test_an_error_without_words_in_any_part_is_shown_by_its_name(panel, monkeypatch, part):
    def fail(*args, **kwargs):
        raise NotImplementedError

    before = panel.picture.value
    with monkeypatch.context() as patch:
        patch.setattr(panel_module if part == "render" else panel, part, fail)
        with pytest.raises(NotImplementedError):
            panel.controls["side"].value = 1
    assert Page(panel.message.value).words == "NotImplementedError"
    assert (panel.picture.value, panel.text) == (before, "2 ones.")  # of one state


def test_an_error_of_the_first_drawing_is_raised():
    with pytest.raises(ZeroDivisionError):
        Panel(lambda side: 1 / 0, side=ipywidgets.IntSlider(2, 1, 4))


def test_a_change_that_changes_nothing_draws_nothing_and_a_demand_always_draws(panel):
    draws = count_draws(panel)
    panel.update({"name": "value"})
    assert draws == []
    panel.update()
    panel.controls["side"].value = 4
    panel.update({"name": "value"})
    assert draws == [{"side": 2}, {"side": 4}]


def test_a_limit_that_moves_a_value_draws_once_and_with_the_moved_value():
    drawn = []

    def draw(size, place):
        drawn.append((size, place))
        return plot_matrix(np.eye(size)), f"{place} of {size}."

    def adapt(controls):
        controls["place"].max = controls["size"].value - 1

    panel = Panel(draw, adapt=adapt, size=number("size", 5, 1, 9), place=number("place", 4, 0, 4))
    panel.controls["size"].value = 2
    assert drawn == [(5, 4), (2, 1)]
    assert panel.text == "1 of 2."


@pytest.mark.parametrize(("quick", "drawn"), [((3, 4), [1, 4]), ((4, 1), [1])])
def test_of_changes_while_it_draws_the_last_one_is_drawn_afterwards_if_it_is_another(panel, quick, drawn):
    draws, real, left = [], panel.draw, list(quick)  # 3 would be an error

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


@pytest.mark.parametrize("enabled", [True, False])
def test_while_it_draws_no_rubbish_is_collected_and_one_thread_computes_and_afterwards_all_is_as_before(panel, enabled):
    seen, real = [], panel.draw
    panel.draw = lambda side: (seen.append((gc.isenabled(), torch.get_num_threads())), real(side))[1]
    before = gc.isenabled(), torch.get_num_threads()
    try:
        (gc.enable if enabled else gc.disable)()
        torch.set_num_threads(2)
        panel.controls["side"].value = 1
        assert (gc.isenabled(), torch.get_num_threads()) == (enabled, 2)
        with pytest.raises(ValueError, match="side"):
            panel.controls["side"].value = 3
        assert (gc.isenabled(), torch.get_num_threads()) == (enabled, 2)
    finally:
        (gc.enable if before[0] else gc.disable)()
        torch.set_num_threads(before[1])
    assert seen == [(False, 1), (False, 1)]


def test_an_interruption_leaves_a_panel_that_draws(panel):
    def interrupt(side):
        raise KeyboardInterrupt

    real, panel.draw = panel.draw, interrupt
    with pytest.raises(KeyboardInterrupt):
        panel.controls["side"].value = 1
    assert gc.isenabled()
    panel.draw = real
    for side in (2, 1):
        panel.controls["side"].value = side
        assert panel.text == f"{side} ones."


# The controls


@pytest.mark.parametrize("cell", [None, (0, 0), (7, 0), (5, 2)])
def test_a_query_stays_at_its_place_in_the_picture_and_comes_back_to_its_patch(cell):
    controls, fit = query_at(8)
    if cell:
        controls["row"].value, controls["col"].value = cell
    for side in (8, 3, 1, 14, 16, 14, 1, 3, 8):
        fit(side)
        for slider, start in zip(controls.values(), cell or (4, 4), strict=True):
            assert (slider.min, slider.max) == (0, side - 1)
            assert slider.value / side <= (start + 0.5) / 8 < (slider.value + 1) / side
    assert (controls["row"].value, controls["col"].value) == (cell or (4, 4))


def test_a_query_that_was_moved_on_another_grid_comes_back_to_where_it_was_moved():
    controls, fit = query_at(8)
    controls["row"].value, controls["col"].value = 5, 1
    fit(4)
    assert (controls["row"].value, controls["col"].value) == (2, 0)
    controls["row"].value = 0  # and the column stays what it was
    fit(4)
    fit(8)
    assert (controls["row"].value, controls["col"].value) == (1, 1)
