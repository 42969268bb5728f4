"""The tasks of `finetune`, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from bertsmith.config.encoder import EncoderConfig
from bertsmith.config.finetune import ChoiceOptions, ClassifyOptions, FinetuneOptions, QaOptions, TagOptions
from bertsmith.data.choices import read_choices
from bertsmith.data.examples import LabelFormat, read_examples
from bertsmith.data.questions import read_questions
from bertsmith.data.tagged import read_tagged
from bertsmith.errors import InputError
from bertsmith.tasks.base import Encoded, Task
from bertsmith.tasks.choice import ChoiceTask
from bertsmith.tasks.classify import ClassifyTask
from bertsmith.tasks.qa import QaTask
from bertsmith.tasks.tag import TagTask

TASKS: dict[str, Any] = {task.name: task for task in (ClassifyTask, TagTask, QaTask, ChoiceTask)}
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


def read_training(options: FinetuneOptions) -> list[Any]:
    """The rows of `--train`, as the task of the options reads them."""
    if isinstance(options, ClassifyOptions):
        labels = LabelFormat(options.problem, options.separator)
        return list(read_examples(options.train, columns=options.columns, labels=labels))
    if isinstance(options, TagOptions):
        return list(read_tagged(options.train, columns=options.columns))
    if isinstance(options, QaOptions):
        return list(read_questions(options.train, columns=options.columns))
    return list(read_choices(options.train, columns=options.columns))


def task_from_rows(options: FinetuneOptions, rows: Sequence[Any], *, max_length: int) -> Task:
    """The task that options and training rows define."""
    task: Task
    if isinstance(options, ClassifyOptions):
        task = ClassifyTask.from_rows(options, rows, max_length=max_length)
    elif isinstance(options, TagOptions):
        task = TagTask.from_rows(options, rows, max_length=max_length)
    elif isinstance(options, QaOptions):
        task = QaTask.from_rows(options, rows, max_length=max_length)
    elif isinstance(options, ChoiceOptions):
        task = ChoiceTask.from_rows(options, rows, max_length=max_length)
    else:
        raise TypeError(f"no task has {type(options).__name__}")
    return task


def check_segments(rows: Sequence[Any], inputs: Sequence[Encoded], config: EncoderConfig) -> None:
    """Raise `InputError` for a row with a pair of texts that the model has no second segment for."""
    if config.type_vocab_size - config.token_type_offset == 1:
        for encoded in inputs:
            if any(types.any() for types in encoded.token_type_ids):
                row = rows[encoded.row]
                raise InputError(
                    "the model has one segment and cannot read pairs", file=row.file, line=row.line, field="text_b"
                )
