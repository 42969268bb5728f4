"""Options of `bertsmith export`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from bertsmith.config.options import Options


class ExportOptions(Options):
    """Write a model as ONNX, with head, pooling and normalisation in the graph, checked against torch."""

    model: str = Field(json_schema_extra={"positional": True})
    """A model directory, or hf:org/name[@revision]."""
    out: Path
    """Directory to write: onnx/model.onnx, and the files that say how texts become its input."""
    task: Literal["embed", "encode", "fill-mask"] | None = None
    """What the graph answers, where the model can do several: vectors of texts, vectors of tokens, or guesses for each
    token; by default what the model was made for."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of the CPU for the check; by default what torch chooses."""
    overwrite: bool = False
    """Replace an existing output once the new one is complete."""
