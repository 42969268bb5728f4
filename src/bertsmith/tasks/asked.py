"""A row of a task from what a caller gave in so many words, rather than from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bertsmith.data.choices import ChoiceExample
from bertsmith.data.examples import Example
from bertsmith.data.questions import Question
from bertsmith.data.similar import SimilarityExample
from bertsmith.errors import InputError
from bertsmith.tasks.base import Task
from bertsmith.tasks.classify import ClassifyTask
from bertsmith.tasks.embed import EmbedTask
from bertsmith.tasks.rerank import RerankTask
from bertsmith.tasks.tag import TagTask

PAIRED = ("classify", "embed", "rerank")
"""Tasks that take a pair of texts."""


def asked_row(
    task: Task,
    text: str,
    *,
    pair: str | None,
    question: str | None,
    choices: tuple[str, ...] | None,
    file: Path,
    line: int,
) -> Any:
    """A row without a label. Raises `InputError` for what the task has no use for, or lacks."""
    given = {"pair": pair, "question": question, "choices": choices}
    needed = {"qa": "question", "choice": "choices"}.get(task.name)
    for name, value in given.items():
        if value is not None and name != needed and not (name == "pair" and task.name in PAIRED):
            raise InputError(f"a model for {task.name} has no use for it", field=f"--{name}")
    if isinstance(task, TagTask):
        return task.row_of(text, file=file, line=line)
    if isinstance(task, EmbedTask):
        texts = (text,) if pair is None else (text, pair)
        return SimilarityExample(file, line, "texts" if pair is None else "scores", texts)
    if isinstance(task, RerankTask) and pair is None:
        raise InputError("a model for rerank needs it: how relevant is it to --text?", field="--pair")
    if isinstance(task, ClassifyTask) and task.pairs not in (None, pair is not None):
        fix = "needs it" if task.pairs else "has no use for it"
        raise InputError(f"a model for {'pairs of' if task.pairs else 'single'} texts {fix}", field="--pair")
    if isinstance(task, ClassifyTask | RerankTask):
        return Example(file, line, text, pair, None)
    if needed is not None and given[needed] is None:
        raise InputError(f"a model for {task.name} needs it", field=f"--{needed}")
    if task.name == "qa":
        if not text.strip() or not (question or "").strip():
            raise InputError("is empty", file=file, line=line, field="question" if text.strip() else "context")
        return Question(file, line, question or "", text, None)
    if len(choices or ()) < 2 or not all(choice.strip() for choice in choices or ()):
        raise InputError("at least two are needed, and none may be empty", field="--choices")
    return ChoiceExample(file, line, text, choices or (), None)
