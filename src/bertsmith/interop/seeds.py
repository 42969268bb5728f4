"""The source systems' key tables, and the shape of a network read off its state dict.

Not here: what the layouts mean (`presets.LAYOUTS`), and reading files (`interop.weights`).

A state dict has no configuration beside it. All but three facts can be read off the shapes of its tensors: how
many heads there are; how long a sequence may be where the positions are sines that were not saved; and, of
`original`, whether token vectors are scaled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from bertsmith.config.encoder import EncoderConfig
from bertsmith.config.families import differences
from bertsmith.errors import InputError, listing
from bertsmith.interop.keymap import Concat, Flip, Pad, Rename, Rule, View, expand, their_names, to_theirs
from bertsmith.nn.init import sinusoids
from bertsmith.presets import LAYOUTS


def layer_rules(ours: str, theirs: str, *, kinds: tuple[str, str] = ("weight", "bias")) -> list[Rename | Concat]:
    """Weight and bias of one layer; `kinds` is what they call the two."""
    return [Rename(f"{ours}.{kind}", f"{theirs}.{name}") for kind, name in zip(("weight", "bias"), kinds, strict=True)]


def block_rules(
    qkv: tuple[str, ...],
    output: str,
    norms: tuple[str, str],
    feedforward: tuple[str, str],
    *,
    norm: tuple[str, str],
    ours: str = "encoder.blocks.{i}",
) -> list[Rename | Concat]:
    """The rules of a block; `norm` is what they call scale and shift."""
    return [
        Concat(f"{ours}.attention.qkv.weight", tuple(f"{part}.weight" for part in qkv)),
        Concat(f"{ours}.attention.qkv.bias", tuple(f"{part}.bias" for part in qkv)),
        *layer_rules(f"{ours}.attention.output", output),
        *layer_rules(f"{ours}.attention_norm", norms[0], kinds=norm),
        *layer_rules(f"{ours}.feedforward.intermediate", feedforward[0]),
        *layer_rules(f"{ours}.feedforward.output", feedforward[1]),
        *layer_rules(f"{ours}.feedforward_norm", norms[1], kinds=norm),
    ]


_CODERTIMO = "bert.transformer_blocks.{i}"
_HANDWRITTEN = "encoder.blks.{i}"
_ORIGINAL = "encoder.layers.{i}"

TABLES: dict[str, list[Rename | Concat]] = {
    "codertimo": [
        Pad("encoder.embeddings.tokens.weight", "bert.embedding.token.weight"),
        View("encoder.embeddings.positions.weight", "bert.embedding.position.pe"),
        Rename("encoder.embeddings.segments.weight", "bert.embedding.segment.weight"),
        *block_rules(
            tuple(f"{_CODERTIMO}.attention.linear_layers.{part}" for part in (0, 1, 2)),
            f"{_CODERTIMO}.attention.output_linear",
            (f"{_CODERTIMO}.input_sublayer.norm", f"{_CODERTIMO}.output_sublayer.norm"),
            (f"{_CODERTIMO}.feed_forward.w_1", f"{_CODERTIMO}.feed_forward.w_2"),
            norm=("a_2", "b_2"),
        ),
        Pad("masked_lm.decoder.weight", "mask_lm.linear.weight"),
        Rename("masked_lm.bias", "mask_lm.linear.bias"),
        Flip("next_sentence.linear.weight", "next_sentence.linear.weight"),  # 1 is IsNext there
        Flip("next_sentence.linear.bias", "next_sentence.linear.bias"),
    ],
    "handwritten": [
        Pad("encoder.embeddings.tokens.weight", "encoder.token_embedding.weight"),
        View("encoder.embeddings.positions.weight", "encoder.pos_embedding"),
        Rename("encoder.embeddings.segments.weight", "encoder.segment_embedding.weight"),
        *block_rules(
            tuple(f"{_HANDWRITTEN}.attention.W_{part}" for part in "qkv"),
            f"{_HANDWRITTEN}.attention.W_o",
            (f"{_HANDWRITTEN}.addnorm1.ln", f"{_HANDWRITTEN}.addnorm2.ln"),
            (f"{_HANDWRITTEN}.ffn.dense1", f"{_HANDWRITTEN}.ffn.dense2"),
            norm=("weight", "bias"),
        ),
        *layer_rules("pooler.dense", "hidden.0"),
        *layer_rules("masked_lm.dense", "mlm.mlp.0"),
        *layer_rules("masked_lm.norm", "mlm.mlp.2"),
        Pad("masked_lm.decoder.weight", "mlm.mlp.3.weight"),
        Rename("masked_lm.bias", "mlm.mlp.3.bias"),
        Flip("next_sentence.linear.weight", "nsp.output.weight"),  # 1 is IsNext there
        Flip("next_sentence.linear.bias", "nsp.output.bias"),
    ],
    "original": [
        Pad("encoder.embeddings.tokens.weight", "encoder.emb.tok_emb.weight"),
        *block_rules(
            tuple(f"{_ORIGINAL}.attention.w_{part}" for part in "qkv"),
            f"{_ORIGINAL}.attention.w_concat",
            (f"{_ORIGINAL}.norm1", f"{_ORIGINAL}.norm2"),
            (f"{_ORIGINAL}.ffn.linear1", f"{_ORIGINAL}.ffn.linear2"),
            norm=("gamma", "beta"),
        ),
    ],
}
"""Layout -> ours beside theirs."""

NOT_THE_ENCODER = {"original": "decoder."}
"""Layout -> prefix of the tensors that are left out, because they are not part of an encoder."""


def detect_layout(state: Mapping[str, Tensor]) -> str | None:
    """The source system whose token table `state` has; None if it is none of them."""
    for layout, rules in TABLES.items():
        if _name(rules, "encoder.embeddings.tokens.weight") in _complete(layout, state):
            return layout
    return None


def convert_state_dict(
    state: Mapping[str, Tensor],
    *,
    layout: str,
    num_attention_heads: int,
    max_position_embeddings: int | None = None,
    embedding_scale: bool | None = None,
    pad_token_id: int = 0,
) -> tuple[EncoderConfig, dict[str, Tensor], list[Rule]]:
    """The configuration that a source system's state dict tells by its shapes; its tensors, completed; their table.

    `max_position_embeddings` is needed where the positions are not saved (`original`; 512 if not given), and
    `embedding_scale` decides whether token vectors are multiplied by sqrt(hidden_size), if not as the layout has it.
    Raises `InputError` naming the tensor that is missing or does not fit, and pydantic's `ValidationError` for sizes
    that contradict each other.
    """
    state = _complete(layout, state)
    saved = len(state[SINES]) if SINES in state else None
    fields = shape_of(
        state,
        layout=layout,
        num_attention_heads=num_attention_heads,
        max_position_embeddings=max_position_embeddings or saved,
    )
    if embedding_scale is not None:
        fields |= {"embedding_scale": embedding_scale}
    config = EncoderConfig(**LAYOUTS[layout] | fields | {"pad_token_id": pad_token_id})
    rules = expand(TABLES[layout], config)
    if layout == "original":  # its sines are no part of the state dict
        state[SINES] = saved_sines(state, SINES, config)
        rules.append(Rename("encoder.embeddings.positions.weight", SINES))
    return config, state, rules


SINES = "encoder.emb.pos_emb.encoding"
"""hyunwoongko's name of the attribute, which is neither parameter nor buffer there."""


