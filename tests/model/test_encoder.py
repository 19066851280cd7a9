import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from vit_walkthrough.model.attention import MultiHeadSelfAttention, SelfAttention, attend, attention_weights
from vit_walkthrough.model.encoder import MLP, Encoder, EncoderBlock


def torch_layer(ours: EncoderBlock) -> nn.TransformerEncoderLayer:
    """torch's own pre-norm encoder layer with the weights of our block."""
    attention, mlp = ours.attention, ours.mlp
    sizes = mlp.expand.in_features, attention.heads, mlp.expand.out_features
    order = dict(batch_first=True, norm_first=True)
    theirs = nn.TransformerEncoderLayer(*sizes, 0.0, activation="gelu", layer_norm_eps=1e-6, **order)
    parts = attention.qkv, attention.projection, mlp.expand, mlp.contract, ours.norm_1, ours.norm_2
    tensors = [tensor for part in parts for tensor in (part.weight, part.bias)]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), tensors, strict=True)))
    return theirs.eval()


@pytest.fixture
def block(randomize):
    return randomize(EncoderBlock(32, 4, 48))


@pytest.mark.parametrize("scale", [1e-3, 30.0])  # the eps of LayerNorm shows on small tokens
def test_a_block_equals_torch_encoder_layer(block, tokens, scale):
    assert_close(block(scale * tokens), torch_layer(block)(scale * tokens), rtol=0, atol=1e-5 * max(scale, 1))


@pytest.mark.parametrize("training", [True, False])  # attention written out, and fused
def test_dropout_stands_where_torchs_does_but_not_on_the_weights(block, tokens, twice, training):
    theirs = torch_layer(block).train(training)
    theirs.dropout = theirs.dropout1 = theirs.dropout2 = twice
    block.train(training).attention.dropout = block.mlp.dropout = twice
    assert_close(block(tokens), theirs(tokens), rtol=0, atol=1e-5)
    for part in (MLP(32, 48), EncoderBlock(32, 4, 48), Encoder(2, 32, 4, 48)):  # by default there is none
        assert {one.p for one in part.modules() if isinstance(one, nn.Dropout)} == {0}


def test_weights_and_what_they_take_equal_torchs_kernel():
    queries, keys, values = torch.randn(5, 8), torch.randn(7, 8), torch.randn(7, 3)
    weights = attention_weights(queries, keys)
    # Each key has a value of its own, so that the kernel returns its weights.
    assert_close(weights, F.scaled_dot_product_attention(queries, keys, torch.eye(7)), rtol=0, atol=1e-6)
    assert_close(attend(weights, values), F.scaled_dot_product_attention(queries, keys, values), rtol=0, atol=1e-5)
    assert_close(attention_weights(1e4 * queries, keys).sum(dim=-1), torch.ones(5))  # huge scores stay finite


def test_self_attention_reads_queries_then_keys_then_values(randomize, tokens):
    head = randomize(SelfAttention(32, 8))
    weight, bias = head.qkv.weight, head.qkv.bias
    queries, keys, values = (tokens @ weight[8 * i : 8 * i + 8].T + bias[8 * i : 8 * i + 8] for i in range(3))
    assert_close(head(tokens), F.scaled_dot_product_attention(queries, keys, values), rtol=0, atol=1e-5)


def test_the_kernel_is_fused_unless_told_and_unless_one_trains_on_a_cpu(randomize, tokens, kernel_calls):
    attention = randomize(MultiHeadSelfAttention(32, 4))
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
