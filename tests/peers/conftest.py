"""The peers at random weights, saved as they save themselves, and what they computed inside."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vit_walkthrough import VisionTransformer, ViTConfig

LIBRARIES = ("timm", "torchvision", "transformers", "google")


@dataclass
class Seen:
    """What a peer computed: the residual stream after every block, every attention matrix, the logits."""

    logits: Tensor
    blocks: list[Tensor]
    attention: list[Tensor]


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


class Timm:
    """A ViT of timm. Its folder is what timm puts on the hub."""

    source = "timm"

    def __init__(self, peer, config: ViTConfig, **options):
        peer("timm")
        from timm import create_model

        self.config = config
        self.model = fill(
            create_model(
                "vit_base_patch16_224",
                img_size=(config.height, config.width),
                patch_size=config.patch_size,
                in_chans=config.channels,
                embed_dim=config.dim,
                depth=config.depth,
                num_heads=config.heads,
                mlp_ratio=config.hidden / config.dim,
                **{"num_classes": config.classes} | options,
            )
        )

    def save(self, folder: Path) -> Path:
        from timm.models import save_for_hf

        save_for_hf(self.model, folder, safe_serialization="both")
        return folder

    @torch.no_grad()
    def see(self, images: Tensor) -> Seen:
        blocks, attention, handles = [], [], []
        for block in self.model.blocks:
            block.attn.fused_attn = False
            handles.append(block.register_forward_hook(lambda _, inputs, output: blocks.append(output)))
            handles.append(
                block.attn.attn_drop.register_forward_hook(lambda _, inputs, __: attention.append(inputs[0]))
            )
        logits = self.model(images)
        for handle in handles:
            handle.remove()
        return Seen(logits, blocks, attention)


class Torchvision:
    """A ViT of torchvision. Its file is a .pth, with the names of the files that torchvision publishes."""

    source = "torchvision"

    def __init__(self, peer, config: ViTConfig, **options):
        models = peer("torchvision.models")
        assert config.height == config.width, "torchvision knows squares only"
        assert config.channels == 3
        sizes = (config.height, config.patch_size, config.depth, config.heads, config.dim, config.hidden)
        self.config = config
        self.model = fill(models.VisionTransformer(*sizes, num_classes=config.classes, **options))

    def save(self, folder: Path) -> Path:
        path = folder / "vit.pth"
        state = {
            name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): tensor
            for name, tensor in self.model.state_dict().items()
        }
        torch.save(state, path)
        return path

    @torch.no_grad()
    def see(self, images: Tensor) -> Seen:
        blocks, attention, handles = [], [], []

        def look(module, inputs, output):
            attention.append(module.forward(*inputs, need_weights=True, average_attn_weights=False)[1])

        for block in self.model.encoder.layers:
            handles.append(block.register_forward_hook(lambda _, inputs, output: blocks.append(output)))
            handles.append(block.self_attention.register_forward_hook(look))
        logits = self.model(images)
        for handle in handles:
            handle.remove()
        return Seen(logits, blocks, attention)


class Transformers:
    """A ViT of transformers. Its folder is what save_pretrained writes: the names on the hub."""

    source = "transformers"

    def __init__(self, peer, config: ViTConfig, **options):
        peer("transformers.models.vit.modeling_vit")
        transformers = peer("transformers")
        self.config = config
        self.model = fill(
            transformers.ViTForImageClassification(
                transformers.ViTConfig(
                    image_size=(config.height, config.width),
                    patch_size=config.patch_size,
                    num_channels=config.channels,
                    hidden_size=config.dim,
                    num_hidden_layers=config.depth,
                    num_attention_heads=config.heads,
                    intermediate_size=config.hidden,
                    num_labels=config.classes,
                    attn_implementation="eager",
                    **options,
                )
            )
        )

    def save(self, folder: Path) -> Path:
        self.model.save_pretrained(folder)
        return folder

    @torch.no_grad()
    def see(self, images: Tensor) -> Seen:
        size = (self.config.height, self.config.width)
        options = dict(output_attentions=True, interpolate_pos_encoding=tuple(images.shape[2:]) != size)
        blocks, handles = [], []
        for layer in self.model.vit.layers:
            handles.append(
                layer.register_forward_hook(
                    lambda _, inputs, output: blocks.append(output[0] if isinstance(output, tuple) else output)
                )
            )
        output = self.model(images, **options)
        for handle in handles:
            handle.remove()
        return Seen(output.logits, blocks, list(output.attentions))


class Google(Timm):
    """A ViT of timm, written as google-research/vision_transformer writes it."""

    source = "google"

    def save(self, folder: Path) -> Path:
        path = folder / "ViT.npz"
        np.savez(path, **google_arrays(self.model.state_dict(), self.config.heads))
        return path


def google_arrays(state: dict[str, Tensor], heads: int) -> dict[str, np.ndarray]:
    """timm's tensors in the layout of the Flax modules: Dense kernels (in, out), a convolution's (height, width, in,
    out), MultiHeadDotProductAttention's (dim, heads, head_dim) and (heads, head_dim, dim)."""
    state = {name: tensor.numpy() for name, tensor in state.items()}
    dim = state["norm.weight"].size
    arrays = {
        "cls": state["cls_token"],
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
    }
    if "head.weight" in state:
        arrays |= {"head/kernel": state["head.weight"].T, "head/bias": state["head.bias"]}
    for number in range(sum(name.endswith("norm1.bias") for name in state)):
        block, theirs = f"Transformer/encoderblock_{number}", f"blocks.{number}"
        for norm, name in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            arrays[f"{block}/{norm}/scale"] = state[f"{theirs}.{name}.weight"]
            arrays[f"{block}/{norm}/bias"] = state[f"{theirs}.{name}.bias"]
        for dense, name in (("Dense_0", "fc1"), ("Dense_1", "fc2")):
            arrays[f"{block}/MlpBlock_3/{dense}/kernel"] = state[f"{theirs}.mlp.{name}.weight"].T
            arrays[f"{block}/MlpBlock_3/{dense}/bias"] = state[f"{theirs}.mlp.{name}.bias"]
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for place, name in enumerate(("query", "key", "value")):
            rows = slice(place * dim, (place + 1) * dim)
            kernel = state[f"{theirs}.attn.qkv.weight"][rows].T
            arrays[f"{attention}/{name}/kernel"] = kernel.reshape(dim, heads, dim // heads)
            arrays[f"{attention}/{name}/bias"] = state[f"{theirs}.attn.qkv.bias"][rows].reshape(heads, dim // heads)
        arrays[f"{attention}/out/kernel"] = state[f"{theirs}.attn.proj.weight"].T.reshape(heads, dim // heads, dim)
        arrays[f"{attention}/out/bias"] = state[f"{theirs}.attn.proj.bias"]
    return arrays


def filled(config: ViTConfig, weights: dict, copied: dict[str, str], state: dict[str, Tensor]) -> VisionTransformer:
    """Our model with `weights`, and with the weight and the bias of each module of theirs that `copied` names."""
    for name, other in copied.items():
        weights |= {f"{name}.{kind}": state[f"{other}.{kind}"] for kind in ("weight", "bias")}
    model = VisionTransformer(config).eval()
    model.load_state_dict(weights)
    return model


PEERS = dict(timm=Timm, torchvision=Torchvision, transformers=Transformers, google=Google)


@pytest.fixture
def build(peer):
    """A peer's model of a config, at random weights."""

    def build(library: str, config: ViTConfig, **options):
        return PEERS[library](peer, config, **options)

    return build
