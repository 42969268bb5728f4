"""A tokenizer in memory: text to ids and back. Not here: directories (`tokenizer.directory`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer, models, processors

from bertsmith import files
from bertsmith.errors import InputError
from bertsmith.tokenizer.added_tokens import token_name
from bertsmith.tokenizer.bert import READS_TOKENIZER_JSON
from bertsmith.tokenizer.byte_level import WORD_MARKS, default_names
from bertsmith.tokenizer.plain import without_special_pieces
from bertsmith.tokenizer.windows import Truncation, check_windows
from bertsmith.tokenizer.words import refuse_surrogates

TOKENIZER, CONFIG, SPECIAL_TOKENS_MAP, VOCABULARY = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)
"""The files that `TextTokenizer.save` writes."""

WITHOUT_SEGMENTS = (READS_TOKENIZER_JSON, "TokenizersBackend", "DistilBertTokenizer", "DistilBertTokenizerFast")
"""Classes of transformers 5 that feed no `token_type_ids` unless `model_input_names` lists them."""

NO_LIMIT = int(1e30)
"""`model_max_length` of a directory that names none, as in transformers."""


class TextTokenizer:
    """Text to ids and back. Nothing is padded, and nothing truncated but by `windows`, which loses no token.

    Special tokens written out in a text (`"[SEP]"`) are plain text unless a method is told
    `allow_special=True`: no text of a user can end a sequence or place a mask.
    A text with a lone surrogate raises `InputError`.
    """

    def __init__(self, content: str, config: Mapping[str, Any], tokenizer: Tokenizer | None = None) -> None:
        """`content` is that of tokenizer.json, `config` that of tokenizer_config.json.

        `tokenizer`: what `content` says, where it is at hand; from now on it is this one's own.

        Raises `InputError` if they do not make a tokenizer that adds `[CLS]` and `[SEP]` and knows `[MASK]`.
        """
        self.content, self.config = content, dict(config)
        made = parsed(content) if tokenizer is None else tokenizer
        if not _has_segments(self.config) and any(made.encode("", "").type_ids):
            content = _one_segment(content)
            made = parsed(content)
        self._special = made
        self.model_max_length = _model_max_length(self.config)
        """Most tokens of a sequence, special tokens included; `NO_LIMIT` if the directory names none."""
        self.special_tokens = {
            role: token_name(self.config.get(role) or default, file=CONFIG)
            for role, default in default_names(self._special).items()
        }
        """Role to token: `{"pad_token": "[PAD]", …}`."""
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            self._id(role, token) for role, token in self.special_tokens.items()
        )
        added = self._special.get_added_tokens_decoder()
        self.special_ids = tuple(
            sorted(
                {self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id}
                | {number for number, token in added.items() if token.special}
            )
        )
        """Ids that masking and random replacement leave alone, ascending."""
        names = {self.token(number) for number in self.special_ids}
        # A second one: flipping the switch of the first is not thread-safe.
        self._plain = parsed(without_special_pieces(content, self._special, names))
        self._plain.encode_special_tokens = True
        self._check_special_tokens()

    def _id(self, role: str, token: str) -> int:
        number = self._special.token_to_id(token)
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
    def fingerprint(self) -> str:
        """SHA-256 of tokenizer.json, in hexadecimal: equal for tokenizers that encode alike."""
        return hashlib.sha256(self.content.encode()).hexdigest()

    @cached_property
    def _truncating(self) -> Callable[..., Tokenizer]:
        @lru_cache(maxsize=8)  # one for each setting: changing that of a shared one is not thread-safe
        def tokenizer(*, allow_special: bool, **setting: Any) -> Tokenizer:
            made = parsed((self._special if allow_special else self._plain).to_str())
            made.encode_special_tokens = not allow_special
            made.enable_truncation(**setting)
            return made

        return tokenizer

    @cached_property
    def vocab_size(self) -> int:
        """One more than the highest id: the number of pieces, special tokens included, unless ids are left out."""
        return max(self._special.get_vocab().values()) + 1

    def encode_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without `[CLS]` and `[SEP]`. `["un able"] -> [[4895, 2583]]`."""
        try:
            encodings = self._plain.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError:
            refuse_surrogates(texts)
            raise
        return [encoding.ids for encoding in encodings]

    def encode(self, text: str, pair: str | None = None, *, allow_special: bool = False) -> Encoding:
        """`[CLS] text [SEP]`, or `[CLS] text [SEP] pair [SEP]` with `type_ids` 0 and 1; all 0 if the model is not fed
        any: tokenizer_config.json leaves `token_type_ids` out of its `model_input_names`.

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
            refuse_surrogates(texts)
            refuse_surrogates([pair or "" for pair in pairs or ()])
            raise

    def windows(
        self,
        text: str,
        pair: str | None = None,
        *,
        max_length: int,
        stride: int = 0,
        truncation: Truncation = "longest_first",
        allow_special: bool = False,
    ) -> list[Encoding]:
        """`encode`, in as many windows of at most `max_length` tokens as hold every token.

        Each window has its special tokens; neighbours share `stride` tokens of the text that is cut; offsets
        are those of the whole text. Where both texts are cut, every part of one meets every part of the other.
        Equal to transformers with `return_overflowing_tokens=True`, but for an `InputError` where a window would
        hold no more than `stride` tokens of a text that is cut.
        """
        whole = self.encode(text, pair, allow_special=allow_special)
        sequence_ids = whole.sequence_ids
        lengths = sequence_ids.count(0), None if pair is None else sequence_ids.count(1)
        check_windows(lengths, sequence_ids.count(None), max_length=max_length, stride=stride, truncation=truncation)
        if len(whole) <= max_length:
            return [whole]
        tokenizer = self._truncating(
            allow_special=allow_special, max_length=max_length, stride=stride, strategy=truncation
        )
        window = tokenizer.encode(text, pair)
        return [window, *window.overflowing]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of `ids`: pieces joined, spaces before punctuation removed."""
        return self._special.decode(list(ids), skip_special_tokens=skip_special_tokens)

    @cached_property
    def ids(self) -> list[int]:
        """Every id that a piece has, ascending: a vocabulary with a line twice has gaps."""
        return sorted(self._special.get_vocab().values())

    def begins_word(self, piece: str) -> bool:
        """Whether `piece` begins a word: `ing` of WordPiece does, `##ing` not; `Ġing` of byte-level BPE, `ing` not."""
        is_wordpiece = isinstance(self._special.model, models.WordPiece)
        return not piece.startswith("##") if is_wordpiece else piece.startswith(WORD_MARKS)

    def word(self, number: int) -> str:
        """The text of a piece, without the mark that says whether it begins a word."""
        piece = self.token(number)
        if number in self.special_ids or isinstance(self._special.model, models.WordPiece):
            return piece.removeprefix("##")
        return self.decode([number]).strip() or piece

    def put_in(self, text: str, place: int, number: int) -> str:
        """`"a [MASK] b [MASK]"`, 1, id of `c` -> `"a [MASK] b c"`; a piece inside of words joins the text before it."""
        mask = self.special_tokens["mask_token"]
        parts = text.split(mask)
        before, after = mask.join(parts[: place + 1]), mask.join(parts[place + 1 :])
        return (before if self.begins_word(self.token(number)) else before.rstrip()) + self.word(number) + after

    @cached_property
    def before_word(self) -> str:
        """What is put before a word that is encoded alone, so that it is cut as in a sentence: a space, or nothing."""
        alone, after_space = self.encode_ids(["a", " a"])
        return "" if alone == after_space else " "

    def token_id(self, token: str) -> int | None:
        """The id of this piece, written as in the vocabulary; None if it is not one."""
        return self._special.token_to_id(token)

    def token(self, number: int) -> str:
        """The piece with this id; `KeyError` if there is none."""
        token = self._special.id_to_token(number)
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
        vocabulary = self._special.get_vocab(with_added_tokens=False)
        pieces = sorted(vocabulary, key=vocabulary.__getitem__)
        if isinstance(self._special.model, models.WordPiece) and len(pieces) == vocabulary[pieces[-1]] + 1:
            files.write_file(directory / VOCABULARY, "".join(f"{piece}\n" for piece in pieces))


