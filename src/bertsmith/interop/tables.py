"""The key tables: our names beside those of transformers' classes, one table for each family. Data only.

Not here: which rules a checkpoint needs, and older spellings (`interop.families`). The names are those of the modules
of transformers 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bertsmith.interop.keymap import Concat, Drop, Pad, Rename, Rule

Rules = list[Rule]


@dataclass(frozen=True)
class Table:
    """The names of one family. A head is exclusive if others of the family have tensors of the same name."""

    prefix: str
    """What stands before the encoder's names in a model with a head."""
    modules: tuple[str, ...]
    """What the encoder's names begin with after that."""
    rules: Rules
    """Of the encoder, and of heads that are not exclusive."""
    exclusive: Mapping[str, Rules]
    """Head -> its rules; `""` holds for a model with none of them."""
    pooler: Rules
    """Of the pooler, unless the head's rules name it."""
    hints: Sequence[tuple[str, str]]
    """(tensor, head): whose the exclusive names are if config.json names no class; the last tensor is `""`."""
    decoder: str
    """Weight of an untied MLM decoder."""
    decoder_bias: tuple[str, ...]
    """Where the decoder's bias stands: the first one always, others where the decoder is not tied."""


def _linear(ours: str, theirs: str) -> Rules:
    return [Rename(f"{ours}.{kind}", f"{theirs}.{kind}") for kind in ("weight", "bias")]


def _query_key_value(names: str) -> Rules:
    """`names` with `{part}`: query, key and value, or what stands for them."""
    parts = names.split("|")
    return [
        Concat(f"{_BLOCK}.attention.qkv.{kind}", tuple(f"{part}.{kind}" for part in parts))
        for kind in ("weight", "bias")
    ]


_BLOCK = "encoder.blocks.{i}"


def _embeddings(prefix: str) -> Rules:
    return [
        Pad("encoder.embeddings.tokens.weight", f"{prefix}.embeddings.word_embeddings.weight"),
        Rename("encoder.embeddings.positions.weight", f"{prefix}.embeddings.position_embeddings.weight"),
        Rename("encoder.embeddings.segments.weight", f"{prefix}.embeddings.token_type_embeddings.weight"),
        *_linear("encoder.embeddings.norm", f"{prefix}.embeddings.LayerNorm"),
        Drop(f"{prefix}.embeddings.position_ids"),
        Drop(f"{prefix}.embeddings.token_type_ids"),
    ]


def _bert_encoder(prefix: str) -> Rules:
    layer = f"{prefix}.encoder.layer.{{i}}"
    return [
        *_embeddings(prefix),
        *_linear("encoder.embeddings.project", f"{prefix}.embeddings_project"),  # ELECTRA's; HF's BERT has none
        *_query_key_value("|".join(f"{layer}.attention.self.{part}" for part in ("query", "key", "value"))),
        *_linear(f"{_BLOCK}.attention.output", f"{layer}.attention.output.dense"),
        *_linear(f"{_BLOCK}.attention_norm", f"{layer}.attention.output.LayerNorm"),
        *_linear(f"{_BLOCK}.feedforward.intermediate", f"{layer}.intermediate.dense"),
        *_linear(f"{_BLOCK}.feedforward.output", f"{layer}.output.dense"),
        *_linear(f"{_BLOCK}.feedforward_norm", f"{layer}.output.LayerNorm"),
        *_linear("encoder.final_norm", f"{prefix}.encoder.final_norm"),  # of pre-norm encoders; HF's BERT has none
        *_linear("next_sentence.linear", "cls.seq_relationship"),
    ]


def _named_classifier(*heads: str) -> dict[str, Rules]:
    return {head: _linear(f"{head}.linear", "classifier") for head in heads}


_QUESTION_ANSWERING = _linear("question_answering.linear", "qa_outputs")
_DISCRIMINATOR = [
    *_linear("discriminator.dense", "discriminator_predictions.dense"),
    *_linear("discriminator.linear", "discriminator_predictions.dense_prediction"),
]
_OWN_POOLER = [*_linear("pooler.dense", "pooler.dense"), *_linear("pooler.norm", "pooler.norm")]
"""Where transformers' encoder has no pooler."""

