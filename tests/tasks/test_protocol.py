"""What every task promises, run over all of them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from bertsmith.bundle import load_bundle
from bertsmith.config.inference import EvaluateOptions
from bertsmith.errors import InputError
from bertsmith.evaluate import evaluate, evaluate_rows
from bertsmith.model import load
from bertsmith.tasks.inference import results
from bertsmith.tasks.known import task_from_manifest
from bertsmith.train.finetune import finetune
from tests.tasks.examples import OPTIONS, options

KINDS = sorted(OPTIONS)

WITH_LOGITS = [kind for kind in KINDS if kind not in ("embed", "scores")]

AUTO = {
    "classify": transformers.AutoModelForSequenceClassification,
    "multi": transformers.AutoModelForSequenceClassification,
    "regression": transformers.AutoModelForSequenceClassification,
    "tag": transformers.AutoModelForTokenClassification,
    "qa": transformers.AutoModelForQuestionAnswering,
    "choice": transformers.AutoModelForMultipleChoice,
    "rerank": transformers.AutoModelForSequenceClassification,
}


@pytest.fixture(scope="module")
def trained(encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, dict[str, Any]]]:
    """For each kind its options and the report of its training."""
    made = {kind: options(kind, encoder_dir, tmp_path_factory.mktemp("tasks") / kind) for kind in KINDS}
    return {kind: (given, finetune(given)) for kind, given in made.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_the_directory_knows_its_task(kind: str, trained: dict[str, Any]) -> None:
    given, report = trained[kind]
    task = task_from_manifest(load_bundle(given.out).task)
    floor = {"qa": 0.7, "regression": 0.6, "choice": 0.6, "scores": 0.6}.get(kind, 0.8)
    assert report[f"dev_{task.primary_metric}"] > floor
    assert task_from_manifest(json.loads(json.dumps(task.manifest()))) == task
    evaluated = evaluate(EvaluateOptions(model=str(given.out), data=given.dev))
    assert evaluated[task.primary_metric] == pytest.approx(report[f"dev_{task.primary_metric}"], abs=1e-6)
    assert evaluated["rows"] == 24


@pytest.mark.parametrize("kind", KINDS)
def test_answers_depend_on_neither_batches_nor_threads_nor_order(kind: str, trained: dict[str, Any]) -> None:
    given, _ = trained[kind]
    model = load(given.out)

    def answers(**changes: Any) -> list[Any]:
        found = evaluate_rows(model, EvaluateOptions(model=str(given.out), data=given.dev, **changes))
        return [found.task.decode(row, result) for row, result in zip(found.rows, found.results, strict=True)]

    first = answers()
    assert answers() == first
    torch.set_num_threads(1)
    try:
        single = answers()
    finally:
        torch.set_num_threads(2)
    for other in (single, answers(batch_size=1), answers(batch_size=64, batch_tokens=10**6)):
        assert rounded(other) == rounded(first)
    task = model.task()
    rows = task.read(given.dev)
    random.Random(0).shuffle(rows)
    shuffled = results(model.bundle.model, task, rows, task.prepare(rows, model.bundle.tokenizer))
    metrics = evaluate(EvaluateOptions(model=str(given.out), data=given.dev))
    for name, value in task.judge(rows, shuffled).metrics.items():
        assert metrics[name] == pytest.approx(value, abs=1e-6), name


def rounded(answer: Any) -> Any:
    """Scores to four digits, everything else as it is."""
    if isinstance(answer, float):
        return pytest.approx(answer, abs=1e-4)
    if isinstance(answer, list):
        return [rounded(part) for part in answer]
    return {key: rounded(value) for key, value in answer.items()} if isinstance(answer, dict) else answer


@pytest.mark.parametrize("kind", WITH_LOGITS)
def test_transformers_loads_it_with_equal_logits(kind: str, trained: dict[str, Any]) -> None:
    given, _ = trained[kind]
    theirs = AUTO[kind].from_pretrained(given.out).eval()
    model = load(given.out)
    task = model.task()
    rows = task.read(given.dev)[:4]
    inputs = task.prepare(rows, model.bundle.tokenizer)
    ours = [output for encoded in inputs for output in run_alone(model, task, encoded)]
    for encoded, output in zip(inputs, ours, strict=True):
        longest = max(map(len, encoded.sequences))
        names = ("input_ids", "token_type_ids", "attention_mask")
        parts: dict[str, Any] = {name: np.zeros((len(encoded.sequences), longest), int) for name in names}
        for i, (ids, types) in enumerate(zip(encoded.sequences, encoded.token_type_ids, strict=True)):
            for name, values in zip(names, (ids, types, 1), strict=True):
                parts[name][i, : len(ids)] = values
        tensors = {name: torch.from_numpy(values) for name, values in parts.items()}
        if kind == "choice":
            tensors = {name: tensor[None] for name, tensor in tensors.items()}
        with torch.no_grad():
            found = theirs(**tensors)
        logits = torch.stack([found.start_logits, found.end_logits], -1) if kind == "qa" else found.logits
        np.testing.assert_allclose(output, logits[0].numpy(), rtol=1e-5, atol=1e-5)
    labels = getattr(task, "labels", None)
    if labels is not None:
        assert tuple(theirs.config.id2label.values()) == labels


def run_alone(model: Any, task: Any, encoded: Any) -> list[np.ndarray]:
    with torch.no_grad():
        return task.outputs(model.bundle.model, task.collate([encoded]))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "embed"])
def test_loss_of_two_halves_is_the_loss_of_the_whole(kind: str, trained: dict[str, Any]) -> None:
    given, _ = trained[kind]
    model = load(given.out).bundle.model
    task = task_from_manifest(load_bundle(given.out).task)
    inputs = task.prepare(task.read(given.dev), load_bundle(given.out).tokenizer)[:10]
    with torch.no_grad():
        (whole,) = task.loss(model, task.collate(inputs)).values()
        halves = [next(iter(task.loss(model, task.collate(part)).values())) for part in (inputs[:3], inputs[3:])]
    assert float(whole.total) == pytest.approx(sum(float(half.total) for half in halves), rel=1e-5)
    assert int(whole.correct) == sum(int(half.correct) for half in halves)
    (count,) = task.counts(task.collate(inputs)).values()
    assert len(whole.is_right) == count


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_is_written_with_pictures_and_predictions(kind: str, trained: dict[str, Any], tmp_path: Path) -> None:
    given, _ = trained[kind]
    asked: dict[str, Any] = {"model": str(given.out), "data": given.dev, "out": tmp_path / "r"}
    if kind == "qa":
        with pytest.raises(InputError, match="is not there for questions about texts"):
            evaluate(EvaluateOptions(**asked, baseline=given.train))
    found = evaluate(EvaluateOptions(**asked, baseline=None if kind == "qa" else given.train))
    report = json.loads((tmp_path / "r/report.json").read_text())
    assert report["metrics"] == found
    for name, (low, high) in report["intervals"].items():
        assert low <= found[name] <= high, name
    markdown = (tmp_path / "r/report.md").read_text()
    measure = "error" if kind in ("regression", "embed", "scores") else "confidence"
    for mistake in report["mistakes"]:
        assert mistake.keys() == {"line", "text", "truth", "answer", measure}
        assert measure == "error" or 0 <= mistake["confidence"] <= 1
    assert not report["mistakes"] or f"| line | text | truth | answer | {measure} |" in markdown
    for picture in (tmp_path / "r").glob("*.svg"):
        assert f"({picture.name})" in markdown
        assert picture.read_text().startswith("<svg")
    assert (tmp_path / "r/confusion.svg").exists() == (kind == "classify")
    predictions = [json.loads(line) for line in (tmp_path / "r/predictions.jsonl").read_text().splitlines()]
    assert len(predictions) == 24
    if kind != "qa":
        assert any(name.startswith(("majority_", "tfidf_", "word_majority_")) for name in found)
