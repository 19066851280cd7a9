"""The living pictures by name: what each one carries, its still, and its text."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from vit_walkthrough import draw
from vit_walkthrough.draw.theme import outline
from vit_walkthrough.living.attention import attention, grid_of, names_of, of_model
from vit_walkthrough.living.page import Living
from vit_walkthrough.look.explain import logit_lens, mass_on_object
from vit_walkthrough.model.attention import attend, attention_weights
from vit_walkthrough.model.config import SIZES, VARIANTS, ViTConfig
from vit_walkthrough.model.patches import patchify
from vit_walkthrough.model.vit import VisionTransformer, count_parameters


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
    config = model.config
    text = (
        f"A picture is cut into {config.patches} patches, which become {config.tokens} tokens of {config.dim} numbers "
        f"with the class token. After {config.depth} blocks the model says {_best(trace['output'][0], data)}."
    )
    still, invitation = _still(model, image, data, trace), "see every step, and draw a digit of your own"
    return Living("steps", data, still, text, invitation)


def pixels(image: Tensor, patch_size: int) -> Living:
    """Point at a pixel and see its patch, its place in the patch's row, and the formula; or the steps of the code.

    image: 3 channels in [0, 1], or 1 channel of any numbers from 0 on: the numbered image.

    Raises: ValueError for another image, NaN, and a patch_size that does not divide it.
    """
    image = torch.as_tensor(image).detach().float().cpu()
    if image.ndim != 3 or len(image) not in (1, 3) or image.min() < 0 or (len(image) == 3 and image.max() > 1):
        raise ValueError(
            f"an image of shape {tuple(image.shape)} with numbers from {image.min():.4g} to {image.max():.4g}; it must "
            "be (channels, height, width) of 1 channel with numbers from 0 on, or of 3 channels in [0, 1]"
        )
    rows, (channels, height, width) = patchify(image[None], patch_size)[0], image.shape
    y, x = (height // 2, width // 2) if len(image) == 1 else divmod(int(image.mean(dim=0).argmax()), width)
    patch = y // patch_size * (width // patch_size) + x // patch_size
    text = (
        f"An image of {channels} x {height} x {width} numbers (channels, height, width) becomes {len(rows)} rows of "
        f"{rows.shape[1]} numbers. The pixel in row {y}, column {x} goes to patch {patch}, outlined, there to place "
        f"{y % patch_size * patch_size + x % patch_size}; its {'red ' * (channels > 1)}number is {image[0, y, x]:.4g}."
    )
    data = {"numbers": image, "patchSize": patch_size, "at": y * width + x}

    def still():
        (left, right), small = draw.side_by_side(2), len(image) == 1 and image[0].numel() <= 64
        marked = dict(patch_size=patch_size, marked={patch: "patch"}, title=f"patch {patch} of the picture", ax=left)
        if small:
            draw.plot_image(image[0], numbers=True, **marked)
        else:
            draw.plot_grid(image / max(1, image.max()), **marked)
        look = dict(numbers=small, colorbar=False, names=["red", "green", "blue"] if channels == 3 else [""])
        draw.plot_matrix(
            rows[patch].reshape(channels, -1), title=f"its row of {rows.shape[1]} numbers", ax=right, **look
        )
        right.images[0].set_clim(0, image.max())  # a number has the colour that it has in the picture
        return right

    return Living("pixels", data, still, text, "point at a pixel")


def embedding(model: VisionTransformer, image: Tensor) -> Living:
    """Point at a patch and at one number of its token, and see the patch, the filter, their products and the sum."""
    data, trace = of_model(model, image)
    config, tokens = model.config, trace["patch_embedding"][0]
    patch = int(tokens.norm(dim=1).argmax())
    number = int(tokens[patch].abs().argmax())
    data["weights"] = {name: one for name, one in data["weights"].items() if name.startswith("patch_embedding")}
    data |= {"patch": patch, "chosen": number, "rows": config.rows, "cols": config.cols}
    text = (
        f"An image of {config.rows} x {config.cols} patches. Patch {patch}, outlined, times a matrix of {config.dim} "
        f"filters gives its token of {config.dim} numbers, in rows of 16. Number {number}, in row {number // 16} and "
        f"column {number % 16}, is the largest in size: {tokens[patch, number]:.2f}."
    )

    def still():
        left, right = draw.side_by_side(2)
        draw.plot_grid(image, config.patch_size, marked={patch: "patch"}, title=f"patch {patch}", ax=left)
        lines = np.pad(tokens[patch].numpy(), (0, -config.dim % 16)).reshape(-1, 16)
        return draw.plot_matrix(lines, kind="signed", numbers=False, title="its token", ax=right)

    return Living("embedding", data, still, text, "point at a patch and at a number")


def order(model: VisionTransformer, image: Tensor) -> Living:
    """Drag patches to other places, or shuffle them, with positions or without, and read the answer."""
    data, trace = of_model(model, image)
    rows, cols = model.config.rows, model.config.cols
    text = f"An image in {rows} x {cols} patches. The model says {_best(trace['output'][0], data)}."
    still = _still(model, image, data, trace)
    return Living("order", data, still, text, "drag a patch onto another, or shuffle them")


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
    weights = attention_weights(query[None], keys)
    output = attend(weights, values)[0]
    text = (
        f"A query ({query[0]:.2g}, {query[1]:.2g}) among {len(keys)} keys, and the weights that it gives them. The "
        f"output, the weighted sum of the values, is ({output[0]:.2f}, {output[1]:.2f})."
    )
    data = {"keys": keys, "values": values, "query": query}

    def still():
        axes, weight = draw.side_by_side(2, width=8, height=4), weights[0].tolist()
        for ax, one, title in zip(axes, "kv", ("the query and the keys", "the values and the output"), strict=True):
            vectors, single = (keys, query) if one == "k" else (values, output)
            ends = {f"{one}{number} ({weight[number]:.2f})": end for number, end in enumerate(vectors.tolist())}
            ends["query" if one == "k" else "output"] = single.tolist()
            roles = ["key" if one == "k" else "value"] * len(keys) + ["query" if one == "k" else "neutral"]
            for (name, end), role, thick in zip(ends.items(), roles, [*weight, 0.2], strict=True):
                look = dict(color=draw.ROLES[role], arrowstyle="-|>", lw=2 + 4 * thick, shrinkA=0, shrinkB=0)
                ax.annotate("", end, (0, 0), arrowprops=look)
                low = name in ("query", "output") or end[1] < 0  # so that no two words meet
                sides = dict(ha="left" if end[0] >= 0 else "right", va="top" if low else "bottom")
                ax.text(*end, f" {name} ", size=11, **sides)
            low, high = np.min([[0, 0], *ends.values()], axis=0), np.max([[0, 0], *ends.values()], axis=0)
            middle, half = (low + high) / 2, 1.1 * max(high - low)
            limits = zip(middle - half, middle + half, strict=True)
            ax.set(title=title, aspect="equal", **dict(zip(("xlim", "ylim"), limits, strict=True)))
        return axes[0]

    return Living("arrows", data, still, text, "drag the tip of the query")


def stream(model: VisionTransformer, image: Tensor) -> Living:
    """What the classification head would say after every block, while the reader skips halves of blocks, lets them
    stand alone, and switches norms off."""
    data, trace = of_model(model, image)
    said = logit_lens(model, trace["input"])[:, 0]
    stations = ["after embedding", *(f"after block {block}" for block in range(model.config.depth))]
    answers = [f"{name}: {_best(one, data)}" for name, one in zip(stations, said, strict=True)]
    shown = dict(numbers=True, colorbar=False, names=stations, title="percent for each class", xlabel="class")
    text = f"What the classification head would say {'; '.join(answers)}."
    invitation = "skip parts of the blocks, and see what the head says then"
    return Living("stream", data, lambda: draw.plot_matrix(100 * said.softmax(-1), **shown), text, invitation)


def parameters(config: ViTConfig) -> Living:
    """All numbers that a ViT learns, as areas to scale: point at a part for its name, shape and share. The page also
    counts the published sizes, with the image size and the classes of this config.

    Raises: TypeError for what is no config.
    """
    if not isinstance(config, ViTConfig):
        raise TypeError(f"{config!r} is no ViTConfig; for a model, give model.config")
    with torch.device("meta"):  # sizes without numbers
        model = VisionTransformer(config)
    groups, total = Counter(), count_parameters(model)
    for name, one in model.named_parameters():
        part, _, *inside = name.split(".")
        groups[inside[0] if part == "blocks" else part] += one.numel()
    shares = "; ".join(f"{name} {count:,} ({100 * count / total:.2g}%)" for name, count in groups.items())
    text = f"The {total:,} numbers that a ViT with {config.depth} blocks of dim {config.dim} learns: {shares}."
    data = {"config": asdict(config), "sizes": {name: list(size) for name, size in SIZES.items()}, "variants": VARIANTS}
    return Living("parameters", data, lambda: draw.plot_bars(groups), text, "point at a part")


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
    data = {"steps": steps, "labels": labels, "classes": names} | kept
    data |= {"rows": images.shape[-2] // side, "cols": images.shape[-1] // side}
    data["filters"] = torch.round(127 * kept["filters"] / most).to(torch.int8)
    data["pixels"] = torch.round(255 * images.clamp(0, 1)).to(torch.uint8)
    if masks is not None:
        data["mass"] = [mass_on_object(maps, masks).mean().item() for maps in kept["maps"]]
        data["area"], data["boxes"] = masks.float().mean().item(), [_box(mask) for mask in masks]
    text = (
        f"A recorded training of {steps[-1]} steps: {kept['accuracy'][0]:.1%} of the validation images are right "
        f"before the first step, {kept['accuracy'][-1]:.1%} at the end."
    )

    def still():
        left, middle, right = draw.side_by_side(3, width=10, height=3.2)
        curve = {"accuracy": (steps, kept["accuracy"])}
        draw.plot_curves(curve, role="patch", xlabel="step", title="right answers", ax=left)
        looks = kept["maps"][[0, -1], 0].unflatten(1, (data["rows"], data["cols"]))
        for step, seen, ax in zip((steps[0], steps[-1]), looks, (middle, right), strict=True):
            draw.plot_attention(images[0], seen, peak=looks.max().item(), title=f"a map at step {step:,}", ax=ax)
            for wide, high, width, height in data.get("boxes", ())[:1]:
                outline(ax, (high, wide), (height, width), "white", line=1.5)
        return left

    return Living("run", data, still, text, "drag along the curve")


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
        data |= {"square": _box(mask), "onSquare": inside.nonzero()[:, 0].tolist()}
    largest = trace.attention[-1, 0, :, 0, 1:].mean(0).topk(5).values.sum()
    text = (
        f"The model says {_best(trace['output'][0], data)}. In its last block the class token gives {largest:.0%} of "
        f"its attention to 5 of {model.config.patches} patches."
    )
    invitation = "cover patches, and see whether those matter most"
    return Living("covering", data, _still(model, image, data, trace), text, invitation)


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
    lines = [line for words in (question, *(f"○  {answer}" for answer in answers)) for line in textwrap.wrap(words, 80)]

    def still():
        (ax,) = draw.side_by_side(1, width=7, height=0.3 * len(lines))
        ax.axis("off")
        ax.text(0, 1, "\n".join(lines), size=13, va="top", linespacing=1.6, transform=ax.transAxes)
        return ax

    listed = [
        {"answer": answer, "right": bool(right), "sentence": why}
        for answer, (_, right, why) in zip(answers, choices, strict=True)
    ]
    text = f"{question} The answers to choose from are: {'; '.join(answers)}."
    data = {"question": question, "choices": listed}
    return Living("predict", data, still, text, "tap the answer that you expect", speaks=True)


PICTURES = {
    one.__name__: one
    for one in (steps, pixels, embedding, order, arrows, attention, stream, parameters, run, cover, predict)
}


def _best(logits: Tensor, data: dict) -> str:
    return f"{data['classes'][logits.argmax()]} ({logits.softmax(-1).max():.1%})"


def _still(model: VisionTransformer, image: Tensor, data: dict, trace):
    """What draws a picture in its patches, where the class token looks in the last block, and the answer."""

    def still():
        left, middle, right = draw.side_by_side(3, width=10, height=3.2)
        draw.plot_grid(image, model.config.patch_size, title="the picture", ax=left)
        seen = trace.attention[-1, 0, :, 0, 1:].mean(0).reshape(model.config.rows, model.config.cols)
        draw.plot_attention(image, seen, title="where the class token looks", ax=middle)
        answer = trace["output"][0].softmax(-1)
        return draw.plot_probabilities(answer, names=data["classes"], title="the answer", ax=right)

    return still


def _box(mask: Tensor) -> list[int]:
    """left, top, width, height of what is true."""
    (top, left), (bottom, right) = (ends.tolist() for ends in torch.aminmax(mask.nonzero(), dim=0))
    return [left, top, right - left + 1, bottom - top + 1]
