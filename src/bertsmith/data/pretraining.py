"""The dataset of pretraining: sequences planned per epoch, special tokens put in, masks drawn."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
import torch

from bertsmith.batch import Batch
from bertsmith.data.causal import CausalData
from bertsmith.data.loader import MASK, PLAN, Dataset
from bertsmith.data.masking import Masking, MaskingUnit, replacement_ids
from bertsmith.data.sequences import generator, plan_blocks, plan_ordered, plan_pairs
from bertsmith.data.shards import TokenStore
from bertsmith.data.whole_words import WordFinder, chinese_segmenter
from bertsmith.errors import InputError
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

log = logging.getLogger("bertsmith")

HELDOUT_MASK_RATE = 0.15
"""Share of held-out tokens that are selected, whatever the run trains with: figures of runs stay comparable."""


@dataclass
class PretrainingData:
    """A `Dataset` over tokenised documents. Labels of its batches, all int64:

    - `mlm_positions`, `mlm_labels` `[selected]`: index into `[total]`, and the token that stood there
    - `next_sentence` `[sequences]`, unless the objective is none: 0 = B follows A, 1 = it does not (nsp), or the two
      were exchanged (sop)
    """

    store: TokenStore
    cls_id: int
    sep_id: int
    masking: Masking
    max_length: int
    """Longest sequence, special tokens included."""
    objective: str
    """`nsp`, `sop` or `none`."""
    seed: int
    static_masks: int | None = None
    """Plans and masks of so many epochs, which then come again; None: every epoch has its own."""
    words: WordFinder | None = None
    """What the words are; needed unless single tokens are masked."""
    _planned: tuple[int, np.ndarray] | None = field(default=None, repr=False)

    @property
    def pairs(self) -> bool:
        """Whether sequences have two parts."""
        return self.objective != "none"

    def drawn_in(self, epoch: int) -> int:
        """The epoch whose plan and masks `epoch` has: its own, unless masks are static."""
        return epoch if self.static_masks is None else epoch % self.static_masks

    def plan(self, epoch: int) -> np.ndarray:
        """The rows of `epoch` (see `data.sequences`): `[examples, 5]`; the last one asked for is kept."""
        epoch = self.drawn_in(epoch)
        if self._planned is None or self._planned[0] != epoch:
            rng = generator(self.seed, epoch, PLAN)
            make, specials = PLANS[self.objective]
            self._planned = (epoch, make(self.store, length=self.max_length - specials, rng=rng))
        return self._planned[1]

    def size(self, epoch: int) -> int:
        """Number of sequences in `epoch`."""
        return len(self.plan(epoch))

    def sequence(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(masked ids, token types, selected positions, their true ids) of one example."""
        a_start, a_end, b_start, b_end, _ = self.plan(epoch)[index].tolist()
        first, separator = np.array([self.cls_id]), np.array([self.sep_id])
        parts = [first, self.store.slice(a_start, a_end), separator]
        if self.pairs:
            parts += [self.store.slice(b_start, b_end), separator]
        ids = np.concatenate(parts)
        types = np.zeros(len(ids), np.int64)
        types[a_end - a_start + 2 :] = 1
        selectable = np.ones(len(ids), np.bool_)
        selectable[[0, a_end - a_start + 1, -1]] = False
        words = None if self.words is None else self._words(ids, a_end - a_start)
        rng = generator(self.seed, self.drawn_in(epoch), MASK, index)
        masked, positions = self.masking(ids, selectable, rng, words=words)
        return masked, types, positions, ids[positions]

    def _words(self, ids: np.ndarray, size_a: int) -> np.ndarray:
        """The words of A and B: a piece `##…` that truncation left at the start of a part begins a word there."""
        assert self.words is not None
        first, second = self.words(ids[: size_a + 1]), self.words(ids[size_a + 1 :])
        return np.concatenate([first, second + first[-1] + 1])

    def batch(self, epoch: int, indices: np.ndarray) -> Batch:
        """See `Dataset.batch`."""
        examples = [self.sequence(epoch, index) for index in indices.tolist()]
        order = sorted(range(len(examples)), key=lambda i: len(examples[i][0]))
        ids, types, positions, labels = zip(*(examples[i] for i in order), strict=True)
        starts = np.cumsum([0, *(len(sequence) for sequence in ids[:-1])])
        selected = np.concatenate([part + start for part, start in zip(positions, starts, strict=True)])
        targets = {
            "mlm_positions": torch.from_numpy(selected),
            "mlm_labels": torch.from_numpy(np.concatenate(labels)),
        }
        if self.pairs:
            targets["next_sentence"] = torch.from_numpy(self.plan(epoch)[indices[order], 4])
        return Batch.from_sequences(ids, token_type_ids=types, labels=targets)


PLANS = {"nsp": (plan_pairs, 3), "sop": (plan_ordered, 3), "none": (plan_blocks, 2)}
"""Objective -> how its sequences are planned, and how many special tokens each has."""


def make_dataset(
    store: TokenStore,
    tokenizer: TextTokenizer,
    *,
    objective: str,
    max_length: int,
    seed: int,
    mask_rate: float = HELDOUT_MASK_RATE,
    mask_share: float = 0.8,
    random_share: float = 0.1,
    unit: MaskingUnit = "tokens",
    chinese_words: bool = False,
    static_masks: int | None = None,
) -> PretrainingData:
    """The sequences of a run over `store`; the rest is as in `PretrainOptions`."""
    masking = Masking(
        mask_id=tokenizer.mask_id,
        replacements=replacement_ids(tokenizer.vocab_size, set(tokenizer.special_ids)),
        rate=mask_rate,
        mask_share=mask_share,
        random_share=random_share,
        unit=unit,
    )
    words = None
    if unit != "tokens":
        words = WordFinder(tokenizer, segment=chinese_segmenter() if chinese_words else None)
    return PretrainingData(
        store=store,
        cls_id=tokenizer.cls_id,
        sep_id=tokenizer.sep_id,
        masking=masking,
        max_length=max_length,
        objective=objective,
        seed=seed,
        static_masks=static_masks,
        words=words,
    )


def heldout_dataset(store: TokenStore, tokenizer: TextTokenizer, *, objective: str, max_length: int) -> Dataset | None:
    """The held-out sequences, whose masks are drawn once (seed 0); None, with a warning, if there are none."""
    data: PretrainingData | CausalData
    if objective == "causal":
        data = CausalData(store, tokenizer.cls_id, tokenizer.sep_id, max_length, seed=0)
    else:
        data = make_dataset(store, tokenizer, objective=objective, max_length=max_length, seed=0)
    try:
        if store.documents and data.size(0):
            return data
        log.warning("no held-out documents: nothing to evaluate on")
    except InputError as error:
        log.warning("the held-out documents cannot be evaluated: %s", error)
    return None
