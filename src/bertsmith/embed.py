"""`bertsmith embed`: the texts of a file to a matrix in a file. Not here: how they are computed (`tasks.embedding`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO

import numpy as np

from bertsmith.config.embed import EmbedOptions
from bertsmith.data.archives import format_of
from bertsmith.data.text import read_all_rows, read_lines
from bertsmith.errors import InputError
from bertsmith.files import check_output, new_file
from bertsmith.predict import open_model
from bertsmith.tasks.embedding import embed_texts


def embed(options: EmbedOptions) -> dict[str, Any]:
    """Read, compute, write; returns what was done. Nothing is written when anything is wrong."""
    check_output(options.out, overwrite=options.overwrite, is_file=True)
    if options.out.is_dir():
        raise InputError("is a directory; name a file", file=options.out)
    rows = read_all_rows(options.data, required=("text|sentence",), columns=options.columns)
    texts = [row.values["text"] for row in rows]
    model = open_model(options)
    start = perf_counter()
    result = embed_texts(
        model.bundle,
        texts,
        place=lambda i: {"file": rows[i].file, "line": rows[i].line, "field": "text"},
        prompt=options.prompt,
        batch_tokens=options.batch_tokens,
        pooling=options.pooling,
        normalize=options.normalize,
        long_docs=options.long_docs,
    )
    seconds = perf_counter() - start
    write_vectors(options.out, texts, vectors=result.vectors)
    figures: dict[str, Any] = {"out": str(options.out), "texts": len(texts)}
    if format_of(options.data)[0] == ".txt":
        figures["blank_lines_skipped"] = sum(1 for _ in read_lines(options.data)) - len(texts)
    return figures | {
        "size": result.vectors.shape[1],
        "pooling": "+".join(result.pooling),
        "normalized": result.normalized,
        "cut": result.cut,
        "tokens": result.tokens,
        "seconds": seconds,
        "tokens_per_second": result.tokens / seconds,
    }


def write_vectors(out: Path, texts: Sequence[str], *, vectors: np.ndarray) -> None:
    """Write `vectors`, `[texts, size]`, into `out` by its suffix; a crash leaves the old file or the new one.

    .npy is the matrix; .parquet has the columns `text` and `embedding`, a list of fixed size of float32.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with new_file(out) as stream:
        if out.suffix == ".npy":
            np.save(stream, vectors)
        else:
            _write_parquet(stream, texts, vectors=vectors)


def _write_parquet(stream: BinaryIO, texts: Sequence[str], *, vectors: np.ndarray) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    pq.write_table(pa.table({"text": texts, "embedding": embedding}), stream)
