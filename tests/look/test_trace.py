import copy
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from vit_walkthrough.look.trace import Trace, record
from vit_walkthrough.model import attention as attention_module
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.vit import VisionTransformer

BLOCK = [
    "norm_1.input",
    "norm_1",
    "attention.qkv",
    "attention.queries",
    "attention.keys",
    "attention.values",
    "attention.weights",
    "attention.head_outputs",
    "attention.projection",
    "attention",
    "norm_2.input",
    "norm_2",
    "mlp.expand",
    "mlp.gelu",
    "mlp.contract",
    "mlp",
]
NAMES = [
    "input",
    "patch_embedding.projection",
    "patch_embedding",
    "class_token",
    "position_embedding",
    *[f"blocks.0.{name}" for name in BLOCK],
    "blocks.0",
    *[f"blocks.1.{name}" for name in BLOCK],
    "blocks.1",
    "blocks",
    "norm.input",
    "norm",
    "head.hidden",
    "head.logits",
    "head",
    "output",
]


def is_untouched(model: nn.Module) -> bool:
    modules = list(model.modules())
    hooks = [hook for module in modules for hook in (*module._forward_hooks, *module._forward_pre_hooks)]
    return not hooks and all(getattr(module, "fused", True) for module in modules)


@pytest.fixture
def kernel_calls(monkeypatch):
    """One entry for every call of the fused kernel."""
    calls, kernel = [], attention_module.F.scaled_dot_product_attention

    def counted(*tensors):
        calls.append(len(tensors))
        return kernel(*tensors)

    monkeypatch.setattr(attention_module.F, "scaled_dot_product_attention", counted)
    return calls


def test_names_follow_the_computation(model, images):
    with record(model) as trace:
        model(images)
    assert trace.names == list(trace) == NAMES
    assert len(trace) == len(NAMES)


def test_shapes_of_everything_recorded(model, images):
    with record(model) as trace:
        model(images)
    shapes = {name: tuple(tensor.shape) for name, tensor in trace.items()}
    tokens, heads = (2, 16, 32), (2, 4, 16, 8)
    assert shapes["input"] == (2, 3, 12, 20)
    assert shapes["patch_embedding.projection"] == shapes["patch_embedding"] == (2, 15, 32)
    assert shapes["class_token"] == shapes["position_embedding"] == shapes["blocks"] == shapes["norm"] == tokens
    for block in ("blocks.0.", "blocks.1."):
        assert shapes[f"{block}attention.qkv"] == (2, 16, 96)
        assert {shapes[f"{block}attention.{name}"] for name in ("queries", "keys", "values", "head_outputs")} == {heads}
        assert shapes[f"{block}attention.weights"] == (2, 4, 16, 16)
        assert shapes[f"{block}mlp.expand"] == shapes[f"{block}mlp.gelu"] == (2, 16, 48)
        for name in ("norm_1.input", "norm_1", "attention.projection", "attention", "norm_2.input", "norm_2"):
            assert shapes[block + name] == tokens
        assert shapes[f"{block}mlp.contract"] == shapes[f"{block}mlp"] == shapes[block[:-1]] == tokens
    assert shapes["head.hidden"] == (2, 32)
    assert shapes["head.logits"] == shapes["head"] == shapes["output"] == (2, 5)


def test_looking_does_not_change_the_output(model, images):
    before = model(images)
    with record(model) as trace:
        during = model(images)
    assert before.std() > 0.1
    assert_close(during, before, rtol=1e-6, atol=1e-6)
    assert torch.equal(model(images), before)
    assert trace["output"] is during
    assert trace["input"] is images


def test_looking_does_not_change_the_gradients(model, images):
    def gradients():
        model.zero_grad()
        model(images).square().sum().backward()
        return [parameter.grad for parameter in model.parameters()]

    before = gradients()
    with record(model):
        during = gradients()
    assert_close(during, before, rtol=1e-4, atol=1e-5)


def test_looking_does_not_change_what_dropout_drops(config, images, randomize):
    model = randomize(VisionTransformer(replace(config, dropout=0.5))).train()
    torch.manual_seed(1)
    before = model(images)
    torch.manual_seed(1)
    with record(model):
        assert_close(model(images), before, rtol=0, atol=1e-5)


def test_attention_stacks_the_layers_first_to_last(model, images):
    with record(model) as trace:
        model(images)
    assert trace.attention.shape == (2, 2, 4, 16, 16)
    assert torch.equal(trace.attention[0], trace["blocks.0.attention.weights"])
    assert torch.equal(trace.attention[1], trace["blocks.1.attention.weights"])
    assert_close(trace.attention.sum(dim=-1), torch.ones(2, 2, 4, 16), rtol=0, atol=1e-6)


def test_eleven_layers_and_more_are_not_sorted_as_words(config, images, randomize):
    model = randomize(VisionTransformer(replace(config, depth=12)))
    with record(model) as trace:
        model(images)
    assert torch.equal(trace.attention[2], trace["blocks.2.attention.weights"])
    assert torch.equal(trace.attention[10], trace["blocks.10.attention.weights"])


