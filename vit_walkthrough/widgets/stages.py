"""A panel for each stage, on models that were not trained: what is turned is the stage's own computation."""

from collections import Counter
from dataclasses import replace
from functools import cache, lru_cache
from math import log2

import ipywidgets
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import layer_norm, normalize

from vit_walkthrough import data
from vit_walkthrough.draw import schematics
from vit_walkthrough.draw.plots import (
    plot_attention,
    plot_bars,
    plot_curves,
    plot_grid,
    plot_heads,
    plot_matrix,
    plot_patches,
    plot_similarity,
    plot_stream,
    side_by_side,
)
from vit_walkthrough.look.trace import record
from vit_walkthrough.model.attention import MultiHeadSelfAttention, attention_weights
from vit_walkthrough.model.config import SIZES, ViTConfig, divisors
from vit_walkthrough.model.encoder import Encoder
from vit_walkthrough.model.patches import PatchEmbedding, patchify
from vit_walkthrough.model.tokens import ClassToken, resample_positions, sincos_positions
from vit_walkthrough.model.vit import VisionTransformer, count_parameters
from vit_walkthrough.weights.checkpoint import load_tiny
from vit_walkthrough.widgets.panel import Panel, choice, number, query_at, toggle
from vit_walkthrough.widgets.pictures import photo


def photo_choice() -> ipywidgets.Dropdown:
    """A menu of the photographs that come along."""
    return ipywidgets.Dropdown(options=list(data.PHOTOS), value=data.PHOTOS[0], description="photo")


