"""Counts the words of a stream of texts in bounded memory, and drops the rarest when they become too many.

Not here: reading files (`data.text`) and what is learned from the counts (`tokenizer.train`).

    texts -> whitespace-words -> blocks -> raw counts -> normaliser, pre-tokenizer -> table -> prune

The normaliser and the pre-tokenizer cost microseconds a call, so they see each distinct whitespace-word
once per merge instead of each occurrence. Where a block ends and when the table is pruned depend on the
sequence of words alone, never on the lengths of lines, on hash seeds or on time.
"""

from __future__ import annotations

import logging
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from bertsmith.errors import InputError

LONGEST_WORD = 100
"""Characters of the longest word that BERT cuts into pieces; a longer one is encoded as `[UNK]`."""

CHARACTERS_PER_WORD = 10
"""The table holds at most this many characters for each of its `max_words` words, on average. Training
needs memory for each character of a distinct word, so a table of 64-digit hashes must hold fewer."""

KEPT_BY_PRUNING = 0.8
BLOCK_CHARACTERS = 1 << 21
RAW_CHARACTERS = 1 << 22
NORMALIZED_AT_ONCE = 1 << 16
LONGEST_RUN = 1 << 16
PROGRESS_WORDS = 50_000_000

# `str.split` splits at these control characters; BERT's clean-up deletes them.
_DELETED = re.compile("[\x0b\x0c\x1c-\x1f\x85]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WHITESPACE = re.compile(r"\s")
# Some of the characters that BERT makes a word of their own, so cutting there changes no word.
_CUT = re.compile(r"(?<=[!-/:-@\[-`{-~\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f])")

log = logging.getLogger("bertsmith")


class Normalizer(Protocol):
    """What is used of `tokenizers.normalizers.Normalizer`."""

    def normalize_str(self, sequence: str) -> str:
        """The normalised text."""
        ...


class PreTokenizer(Protocol):
    """What is used of `tokenizers.pre_tokenizers.PreTokenizer`."""

    def pre_tokenize_str(self, sequence: str) -> list[tuple[str, tuple[int, int]]]:
        """The words of a normalised text, with their offsets."""
        ...


@dataclass(frozen=True)
class WordCounts:
    """How often each word occurs, and what the counts leave out."""

    counts: dict[str, int]
    """word -> occurrences; a word that was pruned and came back counts from its return only."""
    texts: int
    words: int
    """Occurrences of all words, the pruned and the overlong ones included."""
    pruned_words: int
    """Table entries dropped; a word that was dropped twice counts twice."""
    pruned_occurrences: int
    overlong_words: int
    """Occurrences of words beyond `LONGEST_WORD` characters, which are not counted one by one."""


def count_words(
    texts: Iterable[str], *, normalizer: Normalizer, pre_tokenizer: PreTokenizer, max_words: int
) -> WordCounts:
    """Count the words of `texts`, holding about `max_words` distinct ones at a time.

    `normalizer` and `pre_tokenizer` are BERT's: neither looks beyond whitespace, and a word of letters and
    digits is never split. A text with a lone surrogate raises `InputError`.

    `["To be, to be."]`, lower-casing -> `{"to": 2, "be": 2, ",": 1, ".": 1}`
    """
    table = _Table(max_words, normalizer, pre_tokenizer)
    number, room = 0, BLOCK_CHARACTERS
    for text in texts:
        number += 1
        for words in _whitespace_words(text):
            size = sum(map(len, words))
            while size >= room:  # the block ends inside these words
                end = bisect_left(list(accumulate(map(len, words))), room) + 1
                table.raw.update(words[:end])
                table.end_block()
                words, room = words[end:], BLOCK_CHARACTERS
                size = sum(map(len, words))
            table.raw.update(words)
            room -= size
    table.merge()
    return WordCounts(
        counts=table.counts,
        texts=number,
        words=table.words,
        pruned_words=table.pruned_words,
        pruned_occurrences=table.pruned_occurrences,
        overlong_words=table.overlong_words,
    )


def _whitespace_words(text: str) -> Iterator[list[str]]:
    """The whitespace-words of one text, in lists of bounded size even for a text of a gigabyte."""
    start = 0
    while start < len(text):
        found = _WHITESPACE.search(text, start + BLOCK_CHARACTERS) if len(text) > BLOCK_CHARACTERS else None
        end = found.end() if found else len(text)
        part = text[start:end]
        if not part.isprintable():
            part = _DELETED.sub("", part)
        words = part.split()
        if len(part) > LONGEST_RUN and any(len(word) > LONGEST_RUN for word in words):
            words = [piece for word in words for piece in _cut(word)]
        yield words
        start = end


def _cut(word: str) -> list[str]:
    """A whitespace-word beyond `LONGEST_RUN` (prose without spaces) in pieces, cut beside punctuation."""
    return _CUT.split(word) if len(word) > LONGEST_RUN else [word]


class _Table:
    """The counts of whitespace-words since the last merge, and of the final words, which it keeps few."""

    def __init__(self, max_words: int, normalizer: Normalizer, pre_tokenizer: PreTokenizer) -> None:
        self.max_words = max_words
        self.normalizer, self.pre_tokenizer = normalizer, pre_tokenizer
        self.raw: Counter[str] = Counter()
        self.counts: dict[str, int] = {}
        self.characters = 0  # of all distinct final words together
        self.words = self.overlong_words = 0
        self.pruned_words = self.pruned_occurrences = 0
        self.milestone = PROGRESS_WORDS

    def end_block(self) -> None:
        """Merge if there is enough to merge."""
        if sum(map(len, self.raw)) >= RAW_CHARACTERS:
            self.merge()
            if self.words >= self.milestone:
                log.info("%d million words counted, %d distinct", self.words // 10**6, len(self.counts))
                self.milestone = self.words + PROGRESS_WORDS

    def merge(self) -> None:
        """Turn the whitespace-words into final words and prune.

        Words of equal count are normalised as one text: the result needs no mapping back.
        """
        groups: dict[int, list[str]] = {}
        for word, count in self.raw.items():
            groups.setdefault(count, []).append(word)
        self.raw.clear()
        for count, words in groups.items():
            for text in _joined(words):
                self.add(_pretokenized(text, self.normalizer, self.pre_tokenizer), count)
        self.prune()

    def add(self, words: Iterable[str], count: int) -> None:
        """Count each of `words` `count` times; overlong ones are only tallied."""
        counts = self.counts
        for word in words:
            self.words += count
            if len(word) > LONGEST_WORD:
                self.overlong_words += count
            elif word in counts:
                counts[word] += count
            else:
                counts[word] = count
                self.characters += len(word)

    def prune(self) -> None:
        """If the table is too large, drop the rarest words until 80 % of what is allowed remains.

        Among words of equal count those seen first go first: they had more time to come back.
        """
        if len(self.counts) <= self.max_words and self.characters <= self.max_words * CHARACTERS_PER_WORD:
            return
        words_left = int(self.max_words * KEPT_BY_PRUNING)
        characters_left = words_left * CHARACTERS_PER_WORD
        number: Counter[int] = Counter(self.counts.values())
        length: Counter[int] = Counter()
        for word, count in self.counts.items():
            length[count] += len(word)
        threshold = 0  # words above it stay
        for threshold in sorted(number, reverse=True):
            if number[threshold] > words_left or length[threshold] > characters_left:
                break
            words_left -= number[threshold]
            characters_left -= length[threshold]
        dropped = [word for word, count in self.counts.items() if count < threshold]
        tied, tied_length = number[threshold], length[threshold]
        for word, count in self.counts.items():
            if tied <= words_left and tied_length <= characters_left:
                break
            if count == threshold:
                dropped.append(word)
                tied -= 1
                tied_length -= len(word)
        for word in dropped:
            self.pruned_occurrences += self.counts.pop(word)
            self.characters -= len(word)
        self.pruned_words += len(dropped)


def _joined(words: list[str]) -> Iterator[str]:
    """The words joined by newlines in texts of about `NORMALIZED_AT_ONCE` characters (measured: the
    normaliser is four times faster on such texts than on megabytes)."""
    start = size = 0
    for end, word in enumerate(words, start=1):
        size += len(word)
        if size >= NORMALIZED_AT_ONCE or end == len(words):
            yield "\n".join(words[start:end])
            start, size = end, 0


def _pretokenized(text: str, normalizer: Normalizer, pre_tokenizer: PreTokenizer) -> Iterator[str]:
    """The final words of a text; the pre-tokenizer sees only those with more than letters and digits."""
    try:
        normalized = normalizer.normalize_str(text)
    except (TypeError, UnicodeEncodeError):
        message = surrogate_message(text)
        if message is None:
            raise
        raise InputError(message) from None
    others = []
    for word in normalized.split():
        if word.isalnum():
            yield word
        else:
            others.append(word)
    for word, _ in pre_tokenizer.pre_tokenize_str(" ".join(others)):
        yield word


def surrogate_message(text: str) -> str | None:
    r"""What to say about a text that has no UTF-8 form, None if it has one.

    `"a\ud800b"` -> `the text has a lone surrogate, …: 'a\ud800b'; …`
    """
    found = _SURROGATE.search(text)
    if found is None:
        return None
    at = found.start()
    excerpt = text[max(0, at - 20) : at].rpartition("\n")[2] + text[at : at + 20].partition("\n")[0]
    return f"the text has a lone surrogate, which no UTF-8 text can hold: {excerpt!r}; remove or replace it"


def refuse_surrogates(texts: Sequence[str]) -> None:
    """Raise `InputError` if one of `texts` is what makes tokenizers raise a `TypeError`."""
    for number, text in enumerate(texts):
        message = surrogate_message(text)
        if message is not None:
            raise InputError(f"texts[{number}]: {message}" if len(texts) > 1 else message)
