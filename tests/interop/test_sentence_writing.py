"""Embedders that we write: sentence-transformers loads them with equal vectors, and we load them as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import bertsmith
from bertsmith.bundle import load_bundle, write_bundle
from bertsmith.card import Card
from bertsmith.errors import InputError
from bertsmith.files import read_manifest
from bertsmith.models.pooling import Projection
from bertsmith.models.sentence import SentenceModules
from tests.interop.sentence_models import (
    HIDDEN,
    PROMPTS,
    TEXTS,
    assert_equal_vectors,
    bert_directory,
    change,
    theirs,
)


def projection(inputs: int, outputs: int, activation: str | None, *, bias: bool = True) -> Projection:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(outputs, inputs, generator=generator) * 0.3
    return Projection(weight, torch.randn(outputs, generator=generator) if bias else None, activation)


MODULES = {
    **{kind: SentenceModules(pooling=(kind,)) for kind in ("cls", "mean", "max", "weighted")},
    "plain": SentenceModules(),
    "two poolings": SentenceModules(pooling=("cls", "mean"), normalize=True),
    "all poolings": SentenceModules(pooling=("cls", "max", "mean", "weighted")),
    "another order": SentenceModules(pooling=("weighted", "cls")),
    "one pooling twice": SentenceModules(pooling=("mean", "mean")),
    "dense": SentenceModules(pooling=("cls",), dense=(projection(HIDDEN, 12, "tanh"),), normalize=True),
    "two dense": SentenceModules(
        pooling=("cls", "mean"),
        dense=(projection(2 * HIDDEN, 9, "gelu"), projection(9, 4, None, bias=False)),
    ),
    "cut": SentenceModules(max_seq_length=7, normalize=True),
    "lower-cased": SentenceModules(do_lower_case=True),
    "prompts": SentenceModules(prompts=PROMPTS, default_prompt_name="passage", similarity="dot"),
    "first numbers": SentenceModules(truncate_dim=6, normalize=True, similarity="euclidean"),
}


def write(bert: Path, out: Path, modules: SentenceModules) -> None:
    source = load_bundle(bert)
    card = Card(title="an embedder", origin="Made by a test.", data="none")
    out.mkdir()
    write_bundle(out, source.model, source.tokenizer, task={"name": None}, provenance={}, card=card, sentence=modules)


@pytest.mark.parametrize("case", MODULES)
def test_what_we_write_loads_there_with_equal_vectors_and_here_as_it_was(
    case: str, tokenizer_dir: Path, tmp_path: Path
) -> None:
    out, modules = tmp_path / "model", MODULES[case]
    write(bert_directory(tmp_path / "bert", tokenizer_dir, lowercase=case != "lower-cased"), out, modules)
    ours, model = bertsmith.load(out, device="cpu"), theirs(out)
    assert_equal_vectors(ours.embed(TEXTS), model.encode(TEXTS))
    assert model.similarity_fn_name == (modules.similarity or "cosine")
    read = ours.bundle.sentence
    assert read is not None
    for name in SentenceModules.__dataclass_fields__:
        if name != "dense":
            assert getattr(read, name) == getattr(modules, name), name
    for one, other in zip(read.dense, modules.dense, strict=True):
        assert torch.equal(one.weight, other.weight)
        assert one.activation == other.activation


def test_a_written_directory_lists_its_files_and_its_card_tells_how_to_load_it(bert: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    write(bert, out, MODULES["dense"])
    listed = read_manifest(out, kind="model")["files"]
    names = {"modules.json", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"}
    assert names <= listed.keys()
    card = (out / "README.md").read_text(encoding="utf-8")
    assert 'model.embed(["a text"])' in card
    assert 'SentenceTransformer("DIR")' in card
    assert "not trained for" not in card
    change(out / "1_Pooling/config.json", lambda content: content.update(pooling_mode_max_tokens=True))
    with pytest.raises(InputError, match=r"1_Pooling/config\.json"):
        bertsmith.load(out)


def test_files_are_those_of_version_2_wherever_they_can_say_it(bert: Path, tmp_path: Path) -> None:
    write(bert, tmp_path / "model", MODULES["dense"])
    entries = json.loads((tmp_path / "model/modules.json").read_text())
    assert [(entry["type"], entry["path"]) for entry in entries] == [
        ("sentence_transformers.models.Transformer", ""),
        ("sentence_transformers.models.Pooling", "1_Pooling"),
        ("sentence_transformers.models.Dense", "2_Dense"),
        ("sentence_transformers.models.Normalize", "3_Normalize"),
    ]
    assert json.loads((tmp_path / "model/1_Pooling/config.json").read_text()) == {
        "word_embedding_dimension": HIDDEN,
        "pooling_mode_cls_token": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    assert not (tmp_path / "model/3_Normalize").exists()
