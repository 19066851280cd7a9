"""Equations 5 to 8: every token looks at every token and takes what it finds."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


def attention_weights(
    queries: Float[Tensor, "*heads queries head_dim"], keys: Float[Tensor, "*heads keys head_dim"]
) -> Float[Tensor, "*heads queries keys"]:
    """How much each query takes from each key: dot products over sqrt(head_dim), softmax over the keys. The weights of
    each query, a row, sum to 1. Source: Equation 6."""
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
    return scores.softmax(dim=-1)


def attend(
    weights: Float[Tensor, "*heads queries keys"], values: Float[Tensor, "*heads keys head_dim"]
) -> Float[Tensor, "*heads queries head_dim"]:
    """For each query the average of the values, weighted by its row of weights. Source: Equation 7."""
    return weights @ values


class SelfAttention(nn.Module):
    """One attention head: queries, keys and values are three linear maps of the same tokens. Source: Equations 5 to 7;
    the published weights have the bias that the equations leave out."""

    def __init__(self, dim: int, head_dim: int):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * head_dim)

    def forward(self, tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens head_dim"]:
        queries, keys, values = self.qkv(tokens).chunk(3, dim=-1)
        return attend(attention_weights(queries, keys), values)


class MultiHeadSelfAttention(nn.Module):
    """Several heads side by side, each dim / heads wide, their outputs joined and mixed by one more matrix.

    `fused` chooses between two ways to the same result: torch's fused kernel, which never holds the weights, and
    Equations 6 and 7 written out, which passes queries, keys, values, weights and head_outputs through modules of
    these names, so that look.record can see them. Training on a CPU always takes the second way.

    Raises: ValueError if heads does not divide dim.
    Source: Equation 8; dropout after the last projection and not after qkv, B.1.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0):
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads {heads} does not divide dim {dim}")
        self.heads = heads
        self.fused = True
        self.qkv = nn.Linear(dim, 3 * dim)
        self.queries, self.keys, self.values = nn.Identity(), nn.Identity(), nn.Identity()
        self.weights, self.head_outputs = nn.Identity(), nn.Identity()
        self.projection = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        queries, keys, values = (
            rearrange(part, "batch tokens (heads head_dim) -> batch heads tokens head_dim", heads=self.heads)
            for part in self.qkv(tokens).chunk(3, dim=-1)
        )
        # On a CPU the backward pass of the fused kernel takes longer for sequences as short as one trains there.
        if self.fused and not (self.training and tokens.device.type == "cpu"):
            head_outputs = F.scaled_dot_product_attention(queries, keys, values)
        else:
            queries, keys, values = self.queries(queries), self.keys(keys), self.values(values)
            weights = self.weights(attention_weights(queries, keys))
            head_outputs = self.head_outputs(attend(weights, values))
        joined = rearrange(head_outputs, "batch heads tokens head_dim -> batch tokens (heads head_dim)")
        return self.dropout(self.projection(joined))
