"""Running a task's model over many inputs: sorted by length, packed by token budget, answers in input order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from bertsmith.models.bert import Bert
from bertsmith.tasks.base import Encoded, Task

BATCH_TOKENS = 4096
"""Most tokens of a batch; a single longer input still makes a batch of its own."""


@torch.inference_mode()
def run(
    model: Bert,
    task: Task,
    inputs: Sequence[Encoded],
    *,
    batch_tokens: int = BATCH_TOKENS,
    batch_size: int | None = None,
) -> list[np.ndarray]:
    """One output per input, in the order of `inputs`. The model is in evaluation mode while it runs."""
    was_training = model.training
    model.eval()
    outputs: list[np.ndarray | None] = [None] * len(inputs)
    for group in token_groups([encoded.tokens for encoded in inputs], batch_tokens, most=batch_size):
        batch = task.collate([inputs[i] for i in group]).to(model.device)
        for i, output in zip(group, task.outputs(model, batch), strict=True):
            outputs[i] = output
    model.train(was_training)
    return [output for output in outputs if output is not None]


def results(
    model: Bert,
    task: Task,
    rows: Sequence[Any],
    inputs: Sequence[Encoded],
    *,
    batch_tokens: int = BATCH_TOKENS,
    batch_size: int | None = None,
) -> list[Any]:
    """One result per row, from all its inputs (`Task.join`)."""
    outputs = run(model, task, inputs, batch_tokens=batch_tokens, batch_size=batch_size)
    by_row: list[list[int]] = [[] for _ in rows]
    for i, encoded in enumerate(inputs):
        by_row[encoded.row].append(i)
    return [
        task.join(row, [inputs[i] for i in mine], [outputs[i] for i in mine])
        for row, mine in zip(rows, by_row, strict=True)
    ]


def token_groups(lengths: Sequence[int], budget: int, *, most: int | None = None) -> Iterator[list[int]]:
    """Indices by length, at most `budget` tokens and `most` in a group: `[5, 1, 4, 1], 6 -> [1, 3, 2], [0]`."""
    group: list[int] = []
    tokens = 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and (tokens + lengths[i] > budget or len(group) == most):
            yield group
            group, tokens = [], 0
        group.append(i)
        tokens += lengths[i]
    if group:
        yield group
