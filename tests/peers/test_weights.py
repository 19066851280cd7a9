"""What a peer computes, our converted ViT computes too: logits, tokens after each block, attention, within 1e-4."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close

from tests.peers.conftest import LIBRARIES, fill, see
from vit_walkthrough import VisionTransformer, ViTConfig, count_parameters, record
from vit_walkthrough.train.finetune import adapt
from vit_walkthrough.weights.convert import GOOGLE_LAYOUT, convert_weights, tensor_names

SMALL = [
    ViTConfig(image_size=(12, 20), patch_size=4, dim=32, depth=2, heads=4, hidden=48, classes=5),
    ViTConfig(image_size=(20, 12), patch_size=2, channels=1, dim=24, depth=3, heads=1, hidden=96, classes=2),
    ViTConfig(image_size=(16, 36), patch_size=4, channels=4, dim=40, depth=1, heads=10, hidden=20, classes=11),
    ViTConfig(image_size=56, patch_size=14, dim=192, depth=6, heads=2, hidden=384, classes=1000),
]
SQUARE = ViTConfig(image_size=24, patch_size=8, dim=64, depth=3, heads=8, hidden=256, classes=10)


def equal_inside(model: VisionTransformer, theirs: nn.Module) -> None:
    images = torch.rand(2, model.config.channels, model.config.height, model.config.width)
    expected, blocks, attention = see(theirs, images)
    with torch.no_grad(), record(model) as trace:
        logits = model(images)
    assert expected.std() > 0.1
    assert (torch.stack(attention) * model.config.tokens).std() > 0.1
    assert_close(logits, expected, rtol=0, atol=1e-4)
    assert_close(trace.attention, torch.stack(attention), rtol=0, atol=1e-4)
    for number, block in enumerate(blocks):
        assert_close(trace[f"blocks.{number}"], block, rtol=0, atol=1e-4)
    with torch.no_grad():  # and by the fused way, nobody looking
        assert_close(model(images), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("config", SMALL, ids=lambda config: f"{config.patch_size}x{config.dim}")
@pytest.mark.parametrize("library", LIBRARIES)
def test_small_models_agree_inside_too(build, library, config):
    if library == "torchvision":
        config = replace(config, image_size=config.patch_size * 3, channels=3)
    theirs = build(library, config)
    model = convert_weights(theirs, library)
    assert (model.config, count_parameters(model)) == (config, count_parameters(theirs))
    equal_inside(model, theirs)


@pytest.mark.parametrize("variant", ["S/32", "H/14"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_published_sizes_of_every_library_fit(build, library, variant):
    config = ViTConfig.named(variant)
    with torch.device("meta"):  # names, shapes and counts, without numbers
        theirs = build(library, config)
    for given in (theirs, theirs.state_dict()):  # from the bare state the heads are known
        model = convert_weights(given, library)
        assert (model.config, count_parameters(model)) == (config, count_parameters(theirs))


@pytest.mark.parametrize("library", LIBRARIES)
def test_files_in_the_published_spelling_agree(build, tmp_path, library):
    theirs = build(library, SQUARE)
    if library == "transformers":
        theirs.save_pretrained(tmp_path)
        weights = load_file(tmp_path / "model.safetensors")
    else:
        weights = theirs.state_dict()
        for today, published in {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}.items():
            weights = {name.replace(today, published): tensor for name, tensor in weights.items()}
    named = {name for names in tensor_names(library, 3).values() for name in names}
    named -= {name for name in named if "pre_logits" in name or "pooler" in name}  # the head's hidden layer
    assert {name.removeprefix("vit.") for name in weights} == named
    eps = 1e-12 if library == "transformers" else 1e-6
    equal_inside(convert_weights(weights, library, heads=8, eps=eps), theirs)


def test_timm_reads_what_we_call_google_s_layout(build, tmp_path):  # by a loader for the published files
    theirs = build("timm", SQUARE)
    ours = convert_weights(theirs, "timm").state_dict()
    ours["patch_embedding.projection.weight"] = theirs.patch_embed.proj.weight
    arrays, sizes = {}, dict(heads=8, channels=3, ph=8, pw=8)
    for name, names in tensor_names("google", 3).items():
        if name in ours:
            layout = GOOGLE_LAYOUT.get(name.split(".", 2)[-1] if name.startswith("blocks") else name, "... -> ...")
            there, here = layout.split(" -> ")
            known = {axis: size for axis, size in sizes.items() if axis in there.split()}
            for one, part in zip(names, ours[name].chunk(len(names)), strict=True):
                arrays[one] = rearrange(part.detach(), f"{here} -> {there}", **known).numpy()
    np.savez(tmp_path / "vit.npz", **arrays)
    other = build("timm", SQUARE)
    other.load_pretrained(str(tmp_path / "vit.npz"))
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())
    weights = dict(np.load(tmp_path / "vit.npz"))
    equal_inside(convert_weights(weights, "google"), theirs)  # its shapes show the heads
    with pytest.raises(ValueError, match=r"heads is 4, .* 8"):
        convert_weights(weights, "google", heads=4)


@pytest.mark.parametrize("size", [(40, 24), (8, 64)], ids=str)
def test_another_resolution_than_the_weights_were_trained_for(build, peer, size):
    theirs, larger = build("timm", SQUARE), build("timm", replace(SQUARE, image_size=size))
    model = adapt(convert_weights(theirs, "timm"), image_size=size)
    state, grid = theirs.state_dict(), [model.config.rows, model.config.cols]
    state["pos_embed"] = peer("timm.layers").resample_abs_pos_embed(state["pos_embed"], grid)
    larger.load_state_dict(state)
    equal_inside(model, larger)


@pytest.mark.parametrize(
    ("library", "options"),
    [
        ("timm", {"num_classes": 0}),  # as DINO is published
        ("timm", {"patch_drop_rate": 0.5, "drop_path_rate": 0.5, "act_layer": "gelu"}),
        ("torchvision", {"representation_size": 20}),  # the hidden layer of the head at pre-training
        ("transformers", {"layer_norm_eps": 1e-3}),
    ],
)
def test_other_heads_and_settings_agree(build, library, options):
    theirs = build(library, SQUARE, **options)
    model = convert_weights(theirs, library)
    assert count_parameters(model) == count_parameters(theirs)
    equal_inside(model, theirs)
    with pytest.raises(ValueError, match=r"heads is 4, .* 8"):
        convert_weights(theirs, library, heads=4)


@pytest.mark.parametrize("pooler", [True, False])  # as google/vit-base-patch16-224-in21k, and as DINO on the hub
def test_the_bare_model_of_transformers_without_a_classifier(build, peer, pooler):
    told = build("transformers", SQUARE).config
    theirs = fill(peer("transformers").ViTModel(told, add_pooling_layer=pooler))
    model, images = convert_weights(theirs, "transformers"), torch.rand(2, 3, 24, 24)
    with torch.no_grad():
        output = theirs(images)
        expected = output.pooler_output if pooler else output.last_hidden_state[:, 0]
        assert_close(model(images), expected, rtol=0, atol=1e-4)
    assert model.config.classes == SQUARE.dim
