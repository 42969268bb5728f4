"""Labelled texts from files: rows with a text, or a pair, and a label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bertsmith.data.text import read_all_rows
from bertsmith.errors import InputError


@dataclass(frozen=True, slots=True)
class Example:
    """One row. `label` is None where the file has no such column (for `predict`)."""

    file: Path
    line: int
    text: str
    pair: str | None
    label: str | None


def read_examples(path: Path, *, columns: str | None = None, labelled: bool = True) -> list[Example]:
    """Rows with columns `text` (or `sentence`), or `text_a` and `text_b`, and `label`.

    A label is compared as text: 1, "1" and 1.0 of a JSON file are `1`, `1` and `1.0`. An empty label is an error.
    Raises `InputError`s with file, line and field.
    """
    rows = read_all_rows(
        path,
        required=("label",) if labelled else (),
        optional=("text|sentence", "text_a", "text_b", *(() if labelled else ("label",))),
        columns=columns,
    )
    examples = []
    for row in rows:
        values = row.values
        text = values.get("text", values.get("text_a"))
        pair = values.get("text_b")
        if text is None or ("text_a" in values and pair is None):
            raise InputError(
                f"found {', '.join(values) or 'no known column'}; needed are `text`, or `text_a` and `text_b`; "
                "name the columns with --columns",
                file=row.file,
                line=1,
                field="text" if text is None else "text_b",
            )
        label = values.get("label")
        if labelled and not str(label).strip():
            raise InputError("is empty", file=row.file, line=row.line, field="label")
        examples.append(Example(row.file, row.line, text, pair, None if label is None else str(label).strip()))
    return examples
