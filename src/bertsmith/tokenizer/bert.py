"""BERT's pipeline around a vocabulary, and the settings that rebuild it.

Not here: where the vocabulary comes from (`tokenizer.train` learns one, `tokenizer.vocabulary` reads one) and
files (`tokenizer.directory`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from bertsmith.tokenizer.never_split import keep_whole
from bertsmith.tokenizer.words import LONGEST_WORD

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
"""Hugging Face's name of each role, and BERT's token for it, in the order of the ids of a new vocabulary."""

READS_TOKENIZER_JSON = "PreTrainedTokenizerFast"
"""The class of transformers, 4 and 5, that takes tokenizer.json as it is."""


def bert_tokenizer(
    vocabulary: Mapping[str, int],
    *,
    lowercase: bool,
    strip_accents: bool | None,
    chinese_chars: bool,
    never_split: Iterable[str] = (),
    max_input_chars_per_word: int = LONGEST_WORD,
    special_tokens: Mapping[str, str] = SPECIAL_TOKENS,
    added_tokens: Sequence[AddedToken] = (),
) -> Tokenizer:
    """BERT's pipeline around a WordPiece vocabulary that has the five special tokens.

    clean, split Chinese characters, strip accents, lower-case -> whitespace and punctuation -> WordPiece,
    longest match first -> `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]` (Devlin et al. 2018, figure 2).
    `strip_accents` None means: if and only if `lowercase`. `never_split` names words that none of this
    changes (`tokenizer.never_split`); special tokens among them are plain text as elsewhere. A word of more
    than `max_input_chars_per_word` characters is `[UNK]`. `added_tokens` are found in a text before all else;
    those that the vocabulary lacks get the ids after it.
    """
    unk, cls, sep = (special_tokens[role] for role in ("unk_token", "cls_token", "sep_token"))
    tokenizer = Tokenizer(
        models.WordPiece(
            dict(vocabulary),
            unk_token=unk,
            continuing_subword_prefix="##",
            max_input_chars_per_word=max_input_chars_per_word,
        )
    )
    normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=chinese_chars, strip_accents=strip_accents, lowercase=lowercase
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    tokens = {token.content: token for token in added_tokens}
    for name in special_tokens.values():
        tokens.setdefault(name, AddedToken(name, special=True, normalized=False))
    tokenizer.add_tokens(list(tokens.values()))
    if entries := set(never_split) - {token.content for token in tokens.values() if token.special}:
        tokenizer.normalizer, tokenizer.pre_tokenizer = keep_whole(sorted(entries), vocabulary, normalizer)
    tokenizer.post_processor = between(cls, sep, tokenizer)
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def between(cls: str, sep: str, tokenizer: Tokenizer) -> processors.TemplateProcessing:
    """`[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, of types 0 and 1, by the ids of `tokenizer`."""
    return processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls, sep)],
    )


def tokenizer_config(tokenizer: Tokenizer, *, never_split: Iterable[str] = ()) -> dict[str, Any]:
    """What tokenizer_config.json says of a tokenizer made by `bert_tokenizer`, read off its normaliser and model.

    transformers 5 rebuilds a `BertTokenizer` from these settings and knows neither `never_split` nor another
    longest word; the class named for a tokenizer that has them is the one that reads tokenizer.json instead.
    """
    normalizer = tokenizer.normalizer
    steps = [normalizer]
    if isinstance(normalizer, normalizers.Sequence):
        steps = [normalizer[number] for number in range(len(normalizer))]
    bert = [step for step in steps if isinstance(step, normalizers.BertNormalizer)]
    if not bert:
        raise TypeError(f"a tokenizer with BERT's normaliser is needed, not {normalizer}")
    config: dict[str, Any] = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": bert[-1].lowercase,
        "strip_accents": bert[-1].strip_accents,
        "tokenize_chinese_chars": bert[0].handle_chinese_chars,
    }
    entries, longest = list(never_split), tokenizer.model.max_input_chars_per_word
    if entries or longest != LONGEST_WORD:
        config["tokenizer_class"] = READS_TOKENIZER_JSON
        config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]  # that class leaves types out
    if entries:
        config["never_split"] = entries
    if longest != LONGEST_WORD:
        config["max_input_chars_per_word"] = longest
    return config
