"""From the lines of a file to rows of checked values: column names, JSON lines, CSV, TSV.

Not here: opening and streaming files (`data.text`). `--columns` has two forms, and without it the
names are taken from the file as they are; a header is never guessed:

    text=body,label=stars   the file has a header (or keys): our name = its name
    -,label,text            the file has no header: names by position, "-" or "_" skips one
"""

from __future__ import annotations

import csv
import json
import math
import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from bertsmith.errors import InputError, listing, nearest

FLAG = "--columns"
"""What errors about the choice of columns call it."""

SKIPPED = ("-", "_")
"""Names that skip a column in the positional form."""

MAX_CELL = 1 << 26
"""Longest cell of a CSV file in characters: beyond it, a quote was surely never closed."""

_csv_limit_lock = threading.Lock()
_surrogate = re.compile("[\ud800-\udfff]")

Content = TypeVar("Content")

Numbered = Iterator[tuple[int, Content | InputError]]
"""A 1-based line number (a record's first), and what stands there or what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The wanted columns and the names by which a file may know them; made by `parse_columns`."""

    sources: Mapping[str, tuple[str, ...]]
    """For each wanted column, under our name, its possible names in the file; the first found is taken."""

    needed: tuple[str, ...]
    """The columns, under our names, that must be there: the required and those that `--columns` maps."""

    text: frozenset[str]
    """The columns whose values must be strings."""

    positions: tuple[str, ...] | None = None
    """The columns of a file without a header, in order, or `None` for a file that names its columns."""

    def locate(self, header: Sequence[str], *, file: Path, line: int | None = None) -> dict[str, int]:
        """Index of each wanted column in `header`, under our names; an optional one may be absent.

        Raises `InputError` if a needed one is missing, or a wanted one is there twice. `line` is the
        header's; `None` means that the format cannot do without names.
        """
        missing, found = [], {}
        for name, sources in self.sources.items():
            source = next((source for source in sources if source in header), None)
            if source is None:
                missing += [name] if name in self.needed else []
            elif (count := header.count(source)) > 1:
                raise InputError(f"{count} columns are named {shown(source)}; rename one", file=file, line=line)
            else:
                found[name] = header.index(source)
        if missing:
            optional = [name for name in self.sources if name not in self.needed]
            advised = [*optional[:1], *missing] if not set(optional) & set(found) else missing
            raise InputError(self._explain_missing(missing, advised, header, line), file=file, line=line)
        return found

    def _explain_missing(
        self, missing: Sequence[str], advised: Sequence[str], header: Sequence[str], line: int | None
    ) -> str:
        absent = " and ".join(f"no column {' or '.join(map(shown, self.sources[name]))}" for name in missing)
        mapping = ",".join(f"{name}=NAME" for name in advised)
        named = ",".join(dict.fromkeys([*advised, *self.needed]))
        positional = "" if line is None else f", or for a file without a header {FLAG} {named}"
        present = listing(map(shown, header))
        return f"{absent}; the columns are: {present}; give {FLAG} {mapping}{positional}"

    def refuse_header(self, cells: Sequence[str], *, file: Path) -> None:
        """Raise `InputError` if the first row holds the names of the columns that `positions` places."""
        names = self.positions or ()
        places = self.locate(names, file=file)
        if len(cells) == len(names) and all(
            cells[place].strip().casefold() in map(str.casefold, self.sources[name]) for name, place in places.items()
        ):
            mapping = ",".join(f"{name}={cells[place]}" for name, place in places.items())
            raise InputError(f"line 1 looks like a header; use {FLAG} {mapping}", file=file, line=1)

    def pick(self, row: Mapping[str, Any], *, file: Path, line: int) -> dict[str, Any] | InputError:
        """The checked values of the wanted columns of a typed row (JSON object, Parquet row).

        An optional value that is absent or null is left out. Instead, an `InputError` with the field
        if a needed one is, or if a value is not finite, not encodable, or no string in a text column.
        """
        values = {}
        for name, sources in self.sources.items():
            source = next((source for source in sources if source in row), None)
            if source is None and name in self.needed:
                fix = f"the row has: {listing(map(shown, row))}; give {FLAG} {name}=NAME"
                return InputError(f"is missing; {fix}", file=file, line=line, field=sources[0])
            if source is None or (row[source] is None and name not in self.needed):
                continue
            problem = fault(row[source], is_text=name in self.text)
            if problem:
                return InputError(problem, file=file, line=line, field=source)
            values[name] = row[source]
        return values


