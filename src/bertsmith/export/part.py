"""One ONNX file to be: a module, what it is traced with, and the names of its inputs, outputs and their axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

Axes = tuple[str | int, ...]
"""Of a tensor: the name of each axis whose size is known only at run time, the size of the others."""

ROWS, LENGTH, CHOICES = "batch_size", "sequence_length", "num_choices"
PAST, TARGET, SOURCE, BOTH = "past_length", "target_length", "source_length", "past_and_target_length"


@dataclass(frozen=True, eq=False)
class Part:
    """A file to be."""

    stem: str
    """Name of the file, without its suffix."""
    module: nn.Module
    example: tuple[Any, ...]
    """Arguments of `module`: tensors, and tuples of tensors; every named axis longer than 1."""
    inputs: dict[str, Axes]
    """Name -> axes of each tensor of `example`, in order."""
    outputs: dict[str, Axes]
