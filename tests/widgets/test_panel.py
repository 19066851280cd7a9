"""Controls and the picture that follows them; and the control that lets one choose which picture."""

import numpy as np
import pytest
from PIL import Image

from tests.widgets.panels import Page, address, choose, count_draws, file_of, noise
from vit_walkthrough.draw import plot_matrix
from vit_walkthrough.widgets import Panel
from vit_walkthrough.widgets import panel as panel_module
from vit_walkthrough.widgets.panel import number
from vit_walkthrough.widgets.pictures import PictureChooser


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


def observed() -> tuple[PictureChooser, list]:
    chooser, values = PictureChooser(), []
    chooser.kind.value = "my own"
    chooser.observe(lambda change: values.append(change.new), names="value")
    return chooser, values


def test_a_chooser_says_which_picture_is_chosen_and_shows_the_controls_that_apply():
    chooser = PictureChooser()
    assert chooser.value == ("digit", 0)
    for value, shown in ((("digit", 7), ["", "none"]), (("cat",), ["none", "none"]), (("digit", 9), ["", "none"])):
        choose(chooser, value)
        assert [part.layout.display or "" for part in (chooser.number, chooser.own)] == shown
    chooser.kind.value = "my own"
    assert [part.layout.display for part in (chooser.number, chooser.own, chooser.file)] == ["none", "", "none"]
    assert chooser.value == ("digit", 9)  # until a file has come


def test_a_file_that_comes_is_chosen_and_its_text_is_taken_away():
    content, other, (chooser, seen) = noise(), noise(seed=1), observed()
    for _ in range(2):  # the same file again changes nothing
        chooser.file.set_state({"value": address(content)})  # as a page sends it
        assert chooser.file.value == chooser.problem.value == ""
    assert seen == [("own", content, False)]
    choose(chooser, ("coffee",))
    chooser.file.value = address(other)  # waits
    assert chooser.value == ("coffee",)
    chooser.kind.value = "my own"
    chooser.dark_on_light.value = True
    assert seen[1:] == [("coffee",), ("own", other, False), ("own", other, True)]
    assert PictureChooser().content == b""  # what one is sent no other gets


BROKEN = {
    "no base64": ("data:image/png;base64,this is none!", "whole"),
    "signs beyond ASCII": ("data:image/png;base64,ä", "ASCII"),
    "no image": (address(b"%PDF-1.7 and more", "application/pdf"), "Pillow"),
    "one pixel": (address(file_of(Image.new("RGB", (1, 1)))), "1 x 1"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_picture_is_told_and_raised_and_changes_nothing(kind):
    (text, words), (chooser, seen) = BROKEN[kind], observed()
    panel = Panel(lambda chosen: (plot_matrix([1.0]), str(chosen[0])), chosen=chooser)
    draws, told, value = count_draws(panel), [], chooser.value
    chooser.problem.observe(lambda change: told.append(change.new), names="value")
    for _ in range(2):  # the same broken file again: the page has taken the words away, so they are sent again
        with pytest.raises((ValueError, TypeError), match=words) as error:
            chooser.file.value = text
        page = Page(chooser.problem.value)
        assert (page.tags, page.attributes["p"]["role"], page.words) == (["p"], "alert", str(error.value))
        assert chooser.file.value == ""
    assert told == [told[0], "", told[0]]
    assert (chooser.value, seen, draws, panel.message.value) == (value, [], [], "")
    chooser.kind.value = "digit"
    assert chooser.problem.value == ""  # the words go with the kind
    chooser.kind.value = "my own"
    chooser.file.value = address(content := noise(seed=2))
    assert (chooser.problem.value, seen[-1], panel.text) == ("", ("own", content, False), "own")
