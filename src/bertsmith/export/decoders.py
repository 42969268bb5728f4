"""Graphs of models that write: an encoder, and a decoder's step with a cache, under the names that optimum gives them.

    encoder_model.onnx             source -> its states
    decoder_model.onnx             states, the first tokens -> logits; keys and values of them and of the source
    decoder_with_past_model.onnx   these keys and values, the next token -> logits; keys and values of the target

A decoder alone is one file, `model.onnx`, whose past may have length 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from bertsmith.export.answers import drop_spare_rows
from bertsmith.export.dense import (
    CachedAttention,
    DenseAttention,
    FullRectangle,
    PaddedBatch,
    causal_bias,
    unseen,
)
from bertsmith.export.part import BOTH, LENGTH, PAST, ROWS, SOURCE, TARGET, Axes, Part
from bertsmith.models.seq2seq import CausalLM, Seq2Seq
from bertsmith.nn.cross_attention import CrossAttention, Memory

Pair = tuple[Tensor, Tensor]
"""Keys and values of a layer, `[rows, heads, length, size]` each."""


def write(
    model: CausalLM,
    input_ids: Tensor,
    past: Sequence[Pair] | None,
    memories: Sequence[Memory] = (),
    *,
    mask: Tensor | None = None,
) -> tuple[Tensor, list[Pair]]:
    """`[rows, length]` tokens after `past` -> logits `[rows, length, vocab_size]`, and past and tokens together.

    `mask` `[rows, past + length]`, bool: what of both is a token; by default all.
    """
    rows, length = input_ids.shape
    before = 0 if past is None else past[0][0].shape[2]
    dtype = model.decoder.embeddings.tokens.weight.dtype
    bias = causal_bias(before, length, device=input_ids.device, dtype=dtype, mask=mask)
    layers = [None] * model.config.num_hidden_layers if past is None else past
    attentions = [CachedAttention(pair, bias) for pair in layers]
    batch = PaddedBatch.from_rows(input_ids, torch.ones_like(input_ids, dtype=torch.bool), None, first=before)
    states = model.decoder(batch, memories, attentions=attentions, rectangle=FullRectangle(rows, length))
    present = [attention.present for attention in attentions if attention.present is not None]
    return batch.rows_of(model.next_logits(states)), present


def paired(values: Sequence[Tensor]) -> list[Pair]:
    """`(key, value, key, …)` -> `[(key, value), …]`."""
    return list(zip(values[::2], values[1::2], strict=True))


class ReaderGraph(nn.Module):
    """The encoder of a `Seq2Seq`."""

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """`[rows, length]` each -> `[rows, length, hidden_size]`."""
        batch = PaddedBatch.from_rows(input_ids, attention_mask != 0, None)
        return batch.rows_of(self.encoder(batch, attention=DenseAttention(batch.mask)))


class FirstStep(nn.Module):
    """The first tokens of targets, and what later steps need of the sources."""

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        self.writer, self.project = model.writer, model.project

    def forward(
        self, input_ids: Tensor, encoder_attention_mask: Tensor, encoder_hidden_states: Tensor
    ) -> tuple[Tensor, ...]:
        """`[rows, length]`, `[rows, source]`, `[rows, source, size]` -> logits `[rows, length, vocab_size]`, and for
        each layer keys and values of the target and of the source."""
        states = encoder_hidden_states if self.project is None else self.project(encoder_hidden_states)
        seen = _bias_of(encoder_attention_mask, states.dtype)
        rectangle = FullRectangle(*encoder_attention_mask.shape)
        crosses = (block.get_submodule("cross") for block in self.writer.decoder.blocks)
        memories = [
            replace(cross.memory(states.flatten(0, 1), rectangle), is_real=seen)
            for cross in crosses
            if isinstance(cross, CrossAttention)
        ]
        logits, present = write(self.writer, input_ids, None, memories)
        kept = [(*own, memory.key, memory.value) for own, memory in zip(present, memories, strict=True)]
        return logits, *(part for layer in kept for part in layer)


class NextStep(nn.Module):
    """The next tokens of targets."""

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        self.writer = model.writer

    def forward(self, input_ids: Tensor, encoder_attention_mask: Tensor, past: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """`past`: what `FirstStep` gave -> logits, and for each layer keys and values of the target."""
        pairs = paired(past)
        seen = _bias_of(encoder_attention_mask, past[0].dtype)
        memories = [Memory(key, value, seen) for key, value in pairs[1::2]]
        logits, present = write(self.writer, input_ids, pairs[::2], memories)
        return logits, *(part for pair in present for part in pair)


class CausalGraph(nn.Module):
    """A decoder alone."""

    def __init__(self, model: CausalLM) -> None:
        super().__init__()
        self.writer = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, past: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """`[rows, length]`, `[rows, past + length]` -> logits, and for each layer keys and values of both."""
        logits, present = write(self.writer, input_ids, paired(past), mask=attention_mask != 0)
        return logits, *(part for pair in present for part in pair)


def _bias_of(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return unseen((mask != 0)[:, None, None], dtype)


def seq2seq_parts(model: Seq2Seq) -> list[Part]:
    """The three files of an encoder-decoder. The model's spare rows are taken away."""
    drop_spare_rows(model.encoder.embeddings, None, size=model.encoder.config.vocab_size)
    config = model.writer.config
    drop_spare_rows(model.writer.decoder.embeddings, model.writer.masked_lm, size=config.vocab_size)
    layers, heads, size = range(config.num_hidden_layers), config.num_attention_heads, config.vocab_size
    width = model.encoder.config.hidden_size
    states = torch.ones(2, 5, width)
    read = Part(
        "encoder_model",
        ReaderGraph(model),
        (_ones(2, 5), _ones(2, 5)),
        dict.fromkeys(("input_ids", "attention_mask"), (ROWS, LENGTH)),
        {"last_hidden_state": (ROWS, LENGTH, width)},
    )
    tokens: dict[str, Axes] = {"input_ids": (ROWS, TARGET), "encoder_attention_mask": (ROWS, SOURCE)}
    logits: dict[str, Axes] = {"logits": (ROWS, TARGET, size)}
    sizes = {"key": config.head_size, "value": config.value_size}

    def cache(prefix: str, lengths: dict[str, str]) -> dict[str, Axes]:
        return {
            f"{prefix}.{layer}.{side}.{what}": (ROWS, heads, length, sizes[what])
            for layer in layers
            for side, length in lengths.items()
            for what in sizes
        }

    first = Part(
        "decoder_model",
        FirstStep(model),
        (_ones(2, 3), _ones(2, 5), states),
        tokens | {"encoder_hidden_states": (ROWS, SOURCE, width)},
        logits | cache("present", {"decoder": TARGET, "encoder": SOURCE}),
    )
    past = cache("past_key_values", {"decoder": PAST, "encoder": SOURCE})
    following = Part(
        "decoder_with_past_model",
        NextStep(model),
        (_ones(2, 3), _ones(2, 5), _filled(past, {ROWS: 2, PAST: 4, SOURCE: 5})),
        tokens | past,
        logits | cache("present", {"decoder": BOTH}),
    )
    return [read, first, following]


