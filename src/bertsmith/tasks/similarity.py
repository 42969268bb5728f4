"""How good vectors are: cosines against scores, and where each anchor's positive stands among all of the file.

Vectors are dense, or sparse ones of TF-IDF (`baselines`): both are judged by the same code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from bertsmith.data.similar import Kind, SimilarityExample
from bertsmith.metrics.classification import correlation
from bertsmith.metrics.judgement import Judgement, Mistake, surest
from bertsmith.metrics.retrieval import CUTOFF, Ranking, ranking_table, ranks_of

MEASURES: dict[Kind, str] = {"scores": "spearman", "pairs": f"ndcg@{CUTOFF}"}
"""Kind of rows -> the metric that decides."""

BLOCK = 512
"""Anchors that are compared with all texts at a time."""


def cosine_of(one: Any, other: Any) -> np.ndarray:
    """Row by row: `[n, size]` and `[n, size]`, or one of them `[1, size]` -> `[n]`, float64; 0 for a zero vector."""
    if isinstance(one, np.ndarray):
        return np.asarray((unit(one) * unit(other)).sum(1))
    return np.asarray(one.multiply(other).sum(1)).ravel()


def unit(vectors: Any) -> Any:
    """Rows of length 1, float64; TF-IDF's have it already."""
    if not isinstance(vectors, np.ndarray):
        return vectors
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)


def judge_vectors(rows: Sequence[SimilarityExample], vectors: Mapping[str, Any]) -> Judgement:
    """`vectors`: what is put behind the name of a metric -> `[texts, size]`, the texts of all rows in order.

    Of scored pairs `spearman` and `pearson` of the cosines (0 where either side is constant), else the metrics of
    `metrics.retrieval`, each the mean over different anchors: an anchor's relevant texts are the positives of all rows
    with this anchor, and it searches all positives and negatives of the file but itself.
    """
    starts = np.cumsum([0, *(len(row.texts) for row in rows)])[:-1]
    return (_judge_scores if rows[0].kind == "scores" else _judge_pairs)(rows, vectors, starts)


def _judge_scores(rows: Sequence[SimilarityExample], vectors: Mapping[str, Any], starts: np.ndarray) -> Judgement:
    truth = np.array([row.score for row in rows], np.float64)
    cosines = {suffix: cosine_of(part[starts], part[starts + 1]) for suffix, part in vectors.items()}

    def score(chosen: np.ndarray) -> dict[str, float]:
        metrics = {}
        for suffix, values in cosines.items():
            true, given = truth[chosen], values[chosen]
            metrics[f"spearman{suffix}"] = correlation(rankdata(true), rankdata(given))
            metrics[f"pearson{suffix}"] = correlation(true, given)
        return metrics

    whole = cosines[""]
    off = np.abs(rankdata(truth) - rankdata(whole)) / len(rows)
    wrong = [Mistake(i, f"{truth[i]:g}", f"{whole[i]:.3g}", float(off[i])) for i in range(len(rows))]
    return Judgement(len(rows), score, mistakes=surest(wrong), measure="error")


def _judge_pairs(rows: Sequence[SimilarityExample], vectors: Mapping[str, Any], starts: np.ndarray) -> Judgement:
    corpus: dict[str, int] = {}
    """Text -> its number among the texts that are searched."""
    sources: list[int] = []
    relevant: dict[str, dict[int, None]] = {}
    firsts: dict[str, int] = {}
    """Anchor -> the first row that it stands in."""
    for i, (row, start) in enumerate(zip(rows, starts.tolist(), strict=True)):
        for offset, text in enumerate(row.texts[1:], 1):
            if text not in corpus:
                corpus[text] = len(corpus)
                sources.append(start + offset)
        relevant.setdefault(row.texts[0], {})[corpus[row.texts[1]]] = None
        firsts.setdefault(row.texts[0], i)
    places = [np.array(list(numbers)) for numbers in relevant.values()]
    itself = [corpus.get(anchor) for anchor in firsts]
    tables: dict[str, np.ndarray] = {}
    best = np.zeros(0, int)
    for suffix, part in vectors.items():
        lengths_one = unit(part)
        anchors = lengths_one[starts[list(firsts.values())]]
        rankings, found = _searched(anchors, lengths_one[sources], itself=itself, places=places)
        tables |= {f"{name}{suffix}": values for name, values in ranking_table(rankings).items()}
        best = best if len(best) else found
    texts = list(corpus)
    wrong = [
        Mistake(row, rows[row].texts[1], texts[best[i]], 1 - float(tables[f"mrr@{CUTOFF}"][i]))
        for i, row in enumerate(firsts.values())
        if best[i] not in places[i]
    ]
    return Judgement(
        len(firsts),
        lambda chosen: {name: float(values[chosen].mean()) for name, values in tables.items()},
        mistakes=surest(wrong),
        measure="error",
        counts={"queries": len(firsts), "candidates": len(corpus)},
    )


def _searched(
    anchors: Any, texts: Any, *, itself: Sequence[int | None], places: Sequence[np.ndarray]
) -> tuple[list[Ranking], np.ndarray]:
    """The ranking of each anchor, and the number of the text that it ranks first. `itself`: its own number among the
    texts, `places`: those of its positives."""
    rankings, best = [], np.zeros(len(places), int)
    for start in range(0, len(places), BLOCK):
        product = anchors[start : start + BLOCK] @ texts.T
        block = product if isinstance(product, np.ndarray) else product.toarray()
        for i, scores in enumerate(block, start):
            own = itself[i]
            if own is not None and own not in places[i]:
                scores[own] = -np.inf
            rankings.append(Ranking(ranks_of(scores, places[i]), np.ones(len(places[i]))))
            best[i] = len(scores) - 1 - scores[::-1].argmax()
    return rankings, best
