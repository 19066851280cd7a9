"""The hover view: point at a patch and see where it looks, in every head of any block.

One piece of HTML that carries its data and its script (explore.js, explore.css beside this file): it needs no kernel,
no network and no library, so it also lives in an exported page. Where scripts are stripped, a still picture stands.
"""

import base64
import hashlib
import json
import operator
from collections.abc import Sequence
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vit_walkthrough.draw import plot_heads, render
from vit_walkthrough.draw.theme import as_png
from vit_walkthrough.look.trace import Trace

MAX_BYTES = 2_000_000  # bytes of one view: a notebook is to stay under 1 MB on GitHub, and several views do not


class Explorer:
    """What `explore` returns: shown as HTML, and as a PNG of its first state on pages that show no HTML."""

    def __init__(self, html: str, png: bytes, text: str):
        self.html, self.png, self.text = html, png, text

    def _repr_mimebundle_(self, include=None, exclude=None):
        bundle = {"text/html": self.html, "image/png": base64.b64encode(self.png).decode(), "text/plain": self.text}
        return bundle, {"image/png": {"alt": self.text}}


def explore(
    trace: Trace | Float[Tensor | np.ndarray, "... queries keys"],
    image: Float[Tensor | np.ndarray, "channels height width"] | None = None,
    *,
    blocks: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Explorer:
    """A picture with its patches. Point at one (mouse, finger or arrow keys), or at the class token: the maps of all
    heads, their mean, and the strongest keys in numbers appear beside it. A click pins a query beside the next.

    trace: a recorded forward pass with its attention; or the attention weights themselves, torch's or NumPy's, (blocks
    batch heads queries keys) or fewer axes, of the patches with or without a class token before them. Of a batch the
    first image is shown.
    image: the picture in [0, 1]; by default the recorded input, stretched to that range if it was normalised.
    blocks, heads: only these, counted from 0; all by default.

    Raises: KeyError for a trace without attention; ValueError for negative weights, a trace without image, an image
    that its patches do not tile, blocks or heads that are not there, and a view larger than MAX_BYTES.
    """
    attention = trace.attention if isinstance(trace, Trace) else torch.as_tensor(trace)
    if not 2 <= attention.ndim <= 5:
        given = tuple(attention.shape)
        raise ValueError(f"attention of shape {given}; it is (blocks batch heads queries keys) or less")
    attention = attention[(None,) * (5 - attention.ndim)]
    total, _, count, tokens, keys = attention.shape
    if keys != tokens:
        raise ValueError(f"attention of {tokens} queries to {keys} keys; a picture's patches look at each other")
    image = torch.as_tensor(_recorded(trace) if image is None else image).detach().float().cpu()
    blocks, heads = _chosen("blocks", blocks, total), _chosen("heads", heads, count)
    height, width = image.shape[-2:]
    side, first = _grid(tokens, height, width)
    rows, cols = height // side, width // side

    weights = attention[blocks][:, 0][:, heads].detach().float().cpu().numpy()  # blocks heads queries keys
    if not (weights >= 0).all():  # which NaN is not either
        raise ValueError("weights below 0, or NaN, are no attention: are these the scores before the softmax?")
    query = 0 if first else (rows // 2) * cols + cols // 2
    maps = weights[-1, :, query, first:]
    who = "the class token" if first else f"the patch in row {query // cols}, column {query % cols}"

    mean = maps.mean(axis=0)
    row, col = divmod(int(mean.argmax()), cols)
    block = f" in block {blocks[-1] + 1}" if total > 1 else ""
    each, mean_of = (", head by head", "On the mean of the heads t") if len(heads) > 1 else ("", "T")
    text = (
        f"Where {who} looks{block}{each}: an image of {height} x {width} pixels in {rows} x {cols} patches. "
        f"{mean_of}he strongest patch, in row {row}, column {col}, gets {mean.max():.2f}. Where scripts run: point "
        "at any patch."
    )
    tiles, titles = maps.reshape(-1, rows, cols), [f"head {head}" for head in heads]
    ax = plot_heads(image, tiles, titles=titles, cols=min(6, len(heads)), query=None if first else query)
    png = render(ax, caption=text, colours=256)
    script, style = ((Path(__file__).parent / f"explore.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))

    # The class token's column goes beside, exact: often the largest by far, it would leave the rest few of 255 steps.
    peaks = weights[..., first:].max(axis=-1, keepdims=True)
    shades = np.round(255 * weights[..., first:] / np.where(peaks > 0, peaks, 1)).astype(np.uint8)
    inferno = np.round(255 * matplotlib.colormaps["inferno"](range(256))[:, :3]).astype(np.uint8)
    data = {"side": side, "rows": rows, "cols": cols, "first": first, "blocks": blocks, "of": total, "heads": heads}
    pixels = np.round(255 * image.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()).astype(np.uint8)
    data |= {
        "colours": _address(inferno.tobytes()),
        "image": _address(as_png(Image.fromarray(pixels)), "image/png"),
        "attention": _address(shades.tobytes()),
        "peaks": _address(peaks.astype("<f4").tobytes()),
        "class": _address(weights[..., :first].astype("<f4").tobytes()),
    }
    payload = json.dumps(data, separators=(",", ":"))
    name = "vit-" + hashlib.sha256((payload + script).encode()).hexdigest()[:12]  # a random one would change every run
    html = (
        f'<div id="{name}" class="vit-explorer"><style>{style}</style>'
        f'<img class="vit-still" alt="{escape(text)}" src="{_address(png, "image/png")}">'
        f'<script type="application/json">{payload}</script>'
        f'<script>document.querySelectorAll("#{name}").forEach({script});</script></div>'  # a page may hold it twice
    )
    if len(html) > MAX_BYTES:
        size = f"{len(html) / 1e6:.1f} MB for {len(blocks)} blocks and {len(heads)} heads of {tokens} tokens"
        size += f" on {height} x {width} pixels, above {MAX_BYTES / 1e6:g} MB"
        raise ValueError(f"a view of {size}; choose fewer with blocks= and heads=, a smaller image or larger patches")
    return Explorer(html, png, text)


def _recorded(trace) -> Tensor:
    """The recorded input, stretched to [0, 1] if it was normalised, as models want it."""
    if not isinstance(trace, Trace) or "input" not in trace or trace["input"].ndim != 4:
        raise ValueError("no picture was recorded; record the whole model, with its input, or pass image=")
    image = trace["input"][0].float()
    low, high = image.aminmax()
    if low < 0 or high > 1:
        image = (image - low) / ((high - low) or 1)  # a picture of one colour has no range
    return image


def _grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """The side of the square patches, and the place of the first of them: 1 behind a class token, else 0."""
    for first in (1, 0) if tokens > 1 else ():
        patches = tokens - first
        side = max(1, round((height * width / patches) ** 0.5))
        if height % side == width % side == 0 and (height // side) * (width // side) == patches:
            return side, first
    patches = f"{tokens - 1} patches (or {tokens}, without a class token)"
    raise ValueError(f"{patches} do not tile an image of {height} x {width} pixels with squares")


def _chosen(what: str, chosen: Sequence[int] | None, count: int) -> list[int]:
    try:
        chosen = list(range(count)) if chosen is None else [operator.index(one) for one in chosen]
    except TypeError:
        raise ValueError(f"{what} must be whole numbers in a list, as [0, 3], not {chosen!r}") from None
    if not chosen or any(not 0 <= one < count for one in chosen):
        raise ValueError(f"{what} {chosen} are not among 0 to {count - 1}")
    return chosen


def _address(content: bytes, kind: str = "application/octet-stream") -> str:
    """Bytes as a data address, which says what they are."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
