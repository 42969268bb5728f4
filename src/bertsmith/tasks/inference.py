"""Running a task's model over many inputs: sorted by length, packed by token budget, answers in input order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from bertsmith.models.bert import Bert
from bertsmith.runtime import FEW_TOKENS, threads_for
from bertsmith.tasks.base import Encoded, Task


def run(
    model: Bert,
    task: Task,
    inputs: Sequence[Encoded],
    *,
    batch_tokens: int | None = None,
    batch_size: int | None = None,
) -> list[np.ndarray]:
    """One output per input, in the order of `inputs`. The model is in evaluation mode while it runs."""
    was_training = model.training
    model.eval()
    outputs: list[np.ndarray | None] = [None] * len(inputs)

    def compute(group: list[int]) -> None:
        batch = task.collate([inputs[i] for i in group]).to(model.device)
        for i, output in zip(group, task.outputs(model, batch), strict=True):
            outputs[i] = output

    lengths = [encoded.tokens for encoded in inputs]
    most = batch_tokens or model.encoder.batch_tokens
    each_group(compute, lengths, batch_tokens=most, batch_size=batch_size, device=model.device)
    model.train(was_training)
    return [output for output in outputs if output is not None]


def each_group(
    compute: Callable[[list[int]], None],
    lengths: Sequence[int],
    *,
    batch_tokens: int,
    batch_size: int | None = None,
    device: torch.device,
) -> None:
    """Call `compute` with the indices of each group of `token_groups`, without gradients.

    On a CPU as many groups at a time as torch has threads, each on one of them: no core waits for another after each
    product. A single text that is not short has all threads.
    """
    quiet = torch.inference_mode()(compute)
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    total = sum(lengths)
    if threads > 1 and total > FEW_TOKENS:
        rounds = -(-total // (threads * batch_tokens))
        batch_tokens = -(-total // (threads * rounds))  # as many batches for one thread as for another, of one size
    groups = list(token_groups(lengths, batch_tokens, most=batch_size))
    if len(groups) < threads or threads == 1:
        with threads_for(total, device):
            for group in groups:
                quiet(group)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(quiet, reversed(groups)):  # the long ones first: the last to end is a short one
                pass
    finally:
        torch.set_num_threads(threads)  # threads made from now on ask for the number that was set last


def results(
    model: Bert,
    task: Task,
    rows: Sequence[Any],
    inputs: Sequence[Encoded],
    *,
    batch_tokens: int | None = None,
    batch_size: int | None = None,
) -> list[Any]:
    """One result per row, from all its inputs (`Task.join`)."""
    return joined_results(
        task, rows, inputs, run(model, task, inputs, batch_tokens=batch_tokens, batch_size=batch_size)
    )


def joined_results(
    task: Task, rows: Sequence[Any], inputs: Sequence[Encoded], outputs: Sequence[np.ndarray]
) -> list[Any]:
    """One result per row, from the outputs of its inputs."""
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
