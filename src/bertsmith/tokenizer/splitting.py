"""Cutting a text into words for a tagger that was trained on words. Not here: cutting words into pieces.

A word is a run of letters, digits and marks, with single apostrophes, hyphens, dots and the like between them; a
Chinese character, and any other sign, is a word of its own.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

JOINERS = frozenset("'’.-_@/&·")
"""Between two word characters they belong to the word: `don't`, `U.S`, `twenty-one`, `a@b.de`."""


def split_words(text: str) -> list[tuple[str, int, int]]:
    """`"It's 5 p.m., Tom."` -> `It's 5 p.m . , Tom .` with their places: `[("It's", 0, 4), ("5", 5, 6), …]`."""
    words = []
    i, size = 0, len(text)
    while i < size:
        kind = _kind(text[i])
        start, i = i, i + 1
        if kind == "space":
            continue
        if kind == "letter":
            while i < size and (
                _kind(text[i]) == "letter" or (text[i] in JOINERS and i + 1 < size and _kind(text[i + 1]) == "letter")
            ):
                i += 1
        words.append((text[start:i], start, i))
    return words


@lru_cache(maxsize=1 << 16)
def _kind(character: str) -> str:
    if character.isspace() or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zs"):
        return "letter" if character in "\u200c\u200d" else "space"  # joiners stand inside words of many scripts
    if _is_ideograph(character):
        return "ideograph"
    return "letter" if unicodedata.category(character)[0] in "LNM" else "sign"


def _is_ideograph(character: str) -> bool:
    """The blocks that BERT's pre-tokenizer cuts at, kana left out (google-research/bert, `_is_chinese_char`)."""
    number = ord(character)
    return 0x3400 <= number <= 0x9FFF or 0xF900 <= number <= 0xFAFF or 0x20000 <= number <= 0x2FA1F
