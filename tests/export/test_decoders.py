"""Graphs of decoders: what torch says at nine shapes, with a cache, and texts written with onnxruntime alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertsmith.batch import Batch
from bertsmith.errors import InputError
from bertsmith.export.decoders import causal_part, seq2seq_parts
from bertsmith.export.engine import OnnxModel, run_session
from bertsmith.export.verify import compare_causal, compare_seq2seq, verify
from bertsmith.files import read_manifest
from bertsmith.models.generate import Search, generate
from tests.cli.run import assert_refused, bertsmith
from tests.export.graphs import sessions_of
from tests.parity.decoders import END, SHAPE, START, causal_pair, seq2seq_pair
from tests.test_generate import write

TOKENS = {"positions": SHAPE["max_position_embeddings"], "tokens": SHAPE["vocab_size"], "segments": 1, "width": 99}
SEARCH = Search(end=END, max_new_tokens=7)


def greedy(logits: np.ndarray) -> np.ndarray:
    return np.asarray(logits[:, -1].argmax(-1))[:, None]


def cut(rows: np.ndarray) -> list[list[int]]:
    """Each row up to the token that ends it."""
    found = [row.tolist() for row in rows]
    return [row[: row.index(END)] if END in row else row for row in found]


def renamed(step: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.replace("present", "past_key_values"): value for name, value in step.items() if name != "logits"}


@pytest.mark.slow
@pytest.mark.parametrize("encoder_size", [32, 48])
def test_an_encoder_decoder_writes_the_same_with_three_files(encoder_size: int, tmp_path: Path) -> None:
    theirs, ours = seq2seq_pair(dtype=torch.float32, encoder_size=encoder_size)
    sessions = sessions_of(tmp_path, seq2seq_parts(ours))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "decoder_model.onnx",
        "decoder_with_past_model.onnx",
        "encoder_model.onnx",
    ]
    assert len(verify(compare_seq2seq(ours), sessions, **TOKENS)) == 9
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    source = {"input_ids": np.array([[5, 6, 7, 8], [9, 4, 0, 0]]), "attention_mask": mask}
    states = run_session(sessions["encoder_model"], source)["last_hidden_state"]
    tokens = np.full((2, 1), START)
    given: dict[str, Any] = {"input_ids": tokens, "encoder_attention_mask": mask, "encoder_hidden_states": states}
    step = run_session(sessions["decoder_model"], given)
    past, written = renamed(step), [greedy(step["logits"])]
    with torch.inference_mode():
        output = theirs(
            input_ids=torch.from_numpy(source["input_ids"]),
            attention_mask=torch.from_numpy(mask),
            decoder_input_ids=torch.from_numpy(tokens),
        )
    np.testing.assert_allclose(step["logits"], output.logits.numpy(), rtol=1e-4, atol=1e-4)
    while len(written) < SEARCH.max_new_tokens:
        given = {"input_ids": written[-1], "encoder_attention_mask": mask, **past}
        step = run_session(sessions["decoder_with_past_model"], given)
        past |= renamed(step)
        written.append(greedy(step["logits"]))
    batch = Batch.from_dense(*(torch.from_numpy(values) for values in source.values()))
    with torch.inference_mode():
        expected = generate(ours.writer, [[START]] * 2, ours.read(batch), SEARCH)
    assert cut(np.concatenate(written, axis=1)) == expected


@pytest.mark.slow
def test_a_decoder_alone_goes_on_with_a_text(tmp_path: Path) -> None:
    _, ours = causal_pair(dtype=torch.float32)
    sessions = sessions_of(tmp_path, [causal_part(ours)])
    assert len(verify(compare_causal(ours), sessions, **TOKENS, left=True)) == 9
    session = sessions["model"]
    prompt = [START, 7, 11, 5]
    past = {
        entry.name: np.zeros((1, 4, 0, 8), np.float32)
        for entry in session.get_inputs()
        if entry.name.startswith("past_key_values.")
    }
    assert list(past)[:2] == ["past_key_values.0.key", "past_key_values.0.value"]
    tokens, length, written = np.array([prompt]), 0, []
    for _ in range(SEARCH.max_new_tokens):
        length += tokens.shape[1]
        step = run_session(session, {"input_ids": tokens, "attention_mask": np.ones((1, length), np.int64), **past})
        past, tokens = renamed(step), greedy(step["logits"])
        written.append(tokens)
    assert cut(np.concatenate(written, axis=1)) == generate(ours, [prompt], [], SEARCH)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("decoder", ["model.onnx"]),
        ("both", ["decoder_model.onnx", "decoder_with_past_model.onnx", "encoder_model.onnx"]),
    ],
)
def test_directories_that_write_are_exported(
    kind: str, files: list[str], tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(kind, tokenizer_dir, tmp_path / "model")
    out = tmp_path / "out"
    outcome = bertsmith(capsys, "export", tmp_path / "model", "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    assert sorted(json.loads(outcome.out)["files"]) == [f"onnx/{name}" for name in files]
    assert read_manifest(out, kind="onnx")["onnx"]["kind"] == "generate"
    for name in ("config.json", "generation_config.json"):
        assert (out / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    with pytest.raises(InputError, match="its graphs write text"):
        OnnxModel(out)
    outcome = bertsmith(capsys, "export", tmp_path / "model", "--out", tmp_path / "other", "--task", "embed")
    assert_refused(outcome, 'field "--task": the model writes text', tmp_path / "other")
