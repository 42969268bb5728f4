"""Options of `bertsmith export`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

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
    int8: bool = False
    """Also write onnx/model_quantized.onnx: 8-bit products and token table, a quarter of the size. Refused if it loses
    more than `--max-loss` on `--data`."""
    data: Path | None = None
    """Rows on which the loss of `--int8` is measured: labelled ones of the model's task, or texts."""
    columns: str | None = None
    """`text=review,label=stars` maps the header of `--data`; `text,label` names the columns of a file without one."""
    max_loss: float = Field(default=0.005, ge=0)
    """The most that int8 may lose: of the primary metric where `--data` has labels, else the mean of 1 - cosine."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of the CPU for the check; by default what torch chooses."""
    overwrite: bool = False
    """Replace an existing output once the new one is complete."""

    @model_validator(mode="after")
    def _data_for_int8(self) -> ExportOptions:
        if self.int8 and self.data is None:
            raise ValueError("--int8 needs --data FILE: rows or texts on which its loss is measured")
        for name in ("data", "columns", "max_loss"):
            if name in self.model_fields_set and not self.int8:
                raise ValueError(f"--{name.replace('_', '-')} goes with --int8")
        return self
