"""The peers at random weights, and what they computed inside."""

from contextlib import ExitStack

import pytest
import torch
from torch import Tensor, nn

from tests.peers.libraries import build_peer
from vit_walkthrough import ViTConfig

LIBRARIES = ("timm", "torchvision", "transformers")


def fill(model: nn.Module) -> nn.Module:
    """Noise in every parameter, so that no zero or one hides a mistake; attention is far from uniform at any dim."""
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if isinstance(module, nn.LayerNorm):
                    parameter.normal_(float(name == "weight"), 0.2)
                else:
                    parameter.normal_(0.0, 0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    return model.eval()


@pytest.fixture
def build(peer):

    def build(library: str, config: ViTConfig, **options) -> nn.Module:
        peer({"transformers": "transformers.models.vit.modeling_vit"}.get(library, library))
        if library == "transformers":
            options = {"attn_implementation": "eager"} | options
        return fill(build_peer(library, config, **options))

    return build


@torch.no_grad()
def see(model: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """What a peer computes: the logits, the tokens after every block, the attention of every block."""
    blocks, attention, parts = [], [], dict(model.named_modules())
    again = dict(need_weights=True, average_attn_weights=False)

    def watch(module: nn.Module, hook) -> None:
        hooks.callback(module.register_forward_hook(hook).remove)

    with ExitStack() as hooks:
        for layer in next(parts[name] for name in ("blocks", "encoder.layers", "vit.layers") if name in parts):
            watch(layer, lambda _, inputs, output: blocks.append(output[0] if isinstance(output, tuple) else output))
            if hasattr(layer, "attn"):  # timm
                layer.attn.fused_attn = False
                watch(layer.attn.attn_drop, lambda _, inputs, output: attention.append(inputs[0]))
            elif hasattr(layer, "self_attention"):  # torchvision
                watch(layer.self_attention, lambda own, inputs, _: attention.append(own.forward(*inputs, **again)[1]))
            else:
                watch(layer.attention, lambda _, inputs, output: attention.append(output[1]))
        output = model(images)
    return getattr(output, "logits", output), blocks, attention
