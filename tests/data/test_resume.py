"""A preparation that is killed: resumed, it gives the same bytes; nothing is lost or continued unasked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.run import bertsmith
from tests.data.shards import hashes, text, write

KILLED_AT = """
import os, signal, sys
from bertsmith import files
from bertsmith.cli.main import main
from bertsmith.data import blocks, prepare
blocks.BLOCK_DOCUMENTS = 11
os_fsync, calls, kill_at = os.fsync, 0, int(sys.argv[1])
if sys.argv[2] == "workers":
    prepare.SMALL = 0
def fsync(descriptor):
    global calls
    calls += 1
    if calls == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    os_fsync(descriptor)
os.fsync = fsync
sys.exit(main(sys.argv[3:]))
"""


def killed(at: int, *words: object, workers: bool = False) -> int:
    """Exit code of `bertsmith WORDS`, killed at its `at`-th call of fsync, when all that hold its stderr have ended."""
    command = [sys.executable, "-c", KILLED_AT, str(at), "workers" if workers else "here", *map(str, words)]
    return subprocess.run(command, capture_output=True, check=False, env=os.environ, timeout=60).returncode


def test_killed_anywhere_and_resumed_gives_the_same_bytes(tokenizer_dir: Path, tmp_path: Path) -> None:
    texts = [text(number % 150, sentences=2 + number % 5) for number in range(200)]
    files = [write(tmp_path / f"{name}.txt", part) for name, part in (("a", texts[:120]), ("b", texts[120:]))]
    words = [*files, "--tokenizer", tokenizer_dir, "--shard-tokens", 1500, "--dedup", "both", "--max-document", 150]
    words = ["prepare", *words, "--weights", "1,1.5", "--out"]
    assert killed(10**9, *words, tmp_path / "whole") == 0
    expected = hashes(tmp_path / "whole")
    assert sum(name.startswith("train") for name in expected) > 4
    out, at, code, resumed = tmp_path / "s", 3, -signal.SIGKILL, 0
    while code == -signal.SIGKILL:  # the same directory, killed later and later in its life
        code = killed(at, *words, out, "--resume")
        resumed += (tmp_path / ".s.partial" / ".state.json").exists()
        at += 8
    assert code == 0
    assert resumed >= 2
    assert hashes(out) == expected
    assert not list(tmp_path.glob(".s*"))
    assert not list(out.glob(".*"))


def test_workers_end_with_their_killed_parent_and_resume_needs_no_more_of_them(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.txt", [text(number) for number in range(200)])
    words = ["prepare", file, "--tokenizer", tokenizer_dir, "--shard-tokens", 1500, "--out"]
    assert killed(25, *words, tmp_path / "s", "--threads", 3, workers=True) == -signal.SIGKILL
    assert killed(10**9, *words, tmp_path / "s", "--threads", 1, "--resume", workers=True) == 0
    assert killed(10**9, *words, tmp_path / "t") == 0
    assert hashes(tmp_path / "s") == hashes(tmp_path / "t")


@pytest.fixture
def interrupted(tokenizer_dir: Path, tmp_path: Path) -> list[Any]:
    """The words of a command that was killed after its first checkpoints."""
    file = write(tmp_path / "a.txt", [text(number) for number in range(200)])
    words = ["prepare", file, "--tokenizer", tokenizer_dir, "--shard-tokens", 1500, "--out", tmp_path / "s"]
    assert killed(25, *words) == -signal.SIGKILL
    assert (tmp_path / ".s.partial" / ".state.json").exists()
    return words


def test_an_interrupted_prepare_is_neither_lost_nor_continued_unasked(
    capsys, interrupted: list[Any], tmp_path: Path
) -> None:
    outcome = bertsmith(capsys, *interrupted)
    assert outcome.code == 2
    assert "--resume goes on, --overwrite starts anew" in outcome.err
    assert bertsmith(capsys, *interrupted, "--overwrite").code == 0
    assert not list(tmp_path.glob(".s*"))


def test_resume_refuses_changed_files_other_flags_and_damage(capsys, interrupted: list[Any], tmp_path: Path) -> None:
    def refused(*words: object, files: tuple[Path, ...] = ()) -> str:
        outcome = bertsmith(capsys, *interrupted[:2], *files, *interrupted[2:], "--resume", *words)
        assert outcome.code == 2
        assert len(outcome.errors) == 1
        return outcome.errors[0]

    assert 'field "--seed"' in refused("--seed", 1)
    assert 'field "--dedup"' in refused("--dedup", "none")
    assert 'field "FILES"' in refused(files=(write(tmp_path / "more.txt", ["one"]),))
    file, status = tmp_path / "a.txt", (tmp_path / "a.txt").stat()
    file.write_text(file.read_text() + "more\n")
    assert "a.txt: changed since the interrupted prepare began" in refused()
    file.write_text(file.read_text()[: -len("more\n")])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    shard = tmp_path / ".s.partial" / "train-00000.arrow"
    content = shard.read_bytes()
    shard.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    assert "train-00000.arrow: its SHA-256" in refused()
    shard.write_bytes(content)
    assert bertsmith(capsys, *interrupted, "--resume").code == 0
