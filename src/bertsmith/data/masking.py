"""Which tokens the model must guess: dynamic masking (Devlin et al. 2018, section 3.1; Liu et al. 2019, 4.1).

A mask is a pure function of (seed, epoch, index of the example): the same run draws the same masks, the
next epoch draws others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Masking:
    """How to mask: `rate` of the tokens are selected; of these `mask_share` become [MASK], `random_share` a
    random piece (never a special token), the rest stays.
    """

    mask_id: int
    replacements: np.ndarray
    """Ids that a random replacement may be: `[pieces]`, without the special tokens."""
    rate: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1

    def __call__(
        self, input_ids: np.ndarray, selectable: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mask a copy of `input_ids` `[length]`; `selectable` `[length]` is False where nothing may be selected.

        Returns the masked ids and the selected positions in ascending order. At least one position is
        selected, and as many as `rate` of the selectable ones, rounded (as google-research/bert does).
        """
        candidates = np.flatnonzero(selectable)
        count = min(len(candidates), max(1, round(len(candidates) * self.rate)))
        positions = np.sort(rng.choice(candidates, size=count, replace=False))
        masked = input_ids.copy()
        draws = rng.random(count)
        masked[positions[draws < self.mask_share]] = self.mask_id
        swapped = positions[(draws >= self.mask_share) & (draws < self.mask_share + self.random_share)]
        masked[swapped] = self.replacements[rng.integers(len(self.replacements), size=len(swapped))]
        return masked, positions


def replacement_ids(vocab_size: int, special_ids: set[int]) -> np.ndarray:
    """All ids but the special ones: `replacement_ids(5, {0, 3})` -> `[1, 2, 4]`."""
    return np.setdiff1d(np.arange(vocab_size), np.fromiter(special_ids, np.int64, len(special_ids)))
