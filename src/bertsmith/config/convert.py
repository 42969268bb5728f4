"""Options of `bertsmith convert`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from bertsmith.config.options import Options
from bertsmith.presets import SourceLayout


class ConvertOptions(Options):
    """Read a checkpoint of another system, or change one of ours, and write it as a model directory."""

    src: str = Field(json_schema_extra={"positional": True})
    """A model directory, hf:org/name, a google-research checkpoint, or a state dict (.pt .pth .bin .safetensors)."""
    out: Path
    """Directory to write; with `--to` a file, .safetensors or .pt."""
    tokenizer: Path | None = None
    """Tokenizer directory or vocab.txt, where the source has none."""
    target_tokenizer: Path | None = None
    """The same for the targets of an encoder-decoder, where they have a vocabulary of their own."""
    layout: SourceLayout | None = None
    """Source system of a state dict; by default told by the names of its tensors."""
    heads: int | None = Field(default=None, ge=1)
    """Attention heads of a state dict, which does not say."""
    positions: int | None = Field(default=None, ge=1)
    """Longest sequence of a state dict that holds no positions (`original`); 512 if not given."""
    embedding_scale: bool | None = None
    """Whether token vectors are multiplied by sqrt(hidden_size); by default as the layout has it, but not in an
    encoder-decoder's state dict, as hyunwoongko's code does not."""
    encoder_only: bool = False
    """Of a state dict with encoder and decoder (`original`), read the encoder alone."""
    vocab_size: int | None = Field(default=None, ge=1)
    """Number of pieces that the result shall have: rows are added or dropped in embeddings, decoder and its bias."""
    prune_heads: str | None = None
    """Heads to remove for good, `LAYER:HEAD,HEAD` with numbers from 0, several parted by spaces: "0:1,3 2:0"."""
    to_hf: bool = False
    """Give pruned heads back, as zeros without effect, so that transformers loads the result."""
    to: Literal["directory", "codertimo", "handwritten", "original"] = "directory"
    """What to write: a model directory, or a state dict that the source system loads."""
    seed: int = Field(default=0, ge=0)
    """Decides the weights of added rows."""
    overwrite: bool = False
    """Replace an existing output once the new one is complete."""

    @field_validator("prune_heads")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\s*\d+:\d+(,\d+)*(\s+\d+:\d+(,\d+)*)*\s*", value):
            raise ValueError('expected LAYER:HEAD,HEAD parted by spaces, such as "0:1,3 2:0"')
        return value

    @model_validator(mode="after")
    def _one_direction(self) -> ConvertOptions:
        if self.to_hf and self.prune_heads:
            raise ValueError("--to-hf gives pruned heads back and --prune-heads removes some; give one of them")
        if self.to_hf and self.to != "directory":
            raise ValueError("--to-hf writes a model directory; leave out --to")
        return self

    @property
    def heads_to_prune(self) -> dict[int, list[int]]:
        """`"0:1,3 2:0"` -> `{0: [1, 3], 2: [0]}`."""
        pairs = (part.split(":") for part in (self.prune_heads or "").split())
        found: dict[int, list[int]] = {}
        for layer, heads in pairs:
            found.setdefault(int(layer), []).extend(int(head) for head in heads.split(","))
        return found
