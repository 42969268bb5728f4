"""One encoder block, post-norm as in the original Transformer.

x ──┬── self-attention ── dropout ──(+)── norm ──┬── feed-forward ── dropout ──(+)── norm ── out
    └──────────────────────────────┘             └──────────────────────────────┘
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.config.encoder import EncoderConfig
from bertsmith.nn.attention import Attention, SelfAttention
from bertsmith.nn.feedforward import FeedForward


class Block(nn.Module):
    """Self-attention and feed-forward, each with dropout, residual and LayerNorm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feedforward = FeedForward(config)
        self.feedforward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob

    def forward(self, hidden_states: Tensor, batch: Batch, attention: Attention) -> Tensor:
        """`[total, hidden_size]` -> `[total, hidden_size]`."""
        attended = F.dropout(self.attention(hidden_states, batch, attention), self.dropout, self.training)
        hidden_states = self.attention_norm(hidden_states + attended)
        transformed = F.dropout(self.feedforward(hidden_states), self.dropout, self.training)
        output: Tensor = self.feedforward_norm(hidden_states + transformed)
        return output
