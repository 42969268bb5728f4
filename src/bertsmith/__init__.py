"""bertsmith: your own BERT, from raw text to a served model, on the machine you have."""

from __future__ import annotations

__version__ = "0.1.0"
