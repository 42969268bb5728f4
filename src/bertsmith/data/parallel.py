"""Rows of a text and what it becomes: two parallel files, or one with the columns `source` and `target`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bertsmith.data.archives import format_of
from bertsmith.data.text import read_all_rows, read_lines
from bertsmith.errors import ErrorCollector, InputError


@dataclass(frozen=True, slots=True)
class ParallelExample:
    """One row."""

    file: Path
    line: int
    source: str
    target: str

    @property
    def content(self) -> tuple[str, ...]:
        """What the model reads and writes: equal for rows that are duplicates."""
        return (self.source, self.target)


def read_parallel(path: Path, target: Path | None = None, *, columns: str | None = None) -> list[ParallelExample]:
    """The rows of a file, or of two text files, of whatever extension, whose lines belong together.

    Raises `InputError`s with file, line and field: files of unequal length (both numbers of lines), empty texts.
    """
    rows = _of_one(path, columns) if target is None else _of_two(path, target)
    errors = ErrorCollector()
    for row in rows:
        for field, text in (("source", row.source), ("target", row.target)):
            if not text.strip():
                errors.add(InputError("is empty", file=row.file, line=row.line, field=field))
    errors.raise_if_any()
    if not rows:
        raise InputError("has no rows", file=path)
    return rows


def _of_one(path: Path, columns: str | None) -> list[ParallelExample]:
    if format_of(path)[0] == ".txt":
        raise InputError(
            "has sources alone; name the file of their targets with --train-target or --dev-target", file=path
        )
    rows = read_all_rows(path, required=("source", "target"), columns=columns, text_columns=("source", "target"))
    return [ParallelExample(row.file, row.line, row.values["source"], row.values["target"]) for row in rows]


def _of_two(path: Path, target: Path) -> list[ParallelExample]:
    for file in (path, target):
        if not file.is_file():
            raise InputError("no such file", file=file)
    sources, targets = (_texts(file) for file in (path, target))
    if len(sources) != len(targets):
        raise InputError(
            f"has {len(sources)} lines, {target} has {len(targets)}; line i of both belongs together", file=path
        )
    return [ParallelExample(path, i, *pair) for i, pair in enumerate(zip(sources, targets, strict=True), 1)]


def _texts(path: Path) -> Sequence[str]:
    return [text for _, text in read_lines(path)]