def _random(build, *sizes):
    """A module with the weights that seed 0 gives it; nobody else's dice are thrown."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(*sizes).eval()


def explore_patches(size: int = 224) -> Panel:
    """Patch size against the length of the sequence, on a photo of size x size pixels.

    Raises: ValueError for a size below 4, which has no patch worth looking at.
    """
    if size < 4:
        raise ValueError(f"size {size} is less than the smallest patch; choose 4 or more")

    def draw(photo_name: str, patch_size: int):
        image = photo(photo_name, size)
        side, pixels = size // patch_size, 3 * patch_size**2
        patches, tokens = side**2, side**2 + 1
        left, right = side_by_side(2, width=8, height=3.9)
        plot_grid(image, patch_size, title=f"{side} rows of {side} patches" if side > 1 else "one patch", ax=left)
        plot_patches(patchify(image[None], patch_size)[0], side, number=False, title="pulled apart", ax=right)
        left.figure.subplots_adjust(0.01, 0.02, 0.99, 0.91, 0.06)
        return left, (
            f"The {photo_name} in patches of {patch_size} x {patch_size} pixels: {side} * {side} = {patches:,} "
            f"patches, with the class token {tokens:,} tokens. One flattened patch is 3 * {patch_size} * {patch_size} "
            f"= {pixels:,} numbers. Attention will compare every token with every token: {tokens**2:,} pairs."
        )

    sizes = [side for side in divisors(size) if side >= 4]
    patch_size = choice("patch size", sizes, 32 if 32 in sizes else sizes[len(sizes) // 2])
    return Panel(
        draw,
        {"photo_name": photo_choice(), "patch_size": patch_size},
        hint="Try: 16, the size of most published ViTs, then 8, then 112. Notice: from which size on no single patch "
        "shows what it is part of; and that half the size makes four times the patches and about sixteen times the "
        "pairs.",
    )


def explore_positions(learned: Float[Tensor, "1 tokens dim"] | None = None) -> Panel:
    """How similar the position of one patch is to all others, for fixed, random and learned positions, and after they
    were resampled to another grid. What all positions share, their mean, is taken away first.

    learned: vectors of a square grid; by default those of the tiny ViT with patches of 6 pixels, 8 x 8.

    Raises: ValueError if the grid is not square, or smaller than 3 x 3.
    """
    learned = load_tiny(6, 4).position_embedding.positions if learned is None else learned
    tokens, dim = learned.shape[1:]
    side = round((tokens - 1) ** 0.5)
    if side**2 != tokens - 1 or side < 3:
        raise ValueError(f"{tokens} positions are not those of a class token and a square grid from 3 x 3 patches up")
    kinds = {
        "sines and cosines": sincos_positions(side, side, dim),
        "random": torch.randn(1, tokens, dim, generator=torch.Generator().manual_seed(0)),
        "learned": learned.detach(),
    }

    def draw(kind: str, grid: int, row: int, col: int):
        positions = resample_positions(kinds[kind], grid, grid)[0, 1:]
        positions = positions - positions.mean(0)
        positions = normalize(positions, dim=-1)
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
            f"Positions, {kind}, for {side} x {side} patches"
            + (f", resampled to {grid} x {grid}" if grid != side else "")
            + f". The patch at row {row}, column {col} is 1.00 similar to itself; none is more similar "
            f"to it than the one at row "
            f"{nearest[0]}, column {nearest[1]} ({others.max():.2f})."
        )

    query, fit_query = query_at(side, side)
    controls = {
        "kind": toggle("positions", *kinds, start="learned"),
        "grid": number("grid", side, 3, 2 * side),
        **query,
    }
    return Panel(
        draw,
        controls,
        lambda controls: fit_query(controls["grid"].value, controls["grid"].value),
        hint="Try: walk the row and the column through the grid, with each kind; then change the grid, for which "
        "they are resampled. Notice: at 8 x 8 sines and cosines know their neighbourhood from the start; random ones, "
        "with which learning begins, know none; learned ones have found theirs from digits alone, but for the edges on "
        "the left and right. What all positions share, their mean, is taken away first. (On a finer grid resampling "
        "makes any neighbours alike.)",
    )


SCALED, UNSCALED = "divided by √head_dim", "as they are"


def explore_attention(
    image: Float[Tensor, "channels height width"] | None = None,
    queries: Float[Tensor, "patches head_dim"] | None = None,
    keys: Float[Tensor, "patches head_dim"] | None = None,
) -> Panel:
    """One head: where one query patch looks, and what the scale 1 / sqrt(head_dim) and a temperature do to its softmax.

    queries, keys: one row a patch of a square grid; by default both are 14 x 14 patches of the image themselves, each
    centred and scaled to unit variance, so that a patch looks for patches like itself.

    Raises: ValueError if the queries are not as many as the keys, or their number is no square; without queries, for an
    image that is not square, or whose side is no multiple of 14.
    """
    image = photo("cat") if image is None else image
    if queries is None:
        height, width = image.shape[-2:]
        if height != width or width % 14:
            raise ValueError(
                f"an image of {height} x {width} pixels; without queries it must be square, and its side a multiple "
                f"of 14, as load_image(source, 224) makes it"
            )
        patches = patchify(image[None], image.shape[-1] // 14)[0]
        queries = (patches - patches.mean(-1, keepdim=True)) / patches.std(-1, keepdim=True).clamp(min=1e-6)
    queries = queries.detach()
    keys = queries if keys is None else keys.detach()
    side = round(len(queries) ** 0.5)
    if side * side != len(queries) or len(keys) != len(queries):
        raise ValueError(f"{len(queries)} queries and {len(keys)} keys are not one for each patch of a square grid")

    head_dim = queries.shape[-1]

    def draw(row: int, col: int, scores: str, temperature: float):
        query = row * side + col
        unscaled = 1 if scores == SCALED else head_dim**0.5  # what attention_weights divides by
        weights = attention_weights(queries[query : query + 1] * unscaled / temperature, keys)[0]
        left, middle, right = side_by_side(3, width=9, height=3.1, ratios=(1, 1, 0.85))
        plot_grid(image, image.shape[-1] // side, marked={query: "query"}, title="the query", ax=left)
        plot_attention(image, weights.reshape(side, side), query=query, title="where it looks", ax=middle)
        ranked = weights.sort(descending=True).values
        shown = ranked[:50]
        plot_curves({"weight": (np.arange(1, len(shown) + 1), shown)}, xlabel="keys, the strongest first", ax=right)
        right.set(ylim=(0, 1.05 * float(ranked[0])), title="its softmax, sorted")
        left.figure.subplots_adjust(0.01, 0.2, 0.98, 0.9, 0.16)
        entropy = (weights * weights.clamp(min=1e-12).log2()).sum().abs()
        best = divmod(int(weights.argmax()), side)
        return left, (
            f"head_dim {head_dim}, temperature {temperature:.3g}. The query at row {row}, column {col} gives "
            f"{weights.max():.3f} of its attention to the key at row {best[0]}, column {best[1]} and "
            f"{ranked[:5].sum():.3f} to the five strongest of {len(weights)} keys. Entropy {entropy:.1f} bits; looking "
            f"everywhere alike would be {log2(len(weights)):.1f}."
        )

    query, _ = query_at(side, side)
    temperature = ipywidgets.FloatLogSlider(
        value=10.0, min=-1, max=2, step=0.1, description="temperature", continuous_update=False,
        style={"description_width": "initial"},
    )  # fmt: skip
    return Panel(
        draw,
        {**query, "scores": toggle("scores", SCALED, UNSCALED), "temperature": temperature},
        hint="Try: an eye, a whisker, the nose; the scores as they are, not divided by √head_dim; then the "
        "temperature, by which they are divided too (a ViT's is 1; here it begins at 10). Notice: undivided, one key "
        "wins everything; the entropy says how near that is: 0 bits is one key alone.",
    )


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
    tokens = layer_norm((patches - patches.mean((0, 1))) @ mixture, (dim,))
    rows, cols = image.shape[-2] // patch_size, image.shape[-1] // patch_size

    @cache
    def look(heads: int):
        attention = _random(MultiHeadSelfAttention, dim, heads)
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

    query, _ = query_at(rows, cols)
    controls = {"heads": choice("heads", divisors(dim), 4 if dim % 4 == 0 else 1), **query}
    return Panel(
        draw,
        controls,
        hint="Try: 1 head, 4, 48; another query. Notice: the number of parameters stays, head_dim shrinks; the "
        "narrower the heads, the more they differ: the strongest key of some gets four times what it gets in others.",
    )


KEPT = "tokens + found"


def explore_depth(dim: int = 64, patch_size: int = 32, deepest: int = 24) -> Panel:
    """What blocks on blocks do to the tokens of a photo, with and without the sum that carries them along, and with the
    norm before, after or nowhere. The blocks are the package's, with random weights, their parts called one by one."""
    sizes = ViTConfig(patch_size=patch_size, dim=dim, heads=4, hidden=4 * dim)

    @cache
    def blocks() -> Encoder:
        return _random(Encoder, deepest, dim, sizes.heads, sizes.hidden)

    @lru_cache(maxsize=64)
    @torch.no_grad()
    def walk(photo_name: str, stream: str, norm: str) -> Tensor:
        """The tokens at every station: (deepest + 1, tokens, dim)."""
        patches = _random(PatchEmbedding, patch_size, 3, dim)(photo(photo_name)[None])
        patches = patches - patches.mean(1, keepdim=True)  # or they would be alike before the first block
        tokens = layer_norm(_random(ClassToken, dim)(patches), (dim,))
        stations = [tokens]
        for block in blocks():
            for normed, part in ((block.norm_1, block.attention), (block.norm_2, block.mlp)):
                found = part(normed(tokens) if norm == "before" else tokens)
                tokens = tokens + found if stream == KEPT else found
                tokens = normed(tokens) if norm == "after" else tokens
            stations.append(tokens)
        return torch.cat(stations)

    def draw(photo_name: str, depth: int, stream: str, norm: str):
        tokens = walk(photo_name, stream, norm)[: depth + 1]
        alike = normalize(tokens[-1], dim=-1) @ normalize(tokens[-1], dim=-1).T
        lengths = tokens.norm(dim=-1)
        left, right = side_by_side(2, width=8.8, height=3.5, ratios=(1.35, 1))
        plot_stream(lengths, title="how long the tokens are", ax=left)
        title = f"how alike they are after {depth} block{'s' * (depth > 1)}"
        plot_matrix(
            alike,
            kind="similarity",
            numbers=False,
            colorbar=False,
            xlabel="token",
            ylabel="token",
            title=title,
            ax=right,
        )
        right.set_aspect("equal")
        left.figure.subplots_adjust(0.08, 0.16, 0.98, 0.9, 0.16)
        others = alike[~torch.eye(len(alike), dtype=torch.bool)]
        start, end = lengths.mean(1)[[0, -1]].tolist()
        return left, (
            f"The {photo_name} in {depth} block{'s' * (depth > 1)} with random weights, {stream}, the norm {norm}. The "
            f"tokens' mean length goes from {start:.1f} to {end:.3g}; two of them are on average {others.mean():.2f} "
            "alike (mean cosine; purple alike, white unrelated, orange opposite). 1.00 would mean that all point the "
            "same way, and the picture is lost."
        )

    controls = {
        "photo_name": photo_choice(),
        "depth": number("blocks", 12, 1, deepest),
        "stream": toggle("stream", KEPT, "found alone"),
        "norm": toggle("norm", "before", "after", "nowhere"),
    }
    return Panel(
        draw,
        controls,
        hint="Try: found alone, with 1 block, then 2, 3 and 4. Then back to the sum, with 24 blocks, and the norm "
        "before, after, nowhere. Notice: without the sum all tokens soon point the same way. Without norms they grow "
        "longer, to 18 instead of 13, and more alike; with weights as small as torch's nothing explodes yet.",
    )


