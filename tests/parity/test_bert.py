"""Ours against transformers: hidden states, attentions, logits, loss, gradients, training mode."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.models.bert import Bert
from bertsmith.nn.attention import ReferenceAttention, packed_attention
from tests.parity.reference import HEADS, copy_weights, dense_input, packed, pair

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    allowed = TOLERANCE[ours.dtype] * theirs.abs().clamp(min=1)
    worst = ((ours - theirs).abs() / allowed).max().item()
    assert worst <= 1, f"{worst:.3g} times the tolerance"


def our_logits(model: Bert, batch: Batch, **options: object) -> dict[str, Tensor]:
    states = model.encoder(batch, **options)
    found = {}
    if model.masked_lm is not None:
        every = torch.arange(batch.total)
        found["mlm"] = model.masked_lm_logits(states, every)[:, : model.config.vocab_size]
    if model.next_sentence is not None:
        found["nsp"] = model.next_sentence_logits(states, batch)
    if model.classifier is not None:
        found["class"] = model.classification_logits(states, batch)
    return found


def their_logits(name: str, output: object, keep: Tensor) -> dict[str, Tensor]:
    if name == "BertForPreTraining":
        return {"mlm": output.prediction_logits[keep], "nsp": output.seq_relationship_logits}
    return {"mlm": output.logits[keep]} if name == "BertForMaskedLM" else {"class": output.logits}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("act", ["gelu", "gelu_new", "relu", "silu"])
@pytest.mark.parametrize("name", HEADS)
def test_logits_hidden_states_and_attentions_equal_transformers(name: str, act: str, dtype: torch.dtype) -> None:
    theirs, ours = pair(name, dtype=dtype, hidden_act=act)
    ids, mask, types = dense_input()
    keep = mask.bool()
    output = theirs(ids, attention_mask=mask, token_type_ids=types, output_hidden_states=True, output_attentions=True)
    batch, states, reference = packed(ids, mask, types), [], ReferenceAttention()
    for key, logits in our_logits(ours, batch, hidden_states=states).items():
        assert_equal(logits, their_logits(name, output, keep)[key])
    for mine, yours in zip(states, output.hidden_states, strict=True):
        assert_equal(mine, yours[keep])
    for key, logits in our_logits(ours, batch, attention=reference).items():
        assert_equal(logits, their_logits(name, output, keep)[key])
    for layer, yours in zip(reference.probabilities, output.attentions, strict=True):
        for i, (mine, length) in enumerate(zip(layer, batch.lengths, strict=True)):
            assert_equal(mine, yours[i, :, :length, :length])


@pytest.mark.parametrize("attention", [lambda: packed_attention, ReferenceAttention])
def test_loss_and_every_gradient_equal_transformers(attention: Callable[[], object]) -> None:
    theirs, ours = pair("BertForPreTraining")
    ids, mask, types = dense_input()
    keep = mask.bool()
    labels = torch.where((torch.arange(ids.numel()).view_as(ids) % 3 == 0) & keep, ids, -100)
    follows = torch.tensor([0, 1, 1, 0, 1])
    output = theirs(ids, attention_mask=mask, token_type_ids=types, labels=labels, next_sentence_label=follows)
    output.loss.backward()
    batch = packed(ids, mask, types)
    states = ours.encoder(batch, attention=attention())
    positions = (labels[keep] != -100).nonzero().flatten()
    loss = nn.functional.cross_entropy(
        ours.masked_lm_logits(states, positions), labels[keep][positions]
    ) + nn.functional.cross_entropy(ours.next_sentence_logits(states, batch), follows)
    assert_equal(loss, output.loss)
    loss.backward()
    mirror = Bert(ours.config, heads=ours.heads).double()
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


def test_answers_do_not_depend_on_padding_packing_or_order() -> None:
    _, ours = pair("BertForPreTraining")
    ids, mask, types = dense_input()
    together = our_logits(ours, packed(ids, mask, types))["nsp"]
    order = torch.tensor([3, 0, 4, 2, 1])
    assert_equal(our_logits(ours, packed(ids[order], mask[order], types[order]))["nsp"], together[order])
    for i, length in enumerate(mask.sum(1).tolist()):
        alone = Batch.from_dense(ids[i : i + 1, :length], None, types[i : i + 1, :length])
        assert_equal(our_logits(ours, alone)["nsp"], together[i : i + 1])


def test_left_padded_input_equals_transformers() -> None:
    theirs, ours = pair("BertForMaskedLM")
    ids, mask, types = (tensor.flip(1) for tensor in dense_input())
    output = theirs(ids, attention_mask=mask, token_type_ids=types)
    assert_equal(our_logits(ours, packed(ids, mask, types))["mlm"], output.logits[mask.bool()])


@pytest.mark.slow
def test_training_mode_agrees_in_mean_and_variance() -> None:
    theirs, ours = pair("BertForSequenceClassification", dtype=torch.float32, dropout=0.1, num_hidden_layers=2)
    ids, mask, types = dense_input((6, 4))
    batch = packed(ids, mask, types)
    theirs.train()
    ours.train()
    torch.manual_seed(0)
    draws = 2000
    with torch.no_grad():
        mine = torch.stack([our_logits(ours, batch)["class"] for _ in range(draws)])
        yours = torch.stack([theirs(ids, attention_mask=mask, token_type_ids=types).logits for _ in range(draws)])
    spread = (mine.var(0) + yours.var(0)) / draws
    assert ((mine.mean(0) - yours.mean(0)).abs() / spread.sqrt()).max() < 5
    # Variance of a sample variance, from the fourth moment.
    error = sum(((x - x.mean(0)) ** 2).var(0) / draws for x in (mine, yours))
    assert ((mine.var(0) - yours.var(0)).abs() / error.sqrt()).max() < 5


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
}


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
