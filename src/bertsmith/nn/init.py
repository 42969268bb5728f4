"""How weights start: BERT's truncated normal (google-research/bert, `create_initializer`), sines, neighbours."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bertsmith.nn.attention import SelfAttention
from bertsmith.nn.norm import StdNorm

NEIGHBOURS = (-1, 1, -2, 2)
"""Where the heads of a block look at first, in their order; further heads start as all weights do."""
NEIGHBOUR_SCORE = 12.0
"""Attention score of the right neighbour at the start, before what tokens add to it by chance."""


def initialize(module: nn.Module, *, std: float, kind: str = "normal", is_cut: bool = True) -> None:
    """Draw every weight of `module` anew; biases become zero, norms one and zero, padding rows zero.

    `kind` is for linear and embedding weights: `normal` is N(0, std), cut at two deviations if `is_cut`, as BERT has
    it, whose weights then deviate by 0.88 std;
    `xavier` (Glorot and Bengio 2010) and `kaiming` (He et al. 2015) are uniform, and choose their own width.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            if kind == "normal" and is_cut:
                nn.init.trunc_normal_(part.weight, mean=0.0, std=std, a=-2 * std, b=2 * std)
            elif kind == "normal":
                nn.init.normal_(part.weight, std=std)
            elif kind == "xavier":
                nn.init.xavier_uniform_(part.weight)
            elif kind == "kaiming":
                nn.init.kaiming_uniform_(part.weight)
            else:
                raise ValueError(f"unknown kind {kind!r}; expected normal, xavier or kaiming")
        if isinstance(part, nn.Linear | nn.LayerNorm | StdNorm) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.LayerNorm | StdNorm):
            nn.init.ones_(part.weight)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            with torch.no_grad():
                part.weight[part.padding_idx].zero_()


def sinusoids(positions: int, width: int) -> Tensor:
    """`[positions, width]`: sines in the even columns, cosines in the odd ones (Vaswani et al. 2017, section 3.5).

    An odd width ends with a sine.
    """
    rates = 10000.0 ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    angles = torch.arange(positions, dtype=torch.float32)[:, None] / rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width].contiguous()


@torch.no_grad()
def sinusoidal_(table: Tensor, *, std: float) -> None:
    """Fill `table` `[positions, width]` with sinusoids of this deviation.

    As a start for learned positions: neighbours look alike from the first step on, so that "attend to the token
    before" need not be learnt for each position apart.
    """
    waves = sinusoids(*table.shape)
    table.copy_(waves * (std / waves.std()))


def shifted_sines(width: int, head_size: int, offset: int) -> tuple[Tensor, Tensor]:
    """Matrices (query, key), each `[head_size, width]`, of a head that looks `offset` tokens on (or back).

    The key is the fastest `head_size` waves of the position; the query is the same waves `offset` tokens on, which a
    rotation of each pair of sine and cosine gives (Vaswani et al. 2017, section 3.5). Their product is highest where
    the key stands at the query's position plus `offset`. An odd size leaves its last row zero.
    """
    query, key = torch.zeros(head_size, width), torch.zeros(head_size, width)
    pairs = min(head_size, width) // 2
    angles = offset * 10000.0 ** (-torch.arange(0, 2 * pairs, 2, dtype=torch.float32) / width)
    sine, cosine = 2 * torch.arange(pairs), 2 * torch.arange(pairs) + 1
    key[sine, sine] = key[cosine, cosine] = 1.0
    query[sine, sine] = query[cosine, cosine] = angles.cos()
    query[sine, cosine], query[cosine, sine] = angles.sin(), -angles.sin()
    return query, key


@torch.no_grad()
def turn_to_neighbours_(attention: SelfAttention, *, base: float) -> None:
    """The same for rotary positions of this `base`, by the biases of query and key, which stand for any token.

    The key's is 1 in the first number of each of the fastest quarter of pairs, the query's the same turned `offset`
    places on: after rotation their product is highest where the key stands there (Su et al. 2021, equation 16).
    """
    size = attention.sizes[0] // attention.heads
    pairs = max(1, size // 8)
    angles = base ** (-torch.arange(pairs) * 2 / size)
    gain = (NEIGHBOUR_SCORE * size**0.5 / pairs) ** 0.5
    for head, offset in zip(range(attention.heads), NEIGHBOURS, strict=False):
        query = attention.qkv.bias[head * size : (head + 1) * size]
        key = attention.qkv.bias[attention.sizes[0] + head * size :][:size]
        query[:pairs], query[size // 2 : size // 2 + pairs] = (
            gain * (offset * angles).cos(),
            gain * (offset * angles).sin(),
        )
        key[:pairs] = gain


@torch.no_grad()
def attend_to_neighbours_(attention: SelfAttention, *, position_share: float) -> None:
    """Let each head start as one that looks at a neighbour: -1, +1, -2, +2, …, as far as `NEIGHBOURS` go.

    `position_share`: mean square of what positions add to a value of the input. The weights are scaled so that the
    score of the right neighbour is `NEIGHBOUR_SCORE`; what tokens have in common adds to it, so that a head sees its
    own place too. A start, not a constraint: heads learn to look elsewhere. As
    Zheng, Li and Lucey 2024 ("Structured initialization for attention in vision transformers") do for images.
    """
    keys, width = attention.sizes[0], attention.qkv.weight.shape[1]
    size = keys // attention.heads
    gain = (NEIGHBOUR_SCORE / (size**0.5 * position_share)) ** 0.5
    for head, offset in zip(range(attention.heads), NEIGHBOURS, strict=False):
        query, key = shifted_sines(width, size, offset)
        attention.qkv.weight[head * size : (head + 1) * size] = gain * query
        attention.qkv.weight[keys + head * size : keys + (head + 1) * size] = gain * key
