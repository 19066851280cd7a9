"""convert.py: the tables of names, strictness in both directions, and what is refused. That the numbers are the peers'
is shown in tests/peers."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.vit import VisionTransformer
from vit_walkthrough.weights.convert import NAMES, convert_weights, guess_source, tensor_names

LIBRARIES = ("timm", "torchvision", "transformers")  # Google's layout differs too: it is written in tests/peers


@pytest.fixture
def config():
    return ViTConfig(image_size=12, patch_size=4, dim=32, depth=2, heads=4, hidden=48, classes=5)


@pytest.fixture
def write(model, config):
    """The model's weights as a library would name and cut them."""

    def write(source: str) -> dict[str, torch.Tensor]:
        state = model.state_dict()
        kernel = state["patch_embedding.projection.weight"].reshape(config.dim, config.channels, 4, 4)
        state["patch_embedding.projection.weight"] = kernel
        return {
            name: part.clone()
            for ours, names in tensor_names(source, config.depth).items()
            if ours in state
            for name, part in zip(names, state[ours].chunk(len(names)), strict=True)
        }

    return write


def converted(state, source, **options) -> VisionTransformer:
    return convert_weights(state, source, **{"heads": 4} | options)


# --- the tables --------------------------------------------------------------------------------------------------


def test_every_table_names_the_same_parameters_of_ours(config):
    first, *others = (list(names) for names in NAMES.values())
    assert all(names == first for names in others)
    ours = set(tensor_names("timm", config.depth))
    assert ours - {"head.hidden.0.weight", "head.hidden.0.bias"} == set(VisionTransformer(config).state_dict())


def test_the_table_of_timm_line_by_line():
    names = tensor_names("timm", 1)
    assert names["class_token.token"] == ("cls_token",)
    assert names["blocks.0.attention.qkv.weight"] == ("blocks.0.attn.qkv.weight",)
    names = tensor_names("google", 2)
    assert names["blocks.1.norm_1.weight"] == ("Transformer/encoderblock_1/LayerNorm_0/scale",)
    assert names["blocks.1.attention.qkv.bias"] == tuple(
        f"Transformer/encoderblock_1/MultiHeadDotProductAttention_1/{part}/bias" for part in ("query", "key", "value")
    )
    assert tensor_names("torchvision", 1)["blocks.0.attention.qkv.weight"] == (
        "encoder.layers.encoder_layer_0.self_attention.in_proj_weight",
    )


@pytest.mark.parametrize("source", LIBRARIES)
def test_whose_names_they_are_can_be_told(write, source):
    assert guess_source(write(source)) == source
    assert guess_source(tensor_names(source, 1)["class_token.token"]) == source
    assert guess_source(["weight", "bias"]) is None


def test_an_unknown_source_is_refused():
    for ask in (lambda: tensor_names("keras", 1), lambda: convert_weights({}, "keras")):
        with pytest.raises(ValueError, match=r"^source 'keras' is unknown; choose one of timm, torchvision, "):
            ask()


# --- there and back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", LIBRARIES)
def test_every_tensor_arrives_bit_by_bit(write, model, config, source):
    state = write(source)
    kept = {name: tensor.clone() for name, tensor in state.items()}
    loaded = converted(state, source)
    assert loaded.config == config
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert all(torch.equal(tensor, kept[name]) for name, tensor in state.items())
    assert not loaded.training


def test_arrays_do_as_well(write, model):
    arrays = {name: tensor.numpy() for name, tensor in write("timm").items()}
    images = torch.rand(2, 3, 12, 12)
    assert torch.equal(converted(arrays, "timm")(images), model(images))


def test_no_dice_are_thrown(write):
    before = torch.get_rng_state()
    converted(write("timm"), "timm", classes=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("dim", "heads"), [(192, 3), (384, 6), (768, 12), (1024, 16), (1280, 16), (64, 1), (512, 8)])
