"""Brings a store up to date with its folder: embeds what is new, forgets what is gone.

    listing   files by size and age          unchanged ones are not opened
    hashes    of the others                  equal bytes, under whatever name, are not embedded again
    groups    passages -> vectors -> store   one transaction each; a killed start goes on behind the last

Not here: tables (`search.store`), vectors (`search.embedder`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bertsmith.errors import InputError
from bertsmith.progress import progress
from bertsmith.search.folder import Listing, Seen, content_key
from bertsmith.search.passages import Passage, read_passages
from bertsmith.search.store import Part, Store, StoredFile

if TYPE_CHECKING:
    from bertsmith.search.model import SearchModel

log = logging.getLogger("bertsmith")

GROUP_PASSAGES = 256
"""Passages of a transaction: what a killed start loses at most."""

YOUNG_NS = 2_000_000_000
"""A file that changed so shortly before it was listed may change again within the same tick of the clock: its age is
not remembered, so that the next start looks into it (as git does with its index)."""


@dataclass
class Update:
    """What was done."""

    embedded: int = 0
    """Files that were embedded."""
    passages: int = 0
    """Passages that were embedded."""
    removed: int = 0
    """Files that left the store."""
    odd: dict[str, str] = field(default_factory=dict)
    """Path -> why it could not be opened, or not be read to its end."""


def is_current(listing: Listing, stored: Mapping[str, StoredFile]) -> bool:
    """Whether the folder looks as it did when the store was written."""
    files = listing.files
    return len(files) == len(stored) and all(
        path in stored and stored[path].seen == seen for path, seen in files.items()
    )


def update(store: Store, folder: Path, listing: Listing, *, model: SearchModel) -> Update:
    """Make `store` hold what `listing` names; the caller is `store.writing()`."""
    done = Update()
    stored = store.files()
    gone = set(stored) - set(listing.files)
    known: dict[Seen, str] = {}
    fresh: dict[str, list[Seen]] = {}
    contents: dict[str, tuple[bool, int]] | None = None
    now = time.time_ns()
    for path, seen in listing.files.items():
        if path in stored and stored[path].seen == seen:
            continue
        try:
            key = content_key(folder / path)
        except OSError as error:
            done.odd[path] = f"cannot be read: {error.strerror}"
            gone |= {path} & stored.keys()
            continue
        contents = store.contents() if contents is None else contents
        noted = Seen(path, seen.size, 0) if now - seen.mtime_ns < YOUNG_NS else seen
        if contents.get(key, (False, 0))[0]:
            known[noted] = key
        else:
            fresh.setdefault(key, []).append(noted)
    if known:
        store.place(known)
    if fresh:
        _embed(store, folder, fresh, contents or {}, model=model, listing=listing, done=done)
    gone |= done.odd.keys() & stored.keys()
    if gone:
        store.remove(sorted(gone))
        done.removed = len(gone)
    if store.has_unused():
        store.sweep()
    return done


def _embed(
    store: Store,
    folder: Path,
    fresh: Mapping[str, list[Seen]],
    contents: Mapping[str, tuple[bool, int]],
    *,
    model: SearchModel,
    listing: Listing,
    done: Update,
) -> None:
    group = _Group(store, model)
    with progress(sum(map(len, fresh.values())), what="embedding", unit="files") as report:
        for key, files in fresh.items():
            file, seen = folder / files[0].path, listing.files[files[0].path]
            start = contents.get(key, (False, 0))[1]
            passages: list[Passage] = []
            try:
                for passage in islice(read_passages(file, model.loaded.ruler), start, None):
                    passages.append(passage)
                    if group.passages + len(passages) >= GROUP_PASSAGES:
                        group.add(key, start, passages)
                        group.write()
                        start, passages = start + len(passages), []
                status = file.stat()
                if (status.st_size, status.st_mtime_ns) != (seen.size, seen.mtime_ns):
                    raise OSError(0, "changed while it was read; the next start reads it again")
                group.add(key, start, passages, files=files)
                done.embedded += len(files)
            except InputError as error:
                group.add(key, 0, [], files=files, problem=_reason(error))
            except OSError as error:
                done.odd |= dict.fromkeys((seen.path for seen in files), error.strerror or str(error))
            report(len(files))
        group.write()
    done.passages = group.written


def _reason(error: InputError) -> str:
    return error.message if error.line is None else f"line {error.line}: {error.message}"


class _Group:
    """Parts that wait to be embedded and written together."""

    def __init__(self, store: Store, model: SearchModel) -> None:
        self.store, self.model = store, model
        self.waiting: list[tuple[str, int, list[Passage], list[Seen] | None, str | None]] = []
        self.passages = self.written = 0

    def add(
        self,
        key: str,
        start: int,
        passages: list[Passage],
        *,
        files: list[Seen] | None = None,
        problem: str | None = None,
    ) -> None:
        self.waiting.append((key, start, passages, files, problem))
        self.passages += len(passages)

    def write(self) -> None:
        """One transaction."""
        texts = [passage.text for _, _, passages, _, _ in self.waiting for passage in passages]
        model = self.model.loaded
        vectors = model.embed_passages(texts) if texts else np.empty((0, model.size), np.float32)
        parts, at = [], 0
        for key, start, passages, files, problem in self.waiting:
            rows = vectors[at : at + len(passages)]
            parts.append(Part(key, start, passages, rows, files, problem))
            at += len(passages)
        if parts:
            self.store.write(parts)
        self.written += len(texts)
        self.waiting, self.passages = [], 0
