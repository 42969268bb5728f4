"""What `bertsmith embed` refuses, by one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import bertsmith
from tests.cli.run import bertsmith as run
from tests.cli.test_bad_input import assert_refused
from tests.test_embed import MINILM, TEXTS, write_jsonl


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "vectors.npy"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "texts.jsonl", TEXTS)


def test_another_suffix_is_refused(capsys, encoder_dir: Path, data: Path, tmp_path: Path) -> None:
    for name in ("vectors.npz", "vectors", "vectors.NPY"):
        outcome = run(capsys, "embed", encoder_dir, "--data", data, "--out", tmp_path / name)
        assert_refused(outcome, r'field "--out": expected a file that ends in \.npy or \.parquet', tmp_path / name)


def test_an_existing_output_is_refused_before_the_model_is_looked_at(capsys, data: Path, out: Path) -> None:
    out.write_bytes(b"old")
    outcome = run(capsys, "embed", "no/such/model", "--data", data, "--out", out)
    assert_refused(outcome, r"vectors\.npy: exists already; give --overwrite")
    assert out.read_bytes() == b"old"
    out.unlink()
    out.mkdir()
    outcome = run(capsys, "embed", "no/such/model", "--data", data, "--out", out, "--overwrite")
    assert_refused(outcome, r"vectors\.npy: is a directory; name a file")


def test_a_missing_model_is_refused(capsys, data: Path, out: Path) -> None:
    assert_refused(run(capsys, "embed", "no/such/model", "--data", data, "--out", out), "no such model directory", out)


def test_pairs_are_refused_unless_one_of_them_is_chosen(capsys, encoder_dir: Path, tmp_path: Path, out: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("text_a\ttext_b\na dog\tthe cat\n")
    words = ("embed", encoder_dir, "--data", file, "--out", out)
    assert_refused(run(capsys, *words), r'pairs\.tsv:1: no column "text".*"text_a", "text_b".*--columns text=NAME', out)
    assert run(capsys, *words, "--columns", "text=text_a").code == 0
    assert np.load(out).shape == (1, 32)


def test_a_long_text_is_refused_by_file_and_line(capsys, encoder_dir: Path, tmp_path: Path, out: Path) -> None:
    data = write_jsonl(tmp_path / "long.jsonl", ["a", "the cat " * 40])
    outcome = run(capsys, "embed", encoder_dir, "--data", data, "--out", out)
    assert_refused(outcome, r'long\.jsonl:2: field "text": 82 tokens, the limit is 64; .*--long-docs truncate', out)


def test_a_file_without_rows_is_refused(capsys, encoder_dir: Path, tmp_path: Path, out: Path) -> None:
    (tmp_path / "blank.txt").write_text("\n\n")
    outcome = run(capsys, "embed", encoder_dir, "--data", tmp_path / "blank.txt", "--out", out)
    assert_refused(outcome, r"blank\.txt: has no rows", out)


def test_unknown_poolings_and_prompts_are_refused(capsys, encoder_dir: Path, data: Path, out: Path) -> None:
    words = ("embed", encoder_dir, "--data", data, "--out", out)
    assert_refused(run(capsys, *words, "--pooling", "last"), "--pooling", out)
    assert_refused(run(capsys, *words, "--prompt", "query"), 'field "--prompt": .*no prompt "query"; it has none', out)


def test_sentence_files_that_cannot_be_computed_are_refused(capsys, data: Path, tmp_path: Path, out: Path) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    for path in MINILM.glob("*.*"):
        shutil.copy(path, directory / path.name)
    (directory / "1_Pooling").mkdir()
    pooling = json.loads((MINILM / "1_Pooling/config.json").read_text())
    (directory / "1_Pooling/config.json").write_text(json.dumps(pooling | {"pooling_mode_lasttoken": True}))
    outcome = run(capsys, "embed", directory, "--data", data, "--out", out)
    assert_refused(outcome, r'model/1_Pooling/config\.json: field "pooling_mode_lasttoken": unknown pooling', out)
    assert bertsmith.load(directory, device="cpu").hidden_states(["a"])[0].shape == (7, 3, 384), "others may use it"
