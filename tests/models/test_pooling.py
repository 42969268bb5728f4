"""Pooling of a packed batch equals the formula, text by text, and so do its gradients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.models.pooling import POOLINGS, Projection, pool

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=8)
KIND = pytest.mark.parametrize("kind", POOLINGS)
FORMULAS = {
    "cls": lambda part: part[0],
    "mean": lambda part: part.sum(0) / len(part),
    "max": lambda part: part.max(0).values,
    "weighted": lambda part: sum((i + 1) * row for i, row in enumerate(part)) / sum(range(1, len(part) + 1)),
}


def packed(lengths: list[int], *, seed: int) -> tuple[Tensor, Batch]:
    batch = Batch.from_sequences([np.zeros(length, np.int64) for length in lengths])
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch.total, 5, generator=generator, dtype=torch.float64), batch


def test_every_pooling_has_a_formula_here() -> None:
    assert FORMULAS.keys() == POOLINGS.keys()


@KIND
@settings(max_examples=40)
@given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_pooling_a_packed_batch_equals_the_formula_for_each_sequence(kind: str, lengths: list[int], seed: int) -> None:
    states, batch = packed(lengths, seed=seed)
    expected = torch.stack([FORMULAS[kind](part) for part in batch.split(states)])
    torch.testing.assert_close(pool(states, batch, kinds=(kind,)), expected)


@KIND
@settings(max_examples=30)
@given(lengths=LENGTHS, seed=st.integers(0, 99), data=st.data())
def test_reordered_sequences_give_reordered_vectors(kind: str, lengths: list[int], seed: int, data) -> None:
    order = data.draw(st.permutations(range(len(lengths))))
    states, batch = packed(lengths, seed=seed)
    parts = batch.split(states)
    moved = Batch.from_sequences([np.zeros(lengths[i], np.int64) for i in order])
    vectors = pool(torch.cat([parts[i] for i in order]), moved, kinds=(kind,))
    torch.testing.assert_close(vectors, pool(states, batch, kinds=(kind,))[order])


@KIND
@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_gradients_of_pooling_are_those_of_finite_differences(kind: str, lengths: list[int], seed: int) -> None:
    states, batch = packed(lengths, seed=seed)
    assert torch.autograd.gradcheck(lambda values: pool(values, batch, kinds=(kind,)), states.requires_grad_())


@KIND
def test_no_gradient_reaches_the_tokens_of_another_sequence(kind: str) -> None:
    states, batch = packed([3, 1, 4], seed=0)
    states.requires_grad_()
    pool(states, batch, kinds=(kind,))[2].sum().backward()
    assert states.grad is not None
    assert (states.grad[:4] == 0).all()
    assert (states.grad[4:] != 0).any()


@pytest.mark.parametrize("kinds", list(itertools.permutations(POOLINGS, 2)))
def test_several_poolings_stand_end_to_end_in_the_order_given(kinds: tuple[str, ...]) -> None:
    states, batch = packed([3, 1, 4], seed=0)
    vectors = pool(states, batch, kinds=kinds)
    assert vectors.shape == (3, 10)
    for i, kind in enumerate(kinds):
        assert torch.equal(vectors[:, 5 * i : 5 * i + 5], pool(states, batch, kinds=(kind,)))


def test_a_projection_is_a_linear_map_and_then_its_activation() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, weight, bias = (torch.randn(shape, generator=generator) for shape in ((4, 5), (3, 5), (3,)))
    linear = vectors @ weight.T
    torch.testing.assert_close(Projection(weight, None, None)(vectors), linear)
    torch.testing.assert_close(Projection(weight, bias, "tanh")(vectors), (linear + bias).tanh())
    torch.testing.assert_close(Projection(weight, bias, "relu")(vectors), (linear + bias).clamp(min=0))
