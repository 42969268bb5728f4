"""`bertsmith embed`: the texts of a file, of any size, to a matrix in a file. Not here: how vectors are computed
(`tasks.embedding`), and how a job that was stopped goes on (`spool`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from time import perf_counter
from typing import Any

import numpy as np

from bertsmith.config.embed import EmbedOptions
from bertsmith.data.archives import format_of
from bertsmith.data.text import Row, blank_lines, good_rows, read_rows
from bertsmith.errors import ErrorCollector, InputError
from bertsmith.files import check_output, new_file, sha256
from bertsmith.model import open_model, use_engine
from bertsmith.progress import progress
from bertsmith.spool import Spool
from bertsmith.tasks.embedding import TextVectors, warn_of_cuts

PART_ROWS = 8192
"""Texts that are read, sorted by length and computed at a time; a job that was stopped goes on at such a part."""

COLUMNS = ("text|sentence",)


def embed(options: EmbedOptions) -> dict[str, Any]:
    """Read, compute, write; returns what was done. Nothing is computed while a row is bad: all are read first.

    Texts, tokens and vectors are in memory for a part of the file and the next one, not for all of it.
    """
    check_output(options.out, overwrite=options.overwrite, is_file=True)
    if options.out.is_dir():
        raise InputError("is a directory; name a file", file=options.out)
    model = open_model(options)
    maker = TextVectors(
        model.bundle,
        prompt=options.prompt,
        batch_tokens=options.batch_tokens,
        pooling=options.pooling,
        normalize=options.normalize,
        long_docs=options.long_docs,
    )
    texts = _checked(options, maker)
    job = {"data": sha256(options.data), "columns": options.columns, "model": maker.fingerprint, "cuts": maker.cuts}
    job["engine"] = use_engine(model, options.engine)
    with Spool(
        options.out,
        size=maker.size,
        job=job,
        resume=options.resume,
        overwrite=options.overwrite,
        figures=("cut", "tokens"),
    ) as spool:
        start, before = perf_counter(), spool.counts.get("tokens", 0)
        with progress(texts, what="embedding", unit="texts", done=spool.rows) as report:
            for inputs, cut in _prepared(options, maker, skip=spool.rows):
                spool.add(maker.vectors(inputs), cut=cut, tokens=sum(map(len, inputs)))
                report(len(inputs))
        seconds = perf_counter() - start
        if options.out.suffix == ".npy":
            spool.become_npy()
        else:
            _write_parquet(options, spool)
            spool.remove()
    cut, tokens = spool.counts["cut"], spool.counts["tokens"]
    warn_of_cuts(cut, texts, maker.limit)
    figures: dict[str, Any] = {"out": str(options.out), "texts": texts}
    if format_of(options.data)[0] == ".txt":
        figures["blank_lines_skipped"] = blank_lines(options.data, texts)
    return figures | {
        "size": maker.size,
        "pooling": "+".join(maker.pooling),
        "normalized": maker.normalized,
        "cut": cut,
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": (tokens - before) / seconds,
    }


def _rows(options: EmbedOptions) -> Iterator[Row]:
    return read_rows(options.data, required=COLUMNS, columns=options.columns)


def _parts(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while part := list(islice(rows, PART_ROWS)):
        yield part


def _checked(options: EmbedOptions, maker: TextVectors) -> int:
    """The number of rows. Raises `InputError` for bad ones, and for texts that cannot be embedded."""
    errors, texts = ErrorCollector(), 0
    for part in _parts(good_rows(options.data, required=COLUMNS, columns=options.columns, errors=errors)):
        _inputs(part, maker)
        texts += len(part)
    errors.raise_if_any()
    return texts


def _inputs(part: Sequence[Row], maker: TextVectors) -> tuple[list[np.ndarray], int]:
    def place(i: int) -> dict[str, Any]:
        return {"file": part[i].file, "line": part[i].line, "field": "text"}

    return maker.inputs([row.values["text"] for row in part], place=place)


def _prepared(options: EmbedOptions, maker: TextVectors, *, skip: int) -> Iterator[tuple[list[np.ndarray], int]]:
    """The inputs of each part after the first `skip` rows, and how many were cut; one part is made while another is
    computed."""
    parts = _parts(islice(_rows(options), skip, None))

    def following() -> tuple[list[np.ndarray], int] | None:
        part = next(parts, None)
        return None if part is None else _inputs(part, maker)

    with ThreadPoolExecutor(1) as worker:
        waiting = worker.submit(following)
        while (found := waiting.result()) is not None:
            waiting = worker.submit(following)
            yield found


def _write_parquet(options: EmbedOptions, spool: Spool) -> None:
    """Columns `text` and `embedding`, a list of fixed size of float32; a crash leaves the old file or the new one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema({"text": pa.string(), "embedding": pa.list_(pa.float32(), spool.size)})
    rows = _rows(options)
    with new_file(options.out) as stream, pq.ParquetWriter(stream, schema) as writer:
        for vectors in spool.read():
            texts = [row.values["text"] for row in islice(rows, len(vectors))]
            embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), spool.size)
            writer.write_table(pa.table({"text": texts, "embedding": embedding}, schema=schema))
