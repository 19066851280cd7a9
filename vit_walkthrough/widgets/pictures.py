"""Which picture to look at: a digit, a photograph, or a file of the reader's own."""

import base64
import binascii
from functools import cache, lru_cache, partial
from html import escape
from pathlib import Path

import ipywidgets
import traitlets
from torch import Tensor
from torch.nn.functional import interpolate

from vit_walkthrough import data
from vit_walkthrough.widgets.panel import alert, number

MAX_UPLOAD = 7_000_000  # bytes of a file: a Jupyter server silently cuts a connection that brings 10 MiB in one message
TINY_SIZE = 48  # pixels from side to side of what the tiny ViTs read

photo = cache(data.photo)
unseen_digits = cache(partial(data.ClutteredDigits, "test"))  # no model was trained on them
_decoded = lru_cache(maxsize=4)(data.load_image)  # a large photograph takes a second, so it is read once


@lru_cache(maxsize=128)
def digit(place: int) -> tuple[Tensor, int, Tensor]:
    """One test image (1 3 48 48), its label and its mask (1 48 48); the first is the one that the notebooks follow."""
    images, labels, masks = unseen_digits().sample(8, draw=place // 8)
    this = slice(place % 8, place % 8 + 1)
    return images[this], int(labels[this]), masks[this]


def picture(chosen: tuple, size: tuple[int, int] = (TINY_SIZE,) * 2) -> tuple[Tensor, int | None, Tensor | None]:
    """What a PictureChooser's value means: an image (1 3 height width), and for a digit its label and its mask, which
    has the size that the tiny ViTs read (1 48 48)."""
    kind, *rest = chosen
    if kind == "digit":
        image, label, mask = digit(*rest)
        return interpolate(image, size, mode="bicubic", antialias=True).clamp(0, 1), label, mask
    if kind == "own":
        content, dark_on_light = rest
        image = _decoded(content, size)
        return (1 - image if dark_on_light else image)[None], None, None
    return photo(kind, size)[None], None, None


class PictureChooser(ipywidgets.HBox):
    """A control whose value says which picture: ("digit", its number), (a photo's name,), or ("own", the bytes of a
    file that load_image can read, whether dark and light are exchanged).

    A script in the page (source.js beside this file) sends a file as text: ipywidgets' own FileUpload has another value
    in version 7 than in 8, and on a file above 10 MB it hangs without a word.
    """

    value = traitlets.Tuple(("digit", 0))

    def __init__(self):
        script = escape(Path(__file__).with_name("source.js").read_text(encoding="utf-8"))
        self.kind = ipywidgets.Dropdown(options=["digit", *data.PHOTOS, "my own"], description="picture")
        self.number = number("digit no.", 0, 0, 99)
        self.dark_on_light = ipywidgets.Checkbox(description="dark on light", indent=False, layout={"width": "auto"})
        self.page = ipywidgets.HTML(
            # The notebook would take the Enter key for itself.
            f'<div class="vit-own" data-limit="{MAX_UPLOAD}" onkeydown="event.stopPropagation()">'
            f'<input type="file" accept="image/*" aria-label="picture file" onclick="this.value = null" '
            f'onchange="({script})(this)"> <span class="vit-alert" role="alert"></span></div>'
        )
        self.file = ipywidgets.Textarea(continuous_update=False, layout={"display": "none"})
        self.file.add_class("vit-file")
        self.problem = ipywidgets.HTML()
        self.content = b""
        self.own = ipywidgets.VBox([self.page, self.dark_on_light, self.problem, self.file])
        self.own.add_class("vit-source")
        super().__init__([self.kind, self.number, self.own], layout={"flex_flow": "row wrap"})
        self.file.observe(self._receive, names="value")
        for control in (self.kind, self.number, self.dark_on_light):
            control.observe(self._choose, names="value")
        self._choose()

    def _choose(self, change=None) -> None:
        kind = self.kind.value
        if change and change["owner"] is self.kind:
            self.problem.value = ""
        self.number.layout.display = "" if kind == "digit" else "none"
        self.own.layout.display = "" if kind == "my own" else "none"
        if kind == "digit":
            self.value = ("digit", self.number.value)
        elif kind != "my own":
            self.value = (kind,)
        elif self.content:  # until a file has come, the picture stays
            self.value = ("own", self.content, self.dark_on_light.value)

    def _receive(self, change) -> None:
        """Take the text that the page has sent: "data:image/png;base64,..."."""
        if not change["new"]:
            return
        self.file.value = ""  # so that the same file can come again, and no notebook keeps it
        self.problem.value = ""  # so that the same words can come again: the page has taken them away
        try:
            try:
                content = base64.b64decode(change["new"].partition(",")[2], validate=True)
            except binascii.Error:
                raise ValueError("the file did not arrive whole; choose it again") from None
            _decoded(content, (TINY_SIZE,) * 2)
        except Exception as error:
            self.problem.value = alert(error)
            raise
        self.content = content
        self._choose()
