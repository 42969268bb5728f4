"""Metrics of tags against seqeval, on generated sentences, legal ones and others."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from bertsmith.metrics.tagging import entities, judge_entities, judge_tags, known_scheme

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from seqeval import metrics as seqeval
    from seqeval.metrics.sequence_labeling import get_entities

SCHEMES = {"BIO": "BI", "BIOES": "BIES"}


@st.composite
def sentences(draw: st.DrawFn) -> tuple[list[list[str]], list[list[str]]]:
    prefixes = SCHEMES[draw(st.sampled_from(sorted(SCHEMES)))]
    tags = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("PER", "LOC", "A-B"))]
    lengths = draw(st.lists(st.integers(1, 8), min_size=1, max_size=6))
    word = st.sampled_from(tags)
    return tuple([draw(st.lists(word, min_size=length, max_size=length)) for length in lengths] for _ in range(2))  # type: ignore[return-value]


@given(sentences())
def test_entities_are_counted_as_seqeval_counts_them(case: tuple[list[list[str]], list[list[str]]]) -> None:
    truth, answers = case
    found = judge_entities(truth, answers, [np.ones(len(tags)) for tags in truth]).metrics
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "f1": seqeval.f1_score(truth, answers, zero_division=0),
            "precision": seqeval.precision_score(truth, answers, zero_division=0),
            "recall": seqeval.recall_score(truth, answers, zero_division=0),
            "macro_f1": seqeval.f1_score(truth, answers, average="macro", zero_division=0),
            "accuracy": seqeval.accuracy_score(truth, answers),
        }
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(np.nan_to_num(value)), abs=1e-9), name
    for tags in truth:
        assert [(kind, start, end - 1) for kind, start, end in entities(tags)] == get_entities(tags)


def test_bilou_is_read_as_bioes() -> None:
    assert entities(["U-A", "B-B", "I-B", "L-B", "L-A"]) == [("A", 0, 1), ("B", 1, 4), ("A", 4, 5)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=40))
def test_tags_without_spans_are_scikit_learn_s(cases: list[tuple[str, str]]) -> None:
    truth, answers = zip(*cases, strict=True)
    cut = len(cases) // 2
    split = [part for part in ((truth[:cut], answers[:cut]), (truth[cut:], answers[cut:])) if part[0]]
    found = judge_tags([t for t, _ in split], [a for _, a in split], [np.ones(len(t)) for t, _ in split], "abc").metrics
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, answers), abs=1e-9)
    assert found["macro_f1"] == pytest.approx(f1_score(truth, answers, average="macro", zero_division=0), abs=1e-9)


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [(("O", "B-X", "I-X"), "BIO"), (("NOUN", "VERB"), "none"), (("O", "U-X"), "BILOU"), (("O",), "none")],
)
def test_the_scheme_is_read_off_the_names(labels: tuple[str, ...], scheme: str) -> None:
    assert known_scheme(labels) == scheme
