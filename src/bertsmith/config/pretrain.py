"""Options of `bertsmith pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from bertsmith.config.training import TrainingOptions
from bertsmith.presets import LAYOUTS, RECIPES, WITHOUT_PAIRS, LayoutName, RecipeName, SizeName

OF_ENCODERS = {
    "mask_rate": "no token is masked",
    "mask_share": "no token is masked",
    "random_share": "no token is masked",
    "masking": "no token is masked",
    "chinese_words": "no token is masked",
    "static_masks": "no token is masked",
    "attention_init": "a decoder does not see the token after",
    "layout": "a decoder is a BERT with is_decoder",
    "fsdp": "a decoder is whole in each process",
}
"""Options that make no sense with `--objective causal`, and why."""


class PretrainOptions(TrainingOptions):
    """Pretrain a BERT on token shards; or, with `--objective causal`, a decoder that goes on with a text."""

    recipe: RecipeName | None = None
    """Settings that go together, where no flag says otherwise: classic (Devlin et al. 2018) or fast (the demo's)."""
    data: Path = Field(json_schema_extra={"positional": True})
    """Shards directory, as written by `bertsmith prepare`."""
    tokenizer: Path | None = None
    """Tokenizer directory that must be the one that made the shards; by default the shards' own copy."""
    model: str | None = None
    """Continue from this model (a directory, or hf:org/name[@revision]) instead of random weights."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Highest learning rate."""
    objective: Literal["nsp", "sop", "none", "causal"] = "nsp"
    """What is learnt beside masked tokens: nsp = does B follow A, sop = in which order are A and B, none = nothing.
    causal: in their place each next token, by a decoder that `bertsmith generate` writes with."""
    size: SizeName | None = None
    """Shape, after Turc et al. 2019: tiny 2x128, mini 4x256 (default), small 4x512, medium 8x512, base 12x768,
    large 24x1024."""
    layout: LayoutName | None = None
    """Architecture: bert (default), modern (ModernBERT's), or a source system: codertimo, handwritten, original."""
    layers: int | None = Field(default=None, ge=1)
    """Number of blocks, instead of the size's."""
    hidden: int | None = Field(default=None, ge=1)
    """Width, instead of the size's; heads have 64 dimensions, the feed-forward part is 4 times as wide."""
    positions: int | None = Field(default=None, ge=4)
    """Longest sequence that the model will ever read (`max_position_embeddings`); by default 512."""
    max_length: int = Field(default=128, ge=4)
    """Longest sequence in pretraining, special tokens included."""
    hidden_act: str | None = None
    """Activation, by name; by default the layout's (BERT: gelu)."""
    init: Literal["normal", "xavier", "kaiming"] = "normal"
    """How matrices start: truncated normal as BERT, or uniform after Glorot or He."""
    initializer_range: float = Field(default=0.02, gt=0)
    """Standard deviation of the truncated normal that weights start from."""
    position_init: Literal["normal", "sinusoidal"] = "normal"
    """How the learned positions start: as all weights do, or as sines, twice as large."""
    attention_init: Literal["normal", "neighbours"] = "normal"
    """How the attention of a new model starts: as all weights do, or with heads that look at the tokens beside."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on hidden states and attention probabilities."""
    mask_rate: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens that are selected, to be guessed."""
    mask_share: float = Field(default=0.8, ge=0, le=1)
    """Share of the selected tokens that become [MASK]."""
    random_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the selected tokens that become a random piece; the rest stays as it is."""
    masking: Literal["tokens", "words", "spans"] = "tokens"
    """What is selected: single tokens, all pieces of a word, or spans of neighbouring words."""
    chinese_words: bool = False
    """Let a segmenter join Chinese characters into words (extra zh); without it each is a word."""
    static_masks: int | None = Field(default=None, ge=1)
    """Draw sequences and masks for so many epochs and repeat them (google-research/bert: 10); default: always anew."""

    @model_validator(mode="before")
    @classmethod
    def _follow_recipe(cls, values: Any) -> Any:
        recipe = values.get("recipe") if isinstance(values, dict) else None
        if not isinstance(recipe, str):
            return values
        without_pairs = WITHOUT_PAIRS.get(recipe, {}) if values.get("objective") in ("none", "causal") else {}
        settings = {**RECIPES.get(recipe, {}), **without_pairs}
        if values.get("objective") == "causal":
            settings = {name: value for name, value in settings.items() if name not in OF_ENCODERS}
        return settings | values

    @model_validator(mode="after")
    def _consistent(self) -> PretrainOptions:
        for name, reason in OF_ENCODERS.items() if self.objective == "causal" else ():
            if getattr(self, name) not in (type(self).model_fields[name].default, "bert"):
                raise ValueError(f"--{name.replace('_', '-')} is not for --objective causal: {reason}; leave it out")
        if self.mask_share + self.random_share > 1:
            raise ValueError(f"--mask-share {self.mask_share} and --random-share {self.random_share} exceed 1 together")
        if self.model is not None:
            for name in ("size", "layout", "layers", "hidden", "positions", "hidden_act"):
                if getattr(self, name) is not None:
                    raise ValueError(f"--{name.replace('_', '-')} is for a new model; --model has a shape of its own")
        kind = LAYOUTS[self.layout or "bert"].get("position_kind")
        has_sines = "sinusoidal" in (self.position_init, kind) or kind == "rotary"
        if self.model is None and self.attention_init == "neighbours" and not has_sines:
            raise ValueError(
                "--attention-init neighbours finds the tokens beside by sines: --position-init sinusoidal, "
                "or --attention-init normal"
            )
        if self.chinese_words and self.masking == "tokens":
            raise ValueError("--chinese-words is for --masking words or spans")
        return self
