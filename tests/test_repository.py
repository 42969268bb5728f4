"""Promises about the repository itself."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import bertsmith

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def test_modules_stay_under_350_lines_and_say_what_they_are() -> None:
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 350, path
        assert text.startswith('"""'), path


def test_no_pickle_and_no_torch_load() -> None:
    for path in SOURCES:
        assert not re.search(
            r"torch\.load\(|import pickle|pickle\.load|trust_remote_code", path.read_text(encoding="utf-8")
        ), path


def test_the_public_interface_is_what_the_readme_says() -> None:
    assert callable(bertsmith.load)
    assert bertsmith.Model.__name__ == "Model"
    for name in ("predict", "fill", "logits", "hidden_states", "attentions", "encoder"):
        assert getattr(bertsmith.Model, name).__doc__
    assert f"## {bertsmith.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_pin_every_dependency_of_the_code_and_of_its_tests() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    wanted = {re.split(r"[<>=]", line)[0].lower().replace("_", "-") for line in listed}
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    assert wanted <= pinned


def test_nothing_generated_is_tracked() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    tracked = listed.stdout.splitlines()
    assert not [name for name in tracked if name.startswith(("runs/", ".venv")) or name.endswith(".safetensors")]
