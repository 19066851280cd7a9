"""Panels over single stages with weights that were not trained: what is turned is the stage's own computation."""

from collections import Counter
from dataclasses import replace
from functools import cache, lru_cache
from math import log2

import ipywidgets
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import layer_norm, normalize

from vit_walkthrough import data, draw
from vit_walkthrough.look.trace import record
from vit_walkthrough.model.attention import MultiHeadSelfAttention, attention_weights
from vit_walkthrough.model.config import SIZES, ViTConfig, divisors
from vit_walkthrough.model.encoder import Encoder
from vit_walkthrough.model.patches import PatchEmbedding, patchify
from vit_walkthrough.model.tokens import ClassToken
from vit_walkthrough.model.vit import VisionTransformer, count_parameters
from vit_walkthrough.train.loop import seeded
from vit_walkthrough.widgets.panel import Panel, axes_row, choice, counted, menu, number, query_at, toggle
from vit_walkthrough.widgets.pictures import photo


def _random(build, *sizes):
    """A module with the weights of seed 0. The global random generator is left untouched."""
    with seeded(0):
        return build(*sizes).eval()


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


def explore_attention(
    image: Float[Tensor, "channels height width"],
    queries: Float[Tensor, "patches head_dim"],
    keys: Float[Tensor, "patches head_dim"],
) -> Panel:
    """One head: where one query patch looks, and what the scale 1 / sqrt(head_dim) and a temperature do to its softmax.

    queries, keys: one row for each patch of a square grid.

    Raises: ValueError if queries and keys are not those of one square grid.
    """
    queries, keys = queries.detach(), keys.detach()
    side, head_dim = round(len(queries) ** 0.5), queries.shape[-1]
    if side * side != len(queries) or len(keys) != len(queries):
        raise ValueError(f"{len(queries)} queries and {len(keys)} keys; give one of each for every patch of a square")

    def show(row: int, col: int, scores: str, temperature: float):
        query = row * side + col
        factor = head_dim**0.5 if scores == "as they are" else 1  # attention_weights divides by it
        weights = attention_weights(queries[query : query + 1] * factor / temperature, keys)[0]
        ranked = weights.sort(descending=True).values[:50]
        axes = axes_row(3, width=9, height=3.1, margins=(0.01, 0.2, 0.98, 0.9, 0.16), ratios=(1, 1, 0.85))
        draw.plot_grid(image, image.shape[-1] // side, marked={query: "query"}, title="the query", ax=axes[0])
        draw.plot_attention(image, weights.reshape(side, side), query=query, title="where it looks", ax=axes[1])
        curve = (range(1, len(ranked) + 1), ranked)
        draw.plot_curves({"weight": curve}, xlabel="keys, the strongest first", ax=axes[2])
        axes[2].set(ylim=(0, 1.05 * float(ranked[0])), title="its softmax, sorted")
        entropy = (weights * weights.clamp(min=1e-12).log2()).sum().abs()
        best_row, best_col = divmod(int(weights.argmax()), side)
        return axes[0], (
            f"head_dim {head_dim}, temperature {temperature:.3g}. The query at row {row}, column {col} gives "
            f"{ranked[0]:.3f} of its attention to the key at row {best_row}, column {best_col} and "
            f"{ranked[:5].sum():.3f} to the five strongest of {len(weights)} keys. The entropy is {entropy:.1f} bits; "
            f"equal attention to every key would give {log2(len(weights)):.1f}."
        )

    named = dict(description="temperature", continuous_update=False, style={"description_width": "initial"})
    return Panel(
        show,
        **query_at(side)[0],
        scores=toggle("scores", "divided by √head_dim", "as they are"),
        temperature=ipywidgets.FloatLogSlider(value=10.0, min=-1, max=2, step=0.1, **named),
        hint="Try: an eye, a whisker, the nose. Then the scores as they are, not divided by √head_dim. Then the "
        "temperature, which divides them too: a ViT's is 1, and here it begins at 10. Notice: undivided, one key wins "
        "everything. The entropy says how near that is: 0 bits mean one key alone.",
    )


def explore_heads() -> Panel:
    """The same width cut into more or fewer heads: what each looks at, and that the parameters stay as many. The heads
    have random weights. They read the cat's patches, normalised, in 48 random mixtures."""
    image, dim, side = photo("cat"), 48, 14
    patches = patchify(image[None], 16)
    mixture = torch.randn(patches.shape[-1], dim, generator=torch.Generator().manual_seed(0))
    tokens = layer_norm((patches - patches.mean((0, 1))) @ mixture * patches.shape[-1] ** -0.5, (dim,))

    @cache
    def look(heads: int) -> tuple[Tensor, int]:
        attention = _random(MultiHeadSelfAttention, dim, heads)
        with torch.no_grad(), record(attention, "weights") as trace:
            attention(tokens)
        return trace["weights"][0], count_parameters(attention)

    def show(heads: int, row: int, col: int):
        weights, parameters = look(heads)
        query = row * side + col
        maps = rearrange(weights[:, query], "heads (rows cols) -> heads rows cols", rows=side)
        across = {8: 4, 16: 8, 24: 8}.get(heads, min(heads, 6 if heads <= 12 else 12))  # full rows
        titles = None if heads <= 12 else [""] * heads
        (ax,) = axes_row(1, width=9, height=3.4 if heads > 6 else 2.6, margins=(0.01, 0.01, 0.99, 0.99, 0))
        draw.plot_heads(image, maps, query=query, cols=across, titles=titles, ax=ax)
        ax.set_anchor("N")
        strongest = maps.amax((1, 2))
        return ax, (
            f"{counted(heads, 'head')} of head_dim {dim} / {heads} = {dim // heads}, {parameters:,} parameters. The "
            f"maps show where the patch at row {row}, column {col} looks, head by head, with random weights. Its "
            f"strongest key gets between {strongest.min():.3f} and {strongest.max():.3f} of the attention; equal "
            f"attention would give {1 / side**2:.3f}."
        )

    return Panel(
        show,
        heads=choice("heads", divisors(dim), 4),
        **query_at(side)[0],
        hint="Try: 1 head, 4, 48; another query. Notice: the number of parameters stays, and head_dim shrinks. "
        "Narrower heads differ more: the strongest key of some gets four times what it gets in others.",
    )


def explore_depth() -> Panel:
    """What blocks on blocks do to the tokens of a photo, with and without the sum that carries them along, and with the
    norm before, after or nowhere. The blocks are the package's, with random weights, their parts called one by one."""
    dim, deepest = 64, 24
    blocks = _random(Encoder, deepest, dim, 4, 4 * dim)

    @lru_cache(maxsize=64)
    @torch.no_grad()
    def walk(photo_name: str, stream: str, norm: str) -> Float[Tensor, "stations tokens dim"]:
        patches = _random(PatchEmbedding, 32, 3, dim)(photo(photo_name)[None])
        patches = patches - patches.mean(1, keepdim=True)  # or they would be alike before the first block
        tokens = layer_norm(_random(ClassToken, dim)(patches), (dim,))
        stations = [tokens]
        for block in blocks:
            for normed, part in ((block.norm_1, block.attention), (block.norm_2, block.mlp)):
                found = part(normed(tokens) if norm == "before" else tokens)
                tokens = tokens + found if stream == "tokens + found" else found
                tokens = normed(tokens) if norm == "after" else tokens
            stations.append(tokens)
        return torch.cat(stations)

    def show(photo_name: str, depth: int, stream: str, norm: str):
        tokens = walk(photo_name, stream, norm)[: depth + 1]
        lengths, directions = tokens.norm(dim=-1), normalize(tokens[-1], dim=-1)
        alike, stack = directions @ directions.T, counted(depth, "block")
        left, right = axes_row(2, width=8.8, height=3.5, margins=(0.08, 0.16, 0.98, 0.9, 0.16), ratios=(1.35, 1))
        curves = {"mean of the patches": lengths[:, 1:].mean(1), "class token": lengths[:, 0]}
        stations = range(depth + 1)
        draw.plot_curves({name: (stations, each) for name, each in curves.items()}, xlabel="after block", ax=left)
        left.set(ylim=(0, None), title="how long the tokens are")
        plain = dict(kind="similarity", numbers=False, colorbar=False, xlabel="token", ylabel="token")
        draw.plot_matrix(alike, title=f"how alike they are after {stack}", ax=right, **plain)
        right.set_aspect("equal")
        others = alike[~torch.eye(len(alike), dtype=torch.bool)]
        start, end = lengths.mean(1)[[0, -1]].tolist()
        return left, (
            f"The {photo_name} in {stack} with random weights, {stream}, the norm {norm}. The tokens' mean length goes "
            f"from {start:.1f} to {end:.3g}. Two tokens are on average {others.mean():.2f} alike (mean cosine; purple "
            "alike, white unrelated, orange opposite). 1.00 would mean that all point the same way, and the picture "
            "is lost."
        )

    return Panel(
        show,
        photo_name=menu("photo", data.PHOTOS),
        depth=number("blocks", 12, 1, deepest),
        stream=toggle("stream", "tokens + found", "found alone"),
        norm=toggle("norm", "before", "after", "nowhere"),
        hint="Try: found alone, with 1 block, then 2, 3 and 4. Then back to the sum, with 24 blocks, and the norm "
        "before, after, nowhere. Notice: without the sum all tokens soon point the same way. Without norms they grow "
        "longer, to 18 instead of 13, and more alike; with weights as small as torch's nothing explodes yet.",
    )


# The parts of a model with one block, and what each consists of.
PARTS = {
    "patch embedding": ["patch_embedding"],
    "class + positions": ["class_token", "position_embedding"],
    "attention": ["blocks.0.attention"],
    "MLP": ["blocks.0.mlp"],
    "norms": ["blocks.0.norm_1", "blocks.0.norm_2", "norm"],
    "head": ["head"],
}


def explore_sizes() -> Panel:
    """What a ViT of these sizes costs, part by part: the parameters of the real class, and the multiply-adds that torch
    counts while that class runs on tensors without content."""

    @cache
    def count(size: str, patch_size: int, image_size: int) -> tuple[ViTConfig, Counter, Counter]:
        from torch.utils.flop_counter import FlopCounterMode  # here, because this import takes a second

        dim, depth, heads, hidden = SIZES[size]
        config = ViTConfig(image_size, patch_size, dim=dim, depth=depth, heads=heads, hidden=hidden)
        with torch.device("meta"):  # sizes without content; one block, for the others are like it
            model = VisionTransformer(replace(config, depth=1)).eval()
            images = torch.empty(1, 3, image_size, image_size)
        with record(model, "*.weights"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(images)
        parameters, products, flops = Counter(), Counter(), counter.get_flop_counts()
        for part, path in ((part, path) for part, paths in PARTS.items() for path in paths):
            times = depth if path.startswith("blocks.") else 1
            parameters[part] += times * count_parameters(model.get_submodule(path))
            products[part] += times * sum(flops.get(f"VisionTransformer.{path}", {}).values()) // 2  # product and sum
        return config, parameters, products

    def show(size: str, patch_size: int, image_size: int):
        config, parameters, products = count(size, patch_size, image_size)
        axes = axes_row(2, width=9, height=2.7, margins=(0.16, 0.03, 0.99, 0.88, 0.42))
        for ax, counts, unit, title in (
            (axes[0], parameters, 1e6, f"{parameters.total() / 1e6:,.1f} million parameters"),
            (axes[1], products, 1e9, f"{products.total() / 1e9:,.1f} billion multiply-adds"),
        ):
            draw.plot_bars({part: counts[part] / unit for part in PARTS}, unit="{:,.2f}", title=title, ax=ax)
            ax.set_xlim(0, 1.3 * ax.get_xlim()[1])  # room for the numbers
        maps = config.depth * config.heads * config.tokens**2 * 4 / 1e6
        pairs = 2 * config.depth * config.tokens**2 * config.dim
        return axes[0], (
            f"ViT-{size}/{patch_size} at {image_size} pixels: {config.tokens:,} tokens of {config.dim:,}, "
            f"{config.depth} blocks of {config.heads} heads. {parameters.total():,} parameters; "
            f"{products.total() / 1e9:,.2f} billion multiply-adds an image, {pairs / products.total():.0%} of them for "
            f"pairs of tokens. All attention maps of one image would take {maps:,.0f} MB."
        )

    return Panel(
        show,
        size=choice("size", SIZES, "B"),
        patch_size=choice("patch size", [8, 14, 16, 28, 32], 16),
        image_size=choice("image", [224, 448, 672], 224),
        hint="Try: twice the image, then twice the patch as well. Then 672 pixels in patches of 8. Notice: the number "
        "of parameters hardly changes, the work does. The MLP costs more than attention, until the pairs take over.",
    )
