"""Linear layers that only answer: float32 with the weight laid out once, and bfloat16.

Both take the activation that follows and the residual that is added. Not here: bytes (`engines.int8`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bertsmith.models.heads import MaskedLMHead
from bertsmith.nn.feedforward import ACTIVATION_FUNCTIONS

FUSED = {
    "gelu": ("gelu", "none"),
    "gelu_python": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_fast": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "tanh": ("tanh", ""),
}
"""`hidden_act` -> the activation that oneDNN applies to a product while it is in the cache."""

TYPICAL_ROWS = 512
"""Tokens of a batch for which oneDNN lays out a weight; other numbers work too."""


class PackedLinear(nn.Module):
    """float32: activation(x Wᵀ + b), or x Wᵀ + b + residual, each one call of oneDNN."""

    def __init__(self, layer: nn.Linear, activation: str | None = None) -> None:
        super().__init__()
        weight = layer.weight.detach()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS)
        self.bias = None if layer.bias is None else layer.bias.detach()
        self.fused = FUSED.get(activation or "", ("none", ""))
        is_apart = activation is not None and activation not in FUSED
        self.activation = ACTIVATION_FUNCTIONS[activation] if is_apart and activation else None

    def forward(self, values: Tensor, residual: Tensor | None = None) -> Tensor:
        """`[rows, in]` -> `[rows, out]`; `residual`: `[rows, out]`."""
        result: Tensor
        if residual is not None:
            result = torch.ops.mkldnn._linear_pointwise.binary(values, residual, self.weight, self.bias, "add")
            return result
        result = torch.ops.mkldnn._linear_pointwise(values, self.weight, self.bias, self.fused[0], [], self.fused[1])
        return result if self.activation is None else self.activation(result)


class PackedHead(nn.Module):
    """A `MaskedLMHead` of packed layers, whose table is laid out once more."""

    def __init__(self, head: MaskedLMHead, embedding_weight: Tensor, activation: str) -> None:
        super().__init__()
        self.dense = None if head.dense is None else PackedLinear(head.dense, activation)
        self.norm = head.norm
        weight, bias = head.table(embedding_weight)
        table = nn.Linear(weight.shape[1], len(weight), device="meta")
        table.weight, table.bias = (nn.Parameter(part, requires_grad=False) for part in (weight, bias))
        self.decoder = PackedLinear(table)

    def forward(self, states: Tensor, _embedding_weight: Tensor) -> Tensor:
        """As `MaskedLMHead`: `[selected, hidden_size]` -> `[selected, padded_vocab_size]`."""
        if self.dense is not None and self.norm is not None:
            states = self.norm(self.dense(states))
        logits: Tensor = self.decoder(states)
        return logits


class Bfloat16Linear(nn.Module):
    """activation(x Wᵀ + b) in bfloat16 with float32 sums; with a residual, which is float32, the result is too."""

    def __init__(self, layer: nn.Linear, activation: str | None = None) -> None:
        super().__init__()
        self.weight = layer.weight.detach().bfloat16()
        self.bias = None if layer.bias is None else layer.bias.detach().bfloat16()
        self.activation = None if activation is None else ACTIVATION_FUNCTIONS[activation]

    def forward(self, values: Tensor, residual: Tensor | None = None) -> Tensor:
        """`[rows, in]` -> `[rows, out]`; `residual`: `[rows, out]`."""
        result = nn.functional.linear(values.bfloat16(), self.weight, self.bias)
        if residual is not None:
            return residual + result
        return result if self.activation is None else self.activation(result)
