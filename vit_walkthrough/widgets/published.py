"""The panel that fetches a published ViT and shows what it has learned, and where it looks."""

from contextlib import suppress
from functools import partial

import ipywidgets
import torch
from einops import rearrange

from vit_walkthrough import draw
from vit_walkthrough.draw.stills import best
from vit_walkthrough.living import live
from vit_walkthrough.look.explain import attention_distance, position_similarity, principal_filters
from vit_walkthrough.weights.published import Preprocessing, Pretrained, load_pretrained
from vit_walkthrough.widgets.models import DIGITS, answer, tiny
from vit_walkthrough.widgets.panel import Panel, axes_row, toggle
from vit_walkthrough.widgets.pictures import TINY_SIZE, PictureChooser, picture

PUBLISHED = {  # by what the buttons say; the sizes are those of the files
    "load ViT-Ti/16 (23 MB)": "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "load DINO ViT-S/16 (87 MB)": "timm/vit_small_patch16_224.dino",
}


def explore_published() -> Panel:
    """Press a button, and the kernel fetches a published ViT: where each head looks on a photograph or on the reader's
    own picture, its filters, its positions, and how far it looks. Before that the same is shown of a bundled tiny ViT.
    What keeps a model from being loaded is said in the panel, which goes on with the model that it has."""
    as_it_is = Preprocessing((0.0,) * 3, (1.0,) * 3, (TINY_SIZE,) * 2)
    shown = Pretrained(tiny()[0], as_it_is, tuple(DIGITS), "the bundled tiny ViT, which knows digits and nothing else")

    def show(view, chosen):
        model, config = shown.model, shown.model.config
        image = picture(chosen, (config.height, config.width))[0]
        trace = answer(model, shown.prepare(image))
        depth, _, heads, *_ = trace.attention.shape
        says = "It has no classification head, so it names nothing."
        if shown.class_names:
            says = f"It says: {best(trace['output'][0], shown.class_names)}."
        if view == "point at a patch":
            blocks = range(depth)[:: -((depth + 3) // 4)][::-1]  # at most four, or the page would be too large
            seen = trace if shown.class_names else trace.attention
            figure = live("attention", seen, image[0], blocks=blocks, classes=shown.class_names or None)
            what = f"Where any token looks, in blocks {', '.join(map(str, blocks))}."
        elif view == "filters":
            figure = draw.plot_filters(principal_filters(model.patch_embedding.projection.weight), cols=14)
            what = "The 28 principal components of the filters, each stretched to its own range."
        elif view == "positions":
            (ax,) = draw.side_by_side(1, width=6, height=5)
            alike = position_similarity(model.position_embedding.positions)
            figure = draw.plot_similarity(alike, config.rows, config.cols, ax=ax)
            what = "How similar the position of each patch is to every other's: one tile for each patch."
        elif view == "distances":
            grid = config.rows, config.cols, config.patch_size
            far = attention_distance(trace.attention, *grid)
            even = attention_distance(torch.full_like(trace.attention[:1], 1 / config.tokens), *grid).mean().item()
            rows, title = {f"block {block}": row for block, row in enumerate(far.tolist())}, "mean distance in pixels"
            figure = draw.plot_dots(rows, unit="{:.0f}", limits=(0, None), chance=even, title=title)
            what = f"How far each head looks on this picture: from {far.min():.0f} to {far.max():.0f} pixels. Dotted: "
            what += f"a head that gives every token the same weight, {even:.0f}."
        else:
            maps = rearrange(trace.attention[:, 0, :, 0, 1:], "b h (rows cols) -> (h b) rows cols", rows=config.rows)
            titles, wide = ["block 0", *map(str, range(1, depth)), *[""] * depth * (heads - 1)], min(9, 1.6 * depth)
            (ax,) = axes_row(1, margins=(0.01, 0.01, 0.99, 0.97), width=wide, height=1.05 * wide * heads / depth)
            figure = draw.plot_heads(image[0], maps, titles=titles, cols=depth, ax=ax)
            what = f"Where the class token looks: a column for each block, a row for each of its {heads} heads. "
            what += "Each map is scaled to its own largest weight."
        return figure, f"{what} The model is {shown.source}. {says}"

    chooser = PictureChooser()
    panel = Panel(
        show,
        view=toggle("show", "every head", "point at a patch", "filters", "positions", "distances"),
        chosen=chooser,
        groups={"view": "View", "chosen": "Picture"},
        hint="Try: load a model, then take the astronaut, then a photograph of your own. Notice which heads find the "
        "object, and in which blocks, and how the filters and distances differ from those of the tiny ViT.",
    )

    def load(name, button=None) -> None:
        """Fetch and show a model, by a name or folder that load_pretrained takes."""
        nonlocal shown
        panel.message.value = f"<p>Fetching {name}. It is kept, so the next time is faster.</p>"
        with suppress(ModuleNotFoundError, ConnectionError, ValueError), panel.tell():  # a sentence is enough
            shown = load_pretrained(name)
            if chooser.kind.value == "digit":
                chooser.kind.value = "cat"  # which draws
            else:
                panel.update()

    buttons = [ipywidgets.Button(description=words, layout={"width": "auto"}) for words in PUBLISHED]
    for button, name in zip(buttons, PUBLISHED.values(), strict=True):
        button.on_click(partial(load, name))
    panel.load = load
    panel.knobs.children = (ipywidgets.VBox(buttons), *panel.knobs.children)
    return panel
