"""Corpora that break other trainers, from text to model: each is trained on, or refused in one line that says why."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from bertsmith.files import MANIFEST
from tests.cli.run import Outcome, bertsmith
from tests.conftest import sentence

THAI = "".join(chr(0x0E01 + i) for i in range(40))
MEGABYTE = 1_000_000


def thousand_copies() -> str:
    rng = random.Random(0)
    document = "\n".join(sentence(rng) for _ in range(6))
    return "\n\n".join([document] * 1000)


def one_document() -> str:
    rng = random.Random(0)
    return "\n".join(sentence(rng) for _ in range(400))


def empty_documents() -> str:
    rng = random.Random(0)
    documents = ["\n".join(sentence(rng) for _ in range(5)) for _ in range(30)]
    return ("\n\n \n\t\n\n").join(documents) + "\n" * 50


def long_lines() -> str:
    rng = random.Random(0)
    lines = []
    for _ in range(3):
        words: list[str] = []
        while sum(map(len, words)) < MEGABYTE:
            words.append(sentence(rng) + " ")
        lines.append("".join(words))
    return "\n\n".join(lines)


def without_spaces() -> str:
    rng = random.Random(0)
    lines = ["".join(rng.choices(THAI, k=rng.randint(20, 90))) for _ in range(200)]
    return "\n\n".join("\n".join(lines[i : i + 4]) for i in range(0, 200, 4))


def shards_of(
    capsys: pytest.CaptureFixture[str], text: str, folder: Path, *, tokenizer: Path | None = None, heldout: float = 0.2
) -> Path:
    """The text's shards, with a tokenizer of its own unless one is given: some texts are too poor for one."""
    source = folder / "text.txt"
    source.write_text(text, encoding="utf-8")
    if tokenizer is None:
        tokenizer = folder / "tokenizer"
        made = bertsmith(capsys, "tokenizer", source, "--out", tokenizer, "--vocab-size", 120)
        assert made.code == 0, made.err
    words = ("prepare", source, "--tokenizer", tokenizer, "--out", folder / "shards", "--heldout", heldout)
    made = bertsmith(capsys, *words)
    assert made.code == 0, made.err
    return folder / "shards"


def pretrained(capsys: pytest.CaptureFixture[str], shards: Path, *more: object) -> Outcome:
    shape = ("--layers", 1, "--hidden", 32, "--max-length", 32, "--steps", 20, "--batch-size", 8, "--threads", 2)
    return bertsmith(capsys, "pretrain", shards, "--out", shards.parent / "encoder", *shape, *more)


def assert_refused(outcome: Outcome, fix: str, *, code: int = 2) -> None:
    assert outcome.code == code, outcome.err
    (line,) = outcome.errors
    assert fix in line
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("text", [empty_documents, without_spaces], ids=lambda make: make.__name__)
@pytest.mark.parametrize("objective", ["nsp", "sop", "none"])
def test_odd_text_is_trained_on(
    text: Callable[[], str], objective: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shards = shards_of(capsys, text(), tmp_path)
    outcome = pretrained(capsys, shards, "--objective", objective)
    assert outcome.code == 0, outcome.err
    report = json.loads((tmp_path / "encoder/train/report.json").read_text())
    assert report["heldout_mlm_loss"] < 8


def test_megabyte_lines_are_trained_on_and_pairs_of_them_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A document of one line has no second part."""
    shards = shards_of(capsys, long_lines(), tmp_path)
    assert_refused(pretrained(capsys, shards, "--objective", "nsp"), "--objective none")
    outcome = pretrained(capsys, shards, "--objective", "none")
    assert outcome.code == 0, outcome.err


def test_duplicates_are_removed_reported_and_leave_one_document(
    capsys: pytest.CaptureFixture[str], tokenizer_dir: Path, tmp_path: Path
) -> None:
    """google-research/bert#746: a loss that stays where it is, because of thousands of equal lines."""
    shards = shards_of(capsys, thousand_copies(), tmp_path, tokenizer=tokenizer_dir)
    manifest = json.loads((shards / MANIFEST).read_text())
    assert sum(split["documents"] for split in manifest["splits"].values()) == 1
    assert 999 in manifest["removed"].values()
    assert_refused(pretrained(capsys, shards, "--objective", "nsp"), "--objective none")
    outcome = pretrained(capsys, shards, "--objective", "none")
    assert outcome.code == 0, outcome.err
    assert "no held-out documents" in outcome.err


@pytest.mark.parametrize("text", ["the cat sees a red ball today.", one_document()], ids=["one line", "one document"])
def test_a_single_document_has_no_strangers_and_nothing_to_hold_out(
    text: str, capsys: pytest.CaptureFixture[str], tokenizer_dir: Path, tmp_path: Path
) -> None:
    shards = shards_of(capsys, text, tmp_path, tokenizer=tokenizer_dir, heldout=0)
    assert_refused(pretrained(capsys, shards, "--objective", "nsp"), "--objective none")
    outcome = pretrained(capsys, shards, "--objective", "none")
    assert outcome.code == 0, outcome.err
    assert "no held-out documents" in outcome.err
    assert (tmp_path / "encoder" / MANIFEST).is_file()


def test_a_learning_rate_that_diverges_ends_with_advice_and_saves_nothing_broken(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shards = shards_of(capsys, empty_documents(), tmp_path)
    assert_refused(
        pretrained(capsys, shards, "--learning-rate", 1e38, "--warmup", 0, "--checkpoint-every", 1),
        "lower --learning-rate",
        code=1,
    )
    assert not (tmp_path / "encoder" / MANIFEST).exists()
