"""Schematics with their shapes: a config in, a drawing out, right for whatever sizes were chosen.

image: (channels, height, width) in [0, 1], by default the cat. model: whose numbers to show, by default random ones.
Raises: ValueError for an image or a model of another config, or without the classification head that is drawn.
"""

from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes

from vit_walkthrough.draw import layout, parts
from vit_walkthrough.draw.images import COLORMAPS
from vit_walkthrough.draw.layout import Part, arrow, box, column, columns, head, matrix, row, shape, sign, strip, words
from vit_walkthrough.draw.theme import ROLES, style
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.patches import patchify


@style()
def draw_patches(config: ViTConfig, image=None, *, model=None) -> Axes:
    """The image, cut, pulled apart and lined up: an image becomes a sequence of patches."""
    look = parts.Look(config, image, model)
    slots = parts.followed(look, first=1)
    places = [divmod(token - 1, config.cols) if token else None for token in slots]
    named = [words(f"row {place[0]}, col {place[1]}" if place else "", align=0) for place in places]
    whole = parts.scene(look, 2.6, marked=[token - 1 for token in slots if token], lines=True)
    body = columns(
        [whole, shape(config, "channels height width")],
        [arrow(0.45, "cut"), None],
        [parts.apart(look, 2.9), shape(config, "rows cols")],
        [arrow(0.7, "line up"), None],
        [parts.stack(parts.faces(look, slots, 0.42, 1), named, high=0.5), shape(config, "patches patch_dim")],
        across=0.25,
    )
    how = f"We cut every {config.patch_size} pixels and line the patches up in reading order."
    how += " Nothing is lost, nothing overlaps."
    return layout.page("An image becomes a sequence of patches", how, body).done()


@style()
def draw_embedding(config: ViTConfig, image=None, *, model=None) -> Axes:
    """Patches times E: the same matrix turns every patch into a token."""
    look = parts.Look(config, image, model)
    slots = parts.followed(look, first=1)
    rows, eye = [token and token - 1 for token in slots], slots.index(look.eye)  # patches start at 0, too
    flat = patchify(look.image[None], config.patch_size)[0].numpy()
    faces = parts.faces(look, slots, less=1)
    before = parts.strips(flat, rows, 2.7, "patch", cells=16)
    after = parts.strips(look["patch_embedding"], rows, 2.3, "patch")
    weight = matrix(look.weight("patch_embedding.projection")[:20, :20], 2.1, 2.1)
    body = columns(
        [None, parts.stack(faces), None],
        [None, parts.stack(before), shape(config, "patches patch_dim")],
        [None, sign("×"), None],
        [head("E", 12), weight, shape(config, "patch_dim dim")],
        [None, sign("="), None],
        [None, parts.stack(after), shape(config, "patches dim")],
    )
    how = f"Each row of {config.patch_dim:,} numbers is multiplied by the same learned matrix E."
    how += f" The result is a row of {config.dim:,} numbers."
    note = f"{look.note} E and its bias are {(config.patch_dim + 1) * config.dim:,} numbers to learn."
    sheet = layout.page("One matrix turns every patch into a token", how, body, note)
    sheet.band(faces[eye], before[eye], role="patch")
    sheet.band(after[eye], role="patch")
    return sheet.done()


@style()
def draw_positions(config: ViTConfig, image=None, *, model=None) -> Axes:
    """A position, added to every token."""
    look = parts.Look(config, image, model)
    slots, before, after = parts.followed(look), look["class_token"], look["position_embedding"]
    same = dict(width=2.15, scale=parts.scale_of(slots, before, after, after - before))
    size, tokens = shape(config, "tokens dim"), parts.stack(parts.strips(before, slots, **same))
    result = parts.stack(parts.strips(after, slots, **same))
    if config.positions == "none":
        title, how = "No positions", "This config adds none. If you shuffle the patches, the answer stays the same."
        middle = [[None, arrow(2.5, "nothing is added"), None]]
    else:
        kind = "a learned vector" if config.positions == "learned" else "fixed sines and cosines"
        title = "A position is added to every token"
        how = f"Attention does not see where a token stands. So each place has {kind}, added number by number."
        plus, equal = ([token if token is None else sign(text) for token in slots] for text in "+=")
        positions = parts.strips(after - before, slots, role="position", **same)
        maps = [parts.place_map(config, token) for token in slots]
        named = [head("positions", colour=ROLES["position"]), parts.stack(positions), size]
        middle = [[None, parts.stack(plus, maps), None], named, [None, parts.stack(equal), None]]
    first, last = [head("tokens"), tokens, size], [head("what enters the first block"), result, size]
    body = columns([None, parts.stack(parts.faces(look, slots)), None], first, *middle, last)
    return layout.page(title, how, body, f"{look.note} All strips share one scale.").done()


