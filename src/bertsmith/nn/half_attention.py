"""Attention in bfloat16 on a CPU, for many short sequences: forward and backward in whole products.

torch's fused kernel goes through a batch sequence by sequence, and takes 1.7 to 2.7 times as long as these products up
to length 128 (benchmarks/kernels.py). Scores and their gradients are float32, as inside the fused kernel, so that
the error is the same; only what enters a product is rounded to bfloat16.

    S = Q Kᵀ / √d    P = softmax(S)    O = P V                        Vaswani et al. 2017, equation 1
    dV = Pᵀ dO    dP = dO Vᵀ    dS = P ∘ (dP - rowsum(dO ∘ O)) / √d    dQ = dS K    dK = dSᵀ Q

Neighbours of nearly the same length are padded to one (`Bucket`). Not here: dropout of probabilities.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor

LONGEST = 256
"""Beyond this length the scores no longer fit the cache, and the fused kernel is as fast."""

FEWEST_SCORES = 2**18
"""Below this number of scores (sequences x heads x length²) the fused kernel's single call is faster."""

MOST_PADDING = 0.15
"""A bucket is closed before more than this share of it would be padding."""

ENOUGH_TOKENS = 1024
"""Sequences of one length with so many tokens are a bucket of their own: padding costs copies."""


@dataclass(frozen=True)
class Bucket:
    """Neighbouring sequences of a packed batch that are computed together."""

    lengths: tuple[int, ...]
    start: int
    """Number of the first token in the batch."""

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(self.lengths)

    @property
    def longest(self) -> int:
        """Length that all are padded to."""
        return max(self.lengths)

    def pays_off(self, heads: int) -> bool:
        """Whether this is the faster way."""
        longest = self.longest
        return longest <= LONGEST and len(self.lengths) * heads * longest**2 >= FEWEST_SCORES

    @functools.cached_property
    def is_real(self) -> Tensor | None:
        """`[sequences, longest]`: where tokens are; None if all sequences are as long."""
        if min(self.lengths) == self.longest:
            return None
        return torch.arange(self.longest) < torch.tensor(self.lengths)[:, None]

    @functools.cached_property
    def rows(self) -> Tensor | None:
        """`[tokens]`: where each token stands in `[sequences · longest]`; None if all sequences are as long."""
        return None if self.is_real is None else self.is_real.flatten().nonzero().flatten()

    def padded(self, packed: Tensor) -> Tensor:
        """`[tokens, heads, size]` -> `[sequences · heads, longest, size]`."""
        count, longest = len(self.lengths), self.longest
        if self.rows is not None:
            packed = packed.new_zeros(count * longest, *packed.shape[1:]).index_copy(0, self.rows, packed)
        return packed.view(count, longest, *packed.shape[1:]).transpose(1, 2).flatten(0, 1)

    def packed(self, padded: Tensor) -> Tensor:
        """`[sequences · heads, longest, size]` -> `[tokens, heads, size]`."""
        count, longest = len(self.lengths), self.longest
        dense = padded.view(count, -1, longest, padded.shape[-1]).transpose(1, 2).flatten(0, 1)
        return dense if self.rows is None else dense.index_select(0, self.rows)

    def is_padding(self, heads: int) -> Tensor | None:
        """`[sequences · heads, 1, longest]`: keys that are no tokens; None if there are none."""
        return None if self.is_real is None else (~self.is_real).repeat_interleave(heads, 0)[:, None]


@functools.lru_cache(maxsize=4)
def buckets(lengths: tuple[int, ...]) -> tuple[Bucket, ...]:
    """Cut a batch's sequences, which the loader has sorted by length, into buckets; every layer asks for the same.

    `(60, 61, 128, … 128)` -> `(60, 61)` and `(128, … 128)`.
    """
    found: list[tuple[int, ...]] = []
    for _, equal in groupby(lengths):
        run = tuple(equal)
        last = found[-1] if found else ()
        is_full = max(sum(last), sum(run)) >= ENOUGH_TOKENS
        if not last or is_full or sum(last + run) < (1 - MOST_PADDING) * len(last + run) * max(last + run):
            found.append(run)
        else:
            found[-1] = last + run
    starts = accumulate((sum(part) for part in found), initial=0)
    return tuple(Bucket(part, start) for part, start in zip(found, starts, strict=False))


def half_attention(query: Tensor, key: Tensor, value: Tensor, bucket: Bucket) -> Tensor:
    """`[tokens, heads, size]` of a bucket's sequences, bfloat16 -> the same shape as `value`."""
    parts = [bucket.padded(part) for part in (query, key, value)]
    attended: Tensor = _Attention.apply(*parts, bucket.is_padding(query.shape[1]))  # type: ignore[no-untyped-call]
    return bucket.packed(attended)


class _Attention(torch.autograd.Function):
    """`[sequences, length, size]`; autocast is off inside, or it would round the scores."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor, is_padding: Tensor | None) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            scale = query.shape[-1] ** -0.5
            scores = torch.bmm(query.float(), key.float().mT).mul_(scale)  # the product rounds query, not scores
            if is_padding is not None:
                scores.masked_fill_(is_padding, -torch.inf)
            probabilities = scores.softmax(-1).to(query.dtype)
            attended = torch.bmm(probabilities, value)
        context.save_for_backward(query, key, value, probabilities, attended)
        return attended

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, probabilities, attended = context.saved_tensors
        (given,) = gradients
        with torch.autocast("cpu", enabled=False):
            scale = query.shape[-1] ** -0.5
            of_value = torch.bmm(probabilities.mT, given)
            shared = (given.float() * attended.float()).sum(-1, keepdim=True)
            of_scores = torch.bmm(given.float(), value.float().mT).sub_(shared).mul_(probabilities).mul_(scale)
            rounded = of_scores.to(query.dtype)
            return torch.bmm(rounded, key), torch.bmm(rounded.mT, query), of_value, None
