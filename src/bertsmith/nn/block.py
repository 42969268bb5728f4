"""One encoder block, post-norm as in BERT, or pre-norm.

post  x ──┬── self-attention ── dropout ──(+)── norm ──┬── feed-forward ── dropout ──(+)── norm ── out
          └────────────────────────────────┘             └────────────────────────────┘

pre   x ──┬── norm ── self-attention ── dropout ──(+)──┬── norm ── feed-forward ── dropout ──(+)── out
          └────────────────────────────────────────┘   └──────────────────────────────────────┘
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.config.encoder import EncoderConfig
from bertsmith.nn.attention import Attention, SelfAttention, at
from bertsmith.nn.feedforward import FeedForward
from bertsmith.nn.norm import make_norm
from bertsmith.nn.rotary import Rotation


class Block(nn.Module):
    """Self-attention and feed-forward, each with dropout, residual and norm.

    Post-norm: Vaswani et al. 2017, section 3.1; pre-norm: Xiong et al. 2020, figure 1.
    """

    def __init__(self, config: EncoderConfig, layer: int) -> None:
        super().__init__()
        self.attention = SelfAttention(config, layer)
        has_norm = layer > 0 or config.first_norm
        self.attention_norm = make_norm(config) if has_norm else nn.Identity()
        self.feedforward = FeedForward(config)
        self.feedforward_norm = make_norm(config)
        self.dropout = config.hidden_dropout_prob
        self.is_pre_norm = config.norm_position == "pre"

    def forward(
        self,
        hidden_states: Tensor,
        batch: Batch,
        attention: Attention,
        head_mask: Tensor | None = None,
        rotation: Rotation | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """`[total, hidden_size]` -> `[total, hidden_size]`; `head_mask` `[heads]` scales what each head says.

        `rows` `[rows]`: the only tokens whose output is computed; they see all others.
        """
        x = hidden_states
        if self.is_pre_norm:
            asked = self.attention_norm(x)
            x = self._added(at(rows, x), self.attention, asked, batch, attention, head_mask, rotation, rows)
            return self._added(x, self.feedforward, self.feedforward_norm(x))
        x = self._added(at(rows, x), self.attention, x, batch, attention, head_mask, rotation, rows)
        x = self.attention_norm(x)
        output: Tensor = self.feedforward_norm(self._added(x, self.feedforward, x))
        return output

    def _added(self, residual: Tensor, part: nn.Module, *arguments: Any) -> Tensor:
        """The residual, and what a part makes of its arguments, with dropout."""
        if self.training and self.dropout > 0:
            return residual + F.dropout(part(*arguments), self.dropout)
        result: Tensor = part(*arguments, residual=residual)
        return result