# Where a parameter belongs, by what its name contains; the first that fits.
PARTS = {
    "patch embedding": "patch_embedding",
    "class + positions": "class_token position_embedding",
    "attention": ".attention.",
    "MLP": ".mlp.",
    "norms": "norm",
    "head": "head",
}


def explore_sizes() -> Panel:
    """What a ViT of these sizes costs, part by part: the parameters of the real class, and the multiply-adds that torch
    counts while that class runs on tensors without content."""

    @cache
    def count(size: str, patch_size: int, image_size: int) -> tuple[ViTConfig, Counter, Counter]:
        from torch.utils.flop_counter import FlopCounterMode  # here, for it takes a second

        dim, depth, heads, hidden = SIZES[size]
        config = ViTConfig(image_size, patch_size, dim=dim, depth=depth, heads=heads, hidden=hidden)
        with torch.device("meta"):  # sizes without content; one block, for the others are like it
            model = VisionTransformer(replace(config, depth=1)).eval()
            images = torch.empty(1, 3, image_size, image_size)
        with record(model, "*.weights"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(images)
        parameters, products = Counter(), Counter()
        for name, parameter in model.named_parameters():
            times = config.depth if name.startswith("blocks.") else 1
            part = next(part for part, paths in PARTS.items() if any(path in name for path in paths.split()))
            parameters[part] += times * parameter.numel()
        work = {name.partition(".")[2]: sum(kinds.values()) // 2 for name, kinds in counter.get_flop_counts().items()}
        for part, path in (("patch embedding", "patch_embedding"), ("head", "head")):
            products[part] = work.get(path, 0)
        for part, path in (("attention", "blocks.0.attention"), ("MLP", "blocks.0.mlp")):
            products[part] = config.depth * work[path]
        return config, parameters, products

    def draw(size: str, patch_size: int, image_size: int):
        config, parameters, products = count(size, patch_size, image_size)
        left, right = side_by_side(2, width=9, height=2.7)
        for ax, counted, unit, title in (
            (left, parameters, 1e6, f"{parameters.total() / 1e6:,.1f} million parameters"),
            (right, products, 1e9, f"{products.total() / 1e9:,.1f} billion multiply-adds"),
        ):
            plot_bars({part: counted[part] / unit for part in PARTS}, unit="{:,.2f}", title=title, ax=ax)
            ax.set_xlim(0, 1.3 * ax.get_xlim()[1])  # room for the numbers
        left.figure.subplots_adjust(0.16, 0.03, 0.99, 0.88, 0.42)
        maps = config.depth * config.heads * config.tokens**2 * 4 / 1e6
        pairs = 2 * config.depth * config.tokens**2 * config.dim
        return left, (
            f"ViT-{size}/{patch_size} at {image_size} pixels: {config.tokens:,} tokens of {config.dim:,}, "
            f"{config.depth} blocks of {config.heads} heads. {parameters.total():,} parameters; "
            f"{products.total() / 1e9:,.2f} billion multiply-adds an image, {pairs / products.total():.0%} of them for "
            f"pairs of tokens. All attention maps of one image would take {maps:,.0f} MB."
        )

    return Panel(
        draw,
        {
            "size": choice("size", list(SIZES), "B"),
            "patch_size": choice("patch size", [8, 14, 16, 28, 32], 16),
            "image_size": choice("image", [224, 448, 672], 224),
        },
        hint="Try: twice the image, then twice the patch as well; then 672 pixels in patches of 8. Notice: the "
        "parameters hardly care, the work does; the MLP costs more than attention, until the pairs take over.",
    )


DRAWINGS = {
    "the whole": schematics.draw_vit,
    "patches": schematics.draw_patches,
    "one patch as a row": schematics.draw_flatten,
    "patch embedding": schematics.draw_embedding,
    "class token": schematics.draw_class_token,
    "positions": schematics.draw_positions,
    "queries, keys, values": schematics.draw_qkv,
    "attention": schematics.draw_attention,
    "heads": schematics.draw_heads,
    "MLP": schematics.draw_mlp,
    "a block": schematics.draw_block,
    "the stack": schematics.draw_stack,
    "head": schematics.draw_head,
    "every shape": schematics.draw_shapes,
}


def explore_drawings(drawing: str = "the whole", size: int = 96, dim: int = 96) -> Panel:
    """Any stage as a drawing, for whatever sizes: real patches, and what the package's own modules make of them.

    Raises: ValueError for a size that no patch of at least 8 pixels divides into two or more.
    """

    @cache
    def cat() -> Tensor:
        return photo("cat", size)

    def draw(drawing: str, patch_size: int, heads: int, depth: int):
        config = ViTConfig(size, patch_size, dim=dim, depth=depth, heads=heads, hidden=2 * dim, classes=10)
        return DRAWINGS[drawing](config, cat()), (
            f"{drawing[0].upper()}{drawing[1:]}, drawn for {config.rows} x {config.cols} = {config.patches} patches of "
            f"{config.patch_dim:,} pixels, {config.tokens} tokens of {dim} numbers, {heads} head{'s' * (heads > 1)} of "
            f"{config.head_dim}, "
            f"{depth} block{'s' * (depth > 1)}, 10 classes."
        )

    sides = [side for side in divisors(size) if 8 <= side <= size // 2]
    if not sides:
        raise ValueError(
            f"size {size} is no two or more patches of at least 8 pixels; choose 16, 24 or a larger multiple of 8"
        )
    counts = [count for count in divisors(dim) if count <= 16]
    return Panel(
        draw,
        {
            "drawing": ipywidgets.Dropdown(options=list(DRAWINGS), value=drawing, description="drawing"),
            "patch_size": choice("patch size", sides, 16 if 16 in sides else sides[len(sides) // 2]),
            "heads": choice("heads", counts, 4 if 4 in counts else counts[-1]),
            "depth": number("blocks", 4, 1, 12),
        },
        hint="Try: the patches, with 8 and with 32 pixels; the heads, with 1 and with 12; then walk through the other "
        "drawings with sizes of your own. Notice: which shapes follow the patch size, and which the heads.",
    )
