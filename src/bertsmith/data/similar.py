"""Rows of texts that belong together: scored pairs, an anchor with its positive and negatives, or texts alone.

    text_a  text_b  score                      how similar the two are
    anchor  positive  negative  negative_2 …   what belongs to the anchor, and what does not; or a list `negatives`
    text                                       nothing is known of it

The columns decide the kind of a file. Not here: pairs with labels of a classifier (`data.examples`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bertsmith.data.examples import Example, finite_number
from bertsmith.data.text import Row, read_all_rows
from bertsmith.errors import ErrorCollector, InputError

Kind = Literal["scores", "pairs", "texts"]

ScoreRange = tuple[float, ...]
"""Lowest and highest score of a file; empty: any finite number, taken as it is."""

COSINES: ScoreRange = (-1.0, 1.0)
SHARES: ScoreRange = (0.0, 1.0)

MOST = 32
"""Negatives of a row that columns may hold."""

NEGATIVES = ("negative", *(f"negative_{i}" for i in range(1, MOST + 1)))

GROUPED = ("positive", *NEGATIVES, "negatives")


@dataclass(frozen=True, slots=True)
class SimilarityExample:
    """One row of an embedder."""

    file: Path
    line: int
    kind: Kind
    texts: tuple[str, ...]
    """Two texts (scores), anchor, positive and negatives (pairs), or one text."""
    score: float | None = None
    """Of kind scores: between -1 and 1, or what the file has where its range is not known."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The column of each text; all negatives are `negative`."""
        if self.kind == "pairs":
            return ("anchor", "positive", *["negative"] * (len(self.texts) - 2))
        return ("text_a", "text_b") if self.kind == "scores" else ("text",)

    @property
    def content(self) -> tuple[str, ...]:
        """What the model reads: equal for rows that are duplicates."""
        return self.texts

    @property
    def label(self) -> float | None:
        """What is to be learnt."""
        return self.score


def parse_score_range(text: str | None, *, default: ScoreRange) -> ScoreRange:
    """`"0,5"` -> `(0.0, 5.0)`, `"5"` -> the same. Raises `InputError` about `--score-range`."""
    if text is None:
        return default
    try:
        ends = [float(part) for part in text.split(",")]
    except ValueError:
        ends = []
    ends = [0.0, *ends] if len(ends) == 1 else ends
    if len(ends) != 2 or not all(map(math.isfinite, ends)) or ends[0] >= ends[1]:
        raise InputError(f"{text!r} is not LOWEST,HIGHEST, for example 0,5", field="--score-range")
    return tuple(ends)


def scaled_score(value: Any, wanted: ScoreRange, place: dict[str, Any]) -> float:
    """A cell as a number of the range `wanted`, scaled to 0 to 1, or to -1 to 1 if the range has negative numbers.

    `"2.5", (0, 5) -> 0.5`. Raises `InputError` at `place` for what is no finite number, or outside of the range.
    """
    score = finite_number(value, place)
    if not wanted:
        return score
    low, high = wanted
    if not low <= score <= high:
        fix = "give --score-range LOWEST,HIGHEST of the file's scores, for example 0,5"
        raise InputError(f"is {score:g}, outside of {low:g} to {high:g}; {fix}", **place)
    return score / max(-low, high) if low < 0 else (score - low) / (high - low)


def read_similar(
    path: Path, *, columns: str | None = None, labelled: bool = True, score_range: ScoreRange = COSINES
) -> list[SimilarityExample]:
    """The rows of an embedder's file, all of one kind. Without `labelled`, pairs need no score.

    Raises `InputError`s with file, line and field: missing columns, empty texts, scores that are no numbers or out of
    their range, a negative that is also the positive.
    """
    rows = read_all_rows(
        path,
        required=(),
        optional=("text_a|sentence1", "text_b|sentence2", "score|label", "anchor|query", *GROUPED, "text|sentence"),
        columns=columns,
        text_columns=("text", "text_a", "text_b", "anchor", "positive", *NEGATIVES),
    )
    kind = _kind(rows[0])
    examples, errors = [], ErrorCollector()
    for row in rows:
        place: dict[str, Any] = {"file": row.file, "line": row.line}
        try:
            score = None
            if kind == "scores":
                texts = _texts(row, ("text_a", "text_b"))
                if labelled:
                    score = scaled_score(_present(row, "score"), score_range, place | {"field": "score"})
            elif kind == "pairs":
                anchor, positive = _texts(row, ("anchor", "positive"))
                texts = (anchor, positive, *_negatives(row, anchor))
            else:
                texts = _texts(row, ("text",))
            examples.append(SimilarityExample(row.file, row.line, kind, texts, score))
        except InputError as error:
            errors.add(error)
    errors.raise_if_any()
    return examples


