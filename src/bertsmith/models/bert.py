"""An encoder with the heads that a checkpoint has; a head that it lacks is `None`."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.config.encoder import EncoderConfig
from bertsmith.models.encoder import Encoder
from bertsmith.models.heads import Discriminator, LinearHead, MaskedLMHead, Pooler
from bertsmith.models.pooling import pool
from bertsmith.nn.init import initialize

HEADS = (
    "pooler",
    "masked_lm",
    "next_sentence",
    "classifier",
    "token_classifier",
    "question_answering",
    "multiple_choice",
    "discriminator",
)
"""Names of the optional parts, in the order in which they are drawn."""

FINE_TUNED = frozenset({"classifier", "token_classifier", "question_answering", "multiple_choice"})
"""Heads that start fresh on a trained encoder, with the pooler if it has none: drawn as transformers draws them, with
the whole deviation, because the smaller they are the slower the encoder learns through them at first."""

READS_CLS = frozenset({"next_sentence", "classifier", "multiple_choice"})
"""Heads on the pooled vector of `[CLS]`; they bring the pooler."""

READS_TOKENS = frozenset({"token_classifier", "question_answering"})
"""Heads on every token; in some families they read it through the pooler's layers, and bring it too."""


class Bert(nn.Module):
    """Encoder, optional pooler, optional heads.

    `heads` names the parts of `HEADS` to build; `num_labels` is the number of outputs of `classifier` and
    `token_classifier`. Hidden states are `[total, hidden_size]`, those of a packed batch.
    """

    pooler: Pooler | None
    masked_lm: MaskedLMHead | None
    next_sentence: LinearHead | None
    classifier: LinearHead | None
    token_classifier: LinearHead | None
    question_answering: LinearHead | None
    multiple_choice: LinearHead | None
    discriminator: Discriminator | None

    def __init__(self, config: EncoderConfig, *, heads: Collection[str] = (), num_labels: int = 2) -> None:
        super().__init__()
        unknown = set(heads) - set(HEADS)
        if unknown:
            raise ValueError(f"unknown heads {sorted(unknown)}; expected some of {HEADS}")
        self.config = config
        self.encoder = Encoder(config)
        through_pooler = READS_CLS | READS_TOKENS if config.token_pooler else READS_CLS
        pooled = ("pooler" in heads or bool(through_pooler & set(heads))) and config.cls_pooler
        self.pooler = Pooler(config) if pooled else None
        self.discriminator = Discriminator(config) if "discriminator" in heads else None
        self.masked_lm = MaskedLMHead(config) if "masked_lm" in heads else None
        linear = {  # name -> (outputs, dropout before it), as transformers' classes have them
            "next_sentence": (2, 0.0),
            "classifier": (num_labels, config.head_dropout),
            "token_classifier": (num_labels, config.head_dropout),
            "question_answering": (2, 0.0),
            "multiple_choice": (1, config.head_dropout),
        }
        for name, (outputs, dropout) in linear.items():
            setattr(self, name, LinearHead(config, outputs=outputs, dropout=dropout) if name in heads else None)
        for name in HEADS:
            head = getattr(self, name)
            if head is not None:
                initialize(head, std=config.initializer_range, is_cut=FINE_TUNED.isdisjoint(heads))

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the parts that this model has beside the encoder."""
        return tuple(name for name in HEADS if getattr(self, name) is not None)

    @property
    def num_parameters(self) -> int:
        """Trained values as a file has them: without the rows that pad the vocabulary, a tied decoder once."""
        tables = [self.encoder.embeddings.tokens, self.masked_lm.decoder if self.masked_lm is not None else None]
        padding = (self.config.padded_vocab_size - self.config.vocab_size) * self.config.embedding_width
        padded = sum(padding for table in tables if table is not None)
        return sum(parameter.numel() for parameter in self.parameters()) - padded

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.embeddings.tokens.weight.device

    def pool(self, states: Tensor, batch: Batch) -> Tensor:
        """`[total, hidden_size]` -> `[sequences, hidden_size]`: of the first token of each, or of their mean."""
        return self._pooled(pool(states, batch, kinds=(self.config.pooler_input,)))

    def pooled(self, batch: Batch) -> Tensor:
        """`[sequences, hidden_size]`: `pool` of the encoder's states; only those that it reads are computed."""
        return self.pooled_and_selected(batch, batch.first_positions[:0])[0]

    def pooled_and_selected(self, batch: Batch, positions: Tensor) -> tuple[Tensor, Tensor]:
        """`pool` of the encoder's states, and the states at `positions` `[selected]`; no others are computed."""
        if self.config.pooler_input != "cls":
            states = self.encoder(batch)
            return self.pool(states, batch), states[positions]
        states = self.encoder(batch, rows=torch.cat([batch.first_positions, positions]))
        first, selected = states.split([len(batch.lengths), len(positions)])
        return self._pooled(first), selected

    def _pooled(self, vectors: Tensor) -> Tensor:
        pooled: Tensor = _present(self.pooler, "pooler")(vectors) if self.config.cls_pooler else vectors
        return pooled

    def masked_lm_logits(self, selected: Tensor) -> Tensor:
        """`[selected, hidden_size]` -> `[selected, padded_vocab_size]`; see `MaskedLMHead`."""
        head = _present(self.masked_lm, "masked_lm")
        logits: Tensor = head(selected, self.encoder.embeddings.tokens.weight)
        return logits

    def next_sentence_logits(self, pooled: Tensor) -> Tensor:
        """`[sequences, hidden_size]` -> `[sequences, 2]`; class 0 means that B follows A (as Google and HF have it)."""
        logits: Tensor = _present(self.next_sentence, "next_sentence")(pooled)
        return logits

    def classification_logits(self, pooled: Tensor) -> Tensor:
        """`[sequences, hidden_size]` -> `[sequences, num_labels]`; of a regression, the predicted numbers."""
        logits: Tensor = _present(self.classifier, "classifier")(pooled)
        return logits

    def token_logits(self, states: Tensor) -> Tensor:
        """`[total, num_labels]`: a class for every token, special tokens included."""
        logits: Tensor = _present(self.token_classifier, "token_classifier")(self._read_tokens(states))
        return logits

    def answer_logits(self, states: Tensor) -> Tensor:
        """`[total, 2]`: how well an answer starts, and ends, at each token (Devlin et al. 2018, section 4.2)."""
        logits: Tensor = _present(self.question_answering, "question_answering")(self._read_tokens(states))
        return logits

    def choice_logits(self, pooled: Tensor) -> Tensor:
        """`[sequences, hidden_size]` -> `[sequences]`: how well each choice, a sequence of its own, fits
        (Devlin et al. 2018, section 4.4)."""
        logits: Tensor = _present(self.multiple_choice, "multiple_choice")(pooled)
        return logits[:, 0]

    def replaced_logits(self, states: Tensor) -> Tensor:
        """`[total]`: whether each token was replaced; above 0 more likely than not (Clark et al. 2020)."""
        logits: Tensor = _present(self.discriminator, "discriminator")(states)
        return logits[:, 0]

    def _read_tokens(self, states: Tensor) -> Tensor:
        if not (self.config.token_pooler and self.config.cls_pooler):
            return states
        read: Tensor = _present(self.pooler, "pooler")(states)
        return read


def _present(head: nn.Module | None, name: str) -> nn.Module:
    if head is None:
        raise ValueError(f"this model has no {name} head")
    return head
