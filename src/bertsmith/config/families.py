"""The families of encoders: which axes make each of them, and what their `config.json` calls things.

A family is no class: it is a set of values of `EncoderConfig`, and a key table (`interop.families`). Facts are from
the configuration classes of transformers 5.

    config.json --read_fields--> fields of EncoderConfig --to_hf--> config.json
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bertsmith.config.encoder import EncoderConfig

Values = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """One family. Fields that stand neither in `names` nor in `same` are not in its `config.json`."""

    title: str
    """What transformers' classes begin with: `Roberta` of `RobertaForMaskedLM`."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Axes that make the family, with their values; all others are BERT's."""
    free: frozenset[str] = frozenset()
    """Axes that its `config.json` may set."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Values where its `config.json` says nothing and BERT's would be others."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Our field -> its name in `config.json`, where that is another."""
    missing: frozenset[str] = frozenset()
    """Fields of BERT that its `config.json` does not have."""
    token_ids: Mapping[str, str] = field(default_factory=dict)
    """Names of token ids in its `config.json`, with the role of each; without them transformers takes its own."""
    reading: Callable[[Values], Values] | None = None
    """What only a look at several keys tells. Raises `ValueError` for what no field can say."""
    writing: Callable[[EncoderConfig], Values] | None = None
    """The same on the way back."""


def read_fields(values: Mapping[str, Any], *, family: str) -> Values:
    """The fields that a `config.json` of `family` sets; a null counts as not there.

    Raises `ValueError` for a variant that `EncoderConfig` has no field for.
    """
    known = FAMILIES[family]
    fields: Values = {"family": family, **known.fixed, **known.defaults}
    for name in {*BERT_FIELDS, *known.free} - known.missing:
        value = values.get(known.names.get(name, name))
        if value is not None:
            fields[name] = value
    return fields | (known.reading(dict(values)) if known.reading is not None else {})


def to_hf(config: EncoderConfig) -> Values:
    """The part of a `config.json` that describes the shape; `model_type` is `bertsmith` if the family has none such."""
    if differences(config):
        return {"model_type": "bertsmith", **config.model_dump(mode="json")}
    family = FAMILIES[config.family]
    written = {*BERT_FIELDS, *family.free} - family.missing
    values = {
        family.names.get(name, name): value for name, value in config.model_dump(mode="json").items() if name in written
    }
    more = family.writing(config) if family.writing is not None else {}
    return {"model_type": config.family, **values, **more}


def differences(config: EncoderConfig) -> list[str]:
    """The axes in which transformers' class of this family cannot express it: `["norm_position", "pruned_heads"]`."""
    family = FAMILIES[config.family]
    expected = {name: EncoderConfig.model_fields[name].get_default() for name in AXES} | dict(family.fixed)
    if config.family in ROBERTAS:
        expected["position_offset"] = config.pad_token_id + 1
    if config.family == "modernbert":  # one name for the activation of all heads
        expected["masked_lm_activation"] = config.pooler_activation
    found = [name for name in AXES if name not in family.free and getattr(config, name) != expected[name]]
    if config.embedding_size == config.hidden_size and "embedding_size" in found:
        found.remove("embedding_size")
    if config.head_size * config.num_attention_heads != config.hidden_size or config.value_size != config.head_size:
        found.append("attention_head_size")
    for name in sorted(family.missing & BERT_FIELDS):
        if getattr(config, name) != family.defaults.get(name, EncoderConfig.model_fields[name].get_default()):
            found.append(name)
    if config.type_vocab_size == 0 and "type_vocab_size" not in family.missing:
        found.append("type_vocab_size")
    return found + (["pruned_heads"] if config.pruned_heads else [])


