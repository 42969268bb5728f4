"""Rows of multiple choice: a text, some texts of which one goes with it, and which one that is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsmith.data.archives import format_of
from bertsmith.data.text import Row, read_all_rows
from bertsmith.errors import ErrorCollector, InputError

MOST = 26
"""Choices of a row that columns `choice1`, `choice2`, … may hold."""

NUMBERED = tuple(f"choice{i}" for i in range(1, MOST + 1))

OTHERS = ("choice0", f"choice{MOST + 1}")
"""Columns that would be lost: the names go from `choice1` to the last of `NUMBERED`."""


@dataclass(frozen=True, slots=True)
class ChoiceExample:
    """One row; `label` is the number of the right choice, from 0, None where it is not known."""

    file: Path
    line: int
    text: str
    choices: tuple[str, ...]
    label: int | None

    @property
    def content(self) -> tuple[str, ...]:
        """What the model reads: equal for rows that are duplicates."""
        return (self.text, *self.choices)


def read_choices(path: Path, *, columns: str | None = None, labelled: bool = True) -> list[ChoiceExample]:
    """Rows with `text` (or `question`, `sentence`), `choices` or `choice1`, `choice2`, …, and `label`.

    Raises `InputError`s with file, line and field: fewer than two choices, a gap among them, a label that is neither a
    number of one nor the text of exactly one, or is both where no other row tells which is meant.
    """
    rows = read_all_rows(
        path,
        required=("text|sentence|question", *(("label|answer",) if labelled else ())),
        optional=("choices|options", *NUMBERED, *OTHERS),
        columns=columns,
        text_columns=("text", *NUMBERED, *OTHERS),
    )
    if rows and not {"choices", *NUMBERED, *OTHERS} & rows[0].values.keys():
        found = ", ".join(rows[0].values)
        raise InputError(f"found {found}; needed are `choices`, or choice1, choice2, …", file=path, field="choices")
    read, errors = [], ErrorCollector()
    for row in rows:
        try:
            choices = _choices(row)
            read.append((row, choices, _readings(row.values["label"], choices, row) if labelled else {}))
        except InputError as error:
            errors.add(error)
    errors.raise_if_any()
    sure = {next(iter(kinds)) for _, _, kinds in read if len(kinds) == 1} - {"either"}
    if format_of(path)[0] in (".jsonl", ".parquet"):
        sure = sure or {"text"}  # where a number could have been written as one
    examples = []
    for row, choices, readings in read:
        if len(readings) == 2 and len(sure) != 1:
            raise InputError(
                f"{row.values['label']!r} may be the number of a choice or its text, and the other rows do not tell; "
                'write .jsonl, where 2 is a number and "2" a text',
                file=row.file,
                line=row.line,
                field="label",
            )
        number = readings[next(iter(sure))] if len(readings) == 2 else next(iter(readings.values()), None)
        examples.append(ChoiceExample(row.file, row.line, row.values["text"], choices, number))
    _refuse_shifted(examples)
    return examples


def _choices(row: Row) -> tuple[str, ...]:
    place: dict[str, Any] = {"file": row.file, "line": row.line}
    given = row.values.get("choices")
    lost = next((name for name in OTHERS if row.values.get(name, "").strip()), None)
    if lost is not None:
        raise InputError(
            f"the columns go from choice1 to {NUMBERED[-1]}; rename it, or use a list in `choices`", **place, field=lost
        )
    if given is None:
        cells = [row.values.get(name, "") for name in NUMBERED]
        filled = [i for i, cell in enumerate(cells) if cell.strip()]
        if filled and filled[-1] + 1 != len(filled):
            missing = next(i for i in range(filled[-1]) if i not in filled)
            raise InputError("is empty, and a later choice is not", **place, field=NUMBERED[missing])
        given = cells[: len(filled)]
    if not isinstance(given, list):
        raise InputError("is not a list of texts", **place, field="choices")
    bad = next((i for i, text in enumerate(given) if not isinstance(text, str) or not text.strip()), None)
    if bad is not None:
        what = "empty" if isinstance(given[bad], str) else "no text"
        raise InputError(f"choice {bad} is {what}", **place, field="choices")
    if len(given) < 2:
        raise InputError(
            f"has {len(given)} choice(s); at least two are needed, in `choices` or `choice1`, `choice2`, …",
            **place,
            field="choices",
        )
    return tuple(given)


def _readings(label: Any, choices: tuple[str, ...], row: Row) -> dict[str, int]:
    """The choice that the label names as a `text`, and the one that it names as a `number`; one entry if only one is
    possible, `either` if they are the same, or if the file writes numbers as numbers."""
    place: dict[str, Any] = {"file": row.file, "line": row.line, "field": "label"}
    text = str(label).strip()
    is_number = text.isascii() and text.isdigit() and not isinstance(label, bool)
    same = [i for i, choice in enumerate(choices) if choice.strip() == text and not isinstance(label, int)]
    found = {"text": same[0]} if len(same) == 1 else {}
    if is_number and int(text) < len(choices):
        found["number"] = int(text)
    if isinstance(label, int) or len({*found.values()}) < len(found):
        found = {"either": next(iter(found.values()))} if found else {}
    if found:
        return found
    if is_number:
        raise InputError(f"is {text}; the row has {len(choices)} choices, numbered 0 to {len(choices) - 1}", **place)
    raise InputError(f"{text[:60]!r} is neither the number of a choice, from 0, nor the text of exactly one", **place)


def _refuse_shifted(examples: Iterable[ChoiceExample]) -> None:
    """Raise `InputError` if no row has the label 0 and all of the many have one from 1 on: numbers from 1 were meant
    and the last choice of no row is an error only by luck."""
    known = [example for example in examples if example.label is not None]
    if len(known) >= 50 and all(example.label for example in known) and len({e.label for e in known}) > 1:
        first = known[0]
        raise InputError(
            f"no row of {len(known)} has the label 0; choices are numbered from 0: subtract 1",
            file=first.file,
            line=first.line,
            field="label",
        )
