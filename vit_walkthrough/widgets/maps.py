"""Panels that ask where a trained ViT looked: the control panel, and every kind of map side by side."""

from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor

from vit_walkthrough import draw
from vit_walkthrough.look.explain import mass_on_object, occlusion, relevance, rollout
from vit_walkthrough.widgets.models import DIGITS, a, answer, said, sizes_of_tiny, tiny
from vit_walkthrough.widgets.panel import Panel, axes_row, counted, menu, number, query_at, toggle
from vit_walkthrough.widgets.pictures import TINY_SIZE, PictureChooser, digit, picture


def share_of(weights: Tensor, mask: Tensor) -> str:
    """The share of a map (1 patches) that lies on the digit, in words."""
    return f"{mass_on_object(weights, mask).item():.0%}" if weights.sum() > 0 else "nothing"


def explore_vit() -> Panel:
    """The control panel: what a trained ViT says of an unseen digit, of a photograph or of the reader's own picture,
    and where it looked. Each patch size and number of heads is a model of its own, trained alike."""
    query_sliders, fit_query = query_at(6)

    @lru_cache(maxsize=64)
    def look(chosen: tuple, patch_size: int, heads: int) -> tuple[Tensor, Tensor]:
        (model, _), (image, _, _) = tiny(patch_size, heads), picture(chosen)
        probabilities, attention = answer(model, image)
        return probabilities[0], attention[:, 0]

    def adapt(controls: dict) -> None:
        patch_size, heads, query = (controls[name].value for name in ("patch_size", "heads", "query"))
        fit_query(TINY_SIZE // patch_size)
        head, options = controls["head"], ("all", *range(heads))
        if head.options != options:
            kept = head.value if head.value in options else "all"
            head.options, head.value = options, kept
        head.disabled = heads == 1
        controls["row"].disabled = controls["col"].disabled = query == "class token"

    def show(chosen, patch_size, heads, block, head, query, row, col):
        image, label, mask = picture(chosen)
        probabilities, attention = look(chosen, patch_size, heads)
        side, best, scores = TINY_SIZE // patch_size, int(probabilities.argmax()), tiny(patch_size, heads)[1]
        place = None if query == "class token" else row * side + col
        heads_shown = range(heads) if head == "all" else [head]
        titles = [f"head {each}" for each in heads_shown]
        weights = attention[block - 1, heads_shown, 0 if place is None else 1 + place, 1:]
        who = "the class token" if place is None else f"the patch at row {row}, column {col}"
        which = f"each of {heads} heads" if len(titles) > 1 else titles[0]
        told = f"The attention in block {block} says where {who} looks, in {which}."

        across, wide = {1: (1, 1), 2: (2, 1.8), 4: (2, 1), 8: (4, 1.9)}[len(titles)]  # maps in a row, and their width
        axes = axes_row(3, width=9.4, height=3.3, margins=(0.01, 0.03, 0.925, 0.9, 0.12), ratios=(1, wide, 0.6))
        marked, title = None if place is None else {place: "query"}, f"{side} * {side} = {side**2} patches"
        draw.plot_grid(image[0], patch_size, marked=marked, title=title, ax=axes[0])
        maps = rearrange(weights, "maps (rows cols) -> maps rows cols", rows=side)
        draw.plot_heads(image[0], maps, query=place, titles=titles, cols=across, ax=axes[1])
        draw.plot_probabilities(probabilities, names=DIGITS, top=3, title="what it says", ax=axes[2])

        if mask is None:
            seen = "this picture" if chosen[0] == "own" else f"the {chosen[0]}"
            what, where = f"This ViT knows digits and nothing else: of {seen} it says", ""
        else:
            what = f"This is {a(label)}; the model says"
            where = (
                f" Of what goes to patches, {share_of(weights.mean(0, keepdim=True), mask)} goes to those of the "
                f"digit, whose square is {mask.float().mean():.0%} of the picture."
            )
        return axes[0], (
            f"{what} {best}, with {probabilities[best]:.1%}. {told}{where} With patches of {patch_size} pixels and "
            f"{counted(heads, 'head')} this ViT gets {scores['test_accuracy']:.1%} of {scores['test_images']:,} unseen "
            "digits right."
        )

    return Panel(
        show,
        adapt=adapt,
        chosen=PictureChooser(),
        **sizes_of_tiny(),
        block=number("block", 4, 1, 4),
        head=menu("head", ["all"]),
        query=toggle("query", "class token", "patch"),
        **query_sliders,
        hint="Try: another digit, the blocks one by one, a patch as the query; a digit of your own, written about half "
        "as high as the picture. Notice: how soon it looks at the digit, and where an empty patch looks.",
    )


def explore_maps() -> Panel:
    """Every way to say where a trained ViT looked, side by side, for any class one may ask about."""

    def show(place: int, asked: str, patch_size: int, heads: int):
        (model, _), (image, label, mask) = tiny(patch_size, heads), digit(place)
        probabilities, attention = answer(model, image)
        classes = probabilities.argmax(-1) if asked == "what it says" else torch.tensor([int(asked)])
        maps = {
            "last block": attention[-1, :, :, 0, 1:].mean(dim=1),
            "rollout": rollout(attention)[:, 0, 1:],
            "relevance": relevance(model, image, classes),
            "occlusion": occlusion(model, image, classes).clamp(min=0),
        }
        (ax,) = axes_row(1, width=9, height=2.5, margins=(0.01, 0.02, 0.99, 0.98, 0))
        tiles = rearrange(list(maps.values()), "maps 1 (rows cols) -> maps rows cols", rows=TINY_SIZE // patch_size)
        draw.plot_heads(image[0], tiles, titles=list(maps), ax=ax)
        shares = ", ".join(f"{name} {share_of(weights, mask)}" for name, weights in maps.items())
        meant = int(classes)
        return ax, (
            f"This is {a(label)}; the model says {said(probabilities)}. What speaks for {a(meant)} "
            f"({probabilities[0, meant]:.1%})? The share of each map on the digit: {shares}. Covering the strongest "
            f"patch of the occlusion takes {maps['occlusion'].max():.2%} from that class. The last block and "
            "the rollout do not ask which class is meant; relevance and occlusion do."
        )

    return Panel(
        show,
        place=number("digit no.", 0, 0, 99),
        asked=menu("class", ["what it says", *DIGITS]),
        **sizes_of_tiny(),
        hint="Try: ask for a class that the model does not name. Notice: the first two maps stay, because they do not "
        "depend on the class. The relevance moves to what speaks for that class. The occlusion can only say something "
        "of a class that has some probability to lose: see how much its strongest patch takes away.",
    )
