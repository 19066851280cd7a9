import math
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from vit_walkthrough.model.encoder import MLP, Encoder, EncoderBlock


@pytest.fixture
def mlp(randomize):
    return randomize(MLP(32, 48))


@pytest.fixture
def block(randomize):
    return randomize(EncoderBlock(32, 4, 48))


def layer_norm(tokens, norm, eps=1e-6):
    centred = tokens - tokens.mean(dim=-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(dim=-1, keepdim=True) + eps) * norm.weight + norm.bias


def gelu(numbers):
    return numbers * (1 + torch.erf(numbers / math.sqrt(2))) / 2


def test_the_mlp_is_two_layers_with_an_exact_gelu_between(mlp, tokens):
    hidden = gelu(tokens @ mlp.expand.weight.T + mlp.expand.bias)
    assert_close(mlp(tokens), hidden @ mlp.contract.weight.T + mlp.contract.bias, rtol=0, atol=1e-5)
    numbers = torch.linspace(-4, 4, 100)
    assert_close(mlp.gelu(numbers), gelu(numbers), rtol=0, atol=1e-6)  # its tanh approximation is off by 5e-4


def test_dropout_follows_both_layers_of_the_mlp(mlp, tokens, twice):
    with_dropout = MLP(32, 48, dropout=0.5).train()
    with_dropout.load_state_dict(mlp.state_dict())
    with_dropout.dropout = twice
    expected = 2 * mlp.contract(2 * nn.functional.gelu(mlp.expand(tokens)))
    assert_close(with_dropout(tokens), expected, rtol=0, atol=1e-5)


def test_a_block_normalises_first_and_adds_to_what_is_there(block, tokens):
    middle = tokens + block.attention(layer_norm(tokens, block.norm_1))
    expected = middle + block.mlp(layer_norm(middle, block.norm_2))
    assert_close(block(tokens), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 30.0])  # the eps of LayerNorm shows on small tokens
def test_a_block_equals_torch_encoder_layer(block, torch_layer, tokens, scale):
    assert_close(block(scale * tokens), torch_layer(block)(scale * tokens), rtol=0, atol=1e-5 * max(scale, 1))
    for norm in (block.norm_1, block.norm_2):
        assert_close(norm(scale * tokens), layer_norm(scale * tokens, norm), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "sizes"), [(MLP, (32, 48)), (EncoderBlock, (32, 4, 48)), (Encoder, (2, 32, 4, 48))])
@pytest.mark.parametrize("dropout", [None, 0.3])
def test_dropout_is_passed_on_and_off_unless_asked_for(kind, sizes, dropout):
    module = kind(*sizes) if dropout is None else kind(*sizes, dropout=dropout)
    assert {part.p for part in module.modules() if isinstance(part, nn.Dropout)} == {dropout or 0.0}


def test_dropout_never_touches_the_residual_stream(block, tokens):
    for module in block.modules():
        if isinstance(module, nn.Dropout):
            module.p = 1.0
    assert torch.equal(block.train()(tokens), tokens)
    assert not torch.equal(block.eval()(tokens), tokens)


@pytest.mark.parametrize("depth", [1, 3])
def test_an_encoder_equals_torch_encoder(randomize, torch_layer, tokens, depth):
    encoder = randomize(Encoder(depth, 32, 4, 48))
    theirs = nn.TransformerEncoder(torch_layer(encoder[0]), depth, enable_nested_tensor=False).eval()
    for ours, layer in zip(encoder, theirs.layers, strict=True):
        layer.load_state_dict(torch_layer(ours).state_dict())
    assert_close(encoder(tokens), theirs(tokens), rtol=0, atol=1e-5)


def test_blocks_start_distinct():
    encoder = Encoder(3, 32, 4, 48)
    for one, other in combinations(encoder, 2):
        for name, parameter in one.named_parameters():
            assert parameter.data_ptr() != other.get_parameter(name).data_ptr()
            if "norm" not in name:
                assert not torch.equal(parameter, other.get_parameter(name))
