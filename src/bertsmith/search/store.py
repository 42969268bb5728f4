"""What a store of vectors holds and does, wherever it lies. Not here: the two that there are (`search.sqlite`,
`search.postgres`).

    head      which folder, made by which model
    contents  what files say, each once: two files with equal bytes share it, a renamed file keeps it
    files     path, size, age -> content
    passages  of a content, with their vectors

A content is complete, or it holds its first passages and the next start goes on behind them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bertsmith.errors import InputError
from bertsmith.search.folder import Seen
from bertsmith.search.passages import Passage

VERSION = 1
"""Of the tables, and of how texts are cut."""


@dataclass(frozen=True)
class Head:
    """What a store is of."""

    folder: str
    """Absolute path."""
    model: str
    """As it was named, a local one by its absolute path."""
    fingerprint: str
    """SHA-256 of weights, tokenizer, pooling, prompt of passages and length, in hexadecimal."""
    size: int
    """Numbers of a vector."""
    signature: str
    """The files of the model's directory by size and age: unchanged, the model need not be read to be known."""
    quick: dict[str, Any] | None
    """What `search.quick` needs to embed a query; None if it cannot."""
    version: int = VERSION

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str, *, store: str) -> Head:
        """Raises `InputError` for the head of another version, or a damaged one."""
        try:
            values = json.loads(text)
            if values["version"] == VERSION:
                return Head(**values)
        except (ValueError, TypeError, KeyError):
            raise InputError("the store is damaged; --overwrite builds it again", file=store) from None
        raise InputError(
            f"the store is of version {values['version']}, this bertsmith reads {VERSION}; --overwrite builds it again",
            file=store,
        )


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as the store remembers it."""

    seen: Seen
    key: str
    """`folder.content_key` of it."""
    problem: str | None
    """Why its content has no passages."""


@dataclass(frozen=True, slots=True)
class Part:
    """Passages of one content, to be written together with all that is given with it."""

    key: str
    start: int
    """How many of the content's passages come before."""
    passages: Sequence[Passage]
    vectors: np.ndarray
    """`[passages, size]`, float32."""
    files: Sequence[Seen] | None
    """The files that say this, given with the content's last part, and None before."""
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A passage near a query."""

    files: tuple[str, ...]
    """The files that hold it, by path; the first one is shown."""
    number: int
    """Its place among the passages of its file."""
    passage: Passage
    vector: np.ndarray
    """`[size]`, float32."""


class Store(Protocol):
    """Each method is a transaction of its own: another process sees all of it or nothing, whenever this one ends.

    All raise `InputError` for a store that cannot be used, `RunError` if it fails at work.
    """

    @property
    def name(self) -> str:
        """How messages call it; without a password."""
        ...

    @property
    def own_files(self) -> tuple[Path, ...]:
        """The files that it lies in, as absolute paths; they are not searched."""
        ...

    def head(self) -> Head | None:
        """What the store is of; None if there is none yet."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Whoever writes holds this; a second process waits here, and says so."""
        ...

    def create(self, head: Head) -> None:
        """Make an empty store, in the place of one that is there."""
        ...

    def set_head(self, head: Head) -> None:
        """Change what the store says of its model's files."""
        ...

    def files(self) -> dict[str, StoredFile]:
        """Every file, by path."""
        ...

    def contents(self) -> dict[str, tuple[bool, int]]:
        """Key -> whether it is complete, and the number of its passages."""
        ...

    def write(self, parts: Sequence[Part]) -> None:
        """Add parts; a path that had another content gets the new one."""
        ...

    def place(self, files: Mapping[Seen, str]) -> None:
        """Note files, by key, whose contents are complete."""
        ...

    def remove(self, paths: Sequence[str]) -> None:
        """Forget files."""
        ...

    def has_unused(self) -> bool:
        """Whether there are contents that no file has."""
        ...

    def sweep(self) -> None:
        """Delete these."""
        ...

    def passages(self) -> int:
        """How many there are."""
        ...

    def nearest(self, vector: np.ndarray, count: int) -> list[Found]:
        """The `count` passages nearest to `vector` `[size]` by cosine, in any order; fewer if there are no more.
        Those of a content that no file has (yet) are not among them."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def cosine(query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """`[size]`, `[n, size]` -> `[n]`, computed in float64; 0 where a vector has no length."""
    wide, rows = query.astype(np.float64), vectors.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(wide)
    return np.asarray(rows @ wide / np.where(lengths == 0, 1.0, lengths))
