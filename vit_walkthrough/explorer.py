"""The hover view: point at a patch and see where it looks, in every head of any layer.

One piece of HTML that carries its data and its script (explorer.js, explorer.css beside this file): it needs no kernel,
no network and no library, so it also lives in an exported page. Where scripts are stripped, a still picture stands.
"""

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vit_walkthrough.plots import plot_heads, render
from vit_walkthrough.trace import Trace

LIMIT = 2_000_000  # bytes of one view: a notebook is to stay under 1 MB on GitHub, and several views do not


class Explorer:
    """What `explore` returns: shown as HTML, with a PNG of its first state beside it for pages that show no HTML."""

    def __init__(self, html: str, png: bytes, text: str):
        self.html, self.png, self.text = html, png, text

    def _repr_mimebundle_(self, include=None, exclude=None):
        bundle = {
            "text/html": self.html,
            "image/png": base64.b64encode(self.png).decode(),
            "text/plain": self.text,
        }
        return bundle, {"image/png": {"alt": self.text}}


def explore(
    trace: Trace,
    image: Float[Tensor, "channels height width"] | None = None,
    *,
    index: int = 0,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Explorer:
    """A picture with its patches; point at one (mouse, finger or arrow keys), or at the class token, and beside it
    appear the maps of all heads, their mean, and the strongest keys in numbers. A click pins a query beside the next.

    trace: of a recorded forward pass, with its attention. image: which it was; by default the recorded input.
    index: which image of the batch. layers, heads: only these, counted from 0; all by default.

    Raises: KeyError for a trace without attention; ValueError for one without image, an image that its patches do not
    tile, an index, layers or heads that are not there, and a view larger than LIMIT, with what to choose instead.
    """
    attention = trace.attention
    total, batch, count, tokens, _ = attention.shape
    if not 0 <= index < batch:
        raise ValueError(f"index {index} is not one of the batch's {batch} images")
    if image is None:
        if "input" not in trace:
            raise ValueError("the trace holds no input; record it too, or say image=")
        image = trace["input"][index]
    image = image.detach().float().cpu()
    layers = _chosen("layers", layers, total)
    heads = _chosen("heads", heads, count)
    height, width = image.shape[-2:]
    side = max(1, round((height * width / max(1, tokens - 1)) ** 0.5))
    if height % side or width % side or (height // side) * (width // side) != tokens - 1:
        raise ValueError(f"{tokens - 1} patches do not tile an image of {height} x {width} pixels with squares")

    room = LIMIT * 3 // 4 // tokens**2  # so many heads of all layers together: base64 makes 4 bytes of 3
    if len(layers) * len(heads) > room:
        if not room:
            advice = f"{tokens} tokens are too many for a single head; choose larger patches"
        elif len(heads) > room:
            advice = f"choose layers=[{layers[-1]}] and heads={heads[:room]}"
        elif len(heads) * 2 > room:
            advice = f"choose layers=[{layers[-1]}]"
        else:
            advice = f"choose at most {room // len(heads)} layers"
        size = len(layers) * len(heads) * tokens**2 * 4 / 3 / 1e6
        raise ValueError(f"{size:.1f} MB for {len(layers)} layers and {len(heads)} heads; {advice}")

    weights = attention[layers][:, index][:, heads].detach().float().cpu().numpy()  # layers heads queries keys
    first = weights[-1, :, 0, 1:].reshape(len(heads), height // side, width // side)
    ax = plot_heads(image, first, titles=[f"head {head}" for head in heads], cols=min(6, len(heads)))
    # The class token's column goes beside, exact: often the largest by far, it would leave the rest few of 255 steps.
    peaks = weights[..., 1:].max(axis=-1, keepdims=True)
    shades = np.round(255 * weights[..., 1:] / np.where(peaks > 0, peaks, 1)).astype(np.uint8)
    pixels = image.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()
    data = {
        "side": side,
        "rows": height // side,
        "cols": width // side,
        "layers": layers,
        "heads": heads,
        "attention": _address(shades.tobytes()),
        "peaks": _address(peaks.astype("<f4").tobytes()),
        "class": _address(weights[..., 0].astype("<f4").tobytes()),
        "colours": _address(
            np.round(255 * matplotlib.colormaps["inferno"](range(256))[:, :3]).astype(np.uint8).tobytes()
        ),
        "image": _address(_png(pixels), "image/png"),
    }
    strongest = 1 + int(weights[-1, :, 0, 1:].mean(axis=0).argmax())
    row, col = divmod(strongest - 1, width // side)
    text = (
        f"Where the class token looks in block {layers[-1] + 1}, head by head: an image of {height} x {width} pixels "
        f"in {height // side} x {width // side} patches. On the mean of the heads the strongest patch, in row {row}, "
        f"column {col}, gets {weights[-1, :, 0, strongest].mean():.2f}. Where scripts run: point at any patch."
    )
    still = render(ax, colours=256)
    folder = Path(__file__).parent
    script = (folder / "explorer.js").read_text(encoding="utf-8")
    style = (folder / "explorer.css").read_text(encoding="utf-8")
    payload = json.dumps(data, separators=(",", ":"))
    name = "vit-" + hashlib.sha256((payload + script).encode()).hexdigest()[:12]  # a random one would change every run
    html = (
        f'<div id="{name}" class="vit-explorer"><style>{style}</style>'
        f'<img class="vit-still" alt="{escape(text)}" src="{_address(still, "image/png")}">'
        f'<script type="application/json">{payload}</script>'
        f'<script>document.querySelectorAll("#{name}").forEach({script});</script></div>'  # a page may hold it twice
    )
    return Explorer(html, still, text)


def _chosen(what: str, chosen: Sequence[int] | None, count: int) -> list[int]:
    chosen = list(range(count)) if chosen is None else list(chosen)
    if not chosen or any(not 0 <= one < count for one in chosen):
        raise ValueError(f"{what} {chosen} are not among 0 to {count - 1}")
    return chosen


def _address(content: bytes, kind: str = "application/octet-stream") -> str:
    """Bytes as a data address, which says what they are."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.round(255 * pixels).astype(np.uint8)).save(buffer, format="png", optimize=True)
    return buffer.getvalue()
