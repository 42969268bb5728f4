"""The encoder: embeddings and a stack of blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bertsmith.batch import Batch
from bertsmith.config.encoder import EncoderConfig
from bertsmith.errors import InputError
from bertsmith.nn.attention import Attention, packed_attention
from bertsmith.nn.block import Block
from bertsmith.nn.embeddings import Embeddings
from bertsmith.nn.init import initialize
from bertsmith.nn.norm import make_norm
from bertsmith.nn.rotary import Rotation, rotation


class Encoder(nn.Module):
    """BERT without a head (Devlin et al. 2018, section 3).

    Weights are drawn when it is built, from torch's current random state.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.final_norm = make_norm(config) if config.has_final_norm else nn.Identity()
        self.batch_tokens = 4096
        """Most tokens of a batch with which it answers fast; of a thread's own batch where several run side by side."""
        self.attention: Attention = packed_attention
        """How it attends unless a call says otherwise."""
        self.gradient_checkpointing = False
        """Whether training keeps the inputs of the blocks only, and computes the rest again in the backward pass:
        a block's activations at a time, for a third more work (Chen et al. 2016)."""
        initialize(self, std=config.initializer_range)

    def forward(
        self,
        batch: Batch,
        *,
        attention: Attention | None = None,
        hidden_states: list[Tensor] | None = None,
        inputs_embeds: Tensor | None = None,
        head_mask: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """`[total, hidden_size]`: the vectors after the last block (and the final norm, if there is one).

        `rows` `[rows]`: the only tokens whose vectors a head reads: `[rows, hidden_size]`, as `forward(batch)[rows]`
        without the work on all others in the last block.

        `hidden_states`: a list that receives the output of the embeddings and of every block
        (`num_hidden_layers + 1` tensors; the last one is what is returned).
        `inputs_embeds`: `[total, embedding_width]` instead of the token vectors of `batch.input_ids`.
        `head_mask`: `[num_hidden_layers, num_attention_heads]`, scales the output of each head for this call.
        Raises `InputError` for a sequence longer than the positions, and for a mask of another shape.
        """
        if batch.max_seqlen > self.config.max_position_embeddings:
            raise InputError(
                f"a sequence has {batch.max_seqlen} tokens, the model has {self.config.max_position_embeddings} "
                "positions; shorten the text"
            )
        attention = attention or self.attention
        masks = self._masks_of_layers(head_mask)
        states: Tensor = self.embeddings(batch, inputs_embeds)
        rotations = self._rotations(batch, states.dtype)
        wanted = [None] * (self.config.num_hidden_layers - 1) + [rows]
        for block, mask, turned, kept in zip(self.blocks, masks, rotations, wanted, strict=True):
            if hidden_states is not None:
                hidden_states.append(states)
            if self.gradient_checkpointing and self.training:
                states = checkpoint(block, states, batch, attention, mask, turned, kept, use_reentrant=False)
            else:
                states = block(states, batch, attention, mask, turned, kept)
        states = self.final_norm(states)
        if hidden_states is not None:
            hidden_states.append(states)
        return states

    def _rotations(self, batch: Batch, dtype: torch.dtype) -> list[Rotation | None]:
        """The rotation of each layer, computed once for each base."""
        bases = [self.config.rotary_base(layer) for layer in range(self.config.num_hidden_layers)]
        size = self.config.head_size
        found = {
            base: rotation(batch.position_ids, head_size=size, base=base, dtype=dtype)
            for base in set(bases)
            if base is not None
        }
        return [None if base is None else found[base] for base in bases]

    def _masks_of_layers(self, head_mask: Tensor | None) -> list[Tensor | None]:
        """One `[heads]` for each layer, of the heads that it still has."""
        layers, heads = self.config.num_hidden_layers, self.config.num_attention_heads
        if head_mask is None:
            return [None] * layers
        if head_mask.shape != (layers, heads):
            raise InputError(f"head_mask is {tuple(head_mask.shape)}; expected [layers, heads] = {(layers, heads)}")
        mask = head_mask.to(self.embeddings.tokens.weight)
        return [mask[layer, self.config.kept_heads(layer)] for layer in range(layers)]
