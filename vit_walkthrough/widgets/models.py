"""Panels over the bundled tiny ViTs, which were trained on digits: what one knows, says and looks at."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit_walkthrough import draw
from vit_walkthrough.look.trace import record
from vit_walkthrough.model.patches import patchify, unpatchify
from vit_walkthrough.model.vit import VisionTransformer
from vit_walkthrough.train.finetune import adapt
from vit_walkthrough.weights.checkpoint import bundled, load_checkpoint
from vit_walkthrough.widgets.panel import Panel, axes_row, choice, number, toggle
from vit_walkthrough.widgets.pictures import TINY_SIZE, digit, unseen_digits

DIGITS = list("0123456789")


@cache
def tiny(patch_size: int = 8, heads: int = 4) -> tuple[VisionTransformer, dict]:
    """A bundled model and its scores."""
    return load_checkpoint(bundled()[patch_size, heads])


def sizes_of_tiny() -> dict:
    """Controls for the patch size and the heads of the bundled models, which exist in every combination."""
    patch_sizes, heads = (sorted(set(sizes)) for sizes in zip(*bundled(), strict=True))
    return {"patch_size": choice("patch size", patch_sizes, 8), "heads": choice("heads", heads, 4)}


@torch.no_grad()
def answer(model: VisionTransformer, images: Tensor) -> tuple[Tensor, Tensor]:
    """The probabilities (batch classes) and the attention (blocks batch heads queries keys)."""
    with record(model, "*.attention.weights") as trace:
        probabilities = model(images).softmax(-1)
    return probabilities, trace.attention


@torch.no_grad()
def share_right(model: VisionTransformer, count: int, change: Callable[[Tensor], Tensor]) -> float:
    """The share of `count` unseen digits that the model names right once their images are changed."""
    images, labels, _ = unseen_digits().sample(count, draw=0)
    return (model(change(images)).argmax(-1) == labels).float().mean().item()


def said(probabilities: Tensor) -> str:
    """The likeliest class and its probability: 2 (99.9%)."""
    return f"{int(probabilities.argmax())} ({probabilities.max():.1%})"


def a(digit: int) -> str:
    """A digit with its article: a 7, an 8."""
    return f"an {digit}" if digit == 8 else f"a {digit}"


def explore_order() -> Panel:
    """Move the patches of a digit, with positions added to the tokens and without: what does a trained ViT say?"""
    model, _ = tiny()
    blind = deepcopy(model)
    blind.position_embedding = nn.Identity()
    readers, size, patches = {"added": model, "left out": blind}, model.config.patch_size, model.config.patches

    def moved(images: Tensor, count: int) -> Tensor:
        """The images in which `count` patches, the same in each, have changed places in a ring."""
        chosen = torch.randperm(patches, generator=torch.Generator().manual_seed(1))[:count]
        order = torch.arange(patches)
        order[chosen] = chosen.roll(1)
        return unpatchify(patchify(images, size)[:, order], size, TINY_SIZE, TINY_SIZE)

    @cache
    def right(count: int, positions: str) -> float:
        return share_right(readers[positions], 128, lambda images: moved(images, count))

    def show(place: int, count: int, positions: str):
        image, label, _ = digit(place)
        both = torch.cat([image, moved(image, count)])
        (before, after), _ = answer(readers[positions], both)
        axes = axes_row(4, width=9.4, height=2.9, margins=(0.01, 0.03, 0.92, 0.88, 0.3), ratios=(1, 0.55, 1, 0.55))
        draw.plot_grid(both[0], size, title="in order", ax=axes[0])
        draw.plot_probabilities(before, names=DIGITS, top=3, title="it says", ax=axes[1])
        draw.plot_grid(both[1], size, title=f"{count} patches moved", ax=axes[2])
        draw.plot_probabilities(after, names=DIGITS, top=3, title="it says", ax=axes[3])
        return axes[0], (
            f"{a(label).capitalize()}, positions {positions}. In order the model says {said(before)}, with {count} of "
            f"{patches} patches moved {said(after)}. The largest change of any probability is "
            f"{(after - before).abs().max():.4f}. Of 128 unseen digits the model names {right(0, positions):.0%} right "
            f"in order and {right(count, positions):.0%} with these patches moved."
        )

    return Panel(
        show,
        place=number("digit no.", 4, 0, 99),  # of the first few the one whose answer depends on the order
        count=choice("moved", [0, 2, 4, 8, 16, patches], patches),
        positions=toggle("positions", *readers),
        hint="Try: leave the positions out. Then move fewer and fewer patches. Notice: without positions nothing "
        "changes, whatever you move, and most answers stay right, though the model was trained with positions. With "
        "positions most digits survive even when all patches are moved: this ViT reads strokes more than places.",
    )


def explore_resolution() -> Panel:
    """A ViT trained at 48 pixels reads the same digits at other resolutions, with its positions resampled as a picture,
    or kept in a row and cut off or filled up with zeros."""
    model, _ = tiny()
    learned, patch_size = model.position_embedding.positions.detach(), model.config.patch_size

    @cache
    def at(size: int, kind: str) -> VisionTransformer:
        resized = adapt(model, image_size=size)
        if kind == "cut or filled up":
            missing = resized.config.tokens - learned.shape[1]  # below 0, F.pad cuts off
            resized.position_embedding.positions.data = F.pad(learned, (0, 0, 0, missing))
        return resized

    def scaled(images: Tensor, size: int) -> Tensor:
        return F.interpolate(images, (size, size), mode="bicubic", antialias=True).clamp(0, 1)

    @cache
    def right(size: int, kind: str) -> float:
        return share_right(at(size, kind), 64, lambda images: scaled(images, size))

    def show(place: int, size: int, kind: str):
        image, label, _ = digit(place)
        image, side = scaled(image, size), size // patch_size
        probabilities, attention = answer(at(size, kind), image)
        seen = attention[-1, 0, :, 0, 1:].mean(0).reshape(side, side)
        axes = axes_row(3, width=9, height=3.2, margins=(0.01, 0.03, 0.92, 0.9, 0.12), ratios=(1, 1, 0.7))
        draw.plot_grid(image[0], patch_size, title=f"{size} pixels: {side} * {side} patches", ax=axes[0])
        draw.plot_attention(image[0], seen, title="the class token looks", ax=axes[1])
        draw.plot_probabilities(probabilities[0], names=DIGITS, top=3, title="what it says", ax=axes[2])
        return axes[0], (
            f"{a(label).capitalize()} at {size} x {size} pixels; the model was trained at {TINY_SIZE}. Its "
            f"{learned.shape[1]} positions, {kind}, serve {side**2 + 1} tokens. The model says "
            f"{said(probabilities[0])}; at this size it names {right(size, kind):.0%} of 64 unseen digits right."
        )

    return Panel(
        show,
        place=number("digit no.", 0, 0, 99),
        size=choice("pixels", range(TINY_SIZE // 2, 2 * TINY_SIZE + 1, patch_size), TINY_SIZE + 2 * patch_size),
        kind=toggle("positions", "resampled", "cut or filled up"),
        hint="Try: 72 and 32 pixels, with the positions resampled and not. Then other sizes and digits. Notice: cut or "
        "filled up, the positions slip, because a row of the new grid has another length. Resampled, they fit. Still, "
        "fewer digits are right far from 48 pixels: a patch then holds another piece of the digit than in training.",
    )
