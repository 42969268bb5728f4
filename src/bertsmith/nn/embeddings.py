"""Token + position + segment embeddings, then LayerNorm and dropout (Devlin et al. 2018, figure 2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.config.encoder import EncoderConfig


class Embeddings(nn.Module):
    """From token ids to vectors.

    The token table has `padded_vocab_size` rows; rows past `vocab_size` are never looked up. The row of
    `pad_token_id` starts at zero and gets no look-up gradient.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.padded_vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.segments = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob

    def forward(self, batch: Batch) -> Tensor:
        """`[total]` ids -> `[total, hidden_size]`."""
        summed = self.tokens(batch.input_ids) + self.positions(batch.position_ids) + self.segments(batch.token_type_ids)
        return F.dropout(self.norm(summed), self.dropout, self.training)