AXES = (
    "norm_position",
    "final_norm",
    "first_norm",
    "norm_kind",
    "embedding_norm",
    "embedding_scale",
    "embedding_size",
    "position_kind",
    "position_offset",
    "rope_theta",
    "local_rope_theta",
    "local_attention",
    "layer_types",
    "token_type_offset",
    "feedforward_kind",
    "attention_bias",
    "mlp_bias",
    "norm_bias",
    "head_bias",
    "decoder_bias",
    "cls_pooler",
    "pooler_activation",
    "pooler_norm",
    "pooler_input",
    "token_pooler",
    "masked_lm_transform",
    "masked_lm_activation",
)
"""Fields that transformers' BERT does not have, each at its default a BERT."""

BERT_FIELDS = frozenset(EncoderConfig.model_fields) - {
    *AXES,
    "family",
    "attention_head_size",
    "value_head_size",
    "pruned_heads",
}
"""Fields that stand in the `config.json` of any BERT."""


def _write_absolute(_: EncoderConfig) -> Values:
    return {"position_embedding_type": "absolute"}


def _read_roberta(values: Values) -> Values:
    """The table's rows include those before the first position, which its counting from the padding id leaves out."""
    offset = int(values.get("pad_token_id", 1) or 0) + 1
    rows = values.get("max_position_embeddings", 512)
    if not isinstance(rows, int) or rows <= offset:
        raise ValueError(f"max_position_embeddings {rows} leaves no position after the {offset} that RoBERTa skips")
    return {"position_offset": offset, "max_position_embeddings": rows - offset}


def _write_roberta(config: EncoderConfig) -> Values:
    rows = config.max_position_embeddings + config.position_offset
    return {"max_position_embeddings": rows, **_write_absolute(config)}


def _read_electra(values: Values) -> Values:
    expected = {"summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu"}
    for name, value in expected.items():
        if values.get(name, value) != value:
            raise ValueError(f"{name} {values[name]!r} is not known; expected {value!r}")
    return {}


def _read_modernbert(values: Values) -> Values:
    layers = values.get("num_hidden_layers", 22)
    every = values.get("global_attn_every_n_layers", 3)
    if not isinstance(layers, int) or not isinstance(every, int) or every < 1:
        raise ValueError(f"num_hidden_layers {layers!r} and global_attn_every_n_layers {every!r} must be whole numbers")
    fields: Values = {
        "layer_types": values.get("layer_types")
        or tuple("sliding_attention" if i % every else "full_attention" for i in range(layers)),
        "masked_lm_activation": values.get("classifier_activation", "gelu"),
    }
    if values.get("rope_scaling"):
        raise ValueError(f"rope_scaling {values['rope_scaling']!r} is not known; expected none")
    ropes = values.get("rope_parameters") or {}
    kinds = {"full_attention", "sliding_attention"}
    if (
        not isinstance(ropes, dict)
        or not ropes.keys() <= kinds
        or not all(isinstance(r or {}, dict) for r in ropes.values())
    ):
        raise ValueError(f"rope_parameters {ropes!r} is not known; expected an object for each of {sorted(kinds)}")
    for ours, theirs, kind in (
        ("rope_theta", "global_rope_theta", "full_attention"),
        ("local_rope_theta", "local_rope_theta", "sliding_attention"),
    ):
        rope = ropes.get(kind) or {}
        rope_type = rope.get("rope_type", rope.get("type", "default"))  # the older name is the second
        if rope_type != "default":
            raise ValueError(f"rope_parameters of type {rope_type!r} are not known; expected 'default'")
        given = rope.get("rope_theta", values.get(theirs))
        if given is not None:
            fields[ours] = given
    return fields


def _write_modernbert(config: EncoderConfig) -> Values:
    kinds = {"full_attention": config.rope_theta, "sliding_attention": config.local_rope_theta}
    every = next((i for i in range(1, config.num_hidden_layers) if config.window(i) is None), config.num_hidden_layers)
    return {
        "layer_types": list(config.layer_types or ("full_attention",) * config.num_hidden_layers),
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in kinds.items()},
        "global_attn_every_n_layers": every,  # and the two `…_rope_theta`: what transformers 4 reads instead
        "mlp_dropout": config.hidden_dropout_prob,
        "classifier_dropout": config.head_dropout,
    }


