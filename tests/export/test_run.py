"""`bertsmith export` as a user sees it: what it writes, prints and refuses; and the engine that opens the result."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertsmith.batch import Batch
from bertsmith.bundle import load_bundle
from bertsmith.errors import InputError
from bertsmith.export import run as run_module
from bertsmith.export.answers import EncoderGraph, encoder_part
from bertsmith.export.engine import PACKAGES, OnnxModel, open_session
from bertsmith.export.graph_file import write_graph
from bertsmith.files import read_manifest, write_manifest
from bertsmith.model import load
from bertsmith.models.sentence import SentenceModules
from bertsmith.tasks.inference import token_groups
from bertsmith.train.finetune import finetune
from tests.cli.run import assert_refused, bertsmith
from tests.export.graphs import verified
from tests.interop.sentence_models import TEXTS, bert_directory, saved, theirs
from tests.parity.reference import pair
from tests.tasks.examples import options
from tests.train.test_crashes import CAN_MOUNT

EXAMPLE = Path(__file__).parents[2] / "examples/onnx_only.py"


@pytest.fixture(scope="module")
def exported(classifier_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bertsmith.config.export import ExportOptions

    out = tmp_path_factory.mktemp("export") / "classifier"
    run_module.export(ExportOptions(model=str(classifier_dir), out=out, threads=2))
    return out


@pytest.mark.slow
def test_one_file_with_named_inputs_and_its_differences(
    classifier_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    outcome = bertsmith(capsys, "export", classifier_dir, "--out", out, "--threads", 2)
    assert outcome.code == 0, outcome.err
    assert outcome.err.splitlines() == [
        "tracing onnx/model.onnx",
        "comparing with torch, up to 32 x 64 tokens",
    ]
    assert "largest_difference" in outcome.out
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"onnx/model.onnx", "config.json", "tokenizer.json", "bertsmith.json", "README.md"} <= written
    assert not [name for name in written if name.endswith((".safetensors", ".onnx_data"))]
    described = read_manifest(out, kind="onnx")["onnx"]
    assert described["opset"] == 18
    graph = described["graphs"]["model.onnx"]
    assert list(graph["inputs"]) == ["input_ids", "attention_mask", "token_type_ids"]
    assert all(axes == ["batch_size", "sequence_length"] for axes in graph["inputs"].values())
    assert graph["outputs"] == {"logits": ["batch_size", 2]}
    assert [(shape["rows"], shape["length"]) for shape in described["shapes"]] == [
        (rows, length) for rows in (1, 3, 32) for length in (2, 17, 64)
    ]
    assert 0 < described["largest_difference"] < 1e-4
    assert described["largest_difference"] == max(shape["largest"] for shape in described["shapes"])
    content = (out / "onnx/model.onnx").read_bytes()
    assert str(Path(run_module.__file__).parents[2]).encode() not in content
    assert b"model.encoder.blocks.1.attention.qkv.Gemm" in content
    config = json.loads((out / "config.json").read_text())
    assert config == json.loads((classifier_dir / "config.json").read_text())


@pytest.mark.slow
def test_a_pretrained_encoder_guesses_or_embeds(encoder_dir: Path, tmp_path: Path, capsys: Any) -> None:
    outcome = bertsmith(capsys, "export", encoder_dir, "--out", tmp_path / "guesses", "--json")
    assert json.loads(outcome.out)["task"] == "fill-mask"
    outcome = bertsmith(capsys, "export", encoder_dir, "--out", tmp_path / "vectors", "--task", "embed", "--json")
    assert json.loads(outcome.out)["outputs"] == ["last_hidden_state", "sentence_embedding"]
    model = load(encoder_dir, device="cpu")
    texts = ["the cat eats some bread.", "a dog"]
    batch = Batch.from_sequences([np.array(model.bundle.tokenizer.encode(text).ids) for text in texts])
    engine = OnnxModel(tmp_path / "vectors", threads=1)
    np.testing.assert_allclose(np.stack(engine.outputs(batch)), model.embed(texts), rtol=0, atol=1e-5)
    guesses = OnnxModel(tmp_path / "guesses", threads=1).outputs(batch)
    for found, expected in zip(guesses, model.logits(texts), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_task_that_the_model_has_no_head_for_is_refused(classifier_dir: Path, tmp_path: Path, capsys: Any) -> None:
    outcome = bertsmith(capsys, "export", classifier_dir, "--out", tmp_path / "out", "--task", "fill-mask")
    assert_refused(outcome, 'field "--task": the model has no head for it', tmp_path / "out")


def trained(kind: str, encoder_dir: Path, folder: Path) -> Any:
    given = options(kind, encoder_dir, folder, steps=4)
    finetune(given)
    return given


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classify", "tag", "qa", "choice", "embed", "rerank"])
def test_the_engine_answers_what_predict_answers(kind: str, encoder_dir: Path, tmp_path: Path, capsys: Any) -> None:
    given = trained(kind, encoder_dir, tmp_path / "rows")
    outcome = bertsmith(capsys, "export", given.out, "--out", tmp_path / "out", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["largest_relative_difference"] <= 1e-4
    model, engine = load(given.out, device="cpu"), OnnxModel(tmp_path / "out", threads=1)
    task = model.task()
    rows = task.read(given.dev)
    inputs = task.prepare(rows, model.bundle.tokenizer, labelled=False)
    for group in token_groups([encoded.tokens for encoded in inputs], 256):
        batch = task.collate([inputs[i] for i in group])
        with torch.inference_mode():
            expected = task.outputs(model.bundle.model, batch)
        for found, wanted in zip(engine.outputs(batch), expected, strict=True):
            assert found.dtype == wanted.dtype == np.float32
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_an_embedder_s_vectors_are_those_of_sentence_transformers(
    tokenizer_dir: Path, tmp_path: Path, capsys: Any
) -> None:
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    bert = bert_directory(tmp_path / "bert", tokenizer_dir)
    saved(bert, tmp_path / "model", Pooling(32, pooling_mode="mean"), Normalize())
    outcome = bertsmith(capsys, "export", tmp_path / "model", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    out = tmp_path / "out"
    assert json.loads((out / "modules.json").read_text())[1]["path"] == "1_Pooling"
    expected = theirs(tmp_path / "model").encode(TEXTS)
    ran = example(out, TEXTS)
    assert ran.returncode == 0, ran.stderr
    cosines = [float(line.split("\t")[0]) for line in ran.stdout.splitlines()]
    np.testing.assert_allclose(cosines, expected @ expected[0], atol=1e-4)


def example(directory: Path, texts: list[str]) -> subprocess.CompletedProcess[str]:
    """The example in a process that can import neither torch nor bertsmith."""
    code = (
        "import runpy, sys\n"
        "sys.modules.update(dict.fromkeys(('torch', 'transformers', 'bertsmith', 'onnx')))\n"
        f"runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    )
    words = [sys.executable, "-I", "-c", code, str(directory), *texts]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_example_needs_neither_torch_nor_bertsmith(exported: Path, classifier_dir: Path) -> None:
    texts = ["the cat eats some bread.", "the dog likes a red ball."]
    ran = example(exported, texts)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    answers = load(classifier_dir, device="cpu").predict(texts)
    expected = [
        f"{answer['label']}\t{answer['score']:.4f}\t{text}" for answer, text in zip(answers, texts, strict=True)
    ]
    assert ran.stdout.splitlines() == expected


@pytest.mark.slow
def test_what_exists_is_kept_unless_told_otherwise(
    exported: Path, classifier_dir: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    before = read_manifest(out)
    outcome = bertsmith(capsys, "export", classifier_dir, "--out", out)
    assert outcome.code == 2
    assert "--overwrite" in outcome.errors[0]
    assert read_manifest(out) == before
    assert bertsmith(capsys, "export", classifier_dir, "--out", out, "--overwrite").code == 0
    assert read_manifest(out)["files"] == before["files"]


def test_a_model_directory_is_never_replaced(
    classifier_dir: Path, encoder_dir: Path, tmp_path: Path, capsys: Any
) -> None:
    model = tmp_path / "model"
    shutil.copytree(encoder_dir, model)
    outcome = bertsmith(capsys, "export", classifier_dir, "--out", model, "--overwrite")
    assert outcome.code == 2
    assert "is a model" in outcome.errors[0]
    read_manifest(model, kind="model")


def test_an_export_in_place_of_a_model_names_the_model(
    exported: Path, classifier_dir: Path, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "rows.tsv").write_text("text\na film\n")
    outcome = bertsmith(capsys, "predict", exported, "--data", tmp_path / "rows.tsv")
    assert_refused(outcome, f"kind 'onnx'; 'model' is needed, as {classifier_dir} is, of which it was made")


@pytest.mark.slow
def test_one_changed_bit_is_refused_with_one_line(exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    file = out / "onnx/model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.onnx: its SHA-256 is not the manifest's"):
        OnnxModel(out)


@pytest.mark.slow
def test_more_tokens_than_positions_are_refused(exported: Path) -> None:
    batch = Batch.from_sequences([np.full(64, 5), np.full(65, 5)])
    with pytest.raises(InputError, match="a sequence has 65 tokens, the model has 64 positions"):
        OnnxModel(exported).outputs(batch)


@pytest.mark.slow
def test_the_engine_takes_packed_sequences_of_any_lengths_in_their_order(exported: Path, classifier_dir: Path) -> None:
    batch = Batch.from_sequences([np.arange(length) % 60 for length in (1, 64, 7, 64, 2)])
    model = load_bundle(classifier_dir).model
    with torch.inference_mode():
        expected = model.classification_logits(model.pooled(batch)).numpy()
    np.testing.assert_allclose(np.stack(OnnxModel(exported, threads=1).outputs(batch)), expected, rtol=0, atol=1e-5)


def test_a_graph_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"no graph")
    with pytest.raises(InputError, match=r"onnxruntime cannot run it \(.*\); export it again"):
        open_session(file)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_missing_extra_is_named(
    package: str, classifier_dir: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    outcome = bertsmith(capsys, "export", classifier_dir, "--out", tmp_path / "out")
    assert_refused(outcome, rf'needs {package}: pip install "bertsmith\[onnx\]"', tmp_path / "out")


@pytest.mark.parametrize("package", PACKAGES)
def test_an_engine_without_its_extra_is_named_by_its_flag(
    package: str, classifier_dir: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "texts.txt").write_text("a dog\n")
    monkeypatch.setitem(sys.modules, package, None)
    for words in (
        ("predict", classifier_dir, "--text", "a dog"),
        ("embed", classifier_dir, "--data", tmp_path / "texts.txt", "--out", tmp_path / "out.npy"),
    ):
        outcome = bertsmith(capsys, *words, "--engine", "onnx", "--device", "cpu")
        assert_refused(
            outcome, rf'field "--engine": needs {package}: pip install "bertsmith\[onnx\]"', tmp_path / "out.npy"
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"version": 99, "task": {}, "onnx": {}}, "kind 'onnx' and version 99; this bertsmith reads version 1"),
        ({"task": {}}, 'it has no "onnx" table'),
        ({"onnx": {}}, 'it has no "task" table'),
        ({"task": {}, "onnx": {"kind": "classify"}}, '"onnx" has no "positions"; export it again'),
    ],
)
def test_a_manifest_of_another_version_or_without_its_tables_is_refused(
    content: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_manifest(tmp_path, content, kind="onnx")
    with pytest.raises(InputError, match=message):
        OnnxModel(tmp_path)


@pytest.mark.slow
def test_a_graph_that_is_not_the_model_is_not_written(
    classifier_dir: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = run_module.write_graph

    def spoiled(folder: Path, part: Any, **options: Any) -> list[str]:
        names = write(folder, part, **options)
        with torch.no_grad():
            part.module.model.classifier.linear.bias += 2e-4
        return names

    monkeypatch.setattr(run_module, "write_graph", spoiled)
    outcome = bertsmith(capsys, "export", classifier_dir, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert "the graph is not the model: 1 x 2 tokens differ by 0.0002" in outcome.errors[0]
    assert not list(tmp_path.iterdir())


ON_A_SMALL_DISK = """
mount -t tmpfs -o size={size} tmpfs {disk} || exit 99
{python} -m bertsmith {words}
echo "exit code $?"
ls -A {disk}
"""


@pytest.mark.slow
@pytest.mark.skipif(not CAN_MOUNT, reason="a small disk needs `unshare -rm`, which this machine does not allow")
@pytest.mark.parametrize("size", ["40k", "120k"])
def test_a_full_disk_leaves_nothing(size: str, classifier_dir: Path, tmp_path: Path) -> None:
    """There is room for the tokenizer alone, or for a part of the graph."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = shlex.join(["export", str(classifier_dir), "--out", str(disk / "out")])
    script = ON_A_SMALL_DISK.format(size=size, disk=disk, python=sys.executable, words=words)
    ran = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    lines = [line for line in ran.stderr.splitlines() if not line.startswith("tracing")]
    assert len(lines) == 1, ran.stderr
    assert re.search(rf"error: {disk}/out(/[\w./]+)?: No space left on device", lines[0]), lines
    assert ran.stdout.splitlines() == ["exit code 1"]


@pytest.mark.slow
def test_weights_too_large_for_one_file_lie_beside_it(tmp_path: Path) -> None:
    _, ours = pair("BertModel", dtype=torch.float32)
    graph = EncoderGraph(ours, "encode", SentenceModules())
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert write_graph(tmp_path / "one", encoder_part(graph), metadata={}) == ["model.onnx"]
    session, differences = verified(tmp_path / "two", ours, "encode", most_bytes=1000)
    names = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert names == ["model.onnx", "model.onnx_data"]
    assert (tmp_path / "two/model.onnx").stat().st_size < (tmp_path / "one/model.onnx").stat().st_size / 2
    assert len(differences) == 9
    assert session.get_outputs()[0].name == "last_hidden_state"
