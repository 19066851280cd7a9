import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from vit_walkthrough.model.tokens import ClassToken, PositionEmbedding, resample_positions, sincos_positions

MODES = ["bicubic", "bilinear"]


def test_the_class_token_comes_first_and_is_the_same_for_every_image(tokens):
    class_token = ClassToken(32)
    longer = class_token(tokens)
    assert longer.shape == (2, 8, 32)
    assert torch.equal(longer[:, 0], class_token.token[0].expand(2, -1))
    assert torch.equal(longer[:, 1:], tokens)
    longer[:, 0].sum().backward()
    assert torch.equal(class_token.token.grad, torch.full((1, 1, 32), 2.0))


@pytest.mark.parametrize(
    ("numbers", "shape"),
    [(lambda: ClassToken(4096).token, (1, 1, 4096)), (lambda: PositionEmbedding(14, 10, 64).positions, (1, 141, 64))],
)
def test_what_is_learned_starts_as_noise_of_standard_deviation_002(numbers, shape):
    numbers = numbers()
    assert numbers.shape == shape
    assert numbers.std().item() == pytest.approx(0.02, rel=0.05)
    assert numbers.mean().item() == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize(("kind", "learned"), [("learned", ["positions"]), ("sincos", [])])
def test_positions_are_added_to_the_tokens_of_every_image_and_saved(kind, learned):
    embedding = PositionEmbedding(2, 3, 32, kind)
    tokens = torch.randn(4, 7, 32)
    assert torch.equal(embedding(tokens), torch.stack([image + embedding.positions[0] for image in tokens]))
    assert [name for name, _ in embedding.named_parameters()] == learned
    assert list(embedding.state_dict()) == ["positions"]


def test_positions_for_another_number_of_tokens_are_refused(tokens):
    with pytest.raises(ValueError, match=r"^7 tokens, .* 3 \* 5 \+ 1 = 16; resample_positions"):
        PositionEmbedding(3, 5, 32)(tokens)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_kind_of_positions_is_refused():
    with pytest.raises(ValueError, match=r"'rotary' .* learned or sincos$"):
        PositionEmbedding(3, 5, 32, "rotary")


@pytest.mark.parametrize(("rows", "cols", "waves"), [(1, 1, 1), (3, 5, 2), (7, 2, 6)])
def test_sincos_positions_are_the_sines_and_cosines_of_the_row_and_then_of_the_column(rows, cols, waves):
    def axis(place: int) -> list[float]:
        angles = [place / 10_000 ** (wave / waves) for wave in range(waves)]
        return [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]

    expected = [[0.0] * 4 * waves] + [axis(row) + axis(col) for row in range(rows) for col in range(cols)]
    assert_close(sincos_positions(rows, cols, 4 * waves), torch.tensor([expected]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dim", [2, 31])
def test_sincos_positions_need_a_multiple_of_four(dim):
    with pytest.raises(ValueError, match=f"^dim {dim} .* 4"):
        sincos_positions(3, 5, dim)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", [(6, 10), (2, 9), (1, 1)])
def test_each_dim_is_interpolated_as_a_picture_of_its_own(mode, target):
    positions = torch.randn(1, 16, 8)
    resampled = resample_positions(positions, *target, mode=mode, grid=(3, 5))
    assert torch.equal(resampled[:, 0], positions[:, 0])
    for dim in range(8):
        picture = positions[0, 1:, dim].reshape(1, 1, 3, 5)
        expected = F.interpolate(picture, target, mode=mode, antialias=True)
        assert_close(resampled[0, 1:, dim], expected.flatten(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_the_same_grid_keeps_positions_bit_for_bit(mode):
    positions = torch.randn(1, 16, 8)
    assert torch.equal(resample_positions(positions, 3, 5, mode=mode, grid=(3, 5)), positions)
    assert torch.equal(resample_positions(positions[:, :10], 3, 3, mode=mode), positions[:, :10])


@pytest.mark.parametrize("target", [(24, 24), (7, 12)])
def test_resampling_equals_timm(peer, target):
    timm = peer("timm.layers")
    positions = torch.randn(1, 14 * 14 + 1, 8)
    theirs = {mode: timm.resample_abs_pos_embed(positions, list(target), interpolation=mode) for mode in MODES}
    for mode in MODES:
        assert_close(resample_positions(positions, *target, mode), theirs[mode], rtol=0, atol=1e-6)
    assert_close(resample_positions(positions, *target), theirs["bicubic"], rtol=0, atol=1e-6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("tokens", "arguments", "message"),
    [
        (16, dict(rows=4, cols=4), r"^15 positions .* square grid; .*grid=\(rows, cols\)$"),
        (16, dict(rows=4, cols=4, grid=(4, 4)), r"^15 positions .* grid 4 x 4; .*grid=\(rows, cols\)$"),
        (1, dict(rows=4, cols=4), "^1 positions"),
        (17, dict(rows=0, cols=4), "0 x 4"),
        (17, dict(rows=4, cols=-1), "4 x -1"),
        (17, dict(rows=8, cols=8, mode="nearest"), "'nearest' .* bicubic or bilinear$"),
    ],
)
def test_a_grid_that_cannot_be_inferred_is_refused(tokens, arguments, message):
    with pytest.raises(ValueError, match=message):
        resample_positions(torch.randn(1, tokens, 8), **arguments)
