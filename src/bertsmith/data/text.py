"""Text files, plain or compressed: their lines, their rows by column name, their documents.

Not here: what the columns are called (`data.columns`), other formats (CoNLL, SQuAD), tokens. Files are
streamed: memory is that of one line (of one document for `read_documents`, or of a piece of it if long
ones are cut), whatever the file's size; a line has an upper bound.
Nothing is dropped or decoded with replacement: what cannot be read is an `InputError` with its line.

    open_binary -> read_lines -> read_rows -> read_documents
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bertsmith.data.archives import check_files, format_of, open_binary
from bertsmith.data.columns import FLAG, Columns, Numbered, parse_columns
from bertsmith.data.tables import numbered_values
from bertsmith.errors import ErrorCollector, InputError

TEXT_COLUMNS = ("text", "text_a", "text_b")
"""Columns whose values must be strings, unless the caller says otherwise."""

MAX_LINE_BYTES = 64_000_000
"""Longest line of a file, of whatever format: what has no line ends must not fill the memory."""
MAX_SENTENCE = 2_000_000
"""Most characters of a sentence of `read_documents`: a tokenizer takes up to 1 kB of memory for each."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: `line` is 1-based, where the row starts (the row's number in Parquet)."""

    file: Path
    line: int
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Document:
    """Sentences that belong together, at least one; `line` is 1-based, where the document starts."""

    file: Path
    line: int
    sentences: tuple[str, ...]
    part: int = 0
    """0 for a document and for the first piece of one that was cut; then 1, 2, … for its other pieces."""


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""The 1-based number and the text of each line, without its ending (`\n` or `\r\n`).

    Only `\n` separates lines; U+2028 and the like are text. UTF-8 is strict, a leading byte order mark
    is dropped. Raises `InputError` with line and 0-based byte offsets at the first invalid byte.
    """
    for line, text in _lines(path):
        if isinstance(text, InputError):
            raise text
        yield line, text


def _lines(path: Path, *, keep_endings: bool = False) -> Numbered[str]:
    offset = 0
    with open_binary(path) as stream:
        for line, raw in enumerate(iter(partial(stream.readline, MAX_LINE_BYTES + 1), b""), start=1):
            if len(raw) > MAX_LINE_BYTES:
                message = f"a line of more than {MAX_LINE_BYTES // 10**6} MB; part the text into lines"
                yield line, InputError(message, file=path, line=line)
                return
            try:
                text = raw.decode()
            except UnicodeDecodeError as error:
                yield line, _undecodable(raw, error.start, file=path, line=line, offset=offset)
            else:
                if line == 1:
                    text = text.removeprefix("\ufeff")
                if not keep_endings:
                    text = text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
                yield line, text
            offset += len(raw)


def _undecodable(raw: bytes, at: int, *, file: Path, line: int, offset: int) -> InputError:
    encoding = "utf-16" if offset == 0 and raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "latin1"
    whole = "unpacked file" if format_of(file)[1] else "file"
    where = f"at offset {offset + at} of the {whole} ({at} of the line)"
    fix = f"convert it, for example with `iconv -f {encoding} -t utf-8`"
    return InputError(f"invalid UTF-8: byte {raw[at]:#04x} {where}; {fix}", file=file, line=line)


def read_rows(
    path: Path,
    *,
    required: Sequence[str],
    optional: Sequence[str] = (),
    columns: str | None = None,
    text_columns: Collection[str] = TEXT_COLUMNS,
    advice: str | None = None,
) -> Iterator[Row]:
    """The rows of a file; `values` has the `required` columns and those of `optional` that are there.

    `"text|sentence"` asks for either name and stores the value as `text`. `columns` is the user's
    `--columns` (see `data.columns`). Values of .csv and .tsv are strings; of .jsonl and .parquet what
    the file has, a string for `text_columns`, never null; .txt gives its nonblank lines as `text`.
    Raises `InputError`: at once about the file or `columns`, then at the first bad row. Of a missing column it says
    how to give `--columns`, or `advice` where the caller has no such flag.
    """
    wanted = _wanted(path, columns, required, optional, text_columns)
    return _raising(_rows(path, replace(wanted, advice=advice)))


def blank_lines(path: Path, texts: int) -> int:
    """How many lines of a .txt with `texts` rows are blank; 0 of other formats."""
    return sum(1 for _ in read_lines(path)) - texts if format_of(path)[0] == ".txt" else 0


def read_all_rows(
    path: Path,
    *,
    required: Sequence[str],
    optional: Sequence[str] = (),
    columns: str | None = None,
    text_columns: Collection[str] = TEXT_COLUMNS,
) -> list[Row]:
    """`read_rows` as a list; reads on after a bad row and raises up to 20 errors and their number."""
    errors = ErrorCollector()
    choices: dict[str, Any] = {"optional": optional, "columns": columns, "text_columns": text_columns}
    rows = list(good_rows(path, required=required, errors=errors, **choices))
    errors.raise_if_any()
    return rows


def good_rows(
    path: Path,
    *,
    required: Sequence[str],
    errors: ErrorCollector,
    optional: Sequence[str] = (),
    columns: str | None = None,
    text_columns: Collection[str] = TEXT_COLUMNS,
) -> Iterator[Row]:
    """`read_rows` that reads on after a bad row, whose error goes to `errors`."""
    wanted = _wanted(path, columns, required, optional, text_columns)
    try:
        for item in _rows(path, wanted):
            if isinstance(item, InputError):
                errors.add(item)
            else:
                yield item
    except InputError as error:
        errors.add(error)


def _raising(items: Iterator[Row | InputError]) -> Iterator[Row]:
    for item in items:
        if isinstance(item, InputError):
            raise item
        yield item


def _wanted(
    path: Path, columns: str | None, required: Sequence[str], optional: Sequence[str], text: Collection[str]
) -> Columns:
    check_files([path])
    formats = [format_of(path)[0]]
    return parse_columns(columns, required=required, optional=optional, text_columns=text, formats=formats)


def _rows(path: Path, wanted: Columns) -> Iterator[Row | InputError]:
    extension, found = format_of(path)[0], False
    lines = _lines(path, keep_endings=extension == ".csv")
    for line, values in numbered_values(lines, wanted, file=path, extension=extension):
        found = True
        yield values if isinstance(values, InputError) else Row(path, line, values)
    if not found:
        raise InputError("has no rows", file=path)


def read_documents(
    files: Sequence[Path], *, columns: str | None = None, pairs: bool = False, longest: int | None = None
) -> Iterator[Document]:
    """The documents of `files`, in order; sentences are stripped of surrounding whitespace, none is blank.

    .txt: a line is a sentence or paragraph, a blank line or the file's end ends a document. Other formats:
    the `text` or `sentence` of a row is a document, its nonblank lines are the sentences. `pairs`: each
    nonblank line of a .txt or .tsv is `A<TAB>B`, a document of two. Blank rows are skipped like blank lines.
    `longest`: a document of more characters comes in pieces, each ending with the sentence that reaches that
    number (without it, a .txt without blank lines is one document, held in memory).
    Raises `InputError`: at once about files and flags, then at a bad line, or if a file has no text.
    """
    check_files(files)
    formats = [format_of(path)[0] for path in files]
    for path, extension in zip(files, formats, strict=True):
        if pairs and extension not in (".txt", ".tsv"):
            raise InputError("with --pairs a file is .txt or .tsv, each line A<TAB>B", file=path)
    if pairs and columns is not None:
        raise InputError("does not go with --pairs; leave it out", field=FLAG)
    wanted = parse_columns(columns, required=["text|sentence"], text_columns=TEXT_COLUMNS, formats=formats)
    return _documents(files, wanted, pairs=pairs, longest=longest)


def _documents(files: Sequence[Path], wanted: Columns, *, pairs: bool, longest: int | None) -> Iterator[Document]:
    for path in files:
        if pairs:
            found = _pairs(path)
        elif format_of(path)[0] == ".txt":
            found = _paragraphs(path)
        else:
            found = _row_sentences(path, wanted)
        document = None
        for document in _pieces(path, found, longest=longest):
            yield document
        if document is None:
            raise InputError("holds no text", file=path)


_Lines = Iterator[tuple[int, str]]
"""Numbered sentences; an empty one ends a document."""


def _pieces(path: Path, lines: _Lines, *, longest: int | None) -> Iterator[Document]:
    sentences: list[str] = []
    start = part = characters = 0
    for line, sentence in lines:
        if len(sentence) > MAX_SENTENCE:
            message = f"a sentence of {len(sentence):,} characters; at most {MAX_SENTENCE:,}. Part the text into lines"
            raise InputError(message, file=path, line=line)
        if longest is not None and sentence and characters >= longest:
            yield Document(path, start, tuple(sentences), part)
            sentences, characters, part = [], 0, part + 1
        if sentence:
            start = line if not sentences else start
            sentences.append(sentence)
            characters += len(sentence)
        elif sentences:
            yield Document(path, start, tuple(sentences), part)
            sentences, characters, part = [], 0, 0
    if sentences:
        yield Document(path, start, tuple(sentences), part)


def _paragraphs(path: Path) -> _Lines:
    return ((line, text.strip()) for line, text in read_lines(path))


def _pairs(path: Path) -> _Lines:
    for line, text in read_lines(path):
        if not text.strip():
            continue
        sentences = tuple(part.strip() for part in text.split("\t"))
        if len(sentences) != 2 or not all(sentences):
            problem = ("has no tab", "has a blank side", "has several tabs")[min(len(sentences), 3) - 1]
            raise InputError(f"{problem}; with --pairs each line is A<TAB>B", file=path, line=line)
        yield from ((line, sentence) for sentence in (*sentences, ""))


def _row_sentences(path: Path, wanted: Columns) -> _Lines:
    for row in _raising(_rows(path, wanted)):
        yield from ((row.line, line.strip()) for line in row.values["text"].split("\n") if line.strip())
        yield row.line, ""
