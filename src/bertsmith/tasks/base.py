"""The task protocol: all that training, evaluation and prediction know about a task.

rows -> prepare -> Encoded … -> collate -> Batch -> model -> loss        (training)
                                                         -> outputs -> decode   (prediction)
                                                         -> outputs -> score    (evaluation)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.models.bert import Bert
from bertsmith.models.losses import cross_entropy


@dataclass(frozen=True)
class LossTerm:
    """One term of the loss over one micro-batch, not yet averaged.

    The loop divides `total` by the term's count over the whole step, so that accumulating micro-batches
    gives the gradient of the large batch.
    """

    total: Tensor
    """Sum of the losses of all items, scalar."""
    is_right: Tensor
    """Whether the right class has the highest logit, per item: `[items]`, of which `correct` are true."""

    @property
    def correct(self) -> Tensor:
        """Number of items whose highest logit is the right one, scalar."""
        return self.is_right.sum()


class Trainable(Protocol):
    """What the training loop needs."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the parts that the model must have (`models.bert.HEADS`)."""
        ...

    def counts(self, batch: Batch) -> dict[str, int]:
        """Number of items of each loss term in `batch`, from shapes alone (no device is asked)."""
        ...

    def loss(self, model: Bert, batch: Batch) -> dict[str, LossTerm]:
        """The loss terms of `batch`; the run minimises the sum of their means."""
        ...

    def flops(self, model: Bert, batch: Batch) -> int:
        """Floating-point operations that the forward pass of `batch` requires (see `models.flops`)."""
        ...


@dataclass(frozen=True)
class Encoded:
    """One input, ready for a batch."""

    input_ids: np.ndarray
    """`[length]`, special tokens included."""
    token_type_ids: np.ndarray
    """`[length]`."""
    label: int | None = None


class Task(Trainable, Protocol):
    """What evaluation and prediction need beside that."""

    name: str
    primary_metric: str

    def collate(self, examples: Sequence[Encoded]) -> Batch:
        """Pack examples, with their labels if all have one."""
        ...

    def outputs(self, model: Bert, batch: Batch) -> list[np.ndarray]:
        """One float32 array per sequence of `batch`, in its order."""
        ...

    def decode(self, output: np.ndarray) -> dict[str, Any]:
        """What `predict` prints for one output."""
        ...

    def score(self, outputs: Sequence[np.ndarray], labels: Sequence[int]) -> dict[str, float]:
        """Metrics by name."""
        ...

    def manifest(self) -> dict[str, Any]:
        """What must be stored to build this task again (see `tasks.classify.task_from_manifest`)."""
        ...


def cross_entropy_term(logits: Tensor, labels: Tensor) -> LossTerm:
    """Summed cross entropy of `[items, classes]` against `[items]`; an empty batch gives zero."""
    return LossTerm(total=cross_entropy(logits, labels), is_right=logits.detach().argmax(-1) == labels)


def mean_losses(terms: Mapping[str, LossTerm], counts: Mapping[str, int]) -> Tensor:
    """The loss to differentiate: each term divided by its count over the step, added up."""
    parts = [term.total / counts[name] for name, term in terms.items() if counts[name]]
    return torch.stack(parts).sum()
