"""What `bertsmith search` cannot do is said in one line, and nothing is made or changed."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from bertsmith.interop.sentence_transformers import write_sentence_modules
from bertsmith.models.sentence import SentenceModules
from bertsmith.search.run import DEFAULT
from bertsmith.search.store import Head
from tests.cli.run import Outcome, assert_refused, bertsmith
from tests.search.folders import find, held_by, own_store, texts, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return texts(tmp_path / "texts", 4)


@pytest.fixture(scope="module")
def other_model(encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another pooling is another model."""
    out = tmp_path_factory.mktemp("other") / "other"
    shutil.copytree(encoder_dir, out)
    (out / "bertsmith.json").unlink()
    write_sentence_modules(out, SentenceModules(pooling=("cls",)), hidden_size=32)
    return out


def search(capsys: pytest.CaptureFixture[str], folder: Path, *words: object, query: str = "a dog") -> Outcome:
    return bertsmith(capsys, "search", folder, query, *words)


def test_a_folder_that_is_none(capsys, folder: Path, encoder_dir: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "a dog")
    assert_refused(search(capsys, file, "--model", encoder_dir), r"a\.txt: is a file; give the folder")
    outcome = search(capsys, tmp_path / "text", "--model", encoder_dir)
    assert_refused(outcome, r'text: no such folder; did you mean "texts"')


def test_a_folder_without_files_or_without_text(capsys, encoder_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "empty/sub").mkdir(parents=True)
    assert_refused(search(capsys, tmp_path / "empty", "--model", encoder_dir), r"empty: holds no files to search; give")
    write(tmp_path / "empty/.hidden", "a dog")
    assert_refused(search(capsys, tmp_path / "empty", "--model", encoder_dir), r"no files to search, only 1 hidden")
    assert not (tmp_path / "empty/.bertsmith").exists()
    write(tmp_path / "binary/a.bin", b"\0")
    for _ in range(2):
        outcome = search(capsys, tmp_path / "binary", "--model", encoder_dir)
        assert_refused(outcome, r"binary: none of its 1 files can be searched: a\.bin \(line 1: a binary file")


def test_an_empty_query_or_one_that_is_too_long_or_no_text(capsys, folder: Path, encoder_dir: Path) -> None:
    for query in ("", " \n"):
        outcome = search(capsys, folder, "--model", encoder_dir, query=query)
        assert_refused(outcome, r'field "QUERY": is empty; say what to look for')
    outcome = search(capsys, folder, "--model", encoder_dir, query="a \udce9")
    assert_refused(outcome, r'field "QUERY": .*surrogate')
    for is_quick in (False, True):
        outcome = search(capsys, folder, "--model", encoder_dir, query="the cat " * 40)
        assert_refused(outcome, r'field "QUERY": 82 tokens, the limit is 64; shorten it')
        assert (folder / ".bertsmith").exists() == is_quick
        find(folder, encoder_dir)


def test_bad_numbers_and_addresses(capsys, folder: Path, encoder_dir: Path) -> None:
    for flag, value in (("--top-k", 0), ("--top-k", 1001), ("--candidates", 0), ("--batch-tokens", 0)):
        outcome = search(capsys, folder, "--model", encoder_dir, flag, value)
        assert_refused(outcome, rf'field "{flag}": input should be .*, not {value}')
    outcome = search(capsys, folder, "--model", encoder_dir, "--store", "mysql://host/db")
    assert_refused(outcome, r'field "--store": expected a file, or an address that begins with postgresql://')
    assert_refused(search(capsys, folder), r"--model")


def test_a_model_that_is_not_there_or_no_model(capsys, folder: Path, tmp_path: Path) -> None:
    assert_refused(search(capsys, folder, "--model", tmp_path / "nothing"), r"nothing: no such model directory")
    assert_refused(search(capsys, folder, "--model", folder), r"no config\.json in it")
    assert not (folder / ".bertsmith").exists()


def test_a_store_of_another_model_is_refused_naming_both_and_rebuilt_if_asked(
    capsys, folder: Path, encoder_dir: Path, other_model: Path
) -> None:
    find(folder, encoder_dir)
    before = held_by(own_store(folder))
    outcome = search(capsys, folder, "--model", other_model)
    shown = (
        rf"the store was made by {encoder_dir.resolve()} \(fingerprint \w{{12}}\), --model is {other_model.resolve()}"
    )
    assert_refused(outcome, shown + r" \(\w{12}\); give that model, --overwrite to embed again, or another --store")
    assert held_by(own_store(folder)) == before
    assert search(capsys, folder, "--model", other_model, "--overwrite").code == 0
    assert held_by(own_store(folder)) != before
    assert_refused(search(capsys, folder, "--model", encoder_dir), "the store was made by")


