"""The network over padded rows says what it says over packed ones: what every graph is traced from, in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.batch import Batch
from bertsmith.bundle import load_bundle
from bertsmith.export.answers import KINDS, EncoderGraph, kind_of
from bertsmith.export.decoders import CausalGraph, FirstStep, NextStep, ReaderGraph
from bertsmith.models.pooling import POOLINGS
from bertsmith.models.sentence import SentenceModules
from tests.export.test_answers import KINDS as SUFFIXES
from tests.parity.decoders import causal_pair, seq2seq_pair
from tests.parity.families import CASES, inputs_of, our_model, their_model
from tests.parity.reference import SHAPE, pair

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def assert_equal_answers(graph: EncoderGraph, batch: Batch, inputs: tuple[torch.Tensor, ...]) -> None:
    mask = inputs[1]
    with torch.inference_mode():
        expected = graph.packed(batch)
        if graph.has_choices:  # all rows as the choices of one question
            found = {name: values[0] for name, values in graph.answers(*(part[None] for part in inputs)).items()}
        else:
            found = graph.answers(*inputs)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        kept = values[mask.bool()] if name in graph.kind.per_token else values
        torch.testing.assert_close(kept, expected[name], **EXACT)


@pytest.mark.parametrize(("family", "suffix"), CASES)
def test_every_family_and_head(family: str, suffix: str) -> None:
    graph = EncoderGraph(our_model(their_model(family, suffix)), SUFFIXES[suffix], SentenceModules())
    inputs = inputs_of(family)
    assert_equal_answers(graph, Batch.from_dense(*inputs), inputs)


@pytest.mark.parametrize("kind", POOLINGS)
@settings(max_examples=10)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_every_pooling_of_rows_of_any_lengths(kind: str, lengths: list[int], seed: int) -> None:
    _, ours = pair("BertModel", num_hidden_layers=1)
    graph = EncoderGraph(ours, "embed", SentenceModules((kind,), normalize=True))
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, SHAPE["vocab_size"], (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    inputs = (ids, mask, ids % 2)
    assert_equal_answers(graph, Batch.from_dense(*inputs), inputs)


def test_a_decoder_alone_with_a_past() -> None:
    _, ours = causal_pair()
    ids = torch.randint(0, SHAPE["vocab_size"], (3, 9), generator=torch.Generator().manual_seed(0))
    expected = ours(Batch.from_dense(ids))[:, : ours.config.vocab_size].unflatten(0, ids.shape)
    graph = CausalGraph(ours)
    past = [torch.zeros(3, 4, 0, 8, dtype=torch.float64)] * 4
    for start, end in ((0, 5), (5, 6), (6, 9)):
        logits, *past = graph(ids[:, start:end], torch.ones(3, end), past)
        torch.testing.assert_close(logits[..., : ours.config.vocab_size], expected[:, start:end], **EXACT)


@pytest.mark.parametrize("encoder_size", [32, 48])
def test_an_encoder_decoder_with_a_past(encoder_size: int) -> None:
    _, ours = seq2seq_pair(encoder_size=encoder_size)
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randint(0, SHAPE["vocab_size"], (3, size), generator=generator) for size in (7, 6))
    mask = (torch.arange(7) < torch.tensor([[7], [2], [5]])).long()
    size = ours.writer.config.vocab_size
    expected = ours(Batch.from_dense(source, mask), Batch.from_dense(target))[:, :size].unflatten(0, target.shape)
    states = ReaderGraph(ours)(source, mask)
    logits, *present = FirstStep(ours)(target[:, :3], mask, states)
    torch.testing.assert_close(logits[..., :size], expected[:, :3], **EXACT)
    for start, end in ((3, 4), (4, 6)):
        logits, *own = NextStep(ours)(target[:, start:end], mask, present)
        torch.testing.assert_close(logits[..., :size], expected[:, start:end], **EXACT)
        for layer in range(ours.writer.config.num_hidden_layers):
            present[4 * layer : 4 * layer + 2] = own[2 * layer : 2 * layer + 2]


def test_what_a_model_is_for(classifier_dir: Path, encoder_dir: Path) -> None:
    assert kind_of(load_bundle(classifier_dir)) == "classify"
    assert kind_of(load_bundle(encoder_dir)) == "fill-mask"
    assert {kind_of(load_bundle(encoder_dir), wanted) for wanted in ("embed", "encode")} == {"embed", "encode"}
    assert set(SUFFIXES.values()) | {"rerank", "embed"} == KINDS.keys()
