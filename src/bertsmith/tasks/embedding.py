"""Embedding: texts to vectors, as a model's sentence modules describe it. Not here: the files of a user (`embed`), and
how an embedder learns (`tasks.embed`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from tokenizers import normalizers

from bertsmith.batch import Batch
from bertsmith.bundle import Bundle
from bertsmith.config.finetune import LongDocs
from bertsmith.errors import ErrorCollector, InputError
from bertsmith.models.sentence import SentenceModules
from bertsmith.tasks.inference import each_group
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


class TextVectors:
    """How a model makes vectors of texts: its sentence modules, and what a caller chose instead.

    The arguments are those of `Model.embed`. Raises `InputError` for a choice that the model does not have.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        prompt: str | None = None,
        batch_tokens: int | None = None,
        pooling: str | Sequence[str] | None = None,
        normalize: bool | None = None,
        long_docs: LongDocs = "error",
    ) -> None:
        if bundle.sentence_problem is not None:
            raise bundle.sentence_problem
        self.model, self.tokenizer, self.batch_tokens = bundle.model, bundle.tokenizer, batch_tokens
        self.modules = bundle.sentence or SentenceModules()
        self.pooling = self.modules.pooling if pooling is None else _listed(pooling)
        self.size = self.modules.size(bundle.model.config.hidden_size, pooling=self.pooling)
        """Numbers of a vector."""
        self.normalize = normalize
        self.normalized = self.modules.normalize if normalize is None else normalize
        self.prompt = self.modules.prompt(prompt)
        self.limit = sentence_limit(bundle)
        self.cuts = bundle.sentence is not None or long_docs == "truncate"
        """Whether longer texts lose their end; else they are errors."""

    def inputs(self, texts: Sequence[str], *, place: Place = in_list) -> tuple[list[np.ndarray], int]:
        """See `sentence_inputs`."""
        return sentence_inputs(
            texts,
            tokenizer=self.tokenizer,
            modules=self.modules,
            limit=self.limit,
            cuts=self.cuts,
            place=place,
            prompt=self.prompt,
        )

    def vectors(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """`[texts, size]`, float32, in the order of `inputs`."""
        vectors = np.empty((len(inputs), self.size), np.float32)

        def compute(group: list[int]) -> None:
            batch = Batch.from_sequences([inputs[i] for i in group]).to(self.model.device)
            states = self.model.encoder(batch)
            found = self.modules.vectors(states, batch, pooling=self.pooling, normalize=self.normalize)
            vectors[group] = found.cpu().numpy()

        most = self.batch_tokens or self.model.encoder.batch_tokens
        each_group(compute, [len(ids) for ids in inputs], batch_tokens=most, device=self.model.device)
        return vectors

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that a vector depends on, in hexadecimal; not of how files hold it."""
        digest = hashlib.sha256()
        tensors = dict(self.model.encoder.state_dict())
        for i, projection in enumerate(self.modules.dense):
            tensors[f"dense.{i}.weight"] = projection.weight
            if projection.bias is not None:
                tensors[f"dense.{i}.bias"] = projection.bias
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(np.ascontiguousarray(tensor.float().cpu().numpy()).data)
        rest = {
            "tokenizer": self.tokenizer.fingerprint,
            "config": self.model.config.model_dump(mode="json"),
            "pooling": self.pooling,
            "activations": [projection.activation for projection in self.modules.dense],
            "normalize": self.normalized,
            "lower": self.modules.do_lower_case,
            "truncate_dim": self.modules.truncate_dim,
            "prompt": self.prompt,
            "limit": self.limit,
        }
        digest.update(json.dumps(rest, sort_keys=True).encode())
        return digest.hexdigest()


def embed_texts(bundle: Bundle, texts: Sequence[str], *, place: Place = in_list, **choices: Any) -> Embeddings:
    """One vector for each text; `choices` are those of `TextVectors`. Errors name the `place` of their text."""
    maker = TextVectors(bundle, **choices)
    inputs, cut = maker.inputs(texts, place=place)
    warn_of_cuts(cut, len(texts), maker.limit)
    return Embeddings(
        vectors=maker.vectors(inputs),
        pooling=maker.pooling,
        normalized=maker.normalized,
        cut=cut,
        tokens=sum(map(len, inputs)),
    )


def _listed(pooling: str | Sequence[str]) -> tuple[str, ...]:
    return (pooling,) if isinstance(pooling, str) else tuple(pooling)


def warn_of_cuts(cut: int, texts: int, limit: int) -> None:
    """Say how many of so many texts lost their end."""
    if cut:
        log.warning("%d of %d texts were cut to %d tokens", cut, texts, limit)


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
    return inputs, cut


def lower_case(text: str) -> str:
    """As sentence-transformers does it, which differs from `str.lower` in a final sigma: "ΟΔΟΣ" -> "οδοσ"."""
    if surrogate_message(text) is not None:
        return text  # the tokenizer refuses it, with its place
    return normalizers.Lowercase().normalize_str(text)
