"""Sentences whose words have tags: CoNLL, CoNLL-U, JSON lines and Parquet.

    EU      B-ORG        CoNLL: a word a line, its tag in the last column, columns parted by tabs or, in a line
    rejects O            without any tab, by spaces; a blank line ends a sentence, -DOCSTART- lines are skipped

Of CoNLL-U (ten columns, Universal Dependencies v2) the tag is UPOS; words in one range (`3-4 don't`) are read as its
parts, and empty nodes (`8.1`) are skipped. JSON lines and Parquet have `tokens` and `tags`, lists of equal length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsmith.data.archives import TAGGED, check_files, format_of
from bertsmith.data.columns import FLAG, SKIPPED, kind_of
from bertsmith.data.text import read_all_rows, read_lines
from bertsmith.errors import ErrorCollector, InputError, listing

CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
"""The columns of CoNLL-U, in order."""

FORMATS = (*TAGGED, ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class TaggedExample:
    """One sentence. `tags` is None where it has none (for `predict`)."""

    file: Path
    line: int
    words: tuple[str, ...]
    tags: tuple[str, ...] | None
    lines: tuple[int, ...] | None = None
    """Line of each word, where each has its own."""
    text: str | None = None
    """The text that was cut into words, with `spans`: where each word starts and ends in it."""
    spans: tuple[tuple[int, int], ...] | None = None

    @property
    def content(self) -> tuple[str, ...]:
        """What the model reads: equal for rows that are duplicates."""
        return self.words


def read_tagged(path: Path, *, columns: str | None = None, labelled: bool = True) -> list[TaggedExample]:
    """The sentences of a file.

    `columns`: of CoNLL the columns in order, `tokens,-,-,tags`; of CoNLL-U `tags=xpos`; of JSON lines and Parquet
    `tokens=words,tags=ner`. Raises `InputError`s with file, line and field.
    """
    check_files([path], formats=FORMATS)
    extension = format_of(path)[0]
    if extension not in TAGGED:
        return _from_rows(path, columns, labelled=labelled)
    places = _places(columns, is_universal=extension == ".conllu")
    sentences, errors = [], ErrorCollector()
    words: list[tuple[int, str, str | None]] = []
    first: tuple[int, int] | None = None
    for line, cells in _cells(path, is_universal=extension == ".conllu"):
        if cells is None:
            sentences += _sentence(path, words)
            words = []
            continue
        first = first or (line, len(cells))
        try:
            if labelled and columns is None and 1 < len(cells) != first[1]:
                raise InputError(f"has {len(cells)} column(s), line {first[0]} has {first[1]}")
            words.append((line, *_word(cells, places, labelled=labelled)))
        except InputError as error:
            errors.add(InputError(error.message, file=path, line=line, field=error.field))
    sentences += _sentence(path, words)
    errors.raise_if_any()
    if not sentences:
        raise InputError("has no words", file=path)
    return sentences


def _cells(path: Path, *, is_universal: bool) -> Iterator[tuple[int, list[str] | None]]:
    """The columns of each word; None for what ends a sentence."""
    for line, text in read_lines(path):
        if not text.strip():
            yield line, None
        elif is_universal and text.startswith("#"):
            continue
        elif not is_universal and text.startswith("-DOCSTART-"):
            yield line, None
        else:
            cells = text.split("\t") if "\t" in text or is_universal else re.split(" +", text.strip(" "))
            if not is_universal or cells[0].isdecimal():
                yield line, cells
            elif not re.fullmatch(r"\d+[-.]\d+", cells[0]):  # 3-4 is written as one, 3.1 is not written at all
                message = f"{cells[0][:40]!r} is no id; a word has a number, as 3, 3-4 or 3.1"
                raise InputError(message, file=path, line=line, field="id")


def _places(columns: str | None, *, is_universal: bool) -> tuple[int, int, int | None]:
    """Index of word and tag among the cells, and how many cells there must be (None: any number)."""
    if is_universal:
        wanted = {"tokens": "form", "tags": "upos"}
        for entry in (columns or "").split(",") if columns else []:
            name, _, source = entry.partition("=")
            if name not in wanted or source not in CONLLU:
                raise InputError(
                    f"{entry!r} is not tags=COLUMN; the columns of CoNLL-U are: {', '.join(CONLLU)}", field=FLAG
                )
            wanted[name] = source
        return CONLLU.index(wanted["tokens"]), CONLLU.index(wanted["tags"]), len(CONLLU)
    if columns is None:
        return 0, -1, None
    names = [name.strip() for name in columns.split(",")]
    unknown = [name for name in names if name not in ("tokens", "tags", *SKIPPED)]
    if unknown or names.count("tokens") != 1 or names.count("tags") > 1:
        raise InputError(
            f"{columns!r} does not name the columns in order; for example tokens,-,-,tags (- skips one)", field=FLAG
        )
    return names.index("tokens"), names.index("tags") if "tags" in names else -1, len(names)


def _word(cells: list[str], places: tuple[int, int, int | None], *, labelled: bool) -> tuple[str, str | None]:
    word, tag, size = places
    if size is not None and len(cells) != size:
        raise InputError(f"has {len(cells)} column(s); {size} are needed")
    if not cells[word].strip():
        raise InputError("is empty", field="tokens")
    if not labelled:
        return cells[word].strip(), None
    if size is None and len(cells) == len(CONLLU) and cells[0].isdecimal():
        raise InputError("looks like CoNLL-U; call the file .conllu, or name its columns with --columns")
    if len(cells) < 2:
        raise InputError(f"has the word {cells[0]!r} and no tag; write WORD<TAB>TAG")
    if not cells[tag].strip() or (size == len(CONLLU) and cells[tag] == "_"):
        fix = "is empty; the last column holds the tag, or --columns names them: tokens,tags,-"
        raise InputError(fix if size is None else "is empty", field="tags")
    return cells[word].strip(), cells[tag].strip()


def _sentence(path: Path, words: Sequence[tuple[int, str, str | None]]) -> list[TaggedExample]:
    if not words:
        return []
    lines, forms, tags = zip(*words, strict=True)
    return [TaggedExample(path, lines[0], forms, None if None in tags else tags, lines)]


def _from_rows(path: Path, columns: str | None, *, labelled: bool) -> list[TaggedExample]:
    required = ("tokens|words", "tags|ner_tags|labels") if labelled else ("tokens|words",)
    rows = read_all_rows(path, required=required, columns=columns, text_columns=())
    examples, errors = [], ErrorCollector()
    for row in rows:
        place: dict[str, Any] = {"file": row.file, "line": row.line}
        try:
            words = _texts(row.values["tokens"], "tokens", place)
            tags = _texts(row.values["tags"], "tags", place) if labelled else None
            if tags is not None and len(tags) != len(words):
                raise InputError(f"has {len(tags)} tags for {len(words)} tokens", **place, field="tags")
        except InputError as error:
            errors.add(error)
            continue
        if words:
            examples.append(TaggedExample(row.file, row.line, words, tags))
        else:
            errors.add(InputError("is empty", **place, field="tokens"))
    errors.raise_if_any()
    return examples


def _texts(value: Any, field: str, place: dict[str, Any]) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InputError(f"is {kind_of(value)}; a list is needed", **place, field=field)
    texts = []
    for item in value:
        if isinstance(item, list | dict | None):
            raise InputError("holds what is neither text nor number", **place, field=field)
        text = str(item).strip()
        if not text:
            raise InputError(f"holds an empty entry in {listing(map(repr, value), 5)}", **place, field=field)
        texts.append(text)
    return tuple(texts)
