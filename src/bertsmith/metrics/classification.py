"""Metrics of labels: one of several, several at once, and numbers.

Definitions as scikit-learn's and scipy's; here they take row numbers, because a bootstrap asks for a thousand of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from bertsmith.metrics.judgement import Judgement, Mistake, f1_parts, surest

BINS = 15
"""Of the calibration error (Guo et al. 2017, section 2)."""


def judge_classes(truth: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]) -> Judgement:
    """One label out of several: `truth` `[rows]`, `probabilities` `[rows, labels]`.

    Metrics: `accuracy`; `macro_f1` over all labels, one that neither occurs nor is answered counts 0; `weighted_f1`;
    `mcc` (Matthews; 0 where it is not defined); `calibration_error`; of two labels `f1_LABEL` of each.
    """
    count, size = len(labels), len(truth)
    answers, confidences = probabilities.argmax(1), probabilities.max(1)

    def score(rows: np.ndarray) -> dict[str, float]:
        table = _table(truth[rows], answers[rows], count)
        _, _, f1 = f1_parts(table.diagonal(), table.sum(0), table.sum(1))
        metrics = {
            "accuracy": float(table.trace() / len(rows)),
            "macro_f1": float(f1.mean()),
            "weighted_f1": float(f1 @ table.sum(1) / len(rows)),
            "mcc": matthews(table),
            "calibration_error": calibration_error(confidences[rows], (truth == answers)[rows]),
        }
        return metrics | (
            {f"f1_{label}": float(value) for label, value in zip(labels, f1, strict=True)} if count == 2 else {}
        )

    table = _table(truth, answers, count)
    wrong = [
        Mistake(int(row), labels[truth[row]], labels[answers[row]], float(confidences[row]))
        for row in np.flatnonzero(truth != answers)
    ]
    return Judgement(
        size,
        score,
        per_class=_per_class(labels, table.diagonal(), table.sum(0), table.sum(1)),
        labels=labels,
        confusion=table,
        mistakes=surest(wrong),
        confidences=confidences,
        is_right=truth == answers,
    )


def judge_label_sets(
    truth: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], thresholds: np.ndarray
) -> Judgement:
    """Any number of labels: `truth` `[rows, labels]` of 0 and 1; a label is answered from its threshold on.

    Metrics: `micro_f1`, `macro_f1`, `exact_match` (all labels of a row right). A mistake is as sure as the row's surest
    wrong decision about a label.
    """
    true, answers = truth.astype(bool), probabilities >= thresholds
    right = true & answers

    def score(rows: np.ndarray) -> dict[str, float]:
        parts = [part[rows].sum(0) for part in (right, answers, true)]
        micro = f1_parts(*(np.asarray(part.sum()) for part in parts))[2]
        return {
            "micro_f1": float(micro),
            "macro_f1": float(f1_parts(*parts)[2].mean()),
            "exact_match": float((true == answers)[rows].all(1).mean()),
        }

    def names(flags: np.ndarray) -> str:
        return ", ".join(label for label, flag in zip(labels, flags, strict=True) if flag) or "none"

    sure = np.where(true == answers, 0.0, np.where(answers, probabilities, 1 - probabilities)).max(1)
    wrong = [
        Mistake(int(row), names(true[row]), names(answers[row]), float(sure[row]))
        for row in np.flatnonzero((true != answers).any(1))
    ]
    per_class = _per_class(labels, right.sum(0), answers.sum(0), true.sum(0))
    return Judgement(len(true), score, per_class=per_class, labels=labels, mistakes=surest(wrong))


def judge_numbers(truth: np.ndarray, answers: np.ndarray) -> Judgement:
    """Numbers: `pearson`, `spearman` (both 0 where either side is constant), `mean_squared_error`,
    `mean_absolute_error`."""

    def score(rows: np.ndarray) -> dict[str, float]:
        true, given = truth[rows], answers[rows]
        return {
            "pearson": correlation(true, given),
            "spearman": correlation(rankdata(true), rankdata(given)),
            "mean_squared_error": float(np.square(true - given).mean()),
            "mean_absolute_error": float(np.abs(true - given).mean()),
        }

    off = np.abs(truth - answers)
    farthest = np.argsort(-off, kind="stable")[:50].tolist()
    worst = [Mistake(row, f"{truth[row]:g}", f"{answers[row]:.3g}", float(off[row])) for row in farthest]
    return Judgement(len(truth), score, mistakes=worst, measure="error")


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's r; 0 where one of them is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:  # what rounding leaves of them is no deviation
        return 0.0
    a, b = one - one.mean(), other - other.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else 0.0


def matthews(table: np.ndarray) -> float:
    """Matthews' correlation of `[truth, answer]` counts (Gorodkin 2004); 0 where it is not defined."""
    counts = table.astype(np.float64)
    total, true, given = counts.sum(), counts.sum(1), counts.sum(0)
    size = np.sqrt((total**2 - given @ given) * (total**2 - true @ true))
    return float((counts.trace() * total - true @ given) / size) if size > 0 else 0.0


def calibration_error(confidences: np.ndarray, is_right: np.ndarray, bins: int = BINS) -> float:
    """Mean distance between confidence and accuracy in equally wide bins, weighted by their rows."""
    places = np.minimum((confidences * bins).astype(int), bins - 1)
    sure = np.bincount(places, confidences, bins)
    right = np.bincount(places, is_right.astype(np.float64), bins)
    return float(np.abs(sure - right).sum() / len(confidences))


def _table(truth: np.ndarray, answers: np.ndarray, count: int) -> np.ndarray:
    """`[truth, answer]`, counts."""
    return np.bincount(truth * count + answers, minlength=count * count).reshape(count, count)


def _per_class(
    labels: Sequence[str], right: np.ndarray, predicted: np.ndarray, true: np.ndarray
) -> list[dict[str, object]]:
    parts = zip(labels, *f1_parts(right, predicted, true), true, strict=True)
    return [
        {"label": label, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for label, p, r, f, n in parts
    ]
