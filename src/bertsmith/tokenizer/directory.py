"""A tokenizer directory: writes it and loads it.

Not here: what a loaded one does (`tokenizer.text_tokenizer`), and how the vocabulary came about (`tokenizer.train`).
The four files are those of a Hugging Face directory, so transformers 4 and 5 load it without further help:

    tokenizer.json            everything that encoding needs; its SHA-256 is the tokenizer's fingerprint
    vocab.txt                 the same vocabulary for people, one piece a line, in the order of the ids
    tokenizer_config.json     class, lower-casing, model_max_length, names of the special tokens
    special_tokens_map.json   the names again, where older readers look for them

A directory without tokenizer.json is read from its vocab.txt by the rules of `tokenizer.vocabulary`, or from its
vocab.json and merges.txt by those of `tokenizer.byte_level`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from bertsmith import files
from bertsmith.errors import InputError
from bertsmith.tokenizer.added_tokens import DECODER, FURTHER_ROLES, LISTS, AddedTokens, numbered_by_file
from bertsmith.tokenizer.bert import SPECIAL_TOKENS, tokenizer_config
from bertsmith.tokenizer.byte_level import (
    MERGES,
    PIECES,
    SENTENCEPIECE,
    byte_level_tokenizer,
    default_names,
)
from bertsmith.tokenizer.text_tokenizer import CONFIG, SPECIAL_TOKENS_MAP, TOKENIZER, VOCABULARY, TextTokenizer, parsed
from bertsmith.tokenizer.vocabulary import normalize_by_settings, vocabulary_tokenizer

ADDED_TOKENS = "added_tokens.json"
"""Read where an older library wrote it, unless tokenizer_config.json gives added tokens their ids."""
FILES = (TOKENIZER, CONFIG, SPECIAL_TOKENS_MAP, VOCABULARY, ADDED_TOKENS)

log = logging.getLogger("bertsmith")


def write_tokenizer(
    directory: Path, tokenizer: Tokenizer, *, model_max_length: int, never_split: Iterable[str] = ()
) -> None:
    """Write a tokenizer made by `bert_tokenizer`, with the `never_split` that it was made with."""
    config = {
        **tokenizer_config(tokenizer, never_split=never_split),
        "model_max_length": model_max_length,
        "clean_up_tokenization_spaces": False,  # the decoder in tokenizer.json does it
        **SPECIAL_TOKENS,
    }
    TextTokenizer(_content(tokenizer), config).save(directory)


def load_tokenizer(directory: Path) -> TextTokenizer:
    """The tokenizer in `directory`: one of ours, a model directory, or any other with a tokenizer.json.

    Without tokenizer.json it is made from vocab.txt, as transformers' `BertTokenizer` (`tokenizer.vocabulary`), or from
    vocab.json and merges.txt, as its `RobertaTokenizer`.
    Where a bertsmith.json lists the files, their SHA-256 is checked. Truncation and padding that a
    foreign tokenizer.json asks for are turned off. Raises `InputError`.
    """
    if not directory.is_dir():
        raise InputError("no such directory" if not directory.exists() else "not a directory", file=directory)
    path = directory / TOKENIZER
    if not any((directory / name).is_file() for name in (TOKENIZER, VOCABULARY, PIECES)):
        found = [name for name in SENTENCEPIECE if (directory / name).is_file()]
        fix = (
            f"{found[0]} alone cannot be read; let transformers save it"
            if found
            else "make one with `bertsmith tokenizer`"
        )
        raise InputError(f"no {TOKENIZER} in it, and no {VOCABULARY}: not a tokenizer; {fix}", file=directory)
    if (directory / files.MANIFEST).is_file():
        listed = files.read_manifest(directory, verify=False)["files"]
        for name in FILES:
            if name in listed:
                files.verify_file(directory, name, listed[name])
    if not path.is_file():
        return _from_vocabulary(directory)
    content = _object(path)
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 ({error}); the file is damaged", file=path) from None
    if content.get("truncation") or content.get("padding"):
        log.info("%s: its truncation and padding are turned off", path)
        text = files.to_json({**content, "truncation": None, "padding": None})
    try:
        return _by_settings(directory, text)
    except InputError as error:
        raise InputError(error.message, file=error.file or path, field=error.field) from None


def _by_settings(directory: Path, text: str) -> TextTokenizer:
    """The tokenizer of a tokenizer.json with what stands only in the files beside it, as transformers reads them."""
    tokenizer = parsed(text)
    config, named = _configuration(directory)
    config = named | config if DECODER in config else config | named
    older = directory / ADDED_TOKENS
    try:
        numbered = {}
        if DECODER not in config and older.is_file():
            known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
            content = {name: number for name, number in _object(older).items() if name not in known}
            numbered = {DECODER: numbered_by_file(content, config, file=older)}
        added = AddedTokens.of(config | numbered, default_names(tokenizer))
        changes = [normalize_by_settings(tokenizer, config), added.add_to(tokenizer)]
    except InputError as error:
        raise InputError(error.message, file=error.file or directory / CONFIG, field=error.field) from None
    if any(changes):
        log.info("%s: completed by the files beside it", directory / TOKENIZER)
        text = _content(tokenizer)
    return TextTokenizer(text, config | added.settings(config, tokenizer), tokenizer)


def tokenizer_from_vocabulary(file: Path, config: Mapping[str, Any]) -> TextTokenizer:
    """The tokenizer of a bare vocab.txt; `config` has the keys of tokenizer_config.json (`tokenizer.vocabulary`).

    A vocabulary of google-research/bert: `tokenizer_from_vocabulary(file, {"max_input_chars_per_word": 200})`.
    Raises `InputError`, without a file where `config` is wrong.
    """
    tokenizer, complete = vocabulary_tokenizer(file, config)
    return TextTokenizer(_content(tokenizer), complete)


def _content(tokenizer: Tokenizer) -> str:
    return tokenizer.to_str(pretty=True) + "\n"


def _from_vocabulary(directory: Path) -> TextTokenizer:
    config, named = _configuration(directory)
    older = directory / ADDED_TOKENS
    try:
        if DECODER not in config:
            config |= named  # transformers asks the older files, but only without `added_tokens_decoder`
            if older.is_file():
                config[DECODER] = numbered_by_file(_object(older), config, file=older)
        if not (directory / VOCABULARY).is_file():
            tokenizer, complete = byte_level_tokenizer(directory / PIECES, directory / MERGES, config)
            return TextTokenizer(_content(tokenizer), complete)
        return tokenizer_from_vocabulary(directory / VOCABULARY, config)
    except InputError as error:
        if error.file is not None:
            raise
        raise InputError(error.message, file=directory / CONFIG, field=error.field) from None


def _configuration(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """tokenizer_config.json, and the special tokens that special_tokens_map.json names; empty where missing."""
    config = _object(directory / CONFIG) if (directory / CONFIG).is_file() else {}
    named = _object(directory / SPECIAL_TOKENS_MAP) if (directory / SPECIAL_TOKENS_MAP).is_file() else {}
    return config, {key: named[key] for key in (*SPECIAL_TOKENS, *FURTHER_ROLES, *LISTS) if named.get(key)}


def _object(path: Path) -> dict[str, Any]:
    content = files.read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"not a JSON object but {json.dumps(content)[:40]}; the file is damaged", file=path)
    return content
