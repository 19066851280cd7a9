"""The living pictures as they stand still: what each shows at first, the sentence that says it, and the invitation."""

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vit_walkthrough.draw.images import plot_attention, plot_grid, plot_heads, plot_image, plot_matrix
from vit_walkthrough.draw.plots import plot_bars, plot_curves, plot_probabilities
from vit_walkthrough.draw.theme import ROLES, outline, side_by_side
from vit_walkthrough.look.explain import logit_lens
from vit_walkthrough.look.trace import Trace
from vit_walkthrough.model.attention import attend, attention_weights
from vit_walkthrough.model.patches import patchify
from vit_walkthrough.model.vit import VisionTransformer, count_parameters


class Still(NamedTuple):
    """draw: makes the picture. text: says what there is to see. invitation: what one can do where it lives. speaks: the
    picture itself says the text."""

    draw: Callable[[], Figure | Axes]
    text: str
    invitation: str
    speaks: bool = False


def best(logits: Tensor, names: Sequence[str]) -> str:
    """The likeliest class and its probability: 2 (99.9%)."""
    return f"{names[logits.argmax()]} ({logits.softmax(-1).max():.1%})"


def of_answer(model: VisionTransformer, image, trace: Trace, names, text: str, invitation: str) -> Still:
    """A picture in its patches, where the class token looks in the last block, and the answer."""

    def draw():
        left, middle, right = side_by_side(3, width=10, height=3.2)
        plot_grid(image, model.config.patch_size, title="the picture", ax=left)
        seen = trace.attention[-1, 0, :, 0, 1:].mean(0).reshape(model.config.rows, model.config.cols)
        plot_attention(image, seen, title="where the class token looks", ax=middle)
        return plot_probabilities(trace["output"][0].softmax(-1), names=names, title="the answer", ax=right)

    return Still(draw, text, invitation)


def of_steps(model: VisionTransformer, image, trace: Trace, names) -> Still:
    """The picture "steps"."""
    config = model.config
    text = (
        f"A picture is cut into {config.patches} patches, which become {config.tokens} tokens of {config.dim} numbers "
        f"with the class token. After {config.depth} blocks the model says {best(trace['output'][0], names)}."
    )
    return of_answer(model, image, trace, names, text, "see every step, and draw a digit of your own")


def of_order(model: VisionTransformer, image, trace: Trace, names) -> Still:
    """The picture "order"."""
    grid = f"{model.config.rows} x {model.config.cols}"
    text = f"An image in {grid} patches. The model says {best(trace['output'][0], names)}."
    return of_answer(model, image, trace, names, text, "drag a patch onto another, or shuffle them")


def of_cover(model: VisionTransformer, image, trace: Trace, names) -> Still:
    """The picture "cover"."""
    largest = trace.attention[-1, 0, :, 0, 1:].mean(0).topk(5).values.sum()
    text = (
        f"The model says {best(trace['output'][0], names)}. In its last block the class token gives {largest:.0%} of "
        f"its attention to 5 of {model.config.patches} patches."
    )
    return of_answer(model, image, trace, names, text, "cover patches, and see whether those matter most")


def of_pixels(image: Tensor, patch_size: int, at: int) -> Still:
    """The picture "pixels", whose pixel number `at` is chosen."""
    rows, (channels, height, width) = patchify(image[None], patch_size)[0], image.shape
    y, x = divmod(at, width)
    patch = y // patch_size * (width // patch_size) + x // patch_size
    text = (
        f"An image of {channels} x {height} x {width} numbers (channels, height, width) becomes {len(rows)} rows of "
        f"{rows.shape[1]} numbers. The pixel in row {y}, column {x} goes to patch {patch}, outlined, there to place "
        f"{y % patch_size * patch_size + x % patch_size}; its {'red ' * (channels > 1)}number is {image[0, y, x]:.4g}."
    )

    def draw():
        (left, right), small = side_by_side(2), channels == 1 and image.numel() <= 64
        marked = dict(patch_size=patch_size, marked={patch: "patch"}, title=f"patch {patch} of the picture", ax=left)
        if small:
            plot_image(image[0], numbers=True, **marked)
        else:
            plot_grid(image / max(1, image.max()), **marked)
        look = dict(numbers=small, colorbar=False, names=["red", "green", "blue"] if channels == 3 else [""])
        plot_matrix(rows[patch].reshape(channels, -1), title=f"its row of {rows.shape[1]} numbers", ax=right, **look)
        right.images[0].set_clim(0, image.max())  # a number has the colour that it has in the picture
        return right

    return Still(draw, text, "point at a pixel")


