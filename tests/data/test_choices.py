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
