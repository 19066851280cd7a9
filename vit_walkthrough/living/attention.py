"""The living picture of attention, and what pictures share: a model with its image, the grid of its patches."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from vit_walkthrough import draw
from vit_walkthrough.living.page import Living, levels
from vit_walkthrough.look.trace import Trace, record
from vit_walkthrough.model.vit import VisionTransformer
from vit_walkthrough.weights.checkpoint import in_eight_bits

Names = Sequence[str] | None


def attention(
    seen: VisionTransformer | Trace | Tensor | np.ndarray,
    image: Tensor | np.ndarray,
    *,
    blocks: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    classes: Names = None,
) -> Living:
    """Point at a patch and see where it looks, in every head of any block.

    seen: a model, which the page then computes, with its answer, and with heads silenced; or a recorded forward pass,
    or attention weights alone, (blocks batch heads queries keys) or fewer axes, with or without a class token. Of a
    batch the first image is shown. image: in [0, 1]. blocks, heads: lists of those to show, counted from 0; by default
    all. classes: names of a model's classes.

    Raises: KeyError for a trace without attention; ValueError for negative weights, an image that its patches do not
    tile, blocks or heads that are not there.
    """
    data = {}
    if isinstance(seen, VisionTransformer):
        data, trace = of_model(seen, image, classes)
        weights = trace.attention
    else:
        weights = seen.attention if isinstance(seen, Trace) else torch.as_tensor(seen)
        image = torch.as_tensor(image).detach().float().cpu()
        if image.ndim != 3 or len(image) not in (1, 3):
            raise ValueError(f"an image of shape {tuple(image.shape)}; it is (1 or 3 channels, height, width)")
        data["image"] = (255 * image.clamp(0, 1).expand(3, -1, -1)).round().byte()
        if isinstance(seen, Trace) and "output" in seen and seen["output"].ndim == 2:
            data |= {"logits": seen["output"][0], "classes": names_of(classes, seen["output"].shape[1])}
    if not 2 <= weights.ndim <= 5 or weights.shape[-1] != weights.shape[-2]:
        raise ValueError(f"attention of shape {tuple(weights.shape)}; it is (blocks batch heads queries keys) or less")
    weights = weights[(None,) * (5 - weights.ndim)][:, 0].detach().float().cpu()  # blocks heads queries keys
    if not (weights >= 0).all():  # which NaN is not either
        raise ValueError("weights below 0, or NaN, are no attention: are these the scores before the softmax?")
    of, count, tokens, _ = weights.shape
    blocks, heads = _chosen("blocks", blocks, of), _chosen("heads", heads, count)
    side, first = grid_of(tokens, *image.shape[-2:])
    rows, cols = image.shape[-2] // side, image.shape[-1] // side
    weights = weights[blocks][:, heads].numpy()
    data |= {"rows": rows, "cols": cols, "first": first, "of": of, "blocks": blocks, "heads": heads}
    if "weights" not in data:
        # The class token's column goes beside, exact: often the largest by far, it would leave the rest few steps.
        peaks = weights[..., first:].max(axis=-1, keepdims=True)
        shades = np.round(255 * weights[..., first:] / np.where(peaks > 0, peaks, 1)).astype(np.uint8)
        data |= {"shades": shades, "peaks": peaks} | ({"toClass": weights[..., 0]} if first else {})

    query = None if first else (rows // 2) * cols + cols // 2
    maps = weights[-1, :, query or 0, first:].reshape(-1, rows, cols)
    who = "the class token" if first else f"the patch in row {query // cols}, column {query % cols}"
    row, col = divmod(int(maps.mean(axis=0).argmax()), cols)
    shown = dict(titles=[f"head {head}" for head in heads], cols=min(5, len(heads)), query=query)
    return Living(
        "attention",
        data,
        lambda: draw.plot_heads(image, maps, peak=float(maps.max()), first=True, **shown),
        f"Where {who} looks{f' in block {blocks[-1]}' if of > 1 else ''}, a map for each of "
        f"{f'{len(heads)} of ' if len(heads) < count else ''}{count} heads. "
        f"{'On their mean, the' if len(heads) > 1 else 'The'} patch in row {row}, column {col} gets the most, "
        f"{maps.mean(axis=0).max():.2f}; shared out equally, each token would get {1 / tokens:.3f}. "
        f"On all maps black is 0 and pale yellow {maps.max():.2f}.",
        "point at a patch",
    )


def of_model(model: VisionTransformer, image: Tensor, classes: Names = None) -> tuple[dict, Trace]:
    """What the page needs to compute a model on an image, and what torch computes on exactly that."""
    given = torch.as_tensor(levels(image).astype(np.float32) / 65535)
    with torch.no_grad(), record(model) as trace:
        model(given[None])
    weights = in_eight_bits({name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()})
    data = {"weights": weights, "config": asdict(model.config), "image": levels(image)}
    return data | {"classes": names_of(classes, model.config.classes)}, trace


def names_of(classes: Names, count: int) -> list[str]:
    """The names of `count` classes, which are numbered if none are given."""
    names = [str(number) for number in range(count)] if classes is None else list(classes)
    if len(names) != count:
        raise ValueError(f"{len(names)} names of classes, but the model has {count}")
    return names


def grid_of(tokens: int, height: int, width: int) -> tuple[int, int]:
    """The side of the square patches, and the place of the first of them: 1 behind a class token, else 0."""
    for first in (1, 0) if tokens > 1 else ():
        patches = tokens - first
        side = max(1, round((height * width / patches) ** 0.5))
        if height % side == width % side == 0 and (height // side) * (width // side) == patches:
            return side, first
    patches = f"{tokens - 1} patches (or {tokens}, without a class token)"
    raise ValueError(f"{patches} do not tile an image of {height} x {width} pixels with squares")


def _chosen(what: str, chosen: Sequence[int] | None, count: int) -> list[int]:
    chosen = list(range(count) if chosen is None else chosen)
    if not chosen or any(one not in range(count) for one in chosen):
        raise ValueError(f"{what} {chosen} are not among 0 to {count - 1}")
    return chosen
