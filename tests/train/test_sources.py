"""`--overwrite` never destroys what the run itself reads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from bertsmith.config.finetune import ClassifyOptions
from bertsmith.files import read_manifest
from bertsmith.train.finetune import finetune
from tests.cli.run import assert_refused, bertsmith


@pytest.mark.parametrize(
    ("verb", "named", "more"),
    [
        ("classify", "teacher", ("--student-layers", "1")),
        ("classify", "model", ()),
        ("classify", "model", ("--seeds", "2", "--dev", "rows.tsv")),
        ("seq2seq", "model", ()),
        ("rerank", "mine-with", ("--model", "other", "--mine", "1")),
    ],
)
@pytest.mark.parametrize("inside", ["", "best"])
def test_an_output_that_would_replace_a_model_that_is_read_is_refused(
    verb: str, named: str, more: tuple[str, ...], inside: str, encoder_dir: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "model"
    shutil.copytree(encoder_dir, out)
    source = out / inside
    if inside:
        shutil.copytree(encoder_dir, source)
    words = ("finetune", verb, f"--{named}", source, *more, "--train", tmp_path / "rows.tsv", "--out", out)
    outcome = bertsmith(capsys, *words, "--overwrite")
    assert_refused(outcome, f'field "--out": would take the place of its own source, which --{named} names')
    assert read_manifest(source, kind="model")
    assert not (tmp_path / ".model.new").exists()


@pytest.mark.parametrize("place", [".model.new", ".model.runs/seed-0"])
def test_nor_one_that_would_remove_where_an_earlier_run_worked(
    place: str, encoder_dir: Path, tmp_path: Path, capsys: Any
) -> None:
    source = shutil.copytree(encoder_dir, tmp_path / place)
    rows = ("--train", tmp_path / "rows.tsv", "--dev", tmp_path / "rows.tsv", "--seeds", 2)
    words = ("finetune", "classify", "--model", source, *rows, "--out", tmp_path / "model")
    outcome = bertsmith(capsys, *words, "--overwrite")
    assert_refused(outcome, 'field "--out": would take the place of its own source, which --model names')
    assert read_manifest(source, kind="model")


def test_a_link_to_the_output_is_the_output(encoder_dir: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "model"
    shutil.copytree(encoder_dir, out)
    (tmp_path / "link").symlink_to(out)
    words = ("finetune", "classify", "--model", tmp_path / "link", "--train", tmp_path / "rows.tsv", "--out", out)
    assert_refused(bertsmith(capsys, *words, "--overwrite"), "would take the place of its own source")


def test_a_pretraining_goes_on_elsewhere_and_not_in_its_own_place(
    encoder_dir: Path, shards_dir: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "model"
    shutil.copytree(encoder_dir, out)
    words = ("pretrain", shards_dir, "--model", out, "--steps", 1, "--max-length", 32, "--threads", 1, "--out")
    outcome = bertsmith(capsys, *words, out, "--overwrite")
    assert_refused(outcome, "would take the place of its own source, which --model names")
    outcome = bertsmith(capsys, *words, tmp_path / "more")
    assert outcome.code == 0, outcome.err


def test_another_model_is_overwritten_and_a_run_is_resumed(encoder_dir: Path, rows: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": str(encoder_dir), "train": rows / "train.tsv", "steps": 1, "threads": 1}
    out = tmp_path / "model"
    finetune(ClassifyOptions(**given, out=out))
    report = finetune(ClassifyOptions(**given, out=out, overwrite=True))
    assert finetune(ClassifyOptions(**given, out=out, resume=True)) == report