_BERT = Table(
    prefix="bert",
    modules=("embeddings", "encoder", "pooler"),
    rules=[
        *_bert_encoder("bert"),
        *_linear("masked_lm.dense", "cls.predictions.transform.dense"),
        *_linear("masked_lm.norm", "cls.predictions.transform.LayerNorm"),
        Rename("masked_lm.bias", "cls.predictions.bias"),
        Pad("masked_lm.decoder.weight", "cls.predictions.decoder.weight"),
        *_QUESTION_ANSWERING,
    ],
    exclusive=_named_classifier("classifier", "token_classifier", "multiple_choice"),
    pooler=[*_linear("pooler.dense", "bert.pooler.dense"), *_linear("pooler.norm", "bert.pooler.norm")],
    hints=(("bert.pooler.dense.weight", "classifier"), ("", "token_classifier")),
    decoder="cls.predictions.decoder.weight",
    decoder_bias=("cls.predictions.bias", "cls.predictions.decoder.bias"),
)

_ROBERTA = Table(
    prefix="roberta",
    modules=("embeddings", "encoder", "pooler"),
    rules=[
        *_bert_encoder("roberta"),
        *_linear("masked_lm.dense", "lm_head.dense"),
        *_linear("masked_lm.norm", "lm_head.layer_norm"),
        Rename("masked_lm.bias", "lm_head.bias"),
        Pad("masked_lm.decoder.weight", "lm_head.decoder.weight"),
        *_QUESTION_ANSWERING,
    ],
    exclusive={
        "classifier": [
            *_linear("pooler.dense", "classifier.dense"),
            *_linear("classifier.linear", "classifier.out_proj"),
        ],
        **_named_classifier("token_classifier", "multiple_choice"),
    },
    pooler=[*_linear("pooler.dense", "roberta.pooler.dense"), *_linear("pooler.norm", "roberta.pooler.norm")],
    hints=(
        ("classifier.out_proj.weight", "classifier"),
        ("roberta.pooler.dense.weight", "multiple_choice"),
        ("", "token_classifier"),
    ),
    decoder="lm_head.decoder.weight",
    decoder_bias=("lm_head.bias", "lm_head.decoder.bias"),
)

_DISTILBERT_LAYER = "distilbert.transformer.layer.{i}"
_PRE_CLASSIFIER = _linear("pooler.dense", "pre_classifier")

_DISTILBERT = Table(
    prefix="distilbert",
    modules=("embeddings", "transformer"),
    rules=[
        *_embeddings("distilbert"),
        *_linear("encoder.embeddings.project", "distilbert.embeddings_project"),
        *_query_key_value("|".join(f"{_DISTILBERT_LAYER}.attention.{part}_lin" for part in "qkv")),
        *_linear(f"{_BLOCK}.attention.output", f"{_DISTILBERT_LAYER}.attention.out_lin"),
        *_linear(f"{_BLOCK}.attention_norm", f"{_DISTILBERT_LAYER}.sa_layer_norm"),
        *_linear(f"{_BLOCK}.feedforward.intermediate", f"{_DISTILBERT_LAYER}.ffn.lin1"),
        *_linear(f"{_BLOCK}.feedforward.output", f"{_DISTILBERT_LAYER}.ffn.lin2"),
        *_linear(f"{_BLOCK}.feedforward_norm", f"{_DISTILBERT_LAYER}.output_layer_norm"),
        *_linear("encoder.final_norm", "distilbert.transformer.final_norm"),
        *_linear("next_sentence.linear", "cls.seq_relationship"),
        *_linear("masked_lm.dense", "vocab_transform"),
        *_linear("masked_lm.norm", "vocab_layer_norm"),
        Rename("masked_lm.bias", "vocab_projector.bias"),
        Pad("masked_lm.decoder.weight", "vocab_projector.weight"),
        *_QUESTION_ANSWERING,
    ],
    exclusive={
        "classifier": [*_PRE_CLASSIFIER, *_linear("classifier.linear", "classifier")],
        "multiple_choice": [*_PRE_CLASSIFIER, *_linear("multiple_choice.linear", "classifier")],
        **_named_classifier("token_classifier"),
    },
    pooler=_OWN_POOLER,
    hints=(("pre_classifier.weight", "classifier"), ("", "token_classifier")),
    decoder="vocab_projector.weight",
    decoder_bias=("vocab_projector.bias",),
)

