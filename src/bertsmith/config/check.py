"""Options of `bertsmith check`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from bertsmith.config.finetune import Problem
from bertsmith.config.options import Options

TaskName = Literal["classify", "tag", "qa", "choice", "embed", "rerank"]


class CheckOptions(Options):
    """Look at labelled files before training: rows, labels, duplicates, leakage, lengths, and the command to train."""

    files: tuple[Path, ...] = Field(json_schema_extra={"positional": True})
    """Training rows, then those of other splits."""
    task: TaskName | None = None
    """classify, tag, qa, choice, embed or rerank; by default what the first file's columns say."""
    model: str | None = None
    """The model that will be trained, for lengths and unknown pieces: a directory, or hf:org/name[@revision]."""
    columns: str | None = None
    """`text=review,label=stars` maps a file's header; `text,label` names the columns of a file without one."""
    max_length: int | None = Field(default=None, ge=3)
    """Longest sequence; by default what model and tokenizer can read."""
    problem: Problem = "auto"
    """single, multi or regression, as in `finetune classify`."""
    score_range: str | None = None
    """`0,5`: lowest and highest score, as in `finetune embed` and `finetune rerank`."""
    separator: str | None = Field(default=None, min_length=1)
    """What parts the labels of a cell, as in `finetune classify`."""
