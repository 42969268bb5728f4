"""Directories of the other families through the verbs: read, filled, embedded, trained further, written back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import bertsmith
from bertsmith.bundle import load_bundle, start_from
from bertsmith.config.finetune import ClassifyOptions, QaOptions, TagOptions
from bertsmith.config.pretrain import PretrainOptions
from bertsmith.errors import InputError
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.train.finetune import finetune
from bertsmith.train.pretrain import pretrain
from tests.interop.families import ROBERTA, byte_level, write_directory

FAMILIES = ("roberta", "xlm-roberta", "distilbert", "electra", "modernbert")
MASK = transformers.AddedToken("<mask>", lstrip=True, special=True)
"""As transformers 4 reads it from the two files, and fairseq; transformers 5 keeps the space before it as a piece."""
TEXTS = ["the cat sees a red ball today.", "a dog", "One fish likes THE blue sky, again!", "ünïcode 你好 🙂"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_directory_of_transformers_gives_equal_answers(family: str, corpus: Path, tmp_path: Path) -> None:
    theirs = write_directory(family, corpus, tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    model = bertsmith.load(str(tmp_path / "model"))
    for text, states in zip(TEXTS, model.hidden_states(TEXTS), strict=True):
        encoded = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            expected = theirs(**encoded, output_hidden_states=True).hidden_states
        np.testing.assert_allclose(states[-1], expected[-1][0].numpy(), atol=1e-5)
    mask = tokenizer.mask_token
    guesses = model.fill(f"the cat sees a {mask} ball.")
    with torch.no_grad():
        logits = theirs(**tokenizer(f"the cat sees a {mask} ball.", return_tensors="pt")).logits
    place = (tokenizer(f"the cat sees a {mask} ball.", return_tensors="pt")["input_ids"] == tokenizer.mask_token_id)[0]
    best = tokenizer.convert_ids_to_tokens(int(logits[0, place].argmax()))
    assert guesses[0][0]["token"] == best


def test_the_logits_of_electra_s_discriminator_equal_transformers(corpus: Path, tmp_path: Path) -> None:
    theirs = write_directory("electra", corpus, tmp_path / "model", head="ForPreTraining")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        expected = theirs(**tokenizer(TEXTS[0], return_tensors="pt")).logits[0]
    (logits,) = bertsmith.load(str(tmp_path / "model"), device="cpu").logits([TEXTS[0]])
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_classifier_of_pairs_loads_in_transformers(family: str, corpus: Path, tmp_path: Path) -> None:
    write_directory(family, corpus, tmp_path / "model")
    rows = [("the cat sees a ball", "a dog eats bread", "no"), ("a girl hears the bird", "the bird sings", "yes")] * 6
    file = tmp_path / "train.tsv"
    file.write_text("text_a\ttext_b\tlabel\n" + "".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    finetune(
        ClassifyOptions(
            model=str(tmp_path / "model"), train=file, out=tmp_path / "out", steps=3, batch_size=4, threads=2,
            long_docs="truncate", max_length=12,
        )
    )  # fmt: skip
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ends = [("bos_token_id", "cls_token_id"), ("eos_token_id", "sep_token_id")]
    for name, same in [*ends, *((same, same) for _, same in ends)] if family == "modernbert" else ends:
        assert getattr(theirs.config, name) in (None, getattr(tokenizer, same)), (
            "its own would be beyond the vocabulary"
        )
    encoded = tokenizer("a dog", "the bird", return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**encoded).logits[0].numpy()
    predicted = tmp_path / "rows.tsv"
    predicted.write_text("text_a\ttext_b\na dog\tthe bird\n", encoding="utf-8")
    model = bertsmith.load(str(tmp_path / "out"))
    (row,) = model.predict(["a dog"], pairs=["the bird"])
    chances = np.exp(expected - expected.max())
    assert row["score"] == pytest.approx(float((chances / chances.sum()).max()), abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_taggers_and_readers_load_in_transformers(family: str, corpus: Path, tmp_path: Path) -> None:
    write_directory(family, corpus, tmp_path / "model")
    tags = tmp_path / "train.conll"
    tags.write_text("the O\ncat B-X\nsees O\n\na O\ngreen I-X\ntree I-X\n\n" * 4, encoding="utf-8")
    options = {"model": str(tmp_path / "model"), "steps": 3, "batch_size": 4, "threads": 2}
    finetune(TagOptions(train=tags, out=tmp_path / "tagger", **options))
    question = {
        "question": "who sees the ball?",
        "context": "A small house. The cat sees the ball.",
        "answers": ["The cat"],
    }
    asked = tmp_path / "train.jsonl"
    asked.write_text((json.dumps(question) + "\n") * 6, encoding="utf-8")
    finetune(QaOptions(train=asked, out=tmp_path / "reader", **options))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "tagger")
    for name, kind in (
        ("tagger", transformers.AutoModelForTokenClassification),
        ("reader", transformers.AutoModelForQuestionAnswering),
    ):
        theirs, info = kind.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not info["missing_keys"], info
        with torch.no_grad():
            output = theirs.eval()(**tokenizer(TEXTS[0], return_tensors="pt"))
        expected = output.logits if name == "tagger" else torch.stack([output.start_logits, output.end_logits], -1)
        (logits,) = bertsmith.load(str(tmp_path / name)).logits([TEXTS[0]])
        np.testing.assert_allclose(logits, expected[0].numpy(), atol=1e-5)
    (answer,) = bertsmith.load(str(tmp_path / "reader")).predict(
        [question["context"]], questions=[question["question"]]
    )
    assert answer["answer"] == answer["answer"].strip()
    assert answer["answer"] == question["context"][answer["start"] : answer["end"]]


@pytest.mark.parametrize("family", ["roberta", "modernbert"])
def test_pretraining_goes_on_and_stays_a_family(family: str, corpus: Path, tmp_path: Path) -> None:
    from bertsmith.config.prepare import PrepareOptions
    from bertsmith.data.prepare import prepare

    write_directory(family, corpus, tmp_path / "model")
    prepare(PrepareOptions(files=(corpus,), tokenizer=tmp_path / "model", out=tmp_path / "shards"))
    pretrain(
        PretrainOptions(
            data=tmp_path / "shards", model=str(tmp_path / "model"), out=tmp_path / "out", objective="none",
            steps=3, batch_size=4, max_length=32, threads=2, masking="words",
        )
    )  # fmt: skip
    theirs, info = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert theirs.config.model_type == family
    assert not info["missing_keys"], info
    assert not info["unexpected_keys"], info


def test_a_head_of_modernbert_starts_from_the_pretrained_one(corpus: Path, tmp_path: Path) -> None:
    theirs = write_directory("modernbert", corpus, tmp_path / "model")
    bundle = load_bundle(tmp_path / "model")
    model, fresh = start_from(bundle, heads=("pooler", "classifier"), num_labels=3, config=bundle.model.config)
    assert fresh == ["classifier"]
    assert model.pooler is not None
    torch.testing.assert_close(model.pooler.dense.weight, theirs.head.dense.weight)
    torch.testing.assert_close(model.pooler.norm.weight, theirs.head.norm.weight)
    expected = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", num_labels=3)
    torch.testing.assert_close(model.pooler.dense.weight, expected.head.dense.weight)


def test_vocab_json_and_merges_make_roberta_s_tokenizer(corpus: Path, tmp_path: Path) -> None:
    write_directory("roberta", corpus, tmp_path / "model")
    pair = tmp_path / "pair"
    pair.mkdir()
    byte_level(corpus, specials=ROBERTA).model.save(str(pair))
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tmp_path / "model" / name, pair)
    (pair / "tokenizer_config.json").write_text('{"model_max_length": 64}', encoding="utf-8")
    ours, theirs = load_tokenizer(pair), transformers.RobertaTokenizer.from_pretrained(pair, mask_token=MASK)
    for text in [*TEXTS, "", "  two  spaces ", "a <mask> ball"]:
        assert ours.encode(text, allow_special=True).ids == theirs(text)["input_ids"]
        assert ours.encode(text, "a pair", allow_special=True).ids == theirs(text, "a pair")["input_ids"]
    assert ours.encode("a <mask> ball").ids != theirs("a <mask> ball")["input_ids"]
    ours.save(tmp_path / "saved")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again("the cat <mask>")["input_ids"] == theirs("the cat <mask>")["input_ids"]


def test_what_cannot_be_read_says_so(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "piece"
    out.mkdir()
    (out / "sentencepiece.bpe.model").write_bytes(b"x")
    with pytest.raises(InputError, match=r"sentencepiece\.bpe\.model alone cannot be read; let transformers save it"):
        load_tokenizer(out)
    (out / "vocab.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"is missing, vocab\.json stands beside it"):
        load_tokenizer(out)
    (out / "merges.txt").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="not in the vocabulary"):
        load_tokenizer(out)
    (out / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}', encoding="utf-8")
    with pytest.raises(InputError, match="has rules of its own"):
        load_tokenizer(out)


def test_a_model_with_one_segment_has_no_pairs_to_pretrain_on(corpus: Path, tmp_path: Path) -> None:
    from bertsmith.config.prepare import PrepareOptions
    from bertsmith.data.prepare import prepare

    write_directory("roberta", corpus, tmp_path / "model")
    prepare(PrepareOptions(files=(corpus,), tokenizer=tmp_path / "model", out=tmp_path / "shards"))
    with pytest.raises(InputError, match="one segment and cannot read pairs"):
        pretrain(
            PretrainOptions(
                data=tmp_path / "shards", model=str(tmp_path / "model"), out=tmp_path / "out", objective="nsp",
                steps=3, batch_size=4, max_length=32, threads=2,
            )
        )  # fmt: skip
