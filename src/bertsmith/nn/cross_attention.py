"""Attention from a decoder's tokens to an encoder's states, and a decoder's attention to its own past.

softmax(Q Kᵀ / √d) V, Vaswani et al. 2017, equation 1 and section 3.2.3. Masks are on keys only: padding may ask, and
nothing that it gets is read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.config.decoder import DecoderConfig
from bertsmith.nn.linear import Linear
from bertsmith.nn.rectangle import Rectangle


@dataclass(frozen=True)
class Memory:
    """Keys and values of the sources, ready to be read: one row for each source."""

    key: Tensor
    """`[rows, heads, width, head_size]`."""
    value: Tensor
    """`[rows, heads, width, value_size]`."""
    is_real: Tensor | None
    """`[rows, 1, 1, width]`: which keys are tokens; None if all are."""

    def select(self, rows: Tensor) -> Memory:
        """The memory of some rows, in a new order, perhaps several times."""
        mask = None if self.is_real is None else self.is_real[rows]
        return Memory(self.key[rows], self.value[rows], mask)


class CrossAttention(nn.Module):
    """Queries from the decoder, keys and values from the encoder."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.sizes = (self.heads * config.head_size, self.heads * config.value_size)
        """Rows of `key_value.weight` that are key and value."""
        self.query = Linear(config.hidden_size, self.sizes[0], bias=config.attention_bias)
        self.key_value = Linear(config.source_size or config.hidden_size, sum(self.sizes), bias=config.attention_bias)
        self.output = Linear(self.sizes[1], config.hidden_size, bias=config.attention_bias)
        self.dropout = config.attention_probs_dropout_prob

    def memory(self, states: Tensor, rectangle: Rectangle) -> Memory:
        """What the sources' states `[total, source_size]` say; once for a source, however long its target gets."""
        parts = self.key_value(states).split(self.sizes, dim=1)
        key, value = (rectangle.fill(part.unflatten(1, (self.heads, -1))).transpose(1, 2) for part in parts)
        mask = None if rectangle.is_full else rectangle.is_real[:, None, None]
        return Memory(key, value, mask)

    def forward(
        self, hidden_states: Tensor, rectangle: Rectangle, memory: Memory, *, residual: Tensor | None = None
    ) -> Tensor:
        """`[total, hidden_size]` of the targets, whose `rectangle` has the rows of `memory` -> the same, to which
        `residual` is added."""
        query = rectangle.fill(self.query(hidden_states).unflatten(1, (self.heads, -1))).transpose(1, 2)
        dropout = self.dropout if self.training else 0.0
        context = F.scaled_dot_product_attention(
            query, memory.key, memory.value, attn_mask=memory.is_real, dropout_p=dropout
        )
        output: Tensor = self.output(rectangle.take(context.transpose(1, 2)).flatten(1), residual)
        return output


def causal_attention(
    query: Tensor, key: Tensor, value: Tensor, batch: Batch, dropout: float, window: int | None = None
) -> Tensor:
    """An `Attention` in which a token sees itself and what stands before it in its sequence.

    Sequences are padded at their ends, which no real token sees, so that no mask is needed. `window`: none has one.
    """
    assert window is None
    rectangle = Rectangle(batch.lengths, query.device)
    q, k, v = (rectangle.fill(part).transpose(1, 2) for part in (query, key, value))
    context = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    return rectangle.take(context.transpose(1, 2))


class Past:
    """Keys and values of the tokens of a target so far, for one layer, in memory that is laid out once."""

    def __init__(self, rows: int, capacity: int, *, like: tuple[Tensor, Tensor]) -> None:
        """`like`: a key and a value, `[…, heads, size]`, for shapes and type."""
        key, value = like
        self.keys = key.new_zeros(rows, key.shape[-2], capacity, key.shape[-1])
        self.values = value.new_zeros(rows, value.shape[-2], capacity, value.shape[-1])

    def write(self, key: Tensor, value: Tensor, places: Tensor | int) -> None:
        """`[rows, heads, size]` each, at `places` `[rows]`, or at one place that all rows have."""
        if isinstance(places, int):
            self.keys[:, :, places], self.values[:, :, places] = key, value
        else:
            rows = torch.arange(len(places), device=places.device)
            self.keys[rows, :, places], self.values[rows, :, places] = key, value

    def select(self, rows: Tensor) -> None:
        """Keep some rows, in a new order, perhaps several times."""
        self.keys, self.values = self.keys[rows], self.values[rows]
