"""Trains a WordPiece vocabulary from word counts; `train_tokenizer` is the verb, from files to directory.

Not here: counting (`tokenizer.words`), the files of the directory (`tokenizer.directory`).

The trainer of `tokenizers` is used, with three corrections:
1. It numbers the pieces `##c` in the order of a hash table that is seeded anew in each process, and ties
   between merges are broken by these numbers. Given as sorted special tokens, they are stable.
2. It makes a piece of every character at the start of a word, even of one that only occurs inside. Those
   get room during training and are taken out afterwards.
3. It would learn from a word with a left-out character as if the character were not there. Such a word
   is encoded as `[UNK]` anyway, so it is left out.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

import bertsmith
from bertsmith import files
from bertsmith.config.tokenizer import TokenizerOptions
from bertsmith.data.archives import format_of
from bertsmith.data.text import read_documents, read_lines
from bertsmith.errors import InputError
from bertsmith.tokenizer.bert import SPECIAL_TOKENS, bert_tokenizer
from bertsmith.tokenizer.directory import load_tokenizer, write_tokenizer
from bertsmith.tokenizer.extend import extended, parts_of
from bertsmith.tokenizer.text_tokenizer import TextTokenizer
from bertsmith.tokenizer.words import WordCounts, count_words

TEXT_CHARACTERS = 1 << 14
"""Size of the texts that the trainer is fed with."""

ENCODED_AT_ONCE = 1 << 14

log = logging.getLogger("bertsmith")


def train_tokenizer(options: TokenizerOptions) -> dict[str, Any]:
    """Train a WordPiece vocabulary on files and write the tokenizer directory `options.out`.

    Returns `directory`, `vocab_size`, `texts`, `words`, `distinct_words`, `pruned_words`,
    `pruned_occurrences`, `overlong_words`, `unknown_words`, `pieces_per_word`, `seconds`. Two runs write
    the same bytes. Raises `InputError`; nothing is written then.
    """
    started = time.monotonic()
    files.check_output(options.out, overwrite=options.overwrite)
    base = _base(options)
    normalizer: Any = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=options.chinese_chars,
        strip_accents=options.strip_accents,
        lowercase=options.lowercase,
    )
    pre_tokenizer: Any = pre_tokenizers.BertPreTokenizer()
    if base is not None:
        normalizer, pre_tokenizer = parts_of(base).normalizer, parts_of(base).pre_tokenizer
    counted = count_words(
        _texts(options), normalizer=normalizer, pre_tokenizer=pre_tokenizer, max_words=options.max_words
    )
    _log_counts(counted, options)
    if base is None:
        tokenizer = train_wordpiece(counted.counts, options)
    else:
        grown = extended(base, counted.counts, vocab_size=options.vocab_size, min_frequency=options.min_frequency)
        tokenizer = parts_of(grown)
    figures = {
        "vocab_size": tokenizer.get_vocab_size(),
        "texts": counted.texts,
        "words": counted.words,
        "distinct_words": len(counted.counts),
        "pruned_words": counted.pruned_words,
        "pruned_occurrences": counted.pruned_occurrences,
        "overlong_words": counted.overlong_words,
        **measure(tokenizer, counted.counts),
    }
    with files.new_directory(options.out, overwrite=options.overwrite) as directory:
        if base is None:
            write_tokenizer(directory, tokenizer, model_max_length=options.max_length)
        else:
            grown.save(directory)
        provenance = options.model_dump(mode="json", exclude={"out", "overwrite"})
        versions = {"bertsmith": bertsmith.__version__, "tokenizers": tokenizers.__version__}
        content = {"options": provenance, "versions": versions, **figures}
        files.write_manifest(directory, content, kind="tokenizer")
        load_tokenizer(directory)  # verifies the sizes and hashes just written, and that it encodes
    seconds = round(time.monotonic() - started, 3)
    log.info("%s: %d pieces, %.3f a word", options.out, figures["vocab_size"], figures["pieces_per_word"])
    return {"directory": str(options.out), **figures, "seconds": seconds}


def _base(options: TokenizerOptions) -> TextTokenizer | None:
    """The tokenizer to extend, if one is given. Its settings cannot be changed by flags."""
    if options.extend is None:
        return None
    for name in ("lowercase", "strip_accents", "chinese_chars", "max_length"):
        if getattr(options, name) != TokenizerOptions.model_fields[name].default:
            raise InputError("stays as it is in the tokenizer that is extended", field="--" + name.replace("_", "-"))
    return load_tokenizer(options.extend)


def _texts(options: TokenizerOptions) -> Iterator[str]:
    """The texts of all files; a .txt comes line by line, as without blank lines it is a single document."""
    read_documents(options.files, columns=options.columns, pairs=options.pairs)  # complains about any file first
    for path in options.files:
        if format_of(path)[0] == ".txt" and not options.pairs:
            for _, line in read_lines(path):
                if line.strip():
                    yield line
        else:
            for document in read_documents([path], columns=options.columns, pairs=options.pairs):
                yield from document.sentences


def _log_counts(counted: WordCounts, options: TokenizerOptions) -> None:
    log.info("%d words in %d texts, %d distinct", counted.words, counted.texts, len(counted.counts))
    if counted.overlong_words:
        log.warning("%d overlong words are left out: BERT encodes them as [UNK]", counted.overlong_words)
    if counted.pruned_words:
        share = counted.pruned_occurrences / counted.words
        log.warning(
            "%d rare words (%.2f%% of the text) were dropped at --max-words %d",
            counted.pruned_words,
            100 * share,
            options.max_words,
        )


def train_wordpiece(counts: Mapping[str, int], options: TokenizerOptions) -> Tokenizer:
    """A tokenizer of exactly `options.vocab_size` pieces, learned from the words in `counts`.

    Ids: the five special tokens, characters at the start of words, characters inside words, merged
    pieces in the order of learning. Equal counts give equal ids, in any order and any process.
    Raises `InputError` if the counts do not give that many pieces.
    """
    if not counts:
        raise InputError("the files have no words to learn from")
    alphabet = choose_alphabet(
        counts, min_frequency=options.min_frequency, room=options.vocab_size - len(SPECIAL_TOKENS)
    )
    if alphabet.left_out:
        log.warning(
            "%d of %d characters are left out (rare, or --vocab-size is full): words with them become [UNK]",
            len(alphabet.left_out),
            len(alphabet.left_out) + len(alphabet.characters),
        )
    only_inside = alphabet.characters - alphabet.first
    inside = sorted(f"##{character}" for character in alphabet.inside)
    trainer = trainers.WordPieceTrainer(
        vocab_size=options.vocab_size + len(only_inside),
        min_frequency=options.min_frequency,
        special_tokens=[*SPECIAL_TOKENS.values(), *sorted(alphabet.characters), *inside],
        show_progress=False,
    )
    learner = Tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS["unk_token"]))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = (word for word in sorted(counts) if alphabet.left_out.isdisjoint(word))
    learner.train_from_iterator(repeated(words, counts), trainer)
    vocabulary = learner.get_vocab()
    pieces = [piece for piece in sorted(vocabulary, key=vocabulary.__getitem__) if piece not in only_inside]
    if len(pieces) < options.vocab_size:
        found = f"this corpus gives {len(pieces)} pieces at --min-frequency {options.min_frequency}"
        enough = len(pieces) > len(SPECIAL_TOKENS)
        fix = f"--vocab-size {len(pieces)} or less" if enough else "a smaller --min-frequency"
        raise InputError(f"{found}, not {options.vocab_size}; use {fix}, or more text", field="--vocab-size")
    return bert_tokenizer(
        {piece: number for number, piece in enumerate(pieces)},
        lowercase=options.lowercase,
        strip_accents=options.strip_accents,
        chinese_chars=options.chinese_chars,
    )


@dataclass(frozen=True)
class Alphabet:
    """Characters that get pieces: `first` those that start a word (`c`), `inside` the others (`##c`)."""

    first: frozenset[str]
    inside: frozenset[str]
    left_out: frozenset[str]

    @property
    def characters(self) -> frozenset[str]:
        """All characters that are kept."""
        return self.first | self.inside


def choose_alphabet(counts: Mapping[str, int], *, min_frequency: int, room: int) -> Alphabet:
    """The most frequent characters, as long as their pieces fit into `room`.

    `{"ab": 2, "b": 1, "c": 1}, min_frequency=2, room=9 -> first {a, b}, inside {b}, left out {c}`
    """
    total: Counter[str] = Counter()
    first: set[str] = set()
    inside: set[str] = set()
    for word, count in counts.items():
        first.add(word[0])
        inside.update(word[1:])
        for character in word:
            total[character] += count
    kept: set[str] = set()
    for character in sorted(total, key=lambda character: (-total[character], character)):
        room -= (character in first) + (character in inside)
        if room < 0 or total[character] < min_frequency:
            break
        kept.add(character)
    return Alphabet(frozenset(first & kept), frozenset(inside & kept), frozenset(total.keys() - kept))


def repeated(words: Iterable[str], counts: Mapping[str, int]) -> Iterator[str]:
    """Texts of bounded size in which each word stands as often as it was counted.

    `["a", "b"], {"a": 2, "b": 1} -> "a a b"`
    """
    text: list[str] = []
    size = 0
    for word in words:
        left = counts[word]
        while left:
            times = min(left, (TEXT_CHARACTERS - size) // (len(word) + 1) + 1)
            text += [word] * times
            size += times * (len(word) + 1)
            left -= times
            if size >= TEXT_CHARACTERS:
                yield " ".join(text)
                text, size = [], 0
    if text:
        yield " ".join(text)


def measure(tokenizer: Tokenizer, counts: Mapping[str, int]) -> dict[str, Any]:
    """`pieces_per_word`, and `unknown_words`: occurrences that are encoded as `[UNK]`."""
    words = list(counts)
    unknown_id = tokenizer.token_to_id(SPECIAL_TOKENS["unk_token"])
    pieces = unknown = 0
    for start in range(0, len(words), ENCODED_AT_ONCE):
        part = words[start : start + ENCODED_AT_ONCE]
        for word, encoding in zip(part, tokenizer.encode_batch_fast(part, add_special_tokens=False), strict=True):
            pieces += counts[word] * len(encoding.ids)
            unknown += counts[word] * (encoding.ids == [unknown_id])
    return {"unknown_words": unknown, "pieces_per_word": round(pieces / sum(counts.values()), 4)}
