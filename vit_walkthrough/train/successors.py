"""What came after the paper, each on top of the package's classes. Notebooks 11 and 12 build them."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops.layers.torch import Rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vit_walkthrough.model.attention import attend, attention_weights
from vit_walkthrough.model.vit import ClassificationHead, VisionTransformer


def in_attention(model: VisionTransformer, make: Callable[[int], nn.Module], *points: str) -> VisionTransformer:
    """The model with make(number of the block) at these points of every block's attention, such as "weights". The fused
    kernel, which never holds what passes there, is turned off."""
    for number, block in enumerate(model.blocks):
        block.attention.fused = False
        for point in points:
            setattr(block.attention, point, make(number))
    return model


class Registers(nn.Module):
    """Append learned tokens that nobody reads: patches may keep notes there (Darcet et al. 2024, arXiv 2309.16588)."""

    def __init__(self, dim: int, count: int = 4):
        super().__init__()
        self.tokens = nn.Parameter(0.02 * torch.randn(1, count, dim))

    def forward(self, tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch more dim"]:
        return torch.cat([tokens, self.tokens.expand(len(tokens), -1, -1)], dim=1)


def registers(model: VisionTransformer, count: int = 4) -> VisionTransformer:
    """The model with registers behind its patches. They have no place in the picture, and so no position."""
    model.position_embedding = nn.Sequential(model.position_embedding, Registers(model.config.dim, count))
    return model


class Rotary(nn.Module):
    """Turn each query or key by angles that grow with its patch's row and column. Scores then depend on the offset of
    two patches alone. The first half of the pairs of numbers is turned by the row, the second by the column, each pair
    at its own speed. The class token is not turned.

    Raises: ValueError if head_dim is not a multiple of 4: two numbers a pair, one pair for the row, one for the column.
    Source: Su et al. 2021, arXiv 2104.09864; two axes and speeds as in Heo et al. 2024, arXiv 2403.13298.
    """

    def __init__(self, rows: int, cols: int, head_dim: int, stretch: float = 1.0):
        if head_dim % 4:
            told = f"head_dim {head_dim} is not a multiple of 4: a pair of numbers for the row, and one for the column"
            near = max(4, head_dim // 4 * 4)
            raise ValueError(f"{told}; choose dim and heads so that dim / heads is, such as {near}")
        super().__init__()
        speeds = stretch * 100 ** -(torch.arange(head_dim // 4) / (head_dim // 4))
        places = torch.cartesian_prod(torch.arange(rows), torch.arange(cols))
        angles = F.pad((places[..., None] * speeds).flatten(1), (0, 0, 1, 0))  # (tokens pairs)
        turn = torch.polar(torch.ones_like(angles), angles)
        self.register_buffer("turn", turn, persistent=False)

    def forward(self, vectors: Float[Tensor, "batch heads tokens head_dim"]):
        pairs = torch.view_as_complex(vectors.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * self.turn).flatten(-2)


def rotary(model: VisionTransformer, stretch: float = 1.0) -> VisionTransformer:
    """The model with rotary positions in every block; the config should have positions "none"."""
    config = model.config
    sizes = config.rows, config.cols, config.dim // config.heads
    return in_attention(model, lambda block: Rotary(*sizes, stretch), "queries", "keys")


class RelativeBias(nn.Module):
    """Multiply each weight by exp of a learned number for its head and for the offset of key and query, and let the
    rows sum to 1 again: this is the softmax of scores plus a bias. Zero at the start, and for the class token. Source:
    Swin, Liu et al. 2021, arXiv 2103.14030, Equation 4."""

    def __init__(self, rows: int, cols: int, heads: int):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(heads, 2 * rows - 1, 2 * cols - 1))
        places = torch.cartesian_prod(torch.arange(rows), torch.arange(cols))
        offsets = places[:, None] - places + torch.tensor([rows - 1, cols - 1])
        self.down, self.right = offsets.unbind(-1)

    def forward(self, weights: Float[Tensor, "batch heads tokens tokens"]):
        bias = F.pad(self.table[:, self.down, self.right], (1, 0, 1, 0))
        weights = weights * bias.exp()
        return weights / weights.sum(dim=-1, keepdim=True)


def relative(model: VisionTransformer) -> VisionTransformer:
    """The model with a relative bias in every block, resampled if it has one for another grid."""
    config = model.config

    def bias_of(block: int) -> RelativeBias:
        bias, before = RelativeBias(config.rows, config.cols, config.heads), model.blocks[block].attention.weights
        if isinstance(before, RelativeBias):
            shape = bias.table.shape[1:]
            bias.table.data = F.interpolate(before.table[None], shape, mode="bicubic", align_corners=True)[0].detach()
        return bias

    return in_attention(model, bias_of, "weights")


class Windows(nn.Module):
    """Let patches look at patches of their own window only. The class token looks at itself and nobody looks at it.

    shift: rows and columns by which the windows are moved up and to the left; those at the border are then smaller.
    `together` says who may look at whom.

    Raises: ValueError if the side does not divide the grid; the message lists those that do.
    Source: Swin, Liu et al. 2021, arXiv 2103.14030, section 3.2.
    """

    def __init__(self, rows: int, cols: int, side: int, shift: int = 0):
        if side < 1 or rows % side or cols % side:
            sides = ", ".join(str(one) for one in range(1, rows + 1) if math.gcd(rows, cols) % one == 0)
            told = f"windows of {side} x {side} patches do not tile a grid of {rows} x {cols}"
            raise ValueError(f"{told}; choose a side of {sides}")
        super().__init__()
        places = torch.cartesian_prod(torch.arange(rows), torch.arange(cols))
        window = (places + shift) // side
        own = (window[:, None] == window).all(dim=-1)
        together = torch.block_diag(torch.ones(1, 1), own) > 0
        self.register_buffer("together", together, persistent=False)

    def forward(self, weights: Float[Tensor, "batch heads tokens tokens"]):
        weights = weights * self.together
        return weights / weights.sum(dim=-1, keepdim=True)


def windows(model: VisionTransformer, side: int = 2, shift: int = 0) -> VisionTransformer:
    """The model with windows, shifted in every second block; the config should have pooling "mean"."""
    rows, cols = model.config.rows, model.config.cols
    return in_attention(model, lambda block: Windows(rows, cols, side, shift * (block % 2)), "weights")


def convolutions(model: VisionTransformer) -> nn.Module:
    """Two convolutions with a ReLU between them make the same 4 x 4 tokens of 12 pixels, instead of one matrix."""
    model.patch_embedding = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, model.config.dim, 6, stride=6),
        Rearrange("batch dim rows cols -> batch (rows cols) dim"),
    )
    return model


class AttentionPooled(VisionTransformer):
    """The head reads an average of the patches, weighted by how well each answers one learned query. Source: Zhai et
    al. 2021, arXiv 2106.04560, section 3.2. Differs: one head, and no MLP."""

    def pool(self, tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch dim"]:
        patches = tokens[:, 1:]
        query = self.query.expand(len(patches), -1, -1)
        return attend(attention_weights(query, self.keys(patches)), patches)[:, 0]


def attention_pooling(model: VisionTransformer) -> VisionTransformer:
    """The model with a learned query and keys in the place of what its head read."""
    model.__class__ = AttentionPooled
    model.query = nn.Parameter(torch.randn(1, 1, model.config.dim))
    model.keys = nn.Linear(model.config.dim, model.config.dim)
    return model


class TwoHeads(nn.Module):
    """Two classification heads for two tokens. In training their logits stand one behind the other along the batch;
    otherwise the two answers are averaged."""

    def __init__(self, dim: int, classes: int):
        super().__init__()
        self.heads = nn.ModuleList(ClassificationHead(dim, classes) for _ in range(2))

    def forward(self, features: Float[Tensor, "batch 2 dim"]) -> Float[Tensor, "answers classes"]:
        logits = torch.stack([head(read) for head, read in zip(self.heads, features.unbind(1), strict=True)])
        return logits.flatten(0, 1) if self.training else logits.softmax(dim=-1).mean(dim=0).log()


class Student(VisionTransformer):
    """A ViT with a second class token at the end, which learns what a teacher says. Source: hard distillation in DeiT,
    Touvron et al. 2021, arXiv 2012.12877, section 4."""

    def pool(self, tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch 2 dim"]:
        return tokens[:, [0, -1]]


def student(model: VisionTransformer) -> VisionTransformer:
    """The model as a student, with a head for the labels and one for the teacher."""
    model = registers(model, 1)
    model.__class__, model.head = Student, TwoHeads(model.config.dim, model.config.classes)
    return model


def reach(together: list[Bool[Tensor, "tokens tokens"]]) -> Bool[Tensor, "tokens tokens"]:
    """Which token's output (row) can depend on which token's input (column) behind blocks with these masks."""
    arrived = torch.eye(len(together[0]), dtype=torch.bool)
    for mask in together:
        arrived = mask.float() @ arrived.float() > 0
    return arrived
