"""`bertsmith prepare`: text files to token shards, streaming."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

from bertsmith.config.prepare import PrepareOptions
from bertsmith.data.shards import SPLITS, ShardWriter
from bertsmith.data.text import Document, read_documents
from bertsmith.errors import InputError
from bertsmith.files import check_output, new_directory, write_manifest
from bertsmith.tokenizer.directory import TextTokenizer, load_tokenizer

log = logging.getLogger("bertsmith")

_SENTENCES_AT_ONCE, _CHARACTERS_AT_ONCE = 4096, 1 << 20


def prepare(options: PrepareOptions) -> dict[str, Any]:
    """Tokenise documents into shards; memory does not grow with the size of the text.

    Returns counts per split, tokens per word, the share of [UNK], and seconds. Raises `InputError` for unreadable
    input; nothing is written then.
    """
    started = time.perf_counter()
    check_output(options.out, overwrite=options.overwrite)
    tokenizer = load_tokenizer(options.tokenizer)
    documents = read_documents(options.files, columns=options.columns, pairs=options.pairs)
    words = unknown = 0
    with new_directory(options.out, overwrite=options.overwrite) as directory:
        train, heldout = (
            ShardWriter(directory, split, vocab_size=tokenizer.vocab_size, shard_tokens=options.shard_tokens)
            for split in SPLITS
        )
        with train, heldout:
            for number, (document, sentences) in enumerate(tokenized(documents, tokenizer)):
                words += sum(len(sentence.split()) for sentence in document.sentences)
                unknown += sum(sentence.count(tokenizer.unk_id) for sentence in sentences)
                writer = heldout if is_held_out(number, seed=options.seed, share=options.heldout) else train
                writer.add(sentences)
        tokens = train.tokens + heldout.tokens
        if not train.tokens:
            raise InputError("no text is left for training; give more documents, or a smaller --heldout")
        if options.heldout and not heldout.documents:
            log.warning(
                "none of the %d documents fell into the held-out %g: nothing to evaluate on",
                train.documents,
                options.heldout,
            )
        figures = {
            "splits": {"train": train.counts(), "heldout": heldout.counts()},
            "tokens_per_word": tokens / max(words, 1),
            "unknown_share": unknown / tokens,
        }
        tokenizer.save(directory / "tokenizer")
        content = {"kind": "shards", "version": 1, "tokenizer": tokenizer.fingerprint}
        write_manifest(directory, content | {"vocab_size": tokenizer.vocab_size} | figures)
    return {"out": str(options.out), **figures, "seconds": time.perf_counter() - started}


def tokenized(documents: Iterable[Document], tokenizer: TextTokenizer) -> Iterator[tuple[Document, list[list[int]]]]:
    """Each document with the ids of its sentences; many sentences go through the tokenizer at once."""
    waiting: list[Document] = []
    sentences = characters = 0
    for document in documents:
        waiting.append(document)
        sentences += len(document.sentences)
        characters += sum(map(len, document.sentences))
        if sentences >= _SENTENCES_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
            yield from _encode(waiting, tokenizer)
            waiting, sentences, characters = [], 0, 0
    yield from _encode(waiting, tokenizer)


def _encode(documents: list[Document], tokenizer: TextTokenizer) -> Iterator[tuple[Document, list[list[int]]]]:
    ids = iter(tokenizer.encode_ids([sentence for document in documents for sentence in document.sentences]))
    for document in documents:
        yield document, [next(ids) for _ in document.sentences]


def is_held_out(number: int, *, seed: int, share: float) -> bool:
    """Whether document `number` is held out: a function of (seed, number), so more text does not move it."""
    digest = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2.0**64
