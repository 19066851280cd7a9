"""Interventions against what they mean, said with other means: another image, other weights, other modules."""

import pytest
import torch

from vit_walkthrough import record
from vit_walkthrough.look.explain import cover
from vit_walkthrough.look.intervene import intervene


@pytest.fixture(autouse=True)
def random_head(model):
    torch.nn.init.normal_(model.head.logits.weight)


def traced(model, images, **changes):
    with torch.no_grad(), intervene(model, **changes), record(model) as trace:
        model(images)
    return trace


def test_nothing_is_changed_without_options_and_after_the_block(model, images):
    before, plain = {name: len(one._forward_hooks) for name, one in model.named_modules()}, traced(model, images)
    changes = dict(order=[*range(15)][::-1], positions=False, hidden=[0], covered=[1], silenced=[(0, 1)])
    changes |= dict(skipped=["blocks.1"], alone=["blocks.0.mlp"], unnormed=["norm"], temperature=2.0)
    with pytest.raises(KeyError), intervene(model, **changes):
        raise KeyError
    assert {name: len(one._forward_hooks) for name, one in model.named_modules()} == before
    assert "forward" not in vars(model.blocks[0])
    fused = {name: one.fused for name, one in model.named_modules() if hasattr(one, "fused")}
    assert fused == {"blocks.0.attention": True, "blocks.1.attention": True}
    with torch.no_grad():
        torch.testing.assert_close(model(images), plain["output"], rtol=1e-5, atol=1e-5)


def test_patches_in_another_order_are_another_image(model, images):
    order = torch.randperm(15)
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4).flatten(2, 3)  # batch channels patches 4 4
    moved = patches[:, :, order].unflatten(2, (3, 5)).permute(0, 1, 2, 4, 3, 5).reshape(images.shape)
    torch.testing.assert_close(traced(model, images, order=order.tolist())["output"], traced(model, moved)["output"])


def test_covered_patches_are_an_image_too_with_the_median_of_each_channel(model, images):
    painted = cover(images, [0, 7], 4)
    torch.testing.assert_close(traced(model, images, covered=[0, 7])["input"], painted)
    for image, before in zip(painted, images, strict=True):
        ground = before.flatten(1).sort().values[:, (240 - 1) // 2]
        assert torch.equal(image[:, :4, :4], ground[:, None, None].expand(3, 4, 4))
        assert torch.equal(image[:, 4:8, 8:12], ground[:, None, None].expand(3, 4, 4))
        assert int((image != before).any(0).sum()) <= 32


def test_without_positions_they_are_zero_and_hidden_patches_get_no_attention(model, images):
    bare, hidden = traced(model, images, positions=False), [0, 3, 14]
    assert torch.equal(bare["position_embedding"], bare["class_token"])
    keys = [1 + patch for patch in hidden]
    seen, plain = (traced(model, images, **change).attention for change in ({"hidden": hidden}, {}))
    assert (seen[..., keys] == 0).all()
    plain = plain[0].clone()  # of later blocks the inputs are others
    plain[..., keys] = 0
    torch.testing.assert_close(seen[0], plain / plain.sum(-1, keepdim=True))


@torch.no_grad()
def test_silenced_heads_are_those_whose_columns_of_the_projection_are_zero(model, images):
    found = traced(model, images, silenced=[(1, 2), (0, 0)])["output"]
    with intervene(model, silenced=[(1, 2), (0, 0)]):  # no recorder makes it leave the fused kernel
        alone = model(images)
    for block, head in ((1, 2), (0, 0)):
        model.blocks[block].attention.projection.weight.unflatten(1, (4, 8))[:, head] = 0
    torch.testing.assert_close((found, alone), 2 * (traced(model, images)["output"],))


def test_what_is_skipped_adds_nothing_and_what_is_alone_replaces_the_stream(model, images):
    plain = traced(model, images)
    skipped = traced(model, images, skipped=["blocks.0", "blocks.1.mlp"])
    torch.testing.assert_close(skipped["blocks.0"], plain["position_embedding"])
    torch.testing.assert_close(skipped["blocks.1"], skipped["blocks.1.norm_2.input"])
    alone = traced(model, images, alone=["blocks.0.attention", "blocks.0.mlp"])
    torch.testing.assert_close(alone["blocks.0.norm_2.input"], plain["blocks.0.attention"])
    torch.testing.assert_close(alone["blocks.0"], alone["blocks.0.mlp"])
    half = traced(model, images, alone=["blocks.0.attention"])  # the other half adds as before
    torch.testing.assert_close(half["blocks.0"], half["blocks.0.attention"] + half["blocks.0.mlp"])
    half = traced(model, images, alone=["blocks.0.mlp"])
    torch.testing.assert_close(half["blocks.0.norm_2.input"], plain["blocks.0.norm_2.input"])


def test_norms_that_are_off_pass_the_tokens_and_temperature_flattens_the_softmax(model, images):
    off = traced(model, images, unnormed=["blocks.1.norm_1", "norm"])
    for name in ("blocks.1.norm_1", "norm"):
        assert torch.equal(off[name], off[f"{name}.input"])
    plain, cool = (traced(model, images, temperature=degrees).attention[0] for degrees in (1.0, 2.0))
    expected = plain.sqrt() / plain.sqrt().sum(-1, keepdim=True)
    torch.testing.assert_close(cool, expected)


def test_what_the_model_lacks_is_refused_with_the_choices(model):
    wrong = {"each of the 15 patches once": dict(order=[0, 1]), "hidden has 15; .* 0 to 14": dict(hidden=[15])}
    wrong |= {"covered has -1": dict(covered=[-1]), "unnormed has 'head'; .*norm_1": dict(unnormed=["head"])}
    wrong |= {"skipped has 'blocks.2'; .*blocks.1.mlp": dict(skipped=["blocks.2"]), " is 0.0": dict(temperature=0.0)}
    wrong |= {r"silenced has \(0, 4\); choose from \(0, 0\), \(0, 1\)": dict(silenced=[(0, 4)])}
    for words, change in (wrong | {"alone has 'blocks.0'": dict(alone=["blocks.0"])}).items():
        with pytest.raises(ValueError, match=words), intervene(model, **change):
            pass
