"""Panels over trained models: the tiny ViTs that come along, and those that the reader trains by pressing a button."""

from copy import deepcopy
from functools import cache, lru_cache
from math import log

import ipywidgets
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vit_walkthrough import data
from vit_walkthrough.draw.images import plot_attention, plot_grid, plot_heads, plot_maps
from vit_walkthrough.draw.plots import plot_curves, plot_distributions, plot_probabilities, plot_scatter, side_by_side
from vit_walkthrough.look.explain import mass_on_object, occlusion, relevance, rollout
from vit_walkthrough.look.trace import record
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.patches import patchify, unpatchify
from vit_walkthrough.model.vit import VisionTransformer, count_parameters
from vit_walkthrough.train.finetune import adapt
from vit_walkthrough.train.loop import Fitted, History, evaluate, fit, init_model
from vit_walkthrough.weights.checkpoint import bundled, load_checkpoint, load_tiny
from vit_walkthrough.widgets.panel import Panel, choice, number, query_at, toggle
from vit_walkthrough.widgets.pictures import TINY_SIZE, PictureChooser, digit, picture, unseen_digits

DIGITS = list("0123456789")


@cache
def _tiny(patch_size: int, heads: int) -> tuple[VisionTransformer, dict]:
    if (patch_size, heads) not in bundled():
        load_tiny(patch_size, heads)  # which says what there is
    return load_checkpoint(bundled()[patch_size, heads])


def _a(digit: int) -> str:
    return f"an {digit}" if digit == 8 else f"a {digit}"


def _bundled_controls(patch_size: int, heads: int) -> dict:
    """Patch size and heads among the tiny ViTs that come along, which are there in every combination."""
    _tiny(patch_size, heads)  # whose error says what there is
    sizes, counts = (sorted(set(kind)) for kind in zip(*bundled(), strict=True))
    return {"patch_size": choice("patch size", sizes, patch_size), "heads": choice("heads", counts, heads)}


@torch.no_grad()
def _share_right(model: VisionTransformer, images: Tensor, labels: Tensor) -> float:
    return (model(images).argmax(-1) == labels).float().mean().item()


def _digit_choice() -> ipywidgets.IntSlider:
    return number("digit no.", 0, 0, 99)


def explore_pooling(patch_size: int = 8, heads: int = 4) -> Panel:
    """Class token or mean of the patches: what each knows of the digit after every block of a ViT that was trained to
    answer from its class token. A linear classifier (discriminant analysis) is fitted to digits of the training split
    and asked about unseen ones; its first two axes are the picture."""

    def stations(split: str, count: int) -> tuple[list[np.ndarray], np.ndarray]:
        """After 0, 1, ... blocks: (images, tokens, dim); and the labels."""
        images, labels, _ = data.ClutteredDigits(split, augment=False).sample(count, draw=0)
        with torch.no_grad(), record(_tiny(patch_size, heads)[0], "blocks.0.norm_1.input", "blocks.?") as trace:
            _tiny(patch_size, heads)[0](images)
        return [tokens.numpy() for tokens in trace.values()], labels.numpy()

    fitted, asked = stations("train", 600), stations("test", 300)

    @cache
    def learn(blocks: int, pool: str) -> tuple[np.ndarray, float]:
        """Where the unseen digits lie, (images, 2), and the share of them that the classifier names."""
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        known, unseen = (
            tokens[blocks][:, 0] if pool == "class token" else tokens[blocks][:, 1:].mean(axis=1)
            for tokens, _ in (fitted, asked)
        )
        if np.ptp(known, axis=0).max() < 1e-5:  # the same for every picture: there is nothing to read
            return np.zeros((len(unseen), 2)), float((asked[1] == np.bincount(fitted[1]).argmax()).mean())
        classifier = LinearDiscriminantAnalysis(n_components=2).fit(known, fitted[1])
        return classifier.transform(unseen), classifier.score(unseen, asked[1])

    def draw(blocks: int):
        left, right = side_by_side(2, width=8.6, height=4.1)
        shares = []
        for ax, pool in ((left, "class token"), (right, "mean of the patches")):
            places, share = learn(blocks, pool)
            shares.append(share)
            plot_scatter(places, asked[1], title=f"{pool}: {share:.0%} named right", ax=ax)
        left.figure.subplots_adjust(0.01, 0.02, 0.99, 0.91, 0.04)
        return left, (
            f"After {blocks} of 4 blocks: 300 unseen digits. A linear classifier, fitted to 600 others, names "
            f"{shares[0]:.0%} of them right from the class token, {shares[1]:.0%} from the mean of the patches; "
            "guessing gives about 10%. The picture shows the two directions in which it tells the digits apart best."
        )

    return Panel(
        draw,
        {"blocks": number("after block", 4, 0, 4)},
        hint="Try: go back block by block, to 0. Notice: before the first block the class token is the same for every "
        "picture; whatever it says later it has head_outputs from the patches.",
    )


