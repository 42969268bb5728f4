"""The order of examples, and the stream of steps that a training run sees.

The order is a pure function of (seed, epoch), so a position in it is two numbers, and resuming needs no replay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bertsmith.batch import Batch
from bertsmith.data.sequences import generator

ORDER, PLAN, MASK = 1, 2, 3
"""First part of each random key after (seed, epoch), so that the three never share a stream."""


class Dataset(Protocol):
    """What a loader reads. Both methods are pure functions of their arguments."""

    def size(self, epoch: int) -> int:
        """Number of examples in `epoch`; it may differ from epoch to epoch."""
        ...

    def batch(self, epoch: int, indices: np.ndarray) -> Batch:
        """The examples at `indices` `[n]` as one packed batch, in order of length (runs of equal lengths)."""
        ...


@dataclass(frozen=True)
class Position:
    """How far a run has come: the next example is number `example` of `epoch`'s order."""

    epoch: int = 0
    example: int = 0


@dataclass(frozen=True)
class Step:
    """What one optimizer step sees: micro-batches, and the position after it."""

    batches: tuple[Batch, ...]
    after: Position
    examples: int
    ends_epoch: bool


class Loader:
    """Cuts each epoch's order into steps of `batch_size` examples, in micro-batches of `micro_batch`.

    An epoch's last step takes what is left: no example is dropped.
    """

    def __init__(self, dataset: Dataset, *, batch_size: int, micro_batch: int | None = None, seed: int) -> None:
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.micro_batch = micro_batch or batch_size

    def steps_per_epoch(self, epoch: int = 0) -> int:
        """Number of steps in `epoch`."""
        return -(-self.dataset.size(epoch) // self.batch_size)

    def steps(self, position: Position) -> Iterator[Step]:
        """Endless steps from `position` on."""
        epoch, start = position.epoch, position.example
        while True:
            order = generator(self.seed, epoch, ORDER).permutation(self.dataset.size(epoch))
            while start < len(order):
                indices = order[start : start + self.batch_size]
                start += len(indices)
                done = start >= len(order)
                parts = np.split(indices, range(self.micro_batch, len(indices), self.micro_batch))
                yield Step(
                    batches=tuple(self.dataset.batch(epoch, part) for part in parts),
                    after=Position(epoch + 1, 0) if done else Position(epoch, start),
                    examples=len(indices),
                    ends_epoch=done,
                )
            epoch, start = epoch + 1, 0
