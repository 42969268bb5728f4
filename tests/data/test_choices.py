from __future__ import annotations

from pathlib import Path

import pytest

from bertsmith.data.choices import read_choices
from bertsmith.errors import InputError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_lists_and_columns_of_choices(tmp_path: Path) -> None:
    rows = read_choices(
        write(
            tmp_path / "a.jsonl",
            '{"text": "q", "choices": ["x", "y", "z"], "label": 2}\n'
            '{"text": "q", "choices": ["x", "y"], "label": "y"}\n',
        )
    )
    assert [(row.choices, row.label) for row in rows] == [(("x", "y", "z"), 2), (("x", "y"), 1)]
    table = write(tmp_path / "a.tsv", "question\tchoice1\tchoice2\tchoice3\tlabel\nq\ta\tb\t\t0\nq\ta\tb\tc\tc\n")
    assert [(row.choices, row.label) for row in read_choices(table)] == [(("a", "b"), 0), (("a", "b", "c"), 2)]
    assert read_choices(table, labelled=False)[0].label is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("q\ta\t\tc\t0", r'a\.tsv:2: field "choice2": is empty'),
        ("q\ta\t\t\t0", "has 1 choice"),
        ("q\ta\tb\tc\t7", r'field "label": is 7; the row has 3 choices, numbered 0 to 2'),
        ("q\ta\tb\tc\tx", "'x' is neither the number of a choice"),
        ("q\ta\ta\tc\ta", "'a' is neither"),
    ],
)
def test_what_is_no_choice_is_named(tmp_path: Path, row: str, message: str) -> None:
    file = write(tmp_path / "a.tsv", f"text\tchoice1\tchoice2\tchoice3\tlabel\n{row}\n")
    with pytest.raises(InputError, match=message):
        read_choices(file)


def test_labels_that_were_counted_from_one_are_noticed(tmp_path: Path) -> None:
    rows = "".join(f"q{i}\ta\tb\tc\t{1 + i % 2}\n" for i in range(60))
    file = write(tmp_path / "a.tsv", f"text\tchoice1\tchoice2\tchoice3\tlabel\n{rows}")
    with pytest.raises(InputError, match="choices are numbered from 0"):
        read_choices(file)


def test_a_label_that_may_be_number_or_text_is_what_other_rows_say(tmp_path: Path) -> None:
    header, both = "text\tchoice1\tchoice2\tchoice3\tlabel\n", "q\t1\t2\t3\t2\n"
    texts = write(tmp_path / "a.tsv", f"{header}{both}q\t10\t20\t30\t30\n")
    assert [row.label for row in read_choices(texts)] == [1, 2]
    numbers = write(tmp_path / "b.tsv", f"{header}{both}q\t10\t20\t30\t0\n")
    assert [row.label for row in read_choices(numbers)] == [2, 0]
    for rows in (both, f"{both}q\t10\t20\t30\t30\nq\t10\t20\t30\t0\n"):
        with pytest.raises(
            InputError, match=r"c\.tsv:2: field \"label\": '2' may be the number of a choice or its text"
        ):
            read_choices(write(tmp_path / "c.tsv", header + rows))
    lines = (
        '{"text": "q", "choices": ["1", "2", "3"], "label": "2"}\n{"text": "q", "choices": ["1", "2"], "label": 0}\n'
    )
    assert [row.label for row in read_choices(write(tmp_path / "a.jsonl", lines))] == [1, 0]
