"""Bad input: exit code 2, one line that names file, line or field and the fix, and no output touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bertsmith.evaluate import parse_gate
from tests.cli.run import assert_refused, bertsmith

TRAINING = ("finetune", "classify", "--model", "m", "--train", "t", "--out", "o")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "result"


def test_missing_file_suggests_the_nearest_name(capsys, tmp_path: Path, out: Path) -> None:
    (tmp_path / "corpus.txt").write_text("a b\n")
    outcome = bertsmith(capsys, "tokenizer", tmp_path / "corpsu.txt", "--out", out)
    assert_refused(outcome, r"corpsu\.txt: no such file.*corpus\.txt", out)


def test_empty_file(capsys, tmp_path: Path, out: Path) -> None:
    (tmp_path / "empty.txt").touch()
    assert_refused(bertsmith(capsys, "tokenizer", tmp_path / "empty.txt", "--out", out), r"empty\.txt: is empty", out)


def test_directory_instead_of_file(capsys, tmp_path: Path, out: Path) -> None:
    (tmp_path / "texts").mkdir()
    assert_refused(bertsmith(capsys, "tokenizer", tmp_path / "texts", "--out", out), r"texts: is a directory", out)


def test_invalid_utf8_names_line_and_offset(capsys, tmp_path: Path, out: Path, tokenizer_dir: Path) -> None:
    bad = tmp_path / "latin.txt"
    bad.write_bytes("ein Satz\nnoch ein Café\n".encode("latin-1"))
    for words in (("tokenizer", bad), ("prepare", bad, "--tokenizer", tokenizer_dir)):
        outcome = bertsmith(capsys, *words, "--out", out)
        assert_refused(outcome, r"latin\.txt:2: .*byte 0xe9 at offset 21.*iconv", out)


def test_csv_without_the_named_column(capsys, tmp_path: Path, out: Path, encoder_dir: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text("review,stars\ngood,1\nbad,0\n")
    words = ("finetune", "classify", "--model", encoder_dir, "--train", file, "--out", out)
    assert_refused(
        bertsmith(capsys, *words), r'train\.csv:1: .*label.*"review", "stars".*--columns text=NAME,label=NAME', out
    )
    outcome = bertsmith(capsys, *words, "--columns", "text=review,label=rating")
    assert_refused(outcome, r"train\.csv:1: .*rating", out)


def test_row_with_too_few_columns(capsys, tmp_path: Path, out: Path, encoder_dir: Path) -> None:
    file = tmp_path / "train.tsv"
    file.write_text("text\tlabel\nthe cat\tcat\nthe dog\n")
    outcome = bertsmith(capsys, "finetune", "classify", "--model", encoder_dir, "--train", file, "--out", out)
    assert_refused(outcome, r"train\.tsv:3: .*1 column", out)


def test_label_unseen_in_training(capsys, tmp_path: Path, out: Path, encoder_dir: Path, rows: Path) -> None:
    dev = tmp_path / "dev.tsv"
    dev.write_text("text\tlabel\nthe cat\tcta\nthe dog\tdog\n")
    words = ("--model", encoder_dir, "--train", rows / "train.tsv", "--dev", dev, "--out", out)
    outcome = bertsmith(capsys, "finetune", "classify", *words)
    assert_refused(outcome, r'dev\.tsv:2: field "label": unknown label "cta"; expected one of: cat, dog.*"cat"', out)


def test_many_bad_labels_are_listed_up_to_twenty_and_counted(capsys, tmp_path: Path, classifier_dir: Path) -> None:
    file = tmp_path / "test.tsv"
    file.write_text("text\tlabel\n" + "the cat\tmouse\n" * 50)
    outcome = bertsmith(capsys, "evaluate", classifier_dir, "--data", file)
    assert_refused(outcome, r'test\.tsv:2: field "label"', lines=21)
    assert "30 more" in outcome.errors[-1]


def test_fill_without_mask(capsys, encoder_dir: Path) -> None:
    assert_refused(bertsmith(capsys, "fill", encoder_dir, "the cat"), r'field "TEXT": there is no \[MASK\]')


def test_fill_with_a_classifier(capsys, classifier_dir: Path) -> None:
    assert_refused(bertsmith(capsys, "fill", classifier_dir, "the [MASK]"), r"no masked-LM head")


def test_predict_with_an_encoder(capsys, encoder_dir: Path) -> None:
    assert_refused(
        bertsmith(capsys, "predict", encoder_dir, "--text", "a"),
        r"this model is for pretrain; bertsmith finetune makes one that answers",
    )


def test_vocabulary_larger_than_the_corpus_gives(capsys, corpus: Path, out: Path) -> None:
    outcome = bertsmith(capsys, "tokenizer", corpus, "--out", out, "--vocab-size", 30000)
    assert_refused(outcome, r"--vocab-size.*this corpus gives \d+ pieces.*use --vocab-size \d+", out)


def test_sequence_longer_than_positions(capsys, shards_dir: Path, encoder_dir: Path, rows: Path, out: Path) -> None:
    words = ("pretrain", shards_dir, "--out", out, "--max-length", 1024)
    assert_refused(
        bertsmith(capsys, *words), r'field "--max-length": 1024 is more than the model\'s 512 positions', out
    )
    words = ("finetune", "classify", "--model", encoder_dir, "--train", rows / "train.tsv", "--out", out)
    assert_refused(bertsmith(capsys, *words, "--max-length", 65), r"--max-length.*64 positions", out)


def test_text_longer_than_the_model_reads(capsys, encoder_dir: Path, rows: Path, tmp_path: Path, out: Path) -> None:
    file = tmp_path / "long.tsv"
    file.write_text("text\tlabel\n" + "the cat " * 60 + "\tcat\nthe dog\tdog\n")
    words = ("finetune", "classify", "--model", encoder_dir, "--train", file, "--out", out, "--steps", 1)
    outcome = bertsmith(capsys, *words)
    assert_refused(outcome, r"long\.tsv:2: field \"text\": 122 tokens, the limit is 64; .*--long-docs truncate", out)
    outcome = bertsmith(capsys, *words, "--long-docs", "truncate")
    assert outcome.code == 0
    assert "1 of 2 texts were cut to 64 tokens" in outcome.err


@pytest.mark.parametrize("verb", ["tokenizer", "prepare", "pretrain", "finetune classify"])
def test_existing_output_is_refused_and_untouched(
    capsys, verb: str, corpus: Path, tokenizer_dir: Path, shards_dir: Path, encoder_dir: Path, rows: Path, out: Path
) -> None:
    out.mkdir()
    (out / "precious.txt").write_text("keep me")
    words = {
        "tokenizer": (corpus,),
        "prepare": (corpus, "--tokenizer", tokenizer_dir),
        "pretrain": (shards_dir,),
        "finetune classify": ("--model", encoder_dir, "--train", rows / "train.tsv"),
    }[verb]
    assert_refused(bertsmith(capsys, *verb.split(), *words, "--out", out), r"result: exists already; .*--overwrite")
    assert [path.name for path in out.iterdir()] == ["precious.txt"]


def test_corrupted_shard(capsys, shards_dir: Path, tmp_path: Path, out: Path) -> None:
    damaged = tmp_path / "shards"
    shutil.copytree(shards_dir, damaged)
    file = damaged / "heldout-00000.arrow"
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 64
    file.write_bytes(content)
    assert_refused(bertsmith(capsys, "pretrain", damaged, "--out", out), r"heldout-00000\.arrow: .*damaged", out)


def test_tokenizer_that_does_not_match_the_shards(capsys, corpus: Path, shards_dir: Path, tmp_path: Path, out: Path):
    other = tmp_path / "other"
    assert bertsmith(capsys, "tokenizer", corpus, "--out", other, "--vocab-size", 80).code == 0
    outcome = bertsmith(capsys, "pretrain", shards_dir, "--tokenizer", other, "--out", out)
    assert_refused(outcome, r'field "--tokenizer": this tokenizer did not make the shards', out)


def test_unknown_flag_suggests_the_nearest(capsys, corpus: Path, out: Path) -> None:
    outcome = bertsmith(capsys, "tokenizer", corpus, "--out", out, "--vocabsize", 80)
    assert_refused(outcome, r'unknown flag --vocabsize; did you mean "--vocab-size"\?', out)


def test_unknown_verb_and_task_suggest_the_nearest(capsys) -> None:
    assert_refused(bertsmith(capsys, "pertrain"), r'unknown verb \'pertrain\'; did you mean "pretrain"')
    assert_refused(bertsmith(capsys, "finetune", "clasify"), r'unknown task \'clasify\'; did you mean "classify"')


def test_unknown_key_in_the_yaml_suggests_the_nearest(capsys, corpus: Path, tmp_path: Path, out: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("lowercase: true\nvocab_sise: 80\n")
    outcome = bertsmith(capsys, "tokenizer", corpus, "--out", out, "--config", config)
    assert_refused(outcome, r'run\.yaml:2: field "vocab_sise": unknown key; did you mean "vocab_size"', out)


def test_bad_value_in_the_yaml_and_on_the_command_line(capsys, corpus: Path, tmp_path: Path, out: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("min_frequency: many\n")
    words = ("tokenizer", corpus, "--out", out)
    assert_refused(bertsmith(capsys, *words, "--config", config), r'run\.yaml:1: field "min_frequency".*many', out)
    assert_refused(bertsmith(capsys, *words, "--vocab-size", "many"), r"--vocab-size.*many", out)
    assert_refused(bertsmith(capsys, *words, "--vocab-size", "3"), r'field "--vocab-size".*greater than 5, not 3', out)
    assert_refused(bertsmith(capsys, *words, "--vocab-size"), r"--vocab-size", out)


def test_missing_required_flags_and_files(capsys, corpus: Path, out: Path) -> None:
    assert_refused(bertsmith(capsys, "tokenizer", corpus), r"--out")
    assert_refused(bertsmith(capsys, "tokenizer", "--out", out), r"FILES", out)
    assert_refused(bertsmith(capsys, "predict", "x"), r"--text TEXT or --data FILE")


def test_nsp_of_one_sentence_documents(capsys, tmp_path: Path, tokenizer_dir: Path, out: Path) -> None:
    file = tmp_path / "single.txt"
    file.write_text("\n\n".join(["the cat sees a red ball."] * 40) + "\n")
    shards = tmp_path / "shards"
    assert bertsmith(capsys, "prepare", file, "--tokenizer", tokenizer_dir, "--out", shards).code == 0
    outcome = bertsmith(capsys, "pretrain", shards, "--out", out)
    assert_refused(outcome, r"at least two sentences; \d+ of \d+ have one\. Use `--objective none`", out)


def test_missing_model_suggests_the_hub_and_the_nearest_name(capsys, encoder_dir: Path, tmp_path: Path) -> None:
    outcome = bertsmith(capsys, "fill", "org/name", "a [MASK]")
    assert_refused(outcome, r"no such model directory.*hf:org/name")
    outcome = bertsmith(capsys, "fill", encoder_dir.parent / "encodr", "a [MASK]")
    assert_refused(outcome, r'did you mean "encoder"')


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json", "vocab.txt"])
def test_a_flipped_bit_in_a_model_directory(capsys, encoder_dir: Path, tmp_path: Path, file: str) -> None:
    damaged = tmp_path / "encoder"
    shutil.copytree(encoder_dir, damaged)
    content = bytearray((damaged / file).read_bytes())
    content[len(content) * 2 // 3] ^= 1
    (damaged / file).write_bytes(content)
    assert_refused(bertsmith(capsys, "fill", damaged, "a [MASK]"), rf"{file}: .*damaged")


def test_a_diverging_run_ends_with_exit_code_1_and_no_model(capsys, shards_dir: Path, out: Path) -> None:
    words = ("--layers", 1, "--hidden", 32, "--positions", 64, "--max-length", 32, "--steps", 30, "--batch-size", 8)
    outcome = bertsmith(
        capsys,
        "pretrain",
        shards_dir,
        "--out",
        out,
        *words,
        "--learning-rate",
        "1e30",
        "--warmup",
        0,
        "--eval-every",
        99,
    )
    assert outcome.code == 1, outcome.err
    assert len(outcome.errors) == 1
    assert "not finite in step" in outcome.errors[0]
    assert not (out / "bertsmith.json").exists()


def test_gate_of_evaluate(capsys, classifier_dir: Path, rows: Path) -> None:
    words = ("evaluate", classifier_dir, "--data", rows / "dev.tsv")
    assert bertsmith(capsys, *words, "--fail-under", "accuracy=0.9").code == 0
    outcome = bertsmith(capsys, *words, "--fail-under", "accuracy=1.01")
    assert outcome.code == 3
    assert "accuracy is 1.0000, below 1.01" in outcome.err
    assert_refused(bertsmith(capsys, *words, "--fail-under", "acuracy=0.9"), r"no metric \'acuracy\'; did you mean")
    assert_refused(bertsmith(capsys, *words, "--fail-under", "accuracy"), r"METRIC=NUMBER")
    assert parse_gate("f1_差=评,x=0.1,accuracy=1") == {"f1_差=评,x": 0.1, "accuracy": 1.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["finetune", "classify"],
            "--out, --train are missing; see bertsmith finetune classify --help",
        ),
        (["finetune", "classify", "--train", "t", "--out", "o"], "--model is missing: the model to start from"),
        (["predict"], "MODEL is missing; see bertsmith predict --help"),
        (["fill", "m"], "TEXT is missing; see bertsmith fill --help"),
        (["finetune", "tag", "--model"], "--model needs a value; see bertsmith finetune tag --help"),
        ([*TRAINING, "--epochs", "many"], "field \"--epochs\": expected a number, not 'many'; see"),
        ([*TRAINING, "--seeds", "1.5"], "field \"--seeds\": expected a whole number, not '1.5'; see"),
        (
            [*TRAINING, "--long-docs", "cut"],
            "field \"--long-docs\": 'cut' is none of error, truncate, head-tail, window; see",
        ),
    ],
)
def test_what_the_flags_lack_is_said_in_our_words(capsys, words: list[str], message: str) -> None:
    outcome = bertsmith(capsys, *words)
    assert outcome.code == 2
    assert outcome.err.startswith(f"bertsmith: error: {message}")
    assert outcome.err.count("\n") == 1
