"""More pieces for an existing vocabulary: the words of a text that it cuts into many pieces.

The old pieces keep their ids, so a model keeps what it knows: its table gets rows at the end
(`models.surgery.extend_vocabulary`). Only whole words are added, since WordPiece takes the longest match first: a new
piece inside of words would change how other words are cut.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from tokenizers import Tokenizer

from bertsmith.errors import InputError
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

ENCODED_AT_ONCE = 1 << 14


def parts_of(tokenizer: TextTokenizer) -> Tokenizer:
    """The tokenizer as one of `tokenizers`, for its normaliser and pre-tokenizer."""
    return Tokenizer.from_str(tokenizer.content)


def extended(
    tokenizer: TextTokenizer, counts: Mapping[str, int], *, vocab_size: int, min_frequency: int
) -> TextTokenizer:
    """`tokenizer` with whole words of `counts` added until it has `vocab_size` pieces.

    Added are those that save the most pieces in the text: occurrences x (pieces - 1), or occurrences if the word was
    `[UNK]`; ties in alphabetical order. Raises `InputError` if there are too few, or nothing is to be added.
    """
    wanted = vocab_size - tokenizer.vocab_size
    if wanted <= 0:
        raise InputError(
            f"the vocabulary has {tokenizer.vocab_size} pieces already; give a larger number", field="--vocab-size"
        )
    longest = parts_of(tokenizer).model.max_input_chars_per_word
    words = [word for word, count in counts.items() if count >= min_frequency and len(word) <= longest]
    saved: list[tuple[int, str]] = []
    for start in range(0, len(words), ENCODED_AT_ONCE):
        group = words[start : start + ENCODED_AT_ONCE]
        for word, ids in zip(group, tokenizer.encode_ids(group), strict=True):
            pieces = len(ids) - 1 if tokenizer.unk_id not in ids else 1
            if pieces > 0:
                saved.append((-counts[word] * pieces, word))
    if len(saved) < wanted:
        most = tokenizer.vocab_size + len(saved)
        raise InputError(
            f"the text gives {len(saved)} words to add at --min-frequency {min_frequency}, not {wanted}; "
            f"use --vocab-size {most} or less",
            field="--vocab-size",
        )
    content = json.loads(tokenizer.content)
    for number, (_, word) in enumerate(sorted(saved)[:wanted], tokenizer.vocab_size):
        content["model"]["vocab"][word] = number
    return TextTokenizer(json.dumps(content, ensure_ascii=False, indent=2) + "\n", tokenizer.config)


def old_pieces(new: TextTokenizer, old: TextTokenizer) -> dict[int, list[int]]:
    """For the id of each piece that `new` has beyond `old`, the ids of its pieces in `old`.

    Raises `InputError` unless every piece of `old` has the same id in `new`.
    """
    for number in old.ids:
        if new.token_id(old.token(number)) != number:
            raise InputError(
                f'the piece "{old.token(number)}" has id {number} in the model and another in the shards; prepare the '
                "text with the model's tokenizer, or with one that `bertsmith tokenizer --extend` made from it",
                field="--model",
            )
    known = set(old.ids)
    added = [number for number in new.ids if number not in known]
    before = old.encode_ids([new.token(number).removeprefix("##") for number in added])
    return {number: ids or [old.unk_id] for number, ids in zip(added, before, strict=True)}
