"""Folders of small texts, what a store holds, and a search of them."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertsmith.config.search import SearchOptions
from bertsmith.search.passages import Passage
from bertsmith.search.run import DEFAULT, search
from bertsmith.search.sqlite import SqliteStore
from bertsmith.search.store import Part, Store
from tests.conftest import sentence

HOUR_AGO = 1_700_000_000


def write(file: Path, text: str | bytes, *, age: int = HOUR_AGO) -> Path:
    """A file that did not change just now, so that its age counts."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    os.utime(file, (age, age))
    return file


def texts(folder: Path, count: int = 12, *, seed: int = 0, sentences: int = 1) -> Path:
    """`count` files of a paragraph in two sub-folders, no two alike."""
    rng = random.Random(seed)
    for i in range(count):
        text = " ".join(sentence(rng) for _ in range(sentences))
        write(folder / f"part{i % 2}" / f"{i:03}.txt", f"{i} {text}\n")
    return folder


def find(folder: Path, model: Path, query: str = "the cat sees a ball", **options: Any) -> dict[str, Any]:
    return search(SearchOptions(dir=folder, query=query, model=str(model), device="cpu", **options))


def held(store: Store) -> dict[str, list[tuple[int, int, int, str, tuple[float, ...]]]]:
    """Path -> its passages, in order, with their vectors."""
    head = store.head()
    assert head is not None
    found: dict[str, list[Any]] = {path: [] for path in store.files()}
    for near in store.nearest(np.ones(head.size, np.float32), 1000):
        for path in near.files:
            passage = near.passage
            found[path].append((near.number, passage.first, passage.last, passage.text, tuple(near.vector)))
    return {path: sorted(passages) for path, passages in sorted(found.items())}


def held_by(file: Path) -> dict[str, list[tuple[int, int, int, str, tuple[float, ...]]]]:
    store = SqliteStore(file)
    try:
        return held(store)
    finally:
        store.close()


def add_unfinished(store: Store) -> np.ndarray:
    """Write the first passages of a content that has no file yet; a query that they are nearest to."""
    head = store.head()
    assert head is not None
    query = np.ones(head.size, np.float32)
    passages = [Passage(i, i, f"{i}") for i in range(1, 30)]
    store.write([Part("unfinished", 0, passages, np.stack([query] * len(passages)), None)])
    return query


def own_store(folder: Path) -> Path:
    return folder / DEFAULT


def wait_for(text: str, caplog: pytest.LogCaptureFixture, thread: threading.Thread) -> None:
    """Until the log says so; it never will if the thread ends first."""
    while text not in caplog.text:
        assert thread.is_alive(), caplog.text
        time.sleep(0.01)


def assert_equal_stores(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
    """Equal files and passages; of the vectors, what another order of a batch may change."""
    assert found.keys() == expected.keys()
    for path, passages in expected.items():
        assert [passage[:4] for passage in found[path]] == [passage[:4] for passage in passages], path
        for ours, theirs in zip(found[path], passages, strict=True):
            np.testing.assert_allclose(ours[4], theirs[4], rtol=0, atol=1e-6)
