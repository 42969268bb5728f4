"""Token shards: Arrow IPC files of tokenised documents, memory-mapped, with a manifest written last.

    shards/train-00000.arrow      a row per document: input_ids [tokens], sentence_lengths [sentences]
    shards/heldout-00000.arrow    documents kept apart for evaluation
    shards/tokenizer/             the tokenizer that made the ids
    shards/bertsmith.json         counts, tokenizer fingerprint, sizes and SHA-256 of all of these

Not here: cutting documents into sequences (`data.sequences`), because that differs from epoch to epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from bertsmith.errors import InputError
from bertsmith.files import read_manifest
from bertsmith.tokenizer.directory import TextTokenizer

SPLITS = ("train", "heldout")
_ROWS_PER_BATCH, _TOKENS_PER_BATCH = 4096, 1 << 20


class ShardWriter:
    """Writes the documents of one split into files of at most `shard_tokens` tokens."""

    def __init__(self, directory: Path, split: str, *, vocab_size: int, shard_tokens: int) -> None:
        self.directory, self.split, self.shard_tokens = directory, split, shard_tokens
        self.id_type = np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.int32)
        self.schema = pa.schema(
            {"input_ids": pa.list_(pa.from_numpy_dtype(self.id_type)), "sentence_lengths": pa.list_(pa.int32())}
        )
        self.documents = self.sentences = self.tokens = self.files = 0
        self.single_sentence_documents = 0
        self._rows: list[tuple[list[int], list[int]]] = []
        self._tokens_in_file = self._pending_tokens = 0
        self._writer: Any = None

    def add(self, sentences: Sequence[Sequence[int]]) -> None:
        """Append one document, given as the token ids of its sentences; empty sentences are left out."""
        kept = [sentence for sentence in sentences if sentence]
        if not kept:
            return
        ids = [token for sentence in kept for token in sentence]
        if self._tokens_in_file and self._tokens_in_file + len(ids) > self.shard_tokens:
            self._close_file()
        self._rows.append((ids, [len(sentence) for sentence in kept]))
        self._tokens_in_file += len(ids)
        self.documents += 1
        self.sentences += len(kept)
        self.tokens += len(ids)
        self.single_sentence_documents += len(kept) == 1
        self._pending_tokens += len(ids)
        if len(self._rows) >= _ROWS_PER_BATCH or self._pending_tokens > _TOKENS_PER_BATCH:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            path = self.directory / f"{self.split}-{self.files:05d}.arrow"
            self._writer = pa.ipc.new_file(str(path), self.schema)
            self.files += 1
        ids, lengths = zip(*self._rows, strict=True)
        columns = [pa.array(ids, self.schema.field(0).type), pa.array(lengths, self.schema.field(1).type)]
        self._writer.write_batch(pa.record_batch(columns, schema=self.schema))
        self._rows, self._pending_tokens = [], 0

    def _close_file(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
        self._writer, self._tokens_in_file = None, 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_file()

    def counts(self) -> dict[str, int]:
        """What the manifest says about this split."""
        return {
            "documents": self.documents,
            "sentences": self.sentences,
            "tokens": self.tokens,
            "single_sentence_documents": self.single_sentence_documents,
            "files": self.files,
        }


class TokenStore:
    """The documents of one split, read through memory maps.

    Tokens have one global numbering, documents and files end to end; a slice never crosses a document.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._maps: list[Any] = []
        self._chunks: list[np.ndarray] = []
        documents, sentences = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
        for path in paths:
            source = pa.memory_map(str(path))
            self._maps.append(source)
            table = pa.ipc.open_file(source)
            for i in range(table.num_record_batches):
                ids, lengths = table.get_batch(i).columns
                start = documents[-1][-1]
                self._chunks.append(ids.flatten().to_numpy(zero_copy_only=True))
                documents.append(start + np.cumsum(ids.value_lengths().to_numpy(), dtype=np.int64))
                sentences.append(start + np.cumsum(lengths.flatten().to_numpy(), dtype=np.int64))
        self.document_bounds = np.concatenate(documents)
        """`[documents + 1]`: global number of each document's first token, and the end."""
        self.sentence_bounds = np.concatenate(sentences)
        """`[sentences + 1]`: the same for sentences; every document bound is among them."""
        sizes = [len(chunk) for chunk in self._chunks]
        self._chunk_starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.document_bounds) - 1

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return int(self.document_bounds[-1])

    def slice(self, start: int, end: int) -> np.ndarray:
        """Token ids `start … end` (global numbers, within one document): `[end - start]`, int64."""
        chunk = int(np.searchsorted(self._chunk_starts, start, side="right")) - 1
        offset = int(self._chunk_starts[chunk])
        return self._chunks[chunk][start - offset : end - offset].astype(np.int64)

    def token_counts(self, vocab_size: int) -> np.ndarray:
        """How often each id occurs: `[vocab_size]`, int64."""
        counts = np.zeros(vocab_size, np.int64)
        for chunk in self._chunks:
            counts += np.bincount(chunk, minlength=vocab_size)
        return counts


def open_shards(directory: Path, split: str) -> tuple[TokenStore, dict[str, Any]]:
    """The documents of `split` and the manifest, after checking every file's SHA-256.

    Raises `InputError` when the directory is not a complete set of shards or a file was damaged.
    """
    manifest = read_manifest(directory, kind="shards")
    names = [f"{split}-{i:05d}.arrow" for i in range(manifest["splits"][split]["files"])]
    missing = [name for name in names if name not in manifest["files"]]
    if missing:
        raise InputError(f"the manifest counts {missing[0]} but does not list it; prepare again", file=directory)
    return TokenStore([directory / name for name in names]), manifest


def check_tokenizer(
    tokenizer: TextTokenizer, manifest: dict[str, Any], *, data: Path, field: str | None = None
) -> None:
    """Raise `InputError` unless `tokenizer` is the one that made the shards in `data`."""
    if tokenizer.fingerprint != manifest["tokenizer"]:
        raise InputError(
            f"this tokenizer did not make the shards (fingerprint {tokenizer.fingerprint[:12]}, theirs is "
            f"{manifest['tokenizer'][:12]}); prepare the text again with it, or use the tokenizer in {data}/tokenizer",
            file=data,
            field=field,
        )