def test_the_heads_of_the_published_sizes_are_known(dim, heads):
    model = VisionTransformer(ViTConfig(8, 8, dim=dim, depth=1, heads=1, hidden=8, classes=2))
    state = {theirs: model.state_dict().get(ours) for ours, (theirs,) in tensor_names("timm", 1).items()}
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].reshape(dim, 3, 8, 8)
    assert convert_weights(state, "timm").config.heads == heads


def test_the_heads_of_another_size_must_be_said(write):
    message = "how many heads a ViT of dim 32 has cannot be told from its weights; say heads="
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        convert_weights(write("timm"), "timm")
    with pytest.raises(ValueError, match="heads 5 does not divide dim 32"):
        converted(write("timm"), "timm", heads=5)


@pytest.mark.parametrize("option", [{"classes": 0}, {"classes": -1}, {"image_size": 0}, {"heads": 0}], ids=str)
def test_no_option_of_zero_is_taken_for_none(write, option):
    with pytest.raises(ValueError, match="must be at least 1"):
        converted(write("timm"), "timm", **option)


def test_without_a_head_the_features_come_out(write, model):
    state = {name: tensor for name, tensor in write("timm").items() if not name.startswith("head.")}
    loaded, images = converted(state, "timm"), torch.rand(2, 3, 12, 12)
    assert loaded.config.classes == 32
    model.head = nn.Identity()
    assert torch.equal(loaded(images), model(images))
    assert torch.equal(converted(state, "timm", classes=3)(images), torch.zeros(2, 3))


def test_a_new_head_replaces_the_hidden_layer_too(write):
    state = write("timm") | {"pre_logits.fc.weight": torch.rand(20, 32), "pre_logits.fc.bias": torch.rand(20)}
    state["head.weight"] = torch.rand(5, 20)
    assert converted(state, "timm").head.logits.in_features == 20
    loaded = converted(state, "timm", classes=3)
    assert isinstance(loaded.head.hidden, nn.Identity)
    assert loaded.head.logits.weight.shape == (3, 32)


# --- strict in both directions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", LIBRARIES)
def test_no_tensor_can_be_left_out(write, source):
    state = write(source)
    for name in state:
        without = {other: tensor for other, tensor in state.items() if other != name}
        with pytest.raises(ValueError, match=rf"(missing|left over): .*{re.escape(name)}|missing: {re.escape(name)}"):
            converted(without, source)


def test_nothing_may_be_left_over(write):
    state = write("timm") | {"decoder.weight": torch.rand(2), "blocks.0.attn.extra": torch.rand(2)}
    message = "this is no ViT of timm; left over: decoder.weight, blocks.0.attn.extra"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        converted(state, "timm")


def test_of_many_names_four_are_listed_and_the_others_named(write):
    with pytest.raises(ValueError, match="missing") as caught:
        converted(write("torchvision"), "timm")
    assert str(caught.value) == (
        "this is no ViT of timm; missing: patch_embed.proj.weight, patch_embed.proj.bias, cls_token, pos_embed and 14 "
        "more; left over: conv_proj.weight, conv_proj.bias, class_token, encoder.pos_embedding and 28 more. "
        "The names are torchvision's"
    )


def test_a_gap_between_the_blocks_is_seen(write):
    state = {name.replace("blocks.1.", "blocks.2."): tensor for name, tensor in write("timm").items()}
    with pytest.raises(ValueError, match=r"missing: blocks\.1\.norm1\.weight.* left over: blocks\.2\.norm1\.weight"):
        converted(state, "timm")


def test_an_empty_checkpoint_is_refused():
    with pytest.raises(ValueError, match="this is no ViT of google; missing: embedding/kernel"):
        convert_weights({}, "google")


def test_one_parameter_in_two_spellings_is_refused(write):
    state = write("transformers")
    state |= {"vit.layernorm.weight": state["layernorm.weight"]}
    with pytest.raises(ValueError, match="two tensors of the checkpoint mean the same parameter"):
        converted(state, "transformers")