_ELECTRA = Table(
    prefix="electra",
    modules=("embeddings", "embeddings_project", "encoder"),
    rules=[
        *_bert_encoder("electra"),
        *_linear("masked_lm.dense", "generator_predictions.dense"),
        *_linear("masked_lm.norm", "generator_predictions.LayerNorm"),
        Rename("masked_lm.bias", "generator_lm_head.bias"),
        Pad("masked_lm.decoder.weight", "generator_lm_head.weight"),
        *_QUESTION_ANSWERING,
        *_DISCRIMINATOR,
    ],
    exclusive={
        "classifier": [
            *_linear("pooler.dense", "classifier.dense"),
            *_linear("classifier.linear", "classifier.out_proj"),
        ],
        "multiple_choice": [
            *_linear("pooler.dense", "sequence_summary.summary"),
            *_linear("multiple_choice.linear", "classifier"),
        ],
        **_named_classifier("token_classifier"),
    },
    pooler=_OWN_POOLER,
    hints=(
        ("classifier.out_proj.weight", "classifier"),
        ("sequence_summary.summary.weight", "multiple_choice"),
        ("", "token_classifier"),
    ),
    decoder="generator_lm_head.weight",
    decoder_bias=("generator_lm_head.bias",),
)

_MODERNBERT_LAYER = "model.layers.{i}"
_HEAD = [*_linear("pooler.dense", "head.dense"), *_linear("pooler.norm", "head.norm")]

_MODERNBERT = Table(
    prefix="model",
    modules=("embeddings", "layers", "final_norm"),
    rules=[
        Pad("encoder.embeddings.tokens.weight", "model.embeddings.tok_embeddings.weight"),
        Rename("encoder.embeddings.positions.weight", "model.embeddings.position_embeddings.weight"),
        Rename("encoder.embeddings.segments.weight", "model.embeddings.token_type_embeddings.weight"),
        *_linear("encoder.embeddings.norm", "model.embeddings.norm"),
        *_linear("encoder.embeddings.project", "model.embeddings_project"),
        *_linear(f"{_BLOCK}.attention.qkv", f"{_MODERNBERT_LAYER}.attn.Wqkv"),
        *_linear(f"{_BLOCK}.attention.output", f"{_MODERNBERT_LAYER}.attn.Wo"),
        *_linear(f"{_BLOCK}.attention_norm", f"{_MODERNBERT_LAYER}.attn_norm"),
        *_linear(f"{_BLOCK}.feedforward.intermediate", f"{_MODERNBERT_LAYER}.mlp.Wi"),
        *_linear(f"{_BLOCK}.feedforward.output", f"{_MODERNBERT_LAYER}.mlp.Wo"),
        *_linear(f"{_BLOCK}.feedforward_norm", f"{_MODERNBERT_LAYER}.mlp_norm"),
        *_linear("encoder.final_norm", "model.final_norm"),
        *_linear("next_sentence.linear", "cls.seq_relationship"),
        Rename("masked_lm.bias", "decoder.bias"),
        Pad("masked_lm.decoder.weight", "decoder.weight"),
    ],
    exclusive={
        "": [*_linear("masked_lm.dense", "head.dense"), *_linear("masked_lm.norm", "head.norm")],
        **{
            head: [*_HEAD, *_linear(f"{head}.linear", "classifier")]
            for head in ("classifier", "token_classifier", "question_answering", "multiple_choice")
        },
    },
    pooler=_OWN_POOLER,
    hints=(("classifier.weight", "classifier"), ("", "")),
    decoder="decoder.weight",
    decoder_bias=("decoder.bias",),
)

TABLES: dict[str, Table] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
    "electra": _ELECTRA,
    "modernbert": _MODERNBERT,
}
"""`EncoderConfig.family` -> its table."""
