"""Metrics of answers taken from a text: exact match and the overlap of words, as SQuAD's evaluation counts them.

Rajpurkar et al. 2016, section 5: both sides lower-cased, without punctuation, the articles a, an, the, and doubled
spaces; of several right answers the best counts. Rajpurkar et al. 2018: no answer is right as the empty text.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from bertsmith.metrics.judgement import Judgement, Mistake, surest

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """`"The  cat's hat."` -> `"cats hat"`."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, truth: str) -> float:
    """1.0 if both are equal once normalised."""
    return float(normalized(answer) == normalized(truth))


def overlap(answer: str, truth: str) -> float:
    """F1 of the words that both share, as bags; where one side has no word, whether both have none."""
    given, wanted = normalized(answer).split(), normalized(truth).split()
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted))


def agreement(answer: str, truth: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 with the best of all right answers, none if there is no answer."""
    wanted = [text for text in truth if normalized(text)] or [""]
    return max(exact_match(answer, text) for text in wanted), max(overlap(answer, text) for text in wanted)


def judge_answers(truth: Sequence[Sequence[str]], answers: Sequence[str], scores: Sequence[float]) -> Judgement:
    """Metrics: `f1`, `exact_match`; where some questions have no answer also `f1_` and `exact_match_` of those that
    have one and of those that have none. `truth[i]`: all right answers, none if there is no answer.
    """
    found = np.array([agreement(answer, texts) for answer, texts in zip(answers, truth, strict=True)]).reshape(-1, 2)
    answerable = np.array([bool(texts) for texts in truth])

    def means(rows: np.ndarray, suffix: str = "") -> dict[str, float]:
        exact, f1 = found[rows].mean(0) if len(rows) else (0.0, 0.0)
        return {f"f1{suffix}": float(f1), f"exact_match{suffix}": float(exact)}

    def score(rows: np.ndarray) -> dict[str, float]:
        metrics = means(rows)
        if not answerable.all():
            metrics |= means(rows[answerable[rows]], "_answerable") | means(rows[~answerable[rows]], "_unanswerable")
        return metrics

    wrong = [
        Mistake(i, next(filter(normalized, texts), "(no answer)"), answer or "(no answer)", float(sure))
        for i, (texts, answer, sure) in enumerate(zip(truth, answers, scores, strict=True))
        if not found[i, 0]
    ]
    return Judgement(len(truth), score, mistakes=surest(wrong), counts={"answerable": int(answerable.sum())})
