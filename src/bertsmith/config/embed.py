"""Options of `bertsmith embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from bertsmith.config.finetune import LongDocs
from bertsmith.config.inference import EngineOptions

SUFFIXES = (".npy", ".parquet")
"""What can be written."""


class EmbedOptions(EngineOptions):
    """Turn texts into vectors, one for each row, in the order of the rows."""

    data: Path
    """A file of texts (.txt: one a line, blank lines are skipped; .tsv .csv .jsonl .parquet: column text)."""
    out: Path
    """File to write: .npy (a float32 matrix, texts by size) or .parquet (columns text and embedding)."""
    columns: str | None = None
    """`text=review` maps a file's header; `text,-` names the columns of a file without one."""
    pooling: Literal["cls", "mean", "max", "weighted"] | None = None
    """How token vectors become one; by default as the directory's sentence-transformers files say, else mean."""
    normalize: bool | None = None
    """Whether vectors get length 1; by default as these files say, else not."""
    prompt: str | None = None
    """Name of a prompt of the model, put before each text; by default the model's own, "" for none."""
    long_docs: LongDocs = "error"
    """What to do with a longer text than the model reads: refuse it, or cut its end off (counted). A model with
    sentence-transformers files always cuts, as it did in training."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Most tokens computed at a time by one thread; by default what suits the engine."""
    overwrite: bool = False
    """Replace an existing output once the new one is complete."""
    resume: bool = False
    """Go on with a job that was stopped, at the part of the file that it had reached."""

    @field_validator("out")
    @classmethod
    def _writable(cls, value: Path) -> Path:
        if value.suffix not in SUFFIXES:
            raise ValueError(f"expected a file that ends in {' or '.join(SUFFIXES)}")
        return value
