"""Small models of transformers, saved with a tokenizer, and what equal outputs are."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import transformers
from torch import Tensor

from bertsmith.models.bert import Bert
from tests.parity.heads import our_logits, run_theirs, their_logits
from tests.parity.reference import SHAPE, dense_input, packed, redraw

State = dict[str, Tensor]


def vocabulary_size(tokenizer_dir: Path) -> int:
    return len((tokenizer_dir / "vocab.txt").read_text().splitlines())


def their_model(name: str, tokenizer_dir: Path, **changes: object) -> transformers.PreTrainedModel:
    shape = SHAPE | {"vocab_size": vocabulary_size(tokenizer_dir)} | changes
    labels = {} if name == "BertForQuestionAnswering" else {"num_labels": 5}
    model = getattr(transformers, name)(transformers.BertConfig(**(labels | shape))).eval()
    redraw(model)
    return model


def save(model: transformers.PreTrainedModel, tokenizer_dir: Path, directory: Path, **options: object) -> Path:
    model.save_pretrained(directory, **options)
    for file in tokenizer_dir.glob("*token*.json"):
        shutil.copy(file, directory)
    shutil.copy(tokenizer_dir / "vocab.txt", directory)
    return directory


def inputs(size: int) -> tuple[Tensor, Tensor, Tensor]:
    ids, mask, types = dense_input()
    return ids.clamp(max=size - 1), mask, types


def assert_equal_outputs(name: str, theirs: transformers.PreTrainedModel, ours: Bert) -> None:
    ids, mask, types = inputs(theirs.config.vocab_size)
    with torch.no_grad():
        expected = their_logits(name, run_theirs(name, theirs, ids, mask, types), mask.bool())
        found = our_logits(ours, packed(ids, mask, types))
    assert found.keys() == expected.keys()
    for key, values in found.items():
        allowed = 1e-5 * expected[key].abs().clamp(min=1)
        assert ((values - expected[key]).abs() <= allowed).all(), key
