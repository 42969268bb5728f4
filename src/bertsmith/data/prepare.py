"""`bertsmith prepare`: text files to token shards, streaming, with all cores, and resumable.

    files ─ blocks ─ encode (workers) ─ selection ─ shards ─ manifest
                     pure, anywhere     in order    a checkpoint at each closed file

Memory is that of the blocks under way and of the hashes seen, whatever the size of the text.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from bertsmith.config.prepare import PrepareOptions, parse_weights
from bertsmith.data.blocks import file_blocks
from bertsmith.data.dedup import HashLog
from bertsmith.data.encode import BlockEncoder, Encoded, EncoderSettings
from bertsmith.data.resume import Workplace, workplace
from bertsmith.data.selection import COUNTS, Choice, Selection
from bertsmith.data.shards import SPLITS, ShardWriter
from bertsmith.data.text import read_documents
from bertsmith.data.workers import encode_here, encode_in_workers
from bertsmith.errors import InputError
from bertsmith.files import check_output, write_manifest
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

log = logging.getLogger("bertsmith")

SMALL = 4_000_000
"""Bytes of input that are encoded in this process: workers would take longer to start."""

REPEATED_SHARE = 0.2
"""Share of repeated lines from which on a warning speaks of them."""


REMOVED = ("duplicate_documents", "near_duplicates", "duplicate_lines", "emptied_documents", "characters_removed")
"""Counts that are shown as `removed`."""


def prepare(options: PrepareOptions) -> dict[str, Any]:
    """Tokenise documents into shards; memory does not grow with the size of the text.

    Returns counts per split, tokens per word, the share of [UNK], what was removed, and seconds. Raises `InputError`
    for unreadable input; nothing is written then.
    """
    started = time.perf_counter()
    check_output(options.out, overwrite=options.overwrite)
    tokenizer = load_tokenizer(options.tokenizer)
    read_documents(options.files, columns=options.columns, pairs=options.pairs)  # complains about any file first
    weights = (1.0,) * len(options.files) if options.weights is None else parse_weights(options.weights)
    if len(weights) != len(options.files):
        raise InputError(f"{len(weights)} for {len(options.files)} files; give one for each", field="--weights")
    settings = encoder_settings(options, tokenizer)
    BlockEncoder(settings)  # complains about a missing extra first
    with workplace(
        options.out,
        options.files,
        flags=result_flags(options, tokenizer),
        overwrite=options.overwrite,
        resume=options.resume,
    ) as place:
        run = Preparation(options, tokenizer, place, weights=weights)
        with closing(encoded_blocks(options, settings, start=run.start)) as blocks:
            for block in blocks:
                run.add(block)
        run.close()
        figures = run.figures()
        tokenizer.save(place.directory / "tokenizer")
        own = {"tokenizer": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size}
        write_manifest(place.directory, own | figures | {"sources": run.sources()}, kind="shards")
    shown = figures if options.weights is None else figures | {"sources": run.sources()}
    return {"out": str(options.out), **shown, "seconds": time.perf_counter() - started}


def encoder_settings(options: PrepareOptions, tokenizer: TextTokenizer) -> EncoderSettings:
    """What the encoders of this run need to know."""
    return EncoderSettings(
        tokenizer=tokenizer.content,
        tokenizer_config=tokenizer.config,
        seed=options.seed,
        hash_sentences=options.dedup in ("lines", "both"),
        near=options.near_dedup,
    )


def result_flags(options: PrepareOptions, tokenizer: TextTokenizer) -> dict[str, Any]:
    """All flags that the shards depend on, by name: what `--resume` must be given again."""
    names = ("heldout", "seed", "columns", "pairs", "dedup", "near_dedup", "weights", "max_document", "shard_tokens")
    flags = {"--" + name.replace("_", "-"): getattr(options, name) for name in names}
    return flags | {"--tokenizer": tokenizer.fingerprint}


def encoded_blocks(options: PrepareOptions, settings: EncoderSettings, *, start: tuple[int, int]) -> Generator[Encoded]:
    """The encoded blocks of all files, from `start` = (file, piece) on, in order."""
    if options.engine == "ray":
        from bertsmith.data.cluster import encode_on_ray

        yield from encode_on_ray(options, settings, start=start)
        return
    blocks = (block for number in range(start[0], len(options.files)) for block in file_blocks(options, number, start))
    if sum(path.stat().st_size for path in options.files[start[0] :]) < SMALL:
        yield from encode_here(blocks, settings)
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        yield from encode_in_workers(blocks, settings, workers=options.threads or cores)


class Preparation:
    """Writes what is selected, and a checkpoint whenever the files of both splits are closed."""

    def __init__(
        self, options: PrepareOptions, tokenizer: TextTokenizer, place: Workplace, *, weights: tuple[float, ...]
    ) -> None:
        self.options, self.place, self.weights = options, place, weights
        self.select = Selection(
            heldout=options.heldout,
            weights=weights,
            documents=options.dedup in ("documents", "both"),
            sentences=options.dedup in ("lines", "both"),
            near=options.near_dedup is not None,
            megabytes=options.dedup_memory,
        )
        self.writers = tuple(
            ShardWriter(place.directory, split, vocab_size=tokenizer.vocab_size, shard_tokens=options.shard_tokens)
            for split in SPLITS
        )
        self.logs = {name: HashLog(table, place.directory, name) for name, table in self.select.tables.items()}
        self.totals = {name: np.zeros(len(options.files), np.int64) for name in COUNTS}
        self.done: dict[str, Any] = {}
        self.checkpoints, self.start = 0, (0, 0)
        if place.state is not None:
            self._continue_from(place.state)

    def _continue_from(self, state: dict[str, Any]) -> None:
        self.start, self.checkpoints, self.done = tuple(state["next"]), state["checkpoints"], state["done"]
        self.select.origins = state["origins"]
        for writer, counts in zip(self.writers, state["writers"], strict=True):
            writer.continue_after(counts)
        self.totals = {name: np.array(state["totals"][name], np.int64) for name in COUNTS}
        for log_of_table in self.logs.values():
            log_of_table.load(self.checkpoints)
        log.info("going on after %d documents", int(self.totals["read"].sum()))

    def add(self, block: Encoded) -> None:
        """Select from a block and write; files are closed, and a checkpoint is written, when either is full."""
        choice = self.select(block)
        weights = choice.rows.tokens() * choice.copies
        sizes = [np.where(choice.heldout == heldout, weights, 0) for heldout in (False, True)]
        start, total = 0, len(weights)
        while start < total:
            end = start + min(writer.fits(size[start:]) for writer, size in zip(self.writers, sizes, strict=True))
            if end == start:
                self._checkpoint(block, choice, start)
                continue
            self._write(block, choice, start=start, end=end)
            start = end

    def _write(self, block: Encoded, choice: Choice, *, start: int, end: int) -> None:
        which = np.arange(start, end)
        for writer, heldout in zip(self.writers, (False, True), strict=True):
            own = which[choice.heldout[start:end] == heldout]
            writer.add(choice.rows.take(np.repeat(own, choice.copies[own])))
        for name, values in choice.counts.items():
            np.add.at(self.totals[name], block.file[start:end], values[start:end])
        for name, (hashes, owners) in choice.seen.items():
            self.logs[name].note(hashes[(owners >= start) & (owners < end)])

    def _checkpoint(self, block: Encoded, choice: Choice, following: int) -> None:
        new = self.close()
        for log_of_table in self.logs.values():
            log_of_table.save(self.checkpoints)
            new.append(log_of_table.path(self.checkpoints))
        self.checkpoints += 1
        origin = int(choice.rows.origins[following]) + int(block.part[following] > 0)
        state = {
            "next": [int(block.file[following]), int(block.piece[following])],
            "checkpoints": self.checkpoints,
            "origins": origin,
            "writers": [writer.counts() for writer in self.writers],
            "totals": {name: values.tolist() for name, values in self.totals.items()},
        }
        self.place.save(state, self.done, new)

    def close(self) -> list[Path]:
        """Close the files at hand; returns their paths."""
        return [path for writer in self.writers for path in writer.close_file()]

    def figures(self) -> dict[str, Any]:
        """Counts and shares. Raises `InputError` if there is nothing to train on; warns of what a user should know."""
        train, heldout = self.writers
        total = {name: int(values.sum()) for name, values in self.totals.items()}
        if not train.tokens:
            raise InputError("no text is left for training; give more documents, or a smaller --heldout")
        if self.options.heldout and not heldout.documents:
            log.warning(
                "none of the %d documents fell into the held-out %g: nothing to evaluate on",
                train.documents,
                self.options.heldout,
            )
        if total["cut_documents"]:
            log.warning(
                "%d documents of more than --max-document %d characters were cut into %d pieces",
                total["cut_documents"],
                self.options.max_document,
                total["cut_documents"] + total["cut_pieces"],
            )
        if "lines" not in self.logs and total["repeated_lines"] > REPEATED_SHARE * total["lines"]:
            share = total["repeated_lines"] / total["lines"]
            log.warning("at least %.0f %% of the lines repeat one before; --dedup both removes them", 100 * share)
        return {
            "splits": {"train": train.counts(), "heldout": heldout.counts()},
            "tokens_per_word": total["tokens"] / max(total["words"], 1),
            "unknown_share": total["unknown"] / total["tokens"],
            "removed": {name.removesuffix("_removed"): total[name] for name in REMOVED},
            "cut": {"documents": total["cut_documents"], "pieces": total["cut_documents"] + total["cut_pieces"]},
        }

    def sources(self) -> list[dict[str, Any]]:
        """For each file its weight, what was read and removed, and what was written."""
        hidden = ("words", "unknown", "repeated_lines", "lines")
        return [
            {"file": path.name, "weight": self.weights[number]}
            | {name: int(values[number]) for name, values in self.totals.items() if name not in hidden}
            for number, path in enumerate(self.options.files)
        ]