def saved_sines(state: Mapping[str, Tensor], name: str, config: EncoderConfig) -> Tensor:
    """`[max_position_embeddings, hidden_size]`: those of a state dict that has them after all, else computed."""
    computed = sinusoids(config.max_position_embeddings, config.hidden_size)
    return state.get(name, computed)[: len(computed)]


def restore_state_dict(state: dict[str, Tensor], config: EncoderConfig, *, layout: str) -> dict[str, Tensor]:
    """The way back: our tensors under the names of `layout`, which must be the model's own.

    Raises `InputError` if the configuration is not one that the source system has, naming the fields.
    """
    free = {"original": ("embedding_scale",), "handwritten": ("attention_head_size",)}.get(layout, ())
    check_layout(config, layout, LAYOUTS[layout], free=free)
    rules = expand(TABLES[layout], config)
    named = their_names(rules)
    if layout == "original":
        state = {name: tensor for name, tensor in state.items() if name != "encoder.embeddings.positions.weight"}
    if left := [name for name in state if name not in named]:
        raise InputError(f"the layout {layout} has no place for: {listing(left, 5)}")
    theirs = to_theirs(state, rules, vocab_size=config.vocab_size)
    if layout == "codertimo" and "mask_lm.linear.weight" not in theirs:  # its class `BERT`, without `BERTLM` around it
        theirs = {name.removeprefix("bert."): tensor for name, tensor in theirs.items()}
    return theirs


