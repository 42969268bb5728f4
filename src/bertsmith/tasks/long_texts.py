"""What becomes of a text that is longer than the model reads: refused, cut, or read in windows.

truncate   [CLS] the beginning of a text that is too long [SEP]        the end goes
head-tail  [CLS] the beginning of a … is too long [SEP]                the middle goes; a quarter is head (Sun et
                                                                       al. 2019, section 5.3.1: 128 of 510)
window     [CLS] the beginning of a [SEP]  [CLS] of a text that [SEP]  …  nothing goes
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Encoding

from bertsmith.config.finetune import LongTexts
from bertsmith.tokenizer.text_tokenizer import TextTokenizer
from bertsmith.tokenizer.windows import kept_tokens

HEAD_SHARE = 0.25


def shorten(encoding: Encoding, limit: int, *, head_share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(ids, types), tokens taken from the end of the longer part until `limit` are left; the special tokens stay.

    `[CLS] a b c [SEP]`, 4 -> `[CLS] a b [SEP]`; of a pair, A and B lose from their own ends, as many as transformers'
    "longest_first" takes. With a `head_share` below 1, that share of what a part keeps is its beginning, the rest its
    end.
    """
    ids, types = np.array(encoding.ids), np.array(encoding.type_ids)
    if len(ids) <= limit:
        return ids, types
    parts = np.array([-1 if part is None else part for part in encoding.sequence_ids])
    own = [np.flatnonzero(parts == part) for part in (0, 1)]
    chosen = [*np.flatnonzero(parts < 0)]
    rooms = kept_tokens(len(own[0]), len(own[1]), room=limit - len(chosen), truncation="longest_first")
    for places, room in zip(own, rooms, strict=True):
        if len(places):
            chosen += _kept(int(places[0]), int(places[-1]) + 1, room, head_share)
    chosen.sort()
    return ids[chosen], types[chosen]


def _kept(start: int, end: int, room: int, head_share: float) -> list[int]:
    """Which of the places `start` to `end - 1` stay: `2, 8, 3, 0.34` -> `[2, 6, 7]`."""
    if end - start <= room:
        return list(range(start, end))
    head = min(room, max(1, round(room * head_share))) if room > 0 else 0
    return [*range(start, start + head), *range(end - (room - head), end)]


def inputs_of(
    encoding: Encoding,
    *,
    text: str,
    pair: str | None,
    tokenizer: TextTokenizer,
    limit: int,
    long_texts: LongTexts,
    stride: int,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The sequences of a text or pair with this encoding: one, or its windows."""
    if len(encoding.ids) > limit and long_texts == "window":
        special = sum(encoding.special_tokens_mask)
        share = (limit - special) // (2 if pair is not None else 1)
        windows = tokenizer.windows(
            text, pair, max_length=limit, stride=min(stride, share // 2), truncation="longest_first"
        )
        return [(np.array(window.ids), np.array(window.type_ids)) for window in windows]
    return [shorten(encoding, limit, head_share=HEAD_SHARE if long_texts == "head-tail" else 1.0)]


def joined_windows(outputs: Sequence[np.ndarray], inputs: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray:
    """The mean of the windows' logits, each weighted by its tokens: the last one is often short."""
    weights = np.array([sum(map(len, sequences)) for sequences in inputs], np.float64)
    mean = np.average(np.stack(outputs).astype(np.float64), axis=0, weights=weights)
    return np.asarray(mean, np.float32)