@style()
def draw_qkv(config: ViTConfig, image=None, *, model=None) -> Axes:
    """One matrix, three readings of every token: query, key and value."""
    look = parts.Look(config, image, model)
    slots, meanings = parts.followed(look), ("what it seeks", "what it offers", "what it gives")
    weight = look.weight("blocks.0.attention.qkv")[:14].reshape(-1, 3, config.dim)[:, :, :6]
    read = look["blocks.0.attention.qkv"].reshape(config.tokens, 3, config.dim).transpose(1, 0, 2)
    scale, top = parts.scale_of(slots, *read, cells=8), np.abs(weight).max()
    matrices, tables = [], []
    for part, (name, meaning) in enumerate(zip(("queries", "keys", "values"), meanings, strict=True)):
        role = ("query", "key", "value")[part]
        symbol = words(f"$W_{name[0]}$", 12, colour=layout.INK)
        matrices.append([symbol, matrix(weight[:, part], 0.87, 2.04, role, scale=top)])
        strips = parts.strips(read[part], slots, 1.1, role, cells=8, scale=scale)
        tables.append([head(name), parts.stack(strips), words(meaning)])
    sizes = {"dim": config.dim, "3·dim": 3 * config.dim, "3": 3, "tokens": config.tokens}
    tokens = parts.stack(parts.strips(look["blocks.0.norm_1"], slots, 1.45))
    cut = "One head takes them whole" if config.heads == 1 else "The heads share them"

    def sized(body: Part, axes: str, name: str = "") -> Part:
        """A table between its name and its shape, its middle being the middle of the whole."""
        below, above = shape(sizes, axes), head(name)
        return column(Part(0, below.height - above.height - 0.1), above, body, below, down=0.1)

    body = row(
        parts.stack(parts.faces(look, slots)),
        sized(tokens, "tokens dim", "tokens"),
        sign("×"),
        sized(columns(*matrices, across=0.06), "dim 3·dim"),
        sign("="),
        sized(columns(*tables), "3 tokens dim"),
    )
    how = "Its columns are three blocks side by side: the result is cut into queries, keys and values."
    note = f"{look.note} {cut}: heads × head_dim = {config.heads} × {config.head_dim} = {config.dim:,}."
    return layout.page("One matrix reads every token three times", how, body, note).done()


@style()
def draw_attention(config: ViTConfig, image=None, *, model=None) -> Axes:
    """One head: every query meets every key, the softmax makes weights of it, the weights mix the values."""
    look = parts.Look(config, image, model)
    slots, eye, pitch = parts.followed(look), look.eye, dict(high=parts.CELL)
    names = ("queries", "keys", "values", "weights", "head_outputs")
    queries, keys, values, weights, outputs = (look[f"blocks.0.attention.{name}"][0] for name in names)
    few = dict(width=1.32, cells=8, height=0.19)
    same = few | dict(scale=parts.scale_of(slots, queries, keys, values, cells=8))
    asked, mixed = parts.strips(queries, slots, role="query", **same), parts.strips(outputs, slots, **few)
    offered = parts.strips(keys, slots, role="key", down=True, **same)
    above = [None if token is None else parts.face(look, token, 0.22) for token in slots]
    faces = parts.faces(look, slots, 0.22)
    kept = [token for token in slots if token is not None]
    peak = float(weights[np.ix_(kept, kept)].max())
    mix = parts.square(look, slots, weights, cmap=COLORMAPS["weights"], limits=(0, peak))
    seen = parts.scene(look, 1.5, look.seen(weights[eye]), [eye - 1], "query")
    given = column(head("values"), parts.stack(faces, parts.strips(values, slots, role="value", **same), **pitch))
    named, size, pairs = (shape(config, axes) for axes in ("head_dim keys", "queries head_dim", "queries keys"))
    offered = column(Part(0, 0.3), layout.grid([above, offered], 0, 0.06, wide=parts.CELL))
    body = columns(
        [column(head("keys"), named), head("queries"), parts.stack(faces, asked, **pitch), size],
        [offered, None, parts.square(look, slots, queries @ keys.T), pairs],
        [words("its row,\non the image"), None, arrow(0.75, f"÷ √{config.head_dim}", "softmax\nof each row"), None],
        [column(head(f"where token {eye:,} looks"), seen), None, mix, pairs],
        [None, None, arrow(0.4, "mix"), None],
        [given, head("outputs"), parts.stack(faces, mixed, **pitch), size],
        down=0.06,
    )
    which = "one head" if config.heads == 1 else f"one head of {config.heads}"
    how = "Query · key says how well two tokens match. The softmax turns each row into weights, which mix the values."
    note = f"{look.note} Weights: dark is 0, yellow {peak:.2g}; each row of {config.tokens:,} sums to 1."
    sheet = layout.page(f"Attention: every token asks every token ({which})", how, body, note)
    sheet.band(asked[slots.index(eye)], mixed[slots.index(eye)])
    return sheet.done()


