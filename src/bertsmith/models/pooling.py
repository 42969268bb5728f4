"""From the vectors of tokens to one vector for each sequence: cls, mean, max, weighted, or several end to end;
then a projection, if a model has one. Not here: in which files that is written (`interop.sentence_transformers`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.nn.feedforward import ACTIVATION_FUNCTIONS


def pool(states: Tensor, batch: Batch, *, kinds: Sequence[str]) -> Tensor:
    """`[total, hidden_size]` -> `[sequences, len(kinds) * hidden_size]`, special tokens included.

    `kinds` are names of `POOLINGS`; the vectors of several stand end to end, in the order of `kinds`.
    """
    vectors = [POOLINGS[kind](states, batch) for kind in kinds]
    return vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=1)


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear map of pooled vectors, with an activation after it."""

    weight: Tensor
    """`[outputs, inputs]`."""
    bias: Tensor | None
    """`[outputs]`."""
    activation: str | None
    """A name of `ACTIVATION_FUNCTIONS`, or None for the identity."""

    def __call__(self, vectors: Tensor) -> Tensor:
        """`[sequences, inputs]` -> `[sequences, outputs]`, on the device of `vectors`."""
        bias = None if self.bias is None else self.bias.to(vectors)
        projected = F.linear(vectors, self.weight.to(vectors), bias)
        return projected if self.activation is None else ACTIVATION_FUNCTIONS[self.activation](projected)


def _cls(states: Tensor, batch: Batch) -> Tensor:
    return states[batch.first_positions]


def _mean(states: Tensor, batch: Batch) -> Tensor:
    return batch.sums(states) / batch.counts(states)[:, None]


def _max(states: Tensor, batch: Batch) -> Tensor:
    return batch.maxima(states)


def _weighted(states: Tensor, batch: Batch) -> Tensor:
    """Each token weighs its place, from 1: later tokens count more (Muennighoff 2022, equation 2)."""
    weights = (batch.position_ids + 1).to(states.dtype)[:, None]
    return batch.sums(states * weights) / batch.sums(weights)


POOLINGS: dict[str, Callable[[Tensor, Batch], Tensor]] = {
    "cls": _cls,
    "mean": _mean,
    "max": _max,
    "weighted": _weighted,
}
"""Name -> (`[total, hidden_size]`, batch) -> `[sequences, hidden_size]`."""
