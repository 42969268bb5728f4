"""What the columns of a file are called, and whether a value may stand in one.

Not here: reading rows (`data.tables`). `--columns` has two forms, and without it the
names are taken from the file as they are; a header is never guessed:

    text=body,label=stars   the file has a header (or keys): our name = its name
    -,label,text            the file has no header: names by position, "-" or "_" skips one
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bertsmith.errors import InputError, listing, nearest

FLAG = "--columns"
"""What errors about the choice of columns call it."""

SKIPPED = ("-", "_")
"""Names that skip a column in the positional form."""

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

    advice: str | None = None
    """What to do about a missing column where there is no `--columns` to give."""

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
        advice = self.advice or f"give {FLAG} {mapping}{positional}"
        return f"{absent}; the columns are: {listing(map(shown, header))}; {advice}"

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
                fix = f"the row has: {listing(map(shown, row))}; {self.advice or f'give {FLAG} {name}=NAME'}"
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
    if isinstance(value, bytes) or (is_text and not isinstance(value, str)):
        return f"is {kind_of(value)}, not a string"
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


def kind_of(value: Any) -> str:
    """What a value of JSON or Parquet is, for people: `{}` -> `an object`."""
    kinds = {
        dict: "an object",
        list: "a list",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
    }
    return "null" if value is None else kinds.get(type(value), f"of type {type(value).__name__}")
