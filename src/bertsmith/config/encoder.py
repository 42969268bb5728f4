"""The shape of the network: BERT's configuration, under the names that Hugging Face gives it.

Not here: options of a training run, or what a task adds (labels, decoding), which stand in the manifest.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from bertsmith.config.options import Options
from bertsmith.errors import nearest

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish", "tanh")
"""Names that `hidden_act` may have; `nn.feedforward` holds the functions."""

VOCABULARY_MULTIPLE = 64
"""The vocabulary is padded to a multiple of this in memory, and stripped when saved."""


class EncoderConfig(Options):
    """BERT as in Devlin et al. 2018, section 3; the defaults are bert-base-uncased."""

    vocab_size: int = Field(default=30522, ge=1)
    """Number of pieces of the tokenizer."""
    hidden_size: int = Field(default=768, ge=1)
    """Width of a token's vector (H)."""
    num_hidden_layers: int = Field(default=12, ge=1)
    """Number of blocks (L)."""
    num_attention_heads: int = Field(default=12, ge=1)
    """Heads of a block (A); a divisor of `hidden_size`."""
    intermediate_size: int = Field(default=3072, ge=1)
    """Width inside the feed-forward part, 4 H in BERT."""
    hidden_act: str = "gelu"
    """Activation of the feed-forward part and of the MLM head, by name; `gelu` is the exact (erf) one."""
    hidden_dropout_prob: float = Field(default=0.1, ge=0, lt=1)
    """Dropout after the embeddings and after each sub-layer."""
    attention_probs_dropout_prob: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on attention probabilities."""
    max_position_embeddings: int = Field(default=512, ge=1)
    """Longest sequence, special tokens included."""
    type_vocab_size: int = Field(default=2, ge=1)
    """Segments: 0 for A, 1 for B."""
    initializer_range: float = Field(default=0.02, gt=0)
    """Standard deviation of the truncated normal that weights start from."""
    layer_norm_eps: float = Field(default=1e-12, gt=0)
    """Added to the variance in each LayerNorm."""
    pad_token_id: int = Field(default=0, ge=0)
    """Id whose embedding row starts at zero and gets no look-up gradient."""

    @model_validator(mode="after")
    def _check(self) -> EncoderConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}; choose a number of heads that divides it"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(
                f"unknown hidden_act {self.hidden_act!r}{nearest(self.hidden_act, ACTIVATIONS)}; "
                f"expected one of: {', '.join(ACTIVATIONS)}"
            )
        if self.pad_token_id >= self.vocab_size:
            raise ValueError(f"pad_token_id {self.pad_token_id} is outside the vocabulary of {self.vocab_size}")
        return self

    @property
    def head_size(self) -> int:
        """Width of one attention head (H / A)."""
        return self.hidden_size // self.num_attention_heads

    @property
    def padded_vocab_size(self) -> int:
        """`vocab_size` rounded up to a multiple of 64: `30522 -> 30528`."""
        return -(-self.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE

    @property
    def without_dropout(self) -> EncoderConfig:
        """The same shape with both dropouts at zero."""
        return self.model_copy(update={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})

    def to_hf(self) -> dict[str, Any]:
        """The part of an HF `config.json` that describes the shape."""
        return {"model_type": "bert", **self.model_dump(), "position_embedding_type": "absolute"}
