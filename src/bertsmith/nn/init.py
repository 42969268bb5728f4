"""How weights start: BERT's truncated normal (google-research/bert, `create_initializer`)."""

from __future__ import annotations

import torch
from torch import nn


def initialize(module: nn.Module, *, std: float) -> None:
    """Draw every weight of `module` anew: linear and embedding weights from N(0, std) cut at two deviations,
    biases zero, norms one and zero, padding rows zero.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(part.weight, mean=0.0, std=std, a=-2 * std, b=2 * std)
        if isinstance(part, nn.Linear | nn.LayerNorm) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            with torch.no_grad():
                part.weight[part.padding_idx].zero_()