def of_embedding(model: VisionTransformer, image, token: Tensor, patch: int, number: int) -> Still:
    """The picture "embedding", of whose token of a patch one number is chosen."""
    config = model.config
    text = (
        f"An image of {config.rows} x {config.cols} patches. Patch {patch}, outlined, times a matrix of {config.dim} "
        f"filters gives its token of {config.dim} numbers, in rows of 16. Number {number}, in row {number // 16} and "
        f"column {number % 16}, is the largest in size: {token[number]:.2f}."
    )

    def draw():
        left, right = side_by_side(2)
        plot_grid(image, config.patch_size, marked={patch: "patch"}, title=f"patch {patch}", ax=left)
        lines = np.pad(token.numpy(), (0, -config.dim % 16)).reshape(-1, 16)
        return plot_matrix(lines, kind="signed", numbers=False, title="its token", ax=right)

    return Still(draw, text, "point at a patch and at a number")


def of_attention(image, maps: np.ndarray, tokens: int, blocks: tuple, heads: tuple, query: int | None) -> Still:
    """The picture "attention". maps: (heads rows cols) of a query, or of the class token. blocks, heads: the numbers of
    those shown, and how many there are."""
    (shown, of), (listed, count), (row, col) = blocks, heads, divmod(int(maps.mean(axis=0).argmax()), maps.shape[2])
    place = "row {}, column {}".format(*divmod(query or 0, maps.shape[2]))
    text = (
        f"Where {'the class token' if query is None else f'the patch in {place}'} looks"
        f"{f' in block {shown[-1]}' if of > 1 else ''}, a map for each of "
        f"{f'{len(listed)} of ' if len(listed) < count else ''}{count} heads. "
        f"{'On their mean, the' if len(listed) > 1 else 'The'} patch in row {row}, column {col} gets the most, "
        f"{maps.mean(axis=0).max():.2f}; shared out equally, each token would get {1 / tokens:.3f}. "
        f"On all maps black is 0 and pale yellow {maps.max():.2f}."
    )
    look = dict(titles=[f"head {head}" for head in listed], cols=min(5, len(listed)), query=query, first=True)
    return Still(lambda: plot_heads(image, maps, peak=float(maps.max()), **look), text, "point at a patch")


def of_arrows(keys: Tensor, values: Tensor, query: Tensor) -> Still:
    """The picture "arrows"."""
    weights = attention_weights(query[None], keys)
    output, weight = attend(weights, values)[0], weights[0].tolist()
    text = (
        f"A query ({query[0]:.2g}, {query[1]:.2g}) among {len(keys)} keys, and the weights that it gives them. The "
        f"output, the weighted sum of the values, is ({output[0]:.2f}, {output[1]:.2f})."
    )

    def draw():
        axes = side_by_side(2, width=8, height=4)
        for ax, one, title in zip(axes, "kv", ("the query and the keys", "the values and the output"), strict=True):
            vectors, single = (keys, query) if one == "k" else (values, output)
            ends = {f"{one}{number} ({weight[number]:.2f})": end for number, end in enumerate(vectors.tolist())}
            ends["query" if one == "k" else "output"] = single.tolist()
            roles = ["key" if one == "k" else "value"] * len(keys) + ["query" if one == "k" else "neutral"]
            for (name, end), role, thick in zip(ends.items(), roles, [*weight, 0.2], strict=True):
                look = dict(color=ROLES[role], arrowstyle="-|>", lw=2 + 4 * thick, shrinkA=0, shrinkB=0)
                ax.annotate("", end, (0, 0), arrowprops=look)
                low = name in ("query", "output") or end[1] < 0  # so that no two words meet
                sides = dict(ha="left" if end[0] >= 0 else "right", va="top" if low else "bottom")
                ax.text(*end, f" {name} ", size=11, **sides)
            low, high = np.min([[0, 0], *ends.values()], axis=0), np.max([[0, 0], *ends.values()], axis=0)
            middle, half = (low + high) / 2, 1.1 * max(high - low)
            limits = zip(middle - half, middle + half, strict=True)
            ax.set(title=title, aspect="equal", **dict(zip(("xlim", "ylim"), limits, strict=True)))
        return axes[0]

    return Still(draw, text, "drag the tip of the query")


