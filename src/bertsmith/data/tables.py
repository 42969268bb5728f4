"""From the lines of a file to rows of checked values: JSON lines, CSV, TSV, Parquet.

Not here: opening and decoding files (`data.archives`, `data.text`), what the columns are called (`data.columns`).
"""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bertsmith.data.columns import FLAG, Columns, Content, Numbered, shown
from bertsmith.errors import InputError, listing

MAX_CELL = 1 << 26
"""Longest cell of a CSV file in characters: beyond it, a quote was surely never closed."""

_csv_limit_lock = threading.Lock()


def numbered_values(lines: Numbered[str], wanted: Columns, *, file: Path, extension: str) -> Numbered[dict[str, Any]]:
    """The values of each row of `file`, under our column names, or what is wrong with the row.

    `lines` keep their endings for .csv, and are not touched for .parquet. Raises `InputError` about
    what makes the rest unreadable, such as the header.
    """
    if extension == ".parquet":
        return _parquet_values(wanted, file=file)
    if extension == ".jsonl":
        return _json_values(lines, wanted, file=file)
    if extension == ".txt":
        return _text_values(lines, wanted, file=file)
    cells = _split_csv(lines, file=file) if extension == ".csv" else _split_tsv(lines)
    return _table_values(cells, wanted, file=file)


def _text_values(lines: Numbered[str], wanted: Columns, *, file: Path) -> Numbered[dict[str, Any]]:
    absent = [name for name in wanted.needed if name != "text"]
    if absent or "text" not in wanted.sources:
        absent = absent or list(wanted.sources)
        raise InputError(f"a .txt file has only text, not {listing(absent)}; use .tsv or .jsonl", file=file)
    for line, text in lines:
        if isinstance(text, InputError):
            yield line, text
        elif text.strip():
            yield line, {"text": text}


def _parquet_values(wanted: Columns, *, file: Path) -> Numbered[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    line = 0
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as table:
            names = table.schema_arrow.names
            chosen = {names[place] for place in wanted.locate(names, file=file).values()}
            for batch in table.iter_batches(batch_size=1024, columns=sorted(chosen)):
                for row in batch.to_pylist():
                    line += 1
                    yield line, wanted.pick(row, file=file, line=line)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = f"cannot be read as Parquet after row {line}: {' '.join(str(error).split())}"
        raise InputError(f"{reason}; make or download it again", file=file) from None


def _json_values(lines: Numbered[str], wanted: Columns, *, file: Path) -> Numbered[dict[str, Any]]:
    for line, text in _refuse_gaps(lines, file=file):
        try:
            row = text if isinstance(text, InputError) else _JSON.decode(text)
            if isinstance(row, dict):
                row = wanted.pick(row, file=file, line=line)
            elif not isinstance(row, InputError):
                row = InputError("not a JSON object; each line is {…}", file=file, line=line)
        except json.JSONDecodeError as error:
            reason = f"not valid JSON: {error.msg} (column {error.colno})"
            row = InputError(reason, file=file, line=line)
        except (ValueError, RecursionError) as error:
            row = InputError(f"not valid JSON: {error}", file=file, line=line)
        yield line, row


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


_JSON = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)


def _table_values(records: Numbered[list[str]], wanted: Columns, *, file: Path) -> Numbered[dict[str, Any]]:
    records = _refuse_gaps(records, file=file)
    header: Sequence[str]
    if wanted.positions is None:
        line, first = next(records, (1, None))
        if first is None:
            return
        if isinstance(first, InputError):
            raise first
        header, places, skip = first, wanted.locate(first, file=file, line=line), ""
    else:
        header, places = wanted.positions, wanted.locate(wanted.positions, file=file)
        skip = f"; {FLAG} names each column, or skips it with -"
    names = listing(shown(name)[1:-1] for name in header)
    for line, cells in records:
        if isinstance(cells, InputError):
            yield line, cells
            continue
        if line == 1:
            wanted.refuse_header(cells, file=file)
        if len(cells) == len(header):
            yield line, {name: cells[place] for name, place in places.items()}
        else:
            reason = f"has {len(cells)} column(s); {len(header)} are needed ({names}){skip}"
            yield line, InputError(reason, file=file, line=line)


def _refuse_gaps(items: Numbered[Content], *, file: Path) -> Numbered[Content]:
    """Drop what is empty (`""`, `[]`) at the end of the file; in the middle it becomes an error."""
    gap = 0
    for line, item in items:
        if not isinstance(item, InputError) and not item:
            gap = gap or line
            continue
        for empty in range(gap, line) if gap else ():
            yield empty, InputError("empty line; remove it", file=file, line=empty)
        gap = 0
        yield line, item


def _split_tsv(lines: Numbered[str]) -> Numbered[list[str]]:
    for line, text in lines:
        yield line, text if isinstance(text, InputError) else text.split("\t") if text else []


def _split_csv(lines: Numbered[str], *, file: Path) -> Numbered[list[str]]:
    feed = _Feed(lines)
    reader = csv.reader(feed, strict=True)
    while True:
        start = feed.line + 1
        # The limit belongs to the whole process: raise it for one record only, one thread at a time.
        with _csv_limit_lock:
            limit = csv.field_size_limit(MAX_CELL)
            try:
                cells: list[str] | InputError = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                reason = str(error).split(" - ")[0]
                fix = "a quoted cell ends in a quote, and quotes inside it are doubled"
                cells = InputError(f"not valid CSV (RFC 4180): {reason}; {fix}", file=file, line=start)
            except InputError as error:
                cells = error
            finally:
                csv.field_size_limit(limit)
        yield start, cells


class _Feed:
    """The lines that `csv.reader` asks for, as many as a record needs, and the number of the last."""

    def __init__(self, lines: Numbered[str]) -> None:
        self.lines, self.line = lines, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.line, text = next(self.lines)
        if isinstance(text, InputError):
            raise text
        return text