def check_layout(config: EncoderConfig, layout: str, fields: Mapping[str, Any], *, free: Sequence[str]) -> None:
    """Raise `InputError` unless `config` has these `fields`, but for the `free` ones, and is BERT's in other axes."""
    values = config.model_dump()
    differing = [name for name, value in fields.items() if values[name] != value and name not in free]
    differing += [name for name in differences(config) if name not in fields and name not in free]
    if differing:
        named = ", ".join(f"{name}={values[name]!r}" for name in dict.fromkeys(differing))
        raise InputError(f"this model is not of the layout {layout}: {named}")


def shape_of(
    state: Mapping[str, Tensor],
    *,
    layout: str,
    num_attention_heads: int,
    max_position_embeddings: int | None,
    table: Sequence[Rename | Concat] | None = None,
) -> dict[str, int]:
    """The fields of `EncoderConfig` that the shapes of a state dict tell; `table` instead of the layout's."""
    rules = table or TABLES[layout]

    def tensor(ours: str, part: int = 0) -> Tensor:
        name = _name(rules, ours, part).replace("{i}", "0")
        if name not in state:
            raise InputError(f"tensor {name} is missing; is this a state dict of the layout {layout}?")
        if state[name].dim() < (1 if ours.endswith("bias") else 2):
            raise InputError(f"tensor {name} has shape {tuple(state[name].shape)}; it must have two dimensions")
        return state[name]

    tokens = tensor("encoder.embeddings.tokens.weight")
    query, value = (tensor("encoder.blocks.{i}.attention.qkv.weight", part) for part in (0, 2))
    for name, rows in (("queries", len(query)), ("values", len(value))):
        if rows % num_attention_heads:
            raise InputError(
                f"{rows} rows of {name} cannot be {num_attention_heads} heads; give another number of heads",
                field="--heads",
            )
    numbered = re.escape(_name(rules, "encoder.blocks.{i}.attention.output.weight")).replace(r"\{i\}", r"(\d+)")
    layers = [int(match[1]) for name in state if (match := re.fullmatch(numbered, name))]
    fields = {
        "vocab_size": tokens.shape[0],
        "hidden_size": tokens.shape[1],
        "num_hidden_layers": max(layers, default=0) + 1,
        "num_attention_heads": num_attention_heads,
        "intermediate_size": len(tensor("encoder.blocks.{i}.feedforward.intermediate.weight")),
        "max_position_embeddings": max_position_embeddings or 512,
    }
    if (keys := len(query) // num_attention_heads) * num_attention_heads != tokens.shape[1]:
        fields["attention_head_size"] = keys
    if (values := len(value) // num_attention_heads) != keys:
        fields["value_head_size"] = values
    if LAYOUTS[layout].get("type_vocab_size") != 0:
        fields["type_vocab_size"] = len(tensor("encoder.embeddings.segments.weight"))
    if layout != "original":
        fields["max_position_embeddings"] = tensor("encoder.embeddings.positions.weight").shape[1]
    return fields


def _name(rules: Sequence[Rename | Concat], ours: str, part: int = 0) -> str:
    """Their name of one of our tensors; of a concatenation, of its `part`."""
    rule = next(rule for rule in rules if rule.ours == ours)
    return rule.theirs[part] if isinstance(rule, Concat) else rule.theirs


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without `module.` of a parallel wrapper."""
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _complete(layout: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as in the table: codertimo's `BERT` alone lacks `bert.`; what is not the encoder's is left out."""
    state = unwrapped(state)
    prefix = "bert." if layout == "codertimo" and "embedding.token.weight" in state else ""
    left_out = NOT_THE_ENCODER.get(layout)
    return {prefix + name: tensor for name, tensor in state.items() if not (left_out and name.startswith(left_out))}
