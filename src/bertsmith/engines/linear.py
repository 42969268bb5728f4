"""Linear layers that only answer: float32 with the weight laid out once, and int8.

Both take the activation that follows and the residual that is added. Not here: which layers get which (`engines.swap`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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

MOST = 127.0
"""Largest int8; -128 is not used, so that zero stays in the middle."""


class PackedLinear(nn.Module):
    """float32: activation(x Wᵀ + b), or x Wᵀ + b + residual, each one call of oneDNN."""

    def __init__(self, layer: nn.Linear, activation: str | None = None) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
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


class Int8Linear(nn.Module):
    """int8 products with int32 sums: a scale for each output of the weight, and for each token (row) of the input.

    Both scales map the largest absolute value to 127 (Dettmers et al. 2022, "LLM.int8()", section 2.1, vector-wise).
    """

    def __init__(self, layer: nn.Linear, activation: str | None = None) -> None:
        super().__init__()
        weight = layer.weight.detach()
        self.scales = weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / MOST
        quantised = torch.round(weight / self.scales[:, None]).to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(quantised.t().contiguous(), None)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        self.activation = None if activation is None else ACTIVATION_FUNCTIONS[activation]

    def forward(self, values: Tensor, residual: Tensor | None = None) -> Tensor:
        """`[rows, in]` -> `[rows, out]`; `residual`: `[rows, out]`."""
        quantised, scales = quantise(values)
        product = torch.ops.onednn.qlinear_pointwise(
            quantised, 1.0, 0, self.weight, self.scales, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        result = torch.addcmul(self.bias if residual is None else residual + self.bias, product, scales)
        return result if self.activation is None else self.activation(result)


def quantise(values: Tensor) -> tuple[Tensor, Tensor]:
    """`[rows, size]` -> int8 of the same shape and the float32 scales `[rows, 1]` that they are multiples of."""
    low, high = torch.aminmax(values, dim=1, keepdim=True)
    most = torch.maximum(high, low.neg_()).clamp_(min=torch.finfo(torch.float32).tiny)
    return (values * (MOST / most)).round_().to(torch.int8), most.mul_(1 / MOST)
