"""The names in google-research/bert's checkpoints and in transformers', written out, for a BERT of two layers."""

from __future__ import annotations

LAYERS = 2
SHAPE = {
    "vocab_size": 23,
    "hidden_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 12,
}
EMBEDDINGS = [
    ("bert/embeddings/word_embeddings", "bert.embeddings.word_embeddings.weight"),
    ("bert/embeddings/position_embeddings", "bert.embeddings.position_embeddings.weight"),
    ("bert/embeddings/token_type_embeddings", "bert.embeddings.token_type_embeddings.weight"),
    ("bert/embeddings/LayerNorm/gamma", "bert.embeddings.LayerNorm.weight"),
    ("bert/embeddings/LayerNorm/beta", "bert.embeddings.LayerNorm.bias"),
]
LAYER = [
    ("attention/self/query/kernel", "attention.self.query.weight"),
    ("attention/self/query/bias", "attention.self.query.bias"),
    ("attention/self/key/kernel", "attention.self.key.weight"),
    ("attention/self/key/bias", "attention.self.key.bias"),
    ("attention/self/value/kernel", "attention.self.value.weight"),
    ("attention/self/value/bias", "attention.self.value.bias"),
    ("attention/output/dense/kernel", "attention.output.dense.weight"),
    ("attention/output/dense/bias", "attention.output.dense.bias"),
    ("attention/output/LayerNorm/gamma", "attention.output.LayerNorm.weight"),
    ("attention/output/LayerNorm/beta", "attention.output.LayerNorm.bias"),
    ("intermediate/dense/kernel", "intermediate.dense.weight"),
    ("intermediate/dense/bias", "intermediate.dense.bias"),
    ("output/dense/kernel", "output.dense.weight"),
    ("output/dense/bias", "output.dense.bias"),
    ("output/LayerNorm/gamma", "output.LayerNorm.weight"),
    ("output/LayerNorm/beta", "output.LayerNorm.bias"),
]
HEADS = [
    ("bert/pooler/dense/kernel", "bert.pooler.dense.weight"),
    ("bert/pooler/dense/bias", "bert.pooler.dense.bias"),
    ("cls/predictions/transform/dense/kernel", "cls.predictions.transform.dense.weight"),
    ("cls/predictions/transform/dense/bias", "cls.predictions.transform.dense.bias"),
    ("cls/predictions/transform/LayerNorm/gamma", "cls.predictions.transform.LayerNorm.weight"),
    ("cls/predictions/transform/LayerNorm/beta", "cls.predictions.transform.LayerNorm.bias"),
    ("cls/predictions/output_bias", "cls.predictions.bias"),
    ("cls/seq_relationship/output_weights", "cls.seq_relationship.weight"),
    ("cls/seq_relationship/output_bias", "cls.seq_relationship.bias"),
]
FINE_TUNED = [
    ("output_weights", "classifier.weight"),
    ("output_bias", "classifier.bias"),
    ("cls/squad/output_weights", "qa_outputs.weight"),
    ("cls/squad/output_bias", "qa_outputs.bias"),
]
PRETRAINING = dict(
    [
        *EMBEDDINGS,
        *((f"bert/encoder/layer_{i}/{a}", f"bert.encoder.layer.{i}.{b}") for i in range(LAYERS) for a, b in LAYER),
        *HEADS,
    ]
)
DERIVED = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}  # transformers ties them
