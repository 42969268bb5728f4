"""The shape of a decoder: an encoder's, and what it reads beside its own tokens."""

from __future__ import annotations

from pydantic import Field, model_validator

from bertsmith.config.encoder import MOST, EncoderConfig


class DecoderConfig(EncoderConfig):
    """A decoder as in Vaswani et al. 2017, section 3.1, of the same blocks as the encoder."""

    cross_attention: bool = True
    """Whether each block reads the states of an encoder, between its self-attention and its feed-forward part."""
    source_size: int | None = Field(default=None, ge=1, le=MOST)
    """Width of those states; by default `hidden_size`."""

    @property
    def is_causal(self) -> bool:
        """Always."""
        return True

    @model_validator(mode="after")
    def _check_decoder(self) -> DecoderConfig:
        if self.source_size is not None and not self.cross_attention:
            raise ValueError("source_size is for cross_attention, which is off")
        if self.layer_types is not None or self.pruned_heads:
            raise ValueError("layer_types and pruned_heads are an encoder's; a decoder has neither")
        return self
