"""The task protocol: all that training, evaluation and prediction know about a task.

file -> read -> rows -> prepare -> Encoded … -> collate -> Batch -> model -> loss                        (training)
                                                                 -> outputs -> join -> result of a row
                                                          result -> decode                               (prediction)
                                                          results -> judge                               (evaluation)

A row may take several inputs, as a long text takes windows: `Encoded.row` says whose it is, and `join` makes one result
of the outputs. What a result is, the task knows: logits of labels, logits of words, candidates of answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.metrics.judgement import Judgement
from bertsmith.models.bert import Bert
from bertsmith.models.losses import cross_entropy
from bertsmith.tokenizer.text_tokenizer import TextTokenizer


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

    def loss(self, model: Any, batch: Batch) -> dict[str, LossTerm]:
        """The loss terms of `batch`; the run minimises the sum of their means."""
        ...

    def flops(self, model: Any, batch: Batch) -> int:
        """Floating-point operations that the forward pass of `batch` requires (see `models.flops`)."""
        ...


@runtime_checkable
class Coupled(Trainable, Protocol):
    """A task that learns from vectors, and the loss of a row may depend on the other rows of the step.

    `loss` is `vector_loss` of `vectors`; where a step has several micro-batches, the loop calls the two apart
    (`train.accumulate`).
    """

    @property
    def couples(self) -> bool:
        """Whether it does depend on them."""
        ...

    def vectors(self, model: Any, batch: Batch) -> Tensor:
        """`[sequences, size]`, float32 or wider, in the order of the rows and their texts."""
        ...

    def vector_loss(self, vectors: Tensor, labels: Mapping[str, Tensor]) -> dict[str, LossTerm]:
        """The loss terms of all rows of `labels`, which are those of `Batch.labels`, of several batches end to end."""
        ...


class Scored(Trainable, Protocol):
    """A task that learns from logits: `loss` is `terms` of `logits`, so that a teacher's can be compared with the same
    ones (`tasks.distill`).
    """

    def logits(self, model: Any, batch: Batch) -> Tensor:
        """What the loss compares with the labels, float32 or wider, in the order of the inputs."""
        ...

    def terms(self, logits: Tensor, batch: Batch) -> dict[str, LossTerm]:
        """The loss terms of `batch`, by its labels."""
        ...


@dataclass(frozen=True, eq=False)
class Encoded:
    """One input, ready for a batch."""

    sequences: tuple[np.ndarray, ...]
    """`[length]` each, special tokens included: one, or one for each choice."""
    token_type_ids: tuple[np.ndarray, ...]
    """Of the same lengths."""
    row: int
    """Number of the row that it belongs to."""
    label: Any = None
    """What the loss needs; the task's own."""
    origin: Any = None
    """What `join` needs to find the row's words or characters again; the task's own."""
    target: np.ndarray | None = None
    """What a teacher answers, in the order of the task's logits (`tasks.distill`)."""

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(len(ids) for ids in self.sequences)


class Collating(Protocol):
    """What makes batches of inputs."""

    def collate(self, inputs: Sequence[Encoded]) -> Batch:
        """Pack inputs, with what the loss needs if all have it."""
        ...


class Task(Trainable, Protocol):
    """What evaluation and prediction need beside that."""

    @property
    def name(self) -> str:
        """As in `finetune NAME`."""
        ...

    @property
    def primary_metric(self) -> str:
        """Name of the metric that decides which checkpoint is best; more is better."""
        ...

    @property
    def num_labels(self) -> int:
        """Outputs of the head, where that is a choice."""
        ...

    def read(self, path: Path, *, columns: str | None = None, labelled: bool = True) -> list[Any]:
        """The rows of a file. Raises `InputError`s with file, line and field."""
        ...

    def prepare(self, rows: Sequence[Any], tokenizer: TextTokenizer, *, labelled: bool = True) -> list[Encoded]:
        """The inputs of `rows`, in their order. Raises `InputError`s for rows that the task cannot take."""
        ...

    def collate(self, inputs: Sequence[Encoded]) -> Batch:
        """Pack inputs, with what the loss needs if all have it."""
        ...

    def outputs(self, model: Bert, batch: Batch) -> list[np.ndarray]:
        """One float32 array for each input of `batch`, in its order."""
        ...

    def join(self, row: Any, inputs: Sequence[Encoded], outputs: Sequence[np.ndarray]) -> Any:
        """The result of one row, from its inputs and their outputs."""
        ...

    def decode(self, row: Any, result: Any) -> Any:
        """What `predict` prints for the row; the shape of transformers' pipelines."""
        ...

    def judge(self, rows: Sequence[Any], results: Sequence[Any]) -> Judgement:
        """Metrics of labelled rows."""
        ...

    def fitted(self, options: Any, rows: Sequence[Any], results: Sequence[Any]) -> Task:
        """The task with what `options` asks to fit on dev rows (a temperature, thresholds); itself if nothing."""
        ...

    def manifest(self) -> dict[str, Any]:
        """What must be stored to build this task again (`tasks.known.task_from_manifest`)."""
        ...


def packed(inputs: Sequence[Encoded], labels: dict[str, Tensor]) -> Batch:
    """All sequences of `inputs` in one batch."""
    return Batch.from_sequences(
        [ids for encoded in inputs for ids in encoded.sequences],
        token_type_ids=[types for encoded in inputs for types in encoded.token_type_ids],
        labels=labels,
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last dimension, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))


def cross_entropy_term(logits: Tensor, labels: Tensor) -> LossTerm:
    """Summed cross entropy of `[items, classes]` against `[items]`; an empty batch gives zero."""
    return LossTerm(total=cross_entropy(logits, labels), is_right=logits.detach().argmax(-1) == labels)


def mean_losses(terms: Mapping[str, LossTerm], counts: Mapping[str, int]) -> Tensor:
    """The loss to differentiate: each term divided by its count over the step, added up."""
    parts = [term.total / counts[name] for name, term in terms.items() if counts[name]]
    return torch.stack(parts).sum()
