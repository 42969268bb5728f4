"""From a file to passages: texts that the model reads whole, cut where paragraphs end.

    paragraphs that fit together        one passage
    a paragraph that is too long        its lines, as many together as fit
    a line that is too long             windows that end between words; a word that is too long, between tokens

Nothing is dropped but blank lines. Not here: vectors (`search.model`), which files there are (`search.folder`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertsmith.data.archives import format_of
from bertsmith.data.text import read_lines, read_rows
from bertsmith.errors import InputError
from bertsmith.tokenizer.words import surrogate_message

TABLES = (".jsonl", ".csv", ".tsv", ".parquet")
"""Extensions of files whose rows are texts; every other file is lines of text."""

MOST_LINES = 500
"""Lines of a paragraph that are held at a time; a longer one continues in the next."""

BLOCK = 50_000
"""Characters of a line that the tokenizer is given at a time: it takes up to 1 kB of memory for each."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A text, and the first and last of the lines that it stands in, from 1 (of a table: its row, twice)."""

    first: int
    last: int
    text: str


@dataclass(frozen=True)
class Ruler:
    """How long texts are for a model."""

    room: int
    """Most tokens of a passage, special tokens not counted."""
    count: Callable[[str], int]
    """Tokens of a text, special tokens not counted, prompt included."""
    tokens: Callable[[str], list[tuple[int, bool]]]
    """Each token of a text: where it starts, and whether a word starts there."""


def read_passages(file: Path, ruler: Ruler) -> Iterator[Passage]:
    """The passages of `file`, in order. Raises `InputError` for what cannot be read as text: binary files, broken
    archives, tables without a column `text`, nothing but blank lines."""
    found = False
    for units in _documents(file):
        for passage in _greedy(units, ruler, joint="\n\n", split=_lines):
            found = True
            yield passage
    if not found:
        raise InputError("holds no text", file=file)


def _documents(file: Path) -> Iterator[Iterator[Passage]]:
    """The paragraphs of each document: a text file is one, a table has one for each row."""
    if format_of(file)[0] not in TABLES:
        yield _paragraphs(file)
        return
    for row in read_rows(file, required=("text|sentence",), advice="rename the column to be searched to text"):
        text = row.values["text"]
        _refuse_binary(text, file=file, line=row.line)
        yield (Passage(row.line, row.line, part) for part in text.split("\n\n") if part.strip())


def _paragraphs(file: Path) -> Iterator[Passage]:
    lines: list[str] = []
    first = number = 0
    for number, line in read_lines(file):
        _refuse_binary(line, file=file, line=number)
        if line.strip():
            first = first if lines else number
            lines.append(line)
        if lines and (not line.strip() or len(lines) == MOST_LINES):
            yield Passage(first, first + len(lines) - 1, "\n".join(lines))
            lines = []
    if lines:
        yield Passage(first, number, "\n".join(lines))


def _refuse_binary(text: str, *, file: Path, line: int) -> None:
    if "\0" in text:
        raise InputError("a binary file: it has a zero byte", file=file, line=line)
    message = surrogate_message(text)
    if message is not None:
        raise InputError(message, file=file, line=line)


Split = Callable[[Passage, Ruler], Iterator[Passage]]


def _greedy(units: Iterator[Passage], ruler: Ruler, *, joint: str, split: Split) -> Iterator[Passage]:
    """As many neighbours together as fit; what does not fit alone is `split`."""
    waiting: list[Passage] = []
    tokens = 0
    for unit in units:
        length = _length(unit.text, ruler)
        if waiting and tokens + length > ruler.room:
            yield from _joined(waiting, ruler, joint=joint)
            waiting, tokens = [], 0
        if length > ruler.room:
            yield from split(unit, ruler)
        else:
            waiting.append(unit)
            tokens += length
    if waiting:
        yield from _joined(waiting, ruler, joint=joint)


def _length(text: str, ruler: Ruler) -> int:
    """Tokens of `text`, or of its first blocks if these do not fit already."""
    length = 0
    for block in _blocks(text) if len(text) > BLOCK else ():
        length += ruler.count(block)
        if length > ruler.room:
            return length
    return ruler.count(text)


def _joined(units: Sequence[Passage], ruler: Ruler, *, joint: str) -> Iterator[Passage]:
    """One passage; or `units` as they are where the tokenizer counts the line ends between them, too many."""
    text = joint.join(unit.text for unit in units)
    if len(units) > 1 and ruler.count(text) > ruler.room:
        yield from units
    else:
        yield Passage(units[0].first, units[-1].last, text)


def _lines(paragraph: Passage, ruler: Ruler) -> Iterator[Passage]:
    """The lines of a long paragraph; those of a table's row have no numbers of their own."""
    lines = paragraph.text.split("\n")
    numbered = paragraph.last - paragraph.first + 1 == len(lines)
    places = [paragraph.first + i if numbered else paragraph.first for i in range(len(lines))]
    units = (Passage(place, place, line) for place, line in zip(places, lines, strict=True) if line.strip())
    return _greedy(units, ruler, joint="\n", split=_windows)


def _windows(line: Passage, ruler: Ruler) -> Iterator[Passage]:
    """The parts of a long line, end to end all of it."""
    for block in _blocks(line.text):
        for text in _parts(block, ruler):
            yield Passage(line.first, line.last, text)


def _blocks(text: str) -> Iterator[str]:
    """`text` in parts of `BLOCK` characters at most, which end behind a space if there is one."""
    start = 0
    while start < len(text):
        block = text[start : start + BLOCK]
        if start + BLOCK < len(text):
            block = block[: block.rfind(" ") + 1] or block
        yield block
        start += len(block)


def _parts(text: str, ruler: Ruler) -> Iterator[str]:
    tokens = ruler.tokens(text)
    at = begin = 0
    while begin < len(text):
        length = ruler.room
        following, end = _end(tokens, at, length, begin=begin, length=len(text))
        while (excess := ruler.count(text[begin:end]) - ruler.room) > 0 and length > 1:
            length = max(1, length - excess)  # alone, a part may have more tokens than it had within the whole
            following, end = _end(tokens, at, length, begin=begin, length=len(text))
        if text[begin:end].strip():
            yield text[begin:end]
        at, begin = following, end


def _end(tokens: Sequence[tuple[int, bool]], at: int, most: int, *, begin: int, length: int) -> tuple[int, int]:
    """The token and the place where a part ends that begins with token `at`: at a word's start, if there is one within
    its `most` tokens, else at a token's; at least one character further than `begin`."""
    if at + most >= len(tokens):
        return len(tokens), length
    places = [(i, tokens[i]) for i in range(at + most, at, -1) if tokens[i][0] > begin]
    for i, (place, is_word) in places:
        if is_word:
            return i, place
    if places:
        return places[0][0], places[0][1][0]
    return next(((i, place) for i, (place, _) in enumerate(tokens) if place > begin), (len(tokens), length))
