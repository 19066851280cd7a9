import math
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from vit_walkthrough.model.tokens import ClassToken, PositionEmbedding, resample_positions, sincos_positions

sides = st.integers(1, 7)


def test_the_class_token_comes_first_and_is_the_same_for_every_image(tokens):
    class_token = ClassToken(32)
    longer = class_token(tokens)
    assert longer.shape == (2, 8, 32)
    assert torch.equal(longer[0, 0], class_token.token[0, 0])
    assert torch.equal(longer[1, 0], class_token.token[0, 0])
    assert torch.equal(longer[:, 1:], tokens)


def test_the_class_token_learns_from_every_image(tokens):
    class_token = ClassToken(32)
    class_token(tokens)[:, 0].sum().backward()
    assert torch.equal(class_token.token.grad, torch.full((1, 1, 32), 2.0))


def test_the_class_token_starts_as_noise_of_standard_deviation_002():
    token = ClassToken(4096).token
    assert token.shape == (1, 1, 4096)
    assert token.std().item() == pytest.approx(0.02, rel=0.05)
    assert token.mean().item() == pytest.approx(0, abs=0.002)


def test_learned_positions_start_as_noise_of_standard_deviation_002():
    positions = PositionEmbedding(14, 10, 64).positions
    assert positions.shape == (1, 141, 64)
    assert positions.std().item() == pytest.approx(0.02, rel=0.05)
    assert positions.mean().item() == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize("kind", ["learned", "sincos"])
def test_positions_are_added_to_the_tokens_of_every_image(kind):
    embedding = PositionEmbedding(2, 3, 32, kind)
    tokens = torch.randn(4, 7, 32)
    assert torch.equal(embedding(tokens), torch.stack([image + embedding.positions[0] for image in tokens]))


def test_learned_positions_are_parameters_and_sincos_positions_are_saved_but_not_learned():
    learned, fixed = PositionEmbedding(2, 3, 32), PositionEmbedding(2, 3, 32, "sincos")
    assert [name for name, _ in learned.named_parameters()] == ["positions"]
    assert list(fixed.parameters()) == []
    assert list(learned.state_dict()) == list(fixed.state_dict()) == ["positions"]


def test_positions_for_another_number_of_tokens_are_refused(tokens):
    message = "7 tokens, but positions for 3 * 5 + 1 = 16; resample_positions makes them fit another grid"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        PositionEmbedding(3, 5, 32)(tokens)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_kind_of_positions_is_refused():
    with pytest.raises(ValueError, match=r"^positions 'rotary' is unknown; choose learned or sincos$"):
        PositionEmbedding(3, 5, 32, "rotary")


@given(sides, sides, st.integers(1, 6))
def test_sincos_positions_are_the_sines_and_cosines_of_the_row_and_then_of_the_column(rows, cols, waves):
    def axis(place: int) -> list[float]:
        angles = [place / 10_000 ** (wave / waves) for wave in range(waves)]
        return [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]

    expected = [[0.0] * 4 * waves] + [axis(row) + axis(col) for row in range(rows) for col in range(cols)]
    assert_close(sincos_positions(rows, cols, 4 * waves), torch.tensor([expected]), rtol=0, atol=1e-5)


def test_the_first_half_of_sincos_positions_depends_on_the_row_only_and_the_second_on_the_column_only():
    grid = sincos_positions(3, 5, 32)[0, 1:].reshape(3, 5, 32)
    assert torch.equal(grid[:, :, :16], grid[:, :1, :16].expand(3, 5, 16))
    assert torch.equal(grid[:, :, 16:], grid[:1, :, 16:].expand(3, 5, 16))


@given(sides, sides, st.integers(1, 6))
def test_sincos_positions_are_distinct_and_the_class_token_has_none(rows, cols, waves):
    positions = sincos_positions(rows, cols, 4 * waves)[0]
    distances = torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist")
    assert (distances + torch.eye(len(positions)) > 1e-3).all()
    assert torch.equal(positions[0], torch.zeros(4 * waves))


