"""Give a loaded encoder other linear layers: float32 packed for this processor, bfloat16, or int8.

Afterwards the model answers as before and can neither learn nor be saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.engines.attention import bulk_attention, fast_attention, wide_attention
from bertsmith.engines.linear import Bfloat16Linear, PackedLinear
from bertsmith.models.encoder import Encoder
from bertsmith.nn.attention import SelfAttention
from bertsmith.nn.feedforward import FeedForward

PARTS = ("attention.qkv", "attention.output", "feedforward.intermediate", "feedforward.output")
"""The linear layers of a block."""

BATCH_TOKENS, INT8_TOKENS = 2048, 1024
"""Tokens of a thread's batch: more are no faster, and take more memory."""

OUTLIERS = 8
"""Columns of each layer's input that int8 leaves in float32."""

PROBE_LENGTHS = (8, 8, 16, 16, 32, 32, 64, 64, 128)
"""Lengths of the sequences on which outliers are looked for, and engines are measured."""


def linear_layers(encoder: Encoder) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers of all blocks and their names within the encoder: `"blocks.0.attention.qkv"`, …"""
    for layer in range(len(encoder.blocks)):
        for part in PARTS:
            found = encoder.get_submodule(name := f"blocks.{layer}.{part}")
            assert isinstance(found, nn.Linear)
            yield name, found


def to_packed(encoder: Encoder) -> None:
    """float32 layers in oneDNN's layout, with activation and residual in the product."""
    encoder.attention, encoder.batch_tokens = bulk_attention, BATCH_TOKENS
    _swap(encoder, PackedLinear)


def to_bfloat16(encoder: Encoder) -> None:
    """Layers that multiply in bfloat16, on a GPU attention too; what is added up along the blocks, and the norms, are
    float32."""
    encoder.attention = wide_attention
    if encoder.embeddings.tokens.weight.device.type == "cpu":
        encoder.batch_tokens = BATCH_TOKENS
    _swap(encoder, Bfloat16Linear)


@torch.inference_mode()
def _swap(encoder: Encoder, make: Callable[[nn.Linear, str | None], nn.Module]) -> None:
    for name, layer in list(linear_layers(encoder)):
        owner = encoder.get_submodule(name.rpartition(".")[0])
        activation = None
        if name.endswith("feedforward.intermediate") and not owner.is_gated:
            activation, owner.activation = encoder.config.hidden_act, nn.Identity()
        setattr(owner, name.rpartition(".")[2], make(layer, activation))


@torch.inference_mode()
def to_int8(encoder: Encoder, *, probe: Batch | None = None) -> None:
    """Layers that multiply bytes. Outliers are those that `probe` shows, by default random tokens: which columns are
    large depends on the model more than on the text (Dettmers et al. 2022, section 4)."""
    from bertsmith.engines.int8 import Int8FeedForward, Int8Linear  # numba is an extra

    config = encoder.config
    batch = probe_batch(config.vocab_size, longest=config.max_position_embeddings) if probe is None else probe
    columns = largest_columns(encoder, batch)
    for name, layer in list(linear_layers(encoder)):
        owner, part = encoder.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        if isinstance(owner, SelfAttention):
            setattr(owner, part, Int8Linear(layer, outliers=columns[name]))
    for number, block in enumerate(encoder.blocks):
        inner = block.get_submodule("feedforward")
        assert isinstance(inner, FeedForward)
        first, second = (columns[f"blocks.{number}.{part}"] for part in PARTS[2:])
        block.feedforward = Int8FeedForward(inner, config.hidden_act, outliers=(first, second))
    encoder.attention, encoder.batch_tokens = fast_attention, INT8_TOKENS


def probe_batch(vocab_size: int, *, longest: int) -> Batch:
    """Sequences of random tokens, the same every time, none longer than `longest`."""
    draw = np.random.default_rng(0)
    return Batch.from_sequences([draw.integers(0, vocab_size, min(length, longest)) for length in PROBE_LENGTHS])


@torch.inference_mode()
def largest_columns(encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
    """For each linear layer the columns of its input, at most `OUTLIERS`, whose largest number is the largest."""
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            largest = inputs[0].abs().amax(0)
            found[name] = largest.topk(min(OUTLIERS, len(largest) - 1)).indices

        return look

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in linear_layers(encoder)]
    encoder(batch)
    for hook in hooks:
        hook.remove()
    return found
