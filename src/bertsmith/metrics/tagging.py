"""Metrics of tagged words: entities found and right, by span and class; and the share of right tags.

A prefix starts or ends an entity as in the CoNLL-2000 evaluation (and seqeval's default mode), so that BIO, IOB1,
BILOU and BIOES are read by one rule: an entity ends where its class changes, at O, before B, S and U, and after E, L, S
and U.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from bertsmith.metrics.judgement import Judgement, Mistake, f1_parts, surest

PREFIXES = frozenset("BIOESLU")
_AS_BIOES = {"L": "E", "U": "S"}

Scheme = Literal["none", "BIO", "IOB1", "BILOU"]

Entity = tuple[str, int, int]
"""Class, first word, word after the last."""


def split_tag(tag: str) -> tuple[str, str]:
    """`"B-PER"` -> `("B", "PER")`, `"O"` -> `("O", "")`; BILOU's L and U become E and S."""
    prefix, _, kind = tag.partition("-")
    return _AS_BIOES.get(prefix, prefix), kind


def entities(tags: Sequence[str]) -> list[Entity]:
    """`["B-PER", "I-PER", "O", "I-ORG"]` -> `[("PER", 0, 2), ("ORG", 3, 4)]`."""
    found: list[Entity] = []
    start, before, kind_before = 0, "O", ""
    for i, tag in enumerate([*tags, "O"]):
        prefix, kind = split_tag(tag)
        inside = before != "O"
        if inside and (prefix in "BSO" or before in "ES" or kind != kind_before):
            found.append((kind_before, start, i))
            inside = False
        if not inside:
            start = i
        before, kind_before = prefix, kind
    return found


def is_entity_scheme(labels: Sequence[str]) -> bool:
    """Whether all labels are `O` or `PREFIX-CLASS`, and at least one is the latter."""
    marked = [label for label in labels if label != "O"]
    return bool(marked) and all(label[0] in PREFIXES and label[1:2] == "-" and len(label) > 2 for label in marked)


def known_scheme(labels: Sequence[str]) -> Scheme:
    """The scheme that the names of the labels allow for: "BIO" may be IOB1 too, which only sentences tell apart."""
    if not is_entity_scheme(labels):
        return "none"
    return "BILOU" if any(label[0] in "LEUS" for label in labels if label != "O") else "BIO"


