"""The tasks of `finetune`, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from bertsmith.bundle import Bundle
from bertsmith.config.encoder import EncoderConfig
from bertsmith.config.finetune import (
    ChoiceOptions,
    ClassifyOptions,
    EmbedderOptions,
    FinetuneOptions,
    QaOptions,
    RerankerOptions,
    TagOptions,
)
from bertsmith.data.choices import read_choices
from bertsmith.data.examples import LabelFormat, read_examples
from bertsmith.data.questions import read_questions
from bertsmith.data.similar import COSINES, SHARES, parse_score_range, read_relevance, read_similar
from bertsmith.data.tagged import read_tagged
from bertsmith.errors import InputError
from bertsmith.models.sentence import SentenceModules
from bertsmith.tasks.base import Encoded, Task
from bertsmith.tasks.choice import ChoiceTask
from bertsmith.tasks.classify import ClassifyTask
from bertsmith.tasks.embed import EmbedTask
from bertsmith.tasks.embedding import sentence_limit
from bertsmith.tasks.qa import QaTask
from bertsmith.tasks.rerank import RerankTask
from bertsmith.tasks.tag import TagTask

TASKS: dict[str, Any] = {task.name: task for task in (ClassifyTask, TagTask, QaTask, ChoiceTask, EmbedTask, RerankTask)}
"""Name -> class."""


def task_from_manifest(stored: dict[str, Any], *, path: Path | None = None) -> Task:
    """The task that a model directory was trained for. Raises `InputError` if it is none of these, or damaged."""
    kind = TASKS.get(stored.get("name") or "")
    if kind is None:
        raise InputError(f"its task is {stored.get('name')!r}; expected one of: {', '.join(TASKS)}", file=path)
    names = {field.name for field in fields(kind)}
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in stored.items() if key in names
    }
    try:
        task: Task = kind(**values)
    except TypeError as error:
        raise InputError(f"its task is not whole: {error}", file=path) from None
    return task


def task_of(bundle: Bundle) -> Task:
    """The task that a loaded model was trained for; of an embedder with what its sentence-transformers files say."""
    is_embedder = bundle.task["name"] == EmbedTask.name
    limit = {"max_length": sentence_limit(bundle)} if is_embedder else {}  # others' directories have no manifest
    task = task_from_manifest(limit | bundle.task, path=bundle.path)
    if isinstance(task, EmbedTask):
        if bundle.sentence_problem is not None:
            raise bundle.sentence_problem
        # as it does with the texts of `embed`, and sentence-transformers with all
        task = replace(task, modules=bundle.sentence or SentenceModules(), long_docs="truncate")
    return task


def read_training(options: FinetuneOptions) -> list[Any]:
    """The rows of `--train`, as the task of the options reads them."""
    if isinstance(options, ClassifyOptions):
        labels = LabelFormat(options.problem, options.separator)
        return list(read_examples(options.train, columns=options.columns, labels=labels))
    if isinstance(options, TagOptions):
        return list(read_tagged(options.train, columns=options.columns))
    if isinstance(options, QaOptions):
        return list(read_questions(options.train, columns=options.columns))
    if isinstance(options, EmbedderOptions):
        score_range = parse_score_range(options.score_range, default=COSINES)
        return list(read_similar(options.train, columns=options.columns, score_range=score_range))
    if isinstance(options, RerankerOptions):
        score_range = parse_score_range(options.score_range, default=SHARES)
        return list(read_relevance(options.train, columns=options.columns, score_range=score_range))
    return list(read_choices(options.train, columns=options.columns))


def task_from_rows(
    options: FinetuneOptions, rows: Sequence[Any], *, max_length: int, start: Bundle | None = None
) -> Task:
    """The task that options and training rows define; an embedder's also has what its `start` does with vectors. A
    `start` for the same labels gives their order, so that its head goes on."""
    task: Task
    if isinstance(options, ClassifyOptions):
        task = ClassifyTask.from_rows(options, rows, max_length=max_length)
    elif isinstance(options, TagOptions):
        task = TagTask.from_rows(options, rows, max_length=max_length)
    elif isinstance(options, QaOptions):
        task = QaTask.from_rows(options, rows, max_length=max_length)
    elif isinstance(options, ChoiceOptions):
        task = ChoiceTask.from_rows(options, rows, max_length=max_length)
    elif isinstance(options, RerankerOptions):
        task = RerankTask.from_rows(options, rows, max_length=max_length)
    elif isinstance(options, EmbedderOptions) and start is not None:
        if start.sentence_problem is not None:
            raise start.sentence_problem
        modules, hidden_size = start.sentence or SentenceModules(), start.model.config.hidden_size
        task = EmbedTask.from_rows(options, rows, max_length=max_length, modules=modules, hidden_size=hidden_size)
    else:
        raise TypeError(f"no task has {type(options).__name__}")
    if isinstance(task, ClassifyTask | TagTask) and start is not None and start.task["name"] == task.name:
        labels = tuple(start.task.get("labels", ()))
        is_same_problem = start.task.get("problem", "single") == getattr(task, "problem", "single")
        if is_same_problem and sorted(labels) == sorted(task.labels):
            return in_order(task, labels)
    return task


def in_order(task: ClassifyTask | TagTask, labels: tuple[str, ...]) -> ClassifyTask | TagTask:
    """The task with its labels, and what belongs to each, in this order."""
    order = [task.labels.index(label) for label in labels]
    by_label = [name for name in ("class_weights", "thresholds") if getattr(task, name, ())]
    moved: dict[str, Any] = {name: tuple(getattr(task, name)[i] for i in order) for name in by_label}
    return replace(task, labels=labels, **moved)


def check_segments(rows: Sequence[Any], inputs: Sequence[Encoded], config: EncoderConfig) -> None:
    """Raise `InputError` for a row with a pair of texts that the model has no second segment for."""
    if config.type_vocab_size - config.token_type_offset == 1:
        for encoded in inputs:
            if any(types.any() for types in encoded.token_type_ids):
                row = rows[encoded.row]
                raise InputError(
                    "the model has one segment and cannot read pairs", file=row.file, line=row.line, field="text_b"
                )
