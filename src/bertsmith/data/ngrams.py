"""What counting alone can guess: the unigram and the bigram baseline of the masked-LM loss.

A model whose held-out loss is not below the unigram's has learnt nothing but how often pieces occur. The bigram knows
the token before, which the model may have to guess too; it is shown for interest.
"""

from __future__ import annotations

import numpy as np

from bertsmith.data.shards import TokenStore

MOST_TOKENS = 20_000_000
"""Tokens that the bigram counts are taken from, at most: the first ones. Memory stays below a gigabyte."""


class NGrams:
    """Counts of a store's tokens and of neighbouring tokens of one document.

    `end`: the token that ends a document, where a model guesses that too; it is not in the store.
    """

    def __init__(
        self, store: TokenStore, *, vocab_size: int, most_tokens: int = MOST_TOKENS, end: int | None = None
    ) -> None:
        self.vocab_size = vocab_size
        self.unigrams = store.token_counts(vocab_size)
        """`[vocab_size]`: how often each token occurs."""
        last = np.array([] if end is None else [end], np.int64)
        self.unigrams[last] += store.documents
        keys = [np.zeros(0, np.int64)]
        for start, stop in zip(store.document_bounds[:-1].tolist(), store.document_bounds[1:].tolist(), strict=True):
            if start >= most_tokens:
                break
            ids = np.concatenate([store.slice(start, stop), last])
            keys.append(ids[:-1] * vocab_size + ids[1:])
        self._keys, self._counts = np.unique(np.concatenate(keys), return_counts=True)
        before = self._keys // vocab_size
        self._followers = np.bincount(before, minlength=vocab_size)
        self._seen_before = np.bincount(before, weights=self._counts, minlength=vocab_size)

    def unigram_probabilities(self, labels: np.ndarray) -> np.ndarray:
        """`[items]`: add-one estimates, what no context can beat."""
        probabilities: np.ndarray = (self.unigrams[labels] + 1.0) / (float(self.unigrams.sum()) + self.vocab_size)
        return probabilities

    def bigram_probabilities(self, before: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """`[items]`: given the token `before` each, Witten and Bell's estimate, which leans on the unigram where a
        token was seen with few followers: (c(before, label) + T p(label)) / (c(before) + T), T distinct followers.
        """
        keys = before * self.vocab_size + labels
        if not len(self._keys):
            return self.unigram_probabilities(labels)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        counts = np.where(self._keys[places] == keys, self._counts[places], 0)
        weight = np.maximum(self._followers[before], 1)
        seen = counts + weight * self.unigram_probabilities(labels)
        smoothed: np.ndarray = seen / (self._seen_before[before] + weight)
        return smoothed