def judge_entities(
    truth: Sequence[Sequence[str]], answers: Sequence[Sequence[str]], confidences: Sequence[np.ndarray]
) -> Judgement:
    """Metrics over sentences: `f1`, `precision`, `recall` of entities, `macro_f1` over their classes, `accuracy` of
    tags. `confidences[i]` `[words]`: probability of each answer."""
    true, given = ([set(entities(tags)) for tags in part] for part in (truth, answers))
    classes = sorted({entity[0] for part in (true, given) for found in part for entity in found})
    numbers = {name: i for i, name in enumerate(classes)}
    counts = np.zeros((len(truth), 3, len(classes)), np.int64)  # right, answered, true
    for i, (wanted, found) in enumerate(zip(true, given, strict=True)):
        for place, part in enumerate((wanted & found, found, wanted)):
            for name, number in Counter(entity[0] for entity in part).items():
                counts[i, place, numbers[name]] = number
    tags = _tag_counts(truth, answers)

    def score(rows: np.ndarray) -> dict[str, float]:
        by_class = counts[rows].sum(0)
        precision, recall, f1 = f1_parts(*by_class.sum(1))
        macro = f1_parts(*by_class)[2]
        return {
            "f1": float(f1),
            "precision": float(precision),
            "recall": float(recall),
            "macro_f1": float(macro.mean()) if len(macro) else 0.0,
            "accuracy": _share(tags[rows]),
        }

    mistakes = []
    for i, (wanted, found) in enumerate(zip(true, given, strict=True)):
        for kind, start, end in found - wanted:
            at = [name for name, first, last in wanted if first < end and start < last]
            sure = float(confidences[i][start:end].mean())
            mistakes.append(Mistake(i, ", ".join(at) or "O", f"{kind} (words {start + 1} to {end})", sure))
        for kind, start, end in wanted - found:
            if not any(first < end and start < last for _, first, last in found):
                sure = float(confidences[i][start:end].mean())
                mistakes.append(Mistake(i, f"{kind} (words {start + 1} to {end})", "O", sure))
    total = counts.sum(0)
    parts = zip(classes, *f1_parts(*total), total[2], strict=True)
    per_class = [
        {"label": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in parts
    ]
    return Judgement(
        len(truth),
        score,
        per_class=per_class,
        mistakes=surest(mistakes),
        counts={"words": int(tags[:, 1].sum()), "entities": int(total[2].sum())},
    )


def judge_tags(
    truth: Sequence[Sequence[str]],
    answers: Sequence[Sequence[str]],
    confidences: Sequence[np.ndarray],
    labels: Sequence[str],
) -> Judgement:
    """Tags without spans, as parts of speech: `accuracy` over words and `macro_f1` over the labels that occur."""
    every = sorted({tag for part in (truth, answers) for tags in part for tag in tags} | set(labels))
    numbers, size = {name: i for i, name in enumerate(every)}, len(every)
    tables = np.zeros((len(truth), size, size), np.int32) if len(truth) * size**2 < 2**26 else None
    flat = [
        np.array([numbers[a] * size + numbers[b] for a, b in zip(t, g, strict=True)], np.int64)
        for t, g in zip(truth, answers, strict=True)
    ]
    if tables is not None:
        for table, cells in zip(tables, flat, strict=True):
            np.add.at(table.reshape(-1), cells, 1)

    def counted(rows: np.ndarray) -> np.ndarray:
        if tables is not None:
            weights = np.bincount(rows, minlength=len(truth)).astype(np.float64)
            return np.tensordot(weights, tables, axes=1)
        cells = np.concatenate([flat[row] for row in rows]) if len(rows) else np.zeros(0, np.int64)
        return np.bincount(cells, minlength=size * size).reshape(size, size)

    def score(rows: np.ndarray) -> dict[str, float]:
        table = counted(rows)
        occurs = (table.sum(0) + table.sum(1)) > 0
        _, _, f1 = f1_parts(table.diagonal(), table.sum(0), table.sum(1))
        total = table.sum()
        return {
            "accuracy": float(table.trace() / total) if total else 0.0,
            "macro_f1": float(f1[occurs].mean()) if occurs.any() else 0.0,
        }

    whole = counted(np.arange(len(truth))).astype(np.int64)
    parts = zip(every, *f1_parts(whole.diagonal(), whole.sum(0), whole.sum(1)), whole.sum(1), strict=True)
    mistakes = [
        Mistake(i, f"{wanted} (word {place + 1})", found, float(confidences[i][place]))
        for i, (t, g) in enumerate(zip(truth, answers, strict=True))
        for place, (wanted, found) in enumerate(zip(t, g, strict=True))
        if wanted != found
    ]
    return Judgement(
        len(truth),
        score,
        per_class=[
            {"label": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
            for name, p, r, f, n in parts
        ],
        labels=every,
        confusion=whole,
        mistakes=surest(mistakes),
        counts={"words": int(whole.sum())},
    )


def _tag_counts(truth: Sequence[Sequence[str]], answers: Sequence[Sequence[str]]) -> np.ndarray:
    """`[sentences, 2]`: right tags, and words."""
    pairs = zip(truth, answers, strict=True)
    found = [(sum(a == b for a, b in zip(t, g, strict=True)), len(t)) for t, g in pairs]
    return np.array(found, np.int64).reshape(-1, 2)


def _share(counts: np.ndarray) -> float:
    right, total = counts.sum(0)
    return float(right / total) if total else 0.0
