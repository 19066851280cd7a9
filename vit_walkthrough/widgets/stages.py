"""Controls over one plot each. Whatever is turned is computed anew; nothing is chosen from pictures made beforehand.

Works on ipywidgets 7.7 and 8. A picture is an <img> in a widgets.HTML, which every front end shows once and nbval can
read, and every panel brings a still picture of its first state for pages on which no kernel runs.
"""

import base64
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from html import escape
from math import log, log2

import ipywidgets
import numpy as np
import torch
from einops import rearrange
from IPython.display import display
from jaxtyping import Float
from torch import Tensor

from vit_walkthrough import data
from vit_walkthrough.attention import MultiHeadSelfAttention, attention_weights
from vit_walkthrough.config import ViTConfig, divisors
from vit_walkthrough.explain import mass_on_object, occlusion, relevance, rollout
from vit_walkthrough.model import VisionTransformer, count_parameters
from vit_walkthrough.patches import patchify
from vit_walkthrough.plots import (
    plot_attention,
    plot_curves,
    plot_grid,
    plot_heads,
    plot_maps,
    plot_matrix,
    plot_patches,
    plot_probabilities,
    plot_similarity,
    render,
    side_by_side,
)
from vit_walkthrough.pretrained import bundled, load_checkpoint
from vit_walkthrough.tokens import resample_positions, sincos_positions
from vit_walkthrough.trace import record
from vit_walkthrough.training import Fitted, History, evaluate, fit, fresh

photo = cache(data.photo)


class Panel:
    """Controls, a picture that follows them and a sentence that says what it shows.

    draw: takes the controls' values by name; returns a Figure or Axes and the sentence.
    controls: by name. adapt: called with the controls before each drawing, to keep their limits valid.

    An error of `draw` is shown in the panel and raised again, so that a test sees it too.
    """

    def __init__(self, draw: Callable, controls: dict, adapt: Callable | None = None):
        self.draw, self.controls, self.adapt = draw, controls, adapt
        self.message, self.picture = ipywidgets.HTML(), ipywidgets.HTML()
        self.figure, self.text = None, ""
        self._drawing = False
        row = ipywidgets.HBox(list(controls.values()), layout=ipywidgets.Layout(flex_flow="row wrap"))
        self.box = ipywidgets.VBox([row, self.message, self.picture])
        for control in controls.values():
            control.observe(self.update, names="value")
        self.update()

    def update(self, change=None) -> None:
        """Draw what the controls now say."""
        if self._drawing:  # a limit that `adapt` moved has moved a value: it is read below
            return
        self._drawing = True
        try:
            with self.tell():
                if self.adapt:
                    self.adapt(self.controls)
                figure, text = self.draw(**self.chosen())
                png = base64.b64encode(render(figure, tight=False)).decode()
        finally:
            self._drawing = False
        self.message.value, self.figure, self.text = "", figure, text
        text = escape(text)
        self.picture.value = (
            f'<img alt="{text}" src="data:image/png;base64,{png}" style="max-width:100%;background:white">'
            f'<p aria-live="polite" style="max-width:52em;line-height:1.4">{text}</p>'
        )

    def chosen(self) -> dict:
        """The controls' values by name."""
        return {name: control.value for name, control in self.controls.items()}

    @contextmanager
    def tell(self):
        """Show an error in the panel, and raise it."""
        try:
            yield
        except Exception as error:
            words = escape(str(error) or type(error).__name__)
            self.message.value = f'<p role="alert" style="color:#a00000"><b>{words}</b></p>'
            raise

    def _ipython_display_(self) -> None:
        bundle = {
            "application/vnd.jupyter.widget-view+json": {
                "model_id": self.box.model_id,
                "version_major": 2,
                "version_minor": 0,
            },
            "image/png": base64.b64encode(render(self.figure, self.text, colours=256)).decode(),
            "text/plain": self.text,
        }
        display(bundle, raw=True, metadata={"image/png": {"alt": self.text}})


def _choice(description: str, options: Sequence, value) -> ipywidgets.SelectionSlider:
    """A slider over the values that are allowed, and no others."""
    return ipywidgets.SelectionSlider(
        options=list(options), value=value, description=description, continuous_update=False
    )


