"""Metrics of ranked texts, from the ranks of the relevant ones alone.

Definitions as trec_eval's, and so ir-measures': gains are the grades of relevance, discounted by log2(rank + 1); texts
of equal score stand in the reverse order of their numbers; a query without a relevant text counts 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

CUTOFF = 10

FEW = 16
"""Up to so many ranks are counted one by one, without sorting all texts."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Where the relevant texts of one query stand."""

    ranks: np.ndarray
    """`[relevant]`, from 1; infinite for a text that was not found."""
    gains: np.ndarray
    """`[relevant]`, how relevant each is, above 0."""


def ranks_of(scores: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The ranks, from 1, of the texts at `places` when all are sorted by `scores` `[texts]`.

    `[0.5, 0.9, 0.5], [0, 1, 2] -> [3, 1, 2]`
    """
    values, places = np.asarray(scores), np.asarray(places, int)
    if len(places) > FEW:
        ranks = np.empty(len(values))
        ranks[np.lexsort((-np.arange(len(values)), -values))] = np.arange(1, len(values) + 1)
        return np.asarray(ranks[places])
    chosen = values[places][:, None]
    ahead = (values > chosen) | ((values == chosen) & (np.arange(len(values)) > places[:, None]))
    return np.asarray(1.0 + ahead.sum(1))


def ndcg(ranking: Ranking, cutoff: int = CUTOFF) -> float:
    """Discounted gains of the first `cutoff`, in those of the best order (Järvelin and Kekäläinen 2002)."""
    best = np.sort(ranking.gains)[::-1][:cutoff]
    if not len(best):
        return 0.0
    found = ranking.gains[ranking.ranks <= cutoff] / np.log2(ranking.ranks[ranking.ranks <= cutoff] + 1)
    return float(found.sum() / (best / np.log2(np.arange(2, len(best) + 2))).sum())


def reciprocal_rank(ranking: Ranking, cutoff: int = CUTOFF) -> float:
    """1 / the rank of the first relevant text; 0 beyond `cutoff`."""
    first = ranking.ranks.min(initial=np.inf)
    return float(1 / first) if first <= cutoff else 0.0


def average_precision(ranking: Ranking) -> float:
    """Mean of the precision at the rank of each relevant text."""
    ranks = np.sort(ranking.ranks)
    return float((np.arange(1, len(ranks) + 1) / ranks).mean()) if len(ranks) else 0.0


def recall(ranking: Ranking, cutoff: int = CUTOFF) -> float:
    """Share of the relevant texts among the first `cutoff`."""
    return float((ranking.ranks <= cutoff).mean()) if len(ranking.ranks) else 0.0


def precision(ranking: Ranking, cutoff: int = CUTOFF) -> float:
    """Relevant texts among the first `cutoff`, in `cutoff`, also where fewer texts were ranked."""
    return float((ranking.ranks <= cutoff).sum() / cutoff)


def ranking_table(rankings: Sequence[Ranking], *, relevant: float = 0.0) -> dict[str, np.ndarray]:
    """Each metric that is reported -> `[queries]`. A text whose gain is below `relevant` counts in NDCG alone."""
    functions: dict[str, Callable[[Ranking], float]] = {
        f"mrr@{CUTOFF}": reciprocal_rank,
        "map": average_precision,
        f"recall@{CUTOFF}": recall,
        "precision@1": lambda ranking: precision(ranking, 1),
    }
    chosen = [Ranking(one.ranks[one.gains >= relevant], one.gains[one.gains >= relevant]) for one in rankings]
    table = {f"ndcg@{CUTOFF}": np.array([ndcg(ranking) for ranking in rankings])}
    return table | {name: np.array([function(ranking) for ranking in chosen]) for name, function in functions.items()}
