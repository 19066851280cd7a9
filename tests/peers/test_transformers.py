"""Logits, hidden states and attention equal those of transformers' ViT, with random weights copied by hand."""

import pytest
import torch
from torch.testing import assert_close

from tests.peers.conftest import filled
from vit_walkthrough import VisionTransformer, ViTConfig, record


def ours(config: ViTConfig, state: dict[str, torch.Tensor]) -> VisionTransformer:
    weights = {
        "patch_embedding.projection.weight": state["vit.embeddings.patch_embeddings.projection.weight"].flatten(1),
        "patch_embedding.projection.bias": state["vit.embeddings.patch_embeddings.projection.bias"],
        "class_token.token": state["vit.embeddings.cls_token"],
        "position_embedding.positions": state["vit.embeddings.position_embeddings"],
    }
    copied = {"norm": "vit.layernorm", "head.logits": "classifier"}
    for layer in range(config.depth):
        block, other = f"blocks.{layer}", f"vit.layers.{layer}"
        copied |= {
            f"{block}.norm_1": f"{other}.layernorm_before",
            f"{block}.attention.projection": f"{other}.attention.o_proj",
            f"{block}.norm_2": f"{other}.layernorm_after",
            f"{block}.mlp.expand": f"{other}.mlp.fc1",
            f"{block}.mlp.contract": f"{other}.mlp.fc2",
        }
        for kind in ("weight", "bias"):
            parts = [state[f"{other}.attention.{part}_proj.{kind}"] for part in "qkv"]
            weights[f"{block}.attention.qkv.{kind}"] = torch.cat(parts)
    return filled(config, weights, copied, state)


@pytest.mark.parametrize(
    "config",
    [
        ViTConfig(image_size=(12, 20), patch_size=4, dim=32, depth=2, heads=4, hidden=48, classes=5),
        ViTConfig(image_size=(20, 12), patch_size=2, channels=1, dim=24, depth=3, heads=1, hidden=96, classes=2),
        ViTConfig(image_size=(14, 35), patch_size=7, channels=4, dim=40, depth=1, heads=10, hidden=20, classes=11),
        ViTConfig(image_size=(48, 32), patch_size=8, dim=64, depth=6, heads=8, hidden=256, classes=10),
    ],
)
def test_logits_hidden_states_and_attention_of_every_layer_agree(build, randomize, config):
    reference = randomize(build("transformers", config, layer_norm_eps=1e-6).model, std=0.12)
    model = ours(config, reference.state_dict())
    images = torch.rand(2, config.channels, config.height, config.width)
    with torch.no_grad(), record(model) as trace:
        logits = model(images)
        expected = reference(images, output_attentions=True, output_hidden_states=True)
        final = reference.vit(images).last_hidden_state

    assert expected.logits.std() > 0.1
    assert_close(logits, expected.logits, rtol=0, atol=1e-5)
    assert_close(trace.attention, torch.stack(expected.attentions), rtol=0, atol=1e-5)
    assert (trace.attention * config.tokens).std() > 0.1
    assert_close(trace["norm"], final, rtol=0, atol=1e-5)

    inputs = [trace[f"blocks.{layer}.norm_1.input"] for layer in range(config.depth)]
    assert len(expected.hidden_states) == config.depth + 1
    for state, tensor in zip(expected.hidden_states, [*inputs, trace["norm.input"]], strict=True):
        assert_close(tensor, state, rtol=0, atol=1e-5)


def test_the_fused_way_agrees_too(build, randomize, config, images):
    reference = randomize(build("transformers", config, layer_norm_eps=1e-6).model, std=0.12)
    with torch.no_grad():
        assert_close(ours(config, reference.state_dict())(images), reference(images).logits, rtol=0, atol=1e-5)
