from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from bertsmith.config.finetune import ClassifyOptions
from bertsmith.data.examples import Example, read_examples
from bertsmith.errors import InputError
from bertsmith.tasks.classify import ClassifyTask, shorten, task_from_manifest
from bertsmith.tasks.inference import token_groups
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.train.finetune import finetune_classify


@given(first=st.integers(2, 30), second=st.integers(0, 30), limit=st.integers(6, 40))
def test_shortening_keeps_the_special_tokens_and_the_beginnings(first: int, second: int, limit: int) -> None:
    ids = np.array([-1, *range(first - 2), -2, *([*range(100, 100 + second - 1), -3] if second else [])])
    types = np.array([0] * first + [1] * second)
    cut, cut_types = shorten(ids, types, limit)
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
    scores = task.score([np.eye(4)[guess] for guess in guesses], truth)
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
        assert (row.input_ids == tokenizer.sep_id).sum() == 2
        assert row.token_type_ids.tolist() == sorted(row.token_type_ids.tolist())
        assert 0 < row.token_type_ids.sum() < len(row.input_ids)


def test_labels_are_in_the_order_of_the_file(encoder_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(
        '{"text": "a dog", "label": 10}\n{"text": "the cat", "label": 2}\n{"text": "a girl", "label": "x y"}\n'
    )
    out = tmp_path / "model"
    finetune_classify(ClassifyOptions(model=str(encoder_dir), train=file, out=out, steps=1, threads=2))
    from bertsmith.bundle import load_bundle

    assert load_bundle(out).task["labels"] == ["10", "2", "x y"]


def test_one_label_is_not_enough(encoder_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "train.tsv"
    file.write_text("text\tlabel\na dog\tx\nthe cat\tx\n")
    with pytest.raises(InputError, match="all 2 rows have the label 'x'"):
        finetune_classify(ClassifyOptions(model=str(encoder_dir), train=file, out=tmp_path / "m", threads=2))


def test_text_in_a_user_s_row_cannot_become_a_special_token(tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_dir)
    row = Example(Path("x"), 1, "the [SEP] cat [MASK]", None, None)
    (encoded,) = ClassifyTask(("a", "b"), 64).prepare([row], tokenizer, labelled=False)
    assert (encoded.input_ids == tokenizer.sep_id).sum() == 1
    assert not (encoded.input_ids == tokenizer.mask_id).any()


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
        patience=2,
        batch_size=8,
        learning_rate=2e-3,
        threads=2,
    )
    report = finetune_classify(options)
    assert report["steps"] < 400
    assert report["best_step"] == report["steps"] - 20
    assert report["dev_accuracy"] == 1.0
