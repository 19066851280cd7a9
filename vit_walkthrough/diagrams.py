"""Schematics with their shapes: a config in, a drawing out, right for whatever sizes were chosen.

`python -m vit_walkthrough.diagrams` writes those that the README shows into images/.
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from vit_walkthrough.config import ViTConfig
from vit_walkthrough.plots import ROLES, render, style

ARROW = dict(arrowstyle="-|>,head_width=0.25,head_length=0.5", color=ROLES["neutral"], lw=1.6, shrinkA=0, shrinkB=0)


def _canvas(width: float, height: float) -> Axes:
    ax = Figure(figsize=(width, height)).subplots()
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.set_axis_off()
    ax.figure.subplots_adjust(0, 0, 1, 1)
    return ax


def _box(
    ax: Axes, x: float, y: float, text: str, role: str = "neutral", width: float = 1.7, height: float = 0.5
) -> None:
    """A rounded box around (x, y), filled in a pale shade of its role's colour."""
    shape = FancyBboxPatch(
        (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.1",
        fc=ROLES[role] + "22", ec=ROLES[role], lw=1.6,
    )  # fmt: skip
    ax.add_patch(shape)
    ax.text(x, y, text, ha="center", va="center", size=10.5, color="black")


def _arrow(ax: Axes, start: tuple, end: tuple, shape: str = "", side: float = 0.12) -> None:
    ax.annotate("", end, start, arrowprops=ARROW)
    if shape:
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        ax.text(x + side, y, shape, ha="left" if side > 0 else "right", va="center", size=9.5)


def _shape(*sides: int) -> str:
    return " x ".join(f"{side:,}" for side in sides)


def draw_block(config: ViTConfig) -> Axes:
    """One encoder block from bottom to top: the residual stream straight up, attention and MLP beside it."""
    with style():
        ax = _canvas(6.6, 5.6)
        stream, beside = 1.6, 4.1
        tokens = _shape(config.tokens, config.dim)
        _arrow(ax, (stream, 0.15), (stream, 5.45))
        for bottom, norm, step, inside, role in (
            (0.55, "LayerNorm", "attention", f"{config.heads} maps of {_shape(config.tokens, config.tokens)}", "query"),
            (3.0, "LayerNorm", "MLP", f"through {_shape(config.tokens, config.hidden)}", "value"),
        ):
            ax.plot([stream, beside], [bottom, bottom], color=ROLES["neutral"], lw=1.6)
            _arrow(ax, (beside, bottom), (beside, bottom + 0.3))
            _box(ax, beside, bottom + 0.55, norm)
            _arrow(ax, (beside, bottom + 0.8), (beside, bottom + 1.15))
            _box(ax, beside, bottom + 1.4, step, role)
            ax.text(beside + 0.95, bottom + 1.4, inside, va="center", size=9.5)
            ax.plot([beside, beside], [bottom + 1.65, bottom + 1.95], color=ROLES["neutral"], lw=1.6)
            _arrow(ax, (beside, bottom + 1.95), (stream + 0.2, bottom + 1.95))
            ax.text((beside + stream) / 2, bottom + 2.02, f"+ {tokens}", ha="center", va="bottom", size=9.5)
            ax.plot(stream, bottom + 1.95, "o", ms=19, mfc="white", mec=ROLES["neutral"], mew=1.6, zorder=5)
            ax.plot(stream, bottom + 1.95, "+", ms=11, mec=ROLES["neutral"], mew=1.8, zorder=6)
        for y in (0.3, 2.75, 5.2):
            ax.text(stream - 0.15, y, tokens, ha="right", va="center", size=9.5)
        ax.text(stream - 0.42, 1.55, "the stream", ha="center", va="center", size=10.5, rotation=90)
        return ax


def draw_vit(config: ViTConfig, image) -> Axes:
    """The whole model from left to right, with real patches of a real image (channels, height, width) in [0, 1].

    Raises: ValueError for an image of another size than the config's.
    """
    picture = np.asarray(image).transpose(1, 2, 0)
    if picture.shape != (config.height, config.width, config.channels):
        raise ValueError(f"an image of {picture.shape[:2]} pixels for a config of {(config.height, config.width)}")
    side = config.patch_size
    with style():
        ax = _canvas(10.0, 4.7)
        longest = max(config.height, config.width) / 1.9
        left, width = 1.1 - config.width / longest / 2, config.width / longest
        bottom, height = 2.35 - config.height / longest / 2, config.height / longest
        extent = (left, left + width, bottom, bottom + height)
        ax.imshow(picture, extent=extent, interpolation="nearest", aspect="auto")
        for line in range(1, config.rows):
            ax.plot([left, left + width], [bottom + height * line / config.rows] * 2, color="white", lw=0.8)
        for line in range(1, config.cols):
            ax.plot([left + width * line / config.cols] * 2, [bottom, bottom + height], color="white", lw=0.8)
        size = _shape(config.channels, config.height, config.width)
        ax.text(1.1, bottom - 0.15, size, ha="center", va="top", size=9.5)

        shown = [0, 1, 2, config.patches - 1] if config.patches > 4 else list(range(config.patches))
        heights = [3.35, 2.75, 2.15, 0.95][: len(shown)]
        for patch, y in zip(shown, heights, strict=True):
            row, col = divmod(patch, config.cols)
            tile = picture[row * side : (row + 1) * side, col * side : (col + 1) * side]
            ax.imshow(tile, extent=(2.85, 3.3, y - 0.225, y + 0.225), interpolation="nearest", aspect="auto")
            ax.text(2.78, y, str(patch), ha="right", va="center", size=9)
            _arrow(ax, (3.35, y), (3.85, y))
            _token(ax, 4.2, y, "patch")
        for x in (3.075, 4.2) if config.patches > 4 else ():
            ax.text(x, 1.55, "⋮", ha="center", va="center", size=15)
        _arrow(ax, (2.1, 2.35), (2.55, 2.35))
        _token(ax, 4.2, 3.95, "class")
        ax.text(3.78, 3.95, "class token", ha="right", va="center", size=9.5, color=ROLES["class"])
        ax.text(
            3.075, 0.55, f"{config.patches:,} patches\nof {config.pixels:,} pixels", ha="center", va="top", size=9.5
        )
        ax.text(4.2, 0.55, f"{config.tokens:,} tokens\nof {config.dim:,}", ha="center", va="top", size=9.5)

        positions = config.positions != "none"
        for y in (3.95, *heights) if positions else ():
            ax.text(4.66, y, "+", ha="center", va="center", size=12)
            _token(ax, 5.1, y, "position")
        if positions:
            ax.text(5.1, 0.55, "positions", ha="center", va="top", size=9.5)
        _arrow(ax, (5.55, 2.4), (6.0, 2.4))
        for offset in (0.16, 0.08, 0.0):
            _box(ax, 6.75 + offset, 2.4 + offset, "", "query", width=1.3, height=2.6)
        ax.text(6.75, 2.4, f"{config.depth} blocks\n\nattention,\n{config.heads} heads\n\nMLP,\n{config.hidden:,} wide",
                ha="center", va="center", size=10)  # fmt: skip
        ax.text(6.75, 0.55, _shape(config.tokens, config.dim), ha="center", va="top", size=9.5)
        read = "class" if config.pooling == "class" else "patch"
        _arrow(ax, (7.6, 2.4), (7.98, 2.4))
        _token(ax, 8.3, 2.4, read)
        ax.text(
            8.3,
            2.05,
            f"{'class token' if read == 'class' else 'mean'}\n{config.dim:,}",
            ha="center",
            va="top",
            size=9.5,
        )
        _arrow(ax, (8.6, 2.4), (8.95, 2.4))
        _box(ax, 9.4, 2.4, "head", width=0.8)
        ax.text(9.4, 2.05, f"{config.classes:,}\nlogits", ha="center", va="top", size=9.5)
        return ax


def _token(ax: Axes, x: float, y: float, role: str) -> None:
    """A vector as a strip of cells."""
    _box(ax, x, y, "", role, width=0.55, height=0.3)
    for cell in (-0.11, 0, 0.11):
        ax.plot([x + cell] * 2, [y - 0.15, y + 0.15], color=ROLES[role], lw=1)


def hero() -> bytes:
    """The README's first picture, ViT-B/16 reading the cat, as a PNG."""
    from vit_walkthrough.data import photo

    return render(draw_vit(ViTConfig.named("B/16"), photo("cat")), colours=256)


if __name__ == "__main__":
    (Path(__file__).parents[1] / "images" / "vit.png").write_bytes(hero())
