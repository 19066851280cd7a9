"""Checkpoints of other architectures, from the libraries that have them: refused in a sentence, nothing half filled."""

import re

import pytest
import torch

from vit_walkthrough.weights.checkpoint import convert_weights, load_pretrained

SMALL = dict(depth=1, embed_dim=64, num_heads=2)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("deit_tiny_distilled_patch16_224", SMALL, "this is a distilled ViT (DeiT)"),
        ("vit_tiny_r_s16_p8_224", SMALL, "this is a hybrid, which has a ResNet"),
        ("swin_tiny_patch4_window7_224", dict(depths=(1, 1), embed_dim=32, num_heads=(1, 2)), "this is a Swin or"),
        ("beit_base_patch16_224", SMALL, "relative positions"),
        ("vit_small_patch14_reg4_dinov2", SMALL, "this is a ViT with register tokens"),
        ("vit_small_patch14_dinov2", SMALL, "this is a ViT with LayerScale, as DINOv2"),
        ("deit3_small_patch16_224", SMALL, "this is a ViT with LayerScale"),
        ("vit_base_patch16_gap_224", SMALL, "this is no ViT of timm; missing: cls_token"),
        ("vit_tiny_patch16_224", SMALL | {"global_pool": "avg"}, "this is a ViT that averages the patches"),
        ("vit_base_patch16_224_miil", SMALL, "missing: blocks.0.attn.qkv.bias"),
        ("vit_base_patch16_clip_224", SMALL, "left over: norm_pre.weight, norm_pre.bias"),
        ("vit_base_patch16_siglip_224", SMALL, "missing: cls_token"),
        ("flexivit_small", SMALL, "positions for 225 tokens are no class token and a square; say grid=(rows, cols)"),
        ("resnet18", {}, "this is no ViT of timm; missing: patch_embed.proj.weight"),
    ],
)
def test_another_architecture_of_timm(peer, tmp_path, name, arguments, message):
    timm = peer("timm")
    if name == "flexivit_small":
        arguments = SMALL | {"img_size": 240}
    model = timm.create_model(name, num_classes=3, **arguments)
    path = tmp_path / "model.pth"
    torch.save(model.state_dict(), path)
    with pytest.raises(ValueError, match=re.escape(message)):
        convert_weights(model.state_dict(), "timm", heads=2)
    with pytest.raises(ValueError, match=r"ViT|Google's|grid"):
        load_pretrained(path)


def test_another_architecture_of_torchvision(peer):
    models = peer("torchvision.models")
    with pytest.raises(ValueError, match=r"^this is a Swin or another ViT with relative positions"):
        convert_weights(models.SwinTransformer([4, 4], 16, [1, 1], [1, 2], [7, 7]).state_dict(), "torchvision")
    with pytest.raises(ValueError, match=r"^this is no ViT of torchvision; missing: conv_proj.weight"):
        convert_weights(models.resnet18().state_dict(), "torchvision")


@pytest.mark.parametrize(
    ("kind", "sizes", "message", "of_folder"),
    [
        (
            "Swin",
            dict(embed_dim=16, depths=[1, 1]),
            "this is a Swin",
            "is a swin with gelu, not a vit",
        ),
        ("DeiT", {}, "this is a distilled ViT (DeiT)", "is a deit with gelu, not a vit"),
        ("Dinov2WithRegisters", {}, "this is a ViT with register tokens", "is a dinov2_with_registers"),
        ("Dinov2", {}, "this is a ViT with LayerScale", "is a dinov2 with gelu"),
        ("ViT", dict(hidden_act="gelu_pytorch_tanh"), None, "is a vit with gelu_pytorch_tanh, not a vit with gelu"),
        ("ViT", dict(qkv_bias=False), "missing: encoder.layer.0.attention.attention.query.bias", "missing: encoder"),
    ],
)
def test_another_architecture_of_transformers(peer, tmp_path, kind, sizes, message, of_folder):
    peer("transformers.models.vit.modeling_vit")
    transformers = peer("transformers")
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32) | sizes
    if kind == "Swin":
        sizes = dict(embed_dim=16, depths=[1, 1], num_heads=[1, 2])
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes))
    if message:
        with pytest.raises(ValueError, match=re.escape(message)):
            convert_weights(model.state_dict(), "transformers", heads=2)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=re.escape(of_folder)):
        load_pretrained(tmp_path)


def test_a_model_of_timm_that_pools_otherwise_is_refused_by_its_config(peer, tmp_path):
    """Without fc_norm nothing in the tensors would tell."""
    timm = peer("timm")
    from timm.models import save_for_hf

    model = timm.create_model("vit_tiny_patch16_224", depth=1, global_pool="avg", fc_norm=False)
    save_for_hf(model, tmp_path)
    with pytest.raises(ValueError, match="pools by 'avg', not by the class token: another architecture"):
        load_pretrained(tmp_path)
