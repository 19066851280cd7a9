import math

import pytest
import torch
from torch.testing import assert_close

from vit_walkthrough.model.patches import patchify, unpatchify
from vit_walkthrough.model.tokens import ClassToken, PositionEmbedding, resample_positions, sincos_positions

MODES = ["bicubic", "bilinear"]


def test_the_class_token_comes_first_and_is_the_same_for_every_image(tokens):
    class_token = ClassToken(32)
    longer = class_token(tokens)
    assert torch.equal(longer, torch.stack([torch.cat([class_token.token[0], image]) for image in tokens]))
    longer[:, 0].sum().backward()
    assert torch.equal(class_token.token.grad, torch.full((1, 1, 32), 2.0))


@pytest.mark.parametrize(("kind", "learned"), [("learned", ["positions"]), ("sincos", [])])
def test_positions_are_added_to_the_tokens_of_every_image_and_saved(kind, learned):
    embedding = PositionEmbedding(2, 3, 32, kind)
    tokens = torch.randn(4, 7, 32)
    assert torch.equal(embedding(tokens), torch.stack([image + embedding.positions[0] for image in tokens]))
    assert [name for name, _ in embedding.named_parameters()] == learned
    assert list(embedding.state_dict()) == ["positions"]


@pytest.mark.parametrize(("rows", "cols", "waves"), [(1, 1, 1), (3, 5, 2), (7, 2, 6)])
def test_sincos_positions_are_the_sines_and_cosines_of_the_row_and_then_of_the_column(rows, cols, waves):
    def axis(place: int) -> list[float]:
        angles = [place / 10_000 ** (wave / waves) for wave in range(waves)]
        return [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]

    expected = [[0.0] * 4 * waves] + [axis(row) + axis(col) for row in range(rows) for col in range(cols)]
    assert_close(sincos_positions(rows, cols, 4 * waves), torch.tensor([expected]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_the_same_grid_keeps_positions_bit_for_bit(mode):
    positions = torch.randn(1, 16, 8)
    assert torch.equal(resample_positions(positions, 3, 5, mode=mode, grid=(3, 5)), positions)
    assert torch.equal(resample_positions(positions[:, :10], 3, 3, mode=mode), positions[:, :10])
    one = resample_positions(positions[:, :2], 2, 2, mode=mode)
    assert_close(one, positions[:, [0, 1, 1, 1, 1]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("grid", [(3, 5), (14, 14)])
@pytest.mark.parametrize("target", [(24, 24), (6, 10), (2, 9), (1, 1)])
def test_resampling_equals_timm(peer, grid, target):
    timm, positions = peer("timm.layers"), torch.randn(1, grid[0] * grid[1] + 1, 8)
    given = dict(grid=grid) if grid == (3, 5) else {}
    for mode in MODES:
        theirs = timm.resample_abs_pos_embed(positions, list(target), list(grid), interpolation=mode)
        chosen = given if mode == "bicubic" else given | dict(mode=mode)
        assert_close(resample_positions(positions, *target, **chosen), theirs, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: PositionEmbedding(3, 5, 8)(torch.rand(2, 7, 8)), r"^7 tokens, .* 3 \* 5 \+ 1 = 16; resample_pos"),
        (lambda: PositionEmbedding(3, 5, 32, "rotary"), r"'rotary' .* learned or sincos$"),
        *[(lambda dim=dim: sincos_positions(3, 5, dim), f"^dim {dim} .* 4") for dim in (2, 31)],
    ],
)
def test_what_has_no_positions_is_refused(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()


@pytest.mark.usefixtures("unchecked")
def test_a_grid_that_cannot_be_inferred_is_refused():
    wrong = {r"^15 positions .* square grid; .*grid=\(rows, cols\)$": (16, 4, 4), "^1 positions": (1, 4, 4)}
    wrong |= {r"^15 positions .* grid 4 x 4; .*grid=\(rows, cols\)$": (16, 4, 4, "bicubic", (4, 4))}
    wrong |= {"'nearest' .* bicubic or bilinear$": (17, 8, 8, "nearest"), "0 x 4": (17, 0, 4), "4 x -1": (17, 4, -1)}
    for message, (tokens, *given) in wrong.items():
        with pytest.raises(ValueError, match=message):
            resample_positions(torch.randn(1, tokens, 8), *given)


@pytest.mark.parametrize(("rows", "cols", "side", "channels"), [(1, 1, 1, 1), (1, 3, 2, 1), (5, 1, 1, 3), (3, 5, 3, 2)])
def test_patches_are_the_squares_of_the_image_in_reading_order(rows, cols, side, channels):
    height, width = rows * side, cols * side
    images = torch.arange(2.0 * channels * height * width).reshape(2, channels, height, width)
    patches = patchify(images, side)
    assert patches.shape == (2, rows * cols, channels * side**2)
    for k in range(rows * cols):
        top, left = k // cols * side, k % cols * side
        assert torch.equal(patches[:, k], images[:, :, top : top + side, left : left + side].flatten(1))
    assert torch.equal(unpatchify(patches, side, height, width), images)


def test_images_without_numbers_and_those_whose_sum_overflows_are_fine():
    assert patchify(torch.rand(2, 3, 12, 20, device="meta"), 4).shape == (2, 15, 48)
    assert patchify(torch.full((1, 3, 64, 64), 60000.0, dtype=torch.float16), 16).shape == (1, 16, 768)


@pytest.mark.usefixtures("unchecked")
def test_bad_images_are_refused(images):
    kinds = {"must .*not list$": images.tolist(), "must .*not ndarray$": images.numpy()}
    kinds |= {"are torch.uint8; .* / 255$": (255 * images).byte(), "are torch.int64; .* / 255$": images.long()}
    shapes = {r"must .*\(3, 12, 20\); .* images\[None\]$": images[0], r"must .*\(12, 20\)$": images[0, 0]}
    shapes |= {r"must .*\(1, 2, 3, 12, 20\)$": images[None]}
    for message, wrong in (kinds | shapes).items():
        with pytest.raises(TypeError if message in kinds else ValueError, match=f"^images {message}"):
            patchify(wrong, 4)


def test_broken_pixels_are_counted(images):
    for count, *broken in ((1, torch.nan, 1.0), (2, torch.inf, -torch.inf)):  # the second cancel
        images[0, 1, 2, 3], images[1, 0, 11, 19] = broken
        with pytest.raises(ValueError, match=f"^{count} of 1440 pixels are NaN or infinite"):
            patchify(images, 4)


@pytest.mark.parametrize(("side", "height", "width"), [(0, 12, 20), (-4, 12, 20), (7, 12, 20), (4, 10, 20), (4, 12, 6)])
def test_a_patch_size_that_does_not_divide_is_refused(side, height, width):
    message = f"^patch_size {side} .* {height} x {width} pixels$"
    with pytest.raises(ValueError, match=message):
        patchify(torch.rand(2, 3, height, width), side)
    with pytest.raises(ValueError, match=message):
        unpatchify(torch.rand(2, 15, 48), side, height, width)


@pytest.mark.usefixtures("unchecked")
def test_patches_that_do_not_tile_are_refused():
    wrong = {(15, 48): r"^patches .*\(15, 48\)$", (2, 16, 48): r"^16 patches .* 12 x 20 .* 3 \* 5 = 15 "}
    wrong |= {(2, 15, dim): f"^patch_dim {dim} .* 4 x 4 pixels$" for dim in (50, 40)}
    for shape, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            unpatchify(torch.rand(shape), 4, 12, 20)
