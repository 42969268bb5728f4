"""The order of examples, and the stream of steps that a training run sees.

The order is a pure function of (seed, epoch), so a position in it is two numbers, and resuming needs no replay. It
knows nothing of the number of processes: with several, each step's examples are cut into as many parts.

    step     7 2 9 0 4 | 1 8 …          batch_size 5, the same for any world size
    rank 0   7 2 9                      and micro-batches of 2: [7 2] [9]
    rank 1         0 4                                          [0 4] [filler]
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
    """This rank's micro-batches: as many on every rank, because ranks compute them together."""
    after: Position
    examples: int
    """Examples of the step, on all ranks."""
    ends_epoch: bool
    fillers: int = 0
    """How many of the last `batches` only keep the other ranks company: they are computed and count nothing."""

    @property
    def own(self) -> tuple[Batch, ...]:
        """The micro-batches that count."""
        return self.batches[: len(self.batches) - self.fillers]


@dataclass(frozen=True)
class Buckets:
    """Steps of examples of like lengths, as many as fit into a budget of tokens."""

    lengths: np.ndarray
    """`[examples, sides]`: tokens of each side of an example (source and target); the last side counts first."""
    most_tokens: int
    """Of a step: its examples times its longest side. A longer example makes a step of its own."""

    def cut(self, order: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """The steps of an epoch, in an order drawn from `rng`; `order` decides between examples of equal lengths.

        Lengths 3 1 2 9 2 and 6 tokens -> `[1, 2, 4]`, `[0]`, `[3]`, in any order.
        """
        by_length = order[np.lexsort(self.lengths[order].T)]
        longest = self.lengths.max(1)[by_length].tolist()
        borders, widest, start = [], 0, 0
        for i, length in enumerate(longest):
            widest = max(widest, length)
            if i > start and widest * (i + 1 - start) > self.most_tokens:
                borders.append(i)
                widest, start = length, i
        steps = np.split(by_length, borders)
        return [steps[i] for i in rng.permutation(len(steps))]


class Loader:
    """Cuts each epoch's order into steps of `batch_size` examples, and a rank's part into `micro_batch` at a time.

    An epoch's last step takes what is left: no example is dropped. Parts differ by one example at most; a rank whose
    part is empty, or has a micro-batch less than the others', gets fillers. With `buckets`, they make the steps.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        micro_batch: int | None = None,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        buckets: Buckets | None = None,
    ) -> None:
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.micro_batch, self.buckets = micro_batch, buckets
        self.rank, self.world_size = rank, world_size

    def steps_per_epoch(self, epoch: int = 0) -> int:
        """Number of steps in `epoch`."""
        if self.buckets is not None:
            return len(self.cuts(epoch))
        return -(-self.dataset.size(epoch) // self.batch_size)

    @property
    def examples_per_step(self) -> float:
        """The batch size; with buckets the mean of the first epoch."""
        return self.batch_size if self.buckets is None else self.dataset.size(0) / self.steps_per_epoch()

    def cuts(self, epoch: int) -> list[np.ndarray]:
        """The examples of each step of `epoch`."""
        rng = generator(self.seed, epoch, ORDER)
        order = rng.permutation(self.dataset.size(epoch))
        if self.buckets is not None:
            return self.buckets.cut(order, rng)
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def steps(self, position: Position) -> Iterator[Step]:
        """Endless steps from `position` on."""
        epoch, seen = position.epoch, position.example
        while True:
            size, start = self.dataset.size(epoch), 0
            for indices in self.cuts(epoch):
                start += len(indices)
                if start <= seen:
                    continue
                done = start == size
                parts = self._parts(indices)
                fillers = -(-len(indices) // (self.world_size * (self.micro_batch or len(indices)))) - len(parts)
                yield Step(
                    batches=tuple(self.dataset.batch(epoch, part) for part in parts + fillers * [indices[:1]]),
                    after=Position(epoch + 1, 0) if done else Position(epoch, start),
                    examples=len(indices),
                    ends_epoch=done,
                    fillers=fillers,
                )
            epoch, seen = epoch + 1, 0

    def _parts(self, indices: np.ndarray) -> list[np.ndarray]:
        """This rank's share of a step, one array for each micro-batch; none if there are fewer examples than ranks."""
        mine = np.array_split(indices, self.world_size)[self.rank]
        size = self.micro_batch or len(indices)
        return np.split(mine, range(size, len(mine), size)) if len(mine) else []
