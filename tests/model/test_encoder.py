import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from vit_walkthrough.model.encoder import MLP, Encoder, EncoderBlock


@pytest.fixture
def block(randomize):
    return randomize(EncoderBlock(32, 4, 48))


def test_the_gelu_is_the_exact_one():
    numbers = torch.linspace(-4, 4, 100)
    expected = numbers * (1 + torch.erf(numbers / math.sqrt(2))) / 2
    assert_close(MLP(32, 48).gelu(numbers), expected, rtol=0, atol=1e-6)  # its tanh approximation is off by 5e-4


@pytest.mark.parametrize("scale", [1e-3, 30.0])  # the eps of LayerNorm shows on small tokens
def test_a_block_equals_torch_encoder_layer(block, torch_layer, tokens, scale):
    assert_close(block(scale * tokens), torch_layer(block)(scale * tokens), rtol=0, atol=1e-5 * max(scale, 1))
    for norm in (block.norm_1, block.norm_2):
        expected = nn.functional.layer_norm(scale * tokens, (32,), norm.weight, norm.bias, eps=1e-6)
        assert_close(norm(scale * tokens), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])  # attention written out, and fused
def test_dropout_stands_where_torchs_does_but_not_on_the_weights(block, torch_layer, tokens, twice, training):
    theirs = torch_layer(block).train(training)
    theirs.dropout = theirs.dropout1 = theirs.dropout2 = twice
    block.train(training).attention.dropout = block.mlp.dropout = twice
    assert_close(block(tokens), theirs(tokens), rtol=0, atol=1e-5)
    for part in (MLP(32, 48), EncoderBlock(32, 4, 48), Encoder(2, 32, 4, 48)):  # by default there is none
        assert {one.p for one in part.modules() if isinstance(one, nn.Dropout)} == {0}