def test_the_residual_stream_adds_up(model, images):
    with record(model) as trace:
        model(images)
    assert torch.equal(trace["blocks.0.norm_1.input"], trace["position_embedding"])
    assert torch.equal(trace["blocks.1.norm_1.input"], trace["blocks.0"])
    assert torch.equal(trace["norm.input"], trace["blocks.1"])
    for block in ("blocks.0", "blocks.1"):
        assert torch.equal(trace[f"{block}.norm_2.input"], trace[f"{block}.norm_1.input"] + trace[f"{block}.attention"])
        assert torch.equal(trace[block], trace[f"{block}.norm_2.input"] + trace[f"{block}.mlp"])


def test_the_recorded_attention_is_what_the_equations_say(model, images):
    with record(model) as trace:
        model(images)
    part = {
        name: trace[f"blocks.1.attention.{name}"] for name in ("queries", "keys", "values", "weights", "head_outputs")
    }
    qkv = trace["blocks.1.attention.qkv"].reshape(2, 16, 3, 4, 8)
    for index, name in enumerate(("queries", "keys", "values")):
        assert torch.equal(part[name], qkv[:, :, index].transpose(1, 2))
    scores = part["queries"] @ part["keys"].mT / 8**0.5
    assert_close(part["weights"], scores.softmax(dim=-1), rtol=0, atol=1e-6)
    assert_close(part["head_outputs"], part["weights"] @ part["values"], rtol=0, atol=1e-6)


def test_afterwards_the_model_is_as_it_was(model, images):
    with record(model):
        assert not is_untouched(model)
        model(images)
    assert is_untouched(model)


@pytest.mark.usefixtures("unchecked")
def test_after_an_error_the_model_is_as_it_was(model, images):
    with pytest.raises(ValueError, match="add the batch axis"), record(model):
        model(images[0])
    assert is_untouched(model)
    with pytest.raises(RuntimeError, match="shape"), record(model):
        model.blocks[1](torch.rand(2, 16, 31))
    assert is_untouched(model)


def test_hooks_and_choices_of_others_are_left_alone(model, images):
    seen = []
    model.norm.register_forward_hook(lambda *_: seen.append("norm"))
    model.blocks[1].attention.fused = False
    with record(model):
        model(images)
    model(images)
    assert seen == ["norm", "norm"]
    assert [block.attention.fused for block in model.blocks] == [True, False]


def test_records_can_be_nested(model, images):
    with record(model) as outer:
        with record(model, "blocks.*.attention.weights", "output") as inner:
            model(images)
        assert not model.blocks[0].attention.fused
        model(images[:1])
    assert inner.names == ["blocks.0.attention.weights", "blocks.1.attention.weights", "output"]
    assert len(inner["output"]) == 2
    assert outer.names == NAMES
    assert len(outer["output"]) == 1
    assert is_untouched(model)


def test_an_inner_record_may_need_more_than_the_outer(model, images):
    with record(model, "norm") as outer:
        with record(model, "*.weights") as inner:
            model(images)
        assert model.blocks[0].attention.fused
    assert outer.names == ["norm"]
    assert inner.attention.shape == (2, 2, 4, 16, 16)
    assert is_untouched(model)


def test_without_gradients_nothing_of_the_graph_is_kept(model, images):
    with torch.no_grad(), record(model) as trace:
        model(images)
    assert trace.names == NAMES
    assert not any(tensor.requires_grad for tensor in trace.values())


def test_recorded_weights_have_gradients(model, images):
    with record(model) as trace:
        logits = model(images)
    weights = [trace[f"blocks.{layer}.attention.weights"] for layer in range(2)]
    for tensor in weights:
        tensor.retain_grad()
    logits[:, 3].sum().backward()
    assert all(tensor.grad.shape == (2, 4, 16, 16) and tensor.grad.abs().max() > 1e-6 for tensor in weights)
    assert not weights[-1].grad[:, :, 1:].any()


def test_the_stacked_attention_has_gradients_to_what_came_before(model, images):
    with record(model) as trace:
        model(images)
    trace.attention[1, :, :, 0, 3].sum().backward()
    assert model.blocks[0].mlp.contract.weight.grad.abs().max() > 1e-6


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (("*.attention.weights",), ["blocks.0.attention.weights", "blocks.1.attention.weights"]),
        (("blocks.1.attention.weights",), ["blocks.1.attention.weights"]),
        (("blocks.?",), ["blocks.0", "blocks.1"]),
        (("output", "input"), ["input", "output"]),
        (("norm*",), ["norm.input", "norm"]),
        (("*.norm_2.input", "head"), ["blocks.0.norm_2.input", "blocks.1.norm_2.input", "head"]),
        (("*",), NAMES),
        (("Blocks.0", "nothing"), []),
    ],
)
def test_patterns_choose_the_names(model, images, patterns, names):
    with record(model, *patterns) as trace:
        model(images)
    assert trace.names == names


def test_patterns_change_no_value(model, images):
    with record(model) as everything:
        model(images)
    with record(model, "*.weights") as weights:
        model(images)
    assert torch.equal(weights.attention, everything.attention)


