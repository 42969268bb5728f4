"""Named sizes (Turc et al. 2019, table 1; Devlin et al. 2018) and layouts (BERT and the source systems)."""

from __future__ import annotations

from typing import Any, Literal

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


GLOBAL_EVERY = 3
"""Of so many layers of the layout `modern` the first one sees the whole sequence, the others a window."""


def size_fields(layers: int, hidden: int, *, layout: str = "bert") -> dict[str, Any]:
    """The `EncoderConfig` fields of BERT's proportions.

    `size_fields(4, 256)` -> 4 layers, hidden 256, 4 heads, intermediate 1024. A gated feed-forward part is two thirds
    as wide, in multiples of 64, so that it has about as many weights (Shazeer 2020, section 2).
    """
    fields: dict[str, Any] = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": max(1, hidden // 64),
        "intermediate_size": 4 * hidden,
    }
    if layout == "modern":
        kinds = ("full_attention", *["sliding_attention"] * (GLOBAL_EVERY - 1))
        fields["intermediate_size"] = max(64, round(8 * hidden / 3 / 64) * 64)
        fields["layer_types"] = tuple(kinds[layer % GLOBAL_EVERY] for layer in range(layers))
    return fields


RecipeName = Literal["classic", "fast"]

RECIPES: dict[str, dict[str, Any]] = {
    "classic": {
        "optimizer": "adamw",
        "learning_rate": 1e-4,
        "schedule": "linear",
        "warmup": 0.01,
        "weight_decay": 0.01,
        "dropout": 0.1,
        "batch_size": 256,
        "mask_rate": 0.15,
        "position_init": "normal",
        "attention_init": "normal",
    },
    "fast": {
        "optimizer": "muon",
        "learning_rate": 2e-3,
        "schedule": "cosine",
        "warmup": 0.05,
        "dropout": 0.0,
        "mask_rate": 0.25,
        "precision": "auto",
        "initializer_range": 0.05,
        "position_init": "sinusoidal",
        "attention_init": "neighbours",
    },
}
"""Name -> options of `pretrain` that it sets where the user sets none.

- `classic`: Devlin et al. 2018, appendix A.2, and google-research/bert: AdamW, 1e-4, batches of 256, 10,000 of
  1,000,000 steps of warm-up, dropout 0.1. Made for weeks on accelerators.
- `fast`: what runs of two to thirty minutes on two cores led to (docs/performance.md): Muon, positions that start as
  sines and heads that look at the tokens beside, larger initial weights, a quarter of the tokens masked, no dropout,
  products in bfloat16 where the processor is much faster with it. `WITHOUT_PAIRS` differs.
"""

WITHOUT_PAIRS: dict[str, dict[str, Any]] = {"fast": {"schedule": "wsd", "mask_rate": 0.4}}
"""Name -> what a recipe sets otherwise where nothing is learnt beside masked tokens (`--objective none`).

A rate that stays high and falls in the last fifth, and 40 % of the tokens masked, learn masked tokens faster; with
pairs they are not shown to be better (docs/performance.md).
"""

SourceLayout = Literal["bert", "codertimo", "handwritten", "original"]
LayoutName = Literal["bert", "modern", "codertimo", "handwritten", "original"]

LAYOUTS: dict[str, dict[str, Any]] = {
    "bert": {},
    "modern": {
        "family": "modernbert",
        "norm_position": "pre",
        "first_norm": False,
        "layer_norm_eps": 1e-5,
        "norm_bias": False,
        "position_kind": "rotary",
        "rope_theta": 160_000.0,
        "feedforward_kind": "gated",
        "mlp_bias": False,
        "type_vocab_size": 0,
        "head_bias": False,
        "pooler_activation": "gelu",
        "pooler_norm": True,
        "token_pooler": True,
        "masked_lm_activation": "gelu",
    },
    "codertimo": {
        "norm_position": "pre",
        "final_norm": False,
        "norm_kind": "std_norm",
        "layer_norm_eps": 1e-6,
        "embedding_norm": False,
        "position_kind": "sinusoidal",
        "type_vocab_size": 3,
        "token_type_offset": 1,
        "hidden_act": "gelu_new",
        "cls_pooler": False,
        "masked_lm_transform": False,
        "tie_word_embeddings": False,
    },
    "handwritten": {
        "embedding_norm": False,
        "layer_norm_eps": 1e-5,
        "hidden_act": "relu",
        "tie_word_embeddings": False,
    },
    "original": {
        "embedding_norm": False,
        "embedding_scale": True,
        "position_kind": "sinusoidal",
        "type_vocab_size": 0,
        "hidden_act": "relu",
    },
}
"""Name -> the `EncoderConfig` fields in which another architecture differs from BERT.

- `modern`: ModernBERT (Warner et al. 2024): rotary positions, windows in two of three layers, gated feed-forward parts,
  pre-norm, few biases. Those of attention it may have, and has here: a head can start from them as one that looks at a
  neighbour (`nn.init`).
- `codertimo`: codertimo/BERT-pytorch. Segment row 0 is padding's; LayerNorm divides by std + eps; no norm at the end.
- `handwritten`: BERT written by hand for teaching, as in "Dive into Deep Learning", section 15.8: learned positions
  from N(0, 1), heads whose size may differ from hidden / heads, heads of two linear layers of their own.
- `original`: the encoder of Vaswani et al. 2017, as in hyunwoongko/transformer; `WRITING` has its decoder.
"""

WRITING: dict[str, dict[str, Any]] = {
    "original": {"cls_pooler": False, "masked_lm_transform": False, "tie_word_embeddings": False},
}
"""Layout -> what differs further in an encoder-decoder: of the head, a matrix and a bias are left."""
