"""One ViT in four vocabularies: what timm, torchvision, transformers and Google call the tensors of our model."""

import re
from collections.abc import Mapping
from math import isqrt

import torch
from einops import rearrange
from torch import Tensor, nn

from vit_walkthrough.model.config import SIZES, ViTConfig
from vit_walkthrough.model.vit import VisionTransformer
from vit_walkthrough.weights.checkpoint import empty_model, misfits

SOURCES = ("timm", "torchvision", "transformers", "google")
# Our names, and those in the files of each source. Names within a block begin with BLOCK, where {} is its number. After
# a dot of ours follows "weight" or "bias". * is query, key and value: we keep the three in one.
BLOCK = ("blocks.{}.", "encoder.layers.encoder_layer_{}.", "encoder.layer.{}.", "Transformer/encoderblock_{}/")
QKV, OUT = "MultiHeadDotProductAttention_1/*/", "MultiHeadDotProductAttention_1/out/"  # too long for the table
PATCHES, POSITIONS = "embeddings.patch_embeddings.projection.", "Transformer/posembed_input/pos_embedding"
NAMES = {
    "patch_embedding.projection.": ("patch_embed.proj.", "conv_proj.", PATCHES, "embedding/"),
    "class_token.token": ("cls_token", "class_token", "embeddings.cls_token", "cls"),
    "position_embedding.positions": ("pos_embed", "encoder.pos_embedding", "embeddings.position_embeddings", POSITIONS),
    "blocks.{}.norm_1.": ("norm1.", "ln_1.", "layernorm_before.", "LayerNorm_0/"),
    "blocks.{}.attention.qkv.": ("attn.qkv.", "self_attention.in_proj_", "attention.attention.*.", QKV),
    "blocks.{}.attention.projection.": ("attn.proj.", "self_attention.out_proj.", "attention.output.dense.", OUT),
    "blocks.{}.norm_2.": ("norm2.", "ln_2.", "layernorm_after.", "LayerNorm_2/"),
    "blocks.{}.mlp.expand.": ("mlp.fc1.", "mlp.linear_1.", "intermediate.dense.", "MlpBlock_3/Dense_0/"),
    "blocks.{}.mlp.contract.": ("mlp.fc2.", "mlp.linear_2.", "output.dense.", "MlpBlock_3/Dense_1/"),
    "norm.": ("norm.", "encoder.ln.", "layernorm.", "Transformer/encoder_norm/"),
    "head.hidden.0.": ("pre_logits.fc.", "heads.pre_logits.", "pooler.dense.", "pre_logits/"),
    "head.logits.": ("head.", "heads.head.", "classifier.", "head/"),
}
# The axes of Google's weights and of ours, where they differ, by our names within a block. Flax multiplies tokens @
# kernel, so its kernels are (in, out); torch's weights are (out, in).
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
# How the libraries' models of today spell some of these, and the prefix of a ViT inside another model.
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
# The classes of which the libraries build the paper's ViT, beside the activations.
PARTS = set(
    "VisionTransformer Encoder EncoderBlock MultiheadAttention MLPBlock PatchEmbed Block Attention Mlp "
    "ViTModel ViTForImageClassification ViTEmbeddings ViTPatchEmbeddings ViTEncoder ViTLayer ViTAttention "
    "ViTSelfAttention ViTSelfOutput ViTIntermediate ViTOutput ViTMLP ViTPooler Conv2d Linear "
    "NonDynamicallyQuantizableLinear LayerNorm Dropout DropPath PatchDropout Identity Sequential ModuleList".split()
)
PUBLISHED_HEADS = {dim: heads for dim, _, heads, _ in SIZES.values()}


def tensor_names(source: str, depth: int) -> dict[str, tuple[str, ...]]:
    """Every parameter of a ViT with `depth` blocks -> the tensors that fill it in a checkpoint of the source. Raises:
    ValueError for an unknown source."""
    if source not in SOURCES:
        raise ValueError(f"source {source!r} is unknown; choose one of {', '.join(SOURCES)}")
    column, found = SOURCES.index(source), {}
    for ours, row in NAMES.items():
        in_block, theirs = ours.startswith("blocks"), row[column]
        spelled = [theirs.replace("*", part) for part in ("query", "key", "value")] if "*" in theirs else [theirs]
        weight = "weight" if source != "google" else "scale" if "norm" in ours else "kernel"
        endings = {"weight": weight, "bias": "bias"} if ours.endswith(".") else {"": ""}
        for block in range(depth if in_block else 1):
            begin = BLOCK[column].format(block) if in_block else ""
            for our_ending, ending in endings.items():
                found[ours.format(block) + our_ending] = tuple(begin + name + ending for name in spelled)
    return found


