"""Linear layers that only answer: float32 with the weights laid out once, and int8.

Both take an activation that follows, and a residual to add, into the product or its last pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.nn.feedforward import ACTIVATION_FUNCTIONS
from bertsmith.nn.linear import onednn_is_faster

FUSED = {"gelu": ("gelu", "none"), "gelu_new": ("gelu", "tanh"), "gelu_fast": ("gelu", "tanh"), "relu": ("relu", "")}
"""`hidden_act` -> the activation as oneDNN's products take it."""


class PackedLinear(nn.Module):
    """float32, the weight in oneDNN's own layout: activation(x Wᵀ + b) + residual."""

    def __init__(self, layer: nn.Linear, activation: str | None = None) -> None:
        super().__init__()
        self.out_features, self.bias = layer.out_features, layer.bias
        self.weight = layer.weight.detach()
        fused = FUSED.get(activation or "", ("none", ""))
        self.fused, self.algorithm = fused
        self.activation = None if activation is None or fused[0] != "none" else ACTIVATION_FUNCTIONS[activation]

    def forward(self, values: Tensor, residual: Tensor | None = None) -> Tensor:
        """`[rows, in]` -> `[rows, out]`."""
        if residual is not None:
            added: Tensor = torch.ops.mkldnn._linear_pointwise.binary(values, residual, self.weight, self.bias, "add")
            return added
        result: Tensor = torch.ops.mkldnn._linear_pointwise(
            values, self.weight, self.bias, self.fused, [], self.algorithm
        )
        return result if self.activation is None else self.activation(result)
