"""What the tests of panels share: how to turn their controls, and what their HTML consists of."""

import base64
import io
import re
from contextlib import contextmanager
from html.parser import HTMLParser

import ipywidgets
from matplotlib.figure import Figure
from PIL import Image

from vit_walkthrough.widgets.panel import Panel
from vit_walkthrough.widgets.pictures import PictureChooser

BLANK = Figure(figsize=(0.2, 0.2))


class Page(HTMLParser):
    """What a piece of HTML consists of: its tags in their order, the attributes of the last of each, its words."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.attributes, self.words = [], {}, ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes[tag] = dict(attrs)

    def handle_data(self, data):
        self.words += data

    @property
    def png(self) -> bytes:
        start, code = self.attributes["img"]["src"].split(",")
        assert start == "data:image/png;base64"
        return base64.b64decode(code, validate=True)


def numbers(text: str, pattern: str) -> list[float]:
    """The numbers that stand where the pattern has its groups."""
    found = re.search(pattern, text)
    assert found, f"no {pattern!r} in {text!r}"
    return [float(number.replace(",", "")) for number in found.groups()]


def leaves(controls: dict) -> dict:
    """The controls by name, a PictureChooser as those that it consists of."""
    found = {}
    for name, control in controls.items():
        if isinstance(control, PictureChooser):
            # Before the last two are turned the picture is a digit, and then one's own.
            found |= {f"{name}.{part}": getattr(control, part) for part in ("dark_on_light", "kind", "number")}
        else:
            found[name] = control
    return found


def values_of(controls: dict) -> dict:
    return {name: control.value for name, control in leaves(controls).items()}


def ends(control) -> list:
    """Both ends of a slider; every option of what has options, of a mode the one that is chosen last."""
    if hasattr(control, "options"):
        options = [option[1] if isinstance(option, tuple) else option for option in control.options]
        mode = isinstance(control, ipywidgets.ToggleButtons)
        return [*(option for option in options if option != control.value), control.value] if mode else options
    if isinstance(control.value, bool):
        return [not control.value, control.value]
    if isinstance(control, ipywidgets.FloatLogSlider):
        return [control.base**control.min, control.base**control.max]
    return [control.min, control.max]


def turned(controls: dict):
    """Turn each control that can be turned to every place of `ends`, yielding after each turn that changed a value."""
    for name, control in reversed(leaves(controls).items()):  # the last first: they are the cheaper ones
        for value in ends(control):
            if control.value != value and not control.disabled:
                control.value = value
                yield name, value


def choose(chooser: PictureChooser, value: tuple) -> None:
    """Turn a chooser's own controls until it has this value; one's own picture must have come before."""
    kind, *rest = value
    chooser.kind.value = "my own" if kind == "own" else kind
    if kind == "digit":
        (chooser.number.value,) = rest
    if kind == "own":
        chooser.dark_on_light.value = rest[1]
    assert chooser.value == value


@contextmanager
def drawn_once(panel: Panel):
    """Whatever is turned inside of the block, at its end it is drawn once."""
    draw, panel.draw = panel.draw, lambda **values: (BLANK, "")
    yield
    panel.draw = draw
    panel.update()


def turn_together(panel: Panel, **values) -> None:
    """Turn several controls, and draw once."""
    with drawn_once(panel):
        for name, value in values.items():
            control = panel.controls[name]
            if isinstance(control, PictureChooser):
                choose(control, value)
            else:
                control.value = value


def count_draws(panel: Panel) -> list:
    calls, real = [], panel.draw
    panel.draw = lambda **values: (calls.append(values), real(**values))[1]
    return calls


def file_of(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def address(content: bytes, kind: str = "image/png") -> str:
    """A file as the page sends it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
