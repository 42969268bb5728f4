from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from bertsmith.bundle import load_bundle
from bertsmith.config.finetune import ClassifyOptions
from bertsmith.config.inference import EvaluateOptions, PredictOptions
from bertsmith.data.examples import Example, read_examples
from bertsmith.errors import InputError
from bertsmith.evaluate import evaluate
from bertsmith.model import Model, load
from bertsmith.predict import predict
from bertsmith.tasks.calibration import best_temperature, best_threshold
from bertsmith.tasks.classify import ClassifyTask
from bertsmith.tasks.inference import token_groups
from bertsmith.tasks.known import task_from_manifest, task_from_rows
from bertsmith.tasks.long_texts import shorten
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.train.finetune import finetune


@given(first=st.integers(2, 30), second=st.integers(0, 30), limit=st.integers(6, 40))
def test_shortening_keeps_the_special_tokens_and_the_beginnings(first: int, second: int, limit: int) -> None:
    ids = np.array([-1, *range(first - 2), -2, *([*range(100, 100 + second - 1), -3] if second else [])])
    types = np.array([0] * first + [1] * second)
    parts = [None if i < 0 else int(kind) for i, kind in zip(ids, types, strict=True)]
    encoding: Any = SimpleNamespace(ids=ids.tolist(), type_ids=types.tolist(), sequence_ids=parts)
    cut, cut_types = shorten(encoding, limit)
    assert len(cut) == len(cut_types) == min(limit, len(ids))
    specials = [i for i in cut.tolist() if i < 0]
    assert specials == ([-1, -2, -3] if second else [-1, -2])
    for kind, start in ((0, 0), (1, 100)):
        part = [i for i in cut[cut_types == kind].tolist() if i >= 0]
        assert part == list(range(start, start + len(part)))


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 100))
def test_groups_hold_every_input_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = list(token_groups(lengths, budget))
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or sum(lengths[i] for i in group) <= budget


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_metrics_are_scikit_learn_s(pairs: list[tuple[int, int]]) -> None:
    task = ClassifyTask(("a", "b", "c", "d"), 10)
    truth, guesses = zip(*pairs, strict=True)
    rows = [Example(Path("x"), 1, "a", None, task.labels[label]) for label in truth]
    scores = task.judge(rows, [np.eye(4)[guess] for guess in guesses]).metrics
    assert scores["accuracy"] == pytest.approx(accuracy_score(truth, guesses), abs=1e-9)
    expected = f1_score(truth, guesses, labels=range(4), average="macro", zero_division=0)
    assert scores["macro_f1"] == pytest.approx(expected, abs=1e-9)


def test_a_task_survives_its_manifest() -> None:
    task = ClassifyTask(("yes", "nein", "是"), 77, "truncate")
    assert task_from_manifest(task.manifest()) == task


