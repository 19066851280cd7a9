"""Equations 2 and 3: attention mixes the tokens, the MLP works on each, and both only add to the tokens."""

from jaxtyping import Float
from torch import Tensor, nn

from vit_walkthrough.model.attention import MultiHeadSelfAttention


class MLP(nn.Module):
    """Two linear layers with a GELU (the exact one, with erf) between them, on every token by itself. Source: section
    3.1; dropout after both layers, B.1."""

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.gelu = nn.GELU()
        self.contract = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        hidden = self.dropout(self.gelu(self.expand(tokens)))
        return self.dropout(self.contract(hidden))


class EncoderBlock(nn.Module):
    """Attention, then the MLP; each reads a normalised copy of the tokens and adds its result to them. Source:
    Equations 2 and 3. LayerNorm's eps is 1e-6 as in every published ViT; torch's default is 1e-5."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.norm_1 = nn.LayerNorm(dim, eps=1e-6)
        self.attention = MultiHeadSelfAttention(dim, heads, dropout)
        self.norm_2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, hidden, dropout)

    def forward(self, tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        tokens = tokens + self.attention(self.norm_1(tokens))
        return tokens + self.mlp(self.norm_2(tokens))


class Encoder(nn.Sequential):
    """`depth` blocks in a row, (batch tokens dim) -> (batch tokens dim). Each is constructed by itself: copies of one
    block would start with equal weights. Source: Equations 2 and 3, l = 1 ... L."""

    def __init__(self, depth: int, dim: int, heads: int, hidden: int, dropout: float = 0.0):
        super().__init__(*(EncoderBlock(dim, heads, hidden, dropout) for _ in range(depth)))
