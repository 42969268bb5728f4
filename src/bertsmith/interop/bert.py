"""BERT's key table: our names beside those of transformers' `BertModel` and its heads."""

from __future__ import annotations

from collections.abc import Collection

from bertsmith.interop.keymap import Concat, Drop, Pad, Rename, Rule


def _linear(ours: str, theirs: str) -> list[Rule]:
    return [Rename(f"{ours}.{kind}", f"{theirs}.{kind}") for kind in ("weight", "bias")]


_BLOCK = "encoder.blocks.{i}"
_LAYER = "bert.encoder.layer.{i}"

RULES: list[Rule] = [
    Pad("encoder.embeddings.tokens.weight", "bert.embeddings.word_embeddings.weight"),
    Rename("encoder.embeddings.positions.weight", "bert.embeddings.position_embeddings.weight"),
    Rename("encoder.embeddings.segments.weight", "bert.embeddings.token_type_embeddings.weight"),
    *_linear("encoder.embeddings.norm", "bert.embeddings.LayerNorm"),
    *(
        Concat(
            f"{_BLOCK}.attention.qkv.{kind}",
            tuple(f"{_LAYER}.attention.self.{part}.{kind}" for part in ("query", "key", "value")),
        )
        for kind in ("weight", "bias")
    ),
    *_linear(f"{_BLOCK}.attention.output", f"{_LAYER}.attention.output.dense"),
    *_linear(f"{_BLOCK}.attention_norm", f"{_LAYER}.attention.output.LayerNorm"),
    *_linear(f"{_BLOCK}.feedforward.intermediate", f"{_LAYER}.intermediate.dense"),
    *_linear(f"{_BLOCK}.feedforward.output", f"{_LAYER}.output.dense"),
    *_linear(f"{_BLOCK}.feedforward_norm", f"{_LAYER}.output.LayerNorm"),
    *_linear("pooler.dense", "bert.pooler.dense"),
    *_linear("masked_lm.dense", "cls.predictions.transform.dense"),
    *_linear("masked_lm.norm", "cls.predictions.transform.LayerNorm"),
    Rename("masked_lm.bias", "cls.predictions.bias"),
    *_linear("next_sentence.classifier", "cls.seq_relationship"),
    *_linear("classifier.classifier", "classifier"),
    Drop("bert.embeddings.position_ids"),
    Drop("cls.predictions.decoder.weight"),
    Drop("cls.predictions.decoder.bias"),
]


def architecture(heads: Collection[str]) -> str:
    """The transformers class that has these heads: `("pooler", "classifier")` -> the classification class."""
    if "classifier" in heads:
        return "BertForSequenceClassification"
    if "masked_lm" in heads:
        return "BertForPreTraining" if "next_sentence" in heads else "BertForMaskedLM"
    return "BertModel"
