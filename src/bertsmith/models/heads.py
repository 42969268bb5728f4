"""What stands on top of the encoder: pooler, masked LM, next sentence, sequence classification."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.config.encoder import EncoderConfig
from bertsmith.nn.feedforward import ACTIVATION_FUNCTIONS


class Pooler(nn.Module):
    """Linear and tanh on the vector of `[CLS]`; next sentence and classification share it."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first_states: Tensor) -> Tensor:
        """`[sequences, hidden_size]` -> `[sequences, hidden_size]`."""
        return torch.tanh(self.dense(first_states))


class MaskedLMHead(nn.Module):
    """Linear, activation, LayerNorm, then the token embeddings as decoder (tied) plus a bias.

    It is given the selected positions only: with 15 % of them, the largest matrix product of a small
    BERT costs 15 %. Devlin et al. 2018, section 3.1; google-research/bert `get_masked_lm_output`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATION_FUNCTIONS[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.rows_added = config.padded_vocab_size - config.vocab_size

    def forward(self, selected_states: Tensor, embedding_weight: Tensor) -> Tensor:
        """`[selected, hidden_size]` and `[padded_vocab_size, hidden_size]` -> `[selected, padded_vocab_size]`.

        The columns past `vocab_size` are -inf: they have probability 0 and get no gradient.
        """
        transformed = self.norm(self.activation(self.dense(selected_states)))
        bias = F.pad(self.bias, (0, self.rows_added), value=float("-inf")) if self.rows_added else self.bias
        return F.linear(transformed, embedding_weight, bias)


class NextSentenceHead(nn.Module):
    """Two logits from the pooled vector; class 0 means that B follows A (as Google and HF have it)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.classifier = nn.Linear(config.hidden_size, 2)

    def forward(self, pooled: Tensor) -> Tensor:
        """`[sequences, hidden_size]` -> `[sequences, 2]`."""
        logits: Tensor = self.classifier(pooled)
        return logits


class SequenceClassificationHead(nn.Module):
    """Dropout and one linear layer on the pooled vector (Devlin et al. 2018, section 4.1)."""

    def __init__(self, config: EncoderConfig, *, num_labels: int) -> None:
        super().__init__()
        self.dropout = config.hidden_dropout_prob
        self.classifier = nn.Linear(config.hidden_size, num_labels)

    def forward(self, pooled: Tensor) -> Tensor:
        """`[sequences, hidden_size]` -> `[sequences, num_labels]`."""
        logits: Tensor = self.classifier(F.dropout(pooled, self.dropout, self.training))
        return logits
