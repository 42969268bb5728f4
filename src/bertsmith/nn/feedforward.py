"""The feed-forward part of a block, and the activations that `hidden_act` names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.config.encoder import EncoderConfig
from bertsmith.nn.linear import Linear

_tanh_gelu = partial(F.gelu, approximate="tanh")

ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_new": _tanh_gelu,
    "gelu_python": F.gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "mish": F.mish,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}
"""`hidden_act` -> function, by transformers' names.

`gelu` is x Φ(x) with the exact Φ, `gelu_new` its tanh approximation, `quick_gelu` its sigmoid one (Hendrycks and
Gimpel 2016); google-research/bert trained with the tanh one.
"""


class FeedForward(nn.Module):
    """Linear to `intermediate_size`, activation, linear back (Vaswani et al. 2017, section 3.3).

    Gated, the first layer is twice as wide, and its second half multiplies the activation of the first (Shazeer 2020).
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.is_gated = config.feedforward_kind == "gated"
        inner = config.intermediate_size
        self.intermediate = Linear(config.hidden_size, 2 * inner if self.is_gated else inner, bias=config.mlp_bias)
        self.output = Linear(inner, config.hidden_size, bias=config.mlp_bias)
        self.hidden_act = config.hidden_act
        self.activation = ACTIVATION_FUNCTIONS[config.hidden_act]

    def forward(self, hidden_states: Tensor, *, residual: Tensor | None = None) -> Tensor:
        """`[total, hidden_size]` -> `[total, hidden_size]`, to which `residual` is added."""
        inner = self.intermediate(hidden_states)
        if self.is_gated:
            values, gate = inner.chunk(2, dim=-1)
            inner = self.activation(values) * gate
        else:
            inner = self.activation(inner)
        output: Tensor = self.output(inner, residual)
        return output
