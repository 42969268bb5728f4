"""An encoder with the heads that a checkpoint has; a head that it lacks is `None`."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.config.encoder import EncoderConfig
from bertsmith.models.encoder import Encoder
from bertsmith.models.heads import MaskedLMHead, NextSentenceHead, Pooler, SequenceClassificationHead
from bertsmith.nn.init import initialize

HEADS = ("pooler", "masked_lm", "next_sentence", "classifier")
"""Names of the optional parts, in the order in which they are drawn."""


class Bert(nn.Module):
    """Encoder, optional pooler, optional heads.

    `heads` names the parts of `HEADS` to build; next sentence and classifier need the pooler and bring it.
    """

    pooler: Pooler | None
    masked_lm: MaskedLMHead | None
    next_sentence: NextSentenceHead | None
    classifier: SequenceClassificationHead | None

    def __init__(self, config: EncoderConfig, *, heads: Collection[str] = (), num_labels: int = 2) -> None:
        super().__init__()
        unknown = set(heads) - set(HEADS)
        if unknown:
            raise ValueError(f"unknown heads {sorted(unknown)}; expected some of {HEADS}")
        self.config = config
        self.encoder = Encoder(config)
        pooled = {"pooler", "next_sentence", "classifier"} & set(heads)
        self.pooler = Pooler(config) if pooled else None
        self.masked_lm = MaskedLMHead(config) if "masked_lm" in heads else None
        self.next_sentence = NextSentenceHead(config) if "next_sentence" in heads else None
        self.classifier = SequenceClassificationHead(config, num_labels=num_labels) if "classifier" in heads else None
        for name in HEADS:
            head = getattr(self, name)
            if head is not None:
                initialize(head, std=config.initializer_range)

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the parts that this model has beside the encoder."""
        return tuple(name for name in HEADS if getattr(self, name) is not None)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.embeddings.tokens.weight.device

    def pool(self, states: Tensor, batch: Batch) -> Tensor:
        """`[total, hidden_size]` -> `[sequences, hidden_size]`, from the first token of each sequence."""
        pooled: Tensor = _present(self.pooler, "pooler")(states[batch.first_positions])
        return pooled

    def masked_lm_logits(self, states: Tensor, positions: Tensor) -> Tensor:
        """`[total, hidden_size]`, `[selected]` -> `[selected, padded_vocab_size]`; see `MaskedLMHead`."""
        head = _present(self.masked_lm, "masked_lm")
        logits: Tensor = head(states[positions], self.encoder.embeddings.tokens.weight)
        return logits

    def next_sentence_logits(self, states: Tensor, batch: Batch) -> Tensor:
        """`[total, hidden_size]` -> `[sequences, 2]`."""
        logits: Tensor = _present(self.next_sentence, "next_sentence")(self.pool(states, batch))
        return logits

    def classification_logits(self, states: Tensor, batch: Batch) -> Tensor:
        """`[total, hidden_size]` -> `[sequences, num_labels]`."""
        logits: Tensor = _present(self.classifier, "classifier")(self.pool(states, batch))
        return logits


def _present(head: nn.Module | None, name: str) -> nn.Module:
    if head is None:
        raise ValueError(f"this model has no {name} head")
    return head
