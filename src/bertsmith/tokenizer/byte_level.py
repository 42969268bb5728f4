"""Tokenizers of the other families: RoBERTa's pair of files, its special tokens, and how pieces mark words.

    vocab.json   piece -> id            {"<s>": 0, "<pad>": 1, "</s>": 2, "the": 4, "\u0120a": 10, …}
    merges.txt   a merge on each line   \u0120 t
                                        h e

Byte-level BPE: Radford et al. 2019, section 2.2. Not here: tokenizer.json, which says all this itself
(`tokenizer.directory`), and a sentencepiece file, which only transformers converts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from bertsmith.errors import InputError, listing
from bertsmith.tokenizer.added_tokens import AddedTokens
from bertsmith.tokenizer.bert import SPECIAL_TOKENS
from bertsmith.tokenizer.vocabulary import switch

PIECES, MERGES = "vocab.json", "merges.txt"

SENTENCEPIECE = ("sentencepiece.bpe.model", "spiece.model", "sentencepiece.model", "tokenizer.model")
"""Files that only transformers can turn into a tokenizer.json."""

ROBERTA_TOKENS = {
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "mask_token": "<mask>",
}
"""Role -> token of RoBERTa, XLM-RoBERTa and CamemBERT."""

ROBERTA_CLASSES = ("RobertaTokenizer", "PreTrainedTokenizer", "TokenizersBackend")
"""`tokenizer_class`, without "Fast", of those that read the two files as RoBERTa does."""

WORD_MARKS = ("\u0120", "\u2581")
"""What a piece begins with that begins a word: of byte-level BPE, and of sentencepiece. WordPiece marks the others."""


def default_names(tokenizer: Tokenizer) -> dict[str, str]:
    """Role -> token where a configuration names none: BERT's, or RoBERTa's if the vocabulary has those instead."""
    has = tokenizer.token_to_id
    is_roberta = has(SPECIAL_TOKENS["cls_token"]) is None and has(ROBERTA_TOKENS["cls_token"]) is not None
    return ROBERTA_TOKENS if is_roberta else SPECIAL_TOKENS


def byte_level_tokenizer(pieces: Path, merges: Path, config: dict[str, Any]) -> tuple[Tokenizer, dict[str, Any]]:
    """RoBERTa's tokenizer from its two files, and `config` with the special tokens filled in.

    `<s> A </s>` or `<s> A </s></s> B </s>`, all of type 0. Raises `InputError`: with a file for what is wrong in it,
    with a field for a wrong setting.
    """
    name = config.get("tokenizer_class") or ROBERTA_CLASSES[0]
    if not isinstance(name, str) or name.removesuffix("Fast") not in ROBERTA_CLASSES:
        raise InputError(
            f"{json.dumps(name)[:60]} has rules of its own, which {PIECES} does not tell; let transformers save it, "
            "which writes tokenizer.json",
            field="tokenizer_class",
        )
    if not merges.is_file():
        raise InputError(f"is missing, {PIECES} stands beside it", file=merges)
    has_prefix_space = switch(config, "add_prefix_space", default=False)
    trims_offsets = switch(config, "trim_offsets")
    config = {"bos_token": "<s>", "eos_token": "</s>"} | config
    mask = config.get("mask_token") or ROBERTA_TOKENS["mask_token"]
    if isinstance(mask, str):  # as transformers 4 and fairseq; transformers 5 keeps the space before it as a piece
        mask = {"content": mask, "lstrip": True}
    added = AddedTokens.of(config | {"mask_token": mask}, ROBERTA_TOKENS)
    try:
        tokenizer = Tokenizer(models.BPE.from_file(str(pieces), str(merges)))
    except Exception as error:  # tokenizers raises this bare class, whatever is wrong
        raise InputError(f"not a vocabulary with the merges beside it ({error})", file=pieces) from None
    vocabulary = tokenizer.get_vocab()
    missing = [
        f"{role} {token}"
        for role, token in added.names.items()
        if token not in vocabulary and (role == "unk_token" or token not in added.ids)
    ]
    if missing:
        raise InputError(f"{listing(missing)}: not in the vocabulary", file=pieces)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=has_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(added.tokens)
    added.check_ids(tokenizer, vocabulary)
    ids = tokenizer.get_vocab()
    separator, first = ((added.names[role], ids[added.names[role]]) for role in ("sep_token", "cls_token"))
    tokenizer.post_processor = processors.RobertaProcessing(
        separator, first, trim_offsets=trims_offsets, add_prefix_space=has_prefix_space
    )
    given = {key: value for key, value in config.items() if value is not None}
    return tokenizer, {"tokenizer_class": "RobertaTokenizer"} | given | added.settings(config, tokenizer)
