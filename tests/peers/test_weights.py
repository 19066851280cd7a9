"""What a peer computes, our ViT computes from the file that the peer wrote: logits, blocks, attention, within 1e-4."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from vit_walkthrough import ViTConfig, count_parameters, record
from vit_walkthrough.weights.checkpoint import convert_weights, load_pretrained, tensor_names
from vit_walkthrough.weights.published import read_weights

LIBRARIES = ("timm", "torchvision", "transformers", "google")
SMALL = [
    ViTConfig(image_size=(12, 20), patch_size=4, dim=32, depth=2, heads=4, hidden=48, classes=5),
    ViTConfig(image_size=(20, 12), patch_size=2, channels=1, dim=24, depth=3, heads=1, hidden=96, classes=2),
    ViTConfig(image_size=(14, 35), patch_size=7, channels=4, dim=40, depth=1, heads=10, hidden=20, classes=11),
    ViTConfig(image_size=24, patch_size=8, dim=64, depth=12, heads=8, hidden=256, classes=10),
    ViTConfig(image_size=56, patch_size=14, dim=128, depth=4, heads=2, hidden=384, classes=3),
    ViTConfig(image_size=64, patch_size=32, dim=48, depth=2, heads=3, hidden=192, classes=1000),
]
# Ti to B whole; of L two blocks, save once. Few patches, for the weights are what is converted.
PUBLISHED = {
    "Ti/16": ViTConfig.named("Ti/16", image_size=224),
    "S/8": ViTConfig.named("S/16", patch_size=8, image_size=64),
    "S/32": ViTConfig.named("S/32", image_size=224),
    "B/8": ViTConfig.named("B/8", image_size=48, depth=3),
    "B/14": ViTConfig.named("B/16", patch_size=14, image_size=56, depth=3),
    "B/16": ViTConfig.named("B/16", image_size=96),
    "L/16": ViTConfig.named("L/16", image_size=96, depth=2),
    "L/32": ViTConfig.named("L/32", image_size=96, depth=2),
}


def random_images(config: ViTConfig, batch: int) -> torch.Tensor:
    return torch.rand(batch, config.channels, config.height, config.width)


def equal_inside(model, theirs, images) -> None:
    with torch.no_grad(), record(model) as trace:
        logits = model(images)
    assert_close(logits, theirs.logits, rtol=0, atol=1e-4)
    assert len(theirs.blocks) == len(theirs.attention) == model.config.depth
    for layer, (block, attention) in enumerate(zip(theirs.blocks, theirs.attention, strict=True)):
        assert_close(trace[f"blocks.{layer}"], block, rtol=0, atol=1e-4)
        assert_close(trace[f"blocks.{layer}.attention.weights"], attention, rtol=0, atol=1e-4)
    with torch.no_grad():  # and by the fused way, nobody looking
        assert_close(model(images), theirs.logits, rtol=0, atol=1e-4)


def options(library: str, config: ViTConfig) -> dict:
    """What the files of a library do not say: timm's config tells the heads, transformers' the grid too."""
    told = {"heads": config.heads} if library == "torchvision" else {}
    if library in ("timm", "google") and config.rows != config.cols:
        told["grid"] = (config.rows, config.cols)
    return told


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("config", SMALL, ids=lambda config: f"{config.patch_size}x{config.dim}")
@pytest.mark.parametrize("library", LIBRARIES)
def test_small_models_of_every_library_agree_inside_too(build, tmp_path, library, config, batch):
    if library == "torchvision" and (config.height != config.width or config.channels != 3):
        config = replace(config, image_size=config.patch_size * 3, channels=3)
    theirs = build(library, config)
    loaded = load_pretrained(theirs.save(tmp_path), **options(library, config))
    assert replace(loaded.model.config, image_size=(config.height, config.width)) == replace(
        config, image_size=(config.height, config.width)
    )
    assert not any(module.training for module in loaded.model.modules())
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    assert count_parameters(loaded.model) == count_parameters(theirs.model)
    images = random_images(config, batch)
    seen = theirs.see(images)
    assert seen.logits.std() > 0.1
    assert (torch.stack(seen.attention) * config.tokens).std() > 0.1
    equal_inside(loaded.model, seen, images)


@pytest.mark.parametrize("size", PUBLISHED)
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_published_sizes_of_every_library_agree(build, tmp_path, library, size):
    config = PUBLISHED[size]
    theirs = build(library, config)
    loaded = load_pretrained(theirs.save(tmp_path))  # the heads are known
    assert loaded.model.config == config
    images = random_images(config, 1)
    equal_inside(loaded.model, theirs.see(images), images)


def test_the_whole_of_l_16_agrees(build, tmp_path):
    config = ViTConfig.named("L/16")
    theirs = build("timm", config)
    model = convert_weights(theirs.model.state_dict(), source="timm")
    assert count_parameters(model) == 304_326_632
    images = random_images(config, 1)
    equal_inside(model, theirs.see(images), images)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [24, (40, 24), (8, 64)], ids=str)
@pytest.mark.parametrize("library", LIBRARIES)
def test_another_resolution_than_the_weights_were_trained_for(build, tmp_path, peer, library, size, mode):
    """The reference is the peer's own model of that resolution, with positions that timm resampled."""
    if library == "torchvision":
        size = 24
    config = ViTConfig(image_size=32, patch_size=4, dim=32, depth=2, heads=4, hidden=48, classes=5)
    other = replace(config, image_size=size)
    theirs, larger = build(library, config), build(library, other)
    positions = {"torchvision": "encoder.pos_embedding", "transformers": "vit.embeddings.position_embeddings"}
    name, state = positions.get(library, "pos_embed"), theirs.model.state_dict()
    resample = peer("timm.layers").resample_abs_pos_embed
    resampled = resample(state[name], [other.rows, other.cols], interpolation=mode)
    larger.model.load_state_dict(state | {name: resampled})
    loaded = load_pretrained(theirs.save(tmp_path), image_size=size, mode=mode, **options(library, config))
    assert loaded.model.config == other
    images = random_images(other, 2)
    equal_inside(loaded.model, larger.see(images), images)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_model_in_memory_is_converted_and_shares_nothing_with_it(build, library):
    """The names of today's libraries, which are not those of the published files."""
    config = SMALL[3]
    theirs = build(library, config)
    state = {name: tensor.clone() for name, tensor in theirs.model.state_dict().items()}
    source = "timm" if library == "google" else library
    model = convert_weights(theirs.model.state_dict(), source=source, heads=config.heads, eps=1e-6)
    images = random_images(config, 2)
    with torch.no_grad():
        assert_close(model(images), theirs.see(images).logits, rtol=0, atol=1e-4)
        for parameter in model.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, state[name]) for name, tensor in theirs.model.state_dict().items())


