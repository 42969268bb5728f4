"""Promises about the repository itself."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import bertsmith
from tests.design_links import DOCUMENT, LINK, is_wanted, lines_of

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def test_modules_stay_under_350_lines_and_say_what_they_are() -> None:
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 350, path
        assert text.startswith(('"""', 'r"""')), path


def test_torch_load_stands_in_one_module_with_weights_only_and_nothing_else_unpickles() -> None:
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        unsafe = r"pickle\.loads?\(|trust_remote_code=True|weights_only=False|allow_pickle=True"
        assert not re.search(unsafe, text), path
        calls = re.findall(r"torch\.load\(.*", text)
        if path.name == "torchfile.py":
            assert len(calls) == 1
            assert "weights_only=True" in calls[0]
        else:
            assert not calls, path


DECODER = ("rectangle", "cross_attention", "decoder", "seq2seq", "generate")


def test_the_network_can_be_read_in_a_sitting() -> None:
    network = [path for path in SOURCES if path.parent.name in ("nn", "models")]
    lines = {path.stem: path.read_text(encoding="utf-8").count("\n") for path in network}
    assert sum(count for name, count in lines.items() if name not in DECODER) < 1700
    assert sum(lines[name] for name in DECODER) < 700


def test_the_walk_through_the_code_points_at_the_lines_it_speaks_of() -> None:
    links = list(LINK.finditer(DOCUMENT.read_text(encoding="utf-8")))
    assert len(links) >= 25
    for text, path, number, title in (match.groups() for match in links):
        line = lines_of(path)[int(number) - 1]
        assert is_wanted(line, text, title), f"{path}#L{number} for {text}: python -m tests.design_links"


def test_the_public_interface_is_what_the_readme_says() -> None:
    assert callable(bertsmith.load)
    assert bertsmith.Model.__name__ == "Model"
    for name in ("predict", "fill", "embed", "logits", "hidden_states", "attentions", "encoder"):
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
