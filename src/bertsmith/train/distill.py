"""What a fine-tuning with a teacher does beside the training: the teacher's answers, once, and at the end the table of
size, speed and quality.

    OUT/train/teacher/     its answers while the run lasts: a run that is resumed learns from the very same ones
    OUT/train/report.md    the table

Not here: the answers themselves (`tasks.teacher`), the loss (`tasks.distill`).
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from bertsmith.bundle import Bundle
from bertsmith.errors import InputError
from bertsmith.files import new_directory, read_manifest, write_file, write_manifest
from bertsmith.interop.weights import weights_file
from bertsmith.models.bert import Bert
from bertsmith.runtime import synchronize
from bertsmith.tasks.base import Encoded, Task
from bertsmith.tasks.embed import EmbedTask
from bertsmith.tasks.inference import results
from bertsmith.tasks.teacher import Answers, Teacher, answers_to, resized
from bertsmith.tokenizer.text_tokenizer import TextTokenizer
from bertsmith.train.distributed import Ranks

log = logging.getLogger("bertsmith")

ANSWERS = "teacher"
"""Folder of the answers in a training directory."""

TURNS, TURN_SECONDS, MOST_UNLABELLED = 3, 4.0, 256
"""How often teacher and student are timed in turns, for about how long at most, and on how many training rows if there
are no dev rows."""


def known_answers(train: Path, *, rows: int) -> Answers | None:
    """What `store_answers` left in a training directory; None, with a warning if it is damaged, to ask anew."""
    path = train / ANSWERS
    if not path.exists():
        return None
    try:
        read_manifest(path, kind="answers")
    except InputError as error:
        log.warning("%s; the teacher is asked again", error)
        return None
    found = load_file(path / "answers.safetensors")
    answers = Answers(found["values"].numpy(), found["sizes"].numpy())
    return answers if len(answers.sizes) == rows else None


def store_answers(train: Path, answers: Answers) -> None:
    """Keep the answers in a training directory while its run lasts."""
    with new_directory(train / ANSWERS, overwrite=True) as directory:
        tensors = {"values": torch.from_numpy(answers.values), "sizes": torch.from_numpy(answers.sizes)}
        write_file(directory / "answers.safetensors", save(tensors))
        write_manifest(directory, {}, kind="answers")


def ask(
    teacher: Teacher, task: Task, rows: Sequence[Any], inputs: Sequence[Encoded], *, student: Bundle, ranks: Ranks
) -> Answers:
    """The teacher's answers to all rows, of which each rank computes a share; vectors in the size of the student's."""
    started = time.perf_counter()
    shares = ranks.world_size if len(rows) >= ranks.world_size else 1
    mine = np.array_split(np.arange(len(rows)), shares)[ranks.rank if shares > 1 else 0]
    start, end = int(mine[0]), int(mine[-1]) + 1
    own = [replace(encoded, row=encoded.row - start) for encoded in inputs if start <= encoded.row < end]
    teacher.bundle.model.to(ranks.device)
    answers = answers_to(teacher, task, rows[start:end], own)
    teacher.bundle.model.cpu()
    if shares > 1:
        values, sizes = (
            torch.cat(ranks.gather_rows(torch.from_numpy(part))).numpy() for part in (answers.values, answers.sizes)
        )
        answers = Answers(values, sizes)
    if isinstance(task, EmbedTask):
        size = task.modules.size(student.model.config.hidden_size)
        if size != answers.values.shape[1]:
            log.info("the teacher's vectors of %d numbers are given as %d", answers.values.shape[1], size)
            answers = Answers(resized(answers.values, size), answers.sizes)
    log.info("%s has answered %d rows in %.1f s", teacher.bundle.path, len(rows), time.perf_counter() - started)
    return answers


def comparison(
    teacher: Teacher,
    model: Bert,
    task: Task,
    tokenizer: TextTokenizer,
    *,
    rows: Sequence[Any],
    quality: float | None,
) -> dict[str, Any]:
    """Teacher and student side by side: layers, parameters, bytes of the weights, rows a second from text to answer
    (median of `TURNS`, taken in turns, in this process), and the primary metric of `rows`.

    `quality` is the student's; None for rows of the training, of which some are timed and none is judged.
    """
    judged, metric = quality is not None, task.primary_metric
    rows = rows if judged else rows[:MOST_UNLABELLED]
    sides: dict[str, Callable[[Sequence[Any]], list[Any]]] = {
        "teacher": partial(teacher.results, student=task),
        "student": lambda part: results(model, task, part, task.prepare(part, tokenizer, labelled=False)),
    }
    teacher.bundle.model.to(model.device)
    started = time.perf_counter()
    answers = sides["teacher"](rows)
    share = TURN_SECONDS / (time.perf_counter() - started)
    sides["student"](rows[:1])
    timed = [rows[i] for i in np.linspace(0, len(rows) - 1, max(1, min(len(rows), int(share * len(rows))))).astype(int)]
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(TURNS):
        for name, answer in sides.items():
            before = time.perf_counter()
            answer(timed)
            synchronize(model.device)
            seconds[name].append(time.perf_counter() - before)
    teacher.bundle.model.cpu()
    found: dict[str, Any] = {
        "metric": metric if judged else None,
        "rows": len(rows),
        "rows_timed": len(timed),
        "threads": torch.get_num_threads(),
        "device": str(model.device),
    }
    for name, network in (("teacher", teacher.bundle.model), ("student", model)):
        found[name] = {
            "layers": network.config.num_hidden_layers,
            "parameters": network.num_parameters,
            "bytes": bytes_of(teacher.bundle.path) if name == "teacher" else 4 * network.num_parameters,
            "rows_per_second": len(timed) / statistics.median(seconds[name]),
        }
    if judged:
        found["teacher"][metric] = teacher.task.judge(rows, answers).metrics.get(metric)
        found["student"][metric] = quality
    return found


def bytes_of(directory: Path) -> int:
    """Size of a model directory's weights, of all shards."""
    file = weights_file(directory)
    return sum(path.stat().st_size for path in directory.glob("*.bin" if ".bin" in file.name else "*.safetensors"))


def to_markdown(found: dict[str, Any]) -> str:
    """`comparison` as a table, and how it was measured."""
    metric = found["metric"]
    columns = {"layers": ",", "parameters": ",", "bytes": ",", "rows_per_second": ",.1f"}
    columns |= {metric: ".4f"} if metric else {}
    lines = [["", *(name.replace("_", " ") for name in columns)], ["---"] + ["---:"] * len(columns)]
    for name in ("teacher", "student"):
        lines.append([name, *(_cell(found[name][key], form) for key, form in columns.items())])
    ratios = [_ratio(found["student"][key], found["teacher"][key]) for key in columns]
    lines.append(["student / teacher", *(_cell(ratio, ".3g") for ratio in ratios)])
    table = ["| " + " | ".join(cells) + " |" for cells in lines]
    judged = f"{metric} on {found['rows']:,} dev rows; " if metric else ""
    threads = f"{found['threads']} thread{'s' if found['threads'] > 1 else ''}"
    where = threads if found["device"] == "cpu" else found["device"]
    how = f"{judged}speed from text to answer on {found['rows_timed']:,} rows, in turns, {where}"
    return "\n".join([*table, "", how])


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or not theirs else ours / theirs


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