def of_stream(model: VisionTransformer, images: Tensor, names: Sequence[str]) -> Still:
    """The picture "stream"."""
    said = logit_lens(model, images)[:, 0]
    stations = ["after embedding", *(f"after block {block}" for block in range(model.config.depth))]
    answers = "; ".join(f"{name}: {best(one, names)}" for name, one in zip(stations, said, strict=True))
    shown = dict(numbers=True, colorbar=False, names=stations, title="percent for each class", xlabel="class")
    invitation = "skip parts of the blocks, and see what the head says then"
    text = f"What the classification head would say {answers}."
    return Still(lambda: plot_matrix(100 * said.softmax(-1), **shown), text, invitation)


def of_parameters(model: VisionTransformer) -> Still:
    """The picture "parameters"."""
    groups, total, config = Counter(), count_parameters(model), model.config
    for name, one in model.named_parameters():
        part, _, *inside = name.split(".")
        groups[inside[0] if part == "blocks" else part] += one.numel()
    shares = "; ".join(f"{name} {count:,} ({100 * count / total:.2g}%)" for name, count in groups.items())
    text = f"The {total:,} numbers that a ViT with {config.depth} blocks of dim {config.dim} learns: {shares}."
    return Still(lambda: plot_bars(groups), text, "point at a part")


def of_run(steps: Sequence[int], kept: Mapping[str, Tensor], image, grid: tuple[int, int], box: Sequence[int]) -> Still:
    """The picture "run". kept: accuracy and maps of each moment. box: left, top, width, height of the object, or ()."""
    text = (
        f"A recorded training of {steps[-1]} steps: {kept['accuracy'][0]:.1%} of the validation images are right "
        f"before the first step, {kept['accuracy'][-1]:.1%} at the end."
    )

    def draw():
        left, *others = side_by_side(3, width=10, height=3.2)
        curve = {"accuracy": (steps, kept["accuracy"])}
        plot_curves(curve, role="patch", xlabel="step", title="right answers", ax=left)
        looks = kept["maps"][[0, -1], 0].unflatten(1, grid)
        for step, seen, ax in zip((steps[0], steps[-1]), looks, others, strict=True):
            plot_attention(image, seen, peak=looks.max().item(), title=f"a map at step {step:,}", ax=ax)
            if box:
                outline(ax, (box[1], box[0]), (box[3], box[2]), "white", line=1.5)
        return left

    return Still(draw, text, "drag along the curve")


def of_predict(question: str, answers: Sequence[str]) -> Still:
    """The picture "predict"."""
    lines = [line for words in (question, *(f"○  {answer}" for answer in answers)) for line in textwrap.wrap(words, 80)]

    def draw():
        (ax,) = side_by_side(1, width=7, height=0.3 * len(lines))
        ax.axis("off")
        ax.text(0, 1, "\n".join(lines), size=13, va="top", linespacing=1.6, transform=ax.transAxes)
        return ax

    text = f"{question} The answers to choose from are: {'; '.join(answers)}."
    return Still(draw, text, "tap the answer that you expect", speaks=True)
