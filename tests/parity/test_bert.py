"""Ours against transformers: hidden states, attentions, logits, loss, gradients, training mode."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.config.encoder import ACTIVATIONS
from bertsmith.models.bert import Bert
from bertsmith.nn.attention import ReferenceAttention, packed_attention
from tests.parity.heads import LOSSES, both_losses, our_logits, run_theirs, their_logits
from tests.parity.reference import HEADS, LABELS, copy_weights, dense_input, packed, pair

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    allowed = TOLERANCE[ours.dtype] * theirs.abs().clamp(min=1)
    worst = ((ours - theirs).abs() / allowed).max().item()
    assert worst <= 1, f"{worst:.3g} times the tolerance"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("act", ["gelu", "gelu_new"])
@pytest.mark.parametrize("name", HEADS)
def test_logits_hidden_states_and_attentions_equal_transformers(name: str, act: str, dtype: torch.dtype) -> None:
    theirs, ours = pair(name, dtype=dtype, hidden_act=act)
    ids, mask, types = dense_input()
    keep = mask.bool()
    output = run_theirs(name, theirs, ids, mask, types)
    expected = their_logits(name, output, keep)
    batch, states, reference = packed(ids, mask, types), [], ReferenceAttention()
    for found in (our_logits(ours, batch, hidden_states=states), our_logits(ours, batch, attention=reference)):
        assert found.keys() == expected.keys()
        for key, logits in found.items():
            assert_equal(logits, expected[key])
    for mine, yours in zip(states, output.hidden_states, strict=True):
        assert_equal(mine, yours[keep])
    for layer, yours in zip(reference.probabilities, output.attentions, strict=True):
        for i, (mine, length) in enumerate(zip(layer, batch.lengths, strict=True)):
            assert_equal(mine, yours[i, :, :length, :length])


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_every_activation_is_that_of_transformers_by_the_same_name(act: str) -> None:
    theirs, ours = pair("BertForMaskedLM", hidden_act=act)
    ids, mask, types = dense_input()
    expected = run_theirs("BertForMaskedLM", theirs, ids, mask, types).logits[mask.bool()]
    assert_equal(our_logits(ours, packed(ids, mask, types))["mlm"], expected)


@pytest.mark.parametrize("attention", [lambda: packed_attention, ReferenceAttention])
@pytest.mark.parametrize("kind", LOSSES)
def test_loss_and_every_gradient_equal_transformers(kind: str, attention: Callable[[], object]) -> None:
    theirs, ours = pair(LOSSES[kind])
    inputs = dense_input((13,) * 6) if kind == "answers" else dense_input()
    expected, loss = both_losses(kind, theirs, ours, inputs, attention=attention())
    assert_equal(loss, expected)
    expected.backward()
    loss.backward()
    mirror = Bert(ours.config, heads=ours.heads, num_labels=LABELS).double()
    for parameter in theirs.parameters():
        parameter.data = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
    copy_weights(theirs, mirror)
    gradients = dict(mirror.named_parameters())
    for name, parameter in ours.named_parameters():
        rows = ours.config.vocab_size if name == "encoder.embeddings.tokens.weight" else None
        assert parameter.grad is not None, name
        assert_equal(parameter.grad[:rows], gradients[name][:rows])
        if rows is not None:
            assert not parameter.grad[rows:].any(), "rows that pad the vocabulary must get no gradient"


@pytest.mark.parametrize("name", HEADS)
def test_answers_do_not_depend_on_padding_packing_or_order(name: str) -> None:
    _, ours = pair(name)
    ids, mask, types = dense_input()
    batch = packed(ids, mask, types)
    together = {key: rows_of(batch, values) for key, values in our_logits(ours, batch).items()}
    order = torch.tensor([3, 0, 4, 2, 1, 5])
    permuted = packed(ids[order], mask[order], types[order])
    for key, values in our_logits(ours, permuted).items():
        for mine, i in zip(rows_of(permuted, values), order.tolist(), strict=True):
            assert_equal(mine, together[key][i])
    for i, length in enumerate(mask.sum(1).tolist()):
        alone = Batch.from_dense(ids[i : i + 1, :length], None, types[i : i + 1, :length])
        for key, values in our_logits(ours, alone).items():
            assert_equal(rows_of(alone, values)[0], together[key][i])


def rows_of(batch: Batch, values: Tensor) -> list[Tensor]:
    """What belongs to each sequence: its row, or its tokens."""
    return list(values) if len(values) == len(batch.lengths) else batch.split(values)


def test_left_padded_input_equals_transformers() -> None:
    theirs, ours = pair("BertForMaskedLM")
    ids, mask, types = (tensor.flip(1) for tensor in dense_input())
    output = theirs(ids, attention_mask=mask, token_type_ids=types)
    assert_equal(our_logits(ours, packed(ids, mask, types))["mlm"], output.logits[mask.bool()])


def test_an_untied_decoder_equals_transformers() -> None:
    theirs, ours = pair("BertForPreTraining", tie_word_embeddings=False)
    ids, mask, types = dense_input()
    output = run_theirs("BertForPreTraining", theirs, ids, mask, types)
    assert not torch.equal(theirs.cls.predictions.decoder.weight, theirs.bert.embeddings.word_embeddings.weight)
    assert_equal(our_logits(ours, packed(ids, mask, types))["mlm"], output.prediction_logits[mask.bool()])


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_training_mode_agrees_in_mean_and_variance(name: str) -> None:
    theirs, ours = pair(name, dtype=torch.float32, dropout=0.1, num_hidden_layers=2)
    ids, mask, types = dense_input((6, 4))
    batch, keep = packed(ids, mask, types), mask.bool()
    theirs.train()
    ours.train()
    torch.manual_seed(0)
    draws = 2000
    mine, yours = [], []
    with torch.no_grad():
        for _ in range(draws):
            mine.append(torch.cat([x.flatten() for x in our_logits(ours, batch).values()]))
            output = run_theirs(name, theirs, ids, mask, types)
            yours.append(torch.cat([x.flatten() for x in their_logits(name, output, keep).values()]))
    x, y = torch.stack(mine), torch.stack(yours)
    spread = (x.var(0) + y.var(0)) / draws
    assert ((x.mean(0) - y.mean(0)).abs() / spread.sqrt()).max() < 5
    # Variance of a sample variance, from the fourth moment.
    error = sum(((z - z.mean(0)) ** 2).var(0) / draws for z in (x, y))
    assert ((x.var(0) - y.var(0)).abs() / error.sqrt()).max() < 5


MUTATIONS: dict[str, Callable[[Bert], None]] = {
    "tanh GELU for erf GELU": lambda m: setattr(
        m.encoder.blocks[1].feedforward, "activation", lambda x: nn.functional.gelu(x, approximate="tanh")
    ),
    "two swapped biases": lambda m: _swap(
        m.encoder.blocks[0].attention.output.bias, m.encoder.blocks[0].feedforward.output.bias
    ),
    "segments dropped": lambda m: m.encoder.embeddings.segments.weight.data.zero_(),
    "norm epsilon 1e-5": lambda m: setattr(m.encoder.embeddings.norm, "eps", 1e-5),
    "query and key swapped": lambda m: m.encoder.blocks[2].attention.qkv.weight.data.copy_(
        m.encoder.blocks[2].attention.qkv.weight.data.roll(32, 0)
    ),
    "pre-norm for post-norm": lambda m: [setattr(block, "is_pre_norm", True) for block in m.encoder.blocks],
}


def attention_with_a_mask_on_queries(
    query: Tensor, key: Tensor, value: Tensor, batch: Batch, dropout: float, window: int | None
) -> Tensor:
    """The bug of hyunwoongko/transformer#40: padding is masked where it asks, not where it is looked at."""
    q, k, v = (nn.utils.rnn.pad_sequence(batch.split(x), batch_first=True).transpose(1, 2) for x in (query, key, value))
    padded = torch.arange(q.shape[2])[None] >= torch.tensor(batch.lengths)[:, None]
    scores = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).masked_fill(padded[:, None, :, None], -1e9)
    context = (scores.softmax(-1) @ v).transpose(1, 2)
    return torch.cat([context[i, :length] for i, length in enumerate(batch.lengths)])


def test_parity_notices_a_mask_on_queries() -> None:
    theirs, ours = pair("BertForPreTraining")
    ids, mask, types = dense_input()
    output = theirs(ids, attention_mask=mask, token_type_ids=types)
    wrong = our_logits(ours, packed(ids, mask, types), attention=attention_with_a_mask_on_queries)
    with pytest.raises(AssertionError, match="times the tolerance"):
        assert_equal(wrong["mlm"], output.prediction_logits[mask.bool()])


@pytest.mark.parametrize("name", MUTATIONS)
def test_parity_notices_a_mutation(name: str) -> None:
    theirs, ours = pair("BertForPreTraining")
    MUTATIONS[name](ours)
    ids, mask, types = dense_input()
    output = theirs(ids, attention_mask=mask, token_type_ids=types)
    with pytest.raises(AssertionError, match="times the tolerance"):
        assert_equal(our_logits(ours, packed(ids, mask, types))["mlm"], output.prediction_logits[mask.bool()])


def _swap(one: Tensor, other: Tensor) -> None:
    kept = one.data.clone()
    one.data.copy_(other.data)
    other.data.copy_(kept)
