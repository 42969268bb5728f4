"""The teacher of a distillation: a fine-tuned model of the same task, and its answers to the rows of the student.

The teacher reads each row once, as it reads any text: with its own tokenizer, length and prompts. Its answers belong to
rows and words, so that the two may cut texts into different pieces; of questions alone to the tokens of windows, which
both must cut alike. Not here: what is learnt from the answers (`tasks.distill`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bertsmith.bundle import Bundle, load_bundle, resolve
from bertsmith.config.finetune import FinetuneOptions
from bertsmith.errors import InputError, listing
from bertsmith.tasks.base import Encoded, Task
from bertsmith.tasks.choice import ChoiceTask
from bertsmith.tasks.classify import ClassifyTask
from bertsmith.tasks.embed import EmbedTask
from bertsmith.tasks.inference import results, run
from bertsmith.tasks.known import TASKS, check_segments, in_order, task_of
from bertsmith.tasks.qa import QaTask
from bertsmith.tasks.rerank import RerankTask, probability
from bertsmith.tasks.similarity import unit
from bertsmith.tasks.tag import TagTask, first_pieces
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

SETTINGS = ("truncation", "padding")
"""Parts of a tokenizer's file that do not concern us: we neither pad nor truncate."""


@dataclass(frozen=True)
class Teacher:
    """A model that can teach."""

    bundle: Bundle
    task: Task

    def prepared(self, rows: Sequence[Any], *, student: Task) -> list[Encoded]:
        """The inputs of rows as the teacher reads them; where the student cuts long texts, the teacher does too."""
        task = self.task
        if isinstance(task, ClassifyTask | RerankTask | ChoiceTask) and task.long_docs == "error":
            task = replace(task, long_docs=student.long_docs)  # type: ignore[attr-defined]  # of the same class
        inputs = task.prepare(rows, self.bundle.tokenizer, labelled=False)
        check_segments(rows, inputs, self.bundle.model.config)
        return inputs

    def results(self, rows: Sequence[Any], *, student: Task) -> list[Any]:
        """One result a row (`Task.join`)."""
        return results(self.bundle.model, self.task, rows, self.prepared(rows, student=student))


@dataclass(frozen=True, eq=False)
class Answers:
    """What a teacher answers to rows, end to end."""

    values: np.ndarray
    """`[items, …]`, float32: logits of rows (classify, rerank), words (tag), choices or tokens (qa), or vectors of
    texts (embed)."""
    sizes: np.ndarray
    """`[rows]`: how many items each has."""

    def of_rows(self) -> list[np.ndarray]:
        """The items of each row."""
        return np.split(self.values, np.cumsum(self.sizes)[:-1])


def open_teacher(model: str, *, task: str) -> Teacher:
    """The teacher in a directory. Raises `InputError` if there is none, or none for `task`."""
    bundle = load_bundle(resolve(model))
    if bundle.task["name"] != task:
        is_for = f"is for {bundle.task['name']}" if bundle.task["name"] in TASKS else f"has no head for {task}"
        fix = f"a teacher must be fine-tuned for {task}, as its student is"
        raise InputError(f"{is_for}; {fix}", file=bundle.path, field="--teacher")
    return Teacher(bundle, task_of(bundle))


def taught(task: Task, teacher: Teacher, tokenizer: TextTokenizer, options: FinetuneOptions) -> Task:
    """The student's task, with labels in the teacher's order. Raises `InputError` where teacher and rows do not fit."""
    place: dict[str, Any] = {"file": teacher.bundle.path, "field": "--teacher"}
    theirs = teacher.task
    is_number = isinstance(task, RerankTask) or (isinstance(task, ClassifyTask) and task.problem == "regression")
    is_given = options.teacher_temperature != type(options).model_fields["teacher_temperature"].default
    if is_given and (is_number or isinstance(task, EmbedTask)):
        what = "numbers" if is_number else "vectors"
        raise InputError(f"is for probabilities; of {task.name} {what} are compared", field="--teacher-temperature")
    if isinstance(task, QaTask):
        if not cut_alike(teacher.bundle.tokenizer, tokenizer):
            raise InputError("has another tokenizer than the student; of qa both must cut texts alike", **place)
        if (most := teacher.bundle.model.config.max_position_embeddings) < task.max_length:
            raise InputError(f"reads {most} tokens, the student {task.max_length}; lower --max-length", **place)
    if isinstance(task, ClassifyTask) and isinstance(theirs, ClassifyTask) and task.problem != theirs.problem:
        raise InputError(f"its problem is {theirs.problem}, that of the rows is {task.problem}", **place)
    if isinstance(task, TagTask | ClassifyTask) and not is_number:
        labels: tuple[str, ...] = theirs.labels  # type: ignore[attr-defined]  # a task of the same name
        if set(labels) != set(task.labels):
            raise InputError(f"answers with {listing(labels)}; the rows have {listing(task.labels)}", **place)
        return in_order(task, labels)
    return task


