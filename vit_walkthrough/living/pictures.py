"""The living pictures by name: what each one is given, what it refuses, and what it carries into the page."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from vit_walkthrough.draw import stills
from vit_walkthrough.living.page import Living
from vit_walkthrough.look.explain import box_of, grid_of, mass_on_object
from vit_walkthrough.look.trace import Trace, record
from vit_walkthrough.model.config import SIZES, VARIANTS, ViTConfig
from vit_walkthrough.model.patches import patchify
from vit_walkthrough.model.vit import VisionTransformer
from vit_walkthrough.weights.checkpoint import in_eight_bits

Names, Chosen = Sequence[str] | None, Sequence[int] | None


def live(name: str, *args, **options) -> Living:
    """A picture that computes in the page, without kernel or network, and a still where no script runs.

    What follows the picture's name are the arguments of the function of that name in living/pictures.py. Raises:
    ValueError for another name; the message lists those that there are.
    """
    if name not in PICTURES:
        raise ValueError(f"there is no living picture {name!r}; choose from {', '.join(PICTURES)}")
    return PICTURES[name](*args, **options)


def steps(model: VisionTransformer, image: Tensor) -> Living:
    """One picture in seven steps from pixels to probabilities, or a digit that the reader draws."""
    data, trace = of_model(model, image)
    return Living("steps", data, stills.of_steps(model, image, trace, data["classes"]))


def pixels(image: Tensor, patch_size: int) -> Living:
    """Point at a pixel and see its patch, its place in the patch's row, and the formula; or the steps of the code.

    image: 3 channels in [0, 1], or 1 channel of any numbers from 0 on: the numbered image.

    Raises: ValueError for another image, NaN, and a patch_size that does not divide it.
    """
    image = torch.as_tensor(image).detach().float().cpu()
    if image.ndim != 3 or len(image) not in (1, 3) or image.min() < 0 or (len(image) == 3 and image.max() > 1):
        told = f"an image of shape {tuple(image.shape)} with numbers from {image.min():.4g} to {image.max():.4g}"
        raise ValueError(f"{told}; it must have (1 channel, height, width) from 0 on, or 3 channels in [0, 1]")
    _, height, width = image.shape
    at = height // 2 * width + width // 2 if len(image) == 1 else int(image.mean(dim=0).argmax())
    data = {"numbers": image, "patchSize": patch_size, "at": at}
    return Living("pixels", data, stills.of_pixels(image, patch_size, at))


def embedding(model: VisionTransformer, image: Tensor) -> Living:
    """Point at a patch and at one number of its token, and see the patch, the filter, their products and the sum."""
    data, trace = of_model(model, image)
    tokens = trace["patch_embedding"][0]
    patch = int(tokens.norm(dim=1).argmax())
    number = int(tokens[patch].abs().argmax())
    data["weights"] = {name: one for name, one in data["weights"].items() if name.startswith("patch_embedding")}
    data |= {"patch": patch, "chosen": number, "rows": model.config.rows, "cols": model.config.cols}
    return Living("embedding", data, stills.of_embedding(model, image, tokens[patch], patch, number))


def order(model: VisionTransformer, image: Tensor) -> Living:
    """Drag patches to other places, or shuffle them, with positions or without, and read the answer."""
    data, trace = of_model(model, image)
    return Living("order", data, stills.of_order(model, image, trace, data["classes"]))


def arrows(keys, values, query) -> Living:
    """Drag a query among keys, all of two numbers, and see the weights and the output move.

    keys, values: (keys 2), three to six of them. query: (2,). Raises: ValueError for other shapes and NaN.
    """
    keys, values, query = (torch.as_tensor(one).detach().float().cpu() for one in (keys, values, query))
    shapes = [tuple(one.shape) for one in (keys, values, query)]
    if shapes not in [[(count, 2), (count, 2), (2,)] for count in range(3, 7)]:
        raise ValueError(f"keys, values, query are {shapes}; they must be (keys, 2), (keys, 2), (2,), with 3 to 6 keys")
    if not torch.cat([keys, values, query[None]]).isfinite().all():
        raise ValueError("the keys, the values or the query hold numbers that are NaN or infinite")
    data = {"keys": keys, "values": values, "query": query}
    return Living("arrows", data, stills.of_arrows(keys, values, query))


def attention(seen, image, *, blocks: Chosen = None, heads: Chosen = None, classes: Names = None) -> Living:
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
    return Living("attention", data, stills.of_attention(image, maps, tokens, (blocks, of), (heads, count), query))


def stream(model: VisionTransformer, image: Tensor) -> Living:
    """What the classification head would say after every block, while the reader skips halves of blocks, lets them
    stand alone, and switches norms off."""
    data, trace = of_model(model, image)
    return Living("stream", data, stills.of_stream(model, trace["input"], data["classes"]))


def parameters(config: ViTConfig) -> Living:
    """All numbers that a ViT learns, as areas to scale: point at a part for its name, shape and share. The page also
    counts the published sizes, with the image size and the classes of this config.

    Raises: TypeError for what is no config.
    """
    if not isinstance(config, ViTConfig):
        raise TypeError(f"{config!r} is no ViTConfig; for a model, give model.config")
    with torch.device("meta"):  # sizes without numbers
        model = VisionTransformer(config)
    data = {"config": asdict(config), "sizes": {name: list(size) for name, size in SIZES.items()}, "variants": VARIANTS}
    return Living("parameters", data, stills.of_parameters(model))


def run(moments: Sequence[dict], images: Tensor, labels, *, masks: Tensor | None = None) -> Living:
    """Drag along a recorded training, and see accuracy, maps, answers and filters as they were at every moment.

    moments: dicts with step, loss and accuracy (on validation images), probabilities (images classes), maps (images
    patches; the class token's attention), filters (count patch_dim). images: in [0, 1], with their labels. masks: true
    on the object of each image (images height width).

    Raises: ValueError for fewer than two moments, steps that do not rise, and what does not fit the images.
    """
    steps = [moment["step"] for moment in moments]
    if len(steps) < 2 or steps != sorted(set(steps)):
        raise ValueError(f"the steps of the moments are {steps}; they must be two or more, and rise")
    kept = {
        name: torch.stack([torch.as_tensor(moment[name]).detach().float().cpu() for moment in moments])
        for name in ("loss", "accuracy", "probabilities", "maps", "filters")
    }
    if not all(numbers.isfinite().all() for numbers in kept.values()):
        raise ValueError("the moments hold numbers that are not finite")
    labels, names = [int(label) for label in labels], names_of(None, kept["probabilities"].shape[-1])
    side, first = grid_of(kept["maps"].shape[-1], *images.shape[-2:])
    counts = {len(images), len(labels), kept["maps"].shape[1], kept["probabilities"].shape[1]}
    if first or len(counts) > 1 or not set(labels) <= set(range(len(names))):
        raise ValueError(f"maps, probabilities and labels {labels} are not those of patches of {len(images)} images")
    most = kept["filters"].abs().max().item() or 1.0
    rows, cols = images.shape[-2] // side, images.shape[-1] // side
    data = {"steps": steps, "labels": labels, "classes": names} | kept | {"rows": rows, "cols": cols}
    data["filters"] = torch.round(127 * kept["filters"] / most).to(torch.int8)
    data["pixels"] = torch.round(255 * images.clamp(0, 1)).to(torch.uint8)
    if masks is not None:
        data["mass"] = [mass_on_object(maps, masks).mean().item() for maps in kept["maps"]]
        data["area"], data["boxes"] = masks.float().mean().item(), [box_of(mask) for mask in masks]
    return Living("run", data, stills.of_run(steps, kept, images[0], (rows, cols), data.get("boxes", [()])[0]))


def cover(model: VisionTransformer, image: Tensor, *, mask: Tensor | None = None, label: int | None = None) -> Living:
    """Cover patches or silence heads, and see what becomes of the answer, beside the map of the class token.

    mask: true where the object is, (height width). label: the right class.

    Raises: ValueError for a mask of another size or without any object, and for a label that the model lacks.
    """
    data, trace = of_model(model, image)
    if label is not None and int(label) not in range(model.config.classes):
        raise ValueError(f"label {label} is not among the classes 0 to {model.config.classes - 1}")
    data |= {"label": None if label is None else int(label), "square": None, "onSquare": []}
    if mask is not None:
        if mask.shape != image.shape[-2:] or not mask.any():
            raise ValueError(f"a mask of shape {tuple(mask.shape)}, true at {int(mask.sum())} places, for this image")
        inside = patchify(mask[None, None].float(), model.config.patch_size)[0].mean(-1) >= 0.5
        data |= {"square": box_of(mask), "onSquare": inside.nonzero()[:, 0].tolist()}
    return Living("covering", data, stills.of_cover(model, image, trace, data["classes"]))


def predict(question: str, choices: Sequence[tuple[object, bool, str]]) -> Living:
    """A question before something is computed. A tap on an answer unfolds why it is right or wrong.

    choices: (answer, right, sentence) of each answer in the order of the buttons. Exactly one is right.

    Raises: ValueError for fewer than two answers, equal ones, none or several that are right, and an empty text.
    """
    answers = [str(answer) for answer, _, _ in choices]
    if len(answers) < 2 or len(set(answers)) < len(answers):
        raise ValueError(f"a question needs at least 2 different answers, not {answers}")
    if (count := sum(bool(right) for _, right, _ in choices)) != 1:
        raise ValueError(f"{count} of the answers {answers} are right; it must be exactly one")
    if not all(words.strip() for words in (question, *answers, *(sentence for _, _, sentence in choices))):
        raise ValueError("the question, an answer or a sentence is empty")
    listed = [dict(answer=str(answer), right=bool(right), sentence=why) for answer, right, why in choices]
    return Living("predict", {"question": question, "choices": listed}, stills.of_predict(question, answers))


EVERY = steps, pixels, embedding, order, arrows, attention, stream, parameters, run, cover, predict
PICTURES = {one.__name__: one for one in EVERY}


def of_model(model: VisionTransformer, image: Tensor, classes: Names = None) -> tuple[dict, Trace]:
    """What the page needs to compute a model on an image, and what torch computes on exactly that."""
    levels = torch.round(65535 * image.detach().float().clamp(0, 1))  # in 16 bits: exact enough for a model to read
    with torch.no_grad(), record(model) as trace:
        model(levels[None] / 65535)
    weights = in_eight_bits({name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()})
    data = {"weights": weights, "config": asdict(model.config), "image": levels.numpy(force=True).astype("<u2")}
    return data | {"classes": names_of(classes, model.config.classes)}, trace


def names_of(classes: Names, count: int) -> list[str]:
    """The names of `count` classes, which are numbered if none are given."""
    names = [str(number) for number in range(count)] if classes is None else list(classes)
    if len(names) != count:
        raise ValueError(f"{len(names)} names of classes, but the model has {count}")
    return names


def _chosen(what: str, chosen: Chosen, count: int) -> list[int]:
    chosen = list(range(count) if chosen is None else chosen)
    if not chosen or any(one not in range(count) for one in chosen):
        raise ValueError(f"{what} {chosen} are not among 0 to {count - 1}")
    return chosen
