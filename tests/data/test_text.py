"""Reading lines and documents: what is written comes back, and what is bad is named with file and line."""

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.data.text import (
    Document,
    read_documents,
    read_lines,
    read_rows,
)
from bertsmith.errors import InputError
from tests.data.text_files import COMPRESSIONS, one_line, quick, write, write_table

# Lines


@quick
@given(lines=st.lists(one_line), compression=st.sampled_from(COMPRESSIONS), ending=st.sampled_from(["\n", "\r\n"]))
def test_lines_come_back_as_written(tmp_path: Path, lines: list[str], compression: str, ending: str) -> None:
    if lines and lines[0].startswith("\ufeff"):
        lines[0] = "\ufeff" + lines[0]
    path = write(tmp_path / f"a.txt{compression}", "".join(line + ending for line in lines))
    if lines:
        lines[0] = lines[0].removeprefix("\ufeff")
    assert list(read_lines(path)) == list(enumerate(lines, start=1))


def test_only_newline_separates_lines(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\x0bd\x0ce\x85f\x1cg\rh"
    assert list(read_lines(write(tmp_path / "a.txt", f"{text}\n{text}"))) == [(1, text), (2, text)]


def test_a_byte_order_mark_is_dropped_at_the_start_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\ufeffa\n\ufeffb\n")
    assert list(read_lines(path)) == [(1, "a"), (2, "\ufeffb")]


@quick
@given(before=st.lists(one_line, max_size=4), start=one_line, compression=st.sampled_from(COMPRESSIONS))
def test_invalid_utf8_is_located(tmp_path: Path, before: list[str], start: str, compression: str) -> None:
    good = "".join(line + "\n" for line in before).encode()
    path = write(tmp_path / f"a.txt{compression}", good + start.encode() + b"\xe9 caf\n")
    lines = []
    with pytest.raises(InputError) as caught:
        lines.extend(read_lines(path))
    in_line = len(start.encode())
    assert caught.value.file == path
    assert caught.value.line == len(before) + 1
    assert f"invalid UTF-8: byte 0xe9 at offset {len(good) + in_line} of the " in caught.value.message
    assert f"({in_line} of the line); convert it" in caught.value.message
    assert "iconv -f latin1 -t utf-8" in caught.value.message


def test_good_lines_before_invalid_utf8_are_read(tmp_path: Path) -> None:
    lines = read_lines(write(tmp_path / "a.txt", b"good\nb\xffd\n"))
    assert next(lines) == (1, "good")
    with pytest.raises(InputError, match=r"byte 0xff at offset 6 of the file \(1 of the line\)"):
        next(lines)


def test_utf16_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"iconv -f utf-16"):
        list(read_lines(write(tmp_path / "a.txt", "text".encode("utf-16"))))


