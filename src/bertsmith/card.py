"""The model card: the `README.md` of a model directory."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertsmith.config.families import FAMILIES, differences
from bertsmith.interop.families import architecture
from bertsmith.models.bert import Bert
from bertsmith.models.seq2seq import CausalLM, Seq2Seq

CARD = "README.md"
"""The card's file. Its reader may set the licence in it, so a directory's manifest does not hold its checksum."""


@dataclass(frozen=True)
class Card:
    """What the writer of a directory knows about it; the rest is read off the model."""

    title: str
    origin: str
    """One sentence: from what it was made, and by which verb."""
    data: str
    """What text or rows it has seen, or that this is not known."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Measured values by name; empty if nothing was measured."""
    licence: str = "other"
    """The source's, as its own card names it."""


def licence_of(directory: Path) -> str:
    """What the card in `directory` says in its first lines: `license: apache-2.0` -> `apache-2.0`; else `other`."""
    card = directory / CARD
    if not card.is_file():
        return "other"
    head = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.S)
    named = re.search(r"^license: *([\w.+-]+) *$", head[1], re.M) if head else None
    return named[1] if named else "other"


def model_card(
    card: Card, model: Bert, *, labels: list[str], is_embedder: bool = False, is_reranker: bool = False
) -> str:
    """Markdown: what the model is, from what, data, figures, how to load it here and elsewhere."""
    config = model.config
    heads = ", ".join(model.heads) or "none"
    unlike = differences(config)
    shape = f"Unlike transformers' {FAMILIES[config.family].title} in: {', '.join(unlike)}. " if unlike else ""
    return f"""---
library_name: bertsmith
license: {card.licence}
---

# {card.title}

A BERT with {config.num_hidden_layers} layers of width {config.hidden_size}, {config.num_attention_heads} heads and a
vocabulary of {config.vocab_size:,} pieces: {model.num_parameters:,} parameters. {shape}Heads: {heads}. It reads
{config.max_position_embeddings} tokens at a time.{f" Labels: {', '.join(labels)}." if labels else ""}

## From what

{card.origin}

Data: {card.data}

## Figures

{figures_table(card.figures)}

## How to load it

{usage(model, labels=labels, is_embedder=is_embedder, is_reranker=is_reranker)}

## Licence

The licence of the weights is its maker's to choose: set it in the first lines of this file. It cannot be wider than
that of the model that this one was made from.
"""


def figures_table(figures: Mapping[str, Any]) -> str:
    """A Markdown table, or a sentence that says that there is none."""
    if not figures:
        return "Nothing was measured when this directory was written."
    rows = "\n".join(f"| {name} | {_text(value)} |" for name, value in figures.items())
    return f"| figure | value |\n|---|---|\n{rows}"


def usage(model: Bert, *, labels: list[str], is_embedder: bool, is_reranker: bool) -> str:
    """Code that loads the directory in bertsmith, transformers and sentence-transformers."""
    call = 'model.embed(["a text"])' if is_embedder else 'model.hidden_states(["a text"])'
    if labels and model.classifier is not None:
        call = 'model.predict(["a query"], pairs=["a text"])' if is_reranker else 'model.predict(["a text"])'
    elif model.masked_lm is not None:
        call = 'model.fill("a text with a [MASK]")'
    here = f'```python\nimport bertsmith\n\nmodel = bertsmith.load("DIR")\n{call}\n```'
    unlike = differences(model.config)
    if unlike:
        fix = (
            " `bertsmith convert DIR --to-hf --out NEW` restores the full shape." if unlike == ["pruned_heads"] else ""
        )
        return f"{here}\n\ntransformers has no class for this architecture ({', '.join(unlike)}).{fix}"
    family = model.config.family
    auto = (
        architecture(family, model.heads).replace(FAMILIES[family].title, "Auto", 1).replace("AutoFor", "AutoModelFor")
    )
    there = (
        f"```python\nfrom transformers import AutoTokenizer, {auto}\n\n"
        f'model, tokenizer = {auto}.from_pretrained("DIR"), AutoTokenizer.from_pretrained("DIR")\n```'
    )
    kind = "CrossEncoder" if is_reranker else "SentenceTransformer"
    sentences = f'```python\nfrom sentence_transformers import {kind}\n\nmodel = {kind}("DIR")\n```'
    note = (
        ""
        if is_embedder or is_reranker
        else "\n\nsentence-transformers takes it with mean pooling, which it was not trained for."
    )
    return "\n\n".join([here, there, sentences]) + note


def _text(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


SHARED = {
    "nothing": "",
    "tokens": " The two halves have one table of tokens.",
    "halves": " The two halves are one but for the attention to the source.",
}
"""`DecoderConfig.shared` in words."""


def writer_card(card: Card, model: CausalLM | Seq2Seq, *, unlike: Sequence[str]) -> str:
    """Markdown: what the model is, from what, figures, how to load it."""
    decoder = model.writer.config if isinstance(model, Seq2Seq) else model.config
    there = 'or `BertLMHeadModel.from_pretrained("DIR")` of transformers;\n'
    there += "its tokenizer closes a text with [SEP], which a prompt must not have."
    layers = f"A BERT that is a decoder, {decoder.num_hidden_layers} layers"
    if isinstance(model, Seq2Seq):
        kind = "Transformers" if unlike else "BERTs"
        numbers = f"{model.encoder.config.num_hidden_layers} and {decoder.num_hidden_layers}"
        layers = f"An encoder-decoder of two {kind}, {numbers} layers"
        there = 'or `EncoderDecoderModel.from_pretrained("DIR")` of transformers.'
    if unlike:
        there = f"and nothing else: transformers has no class for this architecture ({', '.join(unlike)})."
    return f"""---
library_name: bertsmith
license: {card.licence}
---

# {card.title}

{layers} of width {decoder.hidden_size}: {model.num_parameters:,} parameters.{SHARED[decoder.shared]}

{card.origin}

Data: {card.data}

## Figures

{figures_table(card.figures)}

## How to load it

`bertsmith generate DIR --text "…"`, {there}
"""
