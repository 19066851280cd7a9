import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from vit_walkthrough.look.trace import record
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


def test_weights_and_what_they_take_equal_plain_loops():
    queries, keys, values = torch.randn(5, 8), torch.randn(7, 8), torch.randn(7, 3)
    weights = attention_weights(queries, keys)
    expected = weights_by_loop(float64(queries), float64(keys))
    assert_close(float64(weights), expected, rtol=0, atol=1e-6)
    assert_close(float64(attend(weights, values)), attend_by_loop(expected, float64(values)), rtol=0, atol=1e-5)


def test_huge_scores_stay_finite():
    weights = attention_weights(1e4 * torch.randn(5, 8), 1e4 * torch.randn(7, 8))
    assert_close(weights.sum(dim=-1), torch.ones(5))


def test_self_attention_reads_queries_then_keys_then_values(randomize, tokens):
    head = randomize(SelfAttention(32, 8))
    weight, bias = head.qkv.weight, head.qkv.bias
    queries, keys, values = (tokens @ weight[8 * i : 8 * i + 8].T + bias[8 * i : 8 * i + 8] for i in range(3))
    for image in range(2):
        weights = weights_by_loop(float64(queries[image]), float64(keys[image]))
        expected = attend_by_loop(weights, float64(values[image]))
        assert_close(float64(head(tokens)[image]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dim", "heads"), [(32, 1), (32, 4), (32, 32), (30, 5)])
def test_output_and_weights_equal_torch_multihead_attention(randomize, torch_attention, dim, heads):
    ours = randomize(MultiHeadSelfAttention(dim, heads))
    tokens = torch.randn(2, 7, dim)
    theirs, weights = torch_attention(ours)(tokens, tokens, tokens, average_attn_weights=False)
    assert weights.shape == (2, heads, 7, 7)
    assert_close(ours(tokens), theirs, rtol=0, atol=1e-5)
    with record(ours) as trace:
        assert_close(ours(tokens), theirs, rtol=0, atol=1e-5)
    assert_close(trace["weights"], weights, rtol=0, atol=1e-5)


def test_the_kernel_is_fused_unless_told_and_unless_one_trains_on_a_cpu(attention, tokens, kernel_calls):
    fused = attention(tokens)
    assert kernel_calls == [(2, 4, 7, 8)]
    written_out = attention.train()(tokens)
    attention.eval().fused = False
    assert torch.equal(attention(tokens), written_out)
    assert len(kernel_calls) == 1
    assert_close(fused, written_out, rtol=0, atol=1e-6)


@pytest.mark.parametrize("heads", [0, -4, 5])
def test_heads_that_do_not_divide_dim_are_refused(heads):
    with pytest.raises(ValueError, match=rf"heads {heads} .*dim 32\b"):
        MultiHeadSelfAttention(32, heads)


@pytest.mark.parametrize("fused", [True, False])
def test_dropout_follows_the_projection_and_nothing_else(attention, tokens, twice, fused):
    without = attention(tokens)
    with_dropout = MultiHeadSelfAttention(32, 4, dropout=0.5).train(not fused)
    with_dropout.load_state_dict(attention.state_dict())
    assert with_dropout.dropout.p == 0.5
    with_dropout.dropout = twice
    assert_close(with_dropout(tokens), 2 * without, rtol=0, atol=1e-5)
