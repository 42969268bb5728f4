"""The norms: torch's LayerNorm, and the one that divides by the deviation plus epsilon."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bertsmith.config.encoder import EncoderConfig


class StdNorm(nn.Module):
    """weight · (x - mean) / (std + eps) + bias, with the unbiased deviation, as codertimo/BERT-pytorch has it.

    LayerNorm (Ba et al. 2016) divides by sqrt(biased variance + eps) instead.
    """

    def __init__(self, size: int, *, eps: float, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if bias else None
        self.eps = eps

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`[…, size]` -> the same shape."""
        centred = hidden_states - hidden_states.mean(-1, keepdim=True)
        normed = self.weight * centred / (hidden_states.std(-1, keepdim=True) + self.eps)
        return normed if self.bias is None else normed + self.bias


def make_norm(config: EncoderConfig, *, size: int | None = None) -> nn.Module:
    """The norm that the configuration names, over `hidden_size` or `size`."""
    kind = StdNorm if config.norm_kind == "std_norm" else nn.LayerNorm
    return kind(size or config.hidden_size, eps=config.layer_norm_eps, bias=config.norm_bias)
