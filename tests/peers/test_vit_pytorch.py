"""vit-pytorch's ViT is not quite the paper's: two LayerNorms around the patch embedding, no biases in qkv, patches
flattened (ph, pw, channels), eps 1e-5. With the first taken out, the others are the same computation as ours."""

import pytest
import torch
from einops import rearrange
from torch import nn
from torch.testing import assert_close

from tests.peers.conftest import fill, filled
from vit_walkthrough import VisionTransformer, ViTConfig, record


def ours(config: ViTConfig, state: dict[str, torch.Tensor]) -> VisionTransformer:
    embedding = rearrange(
        state["to_patch_embedding.2.weight"],
        "dim (ph pw channels) -> dim (channels ph pw)",
        ph=config.patch_size,
        pw=config.patch_size,
    )
    weights = {
        "patch_embedding.projection.weight": embedding,
        "patch_embedding.projection.bias": state["to_patch_embedding.2.bias"],
        "class_token.token": state["cls_token"][None],
        "position_embedding.positions": state["pos_embedding"][None],
    }
    copied = {"norm": "transformer.norm", "head.logits": "mlp_head"}
    for layer in range(config.depth):
        attention, mlp = f"transformer.layers.{layer}.0", f"transformer.layers.{layer}.1.net"
        copied |= {
            f"blocks.{layer}.norm_1": f"{attention}.norm",
            f"blocks.{layer}.attention.projection": f"{attention}.to_out.0",
            f"blocks.{layer}.norm_2": f"{mlp}.0",
            f"blocks.{layer}.mlp.expand": f"{mlp}.1",
            f"blocks.{layer}.mlp.contract": f"{mlp}.4",
        }
        weights[f"blocks.{layer}.attention.qkv.weight"] = state[f"{attention}.to_qkv.weight"]
        weights[f"blocks.{layer}.attention.qkv.bias"] = torch.zeros(3 * config.dim)
    return filled(config, weights, copied, state)


@pytest.mark.parametrize(
    "config",
    [
        ViTConfig(image_size=(12, 20), patch_size=4, dim=32, depth=2, heads=4, hidden=48, classes=5),
        ViTConfig(image_size=(20, 12), patch_size=2, channels=1, dim=24, depth=3, heads=2, hidden=96, classes=2),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_logits_blocks_and_attention_agree(peer, config, batch):
    sizes = dict(dim=config.dim, depth=config.depth, heads=config.heads, dim_head=config.head_dim)
    theirs = fill(
        peer("vit_pytorch").ViT(
            image_size=(config.height, config.width),
            patch_size=config.patch_size,
            channels=config.channels,
            num_classes=config.classes,
            mlp_dim=config.hidden,
            **sizes,
        )
    )
    theirs.to_patch_embedding[1] = theirs.to_patch_embedding[3] = nn.Identity()
    for module in theirs.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    attention, blocks = [], []
    for heads, mlp in theirs.transformer.layers:
        heads.attend.register_forward_hook(lambda _, inputs, output: attention.append(output))
        mlp.register_forward_hook(lambda _, inputs, output: blocks.append(inputs[0] + output))
    images = torch.rand(batch, config.channels, config.height, config.width)
    model = ours(config, theirs.state_dict())
    with torch.no_grad(), record(model) as trace:
        assert_close(model(images), theirs(images), rtol=0, atol=1e-4)
    assert_close(trace.attention, torch.stack(attention), rtol=0, atol=1e-4)
    for layer, block in enumerate(blocks):
        assert_close(trace[f"blocks.{layer}"], block, rtol=0, atol=1e-4)