@style()
def draw_heads(config: ViTConfig, image=None, *, model=None, block: int = 0, token: int | None = None) -> Axes:
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
        slim = dict(width=1.36, cells=9, height=0.2)
        query = strip(read[0][place, token], "query", scale=scales[0], **slim)
        keys, values = (
            column(*parts.strips(read[part][place], slots, role=role, scale=scales[part], **slim), down=0.03)
            for part, role in ((1, "key"), (2, "value"))
        )
        seen = parts.scene(look, 1.2, look.seen(weights[place, token]), [token - 1] if token else [], "query")
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
        matrix(look.weight(f"blocks.{block}.attention.projection")[:6, :12], 0.8, 0.4),
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
def draw_block(config: ViTConfig, image=None, *, model=None) -> Axes:
    """One encoder block from bottom to top: the residual stream straight up, attention and MLP beside it."""
    look = parts.Look(config, image, model)
    both, maps = [0, look.eye], f"{config.heads} map{'s' * (config.heads > 1)} of {config.tokens:,}"
    stream = [look[f"blocks.0{name}"] for name in ("", ".norm_2.input", ".norm_1.input")]

    def card(numbers: np.ndarray, tokens: list, scale: layout.Number = 0) -> Part:
        faces = [parts.face(look, token, 0.22) for token in tokens]
        strips = parts.strips(numbers, tokens, 1.44, scale=scale)
        return box(parts.stack(faces, strips, high=0.3), pad=0.06, fill="white", edge=layout.QUIET, line=1)

    last, middle, first = (card(numbers, both, parts.scale_of(both, *stream)) for numbers in stream)
    size, empty, branches = shape(config, "tokens dim"), [None] * 4, []
    rows = [[*empty, Part(0, 0.1)], [size, last, None, None, None]]
    for step, norm, role, below, said, counted in (
        ("mlp", "norm_2", "value", middle, "each token by itself:", f"through {config.tokens:,} × {config.hidden:,}"),
        ("attention", "norm_1", "query", first, "between the tokens:", f"{maps} × {config.tokens:,}"),
    ):
        added, normed = (card(look[f"blocks.0.{name}"], both[1:]) for name in (step, norm))
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
def draw_shapes(config: ViTConfig, image=None, *, model=None) -> Axes:
    """The shapes from image to logits, on one line."""
    look, read = parts.Look(config, image, model, head=True), config.pooling == "class"
    flat = patchify(look.image[None], config.patch_size)[0].numpy()
    positions = "" if config.positions == "none" else "+ positions,\n"
    blocks = f"{positions}{config.depth} block{'s' * (config.depth > 1)}, norm"
    lists = [[None, parts.scene(look, 0.95, lines=True), replace(shape(config, "channels height width"), width=1.4)]]
    tokens = []
    for step, numbers, axes, role in (
        ("cut", flat, "patches patch_dim", "patch"),
        ("× E", look["patch_embedding"], "patches dim", "patch"),
        ("★ first", look["class_token"], "tokens dim", "class"),
        (blocks, look["norm"], "tokens dim", "patch"),
        ("take ★" if read else "mean", look.features[None], "dim", "class" if read else "patch"),
        ("head", look["head"][None], "classes", "neutral"),
    ):
        high, wide = (min(0.1 * np.log2(max(size, 2)), 1.1) for size in numbers.shape)
        rows, cols = max(1, round(high * 12)), max(1, round(wide * 12))
        table = matrix(numbers[:rows, :cols], wide, high if len(numbers) > 1 else 0.13, role)
        tokens += [(table, high / rows)] if axes == "tokens dim" else []
        lists.append([replace(head(step, layout.WORDS + 0.5), width=0), arrow(0.3), None])
        lists.append([None, column(table, Part(0.9, 0), down=0), replace(shape(config, axes), width=0)])
    how = "These are the shapes of one image; a batch adds an axis in front. Sizes are drawn on a log scale."
    body = columns(*lists, across=0.04, down=0.2)
    sheet = layout.page("Every shape from image to answer", how, body, f"{look.ran} The class token is framed.")
    for table, cell in tokens:
        sheet.rectangle(table.x, table.top - cell / 2, table.width, cell, edge=ROLES["class"], line=2)
    return sheet.done()


