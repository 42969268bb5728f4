"""Special tokens that a text spells out, kept from becoming special ids where the vocabulary itself has them as pieces.

`encode_special_tokens` of tokenizers only stops looking for added tokens in a text. The model behind may find the same
piece: Unigram (Kudo 2018) takes any piece of its vocabulary, and `</s>` with its score of 0.0 before all others; one
that looks up whole words, where nothing splits off punctuation. Not here: `TextTokenizer`, which has one of each kind.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection
from typing import Any

from tokenizers import Tokenizer, models


def without_special_pieces(content: str, tokenizer: Tokenizer, names: Collection[str]) -> str:
    """A tokenizer.json that reads the `names` in a text as plain text, and all else as `content` does.

    `tokenizer` is that of `content`. Each piece keeps its id and score under a name that nobody can write; a lower
    score would change other texts too, as that of unknown characters is reckoned from the lowest. `content` itself is
    returned where its model finds none of them.
    """
    model = tokenizer.model
    if not isinstance(model, models.Unigram) and not _finds(tokenizer, names):
        return content
    secret = secrets.token_hex(16)
    values: dict[str, Any] = json.loads(content)
    vocabulary = values["model"]["vocab"]
    hidden = set(names).intersection((entry[0] for entry in vocabulary) if isinstance(vocabulary, list) else vocabulary)
    hidden.discard(getattr(model, "unk_token", None))  # a model of words gives that name to what it lacks
    if isinstance(vocabulary, list):
        for entry in vocabulary:
            entry[0] = secret + entry[0] if entry[0] in hidden else entry[0]
    else:
        for name in hidden:
            vocabulary[secret + name] = vocabulary.pop(name)
    # An added token would get its piece's id, and another one without the piece.
    values["added_tokens"] = [token for token in values["added_tokens"] if token["content"] not in hidden]
    return json.dumps(values, ensure_ascii=False)


def _finds(tokenizer: Tokenizer, names: Collection[str]) -> bool:
    """Whether a model that looks up words gets one of `names` as a word."""
    model, normalizer, splitter = tokenizer.model, tokenizer.normalizer, tokenizer.pre_tokenizer
    if isinstance(model, models.BPE) and not model.ignore_merges:
        return False
    for name in names:
        text = normalizer.normalize_str(name) if normalizer is not None else name
        words = [text] if splitter is None else [word for word, _ in splitter.pre_tokenize_str(text)]
        if not {*words}.isdisjoint(names):
            return True
    return False
