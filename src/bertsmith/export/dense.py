"""The encoder and the decoder over dense `[rows, length]` inputs with a mask: what a graph of ONNX is traced from.

    input_ids [2, 4]         a b c .      as a `PaddedBatch`:  a b c . d e . .     [rows · length]
    attention_mask [2, 4]    1 1 1 0 …                         padding is computed, and no token sees it

Packing on entry and loops over lengths do not export with sizes that are known only at run time. So the network is the
same, and given another attention and a batch whose rows have one length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.nn.attention import within
from bertsmith.nn.rectangle import Rectangle


@dataclass(frozen=True, kw_only=True)
class PaddedBatch(Batch):
    """Rows of one length laid end to end, padding included. `lengths` is empty: while tracing nobody knows them."""

    mask: Tensor
    """`[rows, length]`, bool: where tokens are."""

    @classmethod
    def from_rows(
        cls, input_ids: Tensor, mask: Tensor, token_type_ids: Tensor | None, *, first: int = 0
    ) -> PaddedBatch:
        """`[rows, length]` each; positions are the columns, counted from `first`."""
        rows, length = input_ids.shape
        columns = torch.arange(length, device=input_ids.device) + first
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        return cls(
            input_ids=input_ids.flatten(),
            position_ids=columns.expand(rows, length).flatten(),
            token_type_ids=types.flatten(),
            cu_seqlens=torch.arange(rows + 1, device=input_ids.device) * length,
            lengths=(),
            mask=mask,
        )

    def counts(self, like: Tensor) -> Tensor:
        """See `Batch`; at least 1, so that a row without a token gives no NaN."""
        return self.mask.sum(1).clamp(min=1).to(like.dtype)

    def sums(self, values: Tensor) -> Tensor:
        """See `Batch`."""
        return (self.rows_of(values) * self.mask[..., None]).sum(1)

    def maxima(self, values: Tensor) -> Tensor:
        """See `Batch`."""
        return self.rows_of(values).masked_fill(~self.mask[..., None], torch.finfo(values.dtype).min).amax(1)

    def rows_of(self, values: Tensor) -> Tensor:
        """`[rows · length, …]` -> `[rows, length, …]`."""
        rows, length = self.mask.shape
        return values.reshape(rows, length, *values.shape[1:])


class DenseAttention:
    """An `Attention` over the rows of a `PaddedBatch`.

    What is not seen gets the smallest number, not minus infinity: a padding token that sees no token at all, as it may
    with a window, then gets some vector that nobody reads, where NaN would spoil whatever it is multiplied with.
    """

    def __init__(self, mask: Tensor, *, dtype: torch.dtype = torch.float32) -> None:
        """`mask`: `[rows, length]`, bool."""
        self.mask, self.dtype = mask, dtype
        self.biases: dict[int | None, Tensor] = {}

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, batch: Batch, dropout: float, window: int | None = None
    ) -> Tensor:
        """See `Attention`."""
        assert isinstance(batch, PaddedBatch)
        assert not dropout
        q, k, v = (batch.rows_of(part).transpose(1, 2) for part in (query, key, value))
        return attended(q, k, v, self._bias(window))

    def _bias(self, window: int | None) -> Tensor:
        """What is added to the scores, `[rows, 1, 1 or length, length]`; made once for all layers."""
        if window not in self.biases:
            seen = self.mask[:, None, None]
            if window is not None:
                seen = seen & within(window, self.mask.shape[1], device=self.mask.device)
            self.biases[window] = unseen(seen, self.dtype)
        return self.biases[window]


class CachedAttention:
    """An `Attention` of one layer of a decoder: a token sees what was written before, and what stands before it.

    After a pass, `present` holds keys and values of both, `[rows, heads, past + length, size]` each.
    """

    def __init__(self, past: tuple[Tensor, Tensor] | None, bias: Tensor) -> None:
        """`past`: keys and values, `[rows, heads, past, size]`, if there are; `bias`: see `causal_bias`."""
        self.past, self.bias = past, bias
        self.present: tuple[Tensor, Tensor] | None = None

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, batch: Batch, dropout: float, window: int | None = None
    ) -> Tensor:
        """See `Attention`."""
        assert isinstance(batch, PaddedBatch)
        assert not dropout
        assert window is None
        q, k, v = (batch.rows_of(part).transpose(1, 2) for part in (query, key, value))
        if self.past is not None:
            k, v = torch.cat([self.past[0], k], dim=2), torch.cat([self.past[1], v], dim=2)
        self.present = k, v
        return attended(q, k, v, self.bias)


def attended(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """`[rows, heads, length, size]` -> `[rows · length, heads, size]` (Vaswani et al. 2017, equation 1).

    The formula, because the exporter makes a larger graph of `scaled_dot_product_attention`.
    """
    scores = (query * (1 / math.sqrt(query.shape[-1]))) @ key.transpose(2, 3) + bias
    return (scores.softmax(-1) @ value).transpose(1, 2).flatten(0, 1)


def causal_bias(
    before: int, length: int, *, device: torch.device, dtype: torch.dtype, mask: Tensor | None = None
) -> Tensor:
    """`[rows or 1, 1, length, before + length]`: a token sees the `before` tokens, itself and those between.

    `mask` `[rows, before + length]`, bool, leaves out what is no token.
    """
    places = torch.arange(before + length, device=device)
    seen = (places <= torch.arange(length, device=device)[:, None] + before)[None, None]
    return unseen(seen if mask is None else seen & mask[:, None, None], dtype)


def unseen(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `seen`, else the smallest number."""
    return (~seen).to(dtype) * torch.finfo(dtype).min


class FullRectangle(Rectangle):
    """A `Rectangle` of rows that are computed whole, padding included: `fill` and `take` only change the shape."""

    def __init__(self, rows: int, width: int) -> None:
        self.rows, self.width, self.is_full = rows, width, True