# --- what the tensors may not be ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("norm.bias", torch.rand(33), "norm.bias gives (33,), expected (32,)"),
        ("head.weight", torch.rand(7, 32), "head.weight gives (7, 32), expected (5, 32)"),
        ("blocks.1.attn.qkv.weight", torch.rand(32, 32), "gives (32, 32), expected (96, 32)"),
        ("blocks.1.mlp.fc1.weight", torch.rand(32, 48), "gives (32, 48), expected (48, 32)"),
        ("cls_token", torch.rand(1, 2, 32), "cls_token gives (1, 2, 32), expected (1, 1, 32)"),
        ("pos_embed", torch.rand(1, 10, 31), "pos_embed gives (1, 10, 31), expected (1, 10, 32)"),
        ("pos_embed", torch.rand(10, 32), "no ViT: a patch kernel of (32, 3, 4, 4), positions of (10, 32)"),
        ("pos_embed", torch.rand(1, 9, 32), "positions for 9 tokens are no class token and a square; say grid="),
        ("pos_embed", torch.rand(1, 0, 32), "positions for 0 tokens are no class token and a square; say grid="),
        ("patch_embed.proj.weight", torch.rand(32, 48), "no ViT: a patch kernel of (32, 48)"),
        ("patch_embed.proj.weight", torch.rand(32, 3, 4, 8), "no ViT: a patch kernel of (32, 3, 4, 8)"),
        ("norm.weight", torch.zeros(32, dtype=torch.int8), "norm.weight holds torch.int8, not weights"),
        ("norm.weight", np.zeros(32, dtype="V2"), "norm.weight is no tensor of numbers"),
        ("norm.weight", "a name", "norm.weight is no tensor of numbers"),
        ("norm.weight", None, "norm.weight is no tensor of numbers"),
    ],
    ids=lambda one: one if isinstance(one, str) else type(one).__name__,  # numbers drawn differ between workers
)
def test_a_tensor_of_another_shape_or_kind_is_named(write, name, tensor, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        converted(write("timm") | {name: tensor}, "timm")


def test_a_google_kernel_of_another_rank_is_named(write):
    state = {name: np.zeros(1) for names in tensor_names("google", 1).values() for name in names}
    with pytest.raises(ValueError, match=r"^embedding/kernel has the shape \(1,\), expected \(ph pw channels dim\)$"):
        convert_weights(state, "google")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dist_token", "a distilled ViT"),
        ("deit.embeddings.distillation_token", "a distilled ViT"),
        ("conv_root/kernel", "a hybrid"),
        ("vit.embeddings.patch_embeddings.backbone.bit.embedder.convolution.weight", "a hybrid"),
        ("layers.0.blocks.0.attn.relative_position_bias_table", "a Swin"),
        ("reg_token", "register tokens"),
        ("blocks.0.ls1.gamma", "LayerScale"),
        ("fc_norm.weight", "averages the patches"),
    ],
)
def test_one_name_of_another_architecture_is_enough(write, name, message):
    with pytest.raises(ValueError, match=rf"^this is .*{message}.* \(it holds {re.escape(name)}\); only the paper's"):
        converted(write("timm") | {name: torch.rand(2)}, "timm")


def test_a_size_that_the_patches_do_not_divide_is_refused(write):
    with pytest.raises(ValueError, match="patch_size 4 does not divide image_size 14"):
        converted(write("timm"), "timm", image_size=14)
    with pytest.raises(ValueError, match=r"grid 2 x 4 .*|positions"):
        converted(write("timm"), "timm", grid=(2, 4))


def test_the_class_of_the_reader_takes_them_too(write, model, config):
    """Their class of notebook 07 has the names of ours: it can be filled from the converted model."""
    mine = VisionTransformer(replace(config, dropout=0.5)).eval()
    mine.load_state_dict(converted(write("torchvision"), "torchvision").state_dict())
    images = torch.rand(2, 3, 12, 12)
    assert torch.equal(mine(images), model(images))
