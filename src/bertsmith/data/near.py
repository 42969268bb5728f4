"""Near-duplicates: MinHash signatures of documents, cut into bands (the `[dedup]` extra).

A document is the set of its runs of five words, or of five characters where it has no spaces. Two documents whose sets
have a Jaccard similarity s share one of b bands of r numbers with a probability of 1 - (1 - s^r)^b (Leskovec,
Rajaraman, Ullman, Mining of Massive Datasets, section 3.4). r is the largest with which half of the pairs at the
threshold are found: at 0.8 that is 96 % of the pairs with s = 0.9, 13 % of those with 0.7, 0.2 % of those with 0.5.
Not here: what was seen before (`data.dedup`).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from bertsmith.errors import import_extra

PERMUTATIONS = 128
SHINGLE = 5
"""Words, or characters, of a shingle."""


class Signer:
    """Signs documents for a threshold."""

    def __init__(self, similarity: float, *, seed: int) -> None:
        """Raises `InputError` if the extra is not installed."""
        self.sign = import_extra("rensa", extra="dedup", field="--near-dedup").RMinHash
        self.bands_of, self.rows = bands_and_rows(similarity)
        self.seed = seed

    def bands(self, texts: Sequence[str]) -> np.ndarray:
        """`[documents, bands]`, uint64; each number says band and content."""
        return np.array([self._bands(text) for text in texts], np.uint64).reshape(-1, self.bands_of)

    def _bands(self, text: str) -> list[int]:
        signer = self.sign(num_perm=PERMUTATIONS, seed=self.seed % 2**64)
        signer.update(shingles(text))
        signature = np.array(signer.digest(), "<u4").reshape(-1)[: self.bands_of * self.rows].reshape(-1, self.rows)
        named = (b"%d " % band + part.tobytes() for band, part in enumerate(signature))
        return [int.from_bytes(blake2b(part, digest_size=8).digest(), "little") for part in named]


def shingles(text: str) -> list[str]:
    """The different runs of five words, lower-cased, in the order of their first places; or of five characters.

    `"A b c d e f"` -> `["a b c d e", "b c d e f"]`
    """
    words = text.lower().split()
    if sum(map(len, words)) > 20 * len(words):  # hardly a space: Chinese, Japanese, Thai
        joined = "".join(words)
        runs = (joined[i : i + SHINGLE] for i in range(max(len(joined) - SHINGLE + 1, 1)))
    else:
        runs = (" ".join(words[i : i + SHINGLE]) for i in range(max(len(words) - SHINGLE + 1, 1)))
    return list(dict.fromkeys(runs))


def bands_and_rows(similarity: float) -> tuple[int, int]:
    """How a signature is divided: `0.8 -> (10, 12)`."""

    def found(rows: int) -> float:
        return float(1 - (1 - similarity**rows) ** (PERMUTATIONS // rows))

    rows = max(rows for rows in range(1, PERMUTATIONS + 1) if rows == 1 or found(rows) >= 0.5)
    return PERMUTATIONS // rows, rows
