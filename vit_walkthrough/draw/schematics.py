"""Schematics with their shapes: a config in, a drawing out, right for whatever sizes were chosen.

image: (channels, height, width) in [0, 1]. model: whose numbers to show.
Raises: ValueError for an image or a model of another config.
"""

from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes

from vit_walkthrough.draw import layout, parts
from vit_walkthrough.draw.images import COLORMAPS
from vit_walkthrough.draw.layout import Part, arrow, box, column, columns, head, picture, row, shape, sign, strip, words
from vit_walkthrough.draw.theme import ROLES, style
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.patches import patchify


@style()
def draw_embedding(config: ViTConfig, image, *, model) -> Axes:
    """Patches times E plus bias, the same for every patch. A column of E and the number that it makes are framed."""
    look = parts.Look(config, image, model)
    slots = parts.followed(look, first=1)
    rows, eye = [token and token - 1 for token in slots], slots.index(look.eye)  # patches start at 0, too
    flat, embedding = patchify(look.image[None], config.patch_size)[0].numpy(), look.model.patch_embedding.projection
    faces, before = parts.faces(look, slots, less=1), parts.strips(flat, rows, 1.9, "patch")
    after = parts.strips(look["patch_embedding"], rows, 1.9, "patch")
    weight = layout.matrix(look.weight("patch_embedding.projection")[:8, :8], 1.44, 1.44)
    table = column(row(weight, layout.dots(down=False), across=0.05), layout.dots())
    bias = strip(embedding.bias.detach().numpy(), "neutral", 1.5, scale=parts.scale_of(rows, look["patch_embedding"]))
    body = columns(
        [None, parts.stack(faces), None],
        [None, parts.stack(before), shape(config, "patches patch_dim")],
        [None, sign("×"), None],
        [head("E", 12), table, shape(config, "patch_dim dim")],
        [None, sign("+"), None],
        [head("bias", 12), bias, shape(config, "dim")],
        [None, sign("="), None],
        [None, parts.stack(after), shape(config, "patches dim")],
    )
    how = "Every patch meets the same matrix E and bias. The framed column of E makes the framed number of the token."
    note = f"{look.note} E and its bias are {(config.patch_dim + 1) * config.dim:,} numbers to learn."
    sheet = layout.page("One matrix turns every patch into a token", how, body, note)
    sheet.band(faces[eye], before[eye], role="patch")
    sheet.band(after[eye], role="patch")
    for part, cells in ((weight, 8), (bias, 10), (after[eye], 10)):
        cell = part.width / min(cells, config.dim)
        sheet.rectangle(part.left + cell / 2, part.y, cell, part.height, edge=layout.INK, line=2)
    return sheet.done()


