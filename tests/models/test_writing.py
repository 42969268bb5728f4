"""Properties of writing: cached as uncached, many rows as single ones, padding without effect."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.models import generate as generating
from bertsmith.models.generate import Search, generate, mean_probabilities
from bertsmith.models.seq2seq import CausalLM, Seq2Seq, Writing
from bertsmith.nn.cross_attention import Memory
from tests.parity.decoders import END, SHAPE, START, causal_pair, seq2seq_pair

VOCABULARY = SHAPE["vocab_size"]
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=5)
SEEDS = st.integers(0, 2**32)
TOLERANCE = {"atol": 1e-9, "rtol": 1e-9}


@cache
def reader() -> Seq2Seq:
    model = seq2seq_pair()[1]
    decide(model)
    return model


@cache
def alone() -> CausalLM:
    model = causal_pair()[1]
    decide(model)
    return model


@torch.no_grad()
def decide(model: CausalLM | Seq2Seq) -> None:
    """Let what was read decide what is written: with biases as they are drawn one token is the likeliest everywhere."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif "norm" in name:
            parameter.fill_(1.0)


def texts_of(lengths: Sequence[int], seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(4, VOCABULARY, size).tolist() for size in lengths]


def packed(texts: Sequence[Sequence[int]]) -> Batch:
    return Batch.from_sequences([np.array(text) for text in texts])


class Uncached(Writing):
    """Reads everything again at each step."""

    def __init__(self, model: CausalLM, memories: Sequence[Memory], *, rows: int, capacity: int) -> None:
        super().__init__(model, memories, rows=rows, capacity=capacity)
        self.texts: list[list[int]] = [[] for _ in range(rows)]

    def step(self, tokens: Tensor) -> Tensor:
        pairs = zip(self.texts, self.places.tolist(), tokens.tolist(), strict=True)
        self.texts = [[*text[:place], token] for text, place, token in pairs]
        self.places = self.places + 1
        batch = packed(self.texts)
        logits = self.model(batch, self.memories)[:, :VOCABULARY]
        return torch.stack([part[-1] for part in batch.split(logits)])

    def select(self, rows: Tensor) -> None:
        super().select(rows)
        self.texts = [self.texts[row] for row in rows.tolist()]


@settings(max_examples=30)
@given(lengths=LENGTHS, seed=SEEDS, with_source=st.booleans())
@torch.no_grad()
def test_a_cached_step_equals_the_whole_whatever_the_rows_have_and_wherever_they_go(
    lengths: list[int], seed: int, with_source: bool
) -> None:
    model = reader().writer if with_source else alone()
    memories = reader().read(packed(texts_of(lengths, seed + 1))) if with_source else []
    texts, rng = texts_of(lengths, seed), np.random.default_rng(seed)
    writings = [kind(model, memories, rows=len(lengths), capacity=20) for kind in (Writing, Uncached)]
    cached, uncached = (generating._read(writing, texts) for writing in writings)
    torch.testing.assert_close(cached, uncached, **TOLERANCE)
    for _ in range(4):
        chosen = torch.from_numpy(rng.integers(0, len(writings[0].places), rng.integers(1, 6)))
        tokens = torch.from_numpy(rng.integers(4, VOCABULARY, len(chosen)))
        for writing in writings:
            writing.select(chosen)  # rows leave, come twice, and change their order
        cached, uncached = (writing.step(tokens) for writing in writings)
        torch.testing.assert_close(cached, uncached, **TOLERANCE)


@settings(max_examples=30)
@given(
    lengths=LENGTHS,
    seed=SEEDS,
    with_source=st.booleans(),
    beams=st.integers(1, 4),
    options=st.sampled_from([{}, {"no_repeat_ngram": 1}, {"length_penalty": 0.3}, {"forced_first": 7}]),
)
def test_the_cache_and_the_neighbours_change_nothing_that_is_written(
    lengths: list[int], seed: int, with_source: bool, beams: int, options: dict[str, int]
) -> None:
    texts = texts_of(lengths, seed)
    search = Search(end=END, max_new_tokens=6, beams=beams, **options)
    model = reader().writer if with_source else alone()

    @torch.no_grad()
    def written(rows: list[list[int]]) -> list[list[int]]:
        if not with_source:
            return generate(model, rows, [], search)
        return generate(model, [[START]] * len(rows), reader().read(packed(rows)), search)

    together = written(texts)
    assert together == [written([text])[0] for text in texts]
    with mock.patch.object(generating, "Writing", Uncached):
        assert together == written(texts)


@pytest.mark.parametrize("beams", [1, 4])
def test_a_batch_of_32_is_32_single_runs(beams: int) -> None:
    lengths = np.random.default_rng(5).integers(1, 30, 32).tolist()
    sources, search = texts_of(lengths, 6), Search(end=END, max_new_tokens=12, beams=beams, no_repeat_ngram=1)
    with torch.no_grad():
        together = generate(reader().writer, [[START]] * 32, reader().read(packed(sources)), search)
        singles = [generate(reader().writer, [[START]], reader().read(packed([one])), search)[0] for one in sources]
    assert together == singles
    assert len({tuple(ids) for ids in together}) > 8


@settings(max_examples=30)
@given(sources=LENGTHS, seed=SEEDS, data=st.data())
def test_padding_of_targets_gives_no_nan_and_changes_nothing(
    sources: list[int], seed: int, data: st.DataObject
) -> None:
    targets = data.draw(st.lists(st.integers(1, 9), min_size=len(sources), max_size=len(sources)))
    model, ids = reader(), texts_of(targets, seed + 1)
    mask = torch.arange(max(targets)) < torch.tensor(targets)[:, None]
    dense = torch.full(mask.shape, int(np.random.default_rng(seed).integers(0, VOCABULARY)))  # what padding holds
    dense[mask] = torch.tensor([token for text in ids for token in text])
    model.zero_grad()
    source = packed(texts_of(sources, seed))
    logits = model(source, Batch.from_dense(dense, mask.long()))[:, :VOCABULARY]
    logits.log_softmax(-1).sum().backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    with torch.no_grad():
        parts = [
            model(packed([one]), packed([text]))[:, :VOCABULARY]
            for one, text in zip(texts_of(sources, seed), ids, strict=True)
        ]
    torch.testing.assert_close(logits.detach(), torch.cat(parts), **TOLERANCE)


@settings(max_examples=30)
@given(lengths=LENGTHS, seed=SEEDS, beams=st.integers(1, 3))
@torch.no_grad()
def test_scores_are_the_mean_probabilities_of_what_was_written(lengths: list[int], seed: int, beams: int) -> None:
    model, texts = alone(), texts_of(lengths, seed)
    search = Search(end=END, max_new_tokens=5, beams=beams)
    written = generate(model, texts, [], search)
    scores = mean_probabilities(model, texts, [], written, search)
    for text, ids, score in zip(texts, written, scores, strict=True):
        whole = [*text, *ids, *([END] if len(ids) < 5 else [])]
        chances = model(packed([whole[:-1]]))[:, :VOCABULARY].softmax(-1)
        own = [float(chances[i - 1, whole[i]]) for i in range(len(text), len(whole))]
        assert score == pytest.approx(float(np.prod(own)) ** (1 / len(own)), rel=1e-4)
