from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from vit_walkthrough import Trace, VisionTransformer, record

POINTS = ["queries", "keys", "values", "weights", "head_outputs"]
ATTENTION = [f"attention.{name}" for name in ("qkv", *POINTS, "projection")]
BLOCK = [*"norm_1.input norm_1".split(), *ATTENTION, *"attention norm_2.input norm_2".split()]
BLOCK += "mlp.expand mlp.gelu mlp.contract mlp".split()
NAMES = "input patch_embedding.projection patch_embedding class_token position_embedding".split()
NAMES += [f"blocks.{block}.{name}".rstrip(".") for block in range(2) for name in (*BLOCK, "")]
NAMES += "blocks norm.input norm head.hidden head.logits head output".split()


def is_untouched(model: nn.Module) -> bool:
    modules = list(model.modules())
    hooks = [hook for module in modules for hook in (*module._forward_hooks, *module._forward_pre_hooks)]
    return not hooks and all(getattr(module, "fused", True) for module in modules)


def test_looking_changes_neither_the_output_nor_the_gradients(model, images):
    def gradients():
        model.zero_grad()
        model(images).square().sum().backward()
        return [parameter.grad for parameter in model.parameters()]

    before, expected = model(images), gradients()
    with record(model) as trace:
        during = model(images)
        assert trace["output"] is during
        assert trace["input"] is images
        assert_close(gradients(), expected, rtol=1e-4, atol=1e-5)
    assert_close(during, before, rtol=1e-6, atol=1e-6)
    assert torch.equal(model(images), before)


def test_every_tensor_is_the_one_that_its_name_says_and_attention_has_the_blocks_in_order(config, images, randomize):
    model = randomize(VisionTransformer(replace(config, depth=11)), 0.1)  # sorted as words, 10 would come before 2
    with record(model) as trace:
        model(images)
    weights = [trace[f"blocks.{block}.attention.weights"] for block in range(11)]
    assert torch.equal(trace.attention, torch.stack(weights))
    assert torch.equal(trace["blocks.0.norm_1.input"], trace["position_embedding"])
    assert torch.equal(trace["blocks.1.norm_1.input"], trace["blocks.0"])
    assert torch.equal(trace["norm.input"], trace["blocks.10"])
    for block in ("blocks.0", "blocks.1"):
        assert torch.equal(trace[f"{block}.norm_2.input"], trace[f"{block}.norm_1.input"] + trace[f"{block}.attention"])
        assert torch.equal(trace[block], trace[f"{block}.norm_2.input"] + trace[f"{block}.mlp"])
        queries, keys, values, weights, outputs = (trace[f"{block}.attention.{name}"] for name in POINTS)
        split = trace[f"{block}.attention.qkv"].reshape(2, 16, 3, 4, 8).permute(2, 0, 3, 1, 4)
        assert torch.equal(torch.stack([queries, keys, values]), split)
        assert_close(weights, (queries @ keys.mT / 8**0.5).softmax(dim=-1), rtol=0, atol=1e-6)
        assert_close(outputs, weights @ values, rtol=0, atol=1e-6)


def test_the_last_of_several_passes_stays_and_what_is_computed_again_comes_last(model, images):
    with record(model) as alone:
        model(images[1:])
    with record(model) as trace:
        model(images)
        model(images[1:])
        assert list(trace) == NAMES
        assert all(torch.equal(trace[name], alone[name]) for name in NAMES)
        model.head(torch.rand(1, 32))
    assert list(trace) == [*NAMES[:-4], "output", "head.hidden", "head.logits", "head"]


@pytest.mark.parametrize(
    ("part", "patterns", "names", "argument"),
    [
        (lambda model: model.blocks[1], (), ["input", *BLOCK, "output"], "tokens"),
        (lambda model: model.blocks[0].attention, ("weights", "output"), ["weights", "output"], "tokens"),
        (lambda model: nn.Sequential(OrderedDict(X=model.blocks[0].attention)), ("X.weights",), ["X.weights"], "input"),
        (lambda model: model.norm, (), ["input", "output"], "input"),
    ],
)
def test_a_part_can_be_recorded_alone_also_when_it_is_called_by_keyword(model, tokens, part, patterns, names, argument):
    module = part(model)
    for call in (lambda: module(tokens), lambda: module(**{argument: tokens})):
        with record(module, *patterns) as trace:
            output = call()
        assert list(trace) == names
        assert trace.get("input", tokens) is tokens
        assert trace.get("output", output) is output
        assert is_untouched(module)


@pytest.mark.parametrize(
    ("patterns", "names", "fused"),
    [
        ("*", NAMES, 0),
        ("*.attention.weights", ["blocks.0.attention.weights", "blocks.1.attention.weights"], 0),
        *[(f"blocks.1.attention.{point}", [f"blocks.1.attention.{point}"], 1) for point in POINTS],
        ("*.attention.qkv", ["blocks.0.attention.qkv", "blocks.1.attention.qkv"], 2),
        ("norm*", ["norm.input", "norm"], 2),
        ("output input", ["input", "output"], 2),
        ("*.norm_2.input head", ["blocks.0.norm_2.input", "blocks.1.norm_2.input", "head"], 2),
        ("Blocks.0 nothing", [], 2),
    ],
)
def test_patterns_choose_the_names_and_other_blocks_stay_fused(model, images, kernel_calls, patterns, names, fused):
    with record(model, *patterns.split()) as trace:
        model(images)
    assert (list(trace), len(kernel_calls)) == (names, fused)
    model(images)
    assert len(kernel_calls) == fused + 2


def test_afterwards_and_after_errors_the_model_is_as_it_was_and_hooks_of_others_are_left(model, images, unchecked):
    for wrong in (lambda: model(images[0]), lambda: model.blocks[1](torch.rand(2, 16, 31))):
        with pytest.raises((ValueError, RuntimeError)), record(model):
            wrong()
        assert is_untouched(model)
    with record(model):
        assert not is_untouched(model)
    seen, model.blocks[1].attention.fused = [], False
    model.norm.register_forward_hook(lambda *_: seen.append("norm"))
    with record(model):
        model(images)
    model(images)
    assert (seen, [block.attention.fused for block in model.blocks]) == (["norm", "norm"], [True, False])


def test_a_name_that_was_not_recorded_is_refused_with_those_that_were(model, images):
    with record(model, "norm", "head") as trace:
        model(images)
    assert trace.get("blocks.7") is None
    assert repr(trace) == "Trace(norm, head)"
    with pytest.raises(KeyError, match=r"'blocks\.7' .*: norm, head"):
        trace["blocks.7"]
    for empty, known in ((trace, "norm, head"), (Trace(), "nothing")):
        with pytest.raises(KeyError, match=rf'^"no attention weights .*\*\.attention\.weights.*: {known}"$'):
            _ = empty.attention
    with pytest.raises(KeyError, match=r"'output' .*: nothing yet"):
        Trace()["output"]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_hides_its_modules_is_refused_before_anything_is_computed(model):
    for hidden in (torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), torch.compile(model)):
        with pytest.raises(TypeError, match="^a scripted or traced model"), record(hidden):  # noqa: RUF043
            raise AssertionError("too late")
