from __future__ import annotations

from pathlib import Path

import pytest

from bertsmith.data.tagged import read_tagged
from bertsmith.errors import InputError

CONLLU_ROW = "1\ta\ta\tDET\t_\t_\t0\troot\t_\t_\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_conll_with_tabs_spaces_and_document_marks(tmp_path: Path) -> None:
    tabs = write(tmp_path / "a.conll", "-DOCSTART- -X- O\n\nNew York\tB-LOC\n#\tO\n\n\nHi\tO")
    first, second = read_tagged(tabs)
    assert (first.words, first.tags, first.lines) == (("New York", "#"), ("B-LOC", "O"), (3, 4))
    assert (second.words, second.line) == (("Hi",), 7)
    spaces = write(tmp_path / "b.conll", "EU NNP I-NP B-ORG\nrejects VBZ I-VP O\n")
    assert read_tagged(spaces)[0].tags == ("B-ORG", "O")
    assert read_tagged(spaces, columns="tokens,tags,-,-")[0].tags == ("NNP", "VBZ")


def test_conllu_skips_ranges_and_empty_nodes(tmp_path: Path) -> None:
    lines = [
        "# text = don't",
        "1-2\tdon't" + "\t_" * 8,
        "1\tdo\tdo\tAUX\tVB" + "\t_" * 5,
        "2\tn't\tnot\tPART\tRB" + "\t_" * 5,
    ]
    lines += ["2.1\tgone" + "\t_" * 8, "", "# next", "1\t5\t5\tNUM\tCD" + "\t_" * 5]
    file = write(tmp_path / "a.conllu", "\n".join(lines) + "\n")
    assert [(row.words, row.tags) for row in read_tagged(file)] == [
        (("do", "n't"), ("AUX", "PART")),
        (("5",), ("NUM",)),
    ]
    assert read_tagged(file, columns="tags=xpos")[0].tags == ("VB", "RB")


def test_json_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '{"tokens": ["a", 5], "tags": ["O", 1]}\n')
    assert read_tagged(file)[0].words == ("a", "5")
    assert read_tagged(file)[0].tags == ("O", "1")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}\n', r'a\.jsonl:1: field "tags": has 1 tags for 2 tokens'),
        ("a.jsonl", '{"tokens": "a b", "tags": ["O"]}\n', r'a\.jsonl:1: field "tokens": is a text; a list is needed'),
        ("a.jsonl", '{"tokens": [], "tags": []}\n', r'field "tokens": is empty'),
        ("a.conll", "word\n", r"a\.conll:1: has the word 'word' and no tag"),
        ("a.conll", "a\tO\nb\t \n", r'a\.conll:2: field "tags": is empty'),
        ("a.conllu", "1\ta\tb\n", r"a\.conllu:1: has 3 column\(s\); 10 are needed"),
        ("a.conllu", CONLLU_ROW.replace("1\t", "x1\t", 1), r'a\.conllu:1: field "id": \'x1\' is no id'),
        ("a.conll", "\n\n", r"a\.conll: has no words"),
        ("a.tsv", "a\tO\n", r'the extension "\.tsv" is not supported'),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_tagged(write(tmp_path / name, text))


def test_columns_must_be_known(tmp_path: Path) -> None:
    file = write(tmp_path / "a.conll", "a O\n")
    with pytest.raises(InputError, match="tokens,-,-,tags"):
        read_tagged(file, columns="word,tag")
    with pytest.raises(InputError, match="has 2 column"):
        read_tagged(file, columns="tokens,-,tags")


def test_rows_of_words_have_as_many_columns_as_the_first(tmp_path: Path) -> None:
    short = write(tmp_path / "a.conll", "EU NNP I-NP B-ORG\ncall NN I-NP\n")
    with pytest.raises(InputError, match=r"a\.conll:2: has 3 column\(s\), line 1 has 4"):
        read_tagged(short)
    assert read_tagged(short, labelled=False)[0].words == ("EU", "call")
    with pytest.raises(InputError, match=r"a\.conll:2: has 3 column"):
        read_tagged(short, columns="tokens,-,-,tags")
    with pytest.raises(InputError, match=r"a\.conll:1: looks like CoNLL-U; call the file \.conllu"):
        read_tagged(write(tmp_path / "a.conll", CONLLU_ROW))
    with pytest.raises(InputError, match="the last column holds the tag"):
        read_tagged(write(tmp_path / "a.conll", "is\tO\t\n"))


def test_only_spaces_and_tabs_part_columns(tmp_path: Path) -> None:
    file = write(tmp_path / "a.conll", "10\u00a0000  O \nx\u3000y B-X\n")
    (row,) = read_tagged(file)
    assert (row.words, row.tags) == (("10\u00a0000", "x\u3000y"), ("O", "B-X"))