def parse_columns(
    columns: str | None,
    *,
    required: Sequence[str],
    optional: Sequence[str] = (),
    text_columns: Collection[str] = (),
    formats: Collection[str] = (),
) -> Columns:
    """Join what a task wants (`"text|sentence"` has alternatives) with what `--columns` says.

    `formats` are the extensions of the files. Raises `InputError` about `--columns` if they have no use
    for it, or if it mixes its two forms, has an empty or double name, names a column that is not wanted
    (form with `=`), or leaves a required one out (form by position).
    """
    sources = {entry.split("|")[0]: tuple(entry.split("|")) for entry in (*required, *optional)}
    needed, text = [entry.split("|")[0] for entry in required], frozenset(text_columns)
    if columns is None:
        return Columns(sources, tuple(needed), text)
    if set(formats) == {".txt"}:
        raise InputError("a .txt file has no columns; leave it out", field=FLAG)

    entries = [tuple(entry.split("=", 1)) for entry in columns.split(",")]
    if any(not part.strip() for entry in entries for part in entry):
        raise InputError(f"{shown(columns)} has an empty name", field=FLAG)
    if len({len(entry) for entry in entries}) > 1:
        form = "either all NAME=HEADER, or all names by position"
        raise InputError(f"{shown(columns)} mixes two forms; give {form}", field=FLAG)

    our_name = {name: first for first, names in sources.items() for name in names}
    given = [entry[0].strip() for entry in entries]
    ours = [our_name.get(name, name) for name in given if name not in SKIPPED]
    double = next((name for name in ours if ours.count(name) > 1), None)
    if double is not None:
        raise InputError(f"{shown(columns)} gives {shown(double)} twice", field=FLAG)

    if len(entries[0]) == 1:
        absent = [name for name in needed if name not in ours]
        if absent or not sources.keys() & ours:
            names = listing(map(shown, absent)) if absent else f"any of: {listing(our_name)}"
            raise InputError(f"{shown(columns)} does not name {names}", field=FLAG)
        named = [extension for extension in formats if extension in (".jsonl", ".parquet")]
        if named:
            fix = f"a {named[0]} file names its columns; give {next(iter(sources))}=NAME"
            raise InputError(f"{shown(columns)} names columns by position, but {fix}", field=FLAG)
        return Columns(sources, tuple(needed), text, tuple(given))

    unknown = next((name for name in given if name not in our_name), None)
    if unknown is not None:
        known = f"expected one of: {listing(our_name)}{nearest(unknown, our_name)}"
        raise InputError(f"{shown(unknown)} is not a column of this task; {known}", field=FLAG)
    sources |= {our_name[entry[0].strip()]: (entry[1],) for entry in entries}
    return Columns(sources, tuple(dict.fromkeys([*needed, *ours])), text)


def fault(value: Any, *, is_text: bool) -> str:
    """What is wrong with a value: `(None, is_text=False)` -> `"is null"`, a good one -> `""`."""
    if value is None:
        return "is null"
    if is_text and not isinstance(value, str):
        return f"is of type {type(value).__name__}, not a string"
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}; a finite number is needed"
    return "" if _is_encodable(value) else "has half of a surrogate pair, which is no character"


def _is_encodable(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_encodable, value))
    if isinstance(value, dict):
        return all(map(_is_encodable, value.items()))
    return not isinstance(value, str) or value.isascii() or not _surrogate.search(value)


def shown(name: str) -> str:
    r"""A name quoted for a one-line message: escaped, and cut at 40 characters; `a\nb` -> `"a\nb"`."""
    return json.dumps(name if len(name) <= 40 else f"{name[:39]}…", ensure_ascii=False)


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
