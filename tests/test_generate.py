"""`bertsmith generate` against transformers on directories that transformers wrote, and what it refuses."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bertsmith.tokenizer.directory import load_tokenizer
from tests.cli.run import assert_refused, bertsmith
from tests.parity.reference import redraw

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
TEXTS = ["the cat sees a red ball", "a dog", "one fish likes the blue sky again and again"]


def write(kind: str, tokenizer_dir: Path, out: Path) -> Any:
    """A directory of transformers with a tokenizer of ours, and its model."""
    tokenizer = load_tokenizer(tokenizer_dir)
    sizes = SHAPE | {"vocab_size": tokenizer.vocab_size}
    if kind == "decoder":
        model: Any = transformers.BertLMHeadModel(transformers.BertConfig(**sizes, is_decoder=True))
    else:
        config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
            transformers.BertConfig(**sizes),
            transformers.BertConfig(**sizes, is_decoder=True, add_cross_attention=True),
            decoder_start_token_id=tokenizer.cls_id,
            eos_token_id=tokenizer.sep_id,
            pad_token_id=tokenizer.pad_id,
        )
        model = transformers.EncoderDecoderModel(config)
    redraw(model)
    model.eval().save_pretrained(out)
    tokenizer.save(out)
    return model


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["decoder", "both"])
def test_texts_are_those_of_transformers(
    kind: str, beams: int, tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = write(kind, tokenizer_dir, tmp_path / "model")
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    words = ("generate", tmp_path / "model", "--data", file, "--max-new-tokens", 9, "--beams", beams, "--threads", 2)
    outcome = bertsmith(capsys, *words, "--batch-size", 2)
    assert outcome.code == 0, outcome.err
    found = [json.loads(line)["generated_text"] for line in outcome.out.splitlines()]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    expected = []
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        ids = ids[:, :-1] if kind == "decoder" else ids
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = theirs.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=9,
                num_beams=beams,
                do_sample=False,
                eos_token_id=tokenizer.sep_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )[0]
        whole = tokenizer.decode(made, skip_special_tokens=True)
        before = tokenizer.decode(ids[0], skip_special_tokens=True) if kind == "decoder" else ""
        assert whole.startswith(before)
        expected.append(whole[len(before) :])  # as transformers' pipeline without `return_full_text`
    assert found == expected


@pytest.mark.parametrize("kind", ["decoder", "both"])
def test_predict_prints_what_is_written_and_how_likely_it_is(
    kind: str, tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(kind, tokenizer_dir, tmp_path / "model")
    file = tmp_path / "texts.tsv"
    file.write_text("source\tlabel\n" + "".join(f"{text}\tx\n" for text in TEXTS[:2]), encoding="utf-8")
    written = bertsmith(capsys, "generate", tmp_path / "model", "--data", file)
    expected = [json.loads(line)["generated_text"] for line in written.out.splitlines()]
    for budget in (1, 4096):
        outcome = bertsmith(capsys, "predict", tmp_path / "model", "--data", file, "--batch-tokens", budget)
        assert outcome.code == 0, outcome.err
        found = [json.loads(line) for line in outcome.out.splitlines()]
        assert [row["text"] for row in found] == expected
        assert all(0 < row["score"] <= 1 for row in found)
    outcome = bertsmith(capsys, "predict", tmp_path / "model", "--text", TEXTS[0])
    alone = json.loads(outcome.out)
    assert alone["text"] == found[0]["text"]
    assert alone["score"] == pytest.approx(found[0]["score"], rel=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--text", "a", "--pair", "b"], 'field "--pair": a model that writes has no use for it'),
        (["--text", "a", "--question", "b"], 'field "--question": a model that writes has no use for it'),
        (["--text", "a", "--choices", "b|c"], 'field "--choices": a model that writes has no use for it'),
        (["--text", "the cat " * 30], "the limit is 40; shorten it; `bertsmith generate --long-docs truncate` cuts it"),
        (["--text", " "], "is empty"),
        (["--text", "a", "--engine", "int8"], 'field "--engine": a model that writes has torch alone'),
    ],
)
def test_predict_refuses_what_a_writer_cannot_take(
    words: list[str], message: str, tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("both", tokenizer_dir, tmp_path / "model")
    assert_refused(bertsmith(capsys, "predict", tmp_path / "model", *words), re.escape(message))


def test_evaluate_refuses_more_beams_than_pieces(
    tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("both", tokenizer_dir, tmp_path / "model")
    (tmp_path / "a.tsv").write_text("source\ttarget\na dog\ta cat\n")
    words = ("evaluate", tmp_path / "model", "--data", tmp_path / "a.tsv", "--beams", 5000)
    assert_refused(bertsmith(capsys, *words), "5000 is more than the vocabulary has pieces")


def test_drawing_depends_on_the_seed(tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("both", tokenizer_dir, tmp_path / "model")
    words = ("generate", tmp_path / "model", "--text", TEXTS[0], "--sample", "--top-p", 0.9, "--max-new-tokens", 12)
    texts = [bertsmith(capsys, *words, "--seed", seed).out for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--text", "the cat " * 30], "tokens, the limit is 40; shorten it, or give --long-docs truncate"),
        (["--text", " "], "is empty"),
        (["--text", "a", "--max-new-tokens", "40"], 'field "--max-new-tokens": 40 is more than the decoder\'s 39'),
        (["--text", "a", "--beams", "5000"], 'field "--beams": 5000 is more than the vocabulary has pieces'),
        (["--text", "a", "--forced-first", "nothere"], "'nothere' is no token of the vocabulary"),
        (["--text", "a", "--top-k", "5"], "--top-k is for --sample"),
        (["--text", "a", "--sample", "--beams", "2"], "--sample draws one sequence, --beams follows several"),
        ([], "give either --text TEXT or --data FILE"),
    ],
)
def test_what_cannot_be_written_is_said(
    words: list[str], message: str, tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("both", tokenizer_dir, tmp_path / "model")
    outcome = bertsmith(capsys, "generate", tmp_path / "model", *words)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not outcome.out


def test_nothing_is_written_where_nothing_is_wanted(
    tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("both", tokenizer_dir, tmp_path / "model")
    outcome = bertsmith(capsys, "generate", tmp_path / "model", "--text", "a dog", "--max-new-tokens", 0)
    assert outcome.code == 0
    assert json.loads(outcome.out) == {"generated_text": ""}


def test_models_that_do_not_write_are_told(
    encoder_dir: Path, tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = bertsmith(capsys, "generate", encoder_dir, "--text", "a")
    assert outcome.code == 2
    assert "a decoder (bert with is_decoder) or an encoder-decoder is needed to write" in outcome.err
    write("decoder", tokenizer_dir, tmp_path / "decoder")
    outcome = bertsmith(capsys, "fill", tmp_path / "decoder", "a [MASK]")
    assert "`bertsmith generate` writes with it" in outcome.err
    write("both", tokenizer_dir, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    config["decoder"]["add_cross_attention"] = False
    file.write_text(json.dumps(config))
    outcome = bertsmith(capsys, "generate", tmp_path / "model", "--text", "a")
    assert outcome.code == 2
    assert "it was never joined to its encoder" in outcome.err
    config["decoder"] |= {"add_cross_attention": True, "num_hidden_layers": 3}
    file.write_text(json.dumps(config))
    outcome = bertsmith(capsys, "generate", tmp_path / "model", "--text", "a")
    assert outcome.code == 2
    assert "tensors are missing: decoder.bert.encoder.layer.2." in outcome.err
