"""convert.py: names, strictness in both directions, and what is refused. The numbers are compared in tests/peers."""

import re

import pytest
import torch

from vit_walkthrough import VisionTransformer, ViTConfig
from vit_walkthrough.weights.convert import SOURCES, convert_weights, tensor_names


@pytest.fixture
def config():
    return ViTConfig(image_size=12, patch_size=4, dim=32, depth=2, heads=4, hidden=48, classes=5)


@pytest.fixture
def write(model):
    """A model's weights as a library would name and cut them."""

    def write(source: str = "timm") -> dict[str, torch.Tensor]:
        sizes, state = model.config, model.state_dict()
        shape = (sizes.dim, sizes.channels, sizes.patch_size, sizes.patch_size)
        state["patch_embedding.projection.weight"] = state["patch_embedding.projection.weight"].reshape(shape)
        return {
            name: part.clone()
            for name, names in tensor_names(source, sizes.depth).items()
            if name in state
            for name, part in zip(names, state[name].chunk(len(names)), strict=True)
        }

    return write


def converted(state, source: str = "timm", **options) -> VisionTransformer:
    return convert_weights(state, source, **{"heads": 4} | options)


def test_the_tables_name_every_parameter_of_ours_once_and_there_is_no_other(config):
    ours = set(VisionTransformer(config).state_dict()) | {"head.hidden.0.weight", "head.hidden.0.bias"}
    for source in SOURCES:
        table = tensor_names(source, config.depth)
        theirs = [name for names in table.values() for name in names]
        assert (set(table), len(set(theirs))) == (ours, len(theirs))
    for ask in (lambda: tensor_names("keras", 1), lambda: convert_weights({}, "keras")):
        with pytest.raises(ValueError, match=r"'keras'.* timm, torchvision, transformers, google"):
            ask()


@pytest.mark.parametrize("source", SOURCES[:3])  # Google's layout differs too: it is written in tests/peers
def test_every_tensor_arrives_bit_by_bit_is_a_copy_and_cannot_be_left_out(write, model, source):
    state, kept, dice = write(source), write(source), torch.get_rng_state()
    loaded = converted(state, source)
    assert torch.equal(torch.get_rng_state(), dice)
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert not any(module.training for module in loaded.modules())
    for parameter in loaded.parameters():
        assert parameter.requires_grad
        parameter.data.zero_()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in state.items())
    for name in state:
        with pytest.raises(ValueError, match=rf"missing: {re.escape(name)}"):
            converted({other: tensor for other, tensor in state.items() if other != name}, source)


def test_arrays_do_as_well_and_weights_in_other_precisions_become_32_bits(write, model):
    arrays, images = {name: tensor.numpy() for name, tensor in write().items()}, torch.rand(2, 3, 12, 12)
    assert torch.equal(converted(arrays)(images), model(images))
    for dtype in (torch.bfloat16, torch.float64):
        loaded = converted({name: tensor.to(dtype) for name, tensor in write().items()}, eps=1e-3)
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
        assert torch.equal(loaded.norm.weight, model.norm.weight.to(dtype).float())
        assert loaded.blocks[0].norm_1.eps == 1e-3


def test_heads_that_no_tensor_shows_must_be_said_and_nothing_may_be_left_over(write):
    state = write()
    assert converted(state, heads=2).config.heads == 2
    for heads, named in ((None, "dim 32 .* heads="), (5, "heads 5 .*32"), (0, "heads is 0")):
        with pytest.raises(ValueError, match=named):
            converted(state, heads=heads)
    for refused, source, named in (
        (state | {"decoder.weight": torch.rand(2), "norm.extra": torch.rand(2)}, "timm", r"decoder.*, norm\.extra"),
        (write("torchvision"), "timm", "18 missing: patch_embed.*, pos_embed; 32 left over: conv_proj"),
        ({name.replace("blocks.1.", "blocks.2."): one for name, one in state.items()}, "timm", r"blocks\.1.*blocks\.2"),
        ({}, "google", "missing: embedding/kernel"),
    ):
        with pytest.raises(ValueError, match=named):
            converted(refused, source)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("norm.bias", torch.zeros(33), "norm.bias: (33,), expected (32,)"),
        ("head.weight", torch.zeros(7, 32), "head.logits.weight: (7, 32), expected (5, 32)"),
        ("pos_embed", torch.zeros(10, 32), "positions of (10, 32)"),
        ("pos_embed", torch.zeros(1, 9, 32), "(1, 9, 32), expected (1, 5, 32)"),  # a grid that is not a square
        ("patch_embed.proj.weight", torch.zeros(32, 48), "patch kernel of (32, 48)"),
        ("norm.weight", torch.zeros(32, dtype=torch.int8), "norm.weight .*torch.int8"),
        *[("norm.weight", wrong, "norm.weight") for wrong in (torch.tensor(1.0), torch.zeros(0), None, {}, "a name")],
    ],
)
def test_a_tensor_of_another_shape_or_kind_is_named(write, name, tensor, message):
    with pytest.raises(ValueError, match=re.escape(message).replace(r"\.\*", ".*")):
        converted(write() | {name: tensor})
