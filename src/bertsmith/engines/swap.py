"""Give a loaded model other linear layers: float32 packed for this processor, of an encoder bfloat16 or int8 too.

Afterwards the model answers as before and can neither learn nor be saved.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.engines.attention import bulk_attention, fast_attention, wide_attention
from bertsmith.engines.linear import Bfloat16Linear, PackedHead, PackedLinear
from bertsmith.models.encoder import Encoder
from bertsmith.models.seq2seq import CausalLM, Seq2Seq
from bertsmith.nn.feedforward import FeedForward

log = logging.getLogger("bertsmith")

PARTS = ("attention.qkv", "attention.output", "feedforward.intermediate", "feedforward.output")
"""The linear layers of a block."""

BATCH_TOKENS, INT8_TOKENS = 2048, 1024
"""Tokens of a thread's batch: more are no faster, and take more memory."""

STANDS_OUT = 6.0
"""A column of a layer's input stands out if its largest number is so many times that of the median column."""

OUTLIERS = (2, 5, 8)
"""How many such columns int8 may leave in float32: the fewest that hold all, at most eight. With one more number they
are taken three at a time (`rows.TOGETHER`)."""

MAX_LOSS = 0.005
"""Largest mean of 1 - cosine, of the probe's vectors against those of float32, with which an engine is trusted."""

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
    _swap(encoder.blocks, PackedLinear)


def to_packed_writer(model: CausalLM | Seq2Seq) -> None:
    """The same for a model that writes, and its table of logits: a token at a time the weights are all that is read."""
    writer = model.writer if isinstance(model, Seq2Seq) else model
    activation = writer.config.masked_lm_activation or writer.config.hidden_act
    head = PackedHead(writer.masked_lm, writer.decoder.embeddings.tokens.weight, activation)
    writer.masked_lm = head  # type: ignore[assignment]  # it stands in for a MaskedLMHead
    if isinstance(model, Seq2Seq):
        to_packed(model.encoder)
    _swap(model, PackedLinear)


def to_bfloat16(encoder: Encoder) -> None:
    """Layers that multiply in bfloat16, on a GPU attention too; what is added up along the blocks, and the norms, are
    float32."""
    encoder.attention = wide_attention
    if encoder.embeddings.tokens.weight.device.type == "cpu":
        encoder.batch_tokens = BATCH_TOKENS
    _swap(encoder.blocks, Bfloat16Linear)


@torch.inference_mode()
def _swap(model: nn.Module, make: Callable[[nn.Linear, str | None], nn.Module]) -> None:
    for name, layer in [named for named in model.named_modules() if isinstance(named[1], nn.Linear)]:
        owner, part = model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        activation = None
        if isinstance(owner, FeedForward) and part == "intermediate" and not owner.is_gated:
            activation, owner.activation = owner.hidden_act, nn.Identity()
        setattr(owner, part, make(layer, activation))


@torch.inference_mode()
def to_int8(encoder: Encoder, *, probe: Batch | None = None) -> None:
    """Layers that multiply bytes. Outliers are those that `probe` shows, by default random tokens: which columns are
    large depends on the model more than on the text (Dettmers et al. 2022, section 4).

    If the probe's vectors then lose more than `MAX_LOSS`, the parts that bytes harm most stay float32, which the log
    names.
    """
    config = encoder.config
    batch = probe_batch(config.vocab_size, longest=config.max_position_embeddings) if probe is None else probe
    expected, exact = encoder(batch), _float_parts(encoder)
    rounded = _int8_parts(encoder, largest_columns(encoder, batch))
    encoder.attention, encoder.batch_tokens = fast_attention, INT8_TOKENS
    _put(encoder, rounded)
    loss = loss_of(expected, encoder(batch))
    if loss <= MAX_LOSS or math.isnan(loss):  # what broken weights say is not hidden
        return
    _put(encoder, exact)
    order, kept = _most_harmed_first(encoder, batch, rounded), 0
    _put(encoder, rounded)
    while kept < len(order) and loss_of(expected, encoder(batch)) > MAX_LOSS:
        kept = max(1, 2 * kept)
        _put(encoder, {name: exact[name] for name in order[:kept]})
    log.info("int8: %d of %d parts stay float32: %s", len(order[:kept]), len(order), ", ".join(order[:kept]))


def loss_of(expected: Tensor, found: Tensor) -> float:
    """Mean of 1 - cosine over the rows of two `[rows, size]`."""
    return float((1 - F.cosine_similarity(expected, found, dim=1)).mean())


def _float_parts(encoder: Encoder) -> dict[str, nn.Module]:
    """What int8 replaces, by its name within the encoder: `"blocks.0.attention.qkv"`, `"blocks.0.feedforward"`, …"""
    names = ("attention.qkv", "attention.output", "feedforward")
    places = [f"blocks.{layer}.{name}" for layer in range(len(encoder.blocks)) for name in names]
    return {place: encoder.get_submodule(place) for place in places}


def _int8_parts(encoder: Encoder, columns: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """The same with bytes; `columns`: the outliers of each linear layer."""
    from bertsmith.engines.int8 import Int8FeedForward, Int8Linear  # numba is an extra

    made: dict[str, nn.Module] = {}
    for name, part in _float_parts(encoder).items():
        if isinstance(part, FeedForward):
            outliers = columns[f"{name}.intermediate"], columns[f"{name}.output"]
            made[name] = Int8FeedForward(part, outliers=outliers)
        else:
            assert isinstance(part, nn.Linear)
            made[name] = Int8Linear(part, outliers=columns[name])
    return made


def _put(encoder: Encoder, parts: Mapping[str, nn.Module]) -> None:
    """Set submodules by name."""
    for name, part in parts.items():
        owner, _, last = name.rpartition(".")
        setattr(encoder.get_submodule(owner), last, part)


def _most_harmed_first(encoder: Encoder, batch: Batch, rounded: Mapping[str, nn.Module]) -> list[str]:
    """Names of `rounded`, by how far each part's answer is from that of the float32 part in its place, relative to its
    size, on what that part is given for `batch`."""
    harm: dict[str, float] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(exact: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            expected = exact.forward(inputs[0])
            harm[name] = float((rounded[name](inputs[0]) - expected).norm() / expected.norm())

        return look

    hooks = [encoder.get_submodule(name).register_forward_pre_hook(watch(name)) for name in rounded]
    encoder(batch)
    for hook in hooks:
        hook.remove()
    return sorted(harm, key=harm.__getitem__, reverse=True)


def probe_batch(vocab_size: int, *, longest: int) -> Batch:
    """Sequences of random tokens, the same every time, none longer than `longest`."""
    draw = np.random.default_rng(0)
    return Batch.from_sequences([draw.integers(0, vocab_size, min(length, longest)) for length in PROBE_LENGTHS])


@torch.inference_mode()
def largest_columns(encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
    """For each linear layer the columns of its input that stand out, in a number of `OUTLIERS`."""
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            largest = inputs[0].abs().amax(0)
            standing_out = int((largest > STANDS_OUT * largest.median()).sum())
            count = next((count for count in OUTLIERS if count >= standing_out), OUTLIERS[-1])
            found[name] = largest.topk(min(count, len(largest) - 1)).indices

        return look

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in linear_layers(encoder)]
    encoder(batch)
    for hook in hooks:
        hook.remove()
    return found