ADDED = "added"


def explore_order(patch_size: int = 8, heads: int = 4) -> Panel:
    """Move the patches of a digit, with positions added to the tokens and without: what does a trained ViT say?"""
    model = _tiny(patch_size, heads)[0]
    blind = deepcopy(model)
    blind.position_embedding = nn.Identity()
    readers, patches = {ADDED: model, "left out": blind}, model.config.patches
    images, labels, _ = unseen_digits().sample(128, draw=0)

    def moved(images: Tensor, count: int) -> Tensor:
        """The images in which `count` patches, in each the same, have changed places in a ring."""
        chosen = torch.randperm(patches, generator=torch.Generator().manual_seed(1))[:count]
        order = torch.arange(patches)
        order[chosen] = chosen.roll(1)
        return unpatchify(patchify(images, patch_size)[:, order], patch_size, TINY_SIZE, TINY_SIZE)

    @cache
    def right(count: int, positions: str) -> float:
        return _share_right(readers[positions], moved(images, count), labels)

    @lru_cache(maxsize=64)
    @torch.no_grad()
    def say(place: int, count: int, positions: str) -> tuple[Tensor, Tensor]:
        image = moved(digit(place)[0], count)
        return image[0], readers[positions](image)[0].softmax(-1)

    def draw(place: int, count: int, positions: str):
        axes = side_by_side(4, width=9.4, height=2.9, ratios=(1, 0.55, 1, 0.55))
        said = []
        for moves, title, (left, beside) in (
            (0, "in order", axes[:2]),
            (count, f"{count} patches moved", axes[2:]),
        ):
            image, probabilities = say(place, moves, positions)
            said.append(probabilities)
            plot_grid(image, patch_size, title=title, ax=left)
            plot_probabilities(probabilities, names=DIGITS, top=3, title="it says", ax=beside)
        axes[0].figure.subplots_adjust(0.01, 0.03, 0.92, 0.88, 0.3)
        (before, after), label = said, digit(place)[1]
        return axes[0], (
            f"{_a(label).capitalize()}, positions {positions}. In order the model says {int(before.argmax())} "
            f"({before.max():.1%}), with {count} of {patches} patches moved {int(after.argmax())} ({after.max():.1%}); "
            f"no probability changes by more than {(after - before).abs().max():.4f}. Of 128 unseen digits it "
            f"names {right(0, positions):.0%} in order and {right(count, positions):.0%} with these patches moved."
        )

    return Panel(
        draw,
        {
            "place": number("digit no.", 4, 0, 99),  # of the first few the one whose answer hangs on the order
            "count": choice("moved", [*(some for some in (0, 2, 4, 8, 16) if some < patches), patches], patches),
            "positions": toggle("positions", ADDED, "left out"),
        },
        hint="Try: leave the positions out; then move fewer and fewer patches. Notice: without positions nothing "
        "changes, whatever you move, and most answers stay right, though it was trained with them. With positions "
        "most digits survive even when all patches are moved: this ViT reads strokes more than places.",
    )


RESAMPLED = "resampled"


