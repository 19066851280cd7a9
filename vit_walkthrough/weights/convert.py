"""One ViT in four vocabularies: what timm, torchvision, transformers and Google call the tensors of our model."""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from einops import EinopsError, rearrange
from torch import Tensor, nn

from vit_walkthrough.model.config import SIZES, ViTConfig
from vit_walkthrough.model.tokens import resample_positions
from vit_walkthrough.model.vit import ClassificationHead, VisionTransformer

# Our names, and theirs as they stand in the published files. {} is the number of the block; where a name breaks off,
# "weight" and "bias" follow. Three names in one row are queries, keys and values, which we keep in one matrix.
NAMES = {
    "timm": {
        "patch_embedding.projection.": "patch_embed.proj.",
        "class_token.token": "cls_token",
        "position_embedding.positions": "pos_embed",
        "blocks.{}.norm_1.": "blocks.{}.norm1.",
        "blocks.{}.attention.qkv.": "blocks.{}.attn.qkv.",
        "blocks.{}.attention.projection.": "blocks.{}.attn.proj.",
        "blocks.{}.norm_2.": "blocks.{}.norm2.",
        "blocks.{}.mlp.expand.": "blocks.{}.mlp.fc1.",
        "blocks.{}.mlp.contract.": "blocks.{}.mlp.fc2.",
        "norm.": "norm.",
        "head.hidden.0.": "pre_logits.fc.",
        "head.logits.": "head.",
    },
    "torchvision": {
        "patch_embedding.projection.": "conv_proj.",
        "class_token.token": "class_token",
        "position_embedding.positions": "encoder.pos_embedding",
        "blocks.{}.norm_1.": "encoder.layers.encoder_layer_{}.ln_1.",
        "blocks.{}.attention.qkv.": "encoder.layers.encoder_layer_{}.self_attention.in_proj_",
        "blocks.{}.attention.projection.": "encoder.layers.encoder_layer_{}.self_attention.out_proj.",
        "blocks.{}.norm_2.": "encoder.layers.encoder_layer_{}.ln_2.",
        "blocks.{}.mlp.expand.": "encoder.layers.encoder_layer_{}.mlp.linear_1.",
        "blocks.{}.mlp.contract.": "encoder.layers.encoder_layer_{}.mlp.linear_2.",
        "norm.": "encoder.ln.",
        "head.hidden.0.": "heads.pre_logits.",
        "head.logits.": "heads.head.",
    },
    "transformers": {
        "patch_embedding.projection.": "embeddings.patch_embeddings.projection.",
        "class_token.token": "embeddings.cls_token",
        "position_embedding.positions": "embeddings.position_embeddings",
        "blocks.{}.norm_1.": "encoder.layer.{}.layernorm_before.",
        "blocks.{}.attention.qkv.": (
            "encoder.layer.{}.attention.attention.query.",
            "encoder.layer.{}.attention.attention.key.",
            "encoder.layer.{}.attention.attention.value.",
        ),
        "blocks.{}.attention.projection.": "encoder.layer.{}.attention.output.dense.",
        "blocks.{}.norm_2.": "encoder.layer.{}.layernorm_after.",
        "blocks.{}.mlp.expand.": "encoder.layer.{}.intermediate.dense.",
        "blocks.{}.mlp.contract.": "encoder.layer.{}.output.dense.",
        "norm.": "layernorm.",
        "head.hidden.0.": "pooler.dense.",
        "head.logits.": "classifier.",
    },
    "google": {
        "patch_embedding.projection.": "embedding/",
        "class_token.token": "cls",
        "position_embedding.positions": "Transformer/posembed_input/pos_embedding",
        "blocks.{}.norm_1.": "Transformer/encoderblock_{}/LayerNorm_0/",
        "blocks.{}.attention.qkv.": (
            "Transformer/encoderblock_{}/MultiHeadDotProductAttention_1/query/",
            "Transformer/encoderblock_{}/MultiHeadDotProductAttention_1/key/",
            "Transformer/encoderblock_{}/MultiHeadDotProductAttention_1/value/",
        ),
        "blocks.{}.attention.projection.": "Transformer/encoderblock_{}/MultiHeadDotProductAttention_1/out/",
        "blocks.{}.norm_2.": "Transformer/encoderblock_{}/LayerNorm_2/",
        "blocks.{}.mlp.expand.": "Transformer/encoderblock_{}/MlpBlock_3/Dense_0/",
        "blocks.{}.mlp.contract.": "Transformer/encoderblock_{}/MlpBlock_3/Dense_1/",
        "norm.": "Transformer/encoder_norm/",
        "head.hidden.0.": "pre_logits/",
        "head.logits.": "head/",
    },
}