def test_pairs_are_encoded_as_pairs(tokenizer_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text('text_a,text_b,label\n"the cat, again",a dog,1\nthe bird,one fish,0\n')
    rows = read_examples(file)
    tokenizer = load_tokenizer(tokenizer_dir)
    encoded = ClassifyTask(("1", "0"), 64).prepare(rows, tokenizer)
    assert [row.label for row in encoded] == [0, 1]
    for row in encoded:
        (ids,), (types,) = row.sequences, row.token_type_ids
        assert (ids == tokenizer.sep_id).sum() == 2
        assert types.tolist() == sorted(types.tolist())
        assert 0 < types.sum() < len(ids)


def test_labels_are_in_the_order_of_the_file(encoder_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(
        '{"text": "a dog", "label": 10}\n{"text": "the cat", "label": 2}\n{"text": "a girl", "label": "x y"}\n'
    )
    out = tmp_path / "model"
    finetune(ClassifyOptions(model=str(encoder_dir), train=file, out=out, steps=1, threads=2))
    assert load_bundle(out).task["labels"] == ["10", "2", "x y"]


def test_one_label_is_not_enough(encoder_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "train.tsv"
    file.write_text("text\tlabel\na dog\tx\nthe cat\tx\n")
    with pytest.raises(InputError, match="all 2 rows have the label 'x'"):
        finetune(ClassifyOptions(model=str(encoder_dir), train=file, out=tmp_path / "m", threads=2))


def test_text_in_a_user_s_row_cannot_become_a_special_token(tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_dir)
    row = Example(Path("x"), 1, "the [SEP] cat [MASK]", None, None)
    (encoded,) = ClassifyTask(("a", "b"), 64).prepare([row], tokenizer, labelled=False)
    (ids,) = encoded.sequences
    assert (ids == tokenizer.sep_id).sum() == 1
    assert not (ids == tokenizer.mask_id).any()


def test_early_stopping_ends_the_run_and_the_best_weights_are_kept(
    encoder_dir: Path, rows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    options = ClassifyOptions(
        model=str(encoder_dir),
        train=rows / "train.tsv",
        dev=rows / "dev.tsv",
        out=out,
        epochs=40,
        patience=6,
        batch_size=8,
        learning_rate=2e-3,
        threads=2,
    )
    report = finetune(options)
    assert report["steps"] < 400
    assert report["best_step"] == report["steps"] - 60
    assert report["dev_accuracy"] == 1.0


def test_class_weights_average_one_over_the_rows(tmp_path: Path) -> None:
    rows = [Example(Path("x"), i, "a", None, "often" if i % 4 else "rare") for i in range(40)]

    def weights(given: str) -> tuple[float, ...]:
        options = ClassifyOptions(model="m", train=tmp_path / "x", out=tmp_path / "o", class_weights=given)
        return ClassifyTask.from_rows(options, rows, max_length=8).class_weights

    rare, often = weights("auto")
    assert (rare / often, rare * 10 + often * 30) == (pytest.approx(3.0), pytest.approx(40.0))
    rare, often = weights("rare=5")
    assert (rare / often, rare * 10 + often * 30) == (pytest.approx(5.0), pytest.approx(40.0))
    for bad in ("rar=5", "rare=x", "rare=-1", "rare"):
        with pytest.raises(InputError, match="class-weights"):
            weights(bad)


def test_weights_and_smoothing_are_those_of_torch(classifier_dir: Path, rows: Path) -> None:
    import torch

    bundle = load_bundle(classifier_dir)
    plain = task_from_manifest(bundle.task)
    assert isinstance(plain, ClassifyTask)
    task = replace(plain, class_weights=(0.5, 3.0), label_smoothing=0.2)
    batch = task.collate(task.prepare(task.read(rows / "dev.tsv"), bundle.tokenizer)[:9])
    with torch.no_grad():
        loss = task.loss(bundle.model, batch)["label"].total
        log = bundle.model.classification_logits(bundle.model.pool(bundle.model.encoder(batch), batch)).log_softmax(-1)
    weights, labels = torch.tensor([0.5, 3.0]), batch.labels["label"]
    right = -(log.gather(1, labels[:, None])[:, 0] * weights[labels])
    expected = 0.8 * right.sum() + 0.1 * (-(log * weights)).sum()
    torch.testing.assert_close(loss, expected)


def test_a_temperature_is_found_again() -> None:
    import torch

    torch.manual_seed(0)
    logits = 2 * torch.randn(4000, 3)
    labels = torch.distributions.Categorical(logits=logits).sample()
    assert best_temperature(logits * 3, labels) == pytest.approx(3.0, rel=0.1)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.3, 0.3001, 0.5, 0.9])), min_size=2, max_size=30))
def test_no_threshold_is_better_than_the_best(cases: list[tuple[bool, float]]) -> None:
    truth, scores = (np.array(part) for part in zip(*cases, strict=True))
    found = best_threshold(truth, scores)
    if not truth.any():
        assert found == 0.5
        return
    best = max(f1_score(truth, scores >= edge) for edge in (0.0, 0.2, 0.30005, 0.4, 0.7))
    assert f1_score(truth, scores >= found) == pytest.approx(best)


