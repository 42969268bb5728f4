"""bertsmith: your own BERT, from raw text to a served model, on the machine you have."""

from __future__ import annotations

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`bertsmith.load` and `bertsmith.Model`, imported when they are asked for: torch takes seconds."""
    if name in ("load", "Model"):
        from bertsmith import model

        return getattr(model, name)
    raise AttributeError(f"module 'bertsmith' has no attribute {name!r}")