def test_the_eps_of_transformers_is_taken_from_its_config(build, tmp_path):
    """Its default is 1e-12; on tokens that hardly vary it makes a difference."""
    theirs = build("transformers", SMALL[3])
    theirs.model.vit.embeddings.patch_embeddings.projection.weight.data *= 1e-3
    theirs.model.vit.embeddings.position_embeddings.data *= 1e-3
    images, path = random_images(SMALL[3], 2), theirs.save(tmp_path)
    expected = theirs.see(images).logits
    with torch.no_grad():
        assert_close(load_pretrained(path).model(images), expected, rtol=0, atol=1e-4)
        theirs.model.vit.embeddings.cls_token.data *= 1e-3
        theirs.model.vit.embeddings.patch_embeddings.projection.bias.data *= 1e-3
        expected, path = theirs.see(images).logits, theirs.save(tmp_path)
        exact, usual = load_pretrained(path).model, load_pretrained(path, eps=1e-6).model
        assert_close(exact(images), expected, rtol=0, atol=1e-4)
        assert (usual(images) - expected).abs().max() > 1e-3


# --- heads -------------------------------------------------------------------------------------------------------


def test_timm_without_a_head_gives_what_its_own_gives(build, tmp_path):
    """As DINO is published: num_classes=0."""
    theirs = build("timm", SMALL[3], num_classes=0)
    loaded = load_pretrained(theirs.save(tmp_path))
    assert loaded.model.config.classes == SMALL[3].dim
    assert loaded.class_names == ()
    images = random_images(SMALL[3], 2)
    equal_inside(loaded.model, theirs.see(images), images)


@pytest.mark.parametrize("pooler", [True, False])
def test_the_bare_model_of_transformers(build, peer, tmp_path, pooler):
    """Without a classifier: as DINO on the hub, or with the pooler's tanh, as google/vit-base-patch16-224-in21k."""
    whole = build("transformers", SMALL[3])
    theirs = peer("transformers").ViTModel(whole.model.config, add_pooling_layer=pooler).eval()
    theirs.load_state_dict(whole.model.vit.state_dict(), strict=False)
    theirs.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path)
    images = random_images(SMALL[3], 2)
    with torch.no_grad():
        output = theirs(images)
        expected = output.pooler_output if pooler else output.last_hidden_state[:, 0]
        assert_close(loaded.model(images), expected, rtol=0, atol=1e-4)
    assert loaded.model.config.classes == SMALL[3].dim
    assert loaded.class_names == ()


