"""An encoder that reads and a decoder that writes (Vaswani et al. 2017), and a decoder alone that goes on with a text.

Not here: how tokens are chosen (`models.generate`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.config.decoder import DecoderConfig
from bertsmith.config.encoder import EncoderConfig
from bertsmith.models.decoder import Decoder, step_batch
from bertsmith.models.encoder import Encoder
from bertsmith.models.heads import MaskedLMHead
from bertsmith.nn.attention import Attention
from bertsmith.nn.cross_attention import Memory, Past
from bertsmith.nn.init import initialize
from bertsmith.nn.linear import Linear


class CausalLM(nn.Module):
    """A decoder with a head that guesses the next token; the head is a BERT's MLM head (`BertLMHeadModel`)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = Decoder(config)
        self.masked_lm = MaskedLMHead(config)
        initialize(self.masked_lm, std=config.initializer_range)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.embeddings.tokens.weight.device

    @property
    def num_parameters(self) -> int:
        """Trained values as a file has them: without the rows that pad the vocabulary."""
        tables = 1 if self.masked_lm.decoder is None else 2
        padding = (self.config.padded_vocab_size - self.config.vocab_size) * self.config.embedding_width
        return sum(parameter.numel() for parameter in self.parameters()) - tables * padding

    def next_logits(self, states: Tensor) -> Tensor:
        """`[tokens, hidden_size]` -> `[tokens, padded_vocab_size]`, of the token after each."""
        logits: Tensor = self.masked_lm(states, self.decoder.embeddings.tokens.weight)
        return logits

    def forward(self, batch: Batch, memories: Sequence[Memory] = ()) -> Tensor:
        """`[total, padded_vocab_size]`: at each token the logits of the next one."""
        return self.next_logits(self.decoder(batch, memories))


class Seq2Seq(nn.Module):
    """An encoder, and a `CausalLM` that reads its states.

    What the two share (`DecoderConfig.shared`) is one module. Its tensors stand in `state_dict` once, under the
    encoder's names, and are loaded from there.
    """

    def __init__(self, encoder: EncoderConfig, decoder: DecoderConfig) -> None:
        super().__init__()
        decoder.check_encoder(encoder)
        self.encoder = Encoder(encoder)
        self.writer = CausalLM(decoder)
        share(self.encoder, self.writer.decoder)
        self.register_state_dict_post_hook(_without_twins)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_twins)  # type: ignore[no-untyped-call]
        width = decoder.source_size or decoder.hidden_size
        self.project = Linear(encoder.hidden_size, width) if encoder.hidden_size != width else None
        """Between states and a decoder of another width (`enc_to_dec_proj` of transformers)."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.embeddings.tokens.weight.device

    @property
    def num_parameters(self) -> int:
        """Trained values as a file has them: without the rows that pad the vocabularies."""
        own = self.writer.config
        tables = {  # a shared one counts once
            self.encoder.embeddings.tokens: self.encoder.config,
            self.writer.decoder.embeddings.tokens: own,
            self.writer.masked_lm.decoder: own,
        }
        padding = sum(
            (config.padded_vocab_size - config.vocab_size) * table.weight.shape[1]
            for table, config in tables.items()
            if table is not None
        )
        return sum(parameter.numel() for parameter in self.parameters()) - padding

    def read(self, source: Batch) -> list[Memory]:
        """What the decoder needs of the sources."""
        states = self.encoder(source)
        return self.writer.decoder.read(states if self.project is None else self.project(states), source)

    def forward(self, source: Batch, target: Batch) -> Tensor:
        """`[total of target, padded_vocab_size]`: at each token of the targets the logits of the next one.

        Sequence i of `target` is written from sequence i of `source`.
        """
        logits: Tensor = self.writer(target, self.read(source))
        return logits


def share(encoder: Encoder, decoder: Decoder) -> None:
    """Put the encoder's parts in the places of the decoder's that its configuration names."""
    shared = decoder.config.shared
    if shared == "tokens":
        decoder.embeddings.tokens = encoder.embeddings.tokens
    elif shared == "halves":
        decoder.embeddings, decoder.final_norm = encoder.embeddings, encoder.final_norm
        for own, theirs in zip(decoder.blocks, encoder.blocks, strict=True):
            for part in ("attention", "attention_norm", "feedforward", "feedforward_norm"):
                setattr(own, part, theirs.get_submodule(part))


def twins(model: nn.Module) -> dict[str, str]:
    """Each further name of a tensor that has several -> the first: `{"writer.decoder.….bias": "encoder.….bias"}`."""
    first: dict[int, str] = {}
    found: dict[str, str] = {}
    for named in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)):
        for name, tensor in named:
            if first.setdefault(id(tensor), name) != name:
                found[name] = first[id(tensor)]
    return found


def _without_twins(model: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: object) -> None:
    for name in twins(model):
        state.pop(prefix + name, None)


def _with_twins(model: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    for name, first in twins(model).items():
        if prefix + first in state:
            state.setdefault(prefix + name, state[prefix + first])


class Writing:
    """Targets that are being written, a token at a time: keys and values of what was written stay in memory."""

    def __init__(self, model: CausalLM, memories: Sequence[Memory], *, rows: int, capacity: int) -> None:
        """`rows` targets of at most `capacity` tokens; `memories` have a row for each."""
        self.model, self.memories, self.capacity = model, list(memories), capacity
        self.places = torch.zeros(rows, dtype=torch.long, device=model.decoder.embeddings.tokens.weight.device)
        """`[rows]`: where the next token of each stands."""
        self.past: list[Past] = []
        self.longest, self.is_even = 0, True
        """Of the step that is taken: one more than the last place, and whether all rows have that place."""

    def step(self, tokens: Tensor) -> Tensor:
        """`[rows]`, the next token of each target -> `[rows, vocab_size]`, the logits of the one after it."""
        places = self.places.tolist()
        self.longest, self.is_even = max(places) + 1, min(places) == max(places)
        attentions = [self._attention(layer) for layer in range(self.model.config.num_hidden_layers)]
        states = self.model.decoder(step_batch(tokens, self.places), self.memories, attentions=attentions)
        self.places = self.places + 1
        return self.model.next_logits(states)[:, : self.model.config.vocab_size]

    def select(self, rows: Tensor) -> None:
        """Keep some targets, in a new order, perhaps several times: finished ones leave, beams fork."""
        self.memories = [memory.select(rows) for memory in self.memories]
        for past in self.past:
            past.select(rows)
        self.places = self.places[rows]

    def _attention(self, layer: int) -> Attention:
        def attention(
            query: Tensor, key: Tensor, value: Tensor, batch: Batch, dropout: float, window: int | None = None
        ) -> Tensor:
            assert not dropout
            assert window is None
            if layer == len(self.past):
                self.past.append(Past(len(key), self.capacity, like=(key, value)))
            past, longest = self.past[layer], self.longest
            past.write(key, value, longest - 1 if self.is_even else batch.position_ids)
            keys, values = past.keys[:, :, :longest], past.values[:, :, :longest]
            seen = None
            if not self.is_even:
                seen = (torch.arange(longest, device=key.device) <= batch.position_ids[:, None])[:, None, None]
            context = F.scaled_dot_product_attention(query[:, :, None], keys, values, attn_mask=seen)
            return context[:, :, 0]

        return attention