def causal_part(model: CausalLM) -> Part:
    """The file of a decoder alone. The model's spare rows are taken away."""
    config = model.config
    drop_spare_rows(model.decoder.embeddings, model.masked_lm, size=config.vocab_size)
    sizes = {"key": config.head_size, "value": config.value_size}

    def cache(prefix: str, length: str) -> dict[str, Axes]:
        return {
            f"{prefix}.{layer}.{what}": (ROWS, config.num_attention_heads, length, size)
            for layer in range(config.num_hidden_layers)
            for what, size in sizes.items()
        }

    past = cache("past_key_values", PAST)
    return Part(
        "model",
        CausalGraph(model),
        (_ones(2, 3), _ones(2, 7), _filled(past, {ROWS: 2, PAST: 4})),
        {"input_ids": (ROWS, LENGTH), "attention_mask": (ROWS, BOTH)} | past,
        {"logits": (ROWS, LENGTH, config.vocab_size)} | cache("present", BOTH),
    )


def _ones(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.long)


def _filled(tensors: dict[str, Axes], sizes: dict[str, int]) -> tuple[Tensor, ...]:
    """A tensor for each, with these sizes of the named axes."""
    return tuple(
        torch.ones([sizes[axis] if isinstance(axis, str) else axis for axis in axes]) for axes in tensors.values()
    )
