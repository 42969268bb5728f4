"""Key tables and configurations of decoders: transformers' `BertLMHeadModel`, alone and as the half of an
`EncoderDecoderModel`.

Only BERT's names are known here; an encoder-decoder that transformers cannot express has them too, and a `config.json`
of ours. Not here: encoders and their heads (`interop.tables`), hyunwoongko's names (`interop.original`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bertsmith.config.decoder import DecoderConfig
from bertsmith.config.encoder import EncoderConfig
from bertsmith.config.families import differences, read_fields, to_hf
from bertsmith.interop.keymap import Concat, Drop, Rename, Rule, expand, of_vocabulary
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
    return of_vocabulary(expand([*rules, *CROSS], config), config.vocab_size)


def seq2seq_rules(encoder: EncoderConfig, decoder: DecoderConfig) -> list[Rule]:
    """The tensors of a `Seq2Seq` in an `EncoderDecoderModel`, whose encoder is a bare `BertModel` with its pooler."""
    table = TABLES["bert"]
    encoding = [rule for rule in table.rules if isinstance(rule, Drop) or rule.ours.startswith("encoder.")]
    own = of_vocabulary(expand(encoding, encoder), encoder.vocab_size)
    rules = [_theirs(rule, lambda name: "encoder." + name.removeprefix("bert.")) for rule in own]
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


def unlike_bert(encoder: EncoderConfig, decoder: DecoderConfig) -> list[str]:
    """The axes in which transformers' `EncoderDecoderModel` of two BERTs cannot express the two."""
    return list(dict.fromkeys([*differences(encoder), *differences(decoder)]))


def seq2seq_to_hf(encoder: EncoderConfig, decoder: DecoderConfig, *, start: int, end: int) -> dict[str, Any]:
    """The `config.json` of an encoder-decoder whose targets begin with `start` and finish with `end`: of transformers'
    `EncoderDecoderModel`, or, where that cannot express it, ours.

    transformers 4 knows halves that are one as `tie_encoder_decoder`; 5 does not, and reads both.
    """
    ends = {"decoder_start_token_id": start, "eos_token_id": end, "pad_token_id": decoder.pad_token_id}
    if unlike_bert(encoder, decoder):
        halves = {"encoder": encoder.model_dump(mode="json"), "decoder": decoder.model_dump(mode="json")}
        return {"model_type": "bertsmith", "architectures": ["Seq2Seq"], "is_encoder_decoder": True, **halves, **ends}
    shared = {} if decoder.shared == "nothing" else {"shared": decoder.shared}
    tied = {"tie_encoder_decoder": True} if decoder.shared == "halves" else {}
    return {
        "model_type": "encoder-decoder",
        "architectures": ["EncoderDecoderModel"],
        "is_encoder_decoder": True,
        "encoder": to_hf(encoder) | {"architectures": ["BertModel"]},
        "decoder": decoder_to_hf(decoder) | shared,
        **ends,
        **tied,
        "tie_word_embeddings": False,
    }


def is_seq2seq(values: Any) -> bool:
    """Whether a `config.json` is an encoder-decoder's."""
    kind = values.get("model_type") if isinstance(values, dict) else None
    return kind == "encoder-decoder" or (kind == "bertsmith" and bool(values.get("is_encoder_decoder")))


def seq2seq_configs(values: dict[str, Any]) -> tuple[EncoderConfig, DecoderConfig]:
    """The way back from `seq2seq_to_hf`. Raises `ValueError` for what is none of two BERTs, or of ours."""
    is_ours = values["model_type"] == "bertsmith"
    for half in ("encoder", "decoder"):
        found = values.get(half)
        if not isinstance(found, dict) or (not is_ours and found.get("model_type") != "bert"):
            raise ValueError(f"{half} is not a BERT; only encoder-decoders of two BERTs, and bertsmith's, are known")
    reading, writing = values["encoder"], values["decoder"]
    if is_ours:
        return EncoderConfig(**_known(reading, EncoderConfig)), DecoderConfig(**_known(writing, DecoderConfig))
    encoder = EncoderConfig(**read_fields(reading, family="bert"))
    decoder = decoder_config(writing)
    if values.get("tie_encoder_decoder"):
        decoder = decoder.model_copy(update={"shared": "halves"})
    if not decoder.cross_attention:
        raise ValueError("add_cross_attention of the decoder is off: it was never joined to its encoder")
    return encoder, decoder


def _known(values: dict[str, Any], kind: type[EncoderConfig]) -> dict[str, Any]:
    return {name: values[name] for name in kind.model_fields if values.get(name) is not None}


def decoder_config(values: dict[str, Any]) -> DecoderConfig:
    """The decoder of a `BertLMHeadModel`'s `config.json`; `shared` is our addition to it."""
    fields = read_fields(values, family="bert") | {"shared": values.get("shared", "nothing")}
    return DecoderConfig(**fields, cross_attention=bool(values.get("add_cross_attention")))


def with_pooler(state: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """The tensors of an `EncoderDecoderModel` with the pooler that its encoder has and never asks: zeros."""
    return state | {
        "encoder.pooler.dense.weight": torch.zeros(width, width),
        "encoder.pooler.dense.bias": torch.zeros(width),
    }
