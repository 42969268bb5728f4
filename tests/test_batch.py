from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.batch import Batch
from bertsmith.errors import InputError
from bertsmith.nn.attention import ReferenceAttention, packed_attention

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=8)


@given(LENGTHS)
def test_packing_keeps_order_positions_and_borders(lengths: list[int]) -> None:
    sequences = [np.arange(length) + 100 * i for i, length in enumerate(lengths)]
    batch = Batch.from_sequences(sequences)
    assert batch.total == sum(lengths)
    assert batch.max_seqlen == max(lengths)
    assert batch.cu_seqlens.tolist() == [0, *np.cumsum(lengths).tolist()]
    for part, positions, sequence in zip(
        batch.split(batch.input_ids), batch.split(batch.position_ids), sequences, strict=True
    ):
        assert part.tolist() == sequence.tolist()
        assert positions.tolist() == list(range(len(sequence)))
    assert batch.input_ids[batch.first_positions].tolist() == [100 * i for i in range(len(lengths))]


@settings(max_examples=60)
@given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_the_fast_path_equals_the_formula_for_any_lengths(lengths: list[int], seed: int) -> None:
    batch = Batch.from_sequences([np.zeros(length, np.int64) for length in lengths])
    torch.manual_seed(seed)
    qkv = torch.randn(batch.total, 3, 2, 4).unbind(1)
    torch.testing.assert_close(packed_attention(*qkv, batch, 0.0), ReferenceAttention()(*qkv, batch, 0.0))


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 9), min_size=2, max_size=6), seed=st.integers(0, 99))
def test_no_attention_crosses_a_border(lengths: list[int], seed: int) -> None:
    """Changing one sequence leaves the context of all others bitwise as it was."""
    batch = Batch.from_sequences([np.zeros(length, np.int64) for length in lengths])
    torch.manual_seed(seed)
    qkv = torch.randn(batch.total, 3, 2, 4)
    changed = qkv.clone()
    changed[: lengths[0]] += 1
    before, after = (packed_attention(*x.unbind(1), batch, 0.0)[lengths[0] :] for x in (qkv, changed))
    assert torch.equal(before, after)


def test_dense_input_is_checked() -> None:
    ids = torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(InputError, match=r"must be \[batch, seq\]"):
        Batch.from_dense(ids[0])
    with pytest.raises(InputError, match="attention_mask is"):
        Batch.from_dense(ids, ids[:, :2])
    with pytest.raises(InputError, match="row 1 of attention_mask has no token"):
        Batch.from_dense(ids, torch.tensor([[1, 1, 0], [0, 0, 0]]))


def test_an_empty_sequence_or_batch_is_refused() -> None:
    for sequences in ([], [np.array([1]), np.array([], np.int64)]):
        with pytest.raises(ValueError, match="at least one"):
            Batch.from_sequences(sequences)
