"""For each class of transformers: its outputs, and ours under the same names, and the loss of both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.models import losses
from bertsmith.models.bert import Bert
from tests.parity.reference import LABELS

CHOICES = 2


def our_logits(model: Bert, batch: Batch, **options: Any) -> dict[str, Tensor]:
    """Every output that the model has."""
    states = model.encoder(batch, **options)
    found = {"states": states}
    if model.heads == ("pooler",):
        found["pooled"] = model.pool(states, batch)
    if model.masked_lm is not None:
        found["mlm"] = model.masked_lm_logits(states)[:, : model.config.vocab_size]
    if model.next_sentence is not None:
        found["nsp"] = model.next_sentence_logits(model.pool(states, batch))
    if model.classifier is not None:
        found["class"] = model.classification_logits(model.pool(states, batch))
    if model.token_classifier is not None:
        found["tokens"] = model.token_logits(states)
    if model.question_answering is not None:
        found["answer"] = model.answer_logits(states)
    if model.multiple_choice is not None:
        found["choice"] = model.choice_logits(model.pool(states, batch))
    return found


def run_theirs(name: str, model: Any, ids: Tensor, mask: Tensor, types: Tensor, **labels: Tensor) -> Any:
    """Their forward; the rows of a multiple-choice batch are `CHOICES` for each question."""
    shape = (len(ids) // CHOICES, CHOICES, -1) if name == "BertForMultipleChoice" else ids.shape
    return model(
        ids.reshape(shape),
        attention_mask=mask.reshape(shape),
        token_type_ids=types.reshape(shape),
        output_hidden_states=True,
        output_attentions=True,
        **labels,
    )


def their_logits(name: str, output: Any, keep: Tensor) -> dict[str, Tensor]:
    states = {"states": output.hidden_states[-1][keep]}
    match name:
        case "BertForPreTraining":
            return states | {"mlm": output.prediction_logits[keep], "nsp": output.seq_relationship_logits}
        case "BertForQuestionAnswering":
            return states | {"answer": torch.stack([output.start_logits, output.end_logits], -1)[keep]}
        case "BertForMultipleChoice":
            return states | {"choice": output.logits.flatten()}
        case "BertForSequenceClassification":
            return states | {"class": output.logits}
        case "BertForNextSentencePrediction":
            return states | {"nsp": output.logits}
        case "BertModel":
            return states | {"pooled": output.pooler_output}
    return states | {{"BertForMaskedLM": "mlm", "BertForTokenClassification": "tokens"}[name]: output.logits[keep]}


LOSSES = {
    "pretraining": "BertForPreTraining",
    "masked_lm": "BertForMaskedLM",
    "next_sentence": "BertForNextSentencePrediction",
    "single_label_classification": "BertForSequenceClassification",
    "multi_label_classification": "BertForSequenceClassification",
    "regression": "BertForSequenceClassification",
    "tokens": "BertForTokenClassification",
    "answers": "BertForQuestionAnswering",
    "choices": "BertForMultipleChoice",
}
"""Kind of loss -> the class that computes it."""


def both_losses(kind: str, theirs: Any, ours: Bert, inputs: tuple[Tensor, Tensor, Tensor], **options: Any) -> Any:
    """(their loss, our loss) of the same labels; `options` go to our encoder."""
    ids, mask, types = inputs
    keep = mask.bool()
    batch = Batch.from_dense(ids, mask, types)
    sequences = len(ids)
    generator = torch.Generator().manual_seed(3)
    name = LOSSES[kind]
    mine = our_logits(ours, batch, **options)
    masked = torch.where((torch.arange(ids.numel()).view_as(ids) % 3 == 0) & keep, ids, -100)
    positions = (masked[keep] != -100).nonzero().flatten()
    follows = torch.randint(0, 2, (sequences,), generator=generator)
    if kind in ("pretraining", "masked_lm", "next_sentence"):
        mlm = lambda: losses.cross_entropy(mine["mlm"][positions], masked[keep][positions]) / len(positions)  # noqa: E731
        nsp = lambda: losses.cross_entropy(mine["nsp"], follows) / sequences  # noqa: E731
        labels, loss = {
            "pretraining": lambda: ({"labels": masked, "next_sentence_label": follows}, mlm() + nsp()),
            "masked_lm": lambda: ({"labels": masked}, mlm()),
            "next_sentence": lambda: ({"labels": follows}, nsp()),
        }[kind]()
    elif kind == "single_label_classification":
        classes = torch.randint(0, LABELS, (sequences,), generator=generator)
        labels, loss = {"labels": classes}, losses.cross_entropy(mine["class"], classes) / sequences
    elif kind in ("multi_label_classification", "regression"):
        theirs.config.problem_type = kind
        targets = torch.rand(sequences, LABELS, generator=generator).to(mine["class"].dtype)
        targets = targets.round() if kind.startswith("multi") else targets
        function = losses.binary_cross_entropy if kind.startswith("multi") else losses.squared_error
        labels, loss = {"labels": targets}, function(mine["class"], targets) / targets.numel()
    elif kind == "tokens":
        tags = torch.randint(0, LABELS, ids.shape, generator=generator)
        labels = {"labels": tags.masked_fill(~keep, -100)}
        loss = losses.cross_entropy(mine["tokens"], tags[keep]) / batch.total
    elif kind == "answers":
        starts = torch.randint(0, 2, (sequences,), generator=generator)
        labels = {"start_positions": starts, "end_positions": starts + 0}
        # transformers normalises over padded rows too; equal lengths make the two the same
        loss = losses.answer_loss(mine["answer"], batch.lengths, starts, starts) / sequences
    else:
        questions = sequences // CHOICES
        right = torch.randint(0, CHOICES, (questions,), generator=generator)
        labels, loss = {"labels": right}, losses.choice_loss(mine["choice"], (CHOICES,) * questions, right) / questions
    return run_theirs(name, theirs, ids, mask, types, **labels).loss, loss
