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


def test_the_mlp_is_two_layers_with_an_exact_gelu_between(mlp, tokens):
    hidden = tokens @ mlp.expand.weight.T + mlp.expand.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    assert_close(mlp(tokens), hidden @ mlp.contract.weight.T + mlp.contract.bias, rtol=0, atol=1e-5)


def test_the_gelu_is_not_its_tanh_approximation():
    numbers = torch.linspace(-4, 4, 100)
    ours = MLP(32, 48).gelu(numbers)
    assert_close(ours, numbers * (1 + torch.erf(numbers / math.sqrt(2))) / 2, rtol=0, atol=1e-6)
    assert (ours - nn.functional.gelu(numbers, approximate="tanh")).abs().max() > 1e-4


def test_the_mlp_works_on_each_token_by_itself(mlp, tokens):
    changed = tokens.clone()
    changed[1, 4] += 1
    differs = (mlp(changed) != mlp(tokens)).any(dim=-1)
    assert differs.nonzero().tolist() == [[1, 4]]


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


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_a_block_equals_torch_encoder_layer(block, torch_layer, tokens, scale):
    assert_close(block(scale * tokens), torch_layer(block)(scale * tokens), rtol=0, atol=1e-5 * max(scale, 1))


def test_layer_norm_eps_is_1e_6_and_shows_on_small_tokens(block, tokens):
    small = 1e-3 * tokens
    assert_close(block.norm_1(small), layer_norm(small, block.norm_1), rtol=0, atol=1e-5)
    assert_close(block.norm_2(small), layer_norm(small, block.norm_2), rtol=0, atol=1e-5)
    assert (block.norm_1(small) - layer_norm(small, block.norm_1, eps=1e-5)).abs().max() > 0.1


@pytest.mark.parametrize("silent", ["attention.projection", "mlp.contract"])
def test_a_branch_that_says_nothing_leaves_the_other(block, tokens, silent):
    for parameter in block.get_submodule(silent).parameters():
        nn.init.zeros_(parameter)
    if silent == "mlp.contract":
        expected = tokens + block.attention(block.norm_1(tokens))
    else:
        expected = tokens + block.mlp(block.norm_2(tokens))
    assert torch.equal(block(tokens), expected)


@pytest.mark.parametrize(("kind", "sizes"), [(MLP, (32, 48)), (EncoderBlock, (32, 4, 48)), (Encoder, (2, 32, 4, 48))])
def test_nothing_is_dropped_unless_asked_for(kind, sizes):
    assert {module.p for module in kind(*sizes).modules() if isinstance(module, nn.Dropout)} == {0.0}


def test_a_block_passes_dropout_on():
    block = EncoderBlock(32, 4, 48, dropout=0.3)
    assert [module.p for module in block.modules() if isinstance(module, nn.Dropout)] == [0.3, 0.3]


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


def test_an_encoder_passes_dropout_to_every_block():
    encoder = Encoder(3, 32, 4, 48, dropout=0.2)
    assert len(encoder) == 3
    assert [module.p for module in encoder.modules() if isinstance(module, nn.Dropout)] == [0.2] * 6
