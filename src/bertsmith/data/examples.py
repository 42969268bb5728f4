"""Labelled texts from files: rows with a text, or a pair, and a label, several labels, or a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertsmith.config.finetune import Problem
from bertsmith.data.columns import FLAG, kind_of
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
    if labelled:
        _refuse_one_hot(rows)
    if rows and all(map(_lacks_text, rows)):
        texts_of(replace(rows[0], line=1))  # raises, about the header
    for row in rows:
        try:
            text, pair = texts_of(row)
            label = _label(row, is_score=is_score, wanted=wanted) if labelled else None
        except InputError as error:
            errors.add(error)
            continue
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
    if text is None or _lacks_text(row):
        raise InputError(
            f"found {', '.join(values) or 'no known column'}; needed are `text`, or `text_a` and `text_b`; "
            "name the columns with --columns",
            file=row.file,
            line=row.line,
            field="text" if text is None else "text_b",
        )
    return text, pair


def _lacks_text(row: Row) -> bool:
    return "text" not in row.values and not {"text_a", "text_b"} <= row.values.keys()


def _rows(path: Path, columns: str | None, *, labelled: bool, wanted: LabelFormat) -> tuple[list[Row], bool]:
    """The rows, with their label or score as `label`; and whether it is a score."""
    texts = ("text|sentence", "text_a", "text_b|pair")
    if not labelled:
        return read_all_rows(path, required=(), optional=(*texts, "label|labels", "score"), columns=columns), False
    names = ["label|labels", "score"] if wanted.problem in ("auto", "regression") and wanted.separator is None else []
    if wanted.problem == "regression":
        names.reverse()
    problems = []
    for name in names or ["label|labels"]:
        try:
            rows = read_all_rows(path, required=(name,), optional=texts, columns=columns)
        except InputError as error:
            problems.append(error)
            continue
        if name == "score":
            rows = [Row(row.file, row.line, {**row.values, "label": row.values["score"]}) for row in rows]
        return rows, name == "score"
    raise min(problems, key=_missing)


def _missing(error: InputError) -> tuple[int, int, int]:
    """How much a file lacks of a column; of two columns, the one that it lacks less was meant."""
    lines = error.lines()
    whole = 2 if getattr(error, "field", None) == FLAG else int(len(lines) == 1 and ": no column " in lines[0])
    return whole, sum(": is missing" in line for line in lines), getattr(error, "total", len(lines))


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


def _refuse_one_hot(rows: Sequence[Row]) -> None:
    """Raise `InputError` if every row has a list of zeros and ones, all of one length."""
    given = [row.values["label"] for row in rows]
    if not all(isinstance(value, list) and all(entry in (0, 1) for entry in value) for value in given):
        return
    lengths = {len(value) for value in given}
    if len(lengths) == 1 and lengths.pop() > 1:
        raise InputError(
            "is a list of zeros and ones in every row; list the names of the labels that hold",
            file=rows[0].file,
            line=rows[0].line,
            field="label",
        )


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
