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

TYPICAL_ROWS = 512
"""Tokens of a batch for which oneDNN lays out a weight; other numbers work too."""

MOST = 127.0
"""Largest int8; -128 is not used, so that zero stays in the middle."""


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


class Int8Linear(nn.Module):
    """int8 products with int32 sums: a scale for each output of the weight, scale and zero for each token of the input.

    A weight's largest absolute value becomes 127 (Dettmers et al. 2022, "LLM.int8()", section 2.1, vector-wise); a
    token's smallest and largest number become 0 and 255 (Jacob et al. 2017, equation 1). Columns of the input that are
    much larger than the others, `outliers` `[columns]`, stay float32 (LLM.int8(), section 3). With x = s q + z and
    w = c v for the others: x wᵀ = c s (q vᵀ) + z (c Σ v).
    """

    def __init__(self, layer: nn.Linear, activation: str | None = None, *, outliers: Tensor) -> None:
        super().__init__()
        weight = layer.weight.detach()
        self.outliers = outliers
        rest = weight.index_fill(1, outliers, 0.0)
        self.scales = rest.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / MOST
        quantised = torch.round(rest / self.scales[:, None]).to(torch.int8)
        sums = quantised.sum(1, dtype=torch.float32) * self.scales
        self.apart = torch.cat([weight[:, outliers], sums[:, None]], dim=1).t().contiguous()
        self.weight = torch.ops.onednn.qlinear_prepack(quantised, None)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        self.activation = None if activation is None else ACTIVATION_FUNCTIONS[activation]

    def forward(self, values: Tensor, residual: Tensor | None = None) -> Tensor:
        """`[rows, in]` -> `[rows, out]`; `residual`: `[rows, out]`."""
        quantised, scales, zeros = quantise(values.index_fill(1, self.outliers, 0.0))
        product = torch.ops.onednn.qlinear_pointwise(
            quantised, 1.0, 0, self.weight, self.scales, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        apart = torch.cat([values.index_select(1, self.outliers), zeros], dim=1)
        result = torch.addmm(self.bias, apart, self.apart).addcmul_(product, scales)
        if residual is not None:
            result += residual
        return result if self.activation is None else self.activation(result)


def quantise(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`[rows, size]` -> uint8 of that shape, scales and zeros, float32 `[rows, 1]`: values ≈ scale · q + zero."""
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    scales = (high - low).clamp_(min=torch.finfo(torch.float32).tiny) / 255
    signed = (values - low).div_(scales).round_().sub_(128).to(torch.int8)  # to uint8 torch converts one by one
    return signed.view(torch.uint8) ^ 128, scales, low
