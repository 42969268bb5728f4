"""Directories of a `CrossEncoder`: equal scores whatever its activation and length, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import CrossEncoder
from torch import nn

import bertsmith
from bertsmith.errors import InputError
from tests.interop.sentence_models import LONG, bert_directory, change

PAIRS = [("a cat", "the cat sees a red ball."), (LONG, "a dog"), ("a dog", LONG), (LONG, LONG), ("", "a")]
IDENTITY = "torch.nn.modules.linear.Identity"


@pytest.fixture(scope="module")
def classifier(tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_directory(tmp_path_factory.mktemp("cross") / "classifier", tokenizer_dir, outputs=1)


def theirs(directory: Path, **arguments: Any) -> CrossEncoder:
    return CrossEncoder(str(directory), device="cpu", local_files_only=True, **arguments)


def saved(classifier: Path, out: Path, **arguments: Any) -> Path:
    theirs(classifier, **arguments).save_pretrained(str(out))
    return out


def assert_equal_scores(directory: Path) -> None:
    """Of `PAIRS`, which are longer than any model here reads."""
    texts, pairs = (list(column) for column in zip(*PAIRS, strict=True))
    ours = [answer["score"] for answer in bertsmith.load(directory, device="cpu").predict(texts, pairs=pairs)]
    np.testing.assert_allclose(ours, theirs(directory).predict(PAIRS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [None, 23, 24])
@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.Identity(), None])
def test_scores_are_equal(activation: nn.Module | None, length: int | None, classifier: Path, tmp_path: Path) -> None:
    directory = saved(classifier, tmp_path / "model", activation_fn=activation, max_length=length)
    assert_equal_scores(directory)
    kind = "classify" if isinstance(activation, nn.Identity) else "rerank"
    assert bertsmith.load(directory, device="cpu").bundle.task["name"] == kind


@pytest.mark.parametrize(
    "values",
    [{"sentence_transformers": {"activation_fn": IDENTITY}}, {"sbert_ce_default_activation_function": IDENTITY}],
)
def test_older_versions_name_the_activation_in_config_json(
    values: dict[str, Any], classifier: Path, tmp_path: Path
) -> None:
    directory = saved(classifier, tmp_path / "model")
    for name in ("config_sentence_transformers.json", "modules.json", "sentence_bert_config.json"):
        (directory / name).unlink()
    change(directory / "config.json", lambda content: content.update(values))
    assert_equal_scores(directory)


def test_the_limit_of_the_module_counts_more_than_the_tokenizer_s(classifier: Path, tmp_path: Path) -> None:
    directory = saved(classifier, tmp_path / "model", max_length=40)
    change(directory / "sentence_bert_config.json", lambda content: content.update(max_seq_length=15))
    assert theirs(directory).max_seq_length == 15
    assert_equal_scores(directory)


def test_one_with_several_outputs_cuts_too(tokenizer_dir: Path, tmp_path: Path) -> None:
    bert_directory(tmp_path / "classifier", tokenizer_dir, outputs=3)
    directory = saved(tmp_path / "classifier", tmp_path / "model", max_length=20)
    expected = theirs(directory).predict(PAIRS, apply_softmax=True)
    texts, pairs = (list(column) for column in zip(*PAIRS, strict=True))
    found = bertsmith.load(directory, device="cpu").predict(texts, pairs=pairs)
    assert [answer["label"] for answer in found] == [f"LABEL_{i}" for i in expected.argmax(1)]
    np.testing.assert_allclose([answer["score"] for answer in found], expected.max(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "file", "values", "message"),
    [
        (
            {"activation_fn": nn.Tanh()},
            "config.json",
            {},
            r'field "activation_fn": unknown activation .*Tanh.*Identity',
        ),
        (
            {"prompts": {"q": "a "}, "default_prompt_name": "q"},
            "config.json",
            {},
            'field "default_prompt_name": no prompt',
        ),
        ({}, "sentence_bert_config.json", {"do_lower_case": True}, r'bert_config.json: field "do_lower_case"'),
    ],
)
def test_what_is_not_computed_here_is_refused(
    arguments: dict[str, Any], file: str, values: dict[str, Any], message: str, classifier: Path, tmp_path: Path
) -> None:
    directory = saved(classifier, tmp_path / "model", **arguments)
    change(directory / file, lambda content: content.update(values))
    with pytest.raises(InputError, match=message):
        bertsmith.load(directory, device="cpu")


def test_a_prompt_that_is_not_the_default_has_no_effect(classifier: Path, tmp_path: Path) -> None:
    assert_equal_scores(saved(classifier, tmp_path / "model", prompts={"q": "a "}))


@pytest.mark.parametrize("segments", [1, 2])
def test_a_tokenizer_that_leaves_types_out_gives_none(segments: int, tokenizer_dir: Path, tmp_path: Path) -> None:
    """transformers then feeds zeros, so that a model with one segment reads pairs."""
    directory = bert_directory(tmp_path / "model", tokenizer_dir, outputs=3, type_vocab_size=segments)
    pair = ("a cat", "the cat sees a red ball.")
    config = directory / "tokenizer_config.json"
    change(config, lambda content: content.update(model_input_names=["input_ids", "attention_mask"]))
    inputs = transformers.AutoTokenizer.from_pretrained(directory)(*pair, return_tensors="pt")
    assert "token_type_ids" not in inputs
    model = transformers.AutoModelForSequenceClassification.from_pretrained(directory).eval()
    with torch.no_grad():
        expected = float(model(**inputs).logits.softmax(-1).max())
    (answer,) = bertsmith.load(directory, device="cpu").predict([pair[0]], pairs=[pair[1]])
    assert answer["score"] == pytest.approx(expected, abs=1e-5)
