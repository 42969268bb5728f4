"""Token shards: Arrow IPC files of tokenised documents, memory-mapped, with a manifest written last.

    shards/train-00000.arrow      a row per document: input_ids [tokens], sentence_lengths [sentences], origin
    shards/heldout-00000.arrow    documents kept apart for evaluation
    shards/tokenizer/             the tokenizer that made the ids
    shards/bertsmith.json         counts, tokenizer fingerprint, sizes and SHA-256 of all of these

Not here: cutting documents into sequences (`data.sequences`), because that differs from epoch to epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from bertsmith.errors import InputError
from bertsmith.files import read_manifest
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

SPLITS = ("train", "heldout")
_ROWS_PER_BATCH, _TOKENS_PER_BATCH = 4096, 1 << 20


@dataclass(frozen=True)
class Rows:
    """Tokenised documents, end to end."""

    input_ids: np.ndarray
    """`[tokens]`"""
    sentence_lengths: np.ndarray
    """`[sentences]`, int64, none 0"""
    sentences: np.ndarray
    """`[documents]`, int64: how many sentences each has"""
    origins: np.ndarray
    """`[documents]`, int64: number of the document in the text; pieces and copies of one have the same"""

    @classmethod
    def of(cls, documents: Sequence[Sequence[Sequence[int]]], *, id_type: type = np.int64) -> Rows:
        """From lists: `[[[5, 6], [7]], [[8]]]` is two documents of two sentences and one."""
        sentences = list(chain.from_iterable(documents))
        return cls(
            np.array(list(chain.from_iterable(sentences)), id_type),
            np.array([len(sentence) for sentence in sentences], np.int64),
            np.array([len(document) for document in documents], np.int64),
            np.arange(len(documents)),
        )

    def __len__(self) -> int:
        return len(self.sentences)

    def tokens(self) -> np.ndarray:
        """Tokens of each document: `[documents]`, int64."""
        return sums(self.sentence_lengths, self.sentences)

    def take(self, indices: np.ndarray) -> Rows:
        """The documents at `indices`, in that order; an index may occur more than once."""
        sentences, tokens = pieces(self.sentences, indices), pieces(self.tokens(), indices)
        return Rows(
            self.input_ids[tokens], self.sentence_lengths[sentences], self.sentences[indices], self.origins[indices]
        )


def sums(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums of runs of `values`: `[1, 2, 3, 4], [3, 0, 1] -> [6, 0, 4]`."""
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
    ends = np.cumsum(counts, dtype=np.int64)
    result: np.ndarray = total[ends] - total[ends - counts]
    return result