_ROBERTA: dict[str, Any] = {
    "fixed": {"masked_lm_activation": "gelu"},
    "defaults": {"pad_token_id": 1},
    "token_ids": {"bos_token_id": "cls_token", "eos_token_id": "sep_token"},
    "reading": _read_roberta,
    "writing": _write_roberta,
}

FAMILIES: dict[str, Family] = {
    "bert": Family("Bert", writing=_write_absolute),
    "roberta": Family("Roberta", **_ROBERTA),
    "xlm-roberta": Family("XLMRoberta", **_ROBERTA),
    "camembert": Family("Camembert", **_ROBERTA),
    "distilbert": Family(
        "DistilBert",
        fixed={"pooler_activation": "relu"},
        defaults={"num_hidden_layers": 6, "type_vocab_size": 0, "classifier_dropout": 0.2},
        names={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
            "hidden_dropout_prob": "dropout",
            "attention_probs_dropout_prob": "attention_dropout",
            "classifier_dropout": "seq_classif_dropout",
        },
        missing=frozenset({"type_vocab_size", "layer_norm_eps"}),
        writing=lambda config: {"seq_classif_dropout": config.head_dropout},
    ),
    "electra": Family(
        "Electra",
        fixed={"pooler_activation": "gelu", "masked_lm_activation": "gelu"},
        free=frozenset({"embedding_size"}),
        defaults={
            "embedding_size": 128,
            "hidden_size": 256,
            "num_attention_heads": 4,
            "intermediate_size": 1024,
        },
        reading=_read_electra,
        writing=lambda config: {"embedding_size": config.embedding_width, **_write_absolute(config)},
    ),
    "modernbert": Family(
        "ModernBert",
        fixed={
            "norm_position": "pre",
            "first_norm": False,
            "position_kind": "rotary",
            "feedforward_kind": "gated",
            "pooler_norm": True,
            "token_pooler": True,
        },
        free=frozenset(
            {
                "rope_theta",
                "local_rope_theta",
                "local_attention",
                "layer_types",
                "attention_bias",
                "mlp_bias",
                "norm_bias",
                "head_bias",
                "decoder_bias",
                "pooler_activation",
                "pooler_input",
            }
        ),
        defaults={
            "vocab_size": 50368,
            "intermediate_size": 1152,
            "num_hidden_layers": 22,
            "max_position_embeddings": 8192,
            "layer_norm_eps": 1e-5,
            "pad_token_id": 50283,
            "type_vocab_size": 0,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "classifier_dropout": 0.0,
            "rope_theta": 160_000.0,
            "attention_bias": False,
            "mlp_bias": False,
            "norm_bias": False,
            "head_bias": False,
            "pooler_activation": "gelu",
        },
        names={
            "hidden_act": "hidden_activation",
            "layer_norm_eps": "norm_eps",
            "hidden_dropout_prob": "embedding_dropout",
            "attention_probs_dropout_prob": "attention_dropout",
            "head_bias": "classifier_bias",
            "pooler_activation": "classifier_activation",
            "pooler_input": "classifier_pooling",
            "rope_theta": "global_rope_theta",
        },
        missing=frozenset({"type_vocab_size"}),
        token_ids={
            "bos_token_id": "cls_token",
            "eos_token_id": "sep_token",
            "cls_token_id": "cls_token",
            "sep_token_id": "sep_token",
        },
        reading=_read_modernbert,
        writing=_write_modernbert,
    ),
}
"""`model_type` -> the family.

BERT: Devlin et al. 2018. RoBERTa: Liu et al. 2019, XLM-RoBERTa: Conneau et al. 2019, CamemBERT: Martin et al. 2019, all
three BERT with another count of positions. DistilBERT: Sanh et al. 2019. ELECTRA: Clark et al. 2020. ModernBERT:
Warner et al. 2024.
"""

ROBERTAS = ("roberta", "xlm-roberta", "camembert")
"""Families whose positions count from the padding token's id plus 1."""
