"""Resizing, pruning, restoring, freezing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bertsmith.config.encoder import EncoderConfig
from bertsmith.models.bert import Bert
from bertsmith.models.surgery import freeze, prune_heads, resize_vocabulary, restore_heads, take_layers
from tests.parity.heads import our_logits
from tests.parity.reference import SHAPE, dense_input, packed, redraw

HEADS = ("pooler", "masked_lm", "next_sentence")
LAYERS, NUMBER = SHAPE["num_hidden_layers"], SHAPE["num_attention_heads"]


def model(**changes: object) -> Bert:
    built = Bert(EncoderConfig(**SHAPE | changes), heads=HEADS).double().eval()
    redraw(built)
    return built


def head_mask(gone: dict[int, list[int]]) -> torch.Tensor:
    mask = torch.ones(LAYERS, NUMBER)
    for layer, heads in gone.items():
        mask[layer, heads] = 0
    return mask


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float = 1e-9) -> None:
    for key, values in one.items():
        torch.testing.assert_close(values, other[key], rtol=tolerance, atol=tolerance)


gone_heads = st.dictionaries(
    st.integers(0, LAYERS - 1), st.lists(st.integers(0, NUMBER - 1), min_size=1, max_size=NUMBER - 1, unique=True)
)


MODERN = {"attention_bias": False, "mlp_bias": False, "position_kind": "rotary", "feedforward_kind": "gated"}


@settings(max_examples=25)
@given(gone=gone_heads, sizes=st.sampled_from([{}, {"attention_head_size": 5, "value_head_size": 3}, MODERN]))
def test_pruned_masked_and_restored_heads_give_the_same_outputs(
    gone: dict[int, list[int]], sizes: dict[str, Any]
) -> None:
    full, batch = model(**sizes), packed(*dense_input())
    masked = our_logits(full, batch, head_mask=head_mask(gone))
    pruned = prune_heads(full, gone)
    assert_same(our_logits(pruned, batch), masked)
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in full.parameters()) or not gone
    restored = restore_heads(pruned)
    assert restored.config == full.config
    assert_same(our_logits(restored, batch), masked)


def test_heads_pruned_in_two_steps_are_those_pruned_in_one() -> None:
    full, batch = model(), packed(*dense_input())
    twice = prune_heads(prune_heads(full, {0: [1], 2: [3]}), {0: [2, 1], 1: [0]})
    once = prune_heads(full, {0: [1, 2], 1: [0], 2: [3]})
    assert twice.config == once.config
    assert_same(our_logits(twice, batch), our_logits(once, batch), 0)


def test_a_mask_on_a_pruned_model_counts_heads_as_before() -> None:
    full, batch = model(), packed(*dense_input())
    pruned = prune_heads(full, {1: [0, 2]})
    both = our_logits(full, batch, head_mask=head_mask({1: [0, 2, 3]}))
    assert_same(our_logits(pruned, batch, head_mask=head_mask({1: [3]})), both)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ({7: [0]}, "names layer 7; the layers are 0 to 2"),
        ({0: [4]}, r"names heads \[4\] in layer 0; the heads are 0 to 3"),
        ({0: [0, 1, 2, 3]}, "leaves no head in layer 0"),
    ],
)
def test_pruning_what_is_not_there_is_refused(gone: dict[int, list[int]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        prune_heads(model(), gone)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("vocab_size", [70, 98, 99, 128, 129, 300])
def test_resizing_keeps_the_logits_of_the_pieces_that_stay(vocab_size: int, tied: bool) -> None:
    old = model(tie_word_embeddings=tied)
    new = resize_vocabulary(old, vocab_size)
    ids, mask, types = dense_input()
    batch = packed(ids.clamp(max=69), mask, types)
    before, after = our_logits(old, batch), our_logits(new, batch)
    kept = min(vocab_size, old.config.vocab_size)
    assert after["mlm"].shape[1] == vocab_size
    torch.testing.assert_close(after["mlm"][:, :kept], before["mlm"][:, :kept], rtol=0, atol=1e-12)
    assert torch.equal(after["nsp"], before["nsp"])
    assert new.masked_lm is not None
    assert not new.masked_lm.bias[kept:].any()
    table = new.encoder.embeddings.tokens.weight
    assert (table[kept:vocab_size].abs() > 0).any(1).all()
    assert len(table) == new.config.padded_vocab_size


@settings(max_examples=20)
@given(had=st.integers(1, 14), data=st.data())
def test_taken_blocks_are_evenly_chosen_from_the_first_to_the_last(had: int, data: st.DataObject) -> None:
    layers = data.draw(st.integers(1, had))
    shape = {"num_hidden_layers": had, "hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 4}
    full = model(**shape)
    numbers = [block.attention.output.bias for block in full.encoder.blocks]
    with torch.no_grad():
        for number, bias in enumerate(numbers):
            bias.fill_(number)
    taken = [int(block.attention.output.bias[0]) for block in take_layers(full, layers).encoder.blocks]
    assert taken[0] == 0
    assert layers == 1 or taken[-1] == had - 1
    gaps = [after - before for before, after in pairwise(taken)]
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert all(gap >= 1 for gap in gaps)
    if (had, layers) == (12, 6):
        assert taken == [0, 2, 4, 7, 9, 11]


def test_distilbert_has_these_of_twelve_and_all_of_them_are_the_model() -> None:
    full, batch = model(num_hidden_layers=12), packed(*dense_input())
    taken = take_layers(full, 6)
    for new, old in enumerate((0, 2, 4, 7, 9, 11)):
        ours, theirs = taken.encoder.blocks[new].state_dict(), full.encoder.blocks[old].state_dict()
        assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert_same(our_logits(take_layers(full, 12), batch), our_logits(full, batch), 0)
    assert torch.equal(taken.encoder.embeddings.tokens.weight, full.encoder.embeddings.tokens.weight)
    with pytest.raises(ValueError, match="13 blocks cannot be taken; the model has 12"):
        take_layers(full, 13)


def test_taken_blocks_keep_their_pruned_heads_and_what_they_see() -> None:
    changes = {"position_kind": "rotary", "layer_types": ("full_attention", "sliding_attention", "sliding_attention")}
    pruned = prune_heads(model(**changes), {1: [0], 2: [1, 3]})
    taken = take_layers(pruned, 2)
    assert taken.config.pruned_heads == {1: (1, 3)}
    assert taken.config.layer_types == ("full_attention", "sliding_attention")
    assert torch.isfinite(our_logits(taken, packed(*dense_input()))["nsp"]).all()


@pytest.mark.parametrize("layers", [0, 2])
def test_frozen_parts_get_no_gradient_and_do_not_move(layers: int) -> None:
    from bertsmith.train.optim import make_optimizers

    frozen = model()
    trained = freeze(frozen, layers)
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    optimizers = make_optimizers(frozen, name="muon", learning_rate=0.1, weight_decay=0.1)
    sum(
        values.sum() for values in our_logits(frozen, packed(*dense_input())).values() if values.isfinite().all()
    ).backward()
    for optimizer in optimizers:
        optimizer.step()
    still = ("encoder.embeddings.", *(f"encoder.blocks.{i}." for i in range(layers)))
    for name, tensor in frozen.state_dict().items():
        if name.startswith(still):
            assert torch.equal(tensor, before[name]), name
    assert not torch.equal(
        frozen.state_dict()[f"encoder.blocks.{layers}.attention.qkv.weight"],
        before[f"encoder.blocks.{layers}.attention.qkv.weight"],
    )
    assert trained == [p for p in frozen.parameters() if p.requires_grad]
    with pytest.raises(ValueError, match="cannot be frozen"):
        freeze(frozen, 9)
