"""`finetune seq2seq`: a toy that must be learnt, a start from an encoder, directories for transformers, bad input."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import bertsmith.train.seq2seq as writing
from bertsmith.batch import Batch
from bertsmith.bundle import load_bundle
from bertsmith.config.convert import ConvertOptions
from bertsmith.config.finetune import Seq2SeqOptions
from bertsmith.convert import convert
from bertsmith.data.parallel import read_parallel
from bertsmith.errors import InputError
from bertsmith.files import read_manifest
from bertsmith.models.seq2seq import Seq2Seq, twins
from bertsmith.train.optim import make_optimizers
from bertsmith.train.pretrain import pretrain
from bertsmith.train.seq2seq import finetune_seq2seq, starting_point
from bertsmith.writer import load_writer
from tests.cli.run import assert_refused, bertsmith
from tests.conftest import tiny_pretraining

LETTERS = "abcdefgh"


def reversals(path: Path, count: int, *, seed: int) -> Path:
    rng = random.Random(seed)
    rows = [[rng.choice(LETTERS) for _ in range(rng.randint(2, 6))] for _ in range(count)]
    lines = ["source\ttarget", *(f"{' '.join(row)}\t{' '.join(reversed(row))}" for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def toy(tmp_path: Path, **changes: Any) -> Seq2SeqOptions:
    values: dict[str, Any] = {
        "from_scratch": True,
        "train": reversals(tmp_path / "train.tsv", 3000, seed=0),
        "out": tmp_path / "model",
        "layers": 2,
        "hidden": 64,
        "vocab_size": 13,
        "max_length": 16,
        "max_target_length": 16,
        "steps": 500,
        "batch_size": 64,
        "learning_rate": 3e-3,
        "label_smoothing": 0.0,
        "dropout": 0.0,
        "threads": 2,
    }
    values |= changes
    if values.get("model"):
        values = {k: v for k, v in values.items() if k not in ("from_scratch", "layers", "hidden", "vocab_size")}
    return Seq2SeqOptions(**values)


@pytest.mark.slow
def test_reversing_is_learnt_and_transformers_writes_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dev = reversals(tmp_path / "dev.tsv", 200, seed=1)
    report = finetune_seq2seq(toy(tmp_path, dev=dev, eval_every=250))
    assert report["dev_exact_match"] >= 0.99
    assert report["dev_bleu"] > 95
    assert report["dev_bleu_signature"].startswith("nrefs:1|")
    outcome = bertsmith(capsys, "generate", tmp_path / "model", "--text", "a b c d", "--beams", 3)
    assert json.loads(outcome.out) == {"generated_text": "d c b a"}
    words = ("evaluate", tmp_path / "model", "--data", dev, "--beams", 2, "--json", "--fail-under", "bleu=95,ter=5")
    outcome = bertsmith(capsys, *words)
    assert outcome.code == 0, outcome.err
    figures = json.loads(outcome.out)
    assert figures["exact_match"] >= 0.99
    assert figures["perplexity"] < 1.2
    outcome = bertsmith(capsys, "predict", tmp_path / "model", "--text", "a b")
    assert "an encoder-decoder; `bertsmith generate` writes with it" in outcome.err
    theirs, info = transformers.EncoderDecoderModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not info["missing_keys"], info
    assert not info["unexpected_keys"], info
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = tokenizer("a b c d", return_tensors="pt")["input_ids"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = theirs.eval().generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8)[0]
    assert tokenizer.decode(written, skip_special_tokens=True) == "d c b a"


def test_both_halves_start_from_an_encoder(encoder_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    options = toy(tmp_path, model=str(encoder_dir), steps=1, learning_rate=1e-12)
    finetune_seq2seq(options)
    assert "starting fresh: attention to the source" in caplog.text
    start, model = load_bundle(encoder_dir).model, load_writer(tmp_path / "model").model
    assert isinstance(model, Seq2Seq)
    wanted = start.encoder.state_dict()
    for half in (model.encoder.state_dict(), model.writer.decoder.state_dict()):
        for name, tensor in wanted.items():
            torch.testing.assert_close(half[name][: len(tensor)], tensor[: len(half[name])], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"layout": "original", "tie_embeddings": "all"}], ids=str)
def test_a_run_that_was_stopped_goes_on_bitwise(changes: dict[str, Any], tmp_path: Path) -> None:
    whole = finetune_seq2seq(toy(tmp_path, steps=6, checkpoint_every=2, out=tmp_path / "whole", **changes))
    options = toy(tmp_path, steps=6, checkpoint_every=2, out=tmp_path / "parts", **changes)
    finetune_seq2seq(options)
    (tmp_path / "parts" / "bertsmith.json").unlink()
    for step in (tmp_path / "parts/train/checkpoints").glob("step-6"):
        for file in step.iterdir():
            file.unlink()
        step.rmdir()
    again = finetune_seq2seq(options.model_copy(update={"resume": True}))
    assert again["steps"] == whole["steps"] == 6
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert one == other


def test_an_evaluation_leaves_dropout_on(tmp_path: Path) -> None:
    dev = reversals(tmp_path / "dev.tsv", 5, seed=1)
    changes = {"dropout": 0.5, "steps": 4, "out": tmp_path / "often", "dev": dev}
    finetune_seq2seq(toy(tmp_path, **changes, eval_every=2))
    finetune_seq2seq(toy(tmp_path, **changes | {"out": tmp_path / "once"}, eval_every=4))
    often, once = (
        load_file(tmp_path / name / "train/checkpoints/step-4/model.safetensors") for name in ("often", "once")
    )
    assert all(torch.equal(often[name], once[name]) for name in once)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"layout": "original", "tie_embeddings": "all"}, {"share_halves": True}], ids=str)
def test_other_layouts_learn_to_reverse_too(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dev = reversals(tmp_path / "dev.tsv", 100, seed=1)
    report = finetune_seq2seq(toy(tmp_path, dev=dev, eval_every=400, steps=400, threads=1, **changes))
    assert report["dev_exact_match"] >= 0.95
    outcome = bertsmith(capsys, "generate", tmp_path / "model", "--text", "a b c d")
    assert json.loads(outcome.out) == {"generated_text": "d c b a"}


OTHERS: dict[str, dict[str, Any]] = {
    "original": {"layout": "original"},
    "original, tied": {"layout": "original", "tie_embeddings": "all"},
    "original, output tied": {"layout": "original", "tie_embeddings": "output"},
    "original, shared": {"layout": "original", "share_halves": True},
    "bert, no ties": {"tie_embeddings": "none"},
    "bert, tied": {"tie_embeddings": "all"},
    "bert, shared": {"share_halves": True, "optimizer": "muon"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_layout_is_trained_saved_read_and_judged(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Seq2Seq] = []
    write = writing.write_writer
    monkeypatch.setattr(writing, "write_writer", lambda *a, **k: (kept.append(a[1]), write(*a, **k)))
    dev = reversals(tmp_path / "dev.tsv", 5, seed=1)
    options = toy(tmp_path, steps=4, dev=dev, eval_every=2, checkpoint_every=2, **OTHERS[name])
    report = finetune_seq2seq(options)
    out, model = tmp_path / "model", kept[0].eval()
    writer = load_writer(out)
    assert isinstance(writer.model, Seq2Seq)
    assert writer.model.num_parameters == report["parameters"] == model.num_parameters
    assert twins(writer.model) == twins(model)
    batches = [
        Batch.from_sequences([np.array(row) for row in rows]) for rows in ([[2, 5, 3], [2, 6, 7, 3]], [[2], [2, 8]])
    ]
    with torch.no_grad():
        assert torch.equal(writer.model(*batches), model(*batches))
    assert writer.decoder.config == model.writer.config
    assert read_manifest(out, kind="model")["task"]["name"] == "seq2seq"
    assert f"{report['parameters']:,} parameters" in (out / "README.md").read_text(encoding="utf-8")
    assert bertsmith(capsys, "generate", out, "--text", "a b", "--beams", 2).code == 0
    outcome = bertsmith(capsys, "evaluate", out, "--data", dev, "--json")
    assert json.loads(outcome.out)["rows"] == 5, outcome.err
    (out / "model.safetensors").write_bytes(b"x" + (out / "model.safetensors").read_bytes()[1:])
    assert_refused(bertsmith(capsys, "generate", out, "--text", "a"), r"model\.safetensors: its SHA-256")


@pytest.mark.parametrize("name", ["bert, no ties", "bert, tied", "bert, shared"])
def test_what_two_berts_share_loads_in_transformers(name: str, tmp_path: Path) -> None:
    finetune_seq2seq(toy(tmp_path, steps=4, **OTHERS[name]))
    writer = load_writer(tmp_path / "model")
    theirs, info = transformers.EncoderDecoderModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not info["missing_keys"], info
    assert not info["unexpected_keys"], info
    source, target = torch.tensor([[2, 5, 6, 3], [2, 9, 8, 3]]), torch.tensor([[2, 6, 5], [2, 8, 9]])
    with torch.no_grad():
        expected = theirs.eval()(source, decoder_input_ids=target).logits.flatten(0, 1)
        found = writer.model(Batch.from_dense(source), Batch.from_dense(target))[:, : expected.shape[1]]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    tied = json.loads((tmp_path / "model/config.json").read_text()).get("tie_encoder_decoder")
    assert tied == (True if name == "bert, shared" else None)  # what transformers 4 asks for
    state = load_file(tmp_path / "model/model.safetensors")
    tables = [state[f"{half}.embeddings.word_embeddings.weight"] for half in ("encoder", "decoder.bert")]
    assert torch.equal(*tables) == (name != "bert, no ties")


def test_shared_halves_that_were_trained_apart_are_refused(tmp_path: Path) -> None:
    finetune_seq2seq(toy(tmp_path, steps=1, share_halves=True))
    out, name = tmp_path / "model", "decoder.bert.encoder.layer.0.output.dense.weight"
    (out / "bertsmith.json").unlink()
    state = load_file(out / "model.safetensors")
    save_file({other: tensor for other, tensor in state.items() if other != name}, out / "model.safetensors")
    assert twins(load_writer(out).model)
    save_file(state | {name: state[name] + 1}, out / "model.safetensors")
    with pytest.raises(InputError, match=rf"encoder\.encoder\.layer\.0.* and {name} differ"):
        load_writer(out)


@pytest.mark.parametrize("changes", [{"share_halves": True}, {"layout": "original", "tie_embeddings": "all"}], ids=str)
def test_tables_of_two_vocabularies_are_not_one(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finetune_seq2seq(toy(tmp_path, steps=1, **changes))
    out = tmp_path / "model"
    (out / "bertsmith.json").unlink()
    config = json.loads((out / "config.json").read_text())
    size = config["decoder"]["vocab_size"]
    config["decoder"]["vocab_size"] += 1
    (out / "config.json").write_text(json.dumps(config))
    outcome = bertsmith(capsys, "generate", out, "--text", "a")
    assert_refused(outcome, rf"config\.json: .*vocab_size is {size} in the encoder and {size + 1} in the decoder")
    config["decoder"]["shared"] = "everything"
    config["tie_encoder_decoder"] = False
    (out / "config.json").write_text(json.dumps(config))
    assert_refused(bertsmith(capsys, "generate", out, "--text", "a"), r'config\.json: field "shared": input should be')


def test_the_output_matrix_is_a_table_for_muon(tmp_path: Path) -> None:
    options = toy(tmp_path, layout="original")
    model, _ = starting_point(options, read_parallel(options.train))
    muon = make_optimizers(model, name="muon", learning_rate=1e-3, weight_decay=0.0)[1]
    of_muon = {id(parameter) for group in muon.param_groups for parameter in group["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in of_muon}
    assert "writer.decoder.blocks.0.cross.query.weight" in names
    assert not [name for name in names if ".embeddings." in name or ".masked_lm." in name]


def test_one_encoder_is_both_halves(encoder_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    finetune_seq2seq(toy(tmp_path, model=str(encoder_dir), share_halves=True, steps=1, learning_rate=1e-12))
    assert "starting fresh: attention to the source" in caplog.text
    start, model = load_bundle(encoder_dir).model, load_writer(tmp_path / "model").model
    assert isinstance(model, Seq2Seq)
    cross = sum(p.numel() for name, p in model.named_parameters() if ".cross" in name)
    head = sum(p.numel() for p in model.writer.masked_lm.parameters())
    padding = start.config.padded_vocab_size - start.config.vocab_size
    encoder = sum(p.numel() for p in start.encoder.parameters()) - padding * start.config.hidden_size
    assert model.num_parameters == encoder + cross + head
    for name, tensor in start.encoder.state_dict().items():
        for half in (model.encoder, model.writer.decoder):
            torch.testing.assert_close(half.state_dict()[name], tensor, atol=1e-6, rtol=1e-5)


def test_an_encoder_of_another_layout_becomes_both_halves(shards_dir: Path, tmp_path: Path) -> None:
    pretrain(tiny_pretraining(shards_dir, tmp_path / "encoder", layout="original", steps=2))
    finetune_seq2seq(toy(tmp_path, model=str(tmp_path / "encoder"), steps=1))
    config = load_writer(tmp_path / "model").decoder.config
    assert (config.hidden_act, config.position_kind, config.embedding_scale) == ("relu", "sinusoidal", True)


def test_a_pruned_encoder_is_refused(shards_dir: Path, tmp_path: Path) -> None:
    pretrain(tiny_pretraining(shards_dir, tmp_path / "encoder", hidden=128, steps=1))
    convert(ConvertOptions(src=str(tmp_path / "encoder"), out=tmp_path / "pruned", prune_heads="0:0"))
    with pytest.raises(InputError, match=r"--model.*pruned_heads are an encoder's; a decoder has neither"):
        finetune_seq2seq(toy(tmp_path, model=str(tmp_path / "pruned")))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "m", "--layout", "original"], "--layout is for --from-scratch; --model has a shape of its own"),
        (["--model", "m", "--tie-embeddings", "all"], "--tie-embeddings is for --from-scratch"),
        (["--from-scratch", "--share-halves", "--tie-embeddings", "none"], "--share-halves makes both tables one"),
        (["--from-scratch", "--layout", "modern"], "--layout"),
    ],
)
def test_layouts_that_cannot_be_are_refused(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--train", reversals(tmp_path / "train.tsv", 9, seed=0), "--out", tmp_path / "out")
    assert_refused(bertsmith(capsys, "finetune", "seq2seq", *words, *given), message, tmp_path / "out")


BAD: dict[str, tuple[dict[str, str], list[str], str]] = {
    "unequal files": (
        {"a.txt": "x y\nz\n", "b.txt": "u\n"},
        ["--train", "a.txt", "--train-target", "b.txt"],
        "a.txt: has 2 lines, b.txt has 1; line i of both belongs together",
    ),
    "a source alone": (
        {"a.txt": "x\n"},
        ["--train", "a.txt"],
        "a.txt: has sources alone; name the file of their targets",
    ),
    "an empty source": (
        {"a.tsv": "source\ttarget\nx\ty\n \ty\n"},
        ["--train", "a.tsv"],
        'a.tsv:3: field "source": is empty',
    ),
    "no target column": ({"a.tsv": "source\tlabel\nx\ty\n"}, ["--train", "a.tsv"], "no column"),
    "a long target": (
        {"a.tsv": "source\ttarget\nx y\t" + "x y " * 30 + "\n" + "x y\tx y\n" * 4},
        ["--train", "a.tsv", "--max-target-length", "20"],
        'a.tsv:2: field "target": 62 tokens, the limit is 20; shorten it, or give --long-docs truncate',
    ),
    "no start": (
        {"a.tsv": "source\ttarget\nx\ty\n"},
        ["--train", "a.tsv", "NO"],
        "give either --model M or --from-scratch",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_get_one_line_and_leave_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files, words, message = BAD[name]
    monkeypatch.chdir(tmp_path)
    for file, text in files.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    start = [] if "NO" in words else ["--from-scratch", "--vocab-size", 7]
    words = [word for word in words if word != "NO"]
    outcome = bertsmith(capsys, "finetune", "seq2seq", *start, *words, "--out", "out", "--threads", 2)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("bertsmith: error") == 1
    assert not (tmp_path / "out").exists()
