import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from vit_walkthrough.look.trace import record
from vit_walkthrough.model import attention as module
from vit_walkthrough.model.attention import MultiHeadSelfAttention, SelfAttention, attend, attention_weights


def weights_by_loop(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    weights = np.empty((len(queries), len(keys)))
    for i, query in enumerate(queries):
        for j, key in enumerate(keys):
            weights[i, j] = math.exp(sum(q * k for q, k in zip(query, key, strict=True)) / math.sqrt(len(query)))
        weights[i] /= weights[i].sum()
    return weights


def attend_by_loop(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    out = np.zeros((len(weights), values.shape[1]))
    for i in range(len(weights)):
        for j in range(len(values)):
            out[i] += weights[i, j] * values[j]
    return out


def float64(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


@pytest.fixture
def attention(randomize):
    return randomize(MultiHeadSelfAttention(32, 4))


def test_weights_equal_a_plain_loop():
    queries, keys = torch.randn(5, 8), torch.randn(7, 8)
    expected = weights_by_loop(float64(queries), float64(keys))
    assert_close(float64(attention_weights(queries, keys)), expected, rtol=0, atol=1e-6)


def test_attend_equals_a_plain_loop():
    weights, values = torch.rand(5, 7), torch.randn(7, 8)
    assert_close(float64(attend(weights, values)), attend_by_loop(float64(weights), float64(values)), rtol=0, atol=1e-5)


def test_weights_by_hand():
    queries, keys = torch.tensor([[0.0], [math.log(2)]]), torch.tensor([[0.0], [1.0], [2.0]])
    expected = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [1 / 7, 2 / 7, 4 / 7]])
    assert_close(attention_weights(queries, keys), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("head_dim", [1, 4, 9, 64])
def test_dot_products_are_divided_by_the_root_of_head_dim(head_dim):
    queries, keys = torch.zeros(1, head_dim), torch.zeros(2, head_dim)
    queries[0, 0], keys[0, 0] = math.sqrt(head_dim), math.log(3)
    assert_close(attention_weights(queries, keys), torch.tensor([[0.75, 0.25]]), rtol=0, atol=1e-6)


@given(st.lists(st.integers(1, 3), max_size=3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 9))
def test_every_row_sums_to_one_whatever_the_axes_before(axes, queries, keys, head_dim):
    weights = attention_weights(torch.randn(*axes, queries, head_dim), torch.randn(*axes, keys, head_dim))
    assert weights.shape == (*axes, queries, keys)
    assert (weights >= 0).all()
    assert_close(weights.sum(dim=-1), torch.ones(*axes, queries), rtol=0, atol=1e-6)


def test_columns_do_not_sum_to_one():
    columns = attention_weights(torch.randn(7, 8), torch.randn(7, 8)).sum(dim=-2)
    assert (columns - 1).abs().max() > 0.1


def test_each_head_is_computed_by_itself():
    queries, keys, values = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 4)
    together = attend(attention_weights(queries, keys), values)
    for image in range(2):
        for head in range(3):
            alone = attend(attention_weights(queries[image, head], keys[image, head]), values[image, head])
            assert_close(together[image, head], alone, rtol=0, atol=1e-6)


def test_huge_scores_stay_finite():
    weights = attention_weights(1e4 * torch.randn(5, 8), 1e4 * torch.randn(7, 8))
    assert_close(weights.sum(dim=-1), torch.ones(5))


def test_what_is_attended_to_stays_between_the_values():
    values = torch.randn(7, 8)
    head_outputs = attend(attention_weights(torch.randn(5, 8), torch.randn(7, 8)), values)
    assert (head_outputs <= values.amax(dim=0) + 1e-6).all()
    assert (head_outputs >= values.amin(dim=0) - 1e-6).all()


def test_a_query_that_fits_one_key_takes_its_value():
    values = torch.randn(4, 8)
    assert_close(attend(attention_weights(1e3 * torch.eye(4), torch.eye(4)), values), values, rtol=0, atol=1e-6)


def test_self_attention_reads_queries_then_keys_then_values(randomize, tokens):
    head = randomize(SelfAttention(32, 8))
    weight, bias = head.qkv.weight, head.qkv.bias
    queries, keys, values = (tokens @ weight[8 * i : 8 * i + 8].T + bias[8 * i : 8 * i + 8] for i in range(3))
    for image in range(2):
        weights = weights_by_loop(float64(queries[image]), float64(keys[image]))
        expected = attend_by_loop(weights, float64(values[image]))
        assert_close(float64(head(tokens)[image]), expected, rtol=0, atol=1e-5)


def test_self_attention_equals_one_head_without_mixing(randomize, tokens):
    one, several = randomize(SelfAttention(32, 32)), MultiHeadSelfAttention(32, 1).eval()
    several.qkv.load_state_dict(one.qkv.state_dict())
    nn.init.eye_(several.projection.weight)
    nn.init.zeros_(several.projection.bias)
    assert_close(several(tokens), one(tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_several_heads_are_single_heads_joined_and_mixed(attention, tokens, fused):
    attention.fused = fused
    weight, bias = attention.qkv.weight.reshape(3, 4, 8, 32), attention.qkv.bias.reshape(3, 4, 8)
    joined = []
    for index in range(4):
        head = SelfAttention(32, 8)
        head.qkv.weight.data, head.qkv.bias.data = weight[:, index].reshape(24, 32), bias[:, index].reshape(24)
        joined.append(head(tokens))
    assert_close(attention(tokens), attention.projection(torch.cat(joined, dim=-1)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("dim", "heads"), [(32, 1), (32, 4), (32, 32), (30, 5)])
def test_output_equals_torch_multihead_attention(randomize, torch_attention, fused, dim, heads):
    ours = randomize(MultiHeadSelfAttention(dim, heads))
    ours.fused = fused
    tokens = torch.randn(2, 7, dim)
    theirs, _ = torch_attention(ours)(tokens, tokens, tokens)
    assert_close(ours(tokens), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dim", "heads"), [(32, 1), (32, 4), (32, 32), (30, 5)])
def test_weights_of_every_head_equal_torch_multihead_attention(randomize, torch_attention, dim, heads):
    ours = randomize(MultiHeadSelfAttention(dim, heads))
    tokens = torch.randn(2, 7, dim)
    with record(ours) as trace:
        ours(tokens)
    _, theirs = torch_attention(ours)(tokens, tokens, tokens, average_attn_weights=False)
    assert theirs.shape == (2, heads, 7, 7)
    assert_close(trace["weights"], theirs, rtol=0, atol=1e-5)


def test_both_ways_through_attention_agree(attention, tokens):
    fused = attention(tokens)
    attention.fused = False
    assert_close(attention(tokens), fused, rtol=0, atol=1e-6)


def test_the_fused_way_uses_the_fused_kernel_and_the_other_does_not(attention, tokens, monkeypatch):
    calls = []

    def kernel(queries, keys, values):
        calls.append(queries.shape)
        return values

    monkeypatch.setattr(module.F, "scaled_dot_product_attention", kernel)
    attention(tokens)
    attention.fused = False
    attention(tokens)
    assert calls == [(2, 4, 7, 8)]


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 8, 12, 24])
def test_the_number_of_heads_changes_no_parameter(heads):
    parameters = MultiHeadSelfAttention(24, heads).named_parameters()
    assert {name: tuple(parameter.shape) for name, parameter in parameters} == {
        "qkv.weight": (72, 24),
        "qkv.bias": (72,),
        "projection.weight": (24, 24),
        "projection.bias": (24,),
    }


def test_the_number_of_heads_changes_the_result(attention, tokens):
    before = attention(tokens)
    attention.heads = 8
    assert (attention(tokens) - before).abs().max() > 0.01


@pytest.mark.parametrize("fused", [True, False])
def test_shuffled_tokens_give_shuffled_outputs(attention, tokens, fused):
    attention.fused = fused
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    assert_close(attention(tokens[:, order]), attention(tokens)[:, order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_every_token_looks_at_every_token_of_its_own_image_only(attention, tokens, fused):
    attention.fused = fused
    before = attention(tokens)
    for place in range(7):
        changed = tokens.clone()
        changed[1, place] += 1
        change = (attention(changed) - before).abs().amax(dim=-1)
        assert change[0].max() < 1e-6
        assert change[1].min() > 1e-4


@pytest.mark.parametrize("heads", [0, -4, 5])
def test_heads_that_do_not_divide_dim_are_refused(heads):
    with pytest.raises(ValueError, match=f"^heads {heads} does not divide dim 32$"):
        MultiHeadSelfAttention(32, heads)


@pytest.mark.parametrize("fused", [True, False])
def test_dropout_follows_the_projection_and_nothing_else(attention, tokens, twice, fused):
    without = attention(tokens)
    with_dropout = MultiHeadSelfAttention(32, 4, dropout=0.5).train()
    with_dropout.load_state_dict(attention.state_dict())
    with_dropout.fused, with_dropout.dropout = fused, twice
    assert_close(with_dropout(tokens), 2 * without, rtol=0, atol=1e-5)


def test_dropout_acts_in_training_only(randomize, tokens):
    attention = randomize(MultiHeadSelfAttention(32, 4, dropout=0.5))
    assert torch.equal(attention(tokens), attention(tokens))
    zeros = (attention.train()(tokens) == 0).float().mean()
    assert zeros.item() == pytest.approx(0.5, abs=0.1)


def test_training_on_a_cpu_writes_the_products_out_and_evaluation_does_not(monkeypatch, tokens):
    calls, kernel = [], module.F.scaled_dot_product_attention
    monkeypatch.setattr(
        module.F, "scaled_dot_product_attention", lambda *inputs: calls.append("fused") or kernel(*inputs)
    )
    attention = MultiHeadSelfAttention(32, 4)
    written_out = attention.train()(tokens)
    assert calls == []
    fused = attention.eval()(tokens)
    assert calls == ["fused"]
    assert torch.allclose(fused, written_out, atol=1e-6)
