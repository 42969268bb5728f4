"""Passages: every word of a text is in one, none is longer than the model reads, lines are where the text stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertsmith.errors import InputError
from bertsmith.search import passages
from bertsmith.search.passages import Passage, Ruler, read_passages
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.tokenizer.text_tokenizer import TextTokenizer
from tests.search.folders import write


def ruler_of(tokenizer: TextTokenizer, room: int) -> Ruler:
    def tokens(text: str) -> list[tuple[int, bool]]:
        encoding = tokenizer.encode(text)
        words = encoding.word_ids
        return [(start, words[i] != words[i - 1]) for i, (start, _) in enumerate(encoding.offsets)][1:-1]

    return Ruler(room, lambda text: len(tokenizer.encode_ids([text])[0]), tokens)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir: Path) -> TextTokenizer:
    return load_tokenizer(tokenizer_dir)


def read(file: Path, room: int = 12) -> list[Passage]:
    """With words for tokens."""
    words = Ruler(room, lambda text: len(text.split()), lambda text: [(m.start(), True) for m in WORD.finditer(text)])
    return list(read_passages(file, words))


WORD = re.compile(r"\S+")
LINES = st.text(st.sampled_from("abc.  \té人🐟"), max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(lines=st.lists(LINES, min_size=1, max_size=12), room=st.integers(3, 30))
def test_passages_hold_every_character_but_blanks_and_fit(
    lines: list[str], room: int, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    file, ruler = write(tmp_path / "a.md", "\n".join(lines)), ruler_of(tokenizer, room)
    if not "".join(lines).strip():
        with pytest.raises(InputError, match="holds no text"):
            list(read_passages(file, ruler))
        return
    found = list(read_passages(file, ruler))
    assert "".join("".join(passage.text.split()) for passage in found) == "".join("".join(lines).split())
    assert all(ruler.count(passage.text) <= room for passage in found)
    for passage in found:
        words = "".join("".join(lines[passage.first - 1 : passage.last]).split())
        assert "".join(passage.text.split()) in words
        assert lines[passage.first - 1].strip()
        assert lines[passage.last - 1].strip()


def test_paragraphs_go_together_as_long_as_they_fit(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "the cat\nsees\n\na dog\n\n\nthe old man eats some bread.\n")
    assert read(file, 6) == [
        Passage(1, 4, "the cat\nsees\n\na dog"),
        Passage(7, 7, "the old man eats some bread."),
    ]
    assert read(file, 50) == [Passage(1, 7, "the cat\nsees\n\na dog\n\nthe old man eats some bread.")]


def test_a_long_paragraph_is_cut_between_lines_and_a_long_line_between_words(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "the cat sees\na dog\nthe bird eats some bread today\n")
    assert read(file, 5) == [
        Passage(1, 2, "the cat sees\na dog"),
        Passage(3, 3, "the bird eats some bread "),
        Passage(3, 3, "today"),
    ]


def test_a_word_longer_than_a_passage_is_cut_between_tokens(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    word = "e" * 60
    found = list(read_passages(write(tmp_path / "a.txt", word), ruler_of(tokenizer, 8)))
    assert len(found) > 2
    assert "".join(passage.text for passage in found) == word


def test_a_line_of_many_blocks_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages, "BLOCK", 50)
    line = "the cat sees a red ball " * 40 + "x" * 70
    found = read(write(tmp_path / "a.txt", line), 8)
    assert "".join(passage.text for passage in found) == line
    assert {(passage.first, passage.last) for passage in found} == {(1, 1)}


def test_the_tokenizer_is_given_a_block_of_a_long_line_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.txt", "the cat sees a red ball " * 40)
    given: list[int] = []

    def count(text: str) -> int:
        given.append(len(text))
        return len(text.split())

    def tokens(text: str) -> list[tuple[int, bool]]:
        given.append(len(text))
        return [(m.start(), True) for m in WORD.finditer(text)]

    whole = "".join(passage.text for passage in read_passages(file, Ruler(8, count, tokens)))
    assert max(given) == len(whole) == 960
    given.clear()
    monkeypatch.setattr(passages, "BLOCK", 100)
    assert "".join(passage.text for passage in read_passages(file, Ruler(8, count, tokens))) == whole
    assert max(given) <= 100


def test_a_paragraph_of_very_many_lines_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages, "MOST_LINES", 3)
    found = read(write(tmp_path / "a.txt", "a dog\n" * 10), 4)
    assert [(passage.first, passage.last) for passage in found] == [
        (1, 2),
        (3, 3),
        (4, 5),
        (6, 6),
        (7, 8),
        (9, 9),
        (10, 10),
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_each_row_of_a_table_is_a_text_of_its_own(suffix: str, tmp_path: Path) -> None:
    rows, file = ["a dog", "the cat sees a red ball today"], tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"text": rows}), file)
    elif suffix == ".jsonl":
        write(file, "".join(json.dumps({"text": row}) + "\n" for row in rows))
    else:
        write(file, "text\n" + "".join(f"{row}\n" for row in rows))
    first = 1 if suffix in (".parquet", ".jsonl") else 2
    found = read(file, 5)
    assert found[0] == Passage(first, first, "a dog")
    assert "".join(passage.text for passage in found[1:]) == rows[1]
    assert {(passage.first, passage.last) for passage in found[1:]} == {(first + 1, first + 1)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bin", b"a\0b", "zero byte"),
        ("a.bin", b"\xff\xfe\x80", "invalid UTF-8"),
        ("a.txt", b"", "holds no text"),
        ("a.txt", b" \n\t\n", "holds no text"),
        ("a.txt.gz", b"not an archive", "archive is damaged"),
        (
            "a.csv",
            b"title\nx\n",
            'a.csv:1: no column "text" or "sentence"; the columns are: "title"; rename the col.* text$',
        ),
        ("a.jsonl", b'{"title": "x"}\n', 'a.jsonl:1: .*"title"; rename the column to be searched to text$'),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\\u0000"}\n', "zero byte"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "surrogate"),
    ],
)
def test_what_is_no_text_says_why(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / name, content))