@style()
def draw_heads(config: ViTConfig, image, *, model, block: int = 0, token: int | None = None) -> Axes:
    """In every head the query of one token meets everyone's keys, and its weights mix everyone's values; what the heads
    found is joined and mixed by U_msa. token: who asks, by default the one at the cat's eye."""
    look, count, pitch = parts.Look(config, image, model), config.heads, 1.62
    kept, token = [0, 1, 2, count - 1] if count > 5 else list(range(count)), look.eye if token is None else token
    names = ("queries", "keys", "values", "head_outputs", "weights")
    *read, found, weights = (look[f"blocks.{block}.attention.{name}"][kept] for name in names)
    slots = parts.spaced({0, int(weights[:, token].mean(0).argmax()), config.patches})
    scales = [np.abs(part[:, [token, *filter(None, slots), 0], :7]).max() for part in (*read, found)]
    labels = ["", "its query", "everyone's keys", "query · key,\nthen softmax", "its weights\n(pale: the largest)", ""]
    labels += ["everyone's values", "mixed by\nits weights", "what a head found", "", "joined"]
    side = [row(words(text), Part(0, 0)) for text in labels]
    side[0] = row(words("who asks"), parts.face(look, token))
    for place in (2, 6):
        named = words(f"{labels[place]}\n{config.tokens:,} × {config.head_dim}")
        side[place] = row(named, column(*parts.faces(look, slots, 0.2), down=0.03), across=0.2)
    lists, down = [[replace(part, align=1) for part in side]], arrow(0.28, up=-1)
    for place, number in enumerate(kept):
        slim = dict(width=1.36, cells=9)
        query = strip(read[0][place, token], "query", scale=scales[0], **slim)
        keys, values = (
            column(*parts.strips(read[part][place], slots, role=role, scale=scales[part], **slim), down=0.03)
            for part, role in ((1, "key"), (2, "value"))
        )
        seen = parts.scene(look, 1.2, look.seen(weights[place, token]), token)
        output = found[place, token]
        single, joined = (strip(output, "patch", width, cells=9, scale=scales[3]) for width in (1.36, pitch))
        lists.append([head(f"head {number}"), query, keys, down, seen, down, values, down, single, down, joined])
    if count > 5:
        gap = layout.dots(down=False)
        joined = box(gap, "patch", pitch, 0.2, fill="white", line=1.6, radius=0.0)
        lists.insert(4, [words(f"{count - 4} more"), gap, gap, None, gap, None, gap, None, gap, None, joined])
    one = column(head(f"1 of {config.tokens:,}"), words(f"rows of {config.dim:,} numbers"), down=-0.01)
    mixed = row(
        sign("×"),
        layout.matrix(look.weight(f"blocks.{block}.attention.projection")[:6, :12], 0.8, 0.4),
        words("$U_{msa}$", 12, colour=layout.INK),
        arrow(0.5),
        strip(look[f"blocks.{block}.attention.projection"][token], "patch", 2.4, cells=14),
        one,
    )
    body = column(columns(*lists, across=0, down=0.08), one, mixed)
    title = "Every head asks every token, and the answers are joined"
    how = f"Each head makes a query, a key and a value of {config.head_dim:,} numbers from every token."
    maps = f"heads × queries × keys = {count} × {config.tokens:,} × {config.tokens:,}"
    return layout.page(title, how, body, f"{look.note} Token {token:,} asks. All maps are {maps}.").done()


@style()
def draw_block(config: ViTConfig, image, *, model) -> Axes:
    """One encoder block from bottom to top: the residual stream straight up, attention and MLP beside it."""
    look = parts.Look(config, image, model)
    both, maps = [0, look.eye], f"{config.heads} map{'s' * (config.heads > 1)} of {config.tokens:,}"
    size, empty, branches, stream = shape(config, "tokens dim"), [None] * 4, [], ("", ".norm_2.input", ".norm_1.input")
    scale = parts.scale_of(both, *(look[f"blocks.0{name}"] for name in (*stream, ".attention", ".mlp")))

    def card(name: str, tokens: list, scale: layout.Number = 0) -> Part:
        faces, numbers = [parts.face(look, token, 0.22) for token in tokens], look[f"blocks.0{name}"]
        strips = parts.stack(faces, parts.strips(numbers, tokens, 1.44, scale=scale), high=0.3)
        return box(strips, pad=0.06, fill="white", edge=layout.QUIET, line=1)

    last, middle, first = (card(name, both, scale) for name in stream)
    rows = [[*empty, Part(0, 0.1)], [size, last, None, None, None]]
    for step, norm, role, below, said, counted in (
        ("mlp", "norm_2", "value", middle, "each token by itself:", f"inside: {config.tokens:,} × {config.hidden:,}"),
        ("attention", "norm_1", "query", first, "between the tokens:", f"{maps} × {config.tokens:,}"),
    ):
        added, normed = card(f".{step}", both[1:], scale), card(f".{norm}", both[1:])
        plus, layer_norm = parts.plus(), box("LayerNorm", width=1.6)
        work = box(head("MLP" if step == "mlp" else step, 12), role, 1.6, 0.62)
        notes = replace(column(words(said, align=0), head(counted, align=0), down=0.03), align=0)
        rows += [[None, plus, added, None, None], [None, None, None, work, notes]]
        rows += [[None, None, None, layer_norm, normed], [*empty, None], [size, below, None, None, None]]
        branches.append((layer_norm, work, plus, normed, added, below))
    how = "The stream goes straight up. Attention and the MLP read a normalised copy, and what they find is added."
    note = f"{look.note} ★ is the class token, the other is token {look.eye:,}."
    sheet = layout.page("An encoder block only adds to the tokens", how, layout.grid(rows, 0.28, 0.17), note)
    sheet.arrow((first.x, first.bottom - 0.15), (first.x, last.top + 0.3), level=layout.WIRE)
    for layer_norm, work, plus, normed, added, below in branches:
        parts.branch(sheet, (layer_norm.bottom + below.top) / 2, layer_norm, work, plus)
        sheet.line((layer_norm.right, normed.y), (normed.left, normed.y), width=0.9, colour=layout.QUIET)
        sheet.put(words("what is added"), added.x, added.top + 0.1)
    return sheet.done()