def test_the_hidden_layer_of_the_pre_training_head(build, tmp_path):
    """Torchvision has it as representation_size; the same head is then written in timm's and Google's names."""
    config = SMALL[3]
    theirs = build("torchvision", config, representation_size=20)
    images = random_images(config, 2)
    expected = theirs.see(images)
    model = load_pretrained(theirs.save(tmp_path), heads=config.heads).model
    equal_inside(model, expected, images)
    assert count_parameters(model) == count_parameters(theirs.model)

    inner = theirs.model.heads
    bare = build("google", config, num_classes=0)
    head = dict(hidden=inner.pre_logits, logits=inner.head)
    state = {name: tensor.numpy() for name, tensor in theirs.model.heads.state_dict().items()}
    with torch.no_grad():
        features = bare.model(images)
        expected = head["logits"](torch.tanh(head["hidden"](features)))
    path = bare.save(tmp_path)
    google = {"pre_logits/kernel": state["pre_logits.weight"].T, "pre_logits/bias": state["pre_logits.bias"]}
    google |= {"head/kernel": state["head.weight"].T, "head/bias": state["head.bias"]}
    timm = {"pre_logits.fc.weight": state["pre_logits.weight"], "pre_logits.fc.bias": state["pre_logits.bias"]}
    timm |= {"head.weight": state["head.weight"], "head.bias": state["head.bias"]}
    with torch.no_grad():
        for model in (
            convert_weights(dict(np.load(path)) | google, "google"),
            convert_weights(bare.model.state_dict() | timm, "timm", heads=config.heads),
        ):
            assert_close(model(images), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("library", LIBRARIES)
def test_another_number_of_classes_gives_a_new_head_that_starts_at_zero(build, tmp_path, library):
    config = SMALL[3]
    theirs = build(library, config)
    path, images = theirs.save(tmp_path), random_images(config, 2)
    loaded = load_pretrained(path, classes=7, **options(library, config))
    assert loaded.class_names == tuple("0123456")
    assert loaded.model.config == replace(config, classes=7)
    assert torch.equal(loaded.model(images), torch.zeros(2, 7))
    with torch.no_grad(), record(loaded.model) as trace:
        loaded.model(images)
    assert_close(trace["blocks.11"], theirs.see(images).blocks[-1], rtol=0, atol=1e-4)
    same = load_pretrained(path, classes=10, **options(library, config))
    assert same.model(images).abs().sum() > 0


# --- Google's layout, cross-checked ------------------------------------------------------------------------------


def test_timm_reads_the_google_file_back_to_the_same_weights(build, tmp_path):
    """Its loader was written by others, for the published files."""
    theirs = build("google", SMALL[3])
    path = theirs.save(tmp_path)
    empty = build("google", SMALL[3]).model
    empty.load_pretrained(str(path))
    for name, tensor in theirs.model.state_dict().items():
        assert torch.equal(empty.state_dict()[name], tensor), name


def test_the_heads_of_a_google_file_are_read_from_its_shapes(build, tmp_path):
    config = replace(SMALL[3], heads=2)
    path = build("google", config).save(tmp_path)
    assert load_pretrained(path).model.config.heads == 2
    with pytest.raises(ValueError, match="heads 4, but the kernels of the checkpoint have 2"):
        load_pretrained(path, heads=4)


# --- other files of the same libraries ---------------------------------------------------------------------------


def test_a_pth_of_timm_alone_or_inside_a_training_checkpoint(build, tmp_path):
    config = SMALL[3]
    theirs = build("timm", config)
    images = random_images(config, 1)
    expected = theirs.see(images).logits
    state = theirs.model.state_dict()
    for number, content in enumerate((state, {"model": state, "epoch": 3}, {"state_dict": state})):
        for legacy in (False, True):
            path = tmp_path / f"{number}{legacy}.pth"
            torch.save(content, path, _use_new_zipfile_serialization=not legacy)
            loaded = load_pretrained(path, heads=config.heads)
            with torch.no_grad():
                assert_close(loaded.model(images), expected, rtol=0, atol=1e-4)
            assert loaded.class_names == tuple("0123456789")
            assert loaded.source == str(path)


def test_weights_in_half_precision_become_float32(build, tmp_path):
    theirs = build("timm", SMALL[3])
    state = {name: tensor.bfloat16() for name, tensor in theirs.model.state_dict().items()}
    model = convert_weights(state, "timm", heads=8, image_size=(24, 32))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.norm.weight, theirs.model.norm.weight.bfloat16().float())


def test_the_names_of_a_file_are_those_of_the_table(build, tmp_path):
    for library in LIBRARIES:
        (tmp_path / library).mkdir()
        path = build(library, SMALL[3]).save(tmp_path / library)
        path = path / "model.safetensors" if path.is_dir() else path
        named = {name for names in tensor_names(library, 12).values() for name in names}
        hidden = {name for name in named if "pre_logits" in name or "pooler" in name}
        assert {name.removeprefix("vit.") for name in read_weights(path)} == named - hidden