def read_relevance(
    path: Path, *, columns: str | None = None, labelled: bool = True, score_range: ScoreRange = SHARES
) -> list[Example]:
    """The rows of a reranker: query, text, and as label how relevant the text is, from 0 to 1.

    A row of anchor, positive and negatives becomes several with the same line. Raises `InputError`s as `read_similar`.
    """
    rows = read_all_rows(
        path,
        required=(),
        optional=("text_a|query|anchor", "text_b|passage", "label|score", *GROUPED),
        columns=columns,
        text_columns=("text_a", "text_b", "positive", *NEGATIVES),
    )
    first = rows[0].values
    if "positive" not in first and "text_b" not in first:
        raise _unknown_columns(rows[0], "`text_a`, `text_b` and `label`, or `anchor` and `positive`")
    examples, errors = [], ErrorCollector()
    for row in rows:
        place: dict[str, Any] = {"file": row.file, "line": row.line}
        try:
            if "positive" in first:
                query, positive = _texts(row, ("text_a", "positive"))
                parts = [(positive, 1.0), *((text, 0.0) for text in _negatives(row, query))]
                examples += [Example(row.file, row.line, query, text, label) for text, label in parts]
            else:
                query, text = _texts(row, ("text_a", "text_b"))
                label = None
                if labelled:
                    label = scaled_score(_present(row, "label"), score_range, place | {"field": "label"})
                examples.append(Example(row.file, row.line, query, text, label))
        except InputError as error:
            errors.add(error)
    errors.raise_if_any()
    return examples


def _kind(row: Row) -> Kind:
    if "anchor" in row.values or "positive" in row.values:
        return "pairs"
    if "text_a" in row.values or "text_b" in row.values:
        return "scores"
    if "text" in row.values:
        return "texts"
    raise _unknown_columns(row, "`anchor` and `positive`, or `text_a`, `text_b` and `score`, or `text`")


def _unknown_columns(row: Row, needed: str) -> InputError:
    found = ", ".join(row.values) or "no known column"
    fix = "name the columns with --columns"
    return InputError(f"found {found}; needed are {needed}; {fix}", file=row.file, line=1)


def _present(row: Row, name: str) -> Any:
    if name not in row.values:
        raise InputError("is missing; name the column with --columns", file=row.file, line=row.line, field=name)
    return row.values[name]


def _texts(row: Row, names: Sequence[str]) -> tuple[str, ...]:
    texts = tuple(_present(row, name) for name in names)
    for name, text in zip(names, texts, strict=True):
        if not text.strip():
            raise InputError("is empty", file=row.file, line=row.line, field=name)
    return texts


def _negatives(row: Row, anchor: str) -> tuple[str, ...]:
    """Those of the columns, then those of the list; empty cells are none."""
    place: dict[str, Any] = {"file": row.file, "line": row.line}
    found = [row.values[name] for name in NEGATIVES if row.values.get(name, "").strip()]
    listed = row.values.get("negatives", [])
    if not isinstance(listed, list) or not all(isinstance(text, str) and text.strip() for text in listed):
        raise InputError("is not a list of texts that are not empty", **place, field="negatives")
    for text in (*found, *listed):
        if text in (row.values["positive"], anchor):
            twin = "positive" if text == row.values["positive"] else "anchor"
            raise InputError(f"is the same text as the {twin}; remove it", **place, field="negative")
    return tuple(dict.fromkeys((*found, *listed)))
