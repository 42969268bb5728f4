"""Tiny models of transformers, with every parameter redrawn, and ours with the same weights.

Default initialisation hides a wrong activation or two swapped biases (weights near zero, biases equal), so every
parameter, norms and biases too, is drawn from N(0, 0.3).
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.config.encoder import EncoderConfig
from bertsmith.interop.families import canonical, rules
from bertsmith.interop.keymap import to_ours
from bertsmith.models.bert import Bert

SHAPE: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
HEADS = {
    "BertForPreTraining": ("pooler", "masked_lm", "next_sentence"),
    "BertForMaskedLM": ("masked_lm",),
    "BertForNextSentencePrediction": ("pooler", "next_sentence"),
    "BertForSequenceClassification": ("pooler", "classifier"),
    "BertForTokenClassification": ("token_classifier",),
    "BertForQuestionAnswering": ("question_answering",),
    "BertForMultipleChoice": ("pooler", "multiple_choice"),
    "BertModel": ("pooler",),
}
LABELS = 5


def redraw(module: nn.Module, *, std: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * std)


def pair(name: str, *, dtype: torch.dtype = torch.float64, dropout: float = 0.0, **changes: Any) -> tuple[Any, Bert]:
    """(transformers' model, ours) with equal weights, in evaluation mode."""
    shape = SHAPE | changes | {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    config = transformers.BertConfig(
        **shape, num_labels=2 if name == "BertForQuestionAnswering" else LABELS, attn_implementation="eager"
    )
    theirs = getattr(transformers, name)(config).to(dtype).eval()
    redraw(theirs)
    ours = Bert(EncoderConfig(**shape), heads=HEADS[name], num_labels=LABELS).to(dtype).eval()
    copy_weights(theirs, ours)
    return theirs, ours


def copy_weights(theirs: nn.Module, ours: Bert) -> None:
    config = ours.config
    state = canonical(theirs.state_dict(), family=config.family, tied=config.tie_word_embeddings)
    tensors, unknown = to_ours(state, rules(config, ours.heads), config=config)
    assert not unknown
    ours.load_state_dict(tensors)


def dense_input(lengths: tuple[int, ...] = (20, 7, 13, 13, 2, 5), *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(input_ids, attention_mask, token_type_ids), each `[batch, longest]`, padded at the right with junk ids."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    ids = torch.randint(1, SHAPE["vocab_size"], shape, generator=generator)
    mask = (torch.arange(shape[1]) < torch.tensor(lengths)[:, None]).long()
    return ids, mask, torch.randint(0, 2, shape, generator=generator)


def packed(ids: Tensor, mask: Tensor, types: Tensor) -> Batch:
    return Batch.from_dense(ids, mask, types)
