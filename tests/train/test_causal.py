"""`pretrain --objective causal`: it learns, resumes, equals transformers, writes on, and refuses what it cannot."""

from __future__ import annotations

import json
import math
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from pydantic import ValidationError

from bertsmith.batch import Batch
from bertsmith.bundle import load_bundle
from bertsmith.config.prepare import PrepareOptions
from bertsmith.config.pretrain import PretrainOptions
from bertsmith.data.prepare import prepare
from bertsmith.errors import InputError
from bertsmith.files import sha256
from bertsmith.models.seq2seq import CausalLM
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.train.pretrain import pretrain
from bertsmith.train.start import starting_decoder
from bertsmith.writer import load_writer
from tests.cli.run import assert_refused, bertsmith
from tests.conftest import sentence, tiny_pretraining
from tests.test_generate import write

PROMPTS = ["the cat sees", "a dog likes the green", "", "one fish"]


def causal(shards: Path, out: Path, **changes: object) -> PretrainOptions:
    return tiny_pretraining(shards, out, **{"objective": "causal"} | changes)


@pytest.fixture(scope="module")
def short_dir(tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of documents of one sentence, so that after a full stop a text ends."""
    folder, rng = tmp_path_factory.mktemp("short"), random.Random(3)
    (folder / "text.txt").write_text("\n\n".join(sentence(rng) for _ in range(400)) + "\n", encoding="utf-8")
    options = {"tokenizer": tokenizer_dir, "out": folder / "shards", "heldout": 0.1}
    prepare(PrepareOptions(files=(folder / "text.txt",), **options))
    return folder / "shards"


@pytest.fixture(scope="module")
def decoder_dir(short_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("decoder") / "decoder"
    changes = {"steps": 120, "batch_size": 16, "learning_rate": 1e-2, "dropout": 0.0, "max_length": 48}
    pretrain(causal(short_dir, out, **changes))
    return out


def report_of(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / "train/report.json").read_text()))


def test_a_toy_is_learnt_and_the_report_says_so(decoder_dir: Path) -> None:
    report = report_of(decoder_dir)
    assert report["heldout_token_loss"] < report["unigram_loss"] - 1.5
    assert report["heldout_token_loss"] < report["bigram_loss"]
    assert report["perplexity"] == pytest.approx(math.exp(report["heldout_token_loss"]))
    assert report["token_accuracy"] > 0.4
    assert 0 < report["top_prediction_share"] < 0.5
    assert "mlm_accuracy" not in report
    rows = [json.loads(line) for line in (decoder_dir / "train/metrics.jsonl").read_text().splitlines()]
    assert any("token_loss" in json.dumps(row) for row in rows)
    card = (decoder_dir / "README.md").read_text()
    assert "each next token" in card
    assert 'BertLMHeadModel.from_pretrained("DIR")' in card
    assert "which a prompt must not have" in card


def test_transformers_reads_the_directory_and_gives_equal_logits_and_loss(decoder_dir: Path) -> None:
    theirs, info = transformers.BertLMHeadModel.from_pretrained(decoder_dir, output_loading_info=True)
    assert not info["missing_keys"], info
    assert not info["unexpected_keys"], info
    writer = load_writer(decoder_dir)
    assert isinstance(writer.model, CausalLM)
    assert theirs.num_parameters() == writer.model.num_parameters
    ids = writer.tokenizer.encode("the cat sees a red ball today. a dog eats some bread again.").ids
    with torch.no_grad():
        ours = writer.model(Batch.from_sequences([np.array(ids)]))[:, : writer.tokenizer.vocab_size]
        output = theirs.eval()(torch.tensor([ids]), labels=torch.tensor([ids]))
    torch.testing.assert_close(ours, output.logits[0], atol=1e-5, rtol=1e-5)
    loss = torch.nn.functional.cross_entropy(ours[:-1], torch.tensor(ids[1:]))
    torch.testing.assert_close(loss, output.loss, atol=1e-5, rtol=1e-5)


def test_it_goes_on_with_a_text_token_for_token_as_transformers(
    decoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = transformers.BertLMHeadModel.from_pretrained(decoder_dir).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(decoder_dir)
    ended = 0
    for prompt in PROMPTS:
        outcome = bertsmith(capsys, "generate", decoder_dir, "--text", prompt, "--max-new-tokens", 30)
        assert outcome.code == 0, outcome.err
        found = json.loads(outcome.out)["generated_text"]
        ids = torch.tensor([tokenizer(prompt)["input_ids"][:-1]])  # not closed by [SEP]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, do_sample=False)[0]
        ended += len(whole) < ids.shape[1] + 30
        before, after = (tokenizer.decode(part, skip_special_tokens=True) for part in (ids[0], whole))
        assert before + found == after
    assert ended, "no document came to its end"
    outcome = bertsmith(capsys, "generate", decoder_dir, "--text", "a dog", "--max-new-tokens", 48)
    assert_refused(outcome, "48 is more than the decoder's 47")  # it has learnt with 48 places of 64


def test_a_run_that_was_stopped_goes_on_bitwise(shards_dir: Path, tmp_path: Path) -> None:
    run = {"steps": 9, "checkpoint_every": 3, "dropout": 0.1, "micro_batch": 3}
    pretrain(causal(shards_dir, tmp_path / "whole", **run))
    options = causal(shards_dir, tmp_path / "parts", **run)
    pretrain(options)
    (tmp_path / "parts" / "bertsmith.json").unlink()
    shutil.rmtree(tmp_path / "parts/train/checkpoints/step-9")
    assert pretrain(options.model_copy(update={"resume": True}))["steps"] == 9
    assert sha256(tmp_path / "parts/model.safetensors") == sha256(tmp_path / "whole/model.safetensors")


def test_micro_batches_and_recomputed_activations_change_nothing(shards_dir: Path, tmp_path: Path) -> None:
    states = []
    for name, changes in {"a": {}, "b": {"micro_batch": 3}, "c": {"gradient_checkpointing": True}}.items():
        pretrain(causal(shards_dir, tmp_path / name, steps=3, dropout=0.0, **changes))
        states.append(load_writer(tmp_path / name).model.state_dict())
    for state in states[1:]:
        for name, tensor in states[0].items():
            torch.testing.assert_close(state[name], tensor, atol=1e-5, rtol=1e-4, msg=name)


def test_a_plan_trains_nothing(shards_dir: Path, tmp_path: Path) -> None:
    planned = pretrain(causal(shards_dir, tmp_path / "out", plan=True))
    assert planned["steps"] == 12
    assert planned["flops"] > 0
    assert not list(tmp_path.iterdir())


def test_evaluate_measures_shards_and_texts(
    decoder_dir: Path, short_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("evaluate", decoder_dir, "--max-length", 48, "--json", "--data")
    outcome = bertsmith(capsys, *words, short_dir, "--fail-under", "perplexity=50")
    assert outcome.code == 0, outcome.err
    figures, report = json.loads(outcome.out), report_of(decoder_dir)
    for name in ("heldout_token_loss", "perplexity", "unigram_loss", "bigram_loss"):
        assert figures[name] == pytest.approx(report[name], rel=1e-5)
    known, strange = tmp_path / "known.txt", tmp_path / "strange.txt"
    known.write_text("the cat sees a red ball today.\na dog eats some bread again.\n\nthe bird likes two stones.\n")
    strange.write_text("today ball red a sees cat the.\n")
    found = [json.loads(bertsmith(capsys, *words, file).out) for file in (known, strange)]
    assert found[0]["sequences"] >= 2
    assert 1 < found[0]["perplexity"] < found[1]["perplexity"]
    assert "unigram_loss" not in found[0]
    for flag, value in (("--beams", 2), ("--target", known), ("--out", tmp_path / "report")):
        assert_refused(bertsmith(capsys, *words, known, flag, value), "is not there for a decoder alone")
    assert_refused(bertsmith(capsys, *words[:2], "--data", known, "--max-length", 49), "more than the decoder's 48")


def test_show_counts_what_the_file_has(decoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = bertsmith(capsys, "show", decoder_dir, "--svg", tmp_path / "a.svg", "--json")
    assert outcome.code == 0, outcome.err
    figures = json.loads(outcome.out)
    assert figures["total"]["parameters"] == load_writer(decoder_dir).model.num_parameters
    assert any(part["part"] == "next token decoder" for part in figures["parts"])
    assert "causal" in (tmp_path / "a.svg").read_text()
    (scores,) = (part for part in figures["parts"] if part["part"].startswith("scores"))
    length, layers, hidden = figures["length"], 2, 32
    assert scores["flops"] == layers * figures["batch_size"] * length * (length + 1) * hidden


def test_it_starts_from_an_encoder_or_goes_on_from_a_decoder(
    shards_dir: Path, short_dir: Path, encoder_dir: Path, decoder_dir: Path, tmp_path: Path
) -> None:
    of_model = {"layers": None, "hidden": None, "positions": None}
    tokenizer = load_tokenizer(shards_dir / "tokenizer")
    encoder = load_bundle(encoder_dir).model
    options = causal(shards_dir, tmp_path / "out", model=str(encoder_dir), **of_model)
    start = starting_decoder(options, tokenizer).state_dict()
    for name, tensor in encoder.encoder.state_dict().items():
        assert torch.equal(start[f"decoder.{name}"], tensor)
    assert encoder.masked_lm is not None
    assert torch.equal(start["masked_lm.bias"], encoder.masked_lm.bias)
    again = pretrain(causal(short_dir, tmp_path / "again", model=str(decoder_dir), steps=5, **of_model))
    assert again["heldout_token_loss"] < report_of(decoder_dir)["heldout_token_loss"] + 0.3
    write("both", shards_dir / "tokenizer", tmp_path / "both")
    with pytest.raises(InputError, match="a decoder alone, or a BERT, is needed"):
        pretrain(causal(shards_dir, tmp_path / "no", model=str(tmp_path / "both"), **of_model))
    assert not (tmp_path / "no").exists()


def test_recipes_leave_masks_out(shards_dir: Path, tmp_path: Path) -> None:
    options = PretrainOptions(data=shards_dir, out=tmp_path / "out", objective="causal", recipe="fast")
    assert options.optimizer == "muon"
    assert options.schedule == "wsd"
    assert options.mask_rate == 0.15
    assert options.attention_init == "normal"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_rate": 0.3}, "--mask-rate is not for --objective causal: no token is masked; leave it out"),
        ({"mask_share": 0.5}, "--mask-share is not for"),
        ({"random_share": 0.2}, "--random-share is not for"),
        ({"masking": "words"}, "--masking is not for"),
        ({"static_masks": 3}, "--static-masks is not for"),
        ({"masking": "words", "chinese_words": True}, "is not for --objective causal"),
        ({"layout": "modern"}, "--layout is not for --objective causal: a decoder is a BERT with is_decoder"),
        ({"attention_init": "neighbours", "position_init": "sinusoidal"}, "--attention-init is not for"),
        ({"fsdp": True}, "--fsdp is not for --objective causal"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=message):
        causal(tmp_path, tmp_path / "out", **changes)


def test_a_refusal_is_one_line(shards_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("pretrain", shards_dir, "--out", tmp_path / "out", "--objective", "causal", "--mask-rate", 0.4)
    assert_refused(bertsmith(capsys, *words), "--mask-rate is not for --objective causal", tmp_path / "out")
