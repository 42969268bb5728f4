"""The model card: the `README.md` of a model directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bertsmith.models.bert import Bert


def model_card(model: Bert, *, title: str, data: str, figures: Mapping[str, Any], use: str) -> str:
    """Markdown: what the model is, what it was made from, its figures, how to load it."""
    config = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    rows = "\n".join(f"| {name} | {_text(value)} |" for name, value in figures.items())
    return f"""---
library_name: bertsmith
license: other
---

# {title}

A BERT with {config.num_hidden_layers} layers of width {config.hidden_size}, {config.num_attention_heads} heads and a
vocabulary of {config.vocab_size:,} pieces: {parameters:,} parameters. Trained with bertsmith from: {data}.

| figure | value |
|---|---|
{rows}

{use}

The licence of the weights is its maker's to choose: set it in the first lines of this file.
"""


def _text(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
