"""How much arithmetic a forward pass requires: matrix products on real tokens, nothing else.

A product of [n, k] and [k, m] counts 2 n k m. Padding, recomputation, norms and activations do not count, so
"percent of peak" cannot be raised by doing needless work.
"""

from __future__ import annotations

from collections.abc import Sequence

from bertsmith.config.encoder import EncoderConfig


def seen_pairs(length: int, window: int | None) -> int:
    """Pairs of tokens of which one sees the other: `length`², or those at most `window` apart."""
    if window is None or length <= window + 1:
        return length * length
    return length * (2 * window + 1) - window * (window + 1)


def block_flops(
    config: EncoderConfig, layer: int, *, lengths: Sequence[int], rows: int | None = None
) -> dict[str, int]:
    """The products of block `layer`, by part, for sequences of these lengths; `rows`: how many tokens come out of it.

    Where the heads together are as wide as H, as in BERT, T is the number of tokens and S² the sum of the squared
    lengths: 6 T H² and 2 T H² for the projections, 2 S² H each for QKᵀ and PV, 2 T H I each for the two sides of the
    feed-forward part. A window leaves fewer pairs than S², a decoder half of them, a gate doubles the first of those
    sides.
    """
    tokens, window = sum(lengths), config.window(layer)
    squares = sum(seen_pairs(length, window) for length in lengths)
    if config.is_causal:
        squares = (squares + tokens) // 2
    heads = len(config.kept_heads(layer))
    inner = config.intermediate_size * (2 if config.feedforward_kind == "gated" else 1)
    keys, values = heads * config.head_size, heads * config.value_size
    out = tokens if rows is None else rows
    return {
        "qkv": linear_flops(config, tokens, outputs=2 * keys + values),
        "scores": 2 * squares * keys,
        "context": 2 * squares * values,
        "output": linear_flops(config, out, outputs=values),
        "feedforward_in": linear_flops(config, out, outputs=inner),
        "feedforward_out": linear_flops(config, out, outputs=config.intermediate_size),
    }


def encoder_flops(config: EncoderConfig, lengths: Sequence[int], *, rows: int | None = None) -> int:
    """All blocks, for sequences of these lengths, and the projection of the embeddings, where there is one.

    `rows`: how many tokens a head reads, if not all; the last block gives no others.
    """
    last = config.num_hidden_layers - 1
    blocks = sum(
        sum(block_flops(config, layer, lengths=lengths, rows=rows if layer == last else None).values())
        for layer in range(last + 1)
    )
    return blocks + projection_flops(config, sum(lengths))


def pooled_encoder_flops(config: EncoderConfig, lengths: Sequence[int]) -> int:
    """`encoder_flops` where one vector of each sequence is read."""
    return encoder_flops(config, lengths, rows=len(lengths) if config.pooler_input == "cls" else None)


def projection_flops(config: EncoderConfig, tokens: int) -> int:
    """From the width of the embeddings to H, where they differ."""
    is_needed = config.embedding_width != config.hidden_size
    return linear_flops(config, tokens, outputs=config.embedding_width) if is_needed else 0


def masked_lm_flops(config: EncoderConfig, selected: int) -> int:
    """The MLM head on `selected` positions: dense H x E, where it has one, and decoder E x V; E = H in BERT."""
    width = config.embedding_width if config.masked_lm_transform else config.hidden_size
    dense = linear_flops(config, selected, outputs=width) if config.masked_lm_transform else 0
    return dense + 2 * selected * width * config.vocab_size


def pooled_flops(config: EncoderConfig, sequences: int, *, classes: int) -> int:
    """Pooler H x H, where there is one, and a linear layer to `classes`, once per sequence."""
    dense = config.hidden_size if config.cls_pooler else 0
    return linear_flops(config, sequences, outputs=dense + classes)


def token_flops(config: EncoderConfig, tokens: int, *, classes: int) -> int:
    """A linear layer to `classes` on every token, through the pooler's in families where heads on tokens read that."""
    dense = config.hidden_size if config.token_pooler and config.cls_pooler else 0
    return linear_flops(config, tokens, outputs=dense + classes)


def linear_flops(config: EncoderConfig, items: int, *, outputs: int) -> int:
    """A linear layer between H and `outputs`, in either direction, on `items` vectors."""
    return 2 * items * config.hidden_size * outputs