@style()
def draw_vit(config: ViTConfig, image=None, *, model=None) -> Axes:
    """The whole model on one page, from the image on the left to the answer on the right, in seven steps."""
    look, read = parts.Look(config, image, model, head=True), config.pooling == "class"
    slots, positions, size = parts.followed(look), config.positions != "none", shape(config, "tokens dim")

    def step(number: int, text: str) -> Part:
        disc = words(str(number), 9.5, bold=True, colour="white")
        disc = box(disc, width=0.25, height=0.25, fill=ROLES["neutral"], line=0, radius=0.125)
        return replace(row(disc, head(text), across=0.08), align=0)

    def one(number: int, text: str) -> Part:
        return replace(column(step(number, text), Part(0, 0.25)), align=0)

    before, added = look["class_token"], look["position_embedding"] - look["class_token"]
    scaled = dict(width=0.95, cells=8, scale=parts.scale_of(slots, before, added, cells=8))
    tokens, places = parts.strips(before, slots, **scaled), parts.strips(added, slots, role="position", **scaled)
    plus = [token if token is None else sign("+", 12) for token in slots]
    embedded = parts.stack(parts.faces(look, slots, 0.3), tokens, high=0.44)
    third = [parts.stack(plus, places, high=0.44), size] if positions else [None, None]
    cut = column(parts.scene(look, 1.7), arrow(0.3, up=-1), parts.apart(look, 1.7, 0.12))

    seen = parts.scene(look, 0.48, look.seen(look["blocks.0.attention.weights"][0, look.eye]))
    heads = words(f"{config.heads} head{'s' * (config.heads > 1)}")
    attention = box(column(head("attention"), seen, heads, down=0.03), "query", 1.1, pad=0.05)
    mlp = box(column(head("MLP"), words(f"{config.hidden:,} wide"), down=0), "value", 1.1)
    norms, joins = [box("LayerNorm", width=1.1, height=0.26) for _ in range(2)], [parts.plus(0.1), parts.plus(0.1)]
    stream, gap = [None, joins[1], None, None, joins[0], None, None], Part(0, 0.2)
    beside = [gap, None, mlp, column(norms[1], gap), None, attention, column(norms[0], gap)]
    inside = columns(stream, beside, across=0.2, down=0.1)
    blocks = box(inside, fill=layout.pale("neutral", 0.05), level=layout.BAND, copies=1 if config.depth == 1 else 3)
    features = strip(look.features, "class" if read else "patch", 1.3, cells=8)
    fixed = [features, shape(config, "dim"), box("head", width=1.3), step(7, "classify"), parts.bars(look, 1.3, 1.0)]
    down = arrow((blocks.height - sum(part.height for part in fixed) - 0.48) / 2, up=-1)  # as high as the blocks
    answer = column(*fixed[:2], down, fixed[2], down, *fixed[3:])
    looking = "once" if config.depth == 1 else f"{config.depth} times"
    who = "the class token ★ answers" if read else "their mean answers"
    body = columns(
        [one(1, "cut"), cut, shape(config, "channels height width")],
        [None, arrow(0.3), None],
        [column(step(2, "embed patches"), step(3, "put ★ first")), embedded, size],
        [one(4, "add positions" if positions else "no positions"), *third],
        [None, Part(0.1, 0), None],
        [one(5, f"{config.depth} encoder block{'s' * (config.depth > 1)}"), blocks, size],
        [one(6, "norm, take ★" if read else "norm, take mean"), answer, shape(config, "classes")],
    )
    how = f"{config.patches:,} patches become {config.tokens:,} tokens, which look at one another {looking}; {who}."
    sheet = layout.page("The Vision Transformer on one page", how, body, look.ran)
    last = places if positions else tokens
    leave, turn, entry, x = last[0].right + 0.15, blocks.left - 0.12, blocks.bottom + 0.15, joins[0].x
    ends = [(leave - 0.07, last[0].top), (leave, last[0].top), (leave, last[-1].bottom)]
    sheet.line(*ends, (leave - 0.07, last[-1].bottom), width=1.1)
    sheet.line((leave, blocks.y), (turn, blocks.y), (turn, entry), (x, entry), (x, features.y))
    sheet.arrow((x, features.y), (features.left - 0.06, features.y))
    for fork, norm, work, join in zip((entry, joins[0].top), norms, (attention, mlp), joins, strict=True):
        parts.branch(sheet, (fork + norm.bottom) / 2, norm, work, join)
    return sheet.done()
