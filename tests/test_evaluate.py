"""`evaluate`: its gate, the options that a kind of model has no use for, baselines of odd rows."""

from __future__ import annotations

from typing import Any

import pytest

from bertsmith.errors import GateMissed
from bertsmith.evaluate import check_gate


@pytest.mark.parametrize(
    ("metric", "value", "passes"),
    [
        ("f1_loss", 0.8, 0.7),
        ("f1_mlm_loss", 0.8, 0.7),
        ("majority_f1_loss", 0.8, 0.7),
        ("accuracy", 0.8, 0.7),
        ("heldout_mlm_loss", 2.0, 2.1),
        ("token_loss", 2.0, 2.1),
        ("perplexity", 9.0, 10.0),
        ("mean_squared_error", 2.0, 2.1),
        ("majority_mean_squared_error", 2.0, 2.1),
        ("tfidf_mean_absolute_error", 2.0, 2.1),
    ],
)
def test_a_gate_is_an_upper_bound_of_errors_and_a_lower_one_of_the_rest(
    metric: str, value: float, passes: float
) -> None:
    metrics: dict[str, Any] = {metric: value}
    check_gate(metrics, f"{metric}={passes}")
    with pytest.raises(GateMissed, match=metric):
        check_gate(metrics, f"{metric}={2 * value - passes}")