def parsed(content: str) -> Tokenizer:
    """The tokenizer of a tokenizer.json. Raises `InputError`."""
    try:
        return Tokenizer.from_str(content)
    except Exception as error:  # tokenizers raises this bare class, whatever is wrong
        raise InputError(f"not a tokenizer that can be read ({error})") from None


def _has_segments(config: Mapping[str, Any]) -> bool:
    names = config.get("model_input_names")
    if isinstance(names, list):
        return "token_type_ids" in names
    return config.get("tokenizer_class") not in WITHOUT_SEGMENTS


def _one_segment(content: str) -> str:
    """The same tokenizer.json, but that every token of a pair has type 0."""

    def flat(part: dict[str, Any]) -> dict[str, Any]:
        if part.get("type") == "BertProcessing":  # its types cannot be set
            (cls, _), (sep, _) = ends = tuple(part["cls"]), tuple(part["sep"])
            same = processors.TemplateProcessing([cls, "$A", sep], [cls, "$A", sep, "$B", sep], ends)
            part = json.loads(same.__getstate__())
        return part | {"type_id": 0} if "type_id" in part else part

    values = json.loads(content)
    values["post_processor"] = json.loads(json.dumps(values["post_processor"]), object_hook=flat)
    return json.dumps(values)


def _model_max_length(config: Mapping[str, Any]) -> int:
    value = config.get("model_max_length")
    if value is None:
        return NO_LIMIT
    if isinstance(value, bool) or not isinstance(value, int | float) or not 3 <= value <= 2 * NO_LIMIT:
        raise InputError(f"model_max_length in {CONFIG} is {value!r}; it must be a number of at least 3")
    return int(value)
