"""The control that lets one choose which picture: what it accepts, what it refuses, what it puts into the page."""

import struct
import zlib
from math import ceil
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image

from tests.widgets.panels import Page, address, choose, count_draws, file_of
from vit_walkthrough import data
from vit_walkthrough.draw import plot_matrix
from vit_walkthrough.widgets import Panel, pictures
from vit_walkthrough.widgets.pictures import MAX_UPLOAD, PictureChooser, picture


def photo_of(mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture of 60 x 40 pixels in any of Pillow's modes, and not the same everywhere."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 6, 4), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).resize((60, 40))
    return Image.fromarray(pixels).resize((60, 40)).convert(mode)


@pytest.fixture
def chooser():
    """A chooser that waits for a file."""
    chooser = PictureChooser()
    chooser.kind.value = "my own"
    return chooser


@pytest.fixture
def seen(chooser):
    """The values that the chooser takes."""
    values = []
    chooser.observe(lambda change: values.append(change.new), names="value")
    return values


def test_a_chooser_says_which_picture_is_chosen_and_shows_the_controls_that_apply():
    chooser = PictureChooser()
    assert chooser.value == ("digit", 0)
    assert list(chooser.kind.options) == ["digit", *data.PHOTOS, "my own"]
    assert (chooser.number.min, chooser.number.max) == (0, 99)
    for value, shown in ((("digit", 7), {"number"}), (("cat",), set()), (("digit", 9), {"number"})):
        choose(chooser, value)
        parts = {"number": chooser.number, "own": chooser.own}
        assert {name for name, part in parts.items() if part.layout.display != "none"} == shown
    chooser.kind.value = "my own"
    assert (chooser.number.layout.display, chooser.own.layout.display) == ("none", "")
    assert chooser.value == ("digit", 9)  # until a file has come
    assert chooser.file.layout.display == "none"


def test_a_file_that_comes_is_chosen_and_its_text_is_taken_away(chooser, seen):
    content, other = file_of(photo_of()), file_of(photo_of(seed=1))
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


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "PNG"), ("LA", "PNG"), ("1", "PNG"), ("P", "GIF"), ("RGBA", "PNG"), ("I;16", "PNG"), ("CMYK", "JPEG"),
     ("RGB", "WEBP"), ("RGB", "TIFF")],
)  # fmt: skip
def test_whatever_load_image_reads_can_come(chooser, mode, kind):
    content = file_of(photo_of(mode), kind)
    chooser.file.value = address(content, f"image/{kind.lower()}")
    image, label, mask = picture(chooser.value)
    assert label is mask is None
    assert image.std() > 0.1
    torch.testing.assert_close(image[0], data.load_image(content, 48), rtol=0, atol=0)
    chooser.dark_on_light.value = True
    torch.testing.assert_close(picture(chooser.value)[0], 1 - image)


def test_what_is_transparent_lies_on_white(chooser):
    chooser.file.value = address(file_of(Image.new("RGBA", (48, 48), (0, 0, 0, 0))))
    torch.testing.assert_close(picture(chooser.value)[0], torch.ones(1, 3, 48, 48))


def test_a_file_of_the_largest_size_is_read_and_no_message_of_one_is_cut_off(chooser):
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    content = file_of(Image.fromarray(noise), "BMP")
    assert 0.9 * MAX_UPLOAD < len(content) < MAX_UPLOAD
    chooser.file.value = address(content, "image/bmp")
    assert chooser.value == ("own", content, False)
    largest = len("data:image/svg+xml;base64,") + 4 * ceil(MAX_UPLOAD / 3)
    assert largest + 500_000 <= 10 * 1024 * 1024  # around the text there is the message, and names may be long


def test_a_digit_and_a_photo_are_what_data_gives():
    image, label, mask = picture(("digit", 7))
    expected, known, square = data.ClutteredDigits("test").sample(1, draw=7)
    assert label == known.item()
    torch.testing.assert_close(image, expected, rtol=0, atol=0)
    torch.testing.assert_close(mask, square)
    for name in data.PHOTOS:
        torch.testing.assert_close(picture((name,))[0][0], data.photo(name, 48), rtol=0, atol=0)


