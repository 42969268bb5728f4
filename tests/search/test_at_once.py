"""Two searches of one folder at the same time: each sees what the other committed, none undoes or breaks the other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertsmith.config.search import SearchOptions
from bertsmith.errors import InputError
from bertsmith.search import sqlite
from bertsmith.search.folder import list_folder
from bertsmith.search.index import update
from bertsmith.search.model import SearchModel
from bertsmith.search.sqlite import SqliteStore
from tests.search.folders import HOUR_AGO, add_unfinished, find, own_store, texts, wait_for, write


def work(result: dict[str, Any]) -> tuple[int, int]:
    return result["index"]["embedded"], result["index"]["removed"]


@contextmanager
def while_another_waits(
    folder: Path, encoder_dir: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[tuple[SqliteStore, list[dict[str, Any]]]]:
    """The folder's store, which this process writes while a second one waits to search; and what that one answers
    once it may."""
    store = SqliteStore(own_store(folder))
    results: list[dict[str, Any]] = []
    second = threading.Thread(target=lambda: results.append(find(folder, encoder_dir)))
    with closing(store), store.writing(), caplog.at_level("INFO", logger="bertsmith"):
        second.start()
        wait_for("another process is writing", caplog, second)
        yield store, results
    second.join(60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return texts(tmp_path / "texts", 24)


def test_a_second_process_waits_for_the_first_and_then_has_nothing_to_do(
    folder: Path, encoder_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("bertsmith"), "propagate", True)
    find(folder, encoder_dir)
    write(folder / "new.txt", "a girl", age=HOUR_AGO + 5)
    with while_another_waits(folder, encoder_dir, caplog) as (store, results):
        assert store.passages() == 24
    assert work(results[0]) == (1, 0)


def test_a_second_process_sees_the_store_that_the_first_put_in_the_place_of_an_older_one(
    folder: Path, encoder_dir: Path
) -> None:
    find(folder, encoder_dir)
    write(folder / "new.txt", "a girl", age=HOUR_AGO + 5)
    first, second = (SqliteStore(own_store(folder)) for _ in range(2))
    assert second.head() is not None  # it holds the old file open
    with first.writing():
        head = first.head()
        assert head is not None
        first.create(head)
    with second.writing():
        assert second.files() == {}
    first.close()
    second.close()


def test_who_waited_does_not_remove_what_the_other_one_added_meanwhile(
    folder: Path, encoder_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("bertsmith"), "propagate", True)
    find(folder, encoder_dir)
    write(folder / "one.txt", "a girl", age=HOUR_AGO + 5)
    model = SearchModel(SearchOptions(dir=folder, query="a girl", model=str(encoder_dir), device="cpu"))
    with while_another_waits(folder, encoder_dir, caplog) as (store, results):
        write(folder / "two.txt", "a boy", age=HOUR_AGO + 6)
        assert update(store, folder, list_folder(folder, without=store.own_files), model=model).embedded == 2
    assert work(results[0]) == (0, 0)
    assert results[0]["index"]["files"] == 26
    assert work(find(folder, encoder_dir)) == (0, 0)


def test_a_search_does_not_see_half_of_what_another_one_removes(
    folder: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find(folder, encoder_dir)
    monkeypatch.setattr(sqlite, "BUSY_MILLISECONDS", 0)
    rows = SqliteStore._rows

    def interrupted(store: SqliteStore, sql: str, values: Any = ()) -> list[Any]:
        found = rows(store, sql, values)
        if "embedding match" in sql:
            with closing(SqliteStore(own_store(folder))) as other, suppress(InputError):  # busy: it has to wait
                other.remove(list(other.files())[:12])
                other.sweep()
        return found

    with closing(SqliteStore(own_store(folder))) as store:
        with monkeypatch.context() as patched:
            patched.setattr(SqliteStore, "_rows", interrupted)
            assert len(store.nearest(np.ones(32, np.float32), 24)) == 24
        store.remove(["part0/000.txt"])  # nothing is left open
        assert len(store.files()) == 23


def test_passages_of_a_file_that_another_one_is_still_reading_are_no_answers(folder: Path, encoder_dir: Path) -> None:
    find(folder, encoder_dir)
    with closing(SqliteStore(own_store(folder))) as store:
        query = add_unfinished(store)
        found = store.nearest(query, 10)
        assert len(found) == 10
        assert all(near.files for near in found)
        assert len(store.nearest(query, 1000)) == 24
