import math
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from vit_walkthrough.model.encoder import MLP, Encoder, EncoderBlock


@pytest.fixture
def block(randomize):
    return randomize(EncoderBlock(32, 4, 48))


def gelu(numbers):
    return numbers * (1 + torch.erf(numbers / math.sqrt(2))) / 2


def test_the_mlp_is_two_layers_with_an_exact_gelu_between_and_dropout_after_both(randomize, tokens, twice):
    mlp = randomize(MLP(32, 48, dropout=0.5))
    hidden = gelu(tokens @ mlp.expand.weight.T + mlp.expand.bias)
    assert_close(mlp(tokens), hidden @ mlp.contract.weight.T + mlp.contract.bias, rtol=0, atol=1e-5)
    numbers = torch.linspace(-4, 4, 100)
    assert_close(mlp.gelu(numbers), gelu(numbers), rtol=0, atol=1e-6)  # its tanh approximation is off by 5e-4
    mlp.dropout = twice
    assert_close(mlp(tokens), 2 * mlp.contract(2 * hidden), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 30.0])  # the eps of LayerNorm shows on small tokens
def test_a_block_equals_torch_encoder_layer(block, torch_layer, tokens, scale):
    assert_close(block(scale * tokens), torch_layer(block)(scale * tokens), rtol=0, atol=1e-5 * max(scale, 1))
    for norm in (block.norm_1, block.norm_2):
        expected = nn.functional.layer_norm(scale * tokens, (32,), norm.weight, norm.bias, eps=1e-6)
        assert_close(norm(scale * tokens), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "sizes"), [(MLP, (32, 48)), (EncoderBlock, (32, 4, 48)), (Encoder, (2, 32, 4, 48))])
@pytest.mark.parametrize("dropout", [None, 0.3])
def test_dropout_is_passed_on_and_off_unless_asked_for(kind, sizes, dropout):
    module = kind(*sizes) if dropout is None else kind(*sizes, dropout=dropout)
    assert {part.p for part in module.modules() if isinstance(part, nn.Dropout)} == {dropout or 0.0}


def test_blocks_start_distinct():
    encoder = Encoder(3, 32, 4, 48)
    for one, other in combinations(encoder, 2):
        for name, parameter in one.named_parameters():
            assert parameter.data_ptr() != other.get_parameter(name).data_ptr()
            if "norm" not in name:
                assert not torch.equal(parameter, other.get_parameter(name))
