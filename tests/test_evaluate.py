"""`evaluate`: its gate, the options that a kind of model has no use for, baselines of odd rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bertsmith.baselines import baseline_metrics
from bertsmith.errors import GateMissed
from bertsmith.evaluate import check_gate
from bertsmith.tasks.choice import ChoiceTask
from bertsmith.tasks.classify import ClassifyTask
from tests.cli.run import assert_refused, bertsmith


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


@pytest.mark.parametrize(
    "words", [("--max-length", 4), ("--beams", 7), ("--target", "/nonexistent")], ids=lambda words: words[0]
)
def test_what_labelled_rows_have_no_use_for_is_refused(
    words: tuple[object, ...], classifier_dir: Path, rows: Path, capsys: Any
) -> None:
    outcome = bertsmith(capsys, "evaluate", classifier_dir, "--data", rows / "dev.tsv", *words)
    assert_refused(outcome, rf'field "{words[0]}": is not there for labelled rows; leave it out')


@pytest.mark.parametrize(
    "words", [("--out", "report"), ("--batch-size", 4), ("--columns", "text")], ids=lambda words: words[0]
)
def test_what_shards_have_no_use_for_is_refused(
    words: tuple[object, ...], encoder_dir: Path, shards_dir: Path, capsys: Any
) -> None:
    outcome = bertsmith(capsys, "evaluate", encoder_dir, "--data", shards_dir, *words)
    assert_refused(outcome, rf'field "{words[0]}": is not there for shards; leave it out')


@pytest.mark.parametrize("labels", [[["a"], [], ["a"], []], [["a"]] * 4, [[], [], [], []]], ids=["some", "all", "none"])
def test_a_single_label_that_rows_may_have_has_baselines(labels: list[list[str]], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    texts = ("the red cat", "one dog", "a red bird", "two fish")
    lines = [json.dumps({"text": text, "labels": row}) for text, row in zip(texts, labels, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    task = ClassifyTask(("a",), 64, problem="multi")
    found = baseline_metrics(task, task.read(path), task.read(path))
    assert found["tfidf_exact_match"] == 1.0
    assert found["majority_exact_match"] == (0.5 if len(set(map(len, labels))) == 2 else 1.0)


def test_choices_without_a_word_of_two_letters_have_a_baseline(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    given = [("2 + 2 ?", ["4", "5"], 0), ("喝茶", ["车", "茶"], 1)]
    lines = [json.dumps({"text": text, "choices": choices, "label": label}) for text, choices, label in given]
    for part in (lines[:1], lines):
        path.write_text("\n".join(part) + "\n")
        rows = ChoiceTask(64).read(path)
        found = baseline_metrics(ChoiceTask(64), rows, rows)
        assert found["tfidf_accuracy"] == 1.0
