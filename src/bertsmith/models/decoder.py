"""The decoder: the encoder's block with a causal self-attention and, where there is a source, attention to it.

post  x ── self-attention ── (+) norm ── attention to the source ── (+) norm ── feed-forward ── (+) norm ── out

Vaswani et al. 2017, figure 1. Not here: how tokens are chosen (`models.generate`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bertsmith.batch import Batch
from bertsmith.config.decoder import DecoderConfig
from bertsmith.errors import InputError
from bertsmith.nn.attention import Attention
from bertsmith.nn.block import Block
from bertsmith.nn.cross_attention import CrossAttention, Memory, causal_attention
from bertsmith.nn.embeddings import Embeddings
from bertsmith.nn.init import initialize
from bertsmith.nn.norm import make_norm
from bertsmith.nn.rectangle import Rectangle
from bertsmith.nn.rotary import Rotation, rotation


class DecoderBlock(Block):
    """The encoder's block with cross-attention, if there is a source, between its two parts."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.cross = CrossAttention(config) if config.cross_attention else None
        self.cross_norm = make_norm(config) if config.cross_attention else None

    def forward(  # type: ignore[override]  # what it reads stands in place of a mask of heads
        self,
        hidden_states: Tensor,
        batch: Batch,
        attention: Attention,
        rectangle: Rectangle | None,
        memory: Memory | None,
        rotation: Rotation | None,
    ) -> Tensor:
        """`[total, hidden_size]` -> the same; `rectangle` of the targets and `memory` of their sources go together."""
        x = hidden_states
        if self.is_pre_norm:
            x = self._added(x, self.attention, self.attention_norm(x), batch, attention, None, rotation)
            if self.cross is not None and self.cross_norm is not None:
                x = self._added(x, self.cross, self.cross_norm(x), rectangle, memory)
            return self._added(x, self.feedforward, self.feedforward_norm(x))
        x = self.attention_norm(self._added(x, self.attention, x, batch, attention, None, rotation))
        if self.cross is not None and self.cross_norm is not None:
            x = self.cross_norm(self._added(x, self.cross, x, rectangle, memory))
        output: Tensor = self.feedforward_norm(self._added(x, self.feedforward, x))
        return output


class Decoder(nn.Module):
    """A stack of decoder blocks over embeddings of its own.

    Weights are drawn when it is built, from torch's current random state.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(DecoderBlock(config, layer) for layer in range(config.num_hidden_layers))
        self.final_norm = make_norm(config) if config.has_final_norm else nn.Identity()
        self.gradient_checkpointing = False
        """As in an encoder."""
        initialize(self, std=config.initializer_range)

    def read(self, states: Tensor, batch: Batch) -> list[Memory]:
        """The memory of every layer, from an encoder's `states` `[total, source_size]` of the sources in `batch`."""
        rectangle = Rectangle(batch.lengths, states.device)
        crosses = (block.get_submodule("cross") for block in self.blocks)
        return [cross.memory(states, rectangle) for cross in crosses if isinstance(cross, CrossAttention)]

    def forward(
        self,
        batch: Batch,
        memories: Sequence[Memory] = (),
        *,
        attentions: Sequence[Attention] | None = None,
        rectangle: Rectangle | None = None,
    ) -> Tensor:
        """`[total, hidden_size]`: the vectors after the last block.

        `memories`: those of `read`, a row for each sequence of `batch`. `attentions`: one for each layer, instead of
        `causal_attention`; `rectangle`: instead of that of the batch's lengths. Raises `InputError` for a position that
        the model does not have.
        """
        config = self.config
        if config.cross_attention and len(memories) != config.num_hidden_layers:
            raise ValueError(f"{len(memories)} memories for {config.num_hidden_layers} layers that read a source")
        if batch.max_seqlen > config.max_position_embeddings:
            raise InputError(
                f"a target has {batch.max_seqlen} tokens, the model has {config.max_position_embeddings} positions"
            )
        states: Tensor = self.embeddings(batch)
        base = config.rotary_base(0)
        turned = None
        if base is not None:
            turned = rotation(batch.position_ids, head_size=config.head_size, base=base, dtype=states.dtype)
        if rectangle is None and config.cross_attention:
            rectangle = Rectangle(batch.lengths, states.device)
        for layer, block in enumerate(self.blocks):
            attention = causal_attention if attentions is None else attentions[layer]
            memory = memories[layer] if config.cross_attention else None
            given = (states, batch, attention, rectangle, memory, turned)
            if self.gradient_checkpointing and self.training:
                states = checkpoint(block, *given, use_reentrant=False)
            else:
                states = block(*given)
        normed: Tensor = self.final_norm(states)
        return normed


def first_tokens(rows: int, token: int, device: torch.device) -> Batch:
    """A batch of `rows` targets that hold one token yet."""
    return step_batch(torch.full((rows,), token, device=device), torch.zeros(rows, dtype=torch.long, device=device))


def step_batch(tokens: Tensor, places: Tensor) -> Batch:
    """One token for each row, at its place in the row's target: `[rows]` each."""
    rows = len(tokens)
    bounds = torch.arange(rows + 1, dtype=torch.int32, device=tokens.device)
    return Batch(tokens, places, torch.zeros_like(tokens), bounds, (1,) * rows)
