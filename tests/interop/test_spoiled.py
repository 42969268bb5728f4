"""Damaged directories end in one line that names the file; a pickle never runs its code."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bertsmith.config.convert import ConvertOptions
from bertsmith.convert import convert
from tests.cli.run import bertsmith as command
from tests.interop.checkpoints import State, save, their_model
from tests.parity.reference import SHAPE


class Canary:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_code_in_a_pickle_never_runs(
    protocol: str, tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = save(their_model("BertModel", tokenizer_dir), tokenizer_dir, tmp_path / "model")
    (directory / "model.safetensors").unlink()
    canary = tmp_path / "canary"
    content = {"bert.pooler.dense.bias": torch.zeros(3), "payload": Canary(canary)}
    if protocol == "torch":
        torch.save(content, directory / "pytorch_model.bin")
    else:
        (directory / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(canary)))
    for words in (
        ("convert", directory, "--out", tmp_path / "out"),
        ("predict", directory, "--text", "x"),
        ("fill", directory, "[MASK]"),
        ("convert", directory / "pytorch_model.bin", "--heads", "2", "--out", tmp_path / "out"),
    ):
        outcome = command(capsys, *words)
        assert (outcome.code, outcome.out) == (2, "")
        assert len(outcome.errors) == 1
        reason = "it holds Python objects beside tensors" if protocol == "torch" else "not a readable PyTorch file"
        assert f"pytorch_model.bin: {reason}" in outcome.errors[0]
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists(), "the canary itself must work"


def spoil_config(directory: Path, **changes: object) -> None:
    config = json.loads((directory / "config.json").read_text()) | changes
    (directory / "config.json").write_text(json.dumps(config))


def spoil_state(directory: Path, change: Callable[[State], object]) -> None:
    state = load_file(directory / "model.safetensors")
    change(state)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, directory / "model.safetensors")


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def spoil_classifier(directory: Path, *, problem: str = "nonsense") -> None:
    size = SHAPE["hidden_size"]
    head = {"classifier.weight": torch.zeros(3, size), "classifier.bias": torch.zeros(3)}
    pooler = {"bert.pooler.dense.weight": torch.zeros(size, size), "bert.pooler.dense.bias": torch.zeros(size)}
    spoil_state(directory, lambda state: state.update(head | pooler))
    spoil_config(directory, problem_type=problem, architectures=["BertForSequenceClassification"])


KEY = "bert.encoder.layer.1.output.dense.weight"
ANOTHER = "bert.encoder.layer.1.attention.self.key.weight"
TOKENS = "bert.embeddings.word_embeddings.weight"
SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated weights": (lambda d: cut(d / "model.safetensors", 0.9), "model.safetensors: not a readable safetensors"),
    "truncated bin": (
        lambda d: (
            torch.save(load_file(d / "model.safetensors"), d / "pytorch_model.bin"),
            (d / "model.safetensors").unlink(),
            cut(d / "pytorch_model.bin", 0.7),
        ),
        "pytorch_model.bin: not a readable PyTorch file",
    ),
    "missing tensor": (lambda d: spoil_state(d, lambda s: s.pop(KEY)), f"tensors are missing: {KEY}"),
    "wrong shape": (
        lambda d: spoil_state(d, lambda s: s.update({KEY: s[KEY][:, :7]})),
        f"tensor {KEY} has shape (32, 7)",
    ),
    "wrong rows": (
        lambda d: spoil_state(d, lambda s: s.update({TOKENS: s[TOKENS][:50]})),
        "tensor bert.embeddings.word_embeddings.weight has 50 rows",
    ),
    "key of another width": (
        lambda d: spoil_state(d, lambda s: s.update({ANOTHER: torch.zeros(32, 5)})),
        "do not belong together",
    ),
    "unknown activation": (lambda d: spoil_config(d, hidden_act="gellu"), 'field "hidden_act"'),
    "heads that do not divide": (lambda d: spoil_config(d, num_attention_heads=7), 'field "hidden_size"'),
    "contradicting hidden size": (lambda d: spoil_config(d, hidden_size=64), "config.json asks for"),
    "fewer layers than the file": (lambda d: spoil_config(d, num_hidden_layers=9), "tensors are missing"),
    "a word for a number": (lambda d: spoil_config(d, num_hidden_layers="two"), 'field "num_hidden_layers"'),
    "more layers in the file": (lambda d: spoil_config(d, num_hidden_layers=1), "config.json leaves no place: bert."),
    "no segments in the configuration": (
        lambda d: spoil_config(d, type_vocab_size=0),
        "config.json leaves no place: bert.embeddings.token_type_embeddings.weight",
    ),
    "a million layers": (lambda d: spoil_config(d, num_hidden_layers=10**6), 'field "num_hidden_layers"'),
    "positions without bound": (lambda d: spoil_config(d, max_position_embeddings=10**12), "max_position_embeddings"),
    "an infinite epsilon": (lambda d: spoil_config(d, layer_norm_eps=float("inf")), "not valid JSON"),
    "a value that is no number": (
        lambda d: spoil_state(d, lambda s: s[KEY].view(-1)[3].fill_(float("nan"))),
        f"tensor {KEY} holds values that are no numbers",
    ),
    "whole numbers for weights": (
        lambda d: spoil_state(d, lambda s: s.update({KEY: s[KEY].long()})),
        f"tensor {KEY} has shape (32, 48) and type int64",
    ),
    "a number for a table": (
        lambda d: spoil_state(d, lambda s: s.update({TOKENS: torch.tensor(1.0)})),
        f"tensor {TOKENS} has shape ()",
    ),
    "an unknown problem": (spoil_classifier, 'field "problem_type"'),
    "a regression of several numbers": (
        lambda d: spoil_classifier(d, problem="regression"),
        'field "problem_type": a regression has one output here, this model has 3',
    ),
    "JSON nested without end": (
        lambda d: (d / "config.json").write_text("[" * 100_000 + "]" * 100_000),
        "nested too deeply",
    ),
    "another family": (lambda d: spoil_config(d, model_type="gpt2"), 'field "model_type"'),
    "a shard outside": (
        lambda d: (
            (d / "model.safetensors").unlink(),
            (d / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}})),
        ),
        "names a file that is no shard beside it",
    ),
    "a missing shard": (
        lambda d: (
            (d / "model.safetensors").unlink(),
            (d / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "one.safetensors"}})),
        ),
        "the shard is missing",
    ),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "no weights in it"),
    "config that is not JSON": (lambda d: (d / "config.json").write_text("{"), "config.json:1: not valid JSON"),
    "no config": (lambda d: (d / "config.json").unlink(), "no config.json in it: not a model directory"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPOILED)
def test_a_spoiled_directory_ends_with_2_and_one_line(
    kind: str, tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = save(their_model("BertForMaskedLM", tokenizer_dir), tokenizer_dir, tmp_path / "model")
    SPOILED[kind][0](directory)
    outcome = command(capsys, "convert", directory, "--out", tmp_path / "out")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == outcome.errors[0] + "\n"
    assert SPOILED[kind][1] in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_flipped_bit_in_a_directory_of_ours_is_noticed(
    tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(their_model("BertModel", tokenizer_dir), tokenizer_dir, tmp_path / "theirs")
    convert(ConvertOptions(src=str(tmp_path / "theirs"), out=tmp_path / "ours"))
    for name in ("model.safetensors", "config.json", "tokenizer.json", "vocab.txt", "bertsmith.json"):
        file = tmp_path / "ours" / name
        content = file.read_bytes()
        spoiled = bytearray(content)
        spoiled[len(content) // 2] ^= 1
        file.write_bytes(spoiled)
        outcome = command(capsys, "convert", tmp_path / "ours", "--out", tmp_path / "out")
        assert outcome.code == 2
        own = name == "bertsmith.json"
        assert f"{name}: " in outcome.err
        assert ("its SHA-256 is not" in outcome.err) or (own and "JSON" in outcome.err)
        assert command(capsys, "show", tmp_path / "ours").code == 2
        file.write_bytes(content)