@pytest.mark.parametrize("content", [b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80", b"a\xe2\x82"])
def test_utf8_is_strict(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match=r"invalid UTF-8"):
        list(read_lines(write(tmp_path / "a.txt", content)))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_line_of_a_megabyte_is_read(tmp_path: Path, compression: str) -> None:
    text = "é" * 600_000
    path = write(tmp_path / f"a.txt{compression}", f"a\n{text}\nb")
    assert [line for _, line in read_lines(path)] == ["a", text, "b"]


@pytest.mark.parametrize("extension", [".txt", ".jsonl", ".csv", ".tsv"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, extension: str) -> None:
    rows = [{"text": f"{i} " + "word " * 20} for i in range(40_000)]
    path = tmp_path / f"data{extension}"
    if extension == ".txt":
        write(path, "\n\n".join(row["text"] for row in rows))
    else:
        write_table(path, rows)
    documents = read_documents([path])
    next(documents)
    del rows
    tracemalloc.start()
    try:
        assert sum(1 for _ in documents) == 39_999
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 4_000_000
    assert peak < 1_000_000


# Documents


@quick
@given(
    documents=st.lists(st.lists(one_line.map(str.strip).filter(bool), min_size=1, max_size=3), min_size=1, max_size=4),
    blank=st.sampled_from(["\n", " \n", "\t\r\n", "\u3000\n\n"]),
    extension=st.sampled_from([".txt", ".txt.gz", ".jsonl", ".csv", ".parquet"]),
)
def test_documents_come_back_from_every_format(
    tmp_path: Path, documents: list[list[str]], blank: str, extension: str
) -> None:
    path = tmp_path / f"data{extension}"
    if extension.startswith(".txt"):
        write(path, "\ufeff" + blank + blank.join("".join(f" {s}\t\n" for s in document) for document in documents))
    else:
        write_table(path, [{"sentence": "\n \n".join(document)} for document in documents])
    found = list(read_documents([path]))
    assert [list(document.sentences) for document in found] == documents
    assert all(document.file == path for document in found)


def test_a_document_starts_at_its_first_sentence_and_ends_with_the_file(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.txt", "\n\na\nb\n \nc"), write(tmp_path / "2.txt", "d")
    assert list(read_documents([one, two])) == [
        Document(one, 3, ("a", "b")),
        Document(one, 6, ("c",)),
        Document(two, 1, ("d",)),
    ]


def test_a_row_is_a_document_of_its_nonblank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"body": " a \\r\\n\\n b\\u2028c"}\n{"body": " "}\n{"body": "d"}\n')
    assert list(read_documents([path], columns="text=body")) == [
        Document(path, 1, ("a", "b\u2028c")),
        Document(path, 3, ("d",)),
    ]


def test_columns_go_with_text_files_if_another_file_has_columns(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.txt", "a"), write(tmp_path / "b.tsv", "1\tb")]
    assert [d.sentences for d in read_documents(files, columns="-,text")] == [("a",), ("b",)]
    with pytest.raises(InputError, match=r"--columns.*no columns"):
        read_documents(files[:1], columns="text")


def test_a_bad_row_of_a_document_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\n{"text": 1}\n')
    with pytest.raises(InputError, match=r'a\.jsonl:2: field "text": is a number'):
        list(read_documents([path]))


@pytest.mark.parametrize("extension", [".txt", ".tsv.gz"])
def test_pairs_are_documents_of_two(tmp_path: Path, extension: str) -> None:
    path = write(tmp_path / f"a{extension}", "a \t b\n\n \nc\td")
    assert list(read_documents([path], pairs=True)) == [
        Document(path, 1, ("a", "b")),
        Document(path, 4, ("c", "d")),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a b", "has no tab"),
        ("a\tb\tc", "has several tabs"),
        ("\tb", "has a blank side"),
        ("a\t ", "has a blank side"),
    ],
)
def test_a_line_that_is_no_pair_is_refused(tmp_path: Path, line: str, reason: str) -> None:
    path = write(tmp_path / "a.txt", f"a\tb\n\n{line}\n")
    with pytest.raises(InputError) as caught:
        list(read_documents([path], pairs=True))
    assert (caught.value.line, caught.value.message) == (3, f"{reason}; with --pairs each line is A<TAB>B")


def test_pairs_need_a_text_file_and_no_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"with --pairs a file is \.txt or \.tsv"):
        read_documents([write(tmp_path / "a.csv", "text\n")], pairs=True)
    with pytest.raises(InputError, match=r"--columns.*does not go with --pairs"):
        read_documents([write(tmp_path / "a.tsv", "a\tb\n")], pairs=True, columns="text")


@pytest.mark.parametrize("pairs", [False, True])
def test_a_file_without_text_is_refused(tmp_path: Path, pairs: bool) -> None:
    files = [write(tmp_path / "a.txt", "a\tb\n"), write(tmp_path / "b.txt", "\n \n")]
    with pytest.raises(InputError, match=r"b\.txt: holds no text"):
        list(read_documents(files, pairs=pairs))


def test_blank_rows_alone_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no text"):
        list(read_documents([write(tmp_path / "a.jsonl", '{"text": " \\n"}\n')]))


def test_all_files_are_checked_before_the_first_document(tmp_path: Path) -> None:
    good = write(tmp_path / "a.txt", "a")
    with pytest.raises(InputError, match=r"b\.txt: no such file"):
        read_documents([good, tmp_path / "b.txt"])


def test_long_documents_come_in_pieces_that_end_with_a_sentence_and_lose_nothing(tmp_path: Path) -> None:
    sentences = [f"sentence number {i}" for i in range(50)]
    text = "\n".join(sentences) + "\n\nshort\none\n"
    rows = "".join(json.dumps({"text": document}) + "\n" for document in text.strip().split("\n\n"))
    for path in (write(tmp_path / "a.txt", text), write(tmp_path / "a.jsonl", rows)):
        pieces = list(read_documents([path], longest=100))
        assert [piece.part for piece in pieces] == [*range(len(pieces) - 1), 0]
        assert sentences == [sentence for piece in pieces[:-1] for sentence in piece.sentences]
        for piece in pieces[:-2]:
            sizes = [len(sentence) for sentence in piece.sentences]
            assert sum(sizes[:-1]) < 100 <= sum(sizes)
        assert pieces[-1].sentences == ("short", "one")
        if path.suffix == ".txt":
            assert [sentences[piece.line - 1] for piece in pieces[:-1]] == [piece.sentences[0] for piece in pieces[:-1]]
        assert [piece.part for piece in read_documents([path])] == [0, 0]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.tsv"])
def test_lines_and_sentences_have_an_upper_bound_and_the_message_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    texts = ["one", "x" * 40, "x" * 41, "three"]
    lines = {"a.txt": texts, "a.jsonl": [json.dumps({"text": text}) for text in texts], "a.tsv": ["text", *texts]}[name]
    path, line = write(tmp_path / name, "\n".join(lines)), 3 + name.endswith("tsv")
    monkeypatch.setattr("bertsmith.data.text.MAX_SENTENCE", 40)
    with pytest.raises(InputError, match=rf"{name}:{line}: a sentence of 41 characters; at most 40"):
        list(read_documents([path]))
    monkeypatch.setattr("bertsmith.data.text.MAX_LINE_BYTES", 45)
    with pytest.raises(InputError, match=rf"{name}:{2 if name == 'a.jsonl' else line}: a "):
        list(read_documents([path]))
    monkeypatch.setattr("bertsmith.data.text.MAX_LINE_BYTES", 38)
    with pytest.raises(InputError, match=rf"{name}:{line - 1}: a line of more than"):
        list(read_rows(path, required=["text"]))