@style()
def draw_shapes(config: ViTConfig, image, *, model) -> Axes:
    """The tensors from image to logits with their numbers, all on one scale, and block 0 opened."""
    look, size, stream = parts.Look(config, image, model), config.tokens, "tokens dim"
    maps, joined = (look[f"blocks.0.attention.{name}"].swapaxes(0, 1) for name in ("weights", "head_outputs"))
    lines = {
        "From pixels to tokens": [
            ("cut", patchify(look.image[None], config.patch_size)[0].numpy(), "patches patch_dim"),
            ("× E", look["patch_embedding"], "patches dim"),
            ("★ first", look["class_token"], stream),
            ("+ positions", look["position_embedding"], stream),
        ],
        "Block 0: attention": [
            ("norm", look["blocks.0.norm_1"], stream),
            ("q, k, v", look["blocks.0.attention.qkv"], "tokens 3·dim"),
            ("softmax", maps.reshape(size, -1), "heads queries keys"),
            ("mix, join", joined.reshape(size, -1), stream),
            ("× W_o, add", look["blocks.0.norm_2.input"], stream),
        ],
        "Block 0: MLP": [
            ("norm", look["blocks.0.norm_2"], stream),
            ("expand, GELU", look["blocks.0.mlp.gelu"], "tokens hidden"),
            ("contract, add", look["blocks.0"], stream),
        ],
        f"After {config.depth} blocks": [
            ("norm", look["norm"], stream),
            ("take ★", look["head.hidden"][None], "dim"),
            ("head", look["head"][None], "classes"),
        ],
    }
    unit = 4.4 / max(sum(numbers.shape[1] for _, numbers, _ in line if len(numbers) > 1) for line in lines.values())
    sizes = {name: getattr(config, name) for name in "patches patch_dim tokens dim heads hidden classes".split()}
    sizes |= {"3·dim": 3 * config.dim, "queries": size, "keys": size}
    rows, stars = [], []
    for name, line in lines.items():
        pixels = parts.scene(look, unit * max(config.height, config.width))
        body = [] if rows else [[pixels, shape(config, "channels height width")]]
        for step, numbers, axes in line:
            high, wide, most = unit * len(numbers), unit * numbers.shape[1], np.abs(numbers).max()
            colours = dict(cmap=COLORMAPS["signed"], limits=(-most, most))
            count = config.heads if "keys" in axes else 1
            sides = (max(min(wide, 3) / count, 0.1), max(high, 0.1))
            table = row(*(picture(part, *sides, **colours) for part in np.split(numbers, count, 1)), across=0.2 / count)
            stars += [table] if axes.startswith("tokens") or step == "take ★" else []
            body += [[arrow(0.25, step), None], [table, shape(sizes, axes)]]
        rows += [replace(head(name), align=0), replace(columns(*body, across=0.15, down=0.06), align=0)]
    how = "Every cell takes up the same area; a pixel of three colours is one cell. Single rows are drawn thicker."
    title, note = "From image to answer, shape by shape", f"{look.note} ★ is the class token."
    sheet = layout.page(title, how, column(*rows), note)
    for table in stars:
        sheet.put(words("★", colour=ROLES["class"]), table.left - 0.08, table.top - 0.03)
    return sheet.done()
