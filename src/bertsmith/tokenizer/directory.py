"""A tokenizer directory: writes it, loads it, and turns text into ids with what was loaded.

Not here: how the vocabulary came about (`tokenizer.train`). The four files are those of a Hugging Face
directory, so transformers 4 and 5 load it as a `BertTokenizer` without further help:

    tokenizer.json            everything that encoding needs; its SHA-256 is the tokenizer's fingerprint
    vocab.txt                 the same vocabulary for people, one piece a line, in the order of the ids
    tokenizer_config.json     class, lower-casing, model_max_length, names of the special tokens
    special_tokens_map.json   the names again, where older readers look for them
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Encoding, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from bertsmith import files
from bertsmith.errors import InputError
from bertsmith.tokenizer.words import LONGEST_WORD, surrogate_message

TOKENIZER, CONFIG, SPECIAL_TOKENS_MAP, VOCABULARY = FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
"""Hugging Face's name of each role, and BERT's token for it, in the order of the ids of a new vocabulary."""

NO_LIMIT = int(1e30)
"""`model_max_length` of a directory that names none, as in transformers."""

log = logging.getLogger("bertsmith")


class TextTokenizer:
    """Text to ids and back. Nothing is padded or truncated.

    Special tokens written out in a text (`"[SEP]"`) are plain text unless a method is told
    `allow_special=True`: no text of a user can end a sequence or place a mask.
    A text with a lone surrogate raises `InputError`.
    """

    def __init__(self, content: str, config: Mapping[str, Any]) -> None:
        """`content` is that of tokenizer.json, `config` that of tokenizer_config.json.

        Raises `InputError` if they do not make a tokenizer that adds `[CLS]` and `[SEP]` and knows `[MASK]`.
        """
        self.content, self.config = content, dict(config)
        self._plain = _parsed(content)
        self._plain.encode_special_tokens = True
        self.model_max_length = _model_max_length(self.config)
        """Most tokens of a sequence, special tokens included; `NO_LIMIT` if the directory names none."""
        self.special_tokens = {
            role: _token_name(self.config.get(role) or default) for role, default in SPECIAL_TOKENS.items()
        }
        """Role to token: `{"pad_token": "[PAD]", …}`."""
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            self._id(role, token) for role, token in self.special_tokens.items()
        )
        added = self._plain.get_added_tokens_decoder()
        self.special_ids = tuple(
            sorted(
                {self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id}
                | {number for number, token in added.items() if token.special}
            )
        )
        """Ids that masking and random replacement leave alone, ascending."""
        self._check_special_tokens()

    def _id(self, role: str, token: str) -> int:
        number = self._plain.token_to_id(token)
        if number is None:
            raise InputError(f'{role} "{token}" is not in the vocabulary; name the right token in {CONFIG}')
        return number

    def _check_special_tokens(self) -> None:
        ends = [self.cls_id, self.sep_id]
        if self.encode("").ids != ends:
            cls, sep = self.special_tokens["cls_token"], self.special_tokens["sep_token"]
            raise InputError(f"it does not put {cls} before and {sep} after a text: no post_processor does so")
        mask = self.special_tokens["mask_token"]
        if self.encode(mask, allow_special=True).ids != [ends[0], self.mask_id, ends[1]]:
            raise InputError(f"{mask} is not among its added_tokens, so it cannot be written in a text")

    def __reduce__(self) -> tuple[Any, ...]:
        # The Rust object forgets `encode_special_tokens` when it is pickled.
        return TextTokenizer, (self.content, self.config)

    @cached_property
    def _special(self) -> Tokenizer:
        return _parsed(self.content)  # a second one: flipping the switch of the first is not thread-safe

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of tokenizer.json, in hexadecimal: equal for tokenizers that encode alike."""
        return hashlib.sha256(self.content.encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        """Number of pieces, special tokens included."""
        return self._plain.get_vocab_size()

    def encode_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without `[CLS]` and `[SEP]`. `["un able"] -> [[4895, 2583]]`."""
        try:
            encodings = self._plain.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError:
            _refuse_surrogates(texts)
            raise
        return [encoding.ids for encoding in encodings]

    def encode(self, text: str, pair: str | None = None, *, allow_special: bool = False) -> Encoding:
        """`[CLS] text [SEP]`, or `[CLS] text [SEP] pair [SEP]` with `type_ids` 0 and 1.

        The result has `ids`, `type_ids`, `tokens`, `special_tokens_mask`, `word_ids`, `sequence_ids` and
        `offsets`: characters of the text as given, `(0, 0)` for added tokens.
        """
        return self.encode_batch([text], [pair], allow_special=allow_special)[0]

    def encode_batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str | None] | None = None,
        *,
        allow_special: bool = False,
    ) -> list[Encoding]:
        """`encode` of each text, with the pair at its place, if any; as many pairs as texts."""
        tokenizer = self._special if allow_special else self._plain
        inputs: list[Any] = list(texts)
        if pairs is not None:
            both = zip(texts, pairs, strict=True)
            inputs = [text if pair is None else (text, pair) for text, pair in both]
        try:
            return tokenizer.encode_batch(inputs)
        except TypeError:
            _refuse_surrogates(texts)
            _refuse_surrogates([pair or "" for pair in pairs or ()])
            raise

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of `ids`: pieces joined, spaces before punctuation removed."""
        return self._plain.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def token(self, number: int) -> str:
        """The piece with this id; `KeyError` if there is none."""
        token = self._plain.id_to_token(number)
        if token is None:
            raise KeyError(number)
        return token

    def save(self, directory: Path) -> None:
        """Write the four files into `directory`, which is made if missing.

        vocab.txt is left out where its line numbers would not be the ids (no WordPiece, or gaps).
        """
        directory.mkdir(parents=True, exist_ok=True)
        files.write_file(directory / TOKENIZER, self.content)
        files.write_file(directory / CONFIG, files.to_json(self.config))
        files.write_file(directory / SPECIAL_TOKENS_MAP, files.to_json(self.special_tokens))
        vocabulary = self._plain.get_vocab(with_added_tokens=False)
        pieces = sorted(vocabulary, key=vocabulary.__getitem__)
        if isinstance(self._plain.model, models.WordPiece) and len(pieces) == vocabulary[pieces[-1]] + 1:
            files.write_file(directory / VOCABULARY, "".join(f"{piece}\n" for piece in pieces))


def bert_tokenizer(
    vocabulary: Mapping[str, int], *, lowercase: bool, strip_accents: bool | None, chinese_chars: bool
) -> Tokenizer:
    """BERT's pipeline around a WordPiece vocabulary that has the five special tokens.

    clean, split Chinese characters, strip accents, lower-case -> whitespace and punctuation -> WordPiece,
    longest match first -> `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]` (Devlin et al. 2018, figure 2).
    `strip_accents` None means: if and only if `lowercase`.
    """
    pad, unk, cls, sep, mask = SPECIAL_TOKENS.values()
    tokenizer = Tokenizer(
        models.WordPiece(
            dict(vocabulary),
            unk_token=unk,
            continuing_subword_prefix="##",
            max_input_chars_per_word=LONGEST_WORD,
        )
    )
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=chinese_chars, strip_accents=strip_accents, lowercase=lowercase
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    specials = [AddedToken(token, special=True, normalized=False) for token in (pad, unk, cls, sep, mask)]
    tokenizer.add_special_tokens(specials)
    return tokenizer


def write_tokenizer(directory: Path, tokenizer: Tokenizer, *, model_max_length: int) -> None:
    """Write a tokenizer made by `bert_tokenizer`; the configuration is read off its normaliser."""
    normalizer = tokenizer.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer):
        raise TypeError(f"a tokenizer with BERT's normaliser is needed, not {normalizer}")
    config = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": normalizer.lowercase,
        "strip_accents": normalizer.strip_accents,
        "tokenize_chinese_chars": normalizer.handle_chinese_chars,
        "model_max_length": model_max_length,
        "clean_up_tokenization_spaces": False,  # the decoder in tokenizer.json does it
        **SPECIAL_TOKENS,
    }
    TextTokenizer(tokenizer.to_str(pretty=True) + "\n", config).save(directory)


