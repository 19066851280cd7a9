"""One output that lives: HTML with its own data and script, and a still picture where no script runs."""

import base64
import hashlib
import json
import re
from functools import cache, cached_property
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from torch import Tensor

from vit_walkthrough.draw import render
from vit_walkthrough.draw.stills import Still

MAX_BYTES = 2_000_000  # of one picture: several larger ones in a notebook, and GitHub shows it no longer
ROOM = Path(__file__).parent
PALETTES = {  # the colours of maps, 256 of red, green and blue in 8 bits
    name: np.round(255 * matplotlib.colormaps[known](range(256))[:, :3]).astype(np.uint8)
    for name, known in (("inferno", "inferno"), ("viridis", "viridis"), ("signed", "PRGn"))
}


class Living:
    """What `live` returns: shown as HTML, and as a PNG of its first state on pages that show no HTML.

    script: a file of this folder that exports a function of its name. data: what the function draws. Raises: ValueError
    for data that make a page larger than MAX_BYTES.
    """

    def __init__(self, script: str, data: dict, still: Still):
        self.script, self.still, how = script, still.draw, f"Run this cell, or open the site: {still.invitation}."
        self.text = f"{still.text} {how}"
        self.caption = how if still.speaks else self.text
        used = {name: colours for name, colours in PALETTES.items() if f"data.{name}" in source(script)}
        self.payload = json.dumps(data | used, default=packed, separators=(",", ":")).replace("<", "\\u003c")
        if len(self.payload) > MAX_BYTES:
            raise ValueError(f"the picture {script} carries {len(self.payload) / 1e6:.1f} MB; show less in it")

    @cached_property
    def png(self) -> bytes:
        return render(self.still(), caption=self.caption, colours=64, small=0)

    @property
    def html(self) -> str:
        """The picture, with its still for where no script runs."""
        png = base64.b64encode(self.png).decode()
        return self.around(f'<img class="vit-still" alt="{escape(self.text)}" src="data:image/png;base64,{png}">')

    def around(self, still: str) -> str:
        """The picture as HTML, `still` before its script."""
        code, styles = source(self.script), [ROOM / "view.css", ROOM / f"{self.script}.css"]
        style = "".join(file.read_text(encoding="utf-8") for file in styles if file.exists())
        name = "vit-" + hashlib.sha256((self.payload + code).encode()).hexdigest()[:12]  # the same in every run
        return (
            f'<div id="{name}" class="vit-living"><style>{style}</style>{still}'
            f'<script type="application/json">{self.payload}</script>'
            f'<script>(() => {{"use strict";{code}'
            f'document.querySelectorAll("#{name}").forEach((root) => mount(root, {self.script}));}})();</script></div>'
        )

    def _repr_mimebundle_(self, include=None, exclude=None):
        bundle = {"text/html": self.html, "image/png": base64.b64encode(self.png).decode(), "text/plain": self.text}
        return bundle, {"image/png": {"alt": self.text}}


@cache
def source(script: str) -> str:
    """A module of this folder with what it uses of those that it imports, as one script without imports, exports and
    comments."""
    files, pieces, used = [f"{script}.js"], {}, []
    for file in files:  # which grows on the way
        code = (ROOM / file).read_text(encoding="utf-8")
        files += [one for one in re.findall(r'^import .* from "\./(.*)";$', code, re.MULTILINE) if one not in files]
        code = re.sub(r"^(import .*|\s*//.*)\n|^export ", "", code, flags=re.MULTILINE)
        for piece in re.split(r"^(?=async function |function |const )", code, flags=re.MULTILINE)[1:]:
            first = piece.splitlines()[0]
            names = re.findall(r"function (\w+)\(" if "function" in first[:15] else r"(?:^const |, )(\w+) = ", first)
            pieces |= dict.fromkeys(names, piece)
    wanted = [script, "mount"]
    for name in wanted:
        if pieces[name] not in used:
            used.append(pieces[name])
            wanted += [one for one in re.findall(r"\b\w+\b", pieces[name]) if one in pieces and one not in wanted]
    code = re.sub(r"^\s*", "", "".join(used[::-1]), flags=re.MULTILINE)
    return code.encode("ascii", "backslashreplace").decode()  # \u2605 is the same star in a page of any encoding


def packed(value: Tensor | np.ndarray) -> dict:
    """A tensor or array as JSON can hold it: its type, its shape, and its bytes in base64."""
    array = value.numpy(force=True) if isinstance(value, Tensor) else value
    array = array.astype("<f4") if array.dtype.kind == "f" else array
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"type": array.dtype.name, "shape": list(array.shape), "data": f"data:;base64,{data}"}
