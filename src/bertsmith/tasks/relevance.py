"""How good scores of query and text are: F1 of pairs, correlation with graded labels, the order of each query's texts.

Scores are probabilities, a reranker's or a baseline's. Rows are `Example`s with the query as `text`, the text as `pair`
and a label from 0 to 1. The label is the gain in NDCG; for all that knows right and wrong alone (F1, MRR, MAP, recall,
precision) 0.5 and more is relevant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from bertsmith.data.examples import Example
from bertsmith.metrics.classification import correlation
from bertsmith.metrics.judgement import Judgement, Mistake, f1_parts, surest
from bertsmith.metrics.retrieval import Ranking, average_precision, ranking_table, ranks_of

RELEVANT = 0.5


def is_listwise(rows: Sequence[Example]) -> bool:
    """Whether most rows belong to a query that has a relevant text and another one."""
    labels = _labels(rows)
    whole = [places for places in _lists(rows) if len(np.unique(labels[places] >= RELEVANT)) == 2]
    return 2 * sum(map(len, whole)) > len(rows)


def judge_relevance(rows: Sequence[Example], scores: np.ndarray) -> Judgement:
    """`scores` `[rows]` against labels of 0 and 1: `f1` and `accuracy` at 0.5, `average_precision`; against shares:
    `spearman`, `pearson`."""
    labels = _labels(rows)
    true, given = labels >= RELEVANT, scores >= RELEVANT
    is_binary = set(np.unique(labels).tolist()) <= {0.0, 1.0}

    def score(chosen: np.ndarray) -> dict[str, float]:
        truth, values = labels[chosen], scores[chosen]
        if not is_binary:
            return {
                "spearman": correlation(rankdata(truth), rankdata(values)),
                "pearson": correlation(truth, values),
            }
        one, other = true[chosen], given[chosen]
        ranking = _ranking(truth, values)
        return {
            "f1": float(f1_parts((one & other).sum(), other.sum(), one.sum())[2]),
            "accuracy": float((one == other).mean()),
            "average_precision": average_precision(ranking),
        }

    measure: Literal["confidence", "error"] = "confidence" if is_binary else "error"
    return Judgement(len(rows), score, mistakes=_mistakes(labels, scores), measure=measure)


def judge_lists(rows: Sequence[Example], scores: np.ndarray) -> Judgement:
    """The metrics of `metrics.retrieval`, each the mean over queries, and those of `judge_relevance`."""
    labels, lists = _labels(rows), _lists(rows)
    table = ranking_table([_ranking(labels[places], scores[places]) for places in lists], relevant=RELEVANT)
    pairs = judge_relevance(rows, scores)

    def score(chosen: np.ndarray) -> dict[str, float]:
        of_lists = {name: float(values[chosen].mean()) for name, values in table.items()}
        return of_lists | pairs.score(np.concatenate([lists[i] for i in chosen]))

    return Judgement(len(lists), score, mistakes=pairs.mistakes, measure=pairs.measure, counts={"queries": len(lists)})


def _labels(rows: Sequence[Example]) -> np.ndarray:
    return np.array([row.label for row in rows], np.float64)


def _lists(rows: Sequence[Example]) -> list[np.ndarray]:
    """The numbers of the rows of each query."""
    found: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        found.setdefault(row.text, []).append(i)
    return [np.array(places) for places in found.values()]


def _ranking(labels: np.ndarray, scores: np.ndarray) -> Ranking:
    graded = np.flatnonzero(labels > 0)
    return Ranking(ranks_of(scores, graded), labels[graded])


def _mistakes(labels: np.ndarray, scores: np.ndarray) -> list[Mistake]:
    off = np.abs(labels - scores)
    return surest(
        [
            Mistake(i, f"{labels[i]:g}", f"{scores[i]:.3g}", float(off[i]))
            for i in np.flatnonzero(off > RELEVANT).tolist()
        ]
    )
