"""The dataset of a decoder alone: documents in blocks, and at each token the one after it.

    reads    [CLS] the cat      [CLS] sat on it
    writes   the   cat sat      sat   on  it [SEP]

Every block begins with `[CLS]`, so that a prompt may stand anywhere in a document; where a document ends, `[SEP]` is to
be written. Not here: masks (`data.pretraining`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from bertsmith.batch import Batch
from bertsmith.data.loader import PLAN
from bertsmith.data.sequences import generator, plan_blocks
from bertsmith.data.shards import TokenStore


@dataclass
class CausalData:
    """A `Dataset` over tokenised documents. Label of its batches: `next_tokens` `[total]`, int64."""

    store: TokenStore
    cls_id: int
    sep_id: int
    max_length: int
    """Longest block, `[CLS]` included."""
    seed: int
    _planned: tuple[int, np.ndarray] | None = field(default=None, repr=False)

    def plan(self, epoch: int) -> np.ndarray:
        """The blocks of `epoch` (see `data.sequences`): `[blocks, 5]`; the last plan asked for is kept."""
        if self._planned is None or self._planned[0] != epoch:
            rng = generator(self.seed, epoch, PLAN)
            self._planned = (epoch, plan_blocks(self.store, length=self.max_length - 1, rng=rng))
        return self._planned[1]

    def size(self, epoch: int) -> int:
        """Number of blocks in `epoch`."""
        return len(self.plan(epoch))

    def block(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(what is read, what is to be written), `[length]` each."""
        start, end = self.plan(epoch)[index, :2].tolist()
        bounds = self.store.document_bounds
        is_last = bounds[np.searchsorted(bounds, end)] == end
        ids = self.store.slice(start, end if is_last else end + 1)
        whole = np.concatenate([[self.cls_id], ids, [self.sep_id] if is_last else ids[:0]])
        return whole[:-1], whole[1:]

    def batch(self, epoch: int, indices: np.ndarray) -> Batch:
        """See `Dataset.batch`."""
        blocks = sorted((self.block(epoch, index) for index in indices.tolist()), key=lambda block: len(block[0]))
        read, written = zip(*blocks, strict=True)
        return Batch.from_sequences(read, labels={"next_tokens": torch.from_numpy(np.concatenate(written))})
