"""The control that lets one choose which picture: what it accepts, what it refuses, what it puts into the page."""

import pytest
from PIL import Image

from tests.widgets.panels import Page, address, choose, count_draws, file_of, noise
from vit_walkthrough.draw import plot_matrix
from vit_walkthrough.widgets import Panel
from vit_walkthrough.widgets.pictures import PictureChooser


@pytest.fixture
def chooser():
    chooser = PictureChooser()
    chooser.kind.value = "my own"
    return chooser


@pytest.fixture
def seen(chooser):
    values = []
    chooser.observe(lambda change: values.append(change.new), names="value")
    return values


def test_a_chooser_says_which_picture_is_chosen_and_shows_the_controls_that_apply():
    chooser = PictureChooser()
    assert chooser.value == ("digit", 0)
    for value, shown in ((("digit", 7), {"number"}), (("cat",), set()), (("digit", 9), {"number"})):
        choose(chooser, value)
        parts = {"number": chooser.number, "own": chooser.own}
        assert {name for name, part in parts.items() if part.layout.display != "none"} == shown
    chooser.kind.value = "my own"
    assert [part.layout.display for part in (chooser.number, chooser.own, chooser.file)] == ["none", "", "none"]
    assert chooser.value == ("digit", 9)  # until a file has come


def test_a_file_that_comes_is_chosen_and_its_text_is_taken_away(chooser, seen):
    content, other = noise(), noise(seed=1)
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
def test_what_is_no_picture_is_told_and_raised_and_changes_nothing(chooser, seen, kind):
    text, words = BROKEN[kind]
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
    content = noise(seed=2)
    chooser.file.value = address(content)
    assert (chooser.problem.value, seen[-1], panel.text) == ("", ("own", content, False), "own")
