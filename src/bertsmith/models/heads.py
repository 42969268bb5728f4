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
    """Linear and tanh on the vector of `[CLS]`; every head that reads `[CLS]` shares it (Devlin et al. 2018, A.4).

    Other families have other activations, and ModernBERT a norm after it.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size, bias=config.head_bias)
        self.activation = ACTIVATION_FUNCTIONS[config.pooler_activation]
        self.norm = make_norm(config) if config.pooler_norm else nn.Identity()

    def forward(self, states: Tensor) -> Tensor:
        """`[items, hidden_size]` -> `[items, hidden_size]`."""
        pooled: Tensor = self.norm(self.activation(self.dense(states)))
        return pooled


class MaskedLMHead(nn.Module):
    """Linear, activation, norm, then the decoder: the token embeddings (tied) or a matrix of its own, plus a bias.

    It is given the selected positions only: with 15 % of them, the largest matrix product of a small
    BERT costs 15 %. Devlin et al. 2018, section 3.1; google-research/bert `get_masked_lm_output`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        transform = config.masked_lm_transform
        width = config.embedding_width if transform else config.hidden_size
        self.dense = Linear(config.hidden_size, width, bias=config.head_bias) if transform else None
        self.norm = make_norm(config, size=width) if transform else None
        self.activation = ACTIVATION_FUNCTIONS[config.masked_lm_activation or config.hidden_act]
        tied = config.tie_word_embeddings
        self.decoder = None if tied else Linear(width, config.padded_vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.decoder_bias else None
        self.vocab_size = config.vocab_size
        self.rows_added = config.padded_vocab_size - config.vocab_size

    def forward(self, selected_states: Tensor, embedding_weight: Tensor) -> Tensor:
        """`[selected, hidden_size]` and `[padded_vocab_size, hidden_size]` -> `[selected, padded_vocab_size]`.

        The columns past `vocab_size` are -inf: they have probability 0 and get no gradient.
        """
        states = selected_states
        if self.dense is not None and self.norm is not None:
            states = self.norm(self.activation(self.dense(states)))
        return linear(states, *self.table(embedding_weight))

    def table(self, embedding_weight: Tensor) -> tuple[Tensor, Tensor]:
        """Weight `[padded_vocab_size, width]` and bias `[padded_vocab_size]` of the last product."""
        weight = embedding_weight if self.decoder is None else self.decoder.weight
        bias = weight.new_zeros(self.vocab_size) if self.bias is None else self.bias
        return weight, F.pad(bias, (0, self.rows_added), value=float("-inf")) if self.rows_added else bias


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


class Discriminator(nn.Module):
    """Whether each token was replaced: linear, activation, linear to one number (Clark et al. 2020, section 2)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATION_FUNCTIONS[config.hidden_act]
        self.linear = Linear(config.hidden_size, 1)

    def forward(self, states: Tensor) -> Tensor:
        """`[items, hidden_size]` -> `[items, 1]`; above 0: more likely replaced than not."""
        logits: Tensor = self.linear(self.activation(self.dense(states)))
        return logits
