"""A panel over a single stage: what is turned is the stage's own computation."""

from vit_walkthrough import data, draw
from vit_walkthrough.model.config import divisors
from vit_walkthrough.model.patches import patchify
from vit_walkthrough.widgets.panel import Panel, axes_row, choice, menu
from vit_walkthrough.widgets.pictures import photo


def explore_patches() -> Panel:
    """Patch size against the length of the sequence, on a photo of 224 x 224 pixels."""

    def show(photo_name: str, patch_size: int):
        image, side = photo(photo_name, 224), 224 // patch_size
        left, right = axes_row(2, width=8, height=3.9, margins=(0.01, 0.02, 0.99, 0.91, 0.06))
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
        photo_name=menu("photo", data.PHOTOS),
        patch_size=choice("patch size", [side for side in divisors(224) if side >= 4], 32),
        hint="Try: 16, as in most published ViTs, then 8, then 112. Notice: up to which size a patch does not show "
        "what it is part of. Half the size makes four times the patches and about sixteen times the pairs.",
    )