@pytest.mark.parametrize("pattern", ["norm", "blocks.?", "*.attention", "*.attention.qkv", "*.input", "output"])
def test_patterns_that_need_no_attention_leave_the_fused_kernel_on(model, images, kernel_calls, pattern):
    with record(model, pattern):
        model(images)
    assert kernel_calls == [3, 3]


@pytest.mark.parametrize("point", ["queries", "keys", "values", "weights", "head_outputs"])
def test_patterns_that_need_attention_switch_the_fused_kernel_off(model, images, kernel_calls, point):
    with record(model, f"blocks.1.attention.{point}") as trace:
        model(images)
    assert trace.names == [f"blocks.1.attention.{point}"]
    assert kernel_calls == [3]
    model(images)
    assert kernel_calls == [3, 3, 3]


def test_one_block_can_be_recorded_alone(model, tokens):
    block = model.blocks[1]
    with record(block) as trace:
        output = block(tokens)
    assert trace.names == ["input", *BLOCK, "output"]
    assert trace["output"] is output
    assert trace.attention.shape == (1, 2, 4, 7, 7)
    assert is_untouched(model)


def test_attention_can_be_recorded_alone(model, tokens):
    attention = model.blocks[0].attention
    with record(attention, "weights", "output") as trace:
        output = attention(tokens)
    assert trace.names == ["weights", "output"]
    assert trace["output"] is output
    assert trace.attention.shape == (1, 2, 4, 7, 7)
    assert is_untouched(model)


def test_attention_inside_a_container_is_named_by_its_whole_path(model, tokens):
    container = nn.Sequential(OrderedDict(X=model.blocks[0].attention))
    with record(container, "X.weights") as trace:
        container(tokens)
    assert trace.names == ["X.weights"]


def test_a_layer_norm_can_be_recorded_alone(model, tokens):
    with record(model.norm) as trace:
        model.norm(tokens)
    assert trace.names == ["input", "output"]


def test_the_last_of_several_passes_stays(model, images):
    with record(model) as alone:
        model(images[1:])
    with record(model) as trace:
        model(images)
        model(images[1:])
    assert trace.names == NAMES
    assert all(torch.equal(trace[name], alone[name]) for name in NAMES)


def test_what_is_computed_again_comes_last(model, images):
    with record(model) as trace:
        model(images)
        model.head(torch.rand(1, 32))
    assert trace.names == [*NAMES[:-4], "output", "head.hidden", "head.logits", "head"]


def test_a_trace_stays_after_other_passes(model, images):
    with record(model) as trace:
        model(images)
    kept = trace["blocks.1"].clone()
    model(torch.rand(1, 3, 12, 20))
    assert trace.names == NAMES
    assert torch.equal(trace["blocks.1"], kept)


def test_a_trace_is_a_mapping_that_cannot_be_written(model, images):
    with record(model, "norm") as trace:
        model(images)
    assert "norm" in trace
    assert "head" not in trace
    assert trace.get("head") is None
    trace.names.append("head")
    assert trace.names == ["norm"]
    with pytest.raises(TypeError, match="does not support item assignment"):
        trace["head"] = images


def test_a_name_that_was_not_recorded_is_refused_with_those_that_were(model, images):
    with record(model, "norm", "head") as trace:
        model(images)
    with pytest.raises(KeyError) as error:
        trace["blocks.7"]
    assert error.value.args == ("'blocks.7' was not recorded; recorded: norm, head",)


def test_an_empty_trace_says_so():
    with pytest.raises(KeyError) as error:
        Trace()["output"]
    assert error.value.args == ("'output' was not recorded; recorded: nothing yet",)


def test_attention_that_was_not_recorded_says_how_to(model, images):
    with record(model, "norm", "head") as trace:
        model(images)
    with pytest.raises(KeyError) as error:
        _ = trace.attention
    message = (
        "no attention weights were recorded; run the model inside `with record(model) as trace:`, or with a pattern "
        "that matches them, as '*.attention.weights'; recorded: norm, head"
    )
    assert error.value.args == (message,)
    with record(model, "attention.weights") as trace:  # which no name is: a path comes before it
        model(images)
    with pytest.raises(KeyError, match="recorded: nothing"):
        _ = trace.attention


def test_a_model_copied_while_recording_does_not_disturb_the_trace(model, images):
    with record(model) as trace:
        output = model(images)
    duplicate = copy.deepcopy(model)
    duplicate(torch.rand(1, 3, 12, 20))
    assert trace["output"] is output
    assert is_untouched(duplicate)


def test_shapes_of_a_published_model_without_its_numbers():
    with torch.device("meta"):
        model, images = VisionTransformer(ViTConfig.named("B/16")), torch.empty(1, 3, 224, 224)
    with record(model) as trace:
        model(images)
    assert trace["patch_embedding"].shape == (1, 196, 768)
    assert trace.attention.shape == (12, 1, 12, 197, 197)
    assert trace["output"].shape == (1, 1000)
