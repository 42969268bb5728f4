"""What an evaluation found: metrics that can be computed for any choice of its rows, hence their intervals too."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Score = Callable[[np.ndarray], dict[str, float]]
"""Numbers of rows, which may repeat -> metrics of these rows."""

RESAMPLES, CONFIDENCE = 1000, 0.95

LOWER_IS_BETTER = frozenset(
    {
        *("calibration_error", "mean_squared_error", "mean_absolute_error", "ter", "perplexity"),
        *(f"{name}_loss" for name in ("token", "heldout_token", "heldout_mlm", "unigram", "bigram", "nsp", "sop")),
    }
)
"""Metrics that count errors: a gate on them is an upper bound."""

_BASELINE = re.compile(r"^(word_majority|majority|tfidf)_")


def counts_errors(metric: str) -> bool:
    """Whether less of it is better, of a baseline too: `majority_mean_squared_error`; not of the label in `f1_loss`."""
    return _BASELINE.sub("", metric) in LOWER_IS_BETTER


@dataclass(frozen=True)
class Mistake:
    """A row whose answer is wrong."""

    row: int
    truth: str
    answer: str
    score: float
    """What `Judgement.measure` says."""


@dataclass(frozen=True)
class Judgement:
    """The answers to `rows` rows, judged."""

    rows: int
    """What `score` takes the numbers of: rows, or queries if there are `counts` of them."""
    score: Score
    per_class: Sequence[dict[str, Any]] = ()
    """For each class `label`, `precision`, `recall`, `f1`, `support`."""
    labels: Sequence[str] = ()
    confusion: np.ndarray | None = None
    """`[truth, answer]`, counts, in the order of `labels`; None if the task has no such table."""
    mistakes: Sequence[Mistake] = ()
    """The highest score first."""
    measure: Literal["confidence", "error"] = "confidence"
    """What the score of a mistake is: how sure the model was, between 0 and 1, or how far off its number or rank."""
    confidences: np.ndarray | None = None
    """`[rows]`: probability of each answer, with `is_right`, where the task has one."""
    is_right: np.ndarray | None = None
    counts: dict[str, int] = field(default_factory=dict)
    """What else was counted, for example entities."""

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of all rows."""
        return self.score(np.arange(self.rows))

    def intervals(
        self, *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
    ) -> dict[str, tuple[float, float]]:
        """Percentile bootstrap over rows (Efron and Tibshirani 1993, chapter 13): metric -> (low, high)."""
        rng = np.random.default_rng(seed)
        drawn = [self.score(rng.integers(self.rows, size=self.rows)) for _ in range(resamples)]
        edges = [(1 - confidence) / 2, (1 + confidence) / 2]
        found = {}
        for name in drawn[0]:
            low, high = np.quantile([metrics[name] for metrics in drawn], edges).tolist()
            found[name] = (low, high)
        return found


def surest(mistakes: Sequence[Mistake], most: int = 50) -> list[Mistake]:
    """The mistakes with the highest scores; equal ones in the order of their rows."""
    return sorted(mistakes, key=lambda mistake: (-mistake.score, mistake.row))[:most]


def division(above: np.ndarray | float, below: np.ndarray | float) -> np.ndarray:
    """above / below, 0 where below is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    result: np.ndarray = np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)
    return result


def f1_parts(right: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 from counts of the same shape; 0 where nothing was predicted, or is true."""
    return division(right, predicted), division(right, true), division(2 * right, predicted + true)