def pieces(counts: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Where the items of the runs at `indices` stand: `[2, 1, 3], [2, 0] -> [3, 4, 5, 0, 1]`."""
    starts = np.cumsum(counts, dtype=np.int64) - counts
    wanted = counts[indices]
    offsets = np.cumsum(wanted, dtype=np.int64) - wanted
    return np.repeat(starts[indices] - offsets, wanted) + np.arange(int(wanted.sum()))


class ShardWriter:
    """Writes the documents of one split, file after file; what the files hold does not depend on how it comes in."""

    def __init__(self, directory: Path, split: str, *, vocab_size: int, shard_tokens: int) -> None:
        self.directory, self.split, self.shard_tokens = directory, split, shard_tokens
        self.id_type = np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.int32)
        self.schema = pa.schema(
            {
                "input_ids": pa.list_(pa.from_numpy_dtype(self.id_type)),
                "sentence_lengths": pa.list_(pa.int32()),
                "origin": pa.int64(),
            }
        )
        self.documents = self.sentences = self.tokens = self.files = 0
        self.single_sentence_documents = 0
        self._waiting: list[Rows] = []
        self._tokens_in_file = self._waiting_rows = self._waiting_tokens = 0
        self._writer: Any = None

    def fits(self, tokens: np.ndarray) -> int:
        """How many of the next documents, of so many tokens each, the file can take; one, if it is empty."""
        room = self.shard_tokens - self._tokens_in_file
        number = int(np.searchsorted(np.cumsum(tokens, dtype=np.int64), room, side="right"))
        return number if self._tokens_in_file else max(number, min(len(tokens), 1))

    def add(self, rows: Rows) -> None:
        """Append documents to the file at hand; `fits` says whether they should."""
        tokens = rows.tokens()
        self._tokens_in_file += int(tokens.sum())
        self.documents += len(rows)
        self.sentences += len(rows.sentence_lengths)
        self.tokens += int(tokens.sum())
        self.single_sentence_documents += int((rows.sentences == 1).sum())
        start, ends = 0, np.cumsum(tokens, dtype=np.int64)
        while start < len(rows):  # a batch ends with the row that reaches either limit
            before = int(ends[start - 1]) if start else 0
            full = int(np.searchsorted(ends, before + _TOKENS_PER_BATCH - self._waiting_tokens, side="right")) + 1
            end = min(start + _ROWS_PER_BATCH - self._waiting_rows, full, len(rows))
            self._waiting.append(rows.take(np.arange(start, end)))
            self._waiting_rows += end - start
            self._waiting_tokens += int(ends[end - 1]) - before
            if self._waiting_rows >= _ROWS_PER_BATCH or self._waiting_tokens > _TOKENS_PER_BATCH:
                self._flush()
            start = end

    def _flush(self) -> None:
        if not self._waiting:
            return
        if self._writer is None:
            self._writer = pa.ipc.new_file(str(self.path(self.files)), self.schema)
            self.files += 1
        ids, lengths, sentences, origins = (
            np.concatenate([getattr(rows, name) for rows in self._waiting])
            for name in ("input_ids", "sentence_lengths", "sentences", "origins")
        )
        columns = [
            _lists(ids.astype(self.id_type), sums(lengths, sentences)),
            _lists(lengths.astype(np.int32), sentences),
            pa.array(origins, pa.int64()),
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=self.schema))
        self._waiting, self._waiting_rows, self._waiting_tokens = [], 0, 0

    def path(self, number: int) -> Path:
        """The file with that number."""
        return self.directory / f"{self.split}-{number:05d}.arrow"

    def close_file(self) -> list[Path]:
        """Complete the file at hand; what is added later goes into the next. Returns its path, or nothing."""
        self._flush()
        if self._writer is None:
            return []
        self._writer.close()
        self._writer, self._tokens_in_file = None, 0
        return [self.path(self.files - 1)]

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_file()

    def counts(self) -> dict[str, int]:
        """What the manifest says about this split."""
        return {
            "documents": self.documents,
            "sentences": self.sentences,
            "tokens": self.tokens,
            "single_sentence_documents": self.single_sentence_documents,
            "files": self.files,
        }

    def continue_after(self, counts: dict[str, int]) -> None:
        """Go on as a writer did that had these `counts` when it closed a file."""
        for name in self.counts():
            setattr(self, name, counts[name])


def _lists(values: np.ndarray, counts: np.ndarray) -> Any:
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(counts, dtype=np.int32)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))


class TokenStore:
    """The documents of one split, read through memory maps.

    Tokens have one global numbering, documents and files end to end; a slice never crosses a document.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._maps: list[Any] = []
        self._chunks: list[np.ndarray] = []
        documents, sentences = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
        origins: list[np.ndarray] = []
        count = 0
        for path in paths:
            source = pa.memory_map(str(path))
            self._maps.append(source)
            table = pa.ipc.open_file(source)
            for i in range(table.num_record_batches):
                batch = table.get_batch(i)
                ids, lengths = batch.column("input_ids"), batch.column("sentence_lengths")
                start = documents[-1][-1]
                self._chunks.append(ids.flatten().to_numpy(zero_copy_only=True))
                documents.append(start + np.cumsum(ids.value_lengths().to_numpy(), dtype=np.int64))
                sentences.append(start + np.cumsum(lengths.flatten().to_numpy(), dtype=np.int64))
                named = "origin" in batch.schema.names  # shards of version 1 hold whole documents only
                origins.append(batch.column("origin").to_numpy() if named else count + np.arange(len(ids)))
                count += len(ids)
        self.document_bounds = np.concatenate(documents)
        """`[documents + 1]`: global number of each document's first token, and the end."""
        self.sentence_bounds = np.concatenate(sentences)
        """`[sentences + 1]`: the same for sentences; every document bound is among them."""
        self.origins = np.concatenate([np.zeros(0, np.int64), *origins])
        """`[documents]`: number of the text's document that each comes from; pieces of one have the same."""
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


def store_of(documents: Sequence[Sequence[Sequence[int]]], folder: Path, *, vocab_size: int) -> TokenStore:
    """The store of documents, each a list of sentences' ids, in a file in `folder`; those without ids are left out."""
    writer = ShardWriter(folder, "heldout", vocab_size=vocab_size, shard_tokens=1 << 30)
    writer.add(Rows.of([document for document in documents if document]))
    return TokenStore(writer.close_file())


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