def load_tokenizer(directory: Path) -> TextTokenizer:
    """The tokenizer in `directory`: one of ours, a model directory, or any other with a tokenizer.json.

    Where a bertsmith.json lists the files, their SHA-256 is checked. Truncation and padding that a
    foreign tokenizer.json asks for are turned off. Raises `InputError`.
    """
    if not directory.is_dir():
        raise InputError("no such directory" if not directory.exists() else "not a directory", file=directory)
    path = directory / TOKENIZER
    if not path.is_file():
        raise InputError(f"no {TOKENIZER} in it: not a tokenizer; make one with `bertsmith tokenizer`", file=directory)
    if (directory / files.MANIFEST).is_file():
        listed = files.read_manifest(directory, verify=False)["files"]
        for name in FILES:
            if name in listed:
                files.verify_file(directory, name, listed[name])
    content = _object(path)
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 ({error}); the file is damaged", file=path) from None
    if content.get("truncation") or content.get("padding"):
        log.info("%s: its truncation and padding are turned off", path)
        text = files.to_json({**content, "truncation": None, "padding": None})
    roles: dict[str, Any] = {}
    if (directory / SPECIAL_TOKENS_MAP).is_file():
        named = _object(directory / SPECIAL_TOKENS_MAP)
        roles = {role: named[role] for role in SPECIAL_TOKENS if role in named}
    config = _object(directory / CONFIG) if (directory / CONFIG).is_file() else {}
    try:
        return TextTokenizer(text, config | {role: roles[role] for role in roles if role not in config})
    except InputError as error:
        raise InputError(error.message, file=path) from None


def _object(path: Path) -> dict[str, Any]:
    content = files.read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"not a JSON object but {json.dumps(content)[:40]}; the file is damaged", file=path)
    return content


def _parsed(content: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(content)
    except Exception as error:  # tokenizers raises this bare class, whatever is wrong
        raise InputError(f"not a tokenizer that can be read ({error})") from None


def _token_name(entry: Any) -> str:
    """`"[CLS]"`, or `{"content": "[CLS]", "lstrip": false, …}` as transformers may write it -> `[CLS]`."""
    name = entry.get("content") if isinstance(entry, dict) else entry
    if not isinstance(name, str):
        raise InputError(f"a special token is named {json.dumps(entry)[:40]} in {CONFIG}, not by a string")
    return name


def _model_max_length(config: Mapping[str, Any]) -> int:
    value = config.get("model_max_length")
    if value is None:
        return NO_LIMIT
    if isinstance(value, bool) or not isinstance(value, int | float) or not 3 <= value <= 2 * NO_LIMIT:
        raise InputError(f"model_max_length in {CONFIG} is {value!r}; it must be a number of at least 3")
    return int(value)


def _refuse_surrogates(texts: Sequence[str]) -> None:
    """Raise `InputError` if one of `texts` is what made tokenizers raise a `TypeError`."""
    for number, text in enumerate(texts):
        message = surrogate_message(text)
        if message is not None:
            raise InputError(f"texts[{number}]: {message}" if len(texts) > 1 else message)
