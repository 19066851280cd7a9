import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from tests.model.test_encoder import torch_layer
from vit_walkthrough import ClassificationHead, VisionTransformer, ViTConfig, count_parameters, record
from vit_walkthrough.model.config import VARIANTS


def out_of_torch(ours: VisionTransformer, images):
    """The logits of the same model put together from torch's own modules, with the weights of ours."""
    config = ours.config
    convolution = nn.Conv2d(config.channels, config.dim, config.patch_size, config.patch_size)
    weight = ours.patch_embedding.projection.weight.reshape(convolution.weight.shape)
    convolution.load_state_dict({"weight": weight, "bias": ours.patch_embedding.projection.bias})
    norm = nn.LayerNorm(config.dim, eps=1e-6)
    norm.load_state_dict(ours.norm.state_dict())
    encoder = nn.TransformerEncoder(torch_layer(ours.blocks[0]), config.depth, norm, enable_nested_tensor=False)
    for layer, block in zip(encoder.layers, ours.blocks, strict=True):
        layer.load_state_dict(torch_layer(block).state_dict())
    patches = convolution(images).flatten(2).mT
    tokens = torch.cat([ours.class_token.token.repeat(len(images), 1, 1), patches], dim=1)
    if config.positions != "none":
        tokens = tokens + ours.position_embedding.positions
    tokens = encoder.eval()(tokens)
    features = tokens[:, 0] if config.pooling == "class" else tokens[:, 1:].sum(dim=1) / config.patches
    return features @ ours.head.logits.weight.T + ours.head.logits.bias


@pytest.mark.parametrize(
    "changes",
    [
        *[dict(positions=kind, pooling=how) for kind in ("learned", "sincos", "none") for how in ("class", "mean")],
        dict(image_size=(8, 24), patch_size=8, channels=1, heads=1, depth=1),
        dict(image_size=(10, 4), patch_size=2, channels=4, dim=20, heads=5, depth=3, hidden=7, classes=3),
    ],
)
def test_the_model_equals_one_made_of_torch_modules(config, randomize, changes):
    model = randomize(VisionTransformer(replace(config, **changes)))
    images = torch.rand(2, model.config.channels, model.config.height, model.config.width)
    logits = model(images)
    assert logits.std() > 0.1
    assert_close(logits, out_of_torch(model, images), rtol=0, atol=1e-5)


# Heads and parameters, which tell dim, depth, hidden and patch size.
PUBLISHED = {"Ti/16": (3, 5_717_416), "Ti/32": (3, 6_131_560), "S/16": (6, 22_050_664), "S/32": (6, 22_878_952)}
PUBLISHED |= {"B/8": (12, 86_576_872), "B/16": (12, 86_567_656), "B/32": (12, 88_224_232)}
PUBLISHED |= {"L/16": (16, 304_326_632), "L/32": (16, 306_535_400), "H/14": (16, 632_045_800)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_heads_and_parameters_are_as_many_as_published(variant):
    config = ViTConfig.named(variant)
    with torch.device("meta"):
        model = VisionTransformer(config)
    assert (config.heads, count_parameters(model)) == PUBLISHED[variant]
    model.norm.requires_grad_(False)
    assert count_parameters(model) == PUBLISHED[variant][1] - 2 * config.dim  # what is frozen is not counted


def test_weights_start_as_noise_of_standard_deviation_002_and_biases_at_zero():
    model = VisionTransformer(ViTConfig(image_size=(96, 160), dim=64, depth=2, heads=4, hidden=128, classes=10))
    for name, parameter in model.named_parameters():
        if name.startswith("head.") or name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            tolerance = 4 / math.sqrt(2 * parameter.numel())
            assert parameter.std().item() == pytest.approx(0.02, rel=tolerance), name
            assert abs(parameter.mean().item()) < 4 * 0.02 / math.sqrt(parameter.numel()), name


@pytest.mark.parametrize(("positions", "pooling"), [("learned", "class"), ("sincos", "mean")])
def test_gradients_reach_every_parameter(config, images, randomize, positions, pooling):
    model = randomize(VisionTransformer(replace(config, positions=positions, pooling=pooling)))
    assert isinstance(model.position_embedding.positions, nn.Parameter) == (positions == "learned")
    F.cross_entropy(model(images), torch.tensor([1, 4])).backward()
    assert [name for name, one in model.named_parameters() if one.grad is None or not one.grad.any()] == []


def test_dropout_is_passed_on_and_follows_the_positions_too(config, images, twice):
    model = VisionTransformer(replace(config, dropout=0.5))
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.5] * 5
    model.dropout = twice
    with record(model, "position_embedding", "blocks.0.norm_1.input") as trace:
        model(images)
    assert torch.equal(trace["blocks.0.norm_1.input"], 2 * trace["position_embedding"])


def test_the_head_with_a_hidden_layer_has_a_tanh(randomize):
    head, features = randomize(ClassificationHead(32, 5, hidden=16)), torch.randn(4, 32)
    hidden = torch.tanh(features @ head.hidden[0].weight.T + head.hidden[0].bias)
    assert count_parameters(head) == 32 * 16 + 16 + 16 * 5 + 5
    assert_close(head(features), hidden @ head.logits.weight.T + head.logits.bias, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_bad_images_are_refused(model, images):
    wrong = {r"\(3, 12, 20\); .* images\[None\]$": images[0], "not list$": images.tolist()}
    wrong |= {r"\(1, 12, 20\), .* \(3, 12, 20\); load_image\(source, size\)": images[:, :1]}
    wrong |= {r"\(3, 20, 12\), .* \(3, 12, 20\); load_image": images.mT}
    wrong |= {"^1 of 1440 pixels": images.where(images < images.max(), torch.nan)}
    for message, given in wrong.items():
        with pytest.raises(TypeError if isinstance(given, list) else ValueError, match=message):
            model(given)
