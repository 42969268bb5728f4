"""Which tokens of a sequence make up a word: by their pieces, and for Chinese by a segmenter.

    the  rep ##resent ##ative  said        0 1 1 1 2
    使   用   语   言   模   型              0 0 1 1 2 2     with the extra [zh]; else each character is a word

Not here: what is masked (`data.masking`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import groupby

import numpy as np

from bertsmith.errors import import_extra
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

Segmenter = Callable[[str], Iterable[str]]
"""Cuts a text into words that together are the text."""

_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
"""The blocks that BERT's tokenizer splits into characters (google-research/bert, `_is_chinese_char`)."""


def chinese_segmenter() -> Segmenter:
    """rjieba's, which works offline. Raises `InputError` without the extra `[zh]`."""
    cut: Segmenter = import_extra("rjieba", extra="zh", field="--chinese-words").cut
    return cut


class WordFinder:
    """Numbers the words of token sequences of one vocabulary."""

    def __init__(self, tokenizer: TextTokenizer, *, segment: Segmenter | None = None) -> None:
        self._tokenizer, self._segment = tokenizer, segment

    @cached_property
    def _continues(self) -> np.ndarray:
        """`[vocab_size]`: whether the piece goes on with the word before it."""
        special = set(self._tokenizer.special_ids)
        begins = self._tokenizer.begins_word
        return np.array([i not in special and not begins(self._piece(i)) for i in range(self._tokenizer.vocab_size)])

    @cached_property
    def _chinese(self) -> dict[int, str]:
        """The ids of single Chinese characters."""
        pieces = ((i, self._piece(i).removeprefix("##")) for i in range(self._tokenizer.vocab_size))
        return {i: piece for i, piece in pieces if len(piece) == 1 and _is_chinese(piece)}

    def _piece(self, number: int) -> str:
        try:
            return self._tokenizer.token(number)
        except KeyError:  # a gap between the ids
            return ""

    def __call__(self, input_ids: np.ndarray) -> np.ndarray:
        """`[length]` -> the number of each token's word, ascending from 0: `[length]`, int64."""
        begins = ~self._continues[input_ids]
        begins[:1] = True
        if self._segment is not None:
            self._join_characters(input_ids, begins)
        return np.cumsum(begins) - 1

    def _join_characters(self, input_ids: np.ndarray, begins: np.ndarray) -> None:
        """Take the beginnings inside of Chinese words out of `begins`."""
        assert self._segment is not None
        characters = [self._chinese.get(number, "") for number in input_ids.tolist()]
        start = 0
        for is_chinese, group in groupby(characters, key=bool):
            run = list(group)
            place = start
            for word in self._segment("".join(run)) if is_chinese else ():
                begins[place + 1 : place + len(word)] = False
                place += len(word)
            start += len(run)


def _is_chinese(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in _CHINESE)
