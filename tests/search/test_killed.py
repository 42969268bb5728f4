"""kill -9 in mid-indexing: what was written stays, nothing is half there, the next start goes on and ends up equal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bertsmith.search.sqlite import SqliteStore
from tests.search.folders import assert_equal_stores, find, held_by, own_store, texts, write

GROUP = 4
"""Passages of a transaction here."""

# One process imports torch and forks a child for each moment to die at: a write or fsync of the database, by number.
# The counting file system below SQLite sees every one, journal included: commits are torn wherever they can be.
KILLING = """
import json, os, signal, sys
import apsw
from bertsmith.config.search import SearchOptions
from bertsmith.search import embedder, index, run
index.GROUP_PASSAGES = int(sys.argv[1])
calls, kill_at = 0, 0

def count():
    global calls
    calls += 1
    if calls == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

system = apsw.vfs_names()[0]

class File(apsw.VFSFile):
    def __init__(self, name, flags):
        super().__init__(system, name, flags)
    def xWrite(self, data, offset):
        count()
        super().xWrite(data, offset)
    def xSync(self, flags):
        count()
        super().xSync(flags)

class Vfs(apsw.VFS):
    def __init__(self):
        super().__init__("killing", system, makedefault=True)
    def xOpen(self, name, flags):
        return File(name, flags)

def index_until(folder, model, at):
    global kill_at, calls
    kill_at, calls, vfs = at, 0, Vfs()
    found = run.search(SearchOptions(dir=folder, query="a dog", model=model, device="cpu", threads=1))
    print(json.dumps({"calls": calls, **found["index"]}), flush=True)

for line in sys.stdin:
    folder, model, at = json.loads(line)
    child = os.fork()
    if not child:
        index_until(folder, model, at)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(json.dumps({"killed": os.WIFSIGNALED(status)}), flush=True)
"""


class Indexer:
    """Indexes folders, each in a process that may be killed on its way."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", KILLING, str(GROUP)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, folder: Path, model: Path, *, at: int = 0) -> dict[str, Any] | None:
        """What was done; None if it was killed at its `at`-th write or fsync."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(folder), str(model), at]) + "\n")
        self.process.stdin.flush()
        first: dict[str, Any] = json.loads(self.process.stdout.readline())
        if "killed" in first:
            assert first["killed"]
            return None
        assert not json.loads(self.process.stdout.readline())["killed"]
        return first


@pytest.fixture(scope="module")
def indexer() -> Any:
    made = Indexer()
    yield made
    assert made.process.stdin is not None
    assert made.process.stdout is not None
    made.process.stdin.close()
    made.process.stdout.close()
    assert made.process.wait(60) == 0


def make_folder(folder: Path) -> Path:
    """Small files, and one of several groups."""
    texts(folder, 10)
    write(
        folder / "part0/long.txt",
        "\n\n".join(f"{i} the cat sees a red ball near the river today again" for i in range(40)),
    )
    return folder


def counts(file: Path) -> tuple[int, int, set[str]]:
    """Passages and vectors of a store, of which each passage has one, and its files; none if there is no store yet."""
    store = SqliteStore(file)
    try:
        if store.head() is None:
            return 0, 0, set()
        connection = store._connect()
        ids = {number for (number,) in connection.execute("select id from passages")}
        vectors = {number for (number,) in connection.execute("select rowid from vectors")}
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert ids == vectors
        return len(ids), len(vectors), set(store.files())
    finally:
        store.close()


def assert_survives(indexer: Indexer, folder: Path, model: Path, expected: dict[str, Any], *, at: int) -> int:
    """Kill a start at `at`, look at what it left, let another finish it; returns what was left."""
    assert indexer.run(folder, model, at=at) is None
    left, _, _ = counts(own_store(folder))
    result = indexer.run(folder, model)
    assert result is not None
    assert result["embedded_passages"] == result["passages"] - left, "what was written is not embedded again"
    assert_equal_stores(held_by(own_store(folder)), expected)
    return left


def moments(indexer: Indexer, model: Path, tmp_path: Path, *, number: int) -> tuple[dict[str, Any], list[int]]:
    """What an undisturbed start leaves, and `number` moments of its life, evenly."""
    whole = make_folder(tmp_path / "whole")
    result = indexer.run(whole, model)
    assert result is not None
    assert result["passages"] > 6 * GROUP
    expected = held_by(own_store(whole))
    calls = result["calls"]
    assert calls > 50
    return expected, sorted({max(1, calls * i // number) for i in range(1, number)} | {1, calls})


@pytest.mark.slow
def test_killed_at_several_moments_of_its_life(indexer: Indexer, encoder_dir: Path, tmp_path: Path) -> None:
    expected, places = moments(indexer, encoder_dir, tmp_path, number=6)
    left = [assert_survives(indexer, make_folder(tmp_path / str(at)), encoder_dir, expected, at=at) for at in places]
    assert left[0] == 0
    assert 0 < left[3] < left[-1]
    assert all(count % GROUP == 0 for count in left[:-1])


@pytest.mark.slow
def test_killed_at_any_write_of_a_commit(indexer: Indexer, encoder_dir: Path, tmp_path: Path) -> None:
    expected, places = moments(indexer, encoder_dir, tmp_path, number=30)
    for at in places:
        assert_survives(indexer, make_folder(tmp_path / str(at)), encoder_dir, expected, at=at)


@pytest.mark.slow
def test_killed_again_and_again_it_still_arrives(indexer: Indexer, encoder_dir: Path, tmp_path: Path) -> None:
    expected, (_, _, calls) = moments(indexer, encoder_dir, tmp_path, number=2)
    folder, starts, last = make_folder(tmp_path / "folder"), 0, -1
    while indexer.run(folder, encoder_dir, at=calls // 3) is None:
        starts += 1
        left, _, _ = counts(own_store(folder))
        assert left > last, "each start gets further"
        last = left
    assert starts >= 2
    assert_equal_stores(held_by(own_store(folder)), expected)


@pytest.mark.parametrize("at", [5, 20])
def test_killed_while_files_change_hands(at: int, indexer: Indexer, encoder_dir: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder")
    find(folder, encoder_dir)
    (folder / "part1/001.txt").unlink()
    (folder / "part1/003.txt").rename(folder / "moved.txt")
    write(folder / "part0/002.txt", "a girl paints two stones\n", age=1_700_000_100)
    write(folder / "part0/long.txt", "a dog\n\n" * 3, age=1_700_000_100)
    assert indexer.run(folder, encoder_dir, at=at) is None
    counts(own_store(folder))
    find(folder, encoder_dir)
    found = held_by(own_store(folder))
    store = tmp_path / "fresh.sqlite3"
    find(folder, encoder_dir, store=str(store))
    assert_equal_stores(found, held_by(store))
