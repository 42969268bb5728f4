"""Attention in bfloat16 on a CPU, for many short sequences of one length: forward and backward in whole products.

torch's fused kernel goes through such a batch sequence by sequence, and its backward pass takes two to three times
as long as these products (benchmarks/kernels.py). Scores and their gradients are float32, as inside the fused
kernel, so that the error is the same; only what enters a product is rounded to bfloat16.

    S = Q Kᵀ / √d    P = softmax(S)    O = P V                        Vaswani et al. 2017, equation 1
    dV = Pᵀ dO    dP = dO Vᵀ    dS = P ∘ (dP - rowsum(dO ∘ O)) / √d    dQ = dS K    dK = dSᵀ Q

Not here: dropout of probabilities, sequences of several lengths.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LONGEST = 256
"""Beyond this length the scores no longer fit the cache, and the fused kernel is as fast."""

FEWEST_SCORES = 2**18
"""Below this number of scores (sequences x heads x length²) the fused kernel's single call is faster."""


def pays_off(query: Tensor, *, length: int, count: int) -> bool:
    """Whether `half_attention` is the faster way for `count` sequences of `length`; `query`: `[…, heads, size]`."""
    if query.is_cuda or query.dtype != torch.bfloat16:
        return False
    return length <= LONGEST and count * query.shape[-2] * length**2 >= FEWEST_SCORES


def half_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`[count, heads, length, size]` each, bfloat16 -> the same shape as `value`."""
    flat = [part.flatten(0, 1) for part in (query, key, value)]
    attended: Tensor = _Attention.apply(*flat)  # type: ignore[no-untyped-call]
    return attended.view(*query.shape[:3], -1)


class _Attention(torch.autograd.Function):
    """`[sequences, length, size]`; autocast is off inside, or it would round the scores."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            scale = query.shape[-1] ** -0.5
            scores = torch.bmm(query.float() * scale, key.float().mT)
            probabilities = scores.softmax(-1).to(query.dtype)
            attended = torch.bmm(probabilities, value)
        context.save_for_backward(query, key, value, probabilities, attended)
        return attended

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, probabilities, attended = context.saved_tensors
        (given,) = gradients
        with torch.autocast("cpu", enabled=False):
            scale = query.shape[-1] ** -0.5
            of_value = torch.bmm(probabilities.mT, given)
            shared = (given.float() * attended.float()).sum(-1, keepdim=True)
            of_scores = torch.bmm(given.float(), value.float().mT).sub_(shared).mul_(probabilities).mul_(scale)
            rounded = of_scores.to(query.dtype)
            return torch.bmm(rounded, key), torch.bmm(rounded.mT, query), of_value
