"""How the tests turn the controls of a panel, and what its HTML consists of."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import ipywidgets
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from vit_walkthrough import widgets
from vit_walkthrough.widgets.panel import Panel
from vit_walkthrough.widgets.pictures import PictureChooser

# Every panel by name: a function that opens it.
PANELS = {name: panel for name, panel in vars(widgets).items() if name.startswith(("explore_", "train_"))}


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
        return base64.b64decode(self.attributes["img"]["src"].removeprefix("data:image/png;base64,"), validate=True)


def unpacked(value):
    """An array as it was before it was packed for a page; anything else as it is."""
    if not isinstance(value, dict) or "data" not in value:
        return value
    return np.frombuffer(base64.b64decode(value["data"].split(",")[1]), value["type"]).reshape(value["shape"])


def carried(living) -> dict:
    """What a picture of attention carries: its arrays decoded; `weights` is (blocks heads queries keys)."""
    data = {name: unpacked(value) for name, value in json.loads(living.payload).items()}
    own = data["toClass"][..., None] if data["first"] else np.zeros((*data["peaks"].shape[:-1], 0))
    data["weights"] = np.concatenate([own, data["shades"] / 255 * data["peaks"]], axis=-1)
    data["image"] = data["image"].transpose(1, 2, 0)
    return data


def numbers(text: str, pattern: str) -> list[float]:
    found = re.search(pattern, text)
    assert found, f"no {pattern!r} in {text!r}"
    return [float(number.replace(",", "")) for number in found.groups()]


def leaves(panel: Panel) -> dict:
    """The controls by name, a PictureChooser as those that it consists of."""
    found = dict(panel.controls)
    if chooser := found.pop("chosen", None):  # before the last two are turned the picture is a digit, then one's own
        found |= {part: getattr(chooser, part) for part in ("dark_on_light", "kind", "number")}
    return found


def ends(control) -> list:
    """Both ends of a slider (of one over chosen values also its middle), or every option, a pressed button last."""
    if isinstance(control, ipywidgets.SelectionSlider):
        return [control.options[place] for place in (0, len(control.options) // 2, -1)]
    if hasattr(control, "options"):
        last = control.value if isinstance(control, ipywidgets.ToggleButtons) else None
        return sorted(control.options, key=lambda option: option == last)
    if isinstance(control.value, bool):
        return [not control.value, control.value]
    if isinstance(control, ipywidgets.FloatLogSlider):
        return [control.base**control.min, control.base**control.max]
    return [control.min, control.max]


def turn(panel: Panel, **values) -> None:
    draw, panel.draw = panel.draw, lambda **_: (Figure(figsize=(0.2, 0.2)), "")
    for name, value in values.items():
        if isinstance(chooser := panel.controls[name], PictureChooser):
            choose(chooser, value)
        else:
            panel.controls[name].value = value
    panel.draw = draw
    panel.update()


def choose(chooser: PictureChooser, value: tuple) -> None:
    """Turn a chooser's own controls until it has this value; one's own picture must have come before."""
    kind, *rest = value
    chooser.kind.value = "my own" if kind == "own" else kind
    if rest:
        control = chooser.number if kind == "digit" else chooser.dark_on_light
        control.value = rest[-1]
    assert chooser.value == value


def count_draws(panel: Panel) -> list:
    calls, real = [], panel.draw
    panel.draw = lambda **values: (calls.append(values), real(**values))[1]
    return calls


def file_of(picture: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def noise(seed: int = 0) -> bytes:
    return file_of(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)))


def address(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
