"""What becomes of a text that is longer than the model reads: refused, cut, or read in windows.

truncate   [CLS] the beginning of a text that is too long [SEP]        the end goes
head-tail  [CLS] the beginning of a … is too long [SEP]                the middle goes; a quarter is head (Sun et
                                                                       al. 2019, section 5.3.1: 128 of 510)
window     [CLS] the beginning of a [SEP]  [CLS] of a text that [SEP]  …  nothing goes
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bertsmith.config.finetune import LongTexts
from bertsmith.tokenizer.directory import TextTokenizer

HEAD_SHARE = 0.25


def shorten(
    ids: np.ndarray, types: np.ndarray, limit: int, *, head_share: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Take tokens from the end of the longer part until `limit` are left; the special tokens stay.

    `[CLS] a b c [SEP]`, 4 -> `[CLS] a b [SEP]`; of a pair, A and B lose from their own ends. With a `head_share` below
    1, that share of what a part keeps is its beginning, the rest its end.
    """
    if len(ids) <= limit:
        return ids, types
    second = int(types.sum())
    first = len(ids) - second
    if not second:
        chosen = [0, *_kept(1, first - 1, limit - 2, head_share), first - 1]
        return ids[chosen], types[chosen]
    keep_a = min(first, max(limit - limit // 2, limit - second))
    keep_b = limit - keep_a
    inner_a = _kept(1, first - 1, keep_a - 2, head_share)
    inner_b = _kept(first, len(ids) - 1, keep_b - 1, head_share)
    chosen = [0, *inner_a, first - 1, *inner_b, len(ids) - 1]
    return ids[chosen], types[chosen]


def _kept(start: int, end: int, room: int, head_share: float) -> list[int]:
    """Which of the places `start` to `end - 1` stay: `2, 8, 3, 0.34` -> `[2, 6, 7]`."""
    if end - start <= room:
        return list(range(start, end))
    head = min(room, max(1, round(room * head_share))) if room > 0 else 0
    return [*range(start, start + head), *range(end - (room - head), end)]


def inputs_of(
    ids: np.ndarray,
    types: np.ndarray,
    *,
    text: str,
    pair: str | None,
    tokenizer: TextTokenizer,
    limit: int,
    long_texts: LongTexts,
    stride: int,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The sequences of a text or pair whose encoding is `ids`, `types`: one, or its windows."""
    if len(ids) <= limit:
        return [(ids, types)]
    if long_texts == "window":
        special = 3 if pair is not None else 2
        share = (limit - special) // (2 if pair is not None else 1)
        windows = tokenizer.windows(
            text, pair, max_length=limit, stride=min(stride, share // 2), truncation="longest_first"
        )
        return [(np.array(window.ids), np.array(window.type_ids)) for window in windows]
    return [shorten(ids, types, limit, head_share=HEAD_SHARE if long_texts == "head-tail" else 1.0)]


def joined_windows(outputs: Sequence[np.ndarray], inputs: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray:
    """The mean of the windows' logits, each weighted by its tokens: the last one is often short."""
    weights = np.array([sum(map(len, sequences)) for sequences in inputs], np.float64)
    mean = np.average(np.stack(outputs).astype(np.float64), axis=0, weights=weights)
    return np.asarray(mean, np.float32)
