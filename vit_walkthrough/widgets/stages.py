"""Panels over single stages with weights that were not trained: what is turned is the stage's own computation."""

from functools import cache

import torch
from ipywidgets import Dropdown
from torch.nn.functional import layer_norm

from vit_walkthrough import data, draw
from vit_walkthrough.living import live
from vit_walkthrough.living.page import Living
from vit_walkthrough.look.trace import record
from vit_walkthrough.model.attention import MultiHeadSelfAttention
from vit_walkthrough.model.config import divisors
from vit_walkthrough.model.patches import patchify
from vit_walkthrough.model.vit import count_parameters
from vit_walkthrough.train.loop import seeded
from vit_walkthrough.widgets.panel import Panel, axes_row, choice, counted, emptied
from vit_walkthrough.widgets.pictures import photo


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
    tokens = layer_norm((patches - patches.mean((0, 1))) @ mixture * patches.shape[-1] ** -0.5, (dim,))

    @cache
    def look(heads: int) -> tuple[Living, str]:
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
        lambda heads: look(heads),
        heads=choice("heads", divisors(dim), 4),
        hint="Try 1 head, 4, 48, and point at a patch. Notice that the number of parameters stays, and head_dim "
        "shrinks. The heads of random weights differ a little, without any meaning.",
    )
