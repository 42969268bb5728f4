"""The README's commands are tests: every command of its tour runs, in order, as it is written.

`BERTSMITH_QUICK` shortens the trainings; the code is the same. The two READMEs must hold the same commands.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def commands(document: str) -> list[str]:
    """The `bertsmith …` lines of the fenced `console` blocks, without their `$ `; `\\` joins lines."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.S):
        joined = block.replace("\\\n", " ")
        found += [line[2:].strip() for line in joined.splitlines() if line.startswith("$ ")]
    return found


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    words = [sys.executable, "-m", "bertsmith", *words[1:]] if words[0] == "bertsmith" else words
    environment = os.environ | {"BERTSMITH_QUICK": "1", "NO_COLOR": "1"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_two_readmes_hold_the_same_commands() -> None:
    assert commands("README.md") == commands("README.zh.md")
    assert len(commands("README.md")) >= 8


@pytest.mark.slow
def test_every_command_of_the_tour_runs_as_written(tmp_path: Path) -> None:
    """`make demo` is `bertsmith demo --out runs/demo --overwrite`; the tour uses the files that it leaves."""
    for command in ["bertsmith demo --out runs/demo --overwrite", *commands("README.md")]:
        result = run(command, tmp_path)
        gate = "--fail-under" in command
        assert result.returncode in ((0, 3) if gate else (0,)), f"{command}\n{result.stderr}"
        assert "Traceback" not in result.stderr, command
        assert result.stdout.strip(), command


@pytest.mark.slow
def test_the_python_of_the_tour_runs_as_written(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert run("bertsmith demo --out runs/demo --overwrite", tmp_path).returncode == 0
    result = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_demo_twice_in_a_row_and_refused_without_overwrite(tmp_path: Path) -> None:
    demo = "bertsmith demo --out runs/demo"
    assert run(demo, tmp_path).returncode == 0
    first = json.loads((tmp_path / "runs/demo/report.json").read_text())
    assert run(f"{demo} --overwrite", tmp_path).returncode == 0
    refused = run(demo, tmp_path)
    assert refused.returncode == 2
    assert "runs/demo: exists already" in refused.stderr
    assert {"heldout_mlm_loss", "unigram_loss", "nsp_accuracy", "tokens_per_second", "percent_of_peak"} <= first[
        "pretrain"
    ].keys()
    assert {"accuracy", "macro_f1", "random_init_accuracy", "tfidf_accuracy", "majority_accuracy"} <= first[
        "classifier"
    ].keys()
    assert {"data", "tokenizer", "prepare", "pretrain", "finetune", "evaluate"} <= first["seconds"].keys()
    assert len(first["fill"]) == 3
    folders = {path.name for path in (tmp_path / "runs/demo").iterdir()}
    assert {"tokenizer", "shards", "encoder", "classifier", "data", "report.json", "report.md"} <= folders
    assert not [name for name in folders if name.startswith(".")]
