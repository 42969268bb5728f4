"""From a vocab.txt and the settings of a tokenizer_config.json to a tokenizer, as transformers' `BertTokenizer`.

Not here: directories (`tokenizer.directory`), the tokens that the settings name (`tokenizer.added_tokens`) and
the pipeline itself (`tokenizer.bert`). The other settings that count, with their defaults:

    do_lower_case                 true
    strip_accents                 null    as `do_lower_case`
    tokenize_chinese_chars        true
    do_basic_tokenize             true    false is refused
    never_split                   null    see `tokenizer.never_split`; transformers 5 ignores it
    max_input_chars_per_word      100     google-research/bert has 200; transformers knows no such setting
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers

from bertsmith.errors import InputError, listing
from bertsmith.tokenizer.added_tokens import AddedTokens
from bertsmith.tokenizer.bert import READS_TOKENIZER_JSON, bert_tokenizer, tokenizer_config
from bertsmith.tokenizer.words import LONGEST_WORD

BERT_CLASSES = (
    *("BertTokenizer", "ConvBertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "LayoutLMTokenizer"),
    *("LxmertTokenizer", "MobileBertTokenizer", "RetriBertTokenizer", "SqueezeBertTokenizer"),
)
"""`tokenizer_class`, without "Fast", of those that read a vocab.txt with BERT's rules."""
ANY_CLASSES = ("PreTrainedTokenizer", "TokenizersBackend")
"""The same of those that read any tokenizer.json as it is."""

# What Rust's `trim_end` removes, and transformers with it; `str.rstrip` would remove four controls more.
_WHITESPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))

log = logging.getLogger("bertsmith")


def read_vocabulary(file: Path) -> dict[str, int]:
    """The pieces of a vocab.txt, one a line: piece -> line number from 0, which is its id.

    As in transformers, white space at the end of a line is no part of the piece, and of two equal lines the
    later one counts, which is logged. A line may be empty; empty lines at the end of the file are no pieces.
    Raises `InputError`.
    """
    if not file.is_file():
        raise InputError("no such file", file=file)
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError("not UTF-8; save the file as UTF-8", file=file, line=line) from None
    if text.startswith("\ufeff"):
        raise InputError("it begins with a byte order mark; save the file without one", file=file, line=1)
    lines = [line.rstrip(_WHITESPACE) for line in text.rstrip(_WHITESPACE).split("\n")]
    if lines == [""]:
        raise InputError("the file is empty; a vocabulary has one piece on each line", file=file)
    vocabulary: dict[str, int] = {}
    for number, piece in enumerate(lines):
        if piece and piece in vocabulary:
            before = vocabulary[piece] + 1
            log.warning('%s:%d: "%s" stands in line %d too; the later line is its id', file, number + 1, piece, before)
        vocabulary[piece] = number
    return vocabulary


def vocabulary_tokenizer(file: Path, config: Mapping[str, Any]) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer of a vocab.txt under the settings `config`, and `config` with every default filled in.

    Raises `InputError`: with `file` for what is wrong in the vocabulary, with a field for a wrong setting.
    """
    _check_class(config)
    if not switch(config, "do_basic_tokenize"):
        raise InputError("texts without basic tokenization cannot be read; leave it out", field="do_basic_tokenize")
    never_split = config.get("never_split") or []
    if not isinstance(never_split, list) or not all(isinstance(entry, str) for entry in never_split):
        raise _wrong(never_split, "never_split", "a list of strings")
    longest = config.get("max_input_chars_per_word", LONGEST_WORD)
    if isinstance(longest, bool) or not isinstance(longest, int) or longest < 1:
        raise _wrong(longest, "max_input_chars_per_word", "a number of at least 1")
    lowercase, chinese_chars = switch(config, "do_lower_case"), switch(config, "tokenize_chinese_chars")
    strip_accents = None if config.get("strip_accents") is None else switch(config, "strip_accents")
    added = AddedTokens.of(config)
    vocabulary = read_vocabulary(file)
    missing = [
        f"{role} {name}"
        for role, name in added.names.items()
        if name not in vocabulary and (role == "unk_token" or name not in added.ids)
    ]
    if missing:
        raise InputError(
            f"{listing(missing)}: not in the vocabulary; add a line, or name the right token in tokenizer_config.json",
            file=file,
        )
    for entry in never_split:
        if len(entry) > longest and entry in vocabulary:
            raise InputError(
                f'"{entry}" is longer than max_input_chars_per_word, {longest}; raise that to {len(entry)}',
                field="never_split",
            )
    tokenizer = bert_tokenizer(
        vocabulary,
        lowercase=lowercase,
        strip_accents=strip_accents,
        chinese_chars=chinese_chars,
        never_split=never_split,
        max_input_chars_per_word=longest,
        special_tokens=added.names,
        added_tokens=added.tokens,
    )
    added.check_ids(tokenizer, vocabulary)
    settings = tokenizer_config(tokenizer, never_split=never_split)
    given = {key: value for key, value in config.items() if value is not None}
    complete = settings | {"clean_up_tokenization_spaces": False} | given | added.settings(config, tokenizer)
    if settings["tokenizer_class"] == READS_TOKENIZER_JSON:
        complete["tokenizer_class"] = READS_TOKENIZER_JSON
    return tokenizer, complete


def normalize_by_settings(tokenizer: Tokenizer, config: Mapping[str, Any]) -> bool:
    """Give the `tokenizer` of a tokenizer.json the normaliser that `config` asks for; False if it is that already.

    As transformers: for a class of BERT's the settings count, those that are not there by their defaults; where no
    class is named, only if one of them is there. A normaliser that is not BERT's stays.
    """
    found, name = tokenizer.normalizer, config.get("tokenizer_class")
    if name is None and {"do_lower_case", "strip_accents", "tokenize_chinese_chars"} & config.keys():
        name = BERT_CLASSES[0]
    is_berts = isinstance(name, str) and name.removesuffix("Fast") in BERT_CLASSES
    if not is_berts or not isinstance(found, normalizers.BertNormalizer):
        return False
    lowercase, chinese_chars = switch(config, "do_lower_case"), switch(config, "tokenize_chinese_chars")
    strip_accents = None if config.get("strip_accents") is None else switch(config, "strip_accents")
    wanted = (lowercase, strip_accents, chinese_chars)
    if (found.lowercase, found.strip_accents, found.handle_chinese_chars) == wanted:
        return False
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=found.clean_text,
        handle_chinese_chars=chinese_chars,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )
    return True


def _check_class(config: Mapping[str, Any]) -> None:
    name = config.get("tokenizer_class") or BERT_CLASSES[0]
    if not isinstance(name, str) or name.removesuffix("Fast") not in (*BERT_CLASSES, *ANY_CLASSES):
        raise InputError(
            f"{json.dumps(name)[:60]} has rules of its own, which vocab.txt does not tell; let transformers save it, "
            "which writes tokenizer.json",
            field="tokenizer_class",
        )


def switch(config: Mapping[str, Any], key: str, *, default: bool = True) -> bool:
    """A switch of the configuration, `default` where it says nothing. Raises `InputError`."""
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise _wrong(value, key, "true or false")
    return value


def _wrong(value: Any, field: str, needed: str) -> InputError:
    return InputError(f"{needed} is needed, not {json.dumps(value)[:40]}", field=field)
