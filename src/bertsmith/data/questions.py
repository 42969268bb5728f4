"""Questions with the text that answers them: SQuAD's JSON, version 1.1 and 2, or rows.

    {"data": [{"paragraphs": [{"context": …, "qas": [{"id", "question", "answers": [{"text", "answer_start"}],
                                                      "is_impossible"}]}]}]}

Rows (JSON lines, Parquet) have `question`, `context` and `answers`: a list of such objects or of texts, one object of
two lists (`{"text": […], "answer_start": […]}`), or a text, with a column `answer_start` or searched for. No answer is
`[]`, or `is_impossible` true.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsmith.data.archives import check_files, format_of, open_binary
from bertsmith.data.columns import FLAG
from bertsmith.data.text import Row, read_all_rows
from bertsmith.errors import ErrorCollector, InputError
from bertsmith.files import parse_json

FORMATS = (".json", ".jsonl", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True, slots=True)
class Answer:
    """A right answer: characters `start` to `start + len(text)` of the context."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a text. `answers` is None where they are not known (for `predict`), empty if there is none."""

    file: Path
    line: int
    """Of a row; of SQuAD's JSON the number of the question, from 1."""
    question: str
    context: str
    answers: tuple[Answer, ...] | None
    identity: str | None = None
    moved: bool = False
    """Whether an answer was found beside the start that the file gives."""

    @property
    def content(self) -> tuple[str, ...]:
        """What the model reads: equal for rows that are duplicates."""
        return (self.question, self.context)

    @property
    def place(self) -> dict[str, Any]:
        """Where it stands, as arguments of an `InputError`."""
        if self.identity is not None:
            return {"file": f"{self.file}: question {self.identity}"}
        return {"file": self.file, "line": self.line}


def read_questions(path: Path, *, columns: str | None = None, labelled: bool = True) -> list[Question]:
    """The questions of a file. Raises `InputError`s: an answer that the context does not hold, a context that is empty.

    An answer that stands elsewhere than its start says is taken where it stands nearest, and marked `moved`.
    """
    check_files([path], formats=FORMATS)
    found, errors = [], ErrorCollector()
    if format_of(path)[0] == ".json":
        if columns is not None:
            raise InputError("SQuAD's JSON has its own names; leave it out", field=FLAG)
        items = _squad(path)
    else:
        items = _rows(path, columns, labelled=labelled)
    for item in items:
        try:
            found.append(_question(item, labelled=labelled))
        except InputError as error:
            errors.add(error)
    errors.raise_if_any()
    if not found:
        raise InputError("has no questions", file=path)
    return found


@dataclass(frozen=True)
class _Item:
    question: Question
    answers: Any


def _squad(path: Path) -> Iterator[_Item]:
    with open_binary(path) as stream:
        content = parse_json(stream.read(), file=path)
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise InputError('is not SQuAD\'s JSON: an object with a list "data"; rows go into a .jsonl file', file=path)
    number = 0
    for i, article in enumerate(content["data"]):
        for j, paragraph in enumerate(_list(article, "paragraphs", f"data[{i}]", path)):
            where = f"data[{i}].paragraphs[{j}]"
            context = _text(paragraph, "context", where, path)
            for k, asked in enumerate(_list(paragraph, "qas", where, path)):
                number += 1
                place = f"{where}.qas[{k}]"
                question = _text(asked, "question", place, path)
                identity = str(asked.get("id", place))
                answers = [] if asked.get("is_impossible") else asked.get("answers")
                yield _Item(Question(path, number, question, context, None, identity), answers)


def _list(value: Any, key: str, where: str, path: Path) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise InputError("is missing, or no list", file=path, field=f"{where}.{key}")
    return found


def _text(value: Any, key: str, where: str, path: Path) -> str:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, str):
        raise InputError("is missing, or no text", file=path, field=f"{where}.{key}")
    return found


def _rows(path: Path, columns: str | None, *, labelled: bool) -> Iterator[_Item]:
    required = ("question", "context", *(("answers|answer",) if labelled else ()))
    rows = read_all_rows(
        path,
        required=required,
        optional=("id", "is_impossible", "answer_start"),
        columns=columns,
        text_columns=("question", "context"),
    )
    for row in rows:
        values = row.values
        identity = str(values["id"]) if "id" in values else None
        answers = [] if str(values.get("is_impossible")).strip().lower() in ("true", "1") else values.get("answers")
        if isinstance(answers, str) and str(values.get("answer_start", "")).strip():
            answers = {"text": answers, "answer_start": _whole(values["answer_start"], row)}
        yield _Item(Question(row.file, row.line, values["question"], values["context"], None, identity), answers)


def _whole(value: Any, row: Row) -> int:
    """A cell that counts characters."""
    text = str(value).strip()
    if not (text.isascii() and text.isdigit()):
        raise InputError(
            f"{text[:40]!r} is not a place in the context", file=row.file, line=row.line, field="answer_start"
        )
    return int(text)


def _question(item: _Item, *, labelled: bool) -> Question:
    asked = item.question
    for field in ("question", "context"):
        if not getattr(asked, field).strip():
            raise InputError("is empty", **asked.place, field=field)
    if not labelled:
        return asked
    answers, moved = [], False
    for text, start in _pairs(item.answers, asked):
        if not text.strip():
            fix = "is empty; a question without an answer has is_impossible true"
            raise InputError(fix, **asked.place, field="answers")
        at = nearest_place(asked.context, text, start)
        if at is None:
            raise InputError(f"{text[:60]!r} does not stand in the context", **asked.place, field="answers")
        moved |= start is not None and at != start
        answers.append(Answer(text, at))
    return Question(asked.file, asked.line, asked.question, asked.context, tuple(answers), asked.identity, moved)


def _pairs(value: Any, asked: Question) -> list[tuple[str, int | None]]:
    """The answers in any of the shapes, as texts and starts."""
    if isinstance(value, str):
        return [(value, None)]
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
            value = [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]
        else:
            value = [value]
    found: list[tuple[str, int | None]] = []
    for entry in value if isinstance(value, list) else [value]:
        text = entry.get("text") if isinstance(entry, dict) else entry
        start = entry.get("answer_start") if isinstance(entry, dict) else None
        if not isinstance(text, str) or not (start is None or (isinstance(start, int) and start >= 0)):
            raise InputError('is not a list of {"text": …, "answer_start": …}', **asked.place, field="answers")
        found.append((text, start))
    return found


def nearest_place(context: str, text: str, start: int | None) -> int | None:
    """Where `text` stands in `context`, nearest to `start`; the first place without one; None if it does not.

    `"a b a", "a", 3` -> 4
    """
    if start is None:
        at = context.find(text)
        return None if at < 0 else at
    if context.startswith(text, start):
        return start
    before = context.rfind(text, 0, min(start, len(context)) + len(text))
    after = context.find(text, start)
    places = [place for place in (before, after) if place >= 0]
    return min(places, key=lambda place: abs(place - start)) if places else None


def contexts(questions: Sequence[Question]) -> int:
    """How many different texts the questions are about."""
    return len({question.context for question in questions})
