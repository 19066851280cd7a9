"""Panels over the bundled tiny ViTs, which were trained on digits, and over single stages, whose weights are random."""

from functools import cache

import torch
import torch.nn.functional as F
from ipywidgets import Dropdown
from torch import Tensor

from vit_walkthrough import data, draw
from vit_walkthrough.draw.stills import best
from vit_walkthrough.living import live
from vit_walkthrough.look.explain import mass_on_object
from vit_walkthrough.look.trace import Trace, record
from vit_walkthrough.model.attention import MultiHeadSelfAttention
from vit_walkthrough.model.config import divisors
from vit_walkthrough.model.patches import patchify
from vit_walkthrough.model.vit import VisionTransformer, count_parameters
from vit_walkthrough.train.finetune import adapt
from vit_walkthrough.train.loop import seeded
from vit_walkthrough.weights.checkpoint import bundled, load_checkpoint
from vit_walkthrough.widgets.panel import Panel, axes_row, choice, counted, emptied, number, toggle
from vit_walkthrough.widgets.pictures import TINY_SIZE, PictureChooser, digit, photo, picture, unseen_digits

DIGITS = list("0123456789")


@cache
def tiny(patch_size: int = 8, heads: int = 4) -> tuple[VisionTransformer, dict]:
    """A bundled model and its scores."""
    return load_checkpoint(bundled()[patch_size, heads])


@torch.no_grad()
def answer(model: VisionTransformer, images: Tensor) -> Trace:
    """What a picture of attention needs of the forward pass: the attention and the logits."""
    with record(model, "*.attention.weights", "output") as trace:
        model(images)
    return trace


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
    @torch.no_grad()
    def right(size: int, kind: str) -> float:
        images, labels, _ = unseen_digits().sample(40, draw=0)
        return (at(size, kind)(scaled(images, size)).argmax(-1) == labels).float().mean().item()

    def show(place: int, size: int, kind: str):
        image, label, _ = digit(place)
        image, trace = scaled(image, size), answer(at(size, kind), scaled(image, size))
        return live("attention", trace, image[0], classes=DIGITS), (
            f"The digit {label} at {size} x {size} pixels; the model was trained at {TINY_SIZE}. Its "
            f"{learned.shape[1]} positions, {kind}, serve {(size // patch_size) ** 2 + 1} tokens. The model says "
            f"{best(trace['output'][0], DIGITS)}. At this size it names {right(size, kind):.0%} of 40 unseen "
            "digits right."
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


def explore_vit() -> Panel:
    """The control panel: what a trained ViT says of an unseen digit, of a photograph or of the reader's own picture,
    and where it looks. Each patch size and number of heads is a model of its own, trained alike."""

    def show(chosen, patch_size, heads):
        (model, scores), (image, label, mask) = tiny(patch_size, heads), picture(chosen)
        trace = answer(model, image)
        weights = trace.attention[-1, :, :, 0, 1:].mean(1)
        if mask is None:
            seen = "this picture" if chosen[0] == "own" else f"the {chosen[0]}"
            what, where = f"This ViT knows digits and nothing else. Of {seen} it says", ""
        else:
            what = f"This is the digit {label}. The model says"
            mass, area = mass_on_object(weights, mask).item(), mask.float().mean()
            where = f" Its square, {area:.0%} of the picture, gets {mass:.0%} of the attention to patches."
        says = best(trace["output"][0], DIGITS)
        return live("attention", trace, image[0], classes=DIGITS), (
            f"{what} {says}.{where} With patches of {patch_size} pixels and {counted(heads, 'head')} this ViT names "
            f"{scores['test_accuracy']:.1%} of {scores['images']:,} unseen pictures right."
        )

    patch_sizes, heads = (sorted(set(sizes)) for sizes in zip(*bundled(), strict=True))  # there is every combination
    return Panel(
        show,
        chosen=PictureChooser(),
        patch_size=choice("patch size", patch_sizes, 8),
        heads=choice("heads", heads, 4),
        groups={"chosen": "Picture", "patch_size": "Model"},
        hint="Try another digit, or write one of your own, about half as high as the picture. Then point at a patch. "
        "Notice how soon the model looks at the digit: go through the blocks one by one.",
    )


def explore_patches() -> Panel:
    """Patch size against the length of the sequence, on a photo of 224 x 224 pixels."""
    axes = axes_row(2, width=8, height=3.9, margins=(0.01, 0.02, 0.99, 0.91, 0.06))

    def show(photo_name: str, patch_size: int):
        image, side, (left, right) = photo(photo_name, 224), 224 // patch_size, emptied(axes)
        title = f"{side} rows of {side} patches" if side > 1 else "one patch"
        draw.plot_grid(image, patch_size, title=title, ax=left)
        draw.plot_patches(patchify(image[None], patch_size)[0], side, number=False, title="pulled apart", ax=right)
        patches, tokens = side**2, side**2 + 1
        return left, (
            f"The {photo_name} in patches of {patch_size} x {patch_size} pixels: {side} * {side} = {patches:,} "
            f"patches, with the class token {tokens:,} tokens. One flattened patch is 3 * {patch_size} * {patch_size} "
            f"= {3 * patch_size**2:,} numbers. Attention will compare every token with every token: {tokens**2:,} "
            "pairs."
        )

    return Panel(
        show,
        photo_name=Dropdown(options=data.PHOTOS, description="photo"),
        patch_size=choice("patch size", [side for side in divisors(224) if side >= 4], 32),
        hint="Try: 16, as in ViT-B/16, then 8, then 112. Notice from which size on a single patch shows what it belongs"
        " to. Half the size makes four times the patches and about sixteen times the pairs.",
    )


def explore_heads() -> Panel:
    """The same width cut into more or fewer heads: what each looks at, and that the parameters stay as many. The heads
    have random weights. They read the cat's patches, normalised, in 48 random mixtures."""
    image, dim, patch_size = photo("cat"), 48, 28
    patches = patchify(image[None], patch_size)
    mixture = torch.randn(patches.shape[-1], dim, generator=torch.Generator().manual_seed(0))
    tokens = F.layer_norm((patches - patches.mean((0, 1))) @ mixture * patches.shape[-1] ** -0.5, (dim,))

    @cache
    def look(heads: int):
        with seeded(0):
            attention = MultiHeadSelfAttention(dim, heads).eval()
        with torch.no_grad(), record(attention, "weights") as trace:
            attention(tokens)
        weights, alike = trace["weights"], 1 / tokens.shape[1]
        strongest = weights[0].amax(-1).mean(-1)  # of each head, on average over the queries
        return live("attention", weights, image), (
            f"{counted(heads, 'head')} of head_dim {dim} / {heads} = {dim // heads}, {count_parameters(attention):,} "
            f"parameters, random weights. The strongest key of a query gets {strongest.min():.3f} of the attention in "
            f"the mildest head and {strongest.max():.3f} in the keenest. Everywhere alike would be {alike:.3f}."
        )

    return Panel(
        look,
        heads=choice("heads", divisors(dim), 4),
        hint="Try 1 head, 4, 48, and point at a patch. Notice that the number of parameters stays, and head_dim "
        "shrinks. The heads of random weights differ a little, without any meaning.",
    )
