"""What a model answers, by what it is for: the outputs of its graph, computed alike over packed and padded batches.

Names are those that transformers, optimum, sentence-transformers and transformers.js look for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.bundle import Bundle
from bertsmith.errors import InputError
from bertsmith.export.dense import DenseAttention, PaddedBatch
from bertsmith.export.part import CHOICES, LENGTH, ROWS, Axes, Part
from bertsmith.models.bert import Bert
from bertsmith.models.heads import MaskedLMHead
from bertsmith.models.sentence import SentenceModules
from bertsmith.nn.embeddings import Embeddings

Compute = Callable[[Bert, Tensor, Batch, SentenceModules], dict[str, Tensor]]
"""(model, states `[total, hidden_size]`, batch, …) -> name -> `[total, …]` or `[sequences, …]`."""


@dataclass(frozen=True)
class Kind:
    """A kind of answers."""

    compute: Compute
    per_token: frozenset[str] = frozenset()
    """Which of them are about tokens; the others are about sequences."""


def _classes(model: Bert, states: Tensor, batch: Batch, _: SentenceModules) -> dict[str, Tensor]:
    return {"logits": model.classification_logits(model.pool(states, batch))}


def _spans(model: Bert, states: Tensor, _batch: Batch, _: SentenceModules) -> dict[str, Tensor]:
    starts, ends = model.answer_logits(states).unbind(1)
    return {"start_logits": starts, "end_logits": ends}


def _guesses(model: Bert, states: Tensor, _batch: Batch, _: SentenceModules) -> dict[str, Tensor]:
    assert model.masked_lm is not None
    logits: Tensor = model.masked_lm(states, model.encoder.embeddings.tokens.weight)
    return {"logits": logits}


def _vectors(_model: Bert, states: Tensor, batch: Batch, modules: SentenceModules) -> dict[str, Tensor]:
    return {"last_hidden_state": states, "sentence_embedding": modules.vectors(states, batch)}


def _states(model: Bert, states: Tensor, batch: Batch, _: SentenceModules) -> dict[str, Tensor]:
    pooled = {} if model.pooler is None else {"pooler_output": model.pool(states, batch)}
    return {"last_hidden_state": states} | pooled


LOGITS = frozenset({"logits"})

KINDS: dict[str, Kind] = {
    "classify": Kind(_classes),
    "rerank": Kind(_classes),
    "tag": Kind(lambda model, states, _batch, _: {"logits": model.token_logits(states)}, LOGITS),
    "qa": Kind(_spans, frozenset({"start_logits", "end_logits"})),
    "choice": Kind(lambda model, states, batch, _: {"logits": model.choice_logits(model.pool(states, batch))}),
    "embed": Kind(_vectors, frozenset({"last_hidden_state"})),
    "fill-mask": Kind(_guesses, LOGITS),
    "replaced": Kind(lambda model, states, _batch, _: {"logits": model.replaced_logits(states)}, LOGITS),
    "next-sentence": Kind(
        lambda model, states, batch, _: {"logits": model.next_sentence_logits(model.pool(states, batch))}
    ),
    "encode": Kind(_states, frozenset({"last_hidden_state"})),
}
"""Name -> answers. Those of `tasks.known.TASKS` have the task's name."""


def kind_of(bundle: Bundle, wanted: str | None = None) -> str:
    """What the model is for: what is `wanted`, its task, or what its heads say. Raises `InputError` for a task that it
    has no head for, and for sentence-transformers files that cannot be followed."""
    task, model = wanted or bundle.task["name"], bundle.model
    heads = {
        "classify": model.classifier,
        "rerank": model.classifier,
        "tag": model.token_classifier,
        "qa": model.question_answering,
        "choice": model.multiple_choice,
        "fill-mask": model.masked_lm,
    }
    if task == "embed" and bundle.sentence_problem is not None:
        raise bundle.sentence_problem
    if task in heads and heads[task] is None:
        if wanted is not None:
            raise InputError("the model has no head for it", field="--task")
        raise InputError(f"its task is {task}, and it has no head for it", file=bundle.path)
    if task in KINDS:
        return str(task)
    if model.masked_lm is not None:
        return "fill-mask"
    if model.discriminator is not None:
        return "replaced"
    return "next-sentence" if model.next_sentence is not None else "encode"


class EncoderGraph(nn.Module):
    """A model over dense inputs, with head, pooling and normalisation. It takes the model's spare rows away."""

    def __init__(self, model: Bert, kind: str, sentence: SentenceModules) -> None:
        super().__init__()
        drop_spare_rows(model.encoder.embeddings, model.masked_lm, size=model.config.vocab_size)
        self.model, self.kind, self.sentence = model, KINDS[kind], sentence
        self.has_choices = kind == "choice"

    def answers(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """`[rows, length]` each (`[rows, choices, length]` of multiple choice) -> name -> `[rows, …]` or
        `[rows, length, …]`; logits of multiple choice are `[rows, choices]`.
        """
        shape = input_ids.shape
        if self.has_choices:
            input_ids, attention_mask = input_ids.flatten(0, 1), attention_mask.flatten(0, 1)
            token_type_ids = None if token_type_ids is None else token_type_ids.flatten(0, 1)
        batch = PaddedBatch.from_rows(input_ids, attention_mask != 0, token_type_ids)
        states = self.model.encoder(batch, attention=DenseAttention(batch.mask))
        found = self.kind.compute(self.model, states, batch, self.sentence)
        if self.has_choices:
            return {name: values.reshape(*shape[:2]) for name, values in found.items()}
        return {
            name: batch.rows_of(values) if name in self.kind.per_token else values for name, values in found.items()
        }

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """The values of `answers`, in their order."""
        return tuple(self.answers(input_ids, attention_mask, token_type_ids).values())

    def packed(self, batch: Batch) -> dict[str, Tensor]:
        """The same answers over a packed batch: `[total, …]`, or `[sequences, …]`."""
        return self.kind.compute(self.model, self.model.encoder(batch), batch, self.sentence)


def reads_segments(model: Bert) -> bool:
    """Whether the model tells a second text from the first."""
    return model.config.type_vocab_size - model.config.token_type_offset > 1


def encoder_part(graph: EncoderGraph) -> Part:
    """The graph with the names of inputs, outputs and axes."""
    axes: Axes = (ROWS, CHOICES, LENGTH) if graph.has_choices else (ROWS, LENGTH)
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if reads_segments(graph.model) else [])
    shape = (2, 3, 5) if graph.has_choices else (2, 5)
    example = tuple(torch.ones(shape, dtype=torch.long) for _ in names)  # one object each, or they become one input
    with torch.inference_mode():
        found = graph.answers(*example)
    outputs: dict[str, Axes] = {}
    for name, values in found.items():
        known = axes[:-1] + ((LENGTH,) if name in graph.kind.per_token else ())
        outputs[name] = known + tuple(values.shape[len(known) :])
    return Part("model", graph, example, dict.fromkeys(names, axes), outputs)


def drop_spare_rows(embeddings: Embeddings, head: MaskedLMHead | None, *, size: int) -> None:
    """Cut the rows that pad the vocabulary in memory off a model, in place: a file has the true rows only."""
    embeddings.tokens.weight = nn.Parameter(embeddings.tokens.weight[:size], requires_grad=False)
    if head is not None:
        head.rows_added = 0
        if head.decoder is not None:
            head.decoder.weight = nn.Parameter(head.decoder.weight[:size], requires_grad=False)
