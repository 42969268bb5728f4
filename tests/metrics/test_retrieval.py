"""Retrieval metrics against ir-measures: graded relevance, ties, queries without a relevant text, few candidates."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import AP, RR, P, Qrel, R, ScoredDoc, nDCG

from bertsmith.metrics.retrieval import (
    FEW,
    Ranking,
    average_precision,
    ndcg,
    precision,
    ranking_table,
    ranks_of,
    recall,
    reciprocal_rank,
)

CASES = st.integers(1, 60).flatmap(
    lambda texts: st.tuples(
        st.lists(st.integers(0, 12), min_size=texts, max_size=texts),  # few different scores: many ties
        st.lists(st.integers(0, 3), min_size=texts, max_size=texts),
    )
)


def ranking_of(scores: list[int], grades: list[int]) -> Ranking:
    relevant = np.flatnonzero(grades)
    return Ranking(ranks_of(np.array(scores) / 8, relevant), np.array(grades, float)[relevant])


def theirs(scores: list[int], grades: list[int], *measures: object) -> list[float]:
    qrels = [Qrel("q", f"{i:03}", grade) for i, grade in enumerate(grades)]
    run = [ScoredDoc("q", f"{i:03}", score / 8) for i, score in enumerate(scores)]
    found = ir_measures.calc_aggregate(measures, qrels, run)
    return [found[measure] for measure in measures]


@given(CASES, st.sampled_from([1, 3, 10]))
def test_metrics_equal_those_of_ir_measures(case: tuple[list[int], list[int]], cutoff: int) -> None:
    ranking = ranking_of(*case)
    ours = [
        ndcg(ranking, cutoff),
        average_precision(ranking),
        recall(ranking, cutoff),
        precision(ranking, cutoff),
        reciprocal_rank(ranking, 1000),
    ]
    expected = theirs(*case, nDCG @ cutoff, AP, R @ cutoff, P @ cutoff, RR)
    assert ours == pytest.approx(expected, abs=1e-9)


@given(st.permutations(range(40)), st.lists(st.integers(0, 1), min_size=40, max_size=40))
def test_the_cut_reciprocal_rank_equals_theirs(scores: list[int], grades: list[int]) -> None:
    assert reciprocal_rank(ranking_of(scores, grades), 10) == pytest.approx(
        theirs(scores, grades, RR @ 10)[0], abs=1e-9
    )


def test_the_mean_over_queries_equals_theirs_and_a_query_without_a_relevant_text_counts_zero() -> None:
    rng = np.random.default_rng(0)
    qrels, run, rankings = [], [], []
    for query in range(30):
        scores, grades = rng.integers(0, 40, 50) / 8, rng.integers(0, 2, 50) * (query % 5 > 0)
        qrels += [Qrel(f"{query}", f"{i:03}", int(grade)) for i, grade in enumerate(grades)]
        run += [ScoredDoc(f"{query}", f"{i:03}", float(score)) for i, score in enumerate(scores)]
        relevant = np.flatnonzero(grades)
        rankings.append(Ranking(ranks_of(scores, relevant), grades[relevant].astype(float)))
    expected = ir_measures.calc_aggregate([nDCG @ 10, AP, R @ 10, P @ 1], qrels, run)
    means = {name: values.mean() for name, values in ranking_table(rankings).items()}
    ours = [means[name] for name in ("ndcg@10", "map", "recall@10", "precision@1")]
    assert ours == pytest.approx([expected[measure] for measure in (nDCG @ 10, AP, R @ 10, P @ 1)], abs=1e-9)


def test_ranks_counted_and_ranks_sorted_are_the_same() -> None:
    scores = np.random.default_rng(0).integers(0, 9, 50)
    every = ranks_of(scores, np.arange(50))
    assert sorted(every) == list(range(1, 51))
    for start in range(0, 50, FEW):
        places = np.arange(start, min(start + FEW, 50))
        assert np.array_equal(ranks_of(scores, places), every[places])


def test_a_text_that_was_not_found_counts_as_relevant() -> None:
    ranking = Ranking(np.array([2.0, np.inf]), np.ones(2))
    assert (average_precision(ranking), recall(ranking)) == (0.25, 0.5)
    assert ndcg(ranking) == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3)))
