"""What stands on top of the encoder: pooler, masked LM, and the linear layers of the tasks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.config.encoder import EncoderConfig
from bertsmith.nn.feedforward import ACTIVATION_FUNCTIONS
from bertsmith.nn.linear import Linear, linear
from bertsmith.nn.norm import make_norm


class Pooler(nn.Module):
    """Linear and tanh on the vector of `[CLS]`; every head that reads `[CLS]` shares it (Devlin et al. 2018, A.4)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)

    def forward(self, first_states: Tensor) -> Tensor:
        """`[sequences, hidden_size]` -> `[sequences, hidden_size]`."""
        return torch.tanh(self.dense(first_states))


class MaskedLMHead(nn.Module):
    """Linear, activation, norm, then the decoder: the token embeddings (tied) or a matrix of its own, plus a bias.

    It is given the selected positions only: with 15 % of them, the largest matrix product of a small
    BERT costs 15 %. Devlin et al. 2018, section 3.1; google-research/bert `get_masked_lm_output`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        transform = config.masked_lm_transform
        self.dense = Linear(config.hidden_size, config.hidden_size) if transform else None
        self.norm = make_norm(config) if transform else None
        self.activation = ACTIVATION_FUNCTIONS[config.hidden_act]
        tied = config.tie_word_embeddings
        self.decoder = None if tied else Linear(config.hidden_size, config.padded_vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.rows_added = config.padded_vocab_size - config.vocab_size

    def forward(self, selected_states: Tensor, embedding_weight: Tensor) -> Tensor:
        """`[selected, hidden_size]` and `[padded_vocab_size, hidden_size]` -> `[selected, padded_vocab_size]`.

        The columns past `vocab_size` are -inf: they have probability 0 and get no gradient.
        """
        states = selected_states
        if self.dense is not None and self.norm is not None:
            states = self.norm(self.activation(self.dense(states)))
        bias = F.pad(self.bias, (0, self.rows_added), value=float("-inf")) if self.rows_added else self.bias
        return linear(states, embedding_weight if self.decoder is None else self.decoder.weight, bias)


class LinearHead(nn.Module):
    """Dropout and one linear layer, on the pooled vector or on every token (Devlin et al. 2018, section 4)."""

    def __init__(self, config: EncoderConfig, *, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.linear = Linear(config.hidden_size, outputs)

    def forward(self, states: Tensor) -> Tensor:
        """`[items, hidden_size]` -> `[items, outputs]`."""
        logits: Tensor = self.linear(F.dropout(states, self.dropout, self.training))
        return logits
