"""SQuAD's arithmetic, against figures worked out by hand and against a second way to compute them."""

from __future__ import annotations

import re
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.metrics.answers import exact_match, judge_answers, normalized, overlap

WORDS = ("the", "a", "An", "cat", "Cat's", "cat.", "in", "-", "hat", "1,000", "")
texts = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)


def reference_words(text: str) -> list[str]:
    """The rule as the paper's appendix words it, one character and one word at a time."""
    kept = "".join(sign for sign in text.lower() if sign not in set(string.punctuation))
    return [word for word in re.split(r"\s+", re.sub(r"\b(a|an|the)\b", " ", kept)) if word]


@given(texts, texts)
def test_overlap_is_the_harmonic_mean_of_precision_and_recall(answer: str, truth: str) -> None:
    given_words, wanted = reference_words(answer), reference_words(truth)
    assert exact_match(answer, truth) == float(given_words == wanted)
    shared = sum((Counter(given_words) & Counter(wanted)).values())
    if not given_words or not wanted:
        expected = float(given_words == wanted)
    elif not shared:
        expected = 0.0
    else:
        precision, recall = shared / len(given_words), shared / len(wanted)
        expected = 2 * precision * recall / (precision + recall)
    assert overlap(answer, truth) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("The  cat's hat.", "cats hat"), ("A", ""), ("theatre", "theatre"), ("an-other", "another")],
)
def test_normalisation(text: str, expected: str) -> None:
    assert normalized(text) == expected


def test_the_best_of_several_answers_counts_and_no_answer_is_the_empty_text() -> None:
    truth = [["the red cat", "a cat"], [], []]
    found = judge_answers(truth, ["cat", "", "Paris"], [0.9, 0.5, 0.8])
    assert found.metrics == {
        "f1": pytest.approx(2 / 3),
        "exact_match": pytest.approx(2 / 3),
        "f1_answerable": 1.0,
        "exact_match_answerable": 1.0,
        "f1_unanswerable": 0.5,
        "exact_match_unanswerable": 0.5,
    }
    assert [mistake.answer for mistake in found.mistakes] == ["Paris"]


def test_an_answer_of_nothing_but_articles_equals_none() -> None:
    assert judge_answers([["The"]], [""], [1.0]).metrics["exact_match"] == 1.0