def declared(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, of which none follows."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BROKEN = {
    "no base64": ("data:image/png;base64,this is none!", "whole"),
    "base64 that is cut off": ("data:image/png;base64,iVBORw0KGgo", "whole"),
    "signs beyond ASCII": ("data:image/png;base64,ä", "ASCII"),
    "nothing in it": ("data:image/png;base64,", "Pillow"),
    "no image": (address(b"%PDF-1.7 and more", "application/pdf"), "Pillow"),
    "900 million pixels": (address(declared(30_000, 30_000)), "80,000,000"),
    "none of its pixels": (address(declared(40, 40)), "decoded"),
    "one pixel": (address(file_of(Image.new("RGB", (1, 1)))), "1 x 1"),
    "too long": (address(file_of(Image.new("RGB", (4000, 2)))), "4000"),
}


@pytest.mark.parametrize("before", ["nothing", "a file"])
@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_picture_is_told_and_raised_and_changes_nothing(chooser, seen, kind, before):
    text, words = BROKEN[kind]
    if before == "a file":
        chooser.file.value = address(file_of(photo_of()))
    told, value = [], chooser.value
    seen.clear()
    chooser.problem.observe(lambda change: told.append(change.new), names="value")
    for _ in range(2):  # the same broken file again: the page has taken the words away, so they are sent again
        with pytest.raises((ValueError, TypeError), match=words) as error:
            chooser.file.value = text
        page = Page(chooser.problem.value)
        assert (page.tags, page.attributes["p"]["role"], page.words) == (["p"], "alert", str(error.value))
        assert chooser.file.value == ""
    assert told == [told[0], "", told[0]]
    assert (chooser.value, seen) == (value, [])
    content = file_of(photo_of(seed=2))
    chooser.file.value = address(content)
    assert (chooser.problem.value, seen) == ("", [("own", content, False)])


def test_the_words_about_a_file_go_when_another_kind_is_chosen(chooser):
    with pytest.raises(ValueError, match="Pillow"):
        chooser.file.value = address(b"no picture")
    chooser.dark_on_light.value = True
    assert "Pillow" in chooser.problem.value
    chooser.kind.value = "digit"
    assert chooser.problem.value == ""


def test_a_broken_file_leaves_the_panel_as_it_was(chooser):
    panel = Panel(lambda chosen: (plot_matrix([1.0]), str(chosen[0])), chosen=chooser)
    draws, before = count_draws(panel), panel.picture.value
    with pytest.raises(ValueError, match="Pillow"):
        chooser.file.value = address(b"no picture")
    assert (draws, panel.picture.value, panel.message.value) == ([], before, "")
    chooser.file.value = address(file_of(Image.new("RGB", (4, 4))))
    assert [values["chosen"][0] for values in draws] == ["own"]


def test_the_page_has_a_file_input_with_a_name_whose_script_finds_what_is_there(chooser):
    page, script = Page(chooser.page.value), Path(pictures.__file__).with_name("source.js").read_text(encoding="utf-8")
    assert page.tags == ["div", "input", "span"]
    box, field, alert = (page.attributes[tag] for tag in page.tags)
    assert (box["class"], box["data-limit"], alert["role"]) == ("vit-own", str(MAX_UPLOAD), "alert")
    assert box["onkeydown"] == "event.stopPropagation()"
    assert (field["type"], field["aria-label"]) == ("file", "picture file")
    assert (field["onchange"], field["onclick"]) == (f"({script})(this)", "this.value = null")
    assert "dataset.limit" in script
    for css in (".vit-own", ".vit-panel", ".vit-source", ".vit-file textarea"):
        assert f'("{css}")' in script
    assert "vit-source" in chooser.own._dom_classes
    assert "vit-file" in chooser.file._dom_classes
    assert isinstance(chooser.file, ipywidgets.Textarea)