# What the libraries' models of today say instead, and the prefix of a ViT inside another model.
RESPELLED = {
    "torchvision": {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."},
    "transformers": {
        "vit.": "",
        "layers.": "encoder.layer.",
        "attention.q_proj.": "attention.attention.query.",
        "attention.k_proj.": "attention.attention.key.",
        "attention.v_proj.": "attention.attention.value.",
        "attention.o_proj.": "attention.output.dense.",
        "mlp.fc1.": "intermediate.dense.",
        "mlp.fc2.": "output.dense.",
    },
}

# Flax multiplies tokens @ kernel, so its kernels are (in, out); torch's weights are (out, in).
GOOGLE_LAYOUT = {
    "patch_embedding.projection.weight": "ph pw channels dim -> dim channels ph pw",
    "attention.qkv.weight": "dim heads head_dim -> (heads head_dim) dim",
    "attention.qkv.bias": "heads head_dim -> (heads head_dim)",
    "attention.projection.weight": "heads head_dim dim -> dim (heads head_dim)",
    "mlp.expand.weight": "dim hidden -> hidden dim",
    "mlp.contract.weight": "hidden dim -> dim hidden",
    "head.hidden.0.weight": "dim hidden -> hidden dim",
    "head.logits.weight": "width classes -> classes width",
}

# What only another architecture has.
FOREIGN = {
    r"dist_token|distillation|head_dist": "a distilled ViT (DeiT), which has one more token and one more head",
    r"patch_embed(dings)?\.backbone|conv_root|root_block": "a hybrid, which has a ResNet in front of the encoder",
    r"relative_position|^swin|^layers\.\d+\.(blocks|downsample)|^features\.\d+\.\d+\.": "a Swin or another ViT with "
    "relative positions or windows",
    r"reg_token|register": "a ViT with register tokens",
    r"\.gamma|gamma_\d|\.ls[12]|lambda1|layer_scale": "a ViT with LayerScale, as DINOv2",
    r"fc_norm": "a ViT that averages the patches before its last LayerNorm",
}


def tensor_names(source: str, depth: int) -> dict[str, tuple[str, ...]]:
    """Every parameter of a ViT with `depth` blocks -> the tensors that fill it in a checkpoint of the source.

    Raises: ValueError for an unknown source.
    """
    if source not in NAMES:
        raise ValueError(f"source {source!r} is unknown; choose one of {', '.join(NAMES)}")
    found = {}
    for ours, theirs in NAMES[source].items():
        theirs = (theirs,) if isinstance(theirs, str) else theirs
        for block in range(depth if "{}" in ours else 1):
            for kind in ("weight", "bias") if ours.endswith(".") else ("",):
                ending = kind
                if source == "google" and kind == "weight":
                    ending = "scale" if "norm" in ours else "kernel"
                found[ours.format(block) + kind] = tuple(name.format(block) + ending for name in theirs)
    return found


def guess_source(names: Iterable[str]) -> str | None:
    """Whose names these are, judged by what the class token is called; None if nobody's."""
    names = set(names)
    for source in NAMES:
        if NAMES[source]["class_token.token"] in {_respelled(name, source) for name in names}:
            return source
    return None


@torch.no_grad()
def convert_weights(
    state: Mapping,
    source: str,
    *,
    heads: int | None = None,
    classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
    mode: Literal["bicubic", "bilinear"] = "bicubic",
    eps: float = 1e-6,
) -> VisionTransformer:
    """Our ViT with the weights of a checkpoint, in eval mode; its config is read from the shapes of the tensors.

    state: names to tensors or arrays, left as they are. source: "timm", "torchvision", "transformers" or "google".
    heads: the one size that no tensor tells (but Google's do); that of the published ViT with this dim unless given,
    else dim / 64. classes: as many as the checkpoint's head has; for another number, a new head that starts at zero
    takes its place. image_size: another than the weights were trained for; the positions are resampled with `mode`.
    grid: rows and cols of the trained positions if they are no square. eps: of every LayerNorm.

    A checkpoint without a head gives a model that returns what the head would have read, (batch dim), and whose
    config.classes is dim. One with a hidden layer before the logits keeps it, with its tanh.

    Raises: ValueError unless every parameter is filled and every tensor used; the message lists what is missing and
    what is left over, or says what other architecture this is.
    Source: section 3.1 and D.3 for the heads, 3.2 for another resolution.
    """
    theirs = _tensors(state, source)
    depth, filling = _filling(theirs, source)
    _check_names(theirs, filling, source)
    weights = {ours: [_laid_out(theirs[name], ours, name, source) for name in names] for ours, names in filling.items()}

    published = weights["head.logits.bias"][0].numel() if "head.logits.bias" in weights else None
    new_head = classes is not None and classes != published
    if new_head:  # D.3: at fine-tuning the whole head goes
        weights = {ours: tensors for ours, tensors in weights.items() if not ours.startswith("head.")}
    width = weights["head.hidden.0.bias"][0].numel() if "head.hidden.0.bias" in weights else None

    kernel, positions = weights["patch_embedding.projection.weight"][0], weights["position_embedding.positions"][0]
    if kernel.ndim != 4 or kernel.shape[2] != kernel.shape[3] or positions.ndim != 3:
        raise ValueError(f"no ViT: a patch kernel of {tuple(kernel.shape)}, positions of {tuple(positions.shape)}")
    dim, channels, patch_size, _ = kernel.shape
    rows, cols = grid = grid or _square(positions)
    trained = rows * patch_size if rows == cols else (rows * patch_size, cols * patch_size)
    config = ViTConfig(
        image_size=trained if image_size is None else image_size,
        patch_size=patch_size,
        channels=channels,
        dim=dim,
        depth=depth,
        heads=_heads(theirs, source, dim, heads),
        hidden=weights["blocks.0.mlp.expand.bias"][0].numel(),
        classes=(published or width or dim) if classes is None else classes,
    )
    weights["patch_embedding.projection.weight"] = [kernel.flatten(1)]
    weights["position_embedding.positions"] = [
        resample_positions(positions.float(), config.rows, config.cols, mode, grid)
    ]

    model = empty_model(config, eps=eps, head_hidden=width, headless=published is None and not new_head)
    _check_shapes(model, weights, filling)
    model.to_empty(device="cpu")
    for ours, parameter in model.named_parameters():
        tensors = weights.get(ours, [torch.zeros(())])  # only a new head has nothing to be filled with
        for part, tensor in zip(parameter.chunk(len(tensors)), tensors, strict=True):
            part.copy_(tensor)
    return model.eval()


def empty_model(
    config: ViTConfig, *, eps: float = 1e-6, head_hidden: int | None = None, headless: bool = False
) -> VisionTransformer:
    """A model on the meta device: shapes without memory, and without dice for what will be filled anyway.

    eps: of every LayerNorm. head_hidden: the width of a layer with a tanh before the logits. headless: without logits.

    Raises: ValueError for an eps or a width that is not positive.
    """
    if not eps > 0 or (head_hidden is not None and head_hidden < 1):
        raise ValueError(f"eps is {eps} and head_hidden {head_hidden}; they must be positive")
    with torch.device("meta"):
        model = VisionTransformer(config)
        model.head = ClassificationHead(config.dim, config.classes, head_hidden)
        if headless:
            model.head.logits = nn.Identity()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = eps
    return model


def _respelled(name: str, source: str) -> str:
    for theirs, published in RESPELLED.get(source, {}).items():
        name = name.replace(theirs, published)
    return name


def _tensors(state: Mapping, source: str) -> dict:
    """The checkpoint under the names of the table, refused if it is seen to be another architecture's."""
    tensor_names(source, 1)
    for sign, what in FOREIGN.items():
        if tell := next((name for name in state if re.search(sign, name)), None):
            raise ValueError(f"this is {what} (it holds {tell}); only the paper's ViT can be converted")
    theirs = {_respelled(name, source): tensor for name, tensor in state.items()}
    if len(theirs) != len(state):
        raise ValueError("two tensors of the checkpoint mean the same parameter, in an older and a newer spelling")
    return theirs


def _filling(theirs: Mapping, source: str) -> tuple[int, dict[str, tuple[str, ...]]]:
    """The number of blocks, and what must fill what: the whole table, but for a head of which nothing is there."""
    block = re.escape(NAMES[source]["blocks.{}.norm_1."]).replace(r"\{\}", r"(\d+)")
    depth = len({found[1] for name in theirs if (found := re.match(block, name))})
    absent = tuple(
        part
        for part in ("head.hidden.0.", "head.logits.")
        if not any(name.startswith(NAMES[source][part]) for name in theirs)
    )
    names = tensor_names(source, max(depth, 1))
    return depth, {ours: tensors for ours, tensors in names.items() if not ours.startswith(absent)}


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _check_names(theirs: Mapping, filling: Mapping, source: str) -> None:
    wanted = [name for names in filling.values() for name in names]
    missing = [name for name in wanted if name not in theirs]
    left = [name for name in theirs if name not in set(wanted)]
    faults = [f"missing: {_listed(missing)}"] * bool(missing) + [f"left over: {_listed(left)}"] * bool(left)
    if faults:
        other = guess_source(theirs)
        hint = f". The names are {other}'s" if other not in (None, source) else ""
        raise ValueError(f"this is no ViT of {source}; {'; '.join(faults)}{hint}")


def _laid_out(tensor, ours: str, name: str, source: str) -> Tensor:
    """A view of the tensor with its axes in our order; the patch kernel still as (dim channels ph pw)."""
    pattern = GOOGLE_LAYOUT.get(re.sub(r"blocks\.\d+\.", "", ours)) if source == "google" else None
    try:
        tensor = torch.as_tensor(tensor)
        if not tensor.is_floating_point():
            raise ValueError(f"{name} holds {tensor.dtype}, not weights; what is quantised cannot be converted")
        return rearrange(tensor, pattern) if pattern else tensor
    except EinopsError as error:
        axes = pattern.split(" -> ")[0]
        raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, expected ({axes})") from error
    except (TypeError, RuntimeError) as error:  # what torch.as_tensor raises
        raise ValueError(f"{name} is no tensor of numbers ({error})") from error


def _square(positions: Tensor) -> tuple[int, int]:
    patches = positions.shape[1] - 1
    side = round(max(patches, 0) ** 0.5)
    if side**2 != patches:
        raise ValueError(f"positions for {patches + 1} tokens are no class token and a square; say grid=(rows, cols)")
    return side, side


def _heads(theirs: Mapping, source: str, dim: int, told: int | None) -> int:
    if source == "google":
        found = theirs["Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel"].shape[1]
        if told not in (None, found):
            raise ValueError(f"heads {told}, but the kernels of the checkpoint have {found}")
        return found
    known = {size: heads for size, _, heads, _ in SIZES.values()}
    if told is None and dim not in known and dim % 64:
        raise ValueError(f"how many heads a ViT of dim {dim} has cannot be told from its weights; say heads=")
    return known.get(dim, dim // 64) if told is None else told


def _check_shapes(model: nn.Module, weights: Mapping, filling: Mapping) -> None:
    wrong = []
    for ours, tensors in weights.items():
        for part, tensor, name in zip(
            model.get_parameter(ours).chunk(len(tensors)), tensors, filling[ours], strict=True
        ):
            if tensor.shape != part.shape:
                wrong.append(f"{name} gives {tuple(tensor.shape)}, expected {tuple(part.shape)}")
    if wrong:
        raise ValueError(f"tensors of the wrong shape: {'; '.join(wrong[:4])}")