def explore_resolution(patch_size: int = 8, heads: int = 4) -> Panel:
    """A ViT trained at 48 pixels reads the same digits at other resolutions, with its positions resampled as a picture,
    or kept in a row and cut off or filled up with zeros."""
    model = _tiny(patch_size, heads)[0]
    learned, sides = model.position_embedding.positions.detach(), TINY_SIZE // patch_size
    images, labels, _ = unseen_digits().sample(64, draw=0)

    @cache
    def at(size: int, kind: str) -> VisionTransformer:
        resized = adapt(model, image_size=size)
        if kind != RESAMPLED:
            missing = max(0, resized.config.tokens - learned.shape[1])
            resized.position_embedding.positions.data = F.pad(learned, (0, 0, 0, missing))[:, : resized.config.tokens]
        return resized

    def scaled(images: Tensor, size: int) -> Tensor:
        return F.interpolate(images, (size, size), mode="bicubic", antialias=True).clamp(0, 1)

    @cache
    def right(size: int, kind: str) -> float:
        return _share_right(at(size, kind), scaled(images, size), labels)

    @lru_cache(maxsize=64)
    @torch.no_grad()
    def look(place: int, size: int, kind: str) -> tuple[Tensor, Tensor, Tensor]:
        reader, image = at(size, kind), scaled(digit(place)[0], size)
        with record(reader, "*.attention.weights") as trace:
            probabilities = reader(image)[0].softmax(-1)
        return image[0], trace.attention[-1, 0, :, 0, 1:].mean(0), probabilities

    def draw(place: int, size: int, kind: str):
        image, seen, probabilities = look(place, size, kind)
        side, label = size // patch_size, digit(place)[1]
        axes = side_by_side(3, width=9, height=3.2, ratios=(1, 1, 0.7))
        plot_grid(image, patch_size, title=f"{size} pixels: {side} * {side} patches", ax=axes[0])
        plot_attention(image, seen.reshape(side, side), title="the class token looks", ax=axes[1])
        plot_probabilities(probabilities, names=DIGITS, top=3, title="what it says", ax=axes[2])
        axes[0].figure.subplots_adjust(0.01, 0.03, 0.92, 0.9, 0.12)
        return axes[0], (
            f"{_a(label).capitalize()} at {size} x {size} pixels; the model was trained at {TINY_SIZE}. Its "
            f"{len(learned[0])} positions, {kind}, serve {side**2 + 1} tokens. It says {int(probabilities.argmax())} "
            f"({probabilities.max():.1%}); at this size it gets {right(size, kind):.0%} of 64 unseen digits right."
        )

    return Panel(
        draw,
        {
            "place": _digit_choice(),
            "size": choice(
                "pixels", [side * patch_size for side in range(sides // 2, 2 * sides + 1)], patch_size * (sides + 2)
            ),
            "kind": toggle("positions", RESAMPLED, "cut or filled up"),
        },
        hint="Try: 72 and 32 pixels, with the positions resampled and not; then other sizes and digits. Notice: cut or "
        "filled up they slip, for a row of the new grid has another length than one of the old; resampled, they fit. "
        "That even so fewer digits are right far from 48 is mostly not theirs: the digit grows with the picture, and "
        "a patch holds another piece of it than in training.",
    )


def explore_activation(patch_size: int = 8, heads: int = 4) -> Panel:
    """What the GELU of a trained ViT is given and lets through, and what becomes of the answers if a ReLU takes its
    place in every block."""
    images, labels, _ = unseen_digits().sample(128, draw=0)
    models = {"GELU": _tiny(patch_size, heads)[0], "ReLU": deepcopy(_tiny(patch_size, heads)[0])}
    for block in models["ReLU"].blocks:
        block.mlp.gelu = nn.ReLU()

    def respond(activation: str, given: Tensor) -> tuple[Tensor, Tensor]:
        """What comes out, and the slope there: what a gradient is multiplied by on its way back."""
        given = given.detach().requires_grad_()
        out = models[activation].blocks[0].mlp.gelu(given)
        return out.detach(), torch.autograd.grad(out.sum(), given)[0]

    @cache
    def run(activation: str) -> tuple[list[Tensor], float]:
        """What the activation of each block is given, (images tokens hidden), and the share of right answers."""
        with record(models[activation], "*.mlp.expand") as trace:
            share = _share_right(models[activation], images, labels)
        return list(trace.values()), share

    @cache
    def measure(block: int, activation: str) -> tuple[Tensor, float, float]:
        """How often each hidden unit is positive, sorted; the share of what is negative, and of what meets no slope."""
        given = run(activation)[0][block - 1]
        often = (given > 0).float().mean((0, 1)).sort(descending=True).values
        flat = respond(activation, given)[1].abs() < 0.01
        return often, (given < 0).float().mean().item(), flat.float().mean().item()

    def draw(block: int, activation: str):
        given, share = run(activation)
        often, negative, flat = measure(block, activation)
        x = torch.linspace(-4, 4, 161)
        out, slope = respond(activation, x)
        left, middle, right = side_by_side(3, width=9.4, height=3.1)
        plot_curves({"what comes out": (x, out), "its slope": (x, slope)}, title=activation, ax=left)
        left.set(xlabel="what goes in", ylim=(-0.5, 4.2), xticks=(-4, 0, 4), yticks=(0, 1, 4))
        sample = {"given": given[block - 1][:, ::4].clamp(-4, 4)}
        plot_distributions(sample, bins=40, xlabel="what goes in", title=f"what block {block} gives it", ax=middle)
        middle.set(xticks=(-4, 0, 4), yticks=())  # few labels: each takes its time
        places = torch.arange(1, len(often) + 1)
        plot_curves({"often": (places, often)}, title="how often positive", xlabel="hidden units, sorted", ax=right)
        right.set(ylim=(0, 1), xticks=(1, len(often)), yticks=(0, 1))
        left.figure.subplots_adjust(0.04, 0.2, 0.99, 0.88, 0.24)
        return left, (
            f"{activation} in block {block}: {negative:.0%} of what goes in is negative, and for {flat:.0%} the slope "
            f"is nearly none (below 0.01), so that no gradient comes back there. With {activation} in every block this "
            f"ViT, which was trained with GELU, names {share:.0%} of 128 unseen digits right."
        )

    return Panel(
        draw,
        {"block": number("block", 2, 1, 4), "activation": toggle("activation", *models)},
        hint="Try: ReLU instead of GELU, in each block. Notice: they look alike and most of what they get is negative; "
        "but ReLU lets no gradient back from there, and a model trained with one is not at its best with the other.",
    )


def explore_vit(patch_size: int = 8, heads: int = 4) -> Panel:
    """The control panel: a trained VisionTransformer, what it says of a digit that it has never seen, of a photograph
    or of the reader's own picture, and where it looked. Each patch size and number of heads is a model of its own,
    trained alike; what does not go together cannot be chosen."""

    @lru_cache(maxsize=64)
    def look(chosen: tuple, patch_size: int, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        model, image = _tiny(patch_size, heads)[0], picture(chosen)[0]
        with torch.no_grad(), record(model, "*.attention.weights") as trace:
            probabilities = model(image)[0].softmax(-1)
        return trace.attention[:, 0], probabilities, relevance(model, image, probabilities.argmax()[None])[0]

    def adapt(controls: dict) -> None:
        side, heads, method = (
            TINY_SIZE // controls["patch_size"].value,
            controls["heads"].value,
            controls["method"].value,
        )
        fit_query(side, side)
        head = controls["head"]
        options = ("all", *range(heads))
        if head.options != options:
            kept = head.value if head.value in options else "all"
            head.options, head.value = options, kept
        head.disabled = method != "attention" or heads == 1
        controls["layer"].disabled = controls["query"].disabled = method == "relevance"
        for name in ("row", "col"):
            controls[name].disabled = method == "relevance" or controls["query"].value == "class token"

    def draw(
        chosen: tuple, patch_size: int, heads: int, method: str, layer: int, head: int | str, query: str,
        row: int, col: int,
    ):  # fmt: skip
        image, label, mask = picture(chosen)
        attention, probabilities, relevant = look(chosen, patch_size, heads)
        side = TINY_SIZE // patch_size
        token = 0 if query == "class token" or method == "relevance" else 1 + row * side + col
        said, scores = int(probabilities.argmax()), _tiny(patch_size, heads)[1]
        who = f"the patch at row {row}, column {col}" if token else "the class token"
        if method == "relevance":
            weights, titles = relevant[None], [f"what speaks for {_a(said)}"]
            told = f"Relevance: which patches speak for {_a(said)}, through all blocks and heads."
        elif method == "rollout":
            weights, titles = rollout(attention[:layer, None])[:, token, 1:], [f"rollout, blocks 1 to {layer}"]
            told = f"Rollout: from where {who} has head_outputs in blocks 1 to {layer}, all heads together."
        else:
            of_head = slice(None) if head == "all" else slice(head, head + 1)
            weights = attention[layer - 1, of_head, token, 1:]
            titles = [f"head {one}" for one in range(heads)][of_head]
            told = f"Attention in block {layer}: where {who} looks, in " + (
                f"each of {heads} heads." if len(weights) > 1 else f"{titles[0]}."
            )
        maps = rearrange(weights, "maps (rows cols) -> maps rows cols", rows=side)
        wide = {2: 1.8, 8: 1.9}.get(len(maps), 1)
        left, middle, right = side_by_side(3, width=9.4, height=3.3, ratios=(1, wide, 0.6))
        place = token - 1 if token else None
        plot_grid(image[0], patch_size, marked={place: "query"} if token else None,
                  title=f"{side} * {side} = {side**2} patches", ax=left)  # fmt: skip
        across = len(maps) if len(maps) <= 2 else -(-len(maps) // 2)
        plot_heads(image[0], maps, query=place, titles=titles, cols=across, ax=middle)
        plot_probabilities(probabilities, names=DIGITS, top=3, title="what it says", ax=right)
        left.figure.subplots_adjust(0.01, 0.03, 0.925, 0.9, 0.12)
        if mask is None:
            seen = "this picture" if chosen[0] == "own" else f"the {chosen[0]}"
            what = f"This ViT knows digits and nothing else: of {seen} it says"
            where = ""
        else:
            what = f"This is {_a(label)}; the model says"
            share = mass_on_object(weights.mean(0, keepdim=True), mask) if weights.sum() > 0 else torch.zeros(1)
            where = (
                f" {share.item():.0%} of what goes to patches goes to those of the digit, whose square is "
                f"{mask.float().mean():.0%} of the picture."
            )
        return left, (
            f"{what} {said}, with {probabilities[said]:.1%}. {told}{where} With patches of {patch_size} pixels and "
            f"{heads} head{'s' * (heads > 1)} this ViT gets {scores['test_accuracy']:.1%} of "
            f"{scores['test_images']:,} unseen digits right."
        )

    query, fit_query = query_at(TINY_SIZE // patch_size, TINY_SIZE // patch_size)
    controls = {
        "chosen": PictureChooser(),
        **_bundled_controls(patch_size, heads),
        "method": toggle("method", "attention", "rollout", "relevance"),
        "layer": number("layer", 4, 1, 4),
        "head": ipywidgets.Dropdown(options=["all"], description="head"),
        "query": toggle("query", "class token", "patch"),
        **query,
    }
    return Panel(
        draw,
        controls,
        adapt,
        hint="Try: another digit, the layers one by one, a patch as the query; a digit of your own, written about half "
        "as high as the picture. Notice: how soon it looks at the digit, and where an empty patch looks.",
    )


SAID = "what it says"


def explore_maps(patch_size: int = 6, heads: int = 4) -> Panel:
    """Every way to say where a trained ViT looked, side by side, for any class one may ask about."""

    @lru_cache(maxsize=64)
    def look(place: int, asked: int | str, patch_size: int, heads: int):
        model, image = _tiny(patch_size, heads)[0], digit(place)[0]
        with torch.no_grad(), record(model, "*.attention.weights") as trace:
            probabilities = model(image)[0].softmax(-1)
        classes = probabilities.argmax()[None] if asked == SAID else torch.tensor([asked])
        maps = {
            "last block": trace.attention[-1, :, :, 0, 1:].mean(dim=1),
            "rollout": rollout(trace.attention)[:, 0, 1:],
            "relevance": relevance(model, image, classes),
            "occlusion": occlusion(model, image, classes).clamp(min=0),
        }
        return probabilities, int(classes), maps

    def draw(place: int, asked: int | str, patch_size: int, heads: int):
        image, label, mask = digit(place)
        probabilities, chosen, maps = look(place, asked, patch_size, heads)
        (ax,) = side_by_side(1, width=9, height=2.5)
        tiles = {name: rearrange(each, "1 (rows cols) -> 1 rows cols", rows=TINY_SIZE // patch_size).numpy()
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
            f"Covering its strongest patch takes {maps['occlusion'].max():.2%} from that class. The last block and the "
            "rollout do not ask which class is meant; relevance and occlusion do."
        )

    classes = [(SAID, SAID), *((name, int(name)) for name in DIGITS)]
    return Panel(
        draw,
        {
            "place": _digit_choice(),
            "asked": ipywidgets.Dropdown(options=classes, description="class"),
            **_bundled_controls(patch_size, heads),
        },
        hint="Try: ask for a class that it does not name. Notice: the first two maps stay, for nobody asked them; "
        "relevance moves to what speaks for that class. Occlusion can only say something of a class that has some "
        "probability to lose: see how much its strongest patch takes away.",
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
        return ViTConfig(TINY_SIZE, patch_size, dim=dim, depth=depth, heads=heads, hidden=2 * dim, classes=10)

    @lru_cache(maxsize=16)
    def untrained(**sizes: int) -> VisionTransformer:
        return init_model(config(**sizes), digits).eval()

    def draw(picture: int, steps: int, **sizes):
        key = (steps, *sizes.values())
        model, history = known.get(key) or Fitted(untrained(**sizes), History())
        images, labels, masks = unseen_digits().sample(4, draw=picture)
        with torch.no_grad(), record(model, "*.attention.weights") as trace:
            said = model(images.to(next(model.parameters()).device)).argmax(-1)
        seen = trace.attention[-1, :, :, 0, 1:].mean(dim=1).cpu()
        maps = {
            "it looks": rearrange(seen, "batch (rows cols) -> batch rows cols", rows=TINY_SIZE // sizes["patch_size"])
        }
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
        how = "not measured" if done == steps else "not trained to the end" if done else "not trained yet"
        how = f"{accuracy[key]:.1%} of 500 test images right" if key in accuracy else how
        return left, (
            f"{count_parameters(model):,} parameters, {done:,} of {steps:,} steps, {how}. On these four digits "
            f"{share:.0%} of what the class token gives to patches in the last block goes to the digit's square, "
            f"{masks.float().mean():.0%} of the picture. The dotted line is the loss of not knowing, ln 10."
        )

    controls = {
        "patch_size": choice("patch size", [6, 8, 12, 16, 24], 12),
        "heads": choice("heads", [1, 2, 4, 8], 4),
        "dim": choice("dim", [16, 32, 64, 96], 64),
        "depth": number("depth", 4, 1, 8),
        "steps": choice("steps", sorted({100, 300, 1000, 2000, 4000, steps}), steps),
        "picture": number("pictures", 0, 0, 99),
    }
    panel = Panel(
        draw,
        controls,
        hint="Try: press train; then one head instead of four, or one block instead of four, and train again. To stop "
        "early, interrupt the kernel: the model that far is kept. Notice: how long the loss stays on the dotted line, "
        "and whether the maps find the digit before the names come right.",
    )
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

        if key in accuracy:  # a second press has waited while the first one trained
            return
        progress.max, button.disabled = steps, True
        try:
            with panel.tell():
                if key not in known or len(known[key].history.loss) < steps:
                    known[key] = fit(config(**chosen), digits, steps=steps, watch=watch, progress=False)
                try:
                    if len(known[key].history.loss) == steps:
                        accuracy[key] = evaluate(known[key].model, unseen_digits(), 500)
                finally:  # who interrupts the measuring still has the model
                    panel.update()
        finally:
            progress.value, button.disabled = 0, False

    button.on_click(train)
    panel.train = train
    hint, row, *rest = panel.box.children
    panel.box.children = (hint, row, ipywidgets.HBox([button, progress]), *rest)
    return panel
