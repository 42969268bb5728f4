"""Layers that multiply bytes and only answer: a linear layer, and the whole feed-forward part of a block.

Both go through their rows in pieces that stay in a core's cache: bytes, product, and what follows it (`engines.rows`).
Not here: which layers of a model they replace (`engines.swap`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from bertsmith.engines import rows
from bertsmith.nn.feedforward import FeedForward

MOST = 127.0
"""Largest int8; -128 is not used, so that zero stays in the middle."""

PIECE = 512
"""Rows of a piece: enough for the product to be fast, few enough for its numbers to stay near the core."""


@dataclass(frozen=True)
class Bytes:
    """Rows of float32 numbers as bytes: `scales · values`, plus what is `apart`."""

    values: Tensor
    """uint8 `[rows, size]`."""
    scales: np.ndarray
    """float32 `[rows]`."""
    apart: np.ndarray
    """float32 `[rows, k]`: the outliers' numbers, the row's lowest number, zeros up to a multiple of three."""

    @classmethod
    def empty(cls, count: int, size: int, apart: int) -> Bytes:
        """To be filled by a function of `engines.rows`."""
        scales, kept = np.empty(count, np.float32), np.zeros((count, apart), np.float32)
        return cls(torch.empty(count, size, dtype=torch.uint8), scales, kept)


class Weight:
    """A linear layer's weight as bytes, with a scale for each output; each row of its input has a scale of its own.

    A weight's largest absolute value becomes 127 (Dettmers et al. 2022, "LLM.int8()", section 2.1, vector-wise); a
    token's smallest and largest number become 0 and 255 (Jacob et al. 2017, equation 1). Columns of the input that are
    much larger than the others, `outliers` `[columns]`, stay float32 (LLM.int8(), section 3). With x = s q + z and
    w = c v for the others: x wᵀ = c s (q vᵀ) + z (c Σ v).
    """

    def __init__(self, layer: nn.Linear, outliers: Tensor) -> None:
        weight = layer.weight.detach()
        rest = weight.index_fill(1, outliers, 0.0)
        self.scales = rest.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / MOST
        quantised = torch.round(rest / self.scales[:, None]).to(torch.int8)
        sums = quantised.sum(1, dtype=torch.float32) * self.scales
        columns = torch.cat([weight[:, outliers], sums[:, None]], dim=1)
        columns = nn.functional.pad(columns, (0, -columns.shape[1] % rows.TOGETHER))
        self.columns = columns.t().contiguous().numpy()
        self.bias = (weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()).numpy()
        self.outliers = outliers.numpy()
        self.packed = torch.ops.onednn.qlinear_prepack(quantised, None)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)

    @property
    def apart(self) -> int:
        """Columns of `Bytes.apart` that it takes."""
        return len(self.columns)

    @property
    def out(self) -> int:
        """Numbers of a row of the product."""
        return len(self.bias)

    def quantise(self, values: Tensor) -> Bytes:
        """Its input, float32 `[rows, in]`, as bytes."""
        found = Bytes.empty(len(values), values.shape[1], self.apart)
        rows.quantise(values.numpy(), self.outliers, found.values.numpy(), found.scales, found.apart)
        return found

    def product(self, given: Bytes) -> np.ndarray:
        """float32 `[rows, out]`, without the input's scales and what is apart."""
        found: Tensor = torch.ops.onednn.qlinear_pointwise(
            given.values, 1.0, 0, self.packed, self.scales, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return found.numpy()

    def answer(self, given: Bytes, residual: Tensor | None, found: Tensor) -> None:
        """Fill `found` `[rows, out]`: x wᵀ + bias, plus `residual`."""
        first = (self.product(given), given.scales, given.apart, self.columns, self.bias)
        if residual is None:
            rows.finish(*first, found.numpy())
        else:
            rows.finish_added(*first, residual.numpy(), found.numpy())


class Int8Linear(nn.Module):
    """A linear layer with a product in bytes (`Weight`)."""

    def __init__(self, layer: nn.Linear, *, outliers: Tensor) -> None:
        super().__init__()
        self.weight = Weight(layer, outliers)

    def forward(self, values: Tensor, residual: Tensor | None = None) -> Tensor:
        """`[rows, in]` -> `[rows, out]`; `residual`: `[rows, out]`."""
        values, found = values.contiguous(), values.new_empty(len(values), self.weight.out)
        for part in pieces(len(values)):
            given = self.weight.quantise(values[part])
            self.weight.answer(given, None if residual is None else residual[part], found[part])
        return found


class Int8FeedForward(nn.Module):
    """Both linear layers of a block's feed-forward part, and the activation between them."""

    def __init__(self, layer: FeedForward, *, outliers: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.first, self.second = Weight(layer.intermediate, outliers[0]), Weight(layer.output, outliers[1])
        self.is_gated, self.activation = layer.is_gated, layer.activation
        self.code = rows.ACTIVATION_CODES.get(layer.hidden_act)

    def forward(self, hidden_states: Tensor, *, residual: Tensor | None = None) -> Tensor:
        """`[total, hidden_size]` -> `[total, hidden_size]`, to which `residual` is added."""
        values, found = hidden_states.contiguous(), hidden_states.new_empty(len(hidden_states), self.second.out)
        for part in pieces(len(values)):
            inner = self._inner(self.first.quantise(values[part]))
            self.second.answer(inner, None if residual is None else residual[part], found[part])
        return found

    def _inner(self, given: Bytes) -> Bytes:
        """What the second product takes."""
        first, second, count = self.first, self.second, len(given.scales)
        if self.code is None:  # an activation that is seldom used
            values = given.values.new_empty(count, first.out, dtype=torch.float32)
            first.answer(given, None, values)
            parts = values.chunk(2, dim=1) if self.is_gated else (values,)
            inner = self.activation(parts[0]) * parts[1] if self.is_gated else self.activation(values)
            return second.quantise(inner)
        found = Bytes.empty(count, first.out // 2 if self.is_gated else first.out, second.apart)
        rows.finish_activated(
            first.product(given),
            given.scales,
            given.apart,
            first.columns,
            first.bias,
            self.code,
            self.is_gated,
            second.outliers,
            found.values.numpy(),
            found.scales,
            found.apart,
        )
        return found


def pieces(count: int) -> list[slice]:
    """`count` rows in pieces of nearly one size, at most `PIECE`: `300 -> 0:100, 100:200, 200:300`."""
    parts = -(-count // PIECE)
    bounds = [count * i // parts for i in range(parts + 1)] if parts else []
    return [slice(start, end) for start, end in pairwise(bounds)]
