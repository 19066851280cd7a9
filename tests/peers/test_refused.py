"""Models that are not the paper's ViT, from the libraries that have them: refused with the reason."""

import pytest
import torch

from vit_walkthrough.weights.convert import convert_weights

SMALL = dict(depth=1, embed_dim=64, num_heads=2)


def refused(model: torch.nn.Module, source: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        convert_weights(model, source)


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("deit_tiny_distilled_patch16_224", SMALL, "2 tokens before its patches"),
        ("vit_tiny_r_s16_p8_224", SMALL, "patch_embed is a HybridEmbed"),
        ("vit_tiny_patch16_224", SMALL | {"reg_tokens": 4}, "5 tokens before its patches"),
        ("vit_tiny_patch16_224", SMALL | {"global_pool": "avg", "fc_norm": False}, "pools by 'avg'"),
        ("vit_tiny_patch16_224", SMALL | {"fc_norm": True}, r"missing: norm\.weight.*left over: fc_norm"),
        ("vit_tiny_patch16_224", SMALL | {"no_embed_class": True}, r"\(1, 196, 64\)|196 positions"),
        ("vit_tiny_patch16_224", SMALL | {"act_layer": "gelu_tanh"}, "GELUTanh"),
        ("vit_base_patch16_224_miil", SMALL, r"missing: blocks\.0\.attn\.qkv\.bias"),
        ("vit_base_patch16_siglip_224", SMALL, "0 tokens before its patches"),
    ],
)
def test_other_models_of_timm(peer, name, arguments, reason):
    refused(peer("timm").create_model(name, num_classes=3, **arguments), "timm", reason)


def test_other_blocks_heads_and_eps_of_timm(peer):
    timm = peer("timm.models.vision_transformer")
    refused(timm.VisionTransformer(64, block_fn=timm.ResPostBlock, **SMALL), "timm", "ResPostBlock")
    model = timm.VisionTransformer(64, **SMALL | {"depth": 2})
    model.blocks[1].attn.num_heads = 4
    refused(model, "timm", "heads .*2.*4|heads .*4.*2")
    model.blocks[1].attn.num_heads = 2
    model.norm.eps = 1e-3
    refused(model, "timm", r"eps .*0\.001")
    model.norm.eps = 1e-6
    model.blocks[1].mlp.act = torch.nn.GELU(approximate="tanh")
    refused(model, "timm", r"blocks\.1\.mlp\.act .*approximate")


def test_other_models_of_transformers(peer):
    peer("transformers.models.vit.modeling_vit")
    transformers, sizes = peer("transformers"), dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    refused(transformers.DeiTModel(transformers.DeiTConfig(**sizes, intermediate_size=32)), "transformers", "DeiTModel")
    changes = {"ReLU": dict(hidden_act="relu"), r"pooler\.activation is a GELU": dict(pooler_act="gelu")}
    for reason, change in (changes | {r"missing: .*query\.bias": dict(qkv_bias=False)}).items():
        config = transformers.ViTConfig(**sizes, intermediate_size=32, **change)
        refused(transformers.ViTModel(config), "transformers", reason)
