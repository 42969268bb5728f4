"""How much arithmetic a forward pass requires: matrix products on real tokens, nothing else.

A product of [n, k] and [k, m] counts 2 n k m. Padding, recomputation, norms and activations do not count, so
"percent of peak" cannot be raised by doing needless work.
"""

from __future__ import annotations

from collections.abc import Sequence

from bertsmith.config.encoder import EncoderConfig


def encoder_flops(config: EncoderConfig, lengths: Sequence[int]) -> int:
    """The blocks, for sequences of these lengths.

    Per token and block: 2 (4 H² + 2 H I); per sequence of length s and block: 4 s² H for QKᵀ and PV.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    per_token = 2 * (4 * hidden * hidden + 2 * hidden * inner)
    attention = 4 * hidden * sum(length * length for length in lengths)
    return config.num_hidden_layers * (sum(lengths) * per_token + attention)


def masked_lm_flops(config: EncoderConfig, selected: int) -> int:
    """The MLM head on `selected` positions: dense H x H, decoder H x V."""
    return 2 * selected * config.hidden_size * (config.hidden_size + config.vocab_size)


def pooled_flops(config: EncoderConfig, sequences: int, *, classes: int) -> int:
    """Pooler H x H and a linear layer to `classes`, once per sequence."""
    return 2 * sequences * config.hidden_size * (config.hidden_size + classes)
