import copy
import math
import pickle
import re
from dataclasses import replace
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from vit_walkthrough.look.trace import record
from vit_walkthrough.model.config import VARIANTS, ViTConfig
from vit_walkthrough.model.patches import patchify, unpatchify
from vit_walkthrough.model.vit import ClassificationHead, VisionTransformer, count_parameters


def closed_form(config: ViTConfig) -> int:
    D, M, K, N, L = config.dim, config.hidden, config.classes, config.patches, config.depth
    positions = (N + 1) * D if config.positions == "learned" else 0
    embedding = config.patch_size**2 * config.channels * D + D + D + positions
    return embedding + L * (4 * D**2 + 4 * D + 2 * D * M + M + D + 4 * D) + 2 * D + D * K + K


def shapes_only(config: ViTConfig) -> VisionTransformer:
    with torch.device("meta"):
        return VisionTransformer(config)


@pytest.fixture
def shuffle():
    """The images with their patches in another order, and the order."""

    def apply(images):
        order = torch.randperm(15)
        return unpatchify(patchify(images, 4)[:, order], 4, 12, 20), order

    return apply


@pytest.fixture
def out_of_torch(torch_layer):
    """The same model put together from torch's own modules, with the weights of ours."""

    def build(ours: VisionTransformer):
        config = ours.config
        convolution = nn.Conv2d(config.channels, config.dim, config.patch_size, config.patch_size)
        weight = ours.patch_embedding.projection.weight.reshape(convolution.weight.shape)
        convolution.load_state_dict({"weight": weight, "bias": ours.patch_embedding.projection.bias})
        norm = nn.LayerNorm(config.dim, eps=1e-6)
        norm.load_state_dict(ours.norm.state_dict())
        encoder = nn.TransformerEncoder(torch_layer(ours.blocks[0]), config.depth, norm, enable_nested_tensor=False)
        for layer, block in zip(encoder.layers, ours.blocks, strict=True):
            layer.load_state_dict(torch_layer(block).state_dict())
        encoder.eval()

        def forward(images):
            patches = convolution(images).flatten(2).mT
            tokens = torch.cat([ours.class_token.token.repeat(len(images), 1, 1), patches], dim=1)
            if config.positions != "none":
                tokens = tokens + ours.position_embedding.positions
            tokens = encoder(tokens)
            features = tokens[:, 0] if config.pooling == "class" else tokens[:, 1:].sum(dim=1) / config.patches
            return features @ ours.head.logits.weight.T + ours.head.logits.bias

        return forward

    return build


