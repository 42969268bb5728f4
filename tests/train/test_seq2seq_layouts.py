"""`finetune seq2seq` in other layouts, with tied tables and with halves that are one: learnt, saved, read, resumed."""

from __future__ import annotations

import json
import shutil
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
from tests.train.test_seq2seq import reversals, toy


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"layout": "original", "tie_embeddings": "all"}, {"share_halves": True}], ids=str)
def test_other_layouts_learn_to_reverse_too(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dev = reversals(tmp_path / "dev.tsv", 100, seed=1)
    run = {"steps": 600, "eval_every": 600, "schedule": "linear", "threads": 1}
    report = finetune_seq2seq(toy(tmp_path, dev=dev, **run, **changes))
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


@pytest.mark.parametrize("name", ["original, tied", "bert, shared"])
def test_shared_parts_are_resumed_bitwise(name: str, tmp_path: Path) -> None:
    run = {"steps": 6, "checkpoint_every": 2, "dropout": 0.1, **OTHERS[name]}
    finetune_seq2seq(toy(tmp_path, **run, out=tmp_path / "whole"))
    options = toy(tmp_path, **run, out=tmp_path / "parts")
    finetune_seq2seq(options)
    (tmp_path / "parts/bertsmith.json").unlink()
    shutil.rmtree(tmp_path / "parts/train/checkpoints/step-6")
    assert finetune_seq2seq(options.model_copy(update={"resume": True}))["steps"] == 6
    one, other = ((tmp_path / out / "model.safetensors").read_bytes() for out in ("whole", "parts"))
    assert one == other


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