def cut_alike(one: TextTokenizer, other: TextTokenizer) -> bool:
    """Whether two tokenizers are the same but for how they were saved."""
    contents = (json.loads(tokenizer.content) for tokenizer in (one, other))
    ours, theirs = ({k: v for k, v in content.items() if k not in SETTINGS} for content in contents)
    return ours == theirs


def answers_to(teacher: Teacher, task: Task, rows: Sequence[Any], inputs: Sequence[Encoded]) -> Answers:
    """What the teacher answers to `rows`, whose inputs for the student are `inputs`."""
    found: list[np.ndarray] = []
    if isinstance(task, QaTask):
        check_segments(rows, inputs, teacher.bundle.model.config)
        of_rows: list[list[np.ndarray]] = [[] for _ in rows]
        for encoded, output in zip(inputs, run(teacher.bundle.model, task, inputs), strict=True):
            of_rows[encoded.row].append(output)
        found = [np.concatenate(outputs) for outputs in of_rows]
    else:
        for result in teacher.results(rows, student=task):
            if isinstance(task, TagTask):
                found.append(result.logits[result.starts])
            else:
                found.append(result[None] if isinstance(task, ClassifyTask | RerankTask) else result)
    return Answers(np.concatenate(found).astype(np.float32), np.array([len(items) for items in found]))


def with_targets(task: Task, inputs: Sequence[Encoded], answers: Answers) -> list[Encoded]:
    """The student's inputs with what the teacher answers to each; its best answer is the label where there is none."""
    of_rows = answers.of_rows()
    used = [0] * len(of_rows)
    found = []
    for encoded in inputs:
        target = of_rows[encoded.row]
        if isinstance(task, QaTask):  # the row's windows follow each other
            start = used[encoded.row]
            used[encoded.row] += encoded.tokens
            target = target[start : start + encoded.tokens]
        elif isinstance(task, TagTask):
            target = target[encoded.origin[first_pieces(encoded.origin)]]
        elif isinstance(task, EmbedTask):  # a text that stands alone comes twice
            target = np.tile(target, (len(encoded.sequences) // len(target), 1))
        label = best_answer(task, encoded, target) if encoded.label is None else encoded.label
        found.append(replace(encoded, target=target, label=label))
    return found


def best_answer(task: Task, encoded: Encoded, target: np.ndarray) -> Any:
    """The label of an input that a teacher's answer to it amounts to; None of an embedder, whose rows need none."""
    if isinstance(task, QaTask):
        return tuple(target.argmax(0).tolist())
    if isinstance(task, TagTask):
        labels = np.full(encoded.tokens, -1)
        labels[first_pieces(encoded.origin)] = target.argmax(1)
        return labels
    if isinstance(task, ChoiceTask):
        return int(target.argmax())
    if isinstance(task, RerankTask):
        return float(probability(target)[0, 0])
    if isinstance(task, ClassifyTask):
        if task.problem == "regression":
            return float(target[0, 0])
        return int(target.argmax()) if task.problem == "single" else (target[0] > 0).astype(np.float32)
    return None


def resized(vectors: np.ndarray, size: int) -> np.ndarray:
    """`[texts, any]` -> `[texts, size]`, with the cosines between texts as nearly the same as can be.

    Longer vectors are turned so that their first numbers hold the most, and cut (the best that any linear map can do:
    Eckart and Young 1936); shorter ones get zeros.
    """
    directed = unit(vectors)
    if vectors.shape[1] > size:
        _, directions = np.linalg.eigh(directed.T @ directed)
        directed = directed @ directions[:, ::-1][:, :size]
    return np.pad(directed, ((0, 0), (0, size - directed.shape[1]))).astype(np.float32)
