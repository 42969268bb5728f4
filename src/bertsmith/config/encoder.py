"""The shape of the network: BERT's configuration under Hugging Face's names, and the axes that its relatives need.

Not here: options of a training run, or what a task adds (labels, decoding), which stand in the manifest.
An axis exists because a checkpoint needs it (`presets.LAYOUTS`, `config.families`); at their defaults all of them are
BERT. Also not here: which axes make a family, and the names of its `config.json` (`config.families`).
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from bertsmith.config.options import Options
from bertsmith.errors import nearest

ACTIVATIONS = (
    "gelu",
    "gelu_fast",
    "gelu_new",
    "gelu_python",
    "gelu_pytorch_tanh",
    "mish",
    "quick_gelu",
    "relu",
    "silu",
    "swish",
    "tanh",
)
"""Names that `hidden_act` may have; `nn.feedforward` holds the functions."""

MOST = 10_000_000
"""Bound of every size, so that a wrong digit is an error and not a machine without memory."""

VOCABULARY_MULTIPLE = 64
"""The vocabulary is padded to a multiple of this in memory, and stripped when saved."""


FamilyName = Literal["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "modernbert"]

LayerType = Literal["full_attention", "sliding_attention"]


class EncoderConfig(Options):
    """BERT as in Devlin et al. 2018, section 3; the defaults are bert-base-uncased."""

    family: FamilyName = "bert"
    """Whose names weights and configuration have on disk, transformers' `model_type`."""
    vocab_size: int = Field(default=30522, ge=1, le=MOST)
    """Number of pieces of the tokenizer."""
    hidden_size: int = Field(default=768, ge=1, le=MOST)
    """Width of a token's vector (H)."""
    num_hidden_layers: int = Field(default=12, ge=1, le=1000)
    """Number of blocks (L)."""
    num_attention_heads: int = Field(default=12, ge=1, le=MOST)
    """Heads of a block (A); a divisor of `hidden_size`."""
    intermediate_size: int = Field(default=3072, ge=1, le=MOST)
    """Width inside the feed-forward part, 4 H in BERT."""
    hidden_act: str = "gelu"
    """Activation of the feed-forward part and of the MLM head, by name; `gelu` is the exact (erf) one."""
    hidden_dropout_prob: float = Field(default=0.1, ge=0, lt=1)
    """Dropout after the embeddings and after each sub-layer."""
    attention_probs_dropout_prob: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on attention probabilities."""
    max_position_embeddings: int = Field(default=512, ge=1, le=MOST)
    """Longest sequence, special tokens included."""
    type_vocab_size: int = Field(default=2, ge=0, le=MOST)
    """Rows of the segment table: A is 0, B is 1; without any, segments are not embedded."""
    initializer_range: float = Field(default=0.02, gt=0)
    """Standard deviation of the truncated normal that weights start from."""
    layer_norm_eps: float = Field(default=1e-12, gt=0)
    """Added to the variance in each LayerNorm."""
    pad_token_id: int = Field(default=0, ge=0)
    """Id whose embedding row starts at zero and gets no look-up gradient."""
    classifier_dropout: float | None = Field(default=None, ge=0, lt=1)
    """Dropout before a task's linear layer; by default `hidden_dropout_prob`."""
    tie_word_embeddings: bool = True
    """Whether the MLM decoder is the token table."""
    norm_position: Literal["post", "pre"] = "post"
    """Norm after each residual sum (BERT), or on the input of each sub-layer."""
    final_norm: bool | None = None
    """Norm after the last block; by default with `norm_position` pre only."""
    first_norm: bool = True
    """Whether the attention of the first block has its norm, where blocks are pre-norm."""
    norm_kind: Literal["layer_norm", "std_norm"] = "layer_norm"
    """LayerNorm, or (x - mean) / (std + eps) with the unbiased deviation, as codertimo has it."""
    embedding_norm: bool = True
    """Norm after the sum of the embeddings."""
    embedding_scale: bool = False
    """Token vectors times sqrt(hidden_size), Vaswani et al. 2017, section 3.4."""
    embedding_size: int | None = Field(default=None, ge=1, le=MOST)
    """Width of the embedding tables, by default `hidden_size`; a linear layer leads there (Clark et al. 2020)."""
    position_kind: Literal["learned", "sinusoidal", "rotary"] = "learned"
    """A trained table, the sines of Vaswani et al. 2017, section 3.5, or rotated queries and keys (Su et al. 2021)."""
    position_offset: int = Field(default=0, ge=0, le=MOST)
    """Row of the first position in the table; RoBERTa counts from the padding token's id plus 1."""
    rope_theta: float = Field(default=10000.0, gt=0)
    """Base of the rotary angles in layers that see the whole sequence."""
    local_rope_theta: float = Field(default=10000.0, gt=0)
    """Base of the rotary angles in layers with a window."""
    local_attention: int = Field(default=128, ge=2, le=MOST)
    """Width of the window of `sliding_attention` layers: a token sees half of it to either side."""
    layer_types: tuple[LayerType, ...] | None = None
    """What each layer sees; by default the whole sequence."""
    token_type_offset: int = Field(default=0, ge=0)
    """Row of segment A in the segment table; 1 where row 0 is padding's."""
    attention_head_size: int | None = Field(default=None, ge=1, le=MOST)
    """Width of a head's queries and keys; by default `hidden_size` / `num_attention_heads`."""
    value_head_size: int | None = Field(default=None, ge=1, le=MOST)
    """Width of a head's values; by default that of its keys."""
    feedforward_kind: Literal["plain", "gated"] = "plain"
    """Activation, or activation times a second projection (Shazeer 2020, section 2)."""
    attention_bias: bool = True
    """Whether the projections of attention have biases."""
    mlp_bias: bool = True
    """Whether the two layers of the feed-forward part have biases."""
    norm_bias: bool = True
    """Whether norms have biases."""
    head_bias: bool = True
    """Whether the linear layer of the pooler and that of the MLM head have biases."""
    decoder_bias: bool = True
    """Whether the MLM decoder has a bias."""
    cls_pooler: bool = True
    """Whether linear and activation stand between `[CLS]` and the heads that read it."""
    pooler_activation: str = "tanh"
    """Activation of the pooler, by name."""
    pooler_norm: bool = False
    """Whether a norm follows the pooler's activation."""
    pooler_input: Literal["cls", "mean"] = "cls"
    """What the pooler reads: the vector of `[CLS]`, or the mean over all tokens."""
    token_pooler: bool = False
    """Whether heads on tokens read them through the pooler's layers, as those on `[CLS]` do."""
    masked_lm_transform: bool = True
    """Whether linear, activation and norm stand before the MLM decoder."""
    masked_lm_activation: str | None = None
    """Activation of the MLM head, by name; by default `hidden_act`."""
    pruned_heads: dict[int, tuple[int, ...]] = Field(default_factory=dict)
    """Layer -> numbers of the heads that were removed from it."""

    @model_validator(mode="after")
    def _check(self) -> EncoderConfig:
        if self.attention_head_size is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}; choose a number of heads that divides it, or set attention_head_size"
            )
        for field in ("hidden_act", "pooler_activation", "masked_lm_activation"):
            name = getattr(self, field)
            if name is not None and name not in ACTIVATIONS:
                raise ValueError(
                    f"unknown {field} {name!r}{nearest(name, ACTIVATIONS)}; expected one of: {', '.join(ACTIVATIONS)}"
                )
        if self.pad_token_id >= self.vocab_size:
            raise ValueError(f"pad_token_id {self.pad_token_id} is outside the vocabulary of {self.vocab_size}")
        if self.final_norm and self.norm_position == "post":
            raise ValueError("final_norm is for norm_position pre; a post-norm block ends with a norm already")
        if self.type_vocab_size and self.token_type_offset >= self.type_vocab_size:
            raise ValueError(f"token_type_offset {self.token_type_offset} is outside {self.type_vocab_size} segments")
        if self.position_kind == "rotary" and self.head_size % 2:
            raise ValueError(
                f"position_kind rotary turns pairs of numbers, and attention_head_size is {self.head_size}"
            )
        if not self.first_norm and self.norm_position == "post":
            raise ValueError("first_norm is for norm_position pre; a post-norm block has no norm on its input")
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"layer_types has {len(self.layer_types)} entries for {self.num_hidden_layers} layers")
        if self.embedding_width != self.hidden_size and self.tie_word_embeddings and not self.masked_lm_transform:
            raise ValueError("tie_word_embeddings needs masked_lm_transform where embedding_size is not hidden_size")
        for layer, heads in self.pruned_heads.items():
            if not 0 <= layer < self.num_hidden_layers:
                raise ValueError(f"pruned_heads names layer {layer}; the layers are 0 to {self.num_hidden_layers - 1}")
            if not set(heads) <= set(range(self.num_attention_heads)):
                raise ValueError(
                    f"pruned_heads names heads {list(heads)} in layer {layer}; "
                    f"the heads are 0 to {self.num_attention_heads - 1}"
                )
            if not self.kept_heads(layer):
                raise ValueError(f"pruned_heads leaves no head in layer {layer}; keep at least one")
        return self

    @property
    def head_size(self) -> int:
        """Width of a head's queries and keys (H / A in BERT)."""
        return self.attention_head_size or self.hidden_size // self.num_attention_heads

    @property
    def is_causal(self) -> bool:
        """Whether a token sees only itself and what stands before it."""
        return False

    @property
    def value_size(self) -> int:
        """Width of a head's values."""
        return self.value_head_size or self.head_size

    @property
    def has_final_norm(self) -> bool:
        """Whether a norm follows the last block."""
        return self.norm_position == "pre" if self.final_norm is None else self.final_norm

    @property
    def head_dropout(self) -> float:
        """Dropout before a task's linear layer."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    def kept_heads(self, layer: int) -> list[int]:
        """Numbers of the heads that layer `layer` still has: `[0, 2, 3]` when head 1 of 4 was pruned."""
        gone = self.pruned_heads.get(layer, ())
        return [head for head in range(self.num_attention_heads) if head not in gone]

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the token table in memory."""
        return padded(self.vocab_size)

    @property
    def embedding_width(self) -> int:
        """Width of the embedding tables."""
        return self.embedding_size or self.hidden_size

    def window(self, layer: int) -> int | None:
        """How far to either side a token of layer `layer` sees; None if everywhere."""
        is_local = self.layer_types is not None and self.layer_types[layer] == "sliding_attention"
        return self.local_attention // 2 if is_local else None

    def rotary_base(self, layer: int) -> float | None:
        """Base of the rotary angles of layer `layer`; None without them."""
        if self.position_kind != "rotary":
            return None
        return self.rope_theta if self.window(layer) is None else self.local_rope_theta


def padded(vocab_size: int) -> int:
    """`vocab_size` rounded up to a multiple of 64: `30522 -> 30528`."""
    return -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def shape_problem(error: ValidationError) -> tuple[str | None, str]:
    """(field, message) of the first thing that is wrong with a shape.

    A check of several fields belongs to no field of its own; the first one that its message names counts.
    """
    first = error.errors()[0]
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["loc"]:
        return ".".join(
            str(part) for part in first["loc"]
        ), f"{message[:1].lower()}{message[1:]}, not {first['input']!r}"
    named = [word for word in re.findall(r"\w+", message) if word in EncoderConfig.model_fields]
    return (named[0] if named else None), message