def test_fitted_thresholds_and_temperature_are_stored(encoder_dir: Path, rows: Path, tmp_path: Path) -> None:
    given = {"model": str(encoder_dir), "dev": rows / "dev.tsv", "steps": 2, "threads": 2}
    finetune(ClassifyOptions(**given, train=rows / "train.tsv", out=tmp_path / "a", calibrate=True))
    stored = load_bundle(tmp_path / "a").task
    assert stored["temperature"] != 1.0
    for name in ("train", "dev"):
        lines = [
            json.dumps({"text": text, "labels": [label, "all"]})
            for text, label in (line.split("\t") for line in (rows / f"{name}.tsv").read_text().splitlines()[1:])
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    several = given | {"dev": tmp_path / "dev.jsonl", "train": tmp_path / "train.jsonl"}
    finetune(ClassifyOptions(**several, out=tmp_path / "b", thresholds="auto"))
    assert len(load_bundle(tmp_path / "b").task["thresholds"]) == 3
    with pytest.raises(InputError, match="thresholds are for several labels"):
        finetune(ClassifyOptions(**given, train=rows / "train.tsv", out=tmp_path / "c", thresholds="0.3"))


def test_a_head_with_other_labels_starts_fresh(classifier_dir: Path, tmp_path: Path, caplog) -> None:
    import logging

    caplog.set_level(logging.INFO, "bertsmith")
    file = tmp_path / "train.tsv"
    file.write_text("text\tlabel\nthe cat\tyes\na dog\tno\n")
    finetune(ClassifyOptions(model=str(classifier_dir), train=file, out=tmp_path / "a", steps=1, threads=2))
    assert "starting fresh: classifier" in caplog.text
    caplog.clear()
    file.write_text("text\tlabel\nthe cat\tcat\na dog\tdog\n")
    finetune(ClassifyOptions(model=str(classifier_dir), train=file, out=tmp_path / "b", steps=1, threads=2))
    assert "starting fresh: nothing" in caplog.text
    caplog.clear()
    file.write_text("text\tlabel\na dog\tdog\nthe cat\tcat\n")
    options = {"model": str(classifier_dir), "train": file, "steps": 1, "threads": 2}
    finetune(ClassifyOptions(**options, out=tmp_path / "c", learning_rate=1e-6))
    assert "labels cat, dog; starting fresh: nothing" in caplog.text
    assert load(tmp_path / "c").predict(["the cat eats some bread."])[0]["label"] == "cat"


def test_labels_and_their_weights_take_the_order_of_the_start_model(classifier_dir: Path) -> None:
    start = load_bundle(classifier_dir)
    options = ClassifyOptions(model="m", train=Path("a"), out=Path("o"), class_weights="dog=3")
    rows = [Example(Path("a"), i, "x", None, label) for i, label in enumerate(("dog", "cat"))]
    found, alone = (task_from_rows(options, rows, max_length=8, start=bundle) for bundle in (start, None))
    assert (found.labels, found.class_weights) == (("cat", "dog"), (0.5, 1.5))
    assert (alone.labels, alone.class_weights) == (("dog", "cat"), (1.5, 0.5))
    several = [replace(row, label=(row.label,)) for row in rows]
    assert task_from_rows(options, several, max_length=8, start=start).labels == ("dog", "cat"), "another problem"


def test_the_same_file_as_train_and_dev_is_counted(encoder_dir: Path, rows: Path, tmp_path: Path, caplog) -> None:
    file = rows / "dev.tsv"
    finetune(ClassifyOptions(model=str(encoder_dir), train=file, dev=file, out=tmp_path / "a", steps=1, threads=2))
    assert "24 of 24 rows of" in caplog.text


def test_single_texts_and_pairs_are_not_mixed_up(encoder_dir: Path, tmp_path: Path) -> None:
    pairs, single = tmp_path / "pairs.csv", tmp_path / "single.csv"
    pairs.write_text("text_a,text_b,label\nthe cat,a dog,1\nthe bird,one fish,0\n")
    single.write_text("text,label\nthe cat,1\nthe bird,0\n")
    given = {"model": str(encoder_dir), "steps": 1, "threads": 2}
    for train, other, message in (
        (pairs, single, r'single.csv:2: field "text_b": is missing; give it, the model learns from pairs'),
        (single, pairs, r'pairs.csv:2: field "text_b": is there; leave it out, the model learns from single texts'),
    ):
        out = tmp_path / train.stem
        with pytest.raises(InputError, match=message):
            finetune(ClassifyOptions(**given, train=train, dev=other, out=out))
        finetune(ClassifyOptions(**given, train=train, out=out))
        with pytest.raises(InputError, match=message):
            evaluate(EvaluateOptions(model=str(out), data=other))
        with pytest.raises(InputError, match=message):
            list(predict(PredictOptions(model=str(out), data=other)))
        model = load(out, device="cpu")
        alone, both = {"texts": ["a"]}, {"texts": ["a"], "pairs": ["b"]}
        with pytest.raises(InputError, match=r'field "--pair": a model for (pairs of texts needs|single texts has no)'):
            model.predict(**(alone if train == pairs else both))
        assert len(model.predict(**(both if train == pairs else alone))) == 1
        assert model.bundle.task["pairs"] is (train == pairs)
        known = {key: value for key, value in model.bundle.task.items() if key != "pairs"}
        older = Model(replace(model.bundle, task=known))
        assert len(older.predict(**alone) + older.predict(**both)) == 2
