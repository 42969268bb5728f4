"""The encoder: embeddings and a stack of blocks."""

from __future__ import annotations

from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.config.encoder import EncoderConfig
from bertsmith.errors import InputError
from bertsmith.nn.attention import Attention, packed_attention
from bertsmith.nn.block import Block
from bertsmith.nn.embeddings import Embeddings
from bertsmith.nn.init import initialize


class Encoder(nn.Module):
    """BERT without a head (Devlin et al. 2018, section 3).

    Weights are drawn when it is built, from torch's current random state.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        initialize(self, std=config.initializer_range)

    def forward(
        self,
        batch: Batch,
        *,
        attention: Attention = packed_attention,
        hidden_states: list[Tensor] | None = None,
    ) -> Tensor:
        """`[total, hidden_size]`: the vectors after the last block.

        A list given as `hidden_states` receives the output of the embeddings and of every block
        (`num_hidden_layers + 1` tensors). Raises `InputError` for a sequence longer than the positions.
        """
        if batch.max_seqlen > self.config.max_position_embeddings:
            raise InputError(
                f"a sequence has {batch.max_seqlen} tokens, the model has {self.config.max_position_embeddings} "
                "positions; shorten the text"
            )
        states: Tensor = self.embeddings(batch)
        for block in self.blocks:
            if hidden_states is not None:
                hidden_states.append(states)
            states = block(states, batch, attention)
        if hidden_states is not None:
            hidden_states.append(states)
        return states
