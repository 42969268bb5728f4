"""Multi-head self-attention over a packed batch: the fast path, and the readable one beside it.

The encoder takes the attention as a callable, `Attention`. Two stand here:

- `packed_attention`: `scaled_dot_product_attention` for each run of equally long neighbours in the batch.
  Such a run is a plain view of the packed matrix, so nothing is padded and nothing is copied; the loader
  sorts each batch by length to make the runs long. On CUDA, in half precision and without attention
  dropout, one `varlen_attn` call does the whole batch.
- `reference_attention`: the formula, one sequence at a time. It returns the probabilities too, and takes a
  head mask; tests and attention maps use it.

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

Attention = Callable[[Tensor, Batch, float], Tensor]
"""(`qkv` `[total, 3, heads, head_size]`, batch, dropout) -> `[total, heads, head_size]`."""


class SelfAttention(nn.Module):
    """Query, key and value in one matrix product, attention, and the output projection."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads, self.head_size = config.num_attention_heads, config.head_size
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = config.attention_probs_dropout_prob

    def forward(self, hidden_states: Tensor, batch: Batch, attention: Attention) -> Tensor:
        """`[total, hidden_size]` -> `[total, hidden_size]`."""
        qkv = self.qkv(hidden_states).view(-1, 3, self.heads, self.head_size)
        context = attention(qkv, batch, self.dropout if self.training else 0.0)
        output: Tensor = self.output(context.reshape(hidden_states.shape))
        return output


def attention_path(qkv: Tensor, dropout: float) -> str:
    """Which kernel `packed_attention` takes for this input: `varlen_attn` or `sdpa`."""
    half = qkv.dtype in (torch.float16, torch.bfloat16)
    return "varlen_attn" if qkv.is_cuda and half and dropout == 0.0 else "sdpa"


def packed_attention(qkv: Tensor, batch: Batch, dropout: float) -> Tensor:
    """Attention within each sequence of the batch, without padding."""
    if attention_path(qkv, dropout) == "varlen_attn":
        from torch.nn.attention.varlen import varlen_attn

        query, key, value = qkv.unbind(1)
        bounds, longest = batch.cu_seqlens, batch.max_seqlen
        context = varlen_attn(query, key, value, bounds, bounds, longest, longest)
        assert isinstance(context, Tensor)  # a tuple only when the log-sum-exp is asked for
        return context
    runs = [(length, len(list(run))) for length, run in groupby(batch.lengths)]
    sizes = [length * count for length, count in runs]
    contexts = []
    for (length, count), part in zip(runs, torch.split(qkv, sizes), strict=True):
        # [tokens, 3, heads, head_size] -> three of [count, heads, length, head_size], all of them views
        query, key, value = part.view(count, length, *part.shape[1:]).permute(2, 0, 3, 1, 4).unbind(0)
        context = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        contexts.append(context.transpose(1, 2).reshape(count * length, *part.shape[2:]))
    return contexts[0] if len(contexts) == 1 else torch.cat(contexts)


class ReferenceAttention:
    """The formula, one sequence at a time, with the probabilities kept.

    `head_mask`: `[layers, heads]`, multiplies the probabilities of each head (Michel et al. 2019, equation 2).
    After a pass, `probabilities[layer][sequence]` is `[heads, length, length]`.
    """

    def __init__(self, head_mask: Tensor | None = None) -> None:
        self.head_mask = head_mask
        self.probabilities: list[list[Tensor]] = []

    def __call__(self, qkv: Tensor, batch: Batch, dropout: float) -> Tensor:
        """See `Attention`."""
        mask = None if self.head_mask is None else self.head_mask[len(self.probabilities)]
        contexts, kept = [], []
        for part in batch.split(qkv):
            query, key, value = part.permute(1, 2, 0, 3)  # each [heads, length, head_size]
            scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])
            probabilities = F.dropout(scores.softmax(-1), dropout)
            if mask is not None:
                probabilities = probabilities * mask[:, None, None]
            kept.append(probabilities)
            contexts.append((probabilities @ value).transpose(0, 1))
        self.probabilities.append(kept)
        return torch.cat(contexts)
