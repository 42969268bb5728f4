"""Crash-safe files: nothing half-written is ever taken for complete, and nothing old is lost too early."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bertsmith import files
from bertsmith.errors import InputError
from bertsmith.files import MANIFEST, _own_sum, new_directory, new_file, read_manifest, write_file, write_manifest


def complete(directory: Path) -> Path:
    directory.mkdir()
    (directory / "a.txt").write_text("hello")
    (directory / "sub").mkdir()
    (directory / "sub/b.bin").write_bytes(bytes(range(256)))
    write_manifest(directory, {}, kind="report")
    return directory


def test_a_manifest_lists_every_file_and_verifies(tmp_path: Path) -> None:
    manifest = read_manifest(complete(tmp_path / "d"), kind="report")
    assert set(manifest["files"]) == {"a.txt", "sub/b.bin"}


@pytest.mark.parametrize("bit", range(0, 8 * 256, 97))
def test_any_flipped_bit_is_noticed(tmp_path: Path, bit: int) -> None:
    directory = complete(tmp_path / "d")
    content = bytearray((directory / "sub/b.bin").read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    (directory / "sub/b.bin").write_bytes(content)
    with pytest.raises(InputError, match=r"b\.bin: its SHA-256 is not the manifest's"):
        read_manifest(directory)


def test_missing_truncated_and_foreign_directories_are_named(tmp_path: Path) -> None:
    directory = complete(tmp_path / "d")
    with pytest.raises(InputError, match="kind 'report'; 'model' is needed"):
        read_manifest(directory, kind="model")
    (directory / "a.txt").write_text("hell")
    with pytest.raises(InputError, match=r"a\.txt: 4 bytes, the manifest says 5"):
        read_manifest(directory)
    (directory / "a.txt").unlink()
    with pytest.raises(InputError, match=r"a\.txt: the manifest lists this file, but it is missing"):
        read_manifest(directory)
    (directory / MANIFEST).write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_manifest(directory)
    (directory / MANIFEST).unlink()
    with pytest.raises(InputError, match="its writing was cut off"):
        read_manifest(directory)
    with pytest.raises(InputError, match="no such directory"):
        read_manifest(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", files.VERSIONS)
def test_a_directory_of_another_version_is_refused(tmp_path: Path, kind: str) -> None:
    write_manifest(tmp_path, {}, kind=kind)
    assert read_manifest(tmp_path, kind=kind)["version"] == files.VERSIONS[kind]
    write_manifest(tmp_path, {"version": 99}, kind=kind)
    with pytest.raises(InputError, match=f"kind '{kind}' and version 99; this bertsmith reads version"):
        read_manifest(tmp_path, kind=kind)


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/hostname"])
def test_a_manifest_cannot_name_a_file_outside(tmp_path: Path, name: str) -> None:
    directory = complete(tmp_path / "d")
    (tmp_path / "outside.txt").write_text("x")
    content = json.loads((directory / MANIFEST).read_text())
    content["files"][name] = {"size": 1, "sha256": "0"}
    del content["sha256"]
    (directory / MANIFEST).write_text(json.dumps(content | {"sha256": _own_sum(content)}))
    with pytest.raises(InputError, match="outside the directory"):
        read_manifest(directory)


def test_an_error_of_the_system_names_the_file_that_was_being_written(tmp_path: Path) -> None:
    for error in (OSError(28, "No space left on device"), OSError("4096 requested and 100 written")):
        with (
            pytest.raises(OSError, match=r"(No space left|100 written).*target\.npy"),
            new_file(tmp_path / "target.npy"),
        ):
            raise error
    assert not list(tmp_path.iterdir())


def test_leftovers_of_a_killed_process_with_our_number_or_an_odd_name_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "a[1]*"
    (tmp_path / f".a[1]*.tmp-{os.getpid()}").mkdir()
    with new_directory(out, overwrite=False) as directory:
        (directory / "x").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["a[1]*"]
    (tmp_path / f".b.txt.tmp-{os.getpid()}").write_text("half")
    write_file(tmp_path / "b.txt", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a[1]*", "b.txt"]


@pytest.mark.parametrize("place", ["sha256", "version", "files"])
def test_a_manifest_that_was_changed_is_refused(tmp_path: Path, place: str) -> None:
    directory = complete(tmp_path / "d")
    content = json.loads((directory / MANIFEST).read_text()) | {place: 99 if place != "files" else {}}
    (directory / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(InputError, match="its SHA-256 is not the one it carries"):
        read_manifest(directory)


def test_a_failure_leaves_the_old_directory_and_no_temporary(tmp_path: Path) -> None:
    out = complete(tmp_path / "out")

    def fail_half_way() -> None:
        with new_directory(out, overwrite=True) as temporary:
            (temporary / "half.txt").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert set(read_manifest(out)["files"]) == {"a.txt", "sub/b.bin"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_names_the_file_as_it_would_have_been_called(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        pytest.raises(OSError, match="No space left") as full,
        new_directory(out, overwrite=False) as temporary,
        new_file(temporary / "a.bin"),
    ):
        raise OSError(28, "No space left on device")
    assert full.value.filename == str(out / "a.bin")
    with pytest.raises(FileNotFoundError) as missing, new_directory(out, overwrite=False):
        (tmp_path / "elsewhere").read_text()
    assert missing.value.filename == str(tmp_path / "elsewhere")


def test_overwriting_replaces_everything_at_once(tmp_path: Path) -> None:
    out = complete(tmp_path / "out")
    with new_directory(out, overwrite=True) as temporary:
        assert (out / "a.txt").exists()
        (temporary / "new.txt").write_text("new")
    assert [path.name for path in out.iterdir()] == ["new.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_temporaries_of_dead_processes_are_removed_and_of_living_ones_kept(tmp_path: Path) -> None:
    (tmp_path / ".out.tmp-99999999").mkdir()
    (tmp_path / ".out.tmp-1").mkdir()
    with new_directory(tmp_path / "out", overwrite=False):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.tmp-1", "out"]


def test_a_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is not a directory"), new_directory(tmp_path / "file/out", overwrite=False):
        pass


def test_write_file_replaces_and_leaves_no_temporary(tmp_path: Path) -> None:
    write_file(tmp_path / "x", "one")
    write_file(tmp_path / "x", b"two")
    assert (tmp_path / "x").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
