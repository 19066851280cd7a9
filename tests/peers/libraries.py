"""The public libraries that the tests and the benchmark compare with: how they are imported, and their models built."""

from importlib import import_module
from types import ModuleType

import torch
from torch import nn

from vit_walkthrough import ViTConfig

DECLARED = []  # a torch.library.Library lives as long as it is held


def import_peer(name: str) -> ModuleType:
    """Import a peer, also beside a torchvision for CUDA, whose operators do not load beside a torch for the CPU."""
    try:
        import_module("torchvision")
    except ModuleNotFoundError:
        pass
    except RuntimeError:
        DECLARED.append(torch.library.Library("torchvision", "DEF"))
        for operator in ("nms", "qnms"):
            DECLARED[-1].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return import_module(name)


def build_peer(library: str, config: ViTConfig, **options) -> nn.Module:
    size, dim, depth, heads = (config.height, config.width), config.dim, config.depth, config.heads
    if library == "timm":
        sizes = dict(img_size=size, patch_size=config.patch_size, in_chans=config.channels, embed_dim=dim)
        sizes |= dict(depth=depth, num_heads=heads, mlp_ratio=config.hidden / dim, num_classes=config.classes)
        return import_peer("timm").create_model("vit_base_patch16_224", **sizes | options)
    if library == "torchvision":
        sizes = (config.height, config.patch_size, depth, heads, dim, config.hidden)
        return import_peer("torchvision.models").VisionTransformer(*sizes, num_classes=config.classes, **options)
    if library == "transformers":
        transformers = import_peer("transformers")
        sizes = dict(image_size=size, patch_size=config.patch_size, num_channels=config.channels, hidden_size=dim)
        sizes |= dict(num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=config.hidden)
        theirs = transformers.ViTConfig(**sizes, num_labels=config.classes, **options)
        return transformers.ViTForImageClassification(theirs)
    sizes = dict(image_size=size, patch_size=config.patch_size, dim=dim, depth=depth, heads=heads)
    sizes |= dict(dim_head=config.head_dim, mlp_dim=config.hidden, num_classes=config.classes)
    return import_peer("vit_pytorch").ViT(**sizes, **options)
