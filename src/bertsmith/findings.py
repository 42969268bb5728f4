"""What `check` finds in rows, one function a question: each yields findings with line numbers. No model is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bertsmith.data.archives import format_of
from bertsmith.data.choices import ChoiceExample
from bertsmith.data.examples import Example
from bertsmith.data.questions import Question
from bertsmith.data.similar import SimilarityExample
from bertsmith.data.tagged import TaggedExample
from bertsmith.errors import listing
from bertsmith.tasks.chain import allowed, completed, doubtful, obeys, scheme_of, strays
from bertsmith.tasks.relevance import RELEVANT
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

MOST_LINES = 5
"""How many places a finding names."""

RARE, LOPSIDED = 5, 10
"""Rows below which a label is rare, and the ratio of the commonest to the rarest from which weights are advised."""

UNKNOWN_SHARE = 0.02
"""Share of `[UNK]` from which the vocabulary does not suit the text."""


@dataclass(frozen=True)
class Finding:
    """Something to know about a file. An `error` is what `finetune` refuses."""

    kind: Literal["error", "warning", "note"]
    file: Path
    message: str
    lines: tuple[int, ...] = ()

    def __str__(self) -> str:
        has_lines = format_of(self.file)[0] != ".json"  # of SQuAD's JSON questions are counted
        where = f"{self.file}:{self.lines[0]}" if self.lines and has_lines else str(self.file)
        unit = "lines" if has_lines else "questions number"
        more = f" ({unit} {places(self.lines)})" if len(self.lines) > has_lines else ""
        return f"{where}: {self.kind}: {self.message}{more}"


def places(lines: Sequence[int]) -> str:
    """`[3, 9, 12]` -> `"3, 9, 12"`; beyond `MOST_LINES` their number is added."""
    return listing((str(line) for line in lines), limit=MOST_LINES)


def duplicates(file: Path, rows: Sequence[Any]) -> Iterator[Finding]:
    """Rows with the same content, and those among them with another label."""
    first: dict[tuple[str, ...], Any] = {}
    same: list[int] = []
    other: list[int] = []
    for row in rows:
        before = first.setdefault(row.content, row)
        if before is not row:
            (same if truth_of(row) == truth_of(before) else other).append(row.line)
    if same:
        yield Finding("warning", file, f"{len(same)} rows repeat an earlier one; remove them", tuple(same))
    if other:
        message = f"{len(other)} rows repeat an earlier one with another label; decide which is right"
        yield Finding("warning", file, message, tuple(other))


def leakage(splits: Sequence[tuple[Path, Sequence[Any]]]) -> Iterator[Finding]:
    """Rows of a later file that an earlier one has too: what is trained on cannot test."""
    seen: dict[tuple[str, ...], Path] = {}
    for file, rows in splits:
        shared: dict[Path, list[int]] = {}
        for row in rows:
            if row.content in seen:
                shared.setdefault(seen[row.content], []).append(row.line)
        for earlier, lines in shared.items():
            share = f"{len(lines)} of {len(rows)} rows are also in {earlier}"
            same = "; it is the same file" if earlier.resolve() == file.resolve() else ""
            yield Finding("warning", file, f"{share}{same}: figures on it will be too good", tuple(lines))
        for row in rows:
            seen.setdefault(row.content, file)


def labels(splits: Sequence[tuple[Path, Sequence[Example]]]) -> Iterator[Finding]:
    """Balance of the labels, and labels that the training file lacks."""
    train, rows = splits[0]
    counts = label_counts(rows)
    if not counts:
        scores = {row.label for row in rows}
        if len(scores) == 1:
            what = "no row has a label" if scores == {()} else f"all {len(rows)} rows have the score {scores.pop()}"
            yield Finding("error", train, what)
        return
    if len(counts) == 1 and not isinstance(rows[0].label, tuple):
        yield Finding(
            "error", train, f"all {len(rows)} rows have the label {next(iter(counts))!r}; at least two are needed"
        )
        return
    if len(counts) > max(20, len(rows) // 2):
        message = f"{len(counts)} different labels in {len(rows)} rows: is the label column a text or a number?"
        yield Finding("warning", train, f"{message} --columns maps columns, --problem regression takes numbers")
    yield from _alike(train, counts)
    rare = [name for name, count in counts.items() if count < RARE]
    if rare and len(rare) < len(counts):
        message = f"{len(rare)} labels have fewer than {RARE} rows: {listing(rare, 5)}"
        yield Finding("warning", train, f"{message}; collect more, or join them")
    if max(counts.values()) >= LOPSIDED * min(counts.values()):
        ratio = max(counts.values()) / min(counts.values())
        message = f"the commonest label has {ratio:.0f} times the rows of the rarest; --class-weights auto weighs them"
        yield Finding("note", train, message)
    for file, others in splits[1:]:
        for name in label_counts(others).keys() - counts.keys():
            lines = tuple(row.line for row in others if name in _names(row.label))
            yield Finding("error", file, f"label {name!r} is not in {train}", lines)
        if missing := counts.keys() - label_counts(others).keys():
            yield Finding("note", file, f"{len(missing)} labels of {train} do not occur: {listing(sorted(missing), 5)}")


def _alike(file: Path, counts: Iterable[str]) -> Iterator[Finding]:
    """Labels that people would call the same."""
    groups: dict[str, list[str]] = {}
    for name in counts:
        try:
            key = repr(float(name))
        except ValueError:
            key = " ".join(name.casefold().split())
        groups.setdefault(key, []).append(name)
    for names in groups.values():
        if len(names) > 1:
            listed = listing(map(repr, sorted(names)), 5)
            yield Finding("warning", file, f"{listed} are different labels as they stand; write them alike")


def pairs(splits: Sequence[tuple[Path, Sequence[Example]]]) -> Iterator[Finding]:
    """Files of which one has pairs of texts and another has not."""
    train, rows = splits[0]
    has_pairs = rows[0].pair is not None
    for file, others in splits[1:]:
        if others and (others[0].pair is not None) != has_pairs:
            what = f"rows have {'one text' if has_pairs else 'pairs of texts'}, those of {train} have"
            yield Finding("warning", file, f"{what} {'pairs of texts' if has_pairs else 'one text'}; --columns")


def texts(file: Path, rows: Sequence[Example]) -> Iterator[Finding]:
    """Empty texts, and columns that seem to be exchanged."""
    empty = tuple(row.line for row in rows if not row.text.strip() or (row.pair is not None and not row.pair.strip()))
    if empty:
        yield Finding("warning", file, f"{len(empty)} rows have an empty text", empty)
    numbers = sum(row.text.strip().replace(".", "", 1).isdigit() for row in rows)
    if rows and numbers > len(rows) / 2:
        yield Finding(
            "warning", file, f"{numbers} of {len(rows)} texts are numbers: is another column meant? --columns"
        )
    distinct = len({row.text for row in rows})
    if len(rows) >= 20 and distinct <= len(rows) / 10 and distinct <= len(label_counts(rows)):
        message = (
            f"there are {distinct} different texts and {len(label_counts(rows))} labels: are the columns exchanged?"
        )
        yield Finding("warning", file, f"{message} --columns")


def tag_sequences(splits: Sequence[tuple[Path, Sequence[TaggedExample]]]) -> Iterator[Finding]:
    """Tags that the scheme of the training file forbids, and tags that it lacks."""
    train, rows = splits[0]
    scheme = scheme_of([row.tags or () for row in rows])
    known = {tag for row in rows for tag in row.tags or ()}
    if len(known) == 1:
        yield Finding("error", train, f"every word has the tag {next(iter(known))!r}")
    if doubt := doubtful(sorted(known)):
        odd = set(strays(sorted(known)))
        found = ((row, i) for row in rows for i, tag in enumerate(row.tags or ()) if tag in odd)
        yield Finding("warning", train, doubt, tuple(_line(row, i) for row, i in found))
    elif scheme != "none" and obeys([row.tags or () for row in rows], scheme):
        known.update(completed(sorted(known), scheme))
    for file, others in splits:
        bad, unknown = [], []
        for row in others:
            tags = row.tags or ()
            for place, (before, tag) in enumerate(zip(("", *tags), (*tags, ""), strict=True)):
                line = _line(row, min(place, len(tags) - 1))
                if not allowed(before, tag, scheme):
                    bad.append((line, before or "the beginning", tag or "the end"))
                if tag and tag not in known:
                    unknown.append((line, tag))
        if bad:
            line, before, tag = bad[0]
            message = f"{len(bad)} tags cannot follow the one before in {scheme}: {tag} after {before}"
            yield Finding("warning", file, message, tuple(line for line, _, _ in bad))
        if unknown:
            names = listing(sorted({tag for _, tag in unknown}), 5)
            yield Finding("error", file, f"tags that are not in {train}: {names}", tuple(line for line, _ in unknown))


def _line(row: TaggedExample, word: int) -> int:
    return row.line if row.lines is None else row.lines[word]


def answers(file: Path, rows: Sequence[Question], *, is_training: bool) -> Iterator[Finding]:
    """Answers that stand beside the place that the file gives; how many questions have none."""
    moved = tuple(row.line for row in rows if row.moved)
    if moved:
        message = f"{len(moved)} answers do not stand where answer_start says; the nearest place is taken"
        yield Finding("warning", file, message, moved)
    none = sum(not row.answers for row in rows)
    if none == len(rows) and is_training:
        yield Finding("error", file, "no question has an answer")
    elif none:
        yield Finding("note", file, f"{none} of {len(rows)} questions have no answer; the model will learn to say so")


def choices(file: Path, rows: Sequence[ChoiceExample]) -> Iterator[Finding]:
    """Where the right choice stands, and rows that offer the same text twice."""
    counts = Counter(row.label for row in rows)
    most, times = counts.most_common(1)[0]
    if len(rows) >= 50 and times > 0.9 * len(rows):
        message = f"the right choice is number {most} in {times} of {len(rows)} rows; shuffle the choices"
        yield Finding("warning", file, message)
    twice = tuple(row.line for row in rows if len(set(row.choices)) < len(row.choices))
    if twice:
        yield Finding("warning", file, f"{len(twice)} rows offer the same choice twice", twice)


def similar(file: Path, rows: Sequence[SimilarityExample]) -> Iterator[Finding]:
    """Anchors that are their own positive, texts that are the positive of many, and scores that hardly differ."""
    kind = rows[0].kind
    if kind == "scores":
        if len({row.score for row in rows}) == 1:
            yield Finding("error", file, f"all {len(rows)} rows have the same score")
        return
    if kind == "texts":
        return
    same = tuple(row.line for row in rows if row.texts[0] == row.texts[1])
    if same:
        yield Finding("warning", file, f"{len(same)} rows have the anchor as its positive; nothing is learnt", same)
    text, times = Counter(row.texts[1] for row in rows).most_common(1)[0]
    if len(rows) >= 20 and times > len(rows) / 10:
        message = f"{text[:40]!r} is the positive of {times} of {len(rows)} rows: in a batch it is no negative of them"
        yield Finding("note", file, message)


def relevance(file: Path, rows: Sequence[Example], *, is_training: bool) -> Iterator[Finding]:
    """Whether there is something to tell apart, overall and for each query."""
    if is_training and len({row.label for row in rows}) == 1:
        message = f"all {len(rows)} rows have the label {rows[0].label}; --mine N --mine-with DIR finds negatives"
        yield Finding("warning", file, message)
    known = {row.text for row in rows if isinstance(row.label, float) and row.label >= RELEVANT}
    without = [row.line for row in rows if row.text not in known]
    if without and known:
        share = len({row.text for row in rows} - known)
        yield Finding("note", file, f"{share} queries have no relevant text", tuple(dict.fromkeys(without)))


def lengths(
    file: Path, rows: Sequence[Any], tokenizer: TextTokenizer, *, limit: int
) -> tuple[dict[str, float], list[Finding]]:
    """Tokens of the rows, special ones included, against `limit`; and how much of the text the vocabulary lacks."""
    counts, unknown, total, marked, silent = [], 0, 0, [], []
    for row, parts in zip(rows, _parts(rows), strict=True):
        ids = tokenizer.encode_ids(list(parts))
        lacking = sum(part.count(tokenizer.unk_id) for part in ids)
        size = sum(map(len, ids))
        unknown, total = unknown + lacking, total + size
        counts.append(size + len(ids) + 1 if not isinstance(row, TaggedExample) else size + 2)
        if lacking:
            marked.append(row.line)
        if any(part.strip() and not found for part, found in zip(parts, ids, strict=True)):
            silent.append(row.line)
    sizes = np.array(counts)
    asked = [row for row in rows if isinstance(row, Question)]
    room = limit - 3 - min(128, limit // 4)  # a window holds more of the text than two windows share
    too_long = tuple(row.line for row in asked if len(tokenizer.encode_ids([row.question])[0]) >= room)
    over = tuple(row.line for row, size in zip(rows, counts, strict=True) if size > limit)
    figures = {
        "tokens_median": float(np.median(sizes)),
        "tokens_95_percent": float(np.quantile(sizes, 0.95)),
        "tokens_longest": int(sizes.max()),
        "longer_than_limit": len(over),
        "limit": limit,
        "unknown_pieces": unknown / max(total, 1),
    }
    found = []
    if too_long:
        message = f"{len(too_long)} questions leave no room for the text in {limit} tokens"
        found.append(Finding("error", file, message, too_long))
    if over:
        share = f"{len(over)} of {len(rows)} rows ({len(over) / len(rows):.1%}) are longer than {limit} tokens"
        found.append(Finding("warning", file, share, over))
    if silent:
        message = f"{len(silent)} rows have a text that the tokenizer makes nothing of: invisible characters?"
        found.append(Finding("warning", file, message, tuple(silent)))
    if unknown > UNKNOWN_SHARE * max(total, 1):
        message = f"{unknown / total:.1%} of the pieces are [UNK]: this vocabulary does not suit the text"
        found.append(Finding("warning", file, message, tuple(marked)))
    return figures, found


def label_counts(rows: Iterable[Example]) -> Counter[str]:
    """How many rows have each label; empty of a regression."""
    return Counter(name for row in rows for name in _names(row.label))


def truth_of(row: Any) -> Any:
    """What is to be learnt of a row."""
    if isinstance(row, TaggedExample):
        return row.tags
    return row.answers if isinstance(row, Question) else row.label


def _names(label: Any) -> tuple[str, ...]:
    return label if isinstance(label, tuple) else (label,) if isinstance(label, str) else ()


def _parts(rows: Sequence[Any]) -> Iterator[tuple[str, ...]]:
    """The texts of each row that enter one sequence; of multiple choice those with the longest choice."""
    for row in rows:
        if isinstance(row, SimilarityExample):
            yield (max(row.texts, key=len),)
        elif isinstance(row, ChoiceExample):
            yield row.text, max(row.choices, key=len)
        elif isinstance(row, Example):
            yield (row.text,) if row.pair is None else (row.text, row.pair)
        else:
            yield row.content
