"""Labelled texts from files: rows with a text, or a pair, and a label, several labels, or a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsmith.config.finetune import Problem
from bertsmith.data.columns import kind_of
from bertsmith.data.text import Row, read_all_rows
from bertsmith.errors import ErrorCollector, InputError

Label = str | tuple[str, ...] | float

LARGEST_SCORE = 1e15
"""Its square, times many rows, is still a float32."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row. `label` is None where the file has no such column (for `predict`)."""

    file: Path
    line: int
    text: str
    pair: str | None
    label: Label | None

    @property
    def content(self) -> tuple[str, ...]:
        """What the model reads: equal for rows that are duplicates."""
        return (self.text, self.pair or "")


@dataclass(frozen=True)
class LabelFormat:
    """How the labels of a file are read."""

    problem: Problem = "auto"
    separator: str | None = None


def read_examples(
    path: Path, *, columns: str | None = None, labelled: bool = True, labels: LabelFormat | None = None
) -> list[Example]:
    """Rows with columns `text` (or `sentence`), or `text_a` and `text_b`, and `label` or `score`.

    A label is compared as text: 1, "1" and 1.0 of a JSON file are `1`, `1` and `1.0`. An empty label is an error; an
    empty set of labels is none. A `score`, and every label of a regression, is a finite number.
    Raises `InputError`s with file, line and field.
    """
    wanted = labels or LabelFormat()
    rows, has_score = _rows(path, columns, labelled=labelled, wanted=wanted)
    is_score = has_score or wanted.problem == "regression"
    examples, errors = [], ErrorCollector()
    for row in rows:
        text, pair = texts_of(row)
        label = None
        if labelled:
            try:
                label = _label(row, is_score=is_score, wanted=wanted)
            except InputError as error:
                errors.add(error)
        examples.append(Example(row.file, row.line, text, pair, label))
    errors.raise_if_any()
    _all_pairs_or_none(examples)
    if labelled:
        _one_kind(examples)
    return examples


def texts_of(row: Row) -> tuple[str, str | None]:
    """The text of a row and its pair. Raises `InputError` if there is no text, or half a pair."""
    values = row.values
    text, pair = values.get("text", values.get("text_a")), values.get("text_b")
    if text is None or ("text" not in values and pair is None):
        raise InputError(
            f"found {', '.join(values) or 'no known column'}; needed are `text`, or `text_a` and `text_b`; "
            "name the columns with --columns",
            file=row.file,
            line=1,
            field="text" if text is None else "text_b",
        )
    return text, pair


def _rows(path: Path, columns: str | None, *, labelled: bool, wanted: LabelFormat) -> tuple[list[Row], bool]:
    """The rows, with their label or score as `label`; and whether it is a score."""
    texts = ("text|sentence", "text_a", "text_b|pair")
    if not labelled:
        return read_all_rows(path, required=(), optional=(*texts, "label|labels", "score"), columns=columns), False
    try:
        return read_all_rows(path, required=("label|labels",), optional=texts, columns=columns), False
    except InputError as error:
        if wanted.problem not in ("auto", "regression") or wanted.separator is not None:
            raise
        try:
            rows = read_all_rows(path, required=("score",), optional=texts, columns=columns)
        except InputError as other:
            lines = other.lines()
            raise (
                other if any('"score": is' in line and "is missing" not in line for line in lines) else error
            ) from None
    return [Row(row.file, row.line, {**row.values, "label": row.values["score"]}) for row in rows], True


def _label(row: Row, *, is_score: bool, wanted: LabelFormat) -> Label:
    value = row.values["label"]
    place: dict[str, Any] = {"file": row.file, "line": row.line, "field": "score" if is_score else "label"}
    if is_score:
        return finite_number(value, place)
    if wanted.separator is not None and isinstance(value, str):
        value = [part for part in value.split(wanted.separator) if part.strip()]
    if isinstance(value, list) or wanted.problem == "multi":
        if wanted.problem == "single":
            raise InputError("is a list, and --problem is single; give one label", **place)
        parts: Sequence[Any] = value if isinstance(value, list) else [value]
        names = [_name(part, place) for part in parts]
        if len(set(names)) < len(names):
            raise InputError("has the same label twice", **place)
        return tuple(names)
    return _name(value, place)


def _name(value: Any, place: dict[str, Any]) -> str:
    if isinstance(value, list | dict | None):
        raise InputError(f"is {kind_of(value)}; a text or a number is needed", **place)
    name = str(value).strip()
    if not name:
        raise InputError("is empty", **place)
    return name


def finite_number(value: Any, place: dict[str, Any]) -> float:
    """A cell as a number that a model can learn. Raises `InputError` at `place`."""
    try:
        number = math.nan if isinstance(value, bool | list | dict) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    shown = str(value).strip()[:40]
    if not math.isfinite(number):
        raise InputError(f"{shown!r} is not a finite number", **place)
    if abs(number) > LARGEST_SCORE:
        raise InputError(f"{shown} is larger than a model can learn ({LARGEST_SCORE:g}); scale the scores", **place)
    return number


def _all_pairs_or_none(examples: Sequence[Example]) -> None:
    """Raise `InputError` if some rows have a second text and others have none."""
    odd = next((row for row in examples if (row.pair is None) != (examples[0].pair is None)), None)
    if odd is not None:
        message = "is missing, other rows have it" if odd.pair is None else "is there, the rows before have none"
        raise InputError(message, file=odd.file, line=odd.line, field="text_b")


def _one_kind(examples: Sequence[Example]) -> None:
    """Raise `InputError` if some rows have a list of labels and others a single one."""
    kinds = {type(example.label) for example in examples}
    if len(kinds) > 1:
        first = type(examples[0].label)
        other = next(example for example in examples if type(example.label) is not first)
        kind = "a list" if isinstance(other.label, tuple) else "a single label"
        raise InputError(
            f"has {kind}, the rows before have not; write all labels alike",
            file=other.file,
            line=other.line,
            field="label",
        )
