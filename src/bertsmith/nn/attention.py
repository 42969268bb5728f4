"""Multi-head self-attention over a packed batch: the fast path, and the readable one beside it.

The encoder takes the attention as a callable, `Attention`. Two stand here:

- `packed_attention`: `scaled_dot_product_attention` for each run of equally long neighbours in the batch.
  Such a run is a plain view of the packed matrix, so nothing is padded and nothing is copied; the loader
  sorts each batch by length to make the runs long. On CUDA, in half precision and without attention
  dropout, one `varlen_attn` call does the whole batch; on a CPU in bfloat16 many short sequences take
  `half_attention`, which pads neighbours of nearly the same length to one.
- `ReferenceAttention`: the formula, one sequence at a time. It keeps the probabilities; tests and attention
  maps use it.

softmax(Q Kᵀ / √d) V, Vaswani et al. 2017, equation 1; softmax runs over the keys, the last dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.config.encoder import EncoderConfig
from bertsmith.nn.half_attention import buckets, half_attention
from bertsmith.nn.linear import Linear
from bertsmith.nn.rotary import Rotation, rotate

Attention = Callable[[Tensor, Tensor, Tensor, Batch, float, int | None], Tensor]
"""(query and key `[total, heads, head_size]`, value `[total, heads, value_size]`, batch, dropout, window)
-> `[total, heads, value_size]`; with a window a token sees so many tokens to either side, and itself."""


class SelfAttention(nn.Module):
    """Query, key and value in one matrix product, attention, and the output projection.

    The heads are those that `config.pruned_heads` leaves of layer `layer`, in their old order.
    """

    def __init__(self, config: EncoderConfig, layer: int) -> None:
        super().__init__()
        self.heads = len(config.kept_heads(layer))
        keys, values = self.heads * config.head_size, self.heads * config.value_size
        self.sizes = (keys, keys, values)
        """Rows of `qkv.weight` that are query, key and value."""
        self.qkv = Linear(config.hidden_size, sum(self.sizes), bias=config.attention_bias)
        self.output = Linear(values, config.hidden_size, bias=config.attention_bias)
        self.window = config.window(layer)
        self.dropout = config.attention_probs_dropout_prob

    def forward(
        self,
        hidden_states: Tensor,
        batch: Batch,
        attention: Attention,
        head_mask: Tensor | None = None,
        rotation: Rotation | None = None,
        rows: Tensor | None = None,
        *,
        residual: Tensor | None = None,
    ) -> Tensor:
        """`[total, hidden_size]` -> `[total, hidden_size]`, or of `rows` alone, to which `residual` is added.

        `head_mask` `[heads]` multiplies the output of each head, which is the same as multiplying its
        probabilities (Michel et al. 2019, equation 2).
        """
        projected = self.qkv(hidden_states).split(self.sizes, dim=1)
        query, key, value = (part.unflatten(1, (self.heads, -1)) for part in projected)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        context = attention(query, key, value, batch, self.dropout if self.training else 0.0, self.window)
        if head_mask is not None:
            context = context * head_mask[:, None]
        output: Tensor = self.output(at(rows, context.flatten(1)), residual)
        return output


def at(rows: Tensor | None, values: Tensor) -> Tensor:
    """`[total, …]` -> `[rows, …]`; None: all."""
    return values if rows is None else values.index_select(0, rows)


def attention_path(query: Tensor, value: Tensor, dropout: float) -> str:
    """How `packed_attention` computes this input: `varlen_attn`, `half_attention` (where it pays off) or `sdpa`."""
    if dropout == 0.0 and query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        return "varlen_attn" if query.shape == value.shape else "sdpa"
    return "half_attention" if dropout == 0.0 and not query.is_cuda and query.dtype == torch.bfloat16 else "sdpa"


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, batch: Batch, dropout: float, window: int | None = None
) -> Tensor:
    """Attention within each sequence of the batch; see `Attention`."""
    path = attention_path(query, value, dropout)
    if window is not None and batch.max_seqlen <= window + 1:
        window = None  # every token sees all
    if path == "varlen_attn":
        from torch.nn.attention.varlen import varlen_attn

        bounds, longest = batch.cu_seqlens, batch.max_seqlen
        sides = (-1, -1) if window is None else (window, window)
        context = varlen_attn(query, key, value, bounds, bounds, longest, longest, window_size=sides)
        assert isinstance(context, Tensor)  # a tuple only when the log-sum-exp is asked for
        return context
    if path == "sdpa" or window is not None:
        return _by_runs(query, key, value, batch.lengths, dropout, window)
    contexts = []
    for bucket in buckets(batch.lengths):
        q, k, v = (values[bucket.start : bucket.start + bucket.tokens] for values in (query, key, value))
        if bucket.pays_off(heads=query.shape[1]):
            contexts.append(half_attention(q, k, v, bucket))
        else:
            contexts.append(_by_runs(q, k, v, bucket.lengths, dropout))
    return contexts[0] if len(contexts) == 1 else torch.cat(contexts)


def _by_runs(
    query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], dropout: float, window: int | None = None
) -> Tensor:
    """One `scaled_dot_product_attention` for each run of equally long sequences."""
    runs = [(length, len(list(run))) for length, run in groupby(lengths)]
    sizes = [length * count for length, count in runs]
    contexts = []
    for (length, count), *parts in zip(
        runs, *(torch.split(values, sizes) for values in (query, key, value)), strict=True
    ):
        # [tokens, heads, size] -> [count, heads, length, size], a view
        q, k, v = (part.unflatten(0, (count, length)).transpose(1, 2) for part in parts)
        seen = None if window is None or length <= window + 1 else within(window, length, device=q.device)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout)
        contexts.append(attended.transpose(1, 2).flatten(0, 1))
    return contexts[0] if len(contexts) == 1 else torch.cat(contexts)


def within(window: int, length: int, *, device: torch.device) -> Tensor:
    """`[length, length]`: whether two places are at most `window` apart."""
    places = torch.arange(length, device=device)
    return (places[:, None] - places).abs() <= window


class ReferenceAttention:
    """The formula, one sequence at a time, with the probabilities kept.

    After a pass, `probabilities[layer][sequence]` is `[heads, length, length]`.
    """

    def __init__(self) -> None:
        self.probabilities: list[list[Tensor]] = []

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, batch: Batch, dropout: float, window: int | None = None
    ) -> Tensor:
        """See `Attention`."""
        contexts, kept = [], []
        for parts in zip(*(batch.split(values) for values in (query, key, value)), strict=True):
            q, k, v = (part.transpose(0, 1) for part in parts)  # each [heads, length, size]
            scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
            if window is not None:
                scores = scores.masked_fill(~within(window, len(scores[0]), device=scores.device), float("-inf"))
            probabilities = F.dropout(scores.softmax(-1), dropout)
            kept.append(probabilities)
            contexts.append((probabilities @ v).transpose(0, 1))
        self.probabilities.append(kept)
        return torch.cat(contexts)