def test_a_model_whose_weights_changed_in_place_is_another(
    capsys, folder: Path, encoder_dir: Path, other_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(encoder_dir, model)
    find(folder, model)
    shutil.rmtree(model)
    shutil.copytree(other_model, model)
    assert_refused(search(capsys, folder, "--model", model), rf"made by {model} .*--model is {model} ")


def test_a_store_of_another_folder(capsys, folder: Path, encoder_dir: Path, tmp_path: Path) -> None:
    store = tmp_path / "vectors.db"
    find(folder, encoder_dir, store=str(store))
    other = texts(tmp_path / "other", 2)
    outcome = search(capsys, other, "--model", encoder_dir, "--store", store)
    assert_refused(outcome, rf"vectors\.db: the store is of the folder {folder.resolve()}; name another place")
    assert search(capsys, other, "--model", encoder_dir, "--store", store, "--overwrite").code == 0


def test_files_that_are_no_store_are_left_alone(capsys, folder: Path, encoder_dir: Path, tmp_path: Path) -> None:
    text = write(tmp_path / "notes.txt", "mine " * 1000)
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("create table mine (value)")
    connection.close()
    for file, reason in ((text, "no store; delete it, or name another"), (foreign, "database of something else")):
        before = file.read_bytes()
        for words in ((), ("--overwrite",)):
            outcome = search(capsys, folder, "--model", encoder_dir, "--store", file, *words)
            assert_refused(outcome, rf"{file.name}: .*{reason}")
        assert file.read_bytes() == before
    outcome = search(capsys, folder, "--model", encoder_dir, "--store", tmp_path)
    assert_refused(outcome, r'field "--store": is a directory; name a file in it')
    outcome = search(capsys, folder, "--model", encoder_dir, "--store", text / "below")
    assert_refused(outcome, r"below: .*cannot be .*; name another place with --store")


@pytest.mark.parametrize("damage", ["cut", "zeros", "noise"])
def test_a_damaged_store_is_one_line_and_overwrite_builds_it_again(
    capsys, damage: str, folder: Path, encoder_dir: Path
) -> None:
    find(folder, encoder_dir)
    file = own_store(folder)
    expected, content = held_by(file), file.read_bytes()
    middle = {"cut": b"", "zeros": b"\0" * (len(content) - 4096), "noise": b"\xa5" * (len(content) - 4096)}[damage]
    file.write_bytes(content[:4096] + middle)
    assert_refused(
        search(capsys, folder, "--model", encoder_dir), r"search\.sqlite3: the store is damaged.*--overwrite"
    )
    assert search(capsys, folder, "--model", encoder_dir, "--overwrite").code == 0
    assert held_by(file) == expected


def test_a_store_whose_head_is_damaged_must_be_deleted_by_hand(capsys, folder: Path, encoder_dir: Path) -> None:
    find(folder, encoder_dir)
    file = own_store(folder)
    content = bytearray(file.read_bytes())
    content[:8] = b"\xff" * 8
    file.write_bytes(content)
    for words in ((), ("--overwrite",)):
        assert_refused(search(capsys, folder, "--model", encoder_dir, *words), r"damaged, or no store.*delete it")


def test_a_store_of_another_version(capsys, folder: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find(folder, encoder_dir)
    newer = Head.to_json
    with monkeypatch.context() as patch:
        patch.setattr(Head, "to_json", lambda head: newer(head).replace('"version": 1', '"version": 2'))
        find(folder, encoder_dir, overwrite=True)
    assert_refused(
        search(capsys, folder, "--model", encoder_dir), r"is of version 2, this bertsmith reads 1; --overwrite"
    )


def test_an_extra_that_is_missing_is_named(
    capsys, folder: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, words in {
        "apsw": (),
        "sqlite_vec": (),
        "psycopg": ("--store", "postgresql://host/db"),
        "pgvector.psycopg": ("--store", "postgresql://host/db"),
    }.items():
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            outcome = search(capsys, folder, "--model", encoder_dir, *words)
        assert_refused(outcome, rf'needs {module}: pip install "bertsmith\[search\]"')


def test_the_default_place_is_named_where_it_cannot_be_made(capsys, folder: Path, encoder_dir: Path) -> None:
    write(folder / DEFAULT.parent, "a file in the way")
    outcome = search(capsys, folder, "--model", encoder_dir)
    assert_refused(outcome, r"\.bertsmith/search\.sqlite3: .*cannot be .*; name another place with --store")
