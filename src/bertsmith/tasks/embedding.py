"""Embedding: texts to vectors, as a model's sentence modules describe it. Not here: the files of a user (`embed`), and
how an embedder learns (`tasks.embed`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import normalizers

from bertsmith.batch import Batch
from bertsmith.bundle import Bundle
from bertsmith.config.finetune import LongDocs
from bertsmith.errors import ErrorCollector, InputError
from bertsmith.models.sentence import SentenceModules
from bertsmith.tasks.inference import BATCH_TOKENS, token_groups
from bertsmith.tokenizer.text_tokenizer import TextTokenizer
from bertsmith.tokenizer.words import surrogate_message

log = logging.getLogger("bertsmith")

Place = Callable[[int], dict[str, Any]]
"""Where the i-th text stands, as arguments of an `InputError`."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors of texts, and how they came about."""

    vectors: np.ndarray
    """`[texts, size]`, float32, in the order of the texts."""
    pooling: tuple[str, ...]
    normalized: bool
    cut: int
    """How many texts were longer than the model reads, and lost their end."""
    tokens: int
    """Tokens computed, special tokens included."""


def in_list(i: int) -> dict[str, Any]:
    """The place of a text of a Python list."""
    return {"field": f"texts[{i}]"}


def embed_texts(
    bundle: Bundle,
    texts: Sequence[str],
    *,
    place: Place = in_list,
    prompt: str | None = None,
    batch_tokens: int = BATCH_TOKENS,
    pooling: str | Sequence[str] | None = None,
    normalize: bool | None = None,
    long_docs: LongDocs = "error",
) -> Embeddings:
    """One vector for each text; the arguments are those of `Model.embed`. Errors name the `place` of their text."""
    if bundle.sentence_problem is not None:
        raise bundle.sentence_problem
    modules = bundle.sentence or SentenceModules()
    kinds = modules.pooling if pooling is None else (pooling,) if isinstance(pooling, str) else tuple(pooling)
    vectors = np.empty((len(texts), modules.size(bundle.model.config.hidden_size, pooling=kinds)), np.float32)
    inputs, cut = sentence_inputs(
        texts,
        tokenizer=bundle.tokenizer,
        modules=modules,
        limit=sentence_limit(bundle),
        cuts=bundle.sentence is not None or long_docs == "truncate",
        place=place,
        prompt=modules.prompt(prompt),
    )
    with torch.inference_mode():
        for group in token_groups([len(ids) for ids in inputs], batch_tokens):
            batch = Batch.from_sequences([inputs[i] for i in group]).to(bundle.model.device)
            states = bundle.model.encoder(batch)
            vectors[group] = modules.vectors(states, batch, pooling=kinds, normalize=normalize).cpu().numpy()
    return Embeddings(
        vectors=vectors,
        pooling=kinds,
        normalized=modules.normalize if normalize is None else normalize,
        cut=cut,
        tokens=sum(map(len, inputs)),
    )


def sentence_limit(bundle: Bundle) -> int:
    """Most tokens of a text that is embedded, special tokens included."""
    limit = bundle.sentence.max_seq_length if bundle.sentence is not None else None
    return min(limit or bundle.tokenizer.model_max_length, bundle.model.config.max_position_embeddings)


def sentence_inputs(
    texts: Sequence[str],
    *,
    tokenizer: TextTokenizer,
    modules: SentenceModules,
    limit: int,
    cuts: bool,
    place: Place,
    prompt: str,
) -> tuple[list[np.ndarray], int]:
    """The ids of each text, `[CLS] prompt text [SEP]`, and how many of them were cut to `limit` tokens.

    Without `cuts`, a longer text is an `InputError` at its `place`. A model with sentence modules always cuts at its
    own limit, as it did in training.
    """
    room, from_the_left = limit - 2, tokenizer.config.get("truncation_side") == "left"
    errors, cut, inputs = ErrorCollector(), 0, []
    texts = [prompt + text for text in texts]
    if modules.do_lower_case:
        texts = [lower_case(text) for text in texts]
    for i, ids in enumerate(tokenizer.encode_ids(texts)):
        if len(ids) > room:
            cut += 1
            if not cuts:
                message = f"{len(ids) + 2} tokens, the limit is {limit}; shorten it, or give --long-docs truncate"
                errors.add(InputError(message, **place(i)))
            ids = ids[len(ids) - room :] if from_the_left else ids[:room]
        inputs.append(np.array([tokenizer.cls_id, *ids, tokenizer.sep_id]))
    errors.raise_if_any()
    if cut:
        log.warning("%d of %d texts were cut to %d tokens", cut, len(texts), limit)
    return inputs, cut


def lower_case(text: str) -> str:
    """As sentence-transformers does it, which differs from `str.lower` in a final sigma: "ΟΔΟΣ" -> "οδοσ"."""
    if surrogate_message(text) is not None:
        return text  # the tokenizer refuses it, with its place
    return normalizers.Lowercase().normalize_str(text)
