"""Which inputs the compiled attention takes (`engines.tiles`); all others go the way of `nn.attention`."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.nn.attention import packed_attention

ENOUGH_TOKENS = 512
"""With so many tokens in a batch it is worth the half second that loading the compiled code takes."""


def fast_attention(
    query: Tensor, key: Tensor, value: Tensor, batch: Batch, dropout: float, window: int | None = None
) -> Tensor:
    """`nn.attention.packed_attention`, compiled where float32 answers are asked for on a CPU."""
    plain = query.dtype == torch.float32 and query.device.type == "cpu" and not torch.is_grad_enabled()
    dense = all(part.stride(2) == 1 for part in (query, key, value))
    if not (plain and dense and dropout == 0.0):
        return packed_attention(query, key, value, batch, dropout, window)
    from bertsmith.engines.tiles import attend  # numba is an extra

    found = value.new_empty(value.shape)
    scale, bounds = np.float32(1 / math.sqrt(query.shape[2])), batch.cu_seqlens.numpy()
    sees = batch.max_seqlen if window is None else window
    attend(query.numpy(), key.numpy(), value.numpy(), bounds, scale, sees, found.numpy())
    return found


def bulk_attention(
    query: Tensor, key: Tensor, value: Tensor, batch: Batch, dropout: float, window: int | None = None
) -> Tensor:
    """`fast_attention` for many tokens, if numba is installed."""
    chosen = fast_attention if batch.total >= ENOUGH_TOKENS and has_numba() else packed_attention
    return chosen(query, key, value, batch, dropout, window)


def wide_attention(
    query: Tensor, key: Tensor, value: Tensor, batch: Batch, dropout: float, window: int | None = None
) -> Tensor:
    """For bfloat16: on a CPU in float32, which is the faster way there; on a GPU as it is."""
    if query.is_cuda:
        return packed_attention(query, key, value, batch, dropout, window)
    return bulk_attention(query.float(), key.float(), value.float(), batch, dropout, window)


@functools.cache
def has_numba() -> bool:
    """Whether the extra `int8` is installed, suits the other packages, and may compile (`NUMBA_DISABLE_JIT`)."""
    try:
        from numba.core import config
    except ImportError:  # numba refuses a numpy that is newer than it knows
        return False
    return not vars(config)["DISABLE_JIT"]
