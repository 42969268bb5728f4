from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertsmith.data.examples import LabelFormat, read_examples
from bertsmith.errors import InputError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_labels_are_texts_lists_or_numbers(tmp_path: Path) -> None:
    one = write(
        tmp_path / "a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": 1.5}\n{"text": "c", "label": "负"}\n'
    )
    assert [row.label for row in read_examples(one)] == ["1", "1.5", "负"]
    many = write(tmp_path / "b.jsonl", '{"text": "a", "labels": ["x", "y z"]}\n{"text": "b", "labels": []}\n')
    assert [row.label for row in read_examples(many)] == [("x", "y z"), ()]
    score = write(tmp_path / "c.csv", "text_a,text_b,score\na,b,4.5\n")
    assert read_examples(score)[0].label == 4.5
    mapped = write(tmp_path / "d.csv", "a,b,c\n")
    assert read_examples(write(tmp_path / "e.csv", "x,y,0.5\n"), columns="text_a,text_b,score")[0].label == 0.5
    assert read_examples(mapped, columns="text_a,text_b,label")[0].label == "c"


def test_a_first_text_of_a_pair_may_be_mapped_to_a_text(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", "label\ttext_a\n1\tfine\n")
    (row,) = read_examples(file, columns="text=text_a,label=label")
    assert (row.text, row.pair, row.label) == ("fine", None, "1")
    with pytest.raises(InputError, match="text_b"):
        read_examples(file)


def test_labels_of_a_cell_are_parted(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", "text\tlabel\na\tx, y\nb\t\n")
    rows = read_examples(file, labels=LabelFormat(separator=","))
    assert [row.label for row in rows] == [("x", "y"), ()]


@pytest.mark.parametrize("value", ["nan", "inf", "good", ""])
def test_a_score_that_is_no_number_is_named(tmp_path: Path, value: str) -> None:
    file = write(tmp_path / "a.tsv", f"text\tscore\na\t1\nb\t{value}\n")
    with pytest.raises(InputError, match=r'a\.tsv:3: field "score": .*not a finite number'):
        read_examples(file)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"text": "a", "label": "x"}\n{"text": "b", "label": ["x"]}\n', r"a\.jsonl:2.*has a list"),
        ('{"text": "a", "label": ["x", "x"]}\n', "same label twice"),
        ('{"text": "a", "label": {"x": 1}}\n', "is an object"),
        ('{"text": "a", "label": " "}\n', "is empty"),
    ],
)
def test_labels_that_make_no_sense(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_examples(write(tmp_path / "a.jsonl", lines))


def test_a_missing_pair_column(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", "text_a\tlabel\na\tx\n")
    with pytest.raises(InputError, match='field "text_b"'):
        read_examples(file)


def test_what_single_rows_lack_is_said_of_them_alone(tmp_path: Path) -> None:
    good = '{"text": "a", "score": 1}\n{"text": "b", "score": 2}\n'
    with pytest.raises(InputError) as caught:
        read_examples(write(tmp_path / "a.jsonl", good + '{"text": "c"}\n'))
    assert re.fullmatch(r'.*a\.jsonl:3: field "score": is missing.*', str(caught.value))
    with pytest.raises(InputError, match=r"b\.jsonl:2: .*found label; needed are `text`"):
        read_examples(write(tmp_path / "b.jsonl", '{"text": "a", "label": "x"}\n{"label": "x"}\n'))


def test_a_regression_learns_scores_where_there_are_labels_too(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", "text\tlabel\tscore\na\t1\t0.5\n")
    assert read_examples(file, labels=LabelFormat("regression"))[0].label == 0.5
    assert read_examples(file)[0].label == "1"


def test_lists_of_zeros_and_ones_are_no_names(tmp_path: Path) -> None:
    lines = '{"text": "a", "labels": [0, 1, 1]}\n{"text": "b", "labels": [1, 0, 0]}\n'
    with pytest.raises(InputError, match=r'a\.jsonl:1: field "label": is a list of zeros and ones'):
        read_examples(write(tmp_path / "a.jsonl", lines))
    numbers = '{"text": "a", "labels": [0, 1]}\n{"text": "b", "labels": [1]}\n'
    assert [row.label for row in read_examples(write(tmp_path / "b.jsonl", numbers))] == [("0", "1"), ("1",)]


def test_bytes_are_no_label(tmp_path: Path) -> None:
    table = pa.table({"text": ["a"], "label": pa.array([b"x"])})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match='field "label": is of type bytes'):
        read_examples(tmp_path / "a.parquet")
