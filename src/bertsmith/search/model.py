"""The model of a search, which is loaded if something must be embedded that `search.quick` cannot do.

Not here: what a loaded model does (`search.embedder`). Nothing is imported from there until then: torch takes a second.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bertsmith.config.search import SearchOptions
from bertsmith.search.quick import QuickQuery, check_query
from bertsmith.search.store import Head

if TYPE_CHECKING:
    from bertsmith.search.embedder import Embedder

LEFT_OUT = ("train", "README.md")
"""What a model directory may change in while the model stays the same."""


class SearchModel:
    """What `--model` names."""

    def __init__(self, options: SearchOptions) -> None:
        self.options = options
        self._directory = Path(options.model) if Path(options.model).is_dir() else None
        self.name = options.model if self._directory is None else str(self._directory.resolve())
        """As it is written down: a local directory by its absolute path."""

    @cached_property
    def signature(self) -> str:
        """SHA-256 of names, sizes and ages of the directory's files; empty for a model of the hub."""
        if self._directory is None:
            return ""
        entries = []
        for place, folders, files in os.walk(self._directory):
            folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
            for name in sorted(files):
                if name not in LEFT_OUT:
                    file = Path(place) / name
                    status = file.stat() if file.exists() else file.lstat()  # a link may lead nowhere
                    entries.append((os.path.relpath(place, self._directory), name, status.st_size, status.st_mtime_ns))
        return hashlib.sha256(json.dumps(entries).encode()).hexdigest()

    def is_known_to(self, head: Head) -> bool:
        """Whether the store is of this model by the looks of its files: then it need not be read to be sure."""
        return bool(self.signature) and (head.model, head.signature) == (self.name, self.signature)

    @cached_property
    def loaded(self) -> Embedder:
        """The model itself. Raises `InputError` for one that is not there, or cannot be read."""
        from bertsmith.search.embedder import Embedder

        return Embedder(self.options)

    def head(self, folder: str) -> Head:
        """The head of a store of this model."""
        model = self.loaded
        return Head(folder, self.name, model.fingerprint, model.size, self.signature, model.quick())

    def query_vector(self, head: Head | None) -> np.ndarray:
        """`[size]`, float32, of the query; without torch where the store was made by this model and says how."""
        text = self.options.query
        is_loaded = "loaded" in vars(self) or self.options.device not in ("auto", "cpu")
        if is_loaded or head is None or head.quick is None or self._directory is None or not self.is_known_to(head):
            return self.loaded.embed_query(text)
        quick = QuickQuery(self._directory, head.quick)
        ids = quick.ids(text)
        check_query(len(ids), head.quick["limit"])
        return quick.vector(ids)
