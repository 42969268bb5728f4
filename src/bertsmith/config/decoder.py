"""The shape of a decoder: an encoder's, what it reads beside its own tokens, and what it shares with its encoder."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bertsmith.config.encoder import MOST, EncoderConfig

Shared = Literal["nothing", "tokens", "halves"]

OF_HEADS = frozenset(
    {
        "classifier_dropout",
        "cls_pooler",
        "decoder_bias",
        "head_bias",
        "initializer_range",
        "masked_lm_activation",
        "masked_lm_transform",
        "pooler_activation",
        "pooler_input",
        "pooler_norm",
        "tie_word_embeddings",
        "token_pooler",
    }
)
"""Fields in which halves that are one may differ, because nothing in them depends on it."""


class DecoderConfig(EncoderConfig):
    """A decoder as in Vaswani et al. 2017, section 3.1, of the same blocks as the encoder."""

    cross_attention: bool = True
    """Whether each block reads the states of an encoder, between its self-attention and its feed-forward part."""
    source_size: int | None = Field(default=None, ge=1, le=MOST)
    """Width of those states; by default `hidden_size`."""
    shared: Shared = "nothing"
    """What the decoder has in common with its encoder: nothing; the token table (Vaswani et al. 2017, section 3.4); or
    all but the attention to the source: embeddings, self-attention, feed-forward parts, norms (BERTSHARE of Rothe et
    al. 2020)."""

    @property
    def is_causal(self) -> bool:
        """Always."""
        return True

    @model_validator(mode="after")
    def _check_decoder(self) -> DecoderConfig:
        if self.source_size is not None and not self.cross_attention:
            raise ValueError("source_size is for cross_attention, which is off")
        if self.shared != "nothing" and not self.cross_attention:
            raise ValueError("shared names parts of an encoder, and without cross_attention there is none")
        if self.layer_types is not None or self.pruned_heads:
            raise ValueError("layer_types and pruned_heads are an encoder's; a decoder has neither")
        return self

    def check_encoder(self, encoder: EncoderConfig) -> None:
        """Raise `ValueError` naming the first field in which `encoder` is too different to be read, or to share parts
        with.
        """
        if not self.cross_attention:
            raise ValueError("a decoder without cross_attention cannot read the encoder")
        names = {
            "nothing": [],
            "tokens": ["vocab_size", "pad_token_id", "embedding_width"],
            "halves": [name for name in EncoderConfig.model_fields if name not in OF_HEADS],
        }
        for name in names[self.shared]:
            one, other = getattr(encoder, name), getattr(self, name)
            if one != other:
                raise ValueError(
                    f"{name} is {one!r} in the encoder and {other!r} in the decoder; a decoder whose `shared` is "
                    f"{self.shared!r} needs the same in both"
                )
