"""Equation 1, second half: one more token, and a position for every token."""

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn


class ClassToken(nn.Module):
    """Put one learned vector, the same for every image, before the patches. Source: Equation 1, x_class."""

    def __init__(self, dim: int):
        super().__init__()
        self.token = nn.Parameter(torch.empty(1, 1, dim))
        nn.init.trunc_normal_(self.token, std=0.02)

    def forward(self, patches: Float[Tensor, "batch patches dim"]) -> Float[Tensor, "batch tokens dim"]:
        return torch.cat([self.token.expand(len(patches), -1, -1), patches], dim=1)


def sincos_positions(rows: int, cols: int, dim: int) -> Float[Tensor, "1 tokens dim"]:
    """Fixed positions: the row as sines and cosines of dim/4 frequencies, then the column; zeros for the class token.

    Raises: ValueError if dim is not a multiple of 4. Source: Vaswani et al. 2017, section 3.5, applied to each axis as
    in Chen et al. 2021 (MoCo v3), section 4.
    """
    if dim % 4:
        raise ValueError(f"dim {dim} is not a multiple of 4: sine and cosine, for the row and for the column")
    frequencies = 10_000 ** -(torch.arange(dim // 4) / (dim // 4))
    row_angles = repeat(torch.arange(rows)[:, None] * frequencies, "rows waves -> (rows cols) waves", cols=cols)
    col_angles = repeat(torch.arange(cols)[:, None] * frequencies, "cols waves -> (rows cols) waves", rows=rows)
    patches = torch.cat([row_angles.sin(), row_angles.cos(), col_angles.sin(), col_angles.cos()], dim=1)
    return torch.cat([torch.zeros(1, dim), patches])[None]


class PositionEmbedding(nn.Module):
    """Add to every token a vector that says where it stands. Raises: ValueError for another number of tokens than the
    grid has. Source: Equation 1, E_pos; section 3.1 for learned positions, D.4 for the others."""

    def __init__(self, rows: int, cols: int, dim: int, kind: Literal["learned", "sincos"] = "learned"):
        super().__init__()
        self.rows, self.cols = rows, cols
        if kind == "learned":
            self.positions = nn.Parameter(torch.empty(1, rows * cols + 1, dim))
            nn.init.trunc_normal_(self.positions, std=0.02)
        elif kind == "sincos":
            self.register_buffer("positions", sincos_positions(rows, cols, dim))
        else:
            raise ValueError(f"positions {kind!r} is unknown; choose learned or sincos")

    def forward(self, tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        if tokens.shape[1] != self.positions.shape[1]:
            known = f"{self.rows} * {self.cols} + 1 = {self.positions.shape[1]}"
            told = f"{tokens.shape[1]} tokens, but positions for {known}"
            raise ValueError(f"{told}; resample_positions makes them fit another grid")
        return tokens + self.positions


def resample_positions(
    positions: Float[Tensor, "1 old_tokens dim"],
    rows: int,
    cols: int,
    mode: Literal["bicubic", "bilinear"] = "bicubic",
    grid: tuple[int, int] | None = None,
) -> Float[Tensor, "1 tokens dim"]:
    """Positions for a grid of rows x cols, interpolated from those of another grid, so that the model can read images
    of another resolution. The class token has no place in the picture, so its entry is kept as it is.

    grid: rows and cols that `positions` were learned for; a square is assumed if it is not given. mode: bicubic as in
    timm, bilinear as in Google's code.

    Raises: ValueError if the old grid cannot be inferred or does not fit. Source: section 3.2. Differs: Google's code
    zooms corner to corner; here pixels are areas, as in timm. transformers uses another cubic and does not smooth where
    the grid shrinks.
    """
    if mode not in ("bicubic", "bilinear"):
        raise ValueError(f"mode {mode!r} is unknown; choose bicubic or bilinear")
    if rows < 1 or cols < 1:
        raise ValueError(f"a grid of {rows} x {cols} has no patches")
    patches = positions.shape[1] - 1
    if patches < 1:
        raise ValueError(f"{positions.shape[1]} positions are too few for a class token and patches")
    side = round(patches**0.5)
    old_rows, old_cols = grid or (side, side)
    if old_rows * old_cols != patches:
        given = f"grid {old_rows} x {old_cols}" if grid else "a square grid"
        raise ValueError(f"{patches} positions (without the class token's) are not {given}; give grid=(rows, cols)")
    if (rows, cols) == (old_rows, old_cols):
        return positions
    picture = rearrange(positions[:, 1:], "one (rows cols) dim -> one dim rows cols", rows=old_rows)
    picture = F.interpolate(picture, (rows, cols), mode=mode, align_corners=False, antialias=True)
    return torch.cat([positions[:, :1], rearrange(picture, "one dim rows cols -> one (rows cols) dim")], dim=1)