@torch.no_grad()
def convert_weights(
    model_or_state: nn.Module | Mapping, source: str, *, heads: int | None = None, eps: float | None = None
) -> VisionTransformer:
    """Our ViT with the weights of another one, in eval mode and in 32 bits. The two share no memory.

    model_or_state: a library's model, which says its own heads, image size and eps; or names to tensors or arrays.
    source: one of SOURCES; Google's tensors show the heads. heads: by default those of the published ViT of this dim.
    eps: of every LayerNorm; transformers' is 1e-12.

    Weights without a classification head give a model that returns what the head would read, (batch dim), and whose
    config.classes is dim. A hidden layer before the logits is kept, with its tanh.

    Raises: ValueError unless every parameter is filled and every tensor is used; for a model with other parts than the
    paper's ViT; for heads or eps that are not known, or that differ from what was said.
    Source: section 3.1; D.3 for the head.
    """
    facts, state = {}, model_or_state
    if isinstance(state, nn.Module):
        facts, state = _facts(state), state.state_dict()
    theirs = {}
    for name, tensor in state.items():
        for today, published in RESPELLED.get(source, {}).items():
            name = name.replace(today, published)
        theirs[name] = tensor
    depth, filling = _filling(theirs, source)
    weights = {ours: _copy([theirs[name] for name in names], ours, names, source) for ours, names in filling.items()}

    kernel, positions = weights["patch_embedding.projection.weight"], weights["position_embedding.positions"]
    if kernel.ndim != 4 or kernel.shape[2] != kernel.shape[3] or positions.ndim != 3:
        raise ValueError(f"not a ViT: a patch kernel of {tuple(kernel.shape)}, positions of {tuple(positions.shape)}")
    weights["patch_embedding.projection.weight"] = kernel.flatten(1)
    (dim, channels, patch_size, _), patches = kernel.shape, positions.shape[1] - 1
    if source == "google":
        facts["heads"] = len(theirs[filling["blocks.0.attention.qkv.bias"][0]])
    for name, said, usual in (("heads", heads, PUBLISHED_HEADS.get(dim)), ("eps", eps, 1e-6)):
        fact = facts.setdefault(name, usual if said is None else said)
        if fact is None:
            raise ValueError(f"tensors of dim {dim} do not show the {name} of this ViT; say {name}=")
        if said not in (None, fact):
            raise ValueError(f"{name} is {said}, but the weights have {fact}")

    side = isqrt(patches) * patch_size
    pooled, logits = (len(weights.get(f"head.{part}.bias", ())) for part in ("hidden.0", "logits"))
    sizes = dict(dim=dim, depth=depth, heads=facts["heads"], hidden=len(weights["blocks.0.mlp.expand.bias"]))
    sizes |= dict(channels=channels, classes=logits or pooled or dim)
    config = ViTConfig(facts.get("sides", side), patch_size, **sizes)
    model = empty_model(config, eps=facts["eps"], head_hidden=pooled or None, headless=not logits)
    if wrong := misfits(model, weights):
        raise ValueError(f"tensors of the wrong shape, by our names: {wrong}")
    model.load_state_dict(weights, assign=True)
    return model.eval()


def _facts(model: nn.Module) -> dict:
    """What no tensor shows: heads, sides of the images, eps. Refused unless all parts are those of the paper's ViT."""
    refused = "only the paper's ViT can be converted, but"
    if (beside := getattr(model, "num_prefix_tokens", 1)) != 1:  # timm's name for what stands before the patches
        raise ValueError(f"{refused} this model has {beside} tokens before its patches, not the class token alone")
    for name, part in model.named_modules():
        # The activation is a GELU within the blocks, which have a number, and a tanh in a head.
        activations = {"GELU", "GELUActivation"} if re.search(r"\d", name) else {"Tanh"}
        kind, pool = type(part).__name__, getattr(part, "global_pool", "token")
        if kind not in PARTS | activations or getattr(part, "approximate", "none") != "none":
            raise ValueError(f"{refused} {name or 'this'} is a {kind} ({part.extra_repr()})")
        if pool != "token":
            raise ValueError(f"{refused} this model pools by {pool!r}, not by the class token")
    facts = {"heads": ("num_heads", "num_attention_heads"), "sides": ("img_size", "image_size"), "eps": ("eps",)}
    for fact, names in facts.items():
        said = [getattr(part, name, None) for part in model.modules() for name in names]
        values = {tuple(value) if isinstance(value, list) else value for value in said} - {None}
        if len(values) != 1:
            raise ValueError(f"{refused} the parts of this model have {fact} {values}")
        facts[fact] = values.pop()
    return facts


def _filling(theirs: Mapping, source: str) -> tuple[int, dict[str, tuple[str, ...]]]:
    """The number of blocks, and which tensors fill what. A part of the head of which nothing is there is left out."""
    tensor_names(source, 1)  # refuses an unknown source
    block = re.escape(BLOCK[SOURCES.index(source)]).replace(r"\{\}", r"(\d+)")
    depth = len({found[1] for name in theirs if (found := re.match(block, name))})
    filling = tensor_names(source, max(depth, 1))
    for part in ("head.hidden.0", "head.logits"):
        if filling[f"{part}.weight"][0] not in theirs and filling[f"{part}.bias"][0] not in theirs:
            del filling[f"{part}.weight"], filling[f"{part}.bias"]
    wanted = dict.fromkeys(name for names in filling.values() for name in names)
    missing = [name for name in wanted if name not in theirs]
    left_over = [name for name in theirs if name not in wanted]
    if missing or left_over:
        told = f"{len(missing)} missing: {', '.join(missing[:4])}; {len(left_over)} left over: "
        raise ValueError(f"this is not a ViT of {source}; {told}{', '.join(left_over[:4])}")
    return depth, filling


def _copy(tensors: list, ours: str, names: tuple[str, ...], source: str) -> Tensor:
    """One parameter of ours from one tensor of theirs, or from queries, keys and values; the patch kernel still 4-D."""
    axes = GOOGLE_LAYOUT.get(re.sub(r"blocks\.\d+\.", "", ours)) if source == "google" else None
    try:
        tensors = [torch.as_tensor(tensor) for tensor in tensors]
        if not all(tensor.is_floating_point() for tensor in tensors):
            raise TypeError(f"numbers of {tensors[0].dtype} are not weights")
        tensors = [rearrange(tensor, axes) if axes else tensor for tensor in tensors]
        return torch.stack([tensor.float() for tensor in tensors]).flatten(0, 1)
    except (TypeError, IndexError, RuntimeError) as error:
        raise ValueError(f"{', '.join(names)} cannot become {ours}: {error}") from error
