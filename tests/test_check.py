"""The data doctor: what it finds, with lines, and that its command works."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from bertsmith.check import check
from bertsmith.config.check import CheckOptions
from tests.cli.run import bertsmith
from tests.tasks.examples import SUFFIX, write_rows


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def labelled(*rows: tuple[str, str]) -> str:
    return "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)


@pytest.mark.parametrize("kind", ["classify", "tag", "qa", "choice"])
def test_the_task_is_guessed_and_the_command_trains(
    kind: str, encoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [
        write_rows(kind, Path(f"{name}.{SUFFIX[kind]}"), count=24, seed=seed) for seed, name in enumerate(["a", "b"])
    ]
    outcome = bertsmith(capsys, "check", *files, "--model", encoder_dir, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["task"] == kind
    assert not found["errors"]
    words = shlex.split(found["command"])
    assert words[:3] == ["bertsmith", "finetune", kind]
    assert bertsmith(capsys, *words[1:], "--steps", 1, "--threads", 2).code == 0
    assert (tmp_path / f"runs/a-{kind}/bertsmith.json").is_file()


def test_findings_about_labels_name_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write(
        tmp_path / "train.tsv",
        labelled(
            *[(f"text {i}", "x") for i in range(60)], ("rare one", "y"), ("text 3", "x"), ("text 4", "y"), (" ", "y")
        ),
    )
    dev = write(tmp_path / "dev.tsv", labelled(("text 5", "x"), ("new", "z")))
    outcome = bertsmith(capsys, "check", train, dev)
    assert outcome.code == 2
    for line in (
        "train.tsv:63: warning: 1 rows repeat an earlier one; remove them",
        "train.tsv:64: warning: 1 rows repeat an earlier one with another label",
        "dev.tsv:2: warning: 1 of 2 rows are also in",
        "train.tsv: warning: 1 labels have fewer than 5 rows: y",
        "note: the commonest label has 20 times the rows of the rarest; --class-weights auto",
        "dev.tsv:3: error: label 'z' is not in",
        "train.tsv:65: warning: 1 rows have an empty text",
    ):
        assert line in outcome.out, line
    assert "finetune" not in outcome.out


def test_unreadable_rows_are_errors_with_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write(tmp_path / "train.tsv", "text\tlabel\n" + "broken\n" * 30)
    outcome = bertsmith(capsys, "check", train)
    assert outcome.code == 2
    assert "train.tsv:2: has 1 column(s)" in outcome.out
    assert "and 10 more" in outcome.out


def test_the_same_file_twice(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", labelled(("a", "x"), ("b", "y")))
    found = check(CheckOptions(files=(file, file)))
    assert any("2 of 2 rows are also in" in line and "it is the same file" in line for line in found["warnings"])


def test_exchanged_columns_and_numbers_are_suspicious(tmp_path: Path) -> None:
    rows = [(("good", "bad")[i % 2], f"a long text number {i}") for i in range(40)]
    found = check(CheckOptions(files=(write(tmp_path / "a.tsv", labelled(*rows)),)))
    assert any("are the columns exchanged?" in line for line in found["warnings"])
    assert any("40 different labels in 40 rows" in line for line in found["warnings"])
    numbers = [(str(i), "x" if i % 2 else "y") for i in range(40)]
    found = check(CheckOptions(files=(write(tmp_path / "b.tsv", labelled(*numbers)),)))
    assert any("40 of 40 texts are numbers" in line for line in found["warnings"])


def test_tags_that_cannot_follow_are_named(tmp_path: Path) -> None:
    train = write(tmp_path / "a.conll", "a\tB-X\nb\tI-X\n\nc\tO\nd\tB-Y\ne\tI-X\n")
    found = check(CheckOptions(files=(train, write(tmp_path / "b.conll", "a\tO\nb\tB-Z\n"))))
    assert found["errors"] == [f"{tmp_path}/b.conll:2: error: tags that are not in {train}: B-Z"]
    legal = write(tmp_path / "c.conll", "a\tU-X\n\nb\tB-X\nc\tO\n")
    found = check(CheckOptions(files=(legal,)))
    assert any(
        "c.conll:4: warning: 1 tags cannot follow the one before in BILOU: O after B-X" in w for w in found["warnings"]
    )


def test_answers_beside_their_start_are_counted(tmp_path: Path) -> None:
    rows = [
        {"question": "q", "context": "Rome is Rome", "answers": [{"text": "Rome", "answer_start": start}]}
        for start in (0, 7, 8)
    ]
    file = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    found = check(CheckOptions(files=(file,)))
    assert any("a.jsonl:2: warning: 1 answers do not stand where answer_start says" in w for w in found["warnings"])


def test_lengths_and_unknown_pieces_against_a_model(encoder_dir: Path, tmp_path: Path) -> None:
    rows = [("the cat sees " * 30, "x"), ("the dog", "y"), ("Ωμέγα Ψυχή Ξένος " * 3, "y")]
    file = write(tmp_path / "a.tsv", labelled(*rows))
    found = check(CheckOptions(files=(file,), model=str(encoder_dir)))
    assert any("1 of 3 rows (33.3%) are longer than 64 tokens" in line for line in found["warnings"])
    assert any("of the pieces are [UNK]" in line and "a.tsv:4" in line for line in found["warnings"])
    assert "--long-docs window" in found["command"]
    assert found["files"][str(file)]["limit"] == 64


def test_labels_and_files_that_do_not_fit_together_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("a", "1"), ("b", "1.0"), ("c", "01"), ("d", "pos"), ("e", " Pos"), ("f", "2")]
    train = write(tmp_path / "train.tsv", labelled(*rows))
    dev = write(tmp_path / "dev.tsv", "text_a\ttext_b\tlabel\na\tb\t1\n")
    outcome = bertsmith(capsys, "check", train, dev)
    assert "train.tsv: warning: '01', '1', '1.0' are different labels as they stand; write them alike" in outcome.out
    assert "'pos' are different labels" in outcome.out
    assert "'2'" not in outcome.out
    assert f"dev.tsv: warning: rows have pairs of texts, those of {train} have one text" in outcome.out


def test_texts_of_which_the_tokenizer_makes_nothing_are_told(
    encoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = write(tmp_path / "train.tsv", labelled(("the cat", "x"), ("\u200b\u200b", "y"), ("a dog", "y")))
    outcome = bertsmith(capsys, "check", train, "--model", encoder_dir)
    assert "train.tsv:3: warning: 1 rows have a text that the tokenizer makes nothing of" in outcome.out


def test_pairs_and_triplets_are_those_of_an_embedder(encoder_dir: Path, tmp_path: Path) -> None:
    rows = [f"anchor {i}\tthe same\tother {i}" for i in range(24)] + ["twin\ttwin\tno", "anchor 3\tthe same\tother 3"]
    train = write(tmp_path / "a.tsv", "anchor\tpositive\tnegative\n" + "\n".join(rows) + "\n")
    dev = write(tmp_path / "b.tsv", "anchor\tpositive\nanchor 9\tthe same\nnew\t" + "the cat " * 60 + "\n")
    found = check(CheckOptions(files=(train, dev), model=str(encoder_dir)))
    assert found["task"] == "embed"
    assert found["files"][str(train)] | {"kind": "pairs", "anchors": 25, "negatives": 26} == found["files"][str(train)]
    for line in (
        "a.tsv:26: warning: 1 rows have the anchor as its positive",
        "a.tsv:27: warning: 1 rows repeat an earlier one",
        "note: 'the same' is the positive of 25 of 26 rows",
        "b.tsv:3: warning: 1 of 2 rows (50.0%) are longer than 64 tokens",
    ):
        assert any(line in finding for kind in ("warnings", "notes") for finding in found[kind]), line
    assert found["command"].startswith("bertsmith finetune embed --model")
    assert "--long-docs truncate" in found["command"]


def test_scores_of_an_embedder_need_their_range(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "text_a,text_b,score\na,b,4\nc,d,1\n")
    assert check(CheckOptions(files=(file,)))["task"] == "classify", "as a regression they are learnt too"
    found = check(CheckOptions(files=(file,), task="embed"))
    assert "is 4, outside of -1 to 1; give --score-range" in found["errors"][0]
    found = check(CheckOptions(files=(file,), task="embed", score_range="0,5"))
    assert found["files"][str(file)]["scores"] == pytest.approx({"lowest": 0.2, "mean": 0.5, "highest": 0.8})
    assert "--score-range 0,5" in found["command"]
    same = write(tmp_path / "b.csv", "text_a,text_b,score\na,b,1\nc,d,1\n")
    assert "all 2 rows have the same score" in check(CheckOptions(files=(same,), task="embed"))["errors"][0]


def test_queries_of_a_reranker_are_counted(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", "query\tpassage\tlabel\nq\ta\t1\nq\tb\t0\nr\tc\t0\nr\td\t0\n")
    found = check(CheckOptions(files=(file,)))
    assert found["task"] == "rerank"
    assert found["files"][str(file)] == {"rows": 4, "queries": 2, "relevant": 1, "others": 3}
    assert any("a.tsv:4: note: 1 queries have no relevant text" in line for line in found["notes"])
    positives = write(tmp_path / "b.tsv", "query\tpositive\nq\ta\n")
    found = check(CheckOptions(files=(positives,), task="rerank"))
    assert any("--mine N --mine-with DIR finds negatives" in line for line in found["warnings"])


def test_what_finetune_takes_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write(tmp_path / "a.conll", "Tom\tB-PER\nran\tO\n")
    dev = write(tmp_path / "b.conll", "Tom\tB-PER\nCat\tI-PER\n")
    outcome = bertsmith(capsys, "check", train, dev)
    assert outcome.code == 0, outcome.out
    assert "not in" not in outcome.out


def test_strange_tags_are_named_with_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write(tmp_path / "a.conll", "# domain=en\nTom B-PER\nCat I-PER\nran O\n")
    outcome = bertsmith(capsys, "check", train)
    assert (
        "a.conll:1: warning: no entities, because these tags are neither O nor PREFIX-CLASS: domain=en" in outcome.out
    )


def test_mapped_columns_tell_the_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "a.jsonl", '{"q": "Who?", "ctx": "Tom ran", "a": "Tom"}\n')
    outcome = bertsmith(capsys, "check", file, "--columns", "question=q,context=ctx,answers=a", "--json")
    assert json.loads(outcome.out)["task"] == "qa"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--separator", ",", "--problem", "single"], "--separator parts several labels"),
        (["--max-length", "99999"], '"--max-length": 99999 is more than the model'),
    ],
)
def test_flags_that_finetune_refuses(
    flags: list[str], message: str, encoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = write(tmp_path / "a.tsv", labelled(("one", "x"), ("two", "y")))
    outcome = bertsmith(capsys, "check", train, "--model", encoder_dir, *flags)
    assert outcome.code == 2
    assert message in outcome.err + outcome.out
    assert "defect" not in outcome.err
