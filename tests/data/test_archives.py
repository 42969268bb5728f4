"""Files before they are read: which are refused, and what a compressed one gives or says when it is damaged."""

from pathlib import Path

import pytest

from bertsmith.data.text import (
    check_files,
    open_binary,
    read_lines,
)
from bertsmith.errors import InputError, InputErrors
from tests.data.text_files import COMPRESSIONS, write


@pytest.mark.parametrize("extension", [".txt", ".jsonl", ".csv", ".tsv"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_supported_extension_passes(tmp_path: Path, extension: str, compression: str) -> None:
    check_files([write(tmp_path / f"a{extension}{compression}", "x\n")])
    with pytest.raises(InputError):
        check_files([write(tmp_path / f"a.doc{compression}", "x\n")])


def test_an_extension_in_capitals_passes(tmp_path: Path) -> None:
    check_files([write(tmp_path / "A.TXT", "x"), write(tmp_path / "A.PARQUET", "x")])
    with pytest.raises(InputError):
        check_files([write(tmp_path / "A.DOC", "x")])


def test_a_missing_file_is_named_with_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", "x")
    with pytest.raises(InputError, match=r'trian\.tsv: no such file; did you mean "train\.tsv"\?'):
        check_files([tmp_path / "trian.tsv"])


@pytest.mark.parametrize("name", ["no/such/folder.txt", "plain.txt/below.txt"])
def test_a_missing_folder_gives_no_suggestion(tmp_path: Path, name: str) -> None:
    write(tmp_path / "plain.txt", "x")
    with pytest.raises(InputError, match=r"no such file$"):
        check_files([tmp_path / name])


@pytest.mark.parametrize("name", ["a" * 300 + ".txt", "nul\0.txt"])
def test_an_impossible_name_is_an_input_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"cannot be opened: "):
        check_files([tmp_path / name])
    with pytest.raises(InputError, match=r"cannot be opened: "):
        open_binary(tmp_path / name)


def test_a_directory_is_refused_with_a_pattern_to_give(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a directory; give files, for example .*/\*\.txt"):
        check_files([tmp_path])
    with pytest.raises(InputError, match=r"cannot be opened: Is a directory"):
        open_binary(tmp_path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.txt: is empty"):
        check_files([write(tmp_path / "a.txt", "")])


def test_a_device_is_refused() -> None:
    with pytest.raises(InputError, match=r"not a regular file"):
        check_files([Path("/dev/null")])


@pytest.mark.parametrize("name", ["a.doc", "a", "a.bz2", "a.txt.bz2", "a.gz", ".txt"])
def test_another_extension_is_refused_with_the_supported_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"not supported; expected \.txt, \.jsonl, .*\.zst"):
        check_files([write(tmp_path / name, "x")])


def test_parquet_inside_gzip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"compressed inside; unpack the \.gz"):
        check_files([write(tmp_path / "a.parquet.gz", "x")])


def test_all_bad_files_are_reported_at_once(tmp_path: Path) -> None:
    good = write(tmp_path / "a.txt", "x")
    with pytest.raises(InputErrors) as caught:
        check_files([good, tmp_path, *(tmp_path / f"{i}.txt" for i in range(30))])
    assert caught.value.total == 31
    assert len(caught.value.lines()) == 21


def test_no_files_are_refused() -> None:
    with pytest.raises(InputError, match=r"no files"):
        check_files([])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_all_members_of_a_joined_archive_are_read(tmp_path: Path, compression: str) -> None:
    one, two = write(tmp_path / f"1.txt{compression}", "a\n"), write(tmp_path / f"2.txt{compression}", "b\n")
    both = tmp_path / f"both.txt{compression}"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    with open_binary(both) as stream:
        assert stream.read() == b"a\nb\n"


@pytest.mark.parametrize("compression", [".gz", ".xz"])
def test_zero_padding_of_an_archive_is_no_damage(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / f"a.txt{compression}", "a\n")
    path.write_bytes(path.read_bytes() + bytes(8) + path.read_bytes() + bytes(1 << 19))
    assert list(read_lines(path)) == [(1, "a"), (2, "a")]


@pytest.mark.parametrize("compression", COMPRESSIONS[1:])
@pytest.mark.parametrize("damage", ["cut", "cut to the first byte", "foreign", "tail"])
def test_a_damaged_archive_is_an_input_error(tmp_path: Path, compression: str, damage: str) -> None:
    text = "".join(f"{i * 7919 % 1000003}\n" for i in range(100_000))
    path = write(tmp_path / f"a.txt{compression}", text)
    data = path.read_bytes()
    damaged = {
        "cut": data[:-3],
        "cut to the first byte": data[:1],
        "foreign": text.encode(),
        "tail": data + b"something else",
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(InputError, match=r"damaged or truncated") as caught:
        list(read_lines(path))
    assert caught.value.file == path


@pytest.mark.parametrize("compression", [".gz", ".xz"])
def test_one_flipped_byte_of_an_archive_is_found(tmp_path: Path, compression: str) -> None:
    text = "".join(f"{i * 7919 % 1000003}\n" for i in range(10_000))
    path = write(tmp_path / f"a.txt{compression}", text)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"damaged"):
        list(read_lines(path))