@pytest.mark.parametrize("dim", [2, 6, 31])
def test_sincos_positions_need_a_multiple_of_four(dim):
    message = f"dim {dim} is not a multiple of 4: sine and cosine, for the row and for the column"
    with pytest.raises(ValueError, match=f"^{message}$"):
        sincos_positions(3, 5, dim)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_the_same_grid_keeps_positions_bit_for_bit(mode):
    positions = torch.randn(1, 16, 8)
    assert torch.equal(resample_positions(positions, 3, 5, mode=mode, grid=(3, 5)), positions)
    assert torch.equal(resample_positions(positions[:, :10], 3, 3, mode=mode), positions[:, :10])


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("target", [(6, 10), (2, 9), (5, 3), (1, 1)])
def test_the_entry_of_the_class_token_is_kept_bit_for_bit(mode, target):
    positions = torch.randn(1, 16, 8)
    resampled = resample_positions(positions, *target, mode=mode, grid=(3, 5))
    assert resampled.shape == (1, target[0] * target[1] + 1, 8)
    assert torch.equal(resampled[:, 0], positions[:, 0])


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("target", [(6, 10), (2, 9), (5, 3), (1, 1)])
def test_a_constant_field_stays_constant(mode, target):
    positions = torch.full((1, 16, 8), 0.7)
    positions[:, 0] = -5
    patches = resample_positions(positions, *target, mode=mode, grid=(3, 5))[:, 1:]
    assert_close(patches, torch.full_like(patches, 0.7), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_the_position_of_a_single_patch_spreads_over_any_grid(mode):
    positions = torch.tensor([9.0, 4.0])[None, :, None]
    assert resample_positions(positions, 1, 3, mode=mode)[0, :, 0].tolist() == pytest.approx([9, 4, 4, 4])


def test_what_varies_with_the_row_only_still_does():
    positions = torch.arange(3.0).repeat_interleave(5)[None, :, None]
    positions = torch.cat([torch.zeros(1, 1, 1), positions], dim=1)
    grid = resample_positions(positions, 6, 9, grid=(3, 5))[0, 1:, 0].reshape(6, 9)
    assert_close(grid, grid[:, :1].expand(6, 9), rtol=0, atol=1e-6)
    assert (grid[1:, 0] > grid[:-1, 0]).all()


def test_bilinear_doubling_by_hand():
    positions = torch.tensor([9.0, 0.0, 4.0, 8.0])[None, :, None]
    resampled = resample_positions(positions, 1, 6, mode="bilinear", grid=(1, 3))
    assert resampled[0, :, 0].tolist() == [9.0, 0.0, 1.0, 3.0, 5.0, 7.0, 8.0]


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("target", [(6, 10), (2, 9), (5, 3)])
def test_each_dim_is_interpolated_as_a_picture_of_its_own(mode, target):
    positions = torch.randn(1, 16, 8)
    resampled = resample_positions(positions, *target, mode=mode, grid=(3, 5))
    for dim in range(8):
        picture = positions[0, 1:, dim].reshape(1, 1, 3, 5)
        expected = F.interpolate(picture, target, mode=mode, antialias=True)
        assert_close(resampled[0, 1:, dim], expected.flatten(), rtol=0, atol=1e-6)


def test_bicubic_is_the_default_and_differs_from_bilinear():
    positions = torch.randn(1, 16, 8)
    bicubic, bilinear = (resample_positions(positions, 6, 10, mode, grid=(3, 5)) for mode in ("bicubic", "bilinear"))
    assert torch.equal(resample_positions(positions, 6, 10, grid=(3, 5)), bicubic)
    assert (bicubic - bilinear).abs().max() > 0.01


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("grid", "target"), [((14, 14), (24, 24)), ((14, 14), (7, 12)), ((3, 5), (6, 10))])
def test_resampling_equals_timm(peer, mode, grid, target):
    timm = peer("timm.layers")
    positions = torch.randn(1, grid[0] * grid[1] + 1, 8)
    theirs = timm.resample_abs_pos_embed(positions, list(target), list(grid), interpolation=mode)
    assert_close(resample_positions(positions, *target, mode=mode, grid=grid), theirs, rtol=0, atol=1e-6)


def test_positions_learn_through_resampling():
    positions = torch.randn(1, 16, 8, requires_grad=True)
    resample_positions(positions, 6, 10, grid=(3, 5)).sum().backward()
    assert (positions.grad > 0).all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("tokens", "arguments", "message"),
    [
        (
            16,
            dict(rows=4, cols=4),
            "15 positions (without the class token's) are not a square grid; say grid=(rows, cols)",
        ),
        (
            16,
            dict(rows=4, cols=4, grid=(4, 4)),
            "15 positions (without the class token's) are not grid 4 x 4; say grid=(rows, cols)",
        ),
        (1, dict(rows=4, cols=4), "1 positions are not those of a class token and of patches"),
        (17, dict(rows=0, cols=4), "a grid of 0 x 4 has no patches"),
        (17, dict(rows=4, cols=-1), "a grid of 4 x -1 has no patches"),
        (17, dict(rows=8, cols=8, mode="nearest"), "mode 'nearest' is unknown; choose bicubic or bilinear"),
    ],
)
def test_a_grid_that_cannot_be_told_is_refused(tokens, arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resample_positions(torch.randn(1, tokens, 8), **arguments)
