"""The table of `bertsmith show` of an encoder-decoder, against the file, a run's FLOPs, and what autograd keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bertsmith.anatomy import Work, total
from bertsmith.anatomy_seq2seq import seq2seq_anatomy, seq2seq_symbols
from bertsmith.config.decoder import DecoderConfig
from bertsmith.config.encoder import EncoderConfig
from bertsmith.models.seq2seq import Seq2Seq
from bertsmith.presets import LAYOUTS, WRITING
from bertsmith.tasks.base import Encoded
from bertsmith.tasks.seq2seq import Seq2SeqTask, targets_of
from bertsmith.train.seq2seq import finetune_seq2seq
from tests.autograd import kept_by_autograd
from tests.cli.run import assert_refused, bertsmith
from tests.picture import Picture
from tests.test_anatomy import SHAPE
from tests.train.test_seq2seq import toy

ORIGINAL = LAYOUTS["original"] | WRITING["original"]
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "two BERTs": ({}, {}),
    "shared halves": ({}, {"shared": "halves"}),
    "shared tokens": ({}, {"shared": "tokens"}),
    "original": (ORIGINAL, ORIGINAL),
    "original, tied": (ORIGINAL, ORIGINAL | {"tie_word_embeddings": True, "shared": "tokens"}),
    "original, shared": (ORIGINAL, ORIGINAL | {"shared": "halves"}),
    "two vocabularies": ({}, {"vocab_size": 257, "tie_word_embeddings": False}),
    "a wide encoder": ({"hidden_size": 60, "num_hidden_layers": 1}, {}),
    "pre-norm": ({"norm_position": "pre"}, {"norm_position": "pre"}),
}
SIZES = [(3, 24), (1, 64), (8, 5)]

every_model = pytest.mark.parametrize("name", MODELS)
every_size = pytest.mark.parametrize("size", SIZES, ids=str)


def make(name: str) -> Seq2Seq:
    encoder, decoder = MODELS[name]
    torch.manual_seed(0)
    return Seq2Seq(EncoderConfig(**(SHAPE | encoder)), DecoderConfig(**(SHAPE | decoder)))


def batch_of(work: Work) -> Any:
    ids = np.arange(1, work.length + 1)
    label = np.arange(1, work.length + 2)
    encoded = Encoded((ids,), (np.zeros_like(ids),), 0, label)
    return Seq2SeqTask(64, 64).collate([encoded] * work.batch_size)


@every_model
def test_parameters_are_those_of_the_model(name: str) -> None:
    model = make(name)
    parts = seq2seq_anatomy(model, Work(2, 9))
    assert total(parts).parameters == model.num_parameters
    cross = sum(p.numel() for n, p in model.named_parameters() if ".cross" in n)
    assert sum(part.parameters for part in parts if part.part.endswith("of the source")) == cross


@every_model
@every_size
def test_flops_are_those_that_a_run_reports(name: str, size: tuple[int, int]) -> None:
    model, work = make(name), Work(*size)
    wanted = Seq2SeqTask(64, 64).flops(model, batch_of(work))
    projected = 0 if model.project is None else 2 * work.tokens * model.project.weight.numel()
    assert total(seq2seq_anatomy(model, work)).flops == wanted + projected


@every_model
@every_size
def test_activations_are_those_that_autograd_keeps(name: str, size: tuple[int, int]) -> None:
    model, work = make(name).train(), Work(*size)
    batch = batch_of(work)
    found = kept_by_autograd(
        model,
        lambda: nn.functional.cross_entropy(model(batch, targets_of(batch)), batch.labels["target_labels"]),
    )
    assert sum(part.activation_values for part in seq2seq_anatomy(model, work)) == found


def test_letters_of_a_decoder_of_another_shape_have_a_stroke() -> None:
    assert seq2seq_symbols(make("two vocabularies"), Work(2, 9))["V′"] == 257
    assert "V′" not in seq2seq_symbols(make("original"), Work(2, 9))
    assert seq2seq_symbols(make("a wide encoder"), Work(2, 9)) | {"D′": 48, "L′": 3, "D": 60, "L": 1} == (
        seq2seq_symbols(make("a wide encoder"), Work(2, 9))
    )


def test_show_reads_a_trained_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = finetune_seq2seq(toy(tmp_path, steps=1, layout="original", tie_embeddings="all"))
    outcome = bertsmith(capsys, "show", tmp_path / "model", "--json")
    assert outcome.code == 0, outcome.err
    shown = json.loads(outcome.out)
    assert shown["total"]["parameters"] == report["parameters"]
    assert shown["length"] == 16
    assert [part for part in shown["parts"] if part["part"].endswith(" decoder") and part["parameters"]]
    assert "decoder: query of the source" in bertsmith(capsys, "show", tmp_path / "model").out
    assert_refused(bertsmith(capsys, "show", tmp_path / "model", "--length", 17), "the model has 16 positions")
    svg = tmp_path / "model.svg"
    assert bertsmith(capsys, "show", tmp_path / "model", "--svg", svg).code == 0
    assert "Sinusoidal positions" in Picture(svg.read_text(encoding="utf-8")).titles
