"""The ids of a block of sentences, with a table of the words met before: what most of `prepare`'s time went into.

BERT's tokenizer looks at no character beyond the next space, so a sentence's ids are those of its words end to end, and
a word that was encoded once need not be again. Where a tokenizer may look further, sentences are encoded whole.
Not here: what the ids are (`tokenizer`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain

import numpy as np

from bertsmith.data.shards import pieces, sums
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

MOST_WORDS, MOST_CHARACTERS = 200_000, 8_000_000
"""A table with more, about 60 MB, takes no more words for good: those that came first are the frequent ones. Where most
words of a block are not in it (another language begins), it is begun anew."""


class WordTable:
    """Encodes sentences; what it returns does not depend on what it was given before."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        self.id_type = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32)
        self.separator = " " if is_word_by_word(tokenizer) else None
        self._clear()

    def _clear(self) -> None:
        self._numbers: dict[str, int] = {}
        self._characters = 0
        self._ids = np.zeros(0, self.id_type)
        self._counts = np.zeros((0, 3), np.int64)  # of each entry: tokens, words, unknown

    def __call__(self, sentences: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids end to end: `[tokens]`; and for each sentence its tokens, words and unknown tokens: `[sentences, 3]`."""
        parts = [sentence.split(self.separator) if self.separator else [sentence] for sentence in sentences]
        every = list(chain.from_iterable(parts))
        different = dict.fromkeys(every)
        new = [part for part in different if part not in self._numbers]
        full = len(self._numbers) > MOST_WORDS or self._characters > MOST_CHARACTERS
        if full and 2 * len(new) > len(different):
            self._clear()
            new, full = list(different), False
        self._learn(new)
        which = np.fromiter(map(self._numbers.__getitem__, every), np.int64, len(every))
        ids = self._ids[pieces(self._counts[:, 0], which)]
        sizes = np.fromiter(map(len, parts), np.int64, len(parts))
        counts = np.stack([sums(column, sizes) for column in self._counts[which].T], axis=1)
        if full:
            self._forget(new)
        return ids, counts

    def _learn(self, parts: Sequence[str]) -> None:
        found = self.tokenizer.encode_ids(parts)
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        ids = np.fromiter(chain.from_iterable(found), self.id_type, int(lengths.sum()))
        words = np.fromiter((len(part.split()) for part in parts), np.int64, len(parts))
        counts = np.stack([lengths, words, sums(ids == self.tokenizer.unk_id, lengths)], axis=1)
        self._numbers.update(zip(parts, range(len(self._numbers), len(self._numbers) + len(parts)), strict=True))
        self._characters += sum(map(len, parts))
        self._ids = np.concatenate([self._ids, ids])
        self._counts = np.concatenate([self._counts, counts])

    def _forget(self, parts: Sequence[str]) -> None:
        """Take out what was learned last."""
        for part in parts:
            del self._numbers[part]
        self._characters -= sum(map(len, parts))
        self._counts = self._counts[: len(self._numbers)]
        self._ids = self._ids[: int(self._counts[:, 0].sum())]


def is_word_by_word(tokenizer: TextTokenizer) -> bool:
    """Whether a sentence's ids are those of its parts between spaces: BERT's own steps, and nothing added to them."""
    content = json.loads(tokenizer.content)
    steps = [content.get(name) or {} for name in ("normalizer", "pre_tokenizer", "model")]
    known = [step.get("type") for step in steps] == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]
    return known and all(token.get("special") for token in content.get("added_tokens") or [])
