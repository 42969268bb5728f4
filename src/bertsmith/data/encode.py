"""What `prepare` does with a block of documents, as a pure function: text in, tokens, hashes and counts out.

It runs in worker processes (`data.workers`) or on the machines of a Ray cluster (`data.cluster`), and its result
depends on neither. Not here: any decision about a document (`data.prepare`), because that needs the blocks before.

    block      file, piece, part, text               sentences joined by line ends; a row per document
    encoded    file, piece, part, hashes, tokens …   see `Encoded`
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from bertsmith.data.words import WordTable
from bertsmith.tokenizer.text_tokenizer import TextTokenizer


@dataclass(frozen=True)
class Encoded:
    """A block's documents, tokenised; arrays end to end."""

    file: np.ndarray
    piece: np.ndarray
    part: np.ndarray
    hashes: np.ndarray
    """`[documents, 3]`, uint64, from text and seed: identity, the draw for `--heldout`, the draw for `--weights`"""
    bands: np.ndarray
    """`[documents, bands]`, uint64: what near-duplicates are likely to share; no bands unless asked for"""
    repeated: np.ndarray
    """`[documents]`: sentences that stand in the same block before"""
    sentences: np.ndarray
    """`[documents]`: number of sentences"""
    lengths: np.ndarray
    """`[sentences]`: tokens, may be 0"""
    sentence_hashes: np.ndarray
    """`[sentences]`, uint64; of length 0 unless asked for"""
    words: np.ndarray
    unknown: np.ndarray
    characters: np.ndarray
    """`[sentences]`, each of the three"""
    input_ids: np.ndarray
    """`[tokens]`"""

    def to_bytes(self) -> bytes:
        """For a pipe or a cluster: shapes and raw arrays."""
        arrays = {name: np.ascontiguousarray(value) for name, value in vars(self).items()}
        head = {name: [value.dtype.str, value.shape] for name, value in arrays.items()}
        first = json.dumps(head).encode()
        return b"".join([len(first).to_bytes(8, "little"), first, *(value.tobytes() for value in arrays.values())])

    @classmethod
    def from_bytes(cls, content: bytes) -> Encoded:
        """The reverse of `to_bytes`."""
        start = 8 + int.from_bytes(content[:8], "little")
        arrays = {}
        for name, (kind, shape) in json.loads(content[8:start]).items():
            size = int(np.prod(shape))
            arrays[name] = np.frombuffer(content, kind, size, start).reshape(shape)
            start += arrays[name].nbytes
        return cls(**arrays)


@dataclass(frozen=True)
class EncoderSettings:
    """All that an encoder is a function of, as plain values: it goes to other processes as JSON."""

    tokenizer: str
    """Content of tokenizer.json."""
    tokenizer_config: dict[str, Any]
    seed: int
    hash_sentences: bool
    near: float | None
    """`--near-dedup`."""

    def to_json(self) -> str:
        """The reverse of `EncoderSettings(**json.loads(…))`."""
        return json.dumps(asdict(self))


class BlockEncoder:
    """Encodes blocks."""

    def __init__(self, settings: EncoderSettings) -> None:
        self.settings = settings
        self.table = WordTable(TextTokenizer(settings.tokenizer, settings.tokenizer_config))
        self.signer = None
        if settings.near is not None:
            from bertsmith.data.near import Signer

            self.signer = Signer(settings.near, seed=settings.seed)

    def __call__(self, block: bytes) -> bytes:
        """`block` is an Arrow stream of the schema `BLOCK`; the result is `Encoded.to_bytes`."""
        with pa.ipc.open_stream(block) as stream:
            table = stream.read_all()
        texts: list[str] = table.column("text").to_pylist()
        places = {name: table.column(name).to_numpy() for name in ("file", "piece", "part")}
        return self.encode(texts, places).to_bytes()

    def encode(self, texts: Sequence[str], places: dict[str, np.ndarray]) -> Encoded:
        """`texts` are documents, their sentences joined by line ends; `places` has file, piece and part of each."""
        documents = [text.split("\n") for text in texts]
        sentences = list(chain.from_iterable(documents))
        tokens, counts = self.table(sentences)
        hashed = sentences if self.settings.hash_sentences else []
        return Encoded(
            **places,
            hashes=_numbers(content_hash(text, seed=self.settings.seed) for text in texts).reshape(-1, 3),
            bands=np.zeros((len(texts), 0), np.uint64) if self.signer is None else self.signer.bands(texts),
            repeated=_repeated(documents),
            sentences=np.fromiter(map(len, documents), np.int64, len(documents)),
            lengths=counts[:, 0],
            sentence_hashes=_numbers(blake2b(sentence.encode(), digest_size=8).digest() for sentence in hashed),
            words=counts[:, 1],
            unknown=counts[:, 2],
            characters=np.fromiter(map(len, sentences), np.int64, len(sentences)),
            input_ids=tokens,
        )


def content_hash(text: str, *, seed: int) -> bytes:
    """24 bytes: three independent numbers (see `Encoded.hashes`), the same wherever the text stands."""
    return blake2b(text.encode(), digest_size=24, key=seed.to_bytes(max(8, (seed.bit_length() + 7) // 8))).digest()


def _numbers(digests: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digests), "<u8")


def _repeated(documents: Sequence[Sequence[str]]) -> np.ndarray:
    seen: set[str] = set()
    found = []
    for sentences in documents:
        before = len(seen)
        seen.update(sentences)
        found.append(len(sentences) - (len(seen) - before))
    return np.array(found, np.int64)