@pytest.mark.parametrize("pooling", ["class", "mean"])
@pytest.mark.parametrize("positions", ["learned", "sincos", "none"])
def test_the_model_equals_one_made_of_torch_modules(config, images, randomize, out_of_torch, positions, pooling):
    model = randomize(VisionTransformer(replace(config, positions=positions, pooling=pooling)))
    logits = model(images)
    assert logits.shape == (2, 5)
    assert logits.std() > 0.1
    assert_close(logits, out_of_torch(model)(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        dict(image_size=(8, 24), patch_size=8, channels=1, heads=1, depth=1),
        dict(image_size=(10, 4), patch_size=2, channels=4, dim=20, heads=5, depth=3, hidden=7, classes=1),
        dict(image_size=6, patch_size=3, dim=8, heads=8, depth=4, classes=11),
    ],
)
def test_other_sizes_equal_torch_modules_too(config, randomize, out_of_torch, changes):
    model = randomize(VisionTransformer(replace(config, **changes)))
    images = torch.rand(3, model.config.channels, model.config.height, model.config.width)
    assert_close(model(images), out_of_torch(model)(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("variant", "published"),
    [
        ("Ti/16", 5_717_416),
        ("S/16", 22_050_664),
        ("S/32", 22_878_952),
        ("B/8", 86_576_872),
        ("B/16", 86_567_656),
        ("B/32", 88_224_232),
        ("L/16", 304_326_632),
        ("L/32", 306_535_400),
        ("H/14", 632_045_800),
    ],
)
def test_parameters_are_as_many_as_published(variant, published):
    assert count_parameters(shapes_only(ViTConfig.named(variant))) == published


def test_parameters_at_384_pixels_are_as_many_as_published():
    assert count_parameters(shapes_only(ViTConfig.named("B/16", image_size=384))) == 86_859_496


def test_parameters_of_vit_base_16_piece_by_piece():
    pieces = {name: count_parameters(piece) for name, piece in shapes_only(ViTConfig()).named_children()}
    assert pieces == {
        "patch_embedding": 590_592,
        "class_token": 768,
        "position_embedding": 151_296,
        "dropout": 0,
        "blocks": 12 * 7_087_872,
        "norm": 1_536,
        "head": 769_000,
    }


@pytest.mark.parametrize(
    "config",
    [
        *[ViTConfig.named(variant) for variant in VARIANTS],
        ViTConfig(image_size=(12, 20), patch_size=4, channels=1, dim=32, depth=3, heads=4, hidden=7, classes=2),
        ViTConfig.named("S/16", positions="sincos"),
        ViTConfig.named("S/16", positions="none"),
        ViTConfig.named("S/16", pooling="mean", heads=12, dropout=0.1),
    ],
)
def test_parameters_equal_the_closed_form(config):
    assert count_parameters(shapes_only(config)) == closed_form(config)


def test_count_parameters_leaves_out_what_is_frozen(model):
    before = count_parameters(model)
    model.norm.requires_grad_(False)
    assert before - count_parameters(model) == 64


def test_one_pass_of_vit_base_16_takes_17_56_billion_multiplications():
    model = shapes_only(ViTConfig())
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() / 2 == pytest.approx(17.56e9, rel=1e-3)


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


@pytest.mark.parametrize("classes", [5, 1000])
def test_the_first_loss_is_the_logarithm_of_the_number_of_classes(config, images, classes):
    logits = VisionTransformer(replace(config, classes=classes))(images)
    assert torch.equal(logits, torch.zeros(2, classes))
    assert F.cross_entropy(logits, torch.tensor([0, 3])).item() == pytest.approx(math.log(classes), abs=1e-6)


def test_blocks_of_a_model_start_distinct(config):
    for one, other in combinations(VisionTransformer(replace(config, depth=4)).blocks, 2):
        for name, weight in one.named_parameters():
            if name.endswith("weight") and "norm" not in name:
                assert not torch.equal(weight, other.get_parameter(name))


def test_the_same_seed_gives_the_same_model(config):
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(torch.cat([parameter.flatten() for parameter in VisionTransformer(config).parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_every_layer_norm_has_an_eps_of_1e_6(model):
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert [norm.eps for norm in norms] == [1e-6] * 5


@pytest.mark.parametrize("positions", ["learned", "sincos", "none"])
@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_gradients_reach_every_parameter(config, images, randomize, positions, pooling):
    model = randomize(VisionTransformer(replace(config, positions=positions, pooling=pooling)))
    F.cross_entropy(model(images), torch.tensor([1, 4])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 1e-8, name


def test_every_position_and_every_pixel_gets_a_gradient(model, images):
    model(images.requires_grad_()).square().sum().backward()
    assert (model.position_embedding.positions.grad.abs().amax(dim=-1) > 1e-8).all()
    assert (images.grad != 0).all()


def test_a_model_that_starts_at_zero_learns(config, images):
    images[1] /= 10
    model, labels = VisionTransformer(config), torch.tensor([1, 4])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(80):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 < math.log(5)


def test_without_positions_shuffled_patches_change_nothing_for_the_class_token(config, images, randomize, shuffle):
    model = randomize(VisionTransformer(replace(config, positions="none")))
    shuffled, order = shuffle(images)
    with record(model, "norm") as trace:
        logits = model(images)
        before = trace["norm"]
        assert_close(model(shuffled), logits, rtol=0, atol=1e-5)
    assert_close(trace["norm"][:, 0], before[:, 0], rtol=0, atol=1e-5)
    assert_close(trace["norm"][:, 1:], before[:, 1:][:, order], rtol=0, atol=1e-5)
    assert (trace["norm"][:, 1:] - before[:, 1:]).abs().max() > 0.1


@pytest.mark.parametrize("positions", ["learned", "sincos"])
def test_with_positions_shuffled_patches_change_everything(config, images, randomize, shuffle, positions):
    model = randomize(VisionTransformer(replace(config, positions=positions)))
    shuffled, order = shuffle(images)
    with record(model, "norm") as trace:
        logits = model(images)
        before = trace["norm"]
        assert (model(shuffled) - logits).abs().max() > 0.01
    assert (trace["norm"][:, 1:] - before[:, 1:][:, order]).abs().max() > 0.01


def test_mean_pooling_leaves_the_class_token_out(config, images, randomize):
    model = randomize(VisionTransformer(replace(config, pooling="mean")))
    with record(model, "norm", "head.hidden") as trace:
        model(images)
    assert_close(trace["head.hidden"], trace["norm"][:, 1:].mean(dim=1), rtol=0, atol=1e-6)
    assert (trace["head.hidden"] - trace["norm"].mean(dim=1)).abs().max() > 0.01


def test_class_pooling_reads_the_class_token_after_the_final_norm(model, images):
    with record(model, "norm", "norm.input", "head.hidden") as trace:
        model(images)
    assert torch.equal(trace["head.hidden"], trace["norm"][:, 0])
    assert_close(trace["norm"], F.layer_norm(trace["norm.input"], (32,), model.norm.weight, model.norm.bias, 1e-6))
    assert (trace["norm"] - trace["norm.input"]).abs().max() > 0.1


def test_without_positions_nothing_is_added(config, images, randomize):
    model = randomize(VisionTransformer(replace(config, positions="none")))
    with record(model, "class_token", "blocks.0.norm_1.input") as trace:
        model(images)
    assert torch.equal(trace["blocks.0.norm_1.input"], trace["class_token"])
    assert not any("position" in name for name in model.state_dict())


def test_sincos_positions_are_those_of_the_grid(config, images, randomize):
    model = randomize(VisionTransformer(replace(config, positions="sincos")))
    with record(model, "class_token", "position_embedding") as trace:
        model(images)
    added = (trace["position_embedding"] - trace["class_token"])[0, 1:].reshape(3, 5, 32)
    places = torch.arange(5.0)
    assert_close(added[:, :, 0], places[:3, None].sin().expand(3, 5), rtol=0, atol=1e-5)
    assert_close(added[:, :, 16], places.sin().expand(3, 5), rtol=0, atol=1e-5)


def test_another_image_in_the_batch_changes_nothing(model, images):
    before = model(images)
    images[1] = torch.rand(3, 12, 20)
    after = model(images)
    assert_close(after[0], before[0], rtol=0, atol=1e-6)
    assert_close(model(images[:1])[0], before[0], rtol=0, atol=1e-5)
    assert (after[1] - before[1]).abs().max() > 1e-3


def test_dropout_stands_after_positions_and_after_every_dense_layer_but_qkv(config, images):
    model = VisionTransformer(replace(config, dropout=0.5)).train()
    dropped = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            assert module.p == 0.5
            module.register_forward_pre_hook(lambda _, inputs, name=name: dropped.append((name, inputs[0])))
    with record(model) as trace:
        model(images)
    expected = [("dropout", "position_embedding")]
    for block in ("blocks.0", "blocks.1"):
        expected += [
            (f"{block}.attention.dropout", f"{block}.attention.projection"),
            (f"{block}.mlp.dropout", f"{block}.mlp.gelu"),
            (f"{block}.mlp.dropout", f"{block}.mlp.contract"),
        ]
    assert [name for name, _ in dropped] == [name for name, _ in expected]
    assert all(tensor is trace[source] for (_, tensor), (_, source) in zip(dropped, expected, strict=True))


def test_the_first_dropout_is_what_the_blocks_read(model, images, twice):
    model.dropout = twice
    with record(model, "position_embedding", "blocks.0.norm_1.input") as trace:
        model(images)
    assert torch.equal(trace["blocks.0.norm_1.input"], 2 * trace["position_embedding"])


def test_nothing_is_random_but_the_dropouts(model, config, images):
    for block in model.blocks:  # the way that training takes, so that equal means equal to the last bit
        block.attention.fused = False
    expected = model(images)
    training = VisionTransformer(replace(config, dropout=0.5)).train()
    training.load_state_dict(model.state_dict())
    for module in list(training.modules()):
        if hasattr(module, "dropout"):
            module.dropout = nn.Identity()
    assert torch.equal(training(images), expected)


def test_dropout_acts_in_training_only(config, images, randomize):
    model = randomize(VisionTransformer(replace(config, dropout=0.5)))
    assert torch.equal(model(images), model(images))
    assert not torch.equal(model.train()(images), model(images))


def test_the_head_starts_at_zero_with_and_without_a_hidden_layer():
    features = torch.randn(4, 32)
    assert torch.equal(ClassificationHead(32, 5)(features), torch.zeros(4, 5))
    assert torch.equal(ClassificationHead(32, 5, hidden=16)(features), torch.zeros(4, 5))


def test_the_linear_head_is_one_linear_layer(randomize):
    head, features = randomize(ClassificationHead(32, 5)), torch.randn(4, 32)
    assert count_parameters(head) == 32 * 5 + 5
    assert_close(head(features), features @ head.logits.weight.T + head.logits.bias, rtol=0, atol=1e-5)


def test_the_head_with_a_hidden_layer_has_a_tanh(randomize):
    head, features = randomize(ClassificationHead(32, 5, hidden=16)), torch.randn(4, 32)
    hidden = torch.tanh(features @ head.hidden[0].weight.T + head.hidden[0].bias)
    assert count_parameters(head) == 32 * 16 + 16 + 16 * 5 + 5
    assert_close(head(features), hidden @ head.logits.weight.T + head.logits.bias, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda images: images[0],
            ValueError,
            "images must be (batch, channels, height, width), not (3, 12, 20); add the batch axis with images[None]",
        ),
        (
            lambda images: images[:, :1],
            ValueError,
            "images of (channels, height, width) (1, 12, 20), but the config says (3, 12, 20); "
            "load_image(source, size) resizes, ViTConfig(image_size=...) makes a model for another size",
        ),
        (
            lambda images: images.mT,
            ValueError,
            "images of (channels, height, width) (3, 20, 12), but the config says (3, 12, 20); "
            "load_image(source, size) resizes, ViTConfig(image_size=...) makes a model for another size",
        ),
        (
            lambda images: (255 * images).byte(),
            TypeError,
            "images are torch.uint8; convert them to floats in [0, 1]: images.float() / 255",
        ),
        (lambda images: images.tolist(), TypeError, "images must be a torch tensor, not list"),
        (lambda images: images.numpy(), TypeError, "images must be a torch tensor, not ndarray"),
        (
            lambda images: images.where(images < images.max(), float("nan")),
            ValueError,
            "1 of 1440 pixels are NaN or infinite; mend the images first",
        ),
        (
            lambda images: images.where(images < images.max(), float("inf")),
            ValueError,
            "1 of 1440 pixels are NaN or infinite; mend the images first",
        ),
    ],
)
def test_bad_images_are_refused_in_words(model, images, change, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        model(change(images))


def test_a_state_dict_carries_the_whole_model(model, config, images):
    other = VisionTransformer(config).eval()
    assert not torch.equal(other(images), model(images))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images), model(images))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_gives_the_same_and_shares_nothing(model, images, duplicate):
    before = model(images)
    other = duplicate(model)
    assert other.config == model.config
    assert torch.equal(other(images), before)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(model(images), before)


def test_a_model_can_work_in_double_precision(model, images):
    single = model(images)
    double = model.double()(images.double())
    assert double.dtype == torch.float64
    assert_close(single.double(), double, rtol=0, atol=1e-5)
