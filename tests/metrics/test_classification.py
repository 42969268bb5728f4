"""Metrics of labels against scikit-learn and scipy, on generated cases."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from bertsmith.metrics.classification import (
    calibration_error,
    judge_classes,
    judge_label_sets,
    judge_numbers,
)

LABELS = ("a", "b", "c", "d")
pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(pairs)
def test_one_label_out_of_several(cases: list[tuple[int, int]]) -> None:
    truth, answers = (np.array(part) for part in zip(*cases, strict=True))
    found = judge_classes(truth, np.eye(4)[answers] * 0.7 + 0.075, LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "accuracy": sk.accuracy_score(truth, answers),
            "macro_f1": sk.f1_score(truth, answers, labels=range(4), average="macro", zero_division=0),
            "weighted_f1": sk.f1_score(truth, answers, labels=range(4), average="weighted", zero_division=0),
            "mcc": sk.matthews_corrcoef(truth, answers),
        }
    for name, value in expected.items():
        assert found.metrics[name] == pytest.approx(value, abs=1e-9), name
    parts = sk.precision_recall_fscore_support(truth, answers, labels=range(4), zero_division=0)
    for i, row in enumerate(found.per_class):
        for key, values in zip(("precision", "recall", "f1", "support"), parts, strict=True):
            assert row[key] == pytest.approx(values[i], abs=1e-9)
    assert found.confusion.tolist() == sk.confusion_matrix(truth, answers, labels=range(4)).tolist()
    assert {mistake.row for mistake in found.mistakes} == set(np.flatnonzero(truth != answers).tolist())


def test_two_labels_have_an_f1_each() -> None:
    truth, answers = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    found = judge_classes(truth, np.eye(2)[answers], ("no", "yes")).metrics
    assert found["f1_yes"] == pytest.approx(sk.f1_score(truth, answers, pos_label=1), abs=1e-9)
    assert found["f1_no"] == pytest.approx(sk.f1_score(truth, answers, pos_label=0), abs=1e-9)


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=40))
def test_sets_of_labels(cases: list[list[bool]]) -> None:
    flags = np.array(cases)
    truth, answers = flags[:, :3].astype(int), flags[:, 3:]
    found = judge_label_sets(truth, np.where(answers, 0.8, 0.1), LABELS[:3], np.full(3, 0.5)).metrics
    for name in ("micro", "macro"):
        expected = sk.f1_score(truth, answers, average=name, zero_division=0)
        assert found[f"{name}_f1"] == pytest.approx(expected, abs=1e-9)
    assert found["exact_match"] == pytest.approx(sk.accuracy_score(truth, answers), abs=1e-9)


def test_a_set_of_labels_is_as_wrong_as_its_surest_wrong_label() -> None:
    truth = np.array([[1, 0], [1, 0], [0, 0], [0, 1]])
    probabilities = np.array([[0.9, 0.8], [0.45, 0.1], [0.55, 0.97], [0.1, 0.9]])
    found = judge_label_sets(truth, probabilities, ("a", "b"), np.array([0.5, 0.5]))
    assert [(mistake.row, pytest.approx(mistake.score)) for mistake in found.mistakes] == [
        (2, 0.97),
        (0, 0.8),
        (1, 0.55),
    ]
    assert found.measure == "confidence"
    numbers = judge_numbers(np.array([1.0, 5.0]), np.array([1.5, 2.0]))
    assert numbers.measure == "error"
    assert [(mistake.row, mistake.score) for mistake in numbers.mistakes] == [(1, 3.0), (0, 0.5)]


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=3, max_size=60))
def test_numbers(cases: list[tuple[int, int]]) -> None:
    truth, answers = (np.array(part, float) for part in zip(*cases, strict=True))
    assume(np.ptp(truth) > 0 and np.ptp(answers) > 0)
    found = judge_numbers(truth, answers).metrics
    assert found["pearson"] == pytest.approx(stats.pearsonr(truth, answers)[0], abs=1e-9)
    assert found["spearman"] == pytest.approx(stats.spearmanr(truth, answers)[0], abs=1e-9)
    assert found["mean_squared_error"] == pytest.approx(sk.mean_squared_error(truth, answers), abs=1e-9)
    assert found["mean_absolute_error"] == pytest.approx(sk.mean_absolute_error(truth, answers), abs=1e-9)


def test_a_constant_answer_has_no_correlation() -> None:
    found = judge_numbers(np.array([1.0, 2.0, 3.0]), np.full(3, 0.1)).metrics
    assert found["pearson"] == found["spearman"] == 0.0
    both = judge_numbers(np.full(3, 0.1), np.full(3, 0.7)).metrics
    assert both["pearson"] == both["spearman"] == 0.0


def test_calibration_error_is_the_distance_of_confidence_and_accuracy() -> None:
    sure = np.array([0.95] * 10 + [0.55] * 10)
    right = np.array([True] * 5 + [False] * 5 + [True] * 5 + [False] * 5)
    assert calibration_error(sure, right) == pytest.approx((0.45 + 0.05) / 2)
    assert calibration_error(np.ones(4), np.ones(4, bool)) == 0.0


def test_intervals_hold_the_metric_and_shrink_with_rows() -> None:
    rng = np.random.default_rng(0)

    def width(rows: int) -> float:
        truth = rng.integers(0, 2, rows)
        answers = np.where(rng.random(rows) < 0.8, truth, 1 - truth)
        found = judge_classes(truth, np.eye(2)[answers], ("a", "b"))
        low, high = found.intervals()["accuracy"]
        assert low <= found.metrics["accuracy"] <= high
        return high - low

    small, large = width(100), width(1600)
    assert 0.5 < small / large / 4 < 2
    # of a share the standard error is known
    assert large == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 1600), rel=0.2)
