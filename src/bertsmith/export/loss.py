"""What an int8 graph loses: on labelled rows the drop of the primary metric, on texts the mean of 1 - cosine.

Above the limit the layers that hurt most become float32 again, a few at a time; if that is not enough, the export is
refused and names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsmith.bundle import Bundle
from bertsmith.data.similar import SimilarityExample
from bertsmith.data.text import read_all_rows
from bertsmith.engines.swap import PARTS, largest_columns
from bertsmith.errors import InputError
from bertsmith.export.answers import EncoderGraph
from bertsmith.export.engine import OnnxModel
from bertsmith.export.int8 import to_int8
from bertsmith.metrics.judgement import counts_errors
from bertsmith.tasks.base import Task
from bertsmith.tasks.embed import EmbedTask
from bertsmith.tasks.inference import each_group, joined_results
from bertsmith.tasks.known import TASKS, task_of

PROBED = 32
"""Texts on which each layer's own loss is measured."""

FEW = 100
"""Rows below which the loss is little evidence."""

MOST_KEPT = 0.5
"""Largest share of the layers that may stay float32."""

Answers = Callable[[Any], list[np.ndarray]]
"""A packed batch -> one array for each of its inputs."""


@dataclass(frozen=True)
class Loss:
    """The loss of a graph, and how it was measured."""

    value: float
    metric: str
    """Its name: a metric of the task, of which this is the drop, or "1 - cosine"."""
    texts: int
    kept: tuple[str, ...] = ()
    """Layers that stay float32."""

    def described(self, limit: float) -> dict[str, Any]:
        """What the manifest and the printed figures say."""
        return {
            "loss": self.value,
            "of": self.metric,
            "texts": self.texts,
            "max_loss": limit,
            "float32": list(self.kept),
        }


class Measure:
    """Rows, what the model in float32 says of them, and how far other answers are from that."""

    def __init__(self, bundle: Bundle, data: Path, *, columns: str | None) -> None:
        """Raises `InputError` for rows that cannot be read, and a model that has no task."""
        if bundle.task["name"] not in TASKS:
            raise InputError(
                "the loss of int8 is measured for a task or for vectors; this model has neither",
                file=bundle.path,
                field="--int8",
            )
        self.task: Task = task_of(bundle)
        self.bundle = bundle
        self.rows, self.is_labelled = read_rows_of(self.task, data, columns=columns)
        self.inputs = self.task.prepare(self.rows, bundle.tokenizer, labelled=self.is_labelled)
        self.exact = self.answers(lambda batch: self.task.outputs(bundle.model, batch), range(len(self.inputs)))

    def answers(self, compute: Answers, places: Iterable[int]) -> list[np.ndarray]:
        """The outputs of some inputs, in their order."""
        chosen = [self.inputs[i] for i in places]
        found: list[Any] = [None] * len(chosen)

        def one(group: list[int]) -> None:
            batch = self.task.collate([chosen[i] for i in group])
            for i, output in zip(group, compute(batch), strict=True):
                found[i] = output

        model = self.bundle.model
        lengths = [part.tokens for part in chosen]
        each_group(one, lengths, batch_tokens=model.encoder.batch_tokens, device=model.device)
        return found

    def loss(self, compute: Answers) -> Loss:
        """Of all rows."""
        found = self.answers(compute, range(len(self.inputs)))
        if not self.is_labelled:
            return Loss(distance(self.exact, found), "1 - cosine", len(self.rows))
        metric = self.task.primary_metric
        exact, rounded = (
            self.task.judge(self.rows, joined_results(self.task, self.rows, self.inputs, outputs)).metrics[metric]
            for outputs in (self.exact, found)
        )
        drop = rounded - exact if counts_errors(metric) else exact - rounded
        return Loss(float(drop), metric, len(self.rows))


def read_rows_of(task: Task, data: Path, *, columns: str | None) -> tuple[list[Any], bool]:
    """The rows of a file, and whether they can be judged: labelled ones if it has labels, else texts alone."""
    try:
        return task.read(data, columns=columns, labelled=True), True
    except InputError as error:
        if isinstance(task, EmbedTask):
            rows = read_all_rows(data, required=("text|sentence",), columns=columns)
            return [SimilarityExample(row.file, row.line, "texts", (row.values["text"],)) for row in rows], False
        try:
            return task.read(data, columns=columns, labelled=False), False
        except InputError:
            raise error from None


def distance(exact: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    """Mean of 1 - cosine; of outputs of one number the mean difference."""
    apart = []
    for one, other in zip(exact, found, strict=True):
        a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
        scale = float(np.linalg.norm(a) * np.linalg.norm(b))
        apart.append(float(np.abs(a - b).mean()) if a.size == 1 else 1 - float(a @ b) / max(scale, 1e-30))
    return float(np.mean(apart))


def quantised(
    graph: Any, model: EncoderGraph, measure: Measure, *, described: dict[str, Any], max_loss: float, threads: int
) -> tuple[Any, Loss]:
    """The int8 graph of a float32 one, and what it loses. Raises `InputError` naming the layers that hurt if it is more
    than `max_loss`."""
    encoder = model.model.encoder
    probe = measure.task.collate(measure.inputs[:PROBED])
    columns = {name: places.numpy() for name, places in largest_columns(encoder, probe).items()}
    layers = ["embeddings", *(f"blocks.{i}.{part}" for i in range(len(encoder.blocks)) for part in PARTS)]

    def attempt(keep: Sequence[str]) -> tuple[Any, Loss]:
        found = to_int8(graph, columns, keep=keep)
        loss = measure.loss(OnnxModel.of(found.SerializeToString(), described, threads=threads).outputs)
        return found, Loss(loss.value, loss.metric, loss.texts, tuple(keep))

    found, loss = attempt(())
    if loss.value <= max_loss:
        return found, loss
    some = range(min(PROBED, len(measure.inputs)))
    expected = [measure.exact[i] for i in some]
    alone = {}
    for layer in layers:
        others = [name for name in layers if name != layer]
        rounded = OnnxModel.of(
            to_int8(graph, columns, keep=others).SerializeToString(), described, threads=threads
        ).outputs
        alone[layer] = distance(expected, measure.answers(rounded, some))
    worst = sorted(layers, key=lambda layer: alone[layer], reverse=True)
    count = 1
    while count <= MOST_KEPT * len(layers):
        found, kept = attempt(worst[:count])
        if kept.value <= max_loss:
            return found, kept
        count *= 2
    hurting = ", ".join(f"{layer} ({alone[layer]:.2g})" for layer in worst[:5])
    raise InputError(
        f"int8 loses {loss.value:.4g} of {loss.metric} on {loss.texts} rows, the limit is {max_loss:g}, and with half "
        f"of the layers in float32 still too much; the layers that hurt, by 1 - cosine of each alone: {hurting}. "
        "Give a higher --max-loss, or leave --int8 out",
        field="--int8",
    )