def _number(description: str, value: int, low: int, high: int) -> ipywidgets.IntSlider:
    return ipywidgets.IntSlider(value=value, min=low, max=high, description=description, continuous_update=False)


def _photo_choice() -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(options=list(data.PHOTOS), value=data.PHOTOS[0], description="photo")


def _keep_query_inside(controls: dict, rows: int, cols: int) -> None:
    controls["row"].max, controls["col"].max = rows - 1, cols - 1


def explore_patches(size: int = 224) -> Panel:
    """Patch size against the length of the sequence, on a photo of size x size pixels."""

    def draw(photo_name: str, patch_size: int):
        image = photo(photo_name, size)
        side, pixels = size // patch_size, 3 * patch_size**2
        patches, tokens = side**2, side**2 + 1
        left, right = side_by_side(2, width=8, height=3.9)
        plot_grid(image, patch_size, title=f"{side} rows of {side} patches" if side > 1 else "one patch", ax=left)
        plot_patches(patchify(image[None], patch_size)[0], side, number=False, title="pulled apart", ax=right)
        left.figure.subplots_adjust(0.01, 0.02, 0.99, 0.91, 0.06)
        return left, (
            f"Patches of {patch_size} x {patch_size} pixels: {side} * {side} = {patches:,} patches, with the class "
            f"token {tokens:,} tokens. One flattened patch is 3 * {patch_size} * {patch_size} = {pixels:,} numbers. "
            f"Attention will compare every token with every token: {tokens**2:,} pairs."
        )

    sizes = [side for side in divisors(size) if side >= 4]
    patch_size = _choice("patch size", sizes, 32 if 32 in sizes else sizes[len(sizes) // 2])
    return Panel(draw, {"photo_name": _photo_choice(), "patch_size": patch_size})


def explore_positions(side: int = 7, dim: int = 64, learned: Float[Tensor, "1 tokens dim"] | None = None) -> Panel:
    """How similar the position of one patch is to all others: for fixed and for learned positions, and after they were
    resampled from side x side patches to another grid. What all positions share, their mean, is taken away first.

    learned: the vectors to show; by default those of a model that was not trained.
    """
    if learned is None:
        learned = 0.02 * torch.randn(1, side**2 + 1, dim, generator=torch.Generator().manual_seed(0))
    if learned.shape[1] != side**2 + 1:
        raise ValueError(
            f"{learned.shape[1]} positions; {side} x {side} patches and the class token have {side**2 + 1}"
        )
    kinds = {"sines and cosines": sincos_positions(side, side, dim), "learned": learned.detach()}

    def adapt(controls: dict) -> None:
        _keep_query_inside(controls, controls["grid"].value, controls["grid"].value)

    def draw(kind: str, grid: int, row: int, col: int):
        positions = resample_positions(kinds[kind], grid, grid)[0, 1:]
        positions = positions - positions.mean(0)
        positions = torch.nn.functional.normalize(positions, dim=-1)
        similarity = positions @ positions.T
        query = row * grid + col
        left, right = side_by_side(2, width=8.6, height=3.9)
        plot_similarity(
            similarity, grid, grid, marked={query: "position"}, title="every patch with every patch", ax=left
        )
        tile = similarity[query].reshape(grid, grid)
        title = f"the tile of row {row}, column {col}"
        plot_matrix(tile, kind="similarity", numbers=False, colorbar=False, title=title, ax=right)
        right.set_aspect("equal")
        left.figure.subplots_adjust(0.07, 0.14, 0.97, 0.9, 0.3)
        others = similarity[query].round(decimals=4)  # of equals the first, whatever the last digits are
        others[query] = -2
        nearest = divmod(int(others.argmax()), grid)
        return left, (
            f"Positions for {side} x {side} patches"
            + (f", resampled to {grid} x {grid}" if grid != side else "")
            + f". The patch at row {row}, column {col} is 1.00 similar to itself; most similar to it is the one at row "
            f"{nearest[0]}, column {nearest[1]} ({others.max():.2f})."
        )

    controls = {
        "kind": ipywidgets.ToggleButtons(options=list(kinds), description="positions"),
        "grid": _number("grid", side, 3, 2 * side),
        "row": _number("row", side // 2, 0, side - 1),
        "col": _number("column", side // 2, 0, side - 1),
    }
    return Panel(draw, controls, adapt)


def explore_attention(
    image: Float[Tensor, "channels height width"] | None = None,
    queries: Float[Tensor, "patches head_dim"] | None = None,
    keys: Float[Tensor, "patches head_dim"] | None = None,
) -> Panel:
    """One head: where one query patch looks, and what the temperature does to its softmax.

    queries, keys: one row a patch of a square grid; by default both are the patches of the image themselves, each
    centred and scaled to unit variance, so that a patch looks for patches like itself.
    """
    image = photo("cat") if image is None else image
    if queries is None:
        patches = patchify(image[None], image.shape[-1] // 14)[0]
        queries = (patches - patches.mean(-1, keepdim=True)) / patches.std(-1, keepdim=True).clamp(min=1e-6)
    queries = queries.detach()
    keys = queries if keys is None else keys.detach()
    side = round(len(queries) ** 0.5)
    if side * side != len(queries) or len(keys) != len(queries):
        raise ValueError(f"{len(queries)} queries and {len(keys)} keys are not one for each patch of a square grid")

    def draw(row: int, col: int, temperature: float):
        query = row * side + col
        weights = attention_weights(queries[query : query + 1] / temperature, keys)[0]
        left, middle, right = side_by_side(3, width=9, height=3.1, ratios=(1, 1, 0.85))
        plot_grid(image, image.shape[-1] // side, marked={query: "query"}, title="the query", ax=left)
        plot_attention(image, weights.reshape(side, side), query=query, title="where it looks", ax=middle)
        ranked = weights.sort(descending=True).values
        plot_curves({"weight": (np.arange(1, len(ranked) + 1), ranked)}, xlabel="keys, the strongest first", ax=right)
        right.set(ylim=(0, 1.05 * float(ranked[0])), title="its softmax, sorted", xscale="log")
        left.figure.subplots_adjust(0.01, 0.2, 0.98, 0.9, 0.16)
        entropy = -(weights * weights.clamp(min=1e-12).log2()).sum()
        best = divmod(int(weights.argmax()), side)
        return left, (
            f"The query at row {row}, column {col} gives {weights.max():.3f} of its attention to the key at row "
            f"{best[0]}, column {best[1]} and {ranked[:5].sum():.3f} to the five strongest of {len(weights)} keys. "
            f"Entropy {entropy:.1f} bits; looking everywhere alike would be {log2(len(weights)):.1f}."
        )

    temperature = ipywidgets.FloatLogSlider(
        value=10**1.5, min=-1, max=2, step=0.1, description="temperature", continuous_update=False
    )
    row, col = _number("row", side // 2, 0, side - 1), _number("column", side // 2, 0, side - 1)
    return Panel(draw, {"row": row, "col": col, "temperature": temperature})


def explore_heads(
    image: Float[Tensor, "channels height width"] | None = None, dim: int = 48, patch_size: int = 16
) -> Panel:
    """The same width cut into more or fewer heads: what each looks at, and that the parameters stay as many.

    The heads are MultiHeadSelfAttention with random weights, fed with the normalised patches in `dim` random mixtures.
    """
    image = photo("cat") if image is None else image
    generator = torch.Generator().manual_seed(0)
    patches = patchify(image[None], patch_size)
    mixture = torch.randn(patches.shape[-1], dim, generator=generator) * patches.shape[-1] ** -0.5
    tokens = torch.nn.functional.layer_norm((patches - patches.mean((0, 1))) @ mixture, (dim,))
    rows, cols = image.shape[-2] // patch_size, image.shape[-1] // patch_size

    @cache
    def look(heads: int):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            attention = MultiHeadSelfAttention(dim, heads)
        with torch.no_grad(), record(attention, "weights") as trace:
            attention(tokens)
        return trace["weights"][0], count_parameters(attention)

    def draw(heads: int, row: int, col: int):
        weights, parameters = look(heads)
        query = row * cols + col
        maps = rearrange(weights[:, query], "heads (rows cols) -> heads rows cols", rows=rows)
        across = {8: 4, 16: 8, 24: 8}.get(heads, min(heads, 6 if heads <= 12 else 12))  # full rows
        titles = None if heads <= 12 else [""] * heads
        (ax,) = side_by_side(1, width=9, height=3.4 if heads > 6 else 2.6)
        plot_heads(image, maps, query=query, cols=across, titles=titles, ax=ax)
        ax.set_anchor("N")
        ax.figure.subplots_adjust(0.01, 0.01, 0.99, 0.99)
        return ax, (
            f"{heads} head{'s' * (heads > 1)} of head_dim {dim} / {heads} = {dim // heads}, {parameters:,} parameters. "
            f"Where the patch at row {row}, column {col} looks, head by head, with random weights: its strongest key "
            f"gets between {weights[:, query].amax(-1).min():.3f} and {weights[:, query].max():.3f}; "
            f"looking everywhere alike gives {1 / (rows * cols):.3f}."
        )

    controls = {
        "heads": _choice("heads", divisors(dim), 4 if dim % 4 == 0 else 1),
        "row": _number("row", rows // 2, 0, rows - 1),
        "col": _number("column", cols // 2, 0, cols - 1),
    }
    return Panel(draw, controls)


@cache
def _tiny(patch_size: int, heads: int) -> tuple[VisionTransformer, dict]:
    return load_checkpoint(bundled()[patch_size, heads])


@lru_cache(maxsize=128)
def _digit(picture: int) -> tuple[Tensor, int, Tensor]:
    """One test image (1 3 48 48), its label and its mask (1 48 48)."""
    image, label, mask = _test_digits().sample(1, draw=picture)
    return image, int(label), mask


@cache
def _test_digits() -> data.ClutteredDigits:
    return data.ClutteredDigits("test")


def _a(digit: int) -> str:
    return f"an {digit}" if digit == 8 else f"a {digit}"


def _bundled_controls(patch_size: int, heads: int) -> dict:
    """Patch size and heads among the tiny ViTs that come along, which are there in every combination."""
    sizes, counts = (sorted(set(kind)) for kind in zip(*bundled(), strict=True))
    return {"patch_size": _choice("patch size", sizes, patch_size), "heads": _choice("heads", counts, heads)}


def explore_vit(patch_size: int = 8, heads: int = 4) -> Panel:
    """The control panel: a trained VisionTransformer, what it says of a digit that it has never seen, and where it
    looked. Each patch size and number of heads is a model of its own, trained alike."""

    @lru_cache(maxsize=64)
    def look(picture: int, patch_size: int, heads: int) -> tuple[Tensor, Tensor]:
        model, _ = _tiny(patch_size, heads)
        with torch.no_grad(), record(model, "*.attention.weights") as trace:
            logits = model(_digit(picture)[0])
        return trace.attention[:, 0], logits[0].softmax(-1)

    def adapt(controls: dict) -> None:
        side = 48 // controls["patch_size"].value
        _keep_query_inside(controls, side, side)
        for name in ("row", "col"):
            controls[name].disabled = controls["query"].value == "class token"

    def draw(picture: int, patch_size: int, heads: int, layer: int, query: str, row: int, col: int):
        image, label, mask = _digit(picture)
        attention, probabilities = look(picture, patch_size, heads)
        side = 48 // patch_size
        token = 0 if query == "class token" else 1 + row * side + col
        weights = attention[layer - 1, :, token, 1:]
        maps = rearrange(weights, "heads (rows cols) -> heads rows cols", rows=side)
        left, middle, right = side_by_side(3, width=9.4, height=3.3, ratios=(1, {2: 1.8, 8: 1.9}.get(heads, 1), 0.6))
        marked = {token - 1: "query"} if token else None
        plot_grid(image[0], patch_size, marked=marked, title=f"{side} * {side} = {side**2} patches", ax=left)
        query_patch = token - 1 if token else None
        plot_heads(image[0], maps, query=query_patch, cols=heads if heads <= 2 else -(-heads // 2), ax=middle)
        plot_probabilities(probabilities, names=list("0123456789"), top=3, title="what it says", ax=right)
        left.figure.subplots_adjust(0.01, 0.03, 0.925, 0.9, 0.12)
        who = "the class token" if not token else f"the patch at row {row}, column {col}"
        share, area = mass_on_object(weights.mean(0, keepdim=True), mask), mask.float().mean()
        said, scores = int(probabilities.argmax()), _tiny(patch_size, heads)[1]
        return left, (
            f"This is {_a(label)}; the model says {said}, with {probabilities[said]:.1%}. Layer {layer}: where {who} "
            f"looks, in each of {heads} head{'s' * (heads > 1)}. {share.item():.0%} of what goes to patches goes to "
            f"those of the digit, whose square is {area:.0%} of the picture. With patches of {patch_size} pixels and "
            f"{heads} head{'s' * (heads > 1)} this ViT gets {scores['test_accuracy']:.1%} of "
            f"{scores['test_images']:,} unseen digits right."
        )

    side = 48 // patch_size
    controls = {
        "picture": _number("picture", 0, 0, 99),
        **_bundled_controls(patch_size, heads),
        "layer": _number("layer", 4, 1, 4),
        "query": ipywidgets.ToggleButtons(options=["class token", "patch"], description="query"),
        "row": _number("row", side // 2, 0, side - 1),
        "col": _number("column", side // 2, 0, side - 1),
    }
    return Panel(draw, controls, adapt)


def explore_maps(patch_size: int = 6, heads: int = 4) -> Panel:
    """Every way to say where a trained ViT looked, side by side, for any class one may ask about."""

    @lru_cache(maxsize=64)
    def look(picture: int, asked: int | None, patch_size: int, heads: int):
        model, image = _tiny(patch_size, heads)[0], _digit(picture)[0]
        with torch.no_grad(), record(model, "*.attention.weights") as trace:
            probabilities = model(image)[0].softmax(-1)
        classes = probabilities.argmax()[None] if asked is None else torch.tensor([asked])
        maps = {
            "last block": trace.attention[-1, :, :, 0, 1:].mean(dim=1),
            "rollout": rollout(trace.attention)[:, 0, 1:],
            "relevance": relevance(model, image, classes),
            "occlusion": occlusion(model, image, classes).clamp(min=0),
        }
        return probabilities, int(classes), maps

    def draw(picture: int, asked: int | None, patch_size: int, heads: int):
        image, label, mask = _digit(picture)
        probabilities, chosen, maps = look(picture, asked, patch_size, heads)
        (ax,) = side_by_side(1, width=9, height=2.5)
        tiles = {name: rearrange(each, "1 (rows cols) -> 1 rows cols", rows=48 // patch_size).numpy()
                 for name, each in maps.items()}  # fmt: skip
        plot_heads(image[0], np.concatenate(list(tiles.values())), titles=list(tiles), ax=ax)
        ax.figure.subplots_adjust(0.01, 0.02, 0.99, 0.98)
        shares = ", ".join(
            f"{name} {mass_on_object(each, mask).item():.0%}" if each.sum() > 0 else f"{name}: nothing"
            for name, each in maps.items()
        )
        return ax, (
            f"This is {_a(label)}; the model says {int(probabilities.argmax())} ({probabilities.max():.1%}). What "
            f"speaks for {_a(chosen)} ({probabilities[chosen]:.1%})? Of each map there lies on the digit: {shares}. "
            "The last block and the rollout do not ask which class is meant; relevance and occlusion do."
        )

    classes = [("what it says", None), *((str(digit), digit) for digit in range(10))]
    return Panel(
        draw,
        {
            "picture": _number("picture", 0, 0, 99),
            "asked": ipywidgets.Dropdown(options=classes, description="class"),
            **_bundled_controls(patch_size, heads),
        },
    )


def train_and_look(steps: int = 300) -> Panel:
    """Choose the sizes of a ViT, press the button, and watch it learn: its loss, and where it looks on digits that it
    has never seen. What was trained once is kept, and shown again when its sizes are chosen again.

    Interrupting the kernel ends a training early; the model that far is kept too.
    """
    digits = data.ClutteredDigits("train")
    known: dict[tuple, Fitted] = {}
    accuracy: dict[tuple, float] = {}

    def config(patch_size: int, heads: int, dim: int, depth: int) -> ViTConfig:
        return ViTConfig(48, patch_size, dim=dim, depth=depth, heads=heads, hidden=2 * dim, classes=10)

    @lru_cache(maxsize=16)
    def untrained(**sizes: int) -> VisionTransformer:
        return fresh(config(**sizes), digits).eval()

    def draw(picture: int, steps: int, **sizes):
        key = (steps, *sizes.values())
        model, history = known.get(key) or Fitted(untrained(**sizes), History())
        images, labels, masks = _test_digits().sample(4, draw=picture)
        with torch.no_grad(), record(model, "*.attention.weights") as trace:
            said = model(images.to(next(model.parameters()).device)).argmax(-1)
        seen = trace.attention[-1, :, :, 0, 1:].mean(dim=1).cpu()
        maps = {"it looks": rearrange(seen, "batch (rows cols) -> batch rows cols", rows=48 // sizes["patch_size"])}
        left, right = side_by_side(2, width=9, height=3.2, ratios=(1, 1.3))
        done = len(history.loss)
        curve = np.convolve(history.loss, np.ones(width := max(1, done // 30)) / width, "valid") if done else [log(10)]
        plot_curves({"loss": (np.arange(len(curve)) + done - len(curve), curve)}, xlabel="steps", ax=left)
        left.axhline(log(10), color="#999999", lw=1, ls=":")
        left.set(xlim=(0, steps), ylim=(0, 2.6), title="loss")
        titles = [f"{label}: says {word}" for label, word in zip(labels.tolist(), said.tolist(), strict=True)]
        plot_maps(images, maps, masks=masks, titles=titles, ax=right)
        left.figure.subplots_adjust(0.06, 0.18, 0.99, 0.88, 0.12)
        share = mass_on_object(seen, masks).mean()
        how = "not measured" if done == steps else "not trained to the end"
        how = f"{accuracy[key]:.1%} of 500 test images right" if key in accuracy else how
        return left, (
            f"{count_parameters(model):,} parameters, {done:,} of {steps:,} steps, {how}. On these four digits "
            f"{share:.0%} of what the class token gives to patches in the last block goes to the digit's square, "
            f"{masks.float().mean():.0%} of the picture. The dotted line is the loss of not knowing, ln 10."
        )

    controls = {
        "patch_size": _choice("patch size", [6, 8, 12, 16, 24], 12),
        "heads": _choice("heads", [1, 2, 4, 8], 4),
        "dim": _choice("dim", [16, 32, 64, 96], 64),
        "depth": _number("depth", 4, 1, 8),
        "steps": _choice("steps", sorted({100, 300, 1000, 2000, 4000, steps}), steps),
        "picture": _number("pictures", 0, 0, 99),
    }
    panel = Panel(draw, controls)
    button = ipywidgets.Button(description="train", button_style="primary")
    progress = ipywidgets.IntProgress(min=0, max=1, layout=ipywidgets.Layout(width="24em"))

    def train(_=None) -> None:
        chosen = panel.chosen()
        steps, _ = chosen.pop("steps"), chosen.pop("picture")
        key = (steps, *chosen.values())

        def watch(step: int, model: VisionTransformer, history: History) -> None:
            progress.value = step
            if step % max(1, steps // 10) == 0:
                known[key] = Fitted(model, history)
                panel.update()

        accuracy.pop(key, None)
        progress.max, button.disabled = steps, True
        try:
            with panel.tell():
                known[key] = fit(config(**chosen), digits, steps=steps, watch=watch, progress=False)
                if len(known[key].history.loss) == steps:
                    accuracy[key] = evaluate(known[key].model, _test_digits(), 500)
            panel.update()
        finally:
            progress.value, button.disabled = 0, False

    button.on_click(train)
    panel.train = train
    row, *rest = panel.box.children
    panel.box.children = (row, ipywidgets.HBox([button, progress]), *rest)
    return panel
