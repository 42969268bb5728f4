"""Files that people have, and bad ones, through the command line: one clear line each, or a right result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bertsmith.data.choices import read_choices
from bertsmith.errors import InputError
from tests.cli.run import assert_refused, bertsmith


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def squad(context: str, question: str, answer: str, start: int) -> str:
    asked = {"id": "q1", "question": question, "answers": [{"text": answer, "answer_start": start}]}
    return json.dumps({"data": [{"paragraphs": [{"context": context, "qas": [asked]}]}]})


BAD: dict[str, tuple[str, str, str, list[str], str]] = {
    "one row": ("classify", "a.tsv", "text\tlabel\na\tx\n", [], r"all 1 rows have the label 'x'"),
    "a score of nan": ("classify", "a.tsv", "text\tscore\na\t1\nb\tnan\n", [], r'a.tsv:3: field "score"'),
    "a pair without its second column": ("classify", "a.tsv", "text_a\tlabel\na\tx\n", [], r'field "text_b"'),
    "a long text": ("classify", "a.tsv", f"text\tlabel\na\tx\n{'cat ' * 99}\ty\n", [], r"a.tsv:3.*--long-docs"),
    "mixed kinds of labels": (
        "classify",
        "a.jsonl",
        '{"text": "a", "label": "x"}\n{"text": "b", "label": ["y"]}\n',
        [],
        r"a.jsonl:2.*write all labels alike",
    ),
    "weights of a label that is not there": (
        "classify",
        "a.tsv",
        "text\tlabel\na\tx\nb\ty\n",
        ["--class-weights", "z=2"],
        r'field "--class-weights": no label \'z\'',
    ),
    "tags that do not fit": ("tag", "a.jsonl", '{"tokens": ["a"], "tags": []}\n', [], r'a.jsonl:1: field "tags"'),
    "a word without tag": ("tag", "a.conll", "a\tO\nb\n", [], r"a.conll:2: has the word 'b' and no tag"),
    "one tag": ("tag", "a.conll", "a\tO\nb\tO\n", [], r"every word has the tag 'O'"),
    "an answer outside of its context": ("qa", "a.json", squad("the cat", "who?", "dog", 4), [], r"question q1.*'dog'"),
    "a question longer than the window": (
        "qa",
        "a.json",
        squad("the cat", "who " * 99, "cat", 4),
        [],
        r'question q1: field "question": the question has \d+ tokens',
    ),
    "label 7 of 5": (
        "choice",
        "a.jsonl",
        '{"text": "q", "choices": ["a", "b", "c", "d", "e"], "label": 7}\n',
        [],
        r"a.jsonl:1.*is 7; the row has 5 choices, numbered 0 to 4",
    ),
    "choices that are counted from 0": (
        "choice",
        "a.tsv",
        "text\tchoice0\tchoice1\tchoice2\tlabel\nq\ta\tb\tc\t0\n",
        [],
        r'a.tsv:2: field "choice0": the columns go from choice1',
    ),
    "an empty choice": (
        "choice",
        "a.jsonl",
        '{"text": "q", "choices": ["a", ""], "label": 0}\n',
        [],
        r'a.jsonl:1: field "choices": choice 1 is empty',
    ),
    "half of the pairs": (
        "classify",
        "a.jsonl",
        '{"text": "a", "pair": "b", "label": "x"}\n{"text": "c", "label": "y"}\n',
        [],
        r'a.jsonl:2: field "text_b": is missing, other rows have it',
    ),
    "a score beyond float32": (
        "classify",
        "a.tsv",
        "text\tscore\na\t1e300\nb\t1\n",
        [],
        r'a.tsv:2: field "score": 1e300 is larger',
    ),
    "one score": ("classify", "a.tsv", "text\tscore\na\t2\nb\t2\n", [], r'field "score": all 2 rows have the score 2'),
    "no answers at all": (
        "qa",
        "a.jsonl",
        '{"question": "q", "context": "c", "answers": []}\n',
        [],
        r'field "answers": no question has an answer',
    ),
    "a weight twice": (
        "classify",
        "a.tsv",
        "text\tlabel\na\tx\nb\ty\n",
        ["--class-weights", "x=2,x=3"],
        r"names 'x' twice",
    ),
    "more blocks than there are": (
        "classify",
        "a.tsv",
        "text\tlabel\na\tx\nb\ty\n",
        ["--reinit-layers", "9"],
        r'field "--reinit-layers": 9 is more',
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_get_one_line_and_leave_nothing(name: str, encoder_dir: Path, tmp_path: Path, capsys: Any) -> None:
    task, file, text, more, message = BAD[name]
    path, out = write(tmp_path / file, text), tmp_path / "out"
    words = ("finetune", task, "--model", encoder_dir, "--train", path, "--out", out, "--steps", 1, "--threads", 2)
    assert_refused(bertsmith(capsys, *words, *more), message, out)


@pytest.mark.parametrize(
    "labels",
    [("positive", "negative"), ("1", "0"), ("1.0", "2.5"), ("very good", "not so good"), ("正面", "负面"), ("b", "a")],
)
def test_labels_of_any_kind_come_back_as_they_were(
    labels: tuple[str, str], encoder_dir: Path, tmp_path: Path, capsys: Any
) -> None:
    lines = [f"the {('cat', 'dog')[i % 2]} sees {i}\t{labels[i % 2]}" for i in range(24)]
    train = write(tmp_path / "train.tsv", "text\tlabel\n" + "\n".join(lines) + "\n")
    words = ("--model", encoder_dir, "--train", train, "--out", tmp_path / "out", "--threads", 2)
    assert bertsmith(capsys, "finetune", "classify", *words, "--steps", 30, "--learning-rate", 3e-3).code == 0
    outcome = bertsmith(capsys, "predict", tmp_path / "out", "--text", "the dog sees")
    assert json.loads(outcome.out)["label"] in labels
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert list(config["id2label"].values()) == list(labels)
    evaluated = json.loads(bertsmith(capsys, "evaluate", tmp_path / "out", "--data", train, "--json").out)
    assert evaluated["accuracy"] == 1.0


def test_forty_to_one_is_trained_with_weights(encoder_dir: Path, tmp_path: Path, capsys: Any) -> None:
    lines = [
        f"the {'bird' if i % 41 == 0 else 'cat'} sees {i}\t{'rare' if i % 41 == 0 else 'often'}" for i in range(123)
    ]
    train = write(tmp_path / "train.tsv", "text\tlabel\n" + "\n".join(lines) + "\n")
    words = ("--model", encoder_dir, "--train", train, "--out", tmp_path / "out", "--threads", 2, "--steps", 60)
    flags = ("--class-weights", "auto", "--learning-rate", 3e-3, "--batch-size", 32)
    assert bertsmith(capsys, "finetune", "classify", *words, *flags).code == 0
    outcome = bertsmith(capsys, "predict", tmp_path / "out", "--text", "the bird sees 9")
    assert json.loads(outcome.out)["label"] == "rare"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--text", "a", "--question", "b"), r"a model for classify has no use for it"),
        (("--text", "a", "--choices", "b|c"), r"a model for classify has no use for it"),
        (("--data", "x.tsv", "--pair", "b"), r"--pair goes with --text"),
        (("--text", "a", "--columns", "text=zzz"), r"--columns goes with --data"),
    ],
)
def test_predict_refuses_what_the_task_cannot_use(
    words: tuple[str, ...], message: str, classifier_dir: Path, capsys: Any
) -> None:
    outcome = bertsmith(capsys, "predict", classifier_dir, *words)
    assert outcome.code == 2
    assert message in outcome.errors[0]


def test_an_evaluation_is_not_overwritten(classifier_dir: Path, rows: Path, tmp_path: Path, capsys: Any) -> None:
    words = ("evaluate", classifier_dir, "--data", rows / "dev.tsv", "--out", tmp_path / "report")
    assert bertsmith(capsys, *words).code == 0
    before = (tmp_path / "report/report.json").read_bytes()
    outcome = bertsmith(capsys, *words)
    assert outcome.code == 2
    assert "--overwrite" in outcome.errors[0]
    assert (tmp_path / "report/report.json").read_bytes() == before
    assert bertsmith(capsys, *words, "--overwrite").code == 0
    refused = bertsmith(
        capsys, "evaluate", classifier_dir, "--data", rows / "dev.tsv", "--out", classifier_dir, "--overwrite"
    )
    assert_refused(refused, r"is a model, which a report would replace")
    assert (classifier_dir / "model.safetensors").is_file()
    misnamed = bertsmith(capsys, *words[:-1], tmp_path / "new", "--fail-under", "acuracy=0.5")
    assert_refused(misnamed, r"no metric 'acuracy'; did you mean", tmp_path / "new")
    assert_refused(bertsmith(capsys, *words[:4], "--fail-under", "accuracy=nan"), r"METRIC=NUMBER")


def test_a_file_of_rows_is_never_replaced_by_a_model(encoder_dir: Path, tmp_path: Path, capsys: Any) -> None:
    train = write(tmp_path / "train.tsv", "text\tlabel\na\tx\nb\ty\n")
    words = (
        "finetune",
        "classify",
        "--model",
        encoder_dir,
        "--train",
        train,
        "--out",
        train,
        "--steps",
        1,
        "--overwrite",
    )
    assert_refused(bertsmith(capsys, *words), r"is a file, and a directory is to be written")
    assert train.read_text().startswith("text")


def test_baselines_of_odd_training_rows(classifier_dir: Path, rows: Path, tmp_path: Path, capsys: Any) -> None:
    words = ("evaluate", classifier_dir, "--data", rows / "dev.tsv", "--baseline")
    one = write(tmp_path / "one.tsv", "text\tlabel\na\tcat\nb\tcat\n")
    assert bertsmith(capsys, *words, one).code == 0
    other = write(tmp_path / "other.tsv", "text\tlabel\na\tcat\nb\tmouse\n")
    assert_refused(bertsmith(capsys, *words, other), r'other.tsv:3: field "label": unknown label "mouse"')


def test_texts_alone_are_no_choices_and_an_unfinished_run_is_no_model(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "rows.txt"
    file.write_text("a b\nc d\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"rows\.txt: field \"choices\": found text; needed are `choices`"):
        read_choices(file, labelled=False)
    (tmp_path / "run" / "train").mkdir(parents=True)
    outcome = bertsmith(capsys, "predict", tmp_path / "run", "--text", "a")
    assert outcome.code == 2
    assert "no model yet, its training has not ended; go on with the same command and --resume" in outcome.err
