"""The command line as a whole: help, JSON, the flags, one verb after the other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bertsmith.cli.parser import flag_name, is_positional, parse
from bertsmith.cli.verbs import VERBS, load
from bertsmith.tasks.known import read_training
from tests.cli.run import bertsmith

FLAGS = Path(__file__).with_name("flags.txt")


def all_flags() -> str:
    lines = []
    for verb, entry in VERBS.items():
        for name, field in load(entry.options).model_fields.items():
            shown = name.upper() if is_positional(field) else flag_name(name)
            default = "required" if field.is_required() else f"default {field.default!r}"
            lines.append(f"{verb}: {shown} ({default})")
    return "\n".join(lines) + "\n"


def test_flags_and_defaults_change_by_decision_only() -> None:
    """After a wanted change: python -m tests.cli.test_commands"""
    assert FLAGS.read_text(encoding="utf-8") == all_flags()


@pytest.mark.parametrize("words", [["--help"], ["finetune", "--help"], ["tokenizer", "--help"], ["pretrain", "--help"]])
def test_help_imports_no_torch(words: list[str]) -> None:
    code = "import sys; from bertsmith.cli.main import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "sys.exit(any(name in sys.modules for name in ('torch', 'tokenizers', 'pyarrow', 'sklearn')))"
    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_help_documents_every_flag(verb: str, capsys) -> None:
    outcome = bertsmith(capsys, *verb.split(), "--help")
    assert outcome.code == 0
    for name, field in load(VERBS[verb].options).model_fields.items():
        assert field.description, name
        if not is_positional(field):
            flag = flag_name(name)
            assert (f"--no-{flag[2:]}" if field.default is True else flag) in outcome.out


def test_yaml_gives_defaults_and_flags_override_them(capsys, corpus: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"files: [{corpus}]\nvocab-size: 80\nlowercase: false\nout: {tmp_path / 'a'}\n")
    assert bertsmith(capsys, "tokenizer", "--config", config).code == 0
    assert len((tmp_path / "a/vocab.txt").read_text().splitlines()) == 80
    assert not json.loads((tmp_path / "a/tokenizer_config.json").read_text())["do_lower_case"]
    outcome = bertsmith(capsys, "tokenizer", "--config", config, "--vocab-size", 85, "--out", tmp_path / "b", "--json")
    assert json.loads(outcome.out)["vocab_size"] == 85


@pytest.mark.parametrize(("task", "field", "value"), [("classify", "thresholds", 0.3), ("embed", "matryoshka", 64)])
def test_a_number_in_yaml_may_stand_for_a_list(task: str, field: str, value: float, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"model: m\ntrain: a.tsv\nout: o\n{field}: {value}\n")
    options = parse(load(VERBS[f"finetune {task}"].options), [], prog="bertsmith", config=config)
    assert getattr(options, field) == str(value)


@pytest.mark.parametrize(
    ("task", "example", "row"),
    [
        ("tag", "tokens=words,tags=ner", {"words": ["a"], "ner": ["O"]}),
        ("qa", "question=query,context=passage,answers=spans", {"query": "who?", "passage": "Ann", "spans": ["Ann"]}),
        ("choice", "text=stem,choices=options,label=answer", {"stem": "a", "options": ["b", "c"], "answer": 0}),
        ("embed", "anchor=query,positive=passage", {"query": "a", "passage": "b"}),
        ("rerank", "anchor=query,positive=passage", {"query": "a", "passage": "b"}),
    ],
)
def test_the_help_about_columns_has_an_example_of_the_task(
    task: str, example: str, row: dict[str, object], tmp_path: Path
) -> None:
    model = load(VERBS[f"finetune {task}"].options)
    assert f"`{example}`" in model.model_fields["columns"].description.replace("\n", " ")
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    assert read_training(model(model="m", train=file, out=tmp_path / "out", columns=example))


def test_predict_prints_one_json_line_for_each_text_in_order(capsys, classifier_dir: Path, tmp_path: Path) -> None:
    outcome = bertsmith(capsys, "predict", classifier_dir, "--text", "the cat eats some bread.")
    (answer,) = (json.loads(line) for line in outcome.out.splitlines())
    assert answer["label"] == "cat"
    assert 0.5 < answer["score"] <= 1
    file = tmp_path / "texts.txt"
    file.write_text("the dog likes a red ball.\nthe cat sees two stones.\n\nthe dog\n")
    outcome = bertsmith(capsys, "predict", classifier_dir, "--data", file, "--batch-tokens", 16)
    assert [json.loads(line)["label"] for line in outcome.out.splitlines()] == ["dog", "cat", "dog"]
    assert "1 blank lines have no answer" in outcome.err


def test_fill_prints_probabilities_that_fall(capsys, encoder_dir: Path) -> None:
    outcome = bertsmith(capsys, "fill", encoder_dir, "the [MASK] sees a red [MASK].", "--top-k", 4, "--json")
    result = json.loads(outcome.out)["result"]
    assert [len(guesses) for guesses in result] == [4, 4]
    for guesses in result:
        scores = [guess["score"] for guess in guesses]
        assert scores == sorted(scores, reverse=True)
        assert 0 < sum(scores) <= 1
    token = result[0][0]["token"]
    filled = f"the{token[2:]}" if token.startswith("##") else f"the {token}"
    assert result[0][0]["text"] == f"{filled} sees a red [MASK]."


def test_evaluate_measures_an_encoder_on_the_held_out_documents_of_its_shards(
    capsys, encoder_dir: Path, shards_dir: Path
) -> None:
    outcome = bertsmith(capsys, "evaluate", encoder_dir, "--data", shards_dir, "--max-length", 32, "--json")
    metrics = json.loads(outcome.out)
    report = json.loads((encoder_dir / "train/report.json").read_text())
    assert metrics["heldout_mlm_loss"] == pytest.approx(report["heldout_mlm_loss"], abs=1e-5)


def test_evaluation_does_not_depend_on_batch_size_order_or_threads(
    capsys, classifier_dir: Path, rows: Path, tmp_path: Path
) -> None:
    import torch

    lines = (rows / "dev.tsv").read_text().splitlines()
    shuffled = tmp_path / "shuffled.tsv"
    shuffled.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    outcomes = [
        json.loads(bertsmith(capsys, "evaluate", classifier_dir, "--data", data, "--json", *more).out)
        for data, more in (
            (rows / "dev.tsv", ()),
            (rows / "dev.tsv", ("--batch-tokens", 1)),
            (rows / "dev.tsv", ("--batch-size", 1)),
            (rows / "dev.tsv", ("--batch-size", 64)),
            (rows / "dev.tsv", ("--threads", 1)),
            (shuffled, ()),
        )
    ]
    torch.set_num_threads(2)
    # of probabilities, whose last digit may differ; all else is of the answers
    errors = [outcome.pop("calibration_error") for outcome in outcomes]
    assert errors == pytest.approx([errors[0]] * len(errors), abs=1e-6)
    assert all(outcome == outcomes[0] for outcome in outcomes)


def test_doctor_names_device_threads_and_versions(capsys) -> None:
    result = json.loads(bertsmith(capsys, "doctor", "--json").out)
    assert {"device", "threads", "matrix_peak_gflops", "offline", "problems"} <= result.keys()
    assert result["versions"]["torch"].startswith("2.")


def test_no_control_characters_when_stdout_is_not_a_terminal(capsys, encoder_dir: Path) -> None:
    outcome = bertsmith(capsys, "fill", encoder_dir, "the [MASK]")
    assert "\x1b" not in outcome.out + outcome.err


if __name__ == "__main__":
    FLAGS.write_text(all_flags(), encoding="utf-8")
