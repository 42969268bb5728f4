"""Key tables of decoders: transformers' `BertLMHeadModel`, alone and as the half of an `EncoderDecoderModel`.

Only BERT's names are known here. Not here: encoders and their heads (`interop.tables`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bertsmith.config.decoder import DecoderConfig
from bertsmith.config.encoder import EncoderConfig
from bertsmith.config.families import to_hf
from bertsmith.interop.keymap import Concat, Drop, Rename, Rule, expand
from bertsmith.interop.tables import TABLES

_LAYER = "bert.encoder.layer.{i}.crossattention"
_BLOCK = "decoder.blocks.{i}"

CROSS: list[Rule] = [
    rule
    for kind in ("weight", "bias")
    for rule in (
        Rename(f"{_BLOCK}.cross.query.{kind}", f"{_LAYER}.self.query.{kind}"),
        Concat(f"{_BLOCK}.cross.key_value.{kind}", tuple(f"{_LAYER}.self.{part}.{kind}" for part in ("key", "value"))),
        Rename(f"{_BLOCK}.cross.output.{kind}", f"{_LAYER}.output.dense.{kind}"),
        Rename(f"{_BLOCK}.cross_norm.{kind}", f"{_LAYER}.output.LayerNorm.{kind}"),
    )
]
"""What a decoder's blocks have beside an encoder's."""


def causal_rules(config: DecoderConfig) -> list[Rule]:
    """The tensors of a `CausalLM` in a `BertLMHeadModel`."""
    table = TABLES["bert"]
    own = [rule for rule in table.rules if isinstance(rule, Drop) or not rule.ours.startswith("next_sentence.")]
    rules = [rule if isinstance(rule, Drop) else _renamed(rule, "encoder.", "decoder.") for rule in own]
    return expand([*rules, *CROSS], config)


def seq2seq_rules(encoder: EncoderConfig, decoder: DecoderConfig) -> list[Rule]:
    """The tensors of a `Seq2Seq` in an `EncoderDecoderModel`, whose encoder is a bare `BertModel` with its pooler."""
    table = TABLES["bert"]
    encoding = [rule for rule in table.rules if isinstance(rule, Drop) or rule.ours.startswith("encoder.")]
    rules = [_theirs(rule, lambda name: "encoder." + name.removeprefix("bert.")) for rule in expand(encoding, encoder)]
    writing = [_theirs(rule, lambda name: "decoder." + name) for rule in causal_rules(decoder)]
    rules += [rule if isinstance(rule, Drop) else replace(rule, ours=f"writer.{rule.ours}") for rule in writing]
    rules += [Rename(f"project.{kind}", f"enc_to_dec_proj.{kind}") for kind in ("weight", "bias")]
    return rules + [Drop(f"encoder.pooler.dense.{kind}") for kind in ("weight", "bias")]


def _renamed(rule: Rename | Concat, before: str, after: str) -> Rename | Concat:
    return replace(rule, ours=after + rule.ours.removeprefix(before)) if rule.ours.startswith(before) else rule


def _theirs(rule: Rule, change: Callable[[str], str]) -> Rule:
    if isinstance(rule, Concat):
        return replace(rule, theirs=tuple(change(name) for name in rule.theirs))
    return replace(rule, theirs=change(rule.theirs))


def decoder_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` of a `BertLMHeadModel`. Raises `ValueError` for a shape that transformers' BERT has not."""
    values = to_hf(EncoderConfig(**{name: getattr(config, name) for name in EncoderConfig.model_fields}))
    if values["model_type"] != "bert":
        raise ValueError("transformers' BERT cannot express this decoder")
    return values | {
        "architectures": ["BertLMHeadModel"],
        "is_decoder": True,
        "add_cross_attention": config.cross_attention,
    }


def seq2seq_to_hf(encoder: EncoderConfig, decoder: DecoderConfig, *, start: int, end: int) -> dict[str, Any]:
    """The `config.json` of an `EncoderDecoderModel` whose targets begin with `start` and finish with `end`."""
    return {
        "model_type": "encoder-decoder",
        "architectures": ["EncoderDecoderModel"],
        "is_encoder_decoder": True,
        "encoder": to_hf(encoder) | {"architectures": ["BertModel"]},
        "decoder": decoder_to_hf(decoder),
        "decoder_start_token_id": start,
        "eos_token_id": end,
        "pad_token_id": decoder.pad_token_id,
        "tie_word_embeddings": False,
    }


def with_pooler(state: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """The tensors of an `EncoderDecoderModel` with the pooler that its encoder has and never asks: zeros."""
    return state | {
        "encoder.pooler.dense.weight": torch.zeros(width, width),
        "encoder.pooler.dense.bias": torch.zeros(width),
    }
