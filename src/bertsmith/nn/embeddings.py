"""Token + position + segment embeddings, then norm and dropout (Devlin et al. 2018, figure 2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.config.encoder import EncoderConfig
from bertsmith.nn.init import sinusoids
from bertsmith.nn.linear import Linear
from bertsmith.nn.norm import make_norm


class SinusoidalPositions(nn.Module):
    """A fixed table of sinusoids. It is saved with the weights, so that a converted one stays what it was."""

    weight: Tensor

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", sinusoids(positions, width))

    def forward(self, position_ids: Tensor) -> Tensor:
        """`[total]` -> `[total, width]`."""
        return self.weight[position_ids]


class Embeddings(nn.Module):
    """From token ids to vectors.

    The token table has `padded_vocab_size` rows; rows past `vocab_size` are never looked up. The row of
    `pad_token_id` starts at zero and gets no look-up gradient.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.embedding_width
        positions = config.max_position_embeddings + config.position_offset
        self.tokens = nn.Embedding(config.padded_vocab_size, width, padding_idx=config.pad_token_id)
        self.scale = width**0.5 if config.embedding_scale else 1.0
        tables = {"learned": nn.Embedding, "sinusoidal": SinusoidalPositions}
        kind = tables.get(config.position_kind)
        self.positions = None if kind is None else kind(positions, width)
        """None where attention turns queries and keys instead."""
        self.first_position = config.position_offset
        self.segments = nn.Embedding(config.type_vocab_size, width) if config.type_vocab_size else None
        self.first_segment = config.token_type_offset
        self.norm = make_norm(config, size=width) if config.embedding_norm else nn.Identity()
        self.project = Linear(width, config.hidden_size) if width != config.hidden_size else None
        self.dropout = config.hidden_dropout_prob

    def forward(self, batch: Batch, inputs_embeds: Tensor | None = None) -> Tensor:
        """`[total]` ids -> `[total, hidden_size]`.

        `inputs_embeds` `[total, embedding_width]` take the place of the token vectors; positions and segments are
        still added to them.
        """
        tokens = self.tokens(batch.input_ids) if inputs_embeds is None else inputs_embeds
        summed = tokens if self.scale == 1.0 else tokens * self.scale
        if self.positions is not None:
            places = batch.position_ids + self.first_position if self.first_position else batch.position_ids
            summed = summed + self.positions(places)
        if self.segments is not None:
            summed = summed + self.segments(batch.token_type_ids + self.first_segment)
        vectors = F.dropout(self.norm(summed), self.dropout, self.training)
        projected: Tensor = vectors if self.project is None else self.project(vectors)
        return projected
