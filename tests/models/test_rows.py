"""The last block computes the rows that a head reads: the same numbers and gradients as the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertsmith.batch import Batch
from bertsmith.config.encoder import EncoderConfig
from bertsmith.models.bert import Bert
from bertsmith.models.encoder import Encoder
from bertsmith.models.flops import encoder_flops

SHAPE = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
AXES = {
    "post": {},
    "pre": {"norm_position": "pre", "feedforward_kind": "gated", "position_kind": "rotary"},
    "mean": {"pooler_input": "mean"},
}


def batch_of(*lengths: int) -> Batch:
    draw = np.random.default_rng(0)
    return Batch.from_sequences([draw.integers(1, 90, n) for n in lengths])


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("checkpointed", [False, True])
def test_rows_are_those_of_the_whole_and_so_are_the_gradients(axis: str, checkpointed: bool) -> None:
    torch.manual_seed(1)
    encoder = Encoder(EncoderConfig(**SHAPE, **AXES[axis])).double()
    encoder.gradient_checkpointing = checkpointed
    batch, rows = batch_of(5, 5, 9), torch.tensor([0, 5, 10, 3, 18])
    whole = encoder(batch)[rows]
    some = encoder(batch, rows=rows)
    torch.testing.assert_close(some, whole)
    weights = torch.randn_like(whole)
    parameters = list(encoder.parameters())
    pairs = (torch.autograd.grad((states * weights).sum(), parameters, allow_unused=True) for states in (whole, some))
    for expected, found in zip(*pairs, strict=True):
        assert (expected is None) == (found is None)
        if expected is not None:
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("axis", AXES)
def test_heads_read_what_they_would_from_all_states(axis: str) -> None:
    torch.manual_seed(2)
    model = Bert(EncoderConfig(**SHAPE, **AXES[axis]), heads=("classifier",), num_labels=3).double().eval()
    batch, positions = batch_of(4, 7), torch.tensor([2, 6, 10])
    with torch.no_grad():
        states = model.encoder(batch)
        torch.testing.assert_close(model.pooled(batch), model.pool(states, batch))
        pooled, selected = model.pooled_and_selected(batch, positions)
    torch.testing.assert_close(pooled, model.pool(states, batch))
    torch.testing.assert_close(selected, states[positions])


def test_work_that_is_not_done_is_not_counted() -> None:
    config = EncoderConfig(**SHAPE)
    lengths, hidden, inner = (5, 9), 32, 48
    saved = (14 - 2) * (2 * hidden * hidden + 4 * hidden * inner)
    assert encoder_flops(config, lengths) - encoder_flops(config, lengths, rows=2) == saved
