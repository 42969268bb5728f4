"""What a teacher answers finds its way to the student's inputs, whatever pieces either cuts texts into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertsmith.config.finetune import FinetuneOptions
from bertsmith.data.tagged import TaggedExample
from bertsmith.errors import InputError
from bertsmith.tasks.base import Encoded
from bertsmith.tasks.choice import ChoiceTask
from bertsmith.tasks.classify import ClassifyTask
from bertsmith.tasks.embed import EmbedTask
from bertsmith.tasks.inference import results, run
from bertsmith.tasks.qa import QaTask
from bertsmith.tasks.rerank import RerankTask
from bertsmith.tasks.tag import TagTask, first_pieces
from bertsmith.tasks.teacher import (
    Answers,
    Teacher,
    answers_to,
    best_answer,
    cut_alike,
    open_teacher,
    resized,
    taught,
    with_targets,
)
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.tokenizer.text_tokenizer import TextTokenizer
from tests.tasks.examples import SUFFIX, write_model, write_rows

TASKS: dict[str, Any] = {
    "classify": ClassifyTask(("fish", "bird", "dog", "cat"), 64),
    "multi": ClassifyTask(("PET", "WILD", "colour"), 64, problem="multi"),
    "regression": ClassifyTask(("score",), 64, problem="regression"),
    "tag": TagTask(("O", "B-PET", "I-PET", "B-WILD", "I-WILD"), 64, "BIO"),
    "qa": QaTask(64),
    "choice": ChoiceTask(64),
    "embed": EmbedTask(64, "pairs"),
    "rerank": RerankTask(64),
}


OPTIONS = FinetuneOptions(teacher="t", student_layers=1, train=Path("a"), out=Path("o"))


def teacher_of(kind: str, folder: Path, tokenizer_dir: Path) -> Teacher:
    task = TASKS[kind]
    out = write_model(folder, tokenizer_dir, task=task.manifest(), heads=task.heads, labels=task.num_labels)
    return open_teacher(str(out), task=task.name)


@pytest.mark.parametrize("is_other", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in TASKS if kind != "qa"])
def test_each_input_gets_what_the_teacher_says_of_its_row(
    kind: str, is_other: bool, tokenizer_dir: Path, other_tokenizer: Path, tmp_path: Path
) -> None:
    teacher = teacher_of(kind, tmp_path / "teacher", other_tokenizer if is_other else tokenizer_dir)
    task = TASKS[kind]
    rows = task.read(write_rows(kind, tmp_path / f"rows.{SUFFIX[kind]}", count=12, seed=0))
    inputs = task.prepare(rows, load_tokenizer(tokenizer_dir))
    targets = [encoded.target for encoded in with_targets(task, inputs, answers_to(teacher, task, rows, inputs))]
    for row, encoded, target in zip(rows, inputs, targets, strict=True):
        (alone,) = results(teacher.bundle.model, teacher.task, [row], teacher.prepared([row], student=task))
        if kind == "tag":
            alone = alone.logits[[list(alone.words).index(word) for word in range(len(row.words))]]
            assert len(target) == len(row.words) == int(np.sum(encoded.label >= 0))
        np.testing.assert_allclose(target.reshape(np.shape(alone)), alone, atol=1e-5)
    assert float(np.std(np.concatenate(targets))) > 0.01


def test_of_questions_each_token_of_each_window_gets_the_teachers_logits(tokenizer_dir: Path, tmp_path: Path) -> None:
    teacher = teacher_of("qa", tmp_path / "teacher", tokenizer_dir)
    task = QaTask(14, stride=3)
    rows = task.read(write_rows("qa", tmp_path / "rows.jsonl", count=6, seed=0))
    inputs = task.prepare(rows, load_tokenizer(tokenizer_dir))
    assert len(inputs) > len(rows)
    found = with_targets(task, inputs, answers_to(teacher, task, rows, inputs))
    for encoded, output in zip(found, run(teacher.bundle.model, task, inputs), strict=True):
        assert encoded.target is not None
        np.testing.assert_allclose(encoded.target, output, atol=1e-6)


def test_windows_of_a_text_get_the_answer_to_the_text_and_those_of_words_their_own(tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_dir)
    task = TagTask(("a", "b"), 8, stride=2)
    words = ("the", "cat", "sees", "a", "red", "ball", "again", "and", "the", "dog", "eats", "some", "bread")
    inputs = task.prepare([TaggedExample(Path("a"), 1, words, None)], tokenizer, labelled=False)
    logits = np.arange(2.0 * len(words), dtype=np.float32).reshape(-1, 2)
    found = with_targets(task, inputs, Answers(logits, np.array([len(words)])))
    assert len(found) > 1
    for encoded in found:
        seen = encoded.origin[first_pieces(encoded.origin)]
        np.testing.assert_array_equal(encoded.target, logits[seen])
        np.testing.assert_array_equal(encoded.label[first_pieces(encoded.origin)], np.ones(len(seen)))
        assert (encoded.label[~first_pieces(encoded.origin)] == -1).all()


def test_a_text_that_stands_alone_learns_one_vector_twice() -> None:
    ids = np.array([2, 7, 3])
    encoded = Encoded((ids, ids), (ids * 0, ids * 0), 0)
    vector = np.array([[1.0, 2.0]], np.float32)
    (found,) = with_targets(EmbedTask(64, "texts"), [encoded], Answers(vector, np.array([1])))
    np.testing.assert_array_equal(found.target, np.concatenate([vector, vector]))


@pytest.mark.parametrize(
    ("kind", "target", "label"),
    [
        ("classify", [[0.1, 0.9, -1.0, 0.0]], 1),
        ("multi", [[0.5, -0.5, 2.0]], [1.0, 0.0, 1.0]),
        ("regression", [[2.5]], 2.5),
        ("rerank", [[0.0]], 0.5),
        ("choice", [0.1, 0.3, 0.2], 1),
        ("qa", [[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]], (1, 2)),
        ("embed", [[1.0]], None),
    ],
)
def test_what_an_answer_amounts_to_as_a_label(kind: str, target: Any, label: Any) -> None:
    ids = np.array([2, 7, 3])
    found = best_answer(TASKS[kind], Encoded((ids,), (ids * 0,), 0), np.array(target, np.float32))
    np.testing.assert_array_equal(found, label)


def test_shorter_vectors_keep_the_cosines_as_well_as_can_be() -> None:
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 12))  # of rank 4: four numbers hold all
    for size in (4, 12, 20):
        np.testing.assert_allclose(cosines(resized(wide, size)), cosines(wide), atol=1e-5)
    vectors = rng.normal(size=(50, 12)) * np.linspace(3, 0.1, 12)
    off = {size: np.abs(cosines(resized(vectors, size)) - cosines(vectors)).mean() for size in (2, 4, 8)}
    assert off[8] < off[4] < off[2]
    assert off[4] < np.abs(cosines(vectors[:, -4:]) - cosines(vectors)).mean()


def cosines(vectors: np.ndarray) -> np.ndarray:
    lengths_one = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return lengths_one @ lengths_one.T


def test_labels_and_their_weights_take_the_teachers_order(tokenizer_dir: Path, tmp_path: Path) -> None:
    teacher = teacher_of("classify", tmp_path / "teacher", tokenizer_dir)
    task = ClassifyTask(("cat", "dog", "bird", "fish"), 64, class_weights=(1.0, 2.0, 3.0, 4.0))
    found = taught(task, teacher, load_tokenizer(tokenizer_dir), OPTIONS)
    assert found == ClassifyTask(("fish", "bird", "dog", "cat"), 64, class_weights=(4.0, 3.0, 2.0, 1.0))


def test_who_cannot_teach_is_refused_with_a_reason(
    tokenizer_dir: Path, other_tokenizer: Path, encoder_dir: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(tokenizer_dir)
    with pytest.raises(InputError, match=r'encoder: field "--teacher": has no head for tag; a teacher must'):
        open_teacher(str(encoder_dir), task="tag")
    with pytest.raises(InputError, match=r"none: no such model directory"):
        open_teacher(str(tmp_path / "none"), task="tag")
    classifier = teacher_of("classify", tmp_path / "classify", tokenizer_dir)
    with pytest.raises(InputError, match=r'field "--teacher": is for classify; a teacher must be fine-tuned for embed'):
        open_teacher(str(classifier.bundle.path), task="embed")
    with pytest.raises(InputError, match=r"answers with fish, bird, dog, cat; the rows have cat, cow"):
        taught(ClassifyTask(("cat", "cow"), 64), classifier, tokenizer, OPTIONS)
    with pytest.raises(InputError, match=r"its problem is single, that of the rows is multi"):
        taught(TASKS["multi"], classifier, tokenizer, OPTIONS)
    tagger = teacher_of("tag", tmp_path / "tag", tokenizer_dir)
    with pytest.raises(InputError, match=r"answers with O, B-PET, .*; the rows have X, Y"):
        taught(TagTask(("X", "Y"), 64), tagger, tokenizer, OPTIONS)
    answerer = teacher_of("qa", tmp_path / "qa", tokenizer_dir)
    with pytest.raises(InputError, match=r"another tokenizer than the student"):
        taught(QaTask(64), answerer, load_tokenizer(other_tokenizer), OPTIONS)
    with pytest.raises(InputError, match=r"reads 64 tokens, the student 128; lower --max-length"):
        taught(QaTask(128), answerer, tokenizer, OPTIONS)
    reranker = teacher_of("rerank", tmp_path / "rerank", tokenizer_dir)
    hot = OPTIONS.model_copy(update={"teacher_temperature": 3.0})
    with pytest.raises(InputError, match=r'"--teacher-temperature": is for probabilities; of rerank numbers are'):
        taught(TASKS["rerank"], reranker, tokenizer, hot)


def test_how_a_tokenizer_was_saved_makes_no_other_tokenizer(tokenizer_dir: Path, other_tokenizer: Path) -> None:
    one, other = load_tokenizer(tokenizer_dir), load_tokenizer(other_tokenizer)
    content = json.loads(one.content)
    content["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    assert cut_alike(one, TextTokenizer(json.dumps(content), one.config))
    assert not cut_alike(one, other)
