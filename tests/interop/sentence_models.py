"""Small models of sentence-transformers, saved by it, the texts they embed, and what equal vectors are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from torch import nn

from tests.parity.reference import SHAPE, redraw

LONG = " ".join(["the old man paints a small house near the river"] * 12)
TEXTS = ["the cat sees a red ball.", "", "a dog", "ONE FISH Paints the blue sky!", "the 🐟 likes 人民", LONG, "a dog"]
HIDDEN = SHAPE["hidden_size"]
PROMPTS = {"query": "the cat likes ", "passage": "A dog: "}


def bert_directory(
    out: Path, tokenizer_dir: Path, *, lowercase: bool = True, outputs: int | None = None, **changes: Any
) -> Path:
    """A random BERT of transformers with a tokenizer of 64 tokens; with `outputs` a classifier."""
    shutil.copytree(tokenizer_dir, out)
    vocabulary = len((tokenizer_dir / "vocab.txt").read_text().splitlines())
    shape = SHAPE | {"vocab_size": vocabulary, "max_position_embeddings": 64} | changes
    kind = transformers.BertModel if outputs is None else transformers.BertForSequenceClassification
    model = kind(transformers.BertConfig(**shape | ({} if outputs is None else {"num_labels": outputs})))
    redraw(model)
    model.save_pretrained(out)
    if not lowercase:
        change(out / "tokenizer.json", lambda content: content["normalizer"].update(lowercase=False))
        change(out / "tokenizer_config.json", lambda content: content.update(do_lower_case=False))
    (out / "bertsmith.json").unlink()
    return out


def change(file: Path, edit: Callable[[Any], Any]) -> None:
    """Edit a JSON file in place; what `edit` returns, unless None, takes the place of the content."""
    content = json.loads(file.read_text(encoding="utf-8"))
    result = edit(content)
    file.write_text(json.dumps(content if result is None else result), encoding="utf-8")


def theirs(directory: Path, **arguments: Any) -> SentenceTransformer:
    return SentenceTransformer(str(directory), device="cpu", local_files_only=True, **arguments)


def saved(bert: Path, out: Path, *modules: nn.Module, **arguments: Any) -> SentenceTransformer:
    """A model of sentence-transformers on top of `bert`, saved by it into `out`."""
    model = SentenceTransformer(modules=[Transformer(str(bert)), *modules], device="cpu", **arguments)
    redraw(nn.ModuleList(modules))
    model.save(str(out), create_model_card=False)
    return model


def assert_equal_vectors(ours: np.ndarray, reference: np.ndarray) -> None:
    assert ours.dtype == np.float32
    assert ours.shape == reference.shape
    np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-5)


def dense(inputs: int, outputs: int, activation: nn.Module, **arguments: Any) -> Dense:
    return Dense(inputs, outputs, activation_function=activation, **arguments)
