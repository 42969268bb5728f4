"""The tokens that a tokenizer_config.json names: those with a role in BERT, and those that were added.

Not here: the other settings and the vocabulary (`tokenizer.vocabulary`). A token is written as a string, or as
an object with "content" and flags of tokenizers' `AddedToken`:

    "cls_token": "[CLS]"
    "mask_token": {"content": "[MASK]", "lstrip": true}
    "added_tokens_decoder": {"30522": {"content": "[E1]", "special": true}}
    "additional_special_tokens": ["[E1]"]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from bertsmith.errors import InputError
from bertsmith.tokenizer.bert import SPECIAL_TOKENS

DECODER = "added_tokens_decoder"
"""The setting that gives added tokens their ids."""

FURTHER_ROLES = ("bos_token", "eos_token")
LISTS = ("additional_special_tokens", "extra_special_tokens")
"""Settings of special tokens that BERT itself has no use for."""

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class AddedTokens:
    """The tokens of a configuration that are found in a text before all else."""

    names: dict[str, str]
    """Role to token, for all five roles: `{"pad_token": "[PAD]", …}`."""
    tokens: list[AddedToken]
    """All of them, in the order in which those that the vocabulary lacks get ids."""
    ids: dict[str, int]
    """The ids that `added_tokens_decoder` gives."""

    @classmethod
    def of(cls, config: Mapping[str, Any], defaults: Mapping[str, Any] = SPECIAL_TOKENS) -> AddedTokens:
        """Those of a tokenizer_config.json; raises `InputError` where it has another form.

        `defaults`: role to token, where the file names none.
        """
        roles = {role: _token(config.get(role) or token, field=role) for role, token in defaults.items()}
        further = [_token(config[role], field=role) for role in FURTHER_ROLES if config.get(role)]
        for field in LISTS:
            entries = config.get(field) or []
            if isinstance(entries, dict):
                entries = list(entries.values())  # transformers 5 gives some of them names
            if not isinstance(entries, list):
                raise InputError(f"a list of tokens is needed, not {json.dumps(entries)[:40]}", field=field)
            further += [_token(entry, field=field) for entry in entries]
        special = [*further, *roles.values()]
        ids, tokens = _numbered(config.get(DECODER) or {}, special={token.content for token in special})
        tokens |= {token.content: token for token in special if token.content not in ids}
        return cls({role: token.content for role, token in roles.items()}, list(tokens.values()), ids)

    def add_to(self, tokenizer: Tokenizer) -> bool:
        """Add those that a tokenizer.json lacks, as transformers does; False if it has all of them.

        Flags in `added_tokens_decoder` count more than its own; a role that is in no vocabulary is left out.
        Raises `InputError` as `check_ids`.
        """
        known = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
        changed = []
        for token in self.tokens:
            before = known.get(token.content)
            if before is None:
                is_missing = tokenizer.token_to_id(token.content) is None and token.content not in self.ids
                if not is_missing or token.content not in self.names.values():
                    changed.append(token)
            elif token.content in self.ids:
                changed += [token] if repr(token) != repr(before) else []
            elif not before.special:
                before.special = True
                changed.append(before)
        vocabulary = tokenizer.get_vocab() if changed else {}  # slow where it is large
        tokenizer.add_tokens(changed)
        self.check_ids(tokenizer, vocabulary)
        return bool(changed)

    def settings(self, config: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
        """What `config` says of them, in the form that every transformers reads once tokenizer.json has the flags.

        Tokens by name; where some have ids, the flags of all of them, as it then looks nowhere else.
        """
        values: dict[str, Any] = dict(self.names)
        for field in (*FURTHER_ROLES, *LISTS):
            entry = config.get(field)
            if isinstance(entry, list):
                values[field] = [_token(token, field=field).content for token in entry]
            elif entry and field in FURTHER_ROLES:
                values[field] = _token(entry, field=field).content
        if self.ids:
            tokens = sorted(tokenizer.get_added_tokens_decoder().items())
            values[DECODER] = {
                str(number): {"content": token.content} | {flag: getattr(token, flag) for flag in _FLAGS}
                for number, token in tokens
            }
        return values

    def check_ids(self, tokenizer: Tokenizer, vocabulary: Mapping[str, int]) -> None:
        """Raise `InputError` if a token got another id than the file gives it, or the id of a piece."""
        last = max(vocabulary.values(), default=-1)
        for token in self.tokens:
            number = tokenizer.token_to_id(token.content)
            assigned = self.ids.get(token.content, number)
            if number != assigned:
                raise InputError(
                    f'"{token.content}" has id {assigned}, where {number} is next; ids of added tokens follow the '
                    "vocabulary without a gap",
                    field=DECODER,
                )
            if number is not None and number <= last and token.content not in vocabulary:
                raise InputError(
                    f'"{token.content}" would get id {number}, which is taken, as the vocabulary has a line twice; '
                    "make its lines differ"
                )


def numbered_by_file(content: Mapping[str, Any], config: Mapping[str, Any], *, file: Path) -> dict[str, Any]:
    """The `content` of `file`, the older added_tokens.json, in the form of `added_tokens_decoder`.

    `{"[E1]": 30522}` -> `{"30522": {"content": "[E1]", "normalized": true, "special": false}}`
    """
    special = {token.content for token in AddedTokens.of(config).tokens}
    for name, number in content.items():
        if isinstance(number, bool) or not isinstance(number, int):
            raise InputError(f"an id is a number, not {json.dumps(number)[:40]}", file=file, field=name)
    return {
        str(number): {"content": name, "normalized": name not in special, "special": name in special}
        for name, number in content.items()
    }


def _numbered(entries: Any, *, special: set[str]) -> tuple[dict[str, int], dict[str, AddedToken]]:
    """The tokens of `added_tokens_decoder` in the order of their ids; those in `special` are special."""
    if not isinstance(entries, dict) or not all(number.isdecimal() for number in entries):
        raise InputError("an object from ids to tokens is needed", field=DECODER)
    ids: dict[str, int] = {}
    tokens: dict[str, AddedToken] = {}
    for number in sorted(entries, key=int):
        token = _token(entries[number], field=DECODER, special=False)
        token.special = token.special or token.content in special
        ids[token.content], tokens[token.content] = int(number), token
    return ids, tokens


def _token(entry: Any, *, field: str, special: bool = True) -> AddedToken:
    if isinstance(entry, str):
        entry = {"content": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str) or not entry["content"]:
        raise InputError(f'a token is a string or an object with "content", not {json.dumps(entry)[:40]}', field=field)
    flags = {"special": special} | {flag: entry[flag] for flag in _FLAGS if entry.get(flag) is not None}
    wrong = [flag for flag, value in flags.items() if not isinstance(value, bool)]
    if wrong:
        raise InputError(f'"{wrong[0]}" of "{entry["content"]}" must be true or false', field=field)
    if field != DECODER:
        flags["special"] = True
    return AddedToken(entry["content"], **flags)


def token_name(entry: Any, *, file: str) -> str:
    """`"[CLS]"`, or `{"content": "[CLS]", "lstrip": false, …}` as transformers may write it -> `[CLS]`."""
    name = entry.get("content") if isinstance(entry, dict) else entry
    if not isinstance(name, str):
        raise InputError(f"a special token is named {json.dumps(entry)[:40]} in {file}, not by a string")
    return name
