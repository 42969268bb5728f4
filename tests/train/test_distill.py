"""Fine-tuning with a teacher, from the rows to the table: of every task, resumed, refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from pydantic import ValidationError

from bertsmith.bundle import load_bundle
from bertsmith.config.finetune import ClassifyOptions, FinetuneOptions
from bertsmith.config.inference import EvaluateOptions
from bertsmith.errors import Interrupted
from bertsmith.evaluate import evaluate
from bertsmith.files import sha256
from bertsmith.model import load
from bertsmith.tasks.teacher import Answers
from bertsmith.train import distill, loop
from bertsmith.train import finetune as module
from bertsmith.train.finetune import finetune
from tests.cli.run import assert_refused, bertsmith
from tests.tasks.examples import OPTIONS, SUFFIX, options, write_model, write_rows
from tests.train.test_accumulate import weights_of_one_and_two_processes

KINDS = sorted(OPTIONS)


@pytest.fixture(scope="module")
def teachers(encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A little-trained model of each kind."""
    made = {}
    for kind in KINDS:
        given = options(kind, encoder_dir, tmp_path_factory.mktemp("teachers") / kind, steps=6, dev=None, threads=1)
        finetune(given)
        made[kind] = given.out
    return made


@pytest.fixture(scope="module")
def classifier(encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that knows its animals."""
    given = options("classify", encoder_dir, tmp_path_factory.mktemp("good") / "teacher", threads=1, dropout=0.0)
    assert finetune(given)["dev_accuracy"] == 1.0
    return given.out


def student(kind: str, source: Path, folder: Path, **changes: Any) -> FinetuneOptions:
    values = {"model": None, "teacher": str(source), "student_layers": 1, "steps": 4, "eval_every": 4, "threads": 1}
    return options(kind, source, folder, **values | changes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_of_every_task_and_the_table(kind: str, teachers: dict[str, Path], tmp_path: Path) -> None:
    report = finetune(student(kind, teachers[kind], tmp_path))
    found = report["distillation"]
    metric, bundle = found["metric"], load_bundle(tmp_path / "model")
    for name, out in (("teacher", teachers[kind]), ("student", tmp_path / "model")):
        side = found[name]
        given = EvaluateOptions(model=str(out), data=tmp_path / f"dev.{SUFFIX[kind]}")
        # of two rows whose scores differ in the last digit either may be the first
        close = 1e-3 if metric == "spearman" else 1e-6
        assert side[metric] == pytest.approx(evaluate(given)[metric], abs=close)
        assert side["parameters"] == load_bundle(out).model.num_parameters
        assert side["bytes"] == pytest.approx((out / "model.safetensors").stat().st_size, abs=8192)
        assert side["rows_per_second"] > 0
    assert (found["teacher"]["layers"], found["student"]["layers"]) == (2, 1)
    assert bundle.model.config.num_hidden_layers == 1
    assert bundle.manifest["provenance"]["teacher"] == str(teachers[kind])
    assert json.loads((tmp_path / "model/train/report.json").read_text())["distillation"] == found
    table = (tmp_path / "model/train/report.md").read_text()
    assert f"| {found['student']['parameters']:,} |" in table
    assert f"on {found['rows']} dev rows" in table
    assert not (tmp_path / "model/train/teacher").exists()
    steps = [json.loads(line) for line in (tmp_path / "model/train/metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["teacher_loss"]) for line in steps if "teacher_loss" in line)
    assert any("teacher_accuracy" in line for line in steps)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "qa"])
def test_a_student_with_another_tokenizer_and_size(
    kind: str, teachers: dict[str, Path], other_tokenizer: Path, tmp_path: Path
) -> None:
    small = write_model(tmp_path / "small", other_tokenizer, task={"name": None})
    found = finetune(student(kind, teachers[kind], tmp_path, model=str(small), student_layers=None))["distillation"]
    assert found["student"]["parameters"] < found["teacher"]["parameters"] / 2
    assert load_bundle(tmp_path / "model").model.config.hidden_size == 16


def test_a_student_cut_from_its_teacher_keeps_the_head(classifier: Path, tmp_path: Path) -> None:
    """Whatever order its own rows name the labels in."""
    given = student("classify", classifier, tmp_path, steps=1, learning_rate=1e-9)
    lines = given.train.read_text().splitlines()
    given.train.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    finetune(given)
    ours, theirs = (load_bundle(path) for path in (tmp_path / "model", classifier))
    assert ours.task["labels"] == theirs.task["labels"]
    torch.testing.assert_close(
        ours.model.classifier.state_dict(), theirs.model.classifier.state_dict(), atol=1e-7, rtol=0
    )


def test_a_student_is_a_directory_as_any_other(classifier: Path, tmp_path: Path) -> None:
    finetune(student("classify", classifier, tmp_path))
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    model = load(tmp_path / "model", device="cpu")
    text = "the cat sees a red ball"
    with torch.no_grad():
        logits = theirs(torch.tensor([model.bundle.tokenizer.encode(text).ids])).logits[0]
    np.testing.assert_allclose(model.logits([text])[0], logits.numpy(), rtol=1e-5, atol=1e-5)
    assert theirs.config.num_hidden_layers == 1
    assert model.predict([text])[0]["label"] in ("cat", "dog", "bird", "fish")


@pytest.mark.slow
def test_a_teacher_helps_where_labels_mislead_and_a_scrambled_one_does_not(
    classifier: Path, encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three labels of four are drawn anew; both students see the same rows, one of them the answers to other rows."""
    rng, real = np.random.default_rng(0), distill.answers_to

    def scrambled(*arguments: Any) -> Answers:
        answers = real(*arguments)
        return replace(answers, values=rng.permutation(answers.values))

    def accuracy(name: str) -> float:
        given = student(
            "classify",
            classifier,
            tmp_path / name,
            model=str(encoder_dir),
            student_layers=None,
            steps=640,
            eval_every=640,
            alpha=0.9,
            dropout=0.0,
        )
        lines = [line.split("\t") for line in given.train.read_text().splitlines()[1:]]
        labels = [lines[int(rng.integers(len(lines)))][1] if i % 4 else label for i, (_, label) in enumerate(lines)]
        rows = "".join(f"{text}\t{label}\n" for (text, _), label in zip(lines, labels, strict=True))
        given.train.write_text("text\tlabel\n" + rows)
        return float(finetune(given)["dev_accuracy"])

    taught = accuracy("taught")
    monkeypatch.setattr(distill, "answers_to", scrambled)
    assert taught > 0.9
    assert accuracy("scrambled") < taught - 0.3


def test_the_teacher_is_asked_once_before_the_first_step(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    steps: list[int] = []
    real, real_train = distill.answers_to, module.train
    monkeypatch.setattr(distill, "answers_to", lambda *given: asked.append(len(given[2])) or real(*given))
    monkeypatch.setattr(module, "train", lambda run: steps.append(len(asked)) or real_train(run))
    finetune(student("classify", classifier, tmp_path, steps=20))
    assert (asked, steps) == ([96], [1])


def test_a_resumed_student_has_bitwise_the_same_weights_and_its_teacher_is_not_asked_again(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = {"steps": 12, "checkpoint_every": 5, "dropout": 0.1, "micro_batch": 5, "eval_every": 6}
    finetune(student("classify", classifier, tmp_path / "whole", **flags))
    given = student("classify", classifier, tmp_path / "cut", **flags)
    real = loop.save

    def killed(run: Any) -> None:
        real(run)
        raise Interrupted("killed", signal_number=9)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save", killed)
        with pytest.raises(Interrupted):
            finetune(given)
    assert [path.name for path in (tmp_path / "cut/model/train/checkpoints").iterdir()] == ["step-5"]
    with monkeypatch.context() as patch:
        patch.setattr(distill, "answers_to", None)
        finetune(given.model_copy(update={"resume": True}))
    one, other = (sha256(tmp_path / name / "model/model.safetensors") for name in ("whole", "cut"))
    assert one == other


def test_damaged_answers_are_asked_for_again_with_a_warning(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = student("classify", classifier, tmp_path)

    def killed(run: Any) -> None:
        raise Interrupted("killed", signal_number=9)

    with monkeypatch.context() as patch:
        patch.setattr(module, "train", killed)
        with pytest.raises(Interrupted):
            finetune(given)
    stored = tmp_path / "model/train/teacher/answers.safetensors"
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(content)
    finetune(given.model_copy(update={"resume": True}))
    assert "the teacher is asked again" in caplog.text


@pytest.mark.parametrize("kind", ["classify", "multi", "regression", "tag", "qa", "choice", "rerank"])
def test_rows_without_labels_are_learnt_from_too(kind: str, teachers: dict[str, Path], tmp_path: Path) -> None:
    more = write_rows(kind, tmp_path / f"more.{SUFFIX[kind]}", count=20, seed=3)
    report = finetune(student(kind, teachers[kind], tmp_path, unlabelled=more))
    assert report["rows"] == 96 + 20


@pytest.mark.slow
def test_unlabelled_rows_teach_what_labels_do_not_say(classifier: Path, encoder_dir: Path, tmp_path: Path) -> None:
    """Four labelled rows and 96 without: the student learns all four animals."""
    flags = {"model": str(encoder_dir), "student_layers": None, "steps": 480, "eval_every": 480, "dropout": 0.0}
    few = student("classify", classifier, tmp_path / "few", **flags)
    more = tmp_path / "more.tsv"
    more.write_text("\n".join(line.split("\t")[0] for line in few.train.read_text().splitlines()) + "\n")
    few.train.write_text("\n".join(few.train.read_text().splitlines()[:5]) + "\n")
    alone = float(finetune(few)["dev_accuracy"])
    report = finetune(few.model_copy(update={"unlabelled": more, "out": tmp_path / "more"}))
    assert report["dev_accuracy"] > 0.9
    assert alone < report["dev_accuracy"] - 0.1


def test_without_dev_rows_size_and_speed_are_told(classifier: Path, tmp_path: Path) -> None:
    found = finetune(student("classify", classifier, tmp_path, dev=None))["distillation"]
    assert found["metric"] is None
    assert found["rows"] == found["rows_timed"] == 96
    assert "accuracy" not in (tmp_path / "model/train/report.md").read_text()


def test_layers_can_be_taken_without_a_teacher(classifier: Path, tmp_path: Path) -> None:
    report = finetune(student("classify", classifier, tmp_path, model=str(classifier), teacher=None))
    assert "distillation" not in report
    assert load_bundle(tmp_path / "model").model.config.num_hidden_layers == 1
    assert not (tmp_path / "model/train/report.md").exists()


def test_seeds_and_a_search_have_their_teacher_too(classifier: Path, tmp_path: Path) -> None:
    report = finetune(student("classify", classifier, tmp_path / "a", seeds=2))
    assert report["runs"] == 2
    assert report["distillation"]["student"]["accuracy"] == report["dev_accuracy"]
    given = student("classify", classifier, tmp_path / "b", search=2).model_dump(exclude_unset=True)
    given.pop("learning_rate")
    assert finetune(ClassifyOptions(**given))["runs"] == 2


def test_the_console_ends_with_the_table(classifier: Path, tmp_path: Path, capsys: Any) -> None:
    given = student("classify", classifier, tmp_path)
    words = ("finetune", "classify", "--teacher", classifier, "--student-layers", 1, "--train", given.train)
    more = ("--dev", given.dev, "--out", given.out, "--steps", 2, "--threads", 1)
    outcome = bertsmith(capsys, *words, *more)
    assert outcome.code == 0
    assert [line.split(" | ")[0] for line in outcome.out.splitlines()[-7:-2]] == [
        "| ",
        "| ---",
        "| teacher",
        "| student",
        "| student / teacher",
    ]
    assert outcome.out.splitlines()[-1].startswith("accuracy on 24 dev rows; speed from text to answer on ")
    as_json = bertsmith(capsys, *words, *more, "--overwrite", "--json")
    assert json.loads(as_json.out)["distillation"]["student"]["layers"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": None}, "--model is missing"),
        ({"teacher": None, "model": "m", "alpha": 0.6}, "--alpha is for learning from a teacher; give --teacher"),
        ({"teacher": None, "model": "m", "teacher_temperature": 3.0}, "--teacher-temperature is for learning"),
        ({"teacher": None, "model": "m", "unlabelled": Path("u")}, "--unlabelled is for learning"),
        ({"student_layers": None}, "--teacher needs a student: --model DIR"),
        ({"alpha": 1.5}, "less than or equal to 1"),
        ({"teacher_temperature": 0.0}, "greater than 0"),
    ],
)
def test_options_that_do_not_go_together(changes: dict[str, Any], message: str) -> None:
    values = {"teacher": "t", "student_layers": 1, "train": Path("a"), "out": Path("o")}
    with pytest.raises(ValidationError, match=message):
        ClassifyOptions(**values | changes)


def test_bad_teachers_get_one_line_and_leave_nothing(
    classifier: Path, teachers: dict[str, Path], encoder_dir: Path, rows: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"

    def refused(message: str, *words: object, task: str = "classify", train: Path = rows / "train.tsv") -> None:
        every = ("finetune", task, "--train", train, "--out", out, "--steps", 1, "--threads", 1, *words)
        assert_refused(bertsmith(capsys, *every), message, out)

    layers = ("--student-layers", 1)
    refused(r"none: no such model directory", "--teacher", tmp_path / "none", *layers)
    refused(r'field "--teacher": has no head for classify', "--teacher", encoder_dir, *layers)
    refused(r"is for tag; a teacher must be fine-tuned for classify", "--teacher", teachers["tag"], *layers)
    refused(r"answers with cat, dog, bird, fish; the rows have cat, dog", "--teacher", classifier, *layers)
    refused(r'"--student-layers": 9 blocks cannot be taken', "--teacher", classifier, "--student-layers", 9)
    refused(r"--teacher needs a student", "--teacher", classifier)
    texts = tmp_path / "pairs.tsv"
    write_rows("embed", texts, count=8, seed=0)
    words = ("--teacher", teachers["embed"], *layers, "--unlabelled", texts)
    refused(r'"--unlabelled": an embedder\'s rows have no labels', *words, task="embed", train=texts)


@pytest.mark.slow
def test_two_processes_learn_what_one_would_have_learnt(classifier: Path, tmp_path: Path) -> None:
    flags = {"batch_size": 7, "micro_batch": 2, "dropout": 0.0, "dev": None, "steps": 6}
    alone = student("classify", classifier, tmp_path / "one", **flags)
    finetune(alone)
    assert weights_of_one_and_two_processes("classify", alone, tmp_path / "two" / "model")
