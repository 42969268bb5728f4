"""`finetune seq2seq`: a toy that must be learnt, a start from an encoder, directories for transformers, bad input."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from bertsmith.bundle import load_bundle
from bertsmith.config.finetune import Seq2SeqOptions
from bertsmith.models.seq2seq import Seq2Seq
from bertsmith.train.seq2seq import finetune_seq2seq
from bertsmith.writer import load_writer
from tests.cli.run import bertsmith

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


def test_a_run_that_was_stopped_goes_on_bitwise(tmp_path: Path) -> None:
    whole = finetune_seq2seq(toy(tmp_path, steps=6, checkpoint_every=2, out=tmp_path / "whole"))
    options = toy(tmp_path, steps=6, checkpoint_every=2, out=tmp_path / "parts")
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
