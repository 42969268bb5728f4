"""hyunwoongko's `Transformer`, encoder and decoder: key table, shape read off the state dict, and the way back.

His code is Vaswani et al. 2017 with three tables of its own, and without the factor sqrt(d_model). Positions are no
part of the state dict. Not here: his encoder alone, and what the tables share (`interop.seeds`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bertsmith.config.decoder import DecoderConfig
from bertsmith.config.encoder import EncoderConfig
from bertsmith.errors import InputError
from bertsmith.interop.keymap import Concat, Drop, Pad, Rename, Rule, expand, of_vocabulary, to_theirs
from bertsmith.interop.seeds import TABLES, block_rules, check_layout, layer_rules, saved_sines, shape_of, unwrapped
from bertsmith.models.seq2seq import Seq2Seq, twins
from bertsmith.presets import LAYOUTS, WRITING

LAYOUT = "original"
_OURS, _LAYER = "encoder.blocks.{i}", "decoder.layers.{i}"
_NORM = ("gamma", "beta")

DECODER: list[Rename | Concat] = [
    Pad("encoder.embeddings.tokens.weight", "decoder.emb.tok_emb.weight"),
    *block_rules(
        tuple(f"{_LAYER}.self_attention.w_{part}" for part in "qkv"),
        f"{_LAYER}.self_attention.w_concat",
        (f"{_LAYER}.norm1", f"{_LAYER}.norm3"),
        (f"{_LAYER}.ffn.linear1", f"{_LAYER}.ffn.linear2"),
        norm=_NORM,
    ),
    *layer_rules(f"{_OURS}.cross.query", f"{_LAYER}.enc_dec_attention.w_q"),
    *(
        Concat(f"{_OURS}.cross.key_value.{kind}", tuple(f"{_LAYER}.enc_dec_attention.w_{part}.{kind}" for part in "kv"))
        for kind in ("weight", "bias")
    ),
    *layer_rules(f"{_OURS}.cross.output", f"{_LAYER}.enc_dec_attention.w_concat"),
    *layer_rules(f"{_OURS}.cross_norm", f"{_LAYER}.norm2", kinds=_NORM),
]
"""The decoder as an encoder whose blocks have a part more."""

HEAD: list[Rename] = [
    Pad("writer.masked_lm.decoder.weight", "decoder.linear.weight"),
    Rename("writer.masked_lm.bias", "decoder.linear.bias"),
]

SINES = {half: f"{half}.emb.pos_emb.encoding" for half in ("encoder", "decoder")}
"""His attribute, which is neither parameter nor buffer in his own code."""


def is_whole(state: Iterable[str]) -> bool:
    """Whether these names are of an encoder and a decoder."""
    return any(name.removeprefix("module.").startswith("decoder.layers.") for name in state)


def rules_of(encoder: EncoderConfig, decoder: DecoderConfig) -> list[Rule]:
    """The table of a model of this shape."""
    reading = of_vocabulary(expand(TABLES[LAYOUT], encoder), encoder.vocab_size)
    writing: list[Rule] = []
    for rule in expand(DECODER, decoder):
        assert not isinstance(rule, Drop)
        writing.append(replace(rule, ours=f"writer.decoder.{rule.ours.removeprefix('encoder.')}"))
    return [*reading, *of_vocabulary([*writing, *HEAD], decoder.vocab_size)]


def convert_transformer(
    state: Mapping[str, Tensor],
    *,
    num_attention_heads: int,
    max_position_embeddings: int | None = None,
    embedding_scale: bool = False,
    pad_token_ids: tuple[int, int] = (0, 0),
) -> tuple[EncoderConfig, DecoderConfig, dict[str, Tensor], list[Rule]]:
    """The configurations that a state dict tells by its shapes; its tensors, completed by the sines; their table.

    `pad_token_ids`: of the source's and the target's vocabulary. Raises `InputError` naming the tensor that is missing
    or does not fit, and pydantic's `ValidationError` for sizes that contradict each other.
    """
    state = unwrapped(state)
    layout, given = LAYOUTS[LAYOUT] | WRITING[LAYOUT], {"embedding_scale": embedding_scale}
    shapes = {}
    for (half, name), pad_token_id in zip(SINES.items(), pad_token_ids, strict=True):
        positions = max_position_embeddings or (len(state[name]) if name in state else None)
        shapes[half] = given | {"pad_token_id": pad_token_id}
        shapes[half] |= shape_of(
            state,
            layout=LAYOUT,
            num_attention_heads=num_attention_heads,
            max_position_embeddings=positions,
            table=DECODER if half == "decoder" else None,
        )
    encoder = EncoderConfig(**layout | shapes["encoder"])
    decoder = DecoderConfig(**layout | shapes["decoder"], source_size=encoder.hidden_size)
    rules = rules_of(encoder, decoder)
    for config, half, ours in ((encoder, "encoder", "encoder"), (decoder, "decoder", "writer.decoder")):
        state[SINES[half]] = saved_sines(state, SINES[half], config)
        rules.append(Rename(f"{ours}.embeddings.positions.weight", SINES[half]))
    return encoder, decoder, state, rules


@torch.no_grad()
def restore_transformer(model: Seq2Seq) -> dict[str, Tensor]:
    """The way back: a state dict for his class, with equal outputs. What is shared is written out, and scaled token
    vectors are scaled once and for all, as his code has no factor.

    Raises `InputError` if he has no such configuration, naming the fields.
    """
    encoder, decoder = model.encoder.config, model.writer.config
    for config in (encoder, decoder):
        check_layout(config, LAYOUT, LAYOUTS[LAYOUT] | WRITING[LAYOUT], free=("embedding_scale", "tie_word_embeddings"))
    state = dict(model.state_dict())
    state |= {name: state[first] for name, first in twins(model).items()}
    state.setdefault("writer.masked_lm.decoder.weight", state["writer.decoder.embeddings.tokens.weight"])
    for half, config in (("encoder", encoder), ("writer.decoder", decoder)):
        del state[f"{half}.embeddings.positions.weight"]
        if config.embedding_scale:
            state[f"{half}.embeddings.tokens.weight"] = state[f"{half}.embeddings.tokens.weight"] * (
                config.embedding_width**0.5
            )
    if model.project is not None:
        raise InputError(f"this model is not of the layout {LAYOUT}: its halves have different widths")
    return to_theirs(state, rules_of(encoder, decoder), vocab_size=decoder.vocab_size)
