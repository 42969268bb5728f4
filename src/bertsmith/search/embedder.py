"""The model of a search, loaded: passages and queries to vectors, and what tells one model from another.

Not here: a model that need not be loaded (`search.model`), how texts become vectors (`tasks.embedding`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from bertsmith.config.search import SearchOptions
from bertsmith.errors import InputError
from bertsmith.model import load
from bertsmith.models.sentence import PASSAGE_PROMPTS, QUERY_PROMPTS, SentenceModules
from bertsmith.runtime import set_threads
from bertsmith.search.passages import Ruler
from bertsmith.search.quick import POOLINGS, QuickQuery, check_query
from bertsmith.search.store import VERSION
from bertsmith.tasks.embedding import TextVectors, embed_texts, lower_case

LEAST_TOKENS = 8
"""Least tokens of a text that a model must read, so that passages say something."""

PROBE = "A quick brown fox jumps over 3 lazy dogs, 你好 (the café's)."
"""A text on which `search.quick` and the model must agree."""


class Embedder:
    """A loaded embedder. Raises `InputError` for a model that is not there, damaged, or reads too little."""

    def __init__(self, options: SearchOptions) -> None:
        set_threads(options.threads)
        self.bundle = load(options.model, device=options.device).bundle
        if self.bundle.sentence_problem is not None:
            raise self.bundle.sentence_problem
        self.modules = self.bundle.sentence or SentenceModules()
        self._query_prompt = self.modules.prompt_named(QUERY_PROMPTS)
        prompt = self.modules.prompt_named(PASSAGE_PROMPTS)
        self.passages = TextVectors(self.bundle, prompt=prompt, batch_tokens=options.batch_tokens)
        self.limit = self.passages.limit
        if self.ruler.room < LEAST_TOKENS:
            message = f"reads {self.limit} tokens, which leaves {self.ruler.room} of a passage; choose another"
            raise InputError(message, file=self.bundle.path, field="--model")

    @property
    def size(self) -> int:
        """Numbers of a vector."""
        return self.passages.size

    @cached_property
    def ruler(self) -> Ruler:
        """How long passages may be, with room for a prompt and what its last word may do to the first of a text."""
        prompt = self.passages.prompt
        used = self._count(prompt) + 1 if prompt else 0
        return Ruler(room=self.limit - 2 - used, count=self._count, tokens=self._tokens)

    def _count(self, text: str) -> int:
        text = lower_case(text) if self.modules.do_lower_case else text
        return len(self.bundle.tokenizer.encode_ids([text])[0])

    def _tokens(self, text: str) -> list[tuple[int, bool]]:
        encoding = self.bundle.tokenizer.encode(text)
        words = encoding.word_ids
        return [(start, words[i] != words[i - 1]) for i, (start, _) in enumerate(encoding.offsets)][1:-1]

    def embed_passages(self, texts: Sequence[str]) -> np.ndarray:
        """`[texts, size]`, float32."""
        return self.passages.vectors(self.passages.inputs(texts)[0])

    def embed_query(self, text: str) -> np.ndarray:
        """`[size]`, float32. Raises `InputError` for a query that is longer than the model reads."""
        check_query(self._count(self.modules.prompt(self._query_prompt) + text) + 2, self.limit)
        return np.asarray(embed_texts(self.bundle, [text], prompt=self._query_prompt).vectors[0])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that a passage's vector depends on, in hexadecimal; not of how files hold it."""
        return hashlib.sha256(f"{self.passages.fingerprint} {VERSION}".encode()).hexdigest()

    def quick(self) -> dict[str, Any] | None:
        """What `search.quick` needs to embed queries as this model does; None where it cannot."""
        modules = self.modules
        if modules.dense or modules.do_lower_case or not set(modules.pooling) <= POOLINGS.keys():
            return None
        settings = {
            "pooling": list(modules.pooling),
            "limit": self.limit,
            "prompt": modules.prompt(self._query_prompt),
            "truncate_dim": modules.truncate_dim,
        }
        try:
            quick = QuickQuery(Path(self.bundle.path), settings, tokenizer=self.bundle.tokenizer)
            vector = quick.vector(quick.ids(PROBE)[: self.limit])
        except (LookupError, ValueError, TypeError, OSError, SafetensorError, InputError):
            return None
        expected = self.embed_query(PROBE)
        scale = np.linalg.norm(expected) / np.linalg.norm(vector) if modules.normalize else 1.0
        return settings if np.allclose(vector * scale, expected, rtol=0, atol=1e-5 * max(1.0, scale)) else None
