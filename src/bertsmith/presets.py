"""Named sizes: the BERT miniatures of Turc et al. 2019 (table 1), and base and large of Devlin et al. 2018."""

from __future__ import annotations

from typing import Literal

SizeName = Literal["tiny", "mini", "small", "medium", "base", "large"]

SIZES: dict[str, tuple[int, int]] = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
    "large": (24, 1024),
}
"""Name -> (`num_hidden_layers`, `hidden_size`); heads have 64 dimensions, feed-forward is 4 x hidden."""


def size_fields(layers: int, hidden: int) -> dict[str, int]:
    """The `EncoderConfig` fields of BERT's proportions.

    `size_fields(4, 256)` -> 4 layers, hidden 256, 4 heads, intermediate 1024.
    """
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": max(1, hidden // 64),
        "intermediate_size": 4 * hidden,
    }
